//! Cursors: what is taken is the one word of its place; what isn't is said in a sentence.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stentor::internals::protocol::cursor::{Cursor, Garbled, Instance, LETTERS};

fuzz_target!(|text: &str| {
    match Cursor::parse(text) {
        Ok(cursor) => {
            assert_eq!(cursor.to_string(), text);
            assert!(Cursor::has_shape(text));
        }
        Err(garbled) => {
            assert!(!garbled.to_string().is_empty());
            match garbled {
                Garbled::Letter { found, at } => assert!(text[at..].starts_with(found)),
                Garbled::Length { found } => assert!(found == text.len() && found != LETTERS),
                Garbled::Check | Garbled::Form { .. } => assert!(Cursor::has_shape(text)),
            }
        }
    }
    // Any place of any tape has a word, and with one letter changed it is none.
    let [tape, at] = [0, 8].map(|from| u64::from_le_bytes(std::array::from_fn(|n| *text.as_bytes().get(from + n).unwrap_or(&0))));
    let cursor = Cursor { tape: Instance(tape), at, begins: at % 2 == 1 };
    let mut word = cursor.to_string();
    assert_eq!(Cursor::parse(&word), Ok(cursor));
    let place = (tape % LETTERS as u64) as usize;
    let other = if &word[place..=place] == "A" { "B" } else { "A" };
    word.replace_range(place..=place, other);
    assert!(Cursor::parse(&word).is_err());
});
