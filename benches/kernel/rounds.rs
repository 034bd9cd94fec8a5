//! Ways to do the same, measured in turns.

use std::fmt;

/// How often each way has its turn. Odd, so that the median is one of them.
pub const ROUNDS: usize = 15;

/// What was measured of one way.
#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub lowest: f64,
    pub highest: f64,
}

/// Takes a sample of each way, then one more of each, and so on. The first of each warms up and isn't counted.
pub fn interleaved<W: Copy>(ways: &[W], mut sample: impl FnMut(W) -> f64) -> Vec<Spread> {
    let mut samples = vec![Vec::with_capacity(ROUNDS + 1); ways.len()];
    for _ in 0..=ROUNDS {
        ways.iter().zip(&mut samples).for_each(|(way, samples)| samples.push(sample(*way)));
    }
    samples.into_iter().map(|samples| Spread::of(&samples[1..])).collect()
}

impl Spread {
    fn of(samples: &[f64]) -> Spread {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Spread { median: sorted[sorted.len() / 2], lowest: sorted[0], highest: sorted[sorted.len() - 1] }
    }

    /// Whether even its lowest is above the other's highest.
    pub fn is_clearly_above(&self, other: &Spread) -> bool {
        self.lowest > other.highest
    }

    /// Its ratio to another, of the medians.
    pub fn ratio(&self, first: &Spread) -> String {
        format!("× {:.2}", self.median / first.median)
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = if self.median < 100.0 { 1 } else { 0 };
        write!(f, "{:.places$} ({:.places$} to {:.places$})", self.median, self.lowest, self.highest)
    }
}
