//! Fewer names: a subscription of which some ends where its connection's own cursor is, because rights have become less.
//!
//! An `unsub` ends names where the tape is, and what was published before still comes. Here nothing more may come of them at all, be it
//! published or not. So the cohort is replaced under the cursor, which stays where it is: whatever the cursor finds from there on, it finds by
//! the names that are left. What was made of the older names before is told apart by topic: the rounds, what was missed, and a publication of
//! which the rest waits. Three things can't be told apart, and their connection ends: a publication in the middle of which a topic was lost, since a
//! frame that has begun can neither go on nor be taken back; what a subscription begins with, of which some waits as bytes already;
//! and changes of the subscription that the cursor has not come to, each of which has a cohort of its own.

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
        if !behind.stages.is_empty() || behind.begins.is_some() {
            return false;
        }
        let begun = match (behind.rest, behind.offset) {
            (0, 0) => return true,
            (0, _) => behind.position,
            _ => behind.rest_of,
        };
        // A frame that has begun to be sent goes on if its topic is still wanted; of one that the tape has let go of nobody knows that.
        match (narrower, reader.look(begun)) {
            (Some(cohort), Some(begun)) => interest.is_subscribed(tape, cohort, begun.topic),
            _ => false,
        }
    }

    /// A connection whose cursor is behind, and which was in the cohort `older`, is now in one with fewer names. Returns how many topics were looked at.
    pub fn narrow<S>(
        &mut self,
        interest: &mut Interest,
        (token, connection): (Token, &Connection<S>),
        older: CohortId,
    ) -> usize {
        let Some(behind) = self.of_mut(token, connection) else { return 0 };
        let rates: Vec<Rate> = interest.cohort(older).paces.iter().map(|pace| pace.rate).collect();
        let mut before: Vec<(Rate, PacedRound)> = rates.into_iter().zip(std::mem::take(&mut behind.paces)).collect();
        let Some(cohort) = connection.cohort else {
            behind.round.keep(|_| false);
            behind.resume = None;
            return 0;
        };
        let paces: Vec<(Rate, u64)> = interest.cohort(cohort).paces.iter().map(|it| (it.rate, it.ticks)).collect();
        let mut looks = 0;
        let mut delivery = |slot: u32| {
            looks += 1;
            interest.delivery(cohort, slot)
        };
        if let Some(resume) = &mut behind.resume {
            resume.seen.retain(|slot, _| delivery(*slot).is_some());
        }
        behind.round.keep(|slot| delivery(slot).is_some_and(|delivery| delivery.rate().is_none()));
        for (rate, ticks) in paces {
            let at = before.iter().position(|(other, _)| *other == rate);
            debug_assert!(at.is_some(), "fewer names have no other rates");
            let Some((_, mut paced)) = at.map(|at| before.swap_remove(at)) else {
                behind.paces.push(PacedRound::from(behind.position, ticks, None));
                continue;
            };
            paced.ticks = ticks;
            paced.round.keep(|slot| delivery(slot).is_some_and(|it| it.rate() == Some(rate)));
            behind.paces.push(paced);
        }
        looks
    }
}
