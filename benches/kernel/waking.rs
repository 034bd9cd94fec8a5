//! What does it cost to wake a thread, and to find that it is awake?
//!
//! The worker's own bell and its own wait (`src/io/waker.rs`, `src/io/epoll.rs`), seen from who publishes: once with a
//! sleeper, once without one. Between the two, a write to an eventfd at which nobody sleeps: what each publication
//! would cost if nobody looked first whether there is somebody to wake.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, epoll, eventfd};
use stentor::internals::io::{
    Edge,
    epoll::Epoll,
    waker::{Sleep, Waker},
};

use crate::{
    cpu::{Cores, Time},
    rounds, table,
};

/// What the thread that is rung for is doing.
#[derive(Clone, Copy)]
enum Way {
    Awake,
    WrittenAnyway,
    Asleep,
}

const WAYS: &[Way] = &[Way::Awake, Way::WrittenAnyway, Way::Asleep];

const NAMES: &[&str] =
    &["awake: that is seen and nothing done", "awake: the eventfd is written nevertheless", "asleep: it is woken"];

/// Wakings of a sample.
const WAKINGS: u64 = 100;

/// How long the sleeper is left alone before it is woken: long enough for its core to go idle.
const NAP: Duration = Duration::from_micros(300);

/// How often what is short is done for a sample.
const TIMES: u32 = 10_000;

pub fn answer(cores: Cores) -> io::Result<()> {
    let mut sleeper = Sleeper::start(cores)?;
    let nobody = Waker::new()?;
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    // Watched as a worker's is, so that a write finds who watches.
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&set, &bell, epoll::EventData::new_u64(0), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
    let spreads = rounds::interleaved(WAYS, |way| match way {
        Way::Asleep => sleeper.sample(),
        Way::WrittenAnyway => repeated(|| {
            rustix::io::write(&bell, &1u64.to_ne_bytes()).expect("its counter is far from full");
        }),
        Way::Awake => repeated(|| nobody.wake_for_publication()),
    });
    table::print_ways("Ringing for another thread: CPU time of who rings", "a ring", NAMES, &spreads);
    Ok(())
}

/// CPU time of something short.
fn repeated(mut ring: impl FnMut()) -> f64 {
    Time::of(|| (0..TIMES).for_each(|_| ring())).cpu / f64::from(TIMES)
}

/// A thread that sleeps as a worker does, and says when it was woken. It is left behind asleep.
struct Sleeper {
    waker: Arc<Waker>,
    shared: Arc<Counts>,
    wakings: u64,
}

/// Both only grow, by one in turns.
#[derive(Default)]
struct Counts {
    /// What there is to do; written by who wakes.
    work: AtomicU64,
    /// What has been done; written by the sleeper.
    done: AtomicU64,
}

impl Sleeper {
    fn start(cores: Cores) -> io::Result<Sleeper> {
        let waker = Arc::new(Waker::new()?);
        let shared = Arc::new(Counts::default());
        let mut edge = Epoll::new(Arc::clone(&waker), Duration::ZERO)?;
        let counts = Arc::clone(&shared);
        thread::Builder::new().name("sleeper".into()).spawn(move || {
            cores.pin_second();
            let (mut done, mut ready) = (0, Vec::new());
            loop {
                // Acquire: pairs with the Release in `sample`.
                let mut has_work = || counts.work.load(Ordering::Acquire) != done;
                edge.wait(None, Sleep::Light, &mut has_work, &mut ready);
                done = counts.work.load(Ordering::Acquire);
                // Release: pairs with the Acquire in `sample`.
                counts.done.store(done, Ordering::Release);
            }
        })?;
        Ok(Sleeper { waker, shared, wakings: 0 })
    }

    /// CPU time of one waking, on average of [`WAKINGS`].
    fn sample(&mut self) -> f64 {
        let mut time = Time::default();
        for _ in 0..WAKINGS {
            spin_while(|| self.shared.done.load(Ordering::Acquire) != self.wakings);
            let until = Instant::now() + NAP;
            spin_while(|| Instant::now() < until);
            self.wakings += 1;
            self.shared.work.store(self.wakings, Ordering::Release);
            time.add(Time::of(|| self.waker.wake_for_publication()));
        }
        time.cpu / WAKINGS as f64
    }
}

fn spin_while(mut condition: impl FnMut() -> bool) {
    while condition() {
        std::hint::spin_loop();
    }
}
