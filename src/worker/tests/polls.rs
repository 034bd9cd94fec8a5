//! Clients that poll or ask for history, and what each answer has to be: of every topic exactly what followed what they had, whatever was
//! cut in between.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;

use super::{
    client::{Body, Journal, Publication},
    *,
};
use crate::topic::script::stands_for;

/// The epoch of all topics: none is forgotten here (`World::new`).
const EPOCH: &str = "2r";

/// See the module's description.
pub struct Poller {
    /// Its connection, if it has one.
    pub peer: Option<Peer>,
    names: Vec<String>,
    latest: bool,
    cursor: Option<String>,
    /// The last number of each topic.
    seen: BTreeMap<String, u64>,
    /// Nothing before this is to come.
    at: usize,
    asked: Option<Asked>,
    /// It doesn't read.
    pub stalled: bool,
    /// It has left an answer lying, and may be cut.
    pub was_stalled: bool,
    /// It may be refused, or cut.
    pub lenient: bool,
    input: Vec<u8>,
    /// Its last answer was empty.
    pub is_empty: bool,
    /// Its last answer said that the connection ends.
    closes: bool,
}

/// What it waits for the answer to, and how much there was when it asked.
#[derive(Debug)]
enum Asked {
    Poll { len: usize },
    History { topic: String, from: u64, limit: usize, len: usize },
}

#[derive(serde::Deserialize)]
struct Answer<'a> {
    cursor: &'a str,
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

#[derive(serde::Deserialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    topic: Option<&'a str>,
    seq: Option<u64>,
    ts: Option<u64>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    base64: Option<&'a str>,
    code: Option<&'a str>,
    epoch: Option<&'a str>,
    why: Option<&'a str>,
    from: Option<u64>,
    to: Option<u64>,
}

impl Poller {
    pub fn new(names: Vec<String>, latest: bool) -> Poller {
        Poller {
            peer: None,
            names,
            latest,
            cursor: None,
            seen: BTreeMap::new(),
            at: 0,
            asked: None,
            stalled: false,
            was_stalled: false,
            lenient: false,
            input: Vec::new(),
            is_empty: false,
            closes: false,
        }
    }

    /// Whether it waits for an answer.
    pub fn waits(&self) -> bool {
        self.asked.is_some()
    }

    /// Gives its connection up, whatever it waits for.
    pub fn cut(&mut self) -> Option<Peer> {
        (self.asked, self.input) = (None, Vec::new());
        self.peer.take()
    }

    /// Asks for what there is, on its connection.
    pub fn poll(&mut self, wait: u64, journal: &Journal) {
        let names = self.names.join(",").replace('>', "%3E");
        let mode = if self.latest { "&mode=latest" } else { "" };
        let cursor = self.cursor.as_ref().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        self.ask(&format!("/poll?topics={names}&wait={wait}{mode}{cursor}"));
        self.asked = Some(Asked::Poll { len: journal.len() });
    }

    /// Asks for the history of a topic.
    pub fn look_back(&mut self, topic: &str, from: u64, limit: usize, journal: &Journal) {
        self.ask(&format!("/history/{topic}?from={EPOCH}:{from}&limit={limit}"));
        self.asked = Some(Asked::History { topic: topic.to_owned(), from, limit, len: journal.len() });
    }

    fn ask(&mut self, path: &str) {
        self.is_empty = false;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.peer.as_ref().expect("it is connected").write(request.as_bytes());
    }

    /// Reads up to `most` bytes. Returns whether there were any.
    pub fn read(&mut self, most: usize, journal: &Journal, tail: usize) -> bool {
        let Some(peer) = &mut self.peer else { return false };
        let before = peer.arrived();
        let bytes = peer.read(most);
        let any = peer.arrived() < before;
        self.input.extend_from_slice(&bytes);
        while self.take_answer(journal, tail) {}
        let ended = self.peer.as_ref().is_some_and(|peer| peer.at_end());
        // Over TLS there is an alert behind the last answer, which need not have been read.
        if std::mem::take(&mut self.closes) || ended {
            assert!(
                self.asked.is_none() || self.lenient || self.was_stalled,
                "the connection of a poll just ends: {:?} {:?} read {} secure {} stalled {}",
                self.asked,
                String::from_utf8_lossy(&self.input),
                bytes.len(),
                self.peer.as_ref().unwrap().is_secure(),
                self.stalled
            );
            self.cut().into_iter().for_each(|peer| {
                if !peer.dropped() {
                    peer.end()
                }
            });
        }
        any
    }

