//! How often each holder is connected, over all workers, where its rights bound that (`conns`).
//!
//! The newest connection wins: whoever changed networks gets in at once, and it is the oldest that ends. That one may be another
//! worker's, so it is put on that worker's list and the worker is woken; it is gone when that has its turn. A holder without such a bound has
//! no entry here, and costs nothing.
//!
//! Bounds: a seat for each connection that is open; a list has those that lost theirs since its worker looked, at most two of each; and a holder has at most
//! [`CONNS_MAX`] seats.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{access::Key, clock::Moment, io::Token};

/// Tables in which holders lie, by a hash of their keys.
const PARTS: usize = 64;

/// Connections of one holder at once, whatever its rights say: they are looked through when one ends.
pub const CONNS_MAX: usize = 4096;

/// A connection that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Its worker.
    pub worker: usize,
    /// Where that has it.
    pub token: Token,
    /// Its own number, so that no other is taken for it.
    pub id: u64,
    /// Since when it counts: since it was taken, or where none was needed then, since the connection is there.
    pub since: Moment,
}

/// Seats by the keys of holders, the oldest one first.
type ByKey = HashMap<Arc<Key>, Vec<Seat>>;

/// See the module's description.
#[derive(Debug)]
pub struct Holders {
    parts: Box<[Mutex<ByKey>]>,
    hash: RandomState,
    /// Seats that were taken, by worker.
    lost: Box<[Lost]>,
}

#[derive(Debug, Default)]
struct Lost {
    seats: Mutex<Vec<Seat>>,
    any: AtomicBool,
}

impl Holders {
    /// Nobody yet, for so many workers.
    pub fn new(workers: usize) -> Holders {
        Holders {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            hash: RandomState::new(),
            lost: (0..workers).map(|_| Lost::default()).collect(),
        }
    }

    fn part(&self, key: &Key) -> &Mutex<ByKey> {
        &self.parts[self.hash.hash_one(key) as usize % PARTS]
    }

    /// A connection of the holder of this `key` takes a seat, the newest, of at most `most`. Returns whether others have lost theirs by
    /// that; their workers are to be woken.
    pub fn sit(&self, key: &Arc<Key>, seat: Seat, most: usize) -> bool {
        self.seat(key, most, |seats| {
            seats.retain(|other| other.id != seat.id);
            seats.push(seat);
        })
    }

    /// The same of a connection that is there already, after rights have changed. One that has a seat keeps its place among the others. One that has
    /// none, since it needed none or has just lost it, takes the one that is due to its age: so it is the oldest that ends, in whatever order workers look at them.
    pub fn stay(&self, key: &Arc<Key>, seat: Seat, most: usize) -> bool {
        self.seat(key, most, |seats| {
            if seats.iter().all(|other| other.id != seat.id) {
                let older = seats.iter().rposition(|other| other.since <= seat.since);
                seats.insert(older.map_or(0, |at| at + 1), seat);
            }
        })
    }

    fn seat(&self, key: &Arc<Key>, most: usize, take: impl FnOnce(&mut Vec<Seat>)) -> bool {
        let most = most.clamp(1, CONNS_MAX);
        let mut part = self.part(key).lock();
        let seats = match part.get_mut(key) {
            Some(seats) => seats,
            None => part.entry(Arc::clone(key)).or_default(),
        };
        take(seats);
        let lost: Vec<Seat> = seats.drain(..seats.len().saturating_sub(most)).collect();
        drop(part);
        for seat in &lost {
            let Some(list) = self.lost.get(seat.worker) else { continue };
            list.seats.lock().push(*seat);
            // Release: pairs with the swap in `lost`, so that whoever sees it finds the seat.
            list.any.store(true, Ordering::Release);
        }
        !lost.is_empty()
    }

    /// A connection gives its seat up, if it still has it.
    pub fn rise(&self, key: &Key, id: u64) {
        let mut part = self.part(key).lock();
        let Some(seats) = part.get_mut(key) else { return };
        seats.retain(|seat| seat.id != id);
        if seats.is_empty() {
            part.remove(key);
            if part.capacity() > 64 && part.capacity() / 4 > part.len() {
                part.shrink_to(64);
            }
        }
    }

    /// Connections of a worker that have lost their seats since it asked last; whoever has gone meanwhile may be among them.
    #[inline]
    pub fn lost(&self, worker: usize) -> Vec<Seat> {
        let Some(list) = self.lost.get(worker) else { return Vec::new() };
        if !list.any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        list.any.swap(false, Ordering::Acquire);
        std::mem::take(&mut *list.seats.lock())
    }

