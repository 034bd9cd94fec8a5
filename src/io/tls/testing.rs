//! The other end of a TLS session, for tests and benches: rustls' client, which knows nothing of what is tested.

use std::{
    io::{Read, Write},
    sync::{Arc, LazyLock},
};

use rustls::{
    ALL_VERSIONS, CipherSuiteCommon, ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedCipherSuite,
    SupportedProtocolVersion, Tls12CipherSuite, Tls13CipherSuite,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{PrivateKeyDer, ServerName},
};

use super::session::{Session, Stage};
use crate::tls::seal::suites;

/// All that there are, as the server has its own.
static SUITES: LazyLock<Vec<SupportedCipherSuite>> = LazyLock::new(|| suites(aws_lc_rs::ALL_CIPHER_SUITES));

/// A server's settings with a certificate for `localhost`, and who trusts it.
static SERVER: LazyLock<(Arc<ServerConfig>, RootCertStore)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = CryptoProvider { cipher_suites: SUITES.clone(), ..aws_lc_rs::default_provider() };
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), roots)
});

/// One for all clients, so that they resume each other's sessions: that takes less time.
static CLIENT: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| client(ALL_VERSIONS));

fn client(versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(SERVER.1.clone())
        .with_no_client_auth();
    Arc::new(config)
}

/// Settings for sessions of the server.
pub fn server() -> Arc<ServerConfig> {
    Arc::clone(&SERVER.0)
}

/// The same, where keys may encrypt no more than so many records.
pub fn server_of_weak_keys(records: u64) -> Arc<ServerConfig> {
    let mut provider = aws_lc_rs::default_provider();
    let weaken = |suite: SupportedCipherSuite| match suite {
        SupportedCipherSuite::Tls12(suite) => {
            let common = CipherSuiteCommon { confidentiality_limit: records, ..weak(&suite.common) };
            SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite { common, ..*suite })))
        }
        SupportedCipherSuite::Tls13(suite) => {
            let common = CipherSuiteCommon { confidentiality_limit: records, ..weak(&suite.common) };
            SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite { common, ..*suite })))
        }
    };
    provider.cipher_suites = SUITES.iter().copied().map(weaken).collect();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&SERVER.0.cert_resolver));
    Arc::new(config)
}

fn weak(common: &CipherSuiteCommon) -> CipherSuiteCommon {
    CipherSuiteCommon {
        suite: common.suite,
        hash_provider: common.hash_provider,
        confidentiality_limit: common.confidentiality_limit,
    }
}

/// A client.
pub struct Client(ClientConnection);

impl Client {
    pub fn any() -> Client {
        Client::of(&CLIENT)
    }

    /// One that speaks this version alone.
    pub fn speaking(version: &'static SupportedProtocolVersion) -> Client {
        Client::of(&client(&[version]))
    }

    fn of(config: &Arc<ClientConfig>) -> Client {
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        tls.set_buffer_limit(None);
        Client(tls)
    }

    /// What it says of TLS' own by now, such as its hello.
    pub fn says(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Encrypts, in one record for each of `parts`.
    pub fn encrypt<'p>(&mut self, parts: impl IntoIterator<Item = &'p [u8]>) -> Vec<u8> {
        for part in parts {
            self.0.writer().write_all(part).unwrap();
        }
        self.says()
    }

    /// Decrypts what has come.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decrypt(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            self.0.read_tls(&mut bytes).unwrap();
            self.0.process_new_packets()?;
            // The end shows as none, or as none yet.
            let _ = self.0.reader().read_to_end(&mut plain);
        }
        Ok(plain)
    }

    /// Whether the peer has said that it sends no more.
    pub fn has_ended(&mut self) -> bool {
        self.0.process_new_packets().unwrap().peer_has_closed()
    }

    pub fn end(&mut self) -> Vec<u8> {
        self.0.send_close_notify();
        self.says()
    }

    pub fn change_keys(&mut self) -> Vec<u8> {
        self.0.refresh_traffic_keys().unwrap();
        self.says()
    }

    pub fn is_shaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Does the handshake with a session of the server's, in memory.
    pub fn agree(&mut self) -> Session {
        self.agree_with(server())
    }

    pub fn agree_with(&mut self, config: Arc<ServerConfig>) -> Session {
        let mut session = Session::new(config).unwrap();
        let mut input = Vec::new();
        while self.is_shaking() || session.stage() != Stage::Open {
            input.extend(self.says());
            let mut answer = Vec::new();
            let (done, result) = session.take_in(&mut input, |_| panic!("nothing was said yet"), &mut answer);
            result.unwrap();
            input.drain(..done);
            self.decrypt(&answer).unwrap();
        }
        assert!(input.is_empty());
        session
    }
}
