//! Subscribers that are slower than the feed.

use bytesize::ByteSize;
use stentor::{Payload, server::Server};
use tungstenite::Message;

use crate::client::{Client, serve};

/// A small tape and small sockets, so that a stalled subscriber falls off it after a few thousand publications.
fn narrow() -> Server {
    serve(|config| {
        config.segment = ByteSize::kib(64);
        config.retain = ByteSize::kib(512);
        config.sndbuf = ByteSize::kib(8);
    })
}

fn publish(server: &Server, count: usize) {
    let publisher = server.publisher();
    let data = format!("\"{}\"", "x".repeat(500));
    for _ in 0..count {
        publisher.publish("a", Payload::Json(data.as_bytes())).unwrap();
    }
}

#[test]
fn one_that_falls_off_the_tape_is_told_and_closed_with_4100_and_misses_nothing_before() {
    let server = narrow();
    let mut slow = Client::hello(&server, "/ws?topics=a");
    slow.json();
    let mut healthy = Client::hello(&server, "/ws?topics=a");
    healthy.json();
    for round in 0..100 {
        publish(&server, 100);
        for n in 0..100 {
            assert_eq!(healthy.json()["seq"], round * 100 + n + 1);
        }
    }
    let mut last = 0;
    let error = loop {
        let message = slow.json();
        if message["type"] != "update" {
            break message;
        }
        last += 1;
        assert_eq!(message["seq"], last);
    };
    assert_eq!((&error["type"], &error["code"]), (&"error".into(), &"lagged".into()));
    assert!(last > 0 && last < 10_000, "{last}");
    assert_eq!(slow.closed().0, 4100);
}

#[test]
fn a_raw_subscriber_that_falls_off_is_closed_with_4100_between_two_messages() {
    let server = narrow();
    let mut slow = Client::connect(&server, "/raw/a");
    let mut healthy = Client::connect(&server, "/raw/a");
    for _ in 0..100 {
        publish(&server, 100);
        for _ in 0..100 {
            healthy.message();
        }
    }
    loop {
        match slow.message() {
            Message::Text(text) => assert_eq!(text.len(), 502),
            Message::Close(frame) => break assert_eq!(u16::from(frame.unwrap().code), 4100),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn one_that_catches_up_in_time_has_missed_nothing() {
    let server = serve(|config| config.sndbuf = ByteSize::kib(8));
    let mut slow = Client::hello(&server, "/ws?topics=a");
    slow.json();
    publish(&server, 20_000);
    for n in 0..20_000 {
        assert_eq!(slow.json()["seq"], n + 1);
    }
    publish(&server, 1);
    assert_eq!(slow.json()["seq"], 20_001);
}

#[test]
fn subscribing_while_behind_takes_effect_at_its_place_in_the_order() {
    let server = serve(|config| config.sndbuf = ByteSize::kib(8));
    let mut slow = Client::hello(&server, "/ws?topics=a");
    slow.json();
    publish(&server, 20_000);
    server.publisher().publish("b", Payload::Json(b"1")).unwrap();
    slow.send(r#"{"op":"sub","id":1,"topics":["b"]}"#);
    // The command has been taken in once another client's later question is answered by the same worker.
    let mut other = Client::hello(&server, "/ws");
    loop {
        server.publisher().publish("b", Payload::Json(b"2")).unwrap();
        if other.ask(r#"{"op":"ping"}"#)["type"] == "pong" {
            break;
        }
    }
    for n in 0..20_000 {
        assert_eq!(slow.json()["seq"], n + 1);
    }
    let ack = slow.json();
    assert_eq!((&ack["type"], &ack["id"]), (&"ack".into(), &1.into()));
    let seq = ack["topics"][0]["seq"].as_u64().unwrap();
    assert_eq!(slow.json()["seq"], seq);
    server.publisher().publish("b", Payload::Json(b"3")).unwrap();
    let mut next = seq + 1;
    loop {
        let update = slow.json();
        assert_eq!((&update["topic"], &update["seq"]), (&"b".into(), &next.into()));
        next += 1;
        if update["data"] == 3 {
            break;
        }
    }
}
