//! Would the tape be sent faster from huge pages?
//!
//! The kernel copies what is sent, from pages that the processor has to find. One buffer is kept in small pages and one is
//! asked to be in huge ones; both are far larger than a cache, and passes go over all of them. Whether the request was
//! heard is looked up and said: without transparent huge pages both are the same.

use std::{ffi::c_void, io};

use rustix::mm::{Advice, madvise};

use crate::{SEND_MAX, cpu::Cores, crowd::Crowd, read, table};

const NAMES: &[&str] = &["small pages", "huge pages"];

/// Of each buffer.
const LEN: usize = 64 << 20;

/// Of a huge page, where small ones have 4 KiB.
const HUGE: usize = 2 << 20;

pub fn answer(cores: Cores) -> io::Result<()> {
    let small = Buffer::new(Advice::LinuxNoHugepage);
    let before = huge_kib();
    let huge = Buffer::new(Advice::LinuxHugepage);
    let got = huge_kib().saturating_sub(before);
    let mut crowd = Crowd::new(cores)?;
    // Each goes on where it was left in its own buffer.
    let mut pieces = [&small, &huge].map(|buffer| buffer.bytes().chunks_exact(SEND_MAX).cycle());
    let spreads = crowd.interleaved(&[0, 1], |way, members, out| {
        for (member, piece) in members.iter().zip(&mut pieces[way]) {
            out.send(member, piece);
        }
    });
    let question = format!("Sending {SEND_MAX} bytes of {} MiB: CPU time", LEN >> 20);
    table::print_ways(&question, "a send", NAMES, &spreads);
    let setting = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let setting = if setting.is_empty() { "not in this kernel" } else { &setting };
    println!(
        "\nTransparent huge pages: {setting}; of the second buffer {} of {} MiB were in huge pages; {}.",
        got / 1024,
        LEN >> 20,
        match small.advised.and(huge.advised) {
            Ok(()) => "the kernel took the advice".to_owned(),
            Err(error) => format!("the kernel refused the advice: {error}"),
        }
    );
    crowd.print_doubts();
    Ok(())
}

/// Memory that the kernel was advised about before anything was written to it.
struct Buffer {
    all: Vec<u8>,
    advised: rustix::io::Result<()>,
}

impl Buffer {
    fn new(advice: Advice) -> Buffer {
        // Zeroed memory of this size is mapped, and nothing of it touched yet.
        let mut all = vec![0; LEN + HUGE];
        let advised = advise(&mut all, advice);
        all.fill(b'x');
        Buffer { all, advised }
    }

    /// The part that begins with a huge page.
    fn bytes(&self) -> &[u8] {
        let start = self.all.as_ptr().align_offset(HUGE);
        &self.all[start..start + LEN]
    }
}

/// Says how the pages that lie wholly within `bytes` should be kept.
#[allow(unsafe_code, reason = "no safe call gives the kernel advice about memory")]
fn advise(bytes: &mut [u8], advice: Advice) -> rustix::io::Result<()> {
    let start = bytes.as_ptr().align_offset(HUGE);
    let inner = &mut bytes[start..start + LEN];
    // SAFETY: the range is that of a slice borrowed for writing, and both kinds of advice that are given here leave what
    // it holds as it is.
    unsafe { madvise(inner.as_mut_ptr().cast::<c_void>(), inner.len(), advice) }
}

/// KiB of this process that are in huge pages.
fn huge_kib() -> usize {
    let all = read("/proc/self/smaps_rollup");
    let line = all.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}
