//! Threads that can't be started, and threads that panic: there is a whole server, or none.

use std::{fs, os::unix::process::CommandExt, path::PathBuf, process::Command};

use crate::process::stentor;

/// What it runs with: its main thread, the log's, control, two workers, an acceptor and the market, in the order of their start.
const ARGS: [&str; 4] = ["--listen=127.0.0.1:0", "--workers=2", "--pin=none", "--demo"];

/// A user that has no other processes.
const NOBODY_ELSE: u32 = 61_234;

#[test]
fn a_limit_on_threads_ends_the_start_with_a_sentence_and_leaves_nothing_running() {
    let program = Anybodys::new();
    let is_root = rustix::process::geteuid().is_root();
    let names = ["log", "control", "worker-0", "worker-1", "accept-0", "demo"];
    // Whoever isn't root has other processes, which count: then there is room for none.
    let known = if is_root { names.len() } else { 1 };
    for (before, name) in names.into_iter().enumerate().take(known) {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nproc={}", before + 1)).arg(&program.0).args(ARGS);
        for (name, _) in stentor().get_envs() {
            command.env_remove(name);
        }
        if is_root {
            command.uid(NOBODY_ELSE).gid(NOBODY_ELSE);
        }
        let output = command.output().expect("prlimit is part of util-linux");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.starts_with(&format!("stentor: the thread {name} could not be started: ")), "{name}: {text}");
        assert!(text.contains("needs 7 threads; raise the limit (TasksMax="), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    if is_root {
        assert_eq!(processes_of(NOBODY_ELSE), 0);
    }
}

/// The program where every user may run it: the project's folder may be closed to others.
struct Anybodys(PathBuf);

impl Anybodys {
    fn new() -> Anybodys {
        let path = std::env::temp_dir().join(format!("stentor-of-anybody-{}", std::process::id()));
        fs::copy(stentor().get_program(), &path).expect("there is room for a copy of the program");
        Anybodys(path)
    }
}

impl Drop for Anybodys {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// How many processes a user has.
fn processes_of(user: u32) -> usize {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let text = fs::read_to_string(entry.ok()?.path().join("status")).ok()?;
        text.lines().find(|line| line.starts_with("Uid:"))?.split_whitespace().nth(1)?.parse::<u32>().ok()
    });
    processes.filter(|other| *other == user).count()
}

/// Only where there are debug assertions can a thread be asked to panic.
#[cfg(debug_assertions)]
mod panics {
    use std::{
        io::Read,
        os::unix::process::ExitStatusExt,
        process::{Child, Stdio},
    };

    use super::ARGS;
    use crate::process::{stentor, wait_for};

    /// Ends with the test.
    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_thread_that_panics_ends_the_process_with_one_line_that_says_where() {
        for (thread, level) in [("worker-1", "warn"), ("control", "off"), ("accept-0", "warn"), ("demo", "warn")] {
            let mut command = stentor();
            command.args(ARGS).args(["--log-format=json", "--log-level", level]).env("STENTOR_TEST_PANIC", thread);
            let child = command.env_remove("RUST_BACKTRACE").stderr(Stdio::piped()).spawn().unwrap();
            let mut running = Ended(child);
            let mut status = None;
            wait_for("its end", || {
                status = running.0.try_wait().unwrap();
                status.is_some()
            });
            let mut text = String::new();
            running.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(status.unwrap().signal(), Some(libc::SIGABRT), "{thread}: {text}");
            let line: serde_json::Value = serde_json::from_str(text.trim_end()).expect(&text);
            assert_eq!((&line["level"], &line["thread"]), (&"ERROR".into(), &thread.into()), "{text}");
            assert!(line["location"].as_str().unwrap().starts_with("src/panic.rs:"), "{text}");
            assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(line["message"], "panicked: this thread was asked to panic; the server ends");
        }
    }
}
