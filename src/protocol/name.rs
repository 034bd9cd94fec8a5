//! Topic names, and the patterns that match them.
//!
//! A name is one or more segments joined by single dots; a segment is one or more of `[A-Za-z0-9_:@+=~-]`. A pattern is a
//! name in which whole segments may be wildcards: `*` stands for exactly one segment, a last `>` for one or more. It has at
//! most [`PATTERN_SEGMENTS_MAX`] segments: where each may be a name or a wildcard, twice as many patterns stand for a topic with
//! every segment more, and whoever publishes on it waits until they are found.
//!
//! ```text
//!  q . us . AAPL        a topic
//!  q . *  . AAPL        AAPL of any one venue
//!  q . >                everything below q
//! ```
//!
//! Names are ASCII, so every byte offset in an error is also the character's number. All functions here look at each byte
//! at most once and allocate nothing; only an error that is shown becomes text.

use crate::counted::counted;

/// Segments of a pattern, wildcards among them. Names of the largest feeds have four or five.
pub const PATTERN_SEGMENTS_MAX: usize = 10;

/// The rule for the name of a topic that is published on.
#[derive(Clone, Copy, Debug)]
pub struct Topic;

/// What is wrong with a name, and at which byte (counted from 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes at all.
    #[error("a name must have at least one character, found none")]
    Empty,
    /// More bytes than the server takes.
    #[error("a name must have at most {}, found {len}", counted(*.max, "byte"))]
    TooLong {
        /// Bytes found.
        len: usize,
        /// Bytes that would have been taken.
        max: usize,
    },
    /// Nothing between two dots, or before the first, or after the last.
    #[error("an empty segment at byte {at}: dots stand between segments, one at a time")]
    EmptySegment {
        /// Where the segment should have begun.
        at: usize,
    },
    /// A character that no name has.
    #[error("found {found:?} at byte {at}: a name has letters, digits, dots and _ : @ + = ~ -")]
    Character {
        /// The character.
        found: char,
        /// Its first byte.
        at: usize,
    },
    /// A wildcard in the name of one topic.
    #[error("found the wildcard '{found}' at byte {at}: this must be one topic, not a pattern")]
    Wildcard {
        /// `*` or `>`.
        found: char,
        /// Its byte.
        at: usize,
    },
    /// A wildcard beside other characters of its segment.
    #[error("found '{found}' at byte {at}: a wildcard must be a whole segment")]
    PartOfSegment {
        /// `*` or `>`.
        found: char,
        /// Its byte.
        at: usize,
    },
    /// A `>` with more segments behind it.
    #[error("found '>' at byte {at}: it must be the last segment")]
    NotLast {
        /// Its byte.
        at: usize,
    },
    /// A pattern of more segments than one may have.
    #[error("a pattern must have at most {PATTERN_SEGMENTS_MAX} segments, found {found}")]
    TooManySegments {
        /// Segments found.
        found: usize,
    },
}

impl Topic {
    /// Checks that `name` can be published on: well formed, without wildcards, at most `max_len` bytes.
    ///
    /// # Errors
    /// The first thing that is wrong, read from the left; the length goes first.
    #[inline]
    pub fn check(name: &str, max_len: usize) -> Result<(), NameError> {
        check_length(name, max_len)?;
        let mut previous = b'.';
        for (at, &byte) in name.as_bytes().iter().enumerate() {
            match CLASS[byte as usize] {
                Class::Letter => {}
                Class::Dot if previous != b'.' => {}
                Class::Dot => return Err(NameError::EmptySegment { at }),
                Class::Wildcard => return Err(NameError::Wildcard { found: byte.into(), at }),
                Class::Other => return Err(unexpected(name, at)),
            }
            previous = byte;
        }
        if previous == b'.' {
            return Err(NameError::EmptySegment { at: name.len() });
        }
        Ok(())
    }
}

/// Whether a name has a wildcard; meant for names that [`check_pattern`] lets pass.
pub fn is_pattern(name: &str) -> bool {
    memchr::memchr2(b'*', b'>', name.as_bytes()).is_some()
}

