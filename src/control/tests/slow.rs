//! Who is behind, and who may know.

use std::sync::Arc;

use super::*;
use crate::{io::path::Path, shared::SlowClient};

fn client(conn: &str, lag_ms: u64, path: Option<Path>) -> SlowClient {
    SlowClient {
        conn: conn.into(),
        address: "192.0.2.7:5555".parse().unwrap(),
        worker: 0,
        connected: Duration::from_millis(61_900),
        lag_bytes: 7_000,
        lag: Duration::from_millis(lag_ms),
        skips: 3,
        pending_bytes: 40,
        tls_held_bytes: path.map(|_| 4121),
        path,
        subscriptions: vec![Arc::from("q.>")],
        more: 2,
        mode: "all",
        compression: "shared",
    }
}

#[test]
fn slow_clients_are_listed_worst_first() {
    let server = Server::start();
    let path = Path { rtt_us: 250, unacked_bytes: 11, unsent_bytes: 12, kernel_bytes: 4352 };
    server.context.shared.slow.set(0, vec![client("1-1", 10, None), client("1-2a", 2_500, Some(path))]);
    let mut http = server.connect();
    let answer = http.send("GET /debug/slow HTTP/1.1\r\nHost: localhost\r\n\r\n").answer();
    assert_eq!(answer.headers["cache-control"], "no-store");
    let text = answer.body.clone();
    let listed = &answer.json()["connections"];
    let expected = concat!(
        r#""connections":[{"conn":"1-2a","address":"192.0.2.7:5555","worker":0,"connected_s":61,"lag_bytes":7000,"#,
        r#""lag_ms":2500,"skips":3,"pending_bytes":40,"tls_held_bytes":4121,"unacked_bytes":11,"unsent_bytes":12,"#,
        r#""kernel_bytes":4352,"rtt_us":250,"subscriptions":["q.>"],"more":2,"mode":"all","compression":"shared"},"#,
        r#"{"conn":"1-1","#
    );
    assert!(text.starts_with("{\"ts\":1") && text.contains(expected), "{text}");
    assert_eq!((&listed[1]["conn"], &listed[1]["rtt_us"]), (&"1-1".into(), &Value::Null));
    assert_eq!(listed[1]["tls_held_bytes"], Value::Null, "it is in clear");
    assert_eq!(http.ask("POST", "/debug/slow").status, 405);
}

#[test]
fn without_a_token_clients_are_shown_to_this_machine_only() {
    let server = Server::start();
    let asks = |headers: &str| {
        server.connect().send(format!("GET /debug/slow HTTP/1.1\r\n{headers}\r\n")).answer_to("GET").status
    };
    for host in ["127.0.0.1:9001", "localhost:9001", "LOCALHOST", "127.8.9.1", "[::1]:9001", "[::1]"] {
        assert_eq!(asks(&format!("Host: {host}\r\n")), 200, "{host}");
    }
    for host in ["feed.example.com", "10.0.0.1:9001", "[2001:db8::1]:80", "localhost.example.com", ""] {
        assert_eq!(asks(&format!("Host: {host}\r\n")), 403, "{host}");
    }
    for proxy in ["Forwarded: for=192.0.2.7", "X-Forwarded-For: 192.0.2.7", "Via: 1.1 proxy"] {
        assert_eq!(asks(&format!("Host: localhost\r\n{proxy}\r\n")), 403, "{proxy}");
    }
    assert_eq!(server.refused(Refusal::Origin), 8);
}

#[test]
fn where_there_is_a_token_clients_are_shown_with_it() {
    let server = Server::with(|config| config.publish_token = Some("secret".parse().unwrap()), |_| {});
    let mut http = server.connect();
    assert_eq!(http.get("/debug/slow?token=wrong").status, 401);
    let answer = http.get("/debug/slow");
    assert_eq!((answer.status, answer.headers["www-authenticate"].starts_with("Bearer")), (401, true));
    assert_eq!(http.get("/debug/slow?token=secret").status, 200);
    let answer =
        http.send("GET /debug/slow HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\n\r\n").answer();
    assert_eq!(answer.status, 200);
    assert_eq!(server.refused(Refusal::Forbidden), 2);
}

#[test]
fn a_page_of_another_origin_is_not_shown_any() {
    let server = Server::with(|config| config.allow_origin = vec!["https://good.example".into()], |_| {});
    let mut http = server.connect();
    let mut from = |origin: &str| {
        http.send(format!("GET /debug/slow HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n")).answer().status
    };
    assert_eq!((from("https://good.example"), from("https://bad.example")), (200, 403));
}
