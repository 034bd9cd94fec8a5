//! The worker on a simulated edge: whole scripts of bad luck from one number.
//!
//! A script has one worker, or two or three on one tape, which take turns by luck and are woken by each other or not at all. It
//! connects clients to them, lets them subscribe, publish, stall, break and leave, publishes beside them onto a tape that
//! is small enough to roll over all the time, and takes the workers' turns in between. Each client checks each byte that
//! it is sent (`client.rs`); in the end everybody must have everything, and when all have gone nothing may be left. Now
//! and then the settings change (`reload.rs`).
//!
//! `STENTOR_SEEDS=100000` tries more scripts, `STENTOR_SEED=17` one of them again.

mod book;
mod client;
mod interest;
mod reload;

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use self::{
    book::{Way, Wish},
    client::{Body, Client, Journal, Publication, Speech, State},
    reload::Reloaded,
};
use super::*;
use crate::{
    access::Rules,
    config::RateLimit,
    handover::{Arrival, Beginning, Listener},
    io::{
        holding::{self, Holding},
        sim::{self, Kernel, Peer, SimEdge},
        waker::Waker,
    },
    lane::{LANES, Lane},
    limits::{Limits, Quota, Table},
    log::{Dropped, Log},
    protocol::{Kind, Payload},
    proxy::Proxies,
    shared::{OWED_MAX, Settings},
    tape::{Position, Reader, TapeSettings},
};

/// Scripts in an ordinary run: a minute or two.
const SEEDS: u64 = 1500;

/// Turns in which nothing moves, in a row, before it counts as a loop that never sleeps. Simulated waits hold events
/// back one time in eight, and a worker may need some turns to find out that there is nothing to do.
const IDLE_TURNS_MAX: u32 = 100;

const TOPICS: [&str; 7] = ["q.us.A", "q.us.B", "q.eu.A", "t.us.A", "t", "q.us.A.x", "q"];
const PATTERNS: [&str; 7] = ["q.us.*", "q.>", "*.us.A", ">", "t.>", "*", "*.*.*"];

#[test]
fn every_script_keeps_every_promise() {
    if let Some(seed) = number("STENTOR_SEED") {
        return Script::new(seed).run();
    }
    let seeds = number("STENTOR_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    // Each seed goes to one thread, and that is all: Relaxed.
    let run = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            if let Err(panic) = std::panic::catch_unwind(|| Script::new(seed).run()) {
                eprintln!("the script that failed: STENTOR_SEED={seed}");
                next.store(seeds, Ordering::Relaxed);
                std::panic::resume_unwind(panic);
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(run))));
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

struct Script {
    random: fastrand::Rng,
    world: World,
    /// Answers may be cut for want of room, or subscriptions refused.
    tight: bool,
    flush_interval: Duration,
    reloaded: Reloaded,
}

/// One worker or several, and everything around them.
struct World {
    kernel: Rc<Kernel>,
    posts: Vec<Post>,
    tape: Tape,
    tape_bytes_max: usize,
    shared: Arc<Shared>,
    limits: Arc<Limits>,
    clients: Vec<Client>,
    /// Connections that never become clients.
    strays: Vec<Peer>,
    control: Receiver<Message<Socket>>,
    journal: Journal,
    reader: Reader,
    published: VecDeque<(String, Body)>,
    payloads: u64,
    /// The settings have changed at some time.
    reloaded: bool,
}

type Socket = holding::Socket<sim::Socket>;

/// A worker, and what is its own.
struct Post {
    worker: Worker<Holding<SimEdge>>,
    inbox: Inbox<Socket>,
    /// Sockets handed over so far.
    handed: u64,
    alive: bool,
    idle_turns: u32,
    seen: (u64, Position),
}

fn settings() -> Settings {
    Settings {
        head_max: 8192,
        message_max: 16 * 1024,
        pending_max: 1 << 20,
        topic_length_max: 128,
        subscriptions_max: 1024,
        subscriptions_total_max: 100_000,
        commands: Quota::new(RateLimit::NONE),
        commands_per_address: Quota::new(RateLimit::NONE),
        publications: Quota::new(RateLimit::NONE),
        publications_per_address: Quota::new(RateLimit::NONE),
        slow_list: 4,
        flush_interval: Duration::ZERO,
        turn_sends: 64,
        owed_max: OWED_MAX,
        lag_limit: 0,
        lag_limit_age: Duration::ZERO,
        handshake_timeout: Duration::from_secs(10),
        heartbeat: Duration::from_secs(15),
        idle_timeout: Duration::from_secs(60),
        close_timeout: Duration::from_secs(5),
        drain_timeout: Duration::from_secs(8),
        http_rate_min: 0,
        http_pending_max: 1 << 20,
        stall_limit: Duration::ZERO,
        access: Rules::new(None, Vec::new(), true),
        proxies: Proxies::default(),
    }
}

impl World {
    /// With one worker.
    fn new(seed: u64, settings: Settings, segment: usize, retain: usize) -> World {
        World::of(1, seed, settings, segment, retain)
    }

    /// With so many workers.
    fn of(workers: usize, seed: u64, settings: Settings, segment: usize, retain: usize) -> World {
        let kernel = Kernel::new(seed);
        let message_max = settings.message_max;
        let tape = Tape::new(TapeSettings {
            retain,
            segment,
            message_max,
            topics_max: 1000,
            value_bytes_max: 1 << 30,
            epoch: 99,
        });
        let wakers: Vec<Arc<Waker>> = (0..workers).map(|_| Arc::new(Waker::new().unwrap())).collect();
        let log = Log::new("5/s".parse().expect("it is a rate"), Dropped::default());
        let shared = Shared::new(settings, log, &tape, workers, wakers.clone().into());
        let (control, handed_on) = Inbox::new(1000, Arc::new(Waker::new().unwrap()));
        let post = |(index, waker): (usize, Arc<Waker>)| {
            let (inbox, receiver) = Inbox::new(64, Arc::clone(&waker));
            // Every other seed's edges hold back some of what they take, and of what they read.
            let luck = (seed % 2 == 0).then_some(seed);
            let (shared, edge) = (Arc::clone(&shared), Holding::new(kernel.edge(waker), luck));
            let worker = Worker::new(index, shared, tape.clone(), edge, receiver, control.clone());
            Post { worker, inbox, handed: 0, alive: true, idle_turns: 0, seen: (0, Position(0)) }
        };
        let posts = wakers.into_iter().enumerate().map(post).collect();
        // A segment has all lanes and an index; the largest frame may make one larger.
        let segment_max = 3 * segment.max(message_max * 6 + 1000) + segment / 128 * 64 + 1000;
        World {
            kernel,
            posts,
            reader: Reader::new(tape.clone()),
            tape,
            tape_bytes_max: retain + segment_max,
            shared,
            limits: Limits::of_connections(1000),
            clients: Vec::new(),
            strays: Vec::new(),
            control: handed_on,
            journal: Journal::default(),
            published: VecDeque::new(),
            payloads: 0,
            reloaded: false,
        }
    }

