//! Time as the server uses it: moments of one monotonic clock, and microseconds of the wall clock for `ts`.
//!
//! Whatever is added to a moment or taken from it, there is no overflow: beyond the last moment is the last, and before the
//! first the first.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

use std::{
    ops::{Add, Sub},
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A point of the monotonic clock, in nanoseconds since the process first asked.
///
/// Eight bytes, because every connection carries several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// Later than every other.
    pub const NEVER: Moment = Moment(u64::MAX);

    /// The present, from `CLOCK_MONOTONIC`.
    pub fn now() -> Moment {
        static START: OnceLock<Instant> = OnceLock::new();
        let start = *START.get_or_init(Instant::now);
        Moment(start.elapsed().as_nanos() as u64)
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, length: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, length: Duration) -> Moment {
        Moment(self.0.saturating_sub(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Microseconds since the Unix epoch: the `ts` of a publication.
pub fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |length| length.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_length_of_time_leads_out_of_the_moments_there_are() {
        for length in [Duration::MAX, Duration::from_nanos(u64::MAX), Duration::from_secs(u64::MAX)] {
            assert_eq!(Moment(7) + length, Moment::NEVER);
            assert_eq!(Moment::NEVER - length, Moment(0));
        }
        assert_eq!(Moment(7).since(Moment::NEVER), Duration::ZERO);
        assert_eq!(Moment::NEVER.since(Moment(0)), Duration::from_nanos(u64::MAX));
    }
}
