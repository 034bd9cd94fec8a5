//! How much is looked at under a lock: in tests, in the place of a clock.

use std::cell::Cell;

/// What lies under a lock counts here what its holder looks at; the next holder begins anew.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    now: Cell<usize>,
    most: Cell<usize>,
}

impl Looks {
    /// It is looked at so many things more.
    pub fn add(&self, things: usize) {
        self.now.set(self.now.get() + things);
        self.most.set(self.most.get().max(self.now.get()));
    }

    /// The lock was given up and taken again.
    pub fn begin(&self) {
        self.now.set(0);
    }

    /// Things that were looked at under one hold, at most.
    pub fn most(&self) -> usize {
        self.most.get()
    }
}
