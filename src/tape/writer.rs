//! The writing end: numbering, encoding and appending, under one short lock.
#![allow(unsafe_code)]

use std::collections::VecDeque;

use crossbeam_utils::CachePadded;

use super::{
    Position,
    segment::{Entry, Pool, Segment},
    sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering, lock_soon},
};
use crate::{
    lane::{LANES, Lane},
    limits::Account,
    protocol::{Envelope, Kind, Payload, event::push_event},
    slack::{KEPT_BY_THREAD, Slack},
    topic::{Registry, RegistryFull, Topic},
    websocket::frame::{self, Opcode},
};

/// What the tape is made with; sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub struct TapeSettings {
    /// Memory for all segments together.
    pub retain: usize,
    /// Room for one lane's frames in one segment.
    pub segment: usize,
    /// Largest payload.
    pub message_max: usize,
    /// Most topics.
    pub topics_max: usize,
    /// Most bytes of last values.
    pub value_bytes_max: usize,
    /// The first topics' epoch.
    pub epoch: u64,
}

/// The tape, shared by everybody who publishes or reads.
#[derive(Clone)]
pub struct Tape(pub(super) Arc<Shared>);

pub(super) struct Shared {
    // Written by every publication, read by every worker's turn: a cache line of its own.
    pub(super) head: CachePadded<AtomicU64>,
    pub(super) tail: AtomicU64,
    pub(super) writer: Mutex<Writer>,
    settings: TapeSettings,
}

pub(super) struct Writer {
    pub(super) registry: Registry,
    pub(super) segments: VecDeque<Arc<Segment>>,
    pool: Arc<Pool>,
    footprint: usize,
    /// The next publication's position; the head, once it is published.
    next: u64,
    /// How many bytes of each lane of the newest segment are used.
    used: [usize; LANES],
    /// How many subscribers each lane has, in units that only [`Tape::want`] knows.
    wanted: [u32; LANES],
    values_dropped: u64,
    // Buffers that are used again for each event.
    message: Vec<u8>,
    event: Vec<u8>,
}

/// Where a publication ended up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its number within its topic.
    pub seq: u64,
    /// When it was taken in, in microseconds since the Unix epoch.
    pub ts: u64,
}

/// Why a publication was refused. Nothing of it was kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The topic would be one too many.
    #[error("there are already {max} topics, as many as --max-topics allows")]
    TopicsFull {
        /// The bound.
        max: usize,
    },
    /// The topic would be one too many for the address that publishes.
    #[error("your address has added {max} topics, as many as --max-topics-per-ip allows")]
    AddressFull {
        /// The bound.
        max: usize,
    },
    /// The payload is larger than `--max-message`.
    #[error("the payload has {len} bytes, --max-message allows {max}")]
    TooLarge {
        /// What was given.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The topic's name is not one.
    #[error("{0}")]
    BadTopic(String),
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
        // A frame of 128 bytes for an entry: smaller publications fill the index before the bytes.
        let pool = Arc::new(Pool::new((settings.segment / 128).max(2), settings.segment));
        let first = Arc::new(Segment::new(Position(0), [0; LANES], &pool));
        let footprint = first.footprint();
        let registry = Registry::new(settings.topics_max, settings.value_bytes_max, settings.epoch);
        Tape(Arc::new(Shared {
            head: CachePadded::new(AtomicU64::new(0)),
            tail: AtomicU64::new(0),
            writer: Mutex::new(Writer {
                registry,
                segments: VecDeque::from([first]),
                pool,
                footprint,
                next: 0,
                used: [0; LANES],
                wanted: [0; LANES],
                values_dropped: 0,
                message: Vec::new(),
                event: Vec::new(),
            }),
            settings,
        }))
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

    /// Takes the writer's lock, to append one or several publications that are published together when it is dropped.
    pub fn appender(&self) -> Appender<'_> {
        Appender { shared: &self.0, writer: self.0.writer.lock(), account: None }
    }

    /// Says that `lane` has one subscriber (or group of them) more. From the returned position on it is written.
    pub fn want(&self, lane: Lane) -> Position {
        let mut writer = self.0.writer.lock();
        writer.wanted[lane as usize] += 1;
        Position(writer.next)
    }

    /// Takes one [`Tape::want`] back.
    pub fn unwant(&self, lane: Lane) {
        self.0.writer.lock().wanted[lane as usize] -= 1;
    }

    /// Looks at the topics and at the position that goes with them, under the lock: keep it short.
    pub fn with_topics<R>(&self, look: impl FnOnce(&Registry, Position) -> R) -> R {
        let writer = self.0.writer.lock();
        look(&writer.registry, Position(writer.next))
    }

    /// Looks at the topics that had publications from `since` on, and at the position that goes with them, under the lock.
    pub fn with_changed<R>(&self, since: Position, look: impl FnOnce(&Registry, Vec<u32>, Position) -> R) -> R {
        let writer = self.0.writer.lock();
        let mut slots = Vec::new();
        if writer.segments.front().is_some_and(|oldest| since < oldest.base) {
            // What the tape has let go of since can't be asked any more: any topic may have changed.
            slots.extend(0..writer.registry.slots());
        }
        for segment in writer.segments.iter().rev() {
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
        look(&writer.registry, slots, Position(writer.next))
    }

    /// Forgets, among the slots `slots`, the topics of which `useless` says so; it is told whether publications of the topic
    /// are still held. Returns how many. What is left of them on the tape is nobody's.
    pub fn forget_topics(&self, slots: std::ops::Range<u32>, useless: impl Fn(&Topic, bool) -> bool) -> usize {
        let mut writer = self.0.writer.lock();
        let tail = tail_of(&writer.segments);
        writer.registry.rest_until(tail);
        let mut forgotten = 0;
        for slot in slots.start..slots.end.min(writer.registry.slots()) {
            if writer.registry.at(slot).is_some_and(|topic| useless(topic, topic.end > tail)) {
                writer.registry.forget(slot);
                forgotten += 1;
            }
        }
        forgotten
    }

    /// Gives back memory of topics in the slots `slots` that was needed once, and of buffers.
    pub fn trim_topics(&self, slots: std::ops::Range<u32>) {
        let writer = &mut *self.0.writer.lock();
        writer.registry.trim(slots, tail_of(&writer.segments));
        for buffer in [&mut writer.message, &mut writer.event] {
            buffer.clear();
            buffer.give_back(KEPT_BY_THREAD);
        }
    }

    /// What the metrics show, unless somebody is publishing for longer than a moment.
    pub fn try_status(&self) -> Option<TapeStatus> {
        lock_soon(&self.0.writer).map(|writer| status_of(&writer))
    }

    /// The same, however long that takes.
    #[cfg(any(fuzzing, test))]
    pub fn status(&self) -> TapeStatus {
        status_of(&self.0.writer.lock())
    }
}

