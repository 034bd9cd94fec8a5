//! A worker: one thread, pinned to a core, that owns its connections and does everything for them.
//!
//! It blocks in one place, for all of its sockets and its inbox together, and it never blocks on one subscriber. A turn
//! ([`Worker::turn`]) is a short list of steps:
//!
//! ```text
//!   wait ─► read ────────────► ask ──────► advance ──► tick ──► go ─────► look after ──► report
//!           sockets, commands, commands    the fan:    rates    those who  timeouts      figures
//!           acks, pongs        that take   all at the           are behind
//!                              turns       head
//! ```
//!
//! Three parts do the work, and each keeps what it works with. What one of them has for another is a value, and it is the worker
//! who carries it there; where a part asks another for something, that is one of those below it:
//!
//! ```text
//!   desk       what is said and answered, and the ends of connections          (desk/)
//!   cursors    those that are not at the head: each one's way to it            (cursors/)
//!   fan        who wants what, and all that are at the head                    (fan/)
//!   deliver    where bytes go out                                              (deliver.rs)
//!   ground     the kernel's edge, the tape, settings, the clock, counts        (ground.rs)
//!              connections, by their tokens                                    (connections.rs)
//!
//!        fan ── who fell, and where ──► cursors        fan, cursors ── who broke, who lags ──► desk
//!        fan ◄── who has caught up ──── cursors
//! ```

mod connection;
mod connections;
mod cursor;
mod cursors;
mod deliver;
mod desk;
mod fan;
mod ground;
mod out;
#[cfg(all(any(test, fuzzing), not(loom)))]
#[doc(hidden)]
pub mod reload_script;
#[cfg(all(any(test, fuzzing), not(loom)))]
#[doc(hidden)]
pub mod script;
mod standing;
#[cfg(all(test, not(loom)))]
mod tests;
mod timers;
mod work;
#[cfg(all(any(test, fuzzing), not(loom)))]
#[doc(hidden)]
pub mod work_script;

use std::{sync::Arc, time::Duration};

use crossbeam_channel::Receiver;

#[cfg(all(any(test, fuzzing), not(loom)))]
use self::cursor::Cursor;
use self::{
    connections::Connections,
    cursors::{Came, Cursors},
    desk::{Clerk, Desk},
    fan::{Fan, Fell, Ticked, Why},
    ground::{Ground, SURVEY_EVERY},
    standing::Standing,
    work::Step,
};
use crate::{
    clock::Moment,
    handover::{Inbox, Message},
    io::{Edge, Ready, waker::Sleep},
    shared::Shared,
    tape::Tape,
};

