//! The main job: a recorded feed, to many subscribers, every publication checked.

use std::{collections::HashMap, io::Write, path::Path};

use stentor::{Payload, config::Speed};
use tungstenite::Message;

use crate::{
    client::{Client, exchange, serve},
    skip::skip,
};

/// Publications by topic, in order, as they stand in the file.
fn expected(path: &Path) -> HashMap<String, Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        topic: String,
        #[serde(borrow)]
        data: &'a serde_json::value::RawValue,
    }
    let mut topics: HashMap<String, Vec<String>> = HashMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let line: Line = serde_json::from_str(line).unwrap();
        topics.entry(line.topic).or_default().push(line.data.get().to_owned());
    }
    topics
}

fn replayed(path: &Path) {
    let path_owned = path.to_owned();
    let server = serve(|config| {
        config.replay = Some(path_owned);
        config.replay_delay = "3s".parse().unwrap();
        config.speed = Speed::Max;
    });
    let expected = expected(path);
    let count: usize = expected.values().map(Vec::len).sum();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::hello(&server, "/ws?topics=%3E")).collect();
    for client in &mut clients {
        assert_eq!(client.json()["type"], "ack");
    }
    for client in &mut clients {
        let mut got: HashMap<String, Vec<String>> = HashMap::new();
        for _ in 0..count {
            let text = client.text();
            let topic = serde_json::from_str::<serde_json::Value>(&text).unwrap()["topic"].as_str().unwrap().to_owned();
            let data = &text[text.find(",\"data\":").unwrap() + 8..text.len() - 1];
            got.entry(topic).or_default().push(data.to_owned());
        }
        assert!(got == expected, "what was received is not what was recorded");
    }
}

#[test]
fn every_subscriber_gets_every_publication_byte_for_byte() {
    let path = std::env::temp_dir().join(format!("stentor-replay-{}.ndjson", std::process::id()));
    let mut file = std::fs::File::create(&path).unwrap();
    for n in 0..5000 {
        writeln!(file, r#"{{"ts_ns":{},"topic":"q.x.{}","data":{{ "n": {n}.50, "s":"é" }}}}"#, n * 1000, n % 7)
            .unwrap();
    }
    drop(file);
    replayed(&path);
    std::fs::remove_file(path).unwrap();
}

/// A recording of a topic with these data.
fn recorded(name: &str, datas: &[&str]) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("stentor-replay-{name}-{}.ndjson", std::process::id()));
    let line = |data: &&str| format!("{{\"data\":{data},\"topic\":\"book\",\"ts_ns\":1}}\n");
    std::fs::write(&path, datas.iter().map(line).collect::<String>()).unwrap();
    path
}

fn book(len: usize) -> String {
    format!("\"{}\"", "x".repeat(len - 2))
}

