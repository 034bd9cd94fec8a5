//! Requests that a worker answers over plain HTTP, because only it reads the tape: one after the other on a connection, which it keeps.
//!
//! ```text
//!   Request ──► Answering: a job (asking.rs) ──► packed, where that pays ──► sent ──► Between ──► Request …
//!                  what comes meanwhile is kept and not looked at            │
//!                                                                            └─► Ending, if it was the last
//! ```
//!
//! An answer is whole before the first byte of it is sent, so that it has a length; it is bounded in bytes ([`bytes_max`]), and what
//! there is beyond is for another request. It counts as what the connection holds, and is sent as all answers are; whoever takes it at
//! less than `--min-http-rate` is cut off. A request for anything else on the same connection goes to the control thread, with the
//! connection, and the next one for a worker comes back from there.

use rustc_hash::FxHashMap;

#[cfg(all(any(test, fuzzing), not(loom)))]
use super::super::{connection::Undone, connections::Connections, cursor::Cursor};
use super::{
    super::{
        connection::{Connection, Phase, Ping, Reads},
        ground::Ground,
        work::price,
    },
    Clerk,
    asking::Job,
    poll::{Poll, Waiting},
};
use crate::{
    clock::Moment,
    http::{
        self, Request, Response,
        gzip::{self, Compressor, Gzip},
        response::Readers,
    },
    io::{Edge, Token},
    metrics::Eviction,
    websocket::frame::Header,
};

/// Bytes of an answer, before it is compressed: it ends with the message that goes beyond.
const ANSWER_BYTES: usize = 1024 * 1024;

/// Bytes that are compressed at once.
const PACK_BYTES: usize = gzip::PIECE;

/// What is known of a request whose answer is being made.
#[derive(Debug)]
pub struct Terms {
    /// It was a HEAD: its answer has no body.
    pub is_head: bool,
    /// The client wants to send another request afterwards.
    keep_alive: bool,
    /// It takes gzip.
    gzip: bool,
    readers: Readers,
}

/// See the module's description.
#[derive(Default)]
pub struct Exchanges {
    /// Polls that wait for something to come. Tokens are the server's own, so the hash needs no key.
    waiting: FxHashMap<Token, Box<Waiting>>,
    /// Answers on their way.
    sending: FxHashMap<Token, Sending>,
    /// One for all answers, once there was one to compress.
    compressor: Option<Compressor>,
    /// It was of use since room was given back.
    has_packed: bool,
}

/// An answer on its way.
struct Sending {
    keep_alive: bool,
    /// Bytes that were left when it was last looked, and when that was.
    left: usize,
    looked: Moment,
    /// When some were taken last.
    moved: Moment,
    /// The socket is kept short.
    is_short: bool,
}

/// An answer that is being compressed.
pub struct Pack {
    terms: Terms,
    content_type: &'static str,
    body: Vec<u8>,
    /// So many bytes of it are.
    at: usize,
    gzip: Gzip,
}

impl Pack {
    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        self.body.capacity() + self.gzip.held()
    }

    /// What is known of its request.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }
}

impl Exchanges {
    /// A connection has gone.
    pub fn forget(&mut self, token: Token) {
        if !self.sending.is_empty() {
            self.sending.remove(&token);
        }
        if !self.waiting.is_empty() {
            self.waiting.remove(&token);
        }
    }

    /// A poll waits from now on.
    pub fn wait(&mut self, token: Token, poll: Waiting) {
        self.waiting.insert(token, Box::new(poll));
    }

    /// A poll waits no longer, if it did.
    pub fn wake(&mut self, token: Token) -> Option<Poll> {
        self.waiting.remove(&token).map(|waiting| waiting.wake())
    }

    /// A poll that waits.
    pub fn waits(&self, token: Token) -> Option<&Waiting> {
        self.waiting.get(&token).map(|poll| &**poll)
    }

