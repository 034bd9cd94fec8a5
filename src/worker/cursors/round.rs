//! Rounds: newest values for one connection that can't take every publication.
//!
//! A *round* is the list of its topics that have changed since the last round, in the order of their newest publications.
//! It is fixed when it begins and sent to its end, however many sends that takes; then the next one begins. So the work is
//! in topics, whatever the lag; each topic that changes is served once a round, also one that changes all the time; and
//! all that the connection is sent stays in the order of the tape. A round that had to wait for long is made anew, once.
//!
//! What it was sent last of each topic is kept beside (JSON and events only), so that a `skip` tells exactly what was left
//! out. Both are memory in topics; they end when the connection has caught up.
//!
//! A frame that the socket takes in part goes on from `out`: of the tape nothing is held for a connection in a round.

use std::{ops::Range, time::Duration};

use rustc_hash::FxHashMap;

use super::{
    super::{
        Worker,
        closing::push_message,
        fan::{
            Outcome,
            delivery::Delivery,
            interest::CohortId,
            pace::{Change, Pace},
            send_all,
        },
    },
    STEP_ENTRIES, Step,
};
use crate::{
    io::{Edge, SEND_MAX, Token},
    lane::Lane,
    protocol::{event::push_event, reply},
    tape::{Entry, Position, Run, encode},
    topic::Topic,
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

    /// Whether it has come as far as the members in march: the next tick is the same for all.
    pub fn is_even_with(&self, pace: &Pace) -> bool {
        self.round.items.is_empty() && (self.round.goal == pace.tick || pace.changes.is_empty())
    }
}

impl<E: Edge> Worker<E> {
    /// A round of newest values, with every publication between them of names that are delivered in full, up to `until`.
    pub fn send_newest(&mut self, token: Token, cohort: CohortId, until: Position) -> Step {
        let march = self.march_of(token);
        let position = march.position;
        let waited = std::mem::take(&mut march.waited);
        let round = &march.round;
        let begun = position < round.goal;
        let renew = begun && waited >= RENEW_AFTER && !round.renewed;
        if !begun || renew {
            let items = self.changed_since(cohort, position, until, |delivery| delivery == Delivery::Latest);
            self.march_of(token).round = Round { items, goal: until, renewed: renew };
        }
        self.send_round(token, cohort, Which::Live)
    }

    /// A round of one rate, if it is time for one or one has begun. None if there is nothing to send.
    ///
    /// With `until` the subscription changes there: what has changed before is due at once.
    pub fn send_paced(&mut self, token: Token, cohort: CohortId, n: usize, until: Option<Position>) -> Option<Step> {
        let pace = &self.interest.cohort(cohort).paces[n];
        let (rate, tick, ticks) = (pace.rate, pace.tick, pace.ticks);
        let upto = until.unwrap_or(self.position);
        let paced = &mut self.march_of(token).paces[n];
        if paced.round.items.is_empty() {
            let goal = paced.round.goal;
            let is_time = if until.is_some() { goal < upto } else { goal < tick };
            if !is_time {
                return None;
            }
            let late = ticks > paced.ticks + 1;
            let items = self.changed_since(cohort, goal, upto, |delivery| delivery.rate() == Some(rate));
            let round = Round { items, goal: upto, renewed: false };
            self.march_of(token).paces[n] = PacedRound { round, ticks, late };
        }
        let any = !self.march_of(token).paces[n].round.items.is_empty();
        any.then(|| self.send_round(token, cohort, Which::Paced(n)))
    }

    /// The topics of a cohort's names that are delivered as `wanted` says and whose newest publications are in
    /// `from..until`: the positions after these, the first one last.
    fn changed_since(
        &self,
        cohort: CohortId,
        from: Position,
        until: Position,
        wanted: impl Fn(Delivery) -> bool + Copy,
    ) -> Vec<(Position, u32)> {
        let changed = |slot: u32| Some((self.newest_for(cohort, slot, from, until)?, slot));
        let topics = self.interest.topics_delivered(cohort, wanted);
        let mut items: Vec<(Position, u32)> = topics.into_iter().filter_map(changed).collect();
        items.sort_unstable_by(|a, b| b.cmp(a));
        items
    }

