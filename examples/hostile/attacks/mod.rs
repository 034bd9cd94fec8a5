//! The attacks: who attacks, with how many connections, hoping for what.
//!
//! Each is a function that takes up its position, says so ([`Attacker::settled`]), and goes on until it is told to stop. It
//! never judges: that is for whoever stands beside the healthy clients. `examples/hostile` runs them in full size against a
//! release build and judges by figures; `tests/it/hostile.rs` runs them scaled down and judges by events.

mod commands;
mod crowd;
mod deflate;
mod http;
mod names;
mod polls;
mod readers;
mod storms;
mod tables;
pub mod tls;
mod turns;
pub mod wire;

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

const MIB: u64 = 1 << 20;

/// One attack.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "the tests judge by other bounds")]
pub struct Attack {
    /// What it is called on the command line.
    pub name: &'static str,
    /// The attacker, and what it hopes for.
    pub text: &'static str,
    /// Bytes that the server may grow by while it lasts.
    pub peak: u64,
    /// Bytes that may be left of that afterwards. Where that is as much, what is left is the allocator's: room between what
    /// is still used, which is used again: no more is left after an attack that lasts four times as long.
    pub left: u64,
    /// Further flags of the server that it attacks.
    pub flags: &'static [&'static str],
    /// The server speaks TLS as well, and some of the healthy do.
    pub tls: bool,
    /// Carries it out.
    pub run: fn(&Attacker),
}

const fn attack(name: &'static str, text: &'static str, run: fn(&Attacker)) -> Attack {
    Attack { name, text, peak: 16 * MIB, left: 8 * MIB, flags: &[], tls: false, run }
}

impl Attack {
    /// With other bounds of memory, in MiB.
    const fn memory(self, peak: u64, left: u64) -> Attack {
        Attack { peak: peak * MIB, left: left * MIB, ..self }
    }

    /// Against a server with these flags.
    const fn with(self, flags: &'static [&'static str]) -> Attack {
        Attack { flags, ..self }
    }

    /// Against a server that speaks TLS.
    const fn over_tls(self) -> Attack {
        Attack { tls: true, ..self }
    }
}

