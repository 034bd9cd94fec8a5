//! What is noted for the audit (`--audit`): who comes, subscribes, is refused and goes, and once a minute who is there.
//!
//! An event is a value that is put into a queue: nothing here waits, and without `--audit` nothing here is done. What a connection was
//! sent in bytes, and what came of it, is asked of the kernel, which counts what its peer has acknowledged, and what it has taken: so no delivery and no publication pays for
//! it, and a connection has no field for it.
//!
//! A server that is killed writes no ends, so everybody who is there has a line a minute. These go round by token, each at its own
//! moment of the minute, so that ten thousand of them don't come in one turn; a turn that has done enough leaves the rest to the next.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        connection::{Connection, Phase},
        fan::delivery::Delivery,
        work::price,
    },
    Clerk,
};
use crate::{
    audit::{Been, Event, What, shortened},
    clock::Moment,
    handover::Listener,
    io::{Edge, Token},
};

/// How often there is a line about each who is there.
const ROUND: Duration = Duration::from_secs(60);

/// How often it goes on: few connections are looked at as they come along, many a few at a time.
const STEP: Duration = Duration::from_millis(250);

/// Where it has come to, in going round.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    begun: Moment,
    /// Those before have had their line.
    next: Token,
    /// When it goes on; never, if nothing is noted.
    pub due: Moment,
}

impl Round {
    /// One that begins now, if anything is noted.
    pub fn new(now: Moment, is_on: bool) -> Round {
        Round { begun: now, next: 0, due: if is_on { now + STEP } else { Moment::NEVER } }
    }

    /// Before which token all are to have had their line by now, of those below `end`.
    fn until(&self, now: Moment, end: Token) -> Token {
        let (gone, all) = (now.since(self.begun).min(ROUND).as_millis() as u64, ROUND.as_millis() as u64);
        (u64::from(end) * gone / all) as Token
    }
}

impl<E: Edge> Clerk<'_, E> {
    /// Notes what has happened to a connection, if anything is noted.
    pub fn note(&mut self, token: Token, what: impl FnOnce(&Connection<E::Socket>) -> What) {
        if !self.ground.shared.audit.is_on() {
            return;
        }
        self.ground.work.charge(price::NAME);
        let ts = self.ground.edge.wall_us();
        let Some(connection) = self.connections.get(token) else { return };
        let (conn, address, holder) = (connection.id, connection.peer, connection.holder.clone());
        self.ground.shared.audit.note(|| Event { ts, conn, address, holder, what: what(connection) });
    }

    /// Notes that a connection was opened.
    pub fn note_open(&mut self, token: Token) {
        self.note(token, |connection| What::Connect { door: connection.door(), tls: connection.by == Listener::Tls });
    }

    /// Notes a subscription to these names.
    pub fn note_subscription(&mut self, token: Token, names: &[Arc<str>], delivery: Delivery) {
        self.note_names(token, names, |names| What::Subscribe {
            names,
            mode: delivery.mode().as_str(),
            rate: delivery.rate().map(|rate| rate.per_second()),
        });
    }

    /// Notes something about these names.
    pub fn note_names(&mut self, token: Token, names: &[Arc<str>], what: impl FnOnce(Vec<Arc<str>>) -> What) {
        if self.ground.shared.audit.is_on() && !names.is_empty() {
            self.ground.work.charge(names.len() as u64 * price::LOOK);
            self.note(token, |_| what(names.to_vec()));
        }
    }

    /// Notes that something was refused, by the word for it.
    pub fn note_refusal(&mut self, token: Token, why: &'static str, message: &str) {
        self.note(token, |_| What::Refused { why, message: shortened(message) });
    }

    /// What there was of a connection so far.
    pub fn been(&mut self, token: Token) -> Been {
        let now = self.ground.now;
        let Some(connection) = self.connections.get(token) else { return Been::default() };
        let acks = self.ground.edge.acks(&connection.socket);
        let seconds = now.since(connection.since).as_secs();
        Been { seconds, bytes: acks.acked, unacked: acks.queued, received: acks.received }
    }

    /// Goes on with the round of those who are there, as far as it has come by now and the turn goes.
    pub fn note_those_who_are_there(&mut self) {
        let now = self.ground.now;
        if now < self.desk.round.due {
            return;
        }
        let rest = self.spare() / 2;
        let end = self.connections.end();
        let until = self.desk.round.until(now, end);
        while self.desk.round.next < until {
            if self.spare() <= rest {
                // It goes on at once, when others have had their turn.
                self.desk.round.due = now;
                return self.ground.work.put_off();
            }
            self.ground.work.charge(price::LOOK);
            let token = self.desk.round.next;
            self.desk.round.next += 1;
            self.note_that_it_is_there(token);
        }
        if now.since(self.desk.round.begun) >= ROUND {
            self.desk.round = Round { begun: now, next: 0, ..self.desk.round };
        }
        self.desk.round.due = now + STEP;
    }

    fn note_that_it_is_there(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token).filter(|it| it.phase == Phase::Open) else { return };
        let cohort = connection.cohort;
        // The kernel is asked what its peer has.
        self.ground.work.charge(price::END);
        let been = self.been(token);
        let subscriptions = cohort.map_or(0, |cohort| self.fan.interest.cohort(cohort).key.names.len());
        self.note(token, |_| What::Here { been, subscriptions });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_comes_to_everybody_within_its_time_and_evenly() {
        let begun = Moment(7);
        let round = Round::new(begun, true);
        let mut before = 0;
        for second in 0..=60 {
            let until = round.until(begun + Duration::from_secs(second), 6000);
            assert_eq!(until, second as Token * 100);
            assert!(until - before <= 100);
            before = until;
        }
        assert_eq!(round.until(begun + Duration::from_secs(600), 6000), 6000);
        assert_eq!(round.until(begun + ROUND, Token::MAX), Token::MAX);
        assert_eq!(Round::new(begun, false).due, Moment::NEVER);
    }
}
