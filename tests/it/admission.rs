//! Publishers wait for the slowest worker, by whatever way they come: nobody who keeps up is lapped.
//!
//! The worker is made slow by `--flush-interval`: what comes in between has to fit onto the tape.

use std::io::Write;

use bytesize::ByteSize;
use stentor::{
    Payload,
    config::{Config, Speed},
    server::Server,
};

use crate::{
    client::{Client, exchange, serve},
    process::{metric, wait_for},
};

/// A tape that a few hundred publications fill, and a worker that sends now and then.
fn slow(change: impl FnOnce(&mut Config)) -> Server {
    serve(|config| {
        (config.retain, config.segment) = (ByteSize::mib(2), ByteSize::kib(256));
        config.max_replay_message = config.segment;
        config.flush_interval = "300ms".parse().unwrap();
        change(config);
    })
}

/// Lines of which the first is on `a`, and so many others on `z`.
fn lines(others: usize) -> String {
    let other = format!("{{\"ts_ns\":1,\"topic\":\"z\",\"data\":\"{}\"}}\n", "x".repeat(1000));
    format!("{{\"ts_ns\":1,\"topic\":\"a\",\"data\":1}}\n{}", other.repeat(others))
}

/// A subscriber of `a` that is to be sent every publication.
fn subscriber(server: &Server) -> Client {
    let mut client = Client::hello(server, "/ws?topics=a");
    assert_eq!(client.json()["type"], "ack");
    client
}

fn held(server: &Server, door: &str) -> f64 {
    let figures = exchange(server.addresses()[0], b"GET /metrics HTTP/1.0\r\n\r\n");
    let line = figures.lines().find(|line| line.starts_with(&format!("stentor_holds_total{{door=\"{door}\"}}")));
    line.and_then(|line| line.rsplit_once(' ')).unwrap().1.parse().unwrap()
}

#[test]
fn a_body_of_many_lines_does_not_lap_a_worker_whose_subscribers_keep_up() {
    let server = slow(|_| {});
    let mut client = subscriber(&server);
    for round in 1..=2 {
        let lines = lines(1500);
        let head = format!("POST /publish HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", lines.len());
        let answer = exchange(server.addresses()[0], (head + &lines).as_bytes());
        assert!(answer.ends_with("{\"published\":1501}"), "{answer}");
        let update = client.json();
        assert_eq!((&update["type"], &update["seq"]), (&"update".into(), &round.into()), "{update}");
    }
    assert!(held(&server, "http") > 0.0, "it shows");
}

#[test]
fn a_feed_at_full_speed_does_not_lap_a_worker_whose_subscribers_keep_up() {
    let path = std::env::temp_dir().join(format!("stentor-admission-test-{}", std::process::id()));
    std::fs::File::create(&path).unwrap().write_all(lines(700).as_bytes()).unwrap();
    let server = slow(|config| {
        (config.replay, config.speed, config.replay_loop) = (Some(path.clone()), Speed::Max, true);
    });
    let mut client = subscriber(&server);
    let first = loop {
        let said = client.json();
        if said["type"] == "update" {
            break said["seq"].as_u64().unwrap();
        }
        assert_eq!(said["type"], "snapshot");
    };
    for n in 1..4 {
        let update = client.json();
        assert_eq!((&update["type"], &update["seq"]), (&"update".into(), &(first + n).into()), "{update}");
    }
    assert!(held(&server, "feed") > 0.0, "it shows");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_program_that_publishes_by_itself_is_told_when_to_wait() {
    let server = slow(|_| {});
    let (mut client, publisher) = (subscriber(&server), server.publisher());
    let text = "x".repeat(1000);
    publisher.publish("a", Payload::Text("1")).unwrap();
    assert_eq!(client.json()["type"], "update");
    assert!(!publisher.should_wait());
    let mut published = 0;
    while !publisher.should_wait() {
        publisher.publish("z", Payload::Text(&text)).unwrap();
        published += 1;
        assert!(published < 100_000, "it is never told");
    }
    assert!(metric(server.addresses()[0], "behind_max_bytes") == 256.0 * 1024.0);
    wait_for("the worker", || !publisher.should_wait());
}
