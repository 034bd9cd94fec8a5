//! What a subscriber of newest values, of rates, or one that resumes, must be sent: topic by topic.
//!
//! [`Client`](super::client::Client) follows one order of everything and must be sent all of it; this one keeps a book of the
//! last number of each topic, and knows for every gap whether it may be there and who has to say so.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::{client::Journal, place::Place};
use crate::topic::script::stands_for;

/// How a name is delivered; the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    All,
    Latest,
    /// Updates a second.
    Rate(u32),
}

impl Way {
    pub fn fields(self) -> String {
        match self {
            Way::All => r#""mode":"all""#.into(),
            Way::Latest => r#""mode":"latest""#.into(),
            Way::Rate(rate) => format!(r#""mode":"latest","rate":{rate}"#),
        }
    }

    pub fn query(self) -> String {
        match self {
            Way::All => "mode=all".into(),
            Way::Latest => "mode=latest".into(),
            Way::Rate(rate) => format!("mode=latest&rate={rate}"),
        }
    }
}

/// A subscription that was asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    pub names: Vec<String>,
    pub way: Way,
    pub snapshot: bool,
    /// Where to resume, for some of the topics.
    pub from: BTreeMap<String, (String, u64)>,
    /// Where to resume all of them, instead.
    pub cursor: Option<Place>,
}

impl Wish {
    pub fn command(&self, id: u64) -> String {
        let names = serde_json::to_string(&self.names).unwrap();
        let from = match &self.cursor {
            Some(place) => serde_json::to_string(&place.word).unwrap(),
            None => serde_json::to_string(&self.from).unwrap(),
        };
        let (way, snapshot) = (self.way.fields(), self.snapshot);
        format!(r#"{{"op":"sub","id":{id},"topics":{names},{way},"snapshot":{snapshot},"from":{from}}}"#)
    }
}

/// What is known of one topic.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// The last number; what follows is a gap or goes on from it. None if nobody has told.
    last: Option<u64>,
    /// A gap that was announced.
    skip: Option<(u64, u64)>,
    epoch: Option<String>,
}

/// The book of one client.
#[derive(Debug, Default)]
pub struct Book {
    names: BTreeMap<String, Way>,
    topics: HashMap<String, Seen>,
    /// Nothing without a rate comes from before this.
    at: usize,
    /// How long the journal was when the last change was acknowledged.
    acked_at: usize,
    /// Topics that it has been told to have begun anew since the last acknowledgement.
    wished: Option<Wish>,
    /// Topics that have to be reset before anything else of them, and whether any was.
    lost: BTreeSet<String>,
    has_reset: bool,
    /// Topics that it is sent in full by another name than those that go on with newest values from a place, and the last number
    /// that it had of each. What is told of them from that place on it was sent before.
    again: HashMap<String, Option<u64>>,
    pub skipped: u64,
}

impl Book {
    fn way(&self, topic: &str) -> Option<Way> {
        self.names.iter().filter(|(name, _)| stands_for(name, topic)).map(|(_, way)| *way).min()
    }

    /// Whether it may be told that it lags.
    pub fn in_full(&self) -> bool {
        self.names.values().any(|way| *way == Way::All)
    }

    /// Some points to resume from: what it knows, or something that is surely gone.
    pub fn points(&self, topics: &[String], back: u64) -> BTreeMap<String, (String, u64)> {
        let point = |topic: &String| {
            let seen = self.topics.get(topic)?;
            Some((topic.clone(), (seen.epoch.clone()?, seen.last?.saturating_sub(back))))
        };
        topics.iter().filter_map(point).collect()
    }

    /// A subscription without words begins; where, nobody tells.
    pub fn begin(&mut self, wish: &Wish) {
        self.names.extend(wish.names.iter().map(|name| (name.clone(), wish.way)));
    }

    /// By now the connection is open.
    pub fn opened(&mut self, journal: &Journal) {
        self.acked_at = journal.len();
    }

    /// Whether it was promised what it missed.
    pub fn resumes(&self) -> bool {
        let is_from = |wish: &Wish| !wish.from.is_empty() || wish.cursor.is_some();
        self.wished.as_ref().is_some_and(|wish| wish.way == Way::All && is_from(wish))
    }

