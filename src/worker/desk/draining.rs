//! Stopping: everybody is told, what is on its way is sent, and the connections are closed.
//!
//! ```text
//!   telling ──► waiting until all is said, or the time is up ──► closing ──► closed: peers have --close-timeout
//! ```
//!
//! Each of them goes through all connections, as far as a turn allows, and goes on there in the next.

use super::{
    super::{
        connection::{Connection, Phase},
        work::price,
    },
    Clerk,
    closing::Farewell,
};
use crate::{
    clock::Moment,
    io::{Edge, Token},
    protocol::Reply,
    websocket::CloseCode,
};

/// The server is about to stop.
pub struct Draining {
    /// What is not done by then is not done any more.
    until: Moment,
    stage: Stage,
    /// Connections below this one were seen to in this stage.
    next: Token,
    /// There is more to do at once.
    is_busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Telling,
    Waiting,
    Closing,
    Closed,
}

impl Draining {
    /// Until then there is time to send what is on its way.
    pub fn new(until: Moment) -> Draining {
        Draining { until, stage: Stage::Telling, next: 0, is_busy: true }
    }

    /// When it goes on though nothing happens.
    pub fn until(&self) -> Moment {
        self.until
    }

    /// Whether it goes on in the next turn.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Whether connections are closed already.
    #[cfg(all(test, not(loom)))]
    pub fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing | Stage::Closed)
    }

    fn enter(&mut self, stage: Stage) {
        (self.stage, self.next) = (stage, 0);
    }
}

impl<E: Edge> Clerk<'_, E> {
    /// Whether there will be another turn.
    pub fn goes_on(&self) -> bool {
        let Some(draining) = self.desk.draining.as_ref().filter(|draining| draining.stage == Stage::Closed) else {
            return true;
        };
        self.ground.now < draining.until && !self.connections.is_empty()
    }

    /// Goes on stopping, if the server does.
    pub fn drain(&mut self) {
        let Some(mut draining) = self.desk.draining.take() else { return };
        let rest = self.spare() / 2;
        draining.is_busy = false;
        loop {
            let is_over = self.ground.now >= draining.until;
            let is_through = match draining.stage {
                Stage::Telling => self.walk(&mut draining, rest, Clerk::tell_draining),
                Stage::Waiting => is_over || (self.has_caught_up() && self.walk(&mut draining, rest, Clerk::is_said)),
                Stage::Closing => self.walk(&mut draining, rest, Clerk::go_away),
                Stage::Closed => false,
            };
            if !is_through {
                break;
            }
            match draining.stage {
                Stage::Telling => draining.enter(Stage::Waiting),
                Stage::Waiting => draining.enter(Stage::Closing),
                Stage::Closing | Stage::Closed => {
                    let settings = &self.ground.settings;
                    draining.until = self.ground.now + settings.close_timeout.min(settings.drain_timeout);
                    draining.enter(Stage::Closed);
                }
            }
        }
        self.desk.draining = Some(draining);
    }

    /// Before the worker sleeps: what was still to be said when it was looked may have been said since.
    pub fn see_whether_all_is_said(&mut self) {
        let waits = |draining: &&Draining| draining.stage == Stage::Waiting;
        let Some(next) = self.desk.draining.as_ref().filter(waits).map(|draining| draining.next) else { return };
        let goes_on = self.has_caught_up() && self.is_said(next);
        self.desk.draining.iter_mut().for_each(|draining| draining.is_busy |= goes_on);
    }

    /// Goes through the connections from where it stopped, as far as the step allows, while `see_to` says that it may go on.
    /// Returns whether it has come to the end. Whoever comes meanwhile is refused.
    fn walk(&mut self, draining: &mut Draining, rest: u64, see_to: impl Fn(&mut Self, Token) -> bool) -> bool {
        while draining.next < self.connections.end() {
            if self.spare() <= rest {
                draining.is_busy = true;
                self.ground.work.put_off();
                return false;
            }
            self.ground.work.charge(price::LOOK);
            if !see_to(self, draining.next) {
                return false;
            }
            draining.next += 1;
        }
        true
    }

    /// Whether all that was published was sent to everybody, and what was asked for was done.
    fn has_caught_up(&self) -> bool {
        let Clerk { ground, fan, cursors, .. } = self;
        let is_sent = fan.interest.is_empty() || (fan.planned_for_all() >= ground.tape.head() && !fan.owes());
        is_sent && cursors.is_empty() && !self.desk.asking.is_busy()
    }

    /// Whether nothing is left to say to this one.
    fn is_said(&mut self, token: Token) -> bool {
        let is_said = |connection: &Connection<E::Socket>| {
            connection.out.is_empty() && self.ground.edge.held(&connection.socket) == 0
        };
        self.connections.get(token).is_none_or(is_said)
    }

    /// What a client is told of it, with a time of its own to come back.
    pub fn draining_of(&self, connection: &Connection<E::Socket>) -> Reply<'static> {
        let retry = self.ground.settings.drain_timeout.as_millis() as u64;
        // Numbers are given out in order. (The golden ratio's multiples are spread evenly.)
        let own = connection.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        Reply::Draining { retry_ms: [0, retry], retry: (own * (retry & 0xffff_ffff)) >> 32 }
    }

    /// Tells a client, if it is told anything, that the server is about to stop.
    pub fn tell_draining(&mut self, token: Token) -> bool {
        let Some(connection) = self.connections.get(token) else { return true };
        match connection.phase {
            // At once, also before the acknowledgement of a subscription that it may not come to any more.
            Phase::Open if connection.lane.words().tells() => {
                let words = connection.lane.words();
                let draining = self.draining_of(connection);
                // What its subscription begins with stays in one piece.
                match self.cursors.begun(token, connection) {
                    Some(begins) => {
                        words.push_reply(&mut begins.after, &draining);
                        begins.tells_draining = true;
                        self.note_held(token);
                    }
                    None => self.answer(token, |out| words.push_reply(out, &draining)),
                }
            }
            // A request that is still on the way would be answered by a server that is gone.
            Phase::Request | Phase::Between => self.remove(token),
            Phase::Answering | Phase::AnsweringLast => self.end_exchange(token),
            _ => {}
        }
        true
    }

    /// Closes a connection, because the server goes away. Who was to be told so behind snapshots that it has not come to the end of is told
    /// now: without that it would come back at once, and with it all others that read slowly.
    fn go_away(&mut self, token: Token) -> bool {
        if self.connections.get(token).is_some_and(|connection| connection.phase.is_answering()) {
            self.remove(token);
        }
        let owed = self
            .connections
            .get(token)
            .filter(|connection| connection.phase == Phase::Open && self.cursors.owes_draining(token, connection));
        if let Some(draining) = owed.map(|connection| self.draining_of(connection))
            && let Some(connection) = self.connections.get_mut(token)
        {
            let words = connection.lane.words();
            connection.out.write(|out| words.push_reply(out, &draining));
        }
        let going = Farewell { code: Some(CloseCode::GOING_AWAY), reason: "the server is stopping", error: None };
        self.close(token, going);
        true
    }
}
