//! The names that a worker's connections are subscribed to, and the cohorts of each.
//!
//! A topic's own name is found by a hash, patterns in a tree (`tree.rs`). A new name is not held against the topics that are
//! known: what a topic's list of names has missed is made up for when the topic is next published on or looked at
//! (`standing.rs`), from a log of the last names that came and went. So subscribing costs the names of the subscription, and
//! so does its end, however many topics, names and cohorts there are.

use std::{collections::HashMap, sync::Arc};

use slab::Slab;

use super::{super::work::price, interest::CohortId, log::Log, tree::Tree};
use crate::{
    protocol::{is_pattern, matches},
    slack::{KEPT_BY_ONE, KEPT_BY_THREAD, Slack},
};

/// A name that somebody on this worker is subscribed to.
pub type NameId = u32;

/// See the module's description.
#[derive(Debug, Default)]
pub struct Names {
    all: Slab<Name>,
    /// By a hash with a key: clients choose names.
    by_text: HashMap<Arc<str>, NameId>,
    patterns: Tree,
    /// The names that came and went.
    pub changes: Log,
}

#[derive(Debug)]
struct Name {
    text: Arc<str>,
    cohorts: Vec<Link>,
}

/// A cohort that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub cohort: CohortId,
    /// Which of the cohort's names it is.
    pub at: u32,
}

impl Names {
    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn text(&self, id: NameId) -> &Arc<str> {
        &self.all[id as usize].text
    }

    pub fn find(&self, text: &str) -> Option<NameId> {
        self.by_text.get(text).copied()
    }

    /// The cohorts that have a name.
    #[inline]
    pub fn cohorts(&self, id: NameId) -> &[Link] {
        &self.all[id as usize].cohorts
    }

    /// The name with this text, made if there was none.
    pub fn intern(&mut self, text: &Arc<str>) -> NameId {
        if let Some(name) = self.by_text.get(text) {
            return *name;
        }
        let id = self.all.insert(Name { text: Arc::clone(text), cohorts: Vec::new() }) as NameId;
        self.by_text.insert(Arc::clone(text), id);
        if is_pattern(text) {
            self.patterns.add(text, id);
        }
        self.changes.note(id);
        id
    }

    /// A cohort has this name. Returns its place among the name's.
    pub fn link(&mut self, id: NameId, link: Link) -> u32 {
        let cohorts = &mut self.all[id as usize].cohorts;
        cohorts.push(link);
        cohorts.len() as u32 - 1
    }

    /// The cohort at this place is gone; with the last one the name goes. Returns which has the place now.
    pub fn unlink(&mut self, id: NameId, place: u32) -> Option<Link> {
        let cohorts = &mut self.all[id as usize].cohorts;
        cohorts.swap_remove(place as usize);
        cohorts.give_back(KEPT_BY_ONE);
        let moved = cohorts.get(place as usize).copied();
        if cohorts.is_empty() {
            let name = self.all.remove(id as usize);
            self.by_text.remove(&name.text);
            if is_pattern(&name.text) {
                self.patterns.remove(&name.text);
            }
            self.changes.note(id);
        }
        moved
    }

    /// Whether there is such a name, and it stands for `topic`.
    pub fn stands_for(&self, id: NameId, topic: &str) -> bool {
        self.all.get(id as usize).is_some_and(|name| matches(&name.text, topic))
    }

    /// Puts the names that stand for `topic` into `found`, sorted. Returns what that has cost.
    pub fn find_all(&self, topic: &str, found: &mut Vec<NameId>) -> u64 {
        found.clear();
        found.extend(self.find(topic));
        let cost = self.patterns.find(topic, found);
        found.sort_unstable();
        cost + price::LOOK * (1 + found.len() as u64)
    }

    /// Gives back room that was needed once.
    pub fn give_back(&mut self) {
        self.all.give_back(KEPT_BY_THREAD);
        self.by_text.give_back(KEPT_BY_THREAD);
        self.patterns.give_back();
    }
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl Names {
    /// Asserts that the tables agree with each other, and that each name has `links` cohorts in all.
    pub fn invariants(&self, links: usize) {
        assert_eq!(self.by_text.len(), self.all.len());
        let mut patterns = 0;
        for (id, name) in &self.all {
            assert!(!name.cohorts.is_empty(), "a name that nobody wants");
            assert_eq!(self.find(&name.text), Some(id as NameId), "a name is found by its text");
            patterns += usize::from(is_pattern(&name.text));
        }
        assert_eq!(self.all.iter().map(|(_, name)| name.cohorts.len()).sum::<usize>(), links);
        assert!(patterns > 0 || self.patterns.is_empty(), "patterns that nobody has");
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn nobody_can_know_where_in_the_table_names_come_to_lie() {
        let place = || Names::default().by_text.hasher().hash_one("a");
        assert!(place() != place());
    }

    #[test]
    fn names_that_have_gone_leave_no_room_behind() {
        let mut names = Names::default();
        let link = |cohort| Link { cohort, at: 0 };
        let shared = names.intern(&"shared".into());
        for n in 0..20_000 {
            let name = names.intern(&format!("{n}.*").into());
            names.link(name, link(n));
            names.link(shared, link(n));
        }
        (1..20_000).rev().for_each(|n| {
            let name = names.find(&format!("{n}.*")).expect("it is there");
            names.unlink(name, 0);
            names.unlink(shared, n);
        });
        names.give_back();
        let Names { all, by_text, patterns, .. } = &names;
        let rooms = [all.room(), by_text.room()].map(|(room, _, size)| room * size);
        for room in rooms.into_iter().chain(patterns.room()) {
            assert!(room <= KEPT_BY_THREAD, "{rooms:?} {:?}", patterns.room());
        }
        assert!(all[shared as usize].cohorts.capacity() * size_of::<Link>() <= KEPT_BY_ONE);
        assert_eq!(names.len(), 2);
    }
}
