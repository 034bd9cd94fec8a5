//! Stentor's JSON protocol, as far as a subscriber and a publisher need it.
//!
//! Updates are recognised by their literal beginning, in the field order that the protocol promises for performance;
//! the slower general reading is only for what is rare. The server's own `seq` is handed on, so that it can be held
//! against the generator's: the two must run in step.

use memchr::memmem;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Dialect, Envelope, Heard};
use crate::{stamp::Stamp, target::Url};

/// How a publication is sent: without an `id`, so that it is not acknowledged.
pub const PUBLISH: &str = r#"{"op":"pub","topic":"{topic}","data":{payload}}"#;

/// Fills in the path where the address names none.
pub fn complete(url: &mut Url) {
    if url.path == "/" {
        url.path = "/ws".into();
    }
}

/// Fills in the path that takes publications by HTTP where the address names none.
pub fn complete_http(url: &mut Url) {
    if url.path == "/" {
        url.path = "/publish/{topic}".into();
    }
}

/// The command that subscribes to `topics`, or to the newest value of each.
pub fn subscribe(dialect: &Dialect, topics: &[usize], latest: bool) -> Vec<u8> {
    let mut command = json!({ "op": "sub", "id": 1, "topics": dialect.names(topics) });
    if latest {
        command["mode"] = "latest".into();
    }
    if let Some(rate) = dialect.settings.latest_rate {
        command["rate"] = rate.into();
    }
    command.to_string().into_bytes()
}

/// The command that ends the subscription to `topics`.
pub fn unsubscribe(dialect: &Dialect, topics: &[usize]) -> Vec<u8> {
    json!({ "op": "unsub", "topics": dialect.names(topics) }).to_string().into_bytes()
}

/// Judges what stands before and behind a stamp.
pub fn envelope(dialect: &Dialect, stamp: &Stamp, head: &[u8], tail: &[u8]) -> Envelope {
    let Some(name) = dialect.topics.get(stamp.topic as usize) else { return Envelope::Wrong };
    let head = match head.strip_suffix(dialect.form.head()) {
        Some(head) if tail == b"}" && head.ends_with(b"\"data\":") => head,
        _ => return Envelope::Wrong,
    };
    let (snapshot, rest) =
        match (head.strip_prefix(b"{\"type\":\"update\","), head.strip_prefix(b"{\"type\":\"snapshot\",")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Envelope::Wrong,
        };
    let named = rest.strip_prefix(b"\"topic\":\"").and_then(|rest| rest.strip_prefix(name.as_bytes()));
    match (named.is_some_and(|rest| rest.starts_with(b"\",")), snapshot) {
        (false, _) => Envelope::Wrong,
        (true, true) => Envelope::Snapshot,
        (true, false) => number_after(rest, b"\"seq\":").map_or(Envelope::Wrong, |seq| Envelope::Update(Some(seq))),
    }
}

