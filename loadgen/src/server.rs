//! The server's side of a run, as far as the system shows it: processor time, memory, cores. Of the process that is named and all that it has started: a
//! server with processes for its workers, or with a proxy before it, is all of them.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::Pid,
    thread::sched_getaffinity,
};
use serde::{Deserialize, Serialize};

use crate::{
    dial::Stream,
    machine::{CoreWork, Nice},
    target::Url,
    tls::{self, Peer},
};

/// A process under observation.
pub struct Server {
    pid: u32,
    /// Where it tells its own counters, and what they were at first and last.
    metrics: Option<(Url, Option<Peer>)>,
    counters: Option<(Counters, Counters)>,
    threads: Threads,
    first: Option<(Sample, Threads)>,
    latest: Sample,
    resident_max: u64,
    resident_before: u64,
    resident_joined: u64,
}

/// What each thread was last seen to have used, by its number. One that has ended keeps that.
type Threads = HashMap<u32, Work>;

/// What a thread has used since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Work {
    cpu_ns: u64,
    /// It could have worked, and had no core; none where the kernel doesn't tell.
    waited_ns: Option<u64>,
}

/// What the process had used at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at: u64,
    cpu_ns: u64,
    resident: u64,
}

/// What a server counts itself, in Prometheus' text format: the sums of what ends in `_sends_total` and
/// `_deliveries_total`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counters {
    sends: f64,
    deliveries: f64,
}

/// What the server used during the measured part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServerFigures {
    /// The observed process, with those that it has started.
    pub pid: u32,
    /// Processor time, all threads together.
    pub cpu_ns: u64,
    /// The same for each delivery.
    pub cpu_ns_per_delivery: f64,
    /// Cores' worth of processor time.
    pub cores_busy: f64,
    /// Busy share of its busiest thread; none in results of versions that didn't look.
    #[serde(default)]
    pub busiest_thread: Option<f64>,
    /// Threads' worth of time in which they could have worked and had no core; none where the kernel doesn't tell.
    #[serde(default)]
    pub waited: Option<f64>,
    /// What was done on its cores, by whomever; none where the generator may run on them, too.
    #[serde(default)]
    pub work: Option<CoreWork>,
    /// Resident bytes before the first connection.
    pub resident_before: u64,
    /// With all connections up, before anything was published.
    pub resident_joined: u64,
    /// The most that was seen.
    pub resident_max: u64,
    /// Cores that its threads may run on.
    pub cores: Vec<usize>,
    /// How it was favoured by the scheduler.
    #[serde(default)]
    pub nice: Option<Nice>,
    /// Calls of `send` for each delivery, as the server counts them; none where it doesn't tell.
    #[serde(default)]
    pub sends_per_delivery: Option<f64>,
}

impl Server {
    /// Observes a process, and what it tells at `metrics`; refused where there is none of that number, or it doesn't.
    pub fn observe(pid: u32, metrics: Option<&str>, tls: &tls::Settings) -> Result<Self> {
        let mut threads = Threads::new();
        let latest = Sample::take(pid, crate::clock::now(), &mut threads);
        ensure!(latest.resident > 0, "--server-pid {pid}: no such process can be seen here");
        let metrics = metrics.map(|text| counters_at(text, tls)).transpose()?;
        Ok(Self {
            pid,
            metrics,
            counters: None,
            threads,
            first: None,
            latest,
            resident_max: latest.resident,
            resident_before: latest.resident,
            resident_joined: latest.resident,
        })
    }

    /// All connections are up.
    pub fn joined(&mut self, now: u64) {
        self.sample(now);
        self.resident_joined = self.latest.resident;
    }

    /// The measured part begins.
    pub fn begin(&mut self, now: u64) {
        self.sample(now);
        self.first = Some((self.latest, self.threads.clone()));
        self.counters = self.count().map(|counters| (counters, counters));
    }

    /// The measured part is over.
    pub fn end(&mut self, now: u64) {
        self.sample(now);
        if let (Some(last), Some((_, latest))) = (self.count(), &mut self.counters) {
            *latest = last;
        }
    }

