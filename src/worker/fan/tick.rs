//! Ticks on their way: what a rate has for its cohort, gathered once, and sent to one member after the other over as many turns as
//! that takes.
//!
//! ```text
//!   due ──► open ──► find ──► gather ──► serve ──► closed: due again if something has changed meanwhile
//!                    which publication    │
//!                    of each topic        └─ the members at the head when it was opened, in a set of bits
//! ```
//!
//! The rate that is due first is opened first. Those that are open take turns, some sends each, so that one with many members or
//! many topics holds up nobody else's. What changes while a tick is open is for the next one of its rate, which comes at the
//! first multiple of the period after this one is closed: a rate that can't be kept ticks later, with values that are newer.
//!
//! Whoever joins the cohort meanwhile has been sent as much as the tick has. Who leaves before its turn came is told so
//! ([`Unserved`]): as a cursor that is behind it is as far as the tick before.

use std::sync::Arc;

use super::{
    super::{
        connections::Connections,
        deliver::{Outcome, Parcel, begun, deliver_to_each},
        ground::Ground,
        work::price,
    },
    Fan, Fell, Unsent, Why,
    interest::CohortId,
    pace::Change,
    push_value,
    values::newest_counted,
};
use crate::{
    io::{Edge, Token},
    tape::Position,
};

/// Sends of one tick before the next that is open has its turn.
const SENDS_AT_ONCE: u64 = 64;

/// Bytes of the ticks that are open, beyond which no further one is opened.
const OPEN_BYTES: usize = 4 << 20;

/// See the module's description.
#[derive(Debug)]
pub struct Tick {
    /// No other tick has the same.
    number: u64,
    cohort: CohortId,
    /// Of its cohort's rates, the one with this number.
    rate: usize,
    /// Where the tick before stood.
    from: Position,
    /// Where this one stands.
    until: Position,
    changes: Arc<Vec<Change>>,
    /// How many of these were looked at.
    found: usize,
    /// The publications to be sent, and after that they are sorted.
    wanted: Vec<(Position, Change)>,
    is_sorted: bool,
    /// Those of them that are in `bytes`, or are gone.
    gathered: usize,
    values: Vec<Value>,
    bytes: Vec<u8>,
    /// Bytes that it would be longer by if nothing of it were compressed.
    saved: u64,
    /// Who is still to be served.
    members: Members,
}

/// A newest value as a tick has gathered it.
#[derive(Debug)]
struct Value {
    /// Where it ends in the buffer.
    end: usize,
    /// The position after it.
    position: Position,
    change: Change,
}

/// A tick at which somebody was not served before it left.
#[derive(Debug)]
pub struct Unserved {
    /// Of its cohort's rates, the one with this number.
    pub rate: usize,
    /// It was sent everything before.
    pub from: Position,
    /// How many ticks it was served at.
    pub ticks: u64,
    /// What has changed since, with the numbers that it was sent before.
    pub changes: Arc<Vec<Change>>,
}

/// What became of a step of the ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticked {
    /// There is nothing to do for now, or for this turn.
    Nothing,
    /// A tick went on.
    On,
    /// A tick was opened: those of its cohort that are behind may go on, too.
    Opened,
}

impl Fan {
    /// Opens the next tick that is due, and lets those that are open go on a little. Whoever fell behind at it has to be seen to
    /// before the next.
    pub fn tick<E: Edge>(&mut self, ground: &mut Ground<E>, connections: &mut Connections<E::Socket>) -> Ticked {
        let is_due = self.interest.next_tick().is_some_and(|(due, ..)| due <= ground.now);
        if !is_due && self.ticking.is_empty() {
            return Ticked::Nothing;
        }
        if ground.work.is_over() {
            ground.work.put_off();
            return Ticked::Nothing;
        }
        let has_room = self.ticking.is_empty() || self.ticking.iter().map(Tick::room).sum::<usize>() < OPEN_BYTES;
        let opens = is_due && has_room;
        if opens {
            self.open_tick(ground);
        }
        if let Some(tick) = self.ticking.pop_front() {
            self.go_on(ground, connections, tick);
        }
        if opens { Ticked::Opened } else { Ticked::On }
    }

    /// Opens the tick that is due first.
    fn open_tick<E: Edge>(&mut self, ground: &mut Ground<E>) {
        let Some((_, id, rate)) = self.interest.next_tick() else { return };
        self.ticks += 1;
        let (number, until) = (self.ticks, self.interest.position);
        let from = self.interest.cohort(id).paces[rate].tick;
        let changes = Arc::new(self.interest.open_tick(id, rate, until, number));
        let members = Members::of(self.interest.cohort(id).column.tokens());
        ground.work.charge(price::LOOK * 2 + price::LINE * (members.left as u64 / 8));
        self.ticking.push_back(Tick {
            number,
            cohort: id,
            rate,
            from,
            until,
            changes,
            found: 0,
            wanted: Vec::new(),
            is_sorted: false,
            gathered: 0,
            values: Vec::new(),
            bytes: Vec::new(),
            saved: 0,
            members,
        });
    }

