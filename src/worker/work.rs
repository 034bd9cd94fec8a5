//! Work: what a turn may cost, in prices and not in time.
//!
//! Commands, plans, ticks and reads are not alike: one looks at a name, another at all topics. So what they do is priced, by
//! constants that were measured once ([`price`]), and each step of a turn has an allotment of it. Who uses it up goes on in the
//! next turn, where it stopped. Prices instead of a clock, so that the same script takes the same turns every time, and that the
//! simulation can assert what each of them costs.
//!
//! ```text
//!   --turn-work     read 40 %    ask 20 %    plan 20 %    tick 10 %    go 5 %    look after 5 %
//!   --turn-sends                                 serve        tick         go         look after      each so many sends
//! ```
//!
//! What can't be divided (one entry, one command that is small, one send) may go beyond by itself once; a step looks whether it
//! is over before it begins the next.

use crate::metrics::{Figure, STEPS};

/// What things cost: one unit is some ten nanoseconds of a core of 2020, the least that anything costs.
pub mod price {
    /// A look at something in a table or list: an index entry, a topic, a name, a cohort, a connection. A cache line or two.
    pub const LOOK: u64 = 2;
    /// One node of a tree of names, or one name held against one pattern.
    pub const MATCH: u64 = 5;
    /// Sixty-four bytes copied, looked through, unmasked or written as text.
    pub const LINE: u64 = 1;
    /// The same compressed, as fast as it goes.
    pub const GZIP_LINE: u64 = 16;
    /// A token that is judged: its signature is verified, in some tens of microseconds.
    pub const TOKEN: u64 = 6000;
    /// Sixty-four bytes that a compressed message comes to; and one of its own bytes, since a few of them can be a table to be made,
    /// and nothing more.
    pub const INFLATED_LINE: u64 = 8;
    pub const DEFLATED_BYTE: u64 = 8;
    /// A record of TLS that came in, whatever is in it.
    pub const RECORD: u64 = 60;
    /// A frame that came in, whatever is in it.
    pub const FRAME: u64 = 5;
    /// A command, without what it asks for: it is read, and answered.
    pub const COMMAND: u64 = 50;
    /// A publication that is appended, without its bytes.
    pub const PUBLICATION: u64 = 30;
    /// A name that is subscribed to or let go of: tables of two places change.
    pub const NAME: u64 = 50;
    /// A call into the kernel: `send`, `recv`, a question about a socket.
    pub const SEND: u64 = 400;

    /// A connection that comes or ends, without its names and sends: its places in tables and lists.
    pub const END: u64 = 100;
    /// One that is put on a list of those who take turns, and comes.
    pub const TURN: u64 = 8;

    /// Of so many bytes.
    pub const fn lines(bytes: usize) -> u64 {
        LINE * (bytes as u64).div_ceil(64)
    }
}

/// What goes beyond a step's allotment at most: the dearest thing that is not divided. (A message of the simulation's, or all that
/// a small command does.)
#[cfg(all(any(test, fuzzing), not(loom)))]
pub const INDIVISIBLE_MAX: u64 = 20_000;

/// The steps of a turn that do what others ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sockets are read, and what is small is done at once.
    Read,
    /// Commands that are not done at once go on.
    Ask,
    /// What the tape has gained is planned.
    Plan,
    /// Members at the head are served.
    Serve,
    /// Rates tick.
    Tick,
    /// Cursors that are behind go on.
    Go,
    /// Timeouts, heartbeats, ends.
    LookAfter,
}

/// By their numbers, which are also those of [`STEPS`].
type BySteps<T> = [T; STEPS.len()];

impl Step {
    /// Every step.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub const ALL: BySteps<Step> =
        [Step::Read, Step::Ask, Step::Plan, Step::Serve, Step::Tick, Step::Go, Step::LookAfter];

    /// Per cent of `--turn-work`, and whether it has `--turn-sends` sends as well.
    fn share(self) -> (u64, bool) {
        match self {
            Step::Read => (40, false),
            Step::Ask | Step::Plan => (20, false),
            Step::Serve => (0, true),
            Step::Tick => (10, true),
            Step::Go | Step::LookAfter => (5, true),
        }
    }

