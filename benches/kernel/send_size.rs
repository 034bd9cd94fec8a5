//! How much should one send carry?
//!
//! A send costs about the same whatever little it carries, so the more the better; up to one segment of the path. On
//! loopback that is the device's 65,536 bytes less 53 (the IP and TCP headers with timestamps, and the one byte by which
//! an IP packet's length falls short of 64 KiB): a byte more is a second segment, in the kernel's own bookkeeping, too.

use std::io;

use crate::{SEND_MAX, cpu::Cores, crowd::Crowd, table::Table};

/// What one send carries.
const SIZES: &[usize] = &[4 * 1024, 16 * 1024, SEND_MAX, 64 * 1024, 128 * 1024];

pub fn answer(cores: Cores) -> io::Result<()> {
    let mut crowd = Crowd::new(cores)?;
    let bytes = vec![b'x'; SIZES.iter().copied().max().unwrap_or(0)];
    let spreads = crowd.interleaved(SIZES, |size, members, out| {
        members.iter().for_each(|member| out.send(member, &bytes[..size]));
    });
    let mut table = Table::new(&["bytes", "a send", "ratio", "a KiB of it"]);
    for (size, spread) in SIZES.iter().zip(&spreads) {
        let kib = spread.median / (*size as f64 / 1024.0);
        table.row(vec![size.to_string(), spread.to_string(), spread.ratio(&spreads[0]), format!("{kib:.1}")]);
    }
    table.print("One send of so many bytes: CPU time");
    crowd.print_doubts();
    Ok(())
}
