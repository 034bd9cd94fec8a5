//! The tables of who wants what, against looking at every name every time.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::client::stands_for;
use crate::{
    protocol::Payload,
    tape::{Lane, Position, Reader, Tape, TapeSettings},
    worker::{
        delivery::Delivery,
        interest::{CohortId, CohortKey, Interest},
    },
};

const TOPICS: [&str; 8] = ["a", "a.b", "a.b.c", "a.c", "b", "b.c", "b.b", "c.b.a"];
const NAMES: [&str; 14] =
    ["a", "a.b", "a.b.c", "a.c", "b", "b.c", "c.b.a", "*", ">", "a.*", "a.>", "*.b", "*.b.>", "a.*.c"];

#[derive(Clone, Debug)]
enum Step {
    /// A connection subscribes to these names, leaving out the publications of this connection.
    Join(Vec<usize>, u64),
    /// One connection of this cohort leaves.
    Leave(usize),
    /// This connection publishes on this topic.
    Publish(usize, u64),
    /// All topics that have left the tape are forgotten.
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (prop::collection::btree_set(0..NAMES.len(), 1..4), 0..3u64)
            .prop_map(|(names, except)| Step::Join(names.into_iter().collect(), except)),
        2 => any::<usize>().prop_map(Step::Leave),
        6 => (0..TOPICS.len(), 0..3u64).prop_map(|(topic, origin)| Step::Publish(topic, origin)),
        1 => Just(Step::Forget),
    ]
}

proptest! {
    #[test]
    fn the_tables_agree_with_looking_at_every_name(steps in prop::collection::vec(step(), 0..120)) {
        let settings = TapeSettings {
            retain: 0,
            segment: 256,
            message_max: 100,
            topics_max: 100,
            value_bytes_max: 1000,
            epoch: 1,
        };
        let tape = Tape::new(settings);
        let mut reader = Reader::new(tape.clone());
        let mut interest = Interest::default();
        // Each cohort with its names, whom it leaves out, and how many are in it.
        let mut twin: BTreeMap<CohortId, (Vec<usize>, u64, usize)> = BTreeMap::new();
        let mut token = 0;
        for step in steps {
            match step {
                Step::Join(names, except) => {
                    let mut ids: Vec<_> = names.iter().map(|name| interest.intern(&Arc::from(NAMES[*name]))).collect();
                    ids.sort_unstable();
                    let names_in_full = ids.into_iter().map(|id| (id, Delivery::All)).collect();
                    let key = CohortKey { lane: Lane::Raw, names: names_in_full, except };
                    let id = interest.join(key, Position(0));
                    interest.cohort(id).members.push(token);
                    token += 1;
                    let cohort = twin.entry(id).or_insert((names.clone(), except, 0));
                    prop_assert_eq!((&cohort.0, cohort.1), (&names, except));
                    cohort.2 += 1;
                }
                Step::Leave(which) => {
                    let Some(id) = twin.keys().nth(which % twin.len().max(1)).copied() else { continue };
                    interest.cohort(id).members.pop();
                    interest.leave(id);
                    let cohort = twin.get_mut(&id).unwrap();
                    cohort.2 -= 1;
                    if cohort.2 == 0 {
                        twin.remove(&id);
                    }
                }
                Step::Publish(topic, origin) => {
                    tape.appender().append(TOPICS[topic], Payload::Text("x"), 1, origin).unwrap();
                    let head = reader.refresh();
                    let mut touched = Vec::new();
                    let mut wanting: Vec<CohortId> = Vec::new();
                    reader.scan(Position(head.0 - 1), head, |at, base, entry| {
                        interest.plan(&tape, at, base, entry, &mut touched, &mut Vec::new());
                        wanting.extend(twin.keys().filter(|id| interest.wants(&tape, **id, entry).is_some()));
                        true
                    });
                    reader.trim();
                    let expected: Vec<CohortId> = twin
                        .iter()
                        .filter(|(_, (_, except, _))| *except == 0 || *except != origin)
                        .filter(|(_, (names, _, _))| names.iter().any(|name| stands_for(NAMES[*name], TOPICS[topic])))
                        .map(|(id, _)| *id)
                        .collect();
                    for id in &touched {
                        prop_assert_eq!(interest.cohort(*id).plan.publications, 1, "planned once");
                        interest.cohort(*id).plan.clear();
                    }
                    touched.sort_unstable();
                    prop_assert_eq!(&touched, &expected);
                    prop_assert_eq!(&wanting, &expected);
                }
                Step::Forget => {
                    let slots = tape.with_topics(|topics, _| topics.slots());
                    tape.forget_topics(0..slots, |_, held| !held);
                }
            }
            prop_assert_eq!(interest.cohorts(), twin.len());
            let names: std::collections::BTreeSet<_> = twin.values().flat_map(|(names, _, _)| names).collect();
            prop_assert_eq!(interest.names(), names.len());
        }
        for (id, (_, _, users)) in twin {
            for _ in 0..users {
                interest.cohort(id).members.clear();
                interest.leave(id);
            }
        }
        prop_assert_eq!((interest.cohorts(), interest.names()), (0, 0));
    }
}
