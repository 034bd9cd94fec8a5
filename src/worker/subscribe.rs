//! Subscribing: from a list of names to a cohort, a position and snapshots that leave no gap and no repeat.
//!
//! A subscription begins at one position of the tape. The snapshots are the topics' last values as of exactly that
//! position: values are collected bit by bit while publishing goes on, and in the end, under the tape's lock for a moment,
//! the few that changed meanwhile are taken again, together with the position. The connection comes to that position
//! along the tape under its older subscription, is acknowledged there, and goes on under the new one (`march.rs`).

use std::{borrow::Cow, sync::Arc};

use super::{
    Worker,
    closing::push_text,
    connection::Stage,
    interest::{CohortKey, NameId},
};
use crate::{
    io::{Edge, Token},
    metrics::Refusal,
    protocol::{Id, Mode, Sub, is_pattern, matches, reply},
    tape::{Lane, Position, Tape},
    topic::{LastValue, TooManySubscriptions, Topic},
};

/// Topics that are looked at under one hold of the tape's lock.
const LOOK_AT_ONCE: u32 = 256;

/// A topic as a new subscriber finds it.
struct Found {
    slot: u32,
    name: Arc<str>,
    epoch: String,
    seq: u64,
    last: Option<LastValue>,
}

impl Found {
    fn of(topic: &Topic) -> Found {
        Found {
            slot: topic.id.slot,
            name: Arc::clone(&topic.name),
            epoch: topic.epoch.to_string(),
            seq: topic.seq,
            last: topic.last.clone(),
        }
    }
}

impl<E: Edge> Worker<E> {
    /// `sub`: all of its names, or none with an error.
    pub(super) fn subscribe(&mut self, token: Token, id: Option<Id<'_>>, sub: &Sub<'_>) {
        if sub.mode != Mode::All || sub.rate.is_some() || !sub.from.is_empty() {
            let message = "this server delivers mode \"all\" from the present on: leave out mode, rate and from";
            return self.error(token, id, "unsupported", message);
        }
        let names: Vec<&str> = sub.topics.iter().map(Cow::as_ref).collect();
        let added = match self.add_names(token, &names) {
            Ok(added) => added,
            Err((code, message)) => {
                self.shared.metrics.refuse(Refusal::SubscriptionsFull);
                return self.error(token, id, code, &message);
            }
        };
        let lane = self.connections[token as usize].lane();
        self.attach(lane);
        let (position, mut found) = collect(&self.tape, &names);
        found.sort_unstable_by_key(|topic| topic.slot);
        let mut then = Vec::new();
        self.write_ack(&mut then, id, &names, &found);
        if sub.snapshot {
            self.write_snapshots(&mut then, &found);
        }
        let pending = self.connections[token as usize].pending() + then.len();
        if pending > self.settings.pending_max {
            self.shared.subscriptions.remove(added.iter());
            self.detach(lane);
            let most = self.settings.pending_max;
            let message = format!(
                "the snapshots need {pending} bytes, --max-pending allows {most}: ask for fewer topics, or for no snapshot"
            );
            return self.error(token, id, "too_many_topics", &message);
        }
        let mut set = self.names_of(token);
        let fresh: Vec<NameId> = added.iter().map(|name| self.interest.intern(name)).collect();
        set.extend(fresh);
        self.change(token, set, position, then);
    }

    /// `/raw/TOPIC`: the one subscription of the connection, without words.
    pub(super) fn subscribe_raw(&mut self, token: Token, topic: &str, echo: bool) -> Result<(), String> {
        let added = self.add_names(token, &[topic]).map_err(|(_, message)| message)?;
        let set = added.iter().map(|name| self.interest.intern(name)).collect();
        if !echo {
            self.connections[token as usize].echo = false;
        }
        self.attach(Lane::Raw);
        let position = self.tape.with_topics(|_, position| position);
        self.change(token, set, position, Vec::new());
        Ok(())
    }

