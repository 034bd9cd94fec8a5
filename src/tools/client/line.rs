//! A publication as a line of text.

use std::{fmt::Write, str::FromStr};

use serde_json::Value;
use stentor_client::Update;

/// How a publication is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Topic,
    Seq,
    Ts,
    Epoch,
    Data,
}

impl Field {
    const ALL: [(&str, Field); 5] = [
        ("topic", Field::Topic),
        ("seq", Field::Seq),
        ("ts", Field::Ts),
        ("epoch", Field::Epoch),
        ("data", Field::Data),
    ];
}

impl FromStr for Format {
    type Err = String;

    /// Reads text with `{topic}`, `{seq}`, `{ts}`, `{epoch}` and `{data}` in it; `{{` and `}}` are braces, `\n` and `\t` what they are elsewhere.
    fn from_str(text: &str) -> Result<Format, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut left = text.chars().peekable();
        while let Some(next) = left.next() {
            match next {
                '{' if left.next_if_eq(&'{').is_some() => plain.push('{'),
                '}' if left.next_if_eq(&'}').is_some() => plain.push('}'),
                '{' => {
                    let name: String = left.by_ref().take_while(|&letter| letter != '}').collect();
                    let field = Field::ALL.iter().find(|(known, _)| *known == name);
                    let (_, field) = field.ok_or_else(|| {
                        format!("expected {{topic}}, {{seq}}, {{ts}}, {{epoch}} or {{data}}; found {{{name}}}")
                    })?;
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                    parts.push(Part::Field(*field));
                }
                '\\' => match left.next() {
                    Some('n') => plain.push('\n'),
                    Some('t') => plain.push('\t'),
                    Some('\\') => plain.push('\\'),
                    other => {
                        return Err(format!(
                            "expected \\n, \\t or \\\\; found \\{}",
                            other.map(String::from).unwrap_or_default()
                        ));
                    }
                },
                other => plain.push(other),
            }
        }
        parts.push(Part::Text(plain));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Format(parts))
    }
}

impl Format {
    /// Writes a publication, with an end of line.
    pub fn write(&self, update: &Update, terminal: bool, line: &mut String) {
        for part in &self.0 {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Field(Field::Topic) => name(&update.topic, terminal, line),
                Part::Field(Field::Seq) => _ = write!(line, "{}", update.seq),
                Part::Field(Field::Ts) => _ = write!(line, "{}", update.ts),
                Part::Field(Field::Epoch) => name(&update.epoch, terminal, line),
                Part::Field(Field::Data) => json(update.raw(), terminal, line),
            }
        }
        line.push('\n');
    }
}

/// A publication as a JSON object on a line of its own.
pub fn ndjson(update: &Update, terminal: bool, line: &mut String) {
    line.push_str(r#"{"topic":"#);
    string(&update.topic, line);
    let _ = write!(line, r#","seq":{},"ts":{}"#, update.seq, update.ts);
    if !update.epoch.is_empty() {
        line.push_str(r#","epoch":"#);
        string(&update.epoch, line);
    }
    for (name, is_so) in [("snapshot", update.is_snapshot), ("key", update.is_key), ("stale", update.is_stale)] {
        if is_so {
            let _ = write!(line, r#","{name}":true"#);
        }
    }
    match update.is_binary {
        true => _ = write!(line, r#","base64":{}"#, Value::from(update.raw())),
        false => {
            line.push_str(r#","data":"#);
            json(update.raw(), terminal, line);
        }
    }
    line.push_str("}\n");
}

/// A JSON string. Names need no escapes, unless somebody else's server has made them.
fn string(text: &str, line: &mut String) {
    if text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
        line.extend(["\"", text, "\""]);
    } else {
        let _ = write!(line, "{}", Value::from(text));
    }
}

/// JSON on one line: the ends of lines that it may have between its parts become spaces. For a terminal, what it may have in strings and a terminal would heed is escaped.
pub fn json(text: &str, terminal: bool, line: &mut String) {
    if !terminal && memchr::memchr3(b'\n', b'\r', b'\t', text.as_bytes()).is_none() {
        return line.push_str(text);
    }
    for letter in text.chars() {
        match letter {
            '\n' | '\r' | '\t' => line.push(' '),
            _ if terminal && letter.is_control() => _ = write!(line, "\\u{:04x}", u32::from(letter)),
            _ => line.push(letter),
        }
    }
}

/// A name as it is; for a terminal, with what that would heed escaped, if somebody else's server has made it.
fn name(text: &str, terminal: bool, line: &mut String) {
    if terminal { line.push_str(&escaped(text)) } else { line.push_str(text) }
}

/// Text with its control characters escaped.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() { shown.extend(letter.escape_unicode()) } else { shown.push(letter) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, terminal: bool) -> String {
        let mut line = String::new();
        json(text, terminal, &mut line);
        line
    }

    #[test]
    fn json_stays_on_one_line_and_says_nothing_to_a_terminal() {
        assert_eq!(written("{\n\t\"a\": \"\u{7f}\u{9b}31m\"\r\n}", true), r#"{  "a": "\u007f\u009b31m"  }"#);
        assert_eq!(written("[\"\u{9b}\"]", false), "[\"\u{9b}\"]");
        assert_eq!(written("[1,\r\n2]", false), "[1,  2]");
        assert_eq!(escaped("a\x1b[31m\n"), r"a\u{1b}[31m\u{a}");
    }

    #[test]
    fn names_are_json_strings_whatever_is_in_them() {
        for name in ["q.us.AAPL", "a\"b", "a\\b", "\u{e9}\n", ""] {
            let mut line = String::new();
            string(name, &mut line);
            assert_eq!(serde_json::from_str::<String>(&line).unwrap(), name);
        }
    }

    #[test]
    fn a_format_says_what_it_knows() {
        let format = |text: &str| text.parse::<Format>();
        assert_eq!(format("{topic} {{{seq}}}\\n").unwrap().0.len(), 4);
        for (text, found) in
            [("{nothing}", "found {nothing}"), ("{", "found {}"), ("\\x", "found \\x"), ("\\", "found \\")]
        {
            let said = format(text).unwrap_err();
            assert!(said.contains(found), "{said}");
        }
    }
}
