//! Figures: what a run comes to, in the form that is stored, merged, compared and printed.
//!
//! Histograms are stored whole (V2, compressed, base64), so that any percentile can be had later and several processes'
//! results merge exactly. The percentiles beside them are for readers without a histogram library.

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Quality,
    machine::{CoreWork, Machine, Nice},
    meter::{Checks, Handed, Phases, Times},
    server::ServerFigures,
    spec::Spec,
};

/// A result file: one session, with all of its runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of this format.
    pub format: u32,
    /// The generator's version.
    pub version: String,
    /// The working directory's commit.
    pub commit: Option<String>,
    /// When the session began, in seconds since the Unix epoch.
    pub started: u64,
    /// The command line.
    pub command: Vec<String>,
    /// What it ran on.
    pub machine: Machine,
    /// All settings.
    pub spec: Spec,
    /// In the order in which they ran.
    pub runs: Vec<Run>,
    /// What came of `--fail-if`.
    #[serde(default)]
    pub thresholds: Vec<Outcome>,
    /// What came of `--find-max`. The runs are then those at the rate that was found.
    #[serde(default)]
    pub search: Option<Found>,
}

/// The current [`Report::format`].
pub const FORMAT: u32 = 1;

/// What came of a condition, such as those of `--fail-if`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The condition, as it was written.
    pub condition: String,
    /// Whether it holds; none where the figure can't be given.
    pub holds: Option<bool>,
    /// The figure, or why there is none.
    pub found: String,
}

impl Outcome {
    /// As a condition under which to fail: it holds, or nobody knows.
    pub fn fails(&self) -> bool {
        self.holds != Some(false)
    }
}

/// One probe of a search.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// Publications a second.
    pub rate: f64,
    /// Its measured time.
    pub seconds: f64,
    /// Deliveries a second.
    pub deliveries_per_s: f64,
    /// Whether it held.
    pub held: bool,
    /// The figure of the condition, or why there is none, or the faults.
    pub found: String,
    /// Which side had no more to give.
    pub saturated: String,
    /// How near the server was to its limit, from 0 to 1; none where nobody looked.
    pub server_busy: Option<f64>,
    /// The same of the generator.
    pub generator_busy: f64,
    /// What speaks against it.
    pub doubts: Vec<String>,
}

/// What a search came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Found {
    /// What had to hold.
    pub condition: String,
    /// Publications a second; none where nothing held.
    pub rate: Option<f64>,
    /// In their order.
    pub probes: Vec<Probe>,
}

/// What one run came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The server's address.
    pub target: String,
    /// `A`, or `B` for the second target.
    pub label: String,
    /// What the server is called in tables.
    pub name: String,
    /// The server's version, as --server-version said it.
    #[serde(default)]
    pub version: Option<String>,
    /// What makes it doubtful, first of all.
    pub doubts: Vec<String>,
    /// What makes it a failure.
    pub faults: Vec<String>,
    /// Why it ended early.
    pub ended: Option<String>,
    /// It was stopped from outside.
    #[serde(default)]
    pub stopped: bool,
    /// What else a reader should know.
    pub notes: Vec<String>,
    /// Whether publications were due at planned moments, so that latencies mean something.
    pub open_loop: bool,
    /// From the beginning of the measured part to its last delivery.
    pub seconds: f64,
    /// How long it was planned to be; none in results of versions that didn't say.
    #[serde(default)]
    pub planned_seconds: Option<f64>,
    /// Connections that were set up, and how fast.
    pub connected: u64,
    /// Connections set up per second, from the first to the last.
    pub connections_per_s: f64,
    /// Publications of the measured part.
    pub publications: u64,
    /// Their deliveries to measured subscribers.
    pub deliveries: u64,
    /// Bytes of those, envelopes included.
    pub bytes: u64,
    /// What came over the wire; none in results of versions that didn't compare.
    #[serde(default)]
    pub wire: Option<WireFigures>,
    /// Segments with data in which they came, as the subscribers' kernels count; none where somebody came or went, and in results of
    /// versions that didn't look.
    #[serde(default)]
    pub segments: Option<u64>,
    /// Which round of several commands' this is, given by --round; runs of one round belong side by side.
    #[serde(default)]
    pub round: Option<u32>,
    /// Latencies, by class of publication.
    pub classes: Vec<ClassFigures>,
    /// From the first subscriber reached to the last, per publication.
    pub spread: Distribution,
    /// Publications whose spread could not be measured.
    pub spread_unknown: u64,
    /// From the planned moment of connecting to being subscribed.
    pub joins: Distribution,
    /// The same for those who came back, or came late.
    pub rejoins: Distribution,
    /// What setting connections up took, step by step; none in results of versions that didn't look.
    #[serde(default)]
    pub phases: Option<PhaseFigures>,
    /// What was verified, and what was found.
    pub checks: Checks,
    /// The server's side.
    pub server: Option<ServerFigures>,
    /// The generator's side.
    pub generator: GeneratorFigures,
    /// Second by second.
    pub intervals: Vec<IntervalFigures>,
}

