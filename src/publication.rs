//! What is published, whatever it looks like on its way: a payload of some kind, with flags, under a topic's numbering.

use std::fmt;

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The text of one JSON value, known to be valid.
    Json(&'a [u8]),
    /// Text of which nothing was said: if it is JSON, it is taken for that.
    Text(&'a str),
    /// Text that is said to be just that, whatever it looks like.
    Plain(&'a str),
    /// Any bytes.
    Binary(&'a [u8]),
    /// None that could be carried: what there was is too large. It takes its number in the topic, and is no value of it; subscribers
    /// are told with a `skip`, except on `/raw`.
    TooLarge,
}

impl<'a> Payload<'a> {
    /// The bytes as they were published.
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Payload::Json(bytes) | Payload::Binary(bytes) => bytes,
            Payload::Text(text) | Payload::Plain(text) => text.as_bytes(),
            Payload::TooLarge => b"",
        }
    }

    /// Which of them it is.
    pub fn kind(&self) -> Kind {
        match self {
            Payload::Json(_) => Kind::Json,
            Payload::Text(_) => Kind::Text,
            Payload::Plain(_) => Kind::Plain,
            Payload::Binary(_) => Kind::Binary,
            Payload::TooLarge => Kind::TooLarge,
        }
    }

    /// The payload that was taken apart into [`Payload::kind`] and [`Payload::bytes`].
    ///
    /// Bytes said to be text that aren't become binary.
    pub fn from_parts(kind: Kind, bytes: &'a [u8]) -> Payload<'a> {
        match kind {
            Kind::Json => Payload::Json(bytes),
            Kind::Text => simdutf8::basic::from_utf8(bytes).map_or(Payload::Binary(bytes), Payload::Text),
            Kind::Plain => simdutf8::basic::from_utf8(bytes).map_or(Payload::Binary(bytes), Payload::Plain),
            Kind::Binary => Payload::Binary(bytes),
            Kind::TooLarge => Payload::TooLarge,
        }
    }
}

/// What sort of payload something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One valid JSON value.
    Json,
    /// Text that may be JSON.
    Text,
    /// Text that is not taken for JSON.
    Plain,
    /// Any bytes.
    Binary,
    /// There is none: it was too large.
    TooLarge,
}

/// What else is said of a publication, beside its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

#[allow(dead_code, reason = "only tests say so yet: who publishes keyframes and notices is still to come")]
impl Flags {
    /// It says all that there is to know of its topic: what came before needs not be known.
    pub const KEYFRAME: Flags = Flags(1);
    /// It is about the topic, and no value of it.
    pub const NOTICE: Flags = Flags(2);
}

/// What tells one numbering of a topic from the next; printed in base 36.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0u8; 13];
        let mut at = digits.len();
        let mut rest = self.0;
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        f.write_str(std::str::from_utf8(&digits[at..]).expect("digits are ASCII"))
    }
}
