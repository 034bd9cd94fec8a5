//! Chance: when publications come, on which topics, and how large they are, and who watches what, where that isn't the same for all.
//!
//! Even arrivals are kind to a server: it never finds two publications at once that it couldn't have had one by one. Of many independent
//! sources they come as a Poisson process, and in markets in groups. All three have the rate that was asked for; what is left to chance
//! follows from the seed, so two servers get the very same sequence, and so does the next session. Arrivals, topics and sizes have
//! generators of their own: changing one leaves the others as they were.

use std::sync::Arc;

use fastrand::Rng;

use crate::{
    spec::{Arrivals, Spec},
    units::Weighted,
};

/// Publications of a group, on average, where they come in groups.
pub const GROUP: f64 = 10.0;

/// When publications are due.
#[derive(Clone, Debug)]
pub struct Moments {
    kind: Arrivals,
    random: Rng,
    at: f64,
    /// Those of the group that are still to come.
    group: u64,
}

/// Which topics they are on.
#[derive(Clone, Debug)]
pub struct Topics {
    random: Rng,
    /// Sums of the weights up to each rank, the last being 1; empty where topics take turns.
    sums: Arc<[f64]>,
    /// The topic of each rank.
    ranks: Arc<[u32]>,
    count: u64,
}

/// How large they are.
#[derive(Clone, Debug)]
pub struct Sizes {
    random: Rng,
    mix: Arc<[Weighted]>,
    usual: usize,
}

