//! One line of `POST /publish`, and what a line of a recording has in common with it.
//!
//! ```text
//!   {"topic":…,"data":…}        one JSON value, byte for byte
//!   {"topic":…,"text":"…"}      text, whatever it looks like
//!   {"topic":…,"base64":"…"}    bytes
//! ```
//!
//! Read in one pass, borrowed where it can be. Other fields are passed over. Whether the topic's name is well formed is for whoever publishes it.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    json::Json,
    object::{Fields, ObjectError, kind, shown, string},
};
use crate::publication::Payload;

/// What is wrong with a line; one plain sentence, to be put behind the line's number.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct LineError(pub(crate) String);

/// What a line publishes.
#[derive(Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Of `data`.
    Json(Json<'a>),
    /// Of `text`.
    Text(Cow<'a, str>),
    /// Of `base64`.
    Binary(Vec<u8>),
}

impl Value<'_> {
    /// The payload that it is.
    pub fn payload(&self) -> Payload<'_> {
        match self {
            Value::Json(json) => Payload::Json(json.get().as_bytes()),
            Value::Text(text) => Payload::Plain(text),
            Value::Binary(bytes) => Payload::Binary(bytes),
        }
    }
}

/// Reads one line, with or without its line break.
///
/// # Errors
/// Not a JSON object; one without `topic`, or without one of `data`, `text` and `base64`, or with two of these, or with one of all twice;
/// or one of them is not what it should be.
pub fn parse(line: &str) -> Result<(Cow<'_, str>, Value<'_>), LineError> {
    let mut fields = Fields::new(&["topic", "data", "text", "base64"]);
    fields.read(line)?;
    let topic = topic(fields.get(0))?;
    let (name, value) = one_of(fields.from(1))?;
    Ok((topic, self::value(name, value)?))
}

/// A line's bytes as text.
///
/// # Errors
/// They are not UTF-8.
pub fn text(line: &[u8]) -> Result<&str, LineError> {
    simdutf8::compat::from_utf8(line)
        .map_err(|error| LineError(format!("expected UTF-8, found something else at byte {}", error.valid_up_to())))
}

/// The value of a line's `topic`.
pub(crate) fn topic(value: Option<Json<'_>>) -> Result<Cow<'_, str>, LineError> {
    let value = value.ok_or_else(|| LineError(r#"expected a field "topic", found none"#.into()))?;
    string(value).ok_or_else(|| LineError(format!(r#"expected "topic" to be a string, found {}"#, kind(value.get()))))
}

/// The one field that is there, of several of which a line has one.
pub(crate) fn one_of<'a>(
    fields: impl Iterator<Item = (&'static str, Option<Json<'a>>)>,
) -> Result<(&'static str, Json<'a>), LineError> {
    let mut found = fields.filter_map(|(name, value)| Some((name, value?)));
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (Some((one, _)), Some((other, _))) => {
            Err(LineError(format!("expected one of {one:?} and {other:?}, found both")))
        }
        (None, _) => Err(LineError(r#"expected a field "data", found none"#.into())),
    }
}

/// What the value of `data`, `text` or `base64` publishes.
pub(crate) fn value<'a>(name: &str, value: Json<'a>) -> Result<Value<'a>, LineError> {
    if name == "data" {
        return Ok(Value::Json(value));
    }
    let Some(text) = string(value) else {
        let found = match kind(value.get()) {
            "a string" => "one that escapes half of a surrogate pair",
            other => other,
        };
        return Err(LineError(format!("expected {name:?} to be a string, found {found}")));
    };
    if name == "text" {
        return Ok(Value::Text(text));
    }
    STANDARD.decode(text.as_bytes()).map(Value::Binary).map_err(|error| {
        LineError(format!("expected {name:?} to be base64 with its padding, found {}: {error}", shown(&text)))
    })
}

impl From<ObjectError> for LineError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Json(error) => {
                LineError(format!("expected a JSON object, found text that isn't JSON: {error}"))
            }
            other => LineError(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_its_topic_and_the_bytes_of_its_data() {
        let (topic, value) = parse("{\"data\":[1.50, 2],\"at\":7,\"topic\":\"a.b\"}\r\n").unwrap();
        assert!(matches!(topic, Cow::Borrowed("a.b")));
        assert_eq!(value.payload(), Payload::Json(b"[1.50, 2]"));
    }

    #[test]
    fn text_is_text_whatever_it_looks_like_and_bytes_are_bytes() {
        for (line, payload) in [
            (r#"{"topic":"a","text":"7"}"#, Payload::Plain("7")),
            (r#"{"topic":"a","text":"\u00e9\n\"x\""}"#, Payload::Plain("é\n\"x\"")),
            (r#"{"topic":"a","text":""}"#, Payload::Plain("")),
            (r#"{"topic":"a","base64":"/wA="}"#, Payload::Binary(b"\xff\0")),
            (r#"{"base64":"","topic":"a"}"#, Payload::Binary(b"")),
        ] {
            let (_, value) = parse(line).unwrap();
            assert!(value.payload() == payload, "{line}: {value:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_told_where() {
        assert_eq!(text("é".as_bytes()), Ok("é"));
        assert_eq!(text(b"ab\xff").unwrap_err().to_string(), "expected UTF-8, found something else at byte 2");
    }

    #[test]
    fn a_bad_line_says_what_was_expected_and_what_was_found() {
        for (line, text) in [
            ("", "expected a JSON object, found text that isn't JSON"),
            ("{\"topic\":\"a\"", "expected a JSON object, found text that isn't JSON"),
            ("[]", "expected a JSON object, found a list"),
            ("{\"data\":1}", "expected a field \"topic\", found none"),
            ("{\"topic\":\"a\"}", "expected a field \"data\", found none"),
            ("{\"topic\":1,\"data\":1}", "expected \"topic\" to be a string, found a number"),
            ("{\"topic\":\"a\",\"topic\":\"b\",\"data\":1}", "expected the field \"topic\" once, found it twice"),
            (r#"{"topic":"a","data":1,"text":"1"}"#, r#"expected one of "data" and "text", found both"#),
            (r#"{"base64":"","topic":"a","text":""}"#, r#"expected one of "text" and "base64", found both"#),
            (r#"{"topic":"a","text":1}"#, r#"expected "text" to be a string, found a number"#),
            (
                r#"{"topic":"a","text":"\ud800"}"#,
                r#"expected "text" to be a string, found one that escapes half of a surrogate pair"#,
            ),
            (r#"{"topic":"a","base64":[]}"#, r#"expected "base64" to be a string, found a list"#),
            (
                r#"{"topic":"a","base64":"/wA"}"#,
                r#"expected "base64" to be base64 with its padding, found "/wA": Invalid padding"#,
            ),
            (
                r#"{"topic":"a","base64":"a-b="}"#,
                r#"expected "base64" to be base64 with its padding, found "a-b=": Invalid symbol 45, offset 1."#,
            ),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.starts_with(text), "{line}: {error}");
        }
    }
}
