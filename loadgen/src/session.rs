//! A session: one run from the first connection to the figures.
//!
//! The steps, in order: threads start; connections ramp up; the publisher connects; a start is agreed on; warm-up and
//! measured publications go out by the plan; stragglers are waited for, within bounds; the threads hand in what they
//! found. The coordinating thread only waits for reports and looks at the server once a second.

mod crew;
mod tally;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use crossbeam_channel::{Receiver as Inbox, RecvTimeoutError, TryRecvError, bounded};

use self::{
    crew::{Crew, spawn, stay_on},
    tally::Tally,
};
use crate::{
    clock,
    conduct::Conduct,
    dialect::Dialect,
    figures::Run,
    flights::Flights,
    line::Line,
    machine,
    publisher::{self, Ended, Outlet, Published},
    receiver::{INTERVAL_NS, Order, Report, recent_room},
    schedule::{Capture, Plan},
    server::Server,
    shared::{Classes, Shared},
    spec::{Scenario, Spec},
    target::Sources,
    tls::Peer,
    watch::Watcher,
    watchlist::WatchLists,
};

/// Everything that a run needs beside its settings.
#[derive(Clone)]
pub struct Setting {
    /// The way of speaking, with the target's address.
    pub dialect: Dialect,
    /// What a replay publishes.
    pub capture: Option<Arc<Capture>>,
    /// The run's own number, common to all of its parts.
    pub run: u32,
}

/// Runs `spec` against one server.
pub fn run(
    spec: &Spec,
    setting: Setting,
    label: &str,
    conduct: &mut dyn Conduct,
    watcher: &mut dyn Watcher,
    stop: &Arc<std::sync::atomic::AtomicBool>,
) -> Result<Run> {
    let shared = Arc::new(prepare(spec, &setting)?);
    stay_on(&spec.cores)?;
    let server =
        spec.server_pid.map(|pid| Server::observe(pid, spec.server_metrics.as_deref(), &spec.tls)).transpose()?;
    let crew = Crew::start(&shared)?;
    let mut session = Session {
        tally: Tally::new(&shared, server),
        lines: Vec::new(),
        deserted: 0,
        stop: Arc::clone(stop),
        crew,
        shared,
        capture: setting.capture,
    };
    let outcome = session.conduct(conduct, watcher);
    session.shared.stop.store(true, Ordering::Relaxed);
    session.crew.end();
    let url = session.shared.dialect.subscribe_url().to_string();
    outcome.with_context(|| format!("against {url}"))?;
    Ok(session.tally.run(&session.shared, url, label))
}

/// Refuses settings that the machine does not allow.
pub fn check(spec: &Spec, dialect: &Dialect) -> Result<()> {
    spec.check(dialect)?;
    let (first, count) = spec.share_of_subs();
    Peer::of(&spec.tls, [Some(dialect.subscribe_url()), Some(dialect.publish_url())])?;
    let outlets = if dialect.one_topic_per_publisher() { spec.topics } else { spec.publishers };
    machine::raise_descriptors((count + outlets) as u64, spec.part.of)?;
    Sources::plan(dialect.subscribe_url().address()?, &spec.sources, first, count).map(|_| ())
}

/// Makes what the threads share.
fn prepare(spec: &Spec, setting: &Setting) -> Result<Shared> {
    check(spec, &setting.dialect)?;
    let (first, count) = spec.share_of_subs();
    let target = setting.dialect.subscribe_url().address()?;
    let plan = Plan::new(spec, setting.capture.clone());
    let [peer] = Peer::of(&spec.tls, [Some(setting.dialect.subscribe_url())])?;
    let lists = WatchLists::new(spec);
    Ok(Shared {
        spec: spec.clone(),
        dialect: setting.dialect.clone(),
        target,
        peer,
        sources: Sources::plan(target, &spec.sources, first, count)?,
        classes: Classes::new(spec, &plan),
        flights: Flights::new(recent_room(spec)).context("making an event descriptor")?,
        published: (0..spec.topics).map(|_| Default::default()).collect(),
        made: Default::default(),
        listeners: Shared::listeners_of(spec, &lists),
        fans: Shared::fans_of(spec, &lists),
        lists,
        run: setting.run,
        unpublished: Default::default(),
        stop: Default::default(),
    })
}

