//! Resuming: what a subscriber missed, from the tape.
//!
//! A subscription that resumes begins at one position like every other. Before it goes on from there, the connection goes
//! back to the first publication that it missed of any of the topics, and is sent exactly those of them that it missed.
//! That takes bounded steps like every walk, and nothing is copied beforehand. Which these
//! are, and what becomes of the others, is found out when it subscribes (`desk/points.rs`).

use std::io::ErrorKind;

use rustc_hash::FxHashMap;

use super::{
    super::{
        deliver::{Outcome, deliver},
        fan::push_entry,
        ground::Ground,
        work::price,
    },
    walk::{Step, Walk, entries_max},
};
use crate::{
    io::{Edge, SEND_MAX},
    packs::Frames,
    tape::Position,
};

/// What a subscriber has missed.
#[derive(Debug, Default)]
pub struct Resume {
    /// The first publication missed.
    pub from: Position,
    /// Where the subscription begins.
    pub until: Position,
    /// The last number seen of each topic, by its slot.
    pub seen: FxHashMap<u32, u64>,
}

impl Resume {
    /// The first publication that was missed of a topic, and its number.
    pub fn note(&mut self, slot: u32, missed: Position, seq: u64) {
        self.from = if self.seen.is_empty() { missed } else { self.from.min(missed) };
        self.seen.insert(slot, seq - 1);
    }

    /// Bytes of memory that it takes by itself. (A hash table is an array with a byte beside each place.)
    pub fn held(&self) -> usize {
        self.seen.capacity() * (size_of::<(u32, u64)>() + 1)
    }
}

impl<E: Edge> Walk<'_, E> {
    /// Sends up to one buffer of what the connection missed.
    pub fn send_missed(&mut self, bytes: &mut Vec<u8>) -> Step {
        let Walk { ground, connection, behind, .. } = self;
        let most = entries_max(ground);
        let Some(resume) = &behind.resume else { return Step::On };
        let form = connection.form();
        bytes.clear();
        // Where each publication ends in the buffer, and the position of it.
        let mut ends: Vec<(usize, Position)> = Vec::new();
        let mut steps = 0;
        let mut is_cut = false;
        let Ground { reader, packer, tape, work, .. } = &mut **ground;
        let (mut frames, left, mut packing) = (Frames { reader, packer }, work.left(), 0);
        let reached = reader.scan(behind.position, resume.until, |entry| {
            if steps == most || bytes.len() >= SEND_MAX || packing > left {
                return false;
            }
            steps += 1;
            if resume.seen.get(&entry.topic.slot).is_some_and(|seen| entry.seq > *seen) {
                let is_there = push_entry(&mut frames, tape, form, entry, bytes);
                packing += frames.packer.take_cost();
                if is_there {
                    ends.push((bytes.len(), entry.position));
                } else if entry.position == behind.position && behind.offset > 0 {
                    is_cut = true;
                    return false;
                }
            }
            true
        });
        work.charge(price::LOOK * (steps + ends.len()) as u64 + price::lines(bytes.len()) + packing);
        if is_cut {
            // It has the beginning of a frame that can't be made again: there is nothing that it could read after that.
            return Step::Broken(ErrorKind::NotFound);
        }
        let unsent = &bytes[(behind.offset as usize).min(bytes.len())..];
        let begun = bytes.len() - unsent.len();
        let Ground { edge, metrics, packer, .. } = &mut **ground;
        match deliver(edge, metrics, &mut connection.socket, (unsent, packer.take_saved())) {
            Outcome::All => {
                metrics.deliveries.add(ends.len() as u64);
                (behind.position, behind.offset) = (reached, 0);
                if !unsent.is_empty() {
                    connection.sent = ground.now;
                }
                if steps == most { Step::Enough } else { Step::On }
            }
            Outcome::Full(taken) => {
                let taken = begun + taken;
                let whole = ends.partition_point(|(end, _)| *end <= taken);
                let start = whole.checked_sub(1).map_or(0, |last| ends[last].0);
                metrics.deliveries.add(whole as u64);
                (behind.position, behind.offset) = (ends[whole].1, (taken - start) as u32);
                Step::Full
            }
            Outcome::Broken(why) => Step::Broken(why),
        }
    }
}
