//! Operation scripts on a stream that is shared, and on those who come to it, read it, miss something of it and leave.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use miniz_oxide::inflate::{
    TINFLStatus,
    core::{
        DecompressorOxide, decompress,
        inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF},
    },
};
use stentor::internals::stream::script::{Reads, Script, Step};

/// An inflater of another make, which knows of what came before no more than the window that was agreed on.
struct Independent {
    window: usize,
    before: Vec<u8>,
}

impl Reads for Independent {
    fn new(window_bits: u8) -> Independent {
        Independent { window: 1 << window_bits, before: Vec::new() }
    }

    fn message(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let input = [message, &[0, 0, 0xff, 0xff]].concat();
        let mut out = std::mem::take(&mut self.before);
        let (start, mut read, mut at) = (out.len(), 0, out.len());
        let mut inflater = Box::new(DecompressorOxide::new());
        let flags = TINFL_FLAG_HAS_MORE_INPUT | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        loop {
            out.resize(at + 4096, 0);
            let (status, taken, made) = decompress(&mut inflater, &input[read..], &mut out, at, flags);
            (read, at) = (read + taken, at + made);
            match status {
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput if read == input.len() => break,
                _ => return None,
            }
        }
        out.truncate(at);
        let text = out[start..].to_vec();
        out.drain(..at.saturating_sub(self.window));
        self.before = out;
        Some(text)
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
        0..7 => Step::Publish { len: u.arbitrary()?, seed: u.arbitrary()?, private: u.ratio(1, 10)? },
        7..9 => Step::Join,
        9 => Step::Leave(u.arbitrary()?),
        10..14 => Step::Read(u.arbitrary()?, u.arbitrary()?),
        14 => Step::Press(u.arbitrary()?),
        _ => Step::Reopen,
    })
}

fuzz_target!(|input: Input| {
    let mut script = Script::<Independent>::new(input.window_bits, input.anew_every, input.kept);
    for step in input.steps {
        script.take(step);
    }
    for who in 0..=11 {
        script.take(Step::Read(who, u8::MAX));
    }
});
