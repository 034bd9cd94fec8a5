//! Several clients' commands, with settings that change between them, as far as they let themselves be changed.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use stentor::internals::worker::reload::{Party, Said, Step, Wanted};

#[derive(Debug)]
struct Script(u64, Vec<Step>);

impl<'a> Arbitrary<'a> for Script {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Script> {
        let seed = u.arbitrary()?;
        let mut steps = Vec::new();
        while !u.is_empty() && steps.len() < 60 {
            steps.push(step(u)?);
        }
        Ok(Script(seed, steps))
    }
}

fn step(u: &mut Unstructured<'_>) -> Result<Step> {
    Ok(match u.int_in_range(0..=15)? {
        0..3 => Step::Connect(u.arbitrary()?, u.arbitrary()?),
        3..10 => Step::Say(u.arbitrary()?, said(u)?),
        10 => Step::End(u.arbitrary()?),
        11..15 => Step::Reload(Box::new(wanted(u)?)),
        _ => Step::Pass(u.int_in_range(0..=100)?),
    })
}

fn said(u: &mut Unstructured<'_>) -> Result<Said> {
    Ok(match u.int_in_range(0..=9)? {
        0..4 => Said::Sub {
            names: u.arbitrary()?,
            rate: if u.arbitrary()? { Some(double(u)?) } else { None },
            latest: u.arbitrary()?,
            snapshot: u.arbitrary()?,
            from: if u.arbitrary()? { Some(number(u)?) } else { None },
        },
        4 => Said::Unsub(u.arbitrary()?),
        5 => Said::List,
        6 => Said::Ping,
        7 => Said::Pub(u.arbitrary()?, u.arbitrary()?),
        8 => Said::Auth(u.arbitrary()?),
        _ => Said::Text(u.arbitrary()?),
    })
}

fn wanted(u: &mut Unstructured<'_>) -> Result<Wanted> {
    let mut wanted = Wanted {
        rates: [double(u)?, double(u)?],
        counts: [0; 5],
        sizes: [0; 2],
        times: [0; 7],
        switches: u.arbitrary()?,
    };
    for value in wanted.counts.iter_mut().chain(&mut wanted.sizes).chain(&mut wanted.times) {
        *value = number(u)?;
    }
    Ok(wanted)
}

/// A number of any size, small ones and the ends of what there is most of all.
fn number(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u.int_in_range(0..=7)? {
        0..2 => u.int_in_range(0..=5)?,
        2 => u.arbitrary::<u8>()?.into(),
        3 => u64::from(u.arbitrary::<u8>()?) * 1_000_000_000,
        4 => u64::from(u.arbitrary::<u16>()?) << 8,
        5 => u64::MAX - u64::from(u.arbitrary::<u8>()?),
        _ => u.arbitrary()?,
    })
}

/// The bits of a rate, or of any double.
fn double(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(if u.arbitrary()? { f64::from(u.arbitrary::<u16>()?).to_bits() } else { u.arbitrary()? })
}

fuzz_target!(|script: Script| {
    let mut party = Party::new(script.0);
    for step in script.1 {
        party.take(step);
    }
    party.end();
});
