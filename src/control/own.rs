//! A thread with an address of its own: the machinery of the control thread, which accepts by itself, with its own few places
//! and its own wait. No public connection, worker or inbox is between a client and its answer.
//!
//! It has a duty: to answer operators (`admin`), or challenges of those who give certificates out (`acme`). There is nothing to publish, list
//! or subscribe to.

use std::{io, net::SocketAddr, time::Duration};

use crossbeam_channel::Receiver;
use rustix::fd::{AsFd, OwnedFd};

use super::{Context, Control, Newcomer, acme::Challenges, admin::Operators};
use crate::{
    clock::Moment,
    handover::{Listener, Message},
    io::{
        Edge, TOKEN_MAX, Token,
        epoll::{Epoll, Socket},
        listener,
    },
};

/// Connections at once: some probes, scrapers and people. When they are full, the longest idle goes.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// Memory of their answers.
const PENDING_MAX: usize = 4 * 1024 * 1024;

/// Connections accepted in one turn.
const ACCEPTS_A_TURN: usize = 16;

/// How long accepting rests when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(50);

/// The listening socket's name towards the edge; no connection has it.
const LISTENER: Token = TOKEN_MAX;

/// What such a thread has beside a control thread.
pub(super) struct Own<S> {
    listener: S,
    /// How a connection is accepted from it; as accept4(2), without waiting.
    accept: fn(&S) -> io::Result<(S, SocketAddr)>,
    /// Until when accepting rests.
    paused: Option<Moment>,
    pub duty: Duty,
}

/// What it is there for.
pub(super) enum Duty {
    Operators(Operators),
    Challenges(Challenges),
}

impl Duty {
    fn listener(&self) -> Listener {
        match self {
            Duty::Operators(_) => Listener::Admin,
            Duty::Challenges(_) => Listener::Acme,
        }
    }
}

/// What such a thread is made of.
pub(crate) struct OwnParts {
    pub context: Context,
    pub edge: Epoll,
    /// For the word to stop.
    pub inbox: Receiver<Message<Socket>>,
    /// What it accepts from.
    pub socket: socket2::Socket,
}

impl Control<Epoll> {
    /// A thread that is there for this.
    ///
    /// # Errors
    /// The socket can't be watched.
    pub(super) fn on_its_own(parts: OwnParts, duty: Duty) -> io::Result<Self> {
        let OwnParts { mut context, mut edge, inbox, socket } = parts;
        socket.set_nonblocking(true)?;
        let mut listener = Socket::from(OwnedFd::from(socket));
        edge.watch(&mut listener, LISTENER)?;
        context.settings.http_connections_max = CONNECTIONS_MAX;
        let mut control = Control::new(context, edge, inbox, Vec::new());
        control.own = Some(Own { listener, accept, paused: None, duty });
        Ok(control)
    }
}

fn accept(listener: &Socket) -> io::Result<(Socket, SocketAddr)> {
    let (socket, peer) = listener::accept_nonblocking(listener.as_fd())?;
    Ok((socket.into(), peer))
}

impl<E: Edge> Control<E> {
    /// The most memory that answers may take.
    pub(super) fn pending_max(&self) -> usize {
        if self.own.is_some() { PENDING_MAX } else { self.live.http_pending_max }
    }

    /// When such a thread has something to do by itself.
    pub(super) fn own_due(&self) -> Moment {
        let due = |own: &Own<E::Socket>| {
            let duty = match &own.duty {
                Duty::Operators(operators) => operators.look_due,
                Duty::Challenges(_) => Moment::NEVER,
            };
            duty.min(own.paused.unwrap_or(Moment::NEVER))
        };
        self.own.as_ref().map_or(Moment::NEVER, due)
    }

    /// Accepts who has come, and does what there is to do by itself. Nothing in the control thread.
    pub(super) fn attend(&mut self) {
        let now = self.now;
        let Some(own) = &mut self.own else { return };
        if own.paused.is_some_and(|until| now >= until) {
            own.paused = None;
            self.edge.interest(&mut own.listener, true);
        }
        self.look_after_workers();
        if self.ready.iter().any(|event| event.token == LISTENER) {
            self.accept_some();
        }
        self.ready.retain(|event| event.token != LISTENER);
    }

    /// No more connections are accepted.
    pub(super) fn stop_accepting(&mut self) {
        if let Some(own) = &mut self.own {
            self.edge.unwatch(&mut own.listener);
            own.paused = None;
            if let Duty::Operators(operators) = &mut own.duty {
                operators.look_due = Moment::NEVER;
            }
        }
    }

    fn accept_some(&mut self) {
        for _ in 0..ACCEPTS_A_TURN {
            let Some(own) = &mut self.own else { return };
            match (own.accept)(&own.listener) {
                Ok((socket, peer)) => {
                    let by = own.duty.listener();
                    self.admit(Newcomer { socket, peer, permit: None, by, received: Vec::new() })
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.context.shared.metrics.accept_errors.bump();
                    tracing::debug!(%error, by = ?own.duty.listener(), "a connection was not accepted");
                    if listener::is_short_of_something(&error) {
                        // It stays ready; without a pause it would be asked again at once, for ever.
                        own.paused = Some(self.now + PAUSE);
                        return self.edge.interest(&mut own.listener, false);
                    }
                }
            }
        }
    }
}
