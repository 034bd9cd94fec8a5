//! The control thread: everything that is plain HTTP, so that a scrape never lengthens a worker's turn.
//!
//! A worker reads the first request of a connection; what is not for it comes here, socket and bytes. From then on this
//! thread owns the connection, and waits for all of them in one place. An upgrade that comes later on the same connection
//! goes back to the worker with the fewest connections.
//!
//! ```text
//!   wait ─► take over ─► read ─► answer ─► expire ─► sweep
//!             sockets            requests   timers    topics nobody needs
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `connection` | what is kept of a connection, and until when |
//! | `serve` | requests in order, answers in order, and the ends of connections |
//! | `out` | answers on their way, and their memory |
//! | `evict` | who goes when there is no room |
//! | `route` | which address is answered by what |
//! | `upload` | publishing: one payload, or line by line |
//! | `topics` | what topics there are, and their last values |
//! | `metrics` | the figures, for Prometheus |
//! | `slow` | who is behind, and how far |
//! | `looks` | who is there, and how each is sent publications |
//! | `pace` | for how long the tape holds what is on it |
//! | `page` | the console, and the JavaScript client |
//! | `sweep` | forgetting topics |
//! | `own` | the same on an address of its own |
//! | `admin`, `stall` | for operators; whether workers take turns |
//! | `acme` | for challenges of those who give certificates out |
//!
//! Everything is bounded: the connections by `--max-http-connections`, a head by `--max-head`, a body by `--max-body` and
//! what is kept of it by `--max-message`, the answers of all by `--max-http-pending`. A client with answers that it has not taken is
//! not read from, so it can't pile up more of them. Work is bounded, too: requests have prices ([`work`]), a connection is served
//! for so much in one turn and then stands behind the others, and a turn ends after so much, to look who has come. Probes are
//! answered where they are found.

mod acme;
mod admin;
mod connection;
mod evict;
mod looks;
mod metrics;
mod out;
mod own;
mod pace;
mod page;
mod route;
mod serve;
mod slow;
mod stall;
mod sweep;
#[cfg(test)]
mod tests;
mod topics;
mod upload;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use crossbeam_channel::Receiver;
use slab::Slab;

pub(crate) use self::own::{CONNECTIONS_MAX as OWN_CONNECTIONS_MAX, OwnParts};
use self::{
    connection::{Connection, Patience},
    evict::is_probe,
    metrics::Exposition,
    out::Pending,
    own::{Duty, Own},
    pace::Pace,
    sweep::Sweep,
};
use crate::{
    certified::Certified,
    clock::Moment,
    config::Config,
    handover::{Arrival, Inbox, Level, Listener, Message},
    http::{gzip::Compressor, response::refusal},
    io::{Edge, Ready, Received, Sent, Token, waker::Sleep},
    limits::{Limits, Permit},
    log::{Kind, tell},
    metrics::{Door, Refusal},
    publish::{HOLD_PAUSE, Publisher},
    shared::{Settings, Shared},
    tape::Tape,
    tls::Keys,
};

/// Bytes taken from one connection in one turn: a few hundred lines of a feed. Also what a connection can hold beyond a head.
const READ_BYTES: usize = 64 * 1024;

/// Sockets taken over in one turn.
const TAKE_OVER_MAX: usize = 256;

/// Newcomers that may wait for a place, for a quarter of a second each.
const DOOR_MAX: usize = 256;

/// How long it is waited between two looks whether a worker has answered.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// Addresses of them for which a place is looked for in one go.
const ADDRESSES_MAX: usize = 3;

/// A socket that is to become a connection.
struct Newcomer<S> {
    socket: S,
    peer: SocketAddr,
    /// None on the addresses of operators and of challenges.
    permit: Option<Permit>,
    by: Listener,
    /// What was read of its next request.
    received: Vec<u8>,
}

impl<S> Newcomer<S> {
    /// Names its address among those that have connections; all that come from a proxy have none, 0.
    fn address(&self) -> usize {
        address_of(self.permit.as_ref())
    }
}

/// Names the address that a connection is counted for.
fn address_of(permit: Option<&Permit>) -> usize {
    permit.and_then(Permit::account).map_or(0, |account| Arc::as_ptr(account) as usize)
}

