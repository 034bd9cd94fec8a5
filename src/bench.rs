//! A doorway for `benches/`: a worker whose kernel costs nothing.
//!
//! There only with the feature `bench`, and in tests. What a server spends beside the kernel can't be seen next to it, where a `send`
//! takes microseconds and a delivery's own share is nanoseconds. So here is the very worker on an edge whose sends are
//! taken and forgotten, whose clock ticks once a turn, and whose sockets hold what a client is to have sent.
//!
//! Everything goes through what a server has: sockets come by the inbox, clients speak HTTP and WebSocket, in clear or over TLS,
//! publications go onto the tape. Whatever the worker is made of, this needs no change.

use std::{
    cell::{Cell, RefCell},
    hint::black_box,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytesize::ByteSize;
use crossbeam_channel::Receiver;

use crate::{
    clock::Moment,
    config::{Config, Span},
    handover::{Arrival, Beginning, Inbox, Listener, Message},
    io::{
        Edge, Flushed, Ready, Received, Sent, Token,
        acks::Acks,
        path::Path,
        tls::{self, Tls},
        waker::{Sleep, Waker},
    },
    limits::Limits,
    log::{Dropped, Log},
    metrics::Metrics,
    protocol::Payload,
    publish::{By, Door},
    shared::{Settings, Shared, tape_settings},
    tape::{About, Tape},
    websocket::client,
    worker::Worker,
};

#[cfg(test)]
mod tests;

/// One worker with its clients, and its tape.
pub struct Bench {
    worker: Worker<Tls<FreeEdge>>,
    wires: Rc<Wires>,
    door: Door,
    metrics: Arc<Metrics>,
    limits: Arc<Limits>,
    inbox: Inbox<tls::Socket<Socket>>,
    // Nobody reads it, but it has to be open.
    _control: Receiver<Message<tls::Socket<Socket>>>,
    /// What it says of TLS, and in which room.
    #[cfg(feature = "bench")]
    secures: (Arc<rustls::ServerConfig>, tls::Room),
}

/// A client of a [`Bench`].
#[derive(Clone, Copy, Debug)]
pub struct Client(usize);

impl Bench {
    /// A worker without clients.
    pub fn new() -> Bench {
        let config = Config {
            heartbeat: NEVER,
            idle_timeout: NEVER,
            // Small enough to roll over many times in a measurement, as it does in a server.
            retain: ByteSize::mib(4),
            ..Config::default()
        };
        let tape = Tape::new(tape_settings(&config, 1));
        let log = Log::new(config.log_limit, Dropped::default());
        let shared = Shared::new(Settings::new(&config), log, &tape, 1, Arc::new([]));
        let metrics = Arc::clone(&shared.metrics);
        let waker = Arc::new(Waker::new().expect("an event descriptor"));
        let (inbox, received) = Inbox::new(1, Arc::clone(&waker));
        let (control, kept) = Inbox::new(1, waker);
        let wires = Rc::new(Wires::default());
        #[cfg(feature = "bench")]
        let secures = {
            let config = crate::tls::server_config(Arc::clone(&tls::testing::server().cert_resolver));
            (Arc::new(config), tls::Room::new(&shared.tls, None))
        };
        let worker = Worker::new(0, shared, tape.clone(), Tls::new(FreeEdge(Rc::clone(&wires))), received, control);
        Bench {
            worker,
            wires,
            door: Door::new(tape, 128),
            metrics,
            limits: Limits::of_connections(usize::MAX),
            inbox,
            _control: kept,
            #[cfg(feature = "bench")]
            secures,
        }
    }

    /// Connects a client with an upgrade request for `target`, such as `/raw/a` or `/ws?topics=a,b`.
    ///
    /// # Panics
    /// If the worker doesn't take it.
    pub fn connect(&mut self, target: &str) -> Client {
        self.connect_by(target, &[], |_, socket, _| socket.into())
    }

    /// The same, where the client offers compression in these words.
    ///
    /// # Panics
    /// If the worker doesn't take it.
    #[cfg(feature = "bench")]
    pub fn connect_compressed(&mut self, target: &str, offer: &str) -> Client {
        self.connect_by(target, &[("Sec-WebSocket-Extensions", offer)], |_, socket, _| socket.into())
    }

    /// The same over TLS, as the server speaks it; the handshake is done before.
    ///
    /// # Panics
    /// If the worker doesn't take it.
    #[cfg(feature = "bench")]
    pub fn connect_secured(&mut self, target: &str) -> Client {
        self.connect_by(target, &[], |bench, socket, request| {
            let (config, room) = bench.secures.clone();
            let mut client = tls::testing::Client::any();
            let session = client.agree_with(config);
            *request = client.encrypt([&request[..]]);
            tls::Socket::secured(socket, session, room)
        })
    }

    /// Connects a client, whose socket and request are made what they are to be by `secure`.
    fn connect_by(
        &mut self,
        target: &str,
        headers: &[(&str, &str)],
        secure: impl FnOnce(&Bench, Socket, &mut Vec<u8>) -> tls::Socket<Socket>,
    ) -> Client {
        let mut request = Vec::new();
        client::push_request(&mut request, "localhost", target, "dGhlIHNhbXBsZSBub25jZQ==", headers);
        let client = Client(self.wires.clients.borrow().len());
        self.wires.clients.borrow_mut().push(Wire::default());
        let socket = secure(self, Socket(client.0), &mut request);
        let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
        let permit = self.limits.admit(Some(peer.ip()), Moment::default()).expect("there is no limit");
        let (by, beginning) = (Listener::Clear, Beginning::Awaited);
        let arrival = Arrival { socket, peer, permit, by, beginning };
        assert!(self.inbox.hand_over(arrival).is_ok(), "the inbox is empty between turns");
        self.turn();
        let before = self.upgrades();
        self.feed(client, &request);
        self.turn();
        assert_eq!(self.upgrades(), before + 1, "{target} is upgraded");
        client
    }

    /// Has a client send `bytes`, which the worker reads in its next turn.
    pub fn feed(&mut self, client: Client, bytes: &[u8]) {
        self.wires.clients.borrow_mut()[client.0].input.extend_from_slice(bytes);
        self.wires.sent.borrow_mut().push(client.0);
    }

    /// Publishes one payload beside the clients, as feeds do.
    ///
    /// # Panics
    /// If the tape refuses it.
    pub fn publish(&mut self, topic: &str, payload: Payload<'_>) {
        let about = About { ts: self.wires.wall_us(), ..About::default() };
        self.door.publish(By::SERVER, topic, payload, about).expect("it fits");
    }

    /// Lets the worker take turns until everything was sent that there is.
    pub fn turn(&mut self) {
        self.worker.turn();
        while self.worker.owes() {
            self.worker.turn();
        }
    }

    /// Publications sent so far, once for each subscriber.
    #[cfg(feature = "bench")]
    pub fn deliveries(&self) -> u64 {
        self.metrics.workers[0].deliveries.get()
    }

    fn upgrades(&self) -> u64 {
        self.metrics.workers[0].upgrades.get()
    }
}

impl Default for Bench {
    fn default() -> Self {
        Bench::new()
    }
}

/// No timer is to fire in the middle of a measurement.
const NEVER: Span = Span::new(Duration::ZERO);

/// What the worker's edge and the clients share.
#[derive(Default)]
struct Wires {
    clients: RefCell<Vec<Wire>>,
    /// Clients with something to be read.
    sent: RefCell<Vec<usize>>,
    /// Nanoseconds; a microsecond goes by with each turn.
    clock: Cell<u64>,
}

impl Wires {
    fn wall_us(&self) -> u64 {
        1_700_000_000_000_000 + self.clock.get() / 1000
    }
}

/// What a client has sent, and how much of it was read.
#[derive(Default)]
struct Wire {
    token: Token,
    input: Vec<u8>,
    read: usize,
}

/// The worker's end of a client.
struct Socket(usize);

/// The edge: a send costs as much as looking at its length.
struct FreeEdge(Rc<Wires>);

impl Edge for FreeEdge {
    type Socket = Socket;

    fn now(&self) -> Moment {
        Moment(self.0.clock.get())
    }

    fn wall_us(&self) -> u64 {
        self.0.wall_us()
    }

    fn watch(&mut self, socket: &mut Socket, token: Token) -> io::Result<()> {
        self.0.clients.borrow_mut()[socket.0].token = token;
        Ok(())
    }

    fn interest(&mut self, _: &mut Socket, _: bool) {}

    fn unwatch(&mut self, _: &mut Socket) {}

    fn wait(&mut self, _: Option<Duration>, _: Sleep, _: &mut dyn FnMut() -> bool, ready: &mut Vec<Ready>) {
        self.0.clock.set(self.0.clock.get() + 1000);
        let clients = self.0.clients.borrow();
        let readable = |client: usize| Ready { token: clients[client].token, readable: true, writable: false };
        ready.clear();
        ready.extend(self.0.sent.borrow_mut().drain(..).map(readable));
    }

    fn receive(&mut self, socket: &mut Socket, buffer: &mut [u8]) -> Received {
        let wire = &mut self.0.clients.borrow_mut()[socket.0];
        let left = &wire.input[wire.read..];
        let len = left.len().min(buffer.len());
        if len == 0 {
            return Received::Nothing;
        }
        buffer[..len].copy_from_slice(&left[..len]);
        wire.read += len;
        if wire.read < wire.input.len() {
            self.0.sent.borrow_mut().push(socket.0);
        } else {
            wire.input.clear();
            wire.read = 0;
        }
        Received::Bytes(len)
    }

    #[inline]
    fn send(&mut self, _: &mut Socket, bytes: &[u8]) -> Sent {
        Sent::Took(black_box(bytes).len())
    }

    fn flush(&mut self, _: &mut Socket) -> Flushed {
        Flushed::All
    }

    fn held(&self, _: &Socket) -> usize {
        0
    }

    fn finish(&mut self, _: &mut Socket) {}

    fn keep_short(&mut self, _: &mut Socket, _: bool) {}

    fn acks(&mut self, _: &Socket) -> Acks {
        Acks::default()
    }

    fn keep_asking(&mut self, _: &Socket, _: Duration) {}

    fn path(&mut self, _: &Socket) -> Option<Path> {
        None
    }
}
