//! Scripts of several clients, and of settings that change under them as far as the settings let themselves be changed.
//!
//! A worker on a simulated kernel; its clients say what they like, and between that every setting that a reload can change is
//! changed, through the types and checks that an operator's values go through. Whatever comes, nothing panics or spins; what
//! the worker has acknowledged is what a client is subscribed to in the end, whatever was allowed meanwhile; and a refusal
//! for a limit's sake names the limit. Tests make scripts at random (`tests/reload.rs`), the fuzzer where they lead to new
//! code (`fuzz/`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    rc::Rc,
};

use serde_json::Value;

use super::*;
use crate::{
    config::{Config, Rate, RateLimit, Span},
    handover::{Arrival, Beginning, Listener},
    io::{
        sim::{Kernel, Peer, SimEdge, Socket},
        waker::Waker,
    },
    limits::{Bounds, Limits},
    log::{Dropped, Log},
    shared::Settings,
    tape::TapeSettings,
};

/// What clients subscribe to and publish on.
pub const NAMES: [&str; 6] = ["a", "a.b", "b", "a.*", ">", "*.b"];

/// Turns without sleep before it counts as a loop.
const TURNS_MAX: u32 = 5000;

#[derive(Clone, Debug)]
pub enum Step {
    /// A client connects, subscribed from the start to some of the names; one in so many bytes of room.
    Connect(u8, u16),
    /// A client says something.
    Say(u8, Said),
    /// A client ends.
    End(u8),
    /// These settings, as far as they are taken.
    Reload(Box<Wanted>),
    /// So many seconds pass.
    Pass(u8),
}

/// What a client says. Names are bits.
#[derive(Clone, Debug)]
pub enum Said {
    /// `sub`; the rate, if there is one, as the bits of a double.
    Sub { names: u8, rate: Option<u64>, latest: bool, snapshot: bool, from: Option<u64> },
    /// `unsub`
    Unsub(u8),
    /// `list`
    List,
    /// `ping`
    Ping,
    /// `pub` on a name
    Pub(u8, u8),
    /// `auth`, rightly or not
    Auth(bool),
    /// Any text.
    Text(String),
}

/// Settings, as wide as their plain types.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Rates, as the bits of doubles.
    pub rates: [u64; 2],
    /// Numbers: connections, of one address, subscriptions, sends a turn, slow list.
    pub counts: [u64; 5],
    /// Bytes: pending, lag.
    pub sizes: [u64; 2],
    /// Nanoseconds: flush interval, lag, handshake, heartbeat, idle, close, drain.
    pub times: [u64; 7],
    /// Token, anonymous publishing, origins.
    pub switches: [bool; 3],
}

impl Wanted {
    /// Takes these settings over into `config`, each that is taken beside those before.
    fn apply(&self, config: &mut Config) {
        let rate = |bits: u64| Rate::new(f64::from_bits(bits)).map_or(RateLimit::NONE, Into::into);
        let span = |ns: u64| Span::new(Duration::from_nanos(ns));
        let mut change = |set: &dyn Fn(&mut Config)| {
            let mut wanted = config.clone();
            set(&mut wanted);
            if wanted.check().is_ok() {
                *config = wanted;
            }
        };
        let [connections, by_address, subscriptions, sends, slow] = self.counts.map(|count| count as usize);
        let [flush, age, handshake, heartbeat, idle, close, drain] = self.times.map(span);
        change(&|c| [c.max_commands, c.max_publications] = self.rates.map(rate));
        change(&|c| c.max_connections = connections);
        change(&|c| c.max_connections_per_ip = Some(by_address));
        change(&|c| c.max_subscriptions = subscriptions);
        change(&|c| c.turn_sends = sends);
        change(&|c| c.slow_list = slow);
        change(&|c| c.max_pending = bytesize::ByteSize::b(self.sizes[0]));
        change(&|c| c.lag_limit = bytesize::ByteSize::b(self.sizes[1]));
        change(&|c| c.flush_interval = flush);
        change(&|c| c.lag_limit_age = age);
        change(&|c| c.handshake_timeout = handshake);
        change(&|c| c.heartbeat = heartbeat);
        change(&|c| c.idle_timeout = idle);
        change(&|c| c.close_timeout = close);
        change(&|c| c.drain_timeout = drain);
        change(&|c| c.publish_token = self.switches[0].then(|| "s3cret".parse().expect("a token")));
        change(&|c| c.anonymous_publish = self.switches[1]);
        let origins = if self.switches[2] { vec!["https://ours.example".to_owned()] } else { Vec::new() };
        change(&|c| c.allow_origin.clone_from(&origins));
    }
}

