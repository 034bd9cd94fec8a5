//! Marching alone: connections with a cursor of their own.
//!
//! A connection marches alone from when its socket was full, or its subscription changed, until it has caught up with the
//! worker. Its state is a position, an offset into one frame, and the changes of subscription that it has not come to
//! yet (*stages*); whatever its lag, that is all. Each turn lets it go a bounded step:
//!
//! ```text
//!    position         stage 0's until       stage 1's until          the worker's position
//!       | older cohort     | next older cohort    | the cohort of now        |
//!       |------------------+----------------------+--------------------------| joins the march
//!       '- rest of a frame   then: ack, snapshots   then: ack, snapshots
//! ```
//!
//! Frames of its own (`out`) go between publications, never inside one. Names that are delivered in newest values are sent
//! in rounds (`round.rs`) once the socket was full, and those with a rate always (`pace.rs`); a stage may first go back to
//! what was missed (`resume.rs`).

mod lag;
pub mod resume;
pub mod round;
pub mod slow;

use self::round::{PacedRound, Round, Told};
use super::{
    Worker,
    connection::{March, Phase, Stage},
    fan::{Outcome, contiguous, delivery::Delivery, interest::CohortId, pace::Pace, send_all},
};
use crate::{
    io::{Edge, SEND_MAX, Token},
    tape::{Position, Run},
};

/// Index entries that one connection alone goes through in one turn.
pub const STEP_ENTRIES: usize = 16 * 1024;

/// Sends for one connection alone in one turn.
const STEP_SENDS: usize = 4;

/// Stages that one connection enters before a step.
const STEP_STAGES: usize = 256;

/// Pieces of the tape to be sent to one connection in this order, adjacent ones merged.
#[derive(Debug, Default)]
pub struct Plan {
    pub runs: Vec<Run>,
    pub bytes: usize,
    pub publications: u64,
}

impl Plan {
    pub fn clear(&mut self) {
        self.runs.clear();
        self.bytes = 0;
        self.publications = 0;
    }

    pub fn push(&mut self, base: Position, start: u32, len: u32) {
        self.bytes += len as usize;
        self.publications += 1;
        match self.runs.last_mut() {
            Some(last) if last.base == base && last.start + last.len == start => last.len += len,
            _ => self.runs.push(Run { base, start, len }),
        }
    }
}

/// Where a step of one connection has led.
pub enum Step {
    /// It can go on at once.
    On,
    /// It has done its share of this turn.
    Enough,
    /// It is where the worker is, but not where its subscription changes: it goes on when the worker does.
    Wait,
    /// Its socket is full.
    Full,
    /// It has joined the march again.
    Joined,
    /// It is gone.
    Gone,
}

impl<E: Edge> Worker<E> {
    /// Gives a connection in march a cursor of its own, where it has come to.
    pub fn leave_march(&mut self, token: Token) {
        let position = self.position_in_march(token);
        self.leave_march_at(token, position);
    }

    /// Where a connection in march has been sent everything before: with the worker, unless it is still to be sent something
    /// that was planned.
    fn position_in_march(&mut self, token: Token) -> Position {
        let connection = &self.connections[token as usize];
        let cohort = connection.cohort.filter(|_| connection.marches());
        let owed_from = cohort.and_then(|id| self.interest.cohort(id).column.position(connection.place));
        owed_from.unwrap_or(self.position)
    }

    /// Gives a connection that has been sent everything before `position` a cursor of its own.
    pub fn leave_march_at(&mut self, token: Token, position: Position) {
        self.leave_members(token);
        let place = self.alone.len() as u32;
        self.alone.push(token);
        let cohort = self.connections[token as usize].cohort;
        let march = March {
            position,
            place,
            told: cohort.and_then(|cohort| self.told_at(token, cohort, position)),
            paces: cohort.map_or_else(Vec::new, |cohort| self.paces_from_tick(cohort)),
            ..March::default()
        };
        self.connections[token as usize].march = Some(Box::new(march));
    }

