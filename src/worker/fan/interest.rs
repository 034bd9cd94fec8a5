//! Who wants what: a worker's tables from topics to names, and from names to cohorts.
//!
//! ```text
//!   topic q.us.AAPL ──► names  "q.us.AAPL", "q.us.*" ──► cohorts 0, 3
//!   topic q.us.MSFT ──► names  "q.us.*"              ──► cohort  3
//! ```
//!
//! A *name* is what somebody subscribed to: a topic or a pattern. A *cohort* is all connections of this worker with the
//! same lane and exactly the same names, delivered in the same way; what is planned for it is planned once. Names that a
//! topic matches are found when its first publication passes, and kept; topics made later are matched when they come.
//!
//! Names with a rate are not planned in passes: what changed is noted for the next tick (`pace.rs`). Of each topic the
//! table holds where its newest publication is, from which those are served who can't take every one (`cursors/round.rs`).
//!
//! The tables are as of one position of the tape, which they know: everything before it was planned for the members that are
//! at the head.

use std::{collections::HashMap, sync::Arc};

use rustc_hash::FxHashMap;
use slab::Slab;

pub use super::{super::connection::CohortId, names::NameId};
use super::{
    super::work::price,
    column::{Column, Planned},
    delivery::{Delivery, Rate},
    log::Log,
    names::{Link, Names},
    pace::{Change, Pace, Ticks},
    passes::PassId,
    past::{AsOf, Past},
    recent::Recent,
    standing::{KEPT_MAX, Standing},
    trail::{Bounds, Trail},
};
use crate::{
    clock::Moment,
    lane::{LANES, Lane},
    packs::{Form, Frames, Packing},
    publication::Kind,
    slack::{KEPT_BY_THREAD, Slack},
    stream::Stream,
    tape::{Entry, Position, Published, Reader, Run, Tape},
    topic::TopicId,
};

/// Connections of one worker with the same subscription.
pub struct Cohort {
    pub key: Arc<CohortKey>,
    /// Members at the head, and what they are still to be sent of what was planned.
    pub column: Column,
    /// Members, those that are behind, and pending stages that still refer to this cohort.
    pub users: usize,
    /// Its ticket in the line of cohorts that are to be served; 0 while it isn't in it.
    pub ticket: u64,
    /// When the members were last sent something.
    pub last_sent: Moment,
    /// Its rates, the highest first.
    pub paces: Vec<Pace>,
    /// Of each of its names, its place among the name's cohorts.
    places: Box<[u32]>,
    /// How all of its names are delivered, where they all are in one way.
    pub(super) uniform: Option<Delivery>,
    /// The stream that its members share (`share.rs`).
    pub stream: Option<Box<Stream>>,
    /// What was last planned, so that overlapping names plan it once: twice one more than the position, and one more on the trail.
    mark: u64,
    /// The trail's number, while it is on the trail, and from where on.
    trail: u64,
    since: Position,
    /// As of its last publication, with one more like it its members would be owed too much.
    may_be_full: bool,
}

/// What makes two subscriptions the same.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CohortKey {
    pub lane: Lane,
    /// What its members can be sent.
    pub packed: Packing,
    /// Each name once, sorted.
    pub names: Box<[(NameId, Delivery)]>,
    /// The connection whose own publications are left out; 0 for none.
    pub except: u64,
    /// Its members are woken by what is planned for them, and not sent it.
    pub polls: bool,
}

/// What is known of a topic: nothing until its first publication passes, or somebody subscribes to newest values.
#[derive(Default)]
struct TopicState {
    known: Option<Known>,
    standing: Standing,
    newest: Newest,
    /// When `newest` is up to date: as long as the worker has been on the tape since.
    era: u64,
    /// Where all that want it trail.
    passed_by: Option<Box<PassedBy>>,
}

/// Which of the topics that had this place, one after the other, and its name.
type Known = (u32, Arc<str>);

/// Cohorts at a rate that are noted for a topic whose others all trail: with more, all are looked at.
const PACED_MOST: usize = 16;

/// Of a topic that many cohorts want: all of them trail, as of this number of the trail's and this version of the cohorts.
struct PassedBy {
    as_of: (u64, u64),
    /// But for what is sent at rates.
    paced: Vec<(CohortId, Rate)>,
}

/// The newest publication of a topic, as of the tables' position.
#[derive(Clone, Copy, Debug, Default)]
pub struct Newest {
    /// The position after it; 0 for what was there before the worker came to the tape.
    pub end: Position,
    /// Its number; 0 for none.
    pub seq: u64,
    /// The connection that published it; 0 for none.
    pub origin: u64,
}

