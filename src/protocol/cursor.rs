//! The cursor as clients hold it: a word that says which tape, and where on it.
//!
//! Clients keep it and show it again, and never look into it. It goes as it is into JSON, an address and a header. The tape is named by a
//! random number that it got when it was made, so that a word from before a restart is known as such and doesn't point at what
//! happens to lie there now. A word that was cut, changed or made up is found by its checksum; it isn't a secret, since who makes up a
//! valid one is told what its names cover and nothing else.
//!
//! ```text
//!   byte  0      1         9         17     21      as base64url without padding
//!         | form | tape    | at      | CRC-32 |     (RFC 4648, section 5): 28 letters
//!         | 1, 2 | 8 bytes | 8 bytes | 4 bytes|     the first 12 are the tape's own
//! ```
//!
//! Numbers are big-endian, the checksum is of all before it. Another form may be longer, up to [`LETTERS_MAX`].
//!
//! ```text
//!   form  everything before `at`
//!   1     was told
//!   2     was told or is in what the subscription begins with (snapshots), of which some may be missing yet
//! ```

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// A place on a tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which tape.
    pub tape: Instance,
    /// How many of its publications come before the place: all of them were told, as far as they were wanted.
    pub at: u64,
    /// A subscription begins there, and what it begins with may not all have been told.
    pub begins: bool,
}

impl Cursor {
    /// A place that no tape comes to, for whoever was told nothing that would be worth keeping: what it knows is reset.
    pub const NOWHERE: u64 = u64::MAX;
}

/// Which tape it is: a number that no other has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance(pub u64);

/// How many letters a word has.
pub const LETTERS: usize = 28;

/// The most letters that a word of any form may have.
pub const LETTERS_MAX: usize = 32;

/// The fewest, in the same sense: what is shorter is something else.
const LETTERS_MIN: usize = 20;

/// What the words begin with whose bytes are as drawn above, and those of them that say that a subscription begins.
const TOLD: u8 = 1;
const BEGINS: u8 = 2;

/// Where the tape's number ends, and with it what all of its words have in common.
const TAPE_END: usize = 9;

/// Where what is under the checksum ends.
const AT_END: usize = TAPE_END + 8;

const BYTES: usize = AT_END + 4;

/// How many letters all words of one tape begin with.
const TAPE_LETTERS: usize = TAPE_END / 3 * 4;

// Three bytes are four letters: no letter is of two parts, and none has bits that mean nothing.
const _: () = assert!(TAPE_END.is_multiple_of(3) && BYTES.is_multiple_of(3) && BYTES / 3 * 4 == LETTERS);
const _: () = assert!(LETTERS_MIN <= LETTERS && LETTERS <= LETTERS_MAX);

impl Instance {
    /// A number by chance, of the system's own randomness.
    pub fn random() -> Instance {
        Instance(RandomState::new().hash_one(()))
    }
}

impl Cursor {
    /// Reads a word.
    ///
    /// # Errors
    /// It is none, or isn't what it was.
    pub fn parse(word: &str) -> Result<Cursor, Garbled> {
        if let Some(at) = word.bytes().position(|byte| !is_letter(byte)) {
            return Err(Garbled::Letter { found: word[at..].chars().next().unwrap_or_default(), at });
        }
        let mut bytes = [0; BYTES];
        if word.len() != LETTERS || URL_SAFE_NO_PAD.decode_slice(word, &mut bytes) != Ok(BYTES) {
            return Err(Garbled::Length { found: word.len() });
        }
        let (said, check) = bytes.split_at(AT_END);
        if check != crc32fast::hash(said).to_be_bytes() {
            return Err(Garbled::Check);
        }
        let begins = match said[0] {
            TOLD => false,
            BEGINS => true,
            found => return Err(Garbled::Form { found }),
        };
        let number = |from: usize| u64::from_be_bytes(std::array::from_fn(|n| said[from + n]));
        Ok(Cursor { tape: Instance(number(1)), at: number(TAPE_END), begins })
    }

    /// Whether text may be a word, of whatever form, or what became of one: letters only, and not too few or too many.
    pub fn has_shape(text: &str) -> bool {
        (LETTERS_MIN..=LETTERS_MAX).contains(&text.len()) && text.bytes().all(is_letter)
    }

    /// Its word.
    pub fn word(self) -> Word {
        let words = Words::new(self.tape);
        if self.begins { words.beginning(self.at) } else { words.word(self.at) }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word().as_str())
    }
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// What makes a text no word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbled {
    /// Something that no word has, and at which byte.
    Letter {
        /// The character.
        found: char,
        /// Where it begins.
        at: usize,
    },
    /// So many letters.
    Length {
        /// How many.
        found: usize,
    },
    /// The checksum is that of another word.
    Check,
    /// Whole, but of a form that is not known here.
    Form {
        /// The number of the form.
        found: u8,
    },
}

impl fmt::Display for Garbled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Garbled::Letter { found, at } => {
                write!(f, "cursor: expected letters, digits, - and _, found {found:?} at byte {at}")
            }
            Garbled::Length { found } => write!(f, "cursor: expected {LETTERS} letters, found {found}"),
            Garbled::Check => f.write_str("cursor: its checksum is that of another"),
            Garbled::Form { found } => write!(f, "cursor: expected form {TOLD} or {BEGINS}, found {found}"),
        }
    }
}

/// What the words of one tape are made with: what they have in common is made once.
#[derive(Clone, Debug)]
pub struct Words {
    tape: Instance,
    told: Form,
    begins: Form,
}