/// What came over the wire in the measured part, to those who are disturbed as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireFigures {
    /// Bytes; with TLS, of what it said.
    pub bytes: u64,
    /// What they would have been with nothing compressed.
    pub clear_bytes: u64,
    /// Deliveries.
    pub deliveries: u64,
}

impl WireFigures {
    /// The share of bytes that is left.
    pub fn left(self) -> f64 {
        self.bytes as f64 / self.clear_bytes.max(1) as f64
    }
}

/// One class of publications.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClassFigures {
    /// What it is called.
    pub label: String,
    /// Publications of it. In results of versions that didn't count them so, 0.
    #[serde(default)]
    pub publications: u64,
    /// From the planned moment of sending to receipt.
    pub latency: Distribution,
    /// From the actual moment of sending to receipt.
    pub sent: Distribution,
    /// Both parts of the latter, at servers that tell when they hand over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed: Option<HandedFigures>,
    /// Bytes received.
    pub bytes: u64,
}

/// What is the server's part of the latency of a class, and what isn't.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HandedFigures {
    /// From the actual moment of sending until the server has handed it over.
    pub until: Distribution,
    /// From then to receipt: the kernel's way, and the generator.
    pub since: Distribution,
}

impl ClassFigures {
    /// What of the median latency, in nanoseconds, would not be there if publishing and receiving took no time: all but the server's part.
    /// None where the server does not tell.
    pub fn not_the_servers_p50(&self) -> Option<u64> {
        let until = self.handed.as_ref()?.until.p50_ns;
        Some(self.latency.p50_ns.saturating_sub(until))
    }
}

/// What the generator itself took and suffered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GeneratorFigures {
    /// Busy share of each receiving thread.
    pub receivers_busy: Vec<f64>,
    /// Busy share of the publishing thread.
    pub publisher_busy: f64,
    /// Processor time of the receiving threads per delivery.
    pub receive_ns: f64,
    /// Deliveries per read that brought something.
    pub deliveries_per_read: f64,
    /// How late publications were sent for reasons of the generator's.
    pub slip: Distribution,
    /// How late those were that waited for the server.
    pub held_up: Distribution,
    /// The most that lay unread in the kernel in any second, as a mean over the second.
    pub backlog_bytes: u64,
    /// Cores that its threads may run on.
    pub cores: Vec<usize>,
    /// How it was favoured by the scheduler.
    #[serde(default)]
    pub nice: Option<Nice>,
    /// Whether its publisher went before its receivers, in real time ([`crate::priority`]).
    #[serde(default)]
    pub publisher_real_time: bool,
    /// The clock.
    pub clock: Quality,
    /// Share of the machine's time that the host took.
    pub steal: f64,
    /// Share of the machine's time that somebody used.
    #[serde(default)]
    pub machine_busy: f64,
    /// What was done on the cores that it is pinned to, by whomever; none where it is pinned to none.
    #[serde(default)]
    pub work: Option<CoreWork>,
    /// The most that a receiving thread was busy while it set connections up whose time is measured.
    #[serde(default)]
    pub connecting_busy: f64,
    /// What TLS took of it; none where nothing was spoken with it.
    #[serde(default)]
    pub tls: Option<TlsFigures>,
}