    /// Hands a socket to some worker; returns the peer, and the number that the connection will have.
    fn hand_over(&mut self, room: usize) -> (Peer, u64) {
        self.hand_over_at(room, Beginning::Awaited)
    }

    fn hand_over_at(&mut self, room: usize, beginning: Beginning) -> (Peer, u64) {
        let (socket, peer) = self.kernel.connect(room);
        let address = "127.0.0.1:1".parse().unwrap();
        let permit = self.limits.admit(Some("127.0.0.1".parse().unwrap()), Moment::default()).unwrap();
        let arrival = Arrival { socket: socket.into(), peer: address, permit, by: Listener::Clear, beginning };
        let n = self.kernel.pick(self.posts.len());
        let post = &mut self.posts[n];
        assert!(post.inbox.hand_over(arrival).is_ok());
        post.handed += 1;
        (peer, ((n as u64 + 1) << 48) | post.handed)
    }

    fn connect(&mut self, room: usize, speech: Speech, names: &[&str]) -> usize {
        let (peer, id) = self.hand_over(room);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.clients.push(Client::connect(peer, id, speech, &names, &self.journal));
        self.clients.len() - 1
    }

    /// A client that keeps a book.
    fn connect_as(&mut self, room: usize, speech: Speech, wish: Wish) -> usize {
        let (peer, id) = self.hand_over(room);
        self.clients.push(Client::wish(peer, id, speech, wish, &self.journal));
        self.clients.len() - 1
    }

    /// A payload unlike any other, padded by `pad` bytes.
    fn body(&mut self, kind: Kind, pad: usize) -> Body {
        self.payloads += 1;
        let (n, pad) = (self.payloads, "x".repeat(pad));
        let bytes = match kind {
            Kind::Json => format!(r#"{{"n":{n}, "pad":"{pad}"}}"#).into_bytes(),
            Kind::Text => format!("text {n} \"{pad}\"").into_bytes(),
            Kind::Binary => [&[0xff, 0][..], &n.to_be_bytes(), pad.as_bytes()].concat(),
        };
        Body { kind, bytes }
    }

    fn publish(&mut self, topic: &str, bodies: Vec<Body>) {
        for body in bodies {
            self.published.push_back((topic.to_owned(), body.clone()));
            let payload = Payload::from_parts(body.kind, &body.bytes);
            self.tape.appender().append(topic, payload, self.kernel.wall_us(), 0).unwrap();
            self.shared.publisher.wake();
            self.note_published();
        }
    }

    /// Notes what the tape has gained.
    fn note_published(&mut self) {
        let from = Position(self.journal.len() as u64);
        let head = self.reader.refresh();
        assert!(self.reader.floor() <= from, "the script publishes more at once than its tape holds");
        let mut entries = Vec::new();
        self.reader.scan(from, head, |_, _, entry| {
            entries.push(*entry);
            true
        });
        self.reader.trim();
        for entry in entries {
            let topic = self.tape.with_topics(|topics, _| topics.at(entry.topic.slot).unwrap().name.to_string());
            let (expected, body) = match entry.origin {
                0 => self.published.pop_front().unwrap(),
                id => {
                    let publisher = self.clients.iter_mut().find(|client| client.id == id).unwrap();
                    publisher.publishing.pop_front().expect("a client publishes what it sent")
                }
            };
            assert_eq!(topic, expected);
            let publication = Publication { topic, seq: entry.seq, ts: entry.ts, body, origin: entry.origin };
            self.journal.push(publication);
        }
        let status = self.tape.status();
        assert!(status.bytes <= self.tape_bytes_max, "{} bytes of tape", status.bytes);
    }

    fn alive(&self) -> bool {
        self.posts.iter().any(|post| post.alive)
    }

    /// Nobody may take a turn, and no more time may pass.
    fn at_rest(&self) -> bool {
        let may_run = |(n, post): (usize, &Post)| post.alive && self.kernel.may_run(n);
        !self.posts.iter().enumerate().any(may_run) && (self.kernel.time_is_up() || !self.alive())
    }

    /// Whose turn it is, by luck among those that may; where nobody may, time passes. None if there is no more of that.
    fn next(&self) -> Option<usize> {
        loop {
            let may_run = |n: &usize| self.posts[*n].alive && self.kernel.may_run(*n);
            let able: Vec<usize> = (0..self.posts.len()).filter(may_run).collect();
            if !able.is_empty() {
                return Some(able[self.kernel.pick(able.len())]);
            }
            if !self.kernel.pass_time() {
                return None;
            }
        }
    }

    /// One turn of one worker, if any may take one.
    fn turn(&mut self) {
        let Some(n) = self.next() else { return };
        let post = &mut self.posts[n];
        // While a pass is held back, falling off the tape is noticed when the pass comes, or by chance before. New settings,
        // too, are noticed when it next has something to do.
        let rolled = self.tape.tail() > post.worker.ground.reader.floor();
        let changed = !Arc::ptr_eq(&post.worker.ground.settings, &self.shared.settings.get());
        post.alive = post.worker.turn();
        post.worker.invariants();
        let asleep = self.kernel.asleep(n);
        let may_oversleep = rolled || changed;
        assert!(may_oversleep || !self.kernel.overslept(n), "worker {n} would have slept with work to do");
        let now = (self.kernel.progress(), self.tape.head());
        post.idle_turns = if now == post.seen && !asleep { post.idle_turns + 1 } else { 0 };
        post.seen = now;
        assert!(post.idle_turns < IDLE_TURNS_MAX, "worker {n} spins");
        if !post.alive {
            self.kernel.retire(n);
        }
        let closed = post.worker.desk.draining.as_ref().is_some_and(|draining| draining.closed);
        self.note_published();
        if closed {
            // What comes to other workers from now on is too late for this one's clients.
            let own = self.clients.iter_mut().filter(|client| client.id >> 48 == n as u64 + 1);
            own.for_each(|client| client.served_until = client.served_until.or(Some(self.journal.len())));
        }
    }

    /// Takes turns until all workers sleep and no more time may pass.
    fn run(&mut self) {
        while !self.at_rest() {
            self.turn();
        }
    }

    fn tail(&self) -> usize {
        self.tape.tail().0 as usize
    }

    /// Takes turns until all workers sleep and no client has anything more to read; no time passes.
    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 2 && self.alive() {
            self.kernel.allow(Duration::ZERO);
            self.run();
            quiet = if self.read_all(usize::MAX) { 0 } else { quiet + 1 };
        }
        self.read_all(usize::MAX);
        for (n, post) in self.posts.iter().enumerate().filter(|(_, post)| post.alive) {
            let (worker, head) = (&post.worker, self.tape.head());
            let held = worker.fan.interest.is_empty() || !worker.ground.settings.flush_interval.is_zero();
            assert!(held || worker.fan.position() == head, "worker {n} sleeps over what was published");
        }
    }

