//! Certificates that clients show: who signs them, who was taken back, and whose name is in them.
//!
//! ```text
//!  --tls-client-ca  ─┐ read, checked
//!  --tls-client-crl ─┼──────────────► Judge ──► in the handshake: chain, purpose, time, CRL, name
//!  --tls-client-auth ┘                   └────► once more when it is done, resumed or not: by the newest files
//! ```
//!
//! A certificate names its holder by one DNS name or one URI among its alternative names (RFC 5280, section 4.2.1.6). One that has none of them
//! names nobody, and of one that has several nobody knows which is meant: both are refused. The common name isn't looked at.
//!
//! A session that is resumed shows no certificate: what the client showed once comes out of its ticket. So tickets don't outlive what they
//! were given by: when a file changes that certificates are judged by, sessions from then on have another ticketer, which can't read them. And a
//! certificate is judged again when a resumed handshake is done, since time passes: it expires, and so do lists of what was taken back.
//! Whoever is connected when a certificate is put on a list, or its authority is taken out of the file, is told so and ends: the rights of its holder have
//! ended ([`TakenBack`], which `access` holds each connection against).
//!
//! What a hostile certificate may cost is for rustls-webpki to bound (signatures and names in a path have budgets), and is spent on the threads for
//! handshakes, which are nobody else's.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    revocation_list::CertificateRevocationList,
};

use super::pair::{KeysError, Origin, date, not_pem, read_file};
use crate::{
    certified::{Certified, Id, TakenBack},
    config::{ClientAuth, Config},
};

/// Longest name of a holder, in bytes.
const NAME_MAX: usize = 255;

/// Certificates of a path, at most.
const PATH_MAX: usize = 8;

/// The settings that say how clients' certificates are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientSources {
    pub ca: PathBuf,
    pub crls: Vec<PathBuf>,
    pub auth: ClientAuth,
}

impl ClientSources {
    /// Those of the settings; none where clients aren't asked for certificates.
    pub fn of(config: &Config) -> Option<ClientSources> {
        let ca = config.tls_client_ca.clone()?;
        Some(ClientSources { ca, crls: config.tls_client_crl.clone(), auth: config.tls_client_auth })
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.ca).chain(&self.crls)
    }
}

/// How clients' certificates are judged.
#[derive(Debug)]
pub(super) struct Clients {
    pub judge: Arc<Judge>,
    /// What it is made of: of two that are alike in this, tickets go on.
    pub made_of: (ClientAuth, Vec<Vec<u8>>),
    /// Each file with lists of what was taken back, with when the first of their next ones is due, in seconds since the Unix epoch.
    pub lists: Vec<(PathBuf, u64)>,
    /// What holders are judged by who are there already.
    pub taken_back: TakenBack,
    /// How many authorities there are, and how many lists.
    authorities: usize,
    listed: usize,
    /// Sentences about what is allowed and unwise.
    pub warnings: Vec<String>,
}

