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

use slab::Slab;

pub use super::super::connection::CohortId;
use super::{
    column::Column,
    delivery::{Delivery, Rate},
    pace::{Change, Pace, Ticks},
    passes::PassId,
    past::{AsOf, Mark, Past},
    recent::Recent,
};
use crate::{
    clock::Moment,
    lane::{LANES, Lane},
    protocol::{is_pattern, matches},
    slack::{KEPT_BY_ONE, KEPT_BY_THREAD, Slack},
    tape::{Entry, Position, Published, Reader, Tape},
    topic::TopicId,
};

/// A name that somebody on this worker is subscribed to.
pub type NameId = u32;

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
    /// How all of its names are delivered, where they all are in one way.
    uniform: Option<Delivery>,
    /// One more than the position last planned, so that overlapping names plan it once.
    mark: u64,
}

/// What makes two subscriptions the same.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CohortKey {
    pub lane: Lane,
    /// Each name once, sorted.
    pub names: Box<[(NameId, Delivery)]>,
    /// The connection whose own publications are left out; 0 for none.
    pub except: u64,
}

struct Name {
    text: Arc<str>,
    cohorts: Vec<CohortId>,
    /// Slots of the topics whose lists have this name.
    topics: Vec<u32>,
}

/// What is known of a topic: nothing until its first publication passes, or somebody subscribes to newest values.
#[derive(Default)]
struct TopicState {
    known: Option<(u32, Arc<str>)>,
    /// The names that it matches.
    names: Vec<NameId>,
    newest: Newest,
    /// When `newest` is up to date: as long as the worker has been on the tape since.
    era: u64,
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
    names: Slab<Name>,
    /// By a hash with a key, as below: clients choose names, rates, and what goes together.
    by_text: HashMap<Arc<str>, NameId>,
    patterns: Vec<NameId>,
    topics: Vec<TopicState>,
    /// Counts how often the worker came to the tape.
    era: u64,
    cohorts: Slab<Cohort>,
    by_key: HashMap<Arc<CohortKey>, CohortId>,
    ticks: Ticks,
    /// Topics by their newest publications, while cohorts are delivered newest values.
    recent: Recent,
    /// What they knew before.
    past: Past,
    /// How many cohorts are.
    conflated: usize,
    /// Everything before it was planned for the members at the head.
    pub position: Position,
    /// Users of cohorts, by lane: while there are any, the lane is written.
    lanes: [usize; LANES],
    /// Cohorts have gone since room was given back.
    emptied: bool,
}

impl Interest {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.cohorts.is_empty()
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

