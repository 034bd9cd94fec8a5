//! Requests as the world sends them, and what is in their addresses.

use std::net::SocketAddr;

use crate::client::{Client, exchange, serve};

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn ask(at: SocketAddr, head: &str) -> String {
    exchange(at, format!("{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
}

fn status(answer: &str) -> &str {
    &answer[9..12]
}

/// The status and the sentence with which a WebSocket to this address is refused, or 101.
fn opened(at: SocketAddr, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n");
    let answer = exchange(at, &[request.as_bytes(), b"\x81\x00"].concat());
    let sentence = answer.split_once("\r\n\r\n").unwrap().1;
    (status(&answer).to_owned(), sentence.to_owned())
}

#[test]
fn topics_may_come_in_several_parameters_and_with_a_plus() {
    let server = serve(|_| {});
    for (path, names) in [
        ("/ws?topics=a&topics=b", &["a", "b"][..]),
        ("/ws?topics=a,b&mode=latest&topics=c", &["a", "b", "c"]),
        ("/ws?topics=fx.EUR+USD", &["fx.EUR+USD"]),
        ("/ws?topics=fx.EUR%2BUSD,fx.%3E", &["fx.EUR+USD", "fx.>"]),
    ] {
        let ack = Client::hello(&server, path).json();
        let found: Vec<&str> =
            ack["topics"].as_array().unwrap().iter().map(|it| it["topic"].as_str().unwrap()).collect();
        assert_eq!(found, names, "{path}");
    }
    server.publisher().publish("fx.EUR+USD", stentor::Payload::Json(b"1")).unwrap();
    let at = server.addresses()[0];
    for path in ["/topics?pattern=fx.EUR+USD", "/topics?pattern=fx.*&after=fx.EUR+CHF", "/topics/fx.EUR+USD"] {
        let answer = ask(at, &format!("GET {path} HTTP/1.1"));
        assert!(answer.contains(r#""topic":"fx.EUR+USD""#), "{path}: {answer}");
    }
}

#[test]
fn echo_is_off_by_every_word_for_it() {
    let server = serve(|_| {});
    let mut other = Client::connect(&server, "/raw/a");
    for (value, echoes) in [("0", false), ("false", false), ("1", true), ("true", true)] {
        let mut client = Client::connect(&server, &format!("/raw/a?echo={value}"));
        client.send("own");
        assert_eq!(other.text(), "own");
        server.publisher().publish("a", stentor::Payload::Text("other")).unwrap();
        assert_eq!(client.text(), if echoes { "own" } else { "other" }, "echo={value}");
        assert_eq!(other.text(), "other");
    }
}

#[test]
fn a_parameter_with_a_value_that_nobody_knows_or_given_twice_is_refused_and_named() {
    let server = serve(|_| {});
    let at = server.addresses()[0];
    for (path, named) in [
        ("/raw/a?echo=", "echo"),
        ("/raw/a?echo=no", "echo"),
        ("/raw/a?echo", "echo"),
        ("/raw/a?echo=0&echo=1", "echo"),
        ("/raw/a?mode=fast", "mode"),
        ("/raw/a?mode=latest&rate=x", "rate"),
        ("/ws?topics=a&mode=all&mode=latest", "mode"),
        ("/ws?topics=a&mode=latest&rate=1&rate=2", "rate"),
        ("/ws?topics=a&topics=", "topic"),
        ("/ws?topics=a&snapshot=maybe", "snapshot"),
        // Without topics, too: it is meant for something.
        ("/ws?mode=fast", "mode"),
        ("/ws?rate=4", "rate"),
        ("/ws?token=a&token=a", "token"),
        ("/ws?topics=a&token=a&token=b", "token"),
        ("/raw/a?token=a&token=b", "token"),
        ("/raw/a?snapshot=0&snapshot=0", "snapshot"),
        ("/raw/a?as=text&as=text", "as"),
    ] {
        let (status, sentence) = opened(at, path);
        assert!(status == "400" && sentence.contains(named), "{path}: {status} {sentence}");
    }
    for (path, named) in [
        ("/sse?topics=a&mode=all&mode=latest", "mode"),
        ("/sse?topics=a&rate=x", "rate"),
        ("/topics?limit=1&limit=2", "limit"),
        ("/topics?limit=all", "limit"),
        ("/topics?pattern=a&pattern=b", "pattern"),
        ("/topics?after=a&after=b", "after"),
        ("/sse?topics=a&token=a&token=b", "token"),
        ("/topics?token=a&token=b", "token"),
        ("/topics/a?token=a&token=b", "token"),
        ("/debug/slow?token=a&token=b", "token"),
    ] {
        let answer = ask(at, &format!("GET {path} HTTP/1.1"));
        assert!(status(&answer) == "400" && answer.contains(named), "{path}: {answer}");
    }
    for path in ["/publish?token=a&token=b", "/publish/a?token=a&token=b", "/publish/a?as=text&as=text"] {
        let answer = post(at, &format!("POST {path} HTTP/1.1"), "Content-Length: 2\r\n", b"{}");
        assert!(status(&answer) == "400" && answer.contains("given more than once"), "{path}: {answer}");
    }
}

#[test]
fn snapshots_can_be_left_out_in_the_address() {
    let server = serve(|_| {});
    server.publisher().publish("a", stentor::Payload::Json(b"1")).unwrap();
    for (value, comes) in [("false", "update"), ("0", "update"), ("true", "snapshot"), ("1", "snapshot")] {
        let mut client = Client::hello(&server, &format!("/ws?topics=a&snapshot={value}"));
        client.json();
        server.publisher().publish("a", stentor::Payload::Json(b"2")).unwrap();
        assert_eq!(client.json()["type"], comes, "snapshot={value}");
    }
}

#[test]
fn a_header_that_nobody_reads_may_be_of_any_letters() {
    let server = serve(|_| {});
    let at = server.addresses()[0];
    for city in ["S\u{e3}o Paulo".as_bytes(), b"S\xe3o Paulo", b"\xff\x80"] {
        for start in ["GET /healthz", "GET /topics", "GET /ws"] {
            let head = [
                start.as_bytes(),
                b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\ncf-ipcity: ",
                city,
                b"\r\n\r\n",
            ];
            let answer = exchange(at, &head.concat());
            let found = if start == "GET /ws" { "426" } else { "200" };
            assert_eq!(status(&answer), found, "{start}: {answer}");
        }
    }
}

#[test]
fn what_is_said_of_the_way_that_a_request_has_come_may_be_of_any_letters() {
    let untrusting = serve(|_| {});
    let trusting = serve(|config| config.trusted_proxy = vec!["127.0.0.1".parse().unwrap()]);
    for server in [&untrusting, &trusting] {
        for name in ["X-Forwarded-For", "Forwarded", "Via"] {
            for start in ["GET /healthz", "GET /topics", "GET /sse?topics=a"] {
                let start = start.replace("GET /sse", "HEAD /sse");
                let head =
                    format!("{start} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{name}: São Paulo\r\n\r\n");
                let answer = exchange(server.addresses()[0], head.as_bytes());
                assert_eq!(status(&answer), "200", "{name} {start}: {answer}");
            }
        }
    }
}

#[test]
fn so_many_headers_are_taken_as_the_flag_says() {
    let server = serve(|config| config.max_headers = 200);
    let head = |n: usize| format!("GET /healthz HTTP/1.1\r\n{}Connection: close", "A: b\r\n".repeat(n - 3));
    assert_eq!(status(&ask(server.addresses()[0], &head(200))), "200");
    let answer = ask(server.addresses()[0], &head(201));
    assert!(status(&answer) == "431" && answer.contains("--max-headers"), "{answer}");
}

#[test]
fn the_key_of_the_rfcs_own_example_is_taken() {
    let server = serve(|_| {});
    let key = "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC==";
    let request = format!("GET /ws HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n")
        .replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", key);
    assert_eq!(status(&exchange(server.addresses()[0], &[request.as_bytes(), b"\x81\x00"].concat())), "101");
}

#[test]
fn head_has_no_body_wherever_it_goes() {
    let server = serve(|_| {});
    let at = server.addresses()[0];
    for (path, found) in [
        ("/ws", "405"),
        ("/raw/a", "405"),
        ("/raw/a..b", "405"),
        ("/sse", "400"),
        ("/sse?topics=a", "200"),
        ("/sse?topics=a..b", "400"),
        ("/topics/none", "404"),
        ("/publish", "405"),
        ("/nothing", "404"),
        ("/", "200"),
    ] {
        let answer = ask(at, &format!("HEAD {path} HTTP/1.1"));
        assert_eq!(status(&answer), found, "{path}: {answer}");
        assert!(answer.ends_with("\r\n\r\n") && answer.matches("\r\n\r\n").count() == 1, "{path}: {answer}");
    }
}

#[test]
fn what_is_not_allowed_says_what_is() {
    let server = serve(|_| {});
    let at = server.addresses()[0];
    for (start, allowed) in [
        ("POST /ws", "GET"),
        ("DELETE /raw/a", "GET"),
        ("DELETE /sse?topics=a", "GET, HEAD, OPTIONS"),
        ("DELETE /topics", "GET, HEAD, OPTIONS"),
        ("GET /publish", "POST, OPTIONS"),
        ("DELETE /publish/a", "POST, OPTIONS"),
        ("DELETE /", "GET, HEAD, OPTIONS"),
    ] {
        let answer = ask(at, &format!("{start} HTTP/1.1"));
        assert_eq!(status(&answer), "405", "{start}: {answer}");
        let allow = answer.lines().find_map(|line| line.strip_prefix("Allow: "));
        assert!(allow.is_some_and(|allow| allow.starts_with(allowed)), "{start}: {answer}");
    }
}

#[test]
fn options_is_answered_everywhere_there_is_something() {
    let server = serve(|_| {});
    let at = server.addresses()[0];
    for path in
        ["*", "/", "/healthz", "/ws", "/raw/a", "/sse", "/topics", "/topics/a", "/publish", "/publish/a", "/metrics"]
    {
        let answer = ask(at, &format!("OPTIONS {path} HTTP/1.1"));
        assert!(status(&answer) == "204" && answer.contains("\r\nAllow: "), "{path}: {answer}");
    }
    // As HAProxy asks whether a server is there.
    assert_eq!(status(&exchange(at, b"OPTIONS / HTTP/1.0\r\n\r\n")), "204");
    assert_eq!(status(&ask(at, "OPTIONS /nothing HTTP/1.1")), "404");
    assert_eq!(status(&ask(at, "GET * HTTP/1.1")), "400");
}

#[test]
fn every_answer_has_a_date() {
    let server = serve(|_| {});
    let at = server.addresses()[0];
    for start in ["GET /healthz", "GET /nothing", "GET /ws", "HEAD /sse?topics=a", "GET /topics", "OPTIONS /", "BAD"] {
        let answer = ask(at, &format!("{start} HTTP/1.1"));
        let date =
            answer.lines().find_map(|line| line.strip_prefix("Date: ")).unwrap_or_else(|| panic!("{start}: {answer}"));
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{start}: {date}");
    }
}

fn post(at: SocketAddr, start: &str, lines: &str, body: &[u8]) -> String {
    let head = format!("{start}\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n");
    exchange(at, &[head.as_bytes(), body].concat())
}

#[test]
fn a_body_that_is_coded_or_has_no_length_is_refused() {
    let server = serve(|_| {});
    let at = server.addresses()[0];
    for path in ["/publish/a", "/publish"] {
        for (lines, found) in [
            ("Content-Encoding: gzip\r\nContent-Length: 3\r\n", "415"),
            ("Content-Encoding: identity, br\r\nContent-Length: 3\r\n", "415"),
            ("Content-Encoding: identity\r\nContent-Length: 3\r\n", if path == "/publish" { "400" } else { "200" }),
        ] {
            let answer = post(at, &format!("POST {path} HTTP/1.1"), lines, b"abc");
            assert_eq!(status(&answer), found, "{path} {lines}: {answer}");
        }
        for version in ["1.0", "1.1"] {
            let answer = post(at, &format!("POST {path} HTTP/{version}"), "", b"");
            assert_eq!(status(&answer), "411", "{path} {version}: {answer}");
        }
    }
    let topics = ask(at, "GET /topics HTTP/1.1");
    assert!(topics.contains(r#""seq":1,"#), "{topics}");
}

#[test]
fn a_later_version_of_http_1_is_spoken_to_as_1_1() {
    let server = serve(|_| {});
    let at = server.addresses()[0];
    for version in ["1.2", "1.9"] {
        assert_eq!(status(&ask(at, &format!("GET /healthz HTTP/{version}"))), "200", "{version}");
        let answer = exchange(at, format!("GET /healthz HTTP/{version}\r\n\r\n").as_bytes());
        assert!(status(&answer) == "400" && answer.contains("Host"), "{answer}");
    }
    for version in ["2.0", "0.9", "3.1"] {
        assert_eq!(status(&ask(at, &format!("GET /healthz HTTP/{version}"))), "505", "{version}");
    }
    for version in ["1.10", "2", "1.1 ", "1.20"] {
        let answer = ask(at, &format!("GET /healthz HTTP/{version}"));
        assert!(status(&answer) == "400" && answer.contains("version"), "{version}: {answer}");
    }
}

#[test]
fn a_format_of_metrics_with_no_weight_is_not_wanted() {
    let server = serve(|_| {});
    for (weight, open) in [("0", false), ("0.", false), ("0.0", false), ("0.000", false), ("0.001", true), ("1", true)]
    {
        let head = format!("GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; q={weight}, text/plain");
        let answer = ask(server.addresses()[0], &head);
        assert_eq!(answer.contains("Content-Type: application/openmetrics-text"), open, "q={weight}");
    }
}

#[test]
fn a_slash_behind_the_address_of_a_stream_is_passed_over() {
    let server = serve(|_| {});
    for path in ["/ws/", "/ws/?topics=a"] {
        Client::hello(&server, path);
    }
    assert_eq!(status(&ask(server.addresses()[0], "HEAD /sse/?topics=a HTTP/1.1")), "200");
}

#[test]
fn json_that_is_too_deep_for_others_to_read_is_not_taken_as_json() {
    let server = serve(|_| {});
    let at = server.addresses()[0];
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let mut client = Client::hello(&server, "/ws?topics=a");
    client.json();
    for (n, taken) in [(120, true), (121, false), (30_000, false)] {
        let json = deep(n);
        let len = json.len();
        let as_json = format!("Content-Type: application/json\r\nContent-Length: {len}\r\n");
        let answer = post(at, "POST /publish/a HTTP/1.1", &as_json, json.as_bytes());
        assert_eq!(status(&answer), if taken { "200" } else { "400" }, "{n}: {answer}");
        let line = format!("{{\"topic\":\"a\",\"data\":{json}}}");
        let answer =
            post(at, "POST /publish HTTP/1.1", &format!("Content-Length: {}\r\n", line.len()), line.as_bytes());
        assert_eq!(status(&answer), if taken { "200" } else { "400" }, "{n}: {answer}");
        if taken {
            assert_eq!((client.json()["data"].is_array(), client.json()["data"].is_array()), (true, true));
        } else {
            assert!(answer.contains("120"), "it says how deep it may be: {answer}");
        }
        let told = client.ask(&format!("{{\"op\":\"pub\",\"id\":1,\"topic\":\"b\",\"data\":{json}}}"));
        match taken {
            true => assert_eq!(told["type"], "ack"),
            false => assert!(told["code"] == "too_deep" && told["id"] == 1, "{told}"),
        }
        // Nobody has said that it is JSON.
        let answer = post(at, "POST /publish/a HTTP/1.1", &format!("Content-Length: {len}\r\n"), json.as_bytes());
        assert_eq!(status(&answer), "200", "{n}: {answer}");
        assert_eq!(client.json()["data"].is_array(), taken, "{n}");
    }
}
