//! Leaving: what a connection lets go of when it ends, or its subscriptions do.
//!
//! It is at no place any more at once, so nothing more is sent to it. But its names may be a thousand, in tables of several places,
//! and thousands may end together; so its cohort waits on a list, counted as before, and its names are let go of as a turn
//! has room for. What waits there counts as subscriptions, of its address, too: whoever comes and goes faster than that is refused.

use std::sync::Arc;

use super::{
    super::{
        cursor::Cursor,
        fan::interest::{CohortId, CohortKey},
        work::price,
    },
    Clerk,
    collect::COUNT_AT_ONCE,
};
use crate::{
    io::{Edge, Token},
    limits::Charge,
};

/// What is let go of once its turn comes.
pub struct Parted {
    what: What,
    /// What its names are of the address's share, if they are subscriptions that end.
    _charge: Option<Charge>,
}

enum What {
    /// A cohort has a user less. Whether its names are subscriptions that end.
    Cohort(CohortId, bool),
    /// Names that were counted for a subscription that isn't made.
    Names(Vec<Arc<str>>),
}

impl Parted {
    /// The cohort that has a user less.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn cohort(&self) -> Option<CohortId> {
        match self.what {
            What::Cohort(cohort, _) => Some(cohort),
            What::Names(_) => None,
        }
    }
}

impl<E: Edge> Clerk<'_, E> {
    /// Ends every subscription of a connection, at once and without a word.
    pub fn unsubscribe_all(&mut self, token: Token) {
        self.drop_asks(token);
        self.rise(token);
        let Clerk { desk, ground, connections, fan, cursors } = self;
        fan.leave(connections, token);
        let Some(connection) = connections.get_mut(token) else { return };
        if let Some(behind) = cursors.of_mut(token, connection) {
            let stages = std::mem::take(&mut behind.stages).into_iter();
            let older = stages.filter_map(|stage| stage.cohort);
            desk.parted.extend(older.map(|cohort| Parted { what: What::Cohort(cohort, false), _charge: None }));
        }
        if let Some(cohort) = connection.cohort.take() {
            let names = fan.interest.cohort(cohort).key.names.len();
            let charge = connection.permit.part(names);
            desk.parted.push_back(Parted { what: What::Cohort(cohort, true), _charge: charge });
        }
        if connection.cursor != Cursor::None {
            cursors.end(ground, &mut fan.interest, connections, token);
        }
    }

    /// A cohort has a user less, of whom the names go on to be counted.
    pub fn part_with_cohort(&mut self, cohort: CohortId) {
        self.desk.parted.push_back(Parted { what: What::Cohort(cohort, false), _charge: None });
    }

    /// Lets go of names that were counted for a connection's subscription that isn't made.
    pub fn part_with(&mut self, token: Token, mut names: Vec<Arc<str>>) {
        while !names.is_empty() {
            let some = names.split_off(names.len().saturating_sub(COUNT_AT_ONCE));
            let charge = self.connections.get_mut(token).and_then(|connection| connection.permit.part(some.len()));
            self.desk.parted.push_back(Parted { what: What::Names(some), _charge: charge });
        }
    }

    /// Lets go of what those had who have left, as much as a turn allows.
    pub fn let_parted_go(&mut self) {
        while !self.desk.parted.is_empty() {
            if self.ground.work.is_over() {
                return self.ground.work.put_off();
            }
            let Some(parted) = self.desk.parted.pop_front() else { return };
            match parted.what {
                What::Cohort(cohort, counts) => self.let_cohort_go(cohort, counts),
                What::Names(names) => {
                    self.ground.work.charge(price::NAME * names.len() as u64);
                    self.ground.shared.subscriptions.remove(names.iter());
                }
            }
        }
    }

    fn let_cohort_go(&mut self, id: CohortId, counts: bool) {
        let Clerk { ground, fan, .. } = self;
        let cohort = fan.interest.cohort(id);
        let (CohortKey { names, .. }, is_last) = (&*cohort.key.clone(), cohort.users == 1);
        let times = u64::from(counts) + u64::from(is_last);
        ground.work.charge(price::LOOK + times * price::NAME * names.len() as u64);
        if counts {
            ground.shared.subscriptions.remove(names.iter().map(|(name, _)| fan.interest.text(*name)));
        }
        fan.interest.let_go(&ground.tape, &mut ground.reader, id);
    }
}
