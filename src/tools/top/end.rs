//! What ends it from outside: a signal, or a terminal that is gone.
//!
//! A thread of its own waits for both, gives the terminal back and ends the process. The thread that draws can't be asked to: what
//! reads the keys reads on for ever where a terminal that was hung up says "nothing, and no error", and waits for the rest of half a
//! key; and a terminal that was stopped takes no more of what is drawn.

use std::{
    fs::File,
    io::{self, IsTerminal, Stdin, Stdout, stdin, stdout},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    process, thread,
    time::Duration,
};

use crossbeam_channel::bounded;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    low_level::pipe,
};

use crate::signals::heeded;

/// How long until it is looked again whether a terminal is still there: kernels don't wake who waits for nothing but its end.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// Time for giving the terminal back, which may take nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// The terminal's two ends.
struct Terminal {
    screen: Stdout,
    keyboard: Keyboard,
}

/// Where keys come from: the same as where they are read.
enum Keyboard {
    Standard(Stdin),
    /// `/dev/tty`, where standard input is something else.
    Own(File),
}

impl Keyboard {
    fn open() -> io::Result<Keyboard> {
        if stdin().is_terminal() { Ok(Keyboard::Standard(stdin())) } else { File::open("/dev/tty").map(Keyboard::Own) }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Keyboard::Standard(stdin) => stdin.as_fd(),
            Keyboard::Own(file) => file.as_fd(),
        }
    }
}

/// From now on SIGTERM, SIGINT, SIGHUP, as far as they were not ignored at the start, and the end of the terminal call `give_back` and end the process, whatever the other threads do.
///
/// # Errors
/// There is no keyboard, or no thread.
pub(super) fn watch(give_back: fn()) -> io::Result<()> {
    let (signals, sender) = UnixStream::pair()?;
    for signal in heeded(&[SIGTERM, SIGINT, SIGHUP]) {
        pipe::register(signal, sender.try_clone()?)?;
    }
    let terminal = Terminal { screen: stdout(), keyboard: Keyboard::open()? };
    thread::Builder::new().name("top-end".into()).spawn(move || {
        while !has_ended(&terminal, &signals) {}
        leave(give_back);
    })?;
    Ok(())
}

/// Whether the terminal was hung up. Whoever draws may be the first to notice, and each call fails in its own way then: so the kernel
/// is asked, and not the error.
pub(super) fn is_terminal_gone() -> bool {
    let screen = stdout();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut one = [PollFd::from_borrowed_fd(screen.as_fd(), PollFlags::empty())];
    poll(&mut one, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Waits for a while; says whether a signal has come or the terminal has gone.
fn has_ended(terminal: &Terminal, signals: &UnixStream) -> bool {
    // Hanging up is told unasked.
    let mut all = [
        PollFd::new(signals, PollFlags::IN),
        PollFd::from_borrowed_fd(terminal.screen.as_fd(), PollFlags::empty()),
        PollFd::from_borrowed_fd(terminal.keyboard.as_fd(), PollFlags::empty()),
    ];
    // What fails here is interrupted by a signal, and is done again.
    poll(&mut all, Some(&LOOK_EVERY)).is_ok_and(|_| all.iter().any(|one| !one.revents().is_empty()))
}

/// Gives the terminal back, if it can be within a moment: who draws may hold it and wait for a terminal that takes nothing.
fn leave(give_back: fn()) -> ! {
    let (sender, given) = bounded::<()>(1);
    let started = thread::Builder::new().spawn(move || {
        give_back();
        drop(sender);
    });
    if started.is_ok() {
        let _ = given.recv_timeout(PATIENCE);
    }
    process::exit(0);
}