    /// A cohort, to be looked at.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn at(&self, id: CohortId) -> &Cohort {
        &self.cohorts[id as usize]
    }

    pub fn cohort_ids(&self) -> Vec<CohortId> {
        self.cohorts.iter().map(|(id, _)| id as CohortId).collect()
    }

    pub fn text(&self, name: NameId) -> &Arc<str> {
        &self.names[name as usize].text
    }

    pub fn find_name(&self, text: &str) -> Option<NameId> {
        self.by_text.get(text).copied()
    }

    /// The name with this text, made if there was none. The caller lets a cohort with it follow, whose end takes it along.
    pub fn intern(&mut self, text: &Arc<str>) -> NameId {
        if let Some(name) = self.by_text.get(text) {
            return *name;
        }
        let id = self.names.insert(Name { text: Arc::clone(text), cohorts: Vec::new(), topics: Vec::new() }) as NameId;
        self.by_text.insert(Arc::clone(text), id);
        if is_pattern(text) {
            self.patterns.push(id);
        }
        for (slot, topic) in self.topics.iter_mut().enumerate() {
            if topic.known.as_ref().is_some_and(|(_, name)| matches(text, name)) {
                topic.names.push(id);
                self.names[id as usize].topics.push(slot as u32);
            }
        }
        id
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
            column: Column::default(),
            users: 1,
            ticket: 0,
            last_sent: Moment::default(),
            mark: 0,
        }) as CohortId;
        for (name, _) in &key.names {
            self.names[*name as usize].cohorts.push(id);
        }
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
        let Cohort { key, mut paces, .. } = self.cohorts.remove(id as usize);
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
        for (name, _) in &key.names {
            let cohorts = &mut self.names[*name as usize].cohorts;
            cohorts.retain(|other| *other != id);
            cohorts.give_back(KEPT_BY_ONE);
            if cohorts.is_empty() {
                self.release(*name);
            }
        }
    }

    fn release(&mut self, id: NameId) {
        let name = self.names.remove(id as usize);
        self.by_text.remove(&name.text);
        self.patterns.retain(|other| *other != id);
        for slot in name.topics {
            let names = &mut self.topics[slot as usize].names;
            names.retain(|other| *other != id);
            names.give_back(KEPT_BY_ONE);
        }
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
        let tables: [&mut dyn Slack; 5] =
            [&mut self.names, &mut self.by_text, &mut self.patterns, &mut self.cohorts, &mut self.by_key];
        tables.into_iter().for_each(|table| table.give_back(KEPT_BY_THREAD));
    }

    /// Adds one publication to what the members of each cohort that wants it are to be sent; cohorts that this pass
    /// is the first to plan it for are put on `touched`. For names with a rate the topic is noted; cohorts that have
    /// something to send at their next tick, for the first time since the last, are put on `stirred` with the rate's number.
    /// Returns how many bytes somebody would be owed with one more like it.
    pub fn plan(
        &mut self,
        tape: &Tape,
        pass: PassId,
        entry: &Published<'_>,
        touched: &mut Vec<CohortId>,
        stirred: &mut Vec<(CohortId, usize)>,
    ) -> usize {
        let mut most = 0;
        self.learn(tape, entry.topic);
        let (at, slot) = (entry.position, entry.topic.slot);
        let before = self.note(at, entry);
        let Interest { names, topics, cohorts, .. } = self;
        let of_topic = &topics[slot as usize].names;
        for name in of_topic {
            for id in &names[*name as usize].cohorts {
                let cohort = &mut cohorts[*id as usize];
                if cohort.mark == at.0 + 1 || cohort.excludes(entry.origin) {
                    continue;
                }
                cohort.mark = at.0 + 1;
                let delivery = cohort.uniform.or_else(|| cohort.strongest(of_topic));
                if let Some(rate) = delivery.and_then(Delivery::rate) {
                    let told = cohort.key.except == 0;
                    let (n, pace) = cohort.pace(rate);
                    if pace.note(slot, at, before, told) {
                        stirred.push((*id, n));
                    }
                    continue;
                }
                if cohort.column.is_empty() {
                    continue;
                }
                let lane = cohort.key.lane;
                debug_assert!(entry.is_in(lane), "a lane with subscribers is written");
                let planned = cohort.column.plan(pass, at, entry.run(lane));
                most = most.max(planned.next);
                if planned.first {
                    touched.push(*id);
                }
            }
        }
        most
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
        let due = pace.rate.tick_after(now);
        self.ticks.set(id, n, pace, due);
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

    /// A mark where the tables stand, for whoever will ask what they knew here.
    pub fn mark(&mut self) -> Arc<Mark> {
        self.past.mark(self.position)
    }

    /// The newest publication of a topic as of an earlier position, if there was one.
    pub fn newest_as_of(&self, as_of: &AsOf, slot: u32) -> Option<Newest> {
        as_of.newest(&self.past, slot, self.newest(slot))
    }

    /// The name of a topic whose publications have come by.
    pub fn topic_name(&self, slot: u32) -> Option<&Arc<str>> {
        self.topics.get(slot as usize)?.known.as_ref().map(|(_, name)| name)
    }

    /// How a topic is delivered to a cohort; none if it isn't.
    pub fn delivery(&self, id: CohortId, slot: u32) -> Option<Delivery> {
        self.cohorts[id as usize].strongest(&self.topics[slot as usize].names)
    }

    /// The known topics of a cohort's names that `wanted` says, each at least once, with how its name is delivered.
    fn topics_of(&self, id: CohortId, wanted: impl Fn(Delivery) -> bool) -> impl Iterator<Item = u32> {
        let names = self.cohorts[id as usize].key.names.iter().filter(move |(_, delivery)| wanted(*delivery));
        names.flat_map(|(name, _)| self.names[*name as usize].topics.iter().copied())
    }

    /// How many known topics a cohort is delivered as `wanted` says, at most.
    pub fn topics_at_most(&self, id: CohortId, wanted: impl Fn(Delivery) -> bool) -> usize {
        let names = self.cohorts[id as usize].key.names.iter().filter(|(_, delivery)| wanted(*delivery));
        names.map(|(name, _)| self.names[*name as usize].topics.len()).sum()
    }

    /// The known topics that a cohort is delivered as `wanted` says, each once, by their slots.
    pub fn topics_delivered(&self, id: CohortId, wanted: impl Fn(Delivery) -> bool + Copy) -> Vec<u32> {
        let mut slots: Vec<u32> = self.topics_of(id, wanted).collect();
        slots.sort_unstable();
        slots.dedup();
        if self.cohorts[id as usize].uniform.is_none() {
            slots.retain(|slot| self.delivery(id, *slot).is_some_and(wanted));
        }
        slots
    }

    /// Whether members of the cohort are to be sent this publication as it comes: neither left out nor at a rate.
    pub fn wants(&mut self, tape: &Tape, id: CohortId, entry: &Entry) -> Option<Delivery> {
        self.learn(tape, entry.topic);
        let cohort = &self.cohorts[id as usize];
        let delivery = cohort.strongest(&self.topics[entry.topic.slot as usize].names)?;
        (delivery.rate().is_none() && !cohort.excludes(entry.origin)).then_some(delivery)
    }

    /// Finds the names that a topic matches, when it is seen for the first time.
    fn learn(&mut self, tape: &Tape, topic: TopicId) {
        let slot = topic.slot as usize;
        if matches!(self.topics.get(slot).map(|t| &t.known), Some(Some((known, _))) if *known == topic.generation) {
            return;
        }
        let found = tape.with_topics(|topics, _| {
            topics.at(topic.slot).filter(|found| found.id == topic).map(|found| Arc::clone(&found.name))
        });
        self.learn_as(topic, found);
    }

    fn learn_as(&mut self, topic: TopicId, found: Option<Arc<str>>) {
        let slot = topic.slot as usize;
        if self.topics.len() <= slot {
            self.topics.resize_with(slot + 1, TopicState::default);
        }
        if matches!(&self.topics[slot].known, Some((known, _)) if *known == topic.generation) {
            return;
        }
        let forgotten = std::mem::take(&mut self.topics[slot]);
        self.recent.forget(topic.slot);
        self.past.forget(topic.slot);
        for name in forgotten.names {
            let topics = &mut self.names[name as usize].topics;
            topics.retain(|other| *other as usize != slot);
            topics.give_back(KEPT_BY_ONE);
        }
        // A topic that is forgotten already had no subscribers.
        let Some(text) = found else { return };
        let exact = self.by_text.get(&text).copied();
        let patterns = self.patterns.iter().copied().filter(|p| matches(&self.names[*p as usize].text, &text));
        let names: Vec<NameId> = exact.into_iter().chain(patterns).collect();
        for name in &names {
            self.names[*name as usize].topics.push(topic.slot);
        }
        self.topics[slot] = TopicState { known: Some((topic.generation, text)), names, ..TopicState::default() };
    }
}

