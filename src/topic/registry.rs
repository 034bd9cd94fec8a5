//! The table of topics.
//!
//! Bounded twice: in topics (`--max-topics`) and in bytes of last values (`--max-values`), where the room that a value takes
//! counts, which is at most twice its length. A topic that would be one too many is refused; a value that would be one too
//! many is not kept, so that its topic has no snapshot for now.
//! A topic without publications for a while and without subscribers can be forgotten; its slot is
//! then used again under another generation, and later topics get a new [`Epoch`], because its numbering may restart.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    ops::{Bound, Range},
    sync::Arc,
};

use crate::{
    protocol::{Kind, Payload, update_prefix},
    slack::{KEPT_BY_ONE, KEPT_BY_THREAD, Slack},
};

/// A topic's place in the table. The generation tells it from an earlier, forgotten topic in the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicId {
    /// Index into the table, below `--max-topics`.
    pub slot: u32,
    /// How many topics had this slot before.
    pub generation: u32,
}

/// What tells one numbering of a topic from the next; printed in base 36.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0u8; 13];
        let mut at = digits.len();
        let mut rest = self.0;
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        f.write_str(std::str::from_utf8(&digits[at..]).expect("digits are ASCII"))
    }
}

/// The newest publication of a topic, kept for snapshots.
#[derive(Clone, Debug)]
pub struct LastValue {
    /// When the server took it in, in microseconds since the Unix epoch.
    pub ts: u64,
    /// What sort of payload it is.
    pub kind: Kind,
    /// The payload. Shared with snapshots being written; rewritten in place when nobody looks.
    pub payload: Arc<Vec<u8>>,
}

impl LastValue {
    /// The payload as it was published.
    pub fn payload(&self) -> Payload<'_> {
        Payload::from_parts(self.kind, &self.payload)
    }
}

/// One topic.
#[derive(Debug)]
pub struct Topic {
    /// Its place in the table.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// The constant start of its updates in the JSON lane.
    pub prefix: Box<[u8]>,
    /// Its numbering.
    pub epoch: Epoch,
    /// How many publications it has had; the `seq` of the newest.
    pub seq: u64,
    /// The tape position after its newest publication.
    pub end: u64,
    /// When the newest publication was taken in, in microseconds since the Unix epoch.
    pub ts: u64,
    /// The connection that published it; 0 for none.
    pub origin: u64,
    /// The newest payload, unless `--max-values` had no room.
    pub last: Option<LastValue>,
    marks: Marks,
}

/// Every so many publications of a topic, the tape position is noted.
const MARK_EVERY: u64 = 16;

/// Where on the tape some of a topic's retained publications are: those whose number is a multiple of [`MARK_EVERY`].
/// A subscriber that resumes finds its place from there, in a few steps back along the topic's entries.
#[derive(Debug, Default)]
struct Marks {
    /// The number of the first one, divided by [`MARK_EVERY`].
    first: u64,
    positions: VecDeque<u64>,
}

impl Topic {
    /// Numbers a publication by `origin` that goes to tape position `at`; the tape begins at `tail`.
    pub fn number(&mut self, at: u64, ts: u64, origin: u64, tail: u64) {
        self.seq += 1;
        (self.ts, self.origin) = (ts, origin);
        self.end = at + 1;
        if self.seq.is_multiple_of(MARK_EVERY) {
            let marks = &mut self.marks;
            marks.let_go(tail);
            marks.positions.push_back(at);
            marks.first = self.seq / MARK_EVERY + 1 - marks.positions.len() as u64;
        }
    }

    /// Lets go of what is known of publications before `tail`, where the tape begins: a topic that has gone quiet would keep it.
    pub fn trim(&mut self, tail: u64) {
        self.marks.let_go(tail);
        self.marks.positions.give_back(KEPT_BY_ONE);
        if self.end <= tail {
            self.marks.positions = VecDeque::new();
        }
    }

    /// Bytes of its last value's buffer.
    fn value_room(&self) -> usize {
        self.last.as_ref().map_or(0, |last| last.payload.capacity())
    }

