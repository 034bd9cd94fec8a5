//! The reading end: a window of pinned segments, from which one worker sends.
//!
//! A reader belongs to one worker. Within a turn it holds every segment between the tape's tail and head as it saw them
//! at the turn's start, so that nothing it hands out can go away; at the next turn it lets go of what the tape has let go.

use std::collections::VecDeque;

use super::{
    Position, Tape,
    segment::{Entry, Segment},
    sync::{Arc, Ordering},
};
use crate::lane::Lane;

/// One worker's view of the tape.
pub struct Reader {
    tape: Tape,
    segments: VecDeque<Arc<Segment>>,
    head: Position,
    floor: Position,
}

/// A contiguous piece of one lane of one segment: whole frames, ready to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Position of the segment that the bytes are in.
    pub base: Position,
    /// First byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Reader {
    /// A reader that sees nothing until the first [`Reader::refresh`].
    pub fn new(tape: Tape) -> Reader {
        Reader { tape, segments: VecDeque::new(), head: Position(0), floor: Position(0) }
    }

    /// The head as of the last refresh: everything before it can be read.
    pub fn head(&self) -> Position {
        self.head
    }

    /// The oldest position that the tape still holds, as of the last refresh; not beyond [`Reader::head`].
    pub fn floor(&self) -> Position {
        self.floor
    }

    /// Looks where the head is now, and pins what it needs to read from the tape's tail up to there.
    ///
    /// Afterwards, what is before [`Reader::floor`] is gone from the tape; bytes that were already in hand stay pinned
    /// until [`Reader::trim`].
    pub fn refresh(&mut self) -> Position {
        // Acquire: pairs with the Release in `Appender::drop`; entries and bytes before it are visible from here on.
        let mut head = Position(self.tape.0.head.load(Ordering::Acquire));
        let known = self.segments.back().map_or(0, |newest| newest.end());
        if self.segments.is_empty() || known < head.0 {
            let writer = self.tape.0.writer.lock();
            // The tape may have run on meanwhile, so far that its floor is beyond the head that was there.
            head = Position(self.tape.0.head.load(Ordering::Acquire));
            let from = if self.segments.is_empty() { 0 } else { known };
            // Where the tape has run past this reader, a hole stays between what it had and what it gets.
            self.segments.extend(writer.segments.iter().filter(|segment| segment.base.0 >= from).cloned());
            self.floor = writer.segments.front().map_or(self.floor, |oldest| oldest.base);
        } else {
            self.floor = self.floor.max(self.tape.tail().min(head));
        }
        self.head = head;
        head
    }

    /// Lets go of what is before the floor.
    pub fn trim(&mut self) {
        while self.segments.front().is_some_and(|oldest| oldest.end() <= self.floor.0) {
            self.segments.pop_front();
        }
    }

    /// Lets go of everything, while there is nobody to send to.
    pub fn detach(&mut self) {
        self.segments.clear();
    }

    /// How many segments are pinned.
    pub fn pinned(&self) -> usize {
        self.segments.len()
    }

    /// Calls `visit` with each entry from `from` up to `to` until it returns false. Returns the position it stopped at:
    /// `to`, or that of the entry for which it returned false.
    ///
    /// `to` must not be beyond [`Reader::head`]. What is before [`Reader::floor`] can be read until [`Reader::trim`], if it
    /// could before.
    #[expect(unsafe_code, reason = "the reader's head is the proof that the entries were published")]
    pub fn scan(
        &self,
        from: Position,
        to: Position,
        mut visit: impl FnMut(Position, Position, &Entry) -> bool,
    ) -> Position {
        debug_assert!(to <= self.head);
        debug_assert!(from >= to || self.segments.front().is_none_or(|oldest| oldest.base <= from));
        let first = self.segments.partition_point(|segment| segment.base <= from).saturating_sub(1);
        let mut at = from;
        for segment in self.segments.range(first.min(self.segments.len())..) {
            let end = segment.end().min(to.0);
            while at.0 < end {
                // SAFETY: `at` is below the head that `refresh` loaded with Acquire.
                let entry = unsafe { segment.entry((at.0 - segment.base.0) as usize) };
                if !visit(at, segment.base, &entry) {
                    return at;
                }
                at.0 += 1;
            }
        }
        at
    }

    /// Shows the entry at `position`, as long as its segment is pinned; also one that the tape has let go of.
    #[expect(unsafe_code, reason = "a position before the reader's head was published")]
    pub fn look(&self, position: Position, show: impl FnOnce(Position, &Entry)) {
        let after = self.segments.partition_point(|segment| segment.base <= position);
        let Some(segment) = after.checked_sub(1).map(|at| &self.segments[at]) else { return };
        if position < self.head && position.0 < segment.end() {
            // SAFETY: `position` is below the head that `refresh` loaded with Acquire.
            show(segment.base, &unsafe { segment.entry((position.0 - segment.base.0) as usize) });
        }
    }

    /// How many bytes a lane holds from `from` up to the head.
    #[expect(unsafe_code, reason = "the reader's head is the proof that the entries were published")]
    pub fn bytes_from(&self, lane: Lane, from: Position) -> u64 {
        let first = self.segments.partition_point(|segment| segment.end() <= from.0);
        let mut bytes = 0;
        for segment in self.segments.range(first..) {
            let end = segment.end().min(self.head.0);
            if end <= segment.base.0.max(from.0) {
                continue;
            }
            let at = |position: u64| {
                // SAFETY: `position` is below the head that `refresh` loaded with Acquire.
                unsafe { segment.entry((position - segment.base.0) as usize) }
            };
            let (start, last) = (at(segment.base.0.max(from.0)), at(end - 1));
            // An entry that the lane doesn't have still says how full the lane was.
            bytes += u64::from(last.start[lane as usize] + last.len[lane as usize] - start.start[lane as usize]);
        }
        bytes
    }

    /// The bytes of `run`, which came from entries that [`Reader::scan`] showed since the last [`Reader::trim`].
    ///
    /// # Panics
    /// If its segment is no longer pinned.
    #[expect(unsafe_code, reason = "the reader's head is the proof that the bytes were published")]
    pub fn bytes(&self, lane: Lane, run: Run) -> &[u8] {
        let at = self.segments.partition_point(|segment| segment.base <= run.base) - 1;
        let segment = &self.segments[at];
        assert!(segment.base == run.base, "a run is read while its segment is pinned");
        // SAFETY: a run is made of published entries.
        unsafe { segment.bytes(lane, run.start as usize, run.len as usize) }
    }
}
