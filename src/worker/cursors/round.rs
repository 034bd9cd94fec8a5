//! Rounds: newest values for one connection that can't take every publication.
//!
//! A *round* is the list of its topics that have changed since the last round, in the order of their newest publications.
//! It is fixed when it begins and sent to its end, however many sends that takes; then the next one begins. So the work is
//! in topics, whatever the lag; each topic that changes is served once a round, also one that changes all the time; and
//! all that the connection is sent stays in the order of the tape. A round that had to wait for long is made anew, once.
//!
//! What it was sent last of each topic is kept beside (on lanes that tell), so that a `skip` tells exactly what was left
//! out. Both are memory in topics; they end when the connection has caught up.
//!
//! A frame that the socket takes in part goes on from `out`: of the tape nothing is held for a connection in a round.

use std::{ops::Range, time::Duration};

use rustc_hash::FxHashMap;

use super::{
    super::{
        deliver::{Outcome, begun, deliver},
        fan::{
            Pace,
            delivery::Delivery,
            interest::{CohortId, Interest},
            newest_for, push_value,
        },
        ground::Ground,
    },
    Behind, Buffers,
    walk::{STEP_ENTRIES, Step, Walk},
};
use crate::{
    io::{Edge, SEND_MAX},
    lane::Lane,
    protocol::Reply,
    tape::{Position, Reader},
};

/// A round that had to wait longer than this for room is made anew.
const RENEW_AFTER: Duration = Duration::from_secs(1);

/// The newest number of each topic that a connection was sent or told of, by slot. The hash has no key: slots are the
/// server's own numbers, given out in order, and no more than there are topics.
pub type Told = FxHashMap<u32, u64>;

/// What is left of a round.
#[derive(Debug, Default)]
pub struct Round {
    /// The positions after the publications to be sent, and their topics; the next one is the last of the list.
    pub items: Vec<(Position, u32)>,
    /// What was published from here on belongs to the next round.
    pub goal: Position,
    /// It was made anew already.
    renewed: bool,
}

/// The rounds of one rate.
#[derive(Debug, Default)]
pub struct PacedRound {
    pub round: Round,
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
}

impl PacedRound {
    /// For somebody who was sent everything before `goal`, at a time when there had been so many ticks.
    pub fn from(goal: Position, ticks: u64) -> PacedRound {
        PacedRound { round: Round { goal, ..Round::default() }, ticks, late: false }
    }

    /// Whether it has come as far as the members: the next tick is the same for all.
    pub fn is_even_with(&self, pace: &Pace) -> bool {
        self.round.items.is_empty() && (self.round.goal == pace.tick || pace.changes.is_empty())
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
            let is_wanted = |delivery| delivery == Delivery::Latest;
            let items = changed_since(&self.ground.reader, self.interest, cohort, position..until, is_wanted);
            behind.round = Round { items, goal: until, renewed: renew };
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
        let (rate, tick, ticks) = (pace.rate, pace.tick, pace.ticks);
        let upto = until.unwrap_or(self.interest.position);
        let paced = &mut self.behind.paces[n];
        if paced.round.items.is_empty() {
            let goal = paced.round.goal;
            let is_time = if until.is_some() { goal < upto } else { goal < tick };
            if !is_time {
                return None;
            }
            let late = ticks > paced.ticks + 1;
            let is_wanted = |delivery: Delivery| delivery.rate() == Some(rate);
            let items = changed_since(&self.ground.reader, self.interest, cohort, goal..upto, is_wanted);
            let round = Round { items, goal: upto, renewed: false };
            *paced = PacedRound { round, ticks, late };
        }
        let any = !paced.round.items.is_empty();
        any.then(|| self.send_round(buffers, cohort, Which::Paced(n)))
    }

