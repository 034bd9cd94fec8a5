//! Tokens whose signature was found to be right, by the hash of the token.
//!
//! Signatures cost tens of microseconds, and a client that comes back, or opens several connections, shows the same token again. What is kept is
//! who it was, not that it may: its moment, its key, its role and whether it was revoked are judged anew each time. Only right ones
//! are kept, so that nobody without one can push them out.
//!
//! Two halves of `--token-cache` each: what is new goes into the new one, and what is found in the old one, too, while there is room; when the new one is
//! full and another token comes that wasn't seen, it becomes the old one, and what was old is forgotten: a few for each that comes, since there may be
//! millions of them. One short lock for all threads: but for tables that grow, nothing that is done with it held takes longer the more tokens there are.

use std::{
    collections::{HashMap, hash_map},
    hash::{BuildHasher, RandomState},
    mem,
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    holder::{Key, Known},
    revoked::Whom,
};

type Hash = [u8; 32];

/// The cache. See the module's description.
#[derive(Debug)]
pub struct Seen {
    halves: Mutex<Halves>,
    half: usize,
    hash: RandomState,
}

#[derive(Debug, Default)]
struct Halves {
    new: Half,
    old: Half,
    /// What was old before.
    forgotten: hash_map::IntoIter<Hash, Arc<Known>>,
}

#[derive(Debug, Default)]
struct Half {
    tokens: HashMap<Hash, Arc<Known>>,
    /// When the last token expires of a name, of that with its issuer, or of an id, by a hash of that. What has left this half is in it still, and of two that have the same hash the later
    /// moment: nobody comes in earlier for that.
    ends: HashMap<u64, u64>,
}

/// So many are forgotten for each that is kept: all of a half, before the next one is.
const FORGOTTEN: usize = 2;

impl Seen {
    /// Room for so many; for none, none is kept.
    pub fn new(most: usize) -> Seen {
        Seen { halves: Mutex::default(), half: most.div_ceil(2), hash: RandomState::new() }
    }

    /// How many there are, and how many there may be.
    pub fn count(&self) -> (usize, usize) {
        let halves = self.halves.lock();
        (halves.new.tokens.len() + halves.old.tokens.len(), self.half * 2)
    }

    /// What is known of the token of this hash.
    pub fn find(&self, hash: &Hash) -> Option<Arc<Known>> {
        let mut halves = self.halves.lock();
        if let Some(known) = halves.new.tokens.get(hash) {
            return Some(Arc::clone(known));
        }
        let known = Arc::clone(halves.old.tokens.get(hash)?);
        // Where the new half is full it stays where it is: else as many tokens as there is room for, coming one after the other again and again,
        // would push each other out.
        if halves.new.tokens.len() < self.half {
            halves.old.tokens.remove(hash);
            self.put(&mut halves, Arc::clone(&known));
        }
        Some(known)
    }

    /// Keeps one, in the place of what was known of it.
    pub fn keep(&self, known: Arc<Known>) {
        self.put(&mut self.halves.lock(), known);
    }

    /// When the last of those expires who are meant, in seconds since the Unix epoch, or something later (see [`Half`]).
    pub fn last_expires(&self, whom: &Whom) -> Option<u64> {
        let which = match whom {
            Whom::Name { name, issuer } => self.name(name, issuer.as_deref()),
            Whom::Id(id) => self.id(id),
        };
        let halves = self.halves.lock();
        halves.new.ends.get(&which).max(halves.old.ends.get(&which)).copied()
    }

    fn name(&self, name: &str, issuer: Option<&str>) -> u64 {
        self.hash.hash_one((name, issuer))
    }

    fn id(&self, id: &str) -> u64 {
        self.hash.hash_one(id)
    }

    fn put(&self, halves: &mut Halves, known: Arc<Known>) {
        if self.half == 0 {
            return;
        }
        if halves.new.tokens.len() >= self.half && !halves.new.tokens.contains_key(&known.hash) {
            let old = mem::replace(&mut halves.old, mem::take(&mut halves.new));
            halves.forgotten = old.tokens.into_iter();
        }
        halves.forgotten.by_ref().take(FORGOTTEN).for_each(drop);
        if let Some(expires) = known.expires {
            let Key { name, issuer, .. } = &*known.key;
            let issued = (!issuer.is_empty()).then(|| self.name(name, Some(issuer)));
            let which = [Some(self.name(name, None)), issued, known.id.as_deref().map(|id| self.id(id))];
            for which in which.into_iter().flatten() {
                let end = halves.new.ends.entry(which).or_default();
                *end = expires.max(*end);
            }
        }
        halves.new.tokens.insert(known.hash, known);
    }
}