impl CohortKey {
    /// Whether some name is delivered in newest values.
    fn conflates(&self) -> bool {
        self.names.iter().any(|(_, delivery)| *delivery != Delivery::All)
    }
}

impl Cohort {
    /// Whether publications of this connection are left out.
    pub fn excludes(&self, origin: u64) -> bool {
        self.key.except != 0 && self.key.except == origin
    }

    /// Whether any name is delivered as `wanted` says.
    pub fn has(&self, wanted: impl Fn(Delivery) -> bool) -> bool {
        self.key.names.iter().any(|(_, delivery)| wanted(*delivery))
    }

    /// How a topic with these names is delivered; none if none is among the cohort's.
    fn strongest(&self, names: &[NameId]) -> Option<Delivery> {
        let own = &self.key.names;
        let found = |name: &NameId| own.binary_search_by_key(name, |(own, _)| *own).ok();
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
        assert_eq!((self.by_text.len(), self.by_key.len()), (self.names.len(), self.cohorts.len()));
        let mut lanes = [0; LANES];
        let mut ticks = 0;
        for (id, cohort) in &self.cohorts {
            let id = id as CohortId;
            assert_eq!(self.by_key.get(&cohort.key), Some(&id), "a cohort is found by its key");
            assert!(cohort.users >= cohort.column.tokens().count(), "a member is a user");
            assert!(cohort.key.names.is_sorted_by(|a, b| a.0 < b.0) && !cohort.key.names.is_empty());
            assert!(cohort.paces.is_sorted_by(|a, b| a.rate > b.rate));
            for (name, _) in &cohort.key.names {
                let of_name = &self.names[*name as usize].cohorts;
                assert_eq!(of_name.iter().filter(|other| **other == id).count(), 1, "a name knows its cohorts");
            }
            for pace in &cohort.paces {
                assert_eq!(pace.due.is_some(), !pace.changes.is_empty(), "a tick where something has changed");
                ticks += usize::from(pace.due.is_some());
            }
            lanes[cohort.key.lane as usize] += cohort.users;
            cohort.column.invariants();
        }
        assert_eq!((self.lanes, self.ticks.len()), (lanes, ticks), "users by lane, and ticks");
        let conflated = self.cohorts.iter().filter(|(_, cohort)| cohort.key.conflates()).count();
        assert_eq!(self.conflated, conflated, "cohorts that are delivered newest values");
        let recent: Vec<_> = self.recent().collect();
        assert!(recent.is_sorted_by(|a, b| a.1.end > b.1.end), "in the order of the tape: {recent:?}");
        assert!(conflated > 0 || recent.is_empty(), "nobody wants it");
        let (mut patterns, mut links) = (0, 0);
        for (id, name) in &self.names {
            assert!(!name.cohorts.is_empty(), "a name that nobody wants");
            assert_eq!(self.by_text.get(&name.text), Some(&(id as NameId)), "a name is found by its text");
            assert!(name.cohorts.iter().all(|cohort| self.cohorts.contains(*cohort as usize)));
            patterns += usize::from(is_pattern(&name.text));
            links += name.topics.len();
            for slot in &name.topics {
                assert!(self.topics[*slot as usize].names.contains(&(id as NameId)), "a topic knows its names");
            }
        }
        assert_eq!(self.patterns.len(), patterns);
        assert_eq!(self.topics.iter().map(|topic| topic.names.len()).sum::<usize>(), links, "and no others");
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn nobody_can_know_where_in_the_tables_names_and_cohorts_come_to_lie() {
        let places = || {
            let Interest { by_text, by_key, .. } = Interest::default();
            (by_text.hasher().hash_one("a"), by_key.hasher().hash_one("a"))
        };
        let (one, other) = (places(), places());
        assert!(one.0 != other.0 && one.1 != other.1);
    }

    #[test]
    fn names_and_cohorts_that_have_gone_leave_no_room_behind() {
        let mut interest = Interest::default();
        let join = |interest: &mut Interest, names: &[NameId]| {
            let names = names.iter().map(|name| (*name, Delivery::All)).collect();
            interest.join(CohortKey { lane: Lane::Raw, names, except: 0 }, Position(0))
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
        let Interest { names, by_text, patterns, cohorts, by_key, .. } = &interest;
        let rooms = [names.room(), by_text.room(), patterns.room(), cohorts.room(), by_key.room()];
        for (room, _, size) in rooms {
            assert!(room * size <= KEPT_BY_THREAD, "{rooms:?}");
        }
        assert!(names[shared as usize].cohorts.capacity() * size_of::<CohortId>() <= KEPT_BY_ONE);
        assert_eq!((names.len(), cohorts.contains(stays as usize)), (1, true));
    }
}
