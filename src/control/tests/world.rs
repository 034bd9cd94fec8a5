//! The control thread on a simulated edge: whole scripts of bad luck from one number.
//!
//! Clients ask, publish in pieces, pipeline, take their answers slowly or not at all, leave in the middle, become WebSockets, or
//! send anything. Half of the edges hold back what they took, and what they read. In a *calm* world there is room and time for
//! everybody: each client gets every answer, whole, right and in order. In a *tight* one there are few places, little memory
//! and short timeouts, and who isn't quick may be told so or be gone; what it was sent is right all the same, as far as it goes.
//! In the end nothing of anybody may be left.
//!
//! `STENTOR_SEEDS=10000` tries more scripts, `STENTOR_SEED=17` one of them again.

use std::{collections::VecDeque, rc::Rc};

use slab::Slab;

use super::{super::evict, *};
use crate::io::{
    Edge, Flushed, Sent,
    holding::{self, Holding},
    sim::{self, Kernel, Peer, SimEdge},
    waker::Sleep,
};

/// Scripts in an ordinary run: some seconds.
const SEEDS: u64 = 200;

/// Turns in which nothing moves, in a row, before it counts as a loop that never sleeps.
const IDLE_TURNS_MAX: u32 = 200;

const TOPICS: [&str; 3] = ["a", "a.b", "c"];

/// What clients send that send anything.
const ANYTHING: [&[u8]; 16] = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /publish HTTP/1.1\r\nHost: localhost\r\n",
    b"POST /publish/z HTTP/1.1\r\nHost: localhost\r\n",
    b"Content-Length: 30\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n",
    b"Expect: 100-continue\r\n",
    b"5\r\n12345\r\n",
    b"0\r\n\r\n",
    b"{\"topic\":\"z\",\"data\":1}\n",
    b"{\"topic\":\"z\",",
    b"\r\n",
    b"\n",
    b"\xff\x00\x16\x03",
    b"HEAD /topics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /topics HTTP/1.0\r\n\r\n",
    b"GET /raw/z HTTP/1.1\r\nHost: localhost\r\n\r\n",
];

type Socket = holding::Socket<sim::Socket>;

#[test]
fn every_script_is_answered_whole_right_and_in_order() {
    crate::seeds::try_all(SEEDS, |seed| World::new(seed).run());
}

/// A control thread, and everything around it.
struct World {
    random: fastrand::Rng,
    /// Everybody has room and time.
    calm: bool,
    kernel: Rc<Kernel>,
    control: Control<Holding<SimEdge>>,
    context: Context,
    inbox: Inbox<Socket>,
    worker: Worker,
    clients: Vec<Client>,
    /// How many publications were sent, by their topics.
    sent: BTreeMap<&'static str, u64>,
    alive: bool,
    /// The server stops: upgrades are refused.
    stopping: bool,
    idle_turns: u32,
}

/// As much of a worker as it takes to see that a connection is handed over whole: it answers the request, and ends.
struct Worker {
    edge: Holding<SimEdge>,
    receiver: Receiver<Message<Socket>>,
    /// Sockets, and what they are still to be sent.
    sockets: Slab<(Socket, Vec<u8>)>,
}

/// A client, and what it is still to be answered.
struct Client {
    peer: Peer,
    /// What it has not sent yet.
    output: VecDeque<u8>,
    /// What it has received and not understood yet.
    input: Vec<u8>,
    expected: VecDeque<Expected>,
    /// It takes so many bytes each time that it looks.
    most: usize,
    stalled: bool,
    /// It ends its side when everything is sent.
    ends: bool,
    /// It may be sent anything, or nothing: it sent what is no request, or has left.
    anything: bool,
    /// The answer that it was sent last was the last.
    told_end: bool,
    /// The newest numbers that it was told of its own publications.
    seqs: BTreeMap<&'static str, u64>,
}