/// What all words of one form have in common.
#[derive(Clone, Debug)]
struct Form {
    /// What they begin with, and then letters that are to be replaced.
    letters: Word,
    /// The checksum as far as the place.
    check: crc32fast::Hasher,
}

impl Words {
    /// For the words of this tape.
    pub fn new(tape: Instance) -> Words {
        Words { tape, told: Form::new(tape, TOLD), begins: Form::new(tape, BEGINS) }
    }

    /// Whose words they are.
    pub fn tape(&self) -> Instance {
        self.tape
    }

    /// The word of the place that has so many publications before it, all of which were told.
    pub fn word(&self, at: u64) -> Word {
        self.told.word(at)
    }

    /// The word of such a place where a subscription begins, for as long as not all was told that it begins with.
    pub fn beginning(&self, at: u64) -> Word {
        self.begins.word(at)
    }
}

impl Form {
    fn new(tape: Instance, form: u8) -> Form {
        let mut bytes = [form; TAPE_END];
        bytes[1..].copy_from_slice(&tape.0.to_be_bytes());
        let mut letters = Word([b'A'; LETTERS]);
        encode(&bytes, &mut letters.0[..TAPE_LETTERS]);
        let mut check = crc32fast::Hasher::new();
        check.update(&bytes);
        Form { letters, check }
    }

    fn word(&self, at: u64) -> Word {
        let mut bytes = [0; BYTES - TAPE_END];
        bytes[..8].copy_from_slice(&at.to_be_bytes());
        let mut check = self.check.clone();
        check.update(&bytes[..8]);
        bytes[8..].copy_from_slice(&check.finalize().to_be_bytes());
        let mut word = self.letters;
        encode(&bytes, &mut word.0[TAPE_LETTERS..]);
        word
    }
}

fn encode(bytes: &[u8], letters: &mut [u8]) {
    URL_SAFE_NO_PAD.encode_slice(bytes, letters).expect("four letters for three bytes");
}

/// A word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word([u8; LETTERS]);

impl Word {
    /// Its letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the letters are ASCII")
    }

    /// Its letters, as bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8; LETTERS] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_word_stays_the_same_from_version_to_version() {
        let cursor = Cursor { tape: Instance(0x0123_4567_89ab_cdef), at: 42, begins: false };
        assert_eq!(cursor.to_string(), "AQEjRWeJq83vAAAAAAAAACpTRNCS");
        assert_eq!(Cursor::parse("AQEjRWeJq83vAAAAAAAAACpTRNCS"), Ok(cursor));
    }

    #[test]
    fn two_tapes_have_two_numbers() {
        assert_ne!(Instance::random(), Instance::random());
    }

    #[test]
    fn what_is_no_word_is_said_in_a_sentence() {
        let word = Cursor { tape: Instance(7), at: 9, begins: true }.to_string();
        let other_form = {
            let mut bytes = [3; BYTES];
            let check = crc32fast::hash(&bytes[..AT_END]).to_be_bytes();
            bytes[AT_END..].copy_from_slice(&check);
            URL_SAFE_NO_PAD.encode(bytes)
        };
        for (text, said) in [
            ("", "cursor: expected 28 letters, found 0"),
            ("k3:7", "cursor: expected letters, digits, - and _, found ':' at byte 2"),
            ("AQé", "cursor: expected letters, digits, - and _, found 'é' at byte 2"),
            (&word[1..], "cursor: expected 28 letters, found 27"),
            (&format!("{word}A"), "cursor: expected 28 letters, found 29"),
            (&format!("{}A", &word[1..]), "cursor: its checksum is that of another"),
            (&other_form, "cursor: expected form 1 or 2, found 3"),
        ] {
            assert_eq!(Cursor::parse(text).unwrap_err().to_string(), said, "{text}");
        }
    }

    #[test]
    fn the_shape_is_that_of_any_form_and_of_no_epoch_and_number() {
        assert!(Cursor::has_shape(Cursor { tape: Instance(7), at: 9, begins: false }.word().as_str()));
        for (text, has) in [
            ("k3:9812", false),
            ("3w5e11264sgsf:9007199254740991", false),
            ("", false),
            ("9812", false),
            (&"a".repeat(LETTERS_MIN), true),
            (&"a".repeat(LETTERS_MAX), true),
            (&"a".repeat(LETTERS_MAX + 1), false),
            (&"é".repeat(LETTERS_MAX / 2), false),
        ] {
            assert_eq!(Cursor::has_shape(text), has, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_word_is_read_back_and_needs_no_escapes(tape: u64, at: u64, begins: bool) {
            let cursor = Cursor { tape: Instance(tape), at, begins };
            let word = cursor.word();
            prop_assert_eq!(Cursor::parse(word.as_str()), Ok(cursor));
            let words = Words::new(Instance(tape));
            prop_assert_eq!(word, if begins { words.beginning(at) } else { words.word(at) });
            prop_assert!(word.as_str().len() <= LETTERS_MAX && word.as_bytes().iter().copied().all(is_letter));
        }

        #[test]
        fn a_word_with_one_other_letter_is_none(tape: u64, at: u64, place in 0..LETTERS, other in "[A-Za-z0-9_-]") {
            let word = Cursor { tape: Instance(tape), at, begins: at % 2 == 0 }.to_string();
            let mut changed = word.clone();
            changed.replace_range(place..=place, &other);
            prop_assert_eq!(Cursor::parse(&changed).is_ok(), changed == word);
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,40}") {
            if let Ok(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
