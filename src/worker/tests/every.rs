//! Scripts: clients that connect, subscribe, publish, stall, break and leave by luck, and what everybody must have in the end.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::metrics::Tally;

const TOPICS: [&str; 7] = ["q.us.A", "q.us.B", "q.eu.A", "t.us.A", "t", "q.us.A.x", "q"];
const PATTERNS: [&str; 7] = ["q.us.*", "q.>", "*.us.A", ">", "t.>", "*", "*.*.*"];

#[test]
fn every_script_keeps_every_promise() {
    let covered = Covered::default();
    seeds::try_all(SEEDS, |seed| Script::new(seed).run(&covered));
    let covered: Vec<u64> = covered.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let is_alone = std::env::var("STENTOR_SEED").is_ok();
    // Of few scripts none may have read a stream over TLS, or had what streams pass over.
    let rare = |n: usize| [1, 3].contains(&n) && seeds::wanted(SEEDS) < SEEDS;
    assert!(
        is_alone || seeds::wanted(SEEDS) < 40 || covered.iter().enumerate().all(|(n, count)| *count > 0 || rare(n)),
        "messages that refer to others, of these over TLS; frames of streams; publications that they passed over, and as they are; begun anew in time, and for somebody; let go: {covered:?}"
    );
    if !is_alone {
        println!("streams: {covered:?}");
    }
}

/// What the scripts have come to of streams.
#[derive(Default)]
struct Covered([AtomicU64; 8]);

