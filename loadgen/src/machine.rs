//! What a result was measured on: machine, kernel, versions; and what the whole machine did meanwhile.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// The machine that a result is from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Kernel name and version.
    pub kernel: String,
    /// Model of the processor.
    pub cpu: String,
    /// Cores that this process sees.
    pub cores: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Congestion control of new connections.
    pub congestion: String,
}

impl Machine {
    /// Reads it off the system; what cannot be read stays empty.
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or("");
            line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let (system, cpu) = (rustix::system::uname(), text("/proc/cpuinfo"));
        let memory = field(&text("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
        Self {
            kernel: format!("{} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy()),
            cpu: field(&cpu, "model name"),
            cores: cpu.lines().filter(|line| line.starts_with("processor")).count(),
            memory: memory * 1024,
            congestion: text("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned(),
        }
    }
}

/// How the scheduler favours a process, from -20 (most) to 19.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nice {
    /// The process's own.
    pub own: i32,
    /// That of its session's group (`sched(7)`, autogroups): between groups only this one counts. None where there are none.
    pub group: Option<i32>,
}

impl Nice {
    /// Of a process; none where it isn't there.
    pub fn of(pid: u32) -> Option<Self> {
        let text = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        Self::parse(&text("stat"), &text("autogroup"))
    }

    fn parse(stat: &str, group: &str) -> Option<Self> {
        // The command's name, in brackets, may hold anything: fields are counted from its end.
        let own = stat.rsplit_once(") ")?.1.split(' ').nth(16)?.parse().ok()?;
        Some(Self { own, group: group.rsplit_once(" nice ").and_then(|(_, nice)| nice.trim().parse().ok()) })
    }
}

impl fmt::Display for Nice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            Some(group) => write!(f, "nice {} in a session of nice {group}", self.own),
            None => write!(f, "nice {}", self.own),
        }
    }
}

/// Descriptors a process needs beside its connections.
const SPARE: u64 = 64;

/// Raises the limit of open descriptors to what `connections` need; where that is not allowed, says how to go on.
pub fn raise_descriptors(connections: u64, processes: usize) -> Result<()> {
    let needed = connections + SPARE;
    let limits = getrlimit(Resource::Nofile);
    if limits.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let most = limits.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit { current: Some(needed.min(most)), maximum: limits.maximum };
    let done = needed <= most && setrlimit(Resource::Nofile, raised).is_ok();
    let room = most.saturating_sub(SPARE).max(1);
    let total = connections * processes as u64;
    ensure!(
        done,
        "{connections} connections need {needed} descriptors, and a process here may have {most} (ulimit -n): {} are \
         missing. Run several processes with --processes {}, whose histograms are merged exactly, or raise the limit",
        needed - most,
        total.div_ceil(room)
    );
    Ok(())
}

/// Processor time of one core or of all, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticks {
    /// Spent on anything.
    pub busy: u64,
    /// Left over.
    pub idle: u64,
    /// Taken by the host.
    pub steal: u64,
}

impl Ticks {
    /// Of the whole machine, and of each of its cores by number.
    pub fn read() -> (Self, BTreeMap<usize, Self>) {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn parse(stat: &str) -> (Self, BTreeMap<usize, Self>) {
        let (mut whole, mut cores) = (Self::default(), BTreeMap::new());
        for line in stat.lines() {
            let Some((name, rest)) = line.strip_prefix("cpu").and_then(|rest| rest.split_once(' ')) else { continue };
            let ticks: Vec<u64> = rest.split_whitespace().filter_map(|field| field.parse().ok()).collect();
            let at = |nth: usize| ticks.get(nth).copied().unwrap_or(0);
            let ticks = Self { busy: at(0) + at(1) + at(2) + at(5) + at(6), idle: at(3) + at(4), steal: at(7) };
            match name.parse() {
                Ok(core) => drop(cores.insert(core, ticks)),
                Err(_) => whole = ticks,
            }
        }
        (whole, cores)
    }

    /// What passed since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(earlier.busy),
            idle: self.idle.saturating_sub(earlier.idle),
            steal: self.steal.saturating_sub(earlier.steal),
        }
    }

    /// Shares of the time: busy and stolen.
    pub fn shares(self) -> (f64, f64) {
        let all = (self.busy + self.idle + self.steal).max(1) as f64;
        (self.busy as f64 / all, self.steal as f64 / all)
    }
}

/// What was done on some cores, in cores' worth of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CoreWork {
    /// Which.
    pub cores: Vec<usize>,
    /// By anybody.
    pub busy: f64,
    /// By whom they are meant for.
    pub own: f64,
}

impl CoreWork {
    /// By others.
    pub fn foreign(&self) -> f64 {
        (self.busy - self.own).max(0.0)
    }
}

/// The commit that the working directory is at, where it is one; for the record.
pub fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if !Path::new(".git").exists() {
        return None;
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    Some(if changed { format!("{commit} with changes") } else { commit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let machine = Machine::read();
        assert!(machine.kernel.starts_with("Linux ") && machine.cores > 0 && machine.memory > 0, "{machine:?}");
    }

    #[test]
    fn a_process_and_its_session_are_nice_by_themselves() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 30 12 0 0 20 -5 1 0";
        let nice = Nice::parse(stat, "/autogroup-2036 nice 3\n").unwrap();
        assert_eq!(nice, Nice { own: -5, group: Some(3) });
        assert_eq!(nice.to_string(), "nice -5 in a session of nice 3");
        assert_eq!(Nice::parse(stat, "").unwrap().to_string(), "nice -5");
        assert!(Nice::of(std::process::id()).is_some() && Nice::parse("", "").is_none());
    }

    #[test]
    fn ticks_are_read_per_core() {
        let stat = "cpu  10 1 5 80 4 1 3 2 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        let (whole, cores) = Ticks::parse(stat);
        assert_eq!(whole, Ticks { busy: 20, idle: 84, steal: 2 });
        assert_eq!(cores, BTreeMap::from([(0, Ticks { busy: 19, idle: 9, steal: 8 })]));
    }

    #[test]
    fn too_many_connections_for_one_process_are_refused_with_how_many_to_run() {
        let Some(most) = getrlimit(Resource::Nofile).maximum else { return };
        let error = raise_descriptors(most * 3, 1).unwrap_err().to_string();
        assert!(error.contains("--processes 4") && error.contains("missing"), "{error}");
    }
}
