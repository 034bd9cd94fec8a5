//! Who may publish.

use crate::client::{Client, serve};

const TOKEN: &str = "s3cret-token";

fn guarded() -> stentor::server::Server {
    serve(|config| config.publish_token = Some(TOKEN.parse().unwrap()))
}

const PUB: &str = r#"{"op":"pub","id":1,"topic":"a","data":1}"#;

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
