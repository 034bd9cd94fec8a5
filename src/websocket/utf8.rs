//! UTF-8 checked as it arrives, in any pieces.
//!
//! A text message must be refused with 1007 if it isn't UTF-8 (RFC 6455 section 8.1), and a long one should be refused
//! at the first byte that no continuation can repair, not once megabytes of it have been taken in. So the check runs on
//! each piece. A character cut by the end of a piece is carried over: at most three bytes, for no character has more
//! than four. Everything between the two cuts goes to `simdutf8` in one call.

use std::str::from_utf8;

/// The bytes are not UTF-8, and none that could follow would make them so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadUtf8;

/// The check of one text: where it stands between two pieces.
///
/// ```text
///   piece 1              piece 2
///   … 31 30 E2 82        AC 20 …        "10€ …", the sign cut in two
///           └─┬─┘
///           carried, len 2
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8 {
    carried: [u8; 3],
    len: u8,
}

impl Utf8 {
    /// Checks the next piece. After an error the check is over.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), BadUtf8> {
        let rest = if self.len == 0 { piece } else { self.complete(piece)? };
        let (bulk, cut) = rest.split_at(cut(rest));
        simdutf8::basic::from_utf8(bulk).map_err(|_| BadUtf8)?;
        self.carry(cut)
    }

    /// The text has ended: an error if that was inside a character.
    pub fn finish(&self) -> Result<(), BadUtf8> {
        if self.len == 0 { Ok(()) } else { Err(BadUtf8) }
    }

    /// Completes the carried character from the start of `piece` and returns what follows it: nothing if the piece ends
    /// before the character does.
    fn complete<'p>(&mut self, piece: &'p [u8]) -> Result<&'p [u8], BadUtf8> {
        let mut character = [0; 4];
        let mut len = usize::from(self.len);
        character[..len].copy_from_slice(&self.carried[..len]);

        // The carried bytes are a proper prefix of a character, so that one is complete or refused before the array ends.
        let mut rest = piece;
        while let Some((&byte, after)) = rest.split_first() {
            character[len] = byte;
            len += 1;
            rest = after;
            match from_utf8(&character[..len]) {
                Ok(_) => {
                    self.len = 0;
                    return Ok(rest);
                }
                Err(e) if e.error_len().is_some() => return Err(BadUtf8),
                Err(_) => {}
            }
        }
        self.carry(&character[..len])?;
        Ok(rest)
    }

    /// Keeps the beginning of a character for the next piece, unless it begins none.
    fn carry(&mut self, cut: &[u8]) -> Result<(), BadUtf8> {
        if cut.is_empty() {
            return Ok(());
        }
        debug_assert!(cut.len() <= 3);
        match from_utf8(cut) {
            // No error length means "ended too early": more bytes may still make it right.
            Err(e) if e.error_len().is_none() => {
                self.carried[..cut.len()].copy_from_slice(cut);
                self.len = cut.len() as u8;
                Ok(())
            }
            _ => Err(BadUtf8),
        }
    }
}

/// Where the last character begins, if the end of `bytes` cuts it; otherwise the length of `bytes`.
fn cut(bytes: &[u8]) -> usize {
    let last = bytes.len().saturating_sub(3);
    match bytes[last..].iter().rposition(|&byte| byte >= 0xC0) {
        Some(at) if last + at + width(bytes[last + at]) > bytes.len() => last + at,
        _ => bytes.len(),
    }
}

/// How many bytes the character has that begins with `lead`, 0xC0 or above. Those that begin none count like others and
/// are found out by the check.
fn width(lead: u8) -> usize {
    match lead {
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything so far, kept and checked again with each piece.
    #[derive(Default)]
    struct Naive(Vec<u8>);

    impl Naive {
        fn feed(&mut self, piece: &[u8]) -> Result<(), BadUtf8> {
            self.0.extend_from_slice(piece);
            match from_utf8(&self.0) {
                Err(e) if e.error_len().is_some() => Err(BadUtf8),
                _ => Ok(()),
            }
        }

        fn finish(&self) -> Result<(), BadUtf8> {
            from_utf8(&self.0).map(|_| ()).map_err(|_| BadUtf8)
        }
    }

    /// How many single bytes of `bytes` are taken before the refusal.
    fn taken(bytes: &[u8]) -> usize {
        let mut check = Utf8::default();
        bytes.iter().take_while(|&&byte| check.feed(&[byte]).is_ok()).count()
    }

    #[test]
    fn a_character_cut_anywhere_is_one_character() {
        let text = "κόσμε€𝄞".as_bytes();
        for at in 0..=text.len() {
            let mut check = Utf8::default();
            check.feed(&text[..at]).unwrap();
            check.feed(&text[at..]).unwrap();
            check.finish().unwrap();
        }
    }

    #[test]
    fn refused_at_the_first_byte_that_nothing_can_repair() {
        assert_eq!(taken(&[0xCE, 0xBA, 0xED, 0xA0, 0x80]), 3, "a surrogate shows in its second byte");
        assert_eq!(taken(&[0xF4, 0x90, 0x80, 0x80]), 1, "beyond the last character");
        assert_eq!(taken(&[b'a', 0xC0, 0x80]), 1, "overlong");
        assert_eq!(taken(&[0xE0, 0x80, 0x80]), 1, "overlong");
        assert_eq!(taken(&[b'a', 0x80]), 1, "a continuation of nothing");
        assert_eq!(taken(&[0xFF]), 0);
    }

    #[test]
    fn text_that_ends_inside_a_character_is_bad_only_at_its_end() {
        let mut check = Utf8::default();
        check.feed(&[0xF0, 0x9D]).unwrap();
        check.feed(&[]).unwrap();
        check.feed(&[0x84]).unwrap();
        assert_eq!(check.finish(), Err(BadUtf8));
    }

    /// Good text, some of it spoilt: bytes cut off, replaced or added.
    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => "[a-z0-9 ]{0,80}".prop_map(String::into_bytes),
            4 => "[α-ω€𝄞日本]{0,40}".prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>(), 0..3),
            1 => prop::sample::select(vec![vec![0xED, 0xA0], vec![0xF4, 0x90], vec![0xE2, 0x82], vec![0xC1]]),
        ];
        prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn any_chunking_is_judged_like_the_whole_kept_and_checked_again(
            text in texts(),
            sizes in prop::collection::vec(1_usize..30, 1..60),
        ) {
            let (mut ours, mut naive) = (Utf8::default(), Naive::default());
            let mut rest = &text[..];
            for size in sizes.into_iter().cycle() {
                if rest.is_empty() { break }
                let (piece, after) = rest.split_at(size.min(rest.len()));
                let verdict = ours.feed(piece);
                prop_assert_eq!(verdict, naive.feed(piece));
                if verdict.is_err() { return Ok(()) }
                rest = after;
            }
            prop_assert_eq!(ours.finish(), naive.finish());
        }
    }
}
