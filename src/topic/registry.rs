//! The table of topics.
//!
//! Bounded twice: in topics (`--max-topics`) and in bytes of last values (`--max-values`), where the room that a value takes
//! counts, which is at most twice its length. A topic that would be one too many is refused; a value that would be one too
//! many is not kept, so that its topic has no snapshot for now. New values leave an eighth of the room to those that grow, so
//! that new topics don't cost others theirs. Both are bounded for each address as well: a topic is charged to whoever was the
//! first to publish on it, a value to whoever published it.
//! A topic without publications for a while and without subscribers can be forgotten; its slot is
//! then used again under another generation, and later topics get a new [`Epoch`], because its numbering may restart.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::{Bound, Range},
    sync::Arc,
};

use crate::{
    lane,
    limits::{Account, Charge, Place, Table},
    publication::{Epoch, Kind, Payload},
    slack::{KEPT_BY_ONE, Slack},
    topic::names::Names,
};

/// A topic's place in the table. The generation tells it from an earlier, forgotten topic in the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicId {
    /// Index into the table, below `--max-topics`.
    pub slot: u32,
    /// How many topics had this slot before.
    pub generation: u32,
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
    /// What its updates begin with, but for the first: [`Topic::prefix_of`].
    prefix: Box<[u8]>,
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
    /// What it takes of the share of whoever was the first to publish on it; none for the server's own topics.
    _charge: Option<Charge>,
    /// The same of what its holder may add, if that has a name.
    _place: Option<Place>,
    /// The same for the last value, of whoever published that.
    value_charge: Option<Charge>,
}

/// The part of `--max-values`, and of an address's share of it, that is for topics that have a value: one in so many.
const VALUES_SPARE: usize = 8;

/// Every so many publications of a topic, the tape position is noted.
const MARK_EVERY: u64 = 16;

/// The last number of those that are found from the same mark as this one.
pub fn block_end(seq: u64) -> u64 {
    seq.div_ceil(MARK_EVERY) * MARK_EVERY
}

/// Where on the tape some of a topic's retained publications are: those whose number is a multiple of [`MARK_EVERY`].
/// A subscriber that resumes finds its place from there, in a few steps back along the topic's entries.
#[derive(Debug, Default)]
struct Marks {
    /// The number of the first one, divided by [`MARK_EVERY`].
    first: u64,
    positions: VecDeque<u64>,
}

impl Topic {
    /// The room that the last value will take with so many bytes: that of the one before, where that fits. A rare huge value must
    /// not hold on to its room for ever.
    fn room_for(&mut self, len: usize) -> usize {
        let buffer = self.last.as_mut().and_then(|last| Arc::get_mut(&mut last.payload));
        let room = buffer.map_or(0, |buffer| buffer.capacity());
        if (room / 2..=room).contains(&len) { room } else { len }
    }

    /// Charges `account` with `bytes` for the last value, and whoever had published the one before with nothing any more.
    /// Returns whether there was room.
    fn charge_value(&mut self, bytes: usize, account: Option<&Arc<Account>>) -> bool {
        let Some(account) = account else {
            self.value_charge = None;
            return true;
        };
        if let Some(charge) = self.value_charge.as_mut().filter(|charge| charge.is_of(account)) {
            return charge.resize(bytes);
        }
        let most = account.most(Table::Values);
        let most = if self.last.is_none() { most - most / VALUES_SPARE } else { most };
        self.value_charge = Charge::new(account, Table::Values, bytes, most);
        self.value_charge.is_some()
    }

