//! Which certificate is shown to whom.
//!
//! A client names the host that it wants (SNI, RFC 6066 section 3): it is shown a certificate that has the name, else one for
//! all names a level above (`*.example.com` is for `a.example.com`, and neither for `example.com` nor for `a.b.example.com`: RFC
//! 9525 section 6.3). Of several, one whose key the client can verify: ECDSA before RSA, whose signature costs ten times as much.
//! Who names nothing, or a name that nobody has, is shown the first that it can verify, and may think of it what it likes.

use std::{collections::HashMap, fmt, sync::Arc};

use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::pair::Pair;
use crate::live::Live;

/// All certificates, and where each name leads.
pub(super) struct Table {
    pairs: Vec<Pair>,
    /// `*.` in front of a name is for all below.
    by_name: HashMap<String, Vec<usize>>,
}

impl Table {
    pub fn new(pairs: Vec<Pair>) -> Table {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, pair) in pairs.iter().enumerate() {
            for name in &pair.names {
                by_name.entry(name.clone()).or_default().push(index);
            }
        }
        for these in by_name.values_mut() {
            these.sort_by_key(|index| pairs[*index].is_rsa);
        }
        Table { pairs, by_name }
    }

    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Logs what is shown from now on, and what is unwise about it.
    pub fn tell(&self) {
        for pair in &self.pairs {
            tracing::info!("{pair}");
            for warning in &pair.warnings {
                tracing::warn!("{warning}");
            }
        }
    }

    /// The certificate for whoever wants this name, and can verify these kinds of signatures. None only if there are no certificates.
    pub fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let above = name.as_ref().and_then(|name| Some(format!("*.{}", name.split_once('.')?.1)));
        let named = [name, above].into_iter().flatten().filter_map(|name| self.by_name.get(&name)).flatten().copied();
        let mut all = named.chain(0..self.pairs.len()).map(|index| &self.pairs[index].key);
        // If it can verify none, the handshake ends with an alert that says so.
        all.find(|pair| pair.key.choose_scheme(schemes).is_some()).or(self.pairs.first().map(|pair| &pair.key))
    }
}

/// Shows clients the certificates of the newest table.
pub(super) struct Resolver(pub Arc<Live<Table>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.get().choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}
