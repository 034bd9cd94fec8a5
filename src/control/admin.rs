//! The admin address (`--admin-listen`): health, figures and who is slow, in a thread of its own (`own`), named `probe`.
//!
//! What is told of health takes no lock, because whatever a worker is stuck in may hold one. There is nothing to publish, list or
//! subscribe to here, so it may be where it is for operators only.

use std::{io, net::SocketAddr};

use super::{
    Control,
    own::{Duty, OwnParts},
    route::{LOOK, Outcome, look},
    stall::{LOOK_EVERY, Stalls},
};
use crate::{
    clock::Moment,
    http::{Refusal, Request, Response, response::TEXT},
    io::{Edge, epoll::Epoll},
};

const INDEX: &str = "/healthz  200, or 503 when a worker stands still\n/readyz  200, or 503 while the server stops\n\
                     /metrics  figures for Prometheus\n/debug/slow  the subscribers furthest behind\n\
                     /debug/connections  who is connected, and how each is sent publications\n";

/// What is kept for operators.
#[derive(Default)]
pub(super) struct Operators {
    stalls: Stalls,
    pub look_due: Moment,
}

impl Control<Epoll> {
    /// The thread of the admin address.
    ///
    /// # Errors
    /// The socket can't be watched.
    pub(crate) fn admin(parts: OwnParts) -> io::Result<Self> {
        Control::on_its_own(parts, Duty::Operators(Operators::default()))
    }
}

impl<E: Edge> Control<E> {
    /// Looks after the workers, if this is the admin thread and it is time to.
    pub(super) fn look_after_workers(&mut self) {
        let now = self.now;
        let Some(Duty::Operators(operators)) = self.own.as_mut().map(|own| &mut own.duty) else { return };
        if now >= operators.look_due {
            operators.look_due = now + LOOK_EVERY;
            self.stall();
        }
    }

    /// Looks at the workers. The sentence about the one that has stood still for longest, if that is too long.
    fn stall(&mut self) -> Option<String> {
        let (context, limit) = (&self.context, self.live.stall_limit);
        let Duty::Operators(Operators { stalls, .. }) = &mut self.own.as_mut()?.duty else { return None };
        let waiting = |worker: usize| context.inboxes[worker].get();
        let now = self.edge.now();
        let (worker, stall) = stalls.look(now, &context.shared.metrics, waiting, context.tape.head().0)?;
        (!limit.is_zero() && stall.length() >= limit).then(|| stall.sentence(worker))
    }

    /// What a request to the admin address comes to.
    pub(super) fn route_admin(&mut self, head: &Request<'_>, peer: SocketAddr) -> Result<Outcome, Refusal> {
        if head.method == "OPTIONS"
            && matches!(
                head.path(),
                "*" | "/" | "/healthz" | "/readyz" | "/metrics" | "/debug/slow" | "/debug/connections"
            )
        {
            return Ok(Outcome::Answer(Response::new(204).header("Allow", LOOK.1[0].1).into()));
        }
        // Probes ask by whatever name, and learn nothing that a page could use.
        if !matches!(head.path(), "/healthz" | "/readyz") {
            self.live.access.check_operator(head)?;
        }
        let answer = match head.path() {
            "/debug/connections" => return self.look_at_connections(head, peer),
            "/" => look(head).map(|()| Response::new(200).body(TEXT, INDEX.as_bytes()).into()),
            "/healthz" => {
                look(head)?;
                match self.stall() {
                    None => Ok(Response::new(200).body(TEXT, &b"ok\n"[..]).into()),
                    Some(sentence) => Err(Refusal::new(503, sentence)),
                }
            }
            "/readyz" => look(head).and_then(|()| self.readiness()),
            "/metrics" => look(head).and_then(|()| self.metrics(head, peer)),
            "/debug/slow" => look(head).and_then(|()| self.slow(head, peer)),
            _ => {
                let text =
                    "Here are /healthz, /readyz, /metrics, /debug/slow and /debug/connections, and nothing else.";
                Err(Refusal::new(404, text))
            }
        };
        answer.map(Outcome::Answer)
    }
}