    /// `asked_at` is how long the journal was when it was asked.
    pub fn acked(&mut self, wish: Wish, topics: &Value, text: &str, journal: &Journal, asked_at: usize) {
        let topics = topics.as_array().unwrap();
        assert_eq!(topics.len(), wish.names.len(), "{text}");
        let before: Vec<(String, Option<Way>)> =
            self.topics.keys().map(|topic| (topic.clone(), self.way(topic))).collect();
        self.names.extend(wish.names.iter().map(|name| (name.clone(), wish.way)));
        for (topic, way) in before {
            let now = self.way(&topic);
            let rated = |way: Option<Way>| matches!(way, Some(Way::Rate(_)));
            if (way != now && now == Some(Way::All)) || (rated(way) && !rated(now)) {
                // Nobody has told from which number on it is contiguous now.
                self.topics.get_mut(&topic).unwrap().last = None;
            }
        }
        for (told, name) in topics.iter().zip(&wish.names) {
            assert_eq!(told["topic"], name.as_str());
            assert_eq!(told["mode"], if wish.way == Way::All { "all" } else { "latest" });
            assert_eq!(told["rate"].as_f64(), if let Way::Rate(rate) = wish.way { Some(rate.into()) } else { None });
            let Some(seq) = told["seq"].as_u64() else { continue };
            let seen = self.topics.entry(name.clone()).or_default();
            let from = wish.from.get(name).map(|(_, from)| *from);
            let from = from.or(wish.cursor.as_ref().map(|place| journal.seq_at(name, place.at as usize)));
            let resumed = wish.way == Way::All && from == Some(seq);
            assert!(resumed || seen.last.is_none_or(|last| last <= seq), "{text} after {seen:?}");
            *seen = Seen { last: Some(seq), skip: None, epoch: told["epoch"].as_str().map(Into::into) };
            assert!(seq <= journal.seq_at(name, journal.len()), "{text}");
        }
        if wish.way == Way::All && !wish.from.is_empty() {
            // It goes back to what it missed, also of topics that a pattern stands for.
            self.at = 0;
            for (topic, (_, seq)) in &wish.from {
                self.topics.entry(topic.clone()).or_default().last = Some(*seq);
            }
        }
        if let Some(place) = &wish.cursor {
            self.resumed(&wish, place, journal, asked_at);
        }
        if wish.snapshot {
            // Whatever has a value comes as a snapshot now; what has none begins with number 1.
            let wanted = |topic: &&String| wish.names.iter().any(|name| stands_for(name, topic));
            let fresh: Vec<String> = journal.topics().filter(wanted).cloned().collect();
            for topic in fresh {
                // What is resumed from its newest number needs none.
                let from = wish.from.get(&topic).map_or(0, |(_, seq)| *seq);
                let seen = self.topics.entry(topic).or_default();
                seen.last = seen.last.or(Some(from));
            }
        }
        self.acked_at = journal.len();
        self.wished = Some(wish);
    }

    /// It goes on from a place of the journal, if that is one.
    fn resumed(&mut self, wish: &Wish, place: &Place, journal: &Journal, asked_at: usize) {
        if wish.way == Way::All {
            self.at = 0;
        }
        (self.has_reset, self.again) = (false, HashMap::new());
        let wanted = |topic: &&String| wish.names.iter().any(|name| stands_for(name, topic));
        for topic in journal.topics().filter(wanted) {
            if place.is_one() {
                let is_again = wish.way != Way::All && self.way(topic) == Some(Way::All);
                let seen = self.topics.entry(topic.clone()).or_default();
                if is_again {
                    self.again.insert(topic.clone(), seen.last);
                }
                (seen.last, seen.skip) = (Some(journal.seq_at(topic, place.at as usize)), None);
            } else if journal.seq_at(topic, asked_at) > 0 {
                self.lost.insert(topic.clone());
            }
        }
    }

    /// Everything that comes before this place was told: nothing older is to come.
    pub fn is_told(&self, place: &Place, journal: &Journal, text: &str) {
        for (topic, seen) in &self.topics {
            let (Some(way), Some(last)) = (self.way(topic), seen.last) else { continue };
            let last = seen.skip.map_or(last, |(_, to)| to);
            let (before, newest) = (journal.seq_at(topic, place.at as usize), journal.seq_at(topic, journal.len()));
            let follows = way != Way::All && before < newest;
            assert!(last >= before || follows, "{topic} {before} wasn't told at {}: {seen:?}, {text}", place.at);
        }
        assert!(self.lost.is_empty(), "{:?} weren't reset: {text}", self.lost);
    }

