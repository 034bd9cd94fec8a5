//! The server's messages to one client, as values, and the JSON of them.
//!
//! Everything that is not an update: greetings, answers, notices. How one goes onto the wire is its lane's business; lanes that
//! speak JSON put a frame or an event around [`Reply::push_json`]. Strings are escaped there; an id and a payload go in byte
//! for byte as they came. Appending to the buffer is the only allocation.

use std::io::Write;

use super::{
    code::ErrorCode,
    command::{Id, Mode},
    cursor::Word,
    envelope::{Envelope, Payload, push_string, snapshot_prefix},
};

/// Who a client is, as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who<'a> {
    /// The subject of its token, or the name that its rights stand under.
    pub sub: &'a str,
    /// When its token expires, in seconds since the Unix epoch; none for what doesn't.
    pub exp: Option<u64>,
}

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
    /// Who it is, if it has shown that.
    pub holder: Option<Who<'a>>,
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

/// One message of the server's, other than an update.
#[derive(Clone, Copy, Debug)]
pub enum Reply<'a> {
    /// The greeting.
    Hello(Hello<'a>),
    /// `unsub` was carried out.
    Done {
        /// The command's.
        id: Option<Id<'a>>,
    },
    /// `auth` was carried out.
    Authenticated {
        /// The command's.
        id: Option<Id<'a>>,
        /// Who the client is from now on.
        holder: Option<Who<'a>>,
    },
    /// `sub` was carried out.
    Subscribed {
        /// The command's.
        id: Option<Id<'a>>,
        /// Each topic with its epoch and last seq, each pattern without.
        topics: &'a [Subscription<'a>],
        /// From where everything is told that the subscription begins with, and what comes then.
        cursor: Word,
    },
    /// A `pub` that has an id was carried out.
    Published {
        /// The command's.
        id: Option<Id<'a>>,
        /// Where it was published.
        topic: &'a str,
        /// Its number within the topic.
        seq: u64,
        /// When it was taken in, in microseconds since the Unix epoch.
        ts: u64,
    },
    /// The answer to `list`.
    Subscriptions {
        /// The command's.
        id: Option<Id<'a>>,
        /// What there is, in order.
        topics: &'a [Subscription<'a>],
    },
    /// A topic's last value.
    Snapshot {
        /// Its name.
        topic: &'a str,
        /// Its numbering.
        epoch: &'a str,
        /// The value's number.
        seq: u64,
        /// When it was taken in, in microseconds since the Unix epoch.
        ts: u64,
        /// The value.
        payload: Payload<'a>,
        /// Up to where everything was told with it, where a lane says that beside the message.
        cursor: Word,
    },
    /// All values that a subscription begins with were told, and all that was missed.
    Current {
        /// Up to where everything was told, where a lane says that beside the message.
        cursor: Word,
    },
    /// Publications were left out.
    Skip {
        /// Of this topic.
        topic: &'a str,
        /// Its numbering, where nothing else says it.
        epoch: Option<&'a str>,
        /// The number of the first.
        from: u64,
        /// The number of the last.
        to: u64,
        /// `slow`, if the subscriber was.
        why: &'a str,
    },
    /// The point to resume from is gone; the topic goes on live behind `seq`.
    Reset {
        /// Its name.
        topic: &'a str,
        /// Its present numbering.
        epoch: &'a str,
        /// The number that it goes on behind.
        seq: u64,
        /// `history`, `epoch` or `cursor`.
        why: &'a str,
    },
    /// Nothing happened for a while.
    Heartbeat {
        /// Now, in microseconds since the Unix epoch.
        ts: u64,
        /// Up to where everything was told.
        cursor: Word,
    },
    /// The server is about to close.
    Draining {
        /// The window of milliseconds within which to come back at a random time.
        retry_ms: [u64; 2],
        /// Such a time, for a client that doesn't choose one by itself.
        retry: u64,
    },
    /// How things are.
    Status {
        /// `current` if that was all that there is now, `more` if there is more.
        code: &'a str,
    },
    /// The token expires soon: another is to be shown.
    Expiring {
        /// Seconds until then.
        within: u64,
    },
    /// A command was refused, or the connection is about to be closed.
    Error {
        /// The command's.
        id: Option<Id<'a>>,
        /// For programs.
        code: ErrorCode,
        /// One sentence for people.
        message: &'a str,
    },
    /// A subscription isn't made, because rights don't cover some of its names.
    Uncovered {
        /// The command's.
        id: Option<Id<'a>>,
        /// Those names.
        topics: &'a [&'a str],
        /// One sentence for people.
        message: &'a str,
    },
    /// A subscription has ended, because rights don't cover it any more.
    Ended {
        /// The name, as it was subscribed to.
        topic: &'a str,
        /// One sentence for people.
        message: &'a str,
    },
    /// The answer to `ping`.
    Pong {
        /// The command's.
        id: Option<Id<'a>>,
        /// Now, in microseconds since the Unix epoch.
        ts: u64,
        /// Up to where everything was told.
        cursor: Word,
    },
}

