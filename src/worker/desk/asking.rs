//! What connections have asked for and waits to be done: commands that go on over turns, and whatever came behind them.
//!
//! What is small is done as soon as it is read (`messages.rs`). It waits, if the step in which sockets are read is over, or if
//! something of the same connection waits: the commands of one connection are done in their order. A subscription that has to
//! look at topics is a *job* (`collect.rs`): it goes on turn by turn, and what comes behind it waits as it came, unread. So does
//! what somebody asks for who leaves his answers lying, or has as many changes of his subscription before him as there may be.
//!
//! ```text
//!   read ──► small? ──► done                  nothing waits, the step isn't over, few answers wait
//!                 │
//!                 └──► job, messages ──► step Ask: addresses take turns, then connections
//!                         │    ▲
//!                         └────┘ parked until some of its answers were taken
//! ```
//!
//! Frames are read on meanwhile, so that pings are answered, and a close or an end is seen; until so much waits that the
//! connection isn't read either. What waits is part of what the connection holds (`held.rs`), and while there is no room for more of
//! that, a client whose message would have to wait is failed. Whoever publishes is held back here as where it is read
//! (`reading.rs`).
//!
//! Who takes his turn has the step to himself for a while, and over several turns, so that most jobs are over after one of these:
//! a hundred that are all half done would hold a hundred times the memory, and none of them would be over before all are. Who
//! isn't over then goes on when the other addresses had theirs.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{
    super::{
        connection::{Phase, Reads, Undone},
        connections::Handle,
        work::{Step, price},
    },
    Clerk, Doom,
    collect::Collect,
    exchange::Pack,
    history::History,
    poll::Poll,
    reading,
};
use crate::{
    io::{Edge, Token},
    protocol::Payload,
    rota::Rota,
    slack::{KEPT_BY_ONE, Slack},
    websocket::CloseCode,
};

/// Bytes of messages that wait for one connection before it is read no further. What was read before may be more: what one read
/// takes ([`READ_BYTES`](super::READ_BYTES)), or one message.
const WAITING_MAX: usize = 16 * 1024;

/// For how many turns' worth of its step a job goes on before others have theirs: five milliseconds, in which a hundred thousand
/// topics are looked at.
const JOB_TURNS: u64 = 10;

/// After so many times the others of its address have theirs as well.
const JOB_TIMES: u32 = 8;

/// What messages that wait may cost at a time: one so manieth of the step.
const MESSAGES_PART: u64 = 4;

/// What one connection has asked for and waits to be done.
#[derive(Default)]
struct Asks {
    job: Option<Job>,
    messages: Messages,
    /// How often it has used up its time.
    times: u32,
    /// Its client has ended it: only what it publishes is still done.
    end: Option<End>,
    /// Bytes of messages that are counted.
    counted: usize,
}

/// A command that goes on over turns.
pub enum Job {
    Sub(Box<Collect>),
    /// Names whose subscriptions have ended, and that are still counted.
    Uncount(Vec<Arc<str>>),
    /// What there is for a poll.
    Poll(Box<Poll>),
    /// What the tape has of a topic, for an answer over plain HTTP.
    History(Box<History>),
    /// Such an answer, to be compressed.
    Pack(Box<Pack>),
}

/// How a client has ended its connection.
#[derive(Clone, Copy, Debug)]
enum End {
    Close(Option<CloseCode>),
    Fin,
}

/// Messages in the order in which they came, each behind its kind and its length.
#[derive(Default)]
struct Messages {
    bytes: Vec<u8>,
    at: usize,
}

/// Whose turn it is among those for whom something waits.
#[derive(Default)]
pub struct Asking {
    /// For whom something waits, but for who is being served. Tokens are the server's own, so the hash needs no key.
    of: FxHashMap<Token, Box<Asks>>,
    rota: Rota,
    /// Who has the step, and what that may still cost before it is somebody else's.
    turn: Option<(Token, u64)>,
    /// Whoever has the step leaves so much of it.
    floor: u64,
    /// Connections for which something waits.
    connections: usize,
    bytes: usize,
}

/// Where the work for one connection has led.
enum Left {
    /// Nothing waits any more.
    Nothing,
    /// It goes on.
    More,
    /// It waits until some of its answers were taken.
    Parked,
    /// It waits until those who publish may go on.
    Held,
}

