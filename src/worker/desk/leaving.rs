//! Leaving: what a connection lets go of when it ends, or its subscriptions do.
//!
//! It is at no place any more at once, so nothing more is sent to it. But its names may be a thousand, in tables of several places,
//! and thousands may end together; so its cohort waits on a list, counted as before, and its names are let go of as a turn
//! has room for. What waits there counts as subscriptions, of its address, too: whoever comes and goes faster than that is refused.

use super::{
    super::{
        cursor::Cursor,
        fan::interest::{CohortId, CohortKey},
        work::price,
    },
    Clerk,
};
use crate::{
    io::{Edge, Token},
    limits::Charge,
};

/// A cohort that has a user less once its turn comes.
pub struct Parted {
    pub cohort: CohortId,
    /// Its names are subscriptions that end.
    counts: bool,
    /// What they are of the address's share.
    _charge: Option<Charge>,
}

impl<E: Edge> Clerk<'_, E> {
    /// Ends every subscription of a connection, at once and without a word.
    pub fn unsubscribe_all(&mut self, token: Token) {
        let Clerk { desk, ground, connections, fan, cursors } = self;
        fan.leave(connections, token);
        let Some(connection) = connections.get_mut(token) else { return };
        if let Some(behind) = cursors.of_mut(token, connection) {
            let stages = std::mem::take(&mut behind.stages).into_iter();
            let older = stages.filter_map(|stage| stage.cohort);
            desk.parted.extend(older.map(|cohort| Parted { cohort, counts: false, _charge: None }));
        }
        if let Some(cohort) = connection.cohort.take() {
            let names = fan.interest.cohort(cohort).key.names.len();
            desk.parted.push_back(Parted { cohort, counts: true, _charge: connection.permit.part(names) });
        }
        if connection.cursor != Cursor::None {
            cursors.end(ground, &mut fan.interest, connections, token);
        }
    }

    /// Lets go of what those had who have left, as much as a turn allows.
    pub fn let_parted_go(&mut self) {
        while !self.desk.parted.is_empty() {
            if self.ground.work.is_over() {
                return self.ground.work.put_off();
            }
            let Some(parted) = self.desk.parted.pop_front() else { return };
            let Clerk { ground, fan, .. } = self;
            let cohort = fan.interest.cohort(parted.cohort);
            let (CohortKey { names, .. }, is_last) = (&*cohort.key.clone(), cohort.users == 1);
            let times = u64::from(parted.counts) + u64::from(is_last);
            ground.work.charge(price::LOOK + times * price::NAME * names.len() as u64);
            if parted.counts {
                ground.shared.subscriptions.remove(names.iter().map(|(name, _)| fan.interest.text(*name)));
            }
            fan.interest.let_go(&ground.tape, &mut ground.reader, parted.cohort);
        }
    }
}
