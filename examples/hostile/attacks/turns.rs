//! Work that one client may ask for within one turn of a worker, or under a lock.

use std::{io::Write, net::TcpStream, thread, time::Duration};

use super::{Attack, Attacker, attack, wire};

pub const EMPTY_FRAGMENTS: Attack = attack(
    "empty-fragments",
    "1 address, 4 connections that send empty continuations without end: frames that cost work and count for nothing",
    empty_fragments,
);

fn empty_fragments(attacker: &Attacker) {
    let open = |_| {
        let mut stream = attacker.upgraded("/ws")?;
        stream.write_all(&wire::frame(0x01, b"x")).ok()?;
        Some(stream)
    };
    attacker.flood(4, open, &wire::frame(0x00, b""), false);
}

pub const PATTERNS: Attack = attack(
    "patterns",
    "1 address, 4 connections that subscribe to > again and again beside 20,000 topics: all of them are looked at each time",
    patterns,
)
.memory(64, 32);

fn patterns(attacker: &Attacker) {
    attacker.publish_topics("attack.list", attacker.count(20_000), "1");
    let sub = wire::command(r#"{"op":"sub","topics":[">"],"snapshot":false}"#);
    attacker.flood(4, |_| attacker.upgraded("/ws"), &sub, true);
}

pub const PUBLISHERS: Attack = attack(
    "publishers",
    "1 address, 2 connections that publish as fast as they can: the worker reads them before it sends to others",
    publishers,
)
.memory(32, 12);

fn publishers(attacker: &Attacker) {
    let publication = wire::command(r#"{"op":"pub","topic":"attack.fast","data":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#);
    attacker.flood(2, |_| attacker.upgraded("/ws"), &publication, true);
}

pub const LISTENERS: Attack = attack(
    "listeners",
    "1 address, 200 connections with 1,000 patterns each, and 4 that list topics: their subscribers are counted under a lock that subscribing takes",
    listeners,
)
.memory(192, 64);

fn listeners(attacker: &Attacker) {
    attacker.publish_topics("attack.list", attacker.count(2000), "1");
    let pattern = |n, name| format!("attack.list.*.{n}.{name}");
    let held: Vec<_> = (0..attacker.count(200)).filter_map(|n| subscribed(attacker, n, pattern)).collect();
    attacker.pause(Duration::from_millis(100));
    attacker.flood(4, |_| attacker.connect(), &wire::get("/topics?limit=1000", ""), true);
    drop(held);
}

pub const COUNTED: Attack = attack(
    "counted",
    "1 address, 400 connections with 1,000 names each, and 20 that ask for one last value without end: its subscribers are \
     counted among all names, under a lock that subscribing takes",
    counted,
)
.memory(192, 64);

fn counted(attacker: &Attacker) {
    attacker.publish_topics("attack.list", 1, "1");
    let held: Vec<_> =
        (0..attacker.count(400)).filter_map(|n| subscribed(attacker, n, |n, name| format!("a.{n}.{name}"))).collect();
    attacker.flood(20, |_| attacker.connect(), &wire::get("/topics/attack.list.0", ""), true);
    drop(held);
}

pub const LEAVING: Attack = attack(
    "leaving",
    "1 address, 200 connections with 1,000 patterns each that all leave at once: each pattern is looked for among all",
    leaving,
)
.memory(192, 96);

fn leaving(attacker: &Attacker) {
    while attacker.goes_on() {
        let pattern = |n, name| format!("a.{n}.{name}.*");
        let held: Vec<_> = (0..attacker.count(200)).filter_map(|n| subscribed(attacker, n, pattern)).collect();
        // Until the last one has been subscribed.
        attacker.exchange(&wire::get("/healthz", "Connection: close\r\n"));
        attacker.settled();
        drop(held);
        attacker.pause(Duration::from_secs(1));
    }
}

pub const NEW_NAMES: Attack = attack(
    "new-names",
    "1 address, 4 connections that subscribe to 1,000 new names again and again beside 20,000 topics that the worker knows: \
     each name is held against all of them",
    new_names,
)
.memory(64, 32);

fn new_names(attacker: &Attacker) {
    let known = attacker.upgraded("/ws?topics=attack.%3E");
    attacker.publish_topics("attack.known", attacker.count(20_000), "1");
    let names: Vec<String> = (0..1000).map(|name| format!("\"a.new.{name}\"")).collect();
    let names = names.join(",");
    let both = [
        wire::command(&format!(r#"{{"op":"sub","topics":[{names}],"snapshot":false}}"#)),
        wire::command(&format!(r#"{{"op":"unsub","topics":[{names}]}}"#)),
    ]
    .concat();
    attacker.flood(4, |_| attacker.upgraded("/ws"), &both, true);
    drop(known);
}

pub const OVERLAPS: Attack = attack(
    "overlaps",
    "1 address, 50 connections with 1,000 patterns each that all stand for one topic, and a publisher of it: a publication \
     meets each pattern of each",
    overlaps,
)
.memory(192, 64);

fn overlaps(attacker: &Attacker) {
    // Of ten segments any may be a star; a name of its own makes each a cohort.
    let pattern = |n: usize, name: usize| match name {
        0 => format!("attack.own.{n}"),
        _ => (0..10).map(|bit| if name >> bit & 1 == 1 { "*" } else { "a" }).collect::<Vec<_>>().join("."),
    };
    let held: Vec<_> = (0..attacker.count(50)).filter_map(|n| subscribed(attacker, n, pattern)).collect();
    let publication = wire::command(r#"{"op":"pub","topic":"a.a.a.a.a.a.a.a.a.a","data":1}"#);
    attacker.flood(1, |_| attacker.upgraded("/ws"), &publication, true);
    drop(held);
}

pub const COHORTS: Attack = attack(
    "cohorts",
    "1 address, 2,000 subscribers each of which is a cohort, and a publisher: a pass plans small publications by their bytes",
    cohorts,
)
.memory(64, 32);

fn cohorts(attacker: &Attacker) {
    let held: Vec<_> =
        (0..attacker.count(2000)).filter_map(|_| attacker.upgraded("/raw/attack.cohorts?echo=0")).collect();
    let publication = wire::frame(0x81, b"1");
    attacker.flood(1, |_| attacker.upgraded("/raw/attack.cohorts?echo=0"), &publication, true);
    drop(held);
}

pub const PATTERN_LISTS: Attack = attack(
    "pattern-lists",
    "1 address that connects to /ws?topics= with 1,000 patterns beside 20,000 topics: each topic is held against each \
     pattern, some of them under the tape's lock",
    pattern_lists,
)
.memory(64, 32);

fn pattern_lists(attacker: &Attacker) {
    attacker.publish_topics("attack.list", attacker.count(20_000), "1");
    let patterns: Vec<String> = (0..1000).map(|n| format!("*.{n:x}.*")).collect();
    let request = wire::upgrade_request(&format!("/ws?topics={}", patterns.join(",")));
    attacker.settled();
    while attacker.goes_on() {
        if let Some(mut stream) = attacker.sent(&request) {
            let _ = wire::status(&mut stream);
        }
    }
}

pub const UPLOADS: Attack = attack(
    "uploads",
    "1 address, 60 bodies of many publications as fast as they are taken: the control thread takes 64 KiB of each in a turn, \
     and the tape rolls over subscribers that keep up",
    uploads,
)
.memory(64, 32);

fn uploads(attacker: &Attacker) {
    let head = b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 67000000\r\n\r\n";
    attacker.flood(
        60,
        |_| attacker.sent(head),
        b"{\"topic\":\"attack.upload\",\"data\":\"xxxxxxxxxxxxxxxxxxxxxxxxxx\"}\n",
        false,
    );
}

/// A connection, the `n`th, that is subscribed to a thousand names.
fn subscribed(attacker: &Attacker, n: usize, name: impl Fn(usize, usize) -> String) -> Option<TcpStream> {
    let names: Vec<String> = (0..1000).map(|nth| format!("\"{}\"", name(n, nth))).collect();
    let sub = format!(r#"{{"op":"sub","topics":[{}],"snapshot":false}}"#, names.join(","));
    let mut stream = attacker.upgraded("/ws")?;
    stream.write_all(&wire::command(&sub)).ok()?;
    Some(stream)
}

pub const GARBAGE_TO_EVENTS: Attack = attack(
    "garbage-to-events",
    "1 address, 4 streams of events whose clients send garbage without end: bytes that nobody wants, and no quota counts",
    garbage_to_events,
);

fn garbage_to_events(attacker: &Attacker) {
    let open = |_| attacker.sent(&wire::get("/sse?topics=attack.none", ""));
    attacker.flood(4, open, &[b'x'; 4096], false);
}

pub const CLOSING: Attack = attack(
    "closing",
    "1 address, 50 connections that are to be closed for a bad frame and go on to send pings and garbage, renewed as they end",
    closing,
);

fn closing(attacker: &Attacker) {
    let open = |_| {
        let mut stream = attacker.upgraded("/ws")?;
        stream.write_all(&wire::frame(0x88, &1000_u16.to_be_bytes())).ok()?;
        Some(stream)
    };
    attacker.flood(50, open, &wire::frame(0x89, b"x"), false);
}

pub const BYTE_BY_BYTE: Attack = attack(
    "byte-by-byte",
    "1 address, 40 connections that send frames, and 40 that send heads of 8 KiB, in packets of one byte",
    byte_by_byte,
)
.memory(32, 16);

fn byte_by_byte(attacker: &Attacker) {
    let frame = wire::frame(0x8a, &[b'x'; 125]);
    let head = [b"GET /ws HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".to_vec(), vec![b'x'; 8000]].concat();
    let mut slow: Vec<(Option<TcpStream>, usize)> = (0..attacker.count(80)).map(|_| (None, 0)).collect();
    while attacker.goes_on() {
        for (n, (stream, at)) in slow.iter_mut().enumerate() {
            let bytes = if n % 2 == 0 { &frame } else { &head };
            let Some(open) = stream else {
                let fresh = if n % 2 == 0 { attacker.upgraded("/ws") } else { attacker.connect() };
                (*stream, *at) = (fresh, 0);
                continue;
            };
            if open.write_all(&bytes[*at % bytes.len()..][..1]).is_err() {
                *stream = None;
            }
            *at += 1;
        }
        attacker.settled();
    }
}

pub const ALMOST_JSON: Attack = attack(
    "almost-json",
    "1 address, 4 publishers of payloads of 64 KiB that turn out not to be JSON in their last byte, beside subscribers of each lane",
    almost_json,
)
.memory(64, 32);

fn almost_json(attacker: &Attacker) {
    let lanes = [attacker.upgraded("/ws?topics=attack.almost"), attacker.upgraded("/raw/attack.almost")];
    let events = attacker.sent(&wire::get("/sse?topics=attack.almost", ""));
    let almost = format!("[{}\"\\u0001\n", "{\"a\":[\"\\\"\"]},".repeat(4500));
    let publication = wire::frame(0x81, &almost.as_bytes()[..almost.len().min(60_000)]);
    attacker.flood(4, |_| attacker.upgraded("/raw/attack.almost?echo=0"), &publication, true);
    drop((lanes, events));
}

pub const LANE_FLIPS: Attack = attack(
    "lane-flips",
    "1 address that comes and goes as a subscriber of events, so that their lane begins and ceases to be wanted, beside 2 \
     publishers of 60 KB of binary: what was not made ready is made under the tape's lock",
    lane_flips,
)
.memory(64, 32);

fn lane_flips(attacker: &Attacker) {
    let publication = wire::frame(0x82, &[0xff; 60_000]);
    thread::scope(|scope| {
        scope.spawn(|| {
            while attacker.goes_on() {
                if let Some(mut stream) = attacker.sent(&wire::get("/sse?topics=attack.flips", "")) {
                    let _ = wire::status(&mut stream);
                }
            }
        });
        attacker.flood(2, |_| attacker.upgraded("/raw/attack.flips?echo=0"), &publication, true);
    });
}

pub const OTHER_WORKER: Attack = attack(
    "other-worker",
    "1 address, 8 connections that publish 4 KB as fast as they can on all workers: who lags behind on another worker than theirs?",
    other_worker,
)
.memory(64, 32)
.with(&["--workers", "2"]);

fn other_worker(attacker: &Attacker) {
    let publication = wire::frame(0x81, &[b'x'; 4000]);
    attacker.flood(8, |_| attacker.upgraded("/raw/attack.other?echo=0"), &publication, true);
}

pub const POSTS: Attack = attack(
    "fast-posts",
    "1 address, 20 connections that publish 200 payloads of 4 KB with each POST as fast as they are taken: who lags behind?",
    fast_posts,
)
.memory(96, 32);

fn fast_posts(attacker: &Attacker) {
    let lines =
        wire::publish_lines((0..200).map(|n| format!("attack.posts.{n}")), &format!("\"{}\"", "x".repeat(4000)));
    let again = String::from_utf8_lossy(&lines).replacen("Connection: close\r\n", "", 1).into_bytes();
    attacker.flood(20, |_| attacker.connect(), &again, true);
}
