//! For how long the tape holds what is on it, at the rate at which is published now: how long a subscriber may stall.
//!
//! The age of the oldest publication says that only of a tape that is full, and of the rate that there was; and it goes up and down, by
//! a segment, since the oldest goes as a whole. What counts is what is there in any case: what is left just after one has gone. So once a
//! second it is noted how far the tape has come, and the publications that a full one holds at least are divided by those of a second, over
//! the last ten. What a segment comes to is what the newest that is whole has; before there is one, it is reckoned from the bytes.

use std::{collections::VecDeque, time::Duration};

use super::Context;
use crate::{
    clock::Moment,
    tape::{self, Entry, TapeStatus, Whole},
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
        let (settings, lanes) = (context.tape.settings(), context.tape.wanted().written().iter().count());
        let whole = status.whole.unwrap_or_else(|| about(&status, context.tape.written(), settings.segment, lanes));
        let least = tape::least(settings.retain, settings.segment, whole, lanes);
        let holds = least as f64 / rate;
        context.shared.metrics.tape_holds_us.set(if holds.is_finite() { ((holds * 1e6) as u64).max(1) } else { 0 });
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

/// What a segment will come to, of publications like those that there were; `written` is what all of them have, frames and index
/// entries.
fn about(status: &TapeStatus, written: u64, segment: usize, lanes: usize) -> Whole {
    let each = written as f64 / status.publications.max(1) as f64;
    Whole::about(segment, (each - size_of::<Entry>() as f64).max(0.0), lanes)
}
