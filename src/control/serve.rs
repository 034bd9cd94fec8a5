//! Requests in order, answers in order, and the ends of connections.
//!
//! One connection's requests are dealt with one after the other, as RFC 9112 section 9.3.2 wants it of a server; some of
//! them each turn, so that a long pipeline doesn't keep the others waiting.

use std::{net::SocketAddr, sync::Arc};

use super::{
    Control,
    connection::{Connection, Patience, Stage},
    upload::{By, Progress, Upload},
};
use crate::{
    handover::{Arrival, hand_to_fewest},
    http::{self, Response, response::CONTINUE},
    io::{Edge, Received, Sent, Token},
    metrics,
};

/// Requests of one connection that are answered in one turn. A scrape takes most of a millisecond.
const REQUESTS_A_TURN: usize = 16;

/// Answers that may wait for one connection before its next request is looked at: what its send buffer holds by default.
/// The last answer may go beyond it.
const OUT_MAX: usize = 256 * 1024;

/// Buffers of a connection that are larger than this are given back when they are empty.
const BUFFER_KEPT: usize = 8 * 1024;

/// How it goes on with one connection.
enum Next {
    /// There may be another request.
    GoOn,
    /// More must come in first.
    NeedsInput,
    /// The answers must be sent first.
    NeedsRoom,
    /// The next request is for a worker.
    ForWorker,
    /// The connection is no longer here.
    Gone,
}

/// What a request comes to.
pub(super) enum Outcome<'a> {
    /// An answer.
    Answer(Response<'a>),
    /// A body, to be published.
    Upload(Box<Upload>),
    /// It is for a worker.
    WebSocket,
}

impl Control {
    /// Reads what has come in, and answers it.
    pub(super) fn read_one(&mut self, token: Token) {
        let connection = &mut self.connections[token as usize];
        if !connection.watched.read {
            return;
        }
        match self.edge.receive(&connection.socket, &mut self.read) {
            Received::Nothing => return,
            Received::Broken(why) => {
                tracing::debug!(peer = %connection.peer, %why, "an HTTP connection broke");
                return self.remove(token);
            }
            Received::End => connection.ended = true,
            // Not "heard": whoever goes on sending behind its last answer is not waited for longer.
            Received::Bytes(_) if matches!(connection.stage, Stage::Ending { .. }) => return,
            Received::Bytes(n) => {
                if matches!(connection.stage, Stage::Head) && connection.input.is_empty() {
                    connection.begun = self.now;
                }
                connection.heard = self.now;
                connection.input.extend_from_slice(&self.read[..n]);
            }
        }
        self.serve(token);
    }

    /// The kernel has room for more of the answers.
    pub(super) fn has_room(&mut self, token: Token) {
        if !self.connections[token as usize].out.is_empty() && self.flush(token) {
            self.serve(token);
        }
    }

    /// Answers what has come in, as far as there is room, and sends the answers.
    pub(super) fn serve(&mut self, token: Token) {
        let mut answered = 0;
        let next = loop {
            let connection = &self.connections[token as usize];
            if connection.out.len() >= OUT_MAX {
                break Next::NeedsRoom;
            }
            let next = match connection.stage {
                Stage::Head if answered >= REQUESTS_A_TURN => break Next::NeedsRoom,
                Stage::Head => {
                    answered += 1;
                    self.serve_head(token)
                }
                Stage::Body(_) => self.serve_body(token),
                Stage::Ending { .. } => {
                    self.connections[token as usize].input = Vec::new();
                    break Next::NeedsInput;
                }
            };
            if !matches!(next, Next::GoOn) {
                break next;
            }
        };
        if matches!(next, Next::Gone) || !self.flush(token) {
            return;
        }
        let connection = &mut self.connections[token as usize];
        if matches!(next, Next::NeedsRoom) && connection.out.is_empty() && !connection.again {
            connection.again = true;
            self.again.push(token);
        }
        if connection.ended && connection.out.is_empty() && !connection.again {
            // Whoever has ended its side has no request to come, and a half of one is none.
            return self.remove(token);
        }
        self.watch_on(token);
    }

