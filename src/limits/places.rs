//! Places of which each one who has a key may take so many: topics that a holder adds, whatever addresses it comes from.
//!
//! Whoever takes a place holds a [`Place`], which gives it back when it is dropped. There is an entry for each key of which some are taken; those of
//! which none is any more are swept out when there are twice as many as after the last sweep. One lock, which is taken when a topic is made and at
//! no other publication.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use super::account::take;

/// No sweep while there are fewer.
const SWEEP_LEAST: usize = 256;

/// See the module's description.
#[derive(Debug)]
pub struct Places<K> {
    most: AtomicUsize,
    taken: Mutex<Taken<K>>,
}

#[derive(Debug)]
struct Taken<K> {
    by_key: HashMap<K, Arc<AtomicUsize>>,
    sweep_at: usize,
}

/// A place that is taken, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl<K: Hash + Eq + Clone> Places<K> {
    /// So many for each key; `usize::MAX` for any number.
    pub fn new(most: usize) -> Places<K> {
        Places {
            most: AtomicUsize::new(most),
            taken: Mutex::new(Taken { by_key: HashMap::new(), sweep_at: SWEEP_LEAST }),
        }
    }

    /// Sets the bound anew. Who has more keeps it.
    pub fn set(&self, most: usize) {
        // Relaxed: nothing but the number itself depends on it.
        self.most.store(most, Ordering::Relaxed);
    }

    /// Takes one more for a key.
    ///
    /// # Errors
    /// How many it may have: it has them already.
    pub fn take(&self, key: &K) -> Result<Place, usize> {
        let most = self.most.load(Ordering::Relaxed);
        let mut taken = self.taken.lock();
        let count = match taken.by_key.get(key) {
            Some(count) => Arc::clone(count),
            None => taken.insert(key.clone()),
        };
        if take(&count, 1, most) { Ok(Place(count)) } else { Err(most) }
    }
}

impl<K: Hash + Eq> Taken<K> {
    fn insert(&mut self, key: K) -> Arc<AtomicUsize> {
        if self.by_key.len() >= self.sweep_at {
            // References are made under the lock, or from one that somebody holds: who is alone here stays alone.
            self.by_key.retain(|_, count| Arc::strong_count(count) > 1);
            self.sweep_at = SWEEP_LEAST.max(2 * self.by_key.len());
            self.by_key.shrink_to(self.sweep_at);
        }
        Arc::clone(self.by_key.entry(key).or_default())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_so_many_and_what_is_given_back_can_be_taken_again() {
        let places = Places::new(2);
        let (first, second) = (places.take(&"a").unwrap(), places.take(&"a").unwrap());
        assert_eq!(places.take(&"a").unwrap_err(), 2);
        let other = places.take(&"b").unwrap();
        drop(first);
        let third = places.take(&"a").unwrap();
        places.set(1);
        drop(second);
        assert_eq!(places.take(&"a").unwrap_err(), 1, "who has as many as there may be now");
        drop((third, other));
        assert!(places.take(&"a").is_ok());
    }

    #[test]
    fn keys_of_which_none_is_taken_are_swept_out() {
        let places = Places::new(1);
        let held = places.take(&0).unwrap();
        (1..5000).for_each(|key| drop(places.take(&key).unwrap()));
        assert!(places.taken.lock().by_key.len() <= SWEEP_LEAST);
        assert_eq!(places.take(&0).unwrap_err(), 1, "and the others are not forgotten");
        drop(held);
    }
}
