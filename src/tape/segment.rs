//! One piece of the tape: room for index entries, and for each lane's bytes in blocks that are taken when they are needed.
//!
//! ```text
//!   entries   | e0 | e1 | e2 | e3 |      free      |
//!
//!   json      | frame 0 | frame 1 |      | frame 2 | frame 3 |
//!             '---- block 0 ------'      '------ block 1 ----'
//!   offsets    1         ...       k      k+1 ...
//!   raw       | f0 | f1 | f2 | f3 |      free     |
//!   events                               | event 3 |    free    |     (wanted since)
//! ```
//!
//! Offsets run on from block to block of a lane; between two, one is left out, so that frames on both sides are never taken
//! for adjacent. A frame that is longer than a block has one of its own length.
//!
//! What lies before the published head is never written again, what lies behind it belongs to the one writer: that is what the
//! `unsafe` here and in what calls it rests on. A reader finds a block by its offset among those of the lane, while the writer
//! may be adding one: `starts` says which are there. A reader's offset comes from a published entry, so the block that it is in
//! was added before the head that the reader has loaded, and its start is seen, though the load is relaxed. Whatever is added
//! later starts behind every published offset, so whether its start is seen or not, it isn't looked at. The protocol is checked
//! by `loom_model.rs`, with the blocks and without the bytes in them.
#![allow(unsafe_code)]

use super::{
    Position,
    sync::{Arc, AtomicU32, AtomicU64, Mutex, Ordering, UnsafeCell},
};
use crate::{
    lane::{LANES, LANES_MAX, Lane},
    publication::{Flags, Kind},
    topic::TopicId,
};

/// A byte that the writer fills while readers look at others.
type ByteCell = std::cell::UnsafeCell<u8>;

/// One publication in the index.
///
/// ```text
///   topic   seq     ts      origin  previous  ends in lane   opens kind flags
///  |. . . .|. . . .|. . . .|. . . .|. . . . .|0 |1 |2 |3 |4 |. . .   |
///  0       8       16      24      32        40             60      64
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its topic.
    pub topic: TopicId,
    /// Its number within the topic, from 1.
    pub seq: u64,
    /// When it was taken in, in microseconds since the Unix epoch.
    pub ts: u64,
    /// The connection that published it; 0 for none.
    pub origin: u64,
    /// The position after its topic's publication before it; 0 if there was none.
    pub previous: u64,
    /// Where each lane of the segment ends with it. Its frame begins where the entry before ends: nowhere, if that is here.
    pub(super) ends: [u32; LANES_MAX],
    /// One bit for each lane, lowest first: its frame is the first in a block, and begins one further.
    pub(super) opens: u8,
    /// What sort of payload it has. Text may be JSON where nobody had to know.
    pub kind: Kind,
    /// What else was said of it.
    #[allow(dead_code, reason = "only tests look at it yet: who keeps keyframes is still to come")]
    pub flags: Flags,
}

// A look at the index costs one cache line.
const _: () = assert!(size_of::<Entry>() == 64);

impl Entry {
    /// The one before the first of a segment.
    pub(super) const NONE: &'static Entry = &Entry::EMPTY;

    const EMPTY: Entry = Entry {
        topic: TopicId { slot: 0, generation: 0 },
        seq: 0,
        ts: 0,
        origin: 0,
        previous: 0,
        ends: [0; LANES_MAX],
        opens: 0,
        kind: Kind::Json,
        flags: Flags(0),
    };
}

/// How many blocks a segment has for each lane that is in it; a lane may have more of them than another.
///
/// More would leave less of the last one unused, and make more places where what is adjacent on the tape isn't in memory, and
/// has to be gathered.
pub(super) const BLOCKS: usize = 4;

/// The most blocks of one lane in a segment: all that there may be of all lanes.
const BLOCKS_MAX: usize = BLOCKS * LANES;

/// A frame of so many bytes for an entry: smaller publications fill a segment's index before its bytes.
const FRAME: usize = 128;

/// What a segment has when it is filled no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Publications.
    pub publications: u64,
    /// Its memory, in bytes.
    pub bytes: u64,
}

