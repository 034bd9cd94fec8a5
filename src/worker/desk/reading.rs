//! Reading: who is read next, how much at a time, and who has to wait.
//!
//! Whoever has sent something stands in a line in which addresses take turns, and is read a little at a time, until the turn's work
//! for reading is used up. Who was not read keeps its place. There are two lines: those that publish, and the others.
//!
//! ```text
//!   ready ─► others      a1 b1 a2 …  ─┐                   ┌─ there may be more ─► the end of its line
//!            publishers  a3 c1 …     ─┴─► one from each ──┤
//!                        ▲                                └─ that was all: told of when there is more
//!                        └─ held back while what was published before is not sent
//! ```
//!
//! What is published has to be sent before the tape rolls over it. So publishers are held back, and not read at all, while this
//! worker has as much on its way as it can do with ([`READ_TURN_BYTES`]), or while some worker is too far behind
//! (`publish/lead.rs`). Whoever publishes little is none of them, unless all those together are too much. Everybody else has a small share of reading in each turn all the same, so that pings, pongs, closes and
//! commands are seen. Who turns out to publish with it is a publisher from then on, until what it sends is something else.
//!
//! All that comes is charged, whatever it is and whatever state its connection is in: the call, each frame, each byte. A read is so
//! small that what is in it can't be more than a turn has left, and a little.

#[cfg(all(any(test, fuzzing), not(loom)))]
use super::super::connections::Connections;
use super::{
    super::{
        connection::{Phase, Ping, Reads, Undone},
        work::price,
    },
    Clerk,
    inflating::Inflating,
    messages::READ,
};
use crate::{
    clock::Moment,
    io::{Edge, Ready, Received, Token},
    limits::MUCH,
    metrics::Door,
    publish::HOLD_PAUSE,
    rota::{Group, Rota},
};

/// Bytes read from one connection at a time, at most: those of a large message, which can't be many small ones.
pub const READ_BYTES: usize = 64 * 1024;

/// Bytes of publications taken from all connections together in one turn, less what was planned before and is still on its way:
/// what they publish has to be sent before the tape rolls over it.
pub const READ_TURN_BYTES: usize = 256 * 1024;

/// Bytes read from one connection at a time while publishers are held back.
const SHARE: usize = 2048;

/// Publishers of whom it is looked in one turn whether they are to be held back still.
pub const LOOKS_MAX: usize = 16;

/// The part of the turn's reading that is for shares.
const SHARES: u64 = 4;

/// What one byte can cost at most: the smallest frame has six of them, and may be a bad command, which is answered.
const BYTE_MAX: u64 = (price::FRAME + price::COMMAND).div_ceil(6);

/// The same where messages may be compressed: what one inflates to is read, or copied to wait.
const DEFLATED_BYTE_MAX: u64 = BYTE_MAX + Inflating::byte_max(READ * price::LINE);

/// What the last read of a turn may go beyond the turn's work.
const BEYOND: u64 = 15_000;

/// Who stands in line to be read.
#[derive(Debug, Default)]
pub struct Reading {
    others: Rota,
    publishers: Rota,
    /// Publishers of whom something was read before and waits (`asking.rs`).
    held: Rota,
    /// It is the publishers' turn.
    alternates: bool,
    /// Bytes that may be taken from publishers in this turn.
    room: usize,
    /// Some worker is too far behind.
    awaits_workers: bool,
    /// Some who have published little wait as well: as much as this, or more.
    allowance: Option<f32>,
    /// When it was last looked whether publishers may go on.
    looked: Moment,
    /// Since when publishers have been held back.
    held_since: Option<Moment>,
}

impl Reading {
    /// Whether somebody can be read at once.
    #[inline]
    pub fn is_busy(&self) -> bool {
        !self.others.is_empty() || (self.has_publishers() && !self.awaits_workers)
    }

    /// How many stand in line.
    pub fn len(&self) -> usize {
        self.others.len() + self.publishers.len()
    }