/// One worker and its clients.
pub struct Party {
    kernel: Rc<Kernel>,
    worker: Worker<SimEdge>,
    shared: Arc<Shared>,
    inbox: Inbox<Socket>,
    control: Receiver<Message<Socket>>,
    limits: Arc<Limits>,
    config: Config,
    guests: Vec<Guest>,
}

impl Party {
    /// A worker whose kernel's luck is `seed`.
    pub fn new(seed: u64) -> Party {
        let kernel = Kernel::new(seed);
        let config = Config::default();
        let tape = Tape::new(TapeSettings {
            retain: 64 * 1024,
            segment: 4096,
            message_max: 16 * 1024,
            topics_max: 4,
            value_bytes_max: 1000,
            epoch: 99,
        });
        let log = Log::new(config.log_limit, Dropped::default());
        let shared = Shared::new(Settings::new(&config), log, &tape, 1, Arc::new([]));
        let waker = Arc::new(Waker::new().expect("a descriptor"));
        let (inbox, receiver) = Inbox::new(64, Arc::clone(&waker));
        let (sender, control) = Inbox::new(64, Arc::clone(&waker));
        let worker = Worker::new(0, Arc::clone(&shared), tape, kernel.edge(waker), receiver, sender);
        let limits = Limits::new(&Bounds::of(&config), config.ipv6_prefix);
        Party { kernel, worker, shared, inbox, control, limits, config, guests: Vec::new() }
    }

    pub fn take(&mut self, step: Step) {
        match step {
            Step::Connect(names, room) => self.connect(names, room.into()),
            Step::Say(which, said) => {
                if let Some(guest) = self.pick(which) {
                    guest.say(&said);
                }
            }
            Step::End(which) => {
                if let Some(guest) = self.pick(which) {
                    guest.peer.end();
                    guest.gone = true;
                }
            }
            Step::Reload(wanted) => {
                wanted.apply(&mut self.config);
                self.reload();
            }
            Step::Pass(seconds) => self.pass(Duration::from_secs(seconds.into())),
        }
        self.settle();
    }

    /// Everything is allowed again: everybody has what was acknowledged, and then leaves. Returns how many were still there.
    pub fn end(mut self) -> usize {
        self.config = Config { max_commands: RateLimit::NONE, ..Config::default() };
        self.reload();
        self.settle();
        for guest in self.guests.iter_mut().filter(|guest| !guest.gone) {
            guest.say(&Said::List);
        }
        self.settle();
        let there = self.guests.iter().filter(|guest| !guest.gone).count();
        for guest in self.guests.iter_mut().filter(|guest| !guest.gone) {
            assert!(guest.asked.is_empty(), "answers are missing: {:?}", guest.asked);
            guest.peer.end();
        }
        // Longer than the timeouts, which may have been set before.
        self.settle();
        self.pass(Duration::from_secs(30));
        self.control.try_iter().for_each(drop);
        assert!(self.guests.iter().all(|guest| guest.peer.dropped()), "a connection is left");
        assert_eq!((self.shared.subscriptions.total(), self.limits.connections()), (0, 0));
        there
    }

