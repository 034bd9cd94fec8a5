//! A publication as `/ws` subscribers see it, written without an allocation.
//!
//! ```text
//!  {"type":"update","topic":"q.us.AAPL","seq":9813,"ts":1700000000000000,"data":{"bid":189.21}}
//!  └─────────── prefix: once a topic ──────┘└────── once a publication: head ────┘└─ payload ─┘ }
//! ```
//!
//! The part that never changes is made when the topic is made; only a topic's first update has another, which says the epoch. An
//! [`Envelope`] knows its length to the byte, so that the caller can reserve exactly that much; [`Envelope::write`] fills it. What
//! takes time, escapes and base64, can be done before the number is known ([`push_value`]).
//!
//! A payload that is known JSON, or text of which nothing was said and that turns out to be JSON, goes in byte for byte, surrounding
//! white space included; other text becomes a JSON string; binary becomes `"base64":"…"` in the place of `data`. Whether text is JSON costs one
//! scan of it (a publication on `/ws` was scanned when its command was read, and isn't again).

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::de::IgnoredAny;

use super::json;
pub use crate::publication::{Kind, Payload};

impl<'a> Payload<'a> {
    /// The same payload, with the question settled whether text of which nothing was said is JSON: what comes back is not
    /// looked at again.
    pub fn settled(self) -> Self {
        match self {
            Payload::Text(text) if is_json(text) => Payload::Json(text.as_bytes()),
            Payload::Text(text) => Payload::Plain(text),
            other => other,
        }
    }
}

/// The beginning of the updates of one topic: `{"type":"update","topic":"NAME","seq":`.
pub fn update_prefix(topic: &str) -> Box<[u8]> {
    prefix(UPDATE, topic, None)
}

/// The beginning of the first of them: `{"type":"update","topic":"NAME","epoch":"EPOCH","seq":`. Whoever had subscribed before there was
/// the topic could not know its epoch.
pub fn first_update_prefix(topic: &str, epoch: &str) -> Box<[u8]> {
    prefix(UPDATE, topic, Some(epoch))
}

/// The beginning of a snapshot: `{"type":"snapshot","topic":"NAME","epoch":"EPOCH","seq":`.
pub fn snapshot_prefix(topic: &str, epoch: &str) -> Box<[u8]> {
    prefix(SNAPSHOT, topic, Some(epoch))
}

fn prefix(begin: &[u8], topic: &str, epoch: Option<&str>) -> Box<[u8]> {
    let mut prefix = begin.to_vec();
    push_string(&mut prefix, topic);
    if let Some(epoch) = epoch {
        prefix.extend_from_slice(EPOCH);
        push_string(&mut prefix, epoch);
    }
    prefix.extend_from_slice(SEQ);
    prefix.into()
}

/// Appends a JSON string.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes every byte");
}

/// Appends a payload that is [settled](Payload::settled) as JSON has it: text as a string, bytes in base64. JSON is what it
/// is: of it, nothing is appended.
pub fn push_value(out: &mut Vec<u8>, payload: Payload<'_>) {
    let form = Form::of_settled(payload);
    if let Form::Verbatim(_) = form {
        return;
    }
    let start = out.len();
    out.resize(start + form.len(), 0);
    form.put(&mut &mut out[start..]);
}

/// How many bytes a payload that is [settled](Payload::settled) has in a message.
pub fn value_len(payload: Payload<'_>) -> usize {
    Form::of_settled(payload).len()
}

/// The payload of this kind that stands in JSON as [`push_value`] has put it.
///
/// # Panics
/// If it wasn't put there so.
pub fn read_value(kind: Kind, value: &[u8]) -> Cow<'_, [u8]> {
    match kind {
        Kind::Json | Kind::TooLarge => value.into(),
        Kind::Text | Kind::Plain => {
            serde_json::from_slice::<String>(value).expect("it is a string").into_bytes().into()
        }
        Kind::Binary => STANDARD.decode(&value[1..value.len() - 1]).expect("it is base64").into(),
    }
}

/// One publication, ready to be written.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    prefix: &'a [u8],
    seq: u64,
    ts: u64,
    /// The member that the payload is: `data` or `base64`.
    key: &'static [u8],
    form: Form<'a>,
}

