//! Passes on their way: what was planned, and not yet sent to every member whom it is for.
//!
//! A pass is what one turn plans. It is over when no cohort has a member before it any more; until then its bytes count
//! against what may be on its way at once.

use std::collections::VecDeque;

use crate::slack::{KEPT_BY_THREAD, Slack};

/// Names a pass; numbers wrap around.
pub type PassId = u32;

/// See the module's description.
#[derive(Debug, Default)]
pub struct Passes {
    open: VecDeque<Pass>,
    /// The number of the first of `open`.
    first: PassId,
    /// When their publications were published, those of one moment together.
    stamps: VecDeque<Stamp>,
    /// Those that are over, until they are forgotten.
    over: Vec<PassId>,
    bytes: usize,
    /// The same, each publication counted once for each member that it is for.
    to_send: u64,
}

#[derive(Debug, Default)]
struct Pass {
    /// Cohorts with members before it.
    cohorts: u32,
    bytes: u32,
    to_send: u64,
    /// How many of `stamps` are its own.
    stamps: u32,
}

#[derive(Clone, Copy, Debug)]
struct Stamp {
    ts: u64,
    publications: u32,
}

impl Passes {
    /// Nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Bytes on their way, each publication counted once.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes on their way, each publication counted for each member that it is for, until its pass is over.
    pub fn to_send(&self) -> u64 {
        self.to_send
    }

    /// The oldest pass on its way.
    pub fn oldest(&self) -> Option<PassId> {
        (!self.is_empty()).then_some(self.first)
    }

    /// The newest pass.
    pub fn newest(&self) -> Option<PassId> {
        (!self.is_empty()).then(|| self.first.wrapping_add(self.open.len() as u32 - 1))
    }

    /// Begins a pass.
    pub fn begin(&mut self) -> PassId {
        self.open.push_back(Pass::default());
        self.first.wrapping_add(self.open.len() as u32 - 1)
    }

    /// Counts a publication of so many bytes to the pass that was begun last, of which all members together are to be sent `to_send`.
    pub fn note(&mut self, ts: u64, bytes: u32, to_send: u64) {
        let pass = self.open.back_mut().expect("a pass was begun");
        pass.bytes += bytes;
        pass.to_send += to_send;
        self.bytes += bytes as usize;
        self.to_send += to_send;
        match self.stamps.back_mut() {
            Some(last) if pass.stamps > 0 && last.ts == ts => last.publications += 1,
            _ => {
                self.stamps.push_back(Stamp { ts, publications: 1 });
                pass.stamps += 1;
            }
        }
    }

    /// The pass that was begun last is complete, and is for so many cohorts; for none, it was none.
    pub fn planned(&mut self, cohorts: usize) {
        let pass = self.open.back_mut().expect("a pass was begun");
        pass.cohorts = cohorts as u32;
        if cohorts == 0 {
            let none = self.open.pop_back().expect("it was just there");
            self.stamps.truncate(self.stamps.len() - none.stamps as usize);
            self.bytes -= none.bytes as usize;
            self.to_send -= none.to_send;
        }
    }

    /// One cohort fewer has members before it.
    pub fn release(&mut self, pass: PassId) {
        let open = &mut self.open[pass.wrapping_sub(self.first) as usize];
        open.cohorts -= 1;
        if open.cohorts == 0 {
            self.bytes -= open.bytes as usize;
            self.to_send -= open.to_send;
            self.over.push(pass);
        }
    }

    /// Whether passes are over since [`Passes::settle`].
    pub fn any_over(&self) -> bool {
        !self.over.is_empty()
    }

    /// When the publications of the passes that are over were published, and how many at each moment.
    pub fn over(&self) -> impl Iterator<Item = (u64, u32)> {
        let stamps = |pass: &PassId| {
            let place = pass.wrapping_sub(self.first) as usize;
            let before: usize = self.open.range(..place).map(|pass| pass.stamps as usize).sum();
            self.stamps.range(before..before + self.open[place].stamps as usize)
        };
        self.over.iter().flat_map(stamps).map(|stamp| (stamp.ts, stamp.publications))
    }

    /// Forgets the passes that are over.
    pub fn settle(&mut self) {
        self.over.clear();
        while let Some(first) = self.open.front().filter(|first| first.cohorts == 0) {
            self.stamps.drain(..first.stamps as usize);
            self.open.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }

    /// Gives back room that was needed once.
    pub fn give_back(&mut self) {
        self.open.give_back(KEPT_BY_THREAD);
        self.stamps.give_back(KEPT_BY_THREAD);
        self.over.give_back(KEPT_BY_THREAD);
    }
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl Passes {
    /// Asserts that the sums are right, and that each pass is waited for by as many cohorts as `waits` counts.
    pub fn invariants(&self, mut waits: impl FnMut(PassId) -> usize) {
        let is_open = |pass: &&Pass| pass.cohorts > 0;
        let bytes: usize = self.open.iter().filter(is_open).map(|pass| pass.bytes as usize).sum();
        assert_eq!(self.bytes, bytes, "bytes on their way");
        let to_send: u64 = self.open.iter().filter(is_open).map(|pass| pass.to_send).sum();
        assert_eq!(self.to_send, to_send, "bytes on their way to all members");
        let stamps: usize = self.open.iter().map(|pass| pass.stamps as usize).sum();
        assert_eq!(self.stamps.len(), stamps, "each stamp is some pass's");
        assert!(
            self.open.front().is_none_or(|first| first.cohorts > 0) || !self.over.is_empty(),
            "a pass is forgotten"
        );
        for (n, pass) in self.open.iter().enumerate() {
            let id = self.first.wrapping_add(n as u32);
            assert_eq!(pass.cohorts as usize, waits(id), "cohorts that wait for a pass");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(passes: &mut Passes) -> Vec<(u64, u32)> {
        let told = passes.over().collect();
        passes.settle();
        told
    }

    #[test]
    fn a_pass_is_told_when_its_last_cohort_is_through_also_before_older_ones() {
        let mut passes = Passes::default();
        let older = passes.begin();
        passes.note(1, 10, 10);
        passes.planned(2);
        let newer = passes.begin();
        passes.note(2, 20, 20);
        passes.note(2, 20, 20);
        passes.note(3, 20, 20);
        passes.planned(1);
        assert_eq!(passes.bytes(), 70);
        passes.release(older);
        assert_eq!(settled(&mut passes), []);
        passes.release(newer);
        assert_eq!(settled(&mut passes), [(2, 2), (3, 1)]);
        assert_eq!(passes.bytes(), 10);
        passes.release(older);
        assert_eq!(settled(&mut passes), [(1, 1)]);
        assert!(passes.is_empty() && passes.bytes() == 0);
    }

    #[test]
    fn a_pass_for_nobody_leaves_nothing() {
        let mut passes = Passes::default();
        passes.begin();
        passes.note(1, 10, 10);
        passes.planned(0);
        assert!(passes.is_empty() && passes.bytes() == 0);
        assert_eq!(settled(&mut passes), []);
    }
}
