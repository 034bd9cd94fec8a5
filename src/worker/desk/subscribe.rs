//! Subscribing: from a list of names to a cohort, a position and snapshots that leave no gap and no repeat.
//!
//! A subscription begins at one position of the tape. The snapshots are the topics' last values as of exactly that
//! position: values are collected bit by bit while publishing goes on, and in the end, under the tape's lock for a moment,
//! the few that changed meanwhile are taken again, together with the position. The connection comes to that position
//! along the tape under its older subscription, is acknowledged there, and goes on under the new one (`cursors/walk.rs`).

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use rustc_hash::FxHashMap;

use super::{
    super::{
        cursor::Cursor,
        cursors::{Stage, as_of},
        fan::{
            delivery::Delivery,
            interest::{CohortKey, NameId},
        },
    },
    Clerk,
    points::{Resumed, resume},
};
use crate::{
    io::{Edge, Token},
    lane::Lane,
    metrics::Refusal,
    protocol::{ErrorCode, Id, Reply, Sub, command::ResumePoint, is_pattern, matches, reply},
    tape::{Position, Tape},
    topic::{LastValue, TooManySubscriptions, Topic, TopicId},
};

/// Topics that are looked at under one hold of the tape's lock.
const LOOK_AT_ONCE: u32 = 256;

/// Different rates that one connection may ask for; each is a list of its own to every tick.
const RATES_MAX: usize = 16;

/// A topic as a new subscriber finds it.
pub struct Found {
    pub id: TopicId,
    pub name: Arc<str>,
    pub epoch: String,
    pub seq: u64,
    /// The position after its newest publication.
    pub end: u64,
    pub last: Option<LastValue>,
    /// A position on the tape from which the one to resume from is found.
    pub near: Option<u64>,
}

impl Found {
    fn of(topic: &Topic, points: &Points<'_>) -> Found {
        Found {
            id: topic.id,
            name: Arc::clone(&topic.name),
            epoch: topic.epoch.to_string(),
            seq: topic.seq,
            end: topic.end,
            last: topic.last.clone(),
            near: points.get(&*topic.name).and_then(|point| topic.near(point.seq + 1)),
        }
    }
}

/// Where to resume, for some topics.
type Points<'a> = HashMap<Cow<'a, str>, ResumePoint<'a>>;

/// A connection's names and how each is delivered.
type Names = Vec<(NameId, Delivery)>;

