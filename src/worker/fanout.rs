//! Fan-out: one pass over what the tape has gained, for every cohort at once.
//!
//! The pass reads the index from where the worker stood, plans for each cohort which bytes its members get, merges what is
//! adjacent, gathers what is scattered into one buffer, and then sends each member the same bytes with one `send`. Beyond
//! that call a delivery costs a look at the connection. A member whose socket is full leaves the march and goes on alone
//! (`march.rs`) from the very byte where it stopped.

use super::{
    Worker,
    interest::{CohortId, Plan},
};
use crate::{
    io::{Edge, Sent, Token},
    tape::{Lane, Position, Reader},
};

/// Most bytes in one call of `send`: one segment of the loopback path (its MTU less the headers). A few bytes more cost
/// 60 % more there, twice as many gain nothing; on a network card the kernel cuts at 64 KiB as well.
pub(super) const SEND_MAX: usize = 65_483;

/// Tape bytes that one pass goes through, so that a worker that is behind still reads, and answers, between passes.
const PASS_BYTES: usize = 512 * 1024;

/// What became of sending all of something.
pub(super) enum Outcome {
    /// All of it was taken.
    All,
    /// The socket is full after so many bytes.
    Full(usize),
    /// The connection is broken.
    Broken(std::io::ErrorKind),
}

impl<E: Edge> Worker<E> {
    /// Advances to the tape's head, or by one pass if it is far.
    pub(super) fn advance(&mut self) {
        if self.interest.is_empty() {
            // Nobody is to be sent anything; whoever has ended its last subscription only waits for the answer.
            self.position = self.tape.head();
            return self.list_all();
        }
        let head = self.reader.refresh();
        self.drop_fallen();
        self.enforce_lag_limit();
        self.reader.trim();
        if self.position >= head || self.now < self.pass_due {
            return;
        }
        let from = self.position;
        let to = self.plan(head);
        // From here on the tables are as of there.
        self.position = to;
        self.set_ticks();
        let mut touched = std::mem::take(&mut self.touched);
        for cohort in touched.drain(..) {
            self.deliver(cohort, from);
        }
        self.touched = touched;
        self.list_all();
        self.pass_due = self.now + self.settings.flush_interval;
        let done = self.edge.wall_us();
        self.metrics().publish_to_send.record(self.stamps.iter().map(|ts| done.saturating_sub(*ts)));
    }

    /// Plans the pass; returns where it ends.
    fn plan(&mut self, head: Position) -> Position {
        let Worker { reader, interest, tape, touched, stirred, stamps, .. } = self;
        let mut bytes = 0;
        stamps.clear();
        reader.scan(self.position, head, |at, base, entry| {
            if bytes >= PASS_BYTES {
                return false;
            }
            bytes += entry.len.iter().map(|len| *len as usize).max().unwrap_or(0);
            stamps.push(entry.ts);
            interest.plan(tape, at, base, entry, touched, stirred);
            true
        })
    }

    /// Sends a cohort's members what was planned for it.
    fn deliver(&mut self, id: CohortId, from: Position) {
        let cohort = self.interest.cohort(id);
        let mut plan = std::mem::take(&mut cohort.plan);
        let members = std::mem::take(&mut cohort.members);
        cohort.last_sent = self.now;
        let first = cohort.first % members.len().max(1);
        cohort.first = first + 1;
        let bytes = contiguous(&self.reader, cohort.key.lane, &plan, &mut self.gather);
        let (mut sends, mut whole, mut sent_bytes) = (0, 0, 0);
        let mut behind = Vec::new();
        for token in members[first..].iter().chain(&members[..first]) {
            let connection = &self.connections[*token as usize];
            match send_all(&mut self.edge, &connection.socket, bytes, &mut sends) {
                Outcome::All => whole += 1,
                Outcome::Full(taken) => {
                    sent_bytes += taken as u64;
                    behind.push((*token, Ok(taken)));
                }
                Outcome::Broken(why) => behind.push((*token, Err(why))),
            }
        }
        let (publications, size) = (plan.publications, plan.bytes as u64);
        self.interest.cohort(id).members = members;
        plan.clear();
        self.interest.cohort(id).plan = plan;
        let metrics = self.metrics();
        metrics.sends.add(sends);
        metrics.deliveries.add(whole * publications);
        metrics.sent_bytes.add(whole * size + sent_bytes);
        for (token, fate) in behind {
            match fate {
                Ok(taken) => self.fall_behind(token, id, from, taken),
                Err(why) => self.lost(token, why),
            }
        }
    }

    /// Takes a member out of the march that was sent only `taken` bytes of a pass that began at `from`.
    fn fall_behind(&mut self, token: Token, id: CohortId, from: Position, taken: usize) {
        let (position, offset, passed) = self.locate(id, from, taken);
        self.metrics().deliveries.add(passed);
        self.metrics().sends_full.add(1);
        self.leave_march(token, position);
        self.stop_at(token, id, position, offset);
        self.await_room(token);
    }

    /// Where in the cohort's publications from `from` on a member is that was sent `taken` bytes of them: the position,
    /// the offset within its frame, and how many whole ones went before.
    pub(super) fn locate(&mut self, id: CohortId, from: Position, taken: usize) -> (Position, u32, u64) {
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
pub(super) fn contiguous<'b>(reader: &'b Reader, lane: Lane, plan: &Plan, gather: &'b mut Vec<u8>) -> &'b [u8] {
    if let [run] = plan.runs[..] {
        return reader.bytes(lane, run);
    }
    gather.clear();
    for run in &plan.runs {
        gather.extend_from_slice(reader.bytes(lane, *run));
    }
    gather
}

/// Sends `bytes`, in pieces of at most [`SEND_MAX`], until all are taken or the socket is full.
pub(super) fn send_all<E: Edge>(edge: &mut E, socket: &E::Socket, bytes: &[u8], sends: &mut u64) -> Outcome {
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
