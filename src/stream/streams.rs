//! What a worker knows of all streams that its cohorts share: how many there are and may be, who gets one, and what they may cost.

use std::time::Duration;

use super::ENTRY_COST_MAX;
use crate::{clock::Moment, tape::Position};

/// For so long a stream is kept free for the larger cohort that it was taken away for, which isn't published for as often; and no other is taken away.
const CLAIM_PATIENCE: Duration = Duration::from_secs(1);

/// So many are looked at in each turn, and more than that ten times a second: what each has is in the cache of a processor only where they are few.
const FEW: usize = 64;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Passes on end that found turns full: from then on it isn't a burst, and cohorts of a few members do without their streams.
const BURST: u32 = if cfg!(any(test, fuzzing)) { 3 } else { 32 };

/// For so long that has not to have been so before cohorts of a few members have streams again: each that is opened takes its memory anew, and it
/// may be they who fill the turns.
pub const LEISURE: Duration = Duration::from_secs(10);

/// What a worker knows of the streams that its cohorts share. They belong to these.
#[derive(Default)]
pub struct Streams {
    /// So many of the server's may be this worker's.
    pub most: usize,
    /// The cohorts that have one, by their numbers, and some that had.
    pub open: Vec<u32>,
    /// The largest of the cohorts that could have had one if there had been fewer, and its members; since that was last looked at.
    refused: Option<(u32, usize)>,
    /// The cohort that one was taken away for, and until when it has the claim.
    claim: Option<(u32, Moment)>,
    /// The last pass began then.
    now: Moment,
    look_due: Option<Moment>,
    /// Turns are full.
    pub is_pressed: bool,
    /// They have been for longer than a burst takes, within the last [`LEISURE`].
    pub is_swamped: bool,
    swamped_until: Option<Moment>,
    /// Passes on end that found them full.
    pressed: u32,
    /// The publication that was looked at last, and whether it is kept out of streams.
    pub private: Option<(Position, bool)>,
    /// The publication that was compressed last for a stream, and what that has cost in all of them.
    spent: (Position, u64),
    /// The one that was passed over last, and what that has cost.
    passed: (Position, u64),
}

impl Streams {
    /// None yet, of so many that there may be.
    pub fn new(most: usize) -> Streams {
        Streams { most, ..Streams::default() }
    }

    /// Whether a pass finds turns full, as of now.
    pub fn note_pressed(&mut self, is_pressed: bool, now: Moment) {
        (self.is_pressed, self.now) = (is_pressed, now);
        self.pressed = if is_pressed { self.pressed.saturating_add(1) } else { 0 };
        if self.pressed >= BURST {
            self.swamped_until = Some(now + LEISURE);
        }
        self.is_swamped = self.swamped_until.is_some_and(|until| now < until);
    }

    /// Whether so much more may be done in streams for the publication at `at`. The first may cost what it does.
    pub fn may_cost(&self, at: Position, cost: u64) -> bool {
        self.spent.0 != at || self.spent.1 == 0 || self.spent.1 + cost <= ENTRY_COST_MAX
    }

    /// Whether it may; then it is charged to that publication.
    pub fn may_spend(&mut self, at: Position, cost: u64) -> bool {
        let may = self.may_cost(at, cost);
        if self.spent.0 != at {
            self.spent = (at, 0);
        }
        self.spent.1 += if may { cost } else { 0 };
        may
    }

    /// The same for a stream that passes it over: as much again.
    pub fn may_pass(&mut self, at: Position, cost: u64) -> bool {
        if self.passed.0 != at {
            self.passed = (at, 0);
        }
        let may = self.passed.1 == 0 || self.passed.1 + cost <= ENTRY_COST_MAX;
        self.passed.1 += if may { cost } else { 0 };
        may
    }

    /// Whether a cohort may have one: there is one left, or one was taken away for it.
    pub fn has_room_for(&mut self, cohort: u32) -> bool {
        self.claim = self.claim.filter(|(claimant, until)| *claimant != cohort && self.now < *until);
        self.open.len() + usize::from(self.claim.is_some()) < self.most
    }

    /// Whether all of them are to be looked at in this turn.
    pub fn is_to_look(&mut self, now: Moment) -> bool {
        let is_due = self.open.len() <= FEW || self.look_due.is_none_or(|due| now >= due);
        if is_due {
            self.look_due = Some(now + LOOK_EVERY);
        }
        is_due
    }

    /// The cohort that could have had one if there had been fewer, unless one is kept free for another.
    pub fn take_refused(&mut self) -> Option<(u32, usize)> {
        self.refused.take().filter(|_| self.claim.is_none_or(|(_, until)| self.now >= until))
    }

    /// One was taken away for this cohort.
    pub fn claim_for(&mut self, cohort: u32) {
        self.claim = Some((cohort, self.now + CLAIM_PATIENCE));
    }

    /// A cohort has a stream from here on.
    pub fn note_open(&mut self, cohort: u32) {
        if !self.open.contains(&cohort) {
            self.open.push(cohort);
        }
    }

    /// A cohort could have had one. One of a single member is larger than none.
    pub fn note_refused(&mut self, cohort: u32, members: usize) {
        if members > 1 && self.refused.is_none_or(|(_, most)| most < members) {
            self.refused = Some((cohort, members));
        }
    }
}
