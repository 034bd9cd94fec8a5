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
//!   heard          idle/2     idle*3/4                                idle later
//!     |--------------|----------|---------- … ----|----------------------|
//!                    ping sent  the first look    ping taken             1008
//!                               if no pong came, then one every quarter
//! ```
//!
//! A full socket has no ping asked of it: that would stand behind what is there. What its peer asked for and doesn't take is
//! memory, so its TCP has to take some of that. A stream of events has nobody who answers: only its TCP counts.
//!
//! Nothing of this is counted as bytes are sent. Where a ping ends is found out at the first look, which is after it was sent:
//! all that the kernel was given until then. A peer that answers its pings is never looked at. Each look is a question to the
//! kernel, and `expire.rs` bounds how many there are in a turn.

use std::time::Duration;

use super::{super::connection::Ping, Clerk, closing::Farewell};
use crate::{
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
            // What it says isn't looked at.
            connection.heard = now;
            return;
        }
        if connection.ping == Ping::None && connection.lane.words().hears() {
            if now >= connection.heard + idle / 2 {
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
        if acks.is_dead(idle) {
            ground.metrics.dead.add(1);
            let (silent, unanswered) = (acks.silent.as_secs(), acks.unanswered);
            let why = format!(
                "nothing was acknowledged for {silent} s, {unanswered} retransmissions or probes were not answered"
            );
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

    /// A connection that is closing, and whose peer has not gone along in time, is dropped: unless its TCP is still taking what
    /// was sent before, a little at a time.
    pub fn check_closing(&mut self, token: Token) {
        let Clerk { ground, connections, .. } = self;
        let Some(connection) = connections.get_mut(token) else { return };
        let acks = ground.edge.acks(&connection.socket);
        let takes = acks.acked != std::mem::replace(&mut connection.mark, acks.acked);
        let waits = acks.queued > 0 || !connection.out.is_empty();
        let most = ground.settings.close_timeout * CLOSING_MAX;
        if !takes || !waits || ground.now >= connection.since + most {
            self.remove(token);
        }
    }
}
