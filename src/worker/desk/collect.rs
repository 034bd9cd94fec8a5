//! A subscription on its way: what has to be found out for it, bit by bit, until it is made at one position of the tape.
//!
//! ```text
//!   check ─► claim ─► count ─► look at topics, a stretch at a time ─► what has changed since, ─► made
//!   resume   rates,   names,   and hold them against the names        again and again
//!   points   rights,  a few
//!            bounds   at once
//! ```
//!
//! Topics are looked at under the tape's lock, some hundred at a time, and only those that begin as a pattern does; they are held
//! against the names outside of it. What changed meanwhile is on the tape, where the worker reads it without a lock. In the end,
//! under the lock once more, no more than [`LAST_MAX`] publications are left: they are looked at together with the position, and
//! the subscription begins exactly there (`subscribe.rs`). If the tape rolls on over what is still to be read, all begins anew,
//! with more time at once, and no more than [`RESTARTS_MAX`] times.
//!
//! For a subscription of newest values the worker's tables have to know the number of each topic at that position. They are told of the
//! topics as these are found, and so come to the tape, and stay there, from when it is looked for the first one; they learn by themselves
//! what is published from there on.
//!
//! A subscription to every publication that wants no snapshots needs nothing of its patterns' topics: only the topics that it names
//! are looked up. One that resumes by a cursor takes those that had publications since; while it is looked where the first of these
//! are, the tape may roll on over the cursor's place. Then it begins anew as one that resets what the names stand for.
//!
//! What is refused is refused as soon as that is known, and names are counted before the first topic is looked at: the sweep of
//! topics relies on it (`control/sweep.rs`).

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use rustc_hash::FxHashMap;

use super::{
    super::{
        cursors::{Found, Resume, Resumed},
        fan::delivery::Delivery,
        work::price,
    },
    Clerk,
    asking::Job,
    finds::Finds,
    points::{Point, Since, find, first_from},
    poll::Poll,
    rights::{RIGHT, Version, asked},
};
use crate::{
    io::{Edge, Token},
    lane::Lane,
    metrics,
    protocol::{ErrorCode, Id, Look, Mode, NameSet, Sub, command::unrelated, is_pattern},
    publication::Epoch,
    tape::Position,
    topic::{Topic, TopicId},
};

/// Topics that are looked at under one hold of the tape's lock.
const LOOK_AT_ONCE: usize = 256;

/// So many topics can be looked at instead of finding where the first name is that begins in another way.
const SEEK: usize = 8;

/// Names that are counted under one hold of the table's lock.
pub const COUNT_AT_ONCE: usize = 64;

/// Publications that are left for the last look, under the tape's lock.
pub const LAST_MAX: usize = 64;

/// Publications that are gone through at once.
const SCAN_AT_ONCE: usize = 2048;

/// For how many turns a subscription of newest values waits until the tables have come to what it found, so that few topics are left to
/// tell them of at once. A worker that doesn't come on for so long has more to do than it can, and nothing is gained by more.
const WAITS_MAX: u32 = 32;

/// How often collecting begins anew, with twice the time of the last. After that nobody could collect so much while so much is
/// published.
const RESTARTS_MAX: u32 = 4;

/// What is done at once, if nothing waits: so many names, without patterns of which the topics are wanted.
const SMALL_MAX: usize = 32;

/// One step of a look at a set of names.
const STEP: u64 = 4 * price::MATCH;

/// A topic that is found: some references to it are taken.
const FIND: u64 = 2 * price::MATCH;

