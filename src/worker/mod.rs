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
mod connections;
mod cursor;
mod cursors;
mod deliver;
mod expire;
mod fan;
mod ground;
mod messages;
mod points;
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

use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use crossbeam_channel::Receiver;

use self::{
    connection::{Connection, Phase, Ping},
    connections::Connections,
    cursor::Cursor,
    cursors::{Came, Cursors, Lagged},
    fan::{Fan, Fell, Why},
    ground::Ground,
    timers::Timers,
};
use crate::{
    clock::Moment,
    handover::{Arrival, Inbox, Message},
    http,
    io::{Edge, Ready, Received, Token, waker::Sleep},
    lane::Lane,
    limits::Spent,
    log::{Kind, tell},
    metrics::{Refusal, WorkerMetrics},
    shared::Shared,
    slack::{KEPT_BY_THREAD, Slack},
    tape::{Position, Tape},
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
    ground: Ground<E>,
    connections: Connections<E::Socket>,
    fan: Fan,
    cursors: Cursors,
    inbox: Receiver<Message<E::Socket>>,
    control: Inbox<E::Socket>,
    /// The floor for which it was last checked who has fallen off the tape.
    checked_floor: Position,
    timers: Timers,
    survey_due: Moment,
    /// Something was published in this turn, and others are to be woken.
    published: bool,
    draining: Option<Draining>,
    made: u64,
    /// Connections with answers to flush.
    answered: Vec<Token>,
    /// Connections whose peers broke the rules, or sent what there is no room for, in this turn.
    doomed: Vec<(Token, Doom)>,
    // Buffers that are used again every turn.
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
        let ground = Ground::new(index, shared, tape, edge);
        let now = ground.now;
        Worker {
            ground,
            connections: Connections::new(),
            fan: Fan::new(now),
            cursors: Cursors::new(now),
            inbox,
            control,
            checked_floor: Position(0),
            timers: Timers::new(now),
            survey_due: now,
            published: false,
            draining: None,
            made: 0,
            answered: Vec::new(),
            doomed: Vec::new(),
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
        let Ground { shared, settings, .. } = &mut self.ground;
        shared.settings.refresh(settings);
        let begun = self.edge.now();
        self.now = begun;
        self.metrics.turn_begun.set(begun.0.max(1));
        self.take_all_over();
        self.read_all();
        self.wake_others();
        self.flush_answers();
        self.advance();
        self.tick();
        self.go();
        self.fail_doomed();
        self.expire();
        self.flush_answers();
        self.report(begun);
        self.go_on()
    }

    /// Waits for something to do, unless there is something already.
    fn wait(&mut self) {
        let listens = !self.fan.interest.is_empty();
        if !listens {
            // With the last subscription gone there are no more passes that would take the others along to their stages.
            self.cursors.list_all(&self.connections);
        }
        let now = self.edge.now();
        let busy = self.fan.is_busy() || self.cursors.is_busy() || !self.answered.is_empty() || !self.due.is_empty();
        let held = self.fan.pass_due(&self.ground, now).since(now);
        let behind = listens && self.tape.head() > self.fan.position();
        let timeout = if busy {
            Some(Duration::ZERO)
        } else {
            let pass = behind.then_some(held);
            let stop = self.draining.as_ref().map(|draining| draining.until.since(now));
            let slow = self.cursors.slow_due(&self.ground).map(|due| due.since(now));
            let survey = (self.survey_is_owed() || self.has_slack()).then(|| self.survey_due.since(now));
            let tick = self.fan.interest.next_tick().map(|(due, ..)| due.since(now));
            let lag = self.cursors.lag_limit_due(&self.ground, &self.fan.interest).map(|due| due.since(now));
            [pass, stop, slow, survey, tick, lag, self.timers.until_next(now)].into_iter().flatten().min()
        };
        let position = self.fan.position();
        let Worker { ground: Ground { edge, tape, metrics, .. }, inbox, ready, .. } = self;
        // While the next pass is held back for a publication that is there, the timeout ends the sleep, and further ones
        // needn't. The first one must: it may have come since.
        let mut work = || !inbox.is_empty() || (listens && !behind && tape.head() > position);
        let depth = if listens && !behind { Sleep::Light } else { Sleep::Deep };
        metrics.sleeps_for.set(if depth == Sleep::Light { position.0 } else { u64::MAX });
        metrics.turn_begun.set(0);
        edge.wait(timeout, depth, &mut work, ready);
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
        let (received, is_awaited) = arrival.beginning.into_read();
        let awaits_header = is_awaited && self.settings.proxies.announce(arrival.peer.ip());
        let token = self.connections.insert(Connection {
            socket: arrival.socket,
            cohort: None,
            cursor: Cursor::None,
            phase: Phase::Request,
            full: false,
            answered: false,
            awaits_header,
            holder: self.settings.access.anonymous(),
            ping: Ping::None,
            echo: true,
            skipped: 0,
            lane: Lane::default(),
            topic: None,
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
            by: arrival.by,
        }) as Token;
        let Worker { ground, connections, .. } = self;
        if let Err(error) = ground.edge.watch(&mut connections[token as usize].socket, token) {
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
        let room = if self.fan.is_crowded() { 0 } else { READ_TURN_BYTES.saturating_sub(self.fan.planned_bytes()) };
        let most = self.metrics().received_bytes.get() + room as u64;
        for event in &ready {
            if event.writable && self.connections.contains(event.token) {
                self.has_room(event.token);
            }
            // Those that are left out are ready again in the next turn, and come first then.
            let may_read = self.metrics().received_bytes.get() < most;
            if event.readable && may_read && self.connections.contains(event.token) {
                self.read_one(event.token);
            }
        }
        self.ready = ready;
    }

    fn read_one(&mut self, token: Token) {
        let mut buffer = std::mem::take(&mut self.read);
        let Worker { ground, connections, .. } = self;
        let connection = &mut connections[token as usize];
        match ground.edge.receive(&mut connection.socket, &mut buffer) {
            Received::Bytes(n) => {
                connection.heard = ground.now;
                connection.ping = Ping::None;
                let (phase, hears) = (connection.phase, connection.lane.words().hears());
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

    /// Lets the fan send what the tape has gained to those that want it.
    fn advance(&mut self) {
        if self.fan.interest.is_empty() {
            self.fan.rest(&mut self.ground);
            return self.cursors.list_all(&self.connections);
        }
        self.reader.refresh();
        self.drop_fallen();
        let beyond = self.cursors.beyond_limits(&self.ground, &mut self.fan.interest, &self.connections);
        beyond.iter().for_each(|lagged| self.lagged(lagged));
        self.reader.trim();
        if self.fan.plan(&self.ground) {
            self.cursors.list_all(&self.connections);
        }
        self.fan.serve(&mut self.ground, &mut self.connections);
        self.see_to_fallen();
    }

    /// Ends every cursor whose next publication is no longer on the tape, or lets it go on with newest values.
    fn drop_fallen(&mut self) {
        let floor = self.reader.floor();
        if floor == self.checked_floor {
            return;
        }
        self.checked_floor = floor;
        let fallen = self.cursors.fallen(&mut self.fan.interest, &self.connections, &self.ground.reader);
        fallen.iter().for_each(|lagged| self.lagged(lagged));
        self.fan.drop_fallen(&mut self.connections, floor);
        self.see_to_fallen();
        self.fan.jump_to(&self.ground, floor);
    }

    /// Makes the ticks that are due.
    fn tick(&mut self) {
        let mut any = false;
        while self.fan.tick(&mut self.ground, &mut self.connections) {
            self.see_to_fallen();
            any = true;
        }
        if any {
            self.cursors.list_all(&self.connections);
        }
    }

    /// Gives those whom the fan couldn't serve to the cursors, or ends them.
    fn see_to_fallen(&mut self) {
        while let Some(Fell { token, why }) = self.fan.next_fell() {
            let Worker { ground, connections, fan, cursors, .. } = self;
            let Some(connection) = connections.get_mut(token) else { continue };
            let interest = &mut fan.interest;
            match why {
                Why::Full { position, offset } => {
                    cursors.take(ground, interest, connection, token, (position, offset));
                }
                Why::FullAtTick(unsent) => cursors.take_at_tick(ground, interest, connection, token, unsent),
                Why::Missed { missed, in_full: false } => {
                    cursors.begin(ground, interest, connection, token, missed).conflates = true;
                    cursors.list(token, connection);
                }
                Why::Missed { missed, in_full: true } => {
                    let lagged = Lagged::fallen(&ground.reader, token, missed);
                    self.lagged(&lagged);
                }
                Why::Broken(why) => self.lost(token, why),
            }
        }
    }

    /// Lets the cursors that are behind go a step, and gives those that have caught up to the fan.
    fn go(&mut self) {
        let Worker { ground, connections, fan, cursors, .. } = self;
        cursors.go(ground, &mut fan.interest, connections);
        while let Some(came) = self.cursors.next_came() {
            match came {
                Came::Up(token) => {
                    if let Some(connection) = self.connections.get_mut(token) {
                        self.fan.join(token, connection);
                    }
                }
                Came::Broken(token, why) => self.lost(token, why),
            }
        }
    }

    /// Whether members are still to be sent something that was planned.
    #[cfg(any(feature = "bench", test))]
    pub(crate) fn owes(&self) -> bool {
        self.fan.owes()
    }

    /// Publishes this turn's figures.
    fn report(&mut self, begun: Moment) {
        let metrics = &self.metrics;
        let now = self.edge.now();
        metrics.turns.add(1);
        metrics.turn.record([(now.since(begun).as_micros() as u64, 1)]);
        metrics.planned_bytes.set(self.fan.planned_bytes() as u64);
        metrics.connections.set(self.connections.len() as u64);
        metrics.cohorts.set(self.fan.interest.cohorts() as u64);
        metrics.names.set(self.fan.interest.names() as u64);
        metrics.alone.set(self.cursors.len() as u64);
        metrics.segments_pinned.set(self.reader.pinned() as u64);
        if now >= self.survey_due {
            self.survey_due = now + SURVEY_EVERY;
            self.ground.answers_wait = false;
            let Worker { ground, connections, cursors, .. } = self;
            ground.metrics.lag_max.set(cursors.lag_max(connections, &ground.reader));
            let pending = connections.iter().map(|(token, connection)| cursors.pending(token, connection) as u64).sum();
            ground.metrics.pending_bytes.set(pending);
            self.give_back();
        }
        let Worker { ground, connections, fan, cursors, .. } = self;
        if cursors.slow_due(ground).is_some_and(|due| now >= due) {
            cursors.show_slow(ground, &mut fan.interest, connections, now);
        }
    }

    /// Whether there is room to be given back, which the worker doesn't sleep over.
    fn has_slack(&self) -> bool {
        self.fan.has_slack() || self.cursors.has_slack() || self.connections.has_slack()
    }

    /// Gives back room that was needed once.
    fn give_back(&mut self) {
        let lists: [&mut dyn Slack; 2] = [&mut self.due, &mut self.answered];
        lists.into_iter().for_each(|list| list.give_back(KEPT_BY_THREAD));
        self.connections.give_back();
        self.fan.give_back();
        self.cursors.give_back();
    }

    /// Whether there is something to survey, or the last one found something: then there is another, lest a worker that sleeps
    /// show for long what has ended, or not show what has begun.
    fn survey_is_owed(&self) -> bool {
        let metrics = &self.metrics;
        let shown = metrics.pending_bytes.get() > 0 || metrics.lag_max.get() > 0;
        shown || self.answers_wait || !self.cursors.is_empty()
    }

    /// Whether there will be another turn.
    fn go_on(&mut self) -> bool {
        let fan = &self.fan;
        let caught_up = fan.interest.is_empty() || (fan.position() >= self.tape.head() && !fan.owes());
        let Some(draining) = &mut self.draining else { return true };
        let over = self.ground.now >= draining.until;
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
        &self.ground.metrics
    }
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl<E: Edge> Worker<E> {
    /// Asserts, between two turns, that what the parts know of each connection agrees.
    fn invariants(&self) {
        let Worker { connections, fan, cursors, .. } = self;
        fan.invariants(connections);
        cursors.invariants(connections);
        let mut users = std::collections::BTreeMap::new();
        for (_, connection) in connections.iter() {
            let is_nowhere = connection.cursor == Cursor::None;
            assert!(!is_nowhere || connection.cohort.is_none(), "a subscriber has a cursor");
            connection.cohort.into_iter().for_each(|id| *users.entry(id).or_insert(0) += 1);
        }
        cursors.staged().for_each(|id| *users.entry(id).or_insert(0) += 1);
        let counted = fan.interest.cohort_ids().into_iter().map(|id| (id, fan.interest.at(id).users)).collect();
        assert_eq!(users, counted, "the users of each cohort");
    }
}

impl<E: Edge> Deref for Worker<E> {
    type Target = Ground<E>;

    fn deref(&self) -> &Ground<E> {
        &self.ground
    }
}

impl<E: Edge> DerefMut for Worker<E> {
    fn deref_mut(&mut self) -> &mut Ground<E> {
        &mut self.ground
    }
}
