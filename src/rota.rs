//! Who is next: connections that wait for something, so that addresses, and connections of one address, take turns.
//!
//! ```text
//!   address A   a1 a2 a3 a4 … a500
//!   address B   b1                        next:  a1 b1 c1  a2 c2  a3  a4 …
//!   address C   c1 c2
//! ```
//!
//! Each address with somebody who waits has its place in a ring, and its connections have theirs in one of its own. So an address
//! with a thousand connections has as much of a turn as one with a single connection, as long as others want something, and what
//! a turn didn't come to is where the next begins. Whoever is put in stands in it once: that is for its owner to see to. A
//! connection may be gone when its turn comes.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::{
    io::Token,
    slack::{KEPT_BY_ONE, KEPT_BY_THREAD, Slack},
};

/// Whose connections take turns together: an address, or one connection that is counted for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u64);

/// See the module's description.
#[derive(Debug, Default)]
pub struct Rota {
    /// Groups in which somebody waits, the next one first.
    ring: VecDeque<Group>,
    // Keys are the server's own numbers, so the hash needs no key.
    waiting: FxHashMap<Group, VecDeque<Token>>,
    /// Empty ones, for groups that come again and again with one connection: nothing is allocated for these.
    spare: Vec<VecDeque<Token>>,
    len: usize,
}

/// How many are kept.
const SPARE_MAX: usize = 64;

impl Rota {
    /// Puts somebody behind the others of its group.
    pub fn push(&mut self, group: Group, token: Token) {
        let spare = &mut self.spare;
        let waiting = self.waiting.entry(group).or_insert_with(|| spare.pop().unwrap_or_default());
        if waiting.is_empty() {
            self.ring.push_back(group);
        }
        waiting.push_back(token);
        self.len += 1;
    }

    /// Puts somebody before the others of its group, and the group behind the other groups.
    pub fn push_first(&mut self, group: Group, token: Token) {
        let spare = &mut self.spare;
        let waiting = self.waiting.entry(group).or_insert_with(|| spare.pop().unwrap_or_default());
        if waiting.is_empty() {
            self.ring.push_back(group);
        }
        waiting.push_front(token);
        self.len += 1;
    }

    /// Takes out who is next; its group's others come when the other groups had their turn.
    pub fn next(&mut self) -> Option<Token> {
        let group = self.ring.pop_front()?;
        let waiting = self.waiting.get_mut(&group)?;
        let token = waiting.pop_front();
        debug_assert!(token.is_some(), "a group in the ring has somebody who waits");
        if waiting.is_empty() {
            let emptied = self.waiting.remove(&group);
            if let Some(mut emptied) = emptied.filter(|_| self.spare.len() < SPARE_MAX) {
                emptied.give_back(KEPT_BY_ONE);
                self.spare.push(emptied);
            }
        } else {
            waiting.give_back(KEPT_BY_ONE);
            self.ring.push_back(group);
        }
        self.len -= 1;
        token
    }

    /// How many wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives back room that was needed once.
    pub fn give_back(&mut self) {
        self.ring.give_back(KEPT_BY_THREAD);
        if self.waiting.capacity() > 64 && self.waiting.capacity() / 4 > self.waiting.len() {
            self.waiting.shrink_to(64);
        }
    }

    /// Everybody who waits, in no order.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn tokens(&self) -> impl Iterator<Item = Token> {
        self.waiting.values().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_many_connections_has_no_more_turns_than_one_with_a_single_one() {
        let mut rota = Rota::default();
        (0..5).for_each(|token| rota.push(Group(1), token));
        rota.push(Group(2), 10);
        (20..22).for_each(|token| rota.push(Group(3), token));
        let mut order = Vec::new();
        while let Some(token) = rota.next() {
            order.push(token);
            if token == 10 && order.len() < 5 {
                rota.push(Group(2), 10);
            }
        }
        assert_eq!(order, [0, 10, 20, 1, 10, 21, 2, 3, 4]);
        assert!(rota.is_empty() && rota.ring.is_empty() && rota.waiting.is_empty());
    }

    #[test]
    fn whoever_goes_on_first_in_its_group_lets_the_other_groups_have_their_turns() {
        let mut rota = Rota::default();
        (0..3).for_each(|token| rota.push(Group(1), token));
        rota.push(Group(2), 10);
        assert_eq!(rota.next(), Some(0));
        rota.push_first(Group(1), 0);
        assert_eq!([(); 4].map(|()| rota.next().unwrap()), [10, 0, 1, 2]);
    }

    #[test]
    fn a_rota_that_many_stood_in_keeps_no_room_for_them() {
        let mut rota = Rota::default();
        (0..50_000).for_each(|n| rota.push(Group(n.into()), n));
        while rota.next().is_some() {}
        rota.give_back();
        assert!(rota.ring.capacity() * 8 <= KEPT_BY_THREAD && rota.waiting.capacity() <= 128);
    }
}