    /// Whether some of a worker have lost theirs that it hasn't asked for.
    #[inline]
    pub fn has_lost(&self, worker: usize) -> bool {
        self.lost.get(worker).is_some_and(|list| list.any.load(Ordering::Relaxed))
    }

    /// Seats that are taken.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().values().map(Vec::len).sum::<usize>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Source;

    fn key(name: &str) -> Arc<Key> {
        Arc::new(Key { source: Source::Token, issuer: "a".into(), name: name.into() })
    }

    /// Of a connection that came so late.
    fn seat(worker: usize, id: u64) -> Seat {
        Seat { worker, token: id as Token, id, since: Moment(id) }
    }

    #[test]
    fn the_newest_wins_and_the_oldest_is_told_to_its_own_worker() {
        let holders = Holders::new(2);
        let (one, other) = (key("u1"), key("u2"));
        assert!(!holders.sit(&one, seat(0, 1), 2));
        assert!(!holders.sit(&one, seat(1, 2), 2));
        assert!(!holders.sit(&other, seat(0, 3), 1));
        assert!(holders.sit(&one, seat(1, 4), 2));
        assert!(holders.has_lost(0) && !holders.has_lost(1));
        assert_eq!((holders.lost(0), holders.lost(1)), (vec![seat(0, 1)], vec![]));
        assert_eq!(holders.lost(0), [], "once");
        // Whoever shows another token takes the newest seat of those that there are then.
        assert!(holders.sit(&one, seat(1, 2), 1));
        assert_eq!(holders.lost(1), [seat(1, 4)]);
        assert_eq!(holders.len(), 2);
    }

    #[test]
    fn whoever_may_have_fewer_connections_than_before_loses_the_oldest() {
        let (holders, key) = (Holders::new(1), key("u1"));
        (1..=3).for_each(|id| assert!(!holders.sit(&key, seat(0, id), 3)));
        // In whatever order they are looked at.
        assert!(holders.stay(&key, seat(0, 3), 2));
        assert!(!holders.stay(&key, seat(0, 2), 2));
        assert_eq!((holders.lost(0), holders.len()), (vec![seat(0, 1)], 2));
        // One that is about to go takes nobody along.
        assert!(holders.stay(&key, seat(0, 1), 2));
        assert_eq!((holders.lost(0), holders.len()), (vec![seat(0, 1)], 2));
    }

    #[test]
    fn where_a_bound_is_new_the_oldest_go_in_whatever_order_they_are_looked_at() {
        for order in [[1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3], [3, 1, 4, 2]] {
            let (holders, key) = (Holders::new(2), key("u1"));
            for id in order {
                holders.stay(&key, seat(id as usize % 2, id), 2);
            }
            let mut lost = [holders.lost(0), holders.lost(1)].concat();
            lost.sort_unstable_by_key(|seat| seat.id);
            assert_eq!((lost, holders.len()), (vec![seat(1, 1), seat(0, 2)], 2), "{order:?}");
        }
        // Whoever has shown another token has a seat since then, and whoever needed none before is no newer for that.
        let (holders, key) = (Holders::new(1), key("u1"));
        assert!(!holders.sit(&key, Seat { since: Moment(9), ..seat(0, 1) }, 2));
        assert!(!holders.stay(&key, seat(0, 2), 2) && holders.stay(&key, seat(0, 3), 2));
        assert_eq!(holders.lost(0), [seat(0, 2)]);
    }

    #[test]
    fn whoever_has_gone_leaves_nothing() {
        let holders = Holders::new(1);
        let key = key("u1");
        (0..1000).for_each(|id| assert!(!holders.sit(&key, seat(0, id), usize::MAX)));
        holders.rise(&key, 5000);
        (0..1000).for_each(|id| holders.rise(&key, id));
        assert_eq!((holders.len(), holders.parts.iter().map(|part| part.lock().len()).sum::<usize>()), (0, 0));
        assert_eq!(Arc::strong_count(&key), 1);
        let beyond = (0..CONNS_MAX as u64 + 10).filter(|id| holders.sit(&key, seat(0, *id), usize::MAX));
        assert_eq!(beyond.count(), 10);
        assert_eq!((holders.len(), holders.lost(0).len()), (CONNS_MAX, 10));
    }
}
