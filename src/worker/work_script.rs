//! Scripts of many clients that want to be expensive, and of one that doesn't, with an accountant beside the worker.
//!
//! The clients come from a few addresses, say whatever commands there are, with names and places to go on from by the dozen, change
//! their minds, send garbage, read nothing or a little at a time, and leave one by one or all at once. What each of them asks for
//! has a price by the plainest reckoning ([`Said::price`]: each name is held against each topic once, each byte is sent once, and so
//! on). The accountant holds the worker to it:
//!
//! - no step of a turn goes beyond its allotment ([`Worker::invariants`]);
//! - until all that was asked for is done, the worker spends no more than so many times its price, in no more turns than that takes;
//! - what a connection holds stays within `--max-pending` and an answer;
//! - nobody looks at more than a stretch of topics, or so many names, under a lock;
//! - an honest client has its answers, and what is published for it, after so many turns, whatever the others do.
//!
//! Tests make scripts at random (`tests/expensive.rs`), the fuzzer where they lead to new code (`fuzz/`).

use std::{collections::BTreeMap, fmt::Write, net::IpAddr, rc::Rc};

use serde_json::Value;

use super::{
    reload_script::{masked, next_frame},
    work::price,
    *,
};
use crate::{
    config::{Config, RateLimit},
    handover::{Arrival, Beginning, Listener},
    io::{
        sim::{Kernel, Peer, SimEdge, Socket},
        waker::Waker,
    },
    limits::{Bounds, Limits},
    log::{Dropped, Log},
    protocol::Payload,
    publish::{By, Door},
    shared::Settings,
    tape::{About, TapeSettings},
};

/// Topics that there are from the beginning: more than are looked at in one stretch.
const TOPICS: u64 = 400;

/// Names in one command at most.
const NAMES: u64 = 48;

/// Clients at once, beside the honest one.
const GUESTS: usize = 12;

/// Topics that are looked at under one hold of the tape's lock, and names and nodes under one of the subscriptions'.
const TOPICS_A_HOLD: usize = 256;
const NODES_A_HOLD: usize = 1024;

/// What the worker may spend for what was asked for by its price, and beside it in each turn: the reckoning is plain.
const SPENT_TIMES: u64 = 8;
const SPENT_A_TURN: u64 = 4000;

/// Turns for a turn's work of what was asked for by its price, and beside it: a simulated socket takes and gives a few bytes at a
/// time, and holds back what is ready.
const TURNS_TIMES: u64 = 40;
const TURNS_BESIDE: u64 = 1000;

/// Turns after which the honest client has what it waits for. With no hostile clients it is up to twenty, by the same bad luck.
const HONEST_TURNS: u64 = 60;

/// Rounds in which it asks again and again, while all that was asked for is done.
const ASKS: u32 = 60;

/// An answer that is made as a whole: an `ack` of [`NAMES`] names, a message, a list.
const ANSWER_MAX: usize = 16 * 1024;

/// What a script does next.
#[derive(Clone, Debug)]
pub enum Step {
    /// A client comes by one of the doors, from one of the addresses, with so much room in its socket.
    Come { door: u8, address: u8, room: u16 },
    /// One says something.
    Say(u8, Said),
    /// One reads so many bytes a turn from now on.
    Pace(u8, u16),
    /// The server publishes on a topic.
    Publish { topic: u16, len: u16 },
    /// One leaves, in one of the ways.
    Leave(u8, u8),
    /// All leave.
    AllLeave,
    /// The worker takes so many turns.
    Turns(u8),
    /// All that was asked for is done.
    Settle,
    /// So many seconds pass.
    Pass(u8),
}

/// What one says.
#[derive(Clone, Debug)]
pub enum Said {
    /// `sub` to so many names of a kind from one on; a mode or a rate; the places to go on from.
    Sub { names: Names, mode: u8, snapshot: bool, from: Option<u8> },
    /// `unsub`
    Unsub(Names),
    /// `list`
    List,
    /// `ping`
    Ping,
    /// A ping of the protocol's.
    ControlPing(u8),
    /// `pub` on a topic, so many bytes.
    Pub(u16, u16),
    /// A close frame; it may go on to speak.
    Close,
    /// So many empty continuations.
    Continuations(u8),
    /// Bytes that mean nothing.
    Garbage(u8, u8),
    /// The beginning of a frame, byte by byte from then on.
    Half(u8),
}

/// So many names of a kind, from a number on.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    kind: u8,
    first: u16,
    count: u8,
}

