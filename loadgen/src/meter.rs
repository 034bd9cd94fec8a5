//! Meters: what one thread counted and timed, in one interval or in all.
//!
//! A thread records into its own [`Interval`] and hands it over once a second; adding up is somebody else's work. So
//! recording needs no lock, and totals are exact: histograms merge bucket by bucket.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{connection::Connection, ledger::Receipt, tls::Work};

/// Times in nanoseconds, up to an hour, in three significant figures.
pub type Times = Histogram<u64>;

/// An empty histogram of times.
pub fn times() -> Times {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("bounds are constant and valid")
}

/// Deliveries of one class of publications.
#[derive(Clone, Debug)]
pub struct Meter {
    /// From the planned moment of sending to receipt.
    pub latency: Times,
    /// From the actual moment of sending to receipt.
    pub sent: Times,
    /// Both parts of the latter, of servers that tell.
    pub handed: Option<Box<Handed>>,
    /// Bytes of messages, envelopes included.
    pub bytes: u64,
}

/// What is the server's part of a latency, and what isn't; see [`crate::handover`].
#[derive(Clone, Debug)]
pub struct Handed {
    /// From the actual moment of sending until the server has handed it over.
    pub until: Times,
    /// From then to receipt.
    pub since: Times,
}

impl Default for Meter {
    fn default() -> Self {
        Self { latency: times(), sent: times(), handed: None, bytes: 0 }
    }
}

impl Default for Handed {
    fn default() -> Self {
        Self { until: times(), since: times() }
    }
}

impl Meter {
    /// Enters one delivery.
    #[inline]
    pub fn enter(&mut self, now: u64, planned: u64, sent: u64, bytes: usize) {
        self.latency.saturating_record(now.saturating_sub(planned));
        self.sent.saturating_record(now.saturating_sub(sent));
        self.bytes += bytes as u64;
    }

    /// Enters both parts of a delivery, at a server that has told when it handed it over.
    pub fn enter_handed(&mut self, now: u64, sent: u64, handed: u64) {
        let parts = self.handed.get_or_insert_default();
        parts.until.saturating_record(handed.saturating_sub(sent));
        parts.since.saturating_record(now.saturating_sub(handed));
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.latency, &other.latency);
        add(&mut self.sent, &other.sent);
        if let Some(parts) = &other.handed {
            let sum = self.handed.get_or_insert_default();
            add(&mut sum.until, &parts.until);
            add(&mut sum.since, &parts.since);
        }
        self.bytes += other.bytes;
    }

    /// How many deliveries were entered.
    pub fn deliveries(&self) -> u64 {
        self.latency.len()
    }
}

/// Adds one histogram to another of the same bounds.
pub fn add(sum: &mut Times, other: &Times) {
    if !other.is_empty() {
        sum.add(other).expect("all have the same bounds");
    }
}

/// A step of setting a connection up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From the planned moment of connecting to TCP's being up.
    Tcp,
    /// The handshake of TLS.
    Tls,
    /// The handshake of the WebSocket.
    Upgrade,
}

/// What the steps took, in their order.
#[derive(Clone, Debug)]
pub struct Phases {
    /// Of those who came for the first time.
    pub first: [Times; 3],
    /// Of those who came back, or came late.
    pub again: [Times; 3],
}

impl Default for Phases {
    fn default() -> Self {
        let three = || [times(), times(), times()];
        Self { first: three(), again: three() }
    }
}

impl Phases {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        let sums = self.first.iter_mut().chain(&mut self.again);
        sums.zip(other.first.iter().chain(&other.again)).for_each(|(sum, times)| add(sum, times));
    }
}

/// What a thread measured between two moments.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Number since the measured part began; 0 is the first second. Earlier ones have -1.
    pub index: i64,
    /// Its beginning, on the monotonic clock.
    pub begin: u64,
    /// Its end.
    pub end: u64,
    /// Processor time that the thread used.
    pub cpu_ns: u64,
    /// Deliveries, by class.
    pub classes: Vec<Meter>,
    /// From the first subscriber reached to the last, per publication.
    pub spread: Times,
    /// From the planned moment of connecting to being subscribed.
    pub joins: Times,
    /// The same for those who came back.
    pub rejoins: Times,
    /// What setting connections up took, step by step; none where none was set up.
    pub phases: Option<Box<Phases>>,
    /// What the thread spent on TLS.
    pub tls: Work,
    /// Bytes read; with TLS, what they said.
    pub wire_bytes: u64,
    /// The same of frames as they would have been with nothing compressed.
    pub clear_bytes: u64,
    /// Deliveries, to those who are disturbed as well.
    pub received: u64,
    /// Reads that brought something.
    pub reads: u64,
    /// Mean bytes that lay unread in the kernel, over all connections of the thread.
    pub backlog_bytes: u64,
    /// When the latest measured delivery came.
    pub last_delivery: u64,
    /// Deliveries that were only counted, by their bytes.
    pub unchecked: u64,
    /// Deliveries, warm-up included, to subscribers that are waited for.
    pub reached: u64,
    /// Segments that brought what was measured; told at the very end.
    pub segments: Option<u64>,
}

