//! Subscribing: from a list of names to a cohort, a position and snapshots that leave no gap and no repeat.
//!
//! A subscription begins at one position of the tape. The snapshots are the topics' last values as of exactly that
//! position: they are collected bit by bit while publishing goes on (`collect.rs`). The connection comes to that position
//! along the tape under its older subscription, is acknowledged there, and goes on under the new one (`cursors/walk.rs`).

use std::{borrow::Cow, sync::Arc};

use rustc_hash::FxHashMap;

use super::{
    super::{
        cursor::Cursor,
        cursors::{Beginnings, Found, Resume, Resumed, Stage, as_of},
        fan::{
            delivery::Delivery,
            interest::{CohortKey, NameId, Newest},
        },
        work::price,
    },
    Clerk,
    asking::Job,
    collect::{AsOf, COUNT_AT_ONCE, Collect, Refused},
    points::Since,
};
use crate::{
    audit::What,
    io::{Edge, Token},
    metrics::Refusal,
    protocol::{
        ErrorCode, Id, Reply, Sub,
        cursor::{self, Word, Words},
        is_pattern, reply,
    },
    tape::Position,
    topic::TooManySubscriptions,
};

/// Different rates that one connection may ask for; each is a list of its own to every tick.
const RATES_MAX: usize = 16;

/// What a name costs that is put into an answer, looked up and in order.
const TELL: u64 = 3 * price::MATCH;

/// What a name that is listed has around it, at most.
const LISTED_BYTES: usize = 80;

/// A connection's names and how each is delivered.
type Names = Vec<(NameId, Delivery)>;

