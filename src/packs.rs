//! Compressed frames: each publication compressed once in each lane, for whoever wants it so, whenever.
//!
//! Compressing is dearer than anything else that is done for a publication (some microseconds, where putting it on the tape takes one
//! tenth of one), so it is not done under the publishers' lock, nor before somebody is to be sent it. The first worker
//! that plans a publication for subscribers who have agreed on permessage-deflate compresses the frame that is on the tape, and leaves
//! it here, beside the tape; every other finds it, and so does whoever comes to the publication later: behind, at a rate, or resuming.
//!
//! ```text
//!   tape, lane json   | frame 0 | frame 1 | frame 2 |  …  | frame 64 | frame 65 |
//!   page 0            | packed  |   as it is   |  …  |       on a page each publication has a place, filled once
//!   page 1                                                   | packed   |          |
//! ```
//!
//! **It is a lane whose bytes are made late, and not one on the tape.** The tape says where a frame ends before anybody has compressed it, so
//! compressed frames can't stand in its blocks, which are never written again once they are published. Of the other
//! ways this is the simplest: nothing of the tape changes, nor of what is written under its lock; and since a frame is compressed in
//! the same way by whoever does it ([`Deflater::frame`]), what is kept here is a cache, and may be let go at any
//! time. Members of one cohort are sent bytes that lie together on the tape without copying; compressed frames are gathered, once
//! for all members that stand at one place, at 10 to 30 ns a frame beside the microseconds of a send. Where a plan needs the length of
//! what it plans, it is compressed then: the cost is that of the step that plans ([`Packer::take_cost`]). What was let go before it was sent
//! goes as it is, so that sending to those at the head never compresses.
//!
//! - **Bounds.** A frame takes no more than it has on the tape. All of them take `--compression-memory` at most; beyond it the oldest
//!   pages are let go, and those that the tape has rolled over anyway. A page that a worker has in hand may live on for as long
//!   as it looks at it: one for each lane.
//! - **Waiting.** A page has a lock, held by whoever compresses a frame for it. Another worker that wants one of the same page that isn't
//!   there yet waits for that long, which is bounded by [`COMPRESSED_MAX`](crate::websocket::deflate::COMPRESSED_MAX), rather than
//!   doing the same work beside it.
//! - **What one client can make others pay.** It can ask for old publications to be compressed that nobody else wants. That is work of
//!   the step in which it is sent them, as the copying is. What is old is let go first, so it costs nobody else a frame at the head.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{
    lane::{LANES, Lane},
    metrics::Tally,
    stream::{StreamCounts, StreamSettings, streams::Streams},
    tape::{Position, Published, Reader, Run, Tape},
    websocket::deflate::{COMPRESSED_MAX, Deflater},
};

/// What a subscriber may be sent, by what it has agreed on and what the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Everything as it is on the tape.
    Clear,
    /// Publications that were compressed by themselves, where that makes them shorter.
    Once,
    /// The same, and those of a stream that its cohort shares ([`crate::stream`]).
    Shared,
}

/// How somebody is sent publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub lane: Lane,
    /// Compressed, where that makes a frame shorter.
    pub packed: bool,
}

impl From<Lane> for Form {
    /// As they are on the tape.
    fn from(lane: Lane) -> Form {
        Form { lane, packed: false }
    }
}

/// What compressing is done with.
#[derive(Clone, Copy, Debug)]
pub struct PackSettings {
    /// From 1 to 9.
    pub level: u8,
    /// A frame of fewer bytes stays as it is.
    pub least: usize,
    /// Memory for compressed frames, in bytes.
    pub memory: usize,
}

/// Publications that have places on a page. (Few in tests, where there are few.)
const PAGE: u64 = if cfg!(any(test, fuzzing)) { 8 } else { 64 };

/// Pages that are let go at a time: more than begin at a time, so that they become no more; and few enough to be freed in some microseconds.
const LET_GO_MOST: usize = 8;

/// What compressing costs, in the units of a worker's work, of ten nanoseconds: a frame, whatever is in it, since a window is cleared for
/// it; and sixty-four bytes of it, by levels. (Measured with quotes of some 340 bytes, and larger.)
const FRAME_COST: u64 = 150;
const LINE_COST: [u64; 10] = [0, 15, 30, 50, 60, 80, 100, 110, 130, 130];

/// A look at a page, and one that isn't the last that was looked at.
const LOOK_COST: u64 = 2;
const PAGE_COST: u64 = 20;