    fn read_all(&mut self, most: usize) -> bool {
        let tail = self.tail();
        let mut any = false;
        for client in self.clients.iter_mut().filter(|client| !client.stalled && client.pace.is_none()) {
            any |= client.read(most, &self.journal, tail);
        }
        any
    }

    /// Lets time pass, in steps in which clients get to answer.
    fn pass(&mut self, length: Duration) {
        let step = Duration::from_millis(900);
        let mut left = length;
        while !left.is_zero() && self.alive() {
            self.settle();
            let now = left.min(step);
            left -= now;
            self.kernel.allow(now);
            self.run();
            self.read_slowly();
        }
        for client in self.clients.iter_mut().filter(|client| client.stalled || client.rude) {
            client.overslept = true;
        }
        self.settle();
        self.check_vanished();
    }

    /// Lets those that read slowly read a little.
    fn read_slowly(&mut self) {
        let tail = self.tail();
        for client in self.clients.iter_mut().filter(|client| !client.stalled) {
            if let Some(pace) = client.pace {
                client.read(pace, &self.journal, tail);
            }
        }
    }

    /// Whoever is gone without a word is given up before twice the idle timeout is over, and a moment. Timeouts that were
    /// running when the settings changed run out as they were set.
    fn check_vanished(&self) {
        let idle = self.shared.settings.get().idle_timeout;
        if idle.is_zero() || !self.alive() || self.reloaded {
            return;
        }
        let bound = (idle * 2 + Duration::from_secs(3)).as_nanos() as u64;
        for client in &self.clients {
            let given_up =
                client.vanished.is_none_or(|since| self.kernel.now_ns() < since + bound) || client.peer.dropped();
            assert!(given_up, "client {:x} is gone, and held", client.id);
        }
    }

    /// After all connections have ended.
    fn check_nothing_left(&mut self) {
        self.control.try_iter().for_each(drop);
        let mut peers = self.clients.iter().map(|client| &client.peer).chain(&self.strays);
        assert!(peers.all(Peer::dropped), "a connection is left");
        for Post { worker, alive, .. } in &self.posts {
            assert!(worker.connections.is_empty());
            assert_eq!((worker.fan.interest.cohorts(), worker.fan.interest.names()), (0, 0));
            assert_eq!(worker.fan.interest.lanes(), [0; LANES]);
            assert!(worker.cursors.is_empty());
            let timers = (worker.desk.timers.len(), worker.fan.interest.ticks());
            assert_eq!(timers, (0, 0), "timers of connections and rates that are gone");
            let metrics = &worker.ground.metrics;
            let figures = [&metrics.websockets, &metrics.assembly_bytes];
            assert_eq!(figures.map(|figure| figure.get()), [0; 2], "websockets, bytes of unfinished messages");
            if *alive {
                let figures = [&metrics.connections, &metrics.pending_bytes, &metrics.alone, &metrics.segments_pinned];
                assert_eq!(figures.map(|figure| figure.get()), [0; 4], "connections, pending bytes, alone, pinned");
            }
        }
        if self.alive() {
            assert_eq!(self.shared.slow.all().len(), 0, "slow clients are shown that have gone");
        }
        assert_eq!(self.shared.subscriptions.total(), 0);
        assert_eq!(self.limits.connections(), 0);
        let account = self.limits.account("127.0.0.1".parse().unwrap(), Moment::default());
        let tables = [Table::Connections, Table::Subscriptions, Table::Assembly];
        assert_eq!(tables.map(|table| account.used(table)), [0; 3], "connections, subscriptions, unfinished messages");
        assert_eq!(self.lanes_written(), [false, true, false], "nobody wants the JSON lane");
        self.tape.want(Lane::Json);
        assert_eq!(self.lanes_written(), [true, false, false], "nobody wants the raw lane");
        self.tape.unwant(Lane::Json);
    }

    /// In which lanes a publication is written now.
    fn lanes_written(&mut self) -> [bool; LANES] {
        let body = self.body(Kind::Json, 0);
        self.publish("q", vec![body]);
        let mut written = [false; LANES];
        self.reader.look(Position(self.journal.len() as u64 - 1), |_, entry| written = entry.len.map(|len| len > 0));
        written
    }
}

impl Script {
    fn new(seed: u64) -> Script {
        let mut random = fastrand::Rng::with_seed(seed);
        let tight = random.u8(..5) == 0;
        let flush_interval = Duration::from_millis(if random.u8(..3) == 0 { random.u64(1..50) } else { 0 });
        let settings = Settings {
            pending_max: if tight { random.usize(1000..6000) } else { 1 << 20 },
            subscriptions_max: if tight { 4 } else { 1024 },
            heartbeat: Duration::from_secs(if random.bool() { random.u64(1..20) } else { 0 }),
            idle_timeout: Duration::from_secs(if random.bool() { random.u64(6..90) } else { 0 }),
            flush_interval,
            turn_sends: if random.bool() { random.usize(1..6) } else { 64 },
            owed_max: if random.bool() { random.usize(1..3000) } else { OWED_MAX },
            ..settings()
        };
        let segment = random.usize(512..4096);
        let roomy = random.bool();
        // Clients publish up to eight at a time; the tape has to hold what happens within one turn.
        let retain = if roomy { 1 << 20 } else { 24 * 1024 + segment * random.usize(2..12) };
        let workers = [1, 1, 1, 2, 2, 3][random.usize(..6)];
        Script {
            world: World::of(workers, seed, settings, segment, retain),
            random,
            tight,
            flush_interval,
            reloaded: Reloaded::default(),
        }
    }

    fn run(mut self) {
        for _ in 0..self.random.usize(10..90) {
            self.act();
            self.tell_reloaded();
            if self.random.u8(..16) == 0 {
                let n = self.random.usize(..self.world.posts.len());
                self.world.kernel.disturb(n);
            }
            for _ in 0..self.random.usize(..4) {
                self.world.kernel.allow(self.flush_interval);
                self.world.turn();
            }
            let most = if self.random.bool() { usize::MAX } else { self.random.usize(1..600) };
            self.world.read_all(most);
        }
        if self.random.u8(..3) == 0 { self.drain() } else { self.finish() }
    }

    fn act(&mut self) {
        match self.random.u8(..100) {
            0..12 => self.connect(),
            12..40 => self.publish(),
            40..75 => self.say(),
            75..83 => self.stall(),
            83..87 => self.leave(),
            87..92 => {
                let length = Duration::from_millis(self.random.u64(1..300));
                self.world.pass(length);
            }
            92..94 => {
                let length = Duration::from_secs(self.random.u64(1..40));
                self.world.pass(length);
            }
            94..96 => self.world.kernel.step_wall_clock(self.random.i64(-5_000_000..5_000_000)),
            96..98 => self.reload(),
            _ => self.world.settle(),
        }
    }