impl<E: Edge> Clerk<'_, E> {
    /// `sub`: all of its names, or none with an error. What can't be done at once is returned.
    pub fn subscribe(&mut self, token: Token, id: Option<Id<'_>>, sub: &Sub<'_>) -> Option<Job> {
        let lane = self.connections.get(token)?.lane;
        self.ground.work.charge((sub.topics.len() + sub.from.len()) as u64 * 2 * price::MATCH);
        let since = Since::of(sub.cursor, &self.ground.tape);
        let collect = Box::new(Collect::new(id, lane, sub, since));
        let job = Job::Sub(collect);
        match &job {
            Job::Sub(collect) if !collect.is_small() => Some(job),
            _ => self.work_on(token, job),
        }
    }

    /// The subscription that came with the connection's request.
    pub fn subscribe_first(&mut self, token: Token, sub: &Sub<'_>) {
        self.ground.work.charge(price::COMMAND);
        if let Some(job) = self.subscribe(token, None, sub) {
            self.put_by(token, job);
            self.note_held(token);
        }
    }

    /// Makes a subscription of which everything is known at this position.
    ///
    /// # Errors
    /// Its answer would be one too many: nothing was changed.
    pub fn conclude(&mut self, token: Token, collect: &mut Collect, at: &AsOf) -> Result<(), Refused> {
        let delivery = collect.delivery;
        let (resume, gone) = self.resume(collect, at);
        let words = self.ground.tape.words();
        let is_current = words.word(at.position.0);
        // What was missed comes behind what else it begins with.
        let begun = resume.as_ref().map_or(is_current, |resume| words.word(resume.from.0));
        let again = told_again(words, collect, at, resume.as_ref(), &gone);
        let mut then = Vec::new();
        write_ack(collect, at, again, &mut then);
        self.ground.work.charge(price::lines(then.len()));
        let pending = self.pending(token) + then.len() + collect.bytes;
        let most = self.ground.settings.pending_max;
        if pending > most {
            let message = format!(
                "the snapshots need {pending} bytes, --max-pending allows {most}: ask for fewer topics, or for no snapshot"
            );
            return Err((ErrorCode::TooManyTopics, message));
        }
        self.may_hold(token, then.len() + collect.bytes)?;
        let mut named: Vec<NameId> = collect.names.iter().map(|name| self.fan.interest.intern(name)).collect();
        named.sort_unstable();
        let mut set = self.names_of(token);
        set.retain(|(name, _)| named.binary_search(name).is_err());
        set.extend(named.into_iter().map(|name| (name, delivery)));
        let known = self.note_found(collect, at.position);
        let mut after = Vec::new();
        if !collect.lane.words().hears() {
            // Who can ask is answered when all is there.
            collect.lane.words().push_reply(&mut after, &Reply::Current { cursor: is_current });
        }
        let resumes = !collect.points.is_empty() || collect.since != Since::Now;
        let begins = (collect.snapshot || resumes || !after.is_empty()).then(|| {
            let (found, bytes) = (std::mem::take(&mut collect.found), collect.bytes);
            Box::new(Beginnings {
                topics: found.into_all().into_iter(),
                gone,
                epoch: at.epoch,
                cursors: [again, begun],
                after,
                tells_draining: false,
                bytes,
            })
        });
        if collect.since != Since::Now {
            self.ground.metrics.resumed[usize::from(collect.since == Since::Lost)].add(1);
        }
        let until = at.position;
        self.note_subscription(token, &collect.names, delivery);
        self.change(token, set, Stage { until, then, begins, resume, ..Stage::default() }, &known);
        Ok(())
    }

    /// Sees to it that the tables know the topics that a subscription of newest values has found, which begins at `position`. Returns
    /// their numbers there, if the tables can't know these.
    fn note_found(&mut self, collect: &mut Collect, position: Position) -> Vec<(u32, Newest)> {
        if collect.delivery == Delivery::All {
            return Vec::new();
        }
        self.ground.reader.refresh();
        self.tell_tables_of_all(collect, position);
        if self.fan.position() >= self.ground.reader.floor() {
            return Vec::new();
        }
        let newest = |topic: &Found| Newest { end: Position(topic.end), seq: topic.seq, origin: 0 };
        collect.found.iter().map(|topic| (topic.id.slot, newest(topic))).collect()
    }

    /// Decides what becomes of each topic that is resumed. Returns what has to be sent again, and those that are gone altogether.
    fn resume(&mut self, collect: &mut Collect, at: &AsOf) -> (Option<Resume>, Vec<Box<str>>) {
        let missed = std::mem::take(&mut collect.missed);
        if !missed.seen.is_empty() {
            return (Some(Resume { until: at.position, ..missed }), Vec::new());
        }
        let mut resume = Resume { from: at.position, until: at.position, seen: FxHashMap::default() };
        let (mut gone, epoch) = (Vec::new(), at.epoch.to_string());
        let (floor, delivery) = (self.ground.reader.floor(), collect.delivery);
        let points = std::mem::take(&mut collect.points);
        for (topic, point) in &points {
            let Some(found) = collect.named_mut(topic) else {
                if point.seq > 0 || *point.epoch != *epoch {
                    gone.push(topic.clone());
                }
                continue;
            };
            found.becomes = point.becomes(found, delivery, floor);
            let missed = found.missed.filter(|_| point.seq < found.seq);
            if let (Some(Resumed::Behind(seq)), Some(missed)) = (found.becomes, missed) {
                resume.from = resume.from.min(missed);
                resume.seen.insert(found.id.slot, seq);
            }
        }
        collect.points = points;
        ((!resume.seen.is_empty()).then_some(resume), gone)
    }

    /// `/raw/TOPIC`: the one subscription of the connection, without words.
    pub fn subscribe_raw(&mut self, token: Token, sub: &Sub<'_>, echo: bool) -> Result<(), String> {
        let Some(connection) = self.connections.get_mut(token) else { return Ok(()) };
        connection.echo = echo;
        let lane = connection.lane;
        self.ground.work.charge(price::COMMAND + price::NAME);
        let (names, delivery) = ([Arc::from(&*sub.topics[0])], Delivery::of(sub));
        let fresh = self.claim(token, delivery, &names).map_err(|(_, message)| message)?;
        let added = self.count_names(&fresh, &names, 0).map_err(|(_, message)| {
            self.unclaim(token, fresh.len());
            message
        })?;
        let set = added.iter().map(|name| (self.fan.interest.intern(name), delivery)).collect();
        self.fan.attach(self.ground, lane);
        let until = self.ground.tape.with_topics(|_, position| position);
        self.note_subscription(token, &names, delivery);
        self.change(token, set, Stage { until, ..Stage::default() }, &[]);
        Ok(())
    }

    /// `unsub`: names that it isn't subscribed to are none afterwards either. What of it goes on over turns is returned.
    pub fn unsubscribe(&mut self, token: Token, id: Option<Id<'_>>, topics: &[Cow<'_, str>]) -> Option<Job> {
        let words = self.connections.get(token)?.lane.words();
        let mut set = self.names_of(token);
        self.ground.work.charge(topics.len() as u64 * 2 * price::MATCH + set.len() as u64 * 2 * price::LOOK);
        let is_in = |name: &NameId| set.binary_search_by_key(name, |(other, _)| *other).is_ok();
        let named = topics.iter().filter_map(|name| self.fan.interest.find_name(name));
        let mut ended: Vec<NameId> = named.filter(is_in).collect();
        ended.sort_unstable();
        set.retain(|(name, _)| ended.binary_search(name).is_err());
        let texts: Vec<Arc<str>> = ended.iter().map(|name| Arc::clone(self.fan.interest.text(*name))).collect();
        self.note_names(token, &texts, |names| What::Unsubscribe { names });
        let mut then = Vec::new();
        words.push_reply(&mut then, &Reply::Done { id });
        let until = self.ground.tape.with_topics(|_, position| position);
        self.change(token, set, Stage { until, then, ..Stage::default() }, &[]);
        // It may be far behind and never read: its acknowledgements are answers that wait like all others.
        self.bound_pending(token);
        self.work_on(token, Job::Uncount(texts))
    }

    /// Counts names of a connection as ended, as many as there is time for; returns the others.
    pub fn uncount_some(&mut self, token: Token, mut names: Vec<Arc<str>>) -> Option<Vec<Arc<str>>> {
        while !names.is_empty() {
            let some = names.split_off(names.len().saturating_sub(COUNT_AT_ONCE));
            self.ground.work.charge(some.len() as u64 * price::NAME);
            self.remove_names(token, &some);
            if !self.has_time() {
                break;
            }
        }
        (!names.is_empty()).then_some(names)
    }

    /// `list`.
    pub fn list_subscriptions(&mut self, token: Token, id: Option<Id<'_>>) {
        let names = self.names_of(token);
        let text = |(name, delivery): &(NameId, Delivery)| (Arc::clone(self.fan.interest.text(*name)), *delivery);
        let mut names: Vec<(Arc<str>, Delivery)> = names.iter().map(text).collect();
        let bytes: usize = names.iter().map(|(name, _)| name.len() + LISTED_BYTES).sum();
        self.ground.work.charge(names.len() as u64 * TELL + price::lines(bytes));
        let (pending, most) = (self.pending(token) + bytes, self.ground.settings.pending_max);
        if pending > most {
            let message = format!("the list would make it {pending} bytes of answers, --max-pending allows {most}");
            return self.error(token, id, ErrorCode::TooManyTopics, &message);
        }
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

    /// Finds out whether a connection may have these names, and takes what they come to of the share of its address. Returns
    /// which of them it doesn't have yet, to be counted. Every subscription is made by way of this, once its rights were asked for
    /// (`rights.rs`).
    #[warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
    pub fn claim(&mut self, token: Token, delivery: Delivery, names: &[Arc<str>]) -> Result<Vec<u32>, Refused> {
        self.check_rates(token, delivery)?;
        let gone = || (ErrorCode::ServerFull, "the connection has ended".to_owned());
        let set = self.names_of(token);
        let has = |id: NameId| set.binary_search_by_key(&id, |(other, _)| *other).is_ok();
        let is_new = |name: &Arc<str>| self.fan.interest.find_name(name).is_none_or(|id| !has(id));
        let fresh: Vec<u32> = (0..).zip(names).filter(|(_, name)| is_new(name)).map(|(at, _)| at).collect();
        let most = self.ground.settings.subscriptions_max;
        let all = set.len().saturating_add(fresh.len());
        // What it has stays, and may be changed, also where it is more than a limit that was lowered since.
        if let Some(first) = fresh.get(most.saturating_sub(set.len())).and_then(|at| names.get(*at as usize)) {
            let message =
                format!("{first} would be one too many: {all} subscriptions, --max-subscriptions allows {most}");
            self.ground.shared.metrics.refuse(Refusal::SubscriptionsFull);
            return Err((ErrorCode::TooManySubscriptions, message));
        }
        let permit = &mut self.connections.get_mut(token).ok_or_else(gone)?.permit;
        if let Err(most) = permit.subscribe(fresh.len()) {
            let message = format!(
                "{} more would be too many: --max-subscriptions-per-ip allows {most} over all connections of your address",
                fresh.len()
            );
            self.ground.shared.metrics.refuse(Refusal::AddressSubscriptionsFull);
            return Err((ErrorCode::AddressFull, message));
        }
        Ok(fresh)
    }

    /// Counts some more of the names that were claimed, behind the first `counted` of them; returns them as they are shared.
    #[warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
    pub fn count_names(&mut self, fresh: &[u32], names: &[Arc<str>], counted: usize) -> Result<Vec<Arc<str>>, Refused> {
        let rest = fresh.get(counted..).unwrap_or_default();
        let some = rest.iter().take(COUNT_AT_ONCE).filter_map(|at| names.get(*at as usize));
        let some: Vec<&str> = some.map(|name| &**name).collect();
        self.ground.work.charge((some.len() as u64).saturating_mul(price::NAME));
        self.ground.shared.subscriptions.add(some.into_iter()).map_err(|TooManySubscriptions| {
            let most = self.ground.settings.subscriptions_total_max;
            let message = format!("the server has as many subscriptions as --max-subscriptions-total {most} allows");
            self.ground.shared.metrics.refuse(Refusal::SubscriptionsFull);
            (ErrorCode::ServerFull, message)
        })
    }

    /// Gives back what names that were claimed and not counted have taken.
    pub fn unclaim(&mut self, token: Token, names: usize) {
        if let Some(connection) = self.connections.get_mut(token) {
            connection.permit.unsubscribe(names);
        }
    }

    /// Counts `names` of a connection as ended.
    pub fn remove_names(&mut self, token: Token, names: &[Arc<str>]) {
        self.ground.shared.subscriptions.remove(names.iter());
        if let Some(connection) = self.connections.get_mut(token) {
            connection.permit.unsubscribe(names.len());
        }
    }

    /// Puts a connection into the cohort of `set` from the stage's position on, where the numbers of some topics are known.
    fn change(&mut self, token: Token, mut set: Names, stage: Stage, known: &[(u32, Newest)]) {
        set.sort_unstable();
        let Clerk { ground, connections, fan, cursors, .. } = self;
        let Some(connection) = connections.get(token) else { return };
        let (lane, packed, older) = (connection.lane, connection.packing(), connection.cohort);
        let except = if connection.echo { 0 } else { connection.id };
        // Joining comes first: the older cohort's end must not take the names along that both have.
        let key = CohortKey { lane, packed, names: set.into(), except, polls: false };
        let joined = (!key.names.is_empty()).then(|| fan.interest.join(key, stage.until));
        // The floor stays where it was when it was looked which numbers the tables can't know.
        if older.or(joined).is_some() && ground.reader.head() < stage.until {
            ground.reader.refresh();
        }
        let as_of = as_of(ground, &mut fan.interest, [older, joined], stage.until, known);
        let (position, owed) = fan.part(connections, token);
        let Some(connection) = connections.get_mut(token) else { return };
        if connection.cursor == Cursor::None {
            cursors.begin(ground, &mut fan.interest, connection, token, position).owe(owed);
        }
        cursors.add_stage(token, connection, Stage { cohort: older, as_of, ..stage });
        // Whoever changes his subscription leaves a stream: what comes up to the change is the older cohort's, what comes behind is not.
        connection.cohort = joined;
        connection.note_shares(false);
    }
}

