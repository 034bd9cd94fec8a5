//! The desk: what connections say and are told, from their requests to their ends.
//!
//! It takes sockets over (`arrivals`), reads what comes on them (`reading`), and does what is asked for: requests and upgrades
//! (`requests`), frames and commands (`messages`), compressed ones, too (`inflating`), as often as they may come (`quota`), subscriptions with their snapshots and
//! resume points (`subscribe`, `collect`, `points`). What can't be done at once goes on over turns (`asking`). Over plain HTTP it answers
//! requests that only a worker can (`exchange`): polls (`poll`), and what the tape has of a topic (`history`). What it has to say
//! goes out between publications (`answers`), and a connection's end is its affair whoever found it (`closing`, `draining`), also
//! what it leaves (`leaving`). What somebody may is asked and looked after in `rights`. What they hold is counted (`held`), and what happens to them is noted (`noting`). It looks after those of whom nothing is heard (`expire`, `alive`), and shows them to operators
//! (`shown`).
//!
//! It asks the fan and the cursors to take a connection or let it go, and neither of them knows of it.

mod alive;
mod answers;
mod arrivals;
mod asking;
mod closing;
mod collect;
mod draining;
mod exchange;
mod expire;
mod finds;
mod held;
mod history;
mod inflating;
mod leaving;
mod messages;
mod noting;
mod points;
mod poll;
mod quota;
mod reading;
mod requests;
mod rights;
mod shown;
mod subscribe;

use std::{collections::VecDeque, time::Duration};

use crossbeam_channel::Receiver;

#[cfg(all(test, not(loom)))]
pub use self::reading::READ_TURN_BYTES;
use self::{
    asking::Asking, draining::Draining, exchange::Exchanges, held::Held, inflating::Inflating, leaving::Parted,
    reading::Reading, rights::Rights,
};
pub use self::{noting::Round, reading::READ_BYTES};
#[cfg(all(any(test, fuzzing), not(loom)))]
use super::connection::CohortId;
use super::{
    connections::{Connections, Handle},
    cursors::Cursors,
    fan::Fan,
    ground::Ground,
    timers::Timers,
    work::price,
};
use crate::{
    clock::Moment,
    handover::{Inbox, Message},
    io::Edge,
    metrics::Refusal,
    rota::Rota,
    slack::{KEPT_BY_THREAD, Slack},
    websocket::Violation,
};

/// See the module's description.
pub struct Desk<S> {
    /// Sockets that come from other threads, and where those go that are not for a worker.
    pub inbox: Receiver<Message<S>>,
    control: Inbox<S>,
    /// Connections made so far.
    made: u64,
    pub timers: Timers,
    pub reading: Reading,
    /// Connections whose timers have come.
    due: Rota,
    /// Something was published in this turn, and others are to be woken.
    published: bool,
    pub draining: Option<Draining>,
    /// What was asked for and waits to be done.
    pub asking: Asking,
    /// Requests over plain HTTP that are being answered.
    pub exchanges: Exchanges,
    /// Connections with answers to flush.
    answered: Rota,
    /// Connections whose peers broke the rules, sent what there is no room for, or are too far behind.
    doomed: VecDeque<(Handle, Doom)>,
    /// What those had who have left.
    parted: VecDeque<Parted>,
    held: Held,
    /// Who has had a line in the audit.
    pub round: Round,
    /// Who is to be looked at because of rights.
    rights: Rights,
    inflating: Inflating,
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
    /// It is further behind than is allowed; in words for it.
    Lags(String),
}

impl<S> Desk<S> {
    pub fn new(inbox: Receiver<Message<S>>, control: Inbox<S>, round: Round, now: Moment) -> Desk<S> {
        Desk {
            inbox,
            control,
            made: 0,
            timers: Timers::new(now),
            reading: Reading::default(),
            due: Rota::default(),
            published: false,
            draining: None,
            asking: Asking::default(),
            exchanges: Exchanges::default(),
            answered: Rota::default(),
            doomed: VecDeque::new(),
            parted: VecDeque::new(),
            held: Held::default(),
            round,
            rights: Rights::default(),
            inflating: Inflating::default(),
        }
    }

    /// Whether there is something to do at once.
    #[inline]
    pub fn is_busy(&self) -> bool {
        let lists = [self.answered.is_empty(), self.due.is_empty(), self.doomed.is_empty(), self.parted.is_empty()];
        let draining = self.draining.as_ref().is_some_and(Draining::is_busy);
        lists.contains(&false)
            || self.held.is_busy()
            || self.rights.is_busy()
            || self.reading.is_busy()
            || self.asking.is_busy()
            || draining
    }

    /// How long until there is something to do because nothing happened.
    #[inline]
    pub fn next_due(&self, now: Moment) -> Option<Duration> {
        let stop = self.draining.as_ref().map(|draining| draining.until().since(now));
        let round = (self.round.due < Moment::NEVER).then(|| self.round.due.since(now));
        let reading = self.reading.next_due().map(|due| due.since(now));
        [stop, round, self.timers.until_next(now), reading].into_iter().flatten().min()
    }

    /// Gives back room that was needed once.
    pub fn give_back(&mut self) {
        [&mut self.due, &mut self.answered].into_iter().for_each(Rota::give_back);
        self.held.give_back();
        let lists: [&mut dyn Slack; 2] = [&mut self.doomed, &mut self.parted];
        lists.into_iter().for_each(|list| list.give_back(KEPT_BY_THREAD));
        self.reading.give_back();
        self.asking.give_back();
        self.exchanges.give_back();
        self.inflating.give_back();
    }
}

impl<E: Edge> Clerk<'_, E> {
    /// What a step may still cost beside the sends of what was said in it. Where several share a step, each takes half of
    /// what the others have left of it.
    fn spare(&self) -> u64 {
        self.ground.work.left().saturating_sub(self.desk.answered.len() as u64 * price::SEND)
    }

    /// Wakes the workers that sleep, if this turn has published anything.
    pub fn wake_others(&mut self) {
        if std::mem::take(&mut self.desk.published) {
            self.ground.shared.publisher.wake();
        }
    }
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl<S> Desk<S> {
    /// Asserts that the lists and the connections agree, between two turns.
    pub fn invariants(&self, connections: &Connections<S>) {
        use super::connection::Undone;
        let (mut timed, mut asked) = (0, 0);
        let turns: std::collections::HashSet<crate::io::Token> = self.asking.tokens().collect();
        for (token, connection) in connections.iter() {
            timed += usize::from(connection.timer.is_some());
            assert!(
                connection.timer.is_some() || self.due.tokens().any(|due| due == token),
                "a connection has a timer, or it has come"
            );
            asked += usize::from(connection.undone != Undone::Nothing);
            let has_turn = connection.undone != Undone::Waits || turns.contains(&token);
            assert!(has_turn, "whoever has something to be done has a turn, or is waited for");
            assert!(!connection.queued || connection.unread, "whoever stands in line has not been read");
            assert!(
                !connection.answered || self.answered.tokens().any(|other| other == token),
                "whoever has answers is on the list"
            );
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
        self.reading.invariants(connections);
        self.exchanges.invariants(connections);
    }

    /// The cohorts of those who have left.
    pub fn parted(&self) -> impl Iterator<Item = CohortId> {
        self.parted.iter().filter_map(Parted::cohort)
    }
}
