//! Where each topic stands: what it is numbered by, which number came last, and what an arriving number therefore is: the next, one had before, one behind a gap, or the first of something new.

use std::collections::{HashMap, VecDeque};

use crate::{
    event::{Event, Gap, Reset, Status, Update},
    messages::Publication,
    names::{Point, is_pattern, matches},
    subscription::{From, How, Mode},
};

/// The connection is of no use any more.
#[derive(Debug)]
pub(crate) struct Broken(pub String);

/// A name that the program has subscribed to.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    pub how: How,
    /// Which call of the program's it came with.
    pub call: u64,
    /// Names of other calls must not go in one command with it.
    pub is_alone: bool,
    /// What the server has agreed to, on this connection: mode and rate.
    pub agreed: Option<(Mode, Option<f64>)>,
    /// It was asked for again, on this connection, without those that it was refused with: what was asked before says nothing of it.
    pub again: bool,
    /// A server has agreed to it before.
    pub is_old: bool,
    /// Its last values have come.
    pub is_told: bool,
    /// All topics that there were have been heard of: those that are not known are new.
    pub knows_all: bool,
    /// Every publication was to come, and the connection was lost: what came into being meanwhile is missing.
    pub misses: bool,
}

/// Where a topic stands.
#[derive(Clone, Debug, Default)]
struct Place {
    epoch: Option<String>,
    /// The last number that came, or was left out.
    seq: Option<u64>,
    /// Numbers have to come one after the other.
    gapless: bool,
    /// It is as it was before the connection was lost, and nothing was heard of it since.
    before: bool,
    /// The first number of a gap, which was asked for once.
    gap: Option<u64>,
}

impl Place {
    /// Whether a number is the one that is to come, or one that may.
    fn is_next(&self, seq: u64) -> bool {
        !self.before && self.seq.is_some_and(|had| seq > had && (seq - had == 1 || !self.gapless))
    }
}

fn updated(found: &Publication<'_>, epoch: String) -> Update {
    Update {
        topic: found.topic.to_owned(),
        seq: found.seq,
        ts: found.ts,
        epoch,
        is_snapshot: found.is_snapshot,
        is_key: false,
        is_stale: false,
        is_binary: false,
        raw: found.raw.to_owned(),
    }
}

/// What comes, or stands in the place of what would.
pub(crate) enum Arrival {
    Update(Update),
    Gap(Gap),
}

impl Arrival {
    fn into_event(self) -> Event {
        match self {
            Arrival::Update(update) => Event::Update(update),
            Arrival::Gap(gap) => Event::Gap(gap),
        }
    }

    fn is_key(&self) -> bool {
        matches!(self, Arrival::Update(update) if update.is_key)
    }

    /// Of a gap, no more than what begins here.
    fn begin_at(&mut self, least: u64) {
        if let Arrival::Gap(gap) = self {
            gap.first = gap.first.max(least);
        }
    }
}

/// The names that are wanted, and the topics that they have brought.
pub(crate) struct Topics {
    pub wants: HashMap<String, Want>,
    pub events: VecDeque<Event>,
    patterns: Vec<String>,
    places: HashMap<String, Place>,
    topics_max: usize,
    /// There were more topics than are remembered: one that isn't known may be old.
    has_forgotten: bool,
    /// Topics that are new among the last values that are coming began while the connection was lost.
    pub was_away: bool,
    /// After a loss, until all last values have come: it was resumed by a cursor.
    pub by_cursor: bool,
    /// The server has said that what one stood at is void.
    pub is_void: bool,
    /// Something is missing, and is to be asked for by its topic's own point.
    pub has_gap: bool,
}

impl Topics {
    pub fn new(topics_max: usize) -> Topics {
        Topics {
            wants: HashMap::new(),
            events: VecDeque::new(),
            patterns: Vec::new(),
            places: HashMap::new(),
            topics_max,
            has_forgotten: false,
            was_away: false,
            by_cursor: false,
            is_void: false,
            has_gap: false,
        }
    }

    // ---- What comes ----------------------------------------------------------------------------------------------------

    /// A publication as nearly all are.
    pub fn publication(&mut self, found: &Publication<'_>) -> Result<(), Broken> {
        let Publication { is_snapshot, topic, seq, .. } = *found;
        // As nearly all of these are: the next, of a topic that one knows.
        if let Some(place) = self.places.get_mut(topic).filter(|_| !is_snapshot && found.epoch.is_none())
            && place.is_next(seq)
        {
            place.seq = Some(seq);
            let epoch = place.epoch.clone().unwrap_or_default();
            self.events.push_back(Event::Update(updated(found, epoch)));
            return Ok(());
        }
        let update = updated(found, found.epoch.unwrap_or_default().to_owned());
        match found.epoch {
            Some(epoch) if is_snapshot => self.stand(topic, seq, seq, epoch, Arrival::Update(update)),
            None if is_snapshot => return Err(Broken("a snapshot that lacks what it should have: epoch".into())),
            epoch => return self.arrive(topic, seq, seq, epoch, Arrival::Update(update)),
        }
        Ok(())
    }

