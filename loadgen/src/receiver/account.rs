//! The account: what a thread's subscribers still lack, and when there is nothing left to wait for.

use std::sync::atomic::Ordering;

use super::Receiver;
use crate::{
    clock,
    connection::{Connection, Stage},
    dialect::Gaps,
    frame::{self, Scan},
    meter::Interval,
    spec::Disturbance,
};

impl Receiver {
    /// Publications of a connection's topics that should have come and did not.
    pub(super) fn missing(&self, conn: &Connection) -> u64 {
        let spec = &self.shared.spec;
        let slow = matches!(spec.disturbance, Disturbance::Slow { .. });
        if spec.bare || (conn.disturbed && slow) || self.finish_at.is_none() {
            return 0;
        }
        let tails = (0..conn.ledger.len()).map(|slot| self.missing_at_end(conn, slot));
        tails.sum::<u64>() + if conn.gaps == Gaps::Never { conn.ledger.missing() } else { 0 }
    }

    /// Publications after the last that a connection got of one topic.
    fn missing_at_end(&self, conn: &Connection, slot: usize) -> u64 {
        let topic = conn.topics.topic(slot);
        // Acquire: pairs with the publisher's store before it reports to be done.
        let last = self.shared.published[topic].load(Ordering::Acquire);
        let behind = match conn.ledger.expected(slot) {
            Some(next) => (last + 1).saturating_sub(next),
            None if conn.returned => 0,
            None => last,
        };
        if conn.gaps == Gaps::Never { behind.into() } else { behind.min(1).into() }
    }

    /// Whether nothing more can come that is waited for.
    pub(super) fn has_everything(&self) -> bool {
        if self.shared.spec.bare {
            return self.judge.interval.last_delivery + BARE_SILENCE_NS < clock::now();
        }
        let slow = matches!(self.shared.spec.disturbance, Disturbance::Slow { .. });
        let waited_for = |conn: &&Connection| !(conn.disturbed && slow) && conn.stage != Stage::Over;
        self.conns
            .iter()
            .filter(waited_for)
            .all(|conn| !conn.is_opening() && (0..conn.ledger.len()).all(|slot| self.missing_at_end(conn, slot) == 0))
    }
}

/// Counts deliveries by their bytes, all being as long as the first. The least that a receiver can do.
#[derive(Default)]
pub(super) struct Bare {
    frame: usize,
    rest: usize,
}

impl Bare {
    /// Counts what one read brought.
    pub(super) fn count(&mut self, bytes: &[u8], now: u64, interval: &mut Interval) {
        if self.frame == 0
            && let Scan::Frame(frame) = frame::scan(bytes)
        {
            self.frame = frame.len;
        }
        interval.last_delivery = now;
        if self.frame > 0 && interval.index >= 0 {
            let all = self.rest + bytes.len();
            interval.unchecked += (all / self.frame) as u64;
            self.rest = all % self.frame;
        }
    }
}

/// A receiver that only counts cannot know what is missing: silence for so long is the end.
const BARE_SILENCE_NS: u64 = 300_000_000;
