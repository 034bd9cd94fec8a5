//! The walk of one cursor that is behind: along the tape, a bounded step a turn.
//!
//! ```text
//!    position         stage 0's until       stage 1's until          the fan's position
//!       | older cohort     | next older cohort    | the cohort of now        |
//!       |------------------+----------------------+--------------------------| it has caught up
//!       '- rest of a frame   then: ack, snapshots   then: ack, snapshots
//! ```
//!
//! Frames of the connection's own (`out`) go between publications, never inside one. Names that are delivered in newest values
//! are sent in rounds (`round.rs`) once the socket was full, and those with a rate always (`fan/pace.rs`); a stage may first go
//! back to what was missed (`resume.rs`).

use std::io::ErrorKind;

use super::{
    super::{
        connection::Connection,
        deliver::{Outcome, deliver, flush},
        fan::{
            Pace,
            delivery::Delivery,
            interest::{Cohort, CohortId, Interest},
            push_entry,
        },
        ground::Ground,
        work::price,
    },
    Behind, Buffers, Stage,
    behind::STAGES_MAX,
    round::{PacedRound, Piece, Round},
    told::Told,
};
use crate::{
    io::{Edge, SEND_MAX},
    packs::Frames,
    tape::{Position, Run},
};

/// Index entries that one cursor goes through at once, at most.
const STEP_ENTRIES: usize = 16 * 1024;

/// And so many in any case, lest it never come on.
const ENTRIES_MIN: usize = 64;

/// Sends for one cursor in one turn.
const STEP_SENDS: usize = 4;

/// Stages that one cursor enters before a step: all that there may be.
const STEP_STAGES: usize = STAGES_MAX;

/// Bytes and topics of what a subscription begins with that are written at once.
const SAY_BYTES: usize = SEND_MAX / 2;
const SAY_TOPICS: u64 = 1024;

/// Pieces of the tape to be sent to one connection in this order, adjacent ones merged.
#[derive(Debug, Default)]
pub struct Plan {
    pub runs: Vec<Run>,
    pub bytes: usize,
    pub publications: u64,
}

impl Plan {
    pub fn clear(&mut self) {
        self.runs.clear();
        self.bytes = 0;
        self.publications = 0;
    }

    /// A publication of so many bytes, which are elsewhere.
    pub fn note(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.publications += 1;
    }

    pub fn push(&mut self, run: Run) {
        self.note(run.len as usize);
        if !self.runs.last_mut().is_some_and(|last| last.extend(run)) {
            self.runs.push(run);
        }
    }
}

/// Where a step has led.
pub enum Step {
    /// It can go on at once.
    On,
    /// It has done its share of this turn.
    Enough,
    /// It is where the fan is, but not where its subscription changes, or where its cohort is: it goes on when the fan does.
    Wait,
    /// Its socket is full.
    Full,
    /// It is at the head.
    Head,
    /// Its connection is broken.
    Broken(ErrorKind),
}

/// Where all steps of a turn have led.
pub enum Reached {
    /// It can go on in the next turn.
    Enough,
    /// It waits for the fan.
    Wait,
    /// It waits for room.
    Full,
    /// It is at the head.
    Head,
    /// Its connection is broken.
    Broken(ErrorKind),
}

/// One cursor, its connection, and what it walks on.
pub struct Walk<'w, E: Edge> {
    pub ground: &'w mut Ground<E>,
    pub interest: &'w mut Interest,
    pub connection: &'w mut Connection<E::Socket>,
    pub behind: &'w mut Behind,
}

