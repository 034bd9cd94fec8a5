//! A value that may be replaced while threads use it, such as the settings that a reload changes.
//!
//! Each thread keeps an [`Arc`] of what it has last seen, and asks once a turn whether that is still the newest: one load
//! and one comparison, no lock, and nothing at all per message. Only after a change is a lock taken, once.

use std::sync::{
    Arc,
    atomic::{AtomicPtr, Ordering},
};

use parking_lot::Mutex;

/// A value with one newest version.
#[derive(Debug)]
pub struct Live<T> {
    newest: Mutex<Arc<T>>,
    /// Where the newest is, to compare with; never read through.
    at: AtomicPtr<T>,
}

impl<T> Live<T> {
    /// Begins with this value.
    pub fn new(value: T) -> Live<T> {
        let value = Arc::new(value);
        Live { at: AtomicPtr::new(Arc::as_ptr(&value).cast_mut()), newest: Mutex::new(value) }
    }

    /// The newest version. Takes a lock: not for every message.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.newest.lock())
    }

    /// Replaces the value; everybody sees it when they next look.
    pub fn set(&self, value: T) {
        let value = Arc::new(value);
        let mut newest = self.newest.lock();
        // Relaxed, here and in `refresh`: it tells only that there is something new; what it is comes from under the lock.
        self.at.store(Arc::as_ptr(&value).cast_mut(), Ordering::Relaxed);
        *newest = value;
    }

    /// Makes `seen` the newest version, if it isn't. While `seen` holds its version, no other can lie at the same address.
    pub fn refresh(&self, seen: &mut Arc<T>) {
        if !std::ptr::eq(self.at.load(Ordering::Relaxed), Arc::as_ptr(seen)) {
            *seen = self.get();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_at_the_next_look_and_not_before() {
        let live = Live::new(1);
        let mut seen = live.get();
        live.set(2);
        assert_eq!(*seen, 1);
        live.refresh(&mut seen);
        assert_eq!(*seen, 2);
        let before = Arc::as_ptr(&seen);
        live.refresh(&mut seen);
        assert_eq!(Arc::as_ptr(&seen), before, "nothing is taken anew where nothing changed");
    }
}
