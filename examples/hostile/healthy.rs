//! The healthy party: a publisher, subscribers, and everybody else who has a right not to notice an attack.
//!
//! Each of them measures how long it waits; a delivery from the moment at which its publication was planned, so that a
//! publisher that is held up doesn't hide it. What fails is kept with its reason.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use miniz_oxide::{
    DataFormat, MZError, MZFlush, MZStatus,
    inflate::stream::{InflateState, inflate},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::{
    HEALTHY, Result,
    attacks::{
        tls::Secure,
        wire::{self, command, connect, get, read_frame, status, upgrade, upgrade_with},
    },
    server::Server,
};

/// Publications a second: a market that nobody would call busy.
const PUBLISH_EVERY: Duration = Duration::from_millis(5);

/// Topics that it publishes on, in turn.
const TOPICS: usize = 4;

/// Payload beside the time, longer and shorter by turns: a last value that grows needs room.
const PAD: [usize; 2] = [20, 200];

/// What a connection subscribes by, and how many do. Streams of events and `/ws` get every topic, `/raw` the first one.
const SUBSCRIBERS: &[(&str, usize)] = &[
    ("/ws?topics=healthy.p.*", 6),
    ("/raw/healthy.p.0", 6),
    ("/sse?topics=healthy.p.*", 2),
    ("latest", 4),
    ("compressed", 4),
];

/// What those offer who have publications compressed.
const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// How often each of the others comes.
const PROBE_EVERY: Duration = Duration::from_millis(40);
const NEWCOMER_EVERY: Duration = Duration::from_millis(80);
const POST_EVERY: Duration = Duration::from_millis(100);
const COMMAND_EVERY: Duration = Duration::from_millis(20);

/// How often a subscriber shows that it is alive: more than twice within the shortest timeout that an attack is made with.
const SHOWN_EVERY: Duration = Duration::from_secs(1);

/// How long a delivery may be overdue before it counts as lost.
const GRACE: Duration = Duration::from_secs(4);

/// Reasons of failures that are kept of each kind.
const REASONS: usize = 3;

/// How one kind of them fared.
#[derive(Default)]
pub struct Waits {
    pub all: Vec<Duration>,
    pub failed: usize,
    pub reasons: Vec<String>,
}