    /// Lets a tick go on, and puts it behind the others that are open unless it is done.
    fn go_on<E: Edge>(&mut self, ground: &mut Ground<E>, connections: &mut Connections<E::Socket>, mut tick: Tick) {
        // With the last member the cohort may be gone.
        if !tick.members.is_empty() && self.gather(ground, &mut tick) {
            if tick.bytes.is_empty() {
                tick.members = Members::default();
            } else {
                self.send(ground, connections, &mut tick);
            }
        }
        if tick.members.is_empty() {
            self.interest.close_tick(tick.cohort, tick.rate, tick.number, ground.now);
        } else {
            self.ticking.push_back(tick);
        }
    }

    /// Gathers what is to be sent, as far as the step goes. Returns whether that is all.
    fn gather<E: Edge>(&mut self, ground: &mut Ground<E>, tick: &mut Tick) -> bool {
        let interest = &mut self.interest;
        while let Some(change) = tick.changes.get(tick.found).copied() {
            if ground.work.is_over() {
                return false;
            }
            tick.found += 1;
            let mut looks = 1;
            let (id, span) = (tick.cohort, tick.from..tick.until);
            let newest = newest_counted(&ground.reader, interest, id, change.slot, span, &mut looks);
            tick.wanted.extend(newest.map(|end| (end, change)));
            ground.work.charge(price::LOOK * looks);
        }
        if !std::mem::replace(&mut tick.is_sorted, true) {
            tick.wanted.sort_unstable_by_key(|(end, _)| *end);
            ground.work.charge(price::LINE * tick.wanted.len() as u64);
        }
        let form = interest.cohort(tick.cohort).key.form();
        while let Some((position, change)) = tick.wanted.get(tick.gathered).copied() {
            if ground.work.is_over() {
                return false;
            }
            tick.gathered += 1;
            let before = tick.bytes.len();
            if push_value(ground, interest, form, change.slot, position, &mut tick.bytes).is_some() {
                tick.values.push(Value { end: tick.bytes.len(), position, change });
            }
            tick.saved += ground.packer.take_saved();
            let packing = ground.packer.take_cost();
            ground.work.charge(price::LOOK * 2 + price::lines(tick.bytes.len() - before) + packing);
        }
        true
    }

    /// Sends some members what a tick has gathered for them.
    fn send<E: Edge>(&mut self, ground: &mut Ground<E>, connections: &mut Connections<E::Socket>, tick: &mut Tick) {
        self.interest.cohort(tick.cohort).last_sent = ground.now;
        let parcel = Parcel { bytes: &tick.bytes, publications: tick.values.len() as u64, saved: tick.saved };
        let most = ground.work.left().div_ceil(price::SEND).min(SENDS_AT_ONCE);
        let mut stopped = Vec::new();
        let Ground { edge, metrics, .. } = ground;
        let next = || tick.members.next();
        let done = deliver_to_each(edge, metrics, connections, parcel, most, next, &mut stopped);
        ground.work.charge(price::SEND * done.sends);
        for (token, outcome) in stopped {
            let (position, owed) = self.part(connections, token);
            let why = match outcome {
                Outcome::All => continue,
                Outcome::Full(taken) => {
                    let begun = begun(tick.values.iter().map(|value| value.end), taken);
                    ground.metrics.deliveries.add(begun as u64);
                    Why::FullAtTick(tick.unsent(position, taken, begun))
                }
                Outcome::Broken(why) => Why::Broken(why),
            };
            self.fell.push_back(Fell { token, why, owed });
        }
    }

    /// Takes somebody who leaves a cohort out of its ticks. Returns those that it was not served at.
    pub fn leave_ticks(&mut self, id: CohortId, token: Token) -> Vec<Unserved> {
        let ticks = self.ticking.iter_mut().filter(|tick| tick.cohort == id);
        let mut owed = Vec::new();
        for tick in ticks {
            if tick.members.remove(token) {
                let (rate, from, changes) = (tick.rate, tick.from, Arc::clone(&tick.changes));
                let ticks = self.interest.cohort(id).paces[rate].ticks.saturating_sub(1);
                owed.push(Unserved { rate, from, ticks, changes });
            }
        }
        owed
    }
}