impl Names {
    fn all(self) -> Vec<String> {
        let name = |n: u64| match self.kind % 7 {
            0 | 1 => format!("t.{}", n % TOPICS),
            2 => format!("none.{n}"),
            3 => format!("*.{n}"),
            4 => ["t.*", "*.*", "t.>", "*.>"][n as usize % 4].to_owned(),
            5 => format!("*.{n}.*.>"),
            _ => ">".to_owned(),
        };
        (0..u64::from(self.count) % NAMES + 1).map(|n| name(u64::from(self.first) + n)).collect()
    }

    fn json(self) -> String {
        serde_json::to_string(&self.all()).expect("names are text")
    }
}

impl Step {
    /// Any step, by a source of numbers below one.
    pub fn any<E>(pick: &mut impl FnMut(u64) -> Result<u64, E>) -> Result<Step, E> {
        let mut byte = || pick(256).map(|n| n as u8);
        Ok(match byte()? % 24 {
            0..4 => Step::Come { door: byte()?, address: byte()?, room: pick(1 << 16)? as u16 },
            4..15 => Step::Say(byte()?, Said::any(pick)?),
            15 => Step::Pace(byte()?, [0, 0, 40, u16::MAX][pick(4)? as usize]),
            16..19 => Step::Publish { topic: pick(TOPICS)? as u16, len: pick(600)? as u16 },
            19 => Step::Leave(byte()?, byte()?),
            20 => match byte()? % 8 {
                0 => Step::AllLeave,
                _ => Step::Turns(byte()? % 32),
            },
            21 => Step::Pass(byte()? % 20),
            22 => Step::Settle,
            _ => Step::Turns(byte()? % 8),
        })
    }
}

impl Said {
    fn any<E>(pick: &mut impl FnMut(u64) -> Result<u64, E>) -> Result<Said, E> {
        let mut names = || Ok(Names { kind: pick(7)? as u8, first: pick(1000)? as u16, count: pick(NAMES)? as u8 });
        let named = names()?;
        Ok(match pick(20)? {
            0..8 => Said::Sub {
                names: named,
                mode: pick(5)? as u8,
                snapshot: pick(2)? == 0,
                from: if pick(4)? == 0 { Some(pick(4)? as u8) } else { None },
            },
            8..10 => Said::Unsub(named),
            10 => Said::List,
            11 => Said::Ping,
            12 => Said::ControlPing(pick(126)? as u8),
            13..16 => Said::Pub(pick(TOPICS)? as u16, pick(2000)? as u16),
            16 => Said::Close,
            17 => Said::Continuations(pick(256)? as u8),
            18 => Said::Garbage(pick(256)? as u8, pick(256)? as u8),
            _ => Said::Half(pick(256)? as u8),
        })
    }

    /// What it may cost, in the units of [`price`], by the plainest reckoning; `bytes` is how long it is, `clients` how many there
    /// are that may be sent something for it.
    fn price(&self, bytes: usize, clients: u64) -> u64 {
        let read = price::lines(bytes) + 3 * price::SEND;
        // A change of subscription looks at all topics, once for each of its names, and may be sent the value of each.
        let change =
            |names: u64| names * (price::NAME + TOPICS * price::MATCH) + TOPICS * 6 * price::LINE + price::SEND;
        read + match self {
            Said::Sub { names, from, .. } => {
                let names = names.all().len() as u64;
                // What was on all topics, and is held by the tape.
                change(names) + from.map_or(0, |_| names * TOPICS * (price::LOOK + 10 * price::LINE))
            }
            Said::Unsub(names) => change(names.all().len() as u64),
            Said::List => price::COMMAND + 1024 * price::LINE,
            Said::Ping | Said::ControlPing(_) | Said::Close => price::COMMAND,
            Said::Pub(..) => published(bytes, clients),
            Said::Continuations(count) => u64::from(*count) * 10 * price::FRAME,
            Said::Garbage(_, count) => u64::from(*count) * price::FRAME,
            Said::Half(_) => 256 * price::SEND,
        }
    }
}

/// The price of a publication: it is appended, looked at for each client, and sent to each.
fn published(bytes: usize, clients: u64) -> u64 {
    price::PUBLICATION + price::lines(bytes) + clients * (price::SEND + NAMES * price::MATCH + price::lines(bytes))
}

