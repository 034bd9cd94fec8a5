//! The control thread: everything that is plain HTTP, so that a scrape never lengthens a worker's turn.
//!
//! A worker reads the first request of a connection; what is not for it comes here, socket and bytes. From then on this
//! thread owns the connection, and waits for all of them in one place. An upgrade that comes later on the same connection
//! goes back to the worker with the fewest connections.
//!
//! ```text
//!   wait ─► take over ─► read, answer ─► expire ─► sweep
//!             sockets     requests        timers    topics nobody needs
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `connection` | what is kept of a connection, and until when |
//! | `serve` | requests in order, answers in order, and the ends of connections |
//! | `route` | which address is answered by what |
//! | `upload` | publishing: one payload, or line by line |
//! | `topics` | what topics there are, and their last values |
//! | `metrics` | the figures, for Prometheus |
//! | `slow` | who is behind, and how far |
//! | `page` | the console, and the JavaScript client |
//! | `sweep` | forgetting topics |
//!
//! Everything is bounded: the connections by `--max-http-connections`, a head by `--max-head`, a body by `--max-body` and
//! what is kept of it by `--max-message`. A client with answers that it has not taken is not read from, so it can't pile up
//! more of them.

mod connection;
mod metrics;
mod page;
mod route;
mod serve;
mod slow;
mod sweep;
#[cfg(test)]
mod tests;
mod topics;
mod upload;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::Receiver;
use rustix::fd::OwnedFd;
use slab::Slab;

use self::{connection::Connection, metrics::Exposition, sweep::Sweep};
use crate::{
    clock::Moment,
    config::Config,
    handover::{Arrival, Inbox, Message},
    http::response::refusal,
    io::{Edge, Ready, Received, Sent, Token, epoll::Epoll, waker::Sleep},
    limits::Limits,
    log::{Kind, tell},
    metrics::Refusal,
    publish::Publisher,
    tape::Tape,
    worker,
};

/// Bytes taken from one connection in one turn: a few hundred lines of a feed. Also what a connection can hold beyond a head.
const READ_BYTES: usize = 64 * 1024;

/// Sockets taken over in one turn.
const TAKE_OVER_MAX: usize = 256;

