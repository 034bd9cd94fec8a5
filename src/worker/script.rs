//! Operation scripts on the tables of who wants what, with a look at every name of every cohort every time beside them.
//! Property tests make them at random (`tests/interest.rs`), the fuzzer where they lead to new code (`fuzz/`).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::fan::{
    delivery::{Delivery, Rate},
    interest::{CohortId, CohortKey, Interest},
    passes::Passes,
    trail::Bounds,
};
use crate::{
    clock::Moment,
    lane::Lane,
    packs::{Frames, PackSettings, Packer, Packing, Packs},
    protocol::Payload,
    publish::{By, Door},
    tape::{About, Position, Reader, Tape, TapeSettings},
    topic::script::stands_for,
};

pub const TOPICS: [&str; 11] =
    ["a", "a.b", "a.b.c", "a.c", "b", "b.c", "b.b", "c.b.a", "a.b.a.b", "a.b.a.c", "a.b.b.b"];
/// The last ones stand for one topic, all of them.
pub const NAMES: [&str; 42] = [
    "a", "a.b", "a.b.c", "a.c", "b", "b.c", "c.b.a", "*", ">", "a.*", "a.>", "*.b", "*.b.>", "a.*.c", "a.b.a.b",
    "*.b.a.b", "a.*.a.b", "*.*.a.b", "a.b.*.b", "*.b.*.b", "a.*.*.b", "*.*.*.b", "a.b.a.*", "*.b.a.*", "a.*.a.*",
    "*.*.a.*", "a.b.*.*", "*.b.*.*", "a.*.*.*", "*.*.*.*", "*.>", "a.b.>", "a.*.>", "*.*.>", "a.b.a.>", "*.b.a.>",
    "a.*.a.>", "*.*.a.>", "a.b.*.>", "*.b.*.>", "a.*.*.>", "*.*.*.>",
];

/// How many ways of delivery a step may ask for.
pub const DELIVERIES: usize = 4;

#[derive(Clone, Debug)]
pub enum Step {
    /// A connection subscribes to these names, each delivered in one of the ways, leaving out the publications of a
    /// connection (0: of none).
    Join(BTreeMap<usize, usize>, u64),
    /// One connection of this cohort leaves.
    Leave(usize),
    /// This connection publishes on this topic.
    Publish(usize, u64),
    /// This cohort's rates tick.
    Tick(usize),
    /// All topics that have left the tape are forgotten.
    Forget,
}

fn delivery(way: usize) -> Delivery {
    let paced = |rate| Delivery::Paced(Reverse(Rate::new(rate)));
    [Delivery::All, Delivery::Latest, paced(10.0), paced(1.0)][way % DELIVERIES]
}

/// What is known of a cohort.
struct Known {
    /// Its names, and how each is delivered.
    names: BTreeMap<usize, usize>,
    except: u64,
    users: usize,
    /// What has changed since the last tick, by rate.
    changed: BTreeMap<Rate, BTreeSet<u32>>,
}

impl Known {
    /// Whether some name is delivered in newest values.
    fn conflates(&self) -> bool {
        self.names.values().any(|way| delivery(*way) != Delivery::All)
    }

    /// How a topic is delivered: of all names that stand for it, as the strongest says.
    fn strongest(&self, topic: &str) -> Option<Delivery> {
        let standing = self.names.iter().filter(|(name, _)| stands_for(NAMES[**name], topic));
        standing.map(|(_, way)| delivery(*way)).min()
    }
}

/// The list of cohorts, and the tables that it is compared with.
pub struct Twin {
    tape: Tape,
    reader: Reader,
    packer: Packer,
    interest: Interest,
    passes: Passes,
    cohorts: BTreeMap<CohortId, Known>,
    /// Topics that were published on while somebody was delivered newest values, the newest last.
    recent: Vec<u32>,
    token: u32,
}