    fn connect(&mut self, names: u8, room: usize) {
        let address = "127.0.0.1:1".parse().expect("an address");
        let now = Moment(self.kernel.now_ns());
        let Ok(permit) = self.limits.admit(Some(std::net::IpAddr::from([127, 0, 0, 1])), now) else { return };
        if self.guests.iter().filter(|guest| !guest.gone).count() >= 5 {
            return;
        }
        let (socket, peer) = self.kernel.connect(room);
        let handed = self.inbox.hand_over(Arrival {
            socket,
            peer: address,
            permit,
            by: Listener::Clear,
            beginning: Beginning::Awaited,
        });
        assert!(handed.is_ok());
        self.guests.push(Guest::new(peer, chosen(names)));
    }

    fn pick(&mut self, which: u8) -> Option<&mut Guest> {
        let mut there: Vec<&mut Guest> = self.guests.iter_mut().filter(|guest| !guest.gone).collect();
        (!there.is_empty()).then(|| there.swap_remove(usize::from(which) % there.len()))
    }

    fn reload(&mut self) {
        self.limits.set(&Bounds::of(&self.config));
        self.shared.settings.set(Settings::new(&self.config));
    }

    /// Takes turns until the worker sleeps and nobody has more to read; no time passes.
    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 2 {
            self.kernel.allow(Duration::ZERO);
            self.turn();
            let read = self.guests.iter_mut().filter_map(|guest| guest.read().then_some(())).count();
            quiet = if read > 0 { 0 } else { quiet + 1 };
        }
    }

    fn pass(&mut self, length: Duration) {
        let mut left = length;
        while !left.is_zero() {
            let step = left.min(Duration::from_millis(900));
            left -= step;
            self.settle();
            self.kernel.allow(step);
            self.turn();
            while self.kernel.pass_time() {
                self.turn();
            }
        }
    }

    /// Takes turns until the worker sleeps.
    fn turn(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.kernel.may_run(0) {
                return;
            }
            assert!(self.worker.turn());
            self.worker.invariants();
        }
        panic!("the worker spins");
    }
}

/// The names whose bits are set.
fn chosen(bits: u8) -> Vec<&'static str> {
    let is_set = |at: &usize| bits >> at & 1 == 1;
    (0..NAMES.len()).filter(is_set).map(|at| NAMES[at]).collect()
}

/// A client that remembers what was acknowledged.
struct Guest {
    peer: Peer,
    input: Vec<u8>,
    is_open: bool,
    /// It has ended, or was ended.
    gone: bool,
    /// It has said something of which nobody here knows what it means.
    wild: bool,
    names: BTreeSet<String>,
    asked: BTreeMap<u64, Said>,
    next: u64,
}