    fn topic(&mut self) -> &'static str {
        TOPICS[self.random.usize(..TOPICS.len())]
    }

    fn names(&mut self) -> Vec<&'static str> {
        let mut names: Vec<&str> = TOPICS.into_iter().chain(PATTERNS).collect();
        self.random.shuffle(&mut names);
        names.truncate(self.random.usize(1..4));
        names
    }

    fn wish(&mut self) -> Wish {
        let names = self.names().into_iter().map(Into::into).collect();
        let way = [Way::All, Way::Latest, Way::Latest, Way::Rate(4), Way::Rate(50)][self.random.usize(..5)];
        Wish { names, way, snapshot: self.random.bool(), from: BTreeMap::new() }
    }

    fn body(&mut self) -> Body {
        let kind = [Kind::Json, Kind::Json, Kind::Text, Kind::Binary][self.random.usize(..4)];
        self.body_of(kind)
    }

    fn body_of(&mut self, kind: Kind) -> Body {
        let pad = match self.random.u8(..20) {
            0..15 => self.random.usize(..40),
            15..19 => self.random.usize(..800),
            _ => self.random.usize(..6000),
        };
        self.world.body(kind, pad)
    }

    fn connect(&mut self) {
        if self.world.clients.iter().filter(|client| !client.peer.dropped()).count() >= 12 || !self.world.alive() {
            return;
        }
        let room = [1, 17, 200, 1000, 5000, 100_000][self.random.usize(..6)];
        if self.random.u8(..20) == 0 {
            // Half a request, another one, or none at all.
            let request =
                [&b"GET /ws?topics=q HTTP"[..], b"GET /metrics HTTP/1.1\r\nHost: sim\r\n\r\n", b"\x16\x03\x01", b""];
            let (peer, _) = self.world.hand_over(room);
            peer.write(request[self.random.usize(..4)]);
            match self.random.u8(..3) {
                0 => peer.end(),
                1 => peer.reset(),
                _ => {}
            }
            return self.world.strays.push(peer);
        }
        let names = if self.random.bool() { self.names() } else { Vec::new() };
        let at = match self.random.u8(..6) {
            4 | 5 => {
                let mut wish = self.wish();
                wish.snapshot = true;
                let topic = self.topic().to_owned();
                let speech = match self.random.u8(..4) {
                    0 => {
                        wish.names = vec![topic.clone()];
                        Speech::Raw { topic, echo: self.random.bool() }
                    }
                    1 => Speech::Events,
                    _ => Speech::Json,
                };
                self.world.connect_as(room, speech, wish)
            }
            0 | 1 => {
                let (topic, echo) = (self.topic().to_owned(), self.random.bool());
                self.world.connect(room, Speech::Raw { topic, echo }, &[])
            }
            _ => self.world.connect(room, Speech::Json, &names),
        };
        let client = &mut self.world.clients[at];
        client.rude = self.random.u8(..10) == 0;
        if self.random.u8(..8) == 0 {
            // What its TCP holds takes it less than the least idle timeout, and everything less than it may take to close.
            client.pace = Some((client.peer.window() / 4).max(room / 40) + 1);
        }
        client.overslept = self.tight;
    }

    fn publish(&mut self) {
        let most = if self.random.u8(..6) == 0 { 60 } else { 6 };
        for _ in 0..self.random.usize(1..most) {
            let (topic, body) = (self.topic(), self.body());
            self.world.publish(topic, vec![body]);
            if self.random.u8(..10) == 0 {
                self.world.kernel.allow(Duration::ZERO);
                self.world.turn();
            }
        }
    }

    /// Some client that is open.
    fn someone(&mut self) -> Option<usize> {
        let open = |at: &usize| {
            let client = &self.world.clients[*at];
            client.state == State::Open && client.closing.is_none()
        };
        let open: Vec<usize> = (0..self.world.clients.len()).filter(open).collect();
        (!open.is_empty()).then(|| open[self.random.usize(..open.len())])
    }

    fn say(&mut self) {
        let Some(at) = self.someone() else { return };
        let (json, sure) = (self.world.clients[at].is_json(), !self.tight && !self.reloaded.names);
        if matches!(self.world.clients[at].speech, Speech::Events) {
            return;
        }
        let waiting: usize = self.world.clients.iter().map(|client| client.publishing.len()).sum();
        let names: Vec<String> = self.names().into_iter().map(Into::into).collect();
        let what = self.random.u8(..13);
        if json && (7..10).contains(&what) || !json && what >= 4 {
            if waiting < 8 && !self.world.clients[at].reloaded.mute {
                let kind = if json { Kind::Json } else { [Kind::Text, Kind::Binary][self.random.usize(..2)] };
                let (topic, body, acked) = (self.topic(), self.body_of(kind), self.random.bool());
                self.world.clients[at].publish(topic, body, acked);
            }
            return;
        }
        let mut wish = self.wish();
        if let (true, Some(book)) = (self.random.bool(), &self.world.clients[at].book) {
            let resumed: Vec<String> = TOPICS.iter().map(|topic| (*topic).to_owned()).collect();
            let resumed: Vec<String> = resumed
                .into_iter()
                .filter(|topic| wish.names.iter().any(|name| crate::topic::script::stands_for(name, topic)))
                .collect();
            wish.from = book.points(&resumed, self.random.u64(..12));
            if self.random.u8(..8) == 0 {
                wish.from.values_mut().for_each(|(epoch, _)| *epoch = "gone".into());
            }
        }
        let ping = vec![b'p'; self.random.usize(..126)];
        let snapshot = self.random.bool();
        let World { clients, journal, .. } = &mut self.world;
        let client = &mut clients[at];
        match what {
            0..4 if json && client.book.is_some() => client.sub_as(wish),
            0..4 if json => client.sub(names, snapshot, journal),
            4..7 if json => client.unsub(names, journal),
            10 => client.list(sure && client.book.is_none()),
            11 => client.ping(),
            12 => client.nonsense(),
            _ => client.control_ping(&ping),
        }
    }

    fn stall(&mut self) {
        let Some(at) = self.someone() else { return };
        let client = &mut self.world.clients[at];
        client.stalled = !client.stalled;
    }

    fn leave(&mut self) {
        let Some(at) = self.someone() else { return };
        self.end(at);
    }

    fn end(&mut self, at: usize) {
        let client = &mut self.world.clients[at];
        match self.random.u8(..5) {
            4 => client.vanish(self.world.kernel.now_ns()),
            0 => {
                client.peer.end();
                client.state = State::Left;
            }
            1 => {
                client.peer.reset();
                client.publishing.clear();
                client.state = State::Left;
            }
            _ => client.close([1000, 1001, 3000, 4999][self.random.usize(..4)]),
        }
    }

    /// Everybody reads again and must have everything; then all leave, and nothing may be left.
    fn finish(mut self) {
        for client in &mut self.world.clients {
            (client.stalled, client.pace) = (false, None);
        }
        self.world.pass(self.flush_interval * 3);
        // Long enough for the ticks of every rate.
        self.world.pass(Duration::from_millis(610));
        let tail = self.world.tail();
        let World { clients, journal, .. } = &mut self.world;
        for client in clients.iter_mut() {
            client.check_complete(journal.len(), journal, tail);
        }
        for at in 0..self.world.clients.len() {
            if self.world.clients[at].state == State::Open && self.world.clients[at].closing.is_none() {
                self.end(at);
            }
        }
        // Long enough for those who don't answer.
        self.world.pass(Duration::from_secs(40));
        // Those that are gone without a word may be waited for for longer, or for ever.
        self.world.clients.iter().filter(|client| client.vanished.is_some()).for_each(|client| client.peer.reset());
        self.world.pass(Duration::from_secs(1));
        self.world.check_nothing_left();
    }

    /// The server stops in the middle of it all.
    fn drain(mut self) {
        for client in &mut self.world.clients {
            client.drained = true;
            if self.random.bool() {
                client.stalled = false;
            }
            client.overslept |= client.stalled || client.pace.is_some();
        }
        let until = Moment(self.world.kernel.now_ns()) + Duration::from_secs(8);
        self.world.posts.iter().for_each(|post| post.inbox.drain(until));
        self.world.pass(Duration::from_secs(30));
        assert!(!self.world.alive(), "a worker doesn't stop");
        self.world.posts.clear();
        self.world.control.try_iter().for_each(drop);
        assert_eq!(self.world.limits.connections(), 0);
        let tail = self.world.tape.tail().0 as usize;
        for client in &mut self.world.clients {
            client.read(usize::MAX, &self.world.journal, tail);
        }
    }
}

