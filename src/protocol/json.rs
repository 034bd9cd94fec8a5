//! JSON found to be valid and passed by, without a look at what it says.
//!
//! A publication's `data` goes through a server byte for byte; all that has to be known of it is where it ends, and that it is
//! JSON. For that, this scan takes a quarter fewer instructions than serde_json, and no memory. It takes what is plain: valid,
//! and nested no more than 63 deep, which a word of bits remembers. Everything else it leaves to serde_json, which decides,
//! and which words the error.
//!
//! Strings are taken eight bytes at a time, whatever is in them but a quote, a backslash or a control character; the text
//! is known to be UTF-8.

/// The text of one valid JSON value, without white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<'a>(pub(super) &'a str);

impl<'a> Json<'a> {
    /// The text, as it was written.
    pub fn get(self) -> &'a str {
        self.0
    }
}

/// How deep lists and objects may be nested in what is published. Readers have bounds of their own, serde_json's is 127, jq's 256; a
/// value that one of them refuses would be every later subscriber's snapshot. What messages put around a value takes a few.
pub(crate) const DEPTH_MAX: usize = 120;

/// Whether lists and objects are nested more deeply in a JSON text than may be.
pub(crate) fn is_too_deep(text: &str) -> bool {
    let text = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => at = string(text, at).unwrap_or(text.len()),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return true;
        }
    }
    false
}

/// Whether `text` is one plain JSON value. If not, it may be one yet.
pub(super) fn is_plain(text: &str) -> bool {
    let text = text.as_bytes();
    value(text, 0).is_some_and(|end| space(text, end) == text.len())
}

/// Where the value ends that begins at `at`, white space before it passed over; none if it isn't a plain one.
pub(super) fn value(text: &[u8], mut at: usize) -> Option<usize> {
    // One bit a level, the innermost lowest: whether it is an object. A level more, and the marker falls off the top.
    let mut levels: u64 = 1;
    loop {
        at = space(text, at);
        at = match *text.get(at)? {
            b'"' => string(text, at + 1)?,
            b'-' | b'0'..=b'9' => number(text, at)?,
            open @ (b'{' | b'[') => {
                let object = open == b'{';
                at = space(text, at + 1);
                if *text.get(at)? == if object { b'}' } else { b']' } {
                    at + 1
                } else if levels >> 63 == 0 {
                    levels = levels << 1 | u64::from(object);
                    if object {
                        at = key(text, at)?;
                    }
                    continue;
                } else {
                    return None;
                }
            }
            b't' => literal(text, at, b"true")?,
            b'f' => literal(text, at, b"false")?,
            b'n' => literal(text, at, b"null")?,
            _ => return None,
        };
        // A value has ended, and with it perhaps the lists and objects around it.
        loop {
            if levels == 1 {
                return Some(at);
            }
            at = space(text, at);
            match (*text.get(at)?, levels & 1 == 1) {
                (b'}', true) | (b']', false) => (at, levels) = (at + 1, levels >> 1),
                (b',', true) => {
                    at = key(text, space(text, at + 1))?;
                    break;
                }
                (b',', false) => {
                    at += 1;
                    break;
                }
                _ => return None,
            }
        }
    }
}

/// Behind a field's name and its colon.
fn key(text: &[u8], at: usize) -> Option<usize> {
    let at = space(text, literal(text, at, b"\"").and_then(|at| string(text, at))?);
    literal(text, at, b":")
}

/// Behind white space.
#[inline]
pub(super) fn space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

/// Behind `expected`, if it is there.
#[inline]
pub(super) fn literal(text: &[u8], at: usize, expected: &[u8]) -> Option<usize> {
    text[at..].starts_with(expected).then_some(at + expected.len())
}

/// Behind the quote that ends the string whose first byte is at `at`.
pub(super) fn string(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at = ordinary(text, at);
        match *text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at = escape(text, at + 1)?,
            _ => return None,
        }
    }
}

/// Behind bytes that stand for themselves in a string.
#[inline]
fn ordinary(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    // The highest bit of each byte that is nought; beyond the first such byte, of others, too.
    let nought = |word: u64| word.wrapping_sub(ONES) & !word;
    while let Some(chunk) = text[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let special = nought(word ^ (ONES * b'"' as u64)) | nought(word ^ (ONES * b'\\' as u64)) | control;
        match special & (ONES * 0x80) {
            0 => at += 8,
            found => return at + found.trailing_zeros() as usize / 8,
        }
    }
    while text.get(at).is_some_and(|byte| *byte >= 0x20 && !matches!(byte, b'"' | b'\\')) {
        at += 1;
    }
    at
}

/// Behind what follows a backslash. Half of a surrogate pair counts as well: what a string means is not asked here.
fn escape(text: &[u8], at: usize) -> Option<usize> {
    match *text.get(at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => text.get(at + 1..at + 5)?.iter().all(u8::is_ascii_hexdigit).then_some(at + 5),
        _ => None,
    }
}

