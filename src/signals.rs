//! Which signals this process was started to ignore.
//!
//! nohup ignores SIGHUP for what it starts, and a shell without job control SIGINT for what it starts in the background. Whoever did so
//! wants it left so: a program that catches such a signal all the same ends with the terminal, or by a Ctrl-C that was for another.

use std::fs;

/// Those of `signals` that are not ignored. To be asked before anything is registered for them: what is caught is ignored no more.
pub fn heeded(signals: &[i32]) -> Vec<i32> {
    // Where it can't be read, nothing is taken for ignored.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    signals.iter().copied().filter(|signal| !is_ignored(&status, *signal)).collect()
}

/// Whether a signal is among those that a process ignores, given its `/proc/PID/status`: a bit each, the first for signal 1 (`proc(5)`).
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_each_the_first_for_the_first() {
        let status =
            "Name:\tstentor\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001003\nSigCgt:\tffffffffffffffff\n";
        let ignored: Vec<i32> = (1..=64).filter(|signal| is_ignored(status, *signal)).collect();
        assert_eq!(ignored, [1, 2, 13]);
        assert!(!is_ignored("", 1) && !is_ignored("SigIgn:\tmuch\n", 1));
    }
}
