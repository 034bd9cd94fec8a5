//! Too far behind: what happens to a subscriber whose cursor has fallen off the tape, or is beyond what is allowed.
//!
//! Of names that it is to be sent every publication of, it is told (`error`, code `lagged`) and closed with 4100; it is never
//! skipped in silence. If it had stopped in the middle of a frame, the rest of that frame goes first: the worker still
//! pins the segment, and copies it before it lets go. A subscriber of newest values goes on with those, however far it is
//! behind. Here they are found; the desk tells them.
//!
//! They are found from the front of the [`Order`](super::order::Order), so that who isn't too far behind costs nothing. Where
//! thousands fall at once, a turn ends as many as it has room for; the others are not walked meanwhile, and what they need stays
//! pinned until they have been told.

use std::time::Duration;

use super::{
    super::{
        connection::{CohortId, Connection},
        connections::Connections,
        cursor::Cursor,
        fan::{delivery::Delivery, interest::Interest},
        ground::{Ground, SURVEY_EVERY},
        work::price,
    },
    Behind, Cursors, One, walk,
};
use crate::{
    clock::Moment,
    counted::counted_with,
    io::{Edge, Token},
    lane::Lane,
    tape::{Position, Reader},
};

/// Cursors that have moved on, and are looked at for one figure: 250 ms later there is another.
const LOOKS_MAX: usize = 256;

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
        let lost = counted_with(lost, "publication", ["is", "are"]);
        Lagged { token, reason: format!("too slow: {lost} no longer retained; subscribe again") }
    }
}

impl Cursors {
    /// Somebody whose next publication is no longer on the tape, if there is one and the step has room for it: whoever it is
    /// ends then. Those that are left are not walked meanwhile.
    pub fn next_fallen<E: Edge>(
        &mut self,
        ground: &mut Ground<E>,
        interest: &mut Interest,
        connections: &Connections<E::Socket>,
    ) -> Option<Lagged> {
        while self.has_fallen(ground.reader.floor()) {
            if ground.work.is_over() {
                ground.work.put_off();
                return None;
            }
            let (_, token) = self.order.oldest_needed()?;
            let needed = self.find_needed(ground, interest, connections, token);
            if let Some(needed) = needed.filter(|needed| *needed < ground.reader.floor()) {
                let cohort = connections.get(token).and_then(|connection| connection.cohort);
                let names = cohort.map_or(0, |id| interest.cohort(id).key.names.len() as u64);
                ground.work.charge(price::SEND + price::COMMAND + names * price::NAME);
                self.settle_needed(token, connections, None);
                return Some(Lagged::fallen(&ground.reader, token, needed));
            }
        }
        None
    }

    /// Whether somebody may have fallen off a tape with this floor who was not yet looked at.
    #[inline]
    pub fn has_fallen(&self, floor: Position) -> bool {
        self.order.oldest_needed().is_some_and(|(needed, _)| needed < floor)
    }

    /// The oldest position that is still looked at before somebody ends, or goes on.
    pub fn kept(&self, floor: Position) -> Position {
        self.order.oldest_needed().map_or(floor, |(needed, _)| needed.min(floor))
    }

    /// Looks from which position on somebody needs every publication, and puts it there in the order.
    fn find_needed<E: Edge>(
        &mut self,
        ground: &mut Ground<E>,
        interest: &mut Interest,
        connections: &Connections<E::Socket>,
        token: Token,
    ) -> Option<Position> {
        let connection = connections.get(token)?;
        let behind = self.of(token, connection)?;
        ground.work.charge(price::LOOK * (2 + behind.stages.len() as u64));
        let needed = next_needed(interest, connection, behind);
        self.settle_needed(token, connections, needed);
        needed
    }

    fn settle_needed<S>(&mut self, token: Token, connections: &Connections<S>, needed: Option<Position>) {
        let Some(connection) = connections.get(token) else { return };
        let Cursor::Behind(place) = connection.cursor else { return };
        let Cursors { all, order, .. } = self;
        if let Some(One { behind, .. }) = all.get_mut(place as usize) {
            order.set_needed(token, &mut behind.places, needed);
        }
    }

