//! What a worker does because nothing happened: timeouts, heartbeats and pings.

use std::time::Duration;

use super::{
    Worker,
    closing::Farewell,
    connection::{Phase, Speaks},
};
use crate::{
    clock::Moment,
    http,
    io::{Edge, Token},
    protocol::reply,
    websocket::{CloseCode, frame},
};

/// How often, at most, it is looked at how a connection with a full socket does, where there is no idle timeout.
const FULL_LOOK_EVERY: Duration = Duration::from_secs(4);

impl<E: Edge> Worker<E> {
    /// Looks at the connections whose timers have come.
    pub(super) fn expire(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.timers.expire(self.now, &mut due);
        for (token, tick) in due.drain(..) {
            if self.connections.get(token as usize).is_some_and(|connection| connection.timer == tick) {
                self.time_out(token);
                self.set_timer(token);
            }
        }
        self.due = due;
    }

    /// Sets a connection's timer to the next moment at which something could be due.
    pub(super) fn set_timer(&mut self, token: Token) {
        if !self.connections.contains(token as usize) {
            return;
        }
        let due = self.next_due(token);
        self.connections[token as usize].timer = self.timers.set(token, due);
    }

    fn next_due(&mut self, token: Token) -> Moment {
        let sent = self.last_sent(token);
        let settings = &self.settings;
        let connection = &self.connections[token as usize];
        match connection.phase {
            Phase::Request => connection.since + settings.handshake_timeout,
            Phase::Closing | Phase::Ending => connection.since + settings.close_timeout,
            Phase::Open if connection.full => self.now + settings.idle_timeout.max(FULL_LOOK_EVERY) / 4,
            Phase::Open => {
                let heartbeat = match connection.speaks {
                    Speaks::Json | Speaks::Events if !settings.heartbeat.is_zero() => sent + settings.heartbeat,
                    _ => Moment::NEVER,
                };
                let idle = match (settings.idle_timeout, connection.pinged) {
                    _ if !connection.speaks.hears() => Moment::NEVER,
                    (timeout, _) if timeout.is_zero() => Moment::NEVER,
                    (timeout, true) => connection.heard + timeout,
                    (timeout, false) => connection.heard + timeout / 2,
                };
                // A moment that is past already has been dealt with; look again soon.
                heartbeat.min(idle).max(self.now)
            }
        }
    }

    fn time_out(&mut self, token: Token) {
        let sent = self.last_sent(token);
        let (settings, now) = (&self.settings, self.now);
        let connection = &mut self.connections[token as usize];
        match connection.phase {
            Phase::Request if now >= connection.since + settings.handshake_timeout => {
                self.refuse(token, &http::Refusal::new(408, "The request did not come in time."));
            }
            Phase::Closing | Phase::Ending if now >= connection.since + settings.close_timeout => self.remove(token),
            // Its socket is full, and pings would wait behind what is there. A subscriber may be slow: it falls off the tape
            // if it never reads again. But what it asked for and doesn't take is memory.
            Phase::Open if connection.full => {
                let idle = settings.idle_timeout;
                let rest = connection.march.as_ref().map_or(0, |march| march.rest);
                if !idle.is_zero() && connection.out.len() > rest && now >= connection.sent + idle {
                    let waiting = connection.out.len();
                    return self
                        .cut(token, &format!("{waiting} bytes of answers were not taken for {} s", idle.as_secs()));
                }
                connection.heard = now;
            }
            Phase::Open => {
                let hears = connection.speaks.hears();
                let (idle, heard) = (if hears { settings.idle_timeout } else { Duration::ZERO }, connection.heard);
                let beat = settings.heartbeat;
                let tells = connection.speaks.tells();
                if !idle.is_zero() && connection.pinged && now >= heard + idle {
                    let reason = format!("nothing was heard for {} s, not even the answer to a ping", idle.as_secs());
                    let farewell = Farewell { code: Some(CloseCode::POLICY), reason: &reason, error: None };
                    return self.close(token, farewell);
                }
                if !idle.is_zero() && !connection.pinged && now >= heard + idle / 2 {
                    connection.pinged = true;
                    // Where the timeout was lowered meanwhile, the answer has as long as under the new one all along.
                    connection.heard = heard.max(now - idle / 2);
                    self.answer(token, |out| frame::push_ping(out, b""));
                }
                if tells && !beat.is_zero() && now >= sent + beat && self.connections.contains(token as usize) {
                    let ts = self.edge.wall_us();
                    self.answer_json(token, |out| reply::heartbeat(out, ts));
                    // Sent at the next flush; until then it counts as sent, so that no second one follows.
                    if let Some(connection) = self.connections.get_mut(token as usize) {
                        connection.sent = now;
                    }
                }
            }
            _ => {}
        }
    }

    /// When a connection was last sent something: an answer, or a publication alone or with its cohort.
    fn last_sent(&mut self, token: Token) -> Moment {
        let connection = &self.connections[token as usize];
        match connection.cohort.filter(|_| connection.march.is_none()) {
            Some(cohort) => connection.sent.max(self.interest.cohort(cohort).last_sent),
            None => connection.sent,
        }
    }
}
