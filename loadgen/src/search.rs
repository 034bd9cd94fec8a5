//! The search for the highest rate that a server holds.
//!
//! A rate holds where a run at it has no fault and a condition, such as `p99<5ms`, is true of it. From the first rate on it is doubled
//! until one fails, or halved until one holds; then the geometric middle of the highest that held and the lowest that failed is tried,
//! until these are within [`WITHIN`] of each other. One run may be lucky, so the highest is run again: where it fails then, it counts as
//! failed, and the search goes on below. Each probe is a run of its own, with new connections, long enough for the publications that the
//! condition's percentile needs.

use anyhow::{Result, ensure};

use crate::{
    doubts,
    figures::{Found, Probe, Run},
    samples,
    server::ServerFigures,
    spec::{Pace, Spec},
    thresholds::Condition,
    units::{Rate, Span, short},
};

/// Where it begins, if it isn't said.
pub const FIRST: Rate = Rate(100.0);

/// How far the lowest rate that failed may lie above the highest that held: nearer, the machine's own moods decide.
pub const WITHIN: f64 = 0.05;

/// Probes at most. From 100/s to 1M/s and back it takes about twenty.
const PROBES_MAX: usize = 40;

/// A probe isn't longer than this, however rare its publications are, unless a longer duration was asked for.
const PROBE_LONGEST: Span = Span::s(60);

/// Publications above those that a percentile needs: where they come by chance, they are not exactly as many.
const RESERVE: f64 = 1.1;

/// What is known so far.
#[derive(Clone, Debug)]
pub struct Search {
    first: f64,
    lowest: f64,
    /// Rates that held, each with how often, in order.
    held: Vec<(f64, usize)>,
    failed: Option<f64>,
    probes: usize,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// A run at this rate.
    Probe(f64),
    /// Nothing: this is the highest rate, which held twice.
    Found(f64),
    /// Nothing: no rate held twice; this is the lowest that failed.
    Nothing(f64),
}

impl Search {
    /// A search that begins at `first` and doesn't go below `lowest`.
    pub fn new(first: Rate, lowest: f64) -> Self {
        Self { first: round(first.0.max(lowest)), lowest, held: Vec::new(), failed: None, probes: 0 }
    }

    /// What to do.
    pub fn next(&self) -> Next {
        let below = self.failed.unwrap_or(f64::MAX);
        let low = self.held.iter().rev().find(|(rate, _)| *rate < below);
        if self.probes >= PROBES_MAX {
            return match self.held.iter().rev().find(|(rate, times)| *rate < below && *times > 1) {
                Some((rate, _)) => Next::Found(*rate),
                None => Next::Nothing(below),
            };
        }
        match (low, self.failed) {
            (None, None) => Next::Probe(self.first),
            (Some((low, _)), None) => Next::Probe(round(low * 2.0)),
            (None, Some(high)) if high / 2.0 < self.lowest => Next::Nothing(high),
            (None, Some(high)) => Next::Probe(round(high / 2.0)),
            (Some((low, times)), Some(high)) => {
                let middle = round((low * high).sqrt());
                match high / low > 1.0 + WITHIN && middle > *low && middle < high {
                    true => Next::Probe(middle),
                    false if *times > 1 => Next::Found(*low),
                    false => Next::Probe(*low),
                }
            }
        }
    }