impl<E: Edge> Clerk<'_, E> {
    /// `sub`: all of its names, or none with an error.
    pub fn subscribe(&mut self, token: Token, id: Option<Id<'_>>, sub: &Sub<'_>) {
        let Some(lane) = self.connections.get(token).map(|connection| connection.lane) else { return };
        let names: Vec<&str> = sub.topics.iter().map(Cow::as_ref).collect();
        let delivery = Delivery::of(sub);
        let added = match self.check_rates(token, delivery).and_then(|()| self.add_names(token, &names)) {
            Ok(added) => added,
            Err((code, message)) => return self.error(token, id, code, &message),
        };
        self.fan.attach(self.ground, lane);
        let (position, mut found) = collect(&self.ground.tape, &names, &sub.from);
        found.sort_unstable_by_key(|topic| topic.id.slot);
        let (resumed, resume) = resume(&mut self.ground.reader, &sub.from, delivery, &found, position);
        let mut then = Vec::new();
        self.write_ack(lane, &mut then, id, &names, delivery, &found, &resumed);
        self.write_beginnings(lane, &mut then, sub, &found, &resumed);
        let pending = self.pending(token) + then.len();
        if pending > self.ground.settings.pending_max {
            self.remove_names(token, &added);
            self.fan.detach(self.ground, lane);
            let most = self.ground.settings.pending_max;
            let message = format!(
                "the snapshots need {pending} bytes, --max-pending allows {most}: ask for fewer topics, or for no snapshot"
            );
            return self.error(token, id, ErrorCode::TooManyTopics, &message);
        }
        if let Err((code, message)) = self.may_hold(token, then.len()) {
            self.remove_names(token, &added);
            self.fan.detach(self.ground, lane);
            return self.error(token, id, code, &message);
        }
        for name in &added {
            self.fan.interest.intern(name);
        }
        let mut set = self.names_of(token);
        for name in &names {
            let name = self.fan.interest.find_name(name).expect("it is subscribed to, or was just made");
            match set.iter_mut().find(|(other, _)| *other == name) {
                Some((_, other)) => *other = delivery,
                None => set.push((name, delivery)),
            }
        }
        let known = if delivery == Delivery::All { Vec::new() } else { self.note_found(&found, position) };
        self.change(token, set, Stage { until: position, then, resume, ..Stage::default() }, &known);
    }

    /// `/raw/TOPIC`: the one subscription of the connection, without words.
    pub fn subscribe_raw(&mut self, token: Token, sub: &Sub<'_>, echo: bool) -> Result<(), String> {
        let Some(connection) = self.connections.get_mut(token) else { return Ok(()) };
        connection.echo = echo;
        let lane = connection.lane;
        let added = self.add_names(token, &[&*sub.topics[0]]).map_err(|(_, message)| message)?;
        let delivery = Delivery::of(sub);
        let set = added.iter().map(|name| (self.fan.interest.intern(name), delivery)).collect();
        self.fan.attach(self.ground, lane);
        let until = self.ground.tape.with_topics(|_, position| position);
        self.change(token, set, Stage { until, ..Stage::default() }, &[]);
        Ok(())
    }

    /// `unsub`: names that it isn't subscribed to are none afterwards either.
    pub fn unsubscribe(&mut self, token: Token, id: Option<Id<'_>>, topics: &[Cow<'_, str>]) {
        let Some(words) = self.connections.get(token).map(|connection| connection.lane.words()) else { return };
        let mut set = self.names_of(token);
        let is_in = |name: &NameId| set.iter().any(|(other, _)| other == name);
        let ended: Vec<NameId> =
            topics.iter().filter_map(|name| self.fan.interest.find_name(name)).filter(is_in).collect();
        set.retain(|(name, _)| !ended.contains(name));
        let texts: Vec<Arc<str>> = ended.iter().map(|name| Arc::clone(self.fan.interest.text(*name))).collect();
        self.remove_names(token, &texts);
        let mut then = Vec::new();
        words.push_reply(&mut then, &Reply::Done { id });
        let until = self.ground.tape.with_topics(|_, position| position);
        self.change(token, set, Stage { until, then, ..Stage::default() }, &[]);
        // It may be far behind and never read: its acknowledgements are answers that wait like all others.
        self.bound_pending(token);
    }

    /// `list`.
    pub fn list_subscriptions(&mut self, token: Token, id: Option<Id<'_>>) {
        let names = self.names_of(token);
        let text = |(name, delivery): &(NameId, Delivery)| (Arc::clone(self.fan.interest.text(*name)), *delivery);
        let mut names: Vec<(Arc<str>, Delivery)> = names.iter().map(text).collect();
        names.sort_unstable();
        let topics: Vec<_> = names.iter().map(|(topic, delivery)| told(topic, None, *delivery)).collect();
        self.reply(token, &Reply::Subscriptions { id, topics: &topics });
    }

    /// The names that a connection is subscribed to.
    pub fn names_of(&mut self, token: Token) -> Names {
        match self.connections.get(token).and_then(|connection| connection.cohort) {
            Some(cohort) => self.fan.interest.cohort(cohort).key.names.to_vec(),
            None => Vec::new(),
        }
    }

    /// Notes what is known of topics that a subscription of newest values has found at `position`: their numbers as of the
    /// worker's own position in the tables. Returns their numbers at `position`.
    fn note_found(&mut self, found: &[Found], position: Position) -> Vec<(u32, u64)> {
        self.ground.reader.refresh();
        let mut first = FxHashMap::default();
        let from = self.fan.position().max(self.ground.reader.floor()).min(position);
        self.ground.reader.scan(from, position, |entry| {
            first.entry(entry.topic.slot).or_insert((entry.previous, entry.seq - 1));
            true
        });
        let slot = |topic: &Found| topic.id.slot;
        for topic in found {
            let (end, seq) = first.get(&slot(topic)).copied().unwrap_or((topic.end, topic.seq));
            // What lies between the worker and the tape's floor is noted when the worker gets there.
            if end <= self.fan.position().0 {
                self.fan.interest.note_known(topic.id, &topic.name, seq);
            }
        }
        found.iter().map(|topic| (slot(topic), topic.seq)).collect()
    }

    /// Refuses one different rate too many.
    #[warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
    fn check_rates(&mut self, token: Token, delivery: Delivery) -> Result<(), (ErrorCode, String)> {
        let mut rates: Vec<_> = self.names_of(token).iter().filter_map(|(_, delivery)| delivery.rate()).collect();
        rates.extend(delivery.rate());
        rates.sort_unstable();
        rates.dedup();
        if rates.len() > RATES_MAX {
            let message =
                format!("rate: expected at most {RATES_MAX} different rates on one connection, found one more");
            self.ground.shared.metrics.refuse(Refusal::SubscriptionsFull);
            return Err((ErrorCode::TooManyRates, message));
        }
        Ok(())
    }

    /// Counts those of `names` that the connection doesn't have yet; returns them. Every subscription is made by way of this.
    #[warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
    fn add_names(&mut self, token: Token, names: &[&str]) -> Result<Vec<Arc<str>>, (ErrorCode, String)> {
        let gone = || (ErrorCode::ServerFull, "the connection has ended".to_owned());
        let holder = self.ground.settings.access.now(self.connections.get(token).ok_or_else(gone)?.holder);
        if let Some(first) = names.iter().find(|name| !holder.may_subscribe(name)) {
            return Err((ErrorCode::Forbidden, format!("{first}: you may not subscribe to that")));
        }
        let set = self.names_of(token);
        let has = |id: NameId| set.iter().any(|(other, _)| *other == id);
        let is_new = |name: &&&str| self.fan.interest.find_name(name).is_none_or(|id| !has(id));
        let fresh: Vec<&str> = names.iter().filter(is_new).copied().collect();
        let most = self.ground.settings.subscriptions_max;
        let all = set.len().saturating_add(fresh.len());
        // What it has stays, and may be changed, also where it is more than a limit that was lowered since.
        if let Some(first) = fresh.get(most.saturating_sub(set.len())) {
            let message =
                format!("{first} would be one too many: {all} subscriptions, --max-subscriptions allows {most}");
            self.ground.shared.metrics.refuse(Refusal::SubscriptionsFull);
            return Err((ErrorCode::TooManySubscriptions, message));
        }
        let permit = &mut self.connections.get_mut(token).ok_or_else(gone)?.permit;
        let metrics = &self.ground.shared.metrics;
        if let Err(most) = permit.subscribe(fresh.len()) {
            let message = format!(
                "{} more would be too many: --max-subscriptions-per-ip allows {most} over all connections of your address",
                fresh.len()
            );
            metrics.refuse(Refusal::AddressSubscriptionsFull);
            return Err((ErrorCode::AddressFull, message));
        }
        self.ground.shared.subscriptions.add(fresh.iter().copied()).map_err(|TooManySubscriptions| {
            permit.unsubscribe(fresh.len());
            let most = self.ground.settings.subscriptions_total_max;
            let message = format!("the server has as many subscriptions as --max-subscriptions-total {most} allows");
            metrics.refuse(Refusal::SubscriptionsFull);
            (ErrorCode::ServerFull, message)
        })
    }

    /// Counts `names` of a connection as ended.
    fn remove_names(&mut self, token: Token, names: &[Arc<str>]) {
        self.ground.shared.subscriptions.remove(names.iter());
        if let Some(connection) = self.connections.get_mut(token) {
            connection.permit.unsubscribe(names.len());
        }
    }

    /// Puts a connection into the cohort of `set` from the stage's position on, where the numbers of some topics are known.
    fn change(&mut self, token: Token, mut set: Names, stage: Stage, known: &[(u32, u64)]) {
        set.sort_unstable();
        let Clerk { ground, connections, fan, cursors, .. } = self;
        let Some(connection) = connections.get(token) else { return };
        let (lane, older) = (connection.lane, connection.cohort);
        let except = if connection.echo { 0 } else { connection.id };
        // Joining comes first: the older cohort's end must not take the names along that both have.
        let key = CohortKey { lane, names: set.into(), except };
        let joined = (!key.names.is_empty()).then(|| fan.interest.join(key, stage.until));
        if older.or(joined).is_some() {
            ground.reader.refresh();
        }
        let as_of = as_of(ground, &mut fan.interest, [older, joined], stage.until, known);
        let (position, owed) = fan.part(connections, token);
        let Some(connection) = connections.get_mut(token) else { return };
        if connection.cursor == Cursor::None {
            cursors.begin(ground, &mut fan.interest, connection, token, position).owe(owed);
        }
        cursors.add_stage(token, connection, Stage { cohort: older, as_of, ..stage });
        connection.cohort = joined;
    }

    #[expect(clippy::too_many_arguments, reason = "they are what an acknowledgement tells")]
    fn write_ack(
        &self,
        lane: Lane,
        out: &mut Vec<u8>,
        id: Option<Id<'_>>,
        names: &[&str],
        delivery: Delivery,
        found: &[Found],
        resumed: &FxHashMap<u32, Resumed>,
    ) {
        let fresh = self.ground.tape.with_topics(|topics, _| topics.epoch()).to_string();
        let of = |topic: &Found| match resumed.get(&topic.id.slot) {
            Some(Resumed::Behind(seq)) => *seq,
            _ => topic.seq,
        };
        let by_name: HashMap<&str, (&str, u64)> =
            found.iter().map(|topic| (&*topic.name, (topic.epoch.as_str(), of(topic)))).collect();
        let topics = names.iter().map(|name| {
            // A topic that nobody has published on yet will begin in the present epoch.
            let at = by_name.get(name).copied().unwrap_or((fresh.as_str(), 0));
            told(name, (!is_pattern(name)).then_some(at), delivery)
        });
        let topics: Vec<_> = topics.collect();
        lane.words().push_reply(out, &Reply::Subscribed { id, topics: &topics });
    }

    /// Resets and snapshots. A topic that is resumed needs none.
    fn write_beginnings(
        &self,
        lane: Lane,
        out: &mut Vec<u8>,
        sub: &Sub<'_>,
        found: &[Found],
        resumed: &FxHashMap<u32, Resumed>,
    ) {
        let words = lane.words();
        for topic in found {
            let becomes = resumed.get(&topic.id.slot);
            let (name, epoch, seq) = (&*topic.name, &*topic.epoch, topic.seq);
            if let Some(Resumed::Reset(why)) = becomes {
                words.push_reply(out, &Reply::Reset { topic: name, epoch, seq, why });
            }
            if let (true, Some(last)) = (sub.snapshot && !matches!(becomes, Some(Resumed::Behind(_))), &topic.last) {
                let (ts, payload) = (last.ts, last.payload());
                words.push_reply(out, &Reply::Snapshot { topic: name, epoch, seq, ts, payload });
            }
        }
        // Topics that are gone altogether.
        let fresh = self.ground.tape.with_topics(|topics, _| topics.epoch()).to_string();
        let is_found = |name: &str| found.iter().any(|topic| *topic.name == *name);
        for (name, point) in &sub.from {
            if !is_found(name) && (point.seq > 0 || point.epoch != fresh) {
                words.push_reply(out, &Reply::Reset { topic: name, epoch: &fresh, seq: 0, why: "epoch" });
            }
        }
    }
}

