//! Watch lists: which topics each subscriber has, and whether their newest values are enough for it.
//!
//! Usually these are as many for each, one subscriber's behind the last one's, so that any number of subscribers is spread evenly over the topics. In a
//! mix each has a list of its own, as people have: its length is anything within a range, and its topics are chosen by the same shares by which
//! publications come ([`chance::weights`]), none of them twice. So what much is published on is watched by many, and hardly two lists are alike.
//!
//! A list follows from the seed and the subscriber's number alone: every process of a run, and every server that is compared, has the same.

use std::sync::Arc;

use crate::{chance, spec::Spec};

/// The topics of one subscriber, each of which has a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchList {
    /// So many from the first on, of so many in all; behind the last comes topic 0.
    Run {
        /// The first.
        first: usize,
        /// How many.
        len: usize,
        /// Topics of the run.
        of: usize,
    },
    /// These, in order.
    Own(Arc<[u32]>),
}

impl WatchList {
    /// How many topics are on it.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self {
            Self::Run { len, .. } => *len,
            Self::Own(topics) => topics.len(),
        }
    }

    /// The topic at a place.
    pub fn topic(&self, place: usize) -> usize {
        match self {
            Self::Run { first, of, .. } => (first + place) % of,
            Self::Own(topics) => topics[place] as usize,
        }
    }

    /// All of them, by their places.
    pub fn topics(&self) -> Vec<usize> {
        (0..self.len()).map(|place| self.topic(place)).collect()
    }

    /// Where a topic is; none if it isn't on the list.
    #[inline]
    pub fn place(&self, topic: u32) -> Option<usize> {
        match self {
            Self::Run { first, len, of } => {
                let ahead = topic.wrapping_sub(*first as u32);
                let place = if topic < *first as u32 { ahead.wrapping_add(*of as u32) } else { ahead } as usize;
                (place < *len).then_some(place)
            }
            Self::Own(topics) => topics.binary_search(&topic).ok(),
        }
    }
}

/// The lists of all subscribers of one process.
#[derive(Clone, Debug)]
pub struct WatchLists {
    topics: usize,
    each: usize,
    /// Subscribers of the processes before it.
    before: usize,
    own: Vec<Arc<[u32]>>,
}

impl WatchLists {
    /// Those of a run.
    pub fn new(spec: &Spec) -> Self {
        let (before, count) = spec.share_of_subs();
        let own = if spec.watch_list.is_some() {
            let weights = chance::weights(spec);
            (before..before + count).map(|nth| chosen(spec, &weights, nth)).collect()
        } else {
            Vec::new()
        };
        Self { topics: spec.topics, each: spec.topics_per_sub, before, own }
    }

    /// The list of the `nth` subscriber, over all processes.
    pub fn of(&self, nth: usize) -> WatchList {
        match self.own.get(nth.wrapping_sub(self.before)) {
            Some(topics) => WatchList::Own(Arc::clone(topics)),
            None => WatchList::Run { first: nth * self.each % self.topics, len: self.each, of: self.topics },
        }
    }
}

/// A list of its own for the `nth` subscriber. Chosen one after the other by weights, without putting any back, is the same as giving each an
/// exponential time of its weight and taking those that are over first (Efraimidis and Spirakis, 2006).
fn chosen(spec: &Spec, weights: &[f64], nth: usize) -> Arc<[u32]> {
    let mut random = chance::of_one(spec, 4, nth);
    let range = spec.watch_list.expect("a run with lists of their own");
    let len = random.usize(range.from..=range.to);
    let time = |weight: &f64| -(1.0 - random.f64()).ln() / weight;
    let mut times: Vec<(f64, u32)> = weights.iter().map(time).zip(0..).collect();
    if len < times.len() {
        times.select_nth_unstable_by(len, |a, b| a.0.total_cmp(&b.0));
    }
    let mut topics: Vec<u32> = times[..len].iter().map(|(_, topic)| *topic).collect();
    topics.sort_unstable();
    topics.into()
}

