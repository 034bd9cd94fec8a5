//! What a program makes of what the Rust client tells it, after any sequence of faults: what the server has.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use stentor_client::{Client, Event, How, Mode, Options};

use crate::{
    client::{PATIENCE, exchange},
    link::Link,
    process::Running,
};

/// A small memory, so that who is slow lags soon.
const SETTINGS: [&str; 4] = ["--retain", "1MiB", "--lag-limit", "256KiB"];

/// What a program knows of a feed: values, as far as they are good. It holds the events to what they promise: in mode `all` each number, else never an older one.
#[derive(Default)]
struct Book {
    is_gapless: bool,
    values: HashMap<String, String>,
    at: HashMap<String, u64>,
}

impl Book {
    fn take(&mut self, event: Event) {
        match event {
            Event::Update(update) => {
                self.follows(&update.topic, update.seq, update.seq);
                self.values.insert(update.topic.clone(), update.raw().to_owned());
            }
            Event::Gap(gap) => {
                self.follows(&gap.topic, gap.first, gap.last);
                self.values.remove(&gap.topic);
            }
            Event::Reset(reset) => {
                self.at.remove(&reset.topic);
                self.values.remove(&reset.topic);
            }
            Event::Refused { error, names } => panic!("{error}: {names:?}"),
            _ => {}
        }
    }

    fn follows(&mut self, topic: &str, first: u64, last: u64) {
        if let Some(before) = self.at.insert(topic.to_owned(), last) {
            let is_next = first == before + 1 || (first > before && !self.is_gapless);
            assert!(is_next, "{topic}: {first} behind {before}");
        }
    }
}

fn post(server: SocketAddr, publications: &[(String, Value)]) {
    let lines: String =
        publications.iter().map(|(topic, data)| format!("{}\n", json!({"topic": topic, "data": data}))).collect();
    let head = format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        lines.len()
    );
    let answer = exchange(server, (head + &lines).as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:.300}");
}

fn get(server: SocketAddr, path: &str) -> Value {
    let answer =
        exchange(server, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes());
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// What the server has, topic by topic.
fn values(server: SocketAddr) -> HashMap<String, String> {
    let topics = get(server, "/topics");
    let names = topics["topics"].as_array().unwrap().iter().map(|topic| topic["topic"].as_str().unwrap().to_owned());
    names.map(|name| (name.clone(), get(server, &format!("/topics/{name}"))["data"].to_string())).collect()
}

/// What has come, without waiting.
fn take_pending(md: &mut Client, book: &mut Book) {
    while let Some(event) = md.next_until(Instant::now()).unwrap() {
        book.take(event);
    }
}

fn after_faults(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut server = Running::start(&SETTINGS);
    let (at, address) = (server.at(), server.address.clone());
    let link = Link::to(at);
    let how = if random.u8(..3) == 0 { How::latest() } else { How::default() };
    let mut book = Book { is_gapless: how.mode == Mode::All, ..Book::default() };
    let topics = if random.bool() { 3 } else { 40 };
    let mut md = Client::new(Options {
        backoff: (Duration::from_millis(10), Duration::from_millis(50)),
        ..Options::new([format!("ws://{}/ws", link.address)])
    })
    .unwrap();
    md.subscribe(["t.*"], how.clone());
    md.subscribe(["end"], how);
    let mut counted = 0;
    let some = |random: &mut fastrand::Rng, counted: &mut u64| -> Vec<(String, Value)> {
        let count = random.usize(1..=10);
        (0..count)
            .map(|_| {
                *counted += 1;
                (format!("t.{}", random.u64(..topics)), json!(counted))
            })
            .collect()
    };
    for _ in 0..25 {
        match random.u8(..8) {
            0 | 1 => post(at, &some(&mut random, &mut counted)),
            2 => {
                let burst: Vec<_> =
                    (0..1500).map(|_| (format!("t.{}", random.u64(..topics)), json!("x".repeat(900)))).collect();
                post(at, &burst);
            }
            3 | 4 => take_pending(&mut md, &mut book),
            5 => link.cut(),
            6 => {
                link.stall(true);
                post(at, &some(&mut random, &mut counted));
                if random.bool() {
                    link.cut();
                }
                link.stall(false);
            }
            _ => {
                drop(server);
                server = Running::listen(&address, &SETTINGS);
            }
        }
    }
    let mut last: Vec<_> = (0..=topics / 2).map(|n| (format!("t.{n}"), json!(format!("{n} {seed}")))).collect();
    last.push(("end".to_owned(), json!(seed)));
    post(at, &last);
    let until = Instant::now() + PATIENCE;
    while book.values.get("end") != Some(&seed.to_string()) {
        let event = md.next_until(until).unwrap();
        book.take(event.unwrap_or_else(|| panic!("nothing more came: {}", md.trouble())));
    }
    // The last values of a connection that was made meanwhile come before this answer.
    let ticket = md.ping().unwrap();
    loop {
        match md.next_until(until).unwrap().expect("a ping is answered") {
            Event::Pong { ticket: answered } if answered == ticket => break,
            event => book.take(event),
        }
    }
    let expected = values(at);
    let wrong: Vec<&String> = expected
        .iter()
        .filter(|(topic, value)| book.values.get(*topic) != Some(value))
        .map(|(topic, _)| topic)
        .collect();
    assert!(wrong.is_empty(), "the book has something else of {wrong:?}");
    assert_eq!(book.values.len(), expected.len(), "it has topics that there are not");
    drop(server);
}

#[test]
fn after_any_faults_the_rust_clients_book_is_the_publishers() {
    let seeds: u64 = std::env::var("SEEDS").map_or(6, |seeds| seeds.parse().expect("a number"));
    for seed in 0..seeds {
        eprintln!("seed {seed}");
        after_faults(seed);
    }
}
