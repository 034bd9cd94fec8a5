//! The worker on a simulated edge: whole scripts of bad luck from one number.
//!
//! A script has one worker, or two or three on one tape, which take turns by luck and are woken by each other or not at all. It
//! connects clients to them, lets them subscribe, publish, stall, break and leave, publishes beside them onto a tape that
//! is small enough to roll over all the time, and takes the workers' turns in between. Each client checks each byte that
//! it is sent (`client.rs`); in the end everybody must have everything, and when all have gone nothing may be left. Now
//! and then the settings change (`reload.rs`).
//!
//! `STENTOR_SEEDS=100000` tries more scripts, `STENTOR_SEEDS=100000..200000` those behind them, `STENTOR_SEED=17` one of them again.

mod alive;
mod answers;
mod asking;
mod behind;
mod book;
mod bounds;
mod client;
mod deflate;
mod edge;
mod every;
mod expensive;
mod forgotten;
mod held;
mod holders;
mod interest;
mod noting;
mod parts;
mod place;
mod polls;
mod races;
mod reading;
mod reload;
mod rights;
mod shared;
mod shares;
mod twins;
mod waves;

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use self::{
    book::{Way, Wish},
    client::{Body, Client, Journal, Offer, Publication, Speech, State},
    every::Script,
    place::Place,
    polls::Poller,
    reload::Reloaded,
};
use super::*;
use crate::{
    access::Rules,
    audit::Audit,
    certified::Certified,
    config::RateLimit,
    handover::{Arrival, Beginning, Listener},
    io::{
        holding::{self, Holding},
        sim::{self, Kernel, Peer, SimEdge},
        tls::{self, Tls},
        waker::Waker,
    },
    lane::{LANES, Lane},
    limits::{Limits, Quota, Table},
    log::{Dropped, Log},
    packs::PackSettings,
    protocol::Payload,
    proxy::Proxies,
    publication::Kind,
    publish::{By, Door},
    seeds,
    shared::{Compressing, OWED_MAX, Settings},
    stream::StreamSettings,
    tape::{About, Position, Reader, TapeSettings},
};

/// Scripts in an ordinary run: a minute or two.
const SEEDS: u64 = 300;

/// Turns in which nothing moves, in a row, before it counts as a loop that never sleeps. Simulated waits hold events
/// back one time in eight, and a worker may need some turns to find out that there is nothing to do.
const IDLE_TURNS_MAX: u32 = 100;

/// One worker or several, and everything around them.
struct World {
    kernel: Rc<Kernel>,
    posts: Vec<Post>,
    tape: Tape,
    tape_bytes_max: usize,
    shared: Arc<Shared>,
    limits: Arc<Limits>,
    clients: Vec<Client>,
    /// Decides who speaks TLS; none where nobody does.
    secures: Option<fastrand::Rng>,
    /// Decides who offers compression; none where nobody does.
    deflates: Option<fastrand::Rng>,
    /// Where those who connect come from.
    address: &'static str,
    pollers: Vec<Poller>,
    /// Connections that never become clients.
    strays: Vec<Peer>,
    control: Receiver<Message<Socket>>,
    journal: Journal,
    reader: Reader,
    published: VecDeque<(String, Body)>,
    payloads: u64,
    /// The settings have changed at some time.
    reloaded: bool,
    /// Somebody publishes whom the script doesn't know: what it publishes isn't noted.
    anybody_publishes: bool,
}

type Socket = holding::Socket<tls::Socket<sim::Socket>>;

/// A worker, and what is its own.
struct Post {
    worker: Worker<Holding<Tls<SimEdge>>>,
    inbox: Inbox<Socket>,
    /// Sockets handed over so far.
    handed: u64,
    alive: bool,
    idle_turns: u32,
    seen: (u64, Position, u64),
    /// New settings came in its last turn.
    reloaded: bool,
}

