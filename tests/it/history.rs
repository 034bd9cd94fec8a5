//! What the tape has of a topic, over plain HTTP.

use std::time::Duration;

use bytesize::ByteSize;
use serde_json::{Value, json};
use stentor::{Payload, server::Server};

use crate::{
    client::{Client, exchange, serve},
    http::{Answer, Http},
    process::metric,
};

fn publish(server: &Server, topic: &str, count: u64) {
    for _ in 0..count {
        let seq = server.publisher().publish(topic, Payload::Json(b"{}")).unwrap().seq;
        assert!(seq > 0);
    }
}

/// The present epoch of a topic.
fn epoch(server: &Server, topic: &str) -> String {
    let json = Http::connect(server.addresses()[0]).get(&format!("/topics/{topic}")).json();
    json["epoch"].as_str().unwrap().to_owned()
}

/// The numbers of the updates, and the last line's code.
fn numbers(answer: &Answer) -> (Vec<u64>, String) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut lines = answer.lines();
    let last = lines.pop().unwrap();
    assert_eq!(last["type"], "status");
    let updates = lines.iter().filter(|line| line["type"] == "update");
    (updates.map(|line| line["seq"].as_u64().unwrap()).collect(), last["code"].as_str().unwrap().to_owned())
}

#[test]
fn what_followed_a_point_comes_oldest_first_and_the_connection_stays() {
    let server = serve(|_| {});
    for n in 0..40_u32 {
        // Of other topics there is much between.
        publish(&server, "other", 50);
        server.publisher().publish("t.a", Payload::Json(format!("{{\"n\":\n{n}}}").as_bytes())).unwrap();
    }
    let epoch = epoch(&server, "t.a");
    let mut http = Http::connect(server.addresses()[0]);
    let answer = http.get(&format!("/history/t.a?from={epoch}:17"));
    assert_eq!(answer.header("Content-Type"), Some("application/x-ndjson"));
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    assert_eq!(answer.header("Connection"), Some("keep-alive"));
    let lines = answer.lines();
    assert_eq!(lines.len(), 24);
    for (line, seq) in lines.iter().zip(18..=40) {
        assert_eq!((&line["type"], &line["topic"], &line["seq"]), (&json!("update"), &json!("t.a"), &json!(seq)));
        assert_eq!(line["data"], json!({ "n": seq - 1 }));
        assert!(line["ts"].is_u64());
    }
    assert_eq!(lines[23], json!({ "type": "status", "code": "current" }));
    // Other requests on the same connection are for another thread, and it comes back.
    assert_eq!(http.get("/healthz").text(), "ok\n");
    assert_eq!(numbers(&http.get(&format!("/history/t.a?from={epoch}:38"))).0, [39, 40]);
    assert_eq!(numbers(&http.get(&format!("/history/t.a?from={epoch}:40"))), (vec![], "current".into()));
    // The epoch is told where number 1 is.
    let all = http.get("/history/t.a").lines();
    assert_eq!((&all[0]["seq"], &all[0]["epoch"], all.len()), (&json!(1), &json!(epoch), 41));
}

#[test]
fn pages_and_ends_come_to_exactly_what_there_is() {
    let server = serve(|_| {});
    publish(&server, "a", 100);
    let epoch = epoch(&server, "a");
    let mut http = Http::connect(server.addresses()[0]);
    for limit in [1, 7, 16, 33, 99, 100, 101] {
        let (mut seen, mut has) = (Vec::new(), 0);
        loop {
            let (some, code) = numbers(&http.get(&format!("/history/a?from={epoch}:{has}&limit={limit}")));
            assert!(some.len() <= limit);
            seen.extend(some);
            if code == "current" {
                break;
            }
            assert_eq!(code, "more");
            has = *seen.last().unwrap();
        }
        assert!(seen.into_iter().eq(1..=100), "limit={limit}");
    }
    for (from, to) in [(0, 1), (10, 16), (10, 17), (15, 31), (30, 30), (40, 20), (97, 1000)] {
        let (some, code) = numbers(&http.get(&format!("/history/a?from={epoch}:{from}&to={to}")));
        assert!(some.into_iter().eq(from + 1..=to.min(100)), "{from} {to}");
        assert_eq!(code, "current");
        let same = http.get(&format!("/history/a?from={epoch}:{from}&to={epoch}:{to}"));
        assert_eq!(numbers(&same).1, "current");
    }
}

