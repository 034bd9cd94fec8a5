//! The log: events go to standard error from a thread of their own, so that a slow terminal or pipe never holds up a worker;
//! what comes faster than it can be written is dropped, and counted by the writer.

use std::{
    io::IsTerminal,
    process,
    sync::{Arc, Mutex},
};

use rustix::io::Errno;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};

use super::{failed, panic};
use crate::{
    cli::{Cli, LogLevel},
    config::LogFormat,
    server::StartError,
};

/// The log, until it is dropped.
pub(super) struct Log {
    set_level: Box<dyn Fn(&LogLevel)>,
    /// Counts what could not be written.
    pub dropped: ErrorCounter,
    writer: Writer,
}

/// Whoever drops the guard waits, for a second at most, until all events are written.
type Writer = Arc<Mutex<Option<WorkerGuard>>>;

impl Log {
    pub(super) fn start(cli: &Cli) -> Log {
        const NAME: &str = "log";
        // The writer panics where its thread can't be started, and for no other reason.
        let failure = StartError::thread(NAME.into(), &cli.config, Errno::AGAIN.into());
        std::panic::set_hook(Box::new(move |_| {
            failed(&failure);
            process::exit(1);
        }));
        let (writer, guard) = NonBlockingBuilder::default().thread_name(NAME).finish(std::io::stderr());
        let guard: Writer = Arc::new(Mutex::new(Some(guard)));
        let held = Arc::clone(&guard);
        panic::end_process(cli.log_format, move || flush(&held));
        let dropped = writer.error_counter();
        let log = tracing_subscriber::fmt().with_env_filter(cli.log_level.filter()).with_writer(writer);
        // An error here would mean that the subscriber is gone; it stays as long as the process.
        let set_level: Box<dyn Fn(&LogLevel)> = match cli.log_format {
            LogFormat::Text => {
                let log = log.with_ansi(std::io::stderr().is_terminal()).with_target(false).with_filter_reloading();
                let handle = log.reload_handle();
                log.init();
                Box::new(move |level| drop(handle.reload(level.filter())))
            }
            LogFormat::Json => {
                let log = log.json().flatten_event(true).with_filter_reloading();
                let handle = log.reload_handle();
                log.init();
                Box::new(move |level| drop(handle.reload(level.filter())))
            }
        };
        Log { set_level, dropped, writer: guard }
    }

    pub(super) fn set_level(&self, level: &LogLevel) {
        (self.set_level)(level);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        flush(&self.writer);
    }
}

fn flush(writer: &Writer) {
    drop(writer.lock().ok().and_then(|mut writer| writer.take()));
}