/// A world with room for everything and without bad luck worth the name, for one thing at a time.
fn plain(settings: Settings) -> World {
    World::new(1, settings, 4096, 64 * 1024)
}

impl World {
    fn publish_some(&mut self, topic: &str, count: usize, pad: usize) {
        for _ in 0..count {
            let body = self.body(Kind::Json, pad);
            self.publish(topic, vec![body]);
        }
    }

    /// A JSON client that is subscribed to `names`.
    fn subscriber(&mut self, room: usize, names: &[&str]) -> usize {
        let at = self.connect(room, Speech::Json, names);
        self.settle();
        assert_eq!(self.clients[at].state, State::Open);
        at
    }
}

#[test]
fn an_unfinished_message_of_a_lost_connection_is_no_longer_counted() {
    let mut world = plain(settings());
    let at = world.subscriber(1000, &[]);
    world.clients[at].peer.write(&[0x81, 0xe4, 1, 2, 3, 4, b'a', b'b']);
    world.settle();
    assert!(world.shared.metrics.workers[0].assembly_bytes.get() > 0);
    world.clients[at].peer.end();
    world.clients[at].state = State::Left;
    world.settle();
    assert_eq!(world.shared.metrics.workers[0].assembly_bytes.get(), 0);
}

#[test]
fn a_full_connection_without_subscriptions_does_not_lag() {
    let mut world = plain(settings());
    let quiet = world.subscriber(60, &["q"]);
    let World { clients, journal, .. } = &mut world;
    clients[quiet].stalled = true;
    clients[quiet].ping();
    clients[quiet].ping();
    clients[quiet].unsub(vec!["q".into()], journal);
    world.settle();
    // Somebody else's subscription keeps the worker on the tape.
    world.subscriber(100_000, &["t"]);
    for _ in 0..40 {
        world.publish_some("t", 5, 400);
        world.settle();
    }
    assert!(world.tail() > 100);
    world.clients[quiet].stalled = false;
    world.settle();
    assert_eq!(world.clients[quiet].state, State::Open);
    world.clients[quiet].check_complete(world.journal.len(), &world.journal, 0);
}

#[test]
fn a_lag_limit_keeps_no_worker_awake_over_somebody_who_has_unsubscribed() {
    let mut world = plain(Settings { lag_limit: 100, ..settings() });
    let quiet = world.subscriber(60, &["q"]);
    let World { clients, journal, .. } = &mut world;
    clients[quiet].stalled = true;
    clients[quiet].ping();
    clients[quiet].unsub(vec!["q".into()], journal);
    // Falls asleep, or the turns in which nothing moves are counted as a loop.
    world.pass(Duration::from_secs(1));
    assert_eq!(world.posts[0].worker.cursors.len(), 1);
}

#[test]
fn acknowledgements_that_nobody_reads_are_bounded() {
    let mut world = plain(Settings { pending_max: 2000, ..settings() });
    let at = world.subscriber(50, &["q"]);
    world.clients[at].stalled = true;
    world.publish_some("q", 3, 100);
    world.settle();
    for _ in 0..200 {
        let World { clients, journal, .. } = &mut world;
        clients[at].unsub(vec!["q".into()], journal);
        world.settle();
    }
    assert!(world.clients[at].peer.dropped(), "it may make the server hold any number of acknowledgements");
}

#[test]
fn the_last_subscription_to_end_leaves_no_acknowledgement_behind() {
    // Luck decides whether something else takes the worker out of its sleep.
    for seed in 0..10 {
        let settings = Settings {
            flush_interval: Duration::from_secs(10),
            heartbeat: Duration::ZERO,
            idle_timeout: Duration::from_secs(6),
            ..settings()
        };
        let mut world = World::new(seed, settings, 4096, 64 * 1024);
        let silent = world.subscriber(100_000, &["q"]);
        world.clients[silent].rude = true;
        world.publish_some("q", 1, 0);
        world.pass(Duration::from_secs(8));
        let other = world.subscriber(100_000, &[]);
        // Held back: the worker's position stays before it, and the other's change of subscription comes behind it.
        world.publish_some("q", 1, 0);
        let World { clients, journal, .. } = &mut world;
        clients[other].unsub(vec!["t".into()], journal);
        world.pass(Duration::from_millis(1500));
        assert!(matches!(world.clients[silent].state, State::Closed(1008)));
        world.clients[other].check_complete(2, &world.journal, 0);
    }
}

#[test]
fn a_publication_that_comes_just_before_sleep_is_not_slept_over() {
    let mut world = plain(Settings { flush_interval: Duration::from_millis(40), ..settings() });
    let at = world.subscriber(100_000, &["q"]);
    world.pass(Duration::from_millis(100));
    world.publish_some("q", 1, 0);
    world.settle();
    let (tape, body) = (world.tape.clone(), world.body(Kind::Json, 0));
    world.published.push_back(("q".into(), body.clone()));
    world.kernel.meanwhile(move || {
        tape.appender().append("q", Payload::Json(&body.bytes), 0, 0).unwrap();
    });
    world.kernel.disturb(0);
    world.kernel.allow(Duration::from_millis(100));
    world.turn();
    assert!(!world.kernel.asleep(0));
    world.run();
    world.read_all(usize::MAX);
    world.clients[at].check_complete(2, &world.journal, 0);
}