    /// Deals with the next request, if its head is whole.
    fn serve_head(&mut self, token: Token) -> Next {
        let input = std::mem::take(&mut self.connections[token as usize].input);
        if input.is_empty() {
            return Next::NeedsInput;
        }
        let (next, used) = match http::head::parse(&input, self.context.shared.settings.get().head_max) {
            Ok(None) => (Next::NeedsInput, 0),
            Ok(Some((head, len))) => {
                let next = self.begin(token, &head);
                let is_done = matches!(next, Next::GoOn);
                (next, if is_done { len } else { 0 })
            }
            Err(refusal) => {
                self.refuse(token, &refusal, false, false);
                (Next::GoOn, input.len())
            }
        };
        if matches!(next, Next::ForWorker) {
            return self.give_to_worker(token, input);
        }
        self.keep_input(token, input, used);
        next
    }

    /// Keeps what follows the request that was dealt with.
    fn keep_input(&mut self, token: Token, mut input: Vec<u8>, used: usize) {
        if used > 0 {
            input.drain(..used);
            self.connections[token as usize].begun = self.now;
        }
        if input.is_empty() && input.capacity() > BUFFER_KEPT {
            input = Vec::new();
        }
        self.connections[token as usize].input = input;
    }

    /// Answers a request, or begins to take its body in.
    fn begin(&mut self, token: Token, head: &http::Request<'_>) -> Next {
        let is_head = head.method == "HEAD";
        // A body that nobody asked for is not read; so nobody knows where the next request begins.
        let has_body = !matches!(head.body, http::Body::None | http::Body::Length(0));
        let keep_alive = head.keep_alive && !has_body && !self.is_draining();
        let direct = self.connections[token as usize].peer;
        let peer = self.context.shared.settings.get().proxies.client(direct, head);
        let (method, path) = (head.method, head.path());
        match self.route(head, direct) {
            Ok(Outcome::WebSocket) => {
                // What was asked before has to be answered before.
                let is_said = self.connections[token as usize].out.is_empty();
                return if is_said { Next::ForWorker } else { Next::NeedsRoom };
            }
            Ok(Outcome::Answer(answer)) => {
                tracing::trace!(%peer, method, path, "answered");
                let answer = answer.keep_alive(keep_alive);
                self.answer(token, &answer, is_head, keep_alive);
            }
            Ok(Outcome::Upload(mut upload)) => {
                upload.by = self.publishes_for(token, peer);
                let connection = &mut self.connections[token as usize];
                if head.expect_continue {
                    connection.out.extend_from_slice(CONTINUE);
                }
                connection.stage = Stage::Body(upload);
            }
            Err(refusal) => {
                tracing::debug!(%peer, method, path, %refusal, "refused");
                self.refuse(token, &refusal, is_head, keep_alive);
            }
        }
        self.context.shared.metrics.http_requests.bump();
        Next::GoOn
    }

    /// Whom a publication is charged to: whoever the connection is counted for, or the client that a trusted proxy names.
    fn publishes_for(&self, token: Token, client: SocketAddr) -> Option<By> {
        let settings = self.context.shared.settings.get();
        let account = match self.connections[token as usize].permit.account() {
            Some(account) => Arc::clone(account),
            None if settings.proxies.trust(client.ip()) => return None,
            None => self.context.limits.account(client.ip(), self.now),
        };
        Some(By { account, quota: settings.publications_per_address })
    }

    /// Takes in what has come of a body, and answers when it is complete.
    fn serve_body(&mut self, token: Token) -> Next {
        let connection = &mut self.connections[token as usize];
        let Stage::Body(upload) = &mut connection.stage else { return Next::GoOn };
        let input = std::mem::take(&mut connection.input);
        let mut rest = &input[..];
        let progress = upload.take_in(&mut rest, &self.publisher);
        let used = input.len() - rest.len();
        let keep_alive = upload.keep_alive && self.until.is_none();
        let next = match progress {
            Ok(Progress::NeedsMore) => Next::NeedsInput,
            Ok(Progress::Done(json)) => {
                connection.stage = Stage::Head;
                let answer = Response::new(200).body(http::response::JSON, json).keep_alive(keep_alive);
                self.answer(token, &answer, false, keep_alive);
                Next::GoOn
            }
            Err(fault) => {
                connection.stage = Stage::Head;
                tracing::debug!(peer = %connection.peer, refusal = %fault.refusal, "refused");
                if let Some(why) = fault.why {
                    self.context.shared.metrics.refuse(why);
                }
                self.refuse(token, &fault.refusal, false, keep_alive && fault.is_complete);
                Next::GoOn
            }
        };
        self.keep_input(token, input, used);
        next
    }

    /// Appends an answer to what a connection is to be sent; with the last one it ends.
    fn answer(&mut self, token: Token, answer: &Response<'_>, is_head: bool, keep_alive: bool) {
        let connection = &mut self.connections[token as usize];
        answer.write(&mut connection.out, is_head);
        if !keep_alive {
            connection.stage = Stage::Ending { finished: false };
            connection.heard = self.now;
        }
    }