fn told<'a>(topic: &'a str, at: Option<(&'a str, u64)>, delivery: Delivery) -> reply::Subscription<'a> {
    reply::Subscription { topic, at, mode: delivery.mode(), rate: delivery.rate().map(|rate| rate.per_second()) }
}

/// The topics that match `names`, as of one position of the tape.
fn collect(tape: &Tape, names: &[&str], points: &Points<'_>) -> (Position, Vec<Found>) {
    let (patterns, mut exact): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| is_pattern(name));
    exact.sort_unstable();
    let wanted = |topic: &Topic| {
        exact.binary_search(&&*topic.name).is_ok() || patterns.iter().any(|pattern| matches(pattern, &topic.name))
    };
    let of = |topic: &Topic| Found::of(topic, points);
    if patterns.is_empty() {
        return tape.with_topics(|topics, position| {
            (position, exact.iter().filter_map(|name| topics.find(name)).map(of).collect())
        });
    }
    let (begun, slots) = tape.with_topics(|topics, position| (position, topics.slots()));
    let mut found: Vec<Found> = Vec::new();
    for first in (0..slots).step_by(LOOK_AT_ONCE as usize) {
        let some = first..slots.min(first + LOOK_AT_ONCE);
        tape.with_topics(|topics, _| {
            found.extend(some.filter_map(|slot| topics.at(slot)).filter(|t| wanted(t)).map(of));
        });
    }
    let all = tape.with_changed(begun, usize::MAX, |topics, changed, position| {
        found.retain(|topic| changed.binary_search(&topic.id.slot).is_err());
        found.extend(changed.iter().filter_map(|slot| topics.at(*slot)).filter(|topic| wanted(topic)).map(of));
        (position, found)
    });
    all.expect("any number")
}