#[test]
fn subscribers_that_all_vanish_in_the_middle_of_a_round_leave_nothing_to_do() {
    let mut world = plain(Settings { turn_sends: 1, owed_max: 1, ..settings() });
    for _ in 0..3 {
        world.subscriber(100_000, &["q"]);
    }
    world.settle();
    world.publish_some("q", 3, 0);
    while !world.posts[0].worker.fan.owes() {
        world.kernel.allow(Duration::ZERO);
        world.turn();
    }
    for client in &mut world.clients {
        client.state = State::Left;
        client.peer.reset();
    }
    world.kernel.allow(Duration::ZERO);
    // Falls asleep, or the turns in which nothing moves are counted as a loop.
    world.run();
    assert!(!world.posts[0].worker.fan.is_crowded(), "publishers are read again");
}

#[test]
fn those_furthest_behind_are_shown_worst_first_and_no_more_than_are_asked_for() {
    let mut world = plain(Settings { slow_list: 2, ..settings() });
    let names = ["q", "t", "a.1", "a.2", "a.3", "a.4", "a.5", "a.6", "a.7", "a.8"];
    let slow: Vec<usize> = (0..4).map(|_| world.subscriber(60, &names)).collect();
    let healthy = world.subscriber(100_000, &["q"]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.shared.slow.all().len(), 0);
    // Each stalls at another publication, the first of them first.
    for at in &slow {
        world.clients[*at].stalled = true;
        world.publish_some("q", 1, 100);
        world.pass(Duration::from_secs(10));
    }
    let shown = world.shared.slow.all();
    let name = |at: usize| format!("1-{:x}", world.clients[at].id & 0xffff_ffff_ffff);
    assert_eq!([0, 1].map(|n| shown[n].conn.clone()), [0, 1].map(|n| name(slow[n])));
    assert_eq!(shown.len(), 2);
    let (first, second) = (&shown[0], &shown[1]);
    assert!(first.lag_bytes > second.lag_bytes && second.lag_bytes > 300, "{shown:?}");
    assert!((38..=41).contains(&first.lag.as_secs()) && (28..=31).contains(&second.lag.as_secs()), "{shown:?}");
    assert!(first.connected >= Duration::from_secs(42), "{shown:?}");
    assert_eq!((first.subscriptions.len(), first.more, first.mode, first.skips), (8, 2, "all", 0));
    assert!(first.path.unwrap().unacked_bytes > 0);
    // They read again, and nothing else happens.
    for at in &slow {
        world.clients[*at].stalled = false;
    }
    world.pass(Duration::from_secs(3));
    assert_eq!(world.shared.slow.all().len(), 0);
    world.clients[healthy].check_complete(world.journal.len(), &world.journal, 0);
}

#[test]
fn no_slow_list_is_none() {
    let mut world = plain(Settings { slow_list: 0, ..settings() });
    let at = world.subscriber(60, &["q"]);
    world.clients[at].stalled = true;
    world.publish_some("q", 5, 100);
    world.pass(Duration::from_secs(3));
    assert_eq!((world.posts[0].worker.cursors.len(), world.shared.slow.all().len()), (1, 0));
}

#[test]
fn answers_and_lag_are_shown_while_they_are_there_also_if_the_worker_sleeps() {
    let mut world = plain(Settings { slow_list: 0, ..settings() });
    let at = world.subscriber(60, &["q"]);
    world.clients[at].stalled = true;
    world.publish_some("q", 5, 100);
    world.clients[at].ping();
    world.clients[at].ping();
    world.pass(Duration::from_secs(1));
    let metrics = Arc::clone(&world.shared.metrics);
    let figures = || [&metrics.workers[0].pending_bytes, &metrics.workers[0].lag_max].map(|figure| figure.get());
    assert!(figures().into_iter().all(|figure| figure > 0), "{:?}", figures());
    // Nothing else gives the worker a turn after this one.
    world.clients[at].state = State::Left;
    world.clients[at].peer.reset();
    world.pass(Duration::from_secs(1));
    assert_eq!(figures(), [0, 0]);
}

#[test]
fn whoever_is_further_behind_than_the_limit_is_told_and_closed() {
    let bytes = Settings { lag_limit: 2000, ..settings() };
    let age = Settings { lag_limit_age: Duration::from_secs(3), ..settings() };
    for (limits, way) in [(bytes, Way::All), (age, Way::All), (Settings { lag_limit: 2000, ..settings() }, Way::Latest)]
    {
        let mut world = plain(limits);
        let wish = Wish { names: vec!["q".into()], way, snapshot: true, from: BTreeMap::new() };
        let slow = world.connect_as(300, Speech::Json, wish);
        world.settle();
        world.clients[slow].stalled = true;
        world.publish_some("q", 40, 100);
        world.pass(Duration::from_secs(5));
        // The tape has it all, and yet.
        let expected = if way == Way::All { State::Closed(4100) } else { State::Open };
        world.clients[slow].stalled = false;
        let World { clients, journal, .. } = &mut world;
        clients[slow].read(usize::MAX, journal, journal.len());
        world.pass(Duration::from_secs(1));
        assert_eq!(world.clients[slow].state, expected);
    }
}

#[test]
fn a_turn_takes_in_no_more_than_its_share_however_many_publish() {
    let mut world = World::new(1, settings(), 1 << 20, 16 << 20);
    let reader = world.subscriber(10 << 20, &["q"]);
    let publishers: Vec<usize> =
        (0..30).map(|_| world.connect(1000, Speech::Raw { topic: "q".into(), echo: false }, &[])).collect();
    world.settle();
    for at in publishers {
        for _ in 0..8 {
            let body = world.body(Kind::Text, 12_000);
            world.clients[at].publish("q", body, false);
        }
    }
    let received = |world: &World| world.shared.metrics.workers[0].received_bytes.get();
    let begun = received(&world);
    while received(&world) - begun < 30 * 8 * 12_000 {
        let before = received(&world);
        world.kernel.allow(Duration::ZERO);
        world.turn();
        assert!(received(&world) - before < (desk::READ_TURN_BYTES + desk::READ_BYTES) as u64);
    }
    world.settle();
    world.clients[reader].check_complete(240, &world.journal, 0);
}

#[test]
fn connections_and_rates_that_come_and_go_leave_no_timers_behind() {
    let mut world = plain(Settings { idle_timeout: Duration::ZERO, ..settings() });
    let stays = world.subscriber(100_000, &["q"]);
    for rate in 1..=40 {
        let wish = Wish { names: vec!["q".into()], way: Way::Rate(rate), snapshot: true, from: BTreeMap::new() };
        let guest = world.connect_as(100_000, Speech::Json, wish);
        world.settle();
        world.publish_some("q", 1, 0);
        world.settle();
        assert_eq!(world.posts[0].worker.fan.interest.ticks(), 1, "the rate has something to send");
        world.clients[guest].peer.end();
        world.clients[guest].state = State::Left;
        world.settle();
        assert_eq!((world.posts[0].worker.desk.timers.len(), world.posts[0].worker.fan.interest.ticks()), (1, 0));
    }
    world.clients[stays].check_complete(40, &world.journal, 0);
}

