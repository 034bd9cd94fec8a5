//! Rounds: newest values for one connection that can't take every publication.
//!
//! A *round* is the list of its topics that have changed since the last round, in the order of their newest publications.
//! It is fixed when it begins and sent to its end, however many sends that takes; then the next one begins. So the work is
//! in topics, whatever the lag; each topic that changes is served once a round, also one that changes all the time; and
//! all that the connection is sent stays in the order of the tape. A round that had to wait for long is made anew, once.
//!
//! A round costs a look at each topic that has changed since it began, whoever changed it, and is listed piece by piece: what it is
//! to send does not change any more, since what was newest at its goal can be asked for later ([`AsOf`]). So a round is a few
//! KiB of memory whatever topics there are, and so is what is known of what the client was told (`told.rs`).
//!
//! A frame that the socket takes in part goes on from `out`: of the tape nothing is held for a connection in a round.

use std::{ops::Range, sync::Arc, time::Duration};

use rustc_hash::FxHashMap;

use super::{
    super::{
        deliver::{Outcome, begun, deliver},
        fan::{
            AsOf, Pace,
            delivery::Delivery,
            interest::{CohortId, Interest, Newest},
            newest_for, push_value,
        },
        ground::Ground,
        work::price,
    },
    Behind, Buffers,
    told::Told,
    walk::{Step, Walk, entries_max},
};
use crate::{
    io::{Edge, SEND_MAX},
    packs::{Form, Frames},
    protocol::Reply,
    tape::{Position, Reader},
};

/// A round that had to wait longer than this for room is made anew.
const RENEW_AFTER: Duration = Duration::from_secs(1);

/// What is left of a round is listed in pieces of so many topics (16 bytes each), or of an eighth of it where that is more: each
/// piece costs a look at all that has changed since. (The simulation has few topics, and rounds of several pieces.)
const PIECE_TOPICS: usize = if cfg!(any(test, fuzzing)) { 3 } else { 1024 };

/// What is left of a round.
#[derive(Debug, Default)]
pub struct Round {
    /// A piece of it: the positions after the publications to be sent, and their topics; the next one is the last of the list.
    pub items: Vec<(Position, u32)>,
    /// There is more of it behind that.
    more: bool,
    /// Up to where it was sent.
    sent: Position,
    /// What was published from here on belongs to the next round.
    pub goal: Position,
    /// What was newest there, while it is under way.
    at_goal: Option<Arc<AsOf>>,
    /// It was made anew already.
    renewed: bool,
}

/// The rounds of one rate.
#[derive(Debug)]
pub struct PacedRound {
    pub round: Round,
    /// What it was sent or told of last of the topics of this rate, where that may leave something out.
    pub told: Option<Told>,
    /// The number of the tick at which it began.
    pub ticks: u64,
    /// It began later than its tick: what was left out is told.
    late: bool,
}

/// Which of a connection's rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Of its names without a rate.
    Live,
    /// Of its rate with this number.
    Paced(usize),
}

/// A part of a gathered buffer: one publication, and the notice before it.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Where it ends in the buffer.
    pub end: usize,
    /// The position after it.
    pub position: Position,
    /// Its topic, if it is a newest value.
    pub slot: Option<u32>,
    pub seq: u64,
    /// How many publications the notice tells of.
    pub skipped: u64,
    /// There is a publication, and not the notice alone.
    pub sent: bool,
    /// The frame is a stream's, or goes as it is in one's place: it isn't found again by how its connection is sent publications.
    pub is_odd: bool,
}

impl Round {
    /// None is under way; everything before `goal` was sent.
    fn over(goal: Position) -> Round {
        Round { goal, sent: goal, ..Round::default() }
    }

    /// From `sent` to `goal`.
    fn begin(sent: Position, goal: Position, at_goal: Arc<AsOf>) -> Round {
        Round { sent, goal, more: true, at_goal: Some(at_goal), ..Round::default() }
    }

