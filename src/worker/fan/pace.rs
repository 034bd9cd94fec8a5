//! Rates: what changed is noted while publications pass, and sent once a tick.
//!
//! All cohorts of one rate tick together, and only if something changed. At a tick the newest publication of each changed
//! topic is gathered once, in the order of the tape, and every member is sent the same bytes. Those that are behind have rounds
//! of their own (`cursors/round.rs`), which also begin at ticks: nobody is sent a topic twice between two.

use std::collections::BTreeSet;

use super::{
    super::{
        connections::Connections,
        deliver::{Outcome, Parcel, begun, deliver_to_each},
        ground::Ground,
    },
    Fan, Fell, Unsent, Why,
    delivery::Rate,
    interest::{CohortId, Newest},
    newest_for, push_value,
};
use crate::{clock::Moment, io::Edge, tape::Position};

/// One rate of a cohort.
#[derive(Debug)]
pub struct Pace {
    pub rate: Rate,
    /// Where the last tick stood: what came before it has been sent.
    pub tick: Position,
    /// How many ticks there were.
    pub ticks: u64,
    /// When the next tick comes; none if nothing has changed.
    pub due: Option<Moment>,
    /// What has changed since the last tick.
    pub changes: Vec<Change>,
}

/// A topic that has changed.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub slot: u32,
    /// Its newest number at the last tick.
    pub before: u64,
}

/// A newest value as a tick has gathered it.
struct Value {
    /// Where it ends in the buffer.
    end: usize,
    /// The position after it.
    position: Position,
    change: Change,
}

/// When rates tick that have something to send, the next one first: as many entries as there are such rates. An entry goes with
/// its cohort, so that whoever subscribes and leaves again and again leaves nothing behind until a far tick.
#[derive(Debug, Default)]
pub struct Ticks(BTreeSet<(Moment, CohortId, usize)>);

impl Ticks {
    /// The next tick: when, of which cohort, and the number of its rate.
    pub fn next(&self) -> Option<(Moment, CohortId, usize)> {
        self.0.first().copied()
    }

    /// Sets the next tick of a cohort's rate, which had none.
    pub fn set(&mut self, id: CohortId, n: usize, pace: &mut Pace, due: Moment) {
        debug_assert_eq!(pace.due, None, "one tick at a time");
        pace.due = Some(due);
        self.0.insert((due, id, n));
    }

    /// Takes the next tick of a cohort's rate back, if there is one.
    pub fn clear(&mut self, id: CohortId, n: usize, pace: &mut Pace) {
        if let Some(due) = pace.due.take() {
            self.0.remove(&(due, id, n));
        }
    }

    /// How many there are.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Pace {
    pub fn new(rate: Rate, tick: Position) -> Pace {
        Pace { rate, tick, ticks: 0, due: None, changes: Vec::new() }
    }

    /// Notes that a topic was published on at `at`, whose newest publication was `before` (`told` unless that may have
    /// been left out for this cohort). Returns whether it is the first change since the last tick.
    pub fn note(&mut self, slot: u32, at: Position, before: Newest, told: bool) -> bool {
        let noted = before.end > self.tick && (told || self.changes.iter().any(|change| change.slot == slot));
        if noted || at < self.tick {
            return false;
        }
        self.changes.push(Change { slot, before: before.seq });
        self.changes.len() == 1
    }

    /// Begins anew at `position`, as if everything before had been sent. Returns what had changed.
    pub fn restart(&mut self, position: Position) -> Vec<Change> {
        self.tick = position;
        self.ticks += 1;
        std::mem::take(&mut self.changes)
    }
}

impl Fan {
    /// Makes the next tick that is due, if there is one. Whoever fell behind at it has to be seen to before the next.
    pub fn tick<E: Edge>(&mut self, ground: &mut Ground<E>, connections: &mut Connections<E::Socket>) -> bool {
        let Some((_, id, n)) = self.interest.next_tick().filter(|(due, ..)| *due <= ground.now) else { return false };
        let Fan { interest, gather, .. } = self;
        let from = interest.cohort(id).paces[n].tick;
        let until = interest.position;
        let changes = interest.restart(id, n, until);
        let cohort = interest.cohort(id);
        let lane = cohort.key.lane;
        if cohort.column.is_empty() {
            return true;
        }
        let newest =
            |change: &Change| Some((newest_for(&ground.reader, interest, id, change.slot, from, until)?, *change));
        let mut wanted: Vec<(Position, Change)> = changes.iter().filter_map(newest).collect();
        wanted.sort_unstable_by_key(|(end, _)| *end);
        gather.clear();
        let mut values = Vec::with_capacity(wanted.len());
        for (position, change) in wanted {
            if push_value(ground, interest, lane, change.slot, position, gather).is_some() {
                values.push(Value { end: gather.len(), position, change });
            }
        }
        self.send_tick(ground, connections, (id, n), &values);
        true
    }

    /// Sends all members what a tick has gathered for them.
    fn send_tick<E: Edge>(
        &mut self,
        ground: &mut Ground<E>,
        connections: &mut Connections<E::Socket>,
        (id, rate): (CohortId, usize),
        values: &[Value],
    ) {
        let cohort = self.interest.cohort(id);
        cohort.last_sent = ground.now;
        let parcel = Parcel { bytes: &self.gather, publications: values.len() as u64 };
        let mut tokens = cohort.column.tokens();
        let mut stopped = Vec::new();
        let Ground { edge, metrics, .. } = ground;
        deliver_to_each(edge, metrics, connections, parcel, u64::MAX, || tokens.next(), &mut stopped);
        drop(tokens);
        for (token, outcome) in stopped {
            let position = self.part(connections, token);
            let why = match outcome {
                Outcome::All => continue,
                Outcome::Full(taken) => {
                    let begun = begun(values.iter().map(|value| value.end), taken);
                    ground.metrics.deliveries.add(begun as u64);
                    Why::FullAtTick(self.unsent(position, rate, values, taken, begun))
                }
                Outcome::Broken(why) => Why::Broken(why),
            };
            self.fell.push_back(Fell { token, why });
        }
    }

    /// What is left of a tick after `taken` bytes, in which so many values were begun.
    fn unsent(&self, position: Position, rate: usize, values: &[Value], taken: usize, begun: usize) -> Unsent {
        let end = begun.checked_sub(1).map_or(taken, |last| values[last].end.max(taken));
        let left = &values[begun..];
        Unsent {
            position,
            rate,
            rest: self.gather[taken..end].to_vec(),
            values: left.iter().rev().map(|value| (value.position, value.change.slot)).collect(),
            before: left.iter().map(|value| (value.change.slot, value.change.before)).collect(),
        }
    }
}
