//! Commands that ask for much more than they weigh.

use std::{io::Write, net::TcpStream, time::Duration};

use super::{Attack, Attacker, attack, wire};

/// Topics that one address may have, in round numbers.
const TOPICS: usize = 30_000;

pub const EVERYTHING: Attack = attack(
    "everything",
    "1 address, 1 connection that subscribes to > 1,500 times in 73 KiB beside 20,000 topics, again and again",
    everything,
)
.memory(64, 32);

fn everything(attacker: &Attacker) {
    attacker.publish_topics("attack.list", attacker.count(20_000), "1");
    ask_for_everything(attacker);
}

pub const EVERYTHING_OF_MANY: Attack = attack(
    "everything-of-many",
    "2 addresses with 30,000 topics each, 1 connection that subscribes to > 1,500 times in 73 KiB, again and again",
    everything_of_many,
)
.memory(96, 64);

fn everything_of_many(attacker: &Attacker) {
    attacker.publish_topics("attack.list", attacker.count(TOPICS), "1");
    attacker.second().publish_topics("attack.more", attacker.count(TOPICS), "1");
    ask_for_everything(attacker);
}

fn ask_for_everything(attacker: &Attacker) {
    let subs = wire::command(r#"{"op":"sub","topics":[">"],"snapshot":false}"#).repeat(attacker.count(1500));
    again(attacker, &subs);
}

pub const FORTY: Attack = attack(
    "forty",
    "1 address, 40 clients, each of which is a cohort, that come and subscribe to > beside 20,000 topics, again and again",
    forty,
)
.memory(64, 32);

fn forty(attacker: &Attacker) {
    attacker.publish_topics("attack.list", attacker.count(20_000), "1");
    while attacker.goes_on() {
        let come = |n: usize| {
            let mut stream = attacker.upgraded("/ws")?;
            let sub = format!(r#"{{"op":"sub","topics":[">","attack.own.{n}"],"snapshot":false}}"#);
            stream.write_all(&wire::command(&sub)).ok()?;
            Some(stream)
        };
        let held: Vec<TcpStream> = (0..attacker.count(40)).filter_map(come).collect();
        attacker.settled();
        attacker.pause(Duration::from_millis(500));
        drop(held);
    }
}

pub const PATTERN_COMMANDS: Attack = attack(
    "pattern-commands",
    "1 address, 2 commands with 1,000 patterns each beside 20,000 topics, again and again",
    pattern_commands,
)
.memory(64, 32);

fn pattern_commands(attacker: &Attacker) {
    attacker.publish_topics("attack.list", attacker.count(20_000), "1");
    let both = [wire::command(&sub("*.{}.*", 1000, "")), wire::command(&sub("*.*.x{}", 1000, ""))].concat();
    again(attacker, &both);
}

pub const REFUSED: Attack = attack(
    "refused",
    "1 address, 1 connection with 1,024 names whose further commands with 1,000 patterns each are all refused: what a refusal costs",
    refused,
)
.memory(64, 32);

fn refused(attacker: &Attacker) {
    attacker.publish_topics("attack.list", attacker.count(20_000), "1");
    let more = wire::command(&sub("*.{}.*.>", 1000, "")).repeat(20);
    let Some(mut stream) = attacker.upgraded("/ws") else { return attacker.settled() };
    let _ = stream.write_all(&wire::command(&sub("attack.full.{}", 1024, "")));
    drop(wire::read_frame(&mut stream));
    attacker.flood(1, |_| attacker.upgraded("/ws"), &more, true);
}

pub const FROM_PATTERNS: Attack = attack(
    "from-patterns",
    "1 address, 4 connections whose commands have 500 patterns and a place to go on from for each of 500 topics: each is held \
     against each",
    from_patterns,
)
.memory(64, 32);

fn from_patterns(attacker: &Attacker) {
    let from: Vec<String> = (0..500).map(|n| format!("\"attack.q.{n}.y\":[\"k\",1]")).collect();
    let from = format!(r#","from":{{{}}}"#, from.join(","));
    // The last pattern stands for all of them, so that none is refused before.
    let patterns = sub("*.*.x{}.y", 499, &from).replacen('[', "[\"attack.q.>\",", 1);
    attacker.flood(4, |_| attacker.upgraded("/ws"), &wire::command(&patterns), true);
}

pub const RESUMES: Attack = attack(
    "resumes",
    "1 address, 10 connections that ask for all there was on 1,000 topics, from their first publications, again and again",
    resumes,
)
.memory(192, 48);

fn resumes(attacker: &Attacker) {
    let count = attacker.count(1000);
    for _ in 0..50 {
        attacker.publish_topics("attack.from", count, "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"");
    }
    // The epoch of topics that were made first is the server's own.
    let Some(epoch) = attacker.epoch_of("attack.from.0") else { return attacker.settled() };
    let names: Vec<String> = (0..count).map(|n| format!("\"attack.from.{n}\"")).collect();
    let from: Vec<String> = names.iter().map(|name| format!("{name}:[\"{epoch}\",0]")).collect();
    let (names, from) = (names.join(","), from.join(","));
    let both = [
        wire::command(&format!(r#"{{"op":"sub","topics":[{names}],"from":{{{from}}}}}"#)),
        wire::command(&format!(r#"{{"op":"unsub","topics":[{names}]}}"#)),
    ]
    .concat();
    attacker.flood(10, |_| attacker.upgraded("/ws"), &both, true);
}

pub const FLIPPER: Attack = attack(
    "flipper",
    "1 address, 1 connection with 1,023 names that changes the mode of one of them 8,000 times, reads nothing, and leaves: \
     each change is a cohort",
    flipper,
)
.memory(64, 32);

fn flipper(attacker: &Attacker) {
    while attacker.goes_on() {
        let Some(mut stream) = attacker.upgraded("/ws") else { continue };
        // Each command another name and another mode, so that no set of them is like one before.
        let mut commands = wire::command(&sub("attack.flip.{}", 1023, ""));
        for n in 0..attacker.count(8000) {
            let (name, mode) = (n % 1023, ["latest", "all"][n / 1023 % 2]);
            commands
                .extend(wire::command(&format!(r#"{{"op":"sub","topics":["attack.flip.{name}"],"mode":"{mode}"}}"#)));
        }
        // It gives way to the server's quotas, and doesn't come back before.
        for some in commands.chunks(16 * 1024) {
            if stream.write_all(some).is_err() || !attacker.pause(Duration::from_millis(20)) {
                break;
            }
        }
        attacker.settled();
        attacker.pause(Duration::from_millis(500));
    }
}

pub const UNSUBS: Attack = attack(
    "unsubs",
    "1 address, 10 subscribers of newest values of 5,000 topics that read nothing and unsubscribe from something else 1,900 \
     times in 64 KiB: what is noted for each",
    unsubs,
)
.memory(96, 48);

fn unsubs(attacker: &Attacker) {
    attacker.publish_topics("attack.told", attacker.count(5000), "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"");
    let mut commands = wire::command(r#"{"op":"sub","topics":["attack.told.>"],"mode":"latest"}"#);
    commands.extend(wire::command(r#"{"op":"unsub","topics":["x"]}"#).repeat(attacker.count(1900)));
    let open = |_| attacker.upgraded("/ws").and_then(|mut stream| stream.write_all(&commands).ok().map(|()| stream));
    attacker.hold(attacker.count(10), open, Duration::from_millis(20), |_| {});
}

pub const SNAPSHOTS_AGAIN: Attack = attack(
    "snapshots-again",
    "1 address, 1 connection that asks 100 times for 15 MB of last values and reads nothing: an answer is made before it is \
     asked whether there is room for it",
    snapshots_again,
)
.memory(96, 48);

fn snapshots_again(attacker: &Attacker) {
    attacker.publish_topics("attack.values", attacker.count(3600), &format!("\"{}\"", "x".repeat(4000)));
    let both = [
        wire::command(r#"{"op":"sub","topics":["attack.values.>"]}"#),
        wire::command(r#"{"op":"unsub","topics":["attack.values.>"]}"#),
    ];
    let asked = both.concat().repeat(100);
    let open = |_| attacker.upgraded("/ws").and_then(|mut stream| stream.write_all(&asked).ok().map(|()| stream));
    attacker.hold(1, open, Duration::from_millis(20), |_| {});
}

pub const DEEP_PATTERNS: Attack = attack(
    "deep-patterns",
    "1 address, 100 connections with 1,000 patterns of ten segments each: what the server keeps for each segment",
    deep_patterns,
)
.memory(256, 128);

fn deep_patterns(attacker: &Attacker) {
    let open = |n: usize| {
        let mut stream = attacker.upgraded("/ws")?;
        let pattern = format!("{n}-{{}}.{}*", "a.".repeat(8));
        stream.write_all(&wire::command(&sub(&pattern, 1000, ""))).ok()?;
        Some(stream)
    };
    attacker.hold(attacker.count(100), open, Duration::from_millis(50), |_| {});
}

/// A `sub` of so many names, each with its number in the place of `{}`, and what comes behind them.
fn sub(name: &str, count: usize, more: &str) -> String {
    let names: Vec<String> = (0..count).map(|n| format!("\"{}\"", name.replace("{}", &n.to_string()))).collect();
    format!(r#"{{"op":"sub","topics":[{}],"snapshot":false{more}}}"#, names.join(","))
}

/// Sends the same on a new connection once a second, reads what is answered, and leaves.
fn again(attacker: &Attacker, commands: &[u8]) {
    while attacker.goes_on() {
        if let Some(mut stream) = attacker.upgraded("/ws")
            && stream.write_all(commands).is_ok()
        {
            attacker.settled();
            attacker.read_for(&mut stream, Duration::from_secs(1));
        }
    }
}