    /// Those that are further behind than `--lag-limit` and `--lag-limit-age` allow, if it is time to look: from the furthest
    /// behind of each lane, until one is not too far.
    pub fn beyond_limits<E: Edge>(
        &mut self,
        ground: &mut Ground<E>,
        interest: &mut Interest,
        connections: &mut Connections<E::Socket>,
    ) -> Vec<Lagged> {
        let mut beyond = Vec::new();
        if self.lag_limit_due(ground, interest).is_none_or(|due| ground.now < due) {
            return beyond;
        }
        let wall_us = ground.edge.wall_us();
        for lane in Lane::ALL {
            while let Some((place, token)) = self.order.first_needed(lane) {
                if ground.work.is_over() {
                    // It is still time to look.
                    ground.work.put_off();
                    return beyond;
                }
                let needed = self.find_needed(ground, interest, connections, token);
                if needed != Some(place) {
                    // Further on: somebody else may be the last now.
                    continue;
                }
                ground.work.charge(price::LOOK * ground.reader.pinned() as u64);
                let Some(reason) = too_far(ground, lane, place, wall_us) else { break };
                self.settle_needed(token, connections, None);
                self.stop_for_good(ground, connections, token);
                beyond.push(Lagged { token, reason });
            }
        }
        self.lag_due = ground.now + SURVEY_EVERY;
        beyond
    }

    /// A connection goes no further until it is closed, when its turn comes. The tape is not kept for it until then, so it takes the
    /// rest of the frame in which it stopped along: without that it could not be told why.
    fn stop_for_good<E: Edge>(
        &mut self,
        ground: &mut Ground<E>,
        connections: &mut Connections<E::Socket>,
        token: Token,
    ) {
        let Some(connection) = connections.get_mut(token) else { return };
        let Some(behind) = self.of_mut(token, connection) else { return };
        behind.ends = true;
        let rest = walk::rest_of_frame(ground, connection, behind).unwrap_or_default();
        if !rest.is_empty() {
            ground.work.charge(price::lines(rest.len()));
            behind.put_rest(&mut connection.out, behind.position, rest);
            (behind.position, behind.offset) = (Position(behind.position.0 + 1), 0);
            self.touch(token);
        }
    }

    /// When it is to be looked whether somebody is too far behind; never where any distance is allowed, or nobody is
    /// subscribed: who is behind then is only waited for to take its answers.
    #[inline]
    pub fn lag_limit_due<E: Edge>(&self, ground: &Ground<E>, interest: &Interest) -> Option<Moment> {
        let limited = ground.settings.lag_limit > 0 || !ground.settings.lag_limit_age.is_zero();
        (limited && !self.is_empty() && !interest.is_empty()).then_some(self.lag_due)
    }

    /// The greatest lag of a subscriber, in publications.
    pub fn lag_max<S>(&mut self, connections: &Connections<S>, reader: &Reader) -> u64 {
        let last = self.last_standing(connections, 1).first().map(|(at, _)| *at);
        last.map_or(0, |last| reader.head().0.saturating_sub(last.0))
    }

    /// The `most` subscribers furthest behind and where they stand, the last one first.
    ///
    /// Of those that have come on since the last look, so many are looked at and no more; where there are others, their places
    /// from before stand for them.
    pub fn last_standing<S>(&mut self, connections: &Connections<S>, most: usize) -> Vec<(Position, Token)> {
        for _ in 0..most + LOOKS_MAX {
            let at = |token| {
                let connection = connections.get(token)?;
                self.of(token, connection)?.subscribed_at(connection.cohort)
            };
            let moved = self.order.standing().take(most).map(|(place, token)| (place, token, at(token)));
            let Some((_, token, at)) = moved.into_iter().find(|(place, _, at)| *at != Some(*place)) else { break };
            let Some(Cursor::Behind(place)) = connections.get(token).map(|connection| connection.cursor) else { break };
            let Cursors { all, order, .. } = self;
            let Some(One { behind, .. }) = all.get_mut(place as usize) else { break };
            order.set_stands(token, &mut behind.places, at);
        }
        self.order.standing().take(most).collect()
    }
}

/// In which way somebody who needs every publication from `needed` on is beyond what is allowed, in words for it.
fn too_far<E: Edge>(ground: &Ground<E>, lane: Lane, needed: Position, wall_us: u64) -> Option<String> {
    let (reader, settings) = (&ground.reader, &ground.settings);
    if needed >= reader.head() {
        return None;
    }
    let (most, oldest) = (settings.lag_limit, settings.lag_limit_age);
    let bytes = reader.bytes_from(lane, needed);
    let ts = reader.look(needed).map_or(wall_us, |published| published.ts);
    let age = Duration::from_micros(wall_us.saturating_sub(ts));
    if most > 0 && bytes > most {
        Some(format!("too slow: {bytes} bytes behind, --lag-limit allows {most}"))
    } else if !oldest.is_zero() && age > oldest {
        let (age, oldest) = (age.as_secs_f64(), oldest.as_secs_f64());
        Some(format!("too slow: {age:.1} s behind, --lag-limit-age allows {oldest} s"))
    } else {
        None
    }
}

/// The first position from which a connection whose cursor is behind has to be sent every publication; none if it has no such
/// subscription there or later, so that the tape may roll on without it.
pub fn next_needed<S>(interest: &mut Interest, connection: &Connection<S>, behind: &Behind) -> Option<Position> {
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
