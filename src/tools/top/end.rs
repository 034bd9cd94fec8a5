//! What ends it from outside, or has it stand still: a signal, or a terminal that is gone.
//!
//! A thread of its own waits for both, and gives the terminal back before the process ends or stops. The thread that draws can't be
//! asked to: what reads the keys reads on for ever where a terminal that was hung up says "nothing, and no error", and waits for the
//! rest of half a key; and a terminal that was stopped takes no more of what is drawn.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Stdin, Stdout, stdin, stdout},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crossbeam_channel::bounded;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::{
    consts::{
        SIGABRT, SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGPROF, SIGQUIT, SIGSTOP, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2,
        SIGVTALRM, SIGXCPU, SIGXFSZ,
    },
    flag,
    low_level::{self, pipe},
};

use crate::signals::heeded;

/// How long until it is looked again whether a terminal is still there: kernels don't wake who waits for nothing but its end.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// Time for giving the terminal back, which may take nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// Signals that ask for the end; that is a good one.
const ASK: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];

/// Signals that end it as well, and whoever waits for it is to see by which. Those of a fault are not here: they come again at once.
const END: [i32; 9] = [SIGQUIT, SIGABRT, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGXCPU, SIGXFSZ];

/// Held while a frame is drawn: nothing is to be drawn between giving the terminal back and standing still.
pub(super) static DRAWING: Mutex<()> = Mutex::new(());

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

/// Signals that have come.
struct Signals {
    /// Can be read when one has.
    told: UnixStream,
    /// The last that ends it; 0 for none.
    ends: Arc<AtomicUsize>,
    stops: Arc<AtomicBool>,
    goes_on: Arc<AtomicBool>,
}

impl Signals {
    /// Catches all that were not ignored at the start.
    fn catch() -> io::Result<Signals> {
        let (told, sender) = UnixStream::pair()?;
        told.set_nonblocking(true)?;
        let signals = Signals { told, ends: Arc::default(), stops: Arc::default(), goes_on: Arc::default() };
        // What has come is noted before it is told that something has: actions of a signal are done in order.
        for signal in heeded(&[&ASK[..], &END].concat()) {
            flag::register_usize(signal, Arc::clone(&signals.ends), signal as usize)?;
            pipe::register(signal, sender.try_clone()?)?;
        }
        for (signal, noted) in [(SIGTSTP, &signals.stops), (SIGCONT, &signals.goes_on)] {
            if !heeded(&[signal]).is_empty() {
                flag::register(signal, Arc::clone(noted))?;
                pipe::register(signal, sender.try_clone()?)?;
            }
        }
        Ok(signals)
    }

    /// What they come to.
    fn take(&mut self) -> Option<Told> {
        // All of them at once: what they are is noted elsewhere.
        while self.told.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        // SeqCst: as the crate that notes them has it.
        match self.ends.load(Ordering::SeqCst) {
            0 if self.stops.swap(false, Ordering::SeqCst) => Some(Told::Stop),
            0 if self.goes_on.swap(false, Ordering::SeqCst) => Some(Told::GoOn),
            0 => None,
            signal => Some(Told::End(signal as i32)),
        }
    }
}

/// What is to be done.
enum Told {
    /// The signal, or 0 where the terminal is gone.
    End(i32),
    Stop,
    GoOn,
}

/// From now on signals, as far as they were not ignored at the start, and the end of the terminal call `give_back` and end the process,
/// whatever the other threads do; or stop it, and when it goes on, call `take_back`.
///
/// # Errors
/// There is no keyboard, or no thread.
pub(super) fn watch(give_back: fn(), take_back: fn()) -> io::Result<()> {
    let mut signals = Signals::catch()?;
    let terminal = Terminal { screen: stdout(), keyboard: Keyboard::open()? };
    thread::Builder::new().name("top-end".into()).spawn(move || {
        loop {
            match next(&terminal, &mut signals) {
                Some(Told::End(signal)) => leave(give_back, signal),
                Some(Told::Stop) => {
                    stand_still(give_back, take_back);
                    signals.goes_on.store(false, Ordering::SeqCst);
                }
                // It stood still without a word (SIGSTOP): a shell has made the terminal its own meanwhile.
                Some(Told::GoOn) => take_back(),
                None => {}
            }
        }
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

/// Waits for a while; says what a signal has told, or that the terminal has gone.
fn next(terminal: &Terminal, signals: &mut Signals) -> Option<Told> {
    // Hanging up is told unasked.
    let mut all = [
        PollFd::new(&signals.told, PollFlags::IN),
        PollFd::from_borrowed_fd(terminal.screen.as_fd(), PollFlags::empty()),
        PollFd::from_borrowed_fd(terminal.keyboard.as_fd(), PollFlags::empty()),
    ];
    // What fails here is interrupted by a signal, and is done again.
    let is_gone = poll(&mut all, Some(&LOOK_EVERY)).is_ok() && all[1..].iter().any(|one| !one.revents().is_empty());
    signals.take().or(is_gone.then_some(Told::End(0)))
}

/// Gives the terminal back and stops, until somebody has it go on.
fn stand_still(give_back: fn(), take_back: fn()) {
    let _held = DRAWING.try_lock_for(PATIENCE);
    within_a_moment(give_back);
    // What a terminal's own stop key comes to, and can't be held off by anybody.
    let _ = low_level::raise(SIGSTOP);
    take_back();
}

/// Gives the terminal back, and ends the process as the signal would have.
fn leave(give_back: fn(), signal: i32) -> ! {
    within_a_moment(give_back);
    if END.contains(&signal) {
        let _ = low_level::emulate_default_handler(signal);
    }
    process::exit(0);
}

/// Gives the terminal back, if it can be within a moment: who draws may hold it and wait for a terminal that takes nothing.
fn within_a_moment(give_back: fn()) {
    let (sender, given) = bounded::<()>(1);
    let started = thread::Builder::new().spawn(move || {
        give_back();
        drop(sender);
    });
    if started.is_ok() {
        let _ = given.recv_timeout(PATIENCE);
    }
}