    /// Takes the answer in, if it is whole.
    fn take_answer(&mut self, journal: &Journal, tail: usize) -> bool {
        let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else {
            return false;
        };
        let head = std::str::from_utf8(&self.input[..end]).unwrap();
        let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
        let (status, len) = (head[9..12].to_owned(), len.parse::<usize>().unwrap());
        let closes = head.contains("\r\nConnection: close\r\n");
        if self.input.len() < end + len {
            return false;
        }
        let body = String::from_utf8(self.input[end..end + len].to_vec()).unwrap();
        self.input.drain(..end + len);
        self.closes = closes;
        match (self.asked.take().expect("an answer to a question"), &*status) {
            (Asked::Poll { len }, "200") => self.told(&body, len, journal, tail),
            (Asked::History { topic, from, limit, len }, "200") => {
                check_history(&body, (&topic, from, limit), len, journal, tail);
            }
            (Asked::History { topic, len, .. }, "404") => assert_eq!(journal.seq_at(&topic, len), 0, "{body}"),
            _ => assert!(self.lenient && body.contains("--max-") || body.contains("stopping"), "{status} {body}"),
        }
        true
    }

    fn wants(&self, topic: &str) -> bool {
        self.names.iter().any(|name| stands_for(name, topic))
    }

    fn told(&mut self, body: &str, asked: usize, journal: &Journal, tail: usize) {
        let answer: Answer = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
        let mut messages: Vec<Message> =
            answer.messages.iter().map(|text| serde_json::from_str(text.get()).unwrap()).collect();
        // Whoever is answered while the server stops is told so, behind everything else.
        messages.pop_if(|last| last.code == Some("draining"));
        self.is_empty = messages.is_empty();
        if messages.last().is_some_and(|last| last.code == Some("current")) {
            self.begins(&messages[..messages.len() - 1], asked, journal, tail, body);
        } else {
            assert!(self.cursor.is_some(), "a first poll begins: {body}");
            self.follows(&messages, asked, journal, body);
        }
        self.cursor = Some(answer.cursor.to_owned());
    }

    /// It is told the last values, as of some position, and that its place was gone if it had one.
    fn begins(&mut self, messages: &[Message], asked: usize, journal: &Journal, tail: usize, body: &str) {
        let (mut resets, mut values) = (BTreeMap::new(), BTreeMap::new());
        for message in messages {
            let topic = message.topic.unwrap();
            assert!(self.wants(topic) && message.epoch == Some(EPOCH), "{body}");
            let seq = message.seq.or(message.from).unwrap();
            match (message.kind, message.why) {
                ("reset", Some("cursor")) => assert!(resets.insert(topic, seq).is_none(), "{body}"),
                ("snapshot", None) | ("skip", Some("too_large")) => {
                    assert!(values.insert(topic, seq).is_none(), "{body}");
                    message.check(&journal.all[journal.find(topic, seq)], body);
                }
                _ => panic!("{body}"),
            }
        }
        if self.cursor.is_some() {
            assert_eq!(resets, values, "each topic is reset");
            assert!(tail > self.at, "its place is still on the tape: {} of {tail}", self.at);
        } else {
            assert!(resets.is_empty(), "{body}");
        }
        let topics: BTreeSet<&str> = journal.topics().map(|topic| &**topic).filter(|topic| self.wants(topic)).collect();
        let fits = |end: &usize| {
            let at = topics.iter().map(|topic| (*topic, journal.seq_at(topic, *end)));
            at.filter(|(_, seq)| *seq > 0).eq(values.iter().map(|(topic, seq)| (*topic, *seq)))
        };
        self.at = (asked..=journal.len()).find(fits).unwrap_or_else(|| panic!("values of no position: {body}"));
        self.seen = values.into_iter().map(|(topic, seq)| (topic.to_owned(), seq)).collect();
    }

