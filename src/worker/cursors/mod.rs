//! The cursors that are not at the head: each at a position of its own, and on the way to the others.
//!
//! A cursor is behind from when its socket was full, or its subscription changed, until it has caught up with the fan. Each
//! turn lets those with room go a bounded step along the tape (`walk.rs`): every publication to whoever wants every one,
//! newest values in rounds to whoever can't take them all (`round.rs`), and first what somebody missed before it came back
//! (`resume.rs`). Whoever is too far behind is found here (`lag.rs`), and shown (`slow.rs`).
//!
//! Whoever waits for room costs nothing meanwhile: it stands on no list that a turn goes through. Those that wait for the fan stand
//! on one of their own, and go on after each pass. Among those that can go on, addresses take turns ([`Rota`]), and when the step
//! has used up its allotment, the others go on in the next turn.
//!
//! Others give a cursor to this part ([`Cursors::begin`], [`Cursors::take`]) and take it back ([`Cursors::end`]). Who has caught
//! up, and whose connection broke on the way, is told as a value ([`Came`]).

mod beginnings;
mod behind;
mod held;
mod lag;
mod narrow;
mod order;
mod resume;
mod round;
mod shared;
mod slow;
mod told;
mod walk;

use std::{collections::VecDeque, io::ErrorKind};

pub use self::{
    beginnings::{Beginnings, Found, Resumed},
    behind::{Behind, Stage},
    lag::Lagged,
    resume::Resume,
    told::as_of,
};
use self::{
    behind::Stands,
    lag::next_needed,
    order::Order,
    round::Piece,
    slow::Survey,
    walk::{Plan, Reached, Walk},
};
#[cfg(all(any(test, fuzzing), not(loom)))]
use super::connection::CohortId;
use super::{
    connection::{Connection, Undone},
    connections::Connections,
    cursor::Cursor,
    fan::{Unsent, interest::Interest},
    ground::Ground,
    work::price,
};
use crate::{
    clock::Moment,
    io::{Edge, Token},
    rota::Rota,
    slack::{KEPT_BY_THREAD, Slack},
    tape::{Position, Run},
};

/// See the module's description.
pub struct Cursors {
    all: Vec<One>,
    /// Those of them that can go on this turn.
    runnable: Rota,
    /// Places in `all` of those that wait for the fan.
    waiting: Vec<u32>,
    /// So many of these, the first ones, can go on since it has moved.
    stirred: usize,
    /// All of them by where they stand.
    order: Order,
    /// Those that are none any more, for the worker to see to.
    came: VecDeque<Came>,
    /// For these something has changed in what is held.
    touched: Vec<Token>,
    lag_due: Moment,
    slow: Survey,
    buffers: Buffers,
}

/// A cursor that is behind, and whose.
struct One {
    token: Token,
    behind: Box<Behind>,
}

/// Where a cursor has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It has caught up: it is the fan's from here on.
    Up(Token),
    /// It is on its way, and what its connection has asked for since can be done.
    On(Token),
    /// Its connection is broken.
    Broken(Token, ErrorKind),
}

/// Buffers that are used again every step.
#[derive(Default)]
struct Buffers {
    plan: Plan,
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
    found: Vec<(Position, u32)>,
    value: Vec<u8>,
}

