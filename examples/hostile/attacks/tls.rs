//! Against TLS: handshakes that cost much or never end, and records that say little.
//!
//! What rustls would not send is encrypted by hand, with the keys of a handshake that it has done ([`Records`]).

use std::{
    fs,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, RootCertStore, StreamOwned,
    SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{
        aws_lc_rs,
        cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage},
    },
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};

use super::{Attack, Attacker, attack, step, wire};

/// Where a server speaks TLS, and what those need who trust it.
#[derive(Clone)]
#[allow(dead_code, reason = "the tests have healthy clients of their own")]
pub struct Secure {
    pub address: SocketAddr,
    roots: RootCertStore,
    /// Resumes its sessions.
    returning: Arc<ClientConfig>,
}

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

impl Secure {
    /// A server there, with the certificate for trying out in this folder.
    ///
    /// # Errors
    /// It can't be read.
    pub fn new(address: SocketAddr, folder: &Path) -> io::Result<Secure> {
        let mut roots = RootCertStore::empty();
        let pem = fs::read(folder.join("certificate.pem"))?;
        let certificate = CertificateDer::from_pem_slice(&pem).map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
        let returning = Arc::new(settings(&roots, &TLS13));
        Ok(Secure { address, roots, returning })
    }

    /// A connection whose handshake is done; it resumes a session if there was one.
    ///
    /// # Errors
    /// What broke.
    #[allow(dead_code, reason = "the tests have healthy clients of their own")]
    pub fn connect(&self, source: IpAddr) -> io::Result<Stream> {
        shake(wire::connect(self.address, source)?, &self.returning)
    }
}

fn settings(roots: &RootCertStore, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_protocol_versions(&[version]).expect("there are suites for it");
    config.with_root_certificates(roots.clone()).with_no_client_auth()
}

fn shake(mut stream: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Stream> {
    let mut tls = session(config);
    while tls.is_handshaking() {
        tls.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(tls, stream))
}

fn session(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("it is a name");
    ClientConnection::new(Arc::clone(config), name).expect("the settings are good")
}

/// A connection whose handshake is done, and whose records are made by hand.
struct Records {
    stream: TcpStream,
    encrypter: Box<dyn MessageEncrypter>,
    sent: u64,
}

impl Records {
    /// A record of this type, as the next one.
    fn seal(&mut self, typ: ContentType, payload: &[u8], into: &mut Vec<u8>) {
        let plain =
            OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload: OutboundChunks::Single(payload) };
        if let Ok(sealed) = self.encrypter.encrypt(plain, self.sent) {
            into.extend(sealed.encode());
        }
        self.sent += 1;
    }

    /// The same for each of these bytes.
    fn seal_each(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        bytes.iter().for_each(|byte| self.seal(ContentType::ApplicationData, &[*byte], &mut sealed));
        sealed
    }
}

impl Attacker {
    /// Attacks TLS there as well.
    #[must_use]
    pub fn over(self, secure: Option<Secure>) -> Attacker {
        Attacker { secure, ..self }
    }

    fn secure(&self) -> &Secure {
        self.secure.as_ref().expect("an attack on TLS is on a server that speaks it")
    }

    /// A connection to the port for TLS, on which nothing was said.
    fn connect_secure(&self, source: IpAddr) -> Option<TcpStream> {
        let stream = wire::connect(self.secure().address, source).ok()?;
        wire::reset_at_close(&stream);
        self.made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Some(stream)
    }

    /// One that has said this in clear.
    fn said(&self, source: IpAddr, bytes: &[u8]) -> Option<TcpStream> {
        let mut stream = self.connect_secure(source)?;
        stream.write_all(bytes).ok()?;
        Some(stream)
    }

    /// A connection whose handshake is done, and a WebSocket if there is a `path`.
    fn secured(&self, version: &'static SupportedProtocolVersion, path: Option<&str>) -> Option<Stream> {
        let mut config = settings(&self.secure().roots, version);
        config.enable_secret_extraction = true;
        let mut stream = shake(self.connect_secure(self.source)?, &Arc::new(config)).ok()?;
        if let Some(path) = path {
            wire::upgrade(&mut stream, path).ok()?;
        }
        Some(stream)
    }