    /// Rounds of a cohort's rates for a member that has been sent everything up to the last tick.
    fn paces_from_tick(&mut self, cohort: CohortId) -> Vec<PacedRound> {
        let from_tick = |pace: &Pace| PacedRound::from(pace.tick, pace.ticks);
        self.interest.cohort(cohort).paces.iter().map(from_tick).collect()
    }

    /// What the members of a cohort have been sent last, as of `position`, of topics that are delivered in newest values.
    /// None if nothing is left out for this connection, or it isn't told.
    ///
    /// `position` is not beyond what the reader sees. It may be before the tape's floor, as long as the reader pins it.
    pub fn told_at(&mut self, token: Token, id: CohortId, position: Position) -> Option<Told> {
        let tells = self.connections[token as usize].speaks.tells();
        if !tells || !self.interest.cohort(id).has(|delivery| delivery != Delivery::All) {
            return None;
        }
        let topics = self.interest.topics_delivered(id, |delivery| delivery != Delivery::All);
        let newest = |slot: u32| Some((slot, self.interest.newest(slot)?.seq));
        let mut told: Told = topics.into_iter().filter_map(newest).collect();
        // The tables are as of the worker's position.
        let (from, to) = (position.min(self.position), position.max(self.position));
        let from = if position < self.position { from } else { from.max(self.reader.floor()).min(to) };
        let mut first = Told::default();
        self.reader.scan(from, to, |_, _, entry| {
            if position > self.position {
                if let Some(seq) = told.get_mut(&entry.topic.slot) {
                    *seq = entry.seq;
                }
            } else if told.contains_key(&entry.topic.slot) {
                first.entry(entry.topic.slot).or_insert(entry.seq - 1);
            }
            true
        });
        told.extend(first);
        for pace in &self.interest.cohort(id).paces {
            told.extend(pace.changes.iter().map(|change| (change.slot, change.before)));
        }
        Some(told)
    }

    /// The march of a connection that marches alone.
    pub fn march_of(&mut self, token: Token) -> &mut March {
        self.connections[token as usize].march.as_mut().expect("it marches alone")
    }

    /// Adds a change of subscription at `until` to a connection, which marches alone from here on.
    pub fn add_stage(&mut self, token: Token, stage: Stage) {
        if self.connections[token as usize].march.is_none() {
            self.leave_march(token);
        }
        self.march_of(token).stages.push_back(stage);
        self.list(token);
    }

    /// Puts a connection that marches alone on the list of those to go on this turn.
    pub fn list(&mut self, token: Token) {
        let connection = &mut self.connections[token as usize];
        if let Some(march) = connection.march.as_mut().filter(|march| !march.listed && !connection.full) {
            march.listed = true;
            self.runnable.push_back(token);
        }
    }

    /// Puts everybody who marches alone and has room on that list.
    pub fn list_all(&mut self) {
        for at in 0..self.alone.len() {
            self.list(self.alone[at]);
        }
    }

    /// Lets the connections that march alone and have room go a step, as many as a turn allows.
    pub fn march(&mut self) {
        let most = self.settings.turn_sends;
        let sends = self.metrics().sends.get() + most as u64;
        for _ in 0..self.runnable.len().min(most) {
            if self.metrics().sends.get() >= sends {
                return;
            }
            let Some(token) = self.runnable.pop_front() else { return };
            let Some(connection) = self.connections.get_mut(token as usize) else { continue };
            let Some(march) = connection.march.as_mut().filter(|march| march.listed) else { continue };
            march.listed = false;
            if !connection.full {
                self.march_one(token);
            }
        }
    }

    fn march_one(&mut self, token: Token) {
        for _ in 0..STEP_SENDS {
            self.enter_all_here(token);
            match self.step(token) {
                Step::On => {}
                Step::Enough => break,
                Step::Full => return self.await_room(token),
                Step::Wait | Step::Joined | Step::Gone => return,
            }
        }
        self.list(token);
    }

