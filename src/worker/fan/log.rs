//! The last changes to a table, so that what was derived from it can follow without being made anew.
//!
//! ```text
//!   version      … 40   41   42   43      now
//!   what changed …  7    3    7    9             as of 41: 7 and 9 have changed
//! ```
//!
//! Whoever derives something keeps the version that it is as of. Later it asks what has changed since, and looks at those places
//! as they are now. Places are used again for something else, and one that comes up twice is looked at twice: a look has to come
//! to the same whatever was there before.

/// Changes that are remembered: as many looks as cost what making something anew does.
pub const LOGGED: usize = 32;

/// See the module's description.
#[derive(Debug)]
pub struct Log {
    version: u64,
    /// The place that a version changed, by the version's last bits.
    last: [u32; LOGGED],
}

impl Default for Log {
    fn default() -> Log {
        // What is as of 0 was never made.
        Log { version: LOGGED as u64 + 1, last: [0; LOGGED] }
    }
}

impl Log {
    /// What is there now.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What was at this place is gone, or something has come there.
    pub fn note(&mut self, place: u32) {
        self.version += 1;
        self.last[self.version as usize % LOGGED] = place;
    }

    /// The places that have changed since; none if that is too long ago.
    pub fn since(&self, version: u64) -> Option<impl Iterator<Item = u32>> {
        let missed = self.version - version;
        (missed <= LOGGED as u64).then(|| (version + 1..=self.version).map(|at| self.last[at as usize % LOGGED]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_known_as_far_back_as_there_is_room_for() {
        let mut log = Log::default();
        assert!(log.since(0).is_none(), "what was never made is made anew");
        let begun = log.version();
        for place in 0..LOGGED as u32 {
            log.note(place);
        }
        assert!(log.since(begun).expect("just so many").eq(0..LOGGED as u32));
        assert_eq!(log.since(log.version()).map(Iterator::count), Some(0));
        log.note(100);
        assert!(log.since(begun).is_none());
        assert!(log.since(begun + 1).expect("the last ones").eq((1..LOGGED as u32).chain([100])));
    }
}