#[test]
fn a_full_book_among_changes_is_replayed_and_what_is_too_large_is_told_to_everybody() {
    let (full, larger) = (book(709_000), book(1 << 20));
    let path = recorded("books", &["1", &full, "2", &larger, "3", &larger]);
    let replay = path.clone();
    let server = serve(|config| {
        config.replay = Some(replay);
        config.replay_delay = "3s".parse().unwrap();
        config.speed = Speed::Max;
    });
    let mut all = Client::hello(&server, "/ws?topics=book");
    let mut raw = Client::connect(&server, "/raw/book");
    assert_eq!(all.json()["type"], "ack");
    assert_eq!(all.json()["data"], 1);
    let whole = all.text();
    assert!(whole.len() <= 1 << 20 && whole.contains(&full), "{} bytes", whole.len());
    let skip = |seq: u64| serde_json::json!({ "type": "skip","topic":"book","from":seq,"to":seq,"why":"too_large"});
    assert_eq!((all.json()["data"].clone(), all.json()), (2.into(), skip(4)));
    let last = all.json();
    assert_eq!((&last["data"], &last["seq"], all.json()), (&3.into(), &5.into(), skip(6)));
    assert_eq!([raw.text().len(), raw.text().len(), raw.text().len(), raw.text().len()], [1, full.len(), 1, 1]);
    // On /raw nothing came for it.
    server.publisher().publish("book", Payload::Json(b"7")).unwrap();
    assert_eq!(raw.text(), "7");
    assert_eq!(all.json()["seq"], 7);
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let metrics = exchange(server.addresses()[0], request);
    for (why, lines) in [("bad", 0), ("too_large", 2), ("too_deep", 0), ("refused", 0)] {
        let line = format!("\nstentor_replay_skipped_lines_total{{why=\"{why}\"}} {lines}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_is_nested_too_deeply_is_told_to_everybody_and_counted() {
    let deep = format!("{}{}", "[".repeat(121), "]".repeat(121));
    let path = recorded("deep", &["1", &deep, "2"]);
    let replay = path.clone();
    let server = serve(|config| {
        config.replay = Some(replay);
        config.replay_delay = "2s".parse().unwrap();
    });
    let mut all = Client::hello(&server, "/ws?topics=book");
    assert_eq!(all.json()["type"], "ack");
    let skip = serde_json::json!({ "type": "skip","topic":"book","from":2,"to":2,"why":"too_large"});
    assert_eq!((all.json()["data"].clone(), all.json()), (1.into(), skip));
    let last = all.json();
    assert_eq!((&last["data"], &last["seq"]), (&2.into(), &3.into()));
    let metrics =
        exchange(server.addresses()[0], b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(metrics.contains("\nstentor_replay_skipped_lines_total{why=\"too_deep\"} 1\n"), "{metrics}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn text_bytes_and_gaps_of_a_recording_arrive_as_what_they_were() {
    let path = std::env::temp_dir().join(format!("stentor-replay-kinds-{}.ndjson", std::process::id()));
    let lines = [
        r#"{"ts_ns":1,"topic":"a","epoch":"k3","seq":7,"data":"7"}"#,
        r#"{"ts_ns":1,"topic":"a","epoch":"k3","seq":8,"text":"7"}"#,
        r#"{"ts_ns":1,"topic":"a","gap":{"from":9,"to":20}}"#,
        r#"{"ts_ns":1,"topic":"a","base64":"/wA="}"#,
        r#"{"ts_ns":1,"topic":"a","text":"{\"n\":1}"}"#,
    ];
    std::fs::write(&path, lines.join("\n")).unwrap();
    let replay = path.clone();
    let server = serve(|config| {
        config.replay = Some(replay);
        config.replay_delay = "3s".parse().unwrap();
    });
    let mut all = Client::hello(&server, "/ws?topics=a");
    let mut raw = Client::connect(&server, "/raw/a");
    assert_eq!(all.json()["type"], "ack");
    let told = [(); 5].map(|()| all.json());
    assert_eq!(
        told.each_ref().map(|told| told["data"].as_str()),
        [Some("7"), Some("7"), None, None, Some("{\"n\":1}")]
    );
    assert_eq!(told[2], serde_json::json!({ "type": "skip","topic":"a","from":3,"to":3,"why":"too_large"}));
    assert_eq!((&told[3]["base64"], &told[4]["seq"]), (&"/wA=".into(), &5.into()));
    // Where there is nothing around it, a text is that text, and a JSON string has its quotes.
    assert_eq!([raw.text(), raw.text()], ["\"7\"", "7"]);
    assert_eq!(raw.message(), Message::binary(&b"\xff\0"[..]));
    assert_eq!(raw.text(), "{\"n\":1}");
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let metrics = exchange(server.addresses()[0], request);
    assert!(metrics.contains("\nstentor_replay_skipped_lines_total{why=\"gap\"} 1\n"), "{metrics}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_recording_of_real_sessions_arrives_unchanged() {
    let path = Path::new("../shared/data/cryptofeed_excerpt.ndjson");
    if !path.exists() {
        return skip("recording", &format!("a recording of real sessions: {} is not here", path.display()));
    }
    replayed(path);
}