    /// What the update of this number begins with, as [`lane::Numbered`] has it.
    #[inline]
    pub fn prefix_of(&self, seq: u64) -> Cow<'_, [u8]> {
        if seq == 1 { self.first_prefix() } else { Cow::Borrowed(&self.prefix) }
    }

    #[cold]
    fn first_prefix(&self) -> Cow<'_, [u8]> {
        Cow::Owned(lane::first_prefix(&self.name, self.epoch).into_vec())
    }

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
    /// Returns room that is to be freed where nobody waits.
    fn trim(&mut self, tail: u64) -> Option<VecDeque<u64>> {
        self.marks.let_go(tail);
        if self.end <= tail {
            return Some(std::mem::take(&mut self.marks.positions)).filter(|room| room.capacity() > 0);
        }
        self.marks.positions.give_back(KEPT_BY_ONE);
        None
    }

    /// Bytes of its last value's buffer.
    fn value_room(&self) -> usize {
        self.last.as_ref().map_or(0, |last| last.payload.capacity())
    }

    /// A tape position at which there is the topic's first publication from `at` on, or one a few numbers later; none if there is
    /// no such publication. The tape may have let go of it.
    pub fn near_from(&self, at: u64) -> Option<u64> {
        let noted = &self.marks.positions;
        let mark = || noted.get(noted.partition_point(|position| *position < at)).copied();
        (at < self.end).then(|| mark().unwrap_or(self.end - 1))
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

    /// A tape position at which there is the topic's oldest publication that isn't before `tail`, or one a few numbers later; none if
    /// there is no such publication.
    pub fn oldest_near(&self, tail: u64) -> Option<u64> {
        let positions = &self.marks.positions;
        let first = positions.partition_point(|position| *position < tail);
        positions.get(first).copied().or_else(|| self.end.checked_sub(1)).filter(|position| *position >= tail)
    }
}

impl Marks {
    fn let_go(&mut self, tail: u64) {
        let Marks { first, positions } = self;
        if positions.front().is_some_and(|position| *position < tail) {
            // All at once: of a topic that had the whole tape to itself there are as many as it holds publications.
            let gone = positions.partition_point(|position| *position < tail);
            positions.drain(..gone);
            *first += gone as u64;
        }
    }
}

/// There is no room for another topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryFull {
    /// The table is full.
    Table {
        /// The bound.
        max: usize,
    },
    /// The address has added as many as it may.
    Address {
        /// The bound.
        max: usize,
    },
}

/// The table of topics.
#[derive(Debug)]
pub struct Registry {
    /// The slot of each name.
    by_name: Names<u32>,
    /// The same in order, for lists of topics. Costs a new topic some hundred nanoseconds, and a publication nothing.
    in_order: BTreeMap<Arc<str>, u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots of forgotten topics that the tape still has publications of, by the position after the last: whoever is
    /// behind must not take them for another topic's.
    resting: BTreeSet<(u64, u32)>,
    epoch: u64,
    /// The position after the newest publication of all forgotten topics.
    forgotten: u64,
    topics_max: usize,
    value_bytes: usize,
    value_bytes_max: usize,
    #[cfg(any(test, fuzzing))]
    pub(crate) looks: crate::topic::Looks,
}

/// Slots that there is room for from the start, at most: 16 MiB of addresses.
const SLOTS_RESERVED: usize = 1 << 20;

