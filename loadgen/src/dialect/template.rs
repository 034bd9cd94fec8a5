//! Templates: messages with blanks, as given on the command line.
//!
//! `{topic}`, `{payload}`, `{id}` and `{bytes}` (the payload's length) are filled in; `\r`, `\n`, `\t`, `\0`, `\\`, `\{`
//! and `\xHH` stand for what they do elsewhere. Any other brace is itself, so JSON needs no escaping. A template is taken
//! apart once; filling it in only copies bytes.

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
    Bytes,
}

const BLANKS: [(&str, Piece); 4] =
    [("{topic}", Piece::Topic), ("{payload}", Piece::Payload), ("{id}", Piece::Id), ("{bytes}", Piece::Bytes)];

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
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Topic => out.extend_from_slice(values.topic.as_bytes()),
                Piece::Payload => out.extend_from_slice(values.payload),
                Piece::Id => write!(out, "{}", values.id).expect("writing to memory"),
                Piece::Bytes => write!(out, "{}", values.payload.len()).expect("writing to memory"),
            }
        }
    }

    /// Whether the payload is part of it.
    pub fn has_payload(&self) -> bool {
        self.0.contains(&Piece::Payload)
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
    fn whether_a_payload_is_in_it_is_known() {
        assert!(Template::parse("a{payload}").unwrap().has_payload());
        assert!(!Template::parse("{topic}").unwrap().has_payload());
    }
}
