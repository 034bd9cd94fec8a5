//! Against tables that everybody shares, by one address that wants all of them.

use std::{io::Write, time::Duration};

use super::{Attack, Attacker, attack, wire};

const STEP: Duration = Duration::from_millis(50);

pub const CONNECTIONS: Attack =
    attack("connections", "1 address, 10,000 WebSockets: nobody else can connect", connections).memory(24, 12);

fn connections(attacker: &Attacker) {
    attacker.hold(attacker.count(10_000), |_| attacker.upgraded("/ws"), STEP, |_| {});
}

pub const SUBSCRIPTIONS: Attack = attack(
    "subscriptions",
    "1 address, 1,100 connections with 1,024 names each that nobody else has: nobody else can subscribe",
    subscriptions,
)
.memory(384, 384);

fn subscriptions(attacker: &Attacker) {
    let open = |n: usize| {
        let names: Vec<String> = (0..1000).map(|name| format!("\"attack.{n}.{name}\"")).collect();
        let mut subs = sub(&names.join(","));
        // A thousand at once, as long as there is room for a thousand; then one by one.
        (0..24).for_each(|name| subs.append(&mut sub(&format!("\"attack.one.{n}.{name}\""))));
        let mut stream = attacker.upgraded("/ws")?;
        stream.write_all(&subs).ok()?;
        Some(stream)
    };
    attacker.hold(attacker.count(1100), open, STEP, |_| {});
}

fn sub(names: &str) -> Vec<u8> {
    wire::command(&format!(r#"{{"op":"sub","topics":[{names}],"snapshot":false}}"#))
}

pub const TOPICS: Attack =
    attack("topics", "1 address that publishes on 70,000 names of its own: nobody else can have a new topic", topics)
        .memory(64, 64);

fn topics(attacker: &Attacker) {
    let long = format!("attack.topics.{}", "x".repeat(90));
    attacker.publish_topics(&long, attacker.count(70_000), "1");
    attacker.settled();
    while attacker.pause(STEP) {}
}

pub const VALUES: Attack = attack(
    "values",
    "1 address that publishes 4 KiB on each of 65,000 topics, then a byte: others' last values, and memory that is not given back",
    values,
)
.memory(320, 320);

fn values(attacker: &Attacker) {
    let text = |len: usize| format!("\"{}\"", "x".repeat(len - 2));
    let count = attacker.count(65_000);
    attacker.publish_topics("attack.values", count, &text(4000));
    // What room is left for values, in ever smaller ones.
    attacker.publish_topics("attack.large", attacker.count(300), &text(60_000));
    for power in (2..16).rev() {
        attacker.publish_topics(&format!("attack.rest.{power}"), 2, &text(1 << power));
    }
    attacker.publish_topics("attack.rest.0", 4, "1");
    attacker.settled();
    attacker.pause(Duration::from_secs(1));
    attacker.publish_topics("attack.values", count, "1");
    while attacker.pause(STEP) {}
}

pub const HALF_MESSAGES: Attack = attack(
    "half-messages",
    "1 address, 10,000 connections that send all but the end of a message of 64 KiB: memory",
    half_messages,
)
.memory(192, 192);

fn half_messages(attacker: &Attacker) {
    let mut half = wire::frame(0x81, &[b' '; 65_000]);
    half.truncate(half.len() - 1);
    let open = |_| {
        let mut stream = attacker.upgraded("/ws")?;
        stream.write_all(&half).ok()?;
        Some(stream)
    };
    attacker.hold(attacker.count(10_000), open, STEP, |_| {});
}