/// How a payload is put into JSON.
#[derive(Clone, Copy, Debug)]
enum Form<'a> {
    Verbatim(&'a [u8]),
    Quoted(&'a str),
    Base64(&'a [u8]),
}

impl<'a> Form<'a> {
    #[inline]
    fn of_settled(payload: Payload<'a>) -> Form<'a> {
        match payload {
            Payload::Json(bytes) => Form::Verbatim(bytes),
            Payload::Text(text) | Payload::Plain(text) => Form::Quoted(text),
            Payload::Binary(bytes) => Form::Base64(bytes),
            // It has no value: what is said of it is a `LeftOut`.
            Payload::TooLarge => Form::Verbatim(b""),
        }
    }

    #[inline]
    fn len(&self) -> usize {
        match self {
            Form::Verbatim(bytes) => bytes.len(),
            Form::Quoted(text) => 2 + text.bytes().map(escaped_len).sum::<usize>(),
            Form::Base64(bytes) => 2 + bytes.len().div_ceil(3) * 4,
        }
    }

    #[inline]
    fn put(&self, out: &mut &mut [u8]) {
        match self {
            Form::Verbatim(bytes) => put(out, bytes),
            Form::Quoted(text) => put_quoted(out, text),
            Form::Base64(bytes) => {
                put(out, b"\"");
                let rest = std::mem::take(out);
                let len = STANDARD.encode_slice(bytes, rest).expect("len() counted the digits");
                *out = &mut rest[len..];
                put(out, b"\"");
            }
        }
    }
}

impl<'a> Envelope<'a> {
    /// Decides the payload's form. `ts` is in microseconds since the Unix epoch.
    #[inline]
    pub fn new(prefix: &'a [u8], seq: u64, ts: u64, payload: Payload<'a>) -> Self {
        let form = Form::of_settled(payload.settled());
        let key = if matches!(form, Form::Base64(_)) { BASE64 } else { DATA };
        Envelope { prefix, seq, ts, key, form }
    }

    /// An envelope for a payload of this kind that is JSON already, or was made so by [`push_value`].
    #[inline]
    pub fn of_value(prefix: &'a [u8], seq: u64, ts: u64, kind: Kind, value: &'a [u8]) -> Self {
        let key = if kind == Kind::Binary { BASE64 } else { DATA };
        Envelope { prefix, seq, ts, key, form: Form::Verbatim(value) }
    }

    /// The value in a message that differs from this one, which has none, in its value only.
    pub fn value_in<'m>(&self, message: &'m [u8]) -> &'m [u8] {
        &message[self.len() - 1..message.len() - 1]
    }

    /// Exactly how many bytes [`Envelope::write`] writes.
    #[allow(clippy::len_without_is_empty, reason = "an envelope is never empty")]
    #[inline]
    pub fn len(&self) -> usize {
        let numbers = digits(self.seq) + TS.len() + digits(self.ts);
        self.prefix.len() + numbers + self.key.len() + self.form.len() + 1
    }

    /// Writes the message; `out` must be [`Envelope::len`] bytes long.
    ///
    /// # Panics
    /// If `out` is shorter.
    #[inline]
    pub fn write(&self, out: &mut [u8]) {
        debug_assert_eq!(out.len(), self.len(), "the caller reserves what len() said");
        let mut rest = out;
        let mut number = itoa::Buffer::new();
        put(&mut rest, self.prefix);
        put(&mut rest, number.format(self.seq).as_bytes());
        put(&mut rest, TS);
        put(&mut rest, number.format(self.ts).as_bytes());
        put(&mut rest, self.key);
        self.form.put(&mut rest);
        put(&mut rest, b"}");
    }

    /// Appends the message to a buffer.
    pub fn append(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.len(), 0);
        self.write(&mut out[start..]);
    }
}

/// What is said in the place of an update whose payload is [`Payload::TooLarge`]: the same beginning, but for the type.
///
/// ```text
///  {"type":"skip","topic":"q.us.AAPL","from":9813,"to":9813,"why":"too_large"}
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LeftOut<'a> {
    /// The topic's name, as a JSON string; with the epoch, if it is the topic's first.
    topic: &'a [u8],
    seq: u64,
}

impl<'a> LeftOut<'a> {
    /// In the place of an update that has this [prefix](update_prefix).
    pub fn new(prefix: &'a [u8], seq: u64) -> Self {
        LeftOut { topic: &prefix[UPDATE.len()..prefix.len() - SEQ.len()], seq }
    }