impl Clients {
    /// Reads and checks all files, as of `now`, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// Whatever keeps certificates from being judged by them.
    pub fn read(sources: &ClientSources, provider: &Arc<CryptoProvider>, now: u64) -> Result<Clients, KeysError> {
        let ca = Origin { flag: "--tls-client-ca", file: &sources.ca };
        let mut made_of = vec![read_file(ca)?];
        let roots = read_roots(ca, &made_of[0])?;
        let subjects: Vec<Vec<u8>> = roots.subjects().iter().map(|name| name.as_ref().to_vec()).collect();
        let (mut lists, mut ders, mut issuers, mut warnings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let authorities = Some(subjects.iter().map(|name| Id::of_authority(name)).collect());
        let mut taken_back = TakenBack { certificates: HashSet::new(), authorities };
        for file in &sources.crls {
            let from = Origin { flag: "--tls-client-crl", file };
            let (bytes, mut earliest) = (read_file(from)?, u64::MAX);
            for List { der, issuer, next, certificates } in read_lists(from, &bytes)? {
                taken_back.certificates.extend(certificates);
                if next <= now {
                    let (file, date) = (file.display(), date(next.cast_signed()));
                    warnings.push(format!(
                        "--tls-client-crl {file}: its list was to be replaced by {date}: until it is, certificates that it is about are \
                         refused"
                    ));
                }
                earliest = earliest.min(next);
                issuers.push(issuer);
                ders.push(der);
            }
            lists.push((file.clone(), earliest));
            made_of.push(bytes);
        }
        if !ders.is_empty() {
            let without = subjects.iter().filter(|subject| !issuers.contains(subject)).count();
            if without > 0 {
                let file = ca.file.display();
                warnings.push(format!(
                    "--tls-client-ca {file}: of {without} of its {} authorities there is no list among --tls-client-crl: certificates that \
                     these have signed are refused",
                    subjects.len()
                ));
            }
        }
        let (authorities, listed) = (roots.len(), ders.len());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            // For the whole chain, as it is unless said otherwise; what no list is about is refused, and a list that is out of date says nothing.
            .with_crls(ders)
            .enforce_revocation_expiration();
        let verifier = match sources.auth {
            ClientAuth::Request => verifier.allow_unauthenticated(),
            ClientAuth::Require => verifier,
        };
        let inner = verifier.build().map_err(|error| {
            let from = sources.crls.first().map_or(ca, |file| Origin { flag: "--tls-client-crl", file });
            from.error(format!("certificates can't be judged by it: {error}"))
        })?;
        let judge = Arc::new(Judge { inner });
        Ok(Clients { judge, made_of: (sources.auth, made_of), lists, taken_back, authorities, listed, warnings })
    }

    /// What is said of them at the start.
    pub fn sentence(&self) -> String {
        let how = match self.made_of.0 {
            ClientAuth::Request => "may show a certificate",
            ClientAuth::Require => "must show a certificate",
        };
        let lists = match self.listed {
            0 => "none of which can be taken back (--tls-client-crl)".to_owned(),
            1 => "by one list of what was taken back".to_owned(),
            more => format!("by {more} lists of what was taken back"),
        };
        let authorities = match self.authorities {
            1 => "one authority".to_owned(),
            more => format!("{more} authorities"),
        };
        format!("TLS clients {how} of {authorities}, {lists}")
    }
}

fn read_roots(from: Origin<'_>, bytes: &[u8]) -> Result<RootCertStore, KeysError> {
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(bytes) {
        let der = der.map_err(|error| from.error(not_pem(&error)))?;
        let nth = roots.len().saturating_add(1);
        roots
            .add(der)
            .map_err(|error| from.error(format!("its certificate number {nth} can't be an authority: {error}")))?;
    }
    if roots.is_empty() {
        let why =
            "it holds no certificate: expected PEM, with those of the authorities that sign clients' certificates";
        return Err(from.error(why));
    }
    Ok(roots)
}

/// A list of what was taken back.
struct List {
    der: CertificateRevocationListDer<'static>,
    /// Whose it is, as in DER.
    issuer: Vec<u8>,
    /// When the next one is due, in seconds since the Unix epoch.
    next: u64,
    /// What is on it.
    certificates: Vec<Id>,
}

/// The lists of a file.
fn read_lists(from: Origin<'_>, bytes: &[u8]) -> Result<Vec<List>, KeysError> {
    let mut lists = Vec::new();
    for der in CertificateRevocationListDer::pem_slice_iter(bytes) {
        let der = der.map_err(|error| from.error(not_pem(&error)))?;
        let nth = lists.len().saturating_add(1);
        let (issuer, next, certificates) = {
            let parsed = CertificateRevocationList::from_der(&der);
            let (_, list) =
                parsed.map_err(|error| from.error(format!("its list number {nth} can't be read: {error}")))?;
            // RFC 5280, section 5.1.2.5: there always is one.
            let next = list.next_update().ok_or_else(|| {
                from.error(format!("its list number {nth} doesn't say when the next one is due (nextUpdate)"))
            })?;
            let issuer = list.issuer().as_raw();
            let certificates = list.iter_revoked_certificates();
            let certificates = certificates.map(|one| Id::of_certificate(issuer, one.raw_serial())).collect();
            (issuer.to_vec(), next.timestamp().max(0).cast_unsigned(), certificates)
        };
        lists.push(List { der, issuer, next, certificates });
    }
    if lists.is_empty() {
        return Err(from.error("it holds no list: expected PEM, which begins with -----BEGIN X509 CRL-----"));
    }
    Ok(lists)
}

/// Why a certificate names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Nameless {
    /// There is no such name.
    #[error("the certificate names nobody: expected one DNS name or URI (subjectAltName), found none")]
    None,
    /// Nobody knows which is meant.
    #[error("the certificate has several names: expected one DNS name or URI (subjectAltName), found {0}")]
    Several(usize),
    /// It can't be shown, or compared.
    #[error("the certificate's name is not one: expected 1 to {NAME_MAX} visible ASCII characters")]
    Odd,
    /// It isn't one at all.
    #[error("the certificate can't be read")]
    Unreadable,
}