    /// When to look again whether publishers may go on.
    #[inline]
    pub fn next_due(&self) -> Option<Moment> {
        self.awaits_workers().then_some(self.looked + HOLD_PAUSE)
    }

    /// Whether those who publish wait until workers have come on.
    pub fn awaits_workers(&self) -> bool {
        self.awaits_workers && self.has_publishers()
    }

    fn has_publishers(&self) -> bool {
        !(self.publishers.is_empty() && self.held.is_empty())
    }

    /// What those have published at least who have published little, and wait as well; none if none does.
    pub fn allowance(&self) -> Option<f32> {
        self.allowance
    }

    /// The workers have come on.
    pub fn let_go_on(&mut self) {
        self.awaits_workers = false;
    }

    /// Gives back room that was needed once.
    pub fn give_back(&mut self) {
        self.others.give_back();
        self.publishers.give_back();
        self.held.give_back();
    }

    /// Puts somebody behind the others who wait until publishers may go on, with what they have published already.
    pub fn hold(&mut self, group: Group, token: Token) {
        self.held.push(group, token);
    }

    /// How many these are.
    pub fn held_len(&self) -> usize {
        self.held.len()
    }

    /// Takes out one of these.
    pub fn next_held(&mut self) -> Option<Token> {
        self.held.next()
    }

    /// Whether publishers are held back.
    pub fn holds(&self) -> bool {
        self.room == 0 || self.awaits_workers
    }

    fn push(&mut self, group: Group, token: Token, publishes: bool) {
        let line = if publishes { &mut self.publishers } else { &mut self.others };
        line.push(group, token);
    }

    /// Who is read next: one from each line, as long as there is somebody in both.
    fn next(&mut self) -> Option<Token> {
        if self.holds() {
            return self.others.next();
        }
        self.alternates = !self.alternates;
        match self.alternates {
            true => self.publishers.next().or_else(|| self.others.next()),
            false => self.others.next().or_else(|| self.publishers.next()),
        }
    }
}

