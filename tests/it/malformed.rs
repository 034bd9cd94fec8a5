//! Nonsense of every sort, made from good requests, frames and commands by a seed: the server refuses it and goes on.

use std::{
    io::{Read, Write},
    net::Shutdown,
};

use crate::{
    client::{frame, tcp},
    process::Running,
};

const CONNECTIONS: u64 = 1500;

const HANDSHAKE: &[u8] =
    b"GET /ws?topics=a,b.* HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const REQUESTS: [&[u8]; 6] = [
    HANDSHAKE,
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
    b"GET /topics?pattern=a.%3E&limit=5&after=b HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /publish/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
    b"POST /publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n19\r\n{\"topic\":\"a\",\"data\":[1,2]}\r\n0\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
];

const COMMANDS: [&str; 8] = [
    r#"{"op":"sub","id":1,"topics":["a","b.*",">"],"mode":"all","snapshot":true}"#,
    r#"{"op":"sub","id":"x","topics":["a"],"mode":"latest","rate":4.5}"#,
    r#"{"op":"sub","topics":["a"],"from":{"a":["k3",9]}}"#,
    r#"{"op":"unsub","id":2,"topics":["a"]}"#,
    r#"{"op":"pub","id":3,"topic":"a.b","data":{"x":[1,2,"\u00e9"]}}"#,
    r#"{"op":"auth","token":"guess"}"#,
    r#"{"op":"list","id":1.5e3}"#,
    r#"{"op":"ping"}"#,
];

/// Some bytes changed, taken out, put in, or said twice.
fn damage(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    for _ in 0..random.usize(0..4) {
        let at = random.usize(0..=bytes.len());
        match random.u8(0..5) {
            0 if at < bytes.len() => bytes[at] = random.u8(..),
            1 => bytes.insert(at, *random.choice(b"\r\n\0 {}[]\",:.*>\xff\x80a9").expect("some")),
            2 => bytes.truncate(at),
            3 => bytes.extend_from_within(at..),
            _ => drop(bytes.drain(at..(at + random.usize(0..8)).min(bytes.len()))),
        }
    }
}

/// What one connection says.
fn nonsense(random: &mut fastrand::Rng) -> Vec<u8> {
    if random.bool() {
        let mut request = random.choice(REQUESTS).expect("some").to_vec();
        damage(random, &mut request);
        return request;
    }
    let mut said = HANDSHAKE.to_vec();
    for _ in 0..random.usize(1..12) {
        let mut payload = random.choice(COMMANDS).expect("some").as_bytes().to_vec();
        if random.bool() {
            damage(random, &mut payload);
        }
        let first = if random.u8(0..4) > 0 { 0x81 } else { random.u8(..) };
        let mut frame = frame(first, &payload);
        if random.u8(0..4) == 0 {
            damage(random, &mut frame);
        }
        said.extend(frame);
    }
    said
}

#[test]
fn nonsense_is_refused_and_the_server_goes_on() {
    let running = Running::start(&["--max-topics", "50", "--workers", "1", "--pin", "none"]);
    let seed = std::env::var("STENTOR_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("STENTOR_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..CONNECTIONS {
        let mut stream = tcp(running.at());
        // It may hang up in the middle.
        let _ = stream.write_all(&nonsense(&mut random));
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let mut client = running.client("/ws?topics=still");
    assert_eq!(client.json()["type"], "hello");
    assert_eq!(client.json()["type"], "ack");
    assert_eq!(client.ask(r#"{"op":"ping","id":1}"#)["type"], "pong");
    drop(client);
    running.until("connections_admitted", |connections| connections == 1.0);
    running.until("subscriptions", |subscriptions| subscriptions == 0.0);
    running.signal(rustix::process::Signal::TERM);
    let (code, log) = running.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}
