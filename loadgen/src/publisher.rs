//! The publisher: a thread that sends what is due when it is due, and measures by how much it fails to. Several share the topics out, so
//! that each topic's publications stay in their order; all go by the same plan, and each leaves out what is the others'.
//!
//! Open loop: the plan decides, and nothing that the server does moves it. A publication that is due while its
//! connection's socket is full waits in a queue with its planned time unchanged, so the wait becomes part of its
//! latency. Its stamp is written when it is handed to the kernel and not before, so the actual moment of sending is in
//! it too. What is late because the server did not take it is told apart from what is late because this thread was.
//!
//! In a window run there is no plan: publications go out whenever fewer than so many are under way, and are stamped
//! with the moment they went. Under way is what not everybody has; or, of a window that rolls, as many deliveries as so many
//! publications make.

mod http;
mod outlet;

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};

pub use self::outlet::Outlet;
use crate::{
    clock,
    flights::Until,
    line::Line,
    meter::{Checks, Times, add, times},
    priority,
    quotes::Quotes,
    schedule::{Capture, Due, Plan},
    shared::Shared,
    socket::{Interest, Poller},
    spec::Pace,
    stamp::{self, Body, Stamp},
    tls,
};

/// What the publisher tells when it is done.
pub struct Published {
    /// Publications made.
    pub count: u64,
    /// Those of the measured part.
    pub measured: u64,
    /// The same by class.
    pub classes: Vec<u64>,
    /// How late measured publications were sent, for reasons of the generator's.
    pub slip: Times,
    /// How late those were that waited for the server to take earlier ones.
    pub held_up: Times,
    /// Processor time used in the measured part.
    pub cpu_ns: u64,
    /// The measured part's actual length.
    pub wall_ns: u64,
    /// What was spent on TLS in it.
    pub tls: tls::Work,
    /// What its connections had to say.
    pub checks: Checks,
    /// Whether it went before all others on its core.
    pub real_time: bool,
    /// Why it ended early, where it did.
    pub ended: Option<Ended>,
    /// Its connections. A server may drop what it has not read of one that closes, so they stay open to the end.
    pub lines: Vec<Arc<Line>>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            count: 0,
            measured: 0,
            classes: Vec::new(),
            slip: times(),
            held_up: times(),
            cpu_ns: 0,
            wall_ns: 0,
            tls: tls::Work::default(),
            checks: Checks::default(),
            real_time: false,
            ended: None,
            lines: Vec::new(),
        }
    }
}

impl Published {
    /// With what another thread did. Its processor time is that of the busier one.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.count += other.count;
        self.measured += other.measured;
        self.classes.resize(self.classes.len().max(other.classes.len()), 0);
        self.classes.iter_mut().zip(&other.classes).for_each(|(sum, count)| *sum += count);
        add(&mut self.slip, &other.slip);
        add(&mut self.held_up, &other.held_up);
        if other.busy() > self.busy() {
            (self.cpu_ns, self.wall_ns, self.tls) = (other.cpu_ns, other.wall_ns, other.tls);
        }
        self.checks.add(&other.checks);
        self.real_time &= other.real_time;
        self.ended = match (self.ended, other.ended) {
            // One that was stopped was because of the other.
            (None | Some(Ended::Stopped), Some(why)) => Some(why),
            (why, _) => why,
        };
        self.lines.extend(other.lines);
        self
    }

    /// Busy share of the measured part.
    pub fn busy(&self) -> f64 {
        self.cpu_ns as f64 / self.wall_ns.max(1) as f64
    }
}

/// Why publishing ended before the plan did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// The run was stopped from outside.
    Stopped,
    /// The server is gone, for this reason.
    Server(String),
    /// The window did not move: so many publications never reached everybody.
    Stuck(u64),
}

/// The publishing thread's state.
struct Publisher {
    shared: Arc<Shared>,
    capture: Option<Arc<Capture>>,
    outlets: Vec<Outlet>,
    poller: Poller,
    /// Which of the publishing threads this is, and of how many.
    turn: (usize, usize),
    seqs: Vec<u32>,
    /// Publications of a window run that are sent or queued, and the deliveries that these make.
    number_due: u64,
    owed: u64,
    payload: Vec<u8>,
    quotes: Option<Quotes>,
    message: Vec<u8>,
    /// What comes over connections with TLS, before it is decrypted.
    records: Vec<u8>,
    report: Published,
    /// Processor time, the clock, and what was spent on TLS, when the measured part began.
    mark: Option<(u64, u64, tls::Work)>,
}

