//! Sessions against rustls' own server, in memory.

use std::io::{Read, Write};

use proptest::prelude::*;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, ServerConnection, crypto::aws_lc_rs, pki_types::PrivateKeyDer, version};

use super::*;

/// A server for one name, with a certificate that signs itself.
struct Server {
    config: Arc<ServerConfig>,
    folder: tempfile::TempDir,
}

impl Server {
    fn new(versions: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["feed.test".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { config: Arc::new(config), folder }
    }

    /// What a client speaks to it with that trusts it, under a name.
    fn peer(&self, name: &str, resume: bool) -> Peer {
        let settings = Settings { ca: Some(self.folder.path().join("ca.pem")), insecure: false, resume };
        peer(name, &settings)
    }

    fn accept(&self) -> ServerConnection {
        ServerConnection::new(Arc::clone(&self.config)).unwrap()
    }
}

fn peer(name: &str, settings: &Settings) -> Peer {
    let url = Url::parse(&format!("wss://{name}:1/")).unwrap();
    let [peer] = Peer::of(settings, [Some(&url)]).unwrap();
    peer.unwrap()
}

/// Takes bytes in as they would be read: behind what is held.
fn take(session: &mut Session, bytes: &[u8], plain: &mut Vec<u8>, out: &mut Vec<u8>) -> io::Result<Taken> {
    let mut records = [session.held(), bytes].concat();
    session.take(
        &mut records,
        |data| {
            plain.extend_from_slice(data);
            Ok(())
        },
        out,
    )
}

/// What the server has to send.
fn sent(server: &mut ServerConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Goes through a handshake, with tickets.
fn shake(session: &mut Session, server: &mut ServerConnection) -> io::Result<()> {
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    take(session, &[], &mut plain, &mut out)?;
    while !session.is_open() || !out.is_empty() || server.wants_write() {
        let mut bytes = std::mem::take(&mut out);
        while !bytes.is_empty() {
            let len = server.read_tls(&mut &bytes[..]).unwrap();
            bytes.drain(..len);
            server.process_new_packets().map_err(io::Error::other)?;
        }
        take(session, &sent(server), &mut plain, &mut out)?;
    }
    Ok(())
}

fn said(error: &io::Error) -> String {
    error.to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_chunking_gives_the_same_bytes_and_only_the_beginning_of_a_record_is_held(
        sizes in prop::collection::vec(1usize..40_000, 1..8),
        cuts in prop::collection::vec(1usize..5_000, 1..20),
        old: bool,
    ) {
        let server = Server::new(&[if old { &version::TLS12 } else { &version::TLS13 }]);
        let (mut session, mut end) = (server.peer("feed.test", false).session(None).unwrap(), server.accept());
        shake(&mut session, &mut end).unwrap();
        let data: Vec<u8> = (0..sizes.iter().sum()).map(|at: usize| (at % 251) as u8).collect();
        let (mut at, mut bytes) = (0, Vec::new());
        for size in sizes {
            end.writer().write_all(&data[at..at + size]).unwrap();
            at += size;
            bytes.extend(sent(&mut end));
        }
        let (mut plain, mut out, mut rest) = (Vec::new(), Vec::new(), &bytes[..]);
        for cut in cuts.into_iter().cycle() {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            take(&mut session, piece, &mut plain, &mut out).unwrap();
            prop_assert!(session.held().len() < RECORD_MAX);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(plain == data && session.held().is_empty());
    }

    #[test]
    fn what_is_no_tls_ends_with_a_sentence_and_nothing_of_it_is_kept_for_ever(
        garbage in prop::collection::vec(any::<u8>(), 0..400),
        open: bool,
    ) {
        let server = Server::new(&[&version::TLS13]);
        let (mut session, mut end) = (server.peer("feed.test", false).session(None).unwrap(), server.accept());
        if open {
            shake(&mut session, &mut end).unwrap();
        }
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        for _ in 0..2_000 {
            if take(&mut session, &garbage, &mut plain, &mut out).is_err() {
                break;
            }
            prop_assert!(session.held().len() <= HELD_MAX);
        }
        prop_assert!(plain.is_empty());
    }
}

#[test]
fn what_is_sent_arrives_whatever_its_length() {
    let server = Server::new(&[&version::TLS13]);
    let (mut session, mut end) = (server.peer("feed.test", false).session(None).unwrap(), server.accept());
    shake(&mut session, &mut end).unwrap();
    assert_eq!(end.alpn_protocol(), Some(&b"http/1.1"[..]));
    end.set_buffer_limit(None);
    for len in [0, 1, 16_384, 16_385, 100_000] {
        let data: Vec<u8> = (0..len).map(|at: usize| (at % 251) as u8).collect();
        let mut out = Vec::new();
        session.encrypt(&data, &mut out).unwrap();
        let mut got = Vec::new();
        while !out.is_empty() {
            let read = end.read_tls(&mut &out[..]).unwrap();
            out.drain(..read);
            end.process_new_packets().unwrap();
            let _ = end.reader().read_to_end(&mut got);
        }
        assert!(got == data, "{len} bytes");
    }
}

#[test]
fn nothing_is_sent_before_the_handshake_is_done() {
    let server = Server::new(&[&version::TLS13]);
    let mut session = server.peer("feed.test", false).session(None).unwrap();
    let mut out = Vec::new();
    take(&mut session, &[], &mut Vec::new(), &mut out).unwrap();
    assert!(!out.is_empty() && !session.is_open());
    assert!(session.encrypt(b"x", &mut out).is_err());
}

#[test]
fn each_refusal_says_what_would_do_and_tells_the_server() {
    let server = Server::new(&[&version::TLS13]);
    let refused = |peer: Peer| {
        let (mut session, mut end) = (peer.session(None).unwrap(), server.accept());
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        take(&mut session, &[], &mut plain, &mut out).unwrap();
        end.read_tls(&mut &out[..]).unwrap();
        end.process_new_packets().unwrap();
        out.clear();
        let error = take(&mut session, &sent(&mut end), &mut plain, &mut out).unwrap_err();
        end.read_tls(&mut &out[..]).unwrap();
        assert!(matches!(end.process_new_packets(), Err(rustls::Error::AlertReceived(_))), "it was not told");
        said(&error)
    };
    let stranger = Server::new(&[&version::TLS13]);
    assert!(refused(stranger.peer("feed.test", false)).contains("--tls-ca FILE"));
    let named = refused(server.peer("other.test", false));
    assert!(named.contains("not for other.test but for ") && named.contains("feed.test"), "{named}");
}

#[test]
fn anybody_is_trusted_only_if_that_is_asked_for() {
    let server = Server::new(&[&version::TLS12, &version::TLS13]);
    let insecure = peer("other.test", &Settings { insecure: true, ..Settings::default() });
    shake(&mut insecure.session(None).unwrap(), &mut server.accept()).unwrap();
    let old = Server::new(&[&version::TLS12]);
    shake(&mut insecure.session(None).unwrap(), &mut old.accept()).unwrap();
}

#[test]
fn a_server_that_speaks_in_clear_is_told_apart() {
    let server = Server::new(&[&version::TLS13]);
    let mut session = server.peer("feed.test", false).session(None).unwrap();
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    take(&mut session, &[], &mut plain, &mut out).unwrap();
    let error = take(&mut session, b"HTTP/1.1 400 Bad Request\r\n\r\n", &mut plain, &mut out).unwrap_err();
    assert_eq!(said(&error), "it speaks no TLS there");
}

#[test]
fn a_subscriber_resumes_its_own_session_and_nobody_elses() {
    for versions in [&[&version::TLS13][..], &[&version::TLS12]] {
        let server = Server::new(versions);
        let kind = |peer: &Peer, ticket: Option<&Arc<Ticket>>| {
            let before = work();
            let (mut session, mut end) = (peer.session(ticket).unwrap(), server.accept());
            shake(&mut session, &mut end).unwrap();
            let done = work().since(before);
            assert!(done.ns > 0);
            (done.full, done.resumed)
        };
        let peer = server.peer("feed.test", true);
        let (one, other) = (peer.ticket().unwrap(), peer.ticket().unwrap());
        assert_eq!(kind(&peer, Some(&one)), (1, 0));
        assert_eq!(kind(&peer, Some(&other)), (1, 0), "it had somebody else's ticket");
        assert_eq!(kind(&peer, Some(&one)), (0, 1));
        assert_eq!(kind(&peer, Some(&one)), (0, 1), "it got no new ticket");
        let full = server.peer("feed.test", false);
        assert!(full.ticket().is_none());
        assert_eq!([kind(&full, None), kind(&full, None)], [(1, 0), (1, 0)]);
    }
}

#[test]
fn the_end_is_told() {
    let server = Server::new(&[&version::TLS13]);
    let (mut session, mut end) = (server.peer("feed.test", false).session(None).unwrap(), server.accept());
    shake(&mut session, &mut end).unwrap();
    end.writer().write_all(b"last").unwrap();
    end.send_close_notify();
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    assert_eq!(take(&mut session, &sent(&mut end), &mut plain, &mut out).unwrap(), Taken::End);
    assert_eq!(plain, b"last");
}

#[test]
fn nobody_is_asked_for_who_is_to_be_trusted_where_all_is_in_clear() {
    let settings = Settings { ca: Some("/nowhere".into()), ..Settings::default() };
    let clear = Url::parse("ws://a:1").unwrap();
    assert!(matches!(Peer::of(&settings, [Some(&clear), None]), Ok([None, None])));
    let tls = Url::parse("wss://a:1").unwrap();
    let error = Peer::of(&settings, [Some(&clear), Some(&tls)]).err().unwrap().to_string();
    assert!(error.starts_with("--tls-ca /nowhere: "), "{error}");
}