    /// How many polls wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When it is to be looked at a connection whose request is being answered.
    pub fn next_due(&self, token: Token, step: std::time::Duration) -> Moment {
        let poll = self.waiting.get(&token).map(|poll| poll.due);
        let sending = || self.sending.get(&token).map(|sending| sending.looked + step);
        poll.or_else(sending).unwrap_or(Moment::NEVER)
    }

    /// The socket of a connection is full: if it is being sent an answer, room is told of when a few KiB have gone, so that a slow
    /// client is seen to move.
    pub fn keep_short<E: Edge>(
        &mut self,
        ground: &mut Ground<E>,
        token: Token,
        connection: &mut Connection<E::Socket>,
    ) {
        let sending = self.sending.get_mut(&token).filter(|_| connection.phase.is_answering());
        if let Some(sending) = sending.filter(|sending| !sending.is_short) {
            sending.is_short = true;
            ground.edge.keep_short(&mut connection.socket, true);
        }
    }

    /// Gives back room that was needed once.
    pub fn give_back(&mut self) {
        if !std::mem::take(&mut self.has_packed) {
            self.compressor = None;
        }
        if self.sending.capacity() > 64 && self.sending.capacity() / 4 > self.sending.len() {
            self.sending.shrink_to(64);
        }
        if self.waiting.capacity() > 64 && self.waiting.capacity() / 4 > self.waiting.len() {
            self.waiting.shrink_to(64);
        }
    }
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl Exchanges {
    /// Asserts that whoever waits or is sent an answer is a connection that has asked for it.
    pub fn invariants<S>(&self, connections: &Connections<S>) {
        for token in self.waiting.keys() {
            let connection = connections.get(*token).expect("whoever waits is a connection");
            assert!(matches!(connection.cursor, Cursor::Head(_)), "a poll that waits is a member of its cohort");
            assert_eq!(connection.phase, Phase::Answering, "a poll that waits may");
        }
        for (token, connection) in connections.iter().filter(|(_, it)| it.phase.is_answering()) {
            let (waits, is_sent) = (self.waiting.contains_key(&token), self.sending.contains_key(&token));
            assert!(waits || is_sent || connection.undone != Undone::Nothing, "somebody sees to each request");
            assert!(!(waits && is_sent), "a poll that is answered waits no longer");
            assert!(connection.cohort.is_none() || !is_sent, "an answer is made when nothing more is to come");
        }
        assert!(self.sending.keys().all(|token| connections.get(*token).is_some_and(|it| it.phase.is_answering())));
    }
}

/// Bytes of an answer at most, but for the message that goes beyond: the rest is for another request. While it is made, it may take
/// twice as much memory.
pub fn bytes_max(pending_max: usize) -> usize {
    ANSWER_BYTES.min(pending_max / 4)
}

/// Appends the messages that are in text frames, each behind `before` and before `after`.
pub fn push_messages(mut frames: &[u8], (before, after): (&[u8], &[u8]), out: &mut Vec<u8>) {
    while let Ok(Some((header, len))) = Header::parse(frames) {
        let end = len + header.payload_len as usize;
        let Some(message) = frames.get(len..end) else {
            debug_assert!(false, "frames are whole");
            return;
        };
        out.extend_from_slice(before);
        out.extend_from_slice(message);
        out.extend_from_slice(after);
        frames = &frames[end..];
    }
}

impl<E: Edge> Clerk<'_, E> {
    /// Begins to answer a request; after one that a proxy has passed on no other follows on the connection, which may be another
    /// client's.
    pub fn begin_exchange(&mut self, token: Token, head: &Request<'_>, is_passed_on: bool) -> Terms {
        let readers = self.ground.settings.access.readers(head);
        // A body that nobody asked for isn't read; so nobody knows where the next request begins.
        let has_body = !matches!(head.body, http::Body::None | http::Body::Length(0));
        let keep_alive = head.keep_alive && !has_body && !is_passed_on;
        if let Some(connection) = self.connections.get_mut(token) {
            (connection.phase, connection.since) = (Phase::Answering, self.ground.now);
            connection.ping = Ping::None;
        }
        Terms { is_head: head.method == "HEAD", keep_alive, gzip: gzip::is_taken(head), readers }
    }

