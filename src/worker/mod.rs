//! A worker: one thread, pinned to a core, that owns its connections and does everything for them.
//!
//! It blocks in one place, for all of its sockets and its inbox together, and it never blocks on one subscriber. A turn
//! ([`Worker::turn`]) is a short list of steps; each step deals with whoever needs it:
//!
//! ```text
//!   wait ─► take over ─► read ─► flush answers ─► advance ─► march ─► expire ─► report
//!             sockets    commands  acks, pongs     fan-out    the slow  timers   figures
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `requests` | the HTTP request, and the upgrade |
//! | `messages` | frames and commands |
//! | `quota` | how often they may come |
//! | `subscribe` | subscriptions and snapshots |
//! | `interest` | who wants what: names and cohorts |
//! | `delivery` | in full, in newest values, or at a rate |
//! | `fanout`, `pace` | planning a pass, serving the cohorts; a tick of a rate |
//! | `column`, `passes` | a cohort's members, and what each is owed; what is on its way |
//! | `march`, `round`, `resume` | those that are behind: in full, in newest values, or by what they missed |
//! | `lag`, `slow` | those that are too far behind; showing who is behind |
//! | `closing` | answers and ends |
//! | `expire`, `timers`, `alive` | timeouts; telling the slow, the hung and the dead from each other |

mod alive;
mod closing;
mod connection;
mod cursors;
mod expire;
mod fan;
mod messages;
mod quota;
#[cfg(all(any(test, fuzzing), not(loom)))]
#[doc(hidden)]
pub mod reload_script;
mod requests;
#[cfg(all(any(test, fuzzing), not(loom)))]
#[doc(hidden)]
pub mod script;
mod subscribe;
#[cfg(all(test, not(loom)))]
mod tests;
mod timers;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crossbeam_channel::Receiver;
use slab::Slab;

pub(crate) use self::requests::shown_token;
use self::{
    connection::{Connection, Phase, Ping, Speaks},
    cursors::{Plan, round::Piece, slow::Survey},
    fan::{
        interest::{CohortId, Interest},
        passes::{PassId, Passes},
    },
    timers::Timers,
};
use crate::{
    clock::Moment,
    handover::{Arrival, Inbox, Message},
    http,
    io::{Edge, Ready, Received, Token, waker::Sleep},
    lane::{LANES, Lane},
    limits::Spent,
    log::{Kind, tell},
    metrics::{Refusal, WorkerMetrics},
    protocol::command,
    shared::{Settings, Shared},
    slack::{KEPT_BY_THREAD, Slack},
    tape::{Position, Reader, Run, Tape},
    websocket::{Decoder, Role, Violation},
};

/// Bytes taken from one connection in one turn, so that a busy one can't starve the rest.
const READ_BYTES: usize = 128 * 1024;

/// Bytes taken from all connections together in one turn, less what was planned before and is still on its way: what they
/// publish has to be sent before the tape rolls over it.
const READ_TURN_BYTES: usize = 256 * 1024;

/// Sockets taken over in one turn.
const TAKE_OVER_MAX: usize = 256;

/// How often figures that cost a look at every connection are brought up to date.
const SURVEY_EVERY: Duration = Duration::from_millis(250);

/// One worker.
pub(crate) struct Worker<E: Edge> {
    index: usize,
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    edge: E,
    inbox: Receiver<Message<E::Socket>>,
    control: Inbox<E::Socket>,
    tape: Tape,
    reader: Reader,
    /// Everything before it was planned for the members in march.
    position: Position,
    /// The floor for which it was last checked who has fallen off the tape.
    checked_floor: Position,
    /// Cohorts for each lane.
    lanes: [usize; LANES],
    interest: Interest,
    connections: Slab<Connection<E::Socket>>,
    timers: Timers,
    /// Passes that are on their way.
    passes: Passes,
    /// As long as this is the oldest of them, somebody is owed enough.
    crowded: Option<PassId>,
    /// Cohorts with members to be served, whoever waits longest first, by their tickets.
    line: VecDeque<(CohortId, u64)>,
    tickets: u64,
    /// The moment of this turn.
    now: Moment,
    /// No pass before this.
    pass_due: Moment,
    survey_due: Moment,
    /// Since the last survey answers were left lying.
    answers_wait: bool,
    lag_due: Moment,
    /// Connections or cohorts have gone since the last survey: their tables may have room to give back.
    emptied: bool,
    slow: Survey,
    /// Something was published in this turn, and others are to be woken.
    published: bool,
    draining: Option<Draining>,
    made: u64,
    /// Connections with a cursor of their own.
    alone: Vec<Token>,
    /// Those of them that can go on this turn.
    runnable: VecDeque<Token>,
    /// Connections with answers to flush.
    answered: Vec<Token>,
    /// Connections whose peers broke the rules, or sent what there is no room for, in this turn.
    doomed: Vec<(Token, Doom)>,
    // Buffers that are used again every turn.
    touched: Vec<CohortId>,
    stirred: Vec<(CohortId, usize)>,
    plan_alone: Plan,
    gather: Vec<u8>,
    pieces: Vec<Piece>,
    value: Vec<u8>,
    json: Vec<u8>,
    read: Vec<u8>,
    ready: Vec<Ready>,
    /// Connections whose timers have come.
    due: VecDeque<Token>,
}

