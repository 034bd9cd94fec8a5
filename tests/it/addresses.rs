//! What one address may have of what all share, and how often it may do something; and that others notice nothing of it.
//!
//! All of 127.0.0.0/8 is this machine, so clients come from as many addresses as a test wants.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
};

use bytesize::ByteSize;
use socket2::{Domain, Socket, Type};
use stentor::{Payload, server::Server};
use tungstenite::client::IntoClientRequest;

use crate::client::{Client, PATIENCE, exchange, frame, read_frame, serve};

const GREEDY: u8 = 1;
const OTHER: u8 = 2;

/// So seldom that nothing is added while a test runs.
const ONCE: &str = "0.001/s";

/// A stream from 127.0.0.`source`.
fn tcp_from(server: &Server, source: u8) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, source), 0)).into()).unwrap();
    socket.connect(&server.addresses()[0].into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A WebSocket from 127.0.0.`source`, or the answer to the request.
fn try_from(server: &Server, source: u8, path: &str) -> Result<Client, String> {
    let request = format!("ws://{}{path}", server.addresses()[0]).into_client_request().unwrap();
    match tungstenite::client(request, tcp_from(server, source)) {
        Ok((socket, _)) => Ok(Client { socket }),
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
            let body = answer.body().as_deref().unwrap_or_default();
            let later = answer.headers().get("Retry-After").map_or("", |_| ", later");
            Err(format!("{}{later}: {}", answer.status().as_u16(), String::from_utf8_lossy(body)))
        }
        Err(error) => panic!("{error}"),
    }
}

fn from(server: &Server, source: u8, path: &str) -> Client {
    try_from(server, source, path).unwrap()
}

fn hello_from(server: &Server, source: u8, path: &str) -> Client {
    let mut client = from(server, source, path);
    assert_eq!(client.json()["type"], "hello");
    client
}

fn request_from(server: &Server, source: u8, request: &str) -> String {
    let mut stream = tcp_from(server, source);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn post(topic: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "POST /publish{topic} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}"
    )
}

