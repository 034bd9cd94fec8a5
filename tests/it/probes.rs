//! Probes, scrapes and everybody's answers, whatever plain HTTP clients do.

use std::io::Write;

use bytesize::ByteSize;
use stentor::Payload;

use crate::{
    client::{Client, exchange, serve, tcp},
    process::{metric, wait_for},
};

const PROBE: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[test]
fn idle_connections_in_every_place_keep_neither_probes_nor_others_out() {
    let server = serve(|config| {
        config.admin_listen = Some("127.0.0.1:0".parse().unwrap());
        config.max_connections_per_ip = Some(0);
    });
    let (address, admin) = (server.addresses()[0], server.admin_address().unwrap());
    let idle: Vec<_> = (0..512)
        .map(|_| {
            let mut stream = tcp(address);
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    wait_for("every place to be taken", || metric(admin, "http_connections") == 512.0);
    assert!(exchange(address, PROBE).ends_with("ok\n"));
    let answer = exchange(address, b"GET /topics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    wait_for("the longest idle to have gone", || metric(admin, "http_evictions_total") == 1.0);
    assert_eq!(metric(admin, "refusals_total"), 0.0);
    drop(idle);
}

#[test]
fn a_worker_that_stands_still_is_told_of_until_it_goes_on() {
    let server = serve(|config| {
        config.admin_listen = Some("127.0.0.1:0".parse().unwrap());
        config.stall_limit = "1s".parse().unwrap();
    });
    let admin = server.admin_address().unwrap();
    let mut client = Client::hello(&server, "/ws");
    assert!(exchange(admin, PROBE).ends_with("ok\n"));
    let publisher = server.publisher();
    // As long as this is open, nobody else can publish: the worker waits for it in the middle of a turn.
    let mut batch = publisher.batch();
    batch.push("a", Payload::Text("1")).unwrap();
    client.send(r#"{"op":"pub","id":1,"topic":"a","data":1}"#);
    wait_for("the probe to be red", || exchange(admin, PROBE).contains("503 Service Unavailable"));
    let answer = exchange(admin, PROBE);
    assert!(answer.contains("Worker 0 has been in one turn for "), "{answer}");
    assert!(metric(admin, "turn_age_seconds") >= 1.0, "figures are told meanwhile");
    drop(batch);
    assert_eq!(client.json()["type"], "ack");
    wait_for("the probe to be green", || exchange(admin, PROBE).ends_with("ok\n"));
}

#[test]
fn lists_that_nobody_takes_have_one_bound_in_memory() {
    let server = serve(|config| {
        config.admin_listen = Some("127.0.0.1:0".parse().unwrap());
        config.max_http_pending = ByteSize::mib(4);
        config.sndbuf = ByteSize::kib(16);
    });
    let (address, admin) = (server.addresses()[0], server.admin_address().unwrap());
    let publisher = server.publisher();
    let mut batch = publisher.batch();
    for n in 0..3000 {
        batch.push(&format!("{}.{n}", "name".repeat(25)), Payload::Text("1")).unwrap();
    }
    drop(batch);
    let _lying: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = tcp(address);
            stream.write_all(&b"GET /topics?limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3)).unwrap();
            stream
        })
        .collect();
    wait_for("room to be needed", || {
        assert!(metric(admin, "http_pending_bytes") <= metric(admin, "http_pending_max_bytes"));
        metric(admin, "http_evictions_total") > 10.0
    });
    assert!(exchange(address, PROBE).ends_with("ok\n"));
}

#[test]
fn the_admin_address_is_there_until_the_end_and_says_that_it_comes() {
    let server = serve(|config| {
        config.admin_listen = Some("127.0.0.1:0".parse().unwrap());
        config.drain_timeout = "30s".parse().unwrap();
        config.sndbuf = ByteSize::kib(4);
    });
    let admin = server.admin_address().unwrap();
    // A subscriber that reads nothing keeps the server draining.
    let slow = Client::hello(&server, "/ws?topics=a");
    let payload = "x".repeat(60_000);
    for _ in 0..200 {
        server.publisher().publish("a", Payload::Text(&payload)).unwrap();
    }
    let stopping = std::thread::spawn(move || server.stop());
    let ready = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    wait_for("readiness to be red", || exchange(admin, ready).contains("503 Service Unavailable"));
    assert!(exchange(admin, PROBE).ends_with("ok\n"));
    assert_eq!(metric(admin, "ready"), 0.0);
    drop(slow);
    stopping.join().unwrap();
    assert!(std::net::TcpStream::connect(admin).is_err());
}
