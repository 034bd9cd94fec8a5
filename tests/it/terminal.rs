//! `stentor top` in a terminal: it ends when it is told to, or when the terminal is gone, and gives the terminal back.

use std::{
    fs::File,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    process::{Child, Command},
    thread,
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use crate::{client::PATIENCE, process::stentor, skip::skip};

/// The program in a terminal of 80 columns, of which we are the screen and the keyboard.
struct Shown {
    child: Child,
    /// Gone once it was closed.
    terminal: Option<File>,
    /// The program's end of it: kept, so that its mode can be read when the program has ended.
    end: File,
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
        let mut shown = Shown { child, terminal: Some(File::from(terminal)), end };
        shown.read_until("q quit");
        assert!(!shown.echoes(), "the terminal is raw");
        Some(shown)
    }

    /// What is drawn until this has been.
    fn read_until(&mut self, text: &str) {
        let begun = Instant::now();
        let mut drawn = Vec::new();
        let mut some = [0; 4096];
        while !String::from_utf8_lossy(&drawn).contains(text) {
            let terminal = self.terminal.as_mut().unwrap();
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(terminal, PollFlags::IN)], Some(&left)).unwrap();
            assert!(ready > 0, "waited in vain for {text:?}: {:?}", String::from_utf8_lossy(&drawn));
            let count = terminal.read(&mut some).unwrap();
            drawn.extend_from_slice(&some[..count]);
        }
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
