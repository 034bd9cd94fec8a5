//! Showing who is slow: the subscribers furthest behind, for `GET /debug/slow`.
//!
//! Once a second at most, and only while somebody marches alone, a worker picks the few of those that are furthest behind
//! (`--slow-list`), asks the kernel about their sockets, and leaves the list where the control thread finds it. Picking
//! costs a look at each of those that are alone and keeps no more than it picks; what is costly, it does for the few:
//! 32 of them take a third of a millisecond.

use std::{collections::BinaryHeap, sync::Arc, time::Duration};

use super::super::{
    Worker,
    fan::{delivery::Delivery, interest::NameId},
};
use crate::{
    clock::Moment,
    io::{Edge, Token},
    shared::SlowClient,
    tape::Position,
};

/// How often the list is made, at most.
const EVERY: Duration = Duration::from_secs(1);

/// Subscriptions that are named for each.
const NAMES_MAX: usize = 8;

/// When a worker looks, and what it has shown.
pub struct Survey {
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
    pub fn slow_due(&self) -> Option<Moment> {
        let wanted = self.slow.shows_any || (self.settings.slow_list > 0 && !self.alone.is_empty());
        wanted.then_some(self.slow.due)
    }

    /// Makes the list anew.
    pub fn show_slow(&mut self, now: Moment) {
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
