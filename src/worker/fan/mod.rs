//! Fan-out: what the tape has gained is planned, for every cohort at once, and sent to their members, some each turn.
//!
//! A *pass* reads the index from where the worker stood and plans for each cohort which bytes its members get, adjacent ones
//! merged. Cohorts with something to send stand in line; each is served for a round of its members, a bounded number of sends
//! a turn, and then stands at the end of the line again if more was planned meanwhile (`column.rs`). Members at the same place
//! get the same bytes, gathered once where they are scattered, with one `send` each. Beyond that call a delivery costs a look
//! at the connection. A member whose socket is full leaves the march and goes on alone (`march.rs`) from the very byte where
//! it stopped.

mod column;
pub mod delivery;
pub mod interest;
pub mod pace;
pub mod passes;

use self::interest::CohortId;
use super::Worker;
use crate::{
    io::{Edge, SEND_MAX, Sent, Token},
    lane::Lane,
    tape::{Position, Reader, Run},
};

/// Tape bytes that are on their way at once, planned and not yet sent to everybody: whoever publishes is not read faster than
/// it is sent.
const PLANNED_BYTES: usize = 512 * 1024;

/// What became of sending all of something.
pub enum Outcome {
    /// All of it was taken.
    All,
    /// The socket is full after so many bytes.
    Full(usize),
    /// The connection is broken.
    Broken(std::io::ErrorKind),
}

impl<E: Edge> Worker<E> {
    /// Plans what is new on the tape, and serves the cohorts that have something to send.
    pub fn advance(&mut self) {
        if self.interest.is_empty() {
            // Nobody is to be sent anything; whoever has ended its last subscription only waits for the answer. The cohorts that
            // stood in line have gone.
            self.line.clear();
            self.settle_passes();
            self.position = self.tape.head();
            return self.list_all();
        }
        let head = self.reader.refresh();
        self.drop_fallen();
        self.enforce_lag_limit();
        self.reader.trim();
        // Where sends are to be saved, a pass waits for the one before.
        let may = self.settings.flush_interval.is_zero() || (self.passes.is_empty() && self.now >= self.pass_due);
        if may && self.position < head && !self.is_crowded() {
            self.plan(head);
            self.set_ticks();
            self.list_all();
            // What is left over isn't held back.
            if self.position == head {
                self.pass_due = self.now + self.settings.flush_interval;
            }
        }
        self.serve();
    }

    /// Whether so much is on its way that nothing more is to be planned, nor read from those that publish.
    pub fn is_crowded(&self) -> bool {
        self.passes.bytes() >= PLANNED_BYTES || (self.crowded.is_some() && self.crowded == self.passes.oldest())
    }

    /// Plans a pass: up to the tape's head, or as far as there may be something on its way.
    fn plan(&mut self, head: Position) {
        let Worker { reader, interest, tape, passes, touched, stirred, settings, .. } = self;
        let pass = passes.begin();
        let mut enough = false;
        // From here on the tables are as of where it ends.
        self.position = reader.scan(self.position, head, |at, base, entry| {
            if enough || passes.bytes() >= PLANNED_BYTES {
                return false;
            }
            passes.note(entry.ts, entry.len.iter().copied().max().unwrap_or(0));
            enough = interest.plan(tape, pass, (at, base, entry), touched, stirred) > settings.owed_max;
            true
        });
        passes.planned(touched.len());
        self.crowded = passes.oldest().filter(|_| enough);
        for id in self.touched.drain(..) {
            let cohort = self.interest.cohort(id);
            if cohort.ticket == 0 {
                self.tickets += 1;
                cohort.ticket = self.tickets;
                cohort.column.begin_round(true);
                self.line.push_back((id, self.tickets));
            }
        }
    }

    /// Serves the cohorts that stand in line, as far as one turn goes.
    fn serve(&mut self) {
        let mut left = self.settings.turn_sends as u64;
        while let Some((id, ticket)) = self.line.front().copied().filter(|_| left > 0) {
            if self.interest.with_ticket(id, ticket).is_some() {
                left = left.saturating_sub(self.serve_one(id, left));
            }
            // The cohort may be gone, with its last member or before.
            let Some(cohort) = self.interest.with_ticket(id, ticket) else {
                self.line.pop_front();
                continue;
            };
            if cohort.column.is_in_round() {
                continue;
            }
            self.line.pop_front();
            cohort.ticket = 0;
            if cohort.column.is_behind() {
                self.tickets += 1;
                cohort.ticket = self.tickets;
                cohort.column.begin_round(false);
                self.line.push_back((id, self.tickets));
            }
        }
        self.settle_passes();
    }

