//! One line of `POST /publish`: `{"topic":…,"data":…}`.
//!
//! Read in one pass, borrowed where it can be, with `data` kept as the bytes that were sent. Other fields are passed over.
//! Whether the topic's name is well formed is for whoever publishes it.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

use std::borrow::Cow;

use super::{
    json::Json,
    object::{Fields, ObjectError, kind, string},
};

/// What is wrong with a line; one plain sentence, to be put behind the line's number.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct LineError(pub(crate) String);

/// Reads one line, with or without its line break.
///
/// # Errors
/// Not a JSON object, or one without `topic` and `data`, or with either of them twice.
pub fn parse(line: &str) -> Result<(Cow<'_, str>, Json<'_>), LineError> {
    let mut fields = Fields::new(&["topic", "data"]);
    fields.read(line)?;
    Ok((topic(fields.get(0))?, data(fields.get(1))?))
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

/// The value of a line's `data`.
pub(crate) fn data(value: Option<Json<'_>>) -> Result<Json<'_>, LineError> {
    value.ok_or_else(|| LineError(r#"expected a field "data", found none"#.into()))
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
        let (topic, data) = parse("{\"data\":[1.50, 2],\"at\":7,\"topic\":\"a.b\"}\r\n").unwrap();
        assert!(matches!(topic, Cow::Borrowed("a.b")));
        assert_eq!(data.get(), "[1.50, 2]");
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
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.starts_with(text), "{line}: {error}");
        }
    }
}
