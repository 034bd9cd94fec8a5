//! What the newest publication of each topic was, as of positions that somebody goes back to.
//!
//! A subscriber that is slow is told exactly what was left out for it, and is sent in its rounds what was newest at one position.
//! Both are questions about all topics as of an earlier position. No table is copied for them: whoever will ask puts a [`Mark`] where the
//! tables stand, and from then on, the first time that a topic is published on behind the newest mark, what was its newest
//! before is kept with the topic.
//!
//! ```text
//!   marks               M1             M2        now
//!   topic 7    ──5───────────6──7───────────8─────►      kept: M1: 5, M2: 7     as of M1 5, as of M2 7
//!   topic 9    ──3─────────────────────────────4──►      kept: M2: 3            as of M1 3, as of M2 3
//!   topic 2    ──1────────────────────────────────►      kept: nothing          as of both 1, as now
//! ```
//!
//! So a mark costs nothing where it is put, and at most one entry for each topic that changes before the next one, however many share
//! it; a topic that doesn't change has no entry. While there is no mark, a publication pays one comparison. What nobody asks for any more is thrown
//! away bit by bit.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use rustc_hash::FxHashMap;

use super::interest::Newest;
use crate::{
    slack::{KEPT_BY_THREAD, Slack},
    tape::Position,
};

/// Topics that are looked at in one go for what nobody asks for any more: a tenth of a millisecond.
const SWEPT_AT_ONCE: usize = 4096;

/// Entries with one topic from which on it is looked, with each new one, which nobody asks for any more.
const CROWDED: usize = 8;

/// A position that somebody goes back to, as long as it is held.
#[derive(Debug)]
pub struct Mark(Position);

/// See the module's description.
#[derive(Debug, Default)]
pub struct Past {
    /// One more than the position of the newest mark; 0 for none. What is up to date with it needs to be kept.
    since: u64,
    /// The oldest first, each at another position; also those that nobody holds any more, for a while.
    marks: VecDeque<Arc<Mark>>,
    /// With each topic by its slot: up to which mark something was its newest, the oldest first.
    kept: Vec<Vec<(Position, Newest)>>,
    /// What was newest at some position, as of the mark where it was asked for: somebody else may ask for the same.
    asked: Option<(Position, Position, Weak<AsOf>)>,
    /// Slots of topics with such entries, each once.
    used: VecDeque<u32>,
}

/// All topics as of one position.
#[derive(Debug)]
pub struct AsOf {
    mark: Arc<Mark>,
    /// What was different at the position, which need not be that of the mark.
    own: FxHashMap<u32, Newest>,
}

impl AsOf {
    /// As of a mark, but for `own`.
    pub fn new(mark: Arc<Mark>, own: FxHashMap<u32, Newest>) -> AsOf {
        AsOf { mark, own }
    }

    /// The newest publication of a topic, which is `newest` now; none if there was none.
    pub fn newest(&self, past: &Past, slot: u32, newest: Option<Newest>) -> Option<Newest> {
        let found = self.own.get(&slot).copied();
        found.or_else(|| past.find(self.mark.0, slot).or(newest)).filter(|newest| newest.seq > 0)
    }

    /// Bytes of memory that it takes by itself.
    pub fn held(&self) -> usize {
        size_of::<AsOf>() + self.own.capacity() * size_of::<(u32, Newest)>()
    }
}

impl Past {
    /// A mark where the tables stand.
    pub fn mark(&mut self, here: Position) -> Arc<Mark> {
        if let Some(newest) = self.marks.back().filter(|newest| newest.0 == here) {
            return Arc::clone(newest);
        }
        debug_assert!(self.since <= here.0 + 1, "the tables only go forward");
        self.tidy();
        let mark = Arc::new(Mark(here));
        self.marks.push_back(Arc::clone(&mark));
        self.since = here.0 + 1;
        mark
    }

    /// The state at `position`, which is another one than that of a mark here but for what `own` finds: made once, and shared by
    /// all who ask for it before the tables go on.
    pub fn as_of(
        &mut self,
        here: Position,
        position: Position,
        own: impl FnOnce() -> FxHashMap<u32, Newest>,
    ) -> Arc<AsOf> {
        let asked = self.asked.as_ref().filter(|(of, at, _)| (*of, *at) == (position, here));
        if let Some(as_of) = asked.and_then(|(.., as_of)| as_of.upgrade()) {
            return as_of;
        }
        let as_of = Arc::new(AsOf::new(self.mark(here), own()));
        self.asked = Some((position, here, Arc::downgrade(&as_of)));
        as_of
    }

    /// The next to ask has something else to find, also for the same position.
    pub fn ask_anew(&mut self) {
        self.asked = None;
    }

    /// A topic is published on whose newest publication was `before`.
    #[inline]
    pub fn note(&mut self, slot: u32, before: Newest) {
        if before.end.0 < self.since {
            self.keep(slot, before);
        }
    }

    #[cold]
    fn keep(&mut self, slot: u32, before: Newest) {
        self.tidy();
        let Some(mark) = self.marks.back().map(|mark| mark.0).filter(|mark| before.end <= *mark) else { return };
        let at = slot as usize;
        if self.kept.len() <= at {
            self.kept.resize_with(at + 1, Vec::new);
        }
        if self.kept[at].is_empty() {
            self.used.push_back(slot);
        } else if self.kept[at].len() >= CROWDED {
            self.throw_away(slot);
        }
        self.kept[at].push((mark, before));
    }

