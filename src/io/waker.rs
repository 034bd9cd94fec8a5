//! Waking a worker that sleeps, and only then.
//!
//! A write to an eventfd that wakes a sleeping thread costs the writer some 7 microseconds, so it is done once per sleep,
//! whatever number of publications or sockets follow. The two sides agree through one flag:
//!
//! ```text
//!   worker                              anybody else
//!   announce sleep                      publish something
//!   fence                               fence
//!   look for work once more             if sleep is announced: take it back, write the eventfd
//!   wait, if there was none
//! ```
//!
//! A worker without subscribers sleeps more deeply: it is woken for a new connection, not for a publication.
//!
//! Whichever fence comes second, its side sees what the other wrote before: either the worker finds the work or the
//! other finds it sleeping. `loom_model` below tries all interleavings.

use std::io;

use rustix::{
    event::{EventfdFlags, eventfd},
    fd::{AsFd, BorrowedFd, OwnedFd},
};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, Ordering, fence};

/// The bell of one sleeper.
#[derive(Debug)]
pub struct Waker {
    flag: SleepFlag,
    bell: OwnedFd,
}

impl Waker {
    /// A bell that nobody sleeps beside yet.
    ///
    /// # Errors
    /// As `eventfd(2)`: out of descriptors.
    pub fn new() -> io::Result<Waker> {
        Ok(Waker { flag: SleepFlag::new(), bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Wakes the sleeper if it sleeps; otherwise it will find the work by itself. Call after making the work visible.
    pub fn wake(&self) {
        self.ring(Sleep::Deep);
    }

    /// Like [`Waker::wake`], but leaves a sleeper alone that doesn't care for publications.
    pub fn wake_for_publication(&self) {
        self.ring(Sleep::Light);
    }

    fn ring(&self, deepest: Sleep) {
        if self.flag.take(deepest) {
            // Fails only if 2^64 - 2 writes went unread; then it has been ringing all the time.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Announces sleep; the caller then looks for work once more before it waits.
    pub fn sleeping(&self, depth: Sleep) {
        self.flag.set(depth);
    }

    /// Takes the announcement back.
    pub fn awake(&self) {
        self.flag.clear();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// How deeply a worker sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Sleep {
    /// A publication wakes it, and so does a new connection.
    Light = 1,
    /// Only a new connection wakes it.
    Deep = 2,
}

/// 0 while awake, else how deep the sleep is.
#[derive(Debug)]
struct SleepFlag(AtomicU8);

impl SleepFlag {
    fn new() -> SleepFlag {
        SleepFlag(AtomicU8::new(0))
    }

    fn set(&self, depth: Sleep) {
        self.0.store(depth as u8, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `take`, so that not both sides can miss the other.
        fence(Ordering::SeqCst);
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn take(&self, deepest: Sleep) -> bool {
        // SeqCst: pairs with the fence in `set`.
        fence(Ordering::SeqCst);
        let depth = self.0.load(Ordering::Relaxed);
        (1..=deepest as u8).contains(&depth) && self.0.swap(0, Ordering::Relaxed) != 0
    }
}

#[cfg(all(test, loom))]
mod loom_model {
    use super::*;
    use loom::sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    };

    #[test]
    fn work_is_seen_or_the_sleeper_is_rung() {
        loom::model(|| {
            let flag = Arc::new(SleepFlag::new());
            let work = Arc::new(AtomicUsize::new(0));
            let rung = Arc::new(AtomicBool::new(false));
            let publisher = {
                let (flag, work, rung) = (Arc::clone(&flag), Arc::clone(&work), Arc::clone(&rung));
                loom::thread::spawn(move || {
                    work.store(1, Ordering::Release);
                    if flag.take(Sleep::Light) {
                        rung.store(true, Ordering::Release);
                    }
                })
            };
            flag.set(Sleep::Light);
            let found = work.load(Ordering::Acquire) == 1;
            publisher.join().unwrap();
            assert!(found || rung.load(Ordering::Acquire), "asleep with work and no bell");
        });
    }
}
