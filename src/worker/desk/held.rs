//! What connections hold: one figure for each, with a bound for each address and one for all.
//!
//! Whatever a client has the server keep for it in memory counts: answers and snapshots that it doesn't take, a message of which a part
//! has come, the head of its request, what is noted of its rounds and of changes of its subscription. (Not what the kernel has:
//! `--sndbuf` bounds that, and it isn't this process's.) Each part tells its own; the sum is brought up to date at the end of
//! a turn for those for whom something has changed, and at once where that is much.
//!
//! | | |
//! | --- | --- |
//! | one connection, beside a message | `--max-pending`: it is cut |
//! | those of an address, `--max-held-per-ip`; all, `--max-held` | whoever asks for more is refused; if it still grows, the largest is cut |
//!
//! Those that hold most are kept in order, from a page on, so that the largest is found at once. Who is subscribed to newest values
//! alone isn't among them: it is never closed for being slow, and what is noted for it is bounded by topics. Of all workers the
//! one that has the largest cuts it; another that finds that there is too much wakes it.

use std::collections::BTreeSet;

use super::{
    super::{connection::Connection, fan::delivery::Delivery, work::price},
    Clerk,
};
use crate::{
    io::{Edge, Token},
    limits::HELD_LEAST,
    log::{Kind, tell},
    metrics::Refusal,
    protocol::ErrorCode,
    rota::Group,
    slack::{KEPT_BY_THREAD, Slack},
};

/// What changes by more than this is counted at once.
const COUNTED_AT_ONCE: usize = 64 * 1024;

/// What a worker's connections hold.
#[derive(Debug, Default)]
pub struct Held {
    /// Bytes of answers that wait, and of everything.
    answers: u64,
    all: u64,
    /// Those that may be cut, by how many pages they hold: all, and those of each address.
    largest: BTreeSet<(u32, Token)>,
    largest_of: BTreeSet<(Group, u32, Token)>,
    /// Something has changed for these in this turn.
    changed: Vec<Token>,
    /// Those that have grown while there was too much, of their addresses or of all.
    beyond: Vec<(Group, Token)>,
    /// There is more than all may hold.
    all_is_too_much: bool,
}

