//! Recordings and published lines: the replay of a file is the publications that serde reads from its lines, in order.
#![no_main]

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use stentor::{
    config::Speed,
    internals::{
        feeds::{
            Batch, Sink, Skipped,
            replay::{Options, Replay},
        },
        protocol::{Payload, Topic, envelope::Kind, ndjson},
    },
};

const MESSAGE_MAX: usize = 300;
const TOPIC_MAX: usize = 40;
const DEPTH_MAX: usize = 100;

#[derive(serde::Deserialize)]
struct Record {
    #[serde(rename = "ts_ns")]
    _ts_ns: u64,
    topic: String,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    text: Option<String>,
    #[serde(default, deserialize_with = "present")]
    base64: Option<String>,
    #[serde(default, deserialize_with = "present")]
    gap: Option<Box<RawValue>>,
}

#[derive(serde::Deserialize)]
struct Gap {
    #[serde(default, deserialize_with = "present")]
    from: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    to: Option<u64>,
}

#[derive(serde::Deserialize)]
struct Published {
    topic: String,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    text: Option<String>,
    #[serde(default, deserialize_with = "present")]
    base64: Option<String>,
}

/// A field that is there has a value, be it `null`.
fn present<'d, T: serde::Deserialize<'d>, D: serde::Deserializer<'d>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// A publication: what kind of payload, and its bytes.
type Value = (Kind, Vec<u8>);

/// The one that the fields say; none if that is no value, or they are not one.
fn value(data: Option<Box<RawValue>>, text: Option<String>, base64: Option<String>, gap: Option<Box<RawValue>>) -> Option<Value> {
    match (data, text, base64, gap) {
        (Some(data), None, None, None) => Some((Kind::Json, data.get().into())),
        (None, Some(text), None, None) => Some((Kind::Plain, text.into())),
        (None, None, Some(base64), None) => Some((Kind::Binary, STANDARD.decode(base64).ok()?)),
        // A list of the fields' values is a struct for serde.
        (None, None, None, Some(gap)) if gap.get().starts_with('{') => match serde_json::from_str(gap.get()).ok()? {
            Gap { from: None, to: None } => Some((Kind::TooLarge, Vec::new())),
            Gap { from: Some(from), to: Some(to) } if (1..=to).contains(&from) => Some((Kind::TooLarge, Vec::new())),
            _ => None,
        },
        _ => None,
    }
}

/// How files begin that are not plain: gzip, zstd, and what is refused: xz, bzip2, lz4, zip, compress.
const PACKED: [&[u8]; 7] =
    [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh", b"\x04\x22\x4d\x18", b"PK\x03\x04", b"\x1f\x9d"];

type Publications = Vec<(String, Value)>;

/// What the lines say, read by serde's derived code, which takes each field once, too.
fn expected(lines: &[u8]) -> Publications {
    let objects = lines.split(|byte| *byte == b'\n').map(bare).filter(|line| line.trim_ascii_start().starts_with(b"{"));
    let records = objects.filter_map(|line| serde_json::from_str::<Record>(std::str::from_utf8(line).ok()?).ok());
    records
        .filter(|record| Topic::check(&record.topic, TOPIC_MAX).is_ok())
        .filter_map(|record| Some((record.topic, value(record.data, record.text, record.base64, record.gap)?)))
        .collect()
}

/// A line without the zeros and the byte order mark that are no part of it.
fn bare(line: &[u8]) -> &[u8] {
    let begin = line.iter().take_while(|byte| **byte == 0).count();
    let end = line.len() - line[begin..].iter().rev().take_while(|byte| **byte == 0).count();
    let line = &line[begin..end];
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Publications>>);

impl Sink for Recorder {
    type Batch<'a> = Recorder;

    fn batch(&mut self) -> Recorder {
        self.clone()
    }

    fn holds(&self) -> bool {
        false
    }

    fn held(&self, _: std::time::Duration) {}

    fn skipped(&self, _: Skipped) {}
}

impl Batch for Recorder {
    fn push(&mut self, topic: &str, payload: Payload<'_>) -> Result<(), String> {
        self.0.lock().expect("one thread").push((topic.into(), (payload.kind(), payload.bytes().into())));
        Ok(())
    }
}

/// In memory, where there is such a place: a file is written for each input.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("stentor-fuzz-lines-{}", std::process::id()))
}

fn replay(bytes: &[u8]) -> Option<Publications> {
    let path = scratch();
    std::fs::write(&path, bytes).expect("a file can be written");
    let options = Options {
        speed: Speed::Max,
        repeat: false,
        delay: std::time::Duration::ZERO,
        gap_max: std::time::Duration::ZERO,
        // Beyond what any line here comes to, with what is around it and all escaped.
        message_max: 8 * MESSAGE_MAX,
        topic_length_max: TOPIC_MAX,
    };
    let opened = Replay::open(&path, options);
    std::fs::remove_file(&path).expect("it was there");
    let (_go_on, stop) = crossbeam_channel::bounded(1);
    let recorder = Recorder::default();
    let summary = opened.ok()?.run(recorder.clone(), &stop);
    let published = std::mem::take(&mut *recorder.0.lock().expect("one thread"));
    let left_out = summary.gaps + summary.too_large + summary.too_deep;
    assert!(summary.publications + left_out >= published.len() as u64 && summary.refused == 0);
    Some(published)
}

fuzz_target!(|bytes: &[u8]| {
    let replayed = replay(bytes);
    let is_packed = PACKED.iter().any(|begin| bytes.starts_with(begin));
    // Lines that may be too long or too deep are not for the twin to judge.
    let is_judged = |line: &[u8]| {
        line.len() <= MESSAGE_MAX && line.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() <= DEPTH_MAX
    };
    if !is_packed && bytes.split(|byte| *byte == b'\n').all(is_judged) {
        assert_eq!(replayed, Some(expected(bytes)));
    }
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(line) = ndjson::text(line) else { continue };
        let twin = serde_json::from_str::<Published>(line).ok();
        let twin = twin.and_then(|twin| Some((twin.topic, value(twin.data, twin.text, twin.base64, None)?)));
        match (ndjson::parse(line), twin) {
            (Ok((topic, found)), Some((name, twin))) => {
                assert!(*topic == *name && found.payload() == Payload::from_parts(twin.0, &twin.1));
            }
            (Err(_), None) => {}
            // A list of the fields' values is a struct for serde.
            (Err(_), Some(_)) => assert!(line.trim_ascii_start().starts_with('[')),
            (Ok(_), None) => panic!("serde does not take it: {line}"),
        }
    }
});
