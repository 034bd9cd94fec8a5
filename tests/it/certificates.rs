//! Certificates of the running program: replaced under connections, read again, checked, asked for.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tungstenite::{
    Message, WebSocket,
    client::{IntoClientRequest, client_with_config},
    protocol::WebSocketConfig,
};

use crate::{
    client::{PATIENCE, exchange, tcp, until},
    process::{Running, run},
    reload::File,
};

/// Somebody who trusts one certificate, and whatever it has signed.
pub struct Visitor(Arc<ClientConfig>);

impl Visitor {
    pub fn trusting(file: impl AsRef<Path>) -> Visitor {
        let mut config = Visitor::settings(file);
        // Each looks at the certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Visitor(Arc::new(config))
    }

    /// One that resumes its sessions.
    fn returning(file: impl AsRef<Path>) -> Visitor {
        Visitor(Arc::new(Visitor::settings(file)))
    }

    fn settings(file: impl AsRef<Path>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
        Visitor::settings_of(roots)
    }

    fn settings_of(roots: RootCertStore) -> ClientConfig {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        config.with_root_certificates(roots).with_no_client_auth()
    }

    /// A connection to `localhost` there.
    pub fn open(&self, address: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(&self.0), name).unwrap(), tcp(address));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream
    }

    /// The certificate that is shown there.
    fn sees(&self, address: SocketAddr) -> CertificateDer<'static> {
        self.open(address).conn.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

/// An authority, and a folder for its files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Authority { issuer, folder: TempDir::new().unwrap() };
        authority.write("root", &authority.issuer.pem());
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Renames it there, as a deploy hook does.
    fn write(&self, name: &str, text: &str) {
        let new = self.path(".new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    /// Makes a certificate for `localhost`, in `cert` and `key`.
    fn issue(&self) -> CertificateDer<'static> {
        self.issue_in(".")
    }

    /// The same in this folder.
    fn issue_in(&self, folder: &str) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        self.write(&format!("{folder}/key"), &key.serialize_pem());
        self.write(&format!("{folder}/cert"), &cert.pem());
        cert.der().clone()
    }

    /// The same as Kubernetes does: in a folder that is new, to which `..data` leads from now on, and through that `cert` and `key`.
    fn mount(&self, version: &str) -> CertificateDer<'static> {
        fs::create_dir(self.path(version)).unwrap();
        let issued = self.issue_in(version);
        symlink(version, self.path("..new")).unwrap();
        fs::rename(self.path("..new"), self.path("..data")).unwrap();
        for name in ["cert", "key"] {
            let _ = symlink(format!("..data/{name}"), self.path(name));
        }
        issued
    }

    /// The program with these files, and where it speaks TLS.
    fn start(&self, args: &[&str]) -> (Running, SocketAddr) {
        let [cert, key] = ["cert", "key"].map(|name| self.path(name).to_str().unwrap().to_owned());
        let tls = ["--tls-listen", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key];
        started(&[&tls[..], args].concat())
    }

    fn visitor(&self) -> Visitor {
        Visitor::trusting(self.path("root"))
    }
}

/// The program, and where it speaks TLS.
fn started(args: &[&str]) -> (Running, SocketAddr) {
    let mut running = Running::start(args);
    let log = running.logged("listening on https://");
    let address = log.split("listening on https://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    (running, address)
}

#[test]
fn a_certificate_is_replaced_and_nobody_who_is_connected_notices() {
    let authority = Authority::new();
    let old = authority.issue();
    let (mut running, address) = authority.start(&[]);
    let visitor = authority.visitor();
    assert_eq!(visitor.sees(address), old);
    let subscribe = |_| {
        let request = "wss://localhost/raw/a".into_client_request().unwrap();
        tungstenite::client(request, visitor.open(address)).unwrap().0
    };
    let mut subscribers: Vec<_> = (0..50).map(subscribe).collect();
    let new = authority.issue();
    let log = running.logged("certificate ");
    assert!(log.contains("for localhost, expires ") && log.contains("SHA-256 "), "{log}");
    assert_eq!(visitor.sees(address), new);
    let publish = "POST /publish/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1";
    assert!(exchange(running.at(), publish.as_bytes()).starts_with("HTTP/1.1 200"));
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.read().unwrap(), tungstenite::Message::text("1"));
    }
    assert_eq!(running.metric("tls_certificate_reloads_total{outcome=\"taken\"}"), 1.0);
}

type Subscriber = WebSocket<StreamOwned<ClientConnection, TcpStream>>;

/// What is published next, in raw.
fn text(subscriber: &mut Subscriber) -> String {
    loop {
        if let Message::Text(text) = subscriber.read().unwrap() {
            return text.to_string();
        }
    }
}