impl Interval {
    /// An interval that begins now.
    pub fn new(index: i64, begin: u64, classes: usize) -> Self {
        Self {
            index,
            begin,
            end: begin,
            cpu_ns: 0,
            classes: vec![Meter::default(); classes],
            spread: times(),
            joins: times(),
            rejoins: times(),
            phases: None,
            tls: Work::default(),
            wire_bytes: 0,
            clear_bytes: 0,
            received: 0,
            reads: 0,
            backlog_bytes: 0,
            last_delivery: 0,
            unchecked: 0,
            reached: 0,
            segments: None,
        }
    }

    /// Adds what another thread, or another moment, measured.
    pub fn add(&mut self, other: &Self) {
        for (sum, meter) in self.classes.iter_mut().zip(&other.classes) {
            sum.add(meter);
        }
        add(&mut self.spread, &other.spread);
        add(&mut self.joins, &other.joins);
        add(&mut self.rejoins, &other.rejoins);
        if let Some(phases) = &other.phases {
            self.phases.get_or_insert_default().add(phases);
        }
        self.tls.add(other.tls);
        self.begin = self.begin.min(other.begin);
        self.end = self.end.max(other.end);
        self.cpu_ns += other.cpu_ns;
        self.wire_bytes += other.wire_bytes;
        self.clear_bytes += other.clear_bytes;
        self.received += other.received;
        self.reads += other.reads;
        self.backlog_bytes += other.backlog_bytes;
        self.unchecked += other.unchecked;
        self.reached += other.reached;
        self.segments = sum(self.segments, other.segments);
        self.last_delivery = self.last_delivery.max(other.last_delivery);
    }

    /// A connection that is being set up has done another step.
    pub fn reached(&mut self, conn: &mut Connection, phase: Phase, now: u64) {
        let took = now.saturating_sub(std::mem::replace(&mut conn.reached, now));
        let phases = self.phases.get_or_insert_default();
        let times = if conn.returned { &mut phases.again } else { &mut phases.first };
        times[phase as usize].saturating_record(took);
    }

    /// Deliveries of all classes.
    pub fn deliveries(&self) -> u64 {
        self.classes.iter().map(Meter::deliveries).sum::<u64>() + self.unchecked
    }
}

/// The sum of those that are known.
pub fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.zip(b).map(|(a, b)| a + b).or(a).or(b)
}

/// What was found wrong, or just remarkable, over a whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checks {
    /// Messages with a good stamp, warm-up and disturbed subscribers included.
    pub received: u64,
    /// Publications that a subscriber should have got and did not.
    pub missing: u64,
    /// Times that a subscriber saw a number beyond the next.
    pub gaps: u64,
    /// Received again.
    pub repeats: u64,
    /// Received after later ones.
    pub reordered: u64,
    /// Payloads or envelopes with a wrong byte.
    pub wrong: u64,
    /// Payloads cut short.
    pub torn: u64,
    /// Messages on topics that were not subscribed to.
    pub stray: u64,
    /// Snapshots that did not come, or left a gap to the first update.
    pub joints: u64,
    /// Left out of newest-value subscriptions, announced or not.
    pub conflated: u64,
    /// Announced as left out.
    pub skipped: u64,
    /// Left out without the announcement that was due.
    #[serde(default)]
    pub untold: u64,
    /// Announced as left out, and not left out just there.
    #[serde(default)]
    pub mistold: u64,
    /// Stamps of other runs, ignored.
    pub foreign: u64,
    /// Received before they were sent: the clocks do not agree.
    pub too_early: u64,
    /// Connections that could not be set up.
    pub failed: u64,
    /// Connections that the server ended.
    pub closed: u64,
    /// Subscribers that were to be disturbed and whose losses do not count.
    pub closed_disturbed: u64,
    /// What servers complained of and why connections failed or ended, and how often.
    pub remarks: BTreeMap<String, u64>,
}

