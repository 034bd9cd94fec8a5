//! A client that knows what it must be sent, and the journal that it knows it from.
//!
//! It shares no code with the server: it has its own reader of frames and its own idea of what a pattern matches. It is
//! told nothing about where the server's cursor is; it holds the server to what the protocol promises about any stream:
//! updates in the one order, none missing and none twice from an acknowledgement on, snapshots as of exactly the position
//! that the acknowledgement tells, frames whole.

use std::collections::{BTreeSet, HashMap, VecDeque};

use serde_json::{Value, value::RawValue};

use super::{
    book::{Book, Wish},
    place::Place,
    reload::Reloaded,
};
use crate::{io::sim::Peer, publication::Kind, topic::script::stands_for, websocket::independent::Context};

/// The epoch of all topics: none is forgotten here (`World::new`).
const EPOCH: &str = "2r";

/// Everything that was published, in the order of the tape.
#[derive(Default)]
pub struct Journal {
    pub all: Vec<Publication>,
    by_topic: HashMap<String, Vec<usize>>,
    by_payload: HashMap<Vec<u8>, usize>,
}

/// One publication.
pub struct Publication {
    pub topic: String,
    pub seq: u64,
    pub ts: u64,
    pub body: Body,
    pub origin: u64,
}

/// What was published.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    pub kind: Kind,
    pub bytes: Vec<u8>,
}

impl Journal {
    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn push(&mut self, publication: Publication) {
        let of_topic = self.by_topic.entry(publication.topic.clone()).or_default();
        of_topic.push(self.all.len());
        assert_eq!(of_topic.len() as u64, publication.seq, "numbering of {}", publication.topic);
        self.by_payload.insert(publication.body.bytes.clone(), self.all.len());
        self.all.push(publication);
    }

    /// Where the publication of this topic and number is.
    pub fn find(&self, topic: &str, seq: u64) -> usize {
        let of_topic = self.by_topic.get(topic).unwrap_or_else(|| panic!("{topic} was never published on"));
        of_topic[seq as usize - 1]
    }

    /// The topic's newest number that is not by connection `not`, unless 0; 0 for none.
    pub fn newest_but(&self, topic: &str, not: u64, raw: bool) -> u64 {
        let of_topic = &self.by_topic[topic];
        let untold = |at: usize| raw && self.all[at].body.kind == Kind::TooLarge;
        let other = |at: &&usize| (not == 0 || self.all[**at].origin != not) && !untold(**at);
        of_topic.iter().rev().find(other).map_or(0, |at| self.all[*at].seq)
    }

    /// Every topic that was published on.
    pub fn topics(&self) -> impl Iterator<Item = &String> {
        self.by_topic.keys()
    }

    /// The topic's newest number before position `end`; 0 for none.
    pub fn seq_at(&self, topic: &str, end: usize) -> u64 {
        self.by_topic.get(topic).map_or(0, |of_topic| of_topic.partition_point(|at| *at < end) as u64)
    }
}

/// What it asked for and has no answer to yet.
enum Asked {
    Sub { names: Vec<String>, snapshot: bool, from: usize },
    Wish { wish: Wish, from: usize },
    Unsub { names: Vec<String>, from: usize },
    List { expected: Option<Vec<String>> },
    Ping,
    Pub { topic: String, bytes: Vec<u8> },
    Nonsense,
}

/// An acknowledged subscription whose snapshots are coming.
struct Joining {
    names: Vec<String>,
    acked: Vec<(String, u64)>,
    snapshot: bool,
    snapshots: Vec<(String, u64)>,
    from: usize,
    until: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    /// The answer to its request is awaited.
    Asking,
    Open,
    /// It was sent a close frame with this code.
    Closed(u16),
    /// It was answered by an HTTP error.
    Refused,
    /// It ended the connection itself without a word.
    Left,
}

pub enum Speech {
    Json,
    Raw { topic: String, echo: bool },
    Events,
}

/// What it offers of permessage-deflate, and what it is then sent.
#[derive(Clone, Copy, PartialEq)]
pub enum Offer {
    /// Nothing.
    None,
    /// All that there is.
    Plain,
    /// As Python's websockets does.
    Twelve,
    /// Less than the server compresses with.
    Nine,
    /// Each message by itself.
    Single,
}

impl Offer {
    pub const ALL: [Offer; 7] =
        [Offer::None, Offer::Plain, Offer::Plain, Offer::Plain, Offer::Twelve, Offer::Nine, Offer::Single];

    fn header(self) -> &'static str {
        match self {
            Offer::None => "",
            Offer::Plain => "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
            Offer::Twelve => {
                "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12; client_max_window_bits=12\r\n"
            }
            Offer::Nine => {
                "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; server_max_window_bits=9\r\n"
            }
            Offer::Single => "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n",
        }
    }

    /// How far back its messages may refer at most.
    fn window_bits(self) -> u8 {
        match self {
            Offer::Twelve => 12,
            Offer::Nine => 9,
            Offer::None | Offer::Plain | Offer::Single => 15,
        }
    }

    fn answer(self) -> Option<&'static str> {
        Some(match self {
            Offer::None => return None,
            Offer::Plain => "permessage-deflate; client_no_context_takeover",
            Offer::Twelve => "permessage-deflate; client_no_context_takeover; server_max_window_bits=12",
            Offer::Nine => {
                "permessage-deflate; client_no_context_takeover; server_no_context_takeover; server_max_window_bits=9"
            }
            Offer::Single => "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
        })
    }
}