/// What may be under way in a run without a rate.
struct Window {
    /// Publications that not everybody has.
    publications: u64,
    /// Deliveries, where it rolls.
    deliveries: Option<u64>,
    /// Deliveries of a publication, on average.
    fan: u64,
}

impl Window {
    fn new(shared: &Shared, publications: u64) -> Self {
        let fan = shared.fans.iter().map(|fan| u64::from(*fan)).sum::<u64>() / shared.fans.len().max(1) as u64;
        if !shared.spec.rolling {
            return Self { publications, deliveries: None, fan };
        }
        // Further ahead of the slowest, publications would push each other out of the receivers' memory.
        let ahead = shared.flights.room() as u64 / 2;
        Self { publications: ahead, deliveries: Some(publications * fan.max(1)), fan }
    }
}

const WAKER: u64 = u64::MAX;

/// Bytes handed to the kernel at once where publications are behind.
const BATCH: usize = 64 * 1024;

/// A window that has not moved for this long never will.
const STUCK_NS: u64 = 5_000_000_000;

impl Publisher {
    /// A publisher on connections that are up. Topics take turns over the outlets.
    fn new(
        shared: Arc<Shared>,
        capture: Option<Arc<Capture>>,
        outlets: Vec<Outlet>,
        turn: (usize, usize),
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        for (token, outlet) in outlets.iter().enumerate() {
            poller.add(&outlet.line.fd, token as u64, outlet.interest())?;
        }
        poller.add(&shared.flights.waker, WAKER, Interest::IN)?;
        Ok(Self {
            turn,
            seqs: vec![0; shared.spec.topics],
            number_due: 0,
            owed: 0,
            payload: Vec::new(),
            quotes: Quotes::new(&shared.spec),
            message: Vec::new(),
            records: Vec::new(),
            report: Published::default(),
            mark: None,
            shared,
            capture,
            outlets,
            poller,
        })
    }

    /// Publishes the plan, beginning at `start`.
    fn run(mut self, plan: Plan, start: u64) -> Published {
        let windowed = matches!(self.shared.spec.pace, Pace::Window(_));
        let outcome = if windowed { self.run_window(plan, start) } else { self.run_plan(plan, start) };
        if let Err(error) = outcome {
            self.report.ended = Some(Ended::Server(format!("publishing: {error}")));
        }
        if self.report.ended.is_some() {
            self.shared.unpublished.store(true, Ordering::Relaxed);
        }
        if let Some((cpu, wall, work)) = self.mark {
            self.report.cpu_ns = clock::thread_cpu() - cpu;
            self.report.wall_ns = clock::now() - wall;
            self.report.tls = tls::work().since(work);
        }
        self.report.lines = self.outlets.into_iter().map(|outlet| outlet.line).collect();
        self.report
    }

    fn run_plan(&mut self, plan: Plan, start: u64) -> io::Result<()> {
        let mut plan = plan.peekable();
        loop {
            let now = clock::now();
            self.mark_measured(now);
            while let Some(due) = plan.next_if(|due| start + due.at <= now) {
                if self.outlet_of(due.topic) % self.turn.1 == self.turn.0 {
                    self.enqueue(due, start);
                }
            }
            self.send_queued()?;
            let queued = self.outlets.iter().any(|outlet| outlet.unanswered || !outlet.queue.is_empty());
            let next = plan.peek().map(|due| start + due.at);
            if (next.is_none() && !queued) || self.should_end() {
                return Ok(());
            }
            if self.is_too_late(next, now) {
                self.report.ended = Some(Ended::Server("it stopped taking publications".into()));
                return Ok(());
            }
            // With nothing due, only the server's taking what is queued matters; a look a second is for the deadline.
            self.wait(next.unwrap_or(now + 1_000_000_000).min(now + 1_000_000_000))?;
        }
    }

    /// Whether the plan is over for longer than stragglers are waited for.
    fn is_too_late(&self, next: Option<u64>, now: u64) -> bool {
        next.is_none() && now > self.shared.classes.end_at() + self.shared.spec.drain.0
    }

    fn run_window(&mut self, plan: Plan, start: u64) -> io::Result<()> {
        let Pace::Window(window) = self.shared.spec.pace else { return Ok(()) };
        let window = Window::new(&self.shared, window as u64);
        let end = self.shared.classes.end_at();
        let mut plan = plan.peekable();
        let mut moved_at = clock::now();
        loop {
            let now = clock::now();
            self.mark_measured(now);
            let made = self.number_due;
            // Warm-up is spaced out as planned; after it, a publication is due when there is room for it.
            while now < end
                && let Some(due) = plan.next_if(|due| start + due.at <= now && self.has_room(&window, due.topic))
            {
                self.number_due += 1;
                self.owed += u64::from(self.shared.fans[due.topic as usize]);
                self.enqueue(Due { at: now - start, ..due }, start);
            }
            self.send_queued()?;
            moved_at = if self.number_due > made { now } else { moved_at };
            if now >= end || self.should_end() {
                return Ok(());
            }
            if now > moved_at + STUCK_NS {
                self.report.ended = Some(Ended::Stuck(self.report.count - self.shared.flights.done()));
                return Ok(());
            }
            let next = plan.peek().map_or(end, |due| start + due.at);
            self.wait_for_room(&window, next.max(now), end)?;
        }
    }

