//! The trail: cohorts that can't be sent what is planned as fast as the others, planned for at a place of their own.
//!
//! The fan plans in the order of the tape. If it waited there until a crowd is sent what it wants, nobody would be sent what
//! comes behind; so it doesn't wait. A cohort that is owed much, or where one publication is for a great many cohorts, *trails*: the fan
//! goes on without it, and what it has passed is planned for it from a second place, as far as the cohorts there are sent it.
//!
//! ```text
//!   tape   ─────────|────────────────────|──────────────────────| head
//!                   the trail            cohort 3 trails        the fan
//!                                        since here
//! ```
//!
//! When the trail has come to where the fan is, all of them are the fan's again. Until then, whoever is behind and comes to where
//! the fan is goes on by itself, since the cohort's members are elsewhere. Publishers wait by where the trail is, so that
//! nobody falls off the tape who is only one of many.

use super::{super::ground::Ground, Fan, PLANNED_BYTES, TO_SEND_BYTES, column::Column, interest::CohortId, is_much};
use crate::{io::Edge, packs::Frames, tape::Position};

/// Bytes that the members of one cohort are owed, all together, and that one of them is owed, from which on it trails while there is
/// much on the way.
const COHORT_BYTES: u64 = TO_SEND_BYTES / 512;
const MEMBER_BYTES: usize = PLANNED_BYTES / 32;

/// Pieces that one cohort is owed.
const COHORT_RUNS: usize = if cfg!(any(test, fuzzing)) { 16 } else { 1024 };

/// Looks at cohorts that one publication may cost the fan while it is behind.
const LOOKS_MANY: u64 = if cfg!(any(test, fuzzing)) { 4 } else { 64 };

/// Which cohorts trail, and where. See the module's description.
#[derive(Debug)]
pub struct Trail {
    /// Everything before was planned for those that trail.
    position: Position,
    /// How many trail.
    cohorts: usize,
    /// Cohorts and topics that have noted this number trail; with another one, that was another time.
    era: u64,
    /// One that is owed as much as anybody may be.
    full: Option<CohortId>,
}

impl Default for Trail {
    fn default() -> Trail {
        Trail { position: Position(0), cohorts: 0, era: 1, full: None }
    }
}

impl Trail {
    /// How many trail.
    pub fn len(&self) -> usize {
        self.cohorts
    }

    /// Everything before was planned for those that trail; none if none does.
    #[inline]
    pub fn position(&self) -> Option<Position> {
        (self.cohorts > 0).then_some(self.position)
    }

    /// Those that have noted this number trail.
    #[inline]
    pub fn era(&self) -> u64 {
        self.era
    }

    /// One that is owed as much as anybody may be, until nothing more is planned for it.
    pub fn full(&self) -> Option<CohortId> {
        self.full
    }

    /// One more trails, from `since` on. Returns the number that it has to note.
    pub fn enter(&mut self, since: Position) -> u64 {
        if self.cohorts == 0 {
            self.position = since;
        }
        self.cohorts += 1;
        self.era
    }

    /// One that trails is gone.
    pub fn leave(&mut self) {
        self.cohorts -= 1;
        if self.cohorts == 0 {
            self.end();
        }
    }

    /// A cohort is owed as much as anybody may be.
    pub fn note_full(&mut self, id: CohortId) {
        self.full = Some(id);
    }

    /// What comes before `position` is planned, or gone; where that is where the fan is, nobody trails any more.
    pub fn come_to(&mut self, position: Position, fan: Position) {
        self.position = position;
        if self.cohorts > 0 && position >= fan {
            self.end();
        }
    }

    fn end(&mut self) {
        (self.cohorts, self.era, self.full) = (0, self.era + 1, None);
    }
}

/// What one cohort may be owed before it trails, and what one publication may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes for one member.
    pub owed: usize,
    /// The fan is behind: publications that are for many cohorts are left to the trail.
    pub is_late: bool,
    /// There is much on its way.
    pub is_much: bool,
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { owed: usize::MAX, is_late: false, is_much: false }
    }
}

impl Bounds {
    /// Whether a publication that costs so many looks is for the trail.
    #[inline]
    pub fn is_for_many(&self, looks: u64) -> bool {
        self.is_late && looks > LOOKS_MANY
    }

    /// Whether a cohort's members may be owed no more than they are, `most` bytes each at most, with one more publication.
    #[inline]
    pub fn are_passed(&self, column: &Column, most: usize) -> bool {
        let is_enough = || most > MEMBER_BYTES || (most * column.len()) as u64 > COHORT_BYTES;
        most > self.owed || column.pieces() > COHORT_RUNS || (self.is_much && is_enough())
    }
}

impl Fan {
    /// Plans for the cohorts that trail, as far as there may be something on its way. Returns whether there was something to plan.
    pub fn plan_trail<E: Edge>(&mut self, ground: &mut Ground<E>) -> bool {
        let Some(from) = self.interest.trail.position() else { return false };
        if self.is_crowded() {
            return false;
        }
        let Fan { interest, passes, touched, .. } = self;
        let Ground { reader, tape, settings, work, packer, .. } = ground;
        let mut frames = Frames { reader, packer };
        let pass = passes.begin();
        let (most, until) = (work.left(), interest.position);
        let mut enough = false;
        let reached = reader.scan(from, until, |entry| {
            if enough || is_much(passes) || interest.cost() + frames.packer.cost() >= most {
                return false;
            }
            let (full, to_send) = interest.plan_trail(tape, pass, (entry, &mut frames), settings.owed_max, touched);
            if to_send > 0 {
                passes.note(entry.ts, entry.longest(), to_send);
            }
            enough = full;
            true
        });
        work.charge(interest.take_cost() + frames.packer.take_cost());
        interest.trail.come_to(reached, until);
        self.line_up();
        true
    }
}
