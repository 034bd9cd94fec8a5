//! The server over TLS, spoken to by rustls' client and tungstenite.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::json;
use stentor::{config::Config, server::Server};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket, client::IntoClientRequest};

use crate::client::{self, Client, PATIENCE, tcp, until};

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A server that speaks TLS beside clear, and what a client needs to trust it.
pub struct Secure {
    pub server: Server,
    client: Arc<ClientConfig>,
    folder: TempDir,
}

/// Settings of a client that trusts the certificate in a folder of `--tls-self-signed`.
fn trusting(folder: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for entry in folder.read_dir().unwrap() {
        if let Ok(certificates) = CertificateDer::pem_file_iter(entry.unwrap().path()) {
            certificates.flatten().for_each(|certificate| roots.add(certificate).unwrap());
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

pub fn secure(change: impl FnOnce(&mut Config)) -> Secure {
    let folder = TempDir::new().unwrap();
    let server = client::serve(|config| {
        config.tls_self_signed = Some(folder.path().to_owned());
        config.tls_listen = vec!["127.0.0.1:0".parse().unwrap()];
        change(config);
    });
    let client = trusting(folder.path());
    Secure { server, client, folder }
}

impl Secure {
    pub fn address(&self) -> SocketAddr {
        self.server.tls_addresses()[0]
    }

    /// Where its certificate is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A connection whose handshake is done.
    fn connect(&self) -> Stream {
        self.connect_behind(b"")
    }

    /// The same, with something before the handshake.
    fn connect_behind(&self, first: &[u8]) -> Stream {
        self.try_connect_behind(first).unwrap()
    }

    fn try_connect_behind(&self, first: &[u8]) -> std::io::Result<Stream> {
        let mut stream = tcp(self.address());
        stream.write_all(first)?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(tls, stream))
    }

    pub fn subscribe(&self, path: &str) -> WebSocket<Stream> {
        upgrade(self.connect(), path)
    }

    /// All that a request is answered on a connection of its own.
    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn metric(&self, name: &str) -> f64 {
        let metrics = self.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let line =
            metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {metrics}"));
        line.trim().parse().unwrap()
    }
}

fn upgrade(stream: Stream, path: &str) -> WebSocket<Stream> {
    let request = format!("wss://localhost{path}").into_client_request().unwrap();
    tungstenite::client(request, stream).unwrap_or_else(|error| panic!("{error}")).0
}

pub fn json(socket: &mut WebSocket<Stream>) -> serde_json::Value {
    loop {
        if let Message::Text(text) = socket.read().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[test]
fn everything_that_is_spoken_in_clear_is_spoken_over_tls() {
    let secure = secure(|_| {});
    let mut subscriber = secure.subscribe("/ws?topics=q");
    assert_eq!(json(&mut subscriber)["type"], "hello");
    assert_eq!(json(&mut subscriber)["type"], "ack");
    let mut raw = secure.subscribe("/raw/q");
    let mut events = secure.connect();
    events.write_all(b"GET /sse?topics=q HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(until(&mut events, "\r\n\r\n").starts_with("HTTP/1.1 200"));
    let line = r#"{"topic":"q","data":{"n":1}}"#;
    let answer = secure.ask(&format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{line}",
        line.len()
    ));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(json(&mut subscriber)["data"], json!({"n": 1}));
    assert_eq!(raw.read().unwrap(), Message::text(r#"{"n":1}"#));
    while !until(&mut events, "\n\n").contains(r#"{"n":1}"#) {}
    for path in ["/", "/healthz", "/metrics", "/topics"] {
        let answer = secure.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    // And a large one, each way.
    let large = format!(r#"{{"op":"pub","topic":"q","data":"{}"}}"#, "x".repeat(50_000));
    subscriber.send(Message::text(large)).unwrap();
    let update = std::iter::repeat_with(|| json(&mut subscriber)).find(|message| message["type"] != "ack").unwrap();
    assert_eq!(update["data"].as_str().map(str::len), Some(50_000));
}

#[test]
fn a_connection_goes_from_thread_to_thread_with_its_session() {
    let secure = secure(|_| {});
    let mut stream = secure.connect();
    for _ in 0..3 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert!(until(&mut stream, "\r\n\r\n").starts_with("HTTP/1.1 200"));
        until(&mut stream, "ok\n");
    }
    let mut socket = upgrade(stream, "/ws?topics=q");
    assert_eq!(json(&mut socket)["type"], "hello");
}

#[test]
fn what_comes_right_behind_the_handshake_is_not_lost() {
    let secure = secure(|_| {});
    for _ in 0..20 {
        let stream = tcp(secure.address());
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(Arc::clone(&secure.client), name).unwrap();
        // It goes along with the end of the handshake.
        tls.writer().write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        StreamOwned::new(tls, stream).read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }
}

#[test]
fn a_client_that_comes_back_resumes_its_session() {
    let secure = secure(|_| {});
    let kind = |mut stream: Stream| {
        // Tickets come behind the handshake.
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        stream.conn.handshake_kind()
    };
    assert_eq!(kind(secure.connect()), Some(HandshakeKind::Full));
    assert_eq!(kind(secure.connect()), Some(HandshakeKind::Resumed));
    assert!(secure.metric(r#"stentor_tls_handshakes_total{result="resumed"}"#) >= 1.0);
}

#[test]
fn clear_on_a_port_for_tls_and_tls_on_a_clear_one_are_told_so() {
    let secure = secure(|_| {});
    let answer = client::exchange(secure.address(), b"GET /ws HTTP/1.1\r\nHost: md.example:9443\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("This port speaks TLS: https://md.example:9443/ or wss://md.example:9443/."), "{answer}");
    let mut alert = Vec::new();
    let mut stream = tcp(secure.address());
    stream.write_all(b"\0\x01\x02what is this").unwrap();
    let _ = stream.read_to_end(&mut alert);
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 10], "a fatal alert: unexpected_message");
    let mut tls =
        ClientConnection::new(Arc::clone(&secure.client), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    let answer = client::exchange(secure.server.addresses()[0], &hello);
    assert!(answer.contains("This port speaks in clear, not TLS"), "{answer}");
}

#[test]
fn garbage_in_the_middle_is_answered_by_an_alert_and_hurts_nobody_else() {
    let secure = secure(|_| {});
    let mut other = secure.subscribe("/ws?topics=q");
    for garbage in
        [&[22, 3, 1, 0xff, 0xff, 1][..], &[22, 3, 1, 0, 4, 1, 0, 0, 0], &[22, 9, 9, 0, 1, 0], b"\x16\x03\x01"]
    {
        let mut stream = tcp(secure.address());
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    let mut stream = secure.connect();
    stream.sock.write_all(&[23, 3, 3, 0, 30]).unwrap();
    stream.sock.write_all(&[7; 30]).unwrap();
    let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    other.send(Message::text(r#"{"op":"ping","id":1}"#)).unwrap();
    while json(&mut other)["type"] != "pong" {}
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let secure = secure(|config| {
        config.trusted_proxy = vec!["127.0.0.0/8".parse().unwrap()];
        config.proxy_protocol = true;
    });
    let local = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x20, 0, 0, 0]].concat();
    for header in [&b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"[..], b"PROXY UNKNOWN\r\n", &local] {
        let mut stream = secure.connect_behind(header);
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }
    assert!(secure.try_connect_behind(b"").is_err(), "there is none");
}

#[test]
fn who_begins_a_handshake_and_goes_no_further_has_a_place_for_no_longer_than_others_leave_it() {
    let secure = secure(|config| config.handshakes = 4);
    let mut silent: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = tcp(secure.address());
            stream.write_all(&[22, 3, 1]).unwrap();
            stream
        })
        .collect();
    let mut subscriber = secure.subscribe("/ws?topics=q");
    assert_eq!(json(&mut subscriber)["type"], "hello");
    // Those whose places were taken are told.
    let ended = silent.iter_mut().filter_map(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        stream.read(&mut [0; 16]).ok()
    });
    assert!(ended.count() >= 16);
    assert!(secure.metric(r#"stentor_tls_handshakes_total{result="crowded"}"#) >= 16.0);
}

#[test]
fn a_handshake_that_takes_too_long_is_ended() {
    let secure = secure(|config| config.handshake_timeout = "200ms".parse().unwrap());
    let mut stream = tcp(secure.address());
    stream.write_all(&[22, 3, 1, 0, 200, 1, 0]).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    assert_eq!(secure.metric(r#"stentor_tls_handshakes_total{result="timed_out"}"#), 1.0);
}

#[test]
fn a_server_that_stops_says_so_and_sends_what_is_on_the_tape() {
    let secure = secure(|_| {});
    let mut subscriber = secure.subscribe("/raw/q");
    let publisher = secure.server.publisher();
    for n in 0..100 {
        publisher.publish("q", stentor::Payload::Plain(&n.to_string())).unwrap();
    }
    let stopping = {
        let Secure { server, folder: _folder, .. } = secure;
        thread::spawn(move || server.stop())
    };
    for n in 0..100 {
        assert_eq!(subscriber.read().unwrap(), Message::text(n.to_string()));
    }
    let Message::Close(Some(close)) = subscriber.read().unwrap() else { panic!("a close frame was due") };
    assert_eq!(u16::from(close.code), 1001);
    let _ = subscriber.flush();
    // close_notify: without it rustls calls the end unexpected.
    let mut rest = Vec::new();
    subscriber.get_mut().read_to_end(&mut rest).unwrap();
    stopping.join().unwrap();
}

#[test]
fn what_is_encrypted_for_somebody_who_reads_nothing_is_shown_with_its_name() {
    let secure = secure(|_| {});
    let mut stalled = secure.subscribe("/ws?topics=q");
    let name = json(&mut stalled)["conn"].clone();
    let mut in_clear = Client::hello(&secure.server, "/ws?topics=q");
    assert_eq!(in_clear.json()["type"], "ack");
    let mut healthy = secure.subscribe("/raw/q");
    let publisher = secure.server.publisher();
    let body = "x".repeat(10_000);
    // More than both kernels' buffers take.
    for _ in 0..2000 {
        publisher.publish("q", stentor::Payload::Plain(&body)).unwrap();
        assert_eq!(healthy.read().unwrap(), Message::text(&body));
    }
    let begun = Instant::now();
    let rows = loop {
        let answer = secure.ask("GET /debug/slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let list: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
        let rows = list["connections"].as_array().unwrap().clone();
        if rows.len() == 2 {
            break rows;
        }
        assert!(begun.elapsed() < PATIENCE, "{list}");
    };
    let (own, clear): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["conn"] == name);
    let held = secure.metric("stentor_tls_held_bytes");
    assert!(held > 0.0 && own[0]["tls_held_bytes"].as_f64() == Some(held), "{held}: {own:?}");
    assert_eq!((&clear[0]["tls_held_bytes"], &own[0]["pending_bytes"]), (&json!(null), &json!(0)));
}

#[test]
fn one_that_reads_nothing_costs_a_send_and_the_others_have_everything() {
    let secure = secure(|config| config.retain = "8MiB".parse().unwrap());
    let mut stalled: Vec<WebSocket<Stream>> = (0..10).map(|_| secure.subscribe("/raw/q")).collect();
    let mut healthy = secure.subscribe("/raw/q");
    let publisher = secure.server.publisher();
    let body = "x".repeat(1000);
    for n in 0..5000 {
        let text = format!("{n} {body}");
        publisher.publish("q", stentor::Payload::Plain(&text)).unwrap();
        assert_eq!(healthy.read().unwrap(), Message::text(text));
    }
    let held = secure.metric("stentor_tls_held_bytes");
    assert!(held > 0.0 && held <= 10.0 * 70_000.0, "{held}");
    stalled.clear();
    let begun = Instant::now();
    while secure.metric("stentor_tls_held_bytes") > 0.0 {
        assert!(begun.elapsed() < PATIENCE);
    }
}
