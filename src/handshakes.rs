//! TLS handshakes: threads that do what a connection by TLS begins with, and hand it to a worker when it is done.
//!
//! A handshake is 0.1 to 0.4 ms of computing, so it has no place in a worker's turn: a thousand clients that come back at once would have
//! everybody else wait for a second. These threads run at a lower priority ([`NICE`]), and offer the core after each step ([`offer_core`]): beside a worker that
//! is busy all the time they have not quite a tenth of its core, a step at a time, and whatever nobody else wants.
//!
//! ```text
//!   acceptor ──► [ PROXY header ] ──► first bytes ──► handshake ──► the worker with the fewest connections
//!                                          │               └─ failed: an alert, and closed
//!                                          └─ no TLS: told in clear, where that is HTTP
//! ```
//!
//! # Bounds
//!
//! There are so many places (`--handshakes`), each for no longer than `--handshake-timeout`. Whoever comes when all are taken has
//! the place of somebody who waits for its peer: of the address that has most of them; where none has more than others, of somebody
//! whose hello isn't whole, which cost its peer nothing; and of these the one that has been there for longest, whatever has come of it
//! meanwhile. A place is no right to compute: those who have sent something stand in a line in which addresses take turns, each for one
//! step, and a turn has a few steps.

#[cfg(all(test, not(loom)))]
mod tests;

use std::{cmp::Reverse, collections::BTreeMap, net::SocketAddr, sync::Arc};

use crossbeam_channel::Receiver;
use rustc_hash::FxHashMap;
use slab::Slab;

use crate::{
    clock::Moment,
    handover::{Arrival, Beginning, Inbox, Listener, Message, hand_to_fewest},
    http::{head, response::refusal},
    io::{
        Edge, Ready, Received, Token,
        priority::{leave_to_others, offer_core},
        tls::{Buffers, FIRST_BYTE, Room, Shaken, Socket, Tls, session::Session},
        waker::Sleep,
    },
    limits::{self, Permit},
    live::Live,
    log::{Kind, tell},
    metrics::{Handshake, Refusal},
    proxy,
    rota::{Group, Rota},
    shared::Shared,
    tls::{Nameless, Terms},
};

/// How much these threads leave to the others (`nice(2)`): a weight of 110 beside a worker's 1024 (`sched(7)`). What they give up when they offer the
/// core comes off that.
pub(crate) const NICE: i32 = 10;

/// Steps of handshakes in one turn, each some tenths of a millisecond; then it is looked who else has sent something.
const STEPS: usize = 8;

/// Sockets taken over in one turn.
const TAKEN_MAX: usize = 64;

/// Bytes before the handshake: a PROXY header, or a request in clear.
const BEGINNING_MAX: usize = 8 * 1024;

/// A fatal alert in clear (RFC 8446, section 6), `internal_error`: for a connection that there is no room for.
pub(crate) const NO_ROOM: &[u8] = &[21, 3, 3, 0, 2, 2, 80];

/// The same, `unexpected_message`: for what is neither TLS nor HTTP.
const NO_TLS: &[u8] = &[21, 3, 3, 0, 2, 2, 10];

/// What handshakes are done with.
#[derive(Clone)]
pub(crate) struct Means {
    /// As they are now.
    pub terms: Arc<Live<Terms>>,
    pub buffers: Arc<Buffers>,
}

/// One thread's handshakes. See the module's description.
pub(crate) struct Handshakes<E: Edge> {
    edge: Tls<E>,
    shared: Arc<Shared>,
    means: Means,
    inbox: Receiver<Message<Socket<E::Socket>>>,
    workers: Vec<Inbox<Socket<E::Socket>>>,
    places: Slab<Place<E::Socket>>,
    places_max: usize,
    /// Those whose peers have sent something.
    line: Rota,
    /// How many places each address has.
    crowds: FxHashMap<Group, usize>,
    /// When each place is given up, the next first.
    deadlines: BTreeMap<(Moment, u64), Token>,
    ready: Vec<Ready>,
    buffer: Vec<u8>,
    /// Places given so far.
    given: u64,
    now: Moment,
}

/// One connection whose handshake is to be done.
struct Place<S> {
    socket: Socket<S>,
    peer: SocketAddr,
    permit: Permit,
    /// Distinguishes it from all others.
    id: u64,
    /// What has come before the handshake begins; none once it has.
    beginning: Option<Vec<u8>>,
    /// A PROXY header comes first.
    awaits_header: bool,
    /// It stands in line.
    queued: bool,
    /// When its time is over.
    until: Moment,
}

impl<S> Place<S> {
    fn group(&self) -> Group {
        match self.permit.account() {
            Some(account) => Group(Arc::as_ptr(account) as u64),
            None => Group(self.id << 1 | 1),
        }
    }
}