impl Tick {
    /// What is left of it after `taken` bytes, in which so many values were begun.
    fn unsent(&self, position: Position, taken: usize, begun: usize) -> Unsent {
        let last = begun.checked_sub(1).map(|last| &self.values[last]);
        let end = last.map_or(taken, |last| last.end.max(taken));
        let rest_of = last.map_or(position, |last| Position(last.position.0 - 1));
        let left = &self.values[begun..];
        Unsent {
            position,
            rate: self.rate,
            rest: self.bytes[taken..end].to_vec(),
            rest_of,
            values: left.iter().rev().map(|value| (value.position, value.change.slot)).collect(),
            before: left.iter().map(|value| (value.change.slot, value.change.before)).collect(),
        }
    }

    /// Bytes that it takes.
    fn room(&self) -> usize {
        let lists = self.changes.len() * size_of::<Change>() + self.values.len() * size_of::<Value>();
        let wanted = self.wanted.len() * size_of::<(Position, Change)>();
        size_of::<Tick>() + lists + wanted + self.bytes.len() + self.members.words.len() * size_of::<u64>()
    }
}

/// A set of connections, from which they are taken in the order of their tokens. As many bits as lie between the first and the
/// last.
#[derive(Debug, Default)]
struct Members {
    /// The word in which the first one's bit would be, of all tokens.
    first: usize,
    words: Vec<u64>,
    /// Words before this one are empty.
    at: usize,
    left: usize,
}

impl Members {
    fn of(tokens: impl Iterator<Item = Token> + Clone) -> Members {
        let (mut least, mut most, mut left) = (Token::MAX, 0, 0);
        for token in tokens.clone() {
            (least, most, left) = (least.min(token), most.max(token), left + 1);
        }
        if left == 0 {
            return Members::default();
        }
        let first = least as usize / 64;
        let mut words = vec![0; most as usize / 64 - first + 1];
        tokens.for_each(|token| words[token as usize / 64 - first] |= 1 << (token % 64));
        Members { first, words, at: 0, left }
    }

    fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Takes out the next one.
    fn next(&mut self) -> Option<Token> {
        if self.left == 0 {
            return None;
        }
        while self.words[self.at] == 0 {
            self.at += 1;
        }
        let word = &mut self.words[self.at];
        let bit = word.trailing_zeros();
        *word &= *word - 1;
        self.left -= 1;
        Some(((self.first + self.at) * 64) as Token + bit)
    }

    /// Takes one out. Returns whether it was there.
    fn remove(&mut self, token: Token) -> bool {
        let Some(at) = (token as usize / 64).checked_sub(self.first) else { return false };
        let Some(word) = self.words.get_mut(at) else { return false };
        let bit = 1 << (token % 64);
        let was_there = *word & bit != 0;
        *word &= !bit;
        self.left -= usize::from(was_there);
        was_there
    }
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl Fan {
    /// Asserts that open ticks are for members of their cohorts, and known there.
    pub fn check_ticks<S>(&self, connections: &Connections<S>) {
        for tick in &self.ticking {
            let Members { first, words, left, .. } = &tick.members;
            let bits = words.iter().map(|word| word.count_ones() as usize).sum::<usize>();
            assert_eq!(bits, *left, "those still to be served");
            for token in (0..words.len() * 64).filter(|bit| words[bit / 64] >> (bit % 64) & 1 == 1) {
                let token = (first * 64 + token) as Token;
                let connection = connections.get(token).expect("whoever goes leaves its ticks");
                let is_member = matches!(connection.cursor, super::Cursor::Head(_));
                assert!(is_member && connection.cohort == Some(tick.cohort), "a member of the tick's cohort");
                let pace = &self.interest.at(tick.cohort).paces[tick.rate];
                assert_eq!((pace.open, pace.tick >= tick.until), (Some(tick.number), true), "one tick at a time");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn members_are_taken_out_once_each(
            tokens in prop::collection::btree_set(0_u32..300, 0..60),
            removed in prop::collection::vec((0_u32..400, 0_usize..3), 0..40),
        ) {
            let mut members = Members::of(tokens.iter().copied());
            let mut twin: BTreeSet<Token> = tokens;
            for (token, taken) in removed {
                for _ in 0..taken {
                    prop_assert_eq!(members.next(), twin.pop_first());
                }
                prop_assert_eq!(members.remove(token), twin.remove(&token));
                prop_assert_eq!(members.is_empty(), twin.is_empty());
            }
            while let Some(token) = members.next() {
                prop_assert_eq!(Some(token), twin.pop_first());
            }
            prop_assert!(twin.is_empty());
        }
    }
}
