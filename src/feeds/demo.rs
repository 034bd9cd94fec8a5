//! The demo feed: the simulated market, played against the clock.
//!
//! Deadlines are absolute, so the rate holds; what is due together goes out in one batch. After a stop of more than a
//! second (a suspended process) it goes on from there instead of catching up.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::{Gathered, Sink, Wait, market::Market, wait, wait_for_room};
use crate::publication::Payload;

/// What the market did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Publications taken by the server.
    pub publications: u64,
    /// Publications that it refused; the first reasons are logged.
    pub refused: u64,
}

/// Publishes the market against the clock, until `stop` is told or dropped.
pub fn run(mut market: Market, mut sink: impl Sink, stop: &Receiver<()>) -> Summary {
    const LOGGED_MAX: u64 = 3; // a full table of topics refuses alike each time
    let mut pace = Pace::new(Instant::now());
    let mut gathered = Gathered::new();
    let mut summary = Summary::default();
    let mut tick = market.next();
    while wait(stop, pace.deadline(tick.at_us, Instant::now())) == Wait::Go && wait_for_room(&sink, stop) == Wait::Go {
        let now_us = pace.elapsed_us(Instant::now());
        while Pace::due_us(tick.at_us) <= now_us && !gathered.is_full() {
            gathered.add(tick.topic, Payload::Json(tick.data), 0);
            tick = market.next();
        }
        let (published, _) = gathered.push_all(&mut sink, |_, reason| {
            summary.refused += 1;
            if summary.refused <= LOGGED_MAX {
                tracing::warn!("demo: a publication was refused: {reason}");
            }
        });
        summary.publications += published;
    }
    tracing::info!(publications = summary.publications, refused = summary.refused, "demo ended");
    summary
}

/// Market time against the clock's.
struct Pace {
    origin: Instant,
}

impl Pace {
    /// Deadlines are rounded up to this, so that a fast market wakes its thread and the workers 2,000 times a second and
    /// not for each publication.
    const GRAIN_US: u64 = 500;
    /// Later than this means that the process was stopped: what was missed is not made up for.
    const LATE_MAX: Duration = Duration::from_secs(1);

    fn new(origin: Instant) -> Self {
        Pace { origin }
    }

    fn due_us(at_us: u64) -> u64 {
        at_us.next_multiple_of(Self::GRAIN_US)
    }

    fn elapsed_us(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_micros() as u64
    }

    /// When to publish what happens at `at_us`. Where that was too long ago, the origin moves so that it is now.
    fn deadline(&mut self, at_us: u64, now: Instant) -> Instant {
        let deadline = self.origin + Duration::from_micros(Self::due_us(at_us));
        let late = now.saturating_duration_since(deadline);
        if late <= Self::LATE_MAX {
            return deadline;
        }
        self.origin += late;
        deadline + late
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Recorder;
    use super::*;

    #[test]
    fn what_a_long_stop_missed_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let ms = Duration::from_millis;
        assert_eq!(pace.deadline(100_200, start), start + Duration::from_micros(100_500));
        assert_eq!(pace.deadline(100_000, start + ms(900)), start + ms(100));
        let awake = start + ms(60_000);
        assert_eq!(pace.deadline(200_000, awake), awake);
        assert_eq!(pace.deadline(300_000, awake), awake + ms(100));
    }

    #[test]
    fn the_market_runs_at_its_rate_until_it_is_stopped() {
        let (recorder, (tell, stop)) = (Recorder::default(), crossbeam_channel::bounded(1));
        let sink = recorder.clone();
        let thread = std::thread::spawn(move || run(Market::new(7, 10, 2000.0), sink, &stop));
        let started = Instant::now();
        while recorder.0.lock().published.len() < 300 {
            std::thread::yield_now();
        }
        assert!(started.elapsed() > Duration::from_millis(100));
        tell.send(()).unwrap();
        let summary = thread.join().unwrap();
        assert_eq!(summary.publications as usize, recorder.0.lock().published.len());
    }
}