    /// These values were to be sent before its goal and weren't, the oldest of them last: up to that one everything is.
    pub fn put_off(&mut self, values: Vec<(Position, u32)>) {
        let oldest = values.iter().map(|(end, _)| Position(end.0 - 1)).min();
        self.sent = oldest.map_or(self.sent, |oldest| self.sent.min(oldest));
        self.items.extend(values);
    }

    /// Whether everything of it was sent.
    fn is_over(&self) -> bool {
        self.items.is_empty() && !self.more
    }

    /// Keeps those topics of what is listed for which that says so. What is still to be listed is by names.
    pub fn keep(&mut self, mut stays: impl FnMut(u32) -> bool) {
        self.items.retain(|(_, slot)| stays(*slot));
    }

    /// Bytes of memory that it takes by itself.
    pub fn held(&self) -> usize {
        self.items.capacity() * size_of::<(Position, u32)>() + self.at_goal.as_ref().map_or(0, |at_goal| at_goal.held())
    }
}

impl PacedRound {
    /// For somebody who was sent everything before `goal`, at a time when there had been so many ticks.
    pub fn from(goal: Position, ticks: u64, told: Option<Told>) -> PacedRound {
        PacedRound { round: Round::over(goal), told, ticks, late: false }
    }

    /// Up to where everything was told.
    pub fn told(&self) -> Position {
        if self.round.is_over() { self.round.goal } else { self.round.sent }
    }

    /// Whether it has come as far as the members: the next tick is the same for all.
    pub fn is_even_with(&self, pace: &Pace) -> bool {
        self.round.is_over() && (self.round.goal == pace.tick || pace.changes.is_empty())
    }
}

