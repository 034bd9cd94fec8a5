//! Subscribers that stop reading, and let the server keep what it has for them.

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{Attack, Attacker, attack, wire};

pub const STALLED_ALL: Attack =
    attack("stalled-all", "1 address, 1,000 subscribers of everything it publishes that read nothing", stalled_all)
        .memory(32, 12);

fn stalled_all(attacker: &Attacker) {
    stalled(attacker, |_| attacker.upgraded("/ws?topics=attack.%3E"));
}

pub const STALLED_LATEST: Attack =
    attack("stalled-latest", "1 address, 1,000 subscribers of newest values that read nothing", stalled_latest)
        .memory(32, 12);

fn stalled_latest(attacker: &Attacker) {
    let sub = wire::command(r#"{"op":"sub","topics":["attack.>"],"mode":"latest"}"#);
    stalled(attacker, |_| {
        let mut stream = attacker.upgraded("/ws")?;
        stream.write_all(&sub).ok()?;
        Some(stream)
    });
}

pub const STALLED_EVENTS: Attack =
    attack("stalled-events", "1 address, 1,000 streams of events that read nothing", stalled_events).memory(32, 12);

fn stalled_events(attacker: &Attacker) {
    stalled(attacker, |_| attacker.sent(&wire::get("/sse?topics=attack.%3E", "")));
}

/// So many that never read, and 8 MB/s for them.
pub fn stalled(attacker: &Attacker, open: impl Fn(usize) -> Option<TcpStream>) {
    let some = wire::publish_lines((0..40).map(|n| format!("attack.{n}")), &format!("\"{}\"", "x".repeat(4000)));
    let mut published = Instant::now();
    attacker.hold(attacker.count(1000), open, Duration::from_millis(5), |_| {
        if published.elapsed() > Duration::from_millis(20) {
            published = Instant::now();
            attacker.exchange(&some);
        }
    });
}

pub const SNAPSHOTS: Attack = attack(
    "snapshots",
    "1 address, 60 connections that each ask for 15 MB of last values and read nothing: memory",
    snapshots,
)
.memory(192, 24);

fn snapshots(attacker: &Attacker) {
    attacker.publish_topics("attack.values", attacker.count(3600), &format!("\"{}\"", "x".repeat(4000)));
    let open = |_| attacker.upgraded("/ws?topics=attack.%3E");
    attacker.hold(attacker.count(60), open, Duration::from_millis(20), |_| {});
}

pub const TOLD: Attack = attack(
    "told",
    "1 address, 300 subscribers of newest values of 20,000 topics that read nothing: what is noted for each of what it was told",
    told,
)
.memory(192, 48);

fn told(attacker: &Attacker) {
    attacker.publish_topics("attack.told", attacker.count(20_000), "1");
    let sub = wire::command(r#"{"op":"sub","topics":["attack.told.>"],"mode":"latest"}"#);
    let open = |_| {
        let mut stream = attacker.upgraded("/ws")?;
        stream.write_all(&sub).ok()?;
        Some(stream)
    };
    attacker.hold(attacker.count(300), open, Duration::from_millis(20), |_| {});
}

pub const STAGES: Attack = attack(
    "stages",
    "1 address, 1 subscriber of newest values of 20,000 topics that reads nothing and changes its subscription 500 times: \
     what is noted for each change",
    stages,
)
.memory(96, 48);

fn stages(attacker: &Attacker) {
    attacker.publish_topics("attack.told", attacker.count(20_000), "1");
    let Some(mut stream) = attacker.upgraded("/ws") else { return attacker.settled() };
    // Its snapshots alone are more than its socket takes.
    let _ = stream.write_all(&wire::command(r#"{"op":"sub","topics":["attack.told.>"],"mode":"latest"}"#));
    let both = [
        wire::command(r#"{"op":"sub","topics":["attack.none"],"mode":"latest","snapshot":false}"#),
        wire::command(r#"{"op":"unsub","topics":["attack.none"]}"#),
    ]
    .concat();
    for _ in 0..attacker.count(250) {
        if stream.write_all(&both).is_err() || !attacker.pause(Duration::from_millis(10)) {
            break;
        }
    }
    attacker.settled();
    while attacker.pause(Duration::from_millis(20)) {}
}
