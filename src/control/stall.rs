//! Which worker has stopped taking turns, and since when.
//!
//! A worker says when its turn began, and 0 while it sleeps (`WorkerMetrics::turn_begun`): that tells how long it has been in
//! one turn. A worker that sleeps must be woken by a socket in its inbox, and by a publication at the position that it
//! sleeps for (`WorkerMetrics::sleeps_for`). If either was there and the worker has taken no turn since, the wake-up is
//! unanswered. Nobody notes when it came, so it counts from the first look that found it: somebody has to look now and then.
//!
//! Nothing here takes a lock: whatever a worker is stuck in may hold one.

use std::time::Duration;

use crate::{
    clock::Moment,
    metrics::{Figure, Metrics},
};

/// How often to look.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What was seen of each worker.
#[derive(Default)]
pub(super) struct Stalls(Vec<Seen>);

#[derive(Clone, Copy, Default)]
struct Seen {
    turns: u64,
    /// Since when a wake-up has been unanswered.
    unanswered: Option<Moment>,
}

/// A worker that stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stall {
    /// It has been in one turn for so long.
    InTurn(Duration),
    /// It has left a wake-up unanswered for so long.
    Asleep(Duration),
}

impl Stall {
    pub fn length(self) -> Duration {
        match self {
            Stall::InTurn(length) | Stall::Asleep(length) => length,
        }
    }

    /// What to say of a worker.
    pub fn sentence(self, worker: usize) -> String {
        let seconds = self.length().as_secs();
        match self {
            Stall::InTurn(_) => format!("Worker {worker} has been in one turn for {seconds} s."),
            Stall::Asleep(_) => format!("Worker {worker} has left a wake-up unanswered for {seconds} s."),
        }
    }
}

impl Stalls {
    /// Looks at every worker; `waiting` is how many sockets wait for it, `head` the head of the tape. Returns the one
    /// that has stood still for longest.
    pub fn look(
        &mut self,
        now: Moment,
        metrics: &Metrics,
        waiting: impl Fn(usize) -> usize,
        head: u64,
    ) -> Option<(usize, Stall)> {
        self.0.resize(metrics.workers.len(), Seen::default());
        let stalls = metrics.workers.iter().zip(&mut self.0).enumerate().filter_map(|(n, (worker, seen))| {
            let turns = worker.turns.get();
            let is_called = waiting(n) > 0 || head > worker.sleeps_for.get();
            let goes_on = seen.unanswered.filter(|_| seen.turns == turns);
            let begun = worker.turn_begun.get();
            *seen = Seen { turns, unanswered: (begun == 0 && is_called).then(|| goes_on.unwrap_or(now)) };
            let in_turn = (begun > 0).then(|| Stall::InTurn(now.since(Moment(begun))));
            let stall = in_turn.or_else(|| seen.unanswered.map(|since| Stall::Asleep(now.since(since))));
            stall.map(|stall| (n, stall))
        });
        stalls.max_by_key(|(_, stall)| stall.length())
    }
}

/// How long a worker has been in its present turn, given when that began.
pub(super) fn turn_age(now: Moment, begun: &Figure) -> Duration {
    match begun.get() {
        0 => Duration::ZERO,
        begun => now.since(Moment(begun)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Moment {
        Moment(1) + SECOND * seconds as u32
    }

    #[test]
    fn a_worker_in_one_turn_is_told_from_one_that_takes_many() {
        let metrics = Metrics::new(2);
        metrics.workers.iter().for_each(|worker| worker.sleeps_for.set(u64::MAX));
        let mut stalls = Stalls::default();
        metrics.workers[1].turn_begun.set(at(3).0);
        assert_eq!(stalls.look(at(10), &metrics, |_| 0, 7), Some((1, Stall::InTurn(SECOND * 7))));
        metrics.workers[1].turn_begun.set(at(10).0);
        assert_eq!(stalls.look(at(10), &metrics, |_| 0, 7), Some((1, Stall::InTurn(Duration::ZERO))));
        metrics.workers[1].turn_begun.set(0);
        assert_eq!(stalls.look(at(11), &metrics, |_| 0, 7), None, "it sleeps, and nobody calls");
        let text = Stall::InTurn(SECOND * 7).sentence(1);
        assert_eq!(text, "Worker 1 has been in one turn for 7 s.");
    }

    #[test]
    fn a_wake_up_is_unanswered_while_no_turn_is_taken() {
        let metrics = Metrics::new(1);
        let worker = &metrics.workers[0];
        worker.sleeps_for.set(u64::MAX);
        let mut stalls = Stalls::default();
        assert_eq!(stalls.look(at(1), &metrics, |_| 0, 7), None);
        // A socket waits for it.
        assert_eq!(stalls.look(at(2), &metrics, |_| 1, 7), Some((0, Stall::Asleep(Duration::ZERO))));
        assert_eq!(stalls.look(at(8), &metrics, |_| 1, 7), Some((0, Stall::Asleep(SECOND * 6))));
        worker.turns.add(1);
        assert_eq!(stalls.look(at(9), &metrics, |_| 1, 7), Some((0, Stall::Asleep(Duration::ZERO))), "it took a turn");
        // A publication that it sleeps for.
        worker.turns.add(1);
        worker.sleeps_for.set(7);
        assert_eq!(stalls.look(at(10), &metrics, |_| 0, 7), None);
        stalls.look(at(11), &metrics, |_| 0, 8);
        let stall = stalls.look(at(16), &metrics, |_| 0, 9).unwrap().1;
        assert_eq!(stall.sentence(0), "Worker 0 has left a wake-up unanswered for 5 s.");
    }
}