fn settings() -> Settings {
    Settings {
        head: 8192.into(),
        message_max: 16 * 1024,
        pending_max: 1 << 20,
        topic_length_max: 128,
        lead_max: 16 << 20,
        subscriptions_max: 1024,
        subscriptions_total_max: 100_000,
        commands: Quota::new(RateLimit::NONE),
        commands_per_address: Quota::new(RateLimit::NONE),
        publications: Quota::new(RateLimit::NONE),
        publications_per_address: Quota::new(RateLimit::NONE),
        tokens_per_address: Quota::new(RateLimit::NONE),
        auths: Quota::new(RateLimit::NONE),
        auth_timeout: Duration::from_secs(10),
        topics_per_holder: usize::MAX,
        slow_list: 4,
        flush_interval: Duration::ZERO,
        turn_sends: 64,
        turn_work: 250_000,
        owed_max: OWED_MAX,
        lag_limit: 0,
        lag_limit_age: Duration::ZERO,
        handshake_timeout: Duration::from_secs(10),
        heartbeat: Duration::from_secs(15),
        idle_timeout: Duration::from_secs(60),
        close_timeout: Duration::from_secs(5),
        keep_alive_timeout: Duration::from_secs(75),
        drain_timeout: Duration::from_secs(8),
        // Whoever takes nothing of an answer is given up.
        http_rate_min: 1,
        http_pending_max: 1 << 20,
        stall_limit: Duration::ZERO,
        access: Rules::new(None, Vec::new(), true),
        proxies: Proxies::default(),
        compression: Compressing {
            is_on: true,
            is_shared: false,
            deny: Vec::new(),
            // So little that pages are let go all the time.
            packs: PackSettings { level: 1, least: 80, memory: 6000 },
            streams: StreamSettings::default(),
        },
    }
}

impl World {
    /// With one worker.
    fn new(seed: u64, settings: Settings, segment: usize, retain: usize) -> World {
        World::of(1, seed, settings, segment, retain)
    }

    /// With so many workers.
    fn of(workers: usize, seed: u64, settings: Settings, segment: usize, retain: usize) -> World {
        World::audited(workers, seed, (settings, Audit::default()), segment, retain)
    }

    /// The same, where it is noted who is there.
    fn audited(
        workers: usize,
        seed: u64,
        (settings, audit): (Settings, Audit),
        segment: usize,
        retain: usize,
    ) -> World {
        let kernel = Kernel::new(seed);
        let message_max = settings.message_max;
        let tape = Tape::new(TapeSettings {
            retain,
            segment,
            message_max,
            topics_max: 100_000,
            value_bytes_max: 1 << 30,
            epoch: 99,
        });
        let wakers: Vec<Arc<Waker>> = (0..workers).map(|_| Arc::new(Waker::new().unwrap())).collect();
        let log = Log::new("5/s".parse().expect("it is a rate"), Dropped::default());
        let shared = Shared::audited(settings, (log, audit), &tape, workers, wakers.clone().into());
        let (control, handed_on) = Inbox::new(1000, Arc::new(Waker::new().unwrap()));
        let post = |(index, waker): (usize, Arc<Waker>)| {
            let (inbox, receiver) = Inbox::new(64, Arc::clone(&waker));
            // Every other seed's edges hold back some of what they take, and of what they read.
            let luck = seed.is_multiple_of(2).then_some(seed);
            let (shared, edge) = (Arc::clone(&shared), Holding::new(Tls::new(kernel.edge(waker)), luck));
            let worker = Worker::new(index, shared, tape.clone(), edge, receiver, control.clone());
            Post { worker, inbox, handed: 0, alive: true, idle_turns: 0, seen: (0, Position(0), 0), reloaded: false }
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
            secures: None,
            deflates: None,
            address: "127.0.0.1",
            pollers: Vec::new(),
            strays: Vec::new(),
            control: handed_on,
            journal: Journal::default(),
            published: VecDeque::new(),
            payloads: 0,
            reloaded: false,
            anybody_publishes: false,
        }
    }

    /// Hands a socket to some worker; returns the peer, and the number that the connection will have.
    fn hand_over(&mut self, room: usize) -> (Peer, u64) {
        self.hand_over_at(room, Beginning::Awaited)
    }