impl<E: Edge> Walk<'_, E> {
    /// A round of newest values, with every publication between them of names that are delivered in full, up to `until`.
    pub fn send_newest(&mut self, buffers: &mut Buffers, cohort: CohortId, until: Position) -> Step {
        let behind = &mut *self.behind;
        let position = behind.position;
        let waited = std::mem::take(&mut behind.waited);
        let has_begun = position < behind.round.goal;
        let renew = has_begun && waited >= RENEW_AFTER && !behind.round.renewed;
        if !has_begun || renew {
            if let (Some(told), Some(at_goal)) = (&mut behind.told, behind.round.at_goal.take()) {
                if renew {
                    told.break_off(at_goal, position);
                } else {
                    *told = Told::of(at_goal);
                }
            }
            let Some(at_goal) = self.as_of(until) else { return Step::Wait };
            self.behind.round = Round { renewed: renew, ..Round::begin(position, until, at_goal) };
        }
        self.send_round(buffers, cohort, Which::Live)
    }

    /// A round of one rate, if it is time for one or one has begun. None if there is nothing to send.
    ///
    /// With `until` the subscription changes there: what has changed before is due at once.
    pub fn send_paced(
        &mut self,
        buffers: &mut Buffers,
        cohort: CohortId,
        n: usize,
        until: Option<Position>,
    ) -> Option<Step> {
        let pace = &self.interest.cohort(cohort).paces[n];
        let (tick, ticks) = (pace.tick, pace.ticks);
        let upto = until.unwrap_or(self.interest.position);
        let paced = &mut self.behind.paces[n];
        if paced.round.is_over() {
            let goal = paced.round.goal;
            if let (Some(told), Some(at_goal)) = (&mut paced.told, paced.round.at_goal.take()) {
                *told = Told::of(at_goal);
            }
            let is_time = if until.is_some() { goal < upto } else { goal < tick };
            if !is_time {
                return None;
            }
            let late = ticks > paced.ticks + 1;
            let at_goal = self.as_of(upto)?;
            let paced = &mut self.behind.paces[n];
            paced.round = Round::begin(goal, upto, at_goal);
            (paced.ticks, paced.late) = (ticks, late);
        }
        self.list_piece(buffers, cohort, Which::Paced(n));
        let any = !self.behind.paces[n].round.items.is_empty();
        any.then(|| self.send_round(buffers, cohort, Which::Paced(n)))
    }

    /// What is newest where a round ends: at the next change of its subscription, or where the fan is.
    fn as_of(&mut self, until: Position) -> Option<Arc<AsOf>> {
        let at_stage = self.behind.stages.front().filter(|stage| stage.until == until);
        if let Some(as_of) = at_stage.and_then(|stage| stage.as_of.clone()) {
            return Some(as_of);
        }
        debug_assert!(until == self.interest.position, "somebody may ask for what was newest at a stage");
        Some(self.interest.as_of(until, FxHashMap::default))
    }

    /// Lists the next piece of a round, if there is none.
    fn list_piece(&mut self, buffers: &mut Buffers, cohort: CohortId, which: Which) {
        let Walk { ground, interest, behind, .. } = self;
        let rate = match which {
            Which::Live => None,
            Which::Paced(n) => Some(interest.cohort(cohort).paces[n].rate),
        };
        let is_wanted = |delivery: Delivery| delivery != Delivery::All && delivery.rate() == rate;
        let round = behind.round_of(which);
        let Some(at_goal) = round.at_goal.as_ref().filter(|_| round.items.is_empty() && round.more) else { return };
        let found = &mut buffers.found;
        let is_excepting = interest.cohort(cohort).key.except != 0;
        let looks = changed(
            &ground.reader,
            interest,
            cohort,
            is_excepting,
            (round.sent, round.goal),
            at_goal,
            is_wanted,
            found,
        );
        ground.work.charge(price::LOOK * (looks + found.len()) as u64);
        let most = PIECE_TOPICS.max(found.len() / 8);
        round.more = found.len() > most;
        if round.more {
            found.select_nth_unstable(most);
            found.truncate(most);
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        round.items = found.as_slice().into();
        found.clear();
    }

    /// Sends up to one buffer of a round that has begun.
    fn send_round(&mut self, buffers: &mut Buffers, cohort: CohortId, which: Which) -> Step {
        if self.behind.conflates && !std::mem::replace(&mut self.behind.short, true) {
            self.ground.edge.keep_short(&mut self.connection.socket, true);
        }
        self.list_piece(buffers, cohort, which);
        buffers.bytes.clear();
        buffers.pieces.clear();
        let (reached, enough) = self.gather_round(buffers, cohort, which);
        let (bytes, pieces) = (&buffers.bytes, &buffers.pieces);
        let Ground { edge, metrics, packer, .. } = &mut *self.ground;
        match deliver(edge, metrics, &mut self.connection.socket, (bytes, packer.take_saved())) {
            Outcome::All => {
                self.settle_round(which, pieces);
                self.advance_round(which, reached);
                if !bytes.is_empty() {
                    self.connection.sent = self.ground.now;
                }
                if enough { Step::Enough } else { Step::On }
            }
            Outcome::Full(taken) => {
                let begun = self.put_back(which, bytes, pieces, taken);
                self.settle_round(which, &pieces[..begun]);
                Step::Full
            }
            Outcome::Broken(why) => Step::Broken(why),
        }
    }

    /// Gathers up to one buffer of a round. Returns the position reached, and whether that was all for one turn.
    fn gather_round(&mut self, buffers: &mut Buffers, cohort: CohortId, which: Which) -> (Position, bool) {
        let form = self.connection.form();
        let tells = match which {
            Which::Live => true,
            Which::Paced(n) => self.behind.paces[n].late,
        };
        let Round { goal, sent, .. } = *self.behind.round_of(which);
        let mut position = if which == Which::Live { self.behind.position } else { sent };
        let between = which == Which::Live && self.interest.cohort(cohort).has(|delivery| delivery == Delivery::All);
        let (most, left) = (entries_max(self.ground), self.ground.work.left());
        let (mut steps, mut values) = (0, 0);
        let enough = loop {
            if buffers.bytes.len() >= SEND_MAX {
                break false;
            }
            if values >= most || self.ground.packer.cost() > left {
                break true;
            }
            let round = self.behind.round_of(which);
            let next = round.items.last().copied();
            if next.is_none() && round.more {
                // The next piece is listed first.
                break false;
            }
            let target = next.map_or(goal, |(end, _)| Position(end.0 - 1));
            if between && position < target {
                position = self.gather_between(cohort, form, position..target, (&mut steps, most), buffers);
                if position < target {
                    break steps >= most;
                }
            }
            position = target.max(position);
            let Some((end, slot)) = next else { break false };
            self.behind.round_of(which).items.pop();
            self.gather_one(form, (end, slot), (which, tells), buffers);
            values += 1;
            position = end.max(position);
        };
        let looks = (steps + 2 * values) as u64;
        let packing = self.ground.packer.take_cost();
        self.ground.work.charge(price::LOOK * looks + price::lines(buffers.bytes.len()) + packing);
        (position, enough)
    }

    /// Adds one newest value to the buffer, and before it the notice of what was left out.
    fn gather_one(
        &mut self,
        form: Form,
        (position, slot): (Position, u32),
        (which, tells): (Which, bool),
        buffers: &mut Buffers,
    ) {
        let Buffers { bytes, pieces, value, .. } = buffers;
        let (interest, behind) = (&*self.interest, &*self.behind);
        let (round, told) = match which {
            Which::Live => (&behind.round, &behind.told),
            Which::Paced(n) => (&behind.paces[n].round, &behind.paces[n].told),
        };
        value.clear();
        let sent = push_value(self.ground, interest, form, slot, position, value);
        // It may be gone from the tape while a newer one is there: that one follows in another round, and everything up to this
        // one is left out.
        let gone = || {
            let newest = interest.newest_as_of(round.at_goal.as_ref()?, slot)?;
            (newest.end == position).then_some(newest.seq + 1)
        };
        let Some(next) = sent.or_else(gone) else { return };
        // What a rate leaves out isn't told, but for a value that was to be sent and is gone.
        let untold = |told: &Told| told.get(interest, slot) + 1;
        let first = match told {
            Some(told) if tells => untold(told),
            Some(told) if sent.is_none() => untold(told).max(next - 1),
            _ => next,
        };
        let skipped = next.saturating_sub(first);
        if let Some(name) = interest.topic_name(slot).filter(|_| skipped > 0) {
            let skip = Reply::Skip { topic: name, epoch: None, from: first, to: next - 1, why: "slow" };
            form.lane.words().push_reply(bytes, &skip);
        }
        bytes.extend_from_slice(value);
        if skipped > 0 || sent.is_some() {
            let (sent, seq) = (sent.is_some(), sent.unwrap_or(next - 1));
            pieces.push(Piece { end: bytes.len(), position, slot: Some(slot), seq, skipped, sent, is_odd: false });
        }
    }

    /// Adds every publication in `span` that is to be delivered in full. Returns the position reached.
    fn gather_between(
        &mut self,
        cohort: CohortId,
        form: Form,
        span: Range<Position>,
        (steps, most): (&mut usize, usize),
        buffers: &mut Buffers,
    ) -> Position {
        let Buffers { bytes, pieces, .. } = buffers;
        let (interest, Ground { reader, packer, tape, work, .. }) = (&mut *self.interest, &mut *self.ground);
        let (mut frames, left) = (Frames { reader, packer }, work.left());
        reader.scan(span.start, span.end, |entry| {
            if *steps >= most || bytes.len() >= SEND_MAX || frames.packer.cost() > left {
                return false;
            }
            *steps += 1;
            if interest.wants(tape, cohort, entry) == Some(Delivery::All) {
                frames.push(form, entry, bytes);
                let position = Position(entry.position.0 + 1);
                pieces.push(Piece {
                    end: bytes.len(),
                    position,
                    slot: None,
                    seq: entry.seq,
                    skipped: 0,
                    sent: true,
                    is_odd: false,
                });
            }
            true
        })
    }

    /// Notes what of a round was sent, or begun to be: the rest of the last piece then waits in `out`.
    fn settle_round(&mut self, which: Which, pieces: &[Piece]) {
        let mut skipped = 0;
        for piece in pieces {
            if let (Some(slot), Which::Paced(n)) = (piece.slot, which)
                && let Some(told) = &mut self.behind.paces[n].told
            {
                told.renew(slot, piece.seq);
            }
            skipped += piece.skipped;
        }
        if let Some(last) = pieces.last() {
            self.advance_round(which, last.position);
        }
        self.connection.skipped += skipped;
        let sent = pieces.iter().filter(|piece| piece.sent).count();
        self.ground.metrics.deliveries.add(sent as u64);
        self.ground.metrics.skipped.add(skipped);
    }

    fn advance_round(&mut self, which: Which, position: Position) {
        let round = self.behind.round_of(which);
        round.sent = round.sent.max(position);
        if which == Which::Live {
            self.behind.position = self.behind.position.max(position);
        }
    }

    /// After only `taken` bytes went: puts the rest of the piece in which that was first among the answers, and all later
    /// ones back into the round. Returns how many pieces were begun.
    fn put_back(&mut self, which: Which, bytes: &[u8], pieces: &[Piece], taken: usize) -> usize {
        let begun = begun(pieces.iter().map(|piece| piece.end), taken);
        if let Some(last) = begun.checked_sub(1).map(|last| pieces[last]).filter(|last| last.end > taken) {
            let of = Position(last.position.0 - 1);
            self.behind.put_rest(&mut self.connection.out, of, bytes[taken..last.end].to_vec());
        }
        let back = pieces[begun..].iter().rev().filter_map(|piece| Some((piece.position, piece.slot?)));
        self.behind.round_of(which).items.extend(back);
        begun
    }
}