/// One worker, its clients, and the accountant.
pub struct Market {
    kernel: Rc<Kernel>,
    worker: Worker<SimEdge>,
    shared: Arc<Shared>,
    tape: Tape,
    inbox: Inbox<Socket>,
    control: Receiver<Message<Socket>>,
    limits: Arc<Limits>,
    config: Config,
    honest: Honest,
    guests: Vec<Guest>,
    books: Books,
}

/// The accountant's.
#[derive(Debug, Default)]
struct Books {
    /// What was asked for, by its price.
    asked: u64,
    /// What the worker has spent, in how many turns.
    spent: u64,
    turns: u64,
    /// Rounds in which some client read, wrote or was an honest one that waits, and moments at which something was due: each may take the worker a turn.
    moved: u64,
}

impl Market {
    /// A worker whose kernel's luck is `seed`, and what a turn of it may cost.
    pub fn new(seed: u64, turn_work: u64, turn_sends: usize) -> Market {
        let kernel = Kernel::new(seed);
        let config = Config {
            max_commands: RateLimit::NONE,
            max_commands_per_ip: RateLimit::NONE,
            max_connects_per_ip: RateLimit::NONE,
            max_pending: bytesize::ByteSize::kib(48),
            turn_work,
            turn_sends,
            ..Config::default()
        };
        let tape = Tape::new(TapeSettings {
            retain: 256 * 1024,
            segment: 16 * 1024,
            message_max: 16 * 1024,
            topics_max: 2 * TOPICS as usize,
            value_bytes_max: 1 << 20,
            epoch: 99,
        });
        let log = Log::new(config.log_limit, Dropped::default());
        let waker = Arc::new(Waker::new().expect("a descriptor"));
        let shared = Shared::new(Settings::new(&config), log, &tape, 1, Arc::new([Arc::clone(&waker)]));
        let (inbox, receiver) = Inbox::new(64, Arc::clone(&waker));
        let (sender, control) = Inbox::new(64, Arc::clone(&waker));
        let worker = Worker::new(0, Arc::clone(&shared), tape.clone(), kernel.edge(waker), receiver, sender);
        let limits = Limits::new(&Bounds::of(&config), config.ipv6_prefix);
        let (books, guests) = Default::default();
        let honest = Honest::new(&kernel);
        let mut market =
            Market { kernel, worker, shared, tape, inbox, control, limits, config, honest: honest.0, guests, books };
        (0..TOPICS as u16).for_each(|topic| market.publish(&format!("t.{topic}"), 20));
        assert!(market.arrive(honest.1, [127, 0, 0, 1].into()));
        market.settle();
        market
    }

    pub fn take(&mut self, step: Step) {
        match step {
            Step::Come { door, address, room } => self.come(door, address, room.into()),
            Step::Say(which, said) => {
                let clients = self.guests.len() as u64 + 1;
                if let Some(guest) = self.pick(which) {
                    let bytes = guest.say(&said);
                    self.books.asked += said.price(bytes, clients);
                }
            }
            Step::Pace(which, bytes) => {
                if let Some(guest) = self.pick(which) {
                    guest.pace = bytes.into();
                }
            }
            Step::Publish { topic, len } => {
                self.books.asked += published(len.into(), self.guests.len() as u64 + 1);
                self.publish(&format!("t.{topic}"), len.into());
            }
            Step::Leave(which, how) => {
                // Its subscription is taken out of all tables.
                self.books.asked += 1024 * price::NAME;
                if let Some(guest) = self.pick(which) {
                    guest.leave(how);
                }
            }
            Step::AllLeave => self.all_leave(),
            Step::Turns(count) => (0..count).for_each(|_| self.round(true)),
            Step::Settle => self.settle(),
            Step::Pass(seconds) => self.pass(Duration::from_secs(seconds.into())),
        }
    }

    /// Everybody reads again and has what was asked for; then all leave, and nothing is left.
    pub fn end(mut self) {
        self.guests.iter_mut().for_each(|guest| guest.pace = usize::MAX);
        self.settle();
        for guest in self.guests.iter().filter(|guest| !guest.is_gone() && !guest.is_wild) {
            assert!(guest.asked.is_empty(), "answers are missing: {:?}", guest.asked);
        }
        self.all_leave();
        self.honest.leave();
        self.settle();
        self.pass(Duration::from_secs(40));
        self.control.try_iter().for_each(drop);
        assert!(self.guests.iter().all(|guest| guest.peer.dropped()), "a connection is left");
        assert_eq!((self.shared.subscriptions.total(), self.limits.connections()), (0, 0));
        assert_eq!(self.worker.connections.len(), 0);
    }