struct Session {
    shared: Arc<Shared>,
    capture: Option<Arc<Capture>>,
    crew: Crew,
    tally: Tally,
    lines: Vec<(usize, Arc<Line>)>,
    deserted: usize,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl Session {
    fn conduct(&mut self, conduct: &mut dyn Conduct, watcher: &mut dyn Watcher) -> Result<()> {
        if self.shared.spec.scenario == Scenario::Connect {
            self.tally.begin();
        }
        self.open(watcher)?;
        self.tally.joined();
        match self.shared.spec.scenario {
            Scenario::Connect => return self.hold(watcher),
            Scenario::Listen => {
                self.tally.begin();
                return self.hold(watcher);
            }
            _ => {}
        }
        if !self.shared.dialect.acknowledges() {
            // Nothing tells when such a server has taken the subscriptions in; warm-up shows whether it has.
            let until = clock::now() + self.shared.spec.settle.0;
            self.listen_until(until, watcher);
        }
        let outlets = self.outlets()?;
        let start = conduct.ready()?;
        self.shared.classes.start(start);
        self.crew.tell(&Order::Run);
        match outlets {
            Some(outlets) => self.publish(outlets, start, conduct, watcher),
            None => self.follow(conduct, watcher),
        }
    }

    /// Ramps the connections up.
    fn open(&mut self, watcher: &mut dyn Watcher) -> Result<()> {
        let from = clock::now();
        self.crew.tell(&Order::Connect(from));
        let (first, count) = self.shared.spec.share_of_subs();
        let of = (first..first + count).filter(|&nth| !self.shared.spec.joins_late(nth)).count();
        let mut progress = vec![(0, 0); self.shared.spec.receivers()];
        loop {
            self.check_stop()?;
            match self.crew.reports.recv_timeout(Duration::from_millis(200)) {
                Ok(Report::Opened { thread, live, failed, why }) => {
                    progress[thread] = (live, failed);
                    let (live, failed) = progress.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
                    watcher.opening(live, failed, of);
                    self.judge_opening(live, failed, of, why)?;
                    if live + failed == of {
                        self.tally.opened(live, clock::now() - from);
                        return Ok(());
                    }
                }
                Ok(report) => self.take(report, watcher)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the receiving threads are gone"),
            }
        }
    }

    /// A connection that fails ends the run, unless connecting is what is measured and some succeed.
    fn judge_opening(&self, live: usize, failed: usize, of: usize, why: Option<String>) -> Result<()> {
        let tolerant = self.shared.spec.scenario == Scenario::Connect && failed < of;
        match why {
            Some(why) if failed > 0 && !tolerant => bail!(
                "{why}. Until then {live} of {of} subscribers were connected{}",
                if failed > 1 { format!(" and {failed} had failed") } else { String::new() }
            ),
            _ => Ok(()),
        }
    }

    /// Keeps the connections for the measured time; what the server sends or closes meanwhile is counted.
    fn hold(&mut self, watcher: &mut dyn Watcher) -> Result<()> {
        self.shared.classes.start(clock::now());
        self.crew.tell(&Order::Run);
        self.listen_until(self.shared.classes.end_at(), watcher);
        self.collect(clock::now(), watcher)
    }

    /// The publisher's connections; none where another process publishes.
    fn outlets(&mut self) -> Result<Option<Vec<Outlet>>> {
        let spec = &self.shared.spec;
        if spec.part.index > 0 {
            return Ok(None);
        }
        Ok(Some(if spec.echoes() { self.echo_outlets()? } else { self.connect_outlets()? }))
    }

    fn connect_outlets(&self) -> Result<Vec<Outlet>> {
        let (spec, dialect) = (&self.shared.spec, &self.shared.dialect);
        let target = dialect.publish_url().address()?;
        let [peer] = Peer::of(&spec.tls, [Some(dialect.publish_url())])?;
        let count = if dialect.one_topic_per_publisher() { spec.topics } else { spec.publishers };
        let timeout = Duration::from_nanos(spec.timeout.0);
        // Topics take turns with the connections.
        let topics = |nth: usize| (nth % spec.topics..spec.topics).step_by(count).collect::<Vec<usize>>();
        let connect = |nth| Outlet::connect(target, peer.as_ref(), dialect, &topics(nth), timeout);
        (0..count).map(connect).collect::<Result<_>>().context("connecting a publisher")
    }

    fn echo_outlets(&mut self) -> Result<Vec<Outlet>> {
        while self.lines.len() < self.shared.spec.subs {
            match self.crew.reports.recv_timeout(Duration::from_nanos(self.shared.spec.timeout.0)) {
                Ok(Report::Line(nth, line)) => self.lines.push((nth, line)),
                Ok(_) => {}
                Err(_) => bail!("only {} of {} connections are there", self.lines.len(), self.shared.spec.subs),
            }
        }
        self.lines.sort_by_key(|&(nth, _)| nth);
        Ok(self.lines.drain(..).map(|(_, line)| Outlet::over(line)).collect())
    }

    /// The part that publishes: from the first publication to the last straggler.
    fn publish(
        &mut self,
        outlets: Vec<Outlet>,
        start: u64,
        conduct: &mut dyn Conduct,
        watcher: &mut dyn Watcher,
    ) -> Result<()> {
        let published = self.await_published(&self.publishers(outlets, start)?, watcher)?;
        let mut last: Vec<u32> = self.shared.published.iter().map(|last| last.load(Ordering::Acquire)).collect();
        conduct.published(&mut last)?;
        let ended = published.ended.clone();
        self.tally.published(published);
        let patience = match ended {
            None => self.shared.spec.drain.0,
            // Whoever stopped the run, or lost the server, does not wait for what may never come.
            Some(Ended::Stopped | Ended::Server(_)) => 500_000_000,
            Some(Ended::Stuck(_)) => 0,
        };
        self.collect(clock::now() + patience, watcher)
    }

    /// Starts the publishing threads, which share the connections out; each tells what it did.
    fn publishers(&self, outlets: Vec<Outlet>, start: u64) -> Result<Inbox<Published>> {
        let spec = &self.shared.spec;
        let threads = spec.publisher_threads;
        let (done, published) = bounded(threads);
        let mut shares: Vec<Vec<Outlet>> = (0..threads).map(|_| Vec::new()).collect();
        outlets.into_iter().enumerate().for_each(|(nth, outlet)| shares[nth % threads].push(outlet));
        for (thread, outlets) in shares.into_iter().enumerate() {
            let core = spec.publisher_cores.get(thread % spec.publisher_cores.len().max(1)).copied();
            let (shared, capture, done) = (Arc::clone(&self.shared), self.capture.clone(), done.clone());
            spawn(&format!("publisher-{thread}"), core, move || {
                // Where it may, the publisher goes first on its core, so that receiving does not make the schedule slip; see `priority.rs` for more.
                let _ = rustix::process::setpriority_process(None, PUBLISHER_NICE);
                publisher::run(shared, capture, outlets, (thread, threads), start, &done);
            })?;
        }
        Ok(published)
    }

    fn await_published(&mut self, published: &Inbox<Published>, watcher: &mut dyn Watcher) -> Result<Published> {
        let mut begun = false;
        let (mut sum, mut ended) = (Published::default(), 0);
        loop {
            let more = published.try_recv();
            let gone = matches!(more, Err(TryRecvError::Disconnected));
            if let Ok(published) = more {
                (sum, ended) = (if ended == 0 { published } else { sum.with(published) }, ended + 1);
            }
            if ended == self.shared.spec.publisher_threads {
                return Ok(sum);
            }
            ensure!(!gone, "a publishing thread broke");
            if !begun && clock::now() >= self.shared.classes.measured_at() {
                begun = true;
                self.tally.begin();
            }
            if self.stop.load(Ordering::Relaxed) || self.deserted == self.shared.spec.receivers() {
                self.shared.stop.store(true, Ordering::Relaxed);
            }
            self.tally.look();
            match self.crew.reports.recv_timeout(Duration::from_millis(10)) {
                Ok(report) => self.take(report, watcher)?,
                Err(RecvTimeoutError::Timeout) => {}
                // The receivers, deserted, have handed in their results before the publisher.
                Err(RecvTimeoutError::Disconnected) => {
                    let published =
                        published.recv_timeout(Duration::from_secs(5)).context("the publisher did not end")?;
                    (sum, ended) = (if ended == 0 { published } else { sum.with(published) }, ended + 1);
                }
            }
        }
    }

    /// A part that does not publish: waits until it hears what was published.
    fn follow(&mut self, conduct: &mut dyn Conduct, watcher: &mut dyn Watcher) -> Result<()> {
        self.listen_until(self.shared.classes.measured_at(), watcher);
        self.tally.begin();
        self.listen_until(self.shared.classes.end_at(), watcher);
        let mut last = vec![0; self.shared.spec.topics];
        conduct.published(&mut last)?;
        for (word, last) in self.shared.published.iter().zip(last) {
            word.store(last, Ordering::Release);
        }
        self.collect(clock::now() + self.shared.spec.drain.0, watcher)
    }

    fn listen_until(&mut self, until: u64, watcher: &mut dyn Watcher) {
        loop {
            let left = until.saturating_sub(clock::now());
            if left == 0 || self.stop.load(Ordering::Relaxed) || self.deserted == self.shared.spec.receivers() {
                return;
            }
            self.tally.look();
            let wait = Duration::from_nanos(left.min(INTERVAL_NS / 10));
            if let Ok(report) = self.crew.reports.recv_timeout(wait) {
                // A thread that broke is found again when the results are collected.
                let _ = self.take(report, watcher);
            }
        }
    }

    /// Has the threads finish, and takes in what they found.
    fn collect(&mut self, until: u64, watcher: &mut dyn Watcher) -> Result<()> {
        self.crew.tell(&Order::Finish(until));
        while self.tally.done < self.shared.spec.receivers() {
            let patience = until.saturating_sub(clock::now()) + 5_000_000_000;
            match self.crew.reports.recv_timeout(Duration::from_nanos(patience)) {
                Ok(report) => self.take(report, watcher)?,
                Err(_) => bail!("a receiving thread did not hand in its results"),
            }
        }
        self.tally.end(self.stop.load(Ordering::Relaxed));
        Ok(())
    }

    fn take(&mut self, report: Report, watcher: &mut dyn Watcher) -> Result<()> {
        match report {
            Report::Opened { .. } => {}
            Report::Line(nth, line) => self.lines.push((nth, line)),
            Report::Interval(thread, interval) => {
                let made = self.shared.made.load(Ordering::Relaxed);
                self.tally.interval(thread, *interval, made, watcher);
            }
            Report::Done(_, checks) => self.tally.checks(&checks),
            Report::Broken(why) => bail!(why),
            Report::Deserted(why) => {
                self.deserted += 1;
                if self.deserted == self.shared.spec.receivers() {
                    self.tally.deserted(why);
                }
            }
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            bail!("stopped while connecting");
        }
        Ok(())
    }
}

/// The publishing thread's niceness; raising it needs a privilege, and is done without where that is missing.
const PUBLISHER_NICE: i32 = -10;
