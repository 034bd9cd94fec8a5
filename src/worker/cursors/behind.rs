//! What is kept of a connection whose cursor is behind: a position, and the changes of its subscription that it has not come
//! to yet. Whatever its lag, that is all.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    super::{
        connection::CohortId,
        fan::{AsOf, Pace, Unserved},
        out::Backlog,
    },
    order::Places,
    resume::Resume,
    round::{PacedRound, Round},
    told::Told,
};
use crate::{clock::Moment, lane::Lane, tape::Position};

/// What a cursor stands still for, or goes on by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stands {
    /// It waits for room, or goes on just now.
    #[default]
    Still,
    /// It waits for the fan, at this place among those that do.
    Waiting(u32),
    /// It is on the list of those to go on this turn.
    Listed,
}

/// A cursor that is behind: the socket was full, or the connection has just subscribed.
#[derive(Debug)]
pub struct Behind {
    /// The next publication to look at.
    pub position: Position,
    /// How many bytes of that publication's frame were already sent.
    pub offset: u32,
    /// What it stands still for, or goes on by.
    pub stands: Stands,
    /// Where it is in the order of all that are behind.
    pub places: Places,
    /// Subscriptions that ended while it was behind: up to `until`, the older cohort counts.
    pub stages: VecDeque<Stage>,
    /// Its socket was full since it is behind: of names that may be, it is sent the newest values.
    pub conflates: bool,
    /// Its socket is kept short.
    pub short: bool,
    /// Since when it waits for room.
    pub full_since: Moment,
    /// How long it has waited for room the last time, until that was looked at.
    pub waited: Duration,
    /// How many bytes at the front of `out` are the rest of a publication.
    pub rest: usize,
    /// What it was sent or told of last, where that may leave something out.
    pub told: Option<Told>,
    /// What is left of the round that it is in.
    pub round: Round,
    /// The same for each of its rates, those of the cohort that it is under at `position`.
    pub paces: Vec<PacedRound>,
    /// What it has missed and is sent first; `position` is within that meanwhile.
    pub resume: Option<Resume>,
}

/// A change of subscription that a connection has not yet come to.
#[derive(Debug, Default)]
pub struct Stage {
    /// The position at which the change was made.
    pub until: Position,
    /// The cohort up to there.
    pub cohort: Option<CohortId>,
    /// What to say there: the acknowledgement and the snapshots.
    pub then: Vec<u8>,
    /// What is newest there, where names are delivered in newest values up to there or from there on.
    pub as_of: Option<Arc<AsOf>>,
    /// What it missed before and is sent then.
    pub resume: Option<Resume>,
}

impl Behind {
    /// At `position` of a cohort with these rates, of which it has been sent everything up to the last tick.
    ///
    /// `as_of` is what was newest at `position`, if it is to be told what is left out for it.
    pub fn new(position: Position, lane: Lane, as_of: Option<Arc<AsOf>>, paces: &[Pace]) -> Behind {
        let told = |pace: &Pace| {
            let before = pace.changes.iter().map(|change| (change.slot, change.before));
            Some(Told::of(as_of.clone()?).but(before))
        };
        let paces = paces.iter().map(|pace| PacedRound::from(pace.tick, pace.ticks, told(pace))).collect();
        let told = as_of.map(Told::of);
        Behind {
            position,
            offset: 0,
            stands: Stands::Still,
            places: Places::none(lane),
            stages: VecDeque::new(),
            conflates: false,
            short: false,
            full_since: Moment::default(),
            waited: Duration::ZERO,
            rest: 0,
            told,
            round: Round::default(),
            paces,
            resume: None,
        }
    }

    /// It was still to be served at these ticks: it is as far as those before.
    pub fn owe(&mut self, owed: Vec<Unserved>) {
        for Unserved { rate, from, ticks, changes } in owed {
            if let Some(paced) = self.paces.get_mut(rate) {
                let before = changes.iter().map(|change| (change.slot, change.before));
                let told = paced.told.take().map(|told| told.but(before));
                *paced = PacedRound::from(from, ticks, told);
            }
        }
    }

    /// The cohort that counts where it is, of a connection that is subscribed to `cohort` in the end.
    pub fn cohort(&self, cohort: Option<CohortId>) -> Option<CohortId> {
        self.stages.front().map_or(cohort, |stage| stage.cohort)
    }

    /// Where it stands as a subscriber; none if nothing is to be sent to it but answers.
    pub fn subscribed_at(&self, cohort: Option<CohortId>) -> Option<Position> {
        let subscribed = cohort.is_some() || self.stages.iter().any(|stage| stage.cohort.is_some());
        subscribed.then_some(self.position)
    }

    /// Bytes that are to be said when it comes to its stages.
    pub fn staged(&self) -> usize {
        self.stages.iter().map(|stage| stage.then.len()).sum()
    }

    /// Puts the rest of a publication before everything else that its connection is to be sent.
    pub fn put_rest(&mut self, out: &mut Backlog, rest: Vec<u8>) {
        self.rest = rest.len();
        out.put_front(rest);
    }
}