impl Default for Twin {
    fn default() -> Twin {
        let settings = TapeSettings {
            retain: 0,
            segment: 256,
            message_max: 100,
            topics_max: 100,
            value_bytes_max: 1000,
            epoch: 1,
        };
        let tape = Tape::new(settings);
        let reader = Reader::new(tape.clone());
        let packs = Packs::new(tape.clone(), PackSettings { level: 1, least: 0, memory: 0 });
        let (packer, interest, passes) = (Packer::new(packs), Interest::default(), Passes::default());
        Twin { tape, reader, packer, interest, passes, cohorts: BTreeMap::new(), recent: Vec::new(), token: 0 }
    }
}

impl Twin {
    pub fn take(&mut self, step: Step) {
        match step {
            Step::Join(names, except) => self.join(names, except),
            Step::Leave(which) => self.leave(which),
            Step::Publish(topic, origin) => self.publish(TOPICS[topic % TOPICS.len()], origin),
            Step::Tick(which) => self.tick(which),
            Step::Forget => {
                let slots = self.tape.with_topics(|topics, _| topics.slots());
                self.tape.forget_topics(0..slots, |_, held| !held);
            }
        }
        self.interest.invariants();
        self.check_topics();
        assert_eq!(self.interest.cohorts(), self.cohorts.len());
        let names: BTreeSet<_> = self.cohorts.values().flat_map(|cohort| cohort.names.keys()).collect();
        assert_eq!(self.interest.names(), names.len());
        let ticking: usize = self.cohorts.values().map(|cohort| cohort.changed.len()).sum();
        assert_eq!(self.interest.ticks(), ticking, "a tick for each rate that has something to send, and no other");
    }

    /// Who wants a topic can be asked at any time, also before it is published on again.
    fn check_topics(&self) {
        let topics: Vec<(u32, String)> = self.tape.with_topics(|topics, _| {
            let all = (0..topics.slots()).filter_map(|slot| topics.at(slot));
            all.map(|topic| (topic.id.slot, topic.name.to_string())).collect()
        });
        for (id, cohort) in &self.cohorts {
            for (slot, name) in topics.iter().filter(|(slot, _)| self.interest.topic_name(*slot).is_some()) {
                assert_eq!(self.interest.delivery(*id, *slot), cohort.strongest(name), "{name}");
            }
            let all: Vec<u32> =
                topics.iter().filter(|(_, name)| cohort.strongest(name).is_some()).map(|it| it.0).collect();
            let known: Vec<u32> = all.into_iter().filter(|slot| self.interest.topic_name(*slot).is_some()).collect();
            let delivered = self.interest.topics_delivered(*id, |_| true);
            assert!(known.iter().all(|slot| delivered.contains(slot)), "{known:?} of {delivered:?}");
        }
        if self.cohorts.values().any(Known::conflates) {
            let recent: Vec<u32> = self.interest.recent().map(|(slot, _)| slot).collect();
            let own: Vec<u32> = self.recent.iter().rev().copied().collect();
            assert_eq!(recent, own, "the topics by their newest publications");
        }
    }

    /// Everybody leaves.
    pub fn end(mut self) {
        while !self.cohorts.is_empty() {
            self.leave(0);
        }
        assert_eq!((self.interest.cohorts(), self.interest.names()), (0, 0));
    }

    fn join(&mut self, names: BTreeMap<usize, usize>, except: u64) {
        let mut keys: Vec<_> =
            names.iter().map(|(name, way)| (self.interest.intern(&Arc::from(NAMES[*name])), delivery(*way))).collect();
        keys.sort_unstable();
        let key = CohortKey { lane: Lane::Raw, packed: Packing::Clear, names: keys.into(), except, polls: false };
        let id = self.interest.join(key, self.reader.head());
        self.interest.cohort(id).column.join(self.token, false);
        self.token += 1;
        let fresh = Known { names: names.clone(), except, users: 0, changed: BTreeMap::new() };
        let cohort = self.cohorts.entry(id).or_insert(fresh);
        assert!(cohort.names == names && cohort.except == except);
        cohort.users += 1;
    }