impl<E: Edge> Clerk<'_, E> {
    /// Sees what a connection holds, after something may have changed.
    #[inline]
    pub fn note_held(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token) else { return };
        let (answers, all) = self.count(token, connection);
        let before = connection.permit.held();
        if all.abs_diff(before) >= COUNTED_AT_ONCE {
            self.settle(token);
        } else if (all, answers) != (before, connection.held.answers as usize) {
            self.desk.held.changed.push(token);
        }
    }

    /// Bytes of answers that wait for a connection, and of everything that it holds.
    fn count(&self, token: Token, connection: &Connection<E::Socket>) -> (usize, usize) {
        let answers = connection.out.held() + self.cursors.staged_of(token, connection);
        let came = connection.request.capacity() + connection.decoder.buffered() + self.desk.asking.held(token);
        (answers, answers + came + self.cursors.held(token, connection))
    }

    /// Brings the sums up to date for a connection, and its place among the largest.
    fn settle(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token) else { return };
        let (answers, all) = self.count(token, connection);
        let beside = all - connection.decoder.buffered() - self.desk.asking.messages_of(token);
        let group = connection.group();
        let is_large = all >= HELD_LEAST;
        let may_be_cut = is_large && !self.is_conflated(token);
        let Clerk { desk, ground, connections, .. } = self;
        let Some(connection) = connections.get_mut(token) else { return };
        let held = &mut desk.held;
        let grows = all > connection.permit.held();
        held.add(connection, (answers, all));
        connection.permit.holds(all);
        held.rank(group, token, connection, if may_be_cut { (all / HELD_LEAST) as u32 } else { 0 });
        if grows && is_large && connection.permit.held_excess().is_some() {
            held.beyond.push((group, token));
        }
        let most = ground.settings.pending_max;
        if may_be_cut && beside > most {
            self.cut(token, &format!("it holds more than --max-pending {most} bytes of memory"));
        }
    }

    /// Whether a connection is subscribed to newest values, and to nothing else.
    fn is_conflated(&mut self, token: Token) -> bool {
        let cohort = self.connections.get(token).and_then(|connection| connection.cohort);
        cohort.is_some_and(|cohort| !self.fan.interest.cohort(cohort).has(|delivery| delivery == Delivery::All))
    }

    /// Counts what has changed in this turn, and sees to it that there isn't too much.
    pub fn see_to_held(&mut self) {
        self.count_changed();
        self.show_held();
        for (group, token) in std::mem::take(&mut self.desk.held.beyond) {
            self.relieve(group, token);
        }
        self.relieve_all();
        // Those that were cut hold something else now: a close frame, if little of what they held was left to go.
        self.count_changed();
        self.show_held();
    }

    fn count_changed(&mut self) {
        while let Some(token) = self.desk.held.changed.pop().or_else(|| self.cursors.next_touched()) {
            self.ground.work.charge(price::LOOK);
            self.settle(token);
        }
    }

    fn show_held(&self) {
        let (held, metrics) = (&self.desk.held, &self.ground.metrics);
        metrics.pending_bytes.set(held.answers);
        metrics.held_bytes.set(held.all);
        metrics.held_largest.set(held.largest.last().map_or(0, |(pages, _)| (*pages).into()));
    }

    /// Cuts the largest of an address until it has no more than it may, as far as a turn allows. `token` is one of it that has grown.
    fn relieve(&mut self, group: Group, token: Token) {
        let excess = |connection: &Connection<E::Socket>| connection.permit.held_excess();
        match self.connections.get(token).and_then(excess) {
            Some(Refusal::AddressHeldFull) => {}
            excess => return self.desk.held.all_is_too_much |= excess.is_some(),
        }
        while let Some(largest) = self.desk.held.largest_of(group) {
            if self.connections.get(largest).and_then(excess) != Some(Refusal::AddressHeldFull) {
                return;
            }
            if self.ground.work.is_over() {
                self.desk.held.beyond.push((group, largest));
                return self.ground.work.put_off();
            }
            self.cut_for(largest, Refusal::AddressHeldFull);
        }
    }

    /// Cuts the largest of all while there is too much and this worker has it, as far as a turn allows; wakes those that have larger
    /// ones.
    fn relieve_all(&mut self) {
        let mut is_too_much = std::mem::take(&mut self.desk.held.all_is_too_much);
        loop {
            let own = self.desk.held.largest.last().copied();
            let largest = own.and_then(|(_, token)| self.connections.get(token));
            is_too_much = largest.map_or(is_too_much, |connection| connection.permit.all_hold_too_much());
            if !is_too_much {
                return;
            }
            let pages = own.map_or(0, |(pages, _)| u64::from(pages));
            let others = self.ground.shared.metrics.workers.iter().enumerate();
            let mut others = others.filter(|(index, _)| *index != self.ground.index);
            if others.any(|(_, worker)| worker.held_largest.get() > pages) {
                return self.ground.shared.publisher.wake_all();
            }
            let Some((_, token)) = own else { return };
            if self.ground.work.is_over() {
                self.desk.held.all_is_too_much = true;
                return self.ground.work.put_off();
            }
            self.cut_for(token, Refusal::HeldFull);
        }
    }

    fn cut_for(&mut self, token: Token, why: Refusal) {
        let Some(connection) = self.connections.get(token) else { return };
        let held = connection.permit.held();
        let flag = if why == Refusal::HeldFull { "--max-held" } else { "--max-held-per-ip" };
        tell!(
            self.ground.shared.log,
            Kind::Refused(why),
            self.ground.now,
            INFO,
            { conn = connection.name(), peer = %connection.peer, held, %flag },
            "cut: it held most, and there was more than may be held"
        );
        self.ground.metrics.held_cut.add(1);
        self.cut(token, &format!("it held {held} bytes of memory, the most, and there was more than {flag} allows"));
    }

    /// Whether a connection may be given so many bytes of answers more at once.
    ///
    /// # Errors
    /// What to tell it.
    pub fn may_hold(&self, token: Token, bytes: usize) -> Result<(), (ErrorCode, String)> {
        let Some(connection) = self.connections.get(token) else { return Ok(()) };
        connection.permit.may_hold(bytes, bytes).map_err(|why| {
            self.ground.shared.metrics.refuse(why);
            let (code, whose, flag) = match why {
                Refusal::AddressHeldFull => (ErrorCode::AddressFull, "your address", "--max-held-per-ip"),
                _ => (ErrorCode::ServerFull, "the server", "--max-held"),
            };
            let message = format!(
                "the snapshots need {bytes} bytes, and {whose} holds too much for its clients already ({flag}): read what was \
                 sent, ask for fewer topics, or for no snapshot"
            );
            (code, message)
        })
    }

    /// A connection is about to go, or to belong to another address: it holds nothing any more.
    pub fn forget_held(&mut self, token: Token) {
        let Clerk { desk, connections, .. } = self;
        let Some(connection) = connections.get_mut(token) else { return };
        let group = connection.group();
        desk.held.add(connection, (0, 0));
        desk.held.rank(group, token, connection, 0);
        connection.permit.holds(0);
    }
}

