//! Whose certificate a client has shown, and which certificates were taken back since.

use std::collections::HashSet;

use aws_lc_rs::digest::{Context, SHA256};

/// A certificate that was judged to be good, by the handshake that it was shown in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certified {
    /// Its name: the one DNS name, in lower case, or the one URI.
    pub name: String,
    /// When it expires, or another of its path, in seconds since the Unix epoch.
    pub expires: u64,
    /// It, and those of its path that the client has sent along, each of which has signed the one before: not what else was sent.
    pub path: Box<[Id]>,
    /// The name of the authority that the path leads to.
    pub authority: Id,
}

/// What tells a certificate, or an authority, from all others: a hash, so that all are as long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Id([u8; 32]);

impl Id {
    /// A certificate's: its serial number is unlike any other of the same issuer (RFC 5280, section 4.1.2.2). The issuer is named as in DER,
    /// the number without zeros in front.
    pub fn of_certificate(issuer: &[u8], serial: &[u8]) -> Id {
        let zeros = serial.iter().take_while(|byte| **byte == 0).count();
        Id::of(&[issuer, &serial[zeros..]])
    }

    /// An authority's, by its name as in DER.
    pub fn of_authority(name: &[u8]) -> Id {
        Id::of(&[name])
    }

    fn of(parts: &[&[u8]]) -> Id {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Id(hash)
    }
}

/// What certificates are judged by once their handshake is long over. A list of a hundred thousand certificates takes some 4 MB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenBack {
    /// Those on any of the lists.
    pub certificates: HashSet<Id>,
    /// Those who sign them; none where it isn't known, and nobody's are held against it.
    pub authorities: Option<HashSet<Id>>,
}

impl TakenBack {
    /// Where clients aren't asked for certificates any more: nobody signs one.
    pub fn all() -> TakenBack {
        TakenBack { certificates: HashSet::new(), authorities: Some(HashSet::new()) }
    }

    /// Whether a certificate isn't good any more: it or one of its path is on a list, or its authority isn't one any longer.
    pub fn has(&self, path: &[Id], authority: &Id) -> bool {
        path.iter().any(|id| self.certificates.contains(id))
            || self.authorities.as_ref().is_some_and(|all| !all.contains(authority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_its_issuer_and_its_number_and_no_other_way_to_write_them() {
        let id = Id::of_certificate;
        assert_eq!(id(b"ca", &[0, 0x80]), id(b"ca", &[0x80]));
        assert!(id(b"ca", &[1]) != id(b"ca", &[2]) && id(b"ca", &[1]) != id(b"cb", &[1]));
        assert!(id(b"c", b"a1") != id(b"ca", b"1"));
    }

    #[test]
    fn one_of_the_path_that_was_taken_back_or_an_authority_that_is_gone_ends_it() {
        let [own, between, other] = [1, 2, 3].map(|n| Id::of_certificate(b"ca", &[n]));
        let (ca, cb) = (Id::of_authority(b"ca"), Id::of_authority(b"cb"));
        let mut taken = TakenBack::default();
        assert!(!taken.has(&[own, between], &ca));
        taken.certificates.insert(other);
        assert!(!taken.has(&[own, between], &ca));
        taken.certificates.insert(between);
        assert!(taken.has(&[own, between], &ca) && !taken.has(&[own], &ca));
        taken.authorities = Some([cb].into());
        assert!(taken.has(&[own], &ca) && !taken.has(&[own], &cb));
        assert!(TakenBack::all().has(&[own], &ca));
    }
}
