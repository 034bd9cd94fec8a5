//! What of the tape is to be sent: runs in one piece, newest values, and single publications, found on it or among the topics'
//! last values, as a lane has them.

use std::ops::Range;

use super::{
    super::ground::Ground,
    interest::{CohortId, Interest},
};
use crate::{
    io::Edge,
    lane::{Lane, Numbered, draft},
    packs::{Form, Frames},
    tape::{Position, Published, Reader, Tape},
};

/// Publications of its own that are gone back over at most, to find one that isn't.
const LOOK_BACK_MAX: usize = 16 * 1024;

/// The position after a topic's newest publication before `until` that isn't left out for the cohort, if that is beyond
/// `from`.
pub fn newest_for(
    reader: &Reader,
    interest: &Interest,
    cohort: CohortId,
    slot: u32,
    from: Position,
    until: Position,
) -> Option<Position> {
    newest_counted(reader, interest, cohort, slot, from..until, &mut 0)
}

/// The same; counts the publications that were looked at.
pub fn newest_counted(
    reader: &Reader,
    interest: &Interest,
    cohort: CohortId,
    slot: u32,
    span: Range<Position>,
    looks: &mut u64,
) -> Option<Position> {
    let newest = interest.newest(slot)?;
    let (mut end, mut origin) = (newest.end, newest.origin);
    for _ in 0..LOOK_BACK_MAX {
        if end <= span.start {
            break;
        }
        *looks += 1;
        if end <= span.end && !interest.excludes(cohort, origin) {
            return Some(end);
        }
        // Too new, or its own: the one before.
        end = Position(reader.look(Position(end.0 - 1))?.previous);
        if let Some(before) = reader.look(Position(end.0.saturating_sub(1))) {
            origin = before.origin;
        }
    }
    None
}

/// Appends, as somebody is sent it, the publication that ends at `position` and that was its topic's newest when it was looked for.
/// Returns its number; none if it is neither on the tape any more nor the topic's last value. (The last value alone is sent as it is: nobody has
/// begun with its frame before.)
pub fn push_value<E: Edge>(
    ground: &mut Ground<E>,
    interest: &Interest,
    form: Form,
    slot: u32,
    position: Position,
    out: &mut Vec<u8>,
) -> Option<u64> {
    let Ground { reader, tape, packer, .. } = ground;
    let published = reader.look(Position(position.0 - 1));
    debug_assert!(published.as_ref().is_none_or(|published| published.topic.slot == slot), "another topic's");
    if let Some(published) = published.filter(|published| published.topic.slot == slot) {
        let before = out.len();
        let is_there = push_entry(&mut Frames { reader, packer }, tape, form, &published, out);
        // What was too large is not told in every lane.
        return (is_there && out.len() > before).then_some(published.seq);
    }
    // It has outlived its place on the tape, unless a newer one has followed.
    let newest = interest.newest(slot).filter(|newest| newest.end == position)?;
    // It is encoded without the lock.
    let (prefix, seq, ts, last) = tape.with_topics(|topics, _| {
        let topic = topics.at(slot).filter(|topic| topic.end == position.0)?;
        Some((topic.prefix_of(topic.seq).into_owned(), topic.seq, topic.ts, topic.last.clone()?))
    })?;
    let before = out.len();
    let of = Numbered { prefix: &prefix, at: position.0 - 1, words: tape.words(), seq, ts };
    draft::push(form.lane, &of, last.payload(), out);
    (out.len() > before).then_some(newest.seq)
}

/// Appends a publication that is on the tape, also from a time when nobody wanted the lane: unless its topic was forgotten since,
/// whose name the frame would have to say. Returns whether it did.
pub fn push_entry(frames: &mut Frames<'_>, tape: &Tape, form: Form, entry: &Published<'_>, out: &mut Vec<u8>) -> bool {
    if entry.is_in(form.lane) {
        frames.push(form, entry, out);
        return true;
    }
    let Frames { reader, packer } = frames;
    let frame = |lane: Lane| entry.is_in(lane).then(|| reader.bytes(lane, entry.run(lane)));
    // It is encoded without the lock.
    let found = tape.with_topics(|topics, _| {
        let topic = topics.at(entry.topic.slot).filter(|topic| topic.id == entry.topic)?;
        Some(topic.prefix_of(entry.seq).into_owned())
    });
    let Some(prefix) = found else { return false };
    let of = Numbered { prefix: &prefix, at: entry.position.0, words: tape.words(), seq: entry.seq, ts: entry.ts };
    let start = out.len();
    draft::push_from(form.lane, &of, entry.kind, frame, out);
    if form.packed
        && out.len() > start
        && let Some(packed) = packer.packed(form.lane, entry.position, &out[start..])
    {
        let saved = out.len() - start - packed.len();
        out.truncate(start);
        out.extend_from_slice(packed);
        packer.note_saved(saved);
    }
    true
}

/// Where in a cohort's publications from `from` on somebody is that was sent `taken` bytes of them: the position, the offset
/// within its frame, and how many whole ones went before.
pub fn locate<E: Edge>(
    ground: &mut Ground<E>,
    interest: &mut Interest,
    id: CohortId,
    from: Position,
    taken: usize,
) -> (Position, u32, u64) {
    let Ground { reader, tape, .. } = ground;
    let lane = interest.cohort(id).key.lane;
    let (mut left, mut passed) = (taken, 0);
    let position = reader.scan(from, reader.head(), |entry| {
        if interest.wants(tape, id, entry).is_none() {
            return true;
        }
        let len = entry.len(lane) as usize;
        if left < len {
            return false;
        }
        left -= len;
        passed += 1;
        true
    });
    (position, left as u32, passed)
}
