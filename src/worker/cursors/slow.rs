//! Showing who is slow: the subscribers furthest behind, for `GET /debug/slow`.
//!
//! Once a second at most, and only while somebody is behind, a worker picks the few of those that are furthest
//! (`--slow-list`), asks the kernel about their sockets, and leaves the list where the control thread finds it. Those are
//! the first in the order of those that are behind; what is costly, it does for the few: 32 of them take a third of a
//! millisecond.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        connection::Connection,
        connections::Connections,
        fan::{
            compression,
            interest::{Cohort, Interest},
        },
        ground::Ground,
    },
    Behind, Cursors,
};
use crate::{clock::Moment, io::Edge, shared::SlowClient, tape::Position};

/// How often the list is made, at most.
const EVERY: Duration = Duration::from_secs(1);

/// Subscriptions that are named for each.
const NAMES_MAX: usize = 8;

/// When a worker looks, and what it has shown.
pub struct Survey {
    due: Moment,
    shows_any: bool,
}

impl Survey {
    pub fn new(now: Moment) -> Survey {
        Survey { due: now, shows_any: false }
    }
}

impl Cursors {
    /// When the list is to be made anew; never while there is nobody to show and nobody shown.
    #[inline]
    pub fn slow_due<E: Edge>(&self, ground: &Ground<E>) -> Option<Moment> {
        let wanted = self.slow.shows_any || (ground.settings.slow_list > 0 && !self.is_empty());
        wanted.then_some(self.slow.due)
    }

    /// Makes the list anew.
    pub fn show_slow<E: Edge>(
        &mut self,
        ground: &mut Ground<E>,
        interest: &mut Interest,
        connections: &Connections<E::Socket>,
        now: Moment,
    ) {
        let (most, head) = (ground.settings.slow_list, ground.reader.head());
        let wall_us = ground.edge.wall_us();
        let mut list = Vec::with_capacity(most.min(self.len()));
        for (from, token) in self.last_standing(connections, most) {
            let found = connections.get(token).and_then(|it| Some((it, self.of(token, it)?)));
            if let Some((connection, behind)) = found.filter(|_| from < head) {
                list.push(describe(ground, interest, connection, behind, from, wall_us));
            }
        }
        (self.slow.due, self.slow.shows_any) = (now + EVERY, !list.is_empty());
        ground.shared.slow.set(ground.index, list);
    }
}

fn describe<E: Edge>(
    ground: &mut Ground<E>,
    interest: &mut Interest,
    connection: &Connection<E::Socket>,
    behind: &Behind,
    from: Position,
    wall_us: u64,
) -> SlowClient {
    let interest = &*interest;
    let cohort = connection.cohort.and_then(|id| interest.find(id));
    let names = cohort.map_or(&[][..], |cohort| &cohort.key.names);
    let named = names.iter().take(NAMES_MAX).map(|(name, _)| Arc::clone(interest.text(*name))).collect();
    // A subscriber of newest values may be further behind than the tape reaches back; then that is what is shown.
    let from = from.max(ground.reader.floor());
    let ts = ground.reader.look(from).map_or(wall_us, |published| published.ts);
    SlowClient {
        conn: connection.name(),
        address: connection.peer,
        worker: ground.index,
        connected: ground.now.since(connection.since),
        lag_bytes: ground.reader.bytes_from(connection.lane, from),
        lag: Duration::from_micros(wall_us.saturating_sub(ts)),
        skips: connection.skipped,
        pending_bytes: connection.out.len() + behind.staged(),
        tls_held_bytes: ground.edge.encrypted(&connection.socket),
        path: ground.edge.path(&connection.socket),
        subscriptions: named,
        more: names.len().saturating_sub(NAMES_MAX),
        mode: cohort.map_or("all", Cohort::mode),
        compression: compression(connection, interest, &ground.packer),
    }
}
