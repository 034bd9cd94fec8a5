//! The admin address (`--admin-listen`): health, figures and who is slow, in a thread of its own, named `probe`.
//!
//! It is the same machinery as the control thread, with its own listening socket, its own few places and its own wait; no public
//! connection, worker or inbox is between a probe and its answer. What is told of health takes no lock, because whatever a
//! worker is stuck in may hold one. There is nothing to publish, list or subscribe to here, so it may be where it is for
//! operators only.

use std::{io, net::SocketAddr, time::Duration};

use rustix::fd::{AsFd, OwnedFd};

use super::{
    Context, Control, Newcomer,
    route::{Answer, LOOK, look},
    stall::{LOOK_EVERY, Stalls},
};
use crate::{
    clock::Moment,
    handover::Listener,
    http::{Refusal, Request, Response, response::TEXT},
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

const INDEX: &str = "/healthz  200, or 503 when a worker stands still\n/readyz  200, or 503 while the server stops\n\
                     /metrics  figures for Prometheus\n/debug/slow  the subscribers furthest behind\n";

/// What an admin thread has beside a control thread.
pub(super) struct Admin<S> {
    listener: S,
    /// How a connection is accepted from it; as accept4(2), without waiting.
    accept: fn(&S) -> io::Result<(S, SocketAddr)>,
    /// Until when accepting rests.
    paused: Option<Moment>,
    stalls: Stalls,
    look_due: Moment,
}

impl Control<Epoll> {
    /// The thread of the admin address, which accepts from `socket`.
    ///
    /// # Errors
    /// The socket can't be watched.
    pub(crate) fn admin(
        mut context: Context,
        mut edge: Epoll,
        inbox: super::Receiver<super::Message<Socket>>,
        socket: socket2::Socket,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let mut socket = Socket::from(OwnedFd::from(socket));
        edge.watch(&mut socket, LISTENER)?;
        context.settings.http_connections_max = CONNECTIONS_MAX;
        let mut control = Control::new(context, edge, inbox, Vec::new());
        let (listener, stalls) = (socket, Stalls::default());
        control.admin = Some(Admin { listener, accept, paused: None, stalls, look_due: Moment::default() });
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
        if self.admin.is_some() { PENDING_MAX } else { self.live.http_pending_max }
    }

    /// When the admin thread has something to do by itself.
    pub(super) fn admin_due(&self) -> Moment {
        let due = |admin: &Admin<E::Socket>| admin.look_due.min(admin.paused.unwrap_or(Moment::NEVER));
        self.admin.as_ref().map_or(Moment::NEVER, due)
    }

    /// Accepts who has come, and looks after the workers. Nothing, unless this is the admin thread.
    pub(super) fn attend(&mut self) {
        let now = self.now;
        let Some(admin) = &mut self.admin else { return };
        if admin.paused.is_some_and(|until| now >= until) {
            admin.paused = None;
            self.edge.interest(&mut admin.listener, true);
        }
        if now >= admin.look_due {
            admin.look_due = now + LOOK_EVERY;
            self.stall();
        }
        if self.ready.iter().any(|event| event.token == LISTENER) {
            self.accept_some();
        }
        self.ready.retain(|event| event.token != LISTENER);
    }

    /// No more connections are accepted.
    pub(super) fn stop_accepting(&mut self) {
        if let Some(admin) = &mut self.admin {
            self.edge.unwatch(&mut admin.listener);
            (admin.paused, admin.look_due) = (None, Moment::NEVER);
        }
    }

    fn accept_some(&mut self) {
        for _ in 0..ACCEPTS_A_TURN {
            let Some(admin) = &mut self.admin else { return };
            match (admin.accept)(&admin.listener) {
                Ok((socket, peer)) => {
                    let by = Listener::Admin;
                    self.admit(Newcomer { socket, peer, permit: None, by, received: Vec::new() })
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.context.shared.metrics.accept_errors.bump();
                    tracing::debug!(%error, "a connection to the admin address was not accepted");
                    if listener::is_short_of_something(&error) {
                        // It stays ready; without a pause it would be asked again at once, for ever.
                        admin.paused = Some(self.now + PAUSE);
                        return self.edge.interest(&mut admin.listener, false);
                    }
                }
            }
        }
    }

    /// Looks at the workers. The sentence about the one that has stood still for longest, if that is too long.
    fn stall(&mut self) -> Option<String> {
        let (context, limit) = (&self.context, self.live.stall_limit);
        let stalls = &mut self.admin.as_mut()?.stalls;
        let waiting = |worker: usize| context.inboxes[worker].get();
        let now = self.edge.now();
        let (worker, stall) = stalls.look(now, &context.shared.metrics, waiting, context.tape.head().0)?;
        (!limit.is_zero() && stall.length() >= limit).then(|| stall.sentence(worker))
    }

    /// What a request to the admin address comes to.
    pub(super) fn route_admin(&mut self, head: &Request<'_>, peer: SocketAddr) -> Result<Answer, Refusal> {
        if head.method == "OPTIONS"
            && matches!(head.path(), "*" | "/" | "/healthz" | "/readyz" | "/metrics" | "/debug/slow")
        {
            return Ok(Response::new(204).header("Allow", LOOK.1[0].1).into());
        }
        // Probes ask by whatever name, and learn nothing that a page could use.
        if !matches!(head.path(), "/healthz" | "/readyz") {
            self.live.access.check_operator(head)?;
        }
        match head.path() {
            "/" => look(head).map(|()| Response::new(200).body(TEXT, INDEX.as_bytes()).into()),
            "/healthz" => {
                look(head)?;
                match self.stall() {
                    None => Ok(Response::new(200).body(TEXT, &b"ok\n"[..]).into()),
                    Some(sentence) => Err(Refusal::new(503, sentence)),
                }
            }
            "/readyz" => look(head).and_then(|()| self.readiness()),
            "/metrics" => look(head).map(|()| self.metrics(head)),
            "/debug/slow" => look(head).and_then(|()| self.slow(head, peer)),
            _ => Err(Refusal::new(404, "Here are /healthz, /readyz, /metrics and /debug/slow, and nothing else.")),
        }
    }
}