/// One worker.
pub(crate) struct Worker<E: Edge> {
    ground: Ground<E>,
    connections: Connections<E::Socket>,
    fan: Fan,
    cursors: Cursors,
    desk: Desk<E::Socket>,
    standing: Standing,
    survey_due: Moment,
    /// What the edge has found ready in this turn.
    ready: Vec<Ready>,
    /// What is read from one connection after the other.
    read: Vec<u8>,
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
        let round = desk::Round::new(now, ground.shared.audit.is_on());
        Worker {
            ground,
            connections: Connections::new(),
            fan: Fan::new(now),
            cursors: Cursors::new(now),
            desk: Desk::new(inbox, control, round, now),
            standing: Standing::default(),
            survey_due: now,
            ready: Vec::new(),
            read: vec![0; desk::READ_BYTES],
        }
    }

    /// Takes turns until the server stops.
    pub(crate) fn run(mut self) {
        while self.turn() {}
    }

    /// One turn. Returns false when the worker is done.
    pub(crate) fn turn(&mut self) -> bool {
        self.wait();
        let begun = self.ground.begin_turn();
        self.catch_up();
        self.read();
        self.ask();
        self.advance();
        self.tick();
        self.go();
        self.look_after();
        self.show_standing();
        self.report(begun);
        let goes_on = self.clerk().goes_on();
        if !goes_on {
            self.ground.shared.publisher.lead().show(self.ground.index, None);
        }
        goes_on
    }

    /// Shows those who publish how far this worker has come.
    fn show_standing(&mut self) {
        let Worker { ground, fan, standing, .. } = self;
        let lead = ground.shared.publisher.lead();
        if fan.interest.is_empty() {
            standing.rest();
            return lead.show(ground.index, None);
        }
        let planned = ground.reader.written_before(fan.planned_for_all());
        lead.show(ground.index, Some(standing.at(planned, fan.on_their_way())));
    }

    /// Whoever works at the desk.
    fn clerk(&mut self) -> Clerk<'_, E> {
        let Worker { ground, connections, fan, cursors, desk, .. } = self;
        Clerk { desk, ground, connections, fan, cursors }
    }

    /// Takes sockets over, reads what has come on them, and answers.
    fn read(&mut self) {
        let Worker { ground, connections, fan, cursors, desk, ready, read, .. } = self;
        let mut clerk = Clerk { desk, ground, connections, fan, cursors };
        clerk.ground.begin_step(Step::Read);
        clerk.take_all_over();
        clerk.read_all(ready, read);
        clerk.wake_others();
        clerk.flush_answers();
    }

    /// Goes on with what was asked for and could not be done at once.
    fn ask(&mut self) {
        if !self.desk.asking.is_busy() {
            return;
        }
        self.ground.begin_step(Step::Ask);
        let mut clerk = self.clerk();
        clerk.go_on_asking();
        clerk.wake_others();
        clerk.flush_answers();
    }

    /// Ends connections that are to be ended, and sees to those of whom nothing was heard.
    fn look_after(&mut self) {
        self.ground.begin_step(Step::LookAfter);
        let mut clerk = self.clerk();
        clerk.fail_doomed();
        clerk.see_to_holders();
        clerk.expire();
        clerk.note_those_who_are_there();
        clerk.show_those_asked_for();
        clerk.drain();
        clerk.flush_answers();
        clerk.let_parted_go();
        clerk.see_whether_all_is_said();
        clerk.see_to_held();
    }

    /// Waits for something to do, unless there is something already.
    fn wait(&mut self) {
        let listens = !self.fan.interest.is_empty();
        if !listens {
            // With the last subscription gone there are no more passes that would take the others along to their stages.
            self.cursors.list_all();
        }
        let now = self.ground.edge.now();
        let fallen = listens && self.cursors.has_fallen(self.ground.reader.floor());
        let (reading, publisher) = (&mut self.desk.reading, &self.ground.shared.publisher);
        let may_go_on = || reading.allowance().is_some_and(|allowance| publisher.allowance(now) > allowance);
        if reading.awaits_workers() && (!publisher.holds(now) || may_go_on()) {
            reading.let_go_on();
        }
        let asked = self.ground.shared.looks.has_any(self.ground.index);
        let busy = self.fan.is_busy() || self.cursors.is_busy() || fallen || self.desk.is_busy() || asked;
        let held = self.fan.pass_due(&self.ground, now).since(now);
        let behind = listens && self.ground.tape.head() > self.fan.planned_for_all();
        let timeout = if busy {
            Some(Duration::ZERO)
        } else {
            let pass = behind.then_some(held);
            let slow = self.cursors.slow_due(&self.ground).map(|due| due.since(now));
            let survey = (self.survey_is_owed() || self.has_slack()).then(|| self.survey_due.since(now));
            let tick = self.fan.interest.next_tick().map(|(due, ..)| due.since(now));
            let lag = self.cursors.lag_limit_due(&self.ground, &self.fan.interest).map(|due| due.since(now));
            [pass, slow, survey, tick, lag, self.desk.next_due(now)].into_iter().flatten().min()
        };
        let position = self.fan.position();
        let Worker {
            ground: Ground { edge, tape, metrics, shared, index, .. }, desk: Desk { inbox, .. }, ready, ..
        } = self;
        // While the next pass is held back for a publication that is there, the timeout ends the sleep, and further ones
        // needn't. The first one must: it may have come since.
        let mut work =
            || !inbox.is_empty() || shared.looks.has_any(*index) || (listens && !behind && tape.head() > position);
        let depth = if listens && !behind { Sleep::Light } else { Sleep::Deep };
        metrics.sleeps_for.set(if depth == Sleep::Light { position.0 } else { u64::MAX });
        metrics.turn_begun.set(0);
        edge.wait(timeout, depth, &mut work, ready);
    }

    /// Where the tape has rolled past the fan, that is seen to before any subscription changes: those who change theirs are told what
    /// was left out as the tables say, which must not be from before a hole.
    fn catch_up(&mut self) {
        if !self.fan.interest.is_empty() && self.ground.tape.tail() > self.fan.planned_for_all() {
            self.ground.reader.refresh();
            self.drop_fallen();
        }
    }

    /// Lets the fan send what the tape has gained to those that want it.
    fn advance(&mut self) {
        if self.fan.interest.is_empty() {
            self.fan.rest(&mut self.ground);
            return self.cursors.list_all();
        }
        self.ground.reader.refresh();
        self.drop_fallen();
        let kept = self.cursors.kept(self.ground.reader.floor());
        self.ground.reader.trim_before(kept);
        self.ground.begin_step(Step::Plan);
        if self.fan.plan(&mut self.ground) {
            self.cursors.list_all();
        }
        if self.fan.is_busy() || self.fan.owes() {
            self.ground.begin_step(Step::Serve);
            self.fan.serve(&mut self.ground, &mut self.connections);
            self.see_to_fallen();
        }
    }

    /// Ends cursors whose next publication is no longer on the tape, or lets them go on with newest values, and ends those that
    /// are further behind than is allowed.
    fn drop_fallen(&mut self) {
        let floor = self.ground.reader.floor();
        self.ground.begin_step(Step::LookAfter);
        if self.fan.has_rolled_on(floor) {
            self.fan.drop_fallen(&mut self.connections, floor);
            self.see_to_fallen();
            self.fan.jump_to(&self.ground, floor);
            // Nobody may trail any more.
            self.cursors.list_all();
        }
        let Worker { ground, connections, fan, cursors, .. } = self;
        let beyond = cursors.beyond_limits(ground, &mut fan.interest, connections);
        beyond.into_iter().for_each(|lagged| self.clerk().lags(lagged));
        loop {
            let Worker { ground, connections, fan, cursors, .. } = self;
            let Some(lagged) = cursors.next_fallen(ground, &mut fan.interest, connections) else { return };
            self.clerk().lagged(&lagged);
        }
    }

    /// Makes the ticks that are due, as far as the turn goes.
    fn tick(&mut self) {
        self.ground.begin_step(Step::Tick);
        let mut opened = false;
        loop {
            match self.fan.tick(&mut self.ground, &mut self.connections) {
                Ticked::Nothing => break,
                Ticked::On => {}
                Ticked::Opened => opened = true,
            }
            self.see_to_fallen();
        }
        if opened {
            self.cursors.list_all();
        }
    }

    /// Gives those whom the fan couldn't serve to the cursors, or ends them.
    fn see_to_fallen(&mut self) {
        while let Some(Fell { token, why, owed }) = self.fan.next_fell() {
            let Worker { ground, connections, fan, cursors, .. } = self;
            let Some(connection) = connections.get_mut(token) else { continue };
            let interest = &mut fan.interest;
            let polls = connection.phase.is_answering();
            match why {
                Why::Woken { from } => self.clerk().wake_poll(token, from),
                Why::Missed { missed, .. } if polls => self.clerk().wake_poll(token, missed),
                Why::Full { position, offset, rest } => {
                    cursors.take(ground, interest, connection, token, (position, offset), rest);
                }
                Why::FullAtTick(unsent) => cursors.take_at_tick(ground, interest, connection, token, unsent),
                Why::Missed { missed, in_full } => {
                    // Whoever is to be sent every publication of some name ends, when it is its turn.
                    cursors.begin(ground, interest, connection, token, missed).conflates = !in_full;
                    cursors.list(token, connection);
                }
                Why::Broken(why) => self.clerk().lost(token, why),
            }
            let Worker { connections, cursors, .. } = self;
            let behind = connections.get(token).and_then(|connection| cursors.of_mut(token, connection));
            if let Some(behind) = behind {
                behind.owe(owed);
            }
        }
    }

    /// Lets the cursors that are behind go a step, and gives those that have caught up to the fan.
    fn go(&mut self) {
        self.ground.begin_step(Step::Go);
        let Worker { ground, connections, fan, cursors, .. } = self;
        cursors.go(ground, &mut fan.interest, connections);
        while let Some(came) = self.cursors.next_came() {
            match came {
                Came::Up(token) => {
                    if let Some(connection) = self.connections.get_mut(token) {
                        self.fan.join(token, connection);
                    }
                }
                Came::On(token) => self.clerk().ease(token),
                Came::Broken(token, why) => self.clerk().lost(token, why),
            }
        }
    }

    /// Whether members are still to be sent something that was planned.
    #[cfg(all(any(feature = "bench", test), not(loom)))]
    pub(crate) fn owes(&self) -> bool {
        self.fan.owes()
    }

    /// Publishes this turn's figures.
    fn report(&mut self, begun: Moment) {
        self.fan.see_to_streams(&mut self.ground);
        let metrics = &self.ground.metrics;
        let now = self.ground.edge.now();
        metrics.turns.add(1);
        self.ground.work.report(&metrics.work, &metrics.put_off);
        metrics.turn.record([(now.since(begun).as_micros() as u64, 1)]);
        metrics.planned_bytes.set(self.fan.planned_bytes() as u64);
        metrics.unread.set(self.desk.reading.len() as u64);
        let (waiting, bytes) = self.desk.asking.waiting();
        metrics.commands_waiting.set(waiting as u64);
        metrics.polls_waiting.set(self.desk.exchanges.waiting() as u64);
        metrics.commands_waiting_bytes.set(bytes as u64);
        metrics.connections.set(self.connections.len() as u64);
        metrics.cohorts.set(self.fan.interest.cohorts() as u64);
        metrics.cohorts_trailing.set(self.fan.interest.trail.len() as u64);
        metrics.names.set(self.fan.interest.names() as u64);
        metrics.behind.set(self.cursors.len() as u64);
        metrics.segments_pinned.set(self.ground.reader.pinned() as u64);
        if now >= self.survey_due {
            self.survey_due = now + SURVEY_EVERY;
            let Worker { ground, connections, cursors, .. } = self;
            ground.metrics.lag_max.set(cursors.lag_max(connections, &ground.reader));
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
        self.connections.give_back();
        self.ground.packer.give_back();
        self.fan.give_back();
        self.cursors.give_back();
        self.desk.give_back();
    }

    /// Whether there is something to survey, or the last one found something: then there is another, lest a worker that sleeps
    /// show for long what has ended, or not show what has begun.
    fn survey_is_owed(&self) -> bool {
        self.ground.metrics.lag_max.get() > 0 || !self.cursors.is_empty()
    }
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl<E: Edge> Worker<E> {
    /// Asserts, between two turns, that what the parts know of each connection agrees.
    fn invariants(&mut self) {
        self.clerk().held_invariants();
        let Worker { connections, fan, cursors, desk, .. } = self;
        desk.invariants(connections);
        fan.invariants(connections);
        cursors.invariants(connections);
        let mut users = std::collections::BTreeMap::new();
        for (_, connection) in connections.iter() {
            let is_nowhere = connection.cursor == Cursor::None && !connection.phase.is_answering();
            assert!(!is_nowhere || connection.cohort.is_none(), "a subscriber has a cursor");
            connection.cohort.into_iter().for_each(|id| *users.entry(id).or_insert(0) += 1);
        }
        cursors.staged().chain(desk.parted()).for_each(|id| *users.entry(id).or_insert(0) += 1);
        let counted = fan.interest.cohort_ids().into_iter().map(|id| (id, fan.interest.at(id).users)).collect();
        assert_eq!(users, counted, "the users of each cohort");
        assert_eq!(fan.interest.keepers(), desk.asking.keepers(), "who keeps the tables is on his way");
        let Ground { work, settings, .. } = &self.ground;
        for (step, spent) in Step::ALL.into_iter().zip(work.spent()) {
            let most = step.allotment(settings.turn_work, settings.turn_sends) + work::INDIVISIBLE_MAX;
            assert!(spent <= most, "{step:?} costs {spent} in one turn, of {most}");
        }
    }
}
