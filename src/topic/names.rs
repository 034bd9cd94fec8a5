//! A table of values by name that never stands still to grow.
//!
//! A hash table that is full takes twice the room and moves everything that it holds; with a million names that are tens of
//! milliseconds, under a lock that everybody needs, whenever a client asks for the one name too many. So there are many small
//! ones, each of which grows, and gives back, alone: [`PARTS`] of them hold a million names in pieces of four thousand. And each
//! value has its hash beside it, so that to move it is not to look at its name again.
//!
//! Clients choose the names, so the hash has a key that they don't know; it is 20 ns of a publication. What a name is called by
//! is for the owner of the value to say: the table holds none.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    mem,
};

use hashbrown::HashTable;

/// How many tables there are. A million names in so many move in some 40 microseconds; so many that are empty are 8 KiB.
const PARTS: usize = 256;

/// Bytes that each keeps in any case.
const KEPT: usize = 1024;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Names<T> {
    parts: Box<[HashTable<(u64, T)>]>,
    key: RandomState,
    len: usize,
}

impl<T> Default for Names<T> {
    fn default() -> Names<T> {
        Names { parts: (0..PARTS).map(|_| HashTable::new()).collect(), key: RandomState::new(), len: 0 }
    }
}

impl<T> Names<T> {
    /// What the other methods take for `name`, whatever values are called by.
    #[inline]
    pub fn hash(&self, name: impl Hash) -> u64 {
        self.key.hash_one(name)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The value with this hash that is the one.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        self.parts[part_of(hash)].find(hash, is_the_one(hash, is_it)).map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub fn find_mut(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&mut T> {
        self.parts[part_of(hash)].find_mut(hash, is_the_one(hash, is_it)).map(|(_, value)| value)
    }

    /// Puts in a value that isn't there.
    pub fn insert(&mut self, hash: u64, value: T) {
        self.parts[part_of(hash)].insert_unique(hash, (hash, value), |(hash, _)| *hash);
        self.len += 1;
    }

    /// Takes out the value with this hash that is the one.
    pub fn remove(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let part = &mut self.parts[part_of(hash)];
        let (found, _) = part.find_entry(hash, is_the_one(hash, is_it)).ok()?.remove();
        let (room, held) = (part.capacity(), part.len());
        if room * mem::size_of::<(u64, T)>() > KEPT && room / 4 > held {
            part.shrink_to(room / 4, |(hash, _)| *hash);
        }
        self.len -= 1;
        Some(found.1)
    }

    /// Values that there is room for, in all parts and in the largest.
    #[cfg(test)]
    pub fn room(&self) -> (usize, usize) {
        let rooms = || self.parts.iter().map(HashTable::capacity);
        (rooms().sum(), rooms().max().unwrap_or_default())
    }
}

/// A table shows whatever lies near with the same seven bits, which one in a few thousand others has: most are told from the one by
/// all of the hash, without a look at their names.
#[inline]
fn is_the_one<T>(hash: u64, is_it: impl Fn(&T) -> bool) -> impl Fn(&(u64, T)) -> bool {
    move |(found, value)| *found == hash && is_it(value)
}

/// Which part: the table itself goes by the lowest bits and by the highest seven.
#[inline]
fn part_of(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> (Names<usize>, Vec<u64>) {
        let mut names = Names::default();
        let hashes: Vec<u64> = (0..count).map(|n| names.hash(n.to_string())).collect();
        hashes.iter().enumerate().for_each(|(n, hash)| names.insert(*hash, n));
        (names, hashes)
    }

    #[test]
    fn values_are_found_until_they_are_taken_out() {
        let (mut names, hashes) = numbers(5000);
        for (n, hash) in hashes.iter().enumerate() {
            assert_eq!(names.find(*hash, |value| *value == n), Some(&n));
            assert_eq!(names.find(*hash, |value| *value == n + 1), None);
        }
        *names.find_mut(hashes[7], |value| *value == 7).unwrap() = 8000;
        assert_eq!(names.remove(hashes[7], |value| *value == 7), None);
        assert_eq!((names.remove(hashes[7], |value| *value == 8000), names.len()), (Some(8000), 4999));
    }

    #[test]
    fn nothing_is_found_by_the_hash_of_another() {
        let (mut names, hashes) = numbers(5000);
        for hash in &hashes {
            // Whatever lies near, there is only one that is looked at.
            let looks = std::cell::Cell::new(0);
            assert_eq!(names.find(*hash, |_| looks.replace(looks.get() + 1) > 0), None);
            assert_eq!(looks.get(), 1);
        }
        let one = hashes[7];
        assert_eq!(names.find_mut(one, |value| *value != 7), None);
        assert_eq!((names.remove(one, |value| *value != 7), names.len()), (None, 5000));
    }

    #[test]
    fn no_name_moves_more_than_a_small_part_of_the_others() {
        let (names, _) = numbers(200_000);
        let (all, largest) = names.room();
        assert!(largest <= 4096 && all >= 200_000, "{largest} of {all}");
    }

    #[test]
    fn names_that_have_gone_leave_little_room_behind() {
        let (mut names, hashes) = numbers(200_000);
        hashes.iter().enumerate().for_each(|(n, hash)| assert_eq!(names.remove(*hash, |value| *value == n), Some(n)));
        let (all, _) = names.room();
        assert!(all * mem::size_of::<(u64, usize)>() <= PARTS * 2 * KEPT && names.len() == 0, "{all}");
    }

    #[test]
    fn nobody_can_know_where_in_the_table_a_name_comes_to_lie() {
        let place = || Names::<()>::default().hash("a");
        assert_ne!(place(), place());
    }
}