impl Guest {
    fn new(peer: Peer, names: Vec<&str>) -> Guest {
        let query =
            if names.is_empty() { String::new() } else { format!("?topics={}", names.join(",").replace('>', "%3E")) };
        peer.write(
            format!(
                "GET /ws{query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            .as_bytes(),
        );
        let (names, asked) = (BTreeSet::new(), BTreeMap::new());
        Guest { peer, input: Vec::new(), is_open: false, gone: false, wild: false, names, asked, next: 1 }
    }

    fn say(&mut self, said: &Said) {
        let id = self.next;
        self.next += 1;
        let mut text = format!(r#"{{"id":{id},"#);
        let list = |bits: u8| serde_json::to_string(&chosen(bits)).expect("names are text");
        let _ = match said {
            Said::Sub { names, rate, latest, snapshot, from } => {
                let mode = if *latest { "latest" } else { "all" };
                let _ = write!(text, r#""op":"sub","topics":{},"mode":"{mode}","snapshot":{snapshot}"#, list(*names));
                if let Some(rate) = rate {
                    let _ = write!(text, r#","rate":{:e}"#, f64::from_bits(*rate));
                }
                from.map_or(Ok(()), |seq| write!(text, r#","from":{{"a":["2r",{seq}]}}"#))
            }
            Said::Unsub(names) => write!(text, r#""op":"unsub","topics":{}"#, list(*names)),
            Said::List => write!(text, r#""op":"list""#),
            Said::Ping => write!(text, r#""op":"ping""#),
            Said::Pub(name, pad) => {
                let (name, pad) = (NAMES[usize::from(*name) % NAMES.len()], "x".repeat(usize::from(*pad) * 16));
                write!(text, r#""op":"pub","topic":"{name}","data":"{pad}""#)
            }
            Said::Auth(right) => write!(text, r#""op":"auth","token":"{}""#, if *right { "s3cret" } else { "no" }),
            Said::Text(any) => {
                self.wild = true;
                return self.send(any.get(..60_000).unwrap_or(any));
            }
        };
        text.push('}');
        self.asked.insert(id, said.clone());
        self.send(&text);
    }

    /// Sends a text of at most 64 KiB.
    fn send(&self, text: &str) {
        self.peer.write(&masked(0x81, text.as_bytes()));
    }

    /// Reads what is there; returns whether there was anything.
    fn read(&mut self) -> bool {
        let bytes = self.peer.read(usize::MAX);
        self.input.extend_from_slice(&bytes);
        if !self.is_open
            && let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let head: Vec<u8> = self.input.drain(..end + 4).collect();
            self.is_open = head.starts_with(b"HTTP/1.1 101 ");
            self.gone |= !self.is_open;
        }
        while self.is_open && !self.gone {
            let Some((opcode, payload)) = next_frame(&mut self.input) else { break };
            match opcode {
                1 => self.message(std::str::from_utf8(&payload).expect("text frames are text")),
                9 => self.peer.write(&[0x8a, 0x80, 0, 0, 0, 0]),
                8 => self.gone = true,
                _ => {}
            }
        }
        self.gone |= self.peer.at_end();
        if self.gone && !self.peer.dropped() {
            self.peer.end();
        }
        !bytes.is_empty()
    }

    fn message(&mut self, text: &str) {
        let message: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let id = message["id"].as_u64();
        let asked = id.and_then(|id| self.asked.remove(&id));
        match (message["type"].as_str().unwrap_or_default(), asked) {
            ("error", _) => {
                let limits = ["too_many", "too_many_subscriptions", "rate_limited"];
                let by_limit = limits.iter().any(|code| message["code"] == *code);
                assert!(!by_limit || text.contains("--max-"), "it doesn't say which limit: {text}");
            }
            ("ack", Some(Said::Unsub(names))) => self.names.retain(|name| !chosen(names).contains(&name.as_str())),
            // To a `sub`, to the address, or to what the fuzzer has made.
            ("ack", _) => {
                let topics = message["topics"].as_array().into_iter().flatten();
                self.names.extend(topics.filter_map(|topic| Some(topic["topic"].as_str()?.to_owned())));
            }
            ("subscriptions", Some(Said::List)) => {
                let topics = message["topics"].as_array().expect("a list").iter();
                let told: BTreeSet<_> =
                    topics.map(|topic| topic["topic"].as_str().expect("a name").to_owned()).collect();
                assert!(
                    self.wild || told == self.names,
                    "{told:?} {:?}: what was acknowledged is what there is",
                    self.names
                );
            }
            _ => {}
        }
    }
}

/// A frame as clients send them, with at most 64 KiB.
pub(super) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [7, 9, 0x5a, 0];
    let mut frame = vec![first];
    match payload.len() {
        len @ ..126 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&key);
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
    frame
}

/// Takes the first frame out of what the server has sent, if it is there whole: its opcode and payload.
pub(super) fn next_frame(input: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (header, len) = match **input {
        [_, len @ 0..126, ..] => (2, usize::from(len)),
        [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
        [_, 127, _, _, _, _, a, b, c, d, ..] => (10, u32::from_be_bytes([a, b, c, d]) as usize),
        _ => return None,
    };
    let frame = input.get(header..header + len)?.to_vec();
    let opcode = input[0] & 0xf;
    input.drain(..header + len);
    Some((opcode, frame))
}
