//! Random scripts, and single facts.

use proptest::prelude::*;

use super::{
    script::{MESSAGE_MAX, NAMES, Step, Twin},
    *,
};
use crate::{
    lane::{Draft, LANES, Lane},
    publication::{Flags, Kind, Payload},
    publish::{By, Door},
    topic::RegistryFull,
};

fn lane() -> impl Strategy<Value = Lane> {
    (0..LANES).prop_map(|lane| Lane::ALL[lane])
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![0..40usize, 0..400usize, 0..=MESSAGE_MAX + 1];
    prop_oneof![
        12 => (0..NAMES.len(), 0..5u8, len).prop_map(|(topic, kind, len)| Step::Publish { topic, kind, len }),
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
    let slots = |most| twin.tape.with_changed(Position(0), most, |_, slots, _| slots);
    assert_eq!((slots(2), slots(1)), (Some(vec![0, 1]), None));
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
fn a_publication_is_as_long_as_its_longest_frame_wherever_that_is() {
    let mut twin = Twin::new(2000, 20_000);
    for len in 0..40 {
        twin.publish("q.a", 0, len);
    }
    twin.reader.refresh();
    for position in 0..40 {
        let published = twin.reader.look(Position(position)).expect("the tape has it");
        let longest = Lane::ALL.map(|lane| published.len(lane)).into_iter().max().unwrap();
        assert!(longest > 0 && (longest..=longest + 1).contains(&published.longest()), "{position}");
    }
}

#[test]
fn what_was_written_before_a_position_is_what_was_written_when_it_was_the_head() {
    let mut twin = Twin::new(500, 1 << 20);
    let mut written = Vec::new();
    for len in 0..40 {
        written.push(twin.tape.written());
        twin.publish("q.a", 0, len);
    }
    twin.reader.refresh();
    let before = |position| twin.reader.written_before(Position(position));
    assert_eq!((0..40).map(before).collect::<Vec<u64>>(), written);
    assert_eq!((before(40), before(41)), (twin.tape.written(), twin.tape.written()));
}

#[test]
fn a_tape_with_nothing_on_it_has_no_oldest_publication() {
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
    let door = Door::new(tape.clone(), 128);
    for ts in [77, 78] {
        door.publish(By::SERVER, "a", Payload::Text("1"), About { ts, ..About::default() }).unwrap();
    }
    let status = tape.status();
    assert_eq!((status.segments, status.oldest_ts), (1, 77));
}

fn roomy(segment: usize, retain: usize) -> Tape {
    Tape::new(TapeSettings {
        retain,
        segment,
        message_max: MESSAGE_MAX,
        topics_max: NAMES.len(),
        value_bytes_max: 1 << 20,
        epoch: 1,
    })
}

fn publish(tape: &Tape, count: u64, text: &str) {
    let door = Door::new(tape.clone(), 128);
    for _ in 0..count {
        door.publish(By::SERVER, "a", Payload::Text(text), About::default()).unwrap();
    }
}

#[test]
fn a_subscriber_who_comes_and_goes_starts_no_segment() {
    let tape = roomy(64 * 1024, 1 << 20);
    publish(&tape, 100, "1");
    for _ in 0..50 {
        tape.want(Lane::Json);
        publish(&tape, 1, "1");
        // With nobody there it is the raw lane alone that is written.
        tape.unwant(Lane::Json);
        publish(&tape, 1, "1");
    }
    assert_eq!(tape.status().segments, 1);
}

#[test]
fn a_lane_that_nobody_wants_takes_no_memory_and_one_that_is_wanted_a_block_at_a_time() {
    let tape = roomy(64 * 1024, 1 << 20);
    let (index, block) = (64 * 1024 / 128 * size_of::<Entry>(), 16 * 1024);
    assert_eq!(tape.status().bytes, index);
    publish(&tape, 1, "1");
    assert_eq!(tape.status().bytes, index + block);
    publish(&tape, 1, &"x".repeat(2000));
    assert_eq!(tape.status().bytes, index + block);
    tape.want(Lane::Events);
    publish(&tape, 1, "1");
    assert_eq!(tape.status().bytes, index + 2 * block);
    tape.unwant(Lane::Events);
    publish(&tape, 1, "1");
    assert_eq!(tape.status().bytes, index + 2 * block);
}

#[test]
fn a_frame_that_is_longer_than_a_block_has_one_of_its_own_and_stays_in_its_segment() {
    let tape = roomy(4096, 1 << 20);
    let index = 4096 / 128 * size_of::<Entry>();
    publish(&tape, 1, "1");
    publish(&tape, 1, &"x".repeat(1500));
    let frame = 1500 + 4;
    let status = tape.status();
    assert_eq!((status.segments, status.bytes), (1, index + 1024 + frame));
    let mut reader = Reader::new(tape);
    reader.refresh();
    let [small, large] = [0, 1].map(|at| reader.look(Position(at)).expect("it is there").run(Lane::Raw));
    assert_eq!(reader.bytes(Lane::Raw, small)[2..], *b"1");
    assert_eq!(reader.bytes(Lane::Raw, large)[4..], [b'x'; 1500]);
}

#[test]
fn runs_are_merged_within_a_block_and_never_across_two() {
    let tape = roomy(4096, 1 << 20);
    // Two fill a block to the byte.
    let payload = "x".repeat(512 - 4);
    publish(&tape, 8, &payload);
    assert_eq!(tape.status().segments, 1);
    let mut reader = Reader::new(tape);
    let head = reader.refresh();
    let mut runs: Vec<Run> = Vec::new();
    reader.scan(Position(0), head, |published| {
        if !runs.last_mut().is_some_and(|last| last.extend(published.run(Lane::Raw))) {
            runs.push(published.run(Lane::Raw));
        }
        true
    });
    assert_eq!(runs.iter().map(|run| run.len).collect::<Vec<_>>(), [1024; 4]);
    assert!(runs.iter().all(|run| reader.bytes(Lane::Raw, *run).ends_with(b"xxx")));
    assert_eq!(reader.bytes_from(Lane::Raw, Position(1)), 7 * 512, "what is left out between blocks is no byte");
}

#[test]
fn an_entry_says_what_was_said_of_its_publication_and_its_position_comes_back() {
    let tape = roomy(4096, 1 << 20);
    let door = Door::new(tape.clone(), 128);
    publish(&tape, 3, "1");
    tape.want(Lane::Json);
    let payloads =
        [Payload::Json(b"1"), Payload::Text("1"), Payload::Text("a"), Payload::Plain("1"), Payload::Binary(b"a")];
    let kinds = [Kind::Json, Kind::Json, Kind::Plain, Kind::Plain, Kind::Binary];
    let mut reader = Reader::new(tape);
    for ((payload, kind), flags) in
        payloads.into_iter().zip(kinds).zip([Flags::KEYFRAME, Flags::NOTICE].into_iter().cycle())
    {
        let done = door.publish(By::SERVER, "a", payload, About { ts: 5, origin: 6, flags }).unwrap();
        reader.refresh();
        let entry = reader.look(done.position).expect("it is there");
        assert_eq!((entry.kind, entry.flags, entry.origin), (kind, flags, 6));
        assert_eq!((entry.seq, entry.ts), (done.seq, done.ts));
        assert_eq!((done.position, done.seq), (Position(entry.seq - 1), entry.seq));
    }
}

#[test]
fn a_lane_that_begins_to_be_wanted_while_a_publication_is_made_ready_has_it() {
    let tape = roomy(4096, 1 << 20);
    let mut draft = Draft::new(Payload::Text("\"1\n"), Vec::new());
    draft.prepare(tape.wanted().written());
    Lane::ALL.into_iter().for_each(|lane| {
        tape.want(lane);
    });
    let named = || Ok::<_, RegistryFull>(None);
    let done = tape.appender().append(None, "a", &mut draft, About::default(), named).unwrap();
    let id = tape.words().word(1);
    let mut reader = Reader::new(tape);
    reader.refresh();
    let published = reader.look(done.position).expect("it is there");
    assert_eq!(reader.bytes(Lane::Raw, published.run(Lane::Raw)), b"\x81\x03\"1\n");
    let [json, event] = [Lane::Json, Lane::Events].map(|lane| reader.bytes(lane, published.run(lane)));
    let message = r#"{"type":"update","topic":"a","epoch":"1","seq":1,"ts":0,"data":"\"1\n"}"#;
    assert_eq!(json[2..], *message.as_bytes());
    assert_eq!(event, format!("id: {}\ndata: {message}\n\n", id.as_str()).as_bytes());
}

#[test]
fn publications_from_before_a_lane_was_wanted_are_not_in_it() {
    let tape = roomy(4096, 1 << 20);
    publish(&tape, 2, "1");
    let from = tape.want(Lane::Events);
    publish(&tape, 2, "1");
    tape.unwant(Lane::Events);
    publish(&tape, 2, "1");
    let mut reader = Reader::new(tape);
    let head = reader.refresh();
    let mut events = Vec::new();
    reader.scan(Position(0), head, |published| {
        assert!(published.is_in(Lane::Raw));
        events.push(published.is_in(Lane::Events));
        true
    });
    assert_eq!((from, &events[..]), (Position(2), &[false, false, true, true, false, false][..]));
    assert_eq!(reader.bytes_from(Lane::Events, Position(0)), reader.bytes_from(Lane::Events, from));
}

#[test]
fn one_subscriber_of_long_events_does_not_shorten_the_history_beyond_its_own_memory() {
    let tape = roomy(64 * 1024, 1 << 20);
    tape.want(Lane::Events);
    // A control character takes one byte on the raw lane, and six in an event.
    let payload = "\x01".repeat(200);
    publish(&tape, 3000, &payload);
    let status = tape.status();
    let mut reader = Reader::new(tape);
    reader.refresh();
    let held: u64 = Lane::ALL.iter().map(|lane| reader.bytes_from(*lane, reader.floor())).sum();
    // The index takes a sixth of what is left over, and a segment at the end is being filled.
    assert!(held > status.bytes as u64 * 3 / 5, "{held} of {status:?}");
}

#[test]
fn memory_stays_within_what_is_to_be_retained_whatever_lanes_take() {
    let (segment, retain) = (8 * 1024, 64 * 1024);
    let tape = roomy(segment, retain);
    for round in 0..300 {
        let lane = Lane::ALL[round % LANES];
        tape.want(lane);
        publish(&tape, 3, &"\x01".repeat(round * 37 % MESSAGE_MAX));
        let bytes = tape.status().bytes;
        assert!(bytes <= retain, "{bytes}");
        if round % 5 > 1 {
            tape.unwant(lane);
        }
    }
}

#[test]
fn a_readers_floor_is_never_beyond_its_head_however_fast_the_tape_rolls() {
    let settings =
        TapeSettings { retain: 0, segment: 256, message_max: 100, topics_max: 10, value_bytes_max: 1000, epoch: 1 };
    let tape = Tape::new(settings);
    let writer = {
        let tape = tape.clone();
        std::thread::spawn(move || publish(&tape, 100_000, "x"))
    };
    let mut reader = Reader::new(tape);
    while !writer.is_finished() {
        let head = reader.refresh();
        assert!(reader.floor() <= head, "{:?} {head:?}", reader.floor());
        reader.trim();
    }
}

/// Publishes until a segment is whole: what that has of publications of so many bytes, and how long their frames were.
fn whole_of(lanes: &[Lane], payload: usize) -> (Whole, f64) {
    let tape = Tape::new(TapeSettings { message_max: payload, ..*roomy(1 << 20, 16 << 20).settings() });
    for lane in lanes {
        tape.want(*lane);
    }
    let door = Door::new(tape.clone(), 128);
    let text = format!("{{\"p\":\"{}\"}}", "7".repeat(payload - 8));
    let about = About { ts: 1_723_161_253_937_085, ..About::default() };
    while tape.status().whole.is_none() {
        door.publish(By::SERVER, "q.nasdaq.AAPL", Payload::Json(text.as_bytes()), about).unwrap();
    }
    let frames = tape.written() as f64 / tape.head().0 as f64 - size_of::<Entry>() as f64;
    (tape.status().whole.unwrap(), frames)
}

#[test]
fn what_a_publication_costs_is_what_the_operators_document_says() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| payload |")).skip(2);
    let rows: Vec<Vec<f64>> = rows
        .take_while(|line| line.starts_with("| "))
        .map(|line| {
            line.split('|').map(|cell| cell.trim().replace(',', "")).filter_map(|cell| cell.parse().ok()).collect()
        })
        .collect();
    assert!(rows.len() > 4, "{rows:?}");
    for row in rows {
        for (lanes, said) in [&[Lane::Raw][..], &[Lane::Json], &Lane::ALL].into_iter().zip(&row[1..4]) {
            let (whole, frames) = whole_of(lanes, row[0] as usize);
            let cost = |whole: Whole| whole.bytes as f64 / whole.publications as f64;
            let found = cost(whole);
            assert!((found / said - 1.0).abs() < 0.01, "{} bytes in {lanes:?}: {found:.0}, and not {said}", row[0]);
            let reckoned = cost(Whole::about(1 << 20, frames, lanes.len()));
            assert!((0.9..1.1).contains(&(found / reckoned)), "{} bytes in {lanes:?}: {found}, {reckoned}", row[0]);
        }
        let (whole, _) = whole_of(&[Lane::Json], row[0] as usize);
        let seconds = least(64 << 20, 1 << 20, whole, 1) as f64 / 1000.0;
        assert!((seconds / row[4] - 1.0).abs() < 0.03, "{} bytes: {seconds} s, and not {}", row[0], row[4]);
    }
}
