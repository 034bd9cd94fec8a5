//! Sending: the one place where a worker's bytes go out, where that is counted, and where it is told what became of it.
//!
//! Bytes are sent to one connection, or the same bytes to many. Either way they go in pieces of at most [`SEND_MAX`] until the
//! socket is full. What is said of that is an [`Outcome`]: the callers know which frames the bytes were, so they count
//! publications, and decide where somebody goes on whose socket was full.

use std::io::ErrorKind;

use super::{
    connection::{Connection, Phase},
    connections::Connections,
    ground::Ground,
    work::price,
};
use crate::{
    io::{Edge, SEND_MAX, Sent, Token},
    metrics::WorkerMetrics,
};

/// What became of sending all of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was taken.
    All,
    /// The socket is full after so many bytes.
    Full(usize),
    /// The connection is broken.
    Broken(ErrorKind),
}

/// A frame or several, the same for everybody that they are sent to.
#[derive(Clone, Copy)]
pub struct Parcel<'b> {
    pub bytes: &'b [u8],
    /// How many publications that is.
    pub publications: u64,
    /// Bytes that it would be longer by if nothing of it were compressed.
    pub saved: u64,
}

/// Sends `bytes` to one connection, which would be longer by `saved` if nothing of them were compressed. None are no send.
pub fn deliver<E: Edge>(
    edge: &mut E,
    metrics: &WorkerMetrics,
    socket: &mut E::Socket,
    (bytes, saved): (&[u8], u64),
) -> Outcome {
    let mut sends = 0;
    let outcome = send_all(edge, socket, bytes, &mut sends);
    metrics.sends.add(sends);
    match outcome {
        Outcome::All => {
            metrics.sent_bytes.add(bytes.len() as u64);
            metrics.packed_saved_bytes.add(saved);
        }
        Outcome::Full(taken) => {
            metrics.sent_bytes.add(taken as u64);
            metrics.packed_saved_bytes.add(part_of(saved, taken as u64, bytes));
            metrics.sends_full.add(1);
        }
        Outcome::Broken(_) => {}
    }
    outcome
}

/// How many were sent the same, and how often `send` was called for it.
pub struct Delivered {
    pub members: u32,
    pub sends: u64,
}

/// Sends the same to each connection that `next` names, until `send` was called `most` times. Those that didn't take all of it
/// are put on `stopped`, which is all that is kept of them here: they are few, and the others many.
#[inline]
pub fn deliver_to_each<E: Edge>(
    edge: &mut E,
    metrics: &WorkerMetrics,
    connections: &mut Connections<E::Socket>,
    parcel: Parcel<'_>,
    most: u64,
    mut next: impl FnMut() -> Option<Token>,
    stopped: &mut Vec<(Token, Outcome)>,
) -> Delivered {
    let before = stopped.len();
    let (mut sends, mut whole) = (0, 0);
    while sends < most
        && let Some(token) = next()
    {
        let outcome = match connections.get_mut(token) {
            Some(connection) => send_all(edge, &mut connection.socket, parcel.bytes, &mut sends),
            // Members are connections: whoever goes leaves first.
            None => {
                debug_assert!(false, "{token} is a member and no connection");
                Outcome::Broken(ErrorKind::NotConnected)
            }
        };
        match outcome {
            Outcome::All => whole += 1,
            outcome => stopped.push((token, outcome)),
        }
    }
    let taken = stopped[before..].iter().filter_map(|(_, outcome)| match outcome {
        Outcome::Full(taken) => Some(*taken as u64),
        _ => None,
    });
    let (full, partial_bytes) = taken.fold((0, 0), |(full, bytes), taken| (full + 1, bytes + taken));
    metrics.sends.add(sends);
    metrics.deliveries.add(whole * parcel.publications);
    metrics.sent_bytes.add(whole * parcel.bytes.len() as u64 + partial_bytes);
    metrics.packed_saved_bytes.add(whole * parcel.saved + part_of(parcel.saved, partial_bytes, parcel.bytes));
    metrics.sends_full.add(full);
    Delivered { members: whole as u32 + (stopped.len() - before) as u32, sends }
}

/// What of `saved` belongs to so many of the bytes. (What is saved isn't known of each of them; it is about the same.)
fn part_of(saved: u64, taken: u64, bytes: &[u8]) -> u64 {
    saved * taken / bytes.len().max(1) as u64
}

/// Sends as much of a connection's answers as goes in one send.
pub fn flush<E: Edge>(ground: &mut Ground<E>, connection: &mut Connection<E::Socket>) -> Outcome {
    let next = connection.out.next();
    let outcome = deliver(&mut ground.edge, &ground.metrics, &mut connection.socket, (next, 0));
    let taken = match outcome {
        Outcome::All => next.len(),
        Outcome::Full(taken) => taken,
        Outcome::Broken(_) => 0,
    };
    let moved = connection.out.take(taken);
    ground.work.charge(price::SEND + price::lines(taken + moved));
    if taken > 0 {
        connection.sent = ground.now;
    }
    let is_whole = outcome == Outcome::All && connection.out.is_empty();
    if is_whole && connection.phase == Phase::Ending {
        ground.edge.finish(&mut connection.socket);
    }
    outcome
}

/// Sends `bytes`, in pieces of at most [`SEND_MAX`], until all are taken or the socket is full.
#[inline]
fn send_all<E: Edge>(edge: &mut E, socket: &mut E::Socket, bytes: &[u8], sends: &mut u64) -> Outcome {
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

/// How many of the pieces of a buffer, which end at `ends`, begin before byte `taken`.
pub fn begun(ends: impl Iterator<Item = usize>, taken: usize) -> usize {
    let mut start = 0;
    let mut begins_before = |end: &usize| std::mem::replace(&mut start, *end) < taken;
    ends.take_while(|end| begins_before(end)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_has_begun_when_its_first_byte_went() {
        assert_eq!([0, 1, 10, 11, 24, 25].map(|taken| begun([10, 25].into_iter(), taken)), [0, 1, 1, 2, 2, 2]);
    }
}