/// A worker whose pings come when a client was silent for half of 60 s, and that sends nothing else by itself.
fn quiet() -> Settings {
    Settings { heartbeat: Duration::ZERO, ..settings() }
}

/// A world whose tape holds everything.
fn roomy(settings: Settings) -> World {
    World::new(1, settings, 4096, 1 << 20)
}

impl World {
    /// A client of this kind that is subscribed to every publication on `q`, with so much room, so many bytes of it at its side.
    fn client_of(&mut self, speech: Speech, room: usize, window: usize) -> usize {
        let wish = Wish { names: vec!["q".into()], way: Way::All, snapshot: true, from: BTreeMap::new() };
        let at = self.connect_as(room, speech, wish);
        self.clients[at].peer.set_window(window);
        self.settle();
        assert_eq!(self.clients[at].state, State::Open);
        at
    }

    fn every_kind(&mut self, room: usize, window: usize) -> [usize; 3] {
        let raw = Speech::Raw { topic: "q".into(), echo: true };
        [Speech::Json, raw, Speech::Events].map(|speech| self.client_of(speech, room, window))
    }
}

#[test]
fn a_slow_reader_is_not_taken_for_dead() {
    let mut world = roomy(quiet());
    let slow = world.every_kind(40_000, 2000);
    world.pass(Duration::from_secs(29));
    // Far more than it reads within the idle timeout, just before it is pinged.
    for at in slow {
        world.clients[at].pace = Some(100);
    }
    world.publish_some("q", 100, 250);
    for _ in 0..10 {
        world.pass(Duration::from_secs(20));
        world.publish_some("q", 1, 250);
    }
    assert!(slow.iter().all(|at| world.clients[*at].peer.arrived() > 2000), "it reads still");
    world.pass(Duration::from_secs(400));
    for at in slow {
        assert_eq!(world.clients[at].state, State::Open);
        world.clients[at].pace = None;
    }
    world.settle();
    for at in slow {
        world.clients[at].check_complete(world.journal.len(), &world.journal, world.tape.tail().0 as usize);
    }
}

#[test]
fn a_page_that_hangs_is_closed_though_its_kernel_takes_everything() {
    let mut world = roomy(settings());
    let hung = world.subscriber(100_000, &["q"]);
    world.clients[hung].peer.set_window(100_000);
    world.clients[hung].stalled = true;
    for _ in 0..25 {
        // Heartbeats and publications are acknowledged all the time.
        world.pass(Duration::from_secs(5));
        world.publish_some("q", 1, 100);
    }
    let World { clients, journal, .. } = &mut world;
    clients[hung].stalled = false;
    clients[hung].read(usize::MAX, journal, 0);
    assert_eq!(clients[hung].state, State::Closed(1008));
}

#[test]
fn a_subscriber_that_has_stopped_reading_is_kept_while_its_kernel_answers() {
    // One with a full socket, and one whose window is closed with room left in the socket: a ping never gets through.
    for room in [3000, 100_000] {
        let mut world = roomy(quiet());
        let stalled = world.every_kind(room, 1000);
        for at in stalled {
            world.clients[at].stalled = true;
        }
        world.publish_some("q", 40, 250);
        world.pass(Duration::from_secs(1000));
        for at in stalled {
            (world.clients[at].stalled, world.clients[at].overslept) = (false, false);
        }
        world.settle();
        world.publish_some("q", 1, 250);
        world.settle();
        for at in stalled {
            assert_eq!(world.clients[at].state, State::Open);
            world.clients[at].check_complete(world.journal.len(), &world.journal, world.tape.tail().0 as usize);
        }
    }
}

#[test]
fn whoever_is_gone_without_a_word_is_given_up_on_every_kind_of_connection() {
    // Nothing to be sent, something, and more than the socket holds.
    for count in [0, 1, 100] {
        let mut world = roomy(quiet());
        let healthy = world.every_kind(40_000, 20_000);
        let gone = world.every_kind(4000, 2000);
        world.pass(Duration::from_secs(100));
        let now = world.kernel.now_ns();
        for at in gone {
            world.clients[at].vanish(now);
        }
        world.publish_some("q", count, 250);
        // What was acknowledged last was half of the idle timeout ago, at most.
        world.pass(Duration::from_secs(29));
        assert!(gone.iter().all(|at| !world.clients[*at].peer.dropped()), "it may come back");
        world.pass(Duration::from_secs(91));
        assert!(gone.iter().all(|at| world.clients[*at].peer.dropped()));
        assert_eq!(world.shared.metrics.workers[0].dead.get(), 3);
        assert!(healthy.iter().all(|at| world.clients[*at].state == State::Open));
    }
}

#[test]
fn without_an_idle_timeout_nobody_is_judged() {
    let mut world = roomy(Settings { idle_timeout: Duration::ZERO, ..quiet() });
    let gone = world.every_kind(4000, 2000);
    let now = world.kernel.now_ns();
    for at in gone {
        world.clients[at].vanish(now);
    }
    world.publish_some("q", 100, 250);
    world.pass(Duration::from_secs(1000));
    assert!(gone.iter().all(|at| !world.clients[*at].peer.dropped()));
}

#[test]
fn a_slow_reader_gets_to_the_end_of_a_connection_that_is_closed() {
    let mut world = roomy(Settings { lag_limit: 2000, close_timeout: Duration::from_secs(5), ..quiet() });
    let at = world.client_of(Speech::Json, 4000, 500);
    world.clients[at].pace = Some(150);
    // The frame that it is in the middle of goes before the close frame. That takes it ten times the close timeout.
    world.publish_some("q", 10, 3000);
    world.pass(Duration::from_secs(50));
    assert_eq!(world.clients[at].state, State::Closed(4100));
    world.pass(Duration::from_secs(6));
    assert!(world.clients[at].peer.dropped());
}

#[test]
fn a_connection_that_is_closed_is_not_held_for_ever_by_one_that_takes_a_byte_now_and_then() {
    let mut world = roomy(Settings { lag_limit: 2000, close_timeout: Duration::from_secs(5), ..quiet() });
    let at = world.client_of(Speech::Json, 4000, 500);
    (world.clients[at].pace, world.clients[at].overslept) = (Some(1), true);
    world.publish_some("q", 60, 250);
    world.pass(Duration::from_secs(50));
    assert!(!world.clients[at].peer.dropped());
    world.pass(Duration::from_secs(15));
    assert!(world.clients[at].peer.dropped());
}

#[test]
fn answers_that_are_taken_slowly_are_waited_for() {
    let mut world = roomy(Settings { idle_timeout: Duration::from_secs(6), ..quiet() });
    let at = world.subscriber(20_000, &[]);
    world.clients[at].peer.set_window(200);
    world.clients[at].pace = Some(60);
    for n in 0..20 {
        world.publish_some(&format!("q.{n}"), 1, 2000);
    }
    // 40 KB of snapshots: the socket has room for some, and then for none for a minute.
    let World { clients, journal, .. } = &mut world;
    clients[at].sub(vec!["q.>".into()], true, journal);
    world.pass(Duration::from_secs(120));
    assert_eq!(world.clients[at].state, State::Open);
    world.clients[at].pace = None;
    world.settle();
    world.clients[at].check_complete(world.journal.len(), &world.journal, world.tape.tail().0 as usize);
}

