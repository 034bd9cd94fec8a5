//! Commands of many clients that want to be expensive, with an accountant beside the worker.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use stentor::internals::worker::work::{Market, Step};

#[derive(Debug)]
struct Script {
    seed: u64,
    turn_work: u64,
    turn_sends: usize,
    steps: Vec<Step>,
}

impl<'a> Arbitrary<'a> for Script {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Script> {
        let (seed, turn_work, turn_sends) =
            (u.arbitrary()?, u.int_in_range(20_000..=200_000)?, u.int_in_range(4..=63)?);
        let mut steps = Vec::new();
        while !u.is_empty() && steps.len() < 100 {
            steps.push(Step::any(&mut |below| u.int_in_range(0..=below - 1))?);
        }
        Ok(Script { seed, turn_work, turn_sends, steps })
    }
}

fuzz_target!(|script: Script| {
    let mut market = Market::new(script.seed, script.turn_work, script.turn_sends);
    for step in script.steps {
        market.take(step);
    }
    market.end();
});
