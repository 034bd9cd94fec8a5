//! Publishing over HTTP.

use super::*;
use crate::publication::Kind;

#[test]
fn a_body_is_the_payload_of_one_publication() {
    let server = Server::start();
    let mut client = server.connect();
    let first = client.post("/publish/a.b", "", "{\"px\": 1.50}").json();
    assert_eq!((&first["topic"], &first["seq"]), (&"a.b".into(), &1.into()));
    assert_eq!(client.post("/publish/a.b", "", "not JSON").json()["seq"], 2);
    assert_eq!(last(&mut client, "a.b")["data"], "not JSON");
    assert_eq!(client.post("/publish/a.b", "Content-Type: application/json; charset=utf-8\r\n", "[1]").status, 200);
    let value = client.get("/topics/a.b");
    assert!(value.body.starts_with(r#"{"topic":"a.b","epoch":"10","subscribers":0,"seq":3,"ts":"#), "{}", value.body);
    assert!(value.body.ends_with(r#","data":[1]}"#), "{}", value.body);
    client.post("/publish/a.b", "Content-Type: application/octet-stream\r\n", "[1]");
    assert_eq!(last(&mut client, "a.b")["base64"], "WzFd");
    client.post("/publish/a.b", "", b"\xff");
    assert_eq!(last(&mut client, "a.b")["base64"], "/w==");
    let metrics = &server.context.shared.metrics;
    assert_eq!((metrics.http_publications.get(), metrics.own_publications.get()), (5, 0));
}

#[test]
fn a_body_said_to_be_json_must_be_that() {
    let server = Server::start();
    let mut client = server.connect();
    let answer = client.post("/publish/a", "Content-Type: Application/JSON\r\n", "{\"px\":");
    assert_eq!(answer.status, 400);
    assert!(answer.body.starts_with("The body is said to be JSON, and isn't: "), "{}", answer.body);
    assert_eq!(client.get("/topics/a").status, 404);
}

#[test]
fn text_that_is_declared_stays_text_whatever_it_looks_like() {
    let server = Server::start();
    let mut client = server.connect();
    let (plain, form) =
        ("Content-Type: text/plain;charset=UTF-8\r\n", "Content-Type: application/x-www-form-urlencoded\r\n");
    let csv = "Content-Type: Text/CSV\r\n";
    let (vendor, binary) = ("Content-Type: application/vnd.x+json\r\n", "Content-Type: application/octet-stream\r\n");
    for (text, is_json) in
        [("7", true), ("08", false), ("asd", false), ("\"asd\"", true), ("null", true), ("1e5", true)]
    {
        let as_text = serde_json::Value::from(text);
        let as_json = serde_json::from_str(text).unwrap_or(as_text.clone());
        for (asked, headers, expected) in [
            ("", plain, &as_text),
            ("", csv, &as_text),
            ("", form, &as_json),
            ("", "", &as_json),
            ("?as=auto", plain, &as_json),
            ("?as=auto", binary, &as_json),
            ("?as=text", form, &as_text),
            ("?as=text", "Content-Type: application/json\r\n", &as_text),
            ("?x=1&as=text", binary, &as_text),
        ] {
            assert_eq!(client.post(&format!("/publish/a{asked}"), headers, text).status, 200);
            assert_eq!(last(&mut client, "a")["data"], *expected, "{text} {asked} {headers}");
        }
        for (asked, headers) in
            [("?as=json", plain), ("?as=json", ""), ("", vendor), ("", "Content-Type: text/json\r\n")]
        {
            let answer = client.post(&format!("/publish/b{asked}"), headers, text);
            assert_eq!(answer.status, if is_json { 200 } else { 400 }, "{text} {asked} {headers}: {}", answer.body);
            client = server.connect();
        }
    }
}

#[test]
fn what_is_said_of_a_payload_is_one_of_three_words_and_true() {
    let server = Server::start();
    for (target, headers, body, why) in [
        ("/publish/a?as=number", "", "1", "In the address: as is one of json, text, auto; found \"number\"."),
        ("/publish/a?as=", "", "1", "In the address: as is one of json, text, auto; found \"\"."),
        ("/publish/a?as=text&as=json", "", "1", "In the address: as is given more than once."),
        ("/publish?as=JSON", "", "", "In the address: as is one of json, text, auto; found \"JSON\"."),
        (
            "/publish?as=text",
            "",
            "",
            "In the address: as=text is for one payload; a line says by itself what is text, by \"text\".",
        ),
        ("/publish/a?as=text", "", "\u{1}", ""),
        ("/publish/a?as=json", "", "asd", "The body is said to be JSON, and isn't: expected value at line 1 column 1."),
    ] {
        let answer = server.connect().post(target, headers, body);
        let (status, why) = if why.is_empty() { (200, answer.body.trim_end()) } else { (400, why) };
        assert_eq!((answer.status, answer.body.trim_end()), (status, why), "{target}");
    }
    for headers in ["Content-Type: text/plain\r\n", "Content-Type: application/json\r\n"] {
        let answer = server.connect().post("/publish/b", headers, b"\xff");
        assert_eq!((answer.status, answer.body.contains("not UTF-8")), (400, true), "{}", answer.body);
    }
    let line = "{\"topic\":\"a\",\"data\":7}";
    assert_eq!(server.connect().post("/publish?as=json", "", line).body, r#"{"published":1}"#);
    assert_eq!(server.connect().get("/topics/b").status, 404);
}

#[test]
fn a_topic_that_is_none_and_one_too_many_are_refused() {
    let server = Server::with(|config| (config.max_topics, config.max_topics_per_ip) = (1, Some(0)), |_| {});
    let mut client = server.connect();
    assert!(client.post("/publish/a..b", "", "").body.contains("byte 2"));
    let mut client = server.connect();
    assert_eq!(client.post("/publish/a", "", "1").status, 200);
    let answer = client.post("/publish/b", "", "1");
    assert_eq!((answer.status, answer.body.contains("--max-topics")), (503, true));
    assert_eq!(server.refused(Refusal::TopicsFull), 1);
    assert_eq!(client.post("/publish/a", "", "1").json()["seq"], 2);
}

#[test]
fn lines_are_published_blank_ones_left_out() {
    let server = Server::start();
    let mut client = server.connect();
    let lines =
        "{\"topic\":\"a\",\"data\":1}\n\r\n  \n{\"topic\":\"a\",\"data\":2}\r\n{\"topic\":\"b\",\"data\":{\"x\":1.0}}";
    assert_eq!(client.post("/publish", "", lines).body, r#"{"published":3}"#);
    assert_eq!(last(&mut client, "a")["seq"], 2);
    assert!(client.get("/topics/b").body.ends_with(r#""data":{"x":1.0}}"#));
    assert_eq!(client.post("/publish", "", "").body, r#"{"published":0}"#);
    assert_eq!(server.context.shared.metrics.http_publications.get(), 3);
}

#[test]
fn lines_in_any_pieces_come_to_the_same() {
    let server = Server::start();
    let lines = "{\"topic\":\"a\",\"data\":\"é\"}\r\n\n{\"topic\":\"a\",\"data\":2}";
    for size in [1, 2, 7, 100] {
        let mut client = server.connect();
        client.0.get_ref().set_nodelay(true).unwrap();
        client.send("POST /publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in lines.as_bytes().chunks(size) {
            client.send(format!("{:x}\r\n", piece.len())).send(piece).send("\r\n");
        }
        assert_eq!(client.send("0\r\n\r\n").answer().body, r#"{"published":2}"#);
    }
    assert_eq!(last(&mut server.connect(), "a")["seq"], 8);
}

#[test]
fn lines_are_published_before_the_body_has_ended() {
    let server = Server::start();
    let mut publisher = server.connect();
    publisher.send(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{\"topic\":\"a\",\"data\":1}\n{\"to",
    );
    let mut client = server.connect();
    while client.get("/topics/a").status == 404 {}
    assert_eq!(last(&mut client, "a")["data"], 1);
}

#[test]
fn lines_may_hold_text_and_bytes_and_a_recording_is_taken_but_for_its_gaps() {
    let server = Server::start();
    let mut client = server.connect();
    let body = concat!(
        r#"{"ts_ns":1,"topic":"a","text":"7"}"#,
        "\n",
        r#"{"topic":"b","base64":"/wA=","seq":7}"#,
        "\n",
        r#"{"topic":"c","data":"7"}"#,
    );
    assert_eq!(client.post("/publish", "", body).body, r#"{"published":3}"#);
    assert_eq!((&last(&mut client, "a")["data"], &last(&mut client, "b")["base64"]), (&"7".into(), &"/wA=".into()));
    let kind = |topic: &str| {
        server.context.tape.with_topics(|topics, _| topics.find(topic).and_then(|t| t.last.clone())).unwrap().kind
    };
    assert_eq!(["a", "b", "c"].map(kind), [Kind::Plain, Kind::Binary, Kind::Json]);
    let gap = client.post("/publish", "", r#"{"ts_ns":1,"topic":"a","gap":{}}"#);
    let what = "Line 1 is bad: expected a field \"data\", found none; nothing was published before it.\n";
    assert_eq!((gap.status, &*gap.body), (400, what));
}

#[test]
fn a_bad_line_is_named_with_what_went_before() {
    let server = Server::start();
    let good = "{\"topic\":\"a\",\"data\":1}\n";
    for (bad, what) in [
        (
            "{\"topic\":\"a\"}\n",
            "Line 4 is bad: expected a field \"data\", found none; 2 publications went before it.\n",
        ),
        ("{\"topic\":\"a..\",\"data\":1}\n", "byte 2: dots stand between segments, one at a time; 2 publications"),
        ("nonsense", "Line 4 is bad: expected a JSON object"),
    ] {
        let mut client = server.connect();
        let answer = client.post("/publish", "", format!("{good}\n{good}{bad}{good}"));
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains(what), "{}", answer.body);
        // The whole body had come, so the connection is good for more.
        assert_eq!(client.get("/healthz").status, 200);
    }
    assert_eq!(server.context.shared.metrics.http_publications.get(), 6);
}

#[test]
fn a_line_without_end_is_refused_at_its_bound() {
    let server = Server::with(|config| config.max_message = "1KiB".parse().unwrap(), |_| {});
    let mut client = server.connect();
    client.send("POST /publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("1000\r\n").send("x".repeat(0x1000));
    let answer = client.answer();
    assert_eq!(
        answer.body,
        "Line 1 is bad: expected at most 2048 bytes, found more; nothing was published before it.\n"
    );
    assert_eq!(answer.headers["connection"], "close");
    client.assert_ended();
}

#[test]
fn a_body_that_grows_too_large_says_what_went_before() {
    let server = Server::with(|config| config.max_body = "64B".parse().unwrap(), |_| {});
    let mut client = server.connect();
    client.send("POST /publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let line = "{\"topic\":\"a\",\"data\":1}\n";
    let answer = client.send(format!("17\r\n{line}\r\n17\r\n{line}\r\n17\r\n")).answer();
    assert_eq!(answer.status, 413);
    assert_eq!(answer.body, "The body is larger than accepted here; 2 publications went before it.\n");
}

#[test]
fn a_client_that_expects_continue_is_told_to_or_refused() {
    let server = Server::with(|config| config.max_message = "1KiB".parse().unwrap(), |_| {});
    let mut client = server.connect();
    let head = "POST /publish/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n";
    client.send(head).send("Transfer-Encoding: chunked\r\n\r\n");
    assert_eq!((client.line().as_str(), client.line().as_str()), ("HTTP/1.1 100 Continue", ""));
    assert_eq!(client.send("2\r\n12\r\n1\r\n3\r\n0\r\n\r\n").answer().status, 200);
    assert_eq!(last(&mut client, "a")["data"], 123);
    let answer = client.send(head).send("Content-Length: 1025\r\n\r\n").answer();
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (413, "close"));
    client.assert_ended();
}

#[test]
fn publishing_needs_the_token() {
    let server = Server::with(|config| config.publish_token = Some("secret".parse().unwrap()), |_| {});
    for (target, headers) in [
        ("/publish/a", ""),
        ("/publish", ""),
        ("/publish/a?token=wrong", ""),
        ("/publish/a", "Authorization: Bearer wrong\r\n"),
    ] {
        let answer = server.connect().post(target, headers, "1");
        assert_eq!((answer.status, answer.headers["connection"].as_str()), (401, "close"), "{target} {headers}");
        assert!(answer.headers["www-authenticate"].starts_with("Bearer"));
    }
    assert_eq!(server.refused(Refusal::Forbidden), 4);
    let mut client = server.connect();
    assert_eq!(client.post("/publish/a", "Authorization: Bearer secret\r\n", "1").status, 200);
    assert_eq!(client.post("/publish/a?token=secret", "", "1").status, 200);
    assert_eq!(client.get("/topics").status, 200);
}

#[test]
fn a_page_from_elsewhere_may_not_publish() {
    let server = Server::with(|config| config.allow_origin = vec!["https://example.com".into()], |_| {});
    assert_eq!(server.connect().post("/publish/a", "Origin: https://evil.example\r\n", "1").status, 403);
    assert_eq!(server.connect().post("/publish/a", "Origin: https://example.com\r\n", "1").status, 200);
    assert_eq!(server.refused(Refusal::Origin), 1);
}
