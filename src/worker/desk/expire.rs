//! What a worker does because nothing happened: timeouts, heartbeats, and looks at who is silent.

use std::time::Duration;

use super::{
    super::{
        connection::{Connection, Phase, Ping},
        cursor::Cursor,
        work::price,
    },
    Clerk,
    closing::Farewell,
};
use crate::{
    clock::Moment,
    io::{Edge, Token},
    protocol::Reply,
    websocket::CloseCode,
};

/// How often, at most, it is looked at how a connection with a full socket does, where there is no idle timeout.
const FULL_LOOK_EVERY: Duration = Duration::from_secs(4);

impl<E: Edge> Clerk<'_, E> {
    /// Looks at the connections whose timers have come, as many as a turn allows: a quarter of what it has is for finding
    /// out who they are, and addresses take turns.
    pub fn expire(&mut self) {
        let (rest, all) = (self.spare() / 2, self.spare());
        while self.spare() > all - all / 4
            && let Some(token) = self.desk.timers.pop(self.ground.now)
        {
            self.ground.work.charge(price::TURN);
            if let Some(connection) = self.connections.get_mut(token) {
                connection.timer = None;
                self.desk.due.push(connection.group(), token);
            }
        }
        while self.spare() > rest
            && let Some(token) = self.desk.due.next()
        {
            self.ground.work.charge(price::TURN);
            // One that has gone meanwhile, or has a new timer, is passed by.
            if self.connections.get(token).is_some_and(|connection| connection.timer.is_none()) {
                self.time_out(token);
                self.set_timer(token);
            }
        }
        if !self.desk.due.is_empty() || self.desk.timers.until_next(self.ground.now) == Some(Duration::ZERO) {
            self.ground.work.put_off();
        }
    }

    /// Sets a connection's timer to the next moment at which something could be due.
    pub fn set_timer(&mut self, token: Token) {
        self.clear_timer(token);
        let Some(due) = self.next_due(token) else { return };
        if let Some(connection) = self.connections.get_mut(token) {
            connection.timer = Some(self.desk.timers.set(token, due));
        }
    }

    /// Takes a connection's timer out, before the connection goes or its timer is set anew.
    pub fn clear_timer(&mut self, token: Token) {
        let entry = self.connections.get_mut(token).and_then(|connection| connection.timer.take());
        let Some(entry) = entry else { return };
        self.desk.timers.remove(entry, |moved, entry| {
            if let Some(moved) = self.connections.get_mut(moved) {
                moved.timer = Some(entry);
            }
        });
    }

    fn next_due(&mut self, token: Token) -> Option<Moment> {
        let sent = self.last_sent(token)?;
        let settings = &self.ground.settings;
        let connection = self.connections.get(token)?;
        Some(match connection.phase {
            Phase::Request => connection.since + settings.handshake_timeout,
            Phase::Between => connection.since + settings.keep_alive_timeout,
            Phase::Answering | Phase::AnsweringLast => {
                let due = self.desk.exchanges.next_due(token, settings.close_timeout);
                due.min(self.rights_due(connection)).max(self.ground.now)
            }
            Phase::Closing | Phase::Ending => {
                (connection.since + settings.close_timeout).max(self.ground.now + settings.close_timeout / 4)
            }
            Phase::Open if connection.full => {
                let look = self.ground.now + settings.idle_timeout.max(FULL_LOOK_EVERY) / 4;
                look.min(self.rights_due(connection)).max(self.ground.now)
            }
            Phase::Open => {
                let words = connection.lane.words();
                let heartbeat = match settings.heartbeat {
                    beat if !beat.is_zero() && words.tells() => in_turn(connection.id, sent, beat),
                    _ => Moment::NEVER,
                };
                let idle = match settings.idle_timeout {
                    timeout if timeout.is_zero() => Moment::NEVER,
                    timeout if connection.ping == Ping::None && words.hears() => ping_due(connection, timeout),
                    timeout => connection.heard + timeout,
                };
                // A moment that is past already has been dealt with; look again soon.
                heartbeat.min(idle).min(self.rights_due(connection)).max(self.ground.now)
            }
        })
    }

    fn time_out(&mut self, token: Token) {
        let (settings, now) = (&self.ground.settings, self.ground.now);
        let Some(connection) = self.connections.get(token) else { return };
        match connection.phase {
            Phase::Request if now >= connection.since + settings.handshake_timeout => {
                self.check_request(token);
            }
            Phase::Between if now >= connection.since + settings.keep_alive_timeout => self.end_kept(token),
            Phase::Answering | Phase::AnsweringLast => self.check_exchange(token),
            Phase::Closing | Phase::Ending if now >= connection.since + settings.close_timeout => {
                self.check_closing(token);
            }
            Phase::Open if self.ground.edge.is_worn(&connection.socket) => self.end_worn(token),
            Phase::Open => self.see_to_open(token),
            _ => {}
        }
    }

    /// Looks at an open connection: whether it still may, and is there, and has something to say.
    fn see_to_open(&mut self, token: Token) {
        if !self.see_to_rights(token) {
            self.check_alive(token);
            self.beat(token);
        }
    }

    /// Sends a client away, and back, whose socket can't be sent to for much longer.
    fn end_worn(&mut self, token: Token) {
        self.tell_draining(token);
        let reason = "as much was encrypted for this connection as may be: come back";
        self.close(token, Farewell { code: Some(CloseCode::GOING_AWAY), reason, error: None });
    }

    /// Sends a heartbeat, if nothing was sent for so long.
    fn beat(&mut self, token: Token) {
        let (beat, now) = (self.ground.settings.heartbeat, self.ground.now);
        let is_due = |connection: &Connection<E::Socket>| {
            connection.phase == Phase::Open && !connection.full && connection.lane.words().tells()
        };
        let Some(id) = self.connections.get(token).filter(|it| is_due(it)).map(|connection| connection.id) else {
            return;
        };
        if beat.is_zero() || self.last_sent(token).is_none_or(|sent| now < in_turn(id, sent, beat)) {
            return;
        }
        let ts = self.ground.edge.wall_us();
        let cursor = self.cursor(token);
        self.reply(token, &Reply::Heartbeat { ts, cursor });
        // Sent at the next flush; until then it counts as sent, so that no second one follows.
        if let Some(connection) = self.connections.get_mut(token) {
            connection.sent = now;
        }
    }

    /// When a connection was last sent something: an answer, or a publication alone or with its cohort.
    fn last_sent(&mut self, token: Token) -> Option<Moment> {
        let connection = self.connections.get(token)?;
        Some(match connection.cohort.filter(|_| !matches!(connection.cursor, Cursor::Behind(_))) {
            Some(cohort) => connection.sent.max(self.fan.interest.cohort(cohort).last_sent),
            None => connection.sent,
        })
    }
}

