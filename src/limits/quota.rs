//! How often something may be done: commands, pings and publications, by one connection and by one address; connecting.
//!
//! A token bucket in eight bytes. Instead of tokens it keeps the moment until which what was done would have
//! lasted, had each taken its share of a second (the generic cell rate algorithm's "theoretical arrival time"):
//!
//! ```text
//!        now                     lasts until           now + BURST
//!   ------|--------------------------|-----------------------|------>
//!          what was done lately       what may come at once
//! ```
//!
//! Time is the turn's moment, so a check costs two comparisons and no look at a clock, and one atomic operation more where
//! several threads share the bucket.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    clock::Moment,
    config::{Rate, RateLimit},
};

/// How much may come at once: what the rate allows in this time. With the default rate that is more than the 1024 names
/// that a client may subscribe to, each in a command of its own, all right after connecting.
const BURST: Duration = Duration::from_secs(2);

/// What a publication of so many bytes counts as: once for each KiB that is begun, so that a bound on publications bounds what the
/// tape takes, too.
pub fn weight(len: usize) -> u32 {
    u32::try_from(len.div_ceil(1024)).unwrap_or(u32::MAX).max(1)
}

/// A bound on how often something may be done.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    limit: RateLimit,
    /// What one lasts.
    each: Duration,
}

/// What one client has used up of a quota.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    lasts_until: Moment,
}

impl Spent {
    /// Whether all that was done is long enough ago, so that a new bucket would be the same.
    pub fn is_over(&self, now: Moment) -> bool {
        self.lasts_until <= now
    }
}

/// The same, where several threads count: the moment in nanoseconds.
#[derive(Debug, Default)]
pub struct SharedSpent(AtomicU64);

#[warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
impl Quota {
    /// The quota of a setting.
    pub fn new(limit: RateLimit) -> Quota {
        Quota { limit, each: limit.rate().map_or(Duration::ZERO, Rate::period) }
    }

    /// Whether anything may be done any number of times.
    pub fn is_none(&self) -> bool {
        self.limit.rate().is_none()
    }

    /// The setting.
    pub fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Counts one, unless it would be one too many; returns whether it may be.
    pub fn allows(&self, spent: &mut Spent, now: Moment) -> bool {
        self.allows_several(spent, 1, now)
    }

    /// Counts one thing that counts as `weight`.
    pub fn allows_several(&self, spent: &mut Spent, weight: u32, now: Moment) -> bool {
        if self.is_none() {
            return true;
        }
        let next = self.after(spent.lasts_until, weight, now);
        if let Some(lasts_until) = next {
            spent.lasts_until = lasts_until;
        }
        next.is_some()
    }

    /// Counts one in a bucket that several threads share.
    pub fn allows_shared(&self, spent: &SharedSpent, now: Moment) -> bool {
        self.allows_several_shared(spent, 1, now)
    }

    /// Counts one thing that counts as `weight` in a bucket that several threads share.
    pub fn allows_several_shared(&self, spent: &SharedSpent, weight: u32, now: Moment) -> bool {
        // Relaxed: nothing but the number itself depends on it.
        let next = |nanos| self.after(Moment(nanos), weight, now).map(|lasts_until| lasts_until.0);
        self.is_none() || spent.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Until when it lasts with so much more; none if that is too much.
    fn after(&self, lasts_until: Moment, weight: u32, now: Moment) -> Option<Moment> {
        let length = self.each.saturating_mul(weight);
        let lasts_until = lasts_until.max(now) + length;
        // One thing is always allowed after a long enough pause, also where it lasts longer than the burst.
        (lasts_until <= now + BURST.max(length)).then_some(lasts_until)
    }
}

impl SharedSpent {
    /// Whether all that was done is long enough ago, so that a new bucket would be the same.
    pub fn is_over(&self, now: Moment) -> bool {
        self.0.load(Ordering::Relaxed) <= now.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(quota: Quota, spent: &mut Spent, at: Moment, tried: usize) -> usize {
        (0..tried).filter(|_| quota.allows(spent, at)).count()
    }

    #[test]
    fn a_burst_passes_and_then_as_many_as_time_allows() {
        let quota = Quota::new("10/s".parse().unwrap());
        let (mut spent, start) = (Spent::default(), Moment(5_000_000_000));
        assert_eq!(passed(quota, &mut spent, start, 100), 20);
        assert_eq!(passed(quota, &mut spent, start + Duration::from_millis(99), 100), 0);
        assert_eq!(passed(quota, &mut spent, start + Duration::from_millis(300), 100), 3);
        // However long the pause, no more than a burst is saved up.
        assert_eq!(passed(quota, &mut spent, start + Duration::from_secs(1000), 100), 20);
    }

    #[test]
    fn whoever_stays_within_is_never_stopped() {
        let quota = Quota::new("3/s".parse().unwrap());
        let mut spent = Spent::default();
        for n in 0..10_000 {
            assert!(quota.allows(&mut spent, Moment(n * 333_333_334)), "{n}");
        }
    }

    #[test]
    fn a_quota_slower_than_the_burst_still_lets_one_pass() {
        let quota = Quota::new("0.1".parse().unwrap());
        let mut spent = Spent::default();
        let seconds: Vec<u64> = (1..=30).filter(|s| quota.allows(&mut spent, Moment(s * 1_000_000_000))).collect();
        assert_eq!(seconds, [1, 11, 21]);
    }

    #[test]
    fn what_weighs_more_counts_as_more_and_passes_after_a_long_enough_pause() {
        assert_eq!([0, 1, 1024, 1025, 64 * 1024].map(weight), [1, 1, 1, 2, 64]);
        let quota = Quota::new("10/s".parse().unwrap());
        let (mut spent, start) = (Spent::default(), Moment(5_000_000_000));
        assert!(quota.allows_several(&mut spent, 15, start) && !quota.allows_several(&mut spent, 6, start));
        assert!(quota.allows_several(&mut spent, 5, start) && !quota.allows(&mut spent, start));
        // More than ever comes at once.
        let later = start + Duration::from_secs(1);
        assert!(!quota.allows_several(&mut spent, 30, later));
        assert!(quota.allows_several(&mut spent, 30, start + BURST) && !quota.allows(&mut spent, start + BURST));
        let shared = SharedSpent::default();
        assert!(quota.allows_several_shared(&shared, 20, start) && !quota.allows_shared(&shared, start));
    }

    #[test]
    fn no_limit_is_none() {
        let quota = Quota::new("0".parse().unwrap());
        assert_eq!(passed(quota, &mut Spent::default(), Moment(0), 100_000), 100_000);
    }

    #[test]
    fn threads_that_share_a_bucket_get_a_burst_together_and_no_more() {
        let quota = Quota::new("100/s".parse().unwrap());
        let (spent, now) = (SharedSpent::default(), Moment(5_000_000_000));
        let passed: usize = std::thread::scope(|scope| {
            let tries = || (0..150).filter(|_| quota.allows_shared(&spent, now)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(tries)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 200);
        assert!(!spent.is_over(now) && spent.is_over(now + BURST));
        assert!(!quota.allows_shared(&spent, now) && quota.allows_shared(&spent, now + Duration::from_millis(10)));
    }
}
