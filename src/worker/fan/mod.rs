//! The fan: who wants what, and what the tape has gained sent to all of them that are at its head.
//!
//! A *pass* reads the index from where the worker stood and plans for each cohort which bytes its members get, adjacent ones
//! merged. Cohorts with something to send stand in line; each is served for a round of its members, a bounded number of sends
//! a turn, and then stands at the end of the line again if more was planned meanwhile (`column.rs`). Members at the same place
//! get the same bytes, gathered once where they are scattered, with one `send` each (`serve.rs`). Beyond that call a delivery
//! costs a look at the connection. Names with a rate are sent at their ticks (`pace.rs`). A cohort that is owed too much keeps nobody
//! waiting: it is planned for behind the others (`trail.rs`).
//!
//! The fan takes in who has caught up ([`Fan::join`]) and lets go who leaves ([`Fan::leave`]). Whom it can't serve it lets go by
//! itself, and tells as a value ([`Fell`]): where the member stands, for the cursors to go on from the very byte.

mod column;
pub mod delivery;
mod fallen;
pub mod interest;
mod log;
mod names;
mod pace;
pub mod passes;
mod past;
mod recent;
mod serve;
mod share;
mod standing;
mod tick;
pub mod trail;
mod tree;
mod values;
mod why;

use std::{collections::VecDeque, io::ErrorKind};

use self::{
    interest::{CohortId, Interest},
    passes::{PassId, Passes},
    share::Gathered,
    tick::Tick,
    trail::Bounds,
};
pub use self::{
    pace::Pace,
    past::AsOf,
    tick::{Ticked, Unserved},
    values::{locate, newest_for, push_entry, push_value},
    why::compression,
};
use super::{connection::Connection, connections::Connections, cursor::Cursor, ground::Ground};
use crate::{
    clock::Moment,
    io::{Edge, Token},
    lane::Lane,
    packs::Frames,
    slack::{KEPT_BY_THREAD, Slack},
    tape::Position,
};

/// Tape bytes that are on their way at once, planned and not yet sent to everybody: whoever publishes is not read faster than
/// it is sent, and for those that trail nothing more is planned.
const PLANNED_BYTES: usize = 512 * 1024;

/// The same for all members together. Some 50 milliseconds of copying.
const TO_SEND_BYTES: u64 = if cfg!(any(test, fuzzing)) { 64 << 10 } else { 128 << 20 };

/// Whether so much is on its way that nothing more is planned for those that trail.
fn is_much(passes: &Passes) -> bool {
    passes.bytes() >= PLANNED_BYTES || passes.to_send() >= TO_SEND_BYTES
}

/// See the module's description.
pub struct Fan {
    pub interest: Interest,
    /// The floor for which it was last looked who has fallen off the tape.
    floor: Position,
    /// Passes that are on their way.
    passes: Passes,
    /// Bytes that one member may be owed, as of the last plan.
    owed_max: usize,
    /// The turn before had no room for all that the tape had gained.
    is_late: bool,
    /// Cohorts with members to be served, whoever waits longest first, by their tickets.
    line: VecDeque<(CohortId, u64)>,
    tickets: u64,
    /// Ticks at which members are still to be served.
    ticking: VecDeque<Tick>,
    /// How many there ever were.
    ticks: u64,
    /// No pass before this.
    pass_due: Moment,
    /// Members that were let go, for the worker to see to.
    fell: VecDeque<Fell>,
    // Buffers that are used again every turn.
    touched: Vec<CohortId>,
    stirred: Vec<(CohortId, usize)>,
    gather: Vec<u8>,
    gathered: Gathered,
}

/// A member that the fan could not serve, and is none any more.
#[derive(Debug)]
pub struct Fell {
    pub token: Token,
    pub why: Why,
    /// Ticks at which it was still to be served.
    pub owed: Vec<Unserved>,
}

/// Why a member could not be served, and where that leaves it.
#[derive(Debug)]
pub enum Why {
    /// Its socket was full `offset` bytes into the frame of the publication at `position`; or the `rest` of that is what it takes along.
    Full { position: Position, offset: u32, rest: Vec<u8> },
    /// Its socket was full within what a tick had for it.
    FullAtTick(Unsent),
    /// It polls, and something has come from here on.
    Woken { from: Position },
    /// What comes from `missed` on is gone from the tape before it was sent. `in_full` if it is to be sent every publication
    /// of some name.
    Missed { missed: Position, in_full: bool },
    /// The connection is broken.
    Broken(ErrorKind),
}