/// What things cost, in about microseconds. Constants and not a clock, so that tests know what happens.
mod work {
    /// For one connection in one turn; the last request may go beyond it.
    pub const CONNECTION: u32 = 200;
    /// For all connections in one turn.
    pub const TURN: u32 = 2_000;
    /// A request, whatever it is.
    pub const REQUEST: u32 = 10;
    /// A token whose signature is verified.
    pub const TOKEN: u32 = 60;
    /// A look at some hundred topics, for the list.
    pub const STRETCH: u32 = 60;
    /// Holding these against rights, if not all may be seen.
    pub const RIGHTS: u32 = 80;
    /// Making the figures anew.
    pub const SCRAPE: u32 = 1_000;
    /// Making the list of slow subscribers.
    pub const SLOW: u32 = 200;
    /// Asking a worker for connections, or taking what it has answered.
    pub const LOOK: u32 = 60;
    /// Bytes that are received, published or answered for one microsecond.
    pub const BYTES: usize = 256;
}

/// What plain HTTP alone needs to know of the configuration; unlike what it shares with the workers ([`Settings`]), it stays as
/// it was at the start.
#[derive(Clone, Debug)]
pub(crate) struct HttpSettings {
    pub http_connections_max: usize,
    pub body_max: u64,
    /// Zero for never.
    pub topic_expiry: Duration,
    pub topics_max: usize,
    pub value_bytes_max: u64,
    pub retain_bytes: u64,
}

impl HttpSettings {
    pub(crate) fn new(config: &Config) -> HttpSettings {
        HttpSettings {
            http_connections_max: config.max_http_connections,
            body_max: config.max_body.as_u64(),
            topic_expiry: config.topic_expiry.get(),
            topics_max: config.max_topics,
            value_bytes_max: config.max_values.as_u64(),
            retain_bytes: config.retain.as_u64(),
        }
    }
}

/// What the control thread shows and acts on. Cheap to clone: the metrics keep one.
#[derive(Clone)]
pub(crate) struct Context {
    pub settings: HttpSettings,
    pub shared: Arc<Shared>,
    pub tape: Tape,
    pub limits: Arc<Limits>,
    /// Where there is TLS.
    pub keys: Option<Arc<Keys>>,
    /// Those of the workers.
    pub inboxes: Vec<Level>,
    /// When the server started.
    pub started: Moment,
}

/// The control thread's state.
pub(crate) struct Control<E: Edge> {
    context: Context,
    /// The settings that may change, as of this turn.
    live: Arc<Settings>,
    publisher: Publisher,
    exposition: Exposition,
    /// For lists of topics, once one was compressed.
    compressor: Option<Compressor>,
    edge: E,
    inbox: Receiver<Message<E::Socket>>,
    /// To whom upgrades go.
    workers: Vec<Inbox<E::Socket>>,
    /// Only in a thread with an address of its own.
    own: Option<Own<E::Socket>>,
    connections: Slab<Connection<E::Socket>>,
    /// How many of them have a place that is kept for probes.
    reserved: usize,
    /// Memory of the answers of all.
    pending: Pending,
    /// Connections that have more to do without anything happening on their sockets, in the order of their turns.
    again: VecDeque<Token>,
    /// Connections whose next request waits for room among the answers, in the order in which they came.
    waiting: VecDeque<Token>,
    /// Connections with bodies that wait until workers have come on.
    paused: Vec<Token>,
    /// Connections whose answers wait for what workers say.
    looking: Vec<Token>,
    /// Newcomers for whom there is no place yet, and since when.
    door: VecDeque<(Moment, Newcomer<E::Socket>)>,
    /// The address of whoever was let in last.
    let_in: usize,
    /// Whose certificate the connection of the present request has shown.
    certified: Option<Certified>,
    /// The moment of this turn.
    now: Moment,
    /// What was done in this turn, in [`work`].
    worked: u32,
    /// Turns taken.
    turns: usize,
    sweep: Sweep,
    pace: Pace,
    /// Done by then, once the server stops.
    until: Option<Moment>,
    // Buffers that are used again every turn.
    read: Vec<u8>,
    ready: Vec<Ready>,
}

impl<E: Edge> Control<E> {
    /// A control thread that finds its sockets in `inbox`, whose bell `edge` was made with, and hands upgrades to `workers`.
    pub(crate) fn new(
        context: Context,
        edge: E,
        inbox: Receiver<Message<E::Socket>>,
        workers: Vec<Inbox<E::Socket>>,
    ) -> Self {
        let now = edge.now();
        let (pending, pace) = (Pending::default(), Pace::new(now, context.tape.head().0));
        Control {
            live: context.shared.settings.get(),
            publisher: context.shared.publisher.over_http(),
            exposition: Exposition::new(context.clone(), pending.clone()),
            compressor: None,
            context,
            edge,
            inbox,
            workers,
            own: None,
            connections: Slab::new(),
            reserved: 0,
            pending,
            again: VecDeque::new(),
            waiting: VecDeque::new(),
            paused: Vec::new(),
            looking: Vec::new(),
            door: VecDeque::new(),
            let_in: 0,
            now,
            worked: 0,
            turns: 0,
            sweep: Sweep::new(now),
            pace,
            until: None,
            certified: None,
            read: vec![0; READ_BYTES],
            ready: Vec::new(),
        }
    }

