//! How much was done lately: a sum in which what was done counts half after [`HALF`], a quarter after twice that, and so on.
//!
//! The sum and the moment that it is as of are eight bytes, so that threads share it without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::clock::Moment;

/// After this, what was done counts half.
pub const HALF: Duration = Duration::from_millis(250);

/// Less than this counts as nothing.
const LEAST: f32 = 0.01;

/// See the module's description: the sum's bits, and milliseconds, which wrap around after seven weeks.
#[derive(Debug, Default)]
pub struct Lately(AtomicU64);

impl Lately {
    /// Counts so much; beyond `most` nothing is kept.
    pub fn add(&self, amount: f32, most: f32, now: Moment) {
        let next = |packed| {
            let sum = (left(packed, now) + amount).min(most);
            Some(u64::from(sum.to_bits()) << 32 | u64::from(millis(now)))
        };
        // Relaxed: nothing but the number itself depends on it.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// How much that is as of `now`.
    pub fn amount(&self, now: Moment) -> f32 {
        left(self.0.load(Ordering::Relaxed), now)
    }

    /// Whether all is forgotten.
    pub fn is_over(&self, now: Moment) -> bool {
        self.amount(now) < LEAST
    }
}

fn millis(now: Moment) -> u32 {
    (now.0 / 1_000_000) as u32
}

fn left(packed: u64, now: Moment) -> f32 {
    // Another thread's moment may be a little later than this one's.
    let passed = millis(now).wrapping_sub(packed as u32) as i32;
    let sum = f32::from_bits((packed >> 32) as u32);
    match passed > 0 {
        true => sum * (-(passed as f32) / HALF.as_millis() as f32).exp2(),
        false => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment(millis * 1_000_000)
    }

    #[test]
    fn what_was_done_counts_half_after_a_while_and_then_nothing() {
        let lately = Lately::default();
        let begun = u64::from(u32::MAX) - 100;
        assert!(lately.is_over(at(begun)));
        lately.add(1000.0, 5000.0, at(begun));
        assert_eq!(lately.amount(at(begun + 250)), 500.0);
        lately.add(500.0, 5000.0, at(begun + 250));
        assert_eq!(lately.amount(at(begun + 500)), 500.0);
        assert_eq!(lately.amount(at(begun + 240)), 1000.0, "a moment from before changes nothing");
        lately.add(1e9, 5000.0, at(begun + 500));
        assert_eq!(lately.amount(at(begun + 500)), 5000.0);
        assert!(!lately.is_over(at(begun + 2000)) && lately.is_over(at(begun + 10_000)));
    }
}