/// All of them, in the order in which they are run.
pub const ALL: &[Attack] = &[
    http::IDLE,
    http::PIPELINES,
    http::UNREAD,
    http::SCRAPES,
    http::SLOW_HEADS,
    http::SLOW_NEXT_HEADS,
    http::SLOW_BODIES,
    http::SLOW_TAKERS,
    tables::CONNECTIONS,
    tables::SUBSCRIPTIONS,
    tables::TOPICS,
    tables::VALUES,
    tables::HALF_MESSAGES,
    names::COLLIDING_TOPICS,
    names::COLLIDING_NAMES,
    storms::RECONNECTS,
    storms::SUBSCRIPTIONS_BY_ADDRESS,
    storms::RATES,
    storms::CLOSE_CODES,
    storms::LOG,
    storms::PINGS,
    storms::LISTS,
    storms::TOKENS,
    storms::TOKENS_AT_HANDSHAKES,
    storms::TOKENS_OF_MANY,
    storms::REFRESHES,
    readers::STALLED_ALL,
    readers::STALLED_LATEST,
    readers::STALLED_EVENTS,
    readers::SNAPSHOTS,
    readers::TOLD,
    readers::STAGES,
    turns::LISTENERS,
    turns::COUNTED,
    turns::UPLOADS,
    turns::EMPTY_FRAGMENTS,
    turns::PATTERNS,
    turns::PUBLISHERS,
    turns::LEAVING,
    turns::NEW_NAMES,
    turns::OVERLAPS,
    turns::COHORTS,
    turns::PATTERN_LISTS,
    turns::GARBAGE_TO_EVENTS,
    turns::CLOSING,
    turns::BYTE_BY_BYTE,
    turns::ALMOST_JSON,
    turns::LANE_FLIPS,
    turns::OTHER_WORKER,
    turns::POSTS,
    commands::EVERYTHING,
    commands::EVERYTHING_OF_MANY,
    commands::FORTY,
    commands::PATTERN_COMMANDS,
    commands::REFUSED,
    commands::FROM_PATTERNS,
    commands::RESUMES,
    commands::FLIPPER,
    commands::UNSUBS,
    commands::SNAPSHOTS_AGAIN,
    commands::DEEP_PATTERNS,
    crowd::CROWD,
    crowd::TICKS,
    crowd::ONE_TICK,
    crowd::TOGETHER,
    crowd::SILENT_TOGETHER,
    crowd::LEAVE_TOGETHER,
    crowd::BACKLOGS,
    crowd::ROUNDS,
    crowd::STALLED_CROWD,
    polls::EVERYTHING,
    polls::UNREAD,
    polls::BACK_AGAIN,
    polls::LATEST,
    polls::RARE,
    polls::WOKEN,
    polls::COHORTS,
    polls::DROPPED,
    polls::GARBLED,
    polls::LONG_NAMES,
    polls::HISTORY,
    polls::HISTORY_UNREAD,
    polls::RESUMES,
    polls::EVENTS,
    deflate::BOMBS,
    deflate::INFLATING,
    deflate::TABLES,
    deflate::FRAGMENTS,
    deflate::HALVES,
    deflate::BITS,
    deflate::OFFERS,
    deflate::WINDOWS,
    deflate::OLD,
    deflate::STALLED,
    deflate::PUBLISHED,
    deflate::LISTS,
    tls::TINY_RECORDS,
    tls::EMPTY_RECORDS,
    tls::KEY_UPDATES,
    tls::RENEGOTIATIONS,
    tls::ALERTS,
    tls::HANDSHAKES,
    tls::SILENT,
    tls::TRICKLING,
    tls::FRAGMENTS,
    tls::HALF_RECORDS,
    tls::STALLED,
    tls::HALF_CLOSED,
];

/// Whoever attacks: one address, and what it has done so far.
pub struct Attacker {
    pub server: SocketAddr,
    pub source: IpAddr,
    /// Where it speaks TLS, if it does.
    secure: Option<tls::Secure>,
    /// Numbers are divided by this.
    scale: usize,
    stop: AtomicBool,
    settled: Mutex<bool>,
    news: Condvar,
    /// Connections that it holds.
    held: AtomicUsize,
    /// Connections that it has made.
    made: AtomicUsize,
    /// What was done to those of its clients that did nothing wrong, and how often.
    wrongs: Mutex<BTreeMap<String, usize>>,
}

impl Attacker {
    pub fn new(server: SocketAddr, source: IpAddr, scale: usize) -> Attacker {
        Attacker {
            server,
            source,
            secure: None,
            scale,
            stop: AtomicBool::new(false),
            settled: Mutex::new(false),
            news: Condvar::new(),
            held: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
            wrongs: Mutex::default(),
        }
    }

    /// Tells it to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until it has taken up its position.
    #[allow(dead_code, reason = "the tests wait for it")]
    pub fn wait_settled(&self) {
        let settled = self.settled.lock().unwrap();
        drop(self.news.wait_while(settled, |settled| !*settled).unwrap());
    }

    /// Whether it has taken up its position.
    #[allow(dead_code, reason = "the suite asks now and then")]
    pub fn is_settled(&self) -> bool {
        *self.settled.lock().unwrap()
    }

    /// The most connections that it held, and how many it made.
    #[allow(dead_code, reason = "figures are the suite's")]
    pub fn connections(&self) -> (usize, usize) {
        (self.held.load(Ordering::Relaxed), self.made.load(Ordering::Relaxed))
    }

    /// What was done to those of its clients that did nothing wrong.
    #[allow(dead_code, reason = "figures are the suite's")]
    pub fn wrongs(&self) -> Vec<String> {
        self.wrongs.lock().unwrap().iter().map(|(what, times)| format!("{times} × {what}")).collect()
    }

