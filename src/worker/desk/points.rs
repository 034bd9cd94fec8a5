//! Resume points: what becomes of the topics of a subscription that says what it has seen.
//!
//! What the tape still has is sent again, from the first publication that was missed of any of them (`cursors/resume.rs`);
//! whatever of this it no longer has is told by a `reset`, before. A subscription of newest values resumes with the newest, as a
//! snapshot.

use super::super::{
    cursors::{Found, Resumed},
    fan::delivery::Delivery,
};
use crate::{
    protocol::command::ResumePoint,
    tape::{Position, Reader},
};

/// The last publication of a topic that a subscriber has seen.
#[derive(Debug)]
pub struct Point {
    pub epoch: Box<str>,
    pub seq: u64,
}

impl Point {
    pub fn of(point: &ResumePoint<'_>) -> Point {
        Point { epoch: (*point.epoch).into(), seq: point.seq }
    }

    /// What becomes of a topic of which this is the last that was seen; none if its newest value is all that was missed.
    pub fn becomes(&self, topic: &Found, delivery: Delivery, floor: Position) -> Option<Resumed> {
        if *self.epoch != *topic.epoch.to_string() {
            Some(Resumed::Reset("epoch"))
        } else if self.seq == topic.seq {
            Some(Resumed::Behind(self.seq))
        } else if delivery != Delivery::All {
            None
        } else if topic.missed.is_some_and(|missed| missed >= floor) {
            Some(Resumed::Behind(self.seq))
        } else {
            Some(Resumed::Reset("history"))
        }
    }
}

/// Where a topic's publication number `seq` is, going back from a later one at `near`; none if it is gone. Also how many were
/// looked at: as many as there are between two marks of a topic (`topic/registry.rs`).
pub fn find(reader: &Reader, near: Position, seq: u64) -> (u64, Option<Position>) {
    let (mut at, mut looks) = (near, 0);
    while at >= reader.floor() {
        looks += 1;
        let Some(found) = reader.look(at) else { break };
        let (at_seq, previous) = (found.seq, found.previous);
        if at_seq <= seq {
            return (looks, (at_seq == seq).then_some(at));
        }
        let Some(before) = previous.checked_sub(1) else { break };
        at = Position(before);
    }
    (looks, None)
}