    /// Sends up to one buffer of a round that has begun.
    fn send_round(&mut self, buffers: &mut Buffers, cohort: CohortId, which: Which) -> Step {
        if self.behind.conflates && !std::mem::replace(&mut self.behind.short, true) {
            self.ground.edge.keep_short(&mut self.connection.socket, true);
        }
        buffers.bytes.clear();
        buffers.pieces.clear();
        let (reached, enough) = self.gather_round(buffers, cohort, which);
        let (bytes, pieces) = (&buffers.bytes, &buffers.pieces);
        let Ground { edge, metrics, .. } = &mut *self.ground;
        match deliver(edge, metrics, &mut self.connection.socket, bytes) {
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
        let lane = self.connection.lane;
        let tells = match which {
            Which::Live => true,
            Which::Paced(n) => self.behind.paces[n].late,
        };
        let goal = self.behind.round_of(which).goal;
        let mut position = if which == Which::Live { self.behind.position } else { goal };
        let between = which == Which::Live && self.interest.cohort(cohort).has(|delivery| delivery == Delivery::All);
        let mut steps = 0;
        loop {
            if buffers.bytes.len() >= SEND_MAX {
                return (position, false);
            }
            let next = self.behind.round_of(which).items.last().copied();
            let target = next.map_or(goal, |(end, _)| Position(end.0 - 1));
            if between && position < target {
                position = self.gather_between(cohort, lane, position..target, &mut steps, buffers);
                if position < target {
                    return (position, steps >= STEP_ENTRIES);
                }
            }
            position = target.max(position);
            let Some((end, slot)) = next else { return (position, false) };
            self.behind.round_of(which).items.pop();
            self.gather_one(lane, (end, slot), tells, buffers);
            position = end.max(position);
        }
    }

    /// Adds one newest value to the buffer, and before it the notice of what was left out.
    fn gather_one(&mut self, lane: Lane, (position, slot): (Position, u32), tells: bool, buffers: &mut Buffers) {
        let Buffers { bytes, pieces, value, .. } = buffers;
        let interest = &*self.interest;
        value.clear();
        let sent = push_value(self.ground, interest, lane, slot, position, value);
        // It may be gone from the tape while a newer one is there that the fan has not come to: that one follows, and
        // everything up to this one is left out.
        let gone = || interest.newest(slot).filter(|newest| newest.end == position).map(|newest| newest.seq + 1);
        let Some(next) = sent.or_else(gone) else { return };
        let told = self.behind.told.as_ref().filter(|_| tells);
        let first = told.map_or(next, |told| told.get(&slot).copied().unwrap_or(0) + 1);
        let skipped = next.saturating_sub(first);
        if skipped > 0 {
            let name = interest.topic_name(slot).expect("its publications came by");
            lane.words().push_reply(bytes, &Reply::Skip { topic: name, from: first, to: next - 1 });
        }
        bytes.extend_from_slice(value);
        if skipped > 0 || sent.is_some() {
            let (sent, seq) = (sent.is_some(), sent.unwrap_or(next - 1));
            pieces.push(Piece { end: bytes.len(), position, slot: Some(slot), seq, skipped, sent });
        }
    }

    /// Adds every publication in `span` that is to be delivered in full. Returns the position reached.
    fn gather_between(
        &mut self,
        cohort: CohortId,
        lane: Lane,
        span: Range<Position>,
        steps: &mut usize,
        buffers: &mut Buffers,
    ) -> Position {
        let Buffers { bytes, pieces, .. } = buffers;
        let (interest, Ground { reader, tape, .. }) = (&mut *self.interest, &*self.ground);
        reader.scan(span.start, span.end, |entry| {
            if *steps >= STEP_ENTRIES || bytes.len() >= SEND_MAX {
                return false;
            }
            *steps += 1;
            if interest.wants(tape, cohort, entry) == Some(Delivery::All) {
                bytes.extend_from_slice(reader.bytes(lane, entry.run(lane)));
                let position = Position(entry.position.0 + 1);
                pieces.push(Piece { end: bytes.len(), position, slot: None, seq: entry.seq, skipped: 0, sent: true });
            }
            true
        })
    }

    /// Notes what of a round was sent, or begun to be: the rest of the last piece then waits in `out`.
    fn settle_round(&mut self, which: Which, pieces: &[Piece]) {
        let mut skipped = 0;
        for piece in pieces {
            if let (Some(slot), Some(told)) = (piece.slot, &mut self.behind.told) {
                told.insert(slot, piece.seq);
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
        if which == Which::Live {
            self.behind.position = self.behind.position.max(position);
        }
    }

    /// After only `taken` bytes went: puts the rest of the piece in which that was first among the answers, and all later
    /// ones back into the round. Returns how many pieces were begun.
    fn put_back(&mut self, which: Which, bytes: &[u8], pieces: &[Piece], taken: usize) -> usize {
        let begun = begun(pieces.iter().map(|piece| piece.end), taken);
        if let Some(last) = begun.checked_sub(1).map(|last| pieces[last]).filter(|last| last.end > taken) {
            self.behind.put_rest(&mut self.connection.out, bytes[taken..last.end].to_vec());
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

/// The topics of a cohort's names that are delivered as `wanted` says and whose newest publications are in `span`: the
/// positions after these, the first one last.
fn changed_since(
    reader: &Reader,
    interest: &Interest,
    cohort: CohortId,
    span: Range<Position>,
    wanted: impl Fn(Delivery) -> bool + Copy,
) -> Vec<(Position, u32)> {
    let newest = |slot: u32| newest_for(reader, interest, cohort, slot, span.start, span.end);
    let topics = interest.topics_delivered(cohort, wanted);
    let mut items: Vec<(Position, u32)> = topics.into_iter().filter_map(|slot| Some((newest(slot)?, slot))).collect();
    items.sort_unstable_by(|a, b| b.cmp(a));
    items
}
