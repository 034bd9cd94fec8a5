//! Paired ratios: what one server took to what another took, round by round, and how sure that is.
//!
//! The runs of a round lie within a minute and met the same machine, so each round gives one ratio, and what moves both of its sides is gone from it.
//! The figure is the geometric mean of the rounds' ratios, since twice and half are equally far from the same. Its interval is Student's, at 95 %, of
//! their logarithms: with n rounds, mean ± t(n-1) s/√n. Few rounds make it wide, as they should: t is 4.3 with three, 2.6 with six. It says how
//! far another session of as many rounds on this machine could be off, and nothing of other machines.

use std::fmt;

/// A ratio of several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The geometric mean.
    pub mean: f64,
    /// Its interval at 95 %; none of one round.
    pub interval: Option<(f64, f64)>,
    /// Rounds that it is of.
    pub rounds: usize,
}

impl Ratio {
    /// Of pairs, each of which is the one's figure and the other's; none where there is no pair. Figures are above 0.
    pub fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        let usable = |&(own, base): &(f64, f64)| (own > 0.0 && base > 0.0).then(|| (own / base).ln());
        let logs: Vec<f64> = pairs.iter().filter_map(usable).collect();
        let n = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / n;
        let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let half = |t: f64| t * (variance / n).sqrt();
        let interval = |t: f64| ((mean - half(t)).exp(), (mean + half(t)).exp());
        let known = logs.len().checked_sub(2).map(|nth| T[nth.min(T.len() - 1)]);
        (!logs.is_empty()).then(|| Self { mean: mean.exp(), interval: known.map(interval), rounds: logs.len() })
    }
}

impl fmt::Display for Ratio {
    /// `1.13 (1.05 to 1.21)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = super::super::question::factor;
        f.write_str(&show(self.mean))?;
        match self.interval {
            Some((low, high)) => write!(f, " ({} to {})", show(low), show(high)),
            None => f.write_str(" (one round)"),
        }
    }
}

/// Student's t at 97.5 %, for 1 to 30 degrees of freedom; with more it is not much less (1.96 in the end).
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_both_sides_of_a_round_moves_nothing() {
        let ratio = Ratio::of(&[(2.0, 1.0), (20.0, 10.0), (0.2, 0.1)]).unwrap();
        let (low, high) = ratio.interval.unwrap();
        assert!((ratio.mean - 2.0).abs() < 1e-9 && (low - 2.0).abs() < 1e-9 && (high - 2.0).abs() < 1e-9, "{ratio:?}");
    }

    #[test]
    fn the_interval_is_students() {
        // Logarithms 0.0, 0.1, 0.2: mean 0.1, s 0.1, and 4.303 * 0.1 / sqrt(3) is 0.2484 on either side.
        let ratio = Ratio::of(&[0.0f64, 0.1, 0.2].map(|log| (log.exp(), 1.0))).unwrap();
        let (low, high) = ratio.interval.unwrap();
        assert!((ratio.mean.ln() - 0.1).abs() < 1e-9 && ratio.rounds == 3, "{ratio:?}");
        assert!((low.ln() + 0.1484).abs() < 1e-3 && (high.ln() - 0.3484).abs() < 1e-3, "{ratio:?}");
        assert_eq!(ratio.to_string(), "1.11 (0.86 to 1.42)");
    }

    #[test]
    fn one_round_has_no_interval_and_none_has_no_ratio() {
        assert_eq!(Ratio::of(&[(3.0, 2.0)]).unwrap().to_string(), "1.50 (one round)");
        assert_eq!((Ratio::of(&[]), Ratio::of(&[(0.0, 1.0), (1.0, 0.0)])), (None, None));
    }

    /// Of normal logarithms, the interval holds the truth in 95 of 100 sessions, however few their rounds.
    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut normal = || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        for rounds in [2, 3, 5, 12] {
            let mut session = || (0..rounds).map(|_| ((0.1 * normal()).exp(), 1.0)).collect::<Vec<(f64, f64)>>();
            let holds = |ratio: Ratio| ratio.interval.is_some_and(|(low, high)| low <= 1.0 && 1.0 <= high);
            let held = (0..4_000).filter(|_| Ratio::of(&session()).is_some_and(holds)).count();
            assert!((3_720..=3_880).contains(&held), "{rounds} rounds: {held} of 4,000");
        }
    }
}
