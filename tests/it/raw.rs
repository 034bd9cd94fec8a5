//! Bare topics on `/raw/TOPIC`, and how the two lanes translate into each other.

use stentor::Payload;
use tungstenite::Message;

use crate::client::{Client, serve};

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
