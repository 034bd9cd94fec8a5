//! Who goes when there is no room: for one more connection, for a probe, or for one more answer.
//!
//! Never by address: behind a trusted proxy, everybody has the same. Places go from whoever waits for nothing (the longest idle
//! first), then from whoever moves most slowly in the middle of a head, of a single payload or of an answer. Memory goes from
//! whoever takes its answer most slowly. What began within the last 150 milliseconds is let be, so that a crowd of quick
//! clients doesn't push each other out: a newcomer stands at the door for that time instead, and a little longer. A byte now and then is no better than none.

use std::time::Duration;

use super::{Connection, Control};
use crate::{
    io::{Edge, Token},
    metrics::Eviction,
};

/// How long something must have lasted at least to be taken for slow: several round trips within a continent, and little enough
/// that whoever waits for its place is served within a quarter of a second.
pub(super) const GRACE: Duration = Duration::from_millis(150);

/// How long a newcomer waits for a place.
pub(super) const WAIT_MAX: Duration = Duration::from_millis(250);

/// How soon requests that wait for room are looked at again, if nothing else happens.
pub(super) const RETRY: Duration = Duration::from_millis(25);

/// Places that are kept for probes, beside those of everybody.
pub(super) const PROBES_MAX: usize = 32;

/// Whether what was received begins with a probe's request. Looked at before the connection has a place.
pub(super) fn is_probe(received: &[u8]) -> bool {
    let path = received.strip_prefix(b"GET ").or_else(|| received.strip_prefix(b"HEAD "));
    let rest = path.and_then(|path| path.strip_prefix(b"/healthz").or_else(|| path.strip_prefix(b"/readyz")));
    rest.is_some_and(|rest| matches!(rest.first(), Some(b' ' | b'?')))
}

impl<E: Edge> Control<E> {
    /// Makes a place for a new connection. Returns whether there is one.
    pub(super) fn make_place(&mut self) -> bool {
        while let Some(token) = self.longest_idle() {
            // Its next request may be there already; then it is not idle.
            self.read_one(token);
            match self.connections.get(token as usize) {
                Some(connection) if connection.is_idle() || connection.is_over() => {
                    self.evict(token, Eviction::Idle);
                    return true;
                }
                Some(_) => self.queue(token),
                None => return true,
            }
        }
        let Some(token) = self.slowest(Connection::is_moving) else { return false };
        self.evict(token, Eviction::Slow);
        true
    }

    /// Makes a place for a probe: there is one always.
    pub(super) fn make_place_for_probe(&mut self) {
        if self.reserved < PROBES_MAX {
            return;
        }
        let reserved = self.connections.iter().filter(|(_, connection)| connection.reserved);
        if let Some((token, _)) = reserved.min_by_key(|(_, connection)| connection.begun) {
            self.evict(token as Token, Eviction::Idle);
        }
    }

    /// Makes room for so many bytes of an answer for a connection that has taken all before. Returns whether there is.
    pub(super) fn make_room(&mut self, token: Token, bytes: usize) -> bool {
        while self.pending.bytes() + bytes > self.pending_max() {
            let slowest = self.slowest(|connection| connection.out.takes_memory());
            let Some(slowest) = slowest.filter(|slowest| *slowest != token) else { return false };
            self.evict(slowest, Eviction::Memory);
        }
        true
    }

    /// Whoever has been idle, or done and not gone, for longest.
    fn longest_idle(&self) -> Option<Token> {
        let idle = self.connections.iter().filter(|(_, connection)| {
            !connection.reserved && !connection.again && (connection.is_idle() || connection.is_over())
        });
        idle.min_by_key(|(_, connection)| connection.heard).map(|(token, _)| token as Token)
    }

    /// Whoever of those moves most slowly.
    fn slowest(&self, is_one: impl Fn(&Connection<E::Socket>) -> bool) -> Option<Token> {
        let slow = self.connections.iter().filter(|(_, connection)| {
            !connection.reserved && connection.pace.lasted(self.now) >= GRACE && is_one(connection)
        });
        slow.min_by_key(|(_, connection)| connection.pace.rate(self.now)).map(|(token, _)| token as Token)
    }

    /// Ends a connection for the others' sake.
    pub(super) fn evict(&mut self, token: Token, why: Eviction) {
        self.context.shared.metrics.evict(why);
        tracing::debug!(peer = %self.connections[token as usize].peer, why = why.name(), "an HTTP connection was ended");
        self.remove(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_known_by_its_first_bytes() {
        for probe in ["GET /healthz HTTP/1.1\r\n", "HEAD /readyz HTTP/1.0\r\n", "GET /readyz?full HTTP/1.1\r\n"] {
            assert!(is_probe(probe.as_bytes()), "{probe}");
        }
        for other in
            ["GET /healthzz HTTP/1.1\r\n", "GET / HTTP/1.1\r\n", "POST /healthz HTTP/1.1\r\n", "GET /healthz", ""]
        {
            assert!(!is_probe(other.as_bytes()), "{other}");
        }
    }
}