    /// A tape position at which there is the topic's publication number `seq`, or one a few numbers later;
    /// none if there is no such number. The tape may have let go of it.
    pub fn near(&self, seq: u64) -> Option<u64> {
        if seq == 0 || seq > self.seq {
            return None;
        }
        let marks = &self.marks;
        let mark = seq.div_ceil(MARK_EVERY).max(marks.first);
        let noted = marks.positions.get((mark - marks.first) as usize);
        Some(noted.copied().unwrap_or(self.end - 1))
    }
}

impl Marks {
    fn let_go(&mut self, tail: u64) {
        let Marks { first, positions } = self;
        while positions.front().is_some_and(|position| *position < tail) {
            positions.pop_front();
            *first += 1;
        }
    }
}

/// The table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryFull;

/// The table of topics.
#[derive(Debug)]
pub struct Registry {
    /// Clients choose the names, so the hash has a key that they don't know; it is 20 ns of a publication.
    by_name: HashMap<Arc<str>, u32>,
    /// The same in order, for lists of topics. Costs a new topic some hundred nanoseconds, and a publication nothing.
    in_order: BTreeMap<Arc<str>, u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots of forgotten topics that the tape still has publications of, with the position after the last: whoever is
    /// behind must not take them for another topic's.
    resting: Vec<(u64, u32)>,
    epoch: u64,
    topics_max: usize,
    value_bytes: usize,
    value_bytes_max: usize,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    topic: Option<Box<Topic>>,
}

impl Registry {
    /// An empty table for at most `topics_max` topics and `value_bytes_max` bytes of last values. `epoch` is the first
    /// topics' epoch: the start time of the server, so that it differs from any earlier one's.
    pub fn new(topics_max: usize, value_bytes_max: usize, epoch: u64) -> Registry {
        Registry {
            by_name: HashMap::new(),
            in_order: BTreeMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            resting: Vec::new(),
            epoch,
            topics_max,
            value_bytes: 0,
            value_bytes_max,
        }
    }

    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How many slots there are, used or free: the bound for [`Registry::at`].
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Bytes that last values take: the room of their buffers.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// The epoch that a topic made now would have.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// The topic of this name.
    pub fn find(&self, name: &str) -> Option<&Topic> {
        self.slots[*self.by_name.get(name)? as usize].topic.as_deref()
    }

    /// The topic in this slot.
    pub fn at(&self, slot: u32) -> Option<&Topic> {
        self.slots.get(slot as usize)?.topic.as_deref()
    }

    /// The topics from this name on, in order.
    pub fn from(&self, name: Bound<&str>) -> impl Iterator<Item = &Topic> {
        let slots = self.in_order.range::<str, _>((name, Bound::Unbounded)).map(|(_, slot)| *slot as usize);
        slots.filter_map(|slot| self.slots[slot].topic.as_deref())
    }

    /// The topic of this name, made if there was none.
    ///
    /// # Errors
    /// [`RegistryFull`] when it would be one more than the table may hold.
    pub fn find_or_make(&mut self, name: &str) -> Result<&mut Topic, RegistryFull> {
        let slot = match self.by_name.get(name) {
            Some(slot) => *slot,
            None => self.make(name)?,
        };
        Ok(self.slots[slot as usize].topic.as_deref_mut().expect("a named slot holds a topic"))
    }

