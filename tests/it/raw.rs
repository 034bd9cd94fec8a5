//! Bare topics on `/raw/TOPIC`, and how the two lanes translate into each other.

use stentor::Payload;
use tungstenite::Message;

use crate::client::{Client, exchange, serve};

#[test]
fn what_a_client_sends_comes_back_with_its_opcode() {
    let server = serve(|_| {});
    let mut client = Client::connect(&server, "/raw/a.b");
    let large = "x".repeat(60_000);
    for message in [Message::text("hello"), Message::binary(vec![0, 255, 7]), Message::text(""), Message::text(large)] {
        client.socket.send(message.clone()).unwrap();
        assert_eq!(client.message(), message);
    }
}

#[test]
fn echo_0_keeps_a_publisher_from_its_own_messages_only() {
    let server = serve(|_| {});
    let mut quiet = Client::connect(&server, "/raw/a?echo=0");
    let mut other = Client::connect(&server, "/raw/a");
    quiet.send("mine");
    assert_eq!(other.text(), "mine");
    other.send("yours");
    assert_eq!(quiet.text(), "yours");
}

#[test]
fn a_raw_payload_reaches_json_subscribers_in_the_form_that_fits_it() {
    let server = serve(|_| {});
    let mut raw = Client::connect(&server, "/raw/a?echo=0");
    let mut json = Client::hello(&server, "/ws?topics=a");
    json.json();
    raw.send(" {\"x\": 1} ");
    raw.send("not json \"at\" all\n");
    raw.socket.send(Message::binary(b"\x00\xffab".to_vec())).unwrap();
    assert!(json.text().ends_with(",\"data\": {\"x\": 1} }"));
    assert_eq!(json.json()["data"], "not json \"at\" all\n");
    let binary = json.json();
    assert_eq!(binary["base64"], "AP9hYg==");
    assert!(binary.get("data").is_none());
}

#[test]
fn a_raw_client_says_what_its_text_is() {
    let server = serve(|_| {});
    let mut json = Client::hello(&server, "/ws?topics=a");
    json.json();
    for (asked, expected) in [("", r#"7"#), ("?as=auto", r#"7"#), ("?as=json", r#"7"#), ("?as=text", r#""7""#)] {
        let mut raw = Client::connect(&server, &format!("/raw/a{asked}"));
        raw.send("7");
        assert_eq!(raw.text(), "7", "{asked}");
        assert!(json.text().ends_with(&format!(",\"data\":{expected}}}")), "{asked}");
        raw.socket.send(Message::binary(b"7".to_vec())).unwrap();
        assert_eq!(json.json()["base64"], "Nw==", "{asked}");
    }
    let mut raw = Client::connect(&server, "/raw/a?as=json&echo=0");
    raw.send("asd");
    let reason = "the message is said to be JSON, and isn't: expected value at line 1 column 1".to_owned();
    assert_eq!(raw.closed(), (1008, reason));
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
    let key = "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n";
    let request = format!("GET /raw/a?as=string HTTP/1.1\r\nHost: localhost\r\n{upgrade}{key}\r\n");
    let refused = exchange(server.addresses()[0], request.as_bytes());
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    assert!(refused.contains("as is one of json, text, auto; found \"string\""), "{refused}");
}

#[test]
fn a_snapshot_of_declared_text_is_text_though_nobody_listened_when_it_came() {
    let server = serve(|_| {});
    server.publisher().publish("a", Payload::Plain("7")).unwrap();
    let mut client = Client::hello(&server, "/ws?topics=a");
    client.json();
    let snapshot = client.json();
    assert_eq!(snapshot["data"], "7");
    server.publisher().publish("a", Payload::Plain("[8]")).unwrap();
    assert_eq!(client.json()["data"], "[8]");
    let mut back = Client::hello(&server, "/ws");
    back.ask(&format!(r#"{{"op":"sub","topics":["a"],"from":{{"a":[{},0]}}}}"#, snapshot["epoch"]));
    assert_eq!([back.json()["data"].clone(), back.json()["data"].clone()], ["7", "[8]"]);
}

#[test]
fn a_json_publication_reaches_raw_subscribers_as_the_bytes_of_its_data() {
    let server = serve(|_| {});
    let mut raw = Client::connect(&server, "/raw/a");
    let mut json = Client::hello(&server, "/ws");
    json.send(r#"{"op":"pub","topic":"a","data":{ "bid":1.50 }}"#);
    assert_eq!(raw.text(), r#"{ "bid":1.50 }"#);
}

#[test]
fn a_snapshot_of_text_published_before_anybody_listened_is_right() {
    let server = serve(|_| {});
    server.publisher().publish("a", Payload::Text("plain")).unwrap();
    server.publisher().publish("b", Payload::Text("[1]")).unwrap();
    server.publisher().publish("c", Payload::Binary(b"\xff")).unwrap();
    let mut client = Client::hello(&server, "/ws?topics=a,b,c");
    client.json();
    assert_eq!(client.json()["data"], "plain");
    assert_eq!(client.json()["data"][0], 1);
    assert_eq!(client.json()["base64"], "/w==");
}