    fn come(&mut self, door: u8, address: u8, room: usize) {
        self.control.try_iter().for_each(drop);
        self.guests.retain(|guest| !guest.peer.dropped());
        if self.guests.len() >= GUESTS {
            return;
        }
        let (socket, peer) = self.kernel.connect(room);
        self.books.asked += price::lines(1024) + 20 * price::SEND;
        if self.arrive(socket, [127, 0, 0, 2 + address % 3].into()) {
            self.guests.push(Guest::new(peer, door));
        }
    }

    fn arrive(&mut self, socket: Socket, from: IpAddr) -> bool {
        let now = Moment(self.kernel.now_ns());
        let Ok(permit) = self.limits.admit(Some(from), now) else { return false };
        let (peer, by, beginning) = ((from, 1).into(), Listener::Clear, Beginning::Awaited);
        self.inbox.hand_over(Arrival { socket, peer, permit, by, beginning }).is_ok()
    }

    fn publish(&mut self, topic: &str, len: usize) {
        let about = About { ts: self.kernel.now_ns() / 1000, ..About::default() };
        let text = "x".repeat(len);
        Door::new(self.tape.clone(), 128)
            .publish(By::SERVER, topic, Payload::Text(&text), about)
            .expect("there is room");
        self.shared.publisher.wake();
    }

    fn pick(&mut self, which: u8) -> Option<&mut Guest> {
        let mut there: Vec<&mut Guest> = self.guests.iter_mut().filter(|guest| !guest.is_gone()).collect();
        (!there.is_empty()).then(|| there.swap_remove(usize::from(which) % there.len()))
    }

    fn all_leave(&mut self) {
        self.books.asked += self.guests.len() as u64 * 1024 * price::NAME;
        for (how, guest) in (0..).zip(self.guests.iter_mut().filter(|guest| !guest.is_gone())) {
            guest.leave(how);
        }
    }

    /// Rounds until nothing more happens: the worker sleeps, and whoever reads has read. No time passes.
    fn settle(&mut self) {
        let progress = |market: &Market| (market.kernel.progress(), market.books.turns);
        let (mut rounds, mut quiet) = (0, 0);
        while quiet < 3 {
            let before = progress(self);
            // The honest one goes on to ask for as long as a while takes, or it would never be quiet.
            self.round(rounds < ASKS);
            rounds += 1;
            quiet = if progress(self) == before { quiet + 1 } else { 0 };
        }
        assert!(self.honest.has_all(), "the honest client still waits, and the worker sleeps");
    }

    fn pass(&mut self, length: Duration) {
        let mut left = length;
        while !left.is_zero() {
            let step = left.min(Duration::from_millis(900));
            left -= step;
            self.settle();
            // Heartbeats, pings and ticks are asked for by nobody.
            self.books.asked += (self.guests.len() as u64 + 1) * (4 * price::SEND + TOPICS * 10 * price::LINE);
            self.kernel.allow(step);
            self.turn();
            while self.kernel.pass_time() {
                self.books.moved += 1;
                self.turn();
            }
        }
        self.settle();
    }

    /// A turn of the worker, if there is one to take, and then everybody reads.
    fn round(&mut self, asks: bool) {
        self.kernel.allow(Duration::ZERO);
        if asks && self.honest.is_idle() {
            self.honest.ask(self.books.turns);
            self.publish("honest", 10);
            self.books.asked += published(10, 1) + price::COMMAND + 8 * price::SEND;
        }
        self.turn();
        self.honest.read(self.books.turns);
        // What it asked for has its price; that it takes little at a time has one of its own.
        let moved = self.guests.iter_mut().filter_map(|guest| guest.read().then_some(())).count() as u64;
        self.books.asked += moved * price::SEND;
        self.books.moved += u64::from(moved > 0 || !self.honest.has_all());
    }

    /// One turn, and a look at the books.
    fn turn(&mut self) {
        if !self.kernel.may_run(0) {
            return;
        }
        assert!(self.worker.turn());
        self.worker.invariants();
        let Books { asked, spent, turns, .. } = &mut self.books;
        *spent += self.worker.ground.work.spent().iter().sum::<u64>();
        *turns += 1;
        assert!(*spent <= SPENT_TIMES * *asked + SPENT_A_TURN * *turns, "{:?}", self.books);
        let owed = TURNS_TIMES * self.books.asked / self.config.turn_work + 2 * self.books.moved + TURNS_BESIDE;
        assert!(self.books.turns <= owed, "of {owed} turns {:?}", self.books);
        let pending_max = self.config.max_pending.as_u64() as usize;
        for (token, connection) in self.worker.connections.iter() {
            let held = held(&self.worker, token, connection);
            assert!(held <= pending_max + ANSWER_MAX, "a connection holds {held} bytes");
        }
        let holds = (self.tape.longest_hold(), self.shared.subscriptions.longest_hold());
        assert!(holds.0 <= TOPICS_A_HOLD && holds.1 <= NODES_A_HOLD, "{holds:?} topics and nodes under a lock");
    }
}