/// The tables of one worker.
#[derive(Default)]
pub struct Interest {
    names: Names,
    topics: Vec<TopicState>,
    /// Bytes that are kept for topics with many names, and the topic from which the next to be forgotten is looked for.
    kept: usize,
    hand: usize,
    /// Counts how often the worker came to the tape.
    era: u64,
    cohorts: Slab<Cohort>,
    /// By a hash with a key: clients choose names, rates, and what goes together.
    by_key: HashMap<Arc<CohortKey>, CohortId>,
    /// The cohorts that came and went.
    changes: Log,
    /// What looking at names and cohorts has cost since that was last asked.
    cost: u64,
    ticks: Ticks,
    /// Topics by their newest publications, while cohorts are delivered newest values.
    recent: Recent,
    /// What they knew before.
    past: Past,
    /// How many cohorts are.
    conflated: usize,
    /// How many subscriptions are on their way that the tables learn of topics for.
    keepers: usize,
    /// Everything before it was planned for the members at the head, but for those that trail.
    pub position: Position,
    pub trail: Trail,
    /// Users of cohorts, by lane: while there are any, the lane is written.
    lanes: [usize; LANES],
    /// Cohorts have gone since room was given back.
    emptied: bool,
}

impl Interest {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.cohorts.is_empty() && self.keepers == 0
    }

    /// The tables stay at the tape though there is no cohort, until they are let go of as often.
    pub fn keep(&mut self) {
        self.keepers += 1;
    }

    /// Takes one [`Interest::keep`] back.
    pub fn let_go_of_tables(&mut self) {
        self.keepers -= 1;
    }

    /// How many keep the tables.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn keepers(&self) -> usize {
        self.keepers
    }

    pub fn cohorts(&self) -> usize {
        self.cohorts.len()
    }

    pub fn names(&self) -> usize {
        self.names.len()
    }

    pub fn cohort(&mut self, id: CohortId) -> &mut Cohort {
        &mut self.cohorts[id as usize]
    }

    /// A cohort, to be looked at, if it is still there.
    pub fn find(&self, id: CohortId) -> Option<&Cohort> {
        self.cohorts.get(id as usize)
    }

    /// A cohort, to be looked at.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn at(&self, id: CohortId) -> &Cohort {
        &self.cohorts[id as usize]
    }

    pub fn cohort_ids(&self) -> Vec<CohortId> {
        self.cohorts.iter().map(|(id, _)| id as CohortId).collect()
    }

    pub fn text(&self, name: NameId) -> &Arc<str> {
        self.names.text(name)
    }

    pub fn find_name(&self, text: &str) -> Option<NameId> {
        self.names.find(text)
    }

    /// The name with this text, made if there was none. The caller lets a cohort with it follow, whose end takes it along.
    pub fn intern(&mut self, text: &Arc<str>) -> NameId {
        self.names.intern(text)
    }

    /// Before a subscription is made: sees to it that its lane is written.
    pub fn want_lane(&self, tape: &Tape, lane: Lane) {
        if self.lanes[lane as usize] == 0 {
            tape.want(lane);
        }
    }

    /// The reverse, where there is nobody left on it; with the last cohort the reader lets go of the tape.
    pub fn unwant_lane(&self, tape: &Tape, reader: &mut Reader, lane: Lane) {
        if self.lanes[lane as usize] == 0 {
            tape.unwant(lane);
        }
        if self.is_empty() {
            reader.detach();
        }
    }

    /// One user less of a cohort, also for its lane.
    pub fn let_go(&mut self, tape: &Tape, reader: &mut Reader, id: CohortId) {
        let lane = self.cohort(id).key.lane;
        self.leave(id);
        self.unwant_lane(tape, reader, lane);
    }

    /// One user more for the cohort of this key, made if there was none.
    /// A new one's rates count changes from `position` on.
    pub fn join(&mut self, key: CohortKey, position: Position) -> CohortId {
        self.lanes[key.lane as usize] += 1;
        if let Some(id) = self.by_key.get(&key) {
            self.cohorts[*id as usize].users += 1;
            return *id;
        }
        let key = Arc::new(key);
        let mut rates: Vec<Rate> = key.names.iter().filter_map(|(_, delivery)| delivery.rate()).collect();
        rates.sort_unstable_by(|a, b| b.cmp(a));
        rates.dedup();
        let first = key.names[0].1;
        let id = self.cohorts.insert(Cohort {
            uniform: key.names.iter().all(|(_, delivery)| *delivery == first).then_some(first),
            paces: rates.into_iter().map(|rate| Pace::new(rate, position)).collect(),
            key: Arc::clone(&key),
            places: Box::default(),
            column: Column::default(),
            stream: None,
            users: 1,
            ticket: 0,
            last_sent: Moment::default(),
            mark: 0,
            trail: 0,
            since: Position(0),
            may_be_full: false,
        }) as CohortId;
        let links = key.names.iter().zip(0..).map(|((name, _), at)| self.names.link(*name, Link { cohort: id, at }));
        self.cohorts[id as usize].places = links.collect();
        self.changes.note(id);
        if key.conflates() {
            self.recent.begin();
            self.conflated += 1;
        }
        self.by_key.insert(key, id);
        id
    }

    /// One user less; the last one takes the cohort and the names that only it used along.
    pub fn leave(&mut self, id: CohortId) {
        let cohort = &mut self.cohorts[id as usize];
        self.lanes[cohort.key.lane as usize] -= 1;
        self.emptied = true;
        cohort.users -= 1;
        if cohort.users > 0 {
            return;
        }
        debug_assert!(cohort.column.is_empty(), "a member is a user");
        if cohort.trail == self.trail.era() {
            self.trail.leave();
        }
        let Cohort { key, places, mut paces, .. } = self.cohorts.remove(id as usize);
        for (n, pace) in paces.iter_mut().enumerate() {
            self.ticks.clear(id, n, pace);
        }
        self.by_key.remove(&key);
        if key.conflates() {
            self.conflated -= 1;
            if self.conflated == 0 {
                self.recent.end();
            }
        }
        for ((name, _), place) in key.names.iter().zip(places) {
            if let Some(moved) = self.names.unlink(*name, place) {
                self.cohorts[moved.cohort as usize].places[moved.at as usize] = place;
            }
        }
        self.changes.note(id);
    }

    /// Whether there may be room to be given back.
    #[inline]
    pub fn has_slack(&self) -> bool {
        self.emptied || self.past.has_slack()
    }

    /// Gives back room that was needed once.
    pub fn give_back(&mut self) {
        self.emptied = false;
        self.past.give_back();
        self.names.give_back();
        self.cohorts.give_back(KEPT_BY_THREAD);
        self.by_key.give_back(KEPT_BY_THREAD);
    }

    /// Adds one publication to what the members of each cohort that wants it are to be sent; cohorts that this pass
    /// is the first to plan it for are put on `touched`, and what is beyond `bounds` begins to trail. For names with a rate the topic is
    /// noted; cohorts that have something to send at their next tick, for the first time since the last, are put on `stirred` with the
    /// rate's number. Returns how many bytes all members are to be sent.
    pub fn plan(
        &mut self,
        tape: &Tape,
        pass: PassId,
        (entry, frames): (&Published<'_>, &mut Frames<'_>),
        bounds: Bounds,
        touched: &mut Vec<CohortId>,
        stirred: &mut Vec<(CohortId, usize)>,
    ) -> u64 {
        self.learn(tape, entry.topic);
        let (at, slot) = (entry.position, entry.topic.slot);
        let before = self.note(at, entry);
        let Interest { names, topics, cohorts, cost, trail, changes, .. } = self;
        let TopicState { standing, passed_by, known, .. } = &mut topics[slot as usize];
        let as_of = (trail.era(), changes.version());
        let mut note = |cohort: &mut Cohort, id, rate| {
            let told = cohort.key.except == 0;
            let (n, pace) = cohort.pace(rate);
            if pace.note(slot, at, before, told) {
                stirred.push((id, n));
            }
        };
        if let Some(passed_by) = passed_by.as_deref().filter(|it| it.as_of == as_of) {
            *cost += price::LOOK * 2 * (1 + passed_by.paced.len() as u64);
            for (id, rate) in &passed_by.paced {
                let cohort = &mut cohorts[*id as usize];
                if !cohort.excludes(entry.origin) {
                    note(cohort, *id, *rate);
                }
            }
            return 0;
        }
        let is_for_many = bounds.is_late && bounds.is_for_many(standing.looks(names));
        let (mut to_send, mut all_trail, mut paced) = (0, is_for_many, Vec::new());
        let looks = standing.look_at_each(names, cohorts, |cohort, id, delivery| {
            if cohort.is_marked(2 * (at.0 + 1)) {
                return;
            }
            let is_left_out = cohort.excludes(entry.origin);
            let delivery = delivery.or(cohort.uniform).or_else(|| cohort.strongest(&standing.names));
            if let Some(rate) = delivery.and_then(Delivery::rate) {
                if is_for_many {
                    paced.push((id, rate));
                }
                if !is_left_out {
                    note(cohort, id, rate);
                }
            } else if cohort.trail == trail.era() {
                // It is planned for it there.
            } else if is_for_many || (!is_left_out && cohort.may_be_full && cohort.is_full(entry, bounds)) {
                (cohort.trail, cohort.since) = (trail.enter(at), at);
            } else {
                all_trail = false;
                if !is_left_out && let Some((planned, bytes)) = cohort.plan(pass, entry, frames, (id, known)) {
                    to_send += bytes;
                    if planned.first {
                        touched.push(id);
                    }
                    cohort.may_be_full = bounds.are_passed(&cohort.column, planned.next);
                }
            }
        });
        *cost += price::LOOK * 2 * (1 + looks);
        if all_trail && paced.len() <= PACED_MOST {
            *passed_by = Some(PassedBy { as_of, paced }.into());
        }
        to_send
    }

    /// The same for the cohorts that trail, and only them. Returns whether somebody would be owed more than `owed_max` bytes with one
    /// more like it, and how many bytes all members are to be sent.
    pub fn plan_trail(
        &mut self,
        tape: &Tape,
        pass: PassId,
        (entry, frames): (&Published<'_>, &mut Frames<'_>),
        owed_max: usize,
        touched: &mut Vec<CohortId>,
    ) -> (bool, u64) {
        self.learn(tape, entry.topic);
        let Interest { names, topics, cohorts, cost, trail, .. } = self;
        let TopicState { standing, known, .. } = &topics[entry.topic.slot as usize];
        let (mut to_send, mut is_full) = (0, false);
        let looks = standing.look_at_each(names, cohorts, |cohort, id, delivery| {
            let is_behind = cohort.trail == trail.era() && cohort.since <= entry.position;
            if !is_behind || cohort.is_marked(2 * (entry.position.0 + 1) + 1) || cohort.excludes(entry.origin) {
                return;
            }
            let delivery = delivery.or(cohort.uniform).or_else(|| cohort.strongest(&standing.names));
            if delivery.and_then(Delivery::rate).is_some() {
                return;
            }
            let Some((planned, bytes)) = cohort.plan(pass, entry, frames, (id, known)) else { return };
            to_send += bytes;
            if planned.first {
                touched.push(id);
            }
            if planned.next > owed_max {
                trail.note_full(id);
                is_full = true;
            }
        });
        *cost += price::LOOK * 2 * (1 + looks);
        (is_full, to_send)
    }

    /// Whether a cohort trails: its members are not where the fan is.
    #[inline]
    pub fn trails(&self, id: CohortId) -> bool {
        self.cohorts[id as usize].trail == self.trail.era()
    }

    /// Everything before was planned for the members of a cohort.
    pub fn planned_for(&self, id: CohortId) -> Position {
        match self.trail.position().filter(|_| self.trails(id)) {
            Some(position) => position.max(self.cohorts[id as usize].since),
            None => self.position,
        }
    }

    /// Bytes that one member is owed at most, of the cohort that was owed as much as anybody may be.
    #[inline]
    pub fn owed_most(&self) -> usize {
        let full = self.trail.full().and_then(|id| self.cohorts.get(id as usize));
        full.map_or(0, |cohort| cohort.column.owed_most())
    }

    /// What looking at names and cohorts has cost since this was last asked.
    pub fn take_cost(&mut self) -> u64 {
        std::mem::take(&mut self.cost)
    }

    /// The same, to be looked at.
    #[inline]
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Notes the newest publication of a topic; returns the one before it.
    fn note(&mut self, at: Position, entry: &Entry) -> Newest {
        self.recent.note(entry.topic.slot);
        let topic = &mut self.topics[entry.topic.slot as usize];
        let stale = std::mem::replace(&mut topic.era, self.era) != self.era;
        let newest = Newest { end: Position(at.0 + 1), seq: entry.seq, origin: entry.origin };
        let before = std::mem::replace(&mut topic.newest, newest);
        let before = if stale { Newest { end: Position(0), seq: entry.seq - 1, origin: 0 } } else { before };
        self.past.note(entry.topic.slot, before);
        before
    }

    /// Notes what is known of a topic from elsewhere, if its publications haven't come by: its newest number as of the
    /// worker's position.
    pub fn note_known(&mut self, id: TopicId, name: &Arc<str>, seq: u64) {
        self.learn_as(id, Some(Arc::clone(name)));
        let topic = &mut self.topics[id.slot as usize];
        if topic.era != self.era {
            topic.era = self.era;
            topic.newest = Newest { end: Position(0), seq, origin: 0 };
        }
    }

    /// Notes that a topic's newest publication is `newest`, although it never came by: in the order of the tape, and behind
    /// all that have come by.
    pub fn note_missed(&mut self, id: TopicId, name: &Arc<str>, newest: Newest) {
        self.learn_as(id, Some(Arc::clone(name)));
        self.recent.note(id.slot);
        self.past.note(id.slot, self.newest(id.slot).unwrap_or_default());
        let topic = &mut self.topics[id.slot as usize];
        (topic.era, topic.newest) = (self.era, newest);
    }

    /// Counts how often the worker came to the tape: what was noted at another time is not known any more.
    pub fn era(&self) -> u64 {
        self.era
    }

    /// The worker has come to the tape: of topics that have publications before now nothing is known.
    pub fn begin_era(&mut self) {
        self.era += 1;
    }

    /// The cohort with this ticket, if it is still there.
    pub fn with_ticket(&mut self, id: CohortId, ticket: u64) -> Option<&mut Cohort> {
        self.cohorts.get_mut(id as usize).filter(|cohort| cohort.ticket == ticket)
    }

    /// Something is to be sent at the next tick of a cohort's rate.
    pub fn set_tick(&mut self, id: CohortId, n: usize, now: Moment) {
        let pace = &mut self.cohorts[id as usize].paces[n];
        // While members are still to be served at the last tick, the next one waits.
        if pace.open.is_none() {
            let due = pace.rate.tick_after(now);
            self.ticks.set(id, n, pace, due);
        }
    }

    /// A tick with this number begins at `position`. Returns what had changed.
    pub fn open_tick(&mut self, id: CohortId, n: usize, position: Position, number: u64) -> Vec<Change> {
        let changes = self.restart(id, n, position);
        self.cohorts[id as usize].paces[n].open = Some(number);
        changes
    }

    /// All members were served at the tick with this number: the next one may come. The cohort may be gone.
    pub fn close_tick(&mut self, id: CohortId, n: usize, number: u64, now: Moment) {
        let pace = self.cohorts.get_mut(id as usize).and_then(|cohort| cohort.paces.get_mut(n));
        let Some(pace) = pace.filter(|pace| pace.open == Some(number)) else { return };
        pace.open = None;
        if !pace.changes.is_empty() {
            self.set_tick(id, n, now);
        }
    }

    /// When the next tick comes, of which cohort, and the number of its rate.
    #[inline]
    pub fn next_tick(&self) -> Option<(Moment, CohortId, usize)> {
        self.ticks.next()
    }

    /// Lets a cohort's rate begin anew at `position`, as if everything before had been sent. Returns what had changed.
    pub fn restart(&mut self, id: CohortId, n: usize, position: Position) -> Vec<Change> {
        let pace = &mut self.cohorts[id as usize].paces[n];
        self.ticks.clear(id, n, pace);
        pace.restart(position)
    }

    /// Users of cohorts, by lane.
    #[cfg(all(test, not(loom)))]
    pub fn lanes(&self) -> [usize; LANES] {
        self.lanes
    }

    /// How many ticks are to come.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn ticks(&self) -> usize {
        self.ticks.len()
    }

    /// Whether publications of this connection are left out for a cohort.
    pub fn excludes(&self, id: CohortId, origin: u64) -> bool {
        self.cohorts[id as usize].excludes(origin)
    }

    /// The newest publication of a topic, if one is known.
    pub fn newest(&self, slot: u32) -> Option<Newest> {
        let topic = self.topics.get(slot as usize)?;
        (topic.era == self.era && topic.newest.seq > 0).then_some(topic.newest)
    }

    /// The topics that have been published on since the first of the cohorts came that are delivered newest values, the
    /// newest first, each with its newest publication.
    pub fn recent(&self) -> impl Iterator<Item = (u32, Newest)> {
        self.recent.slots().map(|slot| (slot, self.topics[slot as usize].newest))
    }

    /// What is newest at `position`, for whoever will ask later: as the tables have it now, but for what `own` finds.
    pub fn as_of(&mut self, position: Position, own: impl FnOnce() -> FxHashMap<u32, Newest>) -> Arc<AsOf> {
        self.past.as_of(self.position, position, own)
    }

    /// The same, with something that only this one asks for.
    pub fn own_as_of(&mut self, position: Position, own: impl FnOnce() -> FxHashMap<u32, Newest>) -> Arc<AsOf> {
        self.past.ask_anew();
        let as_of = self.past.as_of(self.position, position, own);
        self.past.ask_anew();
        as_of
    }

    /// The newest publication of a topic as of an earlier position, if there was one.
    pub fn newest_as_of(&self, as_of: &AsOf, slot: u32) -> Option<Newest> {
        as_of.newest(&self.past, slot, self.newest(slot))
    }

    /// How many newest publications from before are kept.
    #[cfg(all(test, not(loom)))]
    pub fn kept_of_past(&self) -> usize {
        self.past.kept()
    }

    /// The name of a topic whose publications have come by.
    pub fn topic_name(&self, slot: u32) -> Option<&Arc<str>> {
        self.topics.get(slot as usize)?.known.as_ref().map(|(_, name)| name)
    }

    /// How a topic is delivered to a cohort; none if it isn't.
    pub fn delivery(&self, id: CohortId, slot: u32) -> Option<Delivery> {
        let cohort = &self.cohorts[id as usize];
        let TopicState { known, standing, .. } = &self.topics[slot as usize];
        if standing.is_fresh(&self.names, &self.changes) {
            return standing.delivery(id, cohort);
        }
        let (_, text) = known.as_ref()?;
        let mut names = Vec::new();
        self.names.find_all(text, &mut names);
        cohort.strongest(&names)
    }

    /// The known topics that a cohort is delivered as `wanted` says, each once, by their slots.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn topics_delivered(&self, id: CohortId, wanted: impl Fn(Delivery) -> bool + Copy) -> Vec<u32> {
        (0..self.topics.len() as u32).filter(|slot| self.delivery(id, *slot).is_some_and(wanted)).collect()
    }

    /// Whether members of the cohort are to be sent this publication as it comes: neither left out nor at a rate.
    pub fn wants(&mut self, tape: &Tape, id: CohortId, entry: &Entry) -> Option<Delivery> {
        self.learn(tape, entry.topic);
        let cohort = &self.cohorts[id as usize];
        let delivery = self.topics[entry.topic.slot as usize].standing.delivery(id, cohort)?;
        let is_left_out = cohort.excludes(entry.origin) || is_untold(cohort.key.lane, entry);
        (delivery.rate().is_none() && !is_left_out).then_some(delivery)
    }

    /// Whether a topic is among what a cohort is subscribed to, however it is delivered.
    pub fn is_subscribed(&mut self, tape: &Tape, id: CohortId, topic: TopicId) -> bool {
        self.learn(tape, topic);
        let cohort = &self.cohorts[id as usize];
        self.topics[topic.slot as usize].standing.delivery(id, cohort).is_some()
    }

    /// Sees to it that a topic is known, and which names stand for it.
    #[inline]
    fn learn(&mut self, tape: &Tape, topic: TopicId) {
        let known = self.topics.get(topic.slot as usize);
        let is_known = |it: &TopicState| matches!(&it.known, Some((known, _)) if *known == topic.generation);
        if known.is_some_and(|it| is_known(it) && it.standing.is_fresh(&self.names, &self.changes)) {
            return;
        }
        if !known.is_some_and(is_known) {
            let found = tape.with_topics(|topics, _| {
                topics.at(topic.slot).filter(|found| found.id == topic).map(|found| Arc::clone(&found.name))
            });
            self.learn_as(topic, found);
        }
        self.refresh(topic.slot as usize);
    }

    fn learn_as(&mut self, topic: TopicId, found: Option<Arc<str>>) {
        let slot = topic.slot as usize;
        if self.topics.len() <= slot {
            self.topics.resize_with(slot + 1, TopicState::default);
        }
        if matches!(&self.topics[slot].known, Some((known, _)) if *known == topic.generation) {
            return;
        }
        self.forget_standing(slot);
        self.recent.forget(topic.slot);
        self.past.forget(topic.slot);
        // A topic that is forgotten already had no subscribers.
        let known = found.map(|text| (topic.generation, text));
        self.topics[slot] = TopicState { known, ..TopicState::default() };
    }

    /// Brings up to date which names stand for a topic.
    #[cold]
    fn refresh(&mut self, slot: usize) {
        let Interest { names, topics, cohorts, changes, .. } = self;
        let TopicState { known: Some((_, text)), standing, .. } = &mut topics[slot] else { return };
        self.kept -= standing.room();
        self.cost += standing.refresh(text, names, cohorts, changes);
        self.kept += standing.room();
        if self.kept > KEPT_MAX {
            self.forget_some(slot);
        }
    }

    /// Forgets what is kept for other topics, until a quarter of the room is free: they are looked at one after the other, and
    /// what was kept has cost more than that.
    fn forget_some(&mut self, but: usize) {
        for _ in 0..self.topics.len() {
            if self.kept <= KEPT_MAX / 4 * 3 {
                return;
            }
            self.hand = (self.hand + 1) % self.topics.len();
            if self.hand != but && self.topics[self.hand].standing.cohorts.is_some() {
                self.forget_standing(self.hand);
            }
        }
    }

    fn forget_standing(&mut self, slot: usize) {
        let forgotten = std::mem::take(&mut self.topics[slot].standing);
        self.kept -= forgotten.room();
    }
}