fn status_of(writer: &Writer) -> TapeStatus {
    let tail = tail_of(&writer.segments);
    TapeStatus {
        publications: writer.next,
        retained: writer.next - tail,
        bytes: writer.footprint,
        segments: writer.segments.len(),
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
    /// No part of what the model checks: under it, too, the standard library's.
    account: Option<&'t std::sync::Arc<Account>>,
}

impl<'t> Appender<'t> {
    /// Charges this account with the topics that come into being and the values that are kept; none for the server's own.
    pub fn charging(mut self, account: Option<&'t std::sync::Arc<Account>>) -> Self {
        self.account = account;
        self
    }

    /// Numbers, encodes and appends one publication. The name has been checked by the caller.
    ///
    /// `origin` is the publishing connection, or 0.
    ///
    /// # Errors
    /// The payload is too large, or the topic one too many, for all or for the account.
    pub fn append(
        &mut self,
        topic: &str,
        payload: Payload<'_>,
        ts: u64,
        origin: u64,
    ) -> Result<Appended, PublishError> {
        let settings = &self.shared.settings;
        let bytes = payload.bytes();
        if bytes.len() > settings.message_max {
            return Err(PublishError::TooLarge { len: bytes.len(), max: settings.message_max });
        }
        let writer = &mut *self.writer;
        let topic = writer.registry.find_or_make(topic, self.account).map_err(|full| match full {
            RegistryFull::Table => PublishError::TopicsFull { max: settings.topics_max },
            RegistryFull::Address { max } => PublishError::AddressFull { max },
        })?;
        let previous = topic.end;
        topic.number(writer.next, ts, origin, tail_of(&writer.segments));
        let (id, seq) = (topic.id, topic.seq);
        let [json, raw, events] = writer.wanted.map(|count| count > 0);
        let payload = if json || events { payload.settled() } else { payload };
        let envelope = json.then(|| Envelope::new(&topic.prefix, seq, ts, payload));
        // A publication is on the tape in one lane at least, so that its history is there for whoever comes later.
        let raw = raw || !json;
        writer.event.clear();
        if events {
            writer.message.clear();
            Envelope::new(&topic.prefix, seq, ts, payload).append(&mut writer.message);
            push_event(&mut writer.event, Some((&topic.epoch, seq)), &writer.message);
        }
        let framed = |body: usize| frame::header_len(body) + body;
        let len = [
            envelope.as_ref().map_or(0, |envelope| framed(envelope.len())),
            if raw { framed(bytes.len()) } else { 0 },
            writer.event.len(),
        ];
        let start = Writer::make_room(
            &mut writer.segments,
            &mut writer.used,
            &mut writer.footprint,
            &writer.pool,
            self.shared,
            Position(writer.next),
            len,
        );
        let segment = writer.segments.back().expect("there is always a newest segment");
        if let Some(envelope) = envelope {
            // SAFETY: this thread holds the writer's lock, and the place was never published.
            let room = unsafe { segment.room(Lane::Json as usize, start[0], len[0]) };
            let header = frame::write_header(room, true, Opcode::Text, envelope.len());
            envelope.write(&mut room[header..]);
        }
        if raw {
            // SAFETY: as above.
            let room = unsafe { segment.room(Lane::Raw as usize, start[1], len[1]) };
            let opcode = if payload.kind() == Kind::Binary { Opcode::Binary } else { Opcode::Text };
            let header = frame::write_header(room, true, opcode, bytes.len());
            room[header..].copy_from_slice(bytes);
        }
        if events {
            // SAFETY: as above.
            unsafe { segment.room(Lane::Events as usize, start[2], len[2]) }.copy_from_slice(&writer.event);
        }
        let entry =
            Entry { topic: id, seq, ts, origin, previous, start: start.map(|s| s as u32), len: len.map(|l| l as u32) };
        let at = (writer.next - segment.base.0) as usize;
        // SAFETY: as above; `make_room` has left room for the entry.
        unsafe { segment.set_entry(at, entry) };
        writer.next += 1;
        if !writer.registry.keep(id.slot, ts, payload.kind(), bytes, self.account) {
            writer.values_dropped += 1;
        }
        Ok(Appended { seq, ts })
    }
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire loads in `Tape::head` and `Reader::refresh`; all that was written is before it.
        self.shared.head.store(self.writer.next, Ordering::Release);
    }
}

