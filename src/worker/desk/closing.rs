//! The ends of connections.
//!
//! A WebSocket connection ends with a close frame from either side, answered by the other; then this side finishes first and
//! reads on until the peer has, so that no reset destroys what is still on its way. Whoever doesn't go along is dropped at
//! `--close-timeout`. Every end is one event in the log and one count by code.

use std::{fmt::Display, io};

use super::{
    super::{connection::Phase, cursors::Lagged, work::price},
    Clerk, Doom,
};
use crate::{
    audit::{What, shortened},
    io::{Edge, Token},
    log::{Kind, tell},
    metrics::{Ending, Refusal},
    protocol::{ErrorCode, Reply},
    websocket::CloseCode,
};

/// What is said at the end.
pub struct Farewell<'a> {
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

impl<E: Edge> Clerk<'_, E> {
    /// Fails the connections whose peers broke the rules, or sent what there is no room for, after what they published before
    /// was sent; and closes those that lag too far. As many as a turn allows: nothing more is heard from those that are left.
    ///
    /// RFC 6455, section 7.1.7: the close frame is the last thing, and no answer to it is waited for.
    pub fn fail_doomed(&mut self) {
        let rest = self.spare() / 2;
        while !self.desk.doomed.is_empty() {
            if self.spare() <= rest {
                return self.ground.work.put_off();
            }
            let Some((handle, doom)) = self.desk.doomed.pop_front() else { return };
            self.ground.work.charge(price::LOOK);
            if self.connections.named(handle).is_none() {
                continue;
            }
            let token = handle.token;
            let (code, reason) = match doom {
                Doom::Violation(violation) => (violation.code(), violation.to_string()),
                Doom::Full(Refusal::AddressAssemblyFull) => (
                    CloseCode::TRY_AGAIN_LATER,
                    "your address has more unfinished messages than --max-assembly-per-ip allows".to_owned(),
                ),
                Doom::Lags(reason) => {
                    self.close(token, Farewell::after(ErrorCode::Lagged, &reason));
                    continue;
                }
                Doom::Full(Refusal::AddressHeldFull) => (
                    CloseCode::TRY_AGAIN_LATER,
                    "your address has more memory held for it than --max-held-per-ip allows".to_owned(),
                ),
                Doom::Full(Refusal::HeldFull) => {
                    (CloseCode::TRY_AGAIN_LATER, "more memory is held for clients than --max-held allows".to_owned())
                }
                Doom::Full(_) => (
                    CloseCode::TRY_AGAIN_LATER,
                    "there are more unfinished messages than --max-assembly allows".to_owned(),
                ),
            };
            self.close(token, Farewell { code: Some(code), reason: &reason, error: None });
            if let Some(connection) = self.connections.get_mut(token) {
                connection.phase = Phase::Ending;
                self.answer(token, |_| {});
            }
        }
    }

    fn is_open(&self, token: Token) -> bool {
        self.connections.get(token).is_some_and(|connection| connection.phase == Phase::Open)
    }

    /// Says goodbye; the connection ends when the peer has answered, or at the timeout.
    pub fn close(&mut self, token: Token, farewell: Farewell<'_>) {
        let code = number(farewell.code);
        self.close_as(token, farewell, Ending::by_server(code));
    }

    fn close_as(&mut self, token: Token, farewell: Farewell<'_>, ending: Ending) {
        let Some(connection) = self.connections.get(token).filter(|it| it.phase == Phase::Open) else { return };
        let rest = self.cursors.rest_of_frame(self.ground, token, connection);
        self.ground.work.charge(price::END + price::lines(rest.as_ref().map_or(0, Vec::len)));
        self.note_end(token, number(farewell.code), ending, &farewell.reason);
        self.unsubscribe_all(token);
        let Some(rest) = rest else { return self.remove(token) };
        let Clerk { ground, connections, .. } = self;
        let Some(connection) = connections.get_mut(token) else { return };
        connection.phase = Phase::Closing;
        connection.since = ground.now;
        connection.out.put_front(rest);
        let words = connection.lane.words();
        connection.out.write(|out| {
            if let Some(code) = farewell.error {
                words.push_reply(out, &Reply::Error { id: None, code, message: farewell.reason });
            }
            words.push_close(out, farewell.code.map(|code| (code, farewell.reason)));
        });
        if !words.hears() {
            // The peer has nothing to answer.
            connection.phase = Phase::Ending;
        }
        self.answer(token, |_| {});
        self.set_timer(token);
    }

    /// The peer says goodbye, first or in answer.
    pub fn peer_closes(&mut self, token: Token, code: Option<CloseCode>) {
        if self.is_open(token) {
            // RFC 6455, section 5.5.1: the answer echoes the code; without one it has none either.
            let ending = Ending::by_client(number(code));
            self.close_as(token, Farewell { code, reason: "", error: None }, ending);
        }
        let Clerk { ground, connections, .. } = self;
        let Some(connection) = connections.get_mut(token) else { return };
        if connection.phase == Phase::Closing {
            connection.phase = Phase::Ending;
            connection.since = ground.now;
            self.answer(token, |_| {});
            self.set_timer(token);
        }
    }

    /// The peer has ended the connection.
    pub fn ended(&mut self, token: Token) {
        if self.is_open(token) {
            self.note_loss(token, &"the peer ended the connection without a close frame");
        }
        self.remove(token);
    }

    /// The connection broke.
    pub fn lost(&mut self, token: Token, why: io::ErrorKind) {
        if self.is_open(token) {
            self.note_loss(token, &format_args!("the connection broke: {why}"));
        }
        self.remove(token);
    }

    /// Drops a connection that can't be told anything any more.
    pub fn cut(&mut self, token: Token, why: &str) {
        if self.is_open(token) {
            self.note_loss(token, &why);
        }
        self.remove(token);
    }

    /// Notes an end without a close frame.
    fn note_loss(&mut self, token: Token, reason: &dyn Display) {
        self.note_end(token, 1006, Ending::by_server(1006), reason);
    }

    fn note_end(&mut self, token: Token, code: u16, ending: Ending, reason: &dyn Display) {
        if self.ground.shared.audit.is_on() {
            let been = self.been(token);
            let reason = shortened(&reason.to_string());
            self.note(token, |_| What::End { code, reason, been });
        }
        let Some(connection) = self.connections.get(token) else { return };
        self.ground.shared.metrics.close(ending);
        let open = self.ground.metrics.open(!connection.lane.words().hears());
        open.set(open.get() - 1);
        let packed = &self.ground.metrics.packed;
        packed.set(packed.get() - u64::from(connection.takes_packed()));
        match code {
            1000 | 1001 | 1005 | 1006 => {
                tracing::debug!(conn = connection.name(), peer = %connection.peer, code, %reason, "closed");
            }
            _ => tell!(
                self.ground.shared.log,
                Kind::Closed(ending),
                self.ground.now,
                INFO,
                { conn = connection.name(), peer = %connection.peer, code, %reason },
                "closed"
            ),
        }
    }

    /// Ends every trace of a connection.
    pub fn remove(&mut self, token: Token) {
        // The kernel is told that it is closed.
        self.ground.work.charge(price::END + price::SEND);
        self.unsubscribe_all(token);
        self.clear_timer(token);
        self.forget_held(token);
        self.desk.exchanges.forget(token);
        let Some(connection) = self.connections.remove(token) else { return };
        let assembly = &self.ground.metrics.assembly_bytes;
        assembly.set(assembly.get().saturating_sub(connection.decoder.buffered() as u64));
    }

    /// Has a subscriber closed that is further behind than is allowed, when its turn comes.
    pub fn lags(&mut self, lagged: Lagged) {
        if let Some(handle) = self.connections.handle(lagged.token) {
            self.desk.doomed.push_back((handle, Doom::Lags(lagged.reason)));
        }
    }

    /// Closes a subscriber whose next publication is gone: at once, while the rest of the one before is there.
    pub fn lagged(&mut self, lagged: &Lagged) {
        self.close(lagged.token, Farewell::after(ErrorCode::Lagged, &lagged.reason));
    }
}

/// The number of a close code. RFC 6455, section 7.1.5: 1005 stands for a close without one.
fn number(code: Option<CloseCode>) -> u16 {
    code.map_or(1005, CloseCode::get)
}
