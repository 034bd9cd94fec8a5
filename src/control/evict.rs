//! Who goes when there is no room: for one more connection, for a probe, or for one more answer.
//!
//! Hardly by address: behind a trusted proxy, everybody has the same, and it counts for none. Otherwise addresses take turns at the door,
//! and one that has half of all places makes room for others at once. Places go from whoever waits for nothing (the longest idle
//! first), then from whoever moves most slowly in the middle of a head, of a single payload or of an answer. Memory goes from
//! whoever takes its answer most slowly. What began within the last 150 milliseconds is let be, so that a crowd of quick
//! clients doesn't push each other out: a newcomer stands at the door for that time instead, and a little longer. A byte now and then is no better than none.

use std::{collections::HashMap, time::Duration};

use super::{Connection, Control, address_of};
use crate::{
    io::{Edge, Token},
    metrics::Eviction,
};

/// How long something must have lasted at least to be taken for slow: several round trips within a continent, and little enough
/// that whoever waits for its place is served within a quarter of a second.
pub(super) const GRACE: Duration = Duration::from_millis(150);

/// Connections that an address has at least that makes room for others at once.
const CROWD_LEAST: usize = 16;

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
    /// Makes a place for a new connection from this address. Returns whether there is one.
    pub(super) fn make_place(&mut self, address: usize) -> bool {
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
        let slowest = self.slowest(GRACE, Connection::is_moving);
        // Those that wait for room take a place as well.
        let is_one = |connection: &Connection<E::Socket>| connection.is_moving() || connection.waits.is_some();
        let Some(token) = slowest.or_else(|| self.slowest_of_crowd(address, is_one)) else {
            return false;
        };
        self.evict(token, Eviction::Slow);
        true
    }

    /// Whoever of those moves most slowly of an address that has half of all places or more, if that isn't this one.
    fn slowest_of_crowd(&self, but: usize, is_one: impl Fn(&Connection<E::Socket>) -> bool) -> Option<Token> {
        let mut counts: HashMap<usize, usize> = HashMap::new();
        let addresses = self.connections.iter().map(|(_, connection)| address_of(connection.permit.as_ref()));
        addresses.for_each(|address| *counts.entry(address).or_default() += 1);
        let is_crowd = |(address, count): &(usize, usize)| {
            ![0, but].contains(address) && *count >= CROWD_LEAST && 2 * count >= self.connections.len()
        };
        let (crowd, _) = counts.into_iter().find(is_crowd)?;
        self.slowest(Duration::ZERO, |it| is_one(it) && address_of(it.permit.as_ref()) == crowd)
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
            let address = address_of(self.connections[token as usize].permit.as_ref());
            let takes_memory = |connection: &Connection<E::Socket>| connection.out.takes_memory();
            let slowest = self.slowest(GRACE, takes_memory).or_else(|| self.slowest_of_crowd(address, takes_memory));
            let Some(slowest) = slowest.filter(|slowest| *slowest != token) else { return false };
            self.evict(slowest, Eviction::Memory);
        }
        true
    }

    /// Whoever has been idle, or done and not gone, for longest.
    pub(super) fn longest_idle(&self) -> Option<Token> {
        let idle = self.connections.iter().filter(|(_, connection)| {
            !connection.reserved && !connection.again && (connection.is_idle() || connection.is_over())
        });
        idle.min_by_key(|(_, connection)| connection.heard).map(|(token, _)| token as Token)
    }

    /// Whoever of those moves most slowly.
    fn slowest(&self, grace: Duration, is_one: impl Fn(&Connection<E::Socket>) -> bool) -> Option<Token> {
        let slow = self.connections.iter().filter(|(_, connection)| {
            !connection.reserved && connection.pace.lasted(self.now) >= grace && is_one(connection)
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