    fn count(&self) -> Option<Counters> {
        let (url, peer) = self.metrics.as_ref()?;
        Counters::read(url, peer.as_ref()).ok()
    }

    /// Looks again.
    pub fn sample(&mut self, now: u64) {
        let sample = Sample::take(self.pid, now, &mut self.threads);
        // A process that has gone leaves what was last seen of it.
        if sample.resident > 0 {
            self.latest = sample;
            self.resident_max = self.resident_max.max(sample.resident);
        }
    }

    /// The whole measured part's figures.
    pub fn figures(&self, deliveries: u64) -> ServerFigures {
        let begun = self.first.as_ref();
        let first = begun.map_or(self.latest, |(first, _)| *first);
        let cpu_ns = self.latest.cpu_ns.saturating_sub(first.cpu_ns);
        let wall = self.latest.at.saturating_sub(first.at).max(1) as f64;
        let share = |ns: u64| ns as f64 / wall;
        let threads = begun.map(|(_, before)| since(before, &self.threads)).unwrap_or_default();
        ServerFigures {
            pid: self.pid,
            cpu_ns,
            cpu_ns_per_delivery: cpu_ns as f64 / deliveries.max(1) as f64,
            cores_busy: share(cpu_ns),
            busiest_thread: threads.iter().map(|work| share(work.cpu_ns)).reduce(f64::max),
            waited: threads.iter().map(|work| work.waited_ns).sum::<Option<u64>>().map(share),
            work: None,
            resident_before: self.resident_before,
            resident_joined: self.resident_joined,
            resident_max: self.resident_max,
            cores: self.cores().into_iter().collect(),
            nice: Nice::of(self.pid),
            sends_per_delivery: self.counters.and_then(|(first, last)| first.sends_per_delivery(last)),
        }
    }

    /// Cores that any of its threads may run on.
    pub fn cores(&self) -> BTreeSet<usize> {
        let tasks = family(self.pid).into_iter().flat_map(tasks);
        tasks.filter_map(|task| Pid::from_raw(task as i32)).flat_map(|task| cores_of(Some(task))).collect()
    }
}

impl ServerFigures {
    /// Whether it had no more to give: a thread that worked all the time, or no time left on any of its cores. Where nothing is known of
    /// threads and cores, it is taken to have one.
    pub fn is_saturated(&self) -> bool {
        self.busy() >= SATURATED
    }

    /// How near it was to its limit: the busy share of its busiest thread, or of all of its cores where that is more.
    pub fn busy(&self) -> f64 {
        let cores = self.cores_busy / self.cores.len().max(1) as f64;
        self.busiest_thread.map_or(cores, |thread| thread.max(cores))
    }
}

/// A thread, or a core, with less than this to spare is a limit.
const SATURATED: f64 = 0.95;

/// What each thread did after it was `before`; those that began since have done all of theirs.
fn since(before: &Threads, now: &Threads) -> Vec<Work> {
    let one = |(task, work): (&u32, &Work)| {
        let before = before.get(task).copied().unwrap_or_default();
        let waited = work.waited_ns.map(|waited| waited.saturating_sub(before.waited_ns.unwrap_or(0)));
        Work { cpu_ns: work.cpu_ns.saturating_sub(before.cpu_ns), waited_ns: waited }
    };
    now.iter().map(one).collect()
}

/// Cores that a thread may run on; none is the calling one.
pub fn cores_of(thread: Option<Pid>) -> Vec<usize> {
    match sched_getaffinity(thread) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect(),
        Err(_) => Vec::new(),
    }
}

/// The environment variable with what a server wants to be shown before it tells its counters. No flag: flags are in what a run is
/// reported with.
const TOKEN: &str = "STENTOR_ADMIN_TOKEN";

