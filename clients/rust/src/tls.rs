//! Whom one trusts, over TLS: the system's roots, or those of a file.

use std::{path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, InvalidMessage, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::event::Error;

/// Trusts whom the system trusts.
///
/// # Errors
/// `tls`: it trusts nobody.
pub fn system() -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    // Some that this library can't read are among every system's.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    config(roots, "this system")
}

/// Trusts who is in a file of certificates in PEM.
///
/// # Errors
/// `tls`: it can't be read, or nobody is in it.
pub fn file(path: &Path) -> Result<Arc<ClientConfig>, Error> {
    let wrong = |what: &dyn std::fmt::Display| Error::new("tls", format!("{}: {what}", path.display()));
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    config(roots, &path.display().to_string())
}

/// What is said of a certificate that nobody vouches for.
pub const UNTRUSTED: &str = "its certificate is signed by nobody who is trusted here";

/// What went wrong over TLS, as a sentence.
pub fn explain(error: &rustls::Error) -> String {
    use rustls::Error as Wrong;
    match error {
        Wrong::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => UNTRUSTED.into(),
        Wrong::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
            let names = if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") };
            format!("its certificate is not for {} but for {names}", expected.to_str())
        }
        Wrong::InvalidCertificate(CertificateError::ExpiredContext { .. } | CertificateError::Expired) => {
            "its certificate has expired".into()
        }
        Wrong::InvalidCertificate(CertificateError::NotValidYetContext { .. } | CertificateError::NotValidYet) => {
            "its certificate is not valid yet: is the clock right?".into()
        }
        Wrong::InvalidCertificate(other) => format!("its certificate is no good: {other}"),
        Wrong::InvalidMessage(InvalidMessage::InvalidContentType) => "it speaks no TLS there".into(),
        Wrong::AlertReceived(alert) => format!("it ended TLS with the alert {alert:?}"),
        other => other.to_string(),
    }
}

fn config(roots: RootCertStore, whose: &str) -> Result<Arc<ClientConfig>, Error> {
    if roots.is_empty() {
        return Err(Error::new("tls", format!("{whose}: expected certificates to trust; found none")));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new("tls", error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