impl<E: Edge> Walk<'_, E> {
    /// Goes on as far as one turn allows.
    pub fn go(mut self, buffers: &mut Buffers) -> Reached {
        for _ in 0..STEP_SENDS {
            self.enter_all_here();
            let sends = self.ground.metrics.sends.get();
            let flushes = self.behind.offset == 0 && !self.connection.out.is_empty();
            let step = self.step(buffers);
            // What answers cost was charged where they were sent.
            let sends = if flushes { 0 } else { self.ground.metrics.sends.get() - sends };
            self.ground.work.charge(price::LOOK + sends * price::SEND);
            match step {
                Step::On if self.ground.work.is_over() => break,
                Step::On => {}
                Step::Enough => break,
                Step::Full => {
                    self.await_room();
                    return Reached::Full;
                }
                Step::Wait => return Reached::Wait,
                Step::Head => return Reached::Head,
                Step::Broken(why) => return Reached::Broken(why),
            }
        }
        Reached::Enough
    }

    /// Waits for the socket to have room again, which the edge tells.
    pub fn await_room(self) {
        self.behind.full_since = self.ground.now;
        self.connection.full = true;
    }

    /// Enters the stages that a cursor has come to with nothing to send before them: what each has to say goes out
    /// together. Whoever changes its subscription faster than it can be sent an answer each doesn't fall behind for that.
    fn enter_all_here(&mut self) {
        for _ in 0..STEP_STAGES {
            let behind = &mut *self.behind;
            let is_within = behind.offset > 0 || behind.begins.is_some() || behind.resume.is_some();
            let Some(stage) = behind.stages.front().filter(|_| !is_within) else { return };
            let until = stage.until;
            let here = match stage.cohort {
                Some(cohort) => until <= behind.position && self.interest.cohort(cohort).paces.is_empty(),
                None => until <= self.interest.position,
            };
            if !here {
                return;
            }
            behind.position = behind.position.max(until);
            self.enter_next_stage();
        }
    }

    /// One step: the rest of a frame, or answers, or publications up to the next stage.
    fn step(&mut self, buffers: &mut Buffers) -> Step {
        let behind = &mut *self.behind;
        let (position, offset) = (behind.position, behind.offset);
        if offset == 0 && !self.connection.out.is_empty() {
            return self.flush();
        }
        if behind.begins.as_ref().is_some_and(|begins| !begins.is_over()) {
            return self.say();
        }
        if !behind.answers_wait_for_missed()
            && let Some(begins) = behind.begins.take()
            && !begins.after.is_empty()
        {
            self.connection.out.push(begins.after);
            return Step::On;
        }
        if let Some(resume) = &behind.resume {
            if position < resume.until {
                return self.send_missed(&mut buffers.bytes);
            }
            behind.resume = None;
            return Step::On;
        }
        let here = self.interest.position;
        let stage = behind.stages.front().map(|stage| (stage.until, stage.cohort));
        let (until, cohort) = stage.unwrap_or((here, self.connection.cohort));
        let due = stage.is_some() && until <= here;
        let until = until.min(here);
        if let Some(cohort) = cohort {
            if position < until && self.interest.cohort(cohort).has(|delivery| delivery.rate().is_none()) {
                // What the tape has let go of can only be left out.
                behind.conflates |= position < self.ground.reader.floor();
                let conflates = behind.conflates;
                return if conflates && self.interest.cohort(cohort).has(|delivery| delivery == Delivery::Latest) {
                    // Not everything comes that the stream refers to.
                    self.connection.note_shares(false);
                    self.send_newest(buffers, cohort, until)
                } else {
                    self.send_some(buffers, cohort, (position, offset), until)
                };
            }
            for n in 0..self.interest.cohort(cohort).paces.len() {
                if let Some(step) = self.send_paced(buffers, cohort, n, due.then_some(until)) {
                    return step;
                }
            }
        }
        self.behind.position = position.max(until);
        if due {
            self.enter_next_stage();
            return Step::On;
        }
        if self.is_at_head() { Step::Head } else { Step::Wait }
    }

    /// Sends what it can of the connection's answers.
    fn flush(&mut self) -> Step {
        let before = self.connection.out.len();
        let outcome = flush(self.ground, self.connection);
        let taken = before - self.connection.out.len();
        self.behind.rest = self.behind.rest.saturating_sub(taken);
        match outcome {
            Outcome::All => Step::On,
            Outcome::Full(_) => Step::Full,
            Outcome::Broken(why) => Step::Broken(why),
        }
    }

    /// Writes some of what the subscription begins with.
    fn say(&mut self) -> Step {
        let Some(begins) = &mut self.behind.begins else { return Step::On };
        let (lane, out) = (self.connection.lane, &mut self.connection.out);
        let mut topics = 0;
        out.write(|out| topics = begins.push_some(lane, out, SAY_BYTES, SAY_TOPICS));
        self.ground.work.charge(topics * price::MATCH + price::lines(out.len()));
        Step::On
    }

    /// Whether it has caught up in everything.
    fn is_at_head(&mut self) -> bool {
        let behind = &*self.behind;
        if !behind.stages.is_empty() || behind.position != self.interest.position {
            return false;
        }
        let Some(cohort) = self.connection.cohort else { return true };
        if self.interest.trails(cohort) {
            return false;
        }
        let even = |(own, pace): (&PacedRound, &Pace)| own.is_even_with(pace);
        behind.paces.iter().zip(&self.interest.cohort(cohort).paces).all(even)
    }

    /// Sends up to one buffer of the cohort's publications from the cursor on, beginning within a frame if need be.
    fn send_some(
        &mut self,
        buffers: &mut Buffers,
        cohort: CohortId,
        (position, offset): (Position, u32),
        until: Position,
    ) -> Step {
        if self.interest.cohort(cohort).may_share() {
            return self.send_shared(buffers, cohort, (position, offset), until);
        }
        let Cohort { key, .. } = self.interest.cohort(cohort);
        let (form, most) = (key.form(), entries_max(self.ground));
        let Buffers { plan, pieces, bytes, .. } = buffers;
        plan.clear();
        pieces.clear();
        bytes.clear();
        let (interest, Ground { edge, reader, packer, tape, metrics, work, .. }) =
            (&mut *self.interest, &mut *self.ground);
        let (mut frames, left) = (Frames { reader, packer }, work.left());
        let mut packing = 0;
        let mut steps = 0;
        let reached = reader.scan(position, until, |entry| {
            if steps == most || plan.bytes >= SEND_MAX || packing > left {
                return false;
            }
            steps += 1;
            let resumed = if entry.position == position { offset } else { 0 };
            if let Some(delivery) = interest.wants(tape, cohort, entry) {
                // A publication from before the lane was written can't be on the way to anybody.
                if form.packed {
                    // At once: until the others are there, it may have been let go.
                    let start = bytes.len();
                    frames.push(form, entry, bytes);
                    if resumed > 0 {
                        bytes.drain(start..(start + resumed as usize).min(bytes.len()));
                        // It was counted with its beginning.
                        frames.packer.take_saved();
                    }
                    packing += frames.packer.take_cost();
                    plan.note(bytes.len() - start);
                } else {
                    plan.push(entry.run(form.lane).after(resumed));
                }
                let (end, position) = (plan.bytes, Position(entry.position.0 + 1));
                let slot = (delivery == Delivery::Latest).then_some(entry.topic.slot);
                pieces.push(Piece { end, position, slot, seq: entry.seq, skipped: 0, sent: true, is_odd: false });
            }
            true
        });
        let saved = frames.packer.take_saved();
        let bytes: &[u8] =
            if form.packed { bytes } else { reader.contiguous(form.lane, plan.runs.iter().copied(), bytes) };
        work.charge(price::LOOK * (steps + pieces.len()) as u64 + price::lines(bytes.len()) + packing);
        match deliver(edge, metrics, &mut self.connection.socket, (bytes, saved)) {
            Outcome::All => {
                metrics.deliveries.add(plan.publications);
                if !bytes.is_empty() {
                    self.connection.sent = self.ground.now;
                }
                (self.behind.position, self.behind.offset) = (reached, 0);
                self.note_told(pieces);
                if steps == most { Step::Enough } else { Step::On }
            }
            Outcome::Full(taken) => {
                let whole = pieces.partition_point(|piece| piece.end <= taken);
                let (sent, begun) = pieces.split_at(whole);
                metrics.deliveries.add(whole as u64);
                self.note_told(sent);
                let Some(begun) = begun.first() else {
                    debug_assert!(false, "a socket that is full has not taken all");
                    return Step::On;
                };
                // Of the first frame, a part may have gone before.
                let offset = sent.last().map_or(offset as usize + taken, |last| taken - last.end) as u32;
                self.stop_at(cohort, Position(begun.position.0 - 1), offset);
                Step::Full
            }
            Outcome::Broken(why) => Step::Broken(why),
        }
    }

    /// Notes that the connection was sent these publications.
    pub fn note_told(&mut self, pieces: &[Piece]) {
        let Some(told) = &mut self.behind.told else { return };
        for Piece { slot, seq, .. } in pieces {
            slot.iter().for_each(|slot| told.note(*slot, *seq));
        }
    }

    /// The socket was full `offset` bytes into the publication at `position`.
    ///
    /// Where the tape may roll on without it, it takes the rest of that frame along.
    pub fn stop_at(&mut self, cohort: CohortId, position: Position, offset: u32) {
        let behind = &mut *self.behind;
        (behind.position, behind.offset, behind.conflates) = (position, offset, true);
        if offset == 0 || !self.interest.cohort(cohort).has(|delivery| delivery == Delivery::Latest) {
            return;
        }
        // It was just sent from, so it is there.
        let Some(rest) = rest_of_frame(self.ground, self.connection, behind) else { return };
        self.stop_with(cohort, position, rest);
    }

    /// The socket was full before the frame of the publication at `position`, or within it: then this is the rest of it, which it takes along.
    pub fn stop_with(&mut self, cohort: CohortId, position: Position, rest: Vec<u8>) {
        let Walk { ground, interest, connection, behind } = self;
        (behind.position, behind.offset, behind.conflates) = (position, 0, true);
        if rest.is_empty() {
            return;
        }
        behind.put_rest(&mut connection.out, position, rest);
        ground.metrics.deliveries.add(1);
        if let (Some(entry), Some(told)) = (ground.reader.look(position), &mut behind.told)
            && interest.wants(&ground.tape, cohort, &entry) == Some(Delivery::Latest)
        {
            told.note(entry.topic.slot, entry.seq);
        }
        behind.position = Position(position.0 + 1);
    }

    /// It has come to the next change of its subscription.
    fn enter_next_stage(&mut self) {
        let Walk { ground, interest, connection, behind } = self;
        let Some(stage) = behind.stages.pop_front() else { return };
        let Stage { until, cohort: older, then, begins, as_of, resume } = stage;
        connection.out.push(then);
        behind.begins = begins;
        let cohort = behind.cohort(connection.cohort);
        // Everything before was sent or told.
        let tells = connection.lane.words().tells();
        let is_left_out = cohort.filter(|id| tells && interest.cohort(*id).has(|delivery| delivery != Delivery::All));
        let told = || Some(Told::of(is_left_out.and(as_of.clone())?));
        behind.told = told();
        behind.round = Round::default();
        let paces = cohort.map_or(&[][..], |cohort| &interest.cohort(cohort).paces);
        behind.paces = paces.iter().map(|pace| PacedRound::from(until, pace.ticks, told())).collect();
        if let Some(resume) = resume {
            behind.position = resume.from;
            behind.resume = Some(resume);
        }
        if let Some(older) = older {
            interest.let_go(&ground.tape, &mut ground.reader, older);
        }
    }
}

/// How many entries of the index a step may still go through.
pub fn entries_max<E: Edge>(ground: &Ground<E>) -> usize {
    // One that is sent is looked at once more.
    ((ground.work.left() / (2 * price::LOOK)) as usize).clamp(ENTRIES_MIN, STEP_ENTRIES)
}

/// The unsent rest of the frame in which a connection stopped; empty if it stopped between frames, none if it is gone.
pub fn rest_of_frame<E: Edge>(
    ground: &mut Ground<E>,
    connection: &Connection<E::Socket>,
    behind: &Behind,
) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    if behind.offset == 0 {
        return Some(frame);
    }
    let Ground { reader, packer, tape, work, .. } = ground;
    let published = reader.look(behind.position)?;
    let frames = &mut Frames { reader, packer };
    let is_there = push_entry(frames, tape, connection.form(), &published, &mut frame);
    work.charge(packer.take_cost());
    // It was counted with its beginning.
    packer.take_saved();
    let is_whole = behind.offset as usize <= frame.len();
    debug_assert!(!is_there || is_whole, "a frame is the same whenever it is made");
    (is_there && is_whole).then(|| frame.split_off(behind.offset as usize))
}
