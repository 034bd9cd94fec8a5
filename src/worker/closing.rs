//! Answers, and the ends of connections.
//!
//! A WebSocket connection ends with a close frame from either side, answered by the other; then this side finishes first and
//! reads on until the peer has, so that no reset destroys what is still on its way. Whoever doesn't go along is dropped at
//! `--close-timeout`. Every end is one event in the log and one count by code.

use std::{fmt::Display, io};

use super::{
    Doom, Worker,
    connection::{Connection, Phase},
    cursors::Lagged,
    deliver::{Outcome, flush},
};
use crate::{
    io::{Edge, Flushed, Token},
    log::{Kind, tell},
    metrics::{Ending, Refusal},
    protocol::{ErrorCode, Reply},
    websocket::CloseCode,
};

/// What is said at the end.
pub(super) struct Farewell<'a> {
    /// The code of the close frame; none only in answer to one without.
    pub code: Option<CloseCode>,
    /// Its reason, and the message of the error that goes before.
    pub reason: &'a str,
    /// The code of that error; none for no error message.
    pub error: Option<ErrorCode>,
}

impl<'a> Farewell<'a> {
    /// An error after which the connection can't go on.
    pub fn after(error: ErrorCode, reason: &'a str) -> Farewell<'a> {
        Farewell { code: error.closes_with(), reason, error: Some(error) }
    }
}

impl<E: Edge> Worker<E> {
    /// Appends answers to what a connection is to be sent, and sees to it that they are.
    pub(super) fn answer(&mut self, token: Token, write: impl FnOnce(&mut Vec<u8>)) {
        let connection = &mut self.connections[token as usize];
        write(&mut connection.out);
        if self.bound_pending(token) {
            return;
        }
        let connection = &mut self.connections[token as usize];
        if !connection.answered {
            connection.answered = true;
            self.answered.push(token);
        }
    }

    /// Cuts a connection for which more answers wait than may; returns whether it did.
    pub(super) fn bound_pending(&mut self, token: Token) -> bool {
        let most = self.settings.pending_max;
        let over = self.connections.get(token).is_some_and(|it| self.cursors.pending(token, it) > most);
        if over {
            self.cut(token, &format!("more than --max-pending {most} bytes of answers wait for it"));
        }
        over
    }

    /// Answers in the words of the connection's lane. It doesn't overtake the acknowledgement of a subscription that the
    /// connection has not come to yet.
    pub(super) fn reply(&mut self, token: Token, reply: &Reply<'_>) {
        let connection = &self.connections[token as usize];
        let words = connection.lane.words();
        if let Some(then) = self.cursors.last_words(token, connection) {
            words.push_reply(then, reply);
            self.bound_pending(token);
        } else {
            self.answer(token, |out| words.push_reply(out, reply));
        }
    }

    /// Sends the answers that were given this turn, before the pass: publications come after them.
    pub(super) fn flush_answers(&mut self) {
        let mut answered = std::mem::take(&mut self.answered);
        for token in answered.drain(..) {
            let Worker { ground, connections, fan, cursors, .. } = self;
            let Some(connection) = connections.get_mut(token) else { continue };
            if !std::mem::take(&mut connection.answered) || connection.full {
                continue;
            }
            if cursors.list(token, connection) {
                continue;
            }
            match flush(ground, connection) {
                Outcome::All => {}
                Outcome::Full(_) => {
                    let subscribed = connection.cohort.is_some();
                    let position = fan.part(connections, token);
                    let Some(connection) = connections.get_mut(token) else { continue };
                    if subscribed {
                        cursors.begin(ground, &mut fan.interest, connection, token, position).conflates = true;
                    }
                    cursors.is_full(token, connection, ground.now);
                    connection.full = true;
                }
                Outcome::Broken(why) => self.lost(token, why),
            }
        }
        self.answered = answered;
    }

    /// The socket has room again: first for what the edge holds back.
    pub(super) fn has_room(&mut self, token: Token) {
        let Worker { ground, connections, cursors, .. } = self;
        let connection = &mut connections[token as usize];
        match ground.edge.flush(&mut connection.socket) {
            Flushed::All => {}
            Flushed::Held => return,
            Flushed::Broken(why) => return self.lost(token, why),
        }
        if !std::mem::take(&mut connection.full) {
            return;
        }
        if !cursors.has_room(token, connection, ground.now) && !std::mem::replace(&mut connection.answered, true) {
            self.answered.push(token);
        }
    }

    /// Fails the connections whose peers broke the rules in this turn, or sent what there is no room for, after what they
    /// published before was sent.
    ///
    /// RFC 6455, section 7.1.7: the close frame is the last thing, and no answer to it is waited for.
    pub(super) fn fail_doomed(&mut self) {
        for (token, doom) in std::mem::take(&mut self.doomed) {
            let (code, reason) = match doom {
                Doom::Violation(violation) => (violation.code(), violation.to_string()),
                Doom::Full(Refusal::AddressAssemblyFull) => (
                    CloseCode::TRY_AGAIN_LATER,
                    "your address has more unfinished messages than --max-assembly-per-ip allows".to_owned(),
                ),
                Doom::Full(_) => (
                    CloseCode::TRY_AGAIN_LATER,
                    "there are more unfinished messages than --max-assembly allows".to_owned(),
                ),
            };
            self.close_if_there(token, Farewell { code: Some(code), reason: &reason, error: None });
            if let Some(connection) = self.connections.get_mut(token) {
                connection.phase = Phase::Ending;
                self.answer(token, |_| {});
            }
        }
    }

    /// Says goodbye; the connection ends when the peer has answered, or at the timeout.
    pub(super) fn close(&mut self, token: Token, farewell: Farewell<'_>) {
        let code = number(farewell.code);
        self.close_as(token, farewell, Ending::by_server(code));
    }