impl Reply<'_> {
    /// Up to where everything was told, once this message was.
    pub fn cursor(&self) -> Option<&Word> {
        match self {
            Reply::Subscribed { cursor, .. }
            | Reply::Snapshot { cursor, .. }
            | Reply::Current { cursor }
            | Reply::Heartbeat { cursor, .. }
            | Reply::Pong { cursor, .. } => Some(cursor),
            _ => None,
        }
    }

    /// Appends it as one JSON object, and nothing else.
    pub fn push_json(&self, out: &mut Vec<u8>) {
        match *self {
            Reply::Hello(hello) => push_hello(out, &hello),
            Reply::Done { id } => Object::open(out, "ack").id(id).close(),
            Reply::Authenticated { id, holder } => Object::open(out, "ack").id(id).holder(holder).close(),
            Reply::Subscribed { id, topics, cursor } => {
                Object::open(out, "ack").id(id).subscriptions(topics).text("cursor", cursor.as_str()).close();
            }
            Reply::Published { id, topic, seq, ts } => {
                Object::open(out, "ack").id(id).text("topic", topic).number("seq", seq).number("ts", ts).close();
            }
            Reply::Subscriptions { id, topics } => {
                Object::open(out, "subscriptions").id(id).subscriptions(topics).close();
            }
            // Nothing could be carried that would be its value: it is told where the topic goes on.
            Reply::Snapshot { topic, epoch, seq, payload: Payload::TooLarge, .. } => {
                let mut message = Object::open(out, "skip");
                message.text("topic", topic).text("epoch", epoch).number("from", seq).number("to", seq);
                message.text("why", "too_large").close();
            }
            Reply::Snapshot { topic, epoch, seq, ts, payload, .. } => {
                Envelope::new(&snapshot_prefix(topic, epoch), seq, ts, payload).append(out);
            }
            Reply::Skip { topic, epoch, from, to, why } => {
                let mut message = Object::open(out, "skip");
                message.text("topic", topic);
                if let Some(epoch) = epoch {
                    message.text("epoch", epoch);
                }
                message.number("from", from).number("to", to).text("why", why).close();
            }
            Reply::Reset { topic, epoch, seq, why } => {
                let mut message = Object::open(out, "reset");
                message.text("topic", topic).text("epoch", epoch).number("seq", seq).text("why", why).close();
            }
            Reply::Current { .. } => Object::open(out, "status").text("code", "current").close(),
            Reply::Heartbeat { ts, cursor } => {
                Object::open(out, "heartbeat").number("ts", ts).text("cursor", cursor.as_str()).close();
            }
            Reply::Draining { retry_ms: [from, to], .. } => {
                let mut message = Object::open(out, "status");
                message.text("code", "draining").key("retry_ms").push(b"[").digits(from).push(b",").digits(to);
                message.push(b"]").close();
            }
            Reply::Status { code } => Object::open(out, "status").text("code", code).close(),
            Reply::Expiring { within } => {
                Object::open(out, "status").text("code", "token_expiring").number("in", within).close();
            }
            Reply::Uncovered { id, topics, message } => {
                let mut error = Object::open(out, "error");
                error.id(id).text("code", ErrorCode::Forbidden.as_str()).key("topics").push(b"[");
                for (n, topic) in topics.iter().enumerate() {
                    if n > 0 {
                        error.push(b",");
                    }
                    push_string(error.out, topic);
                }
                error.push(b"]").text("message", message).close();
            }
            Reply::Error { id, code, message } => {
                Object::open(out, "error").id(id).text("code", code.as_str()).text("message", message).close();
            }
            Reply::Ended { topic, message } => {
                let mut error = Object::open(out, "error");
                error.text("code", ErrorCode::Forbidden.as_str()).text("topic", topic).text("message", message).close();
            }
            Reply::Pong { id, ts, cursor } => {
                Object::open(out, "pong").id(id).number("ts", ts).text("cursor", cursor.as_str()).close();
            }
        }
    }
}