/// What is left of a tick for a member whose socket was full.
#[derive(Debug)]
pub struct Unsent {
    /// Everything before was sent, but for what is here.
    pub position: Position,
    /// Of its cohort's rates, the one with this number.
    pub rate: usize,
    /// The rest of the frame that was begun.
    pub rest: Vec<u8>,
    /// Where its publication is on the tape; of no rest, anywhere.
    pub rest_of: Position,
    /// The positions after the newest values that were not begun, and their topics; the next one is the last.
    pub values: Vec<(Position, u32)>,
    /// The numbers of these topics at the tick before.
    pub before: Vec<(u32, u64)>,
}

impl Fan {
    pub fn new(now: Moment) -> Fan {
        Fan {
            interest: Interest::default(),
            floor: Position(0),
            passes: Passes::default(),
            owed_max: usize::MAX,
            is_late: false,
            line: VecDeque::new(),
            tickets: 0,
            ticking: VecDeque::new(),
            ticks: 0,
            pass_due: now,
            fell: VecDeque::new(),
            touched: Vec::new(),
            stirred: Vec::new(),
            gather: Vec::new(),
            gathered: Gathered::default(),
        }
    }

    /// Everything before it was planned for the members, but for those that trail.
    #[inline]
    pub fn position(&self) -> Position {
        self.interest.position
    }

    /// Everything before it was planned for all members.
    #[inline]
    pub fn planned_for_all(&self) -> Position {
        self.interest.trail.position().unwrap_or(self.interest.position)
    }

    /// Takes in a connection that has been sent everything up to where the fan is; without a subscription it is no member.
    pub fn join<S>(&mut self, token: Token, connection: &mut Connection<S>) {
        connection.cursor = match connection.cohort {
            Some(id) => {
                let cohort = self.interest.cohort(id);
                let shares = connection.shares() && cohort.stream.is_some();
                Cursor::Head(cohort.column.join(token, shares))
            }
            None => Cursor::None,
        };
    }

    /// Lets a connection go, if it is a member. Returns the ticks at which it was still to be served.
    pub fn leave<S>(&mut self, connections: &mut Connections<S>, token: Token) -> Vec<Unserved> {
        let Some(connection) = connections.get_mut(token) else { return Vec::new() };
        let (Cursor::Head(place), Some(id)) = (connection.cursor, connection.cohort) else { return Vec::new() };
        connection.cursor = Cursor::None;
        let column = &mut self.interest.cohort(id).column;
        connection.note_shares(column.shares(place));
        column.leave(place, &mut self.passes, |token, place| {
            if let Some(moved) = connections.get_mut(token) {
                moved.cursor = Cursor::Head(place);
            }
        });
        self.leave_ticks(id, token)
    }

    /// Where a connection that isn't behind has been sent everything before: where the fan is, unless it trails, or is still to be
    /// sent something that was planned.
    pub fn position_of<S>(&mut self, connection: &Connection<S>) -> Position {
        match (connection.cursor, connection.cohort) {
            (Cursor::Head(place), Some(id)) => {
                let planned = self.interest.planned_for(id);
                self.interest.cohort(id).column.position(place).unwrap_or(planned)
            }
            _ => self.interest.position,
        }
    }

    /// Up to where everything was told to a connection that isn't behind: less where a rate has something for its next tick.
    pub fn told<S>(&mut self, connection: &Connection<S>) -> Position {
        let position = self.position_of(connection);
        let (Cursor::Head(_), Some(id)) = (connection.cursor, connection.cohort) else { return position };
        self.interest.cohort(id).paces.iter().filter_map(Pace::untold_from).fold(position, Position::min)
    }

    /// Lets a connection go, if it is a member, and says where that leaves it, also in the ticks at which it was still to be
    /// served.
    pub fn part<S>(&mut self, connections: &mut Connections<S>, token: Token) -> (Position, Vec<Unserved>) {
        let position = connections.get(token).map(|connection| self.position_of(connection));
        let owed = self.leave(connections, token);
        (position.unwrap_or(self.interest.position), owed)
    }

    /// Those that were let go, the first one first.
    #[inline]
    pub fn next_fell(&mut self) -> Option<Fell> {
        self.fell.pop_front()
    }