    fn close_as(&mut self, token: Token, farewell: Farewell<'_>, ending: Ending) {
        if self.connections[token as usize].phase != Phase::Open {
            return;
        }
        self.note_end(token, number(farewell.code), ending, &farewell.reason);
        let rest = self.cursors.rest_of_frame(&self.ground, token, &self.connections[token as usize]);
        self.unsubscribe_all(token);
        let Some(mut out) = rest else { return self.remove(token) };
        let Worker { ground, connections, .. } = self;
        let connection = &mut connections[token as usize];
        connection.phase = Phase::Closing;
        connection.since = ground.now;
        out.append(&mut connection.out);
        let words = connection.lane.words();
        if let Some(code) = farewell.error {
            words.push_reply(&mut out, &Reply::Error { id: None, code, message: farewell.reason });
        }
        words.push_close(&mut out, farewell.code.map(|code| (code, farewell.reason)));
        if !words.hears() {
            // The peer has nothing to answer.
            connection.phase = Phase::Ending;
        }
        connection.out = out;
        self.answer(token, |_| {});
        self.set_timer(token);
    }

    /// The peer says goodbye, first or in answer.
    pub(super) fn peer_closes(&mut self, token: Token, code: Option<CloseCode>) {
        if self.connections[token as usize].phase == Phase::Open {
            // RFC 6455, section 5.5.1: the answer echoes the code; without one it has none either.
            let ending = Ending::by_client(number(code));
            self.close_as(token, Farewell { code, reason: "", error: None }, ending);
        }
        let Worker { ground, connections, .. } = self;
        let Some(connection) = connections.get_mut(token) else { return };
        if connection.phase == Phase::Closing {
            connection.phase = Phase::Ending;
            connection.since = ground.now;
            self.answer(token, |_| {});
            self.set_timer(token);
        }
    }

    /// The peer has ended the connection.
    pub(super) fn ended(&mut self, token: Token) {
        if self.connections[token as usize].phase == Phase::Open {
            self.note_loss(token, &"the peer ended the connection without a close frame");
        }
        self.remove(token);
    }

    /// The connection broke.
    pub(super) fn lost(&mut self, token: Token, why: io::ErrorKind) {
        if self.connections[token as usize].phase == Phase::Open {
            self.note_loss(token, &format_args!("the connection broke: {why}"));
        }
        self.remove(token);
    }

    /// Drops a connection that can't be told anything any more.
    pub(super) fn cut(&mut self, token: Token, why: &str) {
        if self.connections[token as usize].phase == Phase::Open {
            self.note_loss(token, &why);
        }
        self.remove(token);
    }

    /// Notes an end without a close frame.
    fn note_loss(&mut self, token: Token, reason: &dyn Display) {
        self.note_end(token, 1006, Ending::by_server(1006), reason);
    }

    fn note_end(&mut self, token: Token, code: u16, ending: Ending, reason: &dyn Display) {
        let connection = &self.connections[token as usize];
        self.shared.metrics.close(ending);
        let open = self.metrics().open(!connection.lane.words().hears());
        open.set(open.get() - 1);
        match code {
            1000 | 1001 | 1005 | 1006 => {
                tracing::debug!(conn = connection.name(), peer = %connection.peer, code, %reason, "closed");
            }
            _ => tell!(
                self.shared.log,
                Kind::Closed(ending),
                self.now,
                INFO,
                { conn = connection.name(), peer = %connection.peer, code, %reason },
                "closed"
            ),
        }
    }

    /// Ends every trace of a connection.
    pub(super) fn remove(&mut self, token: Token) {
        self.unsubscribe_all(token);
        self.clear_timer(token);
        let Some(connection) = self.connections.remove(token) else { return };
        let assembly = &self.metrics().assembly_bytes;
        assembly.set(assembly.get().saturating_sub(connection.decoder.buffered() as u64));
    }

    /// Whether anything is left to say to anybody.
    pub(super) fn all_said(&self) -> bool {
        let is_said =
            |connection: &Connection<E::Socket>| connection.out.is_empty() && self.edge.held(&connection.socket) == 0;
        self.cursors.is_empty() && self.connections.iter().all(|(_, connection)| is_said(connection))
    }

    /// Tells every client that is told anything that the server is about to stop.
    pub(super) fn announce_drain(&mut self) {
        let retry = self.settings.drain_timeout.as_millis() as u64;
        let draining = Reply::Draining { retry_ms: [0, retry] };
        for token in self.connections.tokens() {
            let connection = &self.connections[token as usize];
            match connection.phase {
                // At once, also before the acknowledgement of a subscription that it may not come to any more.
                Phase::Open if connection.lane.words().tells() => {
                    let words = connection.lane.words();
                    self.answer(token, |out| words.push_reply(out, &draining));
                }
                // A request that is still on the way would be answered by a server that is gone.
                Phase::Request => self.remove(token),
                _ => {}
            }
        }
    }

    /// Closes every connection, because the server goes away.
    pub(super) fn close_all(&mut self) {
        for token in self.connections.tokens() {
            self.close(
                token,
                Farewell { code: Some(CloseCode::GOING_AWAY), reason: "the server is stopping", error: None },
            );
        }
    }

    /// Closes a subscriber that is too far behind.
    pub(super) fn lagged(&mut self, lagged: &Lagged) {
        self.close(lagged.token, Farewell::after(ErrorCode::Lagged, &lagged.reason));
    }
}

/// The number of a close code. RFC 6455, section 7.1.5: 1005 stands for a close without one.
fn number(code: Option<CloseCode>) -> u16 {
    code.map_or(1005, CloseCode::get)
}