    /// The position after a topic's newest publication before `until` that isn't left out for the cohort, if that is beyond
    /// `from`.
    pub fn newest_for(&self, cohort: CohortId, slot: u32, from: Position, until: Position) -> Option<Position> {
        let newest = self.interest.newest(slot)?;
        let (mut end, mut origin) = (newest.end, newest.origin);
        for _ in 0..STEP_ENTRIES {
            if end <= from {
                break;
            }
            if end <= until && !self.interest.excludes(cohort, origin) {
                return Some(end);
            }
            // Too new, or its own: the one before.
            let mut found = None;
            self.reader.look(Position(end.0 - 1), |_, entry| found = Some(entry.previous));
            end = Position(found?);
            self.reader.look(Position(end.0.saturating_sub(1)), |_, entry| origin = entry.origin);
        }
        None
    }

    /// Sends up to one buffer of a round that has begun.
    fn send_round(&mut self, token: Token, cohort: CohortId, which: Which) -> Step {
        let march = self.march_of(token);
        if march.slow && !std::mem::replace(&mut march.short, true) {
            self.edge.keep_short(&self.connections[token as usize].socket, true);
        }
        let mut bytes = std::mem::take(&mut self.gather);
        let mut pieces = std::mem::take(&mut self.pieces);
        bytes.clear();
        pieces.clear();
        let (reached, enough) = self.gather_round(token, cohort, which, &mut bytes, &mut pieces);
        let mut sends = 0;
        let outcome = if bytes.is_empty() {
            Outcome::All
        } else {
            send_all(&mut self.edge, &self.connections[token as usize].socket, &bytes, &mut sends)
        };
        self.metrics().sends.add(sends);
        let step = match outcome {
            Outcome::All => {
                self.settle_round(token, which, &pieces);
                self.advance_round(token, which, reached);
                self.metrics().sent_bytes.add(bytes.len() as u64);
                if sends > 0 {
                    self.connections[token as usize].sent = self.now;
                }
                if enough { Step::Enough } else { Step::On }
            }
            Outcome::Full(taken) => {
                let begun = self.put_back(token, which, &bytes, &pieces, taken);
                self.settle_round(token, which, &pieces[..begun]);
                self.metrics().sent_bytes.add(taken as u64);
                self.metrics().sends_full.add(1);
                Step::Full
            }
            Outcome::Broken(why) => {
                self.lost(token, why);
                Step::Gone
            }
        };
        (self.gather, self.pieces) = (bytes, pieces);
        step
    }

    /// Gathers up to one buffer of a round. Returns the position reached, and whether that was all for one turn.
    fn gather_round(
        &mut self,
        token: Token,
        cohort: CohortId,
        which: Which,
        bytes: &mut Vec<u8>,
        pieces: &mut Vec<Piece>,
    ) -> (Position, bool) {
        let lane = self.connections[token as usize].lane();
        let mut round = std::mem::take(self.round_of(token, which));
        let tells = match which {
            Which::Live => true,
            Which::Paced(n) => self.march_of(token).paces[n].late,
        };
        let mut position = if which == Which::Live { self.march_of(token).position } else { round.goal };
        let between = which == Which::Live && self.interest.cohort(cohort).has(|delivery| delivery == Delivery::All);
        let mut steps = 0;
        let enough = loop {
            if bytes.len() >= SEND_MAX {
                break false;
            }
            let next = round.items.last().copied();
            let target = next.map_or(round.goal, |(end, _)| Position(end.0 - 1));
            if between && position < target {
                position = self.gather_between(cohort, lane, position..target, &mut steps, bytes, pieces);
                if position < target {
                    break steps >= STEP_ENTRIES;
                }
            }
            position = target.max(position);
            let Some((end, slot)) = next else { break false };
            round.items.pop();
            self.gather_one(token, lane, (end, slot), tells, bytes, pieces);
            position = end.max(position);
        };
        *self.round_of(token, which) = round;
        (position, enough)
    }

