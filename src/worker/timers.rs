//! Timeouts of many connections, at one entry each.
//!
//! A wheel of slots, one tick wide each. A connection has one entry, for the earliest moment at which something could be
//! due; when that comes, the worker looks whether it is, and sets the next. So a deadline that moves later with every byte
//! heard costs nothing until it comes. Deadlines beyond the wheel are looked at once a round. An entry goes with its
//! connection: connections that come and go at a high rate leave none behind that would be held for a round.

use std::{num::NonZeroU16, time::Duration};

use crate::{
    clock::Moment,
    io::Token,
    slack::{KEPT_BY_ONE, Slack},
};

/// How exact timeouts are. Ten wake-ups a second at most, with nothing else to do.
const TICK: Duration = Duration::from_millis(100);

/// Slots of the wheel: a round is 102 seconds.
const SLOTS: usize = 1024;

/// Where a connection's entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Counted from 1, so that a connection without an entry needs no more room.
    slot: NonZeroU16,
    place: u32,
}

/// The wheel.
pub struct Timers {
    slots: Vec<Vec<Token>>,
    /// The tick that is looked at next.
    next: u64,
    /// No entry comes before this tick.
    earliest: u64,
    entries: usize,
}

impl Timers {
    pub fn new(now: Moment) -> Timers {
        Timers { slots: vec![Vec::new(); SLOTS], next: tick(now), earliest: u64::MAX, entries: 0 }
    }

    /// Puts in the entry of `token`, which has none, and returns where it is.
    pub fn set(&mut self, token: Token, due: Moment) -> Entry {
        // Rounded up: an entry is never early.
        let wanted = tick(due).saturating_add(1);
        let at = wanted.clamp(self.next, self.next + SLOTS as u64 - 1);
        let slot = at as usize % SLOTS;
        self.slots[slot].push(token);
        self.earliest = self.earliest.min(at);
        self.entries += 1;
        let slot_counted = NonZeroU16::MIN.saturating_add(slot as u16);
        Entry { slot: slot_counted, place: self.slots[slot].len() as u32 - 1 }
    }

    /// Takes an entry out; `moved` is told whose is in its place now.
    pub fn remove(&mut self, entry: Entry, moved: impl FnOnce(Token, Entry)) {
        let (slot, place) = (&mut self.slots[usize::from(entry.slot.get()) - 1], entry.place as usize);
        slot.swap_remove(place);
        self.entries -= 1;
        if let Some(filler) = slot.get(place) {
            moved(*filler, entry);
        }
        slot.give_back(KEPT_BY_ONE);
    }

    /// How many entries there are.
    #[cfg(any(test, fuzzing))]
    pub fn len(&self) -> usize {
        self.entries
    }

    /// How long until the earliest entry, or until it would have come if it was taken out; none if there is no entry.
    pub fn until_next(&self, now: Moment) -> Option<Duration> {
        (self.entries > 0).then(|| Moment(self.earliest.saturating_mul(TICK.as_nanos() as u64)).since(now))
    }

    /// Takes an entry out that is due, those of the earliest tick first. Whoever stops before there is none left goes on where
    /// it has stopped.
    pub fn pop(&mut self, now: Moment) -> Option<Token> {
        let current = tick(now);
        if current < self.earliest {
            self.next = self.next.max(current);
            return None;
        }
        while self.next <= current {
            let slot = &mut self.slots[self.next as usize % SLOTS];
            if let Some(token) = slot.pop() {
                self.entries -= 1;
                return Some(token);
            }
            // With its room: whatever comes in one tick comes in other ones later, until each slot had room for everybody.
            *slot = Vec::new();
            self.next += 1;
        }
        let round = self.next..self.next + SLOTS as u64;
        self.earliest = round.into_iter().find(|at| !self.slots[*at as usize % SLOTS].is_empty()).unwrap_or(u64::MAX);
        None
    }
}

fn tick(moment: Moment) -> u64 {
    moment.0 / TICK.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    /// All that are due.
    fn expire(timers: &mut Timers, now: Moment) -> Vec<Token> {
        std::iter::from_fn(|| timers.pop(now)).collect()
    }

    #[test]
    fn entries_that_are_left_for_later_come_before_later_ones_and_may_be_taken_out() {
        let mut timers = Timers::new(at(0));
        let mut entries: Vec<Entry> = (0..5).map(|token| timers.set(token, at(500))).collect();
        timers.set(9, at(700));
        assert_eq!((timers.pop(at(1000)), timers.pop(at(1000))), (Some(4), Some(3)));
        assert_eq!(timers.until_next(at(1000)), Some(Duration::ZERO), "the others are due still");
        let first = entries[0];
        timers.remove(first, |moved, entry| entries[moved as usize] = entry);
        timers.set(10, at(1001));
        assert_eq!(expire(&mut timers, at(1000)), [1, 2, 9]);
        assert_eq!((expire(&mut timers, at(1200)), timers.len()), (vec![10], 0));
    }

    #[test]
    fn an_entry_is_never_early_and_at_most_a_tick_late() {
        let mut timers = Timers::new(at(0));
        timers.set(7, at(1234));
        for ms in (0..3000).step_by(50) {
            if timers.pop(at(ms)).is_some() {
                assert!((1234..=1350).contains(&ms), "{ms}");
                return;
            }
            assert!(timers.until_next(at(ms)).unwrap() > Duration::ZERO || ms >= 1200);
        }
        panic!("the entry never came");
    }

    #[test]
    fn a_deadline_beyond_the_wheel_comes_back_within_a_round() {
        let mut timers = Timers::new(at(0));
        timers.set(1, at(10_000_000));
        assert_eq!(expire(&mut timers, at(200_000)), [1]);
        assert_eq!(timers.until_next(at(200_000)), None);
    }

    #[test]
    fn a_clock_that_jumps_over_several_rounds_loses_no_entry() {
        let mut timers = Timers::new(at(0));
        for token in 0..100 {
            timers.set(token, at(u64::from(token) * 900));
        }
        assert_eq!(expire(&mut timers, at(5_000_000)).len(), 100);
    }

    #[test]
    fn an_entry_that_is_taken_out_never_comes_and_the_others_do() {
        let mut timers = Timers::new(at(0));
        let mut entries: Vec<Entry> = (0..3).map(|token| timers.set(token, at(500))).collect();
        let first = entries[0];
        timers.remove(first, |moved, entry| entries[moved as usize] = entry);
        timers.remove(entries[1], |moved, _| panic!("{moved} has the place before it"));
        let due = expire(&mut timers, at(1000));
        assert_eq!((due, timers.len(), timers.until_next(at(1000))), (vec![2], 0, None));
    }

    #[test]
    fn a_slot_that_many_were_in_keeps_no_room_for_them() {
        let mut timers = Timers::new(at(0));
        let room = |timers: &Timers| timers.slots.iter().map(Vec::capacity).sum::<usize>() * size_of::<Token>();
        let entries: Vec<Entry> = (0..10_000).map(|token| timers.set(token, at(500))).collect();
        // From the last on, so that none takes another's place.
        entries.into_iter().rev().for_each(|entry| timers.remove(entry, |_, _| {}));
        assert!(room(&timers) <= KEPT_BY_ONE);
        for token in 0..10_000 {
            timers.set(token, at(500));
        }
        expire(&mut timers, at(1000));
        assert!(room(&timers) <= KEPT_BY_ONE);
    }
}
