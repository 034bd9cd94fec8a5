//! A receiving thread: one epoll, many subscribers, one buffer.
//!
//! The loop is: wait, read what is ready and judge it, and every few milliseconds look at the clock: begin connections
//! that are due, close an interval, disturb whom the scenario disturbs, take orders, see whether everything has come.
//! Nothing in it waits for anything but the one wait.
//!
//! A delivery's moment of receipt is when the read that completed it returned; with TLS, before what was read is decrypted. So what a read's own
//! decrypting takes is in no latency; what is read behind it waits for it, as it does for the judging.

mod account;
mod disturb;
mod heartbeat;
mod judge;
mod open;
mod polls;
mod recent;

use std::{io, os::fd::AsFd, sync::Arc};

use crossbeam_channel::{Receiver as Orders, Sender};

pub use self::recent::room as recent_room;
use self::{account::Bare, disturb::Disturber, heartbeat::Heartbeats, judge::Judge};
use crate::{
    clock,
    connection::{Connection, Stage},
    line::{Arrival, Line},
    meter::{Checks, Interval},
    segments,
    shared::Shared,
    socket::{self, Interest, Poller, Waker},
    spec::Disturbance,
    tls::{self, Peer},
    watchlist,
};

/// What a receiving thread is told.
#[derive(Clone, Debug)]
pub enum Order {
    /// Set the connections up, from this moment on.
    Connect(u64),
    /// The run begins; `Shared::classes` knows when.
    Run,
    /// Nothing more is published: finish when all has come, or at this moment.
    Finish(u64),
}

/// What a receiving thread reports.
pub enum Report {
    /// So many of its connections are up and so many failed.
    Opened {
        /// Which thread.
        thread: usize,
        /// Connections that are up.
        live: usize,
        /// Connections that failed.
        failed: usize,
        /// Why the latest of them did.
        why: Option<String>,
    },
    /// A second is over.
    Interval(usize, Box<Interval>),
    /// A connection over which round trips can be made.
    Line(usize, Arc<Line>),
    /// All measured connections are gone.
    Deserted(String),
    /// It is done; what it found in all.
    Done(usize, Box<Checks>),
    /// It could not go on.
    Broken(String),
}

/// A thread of subscribers.
pub struct Receiver {
    shared: Arc<Shared>,
    thread: usize,
    poller: Poller,
    waker: Arc<Waker>,
    orders: Orders<Order>,
    reports: Sender<Report>,
    conns: Vec<Connection>,
    buffer: Vec<u8>,
    /// What comes of connections with TLS, before it is decrypted.
    records: Vec<u8>,
    judge: Judge,
    opening: open::Opening,
    disturber: Option<Disturber>,
    heartbeats: Option<Heartbeats>,
    bare: Bare,
    finish_at: Option<u64>,
    sample_at: usize,
    samples: Vec<u64>,
    /// Segments received before the measured part; none where they aren't counted.
    segments_before: Option<u64>,
    cpu_mark: u64,
    tls_mark: tls::Work,
}

/// Token of the waker; connections have their index.
const WAKER: u64 = u64::MAX;

/// The time between two looks at the clock's business. Intervals, timeouts and the end are as exact as this.
const TICK_NS: u64 = 10_000_000;

/// While connections are begun or subscribers disturbed, it is this.
const FINE_TICK_NS: u64 = 1_000_000;

/// One read's size. Four of loopback's largest segments; more made no difference.
const BUFFER: usize = 256 * 1024;

/// An interval's length.
pub const INTERVAL_NS: u64 = 1_000_000_000;

