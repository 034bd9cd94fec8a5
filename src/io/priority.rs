//! Priority: threads that compute while a worker on the same core has something to send.
//!
//! A thread that is running is let alone for its slice (`RUN_TO_PARITY` of Linux's fair scheduler, from 6.6 on), or until the next tick where another has become
//! ready meanwhile: some milliseconds, whatever its niceness. So a thread of low priority is given a short slice besides, and offers the core by
//! itself ([`offer_core`]) between two pieces of its work.

#![allow(unsafe_code)]

/// The slice, in nanoseconds: the least that the kernel takes.
const SLICE: u64 = 100_000;

/// `struct sched_attr` of `sched_setattr(2)`, in its first version.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// From Linux 6.12 on, of a thread that is scheduled fairly, its slice in nanoseconds; before, overlooked.
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Has the calling thread run so nicely, and in short slices. Where that is forbidden, it shares the cores as the others do.
pub fn leave_to_others(nice: i32) {
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        nice,
        priority: 0,
        runtime: SLICE,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the attributes live until the call returns, and the kernel only reads them, as many bytes as they say. 0 is the calling thread. No crate of ours
    // has this call.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

/// Lets whoever is ready have the core before the calling thread goes on.
pub fn offer_core() {
    std::thread::yield_now();
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_leaves_the_core_to_others_with_a_short_slice() {
        let told = std::thread::spawn(|| {
            leave_to_others(7);
            (
                std::fs::read_to_string("/proc/thread-self/stat").unwrap(),
                std::fs::read_to_string("/proc/thread-self/sched").unwrap_or_default(),
            )
        });
        let (stat, sched) = told.join().unwrap();
        // Niceness is the 19th field, and the second ends with the last bracket.
        let nice = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19 - 3).unwrap();
        assert_eq!(nice, "7", "{stat}");
        // The kernel says the slice, in nanoseconds or with a decimal point, if it is built to, and knows it from 6.12 on.
        if let Some(line) = sched.lines().find(|line| line.starts_with("se.slice")) {
            assert!(line.ends_with(" 100000") || line.ends_with("0.100000"), "{line}");
        }
    }
}
