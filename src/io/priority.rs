//! Priority: threads that compute while a worker on the same core has something to send.
//!
//! A thread that is running is let alone for its slice (`RUN_TO_PARITY` of Linux's fair scheduler, from 6.6 on), or until the next tick where another has become
//! ready meanwhile: some milliseconds, whatever its niceness. So a thread of low priority is given a short slice besides, and offers the core by
//! itself ([`offer_core`]) between two pieces of its work.

#![allow(unsafe_code)]

use std::io;

use rustix::process::setpriority_process;

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

/// Has the calling thread run so nicely, and in short slices where the system knows them: not every one has that call, and sandboxes may forbid it.
///
/// # Errors
/// That is forbidden: it shares the cores as the others do.
pub fn leave_to_others(nice: i32) -> io::Result<()> {
    // Of Linux, no process is meant by this but the calling thread (setpriority(2), under "C library/kernel differences").
    set_nice_and_slice(nice).or_else(|_| Ok(setpriority_process(None, nice)?))
}

fn set_nice_and_slice(nice: i32) -> io::Result<()> {
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
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets whoever is ready have the core before the calling thread goes on.
pub fn offer_core() {
    std::thread::yield_now();
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The calling thread's.
    fn niceness() -> String {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // The 19th field, and the second ends with the last bracket.
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(19 - 3).unwrap().to_owned()
    }

    #[test]
    fn a_thread_leaves_the_core_to_others_with_a_short_slice() {
        let told = std::thread::spawn(|| {
            leave_to_others(7).unwrap();
            (niceness(), std::fs::read_to_string("/proc/thread-self/sched").unwrap_or_default())
        });
        let (nice, sched) = told.join().unwrap();
        assert_eq!(nice, "7");
        // The kernel says the slice, in nanoseconds or with a decimal point, if it is built to, and knows it from 6.12 on.
        if let Some(line) = sched.lines().find(|line| line.starts_with("se.slice")) {
            assert!(line.ends_with(" 100000") || line.ends_with("0.100000"), "{line}");
        }
    }

    /// Has the system answer the calling thread that it has no `sched_setattr`, as sandboxes do (`seccomp(2)`).
    fn forbid_sched_setattr() {
        let is = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
        let mut filter = [
            // The number of the call is what a filter is given first.
            is(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            is(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_sched_setattr as u32),
            is(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
            is(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the program and its filter live until the calls return, and the kernel copies them. Both calls are about the calling thread alone.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                + libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }

    #[test]
    fn where_the_newer_call_is_forbidden_a_thread_is_as_nice_by_the_older_one() {
        let before = niceness();
        let told = std::thread::spawn(|| {
            forbid_sched_setattr();
            assert_eq!(set_nice_and_slice(7).unwrap_err().raw_os_error(), Some(libc::ENOSYS));
            leave_to_others(7).unwrap();
            niceness()
        });
        assert_eq!(told.join().unwrap(), "7");
        assert_eq!(niceness(), before, "that thread alone");
    }
}
