//! Showing connections to operators who ask for some: a piece of the table at a time, one question a turn (`shared/looks.rs`).
//!
//! What is told of each is what stands in the tables; the kernel is asked nothing. A turn looks at [`PLACES_MAX`] places at most, and ends with
//! what the step may cost; where a piece ends is said with it.

use std::sync::Arc;

use super::{
    super::{
        connection::{Connection, Phase},
        cursor::Cursor,
        fan::{compression, interest::Cohort},
        work::price,
    },
    Clerk,
};
use crate::{
    io::{Edge, Token},
    shared::{Ask, Found, ROWS_MAX, Shown},
};

/// Places of the table that are looked at for one question.
const PLACES_MAX: Token = 1024;

/// Subscriptions that are named for each.
const NAMES_MAX: usize = 8;

impl<E: Edge> Clerk<'_, E> {
    /// Answers the question that has waited for longest, if there is one.
    #[inline]
    pub fn show_those_asked_for(&mut self) {
        if !self.ground.shared.looks.has_any(self.ground.index) {
            return;
        }
        if self.ground.work.is_over() {
            return self.ground.work.put_off();
        }
        let next = self.ground.shared.looks.next(self.ground.index);
        if let Some(ask) = next {
            let found = self.find_shown(&ask);
            ask.answer(found);
        }
    }

    fn find_shown(&mut self, ask: &Ask) -> Found {
        let (end, mut rows) = (self.connections.end(), Vec::new());
        let until = end.min(ask.from.saturating_add(PLACES_MAX));
        let mut at = ask.from;
        while at < until && rows.len() < ask.most.min(ROWS_MAX) && !self.ground.work.is_over() {
            let token = at;
            at += 1;
            self.ground.work.charge(price::LOOK);
            let Some(connection) = self.connections.get(token) else { continue };
            let is_meant = ask.only.is_none_or(|id| connection.id == id) && connection.phase == Phase::Open;
            if !is_meant {
                continue;
            }
            let cohort = connection.cohort.and_then(|id| self.fan.interest.find(id));
            let names = cohort.map_or(0, |cohort| cohort.key.names.len());
            rows.push(self.show(connection, cohort));
            // How names are delivered, and whether they are private, is looked for at each.
            let sets = self.ground.packer.packs().streams.private.len();
            self.ground.work.charge(price::COMMAND + price::LOOK * names as u64 + price::MATCH * (names * sets) as u64);
            if ask.only.is_some() {
                return Found { rows, next: None };
            }
        }
        Found { rows, next: (at < end).then_some(at) }
    }

    fn show(&self, connection: &Connection<E::Socket>, cohort: Option<&Cohort>) -> Shown {
        let interest = &self.fan.interest;
        let names = cohort.map_or(&[][..], |cohort| &cohort.key.names);
        Shown {
            conn: connection.name(),
            address: connection.peer,
            worker: self.ground.index,
            connected: self.ground.now.since(connection.since),
            door: connection.door(),
            subscriptions: names.iter().take(NAMES_MAX).map(|(name, _)| Arc::clone(interest.text(*name))).collect(),
            more: names.len().saturating_sub(NAMES_MAX),
            mode: cohort.map_or("all", Cohort::mode),
            same: cohort.map_or(0, |cohort| cohort.users),
            is_behind: matches!(connection.cursor, Cursor::Behind(_)),
            compression: compression(connection, interest, &self.ground.packer),
        }
    }
}