pub struct Client {
    pub peer: Peer,
    offer: Offer,
    /// Compressed messages that it was sent; and of those, such as can't be read without the ones before.
    pub inflated: u64,
    pub followed: u64,
    /// All compressed messages so far, where one may refer to those before it.
    context: Context,
    pub speech: Speech,
    /// What it is sent is checked topic by topic.
    pub book: Option<Book>,
    pub state: State,
    /// The server's number for it.
    pub id: u64,
    /// It doesn't read.
    pub stalled: bool,
    /// It reads so many bytes at each step of time and no more, and answers what it has read.
    pub pace: Option<usize>,
    /// It is gone without a word since then, in nanoseconds.
    pub vanished: Option<u64>,
    /// It answers no ping and no close.
    pub rude: bool,
    /// It has missed timers by not reading while time passed, so that the server may have dropped it.
    pub overslept: bool,
    /// What settings that have changed meanwhile may do to it.
    pub reloaded: Reloaded,
    /// It has begun to close.
    pub closing: Option<u16>,
    /// What it publishes, as the server will come to it.
    pub publishing: VecDeque<(String, Body)>,
    /// What the server will think it is subscribed to, once it has read everything.
    pub asked_names: BTreeSet<String>,
    pub drained: bool,
    /// How much had been published when its worker, which stops, said goodbye to everybody.
    pub served_until: Option<usize>,
    names: BTreeSet<String>,
    /// Names that began at a position which the acknowledgement leaves open, and the latest that it can be.
    loose: Vec<(usize, Vec<String>)>,
    /// No publication before this is to come.
    at: usize,
    /// For a raw connection that was not sent anything yet: from here on it must be.
    sure: Option<usize>,
    joining: Option<Joining>,
    asked: HashMap<u64, Asked>,
    /// Those of `asked` whose answers come in the order of asking.
    changes: VecDeque<u64>,
    pings: VecDeque<Vec<u8>>,
    lagged: bool,
    pub told_draining: bool,
    told_limited: bool,
    /// The cursors that it was told.
    pub places: Vec<Place>,
    input: Vec<u8>,
    next_id: u64,
}

#[derive(serde::Deserialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: Option<u64>,
    topic: Option<&'a str>,
    seq: Option<u64>,
    ts: Option<u64>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    base64: Option<&'a str>,
    topics: Option<Value>,
    code: Option<&'a str>,
    epoch: Option<&'a str>,
    why: Option<&'a str>,
    from: Option<u64>,
    to: Option<u64>,
    cursor: Option<&'a str>,
}

impl Message<'_> {
    /// It says the epoch if it is the topic's first, and else doesn't.
    fn says_epoch(&self, seq: u64, text: &str) {
        assert_eq!(self.epoch, (seq == 1).then_some(EPOCH), "{text}");
    }

    /// The topic and the number of what it says was too large, as it was.
    fn too_large(&self, journal: &Journal) -> (&str, u64) {
        let (topic, seq) = (self.topic.unwrap(), self.from.unwrap());
        assert_eq!((self.why, self.to), (Some("too_large"), Some(seq)));
        assert_eq!(journal.all[journal.find(topic, seq)].body.kind, Kind::TooLarge, "{topic} {seq} was not too large");
        (topic, seq)
    }
}

impl Client {
    /// Connects, subscribed from the start to `names` if there are any.
    pub fn connect(peer: Peer, id: u64, speech: Speech, names: &[String], offer: Offer, journal: &Journal) -> Client {
        let path = match &speech {
            Speech::Json if names.is_empty() => "/ws".to_owned(),
            Speech::Json => format!("/ws?topics={}", names.join(",").replace('>', "%3E")),
            Speech::Raw { topic, echo: true } => format!("/raw/{topic}"),
            Speech::Raw { topic, echo: false } => format!("/raw/{topic}?echo=0"),
            Speech::Events => unreachable!("they are asked for with a wish"),
        };
        let mut client = Client::ask(peer, id, speech, &path, offer, journal);
        client.asked_names = names.iter().cloned().collect();
        if !names.is_empty() {
            client.asked.insert(0, Asked::Sub { names: names.to_vec(), snapshot: true, from: journal.len() });
            client.changes.push_back(0);
        }
        client
    }

    /// Connects, subscribed from the start as wished, and checks topic by topic.
    pub fn wish(peer: Peer, id: u64, speech: Speech, wish: Wish, offer: Offer, journal: &Journal) -> Client {
        let names = wish.names.join(",").replace('>', "%3E");
        let cursor = wish.cursor.as_ref().map_or_else(String::new, |place| format!("&cursor={}", place.word));
        let query = wish.way.query() + &cursor;
        let path = match &speech {
            Speech::Json => format!("/ws?topics={names}&{query}"),
            Speech::Events => format!("/sse?topics={names}&{query}"),
            Speech::Raw { topic, echo } => format!("/raw/{topic}?{query}&echo={}", u8::from(*echo)),
        };
        let mut client = Client::ask(peer, id, speech, &path, offer, journal);
        let mut book = Book::default();
        if client.is_json() {
            client.asked.insert(0, Asked::Wish { wish, from: journal.len() });
            client.changes.push_back(0);
        } else {
            book.begin(&wish);
        }
        client.book = Some(book);
        client
    }