    /// The same of a client that has shown a certificate, by TLS.
    fn hand_over_certified(&mut self, room: usize, certified: Certified) -> Peer {
        self.hand_over_by(room, Beginning::Awaited, (true, Some(certified))).0
    }

    fn hand_over_at(&mut self, room: usize, beginning: Beginning) -> (Peer, u64) {
        let secures = self.secures.as_mut().is_some_and(fastrand::Rng::bool);
        self.hand_over_by(room, beginning, (secures, None))
    }

    fn hand_over_by(
        &mut self,
        room: usize,
        beginning: Beginning,
        (secures, certified): (bool, Option<Certified>),
    ) -> (Peer, u64) {
        let address = self.address.parse().unwrap();
        let permit = self.limits.admit(Some(address), Moment::default()).unwrap();
        // A record of a few bytes is many times as long: by single bytes it would take minutes.
        let (socket, mut peer) = self.kernel.connect(if secures { room.max(200) } else { room });
        let mut socket = if secures {
            let mut client = tls::testing::Client::any();
            let session = client.agree();
            peer.secure(client);
            tls::Socket::secured(socket, session, tls::Room::new(&self.shared.tls, permit.account()))
        } else {
            tls::Socket::from(socket)
        };
        socket.certify(certified);
        let peer_address = (address, 1).into();
        let arrival = Arrival { socket: socket.into(), peer: peer_address, permit, by: Listener::Clear, beginning };
        let n = self.kernel.pick(self.posts.len());
        let post = &mut self.posts[n];
        assert!(post.inbox.hand_over(arrival).is_ok());
        post.handed += 1;
        (peer, ((n as u64 + 1) << 48) | post.handed)
    }

    /// What the next client offers.
    fn offer(&mut self) -> Offer {
        self.deflates.as_mut().map_or(Offer::None, |random| Offer::ALL[random.usize(..Offer::ALL.len())])
    }

    fn connect(&mut self, room: usize, speech: Speech, names: &[&str]) -> usize {
        let (peer, id) = self.hand_over(room);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let offer = self.offer();
        self.clients.push(Client::connect(peer, id, speech, &names, offer, &self.journal));
        self.clients.len() - 1
    }

    /// A client that keeps a book.
    fn connect_as(&mut self, room: usize, speech: Speech, wish: Wish) -> usize {
        let (peer, id) = self.hand_over(room);
        let offer = self.offer();
        self.clients.push(Client::wish(peer, id, speech, wish, offer, &self.journal));
        self.clients.len() - 1
    }