/// Different remarks that are kept; what is beyond is counted as one.
const REMARKS: usize = 20;

impl Checks {
    /// Enters a receipt that was not the expected one.
    pub fn note(&mut self, receipt: Receipt, conflates: bool) {
        match receipt {
            Receipt::Expected | Receipt::First => {}
            // They are looked at more closely.
            Receipt::Gap(_) | Receipt::JointGap(_) if conflates => {}
            Receipt::Gap(_) => self.gaps += 1,
            Receipt::JointGap(_) => {
                self.gaps += 1;
                self.joints += 1;
            }
            Receipt::JointMissing => self.joints += 1,
            Receipt::Repeat => self.repeats += 1,
            Receipt::Late => self.reordered += 1,
        }
    }

    /// Counts a remark.
    pub fn remark(&mut self, text: String) {
        let full = self.remarks.len() >= REMARKS && !self.remarks.contains_key(&text);
        *self.remarks.entry(if full { "and others".into() } else { text }).or_default() += 1;
    }

    /// Adds another thread's, or another process's.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.missing += other.missing;
        self.gaps += other.gaps;
        self.repeats += other.repeats;
        self.reordered += other.reordered;
        self.wrong += other.wrong;
        self.torn += other.torn;
        self.stray += other.stray;
        self.joints += other.joints;
        self.conflated += other.conflated;
        self.skipped += other.skipped;
        self.untold += other.untold;
        self.mistold += other.mistold;
        self.foreign += other.foreign;
        self.too_early += other.too_early;
        self.failed += other.failed;
        self.closed += other.closed;
        self.closed_disturbed += other.closed_disturbed;
        for (text, times) in &other.remarks {
            *self.remarks.entry(text.clone()).or_default() += times;
        }
    }

    /// What makes a run a failure, as one phrase each.
    pub fn faults(&self) -> Vec<String> {
        let faults = [
            (self.missing, "publications missing"),
            (self.repeats, "repeats"),
            (self.reordered, "out of order"),
            (self.wrong, "wrong payloads or envelopes"),
            (self.torn, "torn payloads"),
            (self.stray, "on topics not subscribed to"),
            (self.joints, "snapshots missing or not joining"),
            (self.untold, "left out without a word"),
            (self.mistold, "announced as left out where they were not"),
            (self.failed, "connections failed"),
            (self.closed, "connections closed by the server"),
        ];
        let phrase = |(count, what): (u64, &str)| format!("{} {what}", crate::units::count(count));
        faults.into_iter().filter(|(count, _)| *count > 0).map(phrase).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_meters_are_exact() {
        let (mut a, mut b, mut all) = (Meter::default(), Meter::default(), Meter::default());
        for nth in 0..1000u64 {
            let meter = if nth % 3 == 0 { &mut a } else { &mut b };
            meter.enter(nth * 1000, 0, nth * 500, 10);
            all.enter(nth * 1000, 0, nth * 500, 10);
            // One of the parts may have seen none of a server that tells.
            if nth % 3 != 0 {
                meter.enter_handed(nth * 1000, nth * 500, nth * 700);
                all.enter_handed(nth * 1000, nth * 500, nth * 700);
            }
        }
        a.add(&b);
        assert_eq!((&a.latency, &a.sent, a.bytes), (&all.latency, &all.sent, all.bytes));
        let (parts, whole) = (a.handed.unwrap(), all.handed.unwrap());
        assert_eq!((parts.until, parts.since), (whole.until, whole.since));
    }

    #[test]
    fn conflation_is_no_fault_but_a_gap_is_noticed() {
        let mut checks = Checks { conflated: 5, skipped: 5, ..Checks::default() };
        checks.note(Receipt::Gap(5), true);
        assert_eq!((checks.gaps, checks.faults().len()), (0, 0));
        checks.note(Receipt::Repeat, true);
        checks.note(Receipt::JointMissing, false);
        assert_eq!(checks.faults(), ["1 repeats", "1 snapshots missing or not joining"]);
    }

    #[test]
    fn remarks_are_bounded() {
        let mut checks = Checks::default();
        (0..100).for_each(|nth| checks.remark(format!("remark {nth}")));
        assert_eq!(checks.remarks.len(), REMARKS + 1);
        assert_eq!(checks.remarks["and others"], 80);
    }
}