    /// Exactly how many bytes [`LeftOut::write`] writes.
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        SKIP.len() + self.topic.len() + FROM.len() + digits(self.seq) + TO.len() + digits(self.seq) + TOO_LARGE.len()
    }

    /// Writes the message; `out` must be [`LeftOut::len`] bytes long.
    ///
    /// # Panics
    /// If `out` is shorter.
    pub fn write(&self, out: &mut [u8]) {
        let (mut rest, mut number) = (out, itoa::Buffer::new());
        let seq = number.format(self.seq).as_bytes();
        for part in [SKIP, self.topic, FROM, seq, TO, seq, TOO_LARGE] {
            put(&mut rest, part);
        }
    }
}

const UPDATE: &[u8] = b"{\"type\":\"update\",\"topic\":";
const SNAPSHOT: &[u8] = b"{\"type\":\"snapshot\",\"topic\":";
const EPOCH: &[u8] = b",\"epoch\":";
const SEQ: &[u8] = b",\"seq\":";
const SKIP: &[u8] = b"{\"type\":\"skip\",\"topic\":";
const FROM: &[u8] = b",\"from\":";
const TO: &[u8] = b",\"to\":";
const TOO_LARGE: &[u8] = b",\"why\":\"too_large\"}";

/// What a message has around a payload and beside the topic's name, at most: that of a snapshot is the longest.
///
/// ```text
///  {"type":"snapshot","topic":"NAME","epoch":"13 digits","seq":16 digits,"ts":16 digits,"base64":…}
/// ```
pub const AROUND_MAX: usize = 128;

const TS: &[u8] = b",\"ts\":";
const DATA: &[u8] = b",\"data\":";
const BASE64: &[u8] = b",\"base64\":";

fn is_json(text: &str) -> bool {
    json::is_plain(text) || !json::is_too_deep(text) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Copies `bytes` to the front of `out` and moves `out` behind them.
fn put(out: &mut &mut [u8], bytes: &[u8]) {
    let (front, rest) = std::mem::take(out).split_at_mut(bytes.len());
    front.copy_from_slice(bytes);
    *out = rest;
}

/// Puts `text` as a JSON string: runs that need no escape are copied whole.
fn put_quoted(out: &mut &mut [u8], text: &str) {
    put(out, b"\"");
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if escaped_len(byte) == 1 {
            continue;
        }
        put(out, &bytes[done..at]);
        put_escape(out, byte);
        done = at + 1;
    }
    put(out, &bytes[done..]);
    put(out, b"\"");
}