/// What TLS took of the generator's own time: that is none of the server's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TlsFigures {
    /// Share of the receiving threads' processor time.
    pub receivers: f64,
    /// Share of the publishing thread's.
    pub publisher: f64,
    /// Time for each delivery, handshakes included; 0 where there was none.
    pub ns_per_delivery: f64,
    /// Records for each read that brought something.
    pub records_per_read: f64,
    /// Handshakes that were made anew, of subscribers.
    pub full: u64,
    /// Those that resumed a session.
    pub resumed: u64,
}

/// What the steps of setting connections up took: TCP from the planned moment, TLS, the WebSocket's upgrade.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PhaseFigures {
    /// Of those who came for the first time.
    pub first: [Distribution; 3],
    /// Of those who came back, or came late.
    pub again: [Distribution; 3],
}

impl PhaseFigures {
    /// The figures of what was timed.
    pub fn of(phases: &Phases) -> Self {
        Self {
            first: phases.first.each_ref().map(Distribution::of),
            again: phases.again.each_ref().map(Distribution::of),
        }
    }
}

impl GeneratorFigures {
    /// Busy share of its busiest thread.
    pub fn busiest(&self) -> f64 {
        self.receivers_busy.iter().copied().fold(self.publisher_busy, f64::max)
    }
}

/// One second.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IntervalFigures {
    /// Number, from 0.
    pub index: u64,
    /// Its actual length in seconds.
    pub seconds: f64,
    /// Deliveries.
    pub deliveries: u64,
    /// Publications that were made meanwhile.
    #[serde(default)]
    pub publications: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Connections that came up.
    pub joined: u64,
    /// Latencies from the planned moment, all classes.
    pub latency: Distribution,
}

/// A histogram of times, with the figures that people look at.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Distribution {
    pub count: u64,
    pub mean_ns: f64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub p9999_ns: u64,
    pub max_ns: u64,
    /// The whole histogram: V2, compressed, base64.
    pub histogram: String,
}

impl Distribution {
    /// The figures of a histogram.
    pub fn of(times: &Times) -> Self {
        Self {
            count: times.len(),
            mean_ns: times.mean(),
            p50_ns: times.value_at_quantile(0.5),
            p90_ns: times.value_at_quantile(0.9),
            p99_ns: times.value_at_quantile(0.99),
            p999_ns: times.value_at_quantile(0.999),
            p9999_ns: times.value_at_quantile(0.9999),
            max_ns: times.max(),
            histogram: encode(times),
        }
    }

    /// The histogram itself.
    pub fn times(&self) -> Result<Times> {
        let bytes = STANDARD.decode(&self.histogram).context("a stored histogram is not base64")?;
        let times = Deserializer::new().deserialize(&mut bytes.as_slice());
        times.map_err(|error| anyhow::anyhow!("a stored histogram cannot be read: {error}"))
    }

    /// The percentiles of [`crate::samples::QUANTILES`].
    pub fn percentiles(&self) -> [u64; 5] {
        [self.p50_ns, self.p90_ns, self.p99_ns, self.p999_ns, self.p9999_ns]
    }
}

impl HandedFigures {
    /// The figures of both histograms.
    pub fn of(handed: &Handed) -> Self {
        Self { until: Distribution::of(&handed.until), since: Distribution::of(&handed.since) }
    }
}

impl Default for Distribution {
    fn default() -> Self {
        Self::of(&crate::meter::times())
    }
}

