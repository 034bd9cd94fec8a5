//! Where a worker stands: what it is still to send to those at its head, as bytes of the tape.
//!
//! What was planned is on its way in passes, which may end in any order; what comes before the oldest of them has been sent. So
//! each pass is noted with the bytes before it, and forgotten when the oldest is younger.

use std::collections::VecDeque;

use crate::slack::{KEPT_BY_ONE, Slack};

/// See the module's description.
#[derive(Debug, Default)]
pub struct Standing {
    /// Passes on their way, by their numbers, which wrap around, and the bytes of the tape before each.
    passes: VecDeque<(u32, u64)>,
    /// Bytes before what isn't planned yet, as of the last look; none if nobody listened then.
    planned: Option<u64>,
}

impl Standing {
    /// A turn has planned what comes before `planned` bytes of the tape, and the oldest and the newest pass on their way are these;
    /// none if none is. Returns the bytes before what is still to be sent.
    pub fn at(&mut self, planned: u64, on_their_way: Option<(u32, u32)>) -> u64 {
        let before = self.planned.replace(planned).unwrap_or(planned);
        let Some((oldest, newest)) = on_their_way else {
            self.passes.clear();
            self.passes.give_back(KEPT_BY_ONE);
            return planned;
        };
        if self.passes.back().is_none_or(|(pass, _)| *pass != newest) {
            // It began where planning had come to.
            self.passes.push_back((newest, before));
        }
        while self.passes.front().is_some_and(|(pass, _)| (pass.wrapping_sub(oldest) as i32) < 0) {
            self.passes.pop_front();
        }
        self.passes.front().map_or(before, |(_, bytes)| *bytes)
    }

    /// Nobody listens; whoever does next begins where the tape is then.
    pub fn rest(&mut self) {
        *self = Standing::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_the_oldest_pass_on_its_way_was_sent() {
        let mut standing = Standing::default();
        let first = u32::MAX - 1;
        let pass = |n: u32| first.wrapping_add(n);
        assert_eq!(standing.at(100, None), 100, "planned and sent in one turn");
        assert_eq!(standing.at(150, Some((pass(0), pass(0)))), 100);
        assert_eq!(standing.at(150, Some((pass(0), pass(0)))), 100);
        // The numbers wrap around.
        assert_eq!(standing.at(400, Some((pass(0), pass(1)))), 100);
        assert_eq!(standing.at(900, Some((pass(0), pass(2)))), 100);
        assert_eq!(standing.at(900, Some((pass(2), pass(2)))), 400);
        assert_eq!(standing.at(1000, None), 1000);
        standing.rest();
        assert_eq!(standing.at(5000, None), 5000);
        assert_eq!(standing.at(5100, Some((pass(3), pass(3)))), 5000);
    }
}
