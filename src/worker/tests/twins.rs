//! A clear and a compressed subscriber of everything are sent the same messages, whatever happens between.
//!
//! Beside a script of luck (`every.rs`) there are pairs of subscribers of everything: one in mode `all`, one of newest values, one with a rate,
//! and one that changes between them. Of each pair one offers compression and the other doesn't. By luck they stop reading, are cut and
//! come back with the last cursor that they were told. What a publication is told as has to be the same to all of them, byte for byte; in mode
//! `all`, each has every publication of the journal in its order; and in the end everybody has the newest value of each topic.
//!
//! They have a reader of frames of their own, and an inflater that is not the server's and keeps its window from message to message: it reads
//! what refers back as well as what doesn't.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::Value;

use super::*;
use crate::websocket::independent::Context;

#[test]
fn a_compressed_and_a_clear_subscriber_of_everything_are_sent_the_same() {
    let [scripts, whole, inflated] = [(); 3].map(|()| AtomicU64::new(0));
    seeds::try_all(SEEDS / 8, |seed| {
        let outcome = Scene::new(seed).run();
        // Relaxed: sums, which are looked at when all threads are gone.
        scripts.fetch_add(1, Ordering::Relaxed);
        whole.fetch_add(u64::from(outcome.whole), Ordering::Relaxed);
        inflated.fetch_add(outcome.inflated, Ordering::Relaxed);
    });
    let [scripts, whole, inflated] = [scripts, whole, inflated].map(AtomicU64::into_inner);
    // One script may have little to tell.
    if scripts > 20 {
        assert!(whole * 5 > scripts, "only in {whole} of {scripts} scripts nobody lost anything");
        assert!(inflated > scripts * 5, "hardly anything was compressed: {inflated} messages in {scripts} scripts");
    }
}

/// What each publication was told as, to whoever was told it first.
type Said = HashMap<(String, u64), String>;

/// A script, and the pairs beside it.
struct Scene {
    script: Script,
    random: fastrand::Rng,
    twins: Vec<Twin>,
    said: Said,
}

/// What came of a script.
struct Outcome {
    /// Both of the first pair have everything: neither fell off the tape nor was refused in the end.
    whole: bool,
    /// Compressed messages that were inflated.
    inflated: u64,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        let mut random = fastrand::Rng::with_seed(!seed);
        let ways = [Some(Way::All), Some(Way::Latest), Some(Way::Rate([4, 50][random.usize(..2)])), None];
        let mut scene = Scene { script: Script::new(seed), random, twins: Vec::new(), said: Said::new() };
        for way in ways {
            for is_packed in [false, true] {
                scene.twins.push(Twin::new(way, is_packed));
            }
        }
        // Before anything is published, so that nobody's beginning is open.
        scene.come_back(u8::MAX);
        scene.settle();
        scene
    }

    fn run(mut self) -> Outcome {
        for _ in 0..self.random.usize(10..90) {
            self.script.step();
            self.mischief();
            let most = if self.random.bool() { usize::MAX } else { self.random.usize(1..2000) };
            self.read(most);
        }
        self.finish()
    }

    /// Some stop reading, or read again, are cut, change how they are subscribed, or come back.
    fn mischief(&mut self) {
        for twin in &mut self.twins {
            match self.random.u8(..60) {
                0..5 => twin.stalled = !twin.stalled,
                5..7 => twin.cut(self.random.bool()),
                7..15 if twin.way.is_none() => twin.dance(&mut self.random),
                _ => {}
            }
        }
        self.come_back(60);
    }

    /// Of those that have no connection, so many in 256 connect.
    fn come_back(&mut self, chance: u8) {
        let Scene { script, random, twins, .. } = self;
        for twin in twins.iter_mut().filter(|twin| twin.state == Is::Gone) {
            if script.world.alive() && random.u8(..) <= chance {
                let (peer, _) = script.world.hand_over([500, 3000, 100_000][random.usize(..3)]);
                if twin.cursor.is_none() && script.world.journal.len() > 0 {
                    // It was never told where it is, and begins with what there is now.
                    twin.next = None;
                }
                twin.connect(peer, random).into_iter().for_each(|old| script.world.strays.push(old));
            }
        }
    }

    fn read(&mut self, most: usize) -> bool {
        let Scene { script, twins, said, .. } = self;
        let mut any = false;
        for twin in twins.iter_mut().filter(|twin| !twin.stalled) {
            any |= twin.read(most, &script.world.journal, said);
        }
        any
    }

    /// Until nobody has anything more to read; no time passes.
    fn settle(&mut self) {
        loop {
            self.script.world.settle();
            if !self.read(usize::MAX) {
                return;
            }
        }
    }

    fn finish(mut self) -> Outcome {
        self.twins.iter_mut().for_each(|twin| twin.stalled = false);
        // Who is told that its connection is over comes back; then long enough for the ticks of every rate.
        for _ in 0..5 {
            self.settle();
            self.come_back(u8::MAX);
            self.settle();
            self.script.world.pass(self.script.flush_interval * 2 + Duration::from_millis(200));
        }
        self.settle();
        let journal = &self.script.world.journal;
        for twin in &self.twins {
            twin.check(journal);
        }
        let whole = self.twins[..2].iter().all(|twin| twin.state == Is::Open && twin.next.is_some());
        let inflated = self.twins.iter().map(|twin| twin.inflated).sum();
        for twin in &mut self.twins {
            twin.cut(false);
            self.script.world.strays.extend(twin.peer.take());
        }
        // Those who were cut read no more, and what is kept for them would be missing to others of their address until it is given up.
        self.script.world.strays.iter().for_each(Peer::reset);
        self.script.world.pass(Duration::from_secs(1));
        self.script.finish();
        Outcome { whole, inflated }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    /// It has no connection.
    Gone,
    /// It is not yet answered.
    Asking,
    Open,
}

