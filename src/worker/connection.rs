//! One connection, as its worker holds it.
//!
//! An idle connection costs one of these and nothing else in user space: receive buffers belong to the worker, and
//! everything that only some connections need is boxed. Keep it within 256 bytes (a test does).

use std::{net::SocketAddr, sync::Arc};

use super::{cursor::Cursor, out::Backlog, timers};
use crate::{
    access::Holder,
    clock::Moment,
    handover::Listener,
    lane::Lane,
    limits::{Permit, Spent},
    packs::{Form, Packing},
    protocol::Declared,
    rota::Group,
    websocket::{Decoder, Role},
};

/// A cohort of this worker: all connections with the same subscription.
pub type CohortId = u32;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its request is on the way.
    Request,
    /// Its request is being answered, over plain HTTP (`desk/exchange.rs`).
    Answering,
    /// The same, and then it ends: its client has ended its side, or the server is about to stop.
    AnsweringLast,
    /// It was answered, and nothing of another request has come.
    Between,
    /// It speaks WebSocket.
    Open,
    /// A close frame was sent, or waits to be; the peer's is awaited.
    Closing,
    /// Both sides are done; what still comes is thrown away until the peer ends the connection.
    Ending,
}

impl Phase {
    /// Whether a request is being answered over plain HTTP.
    pub fn is_answering(self) -> bool {
        matches!(self, Phase::Answering | Phase::AnsweringLast)
    }
}

/// What has become of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ping {
    /// None is on the way.
    None,
    /// It was sent, or waits to be.
    Sent,
    /// It stands behind bytes that the peer's TCP has not acknowledged.
    Behind,
    /// The peer's TCP has it: the answer is up to the application.
    Taken,
    /// It has been waited for long enough, if what came meanwhile is read and was nothing. Also of a request that has not come.
    Doubted,
}

/// Whether its socket is watched for what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// It is.
    Watched,
    /// Not for reading: it stands in line for that.
    Parked,
    /// Not at all: it broke while it stood in line, and would be told of again and again.
    Apart,
    /// Not for reading: so much of what it has asked for waits that this has to be done first (`desk/asking.rs`).
    Stopped,
}

/// What a connection holds, as the desk counts it (`desk/held.rs`); all of it is known to its permit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Holding {
    /// Bytes of answers that wait.
    pub answers: u32,
    /// Its place among those that may be cut, by what they hold; 0 for none.
    pub rank: u32,
}

/// What a connection can be sent of compressed publications, and what it has of them: both in one byte, of which there are no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packed {
    /// None.
    Clear(Declined),
    /// Those that were compressed by themselves: no streams were shared when it came.
    Once,
    /// The same, since it wants each message compressed by itself.
    Alone,
    /// The same, since its window is smaller than that of streams.
    Narrow,
    /// Those of a stream, too; it has to wait for one to begin anew.
    Waits,
    /// The same; and it has everything of its cohort's stream up to where it is.
    Shares,
}

/// Why a connection is sent nothing compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declined {
    /// It speaks no WebSocket, or hasn't come to that.
    NoWebSocket,
    /// The server doesn't compress.
    Off,
    /// Its address says so.
    Unwanted,
    /// It is one of the clients that are known to fail with it.
    Denied,
    /// It has made no offer, or none that can be kept.
    NotOffered,
    /// It has agreed, to a window that is smaller than that of all frames.
    Narrow,
}

/// What becomes of what a connection has asked for (kept by the desk).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    /// Nothing waits: all of it was done.
    Nothing,
    /// Some of it waits, and has its turns.
    Waits,
    /// Some of it waits until the client has taken some of its answers.
    Parked,
    /// Some of it waits until those who publish may go on.
    Held,
}

