//! A panic of any thread, which ends the process.
//!
//! A panic is a fault of this program: what clients send and operators set never leads to one. A worker that panics could
//! be contained: its connections dropped, another thread started. It is not, because what it leaves behind is shared. It may
//! have been in the middle of an append, under the tape's lock (which no panic poisons): then a topic has counted a number that
//! no publication has, segments are pinned that nobody reads, lanes are written that nobody wants. The other workers would go on
//! from there, and tens of thousands of subscribers would be sent a stream with a hole that nobody can see, for as long as the
//! server runs. What they lose by a restart is what they are prepared for: they reconnect to other epochs, and begin with
//! what publishers say next. And what made one worker panic is likely to come again, with the client that sent it, to the next.
//!
//! So the release is built with `panic = "abort"`, and every other build ends in the same way: whichever thread it is (one
//! without acceptors looks alive and lets nobody in), there is no server with a part missing. What is said before that is
//! the program's affair (`program/panic.rs`).

use std::{
    io, process,
    thread::{self, JoinHandle},
};

/// Starts a thread that the process ends with, should it panic, in programs that would go on otherwise, too.
///
/// # Errors
/// The system has no thread left.
pub(crate) fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(move || {
        let _end = Ending;
        #[cfg(debug_assertions)]
        panic_if_asked();
        run();
    })
}

struct Ending;

impl Drop for Ending {
    fn drop(&mut self) {
        if thread::panicking() {
            process::abort();
        }
    }
}

/// For tests, and only where there are debug assertions: the thread of this name panics when it starts.
#[cfg(debug_assertions)]
fn panic_if_asked() {
    if let (Ok(asked), Some(name)) = (std::env::var("STENTOR_TEST_PANIC"), thread::current().name())
        && asked == name
    {
        panic!("this thread was asked to panic");
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::Command};

    use super::*;

    /// Set in the process of its own in which a test runs once more, and which may end badly.
    const CHILD: &str = "STENTOR_PANIC_CHILD";

    #[test]
    fn a_thread_of_an_embedded_server_that_panics_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            let thread = spawn("worker-0".into(), || panic!("within an append")).unwrap();
            let _ = thread.join();
            return;
        }
        let test = "panic::tests::a_thread_of_an_embedded_server_that_panics_ends_the_process";
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", test, "--nocapture"]).env(CHILD, "1").env_remove("RUST_BACKTRACE");
        let output = again.output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    }
}
