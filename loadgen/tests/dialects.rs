//! Dialect files, against servers that take each byte at its word.

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        mpsc::{Sender, channel},
    },
};

use common::{listen, program, run};
use tungstenite::{
    Message, accept_hdr,
    handshake::server::{Request, Response},
    http::HeaderValue,
};

const MQTT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dialects/mqtt.toml");

/// Each one's topic, and the way to it.
type Subscribers = Vec<(Vec<u8>, Sender<Message>)>;

/// A broker of MQTT 3.1.1, as far as it is needed: it takes what the standard has, and nothing else. `instead` is said to subscribers instead
/// of the acknowledgement.
fn broker(instead: &'static [u8]) -> SocketAddr {
    let subscribers: Mutex<Subscribers> = Mutex::default();
    listen(move |stream| client(stream, &subscribers, instead))
}

#[allow(clippy::result_large_err)]
fn client(stream: std::net::TcpStream, subscribers: &Mutex<Subscribers>, instead: &[u8]) {
    let mqtt = |request: &Request, mut response: Response| {
        assert_eq!(
            (request.uri().path(), &request.headers()["Sec-WebSocket-Protocol"]),
            ("/mqtt", &HeaderValue::from_static("mqtt"))
        );
        response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr(stream, mqtt) else { return };
    while let Ok(Message::Binary(packet)) = socket.read() {
        // The fixed header: type, and the remaining length in groups of seven bits.
        let (mut at, mut length) = (1, 0);
        loop {
            length |= usize::from(packet[at] & 127) << (7 * (at - 1));
            at += 1;
            if packet[at - 1] < 128 {
                break;
            }
        }
        assert_eq!(packet.len(), at + length, "{packet:?}");
        let name = |at: usize| {
            let length = usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
            packet[at + 2..at + 2 + length].to_vec()
        };
        match packet[0] {
            0x10 => {
                assert_eq!(packet[at..], *b"\0\x04MQTT\x04\x02\0\0\0\0");
                socket.send(Message::binary(vec![0x20, 2, 0, 0])).unwrap();
            }
            0x82 => {
                let acknowledgement = vec![0x90, 3, packet[at], packet[at + 1], 0];
                let said = if instead.is_empty() { acknowledgement } else { instead.to_vec() };
                socket.send(Message::binary(said)).unwrap();
                let (to, from) = channel();
                subscribers.lock().unwrap().push((name(at + 2), to));
                for message in from {
                    if socket.send(message).is_err() {
                        return;
                    }
                }
                return;
            }
            0x30 => {
                let topic = name(at);
                let message = Message::Binary(packet);
                let listeners = subscribers.lock().unwrap();
                listeners.iter().filter(|(name, _)| *name == topic).for_each(|(_, to)| drop(to.send(message.clone())));
            }
            other => panic!("a packet of type {other:x}"),
        }
    }
}

const SHORT: &str = "--subs 6 --topics 3 --rate 200/s --duration 1s --warmup 200ms";

#[test]
fn mqtt_is_spoken_step_by_step_with_its_binary_lengths() {
    // A payload of 300 bytes makes the remaining length two bytes long.
    let outcome = run(&format!("fanout ws://{} --dialect {MQTT} {SHORT} --size 300", broker(b"")));
    outcome.assert_fine();
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * 2), "{}", outcome.out);
}

#[test]
fn several_processes_have_the_same_dialect() {
    let outcome = run(&format!("fanout ws://{} --dialect {MQTT} {SHORT} --processes 2", broker(b"")));
    outcome.assert_fine();
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * 2), "{}", outcome.out);
}

#[test]
fn what_is_not_awaited_is_no_answer() {
    // A value that was kept.
    let broker = broker(b"\x30\x06\0\x01xold");
    let outcome = run(&format!("fanout ws://{broker} --dialect {MQTT} {SHORT} --timeout 300ms"));
    assert_eq!(outcome.code, 4, "{}{}", outcome.out, outcome.err);
    assert!(outcome.err.contains("the subscription was not done within 300ms"), "{}", outcome.err);
}

#[test]
fn an_answer_that_never_comes_is_a_plain_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deaf.toml").display().to_string();
    let text = std::fs::read_to_string(MQTT).unwrap().replacen("wait = '\\x20", "wait = '\\x21", 1);
    std::fs::write(&path, text).unwrap();
    let outcome = run(&format!("fanout ws://{} --dialect {path} {SHORT} --timeout 300ms", broker(b"")));
    assert_eq!(outcome.code, 4, "{}{}", outcome.out, outcome.err);
    assert!(outcome.err.contains("the subscription was not done within 300ms"), "{}", outcome.err);
}

#[test]
fn a_file_that_is_none_and_options_beside_one_are_refused() {
    for (arguments, sentence) in [
        ("--dialect /nowhere/x.toml".to_owned(), "--dialect /nowhere/x.toml"),
        (format!("--dialect {MQTT} --publish-template x"), "cannot be used with"),
        (format!("--dialect {MQTT} --protocol raw"), "cannot be used with"),
    ] {
        let outcome = program(&format!("fanout ws://127.0.0.1:1 --rate 5/s {arguments}"));
        assert_eq!(outcome.code, 2, "{}{}", outcome.out, outcome.err);
        assert!(outcome.err.contains(sentence), "expected `{sentence}` in: {}", outcome.err);
    }
}
