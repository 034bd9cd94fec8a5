//! Recent publications, so that each is decoded and verified once per thread and not once per delivery.
//!
//! A broadcast brings the same bytes to every subscriber. The first receipt of a publication is decoded and its check
//! computed; its bytes are kept. Every later receipt is verified by comparing all of its bytes with those, which is as
//! strict and costs a few nanoseconds where decoding costs a hundred. The slot carries what a delivery needs: the topic
//! and number, both moments of sending, and how many of this thread's subscribers are still to get it.
//!
//! The slots form a ring by publication number. A publication older than the ring, for a subscriber far behind, is
//! decoded each time: slower, and just as strict.

use crate::{
    spec::{Pace, Spec},
    stamp::{self, Stamp},
};

/// What is known of one publication.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// Its stamp.
    pub stamp: Stamp,
    /// Which class of publications it belongs to; none before the measured part.
    pub class: Option<u8>,
    /// Measured subscribers of this thread that have yet to get it.
    pub left: u32,
    /// When the first of them got it.
    pub first: u64,
    held: bool,
    at: u32,
    span: u32,
    message: Vec<u8>,
}

impl Slot {
    /// What a publication is known by that no slot has room for.
    pub fn unheld(stamp: Stamp, class: Option<u8>) -> Self {
        Self { stamp, class, ..Self::default() }
    }
}

/// The ring.
pub struct Recent {
    slots: Vec<Slot>,
    hint: usize,
}

/// Publications remembered, at least: some hundred milliseconds' worth at the rates that one machine reaches.
const ROOM: usize = 4096;

/// Publications to remember in a run; a window needs twice its size, so that none under way is pushed out. A rolling one uses half of it.
pub fn room(spec: &Spec) -> usize {
    match spec.pace {
        Pace::Window(window) => ROOM.max(2 * window).next_power_of_two(),
        _ => ROOM,
    }
}

impl Recent {
    /// A ring for so many publications.
    pub fn new(room: usize) -> Self {
        Self { slots: vec![Slot::default(); room.next_power_of_two()], hint: 0 }
    }

    /// The publication whose whole message this is, byte for byte.
    #[inline]
    pub fn same_message(&mut self, message: &[u8]) -> Option<&mut Slot> {
        let span = message.get(self.hint..)?;
        if !span.starts_with(stamp::MARKER) {
            return None;
        }
        let slot = self.slot(stamp::number_hint(span)?);
        (slot.held && slot.message == message).then_some(slot)
    }

    /// The publication whose span begins `bytes`, byte for byte, and the span's length.
    pub fn same_span(&mut self, bytes: &[u8]) -> Option<(&mut Slot, usize)> {
        let slot = self.slot(stamp::number_hint(bytes)?);
        let (at, len) = (slot.at as usize, slot.span as usize);
        let same = slot.held && bytes.get(..len) == slot.message.get(at..at + len);
        same.then_some((slot, len))
    }

    /// Keeps a publication, verified by the caller, whose span is `message[at..at + len]`. None where a newer one has
    /// its place.
    pub fn keep(
        &mut self,
        stamp: Stamp,
        class: Option<u8>,
        left: u32,
        message: &[u8],
        at: usize,
        len: usize,
    ) -> Option<&mut Slot> {
        self.hint = at;
        let slot = self.slot(stamp.number);
        if slot.held && slot.stamp.number > stamp.number {
            return None;
        }
        slot.message.clear();
        slot.message.extend_from_slice(message);
        let message = std::mem::take(&mut slot.message);
        *slot = Slot { stamp, class, left, first: 0, held: true, at: at as u32, span: len as u32, message };
        Some(slot)
    }

    fn slot(&mut self, number: u32) -> &mut Slot {
        let mask = self.slots.len() - 1;
        &mut self.slots[number as usize & mask]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{Body, Form};

    fn message(number: u32) -> (Stamp, Vec<u8>) {
        let stamp = Stamp { run: 1, topic: 0, seq: number + 1, number, planned: 5, sent: 6 };
        let mut out = b"head ".to_vec();
        stamp::write(&stamp, Form::Plain, Body::Fill(100), &mut out);
        (stamp, out)
    }

    #[test]
    fn a_publication_is_known_again_by_its_bytes_alone() {
        let mut recent = Recent::new(8);
        let (stamp, bytes) = message(3);
        assert!(recent.same_message(&bytes).is_none());
        recent.keep(stamp, Some(0), 2, &bytes, 5, 100).unwrap();
        assert_eq!(recent.same_message(&bytes).unwrap().stamp, stamp);
        assert_eq!(recent.same_span(&bytes[5..]).unwrap().1, 100);
    }

    #[test]
    fn one_byte_off_is_another_message() {
        let mut recent = Recent::new(8);
        let (stamp, bytes) = message(3);
        recent.keep(stamp, None, 2, &bytes, 5, 100);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(recent.same_message(&changed).is_none(), "byte {at}");
            assert!(at < 5 || recent.same_span(&changed[5..]).is_none(), "byte {at}");
        }
        assert!(recent.same_message(&bytes[..90]).is_none() && recent.same_span(&bytes[5..90]).is_none());
    }

    #[test]
    fn an_old_publication_does_not_push_out_a_newer_one() {
        let mut recent = Recent::new(8);
        let ((new, new_bytes), (old, old_bytes)) = (message(11), message(3));
        recent.keep(new, None, 1, &new_bytes, 5, 100);
        assert!(recent.keep(old, None, 1, &old_bytes, 5, 100).is_none());
        assert!(recent.same_message(&new_bytes).is_some());
    }
}
