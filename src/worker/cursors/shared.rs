//! Behind in a cohort whose members may share a stream: whoever has read it so far goes on with it for as long as it keeps what comes next, and
//! then with publications that were compressed by themselves.
//!
//! A cursor says where somebody is in the stream as it does on the tape: a frame is found by the position of its publication. Where one isn't there
//! any more, the stream is left for good; its next beginning lies at the head. Nobody stops within a frame of the stream: what is left of one is taken
//! along.

use super::{
    super::{
        deliver::{Outcome, deliver},
        fan::{delivery::Delivery, interest::CohortId},
        ground::Ground,
        work::price,
    },
    Buffers,
    round::Piece,
    walk::{Step, Walk, entries_max},
};
use crate::{
    io::{Edge, SEND_MAX},
    packs::Frames,
    stream::Kept,
    tape::Position,
};

impl<E: Edge> Walk<'_, E> {
    /// Sends up to one buffer of the cohort's publications from the cursor on, beginning within a frame that was compressed by itself if
    /// need be.
    pub fn send_shared(
        &mut self,
        buffers: &mut Buffers,
        id: CohortId,
        (position, offset): (Position, u32),
        until: Position,
    ) -> Step {
        let most = entries_max(self.ground);
        let Buffers { pieces, bytes, .. } = buffers;
        pieces.clear();
        bytes.clear();
        // What isn't its stream's is compressed by itself: it is charged for that, where the head is not.
        let form = self.connection.form();
        // What a publication is looked for by is in other fields than the stream.
        let stream = self.interest.cohort(id).stream.take();
        let mut shares = self.connection.shares();
        let (interest, Ground { edge, reader, packer, tape, metrics, work, .. }) =
            (&mut *self.interest, &mut *self.ground);
        let (mut frames, left) = (Frames { reader, packer }, work.left());
        let (mut packing, mut steps) = (0, 0);
        let reached = reader.scan(position, until, |entry| {
            if steps == most || bytes.len() >= SEND_MAX || packing > left {
                return false;
            }
            steps += 1;
            let Some(delivery) = interest.wants(tape, id, entry) else {
                let is_known = || stream.as_deref().is_some_and(|stream| stream.find(entry.position).is_some());
                debug_assert!(!shares || !is_known(), "what the stream has taken in is wanted");
                return true;
            };
            let (start, mut is_odd) = (bytes.len(), false);
            let kept = stream.as_deref().filter(|_| shares).and_then(|stream| stream.find(entry.position));
            match kept {
                _ if entry.position == position && offset > 0 => {
                    frames.push(form, entry, bytes);
                    bytes.drain(start..(start + offset as usize).min(bytes.len()));
                    // It was counted with its beginning.
                    frames.packer.take_saved();
                }
                Some(Kept::Frame(frame)) => {
                    is_odd = true;
                    bytes.extend_from_slice(frame);
                    frames.packer.note_saved((entry.len(form.lane) as usize).saturating_sub(frame.len()));
                }
                // What was let go is the same when it is compressed again.
                Some(Kept::Alone) => frames.push(form, entry, bytes),
                Some(Kept::Clear) => {
                    is_odd = frames.may_pack(form.lane, entry);
                    frames.push(form.lane.into(), entry, bytes);
                }
                None => {
                    shares = false;
                    frames.push(form, entry, bytes);
                }
            }
            packing += frames.packer.take_cost();
            let (end, position) = (bytes.len(), Position(entry.position.0 + 1));
            let slot = (delivery == Delivery::Latest).then_some(entry.topic.slot);
            pieces.push(Piece { end, position, slot, seq: entry.seq, skipped: 0, sent: true, is_odd });
            true
        });
        interest.cohort(id).stream = stream;
        self.connection.note_shares(shares);
        work.charge(price::LOOK * (steps + 2 * pieces.len()) as u64 + price::lines(bytes.len()) + packing);
        match deliver(edge, metrics, &mut self.connection.socket, (bytes, packer.take_saved())) {
            Outcome::All => {
                metrics.deliveries.add(pieces.len() as u64);
                if !bytes.is_empty() {
                    self.connection.sent = self.ground.now;
                }
                (self.behind.position, self.behind.offset) = (reached, 0);
                self.note_told(pieces);
                if steps == most { Step::Enough } else { Step::On }
            }
            Outcome::Full(taken) => {
                let whole = pieces.partition_point(|piece| piece.end <= taken);
                metrics.deliveries.add(whole as u64);
                self.note_told(&pieces[..whole]);
                let start = whole.checked_sub(1).map_or(0, |last| pieces[last].end);
                let Some(begun) = pieces.get(whole).copied() else {
                    debug_assert!(false, "a socket that is full has not taken all");
                    return Step::On;
                };
                let position = Position(begun.position.0 - 1);
                if begun.is_odd {
                    let rest = if taken > start { bytes[taken..begun.end].to_vec() } else { Vec::new() };
                    self.stop_with(id, position, rest);
                } else {
                    let before = if whole == 0 { offset } else { 0 };
                    self.stop_at(id, position, before + (taken - start) as u32);
                }
                Step::Full
            }
            Outcome::Broken(why) => Step::Broken(why),
        }
    }
}