#[test]
fn payloads_of_every_kind_come_as_on_a_websocket() {
    let server = serve(|_| {});
    // Nobody has wanted JSON when these came, and somebody when those did.
    let payloads =
        [Payload::Text("asd"), Payload::Text("7"), Payload::Binary(b"\xff\x00"), Payload::Json(b"[1, 2.50]")];
    payloads.iter().for_each(|payload| {
        server.publisher().publish("a", *payload).unwrap();
    });
    let mut client = Client::hello(&server, "/ws?topics=a&snapshot=0");
    client.json();
    payloads.iter().for_each(|payload| {
        server.publisher().publish("a", *payload).unwrap();
    });
    let live: Vec<Value> = payloads.iter().map(|_| client.json()).collect();
    let lines = Http::connect(server.addresses()[0]).get("/history/a").lines();
    for (n, live) in live.iter().enumerate() {
        assert_eq!(lines[n + 4], *live);
        assert_eq!((&lines[n]["data"], &lines[n]["base64"]), (&live["data"], &live["base64"]));
    }
}

#[test]
fn what_the_tape_no_longer_has_is_told_by_a_reset() {
    let server = serve(|config| {
        config.retain = ByteSize::kib(512);
        config.segment = ByteSize::kib(64);
    });
    publish(&server, "rare", 1);
    publish(&server, "a", 20_000);
    let epoch = epoch(&server, "a");
    let mut http = Http::connect(server.addresses()[0]);
    let answer = http.get(&format!("/history/a?from={epoch}:5&limit=10000"));
    let reset = &answer.lines()[0];
    assert_eq!((&reset["type"], &reset["why"], &reset["epoch"]), (&json!("reset"), &json!("history"), &json!(epoch)));
    let first = reset["seq"].as_u64().unwrap() + 1;
    let (seen, code) = numbers(&answer);
    assert!(seen.into_iter().eq(first..=20_000) && code == "current" && first > 1000);
    // Right behind what is gone nothing is missing.
    let whole = http.get(&format!("/history/a?from={epoch}:{}&limit=1", first - 1));
    assert_eq!(whole.lines()[0]["type"], "update");
    // Of another epoch, or of the future: from the oldest on.
    for (from, why) in [("other:7".to_owned(), "epoch"), (format!("{epoch}:20001"), "history")] {
        let lines = http.get(&format!("/history/a?from={from}&limit=1")).lines();
        assert_eq!((&lines[0]["why"], &lines[1]["seq"]), (&json!(why), &json!(first)), "{from}");
    }
    // Nothing is left of a topic that has gone quiet.
    let lines = http.get("/history/rare").lines();
    assert_eq!(
        (&lines[0]["type"], &lines[0]["seq"], &lines[1]["code"]),
        (&json!("reset"), &json!(1), &json!("current"))
    );
}

#[test]
fn an_answer_is_bounded_in_bytes_and_the_next_one_goes_on() {
    let server = serve(|_| {});
    let pad = json!("x".repeat(10_000)).to_string();
    for _ in 0..300 {
        server.publisher().publish("a", Payload::Json(pad.as_bytes())).unwrap();
    }
    let epoch = epoch(&server, "a");
    let mut http = Http::connect(server.addresses()[0]);
    let (mut has, mut answers) = (0, 0);
    loop {
        let answer = http.get(&format!("/history/a?from={epoch}:{has}"));
        assert!(answer.body.len() <= 1024 * 1024 + 20_000);
        let (seen, code) = numbers(&answer);
        assert!(seen.iter().copied().eq(has + 1..=has + seen.len() as u64));
        has += seen.len() as u64;
        answers += 1;
        if code == "current" {
            break;
        }
    }
    assert_eq!((has, answers), (300, 3));
}