    /// All values were told that there were.
    pub fn current(&mut self) {
        assert!(self.lost.is_empty(), "{:?} weren't reset", self.lost);
        if let Some(wish) = &mut self.wished {
            (wish.snapshot, wish.cursor) = (false, None);
        }
    }

    pub fn ended(&mut self, names: &[String]) {
        for name in names {
            self.names.remove(name);
        }
        let gone: Vec<String> = self.topics.keys().filter(|topic| self.way(topic).is_none()).cloned().collect();
        for topic in gone {
            self.topics.remove(&topic);
        }
        self.wished = None;
    }

    pub fn snapshot(&mut self, topic: &str, seq: u64, epoch: &str) {
        assert!(self.awaits_snapshots(), "a snapshot unasked");
        assert!(!self.lost.contains(topic), "{topic} wasn't reset");
        let cursor = self.wished.as_ref().and_then(|wish| Some((wish.way, wish.cursor.as_ref()?)));
        if let Some((way, place)) = cursor.filter(|_| !self.has_reset) {
            assert!(way != Way::All || place.begins, "a snapshot of {topic}, which is resumed in full");
            let from = self.topics.get(topic).and_then(|seen| Some(seen.skip.map_or(seen.last?, |(_, to)| to)));
            let is_next = from.is_some_and(|from| seq == from + 1);
            assert!(place.begins || is_next, "snapshot {topic} {seq} after {from:?}");
        }
        let again = self.told_again(topic).flatten();
        assert!(again.is_none_or(|last| last == seq), "snapshot {topic} {seq} when it was sent {again:?}");
        let seen = self.topics.entry(topic.to_owned()).or_default();
        assert!(seen.last.is_none_or(|last| last <= seq), "snapshot {topic} {seq} after {seen:?}");
        *seen = Seen { last: Some(seq), skip: None, epoch: Some(epoch.to_owned()) };
    }

    pub fn reset(&mut self, topic: &str, seq: u64, epoch: &str, why: &str, journal: &Journal, tail: usize) {
        let wish = self.wished.as_ref().expect("a reset of something that was resumed");
        match (&wish.cursor, wish.from.get(topic), why) {
            (Some(place), _, "cursor") => {
                let is_good = place.is_one() && place.at as usize >= tail;
                assert!(!is_good, "{place:?} is good, the tape begins at {tail}");
                self.has_reset = true;
                self.lost.remove(topic);
            }
            (None, Some((asked, _)), "epoch") => assert_ne!(asked, epoch),
            (None, Some((_, from)), "history") => {
                assert!(journal.find(topic, from + 1) < tail, "{topic} {from} is still on the tape");
            }
            _ => panic!("{topic} is reset for {why}"),
        }
        self.topics.insert(topic.to_owned(), Seen { last: Some(seq), skip: None, epoch: Some(epoch.to_owned()) });
    }

    pub fn skip(&mut self, topic: &str, from: u64, to: u64) {
        let again = self.told_again(topic);
        let may = |way: &Way| *way != Way::All || again.is_some_and(|last| last.is_none_or(|last| to + 1 == last));
        let way = self.way(topic).filter(may).unwrap_or_else(|| panic!("{topic} may not be skipped"));
        let seen = self.topics.entry(topic.to_owned()).or_default();
        // What was left out may be told in several pieces; what was left out for the rate isn't told.
        let next = seen.skip.map_or_else(|| seen.last.map(|last| last + 1), |(_, to)| Some(to + 1));
        let fits = |next: u64| if matches!(way, Way::Rate(_)) { next <= from } else { next == from };
        assert!(from <= to && next.is_none_or(fits), "skip {topic} {from} {to} after {seen:?}");
        seen.skip = Some((seen.skip.map_or(from, |(first, _)| first), to));
        self.skipped += to - from + 1;
    }

    /// Of a topic that is sent in full, but may be told again from a place on, the last number that it had.
    fn told_again(&self, topic: &str) -> Option<Option<u64>> {
        self.wished.as_ref().filter(|wish| wish.cursor.is_some() && !self.has_reset)?;
        self.again.get(topic).copied()
    }