    fn wronged(&self, what: &str) {
        if self.goes_on() {
            *self.wrongs.lock().unwrap().entry(what.to_owned()).or_default() += 1;
        }
    }

    fn holds(&self, connections: usize) {
        self.held.fetch_max(connections, Ordering::Relaxed);
    }

    /// The same attacker at another address.
    fn second(&self) -> Attacker {
        self.nth(1)
    }

    /// The same attacker at another address, so many after the first.
    fn nth(&self, n: u32) -> Attacker {
        let IpAddr::V4(source) = self.source else { return Attacker::new(self.server, self.source, self.scale) };
        let source = std::net::Ipv4Addr::from(u32::from(source) + n);
        Attacker::new(self.server, source.into(), self.scale)
    }

    fn settled(&self) {
        *self.settled.lock().unwrap() = true;
        self.news.notify_all();
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// So many, in this size.
    fn count(&self, full: usize) -> usize {
        (full / self.scale).max(2)
    }

    /// A connection that ends with a reset, so that the attacker doesn't run out of ports.
    fn connect(&self) -> Option<TcpStream> {
        let stream = wire::connect(self.server, self.source).ok()?;
        wire::reset_at_close(&stream);
        self.made.fetch_add(1, Ordering::Relaxed);
        Some(stream)
    }

    /// A connection that has sent this.
    fn sent(&self, bytes: &[u8]) -> Option<TcpStream> {
        let mut stream = self.connect()?;
        stream.write_all(bytes).ok()?;
        Some(stream)
    }

    /// A WebSocket, its greeting unread.
    fn upgraded(&self, path: &str) -> Option<TcpStream> {
        let mut stream = self.connect()?;
        wire::upgrade(&mut stream, path).ok()?;
        Some(stream)
    }

    /// Publishes `data` on so many topics `PREFIX.0`, `PREFIX.1` …, some thousands in a request.
    fn publish_topics(&self, prefix: &str, count: usize, data: &str) {
        let a_request = (8 << 20) / (data.len() + prefix.len() + 40);
        for first in (0..count).step_by(a_request) {
            let topics = (first..count.min(first + a_request)).map(|n| format!("{prefix}.{n}"));
            self.exchange(&wire::publish_lines(topics, data));
        }
    }

    /// Sends a request and reads all of its answer, whatever it is.
    fn exchange(&self, request: &[u8]) {
        let Some(mut stream) = self.sent(request) else { return };
        while self.goes_on() && stream.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {}
    }

    /// Reads away what comes, for so long at most.
    fn read_for(&self, stream: &mut TcpStream, length: Duration) {
        let (begun, mut buffer) = (Instant::now(), vec![0; 256 * 1024]);
        let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
        while self.goes_on() && begun.elapsed() < length {
            let read = stream.read(&mut buffer);
            if matches!(read, Ok(0)) || step(read).is_none() {
                return;
            }
        }
    }

    /// The epoch of a topic that it has published on.
    fn epoch_of(&self, topic: &str) -> Option<String> {
        let mut stream = self.sent(&wire::get(&format!("/topics/{topic}"), "Connection: close\r\n"))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, epoch) = answer.split_once("\"epoch\":\"")?;
        epoch.split('"').next().map(str::to_owned)
    }

    /// Waits a moment; returns whether it goes on.
    fn pause(&self, pause: Duration) -> bool {
        thread::sleep(pause);
        self.goes_on()
    }

