//! The desk: what connections say and are told, from their requests to their ends.
//!
//! It takes sockets over (`arrivals`), reads what comes on them, and does what is asked for: requests and upgrades (`requests`),
//! frames and commands (`messages`), as often as they may come (`quota`), subscriptions with their snapshots and resume points
//! (`subscribe`, `collect`, `points`). What can't be done at once goes on over turns (`asking`). What it has to say goes out between publications (`answers`), and a connection's end is its affair
//! whoever found it (`closing`, `draining`). It looks after those of whom nothing is heard (`expire`, `alive`).
//!
//! It asks the fan and the cursors to take a connection or let it go, and neither of them knows of it.

mod alive;
mod answers;
mod arrivals;
mod asking;
mod closing;
mod collect;
mod draining;
mod expire;
mod messages;
mod points;
mod quota;
mod requests;
mod subscribe;

use std::{collections::VecDeque, time::Duration};

use crossbeam_channel::Receiver;

use self::{asking::Asking, draining::Draining};
use super::{
    connection::{Phase, Ping},
    connections::{Connections, Handle},
    cursors::Cursors,
    fan::Fan,
    ground::Ground,
    timers::Timers,
};
use crate::{
    clock::Moment,
    handover::{Inbox, Message},
    io::{Edge, Ready, Received, Token},
    metrics::Refusal,
    slack::{KEPT_BY_THREAD, Slack},
    websocket::Violation,
};

/// Bytes taken from one connection in one turn, so that a busy one can't starve the rest.
pub const READ_BYTES: usize = 128 * 1024;

/// Bytes taken from all connections together in one turn, less what was planned before and is still on its way: what they
/// publish has to be sent before the tape rolls over it.
pub const READ_TURN_BYTES: usize = 256 * 1024;

/// See the module's description.
pub struct Desk<S> {
    /// Sockets that come from other threads, and where those go that are not for a worker.
    pub inbox: Receiver<Message<S>>,
    control: Inbox<S>,
    /// Connections made so far.
    made: u64,
    pub timers: Timers,
    /// Connections whose timers have come.
    due: VecDeque<Token>,
    /// Something was published in this turn, and others are to be woken.
    published: bool,
    pub draining: Option<Draining>,
    /// What was asked for and waits to be done.
    pub asking: Asking,
    /// Connections with answers to flush.
    answered: Waiting,
    /// Connections whose peers broke the rules, or sent what there is no room for, in this turn.
    doomed: VecDeque<(Handle, Doom)>,
}

/// Whoever works at the desk: it, and what it reaches down to.
pub struct Clerk<'w, E: Edge> {
    pub desk: &'w mut Desk<E::Socket>,
    pub ground: &'w mut Ground<E>,
    pub connections: &'w mut Connections<E::Socket>,
    pub fan: &'w mut Fan,
    pub cursors: &'w mut Cursors,
}

/// Why a connection is failed.
enum Doom {
    Violation(Violation),
    /// Its unfinished message is one too many.
    Full(Refusal),
}

/// Connections that wait for something, the first one first.
#[derive(Debug, Default)]
struct Waiting(VecDeque<Token>);

impl<S> Desk<S> {
    pub fn new(inbox: Receiver<Message<S>>, control: Inbox<S>, now: Moment) -> Desk<S> {
        Desk {
            inbox,
            control,
            made: 0,
            timers: Timers::new(now),
            due: VecDeque::new(),
            published: false,
            draining: None,
            asking: Asking::default(),
            answered: Waiting::default(),
            doomed: VecDeque::new(),
        }
    }

    /// Whether there is something to do at once.
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.asking.is_busy() || !self.answered.0.is_empty() || !self.due.is_empty() || !self.doomed.is_empty()
    }

    /// How long until there is something to do because nothing happened.
    #[inline]
    pub fn next_due(&self, now: Moment) -> Option<Duration> {
        let stop = self.draining.as_ref().map(|draining| draining.until.since(now));
        stop.into_iter().chain(self.timers.until_next(now)).min()
    }

    /// Gives back room that was needed once.
    pub fn give_back(&mut self) {
        let lists: [&mut dyn Slack; 3] = [&mut self.due, &mut self.answered.0, &mut self.doomed];
        lists.into_iter().for_each(|list| list.give_back(KEPT_BY_THREAD));
        self.asking.give_back();
    }
}

