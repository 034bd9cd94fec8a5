//! Forgetting topics that nobody needs, a stretch of the table at a time, and memory that the others need no longer. With
//! it goes what else is to be done once a second: saying which log lines were left out.
//!
//! A topic is forgotten when nobody is subscribed to it, and either nothing of it is retained (no last value, nothing on the
//! tape), or its newest publication was first seen longer than `--topic-expiry` ago. Who is subscribed is looked up
//! beforehand, without the tape's lock, because it takes a look at every pattern. Under the lock it is then enough that no
//! new name was subscribed to since: a subscriber is counted before it looks at the topics, so whoever comes later finds
//! the topic gone, and none finds its numbering changed.
//!
//! A stretch is one step ([`Sweep::advance`]); between two of them others have their turn.

use std::{ops::Range, sync::Arc, time::Duration};

use super::{Context, topics::LOOK_AT_ONCE};
use crate::{clock::Moment, topic::Topic};

/// How often a part of the table is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// In how many parts the table is looked at: `--topic-expiry` is at least a minute, so a round a minute is exact enough.
const PARTS: u32 = 60;

/// Where the sweep is.
pub(super) struct Sweep {
    due: Moment,
    /// When the part that it is in was due.
    begun: Moment,
    next: u32,
    /// Where that part ends.
    end: u32,
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
        Sweep { due: now + EVERY, begun: now, next: 0, end: 0, seen: Vec::new() }
    }

    /// When it goes on.
    pub fn due(&self) -> Moment {
        self.due
    }

    /// Looks at the next stretch of the table, if it is time.
    pub fn advance(&mut self, now: Moment, context: &Context) {
        if now < self.due {
            return;
        }
        let slots = context.tape.with_topics(|topics, _| topics.slots());
        if self.next >= self.end {
            self.begun = now;
            context.shared.log.settle(now, false);
            self.next = if self.end < slots { self.end } else { 0 };
            self.end = slots.min(self.next + (slots / PARTS).max(LOOK_AT_ONCE));
        }
        let stretch = self.next..self.end.min(self.next + LOOK_AT_ONCE);
        self.next = stretch.end;
        context.tape.trim_topics(stretch.clone());
        self.forget_some(context, stretch, now);
        self.due = if self.next < self.end { now } else { self.begun + EVERY };
    }

    /// Forgets the topics in these slots that nobody needs.
    pub fn forget_some(&mut self, context: &Context, slots: Range<u32>, now: Moment) {
        self.seen.resize(self.seen.len().max(slots.end as usize), Seen::default());
        let expiry = context.settings.topic_expiry;
        let subscriptions = &context.shared.subscriptions;
        let fresh = subscriptions.fresh();
        let may_go: (Vec<u32>, Vec<Arc<str>>) = context.tape.with_topics(|topics, _| {
            let there = slots.filter_map(|slot| topics.at(slot));
            let may_go = there.filter(|topic| {
                self.see(topic, now);
                topic.last.is_none() || self.is_old(topic, now, expiry)
            });
            may_go.map(|topic| (topic.id.slot, Arc::clone(&topic.name))).unzip()
        });
        let (slots, names) = may_go;
        if slots.is_empty() {
            return;
        }
        let may_listen = subscriptions.may_listen(&names);
        let unused = slots.into_iter().zip(may_listen).filter(|(_, may_listen)| !may_listen).map(|(slot, _)| slot);
        // Nobody else forgets any, so that no slot is another's by now.
        let useless = |topic: &Topic, on_tape: bool| {
            let old = self.is_old(topic, now, expiry) || (topic.last.is_none() && !on_tape);
            old && subscriptions.fresh() == fresh
        };
        let forgotten = context.tape.forget_topics(unused, useless);
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
