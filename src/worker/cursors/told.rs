//! What a subscriber of newest values was sent or told of last, so that a `skip` tells exactly what was left out.
//!
//! Everything that a cursor goes by is told in the end, in the order of the tape. So what it was told of each topic is what was the
//! topic's newest publication at one position: no table of its own, but a state that all share who stood there ([`AsOf`]), and
//! what it was sent since.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::super::{
    connection::CohortId,
    fan::{
        AsOf,
        delivery::Delivery,
        interest::{Interest, Newest},
    },
    ground::Ground,
    work::price,
};
use crate::{io::Edge, tape::Position};

/// See the module's description.
#[derive(Debug)]
pub struct Told {
    /// It was told everything up to there.
    base: Arc<AsOf>,
    /// Numbers that it was told since, or was not told of that state.
    own: FxHashMap<u32, u64>,
    /// Of a round that was not sent to its end: what was newest at its goal, and up to where that was sent.
    partly: Option<(Arc<AsOf>, Position)>,
}

impl Told {
    /// Everything up to a position.
    pub fn of(base: Arc<AsOf>) -> Told {
        Told { base, own: FxHashMap::default(), partly: None }
    }

    /// The number of a topic that it was told last; 0 for none.
    pub fn get(&self, interest: &Interest, slot: u32) -> u64 {
        let newest = |as_of: &AsOf| interest.newest_as_of(as_of, slot);
        let partly = self.partly.as_ref().and_then(|(goal, sent)| newest(goal).filter(|newest| newest.end <= *sent));
        let of_round = partly.map(|newest| newest.seq);
        of_round
            .or_else(|| self.own.get(&slot).copied())
            .unwrap_or_else(|| newest(&self.base).map_or(0, |newest| newest.seq))
    }

    /// It was told of a topic beyond the state.
    pub fn note(&mut self, slot: u32, seq: u64) {
        self.own.insert(slot, seq);
    }

    /// The same, if it is a topic that the state doesn't hold for.
    pub fn renew(&mut self, slot: u32, seq: u64) {
        if let Some(own) = self.own.get_mut(&slot) {
            *own = seq;
        }
    }

    /// These numbers it was told, whatever the state says.
    pub fn but(mut self, own: impl IntoIterator<Item = (u32, u64)>) -> Told {
        self.own.extend(own);
        self
    }

    /// Of a round up to `goal`, what comes up to `sent` was sent, and the rest will not be.
    pub fn break_off(&mut self, goal: Arc<AsOf>, sent: Position) {
        debug_assert!(self.partly.is_none(), "a round is made anew once");
        self.partly = Some((goal, sent));
    }

    /// Bytes of memory that it takes by itself.
    pub fn held(&self) -> usize {
        self.base.held() + self.own.capacity() * size_of::<(u32, u64)>()
    }
}

/// The newest publications of all topics as of `position`, if somebody in one of these cohorts may ask.
///
/// `found` are the newest of topics there that are known from elsewhere: the tables may come to know them only behind a floor.
/// `position` is not beyond what the reader sees. It may be before the tape's floor, as long as the reader pins it.
pub fn as_of<E: Edge>(
    ground: &mut Ground<E>,
    interest: &mut Interest,
    cohorts: [Option<CohortId>; 2],
    position: Position,
    found: &[(u32, Newest)],
) -> Option<Arc<AsOf>> {
    let conflates = |id: CohortId| interest.cohort(id).has(|delivery| delivery != Delivery::All);
    if !cohorts.into_iter().flatten().any(conflates) {
        return None;
    }
    let (here, floor) = (interest.position, ground.reader.floor());
    let mut looks = 0;
    let reader = &ground.reader;
    // The tables are as of where the fan is.
    let own = || {
        let mut own = FxHashMap::default();
        if position < here {
            reader.scan(position, here, |entry| {
                looks += 1;
                let before = Newest { end: Position(entry.previous), seq: entry.seq - 1, origin: 0 };
                own.entry(entry.topic.slot).or_insert(before);
                true
            });
            return own;
        }
        if here < floor {
            // What lies between is gone.
            own.extend(found.iter().copied());
        }
        reader.scan(here.max(floor).min(position), position, |entry| {
            looks += 1;
            let end = Position(entry.position.0 + 1);
            own.insert(entry.topic.slot, Newest { end, seq: entry.seq, origin: entry.origin });
            true
        });
        own
    };
    let is_own = here < floor && !found.is_empty();
    let as_of = if is_own { interest.own_as_of(position, own) } else { interest.as_of(position, own) };
    ground.work.charge(looks * price::LOOK);
    Some(as_of)
}
