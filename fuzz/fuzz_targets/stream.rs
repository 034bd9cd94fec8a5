//! Operation scripts on a stream that is shared, and on those who come to it, read it, miss something of it and leave.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use stentor::internals::stream::script::{Reads, Script, Step};

#[path = "../../src/websocket/independent.rs"]
mod independent;

use independent::Context;

impl Reads for Context {
    fn new(window_bits: u8) -> Context {
        Context::new(window_bits)
    }

    fn message(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        self.message(message)
    }
}

#[derive(Debug)]
struct Input {
    window_bits: u8,
    anew_every: u8,
    kept: u16,
    steps: Vec<Step>,
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Input> {
        let (window_bits, anew_every, kept) = (u.arbitrary()?, u.arbitrary()?, u.arbitrary()?);
        let mut steps = Vec::new();
        while !u.is_empty() && steps.len() < 300 {
            steps.push(step(u)?);
        }
        Ok(Input { window_bits, anew_every, kept, steps })
    }
}

fn step(u: &mut Unstructured<'_>) -> Result<Step> {
    Ok(match u.int_in_range(0..=15)? {
        0..7 => Step::Publish { len: u.arbitrary()?, seed: u.arbitrary()?, private: u.ratio(1, 10)?, late: u.ratio(1, 6)? },
        7..9 => Step::Join,
        9 => Step::Leave(u.arbitrary()?),
        10..14 => Step::Read(u.arbitrary()?, u.arbitrary()?),
        14 => Step::Press(u.arbitrary()?),
        _ => Step::Reopen,
    })
}

fuzz_target!(|input: Input| {
    let mut script = Script::<Context>::new(input.window_bits, input.anew_every, input.kept);
    for step in input.steps {
        script.take(step);
    }
    for who in 0..=11 {
        script.take(Step::Read(who, u8::MAX));
    }
});
