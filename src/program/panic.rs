//! The last words of a server that panics: the log is written out, and one line says what happened: thread, place, message,
//! version. Why a panic ends the process is told in `src/panic.rs`.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal, Write},
    panic::{self, PanicHookInfo},
    process,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    stdio,
};

use crate::config::LogFormat;

/// How long the last line waits for somebody who reads it: a terminal that is held, a pipe that is full.
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes every panic the end of the process: `flush` writes what the log holds, a line at level error in the log's format
/// says what happened (and where from, with `RUST_BACKTRACE`), and the process is aborted, as a supervisor sees by SIGABRT.
pub(super) fn end_process(format: LogFormat, flush: impl Fn() + Send + Sync + 'static) {
    panic::set_hook(Box::new(move |panic| {
        static ENDING: AtomicBool = AtomicBool::new(false);
        // Relaxed: nothing goes with it.
        if ENDING.swap(true, Ordering::Relaxed) {
            // Another thread was first and ends the process; there is nothing to await but that, and this ends it if that hangs.
            thread::sleep(3 * PATIENCE);
            process::abort();
        }
        let trace = Backtrace::capture();
        flush();
        say(format, panic);
        if trace.status() == BacktraceStatus::Captured {
            let _ = LastWords.write_all(trace.to_string().as_bytes());
        }
        process::abort();
    }));
}

/// One line about a panic, whatever level the log has.
fn say(format: LogFormat, panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let message = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("no message").replace('\n', " ");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = thread::current().name().unwrap_or("unnamed").to_owned();
    let version = env!("CARGO_PKG_VERSION");
    // A log of its own: the server's may be what has panicked, and drops lines when it is full.
    let log = tracing_subscriber::fmt().with_writer(|| LastWords);
    let tell =
        || tracing::error!(target: "stentor::panic", thread, location, version, "panicked: {message}; the server ends");
    match format {
        LogFormat::Text => {
            let log = log.with_ansi(io::stderr().is_terminal()).with_target(false).finish();
            tracing::subscriber::with_default(log, tell);
        }
        LogFormat::Json => tracing::subscriber::with_default(log.json().flatten_event(true).finish(), tell),
    }
}

/// Standard error without the lock that a thread may hold which is stuck in writing.
struct LastWords;

impl Write for LastWords {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as _, tv_nsec: 0 };
        let mut ready = [PollFd::from_borrowed_fd(stdio::stderr(), PollFlags::OUT)];
        if poll(&mut ready, Some(&patience))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // A pipe that is ready takes so much without waiting (`PIPE_BUF`, pipe(7)).
        Ok(rustix::io::write(stdio::stderr(), &bytes[..bytes.len().min(4096)])?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        fmt,
        os::unix::process::ExitStatusExt,
        process::{Command, Output},
    };

    use super::*;

    /// Runs a test of this module once more, as a process of its own that may end badly.
    fn again(test: &str) -> Output {
        let test = format!("program::panic::tests::{test}");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &test, "--nocapture"]).env(CHILD, "1").env_remove("RUST_BACKTRACE").output().unwrap()
    }

    const CHILD: &str = "STENTOR_PANIC_CHILD";

    fn is_child() -> bool {
        std::env::var_os(CHILD).is_some()
    }

    #[test]
    fn a_panic_within_the_log_is_told_behind_what_the_log_held() {
        struct Bad;
        impl fmt::Display for Bad {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("within\nthe log")
            }
        }
        if is_child() {
            tracing_subscriber::fmt().with_writer(io::stderr).init();
            end_process(LogFormat::Text, || eprintln!("what the log held"));
            tracing::info!("{}", Bad);
            return;
        }
        let output = again("a_panic_within_the_log_is_told_behind_what_the_log_held");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        let (_, last) = text.split_once("what the log held\n").expect("it is flushed");
        assert!(
            last.contains(" ERROR panicked: within the log; the server ends thread=\"program::panic::tests::"),
            "{last}"
        );
        assert!(last.contains("location=\"src/program/panic.rs:") && last.lines().count() == 1, "{last}");
    }
}
