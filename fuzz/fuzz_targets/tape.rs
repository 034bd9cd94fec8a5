//! Operation scripts on the tape, with a plain list beside it.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use stentor::internals::{
    lane::Lane,
    tape::script::{MESSAGE_MAX, NAMES, Step, Twin},
};

#[derive(Debug)]
struct Script {
    segment: usize,
    retain: usize,
    steps: Vec<Step>,
}

impl<'a> Arbitrary<'a> for Script {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Script> {
        let (segment, retain) = (u.int_in_range(100..=2000)?, u.int_in_range(0..=40_000)?);
        let mut steps = Vec::new();
        while !u.is_empty() && steps.len() < 300 {
            steps.push(step(u)?);
        }
        Ok(Script { segment, retain, steps })
    }
}

fn step(u: &mut Unstructured<'_>) -> Result<Step> {
    let topic = u.choose_index(NAMES.len())?;
    Ok(match u.int_in_range(0..=15)? {
        0..6 => Step::Publish { topic, kind: u.int_in_range(0..=4)?, len: u.int_in_range(0..=100)? },
        6..8 => Step::Publish { topic, kind: u.int_in_range(0..=4)?, len: u.int_in_range(0..=MESSAGE_MAX + 1)? },
        8 => Step::Want(*u.choose(&Lane::ALL)?),
        9 => Step::Unwant(*u.choose(&Lane::ALL)?),
        10 => Step::Read,
        11..13 => Step::Hold(u.arbitrary()?),
        13 => Step::Forget { age: u.int_in_range(0..=60)?, used: topic },
        _ => Step::Changed { back: u.int_in_range(0..=60)? },
    })
}

fuzz_target!(|script: Script| {
    let mut twin = Twin::new(script.segment, script.retain);
    for step in script.steps {
        twin.take(step);
    }
    twin.end();
});
