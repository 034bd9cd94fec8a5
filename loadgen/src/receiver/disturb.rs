//! Disturbing some subscribers: stalls, slow reading, coming and going, coming late, reconnecting all at once.
//!
//! Half of the measured time goes by undisturbed, for comparison. Disturbed subscribers are checked like the others but
//! never measured, so the figures of both halves are of the same, healthy population. Where they are set up anew, which costs the generator more
//! than a delivery does, they have a thread of their own (`Spec::apart`).

use fastrand::Rng;

use super::Receiver;
use crate::{clock, connection::Stage, shared::Shared, spec::Disturbance};

/// When what is to be disturbed next.
pub(super) struct Disturber {
    from: u64,
    until: u64,
    what: Disturbance,
    begun: bool,
    next_at: u64,
    joined: usize,
    random: Rng,
}

/// Slow readers read this often.
const SLOW_EVERY_NS: u64 = 50_000_000;

impl Disturber {
    /// What the run's settings ask for, of one thread.
    pub fn new(shared: &Shared, thread: usize) -> Self {
        let from = shared.classes.disturbed_at();
        Self {
            from,
            until: shared.classes.end_at(),
            what: shared.spec.disturbance.clone(),
            begun: false,
            next_at: from,
            joined: 0,
            random: Rng::with_seed(shared.spec.seed ^ (thread as u64) << 32),
        }
    }
}

impl Receiver {
    /// Does what is due.
    pub(super) fn disturb(&mut self, now: u64) {
        let Some(mut disturber) = self.disturber.take() else { return };
        if now >= disturber.from {
            let first = !std::mem::replace(&mut disturber.begun, true);
            match disturber.what {
                Disturbance::None => {}
                Disturbance::Slow { read, .. } => self.slow(&mut disturber, now, first, read.0),
                Disturbance::Churn { rate, .. } => self.churn(&mut disturber, now, rate.0),
                Disturbance::Join { .. } => self.join(&mut disturber, now),
                Disturbance::Storm { .. } if first => self.storm(),
                Disturbance::Storm { .. } => {}
            }
        }
        self.disturber = Some(disturber);
    }

    /// Stops listening to the slow ones; reads them by and by where they read at all.
    fn slow(&mut self, disturber: &mut Disturber, now: u64, first: bool, per_second: usize) {
        if first {
            for conn in self.conns.iter_mut().filter(|conn| conn.disturbed) {
                conn.stalled = true;
                if let Some(line) = &conn.line {
                    // Nothing is watched of it, not even its end: a stalled client does not notice.
                    let _ = self.poller.remove(&line.fd);
                }
            }
        }
        if per_second == 0 || now < disturber.next_at {
            return;
        }
        disturber.next_at = now + SLOW_EVERY_NS;
        let share = (per_second as u64 * SLOW_EVERY_NS / 1_000_000_000).max(1) as usize;
        for index in 0..self.conns.len() {
            if self.conns[index].stalled && self.conns[index].stage == Stage::Live {
                self.read(index, share);
            }
        }
    }

    /// Lets as many leave and return as are due.
    fn churn(&mut self, disturber: &mut Disturber, now: u64, rate: f64) {
        let spec = &self.shared.spec;
        let each = (1e9 * if spec.apart { 1.0 } else { spec.threads as f64 } / rate) as u64;
        let candidates: Vec<usize> = (0..self.conns.len()).filter(|&index| self.conns[index].disturbed).collect();
        if candidates.is_empty() {
            return;
        }
        while disturber.next_at <= now && disturber.next_at < disturber.until {
            let due = disturber.next_at;
            disturber.next_at += each.max(1);
            let index = candidates[disturber.random.usize(..candidates.len())];
            if self.conns[index].stage != Stage::Live {
                continue;
            }
            if self.shared.dialect.can_unsubscribe() && disturber.random.bool() {
                self.resubscribe(index, due);
            } else {
                self.leave(index);
                self.begin(index, due);
            }
        }
    }

    /// Connects those of the late ones that are due; they come evenly.
    fn join(&mut self, disturber: &mut Disturber, now: u64) {
        let late: Vec<usize> = (0..self.conns.len()).filter(|&index| self.conns[index].disturbed).collect();
        let length = disturber.until - disturber.from;
        while let Some(&index) = late.get(disturber.joined) {
            let due = disturber.from + length * disturber.joined as u64 / late.len() as u64;
            if due > now {
                break;
            }
            disturber.joined += 1;
            self.begin(index, due);
        }
    }

    /// Cuts all of them off, then connects them all.
    fn storm(&mut self) {
        let due = clock::now();
        let all: Vec<usize> = (0..self.conns.len()).filter(|&index| self.conns[index].disturbed).collect();
        for &index in &all {
            self.leave(index);
        }
        for &index in &all {
            self.begin(index, due);
        }
    }

    /// Says goodbye and hangs up.
    fn leave(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        conn.say_goodbye(1000);
        conn.hang_up(Stage::Idle);
        conn.returned = true;
        conn.ledger.reset();
    }
}
