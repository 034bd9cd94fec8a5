//! The tables of who wants what, against looking at every name every time: random scripts (`worker/script.rs`).

use proptest::prelude::*;

use crate::worker::script::{DELIVERIES, NAMES, Step, TOPICS, Twin};

fn step() -> impl Strategy<Value = Step> {
    let names = prop_oneof![
        2 => prop::collection::btree_map(0..NAMES.len(), Just(0), 1..4),
        1 => prop::collection::btree_map(0..NAMES.len(), 0..DELIVERIES, 1..4),
        1 => prop::collection::btree_map(0..NAMES.len(), 0..DELIVERIES, 10..40),
    ];
    prop_oneof![
        3 => (names, 0..3u64).prop_map(|(names, except)| Step::Join(names, except)),
        2 => any::<usize>().prop_map(Step::Leave),
        6 => (0..TOPICS.len(), 0..3u64).prop_map(|(topic, origin)| Step::Publish(topic, origin)),
        1 => any::<usize>().prop_map(Step::Tick),
        1 => Just(Step::Forget),
    ]
}

proptest! {
    #[test]
    fn the_tables_agree_with_looking_at_every_name(steps in prop::collection::vec(step(), 0..120)) {
        let mut twin = Twin::default();
        for step in steps {
            twin.take(step);
        }
        twin.end();
    }
}

#[test]
fn a_cohort_that_leaves_before_its_tick_takes_it_along() {
    let mut twin = Twin::default();
    for step in [Step::Join([(8, 2)].into(), 0), Step::Publish(0, 0), Step::Leave(0)] {
        twin.take(step);
    }
    twin.end();
}
