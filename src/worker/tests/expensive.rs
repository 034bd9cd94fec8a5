//! Scripts of many clients that want to be expensive (`worker/work_script.rs`), at random.

use super::*;
use crate::worker::work_script::{Market, Step};

#[test]
fn whatever_many_clients_ask_for_a_turn_costs_what_it_may_and_an_honest_one_is_served() {
    seeds::try_all(SEEDS / 30, |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let (turn_work, turn_sends) = (random.u64(20_000..200_000), random.usize(4..64));
        let mut market = Market::new(seed, turn_work, turn_sends);
        for _ in 0..random.usize(..80) {
            let step: Result<Step, ()> = Step::any(&mut |below| Ok(random.u64(..below)));
            market.take(step.expect("there are always numbers"));
        }
        market.end();
    });
}