impl Whole {
    /// About what it will have where segments have `segment` bytes for a lane, of publications whose frames have so many bytes, all
    /// lanes together, in so many lanes.
    pub fn about(segment: usize, frames: f64, lanes: usize) -> Whole {
        let (entries, lanes, block) = (entries_max(segment), lanes.max(1) as f64, block_len(segment) as f64);
        let (blocks, index) = (BLOCKS as f64 * lanes, (entries * size_of::<Entry>()) as f64);
        // It ends when one lane asks for a block too many while the last blocks of the others are half full, or when its index is full.
        let filled = (blocks - (lanes - 1.0) / 2.0) * block;
        let publications = (filled / frames).floor().clamp(1.0, entries as f64);
        let taken = (publications * frames / lanes / block).ceil() * lanes;
        let bytes = index + (taken.min(blocks) * block).max(frames);
        Whole { publications: publications as u64, bytes: bytes as u64 }
    }
}

/// How many publications a tape of `retain` bytes holds at least, once it is full, of segments that have `segment` bytes for a lane and
/// come to `whole`, in so many lanes.
///
/// The oldest segment goes as a whole, when there is no room for what the newest takes: its index, or one more block.
///
/// ```text
///   [ whole ][ whole ][ whole ][ index, block, bl          the tape just before
///            [ whole ][ whole ][ index, block, block       and after: the last block is empty yet
/// ```
pub fn least(retain: usize, segment: usize, whole: Whole, lanes: usize) -> u64 {
    let (retain, lanes, index) =
        (retain as u64, lanes.max(1) as u64, (entries_max(segment) * size_of::<Entry>()) as u64);
    let frames = whole.bytes.saturating_sub(index);
    // Where a frame is longer than a block, it has one of its own.
    let blocks = frames.div_ceil(block_len(segment) as u64).min(whole.publications.saturating_mul(lanes)).max(1);
    let left = (0..=blocks).map(|taken| {
        let others = retain.saturating_sub(index + frames * taken / blocks) / whole.bytes.max(1);
        // The last block of each lane may be empty.
        others * whole.publications + whole.publications * taken.saturating_sub(lanes) / blocks
    });
    // The newest is always there.
    left.min().unwrap_or_default().max(1)
}

fn entries_max(segment: usize) -> usize {
    (segment / FRAME).max(2)
}

fn block_len(segment: usize) -> usize {
    segment.div_ceil(BLOCKS)
}

/// A piece of the tape. Shared by the writer, which appends, and readers, which see what was published.
pub(super) struct Segment {
    /// Position of the first entry.
    pub base: Position,
    /// Position after the last entry once the segment is closed; `u64::MAX` before.
    end: AtomicU64,
    entries: Box<[UnsafeCell<Entry>]>,
    lanes: [Blocks; LANES],
    pool: Arc<Pool>,
}

/// The blocks of one lane.
struct Blocks {
    /// At which offset each begins; [`NO_BLOCK`] as long as it isn't there.
    starts: [AtomicU32; BLOCKS_MAX],
    blocks: [UnsafeCell<Block>; BLOCKS_MAX],
}

type Block = Box<[ByteCell]>;

const NO_BLOCK: u32 = u32::MAX;