    /// Before a subscription is made: sees to it that the lane is written, and that the worker reads the tape, from now on.
    pub fn attach<E: Edge>(&mut self, ground: &mut Ground<E>, lane: Lane) {
        self.interest.want_lane(&ground.tape, lane);
        self.come(ground);
    }

    /// Sees to it that the worker reads the tape, and that the tables are as of where it is.
    pub fn come<E: Edge>(&mut self, ground: &mut Ground<E>) {
        if self.interest.is_empty() {
            self.interest.position = ground.reader.refresh();
            self.floor = ground.reader.floor();
            self.interest.begin_era();
        }
    }

    /// The reverse, where no subscription was made.
    pub fn detach<E: Edge>(&self, ground: &mut Ground<E>, lane: Lane) {
        self.interest.unwant_lane(&ground.tape, &mut ground.reader, lane);
    }

    /// Nobody is to be sent anything; whoever has ended its last subscription only waits for the answer. The cohorts that stood
    /// in line have gone.
    pub fn rest<E: Edge>(&mut self, ground: &mut Ground<E>) {
        self.line.clear();
        self.ticking.clear();
        self.settle_passes(ground);
        self.interest.position = ground.tape.head();
    }

    /// Whether members are still to be sent something that was planned, or has ticked.
    #[inline]
    pub fn owes(&self) -> bool {
        !self.passes.is_empty() || !self.ticking.is_empty()
    }

    /// The oldest and the newest pass on their way.
    #[inline]
    pub fn on_their_way(&self) -> Option<(PassId, PassId)> {
        self.passes.oldest().zip(self.passes.newest())
    }

    /// Whether cohorts stand in line, or ticks are open.
    #[inline]
    pub fn is_busy(&self) -> bool {
        !self.line.is_empty() || !self.ticking.is_empty()
    }

    /// Bytes that were planned and not yet sent to everybody.
    #[inline]
    pub fn planned_bytes(&self) -> usize {
        self.passes.bytes()
    }

    /// Whether so much is on its way that nothing more is to be planned for those that trail, nor read from those that publish.
    #[inline]
    pub fn is_crowded(&self) -> bool {
        is_much(&self.passes) || self.interest.owed_most() > self.owed_max
    }

    /// When the next pass may be made. An interval that was lowered meanwhile holds nothing back for as long as the one before.
    pub fn pass_due<E: Edge>(&mut self, ground: &Ground<E>, now: Moment) -> Moment {
        self.pass_due = self.pass_due.min(now + ground.settings.flush_interval);
        self.pass_due
    }

    /// Plans what the tape has gained, and for those that trail what they have been passed by, as far as there may be something on its
    /// way. Returns whether there was a pass.
    pub fn plan<E: Edge>(&mut self, ground: &mut Ground<E>) -> bool {
        let head = ground.reader.head();
        let interval = ground.settings.flush_interval;
        // Where sends are to be saved, a pass waits for the one before.
        let may = interval.is_zero() || (self.passes.is_empty() && ground.now >= self.pass_due);
        if !may || self.planned_for_all() >= head {
            return false;
        }
        self.owed_max = ground.settings.owed_max;
        let has_gained = self.interest.position < head;
        if has_gained {
            self.plan_pass(ground, head);
        }
        for (id, n) in self.stirred.drain(..) {
            self.interest.set_tick(id, n, ground.now);
        }
        let has_followed = self.plan_trail(ground);
        if ground.work.is_over() && self.planned_for_all() < head {
            ground.work.put_off();
        }
        // What is left over isn't held back.
        if self.planned_for_all() == head {
            self.pass_due = ground.now + interval;
        }
        has_gained || has_followed
    }

    /// Plans a pass: up to the tape's head, or as the step goes; of that, half is for those that trail.
    fn plan_pass<E: Edge>(&mut self, ground: &mut Ground<E>, head: Position) {
        let Fan { interest, passes, touched, stirred, .. } = self;
        let Ground { reader, tape, settings, work, packer, .. } = ground;
        packer.streams.note_pressed(self.is_late || interest.trail.len() > 0, ground.now);
        let mut frames = Frames { reader, packer };
        let pass = passes.begin();
        // What was looked at since the last pass was not for one.
        interest.take_cost();
        let most = if interest.trail.len() > 0 { work.left() / 2 } else { work.left() };
        let mut bounds = Bounds { owed: settings.owed_max, is_late: self.is_late, is_much: false };
        // From here on the tables are as of where it ends.
        interest.position = reader.scan(interest.position, head, |entry| {
            if interest.cost() + frames.packer.cost() >= most {
                return false;
            }
            bounds.is_much = is_much(passes);
            let to_send = interest.plan(tape, pass, (entry, &mut frames), bounds, touched, stirred);
            if to_send > 0 {
                passes.note(entry.ts, entry.longest(), to_send);
            }
            true
        });
        work.charge(interest.take_cost() + frames.packer.take_cost());
        self.is_late = interest.position < head;
        self.line_up();
    }

