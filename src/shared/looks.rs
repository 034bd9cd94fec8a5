//! Looking at connections, whoever has them: an operator's question waits here until its worker has a turn, and the answer lies here until
//! whoever asked has fetched it.
//!
//! ```text
//!   control, admin                         worker
//!   ask ──► its list, and it is woken ──►  a piece of at most so many, within its turn
//!   fetch ◄────────────────────────────── answer
//! ```
//!
//! One question is about one piece of one worker's table of connections: places from `from` on, as many as a turn allows. Who wants more
//! asks again, from where the answer ends. So a worker keeps nothing of it between two turns.
//!
//! Bounds: a worker has at most [`ASKS_MAX`] questions waiting, and answers one a turn; an answer has at most [`ROWS_MAX`] rows. Whoever asked and has
//! gone costs nothing: the question is passed by.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::io::Token;

/// Questions that may wait for one worker: the admin address alone has as many connections.
pub const ASKS_MAX: usize = 64;

/// Connections in one answer.
pub const ROWS_MAX: usize = 64;

/// A connection, as its worker has it.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// What `hello` and the log call it.
    pub conn: String,
    pub address: SocketAddr,
    pub worker: usize,
    /// Since it has been speaking as it does.
    pub connected: Duration,
    /// What it is spoken with: `ws`, `raw` or `sse`.
    pub door: &'static str,
    /// The first of its subscriptions.
    pub subscriptions: Vec<Arc<str>>,
    /// How many more it has.
    pub more: usize,
    pub mode: &'static str,
    /// How many connections of its worker have the same subscription, this one with them.
    pub same: usize,
    /// It is not at the head: its socket was full, or it has just subscribed.
    pub is_behind: bool,
    /// How it is sent publications, and why it reads no shared stream where it doesn't.
    pub compression: &'static str,
}

/// A question about connections of one worker.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Those in this place of its table and behind it.
    pub from: Token,
    /// Not more of them.
    pub most: usize,
    /// Only the one with this number.
    pub only: Option<u64>,
    found: Mutex<Option<Found>>,
}

/// What a worker has found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub rows: Vec<Shown>,
    /// Where it goes on; none if that is all.
    pub next: Option<Token>,
}

impl Ask {
    /// Answers it.
    pub(crate) fn answer(&self, found: Found) {
        *self.found.lock() = Some(found);
    }

    /// Whether the answer is there.
    pub(crate) fn is_answered(&self) -> bool {
        self.found.lock().is_some()
    }

    /// Takes the answer, once it is there.
    pub(crate) fn fetch(&self) -> Option<Found> {
        self.found.lock().take()
    }
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Looks(Box<[CachePadded<Waiting>]>);

#[derive(Debug, Default)]
struct Waiting {
    asks: Mutex<VecDeque<Arc<Ask>>>,
    any: AtomicBool,
}

impl Looks {
    /// Nobody has asked yet, of so many workers.
    pub(crate) fn new(workers: usize) -> Looks {
        Looks((0..workers).map(|_| CachePadded::default()).collect())
    }

    /// How many workers can be asked.
    pub(crate) fn workers(&self) -> usize {
        self.0.len()
    }

    /// Asks a worker, which is to be woken then. None if too many have asked.
    pub(crate) fn ask(&self, worker: usize, (from, most): (Token, usize), only: Option<u64>) -> Option<Arc<Ask>> {
        let waiting = self.0.get(worker)?;
        let mut asks = waiting.asks.lock();
        asks.retain(is_awaited);
        if asks.len() >= ASKS_MAX {
            return None;
        }
        let ask = Arc::new(Ask { from, most: most.min(ROWS_MAX), only, found: Mutex::default() });
        asks.push_back(Arc::clone(&ask));
        // Release: pairs with the swap in `next`, so that whoever sees it finds the question.
        waiting.any.store(true, Ordering::Release);
        Some(ask)
    }

    /// Whether somebody has asked a worker.
    #[inline]
    pub(crate) fn has_any(&self, worker: usize) -> bool {
        // Relaxed: whoever asks wakes the worker, and the two fences in `io/waker.rs` see to it that one of both sees the other.
        self.0.get(worker).is_some_and(|waiting| waiting.any.load(Ordering::Relaxed))
    }

    /// The question that a worker is to answer next.
    pub(crate) fn next(&self, worker: usize) -> Option<Arc<Ask>> {
        let waiting = self.0.get(worker)?;
        waiting.any.swap(false, Ordering::Acquire);
        let mut asks = waiting.asks.lock();
        asks.retain(is_awaited);
        let next = asks.pop_front();
        // Under the lock: nobody comes between.
        waiting.any.store(!asks.is_empty(), Ordering::Relaxed);
        next
    }
}

/// Whether whoever has asked is still there.
fn is_awaited(ask: &Arc<Ask>) -> bool {
    Arc::strong_count(ask) > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_answered_in_order_and_those_of_whoever_has_gone_are_passed_by() {
        let looks = Looks::new(2);
        let asks: Vec<_> = (0..3).map(|from| looks.ask(1, (from, 1000), None).unwrap()).collect();
        assert_eq!((looks.has_any(0), looks.has_any(1), looks.ask(2, (0, 1), None).is_none()), (false, true, true));
        assert_eq!(asks[0].most, ROWS_MAX);
        let mut asks = asks.into_iter();
        let (first, gone, last) = (asks.next().unwrap(), asks.next().unwrap(), asks.next().unwrap());
        drop(gone);
        let next = || looks.next(1).map(|ask| ask.from);
        assert_eq!((next(), next(), next()), (Some(0), Some(2), None));
        assert!(!looks.has_any(1) && first.fetch().is_none());
        last.answer(Found { rows: Vec::new(), next: Some(7) });
        assert_eq!((last.fetch().unwrap().next, last.fetch().is_none()), (Some(7), true), "once");
    }

    #[test]
    fn no_more_wait_than_may() {
        let looks = Looks::new(1);
        let asks: Vec<_> = (0..ASKS_MAX).map(|_| looks.ask(0, (0, 1), None).unwrap()).collect();
        assert!(looks.ask(0, (0, 1), None).is_none());
        drop(asks);
        assert!(looks.ask(0, (0, 1), None).is_some(), "nobody waits for those");
    }
}