fn tail_of(segments: &VecDeque<Arc<Segment>>) -> u64 {
    segments.front().map_or(0, |oldest| oldest.base.0)
}

impl Writer {
    /// Finds room in the newest segment, or starts another; returns where each lane's frame goes.
    fn make_room(
        segments: &mut VecDeque<Arc<Segment>>,
        used: &mut [usize; LANES],
        footprint: &mut usize,
        pool: &Arc<Pool>,
        shared: &Shared,
        next: Position,
        len: [usize; LANES],
    ) -> [usize; LANES] {
        let newest = segments.back().expect("there is always a newest segment");
        let fits = (next.0 - newest.base.0) < newest.entries_max() as u64
            && (0..LANES).all(|lane| len[lane] == 0 || used[lane] + len[lane] <= newest.lane_max(lane));
        if !fits {
            newest.close(next);
            // A lane that is not wanted gets no memory, unless the lanes have just changed: then both do, so that one
            // subscriber who comes and goes doesn't start a segment each time. A frame that is larger than a segment gets
            // one of its size.
            let changed = (0..LANES).any(|lane| len[lane] > 0 && newest.lane_max(lane) == 0);
            let room = len.map(|len| if len == 0 && !changed { 0 } else { len.max(shared.settings.segment) });
            let fresh = Arc::new(Segment::new(next, room, pool));
            *footprint += fresh.footprint();
            *used = [0; LANES];
            segments.push_back(fresh);
            Self::let_go(segments, footprint, shared);
        }
        let start = *used;
        for lane in 0..LANES {
            used[lane] += len[lane];
        }
        start
    }

    /// Drops the oldest segments that are beyond `--retain`. The newest stays, whatever its size.
    fn let_go(segments: &mut VecDeque<Arc<Segment>>, footprint: &mut usize, shared: &Shared) {
        while *footprint > shared.settings.retain && segments.len() > 1 {
            let oldest = segments.pop_front().expect("there are at least two");
            *footprint -= oldest.footprint();
        }
        let tail = segments.front().expect("one is left").base;
        shared.tail.store(tail.0, Ordering::Relaxed);
    }

    fn oldest_ts(&self) -> u64 {
        // The very first segment stays empty if a lane came or went before anything was published.
        let mut held = self.segments.iter().filter(|segment| segment.base.0 < segment.end().min(self.next));
        let Some(oldest) = held.next() else { return 0 };
        // SAFETY: the lock is held, and the entry lies before `next`: it was written by an earlier holder.
        unsafe { oldest.entry(0) }.ts
    }
}