impl Asks {
    /// Bytes that it holds.
    fn held(&self) -> usize {
        let job = match &self.job {
            Some(Job::Sub(collect)) => collect.held(),
            Some(Job::Poll(poll)) => poll.held(),
            Some(Job::History(history)) => history.held(),
            Some(Job::Pack(pack)) => pack.held(),
            Some(Job::Uncount(_)) | None => 0,
        };
        job + self.messages.bytes.capacity()
    }
}

impl Messages {
    fn len(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn push(&mut self, message: Payload<'_>) {
        if self.at > self.bytes.len() / 2 {
            self.bytes.drain(..self.at);
            self.at = 0;
            self.bytes.give_back(KEPT_BY_ONE);
        }
        let bytes = message.bytes();
        self.bytes.push(matches!(message, Payload::Text(_)).into());
        self.bytes.extend_from_slice(&(bytes.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Option<Payload<'_>> {
        let (is_text, rest) = self.bytes.get(self.at..)?.split_first()?;
        let (len, rest) = rest.split_first_chunk()?;
        let message = rest.get(..u32::from_ne_bytes(*len) as usize)?;
        self.at += 1 + len.len() + message.len();
        // It was found to be text when it came.
        let text = std::str::from_utf8(message).ok().filter(|_| *is_text > 0);
        Some(text.map_or(Payload::Binary(message), Payload::Text))
    }
}

impl Asking {
    /// Whether there is something to do.
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.turn.is_some() || !self.rota.is_empty()
    }

    /// Connections for which something waits, and how many bytes that is.
    pub fn waiting(&self) -> (usize, usize) {
        (self.connections, self.bytes)
    }

    /// Bytes of memory that what waits for a connection takes.
    #[inline]
    pub fn held(&self, token: Token) -> usize {
        if self.of.is_empty() { 0 } else { self.of.get(&token).map_or(0, |asks| asks.held()) }
    }

    /// Those of them that are messages, as they came.
    pub fn messages_of(&self, token: Token) -> usize {
        self.of.get(&token).map_or(0, |asks| asks.messages.bytes.capacity())
    }

    /// Gives back room that was needed once.
    pub fn give_back(&mut self) {
        self.rota.give_back();
        if self.of.capacity() > 64 && self.of.capacity() / 4 > self.of.len() {
            self.of.shrink_to(64);
        }
    }

    /// For how many something waits.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// How many subscriptions on their way keep the tables at the tape.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn keepers(&self) -> usize {
        self.of.values().filter(|asks| matches!(&asks.job, Some(Job::Sub(collect)) if collect.keeps())).count()
    }

    /// Everybody whose turn comes.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn tokens(&self) -> impl Iterator<Item = Token> {
        self.rota.tokens().chain(self.turn.map(|(token, _)| token))
    }
}