/// Whether the `nth` subscriber is content with newest values.
pub fn is_latest(spec: &Spec, nth: usize) -> bool {
    let share = spec.latest_share.map_or(0.0, |share| share.0);
    spec.dialect.latest || (share > 0.0 && chance::of_one(spec, 6, nth).f64() < share)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        spec::{Disturbance, Part, tests::sample},
        units::{Among, Bytes, Share},
    };

    fn mix() -> Spec {
        Spec { subs: 300, topics: 1000, topic_skew: 1.0, watch_list: Some(Among { from: 5, to: 200 }), ..sample() }
    }

    #[test]
    fn lists_of_their_own_have_every_length_and_no_topic_twice() {
        let lists = WatchLists::new(&mix());
        let all: Vec<WatchList> = (0..300).map(|nth| lists.of(nth)).collect();
        assert!(all.iter().all(|list| (5..=200).contains(&list.len())));
        assert!(all.iter().any(|list| list.len() < 25) && all.iter().any(|list| list.len() > 180));
        let distinct: HashSet<Vec<usize>> = all.iter().map(WatchList::topics).collect();
        assert_eq!(distinct.len(), 300);
        for list in &all {
            let topics = list.topics();
            assert!(topics.is_sorted_by(|a, b| a < b) && topics.iter().all(|topic| *topic < 1000));
            let places = |topic: usize| list.place(topic as u32);
            assert!(topics.iter().enumerate().all(|(place, topic)| places(*topic) == Some(place)));
            assert_eq!((0..1000).filter(|topic| places(*topic).is_some()).count(), topics.len());
        }
    }

    #[test]
    fn what_much_is_published_on_is_watched_by_many() {
        let (spec, mut watchers) = (mix(), vec![0; 1000]);
        let lists = WatchLists::new(&spec);
        (0..300).flat_map(|nth| lists.of(nth).topics()).for_each(|topic| watchers[topic] += 1);
        let weights = chance::weights(&spec);
        let mut ranks: Vec<usize> = (0..1000).collect();
        ranks.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
        let mean = |ranks: &[usize]| ranks.iter().map(|topic| watchers[*topic]).sum::<i32>() / ranks.len() as i32;
        // Of lists of a hundred on average, that hold a tenth of all topics.
        assert!(mean(&ranks[..3]) > 250 && (10..40).contains(&mean(&ranks[300..])), "{}", mean(&ranks[..3]));
    }

    #[test]
    fn a_list_follows_from_the_seed_and_is_the_same_in_every_process() {
        let whole = WatchLists::new(&mix());
        let part = WatchLists::new(&Spec { part: Part { index: 1, of: 3 }, ..mix() });
        assert!((100..200).all(|nth| whole.of(nth) == part.of(nth)));
        assert_ne!(whole.of(7), WatchLists::new(&Spec { seed: 2, ..mix() }).of(7));
    }

    #[test]
    fn without_them_topics_take_turns() {
        let lists = WatchLists::new(&Spec { topics: 5, topics_per_sub: 2, ..sample() });
        let topics: Vec<Vec<usize>> = (0..3).map(|nth| lists.of(nth).topics()).collect();
        assert_eq!(topics, [[0, 1], [2, 3], [4, 0]]);
        let places: Vec<Option<usize>> = (0..5).map(|topic| lists.of(2).place(topic)).collect();
        assert_eq!(places, [Some(1), None, None, None, Some(0)]);
    }

    #[test]
    fn newest_values_are_for_about_as_many_as_asked_for_slow_or_not() {
        let disturbance = Disturbance::Slow { share: Share(0.1), read: Bytes(1024) };
        let spec = Spec { subs: 3000, latest_share: Some(Share(1.0 / 3.0)), disturbance, ..sample() };
        let latest: Vec<usize> = (0..3000).filter(|&nth| is_latest(&spec, nth)).collect();
        let slow = latest.iter().filter(|&&nth| spec.disturbs(nth)).count();
        assert!((900..1100).contains(&latest.len()) && (70..130).contains(&slow), "{} {slow}", latest.len());
        assert_eq!((0..3000).filter(|&nth| is_latest(&sample(), nth)).count(), 0);
    }
}