    /// What the step may cost in one turn.
    pub fn allotment(self, turn_work: u64, turn_sends: usize) -> u64 {
        let (percent, sends) = self.share();
        turn_work / 100 * percent + if sends { turn_sends as u64 * price::SEND } else { 0 }
    }
}

/// What a worker's turn has cost so far. See the module's description.
#[derive(Debug)]
pub struct Work {
    step: Step,
    /// What is left of the step's allotment.
    left: u64,
    /// What each step of this turn has cost.
    spent: BySteps<u64>,
    /// Whether it has left something for the next turn.
    put_off: BySteps<bool>,
}

impl Work {
    pub fn new() -> Work {
        Work { step: Step::Read, left: 0, spent: Default::default(), put_off: Default::default() }
    }

    /// A turn begins.
    pub fn begin_turn(&mut self) {
        (self.spent, self.put_off) = Default::default();
    }

    /// A step begins, with its allotment less what it has cost in this turn before.
    pub fn begin(&mut self, step: Step, turn_work: u64, turn_sends: usize) {
        self.step = step;
        self.left = step.allotment(turn_work, turn_sends).saturating_sub(self.spent[step as usize]);
    }

    /// Charges the step with so many units.
    #[inline]
    pub fn charge(&mut self, units: u64) {
        self.left = self.left.saturating_sub(units);
        self.spent[self.step as usize] += units;
    }

    /// What the step may still cost.
    #[inline]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Whether what costs so much and can't be divided may begin: there is room for it, or half of the step is left, which is as
    /// much as there will surely be again.
    #[inline]
    pub fn has_room_for(&self, units: u64) -> bool {
        self.left >= units.min((self.left + self.spent[self.step as usize]) / 2)
    }

    /// Whether the step has used up its allotment: what is left to do is for the next turn.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.left == 0
    }

    /// The step leaves something for the next turn.
    #[inline]
    pub fn put_off(&mut self) {
        self.put_off[self.step as usize] = true;
    }

    /// What each step of this turn has cost.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn spent(&self) -> BySteps<u64> {
        self.spent
    }

    /// Counts the turn.
    pub fn report(&self, work: &BySteps<Figure>, put_off: &BySteps<Figure>) {
        work.iter().zip(self.spent).for_each(|(figure, spent)| figure.add(spent));
        put_off.iter().zip(self.put_off).filter(|(_, put_off)| *put_off).for_each(|(figure, _)| figure.add(1));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_begun_twice_in_a_turn_has_one_allotment() {
        let mut work = Work::new();
        work.begin_turn();
        work.begin(Step::Read, 1000, 1);
        work.charge(300);
        work.begin(Step::Ask, 1000, 1);
        assert_eq!(work.left(), 200);
        work.begin(Step::Read, 1000, 1);
        assert_eq!((work.left(), work.is_over()), (100, false));
        work.charge(250);
        assert!(work.is_over());
        assert_eq!(work.spent()[Step::Read as usize], 550);
        work.begin_turn();
        work.begin(Step::Read, 1000, 1);
        assert_eq!(work.left(), 400, "what went beyond is not owed");
    }

    #[test]
    fn what_is_dearer_than_a_step_begins_when_half_of_one_is_left_and_not_later() {
        let mut work = Work::new();
        work.begin_turn();
        work.begin(Step::Ask, 1000, 1);
        assert!(work.has_room_for(1_000_000));
        work.charge(90);
        assert!(work.has_room_for(1_000_000) && work.has_room_for(110));
        work.charge(20);
        assert!(!work.has_room_for(1_000_000) && work.has_room_for(90) && !work.has_room_for(95));
    }

    #[test]
    fn the_shares_are_the_whole_turn() {
        let whole: u64 = Step::ALL.iter().map(|step| step.share().0).sum();
        assert_eq!(whole, 100);
    }
}
