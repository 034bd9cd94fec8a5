//! The atomics and cells of the tape's publish protocol, so that the model checker can put its own in their place.

#[cfg(not(loom))]
pub(super) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub(super) use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

#[cfg(loom)]
pub(super) use loom::{
    cell::UnsafeCell,
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

/// The lock, if it can be had within some milliseconds.
#[cfg(not(loom))]
pub(super) fn lock_soon<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    mutex.try_lock_for(std::time::Duration::from_millis(5))
}

/// The model checker has no time.
#[cfg(loom)]
pub(super) fn lock_soon<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    Some(mutex.lock())
}

/// The model checker's lock can be poisoned; this gives it the interface of the real one.
#[cfg(loom)]
#[derive(Debug, Default)]
pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(loom)]
impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Self {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("a panic ends the model")
    }
}

/// The model checker's cell has a closure interface; this gives the real one the same.
#[cfg(not(loom))]
#[derive(Debug)]
pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(super) fn new(value: T) -> Self {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    pub(super) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    pub(super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
