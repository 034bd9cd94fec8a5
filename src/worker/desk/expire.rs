//! What a worker does because nothing happened: timeouts, heartbeats, and looks at who is silent.

use std::time::Duration;

use super::{
    super::{
        connection::{Connection, Phase, Ping},
        cursor::Cursor,
    },
    Clerk, Desk,
};
use crate::{
    clock::Moment,
    io::{Edge, Token},
    protocol::Reply,
};

/// How often, at most, it is looked at how a connection with a full socket does, where there is no idle timeout.
const FULL_LOOK_EVERY: Duration = Duration::from_secs(4);

/// Connections whose timers are dealt with in one turn: each costs a send or a question to the kernel, some microseconds. The
/// others are due still in the next turn, which follows at once.
const DUE_MAX: usize = 256;

impl<E: Edge> Clerk<'_, E> {
    /// Looks at the connections whose timers have come, as many as a turn allows.
    pub fn expire(&mut self) {
        let Desk { timers, due, .. } = &mut *self.desk;
        let known = due.len();
        timers.expire(self.ground.now, due);
        for token in due.iter().skip(known) {
            if let Some(connection) = self.connections.get_mut(*token) {
                connection.timer = None;
            }
        }
        let mut left = DUE_MAX;
        while left > 0
            && let Some(token) = self.desk.due.pop_front()
        {
            // One that has gone meanwhile, or has a new timer, is passed by.
            if self.connections.get(token).is_some_and(|connection| connection.timer.is_none()) {
                self.time_out(token);
                self.set_timer(token);
                left -= 1;
            }
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
            Phase::Closing | Phase::Ending => {
                (connection.since + settings.close_timeout).max(self.ground.now + settings.close_timeout / 4)
            }
            Phase::Open if connection.full => self.ground.now + settings.idle_timeout.max(FULL_LOOK_EVERY) / 4,
            Phase::Open => {
                let words = connection.lane.words();
                let heartbeat = match settings.heartbeat {
                    beat if !beat.is_zero() && words.tells() => sent + beat,
                    _ => Moment::NEVER,
                };
                let idle = match settings.idle_timeout {
                    timeout if timeout.is_zero() => Moment::NEVER,
                    timeout if connection.ping == Ping::None && words.hears() => connection.heard + timeout / 2,
                    timeout => connection.heard + timeout,
                };
                // A moment that is past already has been dealt with; look again soon.
                heartbeat.min(idle).max(self.ground.now)
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
            Phase::Closing | Phase::Ending if now >= connection.since + settings.close_timeout => {
                self.check_closing(token);
            }
            Phase::Open => {
                self.check_alive(token);
                self.beat(token);
            }
            _ => {}
        }
    }

    /// Sends a heartbeat, if nothing was sent for so long.
    fn beat(&mut self, token: Token) {
        let (beat, now) = (self.ground.settings.heartbeat, self.ground.now);
        let is_due = |connection: &Connection<E::Socket>| {
            connection.phase == Phase::Open && !connection.full && connection.lane.words().tells()
        };
        if beat.is_zero()
            || !self.connections.get(token).is_some_and(is_due)
            || self.last_sent(token).is_none_or(|sent| now < sent + beat)
        {
            return;
        }
        let ts = self.ground.edge.wall_us();
        self.reply(token, &Reply::Heartbeat { ts });
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
