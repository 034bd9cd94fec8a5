//! Who is furthest behind: cursors in the order of the tape, so that those that the tape's floor has passed, the greatest lag and
//! the slowest few are found without a look at everybody.
//!
//! A place in it says that a cursor stands there *or further on*: it is put in where it began, and stays there while it walks, which
//! costs nothing then. Whoever comes to it from the front looks where it really is, and puts it there. So those that stand still
//! are looked at once and not again, however many there are.
//!
//! ```text
//!   needed, by lane    what it has to be sent every publication from: the tape must not roll on beyond
//!   stands             where it is, as a subscriber
//! ```

use std::collections::BTreeSet;

use crate::{
    io::Token,
    lane::{LANES, Lane},
    tape::Position,
};

/// See the module's description.
#[derive(Debug, Default)]
pub struct Order {
    needed: [BTreeSet<(Position, Token)>; LANES],
    stands: BTreeSet<(Position, Token)>,
}

/// A cursor's places in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    pub lane: Lane,
    pub needed: Option<Position>,
    pub stands: Option<Position>,
}

impl Places {
    /// In none yet.
    pub fn none(lane: Lane) -> Places {
        Places { lane, needed: None, stands: None }
    }
}

impl Order {
    /// A cursor stands at `stands` or further on, and needs nothing from before `needed`.
    pub fn enter(&mut self, token: Token, places: &mut Places, needed: Position, stands: Position) {
        if places.needed.is_none_or(|before| needed < before) {
            self.set_needed(token, places, Some(needed));
        }
        if places.stands.is_none_or(|before| stands < before) {
            self.set_stands(token, places, Some(stands));
        }
    }

    /// A cursor is gone.
    pub fn leave(&mut self, token: Token, places: &mut Places) {
        self.set_needed(token, places, None);
        self.set_stands(token, places, None);
    }

    /// Where it was looked: it needs nothing from before `needed`; nothing at all if that is none.
    pub fn set_needed(&mut self, token: Token, places: &mut Places, needed: Option<Position>) {
        put(&mut self.needed[places.lane as usize], token, &mut places.needed, needed);
    }

    /// Where it was looked: it stands at `stands` or further on; nowhere if that is none.
    pub fn set_stands(&mut self, token: Token, places: &mut Places, stands: Option<Position>) {
        put(&mut self.stands, token, &mut places.stands, stands);
    }

    /// The first one of a lane that may need what comes from its place on.
    pub fn first_needed(&self, lane: Lane) -> Option<(Position, Token)> {
        self.needed[lane as usize].first().copied()
    }

    /// The first one of all lanes.
    pub fn oldest_needed(&self) -> Option<(Position, Token)> {
        self.needed.iter().filter_map(|of_lane| of_lane.first().copied()).min()
    }

    /// Those that stand at their places or further on, the furthest behind first.
    pub fn standing(&self) -> impl Iterator<Item = (Position, Token)> {
        self.stands.iter().copied()
    }
}

fn put(set: &mut BTreeSet<(Position, Token)>, token: Token, place: &mut Option<Position>, to: Option<Position>) {
    if let Some(before) = std::mem::replace(place, to) {
        set.remove(&(before, token));
    }
    if let Some(to) = to {
        set.insert((to, token));
    }
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl Order {
    /// Asserts that a cursor's places are in it.
    pub fn invariants(&self, token: Token, places: &Places) {
        let is_in = |set: &BTreeSet<_>, place: Option<Position>| place.is_none_or(|at| set.contains(&(at, token)));
        assert!(is_in(&self.needed[places.lane as usize], places.needed) && is_in(&self.stands, places.stands));
    }

    /// How many places there are in all.
    pub fn len(&self) -> usize {
        self.needed.iter().chain([&self.stands]).map(BTreeSet::len).sum()
    }
}
