//! Names and patterns against the ten lines that say what they mean. The input is a pattern and a topic, a line each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stentor::internals::{
    protocol::{
        PATTERN_SEGMENTS_MAX, Topic, is_pattern, matches,
        name::{NameError, check_pattern},
    },
    topic::script::stands_for,
};

const LENGTH_MAX: usize = 40;

fn is_topic(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_:@+=~-".contains(&byte);
    name.len() <= LENGTH_MAX && name.split('.').all(|segment| !segment.is_empty() && segment.bytes().all(letter))
}

fn is_name(name: &str) -> bool {
    let segments: Vec<&str> = name.split('.').collect();
    name.len() <= LENGTH_MAX
        && (segments.len() <= PATTERN_SEGMENTS_MAX || is_topic(name))
        && segments.iter().enumerate().all(|(at, segment)| match *segment {
            "*" => true,
            ">" => at + 1 == segments.len(),
            segment => is_topic(segment),
        })
}

/// An error points at something that is there.
fn points(name: &str, result: Result<(), NameError>) {
    let Err(error) = result else { return };
    assert!(!error.to_string().is_empty());
    match error {
        NameError::Empty => assert!(name.is_empty()),
        NameError::TooLong { len, max } => assert!((len, max) == (name.len(), LENGTH_MAX)),
        NameError::EmptySegment { at } => assert!(at <= name.len()),
        NameError::Character { found, at }
        | NameError::Wildcard { found, at }
        | NameError::PartOfSegment { found, at } => assert!(name[at..].starts_with(found)),
        NameError::NotLast { at } => assert!(name[at..].starts_with('>')),
        NameError::TooManySegments { found } => assert!(found == name.split('.').count() && found > PATTERN_SEGMENTS_MAX),
    }
}

fuzz_target!(|text: &str| {
    let (pattern, topic) = text.split_once('\n').unwrap_or((text, ""));
    for name in [pattern, topic] {
        let (as_topic, as_name) = (Topic::check(name, LENGTH_MAX), check_pattern(name, LENGTH_MAX));
        assert_eq!((as_topic.is_ok(), as_name.is_ok()), (is_topic(name), is_name(name)));
        assert_eq!(as_topic.is_ok(), as_name.is_ok() && !is_pattern(name));
        points(name, as_topic);
        points(name, as_name);
    }
    if is_name(pattern) && is_topic(topic) {
        assert_eq!(matches(pattern, topic), stands_for(pattern, topic));
    }
});