impl Receiver {
    /// A thread's worth of subscribers, none of them connected.
    pub fn new(
        shared: Arc<Shared>,
        thread: usize,
        waker: Arc<Waker>,
        orders: Orders<Order>,
        reports: Sender<Report>,
    ) -> io::Result<Self> {
        let spec = &shared.spec;
        let conns = Shared::connections_of(spec, thread)
            .into_iter()
            .map(|nth| {
                let gaps = shared.dialect.gaps(watchlist::is_latest(spec, nth));
                let mut conn = Connection::new(nth, shared.lists.of(nth), gaps, spec.disturbs(nth));
                // What was published before it comes is no loss, as for one that comes back.
                conn.returned = spec.joins_late(nth);
                if shared.dialect.acknowledges() && !conn.returned {
                    conn.ledger = conn.ledger.from_the_first();
                }
                conn.ticket = shared.peer.as_ref().and_then(Peer::ticket);
                conn
            })
            .collect();
        let poller = Poller::new()?;
        poller.add(&*waker, WAKER, Interest::IN)?;
        Ok(Self {
            judge: Judge::new(Arc::clone(&shared), thread, clock::now()),
            disturber: None,
            heartbeats: None,
            opening: open::Opening::default(),
            buffer: vec![0; BUFFER],
            records: Vec::new(),
            tls_mark: tls::work(),
            bare: Bare::default(),
            finish_at: None,
            sample_at: 0,
            samples: Vec::new(),
            segments_before: None,
            cpu_mark: clock::thread_cpu(),
            shared,
            thread,
            poller,
            waker,
            orders,
            reports,
            conns,
        })
    }

    /// Works until told to finish.
    pub fn run(mut self) {
        if let Err(error) = self.work() {
            self.report(Report::Broken(format!("receiving: {error}")));
        }
        self.judge.checks.missing += self.conns.iter().map(|conn| self.missing(conn)).sum::<u64>();
        self.judge.interval.segments =
            self.segments().zip(self.segments_before).map(|(now, before)| now.saturating_sub(before));
        self.close_interval(clock::now());
        let checks = Box::new(std::mem::take(&mut self.judge.checks));
        self.report(Report::Done(self.thread, checks));
    }

    fn work(&mut self) -> io::Result<()> {
        let mut tick_at = clock::now();
        loop {
            let ready = self.poller.wait(Some(&clock::until(tick_at)))?;
            for nth in 0..ready {
                let (token, what) = self.poller.event(nth);
                self.ready(token, what);
            }
            let now = clock::now();
            if now >= tick_at {
                if self.tick(now) {
                    return Ok(());
                }
                tick_at = now + if self.is_busy_with_time() { FINE_TICK_NS } else { TICK_NS };
            }
        }
    }

    fn is_busy_with_time(&self) -> bool {
        self.opening.is_pending() || self.disturber.is_some()
    }

    /// What the clock asks for; true when everything is done.
    fn tick(&mut self, now: u64) -> bool {
        self.take_orders(now);
        self.open_due(now);
        self.disturb(now);
        self.beat(now);
        self.sample_backlog();
        self.turn_interval(now);
        self.shared.stopped() || self.finish_at.is_some_and(|at| now >= at || self.has_everything())
    }

