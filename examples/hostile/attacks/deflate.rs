//! Compression: little that comes to much, much that comes to nothing, and work that others are asked to do.

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use miniz_oxide::deflate::compress_to_vec;

use super::{Attack, Attacker, attack, readers, wire};

/// What is offered ordinarily.
const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// What has each publication compressed by itself.
const ALONE: &str = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n";

/// What a flate stream that was flushed ends with; a message goes without.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

pub const BOMBS: Attack = attack(
    "deflate-bombs",
    "1 address, 20 connections that send 64 MB in 64 KB, come again when they are closed, and send it again",
    bombs,
);

fn bombs(attacker: &Attacker) {
    let bomb = compressed(0xc1, &vec![b' '; 64 << 20]);
    let open = |_| offering(attacker, "/ws", OFFER).and_then(|stream| written(stream, &bomb));
    attacker.hold(attacker.count(20), open, Duration::from_millis(10), |_| {});
}

pub const INFLATING: Attack = attack(
    "deflate-inflating",
    "1 address, 4 connections that send commands of 60 KB in 90 bytes without end: each is inflated and read",
    inflating,
);

fn inflating(attacker: &Attacker) {
    let command = format!(r#"{{"op":"ping","x":"{}"}}"#, " ".repeat(60_000));
    attacker.flood(4, |_| offering(attacker, "/ws", OFFER), &compressed(0xc1, command.as_bytes()), true);
}

pub const TABLES: Attack = attack(
    "deflate-tables",
    "1 address, 4 connections that send messages of 60 KB of tables with nothing behind them, without end: all of it is made ready, \
     and comes to 13 bytes",
    tables,
);

fn tables(attacker: &Attacker) {
    let mut bits = Bits::default();
    // As many as there are bytes for: what they come to is no more than what is behind them.
    while bits.bytes.len() < 60_000 {
        empty_dynamic_block(&mut bits);
    }
    // An empty block of stored bytes, at whose beginning bytes are whole again; then what the message says.
    bits.put(0, 3);
    bits.fill();
    bits.bytes.extend(TAIL);
    bits.bytes.extend(flushed(br#"{"op":"ping"}"#));
    attacker.flood(4, |_| offering(attacker, "/ws", OFFER), &wire::frame(0xc1, &bits.bytes), true);
}

pub const FRAGMENTS: Attack = attack(
    "deflate-fragments",
    "1 address, 4 connections that send a compressed command of 1,000 bytes in fragments of one byte, without end",
    fragments,
);

fn fragments(attacker: &Attacker) {
    // What hardly gets shorter.
    let noise: String = (0..1200_u64).map(|n| char::from(b'0' + ((n * n * 7919) >> 3) as u8 % 60)).collect();
    let packed = flushed(format!(r#"{{"op":"ping","x":{:?}}}"#, noise.replace('\\', "/")).as_bytes());
    let mut frames = wire::frame(0x41, &packed[..1]);
    for byte in &packed[1..packed.len() - 1] {
        frames.extend(wire::frame(0x00, &[*byte]));
    }
    frames.extend(wire::frame(0x80, &packed[packed.len() - 1..]));
    attacker.flood(4, |_| offering(attacker, "/ws", OFFER), &frames, true);
}

pub const HALVES: Attack = attack(
    "deflate-halves",
    "1 address, 500 connections that each send most of a compressed message and no more of it: it is held until it is whole",
    halves,
)
.memory(64, 32);

fn halves(attacker: &Attacker) {
    let half = wire::frame(0x41, &[0x55; 60_000]);
    let open = |_| offering(attacker, "/ws", OFFER).and_then(|stream| written(stream, &half));
    attacker.hold(attacker.count(500), open, Duration::from_millis(20), |_| {});
}

pub const BITS: Attack = attack(
    "deflate-bits",
    "1 address, 20 connections that say that a ping, a continuation, or what was not agreed on is compressed, or send what is no \
     deflate, and come again when they are closed",
    bits,
);

fn bits(attacker: &Attacker) {
    let wrong: [(&str, Vec<u8>); 5] = [
        (OFFER, wire::frame(0xc9, b"?")),
        (OFFER, [wire::frame(0x41, &[0]), wire::frame(0xc0, &[0])].concat()),
        (OFFER, wire::frame(0xc1, &[7; 100])),
        (OFFER, wire::frame(0xe1, b"x")),
        ("", compressed(0xc1, b"nothing was agreed on")),
    ];
    let open = |n: usize| {
        let (offer, bytes) = &wrong[n % wrong.len()];
        offering(attacker, "/ws", offer).and_then(|stream| written(stream, bytes))
    };
    attacker.hold(attacker.count(20), open, Duration::from_millis(5), |_| {});
}

pub const OFFERS: Attack = attack(
    "deflate-offers",
    "1 address that comes as fast as it can, with 150 offers in 7 KB that are all declined but the last, and leaves",
    offers,
);

fn offers(attacker: &Attacker) {
    let declined = "permessage-deflate; server_max_window_bits=8, ".repeat(attacker.count(150));
    let offers = format!("Sec-WebSocket-Extensions: {declined}permessage-deflate; server_max_window_bits=9\r\n");
    attacker.settled();
    while attacker.goes_on() {
        drop(offering(attacker, "/ws", &offers));
    }
}

pub const WINDOWS: Attack = attack(
    "deflate-windows",
    "1 address, 200 subscribers that all offer something else, are sent some publications, and come again with another window",
    windows,
)
.memory(32, 16);

fn windows(attacker: &Attacker) {
    let text = format!("\"{}\"", "a quote that is long enough ".repeat(20));
    let some = wire::publish_lines((0..40).map(|n| format!("attack.windows.{}", n % 4)), &text);
    let mut turn = 0;
    while attacker.goes_on() {
        turn += 1;
        let come = |n: usize| {
            let (bits, which) = (8 + (n + turn) % 8, (n + turn) / 8 % 4);
            let more = ["", "; server_no_context_takeover", "; client_no_context_takeover", "; client_max_window_bits"];
            let offer = format!(
                "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits={bits}{}\r\n",
                more[which]
            );
            offering(attacker, "/ws?topics=attack.windows.*", &offer)
        };
        let held: Vec<TcpStream> = (0..attacker.count(200)).filter_map(come).collect();
        attacker.exchange(&some);
        attacker.settled();
        attacker.pause(Duration::from_millis(100));
        drop(held);
    }
}

pub const OLD: Attack = attack(
    "deflate-old",
    "1 address, 1,000 connections that come back for 20,000 old publications each, and have them compressed, again and again",
    old,
)
.memory(256, 64);

fn old(attacker: &Attacker) {
    let text = format!("\"{}\"", "a quote that is long enough ".repeat(10));
    let count = attacker.count(20_000);
    for _ in 0..count.div_ceil(1000) {
        attacker.exchange(&wire::publish_lines((0..1000).map(|_| "attack.old".to_owned()), &text));
    }
    let Some(epoch) = attacker.epoch_of("attack.old") else { return attacker.settled() };
    let both = [
        wire::command(&format!(r#"{{"op":"sub","topics":["attack.old"],"from":{{"attack.old":["{epoch}",0]}}}}"#)),
        wire::command(r#"{"op":"unsub","topics":["attack.old"]}"#),
    ]
    .concat();
    attacker.flood(attacker.count(1000), |_| offering(attacker, "/ws", OFFER), &both, true);
}

pub const STALLED: Attack = attack(
    "deflate-stalled",
    "1 address, 1,000 subscribers of everything it publishes, compressed, that read nothing",
    stalled,
)
.memory(48, 24);

fn stalled(attacker: &Attacker) {
    readers::stalled(attacker, |_| offering(attacker, "/ws?topics=attack.%3E", OFFER));
}

pub const PUBLISHED: Attack = attack(
    "deflate-published",
    "1 address, 1 compressed subscriber, and 2 connections that publish texts of 60 KB for it as fast as they can: each is to be \
     compressed",
    published,
)
.memory(64, 48);

fn published(attacker: &Attacker) {
    let noise: String = (0..60_000_u64).map(|n| char::from(b'a' + ((n * n * 7919) >> 5) as u8 % 26)).collect();
    let publication = wire::command(&format!(r#"{{"op":"pub","topic":"attack.long","data":"{noise}"}}"#));
    let open = |n: usize| {
        if n == 0 { offering(attacker, "/ws?topics=attack.long", ALONE) } else { attacker.upgraded("/ws") }
    };
    // The subscriber publishes as well: it is sent its own.
    attacker.flood(3, open, &publication, true);
}

pub const LISTS: Attack = attack(
    "deflate-lists",
    "1 address, 1,000 compressed subscribers with names of their own beside one that all have, on which it publishes what hardly gets \
     shorter: each has a stream",
    lists,
)
.memory(96, 48);

fn lists(attacker: &Attacker) {
    let noise: String = (0..300_u64).map(|n| char::from(b'a' + ((n * n * 7919) >> 5) as u8 % 26)).collect();
    let some = wire::publish_lines((0..10).map(|_| "attack.all".to_owned()), &format!("\"{noise}\""));
    let open = |n: usize| offering(attacker, &format!("/ws?topics=attack.all,attack.own.{n}"), OFFER);
    let mut published = Instant::now();
    attacker.hold(attacker.count(1000), open, Duration::from_millis(2), |_| {
        if published.elapsed() > Duration::from_millis(20) {
            published = Instant::now();
            attacker.exchange(&some);
        }
    });
}

/// A WebSocket that was asked for with these headers, its greeting unread.
fn offering(attacker: &Attacker, path: &str, headers: &str) -> Option<TcpStream> {
    let mut stream = attacker.connect()?;
    wire::upgrade_with(&mut stream, path, headers).ok()?;
    Some(stream)
}

fn written(mut stream: TcpStream, bytes: &[u8]) -> Option<TcpStream> {
    stream.write_all(bytes).ok()?;
    Some(stream)
}

/// A frame that holds a compressed message.
fn compressed(first: u8, message: &[u8]) -> Vec<u8> {
    wire::frame(first, &flushed(message))
}

/// A compressed message: what ends its stream has a byte behind it (RFC 7692 section 7.2.3.4).
fn flushed(message: &[u8]) -> Vec<u8> {
    let mut packed = compress_to_vec(message, 9);
    packed.push(0);
    packed
}

/// Bits as deflate has them in bytes: the first is the lowest.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits of the next byte, and how many.
    next: u8,
    len: u32,
}

impl Bits {
    /// The lowest `count` bits of a number.
    fn put(&mut self, bits: u32, count: u32) {
        for bit in 0..count {
            self.next |= ((bits >> bit & 1) as u8) << self.len;
            self.len += 1;
            if self.len == 8 {
                self.fill();
            }
        }
    }

    /// Fills the byte with zeros.
    fn fill(&mut self) {
        if self.len > 0 {
            self.bytes.push(std::mem::take(&mut self.next));
            self.len = 0;
        }
    }
}

/// A block with tables of its own and nothing in it, in 90 bits (RFC 1951 section 3.2.7): of all lengths and literals only the end has a
/// code, of one bit, and one distance has, which is never used.
fn empty_dynamic_block(to: &mut Bits) {
    // Not the last, of this kind; 257 literals, one distance, eighteen lengths of codes for lengths.
    to.put(0b100, 3);
    to.put(0, 5);
    to.put(0, 5);
    to.put(14, 4);
    // In the order of the RFC, of which the third stands for many zeros and the eighteenth for a length of one.
    for nth in 1..=18 {
        to.put(u32::from(nth == 3 || nth == 18), 3);
    }
    // Of these two codes a length of one is 0, many zeros are 1: 138 of them, and 118.
    for zeros in [138, 118] {
        to.put(1, 1);
        to.put(zeros - 11, 7);
    }
    to.put(0, 1);
    to.put(0, 1);
    // The end.
    to.put(0, 1);
}
