//! Samples: which percentiles may be said of how much.
//!
//! A publication that is late is late for everybody: a thousand deliveries of it are one sample of its delay, not a thousand. So
//! what a percentile needs is counted in publications, however many deliveries are in the histogram: ten have to lie beyond it,
//! which are 1,000 in all for p99 and 10,000 for p99.9. With fewer it is the story of a few moments, and the next run tells another; then
//! it says so, where the figure would stand. Runs against one target are pooled.

use std::fmt;

use crate::{
    figures::Run,
    meter::{Times, add, times},
    units::count,
};

/// The percentiles of a table, by their names.
pub const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// Samples that have to lie beyond a percentile: of ten, the last few decide nothing alone.
const BEYOND: f64 = 10.0;

/// There are fewer samples than a percentile needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// So many are there.
    pub have: u64,
    /// So many are needed.
    pub need: u64,
}

impl fmt::Display for TooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "too few ({} of {})", count(self.have), count(self.need))
    }
}

/// Samples that a percentile needs; a median says by itself of how few it is.
pub fn needed(quantile: f64) -> u64 {
    if quantile < 0.9 { 0 } else { (BEYOND / (1.0 - quantile)).round() as u64 }
}

/// Whether so many samples are enough for a percentile.
///
/// # Errors
/// They are not.
pub fn enough(quantile: f64, have: u64) -> Result<(), TooFew> {
    let need = needed(quantile);
    if have >= need { Ok(()) } else { Err(TooFew { have, need }) }
}

/// Latencies of several runs against one target, together.
pub struct Pool {
    /// All deliveries.
    pub latency: Times,
    /// Of so many publications.
    pub publications: u64,
}

impl Pool {
    /// Of those runs whose publications were due at planned moments; none where there is no such delivery.
    pub fn of<'a>(runs: impl IntoIterator<Item = &'a Run>) -> Option<Self> {
        let mut pool = Self { latency: times(), publications: 0 };
        for run in runs.into_iter().filter(|run| run.open_loop) {
            // A result whose histogram can't be read has none.
            add(&mut pool.latency, &run.latency().ok()?);
            pool.publications += run.publications;
        }
        (!pool.latency.is_empty()).then_some(pool)
    }

    /// A percentile in nanoseconds.
    ///
    /// # Errors
    /// There are too few publications for it.
    pub fn quantile(&self, quantile: f64) -> Result<f64, TooFew> {
        enough(quantile, self.publications).map(|()| self.latency.value_at_quantile(quantile) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_samples_lie_beyond_a_percentile() {
        let need = QUANTILES.map(|(_, quantile)| needed(quantile));
        assert_eq!(need, [0, 100, 1_000, 10_000, 100_000]);
        assert_eq!(enough(0.99, 1_000), Ok(()));
        assert_eq!(enough(0.999, 1_000).unwrap_err().to_string(), "too few (1,000 of 10,000)");
    }

    #[test]
    fn a_thousand_deliveries_of_one_publication_are_one_sample() {
        let mut pool = Pool { latency: times(), publications: 1 };
        pool.latency.record_n(5_000_000, 1_000).unwrap();
        assert_eq!(pool.quantile(0.99), Err(TooFew { have: 1, need: 1_000 }));
        pool.publications = 1_000;
        assert!(pool.quantile(0.99).is_ok_and(|ns| ns >= 5e6));
    }
}