#[test]
fn a_thousand_who_are_sent_something_all_the_time_miss_nothing_of_it_while_the_certificate_is_replaced() {
    const READERS: usize = 4;
    allow_descriptors();
    let authority = Authority::new();
    let old = authority.mount("..1");
    let (mut running, address) = authority.start(&[]);
    let (visitor, returning) = (authority.visitor(), Visitor::returning(authority.path("root")));
    let comes_back = || {
        let mut stream = returning.open(address);
        // Tickets come behind the handshake.
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        until(&mut stream, "ok\n");
        stream.conn.handshake_kind()
    };
    assert_eq!((visitor.sees(address), comes_back()), (old, Some(HandshakeKind::Full)));
    let subscribers = Visitor::returning(authority.path("root"));
    let subscribe = || {
        let request = "wss://localhost/raw/a".into_client_request().unwrap();
        let config = WebSocketConfig::default().read_buffer_size(4096);
        client_with_config(request, subscribers.open(address), Some(config)).unwrap().0
    };
    let mut publisher = running.client("/ws");
    assert_eq!(publisher.json()["type"], "hello");
    let (is_over, (done, dones), (next, published)) = (AtomicBool::new(false), mpsc::channel(), mpsc::channel());
    thread::scope(|scope| {
        for _ in 0..READERS {
            let (done, subscribe) = (done.clone(), &subscribe);
            scope.spawn(move || {
                let mut subscribers: Vec<Subscriber> = (0..1000 / READERS).map(|_| subscribe()).collect();
                done.send(()).unwrap();
                for n in 0.. {
                    let texts: Vec<String> = subscribers.iter_mut().map(text).collect();
                    if texts.iter().all(|text| text == "null") {
                        return;
                    }
                    assert!(texts.iter().all(|text| *text == n.to_string()), "{n} came to all of them next");
                    done.send(()).unwrap();
                }
            });
        }
        let is_over = &is_over;
        scope.spawn(move || {
            let mut publish = |data: &str| {
                // Whoever has the one before has the next: all are busy, and none is behind.
                (0..READERS).for_each(|_| dones.recv_timeout(PATIENCE).unwrap());
                let ack = publisher.ask(&format!(r#"{{"op":"pub","id":1,"topic":"a","data":{data}}}"#));
                assert_eq!(ack["type"], "ack");
            };
            for n in 0_u64.. {
                if is_over.load(Ordering::Relaxed) {
                    return publish("null");
                }
                publish(&n.to_string());
                if next.send(n).is_err() {
                    return publish("null");
                }
            }
        });
        let ends = Ends(is_over);
        assert_eq!(published.iter().take(10).count(), 10);
        let new = authority.mount("..2");
        running.signal(Signal::HUP);
        running.logged("reloaded");
        assert_eq!((visitor.sees(address), comes_back()), (new, Some(HandshakeKind::Resumed)));
        while published.try_recv().is_ok() {}
        assert_eq!(published.iter().take(10).count(), 10);
        drop(ends);
    });
}

/// Also if the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// As many descriptors as there may be.
fn allow_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[test]
fn sighup_reads_a_certificate_for_trying_out_again_where_no_other_file_is_named() {
    let folder = TempDir::new().unwrap();
    let own = |name: &str| folder.path().join(name);
    let (mut running, address) =
        started(&["--tls-listen", "127.0.0.1:0", "--tls-self-signed", folder.path().to_str().unwrap()]);
    let old = Visitor::trusting(own("certificate.pem")).sees(address);
    // It is made anew where there is none.
    fs::remove_file(own("certificate.pem")).unwrap();
    running.signal(Signal::HUP);
    running.logged("reloaded");
    assert_ne!(Visitor::trusting(own("certificate.pem")).sees(address), old);
}

#[test]
fn sighup_reads_certificates_again_without_a_settings_file_and_keeps_the_old_ones_after_a_mistake() {
    let authority = Authority::new();
    let old = authority.issue();
    let (mut running, address) = authority.start(&[]);
    let visitor = authority.visitor();
    authority.write("key", "nothing");
    running.signal(Signal::HUP);
    let log = running.logged("nothing was reloaded");
    assert!(log.contains("--tls-key ") && log.contains("it holds no private key"), "{log}");
    assert_eq!(visitor.sees(address), old);
    let new = authority.issue();
    running.signal(Signal::HUP);
    running.logged("reloaded");
    assert_eq!(visitor.sees(address), new);
}

#[test]
fn a_client_that_does_not_trust_the_certificate_is_told_of_in_these_words() {
    let authority = Authority::new();
    authority.issue();
    let (mut running, address) = authority.start(&[]);
    let trusts_nobody = Visitor::settings_of(RootCertStore::empty());
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(trusts_nobody), name).unwrap(), tcp(address));
    assert!(stream.write_all(b"GET / HTTP/1.1\r\n\r\n").is_err());
    let log = running.logged("no TLS handshake");
    assert!(log.contains("the client doesn't trust the certificate (received fatal alert: "), "{log}");
}

