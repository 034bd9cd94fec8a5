//! Who may publish.

use std::io::{Read, Write};

use stentor::{Payload, config::Config, server::Server};

use crate::client::{Client, read_frame, serve, tcp, until, upgraded};

const TOKEN: &str = "s3cret-token";

fn guarded() -> Server {
    serve(|config| config.publish_token = Some(TOKEN.parse().unwrap()))
}

const PUB: &str = r#"{"op":"pub","id":1,"topic":"a","data":1}"#;

/// Changes the settings while the server runs, as SIGHUP does; without a token to begin with.
fn reload(server: &mut Server, token: Option<&str>) {
    let token = token.map(|token| token.parse().unwrap());
    server.reload(&Config { publish_token: token, ..Config::default() }).unwrap();
}

#[test]
fn a_token_that_is_set_or_changed_binds_connections_that_were_open_before() {
    let mut server = serve(|_| {});
    let mut anonymous = Client::hello(&server, "/ws");
    let mut raw = Client::connect(&server, "/raw/a");
    assert_eq!(anonymous.ask(PUB)["seq"], 1);
    assert_eq!(raw.text(), "1");
    reload(&mut server, Some("first"));
    assert_eq!(anonymous.ask(PUB)["code"], "forbidden");
    raw.send("2");
    assert_eq!(raw.closed().0, 1008);
    let mut holder = Client::hello(&server, "/ws?token=first");
    assert_eq!(holder.ask(PUB)["seq"], 2);
    reload(&mut server, Some("first"));
    assert_eq!(holder.ask(PUB)["seq"], 3, "the same token is no other");
    reload(&mut server, Some("second"));
    assert_eq!(holder.ask(PUB)["code"], "forbidden");
    assert_eq!(holder.ask(r#"{"op":"auth","id":2,"token":"second"}"#)["type"], "ack");
    assert_eq!(holder.ask(PUB)["seq"], 4);
    reload(&mut server, None);
    assert_eq!(anonymous.ask(PUB)["seq"], 5, "where none is needed any more, anybody may");
}

#[test]
fn a_body_that_goes_on_ends_with_the_right_to_publish() {
    let mut server = serve(|_| {});
    let mut subscriber = Client::hello(&server, "/ws?topics=a");
    subscriber.json();
    let mut stream = tcp(server.addresses()[0]);
    let line = "{\"topic\":\"a\",\"data\":1}\n";
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    write!(stream, "POST /publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}").unwrap();
    assert_eq!(subscriber.json()["seq"], 1);
    reload(&mut server, Some("first"));
    write!(stream, "{chunk}0\r\n\r\n").unwrap();
    let answer = until(&mut stream, "before it.");
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("1 publication went before it"), "{answer}");
}

#[test]
fn without_the_token_publishing_is_refused_and_subscribing_is_not() {
    let server = guarded();
    let mut client = Client::hello(&server, "/ws?topics=a");
    client.json();
    let refused = client.ask(PUB);
    assert_eq!((&refused["type"], &refused["code"], &refused["id"]), (&"error".into(), &"forbidden".into(), &1.into()));
    let mut raw = Client::connect(&server, "/raw/a");
    raw.send("x");
    assert_eq!(raw.closed().0, 1008);
    assert_eq!(client.ask(r#"{"op":"ping"}"#)["type"], "pong");
}

#[test]
fn the_token_can_be_shown_in_three_ways() {
    let server = guarded();
    let address = server.addresses()[0];
    let mut by_op = Client::hello(&server, "/ws");
    assert_eq!(by_op.ask(&format!(r#"{{"op":"auth","id":1,"token":"{TOKEN}"}}"#))["type"], "ack");
    let mut by_query = Client::hello(&server, &format!("/ws?token={TOKEN}"));
    let bearer = format!("Bearer {TOKEN}");
    let mut by_header = Client::try_connect(address, "/ws", &[("Authorization", &bearer)]).unwrap();
    assert_eq!(by_header.json()["type"], "hello");
    for (n, client) in [&mut by_op, &mut by_query, &mut by_header].into_iter().enumerate() {
        assert_eq!(client.ask(PUB)["seq"], n + 1);
    }
}

#[test]
fn a_wrong_token_is_closed_with_4001() {
    let server = guarded();
    let mut client = Client::hello(&server, "/ws");
    assert_eq!(client.ask(r#"{"op":"auth","token":"guess"}"#)["code"], "unauthorized");
    assert_eq!(client.closed().0, 4001);
    let mut client = Client::connect(&server, "/raw/a?token=guess");
    assert_eq!(client.closed().0, 4001);
}

/// A guarded server with a last value on `a`.
fn with_a_value() -> Server {
    let server = guarded();
    server.publisher().publish("a", Payload::Json(b"1")).unwrap();
    server
}

/// The answer to a request over plain HTTP, with these lines more; of a stream that doesn't end, its head.
fn ask(server: &Server, start: &str, lines: &str, body: &str) -> String {
    let len = body.len();
    let head =
        format!("{start} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}Content-Length: {len}\r\n\r\n");
    let mut stream = tcp(server.addresses()[0]);
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = until(&mut stream, "\r\n\r\n");
    if !answer.contains("text/event-stream") {
        stream.read_to_string(&mut answer).unwrap();
    }
    answer
}

/// What a request is answered for each way of showing this token.
fn asked_with(server: &Server, start: &str, token: &str, body: &str) -> [String; 2] {
    let query = if start.contains('?') { '&' } else { '?' };
    let by_query = ask(server, &format!("{start}{query}token={token}"), "", body);
    [by_query, ask(server, start, &format!("Authorization: Bearer {token}\r\n"), body)]
}

fn assert_unauthorized(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
    assert!(answer.contains("\r\nWWW-Authenticate: Bearer realm=\"stentor\"\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nThe token is not the right one.\n"), "{answer}");
}

fn assert_ok(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

/// Asserts how many were refused for want of a right.
fn forbidden(server: &Server, times: usize) {
    let metrics = ask(server, "GET /metrics", "", "");
    let line = format!("stentor_refusals_total{{reason=\"forbidden\"}} {times}\n");
    assert!(metrics.contains(&line), "{line}{metrics}");
}

/// The text of every message up to the close frame, and that frame's code and reason.
fn all_that_comes(stream: &mut impl Read) -> (Vec<String>, u16, String) {
    let mut messages = Vec::new();
    loop {
        let (first, payload) = read_frame(stream);
        if first == 0x88 {
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            return (messages, code, String::from_utf8(payload[2..].to_vec()).unwrap());
        }
        assert_eq!(first, 0x81);
        messages.push(String::from_utf8(payload).unwrap());
    }
}

#[test]
fn a_websocket_with_a_wrong_token_is_greeted_told_closed_and_sent_nothing_else() {
    let server = with_a_value();
    // What else is wrong with the request doesn't matter any more.
    for path in ["/ws?topics=a&token=guess", "/ws?token=guess&topics=a..b", "/ws?token=guess&topics=a&rate=fast"] {
        let (messages, code, reason) = all_that_comes(&mut upgraded(server.addresses()[0], path));
        assert_eq!((code, reason.as_str()), (4001, "the token is not the right one"), "{path}");
        assert!(messages[0].starts_with(r#"{"type":"hello","#), "{path} {messages:?}");
        let error = r#"{"type":"error","code":"unauthorized","message":"the token is not the right one"}"#;
        assert_eq!(messages[1..], [error], "{path}");
    }
    let address = server.addresses()[0];
    let mut by_header = Client::try_connect(address, "/ws?topics=a", &[("Authorization", "Bearer guess")]).unwrap();
    let types: Vec<_> = std::iter::repeat_with(|| by_header.json()["type"].clone()).take(2).collect();
    assert_eq!(types, ["hello", "error"]);
    assert_eq!(by_header.closed().0, 4001);
    forbidden(&server, 4);
}

#[test]
fn a_raw_connection_with_a_wrong_token_is_sent_its_close_and_nothing_else() {
    let server = with_a_value();
    for path in ["/raw/a?token=guess", "/raw/a..b?token=guess", "/raw/a?token=guess&mode=none"] {
        let (messages, code, reason) = all_that_comes(&mut upgraded(server.addresses()[0], path));
        assert_eq!((code, reason.as_str()), (4001, "the token is not the right one"), "{path}");
        assert_eq!(messages, [""; 0], "{path}");
    }
    forbidden(&server, 3);
}

#[test]
fn a_stream_of_events_is_refused_for_a_wrong_token() {
    let server = with_a_value();
    for start in ["GET /sse?topics=a", "GET /sse", "GET /sse?topics=a..b"] {
        asked_with(&server, start, "guess", "").iter().for_each(|answer| assert_unauthorized(answer));
    }
    forbidden(&server, 6);
    for request in [format!("GET /sse?topics=a&token={TOKEN}"), "GET /sse?topics=a".into()] {
        let mut stream = tcp(server.addresses()[0]);
        write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_ok(&until(&mut stream, "\"data\":1}\n\n"));
    }
}

#[test]
fn the_topics_are_refused_for_a_wrong_token() {
    let server = with_a_value();
    for path in ["/topics", "/topics?pattern=a..b", "/topics/a", "/topics/none", "/topics/a..b"] {
        asked_with(&server, &format!("GET {path}"), "guess", "").iter().for_each(|answer| assert_unauthorized(answer));
    }
    forbidden(&server, 10);
    for path in ["/topics", "/topics/a"] {
        asked_with(&server, &format!("GET {path}"), TOKEN, "").iter().for_each(|answer| assert_ok(answer));
        assert_ok(&ask(&server, &format!("GET {path}"), "", ""));
    }
}

#[test]
fn publishing_is_refused_for_a_wrong_token_also_where_none_is_needed() {
    let server = serve(|config| {
        config.publish_token = Some(TOKEN.parse().unwrap());
        config.anonymous_publish = true;
    });
    let line = r#"{"topic":"a","data":1}"#;
    for start in ["POST /publish/a", "POST /publish/a..b", "POST /publish"] {
        asked_with(&server, start, "guess", line).iter().for_each(|answer| assert_unauthorized(answer));
    }
    forbidden(&server, 6);
    let nothing = ask(&server, "GET /topics", "", "");
    assert!(nothing.ends_with(r#"{"count":0,"topics":[]}"#), "{nothing}");
    for start in ["POST /publish/a", "POST /publish"] {
        asked_with(&server, start, TOKEN, line).iter().for_each(|answer| assert_ok(answer));
        assert_ok(&ask(&server, start, "", line));
    }
}

#[test]
fn a_wrong_token_costs_its_address_no_subscription() {
    // One an hour.
    let server = serve(|config| {
        config.publish_token = Some(TOKEN.parse().unwrap());
        config.max_commands_per_ip = "0.00028/s".parse().unwrap();
    });
    for path in ["/ws?topics=a&token=guess", "/raw/a?token=guess"] {
        assert_eq!(Client::connect(&server, path).closed().0, 4001);
    }
    asked_with(&server, "GET /sse?topics=a", "guess", "").iter().for_each(|answer| assert_unauthorized(answer));
    assert_eq!(Client::hello(&server, "/ws?topics=a").json()["type"], "ack");
    let again = Client::try_connect(server.addresses()[0], "/ws?topics=a", &[]);
    assert!(again.is_err_and(|error| error.contains("429")));
}

#[test]
fn a_page_from_elsewhere_is_not_told_whether_a_token_is_right() {
    let server = serve(|config| {
        config.publish_token = Some(TOKEN.parse().unwrap());
        config.allow_origin = vec!["https://ours.example".into()];
    });
    for token in ["guess", TOKEN] {
        for path in [format!("/ws?token={token}"), format!("/raw/a?token={token}")] {
            let refused = Client::try_connect(server.addresses()[0], &path, &[("Origin", "https://theirs.example")]);
            assert!(refused.is_err_and(|error| error.contains("403")), "{path}");
        }
        for start in [format!("GET /sse?topics=a&token={token}"), format!("POST /publish/a?token={token}")] {
            let answer = ask(&server, &start, "Origin: https://theirs.example\r\n", "");
            assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        }
    }
}

#[test]
fn what_shows_no_data_asks_for_no_token() {
    let server = guarded();
    for path in ["/healthz", "/readyz", "/", "/stentor.js"] {
        asked_with(&server, &format!("GET {path}"), "guess", "").iter().for_each(|answer| assert_ok(answer));
    }
}

#[test]
fn what_is_for_operators_is_refused_for_a_wrong_token_also_from_this_machine() {
    let boss: fn(&mut Config) = |config| config.admin_token = Some("boss".parse().unwrap());
    for server in [guarded(), serve(boss)] {
        for start in ["GET /metrics", "GET /debug/slow", "POST /revoke", "GET /topics"] {
            asked_with(&server, start, "guess", "").iter().for_each(|answer| assert_unauthorized(answer));
        }
    }
    let server = serve(|_| {});
    assert_ok(&ask(&server, "GET /metrics", "", ""));
    for start in ["GET /metrics", "GET /debug/slow", "POST /revoke"] {
        for answer in asked_with(&server, start, "guess", "") {
            assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("no --admin-token"), "{answer}");
        }
    }
}

#[test]
fn a_token_that_was_lost_on_the_way_is_a_wrong_one() {
    let server = with_a_value();
    let empty = "Authorization: Bearer \r\n";
    for start in ["GET /topics", "GET /topics/a", "GET /metrics", "GET /sse?topics=a", "GET /poll?topics=a"] {
        assert_unauthorized(&ask(&server, start, empty, ""));
    }
    let mut client =
        Client::try_connect(server.addresses()[0], "/ws?topics=a", &[("Authorization", "Bearer ")]).unwrap();
    assert_eq!(client.json()["type"], "hello");
    assert_eq!(client.json()["code"], "unauthorized");
    assert_eq!(client.closed().0, 4001);
}

#[test]
fn where_no_token_is_set_http_passes_one_over_and_a_websocket_finds_it_wrong() {
    let server = serve(|_| {});
    for start in ["POST /publish/a", "GET /topics", "GET /topics/a"] {
        asked_with(&server, start, "any", "1").iter().for_each(|answer| assert_ok(answer));
    }
    asked_with(&server, "GET /sse?topics=a", "any", "").iter().for_each(|answer| assert_ok(answer));
    for path in ["/ws?topics=a&token=any", "/raw/a?token=any"] {
        assert_eq!(Client::connect(&server, path).closed().0, 4001, "{path}");
    }
}