#[test]
fn gzip_is_for_whoever_takes_it_and_only_where_it_pays() {
    let server = serve(|_| {});
    publish(&server, "a", 500);
    let mut http = Http::connect(server.addresses()[0]);
    let plain = http.get("/history/a");
    assert_eq!((plain.header("Content-Encoding"), plain.header("Vary")), (None, Some("Accept-Encoding")));
    http.ask("/history/a", &["Accept-Encoding: br, gzip"]);
    let packed = http.answer();
    assert_eq!(packed.header("Content-Encoding"), Some("gzip"));
    assert!(packed.bytes() == plain.body && packed.body.len() * 4 < plain.body.len(), "{}", packed.body.len());
    http.ask("/history/a?limit=2", &["Accept-Encoding: gzip"]);
    assert_eq!(http.answer().header("Content-Encoding"), None);
    http.ask("/topics", &["Accept-Encoding: gzip"]);
    assert_eq!(http.answer().header("Content-Encoding"), None, "one topic is little");
    (0..100).for_each(|n| publish(&server, &format!("many.{n}"), 1));
    http.ask("/topics", &["Accept-Encoding: gzip"]);
    let packed = http.answer();
    assert_eq!(packed.header("Content-Encoding"), Some("gzip"));
    assert_eq!(packed.json()["count"], 101);
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let server = serve(|_| {});
    publish(&server, "a", 3);
    let at = server.addresses()[0];
    for (path, status, named) in [
        ("/history/a?from=7", 400, "EPOCH:SEQ"),
        ("/history/a?from=k3:x", 400, "EPOCH:SEQ"),
        ("/history/a?from=k3:1&from=k3:2", 400, "more than once"),
        ("/history/a?to=x", 400, "to is SEQ"),
        ("/history/a?from=k3:1&to=k4:2", 400, "epoch of from"),
        ("/history/a?limit=0", 400, "limit"),
        ("/history/a?limit=-1", 400, "limit"),
        ("/history/a..b", 400, "Not a topic"),
        ("/history/*", 400, "Not a topic"),
        ("/history/none", 404, "no such topic"),
        ("/history", 404, "nothing at this path"),
    ] {
        let answer = Http::connect(at).get(path);
        assert!(
            answer.status == status && answer.text().contains(named),
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
    }
    let post = exchange(at, b"POST /history/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), "{post}");
    let options = exchange(at, b"OPTIONS /history/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(options.starts_with("HTTP/1.1 204 ") && options.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), "{options}");
    let mut http = Http::connect(at);
    http.write(b"HEAD /history/a HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:5173\r\n\r\n");
    let head = http.head();
    assert_eq!(head.header("Access-Control-Allow-Origin"), Some("http://localhost:5173"));
    let whole = http.get("/history/a");
    assert_eq!(head.header("Content-Length"), whole.header("Content-Length"));
}

#[test]
fn pipelined_requests_are_answered_in_order_and_a_client_that_has_ended_its_side_too() {
    let server = serve(|_| {});
    publish(&server, "a", 30);
    let mut http = Http::connect(server.addresses()[0]);
    let requests: String =
        (1..=9).map(|limit| format!("GET /history/a?limit={limit} HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    http.write(requests.as_bytes());
    http.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for limit in 1..=9 {
        assert_eq!(http.answer().lines().len(), limit + 1);
    }
    assert_eq!(http.answer().text(), "ok\n");
    http.ask("/history/a", &[]);
    http.end();
    assert_eq!(http.answer().lines().len(), 31);
    assert!(http.is_ended());
}

#[test]
fn whoever_takes_an_answer_too_slowly_is_cut_off() {
    let server = serve(|config| {
        config.sndbuf = ByteSize::kib(8);
        config.min_http_rate = ByteSize::mib(1);
        config.close_timeout = stentor::config::Span::new(Duration::from_millis(300));
    });
    let pad = json!("x".repeat(10_000)).to_string();
    (0..100).for_each(|_| {
        server.publisher().publish("a", Payload::Json(pad.as_bytes())).unwrap();
    });
    let mut http = Http::connect(server.addresses()[0]);
    http.ask("/history/a", &[]);
    let at = server.addresses()[0];
    crate::process::wait_for("the eviction", || metric(at, "http_evictions_total") > 0.0);
    crate::process::wait_for("its end", || metric(at, "connections_admitted") == 1.0);
}

#[test]
fn a_connection_that_was_answered_and_is_idle_is_ended() {
    let server = serve(|config| {
        config.keep_alive_timeout = stentor::config::Span::new(Duration::from_millis(200));
    });
    publish(&server, "a", 1);
    let mut http = Http::connect(server.addresses()[0]);
    http.get("/history/a");
    assert!(http.is_ended());
}