    /// Publications `first` to `last` of a topic, or what stands in their place.
    pub fn arrive(
        &mut self,
        topic: &str,
        first: u64,
        last: u64,
        epoch: Option<&str>,
        mut what: Arrival,
    ) -> Result<(), Broken> {
        let Some(mut place) = self.take(topic) else { return Ok(()) };
        if place.before {
            self.rejoin(topic, &mut place, first, last, epoch);
        }
        if let Some(epoch) = epoch.filter(|epoch| place.epoch.as_deref() != Some(epoch)) {
            if place.epoch.is_some() && place.seq.is_some_and(|seq| seq > 0) {
                self.reset_to(topic, Some(epoch), first.saturating_sub(1), "epoch");
            }
            (place.epoch, place.seq) = (Some(epoch.into()), None);
        }
        if let Some(had) = place.seq {
            if last <= had {
                self.put(topic, place);
                return Ok(()); // Had before.
            }
            if place.gapless && first > had + 1 {
                let outcome = self.gap(topic, &mut place, had + 1, first - 1);
                if outcome.is_err() {
                    self.put(topic, place);
                    return outcome;
                }
            }
            what.begin_at(had + 1);
        }
        place.seq = Some(last);
        if let (Arrival::Update(update), Some(epoch)) = (&mut what, &place.epoch) {
            update.epoch.clone_from(epoch);
        }
        self.put(topic, place);
        self.events.push_back(what.into_event());
        Ok(())
    }

    /// A last value, or what stands in its place: the last ones that are not coming.
    pub fn stand(&mut self, topic: &str, first: u64, last: u64, epoch: &str, mut what: Arrival) {
        let is_new = !self.places.contains_key(topic);
        let Some(mut place) = self.take(topic) else { return };
        let is_key = what.is_key();
        if place.before {
            let had = place.seq.filter(|_| place.epoch.as_deref() == Some(epoch));
            self.rejoin(topic, &mut place, first, last, Some(epoch));
            if place.seq == Some(last) && !is_key {
                return self.put(topic, place); // As it was left.
            }
            if let Some(had) = had.filter(|had| (first..last).contains(had)) {
                what.begin_at(had + 1);
            }
        } else if is_new && self.was_away && !self.has_forgotten && first > 1 {
            self.tell_gap(topic, 1, first - 1, "reconnect", epoch);
        }
        if place.epoch.as_deref() == Some(epoch) && place.seq.is_some_and(|seq| last < seq) && !is_key {
            return self.put(topic, place); // Newer ones came already.
        }
        (place.epoch, place.seq) = (Some(epoch.into()), Some(last));
        self.put(topic, place);
        self.events.push_back(what.into_event());
    }

    /// Publications that the server leaves out.
    pub fn skip(&mut self, topic: &str, first: u64, last: u64, epoch: Option<&str>, why: &str) -> Result<(), Broken> {
        let gap = |epoch: Option<&str>| Gap {
            topic: topic.into(),
            first,
            last,
            why: why.into(),
            epoch: epoch.unwrap_or_default().into(),
        };
        if why == "too_large" {
            // In the place of updates; or of a snapshot, which says the epoch, as a topic's first publication does.
            let is_first =
                first == 1 && self.places.get(topic).is_none_or(|place| !place.before && place.seq == Some(0));
            return match epoch {
                Some(epoch) if !is_first => {
                    self.stand(topic, first, last, epoch, Arrival::Gap(gap(Some(epoch))));
                    Ok(())
                }
                _ => self.arrive(topic, first, last, epoch, Arrival::Gap(gap(epoch))),
            };
        }
        let Some(mut place) = self.take(topic) else { return Ok(()) };
        if place.before {
            self.rejoin(topic, &mut place, first, last, epoch);
        }
        place.seq = Some(last);
        let epoch = place.epoch.clone();
        self.put(topic, place);
        self.events.push_back(Event::Gap(gap(epoch.as_deref())));
        Ok(())
    }

    /// The server says that a topic can't be continued.
    pub fn reset(&mut self, topic: &str, epoch: &str, seq: u64, why: &str) {
        self.is_void = true;
        let Some(mut place) = self.take(topic) else { return };
        (place.epoch, place.seq, place.before) = (Some(epoch.into()), Some(seq), false);
        self.put(topic, place);
        self.reset_to(topic, Some(epoch), seq, why);
    }