/// What becomes of a place after a step.
enum Next {
    /// It waits for its peer.
    Waits,
    /// It is over.
    Over(Handshake),
    /// It was refused for something that isn't TLS'.
    Refused(Refusal),
}

impl<E: Edge> Handshakes<E> {
    pub fn new(
        edge: E,
        shared: Arc<Shared>,
        means: Means,
        inbox: Receiver<Message<Socket<E::Socket>>>,
        workers: Vec<Inbox<Socket<E::Socket>>>,
        places_max: usize,
    ) -> Handshakes<E> {
        Handshakes {
            edge: Tls::new(edge),
            shared,
            means,
            inbox,
            workers,
            places: Slab::new(),
            places_max: places_max.max(1),
            line: Rota::default(),
            crowds: FxHashMap::default(),
            deadlines: BTreeMap::new(),
            ready: Vec::new(),
            buffer: vec![0; BEGINNING_MAX],
            given: 0,
            now: Moment::default(),
        }
    }

    /// Does handshakes until it is told to stop.
    pub fn run(mut self) {
        if let Err(error) = leave_to_others(NICE) {
            tracing::warn!("handshakes have as much of a core as workers, who may be held up by them: {error}");
        }
        while self.turn() {}
    }

    /// One turn; false once it is to stop.
    pub fn turn(&mut self) -> bool {
        self.wait();
        self.now = self.edge.now();
        if !self.take_over() {
            return false;
        }
        for ready in std::mem::take(&mut self.ready) {
            if ready.writable {
                self.flush(ready.token);
            }
            self.stand_in_line(ready.token);
        }
        for _ in 0..STEPS {
            let Some(token) = self.line.next() else { break };
            let Some(place) = self.places.get_mut(token as usize).filter(|place| place.queued) else { continue };
            place.queued = false;
            self.step(token);
            offer_core();
        }
        self.end_late();
        true
    }

    fn wait(&mut self) {
        let timeout = if self.line.is_empty() {
            self.deadlines.keys().next().map(|(until, _)| until.since(self.edge.now()))
        } else {
            Some(std::time::Duration::ZERO)
        };
        let inbox = &self.inbox;
        self.edge.wait(timeout, Sleep::Deep, &mut || !inbox.is_empty(), &mut self.ready);
    }

    /// Takes over some of those who have come; false if it is to stop.
    fn take_over(&mut self) -> bool {
        for _ in 0..TAKEN_MAX {
            match self.inbox.try_recv() {
                Ok(Message::Take(arrival)) => self.give_place(arrival),
                Ok(Message::Drain { .. }) => return false,
                Err(_) => break,
            }
        }
        true
    }

    fn give_place(&mut self, arrival: Arrival<Socket<E::Socket>>) {
        let Arrival { socket, peer, permit, .. } = arrival;
        let settings = self.shared.settings.get();
        self.shared.metrics.handshakes_begun.bump();
        self.given += 1;
        let place = Place {
            socket,
            peer,
            permit,
            id: self.given,
            beginning: Some(Vec::new()),
            awaits_header: settings.proxies.announce(peer.ip()),
            queued: false,
            until: self.now + settings.handshake_timeout,
        };
        let group = place.group();
        *self.crowds.entry(group).or_default() += 1;
        if self.places.len() >= self.places_max {
            self.make_room(group);
        }
        let (until, id) = (place.until, place.id);
        let token = self.places.insert(place);
        self.deadlines.insert((until, id), token as Token);
        let place = &mut self.places[token];
        if let Err(error) = self.edge.watch(&mut place.socket, token as Token) {
            tell!(self.shared.log, Kind::Unwatched, self.now, WARN, { %error }, "a socket could not be watched");
            self.end(token as Token, Handshake::Gone);
        }
    }

    /// Takes the place of somebody who waits for its peer: of the address that has most of them, and of those the one that came first,
    /// of whom the hello isn't whole if there is one: who sends a byte now and then has it for no longer than who says nothing. Where
    /// nobody waits, of somebody who stands in line.
    fn make_room(&mut self, newcomer: Group) {
        let victim = self.places.iter().max_by_key(|(_, place)| {
            let group = place.group();
            let crowd = self.crowds.get(&group).copied().unwrap_or_default();
            let is_answered = place.socket.session().is_some_and(Session::is_answered);
            (!place.queued, crowd, !is_answered, group == newcomer, Reverse(place.id))
        });
        if let Some((token, _)) = victim {
            self.end(token as Token, Handshake::Crowded);
        }
    }

