//! A certificate and its key: read from files, and checked.
//!
//! Whatever would make clients refuse the certificate, and can be told without asking anybody, is told here, with the file and what
//! is wrong with it: that is when somebody looks. Not checked: whether clients trust whoever signed it, whether it was
//! revoked, and signatures within the chain (its names are compared).

use std::{
    fmt,
    fs::{self, File},
    io::Read,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    Error, InconsistentKeys, SignatureAlgorithm,
    crypto::aws_lc_rs::{cipher_suite::TLS13_AES_128_GCM_SHA256, default_provider},
    pki_types::{
        CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

use super::Shown;

/// Certificates take some KiB; what is larger is another file, given by mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is wrong with a file of a certificate or a key.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {}: {why}", file.display())]
pub struct KeysError {
    /// The flag that names it.
    pub flag: &'static str,
    /// The file.
    pub file: PathBuf,
    /// A sentence for the operator.
    pub why: String,
}

/// Where a file is said to be from.
#[derive(Clone, Copy)]
pub(super) struct Origin<'p> {
    pub flag: &'static str,
    pub file: &'p Path,
}

impl Origin<'_> {
    pub fn error(self, why: impl Into<String>) -> KeysError {
        KeysError { flag: self.flag, file: self.file.to_owned(), why: why.into() }
    }
}

/// A certificate with its chain and key, fit to be shown.
#[derive(Debug)]
pub(super) struct Pair {
    pub key: Arc<CertifiedKey>,
    /// Whether the key is of RSA, which costs ten times as much as others.
    pub is_rsa: bool,
    /// The names that it is for, in lower case, `*.` in front where it is for all below; and addresses, which nobody asks for by name.
    pub names: Vec<String>,
    /// When it or another of the chain expires, in seconds since the Unix epoch.
    pub expires: u64,
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    pub file: PathBuf,
    /// Sentences about what is allowed and unwise.
    pub warnings: Vec<String>,
}

impl Pair {
    /// What the figures say of it.
    pub fn shown(&self) -> Shown {
        Shown { name: self.name().to_owned(), file: self.file.display().to_string(), expires: self.expires }
    }

    fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = if self.names.is_empty() { "no name".to_owned() } else { self.names.join(", ") };
        let (file, expires) = (self.file.display(), date(self.expires.cast_signed()));
        write!(f, "certificate {file}: for {names}, expires {expires}, SHA-256 {}", self.fingerprint)
    }
}

/// Reads the files of `--tls-cert` and `--tls-key`, and checks them as of `now`, in seconds since the Unix epoch.
///
/// # Errors
/// Whatever keeps it from being shown.
pub(super) fn read(cert: &Path, key: &Path, now: u64) -> Result<Pair, KeysError> {
    read_as(Origin { flag: "--tls-cert", file: cert }, Origin { flag: "--tls-key", file: key }, now)
}

/// The same for files of any origin.
pub(super) fn read_as(cert: Origin<'_>, key: Origin<'_>, now: u64) -> Result<Pair, KeysError> {
    let chain = read_chain(cert)?;
    let (private, warning) = read_key(key)?;
    let provider = default_provider();
    let private = provider.key_provider.load_private_key(private);
    let private = private.map_err(|error| key.error(format!("its key is of no kind that TLS has here: {error}")))?;
    let is_rsa = private.algorithm() == SignatureAlgorithm::RSA;
    let certified = CertifiedKey::new(chain, private);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(Error::InconsistentKeys(_)) => {
            return Err(mismatch(cert, key, &certified));
        }
        Err(error) => return Err(cert.error(format!("its certificate can't be used: {error}"))),
    }
    let (names, expires) = check_chain(cert, &certified.cert, now)?;
    let unnamed = names.is_empty().then(|| {
        let file = cert.file.display();
        format!("{} {file}: it names no host (subjectAltName), and browsers refuse it", cert.flag)
    });
    Ok(Pair {
        fingerprint: certified.cert.first().map(|own| fingerprint(own)).unwrap_or_default(),
        key: Arc::new(certified),
        is_rsa,
        names,
        expires,
        file: cert.file.to_owned(),
        warnings: warning.into_iter().chain(unnamed).collect(),
    })
}

/// That a key isn't that of a certificate; or that it is, and of another one than the first of its file.
fn mismatch(cert: Origin<'_>, key: Origin<'_>, certified: &CertifiedKey) -> KeysError {
    let file = cert.file.display();
    let public = certified.key.public_key().unwrap_or(SubjectPublicKeyInfoDer::from(&[][..]));
    let is_its = |der: &CertificateDer<'_>| {
        X509Certificate::from_der(der).is_ok_and(|(_, other)| other.public_key().raw == public.as_ref())
    };
    match certified.cert.iter().position(is_its) {
        None => key.error(format!("it is not the key of the certificate in {file}")),
        Some(index) => cert.error(format!(
            "the key in {} is that of its {} certificate: expected the server's own first, then each followed by the one that \
             signed it",
            key.file.display(),
            nth(index)
        )),
    }
}

/// Whether there is a certificate, and it has expired.
pub(super) fn has_expired(from: Origin<'_>, now: u64) -> bool {
    let chain = read_chain(from).unwrap_or_default();
    let until =
        |own: &CertificateDer<'_>| Some(X509Certificate::from_der(own).ok()?.1.validity().not_after.timestamp());
    chain.first().and_then(until).is_some_and(|until| until <= now.cast_signed())
}

