//! The segments that the tape holds, and room in the newest for one more publication.
//!
//! A segment ends when its index is full, or when it has as many bytes as [`BLOCKS`] blocks for each lane that is in it. All
//! lanes share that: a lane whose frames are long, or that begins to be wanted in the middle, takes blocks and ends nothing.
//! Memory counts from when a block is taken, and what `--retain` has no room for any more is let go before.

use std::collections::VecDeque;

use super::{
    Position,
    segment::{BLOCKS, Pool, Segment},
    sync::Arc,
};
use crate::lane::{LANES, LANES_MAX, Lane};

/// See the module's description.
pub(super) struct Store {
    segments: VecDeque<Arc<Segment>>,
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
    /// Where each lane's last block ends.
    limits: [u32; LANES],
    /// How many blocks each lane has.
    blocks: [usize; LANES],
    /// Bytes of all blocks.
    taken: usize,
}

/// Room for one publication, in the newest segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Where each lane's frame begins: in this block of the lane's, at this offset.
    pub at: [(usize, u32); LANES],
    /// Where each lane ends with it.
    pub ends: [u32; LANES_MAX],
    /// One bit for each lane, lowest first: its frame is the first in a block, before which an offset was left out.
    pub opens: u8,
}

impl Store {
    /// A store of one empty segment. Sizes are in bytes, as those of the settings.
    pub fn new(segment: usize, retain: usize) -> Store {
        let pool = Arc::new(Pool::new(segment));
        let first = Arc::new(Segment::new(Position(0), &pool));
        let footprint = first.footprint();
        Store { segments: VecDeque::from([first]), pool, retain, footprint, newest: Newest::default() }
    }

    /// The segments, the oldest first; there is always one.
    pub fn segments(&self) -> &VecDeque<Arc<Segment>> {
        &self.segments
    }

    /// The one that is being filled.
    #[inline]
    pub fn newest(&self) -> &Segment {
        self.segments.back().expect("there is always a newest segment")
    }

    /// The position of the oldest publication held.
    #[inline]
    pub fn tail(&self) -> u64 {
        self.segments.front().map_or(0, |oldest| oldest.base.0)
    }

    /// Memory of all segments, in bytes.
    pub fn footprint(&self) -> usize {
        self.footprint
    }

    /// Finds room for frames of these lengths, 0 for none, of the publication at `next`: in the newest segment, or in another
    /// that is begun.
    #[inline]
    pub fn make_room(&mut self, next: Position, len: [usize; LANES]) -> Room {
        let entries = (next.0 - self.newest().base.0) as usize;
        let fits = |lane: usize| self.newest.ends[lane] as usize + len[lane] <= self.newest.limits[lane] as usize;
        if entries >= self.newest().entries_max() || !(0..LANES).all(|lane| len[lane] == 0 || fits(lane)) {
            return self.grow(next, entries, len);
        }
        self.newest.put(len, 0)
    }

    /// The same where a block or a segment is missing.
    #[cold]
    fn grow(&mut self, next: Position, entries: usize, len: [usize; LANES]) -> Room {
        let block = self.pool.block_len();
        let missing = |newest: &Newest, lane: usize| match newest.ends[lane] as usize + len[lane] {
            end if len[lane] == 0 || end <= newest.limits[lane] as usize => 0,
            _ => len[lane].max(block),
        };
        let more: [usize; LANES] = std::array::from_fn(|lane| missing(&self.newest, lane));
        let lanes = (0..LANES).filter(|lane| self.newest.blocks[*lane] > 0 || more[*lane] > 0).count();
        let within = self.newest.taken + more.iter().sum::<usize>() <= lanes * BLOCKS * block;
        let counts = (0..LANES).all(|lane| self.newest.ends[lane] as usize + 1 + more[lane] < u32::MAX as usize);
        // Whatever a publication's size, an empty segment takes it.
        if entries > 0 && (entries >= self.newest().entries_max() || !within || !counts) {
            self.begin(next);
        }
        let mut opens = 0;
        for lane in Lane::ALL {
            let more = missing(&self.newest, lane as usize);
            if more > 0 {
                self.open_block(lane, more);
                opens |= 1 << lane as u8;
            }
        }
        self.newest.put(len, opens)
    }

    /// Closes the newest segment and begins another.
    fn begin(&mut self, next: Position) {
        self.newest().close(next);
        let fresh = Arc::new(Segment::new(next, &self.pool));
        self.footprint += fresh.footprint();
        self.newest = Newest::default();
        self.segments.push_back(fresh);
        self.let_go();
    }

    #[expect(unsafe_code, reason = "the writer's lock is held by whoever has the store")]
    fn open_block(&mut self, lane: Lane, len: usize) {
        self.footprint += len;
        self.let_go();
        let newest = &mut self.newest;
        let (start, number) = (newest.ends[lane as usize] + 1, newest.blocks[lane as usize]);
        newest.limits[lane as usize] = u32::try_from(start as usize + len).expect("the largest message is no 4 GiB");
        newest.blocks[lane as usize] += 1;
        newest.taken += len;
        // SAFETY: a store is the writer's, whose lock is held; nothing of this block was published.
        unsafe { self.newest().open(lane, number, start, len) };
    }

    /// Drops the oldest segments that are beyond `--retain`. The newest stays, whatever its size.
    fn let_go(&mut self) {
        while self.footprint > self.retain && self.segments.len() > 1 {
            let oldest = self.segments.pop_front().expect("there are at least two");
            self.footprint -= oldest.footprint();
        }
    }
}

impl Newest {
    /// Puts frames of these lengths behind what there is, the lanes of `opens` at the beginning of a block.
    #[inline]
    fn put(&mut self, len: [usize; LANES], opens: u8) -> Room {
        let mut at = [(0, 0); LANES];
        for lane in 0..LANES {
            let start = self.ends[lane] + u32::from(opens >> lane & 1);
            at[lane] = (self.blocks[lane].wrapping_sub(1), start);
            self.ends[lane] = start + len[lane] as u32;
        }
        Room { at, ends: self.ends, opens }
    }
}
