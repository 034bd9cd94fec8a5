//! What of the tape is to be sent: runs in one piece, newest values, and single publications, found on it or among the topics'
//! last values, as a lane has them.

use super::{
    super::ground::Ground,
    interest::{CohortId, Interest},
};
use crate::{
    io::Edge,
    lane::Lane,
    protocol::event::push_event,
    tape::{Entry, Position, Reader, Run, encode},
    topic::Topic,
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
    let newest = interest.newest(slot)?;
    let (mut end, mut origin) = (newest.end, newest.origin);
    for _ in 0..LOOK_BACK_MAX {
        if end <= from {
            break;
        }
        if end <= until && !interest.excludes(cohort, origin) {
            return Some(end);
        }
        // Too new, or its own: the one before.
        let mut found = None;
        reader.look(Position(end.0 - 1), |_, entry| found = Some(entry.previous));
        end = Position(found?);
        reader.look(Position(end.0.saturating_sub(1)), |_, entry| origin = entry.origin);
    }
    None
}

/// Appends, as `lane` has it, the publication that ends at `position` and that was its topic's newest when it was looked for.
/// Returns its number; none if it is neither on the tape any more nor the topic's last value.
pub fn push_value<E: Edge>(
    ground: &Ground<E>,
    interest: &Interest,
    lane: Lane,
    slot: u32,
    position: Position,
    out: &mut Vec<u8>,
) -> Option<u64> {
    let mut found: Option<(Position, Entry)> = None;
    ground.reader.look(Position(position.0 - 1), |base, entry| found = Some((base, *entry)));
    if let Some((base, entry)) = found {
        push_entry(ground, lane, base, &entry, out);
        return Some(entry.seq);
    }
    // It has outlived its place on the tape, unless a newer one has followed.
    let newest = interest.newest(slot).filter(|newest| newest.end == position)?;
    ground.tape.with_topics(|topics, _| {
        let topic = topics.at(slot).filter(|topic| topic.seq == newest.seq)?;
        let payload = topic.last.as_ref()?.payload();
        let (epoch, seq, ts) = (topic.epoch, topic.seq, topic.ts);
        encode::Publication { prefix: &topic.prefix, epoch, seq, ts, payload }.push(lane, out);
        Some(newest.seq)
    })
}

/// Appends a publication that is on the tape, also from a time when nobody wanted the lane.
pub fn push_entry<E: Edge>(ground: &Ground<E>, lane: Lane, base: Position, entry: &Entry, out: &mut Vec<u8>) {
    let frame = |lane: Lane| {
        let (start, len) = (entry.start[lane as usize], entry.len[lane as usize]);
        (len > 0).then(|| ground.reader.bytes(lane, Run { base, start, len }))
    };
    if let Some(frame) = frame(lane) {
        return out.extend_from_slice(frame);
    }
    let of_topic = |push: &mut dyn FnMut(&Topic)| {
        ground.tape.with_topics(|topics, _| topics.at(entry.topic.slot).filter(|t| t.id == entry.topic).map(push));
    };
    if let (Lane::Events, Some(json)) = (lane, frame(Lane::Json)) {
        let json = encode::json_of(json);
        return of_topic(&mut |topic| {
            push_event(out, Some((&topic.epoch, entry.seq)), json);
        });
    }
    let payload = frame(Lane::Raw).map(encode::payload_of).expect("one of the lanes has it");
    of_topic(&mut |topic| {
        let (epoch, seq, ts) = (topic.epoch, entry.seq, entry.ts);
        encode::Publication { prefix: &topic.prefix, epoch, seq, ts, payload }.push(lane, out);
    });
}

/// The planned bytes in one piece: the tape's own where they are adjacent, else gathered into `gather`.
///
/// Gathering costs 10 to 30 ns a frame; handing the kernel the pieces instead costs 20 to 115 ns each, at every send.
pub fn contiguous<'b>(
    reader: &'b Reader,
    lane: Lane,
    runs: impl Iterator<Item = Run> + Clone,
    gather: &'b mut Vec<u8>,
) -> &'b [u8] {
    let mut rest = runs.clone();
    if let (Some(run), None) = (rest.next(), rest.next()) {
        return reader.bytes(lane, run);
    }
    gather.clear();
    for run in runs {
        gather.extend_from_slice(reader.bytes(lane, run));
    }
    gather
}

/// Where in a cohort's publications from `from` on somebody is that was sent `taken` bytes of them: the position, the offset
/// within its frame, and how many whole ones went before.
pub fn locate<E: Edge>(
    ground: &Ground<E>,
    interest: &mut Interest,
    id: CohortId,
    from: Position,
    taken: usize,
) -> (Position, u32, u64) {
    let Ground { reader, tape, .. } = ground;
    let lane = interest.cohort(id).key.lane as usize;
    let (mut left, mut passed) = (taken, 0);
    let position = reader.scan(from, reader.head(), |_, _, entry| {
        if interest.wants(tape, id, entry).is_none() {
            return true;
        }
        let len = entry.len[lane] as usize;
        if left < len {
            return false;
        }
        left -= len;
        passed += 1;
        true
    });
    (position, left as u32, passed)
}