    fn stand_in_line(&mut self, token: Token) {
        let Some(place) = self.places.get_mut(token as usize) else { return };
        if !std::mem::replace(&mut place.queued, true) {
            self.line.push(place.group(), token);
        }
    }

    fn flush(&mut self, token: Token) {
        if let Some(place) = self.places.get_mut(token as usize) {
            // What broke shows when it is read.
            let _ = self.edge.flush(&mut place.socket);
        }
    }

    /// One step of one connection.
    fn step(&mut self, token: Token) {
        match self.advance(token) {
            Next::Waits => {}
            Next::Over(what @ (Handshake::Full | Handshake::Resumed)) => self.hand_on(token, what),
            Next::Over(what) => self.end(token, what),
            Next::Refused(why) => {
                self.shared.metrics.refuse(why);
                self.end(token, Handshake::Failed);
            }
        }
    }

    fn advance(&mut self, token: Token) -> Next {
        let Some(place) = self.places.get_mut(token as usize) else { return Next::Waits };
        if place.beginning.is_some() { self.begin(token) } else { self.shake(token) }
    }

    /// Reads what comes before the handshake, and begins it.
    fn begin(&mut self, token: Token) -> Next {
        let place = &mut self.places[token as usize];
        let beginning = place.beginning.get_or_insert_default();
        let room = BEGINNING_MAX - beginning.len();
        match self.edge.receive(&mut place.socket, &mut self.buffer[..room]) {
            Received::Bytes(len) => beginning.extend_from_slice(&self.buffer[..len]),
            Received::Nothing => return Next::Waits,
            Received::End | Received::Broken(_) => return Next::Over(Handshake::Gone),
        }
        if place.awaits_header {
            match proxy::read_header(beginning) {
                Ok(None) => return Next::Waits,
                Ok(Some(header)) => {
                    place.awaits_header = false;
                    beginning.drain(..header.len);
                    if let Some(client) = header.client
                        && let Err(why) = self.count_for(token, client)
                    {
                        return self.refuse(token, why);
                    }
                }
                Err(why) => {
                    tell!(self.shared.log, Kind::NoHandshake, self.now, INFO, { peer = %place.peer, why }, "no TLS handshake");
                    return self.refuse(token, Refusal::BadRequest);
                }
            }
        }
        let place = &mut self.places[token as usize];
        match place.beginning.as_deref() {
            Some([FIRST_BYTE, ..]) => {}
            Some([_, ..]) => return self.answer_in_clear(token),
            _ => return Next::Waits,
        }
        let come = place.beginning.take().unwrap_or_default();
        let terms = self.means.terms.get();
        let means = (&terms.config, Room::new(&self.means.buffers, place.permit.account()));
        if let Err(error) = Tls::<E>::begin(&mut place.socket, token, means, &come) {
            tracing::error!(%error, "no TLS session can be begun");
            return Next::Over(Handshake::Failed);
        }
        self.shake(token)
    }

    /// From now on the connection is this client's.
    fn count_for(&mut self, token: Token, client: SocketAddr) -> Result<(), Refusal> {
        let place = &mut self.places[token as usize];
        let before = place.group();
        place.peer = client;
        if self.shared.settings.get().proxies.trust(client.ip()) {
            return Ok(());
        }
        let counted = place.permit.count(client.ip(), self.now);
        let after = place.group();
        leave(&mut self.crowds, before);
        *self.crowds.entry(after).or_default() += 1;
        counted
    }

    /// Goes on with the handshake.
    fn shake(&mut self, token: Token) -> Next {
        let place = &mut self.places[token as usize];
        match self.edge.shake(&mut place.socket) {
            Shaken::Going => Next::Waits,
            Shaken::Done => self.judge(token),
            Shaken::Refused(error) => {
                let error = in_words(&error);
                tell!(self.shared.log, Kind::NoHandshake, self.now, INFO, { peer = %place.peer, error }, "no TLS handshake");
                Next::Over(Handshake::Failed)
            }
            Shaken::Gone => Next::Over(Handshake::Gone),
        }
    }

    /// The handshake is done: who it is. A certificate is judged by what counts now: of a resumed session time has passed since, and files may have
    /// changed while this one went on.
    fn judge(&mut self, token: Token) -> Next {
        let place = &mut self.places[token as usize];
        let Some(session) = place.socket.session() else { return Next::Over(Handshake::Failed) };
        let resumed = session.is_resumed() == Some(true);
        match self.means.terms.get().judge(session.certificates()) {
            Ok(certified) => {
                place.socket.certify(certified);
                Next::Over(if resumed { Handshake::Resumed } else { Handshake::Full })
            }
            Err(error) => {
                let error = in_words(&error);
                tell!(self.shared.log, Kind::NoHandshake, self.now, INFO, { peer = %place.peer, resumed, error }, "no TLS handshake");
                Next::Over(Handshake::Failed)
            }
        }
    }

