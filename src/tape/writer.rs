//! The writing end: numbering and placing, under one short lock.
#![allow(unsafe_code)]

use std::sync::atomic::AtomicU8;

use crossbeam_utils::CachePadded;

use super::{
    Position,
    segment::{Entry, Whole},
    store::Store,
    sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering, lock_soon},
};
use crate::{
    lane::{Cursors, Draft, LANES, Lane, Numbered, Wanted},
    limits::{Account, Place},
    publication::Flags,
    topic::{Registry, RegistryFull, Topic},
};

/// What the tape is made with; sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub struct TapeSettings {
    /// Memory for all segments together.
    pub retain: usize,
    /// Room in one segment for the frames of each lane that is in it; a lane may take more of it than another.
    pub segment: usize,
    /// Largest payload, where a [`Door`](crate::publish::Door) doesn't say otherwise.
    pub message_max: usize,
    /// Most topics.
    pub topics_max: usize,
    /// Most bytes of last values.
    pub value_bytes_max: usize,
    /// The first topics' epoch.
    pub epoch: u64,
}

/// Topics that are forgotten under one hold of the lock: each changes three tables, and a microsecond is gone.
const FORGOTTEN_AT_ONCE: usize = 32;

/// The tape, shared by everybody who publishes or reads.
#[derive(Clone)]
pub struct Tape(pub(super) Arc<Shared>);

pub(super) struct Shared {
    // Written by every publication, read by every worker's turn: a cache line of its own.
    pub(super) head: CachePadded<AtomicU64>,
    pub(super) tail: AtomicU64,
    /// Bytes written up to the head, ever. (The standard library's, as below.)
    written: std::sync::atomic::AtomicU64,
    /// The lanes that are wanted. It changes under the lock, and is looked at without it by those who make publications ready,
    /// and then again: whatever they see, nothing goes wrong. So it is the standard library's also under the model checker.
    wanted: AtomicU8,
    pub(super) writer: Mutex<Writer>,
    settings: TapeSettings,
    words: Cursors,
}

/// What the writer's lock guards. Under it is done, and nothing else:
///
/// - for a publication ([`Appender::append`]): its topic is looked up by its name, and made if there is none, which checks the
///   name; it gets its number; room is found, which may take a block or a segment and let old ones go; its frames are copied
///   into it, and the payload to the last value. That is bounded by `--max-message`, of what is replayed by
///   `--max-replay-message`, once for each lane. Nothing is escaped,
///   coded or looked through, unless a lane began to be wanted since that was done ([`Draft::prepare`]);
/// - a lane begins or ceases to be wanted, a reader fetches the segments that it doesn't know: a count, a list of pointers;
/// - somebody looks at topics ([`Tape::with_topics`], [`Tape::with_changed`]), some hundred at a time, and takes along what he
///   needs of them: what it means is found out afterwards. Some are forgotten, some dozen at a time, and freed afterwards.
///
/// No table moves as a whole to grow, and nothing large is freed. So nobody holds it for longer than some 50 microseconds, and
/// tests count what is looked at.
pub(super) struct Writer {
    pub(super) registry: Registry,
    pub(super) store: Store,
    /// The next publication's position; the head, once it is published.
    next: u64,
    /// Bytes ever written: frames and index entries.
    written: u64,
    /// How many subscribers each lane has, in units that only [`Tape::want`] knows.
    wanted: [u32; LANES],
    values_dropped: u64,
}

/// Where a publication ended up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its number on the tape.
    pub position: Position,
    /// Its number within its topic.
    pub seq: u64,
    /// When it was taken in, in microseconds since the Unix epoch.
    pub ts: u64,
}

/// What is said of a publication beside its payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct About {
    /// When it was taken in, in microseconds since the Unix epoch.
    pub ts: u64,
    /// The connection that publishes it; 0 for none.
    pub origin: u64,
    /// What else there is to say.
    pub flags: Flags,
}

/// What of the tape's state the metrics show.
#[derive(Clone, Copy, Debug, Default)]
pub struct TapeStatus {
    /// Publications so far.
    pub publications: u64,
    /// Publications still held.
    pub retained: u64,
    /// Memory of the segments held, in bytes.
    pub bytes: usize,
    /// Segments held.
    pub segments: usize,
    /// The newest segment that is filled no further; none before there is one.
    pub whole: Option<Whole>,
    /// When the oldest publication held was taken in, in microseconds since the Unix epoch; 0 if there is none.
    pub oldest_ts: u64,
    /// Topics.
    pub topics: usize,
    /// Bytes that last values take.
    pub value_bytes: usize,
    /// Publications whose value was not kept for want of room.
    pub values_dropped: u64,
}

impl Tape {
    /// An empty tape.
    pub fn new(settings: TapeSettings) -> Tape {
        let registry = Registry::new(settings.topics_max, settings.value_bytes_max, settings.epoch);
        Tape(Arc::new(Shared {
            head: CachePadded::new(AtomicU64::new(0)),
            tail: AtomicU64::new(0),
            written: std::sync::atomic::AtomicU64::new(0),
            wanted: AtomicU8::new(0),
            writer: Mutex::new(Writer {
                registry,
                store: Store::new(settings.segment, settings.retain),
                next: 0,
                written: 0,
                wanted: [0; LANES],
                values_dropped: 0,
            }),
            settings,
            words: Cursors::random(),
        }))
    }

