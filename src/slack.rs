//! Memory that was needed once and is needed no longer.
//!
//! Buffers and tables keep the room of the most that they ever held; a client needs to cause that only once. One rule gives
//! it back: what has room for more than [`TIMES`] times what it holds, and for more than a size that is `kept` in any case, is
//! shrunk to what it holds or that size. What it holds must become a quarter before that happens again, so giving back costs
//! no more than taking did. Buffers that are filled anew each turn hold nothing between two; they are asked a few times a second.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, Hash},
};

use slab::Slab;

/// See the module's description.
const TIMES: usize = 4;

/// What a buffer or table of a whole thread keeps in any case, in bytes: twice a full send and a message of the default
/// `--max-message`, which is what the largest buffers come to when nothing is out of the ordinary.
pub(crate) const KEPT_BY_THREAD: usize = 256 * 1024;

/// What one of a topic, name, cohort or connection keeps in any case, in bytes: there are many.
pub(crate) const KEPT_BY_ONE: usize = 1024;

/// Something that grows and empties again.
pub(crate) trait Slack {
    /// Elements that it has room for, and that it holds, and how large one is.
    fn room(&self) -> (usize, usize, usize);

    /// Shrinks it to room for `len` elements, or for what it holds, if that is more.
    fn shrink(&mut self, len: usize);

    /// Whether it has much more room than it needs.
    fn is_slack(&self, kept: usize) -> bool {
        let (room, held, size) = self.room();
        room * size > kept && room / TIMES > held
    }

    /// Shrinks it if it has much more room than it needs.
    fn give_back(&mut self, kept: usize) {
        if self.is_slack(kept) {
            let (_, _, size) = self.room();
            self.shrink(kept / size);
        }
    }
}

impl<T> Slack for Vec<T> {
    fn room(&self) -> (usize, usize, usize) {
        (self.capacity(), self.len(), size_of::<T>())
    }

    fn shrink(&mut self, len: usize) {
        self.shrink_to(len);
    }
}

impl<T> Slack for VecDeque<T> {
    fn room(&self) -> (usize, usize, usize) {
        (self.capacity(), self.len(), size_of::<T>())
    }

    fn shrink(&mut self, len: usize) {
        self.shrink_to(len);
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> Slack for HashMap<K, V, S> {
    fn room(&self) -> (usize, usize, usize) {
        (self.capacity(), self.len(), size_of::<(K, V)>())
    }

    fn shrink(&mut self, len: usize) {
        // It has room for up to twice as many as it is asked to have.
        self.shrink_to(len / 2);
    }
}

/// Places behind the last one in use can be given back, and no others. To be asked now and then, not at each removal: it
/// looks at every place.
impl<T> Slack for Slab<T> {
    fn room(&self) -> (usize, usize, usize) {
        (self.capacity(), self.len(), size_of::<T>())
    }

    fn shrink(&mut self, _: usize) {
        self.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_after(len: usize, left: usize) -> usize {
        let mut buffer = vec![0u64; len];
        buffer.truncate(left);
        buffer.give_back(KEPT_BY_ONE);
        buffer.capacity()
    }

    #[test]
    fn what_has_much_more_room_than_it_needs_gives_it_back_and_nothing_else_does() {
        assert_eq!(kept_after(1000, 0), 128);
        assert_eq!(kept_after(1000, 200), 200);
        assert_eq!(kept_after(1000, 250), 1000, "a quarter is in use");
        assert_eq!(kept_after(128, 0), 128, "little is kept");
    }

    #[test]
    fn nothing_that_has_given_back_is_asked_again() {
        // A worker is woken for as long as there is something to give back.
        for left in [0, 1, 1000, 100_000] {
            let mut table: HashMap<u32, u32> = (0..1_000_000).map(|n| (n, n)).collect();
            table.retain(|n, _| *n < left);
            let mut queue: VecDeque<u32> = (0..1_000_000).collect();
            queue.truncate(left as usize);
            table.give_back(KEPT_BY_THREAD);
            queue.give_back(KEPT_BY_THREAD);
            assert!(!table.is_slack(KEPT_BY_THREAD) && !queue.is_slack(KEPT_BY_THREAD), "{left}");
            assert!(table.capacity() <= 32_768.max(2 * left as usize) && table.len() == left as usize);
        }
    }

    #[test]
    fn the_places_of_a_slab_behind_the_last_in_use_are_given_back() {
        let mut slab: Slab<[u64; 32]> = Slab::new();
        for _ in 0..10_000 {
            slab.insert([0; 32]);
        }
        slab.retain(|place, _| place == 100);
        slab.give_back(KEPT_BY_THREAD);
        assert!(slab.capacity() == 101 && slab.contains(100));
        assert_eq!(slab.insert([1; 32]), 0);
    }
}