fn number(text: &[u8], mut at: usize) -> Option<usize> {
    if text[at] == b'-' {
        at += 1;
    }
    // A nought stands alone: what follows it, if it is another digit, is behind the end.
    at = if *text.get(at)? == b'0' { at + 1 } else { digits(text, at)? };
    if text.get(at) == Some(&b'.') {
        at = digits(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = text.get(at) {
            at += 1;
        }
        at = digits(text, at)?;
    }
    Some(at)
}

/// Behind one digit or more.
#[inline]
fn digits(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    (at > from).then_some(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    #[test]
    fn depth_is_counted_outside_of_strings() {
        let deep = |n: usize| format!("{}1{}", "[{\"a[{\\\"[\":".repeat(n), "}]".repeat(n));
        assert!(!is_too_deep(&deep(DEPTH_MAX / 2)));
        assert!(is_too_deep(&format!("[{}]", deep(DEPTH_MAX / 2))));
        assert!(is_too_deep(&deep(30_000)));
        assert!(!is_too_deep(&"[],".repeat(1000)) && !is_too_deep("") && !is_too_deep("\"[[["));
    }

    fn by_serde(text: &str) -> bool {
        serde_json::from_str::<IgnoredAny>(text).is_ok()
    }

    /// Pieces that make JSON, and nearly make it.
    fn texts() -> impl Strategy<Value = String> {
        let token = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "\"a\"",
            "\"a\":",
            "\"a b c d e f g h\"",
            "\"\\u00e9\"",
            "\"\\ud800\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\u{1}\"",
            "\"€uro and more\"",
            "\"12345678\\n\"",
            "0",
            "01",
            "-",
            "-0",
            "-1.5e+3",
            "1.",
            "1e",
            ".5",
            "12",
            "true",
            "false",
            "nul",
            "null",
            " ",
            "\n",
            "\t",
            "\u{a0}",
            "x",
        ]);
        prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
    }

    /// A value, by JSON's own grammar.
    fn values() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
            "\"[a-z€ ]{0,30}\"",
            prop::sample::select(vec!["true", "false", "null", "\"\\\"\\\\\\/\\b\"", "[]", "{}", " [ ] "])
                .prop_map(str::to_owned),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(|all| format!("[{}]", all.join(" ,"))),
                prop::collection::vec(("[a-z]{0,10}", inner), 0..5).prop_map(|all| {
                    let fields: Vec<String> = all.iter().map(|(name, value)| format!("\"{name}\" : {value}")).collect();
                    format!("{{{}}}", fields.join(", "))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_is_made_of_pieces_is_judged_as_serde_does(text in texts()) {
            prop_assert_eq!(is_plain(&text), by_serde(&text));
        }

        #[test]
        fn values_are_plain_and_spoilt_ones_judged_as_serde_does(
            text in values(),
            at in any::<prop::sample::Index>(),
            with in prop::option::of(prop::sample::select(b"\"\\{}[]:,0-.eE x\x1f".to_vec())),
        ) {
            prop_assert!(is_plain(&text));
            // One character replaced, or left out.
            let at = at.index(text.len());
            if text.is_char_boundary(at) && text.as_bytes()[at].is_ascii() {
                let with = with.map_or(String::new(), |byte| (byte as char).to_string());
                let spoilt = format!("{}{with}{}", &text[..at], &text[at + 1..]);
                prop_assert_eq!(is_plain(&spoilt), by_serde(&spoilt), "{}", spoilt);
            }
        }

        #[test]
        fn the_end_is_that_of_the_value(text in values(), rest in "[ ,x0-9}\\]]{0,9}") {
            let end = value(text.as_bytes(), 0).unwrap();
            let longer = format!("{text},{rest}");
            prop_assert_eq!(value(longer.as_bytes(), 0), Some(end));
        }
    }

    #[test]
    fn sixty_three_levels_are_plain_and_more_are_left_to_serde() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(is_plain(&nested(64)) && !is_plain(&nested(65)));
        assert!(by_serde(&nested(65)));
        let objects = |levels: usize| "{\"a\":".repeat(levels) + "1" + &"}".repeat(levels);
        assert!(is_plain(&objects(63)) && !is_plain(&objects(64)));
    }

    #[test]
    fn a_special_byte_is_found_at_every_place_of_a_word() {
        for byte in ['"', '\\', '\u{1f}', '\u{0}'] {
            for place in 0..20 {
                for before in ["a", "\u{7f}", "!", "#", " ", "é"] {
                    let text = before.repeat(place) + &byte.to_string() + "\"\\ abc";
                    assert_eq!(ordinary(text.as_bytes(), 0), place * before.len(), "{text:?}");
                }
            }
        }
    }
}