impl Waits {
    fn add(&mut self, waited: io::Result<Duration>) {
        match waited {
            Ok(waited) => self.all.push(waited),
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn fail(&mut self, reason: String) {
        self.failed += 1;
        if self.reasons.len() < REASONS && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    pub fn worst(&self) -> Duration {
        self.all.iter().max().copied().unwrap_or_default()
    }

    /// Raw figures, in milliseconds.
    pub fn json(&self) -> Value {
        let mut sorted = self.all.clone();
        sorted.sort_unstable();
        let at = |share: f64| {
            let n = (sorted.len() as f64 * share) as usize;
            sorted.get(n.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default().as_secs_f64() * 1e3
        };
        json!({
            "count": sorted.len(), "failed": self.failed, "reasons": self.reasons,
            "p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999), "worst_ms": at(1.0),
        })
    }
}

/// What all of them share while they run.
pub struct Healthy {
    server: SocketAddr,
    admin: Option<SocketAddr>,
    secure: Option<Secure>,
    /// Planned times count from here.
    origin: Instant,
    stop: AtomicBool,
    publishing: AtomicBool,
    /// Publications by topic.
    published: [AtomicUsize; TOPICS],
    waits: Mutex<BTreeMap<&'static str, Waits>>,
}

impl Healthy {
    pub fn new(server: &Server) -> Healthy {
        Healthy {
            server: server.address,
            admin: server.admin,
            secure: server.secure.clone(),
            origin: Instant::now(),
            stop: AtomicBool::new(false),
            publishing: AtomicBool::new(true),
            published: std::array::from_fn(|_| AtomicUsize::new(0)),
            waits: Mutex::default(),
        }
    }

    /// Starts all of them in `scope`, and returns once every subscriber is there.
    pub fn start<'s, 'e>(&'e self, scope: &'s thread::Scope<'s, 'e>) -> Result<()> {
        let subscribers = self.subscribe()?;
        let still = json!("before the attack");
        expect(post(self.server, "healthy.still", &still.to_string())?, 200)?;
        scope.spawn(|| self.receive(subscribers));
        scope.spawn(|| self.keep("publications", || self.publish()));
        scope.spawn(|| self.keep("commands", || self.ask()));
        scope
            .spawn(|| self.now_and_then("probes", PROBE_EVERY, |n| probe(self.server, ["/healthz", "/readyz"][n % 2])));
        scope.spawn(|| self.now_and_then("newcomers", NEWCOMER_EVERY, |n| newcomer(self.server, n)));
        scope.spawn(|| {
            self.now_and_then("posts", POST_EVERY, |_| expect(post(self.server, "healthy.post", "1")?, 200));
        });
        if let Some(secure) = &self.secure {
            scope.spawn(move || self.keep("tls-commands", || self.ask_securely(secure)));
            let newcomer = |_: usize| secure_newcomer(secure);
            scope.spawn(move || self.now_and_then("tls-newcomers", NEWCOMER_EVERY, newcomer));
        }
        if let Some(admin) = self.admin {
            scope.spawn(move || {
                self.now_and_then("admin", PROBE_EVERY, |n| probe(admin, ["/healthz", "/metrics"][n % 2]))
            });
        }
        Ok(())
    }

    /// Everybody stops but the subscribers, who wait for what is on its way.
    pub fn stop_publishing(&self) {
        self.publishing.store(false, Ordering::Relaxed);
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Forgets what was measured so far.
    pub fn begin(&self) {
        self.waits.lock().unwrap().clear();
    }

    /// What was measured, by kind.
    pub fn take(&self) -> BTreeMap<&'static str, Waits> {
        std::mem::take(&mut *self.waits.lock().unwrap())
    }

    fn note(&self, kind: &'static str, waited: io::Result<Duration>) {
        self.waits.lock().unwrap().entry(kind).or_default().add(waited);
    }

    fn goes_on(&self) -> bool {
        self.publishing.load(Ordering::Relaxed)
    }

    /// Runs what should last until the end; if it ends before, that is a failure.
    fn keep(&self, kind: &'static str, run: impl Fn() -> io::Result<()>) {
        while self.goes_on() {
            if let Err(error) = run() {
                self.note(kind, Err(error));
                thread::sleep(PROBE_EVERY);
            }
        }
    }

    /// Does something at planned moments, or as soon as the last one is done.
    fn now_and_then(&self, kind: &'static str, every: Duration, run: impl Fn(usize) -> io::Result<()>) {
        for n in 0.. {
            if !self.goes_on() {
                return;
            }
            let begun = Instant::now();
            let done = run(n);
            self.note(kind, done.map(|()| begun.elapsed()));
            thread::sleep(every.saturating_sub(begun.elapsed()));
        }
    }

    /// Publishes at its pace, and makes up for what it was kept from.
    fn publish(&self) -> io::Result<()> {
        let mut stream = connect(self.server, HEALTHY)?;
        upgrade(&mut stream, "/ws")?;
        let begun = Instant::now();
        for n in 0.. {
            let planned = begun + PUBLISH_EVERY * n;
            thread::sleep(planned.saturating_duration_since(Instant::now()));
            if !self.goes_on() {
                break;
            }
            let topic = n as usize % TOPICS;
            let (at, pad) = ((planned - self.origin).as_nanos(), "x".repeat(PAD[(n as usize / TOPICS) % PAD.len()]));
            let publication =
                format!(r#"{{"op":"pub","topic":"healthy.p.{topic}","data":{{"at":{at},"pad":"{pad}"}}}}"#);
            stream.write_all(&command(&publication))?;
            self.published[topic].fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Asks for a sign of life on a connection that stays.
    fn ask(&self) -> io::Result<()> {
        let mut stream = connect(self.server, HEALTHY)?;
        upgrade(&mut stream, "/ws")?;
        while self.goes_on() {
            let begun = Instant::now();
            stream.write_all(&command(r#"{"op":"ping"}"#))?;
            until(&mut stream, "\"pong\"")?;
            self.note("commands", Ok(begun.elapsed()));
            thread::sleep(COMMAND_EVERY);
        }
        Ok(())
    }

    /// The same over TLS, by somebody who is sent everything as well.
    fn ask_securely(&self, secure: &Secure) -> io::Result<()> {
        let mut stream = secure.connect(HEALTHY)?;
        upgrade(&mut stream, "/ws?topics=healthy.p.*")?;
        while self.goes_on() {
            let begun = Instant::now();
            stream.write_all(&command(r#"{"op":"ping"}"#))?;
            until(&mut stream, "\"pong\"")?;
            self.note("tls-commands", Ok(begun.elapsed()));
            thread::sleep(COMMAND_EVERY);
        }
        Ok(())
    }

    fn subscribe(&self) -> Result<Vec<Subscriber>> {
        let mut subscribers = Vec::new();
        for (path, count) in SUBSCRIBERS {
            for _ in 0..*count {
                let mut stream = connect(self.server, HEALTHY)?;
                match *path {
                    "latest" => {
                        upgrade(&mut stream, "/ws")?;
                        stream.write_all(&command(r#"{"op":"sub","topics":["healthy.p.*"],"mode":"latest"}"#))?;
                    }
                    "compressed" => upgrade_with(&mut stream, "/ws?topics=healthy.p.*", OFFER)?,
                    sse if sse.starts_with("/sse") => {
                        stream.write_all(&get(sse, ""))?;
                        status(&mut stream)?;
                    }
                    websocket => upgrade(&mut stream, websocket)?,
                }
                stream.set_nonblocking(true)?;
                let topics = if path.starts_with("/raw") { 1 } else { TOPICS };
                let shown = Instant::now();
                subscribers.push(Subscriber {
                    stream: Some(stream),
                    path,
                    topics,
                    received: 0,
                    packed: (*path == "compressed").then(Packed::default),
                    rest: Vec::new(),
                    shown,
                });
            }
        }
        // Not all of them are told when their subscription is there.
        thread::sleep(Duration::from_millis(100));
        Ok(subscribers)
    }

    /// Receives until everything has come that was published, or until it is overdue.
    fn receive(&self, mut subscribers: Vec<Subscriber>) {
        let mut buffer = vec![0; 256 * 1024];
        let mut overdue = None;
        loop {
            wait(&subscribers);
            for subscriber in &mut subscribers {
                subscriber.show_alive();
                let received = subscriber.read(&mut buffer);
                let now = self.origin.elapsed();
                let mut waits = self.waits.lock().unwrap();
                let waits = waits.entry("deliveries").or_default();
                match received {
                    Ok(planned) => planned.for_each(|planned| waits.add(Ok(now.saturating_sub(planned)))),
                    Err(error) => {
                        subscriber.stream = None;
                        waits.fail(format!("{}: {error}", subscriber.path));
                    }
                }
            }
            if !self.goes_on() {
                let since = *overdue.get_or_insert_with(Instant::now);
                let missing = |subscriber: &Subscriber| self.expected(subscriber).saturating_sub(subscriber.received);
                let lost: usize = subscribers.iter().map(missing).sum();
                if lost == 0 || since.elapsed() > GRACE {
                    for subscriber in subscribers.iter().filter(|subscriber| missing(subscriber) > 0) {
                        let text = format!("{}: {} publications never came", subscriber.path, missing(subscriber));
                        self.waits.lock().unwrap().entry("deliveries").or_default().fail(text);
                    }
                    break;
                }
            }
        }
        // They stay: the figures are compared with those before the attack.
        while !self.stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn expected(&self, subscriber: &Subscriber) -> usize {
        self.published[..subscriber.topics].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// One that receives, over whatever: what it looks for is the planned time in the payload.
struct Subscriber {
    stream: Option<TcpStream>,
    path: &'static str,
    topics: usize,
    received: usize,
    /// What it reads compressed frames with.
    packed: Option<Packed>,
    /// Bytes behind the last whole payload.
    rest: Vec<u8>,
    /// When it last showed that it is alive.
    shown: Instant,
}

/// What a payload begins and ends with.
const BEGIN: &[u8] = b"{\"at\":";
const END: &[u8] = b",\"pad\"";

impl Subscriber {
    /// Says by a pong of its own accord that it is alive (RFC 6455, section 5.5.3): pings need not be found in what comes.
    fn show_alive(&mut self) {
        if self.path.starts_with("/sse") || self.shown.elapsed() < SHOWN_EVERY {
            return;
        }
        self.shown = Instant::now();
        // A socket that is full, or gone, is seen as it is read.
        let _ = self.stream.as_mut().map(|stream| stream.write_all(&wire::frame(0x8a, b"")));
    }

    /// Reads what is there; returns the planned times of the publications in it.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<impl Iterator<Item = Duration> + use<>> {
        let mut planned = Vec::new();
        let Some(stream) = &mut self.stream else { return Ok(planned.into_iter()) };
        match stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => match &mut self.packed {
                Some(packed) => packed.read(&buffer[..len], &mut self.rest)?,
                None => self.rest.extend_from_slice(&buffer[..len]),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(planned.into_iter()),
            Err(error) => return Err(error),
        }
        let mut at = 0;
        while let Some(begin) = memchr::memmem::find(&self.rest[at..], BEGIN).map(|found| at + found + BEGIN.len()) {
            let Some(end) = memchr::memmem::find(&self.rest[begin..], END).map(|found| begin + found) else { break };
            let digits = std::str::from_utf8(&self.rest[begin..end]).ok().and_then(|text| text.parse().ok());
            planned.extend(digits.map(Duration::from_nanos));
            at = end;
        }
        // A payload that has begun stays, and so does what may be the beginning of one.
        let keep = memchr::memmem::rfind(&self.rest[at..], BEGIN)
            .map_or(self.rest.len().saturating_sub(BEGIN.len()), |found| at + found);
        self.rest.drain(..keep.max(at));
        self.received += planned.len();
        Ok(planned.into_iter())
    }
}

/// A reader of frames that may be compressed; with a library of its own, which keeps its window from message to message.
#[derive(Default)]
struct Packed {
    /// Bytes behind the last whole frame.
    frames: Vec<u8>,
    window: Option<Box<InflateState>>,
}

impl Packed {
    /// Takes what has come, and appends what whole frames of it come to.
    fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.frames.extend_from_slice(bytes);
        let mut rest = &self.frames[..];
        loop {
            let mut whole = rest;
            let Ok((first, payload)) = read_frame(&mut whole) else { break };
            rest = whole;
            if first & 0x40 == 0 {
                out.extend(payload);
                continue;
            }
            let window = self.window.get_or_insert_with(|| InflateState::new_boxed(DataFormat::Raw));
            inflate_message(window, &payload, out)?;
        }
        let taken = self.frames.len() - rest.len();
        self.frames.drain(..taken);
        Ok(())
    }
}

/// Appends what a compressed message comes to.
fn inflate_message(window: &mut InflateState, message: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let message = [message, &[0, 0, 0xff, 0xff]].concat();
    let (mut rest, mut room) = (&message[..], [0; 4096]);
    loop {
        let done = inflate(window, rest, &mut room, MZFlush::None);
        rest = &rest[done.bytes_consumed..];
        out.extend_from_slice(&room[..done.bytes_written]);
        match done.status {
            Ok(MZStatus::Ok) | Err(MZError::Buf) if rest.is_empty() && done.bytes_written < room.len() => return Ok(()),
            Ok(MZStatus::Ok) => {}
            other => return Err(io::Error::other(format!("a compressed message is no deflate: {other:?}"))),
        }
    }
}

/// Waits until one of them can be read, or a moment.
fn wait(subscribers: &[Subscriber]) {
    let streams = subscribers.iter().filter_map(|subscriber| subscriber.stream.as_ref());
    let mut fds: Vec<PollFd<'_>> =
        streams.map(|stream| PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)).collect();
    let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }));
}

/// One request on a connection of its own, as probes come.
fn probe(server: SocketAddr, path: &str) -> io::Result<()> {
    let mut stream = connect(server, HEALTHY)?;
    stream.write_all(&get(path, "Connection: close\r\n"))?;
    let answered = status(&mut stream)?;
    stream.read_to_end(&mut Vec::new())?;
    expect(answered, 200)
}

fn post(server: SocketAddr, topic: &str, body: &str) -> io::Result<u16> {
    let mut stream = connect(server, HEALTHY)?;
    let len = body.len();
    let headers = format!("Content-Type: application/json\r\nContent-Length: {len}\r\nConnection: close\r\n");
    let head = String::from_utf8_lossy(&get(&format!("/publish/{topic}"), &headers)).replacen("GET", "POST", 1);
    stream.write_all((head + body).as_bytes())?;
    let answered = status(&mut stream)?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(answered)
}

/// Somebody new: connects, subscribes to what is there and to what isn't yet, gets the last value, publishes on a new topic, whose value
/// is kept.
fn newcomer(server: SocketAddr, n: usize) -> io::Result<()> {
    let mut stream = connect(server, HEALTHY)?;
    upgrade(&mut stream, "/ws")?;
    until(&mut stream, "\"hello\"")?;
    stream.write_all(&command(&format!(r#"{{"op":"sub","id":1,"topics":["healthy.still","healthy.new.{n}"]}}"#)))?;
    until(&mut stream, "\"ack\"")?;
    until(&mut stream, "\"snapshot\"")?;
    stream.write_all(&command(&format!(r#"{{"op":"pub","id":2,"topic":"healthy.new.{n}","data":{n}}}"#)))?;
    until(&mut stream, "\"update\"")?;
    stream.write_all(&command(&format!(r#"{{"op":"sub","topics":["healthy.new.{n}"]}}"#)))?;
    until(&mut stream, "\"snapshot\"")?;
    stream.write_all(&wire::frame(0x88, &1000_u16.to_be_bytes()))
}

/// The same over TLS: a handshake, a subscription, a last value, and a record of full size that comes in several pieces.
fn secure_newcomer(secure: &Secure) -> io::Result<()> {
    let mut stream = secure.connect(HEALTHY)?;
    upgrade(&mut stream, "/ws")?;
    until(&mut stream, "\"hello\"")?;
    stream.write_all(&command(r#"{"op":"sub","id":1,"topics":["healthy.still"]}"#))?;
    until(&mut stream, "\"snapshot\"")?;
    let large = "x".repeat(40_000);
    stream.write_all(&command(&format!(r#"{{"op":"pub","id":2,"topic":"healthy.large","data":"{large}"}}"#)))?;
    until(&mut stream, "\"ack\"")?;
    stream.write_all(&wire::frame(0x88, &1000_u16.to_be_bytes()))
}

/// Reads messages until one has this in it; an error is what the server says of it.
fn until(stream: &mut impl Read, text: &str) -> io::Result<()> {
    loop {
        let (first, payload) = read_frame(stream).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => io::Error::other(format!("no {text} in time")),
            _ => error,
        })?;
        let said = String::from_utf8_lossy(&payload);
        if said.contains(text) {
            return Ok(());
        }
        if first == 0x88 || said.contains("\"type\":\"error\"") {
            return Err(io::Error::other(format!("no {text}, but {said}")));
        }
    }
}

fn expect(found: u16, expected: u16) -> io::Result<()> {
    if found == expected { Ok(()) } else { Err(io::Error::other(format!("answered {found}"))) }
}
