//! Against the control thread, and the places that plain HTTP has.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::{Attack, Attacker, attack, wire};

/// Topics that a list has, where one is asked for.
const TOPICS: usize = 10_000;

/// How often a held connection goes on.
const STEP: Duration = Duration::from_millis(20);

pub const IDLE: Attack =
    attack("http-idle", "1 address, 600 kept-alive connections: nobody else has a place for plain HTTP", idle);

/// Each has asked something, so it is plain HTTP and waits for its next request.
fn idle(attacker: &Attacker) {
    let open = |_| attacker.sent(&wire::get("/topics?limit=1", ""));
    attacker.hold(attacker.count(600), open, STEP, |_| {});
}

pub const PIPELINES: Attack = attack(
    "http-pipelines",
    "1 address, 20 connections, each a pipeline of small pages of 20,000 topics: the control thread has no time for others",
    pipelines,
)
.memory(32, 16);

fn pipelines(attacker: &Attacker) {
    attacker.publish_topics("attack.list", attacker.count(2 * TOPICS), "1");
    attacker.flood(20, |_| attacker.connect(), &wire::get("/topics?limit=1", ""), true);
}

pub const UNREAD: Attack = attack(
    "http-unread",
    "1 address, 600 connections that ask for 10,000 topics and read nothing, renewed as they end: memory, and every place",
    unread,
)
.memory(96, 48);

fn unread(attacker: &Attacker) {
    let long = format!("attack.list.{}", "x".repeat(80));
    attacker.publish_topics(&long, attacker.count(TOPICS), "1");
    let open = |_| attacker.sent(&wire::get("/topics?limit=10000", ""));
    attacker.hold(attacker.count(600), open, STEP, |_| {});
}

pub const SCRAPES: Attack = attack(
    "http-scrapes",
    "1 address, 20 connections that ask for metrics without end: a scrape is the dearest answer",
    scrapes,
);

fn scrapes(attacker: &Attacker) {
    attacker.flood(20, |_| attacker.connect(), &wire::get("/metrics", ""), true);
}

pub const SLOW_HEADS: Attack = attack(
    "slow-heads",
    "1 address, 10,000 connections that send their first request a byte at a time: every connection",
    slow_heads,
)
.memory(48, 12);

fn slow_heads(attacker: &Attacker) {
    let open = |_| attacker.sent(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
    attacker.hold(attacker.count(10_000), open, Duration::from_millis(500), dribble);
}

pub const SLOW_NEXT_HEADS: Attack = attack(
    "slow-next-heads",
    "1 address, 600 connections that send their second request a byte at a time: every place of plain HTTP",
    slow_next_heads,
);

fn slow_next_heads(attacker: &Attacker) {
    let open = |_| {
        let mut requests = wire::get("/topics?limit=1", "");
        requests.extend_from_slice(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
        attacker.sent(&requests)
    };
    attacker.hold(attacker.count(600), open, Duration::from_millis(200), dribble);
}

pub const SLOW_BODIES: Attack = attack(
    "slow-bodies",
    "1 address, 600 payloads of 64 KiB that come a byte at a time: every place of plain HTTP",
    slow_bodies,
);

fn slow_bodies(attacker: &Attacker) {
    let open =
        |_| attacker.sent(b"POST /publish/attack.slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65536\r\n\r\n");
    attacker.hold(attacker.count(600), open, Duration::from_millis(200), dribble);
}

fn dribble(stream: &mut TcpStream) {
    let _ = stream.set_nonblocking(true);
    let _ = stream.write(b"x");
}

pub const SLOW_TAKERS: Attack = attack(
    "slow-takers",
    "1 address, 600 connections that take their answer a kilobyte at a time: every place of plain HTTP, and memory",
    slow_takers,
)
.memory(96, 48);

fn slow_takers(attacker: &Attacker) {
    let long = format!("attack.list.{}", "x".repeat(80));
    attacker.publish_topics(&long, attacker.count(TOPICS), "1");
    // More than the kernel takes over for a client that reads nothing.
    let asked = wire::get("/topics?limit=1000", "").repeat(100);
    let open = |_| attacker.sent(&asked);
    attacker.hold(attacker.count(600), open, Duration::from_millis(200), |stream| {
        let _ = stream.set_nonblocking(true);
        let _ = stream.read(&mut [0; 1024]);
    });
}