    /// Says how long the passes have taken that are over now.
    fn settle_passes(&mut self) {
        if !self.passes.any_over() {
            return;
        }
        let done = self.edge.wall_us();
        let times = &self.shared.metrics.workers[self.index].publish_to_send;
        times.record(self.passes.over().map(|(ts, publications)| (done.saturating_sub(ts), publications.into())));
        self.passes.settle();
    }

    /// Serves members of a cohort, until its round is over or at least `most` calls of `send` were made. Returns how many.
    fn serve_one(&mut self, id: CohortId, most: u64) -> u64 {
        let Worker { interest, reader, edge, connections, passes, gather, .. } = self;
        let cohort = interest.cohort(id);
        cohort.last_sent = self.now;
        let lane = cohort.key.lane;
        let column = &mut cohort.column;
        let (mut sends, mut deliveries, mut sent_bytes) = (0, 0, 0);
        let mut behind = Vec::new();
        while sends < most
            && let Some(cut) = column.next_cut()
        {
            let owed = column.owed(cut);
            let bytes = contiguous(reader, lane, column.runs(cut), gather);
            let (mut served, mut whole) = (0, 0);
            while sends < most
                && let Some(token) = column.serve_at(cut)
            {
                served += 1;
                match send_all(edge, &connections[token as usize].socket, bytes, &mut sends) {
                    Outcome::All => whole += 1,
                    Outcome::Full(taken) => {
                        sent_bytes += taken as u64;
                        behind.push((token, owed.from, Ok(taken)));
                    }
                    Outcome::Broken(why) => behind.push((token, owed.from, Err(why))),
                }
            }
            deliveries += whole * u64::from(owed.publications);
            sent_bytes += whole * u64::from(owed.bytes);
            column.settle(cut, served, passes);
        }
        let metrics = self.metrics();
        metrics.sends.add(sends);
        metrics.deliveries.add(deliveries);
        metrics.sent_bytes.add(sent_bytes);
        for (token, from, fate) in behind {
            match fate {
                Ok(taken) => self.fall_behind(token, id, from, taken),
                Err(why) => self.lost(token, why),
            }
        }
        sends
    }

    /// Takes a member out of the march that was sent only `taken` bytes of what it was owed from `from` on.
    fn fall_behind(&mut self, token: Token, id: CohortId, from: Position, taken: usize) {
        let (position, offset, passed) = self.locate(id, from, taken);
        self.metrics().deliveries.add(passed);
        self.metrics().sends_full.add(1);
        self.leave_march_at(token, position);
        self.stop_at(token, id, position, offset);
        self.await_room(token);
    }

    /// Where in the cohort's publications from `from` on a member is that was sent `taken` bytes of them: the position,
    /// the offset within its frame, and how many whole ones went before.
    pub fn locate(&mut self, id: CohortId, from: Position, taken: usize) -> (Position, u32, u64) {
        let Worker { reader, interest, tape, .. } = self;
        let lane = interest.cohort(id).key.lane as usize;
        let (mut left, mut passed) = (taken, 0);
        let position = reader.scan(from, reader.head(), |_, _, entry| {
            if interest.wants(tape, id, entry).is_none() {
                return true;
            }
            let len = entry.len[lane] as usize;
            if left < len {
                return false;
            }
            left -= len;
            passed += 1;
            true
        });
        (position, left as u32, passed)
    }
}

/// The planned bytes in one piece: the tape's own where they are adjacent, else gathered into `gather`.
///
/// Gathering costs 10 to 30 ns a frame; handing the kernel the pieces instead costs 20 to 115 ns each, at every send.
pub fn contiguous<'b>(
    reader: &'b Reader,
    lane: Lane,
    runs: impl Iterator<Item = Run> + Clone,
    gather: &'b mut Vec<u8>,
) -> &'b [u8] {
    let mut rest = runs.clone();
    if let (Some(run), None) = (rest.next(), rest.next()) {
        return reader.bytes(lane, run);
    }
    gather.clear();
    for run in runs {
        gather.extend_from_slice(reader.bytes(lane, run));
    }
    gather
}

/// Sends `bytes`, in pieces of at most [`SEND_MAX`], until all are taken or the socket is full.
pub fn send_all<E: Edge>(edge: &mut E, socket: &E::Socket, bytes: &[u8], sends: &mut u64) -> Outcome {
    let mut at = 0;
    while at < bytes.len() {
        let piece = &bytes[at..bytes.len().min(at + SEND_MAX)];
        *sends += 1;
        match edge.send(socket, piece) {
            Sent::Took(n) => {
                at += n;
                if n < piece.len() {
                    return Outcome::Full(at);
                }
            }
            Sent::Full => return Outcome::Full(at),
            Sent::Broken(why) => return Outcome::Broken(why),
        }
    }
    Outcome::All
}