/// Checks that `name` can be subscribed to: a topic's name, or a pattern of at most [`PATTERN_SEGMENTS_MAX`] segments, at most
/// `max_len` bytes.
///
/// # Errors
/// The first thing that is wrong, read from the left; the length goes first.
pub fn check_pattern(name: &str, max_len: usize) -> Result<(), NameError> {
    check_length(name, max_len)?;
    let (mut at, mut segments) = (0, 0);
    for segment in name.split('.') {
        segments += 1;
        let end = at + segment.len();
        check_segment(name, at, end)?;
        if segment == ">" && end < name.len() {
            return Err(NameError::NotLast { at });
        }
        at = end + 1;
    }
    if segments > PATTERN_SEGMENTS_MAX && is_pattern(name) {
        return Err(NameError::TooManySegments { found: segments });
    }
    Ok(())
}

/// Whether `pattern` (or a plain name) stands for `topic`. Both must have been checked.
pub fn matches(pattern: &str, topic: &str) -> bool {
    let topic = topic.as_bytes();
    let mut at = 0;
    for &byte in pattern.as_bytes() {
        match byte {
            b'>' => return at < topic.len(),
            b'*' => {
                let segment = topic[at..].iter().position(|&byte| byte == b'.').unwrap_or(topic.len() - at);
                if segment == 0 {
                    return false;
                }
                at += segment;
            }
            byte if topic.get(at) == Some(&byte) => at += 1,
            _ => return false,
        }
    }
    at == topic.len()
}

fn check_length(name: &str, max_len: usize) -> Result<(), NameError> {
    match name.len() {
        0 => Err(NameError::Empty),
        len if len > max_len => Err(NameError::TooLong { len, max: max_len }),
        _ => Ok(()),
    }
}

/// Checks the segment of a pattern that lies from `start` to `end`.
fn check_segment(name: &str, start: usize, end: usize) -> Result<(), NameError> {
    if start == end {
        return Err(NameError::EmptySegment { at: start });
    }
    for at in start..end {
        let byte = name.as_bytes()[at];
        match CLASS[byte as usize] {
            Class::Letter => {}
            Class::Wildcard if end - start == 1 => {}
            Class::Wildcard => return Err(NameError::PartOfSegment { found: byte.into(), at }),
            Class::Dot | Class::Other => return Err(unexpected(name, at)),
        }
    }
    Ok(())
}

/// The error for a byte that is in no class; everything before it was ASCII, so a character begins there.
fn unexpected(name: &str, at: usize) -> NameError {
    let found = name[at..].chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
    NameError::Character { found, at }
}

#[derive(Clone, Copy)]
enum Class {
    Letter,
    Dot,
    Wildcard,
    Other,
}

