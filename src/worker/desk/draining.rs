//! Stopping: everybody is told, what is on its way is sent, and the connections are closed.

use super::{
    super::connection::{Connection, Phase},
    Clerk,
    closing::Farewell,
};
use crate::{clock::Moment, io::Edge, protocol::Reply, websocket::CloseCode};

/// The server is about to stop.
pub struct Draining {
    /// What is not done by then is not done any more.
    pub until: Moment,
    /// The connections were closed.
    pub closed: bool,
}

impl<E: Edge> Clerk<'_, E> {
    /// Whether there will be another turn.
    pub fn goes_on(&mut self) -> bool {
        let Clerk { desk, ground, fan, .. } = self;
        let caught_up = fan.interest.is_empty() || (fan.position() >= ground.tape.head() && !fan.owes());
        let Some(draining) = &desk.draining else { return true };
        let (over, closed) = (ground.now >= draining.until, draining.closed);
        if closed && over {
            return false;
        }
        if !closed && (over || (caught_up && self.all_said())) {
            let settings = &self.ground.settings;
            let until = self.ground.now + settings.close_timeout.min(settings.drain_timeout);
            self.desk.draining = Some(Draining { until, closed: true });
            self.close_all();
            self.flush_answers();
        }
        !self.connections.is_empty() || self.desk.draining.as_ref().is_some_and(|draining| !draining.closed)
    }

    /// Whether anything is left to say to anybody.
    fn all_said(&self) -> bool {
        let is_said = |connection: &Connection<E::Socket>| {
            connection.out.is_empty() && self.ground.edge.held(&connection.socket) == 0
        };
        !self.desk.asking.is_busy()
            && self.cursors.is_empty()
            && self.connections.iter().all(|(_, connection)| is_said(connection))
    }

    /// Tells every client that is told anything that the server is about to stop.
    pub fn announce_drain(&mut self) {
        let retry = self.ground.settings.drain_timeout.as_millis() as u64;
        let draining = Reply::Draining { retry_ms: [0, retry] };
        for token in self.connections.tokens() {
            let Some(connection) = self.connections.get(token) else { continue };
            match connection.phase {
                // At once, also before the acknowledgement of a subscription that it may not come to any more.
                Phase::Open if connection.lane.words().tells() => {
                    let words = connection.lane.words();
                    // What its subscription begins with stays in one piece.
                    match self.cursors.begun_words(token, connection) {
                        Some(after) => words.push_reply(after, &draining),
                        None => self.answer(token, |out| words.push_reply(out, &draining)),
                    }
                }
                // A request that is still on the way would be answered by a server that is gone.
                Phase::Request => self.remove(token),
                _ => {}
            }
        }
    }

    /// Closes every connection, because the server goes away.
    fn close_all(&mut self) {
        for token in self.connections.tokens() {
            self.close(
                token,
                Farewell { code: Some(CloseCode::GOING_AWAY), reason: "the server is stopping", error: None },
            );
        }
    }
}
