//! For how long the tape holds what is on it, at the rate at which is published now: how long a subscriber may stall.
//!
//! The age of the oldest publication says that only of a tape that is full, and of the rate that there was. So once a second it is noted
//! how far the tape has come, and its room is divided by what the last ten seconds' publications take of it in a second. What one
//! takes is what it took in the newest segment that is whole, with all that is left unused in it; before there is one, it is reckoned
//! from the bytes. At a steady rate, and once the tape is full, this and the age are the same.

use std::{collections::VecDeque, time::Duration};

use super::Context;
use crate::{
    clock::Moment,
    tape::{self, TapeSettings, TapeStatus},
};

/// How often it is noted how far the tape has come.
const EVERY: Duration = Duration::from_secs(1);

/// Over so many of that the rate is taken.
const OVER: usize = 10;

/// See the module's description.
pub(super) struct Pace {
    /// How many publications there had been, and when.
    seen: VecDeque<(Moment, u64)>,
    due: Moment,
}

impl Pace {
    /// From now on, of a tape that has had so many publications.
    pub fn new(now: Moment, head: u64) -> Pace {
        Pace { seen: VecDeque::from([(now, head)]), due: now + EVERY }
    }

    /// Notes how far the tape has come, if it is time, and shows for how long it holds that.
    pub fn advance(&mut self, now: Moment, context: &Context) {
        if now < self.due {
            return;
        }
        self.due = now + EVERY;
        let rate = self.rate(now, context.tape.head().0);
        // While somebody holds the tape for long, what it was a second ago is as good.
        let Some(status) = context.tape.try_status() else { return };
        let lanes = context.tape.wanted().iter().count();
        let cost = cost(&status, context.tape.written(), lanes);
        let holds = room(context.tape.settings(), lanes) / (cost * rate);
        context.shared.metrics.tape_holds_us.set(if holds.is_finite() { (holds * 1e6) as u64 } else { 0 });
    }

    /// Publications a second.
    fn rate(&mut self, now: Moment, head: u64) -> f64 {
        self.seen.push_back((now, head));
        if self.seen.len() > OVER + 1 {
            self.seen.pop_front();
        }
        let (since, before) = self.seen[0];
        head.saturating_sub(before) as f64 / now.since(since).as_secs_f64()
    }
}

/// What one publication takes of the tape now; `written` is what all of them have, frames and index entries.
fn cost(status: &TapeStatus, written: u64, lanes: usize) -> f64 {
    match status.whole {
        Some((publications, bytes)) => bytes as f64 / publications.max(1) as f64,
        None => {
            let each = written as f64 / status.publications.max(1) as f64;
            tape::cost((each - size_of::<tape::Entry>() as f64).max(0.0), lanes)
        }
    }
}

/// What of `--retain` is filled on average: the oldest segment goes as a whole when there is no room.
fn room(settings: &TapeSettings, lanes: usize) -> f64 {
    // The index is half of what there is for a lane.
    let segment = settings.segment as f64 * (lanes as f64 + 0.5);
    (settings.retain as f64 - segment / 2.0).max(settings.segment as f64)
}
