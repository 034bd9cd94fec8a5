//! Forgetting topics that nobody needs, a stretch of the table at a time.
//!
//! A topic is forgotten when nobody is subscribed to it, and either nothing of it is retained (no last value, nothing on the
//! tape), or its newest publication is older than `--topic-expiry`. Who is subscribed is looked up beforehand, without the tape's lock, because it takes a look at
//! every pattern. Under the lock it is then enough that no new name was subscribed to since: a subscriber is counted
//! before it looks at the topics, so whoever comes later finds the topic gone, and none finds its numbering changed.

use std::{collections::HashSet, ops::Range, sync::Arc, time::Duration};

use super::{Context, topics::LOOK_AT_ONCE};
use crate::{
    clock::{self, Moment},
    topic::Topic,
};

/// How often a part of the table is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// In how many parts the table is looked at: `--topic-expiry` is at least a minute, so a round a minute is exact enough.
const PARTS: u32 = 60;

/// Where the sweep is.
pub(super) struct Sweep {
    due: Moment,
    next: u32,
}

impl Sweep {
    pub fn new(now: Moment) -> Sweep {
        Sweep { due: now + EVERY, next: 0 }
    }

    /// When it goes on.
    pub fn due(&self) -> Moment {
        self.due
    }

    /// Looks at the next part of the table, if it is time.
    pub fn advance(&mut self, now: Moment, context: &Context) {
        if now < self.due {
            return;
        }
        self.due = now + EVERY;
        let slots = context.tape.with_topics(|topics, _| topics.slots());
        let end = slots.min(self.next + (slots / PARTS).max(LOOK_AT_ONCE));
        for start in (self.next..end).step_by(LOOK_AT_ONCE as usize) {
            forget_some(context, start..end.min(start + LOOK_AT_ONCE), clock::wall_us());
        }
        self.next = if end < slots { end } else { 0 };
    }
}

/// Forgets the topics in these slots that nobody needs.
pub(super) fn forget_some(context: &Context, slots: Range<u32>, wall_us: u64) {
    let expiry = context.settings.topic_expiry;
    let oldest = if expiry.is_zero() { 0 } else { wall_us.saturating_sub(expiry.as_micros() as u64) };
    let may_go = |topic: &Topic| topic.last.is_none() || topic.ts < oldest;
    let subscriptions = &context.shared.subscriptions;
    let fresh = subscriptions.fresh();
    let names: Vec<Arc<str>> = context.tape.with_topics(|topics, _| {
        let old = slots.clone().filter_map(|slot| topics.at(slot)).filter(|topic| may_go(topic));
        old.map(|topic| Arc::clone(&topic.name)).collect()
    });
    if names.is_empty() {
        return;
    }
    let listeners = subscriptions.listeners(&names);
    let unused: HashSet<Arc<str>> =
        names.into_iter().zip(listeners).filter(|(_, listeners)| *listeners == 0).map(|(name, _)| name).collect();
    let useless = |topic: &Topic, on_tape: bool| {
        let old = topic.ts < oldest || (topic.last.is_none() && !on_tape);
        old && unused.contains(&topic.name) && subscriptions.fresh() == fresh
    };
    let forgotten = context.tape.forget_topics(slots, useless);
    context.shared.metrics.topics_forgotten.add(forgotten as u64);
}