    /// Adds one newest value to the buffer, and before it the notice of what was left out.
    fn gather_one(
        &mut self,
        token: Token,
        lane: Lane,
        (position, slot): (Position, u32),
        tells: bool,
        bytes: &mut Vec<u8>,
        pieces: &mut Vec<Piece>,
    ) {
        let mut value = std::mem::take(&mut self.value);
        value.clear();
        let sent = self.push_value(lane, slot, position, &mut value);
        // It may be gone from the tape while a newer one is there that the worker has not come to: that one follows, and
        // everything up to this one is left out.
        let gone = || self.interest.newest(slot).filter(|newest| newest.end == position).map(|newest| newest.seq + 1);
        let Some(next) = sent.or_else(gone) else {
            self.value = value;
            return;
        };
        let told = self.march_of(token).told.as_ref().filter(|_| tells);
        let first = told.map_or(next, |told| told.get(&slot).copied().unwrap_or(0) + 1);
        let skipped = next.saturating_sub(first);
        if skipped > 0 {
            let name = self.interest.topic_name(slot).expect("its publications came by");
            self.json.clear();
            reply::skip(&mut self.json, name, first, next - 1, "slow");
            push_message(&self.connections[token as usize].speaks, bytes, &self.json);
        }
        bytes.extend_from_slice(&value);
        if skipped > 0 || sent.is_some() {
            let (sent, seq) = (sent.is_some(), sent.unwrap_or(next - 1));
            pieces.push(Piece { end: bytes.len(), position, slot: Some(slot), seq, skipped, sent });
        }
        self.value = value;
    }

    /// Adds every publication in `span` that is to be delivered in full. Returns the position reached.
    fn gather_between(
        &mut self,
        cohort: CohortId,
        lane: Lane,
        span: Range<Position>,
        steps: &mut usize,
        bytes: &mut Vec<u8>,
        pieces: &mut Vec<Piece>,
    ) -> Position {
        let Worker { reader, interest, tape, .. } = self;
        reader.scan(span.start, span.end, |at, base, entry| {
            if *steps >= STEP_ENTRIES || bytes.len() >= SEND_MAX {
                return false;
            }
            *steps += 1;
            if interest.wants(tape, cohort, entry) == Some(Delivery::All) {
                let (start, len) = (entry.start[lane as usize], entry.len[lane as usize]);
                bytes.extend_from_slice(reader.bytes(lane, Run { base, start, len }));
                let position = Position(at.0 + 1);
                pieces.push(Piece { end: bytes.len(), position, slot: None, seq: entry.seq, skipped: 0, sent: true });
            }
            true
        })
    }

    /// Notes what of a round was sent, or begun to be: the rest of the last piece then waits in `out`.
    fn settle_round(&mut self, token: Token, which: Which, pieces: &[Piece]) {
        let march = self.march_of(token);
        let mut skipped = 0;
        for piece in pieces {
            if let (Some(slot), Some(told)) = (piece.slot, &mut march.told) {
                told.insert(slot, piece.seq);
            }
            skipped += piece.skipped;
        }
        if let Some(last) = pieces.last() {
            self.advance_round(token, which, last.position);
        }
        self.connections[token as usize].skipped += skipped;
        let sent = pieces.iter().filter(|piece| piece.sent).count();
        self.metrics().deliveries.add(sent as u64);
        self.metrics().skipped.add(skipped);
    }

    fn advance_round(&mut self, token: Token, which: Which, position: Position) {
        if which == Which::Live {
            let march = self.march_of(token);
            march.position = march.position.max(position);
        }
    }

    /// After only `taken` bytes went: puts the rest of the piece in which that was first among the answers, and all later
    /// ones back into the round. Returns how many pieces were begun.
    fn put_back(&mut self, token: Token, which: Which, bytes: &[u8], pieces: &[Piece], taken: usize) -> usize {
        let begun = begun(pieces, taken);
        if let Some(last) = begun.checked_sub(1).map(|last| pieces[last]).filter(|last| last.end > taken) {
            self.put_rest(token, bytes[taken..last.end].iter().copied());
        }
        let back = pieces[begun..].iter().rev().filter_map(|piece| Some((piece.position, piece.slot?)));
        self.round_of(token, which).items.extend(back);
        begun
    }