/// What an answer has to be.
#[derive(Clone, Debug)]
enum Expected {
    Health,
    Script { is_head: bool },
    Topics,
    Last(&'static str),
    Published(&'static str),
    Lines(usize),
    Missing,
    Upgraded,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let (calm, holds) = (random.bool(), random.bool());
        World::of(random, seed, calm, holds, if calm { 100 } else { 3 })
    }

    /// With so many places, and an edge that holds things back or doesn't.
    fn of(random: fastrand::Rng, seed: u64, calm: bool, holds: bool, places: usize) -> World {
        let kernel = Kernel::new(seed);
        let context = context_alone(
            |config| {
                if !calm {
                    config.close_timeout = Span::new(Duration::from_secs(2));
                    config.handshake_timeout = Span::new(Duration::from_secs(3));
                    config.keep_alive_timeout = Span::new(Duration::from_secs(4));
                    config.max_http_pending = bytesize::ByteSize::kib(40);
                }
            },
            |settings| settings.http_connections_max = places,
        );
        let luck = holds.then_some(seed);
        let wakers: [Arc<Waker>; 2] = std::array::from_fn(|_| Arc::new(Waker::new().unwrap()));
        let edges = wakers.each_ref().map(|waker| Holding::new(kernel.edge(Arc::clone(waker)), luck));
        let [(inbox, receiver), (workers, handed)] = wakers.map(|waker| Inbox::new(if calm { 64 } else { 2 }, waker));
        let [edge, of_worker] = edges;
        // It is looked after in between, and never sleeps.
        kernel.retire(1);
        World {
            random,
            calm,
            control: Control::new(context.clone(), edge, receiver, vec![workers]),
            context,
            inbox,
            worker: Worker { edge: of_worker, receiver: handed, sockets: Slab::new() },
            kernel,
            clients: Vec::new(),
            sent: BTreeMap::new(),
            alive: true,
            stopping: false,
            idle_turns: 0,
        }
    }

    fn run(mut self) {
        for _ in 0..self.random.usize(10..60) {
            match self.random.u8(..10) {
                0..2 => self.connect(),
                2..6 => self.ask(),
                6 => self.leave(),
                7 => self.stall(),
                8 => {
                    let length = Duration::from_millis(self.random.u64(1..3000));
                    self.pass(length);
                }
                _ => self.settle(),
            }
            for _ in 0..self.random.usize(..4) {
                self.turn();
                self.serve_clients();
            }
        }
        if self.random.u8(..4) == 0 { self.drain() } else { self.finish() }
    }

    fn connect(&mut self) {
        if self.clients.iter().filter(|client| !client.peer.dropped()).count() >= 8 {
            return;
        }
        let (socket, peer) = self.kernel.connect([9, 100, 2000, 100_000][self.random.usize(..4)]);
        let mut client = Client::new(peer, self.random.usize(20..2000));
        let mut received = Vec::new();
        if self.random.u8(..6) == 0 {
            client.anything = true;
            for _ in 0..self.random.usize(1..8) {
                client.output.extend(ANYTHING[self.random.usize(..ANYTHING.len())]);
            }
            client.ends = self.random.bool();
        } else if self.random.bool() {
            let (request, expected) = self.request();
            // A worker has read the beginning of it.
            received = request[..self.random.usize(..=request.len())].to_vec();
            client.output.extend(&request[received.len()..]);
            client.expected.push_back(expected);
        }
        // An inbox that is full is the acceptor's business.
        client.anything |= !self.hand_over(socket, received);
        self.clients.push(client);
    }

    /// Hands a socket over of which so much was read. Returns whether there is room for it.
    fn hand_over(&self, socket: sim::Socket, received: Vec<u8>) -> bool {
        self.hand_over_from(1, socket, received)
    }

    /// The same, where the last byte of the client's address is another.
    fn hand_over_from(&self, address: u8, socket: sim::Socket, received: Vec<u8>) -> bool {
        let peer = SocketAddr::from(([127, 0, 0, address], 1));
        let permit = self.context.limits.admit(Some(peer.ip()), Moment::default()).unwrap();
        let (by, beginning) = (Listener::Clear, Beginning::Read(received));
        self.inbox.hand_over(Arrival { socket: socket.into(), peer, permit, by, beginning }).is_ok()
    }

    /// Somebody comes from this address with a request, and all is done that can be done for now.
    fn come_from(&mut self, address: u8, request: &str) -> Peer {
        let (socket, peer) = self.kernel.connect(100_000);
        assert!(self.hand_over_from(address, socket, request.as_bytes().to_vec()));
        self.kernel.allow(Duration::ZERO);
        while self.turn() {}
        peer
    }

    /// A client that asked for something that isn't there, and has not taken the answer.
    fn connect_and_ask(&mut self, room: usize, headers: &str) -> Client {
        let (socket, peer) = self.kernel.connect(room);
        let request = format!("GET /nothing HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        assert!(self.hand_over(socket, request.into_bytes()));
        let mut client = Client::new(peer, usize::MAX);
        client.expected.push_back(Expected::Missing);
        self.kernel.allow(Duration::ZERO);
        while self.turn() {}
        client
    }

    /// Some client that may ask more.
    fn someone(&mut self) -> Option<usize> {
        let open = |at: &usize| {
            let client = &self.clients[*at];
            let goes_on = !matches!(client.expected.back(), Some(Expected::Upgraded)) && !client.told_end;
            goes_on && !client.anything && !client.ends && !client.peer.dropped()
        };
        let open: Vec<usize> = (0..self.clients.len()).filter(open).collect();
        (!open.is_empty()).then(|| open[self.random.usize(..open.len())])
    }

    fn ask(&mut self) {
        let Some(at) = self.someone() else { return };
        for _ in 0..[1, 1, 1, 30][self.random.usize(..4)] {
            let (request, expected) = self.request();
            let client = &mut self.clients[at];
            client.output.extend(request);
            let is_last = matches!(expected, Expected::Upgraded);
            client.expected.push_back(expected);
            if is_last {
                break;
            }
        }
    }

    fn leave(&mut self) {
        let Some(at) = self.someone() else { return };
        let client = &mut self.clients[at];
        match self.random.u8(..3) {
            0 => client.reset(),
            _ => client.ends = true,
        }
    }

    fn stall(&mut self) {
        let Some(at) = self.someone() else { return };
        self.clients[at].stalled = !self.clients[at].stalled;
    }

    /// A request, and what it is to be answered.
    fn request(&mut self) -> (Vec<u8>, Expected) {
        let topic = TOPICS[self.random.usize(..TOPICS.len())];
        let ask =
            |method: &str, target: &str| format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
        match self.random.u8(..16) {
            0..3 => (ask("GET", "/healthz"), Expected::Health),
            3 => {
                let is_head = self.random.bool();
                (ask(if is_head { "HEAD" } else { "GET" }, "/stentor.js"), Expected::Script { is_head })
            }
            4..6 => (ask("GET", "/topics"), Expected::Topics),
            6..8 => (ask("GET", &format!("/topics/{topic}")), Expected::Last(topic)),
            8 => (ask("GET", "/nothing"), Expected::Missing),
            9 => (b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n".to_vec(), Expected::Upgraded),
            10..13 => {
                let body = self.payload(topic);
                let head =
                    format!("POST /publish/{topic} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
                (self.with_body(&head, body.as_bytes()), Expected::Published(topic))
            }
            _ => {
                let count = self.random.usize(..20);
                let mut body = String::new();
                for _ in 0..count {
                    let topic = TOPICS[self.random.usize(..TOPICS.len())];
                    body += &format!("{{\"topic\":\"{topic}\",\"data\":{}}}\n", self.payload(topic));
                }
                let head = "POST /publish HTTP/1.1\r\nHost: localhost\r\n";
                (self.with_body(head, body.as_bytes()), Expected::Lines(count))
            }
        }
    }

    /// A payload that says where it belongs.
    fn payload(&mut self, topic: &'static str) -> String {
        *self.sent.entry(topic).or_default() += 1;
        let most = if self.random.u8(..8) == 0 { 9000 } else { 100 };
        format!("{{\"on\":\"{topic}\",\"pad\":\"{}\"}}", "x".repeat(self.random.usize(..most)))
    }

    fn with_body(&mut self, head: &str, body: &[u8]) -> Vec<u8> {
        if self.random.bool() {
            return [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat();
        }
        let mut request = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        let mut rest = body;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(self.random.usize(1..=rest.len()));
            request.extend([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
            rest = after;
        }
        request.extend(b"0\r\n\r\n");
        request
    }

    /// One turn, if it may take one.
    fn turn(&mut self) -> bool {
        let may_run = self.alive && self.kernel.may_run(0);
        if may_run {
            let before = self.kernel.progress();
            self.alive = self.control.turn();
            if !self.alive {
                self.kernel.retire(0);
            }
            let moved = self.kernel.progress() != before || self.kernel.asleep(0);
            self.idle_turns = if moved { 0 } else { self.idle_turns + 1 };
            assert!(self.idle_turns < IDLE_TURNS_MAX, "the thread spins");
            assert!(self.control.connections.len() <= self.context.settings.http_connections_max + evict::PROBES_MAX);
        }
        self.worker.turn();
        may_run
    }

    /// Lets clients send and take some. Returns whether they did.
    fn serve_clients(&mut self) -> bool {
        let mut any = false;
        for client in &mut self.clients {
            any |= client.send_some(&mut self.random);
            any |= !client.stalled && client.take_some(self.calm && !self.stopping);
        }
        any
    }

    /// Goes on until nothing moves any more; no time passes.
    fn settle(&mut self) {
        let mut quiet = 0;
        // The worker may be kept from what there is to do, again and again.
        while quiet < 10 {
            self.kernel.allow(Duration::ZERO);
            while self.turn() {}
            quiet = if self.serve_clients() { 0 } else { quiet + 1 };
        }
    }

    fn pass(&mut self, length: Duration) {
        let mut left = length;
        while !left.is_zero() {
            self.settle();
            let now = left.min(Duration::from_millis(200));
            left -= now;
            self.kernel.allow(now);
            while self.turn() || self.kernel.pass_time() {}
        }
        self.settle();
    }

    /// Everybody takes what there is and must have everything; then all leave, and nothing may be left.
    fn finish(mut self) {
        self.clients.iter_mut().for_each(|client| client.stalled = false);
        // Longer than anything is waited for where time is short.
        self.pass(Duration::from_secs(10));
        let mut cut = 0;
        for client in self.clients.iter().filter(|client| !client.anything) {
            let left = (client.expected.len(), client.input.len());
            if left == (0, 0) {
                assert!(!client.ends || client.peer.at_end(), "a client that has ended is held");
            } else {
                assert!(!self.calm, "a client misses {:?} after {} bytes", client.expected, client.input.len());
                assert!(client.told_end || client.peer.dropped(), "a client waits for {:?}", client.expected);
                cut += u64::from(!client.input.is_empty());
            }
        }
        let metrics = &self.context.shared.metrics;
        let evicted = |why| metrics.evictions().find(|(reason, _)| *reason == why).unwrap().1;
        let evicted_idle = evicted(Eviction::Idle);
        // Of those that were idle, the kernel has everything.
        let evicted = [Eviction::Slow, Eviction::Memory, Eviction::Pace].map(evicted).iter().sum::<u64>();
        // Whoever finds no place is told so as far as there is room at that moment.
        let refused = metrics.refusals().find(|(why, _)| *why == Refusal::HttpFull).unwrap().1;
        assert!(cut <= evicted + refused, "{cut} answers broke off, {evicted} connections were evicted");
        if self.calm {
            assert_eq!((evicted_idle, evicted, refused), (0, 0, 0));
            for (topic, count) in &self.sent {
                // Of requests that clients have broken off, nobody knows how many were whole.
                let seq = self.context.tape.with_topics(|topics, _| topics.find(topic).map_or(0, |topic| topic.seq));
                let any_left = self.clients.iter().any(|client| client.anything);
                assert!(seq == *count || any_left && seq < *count, "{topic} has {seq} of {count} publications");
            }
        }
        for client in &mut self.clients {
            if !client.peer.dropped() {
                client.reset();
            }
        }
        self.pass(Duration::from_secs(1));
        self.worker.sockets.clear();
        assert!(self.clients.iter().all(|client| client.peer.dropped()), "a connection is left");
        let control = &self.control;
        assert_eq!((control.connections.len(), control.reserved, control.door.len()), (0, 0, 0));
        assert_eq!((control.pending.bytes(), self.context.limits.connections()), (0, 0));
        self.pass(Duration::from_secs(1));
        assert_eq!((self.control.again.len(), self.control.waiting.len()), (0, 0));
    }
}

impl World {
    /// The server stops in the middle of it all: what has begun to be answered is answered.
    fn drain(mut self) {
        self.clients.iter_mut().for_each(|client| client.stalled = false);
        self.stopping = true;
        self.inbox.drain(Moment(self.kernel.now_ns()) + Duration::from_secs(8));
        self.pass(Duration::from_secs(10));
        assert!(!self.alive, "the thread doesn't stop");
        drop((self.control, self.worker));
        for client in &mut self.clients {
            while client.take_some(self.calm && !self.stopping) {}
            assert!(client.peer.dropped(), "a connection is left");
            assert!(!self.calm || client.input.is_empty(), "an answer breaks off after {} bytes", client.input.len());
        }
        assert_eq!(self.context.limits.connections(), 0);
    }
}

impl Worker {
    fn turn(&mut self) {
        for message in self.receiver.try_iter() {
            let Message::Take(arrival) = message else { panic!("nobody said so") };
            let (received, is_awaited) = arrival.beginning.into_read();
            let is_upgrade =
                [&b"GET /ws "[..], b"GET /raw/"].iter().any(|start| received.trim_ascii_start().starts_with(start));
            assert!(is_upgrade && !is_awaited && arrival.by == Listener::Clear);
            let mut socket = arrival.socket;
            let entry = self.sockets.vacant_entry();
            self.edge.watch(&mut socket, entry.key() as u32).unwrap();
            entry.insert((socket, b"HTTP/1.1 101 -\r\nContent-Length: 0\r\n\r\n".to_vec()));
        }
        let mut ready = Vec::new();
        self.edge.wait(Some(Duration::ZERO), Sleep::Deep, &mut || false, &mut ready);
        for event in ready {
            let Some((socket, _)) = self.sockets.get_mut(event.token as usize) else { continue };
            if event.writable && matches!(self.edge.flush(socket), Flushed::Broken(_)) {
                self.sockets.remove(event.token as usize);
            }
        }
        let edge = &mut self.edge;
        self.sockets.retain(|_, (socket, rest)| {
            if rest.is_empty() {
                // Until the client has ended, too.
                return edge.held(socket) > 0 || !matches!(edge.receive(socket, &mut [0; 9]), crate::io::Received::End);
            }
            match edge.send(socket, rest) {
                Sent::Took(n) => drop(rest.drain(..n)),
                Sent::Full => {}
                Sent::Broken(_) => return false,
            }
            if rest.is_empty() {
                edge.finish(socket);
            }
            true
        });
    }
}

impl Client {
    fn new(peer: Peer, most: usize) -> Client {
        Client {
            peer,
            output: VecDeque::new(),
            input: Vec::new(),
            expected: VecDeque::new(),
            most,
            stalled: false,
            ends: false,
            anything: false,
            told_end: false,
            seqs: BTreeMap::new(),
        }
    }

    /// Breaks the connection.
    fn reset(&mut self) {
        self.peer.reset();
        self.anything = true;
        self.output.clear();
    }

    fn send_some(&mut self, random: &mut fastrand::Rng) -> bool {
        if self.output.is_empty() {
            if self.ends {
                self.peer.end();
            }
            return false;
        }
        let len = random.usize(1..=self.output.len());
        let bytes: Vec<u8> = self.output.drain(..len).collect();
        self.peer.write(&bytes);
        true
    }

    fn take_some(&mut self, calm: bool) -> bool {
        let bytes = self.peer.read(self.most);
        self.input.extend(&bytes);
        if self.anything {
            self.input.clear();
        }
        while self.take_answer(calm) {}
        !bytes.is_empty()
    }

    /// Takes one answer, if it is whole, and sees that it is the right one.
    fn take_answer(&mut self, calm: bool) -> bool {
        let Some(end) = memchr::memmem::find(&self.input, b"\r\n\r\n") else { return false };
        let head = String::from_utf8(self.input[..end].to_vec()).unwrap();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let status: u16 = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest[..3].parse().ok()).expect("an answer");
        let is_refused = !calm && matches!(status, 503 | 408);
        assert!(!self.told_end && (is_refused || !self.expected.is_empty()), "an answer to nothing: {head}");
        let is_head = matches!(self.expected.front(), Some(Expected::Script { is_head: true }));
        // It is refused without being read, or not in time: the body is there whatever was asked.
        let len = if is_head && status == 200 { 0 } else { field("Content-Length: ").unwrap().parse().unwrap() };
        let Some(body) = self.input.get(end + 4..end + 4 + len) else { return false };
        let body = String::from_utf8(body.to_vec()).unwrap();
        self.input.drain(..end + 4 + len);
        self.told_end = field("Connection: ") == Some("close");
        let expected = self.expected.pop_front();
        let Some(expected) = expected.filter(|_| !(is_refused && self.told_end)) else { return true };
        self.told_end |= matches!(expected, Expected::Upgraded);
        self.check(&expected, status, &body);
        true
    }

    fn check(&mut self, expected: &Expected, status: u16, body: &str) {
        let json = || serde_json::from_str::<Value>(body).unwrap();
        let script = include_str!("../console/stentor.js");
        let right = match expected {
            Expected::Health => (status, body) == (200, "ok\n"),
            Expected::Script { is_head } => status == 200 && body == if *is_head { "" } else { script },
            Expected::Topics => status == 200 && json()["topics"].is_array(),
            Expected::Last(topic) if status == 200 => json()["data"]["on"] == *topic,
            Expected::Last(_) | Expected::Missing => status == 404,
            Expected::Published(topic) => {
                let (seq, ts) = (json()["seq"].as_u64().unwrap(), json()["ts"].as_u64().unwrap());
                // The simulated clock stands in 2023.
                assert_eq!(ts / 1_000_000_000_000, 1_700, "{ts} is of another clock");
                status == 200 && json()["topic"] == *topic && self.seqs.insert(topic, seq).unwrap_or(0) < seq
            }
            Expected::Lines(count) => status == 200 && json()["published"] == *count,
            Expected::Upgraded => status == 101,
        };
        assert!(right, "{expected:?} was answered {status}: {body}");
    }
}

/// Worlds with one place, and a client in it whose whole answer the control thread is done with, and the edge is not.
fn holding(headers: &str) -> Vec<(World, Client)> {
    let of_seed = |seed: u64| {
        let mut world = World::of(fastrand::Rng::with_seed(seed), seed, true, true, 1);
        let client = world.connect_and_ask(20, headers);
        let (_, connection) = world.control.connections.iter().next().unwrap();
        (connection.out.is_empty() && connection.held > 0).then_some((world, client))
    };
    let worlds: Vec<_> = (0..30).filter_map(of_seed).collect();
    assert!(worlds.len() > 5, "{}", worlds.len());
    worlds
}

const ENDINGS: [&str; 2] = ["", "Connection: close\r\n"];

#[test]
fn an_answer_that_the_edge_holds_back_is_not_cut_for_somebody_elses_place() {
    for (mut world, client) in ENDINGS.iter().flat_map(|headers| holding(headers)) {
        let other = world.connect_and_ask(1000, "");
        assert_eq!((world.control.connections.len(), world.control.door.len()), (1, 1));
        world.clients.extend([client, other]);
        world.pass(Duration::from_secs(1));
        assert!(world.clients.iter().all(|client| client.expected.is_empty() && client.input.is_empty()));
    }
}

#[test]
fn an_answer_that_the_edge_holds_back_is_sent_before_the_server_stops() {
    for (mut world, client) in ENDINGS.iter().flat_map(|headers| holding(headers)) {
        world.clients.push(client);
        world.drain();
    }
}

#[test]
fn a_crowd_that_waits_for_a_place_does_not_keep_another_address_out() {
    let mut world = World::of(fastrand::Rng::with_seed(1), 1, true, false, 1);
    let busy = world.come_from(1, "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n");
    let list = "GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let crowd: Vec<Peer> = (0..300).map(|_| world.come_from(2, list)).collect();
    let other = world.come_from(3, list);
    busy.reset();
    world.kernel.allow(Duration::ZERO);
    while world.turn() {}
    let answer = String::from_utf8_lossy(&other.read(usize::MAX)).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let refused = world.context.shared.metrics.refusals().find(|(why, _)| *why == Refusal::HttpFull).unwrap().1;
    assert_eq!((crowd.len(), refused), (300, 45), "there is room for 256 at the door");
}

#[test]
fn an_address_with_most_places_makes_room_for_another_at_once() {
    let mut world = World::of(fastrand::Rng::with_seed(1), 1, true, false, 20);
    let crowd: Vec<Peer> = (0..20).map(|_| world.come_from(2, "GET /topics HTTP/1.1\r\nHost: lo")).collect();
    let same = world.come_from(2, "GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(same.read(usize::MAX).is_empty(), "it waits: the others have just begun");
    let other = world.come_from(3, "GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    world.kernel.allow(Duration::ZERO);
    while world.turn() {}
    assert!(other.read(usize::MAX).starts_with(b"HTTP/1.1 200"));
    assert_eq!(crowd.iter().filter(|peer| peer.dropped()).count(), 1);
}