    /// Takes turns until the server stops.
    pub(crate) fn run(mut self) {
        while self.turn() {}
    }

    /// One turn. Returns false when the thread is done.
    fn turn(&mut self) -> bool {
        self.wait();
        self.now = self.edge.now();
        (self.worked, self.turns) = (0, self.turns.wrapping_add(1));
        self.context.shared.settings.refresh(&mut self.live);
        self.open_door();
        self.take_all_over();
        self.attend();
        self.read_all();
        self.serve_waiting();
        self.let_go_on();
        self.let_lookers_go_on();
        self.serve_queued();
        self.expire();
        if self.own.is_none() {
            self.sweep.advance(self.now, &self.context);
            self.pace.advance(self.now, &self.context);
        }
        self.report();
        let is_over =
            |until| self.connections.is_empty() && self.inbox.is_empty() && self.door.is_empty() || self.now >= until;
        !self.until.is_some_and(is_over)
    }

    fn wait(&mut self) {
        let now = self.edge.now();
        let due = self.connections.iter().map(|(_, connection)| connection.due).min().unwrap_or(Moment::NEVER);
        let sweep = if self.own.is_none() { self.sweep.due() } else { self.own_due() };
        let due = due.min(sweep).min(self.until.unwrap_or(Moment::NEVER));
        let lets_in = !self.door.is_empty() && (self.has_place() || self.longest_idle().is_some());
        let timeout = match (self.again.is_empty() && !lets_in, self.waiting.is_empty() && self.door.is_empty()) {
            (false, _) => Duration::ZERO,
            (true, false) => due.since(now).min(evict::RETRY),
            (true, true) => due.since(now),
        };
        let timeout = match (self.paused.is_empty(), self.publisher.holds(now)) {
            (true, _) => timeout,
            (false, true) => timeout.min(HOLD_PAUSE),
            (false, false) => Duration::ZERO,
        };
        let timeout = if self.looking.is_empty() { timeout } else { timeout.min(LOOK_PAUSE) };
        let inbox = &self.inbox;
        self.edge.wait(Some(timeout), Sleep::Deep, &mut || !inbox.is_empty(), &mut self.ready);
    }

    fn report(&self) {
        let metrics = &self.context.shared.metrics;
        let connections = self.connections.len() as u64;
        match self.own.as_ref().map(|own| &own.duty) {
            Some(Duty::Operators(_)) => return metrics.admin_connections.set(connections),
            Some(Duty::Challenges(_)) => return metrics.acme_connections.set(connections),
            None => {}
        }
        metrics.control_turns.add(1);
        metrics.http_connections.set(connections);
        metrics.http_pending_bytes.set(self.pending.bytes() as u64);
    }

    fn take_all_over(&mut self) {
        for _ in 0..TAKE_OVER_MAX {
            match self.inbox.try_recv() {
                Ok(Message::Take(Arrival { socket, peer, permit, by, beginning })) => {
                    let (received, _) = beginning.into_read();
                    self.admit(Newcomer { socket, peer, permit: Some(permit), by, received });
                }
                Ok(Message::Drain { until }) => self.drain(until),
                Err(_) => break,
            }
        }
    }

    /// Makes a connection of a newcomer, lets it wait at the door for whoever turns out to be slow, or says that there are too many.
    fn admit(&mut self, newcomer: Newcomer<E::Socket>) {
        if self.has_place() {
            self.take_in(newcomer, false);
        } else if is_probe(&newcomer.received) {
            self.make_place_for_probe();
            self.take_in(newcomer, true);
        } else if self.door.is_empty() && self.make_place(newcomer.address()) {
            self.take_in(newcomer, false);
        } else if !self.is_draining() {
            self.door.push_back((self.now, newcomer));
            if self.door.len() > DOOR_MAX {
                self.clear_door();
            }
        } else {
            self.turn_away(newcomer);
        }
    }

    /// Turns away whoever has come last from the address that has most at the door.
    fn clear_door(&mut self) {
        let mut counts: HashMap<usize, usize> = HashMap::new();
        let addresses = self.door.iter().map(|(_, newcomer)| newcomer.address());
        addresses.clone().for_each(|address| *counts.entry(address).or_default() += 1);
        let most = addresses.enumerate().max_by_key(|(at, address)| (counts[address], *at));
        if let Some((_, newcomer)) = most.and_then(|(at, _)| self.door.remove(at)) {
            self.turn_away(newcomer);
        }
    }

