//! A cursor as a client of the simulation keeps and shows it, read by a reader of its own.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// A cursor.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub word: String,
    /// So many publications of the journal come before.
    pub at: u64,
    /// What a subscription begins with there may be missing.
    pub begins: bool,
    /// It is as it was told.
    pub sound: bool,
}

impl Place {
    pub fn read(word: &str) -> Place {
        assert!(word.len() <= 32, "{word}");
        let bytes = URL_SAFE_NO_PAD.decode(word).unwrap_or_else(|error| panic!("{word}: {error}"));
        let (form, at) = (bytes[0], u64::from_be_bytes(bytes[9..17].try_into().unwrap()));
        assert!(matches!(form, 1 | 2) && bytes.len() == 21, "{word}");
        Place { word: word.to_owned(), at, begins: form == 2, sound: true }
    }

    /// Whether it stands for a place, be that still retained or not.
    pub fn is_one(&self) -> bool {
        self.sound && self.at != u64::MAX
    }

    /// One that is no more what it was.
    pub fn broken(&self, random: &mut fastrand::Rng) -> Place {
        let mut letters: Vec<char> = self.word.chars().collect();
        match random.u8(..3) {
            0 => {
                let at = random.usize(..letters.len());
                letters[at] = if letters[at] == 'Q' { 'R' } else { 'Q' };
            }
            1 => letters.truncate(random.usize(1..letters.len())),
            _ => letters = (0..random.usize(1..40)).map(|_| random.alphanumeric()).collect(),
        }
        Place { word: letters.into_iter().collect(), sound: false, ..*self }
    }
}