impl Held {
    /// Whether some are still to be cut.
    pub fn is_busy(&self) -> bool {
        self.all_is_too_much || !self.beyond.is_empty()
    }

    /// Gives back room that was needed once.
    pub fn give_back(&mut self) {
        self.changed.give_back(KEPT_BY_THREAD);
    }

    /// Counts what a connection holds, in place of what it held before.
    fn add<S>(&mut self, connection: &mut Connection<S>, (answers, all): (usize, usize)) {
        self.answers = self.answers + answers as u64 - u64::from(connection.held.answers);
        self.all = self.all + all as u64 - connection.permit.held() as u64;
        connection.held.answers = answers as u32;
    }

    /// Gives a connection its place among the largest; at 0 it has none.
    fn rank<S>(&mut self, group: Group, token: Token, connection: &mut Connection<S>, rank: u32) {
        let before = std::mem::replace(&mut connection.held.rank, rank);
        if rank == before {
            return;
        }
        if before > 0 {
            self.largest.remove(&(before, token));
            self.largest_of.remove(&(group, before, token));
        }
        if rank > 0 {
            self.largest.insert((rank, token));
            self.largest_of.insert((group, rank, token));
        }
    }

    fn largest_of(&self, group: Group) -> Option<Token> {
        self.largest_of.range((group, 0, 0)..=(group, u32::MAX, Token::MAX)).next_back().map(|(_, _, token)| *token)
    }
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl<E: Edge> Clerk<'_, E> {
    /// Asserts that the sums are what a look at everybody comes to.
    pub fn held_invariants(&self) {
        let held = &self.desk.held;
        let (mut sums, mut ranked) = ((0, 0), 0);
        for (token, connection) in self.connections.iter() {
            let (answers, all) = self.count(token, connection);
            let rank = connection.held.rank;
            assert_eq!(
                (connection.held.answers as usize, connection.permit.held()),
                (answers, all),
                "what a connection holds is known"
            );
            sums = (sums.0 + answers as u64, sums.1 + all as u64);
            ranked += usize::from(rank > 0);
            let is_ranked =
                held.largest.contains(&(rank, token)) && held.largest_of.contains(&(connection.group(), rank, token));
            assert!(rank == 0 || is_ranked, "whoever has a place among the largest is there");
        }
        assert_eq!((held.answers, held.all), sums, "what all hold is the sum");
        assert_eq!((held.largest.len(), held.largest_of.len()), (ranked, ranked), "nobody else is among the largest");
        assert!(held.changed.is_empty(), "changes were seen to");
    }
}
