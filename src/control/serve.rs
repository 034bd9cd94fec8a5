//! Requests in order, answers in order, and the ends of connections.
//!
//! One connection's requests are dealt with one after the other, as RFC 9112 section 9.3.2 wants it of a server; for so much
//! work in each turn, so that a long pipeline doesn't keep the others waiting.

use std::{borrow::Cow, net::SocketAddr, sync::Arc};

use super::{
    Control, Newcomer,
    connection::{Connection, Pace, Stage},
    evict::is_probe,
    looks::{self, Look},
    route::{Answer, Outcome},
    topics::Listing,
    upload::{Charged, Progress, Time},
    work,
};
use crate::{
    access::{Holder, Revocation, shown_token},
    audit::{Event, What, shortened},
    handover::{Arrival, Beginning, Listener, hand_to_fewest, is_for_worker},
    http::{
        self, Response,
        gzip::{self, Compressor},
        response::{CONTINUE, JSON},
    },
    io::{Edge, Flushed, Received, Sent, Token},
    limits::Permit,
    metrics::{self, Eviction},
    slack::Slack,
};

/// Answers that may wait for one connection before its next request is looked at: what its send buffer holds by default.
/// The last answer may go beyond it.
const OUT_MAX: usize = 256 * 1024;

/// Bytes of a body that are published together: on the tape that is up to some fifteen times as much, where the publications
/// are small.
const PIECE: usize = 8 * 1024;

/// What a buffer of a connection keeps in any case.
const BUFFER_KEPT: usize = 8 * 1024;

/// How it goes on with one connection.
enum Next {
    /// There may be another request.
    GoOn,
    /// More must come in first.
    NeedsInput,
    /// The answers must be sent first.
    NeedsRoom,
    /// It is the others' turn.
    Later,
    /// There is no room for its answer among those of all.
    Waits,
    /// Workers are to come on before more is published.
    Held,
    /// A worker is to answer first.
    Asks,
    /// The next request is for a worker.
    ForWorker,
    /// The connection is no longer here.
    Gone,
}

impl<E: Edge> Control<E> {
    /// Reads what has come in.
    pub(super) fn read_one(&mut self, token: Token) {
        let patience = self.patience();
        let connection = &mut self.connections[token as usize];
        let waits = connection.paused.is_some() || connection.is_looking();
        if waits && !std::mem::replace(&mut connection.apart, true) {
            return self.edge.unwatch(&mut connection.socket);
        }
        if !connection.reads || connection.again || connection.ended {
            return;
        }
        match self.edge.receive(&mut connection.socket, &mut self.read) {
            Received::Nothing => {}
            Received::Broken(why) => self.lost(token, why),
            Received::End => connection.ended = true,
            // Not "heard": whoever goes on sending behind its last answer is not waited for longer.
            Received::Bytes(_) if matches!(connection.stage, Stage::Ending { .. }) => {}
            Received::Bytes(n) => {
                if matches!(connection.stage, Stage::Head) && connection.input.is_empty() {
                    connection.begun = self.now;
                    connection.pace = Pace::new(self.now, patience);
                }
                connection.heard = self.now;
                connection.pace.moved(self.now, n, patience);
                connection.input.extend_from_slice(&self.read[..n]);
                connection.due = connection.deadline(patience);
                self.worked += (n / work::BYTES) as u32;
            }
        }
    }

    /// There is room for more of the answers: first for what the edge holds back.
    pub(super) fn has_room(&mut self, token: Token) {
        let connection = &mut self.connections[token as usize];
        let has_room = match self.edge.flush(&mut connection.socket) {
            Flushed::All => true,
            Flushed::Held => false,
            Flushed::Broken(why) => return self.lost(token, why),
        };
        if !connection.is_said() && self.flush(token) && has_room {
            self.queue(token);
        }
    }

