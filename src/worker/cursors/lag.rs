//! Falling off the tape: what happens to a subscriber that is further behind than `--retain` holds.
//!
//! Of names that it is to be sent every publication of, it is told (`error`, code `lagged`) and closed with 4100; it is never
//! skipped in silence. If it had stopped in the middle of a frame, the rest of that frame goes first: the worker still
//! pins the segment, and copies it before it lets go. A subscriber of newest values goes on with those, however far it is
//! behind.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::super::{
    SURVEY_EVERY, Worker,
    closing::Farewell,
    connection::Connection,
    fan::{
        delivery::Delivery,
        interest::{CohortId, Newest},
    },
};
use crate::{
    clock::Moment,
    io::{Edge, Token},
    tape::Position,
    websocket::CloseCode,
};

/// Topics that are looked at under one hold of the tape's lock.
const LOOK_AT_ONCE: u32 = 256;

impl<E: Edge> Worker<E> {
    /// Closes every connection whose next publication is no longer on the tape.
    pub fn drop_fallen(&mut self) {
        let floor = self.reader.floor();
        if floor == self.checked_floor {
            return;
        }
        self.checked_floor = floor;
        for token in self.alone.clone() {
            if let Some(needed) = self.next_needed(token).filter(|needed| *needed < floor) {
                self.lagged(token, needed);
            }
        }
        if self.position < floor {
            self.jump_to(floor);
        } else {
            for (id, ticket) in self.line.clone() {
                let cohort = self.interest.with_ticket(id, ticket);
                let fallen = cohort.map_or_else(Vec::new, |cohort| cohort.column.fallen(floor));
                self.fall_off(id, fallen);
            }
        }
    }

    /// Members of a cohort in march were to be sent something, each from its position on, that is gone.
    fn fall_off(&mut self, id: CohortId, fallen: Vec<(Token, Position)>) {
        if fallen.is_empty() {
            return;
        }
        let in_full = self.interest.cohort(id).has(|delivery| delivery == Delivery::All);
        for (token, missed) in fallen {
            if in_full {
                self.lagged(token, missed);
            } else {
                self.leave_march_at(token, missed);
                self.march_of(token).slow = true;
                self.list(token);
            }
        }
    }

    /// Closes every connection that is further behind than `--lag-limit` and `--lag-limit-age` allow.
    pub fn enforce_lag_limit(&mut self) {
        if self.lag_limit_due().is_none_or(|due| self.now < due) {
            return;
        }
        self.lag_due = self.now + SURVEY_EVERY;
        let wall_us = self.edge.wall_us();
        for token in self.alone.clone() {
            let Some(needed) = self.next_needed(token).filter(|needed| *needed < self.reader.head()) else { continue };
            let bytes = self.reader.bytes_from(self.connections[token as usize].lane(), needed);
            let mut ts = wall_us;
            self.reader.look(needed, |_, entry| ts = entry.ts);
            let age = Duration::from_micros(wall_us.saturating_sub(ts));
            let (most, oldest) = (self.settings.lag_limit, self.settings.lag_limit_age);
            if most > 0 && bytes > most {
                self.tell_lagged(token, &format!("too slow: {bytes} bytes behind, --lag-limit allows {most}"));
            } else if !oldest.is_zero() && age > oldest {
                let (age, oldest) = (age.as_secs_f64(), oldest.as_secs_f64());
                self.tell_lagged(token, &format!("too slow: {age:.1} s behind, --lag-limit-age allows {oldest} s"));
            }
        }
    }

    /// When it is to be looked whether somebody is too far behind; never where any distance is allowed, or nobody is
    /// subscribed: who is alone then is only waited for to take its answers.
    pub fn lag_limit_due(&self) -> Option<Moment> {
        let limited = self.settings.lag_limit > 0 || !self.settings.lag_limit_age.is_zero();
        (limited && !self.alone.is_empty() && !self.interest.is_empty()).then_some(self.lag_due)
    }

