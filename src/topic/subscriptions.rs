//! Who is subscribed to what, counted over the whole server.
//!
//! Workers keep their own tables for delivery; this one exists to bound the sum (`--max-subscriptions-total`), to tell
//! `GET /topics` how many listen, to know which topics may be forgotten, and to hold each name once. It is locked only
//! when somebody subscribes or unsubscribes, or asks who listens, and never for long: after so many nodes of patterns
//! ([`NODES_A_HOLD`]) whoever waits for it has his turn.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::{Mutex, MutexGuard};

use super::{names::Names, patterns::Patterns};
use crate::protocol::is_pattern;

/// Names and nodes of patterns that are looked at or changed under one hold of the lock, and what one name more comes to: some
/// 40 microseconds.
const NODES_A_HOLD: usize = 256;

/// The server-wide table of subscribed names.
#[derive(Debug)]
pub struct Subscriptions {
    table: Mutex<Table>,
    total: AtomicUsize,
    total_max: usize,
    /// How often a name that nobody had came in.
    fresh: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    names: Names<Counted>,
    /// Those of them that are patterns, again.
    patterns: Patterns,
    /// Nodes that were looked at since others could have the lock.
    nodes: usize,
    #[cfg(any(test, fuzzing))]
    looks: super::Looks,
}

/// A name, and how many subscriptions there are to it.
#[derive(Debug)]
struct Counted {
    name: Arc<str>,
    count: usize,
}

/// One more subscription than `--max-subscriptions-total` allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySubscriptions;

impl Subscriptions {
    /// An empty table for at most `total_max` subscriptions.
    pub fn new(total_max: usize) -> Subscriptions {
        Subscriptions { table: Mutex::default(), total: AtomicUsize::new(0), total_max, fresh: AtomicU64::new(0) }
    }

    /// Counts one connection more for each of `names`, and returns the shared names in the same order.
    ///
    /// # Errors
    /// [`TooManySubscriptions`] if they don't all fit; then none is counted.
    pub fn add<'a>(
        &self,
        names: impl ExactSizeIterator<Item = &'a str>,
    ) -> Result<Vec<Arc<str>>, TooManySubscriptions> {
        let count = names.len();
        let more = |total: usize| total.checked_add(count).filter(|total| *total <= self.total_max);
        // Relaxed: nothing but the number itself depends on it.
        self.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| TooManySubscriptions)?;
        let mut shared = Vec::with_capacity(count);
        let mut table = self.lock();
        for name in names {
            let (name, is_fresh) = table.add(name);
            shared.push(name);
            if is_fresh {
                // Release: pairs with the load in `fresh`. The name is in the table when it is seen.
                self.fresh.fetch_add(1, Ordering::Release);
            }
            make_way(&mut table);
        }
        Ok(shared)
    }

    /// Counts one connection less for each of `names`.
    pub fn remove<'a>(&self, names: impl Iterator<Item = &'a Arc<str>>) {
        let (mut table, mut count) = (self.lock(), 0);
        for name in names {
            table.remove(name);
            count += 1;
            make_way(&mut table);
        }
        self.total.fetch_sub(count, Ordering::Relaxed);
    }

    /// Subscriptions in all.
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// How often a name came in that nobody was subscribed to. While it stays the same, nobody new listens anywhere.
    pub fn fresh(&self) -> u64 {
        // Acquire: pairs with the addition in `add`.
        self.fresh.load(Ordering::Acquire)
    }

    /// How many subscriptions, exact or by pattern, receive each of `topics`: of the first one, and of as many behind it as are
    /// looked at under one hold of the lock. Of a topic of more than eight segments at least so many: not all patterns that could
    /// match it are tried.
    pub fn listeners(&self, topics: &[Arc<str>]) -> Vec<usize> {
        let mut counts = Vec::with_capacity(topics.len());
        let mut table = self.lock();
        for topic in topics {
            counts.push(table.listeners(topic));
            if table.nodes >= NODES_A_HOLD {
                break;
            }
        }
        counts
    }

    /// Whether any subscription may receive each of `topics`. However many they are, the lock is never held for long.
    pub fn may_listen(&self, topics: &[Arc<str>]) -> Vec<bool> {
        let mut table = self.lock();
        let may_listen = |topic: &Arc<str>| {
            let may_listen = table.may_listen(topic);
            make_way(&mut table);
            may_listen
        };
        topics.iter().map(may_listen).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        let mut table = self.table.lock();
        table.begin();
        table
    }

    /// Nodes that were looked at under one hold of the lock, at most.
    #[cfg(any(test, fuzzing))]
    pub fn longest_hold(&self) -> usize {
        self.table.lock().looks.most()
    }
}

/// Lets others have the lock, if it was held for so long.
fn make_way(table: &mut MutexGuard<'_, Table>) {
    if table.nodes >= NODES_A_HOLD {
        MutexGuard::bump(table);
        table.begin();
    }
}

