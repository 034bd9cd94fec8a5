//! Showing who is slow: the subscribers furthest behind, for `GET /debug/slow`.
//!
//! Once a second at most, and only while somebody marches alone, a worker picks the few of those that are furthest behind
//! (`--slow-list`), asks the kernel about their sockets, and leaves the list where the control thread finds it. Picking
//! costs a look at each of those that are alone and keeps no more than it picks; what is costly, it does for the few:
//! 32 of them take a third of a millisecond.

use std::{collections::BinaryHeap, net::SocketAddr, sync::Arc, time::Duration};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use super::{Worker, delivery::Delivery, interest::NameId};
use crate::{
    clock::Moment,
    io::{Edge, Token, path::Path},
    tape::Position,
};

/// How often the list is made, at most.
const EVERY: Duration = Duration::from_secs(1);

/// Subscriptions that are named for each.
const NAMES_MAX: usize = 8;

/// A subscriber that is behind, as of the worker's last look.
#[derive(Clone, Debug)]
pub(crate) struct SlowClient {
    /// What `hello` and the log call it.
    pub conn: String,
    pub address: SocketAddr,
    pub worker: usize,
    /// How long it has been speaking WebSocket.
    pub connected: Duration,
    /// Bytes of its lane between its cursor and the newest publication.
    pub lag_bytes: u64,
    /// Age of the oldest publication that it wasn't sent.
    pub lag: Duration,
    /// Publications left out for it.
    pub skips: u64,
    /// Answers that wait for it.
    pub pending_bytes: usize,
    /// What the kernel knows; None where it doesn't tell.
    pub path: Option<Path>,
    /// The first of its subscriptions.
    pub subscriptions: Vec<Arc<str>>,
    /// How many more it has.
    pub more: usize,
    pub mode: &'static str,
}

/// Each worker's list. The worker replaces it, whoever looks copies it: neither takes longer than a list is long.
#[derive(Debug)]
pub(crate) struct SlowClients(Box<[CachePadded<Mutex<Vec<SlowClient>>>]>);

impl SlowClients {
    pub(crate) fn new(workers: usize) -> SlowClients {
        SlowClients((0..workers).map(|_| CachePadded::default()).collect())
    }

    /// All workers' lists, worst lag first.
    pub(crate) fn all(&self) -> Vec<SlowClient> {
        let mut all: Vec<SlowClient> = self.0.iter().flat_map(|list| list.lock().clone()).collect();
        all.sort_by_key(|client| std::cmp::Reverse((client.lag, client.lag_bytes)));
        all
    }

    /// Replaces a worker's list.
    pub(crate) fn set(&self, worker: usize, list: Vec<SlowClient>) {
        let before = std::mem::replace(&mut *self.0[worker].lock(), list);
        drop(before);
    }
}

/// When a worker looks, and what it has shown.
pub(super) struct Survey {
    due: Moment,
    shows_any: bool,
    /// Those furthest behind so far; used again each time. The least far of them comes first.
    worst: BinaryHeap<(Position, Token)>,
}

impl Survey {
    pub fn new(now: Moment) -> Survey {
        Survey { due: now, shows_any: false, worst: BinaryHeap::new() }
    }
}

impl<E: Edge> Worker<E> {
    /// When the list is to be made anew; never while there is nobody to show and nobody shown.
    pub(super) fn slow_due(&self) -> Option<Moment> {
        let wanted = self.slow.shows_any || (self.settings.slow_list > 0 && !self.alone.is_empty());
        wanted.then_some(self.slow.due)
    }

    /// Makes the list anew.
    pub(super) fn show_slow(&mut self, now: Moment) {
        self.pick_worst();
        let mut worst = std::mem::take(&mut self.slow.worst);
        let wall_us = self.edge.wall_us();
        let list: Vec<SlowClient> = worst.drain().map(|(from, token)| self.describe(token, from, wall_us)).collect();
        self.slow = Survey { due: now + EVERY, shows_any: !list.is_empty(), worst };
        self.shared.slow.set(self.index, list);
    }

    /// Finds those that are furthest behind.
    fn pick_worst(&mut self) {
        let Worker { slow: Survey { worst, .. }, connections, alone, reader, settings, .. } = self;
        for token in alone.iter() {
            let Some(from) = connections[*token as usize].cursor().filter(|from| *from < reader.head()) else {
                continue;
            };
            worst.push((from, *token));
            if worst.len() > settings.slow_list {
                worst.pop();
            }
        }
    }

    fn describe(&mut self, token: Token, from: Position, wall_us: u64) -> SlowClient {
        let names = self.names_of(token);
        let named = names.iter().take(NAMES_MAX).map(|(name, _)| Arc::clone(self.interest.text(*name))).collect();
        let connection = &self.connections[token as usize];
        // A subscriber of newest values may be further behind than the tape reaches back; then that is what is shown.
        let from = from.max(self.reader.floor());
        let mut ts = wall_us;
        self.reader.look(from, |_, entry| ts = entry.ts);
        SlowClient {
            conn: connection.name(),
            address: connection.peer,
            worker: self.index,
            connected: self.now.since(connection.since),
            lag_bytes: self.reader.bytes_from(connection.lane(), from),
            lag: Duration::from_micros(wall_us.saturating_sub(ts)),
            skips: connection.skipped,
            pending_bytes: connection.pending(),
            path: self.edge.path(&connection.socket),
            subscriptions: named,
            more: names.len().saturating_sub(NAMES_MAX),
            mode: mode(&names),
        }
    }
}

/// How names are delivered, all of them together.
fn mode(names: &[(NameId, Delivery)]) -> &'static str {
    let in_full = names.iter().filter(|(_, delivery)| *delivery == Delivery::All).count();
    match in_full {
        0 if !names.is_empty() => "latest",
        n if n < names.len() => "mixed",
        _ => "all",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_deliveries_on_one_connection_are_mixed() {
        let (all, latest) = ((1, Delivery::All), (2, Delivery::Latest));
        assert_eq!([&[all][..], &[latest, latest], &[all, latest], &[]].map(mode), ["all", "latest", "mixed", "all"]);
    }
}
