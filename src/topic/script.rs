//! Operation scripts on the table of topics and on that of subscriptions, with plain maps beside them. Property tests make
//! them at random, the fuzzer where they lead to new code (`fuzz/`).

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{Registry, Subscriptions, TopicId};
use crate::publication::Kind;

pub const NAMES: [&str; 8] = ["a", "b", "a.b", "a.c", "a.*", "*.b", "a.>", ">"];

/// How many of them are topics and not patterns.
pub const TOPICS: usize = 4;

#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A publication of this length on this topic.
    Publish(usize, u16),
    /// A snapshot of this topic is kept in hand from now on.
    Hold(usize),
    Forget(usize),
    /// The tape lets go of so many publications.
    LetGo(u64),
    /// One subscription to each of these names, by the bits of a number.
    Subscribe(u8),
    /// One subscription less, of those made so far.
    Unsubscribe(usize),
}

/// What is known of one topic.
struct Known {
    id: TopicId,
    epoch: u64,
    seq: u64,
    end: u64,
    /// Where its publications are.
    positions: Vec<u64>,
    value: Option<Vec<u8>>,
}

/// The plain maps, and the tables that they are compared with.
pub struct Twin {
    registry: Registry,
    topics_max: usize,
    values_max: usize,
    topics: BTreeMap<&'static str, Known>,
    /// Every identity and every numbering that there ever was.
    ids: HashSet<TopicId>,
    numberings: HashSet<(&'static str, u64)>,
    /// Slots that rest, with the position after the last publication of their topic.
    resting: Vec<(u32, u64)>,
    /// The position after the last publication of all that were forgotten.
    forgotten: u64,
    head: u64,
    tail: u64,
    held: Vec<(Arc<Vec<u8>>, Vec<u8>)>,
    subscriptions: Subscriptions,
    subscribed: Vec<Arc<str>>,
    subscriptions_max: usize,
}

impl Twin {
    pub fn new(topics_max: usize, values_max: usize, subscriptions_max: usize) -> Twin {
        Twin {
            registry: Registry::new(topics_max, values_max, 7),
            topics_max,
            values_max,
            topics: BTreeMap::new(),
            ids: HashSet::new(),
            numberings: HashSet::new(),
            resting: Vec::new(),
            forgotten: 0,
            head: 0,
            tail: 0,
            held: Vec::new(),
            subscriptions: Subscriptions::new(subscriptions_max),
            subscribed: Vec::new(),
            subscriptions_max,
        }
    }

    pub fn take(&mut self, step: Step) {
        match step {
            Step::Publish(topic, len) => self.publish(NAMES[topic % TOPICS], len.into()),
            Step::Hold(topic) => {
                if let Some(last) = self.registry.find(NAMES[topic % TOPICS]).and_then(|topic| topic.last.as_ref()) {
                    self.held.push((Arc::clone(&last.payload), last.payload.to_vec()));
                }
            }
            Step::Forget(topic) => self.forget(NAMES[topic % TOPICS]),
            Step::LetGo(count) => {
                self.tail = (self.tail + count).min(self.head);
                self.registry.rest_until(self.tail);
                self.registry.trim(0..u32::MAX, self.tail);
                self.resting.retain(|(_, end)| *end > self.tail);
            }
            Step::Subscribe(names) => self.subscribe(names),
            Step::Unsubscribe(which) if !self.subscribed.is_empty() => {
                let name = self.subscribed.swap_remove(which % self.subscribed.len());
                self.subscriptions.remove([name].iter());
            }
            Step::Unsubscribe(_) => {}
        }
        self.compare();
    }

    fn publish(&mut self, name: &'static str, len: usize) {
        let is_new = !self.topics.contains_key(name);
        let topic = match self.registry.find_or_make::<super::RegistryFull>(name, None, || Ok(None)) {
            Err(_) => return assert!(is_new && self.topics.len() == self.topics_max),
            Ok(topic) => topic,
        };
        topic.number(self.head, self.head, 0, self.tail);
        self.head += 1;
        let (id, epoch) = (topic.id, topic.epoch.0);
        if is_new {
            assert!(self.ids.insert(id), "{id:?} was another topic before");
            assert!(self.numberings.insert((name, epoch)), "{name} was numbered in epoch {epoch} before");
            assert!(self.resting.iter().all(|(slot, _)| *slot != id.slot), "slot {} rests", id.slot);
            self.topics.insert(name, Known { id, epoch, seq: 0, end: 0, positions: Vec::new(), value: None });
        }
        let others = self.rooms(Some(name));
        let known = self.topics.get_mut(name).expect("it was made");
        (known.seq, known.end) = (known.seq + 1, self.head);
        known.positions.push(self.head - 1);
        let value = vec![self.head as u8; len];
        // A topic without a value leaves an eighth to those that have one.
        let most = self.values_max - if known.value.is_none() { self.values_max / 8 } else { 0 };
        known.value = (others + len <= most).then_some(value.clone());
        assert_eq!(self.registry.keep(id.slot, self.head, Kind::Text, &value, None), known.value.is_some());
    }