// SAFETY: the cells are written only by the one thread that holds the writer's lock, and only in places that are not
// yet published; readers look only at places that were published with Release before their Acquire load of the head.
// Safe code could share bytes that grow only behind a lock for readers as well, which costs them 20 ns a look and a
// wait behind every publisher.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    pub(super) fn new(base: Position, pool: &Arc<Pool>) -> Segment {
        Segment {
            base,
            end: AtomicU64::new(u64::MAX),
            entries: pool.take_entries(),
            lanes: std::array::from_fn(|_| Blocks::new()),
            pool: Arc::clone(pool),
        }
    }

    /// How many entries there is room for.
    #[inline]
    pub(super) fn entries_max(&self) -> usize {
        self.entries.len()
    }

    /// Memory of this segment, touched or not, in bytes. Asked by whoever holds the writer's lock.
    pub(super) fn footprint(&self) -> usize {
        std::mem::size_of_val(&*self.entries) + self.lanes.iter().map(Blocks::footprint).sum::<usize>()
    }

    /// Position after the last entry, or `u64::MAX` while the segment is open.
    pub(super) fn end(&self) -> u64 {
        // Relaxed: a reader that must see the end has loaded (Acquire) a head that was stored (Release) after it.
        self.end.load(Ordering::Relaxed)
    }

    /// Says where the segment ends. Called before the head moves past it.
    pub(super) fn close(&self, end: Position) {
        self.end.store(end.0, Ordering::Relaxed);
    }

    /// Adds the block with this number, of `len` bytes, to a lane, whose offsets go on in it at `start`.
    ///
    /// # Safety
    /// The caller is the only writer, `number` counts up from 0, and `start` is behind all offsets that were published.
    pub(super) unsafe fn open(&self, lane: Lane, number: usize, start: u32, len: usize) {
        let lane = &self.lanes[lane as usize];
        let block = self.pool.take_block(len);
        // SAFETY: the caller is alone with this cell, as readers look at blocks that have published bytes only.
        lane.blocks[number].with_mut(|cell| unsafe { *cell = block });
        // Relaxed: whoever needs it has loaded (Acquire) a head that was stored (Release) after it.
        lane.starts[number].store(start, Ordering::Relaxed);
    }

    /// Room for `len` bytes in the block with this number of `lane`, from byte `at` of the block on, to be filled by the writer.
    ///
    /// # Safety
    /// The caller is the only writer and has added the block, nothing from `at` on has been published, and the slice is given up
    /// before it is.
    #[expect(clippy::mut_from_ref, reason = "the writer's lock makes the caller the only one")]
    #[inline]
    pub(super) unsafe fn room(&self, lane: Lane, number: usize, at: usize, len: usize) -> &mut [u8] {
        // SAFETY: the writer added the block, and it stays as it is.
        let cells = self.lanes[lane as usize].blocks[number].with(|cell| unsafe { &(&*cell)[at..at + len] });
        // SAFETY: the caller is alone with these bytes, and they were initialised (zeroed) when allocated.
        unsafe { std::slice::from_raw_parts_mut(ByteCell::raw_get(cells.as_ptr()), len) }
    }

    /// Writes the index entry number `at`.
    ///
    /// # Safety
    /// The caller is the only writer, and entry `at` has not been published.
    pub(super) unsafe fn set_entry(&self, at: usize, entry: Entry) {
        // SAFETY: the caller is alone with this cell.
        self.entries[at].with_mut(|cell| unsafe { *cell = entry });
    }

    /// The index entry number `at`.
    ///
    /// # Safety
    /// The caller has loaded, with Acquire, a head beyond `base + at`.
    #[inline]
    pub(super) unsafe fn entry(&self, at: usize) -> &Entry {
        // SAFETY: published entries are never written again while the segment lives.
        self.entries[at].with(|cell| unsafe { &*cell })
    }

    /// The index entries from number `from` up to `to`.
    ///
    /// # Safety
    /// As [`Segment::entry`], of all of them.
    #[inline]
    pub(super) unsafe fn entries(&self, from: usize, to: usize) -> impl Iterator<Item = &Entry> {
        // SAFETY: published entries are never written again while the segment lives.
        self.entries[from..to].iter().map(|cell| cell.with(|cell| unsafe { &*cell }))
    }

    /// The index entry before number `at`.
    ///
    /// # Safety
    /// As [`Segment::entry`].
    #[inline]
    pub(super) unsafe fn entry_before(&self, at: usize) -> &Entry {
        match at.checked_sub(1) {
            // SAFETY: as the caller's: what was published has all before it published.
            Some(before) => unsafe { self.entry(before) },
            None => Entry::NONE,
        }
    }

    /// Bytes `start..start + len` of `lane`.
    ///
    /// # Safety
    /// The caller took `start` and `len` from entries that were published, in the sense of [`Segment::entry`], and that are
    /// adjacent.
    pub(super) unsafe fn bytes(&self, lane: Lane, start: u32, len: u32) -> &[u8] {
        let lane = &self.lanes[lane as usize];
        let number = lane.count_to(start) - 1;
        let at = (start - lane.starts[number].load(Ordering::Relaxed)) as usize;
        // SAFETY: the block has published bytes, so it stays as it is while the segment lives.
        let cells = lane.blocks[number].with(|cell| unsafe { &(&*cell)[at..at + len as usize] });
        // SAFETY: published bytes are never written again while the segment lives.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast::<u8>(), cells.len()) }
    }

    /// How many bytes `lane` has between two offsets that were published, where one entry ends and another.
    pub(super) fn bytes_between(&self, lane: Lane, start: u32, end: u32) -> u32 {
        let lane = &self.lanes[lane as usize];
        end - start - (lane.count_to(end) - lane.count_to(start)) as u32
    }
}

