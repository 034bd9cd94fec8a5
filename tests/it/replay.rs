//! The main job: a recorded feed, to many subscribers, every publication checked.

use std::{collections::HashMap, io::Write, path::Path};

use stentor::config::Speed;

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

#[test]
fn a_full_book_among_changes_is_replayed_by_default_and_what_is_left_out_is_counted() {
    let path = std::env::temp_dir().join(format!("stentor-replay-books-{}.ndjson", std::process::id()));
    let book = |len: usize| format!("\"{}\"", "x".repeat(len - 2));
    let datas = ["1".to_owned(), book(709_000), "2".to_owned(), book(1 << 20), "3".to_owned()];
    let lines = datas.iter().map(|data| format!("{{\"ts_ns\":1,\"topic\":\"book\",\"data\":{data}}}\n"));
    std::fs::write(&path, lines.collect::<String>() + "no publication\n").unwrap();
    let replay = path.clone();
    let server = serve(|config| {
        config.replay = Some(replay);
        config.replay_delay = "2s".parse().unwrap();
        config.speed = Speed::Max;
    });
    let mut client = Client::hello(&server, "/ws?topics=book");
    assert_eq!(client.json()["type"], "ack");
    assert_eq!(client.json()["data"], 1);
    let whole = client.text();
    assert!(whole.len() <= 1 << 20 && whole.contains(&datas[1]), "{} bytes", whole.len());
    assert_eq!([client.json()["data"].clone(), client.json()["data"].clone()], [2, 3]);
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let metrics = exchange(server.addresses()[0], request);
    for (why, lines) in [("too_large", 1), ("refused", 0)] {
        let line = format!("\nstentor_replay_skipped_lines_total{{why=\"{why}\"}} {lines}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
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
