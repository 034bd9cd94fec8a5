//! The crew: the receiving threads of a session, and how threads are started and placed.

use std::{sync::Arc, thread::JoinHandle};

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver as Inbox, Sender, unbounded};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::{
    receiver::{Order, Receiver, Report},
    shared::Shared,
    socket::Waker,
};

/// The receiving threads and the ways to them.
pub struct Crew {
    orders: Vec<Sender<Order>>,
    wakers: Vec<Arc<Waker>>,
    /// What they report.
    pub reports: Inbox<Report>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts as many threads as the settings ask for.
    pub fn start(shared: &Arc<Shared>) -> Result<Self> {
        let (report, reports) = unbounded();
        let mut crew = Self { orders: Vec::new(), wakers: Vec::new(), reports, threads: Vec::new() };
        for thread in 0..shared.spec.receivers() {
            let (order, orders) = unbounded();
            let waker = Arc::new(Waker::new().context("making an event descriptor")?);
            let (shared, theirs, report) = (Arc::clone(shared), Arc::clone(&waker), report.clone());
            let core = shared.spec.core_of(thread);
            crew.orders.push(order);
            crew.wakers.push(waker);
            let apart = thread == shared.spec.threads;
            crew.threads.push(spawn(&format!("receiver-{thread}"), core, move || {
                if apart {
                    // On a core that it shares, it lets those go first who are measured.
                    let _ = rustix::process::setpriority_process(None, APART_NICE);
                }
                match Receiver::new(shared, thread, theirs, orders, report.clone()) {
                    Ok(receiver) => receiver.run(),
                    // The inbox is gone only when the run is being given up.
                    Err(error) => drop(report.send(Report::Broken(format!("setting a thread up: {error}")))),
                }
            })?);
        }
        Ok(crew)
    }

    /// Tells all of them.
    pub fn tell(&self, order: &Order) {
        for (orders, waker) in self.orders.iter().zip(&self.wakers) {
            // A thread that is gone has reported why.
            let _ = orders.send(order.clone());
            waker.wake();
        }
    }

    /// Waits until all have ended.
    pub fn end(&mut self) {
        self.wakers.iter().for_each(|waker| waker.wake());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The niceness of the thread that has the disturbed.
const APART_NICE: i32 = 10;

/// Keeps this thread, and those that it starts, on the cores given.
pub fn stay_on(cores: &[usize]) -> Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    cores.iter().filter(|&&core| core < CpuSet::MAX_CPU).for_each(|&core| set.set(core));
    sched_setaffinity(None, &set).with_context(|| format!("--cores {cores:?}: this machine does not have them"))
}

/// Starts a thread, on one core where one is given, with timers as exact as the kernel has them.
pub fn spawn(name: &str, core: Option<usize>, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    let work = move || {
        if let Some(id) = core {
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        work();
    };
    builder.spawn(work).with_context(|| format!("starting thread {name}"))
}