    /// The pass that was begun last is complete: the cohorts that it is for stand in line.
    fn line_up(&mut self) {
        self.passes.planned(self.touched.len());
        for id in self.touched.drain(..) {
            let cohort = self.interest.cohort(id);
            if cohort.ticket == 0 {
                self.tickets += 1;
                cohort.ticket = self.tickets;
                cohort.column.begin_round(true);
                self.line.push_back((id, self.tickets));
            }
        }
    }

    /// Says how long the passes have taken that are over now.
    fn settle_passes<E: Edge>(&mut self, ground: &Ground<E>) {
        if !self.passes.any_over() {
            return;
        }
        let done = ground.edge.wall_us();
        let times = &ground.metrics.publish_to_send;
        times.record(self.passes.over().map(|(ts, publications)| (done.saturating_sub(ts), publications.into())));
        self.passes.settle();
    }

    /// Whether there is room to be given back, which the worker doesn't sleep over.
    #[inline]
    pub fn has_slack(&self) -> bool {
        let gathered = self.gathered.ends.capacity() * size_of::<(Position, usize)>() > KEPT_BY_THREAD;
        let bytes = self.gather.capacity().max(self.gathered.bytes.capacity());
        self.interest.has_slack() || bytes > KEPT_BY_THREAD || gathered
    }

    /// Gives back room that was needed once: of the buffers, which hold nothing between two uses, and of the tables.
    pub fn give_back(&mut self) {
        self.gather.clear();
        let Gathered { bytes, ends, .. } = &mut self.gathered;
        bytes.clear();
        ends.clear();
        let lists: [&mut dyn Slack; 7] =
            [bytes, ends, &mut self.gather, &mut self.touched, &mut self.stirred, &mut self.line, &mut self.fell];
        lists.into_iter().for_each(|list| list.give_back(KEPT_BY_THREAD));
        self.passes.give_back();
        self.ticking.give_back(KEPT_BY_THREAD);
        self.interest.give_back();
    }
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl Fan {
    /// Asserts that members, cohorts, the line and the passes agree, between two steps of a turn.
    pub fn invariants<S>(&self, connections: &Connections<S>) {
        self.interest.invariants();
        let mut members = 0;
        for id in self.interest.cohort_ids() {
            let cohort = self.interest.at(id);
            for (place, token) in cohort.column.tokens().enumerate() {
                let connection = connections.get(token).expect("a member is a connection");
                let cursor = (connection.cursor, connection.cohort);
                assert_eq!(cursor, (Cursor::Head(place as u32), Some(id)), "a member knows its place");
                let is_able = connection.packing() == crate::packs::Packing::Shared && cohort.may_share();
                assert!(is_able || !cohort.column.shares(place as u32), "a stream that a member can't read");
                members += 1;
            }
            let in_line = self.line.iter().filter(|(other, ticket)| (*other, *ticket) == (id, cohort.ticket)).count();
            assert_eq!(in_line, usize::from(cohort.ticket != 0), "a cohort with a ticket stands in line, once");
            assert!(cohort.ticket != 0 || !cohort.column.is_behind(), "whoever is to be served stands in line");
        }
        let trailing = self.interest.cohort_ids().into_iter().filter(|id| self.interest.trails(*id)).count();
        assert_eq!(self.interest.trail.len(), trailing, "those that trail");
        let trail = self.interest.trail.position();
        assert!(trail.is_none_or(|trail| trail < self.interest.position), "{trail:?} is where the fan is");
        let at_head = connections.iter().filter(|(_, it)| matches!(it.cursor, Cursor::Head(_))).count();
        assert_eq!(members, at_head, "whoever is at the head is a member");
        assert!(self.fell.is_empty(), "those that fell were seen to");
        self.check_ticks(connections);
        self.passes.invariants(|pass| {
            let waits = |id: &CohortId| self.interest.at(*id).column.passes().any(|other| other == pass);
            self.interest.cohort_ids().iter().filter(|id| waits(id)).count()
        });
    }
}