/// Answers that wait for a connection, and its request.
fn held(worker: &Worker<SimEdge>, token: crate::io::Token, connection: &connection::Connection<Socket>) -> usize {
    connection.out.held() + worker.cursors.staged_of(token, connection) + connection.request.len()
}

/// The client that does nothing wrong: it asks for a sign of life, and waits for what is published for it.
struct Honest {
    peer: Peer,
    input: Vec<u8>,
    is_open: bool,
    /// The turns in which it asked for what it still waits for: a pong, an update.
    waits: [Option<u64>; 2],
    /// The most turns that it has waited.
    waited: u64,
}

impl Honest {
    fn new(kernel: &Rc<Kernel>) -> (Honest, Socket) {
        let (socket, peer) = kernel.connect(1 << 20);
        peer.write(&upgrade("/ws?topics=honest"));
        (Honest { peer, input: Vec::new(), is_open: false, waits: [None; 2], waited: 0 }, socket)
    }

    /// Whether it may ask.
    fn is_idle(&self) -> bool {
        self.is_open && self.has_all()
    }

    fn leave(&mut self) {
        self.peer.end();
        self.is_open = false;
    }

    fn has_all(&self) -> bool {
        self.waits == [None; 2]
    }

    fn ask(&mut self, turns: u64) {
        self.peer.write(&masked(0x81, br#"{"op":"ping"}"#));
        self.waits = [Some(turns); 2];
    }

    fn read(&mut self, turns: u64) {
        self.input.extend(self.peer.read(usize::MAX));
        if !self.is_open {
            let end = self.input.windows(4).position(|four| four == b"\r\n\r\n");
            let Some(end) = end else { return };
            assert!(self.input.starts_with(b"HTTP/1.1 101 "));
            self.input.drain(..end + 4);
            self.is_open = true;
        }
        while let Some((opcode, payload)) = next_frame(&mut self.input) {
            let text = String::from_utf8_lossy(&payload);
            let which = match opcode {
                8 => panic!("the honest client was closed: {text:?}"),
                9 => {
                    self.peer.write(&masked(0x8a, &payload));
                    continue;
                }
                _ if text.contains(r#""type":"pong""#) => 0,
                _ if text.contains(r#""type":"update""#) => 1,
                _ => continue,
            };
            self.waits[which] = None;
        }
        for since in self.waits.iter().flatten() {
            self.waited = self.waited.max(turns - since);
        }
        assert!(self.waited <= HONEST_TURNS, "the honest client waits for {} turns", self.waited);
    }
}

/// One of the others.
struct Guest {
    peer: Peer,
    input: Vec<u8>,
    door: u8,
    is_open: bool,
    /// Bytes that it reads in a turn.
    pace: usize,
    has_left: bool,
    was_closed: bool,
    /// It has sent what nobody here knows the answer to.
    is_wild: bool,
    /// Bytes of a frame that it sends one by one.
    half: Vec<u8>,
    asked: BTreeMap<u64, Said>,
    next: u64,
}

/// Where one may come in, and whether frames are what is spoken there.
const DOORS: [(&str, bool); 8] = [
    ("/ws", true),
    ("/ws", true),
    ("/ws", true),
    ("/ws?topics=%3E", true),
    ("/ws?topics=t.1,t.2,none", true),
    ("/raw/t.3", false),
    ("/sse?topics=t.%3E", false),
    ("/sse?topics=t.4&mode=latest&rate=100", false),
];

fn upgrade(path: &str) -> Vec<u8> {
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    head.into_bytes()
}

impl Guest {
    fn new(peer: Peer, door: u8) -> Guest {
        let (path, _) = DOORS[usize::from(door) % DOORS.len()];
        peer.write(&if path.starts_with("/sse") {
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
        } else {
            upgrade(path)
        });
        let (input, half, asked) = Default::default();
        let (is_open, has_left, was_closed, is_wild) = (false, false, false, false);
        Guest { peer, input, door, is_open, pace: usize::MAX, has_left, was_closed, is_wild, half, asked, next: 1 }
    }

    fn is_gone(&self) -> bool {
        self.has_left || self.was_closed
    }

    fn speaks_json(&self) -> bool {
        DOORS[usize::from(self.door) % DOORS.len()].1
    }

    /// Says it; returns how many bytes that took.
    fn say(&mut self, said: &Said) -> usize {
        if !self.half.is_empty() {
            // In the middle of a frame anything is a part of it.
            self.is_wild = true;
        }
        let bytes = match said {
            Said::ControlPing(len) => masked(0x89, &vec![b'p'; usize::from(*len)]),
            Said::Close => {
                self.is_wild = true;
                masked(0x88, &1000_u16.to_be_bytes())
            }
            Said::Continuations(count) => {
                self.is_wild = true;
                let mut frames = masked(0x01, b"x");
                (0..*count).for_each(|_| frames.extend(masked(0x00, b"")));
                frames
            }
            Said::Garbage(byte, count) => {
                self.is_wild = true;
                vec![*byte; usize::from(*count)]
            }
            Said::Half(len) => {
                self.is_wild = true;
                self.half.extend(masked(0x81, &vec![b' '; usize::from(*len)]).into_iter().rev());
                Vec::new()
            }
            _ if !self.speaks_json() => {
                self.is_wild = true;
                masked(0x81, b"\"a message\"")
            }
            said => masked(0x81, self.command(said).as_bytes()),
        };
        self.peer.write(&bytes);
        bytes.len()
    }

    fn command(&mut self, said: &Said) -> String {
        let id = self.next;
        self.next += 1;
        self.asked.insert(id, said.clone());
        let mut text = format!(r#"{{"id":{id},"#);
        let _ = match said {
            Said::Sub { names, mode, snapshot, from } => {
                let _ = write!(text, r#""op":"sub","topics":{},"snapshot":{snapshot},"#, names.json());
                let way = [r#""mode":"all""#, r#""mode":"all""#, r#""mode":"latest""#, r#""rate":1000"#, r#""rate":7"#];
                text.push_str(way[usize::from(*mode) % way.len()]);
                from.map_or(Ok(()), |seq| {
                    let places = names.all().into_iter().map(|name| (name, ("2r", u64::from(seq))));
                    let places: BTreeMap<_, _> = places.collect();
                    write!(text, r#","from":{}"#, serde_json::to_string(&places).expect("names are text"))
                })
            }
            Said::Unsub(names) => write!(text, r#""op":"unsub","topics":{}"#, names.json()),
            Said::List => write!(text, r#""op":"list""#),
            Said::Pub(topic, len) => {
                write!(text, r#""op":"pub","topic":"t.{topic}","data":"{}""#, "x".repeat((*len).into()))
            }
            _ => write!(text, r#""op":"ping""#),
        };
        text.push('}');
        text
    }

    fn leave(&mut self, how: u8) {
        match how % 3 {
            0 => self.peer.end(),
            1 => self.peer.reset(),
            _ => {
                self.peer.write(&masked(0x88, &1001_u16.to_be_bytes()));
                self.peer.end();
            }
        }
        self.has_left = true;
    }

    /// Reads as much as it wants of what is there, and goes on with what it has begun; returns whether there was anything.
    fn read(&mut self) -> bool {
        let byte = self.half.pop();
        self.peer.write(byte.as_slice());
        let bytes = self.peer.read(self.pace);
        self.input.extend_from_slice(&bytes);
        if !self.is_open
            && let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let head: Vec<u8> = self.input.drain(..end + 4).collect();
            self.is_open = true;
            self.was_closed |= !head.starts_with(b"HTTP/1.1 101 ") && !head.starts_with(b"HTTP/1.1 200 ");
        }
        if !self.speaks_json() {
            self.input.clear();
        }
        while self.is_open && !self.is_gone() {
            let Some((opcode, payload)) = next_frame(&mut self.input) else { break };
            match opcode {
                1 => self.answer(std::str::from_utf8(&payload).expect("text frames are text")),
                9 => self.peer.write(&masked(0x8a, &payload)),
                8 => self.was_closed = true,
                _ => {}
            }
        }
        self.was_closed |= self.peer.at_end();
        if self.was_closed && !self.peer.dropped() {
            self.peer.end();
        }
        byte.is_some() || !bytes.is_empty()
    }

    fn answer(&mut self, text: &str) {
        let message: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        message["id"].as_u64().and_then(|id| self.asked.remove(&id));
    }
}
