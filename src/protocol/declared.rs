//! What a payload is said to be by whoever publishes it, where there are no words around it: over `/raw` and HTTP.
//!
//! ```text
//!   said to be   and it is                    taken for
//!   ----------   --------------------------   --------------------------------
//!   json         JSON                         JSON, byte for byte
//!                anything else                refused
//!   text         text (UTF-8)                 text, be it `7`, `null` or `{}`
//!   nothing      JSON, at most 120 deep       JSON: the guess
//!                other text                   text
//! ```
//!
//! A guess suits whoever types a value into a shell; it makes a number of the text `7` and leaves `08` what it is. So it is made only
//! where nothing was said.

use serde::de::IgnoredAny;

use super::json::{DEPTH_MAX, is_plain, is_too_deep};
use crate::publication::Payload;

/// What text is said to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Declared {
    /// Nothing is said: JSON if it is that.
    #[default]
    Auto,
    /// JSON; it is refused if it isn't.
    Json,
    /// Text, whatever it looks like.
    Text,
}

impl Declared {
    /// The words for it in an address, `?as=…`.
    pub const WORDS: [(&'static str, Declared); 3] =
        [("json", Declared::Json), ("text", Declared::Text), ("auto", Declared::Auto)];

    /// The payload that `text` is.
    ///
    /// # Errors
    /// It is said to be JSON and isn't, or is nested more deeply than may be; the end of a sentence about it.
    pub fn payload(self, text: &str) -> Result<Payload<'_>, String> {
        match self {
            Declared::Auto => Ok(Payload::Text(text)),
            Declared::Text => Ok(Payload::Plain(text)),
            Declared::Json if is_plain(text) => Ok(Payload::Json(text.as_bytes())),
            Declared::Json if is_too_deep(text) => {
                Err(format!("is said to be JSON, and has lists and objects nested more than {DEPTH_MAX} deep"))
            }
            Declared::Json => match serde_json::from_str::<IgnoredAny>(text) {
                Ok(_) => Ok(Payload::Json(text.as_bytes())),
                Err(error) => Err(format!("is said to be JSON, and isn't: {error}")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_holds_and_only_what_nothing_is_said_of_is_guessed() {
        for text in ["7", "\"asd\"", "null", "1e5", "[1, 2]", "08", "asd", "NaN", "", "{\"a\":"] {
            let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
            assert_eq!(Declared::Text.payload(text).unwrap().settled(), Payload::Plain(text), "{text}");
            let guessed = Declared::Auto.payload(text).unwrap().settled();
            assert_eq!(guessed, if is_json { Payload::Json(text.as_bytes()) } else { Payload::Plain(text) });
            match Declared::Json.payload(text) {
                Ok(payload) => assert!(is_json && payload == Payload::Json(text.as_bytes()), "{text}"),
                Err(why) => assert!(!is_json && why.starts_with("is said to be JSON, and isn't: "), "{text}: {why}"),
            }
        }
    }

    #[test]
    fn what_is_said_to_be_json_may_be_as_deep_as_any_and_no_deeper() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Declared::Json.payload(&nested(DEPTH_MAX)).is_ok());
        let refused = Declared::Json.payload(&nested(DEPTH_MAX + 1)).unwrap_err();
        assert_eq!(refused, "is said to be JSON, and has lists and objects nested more than 120 deep");
    }
}
