//! The members of a cohort, whose cursors are at the head: a ring, served in turn, and what each of them is still to be sent.
//!
//! A pass doesn't wait for the one before it. While a worker goes round its members, a few each turn, it goes on planning what
//! is published meanwhile; so whoever comes later in the round gets that along with the rest, in the same `send`, and whoever
//! came before gets it the next time round. Where publications come faster than a round takes, every member is sent all of a
//! round's publications at once, and each publication is on its way to somebody as soon as it is there.
//!
//! ```text
//!   planned:      | pass 4 | pass 5  | pass 6 |
//!                 cut      cut       cut      the end
//!                 |        |         |        |
//!   members:   [ d e f g ] [ h i ] [ a ]   [ b c ]
//!                ^ next                        just served
//! ```
//!
//! Members stand at *cuts*, one for each pass that planned something for the cohort: a member at a cut has been sent
//! everything before it. Cuts are few, as are turns in a round, and a member costs eight bytes.
//!
//! Some members may read a stream that the cohort shares (`share.rs`), and others not. Those are sent other bytes for the same publications, so that
//! is part of where a member stands: cuts have even numbers, and who reads the stream stands at the odd number behind.

use std::collections::VecDeque;

use super::passes::{PassId, Passes};
use crate::{
    io::Token,
    slack::{KEPT_BY_ONE, Slack},
    tape::{Position, Run},
};

/// See the module's description.
#[derive(Debug, Default)]
pub struct Column {
    members: Vec<Member>,
    /// Who is served next.
    next: usize,
    /// The cut before which stands who is still to be served in this round.
    round: u32,
    /// Pieces of the tape from the first cut on, adjacent ones merged.
    runs: VecDeque<Run>,
    /// The number of the first of `runs`. Numbers wrap around.
    first_run: u32,
    cuts: VecDeque<Cut>,
    /// The number of the first of `cuts`.
    first_cut: u32,
    /// Members that aren't at the end.
    behind: u32,
    /// Members that read the cohort's stream.
    sharing: u32,
    /// Publications and bytes ever planned; they wrap around.
    planned: (u32, u32),
}

#[derive(Clone, Copy, Debug)]
struct Member {
    token: Token,
    /// The number of the cut at which it stands, the next one's at the end; and one more if it reads the cohort's stream.
    cut: u32,
}

/// Where a pass began.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Of the pass's first publication for this cohort.
    position: Position,
    /// The run, by its number, and the bytes of it that were planned before.
    run: u32,
    offset: u32,
    /// What was planned before.
    planned: (u32, u32),
    /// How many members stand here.
    members: u32,
    pass: PassId,
}

/// What became of planning a publication.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// It is the first of its pass.
    pub first: bool,
    /// Bytes that some member would be owed with one more like it; none is owed more.
    pub next: usize,
}

/// What is to be sent to the members at one cut.
#[derive(Clone, Copy, Debug)]
pub struct Owed {
    /// They have been sent everything before.
    pub from: Position,
    pub publications: u32,
    pub bytes: u32,
}

impl Column {
    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All members, in the order of their places.
    pub fn tokens(&self) -> impl Iterator<Item = Token> + Clone {
        self.members.iter().map(|member| member.token)
    }

    /// Bytes that one member is owed at most.
    #[inline]
    pub fn owed_most(&self) -> usize {
        self.cuts.front().map_or(0, |first| self.planned.1.wrapping_sub(first.planned.1) as usize)
    }

    /// In how many pieces that is.
    #[inline]
    pub fn pieces(&self) -> usize {
        self.runs.len()
    }

    /// Whether anybody is still to be sent something.
    pub fn is_behind(&self) -> bool {
        self.behind > 0
    }

    /// Takes in somebody who has been sent everything that was planned, and may read the cohort's stream. Returns its place.
    pub fn join(&mut self, token: Token, shares: bool) -> u32 {
        self.members.push(Member { token, cut: self.end() | u32::from(shares) });
        self.sharing += u32::from(shares);
        self.members.len() as u32 - 1
    }

