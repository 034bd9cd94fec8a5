//! The tally: adds up what the threads report, second by second and in all, and makes the run's figures of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    clock::{self, Quality},
    doubts,
    figures::{
        ClassFigures, Distribution, GeneratorFigures, HandedFigures, IntervalFigures, PhaseFigures, Run, TlsFigures,
        WireFigures,
    },
    machine::{CoreWork, Nice, Ticks},
    meter::{Checks, Interval, Meter, Times, add, times},
    publisher::{Ended, Published},
    server::{Server, ServerFigures, cores_of},
    shared::Shared,
    spec::{Scenario, Spec},
    tls, units,
    watch::Watcher,
};

/// What is known so far.
pub struct Tally {
    total: Interval,
    seconds: BTreeMap<i64, Second>,
    made: u64,
    per_thread_busy: Vec<(u64, u64)>,
    /// The most that a thread worked while it set connections up whose time is measured.
    connecting_busy: f64,
    connects: bool,
    checks: Checks,
    published: Option<Published>,
    server: Option<Server>,
    /// Threads that have handed in their results.
    pub done: usize,
    threads: usize,
    open_loop: bool,
    measured_seconds: i64,
    connected: (usize, u64),
    deserted: Option<String>,
    stopped: bool,
    looked_at: u64,
    begin: Option<Mark>,
    end: Option<Mark>,
}

/// What happened in one second.
struct Second {
    /// Threads that have told theirs.
    reported: usize,
    /// Publications that were made meanwhile, so far as this process makes them.
    publications: u64,
    sum: Interval,
}

/// The machine at one moment.
struct Mark {
    at: u64,
    all: Ticks,
    cores: BTreeMap<usize, Ticks>,
    /// Processor time of this process.
    own: u64,
    wall_offset: i64,
}

impl Mark {
    fn take() -> Self {
        let (all, cores) = Ticks::read();
        Self { at: clock::now(), all, cores, own: clock::process_cpu(), wall_offset: clock::wall_offset() }
    }
}

impl Tally {
    /// Nothing yet.
    pub fn new(shared: &Shared, server: Option<Server>) -> Self {
        let spec = &shared.spec;
        let mut tally = Self {
            total: Interval::new(-1, u64::MAX, shared.classes.labels.len()),
            seconds: BTreeMap::new(),
            made: 0,
            per_thread_busy: Vec::new(),
            connecting_busy: 0.0,
            connects: spec.scenario == Scenario::Connect,
            checks: Checks::default(),
            published: None,
            server,
            done: 0,
            threads: spec.receivers(),
            open_loop: spec.is_open_loop(),
            measured_seconds: (spec.duration.seconds().floor() as i64).max(1),
            connected: (0, 0),
            deserted: None,
            stopped: false,
            looked_at: 0,
            begin: None,
            end: None,
        };
        tally.per_thread_busy.resize(spec.receivers(), (0, 0));
        tally
    }

    /// The ramp is over: so many connections took so long.
    pub fn opened(&mut self, live: usize, took: u64) {
        self.connected = (live, took);
    }

    /// All connections are up and nothing was published yet.
    pub fn joined(&mut self) {
        if let Some(server) = &mut self.server {
            server.joined(clock::now());
        }
    }

    /// The measured part begins.
    pub fn begin(&mut self) {
        self.begin = Some(Mark::take());
        if let Some(server) = &mut self.server {
            server.begin(clock::now());
        }
    }

    /// Everything is in.
    pub fn end(&mut self, stopped: bool) {
        self.stopped |= stopped;
        self.end = Some(Mark::take());
        if let Some(server) = &mut self.server {
            server.end(clock::now());
        }
    }

    /// Looks at the server, at most ten times a second.
    pub fn look(&mut self) {
        let now = clock::now();
        if let (Some(server), true) = (&mut self.server, now >= self.looked_at + 100_000_000) {
            self.looked_at = now;
            server.sample(now);
        }
    }

    /// What the publisher did.
    pub fn published(&mut self, published: Published) {
        self.checks.add(&published.checks);
        self.published = Some(published);
    }

    /// All subscribers are gone.
    pub fn deserted(&mut self, why: String) {
        self.deserted.get_or_insert(why);
    }

    /// One thread's checks.
    pub fn checks(&mut self, checks: &Checks) {
        self.done += 1;
        self.checks.add(checks);
    }

