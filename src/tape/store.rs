//! The segments that the tape holds, and room in the newest for one more publication.
//!
//! A segment ends when its index is full, or when it has as many bytes as [`BLOCKS`] blocks for each lane that is in it. All
//! lanes share that: a lane whose frames are long, or that begins to be wanted in the middle, takes blocks and ends nothing.
//! Memory counts from when a block is taken, and what `--retain` has no room for any more is let go before.

use std::collections::VecDeque;

use super::{
    Position,
    segment::{BLOCKS, Entry, Pool, Segment},
    sync::Arc,
};
use crate::lane::{LANES, LANES_MAX, Lane, Wanted};

/// See the module's description.
pub(super) struct Store {
    /// The oldest first, and the newest last.
    segments: VecDeque<Arc<Segment>>,
    /// The newest, which is being filled.
    filling: Arc<Segment>,
    /// The position of the oldest publication held.
    tail: u64,
    pool: Arc<Pool>,
    retain: usize,
    /// Memory of all segments, in bytes.
    footprint: usize,
    newest: Newest,
}

/// How far the newest segment is filled.
#[derive(Default)]
struct Newest {
    /// Where each lane ends, as the next entry's predecessor says.
    ends: [u32; LANES_MAX],
    /// Where each lane's last block begins and ends.
    starts: [u32; LANES],
    limits: [u32; LANES],
    /// How many blocks each lane has.
    blocks: [usize; LANES],
    /// Bytes of all blocks.
    taken: usize,
}

impl Store {
    /// A store of one empty segment. Sizes are in bytes, as those of the settings.
    pub fn new(segment: usize, retain: usize) -> Store {
        let pool = Arc::new(Pool::new(segment));
        let first = Arc::new(Segment::new(Position(0), &pool));
        Store {
            footprint: first.footprint(),
            segments: VecDeque::from([Arc::clone(&first)]),
            filling: first,
            tail: 0,
            pool,
            retain,
            newest: Newest::default(),
        }
    }

    /// The segments, the oldest first; there is always one.
    pub fn segments(&self) -> &VecDeque<Arc<Segment>> {
        &self.segments
    }

    /// The newest of those that are filled no further, if there is one.
    pub fn newest_whole(&self) -> Option<&Segment> {
        self.segments.iter().rev().nth(1).map(|segment| &**segment)
    }

    /// The position of the oldest publication held.
    #[inline]
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Memory of all segments, in bytes.
    pub fn footprint(&self) -> usize {
        self.footprint
    }

    /// Whether the newest segment has room for the index entry at `next`.
    #[inline]
    pub fn has_entry(&self, next: Position) -> bool {
        ((next.0 - self.filling.base.0) as usize) < self.filling.entries_max()
    }

    /// Whether a lane's last block has room for a frame of this length.
    #[inline]
    pub fn has_room(&self, lane: Lane, len: usize) -> bool {
        self.newest.missing(lane, len, 1) == 0
    }

    /// Makes room for frames of these lengths, in these lanes, of the publication at `next`, where there is none: in the
    /// newest segment, or in another that is begun. Returns one bit for each lane, lowest first, whose frame is the first in a
    /// block.
    #[cold]
    pub fn grow(&mut self, next: Position, lanes: Wanted, len: &[usize; LANES]) -> u8 {
        let entries = (next.0 - self.filling.base.0) as usize;
        let block = self.pool.block_len();
        let (mut more, mut counts, mut users) = (0, true, Wanted::of(|lane| self.newest.blocks[lane as usize] > 0));
        for lane in lanes.iter() {
            let missing = self.newest.missing(lane, len[lane as usize], block);
            more += missing;
            counts &= self.newest.ends[lane as usize] as usize + 1 + missing < u32::MAX as usize;
            users = users.with(lane);
        }
        let within = self.newest.taken + more <= users.iter().count() * BLOCKS * block;
        // Whatever a publication's size, an empty segment takes it.
        if entries > 0 && (entries >= self.filling.entries_max() || !within || !counts) {
            self.begin(next);
        }
        let mut opens = 0;
        for lane in lanes.iter() {
            let missing = self.newest.missing(lane, len[lane as usize], block);
            if missing > 0 {
                self.open_block(lane, missing);
                opens |= 1 << lane as u8;
            }
        }
        opens
    }

    /// The place, behind what there is, of a frame that there is room for; `opens` is what [`Store::grow`] has said, or nothing.
    #[expect(unsafe_code, reason = "the writer's lock is held by whoever has the store")]
    #[inline]
    pub fn put(&mut self, lane: Lane, len: usize, opens: u8) -> &mut [u8] {
        let newest = &mut self.newest;
        let start = newest.ends[lane as usize] + u32::from(opens >> lane as u8 & 1);
        newest.ends[lane as usize] = start + len as u32;
        let (block, at) = (newest.blocks[lane as usize] - 1, (start - newest.starts[lane as usize]) as usize);
        // SAFETY: a store is the writer's, whose lock is held; nothing from `start` on was published.
        unsafe { self.filling.room(lane, block, at, len) }
    }

    /// Where each lane ends.
    #[inline]
    pub fn ends(&self) -> [u32; LANES_MAX] {
        self.newest.ends
    }

    /// Writes the index entry at `position`, for which room was made.
    #[expect(unsafe_code, reason = "the writer's lock is held by whoever has the store")]
    #[inline]
    pub fn set_entry(&mut self, position: Position, entry: Entry) {
        // SAFETY: a store is the writer's, whose lock is held; this entry was not published.
        unsafe { self.filling.set_entry((position.0 - self.filling.base.0) as usize, entry) };
    }

    /// Closes the newest segment and begins another.
    fn begin(&mut self, next: Position) {
        self.filling.close(next);
        self.filling = Arc::new(Segment::new(next, &self.pool));
        self.footprint += self.filling.footprint();
        self.newest = Newest::default();
        self.segments.push_back(Arc::clone(&self.filling));
        self.let_go();
    }

    #[expect(unsafe_code, reason = "the writer's lock is held by whoever has the store")]
    fn open_block(&mut self, lane: Lane, len: usize) {
        self.footprint += len;
        self.let_go();
        let newest = &mut self.newest;
        let (start, number) = (newest.ends[lane as usize] + 1, newest.blocks[lane as usize]);
        newest.starts[lane as usize] = start;
        newest.limits[lane as usize] = u32::try_from(start as usize + len).expect("the largest message is no 4 GiB");
        newest.blocks[lane as usize] += 1;
        newest.taken += len;
        // SAFETY: a store is the writer's, whose lock is held; nothing of this block was published.
        unsafe { self.filling.open(lane, number, start, len) };
    }

    /// Drops the oldest segments that are beyond `--retain`. The newest stays, whatever its size.
    fn let_go(&mut self) {
        while self.footprint > self.retain && self.segments.len() > 1 {
            let oldest = self.segments.pop_front().expect("there are at least two");
            self.footprint -= oldest.footprint();
            self.tail = self.segments.front().expect("one is left").base.0;
        }
    }
}

impl Newest {
    /// How long a block is missing for a frame of this length, if one has at least `least` bytes; 0 if there is room.
    #[inline]
    fn missing(&self, lane: Lane, len: usize, least: usize) -> usize {
        let end = self.ends[lane as usize] as usize + len;
        if end <= self.limits[lane as usize] as usize { 0 } else { len.max(least) }
    }
}
