//! A backlog: the bytes that a connection is still to be sent of its own.
//!
//! ```text
//!   first                       rest
//!   ├─ taken ─┼─────────────┤   ├──────────────┤ ├──────────┤
//!   sent      what goes next    pieces of some 64 KiB, and large ones that were made elsewhere
//! ```
//!
//! Pieces, so that nothing moves when something is taken from the front, put before it or added behind: whatever a backlog comes to,
//! each costs what it is itself. Only the piece that is being sent gives its room back when a quarter of it is left, by moving that:
//! a third of its bytes, all in all, and never many at once. A connection to which nothing is to be sent holds no memory.

use std::collections::VecDeque;

use crate::{
    io::SEND_MAX,
    slack::{KEPT_BY_ONE, Slack},
};

/// A piece that has come to this is full: as much as goes in one send.
const PIECE_BYTES: usize = SEND_MAX;

/// Bytes that are moved at once, at most.
const MOVED_MAX: usize = 256 * 1024;

/// See the module's description.
#[derive(Debug, Default)]
pub struct Backlog(Option<Box<Pieces>>);

#[derive(Debug, Default)]
struct Pieces {
    first: Vec<u8>,
    /// Bytes of `first` that were sent.
    taken: usize,
    /// None of them is empty.
    rest: VecDeque<Vec<u8>>,
    /// Bytes that are to be sent, in all pieces.
    len: usize,
}

impl Backlog {
    /// Bytes that are to be sent.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |pieces| pieces.len)
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes of memory, with what was sent and has not been given back.
    #[inline]
    pub fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |pieces| pieces.len + pieces.taken)
    }

    /// What goes next: at most as much as goes in one send, and nothing only if nothing is left.
    pub fn next(&self) -> &[u8] {
        let next = self.0.as_ref().map_or(&[][..], |pieces| &pieces.first[pieces.taken..]);
        &next[..next.len().min(SEND_MAX)]
    }

    /// Adds what `write` appends.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let pieces = self.0.get_or_insert_default();
        let last = pieces.rest.back_mut().unwrap_or(&mut pieces.first);
        if last.len() >= PIECE_BYTES {
            let mut piece = Vec::new();
            write(&mut piece);
            pieces.len += piece.len();
            if !piece.is_empty() {
                pieces.rest.push_back(piece);
            }
        } else {
            let before = last.len();
            write(last);
            debug_assert!(last.len() >= before, "what is there stays");
            pieces.len += last.len() - before;
        }
        self.drop_if_empty();
    }

    /// Adds bytes that were made elsewhere; many aren't copied.
    pub fn push(&mut self, bytes: Vec<u8>) {
        if bytes.len() < PIECE_BYTES {
            return self.write(|out| out.extend_from_slice(&bytes));
        }
        let pieces = self.0.get_or_insert_default();
        pieces.len += bytes.len();
        if pieces.first.is_empty() {
            pieces.first = bytes;
        } else {
            pieces.rest.push_back(bytes);
        }
    }

    /// Puts bytes before everything else. Nothing of the first piece was sent, or the rest of it begins a frame.
    pub fn put_front(&mut self, mut bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let pieces = self.0.get_or_insert_default();
        pieces.len += bytes.len();
        std::mem::swap(&mut pieces.first, &mut bytes);
        let taken = std::mem::take(&mut pieces.taken);
        // A piece that is less than a send gains no more by waiting; what was sent of it goes now.
        if bytes.len() > taken {
            bytes.drain(..taken);
            pieces.rest.push_front(bytes);
        }
    }

    /// Takes what was sent away. Returns how many bytes were moved for it.
    pub fn take(&mut self, taken: usize) -> usize {
        let Some(pieces) = &mut self.0 else { return 0 };
        debug_assert!(taken <= pieces.first.len() - pieces.taken, "it was said to be next");
        pieces.taken += taken;
        pieces.len -= taken;
        let left = pieces.first.len() - pieces.taken;
        let mut moved = 0;
        if left == 0 {
            (pieces.first, pieces.taken) = (pieces.rest.pop_front().unwrap_or_default(), 0);
            pieces.rest.give_back(KEPT_BY_ONE);
        } else if pieces.first.len() > KEPT_BY_ONE && left <= MOVED_MAX.min(pieces.first.len() / 4) {
            pieces.first = pieces.first.split_off(pieces.taken);
            (pieces.taken, moved) = (0, left);
        }
        self.drop_if_empty();
        moved
    }

    fn drop_if_empty(&mut self) {
        if self.0.as_ref().is_some_and(|pieces| pieces.len == 0) {
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that is to be sent, piece by piece.
    fn drained(backlog: &mut Backlog) -> Vec<u8> {
        let mut all = Vec::new();
        while !backlog.is_empty() {
            let next = backlog.next().to_vec();
            assert!(!next.is_empty() && next.len() <= SEND_MAX);
            all.extend_from_slice(&next);
            backlog.take(next.len());
        }
        all
    }

    #[test]
    fn what_is_written_pushed_put_in_front_and_taken_by_luck_comes_as_from_one_buffer() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut backlog, mut twin) = (Backlog::default(), Vec::new());
            for n in 0..random.usize(1..60) {
                let some = vec![n as u8; [0, 1, 300, 70_000][random.usize(..4)] * random.usize(1..3)];
                match random.u8(..4) {
                    0 => {
                        twin.extend_from_slice(&some);
                        backlog.push(some);
                    }
                    1 => {
                        twin.extend_from_slice(&some);
                        backlog.write(|out| out.extend_from_slice(&some));
                    }
                    2 => {
                        twin.splice(..0, some.iter().copied());
                        backlog.put_front(some);
                    }
                    _ => {
                        let taken = random.usize(..=backlog.next().len());
                        assert_eq!(twin.drain(..taken).as_slice(), &backlog.next()[..taken]);
                        backlog.take(taken);
                    }
                }
                assert_eq!((backlog.len(), backlog.is_empty()), (twin.len(), twin.is_empty()), "seed {seed}");
                assert!(backlog.held() >= twin.len() && (!twin.is_empty() || backlog.held() == 0));
            }
            assert_eq!(drained(&mut backlog), twin, "seed {seed}");
        }
    }

    #[test]
    fn what_was_sent_is_not_held_for_long() {
        let mut backlog = Backlog::default();
        backlog.push(vec![7; 1 << 20]);
        while !backlog.is_empty() {
            backlog.take(backlog.next().len().min(1000));
            assert!(backlog.held() <= 4 * backlog.len() + KEPT_BY_ONE);
        }
        assert_eq!(size_of::<Backlog>(), 8);
    }

    #[test]
    fn a_large_backlog_that_is_taken_little_by_little_moves_no_more_than_it_holds() {
        const LEN: usize = 16 << 20;
        // All at once, as snapshots come, and bit by bit, as acknowledgements do.
        let mut at_once = Backlog::default();
        at_once.push(vec![7; LEN]);
        let mut little = Backlog::default();
        (0..LEN / 1000).for_each(|_| little.write(|out| out.extend_from_slice(&[7; 1000])));
        for mut backlog in [at_once, little] {
            backlog.put_front(vec![1; 100]);
            let (mut moved, mut most) = (0, 0);
            while !backlog.is_empty() {
                let taken = backlog.next().len().min(40_000);
                let by_this = backlog.take(taken);
                (moved, most) = (moved + by_this, most.max(by_this));
            }
            assert!(moved <= LEN / 3 && most <= MOVED_MAX, "{moved} bytes moved, {most} at once");
        }
    }
}
