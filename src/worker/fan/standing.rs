//! Which names stand for a topic, and so which cohorts want it: remembered, and brought up to date when it is looked at.
//!
//! ```text
//!   few names    q.us.AAPL ──► "q.us.AAPL", "q.us.*", "q.>"     the cohorts are those of the names, each looked at once a name
//!   many names   a.a.a.a.a ──► 1,024 patterns ──► cohorts 3, 7   the cohorts are kept as well, each once
//! ```
//!
//! A topic has a few names as a rule, and then nothing else is kept. Where clients overlap on purpose (of a topic of ten
//! segments there are two thousand patterns, and each connection may have a thousand of them), a publication would meet every
//! name of every cohort; so the cohorts are kept themselves, each with how it is delivered, and a publication costs those that
//! want it. That memory is bounded for all topics together ([`KEPT_MAX`]): beyond, some are forgotten and found anew.

use slab::Slab;

use super::{
    super::work::price,
    delivery::Delivery,
    interest::{Cohort, CohortId},
    log::Log,
    names::{Link, NameId, Names},
};
use crate::slack::{KEPT_BY_ONE, Slack};

/// Names of a topic up to which its cohorts are looked at by them. A topic of three segments has no more than these.
const FEW: usize = 16;

/// Bytes that a worker keeps for topics with more names than a few: those of three hundred thousand deliveries. (Scripts come to
/// less.)
pub const KEPT_MAX: usize = if cfg!(any(test, fuzzing)) { 2048 } else { 8 << 20 };

/// See the module's description.
#[derive(Debug, Default)]
pub struct Standing {
    /// The names, sorted.
    pub names: Vec<NameId>,
    /// The version of the names that this is as of; 0 for never.
    as_of: u64,
    /// The cohorts, where there are many names.
    pub cohorts: Option<Box<Cohorts>>,
}

/// The cohorts that want a topic, sorted, and how it is delivered to each.
#[derive(Debug, Default)]
pub struct Cohorts {
    pub all: Vec<(CohortId, Delivery)>,
    as_of: u64,
}

impl Standing {
    /// Whether nothing has changed.
    #[inline]
    pub fn is_fresh(&self, names: &Names, changes: &Log) -> bool {
        self.as_of == names.changes.version() && self.cohorts.as_ref().is_none_or(|it| it.as_of == changes.version())
    }

    /// Makes up for what has changed since. Returns what that has cost.
    pub fn refresh(&mut self, topic: &str, names: &Names, cohorts: &Slab<Cohort>, changes: &Log) -> u64 {
        let mut cost = match names.changes.since(self.as_of) {
            Some(missed) => self.follow(topic, names, missed),
            None => names.find_all(topic, &mut self.names),
        };
        self.as_of = names.changes.version();
        self.names.give_back(KEPT_BY_ONE);
        if self.names.len() <= FEW {
            self.cohorts = None;
            return cost;
        }
        let wanting = self.cohorts.get_or_insert_default();
        cost += match changes.since(wanting.as_of) {
            Some(missed) => wanting.follow(&self.names, cohorts, missed),
            None => wanting.find_all(&self.names, names, cohorts),
        };
        wanting.as_of = changes.version();
        wanting.all.give_back(KEPT_BY_ONE);
        cost
    }

    fn follow(&mut self, topic: &str, names: &Names, missed: impl Iterator<Item = NameId>) -> u64 {
        let mut cost = 0;
        for id in missed {
            cost += price::MATCH;
            match (self.names.binary_search(&id), names.stands_for(id, topic)) {
                (Ok(at), false) => drop(self.names.remove(at)),
                (Err(at), true) => self.names.insert(at, id),
                _ => {}
            }
        }
        cost
    }

    /// Cohorts that are looked at for a publication, one that has several of the names as often.
    pub fn looks(&self, names: &Names) -> u64 {
        match &self.cohorts {
            Some(wanting) => wanting.all.len() as u64,
            None => self.names.iter().map(|name| names.cohorts(*name).len() as u64).sum(),
        }
    }

    /// Looks at each of them, and how the topic is delivered to it, where that is known. Returns how many looks that took.
    #[inline]
    pub fn look_at_each(
        &self,
        names: &Names,
        cohorts: &mut Slab<Cohort>,
        mut look: impl FnMut(&mut Cohort, CohortId, Option<Delivery>),
    ) -> u64 {
        if let Some(wanting) = &self.cohorts {
            for (id, delivery) in &wanting.all {
                look(&mut cohorts[*id as usize], *id, Some(*delivery));
            }
            return wanting.all.len() as u64;
        }
        let mut looks = 0;
        for name in &self.names {
            let links = names.cohorts(*name);
            looks += links.len() as u64;
            for Link { cohort: id, .. } in links {
                look(&mut cohorts[*id as usize], *id, None);
            }
        }
        looks
    }

    /// How a topic with these names is delivered to a cohort; none if it isn't.
    pub fn delivery(&self, id: CohortId, cohort: &Cohort) -> Option<Delivery> {
        match &self.cohorts {
            Some(wanting) => {
                let at = wanting.all.binary_search_by_key(&id, |(other, _)| *other).ok()?;
                Some(wanting.all[at].1)
            }
            None => cohort.strongest(&self.names),
        }
    }

    /// Bytes that are kept, as far as they are bounded for all topics together.
    pub fn room(&self) -> usize {
        let of = |wanting: &Cohorts| wanting.all.capacity() * size_of::<(CohortId, Delivery)>();
        let names = self.names.capacity() * size_of::<NameId>();
        self.cohorts.as_deref().map_or(0, |wanting| names + of(wanting))
    }
}

impl Cohorts {
    fn follow(&mut self, names: &[NameId], cohorts: &Slab<Cohort>, missed: impl Iterator<Item = CohortId>) -> u64 {
        let mut cost = 0;
        for id in missed {
            let cohort = cohorts.get(id as usize);
            cost += price::LOOK * (1 + cohort.map_or(0, |cohort| cohort.key.names.len().min(names.len()) as u64));
            let at = self.all.binary_search_by_key(&id, |(other, _)| *other);
            match (at, cohort.and_then(|cohort| cohort.strongest(names))) {
                (Ok(at), Some(delivery)) => self.all[at].1 = delivery,
                (Ok(at), None) => drop(self.all.remove(at)),
                (Err(at), Some(delivery)) => self.all.insert(at, (id, delivery)),
                (Err(_), None) => {}
            }
        }
        cost
    }

    fn find_all(&mut self, of_topic: &[NameId], names: &Names, cohorts: &Slab<Cohort>) -> u64 {
        let mut found: Vec<Option<Delivery>> = vec![None; cohorts.capacity()];
        let mut looks = cohorts.capacity() as u64 / 64;
        for name in of_topic {
            let links = names.cohorts(*name);
            looks += 1 + links.len() as u64;
            for link in links {
                let (_, delivery) = cohorts[link.cohort as usize].key.names[link.at as usize];
                let strongest = &mut found[link.cohort as usize];
                *strongest = Some(strongest.map_or(delivery, |other| other.min(delivery)));
            }
        }
        let wanting = found.iter().zip(0..).filter_map(|(delivery, id)| Some((id, (*delivery)?)));
        self.all.clear();
        self.all.extend(wanting);
        price::LOOK * looks
    }
}