    fn take_orders(&mut self, now: u64) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Connect(from) => {
                    self.opening.begin(from);
                    self.heartbeats = Heartbeats::new(&self.shared.spec, &self.shared.dialect, from);
                }
                Order::Run => {
                    self.close_interval(now);
                    self.disturber = match self.shared.spec.disturbance {
                        Disturbance::None => None,
                        _ => Some(Disturber::new(&self.shared, self.thread)),
                    };
                }
                Order::Finish(at) => self.finish_at = Some(at),
            }
        }
    }

    fn ready(&mut self, token: u64, what: Interest) {
        if token == WAKER {
            return self.waker.clear();
        }
        let index = token as usize;
        match self.conns[index].stage {
            Stage::Idle | Stage::Over => {}
            Stage::Connecting => self.connected(index),
            Stage::Securing => self.securing(index),
            Stage::Upgrading(_) => self.upgrading(index),
            Stage::Subscribing | Stage::Live => {
                if what.contains(Interest::OUT) {
                    self.flush(index);
                }
                if what.intersects(Interest::IN | Interest::HUP | Interest::ERR) {
                    self.read(index, usize::MAX);
                }
            }
        }
    }

    /// Reads once from a connection, at most so much, and judges what came.
    fn read(&mut self, index: usize, most: usize) {
        let conn = &mut self.conns[index];
        let Some(line) = conn.line.as_ref().map(Arc::clone) else { return };
        let carried = conn.partial.len();
        let room = carried + most.clamp(1, BUFFER) + line.reserve();
        let wanted = room.max(conn.needs + line.reserve());
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let end = if most == usize::MAX { self.buffer.len() } else { room };
        self.buffer[..carried].copy_from_slice(&conn.partial);
        conn.partial.clear();
        match line.recv(&mut self.buffer[carried..end], &mut self.records) {
            Ok(Arrival::Data(len, now)) => {
                let filled = carried + len;
                self.judge.interval.reads += 1;
                self.judge.interval.wire_bytes += len as u64;
                if self.shared.spec.bare && conn.stage == Stage::Live {
                    self.bare.count(&self.buffer[..filled], now, &mut self.judge.interval);
                    return;
                }
                let before = self.judge.interval.reached;
                let taken = if self.shared.dialect.polls() {
                    self.judge.take_answers(conn, &self.buffer[..filled], now)
                } else {
                    self.judge.take(conn, &self.buffer[..filled], now)
                };
                conn.partial.extend_from_slice(&self.buffer[taken..filled]);
                if self.shared.spec.rolling {
                    self.shared.flights.deliver(self.judge.interval.reached - before);
                }
            }
            Ok(Arrival::Empty) => conn.partial.extend_from_slice(&self.buffer[..carried]),
            Ok(Arrival::End) => {
                conn.ended.get_or_insert("the server ended it without a close frame".into());
            }
            Err(error) => {
                conn.ended.get_or_insert(format!("it broke: {error}"));
            }
        }
        if self.conns[index].ended.is_some() {
            self.lost(index);
        }
    }

    fn flush(&mut self, index: usize) {
        let conn = &self.conns[index];
        let Some(line) = &conn.line else { return };
        if line.flush().unwrap_or(true) {
            let _ = self.poller.modify(&line.fd, index as u64, Interest::IN);
        }
    }

    /// The server, or the network, has ended a connection that was up.
    fn lost(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        let why = conn.ended.take().unwrap_or_default();
        if conn.is_opening() {
            return self.failed(index, why);
        }
        let tolerated = conn.disturbed && matches!(self.shared.spec.disturbance, Disturbance::Slow { .. });
        conn.hang_up(Stage::Over);
        let checks = &mut self.judge.checks;
        checks.closed += u64::from(!tolerated);
        checks.closed_disturbed += u64::from(tolerated);
        checks.remark(why.clone());
        if self.conns.iter().all(|conn| conn.stage == Stage::Over) {
            self.report(Report::Deserted(why));
        }
    }

    /// Looks how much lies unread, on a few connections at a time.
    fn sample_backlog(&mut self) {
        const SAMPLE: usize = 4;
        for _ in 0..SAMPLE.min(self.conns.len()) {
            self.sample_at = (self.sample_at + 1) % self.conns.len();
            let conn = &self.conns[self.sample_at];
            if let (Some(line), false) = (&conn.line, conn.disturbed) {
                self.samples.push(socket::backlog(&line.fd));
            }
        }
    }

    fn turn_interval(&mut self, now: u64) {
        let measured_at = self.shared.classes.measured_at();
        if measured_at == 0 || now < measured_at {
            return;
        }
        let index = ((now - measured_at) / INTERVAL_NS) as i64;
        if index != self.judge.interval.index {
            if self.judge.interval.index < 0 {
                self.segments_before = self.segments();
            }
            self.close_interval(now);
            self.judge.interval = Interval::new(index, now, self.shared.classes.labels.len());
        }
    }

    /// Segments that all connections have received; none where one is gone, or some come and go.
    fn segments(&self) -> Option<u64> {
        if self.shared.spec.disturbance != Disturbance::None {
            return None;
        }
        self.conns.iter().map(|conn| segments::received(conn.line.as_ref()?.fd.as_fd())).sum()
    }

    fn close_interval(&mut self, now: u64) {
        let fresh = Interval::new(self.judge.interval.index, now, self.shared.classes.labels.len());
        let mut interval = std::mem::replace(&mut self.judge.interval, fresh);
        let cpu = clock::thread_cpu();
        interval.end = now;
        interval.cpu_ns = cpu - std::mem::replace(&mut self.cpu_mark, cpu);
        interval.tls = tls::work().since(std::mem::replace(&mut self.tls_mark, tls::work()));
        let samples = std::mem::take(&mut self.samples);
        let mean = samples.iter().sum::<u64>() / samples.len().max(1) as u64;
        interval.backlog_bytes = mean * self.conns.len() as u64;
        self.report(Report::Interval(self.thread, Box::new(interval)));
    }

    fn report(&self, report: Report) {
        // Nobody listens only when the whole run is being given up.
        let _ = self.reports.send(report);
    }
}