/// Slots that [`Registry::rest_until`] makes available at a time.
const RESTED_AT_ONCE: usize = 64;

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
            by_name: Names::default(),
            in_order: BTreeMap::new(),
            // It doesn't move to grow, while somebody publishes; room that isn't used is no memory.
            slots: Vec::with_capacity(topics_max.min(SLOTS_RESERVED)),
            free: Vec::new(),
            resting: BTreeSet::new(),
            epoch,
            forgotten: 0,
            topics_max,
            value_bytes: 0,
            value_bytes_max,
            #[cfg(any(test, fuzzing))]
            looks: Default::default(),
        }
    }

    /// Counts that it is looked at so many things, for those who hold it against what may be looked at under one lock.
    #[inline]
    fn looked(&self, _things: usize) {
        #[cfg(any(test, fuzzing))]
        self.looks.add(_things);
    }

    fn slot_of(&self, name: &str) -> Option<u32> {
        let Registry { by_name, slots, .. } = self;
        let is_it = |slot: &u32| slots[*slot as usize].topic.as_deref().is_some_and(|topic| &*topic.name == name);
        by_name.find(by_name.hash(name), is_it).copied()
    }

    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// How many slots there are, used or free: the bound for [`Registry::at`].
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Bytes that last values take: the room of their buffers.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// The tape position after the newest publication of all topics that were forgotten; 0 if none was.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The epoch that a topic made now would have.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// The topic of this name.
    pub fn find(&self, name: &str) -> Option<&Topic> {
        self.looked(1);
        self.slots[self.slot_of(name)? as usize].topic.as_deref()
    }

    /// The topic in this slot.
    pub fn at(&self, slot: u32) -> Option<&Topic> {
        self.looked(1);
        self.slots.get(slot as usize)?.topic.as_deref()
    }

    /// The topics from this name on, in order.
    pub fn from(&self, name: Bound<&str>) -> impl Iterator<Item = &Topic> {
        let slots = self.in_order.range::<str, _>((name, Bound::Unbounded)).map(|(_, slot)| *slot as usize);
        slots.inspect(|_| self.looked(1)).filter_map(|slot| self.slots[slot].topic.as_deref())
    }

    /// The topic of this name, made if there was none, and then charged to `account`: if `check` says that there may be one, and whose place
    /// it takes.
    ///
    /// # Errors
    /// What `check` says, or [`RegistryFull`] when it would be one more than the table may hold, or the account.
    #[inline]
    pub fn find_or_make<E: From<RegistryFull>>(
        &mut self,
        name: &str,
        account: Option<&Arc<Account>>,
        check: impl FnOnce() -> Result<Option<Place>, E>,
    ) -> Result<&mut Topic, E> {
        self.looked(1);
        let slot = match self.slot_of(name) {
            Some(slot) => slot,
            None => {
                let place = check()?;
                self.make(name, account, place)?
            }
        };
        Ok(self.slots[slot as usize].topic.as_deref_mut().expect("a named slot holds a topic"))
    }

    fn make(&mut self, name: &str, account: Option<&Arc<Account>>, place: Option<Place>) -> Result<u32, RegistryFull> {
        if self.by_name.len() >= self.topics_max {
            return Err(RegistryFull::Table { max: self.topics_max });
        }
        let charge = match account.map(|account| (account, account.most(Table::Topics))) {
            Some((account, max)) => {
                Some(Charge::new(account, Table::Topics, 1, max).ok_or(RegistryFull::Address { max })?)
            }
            None => None,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, topic: None });
            self.slots.len() as u32 - 1
        });
        let name: Arc<str> = name.into();
        let entry = &mut self.slots[slot as usize];
        entry.topic = Some(Box::new(Topic {
            id: TopicId { slot, generation: entry.generation },
            name: Arc::clone(&name),
            prefix: lane::prefix(&name),
            epoch: Epoch(self.epoch),
            seq: 0,
            end: 0,
            ts: 0,
            origin: 0,
            last: None,
            marks: Marks::default(),
            _charge: charge,
            _place: place,
            value_charge: None,
        }));
        self.in_order.insert(Arc::clone(&name), slot);
        self.by_name.insert(self.by_name.hash(&name), slot);
        Ok(slot)
    }

    /// Keeps `payload`, charged to `account`, as the last value of the topic in `slot`, if there is room. Returns whether
    /// there was.
    pub fn keep(&mut self, slot: u32, ts: u64, kind: Kind, payload: &[u8], account: Option<&Arc<Account>>) -> bool {
        let Some(topic) = self.slots[slot as usize].topic.as_deref_mut() else { return false };
        let room = topic.room_for(payload.len());
        let others = self.value_bytes - topic.value_room();
        let spare = if topic.last.is_none() { self.value_bytes_max / VALUES_SPARE } else { 0 };
        if others + room > self.value_bytes_max - spare || !topic.charge_value(room, account) {
            (topic.last, topic.value_charge) = (None, None);
            self.value_bytes = others;
            return false;
        }
        let last = topic.last.get_or_insert_with(|| LastValue { ts, kind, payload: Arc::default() });
        (last.ts, last.kind) = (ts, kind);
        match Arc::get_mut(&mut last.payload) {
            Some(buffer) if buffer.capacity() == room => {
                buffer.clear();
                buffer.extend_from_slice(payload);
            }
            Some(buffer) => *buffer = payload.to_vec(),
            None => last.payload = Arc::new(payload.to_vec()),
        }
        self.value_bytes = others + topic.value_room();
        debug_assert_eq!(topic.value_room(), room);
        true
    }

    /// Forgets the topic in `slot` and its last value. What it was is returned, to be freed where nobody waits.
    pub fn forget(&mut self, slot: u32) -> Option<Box<Topic>> {
        self.looked(1);
        let entry = &mut self.slots[slot as usize];
        let topic = entry.topic.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.value_bytes -= topic.value_room();
        self.by_name.remove(self.by_name.hash(&topic.name), |other| *other == slot);
        self.in_order.remove(&topic.name);
        self.resting.insert((topic.end, slot));
        self.forgotten = self.forgotten.max(topic.end);
        self.epoch += 1;
        Some(topic)
    }

    /// Makes slots of forgotten topics available of which nothing is at `tail` or behind it any more, some at a time.
    pub fn rest_until(&mut self, tail: u64) {
        for _ in 0..RESTED_AT_ONCE {
            if self.resting.first().is_none_or(|(end, _)| *end > tail) {
                return;
            }
            self.looked(1);
            self.free.extend(self.resting.pop_first().map(|(_, slot)| slot));
        }
    }

    /// Lets go, for the topics in these slots, of what is known of publications before `tail`, where the tape begins.
    /// Returns room that is to be freed where nobody waits.
    pub fn trim(&mut self, slots: Range<u32>, tail: u64) -> Vec<VecDeque<u64>> {
        let slots = slots.start as usize..self.slots.len().min(slots.end as usize);
        self.looked(slots.len());
        self.slots[slots].iter_mut().filter_map(|slot| slot.topic.as_deref_mut()?.trim(tail)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Moment,
        limits::{Bounds, Limits, Quota},
    };

    impl Registry {
        fn get(&mut self, name: &str, account: Option<&Arc<Account>>) -> Result<&mut Topic, RegistryFull> {
            self.find_or_make(name, account, || Ok(None))
        }
    }

    #[test]
    fn a_name_is_checked_when_a_topic_is_made_and_not_again() {
        let mut registry = Registry::new(2, 100, 7);
        let refused = |registry: &mut Registry| {
            registry.find_or_make("a", None, || Err(RegistryFull::Address { max: 9 })).is_err()
        };
        assert!(refused(&mut registry));
        assert_eq!(registry.len(), 0);
        registry.get("a", None).unwrap();
        assert!(!refused(&mut registry));
    }

    #[test]
    fn a_forgotten_topic_comes_back_with_another_epoch_and_generation() {
        let mut registry = Registry::new(2, 100, 7);
        let first = registry.get("a", None).unwrap();
        let (id, epoch) = (first.id, first.epoch);
        registry.forget(id.slot);
        registry.rest_until(0);
        assert!(registry.find("a").is_none());
        let again = registry.get("a", None).unwrap();
        assert_eq!(again.id.slot, id.slot);
        assert_ne!(again.id, id);
        assert_ne!(again.epoch, epoch);
        assert_eq!(again.seq, 0);
    }

    #[test]
    fn a_slot_rests_while_the_tape_has_publications_of_its_topic() {
        let mut registry = Registry::new(2, 100, 7);
        let topic = registry.get("a", None).unwrap();
        topic.end = 5;
        let slot = topic.id.slot;
        registry.forget(slot);
        registry.rest_until(4);
        assert_ne!(registry.get("b", None).unwrap().id.slot, slot);
        registry.rest_until(5);
        assert_eq!(registry.get("c", None).unwrap().id.slot, slot);
    }

    #[test]
    fn one_topic_too_many_is_refused_and_the_others_stay() {
        let mut registry = Registry::new(2, 100, 7);
        registry.get("a", None).unwrap();
        registry.get("b", None).unwrap();
        assert_eq!(registry.get("c", None).unwrap_err(), RegistryFull::Table { max: 2 });
        assert_eq!(registry.get("a", None).unwrap().name.as_ref(), "a");
        assert_eq!(registry.len(), 2);
    }

    #[test]
    fn values_beyond_their_bound_are_not_kept() {
        let mut registry = Registry::new(2, 10, 7);
        let a = registry.get("a", None).unwrap().id.slot;
        let b = registry.get("b", None).unwrap().id.slot;
        assert!(registry.keep(a, 1, Kind::Text, b"12345678", None));
        assert!(!registry.keep(b, 1, Kind::Text, b"123", None));
        assert!(registry.keep(a, 2, Kind::Text, b"12", None));
        assert!(registry.keep(b, 2, Kind::Text, b"123", None));
        assert_eq!(registry.value_bytes(), 5);
        assert_eq!(registry.find("a").unwrap().last.as_ref().unwrap().payload.as_slice(), b"12");
    }

    /// An account that may have so much of each table.
    fn account(most: usize) -> Arc<Account> {
        let connects = Quota::new("0".parse().unwrap());
        let bounds = Bounds { connections: 1, assembly: 0, held: 0, connects, shares: [most; 8] };
        Limits::new(&bounds, 64).account("192.0.2.1".parse().unwrap(), Moment::default())
    }

    #[test]
    fn a_topic_is_charged_to_whoever_was_first_until_it_is_forgotten() {
        let (mut registry, one) = (Registry::new(10, 100, 7), account(2));
        let a = registry.get("a", Some(&one)).unwrap().id.slot;
        registry.get("b", Some(&one)).unwrap();
        assert_eq!(registry.get("c", Some(&one)).unwrap_err(), RegistryFull::Address { max: 2 });
        assert_eq!(registry.get("a", Some(&one)).unwrap().name.as_ref(), "a");
        let c = registry.get("c", None).unwrap().id.slot;
        assert_eq!((registry.len(), one.used(Table::Topics)), (3, 2));
        registry.get("c", Some(&one)).expect("it is another's");
        registry.forget(a);
        registry.forget(c);
        assert_eq!(one.used(Table::Topics), 1);
        registry.get("d", Some(&one)).unwrap();
        drop(registry);
        assert_eq!(one.used(Table::Topics), 0);
    }

    #[test]
    fn a_value_is_charged_to_whoever_published_it() {
        let (mut registry, one, two) = (Registry::new(10, 1000, 7), account(16), account(16));
        let slots = ["a", "b"].map(|name| registry.get(name, Some(&one)).unwrap().id.slot);
        let mut keep = |slot: usize, len: usize, account| {
            registry.keep(slots[slot], 1, Kind::Text, &b"0123456789abcdefg"[..len], account)
        };
        assert!(!keep(0, 15, Some(&one)), "new values leave an eighth");
        assert!(keep(0, 14, Some(&one)) && keep(0, 16, Some(&one)) && keep(0, 6, Some(&one)));
        assert!(!keep(1, 9, Some(&one)) && keep(1, 8, Some(&one)));
        assert_eq!((one.used(Table::Values), two.used(Table::Values)), (14, 0));
        assert!(keep(0, 16, Some(&two)));
        assert_eq!((one.used(Table::Values), two.used(Table::Values)), (8, 16));
        assert!(!keep(0, 17, Some(&two)), "then it has none");
        assert_eq!((one.used(Table::Values), two.used(Table::Values)), (8, 0));
        assert!(keep(0, 17, None) && keep(1, 17, None), "the server's own");
        assert_eq!((one.used(Table::Values), registry.value_bytes()), (0, 34));
        assert!(registry.keep(slots[0], 1, Kind::Text, b"12", Some(&one)));
        registry.forget(slots[0]);
        assert_eq!((one.used(Table::Values), registry.value_bytes()), (0, 17));
    }

    #[test]
    fn new_values_leave_an_eighth_to_those_that_are_there() {
        let mut registry = Registry::new(4, 16, 7);
        let slots = ["a", "b", "c"].map(|name| registry.get(name, None).unwrap().id.slot);
        assert!(registry.keep(slots[0], 1, Kind::Text, b"1234567", None));
        assert!(registry.keep(slots[1], 1, Kind::Text, b"1234567", None));
        assert!(!registry.keep(slots[2], 1, Kind::Text, b"1", None));
        assert!(registry.keep(slots[0], 1, Kind::Text, b"123456789", None));
        assert!(!registry.keep(slots[1], 1, Kind::Text, b"12345678", None));
    }

    #[test]
    fn a_large_value_that_a_small_one_follows_gives_its_room_back_and_room_is_what_counts() {
        let mut registry = Registry::new(10, 10_000, 7);
        for n in 0..10u8 {
            let slot = registry.get(&n.to_string(), None).unwrap().id.slot;
            assert!(registry.keep(slot, 1, Kind::Text, &[b'x'; 4096], None), "{n}");
            assert!(registry.keep(slot, 2, Kind::Text, b"1", None));
        }
        let rooms = |registry: &Registry| (0..10).filter_map(|slot| registry.at(slot)).map(Topic::value_room).sum();
        assert_eq!((registry.value_bytes(), rooms(&registry)), (10, 10));
        registry.keep(0, 3, Kind::Text, &[b'x'; 100], None);
        registry.keep(0, 4, Kind::Text, &[b'x'; 60], None);
        assert_eq!((registry.value_bytes(), rooms(&registry)), (109, 109), "what varies a little keeps its room");
    }

    #[test]
    fn a_topic_that_has_gone_quiet_keeps_nothing_of_what_the_tape_has_let_go_of() {
        let mut registry = Registry::new(10, 100, 7);
        for at in 0..100_000 {
            registry.get("a", None).unwrap().number(at, 1, 0, 0);
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
            registry.get("a", None).unwrap().number(at, 1, 0, 100_000);
        }
        assert_eq!(registry.at(0).unwrap().near(100_010), Some(100_015));
    }

    #[test]
    fn a_snapshot_in_hand_is_not_rewritten() {
        let mut registry = Registry::new(1, 100, 7);
        let slot = registry.get("a", None).unwrap().id.slot;
        registry.keep(slot, 1, Kind::Text, b"old", None);
        let held = registry.find("a").unwrap().last.clone().unwrap();
        registry.keep(slot, 2, Kind::Text, b"new", None);
        assert_eq!(held.payload.as_slice(), b"old");
        assert_eq!(registry.find("a").unwrap().last.as_ref().unwrap().payload.as_slice(), b"new");
    }

    #[test]
    fn topics_are_found_in_order_and_no_forgotten_ones() {
        let mut registry = Registry::new(9, 100, 7);
        for name in ["c", "a", "d", "b"] {
            registry.get(name, None).unwrap();
        }
        registry.forget(registry.find("c").unwrap().id.slot);
        let names = |from: Bound<&str>| registry.from(from).map(|topic| topic.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(Bound::Unbounded), ["a", "b", "d"]);
        assert_eq!(names(Bound::Excluded("a")), ["b", "d"]);
        assert_eq!(names(Bound::Included("c")), ["d"]);
        // In the place of the forgotten one.
        registry.rest_until(0);
        registry.get("e", None).unwrap();
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