/// See the module's description.
pub struct Collect {
    pub id: Option<Box<str>>,
    /// Whose subscription it is, if a poll's.
    pub poll: Option<Box<Poll>>,
    pub lane: Lane,
    pub delivery: Delivery,
    pub snapshot: bool,
    /// Each once, in the order in which they were named.
    pub names: Vec<Arc<str>>,
    /// How many of them are patterns.
    patterns: usize,
    set: NameSet,
    /// Where to resume, by the topics' names.
    pub points: Vec<(Box<str>, Point)>,
    /// Where to resume all of them.
    pub since: Since,
    /// What was missed since then, of the topics that were found.
    pub missed: Resume,
    phase: Phase,
    /// Those of the names that the connection doesn't have yet, and how many of these are counted.
    fresh: Vec<u32>,
    counted: usize,
    /// The topics to be looked up.
    exact: Vec<Box<str>>,
    /// What names of topics begin with that are still to be looked at, and where the first of these goes on.
    ranges: Vec<Box<str>>,
    after: Option<Arc<str>>,
    /// Topics to be held against the names, and how far that is for the last of them.
    candidates: Vec<(TopicId, Arc<str>)>,
    look: Option<Look>,
    /// Topics to be taken.
    matched: Vec<u32>,
    /// The topics that are wanted.
    pub found: Finds,
    /// Those of them that the worker's tables are still to be told of; those of these that they have not come to when it was last looked; and
    /// for when the tables know the others.
    untold: Vec<u32>,
    late: Vec<u32>,
    waits: u32,
    era: u64,
    /// It keeps the tables at the tape.
    keeps: bool,
    /// Those of them that are named themselves, or to be resumed.
    named: HashMap<Arc<str>, u32>,
    /// Every publication before this was seen to.
    scanned: Position,
    /// Topics that had publications behind it.
    changed: BTreeSet<u32>,
    /// Topics that had some and that no name stands for, with their generations.
    strangers: FxHashMap<u32, u32>,
    /// About how many bytes what was found comes to.
    pub bytes: usize,
    asked_bytes: usize,
    restarts: u32,
    /// What rules and revocations were as of when its holder was found to be allowed all of it.
    allowed: Option<Version>,
}

enum Phase {
    /// The names are put in order.
    Sort,
    /// Resume points from this one on are still to be checked.
    Check(usize),
    /// What it may have is found out.
    Claim,
    Count,
    Gather,
}

/// Why a command is refused.
pub type Refused = (ErrorCode, String);

/// A topic that is wanted, and a position near the first publication that was missed of it.
type Taken = (Found, Option<u64>);

/// What a piece of the work came to.
enum Piece {
    /// There is more to do.
    On,
    /// There is more to do, which this step has no room for.
    Later,
    Done,
}

/// The topics as they are at a position of the tape.
pub struct AsOf {
    pub position: Position,
    /// What a topic would begin in that is made now.
    pub epoch: Epoch,
}

impl Collect {
    /// A subscription as it was asked for.
    pub fn new(id: Option<Id<'_>>, lane: Lane, sub: &Sub<'_>, since: Since) -> Collect {
        let names: Vec<Arc<str>> = sub.topics.iter().map(|name| Arc::from(&**name)).collect();
        let delivery = Delivery::of(sub);
        let mut points: Vec<_> =
            sub.from.iter().map(|(topic, point)| (Box::from(&**topic), Point::of(point))).collect();
        points.sort_unstable_by(|(a, _): &(Box<str>, Point), (b, _)| a.cmp(b));
        let point_bytes = |(topic, point): &(Box<str>, Point)| 2 * topic.len() + point.epoch.len() + 64;
        Collect {
            id: id.map(|id| id.json().into()),
            poll: None,
            lane,
            delivery,
            snapshot: sub.snapshot,
            patterns: names.iter().filter(|name| is_pattern(name)).count(),
            asked_bytes: names.iter().map(|name| 2 * name.len() + 64).sum::<usize>()
                + points.iter().map(point_bytes).sum::<usize>(),
            names,
            set: NameSet::default(),
            points,
            since,
            missed: Resume::default(),
            phase: Phase::Sort,
            fresh: Vec::new(),
            counted: 0,
            exact: Vec::new(),
            ranges: Vec::new(),
            after: None,
            candidates: Vec::new(),
            look: None,
            matched: Vec::new(),
            found: Finds::default(),
            untold: Vec::new(),
            late: Vec::new(),
            waits: 0,
            era: 0,
            keeps: false,
            named: HashMap::new(),
            scanned: Position(0),
            changed: BTreeSet::new(),
            strangers: FxHashMap::default(),
            bytes: 0,
            restarts: 0,
            allowed: None,
        }
    }

