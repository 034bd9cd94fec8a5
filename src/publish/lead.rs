//! The lead: how far those who publish are ahead of those who send.
//!
//! The tape has room for so much. Where more is published than the workers can send, the tape would roll over subscribers that
//! read as fast as they can; so publishers wait, by whatever door they come. What counts is how far the slowest *worker* has come,
//! never a subscriber: who is slow by itself falls behind by itself.
//!
//! ```text
//!   tape   ──────────────────|─────────────────|──────────|
//!          tail              worker 1          worker 0   head
//!                            └── the lead: publishers wait while it is beyond the bound
//! ```
//!
//! There are two bounds, the second of which is twice the first. At the first, feeds wait, and whoever has published much lately
//! (`limits/account.rs`). With each tenth of the way to the second, half as much is enough, and there everybody waits. So all who publish
//! are let on with as much, as far as there is room; who wants less than that doesn't notice, and who publishes all he can makes
//! nobody else wait.
//!
//! Each worker shows in every turn how many bytes of the tape there are before what it is still to send to those at its head;
//! whoever wants to publish a piece looks, which is a load for each worker. Nobody is rung: those who wait look again after
//! [`HOLD_PAUSE`], by which time a worker has sent a part of the bound at most.
//!
//! A worker that takes no turn for `--stall-limit` doesn't count any more: its subscribers are lost in any case, and the others'
//! are not to be lost with them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crossbeam_utils::CachePadded;

use crate::{clock::Moment, limits::MUCH, tape::Tape};

/// How long those who are held back wait before they look again.
pub const HOLD_PAUSE: Duration = Duration::from_millis(1);

/// How often what one may have published is halved from the first bound to the second: to a few publications.
const HALVINGS: f32 = 10.0;

/// The part of `--retain` that the bound is at most, for whoever publishes much; the others' is twice that.
const PART: u64 = 8;

/// For how long a worker counts that takes no turn, where `--stall-limit` is never.
const STALL_LIMIT: Duration = Duration::from_secs(5);

/// See the module's description.
#[derive(Debug)]
pub struct Lead {
    workers: Box<[CachePadded<Stand>]>,
    bound: u64,
}

/// Where one worker stands. Relaxed throughout: a number that is a moment old is as good.
#[derive(Debug)]
struct Stand {
    /// Bytes of the tape before what it is still to send; the greatest number where nobody listens.
    sent: AtomicU64,
    /// Until when that counts, as a [`Moment`].
    until: AtomicU64,
}

impl Lead {
    /// Of so many workers, which may be `bound` bytes behind on a tape that holds `retain`.
    pub fn new(workers: usize, bound: usize, retain: usize) -> Lead {
        let stand = || Stand { sent: AtomicU64::new(u64::MAX), until: AtomicU64::new(0) };
        Lead {
            workers: (0..workers).map(|_| stand().into()).collect(),
            bound: (bound as u64).min(retain as u64 / PART),
        }
    }

    /// A worker takes a turn, so it counts for `--stall-limit` from now on.
    pub fn takes_turn(&self, worker: usize, now: Moment, stall_limit: Duration) {
        let limit = if stall_limit.is_zero() { STALL_LIMIT } else { stall_limit };
        self.workers[worker].until.store((now + limit).0, Ordering::Relaxed);
    }

