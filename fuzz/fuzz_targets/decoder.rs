//! The frame decoder: any chunking gives the same events, and whole frames give those that tungstenite gives.
//!
//! The input is what a peer sent, and behind it four bytes that say which end reads it and in which pieces.
#![no_main]

use std::io::{self, Read, Write};

use libfuzzer_sys::fuzz_target;
use stentor::internals::websocket::{Decoder, Event, Role, Violation, deflate::compressed_max};
use tungstenite::{Message, WebSocket, protocol::WebSocketConfig};

const MAX: usize = 2000;

#[derive(Debug, PartialEq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Deflated(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

type Outcome = (Vec<Owned>, Option<Violation>);

fn decode(role: Role, bytes: &[u8], sizes: impl Iterator<Item = usize>) -> Outcome {
    decode_with(Decoder::new(role), MAX, bytes, sizes)
}

/// The same where messages may be compressed.
fn decode_deflated(role: Role, bytes: &[u8], sizes: impl Iterator<Item = usize>) -> Outcome {
    let mut decoder = Decoder::new(role);
    decoder.take_deflated();
    decode_with(decoder, compressed_max(MAX), bytes, sizes)
}

fn decode_with(mut decoder: Decoder, most: usize, bytes: &[u8], mut sizes: impl Iterator<Item = usize>) -> Outcome {
    let (mut events, mut violation) = (Vec::new(), None);
    let mut bytes = bytes.to_vec();
    let mut rest = &mut bytes[..];
    while !rest.is_empty() {
        let len = sizes.next().unwrap_or(usize::MAX).min(rest.len());
        let (mut input, after) = rest.split_at_mut(len);
        rest = after;
        loop {
            match decoder.next(&mut input, MAX) {
                Ok(None) => break,
                Ok(Some(event)) => events.push(match event {
                    Event::Text(text) => Owned::Text(text.into()),
                    Event::Binary(bytes) => Owned::Binary(bytes.into()),
                    Event::Deflated { is_text, message } => Owned::Deflated(is_text, message.into()),
                    Event::Ping(bytes) => Owned::Ping(bytes.into()),
                    Event::Pong(bytes) => Owned::Pong(bytes.into()),
                    Event::Close(close) => Owned::Close(close.map(|(code, reason)| (code.get(), reason.into()))),
                }),
                Err(refused) => assert!(violation.replace(refused).is_none(), "nothing comes after a violation"),
            }
            // A message, a control frame, and some two hundred bytes of its own.
            assert!(decoder.buffered() <= most + 125 + 256, "{}", decoder.buffered());
        }
    }
    (events, violation)
}

/// How many of the bytes are frames to compare. In a last, incomplete one tungstenite waits for what we refuse already; and it
/// takes lengths that are not in their shortest form, against RFC 6455 section 5.2.
fn comparable(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let Some([_, second]) = bytes.get(at..at + 2) else { return at };
        let (size, extended) = match second & 0x7f {
            126 => (2, bytes.get(at + 2..at + 4)),
            127 => (8, bytes.get(at + 2..at + 10)),
            _ => (0, Some(&[][..])),
        };
        let Some(extended) = extended else { return at };
        let len = match size {
            0 => u64::from(second & 0x7f),
            _ => extended.iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
        };
        if [(2, 0..126), (8, 0..65536)].iter().any(|(form, short)| *form == size && short.contains(&len)) {
            return at;
        }
        let header = 2 + size + if second & 0x80 != 0 { 4 } else { 0 };
        if len > (bytes.len() - at).saturating_sub(header) as u64 || bytes.len() - at < header {
            return at;
        }
        at += header + len as usize;
    }
}

/// What tungstenite makes of the same bytes: its messages, and whether it refused any.
fn tungstenite(role: Role, bytes: &[u8]) -> (Vec<Owned>, bool) {
    /// Ends after what was read already, and takes every answer.
    struct Ended;
    impl Read for Ended {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
    impl Write for Ended {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let config = WebSocketConfig::default().max_message_size(Some(MAX)).max_frame_size(Some(MAX));
    let role = match role {
        Role::Server => tungstenite::protocol::Role::Server,
        Role::Client => tungstenite::protocol::Role::Client,
    };
    let mut socket = WebSocket::from_partially_read(Ended, bytes.to_vec(), role, Some(config));
    let mut events = Vec::new();
    loop {
        events.push(match socket.read() {
            Ok(Message::Text(text)) => Owned::Text(text.as_str().into()),
            Ok(Message::Binary(bytes)) => Owned::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Owned::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Owned::Pong(bytes.to_vec()),
            Ok(Message::Close(close)) => {
                events.push(Owned::Close(close.map(|frame| (frame.code.into(), frame.reason.as_str().into()))));
                return (events, false);
            }
            Ok(Message::Frame(_)) => unreachable!("only ever written"),
            Err(tungstenite::Error::Io(_)) => return (events, false),
            Err(_) => return (events, true),
        });
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((bytes, &how)) = data.split_last_chunk::<4>() else { return };
    let role = if how[0] & 1 == 0 { Role::Server } else { Role::Client };
    let whole = decode(role, bytes, std::iter::empty());
    assert_eq!(decode(role, bytes, how.iter().map(|size| 1 + usize::from(*size)).cycle()), whole);
    assert_eq!(decode(role, bytes, std::iter::repeat(1)), whole);
    let deflated = decode_deflated(role, bytes, std::iter::empty());
    assert_eq!(decode_deflated(role, bytes, how.iter().map(|size| 1 + usize::from(*size)).cycle()), deflated);
    assert_eq!(decode_deflated(role, bytes, std::iter::repeat(1)), deflated);

    let bytes = &bytes[..comparable(bytes)];
    let (mut events, violation) = decode(role, bytes, std::iter::empty());
    let theirs = tungstenite(role, bytes);
    // A close code that may not be sent is a close frame of its own making for tungstenite (unless the reason isn't text), and
    // so is 1014, registered since.
    let own = Owned::Close(Some((1002, "Protocol violation".into())));
    match (violation, events.last_mut()) {
        (Some(Violation::CloseCode(_)), _) if !theirs.1 => {
            events.push(own);
            return assert_eq!(events, theirs.0);
        }
        (None, Some(close @ Owned::Close(Some((1014, _))))) => *close = own,
        _ => {}
    }
    assert_eq!((events, violation.is_some()), theirs, "{violation:?}");
});