    /// Whether snapshots may still come.
    pub fn awaits_snapshots(&self) -> bool {
        let newest = |wish: &Wish| wish.cursor.is_some() && wish.way != Way::All;
        self.wished.as_ref().is_some_and(|wish| wish.snapshot || newest(wish))
    }

    /// Whether a value that was published at this place of the journal may come as a snapshot, and not as what was missed, or as
    /// what is new.
    pub fn awaits_snapshot_at(&self, at: usize) -> bool {
        let follows = |wish: &Wish| {
            let place = wish.cursor.as_ref().filter(|_| !self.has_reset);
            // From what is no place every topic there is has a reset before its snapshot: without one it has begun since.
            place.is_some_and(|place| !place.is_one() || wish.way == Way::All && at as u64 >= place.at)
        };
        // The snapshots are as of the ack.
        at < self.acked_at && self.awaits_snapshots() && !self.wished.as_ref().is_some_and(follows)
    }

    /// A publication comes; with its epoch, if it is the topic's first.
    pub fn update(&mut self, topic: &str, seq: u64, epoch: Option<&str>, journal: &Journal) {
        let way = self.way(topic).unwrap_or_else(|| panic!("{topic} {seq} comes unasked"));
        let at = journal.find(topic, seq);
        let seen = self.topics.entry(topic.to_owned()).or_default();
        assert!(seen.last.is_none_or(|last| last < seq), "{topic} {seq} comes after {seen:?}");
        let next = seen.skip.map_or_else(|| seen.last.map(|last| last + 1), |(_, to)| Some(to + 1));
        let rated = matches!(way, Way::Rate(_));
        assert!(
            next.is_none_or(|next| if rated { next <= seq } else { next == seq }),
            "{topic} {seq} comes after {seen:?}: {way:?}"
        );
        (seen.last, seen.skip) = (Some(seq), None);
        seen.epoch = epoch.map(Into::into).or(seen.epoch.take());
        if !matches!(way, Way::Rate(_)) {
            assert!(at >= self.at, "{topic} {seq} comes out of order");
            self.at = at + 1;
        }
        // Snapshots come before.
        if let Some(wish) = &mut self.wished {
            (wish.snapshot, wish.cursor) = (false, None);
        }
        assert!(!self.lost.contains(topic), "{topic} {seq} comes without a reset");
    }

    /// As [`Book::update`], where nobody tells of gaps.
    pub fn raw_update(&mut self, topic: &str, seq: u64, journal: &Journal) {
        let seen = self.topics.entry(topic.to_owned()).or_default();
        assert!(seen.last.is_none_or(|last| last < seq), "{topic} {seq} comes after {seen:?}");
        seen.last = Some(seq);
        assert!(journal.find(topic, seq) >= self.at);
    }

    /// Everything was sent: of each topic it has the newest, publications by `not` aside, and those that are not told if `raw`.
    pub fn check_complete(&self, journal: &Journal, (not, raw): (u64, bool), tail: usize) {
        for topic in journal.topics().filter(|topic| self.way(topic).is_some()) {
            let newest = journal.newest_but(topic, not, raw);
            // Where it isn't told that the newest was too large, nor is what went before: it isn't the newest.
            let is_untold = raw && newest < journal.newest_but(topic, not, false) && self.way(topic) != Some(Way::All);
            // Behind its own, the newest of others is no last value: it goes with the tape.
            let gone = not > 0 && newest > 0 && journal.find(topic, newest) < tail;
            match self.topics.get(topic).and_then(|seen| seen.last) {
                _ if gone || is_untold => {}
                Some(last) => assert!(last == newest || not > 0 && last >= newest, "{last} of {newest} of {topic}"),
                None if newest == 0 => {}
                None => assert!(journal.find(topic, newest) < self.acked_at, "{topic} {newest} was never sent"),
            }
        }
        assert!(self.lost.is_empty(), "{:?} weren't reset", self.lost);
        let skips: BTreeSet<&String> =
            self.topics.iter().filter(|(_, seen)| seen.skip.is_some()).map(|(topic, _)| topic).collect();
        assert!(skips.is_empty(), "a skip without its update: {skips:?}");
    }
}
