//! Resume points: what becomes of the topics of a subscription that says what it has seen.
//!
//! What the tape still has is sent again, from the first publication that was missed of any of them (`cursors/resume.rs`);
//! whatever of this it no longer has is told by a `reset`, before. A subscription of newest values resumes with the newest, as a
//! snapshot.
//!
//! A cursor is a point for each of the topics that the names stand for: the last publication before its place. Where it is good no
//! more, that is nobody's fault, and what it stands for is unknown: all topics are reset.

use super::super::{
    cursors::{Found, Resumed},
    fan::delivery::Delivery,
};
use crate::{
    protocol::{
        command::ResumePoint,
        cursor::{Cursor, Garbled},
    },
    tape::{Position, Reader, Tape},
};

/// From where a subscription goes on that doesn't say it topic by topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// From now.
    Now,
    /// From a place on the tape. What was to begin there may not all have been told.
    Place { at: Position, begins: bool },
    /// From a place that is no more, or never was.
    Lost,
}

impl Since {
    pub fn of(cursor: Option<Result<Cursor, Garbled>>, tape: &Tape) -> Since {
        match cursor {
            None => Since::Now,
            Some(Ok(Cursor { tape: instance, at, begins }))
                if instance == tape.words().tape() && at <= tape.head().0 =>
            {
                Since::Place { at: Position(at), begins }
            }
            Some(_) => Since::Lost,
        }
    }
}

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

/// Where a topic's first publication from `from` on is, and its number, going back from a later one at `near`; none if it is gone.
/// Also how many were looked at, as above.
pub fn first_from(reader: &Reader, near: Position, from: Position) -> (u64, Option<(Position, u64)>) {
    let (mut at, mut looks) = (near, 0);
    while at >= reader.floor() {
        looks += 1;
        let Some(found) = reader.look(at) else { break };
        if found.previous <= from.0 {
            return (looks, Some((at, found.seq)));
        }
        at = Position(found.previous - 1);
    }
    (looks, None)
}