    /// Whether a publication on `topic` may go out.
    fn has_room(&self, window: &Window, topic: u32) -> bool {
        let under_way = self.number_due - self.shared.flights.done();
        let Some(deliveries) = window.deliveries else { return under_way < window.publications };
        let owed = self.owed.saturating_sub(self.shared.flights.delivered());
        let fan = u64::from(self.shared.fans[topic as usize]);
        under_way < window.publications && (owed == 0 || owed + fan <= deliveries)
    }

    /// Sleeps until there is room again: for a quarter of a window, so that a wake-up is worth several publications; of a rolling one, for
    /// one.
    fn wait_for_room(&mut self, window: &Window, next: u64, end: u64) -> io::Result<()> {
        if next > clock::now() {
            return self.wait(next.min(end));
        }
        let ahead = self.number_due - self.shared.flights.done();
        let wanted = match window.deliveries {
            Some(deliveries) if ahead < window.publications => {
                Until::Delivered((self.owed + window.fan).saturating_sub(deliveries))
            }
            Some(_) => Until::Done((self.number_due + 1).saturating_sub(window.publications)),
            None => {
                Until::Done((self.number_due + (window.publications / 4).max(1)).saturating_sub(window.publications))
            }
        };
        let queued = self.outlets.iter().any(|outlet| !outlet.queue.is_empty());
        if queued || self.shared.flights.sleep(wanted) {
            return self.wait(end.min(clock::now() + 100_000_000));
        }
        Ok(())
    }

    fn should_end(&mut self) -> bool {
        // Relaxed: it only has to be noticed soon.
        if self.shared.stopped() || self.shared.unpublished.load(Ordering::Relaxed) {
            self.report.ended.get_or_insert(Ended::Stopped);
        }
        self.report.ended.is_some()
    }

    /// The measured part begins: processor time counts from here.
    fn mark_measured(&mut self, now: u64) {
        if self.mark.is_none() && now >= self.shared.classes.measured_at() {
            self.mark = Some((clock::thread_cpu(), now, tls::work()));
        }
    }

    /// The connection of a topic, over all publishing threads, which take turns with them.
    fn outlet_of(&self, topic: u32) -> usize {
        let spec = &self.shared.spec;
        let all =
            if self.shared.dialect.one_topic_per_publisher() || spec.echoes() { spec.topics } else { spec.publishers };
        topic as usize % all
    }

    fn enqueue(&mut self, due: Due, start: u64) {
        let nth = self.outlet_of(due.topic) / self.turn.1;
        let outlet = &mut self.outlets[nth];
        let held_up = !outlet.is_ready();
        let Due { at, topic, data, size, number } = due;
        outlet.queue.push_back(outlet::Queued { planned: start + at, topic, number, data, size, held_up });
    }

    fn send_queued(&mut self) -> io::Result<()> {
        for nth in 0..self.outlets.len() {
            while !self.outlets[nth].queue.is_empty() && self.outlets[nth].is_ready() {
                self.send_batch(nth)?;
            }
        }
        Ok(())
    }

    /// Stamps what is due on one connection and hands it to the kernel, together.
    fn send_batch(&mut self, nth: usize) -> io::Result<()> {
        let sent = clock::now();
        let mut batch = std::mem::take(&mut self.outlets[nth].batch);
        batch.clear();
        while batch.len() < BATCH {
            let Some(queued) = self.outlets[nth].queue.pop_front() else { break };
            self.append(&queued, sent, &mut batch);
            if self.outlets[nth].asks {
                break;
            }
        }
        let clear = self.outlets[nth].line.write(&batch)?;
        self.outlets[nth].batch = batch;
        self.outlets[nth].unanswered = self.outlets[nth].asks;
        if !self.outlets[nth].is_ready() {
            for queued in &mut self.outlets[nth].queue {
                queued.held_up = true;
            }
        }
        if !clear {
            let outlet = &self.outlets[nth];
            self.poller.modify(&outlet.line.fd, nth as u64, outlet.interest() | Interest::OUT)?;
        }
        Ok(())
    }

