//! Priority: the publisher goes before the receivers on a core that it shares with them.
//!
//! A publication that is due while a receiving thread works waits until the scheduler takes that off the core: up to a slice, some 3 ms, also
//! where the publisher is the nicer to favour, since a thread that runs is let alone for its slice (`RUN_TO_PARITY` of Linux's fair scheduler, from 6.6 on). That
//! time would be in every delivery's latency, and is nobody's but the generator's. A thread in real time (`SCHED_RR`) takes the core when it wakes up.
//!
//! It would also keep the core for as long as it has work. So it is for schedules whose publications take a small part of the time ([`suits`]); whatever
//! it publishes beyond its share, the kernel stops it (`sched_rt_runtime_us`). Where that isn't allowed, niceness does what it can.

#![allow(unsafe_code)]

use crate::spec::{Pace, Spec};

/// Publications a second up to which they take a tenth of a core at most, at some 10 us each.
const RATE_MAX: f64 = 10_000.0;

/// Whether the publisher of such a run may go before all others: it has a schedule, and little to do for each moment of it.
pub fn suits(spec: &Spec) -> bool {
    matches!(spec.pace, Pace::Rate(rate) if rate.0 <= RATE_MAX)
}

/// Has the calling thread run in real time, and says whether it may. Threads that it starts don't.
pub fn real_time() -> bool {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameters live until the call returns, and the kernel only reads them. 0 is the calling thread. No crate of ours has this call.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    result == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{spec::tests::sample, units::Rate};

    #[test]
    fn only_a_schedule_that_leaves_the_core_to_others_goes_before_them() {
        let of = |pace| suits(&Spec { pace, ..sample() });
        assert!(of(Pace::Rate(Rate(50.0))) && of(Pace::Rate(Rate(RATE_MAX))));
        assert!(!of(Pace::Rate(Rate(RATE_MAX + 1.0))) && !of(Pace::Window(1)) && !of(Pace::Silent));
    }

    #[test]
    fn a_thread_says_whether_it_is_in_real_time() {
        let told = std::thread::spawn(|| (real_time(), std::fs::read_to_string("/proc/thread-self/stat").unwrap()));
        let (may, stat) = told.join().unwrap();
        // The policy is the 41st field, and the second ends with the last bracket.
        let policy = stat.rsplit_once(") ").unwrap().1.split(' ').nth(41 - 3).unwrap().to_owned();
        assert_eq!(policy == libc::SCHED_RR.to_string(), may, "{stat}");
    }
}