    /// Holds so many connections, each made by `open`, and makes those anew that the server ends. `each` is called for
    /// every one of them, once in `every`.
    fn hold(
        &self,
        count: usize,
        open: impl Fn(usize) -> Option<TcpStream>,
        every: Duration,
        mut each: impl FnMut(&mut TcpStream),
    ) {
        let mut streams: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
        for (n, stream) in streams.iter_mut().enumerate() {
            if !self.goes_on() {
                break;
            }
            *stream = open(n);
        }
        drop_ended(&mut streams);
        self.settled();
        while self.goes_on() {
            self.held.fetch_max(streams.iter().flatten().count(), Ordering::Relaxed);
            streams.iter_mut().flatten().for_each(&mut each);
            // Some at a time: a storm of connections is an attack of its own.
            let gone = streams.iter_mut().enumerate().filter(|(_, stream)| stream.is_none());
            for (n, stream) in gone.take(RENEW_AT_ONCE) {
                *stream = open(n);
            }
            self.pause(every);
            drop_ended(&mut streams);
        }
        // And leaves bit by bit, for the same reason.
        for some in streams.chunks_mut(LEAVE_AT_ONCE) {
            some.fill_with(|| None);
            thread::sleep(LEAVE_EVERY);
        }
    }

    /// Sends the same bytes over and over on so many connections, as fast as they are taken, and reads the answers away if it
    /// `reads`. Those that the server ends are made anew.
    fn flood(&self, count: usize, open: impl Fn(usize) -> Option<TcpStream>, bytes: &[u8], reads: bool) {
        let bytes = bytes.repeat((32 * 1024 / bytes.len()).max(1));
        let mut hoses: Vec<Option<Hose>> = (0..count).map(|_| None).collect();
        let mut buffer = vec![0; 256 * 1024];
        while self.goes_on() {
            for (n, hose) in hoses.iter_mut().enumerate() {
                if hose.is_none() {
                    *hose = open(n).map(Hose::new);
                }
            }
            let mut moved = false;
            for place in &mut hoses {
                let Some(hose) = place else { continue };
                match hose.turn(&bytes, reads.then_some(&mut buffer)) {
                    Some(some) => moved |= some,
                    None => *place = None,
                }
            }
            self.held.fetch_max(hoses.iter().flatten().count(), Ordering::Relaxed);
            self.settled();
            if !moved {
                thread::sleep(Duration::from_micros(200));
            }
        }
    }
}

/// Connections that [`Attacker::hold`] makes anew each time it looks.
const RENEW_AT_ONCE: usize = 50;

/// Connections that it lets go of at a time, and how often.
const LEAVE_AT_ONCE: usize = 50;
const LEAVE_EVERY: Duration = Duration::from_millis(10);

/// A connection that is written to without end.
struct Hose {
    stream: TcpStream,
    at: usize,
}

impl Hose {
    fn new(stream: TcpStream) -> Hose {
        let _ = stream.set_nonblocking(true);
        Hose { stream, at: 0 }
    }

    /// Writes and reads what can be; returns whether anything moved, or none if the connection has ended.
    fn turn(&mut self, bytes: &[u8], reads: Option<&mut Vec<u8>>) -> Option<bool> {
        let wrote = step(self.stream.write(&bytes[self.at..]))?;
        self.at = (self.at + wrote) % bytes.len();
        let read = match reads {
            Some(buffer) => step(self.stream.read(buffer).and_then(|len| match len {
                0 => Err(ErrorKind::UnexpectedEof.into()),
                len => Ok(len),
            }))?,
            None => 0,
        };
        Some(wrote + read > 0)
    }
}

/// Bytes moved, 0 if it would have waited; none if the connection has ended.
fn step(moved: std::io::Result<usize>) -> Option<usize> {
    match moved {
        Ok(len) => Some(len),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
        Err(_) => None,
    }
}

/// Drops the connections that the server has ended, whether what it said before was read or not.
fn drop_ended(streams: &mut [Option<TcpStream>]) {
    let there: Vec<usize> = (0..streams.len()).filter(|n| streams[*n].is_some()).collect();
    let ended: Vec<usize> = {
        let fd =
            |n: &usize| PollFd::from_borrowed_fd(streams[*n].as_ref().expect("it is there").as_fd(), PollFlags::RDHUP);
        let mut fds: Vec<PollFd<'_>> = there.iter().map(fd).collect();
        let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        there.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()).map(|(n, _)| *n).collect()
    };
    for n in ended {
        streams[n] = None;
    }
}
