//! Acceptors: threads that wait for connections and hand them to the worker that has the fewest.
//!
//! An acceptor blocks in `accept4`. It survives whatever accepting can fail with: a connection that is gone already is
//! passed over, and when descriptors or memory run out it pauses for a moment, instead of spinning on an error that won't
//! go away by itself. It ends when its listening socket is shut down; one that was passed
//! to this process (socket activation) stays open for the next, so there it waits for a bell, too: one `poll` more for each
//! connection.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    net::{RecvFlags, SendFlags, Shutdown},
};
use socket2::Socket;

use crate::{
    clock::{self, Moment},
    handover::{Arrival, Beginning, Inbox, Listener, hand_to_fewest, hand_to_idlest},
    handshakes,
    http::response::refusal,
    io::{Line, epoll, listener},
    limits::{self, Limits},
    log::{Kind, tell},
    metrics::Refusal,
    shared::Shared,
};

/// How long an acceptor pauses when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(50);

/// How long an acceptor waits for a place in an inbox, a look at a time; whoever comes meanwhile stays in the kernel's backlog.
const WAIT: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_micros(500);

/// What an acceptor needs.
pub(crate) struct Acceptor {
    pub listener: Arc<Socket>,
    pub limits: Arc<Limits>,
    pub shared: Arc<Shared>,
    pub by: Listener,
    /// The workers; of a listener for TLS, those who do handshakes.
    pub takers: Vec<Inbox<Line>>,
    pub stopping: Arc<AtomicBool>,
    /// Rung to end it, where the listening socket was passed to this process and can't be shut down.
    pub bell: Option<Arc<OwnedFd>>,
    /// It has waited for room in an inbox for nothing.
    pub is_stuck: Cell<bool>,
}

impl Acceptor {
    /// Accepts until the listening socket is shut down.
    pub(crate) fn run(self) {
        loop {
            let accepted = self.accept();
            // Acquire: pairs with the Release of whoever stops the server, before it shuts the socket down.
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            match accepted {
                Ok((socket, peer)) => self.take(socket, peer),
                // Another acceptor of the same socket was faster, the bell was rung, or a signal came.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => {
                    self.shared.metrics.accept_errors.bump();
                    if listener::is_short_of_something(&error) {
                        tell!(
                            self.shared.log,
                            Kind::NotAccepted,
                            Moment::now(),
                            ERROR,
                            { %error },
                            "connections can't be accepted: raise the descriptor limit or lower --max-connections"
                        );
                        thread::park_timeout(PAUSE);
                    }
                }
            }
        }
    }

    fn accept(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        if let Some(bell) = &self.bell
            && listener::wait(&self.listener, bell)?
        {
            // What is waiting stays in the backlog, for the next process that listens on this socket.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        listener::accept(&self.listener)
    }

    fn take(&self, socket: OwnedFd, peer: SocketAddr) {
        self.shared.metrics.accepted.bump();
        // A trusted proxy is many clients: each is counted as who it is, once that is known.
        let is_proxy = self.shared.settings.get().proxies.trust(peer.ip());
        match self.limits.admit((!is_proxy).then_some(peer.ip()), Moment::now()) {
            Ok(permit) => {
                let socket = Line::from(epoll::Socket::from(socket));
                let arrival = Arrival { socket, peer, permit, by: self.by, beginning: Beginning::Awaited };
                if let Err(back) = self.hand_in_time(arrival) {
                    self.refuse(back.socket.inner().as_fd(), peer, Refusal::InboxFull);
                }
            }
            Err(why) => self.refuse(socket.as_fd(), peer, why),
        }
    }

    /// Hands a socket over, and waits for room if there is none: of thousands that come back at once nobody is turned away for being quick. Where
    /// waiting was for nothing, nobody else is waited for until there is room again.
    fn hand_in_time(&self, arrival: Arrival<Line>) -> Result<(), Arrival<Line>> {
        let mut handed = self.hand(arrival);
        let until = Instant::now() + WAIT;
        while let Err(back) = handed {
            // Acquire: as in `run`.
            if self.is_stuck.get() || Instant::now() > until || self.stopping.load(Ordering::Acquire) {
                self.is_stuck.set(true);
                return Err(back);
            }
            thread::park_timeout(LOOK);
            handed = self.hand(back);
        }
        self.is_stuck.set(false);
        Ok(())
    }

    fn hand(&self, arrival: Arrival<Line>) -> Result<(), Arrival<Line>> {
        match self.by {
            Listener::Tls => hand_to_idlest(&self.takers, arrival),
            _ => hand_to_fewest(&self.takers, &self.shared.metrics, arrival),
        }
    }

    /// Says 503 to a connection that there is no room for, or 429 to one that came too soon. Without waiting: what the client
    /// has sent so far is read, so that closing doesn't reset the connection before the answer has arrived, and so that a page may read it
    /// that may connect.
    fn refuse(&self, socket: BorrowedFd<'_>, peer: SocketAddr, why: Refusal) {
        self.shared.metrics.refuse(why);
        tell!(self.shared.log, Kind::Refused(why), Moment::now(), INFO, { %peer, why = why.name() }, "refused");
        let (status, text) = limits::told(why);
        let mut received = [0u8; 4096];
        let len = rustix::net::recv(socket, &mut received, RecvFlags::DONTWAIT).map_or(0, |(len, _)| len);
        if self.by == Listener::Tls {
            let _ = rustix::net::send(socket, handshakes::NO_ROOM, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            let _ = rustix::net::shutdown(socket, Shutdown::Write);
            return;
        }
        let readers = self.shared.settings.get().access.readers_of(received.get(..len).unwrap_or_default());
        let mut answer = Vec::new();
        let refusal = refusal(status, text).header("Retry-After", "1").made_at(clock::wall_us());
        refusal.keep_alive(false).read_by(&readers).write(&mut answer, false);
        let _ = rustix::net::send(socket, &answer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        let _ = rustix::net::shutdown(socket, Shutdown::Write);
    }
}
