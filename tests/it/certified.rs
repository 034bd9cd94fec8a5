//! Clients that show a certificate: whose they are, what they may, and when they are nobody's any more.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use stentor::{
    config::{ClientAuth, Config},
    server::Server,
};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket, client::IntoClientRequest};

use crate::client::{self, tcp};

type Stream = StreamOwned<ClientConnection, TcpStream>;

type Authority = CertifiedIssuer<'static, KeyPair>;

/// An authority, a server that asks for its certificates, and what everybody has for that.
struct World {
    folder: TempDir,
    authority: Authority,
    config: Config,
}

impl World {
    fn new() -> World {
        let folder = TempDir::new().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (key, params) = (KeyPair::generate().unwrap(), CertificateParams::new(["localhost".to_owned()]).unwrap());
        let cert = params.signed_by(&key, &authority).unwrap();
        let rights = "[certificates.\"feed.example\"]\nsub = [\"q.>\"]\npub = [\"q.>\"]\n\n[certificates.\"boss.example\"]\nadmin = true\n";
        let config = Config {
            listen: vec!["127.0.0.1:0".parse().unwrap()].into(),
            tls_listen: vec!["127.0.0.1:0".parse().unwrap()],
            tls_cert: vec![write("cert", &cert.pem())],
            tls_key: vec![write("key", &key.serialize_pem())],
            tls_client_ca: Some(write("ca", &authority.pem())),
            tls_client_auth: ClientAuth::Request,
            rights: Some(write("rights.toml", rights)),
            workers: Some(1),
            pin: stentor::config::Pin::None,
            max_connections: 1000,
            ..Config::default()
        };
        World { folder, authority, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, change: impl FnOnce(&mut Config)) -> Server {
        client::serve(|config| {
            *config = self.config.clone();
            change(config);
        })
    }

    /// A list of what was taken back.
    fn take_back(&self, serials: &[u64]) -> PathBuf {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(4096, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        fs::write(self.path("crl"), params.signed_by(&self.authority).unwrap().pem().unwrap()).unwrap();
        self.path("crl")
    }

    /// Somebody with a certificate of this name and serial number; or with none.
    fn client(&self, name: Option<(&str, u64)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let Some((name, serial)) = name else { return Arc::new(config.with_no_client_auth()) };
        let (cert, key) = certificate(&self.authority, name, serial);
        Arc::new(config.with_client_auth_cert(vec![cert], key).unwrap())
    }

    /// Somebody with a certificate of another authority, which sends these along with it.
    fn client_of(&self, by: &Authority, name: &str, along: &[&Authority]) -> Arc<ClientConfig> {
        let (cert, key) = certificate(by, name, 1);
        let along = along.iter().map(|one| CertificateDer::from_pem_slice(one.pem().as_bytes()).unwrap());
        let mut config = ClientConfig::clone(&self.client(None));
        let chain = std::iter::once(cert).chain(along).collect();
        let certified = rustls::sign::CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).unwrap();
        config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        Arc::new(config)
    }
}

fn connect(server: &Server, who: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(who), name).unwrap(), tcp(server.tls_addresses()[0]))
}

