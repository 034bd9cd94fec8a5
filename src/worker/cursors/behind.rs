//! What is kept of a connection whose cursor is behind: a position, and the changes of its subscription that it has not come
//! to yet. Whatever its lag, that is all.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    super::{
        connection::CohortId,
        fan::{AsOf, Pace, Unserved},
        out::Backlog,
    },
    beginnings::Beginnings,
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

/// Changes of its subscription that a connection has not come to yet. Each keeps a cohort, so there are no more: the next command
/// waits (`desk/asking.rs`).
pub const STAGES_MAX: usize = 8;

/// Bytes of answers that a client may leave lying before the next command waits; less if `--max-pending` is less than twice as
/// much. Four full sends: whoever reads is never asked to wait.
const LADEN_BYTES: usize = 256 * 1024;

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
    /// It is further behind than is allowed, and is closed when its turn comes: it goes no further.
    pub ends: bool,
    /// Its socket is kept short.
    pub short: bool,
    /// Since when it waits for room.
    pub full_since: Moment,
    /// How long it has waited for room the last time, until that was looked at.
    pub waited: Duration,
    /// How many bytes at the front of `out` are the rest of a publication.
    pub rest: usize,
    /// Where that publication is on the tape.
    pub rest_of: Position,
    /// What it was sent or told of last, where that may leave something out.
    pub told: Option<Told>,
    /// What is left of the round that it is in.
    pub round: Round,
    /// The same for each of its rates, those of the cohort that it is under at `position`.
    pub paces: Vec<PacedRound>,
    /// What its subscription begins with and is still to be said, before anything from `position` on.
    pub begins: Option<Box<Beginnings>>,
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
    /// What to say there: the acknowledgement, and what was answered since.
    pub then: Vec<u8>,
    /// What to say behind it, and then what was answered since.
    pub begins: Option<Box<Beginnings>>,
    /// What is newest there, where names are delivered in newest values up to there or from there on.
    pub as_of: Option<Arc<AsOf>>,
    /// What it missed before and is sent then.
    pub resume: Option<Resume>,
}

/// Whether so much waits for a client, `out` bytes of answers with it, that what it asks for has to wait as well.
pub fn is_laden(out: usize, behind: Option<&Behind>, pending_max: usize) -> bool {
    let said = behind.map_or(0, Behind::said);
    let changes = behind.map_or(0, |behind| behind.stages.len() + usize::from(behind.begins.is_some()));
    changes >= STAGES_MAX || out + said >= LADEN_BYTES.min(pending_max / 2)
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
            ends: false,
            short: false,
            full_since: Moment::default(),
            waited: Duration::ZERO,
            rest: 0,
            rest_of: Position::default(),
            told,
            round: Round::default(),
            paces,
            begins: None,
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

    /// Bytes that were written and are to be said when it comes to its stages, and behind those that it has come to.
    fn said(&self) -> usize {
        let begins = self.begins.iter().chain(self.stages.iter().filter_map(|stage| stage.begins.as_ref()));
        let then: usize = self.stages.iter().map(|stage| stage.then.len()).sum();
        then + begins.map(|begins| begins.after.len()).sum::<usize>()
    }

    /// Bytes that are to be said when it comes to its stages, and at those that it has come to.
    pub fn staged(&self) -> usize {
        let begins = self.begins.iter().chain(self.stages.iter().filter_map(|stage| stage.begins.as_ref()));
        let said: usize = self.stages.iter().map(|stage| stage.then.len()).sum();
        said + begins.map(|begins| begins.waiting()).sum::<usize>()
    }

    /// Where answers go that may not overtake the acknowledgement of a change, nor what the subscription begins with; none if
    /// there is nothing to overtake.
    pub fn last_words(&mut self) -> Option<&mut Vec<u8>> {
        match self.stages.back_mut() {
            Some(Stage { begins: Some(begins), .. }) => Some(&mut begins.after),
            Some(stage) => Some(&mut stage.then),
            None => self.begins.as_mut().map(|begins| &mut begins.after),
        }
    }

    /// Up to where everything was told to whoever has come to what is answered now.
    pub fn told_when_answered(&self) -> Position {
        let missed = |resume: &Resume| if self.is_told_when_current() { resume.until } else { resume.from };
        if let Some(stage) = self.stages.back() {
            return stage.resume.as_ref().map_or(stage.until, missed);
        }
        if self.begins.is_some() {
            return self.resume.as_ref().map_or(self.position, missed);
        }
        // The rest of a frame comes before any answer.
        let live = Position(self.position.0 + u64::from(self.offset > 0));
        self.paces.iter().map(PacedRound::told).fold(live, Position::min)
    }

    /// Whether its client can't ask if everything is there, and is told so when it is.
    fn is_told_when_current(&self) -> bool {
        !self.places.lane.words().hears()
    }

    /// Whether what follows what its subscription begins with also waits for what it has missed.
    pub fn answers_wait_for_missed(&self) -> bool {
        self.resume.is_some() && self.is_told_when_current()
    }

    /// Puts the rest of the publication at `of` before everything else that its connection is to be sent.
    pub fn put_rest(&mut self, out: &mut Backlog, of: Position, rest: Vec<u8>) {
        (self.rest, self.rest_of) = (rest.len(), of);
        out.put_front(rest);
    }
}
