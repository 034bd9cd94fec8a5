//! When the publications of a recording are due.
//!
//! Values only: it is told the moment of the start and each timestamp, and says a moment. Every deadline of a pass is
//! computed from that pass's first timestamp and never from the deadline before, so no rounding adds up.
//!
//! A gap that is longer than allowed is cut to what is allowed, by moving that first timestamp along. A timestamp that goes back by more
//! than that begins the count anew, so that a damaged one, centuries ahead, doesn't take its time from all behind it.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

use std::time::{Duration, Instant};

use crate::config::Speed;

/// When each publication is due.
///
/// All deadlines of a pass count from one `origin`, so no error adds up. The next pass begins where the last one ended.
pub(super) struct Schedule {
    /// Times its own pace; none for as fast as it can be read.
    times: Option<f64>,
    /// The longest gap, in the recording's nanoseconds; none for any.
    gap_max: Option<i128>,
    origin: Instant,
    /// First and latest timestamp of this pass; the first less what was cut, so that it may be before all time.
    span: Option<(i128, i128)>,
    backwards: u64,
    cut: u64,
}

impl Schedule {
    /// The first publication is due at `origin`; gaps of the recording are cut to `gap_max`, unless that is zero.
    pub(super) fn new(speed: Speed, gap_max: Duration, origin: Instant) -> Self {
        let times = match speed {
            Speed::Times(times) => Some(times),
            Speed::Max => None,
        };
        let gap_max = (!gap_max.is_zero()).then(|| i128::try_from(gap_max.as_nanos()).unwrap_or(i128::MAX));
        Schedule { times, gap_max, origin, span: None, backwards: 0, cut: 0 }
    }

    /// Takes in the next timestamp; says when it is due, unless that is at once.
    pub(super) fn due(&mut self, ts_ns: u64) -> Option<Instant> {
        let ts_ns = i128::from(ts_ns);
        let (first, latest) = self.span.get_or_insert((ts_ns, ts_ns));
        let gap = ts_ns.saturating_sub(*latest);
        let is_far = self.gap_max.is_some_and(|most| gap.saturating_abs() > most);
        if gap < 0 {
            self.backwards = self.backwards.saturating_add(1);
            if is_far {
                // As if it had the time of the latest.
                (*first, *latest) = (first.saturating_add(gap), ts_ns);
            }
            return None;
        }
        if is_far {
            self.cut = self.cut.saturating_add(1);
            *first = first.saturating_add(gap).saturating_sub(self.gap_max.unwrap_or(gap));
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

    /// How many gaps were cut.
    pub(super) fn cut(&self) -> u64 {
        self.cut
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
        let mut schedule = Schedule::new(Speed::Times(2.0), Duration::ZERO, origin);
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
        assert_eq!(Schedule::new(Speed::Max, Duration::ZERO, origin).due(7), None);
        assert!(Schedule::new(Speed::Times(1e-300), Duration::ZERO, origin).due(0).is_some());
    }

    #[test]
    fn a_gap_is_cut_and_what_follows_keeps_its_distances() {
        let origin = Instant::now();
        let (mut schedule, second) = (Schedule::new(Speed::Times(2.0), Duration::from_secs(60), origin), 1_000_000_000);
        let after = |due: Option<Instant>| due.map(|due| (due - origin).as_secs_f64());
        let start = 1_700_000_000 * second;
        assert_eq!(after(schedule.due(start)), Some(0.0));
        assert_eq!(after(schedule.due(start + 60 * second)), Some(30.0));
        // Hours, and then centuries, by a damaged number; the next is what it would have been.
        assert_eq!(after(schedule.due(start + 9000 * second)), Some(60.0));
        assert_eq!(after(schedule.due(start + 9002 * second)), Some(61.0));
        assert_eq!(after(schedule.due(u64::MAX)), Some(91.0));
        assert_eq!((schedule.due(start + 9004 * second), schedule.cut(), schedule.backwards()), (None, 2, 1));
        assert_eq!(after(schedule.due(start + 9006 * second)), Some(92.0));
        // A damaged number that is too small is no better.
        assert_eq!(schedule.due(0), None);
        assert_eq!(after(schedule.due(start + 9008 * second)), Some(122.0));
        assert_eq!((schedule.cut(), schedule.backwards()), (3, 2));
        // Small steps back are sent at once, and change nothing.
        assert_eq!(schedule.due(start + 9007 * second), None);
        assert_eq!(after(schedule.due(start + 9010 * second)), Some(123.0));
        schedule.begin_again();
        assert_eq!(after(schedule.due(start)), Some(123.0));
    }
}