/// Why a connection is failed.
enum Doom {
    Violation(Violation),
    /// Its unfinished message is one too many.
    Full(Refusal),
}

struct Draining {
    until: Moment,
    closed: bool,
}

impl<E: Edge> Worker<E> {
    pub(crate) fn new(
        index: usize,
        shared: Arc<Shared>,
        tape: Tape,
        edge: E,
        inbox: Receiver<Message<E::Socket>>,
        control: Inbox<E::Socket>,
    ) -> Self {
        let now = edge.now();
        Worker {
            index,
            settings: shared.settings.get(),
            shared,
            edge,
            inbox,
            control,
            reader: Reader::new(tape.clone()),
            tape,
            position: Position(0),
            checked_floor: Position(0),
            lanes: [0; LANES],
            interest: Interest::default(),
            connections: Slab::new(),
            timers: Timers::new(now),
            passes: Passes::default(),
            crowded: None,
            line: VecDeque::new(),
            tickets: 0,
            now,
            pass_due: now,
            survey_due: now,
            answers_wait: false,
            lag_due: now,
            emptied: false,
            slow: Survey::new(now),
            published: false,
            draining: None,
            made: 0,
            alone: Vec::new(),
            runnable: VecDeque::new(),
            answered: Vec::new(),
            doomed: Vec::new(),
            touched: Vec::new(),
            stirred: Vec::new(),
            plan_alone: Plan::default(),
            gather: Vec::new(),
            pieces: Vec::new(),
            value: Vec::new(),
            json: Vec::new(),
            read: vec![0; READ_BYTES],
            ready: Vec::new(),
            due: VecDeque::new(),
        }
    }

    /// Takes turns until the server stops.
    pub(crate) fn run(mut self) {
        while self.turn() {}
    }

    /// One turn. Returns false when the worker is done.
    pub(crate) fn turn(&mut self) -> bool {
        self.wait();
        self.shared.settings.refresh(&mut self.settings);
        let begun = self.edge.now();
        self.now = begun;
        self.metrics().turn_begun.set(begun.0.max(1));
        self.take_all_over();
        self.read_all();
        self.wake_others();
        self.flush_answers();
        self.advance();
        self.tick();
        self.march();
        self.fail_doomed();
        self.expire();
        self.flush_answers();
        self.report(begun);
        self.go_on()
    }

    /// Waits for something to do, unless there is something already.
    fn wait(&mut self) {
        let listens = !self.interest.is_empty();
        if !listens {
            // With the last subscription gone there are no more passes that would take the others along to their stages.
            self.list_all();
        }
        let now = self.edge.now();
        let idle = self.line.is_empty() && self.runnable.is_empty() && self.answered.is_empty() && self.due.is_empty();
        // An interval that was lowered meanwhile holds nothing back for as long as the one before.
        self.pass_due = self.pass_due.min(now + self.settings.flush_interval);
        let held = self.pass_due.since(now);
        let behind = listens && self.tape.head() > self.position;
        let timeout = if idle {
            let pass = behind.then_some(held);
            let stop = self.draining.as_ref().map(|draining| draining.until.since(now));
            let slow = self.slow_due().map(|due| due.since(now));
            let survey = (self.survey_is_owed() || self.has_slack()).then(|| self.survey_due.since(now));
            let tick = self.interest.next_tick().map(|(due, ..)| due.since(now));
            let lag = self.lag_limit_due().map(|due| due.since(now));
            [pass, stop, slow, survey, tick, lag, self.timers.until_next(now)].into_iter().flatten().min()
        } else {
            Some(Duration::ZERO)
        };
        let (tape, inbox, position) = (&self.tape, &self.inbox, self.position);
        // While the next pass is held back for a publication that is there, the timeout ends the sleep, and further ones
        // needn't. The first one must: it may have come since.
        let mut work = || !inbox.is_empty() || (listens && !behind && tape.head() > position);
        let depth = if listens && !behind { Sleep::Light } else { Sleep::Deep };
        let metrics = &self.shared.metrics.workers[self.index];
        metrics.sleeps_for.set(if depth == Sleep::Light { position.0 } else { u64::MAX });
        metrics.turn_begun.set(0);
        self.edge.wait(timeout, depth, &mut work, &mut self.ready);
    }