/// All compressed frames that there are. See the module's description.
pub struct Packs {
    tape: Tape,
    settings: PackSettings,
    pub streams: StreamSettings,
    pages: Mutex<BTreeMap<Key, Arc<Page>>>,
    /// Memory of the pages, in bytes.
    held: AtomicUsize,
    pub counts: Counts,
    pub stream_counts: StreamCounts,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Counts {
    /// Frames that were compressed.
    pub frames: Tally,
    /// Frames that were to be compressed, and got no shorter.
    pub refused: Tally,
    /// Bytes of the frames that were compressed, and what they came to.
    pub bytes_in: Tally,
    pub bytes_out: Tally,
    /// Frames that were let go for want of room, before the tape did.
    pub evicted: Tally,
}

/// A page by its number, and the lane's.
type Key = (u64, usize);

struct Page {
    frames: [OnceLock<Option<Box<[u8]>>>; PAGE as usize],
    filling: Mutex<Filling>,
}

/// What is known of a page by whoever has its lock.
#[derive(Default)]
struct Filling {
    /// Memory of its frames, in bytes.
    bytes: usize,
    frames: u64,
    /// It was let go: nobody else will find it.
    gone: bool,
}

impl Packs {
    /// None yet, of publications on `tape`, and without streams.
    #[cfg(any(test, fuzzing))]
    pub fn new(tape: Tape, settings: PackSettings) -> Arc<Packs> {
        Packs::with_streams(tape, settings, StreamSettings::default())
    }

    /// None yet, of publications on `tape`, beside streams that are made so.
    pub fn with_streams(tape: Tape, settings: PackSettings, streams: StreamSettings) -> Arc<Packs> {
        let (pages, held, counts, stream_counts) = Default::default();
        Arc::new(Packs { tape, settings, streams, pages, held, counts, stream_counts })
    }

    /// Memory that they take, in bytes.
    pub fn held(&self) -> usize {
        // Relaxed: a figure.
        self.held.load(Ordering::Relaxed)
    }

    /// Lets go of what the tape has rolled over, of some pages at a time.
    pub fn let_go(&self) {
        let tail = self.tape.tail().0;
        for _ in 0..LET_GO_MOST {
            let oldest = {
                let mut pages = self.pages.lock();
                let oldest = pages.first_entry().filter(|oldest| (oldest.key().0 + 1) * PAGE <= tail);
                oldest.map(|oldest| oldest.remove())
            };
            // Whoever compresses for it is not waited for by those who look for others.
            let Some(page) = oldest else { return };
            self.forget(&page);
        }
    }

    /// The page with this key.
    fn page(&self, key: Key) -> Arc<Page> {
        if let Some(page) = self.pages.lock().get(&key) {
            return Arc::clone(page);
        }
        self.let_go();
        let page = Arc::clone(self.pages.lock().entry(key).or_insert_with(|| {
            self.held.fetch_add(size_of::<Page>(), Ordering::Relaxed);
            Arc::default()
        }));
        self.keep_within();
        page
    }

    /// Lets go of the oldest pages until all take no more than they may.
    fn keep_within(&self) {
        while self.held() > self.settings.memory {
            let Some((_, page)) = self.pages.lock().pop_first() else { return };
            self.counts.evicted.add(self.forget(&page));
        }
    }

    /// Notes that a page is among them no more. Returns how many frames were on it.
    fn forget(&self, page: &Page) -> u64 {
        let mut filling = page.filling.lock();
        filling.gone = true;
        self.held.fetch_sub(size_of::<Page>() + filling.bytes, Ordering::Relaxed);
        filling.frames
    }
}

impl Default for Page {
    fn default() -> Page {
        Page { frames: [const { OnceLock::new() }; PAGE as usize], filling: Mutex::default() }
    }
}

/// One worker's way to them, with what it compresses with.
pub struct Packer {
    packs: Arc<Packs>,
    /// There while something is compressed: some 300 KiB.
    deflater: Option<Deflater>,
    /// Of each lane, the page that was looked at last.
    near: [Option<(u64, Arc<Page>)>; LANES],
    cost: u64,
    saved: u64,
    pub streams: Streams,
}

impl Packer {
    /// Of the only worker.
    #[cfg(any(test, fuzzing))]
    pub fn new(packs: Arc<Packs>) -> Packer {
        Packer::with_streams(packs, usize::MAX)
    }

    /// Of a worker that may have so many of the server's streams.
    pub fn with_streams(packs: Arc<Packs>, most: usize) -> Packer {
        let streams = Streams::new(most.min(packs.streams.most));
        Packer { packs, deflater: None, near: [const { None }; LANES], cost: 0, saved: 0, streams }
    }