    /// Lets the member at `place` go; `moved` is told who has its place now.
    pub fn leave(&mut self, place: u32, passes: &mut Passes, moved: impl FnOnce(Token, u32)) {
        let place = place as usize;
        let gone = self.members.swap_remove(place);
        self.sharing -= gone.cut & SHARES;
        self.members.give_back(KEPT_BY_ONE);
        self.settle(gone.cut, 1, passes);
        if self.next >= self.members.len() {
            self.next = 0;
        }
        if let Some(filler) = self.members.get(place) {
            moved(filler.token, place as u32);
        }
    }

    /// Whether the member at `place` reads the cohort's stream.
    #[inline]
    pub fn shares(&self, place: u32) -> bool {
        is_sharing(self.members[place as usize].cut)
    }

    /// How many do.
    #[inline]
    pub fn sharing(&self) -> usize {
        self.sharing as usize
    }

    /// How many don't, though they stand at the end, where a stream may begin: all that there are if any do. (Counting them costs a look
    /// at each member.)
    pub fn waiting(&self) -> usize {
        if self.sharing as usize == self.members.len() || self.behind as usize == self.members.len() {
            return 0;
        }
        let end = self.end();
        self.members.iter().filter(|member| member.cut == end).count()
    }

    /// A stream begins where the next publication is planned: those that stand at the end read it from there on.
    pub fn share_at_end(&mut self) {
        let end = self.end();
        for member in self.members.iter_mut().filter(|member| member.cut == end) {
            member.cut |= SHARES;
            self.sharing += 1;
        }
    }

    /// Those that stand at `cut` read the stream no longer.
    pub fn unshare_at(&mut self, cut: u32) {
        for member in self.members.iter_mut().filter(|member| member.cut == cut && is_sharing(cut)) {
            member.cut ^= SHARES;
            self.sharing -= 1;
        }
    }

    /// Nobody reads the stream any longer.
    pub fn unshare_all(&mut self) {
        self.members.iter_mut().for_each(|member| member.cut &= !SHARES);
        self.sharing = 0;
    }

    /// Where the member at `place` has been sent everything before; none if it stands at the end.
    pub fn position(&self, place: u32) -> Option<Position> {
        Some(self.cut(self.members[place as usize].cut)?.position)
    }

    /// The members that have not been sent something that comes before `floor`, and from where on.
    pub fn fallen(&self, floor: Position) -> Vec<(Token, Position)> {
        if self.cuts.front().is_none_or(|first| first.position >= floor) {
            return Vec::new();
        }
        let from = |member: &Member| Some((member.token, self.cut(member.cut)?.position));
        self.members.iter().filter_map(from).filter(|(_, from)| *from < floor).collect()
    }

    /// Adds a publication to what all members are to be sent.
    #[inline]
    pub fn plan(&mut self, pass: PassId, at: Position, run: Run) -> Planned {
        let fresh = self.cuts.back().is_none_or(|last| last.pass != pass);
        if fresh {
            let (run, offset) = match self.runs.back() {
                Some(last) => (self.first_run.wrapping_add(self.runs.len() as u32 - 1), last.len),
                None => (self.first_run, 0),
            };
            // Whoever stood at the end stands here now.
            let members = self.members.len() as u32 - self.behind;
            self.behind = self.members.len() as u32;
            self.cuts.push_back(Cut { position: at, run, offset, planned: self.planned, members, pass });
        }
        self.planned = (self.planned.0.wrapping_add(1), self.planned.1.wrapping_add(run.len));
        if !self.runs.back_mut().is_some_and(|last| last.extend(run)) {
            self.runs.push_back(run);
        }
        let most = self.planned.1.wrapping_sub(self.cuts[0].planned.1);
        Planned { first: fresh, next: (most + run.len) as usize }
    }

    /// Begins a round, in which everybody who is behind now has a turn; `anew` if nobody was in one before, so that it begins
    /// with another member.
    pub fn begin_round(&mut self, anew: bool) {
        self.round = self.end();
        if anew && !self.members.is_empty() {
            self.next = (self.next + 1) % self.members.len();
        }
    }

    /// Whether somebody is still to be served in this round.
    pub fn is_in_round(&self) -> bool {
        self.is_for(self.first_cut) && self.is_behind()
    }