fn number_after(text: &[u8], key: &[u8]) -> Option<u64> {
    let digits = &text[memmem::find(text, key)? + key.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// The fields of the messages that matter beside updates.
#[derive(Deserialize)]
struct Message {
    r#type: String,
    #[serde(default)]
    id: Value,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    topics: Vec<Named>,
    #[serde(default)]
    epoch: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    from: u64,
    #[serde(default)]
    to: u64,
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// One of several names.
#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    /// As it was subscribed to.
    Subscribed {
        topic: String,
        #[serde(default)]
        seq: u64,
    },
    /// Just named, as by a refusal.
    #[allow(dead_code, reason = "what is said of it is in the message")]
    Name(String),
}

impl Named {
    /// Where a topic is that has had publications.
    fn with_value(&self) -> Option<&str> {
        match self {
            Named::Subscribed { topic, seq: 1.. } => Some(topic),
            Named::Subscribed { .. } | Named::Name(_) => None,
        }
    }
}

/// What a message without a stamp of this run means.
pub fn hear(dialect: &Dialect, message: &[u8]) -> Heard {
    let Ok(message) = serde_json::from_slice::<Message>(message) else { return Heard::Unstamped };
    let index = |name: &str| dialect.topics.iter().position(|topic| topic == name);
    match message.r#type.as_str() {
        "ack" if message.id == 1 => {
            Heard::Subscribed(message.topics.iter().filter_map(Named::with_value).filter_map(index).collect())
        }
        "snapshot" => index(&message.topic).map_or(Heard::Nothing, Heard::Snapshot),
        "update" => index(&message.topic).map_or(Heard::Nothing, |_| Heard::Unstamped),
        // Somebody else's: ours are stamped, and fit. It stands in the place of an update, or of a snapshot, which says the epoch;
        // a topic's first says it in either place.
        "skip" if message.why == "too_large" => index(&message.topic).map_or(Heard::Nothing, |topic| {
            if message.epoch.is_empty() || message.from == 1 {
                Heard::TooLarge(topic, message.from)
            } else {
                Heard::Snapshot(topic)
            }
        }),
        "skip" => index(&message.topic).map_or(Heard::Nothing, |topic| Heard::Skipped(topic, message.from, message.to)),
        "error" => Heard::Complaint(format!("{}: {}", message.code, message.message)),
        "reset" => Heard::Complaint(format!("reset of {}", message.topic)),
        _ => Heard::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Protocol, Settings, tests::dialect},
        *,
    };

    fn around(head: &str, tail: &str) -> Envelope {
        let dialect = dialect(Protocol::Stentor, Settings::default());
        let stamp = Stamp { topic: 1, ..Stamp::default() };
        envelope(&dialect, &stamp, head.as_bytes(), tail.as_bytes())
    }

    #[test]
    fn a_refusal_that_names_topics_is_a_complaint() {
        let dialect = dialect(Protocol::Stentor, Settings::default());
        let refusal = br#"{"type":"error","id":1,"code":"forbidden","topics":["a"],"message":"a: no"}"#;
        assert_eq!(hear(&dialect, refusal), Heard::Complaint("forbidden: a: no".into()));
        let taken =
            br#"{"type":"ack","id":1,"topics":[{"topic":"a","epoch":"k","seq":0},{"topic":"b","epoch":"k","seq":3}]}"#;
        assert_eq!(hear(&dialect, taken), Heard::Subscribed([1].into_iter().collect()));
    }

    #[test]
    fn an_update_is_recognised_with_its_number() {
        let head = r#"{"type":"update","topic":"b","seq":9813,"ts":12,"data":{"x":""#;
        assert_eq!(around(head, "}"), Envelope::Update(Some(9813)));
        assert_eq!(around(&head.replace("update", "snapshot"), "}"), Envelope::Snapshot);
    }

    #[test]
    fn an_envelope_of_another_topic_or_shape_is_wrong() {
        let head = r#"{"type":"update","topic":"b","seq":9813,"ts":12,"data":{"x":""#;
        assert_eq!(around(&head.replace(r#""b""#, r#""a""#), "}"), Envelope::Wrong);
        assert_eq!(around(&head.replace(r#""b""#, r#""bb""#), "}"), Envelope::Wrong);
        assert_eq!(around(head, ""), Envelope::Wrong);
        assert_eq!(around(&head[1..], "}"), Envelope::Wrong);
        assert_eq!(around(&head.replace("seq", "sqe"), "}"), Envelope::Wrong);
    }

    #[test]
    fn acknowledgements_snapshots_skips_and_errors_are_heard() {
        let dialect = dialect(Protocol::Stentor, Settings::default());
        let hear = |text: &str| dialect.hear(text.as_bytes());
        let ack = r#"{"type":"ack","id":1,"topics":[{"topic":"a","seq":0},{"topic":"b","epoch":"k","seq":4}]}"#;
        assert_eq!(hear(ack), Heard::Subscribed(vec![1]));
        assert_eq!(hear(r#"{"type":"snapshot","topic":"b","seq":4,"data":1}"#), Heard::Snapshot(1));
        assert_eq!(hear(r#"{"type":"update","topic":"b","seq":4,"data":1}"#), Heard::Unstamped);
        assert_eq!(hear(r#"{"type":"update","topic":"other","seq":4,"data":1}"#), Heard::Nothing);
        assert_eq!(hear(r#"{"type":"skip","topic":"b","from":5,"to":9,"why":"slow"}"#), Heard::Skipped(1, 5, 9));
        let too_large = r#"{"type":"skip","topic":"b","from":5,"to":5,"why":"too_large"}"#;
        assert_eq!(hear(too_large), Heard::TooLarge(1, 5));
        let instead = too_large.replace("\"from\"", "\"epoch\":\"k\",\"from\"");
        assert_eq!(hear(&instead), Heard::Snapshot(1));
        assert_eq!(hear(&instead.replace('5', "1")), Heard::TooLarge(1, 1));
        let error = hear(r#"{"type":"error","code":"lagged","message":"fell behind"}"#);
        assert_eq!(error, Heard::Complaint("lagged: fell behind".into()));
        assert_eq!(hear(r#"{"type":"hello","version":1}"#), Heard::Nothing);
        assert_eq!(hear("no json"), Heard::Unstamped);
    }

    #[test]
    fn a_subscription_names_its_topics_and_mode() {
        let text = subscribe(&dialect(Protocol::Stentor, Settings::default()), &[0, 1], true);
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value, json!({"op":"sub","id":1,"topics":["a","b"],"mode":"latest"}));
    }
}
