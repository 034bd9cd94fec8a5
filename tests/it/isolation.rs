//! Nobody hurts anybody: beside each client that misbehaves in its way, a healthy subscriber gets every publication in
//! order, the server's memory stays where it was, and a metric shows what goes on.

use std::{
    io::{BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    thread::{self, JoinHandle},
};

use crate::{
    client::{Client, exchange, frame, read_frame, upgraded},
    process::{Running, wait_for},
};

/// Growth of resident memory that is none: what allocators keep, and page tables.
const NOISE: usize = 6 << 20;

/// A small tape and small sockets, so that whoever is slow is behind at once.
const NARROW: [&str; 6] = ["--segment", "64KiB", "--retain", "512KiB", "--sndbuf", "8KiB"];

/// Room for what one turn takes in, on a tape that is full before long.
const ROOMY: [&str; 4] = ["--segment", "256KiB", "--retain", "8MiB"];

/// A server, and a healthy subscriber of `a`.
struct Scene {
    running: Running,
    healthy: Client,
    seq: u64,
}

impl Scene {
    fn new(args: &[&str]) -> Scene {
        let running = Running::start(&[&["--workers", "1"], args].concat());
        let mut healthy = running.client("/ws?topics=a");
        assert_eq!([healthy.json(), healthy.json()].map(|said| said["type"].clone()), ["hello", "ack"]);
        let mut scene = Scene { running, healthy, seq: 0 };
        // What a server allocates once, it has allocated when its tape has rolled over.
        loop {
            let figures = scene.figures();
            let [held, all] = ["retained_publications", "publications_total"]
                .map(|n| sum(&figures, &format!("stentor_tape_{n}"), ""));
            if held < all {
                return scene;
            }
            scene.round();
        }
    }

    /// A hundred publications, each of which the healthy subscriber gets.
    fn round(&mut self) {
        let lines = format!("{{\"topic\":\"a\",\"data\":\"{}\"}}\n", "x".repeat(500)).repeat(100);
        let head = format!("POST /publish HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", lines.len());
        let answer = exchange(self.running.address.parse().unwrap(), (head + &lines).as_bytes());
        assert!(answer.ends_with("{\"published\":100}"), "{answer}");
        for _ in 0..100 {
            self.seq += 1;
            let update = self.healthy.json();
            assert_eq!((update["type"].as_str(), update["seq"].as_u64()), (Some("update"), Some(self.seq)));
        }
    }

    /// Rounds for as long as somebody misbehaves, and memory that stays where it is.
    fn beside(&mut self, misbehaviour: JoinHandle<()>) {
        let before = self.running.resident();
        while !misbehaviour.is_finished() {
            self.round();
        }
        misbehaviour.join().unwrap();
        (0..10).for_each(|_| self.round());
        let grown = self.running.resident().saturating_sub(before);
        assert!(grown < NOISE, "{grown} bytes");
    }

    /// The figures, as they were a quarter of a second ago at most.
    fn figures(&self) -> String {
        exchange(self.running.address.parse().unwrap(), b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
    }

    /// A metric, all its samples that have `label` together.
    fn metric(&self, name: &str, label: &str) -> f64 {
        sum(&self.figures(), name, label)
    }
}

/// The samples of a metric that have `label`, together.
fn sum(figures: &str, name: &str, label: &str) -> f64 {
    let samples = figures.lines().filter(|line| line.starts_with(name) && line.contains(label));
    samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

/// Sends `flood` over and over until the connection is closed; returns the close code. Answers are read on the side.
fn flood_until_closed(address: &str, path: &str, flood: &[u8]) -> u16 {
    let stream = upgraded(address.parse().unwrap(), path);
    let mut writing = stream.try_clone().unwrap();
    let flood = flood.repeat(64);
    let writer = thread::spawn(move || while writing.write_all(&flood).is_ok() {});
    let code = read_until_closed(&stream);
    stream.shutdown(Shutdown::Both).unwrap();
    writer.join().unwrap();
    code
}

/// Reads frames until a close frame comes; returns its code.
fn read_until_closed(stream: &TcpStream) -> u16 {
    let mut reading = BufReader::new(stream);
    loop {
        let (first, payload) = read_frame(&mut reading);
        if first == 0x88 {
            return u16::from_be_bytes([payload[0], payload[1]]);
        }
    }
}

/// A subscriber that takes `step` bytes each time that there were a hundred publications.
fn reader_of_few_bytes(step: usize) {
    let mut scene = Scene::new(&NARROW);
    let address = scene.running.address.parse().unwrap();
    let mut slow = upgraded(address, "/ws?topics=a");
    let before = scene.running.resident();
    let mut taken = 0;
    for n in 0..100 {
        scene.round();
        taken += slow.read(&mut vec![0; step]).unwrap();
        if n == 4 {
            // More than the buffers take, and less than the tape holds.
            wait_for("a cursor of its own", || scene.metric("stentor_alone_subscribers", "") == 1.0);
        }
    }
    let grown = scene.running.resident().saturating_sub(before);
    assert!(grown < NOISE, "{grown} bytes");
    assert!(taken > 0 && taken <= 100 * step);
    // It fell off the tape long ago, and is told so once it reads what was sent before.
    wait_for("the end of the slow one", || scene.metric("stentor_websocket_closes_total", "code=\"4100\"") == 1.0);
}

#[test]
fn a_reader_of_a_kilobyte_now_and_then() {
    reader_of_few_bytes(1024);
}

#[test]
fn a_reader_of_a_byte_now_and_then() {
    reader_of_few_bytes(1);
}

/// A flood from five connections one after the other, each of which is closed for it with 4003.
fn floods(args: &[&str], path: &'static str, flood: Vec<u8>) {
    let mut scene = Scene::new(&[&ROOMY, args].concat());
    let address = scene.running.address.clone();
    scene.beside(thread::spawn(move || {
        for _ in 0..5 {
            assert_eq!(flood_until_closed(&address, path, &flood), 4003);
        }
    }));
    wait_for("refusals", || scene.metric("stentor_refusals_total", "reason=\"rate_limited\"") == 5.0);
    assert_eq!(scene.metric("stentor_websocket_closes_total", "code=\"4003\""), 5.0);
}

#[test]
fn a_flood_of_pings() {
    floods(&[], "/ws", frame(0x89, b"are you there?"));
}

#[test]
fn a_flood_of_commands() {
    floods(&[], "/ws?topics=b", frame(0x81, br#"{"op":"list","id":1}"#));
}

#[test]
fn a_flood_of_messages_that_are_no_commands() {
    floods(&[], "/ws", frame(0x81, b"{"));
}

#[test]
fn a_flood_of_publications() {
    let publication = frame(0x81, br#"{"op":"pub","topic":"b","data":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#);
    floods(&["--max-publications", "500/s"], "/ws", publication);
}

#[test]
fn publications_without_bound_from_one_that_reads_nothing() {
    let mut scene = Scene::new(&ROOMY);
    let stream = upgraded(scene.running.address.parse().unwrap(), "/ws");
    let mut writing = stream.try_clone().unwrap();
    scene.beside(thread::spawn(move || {
        let publication = frame(0x81, br#"{"op":"pub","topic":"b","data":1}"#).repeat(100);
        (0..500).for_each(|_| writing.write_all(&publication).unwrap());
    }));
    while scene.metric("stentor_publications_total", "client") < 50_000.0 {
        scene.round();
    }
    drop(stream);
}

#[test]
fn one_that_subscribes_and_unsubscribes_as_fast_as_it_can() {
    let mut scene = Scene::new(&[&ROOMY[..], &["--max-commands", "0"]].concat());
    let cohorts = scene.metric("stentor_cohorts", "");
    let mut stream = upgraded(scene.running.address.parse().unwrap(), "/ws");
    let mut reading = BufReader::new(stream.try_clone().unwrap());
    scene.beside(thread::spawn(move || {
        // The greeting, and an answer to each; updates come between. No snapshots: those that wait would be memory, up to
        // --max-pending, and rightly so.
        let reader = thread::spawn(move || {
            let mut acks = 0;
            while acks < 20_000 {
                let (_, payload) = read_frame(&mut reading);
                acks += u32::from(payload.starts_with(br#"{"type":"ack","id":1"#));
            }
        });
        let sub = frame(0x81, br#"{"op":"sub","id":1,"topics":["a","b.*"],"snapshot":false}"#);
        let unsub = frame(0x81, br#"{"op":"unsub","id":1,"topics":["a","b.*"]}"#);
        let both = [sub, unsub].concat().repeat(10);
        (0..1_000).for_each(|_| stream.write_all(&both).unwrap());
        reader.join().unwrap();
    }));
    assert!(scene.metric("stentor_messages_total", "") >= 20_000.0);
    assert_eq!(scene.metric("stentor_cohorts", ""), cohorts);
}

#[test]
fn ten_thousand_that_connect_and_leave() {
    let mut scene = Scene::new(&ROOMY);
    let address = scene.running.address.clone();
    scene.beside(thread::spawn(move || {
        let address = address.parse().unwrap();
        for n in 0..10_000 {
            let path = if n % 2 == 0 { "/ws?topics=a" } else { "/raw/a" };
            let stream = upgraded(address, path);
            // With a reset, at once: no port is left waiting.
            rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
        }
    }));
    assert_eq!(scene.metric("stentor_upgrades_total", ""), 10_001.0);
    while scene.metric("stentor_websocket_connections", "") > 1.0 {
        scene.round();
    }
    // Lost, most of them; one that was slow to leave may have fallen off the tape before.
    assert_eq!(scene.metric("stentor_websocket_closes_total", "code="), 10_000.0);
}
