//! Topics that are forgotten while somebody holds a cursor, polls, or comes back: random scripts. Whoever shows a cursor is told exactly what
//! followed, or that his place is gone; and that only if it is, or if a topic was forgotten that had publications since.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::{protocol::cursor::Cursor as Word, topic::script::stands_for, websocket::frame::Header};

const TOPICS: [&str; 6] = ["q.a", "q.b", "q.c", "t.a", "t.b", "u"];

/// What was published, in order: the topic, its epoch and its number.
type Past = Vec<(&'static str, String, u64)>;

/// Somebody with a cursor.
struct Holder {
    names: &'static [&'static str],
    /// What he was answered last, and where that is.
    place: Option<(String, usize)>,
    peer: Option<Peer>,
    waits: bool,
}

impl Holder {
    fn wants(&self, topic: &str) -> bool {
        self.names.iter().any(|name| stands_for(name, topic))
    }

    fn query(&self) -> String {
        let names = self.names.join(",").replace('>', "%3E");
        let cursor = self.place.as_ref().map(|(word, _)| format!("&cursor={word}")).unwrap_or_default();
        format!("topics={names}{cursor}")
    }
}

struct Town {
    world: World,
    past: Past,
    /// The place behind the newest publication of all topics that were forgotten.
    forgotten: usize,
    holders: Vec<Holder>,
    random: fastrand::Rng,
}

impl Town {
    fn new(seed: u64) -> Town {
        let mut world = World::new(seed, quiet(), 4096, 32 * 1024);
        world.anybody_publishes = true;
        let all: [&[&str]; 4] = [&[">"], &["q.*", "u"], &["t.a"], &["t.*", "q.b"]];
        let holder = |names| Holder { names, place: None, peer: None, waits: false };
        let holders = all.map(holder).into();
        Town { world, past: Vec::new(), forgotten: 0, holders, random: fastrand::Rng::with_seed(seed) }
    }

    fn publish(&mut self) {
        let topic = TOPICS[self.random.usize(..TOPICS.len())];
        let text = format!("\"{}\"", "x".repeat(self.random.usize(..200)));
        let body = Payload::from_parts(Kind::Json, text.as_bytes());
        let done = Door::new(self.world.tape.clone(), 128).publish(By::SERVER, topic, body, About::default()).unwrap();
        self.world.shared.publisher.wake();
        let epoch = self.world.tape.with_topics(|topics, _| topics.find(topic).unwrap().epoch.to_string());
        self.past.push((topic, epoch, done.seq));
    }

    /// Forgets a topic as the server does: one that nobody can be subscribed to.
    fn forget(&mut self) {
        let name: Arc<str> = TOPICS[self.random.usize(..TOPICS.len())].into();
        let tape = &self.world.tape;
        let found = tape.with_topics(|topics, _| topics.find(&name).map(|topic| (topic.id.slot, topic.end)));
        let listens = self.world.shared.subscriptions.may_listen(std::slice::from_ref(&name)).into_iter().any(|it| it);
        let Some((slot, end)) = found.filter(|_| !listens) else { return };
        assert_eq!(tape.forget_topics([slot], |_, _| true), 1);
        self.forgotten = self.forgotten.max(end as usize);
    }

    /// Of each topic that there is and that somebody wants, the epoch and the number.
    fn newest(&self, holder: &Holder) -> BTreeMap<String, (String, u64)> {
        let of = |name: &&&str| holder.wants(name);
        self.world.tape.with_topics(|topics, _| {
            let there = TOPICS.iter().filter(of).filter_map(|name| topics.find(name));
            there.map(|topic| (topic.name.to_string(), (topic.epoch.to_string(), topic.seq))).collect()
        })
    }

    fn poll(&mut self, at: usize) {
        if self.holders[at].waits {
            return;
        }
        if self.holders[at].peer.is_none() {
            self.holders[at].peer = Some(self.world.hand_over(1 << 20).0);
        }
        let wait = if self.random.bool() { 25 } else { 0 };
        let holder = &mut self.holders[at];
        let request = format!("GET /poll?{}&wait={wait} HTTP/1.1\r\nHost: localhost\r\n\r\n", holder.query());
        holder.peer.as_ref().unwrap().write(request.as_bytes());
        holder.waits = true;
    }

    /// Takes in what a poll was answered, if it was.
    fn take_answer(&mut self, at: usize) {
        let Some(peer) = self.holders[at].peer.as_ref().filter(|_| self.holders[at].waits) else { return };
        let answer = String::from_utf8(peer.read(usize::MAX)).unwrap();
        let Some((head, body)) = answer.split_once("\r\n\r\n") else {
            return assert!(answer.is_empty(), "answers come whole: {answer}");
        };
        assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
        let answer: Value = serde_json::from_str(body).unwrap();
        let word = answer["cursor"].as_str().unwrap().to_owned();
        let to = Word::parse(&word).unwrap().at as usize;
        self.holders[at].waits = false;
        let mut messages = answer["messages"].as_array().unwrap().clone();
        let begins = messages.pop_if(|last| last["code"] == "current").is_some();
        let place = self.holders[at].place.replace((word, to)).map(|(_, from)| from);
        let holder = &self.holders[at];
        match place {
            Some(from) if !begins => self.follows(holder, &messages, from, to),
            None => assert!(begins && messages.iter().all(|message| message["type"] == "snapshot"), "{body}"),
            Some(from) => {
                self.is_gone(from);
                let kinds = |kind: &str| {
                    let some = messages.iter().filter(|message| message["type"] == kind);
                    some.map(|message| message["topic"].as_str().unwrap()).collect::<BTreeSet<_>>()
                };
                assert_eq!(kinds("reset"), kinds("snapshot"), "each is reset, and has its value: {body}");
            }
        }
        if begins {
            // Whatever is there was there; what was published on it up to the place, it says.
            for message in messages.iter().filter(|message| message["type"] == "snapshot") {
                let (topic, epoch) = (message["topic"].as_str().unwrap(), message["epoch"].as_str().unwrap());
                let last = self.past[..to].iter().rfind(|(other, ..)| *other == topic);
                assert_eq!(
                    last.map(|(_, epoch, seq)| (&**epoch, *seq)),
                    Some((epoch, message["seq"].as_u64().unwrap())),
                    "{body}"
                );
            }
        }
    }