    /// The cut of the next member to be served in this round.
    pub fn next_cut(&mut self) -> Option<u32> {
        if !self.is_in_round() {
            return None;
        }
        while !self.is_for(self.members[self.next].cut) {
            self.step();
        }
        Some(self.members[self.next].cut)
    }

    /// Serves the next member of this round, if it stands at `cut`: it stands at the end then. [`Column::settle`] has to
    /// follow.
    pub fn serve_at(&mut self, cut: u32) -> Option<Token> {
        let end = self.end() | (cut & SHARES);
        let member = self.members.get_mut(self.next).filter(|member| member.cut == cut)?;
        member.cut = end;
        let token = member.token;
        self.step();
        Some(token)
    }

    /// So many members at `cut` were served, or have left. The first cuts go, and the runs before the next, when nobody stands
    /// there any more.
    pub fn settle(&mut self, cut: u32, members: u32, passes: &mut Passes) {
        let Some(cut) = self.cuts.get_mut((cut.wrapping_sub(self.first_cut) / STEP) as usize) else { return };
        cut.members -= members;
        self.behind -= members;
        if self.cuts[0].members > 0 {
            return;
        }
        while let Some(first) = self.cuts.front().filter(|first| first.members == 0) {
            passes.release(first.pass);
            self.cuts.pop_front();
            self.first_cut = self.first_cut.wrapping_add(STEP);
        }
        let kept = self.cuts.front().map_or(self.runs.len(), |first| first.run.wrapping_sub(self.first_run) as usize);
        self.runs.drain(..kept);
        self.first_run = self.first_run.wrapping_add(kept as u32);
        self.runs.give_back(KEPT_BY_ONE);
        self.cuts.give_back(KEPT_BY_ONE);
    }

    /// How much the members at `cut` are owed.
    pub fn owed(&self, cut: u32) -> Owed {
        let cut = self.cut(cut).expect("somebody stands there");
        Owed {
            from: cut.position,
            publications: self.planned.0.wrapping_sub(cut.planned.0),
            bytes: self.planned.1.wrapping_sub(cut.planned.1),
        }
    }

    /// The bytes of it.
    pub fn runs(&self, cut: u32) -> impl Iterator<Item = Run> + Clone {
        let cut = *self.cut(cut).expect("somebody stands there");
        let first = cut.run.wrapping_sub(self.first_run) as usize;
        let whole = self.runs.range(first..).copied().enumerate();
        let rest = whole.map(move |(n, run)| run.after(if n == 0 { cut.offset } else { 0 }));
        rest.filter(|run| run.len > 0)
    }

    /// The number of the cut that the next pass makes.
    fn end(&self) -> u32 {
        self.first_cut.wrapping_add(self.cuts.len() as u32 * STEP)
    }

    /// Whether this round is for whoever stands at a cut.
    fn is_for(&self, cut: u32) -> bool {
        // As the difference of numbers that wrap around, of which few are in use at a time.
        self.round.wrapping_sub(cut) as i32 > 0
    }

    fn cut(&self, number: u32) -> Option<&Cut> {
        self.cuts.get((number.wrapping_sub(self.first_cut) / STEP) as usize)
    }

    fn step(&mut self) {
        self.next = if self.next + 1 < self.members.len() { self.next + 1 } else { 0 };
    }
}

/// Between the numbers of two cuts; and what is added to that of a member that reads the cohort's stream.
const STEP: u32 = 2;
const SHARES: u32 = 1;

/// Whether the members at a cut read the cohort's stream.
#[inline]
pub fn is_sharing(cut: u32) -> bool {
    cut & SHARES != 0
}

