//! Who wants what: a worker's tables from topics to names, and from names to cohorts.
//!
//! ```text
//!   topic q.us.AAPL ──► names  "q.us.AAPL", "q.us.*" ──► cohorts 0, 3
//!   topic q.us.MSFT ──► names  "q.us.*"              ──► cohort  3
//! ```
//!
//! A *name* is what somebody subscribed to: a topic or a pattern. A *cohort* is all connections of this worker with the
//! same lane and exactly the same names; what is planned for it is planned once. Names that a topic matches are found
//! when its first publication passes, and kept; topics made later are matched when they come.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use slab::Slab;

use crate::{
    clock::Moment,
    io::Token,
    protocol::{is_pattern, matches},
    tape::{Entry, Lane, Position, Run, Tape},
    topic::TopicId,
};

/// A name that somebody on this worker is subscribed to.
pub(super) type NameId = u32;

/// A cohort of this worker.
pub(super) type CohortId = u32;

/// Connections of one worker with the same subscription.
pub(super) struct Cohort {
    pub key: Arc<CohortKey>,
    /// Members that have been sent everything up to the worker's position.
    pub members: Vec<Token>,
    /// Members, those that march alone, and pending stages that still refer to this cohort.
    pub users: usize,
    /// Which member is served first by the next pass.
    pub first: usize,
    /// When the members were last sent something.
    pub last_sent: Moment,
    /// What the current pass sends them.
    pub plan: Plan,
    /// One more than the position last planned, so that overlapping names plan it once.
    mark: u64,
}

/// What makes two subscriptions the same.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct CohortKey {
    pub lane: Lane,
    /// Sorted.
    pub names: Box<[NameId]>,
    /// The connection whose own publications are left out; 0 for none.
    pub except: u64,
}

/// Pieces of the tape to be sent in this order, adjacent ones merged.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub runs: Vec<Run>,
    pub bytes: usize,
    pub publications: u64,
}

impl Plan {
    pub fn clear(&mut self) {
        self.runs.clear();
        self.bytes = 0;
        self.publications = 0;
    }

    pub fn push(&mut self, base: Position, start: u32, len: u32) {
        self.bytes += len as usize;
        self.publications += 1;
        match self.runs.last_mut() {
            Some(last) if last.base == base && last.start + last.len == start => last.len += len,
            _ => self.runs.push(Run { base, start, len }),
        }
    }
}

struct Name {
    text: Arc<str>,
    cohorts: Vec<CohortId>,
    /// Slots of the topics whose lists have this name.
    topics: Vec<u32>,
}

/// The names that one topic matches; empty and unknown until its first publication passes.
#[derive(Default)]
struct TopicNames {
    known: Option<(u32, Arc<str>)>,
    names: Vec<NameId>,
}

/// The tables of one worker.
#[derive(Default)]
pub(super) struct Interest {
    names: Slab<Name>,
    by_text: FxHashMap<Arc<str>, NameId>,
    patterns: Vec<NameId>,
    topics: Vec<TopicNames>,
    cohorts: Slab<Cohort>,
    by_key: FxHashMap<Arc<CohortKey>, CohortId>,
}

impl Interest {
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

    /// One user more for the cohort of this key, made if there was none.
    pub fn join(&mut self, key: CohortKey) -> CohortId {
        if let Some(id) = self.by_key.get(&key) {
            self.cohorts[*id as usize].users += 1;
            return *id;
        }
        let key = Arc::new(key);
        let id = self.cohorts.insert(Cohort {
            key: Arc::clone(&key),
            members: Vec::new(),
            users: 1,
            first: 0,
            last_sent: Moment::default(),
            plan: Plan::default(),
            mark: 0,
        }) as CohortId;
        for name in &key.names {
            self.names[*name as usize].cohorts.push(id);
        }
        self.by_key.insert(key, id);
        id
    }

    /// One user less; the last one takes the cohort and the names that only it used along.
    pub fn leave(&mut self, id: CohortId) {
        let cohort = &mut self.cohorts[id as usize];
        cohort.users -= 1;
        if cohort.users > 0 {
            return;
        }
        debug_assert!(cohort.members.is_empty(), "a member is a user");
        let key = self.cohorts.remove(id as usize).key;
        self.by_key.remove(&key);
        for name in &key.names {
            let cohorts = &mut self.names[*name as usize].cohorts;
            cohorts.retain(|other| *other != id);
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
            self.topics[slot as usize].names.retain(|other| *other != id);
        }
    }

    /// Adds one publication to the plan of each cohort that wants it and has members in march; cohorts planned for the
    /// first time in this pass are put on `touched`.
    pub fn plan(&mut self, tape: &Tape, at: Position, base: Position, entry: &Entry, touched: &mut Vec<CohortId>) {
        self.learn(tape, entry.topic);
        let Interest { names, topics, cohorts, .. } = self;
        for name in &topics[entry.topic.slot as usize].names {
            for id in &names[*name as usize].cohorts {
                let cohort = &mut cohorts[*id as usize];
                if cohort.mark == at.0 + 1 || cohort.members.is_empty() || cohort.excludes(entry) {
                    continue;
                }
                cohort.mark = at.0 + 1;
                if cohort.plan.runs.is_empty() {
                    touched.push(*id);
                }
                let lane = cohort.key.lane as usize;
                debug_assert!(entry.len[lane] > 0, "a lane with subscribers is written");
                cohort.plan.push(base, entry.start[lane], entry.len[lane]);
            }
        }
    }

    /// Whether members of the cohort are to be sent this publication.
    pub fn wants(&mut self, tape: &Tape, id: CohortId, entry: &Entry) -> bool {
        self.learn(tape, entry.topic);
        let cohort = &self.cohorts[id as usize];
        let names = &self.topics[entry.topic.slot as usize].names;
        names.iter().any(|name| cohort.key.names.binary_search(name).is_ok()) && !cohort.excludes(entry)
    }

    /// Finds the names that a topic matches, when it is seen for the first time.
    fn learn(&mut self, tape: &Tape, topic: TopicId) {
        let slot = topic.slot as usize;
        if self.topics.len() <= slot {
            self.topics.resize_with(slot + 1, TopicNames::default);
        }
        if matches!(&self.topics[slot].known, Some((generation, _)) if *generation == topic.generation) {
            return;
        }
        let found = tape.with_topics(|topics, _| {
            topics.at(topic.slot).filter(|found| found.id == topic).map(|found| Arc::clone(&found.name))
        });
        let forgotten = std::mem::take(&mut self.topics[slot]);
        for name in forgotten.names {
            self.names[name as usize].topics.retain(|other| *other as usize != slot);
        }
        // A topic that is forgotten already had no subscribers.
        let Some(text) = found else { return };
        let exact = self.by_text.get(&text).copied();
        let patterns = self.patterns.iter().copied().filter(|p| matches(&self.names[*p as usize].text, &text));
        let names: Vec<NameId> = exact.into_iter().chain(patterns).collect();
        for name in &names {
            self.names[*name as usize].topics.push(topic.slot);
        }
        self.topics[slot] = TopicNames { known: Some((topic.generation, text)), names };
    }
}

impl Cohort {
    fn excludes(&self, entry: &Entry) -> bool {
        self.key.except != 0 && self.key.except == entry.origin
    }
}