impl Behind {
    fn round_of(&mut self, which: Which) -> &mut Round {
        match which {
            Which::Live => &mut self.round,
            Which::Paced(n) => &mut self.paces[n].round,
        }
    }
}

/// Finds the topics of a cohort's names that are delivered as `wanted` says and whose newest publications as of a round's goal
/// come after what was sent of it: the positions after these. Returns how many topics were looked at for it: those that have
/// changed since.
#[expect(clippy::too_many_arguments, reason = "they are what a round is of")]
fn changed(
    reader: &Reader,
    interest: &Interest,
    cohort: CohortId,
    is_excepting: bool,
    (sent, goal): (Position, Position),
    at_goal: &AsOf,
    wanted: impl Fn(Delivery) -> bool + Copy,
    found: &mut Vec<(Position, u32)>,
) -> usize {
    let end = |slot: u32, newest: Newest| {
        let at_goal = if newest.end <= goal { newest } else { interest.newest_as_of(at_goal, slot)? };
        // Where it came from is known to the tables as of now; as of the goal, it may be for the tape to say.
        let on_tape = || reader.look(Position(at_goal.end.0 - 1)).map(|published| published.origin);
        let is_own =
            || interest.excludes(cohort, at_goal.origin) || on_tape().is_some_and(|it| interest.excludes(cohort, it));
        if is_excepting && at_goal.end > sent && is_own() {
            return newest_for(reader, interest, cohort, slot, sent, goal);
        }
        (sent < at_goal.end && at_goal.end <= goal).then_some(at_goal.end)
    };
    found.clear();
    let mut looks = 0;
    for (slot, newest) in interest.recent().take_while(|(_, newest)| newest.end > sent) {
        looks += 1;
        if interest.delivery(cohort, slot).is_some_and(wanted) {
            found.extend(end(slot, newest).map(|end| (end, slot)));
        }
    }
    looks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_holds_at_least_what_it_lists() {
        let items = vec![(Position(1), 1); 1000];
        let round = Round { items, ..Round::default() };
        assert!(round.held() >= 16_000, "{}", round.held());
    }
}
