//! What is kept of a plain HTTP connection, and how long it is waited for.

use std::{net::SocketAddr, time::Duration};

use super::{
    Newcomer,
    looks::Look,
    out::{Out, Pending},
    topics::Listing,
    upload::Upload,
};
use crate::{clock::Moment, handover::Listener, http::response::Readers, limits::Permit};

/// One connection.
pub(super) struct Connection<S> {
    pub socket: S,
    pub peer: SocketAddr,
    /// Its room among all connections; none of those of the admin address, which are counted apart.
    pub permit: Option<Permit>,
    /// The kind of listener that it came by.
    pub by: Listener,
    /// What was received and not dealt with: the beginning of a head, or pipelined requests.
    pub input: Vec<u8>,
    /// Answers that the edge has not taken.
    pub out: Out,
    /// Bytes of them that it took and holds back still.
    pub held: usize,
    pub stage: Stage,
    /// When the first byte of the present request's head came.
    pub begun: Moment,
    /// When the client last went on: sent or took something.
    pub heard: Moment,
    /// Whether what is being sent or taken moves fast enough.
    pub pace: Pace,
    /// When it will have been waited for long enough.
    pub due: Moment,
    /// The client has ended its side.
    pub ended: bool,
    /// It is among those that go on by themselves.
    pub again: bool,
    /// Its next request waits for room among the answers of all, since then.
    pub waits: Option<Moment>,
    /// The body that it publishes waits until workers have come on, since then.
    pub paused: Option<Moment>,
    /// Meanwhile its socket isn't watched at all: it broke, and would be told of again and again.
    pub apart: bool,
    /// It has one of the places that are kept for probes.
    pub reserved: bool,
    /// Its socket takes little beyond what is on its way.
    pub short: bool,
    /// Its socket is watched for reading.
    pub reads: bool,
    /// Which pages may read the answer to the present request.
    pub readers: Readers,
}

/// Where a connection stands.
pub(super) enum Stage {
    /// Between two requests, or in the head of one.
    Head,
    /// In the body of a publication.
    Body(Box<Upload>),
    /// A page of the list of topics is being made.
    Listing(Box<Listing>),
    /// Workers are asked for connections.
    Looking(Box<Look>),
    /// The last answer was given. Once it is sent, this side finishes, and what still comes in is read and thrown away, so
    /// that no reset destroys the answer on its way (RFC 9112, section 9.6).
    Ending {
        /// This side has finished.
        finished: bool,
    },
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
    /// Bytes a second that a head, a payload or an answer moves at least; 0 for any.
    pub rate: u64,
}

/// Until when a transfer has earned to be waited for: each byte buys its share of a second, from the beginning on, and none
/// buys more than one step ahead. So whoever moves at the rate is never late, and a byte now and then soon is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// See above.
    pub until: Moment,
    /// When it began.
    begun: Moment,
    /// Bytes that have moved.
    bytes: u64,
}

impl Pace {
    /// A transfer that begins now.
    pub fn new(now: Moment, patience: Patience) -> Pace {
        Pace { until: now + patience.step, begun: now, bytes: 0 }
    }

    /// How long it has lasted.
    pub fn lasted(&self, now: Moment) -> Duration {
        now.since(self.begun)
    }

    /// Bytes a second until now.
    pub fn rate(&self, now: Moment) -> u64 {
        let nanos = u128::from(self.bytes).saturating_mul(1_000_000_000) / self.lasted(now).as_nanos().max(1);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// So many bytes have moved.
    pub fn moved(&mut self, now: Moment, bytes: usize, patience: Patience) {
        let step = now + patience.step;
        self.bytes += bytes as u64;
        self.until = match (bytes as u64).saturating_mul(1_000_000_000).checked_div(patience.rate) {
            Some(nanos) => step.min(self.until + Duration::from_nanos(nanos)),
            None => step,
        };
    }
}

impl<S> Connection<S> {
    pub fn new(newcomer: Newcomer<S>, now: Moment, pending: &Pending) -> Self {
        let Newcomer { socket, peer, permit, by, received } = newcomer;
        Connection {
            socket,
            peer,
            permit,
            by,
            input: received,
            out: Out::new(pending),
            held: 0,
            stage: Stage::Head,
            begun: now,
            heard: now,
            pace: Pace { until: Moment::NEVER, begun: now, bytes: 0 },
            due: Moment::NEVER,
            ended: false,
            again: false,
            waits: None,
            paused: None,
            apart: false,
            reserved: false,
            short: false,
            reads: true,
            readers: Readers::default(),
        }
    }

