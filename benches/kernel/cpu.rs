//! The two cores, and the CPU time of a thread.

use std::{sync::OnceLock, time::Instant};

use core_affinity::CoreId;
use rustix::time::{ClockId, clock_gettime};

/// Where the two sides run.
#[derive(Clone, Copy)]
pub struct Cores {
    /// Of what is measured.
    pub first: CoreId,
    /// Of everybody else.
    pub second: CoreId,
}

impl Cores {
    /// The first two that this process may use.
    pub fn choose() -> Result<Cores, String> {
        match core_affinity::get_core_ids().unwrap_or_default()[..] {
            [first, second, ..] => Ok(Cores { first, second }),
            ref fewer => Err(format!("two cores are needed, one for each side; this process may use {}", fewer.len())),
        }
    }

    /// Pins the calling thread to the core of what is measured.
    pub fn pin_first(self) {
        assert!(core_affinity::set_for_current(self.first), "pinning to core {}", self.first.id);
    }

    /// Pins the calling thread to the core of the other side.
    pub fn pin_second(self) {
        assert!(core_affinity::set_for_current(self.second), "pinning to core {}", self.second.id);
    }
}

/// How long something took, in nanoseconds.
#[derive(Clone, Copy, Default)]
pub struct Time {
    /// Of the calling thread on its core, which includes what interrupts did there on its behalf.
    pub cpu: f64,
    /// By the clock on the wall.
    pub wall: f64,
}

impl Time {
    /// How long `work` takes the calling thread, without the looks at the clock.
    pub fn of(work: impl FnOnce()) -> Time {
        let (wall, cpu) = (Instant::now(), thread_cpu());
        work();
        let cpu = thread_cpu().saturating_sub(cpu + look());
        Time { cpu: cpu as f64, wall: wall.elapsed().as_nanos() as f64 }
    }

    pub fn add(&mut self, other: Time) {
        self.cpu += other.cpu;
        self.wall += other.wall;
    }

    /// How much of the time the thread had its core, in per cent. Much below 100, others were in the way.
    pub fn presence(&self) -> f64 {
        100.0 * self.cpu / self.wall.max(1.0)
    }
}

/// CPU time that the calling thread has used, in nanoseconds.
fn thread_cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What one look at that clock adds to a measurement: the shortest of a thousand.
fn look() -> u64 {
    static LOOK: OnceLock<u64> = OnceLock::new();
    *LOOK.get_or_init(|| {
        let between = |_| {
            let before = thread_cpu();
            thread_cpu() - before
        };
        (0..1000).map(between).min().unwrap_or(0)
    })
}
