//! Commands: what is taken says what serde_json reads from the same text, and its data makes an update that says it again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use stentor::protocol::{
    Command, Envelope, Mode, Op, Payload, Sub, command::Limits, event::push_event, name::check_pattern, update_prefix,
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
            assert_eq!(sub.from.len(), value.get("from").map_or(0, |from| from.as_object().expect("taken").len()));
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
            push_event(&mut event, Some((&"k3", 7)), update.as_bytes());
            let (id, joined) = read_event(std::str::from_utf8(&event).expect("an event is text"));
            assert_eq!(id, "k3:7");
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

/// What a browser makes of one event (HTML Standard, section 9.2.6): its id and its data.
fn read_event(event: &str) -> (String, String) {
    let (mut id, mut data) = (String::new(), String::new());
    for line in event.replace("\r\n", "\n").split(['\r', '\n']) {
        match line.split_once(": ") {
            Some(("id", value)) => id = value.into(),
            Some(("data", value)) => data.extend([value, "\n"]),
            _ => assert!(line.is_empty(), "{line}"),
        }
    }
    data.pop();
    (id, data)
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

fuzz_target!(|frame: &str| {
    let value: Result<Value, _> = serde_json::from_str(frame);
    match (Command::parse(frame, &LIMITS), value) {
        (Ok(command), Ok(value)) => compare(&command, frame, &value),
        // What serde_json's tree can't hold and text can: deep nesting, numbers beyond a double, half a surrogate pair.
        (Ok(_), Err(error)) => {
            let text = error.to_string();
            let reasons = ["recursion limit", "number out of range", "surrogate", "hex escape"];
            assert!(reasons.iter().any(|reason| text.contains(reason)), "{text}");
        }
        (Err(refused), value) => {
            assert!(refused.message.len() < 1000, "a refusal doesn't grow with what was sent");
            assert_eq!(refused.code == "bad_json", value.is_err() && refused.code == "bad_json");
        }
    }
    let (topics, mode) = frame.split_once('&').map_or((frame, None), |(topics, mode)| (topics, Some(mode)));
    if let Ok(sub) = Sub::from_query(topics, mode, None, &LIMITS) {
        assert!(sub.topics.iter().all(|name| topics.split(',').any(|given| given == name)));
    }
});