    // ---- Losing a connection, and coming back --------------------------------------------------------------------------

    /// There is no connection any more: nothing is known to go on.
    pub fn lost(&mut self) {
        for place in self.places.values_mut() {
            (place.before, place.gapless) = (true, false);
        }
        for want in self.wants.values_mut() {
            want.misses |= want.knows_all && want.has_all();
            (want.agreed, want.again) = (None, false);
        }
    }

    /// Where the topics of names were left: those that are names themselves, and as many others as there is room to name.
    pub fn left(&self, names: &[String], room: &mut i64) -> HashMap<String, Point> {
        let mut points = HashMap::new();
        for topic in self.covered(names) {
            let Some(Place { before: true, seq: Some(seq), epoch: Some(epoch), .. }) = self.places.get(&topic) else {
                continue;
            };
            if !self.wants.contains_key(&topic) {
                *room -= 1;
                if *room < 0 {
                    continue;
                }
            }
            points.insert(topic, (epoch.clone(), *seq));
        }
        points
    }

    /// The server says where a topic stands as it begins to send it.
    pub fn acknowledged(&mut self, topic: &str, epoch: &str, seq: u64, point: Option<&Point>) {
        let Some(mut place) = self.take(topic) else { return };
        if let Some((wanted, had)) = point {
            // It goes on from there, or with a reset.
            (place.seq, place.before) = (Some(if wanted == epoch { *had } else { seq }), false);
            place.epoch = Some(epoch.into());
        } else if place.before {
            let snapshot = self.wants.get(topic).is_none_or(|want| want.how.snapshot);
            if self.by_cursor {
                // It goes on, or there will be a reset.
            } else if place.epoch.as_deref() != Some(epoch) {
                self.rejoin(topic, &mut place, seq + 1, seq, Some(epoch));
                (place.epoch, place.seq) = (Some(epoch.into()), Some(seq));
            } else if !snapshot {
                self.rejoin(topic, &mut place, seq + 1, seq, Some(epoch));
                place.seq = Some(seq);
            }
        } else {
            (place.epoch, place.seq) = (Some(epoch.into()), Some(seq));
        }
        self.put(topic, place);
    }

    /// After a loss all last values have come: who was not heard of is gone, or can't be known to go on.
    pub fn settle(&mut self) {
        let goes_on = self.by_cursor && !self.is_void;
        self.by_cursor = false;
        let mut gone = Vec::new();
        self.places.retain(|topic, place| {
            if !place.before {
                return true;
            }
            if goes_on && place.gapless {
                place.before = false;
                return true;
            }
            gone.extend(place.seq.is_some().then(|| topic.clone()));
            false
        });
        gone.sort_unstable();
        for topic in gone {
            self.reset_to(&topic, None, 0, "reconnect");
        }
    }

    // ---- Names ---------------------------------------------------------------------------------------------------------

    /// The topics that names stand for, as far as they are known.
    fn covered(&self, names: &[String]) -> Vec<String> {
        if names.iter().any(|name| is_pattern(name)) {
            let is_meant = |topic: &&String| names.iter().any(|name| matches(name, topic));
            return self.places.keys().filter(is_meant).cloned().collect();
        }
        names.iter().filter(|name| self.places.contains_key(*name)).cloned().collect()
    }

    pub fn list_patterns(&mut self) {
        self.patterns = self.wants.keys().filter(|name| is_pattern(name)).cloned().collect();
    }

    /// These begin now, where they weren't without a gap before.
    pub fn start_anew(&mut self, names: &[String], points: &HashMap<String, Point>) {
        for topic in self.covered(names) {
            if let Some(place) = self.places.get_mut(&topic).filter(|place| !place.before && !place.gapless)
                && !points.contains_key(&topic)
            {
                place.seq = None;
            }
        }
    }

    /// The server has agreed to other things for these: whether their topics come without a gap.
    pub fn measure(&mut self, names: &[String]) {
        for topic in self.covered(names) {
            let gapless = self.is_gapless(&topic);
            if let Some(place) = self.places.get_mut(&topic) {
                place.gapless = gapless;
            }
        }
    }

    /// Of topics that nobody wants any more, nothing is kept.
    pub fn forget(&mut self, ended: &[String]) {
        self.list_patterns();
        for topic in self.covered(ended) {
            if !self.is_wanted(&topic) {
                self.places.remove(&topic);
            }
        }
        self.measure(ended);
    }

