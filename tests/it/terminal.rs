//! `stentor top` in a terminal: it ends or stops when it is told to, or when the terminal is gone, and gives the terminal back.

use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            process::{CommandExt, ExitStatusExt},
        },
    },
    process::{Child, Command},
    thread,
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, waitid},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize},
};

use crate::{client::PATIENCE, process::stentor, skip::skip};

/// The program in a terminal of 80 columns, of which we are the screen and the keyboard.
struct Shown {
    child: Child,
    /// Gone once it was closed.
    terminal: Option<File>,
    /// The program's end of it: kept, so that its mode can be read when the program has ended.
    end: File,
    /// What was drawn and not looked at yet.
    drawn: Vec<u8>,
}

impl Shown {
    /// Starts it, and waits until it draws; none where no terminal can be had. There is no server at the address: it says that,
    /// and tries again.
    fn start() -> Option<Shown> {
        Shown::started(&mut stentor())
    }

    /// The same, started as this command does it.
    fn started(command: &mut Command) -> Option<Shown> {
        let terminal: OwnedFd = match openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC) {
            Ok(terminal) => terminal,
            // Nothing is mounted at /dev/pts.
            Err(Errno::NODEV | Errno::NOENT) => {
                skip("terminal", "stentor top in a terminal: there is none to be opened here");
                return None;
            }
            Err(error) => panic!("a terminal: {error}"),
        };
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let path = ptsname(&terminal, Vec::new()).unwrap();
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
        let end = File::options().read(true).write(true).open(path).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let copy = || end.try_clone().unwrap();
        let child = command.args(["top", &free]).stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
        let mut shown = Shown { child, terminal: Some(File::from(terminal)), end, drawn: Vec::new() };
        shown.read_until("q quit");
        assert!(!shown.echoes(), "the terminal is raw");
        Some(shown)
    }

    /// Reads what is drawn, up to this.
    fn read_until(&mut self, text: &str) {
        let begun = Instant::now();
        let mut some = [0; 4096];
        let at = loop {
            let drawn = &self.drawn;
            if let Some(at) = drawn.windows(text.len()).position(|window| window == text.as_bytes()) {
                break at;
            }
            let terminal = self.terminal.as_mut().unwrap();
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(terminal, PollFlags::IN)], Some(&left)).unwrap();
            assert!(ready > 0, "waited in vain for {text:?}: {:?}", String::from_utf8_lossy(drawn));
            let count = terminal.read(&mut some).unwrap();
            self.drawn.extend_from_slice(&some[..count]);
        };
        self.drawn.drain(..at + text.len());
    }

    fn press(&mut self, keys: &[u8]) {
        self.terminal.as_mut().unwrap().write_all(keys).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether the terminal shows what is typed, as shells want it.
    fn echoes(&self) -> bool {
        tcgetattr(&self.end).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// Waits until it stands still; it has given the terminal back by then.
    fn stands_still(&mut self) {
        self.read_until("\x1b[?1049l");
        let pid = Pid::from_child(&self.child);
        let stopped = waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::EXITED).unwrap();
        assert!(stopped.is_some_and(|status| status.stopped()), "it has ended");
        assert!(self.echoes(), "the terminal is as it was");
    }

    /// Has it go on, and waits until it draws again.
    fn goes_on(&mut self) {
        self.signal(Signal::CONT);
        self.read_until("\x1b[?1049h");
        self.read_until("q quit");
        assert!(!self.echoes(), "the terminal is raw");
    }

    /// Waits for its end, and says by which signal that was.
    fn killed(&mut self) -> Option<i32> {
        assert_eq!(self.end(), None);
        self.child.wait().unwrap().signal()
    }

    /// Waits for its end.
    fn end(&mut self) -> Option<i32> {
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        let most = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        // That it can be read is how the kernel tells that it has ended (pidfd_open(2)).
        let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&most)).unwrap();
        assert!(ended > 0, "it goes on");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_terminal_that_is_closed_ends_it() {
    let Some(mut shown) = Shown::start() else { return };
    drop(shown.terminal.take());
    assert_eq!(shown.end(), Some(0));
}

