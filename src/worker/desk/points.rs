//! Resume points: what becomes of the topics of a subscription that says what it has seen.
//!
//! What the tape still has is sent again, from the first publication that was missed of any of them (`cursors/resume.rs`);
//! whatever of this it no longer has is told by a `reset`, before. A subscription of newest values resumes with the newest, as a
//! snapshot.

use std::{borrow::Cow, collections::HashMap};

use rustc_hash::FxHashMap;

use super::{
    super::{cursors::Resume, fan::delivery::Delivery},
    subscribe::Found,
};
use crate::{
    protocol::command::ResumePoint,
    tape::{Position, Reader},
};

/// What becomes of a topic that is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// It goes on behind this number.
    Behind(u64),
    /// That is gone, for this reason.
    Reset(&'static str),
}

/// Decides for each topic with a resume point what becomes of it, and what has to be sent again.
pub fn resume(
    reader: &mut Reader,
    points: &HashMap<Cow<'_, str>, ResumePoint<'_>>,
    delivery: Delivery,
    found: &[Found],
    until: Position,
) -> (FxHashMap<u32, Resumed>, Option<Resume>) {
    let mut outcome = FxHashMap::default();
    let mut resume = Resume { from: until, until, seen: FxHashMap::default() };
    reader.refresh();
    for topic in found {
        let Some(point) = points.get(&*topic.name) else { continue };
        let becomes = if point.epoch != topic.epoch {
            Resumed::Reset("epoch")
        } else if point.seq == topic.seq {
            Resumed::Behind(point.seq)
        } else if delivery != Delivery::All {
            // Its newest value is all that it missed.
            continue;
        } else {
            match topic.near.and_then(|near| find(reader, Position(near), point.seq + 1)) {
                Some(first) => {
                    resume.from = resume.from.min(first);
                    resume.seen.insert(topic.id.slot, point.seq);
                    Resumed::Behind(point.seq)
                }
                None => Resumed::Reset("history"),
            }
        };
        outcome.insert(topic.id.slot, becomes);
    }
    let resume = (!resume.seen.is_empty()).then_some(resume);
    (outcome, resume)
}

/// Where a topic's publication number `seq` is, going back from a later one at `near`; none if it is gone.
fn find(reader: &Reader, near: Position, seq: u64) -> Option<Position> {
    let mut at = near;
    while at >= reader.floor() {
        let found = reader.look(at)?;
        let (at_seq, previous) = (found.seq, found.previous);
        if at_seq <= seq {
            return (at_seq == seq).then_some(at);
        }
        at = Position(previous.checked_sub(1)?);
    }
    None
}