/// A subscriber of everything.
struct Twin {
    peer: Option<Peer>,
    /// None if it changes.
    way: Option<Way>,
    is_packed: bool,
    state: Is,
    stalled: bool,
    input: Vec<u8>,
    context: Context,
    inflated: u64,
    /// The last that it was told.
    cursor: Option<String>,
    /// It was sent everything in the journal before this; none where it may leave something out, or has lost something.
    next: Option<usize>,
    /// What it was told; again only after it has come back.
    told: HashSet<(String, u64)>,
    has_come_back: bool,
    /// Of each topic, the last number that it was told.
    newest: HashMap<String, u64>,
}

impl Twin {
    fn new(way: Option<Way>, is_packed: bool) -> Twin {
        Twin {
            peer: None,
            way,
            is_packed,
            state: Is::Gone,
            stalled: false,
            input: Vec::new(),
            context: Context::new(15),
            inflated: 0,
            cursor: None,
            next: (way == Some(Way::All)).then_some(0),
            told: HashSet::new(),
            has_come_back: false,
            newest: HashMap::new(),
        }
    }

    /// Returns the peer that it had.
    fn connect(&mut self, peer: Peer, random: &mut fastrand::Rng) -> Option<Peer> {
        let way = self.way.unwrap_or(Way::Latest).query();
        let cursor = self.cursor.as_ref().map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
        let (offer, window_bits) = match (self.is_packed, random.bool()) {
            (false, _) => ("", 15),
            (true, false) => ("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n", 15),
            (true, true) => ("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12\r\n", 12),
        };
        peer.write(
            format!(
                "GET /ws?topics=%3E&{way}{cursor} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n"
            )
            .as_bytes(),
        );
        // Nothing is remembered of what another connection was sent.
        self.context = Context::new(window_bits);
        self.has_come_back = self.cursor.is_some();
        self.state = Is::Asking;
        self.input.clear();
        self.peer.replace(peer)
    }

    /// Ends its connection without a word.
    fn cut(&mut self, is_rough: bool) {
        if let Some(peer) = self.peer.as_ref().filter(|_| self.state != Is::Gone) {
            if is_rough { peer.reset() } else { peer.end() }
        }
        self.state = Is::Gone;
    }

