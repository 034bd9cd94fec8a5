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
//! A client sends whatever certificates it likes beside its own: some that lead nowhere, some beyond its authority, some that are forged. What counts is
//! the path of which every signature was found to be right, and that is what is kept of a holder; so the path is looked for here, by rustls-webpki, rather than
//! by the verifier of rustls, which says of it only that there is one.
//!
//! What a hostile certificate may cost is for rustls-webpki to bound (signatures and names in a path have budgets), and is spent on the threads for
//! handshakes, which are nobody else's.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder,
    VerifiedPath,
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
    pub taken_back: Arc<TakenBack>,
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
        let (mut lists, mut judged_by, mut issuers, mut warnings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let authorities = Some(subjects.iter().map(|name| Id::of_authority(name)).collect());
        let mut taken_back = TakenBack { certificates: HashSet::new(), authorities };
        for file in &sources.crls {
            let from = Origin { flag: "--tls-client-crl", file };
            let (bytes, mut earliest) = (read_file(from)?, u64::MAX);
            for List { list, issuer, next, certificates } in read_lists(from, &bytes)? {
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
                judged_by.push(list);
            }
            lists.push((file.clone(), earliest));
            made_of.push(bytes);
        }
        if !judged_by.is_empty() {
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
        let (authorities, listed) = (roots.len(), judged_by.len());
        let judge = Arc::new(Judge {
            hints: roots.subjects(),
            roots,
            lists: judged_by,
            algorithms: provider.signature_verification_algorithms,
            auth: sources.auth,
        });
        let taken_back = Arc::new(taken_back);
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
    /// As certificates are judged by it.
    list: CertRevocationList<'static>,
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
        let list = OwnedCertRevocationList::from_der(&der)
            .map_err(|error| from.error(format!("certificates can't be judged by its list number {nth}: {error}")))?;
        lists.push(List { list: list.into(), issuer, next, certificates });
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
    roots: RootCertStore,
    /// The names of these, for clients to choose a certificate by.
    hints: Vec<DistinguishedName>,
    lists: Vec<CertRevocationList<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    auth: ClientAuth,
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
        self.verify(own, others, UnixTime::since_unix_epoch(Duration::from_secs(now))).map(Some)
    }

    /// Looks for a path from a certificate to one of the authorities, and whose it is. `others` may hold anything.
    fn verify(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Certified, Error> {
        let certificate = EndEntityCert::try_from(own).map_err(in_terms_of_tls)?;
        let lists: Vec<&CertRevocationList<'_>> = self.lists.iter().collect();
        // For the whole chain, as it is unless said otherwise; what no list is about is refused, and a list that is out of date says nothing. Without any
        // list there are no such options.
        let revocation = RevocationOptionsBuilder::new(&lists).ok();
        let revocation = revocation.map(|options| options.with_expiration_policy(ExpirationPolicy::Enforce).build());
        let (algorithms, roots) = (self.algorithms.all, &self.roots.roots);
        let path = certificate
            .verify_for_usage(algorithms, roots, others, now, KeyUsage::client_auth(), revocation, None)
            .map_err(in_terms_of_tls)?;
        read_holder(own, &path).map_err(into_error)
    }
}

/// What is wrong with a certificate as rustls says it, which sends the alert that goes with it.
fn in_terms_of_tls(error: webpki::Error) -> Error {
    use webpki::Error as Why;
    let why = match error {
        Why::BadDer | Why::BadDerTime | Why::TrailingData(_) => CertificateError::BadEncoding,
        Why::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
        Why::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        Why::UnknownIssuer => CertificateError::UnknownIssuer,
        Why::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Why::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        Why::CertRevoked => CertificateError::Revoked,
        Why::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        Why::CrlExpired { time, next_update } => CertificateError::ExpiredRevocationListContext { time, next_update },
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    why.into()
}

fn into_error(why: Nameless) -> Error {
    CertificateError::Other(OtherError(Arc::new(why))).into()
}

/// The name in a certificate, when it or one of its path expires, and what that path is.
fn read_holder(own: &CertificateDer<'_>, verified: &VerifiedPath<'_>) -> Result<Certified, Nameless> {
    let (_, parsed) = X509Certificate::from_der(own).map_err(|_| Nameless::Unreadable)?;
    let name = read_name(&parsed)?;
    let mut expires = parsed.validity().not_after.timestamp();
    let mut path = vec![id(&parsed)];
    for between in verified.intermediate_certificates() {
        let der = between.der();
        let (_, between) = X509Certificate::from_der(&der).map_err(|_| Nameless::Unreadable)?;
        expires = expires.min(between.validity().not_after.timestamp());
        path.push(id(&between));
    }
    let authority = Id::of_authority(DistinguishedName::in_sequence(&verified.anchor().subject).as_ref());
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
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        match self.auth {
            ClientAuth::Request => false,
            ClientAuth::Require => true,
        }
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    /// Its name too: so that the client is told by an alert, while there is still one.
    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(own, others, now).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
