//! Resuming: what a subscriber missed, from the tape.
//!
//! A subscription that resumes begins at one position like every other. Before it goes on from there, the connection goes
//! back to the first publication that it missed of any of the topics, and is sent exactly those of them that it missed.
//! That takes bounded steps like all marching alone, and nothing is copied beforehand. Whatever of this the tape no longer
//! has is told by a `reset`, before. A subscription of newest values resumes with the newest, as a snapshot.

use std::{borrow::Cow, collections::HashMap};

use rustc_hash::FxHashMap;

use super::{
    super::{
        Worker,
        fan::{Outcome, delivery::Delivery, send_all},
        subscribe::Found,
    },
    STEP_ENTRIES, Step,
};
use crate::{
    io::{Edge, SEND_MAX, Token},
    protocol::command::ResumePoint,
    tape::Position,
};

/// What a subscriber has missed.
#[derive(Debug)]
pub struct Resume {
    /// The first publication missed.
    pub from: Position,
    /// Where the subscription begins.
    pub until: Position,
    /// The last number seen of each topic, by its slot.
    pub seen: FxHashMap<u32, u64>,
}

/// What becomes of a topic that is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// It goes on behind this number.
    Behind(u64),
    /// That is gone, for this reason.
    Reset(&'static str),
}

impl<E: Edge> Worker<E> {
    /// Decides for each topic with a resume point what becomes of it, and what has to be sent again.
    pub fn resume(
        &mut self,
        points: &HashMap<Cow<'_, str>, ResumePoint<'_>>,
        delivery: Delivery,
        found: &[Found],
        until: Position,
    ) -> (FxHashMap<u32, Resumed>, Option<Resume>) {
        let mut outcome = FxHashMap::default();
        let mut resume = Resume { from: until, until, seen: FxHashMap::default() };
        self.reader.refresh();
        for topic in found {
            let Some(point) = points.get(&*topic.name) else { continue };
            let becomes = if point.epoch != topic.epoch {
                Resumed::Reset("epoch")
            } else if point.seq == topic.seq {
                Resumed::Behind(point.seq)
            } else if delivery != Delivery::All {
                // Its newest value is all that it missed.
                continue;
            } else {
                match topic.near.and_then(|near| self.find(Position(near), point.seq + 1)) {
                    Some(first) => {
                        resume.from = resume.from.min(first);
                        resume.seen.insert(topic.id.slot, point.seq);
                        Resumed::Behind(point.seq)
                    }
                    None => Resumed::Reset("history"),
                }
            };
            outcome.insert(topic.id.slot, becomes);
        }
        let resume = (!resume.seen.is_empty()).then_some(resume);
        (outcome, resume)
    }

    /// Where a topic's publication number `seq` is, going back from a later one at `near`; none if it is gone.
    fn find(&self, near: Position, seq: u64) -> Option<Position> {
        let mut at = near;
        while at >= self.reader.floor() {
            let mut found = None;
            self.reader.look(at, |_, entry| found = Some((entry.seq, entry.previous)));
            let (at_seq, previous) = found?;
            if at_seq <= seq {
                return (at_seq == seq).then_some(at);
            }
            at = Position(previous.checked_sub(1)?);
        }
        None
    }

    /// Sends up to one buffer of what the connection missed.
    pub fn send_missed(&mut self, token: Token) -> Step {
        let lane = self.connections[token as usize].lane();
        let (position, offset, resume) = {
            let march = self.march_of(token);
            (march.position, march.offset, march.resume.take().expect("it resumes"))
        };
        let mut bytes = std::mem::take(&mut self.gather);
        bytes.clear();
        // Where each publication ends in the buffer, and the position of it.
        let mut ends: Vec<(usize, Position)> = Vec::new();
        let mut steps = 0;
        let reached = self.reader.scan(position, resume.until, |at, base, entry| {
            if steps == STEP_ENTRIES || bytes.len() >= SEND_MAX {
                return false;
            }
            steps += 1;
            if resume.seen.get(&entry.topic.slot).is_some_and(|seen| entry.seq > *seen) {
                self.push_entry(lane, base, entry, &mut bytes);
                ends.push((bytes.len(), at));
            }
            true
        });
        self.march_of(token).resume = Some(resume);
        let begun = (offset as usize).min(bytes.len());
        let mut sends = 0;
        let outcome = if begun == bytes.len() {
            Outcome::All
        } else {
            send_all(&mut self.edge, &self.connections[token as usize].socket, &bytes[begun..], &mut sends)
        };
        let metrics = self.metrics();
        metrics.sends.add(sends);
        let step = match outcome {
            Outcome::All => {
                metrics.deliveries.add(ends.len() as u64);
                metrics.sent_bytes.add((bytes.len() - begun) as u64);
                let march = self.march_of(token);
                (march.position, march.offset) = (reached, 0);
                if sends > 0 {
                    self.connections[token as usize].sent = self.now;
                }
                if steps == STEP_ENTRIES { Step::Enough } else { Step::On }
            }
            Outcome::Full(taken) => {
                let taken = begun + taken;
                let whole = ends.partition_point(|(end, _)| *end <= taken);
                let start = whole.checked_sub(1).map_or(0, |last| ends[last].0);
                metrics.deliveries.add(whole as u64);
                metrics.sent_bytes.add((taken - begun) as u64);
                metrics.sends_full.add(1);
                let at = ends[whole].1;
                let march = self.march_of(token);
                (march.position, march.offset) = (at, (taken - start) as u32);
                Step::Full
            }
            Outcome::Broken(why) => {
                self.lost(token, why);
                Step::Gone
            }
        };
        self.gather = bytes;
        step
    }
}