    /// Bytes of memory that it takes: what was asked for, and what was found. (The values that were found are others' too; they count
    /// once they wait to be sent.)
    pub fn held(&self) -> usize {
        let listed = (self.candidates.capacity() + self.matched.capacity() + self.changed.len()) * 2 * size_of::<u64>();
        let listed = listed + (self.untold.capacity() + self.late.capacity()) * size_of::<u32>();
        self.asked_bytes
            + self.found.held()
            + self.missed.held()
            + listed
            + self.strangers.capacity() * 2 * size_of::<u32>()
    }

    /// Whether it keeps the tables at the tape.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    /// How often it has begun anew.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Whether it is done at once, if nothing waits.
    pub fn is_small(&self) -> bool {
        !self.takes_patterns() && self.names.len() + self.points.len() <= SMALL_MAX
    }

    /// Whether anything is wanted of the topics that a pattern stands for.
    fn takes_patterns(&self) -> bool {
        self.patterns > 0 && (self.snapshot || self.delivery != Delivery::All || self.since != Since::Now)
    }

    /// The topic of this name, if it is among those that were named, or that are resumed, and is there.
    pub fn named(&self, name: &str) -> Option<&Found> {
        self.found.get(*self.named.get(name)?)
    }

    /// The same, to be changed.
    pub fn named_mut(&mut self, name: &str) -> Option<&mut Found> {
        self.found.get_mut(*self.named.get(name)?)
    }

    /// Whether a topic was named itself.
    pub fn names_it(&self, topic: &str) -> bool {
        self.patterns < self.names.len() && self.set.has(topic)
    }

    /// Whether anything is wanted of any topic before the first publication.
    fn looks(&self) -> bool {
        self.takes_patterns() || self.patterns < self.names.len() || !self.points.is_empty()
    }

    /// Where the topic of this name is to be resumed.
    fn point(&self, topic: &str) -> Option<&Point> {
        let at = self.points.binary_search_by(|(other, _)| (**other).cmp(topic)).ok()?;
        Some(&self.points[at].1)
    }

    /// Takes a topic, if there is anything to be said or known of it.
    fn take(&self, topic: &Topic) -> Option<Taken> {
        let in_full = self.delivery == Delivery::All;
        if let Since::Place { at, begins } = self.since {
            let near = topic.near_from(at.0);
            if in_full && !begins && near.is_none() && !self.names_it(&topic.name) {
                return None;
            }
            // What follows in full needs no value; of what doesn't, the newest is all that was missed.
            let wants_value = if near.is_none() { begins && self.snapshot } else { !in_full };
            return Some((Found::of(topic, wants_value), near));
        }
        let point = self.point(&topic.name).filter(|_| in_full);
        Some((Found::of(topic, self.snapshot), point.and_then(|point| topic.near(point.seq + 1))))
    }

    /// Whether the place to resume from is gone from a tape with this floor.
    fn is_beyond(&self, floor: Position) -> bool {
        matches!(self.since, Since::Place { at, .. } if at < floor)
    }

    fn keep(&mut self, found: Found) {
        let slot = found.id.slot;
        if self.names_it(&found.name) || self.point(&found.name).is_some() {
            self.named.insert(Arc::clone(&found.name), slot);
        }
        self.bytes += found.bytes();
        let before = self.found.insert(found);
        self.bytes -= before.map_or(0, |before| before.bytes());
    }

    /// Whether a topic is wanted, as far as that is known without holding it against the names.
    fn knows(&self, id: TopicId) -> bool {
        self.found.get(id.slot).is_some_and(|found| found.id == id)
    }

    /// All that was found is out of date.
    fn restart(&mut self) -> Result<(), Refused> {
        self.restarts += 1;
        if self.restarts > RESTARTS_MAX {
            let message = "more is published than topics can be looked at meanwhile: ask for fewer, or for no snapshot";
            return Err((ErrorCode::TooManyTopics, message.to_owned()));
        }
        self.candidates.clear();
        self.matched.clear();
        (self.look, self.after) = (None, None);
        (self.found, self.named, self.changed, self.strangers, self.untold, self.late) = Default::default();
        self.bytes = 0;
        self.missed = Resume::default();
        self.begin_looking();
        Ok(())
    }

