//! Timeouts of many connections, at one entry each.
//!
//! A wheel of slots, one tick wide each. A connection has one valid entry, for the earliest moment at which something
//! could be due; when that comes, the worker looks whether it is, and sets the next. So a deadline that moves later with
//! every byte heard costs nothing until it comes. Deadlines beyond the wheel are looked at once a round.

use std::{collections::VecDeque, time::Duration};

use crate::{clock::Moment, io::Token};

/// How exact timeouts are. Ten wake-ups a second at most, with nothing else to do.
const TICK: Duration = Duration::from_millis(100);

/// Slots of the wheel: a round is 102 seconds.
const SLOTS: usize = 1024;

/// The wheel.
pub(super) struct Timers {
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

    /// Puts in an entry for `token` and returns its tick, by which the connection knows it for valid.
    pub fn set(&mut self, token: Token, due: Moment) -> u64 {
        // Rounded up: an entry is never early.
        let wanted = tick(due).saturating_add(1);
        let at = wanted.clamp(self.next, self.next + SLOTS as u64 - 1);
        self.slots[at as usize % SLOTS].push(token);
        self.earliest = self.earliest.min(at);
        self.entries += 1;
        at
    }

    /// How long until the earliest entry; none if there is no entry.
    pub fn until_next(&self, now: Moment) -> Option<Duration> {
        (self.entries > 0).then(|| Moment(self.earliest.saturating_mul(TICK.as_nanos() as u64)).since(now))
    }

    /// Adds the entries that are due to `due`, each with its tick.
    pub fn expire(&mut self, now: Moment, due: &mut VecDeque<(Token, u64)>) {
        let current = tick(now);
        if current < self.earliest {
            self.next = self.next.max(current.min(self.earliest));
            return;
        }
        let before = due.len();
        while self.next <= current {
            let at = self.next;
            due.extend(self.slots[at as usize % SLOTS].drain(..).map(|token| (token, at)));
            self.next += 1;
        }
        self.entries -= due.len() - before;
        let round = self.next..self.next + SLOTS as u64;
        self.earliest = round.into_iter().find(|at| !self.slots[*at as usize % SLOTS].is_empty()).unwrap_or(u64::MAX);
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

    #[test]
    fn an_entry_is_never_early_and_at_most_a_tick_late() {
        let mut timers = Timers::new(at(0));
        let mut due = VecDeque::new();
        timers.set(7, at(1234));
        for ms in (0..3000).step_by(50) {
            timers.expire(at(ms), &mut due);
            if !due.is_empty() {
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
        let mut due = VecDeque::new();
        timers.expire(at(200_000), &mut due);
        assert_eq!(due.len(), 1);
        assert_eq!(timers.until_next(at(200_000)), None);
    }

    #[test]
    fn a_clock_that_jumps_over_several_rounds_loses_no_entry() {
        let mut timers = Timers::new(at(0));
        for token in 0..100 {
            timers.set(token, at(u64::from(token) * 900));
        }
        let mut due = VecDeque::new();
        timers.expire(at(5_000_000), &mut due);
        assert_eq!(due.len(), 100);
    }
}