    /// What its cursors are made with. No other tape has the same.
    pub fn words(&self) -> &Cursors {
        &self.0.words
    }

    /// The position of the next publication.
    pub fn head(&self) -> Position {
        // Acquire: pairs with the Release in `Appender::drop`.
        Position(self.0.head.load(Ordering::Acquire))
    }

    /// The position of the oldest publication held.
    pub fn tail(&self) -> Position {
        // Relaxed: only a hint that there is something to let go; segments are kept alive by their count.
        Position(self.0.tail.load(Ordering::Relaxed))
    }

    /// Bytes written so far, as of the head or a moment later: frames of all lanes, and index entries.
    #[inline]
    pub fn written(&self) -> u64 {
        // Relaxed: whoever has loaded the head before sees at least what belongs to it.
        self.0.written.load(Ordering::Relaxed)
    }

    /// Takes the writer's lock, to append one or several publications that are published together when it is dropped.
    pub fn appender(&self) -> Appender<'_> {
        Appender { shared: &self.0, writer: self.lock() }
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        let writer = self.0.writer.lock();
        #[cfg(any(test, fuzzing))]
        writer.registry.looks.begin();
        writer
    }

    /// Topics that were looked at under one hold of the lock, at most.
    #[cfg(any(test, fuzzing))]
    pub fn longest_hold(&self) -> usize {
        self.0.writer.lock().registry.looks.most()
    }

    /// What it was made with.
    pub fn settings(&self) -> &TapeSettings {
        &self.0.settings
    }

    /// The lanes that have subscribers, a moment ago.
    #[inline]
    pub fn wanted(&self) -> Wanted {
        Wanted::from_bits(self.0.wanted.load(Ordering::Relaxed))
    }

    /// Says that `lane` has one subscriber (or group of them) more. From the returned position on it is written.
    pub fn want(&self, lane: Lane) -> Position {
        let mut writer = self.lock();
        writer.wanted[lane as usize] += 1;
        self.show_wanted(&writer);
        Position(writer.next)
    }

    /// Takes one [`Tape::want`] back.
    pub fn unwant(&self, lane: Lane) {
        let mut writer = self.lock();
        writer.wanted[lane as usize] -= 1;
        self.show_wanted(&writer);
    }

    fn show_wanted(&self, writer: &Writer) {
        // Relaxed: see the field.
        let wanted = Wanted::of(|lane| writer.wanted[lane as usize] > 0);
        self.0.wanted.store(wanted.bits(), Ordering::Relaxed);
    }

    /// Looks at the topics and at the position that goes with them, under the lock: at some hundred, and at nothing but what can
    /// be taken along at once.
    pub fn with_topics<R>(&self, look: impl FnOnce(&Registry, Position) -> R) -> R {
        let writer = self.lock();
        look(&writer.registry, Position(writer.next))
    }

    /// Looks at the topics that had publications from `since` on, by their slots in order, and at the position that goes with
    /// them, under the lock. None, and nothing is looked at, if there may be more than `most` such publications: what the tape
    /// has let go of can be of any topic.
    pub fn with_changed<R>(
        &self,
        since: Position,
        most: usize,
        look: impl FnOnce(&Registry, Vec<u32>, Position) -> R,
    ) -> Option<R> {
        let writer = self.lock();
        let is_gone = since.0 < writer.store.tail();
        let count = if is_gone { writer.registry.slots().into() } else { writer.next.saturating_sub(since.0) };
        if count > most as u64 {
            return None;
        }
        let mut slots = Vec::new();
        if is_gone {
            slots.extend(0..writer.registry.slots());
        }
        for segment in writer.store.segments().iter().rev().take_while(|_| !is_gone) {
            let from = since.0.max(segment.base.0);
            for at in from..segment.end().min(writer.next) {
                // SAFETY: the lock is held, and the entry lies before `next`: it was written by an earlier holder.
                slots.push(unsafe { segment.entry((at - segment.base.0) as usize) }.topic.slot);
            }
            if segment.base <= since {
                break;
            }
        }
        slots.sort_unstable();
        slots.dedup();
        Some(look(&writer.registry, slots, Position(writer.next)))
    }

    /// Forgets, among the slots `slots`, the topics of which `useless` says so; it is told whether publications of the topic
    /// are still held. Returns how many. What is left of them on the tape is nobody's.
    pub fn forget_topics(&self, slots: impl IntoIterator<Item = u32>, useless: impl Fn(&Topic, bool) -> bool) -> usize {
        let mut slots = slots.into_iter().peekable();
        let mut forgotten = 0;
        while slots.peek().is_some() {
            let mut gone = Vec::with_capacity(FORGOTTEN_AT_ONCE);
            let mut writer = self.lock();
            let tail = writer.store.tail();
            writer.registry.rest_until(tail);
            for slot in slots.by_ref().take(FORGOTTEN_AT_ONCE) {
                if writer.registry.at(slot).is_some_and(|topic| useless(topic, topic.end > tail)) {
                    gone.extend(writer.registry.forget(slot));
                }
            }
            // They are freed when nobody waits for it.
            drop(writer);
            forgotten += gone.len();
        }
        forgotten
    }

    /// Gives back memory of topics in the slots `slots` that was needed once.
    pub fn trim_topics(&self, slots: std::ops::Range<u32>) {
        let mut writer = self.lock();
        let tail = writer.store.tail();
        let room = writer.registry.trim(slots, tail);
        drop(writer);
        drop(room);
    }

    /// What the metrics show, unless somebody is publishing for longer than a moment.
    pub fn try_status(&self) -> Option<TapeStatus> {
        lock_soon(&self.0.writer).map(|writer| status_of(&writer))
    }

    /// The same, however long that takes.
    #[cfg(all(any(fuzzing, test), not(loom)))]
    pub fn status(&self) -> TapeStatus {
        status_of(&self.0.writer.lock())
    }
}