    /// Enters the stages that a connection has come to with nothing to send before them: what each has to say goes out
    /// together. Whoever changes its subscription faster than it can be sent an answer each doesn't fall behind for that.
    fn enter_all_here(&mut self, token: Token) {
        for _ in 0..STEP_STAGES {
            let march = self.connections[token as usize].march.as_ref().expect("only those alone are listed");
            let Some(stage) = march.stages.front().filter(|_| march.offset == 0 && march.resume.is_none()) else {
                return;
            };
            let (until, cohort) = (stage.until, stage.cohort);
            let here = match cohort {
                Some(cohort) => until <= march.position && self.interest.cohort(cohort).paces.is_empty(),
                None => until <= self.position,
            };
            if !here {
                return;
            }
            let march = self.march_of(token);
            march.position = march.position.max(until);
            let stage = march.stages.pop_front().expect("it is there");
            self.enter_stage(token, stage);
        }
    }

    /// One step: the rest of a frame, or answers, or publications up to the next stage.
    fn step(&mut self, token: Token) -> Step {
        let connection = &self.connections[token as usize];
        let march = connection.march.as_ref().expect("only those alone are listed");
        let (position, offset) = (march.position, march.offset);
        if offset == 0 && !connection.out.is_empty() {
            return match self.flush(token) {
                Outcome::All => Step::On,
                Outcome::Full(_) => Step::Full,
                Outcome::Broken(_) => Step::Gone,
            };
        }
        if let Some(resume) = &march.resume {
            if position < resume.until {
                return self.send_missed(token);
            }
            self.march_of(token).resume = None;
            return Step::On;
        }
        let stage = march.stages.front().map(|stage| (stage.until, stage.cohort));
        let (until, cohort) = stage.unwrap_or((self.position, connection.cohort));
        let due = stage.is_some() && until <= self.position;
        let until = until.min(self.position);
        if let Some(cohort) = cohort {
            if position < until && self.interest.cohort(cohort).has(|delivery| delivery.rate().is_none()) {
                // What the tape has let go of can only be left out.
                let slow = march.slow || position < self.reader.floor();
                self.march_of(token).slow = slow;
                return if slow && self.interest.cohort(cohort).has(|delivery| delivery == Delivery::Latest) {
                    self.send_newest(token, cohort, until)
                } else {
                    self.send_some(token, cohort, (position, offset), until)
                };
            }
            for n in 0..self.interest.cohort(cohort).paces.len() {
                if let Some(step) = self.send_paced(token, cohort, n, due.then_some(until)) {
                    return step;
                }
            }
        }
        let march = self.march_of(token);
        march.position = position.max(until);
        if due {
            let stage = march.stages.pop_front().expect("it is due");
            self.enter_stage(token, stage);
            return Step::On;
        }
        if self.may_join(token) {
            self.join_march(token);
            return Step::Joined;
        }
        Step::Wait
    }

    /// Whether a connection has caught up in everything.
    fn may_join(&mut self, token: Token) -> bool {
        let position = self.position;
        let connection = &self.connections[token as usize];
        let march = connection.march.as_ref().expect("only those alone are listed");
        if !march.stages.is_empty() || march.position != position {
            return false;
        }
        let Some(cohort) = connection.cohort else { return true };
        let even = |(own, pace): (&PacedRound, &Pace)| own.is_even_with(pace);
        march.paces.iter().zip(&self.interest.cohort(cohort).paces).all(even)
    }

