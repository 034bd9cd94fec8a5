//! How often one client may do something: commands and control frames (`--max-commands`), publications
//! (`--max-publications`).
//!
//! A token bucket in eight bytes a connection. Instead of tokens it keeps the moment until which what was done would have
//! lasted, had each taken its share of a second (the generic cell rate algorithm's "theoretical arrival time"):
//!
//! ```text
//!        now                     lasts until           now + BURST
//!   ------|--------------------------|-----------------------|------>
//!          what was done lately       what may come at once
//! ```
//!
//! Whoever would get beyond `now + BURST` is told (`error`, code `rate_limited`) and closed with 4003. Time is the turn's
//! moment, so a check costs two comparisons and no look at a clock.

use std::time::Duration;

use super::{Worker, closing::Farewell, connection::Speaks};
use crate::{
    clock::Moment,
    config::{Rate, RateLimit},
    io::{Edge, Token},
    metrics::Refusal,
    websocket::CloseCode,
};

/// How much may come at once: what the rate allows in this time. With the default rate that is more than the 1024 names
/// that a client may subscribe to, each in a command of its own, all right after connecting.
const BURST: Duration = Duration::from_secs(2);

/// A bound on how often one client may do something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    limit: RateLimit,
    /// What one lasts.
    each: Duration,
}

/// What one client has used up of a quota.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    lasts_until: Moment,
}

#[warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
impl Quota {
    /// The quota of a setting.
    pub(crate) fn new(limit: RateLimit) -> Quota {
        Quota { limit, each: limit.rate().map_or(Duration::ZERO, Rate::period) }
    }

    /// Counts one, unless it would be one too many; returns whether it may be.
    fn allows(&self, spent: &mut Spent, now: Moment) -> bool {
        if self.limit.rate().is_none() {
            return true;
        }
        let lasts_until = spent.lasts_until.max(now) + self.each;
        // One is always allowed after a long enough pause, also where it lasts longer than the burst.
        let is_within = lasts_until <= now + BURST.max(self.each);
        if is_within {
            spent.lasts_until = lasts_until;
        }
        is_within
    }
}

impl<E: Edge> Worker<E> {
    /// Counts a command or control frame; closes the connection and returns false if it is one too many.
    pub(super) fn may_ask(&mut self, token: Token) -> bool {
        let (quota, now) = (self.settings.commands, self.now);
        let spent = &mut self.connections[token as usize].commands;
        quota.allows(spent, now) || self.too_often(token, quota, "commands and pings", "--max-commands")
    }

    /// Counts a publication; closes the connection and returns false if it is one too many.
    pub(super) fn may_publish_now(&mut self, token: Token) -> bool {
        let (quota, now) = (self.settings.publications, self.now);
        let spent = &mut self.connections[token as usize].publications;
        quota.allows(spent, now) || self.too_often(token, quota, "publications", "--max-publications")
    }

    fn too_often(&mut self, token: Token, quota: Quota, what: &str, flag: &str) -> bool {
        self.shared.metrics.refuse(Refusal::RateLimited);
        let reason = format!("too many {what}: {flag} allows {}", quota.limit);
        let error = matches!(self.connections[token as usize].speaks, Speaks::Json).then_some("rate_limited");
        self.close(token, Farewell { code: Some(CloseCode::TOO_OFTEN), reason: &reason, error });
        false
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
    fn no_limit_is_none() {
        let quota = Quota::new("0".parse().unwrap());
        assert_eq!(passed(quota, &mut Spent::default(), Moment(0), 100_000), 100_000);
    }
}
