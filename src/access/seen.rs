//! Tokens whose signature was found to be right, by the hash of the token.
//!
//! Signatures cost tens of microseconds, and a client that comes back, or opens several connections, shows the same token again. What is kept is
//! who it was, not that it may: its moment, its key, its role and whether it was revoked are judged anew each time. Only right ones
//! are kept, so that nobody without one can push them out.
//!
//! Two halves of `--token-cache` each: what is new goes into the new one, and what is found in the old one, too, while there is room; when the new one is
//! full and another token comes that wasn't seen, it becomes the old one, and what was old is forgotten. One short lock for all threads.

use std::{collections::HashMap, mem, sync::Arc};

use parking_lot::Mutex;

use super::holder::Known;

type Hash = [u8; 32];

/// The cache. See the module's description.
#[derive(Debug)]
pub struct Seen {
    halves: Mutex<[HashMap<Hash, Arc<Known>>; 2]>,
    half: usize,
}

impl Seen {
    /// Room for so many; for none, none is kept.
    pub fn new(most: usize) -> Seen {
        Seen { halves: Mutex::default(), half: most.div_ceil(2) }
    }

    /// How many there are, and how many there may be.
    pub fn count(&self) -> (usize, usize) {
        (self.halves.lock().iter().map(HashMap::len).sum(), self.half * 2)
    }

    /// What is known of the token of this hash.
    pub fn find(&self, hash: &Hash) -> Option<Arc<Known>> {
        let mut halves = self.halves.lock();
        if let Some(known) = halves[0].get(hash) {
            return Some(Arc::clone(known));
        }
        let known = Arc::clone(halves[1].get(hash)?);
        // Where the new half is full it stays where it is: else as many tokens as there is room for, coming one after the other again and again,
        // would push each other out.
        if halves[0].len() < self.half {
            halves[1].remove(hash);
            self.put(&mut halves, Arc::clone(&known));
        }
        Some(known)
    }

    /// Keeps one, in the place of what was known of it.
    pub fn keep(&self, known: Arc<Known>) {
        self.put(&mut self.halves.lock(), known);
    }

    /// When the last of those expires that are these, in seconds since the Unix epoch. Looks at all, with the lock held: a millisecond for a hundred thousand.
    pub fn last_expires(&self, is_one: impl Fn(&Known) -> bool) -> Option<u64> {
        let halves = self.halves.lock();
        halves.iter().flat_map(HashMap::values).filter(|known| is_one(known)).filter_map(|known| known.expires).max()
    }

    fn put(&self, halves: &mut [HashMap<Hash, Arc<Known>>; 2], known: Arc<Known>) {
        if self.half == 0 {
            return;
        }
        if halves[0].len() >= self.half && !halves[0].contains_key(&known.hash) {
            // Forgotten at once, rather than with the lock held.
            halves[1] = mem::take(&mut halves[0]);
        }
        halves[0].insert(known.hash, known);
    }
}