    /// Who is let in next, if there is a place: the first of some address, rather not of that of the one before.
    fn next_at_door(&mut self) -> Option<usize> {
        let mut seen = HashSet::new();
        let addresses = self.door.iter().map(|(_, newcomer)| newcomer.address());
        let mut firsts: Vec<(usize, usize)> = addresses.enumerate().filter(|(_, it)| seen.insert(*it)).collect();
        firsts.sort_by_key(|(_, address)| *address == self.let_in);
        let mut firsts = firsts.into_iter().take(ADDRESSES_MAX);
        firsts.find(|(_, address)| self.has_place() || self.make_place(*address)).map(|(at, _)| at)
    }

    /// Lets those at the door in, as far as there are places now; who has stood there for long enough is told that there are none.
    fn open_door(&mut self) {
        while let Some((came, _)) = self.door.front() {
            let is_late = self.is_draining() || self.now.since(*came) >= evict::WAIT_MAX;
            if let Some(next) = self.next_at_door() {
                let Some((_, newcomer)) = self.door.remove(next) else { return };
                self.let_in = newcomer.address();
                self.take_in(newcomer, false);
            } else if is_late && let Some((_, newcomer)) = self.door.pop_front() {
                self.turn_away(newcomer);
            } else {
                return;
            }
        }
    }

    fn has_place(&self) -> bool {
        self.connections.len() - self.reserved < self.context.settings.http_connections_max
    }

    fn take_in(&mut self, mut newcomer: Newcomer<E::Socket>, reserved: bool) {
        let entry = self.connections.vacant_entry();
        let token = entry.key() as Token;
        if let Err(error) = self.edge.watch(&mut newcomer.socket, token) {
            let (log, peer) = (&self.context.shared.log, newcomer.peer);
            tell!(log, Kind::Unwatched, self.now, WARN, { %peer, %error }, "a socket could not be watched");
            return;
        }
        let mut connection = Connection::new(newcomer, self.now, &self.pending);
        connection.reserved = reserved;
        connection.held = self.edge.held(&connection.socket);
        entry.insert(connection);
        self.reserved += usize::from(reserved);
        self.begin_pace(token);
        self.attend_to(token);
    }

    /// Says 503 without waiting. What the client has sent is read, so that closing doesn't reset the connection before the
    /// answer has arrived.
    fn turn_away(&mut self, newcomer: Newcomer<E::Socket>) {
        let Newcomer { mut socket, peer, by, received, .. } = newcomer;
        self.context.shared.metrics.refuse(Refusal::HttpFull);
        let (log, why) = (&self.context.shared.log, Refusal::HttpFull);
        tell!(log, Kind::Refused(why), self.now, INFO, { %peer, why = why.name() }, "refused");
        let mut answer = Vec::new();
        let text = "There are too many HTTP connections: try again later.";
        let refusal = refusal(503, text).header("Retry-After", "1").made_at(self.edge.wall_us());
        refusal.keep_alive(false).read_by(&self.readers_of(by, &received)).write(&mut answer, false);
        if let Sent::Took(_) = self.edge.send(&mut socket, &answer) {
            self.edge.finish(&mut socket);
            let _: Received = self.edge.receive(&mut socket, &mut self.read);
        }
    }

    /// Reads what has come, and sends what there is room for now. Probes are answered at once, the others in their turn.
    fn read_all(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        if !ready.is_empty() {
            // So that nobody is always the last, where a turn has not time for all.
            let first = self.turns % ready.len();
            ready.rotate_left(first);
        }
        for event in &ready {
            if event.writable && self.connections.contains(event.token as usize) {
                self.has_room(event.token);
            }
            // Those that are left out are ready again in the next turn.
            if event.readable && self.worked < work::TURN && self.connections.contains(event.token as usize) {
                self.read_one(event.token);
                self.attend_to(event.token);
            }
        }
        self.ready = ready;
    }