#[cfg(all(any(test, fuzzing), not(loom)))]
impl Column {
    /// Asserts that what is kept of the members, the cuts and the runs agrees.
    pub fn invariants(&self) {
        let end = self.end();
        for (n, cut) in self.cuts.iter().enumerate() {
            let number = self.first_cut.wrapping_add(n as u32 * STEP);
            let standing = self.members.iter().filter(|member| member.cut & !SHARES == number).count();
            assert_eq!(cut.members as usize, standing, "members at a cut");
            let run = self.runs.get(cut.run.wrapping_sub(self.first_run) as usize);
            assert!(run.is_none_or(|run| cut.offset <= run.len), "a cut within its run");
        }
        assert!(self.cuts.front().is_none_or(|first| first.members > 0), "a cut before which nobody stands");
        assert!(self.first_cut.is_multiple_of(STEP), "cuts have even numbers");
        let sharing = self.members.iter().filter(|member| is_sharing(member.cut)).count();
        assert_eq!(self.sharing as usize, sharing, "those that read the stream");
        let at_end = self.members.iter().filter(|member| member.cut & !SHARES == end).count();
        assert_eq!(at_end + self.behind as usize, self.members.len(), "everybody stands at a cut or at the end");
        assert!(self.next < self.members.len().max(1), "the next member");
        let runs = self.cuts.front().map(|_| self.runs(self.first_cut).map(|run| run.len).sum::<u32>());
        assert_eq!(runs, self.cuts.front().map(|_| self.owed(self.first_cut).bytes), "the runs are what is owed");
    }

