//! Setting connections up: on a schedule of its own, without waiting for any of them.
//!
//! Connections are begun when they are due, whatever became of those before (with `--connect-rate`), or as fast as they
//! are answered, so many at a time (without). The time that one takes counts from when it was due.

use std::sync::Arc;

use super::{Receiver, Report};
use crate::{
    clock,
    connection::Stage,
    dialect::Gaps,
    handshake::{self, Answer},
    line::{Arrival, Line},
    meter::Phase,
    socket::{self, Interest},
    units,
};

/// How far the ramp is.
#[derive(Default)]
pub(super) struct Opening {
    from: u64,
    begun: usize,
    live: usize,
    failed: usize,
    under_way: usize,
    looked_at: u64,
    reported_at: u64,
    why: Option<String>,
    running: bool,
}

/// Connections being set up at a time where no rate is given: fewer than the 128 that servers by default let wait.
const AT_ONCE: usize = 64;

/// Time between two looks over all connections that have begun: at 20,000 a look takes 20 us.
const LOOK_NS: u64 = 2_000_000;

/// Time between two reports of progress.
const REPORT_NS: u64 = 50_000_000;

impl Opening {
    /// Connections are due from this moment on.
    pub fn begin(&mut self, from: u64) {
        (self.from, self.running) = (from, true);
    }

    /// Whether some are not up yet.
    pub fn is_pending(&self) -> bool {
        self.running || self.under_way > 0
    }
}

impl Receiver {
    /// Begins the connections that are due, and tells how far it is.
    pub(super) fn open_due(&mut self, now: u64) {
        if !self.opening.is_pending() {
            return;
        }
        while self.opening.running && self.opening.begun < self.conns.len() {
            let index = self.opening.begun;
            if self.shared.spec.joins_late(self.conns[index].nth) {
                self.opening.begun += 1;
                continue;
            }
            let due = match self.shared.spec.connect_rate {
                Some(rate) => self.opening.from + self.due(index, rate.0),
                None if self.opening.under_way >= AT_ONCE => break,
                None => clock::now(),
            };
            if due > now.max(clock::now()) {
                break;
            }
            self.opening.begun += 1;
            self.begin(index, due);
        }
        if now >= self.opening.looked_at + LOOK_NS {
            self.opening.looked_at = now;
            self.look_over(now);
        }
        self.report_opening(now);
    }

    /// When a connection is due after the first: by its number, all parts taking turns.
    fn due(&self, index: usize, rate: f64) -> u64 {
        let spec = &self.shared.spec;
        let nth = (self.conns[index].nth - spec.share_of_subs().0) * spec.part.of + spec.part.index;
        (nth as f64 * 1e9 / rate) as u64
    }

    /// Begins one connection, now or again.
    pub(super) fn begin(&mut self, index: usize, due: u64) {
        let shared = &self.shared;
        let nth = self.conns[index].nth - shared.spec.share_of_subs().0;
        let source = shared.sources.of(nth);
        let receive_buffer = shared.spec.receive_buffer_of(self.conns[index].nth);
        (self.conns[index].begun, self.conns[index].reached) = (due, due);
        self.opening.under_way += 1;
        self.conns[index].stage = Stage::Connecting;
        let begun = socket::connect(shared.target, source, receive_buffer).and_then(|fd| {
            self.poller.add(&fd, index as u64, Interest::OUT)?;
            Ok(fd)
        });
        let session = shared.peer.as_ref().map(|peer| peer.session(self.conns[index].ticket.as_ref())).transpose();
        match (begun, session) {
            (Ok(fd), Ok(session)) => self.conns[index].line = Some(Arc::new(Line::over(fd, session))),
            (Err(error), _) => self.failed(index, format!("connecting: {error}")),
            (_, Err(error)) => self.failed(index, format!("{error:#}")),
        }
    }

    /// TCP is done: begins TLS, or asks for the upgrade.
    pub(super) fn connected(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        let Some(line) = conn.line.as_ref().map(Arc::clone) else { return };
        if let Err(error) = socket::connected(&line.fd) {
            return self.failed(index, format!("connecting: {error}"));
        }
        self.judge.interval.reached(conn, Phase::Tcp, clock::now());
        if !line.has_tls() {
            return self.ask(index, &line);
        }
        match line.greet().and_then(|()| self.poller.modify(&line.fd, index as u64, Interest::IN)) {
            Ok(()) => self.conns[index].stage = Stage::Securing,
            Err(error) => self.failed(index, format!("in the TLS handshake: {error}")),
        }
    }

    /// Some of the server's part of TLS is there.
    pub(super) fn securing(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        let Some(line) = conn.line.as_ref().map(Arc::clone) else { return };
        match line.shake(&mut self.records) {
            Ok(true) => {
                self.judge.interval.reached(conn, Phase::Tls, clock::now());
                self.ask(index, &line);
            }
            Ok(false) => {}
            Err(error) => self.failed(index, format!("in the TLS handshake: {error}")),
        }
    }