    /// Room of the values of all topics but one.
    fn rooms(&self, but: Option<&str>) -> usize {
        let others = self.topics.keys().filter(|name| but != Some(**name));
        let room = |name: &&str| Some(self.registry.find(name)?.last.as_ref()?.payload.capacity());
        others.filter_map(room).sum()
    }

    fn forget(&mut self, name: &'static str) {
        let Some(known) = self.topics.remove(name) else { return };
        self.registry.forget(known.id.slot);
        self.resting.push((known.id.slot, known.end));
        self.forgotten = self.forgotten.max(known.end);
    }

    fn subscribe(&mut self, names: u8) {
        let names: Vec<&str> = (0..NAMES.len()).filter(|bit| names >> bit & 1 == 1).map(|at| NAMES[at]).collect();
        let fits = self.subscribed.len() + names.len() <= self.subscriptions_max;
        match self.subscriptions.add(names.iter().copied()) {
            Ok(shared) => {
                assert!(fits && shared.iter().map(|name| &**name).eq(names));
                self.subscribed.extend(shared);
            }
            Err(_) => assert!(!fits),
        }
    }

    fn compare(&self) {
        assert_eq!((self.registry.len(), self.registry.forgotten()), (self.topics.len(), self.forgotten));
        assert_eq!(self.registry.value_bytes(), self.rooms(None));
        assert!(self.registry.value_bytes() <= self.values_max);
        for (name, known) in &self.topics {
            let topic = self.registry.find(name).expect("it is known");
            assert_eq!(self.registry.at(known.id.slot).map(|topic| &*topic.name), Some(*name));
            assert_eq!((topic.id, topic.epoch.0, topic.seq, topic.end), (known.id, known.epoch, known.seq, known.end));
            for (at, position) in known.positions.iter().enumerate().filter(|(_, position)| **position >= self.tail) {
                let near = topic.near(at as u64 + 1).expect("there is such a number");
                let after = known.positions[at..].iter().position(|later| *later == near);
                assert!(after.is_some_and(|after| after <= 16), "number {} at {position}, near {near}", at + 1);
            }
            for place in self.tail..=self.head {
                let later = || known.positions.iter().filter(|position| **position >= place);
                let near = topic.near_from(place);
                assert_eq!(near.is_some(), later().next().is_some(), "from {place}");
                assert!(near.is_none_or(|near| later().position(|at| *at == near).is_some_and(|after| after <= 16)));
            }
            assert_eq!((topic.near(0), topic.near(known.seq + 1)), (None, None));
            assert_eq!(topic.last.as_ref().map(|last| &*last.payload), known.value.as_ref());
            let rooms = topic.last.as_ref().map_or(0..=0, |last| last.payload.len()..=2 * last.payload.len() + 1);
            assert!(topic.last.as_ref().is_none_or(|last| rooms.contains(&last.payload.capacity())));
        }
        for (held, before) in &self.held {
            assert!(**held == *before, "a snapshot in hand was rewritten");
        }
        assert_eq!(self.subscriptions.total(), self.subscribed.len());
        let topics: Vec<Arc<str>> = NAMES[..TOPICS].iter().map(|name| Arc::from(*name)).collect();
        let listeners =
            topics.iter().map(|topic| self.subscribed.iter().filter(|name| stands_for(name, topic)).count());
        assert_eq!(self.subscriptions.listeners(&topics), listeners.collect::<Vec<_>>());
    }
}

/// The ten lines that say what a pattern means.
pub fn stands_for(pattern: &str, topic: &str) -> bool {
    let (mut wanted, mut found) = (pattern.split('.'), topic.split('.'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (any::<usize>(), prop_oneof![0..20u16, 0..6000u16]).prop_map(|(topic, len)| Step::Publish(topic, len)),
            2 => any::<usize>().prop_map(Step::Hold),
            2 => any::<usize>().prop_map(Step::Forget),
            1 => (0..5u64).prop_map(Step::LetGo),
            2 => any::<u8>().prop_map(Step::Subscribe),
            4 => any::<usize>().prop_map(Step::Unsubscribe),
        ]
    }

    proptest! {
        #[test]
        fn the_tables_agree_with_plain_maps(
            topics_max in 1..6usize,
            values_max in prop_oneof![0..50usize, 0..10_000usize],
            steps in prop::collection::vec(step(), 0..150),
        ) {
            let mut twin = Twin::new(topics_max, values_max, 20);
            for step in steps {
                twin.take(step);
            }
        }
    }
}