    fn append(&mut self, queued: &outlet::Queued, sent: u64, batch: &mut Vec<u8>) {
        let shared = Arc::clone(&self.shared);
        let topic = queued.topic as usize;
        self.seqs[topic] += 1;
        let stamp = Stamp {
            run: shared.run,
            topic: queued.topic,
            seq: self.seqs[topic],
            number: queued.number,
            planned: queued.planned,
            sent,
        };
        let body = match (queued.data, &self.capture) {
            (Some(line), Some(capture)) => Body::Data(capture.data(line)),
            _ => match &mut self.quotes {
                Some(quotes) => quotes.next(topic, queued.planned),
                None => Body::Fill(queued.size),
            },
        };
        self.payload.clear();
        stamp::write(&stamp, shared.dialect.form, body, &mut self.payload);
        self.message.clear();
        shared.dialect.publish(topic, &self.payload, u64::from(queued.number), &mut self.message);
        if shared.dialect.publishes_by_http() {
            http::request(&shared.dialect, topic, &self.message, batch);
        } else {
            crate::frame::write(shared.dialect.opcode(), &self.message, batch);
        }
        shared.flights.depart(queued.number, shared.listeners[topic]);
        // Release: pairs with the load in `receiver::missing_at_end`.
        shared.published[topic].store(stamp.seq, Ordering::Release);
        self.count(&stamp, queued.held_up);
    }

    fn count(&mut self, stamp: &Stamp, held_up: bool) {
        self.report.count += 1;
        let Some(class) = self.shared.classes.of(stamp.number, stamp.planned) else { return };
        self.report.measured += 1;
        self.report.classes.resize(self.shared.classes.labels.len(), 0);
        self.report.classes[usize::from(class)] += 1;
        // Relaxed: it is for showing how far the run is.
        self.shared.made.fetch_add(1, Ordering::Relaxed);
        let late = stamp.sent.saturating_sub(stamp.planned);
        let times = if held_up { &mut self.report.held_up } else { &mut self.report.slip };
        times.saturating_record(late);
    }

    fn wait(&mut self, until: u64) -> io::Result<()> {
        let ready = self.poller.wait_exactly(&clock::until(until))?;
        for nth in 0..ready {
            let (token, what) = self.poller.event(nth);
            if token == WAKER {
                self.shared.flights.waker.clear();
                continue;
            }
            let outlet = &mut self.outlets[token as usize];
            if what.contains(Interest::OUT) && outlet.line.flush()? {
                self.poller.modify(&outlet.line.fd, token, outlet.interest())?;
            }
            if outlet.listens && what.intersects(Interest::IN | Interest::HUP | Interest::ERR) {
                outlet.listen(&self.shared.dialect, &mut self.report.checks, &mut self.records)?;
            } else if what.intersects(Interest::HUP | Interest::ERR) {
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the server hung up"));
            }
        }
        Ok(())
    }
}

/// Publishes one thread's part of the plan over `outlets`, and sends what was found. An epoll's events do not cross
/// threads, so the publisher is made on the thread that it works on.
pub fn run(
    shared: Arc<Shared>,
    capture: Option<Arc<Capture>>,
    outlets: Vec<Outlet>,
    turn: (usize, usize),
    start: u64,
    done: &Sender<Published>,
) {
    let plan = Plan::new(&shared.spec, capture.clone());
    let real_time = capture.is_none() && priority::suits(&shared.spec) && priority::real_time();
    let mut published = match Publisher::new(shared, capture, outlets, turn) {
        Ok(publisher) => publisher.run(plan, start),
        Err(error) => Published {
            ended: Some(Ended::Server(format!("setting the publisher up: {error}"))),
            ..Published::default()
        },
    };
    published.real_time = real_time;
    // Nobody listens only when the whole run is being given up.
    let _ = done.send(published);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_threads_did_adds_up_and_the_reason_for_an_end_is_the_servers() {
        let of = |count, cpu_ns, ended| Published {
            count,
            measured: count,
            classes: vec![count],
            cpu_ns,
            wall_ns: 100,
            ended,
            ..Published::default()
        };
        let server = || Some(Ended::Server("gone".into()));
        let sum = of(3, 20, Some(Ended::Stopped)).with(of(4, 50, server())).with(of(5, 30, Some(Ended::Stopped)));
        assert_eq!((sum.count, sum.measured, sum.classes.as_slice()), (12, 12, &[12][..]));
        assert_eq!((sum.busy(), sum.ended), (0.5, server()));
        assert_eq!(of(1, 1, None).with(of(1, 1, None)).ended, None);
    }
}
