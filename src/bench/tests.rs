//! What a publication allocates on its way from a publisher to a subscriber: nothing. (A segment of the tape is allocated
//! every some thousand publications.)
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use super::*;
use crate::websocket::{client::push_masked, frame::Opcode};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts what each thread asks of it.
struct Counting;

fn count() {
    // A thread that is ending has nobody to count for.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: everything is the system allocator's doing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How often `act` allocates, done so many times, after as many that don't count.
fn allocations(times: u64, mut act: impl FnMut()) -> u64 {
    (0..times).for_each(|_| act());
    let before = ALLOCATIONS.get();
    (0..times).for_each(|_| act());
    ALLOCATIONS.get() - before
}

/// Subscribers of every kind, among them such of several topics, so that what they are sent has to be gathered.
fn crowded() -> Bench {
    let mut bench = Bench::new();
    for _ in 0..100 {
        for target in ["/raw/a", "/ws?topics=a", "/ws?topics=a,c", "/ws?topics=*"] {
            bench.connect(target);
        }
    }
    bench
}

/// Enough for the tape to roll over several times.
const TIMES: u64 = 20_000;

const DATA: &str = r#"{"bid":463.97,"ask":464.03,"bidsz":200,"asksz":200,"venue":"XNAS","cond":"R","halted":false}"#;

#[test]
fn publications_of_feeds_are_delivered_without_allocating() {
    let mut bench = crowded();
    let counted = allocations(TIMES, || {
        for topic in ["a", "b", "c"] {
            bench.publish(topic, Payload::Json(DATA.as_bytes()));
        }
        bench.turn();
    });
    assert!(counted <= TIMES / 1000, "{counted} allocations in {TIMES} turns");
}

#[test]
fn publications_of_clients_are_taken_in_and_delivered_without_allocating() {
    let (mut raw, mut json) = (Vec::new(), Vec::new());
    push_masked(&mut raw, Opcode::Text, DATA.as_bytes(), [1, 2, 3, 4]);
    push_masked(
        &mut json,
        Opcode::Text,
        format!(r#"{{"op":"pub","topic":"a","data":{DATA}}}"#).as_bytes(),
        [1, 2, 3, 4],
    );
    let mut bench = crowded();
    let (raw_publisher, publisher) = (bench.connect("/raw/b"), bench.connect("/ws"));
    let counted = allocations(TIMES, || {
        bench.feed(raw_publisher, &raw);
        bench.feed(publisher, &json);
        bench.turn();
    });
    assert!(counted <= TIMES / 1000, "{counted} allocations in {TIMES} turns");
}
