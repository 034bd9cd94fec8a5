//! The server under attack: started on a core of its own, looked at from outside, ended.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    FILLER, HEALTHY, Result,
    attacks::{tls::Secure, wire},
};

/// How long it may take to start, and to say a line that it was asked for.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// Where probes are answered by a thread of their own, if this build has such an address.
    pub admin: Option<SocketAddr>,
    /// Where it speaks TLS, if it was asked to.
    pub secure: Option<Secure>,
    log: Arc<Mutex<Log>>,
    config: PathBuf,
    certificates: PathBuf,
}

/// What it has logged.
#[derive(Default)]
struct Log {
    lines: usize,
    listening: Option<SocketAddr>,
    listening_by_tls: Option<SocketAddr>,
    /// When it said that it had reloaded.
    reloaded: Vec<Instant>,
    last: String,
}

impl Server {
    /// Starts it with its defaults and `flags` on `core`, by TLS as well if it is to, and fills its tape, so that what it grows by later is
    /// not that.
    pub fn start(program: &Path, flags: &[&str], tls: bool, core: Option<core_affinity::CoreId>) -> Result<Server> {
        let own = |end: &str| std::env::temp_dir().join(format!("stentor-hostile-{}{end}", std::process::id()));
        let (config, certificates) = (own(".toml"), own(""));
        fs::write(&config, "")?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STENTOR_")) {
            command.env_remove(name);
        }
        command.args(["--listen", "127.0.0.1:0", "--config"]).arg(&config).args(flags);
        if tls {
            command.args(["--tls-listen", "127.0.0.1:0", "--tls-self-signed"]).arg(&certificates);
        }
        let admin = if has_admin(program)? { Some(free_address()?) } else { None };
        if let Some(admin) = admin {
            command.arg("--admin-listen").arg(admin.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // It inherits the core of the thread that starts it.
        let started = thread::spawn(move || {
            core.map(core_affinity::set_for_current);
            command.spawn()
        });
        let mut child = started.join().expect("spawning doesn't panic")?;
        let lines = BufReader::new(child.stderr.take().expect("it is piped"));
        let log = Arc::new(Mutex::new(Log::default()));
        let kept = Arc::clone(&log);
        thread::spawn(move || {
            lines.lines().map_while(std::io::Result::ok).for_each(|line| kept.lock().unwrap().keep(line))
        });
        let begun = Instant::now();
        let address = loop {
            if let Some(address) = log.lock().unwrap().listening {
                break address;
            }
            if begun.elapsed() > PATIENCE || child.try_wait()?.is_some() {
                let last = log.lock().unwrap().last.clone();
                return Err(format!("the server did not start: {last}").into());
            }
            thread::sleep(Duration::from_millis(5));
        };
        // It is said first where it listens in clear.
        let mut secure = None;
        while tls && secure.is_none() {
            let by_tls = log.lock().unwrap().listening_by_tls;
            secure = by_tls.map(|address| Secure::new(address, &certificates)).transpose()?;
            if begun.elapsed() > PATIENCE {
                return Err("the server doesn't say where it speaks TLS".into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        let server = Server { child, address, admin, secure, log, config, certificates };
        server.fill()?;
        Ok(server)
    }

    /// More than the tape holds by default, in large payloads.
    fn fill(&self) -> Result<()> {
        let payload = format!("\"{}\"", "x".repeat(60_000));
        for _ in 0..12 {
            let lines = wire::publish_lines((0..100).map(|n| format!("healthy.fill.{}", n % 4)), &payload);
            let mut stream = wire::connect(self.address, FILLER)?;
            stream.write_all(&lines)?;
            if wire::status(&mut stream)? != 200 {
                return Err("the tape could not be filled".into());
            }
        }
        Ok(())
    }

    /// Whether it is still there.
    pub fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages: u64 = text.split(' ').nth(1).unwrap_or("0").parse()?;
        Ok(pages * rustix::param::page_size() as u64)
    }

    /// CPU time of its threads until now, by their names.
    pub fn threads(&self) -> Result<Vec<(String, Duration)>> {
        threads(&self.child.id().to_string())
    }

    /// Lines that it has logged.
    pub fn lines(&self) -> usize {
        self.log.lock().unwrap().lines
    }

    /// Has it read its settings again; returns how long it took until it said so.
    pub fn reload(&self) -> Option<Duration> {
        let before = self.log.lock().unwrap().reloaded.len();
        let asked = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::HUP).ok()?;
        while asked.elapsed() < wire::PATIENCE {
            if let Some(said) = self.log.lock().unwrap().reloaded.get(before) {
                return Some(said.duration_since(asked));
            }
            thread::sleep(Duration::from_millis(2));
        }
        None
    }

    /// Its figures; an error says why there are none.
    pub fn figures(&self) -> Result<Figures> {
        let mut stream = wire::connect(self.admin.unwrap_or(self.address), HEALTHY)?;
        stream.write_all(&wire::get("/metrics", "Connection: close\r\n"))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        if !text.starts_with("HTTP/1.1 200") {
            return Err(text.lines().next().unwrap_or("nothing").into());
        }
        Ok(Figures(text))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.config);
        let _ = fs::remove_dir_all(&self.certificates);
    }
}

impl Log {
    fn keep(&mut self, line: String) {
        self.lines += 1;
        let said = |scheme: &str| line.split_once(scheme)?.1.split('/').next()?.parse().ok();
        self.listening = self.listening.or_else(|| said("listening on http://"));
        self.listening_by_tls = self.listening_by_tls.or_else(|| said("listening on https://"));
        if line.ends_with("reloaded") && !line.contains("nothing") {
            self.reloaded.push(Instant::now());
        }
        self.last = line;
    }
}

/// What `/metrics` said.
pub struct Figures(String);

impl Figures {
    /// A figure, without its `stentor_`, summed over its labels.
    pub fn sum(&self, name: &str) -> f64 {
        let of = |line: &str| {
            let (labels, value) = line.strip_prefix("stentor_")?.strip_prefix(name)?.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then(|| value.parse::<f64>().ok())?
        };
        self.0.lines().filter_map(of).sum()
    }

    /// How many series there are.
    pub fn series(&self) -> usize {
        self.0.lines().filter(|line| line.starts_with("stentor_")).count()
    }
}

/// CPU time of the threads of a process (`/proc/PID/task/*/schedstat`), by their names.
pub fn threads(pid: &str) -> Result<Vec<(String, Duration)>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path();
        // A thread may end while we look.
        let (Ok(name), Ok(text)) = (fs::read_to_string(path.join("comm")), fs::read_to_string(path.join("schedstat")))
        else {
            continue;
        };
        let ns = text.split(' ').next().unwrap_or("0").parse()?;
        threads.push((name.trim().to_owned(), Duration::from_nanos(ns)));
    }
    Ok(threads)
}

fn has_admin(program: &Path) -> Result<bool> {
    let help = Command::new(program).arg("--help").output()?;
    Ok(String::from_utf8_lossy(&help.stdout).contains("--admin-listen"))
}

/// An address that nobody listens on now.
fn free_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
