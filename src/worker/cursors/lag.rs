//! Too far behind: what happens to a subscriber whose cursor has fallen off the tape, or is beyond what is allowed.
//!
//! Of names that it is to be sent every publication of, it is told (`error`, code `lagged`) and closed with 4100; it is never
//! skipped in silence. If it had stopped in the middle of a frame, the rest of that frame goes first: the worker still
//! pins the segment, and copies it before it lets go. A subscriber of newest values goes on with those, however far it is
//! behind. Here they are found; the desk tells them.

use std::time::Duration;

use super::{
    super::{
        connection::{CohortId, Connection},
        connections::Connections,
        fan::{delivery::Delivery, interest::Interest},
        ground::{Ground, SURVEY_EVERY},
    },
    Behind, Cursors, One,
};
use crate::{
    clock::Moment,
    io::{Edge, Token},
    tape::{Position, Reader},
};

/// A subscriber that is too far behind.
pub struct Lagged {
    pub token: Token,
    /// How far that is, in words for it.
    pub reason: String,
}

impl Lagged {
    /// Whose next publication at `missed` is no longer on the tape.
    pub fn fallen(reader: &Reader, token: Token, missed: Position) -> Lagged {
        let lost = reader.floor().0 - missed.0;
        Lagged { token, reason: format!("too slow: {lost} publications are no longer retained; subscribe again") }
    }
}

impl Cursors {
    /// Those whose next publication is no longer on the tape.
    pub fn fallen<S>(&self, interest: &mut Interest, connections: &Connections<S>, reader: &Reader) -> Vec<Lagged> {
        let mut fallen = Vec::new();
        for One { token, behind } in &self.all {
            let Some(connection) = connections.get(*token) else { continue };
            if let Some(needed) = next_needed(interest, connection, behind).filter(|needed| *needed < reader.floor()) {
                fallen.push(Lagged::fallen(reader, *token, needed));
            }
        }
        fallen
    }

    /// Those that are further behind than `--lag-limit` and `--lag-limit-age` allow, if it is time to look.
    pub fn beyond_limits<E: Edge>(
        &mut self,
        ground: &Ground<E>,
        interest: &mut Interest,
        connections: &Connections<E::Socket>,
    ) -> Vec<Lagged> {
        let mut beyond = Vec::new();
        if self.lag_limit_due(ground, interest).is_none_or(|due| ground.now < due) {
            return beyond;
        }
        self.lag_due = ground.now + SURVEY_EVERY;
        let wall_us = ground.edge.wall_us();
        let (reader, settings) = (&ground.reader, &ground.settings);
        let (most, oldest) = (settings.lag_limit, settings.lag_limit_age);
        for One { token, behind } in &self.all {
            let Some(connection) = connections.get(*token) else { continue };
            let Some(needed) = next_needed(interest, connection, behind).filter(|needed| *needed < reader.head())
            else {
                continue;
            };
            let bytes = reader.bytes_from(connection.lane, needed);
            let ts = reader.look(needed).map_or(wall_us, |published| published.ts);
            let age = Duration::from_micros(wall_us.saturating_sub(ts));
            let reason = if most > 0 && bytes > most {
                format!("too slow: {bytes} bytes behind, --lag-limit allows {most}")
            } else if !oldest.is_zero() && age > oldest {
                let (age, oldest) = (age.as_secs_f64(), oldest.as_secs_f64());
                format!("too slow: {age:.1} s behind, --lag-limit-age allows {oldest} s")
            } else {
                continue;
            };
            beyond.push(Lagged { token: *token, reason });
        }
        beyond
    }

    /// When it is to be looked whether somebody is too far behind; never where any distance is allowed, or nobody is
    /// subscribed: who is behind then is only waited for to take its answers.
    #[inline]
    pub fn lag_limit_due<E: Edge>(&self, ground: &Ground<E>, interest: &Interest) -> Option<Moment> {
        let limited = ground.settings.lag_limit > 0 || !ground.settings.lag_limit_age.is_zero();
        (limited && !self.is_empty() && !interest.is_empty()).then_some(self.lag_due)
    }

    /// The greatest lag of a subscriber, in publications.
    pub fn lag_max<S>(&self, connections: &Connections<S>, reader: &Reader) -> u64 {
        let at = |one: &One| one.behind.subscribed_at(connections.get(one.token)?.cohort);
        let last = self.all.iter().filter_map(at).min();
        last.map_or(0, |last| reader.head().0.saturating_sub(last.0))
    }
}

/// The first position from which a connection whose cursor is behind has to be sent every publication; none if it has no such
/// subscription there or later, so that the tape may roll on without it.
fn next_needed<S>(interest: &mut Interest, connection: &Connection<S>, behind: &Behind) -> Option<Position> {
    let mut in_full = |cohort: &CohortId| interest.cohort(*cohort).has(|delivery| delivery == Delivery::All);
    // What it goes back to may be before where it is.
    let missed = behind.stages.iter().filter_map(|stage| stage.resume.as_ref()).map(|resume| resume.from).min();
    let mut at = behind.position;
    let mut next = behind.resume.as_ref().map(|_| at);
    for stage in &behind.stages {
        next = next.or_else(|| stage.cohort.filter(|_| at < stage.until).filter(&mut in_full).map(|_| at));
        at = at.max(stage.until);
    }
    let next = next.or_else(|| connection.cohort.filter(&mut in_full).map(|_| at));
    missed.into_iter().chain(next).min()
}