    /// Asks for the upgrade.
    fn ask(&mut self, index: usize, line: &Line) {
        if self.shared.dialect.polls() {
            return self.poll(index, line, clock::now());
        }
        let dialect = &self.shared.dialect;
        let mut request = Vec::new();
        let conn = &self.conns[index];
        let path = dialect.subscribe_path(&conn.topics.topics());
        let host = &dialect.subscribe_url().host;
        let mut headers = dialect.headers().to_vec();
        headers.extend(self.shared.spec.offer().map(|offer| offer.header().to_owned()));
        let key = handshake::request(host, &path, &headers, &mut request);
        let sent = line.write(&request).and_then(|_| self.poller.modify(&line.fd, index as u64, Interest::IN));
        match sent {
            Ok(()) => self.conns[index].stage = Stage::Upgrading(key),
            Err(error) => self.failed(index, format!("connecting: {error}")),
        }
    }

    /// Some of the answer is there.
    pub(super) fn upgrading(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        let (Some(line), Stage::Upgrading(key)) = (conn.line.as_ref().map(Arc::clone), conn.stage) else { return };
        let ended = match line.recv(&mut self.buffer, &mut self.records) {
            Ok(Arrival::Data(len, _)) => {
                conn.partial.extend_from_slice(&self.buffer[..len]);
                false
            }
            Ok(Arrival::Empty) => return,
            Ok(Arrival::End) => true,
            Err(error) => return self.failed(index, format!("in the handshake: {error}")),
        };
        match handshake::judge_with(&conn.partial, &key, self.shared.spec.offer()) {
            Answer::Incomplete if ended => self.failed(index, "it hung up in the handshake".into()),
            Answer::Incomplete => {}
            Answer::Refused(why) => self.failed(index, why),
            Answer::Accepted(len) => {
                conn.partial.drain(..len);
                conn.context = None;
                self.judge.interval.reached(conn, Phase::Upgrade, clock::now());
                self.subscribe(index);
            }
        }
    }

    /// The connection is a WebSocket: says what it wants to hear.
    fn subscribe(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        let Some(line) = conn.line.as_ref().map(Arc::clone) else { return };
        conn.stage = Stage::Subscribing;
        let dialect = &self.shared.dialect;
        let mut say = |message: &[u8]| {
            // A line that is broken shows at the next read.
            let _ = line.write_frame(dialect.opcode(), message);
        };
        let (topics, latest) = (conn.topics.topics(), conn.gaps != Gaps::Never);
        dialect.greet(&mut say);
        dialect.subscribe(&topics, latest, &mut say);
        conn.waiting = dialect.go(0, &topics, &mut say).unwrap_or_default();
        let now = clock::now();
        if !dialect.acknowledges() {
            self.judge.joined(conn, now);
        }
        let early = std::mem::take(&mut conn.partial);
        let taken = self.judge.take(conn, &early, now);
        conn.partial.extend_from_slice(&early[taken..]);
        if self.shared.spec.echoes() {
            self.report(Report::Line(self.conns[index].nth, line));
        }
    }

    /// Subscribes anew on a connection that is up.
    pub(super) fn resubscribe(&mut self, index: usize, due: u64) {
        let conn = &mut self.conns[index];
        let Some(line) = conn.line.as_ref().map(Arc::clone) else { return };
        let (topics, latest) = (conn.topics.topics(), conn.gaps != Gaps::Never);
        conn.begun = due;
        conn.returned = true;
        conn.ledger.reset();
        conn.stage = Stage::Subscribing;
        self.opening.under_way += 1;
        let dialect = &self.shared.dialect;
        let mut say = |message: &[u8]| {
            let _ = line.write_frame(dialect.opcode(), message);
        };
        dialect.unsubscribe(&topics, &mut say);
        dialect.subscribe(&topics, latest, &mut say);
        if !dialect.acknowledges() {
            self.judge.joined(conn, clock::now());
        }
    }

    /// A connection cannot be set up.
    pub(super) fn failed(&mut self, index: usize, why: String) {
        let conn = &mut self.conns[index];
        conn.ended = None;
        conn.hang_up(Stage::Over);
        self.judge.checks.failed += 1;
        self.judge.checks.remark(why.clone());
        self.opening.why = Some(why);
    }

    /// Counts how far the connections are, and gives up those that take too long.
    fn look_over(&mut self, now: u64) {
        let limit = self.shared.spec.timeout;
        let (mut live, mut failed, mut under_way) = (0, 0, 0);
        for index in 0..self.opening.begun {
            match self.conns[index].stage {
                Stage::Live => live += 1,
                Stage::Over => failed += 1,
                Stage::Idle => {}
                _ if now > self.conns[index].begun.saturating_add(limit.0) => {
                    let why = match self.conns[index].stage {
                        Stage::Connecting => "connecting",
                        Stage::Securing => "the TLS handshake",
                        Stage::Upgrading(_) => "the handshake",
                        _ => "the subscription",
                    };
                    self.failed(index, format!("{why} was not done within {}", units::time(limit.0 as f64)));
                    failed += 1;
                }
                _ => under_way += 1,
            }
        }
        (self.opening.live, self.opening.failed, self.opening.under_way) = (live, failed, under_way);
    }

    fn report_opening(&mut self, now: u64) {
        let all = self.opening.begun == self.conns.len() && self.opening.under_way == 0;
        if self.opening.running && (all || now >= self.opening.reported_at + REPORT_NS) {
            self.opening.reported_at = now;
            self.opening.running = !all;
            let (live, failed, why) = (self.opening.live, self.opening.failed, self.opening.why.clone());
            self.report(Report::Opened { thread: self.thread, live, failed, why });
        }
    }
}