    fn take_all_over(&mut self) {
        for _ in 0..TAKE_OVER_MAX {
            match self.inbox.try_recv() {
                Ok(Message::Take(arrival)) => {
                    self.take_over(arrival);
                }
                Ok(Message::Drain { until }) => {
                    self.announce_drain();
                    self.draining = Some(Draining { until, closed: false });
                }
                Err(_) => break,
            }
        }
    }

    /// Makes a connection of a socket. None if the kernel can't watch it.
    fn take_over(&mut self, arrival: Arrival<E::Socket>) -> Option<Token> {
        self.made += 1;
        let id = ((self.index as u64 + 1) << 48) | self.made;
        let received = arrival.received;
        // What comes with a beginning was read before, by the control thread.
        let awaits_header = received.is_empty() && self.settings.proxies.announce(arrival.peer.ip());
        let token = self.connections.insert(Connection {
            socket: arrival.socket,
            cohort: None,
            place: 0,
            march: None,
            phase: Phase::Request,
            full: false,
            answered: false,
            awaits_header,
            may_publish: false,
            ping: Ping::None,
            echo: true,
            skipped: 0,
            speaks: Speaks::Json,
            out: Vec::new(),
            decoder: Decoder::new(Role::Server),
            request: Vec::new(),
            id,
            heard: self.now,
            mark: 0,
            sent: self.now,
            since: self.now,
            timer: None,
            commands: Spent::default(),
            publications: Spent::default(),
            peer: arrival.peer,
            permit: arrival.permit,
        }) as Token;
        if let Err(error) = self.edge.watch(&self.connections[token as usize].socket, token) {
            tell!(self.shared.log, Kind::Unwatched, self.now, WARN, { %error }, "a socket could not be watched");
            self.remove(token);
            return None;
        }
        self.set_timer(token);
        if self.draining.is_some() {
            self.refuse(token, &http::Refusal::new(503, "The server is stopping."));
        } else if !received.is_empty() {
            self.feed_request(token, &received);
        }
        Some(token)
    }

    fn read_all(&mut self) {
        let ready = std::mem::take(&mut self.ready);
        let room = if self.is_crowded() { 0 } else { READ_TURN_BYTES.saturating_sub(self.passes.bytes()) };
        let most = self.metrics().received_bytes.get() + room as u64;
        for event in &ready {
            if event.writable && self.connections.contains(event.token as usize) {
                self.has_room(event.token);
            }
            // Those that are left out are ready again in the next turn, and come first then.
            let may_read = self.metrics().received_bytes.get() < most;
            if event.readable && may_read && self.connections.contains(event.token as usize) {
                self.read_one(event.token);
            }
        }
        self.ready = ready;
    }

    fn read_one(&mut self, token: Token) {
        let mut buffer = std::mem::take(&mut self.read);
        let connection = &mut self.connections[token as usize];
        match self.edge.receive(&connection.socket, &mut buffer) {
            Received::Bytes(n) => {
                connection.heard = self.now;
                connection.ping = Ping::None;
                let (phase, hears) = (connection.phase, connection.speaks.hears());
                self.metrics().received_bytes.add(n as u64);
                match phase {
                    Phase::Request => self.feed_request(token, &buffer[..n]),
                    // What comes on a stream of events is nothing that anybody waits for.
                    Phase::Open if !hears => {}
                    Phase::Open | Phase::Closing => self.feed(token, &mut buffer[..n]),
                    Phase::Ending => {}
                }
            }
            Received::Nothing => {}
            Received::End => self.ended(token),
            Received::Broken(why) => self.lost(token, why),
        }
        self.read = buffer;
    }

    /// Wakes the workers that sleep, if this turn has published anything.
    fn wake_others(&mut self) {
        if std::mem::take(&mut self.published) {
            self.shared.publisher.wake();
        }
    }

