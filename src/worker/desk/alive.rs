//! Who is alive: telling the slow, the hung and the dead from each other.
//!
//! Whoever is heard from is alive. Of a peer that is silent, the kernel knows what its TCP has acknowledged (`io/acks.rs`):
//!
//! | | how it shows | what happens |
//! | --- | --- | --- |
//! | dead | asked more than once, its TCP has answered nothing for `--idle-timeout` | dropped: nobody is there to be told |
//! | hung | its TCP has taken a ping, and the application has not answered for `--idle-timeout` | closed with 1008 |
//! | slow | its TCP answers, and the ping stands behind what it has not taken yet | stays: it is behind, and the tape sees to that |
//!
//! ```text
//!   heard    idle/4 … idle/2     idle/4 later                            idle later
//!     |--------[ping sent]---------|------------- … ----|------------------|
//!                                  the first look       ping taken         1008
//!                                  if no pong came, then one every quarter
//! ```
//!
//! Each connection has moments of its own for its pings (`expire.rs`), so that those of thousands that were heard at once don't go out
//! at once.
//!
//! A full socket has no ping asked of it: that would stand behind what is there. What its peer asked for and doesn't take is
//! memory, so its TCP has to take some of that. A stream of events has nobody who answers: only its TCP counts.
//!
//! A worker that is busy may not have read what somebody said. Whoever has something that was not read isn't judged: its silence
//! counts from when it was; and before anybody is closed for silence, or a request refused that did not come in time, it is read
//! once more (`reading.rs`).
//!
//! Nothing of this is counted as bytes are sent. Where a ping ends is found out at the first look, which is after it was sent:
//! all that the kernel was given until then. A peer that answers its pings is never looked at. Each look is a question to the
//! kernel, which a turn has as many of as its work allows.

use std::time::Duration;

use super::{
    super::{connection::Ping, work::price},
    Clerk,
    closing::Farewell,
    expire::ping_due,
};
use crate::{
    http,
    io::{Edge, Token, acks::Acks},
    websocket::{CloseCode, frame},
};

/// A connection that is closing has to go on taking what is left, and may take so many times `--close-timeout` for it.
const CLOSING_MAX: u32 = 12;