    /// A place that is good no more has rolled off the tape, or a topic was forgotten that had publications since.
    fn is_gone(&self, from: usize) {
        assert!(from < self.world.tail() || from < self.forgotten, "{from} is there still");
    }

    /// What is told is exactly what was published from one place to another.
    fn follows(&self, holder: &Holder, messages: &[Value], from: usize, to: usize) {
        let wanted = self.past[from..to].iter().filter(|(topic, ..)| holder.wants(topic));
        let wanted: Vec<_> =
            wanted.map(|(topic, epoch, seq)| (*topic, *seq, (*seq == 1).then_some(&**epoch))).collect();
        let told = |message: &Value| message["topic"].as_str().map(str::to_owned);
        let told: Vec<_> = messages.iter().map(|it| (told(it), it["seq"].as_u64(), it["epoch"].as_str())).collect();
        let told: Vec<_> =
            told.iter().map(|(topic, seq, epoch)| (topic.as_deref().unwrap(), seq.unwrap(), *epoch)).collect();
        assert_eq!(told, wanted, "from {from} to {to}");
    }

    /// Comes back over a WebSocket, whatever happens meanwhile, and leaves.
    fn come_back(&mut self, at: usize) {
        let Some((word, from)) = self.holders[at].place.clone().filter(|_| !self.holders[at].waits) else { return };
        let (peer, _) = self.world.hand_over(1 << 20);
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        let path = format!("/ws?{}", self.holders[at].query());
        peer.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n\r\n").as_bytes());
        for _ in 0..self.random.usize(..4) {
            self.world.turn_of(0);
            self.forget();
            self.publish();
        }
        self.world.settle();
        let bytes = peer.read(usize::MAX);
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let (mut messages, mut at_frame) = (Vec::<Value>::new(), head);
        while let Ok(Some((header, len))) = Header::parse(&bytes[at_frame..]) {
            let payload = at_frame + len..at_frame + len + header.payload_len as usize;
            at_frame = payload.end;
            messages.push(serde_json::from_slice(&bytes[payload]).unwrap());
        }
        peer.end();
        self.world.strays.push(peer);
        self.world.settle();
        let holder = &self.holders[at];
        let ack = messages.iter().position(|message| message["type"] == "ack").unwrap();
        let (ack, messages) = (&messages[ack], &messages[ack + 1..]);
        if ack["cursor"] == *word {
            return self.follows(holder, messages, from, self.past.len());
        }
        self.is_gone(from);
        let mut known = BTreeMap::new();
        for message in messages {
            let (topic, seq) = (message["topic"].as_str().unwrap().to_owned(), message["seq"].as_u64().unwrap());
            let last: Option<&(String, u64)> = known.get(&topic);
            let epoch = message["epoch"].as_str().map(str::to_owned);
            match message["type"].as_str().unwrap() {
                "reset" => assert!(last.is_none() && message["why"] == "cursor", "{message}"),
                "snapshot" => {
                    assert_eq!(last, Some(&(epoch.clone().unwrap(), seq)), "its reset comes before: {message}")
                }
                _ => assert_eq!(last.map_or(0, |(_, seq)| *seq) + 1, seq, "{message}"),
            }
            let epoch = epoch.or_else(|| last.map(|(epoch, _)| epoch.clone())).unwrap();
            known.insert(topic, (epoch, seq));
        }
        assert_eq!(known, self.newest(holder), "it ends with what there is");
    }

    fn read(&mut self) {
        self.world.settle();
        (0..self.holders.len()).for_each(|at| self.take_answer(at));
    }

    fn step(&mut self) {
        let at = self.random.usize(..self.holders.len());
        match self.random.u8(..16) {
            0..6 => self.publish(),
            6..8 => self.forget(),
            8..11 => self.poll(at),
            11..13 => self.world.turn_of(0),
            13 => self.read(),
            14 => self.come_back(at),
            _ => self.cut(at),
        }
    }

    fn cut(&mut self, at: usize) {
        self.holders[at].waits = false;
        if let Some(peer) = self.holders[at].peer.take() {
            peer.end();
            self.world.strays.push(peer);
        }
    }

    fn finish(mut self) {
        self.world.pass(Duration::from_secs(26));
        self.read();
        assert!(self.holders.iter().all(|holder| !holder.waits), "whoever waits is answered");
        for at in 0..self.holders.len() {
            // The server doesn't keep one that is quiet for long.
            self.cut(at);
            self.poll(at);
            self.world.pass(Duration::from_secs(26));
            self.read();
            assert!(!self.holders[at].waits);
            assert_eq!(self.holders[at].place.as_ref().unwrap().1, self.past.len(), "it has come to the head");
            self.come_back(at);
        }
    }
}

#[test]
fn a_cursor_brings_exactly_what_followed_or_says_that_it_is_gone_though_topics_are_forgotten_meanwhile() {
    seeds::try_all(SEEDS / 2, |seed| {
        let mut town = Town::new(seed);
        for _ in 0..120 {
            town.step();
        }
        town.finish();
    });
}
