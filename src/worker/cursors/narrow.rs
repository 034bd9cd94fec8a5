//! Fewer names: a subscription of which some ends where its connection's own cursor is, because rights have become less.
//!
//! An `unsub` ends names where the tape is, and what was published before still comes. Here nothing more may come of them at all, be it
//! published or not. So the cohort is replaced under the cursor, which stays where it is: whatever the cursor finds from there on, it finds by
//! the names that are left. What was made of the older names before is told apart by topic (the rounds), or can't be told apart any
//! more: the rest of a publication that has begun to be sent, and what a subscription begins with.

use super::{
    super::{
        connection::Connection,
        fan::{delivery::Rate, interest::CohortId, interest::Interest},
    },
    Behind, Cursors,
    round::PacedRound,
};
use crate::{
    io::Token,
    tape::{Reader, Tape},
};

impl Cursors {
    /// Whether nothing of a publication or snapshot waits that was begun to be sent, or was put behind what is being sent.
    pub fn is_between<S>(&self, token: Token, connection: &Connection<S>) -> bool {
        let is_between = |behind: &Behind| behind.offset == 0 && behind.rest == 0 && behind.begins.is_none();
        self.of(token, connection).is_none_or(is_between)
    }

    /// Whether what waits for a connection can be told apart by its names, once it is in this cohort, which has some of them.
    pub fn can_narrow<S>(
        &self,
        (tape, reader): (&Tape, &Reader),
        interest: &mut Interest,
        (token, connection): (Token, &Connection<S>),
        narrower: Option<CohortId>,
    ) -> bool {
        let Some(behind) = self.of(token, connection) else { return true };
        if !behind.stages.is_empty() || behind.begins.is_some() || behind.resume.is_some() {
            return false;
        }
        let begun = match (behind.rest, behind.offset) {
            (0, 0) => return true,
            (0, _) => behind.position,
            _ => match behind.begun.filter(|_| behind.offset == 0) {
                Some(begun) => begun,
                None => return false,
            },
        };
        // A frame that has begun to be sent goes on if its topic is still wanted.
        match (narrower, reader.look(begun)) {
            (Some(cohort), Some(begun)) => interest.wants(tape, cohort, &begun).is_some(),
            _ => false,
        }
    }

    /// A connection whose cursor is behind, and which was in the cohort `older`, is now in one with fewer names.
    pub fn narrow<S>(
        &mut self,
        interest: &mut Interest,
        (token, connection): (Token, &Connection<S>),
        older: CohortId,
    ) {
        let Some(behind) = self.of_mut(token, connection) else { return };
        let rates: Vec<Rate> = interest.cohort(older).paces.iter().map(|pace| pace.rate).collect();
        let mut before: Vec<(Rate, PacedRound)> = rates.into_iter().zip(std::mem::take(&mut behind.paces)).collect();
        let Some(cohort) = connection.cohort else {
            behind.round.keep(|_| false);
            return;
        };
        behind.round.keep(|slot| interest.delivery(cohort, slot).is_some_and(|delivery| delivery.rate().is_none()));
        let paces: Vec<(Rate, u64)> = interest.cohort(cohort).paces.iter().map(|it| (it.rate, it.ticks)).collect();
        for (rate, ticks) in paces {
            let at = before.iter().position(|(other, _)| *other == rate);
            debug_assert!(at.is_some(), "fewer names have no other rates");
            let Some((_, mut paced)) = at.map(|at| before.swap_remove(at)) else {
                behind.paces.push(PacedRound::from(behind.position, ticks, None));
                continue;
            };
            paced.ticks = ticks;
            paced.round.keep(|slot| interest.delivery(cohort, slot).is_some_and(|it| it.rate() == Some(rate)));
            behind.paces.push(paced);
        }
    }
}