/// Where the counters are, if they are there.
fn counters_at(text: &str, tls: &tls::Settings) -> Result<(Url, Option<Peer>)> {
    let url = Url::parse_http(text).context("--server-metrics")?;
    let [peer] = Peer::of(tls, [Some(&url)])?;
    Counters::read(&url, peer.as_ref()).with_context(|| format!("--server-metrics {text}"))?;
    Ok((url, peer))
}

impl Counters {
    fn read(url: &Url, peer: Option<&Peer>) -> Result<Counters> {
        let mut stream = Stream::connect(url.address()?, peer, Duration::from_secs(2))?;
        // In one piece: a server may answer, and hang up, after the first that it gets.
        let token = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            bail!("{TOKEN}: expected one word of visible ASCII, found something else");
        }
        let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{bearer}\r\n", url.path, url.host);
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.lines().next().unwrap_or_default();
        if matches!(status.split(' ').nth(1), Some("401" | "403")) {
            bail!("{status}: its token for operators goes into {TOKEN}");
        }
        Counters::parse(&answer).context("its answer holds no line like NAME_sends_total 1 and NAME_deliveries_total 1")
    }

    fn parse(text: &str) -> Option<Counters> {
        let sum = |ending: &str| {
            let named = |line: &&str| line.split([' ', '{']).next().is_some_and(|name| name.ends_with(ending));
            let values = text.lines().filter(named).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
            values.reduce(|sum, value| sum + value)
        };
        Some(Counters { sends: sum("_sends_total")?, deliveries: sum("_deliveries_total")? })
    }

    fn sends_per_delivery(self, last: Counters) -> Option<f64> {
        let deliveries = last.deliveries - self.deliveries;
        (deliveries > 0.0).then(|| (last.sends - self.sends) / deliveries)
    }
}

impl Sample {
    fn take(pid: u32, at: u64, threads: &mut Threads) -> Self {
        let mut resident = 0;
        for pid in family(pid) {
            let process = PathBuf::from(format!("/proc/{pid}"));
            let pages = fs::read_to_string(process.join("statm")).unwrap_or_default();
            resident += pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
            for task in tasks(pid) {
                // One that ends between the listing and here is one that has ended.
                if let Some(work) = Work::of(&process.join(format!("task/{task}"))) {
                    threads.insert(task, work);
                }
            }
        }
        let cpu_ns = threads.values().map(|work| work.cpu_ns).sum();
        Self { at, cpu_ns, resident: resident * page_size() as u64 }
    }
}

impl Work {
    /// Of the thread with this folder below /proc: to the nanosecond where the scheduler keeps it, else in clock ticks.
    fn of(task: &Path) -> Option<Self> {
        let exact = fs::read_to_string(task.join("schedstat")).ok();
        exact.and_then(|text| Self::exact(&text)).or_else(|| Self::coarse(&fs::read_to_string(task.join("stat")).ok()?))
    }

    fn exact(schedstat: &str) -> Option<Self> {
        let mut fields = schedstat.split_whitespace().map_while(|field| field.parse().ok());
        Some(Self { cpu_ns: fields.next()?, waited_ns: Some(fields.next()?) })
    }

    fn coarse(stat: &str) -> Option<Self> {
        // The command's name, in brackets, may hold anything: fields are counted from its end.
        let (_, fields) = stat.rsplit_once(") ")?;
        let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Some(Self { cpu_ns: ticks * (1_000_000_000 / clock_ticks_per_second()), waited_ns: None })
    }
}

/// Processes that are looked at, at most.
const FAMILY_MAX: usize = 256;

/// A process and all that it has started, and these in turn; it alone where the kernel doesn't tell.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while at < all.len() && all.len() < FAMILY_MAX {
        let children = |task| fs::read_to_string(format!("/proc/{}/task/{task}/children", all[at]));
        let found: Vec<u32> = tasks(all[at])
            .filter_map(|task| children(task).ok())
            .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
            .collect();
        all.extend(found);
        at += 1;
    }
    all
}