    /// Sends up to one buffer of the cohort's publications from the cursor on, beginning within a frame if need be.
    fn send_some(&mut self, token: Token, cohort: CohortId, from: (Position, u32), until: Position) -> Step {
        let lane = self.interest.cohort(cohort).key.lane;
        let mut plan = std::mem::take(&mut self.plan_alone);
        let (position, offset) = from;
        let Worker { reader, interest, tape, .. } = self;
        let mut steps = 0;
        let reached = reader.scan(position, until, |at, base, entry| {
            if steps == STEP_ENTRIES || plan.bytes >= SEND_MAX {
                return false;
            }
            steps += 1;
            let resumed = if at == position { offset } else { 0 };
            if interest.wants(tape, cohort, entry).is_some() {
                let len = entry.len[lane as usize];
                // A publication from before the lane was written can't be on the way to anybody.
                debug_assert!(len > resumed);
                plan.push(base, entry.start[lane as usize] + resumed, len - resumed);
            }
            true
        });
        let mut sends = 0;
        let outcome = if plan.runs.is_empty() {
            Outcome::All
        } else {
            let bytes = contiguous(reader, lane, plan.runs.iter().copied(), &mut self.gather);
            send_all(&mut self.edge, &self.connections[token as usize].socket, bytes, &mut sends)
        };
        let (publications, size) = (plan.publications, plan.bytes);
        plan.clear();
        self.plan_alone = plan;
        self.metrics().sends.add(sends);
        let connection = &mut self.connections[token as usize];
        let march = connection.march.as_mut().expect("it is alone");
        match outcome {
            Outcome::All => {
                (march.position, march.offset) = (reached, 0);
                if sends > 0 {
                    connection.sent = self.now;
                }
                self.note_told(token, cohort, position, reached);
                self.metrics().deliveries.add(publications);
                self.metrics().sent_bytes.add(size as u64);
                if steps == STEP_ENTRIES { Step::Enough } else { Step::On }
            }
            Outcome::Full(taken) => {
                // Positions are counted in whole frames, so the part of the first that went before counts again.
                let (reached, offset, passed) = self.locate(cohort, position, taken + offset as usize);
                self.note_told(token, cohort, position, reached);
                self.stop_at(token, cohort, reached, offset);
                self.metrics().deliveries.add(passed);
                self.metrics().sent_bytes.add(taken as u64);
                self.metrics().sends_full.add(1);
                Step::Full
            }
            Outcome::Broken(why) => {
                self.lost(token, why);
                Step::Gone
            }
        }
    }

    /// Notes that a connection was sent every publication in `from..to` that its cohort wants.
    fn note_told(&mut self, token: Token, cohort: CohortId, from: Position, to: Position) {
        let Some(mut told) = self.march_of(token).told.take() else { return };
        let Worker { reader, interest, tape, .. } = self;
        reader.scan(from, to, |_, _, entry| {
            if interest.wants(tape, cohort, entry) == Some(Delivery::Latest) {
                told.insert(entry.topic.slot, entry.seq);
            }
            true
        });
        self.march_of(token).told = Some(told);
    }

    /// A connection's socket was full `offset` bytes into the publication at `position`.
    ///
    /// Where the tape may roll on without it, it takes the rest of that frame along.
    pub fn stop_at(&mut self, token: Token, cohort: CohortId, position: Position, offset: u32) {
        let march = self.march_of(token);
        (march.position, march.offset, march.slow) = (position, offset, true);
        if offset == 0 || !self.interest.cohort(cohort).has(|delivery| delivery == Delivery::Latest) {
            return;
        }
        let rest = self.rest_of_frame(token).expect("it was just sent from");
        self.put_rest(token, rest);
        let next = Position(position.0 + 1);
        self.note_told(token, cohort, position, next);
        let march = self.march_of(token);
        (march.position, march.offset) = (next, 0);
    }

    /// Puts the rest of a publication before everything else that a connection is to be sent.
    pub fn put_rest(&mut self, token: Token, rest: impl IntoIterator<Item = u8>) {
        let connection = &mut self.connections[token as usize];
        let before = connection.out.len();
        connection.out.splice(..0, rest);
        let rest = connection.out.len() - before;
        self.march_of(token).rest = rest;
    }

