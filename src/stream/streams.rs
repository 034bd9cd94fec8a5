//! What a worker knows of all streams that its cohorts share: how many there are and may be, who gets one, and what they may cost.

use std::time::Duration;

use super::ENTRY_COST_MAX;
use crate::{clock::Moment, tape::Position};

/// Cohorts that may ask for a stream in vain while one is kept free for a larger one, which isn't published for as often.
const CLAIM_PATIENCE: u32 = 1000;

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
    pub refused: Option<(u32, usize)>,
    /// The cohort that one was taken away for, and how many others may ask in vain until it loses the claim.
    claim: Option<(u32, u32)>,
    /// Turns are full.
    pub is_pressed: bool,
    /// They have been for longer than a burst takes, within the last [`LEISURE`].
    pub is_swamped: bool,
    swamped_until: Option<Moment>,
    /// Passes on end that found them full.
    pressed: u32,
    /// The publication that was compressed last for a stream, and what that has cost in all of them.
    spent: (Position, u64),
}

impl Streams {
    /// None yet, of so many that there may be.
    pub fn new(most: usize) -> Streams {
        Streams { most, ..Streams::default() }
    }

    /// Whether a pass finds turns full, as of now.
    pub fn note_pressed(&mut self, is_pressed: bool, now: Moment) {
        self.is_pressed = is_pressed;
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

    /// Whether a cohort may have one: there is one left, or one was taken away for it.
    pub fn has_room_for(&mut self, cohort: u32) -> bool {
        let mut claimed = 0;
        if let Some((claimant, patience)) = &mut self.claim {
            if *claimant == cohort || *patience == 0 {
                self.claim = None;
            } else {
                *patience -= 1;
                claimed = 1;
            }
        }
        self.open.len() + claimed < self.most
    }

    /// One was taken away for this cohort.
    pub fn claim_for(&mut self, cohort: u32) {
        self.claim = Some((cohort, CLAIM_PATIENCE));
    }

    /// A cohort has a stream from here on.
    pub fn note_open(&mut self, cohort: u32) {
        if !self.open.contains(&cohort) {
            self.open.push(cohort);
        }
    }

    /// A cohort could have had one.
    pub fn note_refused(&mut self, cohort: u32, members: usize) {
        if self.refused.is_none_or(|(_, most)| most < members) {
            self.refused = Some((cohort, members));
        }
    }
}