impl Blocks {
    fn new() -> Blocks {
        Blocks {
            starts: std::array::from_fn(|_| AtomicU32::new(NO_BLOCK)),
            blocks: std::array::from_fn(|_| UnsafeCell::new(Block::default())),
        }
    }

    /// How many blocks begin up to a published offset: the last of them is the one that it is in.
    fn count_to(&self, offset: u32) -> usize {
        // Relaxed: see the module's description.
        self.starts.iter().take_while(|start| start.load(Ordering::Relaxed) <= offset).count()
    }

    fn footprint(&self) -> usize {
        let there = self.starts.iter().take_while(|start| start.load(Ordering::Relaxed) != NO_BLOCK);
        // SAFETY: whoever asks holds the writer's lock, so no block is being added.
        there.zip(&self.blocks).map(|(_, block)| block.with(|cell| unsafe { &*cell }.len())).sum()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.pool.put_entries(std::mem::take(&mut self.entries));
        for lane in &self.lanes {
            for block in &lane.blocks {
                // SAFETY: nobody else has the segment any more.
                self.pool.put_block(block.with_mut(|cell| std::mem::take(unsafe { &mut *cell })));
            }
        }
    }
}

/// Buffers of dropped segments, to be used again: fresh memory costs a page fault for every 4 KiB.
///
/// Holds at most what [`POOLED_MAX`] segments have; a reader may drop a segment, so it has a lock of its own.
pub(super) struct Pool {
    entries_len: usize,
    block_len: usize,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    entries: Vec<Box<[UnsafeCell<Entry>]>>,
    blocks: Vec<Block>,
}

/// Enough for the segments that come free while one is filled; more would be memory beyond `--retain`.
const POOLED_MAX: usize = 2;

// SAFETY: pooled buffers are owned by the pool alone; nobody reads or writes them until they are taken out.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    /// A pool for segments that have `segment` bytes for a lane.
    pub(super) fn new(segment: usize) -> Pool {
        Pool { entries_len: entries_max(segment), block_len: block_len(segment), free: Mutex::default() }
    }

    /// How long a block is, unless it is for one frame that is longer.
    pub(super) fn block_len(&self) -> usize {
        self.block_len
    }

    fn take_entries(&self) -> Box<[UnsafeCell<Entry>]> {
        let pooled = self.free.lock().entries.pop();
        pooled.unwrap_or_else(|| (0..self.entries_len).map(|_| UnsafeCell::new(Entry::EMPTY)).collect())
    }

    fn take_block(&self, len: usize) -> Block {
        if len == self.block_len
            && let Some(block) = self.free.lock().blocks.pop()
        {
            return block;
        }
        let zeroed = Box::into_raw(vec![0u8; len].into_boxed_slice());
        // SAFETY: UnsafeCell<u8> has the same layout as u8. Building the cells one by one would touch every page of
        // memory that may never be used; this way the zeroes are the kernel's.
        unsafe { Box::from_raw(zeroed as *mut [ByteCell]) }
    }

    fn put_entries(&self, entries: Box<[UnsafeCell<Entry>]>) {
        let mut free = self.free.lock();
        if free.entries.len() < POOLED_MAX {
            free.entries.push(entries);
        }
    }

    fn put_block(&self, block: Block) {
        if block.len() != self.block_len {
            return;
        }
        let mut free = self.free.lock();
        if free.blocks.len() < POOLED_MAX * BLOCKS_MAX {
            free.blocks.push(block);
        }
    }
}