    /// It is told what followed.
    fn follows(&mut self, messages: &[Message], asked: usize, journal: &Journal, body: &str) {
        let (mut at, mut skipped, mut told) = (self.at, None, BTreeSet::new());
        for message in messages {
            let topic = message.topic.unwrap_or_else(|| panic!("{body}"));
            assert!(self.wants(topic), "{topic} comes unasked: {body}");
            let last = self.seen.get(topic).copied().unwrap_or(0);
            if (message.kind, message.why) == ("skip", Some("slow")) {
                assert!(self.latest && skipped.is_none(), "{body}");
                let (from, to) = (message.from.unwrap(), message.to.unwrap());
                assert!(from == last + 1 && from <= to, "{body}");
                assert_eq!(message.epoch, (from == 1).then_some(EPOCH), "its first update isn't coming: {body}");
                skipped = Some((topic, to));
                continue;
            }
            let seq = message.seq.or(message.from).unwrap();
            let next = skipped.take().map_or(last + 1, |(other, to)| {
                assert_eq!(other, topic, "a skip without its update: {body}");
                to + 1
            });
            let is_first = (seq == 1).then_some(EPOCH);
            assert_eq!((seq, message.epoch), (next, is_first), "{topic} after {last}: {body}");
            let found = journal.find(topic, seq);
            assert!(found >= at, "{topic} {seq} comes out of order: {body}");
            assert!(told.insert(topic) || !self.latest, "{topic} comes twice: {body}");
            message.check(&journal.all[found], body);
            self.seen.insert(topic.to_owned(), seq);
            at = found + 1;
        }
        assert!(skipped.is_none(), "{body}");
        if messages.is_empty() {
            let missed = (at..asked).find(|at| self.wants(&journal.all[*at].topic));
            assert!(missed.is_none(), "{} was there and is not told", journal.all[missed.unwrap()].topic);
        }
        self.at = at;
    }

    /// It has asked until there was nothing more.
    pub fn check_complete(&self, journal: &Journal) {
        for topic in journal.topics().filter(|topic| self.wants(topic)) {
            let (seen, newest) = (self.seen.get(topic).copied().unwrap_or(0), journal.seq_at(topic, journal.len()));
            assert_eq!(seen, newest, "{topic}");
        }
    }
}

impl Message<'_> {
    /// It is what was published, or says that this was too large.
    fn check(&self, publication: &Publication, text: &str) {
        let Publication { ts, body: Body { kind, bytes }, .. } = publication;
        if *kind == Kind::TooLarge {
            return assert_eq!((self.kind, self.from, self.to), ("skip", Some(publication.seq), self.from), "{text}");
        }
        assert!(["update", "snapshot"].contains(&self.kind) && self.ts == Some(*ts), "{text}");
        if *kind == Kind::Binary {
            use base64::{Engine, engine::general_purpose::STANDARD};
            return assert_eq!(&STANDARD.decode(self.base64.unwrap()).unwrap(), bytes);
        }
        let data = self.data.unwrap().get();
        let is_json = serde_json::from_slice::<serde_json::Value>(bytes).is_ok();
        if is_json && *kind != Kind::Plain {
            assert_eq!(data.as_bytes(), bytes);
        } else {
            assert_eq!(serde_json::from_str::<String>(data).unwrap().as_bytes(), bytes);
        }
    }
}

