//! Operation scripts on the tables of who wants what, with a look at every name of every cohort every time beside them.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use stentor::internals::worker::script::{DELIVERIES, NAMES, Step, TOPICS, Twin};

#[derive(Debug)]
struct Script(Vec<Step>);

impl<'a> Arbitrary<'a> for Script {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Script> {
        let mut steps = Vec::new();
        while !u.is_empty() && steps.len() < 300 {
            steps.push(step(u)?);
        }
        Ok(Script(steps))
    }
}

fn step(u: &mut Unstructured<'_>) -> Result<Step> {
    Ok(match u.int_in_range(0..=12)? {
        0..3 => {
            let ways = if u.arbitrary()? { DELIVERIES } else { 1 };
            let most = if u.ratio(1, 8)? { 40 } else { 4 };
            let names = (0..u.int_in_range(1..=most)?)
                .map(|_| Ok((u.choose_index(NAMES.len())?, u.choose_index(ways)?)))
                .collect::<Result<_>>()?;
            Step::Join(names, u.int_in_range(0..=2)?)
        }
        3..5 => Step::Leave(u.arbitrary::<u8>()?.into()),
        5..10 => Step::Publish(u.choose_index(TOPICS.len())?, u.int_in_range(0..=2)?),
        10..12 => Step::Tick(u.arbitrary::<u8>()?.into()),
        _ => Step::Forget,
    })
}

fuzz_target!(|script: Script| {
    let mut twin = Twin::default();
    for step in script.0 {
        twin.take(step);
    }
    twin.end();
});
