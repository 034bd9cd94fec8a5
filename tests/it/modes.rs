//! How subscribers are delivered to: newest values, rates, resuming, and events over plain HTTP.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use serde_json::{Value, json};
use stentor::{Payload, server::Server};

use crate::client::{Client, exchange, serve, tcp};

fn publish(server: &Server, topic: &str, value: &Value) -> u64 {
    server.publisher().publish(topic, Payload::Json(value.to_string().as_bytes())).unwrap().seq
}

/// A server whose kernel buffers hold little, so that who doesn't read is behind at once.
fn narrow() -> Server {
    serve(|config| {
        config.sndbuf = ByteSize::kib(8);
        config.retain = ByteSize::mib(2);
        config.segment = ByteSize::kib(256);
    })
}

/// Fills the kernel's buffers of a client that doesn't read, and rolls the tape over.
fn flood(server: &Server, topic: &str, mib: usize) -> u64 {
    let pad = "x".repeat(2000);
    let mut last = 0;
    for n in 0..mib * 512 {
        last = publish(server, topic, &json!({ "n": n, "pad": pad }));
    }
    last
}

#[test]
fn a_subscriber_of_newest_values_that_keeps_up_gets_every_update() {
    let server = serve(|_| {});
    let mut client = Client::hello(&server, "/ws");
    let ack = client.ask(r#"{"op":"sub","id":1,"topics":["q.*"],"mode":"latest"}"#);
    assert_eq!(ack["topics"], json!([{ "topic": "q.*", "mode": "latest" }]));
    for seq in 1..=50 {
        publish(&server, "q.a", &json!(seq));
        let update = client.json();
        assert_eq!((&update["type"], &update["seq"]), (&json!("update"), &json!(seq)));
    }
}

#[test]
fn a_stalled_subscriber_of_newest_values_is_never_closed_and_goes_on_with_the_newest() {
    let server = narrow();
    let mut client = Client::hello(&server, "/ws");
    client.ask(r#"{"op":"sub","topics":["q.>"],"mode":"latest"}"#);
    publish(&server, "q.quiet", &json!("once"));
    // Much more than the tape holds: also the quiet topic's only value is gone from it.
    let last = flood(&server, "q.busy", 32);
    let mut expected = 1;
    let mut skipped = 0;
    let mut quiet = None;
    while expected <= last {
        let message = client.json();
        if message["topic"] == "q.quiet" {
            assert!(quiet.replace(message["data"].clone()).is_none(), "once is enough");
            continue;
        }
        match message["type"].as_str().unwrap() {
            "skip" => {
                assert_eq!((&message["from"], &message["why"]), (&json!(expected), &json!("slow")));
                expected = message["to"].as_u64().unwrap() + 1;
                skipped += 1;
            }
            "update" => {
                assert_eq!(message["seq"], expected, "what is left out is told before");
                expected += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!(skipped > 0, "the buffers were meant to be too small");
    assert_eq!(quiet, Some(json!("once")));
    publish(&server, "q.busy", &json!("then"));
    assert_eq!(client.json()["data"], "then", "it has caught up");
}

#[test]
fn a_stalled_subscriber_of_everything_is_told_that_it_lags() {
    let server = narrow();
    let mut client = Client::hello(&server, "/ws");
    client.ask(r#"{"op":"sub","topics":["q.>"],"mode":"latest"}"#);
    client.ask(r#"{"op":"sub","topics":["t"]}"#);
    flood(&server, "q.busy", 32);
    assert_eq!(client.closed().0, 4100);
}

#[test]
fn trades_in_full_and_quotes_in_newest_values_on_one_connection() {
    let server = serve(|config| {
        config.sndbuf = ByteSize::kib(8);
        config.retain = ByteSize::mib(64);
    });
    let mut client = Client::hello(&server, "/ws");
    client.ask(r#"{"op":"sub","topics":["q"],"mode":"latest"}"#);
    client.ask(r#"{"op":"sub","topics":["t"]}"#);
    let pad = "x".repeat(2000);
    for n in 1..=8000 {
        publish(&server, "q", &json!(pad));
        if n % 10 == 0 {
            publish(&server, "t", &json!(pad));
        }
    }
    let (mut trades, mut quotes, mut got) = (0, 0, 0);
    while trades < 800 || quotes < 8000 {
        let message = client.json();
        if message["type"] == "skip" {
            assert_eq!(message["topic"], "q", "trades come in full");
            continue;
        }
        let seq = message["seq"].as_u64().unwrap();
        if message["topic"] == "t" {
            assert_eq!(seq, trades + 1);
            trades = seq;
        } else {
            assert!(seq > quotes);
            (quotes, got) = (seq, got + 1);
        }
    }
    assert!(got < 8000, "the buffers were meant to be too small for all quotes: {got}");
}

#[test]
fn a_rate_bounds_the_updates_of_each_topic_and_ends_with_the_newest() {
    let server = serve(|_| {});
    let mut client = Client::hello(&server, "/ws");
    let begun = Instant::now();
    let ack = client.ask(r#"{"op":"sub","topics":["q.>"],"mode":"latest","rate":20}"#);
    assert_eq!(ack["topics"][0]["rate"], 20);
    let mut seqs = [0, 0];
    let mut updates = 0;
    for n in 1..=3000 {
        publish(&server, "q.a", &json!(n));
        publish(&server, "q.b", &json!(n));
    }
    while seqs != [3000, 3000] {
        let update = client.json();
        assert_eq!(update["type"], "update", "a rate that was asked for is no reason for a notice");
        let which = usize::from(update["topic"] == "q.b");
        let seq = update["seq"].as_u64().unwrap();
        assert!(seq > seqs[which]);
        seqs[which] = seq;
        updates += 1;
    }
    let ticks = begun.elapsed().as_secs_f64() * 20.0;
    assert!(f64::from(updates) <= 2.0 * (ticks + 2.0), "{updates} updates of two topics in {ticks:.1} ticks");
    assert!(updates < 3000);
}

#[test]
fn members_of_one_rate_are_sent_a_tick_with_one_send_each() {
    let server = serve(|_| {});
    let mut clients: Vec<Client> =
        (0..3).map(|_| Client::hello(&server, "/ws?topics=q.%3E&mode=latest&rate=10")).collect();
    for client in &mut clients {
        assert_eq!(client.json()["topics"][0]["rate"], 10);
    }
    // One tick brings all of them into step.
    publish(&server, "q.0", &json!(0));
    clients.iter_mut().for_each(|client| assert_eq!(client.json()["topic"], "q.0"));
    for n in 1..=20 {
        publish(&server, &format!("q.{n}"), &json!(n));
    }
    for client in &mut clients {
        let topics: Vec<String> = (0..20).map(|_| client.json()["topic"].as_str().unwrap().to_owned()).collect();
        assert_eq!(topics, (1..=20).map(|n| format!("q.{n}")).collect::<Vec<_>>(), "in the order of publication");
    }
}

#[test]
fn mode_and_rate_change_while_the_feed_runs() {
    let server = serve(|_| {});
    let mut client = Client::hello(&server, "/ws");
    client.ask(r#"{"op":"sub","topics":["q"]}"#);
    publish(&server, "q", &json!(1));
    assert_eq!(client.json()["seq"], 1);
    let ack = client.ask(r#"{"op":"sub","topics":["q"],"mode":"latest","rate":50,"snapshot":false}"#);
    assert_eq!((&ack["topics"][0]["seq"], &ack["topics"][0]["rate"]), (&json!(1), &json!(50)));
    for n in 2..=100 {
        publish(&server, "q", &json!(n));
    }
    let mut last = 1;
    while last < 100 {
        last = client.json()["seq"].as_u64().unwrap();
    }
    let ack = client.ask(r#"{"op":"sub","topics":["q"],"mode":"all","snapshot":false}"#);
    assert_eq!(ack["topics"][0]["seq"], 100);
    let list = client.ask(r#"{"op":"list"}"#);
    assert_eq!(list["topics"], json!([{ "topic": "q", "mode": "all" }]));
    for n in 101..=200 {
        publish(&server, "q", &json!(n));
    }
    for seq in 101..=200 {
        assert_eq!(client.json()["seq"], seq);
    }
}

#[test]
fn more_different_rates_than_a_connection_may_have_are_refused() {
    let server = serve(|_| {});
    let mut client = Client::hello(&server, "/ws");
    let sub = |rate: u32| format!(r#"{{"op":"sub","topics":["q.{rate}"],"mode":"latest","rate":{rate}}}"#);
    for rate in 1..=16 {
        assert_eq!(client.ask(&sub(rate))["type"], "ack");
    }
    let error = client.ask(&sub(17));
    assert_eq!(error["code"], "too_many_rates");
    assert!(error["message"].as_str().unwrap().contains("at most 16"), "{error}");
    assert_eq!(client.ask(&sub(16))["type"], "ack");
}

#[test]
fn a_rate_that_there_is_not_is_the_nearest_and_the_answers_say_which() {
    let server = serve(|_| {});
    let mut client = Client::hello(&server, "/ws?topics=a&mode=latest&rate=1e-9");
    let least = json!(1.0 / 3600.0);
    assert_eq!(client.json()["topics"][0]["rate"], least);
    let ack = client.ask(r#"{"op":"sub","topics":["b"],"mode":"latest","rate":1e300}"#);
    assert_eq!(ack["topics"][0]["rate"], 1000);
    let list = client.ask(r#"{"op":"list"}"#);
    let rates: Vec<&Value> = list["topics"].as_array().unwrap().iter().map(|topic| &topic["rate"]).collect();
    assert_eq!(rates, [&least, &json!(1000)]);
    let mut events = Events::open(&server, "topics=a&mode=latest&rate=1e-9", "");
    assert_eq!((&events.data()["type"], &events.data()["topics"][0]["rate"]), (&json!("hello"), &least));
}

#[test]
fn a_client_that_comes_back_is_sent_exactly_what_it_missed() {
    let server = serve(|_| {});
    let mut first = Client::hello(&server, "/ws?topics=t.a,t.b");
    let ack = first.json();
    let epoch = ack["topics"][0]["epoch"].as_str().unwrap().to_owned();
    for n in 1..=10 {
        publish(&server, "t.a", &json!(n));
        publish(&server, "t.b", &json!(n));
    }
    for _ in 0..20 {
        first.json();
    }
    drop(first);
    // Nobody wants these in JSON while they are published.
    for n in 11..=40 {
        publish(&server, "t.a", &json!(n));
        publish(&server, "t.c", &json!(n));
        publish(&server, "t.b", &json!({ "n": n }));
    }
    let mut again = Client::hello(&server, "/ws");
    let from = json!({ "t.a": [epoch, 10], "t.b": [epoch, 25] });
    let ack = again.ask(&json!({ "op": "sub", "topics": ["t.*"], "from": from }).to_string());
    assert_eq!(ack["type"], "ack");
    let snapshot = again.json();
    assert_eq!((&snapshot["type"], &snapshot["topic"]), (&json!("snapshot"), &json!("t.c")), "the only one it had not");
    publish(&server, "t.a", &json!(41));
    let mut seqs = std::collections::BTreeMap::from([("t.a", 10), ("t.b", 25)]);
    while seqs != std::collections::BTreeMap::from([("t.a", 41), ("t.b", 40)]) {
        let update = again.json();
        let topic = update["topic"].as_str().unwrap();
        let seq = seqs.get_mut(topic).unwrap();
        *seq += 1;
        assert_eq!(update["seq"], *seq, "{topic}");
        let n = if topic == "t.a" { json!(*seq) } else { json!({ "n": *seq }) };
        assert_eq!(update["data"], n);
    }
}

#[test]
fn what_is_gone_is_told_by_a_reset() {
    let server = narrow();
    let mut client = Client::hello(&server, "/ws");
    let epoch = publish_and_epoch(&server, &mut client);
    flood(&server, "t", 8);
    let last = publish(&server, "t", &json!("last"));
    let sub = |epoch: &str| json!({ "op": "sub", "topics": ["t"], "from": { "t": [epoch, 1] } }).to_string();
    for (epoch, why) in [(epoch.as_str(), "history"), ("elsewhere", "epoch")] {
        let mut client = Client::hello(&server, "/ws");
        assert_eq!(client.ask(&sub(epoch))["topics"][0]["seq"], last);
        let reset = client.json();
        assert_eq!((&reset["type"], &reset["why"], &reset["seq"]), (&json!("reset"), &json!(why), &json!(last)));
        assert_eq!(client.json()["type"], "snapshot");
        let next = publish(&server, "other", &json!(0));
        assert!(next > 0);
        assert_eq!(client.ask(r#"{"op":"ping"}"#)["type"], "pong", "and nothing else");
    }
    let mut client = Client::hello(&server, "/ws");
    let never = json!({ "op": "sub", "topics": ["never"], "from": { "never": [epoch, 5] } }).to_string();
    client.ask(&never);
    let reset = client.json();
    assert_eq!((&reset["topic"], &reset["seq"], &reset["why"]), (&json!("never"), &json!(0), &json!("epoch")));
}

fn publish_and_epoch(server: &Server, client: &mut Client) -> String {
    publish(server, "t", &json!(1));
    let ack = client.ask(r#"{"op":"sub","topics":["t"],"snapshot":false}"#);
    let epoch = ack["topics"][0]["epoch"].as_str().unwrap().to_owned();
    client.ask(r#"{"op":"unsub","topics":["t"]}"#);
    epoch
}

#[test]
fn a_raw_subscriber_of_newest_values_gets_the_newest() {
    let server = narrow();
    let mut client = Client::connect(&server, "/raw/q?mode=latest");
    let last = flood(&server, "q", 32);
    let mut got = 0;
    let mut n = -1;
    while n + 1 < last as i64 {
        let value: Value = serde_json::from_str(&client.text()).unwrap();
        let next = value["n"].as_i64().unwrap();
        assert!(next > n, "never an older one after a newer one");
        (n, got) = (next, got + 1);
    }
    assert!(got < last, "the buffers were meant to be too small for all");
}

/// A stream of events, read as the standard says.
pub struct Events {
    lines: BufReader<TcpStream>,
    pub head: String,
}

impl Events {
    pub fn open(server: &Server, query: &str, headers: &str) -> Events {
        let mut stream = tcp(server.addresses()[0]);
        write!(stream, "GET /sse?{query} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").unwrap();
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).unwrap() > 0, "{head}");
        }
        Events { lines, head }
    }

    /// What comes up to the end of the values that a subscription begins with.
    pub fn begun(&mut self) -> Vec<Value> {
        let messages = std::iter::from_fn(|| Some(self.data()).filter(|message| message["code"] != "current"));
        messages.collect()
    }

    /// The id and the data of the next event; none at the end.
    pub fn next(&mut self) -> Option<(Option<String>, Value)> {
        let (mut id, mut data) = (None, Vec::new());
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            let line = line.strip_suffix('\n').unwrap();
            match line.split_once(": ") {
                None if line.is_empty() => break,
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("data", value)) => data.push(value.to_owned()),
                Some(("retry", value)) => assert!(value.parse::<u64>().is_ok(), "{value}"),
                _ => panic!("{line:?}"),
            }
        }
        Some((id, serde_json::from_str(&data.join("\n")).unwrap()))
    }

    pub fn data(&mut self) -> Value {
        self.next().unwrap().1
    }
}

#[test]
fn events_are_the_same_messages_and_resume_from_the_last_id() {
    let server = serve(|_| {});
    let mut events = Events::open(&server, "topics=t", "Origin: http://localhost:3000\r\n");
    assert!(events.head.starts_with("HTTP/1.1 200 "), "{}", events.head);
    assert!(events.head.contains("Content-Type: text/event-stream\r\n"), "{}", events.head);
    assert!(events.head.contains("Access-Control-Allow-Origin: http://localhost:3000\r\n"), "{}", events.head);
    assert_eq!(events.data()["type"], "hello");
    assert_eq!(events.data()["type"], "ack");
    assert_eq!(events.data(), json!({ "type": "status", "code": "current" }));
    server.publisher().publish("t", Payload::Json(b"{\n \"a\": 1\r\n}")).unwrap();
    let (id, update) = events.next().unwrap();
    assert_eq!((&update["seq"], &update["data"]), (&json!(1), &json!({ "a": 1 })));
    let id = id.unwrap();
    assert_eq!(id.len(), 28, "{id}");
    drop(events);
    for n in 2..=5 {
        publish(&server, "t", &json!(n));
    }
    let mut again = Events::open(&server, "topics=t", &format!("Last-Event-ID: {id}\r\n"));
    assert_eq!(again.data()["type"], "hello");
    assert_eq!(again.data()["topics"][0]["seq"], 1);
    for seq in 2..=5 {
        let (last, update) = again.next().unwrap();
        assert_eq!((&update["seq"], &update["data"]), (&json!(seq), &json!(seq)));
        assert_ne!(last.unwrap(), id);
    }
    assert_eq!(again.data()["code"], "current", "behind what was missed");
    server.stop();
    assert_eq!(again.data()["code"], "draining");
    while let Some((_, message)) = again.next() {
        assert_ne!(message["type"], "update");
    }
}

/// What is said of a publication that was too large.
fn left_out(seq: u64) -> Value {
    json!({ "type": "skip", "topic": "t", "from": seq, "to": seq, "why": "too_large" })
}

/// The same in the place of a snapshot.
fn left_out_at_first(epoch: &Value, seq: u64) -> Value {
    json!({ "type": "skip", "topic": "t", "epoch": epoch, "from": seq, "to": seq, "why": "too_large" })
}

#[test]
fn what_is_too_large_is_told_once_to_everybody_who_has_words() {
    let server = serve(|_| {});
    let mut raw = Client::connect(&server, "/raw/t");
    let modes = ["", "&mode=latest", "&mode=latest&rate=1000"];
    let mut clients = modes.map(|mode| Client::hello(&server, &format!("/ws?topics=t{mode}")));
    let mut events = modes.map(|mode| Events::open(&server, &format!("topics=t{mode}"), ""));
    for (client, events) in clients.iter_mut().zip(&mut events) {
        assert_eq!(client.json()["type"], "ack");
        assert_eq!(events.begun().len(), 2);
    }
    for seq in [1, 3, 5] {
        publish(&server, "t", &json!(seq));
        for client in &mut clients {
            assert_eq!(client.json()["seq"], seq);
        }
        for events in &mut events {
            assert_eq!(events.data()["seq"], seq);
        }
        server.publisher().publish("t", Payload::TooLarge).unwrap();
        for client in &mut clients {
            assert_eq!(client.json(), left_out(seq + 1));
        }
        for events in &mut events {
            let (id, told) = events.next().unwrap();
            assert_eq!(told, left_out(seq + 1));
            assert!(id.is_some());
        }
        assert_eq!(raw.text(), seq.to_string(), "and nothing between");
    }
}

#[test]
fn who_comes_later_is_told_of_what_was_too_large_as_those_who_were_there() {
    // Nobody is there, so that it is on the tape as /raw has it, which is not at all.
    let server = serve(|_| {});
    let too_large = || server.publisher().publish("t", Payload::TooLarge).unwrap().seq;
    let mut place = Value::Null;
    for n in [1, 3] {
        publish(&server, "t", &json!(n));
        place = Client::hello(&server, "/ws").ask(r#"{"op":"ping"}"#)["cursor"].clone();
        too_large();
    }
    let value = exchange(server.addresses()[0], b"GET /topics/t HTTP/1.0\r\nHost: localhost\r\n\r\n");
    assert!(value.starts_with("HTTP/1.1 404 ") && value.contains("--max-replay-message"), "{value}");
    let mut client = Client::hello(&server, "/ws?topics=*");
    client.json();
    let instead = client.json();
    let epoch = &instead["epoch"];
    assert!(epoch.is_string());
    assert_eq!(instead, left_out_at_first(epoch, 4), "in the place of a snapshot");
    let mut back = Client::hello(&server, "/ws");
    back.ask(&format!(r#"{{"op":"sub","topics":["t"],"from":{{"t":[{epoch},1]}}}}"#));
    assert_eq!((back.json(), back.json()["data"].clone(), back.json()), (left_out(2), json!(3), left_out(4)));
    let id = format!("Last-Event-ID: {}\r\n", place.as_str().unwrap());
    let mut events = Events::open(&server, "topics=t", &id);
    assert_eq!([events.data()["type"].clone(), events.data()["type"].clone()], ["hello", "ack"]);
    assert_eq!(events.data(), left_out(4));
    let mut latest = Client::hello(&server, "/ws");
    latest.ask(&format!(r#"{{"op":"sub","topics":["t"],"mode":"latest","from":{{"t":[{epoch},1]}}}}"#));
    assert_eq!(latest.json(), left_out_at_first(epoch, 4));
    let mut reset = Client::hello(&server, "/ws");
    reset.ask(r#"{"op":"sub","topics":["t"],"from":{"t":["old",1]}}"#);
    assert_eq!((reset.json()["seq"].clone(), reset.json()), (json!(4), left_out_at_first(epoch, 4)));
    let seq = publish(&server, "t", &json!("next"));
    for client in [&mut client, &mut back, &mut latest, &mut reset] {
        assert_eq!(client.json()["seq"], seq);
    }
    assert_eq!(events.data()["code"], "current");
    assert_eq!(events.data()["seq"], seq);
}

#[test]
fn events_have_modes_and_rates_and_heartbeats() {
    let server = serve(|config| config.heartbeat = "1s".parse().unwrap());
    let mut events = Events::open(&server, "topics=q.%3E&mode=latest&rate=4", "");
    events.data();
    assert_eq!(events.data()["topics"][0]["rate"], 4);
    assert_eq!(events.data()["code"], "current");
    let begun = Instant::now();
    assert_eq!(events.data()["type"], "heartbeat");
    assert!(begun.elapsed() > Duration::from_millis(500));
    publish(&server, "q.a", &json!(1));
    let mut next = events.data();
    while next["type"] == "heartbeat" {
        next = events.data();
    }
    assert_eq!(next["topic"], "q.a");
}

#[test]
fn what_comes_behind_a_request_for_events_is_passed_over() {
    let server = serve(|_| {});
    let mut events = Events::open(&server, "topics=q.a", "X: x\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n");
    assert_eq!(events.begun().len(), 2, "hello and ack");
    server.publisher().publish("q.a", Payload::Json(b"1")).unwrap();
    assert_eq!(events.data()["type"], "update");
}

#[test]
fn events_that_can_not_be_are_refused_with_one_sentence() {
    let server = serve(|_| {});
    let refused = |query: &str, headers: &str| {
        let request = format!("GET /sse{query} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        crate::client::exchange(server.addresses()[0], request.as_bytes())
    };
    assert!(refused("", "").contains("Ask for ?topics="));
    assert!(refused("?topics=a..b", "").starts_with("HTTP/1.1 400 "));
    assert!(refused("?topics=a&rate=4", "").contains("mode latest"));
    let post =
        crate::client::exchange(server.addresses()[0], b"POST /sse?topics=a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
}