    /// A payload unlike any other, padded by `pad` bytes.
    fn body(&mut self, kind: Kind, pad: usize) -> Body {
        self.payloads += 1;
        let (n, pad) = (self.payloads, "x".repeat(pad));
        let bytes = match kind {
            Kind::Json | Kind::Plain => format!(r#"{{"n":{n}, "pad":"{pad}"}}"#).into_bytes(),
            Kind::Text => format!("text {n} \"{pad}\"").into_bytes(),
            Kind::TooLarge => Vec::new(),
            Kind::Binary => [&[0xff, 0][..], &n.to_be_bytes(), pad.as_bytes()].concat(),
        };
        Body { kind, bytes }
    }

    fn publish(&mut self, topic: &str, bodies: Vec<Body>) {
        for body in bodies {
            self.published.push_back((topic.to_owned(), body.clone()));
            let payload = Payload::from_parts(body.kind, &body.bytes);
            let about = About { ts: self.kernel.wall_us(), ..About::default() };
            Door::new(self.tape.clone(), 128).publish(By::SERVER, topic, payload, about).unwrap();
            self.shared.publisher.wake();
            self.note_published();
        }
    }

    /// Notes what the tape has gained.
    fn note_published(&mut self) {
        if self.anybody_publishes {
            return;
        }
        let from = Position(self.journal.len() as u64);
        let head = self.reader.refresh();
        if self.reader.floor() > from {
            seeds::unfit("it publishes more at once than its tape holds");
        }
        let mut entries = Vec::new();
        self.reader.scan(from, head, |entry| {
            entries.push(**entry);
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
        post.reloaded = changed;
        post.alive = post.worker.turn();
        post.worker.invariants();
        let asleep = self.kernel.asleep(n);
        let may_oversleep = rolled || changed;
        assert!(may_oversleep || !self.kernel.overslept(n), "worker {n} would have slept with work to do");
        let asked = post.worker.ground.metrics.work[work::Step::Ask as usize].get();
        let now = (self.kernel.progress(), self.tape.head(), asked);
        post.idle_turns = if now == post.seen && !asleep { post.idle_turns + 1 } else { 0 };
        post.seen = now;
        assert!(post.idle_turns < IDLE_TURNS_MAX, "worker {n} spins");
        if !post.alive {
            self.kernel.retire(n);
        }
        let closed = post.worker.desk.draining.as_ref().is_some_and(|draining| draining.is_closing());
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
            // It went to sleep with the settings from before, which may have held a pass back; here it has noticed early.
            let held =
                post.reloaded || worker.fan.interest.is_empty() || !worker.ground.settings.flush_interval.is_zero();
            assert!(held || worker.fan.planned_for_all() == head, "worker {n} sleeps over what was published");
        }
    }

    fn read_all(&mut self, most: usize) -> bool {
        let tail = self.tail();
        let mut any = false;
        for client in self.clients.iter_mut().filter(|client| !client.stalled && client.pace.is_none()) {
            any |= client.read(most, &self.journal, tail);
        }
        self.read_polls(most) | any
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
                // What it has to read is longer by what makes it records.
                let pace = if client.peer.is_secure() { pace + 200 } else { pace };
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
            let figures = [&metrics.websockets, &metrics.packed, &metrics.assembly_bytes, &metrics.held_bytes];
            assert_eq!(
                figures.map(|figure| figure.get()),
                [0; 4],
                "websockets, those that are sent compressed frames, bytes of unfinished messages, bytes held"
            );
            assert_eq!(worker.desk.asking.waiting(), (0, 0), "commands that wait");
            if *alive {
                let figures = [&metrics.connections, &metrics.pending_bytes, &metrics.behind, &metrics.segments_pinned];
                assert_eq!(figures.map(|figure| figure.get()), [0; 4], "connections, pending bytes, behind, pinned");
                let figures = [&metrics.shared_streams, &metrics.shared_streams_bytes, &metrics.stream_members];
                assert_eq!(figures.map(|figure| figure.get()), [0; 3], "streams, their memory, and who reads them");
            }
        }
        if self.alive() {
            assert_eq!(self.shared.slow.all().len(), 0, "slow clients are shown that have gone");
        }
        assert_eq!(self.shared.subscriptions.total(), 0);
        assert_eq!(self.limits.connections(), 0);
        let account = self.limits.account("127.0.0.1".parse().unwrap(), Moment::default());
        let tables =
            [Table::Connections, Table::Subscriptions, Table::Assembly, Table::Held, Table::TlsHeld, Table::TlsKept];
        let used = tables.map(|table| account.used(table));
        assert_eq!(
            used, [0; 6],
            "connections, subscriptions, unfinished messages, bytes held, those of TLS either way"
        );
        assert_eq!(self.lanes_written(), [false, true, false], "nobody wants the JSON lane");
        self.tape.want(Lane::Json);
        assert_eq!(self.lanes_written(), [true, false, false], "nobody wants the raw lane");
        self.tape.unwant(Lane::Json);
    }

    /// In which lanes a publication is written now.
    fn lanes_written(&mut self) -> [bool; LANES] {
        let body = self.body(Kind::Json, 0);
        self.publish("q", vec![body]);
        let last = self.reader.look(Position(self.journal.len() as u64 - 1)).expect("it was just published");
        Lane::ALL.map(|lane| last.is_in(lane))
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

/// A world whose tape holds everything.
fn roomy(settings: Settings) -> World {
    World::new(1, settings, 4096, 1 << 20)
}

/// A worker whose pings come when a client was silent for half of 60 s, and that sends nothing else by itself.
fn quiet() -> Settings {
    Settings { heartbeat: Duration::ZERO, ..settings() }
}