#[test]
fn signals_end_it_in_the_middle_of_a_key_and_the_terminal_is_as_it_was() {
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let Some(mut shown) = Shown::start() else { return };
        // The beginning of an arrow: whoever reads keys waits for the rest.
        shown.press(b"\x1b[");
        shown.signal(signal);
        // The other screen is left.
        shown.read_until("\x1b[?1049l");
        assert_eq!(shown.end(), Some(0), "{signal:?}");
        assert!(shown.echoes(), "{signal:?}");
    }
}

#[test]
fn other_signals_end_it_as_they_do_and_the_terminal_is_as_it_was() {
    for signal in [Signal::QUIT, Signal::ABORT, Signal::USR1, Signal::ALARM] {
        let Some(mut shown) = Shown::start() else { return };
        shown.press(b"\x1b[");
        shown.signal(signal);
        shown.read_until("\x1b[?1049l");
        assert_eq!(shown.killed(), Some(signal.as_raw()), "{signal:?}");
        assert!(shown.echoes(), "{signal:?}");
    }
}

#[test]
fn it_stands_still_without_the_terminal_and_goes_on_with_it() {
    let Some(mut shown) = Shown::start() else { return };
    for _ in 0..2 {
        shown.signal(Signal::TSTP);
        shown.stands_still();
        shown.goes_on();
    }
    shown.press(b"q");
    shown.read_until("\x1b[?1049l");
    assert_eq!(shown.end(), Some(0));
    assert!(shown.echoes());
}

#[test]
fn the_key_that_stops_programs_stops_it() {
    // Whoever was started together with it is stopped too, and that is not to be the tests.
    let Some(mut shown) = Shown::started(stentor().process_group(0)) else { return };
    shown.press(b"\x1a");
    shown.stands_still();
    shown.goes_on();
    shown.press(b"q");
    assert_eq!(shown.end(), Some(0));
}

#[test]
fn a_terminal_that_was_a_shells_while_it_stood_still_is_taken_again() {
    let Some(mut shown) = Shown::start() else { return };
    shown.signal(Signal::STOP);
    let stopped = waitid(WaitId::Pid(Pid::from_child(&shown.child)), WaitIdOptions::STOPPED).unwrap();
    assert!(stopped.is_some_and(|status| status.stopped()));
    let mut mode = tcgetattr(&shown.end).unwrap();
    mode.make_raw();
    mode.local_modes |= LocalModes::ECHO | LocalModes::ICANON;
    tcsetattr(&shown.end, OptionalActions::Now, &mode).unwrap();
    shown.goes_on();
    shown.press(b"q");
    assert_eq!(shown.end(), Some(0));
    assert!(shown.echoes());
}

#[test]
fn a_signal_that_it_was_started_to_ignore_does_not_end_it() {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' INT HUP; exec \"$0\" \"$@\""]).arg(stentor().get_program());
    let Some(mut shown) = Shown::started(&mut command) else { return };
    shown.signal(Signal::INT);
    shown.signal(Signal::HUP);
    shown.press(b" ");
    shown.read_until("paused");
    shown.press(b"q");
    assert_eq!(shown.end(), Some(0));
}

#[test]
fn a_terminal_that_takes_nothing_more_does_not_hold_it_up() {
    let Some(mut shown) = Shown::start() else { return };
    // Each key has it draw again, until nothing more fits: nobody reads.
    for _ in 0..2000 {
        shown.press(b"r");
    }
    let stuck = format!("/proc/{}/wchan", shown.child.id());
    let begun = Instant::now();
    // Nobody tells that a thread has come to wait in the kernel, and not every kernel shows where: then some time has to do.
    while !std::fs::read_to_string(&stuck).is_ok_and(|at| at.contains("wait_woken")) && begun.elapsed() < PATIENCE / 4 {
        thread::sleep(std::time::Duration::from_millis(10));
    }
    shown.signal(Signal::TERM);
    assert_eq!(shown.end(), Some(0));
    assert!(shown.echoes());
}

#[test]
fn a_key_ends_it_and_the_terminal_is_as_it_was() {
    let Some(mut shown) = Shown::start() else { return };
    shown.press(b"q");
    shown.read_until("\x1b[?1049l");
    assert_eq!(shown.end(), Some(0));
    assert!(shown.echoes());
}