    /// `unsub`: names that it isn't subscribed to are none afterwards either.
    pub(super) fn unsubscribe(&mut self, token: Token, id: Option<Id<'_>>, topics: &[Cow<'_, str>]) {
        let mut set = self.names_of(token);
        let ended: Vec<NameId> =
            topics.iter().filter_map(|name| self.interest.find_name(name)).filter(|name| set.contains(name)).collect();
        set.retain(|name| !ended.contains(name));
        let texts: Vec<Arc<str>> = ended.iter().map(|name| Arc::clone(self.interest.text(*name))).collect();
        self.shared.subscriptions.remove(texts.iter());
        let (mut json, mut then) = (Vec::new(), Vec::new());
        reply::ack(&mut json, id);
        push_text(&mut then, &json);
        let position = self.tape.with_topics(|_, position| position);
        self.change(token, set, position, then);
        // It may be far behind and never read: its acknowledgements are answers that wait like all others.
        self.bound_pending(token);
    }

    /// `list`.
    pub(super) fn list_subscriptions(&mut self, token: Token, id: Option<Id<'_>>) {
        let mut names: Vec<Arc<str>> =
            self.names_of(token).iter().map(|name| Arc::clone(self.interest.text(*name))).collect();
        names.sort_unstable();
        self.answer_json(token, |out| {
            let all =
                names.iter().map(|name| reply::Subscription { topic: name, at: None, mode: Mode::All, rate: None });
            reply::subscriptions(out, id, all);
        });
    }

    /// Ends every subscription of a connection, at once and without a word, and its march.
    pub(super) fn unsubscribe_all(&mut self, token: Token) {
        let names: Vec<Arc<str>> =
            self.names_of(token).iter().map(|name| Arc::clone(self.interest.text(*name))).collect();
        self.shared.subscriptions.remove(names.iter());
        self.leave_members(token);
        self.stop_marching(token);
        if let Some(cohort) = self.connections[token as usize].cohort.take() {
            self.leave_cohort(cohort);
        }
    }

    /// The names that a connection is subscribed to.
    pub(super) fn names_of(&mut self, token: Token) -> Vec<NameId> {
        match self.connections[token as usize].cohort {
            Some(cohort) => self.interest.cohort(cohort).key.names.to_vec(),
            None => Vec::new(),
        }
    }

    /// Counts those of `names` that the connection doesn't have yet; returns them.
    fn add_names(&mut self, token: Token, names: &[&str]) -> Result<Vec<Arc<str>>, (&'static str, String)> {
        let set = self.names_of(token);
        let is_new = |name: &&&str| self.interest.find_name(name).is_none_or(|id| !set.contains(&id));
        let fresh: Vec<&str> = names.iter().filter(is_new).copied().collect();
        let most = self.settings.subscriptions_max;
        if set.len() + fresh.len() > most {
            let (first, all) = (fresh[most - set.len()], set.len() + fresh.len());
            let message =
                format!("{first} would be one too many: {all} subscriptions, --max-subscriptions allows {most}");
            return Err(("too_many_subscriptions", message));
        }
        self.shared.subscriptions.add(fresh.iter().copied()).map_err(|TooManySubscriptions| {
            let most = self.settings.subscriptions_total_max;
            let message = format!("the server has as many subscriptions as --max-subscriptions-total {most} allows");
            ("server_full", message)
        })
    }

    /// Puts a connection into the cohort of `set` from `position` on, where it is told `then`.
    fn change(&mut self, token: Token, mut set: Vec<NameId>, position: Position, then: Vec<u8>) {
        set.sort_unstable();
        let connection = &self.connections[token as usize];
        let lane = connection.lane();
        let except = if connection.echo { 0 } else { connection.id };
        // Joining comes first: the older cohort's end must not take the names along that both have.
        let joined = (!set.is_empty()).then(|| self.join_cohort(CohortKey { lane, names: set.into(), except }));
        let older = self.connections[token as usize].cohort;
        self.add_stage(token, Stage { until: position, cohort: older, then });
        self.connections[token as usize].cohort = joined;
    }

    /// Joins a cohort; the worker's first makes it look at the tape, the lane's first makes it be written.
    fn join_cohort(&mut self, key: CohortKey) -> super::interest::CohortId {
        self.lanes[key.lane as usize] += 1;
        self.interest.join(key)
    }

    /// One user of a cohort less.
    pub(super) fn leave_cohort(&mut self, id: super::interest::CohortId) {
        let lane = self.interest.cohort(id).key.lane;
        self.lanes[lane as usize] -= 1;
        self.interest.leave(id);
        self.detach(lane);
    }

    /// The reverse of [`Worker::attach`], where there is nobody left.
    fn detach(&mut self, lane: Lane) {
        if self.lanes[lane as usize] == 0 {
            self.tape.unwant(lane);
        }
        if self.interest.is_empty() {
            self.reader.detach();
        }
    }

    /// Before a subscription is made: sees to it that the lane is written, and that the worker reads the tape, from now on.
    pub(super) fn attach(&mut self, lane: Lane) {
        if self.lanes[lane as usize] == 0 {
            self.tape.want(lane);
        }
        if self.interest.is_empty() {
            self.position = self.reader.refresh();
            self.checked_floor = self.reader.floor();
        }
    }

    fn write_ack(&mut self, out: &mut Vec<u8>, id: Option<Id<'_>>, names: &[&str], found: &[Found]) {
        self.json.clear();
        let fresh = self.tape.with_topics(|topics, _| topics.epoch()).to_string();
        let topics = names.iter().map(|name| {
            // A topic that nobody has published on yet will begin in the present epoch.
            let at =
                found.iter().find(|topic| *topic.name == **name).map_or((fresh.as_str(), 0), |t| (&t.epoch, t.seq));
            reply::Subscription { topic: name, at: (!is_pattern(name)).then_some(at), mode: Mode::All, rate: None }
        });
        reply::ack_sub(&mut self.json, id, topics);
        push_text(out, &self.json);
    }

    fn write_snapshots(&mut self, out: &mut Vec<u8>, found: &[Found]) {
        for topic in found {
            let Some(last) = &topic.last else { continue };
            self.json.clear();
            reply::snapshot(&mut self.json, &topic.name, &topic.epoch, topic.seq, last.ts, last.payload());
            push_text(out, &self.json);
        }
    }
}