/// What a topic's history has to be, of whoever had everything up to `from`.
fn check_history(body: &str, (topic, from, limit): (&str, u64, usize), asked: usize, journal: &Journal, tail: usize) {
    let (mut next, mut told) = (from + 1, 0);
    let mut lines = body.lines().map(|line| serde_json::from_str::<Message>(line).unwrap()).peekable();
    while let Some(message) = lines.next() {
        if lines.peek().is_none() {
            match message.code {
                Some("current") => assert!(next > journal.seq_at(topic, asked), "{topic} {next} is there: {body}"),
                Some("more") => assert!(next <= journal.seq_at(topic, journal.len()), "{body}"),
                _ => panic!("{body}"),
            }
            return assert!(told <= limit, "{body}");
        }
        assert_eq!(message.topic, Some(topic), "{body}");
        if message.kind == "reset" {
            assert_eq!((message.why, message.epoch), (Some("history"), Some(EPOCH)), "{body}");
            let seq = message.seq.unwrap();
            let is_ahead = from > journal.seq_at(topic, asked);
            assert!(is_ahead || seq + 1 > next && journal.find(topic, next) < tail, "{next} is still there: {body}");
            next = seq + 1;
            continue;
        }
        let seq = message.seq.or(message.from).unwrap();
        assert_eq!(seq, next, "{body}");
        message.check(&journal.all[journal.find(topic, seq)], body);
        (next, told) = (next + 1, told + 1);
    }
    panic!("no last line: {body}");
}

impl World {
    /// Lets those that poll read.
    pub fn read_polls(&mut self, most: usize) -> bool {
        let tail = self.tail();
        let reading = self.pollers.iter_mut().filter(|poller| !poller.stalled);
        reading.fold(false, |any, poller| poller.read(most, &self.journal, tail) | any)
    }

    /// Gives a poller a connection, if it has none.
    pub fn connect_poller(&mut self, at: usize, room: usize) {
        if self.pollers[at].peer.is_none() {
            let (peer, _) = self.hand_over(room);
            self.pollers[at].peer = Some(peer);
        }
    }

    /// Has everybody who polls ask until there is nothing more, and end then.
    pub fn finish_polls(&mut self) {
        for at in 0..self.pollers.len() {
            self.pollers[at].stalled = false;
            self.settle();
            if self.pollers[at].waits() {
                // Nobody publishes any more, and a poll may wait for a minute.
                self.pass(Duration::from_secs(61));
            }
            for _ in 0..1000 {
                self.connect_poller(at, 100_000);
                let World { pollers, journal, .. } = self;
                pollers[at].poll(0, journal);
                self.settle();
                assert!(!self.pollers[at].waits(), "a poll that doesn't wait is answered");
                if self.pollers[at].is_empty {
                    self.pollers[at].check_complete(&self.journal);
                    break;
                }
                if self.pollers[at].peer.is_none() {
                    assert!(self.pollers[at].lenient, "a poll is refused");
                    break;
                }
            }
            if let Some(peer) = self.pollers[at].cut() {
                peer.end();
                self.strays.push(peer);
            }
        }
    }
}

#[test]
fn a_poll_that_waits_is_answered_with_what_comes_and_holds_nothing_afterwards() {
    let mut world = plain(quiet());
    let names = ["q.*", "t"].map(str::to_owned).to_vec();
    world.pollers.push(Poller::new(names, false));
    world.publish_some("q.a", 3, 0);
    for n in 0..5 {
        world.connect_poller(0, 1000);
        let World { pollers, journal, .. } = &mut world;
        pollers[0].poll(25, journal);
        world.settle();
        assert_eq!(world.pollers[0].waits(), n > 0, "the first begins");
        assert_eq!(world.posts[0].worker.ground.metrics.polls_waiting.get(), u64::from(n > 0));
        if n == 0 {
            continue;
        }
        world.publish_some("other", 1, 0);
        world.settle();
        assert!(world.pollers[0].waits(), "that is for nobody");
        world.publish_some("q.b", 1, 0);
        world.settle();
        assert!(!world.pollers[0].waits());
        assert_eq!(world.posts[0].worker.ground.metrics.polls_waiting.get(), 0);
    }
    world.finish_polls();
    world.pass(Duration::from_secs(1));
    world.check_nothing_left();
}