    /// The worker itself was held up for longer than the tape holds: nobody in the march got what is gone.
    fn jump_to(&mut self, floor: Position) {
        let missed = self.position;
        for id in self.interest.cohort_ids() {
            let column = &self.interest.cohort(id).column;
            let from = |(place, token)| (token, column.position(place as u32).unwrap_or(missed));
            let fallen = column.tokens().enumerate().map(from).collect();
            self.fall_off(id, fallen);
        }
        self.position = floor;
        // Of topics that go on behind the floor, what was before that is gone: the number before the first one there.
        let mut first = FxHashMap::default();
        self.reader.scan(floor, self.reader.head(), |_, _, entry| {
            first.entry(entry.topic.slot).or_insert((entry.previous, entry.seq - 1));
            true
        });
        let slots = self.tape.with_topics(|topics, _| topics.slots());
        for from in (0..slots).step_by(LOOK_AT_ONCE as usize) {
            let Worker { tape, interest, .. } = self;
            tape.with_topics(|topics, _| {
                for topic in (from..slots.min(from + LOOK_AT_ONCE)).filter_map(|slot| topics.at(slot)) {
                    let (end, seq) = first.get(&topic.id.slot).copied().unwrap_or((topic.end, topic.seq));
                    if end > missed.0 && end <= floor.0 {
                        let origin = if end == topic.end { topic.origin } else { 0 };
                        let newest = Newest { end: Position(end), seq, origin };
                        interest.note_missed(topic.id, &topic.name, newest);
                    }
                }
            });
        }
        for id in self.interest.cohort_ids() {
            for n in 0..self.interest.cohort(id).paces.len() {
                self.interest.restart(id, n, floor);
            }
        }
    }

    /// The first position from which a connection that marches alone has to be sent every publication; none if it has no
    /// such subscription there or later, so that the tape may roll on without it.
    fn next_needed(&mut self, token: Token) -> Option<Position> {
        let Worker { interest, connections, .. } = self;
        let connection = &connections[token as usize];
        let march = connection.march.as_ref()?;
        let mut in_full = |cohort| interest.cohort(cohort).has(|delivery| delivery == Delivery::All);
        // What it goes back to may be before where it is.
        let missed = march.stages.iter().filter_map(|stage| stage.resume.as_ref()).map(|resume| resume.from).min();
        let mut at = march.position;
        let mut next = march.resume.as_ref().map(|_| at);
        for stage in &march.stages {
            next = next.or_else(|| stage.cohort.filter(|_| at < stage.until).filter(|id| in_full(*id)).map(|_| at));
            at = at.max(stage.until);
        }
        let next = next.or_else(|| connection.cohort.filter(|id| in_full(*id)).map(|_| at));
        missed.into_iter().chain(next).min()
    }

    fn lagged(&mut self, token: Token, behind: Position) {
        let lost = self.reader.floor().0 - behind.0;
        self.tell_lagged(token, &format!("too slow: {lost} publications are no longer retained; subscribe again"));
    }

    fn tell_lagged(&mut self, token: Token, text: &str) {
        let told = self.connections[token as usize].speaks.tells();
        self.close(token, Farewell { code: Some(CloseCode::LAGGED), reason: text, error: told.then_some("lagged") });
    }

    /// The greatest lag of a subscriber, in publications.
    pub fn lag_max(&self) -> u64 {
        let last = self.alone.iter().filter_map(|token| self.connections[*token as usize].cursor()).min();
        last.map_or(0, |last| self.reader.head().0.saturating_sub(last.0))
    }
}

impl<S> Connection<S> {
    /// Where a subscriber that marches alone stands.
    pub fn cursor(&self) -> Option<Position> {
        let march = self.march.as_ref()?;
        let subscribed = self.cohort.is_some() || march.stages.iter().any(|stage| stage.cohort.is_some());
        subscribed.then_some(march.position)
    }
}