fn publish(client: &mut Client, topic: &str, data: &str) -> serde_json::Value {
    client.ask(&format!(r#"{{"op":"pub","id":1,"topic":"{topic}","data":"{data}"}}"#))
}

/// Asserts how often connections and requests were refused for a reason.
fn refused(server: &Server, reason: &str, times: usize) {
    let metrics =
        exchange(server.addresses()[0], b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let line = format!("stentor_refusals_total{{reason=\"{reason}\"}} {times}\n");
    assert!(metrics.contains(&line), "{line}{metrics}");
}

/// Sends the first piece of a binary message, and waits until the server has taken it in.
fn send_half(client: &mut Client, len: usize) {
    let mut stream = client.socket.get_ref();
    stream.write_all(&frame(0x02, &vec![b'x'; len])).unwrap();
    stream.write_all(&frame(0x89, b"in")).unwrap();
    assert_eq!(read_frame(&mut stream), (0x8a, b"in".to_vec()));
}

#[test]
fn one_address_fills_half_of_the_connections_and_another_still_connects() {
    let server = serve(|config| config.max_connections = 8);
    let mut held: Vec<Client> = (0..4).map(|_| hello_from(&server, GREEDY, "/ws")).collect();
    let answer = request_from(&server, GREEDY, "GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("--max-connections-per-ip"), "{answer}");
    held.extend((0..3).map(|_| hello_from(&server, OTHER, "/ws")));
    held.remove(0);
    let again = (0..10_000)
        .find_map(|_| request_from(&server, GREEDY, "GET /healthz HTTP/1.0\r\n\r\n").contains("ok").then_some(()));
    again.expect("room was given back");
}

#[test]
fn a_bound_that_is_set_wins_over_half_and_none_is_none() {
    let server = serve(|config| (config.max_connections, config.max_connections_per_ip) = (4, Some(3)));
    let held: Vec<Client> = (0..3).map(|_| hello_from(&server, GREEDY, "/ws")).collect();
    assert!(request_from(&server, GREEDY, "GET / HTTP/1.0\r\n\r\n").contains("--max-connections-per-ip"));
    drop(held);
    let server = serve(|config| (config.max_connections, config.max_connections_per_ip) = (4, Some(0)));
    let _held: Vec<Client> = (0..4).map(|_| hello_from(&server, GREEDY, "/ws")).collect();
    assert!(request_from(&server, GREEDY, "GET / HTTP/1.0\r\n\r\n").contains("The server is full"));
}

#[test]
fn one_address_fills_half_of_the_subscriptions_and_another_still_subscribes() {
    let server = serve(|config| (config.max_subscriptions, config.max_subscriptions_total) = (8, 8));
    let mut first = hello_from(&server, GREEDY, "/ws?topics=a,b,c");
    assert_eq!(first.json()["type"], "ack");
    let mut second = hello_from(&server, GREEDY, "/ws");
    let told = second.ask(r#"{"op":"sub","id":1,"topics":["d","e"]}"#);
    assert_eq!(told["code"], "address_full", "{told}");
    assert!(told["message"].as_str().unwrap().contains("--max-subscriptions-per-ip allows 4"), "{told}");
    assert_eq!(second.ask(r#"{"op":"sub","id":1,"topics":["d"]}"#)["type"], "ack");
    let (code, reason) = from(&server, GREEDY, "/raw/e").closed();
    assert!(code == 1013 && reason.contains("--max-subscriptions-per-ip"), "{code} {reason}");
    let mut other = hello_from(&server, OTHER, "/ws?topics=a,b,c,d");
    assert_eq!(other.json()["type"], "ack");
    // The other notices nothing: it has its share, and what is published comes.
    server.publisher().publish("d", Payload::Json(b"1")).unwrap();
    assert_eq!((&other.json()["seq"], &second.json()["seq"]), (&1.into(), &1.into()));
    first.ask(r#"{"op":"unsub","topics":["a"]}"#);
    assert_eq!(second.ask(r#"{"op":"sub","id":1,"topics":["e"]}"#)["type"], "ack");
    refused(&server, "address_subscriptions_full", 2);
}

#[test]
fn one_address_adds_half_of_the_topics_and_others_go_on_to_add_theirs() {
    let server = serve(|config| config.max_topics = 8);
    let mut greedy = hello_from(&server, GREEDY, "/ws");
    for topic in ["a", "b", "c", "d"] {
        assert_eq!(publish(&mut greedy, topic, "")["seq"], 1);
    }
    let told = publish(&mut greedy, "e", "");
    assert_eq!(told["code"], "address_full", "{told}");
    assert!(told["message"].as_str().unwrap().contains("4 topics, as many as --max-topics-per-ip allows"), "{told}");
    assert_eq!(publish(&mut greedy, "a", "")["seq"], 2, "on its own topics it goes on");
    drop(greedy);
    // Neither another connection nor another way brings it further.
    assert_eq!(publish(&mut hello_from(&server, GREEDY, "/ws"), "e", "")["code"], "address_full");
    for request in [post("/e", "1"), post("", r#"{"topic":"e","data":1}"#)] {
        let answer = request_from(&server, GREEDY, &request);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("--max-topics-per-ip"), "{answer}");
    }
    let mut raw = from(&server, GREEDY, "/raw/e");
    raw.send("x");
    assert!(raw.closed().1.contains("--max-topics-per-ip"));
    let mut other = hello_from(&server, OTHER, "/ws");
    assert_eq!(publish(&mut other, "e", "")["seq"], 1);
    assert!(request_from(&server, OTHER, &post("/f", "1")).starts_with("HTTP/1.1 200 "));
    // Feeds are the server's own.
    server.publisher().publish("g", Payload::Json(b"1")).unwrap();
    refused(&server, "address_topics_full", 5);
}

#[test]
fn one_address_fills_half_of_the_values_and_others_keep_theirs() {
    let server = serve(|config| config.max_values = ByteSize::b(160));
    let snapshot = |topic: &str| {
        let mut client = hello_from(&server, OTHER, &format!("/ws?topics={topic}"));
        assert_eq!(client.json()["type"], "ack");
        client.send(r#"{"op":"ping"}"#);
        client.json()["type"] == "snapshot"
    };
    server.publisher().publish("own", Payload::Json(b"1")).unwrap();
    let mut greedy = hello_from(&server, GREEDY, "/ws");
    // Each is 20 bytes with its quotes; of 80, an eighth is for those that grow.
    for topic in ["a", "b", "c", "d"] {
        publish(&mut greedy, topic, "123456789012345678");
    }
    assert_eq!(["a", "b", "c", "d", "own"].map(snapshot), [true, true, true, false, true]);
    publish(&mut greedy, "a", "1234567890123456789012345678");
    assert!(snapshot("a"), "what is there may grow into the last eighth");
    publish(&mut greedy, "b", "12345678901234567890123456789");
    assert_eq!(["a", "b", "c", "own"].map(snapshot), [true, false, true, true], "its own value only");
    publish(&mut hello_from(&server, OTHER, "/ws"), "e", "123456789012345678");
    assert!(snapshot("e"));
    // Whoever publishes last on a topic has the value.
    publish(&mut hello_from(&server, OTHER, "/ws"), "c", "123456789012345678");
    publish(&mut greedy, "f", "123456789012345678");
    assert_eq!(["c", "f"].map(snapshot), [true, true]);
}

#[test]
fn one_address_fills_half_of_what_unfinished_messages_may_have_and_another_sends_its_own() {
    let server = serve(|config| {
        config.max_message = ByteSize::kib(60);
        config.max_assembly = ByteSize::kib(130);
    });
    let [mut first, mut second] = [(); 2].map(|()| from(&server, GREEDY, "/raw/a"));
    send_half(&mut first, 40_000);
    second.socket.get_ref().write_all(&frame(0x02, &[b'x'; 40_000])).unwrap();
    let (code, reason) = second.closed();
    assert!(code == 1013 && reason.contains("--max-assembly-per-ip"), "{code} {reason}");
    let mut other = from(&server, OTHER, "/raw/b");
    send_half(&mut other, 40_000);
    for (client, len) in [(&mut other, 40_001), (&mut first, 40_001)] {
        client.socket.get_ref().write_all(&frame(0x80, b"x")).unwrap();
        assert_eq!(client.message().into_data().len(), len);
    }
    // What was finished has given its room back.
    let mut third = from(&server, GREEDY, "/raw/c");
    send_half(&mut third, 50_000);
    refused(&server, "address_assembly_full", 1);
}

#[test]
fn all_unfinished_messages_together_are_bounded() {
    let server = serve(|config| {
        config.max_message = ByteSize::kib(60);
        config.max_assembly = ByteSize::kib(65);
        config.max_assembly_per_ip = Some(ByteSize::b(0));
    });
    let mut first = from(&server, GREEDY, "/raw/a");
    send_half(&mut first, 40_000);
    let mut other = from(&server, OTHER, "/raw/b");
    other.socket.get_ref().write_all(&frame(0x02, &[b'x'; 40_000])).unwrap();
    let (code, reason) = other.closed();
    assert!(code == 1013 && reason.contains("--max-assembly allows"), "{code} {reason}");
    drop(first);
    let fits = (0..10_000).any(|_| {
        let mut again = from(&server, OTHER, "/raw/b");
        let mut stream = again.socket.get_mut();
        stream.write_all(&[frame(0x02, &[b'x'; 40_000]), frame(0x89, b"in")].concat()).unwrap();
        read_frame(&mut stream).0 == 0x8a
    });
    assert!(fits, "room was given back");
}

#[test]
fn coming_back_does_not_refresh_the_quota_of_commands() {
    let server = serve(|config| config.max_commands_per_ip = ONCE.parse().unwrap());
    assert_eq!(hello_from(&server, GREEDY, "/ws").ask(r#"{"op":"ping"}"#)["type"], "pong");
    for _ in 0..3 {
        let mut again = hello_from(&server, GREEDY, "/ws");
        let told = again.ask(r#"{"op":"ping"}"#);
        assert_eq!(told["code"], "rate_limited");
        assert!(told["message"].as_str().unwrap().contains("--max-commands-per-ip allows 0.001/s"), "{told}");
        assert_eq!(again.closed().0, 4003);
    }
    assert_eq!(hello_from(&server, OTHER, "/ws").ask(r#"{"op":"ping"}"#)["type"], "pong");
    refused(&server, "address_rate_limited", 3);
}

#[test]
fn subscribing_by_connecting_is_a_command_of_the_address() {
    let server = serve(|config| config.max_commands_per_ip = ONCE.parse().unwrap());
    let ways: [&dyn Fn(u8) -> String; 3] = [
        &|source| try_from(&server, source, "/ws?topics=a").err().unwrap_or_default(),
        &|source| try_from(&server, source, "/raw/a").err().unwrap_or_default(),
        &|source| {
            let mut stream = tcp_from(&server, source);
            stream.write_all(b"GET /sse?topics=a HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let mut start = [0; 12];
            stream.read_exact(&mut start).unwrap();
            if start == *b"HTTP/1.1 200" {
                return String::new();
            }
            let mut rest = String::new();
            stream.read_to_string(&mut rest).unwrap();
            format!(
                "{}{}: {rest}",
                String::from_utf8_lossy(&start[9..]),
                if rest.contains("Retry-After") { ", later" } else { "" }
            )
        },
    ];
    for (n, first) in ways.iter().enumerate() {
        let source = 10 + n as u8;
        assert_eq!(first(source), "");
        for way in ways {
            let answer = way(source);
            assert!(answer.starts_with("429, later: "), "{answer}");
            assert!(answer.contains("--max-commands-per-ip allows 0.001/s"), "{answer}");
        }
        // Who subscribes to nothing yet has asked for nothing.
        hello_from(&server, source, "/ws");
    }
    refused(&server, "address_rate_limited", 9);
}

#[test]
fn pongs_are_heard_though_others_of_the_address_have_used_up_its_quota() {
    let server = serve(|config| config.max_commands_per_ip = ONCE.parse().unwrap());
    let mut quiet = hello_from(&server, GREEDY, "/ws");
    assert_eq!(hello_from(&server, GREEDY, "/ws").ask(r#"{"op":"ping"}"#)["type"], "pong");
    quiet.socket.get_ref().write_all(&frame(0x8a, b"")).unwrap();
    assert_eq!(publish(&mut quiet, "a", "")["seq"], 1, "it is still there");
    assert_eq!(quiet.ask(r#"{"op":"list"}"#)["code"], "rate_limited");
}

#[test]
fn publications_of_an_address_are_limited_by_whatever_way() {
    let server = serve(|config| config.max_publications_per_ip = ONCE.parse().unwrap());
    let mut first = hello_from(&server, GREEDY, "/ws");
    assert_eq!(publish(&mut first, "a", "")["seq"], 1);
    let mut again = hello_from(&server, GREEDY, "/ws");
    let told = publish(&mut again, "a", "");
    assert!(told["message"].as_str().unwrap().contains("--max-publications-per-ip allows 0.001/s"), "{told}");
    assert_eq!(again.closed().0, 4003);
    let answer = request_from(&server, GREEDY, &post("/a", "1"));
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("Retry-After: 1\r\n"), "{answer}");
    let two = "{\"topic\":\"a\",\"data\":1}\n{\"topic\":\"a\",\"data\":2}\n";
    let answer = request_from(&server, OTHER, &post("", two));
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("Line 2 was refused"), "{answer}");
    assert!(answer.contains("1 publication went before it"), "{answer}");
    server.publisher().publish("a", Payload::Json(b"1")).unwrap();
    refused(&server, "address_rate_limited", 3);
}

#[test]
fn connecting_again_and_again_is_refused_with_429_and_other_addresses_come_in() {
    let server = serve(|config| config.max_connects_per_ip = ONCE.parse().unwrap());
    drop(hello_from(&server, GREEDY, "/ws"));
    for _ in 0..3 {
        let answer = request_from(&server, GREEDY, "GET /healthz HTTP/1.0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("Retry-After: 1\r\n"), "{answer}");
        assert!(answer.contains("--max-connects-per-ip"), "{answer}");
    }
    hello_from(&server, OTHER, "/ws");
    let metrics = request_from(&server, 3, "GET /metrics HTTP/1.0\r\n\r\n");
    assert!(metrics.contains("stentor_refusals_total{reason=\"connects_limited\"} 3\n"), "{metrics}");
    assert!(metrics.contains("\nstentor_addresses 3\n"), "{metrics}");
}

#[test]
fn behind_a_trusted_proxy_each_client_has_a_share_of_its_own() {
    let server = serve(|config| {
        config.trusted_proxy = vec!["127.0.0.1".parse().unwrap()];
        config.anonymous_publish = true;
        config.max_topics = 4;
        config.max_commands_per_ip = ONCE.parse().unwrap();
    });
    let address = server.addresses()[0];
    let try_for = |client: &str| Client::try_connect(address, "/ws?topics=a", &[("X-Forwarded-For", client)]).map(drop);
    for client in ["192.0.2.1", "2001:db8:1:2::7", "2001:db8:1:3::7"] {
        try_for(client).unwrap();
    }
    for same in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8:1:2:ffff::8", "2001:db8:1:3::7"] {
        assert!(try_for(same).is_err_and(|error| error.contains("429")), "{same}");
    }
    let post_for = |client: &str, topic: &str| {
        let request = post(&format!("/{topic}"), "1").replacen(
            "Host: localhost",
            &format!("Host: localhost\r\nX-Forwarded-For: {client}"),
            1,
        );
        exchange(address, request.as_bytes())[9..12].to_owned()
    };
    assert_eq!(["a", "b", "c"].map(|topic| post_for("192.0.2.1", topic)), ["200", "200", "503"]);
    assert_eq!(["c", "d"].map(|topic| post_for("192.0.2.2", topic)), ["200", "200"]);
}