    /// One thread's interval, when so many publications were made; the second is shown when it is complete.
    pub fn interval(&mut self, thread: usize, interval: Interval, made: u64, watcher: &mut dyn Watcher) {
        self.total.add(&interval);
        if !interval.rejoins.is_empty() || (self.connects && !interval.joins.is_empty()) {
            let wall = (interval.end - interval.begin).max(1) as f64;
            self.connecting_busy = self.connecting_busy.max(interval.cpu_ns as f64 / wall);
        }
        let empty = interval.deliveries() + interval.joins.len() + interval.rejoins.len() == 0;
        if interval.index < 0 || (interval.index >= self.measured_seconds && empty) {
            return;
        }
        if interval.index < self.measured_seconds {
            let (cpu, wall) = &mut self.per_thread_busy[thread];
            *cpu += interval.cpu_ns;
            *wall += interval.end - interval.begin;
        }
        let second = self.seconds.entry(interval.index).or_insert_with(|| Second {
            reported: 0,
            publications: 0,
            sum: Interval::new(interval.index, interval.begin, interval.classes.len()),
        });
        second.sum.add(&interval);
        second.reported += 1;
        if second.reported == self.threads {
            second.publications = made - std::mem::replace(&mut self.made, made);
            watcher.interval(&figures_of(second), self.open_loop);
        }
    }

    /// The figures of the whole run.
    pub fn run(self, shared: &Shared, url: String, label: &str) -> Run {
        let classes = self.classes(shared);
        let deliveries = self.total.deliveries();
        let mut run = Run {
            name: url.clone(),
            version: None,
            target: url,
            label: label.to_owned(),
            doubts: Vec::new(),
            faults: self.checks.faults(),
            ended: self.ended(shared),
            stopped: self.stopped,
            notes: Vec::new(),
            open_loop: self.open_loop,
            seconds: self.seconds_measured(shared),
            planned_seconds: Some((shared.classes.end_at() - shared.classes.measured_at()) as f64 / 1e9),
            connected: self.connected.0 as u64,
            connections_per_s: self.connected.0 as f64 * 1e9 / self.connected.1.max(1) as f64,
            publications: self.published.as_ref().map_or(0, |published| published.measured),
            deliveries,
            bytes: self.total.classes.iter().map(|class| class.bytes).sum(),
            wire: Some(self.wire()),
            segments: self.total.segments,
            round: None,
            classes,
            spread: Distribution::of(&self.total.spread),
            spread_unknown: shared.flights.given_up(),
            joins: Distribution::of(&self.total.joins),
            rejoins: Distribution::of(&self.total.rejoins),
            phases: self.total.phases.as_deref().map(PhaseFigures::of),
            server: self.server.as_ref().map(|server| self.served(server.figures(deliveries))),
            generator: self.generator(deliveries, &shared.spec),
            intervals: self.seconds.values().map(figures_of).collect(),
            checks: self.checks.clone(),
        };
        run.doubts = doubts::of(&run);
        run.notes = doubts::notes(&run);
        run
    }

    fn classes(&self, shared: &Shared) -> Vec<ClassFigures> {
        let labelled = shared.classes.labels.iter().zip(&self.total.classes).enumerate();
        let made = |class: usize| self.published.as_ref().and_then(|done| done.classes.get(class)).copied();
        let figures = |(class, (label, meter)): (usize, (&String, &Meter))| ClassFigures {
            label: label.clone(),
            publications: made(class).unwrap_or(0),
            latency: Distribution::of(&meter.latency),
            sent: Distribution::of(&meter.sent),
            handed: meter.handed.as_deref().map(HandedFigures::of),
            bytes: meter.bytes,
        };
        labelled.map(figures).collect()
    }

    /// From the beginning of the measured part to its planned end, or to the last delivery where that came later.
    fn seconds_measured(&self, shared: &Shared) -> f64 {
        let begin = shared.classes.measured_at();
        let last = self.sums().filter(|sum| sum.deliveries() > 0).map(|sum| sum.last_delivery).max();
        let end = last.or_else(|| self.sums().map(|sum| sum.end).max()).unwrap_or(begin);
        let cut_short = self.stopped || self.published.as_ref().is_none_or(|published| published.ended.is_some());
        let end = if cut_short { end } else { end.max(shared.classes.end_at()) };
        end.saturating_sub(begin).max(1) as f64 / 1e9
    }

    fn sums(&self) -> impl Iterator<Item = &Interval> {
        self.seconds.values().map(|second| &second.sum)
    }

    fn wire(&self) -> WireFigures {
        self.sums().fold(WireFigures::default(), |all, sum| WireFigures {
            bytes: all.bytes + sum.wire_bytes,
            clear_bytes: all.clear_bytes + sum.clear_bytes,
            deliveries: all.deliveries + sum.received,
        })
    }

    fn ended(&self, shared: &Shared) -> Option<String> {
        let after = clock::now().saturating_sub(shared.classes.measured_at()) as f64;
        let gone = |why: &str| {
            format!("the server was gone before the end ({why}); the figures are of what was done until then")
        };
        match (&self.deserted, self.published.as_ref().and_then(|published| published.ended.as_ref())) {
            (_, Some(Ended::Server(why))) => Some(gone(why)),
            (Some(why), _) => Some(gone(why)),
            (None, Some(Ended::Stuck(count))) => Some(format!(
                "{count} publications never reached everybody, so the window stood still; given up {} after the \
                 measured part began",
                units::time(after)
            )),
            (None, Some(Ended::Stopped) | None) => None,
        }
    }

