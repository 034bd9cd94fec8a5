//! Cursors: coming back to any number of topics by one word, over WebSocket and as events, however often and wherever one was cut.

use std::collections::HashMap;

use serde_json::{Value, json};
use stentor::{Payload, server::Server};

use crate::{
    client::{Client, serve},
    modes::Events,
};

fn publish(server: &Server, topic: &str, value: u64) -> u64 {
    server.publisher().publish(topic, Payload::Json(value.to_string().as_bytes())).unwrap().seq
}

fn cursor(message: &Value) -> &str {
    let cursor = message["cursor"].as_str().unwrap_or_else(|| panic!("{message} has no cursor"));
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    assert!(cursor.len() <= 32 && cursor.bytes().all(is_letter), "{cursor}");
    cursor
}

fn resumed(server: &Server, topics: &Value, from: &str, more: &Value) -> Client {
    let mut client = Client::hello(server, "/ws");
    let mut sub = json!({ "op": "sub", "id": 1, "topics": topics, "from": from });
    sub.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.send(&sub.to_string());
    client
}

/// What comes before the answer to a ping that is sent now.
fn before_pong(client: &mut Client) -> (Vec<Value>, Value) {
    client.send(r#"{"op":"ping","id":"p"}"#);
    let mut messages = Vec::new();
    loop {
        let message = client.json();
        if message["type"] == "pong" {
            return (messages, message);
        }
        messages.push(message);
    }
}

/// So many messages, and nothing else before the answer to a ping that is sent then, which is returned as well.
fn exactly(client: &mut Client, count: usize) -> (Vec<Value>, Value) {
    let messages = (0..count).map(|_| client.json()).collect();
    let (more, pong) = before_pong(client);
    assert!(more.is_empty(), "{more:?} come as well");
    (messages, pong)
}

fn brief(messages: &[Value]) -> Vec<(&str, &str, u64)> {
    let of = |message: &'_ Value, field: &str| message[field].as_u64().unwrap_or_default();
    let what = |message| (of(message, "seq"), of(message, "from"));
    messages
        .iter()
        .map(|it| (it["type"].as_str().unwrap(), it["topic"].as_str().unwrap_or(""), what(it).0.max(what(it).1)))
        .collect()
}

#[test]
fn the_answer_to_a_ping_comes_behind_all_values_that_a_subscription_begins_with() {
    let server = serve(|_| {});
    let topics: Vec<String> = (0..3000).map(|n| format!("t.{n}")).collect();
    for topic in &topics {
        publish(&server, topic, 1);
    }
    let mut client = Client::hello(&server, "/ws");
    client.send(r#"{"op":"sub","id":1,"topics":["t.*"]}"#);
    let (messages, pong) = before_pong(&mut client);
    assert_eq!(messages.iter().filter(|message| message["type"] == "snapshot").count(), 3000);
    cursor(&pong);
}

#[test]
fn the_data_is_the_last_field_of_a_message() {
    let server = serve(|_| {});
    let mut client = Client::hello(&server, "/ws?topics=t");
    client.json();
    for (payload, end) in [
        (Payload::Json(b"{\"type\":\"x\"}"), r#","data":{"type":"x"}}"#),
        (Payload::Text("a\"b"), r#","data":"a\"b"}"#),
        (Payload::Binary(b"\xff"), r#","base64":"/w=="}"#),
    ] {
        server.publisher().publish("t", payload).unwrap();
        let update = client.text();
        assert!(update.ends_with(end), "{update}");
        let mut later = Client::hello(&server, "/ws?topics=t");
        later.json();
        let snapshot = later.text();
        assert!(snapshot.contains("snapshot") && snapshot.ends_with(end), "{snapshot}");
    }
}

#[test]
fn a_cursor_resumes_patterns_names_and_topics_that_were_not_there() {
    let server = serve(|_| {});
    for topic in ["t.us.A", "t.us.B", "t.eu.A", "q.us.A"] {
        publish(&server, topic, 1);
    }
    let mut client = Client::hello(&server, "/ws");
    client.send(r#"{"op":"sub","id":1,"topics":["t.us.*"]}"#);
    let (_, pong) = before_pong(&mut client);
    let place = cursor(&pong).to_owned();
    drop(client);
    for (topic, value) in [("t.us.A", 2), ("t.eu.A", 2), ("t.us.C", 1), ("t.us.A", 3), ("q.us.A", 2)] {
        publish(&server, topic, value);
    }
    let mut back = resumed(&server, &json!(["t.us.*", "t.eu.A", "t.us.B"]), &place, &json!({}));
    let ack = back.json();
    assert_eq!(cursor(&ack), place, "it is where it was");
    assert_eq!(ack["topics"][1]["seq"], 1, "of what is named, the number that it goes on behind");
    let (missed, pong) = exactly(&mut back, 4);
    let all = [("update", "t.us.A", 2), ("update", "t.eu.A", 2), ("update", "t.us.C", 1), ("update", "t.us.A", 3)];
    assert_eq!(brief(&missed), all, "in the order of publication, and nothing else");
    assert_ne!(cursor(&pong), place);
    publish(&server, "t.us.B", 2);
    assert_eq!(back.json()["topic"], "t.us.B");
    // The same by the address.
    let mut again = Client::hello(&server, &format!("/ws?topics=t.us.*&cursor={}", cursor(&pong)));
    again.json();
    assert_eq!(brief(&[again.json()]), [("update", "t.us.B", 2)]);
}

#[test]
fn of_newest_values_what_was_left_out_is_told_before_the_newest() {
    let server = serve(|_| {});
    for topic in ["a", "b", "c"] {
        publish(&server, topic, 1);
    }
    let place = Client::hello(&server, "/ws").ask(r#"{"op":"ping"}"#);
    for value in 2..=5 {
        publish(&server, "a", value);
    }
    publish(&server, "b", 2);
    for more in [json!({ "mode": "latest" }), json!({ "mode": "latest", "rate": 4, "snapshot": false })] {
        let mut back = resumed(&server, &json!([">"]), cursor(&place), &more);
        back.json();
        let (mut missed, _) = exactly(&mut back, 3);
        assert_eq!((missed[0]["to"].clone(), missed[0]["why"].clone()), (json!(4), json!("slow")));
        missed.sort_by_key(|message| message["topic"].to_string());
        assert_eq!(brief(&missed), [("skip", "a", 2), ("snapshot", "a", 5), ("snapshot", "b", 2)]);
    }
}

#[test]
fn a_cursor_that_is_good_no_more_resets_every_topic_and_never_what_the_names_do_not_cover() {
    let server = serve(|config| {
        config.retain = bytesize::ByteSize::mib(2);
        config.segment = bytesize::ByteSize::kib(256);
    });
    let other = serve(|_| {});
    for topic in ["t.A", "t.B", "q.A"] {
        publish(&server, topic, 1);
    }
    let [fallen, elsewhere] = [&server, &other].map(|it| Client::hello(it, "/ws").ask(r#"{"op":"ping"}"#));
    let (fallen, elsewhere) = (cursor(&fallen).to_owned(), cursor(&elsewhere).to_owned());
    let mut garbled = fallen.clone();
    garbled.replace_range(5..6, if &fallen[5..6] == "a" { "b" } else { "a" });
    let long = format!("\"{}\"", "x".repeat(1000));
    for _ in 0..4000 {
        server.publisher().publish("q.A", Payload::Json(long.as_bytes())).unwrap();
    }
    for word in ["", "k3:7", &"x".repeat(2000), &garbled, &elsewhere, &fallen] {
        for more in [json!({}), json!({ "mode": "latest" })] {
            let mut back = resumed(&server, &json!(["t.*"]), word, &more);
            let ack = back.json();
            let (told, pong) = before_pong(&mut back);
            assert!(told.iter().filter(|it| it["type"] == "reset").all(|it| it["why"] == "cursor"), "{told:?}");
            let whole = [("reset", "t.A", 1), ("snapshot", "t.A", 1), ("reset", "t.B", 1), ("snapshot", "t.B", 1)];
            assert_eq!(brief(&told), whole, "{word}");
            // Who is cut before the end of that begins with it again.
            let mut cut = resumed(&server, &json!(["t.*"]), cursor(&ack), &more);
            cut.json();
            assert_eq!(brief(&before_pong(&mut cut).0), whole);
            let mut good = resumed(&server, &json!(["t.*"]), cursor(&pong), &more);
            good.json();
            exactly(&mut good, 0);
        }
    }
}

#[test]
fn who_is_cut_among_the_snapshots_is_sent_those_again_and_what_came_since() {
    let server = serve(|_| {});
    for topic in ["a", "b"] {
        publish(&server, topic, 1);
    }
    let mut client = Client::hello(&server, "/ws?topics=%3E");
    let ack = client.json();
    drop(client);
    publish(&server, "b", 2);
    let mut back = resumed(&server, &json!([">"]), cursor(&ack), &json!({}));
    back.json();
    assert_eq!(brief(&exactly(&mut back, 2).0), [("snapshot", "a", 1), ("update", "b", 2)]);
    // Who wants none has missed none.
    let mut client = Client::hello(&server, "/ws?topics=%3E&snapshot=0");
    let ack = client.json();
    publish(&server, "a", 2);
    let mut back = resumed(&server, &json!([">"]), cursor(&ack), &json!({}));
    back.json();
    assert_eq!(brief(&exactly(&mut back, 1).0), [("update", "a", 2)]);
}

#[test]
fn events_of_patterns_resume_by_the_last_id_and_an_id_of_another_kind_is_passed_over() {
    let server = serve(|_| {});
    for topic in ["a", "b"] {
        publish(&server, topic, 1);
    }
    let mut events = Events::open(&server, "topics=a,b,c.*", "");
    events.data();
    let begun: Vec<_> = (0..4).map(|_| events.next().unwrap()).collect();
    let kinds: Vec<_> = begun.iter().map(|(_, it)| (it["type"].as_str().unwrap(), it["code"].as_str())).collect();
    assert_eq!(kinds, [("ack", None), ("snapshot", None), ("snapshot", None), ("status", Some("current"))]);
    let ids: Vec<String> = begun.into_iter().map(|(id, _)| id.unwrap()).collect();
    assert_eq!((&ids[0], &ids[2]), (&ids[1], &ids[3]), "only the last value says that all are there");
    drop(events);
    publish(&server, "c.1", 1);
    let back = |id: &str| {
        let mut events = Events::open(&server, "topics=a,b,c.*", &format!("Last-Event-ID: {id}\r\n"));
        assert!(events.head.starts_with("HTTP/1.1 200 "), "{}", events.head);
        events.begun()
    };
    assert_eq!(brief(&back(&ids[3])[2..]), [("update", "c.1", 1)]);
    assert_eq!(brief(&back(&ids[1])[2..]), [("snapshot", "a", 1), ("snapshot", "b", 1), ("update", "c.1", 1)]);
    let fresh = [("snapshot", "a", 1), ("snapshot", "b", 1), ("snapshot", "c.1", 1)];
    for other in ["k3:1", "seven", "7", "", "naïve", "a b"] {
        assert_eq!(brief(&back(other)[2..]), fresh, "{other}");
    }
    let gone = back(&"A".repeat(28));
    assert_eq!(brief(&gone[2..4]), [("reset", "a", 1), ("snapshot", "a", 1)]);
    assert_eq!((gone.len(), &gone[2]["why"]), (8, &json!("cursor")));
}

#[test]
fn a_heartbeat_says_how_far_everything_was_told() {
    let server = serve(|config| config.heartbeat = "1s".parse().unwrap());
    let mut client = Client::hello(&server, "/ws?topics=a");
    let mut events = Events::open(&server, "topics=a", "");
    events.begun();
    client.json();
    publish(&server, "b", 1);
    let (id, beat) = events.next().unwrap();
    assert_eq!((&beat["type"], id.as_deref()), (&json!("heartbeat"), Some(cursor(&beat))));
    let beat = client.json();
    let mut back = resumed(&server, &json!([">"]), cursor(&beat), &json!({}));
    back.json();
    assert!(exactly(&mut back, 0).0.is_empty(), "what isn't for it was told as well");
}

/// How often whoever is cut again and again is cut: `STENTOR_CUTS=200` takes as many topics as a large server has, and a minute for each.
pub fn cuts() -> usize {
    std::env::var("STENTOR_CUTS").map_or(60, |text| text.parse().expect("STENTOR_CUTS is a number"))
}

fn topics() -> usize {
    if cuts() >= 200 { 10_000 } else { 500 }
}

/// The last number of each topic that a subscriber has, whatever connections it had.
#[derive(Default)]
pub struct Known(HashMap<String, u64>);

impl Known {
    /// Takes a message in. What it has already may come again where it knows only an older place.
    pub fn take(&mut self, message: &Value, may_repeat: bool) {
        let (Some(topic), Some(seq)) = (message["topic"].as_str(), message["seq"].as_u64()) else { return };
        let last = self.0.get(topic).copied();
        match message["type"].as_str().unwrap() {
            "snapshot" => assert!(last.is_none_or(|last| last == seq), "{topic}: snapshot {seq} after {last:?}"),
            "update" if may_repeat && last.is_some_and(|last| seq <= last) => return,
            "update" => assert!(last.is_none_or(|last| seq == last + 1), "{topic}: {seq} after {last:?}"),
            _ => panic!("{message}"),
        }
        self.0.insert(topic.to_owned(), seq);
    }

    pub fn has_all(&self, numbers: &[u64]) -> bool {
        self.0.len() == numbers.len() && numbers.iter().enumerate().all(|(n, seq)| self.0[&format!("t.{n}")] == *seq)
    }
}

/// What is published on all topics, and the last number of each.
pub struct Feed<'s> {
    server: &'s Server,
    pub numbers: Vec<u64>,
    pub random: fastrand::Rng,
}

impl<'s> Feed<'s> {
    pub fn new(server: &'s Server, seed: u64) -> Feed<'s> {
        let numbers = (0..topics()).map(|n| publish(server, &format!("t.{n}"), 0)).collect();
        Feed { server, numbers, random: fastrand::Rng::with_seed(seed) }
    }

    /// So many more publications, some of them on a topic again and again.
    pub fn publish(&mut self, count: usize) {
        for _ in 0..count {
            let n = if self.random.bool() { self.random.usize(..self.numbers.len()) } else { self.random.usize(..5) };
            self.numbers[n] = publish(self.server, &format!("t.{n}"), n as u64);
        }
    }

    /// How many messages somebody takes before it is cut: often among those that its subscription begins with, and now and then behind.
    fn until_cut(&mut self) -> usize {
        let most = if self.random.u8(..10) == 0 { 3 * self.numbers.len() } else { 800 };
        self.random.usize(..most)
    }
}

#[test]
fn a_subscriber_of_everything_that_is_cut_again_and_again_has_every_number_of_every_topic() {
    let server = serve(|_| {});
    let mut feed = Feed::new(&server, 1);
    let (mut known, mut place) = (Known::default(), None::<String>);
    for cut in 0..cuts() {
        let mut client = match &place {
            Some(place) if cut % 2 == 0 => Client::hello(&server, &format!("/ws?topics=%3E&cursor={place}")),
            Some(place) => resumed(&server, &json!([">"]), place, &json!({})),
            None => Client::hello(&server, "/ws?topics=%3E"),
        };
        client.send(r#"{"op":"ping"}"#);
        for _ in 0..feed.until_cut() {
            feed.publish(1);
            let message = client.json();
            known.take(&message, true);
            if message["cursor"].is_string() {
                place = Some(cursor(&message).to_owned());
                if message["type"] == "pong" {
                    client.send(r#"{"op":"ping"}"#);
                }
            }
        }
        drop(client);
        let missed = feed.random.usize(..300);
        feed.publish(missed);
    }
    let mut last = resumed(&server, &json!([">"]), &place.unwrap(), &json!({}));
    while !known.has_all(&feed.numbers) {
        known.take(&last.json(), true);
    }
}

#[test]
fn a_stream_of_everything_that_is_cut_again_and_again_has_every_number_of_every_topic_once() {
    let server = serve(|_| {});
    let mut feed = Feed::new(&server, 2);
    let (mut known, mut place) = (Known::default(), String::new());
    for _ in 0..cuts() {
        let mut events = Events::open(&server, "topics=%3E", &format!("Last-Event-ID: {place}\r\n"));
        for _ in 0..feed.until_cut() {
            feed.publish(1);
            let (id, message) = events.next().unwrap();
            known.take(&message, false);
            place = id.unwrap_or(place);
        }
        drop(events);
        let missed = feed.random.usize(..300);
        feed.publish(missed);
    }
    let mut last = Events::open(&server, "topics=%3E", &format!("Last-Event-ID: {place}\r\n"));
    last.begun().iter().for_each(|message| known.take(message, false));
    assert!(known.has_all(&feed.numbers));
}