fn tasks(pid: u32) -> impl Iterator<Item = u32> {
    let listing = fs::read_dir(format!("/proc/{pid}/task"));
    listing.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::clock;

    #[test]
    fn work_and_memory_of_a_process_are_seen() {
        let mut server = Server::observe(std::process::id(), None, &tls::Settings::default()).unwrap();
        server.begin(clock::now());
        let begin = clock::thread_cpu();
        while clock::thread_cpu() < begin + 30_000_000 {
            std::hint::spin_loop();
        }
        server.sample(clock::now());
        let figures = server.figures(1000);
        assert!(figures.cpu_ns >= 10_000_000, "{figures:?}");
        assert!(figures.resident_max > 0 && !figures.cores.is_empty(), "{figures:?}");
    }

    #[test]
    fn what_a_process_has_started_is_seen_with_it() {
        let script = "sh -c 'echo up; while :; do :; done' & wait";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut up = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        let mut server = Server::observe(child.id(), None, &tls::Settings::default()).unwrap();
        server.begin(clock::now());
        let family = family(child.id());
        while server.figures(1).cpu_ns < 10_000_000 {
            server.sample(clock::now());
        }
        for pid in family.iter().skip(1).filter_map(|pid| Pid::from_raw(*pid as i32)) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        child.wait().unwrap();
        assert!(family.len() == 2, "{family:?}");
    }

    #[test]
    fn a_server_is_saturated_by_one_thread_or_by_all_of_its_cores_and_by_nothing_less() {
        let saturated = |cores: usize, cores_busy: f64, busiest_thread: Option<f64>| {
            let cores = (0..cores).collect();
            ServerFigures { cores, cores_busy, busiest_thread, ..ServerFigures::default() }.is_saturated()
        };
        assert!(!saturated(4, 0.96, Some(0.24)) && !saturated(4, 0.96, None));
        assert!(saturated(4, 1.2, Some(0.97)));
        // Threads of a runtime that take turns: none works all the time, and no core has any left.
        assert!(saturated(2, 1.95, Some(0.5)));
        assert!(saturated(1, 0.96, None) && saturated(0, 0.96, None));
    }

    #[test]
    fn what_threads_worked_and_waited_counts_from_the_beginning_and_of_new_ones_all() {
        let work = |cpu_ns, waited| Work { cpu_ns, waited_ns: Some(waited) };
        let before = Threads::from([(1, work(100, 10))]);
        let now = Threads::from([(1, work(150, 10)), (2, work(30, 4))]);
        let mut done = since(&before, &now);
        done.sort_by_key(|work| work.cpu_ns);
        assert_eq!(done, [work(30, 4), work(50, 0)]);
    }

    #[test]
    fn a_threads_work_is_read_from_either_of_its_files() {
        assert_eq!(Work::exact("12 34 5\n"), Some(Work { cpu_ns: 12, waited_ns: Some(34) }));
        assert_eq!(Work::exact(""), None);
        let tick = 1_000_000_000 / clock_ticks_per_second();
        let stat = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 30 12 0 0 20 0 1 0";
        assert_eq!(Work::coarse(stat), Some(Work { cpu_ns: 42 * tick, waited_ns: None }));
    }

    #[test]
    fn a_process_that_is_not_there_is_refused() {
        assert!(Server::observe(u32::MAX >> 1, None, &tls::Settings::default()).is_err());
    }

    #[test]
    fn sends_are_summed_over_workers_and_counted_for_each_delivery() {
        let text = |sends: u32| {
            format!(
                "# HELP x_sends_total x\nx_sends_total{{worker=\"0\"}} {sends}\nx_sends_total{{worker=\"1\"}} 5\n\
                 x_sends_full_total 9\nx_deliveries_total {}\n",
                sends * 4
            )
        };
        let (first, last) = (Counters::parse(&text(10)).unwrap(), Counters::parse(&text(30)).unwrap());
        assert_eq!(first, Counters { sends: 15.0, deliveries: 40.0 });
        assert_eq!(first.sends_per_delivery(last), Some(0.25));
        assert_eq!(first.sends_per_delivery(first), None);
        assert_eq!(Counters::parse("x_sends_total 1\n"), None);
    }
}