    /// The passes that planned what somebody is still to be sent.
    pub fn passes(&self) -> impl Iterator<Item = PassId> {
        self.cuts.iter().map(|cut| cut.pass)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn a_column_that_had_much_to_send_to_many_keeps_no_room_for_it() {
        let (mut column, mut passes) = (Column::default(), Passes::default());
        (0..5000).for_each(|token| assert_eq!(column.join(token, false), token));
        for pass in 0..1000 {
            let id = passes.begin();
            for n in 0..10 {
                column.plan(id, Position(pass), Run { base: Position(0), start: n * 100, len: 10 });
            }
            passes.planned(1);
        }
        (1..5000).rev().for_each(|place| column.leave(place, &mut passes, |_, _| {}));
        column.begin_round(true);
        let cut = column.next_cut().expect("somebody is behind");
        column.serve_at(cut);
        column.settle(cut, 1, &mut passes);
        let Column { members, runs, cuts, .. } = &column;
        for (room, _, size) in [members.room(), runs.room(), cuts.room()] {
            assert!(room * size <= KEPT_BY_ONE, "{room}");
        }
        passes.settle();
        passes.give_back();
        assert!(passes.is_empty());
    }

    /// A column, and beside it each member with a list of what it is owed.
    struct Twin {
        column: Column,
        passes: Passes,
        random: fastrand::Rng,
        /// The bytes owed, by their numbers.
        owed: BTreeMap<Token, Vec<u32>>,
        places: BTreeMap<Token, u32>,
        tokens: Token,
        bytes: u32,
        /// Whom this round is for.
        round: BTreeSet<Token>,
        /// Who reads the stream.
        sharing: BTreeSet<Token>,
    }

    impl Twin {
        fn new(seed: u64) -> Twin {
            Twin {
                column: Column::default(),
                passes: Passes::default(),
                random: fastrand::Rng::with_seed(seed),
                owed: BTreeMap::new(),
                places: BTreeMap::new(),
                tokens: 0,
                bytes: 0,
                round: BTreeSet::new(),
                sharing: BTreeSet::new(),
            }
        }

        fn join(&mut self) {
            self.tokens += 1;
            let shares = self.random.bool();
            self.places.insert(self.tokens, self.column.join(self.tokens, shares));
            self.owed.insert(self.tokens, Vec::new());
            if shares {
                self.sharing.insert(self.tokens);
            }
        }

        fn leave(&mut self) {
            let Some((token, place)) = self.random.choice(self.places.clone()) else { return };
            self.round.remove(&token);
            self.sharing.remove(&token);
            self.places.remove(&token);
            self.owed.remove(&token);
            let places = &mut self.places;
            self.column.leave(place, &mut self.passes, |token, place| {
                places.insert(token, place);
            });
        }

        /// Some publications; between them lies what others are sent.
        fn plan(&mut self) {
            if self.places.is_empty() {
                return;
            }
            let pass = self.passes.begin();
            for _ in 0..self.random.u32(1..4) {
                self.bytes += self.random.u32(..2) * 100;
                let len = self.random.u32(1..5);
                let base = Position(u64::from(self.bytes) / 1000);
                self.passes.note(1, len, len.into());
                self.column.plan(pass, Position(self.bytes.into()), Run { base, start: self.bytes, len });
                self.owed.values_mut().for_each(|owed| owed.extend(self.bytes..self.bytes + len));
                self.bytes += len;
            }
            self.passes.planned(1);
        }

        /// Somebody begins to read the stream, or stops.
        fn share(&mut self) {
            match self.random.u8(..8) {
                0 => {
                    self.column.unshare_all();
                    self.sharing.clear();
                }
                1 => {
                    let Some(cut) = self.column.next_cut() else { return };
                    let from = self.column.owed(cut).from;
                    let stands = |token: &Token| self.column.position(self.places[token]) == Some(from);
                    if is_sharing(cut) {
                        self.sharing.retain(|token| !stands(token));
                    }
                    self.column.unshare_at(cut);
                }
                _ => {
                    let at_end =
                        self.owed.iter().filter(|(token, owed)| owed.is_empty() && !self.sharing.contains(token));
                    let at_end: Vec<Token> = at_end.map(|(token, _)| *token).collect();
                    assert_eq!(self.column.waiting(), at_end.len(), "those that wait");
                    self.column.share_at_end();
                    self.sharing.extend(at_end);
                }
            }
        }

        fn begin_round(&mut self) {
            let left: Vec<_> = self.round.iter().filter(|token| !self.owed[token].is_empty()).collect();
            assert!(left.is_empty(), "{left:?} had no turn in the round before");
            self.column.begin_round(self.random.bool());
            self.round = self.owed.iter().filter(|(_, owed)| !owed.is_empty()).map(|(token, _)| *token).collect();
        }

        fn serve(&mut self) {
            for _ in 0..self.random.u32(..6) {
                let Some(cut) = self.column.next_cut() else { return };
                let bytes: Vec<u32> = self.column.runs(cut).flat_map(|run| run.start..run.start + run.len).collect();
                let about = self.column.owed(cut);
                assert_eq!((about.bytes as usize, about.from.0), (bytes.len(), bytes[0].into()));
                let mut served = 0;
                for token in std::iter::from_fn(|| self.column.serve_at(cut)).take(self.random.usize(1..4)) {
                    assert_eq!(self.sharing.contains(&token), is_sharing(cut), "each is sent what it can read");
                    assert_eq!(std::mem::take(self.owed.get_mut(&token).expect("it is a member")), bytes);
                    self.round.remove(&token);
                    served += 1;
                }
                assert!(served > 0, "somebody stands there");
                self.column.settle(cut, served, &mut self.passes);
            }
        }

        fn check(&mut self) {
            self.column.invariants();
            let by_place: BTreeMap<u32, Token> = self.places.iter().map(|(token, place)| (*place, *token)).collect();
            assert!(self.column.tokens().eq(by_place.into_values()), "everybody knows its place");
            let sharing = self.places.iter().filter(|(_, place)| self.column.shares(**place)).map(|(token, _)| token);
            assert!(sharing.eq(&self.sharing) && self.column.sharing() == self.sharing.len(), "who reads the stream");
            assert_eq!(self.column.is_behind(), self.owed.values().any(|owed| !owed.is_empty()));
            self.passes.settle();
            self.passes.invariants(|pass| self.column.passes().filter(|other| *other == pass).count());
            assert_eq!(self.passes.is_empty(), !self.column.is_behind());
            let floor = self.random.u32(..=self.bytes);
            let fallen = |(token, owed): (&Token, &Vec<u32>)| {
                let from = *owed.first().filter(|from| **from < floor)?;
                Some((*token, Position(from.into())))
            };
            let fallen: BTreeSet<_> = self.owed.iter().filter_map(fallen).collect();
            assert_eq!(self.column.fallen(Position(floor.into())).into_iter().collect::<BTreeSet<_>>(), fallen);
        }
    }

    #[test]
    fn everybody_is_sent_what_it_is_owed_and_has_its_turn_in_every_round() {
        for seed in 0..500 {
            let mut twin = Twin::new(seed);
            for _ in 0..200 {
                match twin.random.u8(..10) {
                    0..2 => twin.join(),
                    2 => twin.leave(),
                    3..6 => twin.plan(),
                    6 => twin.share(),
                    _ if !twin.column.is_in_round() => twin.begin_round(),
                    _ => twin.serve(),
                }
                twin.check();
            }
        }
    }
}