/// A certificate of this name and serial number, and its key.
fn certificate(by: &Authority, name: &str, serial: u64) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::new([name.to_owned()]).unwrap());
    params.serial_number = Some(SerialNumber::from(serial));
    let cert = params.signed_by(&key, by).unwrap().der().clone();
    (cert, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

/// The whole answer to a request; empty if there is none.
fn get(server: &Server, who: &Arc<ClientConfig>, target: &str, lines: &str) -> String {
    let mut stream = connect(server, who);
    let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n");
    let mut answer = String::new();
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
    answer
}

fn open(server: &Server, who: &Arc<ClientConfig>, path: &str) -> WebSocket<Stream> {
    let request = format!("wss://localhost{path}").into_client_request().unwrap();
    tungstenite::client(request, connect(server, who)).unwrap_or_else(|error| panic!("{error}")).0
}

fn json(socket: &mut WebSocket<Stream>) -> Value {
    loop {
        if let Message::Text(text) = socket.read().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

fn ask(socket: &mut WebSocket<Stream>, command: &str) -> Value {
    socket.send(Message::text(command)).unwrap();
    json(socket)
}

#[test]
fn a_certificate_is_a_holder_by_every_door_and_nobody_has_what_it_gives() {
    let world = World::new();
    let audit = world.path("audit.jsonl");
    let server = world.start(|config| config.audit = Some(audit.clone()));
    let (feed, nobody) = (world.client(Some(("feed.example", 1))), world.client(None));
    let mut socket = open(&server, &feed, "/ws?topics=q.a");
    assert_eq!(json(&mut socket)["holder"]["sub"], "feed.example");
    assert_eq!(json(&mut socket)["type"], "ack");
    assert_eq!(ask(&mut socket, r#"{"op":"sub","topics":["t.a"]}"#)["code"], "forbidden");
    socket.send(Message::text(r#"{"op":"pub","topic":"q.a","data":1}"#)).unwrap();
    assert_eq!(json(&mut socket)["data"], 1);
    for target in ["/poll?topics=q.a&wait=0", "/history/q.a", "/topics/q.a"] {
        assert!(get(&server, &feed, target, "").starts_with("HTTP/1.1 200 "), "{target}");
        assert!(get(&server, &nobody, target, "").starts_with("HTTP/1.1 401 "), "{target}");
    }
    assert!(get(&server, &feed, "/history/t.a", "").starts_with("HTTP/1.1 403 "));
    server.publisher().publish("t.a", stentor::Payload::Json(b"1")).unwrap();
    let listed = |who: &Arc<ClientConfig>| {
        let answer = get(&server, who, "/topics", "");
        let list: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let names = list["topics"].as_array().unwrap().iter().map(|row| row["topic"].as_str().unwrap().to_owned());
        (list["count"].as_u64().unwrap(), names.collect::<Vec<_>>())
    };
    assert_eq!(listed(&feed), (1, vec!["q.a".to_owned()]));
    assert_eq!(listed(&nobody), (0, Vec::new()));
    let boss = world.client(Some(("boss.example", 2)));
    assert_eq!(listed(&boss), (2, vec!["q.a".to_owned(), "t.a".to_owned()]));
    assert!(get(&server, &boss, "/metrics", "X-Forwarded-For: 192.0.2.1\r\n").starts_with("HTTP/1.1 200 "));
    assert!(get(&server, &feed, "/metrics", "X-Forwarded-For: 192.0.2.1\r\n").starts_with("HTTP/1.1 403 "));
    drop(socket);
    drop(server);
    let text = fs::read_to_string(&audit).unwrap();
    let connect = text.lines().find(|line| line.contains("\"connect\"")).unwrap();
    assert!(connect.contains(r#""holder":"feed.example","source":"certificate""#), "{text}");
    assert!(connect.contains(r#""tls":true"#), "{text}");
}

#[test]
fn with_the_token_of_operators_somebody_is_revoked_whatever_certificate_is_shown() {
    let world = World::new();
    let (audit, revoked) = (world.path("audit.jsonl"), world.path("revoked"));
    let server = world.start(|config| {
        config.admin_token = Some("boss".parse().unwrap());
        config.revoked = Some(revoked.clone());
        config.audit = Some(audit.clone());
    });
    let revoke = |who: &Arc<ClientConfig>, whom: &str, lines: &str| {
        let (mut stream, body) = (connect(&server, who), format!(r#"{{"sub":"{whom}"}}"#));
        let head = format!(
            "POST /revoke HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let mut answer = String::new();
        let _ = stream.write_all((head + &body).as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
        answer
    };
    let token = "Authorization: Bearer boss\r\n";
    let (feed, boss) = (world.client(Some(("feed.example", 1))), world.client(Some(("boss.example", 2))));
    assert!(revoke(&feed, "u1", "").starts_with("HTTP/1.1 403 "));
    for (who, whom, lines) in [(&feed, "u1", token), (&world.client(None), "u2", token), (&boss, "u3", "")] {
        let answer = revoke(who, whom, lines);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{whom}: {answer}");
    }
    drop(server);
    let text = fs::read_to_string(&audit).unwrap();
    let by: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["event"] == "revoked")
        .collect();
    let by: Vec<(&Value, &Value)> = by.iter().map(|line| (&line["sub"], &line["holder"])).collect();
    let (operator, named) = (Value::from("operator"), Value::from("boss.example"));
    assert_eq!(by, [(&"u1".into(), &operator), (&"u2".into(), &operator), (&"u3".into(), &named)]);
}

#[test]
fn a_certificate_that_was_taken_back_resumes_no_session_and_one_that_is_required_is() {
    let world = World::new();
    let list = world.take_back(&[9]);
    let mut server = world.start(|config| config.tls_client_crl = vec![list.clone()]);
    let feed = world.client(Some(("feed.example", 1)));
    for _ in 0..3 {
        assert!(get(&server, &feed, "/healthz", "").starts_with("HTTP/1.1 200 "));
    }
    let wanted = Config { tls_client_crl: vec![world.take_back(&[1, 9])], ..world.config.clone() };
    server.reload(&wanted).unwrap();
    assert_eq!(get(&server, &feed, "/healthz", ""), "");
    let (other, nobody) = (world.client(Some(("feed.example", 2))), world.client(None));
    assert!(get(&server, &other, "/healthz", "").starts_with("HTTP/1.1 200 "));
    assert!(get(&server, &nobody, "/healthz", "").starts_with("HTTP/1.1 200 "));
    server.reload(&Config { tls_client_auth: ClientAuth::Require, ..wanted }).unwrap();
    assert_eq!(get(&server, &nobody, "/healthz", ""), "", "a ticket of before is none");
    assert!(get(&server, &other, "/healthz", "").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_token_goes_before_the_certificate_and_a_wrong_one_is_no_way_back_to_it() {
    let world = World::new();
    let server = world.start(|config| config.publish_token = Some("s3cret".parse().unwrap()));
    let feed = world.client(Some(("feed.example", 1)));
    let wrong = "Authorization: Bearer guess\r\n";
    assert!(get(&server, &feed, "/poll?topics=q.a&wait=0", wrong).starts_with("HTTP/1.1 401 "));
    assert!(get(&server, &feed, "/topics/q.a", wrong).starts_with("HTTP/1.1 401 "));
    // On one connection, with a token and without.
    let mut stream = connect(&server, &feed);
    let request = |lines: &str| format!("GET /poll?topics=q.a&wait=0 HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    let mut status = |lines: &str| {
        stream.write_all(request(lines).as_bytes()).unwrap();
        let head = crate::client::until(&mut stream, "\r\n\r\n");
        let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
        stream.read_exact(&mut vec![0; len]).unwrap();
        head.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status(""), "200");
    assert_eq!(
        status("Authorization: Bearer s3cret\r\n"),
        "401",
        "the token for publishing reads nothing, and it was shown"
    );
}

#[test]
fn a_certificate_that_is_taken_back_ends_those_who_are_there_by_it_and_nobody_else() {
    let world = World::new();
    let list = world.take_back(&[9]);
    let mut server = world.start(|config| config.tls_client_crl = vec![list.clone()]);
    let (mine, others) = (world.client(Some(("feed.example", 1))), world.client(Some(("feed.example", 2))));
    let (mut socket, mut stays) = (open(&server, &mine, "/ws?topics=q.a"), open(&server, &others, "/ws?topics=q.a"));
    for socket in [&mut socket, &mut stays] {
        assert_eq!(json(socket)["holder"]["sub"], "feed.example");
        assert_eq!(json(socket)["type"], "ack");
    }
    // A connection that stays open between two requests, to a worker and to the thread for plain HTTP.
    let mut kept = connect(&server, &mine);
    let mut status = |target: &str| {
        kept.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        let head = crate::client::until(&mut kept, "\r\n\r\n");
        let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
        kept.read_exact(&mut vec![0; len]).unwrap();
        head.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!((status("/poll?topics=q.a&wait=0"), status("/topics/q.a")), ("200".to_owned(), "404".to_owned()));
    let wanted = Config { tls_client_crl: vec![world.take_back(&[1, 9])], ..world.config.clone() };
    server.reload(&wanted).unwrap();
    let error = json(&mut socket);
    assert_eq!((&error["type"], &error["code"]), (&"error".into(), &"revoked".into()), "{error}");
    assert!(matches!(socket.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 4001));
    assert_ne!(status("/poll?topics=q.a&wait=0"), "200");
    server.publisher().publish("q.a", stentor::Payload::Json(b"1")).unwrap();
    assert_eq!(json(&mut stays)["data"], 1, "another certificate of the same holder");
    // The authority is taken out of the file, which is looked at by itself.
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "another authority");
    let other = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(world.path("ca"), other.pem()).unwrap();
    assert_eq!(json(&mut stays)["code"], "revoked");
}

#[test]
fn a_certificate_by_one_in_between_stays_good_whatever_came_along_with_it_until_none_is_asked_for() {
    let world = World::new();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "the one between");
    let between = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &world.authority).unwrap();
    fs::write(world.path("ca"), between.pem()).unwrap();
    let mut server = world.start(|_| {});
    let clients = [
        world.client_of(&between, "feed.example", &[]),
        world.client_of(&between, "feed.example", &[&between]),
        world.client_of(&between, "feed.example", &[&between, &world.authority]),
    ];
    let mut sockets = clients.each_ref().map(|who| open(&server, who, "/ws?topics=q.a"));
    for socket in &mut sockets {
        assert_eq!(json(socket)["holder"]["sub"], "feed.example");
        assert_eq!(json(socket)["type"], "ack");
    }
    // What certificates are judged by is told anew, and is the same.
    server.reload(&world.config).unwrap();
    server.publisher().publish("q.a", stentor::Payload::Json(b"1")).unwrap();
    for socket in &mut sockets {
        assert_eq!(json(socket)["data"], 1);
        assert_eq!(ask(socket, r#"{"op":"unsub","topics":["q.a"]}"#)["type"], "ack");
    }
    // Nobody's certificate is asked for any more, so nobody's is good for anything.
    server.reload(&Config { tls_client_ca: None, ..world.config.clone() }).unwrap();
    for socket in &mut sockets {
        assert_eq!(json(socket)["code"], "revoked");
        assert!(matches!(socket.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 4001));
    }
}
