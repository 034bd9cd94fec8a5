//! The reading end: a window of pinned segments, from which one worker sends.
//!
//! A reader belongs to one worker. Within a turn it holds every segment between the tape's tail and head as it saw them
//! at the turn's start, so that nothing it hands out can go away; at the next turn it lets go of what the tape has let go.

use std::{collections::VecDeque, ops::Deref};

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
    /// Bytes of the tape before the head.
    written: u64,
}

/// A contiguous piece of one lane of one segment: frames, ready to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Position of the segment that the bytes are in.
    pub base: Position,
    /// The offset of the first byte among the lane's, which run on over a gap where its bytes aren't in one piece.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Run {
    /// Takes in the run that follows, if it is adjacent. Returns whether it was.
    #[inline]
    pub fn extend(&mut self, next: Run) -> bool {
        let adjacent = self.base == next.base && self.start + self.len == next.start;
        if adjacent {
            self.len += next.len;
        }
        adjacent
    }

    /// The run without its first bytes.
    #[inline]
    #[must_use]
    pub fn after(self, bytes: u32) -> Run {
        Run { start: self.start + bytes, len: self.len - bytes, ..self }
    }
}

/// A publication on the tape, as a reader shows it: what the index says of it, and where its frames are.
#[derive(Clone, Copy, Debug)]
pub struct Published<'r> {
    /// Its number on the tape.
    pub position: Position,
    /// That of the first in its segment.
    base: Position,
    entry: &'r Entry,
    /// The one before it in the segment, which says where its frames begin.
    before: &'r Entry,
}

impl Published<'_> {
    /// How long its frame in `lane` is; 0 if it has none.
    #[inline]
    pub fn len(&self, lane: Lane) -> u32 {
        self.entry.ends[lane as usize] - self.start(lane)
    }

    /// Whether it has a frame in `lane`: nobody may have wanted one.
    #[inline]
    pub fn is_in(&self, lane: Lane) -> bool {
        self.len(lane) > 0
    }

    /// How long its longest frame is; one more where that is the first in a block.
    #[inline]
    pub fn longest(&self) -> u32 {
        let grown = |lane: Lane| self.entry.ends[lane as usize] - self.before.ends[lane as usize];
        Lane::ALL.into_iter().map(grown).max().unwrap_or(0)
    }

    /// Its frame in `lane`.
    #[inline]
    pub fn run(&self, lane: Lane) -> Run {
        Run { base: self.base, start: self.start(lane), len: self.len(lane) }
    }

    #[inline]
    fn start(&self, lane: Lane) -> u32 {
        self.before.ends[lane as usize] + u32::from(self.entry.opens >> lane as u8 & 1)
    }
}

impl Deref for Published<'_> {
    type Target = Entry;

    #[inline]
    fn deref(&self) -> &Entry {
        self.entry
    }
}