    /// Another request begins on a connection on which some were answered.
    pub fn begin_request(&mut self, token: Token, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        (connection.phase, connection.since) = (Phase::Request, self.ground.now);
        self.set_timer(token);
        self.feed_request(token, bytes);
    }

    /// Keeps what a client sends that is still to be answered; it isn't read further.
    pub fn keep_for_later(&mut self, token: Token, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.request.extend_from_slice(bytes);
        self.stop_reading_for_answer(token);
    }

    fn stop_reading_for_answer(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        // There may be more of it. Whatever place it had in the line is nobody's.
        (connection.unread, connection.queued) = (true, false);
        if std::mem::replace(&mut connection.reads, Reads::Stopped) == Reads::Watched {
            self.ground.edge.interest(&mut connection.socket, false);
        }
    }

    /// A client that is being answered has ended its side, and may wait for the answer still: it has what there is. Returns whether
    /// it is one.
    pub fn ends_answered(&mut self, token: Token) -> bool {
        if self.connections.get(token).is_none_or(|connection| !connection.phase.is_answering()) {
            return false;
        }
        self.stop_reading_for_answer(token);
        self.connections.get_mut(token).into_iter().for_each(|connection| connection.unread = false);
        self.end_exchange(token);
        true
    }

    /// What is being answered is answered with what there is, and the connection ends then.
    pub fn end_exchange(&mut self, token: Token) {
        if let Some(connection) = self.connections.get_mut(token) {
            connection.phase = Phase::AnsweringLast;
        }
        self.end_wait(token);
    }

    /// Answers with a body, which is compressed before if that pays. What goes on over turns is returned.
    pub fn respond(&mut self, token: Token, terms: Terms, content_type: &'static str, body: Vec<u8>) -> Option<Job> {
        self.unsubscribe_all(token);
        if terms.gzip && body.len() >= gzip::LEAST {
            return Some(Job::Pack(Box::new(Pack { terms, content_type, body, at: 0, gzip: Gzip::new() })));
        }
        self.send_answer(token, &terms, content_type, body, false);
        None
    }

    /// Compresses some more of an answer, and sends it when that is done.
    pub fn go_on_packing(&mut self, token: Token, mut pack: Box<Pack>) -> Option<Job> {
        self.desk.exchanges.has_packed = true;
        let compressor = self.desk.exchanges.compressor.get_or_insert_with(Compressor::new);
        let some = &pack.body[pack.at..pack.body.len().min(pack.at + PACK_BYTES)];
        pack.gzip.push(compressor, some);
        self.ground.work.charge(price::GZIP_LINE * price::lines(some.len()));
        pack.at += some.len();
        if pack.at < pack.body.len() {
            return Some(Job::Pack(pack));
        }
        let Pack { terms, content_type, gzip, .. } = *pack;
        self.send_answer(token, &terms, content_type, gzip.finish(), true);
        None
    }

    fn send_answer(&mut self, token: Token, terms: &Terms, content_type: &str, body: Vec<u8>, is_packed: bool) {
        let now = self.ground.now;
        let Some(connection) = self.connections.get_mut(token) else { return };
        let is_last = connection.phase == Phase::AnsweringLast || !self.ground.shared.welcomes();
        let keep_alive = terms.keep_alive && !is_last && !self.ground.edge.is_worn(&connection.socket);
        let mut response = Response::new(200).content_type(content_type).header("Cache-Control", "no-store");
        if is_packed {
            response = response.header("Content-Encoding", "gzip");
        }
        if is_packed || body.len() >= gzip::LEAST {
            response = response.header("Vary", "Accept-Encoding");
        }
        let wall = self.ground.edge.wall_us();
        let response = response.keep_alive(keep_alive).read_by(&terms.readers).made_at(wall);
        self.ground.work.charge(price::COMMAND);
        connection.out.write(|out| response.write_head(out, body.len()));
        if !terms.is_head {
            connection.out.push(body);
        }
        let sending = Sending { keep_alive, left: connection.out.len(), looked: now, moved: now, is_short: false };
        self.desk.exchanges.sending.insert(token, sending);
        self.answer(token, |_| {});
        self.set_timer(token);
    }