fn push_hello(out: &mut Vec<u8>, hello: &Hello<'_>) {
    let mut message = Object::open(out, "hello");
    message.number("version", 1).text("server", hello.server).text("conn", hello.conn).number("ts", hello.ts);
    message.number("heartbeat", hello.heartbeat);
    message.key("limits").push(b"{\"topics\":").digits(hello.topics_max as u64);
    message.number("message", hello.message_max).push(b"}").holder(hello.holder).close();
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

    fn close(&mut self) {
        self.push(b"}");
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
        self.key(key).digits(number)
    }

    fn digits(&mut self, number: u64) -> &mut Self {
        self.push(itoa::Buffer::new().format(number).as_bytes())
    }

    fn id(&mut self, id: Option<Id<'_>>) -> &mut Self {
        match id {
            Some(id) => self.key("id").push(id.json().as_bytes()),
            None => self,
        }
    }

    fn holder(&mut self, holder: Option<Who<'_>>) -> &mut Self {
        let Some(Who { sub, exp }) = holder else { return self };
        self.key("holder").push(b"{\"sub\":");
        push_string(self.out, sub);
        if let Some(exp) = exp {
            self.number("exp", exp);
        }
        self.push(b"}")
    }

    fn subscriptions(&mut self, topics: &[Subscription<'_>]) -> &mut Self {
        self.key("topics").push(b"[");
        for (n, subscription) in topics.iter().enumerate() {
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
        self.push(b"]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        command::{Command, Limits},
        cursor::{Cursor, Instance},
    };

    fn word() -> Word {
        Cursor { tape: Instance(0x0123_4567_89ab_cdef), at: 42, begins: false }.word()
    }

    fn written(reply: Reply<'_>) -> String {
        let mut out = b"before".to_vec();
        reply.push_json(&mut out);
        let text = String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned();
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
        let greeting = Hello {
            server: "stentor/1",
            conn: "1-2",
            ts: 3,
            heartbeat: 15,
            topics_max: 1024,
            message_max: 65536,
            holder: None,
        };
        let known = Who { sub: "u \"42\"", exp: Some(1_700_000_000) };
        let payload = Payload::Binary(b"a");
        for (reply, json) in [
            (
                Reply::Hello(greeting),
                r#"{"type":"hello","version":1,"server":"stentor/1","conn":"1-2","ts":3,"heartbeat":15,"limits":{"topics":1024,"message":65536}}"#,
            ),
            (
                Reply::Hello(Hello { holder: Some(known), ..greeting }),
                r#"{"type":"hello","version":1,"server":"stentor/1","conn":"1-2","ts":3,"heartbeat":15,"limits":{"topics":1024,"message":65536},"holder":{"sub":"u \"42\"","exp":1700000000}}"#,
            ),
            (Reply::Done { id: None }, r#"{"type":"ack"}"#),
            (Reply::Authenticated { id: None, holder: None }, r#"{"type":"ack"}"#),
            (
                Reply::Authenticated { id: None, holder: Some(Who { exp: None, ..known }) },
                r#"{"type":"ack","holder":{"sub":"u \"42\""}}"#,
            ),
            (
                Reply::Ended { topic: "q", message: "no" },
                r#"{"type":"error","code":"forbidden","topic":"q","message":"no"}"#,
            ),
            (Reply::Expiring { within: 60 }, r#"{"type":"status","code":"token_expiring","in":60}"#),
            (Reply::Published { id: None, topic: "q", seq: 9, ts: 8 }, r#"{"type":"ack","topic":"q","seq":9,"ts":8}"#),
            (
                Reply::Skip { topic: "q", epoch: None, from: 9814, to: 9840, why: "slow" },
                r#"{"type":"skip","topic":"q","from":9814,"to":9840,"why":"slow"}"#,
            ),
            (
                Reply::Reset { topic: "q", epoch: "k4", seq: 7, why: "history" },
                r#"{"type":"reset","topic":"q","epoch":"k4","seq":7,"why":"history"}"#,
            ),
            (
                Reply::Heartbeat { ts: 5, cursor: word() },
                r#"{"type":"heartbeat","ts":5,"cursor":"AQEjRWeJq83vAAAAAAAAACpTRNCS"}"#,
            ),
            (
                Reply::Draining { retry_ms: [0, 8000], retry: 7 },
                r#"{"type":"status","code":"draining","retry_ms":[0,8000]}"#,
            ),
            (Reply::Current { cursor: word() }, r#"{"type":"status","code":"current"}"#),
            (
                Reply::Snapshot { topic: "q", epoch: "k3", seq: 7, ts: 2, payload: Payload::TooLarge, cursor: word() },
                r#"{"type":"skip","topic":"q","epoch":"k3","from":7,"to":7,"why":"too_large"}"#,
            ),
            (
                Reply::Snapshot { topic: "q", epoch: "k3", seq: 1, ts: 2, payload, cursor: word() },
                r#"{"type":"snapshot","topic":"q","epoch":"k3","seq":1,"ts":2,"base64":"YQ=="}"#,
            ),
            (
                Reply::Error { id: None, code: ErrorCode::Lagged, message: "too slow" },
                r#"{"type":"error","code":"lagged","message":"too slow"}"#,
            ),
            (
                Reply::Pong { id: None, ts: 5, cursor: word() },
                r#"{"type":"pong","ts":5,"cursor":"AQEjRWeJq83vAAAAAAAAACpTRNCS"}"#,
            ),
        ] {
            assert_eq!(written(reply), json);
        }
    }

    #[test]
    fn answers_echo_the_id_as_it_was_written() {
        with_id("7.50", |id| {
            for (reply, json) in [
                (
                    Reply::Pong { id, ts: 5, cursor: word() },
                    r#"{"type":"pong","id":7.50,"ts":5,"cursor":"AQEjRWeJq83vAAAAAAAAACpTRNCS"}"#,
                ),
                (Reply::Done { id }, r#"{"type":"ack","id":7.50}"#),
                (
                    Reply::Published { id, topic: "q", seq: 9, ts: 8 },
                    r#"{"type":"ack","id":7.50,"topic":"q","seq":9,"ts":8}"#,
                ),
                (
                    Reply::Subscribed { id, topics: &[], cursor: word() },
                    r#"{"type":"ack","id":7.50,"topics":[],"cursor":"AQEjRWeJq83vAAAAAAAAACpTRNCS"}"#,
                ),
                (Reply::Subscriptions { id, topics: &[] }, r#"{"type":"subscriptions","id":7.50,"topics":[]}"#),
            ] {
                assert_eq!(written(reply), json);
            }
        });
        with_id(r#""\u00e9""#, |id| {
            assert_eq!(
                written(Reply::Error { id, code: ErrorCode::BadTopic, message: "found \"\n\"" }),
                r#"{"type":"error","id":"\u00e9","code":"bad_topic","message":"found \"\n\""}"#
            );
        });
    }

    #[test]
    fn names_that_are_not_covered_are_listed() {
        let reply = Reply::Uncovered { id: None, topics: &["a", "b.>"], message: "a: no" };
        let said = r#"{"type":"error","code":"forbidden","topics":["a","b.>"],"message":"a: no"}"#;
        assert_eq!(written(reply), said);
    }

    #[test]
    fn subscriptions_tell_what_they_have() {
        let topic = Subscription { topic: "q.us", at: Some(("k3", 9)), mode: Mode::All, rate: None };
        let pattern = Subscription { topic: "q.>", at: None, mode: Mode::Latest, rate: Some(4.0) };
        assert_eq!(
            written(Reply::Subscribed { id: None, topics: &[topic, pattern], cursor: word() }),
            r#"{"type":"ack","topics":[{"topic":"q.us","epoch":"k3","seq":9,"mode":"all"},{"topic":"q.>","mode":"latest","rate":4}],"cursor":"AQEjRWeJq83vAAAAAAAAACpTRNCS"}"#
        );
        assert_eq!(
            written(Reply::Subscriptions { id: None, topics: &[Subscription { rate: Some(0.25), ..pattern }] }),
            r#"{"type":"subscriptions","topics":[{"topic":"q.>","mode":"latest","rate":0.25}]}"#
        );
        assert_eq!(written(Reply::Subscriptions { id: None, topics: &[] }), r#"{"type":"subscriptions","topics":[]}"#);
    }

    #[test]
    fn the_payload_is_the_last_field() {
        for (payload, end) in [
            (Payload::Json(b" {\"a\":1}"), r#","data": {"a":1}}"#),
            (Payload::Plain("a"), r#","data":"a"}"#),
            (Payload::Binary(b"a"), r#","base64":"YQ=="}"#),
        ] {
            let reply = Reply::Snapshot { topic: "q", epoch: "k3", seq: 1, ts: 2, payload, cursor: word() };
            assert!(written(reply).ends_with(end), "{end}");
        }
    }
}
