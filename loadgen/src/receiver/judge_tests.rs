//! The judge on bytes alone: no socket, no clock.

use super::*;
use crate::{
    dialect::{Dialect, Protocol},
    flights::Flights,
    schedule::Plan,
    shared::Classes,
    spec::{Spec, tests::sample},
    stamp::{Body, Form},
    target::Sources,
    watchlist::{WatchList, WatchLists},
};

const RUN: u32 = 77;

fn shared() -> Arc<Shared> {
    shared_of(Spec { subs: 2, ..sample() })
}

fn shared_of(spec: Spec) -> Arc<Shared> {
    let target = "127.0.0.1:1".parse().unwrap();
    let classes = Classes::new(&spec, &Plan::new(&spec, None));
    classes.start(1);
    let lists = WatchLists::new(&spec);
    Arc::new(Shared {
        dialect: Dialect::new("ws://127.0.0.1:1", spec.dialect.clone(), spec.form, vec!["t0".into()]).unwrap(),
        target,
        peer: None,
        sources: Sources::plan(target, &[], 0, 2).unwrap(),
        classes,
        flights: Flights::new(16).unwrap(),
        published: (0..spec.topics).map(|_| Default::default()).collect(),
        made: Default::default(),
        listeners: Shared::listeners_of(&spec, &lists),
        fans: Shared::fans_of(&spec, &lists),
        lists,
        run: RUN,
        unpublished: Default::default(),
        stop: Default::default(),
        spec,
    })
}

fn live(nth: usize) -> Connection {
    let mut conn = Connection::new(nth, WatchList::Run { first: 0, len: 1, of: 1 }, Gaps::Never, false);
    conn.stage = Stage::Live;
    conn
}

fn payload(run: u32, number: u32) -> Vec<u8> {
    let stamp = Stamp { run, topic: 0, seq: number + 1, number, planned: 1_000, sent: 2_000 };
    let mut out = Vec::new();
    stamp::write(&stamp, Form::Json, Body::Fill(128), &mut out);
    out
}

/// A frame as servers send it.
fn framed(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x81];
    if payload.len() < 126 {
        out.push(payload.len() as u8);
    } else {
        out.push(126);
        out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    out.extend_from_slice(payload);
    out
}

fn stream(numbers: std::ops::Range<u32>) -> Vec<u8> {
    numbers.flat_map(|number| framed(&payload(RUN, number))).collect()
}

/// Feeds a stream in pieces, as a socket would bring it.
fn feed(judge: &mut Judge, conn: &mut Connection, stream: &[u8], piece: usize) {
    for part in stream.chunks(piece) {
        let mut bytes = std::mem::take(&mut conn.partial);
        bytes.extend_from_slice(part);
        let taken = judge.take(conn, &bytes, 5_000);
        conn.partial = bytes[taken..].to_vec();
    }
}

#[test]
fn any_chunking_gives_the_same_deliveries() {
    let bytes = stream(0..60);
    for piece in [1, 2, 3, 7, 131, 132, 133, 1000, bytes.len()] {
        let mut judge = Judge::new(shared(), 0, 0);
        let mut conn = live(0);
        feed(&mut judge, &mut conn, &bytes, piece);
        assert_eq!(judge.checks, Checks { received: 60, ..Checks::default() }, "pieces of {piece}");
        assert_eq!(judge.interval.classes[0].deliveries(), 60 - 20, "pieces of {piece}");
        assert!(conn.partial.is_empty());
    }
}

#[test]
fn the_second_receipt_of_a_publication_is_verified_like_the_first() {
    let mut judge = Judge::new(shared(), 0, 0);
    let (mut first, mut second) = (live(0), live(1));
    let good = framed(&payload(RUN, 30));
    feed(&mut judge, &mut first, &good, good.len());
    for at in 4..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let before = judge.checks.clone();
        feed(&mut judge, &mut second, &bad, bad.len());
        let faults = |checks: &Checks| checks.wrong + checks.torn + checks.foreign;
        assert_eq!((judge.checks.received, faults(&judge.checks)), (1, faults(&before) + 1), "byte {at}");
        assert_eq!(judge.checks.foreign, 0, "byte {at}");
    }
    feed(&mut judge, &mut second, &good, good.len());
    assert_eq!(judge.checks.received, 2);
}