    /// A member of a cohort was sent only `taken` bytes of a tick.
    pub fn fall_behind_at_tick(
        &mut self,
        token: Token,
        n: usize,
        bytes: &[u8],
        pieces: &[(Piece, Change)],
        taken: usize,
    ) {
        self.leave_march(token);
        self.march_of(token).slow = true;
        let unsent: Vec<Piece> = pieces.iter().map(|(piece, _)| *piece).collect();
        let begun = self.put_back(token, Which::Paced(n), bytes, &unsent, taken);
        if let Some(told) = &mut self.march_of(token).told {
            told.extend(pieces[begun..].iter().map(|(_, change)| (change.slot, change.before)));
        }
        self.metrics().deliveries.add(begun as u64);
        self.metrics().sent_bytes.add(taken as u64);
        self.metrics().sends_full.add(1);
        self.await_room(token);
    }

    /// Appends, as `lane` has it, the publication that ends at `position` and that was its topic's newest when the round
    /// began. Returns its number; none if it is neither on the tape any more nor the topic's last value.
    pub fn push_value(&self, lane: Lane, slot: u32, position: Position, out: &mut Vec<u8>) -> Option<u64> {
        let mut found: Option<(Position, Entry)> = None;
        self.reader.look(Position(position.0 - 1), |base, entry| found = Some((base, *entry)));
        if let Some((base, entry)) = found {
            self.push_entry(lane, base, &entry, out);
            return Some(entry.seq);
        }
        // It has outlived its place on the tape, unless a newer one has followed.
        let newest = self.interest.newest(slot).filter(|newest| newest.end == position)?;
        self.tape.with_topics(|topics, _| {
            let topic = topics.at(slot).filter(|topic| topic.seq == newest.seq)?;
            let payload = topic.last.as_ref()?.payload();
            let (epoch, seq, ts) = (topic.epoch, topic.seq, topic.ts);
            encode::Publication { prefix: &topic.prefix, epoch, seq, ts, payload }.push(lane, out);
            Some(newest.seq)
        })
    }

    /// Appends a publication that is on the tape, also from a time when nobody wanted the lane.
    pub fn push_entry(&self, lane: Lane, base: Position, entry: &Entry, out: &mut Vec<u8>) {
        let frame = |lane: Lane| {
            let (start, len) = (entry.start[lane as usize], entry.len[lane as usize]);
            (len > 0).then(|| self.reader.bytes(lane, Run { base, start, len }))
        };
        if let Some(frame) = frame(lane) {
            return out.extend_from_slice(frame);
        }
        let of_topic = |push: &mut dyn FnMut(&Topic)| {
            self.tape.with_topics(|topics, _| topics.at(entry.topic.slot).filter(|t| t.id == entry.topic).map(push));
        };
        if let (Lane::Events, Some(json)) = (lane, frame(Lane::Json)) {
            let json = encode::json_of(json);
            return of_topic(&mut |topic| {
                push_event(out, Some((&topic.epoch, entry.seq)), json);
            });
        }
        let payload = frame(Lane::Raw).map(encode::payload_of).expect("one of the lanes has it");
        of_topic(&mut |topic| {
            let (epoch, seq, ts) = (topic.epoch, entry.seq, entry.ts);
            encode::Publication { prefix: &topic.prefix, epoch, seq, ts, payload }.push(lane, out);
        });
    }

    fn round_of(&mut self, token: Token, which: Which) -> &mut Round {
        let march = self.march_of(token);
        match which {
            Which::Live => &mut march.round,
            Which::Paced(n) => &mut march.paces[n].round,
        }
    }
}

/// How many of the pieces begin before byte `taken`.
fn begun(pieces: &[Piece], taken: usize) -> usize {
    let whole = pieces.partition_point(|piece| piece.end <= taken);
    let start = whole.checked_sub(1).map_or(0, |last| pieces[last].end);
    if start < taken { whole + 1 } else { whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_has_begun_when_its_first_byte_went() {
        let piece = |end| Piece { end, position: Position(0), slot: None, seq: 0, skipped: 0, sent: true };
        let pieces = [piece(10), piece(25)];
        assert_eq!([0, 1, 10, 11, 24, 25].map(|taken| begun(&pieces, taken)), [0, 1, 1, 2, 2, 2]);
    }
}
