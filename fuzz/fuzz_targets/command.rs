//! Commands: what is taken says what serde_json reads from the same text, and its data makes an update that says it again;
//! what is refused breaks one of the rules, which stand here a second time, in the plainest words.
#![no_main]

use std::fmt;

use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, value::RawValue};
use stentor::internals::protocol::{
    Command, Envelope, Mode, Op, Payload, Sub, command::Limits, cursor::Cursor, event::push_event, name::check_pattern, update_prefix,
};

const LIMITS: Limits = Limits { topic_length_max: 64, topics_max: 8 };

fn compare(command: &Command<'_>, frame: &str, value: &Value) {
    if let Some(id) = command.id {
        assert!(frame.contains(id.json()));
        assert_eq!(serde_json::from_str::<Value>(id.json()).expect("it was read"), value["id"]);
    }
    let op = match &command.op {
        Op::Sub(sub) => {
            compare_names(&sub.topics, value);
            let mode = value.get("mode").map_or("all", |mode| mode.as_str().expect("it was taken"));
            assert_eq!(sub.mode.as_str(), mode);
            assert_eq!(sub.rate, value.get("rate").map(|rate| rate.as_f64().expect("it was taken")));
            assert!(sub.rate.is_none_or(|rate| sub.mode == Mode::Latest && rate.is_finite() && rate > 0.0));
            assert_eq!(Some(sub.snapshot), value.get("snapshot").map_or(Some(true), Value::as_bool));
            let cursor = value.get("from").and_then(Value::as_str);
            assert_eq!(sub.cursor, cursor.map(Cursor::parse));
            let points = value.get("from").filter(|_| cursor.is_none());
            assert_eq!(sub.from.len(), points.map_or(0, |from| from.as_object().expect("taken").len()));
            for (topic, point) in &sub.from {
                assert!(sub.topics.contains(topic) && point.seq < 1 << 53);
                assert_eq!(value["from"][&**topic], serde_json::json!([point.epoch, point.seq]));
            }
            "sub"
        }
        Op::Unsub { topics } => {
            compare_names(topics, value);
            "unsub"
        }
        Op::List => "list",
        Op::Pub { topic, data } => {
            assert_eq!(value["topic"], **topic);
            assert_eq!(serde_json::from_str::<Value>(data.get()).expect("it was read"), value["data"]);
            let prefix = update_prefix(topic);
            let envelope = Envelope::new(&prefix, 7, 8, Payload::Json(data.get().as_bytes()));
            let mut update = vec![0; envelope.len()];
            envelope.write(&mut update);
            let update = String::from_utf8(update).expect("an update is text");
            assert_eq!(
                update,
                format!(r#"{{"type":"update","topic":"{topic}","seq":7,"ts":8,"data":{}}}"#, data.get())
            );
            let mut event = Vec::new();
            push_event(&mut event, |out| out.extend_from_slice(update.as_bytes()));
            let joined = read_event(std::str::from_utf8(&event).expect("an event is text"));
            assert_eq!(joined, update.replace("\r\n", "\n").replace('\r', "\n"));
            "pub"
        }
        Op::Auth { token } => {
            assert_eq!(value["token"], **token);
            "auth"
        }
        Op::Ping => "ping",
    };
    assert_eq!(value["op"], op);
}

/// What a browser makes of one event without an id (HTML Standard, section 9.2.6): its data.
fn read_event(event: &str) -> String {
    let mut data = String::new();
    for line in event.replace("\r\n", "\n").split(['\r', '\n']) {
        match line.split_once(": ") {
            Some(("data", value)) => data.extend([value, "\n"]),
            _ => assert!(line.is_empty(), "{line}"),
        }
    }
    data.pop();
    data
}

fn compare_names(topics: &[std::borrow::Cow<'_, str>], value: &Value) {
    assert!(!topics.is_empty() && topics.len() <= LIMITS.topics_max);
    let mut expected: Vec<&str> = Vec::new();
    for name in value["topics"].as_array().expect("it was taken") {
        let name = name.as_str().expect("it was taken");
        assert!(check_pattern(name, LIMITS.topic_length_max).is_ok());
        if !expected.contains(&name) {
            expected.push(name);
        }
    }
    assert!(topics.iter().eq(expected));
}

/// An object with its fields as they stand, twice where they stand twice.
struct Fields(Vec<(String, Box<RawValue>)>);

impl<'a> Deserialize<'a> for Fields {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'a> Visitor<'a> for Read {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

impl Fields {
    /// The first field of this name.
    fn get(&self, name: &str) -> Option<Value> {
        let (_, value) = self.0.iter().find(|(field, _)| field == name)?;
        Some(serde_json::from_str(value.get()).expect("it was read as a whole"))
    }

    fn is_once(&self, name: &str) -> bool {
        self.0.iter().filter(|(field, _)| field == name).count() <= 1
    }
}

const KNOWN: [&str; 10] = ["op", "topic", "data", "id", "topics", "mode", "rate", "snapshot", "from", "token"];

fn is_name(name: &str, wildcards: bool) -> bool {
    let segments: Vec<&str> = name.split('.').collect();
    let is_segment = |(at, segment): (usize, &&str)| match *segment {
        "*" => wildcards,
        ">" => wildcards && at + 1 == segments.len(),
        _ => {
            !segment.is_empty()
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:@+=~-".contains(&byte))
        }
    };
    name.len() <= LIMITS.topic_length_max && segments.iter().enumerate().all(is_segment)
}

fn stands_for(pattern: &str, topic: &str) -> bool {
    match (pattern.split_once('.'), topic.split_once('.')) {
        _ if pattern == ">" => true,
        (Some((first, rest)), Some((segment, topic))) => (first == "*" || first == segment) && stands_for(rest, topic),
        (None, None) => pattern == "*" || pattern == topic,
        _ => false,
    }
}

/// The codes of all that is wrong with a command that is JSON; none if it is to be taken.
fn faults(text: &str) -> Vec<&'static str> {
    let Ok(fields) = serde_json::from_str::<Fields>(text) else { return vec!["bad_command"] };
    let mut faults = Vec::new();
    let mut need = |is: bool, code| {
        if !is {
            faults.push(code);
        }
    };
    need(KNOWN.iter().all(|name| fields.is_once(name)), "bad_command");
    need(fields.get("id").is_none_or(|id| id.is_string() || id.is_number()), "bad_command");
    let op = fields.get("op");
    let op = op.as_ref().and_then(Value::as_str);
    let topics = fields.get("topics").unwrap_or_default();
    let topics = topics.as_array().filter(|topics| topics.iter().all(Value::is_string));
    let mut topics: Vec<&str> = topics.into_iter().flatten().filter_map(Value::as_str).collect();
    topics.sort_unstable();
    topics.dedup();
    if matches!(op, Some("sub" | "unsub")) {
        // Missing, empty, no list, or not of strings.
        need(!topics.is_empty(), "bad_command");
        need(topics.iter().all(|name| is_name(name, true)), "bad_topic");
        need(topics.len() <= LIMITS.topics_max, "too_many");
    }
    match op {
        Some("sub") => {
            let mode = fields.get("mode").unwrap_or_else(|| "all".into());
            need(mode == "all" || mode == "latest", "bad_command");
            let rate = fields.get("rate").map(|rate| rate.as_f64().unwrap_or(-1.0));
            need(rate.is_none_or(|rate| rate > 0.0 && mode != "all"), "bad_command");
            need(fields.get("snapshot").is_none_or(|snapshot| snapshot.is_boolean()), "bad_command");
            let from = fields.0.iter().find(|(name, _)| name == "from");
            match from.map(|(_, from)| serde_json::from_str::<Fields>(from.get())) {
                None => {}
                Some(Err(_)) => need(false, "bad_command"),
                Some(Ok(from)) => {
                    for (topic, _) in &from.0 {
                        let is_asked_for = topics.iter().any(|pattern| stands_for(pattern, topic));
                        need(is_name(topic, false) && is_asked_for, "bad_topic");
                        let point = from.get(topic).unwrap_or_default();
                        let is_point = point.as_array().is_some_and(|point| {
                            point.len() == 2
                                && point[0].is_string()
                                && point[1].as_u64().is_some_and(|seq| seq < 1 << 53)
                        });
                        need(is_point && from.is_once(topic), "bad_command");
                    }
                }
            }
        }
        Some("pub") => {
            let topic = fields.get("topic");
            let topic = topic.as_ref().and_then(Value::as_str);
            need(topic.is_some() && fields.get("data").is_some(), "bad_command");
            need(topic.is_none_or(|topic| is_name(topic, false)), "bad_topic");
        }
        Some("auth") => need(fields.get("token").is_some_and(|token| token.is_string()), "bad_command"),
        Some("unsub" | "list" | "ping") => {}
        Some(_) => need(false, "unknown_op"),
        None => need(false, "bad_command"),
    }
    faults
}

fuzz_target!(|frame: &str| {
    let value: Result<Value, _> = serde_json::from_str(frame);
    match (Command::parse(frame, &LIMITS), value) {
        (Ok(command), Ok(value)) => {
            assert_eq!(faults(frame), [""; 0], "taken, and shouldn't be");
            compare(&command, frame, &value);
        }
        // What serde_json's tree can't hold and text can: deep nesting, numbers beyond a double, half a surrogate pair.
        (Ok(_), Err(error)) => {
            let text = error.to_string();
            let reasons = ["recursion limit", "number out of range", "surrogate", "hex escape"];
            assert!(reasons.iter().any(|reason| text.contains(reason)), "{text}");
        }
        (Err(refused), value) => {
            assert!(refused.message.len() < 1000, "a refusal doesn't grow with what was sent");
            if value.is_ok() {
                let faults = faults(frame);
                assert!(faults.contains(&refused.code.as_str()), "{refused}: {faults:?}");
            }
        }
    }
    let (topics, mode) = frame.split_once('&').map_or((frame, None), |(topics, mode)| (topics, Some(mode)));
    let mut names: Vec<&str> = topics.split(',').collect();
    names.sort_unstable();
    names.dedup();
    let is_right = names.len() <= LIMITS.topics_max
        && names.iter().all(|name| is_name(name, true))
        && matches!(mode, None | Some("all" | "latest"));
    match Sub::from_query(topics, mode, None, &LIMITS) {
        Ok(sub) => assert!(is_right && sub.topics.iter().all(|name| names.contains(&&**name))),
        Err(refused) => assert!(!is_right, "{refused}"),
    }
});
