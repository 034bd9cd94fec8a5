//! Falling off the tape at its head: a worker that was held up for longer than the tape holds, or a round that took so long.
//!
//! Members that were to be sent what is gone are let go, and where the tape's floor has passed the fan itself, it goes on there,
//! with its tables as of the floor.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{
    super::{connections::Connections, ground::Ground},
    Fan, Fell, Why,
    delivery::Delivery,
    interest::{CohortId, Newest},
};
use crate::{
    io::{Edge, Token},
    tape::Position,
};

/// Topics that are looked at under one hold of the tape's lock.
const LOOK_AT_ONCE: u32 = 256;

impl Fan {
    /// Whether the tape's floor has come further since this was last asked.
    pub fn has_rolled_on(&mut self, floor: Position) -> bool {
        std::mem::replace(&mut self.floor, floor) != floor
    }

    /// Lets go of every member that was to be sent something that is no longer on the tape.
    pub fn drop_fallen<S>(&mut self, connections: &mut Connections<S>, floor: Position) {
        let mut fallen: Vec<(CohortId, Token, Position)> = Vec::new();
        if self.planned_for_all() < floor {
            // The worker itself was held up for longer than the tape holds, or those that trail were: nobody got what is gone.
            for id in self.interest.cohort_ids() {
                let missed = self.interest.planned_for(id);
                let column = &self.interest.cohort(id).column;
                let from = |(place, token)| (id, token, column.position(place as u32).unwrap_or(missed));
                fallen.extend(column.tokens().enumerate().map(from).filter(|(.., from)| *from < floor));
            }
        } else {
            for (id, ticket) in &self.line {
                if let Some(cohort) = self.interest.with_ticket(*id, *ticket) {
                    fallen.extend(cohort.column.fallen(floor).into_iter().map(|(token, from)| (*id, token, from)));
                }
            }
        }
        for (id, token, missed) in fallen {
            let in_full = self.interest.cohort(id).has(|delivery| delivery == Delivery::All);
            let owed = self.leave(connections, token);
            self.fell.push_back(Fell { token, why: Why::Missed { missed, in_full }, owed });
        }
    }

    /// Goes on at the tape's floor, if that has come further than the fan: after [`Fan::drop_fallen`], with no members left.
    pub fn jump_to<E: Edge>(&mut self, ground: &Ground<E>, floor: Position) {
        let Ground { reader, tape, .. } = ground;
        let interest = &mut self.interest;
        if interest.trail.position().is_some_and(|trail| trail < floor) {
            interest.trail.come_to(floor, interest.position);
        }
        let missed = interest.position;
        if missed >= floor {
            return;
        }
        interest.position = floor;
        // Of topics that go on behind the floor, what was before that is gone: the number before the first one there.
        let mut first = FxHashMap::default();
        reader.scan(floor, reader.head(), |entry| {
            first.entry(entry.topic.slot).or_insert((entry.previous, entry.seq - 1));
            true
        });
        let slots = tape.with_topics(|topics, _| topics.slots());
        let mut found = Vec::new();
        for from in (0..slots).step_by(LOOK_AT_ONCE as usize) {
            tape.with_topics(|topics, _| {
                for topic in (from..slots.min(from + LOOK_AT_ONCE)).filter_map(|slot| topics.at(slot)) {
                    let (end, seq) = first.get(&topic.id.slot).copied().unwrap_or((topic.end, topic.seq));
                    if end > missed.0 && end <= floor.0 {
                        let origin = if end == topic.end { topic.origin } else { 0 };
                        let newest = Newest { end: Position(end), seq, origin };
                        found.push((newest.end, topic.id, Arc::clone(&topic.name), newest));
                    }
                }
            });
        }
        found.sort_unstable_by_key(|(end, ..)| *end);
        found.iter().for_each(|(_, id, name, newest)| interest.note_missed(*id, name, *newest));
        for id in interest.cohort_ids() {
            for n in 0..interest.cohort(id).paces.len() {
                interest.restart(id, n, floor);
            }
        }
    }
}
