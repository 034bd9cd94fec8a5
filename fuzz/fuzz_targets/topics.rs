//! Operation scripts on the table of topics and on that of subscriptions, with plain maps beside them.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use stentor::internals::topic::script::{NAMES, Step, TOPICS, Twin};

#[derive(Debug)]
struct Script {
    topics_max: usize,
    values_max: usize,
    subscriptions_max: usize,
    steps: Vec<Step>,
}

impl<'a> Arbitrary<'a> for Script {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Script> {
        let (topics_max, subscriptions_max) = (u.int_in_range(1..=TOPICS + 1)?, u.int_in_range(0..=2 * NAMES.len())?);
        let values_max = u.int_in_range(0..=10_000)?;
        let mut steps = Vec::new();
        while !u.is_empty() && steps.len() < 300 {
            steps.push(step(u)?);
        }
        Ok(Script { topics_max, values_max, subscriptions_max, steps })
    }
}

fn step(u: &mut Unstructured<'_>) -> Result<Step> {
    let topic = u.choose_index(TOPICS)?;
    Ok(match u.int_in_range(0..=8)? {
        0..3 => Step::Publish(topic, u.int_in_range(0..=20)?),
        3 => Step::Publish(topic, u.int_in_range(0..=6000)?),
        4 => Step::Hold(topic),
        5 => Step::Forget(topic),
        6 => Step::LetGo(u.int_in_range(0..=5)?),
        7 => Step::Subscribe(u.arbitrary()?),
        _ => Step::Unsubscribe(u.arbitrary::<u8>()?.into()),
    })
}

fuzz_target!(|script: Script| {
    let mut twin = Twin::new(script.topics_max, script.values_max, script.subscriptions_max);
    for step in script.steps {
        twin.take(step);
    }
});
