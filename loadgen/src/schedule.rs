//! The schedule: when which topic is published, decided before the run and moved by nothing that happens in it.
//!
//! A plan is an iterator of due moments, relative to the start. How far the server, the network or the generator is
//! behind does not enter; lateness is measured against it. Warm-up publications come first, on every topic, at the pace
//! of the run.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    chance::{Moments, Sizes, Topics},
    spec::{Pace, Spec},
    units::{Rate, Span},
};

/// A publication that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Nanoseconds after the start.
    pub at: u64,
    /// Index of its topic.
    pub topic: u32,
    /// Which of the captured payloads it carries; none for a filler.
    pub data: Option<u32>,
    /// Bytes of a filler.
    pub size: usize,
    /// Which of the run's publications it is, from 0.
    pub number: u32,
}

/// All publications of a run, in order.
#[derive(Clone, Debug)]
pub struct Plan {
    pace: Pace,
    topics: u64,
    /// Publications before the measured ones.
    pub warm: u64,
    /// When the measured part begins, in nanoseconds after the start.
    pub measured_at: u64,
    /// When it ends.
    pub end_at: u64,
    next: u64,
    moments: Moments,
    on: Topics,
    sizes: Sizes,
    capture: Option<Arc<Capture>>,
    warms_by_shares: bool,
}

/// Publications that a subscriber gets before the measured ones: a fresh connection is slower for its first ten.
const WARM_EACH: u64 = 20;

/// Warm-up never lasts longer than this, however many topics there are.
const WARM_LONGEST: Span = Span::s(10);

impl Plan {
    /// The plan that `spec` asks for; `capture` is what a replay publishes.
    pub fn new(spec: &Spec, capture: Option<Arc<Capture>>) -> Self {
        let topics = spec.topics as u64;
        let rate = match &spec.pace {
            Pace::Rate(rate) | Pace::Bursts { rate, .. } => rate.0,
            Pace::Silent | Pace::Window(_) | Pace::Replay { .. } => WARM_RATE.0.max(2.0 * topics as f64),
        };
        let each = WARM_EACH * topics / spec.topics_per_sub as u64;
        let bounded = each.min((rate * WARM_LONGEST.seconds()) as u64);
        let warm = match spec.pace {
            Pace::Silent => 0,
            // Where lists are people's own, topics that hardly anything comes on need no warming.
            _ if spec.watch_list.is_some() => bounded.max((rate * spec.warmup.seconds()) as u64),
            _ => bounded.max((rate * spec.warmup.seconds()) as u64).max(topics),
        };
        let measured_at = nth_at(warm, rate);
        let length = match (&spec.pace, &capture) {
            (Pace::Replay { speed, .. }, Some(capture)) => {
                spec.duration.0.min((capture.length_ns as f64 / speed) as u64 + 1)
            }
            _ => spec.duration.0,
        };
        let end_at = measured_at + length;
        let (moments, on, sizes) = (Moments::new(spec), Topics::new(spec), Sizes::new(spec));
        let (pace, warms_by_shares) = (spec.pace.clone(), spec.watch_list.is_some());
        Self { pace, topics, warm, measured_at, end_at, next: 0, moments, on, sizes, capture, warms_by_shares }
    }

    fn warming(&self) -> Rate {
        match &self.pace {
            Pace::Rate(rate) | Pace::Bursts { rate, .. } => *rate,
            _ => Rate(WARM_RATE.0.max(2.0 * self.topics as f64)),
        }
    }

    /// When the `nth` measured publication is due after the measured part's beginning, and what it carries.
    fn measured(&mut self, nth: u64) -> Option<(u64, Option<u32>)> {
        match &self.pace {
            Pace::Silent => None,
            Pace::Window(_) => Some((0, None)),
            Pace::Rate(rate) => Some((self.moments.draw(nth, rate.0), None)),
            Pace::Bursts { rate, burst, every, length } => Some((burst_at(nth, *rate, *burst, *every, *length), None)),
            Pace::Replay { speed, .. } => {
                let line = self.capture.as_ref()?.lines.get(nth as usize)?;
                Some(((line.at as f64 / speed) as u64, Some(nth as u32)))
            }
        }
    }
}

/// Warm-up publications a second where the pace itself gives no rate.
const WARM_RATE: Rate = Rate(200.0);