impl<E: Edge> Clerk<'_, E> {
    /// Sees whether an open connection's peer is alive, if it is time for that; ends the connection if it isn't.
    pub fn check_alive(&mut self, token: Token) {
        let (idle, now) = (self.ground.settings.idle_timeout, self.ground.now);
        let Some(connection) = self.connections.get_mut(token) else { return };
        if idle.is_zero() {
            return;
        }
        if connection.full {
            return self.check_full(token, idle);
        }
        if connection.unread {
            // Whether it was silent isn't known: that counts from when it is read.
            connection.heard = if connection.ping == Ping::Doubted { now - idle } else { now };
            return;
        }
        if connection.ping == Ping::None && connection.lane.words().hears() {
            if now >= ping_due(connection, idle) {
                connection.ping = Ping::Sent;
                connection.heard = now - idle * 3 / 4;
                self.answer(token, |out| frame::push_ping(out, b""));
            }
        } else if now >= connection.heard + idle
            && let Some(acks) = self.look(token, idle)
        {
            self.doubt(token, idle, acks);
        }
    }

    /// Asks what a peer's TCP has acknowledged. None if the peer is dead, and the connection gone.
    fn look(&mut self, token: Token, idle: Duration) -> Option<Acks> {
        let Clerk { ground, connections, .. } = self;
        let socket = &connections.get(token)?.socket;
        let acks = ground.edge.acks(socket);
        ground.work.charge(price::SEND);
        if acks.is_dead(idle) {
            ground.metrics.dead.add(1);
            let (silent, unanswered) = (acks.silent.as_secs(), acks.unanswered);
            let what = if unanswered == 1 { "retransmission or probe was" } else { "retransmissions or probes were" };
            let why = format!("nothing was acknowledged for {silent} s, {unanswered} {what} not answered");
            self.cut(token, &why);
            return None;
        }
        if acks.silent >= idle / 2 {
            ground.edge.keep_asking(socket, idle);
        }
        Some(acks)
    }

    /// What to make of a connection that is silent, with room in its socket and a peer whose TCP is there.
    fn doubt(&mut self, token: Token, idle: Duration, acks: Acks) {
        let now = self.ground.now;
        let Some(connection) = self.connections.get_mut(token) else { return };
        // Looked at again after a quarter of the timeout, unless it is known to have been there later.
        let soon = now - idle * 3 / 4;
        let answered = soon.max(now - acks.silent);
        if connection.ping == Ping::Taken {
            // Its answer may have come and not been told of yet.
            (connection.ping, connection.heard) = (Ping::Doubted, now - idle);
            return self.stand_in_line(token);
        }
        if connection.ping == Ping::Doubted {
            let reason =
                format!("nothing was heard for {} s after a ping arrived, not even its answer", idle.as_secs());
            return self.close(token, Farewell { code: Some(CloseCode::POLICY), reason: &reason, error: None });
        }
        if !connection.lane.words().hears() {
            connection.heard = answered;
            return;
        }
        connection.heard = soon;
        if connection.ping == Ping::Sent && connection.out.is_empty() {
            (connection.ping, connection.mark) = (Ping::Behind, acks.end());
        }
        if connection.ping == Ping::Behind && acks.acked >= connection.mark {
            connection.ping = Ping::Taken;
            // Nothing was acknowledged since; there may have been before.
            connection.heard = if acks.queued == 0 { answered } else { now };
        }
    }

    /// A connection whose socket is full. A subscriber may be slow: it falls off the tape if it never reads again. But what it
    /// asked for and doesn't take is memory.
    fn check_full(&mut self, token: Token, idle: Duration) {
        let Some(acks) = self.look(token, idle) else { return };
        let Clerk { ground, connections, cursors, .. } = self;
        let Some(connection) = connections.get_mut(token) else { return };
        if connection.ping == Ping::Behind {
            // How far behind is found out anew.
            connection.ping = Ping::Sent;
        }
        let takes = acks.acked != std::mem::replace(&mut connection.mark, acks.acked);
        let rest = cursors.of(token, connection).map_or(0, |behind| behind.rest);
        let waiting = connection.out.len();
        if takes {
            connection.sent = ground.now;
        }
        // Hearing from it is no sign that it takes anything.
        if takes || waiting <= rest {
            connection.heard = ground.now;
        } else if ground.now >= connection.sent + idle {
            self.cut(token, &format!("{waiting} bytes of answers were not taken for {} s", idle.as_secs()));
        }
    }

    /// A request that did not come in time is refused, once all that came of it is read; its time counts from then.
    pub fn check_request(&mut self, token: Token) {
        let now = self.ground.now;
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.unread {
            connection.since = now;
        } else if connection.ping == Ping::Doubted {
            let begun = std::mem::take(&mut connection.request);
            self.refuse(token, &begun, &http::Refusal::new(408, "The request did not come in time."));
        } else {
            connection.ping = Ping::Doubted;
            self.stand_in_line(token);
        }
    }

    /// A connection that is closing, and whose peer has not gone along in time, is dropped: unless its TCP is still taking what
    /// was sent before, a little at a time.
    pub fn check_closing(&mut self, token: Token) {
        let Clerk { ground, connections, .. } = self;
        let Some(connection) = connections.get_mut(token) else { return };
        let acks = ground.edge.acks(&connection.socket);
        ground.work.charge(price::SEND);
        let takes = acks.acked != std::mem::replace(&mut connection.mark, acks.acked);
        let waits = acks.queued > 0 || !connection.out.is_empty();
        let most = ground.settings.close_timeout * CLOSING_MAX;
        if connection.unread && ground.now < connection.since + most {
            // Its answer may be among what wasn't read.
            return;
        }
        if !takes || !waits || ground.now >= connection.since + most {
            self.remove(token);
        }
    }
}
