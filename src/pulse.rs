//! Whether a server's threads go on, asked of the threads themselves.
//!
//! That nothing is known of a thread's standing still proves nothing of it: one that sleeps and is never woken again is as quiet as one
//! that has nothing to do. So all of them are called, by the bell that wakes them for work, and at the next look each must have taken
//! a turn since. A call costs an idle thread a turn, a few microseconds, and a busy one nothing.

use std::sync::Arc;

use crate::{
    io::waker::Waker,
    metrics::{Figure, Metrics},
};

/// Feels whether the workers and the control thread of a server take turns. Of
/// [`Server::pulse`](crate::server::Server::pulse).
#[derive(Debug)]
pub struct Pulse {
    metrics: Arc<Metrics>,
    /// The workers', and the control thread's behind them.
    bells: Vec<Arc<Waker>>,
    /// How many turns each had taken when it was called.
    called: Vec<u64>,
}

impl Pulse {
    /// Calls the workers and the control thread, the last of `bells`, for the first time.
    pub(crate) fn new(metrics: Arc<Metrics>, bells: Vec<Arc<Waker>>) -> Pulse {
        let mut pulse = Pulse { called: Vec::new(), metrics, bells };
        pulse.call();
        pulse
    }

    /// Whether every thread has taken a turn since the last time, or since this was made; then all are called again. Between two
    /// looks must lie more time than a turn may take: seconds, on a machine that is busy.
    ///
    /// # Errors
    /// A sentence about the first that has not.
    pub fn feel(&mut self) -> Result<(), String> {
        let stands = self.turns().zip(&self.called).position(|(turns, called)| turns.get() == *called);
        self.call();
        match stands {
            None => Ok(()),
            Some(worker) if worker < self.metrics.workers.len() => {
                Err(format!("worker {worker} has taken no turn since it was called"))
            }
            Some(_) => Err("the control thread has taken no turn since it was called".to_owned()),
        }
    }

    fn call(&mut self) {
        // What they have done is read first: a turn that answers the call comes behind it.
        self.called = self.turns().map(Figure::get).collect();
        self.bells.iter().for_each(|bell| bell.wake());
    }

    fn turns(&self) -> impl Iterator<Item = &Figure> {
        self.metrics.workers.iter().map(|worker| &worker.turns).chain([&self.metrics.control_turns])
    }
}