    /// A worker has sent all that comes before so many bytes of the tape to those at its head; none if nobody listens.
    pub fn show(&self, worker: usize, sent: Option<u64>) {
        self.workers[worker].sent.store(sent.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How far each worker is behind, in bytes of the tape.
    pub fn behind(&self, tape: &Tape) -> impl Iterator<Item = u64> {
        let written = tape.written();
        self.workers.iter().map(move |stand| written.saturating_sub(stand.sent.load(Ordering::Relaxed)))
    }

    /// Whether those who publish much have to wait.
    pub fn holds(&self, tape: &Tape, now: Moment) -> bool {
        self.most(tape, now) > self.bound
    }

    /// Who has published so many KiB lately, or more, has to wait: nothing, where that is everybody.
    pub fn allowance(&self, tape: &Tape, now: Moment) -> f32 {
        let beyond = self.most(tape, now).saturating_sub(self.bound);
        match beyond < self.bound {
            true => MUCH * (-HALVINGS * beyond as f32 / self.bound as f32).exp2(),
            false => 0.0,
        }
    }

    /// How far the slowest of the workers that count is behind.
    fn most(&self, tape: &Tape, now: Moment) -> u64 {
        let counts = |stand: &Stand| stand.until.load(Ordering::Relaxed) > now.0;
        let behind = self.workers.iter().zip(self.behind(tape)).filter(|(stand, _)| counts(stand));
        behind.map(|(_, behind)| behind).max().unwrap_or(0)
    }

    /// The bound, in bytes of the tape.
    pub fn bound(&self) -> u64 {
        self.bound
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        lane::Lane,
        protocol::Payload,
        publish::{By, Door},
        tape::{About, TapeSettings},
    };

    const NOW: Moment = Moment(1_000_000_000);

    fn tape() -> Tape {
        let (retain, segment) = (64 * 1024, 4096);
        let tape =
            Tape::new(TapeSettings { retain, segment, message_max: 4096, topics_max: 9, value_bytes_max: 1, epoch: 1 });
        tape.want(Lane::Json);
        tape
    }

    fn publish(tape: &Tape, times: usize) {
        let door = Door::new(tape.clone(), 9);
        for _ in 0..times {
            door.publish(By::SERVER, "a", Payload::Json(&[b'1'; 1000]), About::default()).unwrap();
        }
    }

    #[test]
    fn publishers_wait_for_the_slowest_worker_that_has_listeners_and_for_no_other() {
        let (tape, lead) = (tape(), Lead::new(3, 1 << 20, 128 * 1024));
        (0..3).for_each(|worker| lead.takes_turn(worker, NOW, Duration::ZERO));
        lead.show(0, Some(0));
        publish(&tape, 14);
        assert!(!lead.holds(&tape, NOW), "14 KB of 16");
        publish(&tape, 4);
        let allowance = lead.allowance(&tape, NOW);
        assert!(lead.holds(&tape, NOW) && allowance < MUCH && allowance > 0.0);
        assert_eq!(lead.behind(&tape).collect::<Vec<_>>(), [tape.written(), 0, 0]);
        lead.show(1, Some(tape.written()));
        assert!(lead.holds(&tape, NOW));
        lead.show(0, Some(10_000));
        assert!(!lead.holds(&tape, NOW), "it has come on");
        publish(&tape, 20);
        assert!(lead.holds(&tape, NOW));
        let before = lead.allowance(&tape, NOW);
        publish(&tape, 1);
        assert!(lead.allowance(&tape, NOW) < before, "less, the further it is behind");
        publish(&tape, 20);
        assert_eq!(lead.allowance(&tape, NOW), 0.0);
        lead.show(1, Some(tape.written()));
        lead.show(0, None);
        assert!(!lead.holds(&tape, NOW) && lead.allowance(&tape, NOW) == MUCH, "nobody listens");
    }

    #[test]
    fn a_worker_that_stands_still_holds_nobody_back_for_ever() {
        let (tape, lead) = (tape(), Lead::new(1, 16 * 1024, 1 << 20));
        let limit = Duration::from_secs(2);
        lead.takes_turn(0, NOW, limit);
        lead.show(0, Some(0));
        publish(&tape, 20);
        assert!(lead.holds(&tape, NOW + limit / 2));
        assert!(!lead.holds(&tape, NOW + limit));
        lead.takes_turn(0, NOW + limit, limit);
        assert!(lead.holds(&tape, NOW + limit), "it goes on");
    }
}