impl Cursors {
    pub fn new(now: Moment) -> Cursors {
        Cursors {
            all: Vec::new(),
            runnable: Rota::default(),
            waiting: Vec::new(),
            stirred: 0,
            order: Order::default(),
            came: VecDeque::new(),
            touched: Vec::new(),
            lag_due: now,
            slow: Survey::new(now),
            buffers: Buffers::default(),
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many are behind.
    #[inline]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether some can go on.
    #[inline]
    pub fn is_busy(&self) -> bool {
        !self.runnable.is_empty() || self.stirred > 0
    }

    /// Those that are none any more, the first one first.
    #[inline]
    pub fn next_came(&mut self) -> Option<Came> {
        self.came.pop_front()
    }

    /// The state of a connection's cursor, if that is behind.
    pub fn of<S>(&self, token: Token, connection: &Connection<S>) -> Option<&Behind> {
        let Cursor::Behind(place) = connection.cursor else { return None };
        self.all.get(place as usize).filter(|one| one.token == token).map(|one| &*one.behind)
    }

    /// The same, to be changed.
    pub fn of_mut<S>(&mut self, token: Token, connection: &Connection<S>) -> Option<&mut Behind> {
        let Cursor::Behind(place) = connection.cursor else { return None };
        self.all.get_mut(place as usize).filter(|one| one.token == token).map(|one| &mut *one.behind)
    }

    /// Takes a connection that is no member of its cohort and has been sent everything before `position`.
    ///
    /// `position` is not beyond what the reader sees.
    pub fn begin<E: Edge>(
        &mut self,
        ground: &mut Ground<E>,
        interest: &mut Interest,
        connection: &mut Connection<E::Socket>,
        token: Token,
        position: Position,
    ) -> &mut Behind {
        debug_assert_eq!(connection.cursor, Cursor::None, "it is nobody else's");
        let as_of = as_of(ground, interest, [connection.cohort, None], position, &[]);
        let as_of = as_of.filter(|_| connection.lane.words().tells());
        let paces = connection.cohort.map_or(&[][..], |id| &interest.cohort(id).paces);
        let mut behind = Box::new(Behind::new(position, connection.lane, as_of, paces));
        connection.cursor = Cursor::Behind(self.all.len() as u32);
        self.touch(token);
        self.order.enter(token, &mut behind.places, position, position);
        self.all.push(One { token, behind });
        &mut self.all.last_mut().expect("it was just put there").behind
    }

    /// Takes a connection whose socket was full `offset` bytes into the frame of the publication at `position`, or that takes the rest of that
    /// along.
    pub fn take<E: Edge>(
        &mut self,
        ground: &mut Ground<E>,
        interest: &mut Interest,
        connection: &mut Connection<E::Socket>,
        token: Token,
        (position, offset): (Position, u32),
        rest: Vec<u8>,
    ) {
        let behind = self.begin(ground, interest, connection, token, position);
        let cohort = connection.cohort;
        let mut walk = Walk { ground, interest, connection, behind };
        match cohort {
            Some(cohort) if !rest.is_empty() => walk.stop_with(cohort, position, rest),
            Some(cohort) => walk.stop_at(cohort, position, offset),
            None => debug_assert!(rest.is_empty() && offset == 0, "whoever stops within a frame is subscribed to it"),
        }
        walk.await_room();
    }

    /// Takes a connection whose socket was full within what a tick had for it.
    pub fn take_at_tick<E: Edge>(
        &mut self,
        ground: &mut Ground<E>,
        interest: &mut Interest,
        connection: &mut Connection<E::Socket>,
        token: Token,
        unsent: Unsent,
    ) {
        let behind = self.begin(ground, interest, connection, token, unsent.position);
        behind.conflates = true;
        if !unsent.rest.is_empty() {
            behind.put_rest(&mut connection.out, unsent.rest_of, unsent.rest);
        }
        if let Some(paced) = behind.paces.get_mut(unsent.rate) {
            paced.round.put_off(unsent.values);
            paced.told = paced.told.take().map(|told| told.but(unsent.before));
        }
        Walk { ground, interest, connection, behind }.await_room();
    }

    /// Adds a change of subscription at `stage.until` to a connection whose cursor is behind.
    pub fn add_stage<S>(&mut self, token: Token, connection: &Connection<S>, stage: Stage) {
        let Cursor::Behind(place) = connection.cursor else { return };
        let Cursors { all, order, .. } = self;
        let Some(One { behind, .. }) = all.get_mut(place as usize).filter(|one| one.token == token) else { return };
        // What it goes back to may be before where it is.
        let needed = stage.resume.as_ref().map_or(behind.position, |resume| resume.from.min(behind.position));
        behind.stages.push_back(stage);
        order.enter(token, &mut behind.places, needed, behind.position);
        self.list(token, connection);
    }

    /// Where answers go that have to wait for changes of the connection's subscription, if they have to.
    pub fn last_words<S>(&mut self, token: Token, connection: &Connection<S>) -> Option<&mut Vec<u8>> {
        self.of_mut(token, connection)?.last_words()
    }

    /// What a connection's subscription begins with, if that is being said: what it is told meanwhile follows.
    pub fn begun<S>(&mut self, token: Token, connection: &Connection<S>) -> Option<&mut Beginnings> {
        let begins = self.of_mut(token, connection)?.begins.as_deref_mut();
        begins.filter(|begins| !begins.is_over())
    }

    /// Whether a connection is still to be told that the server stops, behind what its subscription begins with.
    pub fn owes_draining<S>(&self, token: Token, connection: &Connection<S>) -> bool {
        let begins = self.of(token, connection).and_then(|behind| behind.begins.as_ref());
        begins.is_some_and(|begins| begins.tells_draining)
    }

    /// Whether so much waits for a connection that what it asks for has to wait as well.
    pub fn is_laden<S>(&self, token: Token, connection: &Connection<S>, pending_max: usize) -> bool {
        behind::is_laden(connection.out.len(), self.of(token, connection), pending_max)
    }

    /// Bytes that a connection is to be told at changes of its subscription.
    pub fn staged_of<S>(&self, token: Token, connection: &Connection<S>) -> usize {
        self.of(token, connection).map_or(0, Behind::staged)
    }

    /// The socket of a connection has room again; returns whether its cursor is behind.
    pub fn has_room<S>(&mut self, token: Token, connection: &Connection<S>, now: Moment) -> bool {
        let Some(behind) = self.of_mut(token, connection) else { return false };
        behind.waited = now.since(behind.full_since);
        self.list(token, connection);
        true
    }

    /// Notes that a connection waits for room.
    pub fn is_full<S>(&mut self, token: Token, connection: &Connection<S>, now: Moment) {
        if let Some(behind) = self.of_mut(token, connection) {
            behind.full_since = now;
        }
    }

    /// Puts a connection on the list of those to go on this turn, if its cursor is behind and its socket has room. Returns
    /// whether it is behind.
    pub fn list<S>(&mut self, token: Token, connection: &Connection<S>) -> bool {
        let Cursor::Behind(place) = connection.cursor else { return false };
        let Some(One { behind, .. }) = self.all.get(place as usize).filter(|one| one.token == token) else {
            return false;
        };
        if !connection.full && behind.stands != Stands::Listed {
            self.stop_waiting(place);
            self.all[place as usize].behind.stands = Stands::Listed;
            self.runnable.push(connection.group(), token);
        }
        true
    }

    /// The fan has moved: whoever waited for it can go on.
    #[inline]
    pub fn list_all(&mut self) {
        self.stirred = self.waiting.len();
    }

    /// Puts those on the list of those to go on who waited for the fan, as many as the step has room for.
    fn list_stirred<E: Edge>(&mut self, ground: &mut Ground<E>, connections: &Connections<E::Socket>) {
        while self.stirred > 0 && !ground.work.is_over() {
            ground.work.charge(price::LOOK);
            let token = self.all[self.waiting[self.stirred - 1] as usize].token;
            let Some(connection) = connections.get(token).filter(|connection| !connection.full) else {
                debug_assert!(false, "{token} waits for the fan and not for room");
                self.stirred -= 1;
                continue;
            };
            self.list(token, connection);
        }
    }

    /// A cursor has come to where the fan is and goes on when that does.
    fn wait_for_fan(&mut self, place: u32) {
        self.all[place as usize].behind.stands = Stands::Waiting(self.waiting.len() as u32);
        self.waiting.push(place);
    }

    /// A cursor waits for the fan no longer, if it did.
    fn stop_waiting(&mut self, place: u32) {
        let stands = std::mem::take(&mut self.all[place as usize].behind.stands);
        let Stands::Waiting(mut at) = stands else {
            self.all[place as usize].behind.stands = stands;
            return;
        };
        // The stirred ones stay in front: the last of them takes its place, and the last of all that one's.
        if let Some(last) = self.stirred.checked_sub(1).filter(|last| at as usize <= *last) {
            self.stirred = last;
            self.waiting[at as usize] = self.waiting[last];
            self.note_waiting(at);
            at = last as u32;
        }
        self.waiting.swap_remove(at as usize);
        self.note_waiting(at);
    }

    /// Tells whoever is at this place of those that wait where it is.
    fn note_waiting(&mut self, at: u32) {
        if let Some(place) = self.waiting.get(at as usize) {
            self.all[*place as usize].behind.stands = Stands::Waiting(at);
        }
    }

    /// Lets those that have room go a step, as many as a turn allows.
    pub fn go<E: Edge>(
        &mut self,
        ground: &mut Ground<E>,
        interest: &mut Interest,
        connections: &mut Connections<E::Socket>,
    ) {
        self.list_stirred(ground, connections);
        let floor = ground.reader.floor();
        for _ in 0..self.runnable.len() {
            if ground.work.is_over() {
                break;
            }
            let Some(token) = self.runnable.next() else { break };
            ground.work.charge(price::LOOK);
            let Some(connection) = connections.get_mut(token) else { continue };
            let Cursor::Behind(place) = connection.cursor else { continue };
            let Cursors { all, buffers, order, .. } = self;
            let one = all.get_mut(place as usize).filter(|one| one.token == token);
            let Some(One { behind, .. }) = one.filter(|one| one.behind.stands == Stands::Listed) else { continue };
            behind.stands = Stands::Still;
            // For whoever ends, when its turn comes, the tape is not kept.
            if connection.full || behind.ends {
                continue;
            }
            if behind.places.needed.is_some_and(|needed| needed < floor) {
                // Its next publication may be gone, and then that is seen to first.
                let needed = next_needed(interest, connection, behind);
                order.set_needed(token, &mut behind.places, needed);
                if needed.is_some_and(|needed| needed < floor) {
                    self.list(token, connection);
                    continue;
                }
            }
            let reached = (Walk { ground, interest, connection, behind }).go(buffers);
            if connection.undone == Undone::Parked
                && !behind::is_laden(connection.out.len(), Some(behind), ground.settings.pending_max)
            {
                self.came.push_back(Came::On(token));
            }
            self.touch(token);
            match reached {
                Reached::Enough => drop(self.list(token, connection)),
                Reached::Full => {}
                Reached::Wait => self.wait_for_fan(place),
                Reached::Head => {
                    self.end(ground, interest, connections, token);
                    self.came.push_back(Came::Up(token));
                }
                Reached::Broken(why) => self.came.push_back(Came::Broken(token, why)),
            }
        }
        if self.is_busy() {
            ground.work.put_off();
        }
    }

    /// Takes a connection off the list of those that are behind, and its stages with it.
    pub fn end<E: Edge>(
        &mut self,
        ground: &mut Ground<E>,
        interest: &mut Interest,
        connections: &mut Connections<E::Socket>,
        token: Token,
    ) {
        let Some(connection) = connections.get_mut(token) else { return };
        let Cursor::Behind(place) = connection.cursor else { return };
        connection.cursor = Cursor::None;
        self.touch(token);
        self.stop_waiting(place);
        let One { mut behind, .. } = self.all.swap_remove(place as usize);
        self.order.leave(token, &mut behind.places);
        if behind.short {
            ground.edge.keep_short(&mut connection.socket, false);
        }
        if let Some(One { token, behind }) = self.all.get(place as usize) {
            if let Stands::Waiting(at) = behind.stands {
                self.waiting[at as usize] = place;
            }
            if let Some(moved) = connections.get_mut(*token) {
                moved.cursor = Cursor::Behind(place);
            }
        }
        for cohort in behind.stages.into_iter().filter_map(|stage| stage.cohort) {
            interest.let_go(&ground.tape, &mut ground.reader, cohort);
        }
    }

    /// The unsent rest of the frame in which a connection stopped; empty if it stopped between frames, none if it is gone.
    pub fn rest_of_frame<E: Edge>(
        &self,
        ground: &mut Ground<E>,
        token: Token,
        connection: &Connection<E::Socket>,
    ) -> Option<Vec<u8>> {
        self.of(token, connection).map_or(Some(Vec::new()), |behind| walk::rest_of_frame(ground, connection, behind))
    }

    /// Whether there is room to be given back, which the worker doesn't sleep over.
    #[inline]
    pub fn has_slack(&self) -> bool {
        let Buffers { plan, bytes, pieces, found, value } = &self.buffers;
        let scratch = [bytes, value].map(Vec::capacity).into_iter().max();
        let lists = pieces.capacity() * size_of::<Piece>() + found.capacity() * size_of::<(Position, u32)>();
        let lists = lists + plan.runs.capacity() * size_of::<Run>();
        scratch.is_some_and(|room| room > KEPT_BY_THREAD) || lists > 2 * KEPT_BY_THREAD
    }

    /// Gives back room that was needed once: of the buffers, which hold nothing between two uses, and of the lists.
    pub fn give_back(&mut self) {
        let Buffers { plan, bytes, pieces, found, value } = &mut self.buffers;
        [&mut *bytes, &mut *value].into_iter().for_each(|buffer| buffer.clear());
        pieces.clear();
        let (buffers, touched) = ([bytes, value], &mut self.touched);
        buffers.into_iter().for_each(|buffer| buffer.give_back(KEPT_BY_THREAD));
        let lists: [&mut dyn Slack; 7] =
            [pieces, found, &mut plan.runs, &mut self.all, &mut self.waiting, &mut self.came, touched];
        lists.into_iter().for_each(|list| list.give_back(KEPT_BY_THREAD));
        self.runnable.give_back();
    }
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl Cursors {
    /// Asserts that the list and the connections agree, between two steps of a turn.
    pub fn invariants<S>(&self, connections: &Connections<S>) {
        let mut places = 0;
        for (place, One { token, behind }) in self.all.iter().enumerate() {
            let connection = connections.get(*token).expect("whoever is behind is a connection");
            assert_eq!(connection.cursor, Cursor::Behind(place as u32), "whoever is behind knows its place");
            let listed = self.runnable.tokens().any(|other| other == *token);
            match behind.stands {
                Stands::Listed => assert!(listed, "whoever can go on is on the list"),
                Stands::Waiting(at) => assert_eq!(self.waiting[at as usize], place as u32, "it knows where it waits"),
                Stands::Still => assert!(connection.full, "whoever has room goes on or waits for the fan"),
            }
            self.order.invariants(*token, &behind.places);
            places += usize::from(behind.places.needed.is_some()) + usize::from(behind.places.stands.is_some());
            assert!(behind.stages.iter().is_sorted_by_key(|stage| stage.until), "stages in the order of the tape");
            let resumes = behind.resume.iter().chain(behind.stages.iter().filter_map(|stage| stage.resume.as_ref()));
            resumes.for_each(|resume| assert!(resume.from < resume.until, "what was missed comes before"));
            assert!(behind.rest <= connection.out.len(), "the rest of a publication waits among the answers");
            assert!(behind.stages.len() <= behind::STAGES_MAX, "{} changes wait", behind.stages.len());
        }
        let behind = connections.iter().filter(|(_, it)| matches!(it.cursor, Cursor::Behind(_))).count();
        assert_eq!(self.all.len(), behind, "whoever is behind is on the list");
        let waiting = self.all.iter().filter(|one| matches!(one.behind.stands, Stands::Waiting(_))).count();
        assert_eq!((self.waiting.len(), self.order.len()), (waiting, places), "and nobody else stands anywhere");
        assert!(self.stirred <= self.waiting.len());
        assert!(self.came.is_empty(), "those that came were seen to");
    }

    /// The cohorts that connections are still to be sent something for before their subscriptions change.
    pub fn staged(&self) -> impl Iterator<Item = CohortId> {
        self.all.iter().flat_map(|one| &one.behind.stages).filter_map(|stage| stage.cohort)
    }
}
