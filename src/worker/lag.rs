//! Falling off the tape: what happens to a subscriber that is further behind than `--retain` holds.
//!
//! It is told (`error`, code `lagged`) and closed with 4100; it is never skipped in silence. If it had stopped in the middle
//! of a frame, the rest of that frame goes first: the worker still pins the segment, and copies it before it lets go.

use super::{Worker, closing::Farewell, connection::Speaks};
use crate::{
    io::{Edge, Token},
    websocket::CloseCode,
};

impl<E: Edge> Worker<E> {
    /// Closes every connection whose next publication is no longer on the tape.
    pub(super) fn drop_fallen(&mut self) {
        let floor = self.reader.floor();
        if floor == self.checked_floor {
            return;
        }
        self.checked_floor = floor;
        let fallen = |worker: &Self, token: &Token| {
            worker.connections[*token as usize].next_needed().is_some_and(|at| at < floor)
        };
        let alone: Vec<Token> = self.alone.iter().copied().filter(|token| fallen(self, token)).collect();
        for token in alone {
            self.lagged(token);
        }
        if self.position < floor {
            // The worker itself was held up for longer than the tape holds: nobody in the march got what is gone.
            for id in self.interest.cohort_ids() {
                for token in self.interest.cohort(id).members.clone() {
                    self.lagged(token);
                }
            }
            self.position = floor;
        }
    }

    fn lagged(&mut self, token: Token) {
        let connection = &self.connections[token as usize];
        let behind = connection.next_needed().unwrap_or(self.position);
        let lost = self.reader.floor().0 - behind.0;
        let text = format!("too slow: {lost} publications are no longer retained; subscribe again");
        let told = matches!(connection.speaks, Speaks::Json);
        self.close(token, Farewell { code: Some(CloseCode::LAGGED), reason: &text, error: told.then_some("lagged") });
    }

    /// The greatest lag of a subscriber, in publications.
    pub(super) fn lag_max(&self) -> u64 {
        let of = |token: &Token| self.connections[*token as usize].next_needed();
        let last = self.alone.iter().filter_map(of).min();
        last.map_or(0, |last| self.reader.head().0.saturating_sub(last.0))
    }
}