impl Iterator for Plan {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        let nth = self.next;
        self.next += 1;
        let size = self.sizes.draw();
        if nth < self.warm {
            // On every topic in turn, whatever their shares are.
            let topic = if self.warms_by_shares { self.on.draw(nth) } else { (nth % self.topics) as u32 };
            return Some(Due { at: nth_at(nth, self.warming().0), topic, data: None, size, number: nth as u32 });
        }
        let (after, data) = self.measured(nth - self.warm)?;
        let at = self.measured_at + after;
        let topic = match data {
            Some(line) => self.capture.as_ref()?.lines[line as usize].topic,
            None => self.on.draw(nth),
        };
        Some(Due { at, topic, data, size, number: nth as u32 }).filter(|due| due.at < self.end_at)
    }
}

/// When the `nth` of a steady stream is due. Computed anew for each, so that no error adds up.
fn nth_at(nth: u64, rate: f64) -> u64 {
    (nth as f64 * (1e9 / rate)) as u64
}

/// When the `nth` publication is due, of a stream whose every period ends in a burst.
fn burst_at(nth: u64, rate: Rate, burst: Rate, every: Span, length: Span) -> u64 {
    let calm_time = every.0 - length.0;
    let calm = (rate.0 * calm_time as f64 / 1e9).round().max(1.0) as u64;
    let dense = (burst.0 * length.seconds()).round().max(1.0) as u64;
    let (period, within) = (nth / (calm + dense), nth % (calm + dense));
    let offset = match within.checked_sub(calm) {
        None => within * calm_time / calm,
        Some(nth) => calm_time + nth * length.0 / dense,
    };
    period * every.0 + offset
}

/// A captured session: publications with their own times, topics and payloads.
#[derive(Debug, Default)]
pub struct Capture {
    /// Names of the topics, by index.
    pub topics: Vec<String>,
    /// From the first publication to the last.
    pub length_ns: u64,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    at: u64,
    topic: u32,
    data: Box<[u8]>,
}

