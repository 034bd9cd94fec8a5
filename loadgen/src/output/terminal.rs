//! Standard output and standard error, whose readers may be gone: that is no reason to lose the results of a run.

use std::{
    fmt,
    io::{self, ErrorKind, Write},
};

use anyhow::{Context, Result};

/// Puts results on standard output. Who has read enough, or nothing, is no error.
///
/// # Errors
/// It takes nothing for another reason, such as a full disk behind it.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("writing to standard output"),
        _ => Ok(()),
    }
}

/// Says a line on standard error, to whoever may be there.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