    /// Whether members in march are still to be sent something that was planned.
    #[cfg(any(feature = "bench", test))]
    pub(crate) fn owes(&self) -> bool {
        !self.passes.is_empty()
    }

    /// Publishes this turn's figures.
    fn report(&mut self, begun: Moment) {
        let metrics = self.metrics();
        let now = self.edge.now();
        metrics.turns.add(1);
        metrics.turn.record([(now.since(begun).as_micros() as u64, 1)]);
        metrics.planned_bytes.set(self.passes.bytes() as u64);
        metrics.connections.set(self.connections.len() as u64);
        metrics.cohorts.set(self.interest.cohorts() as u64);
        metrics.names.set(self.interest.names() as u64);
        metrics.alone.set(self.alone.len() as u64);
        metrics.segments_pinned.set(self.reader.pinned() as u64);
        if now >= self.survey_due {
            self.survey_due = now + SURVEY_EVERY;
            self.answers_wait = false;
            self.metrics().lag_max.set(self.lag_max());
            let pending = self.connections.iter().map(|(_, connection)| connection.pending() as u64).sum();
            self.metrics().pending_bytes.set(pending);
            self.give_back();
        }
        if self.slow_due().is_some_and(|due| now >= due) {
            self.show_slow(now);
        }
    }

    /// Whether there is room to be given back, which the worker doesn't sleep over.
    fn has_slack(&self) -> bool {
        let scratch = [&self.gather, &self.value, &self.json].map(Vec::capacity).into_iter().max();
        let lists = self.pieces.capacity() * size_of::<Piece>() + self.plan_alone.runs.capacity() * size_of::<Run>();
        self.emptied || scratch.is_some_and(|room| room > KEPT_BY_THREAD) || lists > 2 * KEPT_BY_THREAD
    }

    /// Gives back room that was needed once: of the buffers, which hold nothing between two uses, and of the tables.
    fn give_back(&mut self) {
        for buffer in [&mut self.gather, &mut self.value, &mut self.json] {
            buffer.clear();
            buffer.give_back(KEPT_BY_THREAD);
        }
        self.pieces.clear();
        let lists: [&mut dyn Slack; 10] = [
            &mut self.pieces,
            &mut self.plan_alone.runs,
            &mut self.touched,
            &mut self.stirred,
            &mut self.due,
            &mut self.line,
            &mut self.alone,
            &mut self.runnable,
            &mut self.answered,
            &mut self.connections,
        ];
        lists.into_iter().for_each(|list| list.give_back(KEPT_BY_THREAD));
        self.passes.give_back();
        self.interest.give_back();
        self.emptied = false;
    }

    /// Whether there is something to survey, or the last one found something: then there is another, lest a worker that sleeps
    /// show for long what has ended, or not show what has begun.
    fn survey_is_owed(&self) -> bool {
        let metrics = self.metrics();
        let shown = metrics.pending_bytes.get() > 0 || metrics.lag_max.get() > 0;
        shown || self.answers_wait || !self.alone.is_empty()
    }

    /// Whether there will be another turn.
    fn go_on(&mut self) -> bool {
        let caught_up = self.interest.is_empty() || (self.position >= self.tape.head() && self.passes.is_empty());
        let Some(draining) = &mut self.draining else { return true };
        let over = self.now >= draining.until;
        if draining.closed && over {
            return false;
        }
        if !draining.closed && (over || (caught_up && self.all_said())) {
            let until = self.now + self.settings.close_timeout.min(self.settings.drain_timeout);
            self.draining = Some(Draining { until, closed: true });
            self.close_all();
            self.flush_answers();
        }
        !self.connections.is_empty() || self.draining.as_ref().is_some_and(|draining| !draining.closed)
    }

    fn metrics(&self) -> &WorkerMetrics {
        &self.shared.metrics.workers[self.index]
    }

    fn command_limits(&self) -> command::Limits {
        command::Limits {
            topic_length_max: self.settings.topic_length_max,
            topics_max: self.settings.subscriptions_max,
        }
    }
}

impl<S> Connection<S> {
    /// What it is called in the log and in `hello`.
    fn name(&self) -> String {
        format!("{:x}-{:x}", self.id >> 48, self.id & 0xffff_ffff_ffff)
    }

    /// The lane that it is sent from.
    fn lane(&self) -> Lane {
        self.speaks.lane()
    }
}
