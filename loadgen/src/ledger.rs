//! The ledger: what one subscriber has received of each of its topics, and whether that is all of it in order.
//!
//! Publications of a topic are numbered from 1 by the generator itself, in the payload, so nothing here depends on a
//! server's own numbering. Four bytes a topic: the next number expected, and a flag while the first update behind a
//! snapshot is still to come. Holes are remembered until filled, so that a late arrival is told apart from a repeat; of newest
//! values they aren't, since there what was passed over may never come, and must not come late. What the server announced as
//! left out of a topic is kept until the topic's next update, in the server's numbering.

/// Bookkeeping of one subscriber, over the topics it subscribed to.
#[derive(Debug)]
pub struct Ledger {
    next: Box<[u32]>,
    holes: Vec<Hole>,
    keeps_holes: bool,
    is_from_the_first: bool,
    told: Vec<Told>,
}

/// Publications of a topic that the server announced as left out, by its own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    slot: u32,
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}

/// Publications `from..to` of a topic, passed over and not seen since.
#[derive(Debug)]
struct Hole {
    slot: u32,
    from: u32,
    to: u32,
}

/// What one receipt means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The one expected.
    Expected,
    /// The first of its topic that this subscriber saw.
    First,
    /// So many before it are missing so far.
    Gap(u32),
    /// The first behind a snapshot, with so many between them missing.
    JointGap(u32),
    /// It should have been preceded by a snapshot.
    JointMissing,
    /// Seen before, or older than the snapshot.
    Repeat,
    /// Missing until now: it came after later ones.
    Late,
}

/// Nothing seen yet.
const NEW: u32 = 0;
/// Nothing seen yet, and a snapshot was promised.
const PROMISED: u32 = u32::MAX;
/// Set while the first update behind a snapshot is expected.
const JOINT: u32 = 1 << 31;

impl Ledger {
    /// A ledger for so many topics, in none of which anything was seen.
    pub fn new(topics: usize) -> Self {
        Self {
            next: vec![NEW; topics].into_boxed_slice(),
            holes: Vec::new(),
            keeps_holes: true,
            is_from_the_first: false,
            told: Vec::new(),
        }
    }

    /// The same, of a subscriber that was there before anything was published, until it is reset: what it sees first of a topic has to be
    /// the topic's first.
    #[must_use]
    pub fn from_the_first(self) -> Self {
        Self { is_from_the_first: self.keeps_holes, ..self }
    }

    /// The same, of which publications may be left out that are no longer the newest.
    pub fn of_newest(topics: usize) -> Self {
        Self { keeps_holes: false, ..Self::new(topics) }
    }