    /// The same, whose records are made by hand from now on.
    fn by_hand(&self, version: &'static SupportedProtocolVersion, path: Option<&str>) -> Option<Records> {
        let StreamOwned { conn, sock } = self.secured(version, path)?;
        let suite = conn.negotiated_cipher_suite()?;
        let (sent, secrets) = conn.dangerous_extract_secrets().ok()?.tx;
        let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets
        else {
            return None;
        };
        let encrypter = match suite {
            SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
            SupportedCipherSuite::Tls12(suite) => suite.aead_alg.encrypter(key, iv.as_ref(), &[]),
        };
        Some(Records { stream: sock, encrypter, sent })
    }

    /// Has `count` connections send, as fast as it is taken, what `more` makes of each; reads away what comes. Those that end are made
    /// anew.
    fn pour<T: AsMut<TcpStream>>(&self, count: usize, open: impl Fn() -> Option<T>, more: impl Fn(&mut T) -> Vec<u8>) {
        let mut hoses: Vec<Option<(T, Vec<u8>)>> = (0..count).map(|_| None).collect();
        let mut buffer = vec![0; 64 * 1024];
        while self.goes_on() {
            let mut moved = false;
            for place in &mut hoses {
                if place.is_none() {
                    *place = open().map(|one| (one, Vec::new()));
                    if let Some((one, _)) = place {
                        let _ = one.as_mut().set_nonblocking(true);
                    }
                }
                let Some((one, waiting)) = place else { continue };
                if waiting.is_empty() {
                    *waiting = more(one);
                }
                let wrote = step(one.as_mut().write(waiting));
                let read = step(one.as_mut().read(&mut buffer).and_then(|len| match len {
                    0 => Err(ErrorKind::UnexpectedEof.into()),
                    len => Ok(len),
                }));
                match wrote.zip(read) {
                    Some((wrote, read)) => {
                        waiting.drain(..wrote);
                        moved |= wrote + read > 0;
                    }
                    None => *place = None,
                }
            }
            self.held.fetch_max(hoses.iter().flatten().count(), std::sync::atomic::Ordering::Relaxed);
            self.settled();
            if !moved {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }
}

impl AsMut<TcpStream> for Records {
    fn as_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

/// A session that rustls goes on with, as it allows.
struct Honest(Stream);

impl AsMut<TcpStream> for Honest {
    fn as_mut(&mut self) -> &mut TcpStream {
        &mut self.0.sock
    }
}

impl Honest {
    fn says(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.0.conn.wants_write() && self.0.conn.write_tls(&mut bytes).is_ok() {}
        bytes
    }
}

/// A connection in clear, to the port for TLS.
struct Clear(TcpStream);

impl AsMut<TcpStream> for Clear {
    fn as_mut(&mut self) -> &mut TcpStream {
        &mut self.0
    }
}

/// Records that are made at a time.
const BATCH: usize = 500;

/// The beginning of a message of 60,000 bytes, the rest of which may come byte by byte.
fn message_head() -> Vec<u8> {
    wire::frame(0x81, &[b'x'; 60_000])[..8].to_vec()
}

pub const TINY_RECORDS: Attack = attack(
    "tls-tiny-records",
    "1 address, 4 connections that send large messages in records of one byte: each is decrypted by itself",
    tiny_records,
)
.over_tls();

fn tiny_records(attacker: &Attacker) {
    let open = || {
        let mut records = attacker.by_hand(&TLS13, Some("/ws"))?;
        let head = records.seal_each(&message_head());
        records.stream.write_all(&head).ok()?;
        Some(records)
    };
    attacker.pour(4, open, |records| records.seal_each(&[b'x'; BATCH]));
}

pub const EMPTY_RECORDS: Attack = attack(
    "tls-empty-records",
    "1 address, 4 connections that send records with nothing in them, and now and then a byte",
    empty_records,
)
.over_tls();

fn empty_records(attacker: &Attacker) {
    attacker.pour(
        4,
        || attacker.by_hand(&TLS13, Some("/ws")),
        |records| {
            let mut sealed = Vec::new();
            for n in 0..BATCH {
                let payload: &[u8] = if n % 20 == 0 { &[0x8a] } else { b"" };
                records.seal(ContentType::ApplicationData, payload, &mut sealed);
            }
            sealed
        },
    );
}

pub const KEY_UPDATES: Attack = attack(
    "tls-key-updates",
    "1 address, 4 connections that change their keys and have the server change its own with every byte of a large message",
    key_updates,
)
.over_tls();

fn key_updates(attacker: &Attacker) {
    let open = || {
        let mut stream = attacker.secured(&TLS13, Some("/ws"))?;
        stream.write_all(&message_head()).ok()?;
        Some(Honest(stream))
    };
    attacker.pour(4, open, |honest| {
        let mut bytes = Vec::new();
        for _ in 0..BATCH {
            if honest.0.conn.refresh_traffic_keys().is_err() || honest.0.conn.writer().write_all(b"x").is_err() {
                break;
            }
            bytes.append(&mut honest.says());
        }
        bytes
    });
}

pub const RENEGOTIATIONS: Attack = attack(
    "tls-renegotiations",
    "1 address, 4 connections by TLS 1.2 that ask for another handshake as soon as one is done",
    renegotiations,
)
.over_tls();

fn renegotiations(attacker: &Attacker) {
    let hello = hello(attacker, &TLS12);
    attacker.pour(
        4,
        || attacker.by_hand(&TLS12, None),
        |records| {
            let mut sealed = Vec::new();
            (0..4).for_each(|_| records.seal(ContentType::Handshake, &hello[5..], &mut sealed));
            sealed
        },
    );
}

/// What a client says first.
fn hello(attacker: &Attacker, version: &'static SupportedProtocolVersion) -> Vec<u8> {
    let mut hello = Vec::new();
    let mut tls = session(&Arc::new(settings(&attacker.secure().roots, version)));
    tls.write_tls(&mut hello).expect("a vector takes it");
    hello
}

pub const ALERTS: Attack = attack(
    "tls-alerts",
    "1 address, 4 connections that send warnings, garbage and ends in the middle of what they say, and come again",
    alerts,
)
.over_tls();

fn alerts(attacker: &Attacker) {
    let turn = std::cell::Cell::new(0_usize);
    attacker.pour(
        4,
        || attacker.by_hand(&TLS13, Some("/ws")),
        |records| {
            turn.set(turn.get() + 1);
            let mut sealed = records.seal_each(&message_head());
            match turn.get() % 5 {
                // user_canceled, a warning, as often as is taken; close_notify; a fatal one; what nobody has encrypted.
                0 => (0..10).for_each(|_| records.seal(ContentType::Alert, &[1, 90], &mut sealed)),
                1 => records.seal(ContentType::Alert, &[1, 0], &mut sealed),
                2 => records.seal(ContentType::Alert, &[2, 80], &mut sealed),
                3 => sealed.extend_from_slice(&[&[23, 3, 3, 0, 100][..], &[7; 100]].concat()),
                _ => sealed.extend_from_slice(&[0xff; 4096]),
            }
            sealed.extend_from_slice(&records.seal_each(b"xxxx"));
            sealed
        },
    );
}

pub const HANDSHAKES: Attack = attack(
    "tls-handshakes",
    "1 address that does handshakes as fast as it can, each anew and not resumed: the threads for handshakes, and the cores that they share",
    handshakes,
)
.over_tls();

fn handshakes(attacker: &Attacker) {
    let config = Arc::new(settings(&attacker.secure().roots, &TLS13));
    let mut hello = Vec::new();
    session(&config).write_tls(&mut hello).expect("a vector takes it");
    attacker.settled();
    // The server does its part of each, the attacker none.
    while attacker.goes_on() {
        let streams: Vec<_> = (0..50).filter_map(|_| attacker.said(attacker.source, &hello)).collect();
        for mut stream in streams {
            let _ = stream.read(&mut [0; 64]);
        }
    }
}

/// One of so many addresses of the attacker's own, as a network of rented machines has them.
fn place(n: usize) -> IpAddr {
    Ipv4Addr::new(127, 0, 2 + (n / 250 % 50) as u8, 1 + (n % 250) as u8).into()
}

pub const SILENT: Attack = attack(
    "tls-silent",
    "1,000 addresses, 2,000 connections that begin a handshake and never go on with it: every place",
    silent,
)
.memory(48, 16)
.over_tls();

fn silent(attacker: &Attacker) {
    let hello = hello(attacker, &TLS13);
    let begun = &hello[..hello.len() / 2];
    let open = |n| attacker.said(place(n % 1000), begun);
    attacker.hold(attacker.count(2000), open, Duration::from_millis(20), |_| {});
}

pub const TRICKLING: Attack = attack(
    "tls-trickling",
    "1,000 addresses, 2,000 connections that send their handshake a byte at a time: every place, and none of them is idle",
    trickling,
)
.memory(48, 16)
.over_tls();

fn trickling(attacker: &Attacker) {
    let open = |n| attacker.said(place(n % 1000), &[22, 3, 1, 2, 0, 1]);
    attacker.hold(attacker.count(2000), open, Duration::from_millis(50), |stream| {
        let _ = stream.set_nonblocking(true);
        let _ = stream.write(&[0]);
    });
}

pub const FRAGMENTS: Attack = attack(
    "tls-fragments",
    "1 address, 20 connections whose first message is as long as one may be, in records of one byte, over and over",
    fragments,
)
.memory(32, 12)
.over_tls();

fn fragments(attacker: &Attacker) {
    // A client's hello of 65,535 bytes, of which only the length is right.
    let mut message = vec![1, 0, 0xff, 0xff];
    message.resize(4 + 0xffff, 0);
    let records: Vec<u8> = message.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
    attacker.pour(20, || attacker.connect_secure(attacker.source).map(Clear), |_| records.clone());
}

pub const HALF_RECORDS: Attack = attack(
    "tls-half-records",
    "1 address, 4,000 WebSockets that send all but the end of a record of 16 KiB: what is kept of it, which others need as well",
    half_records,
)
.memory(160, 48)
.over_tls();

fn half_records(attacker: &Attacker) {
    let open = |_| {
        let mut records = attacker.by_hand(&TLS13, Some("/ws"))?;
        let mut sealed = Vec::new();
        records.seal(ContentType::ApplicationData, &[b'x'; 16_384], &mut sealed);
        sealed.pop();
        records.stream.write_all(&sealed).ok()?;
        Some(records.stream)
    };
    attacker.hold(attacker.count(4000), open, Duration::from_millis(20), |_| {});
}

pub const STALLED: Attack = attack(
    "tls-stalled",
    "1 address, 1,000 subscribers over TLS of everything it publishes that read nothing: what is encrypted can't be taken back",
    stalled,
)
.memory(80, 48)
.over_tls();

fn stalled(attacker: &Attacker) {
    let some = wire::publish_lines((0..40).map(|n| format!("attack.{n}")), &format!("\"{}\"", "x".repeat(4000)));
    let mut published = Instant::now();
    let open = |_| attacker.secured(&TLS13, Some("/ws?topics=attack.%3E")).map(|stream| stream.sock);
    attacker.hold(attacker.count(1000), open, Duration::from_millis(5), |_| {
        if published.elapsed() > Duration::from_millis(20) {
            published = Instant::now();
            attacker.exchange(&some);
        }
    });
}

pub const HALF_CLOSED: Attack = attack(
    "tls-half-closed",
    "1 address, 1,000 connections that end their half, with a word (close_notify) and without, in the handshake and behind it, and then \
     say and read nothing",
    half_closed,
)
.memory(48, 16)
.over_tls();

fn half_closed(attacker: &Attacker) {
    let hello = hello(attacker, &TLS13);
    let open = |n: usize| {
        let mut records = match n % 4 {
            0 => {
                let stream = attacker.said(attacker.source, &hello[..hello.len() / 2])?;
                stream.shutdown(Shutdown::Write).ok()?;
                return Some(stream);
            }
            1 => attacker.by_hand(&TLS13, None)?,
            _ => attacker.by_hand(&TLS13, Some("/ws?topics=attack.%3E"))?,
        };
        if n.is_multiple_of(2) {
            records.stream.shutdown(Shutdown::Write).ok()?;
        } else {
            let mut sealed = Vec::new();
            records.seal(ContentType::Alert, &[1, 0], &mut sealed);
            records.stream.write_all(&sealed).ok()?;
        }
        Some(records.stream)
    };
    attacker.hold(attacker.count(1000), open, Duration::from_millis(20), |_| {});
}