/// RFC 8259, section 7: the quote, the backslash and what is below a space.
fn put_escape(out: &mut &mut [u8], byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match short_escape(byte) {
        Some(letter) => put(out, &[b'\\', letter]),
        None => put(out, &[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
    }
}

fn escaped_len(byte: u8) -> usize {
    match byte {
        _ if short_escape(byte).is_some() => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

fn short_escape(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\\' => Some(byte),
        b'\n' => Some(b'n'),
        b'\r' => Some(b'r'),
        b'\t' => Some(b't'),
        0x08 => Some(b'b'),
        0x0c => Some(b'f'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn written(prefix: &[u8], seq: u64, ts: u64, payload: Payload<'_>) -> String {
        let envelope = Envelope::new(prefix, seq, ts, payload);
        let mut out = vec![0; envelope.len()];
        envelope.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_goes_in_byte_for_byte() {
        let expected = r#"{"type":"update","topic":"q.us","seq":9813,"ts":17,"data": {"bid":189.210} }"#;
        let prefix = update_prefix("q.us");
        assert_eq!(written(&prefix, 9813, 17, Payload::Json(br#" {"bid":189.210} "#)), expected);
        assert_eq!(written(&prefix, 9813, 17, Payload::Text(r#" {"bid":189.210} "#)), expected);
    }

    #[test]
    fn other_text_becomes_a_string_and_binary_becomes_base64() {
        let prefix = update_prefix("a");
        let start = r#"{"type":"update","topic":"a","seq":0,"ts":0,"#;
        assert_eq!(
            written(&prefix, 0, 0, Payload::Text("{a}\"\n\u{1}é")),
            format!(r#"{start}"data":"{{a}}\"\n\u0001é"}}"#)
        );
        assert_eq!(written(&prefix, 0, 0, Payload::Text("")), format!(r#"{start}"data":""}}"#));
        assert_eq!(written(&prefix, 0, 0, Payload::Text("1 2")), format!(r#"{start}"data":"1 2"}}"#));
        for (text, quoted) in [("7", r#""7""#), (r#""asd""#, r#""\"asd\"""#), ("null", r#""null""#), ("{}", r#""{}""#)]
        {
            assert_eq!(written(&prefix, 0, 0, Payload::Plain(text)), format!(r#"{start}"data":{quoted}}}"#));
            assert_eq!(written(&prefix, 0, 0, Payload::Text(text)), format!(r#"{start}"data":{text}}}"#));
        }
        assert_eq!(written(&prefix, 0, 0, Payload::Binary(b"\xff\x00")), format!(r#"{start}"base64":"/wA="}}"#));
    }

    #[test]
    fn a_snapshot_has_an_epoch() {
        let text = written(&snapshot_prefix("a", "k3"), 5, 6, Payload::Json(b"1"));
        assert_eq!(text, r#"{"type":"snapshot","topic":"a","epoch":"k3","seq":5,"ts":6,"data":1}"#);
    }

    #[test]
    fn a_first_update_has_an_epoch() {
        let text = written(&first_update_prefix("a", "k3"), 1, 6, Payload::Json(b"1"));
        assert_eq!(text, r#"{"type":"update","topic":"a","epoch":"k3","seq":1,"ts":6,"data":1}"#);
    }

    #[test]
    fn what_was_left_out_is_told_by_its_number() {
        let told = |prefix: &[u8], seq| {
            let left_out = LeftOut::new(prefix, seq);
            let mut out = vec![0; left_out.len()];
            left_out.write(&mut out);
            String::from_utf8(out).unwrap()
        };
        for seq in [2, 9813, u64::MAX] {
            let expected = format!(r#"{{"type":"skip","topic":"q.us","from":{seq},"to":{seq},"why":"too_large"}}"#);
            assert_eq!(told(&update_prefix("q.us"), seq), expected);
        }
        let first = r#"{"type":"skip","topic":"q.us","epoch":"k3","from":1,"to":1,"why":"too_large"}"#;
        assert_eq!(told(&first_update_prefix("q.us", "k3"), 1), first);
    }

    #[test]
    fn no_message_has_more_around_a_payload_than_is_said() {
        let prefix = snapshot_prefix("", &crate::publication::Epoch(u64::MAX).to_string());
        let longest = written(&prefix, u64::MAX, u64::MAX, Payload::Binary(b""));
        assert!((AROUND_MAX - 16..=AROUND_MAX).contains(&longest.len()), "{}", longest.len());
    }

    #[test]
    fn the_largest_numbers_fit() {
        let text = written(&update_prefix("a"), u64::MAX, u64::MAX, Payload::Json(b"{}"));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["seq"], u64::MAX);
    }

    proptest! {
        #[test]
        fn escaping_agrees_with_serde(text in "[\\x00-\\x22\\\\a\\x7fé\u{10ffff}]{0,40}") {
            let mut out = vec![0; 2 + text.bytes().map(escaped_len).sum::<usize>()];
            put_quoted(&mut &mut out[..], &text);
            prop_assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn any_text_comes_out_as_its_json_or_as_itself(text in "\\PC{0,20}|[0-9]{1,3}|\\{\"a\":[0-9]\\}", seq: u64, ts: u64) {
            let prefix = update_prefix("t.x");
            let parsed: Value = serde_json::from_str(&written(&prefix, seq, ts, Payload::Text(&text))).unwrap();
            let data = serde_json::from_str(&text).unwrap_or(Value::String(text));
            prop_assert_eq!(parsed, serde_json::json!({"type":"update","topic":"t.x","seq":seq,"ts":ts,"data":data}));
        }

        #[test]
        fn any_bytes_come_back_from_base64(bytes: Vec<u8>) {
            let text = written(&update_prefix("t.x"), 1, 2, Payload::Binary(&bytes));
            let parsed: Value = serde_json::from_str(&text).unwrap();
            prop_assert!(parsed.get("data").is_none());
            prop_assert_eq!(STANDARD.decode(parsed["base64"].as_str().unwrap()).unwrap(), bytes);
        }
    }
}