    /// Every topic that is remembered is known to be all that there are.
    pub fn knows_all(&self) -> bool {
        !self.has_forgotten
    }

    fn is_wanted(&self, topic: &str) -> bool {
        self.wants.contains_key(topic) || self.patterns.iter().any(|name| matches(name, topic))
    }

    fn is_gapless(&self, topic: &str) -> bool {
        // Where names overlap, the server delivers the most of what they say.
        let is_all = |name: &str| self.wants.get(name).is_some_and(Want::has_all);
        is_all(topic) || self.patterns.iter().any(|name| matches(name, topic) && is_all(name))
    }

    // ---- One topic -----------------------------------------------------------------------------------------------------

    /// Something of a topic comes after a loss: says what is missing, or that it can't be known.
    fn rejoin(&mut self, topic: &str, place: &mut Place, first: u64, last: u64, epoch: Option<&str>) {
        place.before = false;
        // Measured anew: the loss made it one that may have holes.
        place.gapless = self.is_gapless(topic);
        let goes_on = self.by_cursor && !self.is_void && place.gapless;
        let Some(had) = place.seq else { return };
        if goes_on && epoch.is_none_or(|epoch| place.epoch.as_deref() == Some(epoch)) {
            return;
        }
        if epoch.is_none() || place.epoch.as_deref() != epoch || last < had {
            place.seq = None;
            self.reset_to(topic, epoch, first.saturating_sub(1), "reconnect");
        } else if last > had {
            place.seq = None;
            if first > had + 1 && place.gapless {
                self.tell_gap(topic, had + 1, first - 1, "reconnect", epoch.unwrap_or_default());
            }
        }
    }

    /// What must not happen: something is missing before a number. Comes back for it; if it isn't there then either, it is a gap.
    fn gap(&mut self, topic: &str, place: &mut Place, first: u64, last: u64) -> Result<(), Broken> {
        if place.gap == Some(first) {
            place.gap = None;
            self.tell_gap(topic, first, last, "missing", place.epoch.as_deref().unwrap_or_default());
            return Ok(());
        }
        (place.gap, self.has_gap) = (Some(first), true);
        let why = format!("{topic}: {first} to {last} did not arrive; they are asked for again");
        let status =
            Status { code: "gap".into(), topics: vec![topic.into()], message: why.clone(), ..Status::default() };
        self.events.push_back(Event::Status(status));
        Err(Broken(why))
    }

    fn tell_gap(&mut self, topic: &str, first: u64, last: u64, why: &str, epoch: &str) {
        let gap = Gap { topic: topic.into(), first, last, why: why.into(), epoch: epoch.into() };
        self.events.push_back(Event::Gap(gap));
    }

    fn reset_to(&mut self, topic: &str, epoch: Option<&str>, seq: u64, why: &str) {
        let reset = Reset { topic: topic.into(), epoch: epoch.unwrap_or_default().into(), seq, why: why.into() };
        self.events.push_back(Event::Reset(reset));
    }

    /// Where a topic stands, to be put back; none if nobody wants it: then it was on its way when we left.
    fn take(&mut self, topic: &str) -> Option<Place> {
        if !self.is_wanted(topic) {
            return None;
        }
        let known = self.places.get_mut(topic).map(std::mem::take);
        Some(known.unwrap_or_else(|| Place { gapless: self.is_gapless(topic), ..Place::default() }))
    }

    fn put(&mut self, topic: &str, place: Place) {
        if let Some(known) = self.places.get_mut(topic) {
            *known = place;
        } else if self.places.len() < self.topics_max {
            self.places.insert(topic.to_owned(), place);
        } else {
            self.has_forgotten = true;
        }
    }
}

impl Want {
    /// Whether every publication comes, on this connection.
    pub fn has_all(&self) -> bool {
        self.agreed.is_some_and(|(mode, _)| mode == Mode::All)
    }

    pub fn new(how: How) -> Want {
        Want {
            how,
            call: 0,
            is_alone: false,
            agreed: None,
            again: false,
            is_old: false,
            is_told: false,
            knows_all: false,
            misses: false,
        }
    }

    /// Whether names go in one command: all of this has to be the same.
    pub fn is_alike(&self, other: &Want) -> bool {
        let start = |want: &Want| match &want.how.from {
            Some(From::Cursor(cursor)) => Some(cursor.clone()),
            _ => None,
        };
        (self.how.mode, self.how.rate, self.how.snapshot) == (other.how.mode, other.how.rate, other.how.snapshot)
            && (self.is_old, self.is_told) == (other.is_old, other.is_told)
            && start(self) == start(other)
            && (self.call == other.call || !(self.is_alone || other.is_alone))
    }
}