    /// Something else has cost so much.
    pub fn charge(&mut self, cost: u64) {
        self.cost += cost;
    }

    /// The compressed frame of the publication at `at`, whose frame on the tape is `clear`; none if that is sent as it is.
    #[inline]
    pub fn packed(&mut self, lane: Lane, at: Position, clear: &[u8]) -> Option<&[u8]> {
        if !self.may_pack(clear) {
            return None;
        }
        self.look(lane, at, clear)
    }

    /// Whether a frame may be compressed by itself.
    #[inline]
    fn may_pack(&self, clear: &[u8]) -> bool {
        (self.packs.settings.least..=COMPRESSED_MAX).contains(&clear.len())
    }

    /// What compressing the publication at `at` came to, if somebody has done that already and it is still there: as [`Packer::packed`].
    fn made(&mut self, lane: Lane, at: Position) -> Option<Option<&[u8]>> {
        let Packer { packs, near, cost, .. } = self;
        let (number, place) = (at.0 / PAGE, (at.0 % PAGE) as usize);
        *cost += LOOK_COST;
        let near = &mut near[lane as usize];
        if near.as_ref().is_none_or(|(other, _)| *other != number) {
            *cost += PAGE_COST;
            *near = Some((number, packs.pages.lock().get(&(number, lane as usize)).cloned()?));
        }
        near.as_ref()?.1.frames[place].get().map(Option::as_deref)
    }

    fn look(&mut self, lane: Lane, at: Position, clear: &[u8]) -> Option<&[u8]> {
        let Packer { packs, deflater, near, cost, .. } = self;
        let (number, place) = (at.0 / PAGE, (at.0 % PAGE) as usize);
        *cost += LOOK_COST;
        let near = &mut near[lane as usize];
        if near.as_ref().is_none_or(|(other, _)| *other != number) {
            *cost += PAGE_COST;
            *near = Some((number, packs.page((number, lane as usize))));
        }
        let (_, page) = near.as_mut()?;
        if page.frames[place].get().is_none() {
            let is_filled = fill(packs, page, place, deflater, (clear, false), cost);
            if !is_filled {
                // It was let go. Others are to find what is compressed now, unless there is no room at all.
                *page = packs.page((number, lane as usize));
                fill(packs, page, place, deflater, (clear, true), cost);
            }
        }
        page.frames[place].get()?.as_deref()
    }

    /// What looking and compressing has cost since that was last asked, in the units of a worker's work.
    #[inline]
    pub fn take_cost(&mut self) -> u64 {
        std::mem::take(&mut self.cost)
    }

    /// Notes that so many bytes fewer were gathered to be sent than there are on the tape.
    #[inline]
    pub fn note_saved(&mut self, bytes: usize) {
        self.saved += bytes as u64;
    }

    /// How many that were since it was last asked: what whoever has gathered them saves at each send.
    #[inline]
    pub fn take_saved(&mut self) -> u64 {
        std::mem::take(&mut self.saved)
    }

    /// What it has cost so far.
    #[inline]
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Lets go of the pages that were looked at last, and of what was needed once. With it goes what the tape has rolled over.
    pub fn give_back(&mut self) {
        if self.near.iter_mut().filter_map(Option::take).count() > 0 {
            self.packs.let_go();
            if let Some(deflater) = &mut self.deflater {
                deflater.give_back();
            }
        } else {
            self.deflater = None;
        }
    }

    /// All compressed frames, and how streams are made.
    pub fn packs(&self) -> &Arc<Packs> {
        &self.packs
    }
}

/// Compresses a frame for its place, unless somebody else has done it meanwhile. Returns false if it did not, because the page is gone and it
/// has not to.
#[cold]
fn fill(
    packs: &Packs,
    page: &Page,
    place: usize,
    deflater: &mut Option<Deflater>,
    (clear, has_to): (&[u8], bool),
    cost: &mut u64,
) -> bool {
    let mut filling = page.filling.lock();
    if page.frames[place].get().is_some() {
        return true;
    }
    if filling.gone && !has_to {
        return false;
    }
    let level = packs.settings.level;
    let packed = deflater.get_or_insert_with(|| Deflater::new(level)).frame(clear);
    *cost += FRAME_COST + LINE_COST[usize::from(level.min(9))] * (clear.len() as u64).div_ceil(64);
    match &packed {
        None => packs.counts.refused.bump(),
        Some(packed) => {
            packs.counts.frames.bump();
            packs.counts.bytes_in.add(clear.len() as u64);
            packs.counts.bytes_out.add(packed.len() as u64);
            if !filling.gone {
                filling.bytes += packed.len();
                filling.frames += 1;
                packs.held.fetch_add(packed.len(), Ordering::Relaxed);
            }
        }
    }
    page.frames[place].set(packed).expect("whoever fills a place has the lock");
    drop(filling);
    packs.keep_within();
    true
}

/// The frames of the publications that a reader sees, in whatever form.
///
/// In the lane's own form a [`Run`] is a piece of the tape, and adjacent ones are merged. Of what is compressed, it is a publication's
/// frame: then `base` is the publication's own position, and no two are ever adjacent.
pub struct Frames<'r> {
    pub reader: &'r Reader,
    pub packer: &'r mut Packer,
}