    fn generator(&self, deliveries: u64, spec: &Spec) -> GeneratorFigures {
        let cpu: u64 = self.sums().map(|sum| sum.cpu_ns).sum();
        let reads: u64 = self.sums().map(|sum| sum.reads).sum();
        let published = self.published.as_ref();
        let busy = |&(cpu, wall): &(u64, u64)| cpu as f64 / wall.max(1) as f64;
        let of = |times: Option<&Times>| times.map_or_else(Distribution::default, Distribution::of);
        let ((machine_busy, steal), step) = match (&self.begin, &self.end) {
            (Some(begin), Some(end)) => (end.all.since(begin.all).shares(), end.wall_offset - begin.wall_offset),
            _ => ((0.0, 0.0), 0),
        };
        // Unpinned, its threads are wherever there is room.
        let pinned = (!spec.cores.is_empty())
            .then(|| spec.cores.iter().copied().chain(spec.publisher_cores.iter().copied()).collect());
        let own = |begin: &Mark, end: &Mark| (end.own - begin.own) as f64 / (end.at - begin.at).max(1) as f64;
        GeneratorFigures {
            receivers_busy: self.per_thread_busy.iter().map(busy).collect(),
            publisher_busy: published.map_or(0.0, Published::busy),
            receive_ns: cpu as f64 / deliveries.max(1) as f64,
            deliveries_per_read: deliveries as f64 / reads.max(1) as f64,
            slip: of(published.map(|published| &published.slip)),
            held_up: of(published.map(|published| &published.held_up)),
            backlog_bytes: self.sums().map(|sum| sum.backlog_bytes).max().unwrap_or(0),
            cores: cores_of(None),
            nice: Nice::of(std::process::id()),
            publisher_real_time: published.is_some_and(|published| published.real_time),
            clock: Quality { wall_step_ns: step, ..Quality::measure() },
            steal,
            machine_busy,
            work: pinned.and_then(|cores| self.work(cores, own)),
            connecting_busy: self.connecting_busy,
            tls: self.tls(deliveries),
        }
    }

    /// What TLS took here; none where nothing was spoken with it.
    fn tls(&self, deliveries: u64) -> Option<TlsFigures> {
        let publisher = self.published.as_ref().map_or(0.0, |published| share(published.tls.ns, published.cpu_ns));
        let all = self.total.tls;
        if all.full + all.resumed == 0 && publisher == 0.0 {
            return None;
        }
        // Where nothing is delivered, setting up is what is measured, which comes before.
        let measured = self.sums().fold((tls::Work::default(), 0, 0), |(mut work, cpu, reads), sum| {
            work.add(sum.tls);
            (work, cpu + sum.cpu_ns, reads + sum.reads)
        });
        let (work, cpu, reads) = if deliveries > 0 { measured } else { (all, self.total.cpu_ns, self.total.reads) };
        Some(TlsFigures {
            receivers: share(work.ns, cpu),
            publisher,
            ns_per_delivery: if deliveries > 0 { work.ns as f64 / deliveries as f64 } else { 0.0 },
            records_per_read: work.records as f64 / reads.max(1) as f64,
            full: all.full,
            resumed: all.resumed,
        })
    }

    /// The server's figures, with what was done on its cores, where those are none of the generator's.
    fn served(&self, figures: ServerFigures) -> ServerFigures {
        let (cores, own) = (figures.cores.iter().copied().collect::<BTreeSet<usize>>(), figures.cores_busy);
        let apart = !cores_of(None).iter().any(|core| cores.contains(core));
        let work = if apart { self.work(cores, |_, _| own) } else { None };
        ServerFigures { work, ..figures }
    }

    /// What was done on these cores in the measured part, `own` being whose they are.
    fn work(&self, cores: BTreeSet<usize>, own: impl Fn(&Mark, &Mark) -> f64) -> Option<CoreWork> {
        let (begin, end) = (self.begin.as_ref()?, self.end.as_ref()?);
        let busy = |core: &usize| Some(end.cores.get(core)?.since(*begin.cores.get(core)?).shares().0);
        let busy = cores.iter().map(busy).sum::<Option<f64>>()?;
        Some(CoreWork { cores: cores.into_iter().collect(), busy, own: own(begin, end) })
    }
}

/// Of a time on the clock, so never more than all of it.
fn share(ns: u64, cpu_ns: u64) -> f64 {
    (ns as f64 / cpu_ns.max(1) as f64).min(1.0)
}

fn figures_of(Second { publications, sum, .. }: &Second) -> IntervalFigures {
    let mut latency = times();
    for class in &sum.classes {
        add(&mut latency, &class.latency);
    }
    IntervalFigures {
        index: sum.index.max(0) as u64,
        seconds: (sum.end - sum.begin) as f64 / 1e9,
        deliveries: sum.deliveries(),
        publications: *publications,
        bytes: sum.wire_bytes,
        joined: sum.joins.len() + sum.rejoins.len(),
        latency: Distribution::of(&latency),
    }
}