    /// Answers what was read at once if it is a probe's, or else in its turn.
    fn attend_to(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token as usize) else { return };
        let is_probe = matches!(connection.stage, connection::Stage::Head) && is_probe(&connection.input);
        if is_probe && connection.out.is_empty() && !connection.again && connection.waits.is_none() {
            self.serve(token);
        } else if !connection.input.is_empty() || connection.ended {
            self.queue(token);
        }
    }

    /// Lets a connection go on as soon as it is its turn.
    fn queue(&mut self, token: Token) {
        let connection = &mut self.connections[token as usize];
        if !connection.again {
            connection.again = true;
            self.again.push_back(token);
        }
    }

    /// Lets those go on whose turn it is, one after the other, until all had one or the time is up.
    fn serve_queued(&mut self) {
        for _ in 0..self.again.len() {
            if self.worked >= work::TURN {
                break;
            }
            let Some(token) = self.again.pop_front() else { break };
            if let Some(connection) = self.connections.get_mut(token as usize)
                && std::mem::take(&mut connection.again)
            {
                self.serve(token);
            }
        }
    }

    /// Lets those go on for whose answers there is room now, in the order in which they came.
    fn serve_waiting(&mut self) {
        for _ in 0..self.waiting.len() {
            if self.worked >= work::TURN {
                break;
            }
            let Some(token) = self.waiting.pop_front() else { break };
            let waits = |connection: &Connection<E::Socket>| connection.waits.is_some();
            if !self.connections.get(token as usize).is_some_and(waits) {
                continue;
            }
            self.serve(token);
            if self.connections.get(token as usize).is_some_and(waits) {
                // There is none. It stands behind the others now, and is to be the first again.
                self.waiting.rotate_right(1);
                break;
            }
        }
    }

    /// Lets those publish again that were held back, once workers have come on: whoever publishes little before the others.
    fn let_go_on(&mut self) {
        let (holds, allowance) = (self.publisher.holds(self.now), self.publisher.allowance(self.now));
        for token in std::mem::take(&mut self.paused) {
            let waits = |connection: &Connection<E::Socket>| match &connection.stage {
                connection::Stage::Body(upload) => upload.sender.has_published_much(allowance, self.now),
                _ => false,
            };
            if holds && self.connections.get(token as usize).is_some_and(waits) {
                self.paused.push(token);
                continue;
            }
            // One that has gone meanwhile is passed by, and so is another that has its token.
            let Some(since) = self.connections.get_mut(token as usize).and_then(|connection| connection.paused.take())
            else {
                continue;
            };
            self.publisher.was_held(Door::Http, self.now.since(since));
            let connection = &mut self.connections[token as usize];
            connection.heard = self.now;
            if std::mem::take(&mut connection.apart) {
                connection.reads = true;
                if self.edge.watch(&mut connection.socket, token).is_err() {
                    self.remove(token);
                    continue;
                }
            }
            self.begin_pace(token);
            self.queue(token);
        }
    }

    /// Lets those go on whom a worker has answered.
    fn let_lookers_go_on(&mut self) {
        for token in std::mem::take(&mut self.looking) {
            // One that has gone meanwhile is passed by, and so is another that has its token.
            let Some(connection) = self.connections.get_mut(token as usize) else { continue };
            let connection::Stage::Looking(look) = &connection.stage else { continue };
            if !look.is_answered() {
                self.looking.push(token);
                continue;
            }
            if std::mem::take(&mut connection.apart) {
                connection.reads = true;
                if self.edge.watch(&mut connection.socket, token).is_err() {
                    self.remove(token);
                    continue;
                }
            }
            self.queue(token);
        }
    }

    /// Looks at the connections that have been waited for long enough. There are few of them (`--max-http-connections`), so
    /// looking at all is cheaper than keeping them in order.
    fn expire(&mut self) {
        let now = self.now;
        let late: Vec<Token> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.due <= now && !connection.again)
            .map(|(token, _)| token as Token)
            .collect();
        for token in late {
            self.time_out(token);
        }
    }

    /// How long everything is waited for.
    fn patience(&self) -> Patience {
        Patience {
            keep_alive: self.live.keep_alive_timeout,
            head: self.live.handshake_timeout,
            step: self.live.close_timeout,
            rate: self.live.http_rate_min,
        }
    }

    /// The server stops: connections between two requests end now, the others with their answer.
    fn drain(&mut self, until: Moment) {
        self.until = Some(until);
        self.stop_accepting();
        let idle: Vec<Token> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_idle())
            .map(|(token, _)| token as Token)
            .collect();
        for token in idle {
            self.remove(token);
        }
    }

    fn is_draining(&self) -> bool {
        self.until.is_some()
    }

    fn is_ready(&self) -> bool {
        self.context.shared.welcomes() && !self.is_draining()
    }

    /// Ends every trace of a connection.
    fn remove(&mut self, token: Token) {
        let connection = self.connections.remove(token as usize);
        self.reserved -= usize::from(connection.reserved);
    }
}