#[test]
fn thousands_that_are_due_at_once_are_no_long_turn() {
    const COUNT: u64 = 1000;
    let mut world = roomy(quiet());
    world.limits = Limits::of_connections(COUNT as usize);
    let metrics = Arc::clone(&world.shared.metrics);
    for n in 0..COUNT {
        world.connect(1000, Speech::Json, &[]);
        // So many are never all quiet at once, and the worker never sleeps.
        while metrics.workers[0].upgrades.get() <= n {
            world.posts[0].worker.turn();
        }
    }
    let sends = || metrics.workers[0].sends.get();
    (0..20).for_each(|_| assert!(world.posts[0].worker.turn()));
    let begun = sends();
    world.kernel.advance(Duration::from_secs(35));
    while sends() - begun < COUNT {
        let before = sends();
        world.posts[0].worker.turn();
        assert!(sends() - before < 500, "{}", sends() - before);
    }
}

#[test]
fn buffers_and_tables_give_their_room_back_once_what_was_large_has_gone() {
    let quiet = Settings { heartbeat: Duration::ZERO, idle_timeout: Duration::ZERO, ..settings() };
    let mut world = World::new(1, quiet, 1 << 20, 16 << 20);
    world.limits = Limits::of_connections(5000);
    let wish = Wish { names: vec!["q.*".into()], way: Way::Rate(4), snapshot: true, from: BTreeMap::new() };
    world.connect_as(8 << 20, Speech::Json, wish);
    world.settle();
    for n in 0..50 {
        world.publish_some(&format!("q.{n}"), 1, 12_000);
    }
    world.settle();
    // The tick comes, and the buffer for it is a large one.
    world.pass(Duration::from_millis(250));
    for _ in 0..60 {
        let guests: Vec<Peer> = (0..50).map(|_| world.hand_over(1000).0).collect();
        world.strays.extend(guests);
        world.kernel.allow(Duration::ZERO);
        world.turn();
    }
    for stray in &world.strays {
        stray.end();
    }
    assert!(world.posts[0].worker.connections.room() > 3000);
    while world.posts[0].worker.connections.len() > 1 {
        world.kernel.allow(Duration::ZERO);
        world.turn();
    }
    assert!(world.posts[0].worker.has_slack());
    // Nothing happens any more, and yet.
    world.pass(Duration::from_millis(600));
    let worker = &world.posts[0].worker;
    assert!(!worker.has_slack());
    let places = worker.connections.room();
    assert!(places < 100, "{places} places for one connection");
}

#[test]
fn answers_that_were_taken_give_their_room_back_before_the_last_of_them_is() {
    let mut world = World::new(1, Settings { message_max: 1 << 20, ..settings() }, 2 << 20, 8 << 20);
    world.publish_some("q", 1, 500_000);
    world.connect(5000, Speech::Json, &["q"]);
    world.kernel.allow(Duration::ZERO);
    world.turn();
    let connection = |world: &World| {
        let (_, connection) = world.posts[0].worker.connections.iter().next().unwrap();
        (connection.out.len(), connection.out.capacity())
    };
    let mut rests = 0;
    for _ in 0..1000 {
        world.read_all(usize::MAX);
        world.kernel.allow(Duration::ZERO);
        world.turn();
        let (len, room) = connection(&world);
        if (1..100_000).contains(&len) {
            rests += 1;
            assert!(room <= 4 * len + 4096, "room for {room} with {len} to be sent");
        }
    }
    assert!(rests > 0, "it was sent everything at once");
}

/// Worlds with a raw subscriber of `q` that doesn't read, and whose edge holds a publication back that the worker is done with.
fn holding() -> impl Iterator<Item = (World, usize)> {
    (0..40).step_by(2).filter_map(|seed| {
        let mut world = World::new(seed, quiet(), 4096, 1 << 20);
        let at = world.connect(300, Speech::Raw { topic: "q".into(), echo: true }, &[]);
        world.settle();
        world.clients[at].stalled = true;
        world.publish_some("q", 1, 2000);
        world.settle();
        world.posts[0].worker.cursors.is_empty().then_some((world, at))
    })
}

#[test]
fn what_an_edge_holds_back_arrives_though_nothing_follows() {
    let mut worlds = 0;
    for (mut world, at) in holding() {
        world.clients[at].stalled = false;
        world.settle();
        world.clients[at].check_complete(1, &world.journal, 0);
        worlds += 1;
    }
    assert!(worlds > 5, "{worlds}");
}

#[test]
fn a_server_that_stops_waits_for_what_an_edge_holds_back() {
    for (mut world, at) in holding() {
        let until = Moment(world.kernel.now_ns()) + Duration::from_secs(8);
        world.clients[at].drained = true;
        world.posts[0].inbox.drain(until);
        // Longer than a connection may take to close.
        world.pass(Duration::from_secs(6));
        world.clients[at].stalled = false;
        world.pass(Duration::from_secs(1));
        assert_eq!(world.clients[at].state, State::Closed(1001));
        world.clients[at].check_complete(1, &world.journal, 0);
    }
}

#[test]
fn a_proxy_announces_a_client_at_the_beginning_and_nowhere_else() {
    let proxies = || Proxies::new(vec!["127.0.0.0/8".parse().unwrap()], true);
    for (beginning, header, status) in [
        (Beginning::Awaited, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "101"),
        (Beginning::Awaited, "", "400"),
        // Also where nothing of the next request was read.
        (Beginning::Read(Vec::new()), "", "101"),
        (Beginning::Read(b"GET ".to_vec()), "", "101"),
    ] {
        let mut world = plain(Settings { proxies: proxies(), ..quiet() });
        let is_read = matches!(&beginning, Beginning::Read(bytes) if !bytes.is_empty());
        let (peer, _) = world.hand_over_at(10_000, beginning);
        let request = "GET /ws HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        peer.write(format!("{header}{}", &request[if is_read { 4 } else { 0 }..]).as_bytes());
        world.settle();
        let answer = peer.read(12);
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"));
    }
}

#[test]
fn a_greeting_that_is_more_than_may_wait_ends_its_own_connection_and_nobody_else() {
    for bound in (1..600).step_by(7) {
        let mut world = plain(Settings { pending_max: bound, ..settings() });
        let wish = Wish { names: vec!["q".into()], way: Way::All, snapshot: true, from: BTreeMap::new() };
        let guests = [Speech::Json, Speech::Events, Speech::Raw { topic: "q".into(), echo: true }]
            .map(|speech| world.connect_as(100_000, speech, wish.clone()));
        for at in guests {
            world.clients[at].overslept = true;
        }
        world.settle();
        assert!(world.alive(), "{bound}");
    }
}
