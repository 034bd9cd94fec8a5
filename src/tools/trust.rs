//! Whom a TLS client trusts: the system's roots, a file of certificates, or anybody.
//!
//! What speaks to a server from here (`stentor top`, the load generator) verifies its certificate by the same rules and says in the same words what
//! was wrong with it. Nothing is resumed, and ALPN asks for HTTP/1.1; who wants it otherwise changes the configuration.

use std::{path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

/// What a client is to be: it trusts who is in the PEM file `ca`, or anybody where `insecure`, or else whom the system trusts.
///
/// # Errors
/// A sentence: the file can't be read, or nobody is in it; or the system trusts nobody.
pub fn client(ca: Option<&Path>, insecure: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match insecure {
        true => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        false => builder.with_root_certificates(ca.map_or_else(of_the_system, of_file)?),
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn of_file(path: &Path) -> Result<RootCertStore, String> {
    let wrong = |what: &dyn std::fmt::Display| format!("--tls-ca {}: {what}", path.display());
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"expected certificates in PEM (-----BEGIN CERTIFICATE-----); found none"));
    }
    Ok(roots)
}

fn of_the_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // Some that this library can't read are among every system's.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!("this system has no certificates of anybody to trust{why}: give some with --tls-ca FILE"));
    }
    Ok(roots)
}

/// What would do where nobody who is trusted has signed a certificate.
pub const TRUST: &str =
    "give its CA, or the certificate itself where it is self-signed, with --tls-ca FILE, or don't look with --insecure";

/// What went wrong, as one sentence that says what would do.
pub fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            format!("its certificate is signed by nobody who is trusted here: {TRUST}")
        }
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
            let names = if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") };
            format!("its certificate is not for {} but for {names}", expected.to_str())
        }
        Error::InvalidCertificate(CertificateError::ExpiredContext { .. } | CertificateError::Expired) => {
            "its certificate has expired".into()
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { .. } | CertificateError::NotValidYet) => {
            "its certificate is not valid yet: is the clock right?".into()
        }
        Error::InvalidCertificate(other) => format!("its certificate is no good: {other}"),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "it speaks no TLS there".into(),
        Error::AlertReceived(alert) => format!("it ended TLS with the alert {alert:?}"),
        other => other.to_string(),
    }
}

/// Verifies that who speaks has the key of the certificate that is shown, and not whose that is.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_names_nobody_says_so_with_its_name() {
        let folder = std::env::temp_dir().join(format!("stentor-trust-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("ca.pem");
        let said = |text: &str| {
            std::fs::write(&path, text).unwrap();
            client(Some(&path), false).unwrap_err()
        };
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, words) in [("", "found none"), ("nobody\n", "found none"), (broken, "ca.pem: ")] {
            assert!(said(text).contains(words), "{}", said(text));
            assert!(said(text).starts_with("--tls-ca "), "{}", said(text));
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(client(Some(&path), false).unwrap_err().contains("No such file"));
        assert!(client(Some(&path), true).is_ok());
    }
}
