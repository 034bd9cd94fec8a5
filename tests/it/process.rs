//! The program as a process: started, asked, signalled, ended.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, ChildStderr, Command, Output, Stdio},
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Client, PATIENCE, exchange};

/// The program, whatever settings the environment has.
pub fn stentor() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stentor"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STENTOR_")) {
        command.env_remove(name);
    }
    command
}

/// Runs it to its end.
pub fn run(args: &[&str]) -> Output {
    stentor().args(args).output().unwrap()
}

/// Ends the program when a test fails.
pub struct Running {
    pub child: Child,
    pub log: BufReader<ChildStderr>,
    pub address: String,
}

impl Running {
    /// Starts it on a port of its own.
    pub fn start(args: &[&str]) -> Running {
        Running::listen("127.0.0.1:0", args)
    }

    /// Starts it on this address.
    pub fn listen(address: &str, args: &[&str]) -> Running {
        Running::spawn(stentor().args(["--listen", address]).args(args))
    }

    /// Starts it as this command says, and reads its log until it listens.
    pub fn spawn(command: &mut Command) -> Running {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended before it listened");
            if let Some((_, rest)) = line.split_once("listening on http://") {
                break rest.split('/').next().unwrap().to_owned();
            }
        };
        Running { child, log, address }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn client(&self, path: &str) -> Client {
        Client::try_connect(self.at(), path, &[]).unwrap()
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddr {
        self.address.parse().unwrap()
    }

    /// Reads its log until a line says this, and returns what was read.
    pub fn logged(&mut self, text: &str) -> String {
        let mut log = String::new();
        while !log.lines().last().is_some_and(|line| line.contains(text)) {
            assert!(self.log.read_line(&mut log).unwrap() > 0, "it ended: {log}");
        }
        log
    }

    /// A figure of `/metrics`, without its `stentor_`, summed over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        metric(self.at(), name)
    }

    /// Waits until the figure is so.
    pub fn until(&self, name: &str, is: impl Fn(f64) -> bool) {
        wait_for(name, || is(self.metric(name)));
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Memory that it has in use, in bytes.
    pub fn resident(&self) -> usize {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
    }

    /// Waits for its end: the exit code, and what it logged until then.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A figure of the server at this address.
pub fn metric(address: SocketAddr, name: &str) -> f64 {
    let answer = exchange(address, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let values = answer.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix("stentor_")?.strip_prefix(name)?.rsplit_once(' ')?;
        (labels.is_empty() || labels.starts_with('{')).then(|| value.parse::<f64>().unwrap())
    });
    let values: Vec<f64> = values.collect();
    assert!(!values.is_empty(), "there is no figure called {name}: {answer}");
    values.iter().sum()
}

/// Waits until the figures are no older than this call: they are kept for a quarter of a second, and count the requests for them.
pub fn fresh(address: SocketAddr) {
    let asked = || metric(address, "http_requests_total");
    let before = asked();
    wait_for("new figures", || asked() > before);
}

/// Asks until it is so. A figure of another process tells nobody when it changes, so it is asked again after a moment.
pub fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < 4 * PATIENCE, "waited in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