impl<E: Edge> Clerk<'_, E> {
    /// Reads what has come, as much as one turn takes, into `buffer`, one connection after the other.
    pub fn read_all(&mut self, ready: &[Ready], buffer: &mut [u8]) {
        let room = if self.fan.is_crowded() { 0 } else { READ_TURN_BYTES.saturating_sub(self.fan.planned_bytes()) };
        let most = self.ground.metrics.received_bytes.get() + room as u64;
        for event in ready {
            if event.writable {
                self.has_room(event.token);
            }
            // Those that are left out are ready again in the next turn, and come first then.
            if event.readable && self.ground.metrics.received_bytes.get() < most {
                self.read_one(event.token, buffer);
            }
        }
    }

    fn read_one(&mut self, token: Token, buffer: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        match self.ground.edge.receive(&mut connection.socket, buffer) {
            Received::Bytes(n) => {
                connection.heard = self.ground.now;
                connection.ping = Ping::None;
                self.ground.metrics.received_bytes.add(n as u64);
                match connection.phase {
                    Phase::Request => self.feed_request(token, &buffer[..n]),
                    // What comes on a stream of events is nothing that anybody waits for.
                    Phase::Open if !connection.lane.words().hears() => {}
                    Phase::Open | Phase::Closing => self.feed(token, &mut buffer[..n]),
                    Phase::Ending => {}
                }
            }
            Received::Nothing => {}
            Received::End if self.ends_later(token, None) => {}
            Received::End => self.ended(token),
            Received::Broken(why) => self.lost(token, why),
        }
    }

    /// Wakes the workers that sleep, if this turn has published anything.
    pub fn wake_others(&mut self) {
        if std::mem::take(&mut self.desk.published) {
            self.ground.shared.publisher.wake();
        }
    }
}

impl Waiting {
    fn push(&mut self, token: Token) {
        self.0.push_back(token);
    }

    /// The next of those that were waiting when there were `left` of them: whoever comes meanwhile stays for the next time.
    fn next(&mut self, left: &mut usize) -> Option<Token> {
        *left = left.checked_sub(1)?;
        self.0.pop_front()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl<S> Desk<S> {
    /// Asserts that the lists and the connections agree, between two turns.
    pub fn invariants(&self, connections: &Connections<S>) {
        use super::connection::Undone;
        let (mut timed, mut asked) = (0, 0);
        let turns: std::collections::HashSet<Token> = self.asking.tokens().collect();
        for (token, connection) in connections.iter() {
            timed += usize::from(connection.timer.is_some());
            assert!(
                connection.timer.is_some() || self.due.contains(&token),
                "a connection has a timer, or it has come"
            );
            asked += usize::from(connection.undone != Undone::Nothing);
            let has_turn = connection.undone != Undone::Waits || turns.contains(&token);
            assert!(has_turn, "whoever has something to be done has a turn, or is waited for");
            assert!(!connection.answered || self.answered.0.contains(&token), "whoever has answers is on the list");
            assert!(
                connection.id > 0 && connection.id & 0xffff_ffff_ffff <= self.made,
                "numbers are given out in order"
            );
        }
        assert_eq!(self.timers.len(), timed, "a timer for each connection that has one, and no other");
        assert_eq!(
            (self.asking.waiting().0, self.asking.len()),
            (asked, asked),
            "each of those for whom something waits is counted"
        );
        assert!(self.doomed.is_empty(), "those that are to be failed were");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_put_on_a_list_while_it_is_gone_through_stays_on_it() {
        let mut answered = Waiting::default();
        (0..3).for_each(|token| answered.push(token));
        let mut left = answered.len();
        let mut seen = Vec::new();
        while let Some(token) = answered.next(&mut left) {
            seen.push(token);
            answered.push(token + 10);
        }
        assert_eq!((seen, answered.0), (vec![0, 1, 2], VecDeque::from([10, 11, 12])));
    }
}