impl<E: Edge> Clerk<'_, E> {
    /// Sees to the sockets that are ready, and reads what has come into `buffer`, as much as one turn takes.
    pub fn read_all(&mut self, ready: &[Ready], buffer: &mut [u8]) {
        self.ground.work.charge(price::LOOK * ready.len() as u64);
        self.desk.reading.room =
            if self.fan.is_crowded() { 0 } else { READ_TURN_BYTES.saturating_sub(self.fan.planned_bytes()) };
        self.desk.reading.awaits_workers = self.some_worker_is_behind();
        self.desk.reading.looked = self.ground.now;
        self.desk.reading.allowance = None;
        for event in ready {
            if event.writable {
                self.has_room(event.token);
            }
            if event.readable {
                self.is_readable(event.token);
            }
        }
        self.let_held_go_on();
        self.read_in_turns(buffer);
        self.count_hold();
    }

    fn some_worker_is_behind(&self) -> bool {
        self.ground.shared.publisher.holds(self.ground.now)
    }

    /// The edge has told that there is something to read.
    fn is_readable(&mut self, token: Token) {
        self.stand_in_line(token);
        let Clerk { desk, ground, connections, .. } = self;
        let Some(connection) = connections.get_mut(token) else { return };
        if !(desk.reading.awaits_workers && connection.publishes) {
            return;
        }
        // It may be for long, and the worker is to sleep meanwhile.
        match connection.reads {
            Reads::Watched => {
                ground.edge.interest(&mut connection.socket, false);
                connection.reads = Reads::Parked;
            }
            Reads::Parked | Reads::Stopped => {
                ground.edge.unwatch(&mut connection.socket);
                connection.reads = Reads::Apart;
            }
            Reads::Apart => {}
        }
    }

    /// Puts a connection that may have something to read behind the others of its address, unless it stands there.
    pub fn stand_in_line(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.unread = true;
        if !std::mem::replace(&mut connection.queued, true) {
            self.desk.reading.push(connection.group(), token, connection.publishes);
        }
    }

    /// Reads those who stand in line, until nobody does or the work of the turn is done.
    fn read_in_turns(&mut self, buffer: &mut [u8]) {
        if self.desk.reading.holds() {
            self.release_small();
        }
        let whole = self.ground.work.left();
        while !self.ground.work.is_over() {
            let left = self.ground.work.left();
            if self.desk.reading.holds() && left < whole - whole / SHARES {
                break;
            }
            let Some(token) = self.desk.reading.next() else { break };
            self.ground.work.charge(price::LOOK);
            // One that has gone meanwhile is passed by, and so is another that has its token and stands behind.
            let Some(connection) = self.connections.get_mut(token).filter(|connection| connection.queued) else {
                continue;
            };
            (connection.queued, connection.unread) = (false, false);
            // What is still to come of a large message costs no more than its bytes.
            let byte_max = if connection.decoder.takes_deflated() { DEFLATED_BYTE_MAX } else { BYTE_MAX };
            let safe = ((left + BEYOND) / byte_max) as usize + connection.decoder.missing();
            let most = if self.desk.reading.holds() { safe.min(SHARE) } else { safe }.min(buffer.len());
            if self.is_watched_again(token) {
                self.read_one(token, &mut buffer[..most]);
            }
        }
        if self.ground.work.is_over() && self.desk.reading.is_busy() {
            self.ground.work.put_off();
        }
    }

    /// Has the edge watch a connection that is being read, where it didn't while that was held back. Returns false if it can't.
    fn is_watched_again(&mut self, token: Token) -> bool {
        let Clerk { ground, connections, .. } = self;
        let Some(connection) = connections.get_mut(token) else { return false };
        match std::mem::replace(&mut connection.reads, Reads::Watched) {
            Reads::Watched => {}
            Reads::Parked | Reads::Stopped => ground.edge.interest(&mut connection.socket, true),
            Reads::Apart => {
                if let Err(error) = ground.edge.watch(&mut connection.socket, token) {
                    self.lost(token, error.kind());
                    return false;
                }
                // Whether it has room, nobody told meanwhile.
                self.has_room(token);
            }
        }
        self.connections.get(token).is_some()
    }

    fn read_one(&mut self, token: Token, buffer: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let received = self.ground.edge.receive(&mut connection.socket, buffer);
        let records = self.ground.edge.take_records();
        self.ground.work.charge(price::SEND + price::RECORD * u64::from(records));
        match received {
            Received::Bytes(n) => self.take_in(token, buffer, n),
            Received::Nothing => {}
            Received::End if self.ends_later(token, None) || self.ends_answered(token) => {}
            Received::End => self.ended(token),
            Received::Broken(why) => self.lost(token, why),
        }
        self.stop_reading(token);
        self.note_held(token);
    }

    /// Takes in the first `n` bytes of the buffer, which a connection has sent.
    fn take_in(&mut self, token: Token, buffer: &mut [u8], n: usize) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.heard = self.ground.now;
        if connection.phase != Phase::Request {
            connection.ping = Ping::None;
        }
        self.ground.metrics.received_bytes.add(n as u64);
        self.ground.work.charge(price::lines(n));
        let published = self.ground.metrics.publications.get();
        match connection.phase {
            Phase::Request => self.feed_request(token, &buffer[..n]),
            Phase::Between => self.begin_request(token, &buffer[..n]),
            Phase::Answering | Phase::AnsweringLast => self.keep_for_later(token, &buffer[..n]),
            // What comes on a stream of events is nothing that anybody waits for.
            Phase::Open if !connection.lane.words().hears() => {}
            Phase::Open | Phase::Closing => self.feed(token, &mut buffer[..n]),
            Phase::Ending => {}
        }
        self.count_frames(token);
        let inflated = self.desk.inflating.take_inflated();
        let published = self.ground.metrics.publications.get() > published;
        let is_within = self.connections.get(token).is_some_and(|connection| connection.decoder.buffered() > 0);
        if published {
            self.note_published(n.max(inflated));
        } else if is_within {
            self.desk.reading.room = self.desk.reading.room.saturating_sub(n);
        }
        let waits_first = published && self.waits_first(token);
        let Some(connection) = self.connections.get_mut(token) else { return };
        // In the middle of a message, it is what it was; and until what it has sent is looked at.
        let is_unknown = is_within || connection.undone != Undone::Nothing;
        connection.publishes = waits_first || (connection.publishes && is_unknown);
        // Unless it was stopped: what comes behind a request that is being answered is not gathered.
        if n == buffer.len() && connection.reads != Reads::Stopped {
            self.stand_in_line(token);
        }
    }

    /// So many bytes were published.
    pub fn note_published(&mut self, bytes: usize) {
        self.desk.reading.room = self.desk.reading.room.saturating_sub(bytes);
        self.desk.reading.awaits_workers |= self.some_worker_is_behind();
    }

    /// Whether somebody who publishes is among those that are held back: whoever publishes little is not, unless there are too many
    /// of them.
    pub fn waits_first(&mut self, token: Token) -> bool {
        let (publisher, now) = (&self.ground.shared.publisher, self.ground.now);
        let account = self.connections.get(token).and_then(|connection| connection.permit.account());
        let Some(account) = account.filter(|account| !account.has_published_much(MUCH, now)) else { return true };
        let allowance = publisher.allowance(now);
        let waits = account.has_published_much(allowance, now);
        if waits {
            self.desk.reading.allowance = Some(allowance);
        }
        waits
    }

    /// Some of those who are held back publish little by now: they are read like the others.
    fn release_small(&mut self) {
        for _ in 0..self.desk.reading.publishers.len().min(LOOKS_MAX) {
            let Some(token) = self.desk.reading.publishers.next() else { break };
            self.ground.work.charge(price::LOOK);
            let waits_first = self.waits_first(token);
            let Some(connection) = self.connections.get_mut(token).filter(|connection| connection.queued) else {
                continue;
            };
            connection.publishes &= waits_first;
            self.desk.reading.push(connection.group(), token, connection.publishes);
        }
    }

    /// Charges the frames that a connection has sent, and counts those that have next to nothing in them.
    fn count_frames(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let came = connection.decoder.take_came();
        self.ground.work.charge(price::FRAME * u64::from(came.frames));
        if came.fragments > 0 {
            self.may_send_fragments(token, came.fragments);
        }
    }

    /// Counts how often, and for how long, publishers are held back.
    fn count_hold(&mut self) {
        let reading = &mut self.desk.reading;
        let held = &self.ground.shared.metrics.held[Door::WebSocket];
        match (reading.held_since, reading.holds() && reading.has_publishers()) {
            (None, true) => {
                reading.held_since = Some(self.ground.now);
                held.times.bump();
            }
            (Some(since), false) => {
                reading.held_since = None;
                held.us.add(self.ground.now.since(since).as_micros() as u64);
            }
            _ => {}
        }
    }
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl Reading {
    /// Asserts that whoever is to be read stands in line.
    pub fn invariants<S>(&self, connections: &Connections<S>) {
        let in_line: std::collections::HashSet<Token> = self.others.tokens().chain(self.publishers.tokens()).collect();
        let held: std::collections::HashSet<Token> = self.held.tokens().collect();
        for (token, connection) in connections.iter() {
            assert!(connection.undone != Undone::Held || held.contains(&token), "whoever is held back is let go on");
            assert!(!connection.queued || in_line.contains(&token), "whoever is to be read stands in line");
            let is_seen = matches!(connection.reads, Reads::Watched | Reads::Stopped);
            assert!(connection.queued || is_seen, "whoever isn't watched stands in line");
        }
    }
}
