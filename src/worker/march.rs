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
//! Frames of its own (`out`) go between publications, never inside one.

use super::{
    Worker,
    connection::{March, Phase, Stage},
    fanout::{Outcome, SEND_MAX, contiguous, send_all},
    interest::CohortId,
};
use crate::{
    io::{Edge, Token},
    tape::{Position, Run},
};

/// Index entries that one connection alone goes through in one turn.
const STEP_ENTRIES: usize = 16 * 1024;

/// Sends for one connection alone in one turn.
const STEP_SENDS: usize = 4;

/// Where a step of one connection has led.
enum Step {
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
    /// Gives a connection a cursor of its own.
    pub(super) fn march_alone_from(&mut self, token: Token, march: March) {
        self.leave_members(token);
        let place = self.alone.len() as u32;
        self.alone.push(token);
        self.connections[token as usize].march = Some(Box::new(March { place, ..march }));
    }

    /// Adds a change of subscription at `until` to a connection, which marches alone from here on.
    pub(super) fn add_stage(&mut self, token: Token, stage: Stage) {
        if self.connections[token as usize].march.is_none() {
            self.march_alone_from(token, March { position: self.position, ..March::default() });
        }
        let connection = &mut self.connections[token as usize];
        connection.march.as_mut().expect("it was just made").stages.push_back(stage);
        self.list(token);
    }

    /// Puts a connection that marches alone on the list of those to go on this turn.
    pub(super) fn list(&mut self, token: Token) {
        let connection = &mut self.connections[token as usize];
        if let Some(march) = connection.march.as_mut().filter(|march| !march.listed && !connection.full) {
            march.listed = true;
            self.runnable.push(token);
        }
    }

    /// Puts everybody who marches alone and has room on that list.
    pub(super) fn list_all(&mut self) {
        for at in 0..self.alone.len() {
            self.list(self.alone[at]);
        }
    }

    /// Lets every connection that marches alone and has room go a step.
    pub(super) fn march(&mut self) {
        let runnable = std::mem::take(&mut self.runnable);
        for token in &runnable {
            let Some(connection) = self.connections.get_mut(*token as usize) else { continue };
            let Some(march) = connection.march.as_mut().filter(|march| march.listed) else { continue };
            march.listed = false;
            if !connection.full {
                self.march_one(*token);
            }
        }
        // Those that were listed meanwhile come first next turn; the buffer is used again.
        let listed = std::mem::replace(&mut self.runnable, runnable);
        self.runnable.clear();
        self.runnable.extend(listed);
    }

    fn march_one(&mut self, token: Token) {
        for _ in 0..STEP_SENDS {
            match self.step(token) {
                Step::On => {}
                Step::Enough => break,
                Step::Full => return self.await_room(token),
                Step::Wait | Step::Joined | Step::Gone => return,
            }
        }
        self.list(token);
    }

    /// One step: the rest of a frame, or answers, or publications up to the next stage.
    fn step(&mut self, token: Token) -> Step {
        let connection = &self.connections[token as usize];
        let march = connection.march.as_ref().expect("only those alone are listed");
        let (position, offset) = (march.position, march.offset);
        let stage = march.stages.front().map(|stage| (stage.until, stage.cohort));
        let (until, cohort) = stage.unwrap_or((self.position, connection.cohort));
        let until = until.min(self.position);
        if offset == 0 && !connection.out.is_empty() {
            return match self.flush(token) {
                Outcome::All => Step::On,
                Outcome::Full(_) => Step::Full,
                Outcome::Broken(_) => Step::Gone,
            };
        }
        if position < until
            && let Some(cohort) = cohort
        {
            return self.send_some(token, cohort, (position, offset), until);
        }
        let due = stage.is_some_and(|(until, _)| until <= self.position);
        let march = self.connections[token as usize].march.as_mut().expect("it is alone");
        march.position = position.max(until);
        if due {
            let stage = march.stages.pop_front().expect("it is due");
            self.enter_stage(token, stage);
            return Step::On;
        }
        if march.stages.is_empty() && march.position == self.position {
            self.join_march(token);
            return Step::Joined;
        }
        Step::Wait
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
            if interest.wants(tape, cohort, entry) {
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
            let bytes = contiguous(reader, lane, &plan, &mut self.gather);
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
                self.metrics().deliveries.add(publications);
                self.metrics().sent_bytes.add(size as u64);
                if steps == STEP_ENTRIES { Step::Enough } else { Step::On }
            }
            Outcome::Full(taken) => {
                // Positions are counted in whole frames, so the part of the first that went before counts again.
                let (position, offset, passed) = self.locate(cohort, position, taken + offset as usize);
                let march = self.connections[token as usize].march.as_mut().expect("it is alone");
                (march.position, march.offset) = (position, offset);
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

    /// A connection has come to a change of its subscription.
    fn enter_stage(&mut self, token: Token, stage: Stage) {
        self.connections[token as usize].out.extend_from_slice(&stage.then);
        if let Some(cohort) = stage.cohort {
            self.leave_cohort(cohort);
        }
    }

    /// A connection has caught up: its cursor is the worker's from here on.
    fn join_march(&mut self, token: Token) {
        self.stop_marching(token);
        let connection = &mut self.connections[token as usize];
        if let Some(id) = connection.cohort.filter(|_| connection.phase == Phase::Open) {
            let cohort = self.interest.cohort(id);
            connection.place = cohort.members.len() as u32;
            cohort.members.push(token);
        }
    }

    /// Takes a connection off the list of those that march alone, and its stages with it.
    pub(super) fn stop_marching(&mut self, token: Token) {
        let Some(march) = self.connections[token as usize].march.take() else { return };
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

    /// Takes a connection out of its cohort's members, if it is one of them.
    pub(super) fn leave_members(&mut self, token: Token) {
        let connection = &self.connections[token as usize];
        if connection.march.is_some() || connection.phase == Phase::Request {
            return;
        }
        let (Some(id), place) = (connection.cohort, connection.place) else { return };
        let members = &mut self.interest.cohort(id).members;
        members.swap_remove(place as usize);
        if let Some(moved) = members.get(place as usize) {
            self.connections[*moved as usize].place = place;
        }
    }

    /// The unsent rest of the frame in which a connection stopped; empty if it stopped between frames.
    pub(super) fn rest_of_frame(&self, token: Token) -> Option<Vec<u8>> {
        let connection = &self.connections[token as usize];
        let Some(march) = connection.march.as_ref().filter(|march| march.offset > 0) else { return Some(Vec::new()) };
        let lane = connection.lane();
        let mut found = None;
        self.reader.look(march.position, |base, entry| {
            let (start, len) = (entry.start[lane as usize], entry.len[lane as usize]);
            let run = Run { base, start: start + march.offset, len: len - march.offset };
            found = Some(self.reader.bytes(lane, run).to_vec());
        });
        found
    }
}