/// One connection.
///
/// Its fields lie in memory in this order: what a pass over the members touches is one cache line, which a pass waits for.
#[repr(C)]
pub struct Connection<S> {
    pub socket: S,
    /// The request so far, until it is complete. Where its capacity would stand tells a free place of the table from a taken one.
    pub request: Vec<u8>,
    /// The topic that its messages are published on, where they don't name one.
    pub topic: Option<Box<Arc<str>>>,
    /// Answers that are not sent yet: whole frames, but for the first, which may have been sent in part.
    pub out: Backlog,
    pub decoder: Decoder,
    pub permit: Permit,
    /// Distinguishes it from every other connection of this server; above 0.
    pub id: u64,
    /// When it last gave a sign of life, or is taken to have given one (`alive.rs`).
    pub heard: Moment,
    /// Bytes that its TCP is to have acknowledged, counted from the connection's beginning: those up to the end of the ping that
    /// it is behind, or those that it had acknowledged at the last look.
    pub mark: u64,
    /// When it was last sent something of its own, or something while it was behind.
    pub sent: Moment,
    /// When its phase began.
    pub since: Moment,
    /// Publications left out because it was slow.
    pub skipped: u64,
    /// Commands and control frames that came lately.
    pub commands: Spent,
    /// Publications that came lately.
    pub publications: Spent,
    pub peer: SocketAddr,
    /// What it held at the end of the last turn.
    pub held: Holding,
    /// The cohort whose names it is subscribed to.
    pub cohort: Option<CohortId>,
    pub cursor: Cursor,
    /// Its place among the timers; none while it is being looked at because its time has come.
    pub timer: Option<timers::Entry>,
    /// Who is at the other end.
    pub holder: Holder,
    pub phase: Phase,
    /// The socket was full; the edge tells when it has room.
    pub full: bool,
    /// It is on the worker's list of connections with answers to send.
    pub answered: bool,
    /// Whether something that it has asked for waits to be done.
    pub undone: Undone,
    /// Before its request comes a PROXY header.
    pub awaits_header: bool,
    /// It stands in line to be read.
    pub queued: bool,
    /// There may be something of it that was not read, or read and not looked at: it isn't judged by its silence.
    pub unread: bool,
    /// What was read of it last was published.
    pub publishes: bool,
    /// Whether its socket is watched.
    pub reads: Reads,
    /// What has become of a ping, if nothing was heard since it was sent.
    pub ping: Ping,
    /// It was told that its token expires soon.
    pub told_expiring: bool,
    /// It is sent its own publications, too.
    pub echo: bool,
    /// What the text that it publishes without words around it is said to be.
    pub declared: Declared,
    /// How it is spoken with, and what it is sent from.
    pub lane: Lane,
    /// What it can be sent of compressed publications, and what it has of them.
    pub packed: Packed,
    /// The kind of listener that it came by.
    pub by: Listener,
}

impl<S> Connection<S> {
    /// A connection that has said nothing yet.
    pub fn new(
        id: u64,
        socket: S,
        (peer, permit, by): (SocketAddr, Permit, Listener),
        holder: Holder,
        now: Moment,
    ) -> Connection<S> {
        Connection {
            socket,
            cohort: None,
            cursor: Cursor::None,
            phase: Phase::Request,
            full: false,
            answered: false,
            undone: Undone::Nothing,
            awaits_header: false,
            queued: false,
            unread: false,
            publishes: false,
            reads: Reads::Watched,
            told_expiring: false,
            holder,
            ping: Ping::None,
            echo: true,
            declared: Declared::default(),
            skipped: 0,
            lane: Lane::Json,
            packed: Packed::Clear(Declined::NoWebSocket),
            topic: None,
            out: Backlog::default(),
            decoder: Decoder::new(Role::Server),
            request: Vec::new(),
            id,
            heard: now,
            mark: 0,
            sent: now,
            since: now,
            held: Holding::default(),
            timer: None,
            commands: Spent::default(),
            publications: Spent::default(),
            peer,
            permit,
            by,
        }
    }

    /// How it is sent publications that it has for itself.
    pub fn form(&self) -> Form {
        Form { lane: self.lane, packed: self.takes_packed() }
    }

    /// Whether it is sent anything compressed.
    pub fn takes_packed(&self) -> bool {
        !matches!(self.packed, Packed::Clear(_))
    }

    /// What it can be sent.
    pub fn packing(&self) -> Packing {
        match self.packed {
            Packed::Clear(_) => Packing::Clear,
            Packed::Once | Packed::Alone | Packed::Narrow => Packing::Once,
            Packed::Waits | Packed::Shares => Packing::Shared,
        }
    }

    /// Whether it has everything of its cohort's stream up to where it is, since that began anew. As of when it left the head; while it is
    /// there the fan knows.
    #[inline]
    pub fn shares(&self) -> bool {
        self.packed == Packed::Shares
    }

    /// Notes whether it has.
    #[inline]
    pub fn note_shares(&mut self, shares: bool) {
        if matches!(self.packed, Packed::Waits | Packed::Shares) {
            self.packed = if shares { Packed::Shares } else { Packed::Waits };
        }
    }

    /// Whose connections it takes turns with: those of its address, or nobody's.
    pub fn group(&self) -> Group {
        match self.permit.account() {
            // An account that connections hold has a place of its own in memory. (Places are even.)
            Some(account) => Group(Arc::as_ptr(account) as u64),
            None => Group(self.id << 1 | 1),
        }
    }

    /// What it came to: a WebSocket with envelopes or for one topic, or a stream of events.
    pub fn door(&self) -> &'static str {
        match &self.topic {
            _ if !self.lane.words().hears() => "sse",
            Some(_) => "raw",
            None => "ws",
        }
    }

    /// What it is called in the log and in `hello`.
    pub fn name(&self) -> String {
        format!("{:x}-{:x}", self.id >> 48, self.id & 0xffff_ffff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::epoll::Socket;

    #[test]
    fn an_idle_connection_stays_within_256_bytes() {
        let size = size_of::<Connection<Socket>>();
        assert!(size <= 256, "{size}");
    }
}
