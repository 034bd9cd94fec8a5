//! Who is subscribed to what, counted over the whole server.
//!
//! Workers keep their own tables for delivery; this one exists to bound the sum (`--max-subscriptions-total`), to tell
//! `GET /topics` how many listen, to know which topics may be forgotten, and to hold each name once. It is locked only
//! when somebody subscribes or unsubscribes.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::patterns::Patterns;
use crate::{
    protocol::is_pattern,
    slack::{KEPT_BY_THREAD, Slack},
};

/// Nodes of patterns that are looked at under one hold of the lock, and one topic's: a third of a millisecond.
const VISITS_A_HOLD: usize = 4096;

/// The server-wide table of subscribed names.
#[derive(Debug)]
pub struct Subscriptions {
    table: Mutex<Table>,
    total_max: usize,
}

#[derive(Debug, Default)]
struct Table {
    /// By a hash with a key: clients choose the names.
    names: HashMap<Arc<str>, usize>,
    /// Those of them that are patterns, again.
    patterns: Patterns,
    total: usize,
    /// How often a name that nobody had came in.
    fresh: u64,
}

/// One more subscription than `--max-subscriptions-total` allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySubscriptions;

impl Subscriptions {
    /// An empty table for at most `total_max` subscriptions.
    pub fn new(total_max: usize) -> Subscriptions {
        Subscriptions { table: Mutex::default(), total_max }
    }

    /// Counts one connection more for each of `names`, and returns the shared names in the same order.
    ///
    /// # Errors
    /// [`TooManySubscriptions`] if they don't all fit; then none is counted.
    pub fn add<'a>(
        &self,
        names: impl ExactSizeIterator<Item = &'a str>,
    ) -> Result<Vec<Arc<str>>, TooManySubscriptions> {
        let mut table = self.table.lock();
        if table.total + names.len() > self.total_max {
            return Err(TooManySubscriptions);
        }
        table.total += names.len();
        Ok(names.map(|name| table.add(name)).collect())
    }

    /// Counts one connection less for each of `names`.
    pub fn remove<'a>(&self, names: impl Iterator<Item = &'a Arc<str>>) {
        let mut table = self.table.lock();
        for name in names {
            table.remove(name);
        }
        table.names.give_back(KEPT_BY_THREAD);
    }

    /// Subscriptions in all.
    pub fn total(&self) -> usize {
        self.table.lock().total
    }

    /// How often a name came in that nobody was subscribed to. While it stays the same, nobody new listens anywhere.
    pub fn fresh(&self) -> u64 {
        self.table.lock().fresh
    }

    /// How many subscriptions, exact or by pattern, receive each of `topics`. Of a topic of more than eleven segments at least
    /// so many: not all patterns that could match it are tried. However many topics are asked about, the lock is never held for long.
    pub fn listeners(&self, topics: &[Arc<str>]) -> Vec<usize> {
        let mut counts = Vec::with_capacity(topics.len());
        while counts.len() < topics.len() {
            let table = self.table.lock();
            let mut visits = 0;
            for topic in &topics[counts.len()..] {
                let exact = table.names.get(topic).copied().unwrap_or(0);
                counts.push(exact + table.patterns.count(topic, &mut visits));
                if visits >= VISITS_A_HOLD {
                    break;
                }
            }
        }
        counts
    }
}

impl Table {
    fn add(&mut self, name: &str) -> Arc<str> {
        if is_pattern(name) {
            self.patterns.add(name);
        }
        if let Some((shared, _)) = self.names.get_key_value(name) {
            let shared = Arc::clone(shared);
            *self.names.get_mut(name).expect("it was just there") += 1;
            return shared;
        }
        let shared: Arc<str> = name.into();
        self.names.insert(Arc::clone(&shared), 1);
        self.fresh += 1;
        shared
    }

    fn remove(&mut self, name: &Arc<str>) {
        let Some(count) = self.names.get_mut(name) else { return debug_assert!(false, "{name} was never added") };
        *count -= 1;
        if is_pattern(name) {
            self.patterns.remove(name);
        }
        if *count == 0 {
            self.names.remove(name);
        }
        self.total -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn the_total_is_bounded_and_a_refusal_changes_nothing() {
        let table = Subscriptions::new(3);
        let held = table.add(["a", "q.>"].into_iter()).unwrap();
        assert_eq!(table.add(["b", "c"].into_iter()), Err(TooManySubscriptions));
        assert_eq!(table.total(), 2);
        table.remove(held.iter());
        assert_eq!(table.total(), 0);
    }

    #[test]
    fn nobody_can_know_where_in_the_table_a_name_comes_to_lie() {
        let place = || Subscriptions::new(1).table.lock().names.hasher().hash_one("a");
        assert_ne!(place(), place());
    }

    #[test]
    fn names_that_nobody_is_subscribed_to_any_more_leave_no_room_behind() {
        let table = Subscriptions::new(100_000);
        let names: Vec<String> = (0..100_000).map(|n| n.to_string()).collect();
        let held = table.add(names.iter().map(String::as_str)).unwrap();
        held.chunks(1000).for_each(|some| table.remove(some.iter()));
        let (room, held, size) = table.table.lock().names.room();
        assert!(held == 0 && room * size <= KEPT_BY_THREAD, "{room}");
    }

    #[test]
    fn listeners_are_counted_by_name_and_by_pattern() {
        let table = Subscriptions::new(10);
        let _held = table.add(["q.a", "q.>", "q.*"].into_iter()).unwrap();
        let _also = table.add(["q.a"].into_iter()).unwrap();
        assert_eq!(table.listeners(&["q.a".into(), "q.b.c".into(), "x".into()]), [4, 1, 0]);
    }
}