#[derive(Deserialize)]
struct Captured<'a> {
    ts_ns: u64,
    topic: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Capture {
    /// Reads newline-delimited JSON `{"ts_ns":…,"topic":…,"data":…}`, gzipped or not, until `longest` nanoseconds in.
    pub fn load(path: &Path, longest: u64) -> Result<Self> {
        let opening = || format!("reading the captured file {}", path.display());
        let mut file = BufReader::new(File::open(path).with_context(opening)?);
        let zipped = file.fill_buf().with_context(opening)?.starts_with(&[0x1F, 0x8B]);
        let plain: Box<dyn Read> =
            if zipped { Box::new(flate2::bufread::MultiGzDecoder::new(file)) } else { Box::new(file) };
        Self::parse(BufReader::with_capacity(1 << 16, plain), longest).with_context(opening)
    }

    fn parse(mut reader: impl BufRead, longest: u64) -> Result<Self> {
        let mut capture = Self::default();
        let mut names = std::collections::HashMap::new();
        let (mut first, mut text) = (None, String::new());
        for number in 1.. {
            text.clear();
            if reader.read_line(&mut text)? == 0 {
                break;
            }
            if text.trim().is_empty() {
                continue;
            }
            let line: Captured<'_> = serde_json::from_str(&text)
                .with_context(|| format!("line {number}: expected {{\"ts_ns\":TIME,\"topic\":NAME,\"data\":JSON}}"))?;
            let at = line.ts_ns.saturating_sub(*first.get_or_insert(line.ts_ns));
            ensure!(at >= capture.length_ns, "line {number}: its time is before that of the line above");
            if at > longest {
                break;
            }
            let topics = &mut capture.topics;
            let topic = *names.entry(line.topic.to_owned()).or_insert_with(|| {
                topics.push(line.topic.to_owned());
                topics.len() as u32 - 1
            });
            capture.length_ns = at;
            capture.lines.push(Line { at, topic, data: line.data.get().as_bytes().into() });
        }
        if capture.lines.is_empty() {
            bail!("it holds no publication");
        }
        Ok(capture)
    }

    /// The payload of a line.
    pub fn data(&self, line: u32) -> &[u8] {
        &self.lines[line as usize].data
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        spec::{Arrivals, tests::sample},
        units::{Bytes, Weighted},
    };

    #[test]
    fn a_steady_plan_warms_up_on_every_topic_and_then_keeps_its_rate() {
        let spec = Spec { topics: 3, topics_per_sub: 1, pace: Pace::Rate(Rate(1000.0)), ..sample() };
        let plan = Plan::new(&spec, None);
        assert_eq!((plan.warm, plan.measured_at), (200, 200_000_000));
        let dues: Vec<Due> = plan.collect();
        assert_eq!(dues.len(), 1200);
        assert!(dues.windows(2).all(|pair| pair[1].at - pair[0].at == 1_000_000));
        assert_eq!(dues[4].topic, 1);
    }

    #[test]
    fn chance_decides_of_the_measured_part_only_and_alike_for_all_who_plan() {
        let sizes = vec![Weighted { bytes: Bytes(200), weight: 1.0 }, Weighted { bytes: Bytes(300), weight: 1.0 }];
        let spec = Spec { topics: 7, topic_skew: 1.0, arrivals: Arrivals::Poisson, sizes, ..sample() };
        let plan = Plan::new(&spec, None);
        let (warm, begin, end) = (plan.warm as usize, plan.measured_at, plan.end_at);
        let dues: Vec<Due> = plan.collect();
        assert_eq!(dues, Plan::new(&spec, None).collect::<Vec<Due>>());
        assert!(dues[..warm].iter().enumerate().all(|(nth, due)| due.topic as usize == nth % 7 && due.at < begin));
        assert!(dues[warm..].iter().all(|due| (begin..end).contains(&due.at) && [200, 300].contains(&due.size)));
        assert!(dues.is_sorted_by_key(|due| due.at) && (60..140).contains(&(dues.len() - warm)));
    }

    #[test]
    fn subscribers_with_lists_of_their_own_are_warmed_up_by_what_they_are_measured_with() {
        let watch_list = Some(crate::units::Among { from: 5, to: 200 });
        let spec = Spec { topics: 5000, topics_per_sub: 102, topic_skew: 1.0, watch_list, ..sample() };
        let plan = Plan::new(&spec, None);
        assert_eq!(plan.warm, 980);
        let mut warm = [0; 5000];
        plan.take(980).for_each(|due| warm[due.topic as usize] += 1);
        // The largest share is a ninth.
        assert!((80..150).contains(warm.iter().max().unwrap()));
    }

    #[test]
    fn at_least_twenty_publications_warm_each_subscriber_up() {
        let spec = Spec { pace: Pace::Rate(Rate(10.0)), ..sample() };
        assert_eq!(Plan::new(&spec, None).warm, 20);
    }

    #[test]
    fn a_burst_is_as_dense_as_asked_for_and_ends_its_period() {
        let (rate, burst) = (Rate(100.0), Rate(10_000.0));
        let at = |nth| burst_at(nth, rate, burst, Span::s(1), Span::ms(100));
        assert_eq!((at(0), at(89), at(90), at(91)), (0, 890_000_000, 900_000_000, 900_100_000));
        assert_eq!(at(90 + 1000), 1_000_000_000);
        assert!((1..5000).all(|nth| at(nth) > at(nth - 1)));
    }

    #[test]
    fn a_captured_file_keeps_its_timing_topics_and_bytes() {
        let text =
            "{\"ts_ns\":1000,\"topic\":\"a\",\"data\":{\"p\": 1}}\n\n{\"ts_ns\":3000,\"topic\":\"b\",\"data\":[2]}\n";
        let capture = Capture::parse(text.as_bytes(), u64::MAX).unwrap();
        assert_eq!((capture.len(), capture.length_ns, capture.data(0)), (2, 2000, &b"{\"p\": 1}"[..]));
        assert_eq!(capture.topics, ["a", "b"]);
        let pace = Pace::Replay { file: "x".into(), speed: 2.0 };
        let spec = Spec { topics: 2, topics_per_sub: 2, pace, ..sample() };
        let plan = Plan::new(&spec, Some(Arc::new(capture)));
        let (measured_at, warm) = (plan.measured_at, plan.warm);
        let dues: Vec<Due> = plan.skip(warm as usize).collect();
        let number = warm as u32 + 1;
        assert_eq!(dues[1], Due { at: measured_at + 1000, topic: 1, data: Some(1), size: 128, number });
        assert_eq!(dues.len(), 2);
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = |text: &str| format!("{:#}", Capture::parse(text.as_bytes(), u64::MAX).unwrap_err());
        assert!(error("{\"ts_ns\":1,\"topic\":\"a\",\"data\":1}\nnonsense\n").contains("line 2"));
        let backwards = "{\"ts_ns\":9,\"topic\":\"a\",\"data\":1}\n{\"ts_ns\":10,\"topic\":\"a\",\"data\":1}\n\
                         {\"ts_ns\":9,\"topic\":\"a\",\"data\":1}";
        assert!(error(backwards).contains("line 3"));
        assert!(error("").contains("no publication"));
    }
}