#[test]
fn a_request_that_has_come_when_its_connection_is_to_end_is_answered() {
    let mut world = plain(quiet());
    for _ in 0..50 {
        world.pollers.push(Poller::new(vec!["t".to_owned()], false));
    }
    for _ in 0..3 {
        for at in 0..50 {
            world.connect_poller(at, 1000);
            let World { pollers, journal, .. } = &mut world;
            pollers[at].poll(0, journal);
        }
        // Of some the worker isn't told before it sees that they have been silent for long enough.
        let timeout = world.posts[0].worker.ground.settings.keep_alive_timeout;
        world.kernel.advance(timeout);
        world.settle();
        assert!(world.pollers.iter().all(|poller| !poller.waits() && poller.peer.is_some()));
    }
    world.finish_polls();
    world.pass(Duration::from_secs(1));
    world.check_nothing_left();
}

#[test]
fn what_comes_behind_a_poll_that_waits_is_left_where_it_is() {
    let mut world = plain(quiet());
    world.publish_some("t", 1, 0);
    world.pollers.push(Poller::new(vec!["t".to_owned()], false));
    world.connect_poller(0, 1 << 20);
    for _ in 0..2 {
        let World { pollers, journal, .. } = &mut world;
        pollers[0].poll(60, journal);
        world.settle();
    }
    assert!(world.pollers[0].waits());
    let behind = b"GET /history/t HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20_000);
    world.pollers[0].peer.as_ref().unwrap().write(&behind);
    world.run();
    let kept = world.posts[0].worker.connections.iter().map(|(_, connection)| connection.request.len()).max();
    // As much as one read takes in with this much of work, and no second one.
    assert!(kept.is_some_and(|kept| (1..12_000).contains(&kept)), "{kept:?} of {}", behind.len());
}

#[test]
fn a_poll_is_woken_for_what_it_wants_and_for_nothing_else() {
    let mut world = plain(quiet());
    for _ in 0..50 {
        world.pollers.push(Poller::new(vec!["q.*".to_owned()], false));
    }
    world.publish_some("q.a", 1, 0);
    for wait in [0, 25] {
        for at in 0..50 {
            world.connect_poller(at, 1000);
            let World { pollers, journal, .. } = &mut world;
            pollers[at].poll(wait, journal);
        }
        world.settle();
    }
    let metrics = |world: &World| {
        let metrics = &world.posts[0].worker.ground.metrics;
        (metrics.polls_waiting.get(), metrics.deliveries.get(), metrics.sends.get())
    };
    let before = metrics(&world);
    assert_eq!((before.0, before.1), (50, 0));
    world.publish_some("t", 20, 0);
    world.settle();
    assert_eq!(metrics(&world), before, "nobody is sent anything, nor wakes");
    world.publish_some("q.b", 1, 0);
    world.settle();
    let (waiting, deliveries, _) = metrics(&world);
    assert_eq!((waiting, deliveries), (0, 50), "each is told of it once");
    world.finish_polls();
    world.pass(Duration::from_secs(1));
    world.check_nothing_left();
}

#[test]
fn a_poll_that_waits_before_the_pass_of_what_came_before_it_is_told_nothing_twice() {
    let mut world = plain(Settings { flush_interval: Duration::from_millis(50), ..quiet() });
    world.connect(1000, Speech::Raw { topic: "q.a".to_owned(), echo: true }, &[]);
    world.pollers.push(Poller::new(vec!["q.*".to_owned()], false));
    world.settle();
    world.publish_some("q.a", 1, 0);
    let poll = |world: &mut World| {
        world.connect_poller(0, 1000);
        let World { pollers, journal, .. } = world;
        pollers[0].poll(25, journal);
        world.settle();
        world.pollers[0].waits()
    };
    assert!(!poll(&mut world), "it begins");
    // Nobody wants JSON now, and the pass is held back.
    world.publish_some("q.a", 1, 0);
    assert!(!poll(&mut world), "that is there");
    assert!(poll(&mut world));
    world.pass(Duration::from_millis(100));
    assert!(world.pollers[0].waits(), "what the pass has for it, it was told");
    world.publish_some("q.b", 1, 0);
    world.pass(Duration::from_millis(100));
    assert!(!world.pollers[0].waits());
    world.finish_polls();
    world.clients[0].state = State::Left;
    world.clients[0].peer.end();
    world.pass(Duration::from_secs(1));
    world.check_nothing_left();
}
