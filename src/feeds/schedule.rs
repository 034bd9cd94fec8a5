//! When the publications of a recording are due.
//!
//! Values only: it is told the moment of the start and each timestamp, and says a moment. Every deadline of a pass is
//! computed from that pass's first timestamp and never from the deadline before, so no rounding adds up.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

use std::time::{Duration, Instant};

use crate::config::Speed;

/// When each publication is due.
///
/// All deadlines of a pass count from one `origin`, so no error adds up. The next pass begins where the last one ended.
pub(super) struct Schedule {
    /// Times its own pace; none for as fast as it can be read.
    times: Option<f64>,
    origin: Instant,
    /// First and latest timestamp of this pass.
    span: Option<(u64, u64)>,
    backwards: u64,
}

impl Schedule {
    /// The first publication is due at `origin`.
    pub(super) fn new(speed: Speed, origin: Instant) -> Self {
        let times = match speed {
            Speed::Times(times) => Some(times),
            Speed::Max => None,
        };
        Schedule { times, origin, span: None, backwards: 0 }
    }

    /// Takes in the next timestamp; says when it is due, unless that is at once.
    pub(super) fn due(&mut self, ts_ns: u64) -> Option<Instant> {
        let (_, latest) = self.span.get_or_insert((ts_ns, ts_ns));
        if ts_ns < *latest {
            self.backwards = self.backwards.saturating_add(1);
            return None;
        }
        *latest = ts_ns;
        self.latest_due()
    }

    /// When the latest timestamp so far was due.
    pub(super) fn latest_due(&self) -> Option<Instant> {
        // A recording may claim any time, and a speed may be tiny: what is further away than this never comes.
        const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);
        let (first, latest) = self.span?;
        // A double counts nanoseconds exactly for 104 days, and to a microsecond for centuries.
        let seconds = latest.saturating_sub(first) as f64 / 1e9 / self.times?;
        let after = Duration::try_from_secs_f64(seconds).map_or(FAR, |after| after.min(FAR));
        self.origin.checked_add(after)
    }

    /// How many timestamps went backwards.
    pub(super) fn backwards(&self) -> u64 {
        self.backwards
    }

    /// The next timestamp is the first of another pass.
    pub(super) fn begin_again(&mut self) {
        self.origin = self.latest_due().unwrap_or(self.origin);
        self.span = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_count_from_the_first_timestamp() {
        let origin = Instant::now();
        let mut schedule = Schedule::new(Speed::Times(2.0), origin);
        let ms = Duration::from_millis;
        assert_eq!(schedule.due(5_000_000_000), Some(origin));
        assert_eq!(schedule.due(5_100_000_000), Some(origin + ms(50)));
        assert_eq!(schedule.due(5_099_999_999), None);
        assert_eq!((schedule.backwards(), schedule.latest_due()), (1, Some(origin + ms(50))));
        assert_eq!(schedule.due(5_300_000_000), Some(origin + ms(150)));
        schedule.begin_again();
        assert_eq!(schedule.due(5_000_000_000), Some(origin + ms(150)));
        assert_eq!(schedule.due(5_100_000_000), Some(origin + ms(200)));
        assert!(schedule.due(u64::MAX).unwrap() > origin + ms(200));
        assert_eq!(Schedule::new(Speed::Max, origin).due(7), None);
        assert!(Schedule::new(Speed::Times(1e-300), origin).due(0).is_some());
    }
}
