//! Random scripts, and single facts.

use proptest::prelude::*;

use super::{
    script::{MESSAGE_MAX, NAMES, Step, Twin},
    *,
};
use crate::{
    lane::{LANES, Lane},
    protocol::Payload,
};

fn lane() -> impl Strategy<Value = Lane> {
    (0..LANES).prop_map(|lane| Lane::ALL[lane])
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![0..40usize, 0..400usize, 0..=MESSAGE_MAX + 1];
    prop_oneof![
        12 => (0..NAMES.len(), 0..3u8, len).prop_map(|(topic, kind, len)| Step::Publish { topic, kind, len }),
        1 => lane().prop_map(Step::Want),
        1 => lane().prop_map(Step::Unwant),
        2 => Just(Step::Read),
        1 => any::<bool>().prop_map(Step::Hold),
        1 => (0..60u64, 0..NAMES.len()).prop_map(|(age, used)| Step::Forget { age, used }),
        2 => (0..60u64).prop_map(|back| Step::Changed { back }),
    ]
}

proptest! {
    #[test]
    fn the_tape_agrees_with_a_list(
        segment in 100..2000usize,
        retain in 0..40_000usize,
        steps in prop::collection::vec(step(), 0..150),
    ) {
        let mut twin = Twin::new(segment, retain);
        for step in steps {
            twin.take(step);
        }
        twin.end();
    }
}

#[test]
fn a_topic_that_changed_before_the_tail_still_counts_as_changed() {
    let mut twin = Twin::new(128, 1000);
    twin.publish("q.a", 0, 10);
    for _ in 0..100 {
        twin.publish("q.b", 0, 100);
    }
    assert!(twin.tape.tail() > Position(1));
    let slots = twin.tape.with_changed(Position(0), |_, slots, _| slots);
    assert_eq!(slots, [0, 1]);
}

#[test]
fn what_a_reader_has_pinned_outlives_the_tape() {
    let mut twin = Twin::new(128, 1000);
    twin.publish("q.a", 0, 10);
    twin.reader.refresh();
    for _ in 0..100 {
        twin.publish("q.b", 0, 100);
    }
    twin.reader.refresh();
    assert!(twin.reader.floor() > Position(0));
    let run = twin.reader.look(Position(0)).expect("it is pinned").run(Lane::Raw);
    assert_eq!(twin.reader.bytes(Lane::Raw, run)[2..], [b'7'; 10]);
    twin.reader.trim();
    assert!(twin.reader.look(Position(0)).is_none(), "it was let go");
}

#[test]
fn the_oldest_publication_is_found_behind_an_empty_segment() {
    let settings = TapeSettings {
        retain: 1 << 20,
        segment: 4096,
        message_max: MESSAGE_MAX,
        topics_max: NAMES.len(),
        value_bytes_max: 1 << 20,
        epoch: 1,
    };
    let tape = Tape::new(settings);
    assert_eq!(tape.status().oldest_ts, 0);
    tape.appender().append("a", Payload::Text("1"), 77, 0).unwrap();
    tape.appender().append("a", Payload::Text("2"), 78, 0).unwrap();
    let status = tape.status();
    assert_eq!((status.segments, status.oldest_ts), (2, 77));
}

#[test]
fn a_subscriber_who_comes_and_goes_starts_a_segment_once_and_not_each_time() {
    let settings = TapeSettings {
        retain: 1 << 20,
        segment: 64 * 1024,
        message_max: MESSAGE_MAX,
        topics_max: NAMES.len(),
        value_bytes_max: 1 << 20,
        epoch: 1,
    };
    let tape = Tape::new(settings);
    let publish = |count| {
        for n in 0..count {
            tape.appender().append("a", Payload::Text("1"), n, 0).unwrap();
        }
    };
    // So many that the newest segment is for one lane alone.
    publish(600);
    let before = tape.status().segments;
    for _ in 0..50 {
        tape.want(Lane::Json);
        publish(1);
        // With nobody there it is the raw lane alone that is written.
        tape.unwant(Lane::Json);
        publish(1);
    }
    assert_eq!(tape.status().segments, before + 1);
}

#[test]
fn a_lane_that_nobody_wants_takes_no_memory() {
    let settings = TapeSettings {
        retain: 1 << 20,
        segment: 64 * 1024,
        message_max: MESSAGE_MAX,
        topics_max: NAMES.len(),
        value_bytes_max: 1 << 20,
        epoch: 1,
    };
    let tape = Tape::new(settings);
    tape.want(Lane::Json);
    let next_segment = || {
        let segments = tape.status().segments;
        while tape.status().segments == segments {
            tape.appender().append("a", Payload::Text("1"), 1, 0).unwrap();
        }
        tape.status().bytes
    };
    // The first has room for all, since nobody knows yet who comes.
    next_segment();
    let (before, after) = (next_segment(), next_segment());
    assert_eq!(after - before, 64 * 1024 + 64 * 1024 / 128 * size_of::<Entry>());
}

#[test]
fn a_readers_floor_is_never_beyond_its_head_however_fast_the_tape_rolls() {
    let settings =
        TapeSettings { retain: 0, segment: 256, message_max: 100, topics_max: 10, value_bytes_max: 1000, epoch: 1 };
    let tape = Tape::new(settings);
    let writer = {
        let tape = tape.clone();
        std::thread::spawn(move || {
            for _ in 0..100_000 {
                tape.appender().append("a", Payload::Text("x"), 1, 0).expect("there is room");
            }
        })
    };
    let mut reader = Reader::new(tape);
    while !writer.is_finished() {
        let head = reader.refresh();
        assert!(reader.floor() <= head, "{:?} {head:?}", reader.floor());
        reader.trim();
    }
}