    fn ask(peer: Peer, id: u64, speech: Speech, path: &str, offer: Offer, journal: &Journal) -> Client {
        let offer = if matches!(speech, Speech::Events) { Offer::None } else { offer };
        let extensions = offer.header();
        peer.write(
            format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n{extensions}\r\n"
            )
            .as_bytes(),
        );
        Client {
            peer,
            offer,
            inflated: 0,
            followed: 0,
            context: Context::new(offer.window_bits()),
            speech,
            book: None,
            state: State::Asking,
            id,
            stalled: false,
            pace: None,
            vanished: None,
            rude: false,
            overslept: false,
            reloaded: Reloaded::default(),
            closing: None,
            publishing: VecDeque::new(),
            asked_names: BTreeSet::new(),
            drained: false,
            served_until: None,
            names: BTreeSet::new(),
            loose: Vec::new(),
            at: journal.len(),
            sure: None,
            joining: None,
            asked: HashMap::new(),
            changes: VecDeque::new(),
            pings: VecDeque::new(),
            lagged: false,
            told_draining: false,
            told_limited: false,
            places: Vec::new(),
            input: Vec::new(),
            next_id: 1,
        }
    }

    pub fn is_json(&self) -> bool {
        !matches!(self.speech, Speech::Raw { .. })
    }

    /// Sends a frame.
    pub fn send(&mut self, opcode: u8, payload: &[u8]) {
        let key = [7, self.next_id as u8, 0x5a, 0];
        let mut frame = vec![0x80 | opcode];
        let mut packed = Vec::new();
        // By its content, so that some are and some aren't. What can't flush ends its stream, and adds a byte (RFC 7692 section 7.2.3.4).
        if self.offer != Offer::None
            && opcode < 8
            && payload.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)) % 2 == 0
        {
            packed = miniz_oxide::deflate::compress_to_vec(payload, 6);
            packed.push(0);
            frame[0] |= 0x40;
        }
        let payload = if packed.is_empty() { payload } else { &packed };
        match payload.len() {
            len @ 0..126 => frame.push(0x80 | len as u8),
            len => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(len as u16).to_be_bytes());
            }
        }
        frame.extend_from_slice(&key);
        frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
        self.peer.write(&frame);
    }

    fn command(&mut self, asked: Asked, text: impl FnOnce(u64) -> String) {
        let id = self.next_id;
        self.next_id += 1;
        if matches!(asked, Asked::Sub { .. } | Asked::Wish { .. } | Asked::Unsub { .. }) {
            self.changes.push_back(id);
        }
        self.asked.insert(id, asked);
        self.send(1, text(id).as_bytes());
    }

    pub fn sub(&mut self, names: Vec<String>, snapshot: bool, journal: &Journal) {
        self.asked_names.extend(names.iter().cloned());
        let list = serde_json::to_string(&names).unwrap();
        self.command(Asked::Sub { names, snapshot, from: journal.len() }, |id| {
            format!(r#"{{"op":"sub","id":{id},"topics":{list},"snapshot":{snapshot}}}"#)
        });
    }

    /// Subscribes, or changes how, checked topic by topic.
    pub fn sub_as(&mut self, wish: Wish, journal: &Journal) {
        self.asked_names.extend(wish.names.iter().cloned());
        self.command(Asked::Wish { wish: wish.clone(), from: journal.len() }, |id| wish.command(id));
    }

    pub fn unsub(&mut self, names: Vec<String>, journal: &Journal) {
        self.asked_names.retain(|name| !names.contains(name));
        let list = serde_json::to_string(&names).unwrap();
        self.command(Asked::Unsub { names, from: journal.len() }, |id| {
            format!(r#"{{"op":"unsub","id":{id},"topics":{list}}}"#)
        });
    }

    pub fn list(&mut self, sure: bool) {
        let expected = sure.then(|| self.asked_names.iter().cloned().collect());
        self.command(Asked::List { expected }, |id| format!(r#"{{"op":"list","id":{id}}}"#));
    }

    pub fn ping(&mut self) {
        self.command(Asked::Ping, |id| format!(r#"{{"op":"ping","id":{id}}}"#));
    }

    pub fn nonsense(&mut self) {
        self.command(Asked::Nonsense, |id| format!(r#"{{"op":"dance","id":{id}}}"#));
    }

    pub fn control_ping(&mut self, payload: &[u8]) {
        self.pings.push_back(payload.to_vec());
        self.send(9, payload);
    }

    /// Publishes JSON on any topic, or anything on its own raw topic.
    pub fn publish(&mut self, topic: &str, body: Body, acked: bool) {
        match &self.speech {
            Speech::Json => {
                let data = String::from_utf8(body.bytes.clone()).unwrap();
                let topic = topic.to_owned();
                self.publishing.push_back((topic.clone(), body.clone()));
                if acked {
                    let asked = Asked::Pub { topic: topic.clone(), bytes: body.bytes };
                    self.command(asked, |id| format!(r#"{{"op":"pub","id":{id},"topic":"{topic}","data":{data}}}"#));
                } else {
                    self.send(1, format!(r#"{{"op":"pub","topic":"{topic}","data":{data}}}"#).as_bytes());
                }
            }
            Speech::Events => unreachable!("it can't"),
            Speech::Raw { topic, .. } => {
                let kind = if body.kind == Kind::Binary { Kind::Binary } else { Kind::Text };
                self.publishing.push_back((topic.clone(), Body { kind, bytes: body.bytes.clone() }));
                self.send(if kind == Kind::Binary { 2 } else { 1 }, &body.bytes);
            }
        }
    }

    /// Is gone without a word.
    pub fn vanish(&mut self, now: u64) {
        self.peer.vanish();
        (self.state, self.vanished) = (State::Left, Some(now));
    }

    /// Whether it has the answers to all of its pings.
    pub fn has_pongs(&self) -> bool {
        self.pings.is_empty()
    }

    pub fn close(&mut self, code: u16) {
        if matches!(self.speech, Speech::Events) {
            self.state = State::Left;
            return self.peer.end();
        }
        self.closing = Some(code);
        self.send(8, &code.to_be_bytes());
    }

    /// Reads up to `most` bytes and does with them what a client does. Returns whether there were any.
    pub fn read(&mut self, most: usize, journal: &Journal, tail: usize) -> bool {
        // What is encrypted may say nothing yet.
        let before = self.peer.arrived();
        let bytes = self.peer.read(most);
        let any = self.peer.arrived() < before;
        self.input.extend_from_slice(&bytes);
        if matches!(self.state, State::Left) {
            self.input.clear();
        }
        if self.state == State::Asking
            && let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let head: Vec<u8> = self.input.drain(..end + 4).collect();
            if head.starts_with(b"HTTP/1.1 101 ") || head.starts_with(b"HTTP/1.1 200 ") {
                let head = String::from_utf8_lossy(&head);
                let answer = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
                assert_eq!(answer, self.offer.answer(), "what was agreed on");
                self.state = State::Open;
                self.sure = (!self.is_json()).then_some(journal.len());
                if let Some(book) = &mut self.book {
                    book.opened(journal);
                }
            } else {
                assert!(head.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&head));
                self.state = State::Refused;
            }
        }
        if matches!(self.state, State::Open | State::Closed(_)) {
            if matches!(self.speech, Speech::Events) {
                while let Some(message) = self.next_event(journal) {
                    self.message(&message, journal, tail);
                }
            }
            while let Some((opcode, payload)) = self.next_frame() {
                self.take(opcode, &payload, journal, tail);
            }
        }
        let end = self.peer.at_end();
        if end && self.state == State::Open && matches!(self.speech, Speech::Events) {
            // A stream has no other end.
            assert!(self.lagged || self.drained || self.overslept, "the stream of client {:x} just ends", self.id);
            self.state = State::Closed(if self.lagged { 4100 } else { 1001 });
        }
        if end && self.state == State::Open {
            assert!(
                self.overslept,
                "client {:x} was dropped without a close frame (pace {:?}, stalled {}, hasty {})",
                self.id, self.pace, self.stalled, self.reloaded.hasty
            );
            self.state = State::Left;
        }
        if end && !self.peer.dropped() {
            self.peer.end();
        }
        any
    }

    /// The data of the next event; its id must be that of the update that it holds.
    fn next_event(&mut self, journal: &Journal) -> Option<String> {
        let end = self.input.windows(2).position(|two| two == b"\n\n")?;
        let event: Vec<u8> = self.input.drain(..end + 2).collect();
        let event = String::from_utf8(event).unwrap();
        let (mut id, mut data): (Option<&str>, _) = (None, Vec::new());
        for line in event.trim_end_matches('\n').split('\n') {
            match line.split_once(": ").unwrap_or_else(|| panic!("{line:?} is no field")) {
                ("id", value) => id = Some(value),
                ("data", value) => data.push(value),
                ("retry", value) => assert!(value.parse::<u64>().is_ok() && self.drained, "{event}"),
                _ => panic!("{line}"),
            }
        }
        let data = data.join("\n");
        let message: Message = serde_json::from_str(&data).unwrap();
        let tells = ["ack", "snapshot", "update", "heartbeat"].contains(&message.kind)
            || [message.why, message.code].iter().any(|it| matches!(it, Some("too_large" | "current")));
        assert_eq!(id.is_some(), tells, "{event}");
        if let Some(place) = id.map(Place::read) {
            if message.kind == "update" {
                let at = journal.find(message.topic.unwrap(), message.seq.unwrap());
                assert_eq!((place.at, place.begins), (at as u64 + 1, false), "{event}");
            }
            self.places.push(place);
        }
        Some(data)
    }

    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        if matches!(self.speech, Speech::Events) {
            return None;
        }
        let [first, second, rest @ ..] = &self.input[..] else { return None };
        let first = *first;
        // Whoever can't read what all others are sent is sent nothing compressed.
        let may_inflate = matches!(self.offer, Offer::Plain | Offer::Twelve | Offer::Single);
        let is_packed = may_inflate && matches!(first, 0xc1 | 0xc2);
        assert!(
            is_packed || matches!(first, 0x81 | 0x82 | 0x88 | 0x89 | 0x8a),
            "a torn frame: it begins with {first:#x}"
        );
        let (len, header) = match second {
            0..126 => (usize::from(*second), 2),
            126 => (usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().unwrap())), 4),
            127 => (u64::from_be_bytes(rest.get(..8)?.try_into().unwrap()) as usize, 10),
            _ => panic!("a torn frame: it is masked"),
        };
        assert!(header == 2 || len > 125, "a torn frame: its length is not minimal");
        assert!(len < 1 << 20 && (is_packed || first < 0x88 || len <= 125), "a torn frame: it has {len} bytes");
        let mut frame = self.input.get(header..header + len)?.to_vec();
        if is_packed {
            // As browsers do: with all that came before, unless it was agreed that nothing refers to that.
            let followed = self.context.message(&frame);
            // The end that is left out, and a last block, since this inflater wants one.
            frame.extend_from_slice(&[0, 0, 0xff, 0xff, 3, 0]);
            let alone = miniz_oxide::inflate::decompress_to_vec(&frame).ok();
            let inflated = followed.expect("a message of deflate behind those before it");
            if alone.as_ref() != Some(&inflated) {
                assert!(self.offer != Offer::Single, "it refers to what was before, and must not");
                self.followed += 1;
            }
            assert!(self.offer != Offer::Single || len < inflated.len(), "compressed by itself, and no shorter");
            (frame, self.inflated) = (inflated, self.inflated + 1);
        }
        let opcode = first & 15;
        self.input.drain(..header + len);
        Some((opcode, frame))
    }

    fn take(&mut self, opcode: u8, payload: &[u8], journal: &Journal, tail: usize) {
        assert_eq!(self.state, State::Open, "a frame behind the close frame");
        match opcode {
            8 => {
                let code = u16::from_be_bytes(payload[..2].try_into().unwrap());
                let reason = std::str::from_utf8(&payload[2..]).unwrap();
                self.closed(code, reason, journal, tail);
            }
            9 if !self.rude => self.send(10, payload),
            9 => {}
            10 => assert_eq!(self.pings.pop_front().as_deref(), Some(payload), "a pong echoes its ping"),
            _ if self.is_json() => {
                assert_eq!(opcode, 1);
                self.message(std::str::from_utf8(payload).unwrap(), journal, tail);
            }
            _ => self.raw(opcode, payload, journal),
        }
    }

    fn closed(&mut self, code: u16, reason: &str, journal: &Journal, tail: usize) {
        self.settle_join(journal, true);
        self.state = State::Closed(code);
        let ours = self.closing == Some(code);
        match code {
            4100 => {
                let asked = self.asked.values().any(|asked| matches!(asked, Asked::Sub { .. } | Asked::Wish { .. }));
                if let Some(book) = &self.book {
                    assert!(asked || book.in_full() || book.resumes(), "newest values never lag");
                }
                assert!(
                    asked || self.book.is_some() || !self.names.is_empty() || !self.is_json(),
                    "nothing subscribed, yet told that it lags"
                );
                // The rest of a frame that was begun still came.
                assert!(
                    self.book.is_some() || self.at <= tail || self.reloaded.lag,
                    "told that it lags at {} when the tape begins at {tail}",
                    self.at
                );
                assert!(self.lagged || !self.is_json(), "4100 without the error before it");
            }
            1001 if ours => {}
            1001 => {
                assert!(self.drained, "the server went away by itself");
                assert!(self.told_draining || !self.is_json(), "1001 without the status before it");
                if !self.overslept && self.book.is_none() {
                    self.nothing_missing(self.served_until.unwrap_or(journal.len()), journal);
                }
            }
            1013 => {
                assert!(self.overslept && reason.contains("--max-held"), "{reason}");
                self.publishing.clear();
            }
            1008 => assert!(self.rude || self.overslept, "{reason}"),
            4003 => {
                assert!(self.reloaded.rates && reason.contains(": --max-"), "{reason}");
                assert!(self.told_limited || !matches!(self.speech, Speech::Json), "4003 without the error before it");
                self.publishing.clear();
            }
            _ => assert!(ours, "closed with {code} {reason}"),
        }
        if code != 4100 {
            assert!(!self.lagged);
        }
        if self.closing.is_none() && !self.rude {
            self.send(8, &code.to_be_bytes());
        }
    }

    fn message(&mut self, text: &str, journal: &Journal, tail: usize) {
        let message: Message = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(!self.lagged, "something between the error lagged and the close: {text}");
        let is_instead = message.kind == "skip" && self.is_in_place_of_snapshot(&message, journal);
        if message.kind != "snapshot" && !is_instead {
            // A server that stops says so before it goes, also to whoever has not come to the end of its snapshots by then.
            let breaks_off = self.overslept && message.code == Some("draining");
            let ends = breaks_off || ["lagged", "rate_limited"].map(Some).contains(&message.code);
            self.settle_join(journal, ends);
        }
        match message.kind {
            "hello" => {}
            "heartbeat" => self.is_told(&message, text, journal),
            "status" if message.code == Some("current") => {
                assert!(matches!(self.speech, Speech::Events));
                self.book.as_mut().expect("events are kept in a book").current();
                self.is_told_by_id(text, journal);
            }
            "status" => {
                assert!(self.drained);
                assert!(!std::mem::replace(&mut self.told_draining, true), "told twice that the server stops");
            }
            "update" | "snapshot" | "skip" | "reset" if self.book.is_some() => {
                self.in_book(&message, text, journal, tail);
            }
            "skip" => {
                let (topic, seq) = message.too_large(journal);
                match &mut self.joining {
                    Some(joining) if is_instead => joining.snapshots.push((topic.to_owned(), seq)),
                    _ => {
                        message.says_epoch(seq, text);
                        self.follow(journal.find(topic, seq), journal);
                    }
                }
            }
            "update" => {
                let at = journal.find(message.topic.unwrap(), message.seq.unwrap());
                message.says_epoch(message.seq.unwrap(), text);
                self.follow(at, journal);
                self.check_body(&message, &journal.all[at], text);
            }
            "snapshot" => {
                let (topic, seq) = (message.topic.unwrap().to_owned(), message.seq.unwrap());
                self.check_body(&message, &journal.all[journal.find(&topic, seq)], text);
                self.joining.as_mut().expect("a snapshot behind an ack").snapshots.push((topic, seq));
            }
            "error" if message.code == Some("lagged") => self.lagged = true,
            "error" if message.code == Some("rate_limited") => self.told_limited = true,
            "error" => {
                let id = message.id.unwrap_or(0);
                let asked = self.asked.remove(&id).unwrap_or_else(|| panic!("{text}"));
                let many = message.code == Some("too_many") && self.reloaded.names;
                let may = match asked {
                    Asked::Nonsense => message.code == Some("unknown_op"),
                    Asked::Sub { .. } | Asked::Wish { .. } => {
                        self.changes.retain(|other| *other != id);
                        let full = ["too_many_subscriptions", "server_full", "too_many_topics"];
                        (many || full.contains(&message.code.unwrap())) && text.contains("--max-")
                    }
                    Asked::Unsub { names, .. } => {
                        self.changes.retain(|other| *other != id);
                        self.asked_names.extend(names);
                        many && text.contains("--max-subscriptions")
                    }
                    // It is longer than what a client may have waiting, where that is little.
                    Asked::List { .. } => message.code == Some("too_many_topics") && text.contains("--max-pending"),
                    _ => false,
                };
                assert!(may, "{text}");
            }
            "ack" | "subscriptions" | "pong" => self.answered(&message, text, journal),
            _ => panic!("{text}"),
        }
    }

    /// Whether what was too large is told as a topic's last value, behind an ack, and not as its next publication. A topic's first
    /// publication says the epoch in either case.
    fn is_in_place_of_snapshot(&self, message: &Message, journal: &Journal) -> bool {
        let (Some(joining), Some(_), Some("too_large")) = (&self.joining, message.epoch, message.why) else {
            return message.epoch.is_some() && message.from != Some(1);
        };
        let topic = message.topic.unwrap();
        let at = journal.find(topic, message.from.unwrap());
        let is_acked_without = joining.acked.iter().any(|(name, seq)| name == topic && *seq == 0);
        let is_due = at >= self.at && self.is_due(at, journal);
        let is_named = joining.names.iter().any(|name| stands_for(name, topic));
        joining.snapshot && is_named && at < joining.until && !is_acked_without && !is_due
    }

    fn answered(&mut self, message: &Message, text: &str, journal: &Journal) {
        let id = message.id.unwrap_or(0);
        let asked = self.asked.remove(&id).unwrap_or_else(|| panic!("an answer to nothing: {text}"));
        if matches!(asked, Asked::Sub { .. } | Asked::Wish { .. }) {
            self.places.push(Place::read(message.cursor.expect("the ack of a sub has a cursor")));
        }
        if matches!(asked, Asked::Sub { .. } | Asked::Wish { .. } | Asked::Unsub { .. }) {
            assert_eq!(self.changes.pop_front(), Some(id), "changes are acknowledged in order");
        }
        match asked {
            Asked::Sub { names, snapshot, from } => {
                let topics = message.topics.as_ref().unwrap().as_array().unwrap();
                assert_eq!(topics.len(), names.len(), "{text}");
                let acked = topics.iter().zip(&names).filter_map(|(topic, name)| {
                    assert_eq!(topic["topic"], name.as_str());
                    assert_eq!(topic["seq"].is_u64(), !name.contains(['*', '>']), "{text}");
                    Some((name.clone(), topic["seq"].as_u64()?))
                });
                let acked = acked.collect();
                let until = journal.len();
                self.joining = Some(Joining { names, acked, snapshot, snapshots: Vec::new(), from, until });
            }
            Asked::Wish { wish, from } => {
                let book = self.book.as_mut().expect("a wish is kept in a book");
                book.acked(wish, message.topics.as_ref().unwrap(), text, journal, from);
            }
            Asked::Unsub { names, .. } if self.book.is_some() => self.book.as_mut().unwrap().ended(&names),
            Asked::Unsub { names, from } => {
                self.nothing_missing(from, journal);
                self.at = self.at.max(from);
                self.names.retain(|name| !names.contains(name));
                for (_, loose) in &mut self.loose {
                    loose.retain(|name| !names.contains(name));
                }
            }
            Asked::List { expected } => {
                assert_eq!(message.kind, "subscriptions");
                let topics = message.topics.as_ref().unwrap().as_array().unwrap();
                let names: Vec<String> = topics.iter().map(|topic| topic["topic"].as_str().unwrap().into()).collect();
                // What was asked for before may have been refused by a limit that came since.
                if let Some(expected) = expected.filter(|_| !self.reloaded.names) {
                    assert_eq!(names, expected);
                }
            }
            Asked::Ping => {
                assert_eq!(message.kind, "pong");
                self.is_told(message, text, journal);
            }
            Asked::Pub { topic, bytes } => {
                assert_eq!(message.topic, Some(topic.as_str()));
                let publication = &journal.all[journal.find(&topic, message.seq.unwrap())];
                assert_eq!(publication.body.bytes, bytes);
                assert_eq!(message.ts, Some(publication.ts));
                assert_eq!(publication.origin, self.id);
            }
            Asked::Nonsense => panic!("{text}"),
        }
    }

    /// Everything before the cursor of this message was told.
    fn is_told(&mut self, message: &Message, text: &str, journal: &Journal) {
        let place = Place::read(message.cursor.expect("it says how far all was told"));
        assert!(place.at <= journal.len() as u64 && !place.begins, "{text}");
        match &self.book {
            Some(book) => book.is_told(&place, journal, text),
            None => self.nothing_missing(place.at as usize, journal),
        }
        self.places.push(place);
    }

    /// Everything before the id of the last event was told.
    fn is_told_by_id(&self, text: &str, journal: &Journal) {
        let (Some(place), Some(book)) = (self.places.last(), &self.book) else { panic!("{text}") };
        assert!(place.at <= journal.len() as u64 && !place.begins, "{text}");
        book.is_told(place, journal, text);
    }

    /// All snapshots of a subscription are there, or no more will come because the connection ends: finds the position that it
    /// began at.
    fn settle_join(&mut self, journal: &Journal, ends: bool) {
        let Some(joining) = self.joining.take() else { return };
        let topics: BTreeSet<&str> = journal.by_topic.keys().map(String::as_str).collect();
        let matched: Vec<&str> =
            topics.into_iter().filter(|topic| joining.names.iter().any(|name| stands_for(name, topic))).collect();
        let fits = |end: &usize| {
            let mut expected: Vec<(String, u64)> = Vec::new();
            if joining.snapshot {
                expected.extend(matched.iter().map(|topic| ((*topic).to_owned(), journal.seq_at(topic, *end))));
                expected.retain(|(_, seq)| *seq > 0);
            }
            let mut found = joining.snapshots.clone();
            found.sort();
            let fits = if ends { found.iter().all(|one| expected.contains(one)) } else { found == expected };
            fits && joining.acked.iter().all(|(topic, seq)| journal.seq_at(topic, *end) == *seq)
        };
        // Several fit where nothing happened on the names meanwhile, or where the client is told no numbers.
        let fitting: Vec<usize> = (self.at.max(joining.from)..=joining.until).filter(fits).collect();
        let (Some(&first), Some(&last)) = (fitting.first(), fitting.last()) else {
            let all = journal.all.iter().enumerate();
            let about: Vec<_> = all.map(|(at, one)| format!("{at}: {} {}", one.topic, one.seq)).collect();
            panic!(
                "client {:x} at {}, from {} to {}: no position fits {:?}, the ack {:?} and the snapshots {:?} (ends: {ends}); {about:?}",
                self.id, self.at, joining.from, joining.until, joining.names, joining.acked, joining.snapshots
            )
        };
        self.nothing_missing(first, journal);
        self.at = first;
        let fresh: Vec<String> = joining.names.into_iter().filter(|name| !self.names.contains(name)).collect();
        self.names.extend(fresh.iter().cloned());
        self.loose.retain(|(end, names)| *end > first && !names.is_empty());
        self.loose.push((last, fresh));
    }

    fn wants(&self, publication: &Publication) -> bool {
        match &self.speech {
            Speech::Events => unreachable!("events are kept in a book"),
            Speech::Json => self.names.iter().any(|name| stands_for(name, &publication.topic)),
            Speech::Raw { .. } if publication.body.kind == Kind::TooLarge => false,
            Speech::Raw { topic, echo } => *topic == publication.topic && (*echo || publication.origin != self.id),
        }
    }

    /// Whether it must be sent publication `at`: a name stands for it that has begun for certain.
    fn is_due(&self, at: usize, journal: &Journal) -> bool {
        let open = |name: &String| self.loose.iter().any(|(end, names)| at < *end && names.contains(name));
        let firm = || self.names.iter().any(|name| stands_for(name, &journal.all[at].topic) && !open(name));
        self.wants(&journal.all[at]) && (!self.is_json() || firm())
    }

    /// There is nothing for this client between what it was sent last and `end`.
    fn nothing_missing(&self, end: usize, journal: &Journal) {
        let from = self.sure.unwrap_or(self.at);
        for at in from..end.max(from) {
            let missed = &journal.all[at];
            assert!(!self.is_due(at, journal), "client {:x} was never sent {} {}", self.id, missed.topic, missed.seq);
        }
    }

    /// Publication `at` comes.
    fn follow(&mut self, at: usize, journal: &Journal) {
        let publication = &journal.all[at];
        let what = || format!("{} {} at {at}", publication.topic, publication.seq);
        assert!(at >= self.at, "client {:x} was sent {} again or too late", self.id, what());
        assert!(self.wants(publication), "client {:x} was sent {} unasked", self.id, what());
        self.nothing_missing(at, journal);
        if self.is_json() && !self.is_due(at, journal) {
            let stands = |names: &[String]| names.iter().any(|name| stands_for(name, &publication.topic));
            let mut begun = self.loose.iter_mut().filter(|(end, names)| at < *end && stands(names));
            if let (Some((end, _)), None) = (begun.next(), begun.next()) {
                *end = at;
            }
        }
        (self.at, self.sure) = (at + 1, None);
    }

    /// Something that the book has to allow.
    fn in_book(&mut self, message: &Message, text: &str, journal: &Journal, tail: usize) {
        let mut book = self.book.take().unwrap();
        let topic = message.topic.unwrap();
        match message.kind {
            "update" => {
                let seq = message.seq.unwrap();
                message.says_epoch(seq, text);
                book.update(topic, seq, message.epoch, journal);
            }
            "snapshot" => book.snapshot(topic, message.seq.unwrap(), message.epoch.unwrap()),
            "skip" if message.why == Some("too_large") => match (message.too_large(journal), message.epoch) {
                ((topic, seq), Some(epoch)) if seq > 1 || book.awaits_snapshot_at(journal.find(topic, seq)) => {
                    book.snapshot(topic, seq, epoch);
                }
                ((topic, seq), epoch) => {
                    message.says_epoch(seq, text);
                    book.update(topic, seq, epoch, journal);
                }
            },
            "skip" => {
                assert_eq!(message.why, Some("slow"));
                book.skip(topic, message.from.unwrap(), message.to.unwrap());
            }
            _ => {
                let (seq, epoch) = (message.seq.unwrap(), message.epoch.unwrap());
                book.reset(topic, seq, epoch, message.why.unwrap(), journal, tail);
            }
        }
        self.book = Some(book);
        if matches!(message.kind, "update" | "snapshot") {
            self.check_body(message, &journal.all[journal.find(topic, message.seq.unwrap())], text);
        }
    }

    fn raw(&mut self, opcode: u8, payload: &[u8], journal: &Journal) {
        let at = *journal.by_payload.get(payload).expect("something that was published");
        let publication = &journal.all[at];
        match &mut self.book {
            Some(book) => {
                let mine = matches!(self.speech, Speech::Raw { echo: false, .. }) && publication.origin == self.id;
                assert!(!mine, "its own publication comes back");
                book.raw_update(&publication.topic, publication.seq, journal);
            }
            None => self.follow(at, journal),
        }
        assert_eq!(opcode == 2, journal.all[at].body.kind == Kind::Binary);
    }

    fn check_body(&self, message: &Message, publication: &Publication, text: &str) {
        assert_ne!(publication.body.kind, Kind::TooLarge, "{text}");
        assert_eq!(message.ts, Some(publication.ts), "{text}");
        let bytes = &publication.body.bytes;
        if publication.body.kind == Kind::Binary {
            use base64::{Engine, engine::general_purpose::STANDARD};
            assert_eq!(&STANDARD.decode(message.base64.unwrap()).unwrap(), bytes);
            return;
        }
        let data = message.data.unwrap().get();
        let is_json = serde_json::from_slice::<Value>(bytes).is_ok();
        if is_json && publication.body.kind != Kind::Plain {
            assert_eq!(data.as_bytes(), bytes);
        } else {
            assert_eq!(serde_json::from_str::<String>(data).unwrap().as_bytes(), bytes);
        }
    }

    /// Everything was sent: nothing may be missing now.
    pub fn check_complete(&mut self, end: usize, journal: &Journal, tail: usize) {
        if self.state != State::Open {
            return;
        }
        assert!(self.input.is_empty(), "half a frame is left");
        match &self.book {
            Some(book) => {
                let not = if let Speech::Raw { echo: false, .. } = self.speech { self.id } else { 0 };
                let raw = matches!(self.speech, Speech::Raw { .. });
                book.check_complete(journal, (not, raw), tail);
            }
            None => {
                self.settle_join(journal, false);
                self.nothing_missing(end, journal);
            }
        }
        assert!(self.pings.is_empty(), "a ping without its pong");
        assert!(self.asked.is_empty(), "{} commands without an answer", self.asked.len());
        if self.is_json() && self.book.is_none() {
            assert!(self.names.iter().all(|name| self.asked_names.contains(name)));
        }
    }
}