impl CohortKey {
    /// How its members are sent publications.
    #[inline]
    pub fn form(&self) -> Form {
        Form { lane: self.lane, packed: self.packed != Packing::Clear }
    }

    /// Whether some name is delivered in newest values.
    fn conflates(&self) -> bool {
        self.names.iter().any(|(_, delivery)| *delivery != Delivery::All)
    }
}

/// Whether there is nothing of a publication in a lane, though it is written: it was too large, and there are no words to say so.
#[inline]
fn is_untold(lane: Lane, entry: &Entry) -> bool {
    entry.kind == Kind::TooLarge && !lane.words().tells()
}

impl Cohort {
    /// Whether it has this mark already; now it has.
    #[inline]
    fn is_marked(&mut self, mark: u64) -> bool {
        std::mem::replace(&mut self.mark, mark) == mark
    }

    /// Whether its members are owed too much for this publication.
    #[cold]
    fn is_full(&self, entry: &Published<'_>, bounds: Bounds) -> bool {
        let owed = self.column.owed_most();
        owed > 0 && bounds.are_passed(&self.column, owed + entry.len(self.key.lane) as usize)
    }

    /// Adds a publication to what its members are to be sent. Returns what became of it, and how many bytes that is; none if there is
    /// nothing to be sent to anybody.
    #[inline]
    fn plan(
        &mut self,
        pass: PassId,
        entry: &Published<'_>,
        frames: &mut Frames<'_>,
        (id, topic): (CohortId, &Option<Known>),
    ) -> Option<(Planned, u64)> {
        let lane = self.key.lane;
        if self.column.is_empty() || is_untold(lane, entry) {
            return None;
        }
        if self.key.polls {
            // They look for themselves what there is, whatever it is written in; some of it may be from before they came.
            let nothing = Run { base: Position(0), start: 0, len: 0 };
            return Some((self.column.plan(pass, entry.position, nothing), 0));
        }
        debug_assert!(entry.is_in(lane), "a lane with subscribers is written");
        if self.key.packed != Packing::Clear {
            let topic = topic.as_ref().map(|(_, topic)| &**topic);
            return Some(self.plan_packed(pass, entry, frames, (id, topic)));
        }
        let run = entry.run(lane);
        let to_send = u64::from(run.len) * self.column.len() as u64;
        Some((self.column.plan(pass, entry.position, run), to_send))
    }