impl Covered {
    fn note(&self, world: &World) {
        let counts = &world.shared.packs.stream_counts;
        let of_streams =
            [&counts.frames, &counts.passed, &counts.clear, &counts.anew_due, &counts.anew_joined, &counts.evicted]
                .map(Tally::get);
        let followed = world.clients.iter().map(|client| client.followed).sum();
        let secretly =
            world.clients.iter().filter(|client| client.peer.is_secure()).map(|client| client.followed).sum();
        for (sum, count) in self.0.iter().zip([followed, secretly].into_iter().chain(of_streams)) {
            sum.fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// Settings under which cohorts share streams, with bounds that are reached all the time.
pub fn share(settings: Settings, random: &mut fastrand::Rng) -> Settings {
    let anew_every = random.u32(1..30);
    let streams = StreamSettings {
        most: random.usize(1..9),
        members_min: random.usize(1..4),
        window_bits: [9, 12, 12, 12, 15][random.usize(..5)],
        level: [None, None, Some(1), Some(7)][random.usize(..4)],
        least: [0, 80][random.usize(..2)],
        anew_every,
        anew_least: random.u32(..anew_every),
        kept: [random.usize(..2000), 60_000][random.usize(..2)],
        private: if random.u8(..4) == 0 { ["q.eu.*".into(), "t".into()].into() } else { [].into() },
    };
    Settings { compression: Compressing { is_shared: true, streams, ..settings.compression }, ..settings }
}

pub struct Script {
    pub random: fastrand::Rng,
    pub world: World,
    /// Answers may be cut for want of room, or subscriptions refused.
    pub tight: bool,
    /// Most clients want the same, and all of it, so that they share streams.
    pub crowd: bool,
    pub flush_interval: Duration,
    pub reloaded: Reloaded,
}

impl Script {
    pub fn new(seed: u64) -> Script {
        let mut random = fastrand::Rng::with_seed(seed);
        let tight = random.u8(..5) == 0;
        let flush_interval = Duration::from_millis(if random.u8(..3) == 0 { random.u64(1..50) } else { 0 });
        let settings = Settings {
            pending_max: if tight { random.usize(1000..6000) } else { 1 << 20 },
            subscriptions_max: if tight { 4 } else { 1024 },
            heartbeat: Duration::from_secs(if random.bool() { random.u64(1..20) } else { 0 }),
            idle_timeout: Duration::from_secs(if random.bool() { random.u64(6..90) } else { 0 }),
            flush_interval,
            turn_work: if random.bool() { random.u64(1000..20_000) } else { 250_000 },
            turn_sends: if random.bool() { random.usize(1..6) } else { 64 },
            owed_max: if random.bool() { random.usize(1..3000) } else { OWED_MAX },
            ..settings()
        };
        let crowd = random.bool();
        let settings = if crowd { share(settings, &mut random) } else { settings };
        let segment = random.usize(512..4096);
        let roomy = random.bool();
        // Clients publish up to eight at a time; the tape has to hold what happens within one turn.
        let retain = if roomy { 1 << 20 } else { 24 * 1024 + segment * random.usize(2..12) };
        let workers = [1, 1, 1, 2, 2, 3][random.usize(..6)];
        let mut world = World::of(workers, seed, settings, segment, retain);
        if tight && random.bool() {
            world.limits = held::limits(random.usize(4000..30_000), usize::MAX);
        }
        // Encrypting takes time, so not many; on edges that hold back, and on those that don't.
        if matches!(seed % 40, 0 | 21) || (crowd && matches!(seed % 20, 7)) {
            // Not by the same luck as what they offer.
            world.secures = Some(fastrand::Rng::with_seed(!seed));
        }
        if crowd || !seed.is_multiple_of(3) {
            world.deflates = Some(fastrand::Rng::with_seed(seed));
        }
        Script { world, random, tight, crowd, flush_interval, reloaded: Reloaded::default() }
    }

    fn run(mut self, covered: &Covered) {
        let acts = self.random.usize(10..90) * if self.crowd { 2 } else { 1 };
        for _ in 0..acts {
            self.step();
        }
        covered.note(&self.world);
        if self.random.u8(..3) == 0 { self.drain() } else { self.finish() }
    }

    /// Something happens, and some turns are taken.
    pub fn step(&mut self) {
        if self.crowd && self.random.u8(..3) == 0 {
            // Most keep up.
            self.world.settle();
        }
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

    fn act(&mut self) {
        match self.random.u8(..110) {
            0..12 => self.connect(),
            12..40 => self.publish(),
            40..70 => self.say(),
            // At once, so that what is said later comes behind what goes on.
            70..75 => (0..self.random.usize(1..12)).for_each(|_| self.say()),
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
            98..100 => self.world.settle(),
            _ => self.poll(),
        }
    }

    fn topic(&mut self) -> &'static str {
        if self.is_usual() {
            return TOPICS[self.random.usize(..3)];
        }
        TOPICS[self.random.usize(..TOPICS.len())]
    }

    /// Whether somebody does what most do, where most do the same.
    fn is_usual(&mut self) -> bool {
        self.crowd && self.random.u8(..6) > 0
    }

    fn names(&mut self) -> Vec<&'static str> {
        if self.is_usual() {
            return vec![["q.>", "q.>", "q.us.*"][self.random.usize(..3)]];
        }
        let mut names: Vec<&str> = TOPICS.into_iter().chain(PATTERNS).collect();
        self.random.shuffle(&mut names);
        names.truncate(self.random.usize(1..4));
        names
    }

    fn wish(&mut self) -> Wish {
        let names = self.names().into_iter().map(Into::into).collect();
        let way = [Way::All, Way::Latest, Way::Latest, Way::Rate(4), Way::Rate(50)][self.random.usize(..5)];
        let way = if self.is_usual() { Way::All } else { way };
        Wish { names, way, snapshot: self.random.bool(), from: BTreeMap::new(), cursor: None }
    }

    /// Some place that somebody was told, also one who is gone by now, or what looks like one.
    fn place(&mut self) -> Option<Place> {
        let World { clients, .. } = &self.world;
        let told: Vec<usize> = (0..clients.len()).filter(|at| !clients[*at].places.is_empty()).collect();
        let places = &clients[*self.random.choice(&told)?].places;
        // The last ones mostly: others have fallen off.
        let back = if self.random.bool() {
            self.random.usize(..places.len().min(4))
        } else {
            self.random.usize(..places.len())
        };
        let place = &places[places.len() - 1 - back];
        Some(if self.random.u8(..8) == 0 { place.broken(&mut self.random) } else { place.clone() })
    }

    fn body(&mut self) -> Body {
        let kind = [Kind::Json, Kind::Json, Kind::Text, Kind::Plain, Kind::Binary][self.random.usize(..5)];
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
        let rooms = if self.is_usual() { &[400, 3000, 100_000][..] } else { &[1, 17, 200, 1000, 5000, 100_000] };
        let room = rooms[self.random.usize(..rooms.len())];
        if self.random.u8(..20) == 0 {
            // Half a request, another one, or none at all.
            let request = [
                &b"GET /ws?topics=q HTTP"[..],
                b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"\x16\x03\x01",
                b"",
            ];
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
                if self.random.bool() && !matches!(speech, Speech::Raw { .. }) {
                    wish.cursor = self.place();
                }
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
            // What its TCP holds takes it less than the least idle timeout, and everything, with the rest of a frame and answers that wait behind
            // that, less than it may take to close.
            client.pace = Some((client.peer.window() / 4).max((room + 4000) / 40) + 1);
        }
        client.overslept = self.tight;
    }

    fn publish(&mut self) {
        if self.random.u8(..12) == 0 {
            // More topics than a round lists at once.
            for n in 0..self.random.usize(1..40) {
                let body = self.world.body(Kind::Json, 0);
                self.world.publish(&format!("q.us.{n}"), vec![body]);
            }
            return;
        }
        let most = if self.random.u8(..6) == 0 { 60 } else { 6 };
        for _ in 0..self.random.usize(1..most) {
            let (topic, mut body) = (self.topic(), self.body());
            if self.random.u8(..12) == 0 {
                body = self.world.body(Kind::TooLarge, 0);
            }
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
        let is_there = |client: &&Client| client.state != State::Left;
        let waiting: usize = self.world.clients.iter().filter(is_there).map(|client| client.publishing.len()).sum();
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
            if self.random.u8(..4) == 0 {
                wish.cursor = self.place();
                if wish.cursor.is_some() {
                    wish.from.clear();
                }
            }
        }
        let ping = vec![b'p'; self.random.usize(..126)];
        let snapshot = self.random.bool();
        let World { clients, journal, .. } = &mut self.world;
        let client = &mut clients[at];
        match what {
            0..4 if json && client.book.is_some() => client.sub_as(wish, journal),
            0..4 if json => client.sub(names, snapshot, journal),
            4..7 if json => client.unsub(names, journal),
            10 => client.list(sure && client.book.is_none()),
            11 => client.ping(),
            12 => client.nonsense(),
            _ => client.control_ping(&ping),
        }
    }

    /// Somebody polls, or asks for history; or doesn't read, or is cut.
    fn poll(&mut self) {
        if !self.world.alive() {
            return;
        }
        if self.world.pollers.len() < 4 && self.random.u8(..3) == 0 {
            let names = self.names().into_iter().map(Into::into).collect();
            let mut poller = Poller::new(names, self.random.bool());
            poller.lenient = self.tight;
            self.world.pollers.push(poller);
        }
        if self.world.pollers.is_empty() {
            return;
        }
        let at = self.random.usize(..self.world.pollers.len());
        if self.world.pollers[at].waits() {
            match self.random.u8(..3) {
                0 => {
                    let poller = &mut self.world.pollers[at];
                    (poller.stalled, poller.was_stalled) = (!poller.stalled, true);
                }
                1 => {
                    let peer = self.world.pollers[at].cut();
                    let is_rough = self.random.bool();
                    peer.iter().for_each(|peer| if is_rough { peer.reset() } else { peer.end() });
                    self.world.strays.extend(peer);
                }
                _ => {}
            }
            return;
        }
        self.world.connect_poller(at, [17, 200, 1000, 100_000][self.random.usize(..4)]);
        let (topic, wait) = (self.topic(), [0, 1, 5, 25, 100][self.random.usize(..5)]);
        let (from, limit) = (self.random.u64(..20), self.random.usize(1..40));
        let World { pollers, journal, .. } = &mut self.world;
        if self.random.u8(..4) == 0 {
            let newest = journal.seq_at(topic, journal.len());
            pollers[at].look_back(topic, newest.saturating_sub(from) + u64::from(from == 7), limit, journal);
        } else {
            pollers[at].poll(wait, journal);
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
                // What it published and was read ahead may still come, in order; nobody waits for the rest.
                client.peer.reset();
                client.state = State::Left;
            }
            _ => client.close([1000, 1001, 3000, 4999][self.random.usize(..4)]),
        }
    }

    /// Everybody reads again and must have everything; then all leave, and nothing may be left.
    pub fn finish(mut self) {
        for client in &mut self.world.clients {
            (client.stalled, client.pace) = (false, None);
        }
        self.world.pass(self.flush_interval * 3);
        self.world.finish_polls();
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
        self.world.pollers.iter_mut().for_each(|poller| poller.lenient = true);
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
