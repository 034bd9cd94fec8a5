//! One connection, as its worker holds it.
//!
//! An idle connection costs one of these and nothing else in user space: receive buffers belong to the worker, and
//! everything that only some connections need is boxed. Keep it within 256 bytes (a test does).

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    cursors::{
        resume::Resume,
        round::{PacedRound, Round, Told},
    },
    fan::interest::CohortId,
    timers,
};
use crate::{
    clock::Moment,
    limits::{Permit, Spent},
    tape::Position,
    websocket::Decoder,
};

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its request is on the way.
    Request,
    /// It speaks WebSocket.
    Open,
    /// A close frame was sent, or waits to be; the peer's is awaited.
    Closing,
    /// Both sides are done; what still comes is thrown away until the peer ends the connection.
    Ending,
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
}

/// What is spoken on a connection.
#[derive(Clone, Debug)]
pub enum Speaks {
    /// The JSON protocol.
    Json,
    /// The bare payloads of one topic.
    Raw {
        /// The topic.
        topic: Arc<str>,
    },
    /// Server-Sent Events: the JSON protocol, one way.
    Events,
}

/// One connection.
pub struct Connection<S> {
    // What a pass over the members touches comes first.
    pub socket: S,
    /// The cohort whose names it is subscribed to.
    pub cohort: Option<CohortId>,
    /// Its place among the cohort's members, while it is one of them.
    pub place: u32,
    /// Its own cursor; none while it marches with its cohort (or has no subscription).
    pub march: Option<Box<March>>,
    pub phase: Phase,
    /// The socket was full; the edge tells when it has room.
    pub full: bool,
    /// It is on the worker's list of connections with answers to send.
    pub answered: bool,
    /// Before its request comes a PROXY header.
    pub awaits_header: bool,
    pub may_publish: bool,
    /// What has become of a ping, if nothing was heard since it was sent.
    pub ping: Ping,
    /// It is sent its own publications, too.
    pub echo: bool,
    pub speaks: Speaks,
    /// Answers that are not sent yet: whole frames, but for the first, which may have been sent in part.
    pub out: Vec<u8>,
    pub decoder: Decoder,
    /// The request so far, until it is complete.
    pub request: Vec<u8>,
    /// Distinguishes it from every other connection of this server; above 0.
    pub id: u64,
    /// When it last gave a sign of life, or is taken to have given one (`alive.rs`).
    pub heard: Moment,
    /// Bytes that its TCP is to have acknowledged, counted from the connection's beginning: those up to the end of the ping that
    /// it is behind, or those that it had acknowledged at the last look.
    pub mark: u64,
    /// When it was last sent something of its own, or something while it marched alone.
    pub sent: Moment,
    /// When its phase began.
    pub since: Moment,
    /// Publications left out because it was slow.
    pub skipped: u64,
    /// Its place among the timers; none while it is being looked at because its time has come.
    pub timer: Option<timers::Entry>,
    /// Commands and control frames that came lately.
    pub commands: Spent,
    /// Publications that came lately.
    pub publications: Spent,
    pub peer: SocketAddr,
    pub permit: Permit,
}

/// A cursor of one connection alone: its socket was full, or it has just subscribed.
#[derive(Debug, Default)]
pub struct March {
    /// The next publication to look at.
    pub position: Position,
    /// How many bytes of that publication's frame were already sent.
    pub offset: u32,
    /// Its place on the worker's list of those that march alone.
    pub place: u32,
    /// It is on the worker's list of those to go on this turn.
    pub listed: bool,
    /// Subscriptions that ended while it was behind: up to `until`, the older cohort counts.
    pub stages: VecDeque<Stage>,
    /// Its socket was full since it marches alone: of names that may be, it is sent the newest values.
    pub slow: bool,
    /// Its socket is kept short.
    pub short: bool,
    /// Since when it waits for room.
    pub full_since: Moment,
    /// How long it has waited for room the last time, until that was looked at.
    pub waited: Duration,
    /// How many bytes at the front of `out` are the rest of a publication.
    pub rest: usize,
    /// What it was sent or told of last, where that may leave something out.
    pub told: Option<Told>,
    /// What is left of the round that it is in.
    pub round: Round,
    /// The same for each of its rates, those of the cohort that it is under at `position`.
    pub paces: Vec<PacedRound>,
    /// What it has missed and is sent first; `position` is within that meanwhile.
    pub resume: Option<Resume>,
}

/// A change of subscription that a connection has not yet come to.
#[derive(Debug, Default)]
pub struct Stage {
    /// The position at which the change was made.
    pub until: Position,
    /// The cohort up to there.
    pub cohort: Option<CohortId>,
    /// What to say there: the acknowledgement and the snapshots.
    pub then: Vec<u8>,
    /// The newest numbers there of topics that are delivered in newest values from there on; none if none are.
    pub told: Option<Told>,
    /// Those of them that the client is told, or told again: what was left out of these before needn't be.
    pub fresh: Vec<(u32, u64)>,
    /// What it missed before and is sent then.
    pub resume: Option<Resume>,
}

impl Speaks {
    /// Whether it is told what happens; if not, it gets the publications and nothing else.
    pub fn tells(&self) -> bool {
        !matches!(self, Speaks::Raw { .. })
    }

    /// Whether the peer says anything once it is open, such as the answer to a ping.
    pub fn hears(&self) -> bool {
        !matches!(self, Speaks::Events)
    }
}

impl<S> Connection<S> {
    /// Whether it is one of its cohort's members in march, if it has a cohort.
    pub fn marches(&self) -> bool {
        self.march.is_none() && self.phase != Phase::Request
    }

    /// Bytes of memory beyond the struct itself that wait to be sent.
    pub fn pending(&self) -> usize {
        let stages = self.march.as_ref().map_or(0, |march| march.stages.iter().map(|stage| stage.then.len()).sum());
        self.out.len() + stages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::OwnedFd;

    #[test]
    fn an_idle_connection_stays_within_256_bytes() {
        let size = size_of::<Connection<OwnedFd>>();
        assert!(size <= 256, "{size}");
    }
}
