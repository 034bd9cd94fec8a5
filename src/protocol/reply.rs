//! The server's messages to one client, appended to a buffer as JSON.
//!
//! Everything that is not an update: greetings, answers, notices. Strings are escaped here; an id and a payload go in byte
//! for byte as they came. Each function appends one whole message and nothing else, so that the caller can put a frame
//! header around it. Appending to the buffer is the only allocation.

use std::io::Write;

use super::{
    code::ErrorCode,
    command::{Id, Mode},
    envelope::{Envelope, Payload, push_string, snapshot_prefix},
};

/// What a client is told first.
#[derive(Clone, Copy, Debug)]
pub struct Hello<'a> {
    /// Name and version of the server.
    pub server: &'a str,
    /// The connection's name in the server's log.
    pub conn: &'a str,
    /// Now, in microseconds since the Unix epoch.
    pub ts: u64,
    /// Seconds of silence after which a heartbeat comes; 0 for never.
    pub heartbeat: u64,
    /// Topics and patterns that this connection may subscribe to.
    pub topics_max: usize,
    /// Bytes of the largest message that it may send.
    pub message_max: u64,
}

/// One subscription, as it is told in an ack or a list.
#[derive(Clone, Copy, Debug)]
pub struct Subscription<'a> {
    /// The topic or pattern.
    pub topic: &'a str,
    /// The epoch and the last seq; for a topic in the ack of `sub`, and for nothing else.
    pub at: Option<(&'a str, u64)>,
    /// How it is delivered.
    pub mode: Mode,
    /// With [`Mode::Latest`]: updates a second for each topic.
    pub rate: Option<f64>,
}

/// The greeting.
pub fn hello(out: &mut Vec<u8>, hello: &Hello<'_>) {
    let mut message = Object::open(out, "hello");
    message.number("version", 1).text("server", hello.server).text("conn", hello.conn).number("ts", hello.ts);
    message.number("heartbeat", hello.heartbeat);
    message.key("limits").push(b"{\"topics\":");
    push_number(message.out, hello.topics_max as u64);
    message.number("message", hello.message_max);
    message.push(b"}");
    message.close();
}

/// The answer to `sub`: each topic with its epoch and last seq, each pattern without.
pub fn ack_sub<'a>(out: &mut Vec<u8>, id: Option<Id<'_>>, topics: impl IntoIterator<Item = Subscription<'a>>) {
    let mut message = Object::open(out, "ack");
    message.id(id).subscriptions(topics);
    message.close();
}

/// The answer to a `pub` that has an id.
pub fn ack_pub(out: &mut Vec<u8>, id: Option<Id<'_>>, topic: &str, seq: u64, ts: u64) {
    let mut message = Object::open(out, "ack");
    message.id(id).text("topic", topic).number("seq", seq).number("ts", ts);
    message.close();
}

/// The answer to `unsub` and `auth`.
pub fn ack(out: &mut Vec<u8>, id: Option<Id<'_>>) {
    let mut message = Object::open(out, "ack");
    message.id(id);
    message.close();
}

/// The answer to `list`.
pub fn subscriptions<'a>(out: &mut Vec<u8>, id: Option<Id<'_>>, topics: impl IntoIterator<Item = Subscription<'a>>) {
    let mut message = Object::open(out, "subscriptions");
    message.id(id).subscriptions(topics);
    message.close();
}

/// A topic's last value.
pub fn snapshot(out: &mut Vec<u8>, topic: &str, epoch: &str, seq: u64, ts: u64, payload: Payload<'_>) {
    Envelope::new(&snapshot_prefix(topic, epoch), seq, ts, payload).append(out);
}

/// Publications `from` to `to`, both included, were left out for this subscriber.
pub fn skip(out: &mut Vec<u8>, topic: &str, from: u64, to: u64, why: &str) {
    let mut message = Object::open(out, "skip");
    message.text("topic", topic).number("from", from).number("to", to).text("why", why);
    message.close();
}

/// The point to resume from is gone; the topic goes on live behind `seq`.
pub fn reset(out: &mut Vec<u8>, topic: &str, epoch: &str, seq: u64, why: &str) {
    let mut message = Object::open(out, "reset");
    message.text("topic", topic).text("epoch", epoch).number("seq", seq).text("why", why);
    message.close();
}

/// Nothing happened for a while.
pub fn heartbeat(out: &mut Vec<u8>, ts: u64) {
    let mut message = Object::open(out, "heartbeat");
    message.number("ts", ts);
    message.close();
}

/// The server is about to close; come back after a random time within this window of milliseconds.
pub fn draining(out: &mut Vec<u8>, retry_ms: [u64; 2]) {
    let mut message = Object::open(out, "status");
    message.text("code", "draining").key("retry_ms").push(b"[");
    push_number(message.out, retry_ms[0]);
    message.push(b",");
    push_number(message.out, retry_ms[1]);
    message.push(b"]");
    message.close();
}

/// A command was refused, or the connection is about to be closed.
pub fn error(out: &mut Vec<u8>, id: Option<Id<'_>>, code: ErrorCode, text: &str) {
    let mut message = Object::open(out, "error");
    message.id(id).text("code", code.as_str()).text("message", text);
    message.close();
}