#[test]
fn what_somebody_else_published_and_was_too_large_is_no_gap() {
    let mut spec = Spec { subs: 2, ..sample() };
    spec.dialect.protocol = Protocol::Stentor;
    let mut judge = Judge::new(shared_of(spec), 0, 0);
    let mut conn = live(0);
    let update = |number: u32, seq: u64| {
        let data = String::from_utf8(payload(RUN, number)).unwrap();
        framed(format!(r#"{{"type":"update","topic":"t0","seq":{seq},"ts":1,"data":{data}}}"#).as_bytes())
    };
    let skip = |seq: u64| {
        framed(format!(r#"{{"type":"skip","topic":"t0","from":{seq},"to":{seq},"why":"too_large"}}"#).as_bytes())
    };
    let stream = [update(30, 5), update(31, 6), skip(7), update(32, 8), skip(9), skip(10), update(33, 11)].concat();
    for piece in [7, stream.len()] {
        feed(&mut judge, &mut conn, &stream, piece);
        assert_eq!(judge.checks, Checks { received: 4, ..Checks::default() });
        (judge.checks, conn) = (Checks::default(), live(0));
    }
    feed(&mut judge, &mut conn, &update(34, 13), usize::MAX);
    assert_eq!(judge.checks.wrong, 1, "a number that nobody has taken");
}

#[test]
fn several_publications_in_one_message_are_each_counted() {
    let shared = shared();
    let settings = crate::dialect::Settings { protocol: crate::dialect::Protocol::Generic, ..Default::default() };
    let dialect = Dialect::new("ws://127.0.0.1:1", settings, Form::Json, vec!["t0".into()]).unwrap();
    let shared = Arc::new(Shared { dialect, ..Arc::into_inner(shared).unwrap() });
    let mut judge = Judge::new(shared, 0, 0);
    let joined: Vec<u8> = (30..33).flat_map(|number| [b"MSG ", payload(RUN, number).as_slice()].concat()).collect();
    for nth in 0..2 {
        let mut conn = live(nth);
        feed(&mut judge, &mut conn, &framed(&joined), 1000);
        assert_eq!(conn.ledger.expected(0), Some(34));
    }
    assert_eq!(judge.checks, Checks { received: 6, ..Checks::default() });
}

#[test]
fn a_publication_of_another_run_is_ignored() {
    let mut judge = Judge::new(shared(), 0, 0);
    feed(&mut judge, &mut live(0), &framed(&payload(RUN + 1, 30)), 1000);
    assert_eq!(judge.checks, Checks { foreign: 1, ..Checks::default() });
}

#[test]
fn fragments_are_put_together() {
    let mut judge = Judge::new(shared(), 0, 0);
    let whole = payload(RUN, 30);
    let (head, tail) = whole.split_at(50);
    let mut bytes = framed(head);
    bytes[0] = 0x01;
    bytes.extend_from_slice(&[0x89, 0]);
    let mut last = framed(tail);
    last[0] = 0x80;
    bytes.extend(last);
    feed(&mut judge, &mut live(0), &bytes, 1000);
    assert_eq!(judge.checks, Checks { received: 1, ..Checks::default() });
}

#[test]
fn the_spread_is_known_when_the_last_subscriber_has_it() {
    let shared = shared();
    let mut judge = Judge::new(Arc::clone(&shared), 0, 0);
    shared.flights.depart(30, 1);
    let frame = framed(&payload(RUN, 30));
    judge.take(&mut live(0), &frame, 5_000);
    assert_eq!((judge.interval.spread.len(), shared.flights.done()), (0, 0));
    judge.take(&mut live(1), &frame, 9_000);
    assert_eq!((judge.interval.spread.min() / 10, shared.flights.done()), (400, 1));
}

#[test]
fn what_is_no_websocket_stream_ends_the_connection() {
    let mut judge = Judge::new(shared(), 0, 0);
    let mut conn = live(0);
    feed(&mut judge, &mut conn, b"HTTP/1.1 200 OK", 1000);
    assert!(conn.ended.unwrap().contains("no WebSocket stream"));
    assert_eq!(judge.checks.wrong, 1);
}

#[test]
fn frames_out_of_order_and_text_that_is_none_end_the_connection() {
    let interrupted = [&[0x01, 1, b'a'][..], &framed(&payload(RUN, 30))].concat();
    let bad_text = [0x81, 1, 0xff].to_vec();
    for bytes in [interrupted, bad_text] {
        let mut judge = Judge::new(shared(), 0, 0);
        let mut conn = live(0);
        feed(&mut judge, &mut conn, &bytes, 1000);
        assert!(conn.ended.unwrap().contains("no WebSocket stream"));
        assert_eq!(judge.checks, Checks { wrong: 1, ..Checks::default() });
    }
}

#[test]
fn what_a_server_tells_of_its_sending_parts_the_latency_of_what_follows() {
    let shared = shared();
    let (mut judge, mut conn) = (Judge::new(Arc::clone(&shared), 0, 0), live(0));
    let (first, second) = (framed(&payload(RUN, 30)), framed(&payload(RUN, 31)));
    let parts = |judge: &Judge| {
        let handed = judge.interval.classes[0].handed.as_ref()?;
        Some((handed.until.len(), handed.until.max(), handed.since.len(), handed.since.max()))
    };
    judge.take(&mut conn, &first, 9_000);
    assert_eq!(parts(&judge), None);
    // Sent at 2,000: 500 until it was handed over, 100 from then on.
    judge.take(&mut conn, &[&handover::frame(2_500)[..], &second].concat(), 2_600);
    assert_eq!(parts(&judge), Some((1, 500, 1, 100)));
    // A pong that tells nothing changes nothing, and a connection that is new has heard nothing.
    judge.take(&mut conn, &[0x8A, 2, b'h', b'i'], 2_700);
    assert_eq!(conn.handed, 2_500);
    conn.hang_up(Stage::Idle);
    assert_eq!(conn.handed, 0);
}