    /// Answers with a refusal.
    fn refuse(&mut self, token: Token, refusal: &http::Refusal, is_head: bool, keep_alive: bool) {
        let metrics = &self.context.shared.metrics;
        match refusal.status {
            401 => metrics.refuse(metrics::Refusal::Forbidden),
            403 => metrics.refuse(metrics::Refusal::Origin),
            408 => metrics.refuse(metrics::Refusal::HandshakeTimeout),
            // Full, draining or not ready: counted by who says so, if it is a refusal at all.
            429 | 503 => {}
            _ => metrics.refuse(metrics::Refusal::BadRequest),
        }
        self.answer(token, &refusal.response().keep_alive(keep_alive), is_head, keep_alive);
    }

    /// Sends what the kernel takes. Returns whether the connection is still there.
    fn flush(&mut self, token: Token) -> bool {
        let connection = &mut self.connections[token as usize];
        let mut taken = 0;
        while taken < connection.out.len() {
            match self.edge.send(&connection.socket, &connection.out[taken..]) {
                Sent::Took(n) => taken += n,
                Sent::Full => break,
                Sent::Broken(why) => {
                    tracing::debug!(peer = %connection.peer, %why, "an HTTP connection broke");
                    self.remove(token);
                    return false;
                }
            }
        }
        if taken > 0 {
            connection.heard = self.now;
            connection.out.drain(..taken);
        }
        if connection.out.is_empty() {
            if connection.out.capacity() > BUFFER_KEPT {
                connection.out = Vec::new();
            }
            if let Stage::Ending { finished: finished @ false } = &mut connection.stage {
                *finished = true;
                self.edge.finish(&connection.socket);
            }
        }
        self.watch_on(token);
        true
    }

    /// Watches a connection for what it waits for now, and for no longer than that is worth.
    fn watch_on(&mut self, token: Token) {
        let settings = self.context.shared.settings.get();
        let patience = Patience {
            keep_alive: self.context.settings.keep_alive,
            head: settings.handshake_timeout,
            step: settings.close_timeout,
        };
        let connection = &mut self.connections[token as usize];
        connection.due = connection.deadline(patience);
        let wants = connection.wants();
        if wants != connection.watched {
            connection.watched = wants;
            self.edge.interest(&connection.socket, token, wants.read, wants.write);
        }
    }

    /// A connection has been waited for long enough.
    pub(super) fn time_out(&mut self, token: Token) {
        let connection = &self.connections[token as usize];
        let is_cut_short = match connection.stage {
            _ if !connection.out.is_empty() => false,
            Stage::Head => !connection.input.is_empty(),
            Stage::Body(_) => true,
            Stage::Ending { .. } => false,
        };
        if !is_cut_short || connection.again {
            return self.remove(token);
        }
        tracing::debug!(peer = %connection.peer, "a request broke off");
        let text = match &connection.stage {
            Stage::Body(upload) => upload.cut_short(),
            _ => "The request did not come in time.".to_owned(),
        };
        self.refuse(token, &http::Refusal::new(408, text), false, false);
        self.serve(token);
    }

    /// Hands a connection to the worker that has the fewest, with what was read from it; says 503 if none takes it.
    fn give_to_worker(&mut self, token: Token, received: Vec<u8>) -> Next {
        self.edge.unwatch(&self.connections[token as usize].socket);
        let Connection { socket, peer, permit, .. } = self.connections.remove(token as usize);
        let arrival = Arrival { socket, peer, permit, received };
        let (why, mut arrival) = if self.is_draining() {
            (metrics::Refusal::Draining, arrival)
        } else {
            match hand_to_fewest(&self.context.workers, &self.context.shared.metrics, arrival) {
                Ok(()) => return Next::Gone,
                Err(arrival) => (metrics::Refusal::InboxFull, arrival),
            }
        };
        self.context.shared.metrics.refuse(why);
        arrival.received = Vec::new();
        let back = Connection::new(arrival, self.now);
        if self.edge.watch(&back.socket, token).is_err() {
            return Next::Gone;
        }
        let again = self.connections.insert(back);
        debug_assert_eq!(again, token as usize, "a slab gives the place out first that was freed last");
        self.refuse(token, &http::Refusal::new(503, "The server is full: try again later."), false, false);
        Next::GoOn
    }
}
