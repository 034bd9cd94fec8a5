//! What comes on a port for TLS, before the handshake is done and after, in whatever pieces: nothing panics, nothing is handed out that
//! wasn't encrypted for us, and what is kept stays within its bound.
#![no_main]

use std::{
    io::Write,
    sync::{Arc, LazyLock},
    time::Duration,
};

use arbitrary::Arbitrary;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, ServerName},
};
use stentor::internals::io::{
    Edge, Received,
    sim::{Kernel, SimEdge},
    tls::{Buffers, Room, Shaken, Socket, Tls},
    waker::{Sleep, Waker},
};

#[derive(Arbitrary, Debug)]
struct Script {
    seed: u8,
    /// Whether the handshake is done before what follows.
    agrees: bool,
    pieces: Vec<Piece>,
}

#[derive(Arbitrary, Debug)]
enum Piece {
    /// These bytes.
    Raw(Vec<u8>),
    /// A record of this type around these bytes.
    Record(u8, Vec<u8>),
    /// What the client has to say, with one byte changed.
    Wrong(u16, u8),
    /// What the client says to the application.
    Right(Vec<u8>),
    /// The same, in a record for each byte.
    Each(Vec<u8>),
    /// It changes its keys, and asks for others.
    Keys,
    /// The server sends something.
    Send(u16),
    /// The peer ends.
    End,
}

static BOTH: LazyLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = || Arc::new(aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server), Arc::new(client))
});

const MOST: u64 = 200_000;

libfuzzer_sys::fuzz_target!(|script: Script| {
    let kernel = Kernel::new(script.seed.into());
    let mut edge = Tls::new(kernel.edge(Arc::new(Waker::new().unwrap())));
    let buffers = Buffers::new(MOST);
    let (socket, peer) = kernel.connect(100_000);
    let mut socket = Socket::from(socket);
    edge.watch(&mut socket, 0).unwrap();
    Tls::<SimEdge>::begin(&mut socket, 0, (&BOTH.0, Room::new(&buffers, None)), b"").unwrap();
    let mut client = ClientConnection::new(Arc::clone(&BOTH.1), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut is_done = false;
    let mut said = Vec::new();
    let says = |client: &mut ClientConnection| {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        bytes
    };
    if script.agrees {
        while !is_done || client.is_handshaking() {
            peer.write(&says(&mut client));
            is_done |= matches!(edge.shake(&mut socket), Shaken::Done);
            edge.flush(&mut socket);
            let bytes = peer.read(usize::MAX);
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                client.read_tls(&mut bytes).unwrap();
                client.process_new_packets().unwrap();
            }
        }
    }
    let mut heard = Vec::new();
    let mut is_honest = true;
    let mut buffer = vec![0; 1 + 37 * usize::from(script.seed)];
    for piece in &script.pieces {
        match piece {
            Piece::Raw(bytes) => {
                is_honest &= bytes.is_empty();
                peer.write(bytes);
            }
            Piece::Record(kind, bytes) => {
                is_honest = false;
                peer.write(&[*kind, 3, 3]);
                peer.write(&(bytes.len() as u16).to_be_bytes());
                peer.write(bytes);
            }
            Piece::Wrong(at, byte) => {
                let mut bytes = says(&mut client);
                if let Some(len) = std::num::NonZero::new(bytes.len()) {
                    bytes[usize::from(*at) % len] ^= byte;
                    is_honest &= *byte == 0;
                }
                peer.write(&bytes);
            }
            Piece::Right(bytes) if is_done && is_honest => {
                client.writer().write_all(bytes).unwrap();
                said.extend_from_slice(bytes);
                peer.write(&says(&mut client));
            }
            Piece::Each(bytes) if is_done && is_honest => {
                for byte in bytes {
                    client.writer().write_all(&[*byte]).unwrap();
                    peer.write(&says(&mut client));
                }
                said.extend_from_slice(bytes);
            }
            Piece::Keys if is_done && is_honest => {
                client.refresh_traffic_keys().unwrap();
                peer.write(&says(&mut client));
            }
            Piece::Send(len) if is_done => drop(edge.send(&mut socket, &vec![7; usize::from(*len)])),
            Piece::End => peer.end(),
            Piece::Right(_) | Piece::Each(_) | Piece::Keys | Piece::Send(_) => {}
        }
        for _ in 0..30 {
            if !is_done {
                match edge.shake(&mut socket) {
                    Shaken::Going => {}
                    Shaken::Done => is_done = true,
                    Shaken::Refused(_) | Shaken::Gone => return,
                }
                continue;
            }
            match edge.receive(&mut socket, &mut buffer) {
                Received::Bytes(len) => heard.extend_from_slice(&buffer[..len]),
                Received::Nothing => {}
                Received::End | Received::Broken(_) => {
                    assert!(said.starts_with(&heard), "it was handed out what nobody said");
                    return;
                }
            }
        }
        assert!(said.starts_with(&heard), "it was handed out what nobody said");
        assert!(buffers.kept() <= MOST / 16 + 70_000, "{} bytes are kept", buffers.kept());
        edge.wait(Some(Duration::ZERO), Sleep::Light, &mut || false, &mut Vec::new());
    }
    drop(socket);
    assert_eq!((buffers.held(), buffers.kept(), buffers.sessions()), (0, 0, 0));
});