    fn which(&self, which: usize) -> Option<CohortId> {
        self.cohorts.keys().nth(which % self.cohorts.len().max(1)).copied()
    }

    fn leave(&mut self, which: usize) {
        let Some(id) = self.which(which) else { return };
        let column = &mut self.interest.cohort(id).column;
        column.leave(column.tokens().count() as u32 - 1, &mut self.passes, |_, _| {});
        self.interest.leave(id);
        let cohort = self.cohorts.get_mut(&id).expect("it is known");
        cohort.users -= 1;
        if cohort.users == 0 {
            self.cohorts.remove(&id);
        }
        if !self.cohorts.values().any(Known::conflates) {
            self.recent.clear();
        }
    }

    fn publish(&mut self, topic: &str, origin: u64) {
        let about = About { ts: 1, origin, ..About::default() };
        Door::new(self.tape.clone(), 128).publish(By::SERVER, topic, Payload::Text("x"), about).expect("there is room");
        let Twin { tape, reader, packer, interest, passes, cohorts, .. } = self;
        let head = reader.refresh();
        let (mut touched, mut stirred, mut wanting) = (Vec::new(), Vec::new(), Vec::new());
        let mut slot = 0;
        let pass = passes.begin();
        reader.scan(Position(head.0 - 1), head, |entry| {
            slot = entry.topic.slot;
            let frames = &mut Frames { reader, packer };
            interest.plan(tape, pass, (entry, frames), Bounds::default(), &mut touched, &mut stirred);
            wanting.extend(cohorts.keys().filter_map(|id| Some((*id, interest.wants(tape, *id, entry)?))));
            true
        });
        reader.trim();
        self.recent.retain(|other| *other != slot);
        if cohorts.values().any(Known::conflates) {
            self.recent.push(slot);
        }
        let (mut now, mut ticking) = (Vec::new(), Vec::new());
        for (id, cohort) in cohorts.iter_mut().filter(|(_, cohort)| cohort.except == 0 || cohort.except != origin) {
            match cohort.strongest(topic) {
                None => {}
                Some(Delivery::Paced(Reverse(rate))) => {
                    let changed = cohort.changed.entry(rate).or_default();
                    if changed.is_empty() {
                        ticking.push((*id, rate));
                    }
                    changed.insert(slot);
                }
                Some(delivery) => now.push((*id, delivery)),
            }
        }
        passes.planned(touched.len());
        for id in &touched {
            let column = &mut interest.cohort(*id).column;
            column.begin_round(true);
            while let Some(cut) = column.next_cut() {
                assert_eq!(column.owed(cut).publications, 1, "planned once");
                let served = std::iter::from_fn(|| column.serve_at(cut)).count();
                column.settle(cut, served as u32, passes);
            }
        }
        passes.settle();
        assert!(passes.is_empty(), "everybody was served");
        touched.sort_unstable();
        assert_eq!(touched, now.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        assert_eq!(wanting, now);
        stirred.sort_unstable();
        for (id, n) in &stirred {
            interest.set_tick(*id, *n, Moment(1));
        }
        let stirred: Vec<_> = stirred.iter().map(|(id, n)| (*id, interest.cohort(*id).paces[*n].rate)).collect();
        assert_eq!(stirred, ticking);
    }

    fn tick(&mut self, which: usize) {
        let Some(id) = self.which(which) else { return };
        let position = self.reader.head();
        let known = self.cohorts.get_mut(&id).expect("it is known");
        for n in 0..self.interest.cohort(id).paces.len() {
            let pace = &self.interest.cohort(id).paces[n];
            let slots: BTreeSet<u32> = pace.changes.iter().map(|change| change.slot).collect();
            assert_eq!(slots, known.changed.remove(&pace.rate).unwrap_or_default());
            self.interest.restart(id, n, position);
        }
    }
}