    /// All that there was to say to a connection was given to its socket.
    pub fn is_all_said(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token).filter(|it| it.phase.is_answering()) else { return };
        let Some(sending) = self.desk.exchanges.sending.remove(&token) else { return };
        if sending.is_short {
            self.ground.edge.keep_short(&mut connection.socket, false);
        }
        let was_stopped = connection.reads == Reads::Stopped;
        connection.since = self.ground.now;
        if !sending.keep_alive {
            let is_last = std::mem::replace(&mut connection.phase, Phase::Ending) == Phase::AnsweringLast;
            self.ground.edge.finish(&mut connection.socket);
            if is_last && was_stopped && !connection.unread && self.ground.edge.held(&connection.socket) == 0 {
                // It has ended its side before.
                return self.remove(token);
            }
            connection.request = Vec::new();
        } else {
            connection.phase = Phase::Between;
        }
        let request = std::mem::take(&mut connection.request);
        if was_stopped {
            self.stand_in_line(token);
        }
        if request.is_empty() {
            return self.set_timer(token);
        }
        self.begin_request(token, &request);
    }

    /// It is time to look at a connection whose request is being answered.
    pub fn check_exchange(&mut self, token: Token) {
        if self.see_to_rights(token) {
            return;
        }
        let (settings, now) = (&self.ground.settings, self.ground.now);
        if self.desk.exchanges.waiting.get(&token).is_some_and(|poll| now >= poll.due) {
            return self.end_wait(token);
        }
        let Some(connection) = self.connections.get(token) else { return };
        let Some(sending) = self.desk.exchanges.sending.get_mut(&token) else { return };
        let lasted = now.since(sending.looked);
        if lasted < settings.close_timeout {
            return;
        }
        let left = connection.out.len() + self.ground.edge.held(&connection.socket);
        let taken = sending.left.saturating_sub(left);
        (sending.left, sending.looked) = (left, now);
        if taken > 0 {
            sending.moved = now;
        }
        let least = (settings.http_rate_min as f64 * lasted.as_secs_f64()) as usize;
        let idle = settings.idle_timeout;
        let is_idle = !idle.is_zero() && now.since(sending.moved) >= idle;
        if (taken < least && left > 0) || is_idle {
            self.ground.shared.metrics.evict(Eviction::Pace);
            self.cut(token, "it takes its answer too slowly");
        }
    }

    /// Nothing of another request has come on a connection for long enough; one may have come since it was last read, so it is read once more.
    pub fn end_kept(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.unread {
            connection.since = self.ground.now;
        } else if connection.ping == Ping::Doubted {
            self.remove(token);
        } else {
            connection.ping = Ping::Doubted;
            self.stand_in_line(token);
        }
    }

    /// Refuses a request while its answer is being made.
    pub fn refuse_exchange(&mut self, token: Token, terms: &Terms, refusal: &http::Refusal) {
        self.unsubscribe_all(token);
        let counted = self.counted(refusal);
        let wall = self.ground.edge.wall_us();
        let response = refusal.response().keep_alive(false).read_by(&terms.readers).made_at(wall);
        self.end_with(token, refusal, counted, |out| response.write(out, terms.is_head));
        if self.connections.get(token).is_some_and(|connection| connection.reads == Reads::Stopped) {
            self.stand_in_line(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::frame;

    #[test]
    fn the_messages_of_frames_come_one_behind_the_other() {
        let mut frames = Vec::new();
        let long = "x".repeat(70_000);
        for message in ["{}", &long, "[1]"] {
            frame::push_text_with(&mut frames, |out| out.extend_from_slice(message.as_bytes()));
        }
        let mut out = Vec::new();
        push_messages(&frames, (b"<", b">"), &mut out);
        assert!(out == format!("<{{}}><{long}><[1]>").into_bytes());
    }
}
