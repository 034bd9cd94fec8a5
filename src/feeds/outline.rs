//! What a line is about that is too long to be kept.
//!
//! ```text
//!   the line      {"data":{"bids":[[1,2],…]},"note":"a megabyte","topic":"book.BTC","ts_ns":7}
//!   its outline   {"data":{},"note":"","topic":"book.BTC","ts_ns":7}
//! ```
//!
//! Of a JSON object it keeps what stands in it directly: names, short strings, numbers. Lists and objects within are emptied, and so
//! are strings that are longer than any name. So a line of any length says whose publication it is, wherever in it that stands, in
//! some KiB of memory and one pass. Nothing is checked: whoever reads the outline finds out whether it is JSON, and of what was left
//! out of it nobody does.

/// Longer strings are emptied: `--max-topic-length` is 1024 at most, and an escape has six bytes.
const STRING_MAX: usize = 8 * 1024;

/// Longer outlines are given up.
const OUTLINE_MAX: usize = 64 * 1024;

/// See the module's description.
#[derive(Debug, Default)]
pub struct Outline {
    bytes: Vec<u8>,
    /// Lists and objects that are open.
    depth: u32,
    string: InString,
    /// It became too long, or isn't JSON.
    given_up: bool,
}

/// Whether the next byte belongs to a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum InString {
    #[default]
    No,
    /// Its first byte would stand here in the outline; whether the byte before was a backslash.
    From(usize, bool),
}

impl Outline {
    /// Begins with the beginning of a line.
    pub fn begin(&mut self, begin: &[u8]) {
        self.bytes.clear();
        (self.depth, self.string, self.given_up) = (0, InString::No, false);
        self.add(begin);
    }

    /// Goes on behind so many zeros, which JSON can't have.
    pub fn zeros(&mut self, count: u64) {
        self.given_up |= count > 0;
    }

    /// Goes on.
    pub fn add(&mut self, part: &[u8]) {
        for &byte in part {
            if self.given_up {
                return;
            }
            self.next(byte);
            self.given_up |= self.bytes.len() > OUTLINE_MAX;
        }
    }

    /// What there is of it; nothing if it was given up.
    pub fn bytes(&self) -> &[u8] {
        if self.given_up { b"" } else { &self.bytes }
    }

    fn next(&mut self, byte: u8) {
        let was_within = self.depth > 1;
        match (self.string, byte) {
            (InString::From(from, true), _) => self.string = InString::From(from, false),
            (InString::From(from, false), b'\\') => self.string = InString::From(from, true),
            (InString::From(..), b'"') => self.string = InString::No,
            (InString::From(..), _) => {}
            (InString::No, b'"') => self.string = InString::From(self.bytes.len() + 1, false),
            (InString::No, b'[' | b'{') => self.depth += 1,
            (InString::No, b']' | b'}') => self.depth = self.depth.saturating_sub(1),
            (InString::No, _) => {}
        }
        // The brackets of what is emptied stay.
        if was_within && self.depth > 1 {
            return;
        }
        self.bytes.push(byte);
        if let InString::From(from, is_escape) = self.string
            && self.bytes.len() > from + STRING_MAX
        {
            self.bytes.truncate(from);
            // What it escapes is still to come, and may be a quote.
            self.bytes.extend(is_escape.then_some(b'\\'));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn outline(line: &str, piece: usize) -> String {
        let mut outline = Outline::default();
        outline.begin(b"left over");
        outline.begin(b"");
        line.as_bytes().chunks(piece).for_each(|part| outline.add(part));
        String::from_utf8(outline.bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_line_of_any_length_says_whose_it_is_wherever_that_stands() {
        let books = [
            "[[1,\"]}\\\"\"],{\"topic\":\"no\",\"ts_ns\":1}]".to_owned(),
            format!("{{\"a\":{{\"topic\":[{}]}}}}", "\"x\\\\\",".repeat(50_000) + "1"),
            format!("\"{}\\\"é\"", "\\\"€".repeat(50_000)),
            format!("\"{}\"", "\\\"".repeat(50_000)),
        ];
        for data in books {
            for line in [
                format!("{{\"ts_ns\":7,\"topic\":\"a.b\",\"data\":{data}}}"),
                format!(" {{ \"data\" : {data} , \"more\":{data},\"topic\":\"a.b\",\"ts_ns\":7 }}"),
            ] {
                for piece in [1, 7, 4096, line.len()] {
                    let text = outline(&line, piece);
                    assert!(text.len() < 1000 + 2 * STRING_MAX, "{}", text.len());
                    let found: Value =
                        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:.200}"));
                    assert_eq!((&found["topic"], &found["ts_ns"]), (&json!("a.b"), &json!(7)), "{text:.200}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_object_takes_no_room() {
        assert_eq!(outline(&"x".repeat(OUTLINE_MAX + 1), 1000), "");
        assert_eq!(outline(&"{\"a\":1,".repeat(OUTLINE_MAX), 1000).len(), "{\"a\":1,{".len());
        assert_eq!(outline(&"\"abc\",".repeat(OUTLINE_MAX), 1000), "");
        let mut outline = Outline::default();
        outline.begin(b"{\"a\":");
        outline.zeros(3);
        outline.add(b"1}");
        assert_eq!(outline.bytes(), b"");
    }
}