    fn begin_looking(&mut self) {
        let exact = self.names.iter().filter(|name| !is_pattern(name)).map(|name| Box::from(&**name));
        self.exact = exact.chain(self.points.iter().map(|(topic, _)| topic.clone())).collect();
        // The first one is taken from the end.
        self.ranges = if self.takes_patterns() { self.set.beginnings() } else { Vec::new() };
        self.ranges.reverse();
    }

    /// What making it costs at once.
    fn price_of_making(&self, set: usize) -> u64 {
        let (names, points) = (self.names.len() as u64, self.points.len() as u64);
        names * (4 * price::MATCH) + points * (2 * price::MATCH) + set as u64 * (2 * price::LOOK)
    }
}

impl<E: Edge> Clerk<'_, E> {
    /// Goes on with a subscription; returns it if there is more to do.
    pub fn go_on_collecting(&mut self, token: Token, mut collect: Box<Collect>) -> Option<Job> {
        if matches!(collect.phase, Phase::Gather) {
            // It stays ahead of the tape's end for as long as it has its turns.
            self.read_on(&mut collect);
        }
        loop {
            match self.collect_some(token, &mut collect) {
                Ok(Piece::On) if self.has_time() => {}
                Ok(Piece::On | Piece::Later) => return Some(Job::Sub(collect)),
                Ok(Piece::Done) => return collect.poll.take().map(Job::Poll),
                Err((code, message)) => {
                    let names = self.give_up(token, &mut collect);
                    if let Some(poll) = &collect.poll {
                        self.refuse_poll(token, poll, code, &message);
                        self.part_with(token, names);
                        return None;
                    }
                    let id = collect.id.as_deref().map(Id::again);
                    match code {
                        ErrorCode::Forbidden => self.tell_uncovered(token, id, &collect.names, &message),
                        code => self.error(token, id, code, &message),
                    }
                    return self.work_on(token, Job::Uncount(names));
                }
            }
        }
    }

    /// A subscription isn't made. Returns its names that are counted for it.
    pub fn give_up(&mut self, token: Token, collect: &mut Collect) -> Vec<Arc<str>> {
        let Collect { fresh, counted, names, .. } = collect;
        self.unclaim(token, fresh.len() - *counted);
        let held = fresh.drain(..).take(std::mem::take(counted));
        let names: Vec<Arc<str>> = held.map(|name| Arc::clone(&names[name as usize])).collect();
        if std::mem::take(&mut collect.keeps) {
            self.fan.interest.let_go_of_tables();
        }
        if self.fan.interest.is_empty() {
            self.ground.reader.detach();
        }
        names
    }

    /// One piece of the work.
    fn collect_some(&mut self, token: Token, collect: &mut Collect) -> Result<Piece, Refused> {
        let names = collect.names.len() as u64;
        match collect.phase {
            Phase::Sort => {
                self.ground.work.charge(names * 2 * price::MATCH);
                collect.set = NameSet::new(collect.names.clone());
                collect.phase = Phase::Check(0);
            }
            Phase::Check(next) => match collect.points.get(next) {
                Some((topic, _)) if collect.patterns > 0 => {
                    let (steps, stands) = self.hold(&collect.set, &mut collect.look, topic);
                    self.ground.work.charge(steps);
                    match stands {
                        Some(true) => collect.phase = Phase::Check(next + 1),
                        Some(false) => return Err((ErrorCode::BadTopic, unrelated(topic))),
                        None => {}
                    }
                }
                _ => collect.phase = Phase::Claim,
            },
            Phase::Claim => {
                self.ground.work.charge(names * (2 * price::MATCH + RIGHT));
                self.check_rights_of(token, collect)?;
                collect.fresh = self.claim(token, collect.delivery, &collect.names)?;
                collect.phase = Phase::Count;
            }
            Phase::Count => {
                if collect.counted == collect.fresh.len() {
                    collect.phase = Phase::Gather;
                    if collect.delivery != Delivery::All {
                        self.fan.come(self.ground);
                        self.fan.interest.keep();
                        collect.keeps = true;
                    }
                    collect.scanned = self.ground.reader.refresh();
                    // From here on no topic is forgotten that a name stands for.
                    if let Since::Place { at, .. } = collect.since
                        && at.0 < self.ground.tape.with_topics(|topics, _| topics.forgotten())
                    {
                        collect.since = Since::Lost;
                    }
                    collect.begin_looking();
                    return Ok(Piece::On);
                }
                let counted = self.count_names(&collect.fresh, &collect.names, collect.counted)?;
                let (from, names) = (collect.counted, &mut collect.names);
                collect.counted += counted.len();
                for (at, name) in collect.fresh[from..].iter().zip(counted) {
                    names[*at as usize] = name;
                }
            }
            Phase::Gather => return self.gather(token, collect),
        }
        Ok(Piece::On)
    }

    /// Holds all names against the rights of its holder.
    fn check_rights_of(&self, token: Token, collect: &mut Collect) -> Result<(), Refused> {
        let how = match &collect.poll {
            Some(poll) if poll.is_latest() => (Mode::Latest, None),
            Some(_) => (Mode::All, None),
            None => asked(collect.delivery),
        };
        let allowed = self.check_rights(token, collect.names.iter().map(|name| &**name), how);
        allowed.inspect_err(|_| self.ground.shared.metrics.refuse(metrics::Refusal::Forbidden))?;
        collect.allowed = Some(self.version());
        Ok(())
    }

    /// The same before it is made, if something about rights has changed since, or its holder's may have ended.
    fn check_rights_again(&mut self, token: Token, collect: &mut Collect) -> Result<(), Refused> {
        if collect.allowed == Some(self.version()) && self.has_not_ended(token) {
            return Ok(());
        }
        self.ground.work.charge(collect.names.len() as u64 * RIGHT);
        self.check_rights_of(token, collect)
    }

    /// Goes on holding a topic against the names. Returns what that costs, and what came of it, if it has come to an end.
    fn hold(&self, set: &NameSet, look: &mut Option<Look>, topic: &str) -> (u64, Option<bool>) {
        let look_on = look.get_or_insert_with(|| {
            let mut look = Look::default();
            set.begin(&mut look);
            look
        });
        let most = SEEK * LOOK_AT_ONCE / 4;
        let mut steps = most;
        let stands = set.go_on(look_on, topic, &mut steps);
        if stands.is_some() {
            *look = None;
        }
        ((most - steps) as u64 * STEP + price::LOOK, stands)
    }

    /// One piece of looking at topics.
    fn gather(&mut self, token: Token, collect: &mut Collect) -> Result<Piece, Refused> {
        let floor = self.ground.reader.floor();
        if collect.is_beyond(floor) {
            collect.since = Since::Lost;
            collect.restart()?;
            collect.scanned = self.ground.reader.refresh();
        } else if collect.scanned < floor {
            collect.restart()?;
            collect.scanned = self.ground.reader.refresh();
        } else if !collect.candidates.is_empty() {
            self.sift(collect);
        } else if !collect.matched.is_empty() {
            self.take_matched(collect);
            self.check_bytes(token, collect)?;
        } else if !collect.exact.is_empty() {
            self.take_exact(collect);
            self.check_bytes(token, collect)?;
        } else if !collect.ranges.is_empty() {
            self.list_stretch(collect);
        } else if !collect.changed.is_empty() {
            self.list_changed(collect);
        } else {
            let is_all = self.read_on(collect);
            if collect.changed.is_empty() && is_all && collect.scanned >= self.ground.reader.floor() {
                return self.make(token, collect);
            }
        }
        Ok(Piece::On)
    }

    /// Holds the topics that were listed against the names.
    fn sift(&mut self, collect: &mut Collect) {
        while let Some((id, name)) = collect.candidates.last()
            && self.has_time()
        {
            let stands = if collect.takes_patterns() {
                let (cost, stands) = self.hold(&collect.set, &mut collect.look, name);
                self.ground.work.charge(cost);
                stands
            } else {
                self.ground.work.charge(price::MATCH);
                Some(collect.set.has(name) || collect.point(name).is_some())
            };
            let id = *id;
            match stands {
                None => continue,
                Some(true) => collect.matched.push(id.slot),
                Some(false) if collect.ranges.is_empty() => drop(collect.strangers.insert(id.slot, id.generation)),
                Some(false) => {}
            }
            collect.candidates.pop();
        }
    }

    /// Takes some of the topics that names stand for.
    fn take_matched(&mut self, collect: &mut Collect) {
        let some = collect.matched.split_off(collect.matched.len().saturating_sub(LOOK_AT_ONCE));
        let taken = self.ground.tape.with_topics(|topics, _| {
            some.iter().filter_map(|slot| topics.at(*slot)).filter_map(|topic| collect.take(topic)).collect()
        });
        self.keep_taken(collect, taken);
    }

    /// Takes some of the topics that are named.
    fn take_exact(&mut self, collect: &mut Collect) {
        let some: Vec<_> = collect.exact.drain(..collect.exact.len().min(LOOK_AT_ONCE)).collect();
        self.ground.work.charge(some.len() as u64 * price::MATCH);
        let taken = self.ground.tape.with_topics(|topics, _| {
            some.iter().filter_map(|name| topics.find(name)).filter_map(|topic| collect.take(topic)).collect()
        });
        self.keep_taken(collect, taken);
    }

    fn keep_taken(&mut self, collect: &mut Collect, taken: Vec<Taken>) {
        self.ground.work.charge(taken.len() as u64 * FIND);
        if taken.iter().any(|(_, near)| near.is_some()) {
            self.ground.reader.refresh();
        }
        for (mut found, near) in taken {
            match collect.since {
                Since::Place { at, begins } => self.place(collect, &mut found, near, (at, begins)),
                Since::Lost => found.becomes = Some(Resumed::Reset("cursor")),
                Since::Now => {}
            }
            let point = near.filter(|_| collect.since == Since::Now);
            let point = point.and_then(|near| Some((near, collect.point(&found.name)?.seq + 1)));
            if let Some((near, seq)) = point {
                let (looks, missed) = find(&self.ground.reader, Position(near), seq);
                self.ground.work.charge(looks * price::LOOK);
                found.missed = missed;
            }
            self.tell_tables(collect, &found);
            collect.keep(found);
        }
    }

    /// Decides what becomes of a topic that is resumed from a place on the tape; `near` the first publication that was missed, if
    /// there is one.
    fn place(&mut self, collect: &mut Collect, found: &mut Found, near: Option<u64>, (at, begins): (Position, bool)) {
        let Some(near) = near else {
            found.becomes = (!begins).then_some(Resumed::Behind(found.seq));
            return;
        };
        let (looks, first) = first_from(&self.ground.reader, Position(near), at);
        self.ground.work.charge(looks * price::LOOK);
        found.becomes = match first {
            // With it the place itself is gone, and all begins anew.
            None => Some(Resumed::Reset("cursor")),
            Some((missed, seq)) if collect.delivery == Delivery::All => {
                collect.missed.note(found.id.slot, missed, seq);
                Some(Resumed::Behind(seq - 1))
            }
            Some((_, seq)) => (!begins).then_some(Resumed::Newest(seq)),
        };
    }

    /// Notes a topic that was found in the worker's tables, if it is for a subscription of newest values, and the tables have come to
    /// its newest publication.
    fn tell_tables(&mut self, collect: &mut Collect, found: &Found) {
        let interest = &mut self.fan.interest;
        if collect.delivery == Delivery::All {
            return;
        }
        if collect.found.is_empty() {
            collect.era = interest.era();
        }
        if collect.era == interest.era() && !interest.is_empty() && found.end <= interest.position.0 {
            interest.note_known(found.id, &found.name, found.seq);
        } else {
            collect.untold.push(found.id.slot);
        }
    }

    /// Tells the tables of topics that they have come to meanwhile, until few are left that have to be told of at once, or it has waited for
    /// long enough. Returns whether there is more to do before, and at once or in another turn.
    fn bring_tables_near(&mut self, collect: &mut Collect) -> Option<Piece> {
        if collect.delivery == Delivery::All || collect.waits == WAITS_MAX {
            return None;
        }
        let Clerk { ground, fan, .. } = self;
        let position = fan.position();
        if collect.untold.len() > SCAN_AT_ONCE {
            let some = collect.untold.split_off(collect.untold.len().saturating_sub(LOOK_AT_ONCE));
            ground.work.charge(some.len() as u64 * 2 * price::LOOK);
            for topic in some.into_iter().filter_map(|slot| collect.found.get(slot)) {
                if topic.end <= position.0 {
                    fan.interest.note_known(topic.id, &topic.name, topic.seq);
                } else {
                    collect.late.push(topic.id.slot);
                }
            }
            return Some(Piece::On);
        }
        collect.untold.append(&mut collect.late);
        let is_near = ground.tape.head().0.saturating_sub(position.0) <= SCAN_AT_ONCE as u64;
        if is_near && collect.untold.len() <= SCAN_AT_ONCE {
            return None;
        }
        collect.waits += 1;
        Some(Piece::Later)
    }

    /// Notes the other topics, of a subscription that begins at `position`: with their numbers as of where the tables are.
    pub fn tell_tables_of_all(&mut self, collect: &mut Collect, position: Position) {
        let Clerk { ground, fan, .. } = self;
        let mut untold = std::mem::take(&mut collect.untold);
        if collect.era != fan.interest.era() {
            untold = collect.found.iter().map(|found| found.id.slot).collect();
        }
        let from = fan.position().max(ground.reader.floor()).min(position);
        let looks = if untold.is_empty() { 0 } else { position.0 - from.0 };
        ground.work.charge((looks + 2 * untold.len() as u64) * price::LOOK);
        let mut first = FxHashMap::default();
        ground.reader.scan(from, Position(from.0 + looks), |entry| {
            first.entry(entry.topic.slot).or_insert((entry.previous, entry.seq - 1));
            true
        });
        for topic in untold.into_iter().filter_map(|slot| collect.found.get(slot)) {
            let (end, seq) = first.get(&topic.id.slot).copied().unwrap_or((topic.end, topic.seq));
            // What lies between the worker and the tape's floor is noted when the worker gets there.
            if end <= fan.position().0 {
                fan.interest.note_known(topic.id, &topic.name, seq);
            }
        }
    }

    /// Lists the next topics that begin as a pattern does.
    fn list_stretch(&mut self, collect: &mut Collect) {
        let Collect { ranges, after, candidates, .. } = collect;
        let looks = self.ground.tape.with_topics(|topics, _| {
            let mut looks = 0;
            while looks < LOOK_AT_ONCE
                && let Some(range) = ranges.last()
            {
                looks += SEEK;
                let from = after.as_deref().map_or(Bound::Included(&**range), Bound::Excluded);
                let mut is_done = true;
                for topic in topics.from(from).take_while(|topic| topic.name.starts_with(&**range)) {
                    looks += 1;
                    candidates.push((topic.id, Arc::clone(&topic.name)));
                    if looks >= LOOK_AT_ONCE {
                        is_done = false;
                        break;
                    }
                }
                *after = candidates.last().map(|(_, name)| Arc::clone(name)).filter(|_| !is_done);
                if is_done {
                    ranges.pop();
                }
            }
            looks
        });
        // The first one is taken from the end, so that they are found in their order.
        candidates.reverse();
        self.ground.work.charge(looks as u64 * 2 * price::LOOK);
    }

    /// Lists some of the topics that have changed since they were looked at.
    fn list_changed(&mut self, collect: &mut Collect) {
        let some: Vec<u32> = std::iter::from_fn(|| collect.changed.pop_first()).take(LOOK_AT_ONCE).collect();
        self.ground.work.charge(some.len() as u64 * 2 * price::LOOK);
        let Collect { found, strangers, candidates, matched, .. } = collect;
        let unknown: Vec<u32> = some
            .into_iter()
            .filter(|slot| {
                // Whatever a name stands for isn't forgotten: its slot is still its own.
                let is_known = found.get(*slot).is_some();
                if is_known {
                    matched.push(*slot);
                }
                !is_known
            })
            .collect();
        self.ground.tape.with_topics(|topics, _| {
            let topics = unknown.iter().filter_map(|slot| topics.at(*slot));
            let strange = |topic: &&Topic| strangers.get(&topic.id.slot) != Some(&topic.id.generation);
            candidates.extend(topics.filter(strange).map(|topic| (topic.id, Arc::clone(&topic.name))));
        });
    }

    /// Notes which topics had publications, as far as the tape reaches. Returns whether that was all.
    fn read_on(&mut self, collect: &mut Collect) -> bool {
        let head = self.ground.reader.refresh();
        if self.fan.interest.is_empty() {
            // Nobody else is sent anything from here.
            self.ground.reader.trim_before(self.ground.reader.floor());
        }
        if !collect.looks() {
            collect.scanned = head;
        }
        if collect.scanned < self.ground.reader.floor() {
            return false;
        }
        let before = collect.scanned;
        let Collect { scanned, changed, .. } = collect;
        let mut left = SCAN_AT_ONCE;
        *scanned = self.ground.reader.scan(*scanned, head, |entry| {
            if left == 0 {
                return false;
            }
            left -= 1;
            changed.insert(entry.topic.slot);
            true
        });
        self.ground.work.charge((scanned.0 - before.0) * 2 * price::LOOK);
        *scanned == head
    }

    /// Refuses what would come to more answers than may wait.
    fn check_bytes(&self, token: Token, collect: &Collect) -> Result<(), Refused> {
        let pending = self.pending(token) + collect.bytes + collect.asked_bytes / 2;
        let most = self.ground.settings.pending_max;
        if pending <= most {
            return Ok(());
        }
        Err((
            ErrorCode::TooManyTopics,
            format!(
                "the snapshots need {pending} bytes or more, --max-pending allows {most}: ask for fewer topics, or for no snapshot"
            ),
        ))
    }

    /// Makes the subscription, if little enough was published since everything was looked at.
    fn make(&mut self, token: Token, collect: &mut Collect) -> Result<Piece, Refused> {
        let set = self.names_of(token).len();
        let cost = collect.price_of_making(set);
        if !self.ground.work.has_room_for(cost) {
            return Ok(Piece::Later);
        }
        if let Some(piece) = self.bring_tables_near(collect) {
            return Ok(piece);
        }
        self.fan.attach(self.ground, collect.lane);
        let Some((as_of, taken)) = self.look_at_last(collect) else {
            self.fan.detach(self.ground, collect.lane);
            return Ok(Piece::On);
        };
        let wanted = |(found, _): &Taken| {
            collect.knows(found.id)
                || if collect.takes_patterns() {
                    collect.set.stands_for(&found.name)
                } else {
                    collect.set.has(&found.name) || collect.point(&found.name).is_some()
                }
        };
        let taken: Vec<_> = taken.into_iter().filter(wanted).collect();
        self.keep_taken(collect, taken);
        self.ground.work.charge(cost);
        if collect.is_beyond(self.ground.reader.floor()) {
            self.fan.detach(self.ground, collect.lane);
            return Ok(Piece::On);
        }
        let allowed = self.check_rights_again(token, collect).and_then(|()| self.check_bytes(token, collect));
        let concluded = allowed.and_then(|()| match collect.poll {
            Some(_) => self.conclude_poll(token, collect, &as_of),
            None => self.conclude(token, collect, &as_of),
        });
        if let Err(refused) = concluded {
            self.fan.detach(self.ground, collect.lane);
            return Err(refused);
        }
        if std::mem::take(&mut collect.keeps) {
            self.fan.interest.let_go_of_tables();
        }
        Ok(Piece::Done)
    }

    /// Takes the topics that have changed since all were looked at, together with the position; none if these may be many.
    fn look_at_last(&self, collect: &Collect) -> Option<(AsOf, Vec<Taken>)> {
        let tape = &self.ground.tape;
        if !collect.looks() {
            return Some(tape.with_topics(|topics, position| (AsOf { position, epoch: topics.epoch() }, Vec::new())));
        }
        tape.with_changed(collect.scanned, LAST_MAX, |topics, slots, position| {
            let taken = slots.iter().filter_map(|slot| topics.at(*slot)).filter_map(|topic| collect.take(topic));
            (AsOf { position, epoch: topics.epoch() }, taken.collect())
        })
    }
}