    /// A connection has come to a change of its subscription.
    fn enter_stage(&mut self, token: Token, stage: Stage) {
        self.connections[token as usize].out.extend_from_slice(&stage.then);
        let cohort = self.cohort_at(token);
        let ticks = match cohort {
            Some(cohort) => self.interest.cohort(cohort).paces.iter().map(|pace| pace.ticks).collect(),
            None => Vec::new(),
        };
        let before = self.march_of(token).told.take().unwrap_or_default();
        let told = stage.told.map(|mut told| {
            // What the client was told of a topic counts on, as long as that is delivered in newest values.
            let conflated = |cohort: Option<CohortId>, slot: u32| {
                let delivery = cohort.and_then(|cohort| self.interest.delivery(cohort, slot));
                delivery.is_some_and(|delivery| delivery != Delivery::All)
            };
            for (slot, seq) in &mut told {
                if conflated(stage.cohort, *slot) {
                    *seq = before.get(slot).copied().unwrap_or(0);
                }
            }
            let goes_on = |slot: u32| conflated(stage.cohort, slot) && conflated(cohort, slot);
            told.extend(before.into_iter().filter(|(slot, _)| goes_on(*slot)));
            told.extend(stage.fresh);
            told
        });
        let march = self.march_of(token);
        march.told = told;
        march.round = Round::default();
        march.paces = ticks.into_iter().map(|ticks| PacedRound::from(stage.until, ticks)).collect();
        if let Some(resume) = stage.resume {
            march.position = resume.from;
            march.resume = Some(resume);
        }
        if let Some(cohort) = stage.cohort {
            self.leave_cohort(cohort);
        }
    }

    /// The cohort that counts at the position of a connection that marches alone.
    fn cohort_at(&self, token: Token) -> Option<CohortId> {
        let connection = &self.connections[token as usize];
        let march = connection.march.as_ref().expect("it marches alone");
        march.stages.front().map_or(connection.cohort, |stage| stage.cohort)
    }

    /// A connection has caught up: its cursor is the worker's from here on.
    fn join_march(&mut self, token: Token) {
        self.stop_marching(token);
        let connection = &mut self.connections[token as usize];
        if let Some(id) = connection.cohort.filter(|_| connection.phase == Phase::Open) {
            connection.place = self.interest.cohort(id).column.join(token);
        }
    }

    /// Takes a connection off the list of those that march alone, and its stages with it.
    pub fn stop_marching(&mut self, token: Token) {
        let Some(march) = self.connections[token as usize].march.take() else { return };
        if march.short {
            self.edge.keep_short(&self.connections[token as usize].socket, false);
        }
        self.alone.swap_remove(march.place as usize);
        if let Some(moved) = self.alone.get(march.place as usize) {
            let moved = &mut self.connections[*moved as usize];
            moved.march.as_mut().expect("it is alone").place = march.place;
        }
        for stage in march.stages {
            if let Some(cohort) = stage.cohort {
                self.leave_cohort(cohort);
            }
        }
    }

    /// Takes a connection out of its cohort's members in march, if it is one of them.
    pub fn leave_members(&mut self, token: Token) {
        let connection = &self.connections[token as usize];
        let Some(id) = connection.cohort.filter(|_| connection.marches()) else { return };
        let place = connection.place;
        let Worker { interest, connections, passes, .. } = self;
        let moved = |token: Token, place: u32| connections[token as usize].place = place;
        interest.cohort(id).column.leave(place, passes, moved);
    }

    /// The unsent rest of the frame in which a connection stopped; empty if it stopped between frames.
    pub fn rest_of_frame(&self, token: Token) -> Option<Vec<u8>> {
        let connection = &self.connections[token as usize];
        let Some(march) = connection.march.as_ref().filter(|march| march.offset > 0) else { return Some(Vec::new()) };
        let mut found = None;
        self.reader.look(march.position, |base, entry| found = Some((base, *entry)));
        let (base, entry) = found?;
        let mut frame = Vec::new();
        self.push_entry(connection.lane(), base, &entry, &mut frame);
        Some(frame.split_off(march.offset as usize))
    }
}
