//! TLS in front of a server that speaks in clear: what a proxy does, in as few words as rustls' buffered interface allows. And certificates.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread,
};

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustix::event::{PollFd, PollFlags, poll};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion, crypto::aws_lc_rs, pki_types::PrivateKeyDer};

/// A relay with a certificate for 127.0.0.1 of an authority of its own.
pub struct Relay {
    pub address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Relay {
    /// In front of `backend`, for as long as the test; speaks all versions of TLS.
    pub fn to(backend: SocketAddr) -> Self {
        Self::with(backend, rustls::ALL_VERSIONS)
    }

    /// The same with these versions.
    pub fn with(backend: SocketAddr, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = names.signed_by(&key, &authority).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (listener, config) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(config));
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let config = Arc::clone(&config);
                thread::spawn(move || relay(client, backend, config));
            }
        });
        Self { address, folder }
    }

    /// Who has to be trusted.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The options that trust it.
    pub fn trusted(&self) -> String {
        format!("--tls-ca {}", self.ca().display())
    }
}

/// Until either end has ended.
fn relay(mut client: TcpStream, backend: SocketAddr, config: Arc<ServerConfig>) {
    let Ok(mut backend) = TcpStream::connect(backend) else { return };
    for stream in [&client, &backend] {
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
    }
    let mut tls = ServerConnection::new(config).unwrap();
    tls.set_buffer_limit(None);
    let (mut up, mut buffer, mut over) = (Vec::new(), vec![0; 64 * 1024], false);
    loop {
        while tls.wants_write() {
            match tls.write_tls(&mut client) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return,
            }
        }
        if over && !tls.wants_write() {
            let _ = client.shutdown(Shutdown::Write);
            return;
        }
        match backend.write(&up) {
            Ok(len) => drop(up.drain(..len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        let out = |wanted: bool| if wanted { PollFlags::OUT } else { PollFlags::empty() };
        let clear = !tls.wants_write();
        let mut ends = [
            PollFd::new(&client, out(!clear) | PollFlags::IN),
            PollFd::new(&backend, out(!up.is_empty()) | if clear { PollFlags::IN } else { PollFlags::empty() }),
        ];
        poll(&mut ends, None).unwrap();
        let [from_client, from_backend] = [0, 1].map(|end| ends[end].revents());
        if from_client.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            match tls.read_tls(&mut client) {
                Ok(0) => return,
                Ok(_) => {
                    over |= tls.process_new_packets().map_or(true, |state| state.peer_has_closed());
                    let _ = tls.reader().read_to_end(&mut up);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        if from_backend.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !over {
            match backend.read(&mut buffer) {
                Ok(0) => {
                    tls.send_close_notify();
                    over = true;
                }
                Ok(len) => tls.writer().write_all(&buffer[..len]).unwrap(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}
