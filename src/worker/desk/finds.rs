//! The topics that a subscription has found so far: in the order in which they were found, and by their slots. Those that were named
//! come first, then those that patterns stand for, by name.
//!
//! They are one piece of memory, which goes on as it is to what the subscription begins with (`cursors/beginnings.rs`): thousands of
//! subscribers may wait with thousands of topics each, and what is in many small pieces is not given back to the system.

use rustc_hash::FxHashMap;

use super::super::cursors::Found;

/// See the module's description.
#[derive(Default)]
pub struct Finds {
    all: Vec<Found>,
    /// Slots are the server's own numbers, so the hash needs no key.
    places: FxHashMap<u32, u32>,
}

impl Finds {
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn get(&self, slot: u32) -> Option<&Found> {
        Some(&self.all[*self.places.get(&slot)? as usize])
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Found> {
        Some(&mut self.all[*self.places.get(&slot)? as usize])
    }

    /// Puts a topic in, in place of what was in its slot, which is returned.
    pub fn insert(&mut self, found: Found) -> Option<Found> {
        let next = self.all.len() as u32;
        let place = *self.places.entry(found.id.slot).or_insert(next);
        if place < next {
            return Some(std::mem::replace(&mut self.all[place as usize], found));
        }
        self.all.push(found);
        None
    }

    pub fn iter(&self) -> impl Iterator<Item = &Found> {
        self.all.iter()
    }

    /// All of them, once nothing is looked for any more.
    pub fn into_all(self) -> Vec<Found> {
        self.all
    }

    /// Bytes of memory that it takes, without what others have as well.
    pub fn held(&self) -> usize {
        // A hash table is an array with a byte beside each place.
        self.all.capacity() * size_of::<Found>() + self.places.capacity() * (size_of::<(u32, u32)>() + 1)
    }
}