    /// What was a topic's newest as of a mark, if that has changed since.
    fn find(&self, mark: Position, slot: u32) -> Option<Newest> {
        let kept = self.kept.get(slot as usize)?;
        kept.get(kept.partition_point(|(upto, _)| *upto < mark)).map(|(_, newest)| *newest)
    }

    /// A topic is forgotten: in its slot there may be another one from now on.
    pub fn forget(&mut self, slot: u32) {
        if let Some(kept) = self.kept.get_mut(slot as usize).filter(|kept| !kept.is_empty()) {
            // It stays among those that are used.
            *kept = vec![(Position(0), Newest::default())];
        }
    }

    /// Drops marks at the ends that nobody holds any more.
    fn tidy(&mut self) {
        let is_free = |mark: Option<&Arc<Mark>>| mark.is_some_and(|mark| Arc::strong_count(mark) == 1);
        while is_free(self.marks.back()) {
            self.marks.pop_back();
        }
        while is_free(self.marks.front()) {
            self.marks.pop_front();
        }
        self.since = self.marks.back().map_or(0, |mark| mark.0.0 + 1);
    }

    /// Throws away what is kept of a topic and nobody asks for.
    fn throw_away(&mut self, slot: u32) {
        let Past { marks, kept, .. } = self;
        let kept = &mut kept[slot as usize];
        let mut after = None;
        kept.retain(|(upto, _)| {
            // Whoever asks has a mark up to there, and behind the entry before.
            let first = marks.partition_point(|mark| after.is_some_and(|after| mark.0 <= after));
            let asked = marks.get(first).is_some_and(|mark| mark.0 <= *upto);
            after = Some(*upto);
            asked
        });
        if kept.is_empty() {
            *kept = Vec::new();
        }
    }

    /// Whether something may be kept that nobody asks for.
    #[inline]
    pub fn has_slack(&self) -> bool {
        !self.used.is_empty()
    }

    /// Throws some of it away.
    pub fn give_back(&mut self) {
        self.tidy();
        self.marks.retain(|mark| Arc::strong_count(mark) > 1);
        for _ in 0..self.used.len().min(SWEPT_AT_ONCE) {
            let Some(slot) = self.used.pop_front() else { break };
            self.throw_away(slot);
            if !self.kept[slot as usize].is_empty() {
                self.used.push_back(slot);
            }
        }
        if self.used.is_empty() {
            self.kept.clear();
        }
        self.kept.give_back(KEPT_BY_THREAD);
        self.used.give_back(KEPT_BY_THREAD);
        self.marks.give_back(KEPT_BY_THREAD);
    }

    /// How many entries are kept.
    #[cfg(all(test, not(loom)))]
    pub fn kept(&self) -> usize {
        self.kept.iter().map(Vec::len).sum()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_state_holds_at_least_what_is_different_in_it() {
        let own = (0..1000).map(|slot| (slot, Newest::default())).collect();
        let as_of = AsOf::new(Past::default().mark(Position(0)), own);
        assert!(as_of.held() >= 1000 * size_of::<Newest>(), "{}", as_of.held());
    }

    proptest! {
        #[test]
        fn every_mark_shows_the_topics_as_they_were(steps in prop::collection::vec((0_u8..10, 0_u32..5), 0..300)) {
            let mut past = Past::default();
            let mut now: Vec<Option<Newest>> = vec![None; 5];
            let mut held: Vec<(AsOf, Vec<Option<Newest>>)> = Vec::new();
            let mut at = 0;
            for (step, slot) in steps {
                match step {
                    0..2 => held.push((AsOf::new(past.mark(Position(at)), FxHashMap::default()), now.clone())),
                    2 if !held.is_empty() => drop(held.swap_remove(slot as usize % held.len())),
                    3 => past.give_back(),
                    _ => {
                        let before = now[slot as usize].unwrap_or_default();
                        past.note(slot, before);
                        at += 1;
                        now[slot as usize] = Some(Newest { end: Position(at), seq: before.seq + 1, origin: 0 });
                    }
                }
                for (as_of, then) in &held {
                    for slot in 0..5 {
                        let found = as_of.newest(&past, slot, now[slot as usize]).map(|newest| newest.seq);
                        prop_assert_eq!(found, then[slot as usize].map(|newest| newest.seq));
                    }
                }
            }
            held.clear();
            past.give_back();
            prop_assert_eq!((past.kept(), past.has_slack(), past.since), (0, false, 0));
        }
    }

    #[test]
    fn a_mark_that_many_share_costs_an_entry_for_each_topic_that_changes() {
        let mut past = Past::default();
        let held: Vec<_> = (0..1000).map(|_| past.mark(Position(100))).collect();
        for n in 0..10_000 {
            let slot = n % 3;
            let before = if n < 3 { Position(0) } else { Position(98 + u64::from(n)) };
            past.note(slot, Newest { end: before, seq: 1, origin: 0 });
        }
        assert_eq!(past.kept(), 3);
        drop(held);
    }
}
