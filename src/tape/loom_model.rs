//! All interleavings of one publisher and its readers, as far as the publish protocol goes.
//!
//! What is modelled: the head, the segments' ends, the index entries, the writer's lock and the sharing and reuse of
//! segments. What isn't: the bytes of the lanes, which are written before and read after the same pair of head store and
//! head load as the entries, and which the model checker would make too slow.
//!
//! The tape is as small as it gets: two entries a segment, so that three publications roll over, and memory for no more
//! than the newest segment, so that a roll-over lets the older one go and its buffers are used again.
//!
//! ```text
//! scripts/loom
//! ```
//!
//! Two seconds, once it is built. With the head's Release store made Relaxed, the first two models fail.

use loom::thread;

use super::{About, Position, Reader, Tape, TapeSettings};
use crate::{
    lane::Lane,
    publication::Payload,
    publish::{By, Door},
};

/// Tries every interleaving with at most so many switches away from a thread that could go on. All of them would take hours;
/// two switches find whatever two threads can do to each other at one place, and the third at the next.
fn model(switches: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(body);
}

/// Room for one payload of [`publish`] in a segment or for two; either way the index has two entries.
fn tape(retain: usize) -> Tape {
    Tape::new(TapeSettings { retain, segment: 64, message_max: 64, topics_max: 1, value_bytes_max: 1000, epoch: 1 })
}

fn publish(tape: &Tape, count: u64) {
    publish_from(tape, 0, count);
}

/// Looks at everything there is from `from` on: entries are whole, in order, and have their bytes. Returns the head.
fn read(reader: &mut Reader, from: Position) -> Position {
    let head = reader.refresh();
    let from = from.max(reader.floor());
    let mut next = from.0;
    reader.scan(from.min(head), head, |entry| {
        assert_eq!(entry.position.0, next, "in order");
        assert_eq!((entry.seq, entry.ts, entry.origin), (next + 1, 100 + next, 7), "a whole entry");
        assert_eq!(&reader.bytes(Lane::Raw, entry.run(Lane::Raw))[2..], b"payload");
        next += 1;
        true
    });
    assert!(next >= head.0, "nothing between the floor and the head is missing");
    reader.trim();
    head
}

#[test]
fn what_is_before_the_head_is_whole_and_in_order() {
    model(4, || {
        let tape = tape(1 << 20);
        let writer = {
            let tape = tape.clone();
            thread::spawn(move || publish(&tape, 3))
        };
        let mut reader = Reader::new(tape);
        let seen = read(&mut reader, Position(0));
        read(&mut reader, seen);
        writer.join().unwrap();
        assert_eq!(read(&mut reader, Position(0)), Position(3));
    });
}

#[test]
fn a_reader_is_never_handed_what_the_tape_uses_again() {
    model(4, || {
        let tape = tape(1);
        let writer = {
            let tape = tape.clone();
            thread::spawn(move || publish(&tape, 3))
        };
        let mut reader = Reader::new(tape);
        let seen = read(&mut reader, Position(0));
        read(&mut reader, seen);
        writer.join().unwrap();
        assert_eq!(read(&mut reader, seen), Position(3));
    });
}

#[test]
fn two_readers_see_the_same() {
    model(3, || {
        let tape = tape(1);
        publish(&tape, 1);
        let readers = [(); 2].map(|()| {
            let tape = tape.clone();
            thread::spawn(move || {
                let mut reader = Reader::new(tape);
                read(&mut reader, Position(0))
            })
        });
        publish_from(&tape, 1, 3);
        for reader in readers {
            assert!(reader.join().unwrap() >= Position(1));
        }
    });
}

fn publish_from(tape: &Tape, first: u64, end: u64) {
    let door = Door::new(tape.clone(), 128);
    for n in first..end {
        let about = About { ts: 100 + n, origin: 7, ..About::default() };
        door.publish(By::SERVER, "t", Payload::Text("payload"), about).unwrap();
    }
}
