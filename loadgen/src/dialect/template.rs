//! Templates: messages with blanks, as given on the command line.
//!
//! `{topic}`, `{payload}`, `{id}` are filled in, and lengths: `{bytes}` is the payload's, `{topic-bytes}` the topic's, `{rest}` that of
//! all that follows. They are decimal digits, or with `:u16` and `:u32` bytes in network order, or with `:varint` groups of seven bits, the lowest
//! first, as MQTT has them. `\r`, `\n`, `\t`, `\0`, `\\`, `\{` and `\xHH` stand for what they do elsewhere. Any other brace is itself, so JSON
//! needs no escaping. A template is taken apart once; filling it in only copies bytes.

use std::io::Write;

use anyhow::Result;

/// A message with blanks, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

/// What the blanks are filled with.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// Name of the topic.
    pub topic: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// A number that differs from message to message.
    pub id: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Payload,
    Id,
    Length(Of, Form),
}

/// What a length is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Payload,
    Topic,
    Rest,
}

/// How a length is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Decimal,
    U16,
    U32,
    Varint,
}

const BLANKS: [(&str, Piece); 15] = [
    ("{topic}", Piece::Topic),
    ("{payload}", Piece::Payload),
    ("{id}", Piece::Id),
    ("{bytes}", Piece::Length(Of::Payload, Form::Decimal)),
    ("{bytes:u16}", Piece::Length(Of::Payload, Form::U16)),
    ("{bytes:u32}", Piece::Length(Of::Payload, Form::U32)),
    ("{bytes:varint}", Piece::Length(Of::Payload, Form::Varint)),
    ("{topic-bytes}", Piece::Length(Of::Topic, Form::Decimal)),
    ("{topic-bytes:u16}", Piece::Length(Of::Topic, Form::U16)),
    ("{topic-bytes:u32}", Piece::Length(Of::Topic, Form::U32)),
    ("{topic-bytes:varint}", Piece::Length(Of::Topic, Form::Varint)),
    ("{rest}", Piece::Length(Of::Rest, Form::Decimal)),
    ("{rest:u16}", Piece::Length(Of::Rest, Form::U16)),
    ("{rest:u32}", Piece::Length(Of::Rest, Form::U32)),
    ("{rest:varint}", Piece::Length(Of::Rest, Form::Varint)),
];

impl Template {
    /// Takes `text` apart.
    pub fn parse(text: &str) -> Result<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some((blank, piece)) = BLANKS.iter().find(|(blank, _)| rest.starts_with(blank)) {
                pieces.push(piece.clone());
                rest = &rest[blank.len()..];
                continue;
            }
            let next = BLANKS.iter().filter_map(|(blank, _)| rest.find(blank)).min().unwrap_or(rest.len());
            pieces.push(Piece::Text(unescape(&rest[..next])));
            rest = &rest[next..];
        }
        Ok(Self(pieces))
    }

    /// Appends the message to `out`.
    pub fn expand(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        fill_in(&self.0, values, out);
    }

    /// The longest payload whose length it can say.
    pub fn payload_max(&self) -> usize {
        let longest = |piece: &Piece| match piece {
            // The rest is the payload and what little is around it.
            Piece::Length(Of::Payload | Of::Rest, Form::U16) => 65_000,
            Piece::Length(Of::Payload | Of::Rest, Form::Varint) => 268_000_000,
            _ => usize::MAX,
        };
        self.0.iter().map(longest).min().unwrap_or(usize::MAX)
    }

    /// Whether it says something of a topic.
    pub fn has_topic(&self) -> bool {
        self.0.contains(&Piece::Topic)
    }

    /// Whether the payload is part of it.
    pub fn has_payload(&self) -> bool {
        self.0.contains(&Piece::Payload)
    }
}

fn fill_in(pieces: &[Piece], values: &Values<'_>, out: &mut Vec<u8>) {
    for (nth, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text),
            Piece::Topic => out.extend_from_slice(values.topic.as_bytes()),
            Piece::Payload => out.extend_from_slice(values.payload),
            Piece::Id => write!(out, "{}", values.id).expect("writing to memory"),
            Piece::Length(Of::Payload, form) => form.write(values.payload.len(), out),
            Piece::Length(Of::Topic, form) => form.write(values.topic.len(), out),
            Piece::Length(Of::Rest, form) => {
                let mut rest = Vec::new();
                fill_in(&pieces[nth + 1..], values, &mut rest);
                form.write(rest.len(), out);
                out.extend_from_slice(&rest);
                return;
            }
        }
    }
}

impl Form {
    fn write(self, length: usize, out: &mut Vec<u8>) {
        match self {
            Self::Decimal => write!(out, "{length}").expect("writing to memory"),
            Self::U16 => out.extend_from_slice(&(length as u16).to_be_bytes()),
            Self::U32 => out.extend_from_slice(&(length as u32).to_be_bytes()),
            Self::Varint => {
                let mut left = length;
                while left > 127 {
                    out.push(left as u8 | 128);
                    left >>= 7;
                }
                out.push(left as u8);
            }
        }
    }
}

/// Resolves the backslashes of a text.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let ([escaped, tail @ ..], b'\\') = (tail, *first) else {
            out.push(*first);
            continue;
        };
        rest = tail;
        match escaped {
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'0' => out.push(0),
            b'x' if tail.len() >= 2 => match u8::from_str_radix(&String::from_utf8_lossy(&tail[..2]), 16) {
                Ok(byte) => {
                    out.push(byte);
                    rest = &tail[2..];
                }
                Err(_) => out.extend_from_slice(b"\\x"),
            },
            other => out.push(*other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(template: &str) -> String {
        let mut out = Vec::new();
        let values = Values { topic: "q.A", payload: b"{\"p\":1}", id: 7 };
        Template::parse(template).unwrap().expand(&values, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn blanks_are_filled_in_and_other_braces_kept() {
        assert_eq!(
            expand(r#"{"op":"pub","id":{id},"topic":"{topic}","data":{payload}}"#),
            r#"{"op":"pub","id":7,"topic":"q.A","data":{"p":1}}"#
        );
    }

    #[test]
    fn escapes_make_line_protocols_possible() {
        assert_eq!(expand(r"PUB {topic} {bytes}\r\n{payload}\r\n"), "PUB q.A 7\r\n{\"p\":1}\r\n");
        assert_eq!(unescape(r"\x41\\\0\{"), b"A\\\0{");
        assert_eq!(unescape(r"\xZZ\"), b"\\xZZ\\");
    }

    #[test]
    fn lengths_are_written_as_asked_for_and_the_rest_is_all_that_follows() {
        assert_eq!(expand(r"{topic-bytes}:{topic-bytes:u16}{topic}"), "3:\0\u{3}q.A");
        assert_eq!(expand(r"{bytes:u32}{bytes:varint}{payload}"), "\0\0\0\u{7}\u{7}{\"p\":1}");
        // A publication as MQTT 3.1.1 has it, section 3.3; and its example of 321, section 2.2.3.
        assert_eq!(expand(r"0{rest:varint}{topic-bytes:u16}{topic}{payload}"), "0\u{c}\0\u{3}q.A{\"p\":1}");
        let mut out = Vec::new();
        Form::Varint.write(321, &mut out);
        assert_eq!(out, [193, 2]);
        assert_eq!(Template::parse("{rest:u16}{payload}").unwrap().payload_max(), 65_000);
    }

    #[test]
    fn whether_a_payload_is_in_it_is_known() {
        assert!(Template::parse("a{payload}").unwrap().has_payload());
        assert!(!Template::parse("{topic}").unwrap().has_payload());
    }
}
