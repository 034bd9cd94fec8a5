//! Forgetting topics that nobody needs, a stretch of the table at a time, and memory that the others need no longer. With
//! it goes what else is to be done once a second: saying which log lines were left out.
//!
//! A topic is forgotten when nobody is subscribed to it, and either nothing of it is retained (no last value, nothing on the
//! tape), or its newest publication was first seen longer than `--topic-expiry` ago. Who is subscribed is looked up
//! beforehand, without the tape's lock, because it takes a look at every pattern. Under the lock it is then enough that no
//! new name was subscribed to since: a subscriber is counted before it looks at the topics, so whoever comes later finds
//! the topic gone, and none finds its numbering changed.

use std::{collections::HashSet, ops::Range, sync::Arc, time::Duration};

use super::{Context, topics::LOOK_AT_ONCE};
use crate::{clock::Moment, topic::Topic};

/// How often a part of the table is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// In how many parts the table is looked at: `--topic-expiry` is at least a minute, so a round a minute is exact enough.
const PARTS: u32 = 60;

/// Where the sweep is.
pub(super) struct Sweep {
    due: Moment,
    next: u32,
    /// What each slot's newest publication was, and since when. By the clock that nobody sets: after a correction of the
    /// wall clock by a day, every topic's `ts` would be a day old.
    seen: Vec<Seen>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    /// The tape position after the publication, which no other has.
    end: u64,
    since: Moment,
}

impl Sweep {
    pub fn new(now: Moment) -> Sweep {
        Sweep { due: now + EVERY, next: 0, seen: Vec::new() }
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
        context.shared.log.settle(now, false);
        let slots = context.tape.with_topics(|topics, _| topics.slots());
        let end = slots.min(self.next + (slots / PARTS).max(LOOK_AT_ONCE));
        for start in (self.next..end).step_by(LOOK_AT_ONCE as usize) {
            let slots = start..end.min(start + LOOK_AT_ONCE);
            context.tape.trim_topics(slots.clone());
            self.forget_some(context, slots, now);
        }
        self.next = if end < slots { end } else { 0 };
    }

    /// Forgets the topics in these slots that nobody needs.
    pub fn forget_some(&mut self, context: &Context, slots: Range<u32>, now: Moment) {
        self.seen.resize(self.seen.len().max(slots.end as usize), Seen::default());
        let expiry = context.settings.topic_expiry;
        let subscriptions = &context.shared.subscriptions;
        let fresh = subscriptions.fresh();
        let names: Vec<Arc<str>> = context.tape.with_topics(|topics, _| {
            let there = slots.clone().filter_map(|slot| topics.at(slot));
            let may_go = there.filter(|topic| {
                self.see(topic, now);
                topic.last.is_none() || self.is_old(topic, now, expiry)
            });
            may_go.map(|topic| Arc::clone(&topic.name)).collect()
        });
        if names.is_empty() {
            return;
        }
        let listeners = subscriptions.listeners(&names);
        let unused: HashSet<Arc<str>> =
            names.into_iter().zip(listeners).filter(|(_, listeners)| *listeners == 0).map(|(name, _)| name).collect();
        let useless = |topic: &Topic, on_tape: bool| {
            let old = self.is_old(topic, now, expiry) || (topic.last.is_none() && !on_tape);
            old && unused.contains(&topic.name) && subscriptions.fresh() == fresh
        };
        let forgotten = context.tape.forget_topics(slots, useless);
        context.shared.metrics.topics_forgotten.add(forgotten as u64);
    }

    /// Notes when a publication is seen for the first time.
    fn see(&mut self, topic: &Topic, now: Moment) {
        let seen = &mut self.seen[topic.id.slot as usize];
        if seen.end != topic.end {
            *seen = Seen { end: topic.end, since: now };
        }
    }

    /// Whether the topic's newest publication was seen that long ago.
    fn is_old(&self, topic: &Topic, now: Moment, expiry: Duration) -> bool {
        let seen = self.seen[topic.id.slot as usize];
        !expiry.is_zero() && seen.end == topic.end && now.since(seen.since) > expiry
    }
}
