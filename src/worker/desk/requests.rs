//! The first thing on a connection: its HTTP request.
//!
//! An upgrade on `/ws` or `/raw/TOPIC` becomes a WebSocket here, and a `GET /sse` a stream of events; `GET /poll` and `GET /history`
//! are answered from the tape (`exchange.rs`). Everything else goes to the control thread together with what was read, so that a scrape or a slow page never
//! lengthens a worker's turn.

use std::net::SocketAddr;

use super::{
    super::{
        connection::{Declined, Packed, Phase, Ping},
        work::price,
    },
    Clerk,
    closing::Farewell,
    quota::LATER,
    rights::{INSUFFICIENT, TOKENS_LATER},
};
use crate::{
    access::{Beyond, Holder},
    handover::is_for_worker,
    http::{self, Request},
    io::{Edge, Token, tls},
    lane::{Address, Lane},
    limits,
    log::{Kind, tell},
    metrics,
    protocol::{Declared, ErrorCode, Reply, Sub, Topic, cursor::Cursor, reply::Hello},
    proxy,
    websocket::{CloseCode, deflate::WINDOW_BITS, extension::Agreed, handshake},
};

/// What somebody can be sent who has agreed on this. A stream, if there are any, refers back over messages, within a window of so many bits.
fn packed(deflate: Result<Agreed, Declined>, stream_bits: Option<u8>) -> Packed {
    match (deflate, stream_bits) {
        (Err(why), _) => Packed::Clear(why),
        // Whoever can't read what all others are sent is sent nothing compressed.
        (Ok(agreed), _) if agreed.window_bits() < WINDOW_BITS => Packed::Clear(Declined::Narrow),
        (Ok(_), None) => Packed::Once,
        (Ok(agreed), _) if agreed.server_no_context_takeover => Packed::Alone,
        (Ok(agreed), Some(bits)) if agreed.window_bits() < bits => Packed::Narrow,
        (Ok(_), Some(_)) => Packed::Waits,
    }
}

/// The parameters of an address that are about topics which it names.
const ABOUT_TOPICS: [&str; 4] = ["mode", "rate", "snapshot", "cursor"];