/// When a connection is to be pinged of which nothing has been heard since `connection.heard`.
pub fn ping_due<S>(connection: &Connection<S>, idle: Duration) -> Moment {
    in_turn(connection.id, connection.heard, idle / 2)
}

/// A moment at most `period` after `last` and at least half of it, so that those don't all come at once for whom the same
/// happened at once: each connection has its own moment in every half period, and the last of those is taken. So whatever goes
/// on from there goes on in whole periods, and just as spread out.
fn in_turn(id: u64, last: Moment, period: Duration) -> Moment {
    let (latest, half) = (last + period, (period.as_nanos() as u64 / 2).max(1));
    // Numbers are given out in order. (The golden ratio's multiples are spread evenly.)
    let own = ((u128::from(id.wrapping_mul(0x9e37_79b9_7f4a_7c15)) * u128::from(half)) >> 64) as u64;
    Moment(latest.0 - latest.0.wrapping_sub(own) % half)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(15);

    #[test]
    fn what_is_due_for_thousands_after_the_same_moment_comes_evenly_over_half_a_period_and_never_late() {
        let last = Moment(1_234_567_890_123);
        let mut by_tenth = [0; 10];
        for id in (1 << 48) + 1..(1 << 48) + 10_001 {
            let due = in_turn(id, last, PERIOD);
            let after = due.since(last);
            assert!(after > PERIOD / 2 && after <= PERIOD, "{after:?}");
            by_tenth[(after - PERIOD / 2).as_nanos() as usize * 10 / (PERIOD.as_nanos() as usize / 2 + 1)] += 1;
            // A moment late, and for ever: a whole period, no more and no less.
            let late = due + Duration::from_millis(90);
            assert_eq!(in_turn(id, late, PERIOD).since(due), PERIOD);
        }
        assert!(by_tenth.iter().all(|count| (900..1100).contains(count)), "{by_tenth:?}");
    }

    #[test]
    fn the_shortest_and_the_longest_periods_have_moments() {
        for period in [1, 2, 500_000_000, u64::MAX / 4] {
            let after = in_turn(7, Moment(5), Duration::from_nanos(period)).since(Moment(5));
            assert!(
                after.as_nanos() as u64 <= period && after.as_nanos() as u64 >= period / 2,
                "{after:?} of {period}"
            );
        }
    }
}