    /// The same for a cohort whose members are sent compressed frames. What compressing costs, the packer knows.
    #[inline(never)]
    fn plan_packed(
        &mut self,
        pass: PassId,
        entry: &Published<'_>,
        frames: &mut Frames<'_>,
        of: (CohortId, Option<&str>),
    ) -> (Planned, u64) {
        if self.may_share() {
            return self.plan_shared(pass, entry, frames, of);
        }
        let (run, members) = (frames.run(self.key.form(), entry), self.column.len() as u64);
        (self.column.plan(pass, entry.position, run), u64::from(run.len) * members)
    }

    /// Whether publications of this connection are left out.
    pub fn excludes(&self, origin: u64) -> bool {
        self.key.except != 0 && self.key.except == origin
    }

    /// Whether any name is delivered as `wanted` says.
    pub fn has(&self, wanted: impl Fn(Delivery) -> bool) -> bool {
        self.key.names.iter().any(|(_, delivery)| wanted(*delivery))
    }

    /// How a topic with these names is delivered; none if none is among the cohort's.
    pub fn strongest(&self, names: &[NameId]) -> Option<Delivery> {
        let own = &self.key.names;
        let found = |name: &NameId| own.binary_search_by_key(name, |(own, _)| *own).ok();
        if let Some(uniform) = self.uniform {
            return names.iter().any(|name| found(name).is_some()).then_some(uniform);
        }
        names.iter().filter_map(found).map(|at| own[at].1).min()
    }

