//! Flights: publications on their way, from the first subscriber reached to the last.
//!
//! A fixed ring, shared by the publisher and all receiving threads. A thread counts its own subscribers down privately
//! and comes here once per publication, when its last one is reached; so the ring costs an atomic operation per thread
//! and publication, nothing per delivery. From it come the spread between the first and the last subscriber, and the
//! window of throughput runs: how many publications are not yet delivered to everybody. A rolling window counts deliveries
//! instead, which costs an atomic operation for each read.
//!
//! When more publications are under way than the ring holds, the oldest is given up: its spread is not measured, and
//! that is counted. A window is never larger than half the ring, so there nothing is given up.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use crate::socket::Waker;

/// The ring.
pub struct Flights {
    slots: Box<[Flight]>,
    done: AtomicU64,
    delivered: AtomicU64,
    given_up: AtomicU64,
    wake_at_done: AtomicU64,
    wake_at_delivered: AtomicU64,
    sleeping: AtomicBool,
    /// Wakes the publisher when it waits for room in its window.
    pub waker: Waker,
}

/// One publication under way. Aligned so that two never share a cache line.
#[derive(Default)]
#[repr(align(64))]
struct Flight {
    number: AtomicU32,
    threads: AtomicU32,
    first: AtomicU64,
    last: AtomicU64,
}

/// What a publisher waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// So many publications are delivered to everybody.
    Done(u64),
    /// So many deliveries have come.
    Delivered(u64),
}

/// No number: the slot holds no flight.
const NONE: u32 = u32::MAX;

impl Flights {
    /// A ring for at least `room` publications.
    pub fn new(room: usize) -> io::Result<Self> {
        let slots: Box<[Flight]> = (0..room.next_power_of_two()).map(|_| Flight::default()).collect();
        for slot in &slots {
            slot.number.store(NONE, Ordering::Relaxed);
        }
        Ok(Self {
            slots,
            done: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            wake_at_done: AtomicU64::new(u64::MAX),
            wake_at_delivered: AtomicU64::new(u64::MAX),
            sleeping: AtomicBool::new(false),
            waker: Waker::new()?,
        })
    }

    /// How many flights it holds.
    pub fn room(&self) -> usize {
        self.slots.len()
    }

    /// The publisher: `number` is about to be sent, to subscribers on so many threads.
    pub fn depart(&self, number: u32, threads: u32) {
        let flight = self.slot(number);
        if threads == 0 {
            self.done.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if flight.number.load(Ordering::Relaxed) != NONE {
            self.given_up.fetch_add(1, Ordering::Relaxed);
        }
        flight.threads.store(threads, Ordering::Relaxed);
        flight.first.store(u64::MAX, Ordering::Relaxed);
        flight.last.store(0, Ordering::Relaxed);
        // Release: pairs with the load in `arrive`, which then sees the fields above.
        flight.number.store(number, Ordering::Release);
    }

    /// A receiver: all of its subscribers have `number`, the first and last at these times. Returns the spread when
    /// this was the last thread.
    pub fn arrive(&self, number: u32, first: u64, last: u64) -> Option<u64> {
        let flight = self.slot(number);
        if flight.number.load(Ordering::Acquire) != number {
            return None;
        }
        flight.first.fetch_min(first, Ordering::Relaxed);
        flight.last.fetch_max(last, Ordering::Relaxed);
        // AcqRel: the last to count down sees the bounds that the others entered.
        if flight.threads.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        let spread = flight.last.load(Ordering::Relaxed).saturating_sub(flight.first.load(Ordering::Relaxed));
        flight.number.store(NONE, Ordering::Release);
        self.land();
        Some(spread)
    }

    fn land(&self) {
        // SeqCst, like `sleep`: either the publisher sees this landing before it sleeps, or this sees that it sleeps.
        let done = self.done.fetch_add(1, Ordering::SeqCst) + 1;
        if done >= self.wake_at_done.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// A receiver: so many deliveries have come to subscribers that are waited for. Only a rolling window needs it.
    pub fn deliver(&self, count: u64) {
        // SeqCst, like `sleep`, for the same reason.
        let delivered = self.delivered.fetch_add(count, Ordering::SeqCst) + count;
        if delivered >= self.wake_at_delivered.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// Publications that everybody has.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    /// Deliveries that have come, as far as receivers tell.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::SeqCst)
    }

    /// The publisher is about to wait; false when what it waits for is already there.
    pub fn sleep(&self, until: Until) -> bool {
        let (done, delivered) = match until {
            Until::Done(done) => (done, u64::MAX),
            Until::Delivered(delivered) => (u64::MAX, delivered),
        };
        self.wake_at_done.store(done, Ordering::SeqCst);
        self.wake_at_delivered.store(delivered, Ordering::SeqCst);
        self.sleeping.store(true, Ordering::SeqCst);
        let asleep = self.done() < done && self.delivered() < delivered;
        if !asleep {
            self.sleeping.store(false, Ordering::SeqCst);
        }
        asleep
    }

    /// Flights whose spread could not be measured.
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    fn slot(&self, number: u32) -> &Flight {
        &self.slots[number as usize & (self.slots.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thread_gets_the_spread_over_all() {
        let flights = Flights::new(4).unwrap();
        flights.depart(9, 2);
        assert_eq!(flights.arrive(9, 100, 150), None);
        assert_eq!(flights.arrive(9, 90, 120), Some(60));
        assert_eq!((flights.done(), flights.given_up()), (1, 0));
    }

    #[test]
    fn a_flight_that_is_overtaken_is_given_up_and_counted() {
        let flights = Flights::new(4).unwrap();
        flights.depart(1, 1);
        flights.depart(5, 1);
        assert_eq!(flights.arrive(1, 1, 2), None);
        assert_eq!(flights.arrive(5, 1, 2), Some(1));
        assert_eq!((flights.done(), flights.given_up()), (1, 1));
    }

    #[test]
    fn a_publisher_that_waits_is_woken_when_there_is_room_and_not_before() {
        let flights = Flights::new(4).unwrap();
        flights.depart(0, 1);
        flights.depart(1, 1);
        assert!(flights.sleep(Until::Done(2)));
        flights.deliver(1_000);
        flights.arrive(0, 1, 1);
        assert!(flights.sleeping.load(Ordering::SeqCst));
        flights.arrive(1, 1, 1);
        assert!(!flights.sleeping.load(Ordering::SeqCst));
        assert!(!flights.sleep(Until::Done(2)));
    }

    #[test]
    fn a_publisher_that_waits_for_deliveries_is_woken_by_the_last_of_them() {
        let flights = Flights::new(4).unwrap();
        flights.depart(0, 1);
        assert!(flights.sleep(Until::Delivered(5)));
        flights.deliver(4);
        flights.arrive(0, 1, 1);
        assert!(flights.sleeping.load(Ordering::SeqCst));
        flights.deliver(1);
        assert!(!flights.sleeping.load(Ordering::SeqCst) && !flights.sleep(Until::Delivered(5)));
    }

    #[test]
    fn a_publication_that_nobody_hears_is_done_at_once() {
        let flights = Flights::new(4).unwrap();
        flights.depart(3, 0);
        assert_eq!(flights.done(), 1);
    }
}