/// The answer to `ping`.
pub fn pong(out: &mut Vec<u8>, id: Option<Id<'_>>, ts: u64) {
    let mut message = Object::open(out, "pong");
    message.id(id).number("ts", ts);
    message.close();
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A message being written: an object whose first field is its type.
struct Object<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Object<'o> {
    fn open(out: &'o mut Vec<u8>, kind: &str) -> Self {
        out.extend_from_slice(b"{\"type\":");
        push_string(out, kind);
        Object { out }
    }

    fn close(self) {
        self.out.push(b'}');
    }

    /// Begins a field; its value is pushed next. Keys are our own words and need no escapes.
    fn key(&mut self, key: &str) -> &mut Self {
        self.push(b",\"").push(key.as_bytes()).push(b"\":")
    }

    fn push(&mut self, json: &[u8]) -> &mut Self {
        self.out.extend_from_slice(json);
        self
    }

    fn text(&mut self, key: &str, text: &str) -> &mut Self {
        push_string(self.key(key).out, text);
        self
    }

    fn number(&mut self, key: &str, number: u64) -> &mut Self {
        push_number(self.key(key).out, number);
        self
    }

    fn id(&mut self, id: Option<Id<'_>>) -> &mut Self {
        match id {
            Some(id) => self.key("id").push(id.json().as_bytes()),
            None => self,
        }
    }

    fn subscriptions<'a>(&mut self, topics: impl IntoIterator<Item = Subscription<'a>>) {
        self.key("topics").push(b"[");
        for (n, subscription) in topics.into_iter().enumerate() {
            self.push(if n == 0 { b"{\"topic\":" } else { b",{\"topic\":" });
            push_string(self.out, subscription.topic);
            if let Some((epoch, seq)) = subscription.at {
                self.text("epoch", epoch).number("seq", seq);
            }
            self.text("mode", subscription.mode.as_str());
            if let Some(rate) = subscription.rate {
                // Rust writes a double without an exponent and as short as it can be, which is valid JSON.
                write!(self.key("rate").out, "{rate}").expect("a Vec takes every byte");
            }
            self.push(b"}");
        }
        self.push(b"]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::command::{Command, Limits};

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        let text = String::from_utf8(out).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        text
    }

    /// Has the id `7`, or whatever JSON is given.
    fn with_id<R>(json: &str, then: impl FnOnce(Option<Id<'_>>) -> R) -> R {
        let frame = format!(r#"{{"op":"ping","id":{json}}}"#);
        then(Command::parse(&frame, &Limits { topic_length_max: 8, topics_max: 8 }).unwrap().id)
    }

    #[test]
    fn every_message_has_the_words_of_the_protocol() {
        let greeting =
            Hello { server: "stentor/1", conn: "1-2", ts: 3, heartbeat: 15, topics_max: 1024, message_max: 65536 };
        assert_eq!(
            written(|out| hello(out, &greeting)),
            r#"{"type":"hello","version":1,"server":"stentor/1","conn":"1-2","ts":3,"heartbeat":15,"limits":{"topics":1024,"message":65536}}"#
        );
        assert_eq!(
            written(|out| skip(out, "q", 9814, 9840, "slow")),
            r#"{"type":"skip","topic":"q","from":9814,"to":9840,"why":"slow"}"#
        );
        assert_eq!(
            written(|out| reset(out, "q", "k4", 7, "history")),
            r#"{"type":"reset","topic":"q","epoch":"k4","seq":7,"why":"history"}"#
        );
        assert_eq!(written(|out| heartbeat(out, 5)), r#"{"type":"heartbeat","ts":5}"#);
        assert_eq!(
            written(|out| draining(out, [0, 8000])),
            r#"{"type":"status","code":"draining","retry_ms":[0,8000]}"#
        );
        assert_eq!(
            written(|out| snapshot(out, "q", "k3", 1, 2, Payload::Binary(b"a"))),
            r#"{"type":"snapshot","topic":"q","epoch":"k3","seq":1,"ts":2,"base64":"YQ=="}"#
        );
    }

    #[test]
    fn answers_echo_the_id_as_it_was_written() {
        with_id("7.50", |id| {
            assert_eq!(written(|out| pong(out, id, 5)), r#"{"type":"pong","id":7.50,"ts":5}"#);
            assert_eq!(written(|out| ack(out, id)), r#"{"type":"ack","id":7.50}"#);
            assert_eq!(
                written(|out| ack_pub(out, id, "q", 9, 8)),
                r#"{"type":"ack","id":7.50,"topic":"q","seq":9,"ts":8}"#
            );
        });
        with_id(r#""\u00e9""#, |id| {
            assert_eq!(
                written(|out| error(out, id, ErrorCode::BadTopic, "found \"\n\"")),
                r#"{"type":"error","id":"\u00e9","code":"bad_topic","message":"found \"\n\""}"#
            );
        });
        assert_eq!(written(|out| pong(out, None, 5)), r#"{"type":"pong","ts":5}"#);
    }

    #[test]
    fn subscriptions_tell_what_they_have() {
        let topic = Subscription { topic: "q.us", at: Some(("k3", 9)), mode: Mode::All, rate: None };
        let pattern = Subscription { topic: "q.>", at: None, mode: Mode::Latest, rate: Some(4.0) };
        assert_eq!(
            written(|out| ack_sub(out, None, [topic, pattern])),
            r#"{"type":"ack","topics":[{"topic":"q.us","epoch":"k3","seq":9,"mode":"all"},{"topic":"q.>","mode":"latest","rate":4}]}"#
        );
        assert_eq!(
            written(|out| subscriptions(out, None, [Subscription { rate: Some(0.25), ..pattern }])),
            r#"{"type":"subscriptions","topics":[{"topic":"q.>","mode":"latest","rate":0.25}]}"#
        );
        assert_eq!(written(|out| subscriptions(out, None, [])), r#"{"type":"subscriptions","topics":[]}"#);
    }

    #[test]
    fn a_message_is_appended_to_what_is_there() {
        let mut out = b"before".to_vec();
        heartbeat(&mut out, 1);
        assert_eq!(out, b"before{\"type\":\"heartbeat\",\"ts\":1}");
    }
}
