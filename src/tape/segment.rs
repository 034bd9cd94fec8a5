//! One piece of the tape: fixed room for index entries and for each lane's bytes.
//!
//! ```text
//!   entries   | e0 | e1 | e2 | e3 |      free      |
//!                |    |    |    `---------------.
//!   json      | frame 0 | frame 1 | frame 2 | frame 3 |   free    |
//!   raw       | f0 | f1 | f2 | f3 |        free                   |
//!   events    | event 0 | event 1 | event 2 | event 3 |   free    |
//! ```
//!
//! All the `unsafe` of the tape is here and in what calls it with a promise (`writer.rs`): what lies before the published head is
//! never written again, what lies behind it belongs to the one writer. The protocol is checked by `loom_model.rs`.
#![allow(unsafe_code)]

use super::{
    Position,
    sync::{Arc, AtomicU64, Mutex, Ordering, UnsafeCell},
};
use crate::{
    lane::{LANES, Lane},
    topic::TopicId,
};

/// A byte that the writer fills while readers look at others.
type ByteCell = std::cell::UnsafeCell<u8>;

/// One publication in the index.
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
    /// Where its frame starts in each lane of the segment.
    pub start: [u32; LANES],
    /// How long its frame is in each lane; 0 where the lane had no subscribers.
    pub len: [u32; LANES],
}

// A look at the index costs one cache line.
const _: () = assert!(size_of::<Entry>() == 64);

impl Entry {
    const EMPTY: Entry = Entry {
        topic: TopicId { slot: 0, generation: 0 },
        seq: 0,
        ts: 0,
        origin: 0,
        previous: 0,
        start: [0; LANES],
        len: [0; LANES],
    };
}

/// A piece of the tape. Shared by the writer, which appends, and readers, which see what was published.
pub(super) struct Segment {
    /// Position of the first entry.
    pub base: Position,
    /// Position after the last entry once the segment is closed; `u64::MAX` before.
    end: AtomicU64,
    entries: Box<[UnsafeCell<Entry>]>,
    lanes: [Bytes; LANES],
    pool: Arc<Pool>,
}

// SAFETY: the cells are written only by the one thread that holds the writer's lock, and only in places that are not
// yet published; readers look only at places that were published with Release before their Acquire load of the head.
// Safe code could share bytes that grow only behind a lock for readers as well, which costs them 20 ns a look and a
// wait behind every publisher.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    pub(super) fn new(base: Position, room: [usize; LANES], pool: &Arc<Pool>) -> Segment {
        Segment {
            base,
            end: AtomicU64::new(u64::MAX),
            entries: pool.take_entries(),
            lanes: room.map(|room| Bytes(pool.take_bytes(room))),
            pool: Arc::clone(pool),
        }
    }

    /// How many entries there is room for.
    pub(super) fn entries_max(&self) -> usize {
        self.entries.len()
    }

    /// How many bytes there is room for in `lane`.
    pub(super) fn lane_max(&self, lane: usize) -> usize {
        self.lanes[lane].0.len()
    }

    /// Memory of this segment, touched or not, in bytes.
    pub(super) fn footprint(&self) -> usize {
        std::mem::size_of_val(&*self.entries) + self.lanes.iter().map(|lane| lane.0.len()).sum::<usize>()
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

    /// Room for `len` bytes at `at` of `lane`, to be filled by the writer.
    ///
    /// # Safety
    /// The caller is the only writer, nothing from `at` on has been published, and the slice is given up before it is.
    #[expect(clippy::mut_from_ref, reason = "the writer's lock makes the caller the only one")]
    pub(super) unsafe fn room(&self, lane: usize, at: usize, len: usize) -> &mut [u8] {
        let cells = &self.lanes[lane].0[at..at + len];
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
    pub(super) unsafe fn entry(&self, at: usize) -> Entry {
        // SAFETY: published entries are never written again.
        self.entries[at].with(|cell| unsafe { *cell })
    }

    /// Bytes `start..start + len` of `lane`.
    ///
    /// # Safety
    /// The caller took `start` and `len` from entries that were published, in the sense of [`Segment::entry`].
    pub(super) unsafe fn bytes(&self, lane: Lane, start: usize, len: usize) -> &[u8] {
        let cells = &self.lanes[lane as usize].0[start..start + len];
        // SAFETY: published bytes are never written again while the segment lives.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast::<u8>(), len) }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.pool.put_entries(std::mem::take(&mut self.entries));
        for lane in &mut self.lanes {
            self.pool.put_bytes(std::mem::take(&mut lane.0));
        }
    }
}

struct Bytes(Box<[ByteCell]>);

/// Buffers of dropped segments, to be used again: fresh memory costs a page fault for every 4 KiB.
///
/// Holds at most [`POOLED_MAX`] of each sort; a reader may drop a segment, so it has a lock of its own.
pub(super) struct Pool {
    entries_len: usize,
    bytes_len: usize,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    entries: Vec<Box<[UnsafeCell<Entry>]>>,
    bytes: Vec<Box<[ByteCell]>>,
}

/// Enough for the segments that come free while one is filled; more would be memory beyond `--retain`.
const POOLED_MAX: usize = 2;

// SAFETY: pooled buffers are owned by the pool alone; nobody reads or writes them until they are taken out.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    pub(super) fn new(entries_len: usize, bytes_len: usize) -> Pool {
        Pool { entries_len, bytes_len, free: Mutex::default() }
    }

    fn take_entries(&self) -> Box<[UnsafeCell<Entry>]> {
        let pooled = self.free.lock().entries.pop();
        pooled.unwrap_or_else(|| (0..self.entries_len).map(|_| UnsafeCell::new(Entry::EMPTY)).collect())
    }

    fn take_bytes(&self, len: usize) -> Box<[ByteCell]> {
        if len == self.bytes_len
            && let Some(bytes) = self.free.lock().bytes.pop()
        {
            return bytes;
        }
        let zeroed = Box::into_raw(vec![0u8; len].into_boxed_slice());
        // SAFETY: UnsafeCell<u8> has the same layout as u8. Building the cells one by one would touch every page of
        // memory that may never be used; this way the zeroes are the kernel's.
        unsafe { Box::from_raw(zeroed as *mut [ByteCell]) }
    }

    fn put_entries(&self, entries: Box<[UnsafeCell<Entry>]>) {
        let mut free = self.free.lock();
        if entries.len() == self.entries_len && free.entries.len() < POOLED_MAX {
            free.entries.push(entries);
        }
    }

    fn put_bytes(&self, bytes: Box<[ByteCell]>) {
        let mut free = self.free.lock();
        if bytes.len() == self.bytes_len && free.bytes.len() < POOLED_MAX * LANES {
            free.bytes.push(bytes);
        }
    }
}
