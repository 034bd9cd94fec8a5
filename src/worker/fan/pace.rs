//! Rates: what changed is noted while publications pass, and sent once a tick.
//!
//! All cohorts of one rate tick together, and only if something changed. At a tick the newest publication of each changed
//! topic is gathered once, in the order of the tape, and every member in march is sent the same bytes. Members that march
//! alone have rounds of their own (`round.rs`), which also begin at ticks: nobody is sent a topic twice between two.

use std::collections::BTreeSet;

use super::{
    super::{Worker, cursors::round::Piece},
    Outcome,
    delivery::Rate,
    interest::{CohortId, Newest},
    send_all,
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

    /// Begins anew at `position`, as if everything before had been sent.
    pub fn restart(&mut self, position: Position) {
        self.tick = position;
        self.ticks += 1;
        self.changes.clear();
    }
}

impl<E: Edge> Worker<E> {
    /// Sets the next tick of the rates of which the pass has found the first change.
    pub fn set_ticks(&mut self) {
        let mut stirred = std::mem::take(&mut self.stirred);
        for (id, n) in stirred.drain(..) {
            self.interest.set_tick(id, n, self.now);
        }
        self.stirred = stirred;
    }

    /// Makes the ticks that are due.
    pub fn tick(&mut self) {
        let mut any = false;
        while let Some((_, id, n)) = self.interest.next_tick().filter(|(due, ..)| *due <= self.now) {
            self.tick_one(id, n);
            any = true;
        }
        if any {
            self.list_all();
        }
    }

    fn tick_one(&mut self, id: CohortId, n: usize) {
        let position = self.position;
        let cohort = self.interest.cohort(id);
        let changes = std::mem::take(&mut cohort.paces[n].changes);
        let lane = cohort.key.lane;
        let from = cohort.paces[n].tick;
        self.interest.restart(id, n, position);
        let cohort = self.interest.cohort(id);
        if cohort.column.is_empty() {
            return;
        }
        let newest = |change: &Change| Some((self.newest_for(id, change.slot, from, position)?, *change));
        let mut wanted: Vec<(Position, Change)> = changes.iter().filter_map(newest).collect();
        wanted.sort_unstable_by_key(|(end, _)| *end);
        let mut bytes = std::mem::take(&mut self.gather);
        bytes.clear();
        let mut pieces = Vec::with_capacity(wanted.len());
        for (position, change) in &wanted {
            let position = *position;
            if let Some(seq) = self.push_value(lane, change.slot, position, &mut bytes) {
                let end = bytes.len();
                let piece = Piece { end, position, slot: Some(change.slot), seq, skipped: 0, sent: true };
                pieces.push((piece, *change));
            }
        }
        self.send_tick(id, n, &bytes, &pieces);
        self.gather = bytes;
    }

    /// Sends all members in march what a tick has for them.
    fn send_tick(&mut self, id: CohortId, n: usize, bytes: &[u8], pieces: &[(Piece, Change)]) {
        let Worker { interest, edge, connections, .. } = self;
        let cohort = interest.cohort(id);
        cohort.last_sent = self.now;
        let (mut sends, mut whole) = (0, 0);
        let mut behind = Vec::new();
        for token in cohort.column.tokens() {
            match send_all(edge, &connections[token as usize].socket, bytes, &mut sends) {
                Outcome::All => whole += 1,
                Outcome::Full(taken) => behind.push((token, Ok(taken))),
                Outcome::Broken(why) => behind.push((token, Err(why))),
            }
        }
        let metrics = self.metrics();
        metrics.sends.add(sends);
        metrics.deliveries.add(whole * pieces.len() as u64);
        metrics.sent_bytes.add(whole * bytes.len() as u64);
        for (token, fate) in behind {
            match fate {
                Ok(taken) => self.fall_behind_at_tick(token, n, bytes, pieces, taken),
                Err(why) => self.lost(token, why),
            }
        }
    }
}