    /// How many topics it is for.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.next.len()
    }

    /// Forgets everything, for a subscriber that comes back.
    pub fn reset(&mut self) {
        self.next.fill(NEW);
        self.is_from_the_first = false;
        self.holes.clear();
        self.told.clear();
    }

    /// Enters one receipt.
    #[inline]
    pub fn enter(&mut self, slot: usize, seq: u32) -> Receipt {
        let next = self.next[slot];
        if next == seq {
            self.next[slot] = seq + 1;
            return Receipt::Expected;
        }
        self.enter_unexpected(slot, seq, next)
    }

    #[cold]
    fn enter_unexpected(&mut self, slot: usize, seq: u32, next: u32) -> Receipt {
        if next == NEW && self.is_from_the_first && seq > 1 {
            self.holes.push(Hole { slot: slot as u32, from: 1, to: seq });
            self.next[slot] = seq + 1;
            return Receipt::Gap(seq - 1);
        }
        if next == NEW || next == PROMISED {
            self.next[slot] = seq + 1;
            return if next == NEW { Receipt::First } else { Receipt::JointMissing };
        }
        let (joint, next) = (next & JOINT != 0, next & !JOINT);
        if seq < next {
            let late = if self.keeps_holes { self.fill_hole(slot as u32, seq) } else { seq + 1 < next };
            return if late { Receipt::Late } else { Receipt::Repeat };
        }
        self.next[slot] = seq + 1;
        match seq - next {
            0 => Receipt::Expected,
            missing => {
                if self.keeps_holes {
                    self.holes.push(Hole { slot: slot as u32, from: next, to: seq });
                }
                if joint { Receipt::JointGap(missing) } else { Receipt::Gap(missing) }
            }
        }
    }

    /// A subscription was acknowledged for a topic that has a value: its snapshot must come before an update.
    pub fn promise(&mut self, slot: usize) {
        if self.next[slot] == NEW {
            self.next[slot] = PROMISED;
        }
    }

    /// A snapshot came whose value is of another run: its promise is kept, its number says nothing.
    pub fn snapshot_foreign(&mut self, slot: usize) {
        if self.next[slot] == PROMISED {
            self.next[slot] = NEW;
        }
    }

    /// A snapshot of publication `seq`; false when it is older than what was already seen.
    pub fn snapshot(&mut self, slot: usize, seq: u32) -> bool {
        let next = self.next[slot];
        let fresh = next == NEW || next == PROMISED || (next & !JOINT) <= seq + 1;
        if fresh {
            self.next[slot] = (seq + 1) | JOINT;
        }
        fresh
    }

    /// The server announced that `from` to `to` of a topic, by its own numbers, are left out; may be in several pieces. False
    /// if it isn't a piece that goes on from the one before.
    pub fn tell(&mut self, slot: usize, from: u64, to: u64) -> bool {
        let slot = slot as u32;
        match self.told.iter_mut().find(|told| told.slot == slot) {
            _ if to < from => false,
            Some(told) if told.to + 1 == from => {
                told.to = to;
                true
            }
            Some(_) => false,
            None => {
                self.told.push(Told { slot, from, to });
                true
            }
        }
    }

    /// Whether anything was announced that no update has followed yet.
    #[inline]
    pub fn is_told(&self) -> bool {
        !self.told.is_empty()
    }

    /// What was announced of a topic, whose next update is here.
    pub fn take_told(&mut self, slot: usize) -> Option<Told> {
        let at = self.told.iter().position(|told| told.slot == slot as u32)?;
        Some(self.told.swap_remove(at))
    }

    /// The next publication expected of a topic; none where nothing was seen.
    pub fn expected(&self, slot: usize) -> Option<u32> {
        Some(self.next[slot]).filter(|&next| next != NEW && next != PROMISED).map(|next| next & !JOINT)
    }

    /// Publications passed over and never seen.
    pub fn missing(&self) -> u64 {
        self.holes.iter().map(|hole| u64::from(hole.to - hole.from)).sum()
    }

    /// Takes `seq` out of the hole that it lies in.
    fn fill_hole(&mut self, slot: u32, seq: u32) -> bool {
        let Some(at) = self.holes.iter().position(|hole| hole.slot == slot && (hole.from..hole.to).contains(&seq))
        else {
            return false;
        };
        let Hole { from, to, .. } = self.holes.swap_remove(at);
        for (from, to) in [(from, seq), (seq + 1, to)] {
            if from < to {
                self.holes.push(Hole { slot, from, to });
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gaps_repeats_and_late_arrivals_are_told_apart() {
        let mut ledger = Ledger::new(2);
        let receipts: Vec<Receipt> = [1, 2, 5, 3, 3, 6, 4].into_iter().map(|seq| ledger.enter(1, seq)).collect();
        use Receipt::*;
        assert_eq!(receipts, [First, Expected, Gap(2), Late, Repeat, Expected, Late]);
        assert_eq!((ledger.missing(), ledger.expected(1), ledger.expected(0)), (0, Some(7), None));
    }

    #[test]
    fn who_was_there_from_the_first_has_to_see_it() {
        use Receipt::*;
        let mut ledger = Ledger::new(2).from_the_first();
        assert_eq!([(0, 1), (1, 3), (1, 2)].map(|(slot, seq)| ledger.enter(slot, seq)), [First, Gap(2), Late]);
        assert_eq!((ledger.missing(), ledger.expected(1)), (1, Some(4)));
        ledger.reset();
        assert_eq!((ledger.enter(1, 9), ledger.missing()), (First, 0));
        assert_eq!(Ledger::of_newest(1).from_the_first().enter(0, 7), First);
    }

    #[test]
    fn a_joint_must_neither_gap_nor_repeat() {
        let mut ledger = Ledger::new(1);
        assert!(ledger.snapshot(0, 10));
        assert_eq!(ledger.enter(0, 11), Receipt::Expected);
        ledger.reset();
        ledger.snapshot(0, 10);
        assert_eq!(ledger.enter(0, 10), Receipt::Repeat);
        assert_eq!(ledger.enter(0, 13), Receipt::JointGap(2));
        assert_eq!(ledger.missing(), 2);
    }

    #[test]
    fn a_promised_snapshot_that_does_not_come_is_noticed() {
        let mut ledger = Ledger::new(1);
        ledger.promise(0);
        assert_eq!(ledger.enter(0, 7), Receipt::JointMissing);
        ledger.reset();
        ledger.promise(0);
        ledger.snapshot_foreign(0);
        assert_eq!(ledger.enter(0, 7), Receipt::First);
    }

    #[test]
    fn a_snapshot_older_than_the_updates_is_refused() {
        let mut ledger = Ledger::new(1);
        ledger.enter(0, 5);
        assert!(!ledger.snapshot(0, 3));
        assert_eq!(ledger.expected(0), Some(6));
    }

    #[test]
    fn of_newest_values_what_was_passed_over_comes_late_and_is_not_missing() {
        let mut ledger = Ledger::of_newest(1);
        let receipts: Vec<Receipt> = [1, 5, 3, 5, 6].into_iter().map(|seq| ledger.enter(0, seq)).collect();
        use Receipt::*;
        assert_eq!(receipts, [First, Gap(3), Late, Repeat, Expected]);
        assert_eq!(ledger.missing(), 0);
    }

    #[test]
    fn announcements_are_pieces_of_one_gap_for_each_topic() {
        let mut ledger = Ledger::of_newest(2);
        assert!(ledger.tell(0, 5, 9) && ledger.tell(1, 1, 1) && ledger.tell(0, 10, 10));
        assert!(!ledger.tell(0, 12, 13) && !ledger.tell(0, 11, 10));
        assert_eq!(ledger.take_told(0).map(|told| (told.from, told.to)), Some((5, 10)));
        assert!(ledger.take_told(0).is_none() && ledger.is_told());
        ledger.reset();
        assert!(!ledger.is_told());
    }

    proptest! {
        /// Against a set that remembers everything.
        #[test]
        fn agrees_with_a_naive_set(seqs in proptest::collection::vec(1u32..40, 1..120)) {
            let mut ledger = Ledger::new(1);
            let (mut seen, mut top, first) = (HashSet::new(), 0, seqs[0]);
            for seq in seqs {
                let expect = match () {
                    () if top == 0 => Receipt::First,
                    () if seq == top + 1 => Receipt::Expected,
                    () if seq > top => Receipt::Gap(seq - top - 1),
                    () if seen.contains(&seq) || seq < first => Receipt::Repeat,
                    () => Receipt::Late,
                };
                prop_assert_eq!(ledger.enter(0, seq), expect);
                seen.insert(seq);
                top = top.max(seq);
            }
            let missing = (first..=top).filter(|seq| !seen.contains(seq)).count();
            prop_assert_eq!(ledger.missing(), missing as u64);
        }
    }
}
