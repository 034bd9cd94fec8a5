//! Rates: what changed is noted while publications pass, and sent once a tick.
//!
//! All cohorts of one rate tick together, and only if something changed. At a tick the newest publication of each changed
//! topic is gathered once, in the order of the tape, and every member is sent the same bytes (`tick.rs`). Those that are behind have rounds
//! of their own (`cursors/round.rs`), which also begin at ticks: nobody is sent a topic twice between two.

use std::collections::BTreeSet;

use super::{
    delivery::Rate,
    interest::{CohortId, Newest},
};
use crate::{clock::Moment, tape::Position};

/// One rate of a cohort.
#[derive(Debug)]
pub struct Pace {
    pub rate: Rate,
    /// Where the last tick stood: what came before it has been sent.
    pub tick: Position,
    /// How many ticks there were.
    pub ticks: u64,
    /// When the next tick comes; none if nothing has changed.
    pub due: Option<Moment>,
    /// What has changed since the last tick.
    pub changes: Vec<Change>,
    /// The number of the last tick while members are still to be served at it: the next one waits.
    pub open: Option<u64>,
    /// Where the tick before that one stood.
    pub before: Position,
}

/// A topic that has changed.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub slot: u32,
    /// Its newest number at the last tick.
    pub before: u64,
}

/// When rates tick that have something to send, the next one first: as many entries as there are such rates. An entry goes with
/// its cohort, so that whoever subscribes and leaves again and again leaves nothing behind until a far tick.
#[derive(Debug, Default)]
pub struct Ticks(BTreeSet<(Moment, CohortId, usize)>);

impl Ticks {
    /// The next tick: when, of which cohort, and the number of its rate.
    pub fn next(&self) -> Option<(Moment, CohortId, usize)> {
        self.0.first().copied()
    }

    /// Sets the next tick of a cohort's rate, which had none.
    pub fn set(&mut self, id: CohortId, n: usize, pace: &mut Pace, due: Moment) {
        debug_assert!(pace.due.is_none() && pace.open.is_none(), "one tick at a time");
        pace.due = Some(due);
        self.0.insert((due, id, n));
    }

    /// Takes the next tick of a cohort's rate back, if there is one.
    pub fn clear(&mut self, id: CohortId, n: usize, pace: &mut Pace) {
        if let Some(due) = pace.due.take() {
            self.0.remove(&(due, id, n));
        }
    }

    /// How many there are.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Pace {
    pub fn new(rate: Rate, tick: Position) -> Pace {
        Pace { rate, tick, ticks: 0, due: None, changes: Vec::new(), open: None, before: tick }
    }

    /// Notes that a topic was published on at `at`, whose newest publication was `before` (`told` unless that may have
    /// been left out for this cohort). Returns whether it is the first change since the last tick.
    pub fn note(&mut self, slot: u32, at: Position, before: Newest, told: bool) -> bool {
        let noted = before.end > self.tick && (told || self.changes.iter().any(|change| change.slot == slot));
        if noted || at < self.tick {
            return false;
        }
        self.changes.push(Change { slot, before: before.seq });
        self.changes.len() == 1
    }

    /// From where on something may not have been told to a member; none if all was.
    pub fn untold_from(&self) -> Option<Position> {
        match self.open {
            Some(_) => Some(self.before),
            None => (!self.changes.is_empty()).then_some(self.tick),
        }
    }

    /// Begins anew at `position`, as if everything before had been sent. Returns what had changed.
    pub fn restart(&mut self, position: Position) -> Vec<Change> {
        (self.before, self.tick) = (self.tick, position);
        self.ticks += 1;
        std::mem::take(&mut self.changes)
    }
}