impl Table {
    fn begin(&mut self) {
        self.nodes = 0;
        #[cfg(any(test, fuzzing))]
        self.looks.begin();
    }

    fn looked(&mut self, nodes: usize) {
        self.nodes += nodes;
        #[cfg(any(test, fuzzing))]
        self.looks.add(nodes);
    }

    /// The shared name, and whether nobody had it.
    fn add(&mut self, name: &str) -> (Arc<str>, bool) {
        self.count_nodes(name);
        if is_pattern(name) {
            self.patterns.add(name);
        }
        let hash = self.names.hash(name);
        if let Some(counted) = self.names.find_mut(hash, |counted| &*counted.name == name) {
            counted.count += 1;
            return (Arc::clone(&counted.name), false);
        }
        let shared: Arc<str> = name.into();
        self.names.insert(hash, Counted { name: Arc::clone(&shared), count: 1 });
        (shared, true)
    }

    fn remove(&mut self, name: &Arc<str>) {
        self.count_nodes(name);
        let hash = self.names.hash(name);
        let Some(counted) = self.names.find_mut(hash, |counted| counted.name == *name) else {
            return debug_assert!(false, "{name} was never added");
        };
        counted.count -= 1;
        let is_last = counted.count == 0;
        if is_pattern(name) {
            self.patterns.remove(name);
        }
        if is_last {
            self.names.remove(hash, |counted| counted.name == *name);
        }
    }

    /// Of a name that comes or goes.
    fn count_nodes(&mut self, name: &str) {
        self.looked(if is_pattern(name) { 1 + name.split('.').count() } else { 1 });
    }

    fn exact(&self, topic: &str) -> usize {
        self.names.find(self.names.hash(topic), |counted| &*counted.name == topic).map_or(0, |counted| counted.count)
    }

    fn listeners(&mut self, topic: &str) -> usize {
        let mut visits = 1;
        let count = self.exact(topic) + self.patterns.count(topic, &mut visits);
        self.looked(visits);
        count
    }

    fn may_listen(&mut self, topic: &str) -> bool {
        let mut visits = 1;
        let may_listen = self.exact(topic) > 0 || self.patterns.may_match(topic, &mut visits);
        self.looked(visits);
        may_listen
    }
}

#[cfg(test)]
mod tests {
    use super::{super::patterns::VISITS_MAX, *};

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
    fn whoever_is_the_first_to_have_a_name_is_noticed_and_nobody_else_is() {
        let table = Subscriptions::new(10);
        let held = table.add(["a", "q.>"].into_iter()).unwrap();
        let fresh = table.fresh();
        let also = table.add(["q.>", "a"].into_iter()).unwrap();
        table.remove(also.iter());
        assert_eq!(table.fresh(), fresh);
        table.remove(held.iter());
        table.add(["a"].into_iter()).unwrap();
        assert_ne!(table.fresh(), fresh);
    }

    #[test]
    fn names_that_nobody_is_subscribed_to_any_more_leave_no_room_behind() {
        let table = Subscriptions::new(100_000);
        let names: Vec<String> = (0..100_000).map(|n| n.to_string()).collect();
        let held = table.add(names.iter().map(String::as_str)).unwrap();
        held.chunks(1000).for_each(|some| table.remove(some.iter()));
        let (room, _) = table.table.lock().names.room();
        assert!(room * size_of::<(u64, Counted)>() <= 512 * 1024, "{room}");
    }

    #[test]
    fn nobody_holds_the_lock_for_longer_than_some_hundred_nodes_whatever_is_asked_for() {
        let table = Subscriptions::new(100_000);
        // Of ten segments any may be a star: each look meets as many of them as it may.
        let pattern =
            |bits: usize| (0..10).map(|at| if bits >> at & 1 == 1 { "*" } else { "a" }).collect::<Vec<_>>().join(".");
        let names: Vec<String> = (0..1024).map(pattern).chain([vec!["*"; 64].join(".")]).collect();
        let held = table.add(names.iter().map(String::as_str)).unwrap();
        let topics: Vec<Arc<str>> =
            (0..100).map(|n| [&*["a"; 10].join("."), &n.to_string()].join(".").into()).collect();
        assert_eq!(table.may_listen(&topics), [true; 100]);
        let mut asked = 0;
        while asked < topics.len() {
            asked += table.listeners(&topics[asked..]).len();
        }
        table.remove(held.iter());
        let longest = table.longest_hold();
        assert!(longest <= NODES_A_HOLD + VISITS_MAX + 1, "{longest}");
        assert_eq!(table.total(), 0);
    }

    #[test]
    fn listeners_are_counted_by_name_and_by_pattern() {
        let table = Subscriptions::new(10);
        let _held = table.add(["q.a", "q.>", "q.*"].into_iter()).unwrap();
        let _also = table.add(["q.a"].into_iter()).unwrap();
        assert_eq!(table.listeners(&["q.a".into(), "q.b.c".into(), "x".into()]), [4, 1, 0]);
    }
}