impl Reader {
    /// A reader that sees nothing until the first [`Reader::refresh`].
    pub fn new(tape: Tape) -> Reader {
        Reader { tape, segments: VecDeque::new(), head: Position(0), floor: Position(0), written: 0 }
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
            self.segments.extend(writer.store.segments().iter().filter(|segment| segment.base.0 >= from).cloned());
            self.floor = Position(writer.store.tail());
        } else {
            self.floor = self.floor.max(self.tape.tail().min(head));
        }
        // After the head: what came in between counts as seen, rather than as missed by a reader that sleeps next.
        self.written = self.tape.written();
        self.head = head;
        head
    }

    /// Bytes of the tape, as [`Tape::written`] counts them, before `position`; not beyond the head.
    pub fn written_before(&self, position: Position) -> u64 {
        if position >= self.head {
            return self.written;
        }
        let frames: u64 = Lane::ALL.into_iter().map(|lane| self.bytes_from(lane, position)).sum();
        let entries = (self.head.0 - position.0) * size_of::<Entry>() as u64;
        self.written.saturating_sub(frames + entries)
    }

    /// Lets go of what is before the floor.
    #[cfg(any(test, fuzzing))]
    pub fn trim(&mut self) {
        self.trim_before(self.floor);
    }

    /// Lets go of what is before the floor, but for what comes from `kept` on: somebody still has to look at it.
    pub fn trim_before(&mut self, kept: Position) {
        while self.segments.front().is_some_and(|oldest| oldest.end() <= kept.min(self.floor).0) {
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

    /// Shows `visit` each publication from `from` up to `to` until it returns false. Returns the position it stopped at:
    /// `to`, or that of the publication for which it returned false.
    ///
    /// `to` must not be beyond [`Reader::head`]. What is before [`Reader::floor`] can be read until [`Reader::trim`], if it
    /// could before.
    #[expect(unsafe_code, reason = "the reader's head is the proof that the entries were published")]
    pub fn scan(&self, from: Position, to: Position, mut visit: impl FnMut(&Published<'_>) -> bool) -> Position {
        debug_assert!(to <= self.head);
        debug_assert!(from >= to || self.segments.front().is_none_or(|oldest| oldest.base <= from));
        let first = self.segments.partition_point(|segment| segment.base <= from).saturating_sub(1);
        let mut at = from;
        for segment in self.segments.range(first.min(self.segments.len())..) {
            let end = segment.end().min(to.0);
            if at.0 >= end {
                continue;
            }
            // SAFETY: `at` is below the head that `refresh` loaded with Acquire.
            let mut before = unsafe { segment.entry_before((at.0 - segment.base.0) as usize) };
            // SAFETY: as above.
            for entry in unsafe { segment.entries((at.0 - segment.base.0) as usize, (end - segment.base.0) as usize) } {
                if !visit(&Published { position: at, base: segment.base, entry, before }) {
                    return at;
                }
                before = entry;
                at.0 += 1;
            }
        }
        at
    }

    /// The publication at `position`, as long as its segment is pinned; also one that the tape has let go of.
    #[expect(unsafe_code, reason = "a position before the reader's head was published")]
    pub fn look(&self, position: Position) -> Option<Published<'_>> {
        let after = self.segments.partition_point(|segment| segment.base <= position);
        let segment = &self.segments[after.checked_sub(1)?];
        if position >= self.head || position.0 >= segment.end() {
            return None;
        }
        let at = (position.0 - segment.base.0) as usize;
        // SAFETY: `position` is below the head that `refresh` loaded with Acquire.
        let (entry, before) = unsafe { (segment.entry(at), segment.entry_before(at)) };
        Some(Published { position, base: segment.base, entry, before })
    }

    /// How many bytes a lane holds from `from` up to the head.
    #[expect(unsafe_code, reason = "the reader's head is the proof that the entries were published")]
    pub fn bytes_from(&self, lane: Lane, from: Position) -> u64 {
        let first = self.segments.partition_point(|segment| segment.end() <= from.0);
        let mut bytes = 0;
        for segment in self.segments.range(first..) {
            let (start, end) = (segment.base.0.max(from.0), segment.end().min(self.head.0));
            if end <= start {
                continue;
            }
            let at = |position: u64| (position - segment.base.0) as usize;
            // SAFETY: both are below the head that `refresh` loaded with Acquire.
            let (before, last) = unsafe { (segment.entry_before(at(start)), segment.entry(at(end - 1))) };
            // An entry that the lane doesn't have still says how full the lane was.
            let (start, end) = (before.ends[lane as usize], last.ends[lane as usize]);
            bytes += u64::from(segment.bytes_between(lane, start, end));
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
        unsafe { segment.bytes(lane, run.start, run.len) }
    }

    /// The bytes of runs in one piece: the lane's own where there is one run, else gathered into `gather`.
    ///
    /// Gathering costs 10 to 30 ns a frame; handing the kernel the pieces instead costs 20 to 115 ns each, at every send.
    pub fn contiguous<'b>(
        &'b self,
        lane: Lane,
        runs: impl Iterator<Item = Run> + Clone,
        gather: &'b mut Vec<u8>,
    ) -> &'b [u8] {
        let mut rest = runs.clone();
        if let (Some(run), None) = (rest.next(), rest.next()) {
            return self.bytes(lane, run);
        }
        gather.clear();
        runs.for_each(|run| gather.extend_from_slice(self.bytes(lane, run)));
        gather
    }
}