impl<E: Edge> Clerk<'_, E> {
    /// Takes in bytes of a connection whose request isn't complete.
    pub fn feed_request(&mut self, token: Token, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let mut request = std::mem::take(&mut connection.request);
        let mut seen = request.len();
        request.extend_from_slice(bytes);
        if connection.awaits_header {
            match self.take_header(token, &request) {
                Some(len) => drop(request.drain(..len)),
                None => return self.keep_request(token, request),
            }
            seen = 0;
        }
        if request.first() == Some(&tls::FIRST_BYTE) {
            let text = "This port speaks in clear, not TLS: http:// or ws://, or another port (--tls-listen).";
            return self.refuse(token, b"", &http::Refusal::new(400, text));
        }
        if !http::head::is_worth_parsing(&request, seen, self.ground.settings.head.bytes) {
            return self.keep_request(token, request);
        }
        self.ground.work.charge(price::COMMAND + price::lines(request.len()));
        match http::head::parse(&request, self.ground.settings.head) {
            Ok(None) => self.keep_request(token, request),
            Ok(Some((head, len))) => {
                match self.see_client(token, &head).map(|passed_on| self.route(token, &head, passed_on)) {
                    None => {}
                    Some(Ok(true)) => {
                        // What came behind the request without waiting for the answer, where anything is listened to.
                        let connection = self.connections.get(token).filter(|_| request.len() > len);
                        match connection.map(|connection| (connection.phase, connection.lane.words().hears())) {
                            Some((phase, _)) if phase.is_answering() => self.keep_for_later(token, &request[len..]),
                            Some((_, true)) => self.feed(token, &mut request[len..]),
                            _ => {}
                        }
                    }
                    Some(Ok(false)) => self.give_to_control(token, request),
                    Some(Err(refusal)) => self.refuse_request(token, &head, &refusal),
                }
            }
            Err(refusal) => self.refuse(token, &request, &refusal),
        }
    }

    fn keep_request(&mut self, token: Token, request: Vec<u8>) {
        if let Some(connection) = self.connections.get_mut(token) {
            connection.request = request;
        }
    }

    /// Takes the PROXY header that a connection begins with, and returns its length; none if it isn't whole, or if the
    /// connection was refused.
    fn take_header(&mut self, token: Token, bytes: &[u8]) -> Option<usize> {
        match proxy::read_header(bytes) {
            Ok(None) => None,
            Ok(Some(header)) => {
                self.connections.get_mut(token)?.awaits_header = false;
                let Some(client) = header.client else { return Some(header.len) };
                let Err(why) = self.count_for(token, client) else { return Some(header.len) };
                let (status, text) = limits::told(why);
                let refusal = http::Refusal::new(status, text).with(LATER);
                self.refuse_begun(token, bytes.get(header.len..).unwrap_or_default(), &refusal, why);
                None
            }
            Err(why) => {
                self.refuse(token, b"", &http::Refusal::new(400, why));
                None
            }
        }
    }

    /// Finds out which client a request comes from that a worker answers, and that a trusted proxy has passed on: its connection is
    /// this client's then, and no other's. Returns whether one has; none if it was refused. Other requests stay the proxy's: it may
    /// send those of many clients on one connection.
    fn see_client(&mut self, token: Token, head: &Request<'_>) -> Option<bool> {
        let peer = self.connections.get(token).map(|connection| connection.peer)?;
        let stays = head.method != "OPTIONS" && is_for_worker(head.path());
        let client = if stays { self.ground.settings.proxies.client(peer, head) } else { peer };
        if client == peer {
            return Some(false);
        }
        match self.count_for(token, client) {
            Ok(()) => Some(true),
            Err(why) => {
                let (status, text) = limits::told(why);
                self.refuse_because(token, head, &http::Refusal::new(status, text).with(LATER), why);
                None
            }
        }
    }

    /// From now on the connection is this client's.
    ///
    /// # Errors
    /// The client has too many, or connects too often.
    fn count_for(&mut self, token: Token, client: SocketAddr) -> Result<(), metrics::Refusal> {
        // What it holds is counted anew, for that address.
        self.forget_held(token);
        let Some(connection) = self.connections.get_mut(token) else { return Ok(()) };
        connection.peer = client;
        if self.ground.settings.proxies.trust(client.ip()) {
            return Ok(());
        }
        connection.permit.count(client.ip(), self.ground.now)
    }

    /// Opens the connection, or returns false for a request that is not for a worker.
    fn route(&mut self, token: Token, head: &Request<'_>, is_passed_on: bool) -> Result<bool, http::Refusal> {
        match head.path() {
            // What may be asked is for the control thread to say.
            _ if head.method == "OPTIONS" => return Ok(false),
            // A slash behind is added by clients that join addresses.
            "/ws" | "/ws/" => self.open_json(token, head)?,
            "/sse" | "/sse/" => self.open_events(token, head)?,
            "/poll" | "/poll/" => self.open_poll(token, head, is_passed_on)?,
            _ => match (head.topic_behind("/raw/"), head.topic_behind("/history/")) {
                (Some(topic), _) => self.open_raw(token, head, &topic?)?,
                (_, Some(topic)) => self.open_history(token, head, &topic?, is_passed_on)?,
                _ => return Ok(false),
            },
        }
        Ok(true)
    }

    /// `GET /ws` with an upgrade.
    fn open_json(&mut self, token: Token, head: &Request<'_>) -> Result<(), http::Refusal> {
        let accept = handshake::check(head)?;
        self.ground.settings.access.check_page(head)?;
        let (lane, subprotocol) = choose_lane(head, Address::Ws)?;
        let deflate = self.agree_on_deflate(head)?;
        let upgrade = |out: &mut Vec<u8>| handshake::push_accepted(out, &accept, subprotocol, deflate.as_ref().ok());
        let holder = match self.opener_of(token, head)? {
            Ok(holder) => holder,
            Err(why) => return self.turn_away(token, (lane, deflate), upgrade, &why),
        };
        let topics = head.names("topics");
        let sub = topics.as_deref().map(|topics| self.sub_from_query(head, topics)).transpose()?;
        for name in ABOUT_TOPICS {
            if head.parameter(name)?.is_some() && sub.is_none() {
                let text = format!("In the address: {name} says how topics are delivered, and topics names none.");
                return Err(http::Refusal::new(400, text));
            }
        }
        if sub.is_some() {
            self.may_subscribe_now(token)?;
        }
        self.open(token, (lane, deflate), holder, upgrade);
        self.greet(token);
        if let Some(sub) = sub {
            self.subscribe_first(token, &sub);
        }
        Ok(())
    }

    /// `GET /raw/TOPIC` with an upgrade.
    fn open_raw(&mut self, token: Token, head: &Request<'_>, topic: &str) -> Result<(), http::Refusal> {
        let accept = handshake::check(head)?;
        self.ground.settings.access.check_page(head)?;
        let (lane, subprotocol) = choose_lane(head, Address::Raw)?;
        let deflate = self.agree_on_deflate(head)?;
        let upgrade = |out: &mut Vec<u8>| handshake::push_accepted(out, &accept, subprotocol, deflate.as_ref().ok());
        let holder = match self.opener_of(token, head)? {
            Ok(holder) => holder,
            Err(why) => return self.turn_away(token, (lane, deflate), upgrade, &why),
        };
        Topic::check(topic, self.ground.settings.topic_length_max)
            .map_err(|error| http::Refusal::new(400, format!("Not a topic: {error}.")))?;
        let sub = self.sub_from_query(head, topic)?;
        let (allowed, may_publish) = self.rights_on(&holder, topic, &sub);
        let subscribes = match allowed {
            Ok(()) => true,
            // It may say something there.
            Err(Beyond::Name(_)) if may_publish => false,
            Err(beyond) => {
                self.ground.shared.metrics.refuse(metrics::Refusal::Forbidden);
                return self.turn_away(token, (lane, deflate), upgrade, &beyond.to_string());
            }
        };
        self.may_subscribe_now(token)?;
        let echo = head.switch("echo")?.unwrap_or(true);
        let declared = head.choice("as", &Declared::WORDS)?.unwrap_or_default();
        if let Some(connection) = self.connections.get_mut(token) {
            connection.topic = Some(Box::new(topic.into()));
            connection.declared = declared;
        }
        self.open(token, (lane, deflate), holder, upgrade);
        if subscribes && let Err(reason) = self.subscribe_raw(token, &sub, echo) {
            self.close(token, Farewell { code: Some(CloseCode::TRY_AGAIN_LATER), reason: &reason, error: None });
        }
        Ok(())
    }

    /// `GET /sse?topics=…`
    fn open_events(&mut self, token: Token, head: &Request<'_>) -> Result<(), http::Refusal> {
        if !matches!(head.method, "GET" | "HEAD") {
            let allowed = &[("Allow", "GET, HEAD, OPTIONS")];
            return Err(http::Refusal::new(405, "Events are read with GET.").with(allowed));
        }
        let holder = self.reader_of(token, head)?;
        let topics = head.names("topics");
        let topics = topics.as_deref().ok_or_else(|| http::Refusal::new(400, "Which events? Ask for ?topics=…"))?;
        let mut sub = self.sub_from_query(head, topics)?;
        // What a browser has taken last is newer than the address of its page, and may be another server's.
        if let Some(last) = head.header("Last-Event-ID").filter(|last| Cursor::has_shape(last)) {
            sub.cursor = Some(Cursor::parse(last));
        }
        self.check_request_rights(&holder, sub.topics.iter().map(|name| &**name), (sub.mode, sub.rate))?;
        self.may_subscribe_now(token)?;
        let response = http::Response::new(200)
            .header("Cache-Control", "no-store")
            // A proxy that collects an answer before it passes it on would hold every event back.
            .header("X-Accel-Buffering", "no")
            .stream("text/event-stream")
            .read_by(&self.ground.settings.access.readers(head))
            .made_at(self.ground.edge.wall_us());
        if head.method == "HEAD" {
            self.finish_with(token, |out| response.write(out, true));
            return Ok(());
        }
        self.open(token, (Address::Sse.lane(), Err(Declined::NoWebSocket)), holder, |out| response.write(out, false));
        self.greet(token);
        self.subscribe_first(token, &sub);
        Ok(())
    }

    /// `?topics=a,b&mode=…&rate=…&snapshot=…&cursor=…`
    pub fn sub_from_query<'q>(&self, head: &Request<'_>, topics: &'q str) -> Result<Sub<'q>, http::Refusal> {
        let (mode, rate) = (head.parameter("mode")?, head.parameter("rate")?);
        let sub = Sub::from_query(topics, mode.as_deref(), rate.as_deref(), &self.ground.command_limits());
        let refused = |message| format!("In the address: {message}.");
        let sub = sub.map_err(|error| http::Refusal::new(error.code.status(), refused(error.message)))?;
        let cursor = head.parameter("cursor")?.filter(|word| !word.is_empty()).map(|word| Cursor::parse(&word));
        Ok(Sub { snapshot: head.switch("snapshot")?.unwrap_or(true), cursor, ..sub })
    }

    /// What is agreed on of the compression that a client offers, or why nothing is: if the server doesn't compress, the address says `compress=0`,
    /// or it is one of the clients that are known to fail with it.
    fn agree_on_deflate(&self, head: &Request<'_>) -> Result<Result<Agreed, Declined>, http::Refusal> {
        let is_wanted = head.switch("compress")?.unwrap_or(true);
        let compression = &self.ground.settings.compression;
        let is_denied = || head.headers("User-Agent").any(|client| compression.deny.iter().any(|it| it.fits(client)));
        Ok(if !compression.is_on {
            Err(Declined::Off)
        } else if !is_wanted {
            Err(Declined::Unwanted)
        } else if is_denied() {
            Err(Declined::Denied)
        } else {
            handshake::agree(head)?.ok_or(Declined::NotOffered)
        })
    }

    fn open(
        &mut self,
        token: Token,
        (lane, deflate): (Lane, Result<Agreed, Declined>),
        holder: Holder,
        accept: impl FnOnce(&mut Vec<u8>),
    ) {
        let now = self.ground.now;
        let events = !lane.words().hears();
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.phase = Phase::Open;
        connection.since = now;
        connection.ping = Ping::None;
        connection.lane = lane;
        connection.holder = holder;
        let is_shared = self.ground.settings.compression.is_shared;
        let stream_bits = is_shared.then(|| self.ground.packer.packs().streams.window_bits);
        connection.packed = packed(deflate, stream_bits);
        if deflate.is_ok() {
            connection.decoder.take_deflated();
        }
        let packed = connection.takes_packed();
        let (conn, peer) = (connection.name(), connection.peer);
        tracing::debug!(conn, %peer, events, "opened");
        let metrics = &self.ground.metrics;
        metrics.upgrades.add(u64::from(!events));
        metrics.open(events).add(1);
        metrics.upgrades_deflated.add(u64::from(deflate.is_ok()));
        metrics.packed.add(u64::from(packed));
        self.note_open(token);
        self.answer(token, accept);
        self.sit(token);
        self.set_timer(token);
    }

    fn greet(&mut self, token: Token) {
        let named = self.connections.get(token).map(|connection| (connection.name(), connection.holder.clone()));
        let Some((conn, holder)) = named else { return };
        let hello = Hello {
            server: concat!("stentor/", env!("CARGO_PKG_VERSION")),
            conn: &conn,
            ts: self.ground.edge.wall_us(),
            heartbeat: self.ground.settings.heartbeat.as_secs(),
            topics_max: self.ground.settings.subscriptions_max,
            message_max: self.ground.settings.message_max as u64,
            holder: Self::who(&holder),
        };
        self.reply(token, &Reply::Hello(hello));
    }

    /// Opens a WebSocket whose request shows a wrong token, or gives no right to what it asks for, only to say so and to close it: of a
    /// handshake that fails, a page is told nothing.
    fn turn_away(
        &mut self,
        token: Token,
        form: (Lane, Result<Agreed, Declined>),
        accept: impl FnOnce(&mut Vec<u8>),
        why: &str,
    ) -> Result<(), http::Refusal> {
        self.open(token, form, Holder::Anonymous, accept);
        self.greet(token);
        self.note_refusal(token, ErrorCode::Unauthorized.as_str(), why);
        self.close(token, Farewell::after(ErrorCode::Unauthorized, why));
        Ok(())
    }

    /// Answers what is no request, or not all of one, with a refusal and ends the connection. What there is of it says who reads that.
    pub fn refuse(&mut self, token: Token, begun: &[u8], refusal: &http::Refusal) {
        let counted = self.counted(refusal);
        self.refuse_begun(token, begun, refusal, counted);
    }

    fn refuse_begun(&mut self, token: Token, begun: &[u8], refusal: &http::Refusal, counted: metrics::Refusal) {
        let readers = self.ground.settings.access.readers_of(begun);
        let response = refusal.response().keep_alive(false).read_by(&readers).made_at(self.ground.edge.wall_us());
        self.end_with(token, refusal, counted, |out| response.write(out, false));
    }

    /// The same for a request, which says who reads it.
    fn refuse_request(&mut self, token: Token, head: &Request<'_>, refusal: &http::Refusal) {
        let counted = self.counted(refusal);
        self.refuse_because(token, head, refusal, counted);
    }

    pub fn counted(&self, refusal: &http::Refusal) -> metrics::Refusal {
        match refusal.status {
            503 if self.desk.draining.is_some() => metrics::Refusal::Draining,
            503 => metrics::Refusal::InboxFull,
            401 => metrics::Refusal::Forbidden,
            403 if refusal.headers == INSUFFICIENT => metrics::Refusal::Forbidden,
            403 => metrics::Refusal::Origin,
            408 => metrics::Refusal::HandshakeTimeout,
            429 if refusal.headers == TOKENS_LATER => metrics::Refusal::TokensLimited,
            429 => metrics::Refusal::AddressRateLimited,
            _ => metrics::Refusal::BadRequest,
        }
    }

    fn refuse_because(&mut self, token: Token, head: &Request<'_>, refusal: &http::Refusal, counted: metrics::Refusal) {
        let readers = self.ground.settings.access.readers(head);
        let response = refusal.response().keep_alive(false).read_by(&readers).made_at(self.ground.edge.wall_us());
        self.end_with(token, refusal, counted, |out| response.write(out, head.method == "HEAD"));
    }

    /// Says this, and ends the connection.
    pub fn end_with(
        &mut self,
        token: Token,
        refusal: &http::Refusal,
        counted: metrics::Refusal,
        say: impl FnOnce(&mut Vec<u8>),
    ) {
        let (status, why) = (refusal.status, &refusal.message);
        let Some(connection) = self.connections.get_mut(token) else { return };
        tell!(
            self.ground.shared.log,
            Kind::Refused(counted),
            self.ground.now,
            INFO,
            { conn = connection.name(), peer = %connection.peer, status, %why },
            "refused"
        );
        self.ground.shared.metrics.refuse(counted);
        self.note_refusal(token, counted.name(), why);
        self.finish_with(token, say);
    }

    /// Says this, and nothing more.
    fn finish_with(&mut self, token: Token, say: impl FnOnce(&mut Vec<u8>)) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.phase = Phase::Ending;
        connection.since = self.ground.now;
        self.answer(token, say);
        self.set_timer(token);
    }
}

/// The lane that a WebSocket speaks, and the subprotocol that the answer names.
fn choose_lane(head: &Request<'_>, address: Address) -> Result<(Lane, Option<&'static str>), http::Refusal> {
    address.choose(handshake::offered(head)).map_err(|why| http::Refusal::new(400, why))
}