/// How long a connection may be quiet between two requests. Prometheus scrapes every 15 seconds by default and connects anew
/// if it must; longer would let idle clients hold places for nothing.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// What the control thread needs to know of the configuration, beside what it shares with the workers.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub http_connections_max: usize,
    pub body_max: u64,
    /// How long a connection may be quiet between two requests.
    pub keep_alive: Duration,
    /// Zero for never.
    pub topic_expiry: Duration,
    pub topics_max: usize,
    pub value_bytes_max: u64,
    pub retain_bytes: u64,
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Settings {
        Settings {
            http_connections_max: config.max_http_connections,
            body_max: config.max_body.as_u64(),
            keep_alive: KEEP_ALIVE,
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
    pub settings: Settings,
    pub shared: Arc<worker::Shared>,
    pub tape: Tape,
    pub limits: Arc<Limits>,
    pub workers: Vec<Inbox<OwnedFd>>,
    /// True while new connections are welcome.
    pub readiness: Arc<AtomicBool>,
    /// When the server started.
    pub started: Moment,
}

/// The control thread's state.
pub(crate) struct Control {
    context: Context,
    publisher: Publisher,
    exposition: Exposition,
    edge: Epoll,
    inbox: Receiver<Message<OwnedFd>>,
    connections: Slab<Connection>,
    /// Connections that have more to do without anything happening on their sockets.
    again: Vec<Token>,
    /// The moment of this turn.
    now: Moment,
    sweep: Sweep,
    /// Done by then, once the server stops.
    until: Option<Moment>,
    // Buffers that are used again every turn.
    read: Vec<u8>,
    ready: Vec<Ready>,
}

impl Control {
    /// A control thread that finds its sockets in `inbox`, whose bell `edge` was made with.
    pub(crate) fn new(context: Context, edge: Epoll, inbox: Receiver<Message<OwnedFd>>) -> Control {
        let now = edge.now();
        Control {
            publisher: context.shared.publisher.over_http(),
            exposition: Exposition::new(context.clone()),
            context,
            edge,
            inbox,
            connections: Slab::new(),
            again: Vec::new(),
            now,
            sweep: Sweep::new(now),
            until: None,
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
        self.take_all_over();
        self.serve_all();
        self.expire();
        self.sweep.advance(self.now, &self.context);
        self.context.shared.metrics.http_connections.set(self.connections.len() as u64);
        let is_over = |until| self.connections.is_empty() && self.inbox.is_empty() || self.now >= until;
        !self.until.is_some_and(is_over)
    }

    fn wait(&mut self) {
        let now = self.edge.now();
        let due = self.connections.iter().map(|(_, connection)| connection.due).min().unwrap_or(Moment::NEVER);
        let due = due.min(self.sweep.due()).min(self.until.unwrap_or(Moment::NEVER));
        let timeout = if self.again.is_empty() { due.since(now) } else { Duration::ZERO };
        let inbox = &self.inbox;
        self.edge.wait(Some(timeout), Sleep::Deep, &mut || !inbox.is_empty(), &mut self.ready);
    }

    fn take_all_over(&mut self) {
        for _ in 0..TAKE_OVER_MAX {
            match self.inbox.try_recv() {
                Ok(Message::Take(arrival)) => self.take_over(arrival),
                Ok(Message::Drain { until }) => self.drain(until),
                Err(_) => break,
            }
        }
    }

    /// Makes a connection of a socket, or says that there are too many.
    fn take_over(&mut self, arrival: Arrival<OwnedFd>) {
        if self.connections.len() >= self.context.settings.http_connections_max {
            return self.turn_away(arrival);
        }
        let entry = self.connections.vacant_entry();
        let token = entry.key() as Token;
        if let Err(error) = self.edge.watch(&arrival.socket, token) {
            let log = &self.context.shared.log;
            tell!(log, Kind::Unwatched, self.now, WARN, { peer = %arrival.peer, %error }, "a socket could not be watched");
            return;
        }
        entry.insert(Connection::new(arrival, self.now));
        self.serve(token);
    }

    /// Says 503 without waiting. What the client has sent is read, so that closing doesn't reset the connection before the
    /// answer has arrived.
    fn turn_away(&mut self, arrival: Arrival<OwnedFd>) {
        self.context.shared.metrics.refuse(Refusal::HttpFull);
        let (log, why) = (&self.context.shared.log, Refusal::HttpFull);
        tell!(log, Kind::Refused(why), self.now, INFO, { peer = %arrival.peer, why = why.name() }, "refused");
        let mut answer = Vec::new();
        let text = "There are too many HTTP connections: try again later.";
        refusal(503, text).header("Retry-After", "1").keep_alive(false).write(&mut answer, false);
        if let Sent::Took(_) = self.edge.send(&arrival.socket, &answer) {
            self.edge.finish(&arrival.socket);
            let _: Received = self.edge.receive(&arrival.socket, &mut self.read);
        }
    }

    fn serve_all(&mut self) {
        for token in std::mem::take(&mut self.again) {
            if let Some(connection) = self.connections.get_mut(token as usize)
                && std::mem::take(&mut connection.again)
            {
                self.serve(token);
            }
        }
        let ready = std::mem::take(&mut self.ready);
        for event in &ready {
            if event.writable && self.connections.contains(event.token as usize) {
                self.has_room(event.token);
            }
            if event.readable && self.connections.contains(event.token as usize) {
                self.read_one(event.token);
            }
        }
        self.ready = ready;
    }

    /// Looks at the connections that have been waited for long enough. There are few of them (`--max-http-connections`), so
    /// looking at all is cheaper than keeping them in order.
    fn expire(&mut self) {
        let now = self.now;
        let late: Vec<Token> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.due <= now)
            .map(|(token, _)| token as Token)
            .collect();
        for token in late {
            self.time_out(token);
        }
    }

    /// The server stops: connections between two requests end now, the others with their answer.
    fn drain(&mut self, until: Moment) {
        self.until = Some(until);
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
        // Relaxed: a probe may as well have come a moment earlier.
        self.context.readiness.load(Ordering::Relaxed) && !self.is_draining()
    }

    /// Ends every trace of a connection.
    fn remove(&mut self, token: Token) {
        drop(self.connections.remove(token as usize));
    }
}