/// A generator of its own for each purpose.
fn random(spec: &Spec, purpose: u64) -> Rng {
    Rng::with_seed(spec.seed ^ purpose.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// The same, for each subscriber or topic, by its number: what one draws changes nothing for the next.
pub fn of_one(spec: &Spec, purpose: u64, nth: usize) -> Rng {
    let mut random = random(spec, purpose);
    Rng::with_seed(random.u64(..) ^ (nth as u64 + 1).wrapping_mul(0xD1B5_4A32_D192_ED03))
}

/// The topic of each rank, which is shuffled.
fn ranks(spec: &Spec, random: &mut Rng) -> Vec<u32> {
    let mut ranks: Vec<u32> = (0..spec.topics as u32).collect();
    random.shuffle(&mut ranks);
    ranks
}

/// The weight of each topic: that of rank k has 1/k^skew. How publications are spread, and what subscribers watch.
pub fn weights(spec: &Spec) -> Vec<f64> {
    let mut weights = vec![1.0; spec.topics];
    for (rank, topic) in ranks(spec, &mut random(spec, 2)).into_iter().enumerate() {
        weights[topic as usize] = (rank as f64 + 1.0).powf(-spec.topic_skew);
    }
    weights
}

impl Moments {
    /// Those of a run.
    pub fn new(spec: &Spec) -> Self {
        Self { kind: spec.arrivals, random: random(spec, 1), at: 0.0, group: 0 }
    }

    /// When the next publication, which is the `nth`, is due, in nanoseconds after the first could be.
    pub fn draw(&mut self, nth: u64, rate: f64) -> u64 {
        match self.kind {
            // Computed anew for each, so that no error adds up.
            Arrivals::Even => return (nth as f64 * (1e9 / rate)) as u64,
            Arrivals::Poisson => self.at += self.gap(rate),
            Arrivals::Bursty if self.group > 0 => self.group -= 1,
            Arrivals::Bursty => {
                self.at += self.gap(rate / GROUP);
                self.group = self.geometric() - 1;
            }
        }
        self.at as u64
    }

    /// Time between two independent events, so many a second.
    fn gap(&mut self, rate: f64) -> f64 {
        -(1.0 - self.random.f64()).ln() * 1e9 / rate
    }

    /// A number from 1 up, [`GROUP`] on average.
    fn geometric(&mut self) -> u64 {
        1 + ((1.0 - self.random.f64()).ln() / (1.0 - 1.0 / GROUP).ln()) as u64
    }
}

impl Topics {
    /// Those of a run: the topic of rank k has a share as 1/k^skew, and which topic has which rank is shuffled.
    pub fn new(spec: &Spec) -> Self {
        let mut random = random(spec, 2);
        if spec.topic_skew == 0.0 {
            return Self { random, sums: Arc::default(), ranks: Arc::default(), count: spec.topics as u64 };
        }
        let ranks = ranks(spec, &mut random);
        let weights = (1..=spec.topics).map(|rank| (rank as f64).powf(-spec.topic_skew));
        let mut sums: Vec<f64> = weights.scan(0.0, |sum, weight| Some(add(sum, weight))).collect();
        let whole = sums.last().copied().unwrap_or(1.0);
        sums.iter_mut().for_each(|sum| *sum /= whole);
        Self { random, sums: sums.into(), ranks: ranks.into(), count: spec.topics as u64 }
    }

    /// The topic of the `nth` publication.
    pub fn draw(&mut self, nth: u64) -> u32 {
        if self.sums.is_empty() {
            return (nth % self.count) as u32;
        }
        let drawn = self.random.f64();
        let rank = self.sums.partition_point(|sum| *sum <= drawn).min(self.ranks.len() - 1);
        self.ranks[rank]
    }
}

impl Sizes {
    /// Those of a run.
    pub fn new(spec: &Spec) -> Self {
        Self { random: random(spec, 3), mix: spec.sizes.as_slice().into(), usual: spec.size }
    }

    /// The next payload's size.
    pub fn draw(&mut self) -> usize {
        if self.mix.is_empty() {
            return self.usual;
        }
        let mut drawn = self.random.f64() * self.mix.iter().map(|one| one.weight).sum::<f64>();
        for one in self.mix.iter() {
            drawn -= one.weight;
            if drawn < 0.0 {
                return one.bytes.0;
            }
        }
        self.usual
    }
}

fn add(sum: &mut f64, weight: f64) -> f64 {
    *sum += weight;
    *sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{spec::tests::sample, units::Bytes};

    const RATE: f64 = 1_000.0;

    fn moments(arrivals: Arrivals, seed: u64) -> Vec<u64> {
        let mut moments = Moments::new(&Spec { arrivals, seed, ..sample() });
        (0..50_000).map(|nth| moments.draw(nth, RATE)).collect()
    }

    /// Mean of the gaps, and their variance as a multiple of the mean's square.
    fn gaps(moments: &[u64]) -> (f64, f64) {
        let gaps: Vec<f64> = moments.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (mean, variance / mean.powi(2))
    }

    #[test]
    fn arrivals_keep_their_rate_and_differ_in_how_they_cluster() {
        // The variance of exponential gaps is 1; of groups of 10, 2 · 10 - 1.
        for (arrivals, scatter) in [(Arrivals::Even, 0.0), (Arrivals::Poisson, 1.0), (Arrivals::Bursty, 19.0)] {
            let (mean, variance) = gaps(&moments(arrivals, 7));
            assert!((mean / 1e6 - 1.0).abs() < 0.05, "{arrivals:?}: {mean}");
            assert!((variance - scatter).abs() <= 0.15 * scatter, "{arrivals:?}: {variance}");
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_sequence_and_another_another() {
        assert_eq!(moments(Arrivals::Poisson, 7), moments(Arrivals::Poisson, 7));
        assert_ne!(moments(Arrivals::Poisson, 7), moments(Arrivals::Poisson, 8));
    }

    #[test]
    fn skewed_topics_have_shares_that_fall_with_their_rank() {
        let spec = Spec { topics: 100, topic_skew: 1.0, ..sample() };
        let mut topics = Topics::new(&spec);
        let mut counts = vec![0.0f64; 100];
        (0..200_000).for_each(|nth| counts[topics.draw(nth) as usize] += 1.0);
        counts.sort_by(|a, b| b.total_cmp(a));
        // The harmonic number of 100 is 5.187.
        for (rank, count) in [(1.0, counts[0]), (2.0, counts[1]), (10.0, counts[9])] {
            let expected = 200_000.0 / 5.187 / rank;
            assert!((count / expected - 1.0).abs() < 0.1, "rank {rank}: {count}, expected {expected}");
        }
        assert!(counts[99] > 0.0);
    }

    #[test]
    fn topics_without_skew_take_turns() {
        let mut topics = Topics::new(&Spec { topics: 3, ..sample() });
        assert_eq!((0..6).map(|nth| topics.draw(nth)).collect::<Vec<u32>>(), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn sizes_come_as_often_as_their_weights_say() {
        let sizes = vec![
            Weighted { bytes: Bytes(128), weight: 90.0 },
            Weighted { bytes: Bytes(4096), weight: 9.0 },
            Weighted { bytes: Bytes(65536), weight: 1.0 },
        ];
        let mut sizes = Sizes::new(&Spec { sizes, ..sample() });
        let all: Vec<usize> = (0..100_000).map(|_| sizes.draw()).collect();
        for (size, share) in [(128, 0.9), (4096, 0.09), (65536, 0.01)] {
            let found = all.iter().filter(|one| **one == size).count() as f64 / 1e5;
            assert!((found / share - 1.0).abs() < 0.1, "{size}: {found}");
        }
    }
}