    /// Its answers are on their way, as far as they were given: the kernel has them all.
    pub fn is_said(&self) -> bool {
        self.out.is_empty() && self.held == 0
    }

    /// Everything was sent that ever will be; only the client's own end is waited for.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Ending { finished: true }) && self.held == 0
    }

    /// Between two requests, with nothing to say.
    pub fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Head) && self.input.is_empty() && self.is_said()
    }

    /// Between two requests, whatever of the next is there already.
    pub fn is_between(&self) -> bool {
        matches!(self.stage, Stage::Head) && self.is_said()
    }

    /// In the middle of a head.
    pub fn is_in_head(&self) -> bool {
        matches!(self.stage, Stage::Head) && !self.input.is_empty() && !self.again && self.waits.is_none()
    }

    /// In the middle of something that has a pace: a head, a single payload, or an answer.
    pub fn is_moving(&self) -> bool {
        let in_payload = matches!(&self.stage, Stage::Body(upload) if upload.is_one());
        !self.is_said() || (in_payload && self.paused.is_none()) || self.is_in_head()
    }

    /// Whether its socket should be watched for reading: a client that leaves answers lying is not read from.
    pub fn wants_to_read(&self) -> bool {
        let goes_on = self.again || self.waits.is_some() || self.paused.is_some() || self.is_looking();
        self.is_said() && !self.ended && !goes_on
    }

    /// Whether what it is answered waits for what workers say.
    pub fn is_looking(&self) -> bool {
        matches!(self.stage, Stage::Looking(_))
    }

    /// When it will have been waited for long enough.
    pub fn deadline(&self, patience: Patience) -> Moment {
        let step = self.heard + patience.step;
        match &self.stage {
            _ if !self.is_said() => self.pace.until,
            _ if self.paused.is_some() => Moment::NEVER,
            Stage::Head if self.input.is_empty() => self.heard + patience.keep_alive,
            Stage::Head => match self.waits {
                Some(since) => since + patience.step,
                // Both, or a byte now and then would keep the place for hours.
                None => self.pace.until.min(self.begun + patience.head),
            },
            Stage::Body(upload) if upload.is_one() => self.pace.until,
            Stage::Body(_) | Stage::Ending { .. } => step,
            Stage::Listing(_) => Moment::NEVER,
            Stage::Looking(look) => look.due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        keep_alive: Duration::from_secs(20),
        head: Duration::from_secs(10),
        step: Duration::from_secs(5),
        rate: 1000,
    };

    /// How long a transfer lasts of which so many bytes move each so many milliseconds.
    fn lasts(bytes: usize, each_ms: u64, patience: Patience) -> Option<u64> {
        let mut pace = Pace::new(Moment(0), patience);
        let mut now = Moment(0);
        for n in 0..10_000 {
            now = now + Duration::from_millis(each_ms);
            if pace.until <= now {
                return Some(n * each_ms);
            }
            pace.moved(now, bytes, patience);
        }
        None
    }

    #[test]
    fn whoever_moves_at_the_rate_is_never_late_and_a_byte_now_and_then_is() {
        assert_eq!(lasts(1000, 1000, PATIENCE), None);
        assert_eq!(lasts(4900, 4900, PATIENCE), None, "in pieces as well");
        assert_eq!(lasts(1, 1000, PATIENCE), Some(5000));
        assert_eq!(lasts(900, 1000, PATIENCE), Some(40_000));
        assert_eq!(lasts(1 << 30, 5000, PATIENCE), Some(0), "nothing buys more than a step");
        assert_eq!(lasts(1, 4999, Patience { rate: 0, ..PATIENCE }), None);
    }
}