    /// Answers what has come in, as far as there is room and time, and sends the answers.
    pub(super) fn serve(&mut self, token: Token) {
        let since = self.connections[token as usize].waits.take();
        let most = self.worked + work::CONNECTION;
        let next = loop {
            let connection = &self.connections[token as usize];
            if connection.out.len() >= OUT_MAX {
                break Next::NeedsRoom;
            }
            if self.worked >= most {
                break Next::Later;
            }
            let next = match connection.stage {
                Stage::Head => self.serve_head(token),
                Stage::Body(_) => self.serve_body(token),
                Stage::Listing(_) => self.serve_listing(token),
                Stage::Looking(_) => self.serve_look(token),
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
        match next {
            Next::NeedsRoom | Next::Later if connection.out.is_empty() => self.queue(token),
            Next::Waits if connection.out.is_empty() => {
                connection.waits = Some(since.unwrap_or(self.now));
                self.waiting.push_back(token);
            }
            Next::Held if connection.paused.is_none() => {
                connection.paused = Some(self.now);
                self.paused.push(token);
            }
            Next::Asks if !self.looking.contains(&token) => self.looking.push(token),
            _ => {}
        }
        let connection = &self.connections[token as usize];
        let waits = connection.waits.is_some() || connection.paused.is_some() || connection.is_looking();
        let goes_on = connection.again || waits;
        if connection.ended && connection.is_said() && !goes_on {
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
        self.worked += work::REQUEST;
        let (next, used) = match http::head::parse(&input, self.live.head) {
            Ok(None) => (Next::NeedsInput, 0),
            Ok(Some(_)) if !is_probe(&input) && !self.has_room_for(token, 1) => (Next::Waits, 0),
            Ok(Some((head, len))) => {
                let next = self.begin(token, &head);
                let is_done = matches!(next, Next::GoOn);
                (next, if is_done { len } else { 0 })
            }
            Err(refusal) => {
                self.readers_are_of(token, &input);
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
            if self.connections[token as usize].is_between() {
                self.begin_pace(token);
            }
        }
        input.give_back(BUFFER_KEPT);
        self.connections[token as usize].input = input;
    }

    /// Answers a request, or begins to take its body in.
    fn begin(&mut self, token: Token, head: &http::Request<'_>) -> Next {
        let is_head = head.method == "HEAD";
        // A body that nobody asked for is not read; so nobody knows where the next request begins.
        let has_body = !matches!(head.body, http::Body::None | http::Body::Length(0));
        let (direct, reserved) = (self.connections[token as usize].peer, self.connections[token as usize].reserved);
        let keep_alive = head.keep_alive && !has_body && !reserved && !self.is_draining();
        let peer = self.live.proxies.client(direct, head);
        let (method, path) = (head.method, head.path());
        self.connections[token as usize].readers = self.readers(token, head);
        self.certified = self.edge.certified(&self.connections[token as usize].socket).cloned();
        let outcome = match self.connections[token as usize].by {
            Listener::Admin => {
                let may = self.may_show(token, head, peer);
                may.and_then(|()| self.route_admin(head, direct))
            }
            Listener::Acme => self.route_acme(head).map(Outcome::Answer),
            Listener::Clear | Listener::Tls => self.may_show(token, head, peer).and_then(|()| self.route(head, direct)),
        };
        match outcome {
            Ok(Outcome::WebSocket) => {
                // What was asked before has to be answered before.
                let is_said = self.connections[token as usize].out.is_empty();
                return if is_said { Next::ForWorker } else { Next::NeedsRoom };
            }
            Ok(Outcome::Answer(answer)) => {
                tracing::trace!(%peer, method, path, "answered");
                self.answer(token, answer, is_head, keep_alive);
            }
            Ok(Outcome::Listing(query)) => {
                let room = query.bytes_max(self.live.topic_length_max);
                if !self.has_room_for(token, room) {
                    return Next::Waits;
                }
                let about = (is_head, keep_alive, gzip::is_taken(head));
                let listing = Listing::new(query, about, self.pending.hold(room));
                self.connections[token as usize].stage = Stage::Listing(Box::new(listing));
            }
            Ok(Outcome::Look(query)) => {
                let room = query.bytes_max(self.live.topic_length_max);
                if !self.has_room_for(token, room) {
                    return Next::Waits;
                }
                let (about, due) = ((is_head, keep_alive), self.now + self.live.close_timeout);
                let look = Look::new(query, about, due, self.pending.hold(room));
                self.connections[token as usize].stage = Stage::Looking(Box::new(look));
            }
            Ok(Outcome::Upload(mut upload)) => {
                upload.sender.charged = self.publishes_for(token, peer);
                upload.sender.client = Some(peer);
                let connection = &mut self.connections[token as usize];
                if head.expect_continue {
                    connection.out.append(|out| out.extend_from_slice(CONTINUE));
                }
                connection.stage = Stage::Body(upload);
                self.begin_pace(token);
            }
            Err(refusal) => {
                tracing::debug!(%peer, method, path, %refusal, "refused");
                self.note_refusal(peer, self.asker(head), &refusal);
                self.refuse(token, &refusal, is_head, keep_alive);
            }
        }
        self.context.shared.metrics.http_requests.bump();
        Next::GoOn
    }

    /// Counts a token whose signature is to be verified, where it will be: workers count those of what is for them.
    ///
    /// # Errors
    /// 429: it is one too many from that address.
    fn may_show(&mut self, token: Token, head: &http::Request<'_>, peer: SocketAddr) -> Result<(), http::Refusal> {
        // What else is wrong with it is said where it is asked for.
        let Ok(Some(shown)) = shown_token(head) else { return Ok(()) };
        if is_for_worker(head.path()) || !self.live.access.needs_signature(&shown) {
            return Ok(());
        }
        let quota = self.live.tokens_per_address;
        let charged = self.publishes_for(token, peer);
        if charged.is_none_or(|charged| quota.allows_shared(&charged.account.tokens, self.now)) {
            self.worked += work::TOKEN;
            return Ok(());
        }
        self.context.shared.metrics.refuse(metrics::Refusal::TokensLimited);
        let limit = quota.limit();
        let text = format!("Too many tokens from your address: --max-tokens-per-ip allows {limit}.");
        Err(http::Refusal::new(429, text).with(&[("Retry-After", "2")]))
    }

    /// Revokes whom a body names, everywhere from now on.
    fn revoke(&mut self, body: &[u8], by: Holder, address: SocketAddr) -> Result<Vec<u8>, http::Refusal> {
        let wall_us = self.edge.wall_us();
        if by.known().is_some() && !self.live.access.now(&by, wall_us).is_admin() {
            return Err(http::Refusal::new(
                401,
                "Nobody was revoked: the rights of whoever asks have ended meanwhile.",
            ));
        }
        let text =
            simdutf8::basic::from_utf8(body).map_err(|_| http::Refusal::new(400, "The body is not UTF-8 text."))?;
        let access = &self.live.access;
        let one = Revocation::parse_or(text, |whom| access.revoked_until(whom, wall_us))
            .map_err(|why| http::Refusal::new(400, format!("Nobody was revoked: {why}.")))?;
        self.live.access.revoke(&one, wall_us).map_err(|why| {
            tracing::error!(%why, "somebody could not be revoked");
            http::Refusal::new(503, format!("Nobody was revoked: {why}."))
        })?;
        tracing::info!(whom = %one.line(), "revoked");
        let what = What::Revoked { one: Box::new(one.clone()) };
        self.context.shared.audit.note(|| Event { ts: wall_us, conn: 0, address, holder: by, what });
        // Those who sleep see it now, too.
        self.context.shared.publisher.wake_all();
        Ok(one.line().into_bytes())
    }

    /// Whom a publication is charged to: whoever the connection is counted for, or the client that a trusted proxy names.
    fn publishes_for(&self, token: Token, client: SocketAddr) -> Option<Charged> {
        let settings = self.context.shared.settings.get();
        let account = match self.connections[token as usize].permit.as_ref().and_then(Permit::account) {
            Some(account) => Arc::clone(account),
            None if settings.proxies.trust(client.ip()) => return None,
            None => self.context.limits.account(client.ip(), self.now),
        };
        Some(Charged { account, quota: settings.publications_per_address })
    }

    /// Takes in what has come of a body, and answers when it is complete.
    fn serve_body(&mut self, token: Token) -> Next {
        let connection = &mut self.connections[token as usize];
        let Stage::Body(upload) = &mut connection.stage else { return Next::GoOn };
        if self.publisher.holds(self.now)
            && upload.sender.has_published_much(self.publisher.allowance(self.now), self.now)
        {
            return Next::Held;
        }
        let input = std::mem::take(&mut connection.input);
        // A piece at a time, so that it is looked between two whether to go on.
        let (mut rest, after) = input.split_at(input.len().min(PIECE));
        let (holder, wall_us) = (upload.sender.holder.clone(), self.edge.wall_us());
        let client = upload.sender.client.unwrap_or(connection.peer);
        let may = self.live.access.now(&holder, wall_us);
        upload.sender.comes_too_late = !self.context.shared.welcomes() || self.until.is_some();
        let progress = upload.take_in(&mut rest, &self.publisher, Time { now: self.now, wall_us, may });
        let used = input.len() - after.len() - rest.len();
        self.worked += (used / work::BYTES) as u32;
        let keep_alive = upload.keep_alive && self.until.is_none();
        let next = match progress {
            Ok(Progress::NeedsMore) if !after.is_empty() => Next::GoOn,
            Ok(Progress::NeedsMore) => Next::NeedsInput,
            Ok(Progress::Revocation(body)) => {
                connection.stage = Stage::Head;
                match self.revoke(&body, holder, client) {
                    Ok(json) => {
                        self.answer(token, Response::new(200).body(JSON, json).into(), false, keep_alive);
                    }
                    Err(refusal) => self.refuse(token, &refusal, false, keep_alive),
                }
                Next::GoOn
            }
            Ok(Progress::Done(json)) => {
                connection.stage = Stage::Head;
                self.answer(token, Response::new(200).body(JSON, json).into(), false, keep_alive);
                Next::GoOn
            }
            Err(fault) => {
                connection.stage = Stage::Head;
                tracing::debug!(peer = %client, refusal = %fault.refusal, "refused");
                self.note_refusal(client, holder, &fault.refusal);
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

    /// Goes a step on with a page of the list of topics, and answers when it is complete.
    fn serve_listing(&mut self, token: Token) -> Next {
        let connection = &mut self.connections[token as usize];
        let Stage::Listing(listing) = &mut connection.stage else { return Next::GoOn };
        self.worked += work::STRETCH;
        let is_complete = listing.advance(&self.context, &self.live.access, self.edge.wall_us());
        self.worked += if listing.filters { work::RIGHTS } else { 0 };
        if !is_complete {
            return Next::GoOn;
        }
        let stage = std::mem::replace(&mut connection.stage, Stage::Head);
        let Stage::Listing(listing) = stage else { return Next::GoOn };
        let (is_head, keep_alive) = (listing.is_head, listing.keep_alive && self.until.is_none());
        let takes_gzip = listing.gzip;
        let mut body = listing.finish();
        let mut answer = Response::new(200).header("Cache-Control", "no-store");
        if body.len() >= gzip::LEAST {
            answer = answer.header("Vary", "Accept-Encoding");
        }
        if takes_gzip && body.len() >= gzip::LEAST {
            self.worked += (body.len() / work::BYTES) as u32;
            body = self.compressor.get_or_insert_with(Compressor::new).whole(&body);
            answer = answer.header("Content-Encoding", "gzip");
        }
        let answer = answer.body(JSON, body);
        self.answer(token, answer.into(), is_head, keep_alive);
        Next::GoOn
    }

    /// Goes a step on with a page of connections, and answers when it is complete.
    fn serve_look(&mut self, token: Token) -> Next {
        let connection = &mut self.connections[token as usize];
        let Stage::Looking(look) = &mut connection.stage else { return Next::GoOn };
        self.worked += work::LOOK;
        let step = look.advance(&self.context);
        if matches!(step, looks::Step::Waits) {
            return Next::Asks;
        }
        let stage = std::mem::replace(&mut connection.stage, Stage::Head);
        let Stage::Looking(look) = stage else { return Next::GoOn };
        let (is_head, keep_alive, worker) = (look.is_head, look.keep_alive && self.until.is_none(), look.worker());
        let done = match step {
            looks::Step::Full => {
                let text = format!("Worker {worker} has too many such questions to answer: try again later.");
                Err(http::Refusal::new(503, text).with(&[("Retry-After", "1")]))
            }
            _ => look.finish(&self.context, self.edge.wall_us()),
        };
        match done {
            Ok(json) => {
                let answer = Response::new(200).body(JSON, json).header("Cache-Control", "no-store");
                self.answer(token, answer.into(), is_head, keep_alive);
            }
            Err(refusal) => self.refuse(token, &refusal, is_head, keep_alive),
        }
        Next::GoOn
    }

    /// Whether there is room for so many bytes of an answer, be it that others go for it. Whoever has not taken what it was
    /// answered before gets none.
    fn has_room_for(&mut self, token: Token, bytes: usize) -> bool {
        if self.connections[token as usize].out.is_empty() {
            return self.make_room(token, bytes);
        }
        self.pending.bytes() + bytes <= self.pending_max()
    }

    /// Appends an answer to what a connection is to be sent; with the last one it ends.
    fn answer(&mut self, token: Token, answer: Answer, is_head: bool, keep_alive: bool) {
        let patience = self.patience();
        let Answer { head, text } = answer;
        let head = head.keep_alive(keep_alive).read_by(&self.connections[token as usize].readers);
        let head = head.made_at(self.edge.wall_us());
        let connection = &mut self.connections[token as usize];
        if connection.out.is_empty() {
            connection.pace = Pace::new(self.now, patience);
        }
        let has_body = head.has_body() && !is_head;
        if let Some(text) = text {
            connection.out.append(|out| head.write_head(out, text.bytes().len()));
            if has_body {
                connection.out.share(text);
            }
        } else {
            connection.out.append(|out| head.write_head(out, head.body_len()));
            match head.into_body() {
                _ if !has_body => {}
                Cow::Borrowed(body) => connection.out.show(body),
                Cow::Owned(body) => {
                    self.worked += (body.len() / work::BYTES) as u32;
                    connection.out.push(body);
                }
            }
        }
        if !keep_alive {
            connection.stage = Stage::Ending { finished: false };
            connection.heard = self.now;
        }
    }

    /// Who reads the refusal of a request that isn't read as one, as far as what came of it says.
    fn readers_are_of(&mut self, token: Token, begun: &[u8]) {
        let readers = self.readers_of(self.connections[token as usize].by, begun);
        self.connections[token as usize].readers = readers;
    }

    /// From now on what is sent or taken has to move.
    pub(super) fn begin_pace(&mut self, token: Token) {
        let patience = self.patience();
        let connection = &mut self.connections[token as usize];
        connection.pace = Pace::new(self.now, patience);
        connection.due = connection.deadline(patience);
    }

    /// Who has sent a request, as far as it is known without another signature.
    fn asker(&self, head: &http::Request<'_>) -> Holder {
        let access = &self.live.access;
        let is_known = self.context.shared.audit.is_on()
            && !matches!(shown_token(head), Ok(Some(shown)) if access.needs_signature(&shown));
        let holder = || access.sender_or(head, self.certified(), self.edge.wall_us()).ok();
        is_known.then(holder).flatten().unwrap_or(Holder::Anonymous)
    }

    /// Notes a refusal for the audit, if it is one: what is malformed, or isn't there, was not refused.
    fn note_refusal(&self, address: SocketAddr, holder: Holder, refusal: &http::Refusal) {
        let why = match refusal.status {
            401 => "unauthorized",
            403 => "forbidden",
            429 => "rate_limited",
            503 => "unavailable",
            _ => return,
        };
        let what = || What::Refused { why, message: shortened(&refusal.message) };
        self.context.shared.audit.note(|| Event { ts: self.edge.wall_us(), conn: 0, address, holder, what: what() });
    }

    /// Answers with a refusal.
    fn refuse(&mut self, token: Token, refusal: &http::Refusal, is_head: bool, keep_alive: bool) {
        let metrics = &self.context.shared.metrics;
        match refusal.status {
            401 => metrics.refuse(metrics::Refusal::Forbidden),
            403 if refusal.headers.is_empty() => metrics.refuse(metrics::Refusal::Origin),
            403 => metrics.refuse(metrics::Refusal::Forbidden),
            408 => metrics.refuse(metrics::Refusal::HandshakeTimeout),
            // Full, draining or not ready: counted by who says so, if it is a refusal at all.
            429 | 503 => {}
            _ => metrics.refuse(metrics::Refusal::BadRequest),
        }
        self.answer(token, refusal.response().into(), is_head, keep_alive);
    }

    /// Sends what there is room for. Returns whether the connection is still there.
    fn flush(&mut self, token: Token) -> bool {
        let patience = self.patience();
        let connection = &mut self.connections[token as usize];
        let mut taken = 0;
        while !connection.out.is_empty() {
            let next = connection.out.next();
            match self.edge.send(&mut connection.socket, next) {
                Sent::Took(n) => {
                    let is_full = n < next.len();
                    connection.out.advance(n);
                    taken += n;
                    if is_full {
                        break;
                    }
                }
                Sent::Full => break,
                Sent::Broken(why) => {
                    self.lost(token, why);
                    return false;
                }
            }
        }
        let held = self.edge.held(&connection.socket);
        // What the kernel was given is what the client takes.
        let moved = (std::mem::replace(&mut connection.held, held) + taken).saturating_sub(held);
        if moved > 0 {
            connection.heard = self.now;
            connection.pace.moved(self.now, moved, patience);
        }
        if let (true, Stage::Ending { finished: finished @ false }) = (connection.out.is_empty(), &mut connection.stage)
        {
            *finished = true;
            self.edge.finish(&mut connection.socket);
        }
        if !connection.is_said() {
            if !std::mem::replace(&mut connection.short, true) {
                // Room is told of when a few KiB have gone, not a third of the buffer: a slow client is seen to move.
                self.edge.keep_short(&mut connection.socket, true);
            }
        } else if moved > 0 {
            connection.pace = Pace::new(self.now, patience);
        }
        self.watch_on(token);
        true
    }

    /// Watches a connection for what it waits for now, and for no longer than that is worth.
    fn watch_on(&mut self, token: Token) {
        let patience = self.patience();
        let connection = &mut self.connections[token as usize];
        connection.due = connection.deadline(patience);
        let reads = connection.wants_to_read();
        if reads != connection.reads {
            connection.reads = reads;
            self.edge.interest(&mut connection.socket, reads);
        }
    }

    /// A connection broke.
    fn lost(&mut self, token: Token, why: std::io::ErrorKind) {
        tracing::debug!(peer = %self.connections[token as usize].peer, %why, "an HTTP connection broke");
        self.remove(token);
    }

    /// A connection has been waited for long enough.
    pub(super) fn time_out(&mut self, token: Token) {
        let connection = &self.connections[token as usize];
        if !connection.is_said() {
            return self.evict(token, Eviction::Pace);
        }
        if matches!(connection.stage, Stage::Head) {
            // What came of the request says whose it is, not the one before.
            let input = std::mem::take(&mut self.connections[token as usize].input);
            self.readers_are_of(token, &input);
            self.connections[token as usize].input = input;
        }
        let connection = &self.connections[token as usize];
        if connection.waits.is_some() {
            let text = "There is no room for one more answer: try again later.";
            self.context.shared.metrics.refuse(metrics::Refusal::HttpFull);
            self.refuse(token, &http::Refusal::new(503, text).with(&[("Retry-After", "1")]), false, false);
            return self.serve(token);
        }
        if let Stage::Looking(look) = &connection.stage {
            let worker = look.worker();
            let text = format!("Worker {worker} has not answered for as long as --close-timeout: it stands still.");
            self.connections[token as usize].stage = Stage::Head;
            self.refuse(token, &http::Refusal::new(503, text), false, false);
            return self.serve(token);
        }
        let is_cut_short = match connection.stage {
            Stage::Head => !connection.input.is_empty(),
            Stage::Body(_) => true,
            Stage::Listing(_) | Stage::Looking(_) | Stage::Ending { .. } => false,
        };
        if !is_cut_short {
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
        let connection = &mut self.connections[token as usize];
        let Some(permit) = connection.permit.take() else {
            self.refuse(token, &http::Refusal::new(404, "There is nothing at this path."), false, false);
            return Next::GoOn;
        };
        if connection.short {
            self.edge.keep_short(&mut connection.socket, false);
        }
        self.edge.unwatch(&mut connection.socket);
        let reserved = std::mem::take(&mut connection.reserved);
        self.reserved -= usize::from(reserved);
        let Connection { socket, peer, by, readers, .. } = self.connections.remove(token as usize);
        let arrival = Arrival { socket, peer, permit, by, beginning: Beginning::Read(received) };
        let (why, arrival) = if self.is_draining() {
            (metrics::Refusal::Draining, arrival)
        } else {
            match hand_to_fewest(&self.workers, &self.context.shared.metrics, arrival) {
                Ok(()) => return Next::Gone,
                Err(arrival) => (metrics::Refusal::InboxFull, arrival),
            }
        };
        self.context.shared.metrics.refuse(why);
        let Arrival { socket, peer, permit, by, .. } = arrival;
        let back = Newcomer { socket, peer, permit: Some(permit), by, received: Vec::new() };
        let mut back = Connection::new(back, self.now, &self.pending);
        if self.edge.watch(&mut back.socket, token).is_err() {
            return Next::Gone;
        }
        back.held = self.edge.held(&back.socket);
        back.readers = readers;
        let again = self.connections.insert(back);
        debug_assert_eq!(again, token as usize, "a slab gives the place out first that was freed last");
        self.refuse(token, &http::Refusal::new(503, "The server is full: try again later."), false, false);
        Next::GoOn
    }
}
