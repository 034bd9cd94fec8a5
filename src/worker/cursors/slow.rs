//! Showing who is slow: the subscribers furthest behind, for `GET /debug/slow`.
//!
//! Once a second at most, and only while somebody is behind, a worker picks the few of those that are furthest
//! (`--slow-list`), asks the kernel about their sockets, and leaves the list where the control thread finds it. Those are
//! the first in the order of those that are behind; what is costly, it does for the few: 32 of them take a third of a
//! millisecond.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        connection::{Connection, Packed},
        connections::Connections,
        fan::{
            delivery::Delivery,
            interest::{Interest, NameId},
        },
        ground::Ground,
    },
    Behind, Cursors,
};
use crate::{clock::Moment, io::Edge, packs::Packer, shared::SlowClient, tape::Position};

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
    let names = connection.cohort.map_or_else(Vec::new, |id| interest.cohort(id).key.names.to_vec());
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
        mode: mode(&names),
        compression: compression(connection, interest, &ground.packer),
    }
}

/// How somebody is sent publications, and why it reads no stream if it doesn't.
fn compression<S>(connection: &Connection<S>, interest: &mut Interest, packer: &Packer) -> &'static str {
    let settings = &packer.packs().streams;
    match (connection.packed, connection.cohort) {
        (Packed::Clear, _) => "none",
        (Packed::Once, _) => "once: no context, a smaller window, or not from the server",
        (Packed::Shares, _) => "shared",
        (Packed::Waits, None) => "once: it changes its subscription",
        (Packed::Waits, Some(id)) => {
            let cohort = interest.cohort(id);
            match &cohort.stream {
                _ if !cohort.may_share() => "once: newest values",
                Some(_) => "clear: it waits for the stream to begin anew",
                None if cohort.column.len() < settings.members_min => "once: too few with the same names",
                None if packer.streams.was_pressed && settings.is_for_leisure(cohort.users) => {
                    "once: few with the same names, and the server was busy"
                }
                None => "once: too many streams",
            }
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