    fn pace(&mut self, rate: Rate) -> (usize, &mut Pace) {
        self.paces.iter_mut().enumerate().find(|(_, pace)| pace.rate == rate).expect("a pace for each rate")
    }
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl Interest {
    /// Asserts that the tables agree with each other.
    pub fn invariants(&self) {
        assert_eq!(self.by_key.len(), self.cohorts.len());
        let mut lanes = [0; LANES];
        let (mut ticks, mut links) = (0, 0);
        for (id, cohort) in &self.cohorts {
            let id = id as CohortId;
            assert_eq!(self.by_key.get(&cohort.key), Some(&id), "a cohort is found by its key");
            assert!(cohort.users >= cohort.column.tokens().count(), "a member is a user");
            assert!(cohort.key.names.is_sorted_by(|a, b| a.0 < b.0) && !cohort.key.names.is_empty());
            assert!(cohort.paces.is_sorted_by(|a, b| a.rate > b.rate));
            for (((name, _), place), at) in cohort.key.names.iter().zip(&cohort.places).zip(0..) {
                let link = self.names.cohorts(*name)[*place as usize];
                assert_eq!(link, Link { cohort: id, at }, "a name knows its cohorts, and they their places");
                links += 1;
            }
            for pace in &cohort.paces {
                let waits = !pace.changes.is_empty() && pace.open.is_none();
                assert_eq!(pace.due.is_some(), waits, "a tick where something has changed");
                ticks += usize::from(pace.due.is_some());
            }
            lanes[cohort.key.lane as usize] += cohort.users;
            cohort.column.invariants();
            cohort.check_stream();
        }
        assert_eq!((self.lanes, self.ticks.len()), (lanes, ticks), "users by lane, and ticks");
        let conflated = self.cohorts.iter().filter(|(_, cohort)| cohort.key.conflates()).count();
        assert_eq!(self.conflated, conflated, "cohorts that are delivered newest values");
        let recent: Vec<_> = self.recent().collect();
        assert!(recent.is_sorted_by(|a, b| a.1.end > b.1.end), "in the order of the tape: {recent:?}");
        assert!(conflated > 0 || recent.is_empty(), "nobody wants it");
        self.names.invariants(links);
        let mut kept = 0;
        for TopicState { known, standing, .. } in &self.topics {
            kept += standing.room();
            if let Some((_, text)) = known.as_ref().filter(|_| standing.is_fresh(&self.names, &self.changes)) {
                let mut names = Vec::new();
                self.names.find_all(text, &mut names);
                assert_eq!(standing.names, names, "the names that stand for {text}");
                let wanting = |id: &CohortId| standing.delivery(*id, self.at(*id)) == self.at(*id).strongest(&names);
                assert!(self.cohort_ids().iter().all(wanting), "who wants {text}");
            }
        }
        assert_eq!(self.kept, kept, "bytes kept for topics");
        assert!(self.kept <= KEPT_MAX || self.topics.iter().any(|it| it.standing.room() > KEPT_MAX / 4));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::hash::BuildHasher;

    use super::*;
    use crate::{
        packs::{PackSettings, Packer, Packing, Packs},
        protocol::Payload,
        publish::{By, Door},
        tape::{About, TapeSettings},
    };

    /// Tables, and a tape on which they follow.
    struct Stage {
        interest: Interest,
        tape: Tape,
        reader: Reader,
        packer: Packer,
    }

    impl Stage {
        fn new() -> Stage {
            let tape = Tape::new(TapeSettings {
                retain: 1 << 20,
                segment: 4096,
                message_max: 100,
                topics_max: 10_000,
                value_bytes_max: 1 << 20,
                epoch: 1,
            });
            let packs = Packs::new(tape.clone(), PackSettings { level: 1, least: 0, memory: 0 });
            let packer = Packer::new(packs);
            Stage { interest: Interest::default(), reader: Reader::new(tape.clone()), packer, tape }
        }

        fn join(&mut self, names: impl IntoIterator<Item = String>) -> CohortId {
            let names = names.into_iter().map(|name| (self.interest.intern(&name.into()), Delivery::All));
            let mut names: Vec<_> = names.collect();
            names.sort_unstable();
            self.interest.join(
                CohortKey { lane: Lane::Raw, packed: Packing::Clear, names: names.into(), except: 0, polls: false },
                Position(0),
            )
        }

        /// What it costs to plan a publication.
        fn publish(&mut self, topic: &str) -> u64 {
            let about = About { ts: 1, ..About::default() };
            Door::new(self.tape.clone(), 128)
                .publish(By::SERVER, topic, Payload::Text("x"), about)
                .expect("there is room");
            let Stage { interest, tape, reader, packer } = self;
            let head = reader.refresh();
            interest.take_cost();
            reader.scan(Position(head.0 - 1), head, |entry| {
                let frames = &mut Frames { reader, packer };
                interest.plan(tape, 0, (entry, frames), Bounds::default(), &mut Vec::new(), &mut Vec::new());
                true
            });
            interest.take_cost()
        }
    }

    #[test]
    fn a_publication_costs_the_cohorts_that_want_it_and_not_their_names() {
        let mut stage = Stage::new();
        // Of ten segments any may be a star; a name of its own makes each a cohort.
        let star =
            |name: usize| (0..10).map(|bit| if name >> bit & 1 == 1 { "*" } else { "a" }).collect::<Vec<_>>().join(".");
        for n in 0..20 {
            stage.join((0..1023).map(star).chain([format!("own.{n}")]));
        }
        let topic = ["a"; 10].join(".");
        stage.publish(&topic);
        let cost = stage.publish(&topic);
        assert!(cost <= 4 * price::LOOK * 20, "{cost}");
        // One cohort more or less is one that is looked at, with its names.
        let id = stage.join((0..1023).map(star).chain(["own.more".into()]));
        let more = stage.publish(&topic);
        stage.interest.leave(id);
        let less = stage.publish(&topic);
        assert!(more.max(less) <= 2 * price::LOOK * 1024, "{more} {less}");
        stage.interest.invariants();
    }

    #[test]
    fn whoever_subscribes_to_new_names_makes_the_next_publications_hardly_dearer() {
        let mut stage = Stage::new();
        let topics: Vec<String> = (0..300).map(|n| format!("q.us.{n}")).collect();
        stage.join(["q.>".into()]);
        topics.iter().for_each(|topic| _ = stage.publish(topic));
        let known = stage.publish(&topics[0]);
        for round in 0..3 {
            let id = stage.join((0..1000).map(|n| format!("new.{round}.{n}.*")));
            let dearest = topics.iter().map(|topic| stage.publish(topic)).max().expect("there are some");
            assert!(dearest <= known + 20 * price::MATCH, "{dearest}, {known} before");
            let few = stage.join((0..5).map(|n| format!("few.{round}.{n}")));
            let dearest = topics.iter().map(|topic| stage.publish(topic)).max().expect("there are some");
            assert!(dearest <= known + 5 * price::MATCH, "{dearest}, {known} before");
            stage.interest.leave(id);
            stage.interest.leave(few);
        }
    }

    #[test]
    fn nobody_can_know_where_in_the_table_cohorts_come_to_lie() {
        let place = || Interest::default().by_key.hasher().hash_one("a");
        assert!(place() != place());
    }

    #[test]
    fn cohorts_that_have_gone_leave_no_room_behind() {
        let mut interest = Interest::default();
        let join = |interest: &mut Interest, names: &[NameId]| {
            let names = names.iter().map(|name| (*name, Delivery::All)).collect();
            interest.join(
                CohortKey { lane: Lane::Raw, packed: Packing::Clear, names, except: 0, polls: false },
                Position(0),
            )
        };
        let shared = interest.intern(&"shared".into());
        let stays = join(&mut interest, &[shared]);
        let gone: Vec<CohortId> = (0..20_000)
            .map(|n| {
                let name = interest.intern(&format!("{n}.*").into());
                join(&mut interest, &[shared, name])
            })
            .collect();
        gone.into_iter().for_each(|id| interest.leave(id));
        interest.give_back();
        let Interest { names, cohorts, by_key, .. } = &interest;
        let rooms = [cohorts.room(), by_key.room()];
        for (room, _, size) in rooms {
            assert!(room * size <= KEPT_BY_THREAD, "{rooms:?}");
        }
        assert_eq!((names.len(), cohorts.contains(stays as usize)), (1, true));
    }
}