impl<E: Edge> Clerk<'_, E> {
    /// Takes a message in, which is done at once if it is small, and nothing waits that has to be done before.
    pub fn hear(&mut self, token: Token, message: Payload<'_>) {
        self.ground.metrics.messages.add(1);
        let Some(connection) = self.connections.get(token) else { return };
        let is_over = self.ground.work.is_over();
        if is_over {
            self.ground.work.put_off();
        }
        let most = self.ground.settings.pending_max;
        if connection.undone != Undone::Nothing || is_over || self.cursors.is_laden(token, connection, most) {
            self.push_message(token, message);
        } else if let Some(job) = self.carry_out(token, message, false) {
            self.put_by(token, job);
        }
    }

    /// Lets a message wait, if there is room for it; fails the connection otherwise.
    fn push_message(&mut self, token: Token, message: Payload<'_>) {
        let Some(handle) = self.connections.handle(token) else { return };
        let len = message.bytes().len();
        self.ground.work.charge(price::lines(len));
        let waits = self.desk.asking.messages_of(token);
        let room = self.connections.get(token).map(|connection| connection.permit.may_hold(waits + len, len));
        if let Some(Err(why)) = room {
            self.ground.shared.metrics.refuse(why);
            self.desk.doomed.push_back((handle, Doom::Full(why)));
            return self.drop_asks(token);
        }
        if let Some(asks) = self.asks_of(token) {
            asks.messages.push(message);
        }
        self.count_waiting(token);
    }

    /// Lets a command go on over turns.
    pub fn put_by(&mut self, token: Token, job: Job) {
        match self.asks_of(token) {
            Some(asks) => asks.job = Some(job),
            None => self.drop_job(token, job),
        }
    }

    /// What waits for a connection, which from now on has its turns.
    fn asks_of(&mut self, token: Token) -> Option<&mut Asks> {
        let most = self.ground.settings.pending_max;
        let is_laden = |connection| self.cursors.is_laden(token, connection, most);
        let parked = self.connections.get(token).is_some_and(is_laden);
        let connection = self.connections.get_mut(token).filter(|connection| may_ask(connection.phase))?;
        let Asking { of, rota, connections, .. } = &mut self.desk.asking;
        if connection.undone == Undone::Nothing {
            *connections += 1;
            connection.undone = if parked { Undone::Parked } else { Undone::Waits };
            if !parked {
                rota.push(connection.group(), token);
            }
        }
        Some(of.entry(token).or_default())
    }

    /// Counts what waits for a connection.
    fn count_waiting(&mut self, token: Token) {
        let Asking { of, bytes, .. } = &mut self.desk.asking;
        let Some(asks) = of.get_mut(&token) else { return };
        let waits = asks.messages.len();
        *bytes += waits;
        *bytes -= std::mem::replace(&mut asks.counted, waits);
    }

    /// After a connection was read: it is read no further if much of what it has asked for waits, or it has ended.
    pub fn stop_reading(&mut self, token: Token) {
        let Some(asks) = self.desk.asking.of.get(&token) else { return };
        if asks.messages.len() < WAITING_MAX && !matches!(asks.end, Some(End::Fin)) {
            return;
        }
        let Some(connection) = self.connections.get_mut(token) else { return };
        // What it says meanwhile isn't seen. Whatever place it had in the line is nobody's.
        (connection.reads, connection.unread, connection.queued) = (Reads::Stopped, true, false);
        self.ground.edge.interest(&mut connection.socket, false);
    }

    /// After something that waited was done: a connection that isn't read because of that goes on.
    fn go_on_reading(&mut self, token: Token) {
        let stopped = self
            .connections
            .get(token)
            .is_some_and(|connection| connection.reads == Reads::Stopped && !connection.phase.is_answering());
        let asks = self.desk.asking.of.get(&token);
        if stopped && asks.is_none_or(|asks| asks.messages.len() < WAITING_MAX / 2 && asks.end.is_none()) {
            self.stand_in_line(token);
        }
    }

    /// Those who publish may go on: also those of whom something waits that was read before.
    pub fn let_held_go_on(&mut self) {
        while !self.desk.reading.holds()
            && !self.ground.work.is_over()
            && let Some(token) = self.desk.reading.next_held()
        {
            self.ground.work.charge(price::LOOK);
            self.have_its_turns(token, Undone::Held);
        }
        for _ in 0..self.desk.reading.held_len().min(reading::LOOKS_MAX) {
            let Some(token) = self.desk.reading.next_held() else { break };
            self.ground.work.charge(price::LOOK);
            if self.waits_first(token) {
                let held = self.connections.get(token).filter(|connection| connection.undone == Undone::Held);
                let Some(group) = held.map(|connection| connection.group()) else { continue };
                self.desk.reading.hold(group, token);
            } else {
                self.have_its_turns(token, Undone::Held);
                if let Some(connection) = self.connections.get_mut(token) {
                    connection.publishes = false;
                }
            }
        }
    }

    /// Somebody who has waited for something else has its turns from now on.
    fn have_its_turns(&mut self, token: Token, waited: Undone) {
        let connection = self.connections.get_mut(token).filter(|connection| connection.undone == waited);
        if let Some(connection) = connection {
            connection.undone = Undone::Waits;
            self.desk.asking.rota.push(connection.group(), token);
        }
    }

    /// The peer says goodbye, or ends the connection, behind something that waits. Returns whether it has to wait: only for what
    /// it publishes, and not if it doesn't read.
    pub fn ends_later(&mut self, token: Token, code: Option<Option<CloseCode>>) -> bool {
        let parked = self.connections.get(token).is_none_or(|connection| connection.undone == Undone::Parked);
        let Some(asks) = self.desk.asking.of.get_mut(&token) else { return false };
        if parked || asks.messages.len() == 0 {
            return false;
        }
        asks.end = Some(code.map_or(End::Fin, End::Close));
        if let Some(job) = asks.job.take() {
            self.drop_job(token, job);
        }
        true
    }

    /// Somebody has taken some of its answers: goes on with what it asked for, if that has waited for it.
    pub fn ease(&mut self, token: Token) {
        let most = self.ground.settings.pending_max;
        let Some(connection) = self.connections.get(token).filter(|it| it.undone == Undone::Parked) else { return };
        if self.cursors.is_laden(token, connection, most) {
            return;
        }
        self.have_its_turns(token, Undone::Parked);
    }

    /// Goes on with what waits, as much as the step may cost.
    pub fn go_on_asking(&mut self) {
        while !self.ground.work.is_over()
            && let Some((token, most)) = self.next_turn()
        {
            let before = self.ground.work.left();
            let goes_on = self.serve(token, most);
            let spent = before - self.ground.work.left();
            let Some(connection) = self.connections.get(token).filter(|_| goes_on) else { continue };
            if spent < most {
                // The step is over, or hasn't the room for what comes next.
                self.desk.asking.turn = Some((token, most - spent));
                break;
            }
            let group = connection.group();
            let Asking { of, rota, .. } = &mut self.desk.asking;
            let first = of.get(&token).is_some_and(|asks| asks.job.is_some() && asks.times % JOB_TIMES > 0);
            if first { rota.push_first(group, token) } else { rota.push(group, token) }
        }
        self.desk.asking.floor = 0;
        if self.desk.asking.is_busy() {
            self.ground.work.put_off();
        }
    }

    /// Who is next, and what that may cost.
    fn next_turn(&mut self) -> Option<(Token, u64)> {
        if let Some(turn) = self.desk.asking.turn.take() {
            return Some(turn);
        }
        let token = self.desk.asking.rota.next()?;
        self.ground.work.charge(price::LOOK);
        let step = Step::Ask.allotment(self.ground.settings.turn_work, self.ground.settings.turn_sends);
        let asks = self.desk.asking.of.get_mut(&token).map(|asks| &mut **asks);
        let most = match asks.map(|asks| (&asks.job, &mut asks.times)) {
            Some((Some(job), times)) => {
                *times += 1;
                let restarts = if let Job::Sub(collect) = job { collect.restarts() } else { 0 };
                (step * JOB_TURNS) << restarts
            }
            _ => step / MESSAGES_PART,
        };
        Some((token, most.max(1)))
    }

    /// Works for one connection, for at most so much. Returns whether it goes on.
    fn serve(&mut self, token: Token, most: u64) -> bool {
        let Some(handle) = self.connections.handle(token) else { return false };
        if self.connections.get(token).is_none_or(|connection| connection.undone != Undone::Waits) {
            return false;
        }
        let Some(mut asks) = self.desk.asking.of.remove(&token) else { return false };
        self.desk.asking.floor = self.ground.work.left().saturating_sub(most);
        let left = self.work_off(handle, &mut asks);
        self.desk.asking.floor = 0;
        let Some(connection) = self.connections.named(handle).filter(|connection| may_ask(connection.phase)) else {
            self.discard(token, *asks);
            return false;
        };
        if let Left::Nothing = left {
            let end = asks.end;
            self.discard(token, *asks);
            match end {
                Some(End::Close(code)) => self.peer_closes(token, code),
                Some(End::Fin) => self.ended(token),
                None => {}
            }
        } else {
            connection.undone = match left {
                Left::Parked => Undone::Parked,
                Left::Held => Undone::Held,
                _ => Undone::Waits,
            };
            if connection.undone == Undone::Held {
                self.desk.reading.hold(connection.group(), token);
            }
            self.desk.asking.of.insert(token, asks);
            self.count_waiting(token);
        }
        self.go_on_reading(token);
        self.note_held(token);
        matches!(left, Left::More)
    }

    fn work_off(&mut self, handle: Handle, asks: &mut Asks) -> Left {
        let token = handle.token;
        while self.has_time() {
            if let Some(job) = asks.job.take() {
                asks.job = self.work_on(token, job);
                if asks.job.is_some() {
                    return Left::More;
                }
            } else {
                let most = self.ground.settings.pending_max;
                let ends = asks.end.is_some();
                let is_laden = |connection| self.cursors.is_laden(token, connection, most);
                if asks.messages.len() > 0 && self.connections.get(token).is_some_and(is_laden) {
                    // Who doesn't read, and goes, has nothing more done.
                    return if ends { Left::Nothing } else { Left::Parked };
                }
                if asks.messages.len() > 0 && self.is_held_back(token) {
                    return Left::Held;
                }
                let Some(message) = asks.messages.next() else { return Left::Nothing };
                let published = self.ground.metrics.publications.get();
                asks.job = self.carry_out(token, message, ends);
                let published = self.ground.metrics.publications.get() > published;
                if published {
                    self.note_published(message.bytes().len());
                }
                let waits_first = published && self.waits_first(token);
                if let Some(connection) = self.connections.named(handle) {
                    connection.publishes = waits_first;
                }
            }
            if self.connections.named(handle).is_none_or(|connection| !may_ask(connection.phase)) {
                return Left::Nothing;
            }
        }
        Left::More
    }

    /// Whether a connection publishes, and those who do are held back.
    fn is_held_back(&self, token: Token) -> bool {
        self.desk.reading.holds() && self.connections.get(token).is_some_and(|connection| connection.publishes)
    }

    /// Whether whoever has the step may go on.
    pub fn has_time(&self) -> bool {
        self.time_left() > 0
    }

    /// What it may still cost.
    pub fn time_left(&self) -> u64 {
        self.ground.work.left().saturating_sub(self.desk.asking.floor)
    }

    /// Goes on with a command; returns it if there is more to do.
    pub fn work_on(&mut self, token: Token, job: Job) -> Option<Job> {
        let mut job = match job {
            Job::Sub(collect) => self.go_on_collecting(token, collect)?,
            Job::Uncount(names) => self.uncount_some(token, names).map(Job::Uncount)?,
            answer => answer,
        };
        // What is answered over plain HTTP goes on a piece at a time.
        while self.has_time() {
            job = match job {
                Job::Poll(poll) => self.go_on_polling(token, poll)?,
                Job::History(history) => self.go_on_reading_back(token, history)?,
                Job::Pack(pack) => self.go_on_packing(token, pack)?,
                other => return Some(other),
            };
        }
        Some(job)
    }

    /// What goes on over turns for a connection.
    pub fn job_of(&self, token: Token) -> Option<&Job> {
        self.desk.asking.of.get(&token)?.job.as_ref()
    }

    /// The same, which doesn't go on any more, but for what it has claimed.
    pub fn take_job(&mut self, token: Token) -> Option<Job> {
        self.desk.asking.of.get_mut(&token)?.job.take()
    }

    /// Nothing of what a connection has asked for is done any more.
    pub fn drop_asks(&mut self, token: Token) {
        let Some(asks) = self.desk.asking.of.remove(&token) else { return };
        self.discard(token, *asks);
        self.note_held(token);
    }

    fn discard(&mut self, token: Token, asks: Asks) {
        self.desk.asking.connections -= 1;
        self.desk.asking.bytes -= asks.counted;
        if let Some(connection) = self.connections.get_mut(token) {
            connection.undone = Undone::Nothing;
        }
        self.go_on_reading(token);
        if let Some(job) = asks.job {
            self.drop_job(token, job);
        }
    }

    /// Takes back what a command has done that isn't done to its end.
    fn drop_job(&mut self, token: Token, job: Job) {
        match job {
            Job::Sub(mut collect) => {
                let names = self.give_up(token, &mut collect);
                self.part_with(token, names);
            }
            Job::Uncount(names) => self.part_with(token, names),
            Job::History(_) => self.let_go_of_tape(),
            Job::Poll(_) | Job::Pack(_) => {}
        }
    }
}

/// Whether anything is done for a connection.
fn may_ask(phase: Phase) -> bool {
    phase == Phase::Open || phase.is_answering()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in() {
        let mut messages = Messages::default();
        let all = [Payload::Text("a"), Payload::Binary(b"\xff"), Payload::Text(""), Payload::Text("{}")];
        for _ in 0..100 {
            all.iter().for_each(|message| messages.push(*message));
            all.iter().for_each(|message| assert_eq!(messages.next(), Some(*message)));
        }
        assert_eq!(messages.next(), None);
        assert_eq!(messages.len(), 0);
        assert!(messages.bytes.capacity() < 200, "what was taken out is gone");
    }
}