    /// Changes how it is subscribed.
    fn dance(&mut self, random: &mut fastrand::Rng) {
        if self.state == Is::Open {
            let way = [Way::All, Way::Latest, Way::Rate(50)][random.usize(..3)].fields();
            let snapshot = random.bool();
            self.send(1, format!(r#"{{"op":"sub","id":1,"topics":[">"],{way},"snapshot":{snapshot}}}"#).as_bytes());
        }
    }

    fn send(&self, opcode: u8, payload: &[u8]) {
        // All payloads here are short, and a key of zeros leaves them as they are.
        let header = [0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        self.peer.iter().for_each(|peer| peer.write(&[&header, payload].concat()));
    }

    fn read(&mut self, most: usize, journal: &Journal, said: &mut Said) -> bool {
        let Some(peer) = self.peer.as_ref().filter(|_| self.state != Is::Gone) else { return false };
        let before = peer.arrived();
        let bytes = peer.read(most);
        let (any, at_end) = (peer.arrived() < before, peer.at_end());
        self.input.extend_from_slice(&bytes);
        if self.state == Is::Asking {
            self.answered();
        }
        while self.state == Is::Open
            && let Some((opcode, payload)) = self.frame()
        {
            match opcode {
                1 => self.message(&String::from_utf8(payload).expect("a text"), journal, said),
                8 => self.cut(false),
                9 => self.send(10, &payload),
                _ => panic!("a frame of kind {opcode}"),
            }
        }
        if at_end {
            self.cut(false);
        }
        any
    }

    fn answered(&mut self) {
        let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") else { return };
        let head: Vec<u8> = self.input.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("a head");
        if !head.starts_with("HTTP/1.1 101 ") {
            // A limit that came with a change of settings; it is told in the body.
            return self.cut(false);
        }
        assert_eq!(head.contains("permessage-deflate"), self.is_packed, "{head}");
        self.state = Is::Open;
    }

    /// The next frame, inflated where it is compressed.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second, rest @ ..] = &self.input[..] else { return None };
        let (first, second) = (*first, *second);
        let (header, len) = match second {
            126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
            127 => (10, u64::from_be_bytes(*rest.first_chunk()?) as usize),
            len => (2, usize::from(len)),
        };
        let payload = self.input.get(header..header + len)?.to_vec();
        self.input.drain(..header + len);
        let payload = match first & 0xf0 {
            0x80 => payload,
            0xc0 if self.is_packed => {
                self.inflated += 1;
                self.context.message(&payload).expect("a message of deflate behind those before it")
            }
            _ => panic!("a frame that begins with {first:#x}"),
        };
        Some((first & 15, payload))
    }

    fn message(&mut self, text: &str, journal: &Journal, said: &mut Said) {
        let message: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        if let Some(cursor) = message["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
        let topic = message["topic"].as_str().unwrap_or_default().to_owned();
        match message["type"].as_str().expect("messages have a type") {
            "update" => self.publication(topic, &message["seq"], text, journal, said),
            "skip" if message["why"] == "too_large" => self.publication(topic, &message["from"], text, journal, said),
            "snapshot" => drop(self.newest.insert(topic, message["seq"].as_u64().expect("a snapshot has a seq"))),
            // Its place is gone, or the tape has rolled over what it wasn't sent: what is missing is told, and not silent.
            "reset" => self.next = None,
            "error" if message["code"] == "lagged" => self.next = None,
            // It has no room for the snapshots, or more names than it may have: it isn't subscribed, and comes again.
            "error" => self.cut(false),
            "hello" | "ack" | "heartbeat" | "skip" | "status" => {}
            _ => panic!("{text}"),
        }
    }

    fn publication(&mut self, topic: String, seq: &Value, text: &str, journal: &Journal, said: &mut Said) {
        let key = (topic, seq.as_u64().expect("publications have numbers"));
        // What was too large stands in a snapshot's place with the epoch, and among updates without.
        if !text.contains("too_large") {
            let first = said.entry(key.clone()).or_insert_with(|| text.to_owned());
            assert_eq!(first, text, "not the same to everybody (compressed: {})", self.is_packed);
        }
        if let Some(next) = self.next {
            let at = journal.find(&key.0, key.1);
            let is_again = at < next && self.has_come_back && self.told.contains(&key);
            assert!(is_again || at == next, "publication {at} of the journal where {next} is next: {text}");
            self.next = Some(next.max(at + 1));
            self.told.insert(key.clone());
        }
        self.newest.insert(key.0, key.1);
    }

    /// It has everything that it wanted.
    fn check(&self, journal: &Journal) {
        if self.state != Is::Open {
            return;
        }
        if let Some(next) = self.next {
            assert_eq!(next, journal.len(), "not all of the journal (compressed: {})", self.is_packed);
        }
        for topic in journal.topics() {
            let newest = journal.newest_but(topic, 0, false);
            let told = self.newest.get(topic);
            assert_eq!(told, Some(&newest), "the newest of {topic} (compressed: {}, {:?})", self.is_packed, self.way);
        }
    }
}
