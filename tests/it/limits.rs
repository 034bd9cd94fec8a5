//! Every bound, reached.

use std::io::{Read, Write};

use bytesize::ByteSize;
use stentor::Payload;

use crate::{
    client::{Client, exchange, frame, read_frame, serve, tcp, upgraded},
    process::{Running, wait_for},
};

#[test]
fn connections_beyond_the_limit_are_told_503_and_room_is_given_back() {
    let server = serve(|config| (config.max_connections, config.max_connections_per_ip) = (2, Some(0)));
    let first = Client::hello(&server, "/ws");
    let _second = Client::hello(&server, "/ws");
    let mut answer = String::new();
    tcp(server.addresses()[0]).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After"), "{answer}");
    drop(first);
    let admitted = (0..10_000).find_map(|_| Client::try_connect(server.addresses()[0], "/ws", &[]).ok());
    assert_eq!(admitted.expect("room was given back").json()["type"], "hello");
}

#[test]
fn of_many_that_come_at_once_nobody_is_turned_away_for_being_quick() {
    let server = serve(|config| config.inbox = 1);
    let burst: Vec<_> = (0..300).map(|_| tcp(server.addresses()[0])).collect();
    for mut stream in burst {
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[test]
fn connections_from_one_address_are_limited() {
    let server = serve(|config| config.max_connections_per_ip = Some(1));
    let _first = Client::hello(&server, "/ws");
    let mut answer = String::new();
    tcp(server.addresses()[0]).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("your address"), "{answer}");
}

#[test]
fn one_topic_too_many_is_refused_and_the_others_go_on() {
    let server = serve(|config| (config.max_topics, config.max_topics_per_ip) = (2, Some(0)));
    let mut client = Client::hello(&server, "/ws");
    for topic in ["a", "b"] {
        assert_eq!(client.ask(&format!(r#"{{"op":"pub","id":1,"topic":"{topic}","data":1}}"#))["seq"], 1);
    }
    let refused = client.ask(r#"{"op":"pub","id":1,"topic":"c","data":1}"#);
    assert_eq!(refused["code"], "too_many_topics");
    assert!(refused["message"].as_str().unwrap().contains("--max-topics"));
    assert_eq!(client.ask(r#"{"op":"pub","id":1,"topic":"a","data":1}"#)["seq"], 2);
}

#[test]
fn one_subscription_too_many_is_refused_whole() {
    let server = serve(|config| config.max_subscriptions = 2);
    let mut client = Client::hello(&server, "/ws?topics=a");
    client.json();
    let refused = client.ask(r#"{"op":"sub","id":1,"topics":["a","b","c"]}"#);
    assert_eq!(refused["type"], "error");
    let list = client.ask(r#"{"op":"list"}"#);
    assert_eq!(list["topics"].as_array().unwrap().len(), 1);
    assert_eq!(client.ask(r#"{"op":"sub","id":1,"topics":["a","b"]}"#)["type"], "ack");
}

#[test]
fn subscriptions_over_all_connections_are_limited_and_given_back() {
    let server = serve(|config| {
        config.max_subscriptions = 2;
        config.max_subscriptions_total = 3;
        config.max_subscriptions_per_ip = Some(0);
    });
    let mut first = Client::hello(&server, "/ws?topics=a,b");
    first.json();
    let mut second = Client::hello(&server, "/ws");
    let refused = second.ask(r#"{"op":"sub","id":1,"topics":["c","d"]}"#);
    assert!(refused["message"].as_str().unwrap().contains("--max-subscriptions-total"), "{refused}");
    first.ask(r#"{"op":"unsub","topics":["b"]}"#);
    assert_eq!(second.ask(r#"{"op":"sub","id":1,"topics":["c","d"]}"#)["type"], "ack");
}

#[test]
fn a_payload_of_exactly_the_largest_size_passes_and_one_byte_more_does_not() {
    let server = serve(|config| config.max_message = ByteSize::b(1000));
    let mut client = Client::connect(&server, "/raw/a");
    client.send(&"x".repeat(1000));
    assert_eq!(client.text().len(), 1000);
    client.send(&"x".repeat(1001));
    assert_eq!(client.closed().0, 1009);
    let refused = server.publisher().publish("a", Payload::Text(&"x".repeat(1001))).unwrap_err();
    assert!(refused.to_string().contains("--max-message"), "{refused}");
}

#[test]
fn a_name_longer_than_the_limit_is_refused() {
    let server = serve(|config| config.max_topic_length = 10);
    let mut client = Client::hello(&server, "/ws");
    assert_eq!(client.ask(r#"{"op":"sub","topics":["abcdefghij"]}"#)["type"], "ack");
    assert_eq!(client.ask(r#"{"op":"sub","topics":["abcdefghijk"]}"#)["code"], "bad_topic");
}

#[test]
fn values_beyond_their_memory_are_not_kept_and_still_delivered() {
    let server = serve(|config| config.max_values = ByteSize::b(10));
    let mut client = Client::hello(&server, "/ws?topics=a");
    client.json();
    server.publisher().publish("a", Payload::Json(b"\"12345678901234567890\"")).unwrap();
    assert_eq!(client.json()["data"], "12345678901234567890");
    let mut later = Client::hello(&server, "/ws?topics=a");
    assert_eq!(later.json()["topics"][0]["seq"], 1);
    assert_eq!(later.ask(r#"{"op":"ping"}"#)["type"], "pong");
}

#[test]
fn a_client_that_asks_and_never_reads_is_cut_off() {
    let server = serve(|config| {
        config.max_pending = ByteSize::kib(64);
        config.sndbuf = ByteSize::kib(4);
        config.max_commands = "0".parse().unwrap();
    });
    server.publisher().publish("a", Payload::Text(&"x".repeat(30_000))).unwrap();
    let mut client = Client::hello(&server, "/ws");
    // Each command asks for 30 KB; nothing is read. The server gives up instead of collecting answers for ever.
    let command = r#"{"op":"sub","topics":["a"]}"#;
    wait_for("the end", || (0..1000).any(|_| client.socket.send(tungstenite::Message::text(command)).is_err()));
    assert_eq!(Client::hello(&server, "/ws").ask(r#"{"op":"ping"}"#)["type"], "pong");
}

#[test]
fn commands_and_pings_beyond_their_rate_are_told_and_closed_with_4003() {
    let server = serve(|config| config.max_commands = "10/s".parse().unwrap());
    let address = server.addresses()[0];
    let mut beside = Client::hello(&server, "/ws?topics=a");
    beside.json();
    let floods = ["{\"op\":\"ping\"}", "{\"op\":\"sub\",\"topics\":[\"a\"],\"snapshot\":false}", "nonsense"];
    for flood in floods {
        let mut client = Client::hello(&server, "/ws");
        // All in one piece, so that no clock decides how many come in time.
        let mut stream = client.socket.get_ref();
        std::io::Write::write_all(&mut stream, &frame(0x81, flood.as_bytes()).repeat(21)).unwrap();
        let told = std::iter::repeat_with(|| client.json()).find(|answer| answer["code"] == "rate_limited").unwrap();
        assert!(told["message"].as_str().unwrap().contains("--max-commands allows 10/s"), "{told}");
        assert_eq!(client.closed().0, 4003);
    }
    let mut pinging = upgraded(address, "/raw/a");
    std::io::Write::write_all(&mut pinging, &frame(0x89, b"x").repeat(21)).unwrap();
    for _ in 0..20 {
        assert_eq!(read_frame(&mut pinging), (0x8a, b"x".to_vec()));
    }
    let (kind, close) = read_frame(&mut pinging);
    assert_eq!((kind, &close[..2]), (0x88, &4003_u16.to_be_bytes()[..]));
    server.publisher().publish("a", Payload::Json(b"1")).unwrap();
    assert_eq!(beside.json()["seq"], 1);
    let metrics = exchange(address, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    for line in
        [r#"stentor_refusals_total{reason="rate_limited"} 4"#, r#"stentor_websocket_closes_total{code="4003"} 4"#]
    {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[test]
fn close_codes_that_clients_make_up_are_counted_as_one() {
    let server = serve(|_| {});
    let address = server.addresses()[0];
    for code in [1000_u16, 3000, 3001, 4100, 4999] {
        let mut client = upgraded(address, "/raw/a");
        std::io::Write::write_all(&mut client, &frame(0x88, &code.to_be_bytes())).unwrap();
        assert_eq!(read_frame(&mut client), (0x88, code.to_be_bytes().to_vec()), "it is answered like any other");
    }
    let metrics = exchange(address, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let counted: Vec<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("stentor_websocket_closes_total"))
        .filter(|rest| !rest.ends_with(" 0"))
        .collect();
    assert_eq!(counted, [r#"{code="1000"} 1"#, r#"{code="other"} 4"#]);
}

#[test]
fn publications_beyond_their_rate_are_closed_with_4003_and_are_no_commands() {
    let server = serve(|config| {
        config.max_commands = "1/s".parse().unwrap();
        config.max_publications = "10/s".parse().unwrap();
    });
    let mut raw = Client::connect(&server, "/raw/a?echo=0");
    let mut json = Client::hello(&server, "/ws");
    let payload = frame(0x81, b"1").repeat(21);
    let command = frame(0x81, br#"{"op":"pub","id":1,"topic":"b","data":1}"#).repeat(21);
    std::io::Write::write_all(&mut raw.socket.get_ref(), &payload).unwrap();
    std::io::Write::write_all(&mut json.socket.get_ref(), &command).unwrap();
    let (code, reason) = raw.closed();
    assert!(code == 4003 && reason.contains("--max-publications allows 10/s"), "{code} {reason}");
    for n in 0..20 {
        assert_eq!(json.json()["seq"], n + 1);
    }
    assert_eq!(json.json()["code"], "rate_limited");
    assert_eq!(json.closed().0, 4003);
    let mut later = Client::hello(&server, "/ws?topics=a,b");
    assert_eq!(later.json()["topics"][0]["seq"], 20);
}

#[test]
fn a_publication_counts_once_for_each_kilobyte_that_it_begins() {
    let server = serve(|config| config.max_publications = "10/s".parse().unwrap());
    let payload = |len| frame(0x82, &vec![b'x'; len]);
    let sent = |payloads: &[Vec<u8>]| {
        let client = Client::connect(&server, "/raw/a?echo=0");
        std::io::Write::write_all(&mut client.socket.get_ref(), &payloads.concat()).unwrap();
        client
    };
    let mut client = sent(&[payload(18 * 1024), payload(1), payload(1025)]);
    assert_eq!(client.closed().0, 4003);
    let mut later = Client::hello(&server, "/ws?topics=a");
    assert_eq!(later.json()["topics"][0]["seq"], 2);
    // One is never too large for an empty quota.
    let mut client = sent(&[payload(60 * 1024), payload(0)]);
    assert_eq!(client.closed().0, 4003);
    let mut later = Client::hello(&server, "/ws?topics=a");
    assert_eq!(later.json()["topics"][0]["seq"], 3);
}

#[test]
fn answers_that_are_not_taken_for_the_idle_timeout_are_given_up() {
    // Its pongs say that it is alive, and are no reason to end it.
    let mut running =
        Running::start(&["--sndbuf", "4KiB", "--idle-timeout", "1s", "--max-commands", "0", "--log-level", "debug"]);
    let large = "x".repeat(60_000);
    let mut publisher = running.client("/ws");
    assert_eq!(publisher.json()["type"], "hello");
    for n in 0..200 {
        let published = format!(r#"{{"op":"pub","id":1,"topic":"a.{n}","data":"{large}"}}"#);
        assert_eq!(publisher.ask(&published)["type"], "ack");
    }
    // 12 MB of snapshots, far more than both kernels' buffers take.
    let client = running.client("/ws?topics=a.*");
    let mut stream = client.socket.get_ref();
    let pong = [0x8a, 0x80, 0, 0, 0, 0];
    // Without reading: the end of the connection shows as a reset when something is sent.
    wait_for("the end", || std::io::Write::write_all(&mut stream, &pong).is_err());
    let log = running.logged("bytes of answers were not taken for 1 s");
    assert!(log.lines().last().unwrap().contains("code=1006"), "{log}");
    assert_eq!(running.client("/ws").json()["type"], "hello");
}
