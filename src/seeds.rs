//! Scripts of luck: the simulations' tests try many, each of them made from one number.
//!
//! `STENTOR_SEEDS=100000` tries more of them, `STENTOR_SEEDS=100000..200000` those behind them, `STENTOR_SEED=17` one again.

use std::{
    env,
    ops::Range,
    panic::{RefUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// One script in so many may be unfit, where many are tried.
const UNFIT_IN: u64 = 100;

/// Ends a script that asks for what its world can't have, so that nothing comes of it, good or bad.
pub(crate) fn unfit(why: &'static str) -> ! {
    eprintln!("a script that is unfit: {why}");
    resume_unwind(Box::new(Unfit))
}

struct Unfit;

/// Runs the scripts of so many seeds, if nobody wants to have others, on all cores.
///
/// # Panics
/// As the first script that does, with its number before; and where more than a few are unfit.
pub(crate) fn try_all(seeds: u64, script: impl Fn(u64) + Sync + RefUnwindSafe) {
    if let Some(seed) = number("STENTOR_SEED") {
        return script(seed);
    }
    let Range { start, end: seeds } = range(seeds);
    let (next, unfit) = (AtomicU64::new(start), AtomicU64::new(0));
    // Each seed goes to one thread, and that is all: Relaxed.
    let run = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            if let Err(panic) = catch_unwind(|| script(seed)) {
                if panic.is::<Unfit>() {
                    unfit.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                eprintln!("the script that failed: STENTOR_SEED={seed}");
                next.store(seeds, Ordering::Relaxed);
                resume_unwind(panic);
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(run))));
    let unfit = unfit.into_inner();
    assert!(unfit <= 1 + seeds.saturating_sub(start) / UNFIT_IN, "{unfit} scripts were unfit");
}

/// How many scripts to try, where so many are what is tried ordinarily.
pub(crate) fn wanted(ordinarily: u64) -> u64 {
    let Range { start, end } = range(ordinarily);
    end.saturating_sub(start)
}

/// The scripts to try: the first ones, or those of a range.
fn range(ordinarily: u64) -> Range<u64> {
    match env::var("STENTOR_SEEDS") {
        Ok(text) if text.contains("..") => {
            let (start, end) = text.split_once("..").unwrap_or_default();
            let bound = |bound: &str| bound.parse().unwrap_or_else(|_| panic!("STENTOR_SEEDS={text} is no range"));
            bound(start)..bound(end)
        }
        _ => 0..number("STENTOR_SEEDS").unwrap_or(ordinarily),
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}
