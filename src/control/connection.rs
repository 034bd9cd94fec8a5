//! What is kept of a plain HTTP connection, and how long it is waited for.

use std::{net::SocketAddr, time::Duration};

use rustix::fd::OwnedFd;

use super::upload::Upload;
use crate::{clock::Moment, handover::Arrival, limits::Permit};

/// One connection.
pub(super) struct Connection {
    pub socket: OwnedFd,
    pub peer: SocketAddr,
    pub permit: Permit,
    /// What was received and not dealt with: the beginning of a head, or pipelined requests.
    pub input: Vec<u8>,
    /// Answers that the kernel has not taken.
    pub out: Vec<u8>,
    pub stage: Stage,
    /// When the first byte of the present request's head came.
    pub begun: Moment,
    /// When the client last went on: sent or took something.
    pub heard: Moment,
    /// When it will have been waited for long enough.
    pub due: Moment,
    /// The client has ended its side.
    pub ended: bool,
    /// It is among those that go on next turn by themselves.
    pub again: bool,
    /// What its socket is watched for.
    pub watched: Watched,
}

/// Where a connection stands.
pub(super) enum Stage {
    /// Between two requests, or in the head of one.
    Head,
    /// In the body of a publication.
    Body(Box<Upload>),
    /// The last answer was given. Once it is sent, this side finishes, and what still comes in is read and thrown away, so
    /// that no reset destroys the answer on its way (RFC 9112, section 9.6).
    Ending {
        /// This side has finished.
        finished: bool,
    },
}

/// What a socket is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    pub read: bool,
    pub write: bool,
}

/// How long each thing is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the next request.
    pub keep_alive: Duration,
    /// For a whole head.
    pub head: Duration,
    /// For the client to go on.
    pub step: Duration,
}

impl Connection {
    pub fn new(arrival: Arrival<OwnedFd>, now: Moment) -> Connection {
        Connection {
            socket: arrival.socket,
            peer: arrival.peer,
            permit: arrival.permit,
            input: arrival.received,
            out: Vec::new(),
            stage: Stage::Head,
            begun: now,
            heard: now,
            due: Moment::NEVER,
            ended: false,
            again: false,
            watched: Watched { read: true, write: false },
        }
    }

    /// Between two requests, with nothing to say.
    pub fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Head) && self.input.is_empty() && self.out.is_empty()
    }

    /// What its socket should be watched for: a client that leaves answers lying is not read from.
    pub fn wants(&self) -> Watched {
        let write = !self.out.is_empty();
        Watched { read: !write && !self.ended && !self.again, write }
    }

    /// When it will have been waited for long enough.
    pub fn deadline(&self, patience: Patience) -> Moment {
        let step = self.heard + patience.step;
        match self.stage {
            Stage::Head if !self.out.is_empty() => step,
            Stage::Head if self.input.is_empty() => self.heard + patience.keep_alive,
            // Both, or a byte now and then would keep the place for hours.
            Stage::Head => step.min(self.begun + patience.head),
            Stage::Body(_) | Stage::Ending { .. } => step,
        }
    }
}