    /// Enters what came of a probe.
    pub fn enter(&mut self, rate: f64, held: bool) {
        self.probes += 1;
        if !held {
            self.failed = Some(self.failed.map_or(rate, |failed| failed.min(rate)));
            return;
        }
        match self.held.iter_mut().find(|(known, _)| *known == rate) {
            Some((_, times)) => *times += 1,
            None => self.held.push((rate, 1)),
        }
        self.held.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
}

impl Probe {
    /// What came of a run.
    pub fn of(rate: f64, condition: &Condition, run: &Run) -> Self {
        let outcome = condition.judge(&[run]);
        let wrong: Vec<String> = run.ended.iter().chain(&run.faults).cloned().collect();
        Self {
            rate,
            seconds: run.seconds,
            deliveries_per_s: run.deliveries_per_s(),
            held: outcome.holds == Some(true) && wrong.is_empty(),
            found: if wrong.is_empty() { outcome.found } else { wrong.join(", ") },
            saturated: doubts::saturated_side(run).into(),
            server_busy: run.server.as_ref().map(ServerFigures::busy),
            generator_busy: run.generator.busiest(),
            doubts: run.doubts.clone(),
        }
    }
}

/// Refuses what can't be searched for.
///
/// # Errors
/// The condition is none of its kind, or these settings have no rate to vary.
pub fn check(condition: &Condition, spec: &Spec) -> Result<()> {
    ensure!(
        condition.holds_below(),
        "`{condition}`: what has to hold is an upper bound, like 'p99<5ms', or 'delivered>95%'"
    );
    ensure!(
        matches!(spec.pace, Pace::Rate(_)),
        "this scenario has no --rate to vary: take fanout, churn, slow, storm, join or echo"
    );
    condition.check(spec)
}

/// How long a probe is, so that its percentile has the publications that it needs.
pub fn length(rate: f64, quantile: Option<f64>, asked: Span) -> Span {
    let needed = quantile.map_or(0.0, |quantile| samples::needed(quantile) as f64 * RESERVE / rate);
    Span(((needed * 1e9).ceil() as u64).clamp(asked.0, PROBE_LONGEST.max(asked).0))
}

/// The lowest rate whose probe is long enough: for the percentile, or for some publications at all.
pub fn lowest(quantile: Option<f64>, asked: Span) -> f64 {
    const SOME: f64 = 10.0;
    match quantile.map_or(0, samples::needed) {
        0 => SOME / asked.seconds().max(1e-3),
        needed => needed as f64 * RESERVE / PROBE_LONGEST.max(asked).seconds(),
    }
}

/// In three figures: nobody finds more, and they can be read.
fn round(rate: f64) -> f64 {
    let unit = 10f64.powi(rate.log10().floor() as i32 - 2);
    (rate / unit).round() * unit
}

impl Found {
    /// Why the rate may not be the server's limit.
    pub fn doubts(&self) -> Vec<String> {
        let Some(rate) = self.rate else { return Vec::new() };
        let failed = self.probes.iter().filter(|probe| !probe.held && probe.rate >= rate);
        let nearest = failed.min_by(|a, b| a.rate.total_cmp(&b.rate));
        let doubt = |probe: &Probe| {
            let rate = short(probe.rate);
            format!(
                "at {rate}/s, where it did not hold, the saturated side was the generator: the server may hold more"
            )
        };
        nearest.filter(|probe| probe.saturated == "generator").map(doubt).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a server that holds up to `limit`, `luck` deciding of each probe whether it fails all the same.
    fn search(first: f64, limit: f64, mut luck: impl FnMut(usize, f64) -> bool) -> (Next, Vec<f64>) {
        let mut search = Search::new(Rate(first), 20.0);
        let mut probes = Vec::new();
        loop {
            match search.next() {
                Next::Probe(rate) => {
                    let held = rate <= limit && luck(probes.len(), rate);
                    search.enter(rate, held);
                    probes.push(rate);
                }
                end => return (end, probes),
            }
        }
    }

    #[test]
    fn the_highest_rate_is_found_from_below_and_from_above_and_held_twice() {
        for first in [25.0, 1_000.0, 100_000.0] {
            let (found, probes) = search(first, 7_777.0, |_, _| true);
            let Next::Found(rate) = found else { panic!("{found:?}") };
            assert!((7_777.0 / (1.0 + WITHIN) - 10.0..=7_777.0).contains(&rate), "{rate}");
            assert_eq!(probes.iter().filter(|probe| **probe == rate).count(), 2, "{probes:?}");
            assert!(probes.len() <= 20, "{probes:?}");
        }
    }

    #[test]
    fn a_rate_that_held_by_luck_is_not_the_result() {
        // Above 5,000 only the first probe of a rate holds.
        let mut seen = Vec::new();
        let (found, probes) = search(1_000.0, 8_000.0, |_, rate| {
            let again = seen.contains(&rate.to_bits());
            seen.push(rate.to_bits());
            rate <= 5_000.0 || !again
        });
        assert!(matches!(found, Next::Found(rate) if rate <= 5_000.0 && rate > 3_900.0), "{found:?} {probes:?}");
    }

    #[test]
    fn a_search_ends_whatever_happens() {
        assert!(matches!(search(1_000.0, 0.0, |_, _| true).0, Next::Nothing(rate) if (20.0..40.0).contains(&rate)));
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (_, probes) = search(500.0, f64::MAX, |_, _| random.bool());
            assert!(probes.len() <= PROBES_MAX, "seed {seed}: {probes:?}");
        }
    }

    #[test]
    fn a_probe_lasts_until_its_percentile_has_its_publications_but_not_for_ever() {
        assert_eq!(length(10_000.0, Some(0.99), Span::s(10)), Span::s(10));
        assert_eq!(length(50.0, Some(0.99), Span::s(10)), Span::s(22));
        assert_eq!(length(1.0, Some(0.99), Span::s(10)), Span::s(60));
        assert_eq!(length(1.0, None, Span::s(10)), Span::s(10));
        assert_eq!((lowest(Some(0.99), Span::s(10)).round(), lowest(None, Span::s(10))), (18.0, 1.0));
    }

    #[test]
    fn a_limit_of_the_generators_is_doubtful() {
        let probe = |rate, held, saturated: &str| Probe {
            rate,
            held,
            saturated: saturated.into(),
            server_busy: None,
            generator_busy: 0.5,
            seconds: 1.0,
            deliveries_per_s: 1.0,
            found: String::new(),
            doubts: Vec::new(),
        };
        let of = |side: &str| Found {
            rate: Some(100.0),
            probes: vec![probe(200.0, false, "server"), probe(105.0, false, side), probe(100.0, true, "neither")],
            ..Found::default()
        };
        assert!(of("generator").doubts()[0].contains("at 105/s"));
        assert!(of("server").doubts().is_empty() && of("neither").doubts().is_empty());
    }
}
