//! Polls, history and cursors: what is answered over plain HTTP by the workers, and what a word that somebody holds may ask for.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{Attack, Attacker, attack, step, wire};

/// How often a held connection is looked at.
const STEP: Duration = Duration::from_millis(20);

/// What has an answer compressed.
const GZIP: &str = "Accept-Encoding: gzip\r\n";

pub const EVERYTHING: Attack = attack(
    "poll-everything",
    "1 address, 20 connections that poll > without a cursor beside 20,000 topics, again and again, in gzip: all last values each time",
    everything,
)
.memory(192, 64);

fn everything(attacker: &Attacker) {
    attacker.publish_topics("attack.list", attacker.count(20_000), "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"");
    attacker.flood(20, |_| attacker.connect(), &wire::get("/poll?topics=%3E", GZIP), true);
}

pub const UNREAD: Attack = attack(
    "poll-unread",
    "1 address, 600 connections that poll 7 MB of last values and read nothing, renewed as they end: memory",
    unread,
)
.memory(192, 64);

fn unread(attacker: &Attacker) {
    attacker.publish_topics("attack.values", attacker.count(1700), &format!("\"{}\"", "x".repeat(4000)));
    let open = |_| attacker.sent(&wire::get("/poll?topics=attack.values.%3E", "")).inspect(wire::take_little);
    attacker.hold(attacker.count(600), open, STEP, |_| {});
}

pub const BACK_AGAIN: Attack = attack(
    "poll-back-again",
    "1 address, 20 connections that poll > from one old cursor, again and again: the same megabyte of the tape each time",
    back_again,
)
.memory(96, 48);

fn back_again(attacker: &Attacker) {
    old_polls(attacker, "");
}

pub const LATEST: Attack = attack(
    "poll-latest",
    "1 address, 20 connections that poll the newest of 20,000 topics from one old cursor, again and again, in gzip: a table of all of them each time",
    latest,
)
.memory(192, 64);

fn latest(attacker: &Attacker) {
    old_polls(attacker, "&mode=latest");
}

fn old_polls(attacker: &Attacker, more: &str) {
    let Some(cursor) = cursor_of(attacker) else { return attacker.settled() };
    for _ in 0..3 {
        attacker.publish_topics("attack.list", attacker.count(20_000), "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"");
    }
    let request = wire::get(&format!("/poll?topics=%3E&cursor={cursor}{more}"), GZIP);
    attacker.flood(20, |_| attacker.connect(), &request, true);
}

pub const RARE: Attack = attack(
    "poll-rare",
    "1 address, 20 connections that poll a topic without publications from one old cursor, again and again: all of the tape is looked through for nothing",
    rare,
)
.memory(96, 48);

fn rare(attacker: &Attacker) {
    let Some(cursor) = cursor_of(attacker) else { return attacker.settled() };
    for _ in 0..5 {
        attacker.publish_topics("attack.list", attacker.count(40_000), "1");
    }
    let request = wire::get(&format!("/poll?topics=attack.never&wait=0&cursor={cursor}"), "");
    attacker.flood(20, |_| attacker.connect(), &request, true);
}

pub const WOKEN: Attack = attack(
    "polls-woken",
    "1 address, 4,900 polls that wait, read their answers and poll again, and a publication that wakes all of them whenever they do",
    woken,
)
.memory(96, 48);

fn woken(attacker: &Attacker) {
    let count = attacker.count(4900);
    waiting(attacker, count, |_| "attack.wake".to_owned());
}

pub const COHORTS: Attack = attack(
    "polls-cohorts",
    "1 address, 2,000 polls of names of their own and one that all have: each is a cohort that comes with its request and goes with its answer",
    cohorts,
)
.memory(96, 48);

fn cohorts(attacker: &Attacker) {
    waiting(attacker, attacker.count(2000), |n| format!("attack.own.{n},attack.own.*.{n},attack.wake"));
}

/// So many polls that wait for a publication, which comes when all of them do, or after a while.
fn waiting(attacker: &Attacker, count: usize, topics: impl Fn(usize) -> String) {
    let publication = wire::publish_lines(["attack.wake".to_owned()].into_iter(), "1");
    attacker.exchange(&publication);
    let Some(cursor) = cursor_of(attacker) else { return attacker.settled() };
    let mut polls: Vec<Option<TcpStream>> = (0..count)
        .map_while(|n| attacker.goes_on().then(|| attacker.sent(&poll_of(&topics(n), &cursor))))
        .inspect(|stream| stream.iter().for_each(|stream| drop(stream.set_nonblocking(true))))
        .collect();
    attacker.holds(polls.iter().flatten().count());
    attacker.settled();
    let (mut cursor, mut published, mut buffer) = (cursor, Instant::now(), vec![0; 16 * 1024]);
    let mut answered = 0;
    while attacker.pause(Duration::from_millis(2)) {
        if answered >= count || published.elapsed() > Duration::from_millis(500) {
            answered = 0;
            attacker.exchange(&publication);
            published = Instant::now();
        }
        for (n, place) in polls.iter_mut().enumerate() {
            let Some(stream) = place else { continue };
            let Some(len) = step(stream.read(&mut buffer).and_then(not_over)) else {
                *place = None;
                continue;
            };
            if len == 0 {
                continue;
            }
            answered += 1;
            // Answers are short, and come whole.
            if let Some(word) = word_in(&buffer[..len]) {
                cursor = word;
            }
            let _ = stream.write(&poll_of(&topics(n), &cursor));
        }
    }
}

fn not_over(len: usize) -> std::io::Result<usize> {
    if len == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(len) }
}

fn poll_of(topics: &str, cursor: &str) -> Vec<u8> {
    wire::get(&format!("/poll?topics={topics}&cursor={cursor}"), "")
}

pub const DROPPED: Attack = attack(
    "polls-dropped",
    "1 address that polls > beside 20,000 topics and leaves at once, as often as it can: work for an answer that nobody takes",
    dropped,
)
.memory(96, 48);

fn dropped(attacker: &Attacker) {
    attacker.publish_topics("attack.list", attacker.count(20_000), "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"");
    let request = wire::get("/poll?topics=%3E", GZIP);
    attacker.settled();
    while attacker.goes_on() {
        drop(attacker.sent(&request));
    }
}

pub const GARBLED: Attack = attack(
    "cursors-garbled",
    "1 address, 10 connections that poll > beside 20,000 topics with cursors that are none: each resets all of them",
    garbled,
)
.memory(192, 64);

fn garbled(attacker: &Attacker) {
    attacker.publish_topics("attack.list", attacker.count(20_000), "1");
    let words =
        ["AoEjn2erms3vAAAAAAAAEmdHGwRD", "A", "%00", &"A".repeat(2000), "k3:9812", "-_-_-_-_-_-_-_-_-_-_-_-_-_-_"];
    let requests: Vec<u8> =
        words.iter().flat_map(|word| wire::get(&format!("/poll?topics=%3E&cursor={word}&wait=0"), GZIP)).collect();
    attacker.flood(10, |_| attacker.connect(), &requests, true);
}

pub const LONG_NAMES: Attack = attack(
    "poll-long-names",
    "1 address, 20 connections whose polls have 1,000 patterns each beside 20,000 topics, again and again: each topic is held against each",
    long_names,
)
.memory(96, 48)
.with(&["--max-head", "16KiB"]);

fn long_names(attacker: &Attacker) {
    attacker.publish_topics("attack.list", attacker.count(20_000), "1");
    let patterns: Vec<String> = (0..1000).map(|n| format!("*.{n:x}.*")).collect();
    let request = wire::get(&format!("/poll?topics={}&wait=0", patterns.join(",")), "");
    attacker.flood(20, |_| attacker.connect(), &request, true);
}

pub const HISTORY: Attack = attack(
    "history",
    "1 address, 20 connections that ask for 10,000 publications of one topic, again and again, in gzip: as much as an answer holds each time",
    history,
)
.memory(128, 48);

fn history(attacker: &Attacker) {
    publish_past(attacker);
    attacker.flood(20, |_| attacker.connect(), &wire::get("/history/attack.past?limit=10000", GZIP), true);
}

pub const HISTORY_UNREAD: Attack = attack(
    "history-unread",
    "1 address, 600 connections that ask for a megabyte of history and read nothing, renewed as they end: memory",
    history_unread,
)
.memory(192, 64);

fn history_unread(attacker: &Attacker) {
    publish_past(attacker);
    let asked = wire::get("/history/attack.past?limit=10000", "").repeat(20);
    let open = |_| attacker.sent(&asked).inspect(wire::take_little);
    attacker.hold(attacker.count(600), open, STEP, |_| {});
}

/// Ten thousand publications on one topic.
fn publish_past(attacker: &Attacker) {
    let count = attacker.count(10_000);
    for _ in 0..10 {
        let lines = (0..count / 10).map(|_| "attack.past".to_owned());
        attacker.exchange(&wire::publish_lines(lines, "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\""));
    }
}

pub const RESUMES: Attack = attack(
    "cursor-resumes",
    "1 address, 10 connections that subscribe to > from one old cursor, again and again: 100,000 publications of 20,000 topics each time",
    resumes,
)
.memory(192, 64);

fn resumes(attacker: &Attacker) {
    let Some(cursor) = cursor_of(attacker) else { return attacker.settled() };
    for _ in 0..5 {
        attacker.publish_topics("attack.list", attacker.count(20_000), "1");
    }
    let both = [
        wire::command(&format!(r#"{{"op":"sub","topics":["attack.>"],"from":"{cursor}"}}"#)),
        wire::command(r#"{"op":"unsub","topics":["attack.>"]}"#),
    ]
    .concat();
    attacker.flood(10, |_| attacker.upgraded("/ws"), &both, true);
}

pub const EVENTS: Attack = attack(
    "events-come-back",
    "1 address, 100 streams of events of everything from one old cursor that leave as soon as they are answered, as a broken proxy would have them",
    events,
)
.memory(128, 48);

fn events(attacker: &Attacker) {
    let Some(cursor) = cursor_of(attacker) else { return attacker.settled() };
    for _ in 0..5 {
        attacker.publish_topics("attack.list", attacker.count(20_000), "1");
    }
    let request = wire::get("/sse?topics=attack.%3E", &format!("Last-Event-ID: {cursor}\r\n"));
    let count = attacker.count(100);
    attacker.settled();
    while attacker.goes_on() {
        let mut some: Vec<TcpStream> = (0..count).filter_map(|_| attacker.sent(&request)).collect();
        attacker.holds(some.len());
        if let Some(last) = some.last_mut() {
            let _ = wire::status(last);
        }
    }
}

/// The place of a poll that has had everything.
fn cursor_of(attacker: &Attacker) -> Option<String> {
    let request = wire::get("/poll?topics=attack.none&wait=0", "Connection: close\r\n");
    let mut stream = attacker.sent(&request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    word_in(&answer)
}

fn word_in(answer: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    let (_, rest) = text.split_once("{\"cursor\":\"")?;
    rest.split('"').next().map(str::to_owned)
}