/// The cursor from which everything is told that a subscription begins with: of one that resets something, that can be no place.
fn told_again(words: &Words, collect: &Collect, at: &AsOf, resume: Option<&Resume>, gone: &[Box<str>]) -> Word {
    let is_reset = |found: &Found| matches!(found.becomes, Some(Resumed::Reset(_)));
    let resets = || collect.points.iter().filter_map(|(topic, _)| collect.named(topic)).any(is_reset);
    let from = resume.map_or(at.position, |resume| resume.from).0;
    match collect.since {
        Since::Place { at, begins: true } => words.beginning(at.0),
        Since::Place { at, begins: false } => words.word(at.0),
        Since::Lost => words.word(cursor::Cursor::NOWHERE),
        Since::Now if !gone.is_empty() || resets() => words.word(cursor::Cursor::NOWHERE),
        Since::Now if collect.snapshot || !collect.points.is_empty() => words.beginning(from),
        Since::Now => words.word(from),
    }
}

/// Appends the acknowledgement: each topic with where it goes on from.
fn write_ack(collect: &Collect, at: &AsOf, cursor: Word, out: &mut Vec<u8>) {
    let epoch = |found: &Found| if found.epoch == at.epoch { None } else { Some(found.epoch.to_string()) };
    let fresh = at.epoch.to_string();
    let found: Vec<_> = collect.names.iter().map(|name| (name, collect.named(name))).collect();
    let epochs: Vec<Option<String>> = found.iter().map(|(_, found)| found.and_then(epoch)).collect();
    let topics = found.iter().zip(&epochs).map(|((name, found), epoch)| {
        let seq = match found {
            Some(Found { becomes: Some(Resumed::Behind(seq)), .. }) => *seq,
            Some(found) => found.seq,
            // A topic that nobody has published on yet will begin in the present epoch.
            None => 0,
        };
        told(name, (!is_pattern(name)).then_some((epoch.as_deref().unwrap_or(&fresh), seq)), collect.delivery)
    });
    let topics: Vec<_> = topics.collect();
    let id = collect.id.as_deref().map(Id::again);
    collect.lane.words().push_reply(out, &Reply::Subscribed { id, topics: &topics, cursor });
}

fn told<'a>(topic: &'a str, at: Option<(&'a str, u64)>, delivery: Delivery) -> reply::Subscription<'a> {
    reply::Subscription { topic, at, mode: delivery.mode(), rate: delivery.rate().map(|rate| rate.per_second()) }
}
