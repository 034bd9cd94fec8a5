//! The one clock of a run: `CLOCK_MONOTONIC`, in nanoseconds.
//!
//! All processes of one machine read the same one, so stamps written by a publisher in one process can be compared with
//! receipts in another. It is never stepped. A reading costs some 20 ns where the kernel serves it from the vDSO, which
//! [`Quality`] verifies before a run is believed.

use std::fs;

use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};

/// Nanoseconds of the monotonic clock.
#[inline]
pub fn now() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// Nanoseconds of processor time that the calling thread has used, the kernel's work on its behalf included.
pub fn thread_cpu() -> u64 {
    nanoseconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// The same of the whole process, with all threads that it has had.
pub fn process_cpu() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

/// The wait until `due`, as a timeout of a system call; zero when it has passed.
pub fn until(due: u64) -> Timespec {
    let left = due.saturating_sub(now());
    Timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as i64 }
}

fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// How good the clock is, and how far the wall clock moved against it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Quality {
    /// The kernel's clock source, such as `tsc`.
    pub source: String,
    /// Nanoseconds that one reading costs.
    pub read_ns: f64,
    /// Nanoseconds by which the wall clock was stepped against the monotonic one while the run lasted.
    pub wall_step_ns: i64,
}

impl Quality {
    /// Reads the clock some thousand times and finds what a reading costs.
    pub fn measure() -> Self {
        const READINGS: u64 = 2_000;
        let begin = now();
        let last = (0..READINGS).map(|_| now()).max().unwrap_or(begin);
        let source = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
        Self {
            source: source.map_or_else(|_| "unknown".into(), |text| text.trim().to_owned()),
            read_ns: (last - begin) as f64 / READINGS as f64,
            wall_step_ns: 0,
        }
    }
}

/// The wall clock's offset from the monotonic one; its change over a run is a step.
pub fn wall_offset() -> i64 {
    nanoseconds(clock_gettime(ClockId::Realtime)) as i64 - now() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_past_moment_leaves_no_wait() {
        let wait = until(now() - 1);
        assert_eq!((wait.tv_sec, wait.tv_nsec), (0, 0));
    }

    #[test]
    fn readings_never_go_back() {
        let readings: Vec<u64> = (0..1_000).map(|_| now()).collect();
        assert!(readings.is_sorted());
    }
}