/// Every byte's class: one load for each byte of a name, on the path of every publication.
const CLASS: [Class; 256] = {
    let mut table = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => Class::Letter,
            b'_' | b':' | b'@' | b'+' | b'=' | b'~' | b'-' => Class::Letter,
            b'.' => Class::Dot,
            b'*' | b'>' => Class::Wildcard,
            _ => Class::Other,
        };
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_real_feeds_pass() {
        for name in ["q", "q.us.AAPL", "binance.depth.BTC-USDT", "t.eu.BRK_B", "a:b@c+d=e~f", "0.1.2"] {
            assert_eq!(Topic::check(name, 128), Ok(()), "{name}");
            assert_eq!(check_pattern(name, 128), Ok(()), "{name}");
            assert!(!is_pattern(name));
        }
    }

    #[test]
    fn a_wrong_name_says_what_was_found_and_where() {
        use NameError::*;
        for (name, error) in [
            ("", Empty),
            ("abcdefghi", TooLong { len: 9, max: 8 }),
            (".a", EmptySegment { at: 0 }),
            ("a..b", EmptySegment { at: 2 }),
            ("a.", EmptySegment { at: 2 }),
            ("a b", Character { found: ' ', at: 1 }),
            ("a.é", Character { found: 'é', at: 2 }),
            ("a\0", Character { found: '\0', at: 1 }),
        ] {
            assert_eq!(Topic::check(name, 8), Err(error), "{name:?}");
            assert_eq!(check_pattern(name, 8), Err(error), "{name:?}");
        }
        let text = Topic::check("a.é", 8).unwrap_err().to_string();
        assert!(text.contains("'é'") && text.contains("byte 2"), "{text}");
    }

    #[test]
    fn a_wildcard_is_a_whole_segment_of_a_pattern_and_of_nothing_else() {
        use NameError::*;
        for pattern in ["*", ">", "q.*", "*.us.*", "q.>", "*.>"] {
            assert_eq!(check_pattern(pattern, 128), Ok(()), "{pattern}");
            assert!(is_pattern(pattern));
        }
        assert_eq!(Topic::check("q.*", 128), Err(Wildcard { found: '*', at: 2 }));
        assert_eq!(Topic::check(">", 128), Err(Wildcard { found: '>', at: 0 }));
        assert_eq!(check_pattern("q.A*", 128), Err(PartOfSegment { found: '*', at: 3 }));
        assert_eq!(check_pattern("q.>>", 128), Err(PartOfSegment { found: '>', at: 2 }));
        assert_eq!(check_pattern("q.>.x", 128), Err(NotLast { at: 2 }));
        assert_eq!(check_pattern("*..x", 128), Err(EmptySegment { at: 2 }));
    }

    #[test]
    fn a_pattern_has_so_many_segments_and_a_topic_as_many_as_it_likes() {
        let name = |segments: usize, last: &str| ["a.".repeat(segments - 1).as_str(), last].concat();
        for last in ["*", ">"] {
            assert_eq!(check_pattern(&name(10, last), 128), Ok(()));
            let error = check_pattern(&name(11, last), 128).unwrap_err();
            assert_eq!(error, NameError::TooManySegments { found: 11 });
            assert_eq!(error.to_string(), "a pattern must have at most 10 segments, found 11");
        }
        assert_eq!(check_pattern(&name(60, "a"), 128), Ok(()));
    }

    #[test]
    fn one_star_is_one_segment_and_a_last_arrow_is_one_or_more() {
        for (pattern, topic, expected) in [
            ("q.us.AAPL", "q.us.AAPL", true),
            ("q.us.AAPL", "q.us.AAP", false),
            ("q.us.AAP", "q.us.AAPL", false),
            ("q.us.*", "q.us.AAPL", true),
            ("q.us.*", "q.us", false),
            ("q.us.*", "q.us.AAPL.x", false),
            ("*.us.AAPL", "q.us.AAPL", true),
            ("q.>", "q.us.AAPL", true),
            ("q.>", "q", false),
            ("q.>", "qq.us", false),
            (">", "q", true),
            ("*.>", "q", false),
            ("*.>", "q.us", true),
        ] {
            assert_eq!(matches(pattern, topic), expected, "{pattern} against {topic}");
        }
    }

    fn matches_by_segments(pattern: &str, topic: &str) -> bool {
        let pattern: Vec<&str> = pattern.split('.').collect();
        let topic: Vec<&str> = topic.split('.').collect();
        match pattern.split_last() {
            Some((&">", head)) => topic.len() > head.len() && head.iter().zip(&topic).all(|(p, t)| *p == "*" || p == t),
            _ => topic.len() == pattern.len() && pattern.iter().zip(&topic).all(|(p, t)| *p == "*" || p == t),
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_its_naive_twin(
            pattern in "(\\*|a|b|ab)(\\.(\\*|a|b|ab)){0,3}(\\.>)?|>",
            topic in "(a|b|ab)(\\.(a|b|ab)){0,4}",
        ) {
            prop_assert!(check_pattern(&pattern, 128).is_ok());
            prop_assert_eq!(matches(&pattern, &topic), matches_by_segments(&pattern, &topic));
        }

        #[test]
        fn a_topic_is_a_pattern_without_wildcards(name in "[a*>. é]{0,6}") {
            let plain = check_pattern(&name, 128).is_ok() && !is_pattern(&name);
            prop_assert_eq!(Topic::check(&name, 128).is_ok(), plain);
        }
    }
}