impl Frames<'_> {
    /// A publication's frame, which it has in that lane.
    #[inline]
    pub fn run(&mut self, form: Form, entry: &Published<'_>) -> Run {
        let clear = entry.run(form.lane);
        if !form.packed {
            return clear;
        }
        self.packed_run(form.lane, entry.position, clear)
    }

    fn packed_run(&mut self, lane: Lane, at: Position, clear: Run) -> Run {
        let frame = self.reader.bytes(lane, clear);
        let len = self.packer.packed(lane, at, frame).map_or(frame.len(), <[u8]>::len);
        Run { base: at, start: 0, len: len as u32 }
    }

    /// Appends a publication's frame, which it has in that lane.
    pub fn push(&mut self, form: Form, entry: &Published<'_>, out: &mut Vec<u8>) {
        let frame = self.reader.bytes(form.lane, entry.run(form.lane));
        let packed = if form.packed { self.packer.packed(form.lane, entry.position, frame) } else { None };
        let sent = packed.unwrap_or(frame);
        out.extend_from_slice(sent);
        let saved = frame.len() - sent.len();
        self.packer.note_saved(saved);
    }

    /// Whether a publication's frame, which it has in that lane, may be compressed by itself; else it goes as it is, whatever the form.
    pub fn may_pack(&self, lane: Lane, entry: &Published<'_>) -> bool {
        self.packer.may_pack(self.reader.bytes(lane, entry.run(lane)))
    }

    /// Appends a publication's frame, which it has in that lane: compressed only if that was done already. Returns whether it is what
    /// [`Frames::push`] would have appended.
    pub fn push_made(&mut self, form: Form, entry: &Published<'_>, out: &mut Vec<u8>) -> bool {
        let clear = self.reader.bytes(form.lane, entry.run(form.lane));
        if !form.packed || !self.packer.may_pack(clear) {
            out.extend_from_slice(clear);
            return true;
        }
        let made = self.packer.made(form.lane, entry.position);
        out.extend_from_slice(made.flatten().unwrap_or(clear));
        made.is_some()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        protocol::Payload,
        publish::{By, Door},
        tape::{About, TapeSettings},
    };

    const JSON: Form = Form { lane: Lane::Json, packed: true };

    struct World {
        tape: Tape,
        door: Door,
        reader: Reader,
        packer: Packer,
    }

    impl World {
        fn new(memory: usize) -> World {
            World::with(memory, 1 << 20)
        }

        fn with(memory: usize, retain: usize) -> World {
            let settings = TapeSettings {
                retain,
                segment: 16 << 10,
                message_max: 4096,
                topics_max: 10,
                value_bytes_max: 10_000,
                epoch: 1,
            };
            let tape = Tape::new(settings);
            tape.want(Lane::Json);
            let packs = Packs::new(tape.clone(), PackSettings { level: 6, least: 100, memory });
            let (reader, packer) = (Reader::new(tape.clone()), Packer::new(packs));
            World { door: Door::new(tape.clone(), 128), tape, reader, packer }
        }

        fn publish(&self, len: usize) {
            let value = format!("\"{}\"", "quote ".repeat(len / 6));
            let payload = Payload::Json(value.as_bytes());
            self.door.publish(By::SERVER, "q", payload, About::default()).unwrap();
        }

        /// The frames from `from` on, as they are gathered.
        fn gathered(&mut self, from: u64) -> Vec<u8> {
            let head = self.reader.refresh();
            let mut frames = Frames { reader: &self.reader, packer: &mut self.packer };
            let (reader, mut bytes) = (frames.reader, Vec::new());
            reader.scan(Position(from), head, |entry| {
                let start = bytes.len();
                frames.push(JSON, entry, &mut bytes);
                assert_eq!(bytes.len() - start, frames.run(JSON, entry).len as usize);
                true
            });
            bytes
        }

        /// What the pages of the store take, counted anew.
        fn counted(&self) -> usize {
            let of_page = |page: &Arc<Page>| -> usize {
                page.frames.iter().filter_map(|frame| frame.get()?.as_ref()).map(|frame| frame.len()).sum()
            };
            self.packer.packs.pages.lock().values().map(|page| size_of::<Page>() + of_page(page)).sum()
        }
    }

    #[test]
    fn a_publication_is_compressed_once_for_all_workers_and_small_ones_never() {
        let mut world = World::new(1 << 20);
        (0..40).for_each(|n| world.publish(if n % 4 == 0 { 6 } else { 300 }));
        let first = world.gathered(0);
        let packs = Arc::clone(world.packer.packs());
        assert_eq!((packs.counts.frames.get(), packs.counts.refused.get()), (30, 0));
        assert!(packs.counts.bytes_out.get() < packs.counts.bytes_in.get() / 2);
        let cost = world.packer.take_cost();
        assert!(cost > 30 * FRAME_COST, "{cost}");
        world.packer = Packer::new(Arc::clone(&packs));
        assert!(world.gathered(0) == first);
        assert_eq!(packs.counts.frames.get(), 30, "another worker finds them");
        assert!(world.packer.take_cost() < 40 * 2 * LOOK_COST + 10 * PAGE_COST);
        assert_eq!(packs.held(), world.counted());
    }

    #[test]
    fn the_oldest_are_let_go_beyond_the_bound_and_are_the_same_when_they_are_made_again() {
        let (mut wide, mut narrow) = (World::new(1 << 20), World::new(2 * size_of::<Page>() + 100));
        for world in [&wide, &narrow] {
            (0..60).for_each(|n| world.publish(100 + n * 10));
        }
        // Times of publication are none, so both tapes have the same on them.
        let (all, again) = (wide.gathered(0), narrow.gathered(0));
        assert!(all == again && narrow.gathered(0) == all);
        let packs = narrow.packer.packs();
        assert!(packs.held() <= 2 * size_of::<Page>() + 100, "{}", packs.held());
        let (evicted, frames) = (packs.counts.evicted.get(), packs.counts.frames.get());
        assert!(evicted > 30 && frames > 60, "{evicted} of {frames}");
        assert_eq!(packs.held(), narrow.counted());
        assert_eq!(wide.packer.packs().counts.evicted.get(), 0);
        // So little that nothing stays.
        let mut none = World::new(0);
        (0..60).for_each(|n| none.publish(100 + n * 10));
        assert!(none.gathered(0) == all);
        assert_eq!((none.packer.packs().held(), none.counted()), (0, 0));
    }

    #[test]
    fn what_the_tape_has_rolled_over_is_let_go() {
        let mut world = World::with(1 << 20, 64 << 10);
        for _ in 0..20 {
            (0..20).for_each(|_| world.publish(1000));
            let from = world.reader.refresh().0 - 20;
            world.gathered(from);
        }
        let tail = world.tape.tail().0;
        assert!(tail > 0);
        world.packer.packs().let_go();
        let oldest = world.packer.packs().pages.lock().keys().next().map(|key| key.0);
        assert_eq!(oldest, Some(tail / PAGE));
        assert_eq!(world.packer.packs().held(), world.counted());
        assert_eq!(world.packer.packs().counts.evicted.get(), 0);
    }

    #[test]
    fn workers_that_want_the_same_at_once_compress_it_once() {
        let mut world = World::new(1 << 20);
        (0..200).for_each(|n| world.publish(200 + n));
        let alone = world.gathered(0);
        let packs = Packs::new(world.tape.clone(), PackSettings { level: 6, least: 100, memory: 1 << 20 });
        std::thread::scope(|scope| {
            let read = |_| {
                let mut own = World {
                    tape: world.tape.clone(),
                    door: Door::new(world.tape.clone(), 128),
                    reader: Reader::new(world.tape.clone()),
                    packer: Packer::new(Arc::clone(&packs)),
                };
                scope.spawn(move || own.gathered(0))
            };
            let threads: Vec<_> = (0..4).map(read).collect();
            for thread in threads {
                assert!(thread.join().unwrap() == alone);
            }
        });
        assert_eq!(packs.counts.frames.get(), 200);
    }
}