    fn make(&mut self, name: &str) -> Result<u32, RegistryFull> {
        if self.by_name.len() >= self.topics_max {
            return Err(RegistryFull);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, topic: None });
            self.slots.len() as u32 - 1
        });
        let name: Arc<str> = name.into();
        let entry = &mut self.slots[slot as usize];
        entry.topic = Some(Box::new(Topic {
            id: TopicId { slot, generation: entry.generation },
            name: Arc::clone(&name),
            prefix: update_prefix(&name),
            epoch: Epoch(self.epoch),
            seq: 0,
            end: 0,
            ts: 0,
            origin: 0,
            last: None,
            marks: Marks::default(),
        }));
        self.in_order.insert(Arc::clone(&name), slot);
        self.by_name.insert(name, slot);
        Ok(slot)
    }

    /// Keeps `payload` as the last value of the topic in `slot`, if there is room. Returns whether there was.
    pub fn keep(&mut self, slot: u32, ts: u64, kind: Kind, payload: &[u8]) -> bool {
        let Some(topic) = self.slots[slot as usize].topic.as_deref_mut() else { return false };
        let others = self.value_bytes - topic.value_room();
        if others + payload.len() > self.value_bytes_max {
            topic.last = None;
            self.value_bytes = others;
            return false;
        }
        let last = topic.last.get_or_insert_with(|| LastValue { ts, kind, payload: Arc::default() });
        (last.ts, last.kind) = (ts, kind);
        match Arc::get_mut(&mut last.payload) {
            // A rare huge value must not hold on to its room for ever.
            Some(buffer) if (buffer.capacity() / 2..=buffer.capacity()).contains(&payload.len()) => {
                buffer.clear();
                buffer.extend_from_slice(payload);
            }
            Some(buffer) => *buffer = payload.to_vec(),
            None => last.payload = Arc::new(payload.to_vec()),
        }
        self.value_bytes = others + topic.value_room();
        true
    }

    /// Forgets the topic in `slot` and its last value.
    pub fn forget(&mut self, slot: u32) {
        let entry = &mut self.slots[slot as usize];
        let Some(topic) = entry.topic.take() else { return };
        entry.generation = entry.generation.wrapping_add(1);
        self.value_bytes -= topic.value_room();
        self.by_name.remove(&topic.name);
        self.in_order.remove(&topic.name);
        self.resting.push((topic.end, slot));
        self.epoch += 1;
    }

    /// Makes the slots of forgotten topics available of which nothing is at `tail` or behind it any more.
    pub fn rest_until(&mut self, tail: u64) {
        let Registry { resting, free, .. } = self;
        free.extend(resting.extract_if(.., |(end, _)| *end <= tail).map(|(_, slot)| slot));
        resting.give_back(KEPT_BY_THREAD);
    }

    /// Lets go, for the topics in these slots, of what is known of publications before `tail`, where the tape begins.
    pub fn trim(&mut self, slots: Range<u32>, tail: u64) {
        let slots = slots.start as usize..self.slots.len().min(slots.end as usize);
        self.slots[slots].iter_mut().filter_map(|slot| slot.topic.as_deref_mut()).for_each(|topic| topic.trim(tail));
        self.by_name.give_back(KEPT_BY_THREAD);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn a_forgotten_topic_comes_back_with_another_epoch_and_generation() {
        let mut registry = Registry::new(2, 100, 7);
        let first = registry.find_or_make("a").unwrap();
        let (id, epoch) = (first.id, first.epoch);
        registry.forget(id.slot);
        registry.rest_until(0);
        assert!(registry.find("a").is_none());
        let again = registry.find_or_make("a").unwrap();
        assert_eq!(again.id.slot, id.slot);
        assert_ne!(again.id, id);
        assert_ne!(again.epoch, epoch);
        assert_eq!(again.seq, 0);
    }

    #[test]
    fn a_slot_rests_while_the_tape_has_publications_of_its_topic() {
        let mut registry = Registry::new(2, 100, 7);
        let topic = registry.find_or_make("a").unwrap();
        topic.end = 5;
        let slot = topic.id.slot;
        registry.forget(slot);
        registry.rest_until(4);
        assert_ne!(registry.find_or_make("b").unwrap().id.slot, slot);
        registry.rest_until(5);
        assert_eq!(registry.find_or_make("c").unwrap().id.slot, slot);
    }

    #[test]
    fn one_topic_too_many_is_refused_and_the_others_stay() {
        let mut registry = Registry::new(2, 100, 7);
        registry.find_or_make("a").unwrap();
        registry.find_or_make("b").unwrap();
        assert_eq!(registry.find_or_make("c").unwrap_err(), RegistryFull);
        assert_eq!(registry.find_or_make("a").unwrap().name.as_ref(), "a");
        assert_eq!(registry.len(), 2);
    }

    #[test]
    fn values_beyond_their_bound_are_not_kept() {
        let mut registry = Registry::new(2, 10, 7);
        let a = registry.find_or_make("a").unwrap().id.slot;
        let b = registry.find_or_make("b").unwrap().id.slot;
        assert!(registry.keep(a, 1, Kind::Text, b"12345678"));
        assert!(!registry.keep(b, 1, Kind::Text, b"123"));
        assert!(registry.keep(a, 2, Kind::Text, b"12"));
        assert!(registry.keep(b, 2, Kind::Text, b"123"));
        assert_eq!(registry.value_bytes(), 5);
        assert_eq!(registry.find("a").unwrap().last.as_ref().unwrap().payload.as_slice(), b"12");
    }

    #[test]
    fn a_large_value_that_a_small_one_follows_gives_its_room_back_and_room_is_what_counts() {
        let mut registry = Registry::new(10, 10_000, 7);
        for n in 0..10u8 {
            let slot = registry.find_or_make(&n.to_string()).unwrap().id.slot;
            assert!(registry.keep(slot, 1, Kind::Text, &[b'x'; 4096]), "{n}");
            assert!(registry.keep(slot, 2, Kind::Text, b"1"));
        }
        let rooms = |registry: &Registry| (0..10).filter_map(|slot| registry.at(slot)).map(Topic::value_room).sum();
        assert_eq!((registry.value_bytes(), rooms(&registry)), (10, 10));
        registry.keep(0, 3, Kind::Text, &[b'x'; 100]);
        registry.keep(0, 4, Kind::Text, &[b'x'; 60]);
        assert_eq!((registry.value_bytes(), rooms(&registry)), (109, 109), "what varies a little keeps its room");
    }

    #[test]
    fn a_topic_that_has_gone_quiet_keeps_nothing_of_what_the_tape_has_let_go_of() {
        let mut registry = Registry::new(10, 100, 7);
        for at in 0..100_000 {
            registry.find_or_make("a").unwrap().number(at, 1, 0, 0);
        }
        let room = |registry: &Registry| registry.at(0).unwrap().marks.positions.capacity();
        assert!(room(&registry) >= 6250);
        registry.trim(0..10, 99_000);
        let topic = registry.at(0).unwrap();
        assert_eq!((topic.near(99_001), topic.near(99_008)), (Some(99_007), Some(99_007)));
        assert!(room(&registry) <= KEPT_BY_ONE / 8);
        registry.trim(0..10, 100_000);
        assert_eq!((room(&registry), registry.at(0).unwrap().near(5)), (0, Some(99_999)));
        // It comes to life again.
        for at in 100_000..100_040 {
            registry.find_or_make("a").unwrap().number(at, 1, 0, 100_000);
        }
        assert_eq!(registry.at(0).unwrap().near(100_010), Some(100_015));
    }

    #[test]
    fn a_snapshot_in_hand_is_not_rewritten() {
        let mut registry = Registry::new(1, 100, 7);
        let slot = registry.find_or_make("a").unwrap().id.slot;
        registry.keep(slot, 1, Kind::Text, b"old");
        let held = registry.find("a").unwrap().last.clone().unwrap();
        registry.keep(slot, 2, Kind::Text, b"new");
        assert_eq!(held.payload.as_slice(), b"old");
        assert_eq!(registry.find("a").unwrap().last.as_ref().unwrap().payload.as_slice(), b"new");
    }

    #[test]
    fn nobody_can_know_where_in_the_table_a_name_comes_to_lie() {
        let place = || Registry::new(1, 1, 7).by_name.hasher().hash_one("a");
        assert_ne!(place(), place());
    }

    #[test]
    fn topics_are_found_in_order_and_no_forgotten_ones() {
        let mut registry = Registry::new(9, 100, 7);
        for name in ["c", "a", "d", "b"] {
            registry.find_or_make(name).unwrap();
        }
        registry.forget(registry.find("c").unwrap().id.slot);
        let names = |from: Bound<&str>| registry.from(from).map(|topic| topic.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(Bound::Unbounded), ["a", "b", "d"]);
        assert_eq!(names(Bound::Excluded("a")), ["b", "d"]);
        assert_eq!(names(Bound::Included("c")), ["d"]);
        // In the place of the forgotten one.
        registry.rest_until(0);
        registry.find_or_make("e").unwrap();
        let names: Vec<&str> = registry.from(Bound::Unbounded).map(|topic| &*topic.name).collect();
        assert_eq!(names, ["a", "b", "d", "e"]);
    }

    #[test]
    fn epochs_are_short_words() {
        assert_eq!(Epoch(0).to_string(), "0");
        assert_eq!(Epoch(35).to_string(), "z");
        assert_eq!(Epoch(36).to_string(), "10");
        assert_eq!(Epoch(u64::MAX).to_string(), "3w5e11264sgsf");
    }
}
