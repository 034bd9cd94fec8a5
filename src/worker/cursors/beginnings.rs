//! What a subscription begins with: the topics as it found them, which become resets and snapshots as the client takes them.
//!
//! A topic is held as it was found, with a reference to its last value, which others share who hold the same; it becomes a
//! message only when there is room for it. So a subscriber that reads nothing costs some hundred bytes a topic and not its
//! values, and no turn writes more than one buffer of them. What is answered meanwhile comes behind. Who can't ask
//! whether all is there (`/sse`) is told when it is, behind what was missed as well (`resume.rs`).

use std::{sync::Arc, vec};

use crate::{
    lane::Lane,
    protocol::{Reply, cursor::Word},
    publication::{Epoch, Kind},
    tape::Position,
    topic::{LastValue, Topic, TopicId},
};

/// A topic as a new subscriber finds it.
#[derive(Debug)]
pub struct Found {
    pub id: TopicId,
    pub name: Arc<str>,
    pub epoch: Epoch,
    pub seq: u64,
    /// The position after its newest publication.
    pub end: u64,
    /// Its last value, if the subscriber wants that and there is one.
    pub last: Option<LastValue>,
    /// Where its first publication is that the subscriber has missed, if the tape has it.
    pub missed: Option<Position>,
    pub becomes: Option<Resumed>,
}

/// What becomes of a topic that is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// It goes on behind this number.
    Behind(u64),
    /// From this number on it was missed, and its newest value stands for all of that.
    Newest(u64),
    /// That is gone, for this reason.
    Reset(&'static str),
}

/// See the module's description.
#[derive(Debug)]
pub struct Beginnings {
    /// In the order in which they are said.
    pub topics: vec::IntoIter<Found>,
    /// Topics to be resumed that are gone altogether, and the epoch that they would begin in.
    pub gone: Vec<Box<str>>,
    pub epoch: Epoch,
    /// Up to where everything was told before the last of them, and with it.
    pub cursors: [Word; 2],
    /// What was answered to later commands.
    pub after: Vec<u8>,
    /// Among that is that the server stops: if there is no time left for all of it, that goes before the rest.
    pub tells_draining: bool,
    /// What is left of it will come to about so many bytes.
    pub bytes: usize,
}

/// What a message has around a topic's name and its value, and about what is held of a topic until it is one.
const AROUND: usize = 96;

impl Found {
    /// `wants_value` says whether its last value is to be sent.
    pub fn of(topic: &Topic, wants_value: bool) -> Found {
        Found {
            id: topic.id,
            name: Arc::clone(&topic.name),
            epoch: topic.epoch,
            seq: topic.seq,
            end: topic.end,
            last: topic.last.clone().filter(|_| wants_value),
            missed: None,
            becomes: None,
        }
    }

    /// About how many bytes the messages come to with which it begins.
    pub fn bytes(&self) -> usize {
        let Some(last) = &self.last else { return 0 };
        let len = last.payload.len();
        // Quotes and line ends of text take another byte each.
        let len = match last.kind {
            Kind::Json => len,
            Kind::Text | Kind::Plain => len + len / 8,
            Kind::TooLarge => 0,
            Kind::Binary => len.div_ceil(3) * 4,
        };
        AROUND + self.name.len() + len
    }

    /// Appends the messages with which it begins. A topic that is resumed in full needs no snapshot.
    fn push(&self, lane: Lane, cursor: Word, out: &mut Vec<u8>) {
        let words = lane.words();
        let (topic, epoch, seq) = (&*self.name, &*self.epoch.to_string(), self.seq);
        match self.becomes {
            Some(Resumed::Behind(_)) => return,
            Some(Resumed::Reset(why)) => words.push_reply(out, &Reply::Reset { topic, epoch, seq, why }),
            Some(Resumed::Newest(from)) => {
                // Where its value was not kept, that is left out as well.
                let to = if self.last.is_some() { seq - 1 } else { seq };
                if from <= to {
                    words.push_reply(out, &Reply::Skip { topic, epoch: None, from, to, why: "slow" });
                }
            }
            None => {}
        }
        if let Some(last) = &self.last {
            let (ts, payload) = (last.ts, last.payload());
            words.push_reply(out, &Reply::Snapshot { topic, epoch, seq, ts, payload, cursor });
        }
    }
}

impl Beginnings {
    /// Appends messages to `out` until that has `most` bytes, or it was so many topics, or there are no more. Returns how many it
    /// was.
    pub fn push_some(&mut self, lane: Lane, out: &mut Vec<u8>, most: usize, topics_most: u64) -> u64 {
        let mut topics = 0;
        while out.len() < most
            && topics < topics_most
            && let Some(found) = self.topics.next()
        {
            let is_last = self.is_over();
            found.push(lane, self.cursors[usize::from(is_last)], out);
            self.bytes = self.bytes.saturating_sub(found.bytes());
            topics += 1;
        }
        let epoch = self.epoch.to_string();
        while self.topics.as_slice().is_empty()
            && out.len() < most
            && topics < topics_most
            && let Some(topic) = self.gone.pop()
        {
            let gone = Reply::Reset { topic: &topic, epoch: &epoch, seq: 0, why: "epoch" };
            lane.words().push_reply(out, &gone);
            topics += 1;
        }
        if self.is_over() {
            // To send what was missed may take long.
            self.topics = Vec::new().into_iter();
        }
        topics
    }

    /// Whether nothing is left of it but what comes behind.
    pub fn is_over(&self) -> bool {
        self.topics.as_slice().is_empty() && self.gone.is_empty()
    }

    /// About how many bytes wait with it.
    pub fn waiting(&self) -> usize {
        self.bytes + self.gone.len() * AROUND + self.after.len()
    }
}