fn encode(times: &Times) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(times, &mut bytes).expect("writing a histogram to memory");
    STANDARD.encode(bytes)
}

impl Run {
    /// Deliveries per second.
    pub fn deliveries_per_s(&self) -> f64 {
        self.deliveries as f64 / self.seconds.max(1e-9)
    }

    /// Publications per second.
    pub fn publications_per_s(&self) -> f64 {
        self.publications as f64 / self.seconds.max(1e-9)
    }

    /// Bytes of messages per second.
    pub fn bytes_per_s(&self) -> f64 {
        self.bytes as f64 / self.seconds.max(1e-9)
    }

    /// Calls of `send` for each delivery: those that the subscribers' kernels saw, which is the same measure for all servers; else
    /// those that the server counts.
    pub fn sends_per_delivery(&self) -> Option<f64> {
        let seen = self.segments.filter(|_| self.deliveries > 0).map(|sends| sends as f64 / self.deliveries as f64);
        seen.or_else(|| self.server.as_ref()?.sends_per_delivery)
    }

    /// The share of what was offered a second that was delivered: less than 1 where the last deliveries came after the planned end. None
    /// where nothing was due at planned moments.
    pub fn delivered(&self) -> Option<f64> {
        let planned = self.planned_seconds.filter(|_| self.open_loop)?;
        Some((planned / self.seconds.max(1e-9)).min(1.0))
    }

    /// Latencies of all classes together.
    pub fn latency(&self) -> Result<Times> {
        let mut sum = crate::meter::times();
        for class in &self.classes {
            crate::meter::add(&mut sum, &class.latency.times()?);
        }
        Ok(sum)
    }

    /// Publications of a class.
    pub fn publications_of(&self, class: &ClassFigures) -> u64 {
        if self.classes.len() == 1 { self.publications } else { class.publications }
    }

    /// The exit code that this run alone asks for; see [`crate::exit`].
    pub fn exit(&self) -> u8 {
        match () {
            () if self.ended.is_some() => crate::exit::COULD_NOT,
            () if !self.faults.is_empty() => crate::exit::FAULTS,
            () if !self.doubts.is_empty() => crate::exit::DOUBTS,
            () => crate::exit::FINE,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run that nothing speaks against, for tests to change: 100 publications to ten subscribers in ten seconds.
    pub fn sample() -> Run {
        Run {
            target: "ws://h".into(),
            label: "A".into(),
            name: "h".into(),
            version: None,
            doubts: Vec::new(),
            faults: Vec::new(),
            ended: None,
            stopped: false,
            notes: Vec::new(),
            open_loop: true,
            seconds: 10.0,
            planned_seconds: Some(10.0),
            connected: 10,
            connections_per_s: 1.0,
            publications: 100,
            deliveries: 1000,
            bytes: 1 << 20,
            wire: None,
            segments: None,
            round: None,
            classes: Vec::new(),
            spread: Distribution::default(),
            spread_unknown: 0,
            joins: Distribution::default(),
            rejoins: Distribution::default(),
            phases: None,
            checks: Checks::default(),
            server: Some(ServerFigures { cores: vec![0], cores_busy: 0.5, ..ServerFigures::default() }),
            generator: GeneratorFigures {
                receivers_busy: vec![0.4],
                cores: vec![1],
                clock: Quality { read_ns: 20.0, ..Quality::default() },
                ..GeneratorFigures::default()
            },
            intervals: Vec::new(),
        }
    }

    #[test]
    fn a_distribution_keeps_its_whole_histogram() {
        let mut times = crate::meter::times();
        (1..10_000u64).for_each(|nth| times.record(nth * nth).unwrap());
        let text = serde_json::to_string(&Distribution::of(&times)).unwrap();
        let back: Distribution = serde_json::from_str(&text).unwrap();
        assert_eq!(back.times().unwrap(), times);
        assert_eq!(back.max_ns, times.max());
    }
}