fn read_chain(from: Origin<'_>) -> Result<Vec<CertificateDer<'static>>, KeysError> {
    let bytes = read_file(from)?;
    let chain = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| from.error(not_pem(&error)))?;
    if chain.is_empty() {
        let why = match holds(&bytes, "PRIVATE KEY-----") {
            true => "it holds a private key and no certificate",
            false => "it holds no certificate: expected PEM, which begins with -----BEGIN CERTIFICATE-----",
        };
        return Err(from.error(why));
    }
    Ok(chain)
}

/// The key, and whether it is unwise how it is kept.
fn read_key(from: Origin<'_>) -> Result<(PrivateKeyDer<'static>, Option<String>), KeysError> {
    let bytes = read_file(from)?;
    if holds(&bytes, "BEGIN ENCRYPTED PRIVATE KEY-----") || holds(&bytes, "Proc-Type: 4,ENCRYPTED") {
        return Err(from.error(
            "its key is encrypted with a passphrase, which nobody is there to give: decrypt it (openssl pkey), and let \
             the service's user alone read it",
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        from.error(match (&error, holds(&bytes, "BEGIN CERTIFICATE-----")) {
            (pem::Error::NoItemsFound, true) => "it holds a certificate and no private key".to_owned(),
            (pem::Error::NoItemsFound, false) => {
                "it holds no private key: expected PEM, with a line like -----BEGIN PRIVATE KEY-----".to_owned()
            }
            _ => not_pem(&error),
        })
    })?;
    let mode = fs::metadata(from.file).map_or(0, |found| found.permissions().mode() & 0o777);
    let warning = (mode & 0o006 != 0).then(|| {
        let file = from.file.display();
        format!(
            "{} {file}: everybody on this machine can read or change the key (mode {mode:04o}): chmod o= {file}",
            from.flag
        )
    });
    Ok((key, warning))
}

pub(super) fn read_file(from: Origin<'_>) -> Result<Vec<u8>, KeysError> {
    let wrong = |error: std::io::Error| from.error(error.to_string());
    // A pipe would be waited for.
    let found = fs::metadata(from.file).map_err(wrong)?;
    if !found.is_file() {
        return Err(from.error("it is no file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(from.file).map_err(wrong)?;
    file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(from.error(format!("expected a file of at most {FILE_BYTES_MAX} bytes, found more")));
    }
    Ok(bytes)
}

fn holds(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

pub(super) fn not_pem(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "it is cut off: the line -----END … is missing".into(),
        pem::Error::IllegalSectionStart { .. } => "it is not PEM: a line -----BEGIN … is not as it should be".into(),
        pem::Error::Base64Decode(_) => "it is not PEM: what is between the lines BEGIN and END is not base64".into(),
        other => format!("it is not PEM: {other}"),
    }
}

/// Checks each certificate and their order; returns the names of the first, and when the earliest expires.
fn check_chain(from: Origin<'_>, chain: &[CertificateDer<'_>], now: u64) -> Result<(Vec<String>, u64), KeysError> {
    let parsed = chain.iter().enumerate().map(|(index, der)| {
        let parsed = X509Certificate::from_der(der);
        parsed.map(|(_, parsed)| parsed).map_err(|error| {
            let nth = nth(index);
            from.error(format!("its {nth} certificate can't be read: {error}"))
        })
    });
    let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
    let mut expires = i64::MAX;
    for (index, certificate) in parsed.iter().enumerate() {
        let (nth, subject) = (nth(index), certificate.subject());
        let validity = certificate.validity();
        let (from_then, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        if until <= now.cast_signed() {
            return Err(from.error(format!("its {nth} certificate ({subject}) has expired on {}", date(until))));
        }
        if from_then > now.cast_signed() {
            let date = date(from_then);
            let why = format!("its {nth} certificate ({subject}) is not valid before {date}: is the clock right?");
            return Err(from.error(why));
        }
        expires = expires.min(until);
    }
    for (index, two) in parsed.windows(2).enumerate() {
        let [signed, signer] = two else { continue };
        if signed.issuer().as_raw() != signer.subject().as_raw() {
            return Err(from.error(format!(
                "its {} certificate was signed by {}, and the one behind it is {}: expected the server's own first, then \
                 each followed by the one that signed it",
                nth(index),
                signed.issuer(),
                signer.subject()
            )));
        }
    }
    Ok((parsed.first().map(names).unwrap_or_default(), expires.max(0).cast_unsigned()))
}

fn nth(index: usize) -> String {
    match index {
        0 => "first".into(),
        1 => "second".into(),
        2 => "third".into(),
        more => format!("{}th", more.saturating_add(1)),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The names and addresses that a certificate is for, in lower case.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extensions = certificate.extensions().iter();
    let names = extensions.filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    let names = names.flatten().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    });
    names.collect()
}

/// SHA-256 as people compare it: `AB:CD:…`.
pub(super) fn fingerprint(der: &[u8]) -> String {
    let hash = TLS13_AES_128_GCM_SHA256.tls13().map(|suite| suite.common.hash_provider.hash(der));
    let bytes = hash.as_ref().map(AsRef::as_ref).unwrap_or_default();
    bytes.iter().map(|byte: &u8| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// `2026-11-29T12:00:00Z`
pub(super) fn date(seconds: i64) -> String {
    // Beyond the year 9999 nothing is written any more: RFC 5280 section 4.1.2.5.
    const LAST: u64 = 253_402_300_799;
    let seconds = Duration::from_secs(seconds.max(0).cast_unsigned().min(LAST));
    let time: SystemTime = UNIX_EPOCH.checked_add(seconds).unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_seconds(time).to_string()
}