#[test]
fn tls_that_is_added_to_the_settings_file_waits_for_a_restart_and_holds_nothing_else_up() {
    let authority = Authority::new();
    authority.issue();
    let file = File::new("heartbeat = '20s'\n");
    let mut running = Running::start(&["--config", file.path()]);
    let [cert, key] = ["cert", "key"].map(|name| authority.path(name).display().to_string());
    file.write(&format!("heartbeat = '30s'\ntls-listen = '127.0.0.1:0'\ntls-cert = '{cert}'\ntls-key = '{key}'\n"));
    running.signal(Signal::HUP);
    let log = running.logged("reloaded");
    let line = |name: &str| log.lines().find(|line| line.contains(&format!("\"{name}\""))).unwrap_or_default();
    assert!(line("heartbeat").contains("changed"), "{log}");
    for name in ["tls-listen", "tls-cert", "tls-key"] {
        assert!(line(name).contains("needs a restart"), "{name}: {log}");
    }
}

#[test]
fn a_program_with_a_certificate_that_clients_would_refuse_does_not_start_and_says_why() {
    let authority = Authority::new();
    authority.issue();
    let key = authority.path("key");
    let key = key.to_str().unwrap();
    let output = run(&["--listen=127.0.0.1:0", "--tls-listen=127.0.0.1:0", "--tls-cert", key, "--tls-key", key]);
    let text = String::from_utf8(output.stderr).unwrap();
    let said = format!("stentor: --tls-cert {key}: it holds a private key and no certificate");
    assert!(output.status.code() == Some(2) && text.contains(&said), "{text}");
}

#[test]
fn check_reads_all_certificates_and_makes_none() {
    let authority = Authority::new();
    authority.issue();
    let [cert, key, none] = ["cert", "key", "none"].map(|name| authority.path(name).to_str().unwrap().to_owned());
    let said = |args: &[&str]| {
        let output = run(&[&["--check", "--listen", "none", "--tls-listen", "127.0.0.1:0"], args].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = said(&["--tls-cert", &cert, "--tls-key", &key, "--tls-self-signed", &none]);
    assert_eq!(code, Some(0), "{text}");
    for part in [
        "note: would listen on 127.0.0.1:0: https://127.0.0.1:0/, wss://127.0.0.1:0/ws\n",
        &format!("note: certificate {cert}: for localhost, expires "),
        "Z, SHA-256 ",
        &format!("note: --tls-self-signed: a certificate would be made in {none}\n"),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!fs::exists(&none).unwrap());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, text) = said(&["--tls-cert", &cert, "--tls-key", &key]);
    assert!(code == Some(0) && text.contains(&format!("warning: --tls-key {key}: everybody")), "{text}");
    let (code, text) = said(&["--tls-cert", &cert, "--tls-cert", &none, "--tls-key", &cert, "--tls-key", &key]);
    assert_eq!(code, Some(1), "{text}");
    for part in [
        &format!("error: --tls-key {cert}: it holds a certificate and no private key"),
        &format!("error: --tls-cert {none}: No such file"),
    ] {
        assert!(text.contains(part), "each is said: {part}: {text}");
    }
}

#[test]
fn a_listener_for_tls_that_others_can_reach_closes_publishing() {
    let folder = TempDir::new().unwrap();
    let own = folder.path().to_str().unwrap();
    let running = Running::start(&["--tls-listen", "0.0.0.0:0", "--tls-self-signed", own]);
    let mut client = running.client("/ws");
    assert_eq!(client.json()["type"], "hello");
    assert_eq!(client.ask(r#"{"op":"pub","id":1,"topic":"a","data":1}"#)["code"], "forbidden");
}

#[test]
fn a_certificate_for_trying_out_is_the_same_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let own = folder.path().to_str().unwrap();
    let fingerprint = || {
        let mut command = crate::process::stentor();
        command.args(["--listen=127.0.0.1:0", "--tls-listen=127.0.0.1:0", "--tls-self-signed", own]);
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("SHA-256 ") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut log, &mut line).unwrap() > 0, "it ended");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        line.split("SHA-256 ").nth(1).unwrap().to_owned()
    };
    assert_eq!(fingerprint(), fingerprint());
}

#[test]
fn challenges_are_answered_and_all_else_is_sent_on_to_where_tls_is() {
    let authority = Authority::new();
    authority.issue();
    let folder = authority.path("webroot/.well-known/acme-challenge");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("token_-1"), "token.key").unwrap();
    let webroot = authority.path("webroot");
    let args = ["--acme-listen", "127.0.0.1:0", "--acme-webroot", webroot.to_str().unwrap()];
    let (mut running, tls) = authority.start(&args);
    let log = running.logged("ACME challenges: http://");
    let address: SocketAddr =
        log.split("ACME challenges: http://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    let ask = |path: &str| {
        let mut stream = tcp(address);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(ask("/.well-known/acme-challenge/token_-1").ends_with("\r\n\r\ntoken.key"));
    let log = running.logged("a challenge was answered");
    assert!(log.contains("token_-1"), "{log}");
    let answer = ask("/metrics");
    assert!(answer.starts_with("HTTP/1.1 301 Moved Permanently\r\n"), "{answer}");
    assert!(answer.contains(&format!("Location: https://127.0.0.1:{}/metrics\r\n", tls.port())), "{answer}");
    assert_eq!(running.metric("acme_challenges_total{outcome=\"answered\"}"), 1.0);
}