fn status_of(writer: &Writer) -> TapeStatus {
    let tail = writer.store.tail();
    TapeStatus {
        publications: writer.next,
        retained: writer.next - tail,
        bytes: writer.store.footprint(),
        segments: writer.store.segments().len(),
        whole: writer
            .store
            .newest_whole()
            .map(|segment| Whole { publications: segment.end() - segment.base.0, bytes: segment.footprint() as u64 }),
        oldest_ts: writer.oldest_ts(),
        topics: writer.registry.len(),
        value_bytes: writer.registry.value_bytes(),
        values_dropped: writer.values_dropped,
    }
}

/// The writer's lock, held. What was appended becomes visible to readers, all at once, when it is dropped.
pub struct Appender<'t> {
    shared: &'t Shared,
    writer: MutexGuard<'t, Writer>,
}

impl Appender<'_> {
    /// Numbers one publication and appends it, in the lanes that are wanted. The topic and the value that are kept are charged
    /// to `account`; none for the server's own. `check` says whether a topic may have this name, if it is to be made, and whose place it
    /// takes.
    ///
    /// # Errors
    /// What `check` says, or that the topic is one too many, for all or for the account. Nothing of the publication was kept.
    #[inline]
    pub fn append<E: From<RegistryFull>>(
        &mut self,
        account: Option<&std::sync::Arc<Account>>,
        topic: &str,
        draft: &mut Draft<'_>,
        about: About,
        check: impl FnOnce() -> Result<Option<Place>, E>,
    ) -> Result<Appended, E> {
        let writer = &mut *self.writer;
        let About { ts, origin, flags } = about;
        // Under the lock, it is as of now.
        let lanes = Wanted::from_bits(self.shared.wanted.load(Ordering::Relaxed)).written();
        let topic = writer.registry.find_or_make(topic, account, check)?;
        // Only what began to be wanted since the draft was made is still to be done.
        draft.prepare(lanes);
        let lanes = lanes.having(draft.kind());
        let (previous, position) = (topic.end, Position(writer.next));
        topic.number(position.0, ts, origin, writer.store.tail());
        let (id, seq) = (topic.id, topic.seq);
        let (at, words) = (position.0, &self.shared.words);
        let numbered = Numbered { prefix: &topic.prefix_of(seq), at, words, seq, ts };
        let (mut len, mut fits) = ([0; LANES], writer.store.has_entry(position));
        for lane in lanes.iter() {
            len[lane as usize] = draft.len(lane, &numbered);
            fits &= writer.store.has_room(lane, len[lane as usize]);
        }
        let opens = if fits { 0 } else { writer.store.grow(position, lanes, &len) };
        for lane in lanes.iter() {
            draft.write(lane, &numbered, writer.store.put(lane, len[lane as usize], opens));
        }
        let (kind, ends) = (draft.kind(), writer.store.ends());
        let entry = Entry { topic: id, seq, ts, origin, previous, ends, opens, kind, flags };
        writer.store.set_entry(position, entry);
        writer.next += 1;
        writer.written += (len.iter().sum::<usize>() + size_of::<Entry>()) as u64;
        if !writer.registry.keep(id.slot, ts, kind, draft.payload(), account) {
            writer.values_dropped += 1;
        }
        Ok(Appended { position, seq, ts })
    }
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        // Relaxed: the head's Release follows.
        self.shared.written.store(self.writer.written, Ordering::Relaxed);
        // Release: pairs with the Acquire loads in `Tape::head` and `Reader::refresh`; all that was written is before it.
        self.shared.head.store(self.writer.next, Ordering::Release);
        // Relaxed: only a hint, and its writers take turns.
        let tail = self.writer.store.tail();
        if self.shared.tail.load(Ordering::Relaxed) != tail {
            self.shared.tail.store(tail, Ordering::Relaxed);
        }
    }
}

impl Writer {
    fn oldest_ts(&self) -> u64 {
        if self.store.tail() == self.next {
            return 0;
        }
        let oldest = self.store.segments().front().expect("there is always one");
        // SAFETY: the lock is held, and the entry lies before `next`: it was written by an earlier holder.
        unsafe { oldest.entry(0) }.ts
    }
}