/// The topics that match `names`, as of one position of the tape.
fn collect(tape: &Tape, names: &[&str]) -> (Position, Vec<Found>) {
    let (patterns, mut exact): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| is_pattern(name));
    exact.sort_unstable();
    let wanted = |topic: &Topic| {
        exact.binary_search(&&*topic.name).is_ok() || patterns.iter().any(|pattern| matches(pattern, &topic.name))
    };
    if patterns.is_empty() {
        return tape.with_topics(|topics, position| {
            (position, exact.iter().filter_map(|name| topics.find(name)).map(Found::of).collect())
        });
    }
    let (begun, slots) = tape.with_topics(|topics, position| (position, topics.slots()));
    let mut found: Vec<Found> = Vec::new();
    for first in (0..slots).step_by(LOOK_AT_ONCE as usize) {
        let some = first..slots.min(first + LOOK_AT_ONCE);
        tape.with_topics(|topics, _| {
            found.extend(some.filter_map(|slot| topics.at(slot)).filter(|t| wanted(t)).map(Found::of))
        });
    }
    tape.with_changed(begun, |topics, changed, position| {
        found.retain(|topic| changed.binary_search(&topic.slot).is_err());
        found.extend(changed.iter().filter_map(|slot| topics.at(*slot)).filter(|topic| wanted(topic)).map(Found::of));
        (position, found)
    })
}