/// Judges certificates. See the module's description.
#[derive(Debug)]
pub(crate) struct Judge {
    inner: Arc<dyn ClientCertVerifier>,
}

impl Judge {
    /// Whose certificate this is, the first of what a client has shown, judged anew at `now`, in seconds since the Unix epoch. None of somebody who
    /// has shown none and needn't.
    ///
    /// # Errors
    /// It isn't good (any more), or there is none and there must be.
    pub fn judge(&self, shown: Option<&[CertificateDer<'_>]>, now: u64) -> Result<Option<Certified>, Error> {
        let Some([own, others @ ..]) = shown else {
            return if self.client_auth_mandatory() { Err(Error::NoCertificatesPresented) } else { Ok(None) };
        };
        self.inner.verify_client_cert(own, others, UnixTime::since_unix_epoch(Duration::from_secs(now)))?;
        read_holder(own, others).map(Some).map_err(into_error)
    }
}

fn into_error(why: Nameless) -> Error {
    CertificateError::Other(OtherError(Arc::new(why))).into()
}

/// The name in a certificate, and when it or one of its path expires.
fn read_holder(own: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<Certified, Nameless> {
    let (_, parsed) = X509Certificate::from_der(own).map_err(|_| Nameless::Unreadable)?;
    let name = read_name(&parsed)?;
    let others: Vec<X509Certificate<'_>> =
        others.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
    let mut expires = parsed.validity().not_after.timestamp();
    let mut of = &parsed;
    let mut path = vec![id(of)];
    // What else a client sends along is no part of its path.
    for _ in 0..PATH_MAX {
        let signer = others.iter().find(|other| other.subject().as_raw() == of.issuer().as_raw());
        let Some(signer) = signer.filter(|signer| signer.subject().as_raw() != of.subject().as_raw()) else { break };
        expires = expires.min(signer.validity().not_after.timestamp());
        of = signer;
        path.push(id(of));
    }
    let authority = Id::of_authority(of.issuer().as_raw());
    Ok(Certified { name, expires: expires.max(0).cast_unsigned(), path: path.into(), authority })
}

fn id(certificate: &X509Certificate<'_>) -> Id {
    Id::of_certificate(certificate.issuer().as_raw(), certificate.raw_serial())
}

fn read_name(certificate: &X509Certificate<'_>) -> Result<String, Nameless> {
    let alternatives = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    let names: Vec<String> = alternatives
        .flatten()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::URI(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect();
    match <[String; 1]>::try_from(names) {
        Ok([name]) if (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(name)
        }
        Ok(_) => Err(Nameless::Odd),
        Err(names) if names.is_empty() => Err(Nameless::None),
        Err(names) => Err(Nameless::Several(names.len())),
    }
}

impl ClientCertVerifier for Judge {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    /// As the one within, and then for its name: so that the client is told by an alert, while there is still one.
    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(own, others, now)?;
        read_holder(own, others).map(|_| verified).map_err(into_error)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