    /// Says that this is a port for TLS, in the language that came.
    fn answer_in_clear(&mut self, token: Token) -> Next {
        let place = &mut self.places[token as usize];
        let beginning = place.beginning.take().unwrap_or_default();
        let speaks_http = beginning.first().is_some_and(u8::is_ascii_uppercase);
        if !speaks_http {
            let _ = self.edge.send(&mut place.socket, NO_TLS);
        } else {
            let settings = self.shared.settings.get();
            let (host, is_head) = match head::parse(&beginning, settings.head) {
                Ok(None) if beginning.len() < BEGINNING_MAX => {
                    place.beginning = Some(beginning);
                    return Next::Waits;
                }
                Ok(Some((head, _))) => (head.header("Host").map(str::to_owned), head.method == "HEAD"),
                _ => (None, false),
            };
            let sentence = match host {
                None => "This port speaks TLS: https:// or wss://.".to_owned(),
                Some(host) => format!("This port speaks TLS: https://{host}/ or wss://{host}/."),
            };
            let mut answer = Vec::new();
            let readers = settings.access.readers_of(&beginning);
            let response = refusal(400, &sentence).made_at(self.edge.wall_us()).keep_alive(false);
            response.read_by(&readers).write(&mut answer, is_head);
            let _ = self.edge.send(&mut place.socket, &answer);
        }
        tell!(self.shared.log, Kind::NoHandshake, self.now, INFO, { peer = %place.peer }, "clear bytes on a port for TLS");
        Next::Over(Handshake::Clear)
    }

    /// Turns somebody away before the handshake.
    fn refuse(&mut self, token: Token, why: Refusal) -> Next {
        let place = &mut self.places[token as usize];
        let _ = self.edge.send(&mut place.socket, NO_ROOM);
        Next::Refused(why)
    }

    /// The handshake is done: hands the connection to a worker.
    fn hand_on(&mut self, token: Token, what: Handshake) {
        let Some(mut place) = self.remove(token) else { return };
        self.shared.metrics.shake(what);
        self.edge.unwatch(&mut place.socket);
        let Place { socket, peer, permit, .. } = place;
        let (by, beginning) = (Listener::Tls, Beginning::Read(Vec::new()));
        let arrival = Arrival { socket, peer, permit, by, beginning };
        if let Err(mut back) = hand_to_fewest(&self.workers, &self.shared.metrics, arrival) {
            self.shared.metrics.refuse(Refusal::InboxFull);
            let (status, text) = limits::told(Refusal::InboxFull);
            let mut answer = Vec::new();
            let response = refusal(status, text).header("Retry-After", "1").made_at(self.edge.wall_us());
            response.keep_alive(false).write(&mut answer, false);
            let _ = self.edge.send(&mut back.socket, &answer);
            self.edge.finish(&mut back.socket);
        }
    }

    /// It comes to nothing.
    fn end(&mut self, token: Token, what: Handshake) {
        let Some(mut place) = self.remove(token) else { return };
        self.shared.metrics.shake(what);
        if matches!(what, Handshake::TimedOut | Handshake::Crowded) {
            tell!(self.shared.log, Kind::NoHandshake, self.now, INFO, { peer = %place.peer, why = what.name() }, "no TLS handshake");
            if place.beginning.is_some() {
                let _ = self.edge.send(&mut place.socket, NO_ROOM);
            }
        }
        self.edge.unwatch(&mut place.socket);
        self.edge.finish(&mut place.socket);
    }

    fn remove(&mut self, token: Token) -> Option<Place<E::Socket>> {
        let place = self.places.try_remove(token as usize)?;
        leave(&mut self.crowds, place.group());
        self.deadlines.remove(&(place.until, place.id));
        Some(place)
    }

    /// Ends those whose time is over.
    fn end_late(&mut self) {
        while let Some((&(until, _), &token)) = self.deadlines.first_key_value()
            && until <= self.now
        {
            self.end(token, Handshake::TimedOut);
        }
    }
}

/// What went wrong with a handshake; where it is our certificate, that.
fn in_words(error: &rustls::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError, Error, OtherError};
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(why))) if why.is::<Nameless>() => why.to_string(),
        rustls::Error::AlertReceived(
            Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown | Alert::CertificateExpired,
        ) => format!("the client doesn't trust the certificate ({error})"),
        _ => error.to_string(),
    }
}

fn leave(crowds: &mut FxHashMap<Group, usize>, group: Group) {
    if let Some(count) = crowds.get_mut(&group) {
        *count -= 1;
        if *count == 0 {
            crowds.remove(&group);
        }
    }
}
