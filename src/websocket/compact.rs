//! A compressor that takes little memory, for streams of which there are many: [`Compact`].
//!
//! A compressor of zlib's family keeps some 290 KiB. Where each of hundreds of subscribers has a stream of its own, that is not in the processor's
//! cache when the next message comes, and a message of 300 bytes costs ten to thirty microseconds instead of two to nine. This one keeps 16 KiB, which it
//! fetches at once before it begins, costs two either way, and leaves less than zlib-rs does at level 1: of quotes 22 instead of 28 %, where level 7
//! leaves 19 %.
//!
//! ```text
//!   text      | what was compressed before …              | this piece of a message |      two windows; behind that the newer half moves down
//!   places     four bytes, hashed  →  where they came the last four times, in one line of the cache
//! ```
//!
//! It is LZ77 (RFC 1951 section 4), with buckets for hashes rather than chains of them; a match is passed over for a longer one that begins one byte
//! later. What comes out is one block with the fixed codes (section 3.2.6): the codes of one's own that a block
//! may have would have to be sent with each message, and are as long as a message is. So what a message costs and what it is compressed to are both
//! bounded by its length: at most nine bits for each byte, and ten bits.

use std::{hint::black_box, ops::Range};

/// How far back is referred, at most.
const WINDOW: usize = 1 << 12;
const HASH_BITS: u32 = 10;

/// So much of a message is taken at a time: as the newer half of the text moves down when it is full, so much less than a window may be known.
const PIECE: usize = WINDOW / 4;

/// Places of the same hash that are known. Four leave a tenth less than one; eight 2 % less than four, and cost half as much again.
const WAYS: usize = 4;

/// The shortest match, and the longest (RFC 1951 section 3.2.5: from 3 to 258). Of three bytes one would be found too seldom.
const MATCH_MIN: usize = 4;
const MATCH_MAX: usize = 258;

/// A match that is so long is taken, whatever would begin one byte later.
const GOOD: usize = 32;

/// Memory that one takes, in bytes.
pub const COMPACT_BYTES: usize = size_of::<Tables>() + size_of::<Compact>();

/// See the module's description.
pub struct Compact {
    tables: Box<Tables>,
    /// Where the text ends.
    end: usize,
    reach: usize,
}

/// Places are counted from 1 on, so that 0 is none.
struct Tables {
    text: [u8; 2 * WINDOW],
    /// The newest first.
    places: [[u16; WAYS]; 1 << HASH_BITS],
}

/// A stretch that came before: how long it is and how far back.
#[derive(Clone, Copy)]
struct Match {
    len: usize,
    distance: usize,
}

impl Compact {
    /// One that refers back no further than a window of so many bits, nor than one of 12.
    pub fn new(window_bits: u8) -> Compact {
        let tables = Box::new(Tables { text: [0; _], places: [[0; WAYS]; _] });
        Compact { tables, end: 0, reach: WINDOW.min(1 << window_bits) }
    }

    /// Forgets what came before.
    pub fn begin_anew(&mut self) {
        self.tables.places.fill([0; WAYS]);
        self.end = 0;
    }

    /// Appends a message as it is compressed, behind those before it, and flushed (RFC 7692 section 7.2.1): without the four bytes that every flush ends
    /// with.
    pub fn message(&mut self, message: &[u8], out: &mut Vec<u8>) {
        self.fetch();
        out.reserve(bytes_at_most(message.len()));
        let mut bits = Bits { out, held: 0, len: 0 };
        // Not the last block, and one with the fixed codes.
        bits.push(0b010, 3);
        for piece in message.chunks(PIECE) {
            self.piece(piece, &mut bits);
        }
        bits.symbol(BLOCK_END);
        // An empty block that is stored: of it the first three bits, up to a whole byte.
        bits.push(0, 3);
        bits.finish();
    }

    /// Takes in a message that is sent by other means to whoever reads this: what comes behind lies so much further from what came before. It is not
    /// referred to itself.
    pub fn pass(&mut self, message: &[u8]) {
        // Of one that is longer than a window, nothing before is in reach any more.
        let known = &message[message.len().saturating_sub(WINDOW)..];
        for piece in known.chunks(PIECE) {
            self.append(piece);
        }
    }

    /// Looks at each line of the cache that may be needed, one beside the other: where they have to come from memory, the processor waits for all of them
    /// at once, rather than for one after the other.
    fn fetch(&self) {
        const LINE: usize = 64;
        let Tables { text, places } = &*self.tables;
        let known = &text[self.end.saturating_sub(WINDOW)..self.end];
        let texts = known.iter().step_by(LINE).fold(0, |sum, byte| sum ^ byte);
        let places = places.iter().step_by(LINE / size_of::<[u16; WAYS]>()).fold(0, |sum, place| sum ^ place[0]);
        black_box((texts, places));
    }

    fn piece(&mut self, piece: &[u8], bits: &mut Bits<'_>) {
        let Range { start: mut at, end } = self.append(piece);
        // What begins one byte before `at`, and gives way to what is longer.
        let mut before: Option<Match> = None;
        while at < end {
            let longer_than = before.map_or(MATCH_MIN - 1, |before| before.len);
            let found = if at + MATCH_MIN <= end {
                let candidates = self.note(at);
                if longer_than < GOOD { self.longest(at, candidates, longer_than) } else { None }
            } else {
                None
            };
            match (before.take(), found) {
                (None, None) => {
                    bits.symbol(self.tables.text[at].into());
                    at += 1;
                }
                (None, found) => {
                    before = found;
                    at += 1;
                }
                (Some(_), Some(longer)) => {
                    bits.symbol(self.tables.text[at - 1].into());
                    before = Some(longer);
                    at += 1;
                }
                (Some(taken), None) => {
                    bits.back(taken);
                    let next = at - 1 + taken.len;
                    for place in at + 1..next.min(end.saturating_sub(MATCH_MIN - 1)) {
                        self.note(place);
                    }
                    at = next;
                }
            }
        }
        debug_assert!(before.is_none(), "a match is at least as long as what is left where the next one would begin");
    }

    /// Puts a piece behind the text. Returns where it is.
    fn append(&mut self, piece: &[u8]) -> Range<usize> {
        if self.end + piece.len() > 2 * WINDOW {
            self.move_down();
        }
        let place = self.end..self.end + piece.len();
        self.tables.text[place.clone()].copy_from_slice(piece);
        self.end = place.end;
        place
    }

    /// The newer half of the text becomes the older one.
    fn move_down(&mut self) {
        let Tables { text, places } = &mut *self.tables;
        text.copy_within(WINDOW..self.end, 0);
        self.end -= WINDOW;
        for place in places.as_flattened_mut() {
            *place = place.saturating_sub(WINDOW as u16);
        }
    }

    /// Notes that four bytes are at `at`. Returns where the like were before.
    #[inline]
    fn note(&mut self, at: usize) -> [u16; WAYS] {
        let Tables { text, places } = &mut *self.tables;
        let four = u32::from_le_bytes(text[at..at + 4].try_into().expect("four bytes"));
        // Fibonacci hashing (Knuth, The Art of Computer Programming, section 6.4): the upper bits of a product with 2^32 / φ.
        let hash = four.wrapping_mul(0x9e37_79b1) >> (u32::BITS - HASH_BITS);
        let places = &mut places[hash as usize];
        let before = *places;
        places.copy_within(..WAYS - 1, 1);
        places[0] = (at + 1) as u16;
        before
    }

    /// The longest match of what is at `at` that is longer than that.
    #[inline]
    fn longest(&self, at: usize, candidates: [u16; WAYS], longer_than: usize) -> Option<Match> {
        let text = &self.tables.text;
        let here = &text[at..self.end.min(at + MATCH_MAX)];
        let mut best = Match { len: longer_than, distance: 0 };
        for candidate in candidates {
            let Some(place) = usize::from(candidate).checked_sub(1).filter(|place| at - place <= self.reach) else {
                break;
            };
            if best.len >= here.len() {
                break;
            }
            // One that differs at the byte that would make it longer isn't.
            if text[place + best.len] == here[best.len] {
                let len = common(&text[place..place + here.len()], here);
                if len > best.len {
                    best = Match { len, distance: at - place };
                }
            }
        }
        (best.distance > 0).then_some(best)
    }
}

/// How many bytes two stretches of one length begin with in common.
#[inline]
fn common(a: &[u8], b: &[u8]) -> usize {
    let words = a.chunks_exact(8).zip(b.chunks_exact(8));
    let mut len = 0;
    for (a, b) in words {
        let (a, b) = [a, b].map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).into();
        if a != b {
            return len + ((a ^ b).trailing_zeros() / 8) as usize;
        }
        len += 8;
    }
    len + a[len..].iter().zip(&b[len..]).take_while(|(a, b)| a == b).count()
}

/// Bytes that a message of so many comes to, at most.
fn bytes_at_most(len: usize) -> usize {
    len + len / 8 + 16
}

/// Bits on their way into bytes, from the lowest on (RFC 1951 section 3.1.1).
struct Bits<'o> {
    out: &'o mut Vec<u8>,
    held: u64,
    len: u32,
}

impl Bits<'_> {
    #[inline]
    fn push(&mut self, bits: u32, len: u32) {
        self.held |= u64::from(bits) << self.len;
        self.len += len;
        if self.len >= u32::BITS {
            self.out.extend_from_slice(&(self.held as u32).to_le_bytes());
            self.held >>= u32::BITS;
            self.len -= u32::BITS;
        }
    }

    /// A literal, or the end of the block.
    #[inline]
    fn symbol(&mut self, symbol: usize) {
        let Code { bits, len } = SYMBOLS[symbol];
        self.push(bits.into(), len.into());
    }

    /// What came before.
    #[inline]
    fn back(&mut self, Match { len, distance }: Match) {
        let Code { bits, len } = LENGTHS[len];
        self.push(bits.into(), len.into());
        // Codes of distances are five bits: two of each power of two from 4 on (section 3.2.5).
        let beyond = (distance - 1) as u32;
        let (code, extra) = match beyond.checked_ilog2() {
            None | Some(0) => (beyond, 0),
            Some(log) => (2 * log + (beyond >> (log - 1) & 1), log - 1),
        };
        self.push(reversed(code, 5) | (beyond & ((1 << extra) - 1)) << 5, 5 + extra);
    }

    /// Up to a whole byte.
    fn finish(self) {
        let bytes = self.len.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.held.to_le_bytes()[..bytes]);
    }
}

/// A code, with the bits behind it: the first one lowest.
#[derive(Clone, Copy)]
struct Code {
    bits: u16,
    len: u8,
}

const BLOCK_END: usize = 256;

/// The fixed codes (RFC 1951 section 3.2.6) of literals, the end of a block, and lengths.
const SYMBOLS: [Code; 288] = {
    let mut codes = [Code { bits: 0, len: 0 }; 288];
    let mut symbol = 0;
    while symbol < 288 {
        let n = symbol as u32;
        let (code, len) = match symbol {
            0..144 => (0x30 + n, 8),
            144..256 => (0x190 + n - 144, 9),
            256..280 => (n - 256, 7),
            _ => (0xc0 + n - 280, 8),
        };
        codes[symbol] = Code { bits: reversed(code, len) as u16, len: len as u8 };
        symbol += 1;
    }
    codes
};

/// Those of lengths, by the length, with their extra bits (section 3.2.5): from 11 on four codes for each power of two, and one for the longest.
const LENGTHS: [Code; MATCH_MAX + 1] = {
    let mut codes = [Code { bits: 0, len: 0 }; MATCH_MAX + 1];
    let mut length = 3;
    while length <= MATCH_MAX {
        let beyond = length as u32 - 3;
        let (symbol, extra) = match beyond {
            0..8 => (257 + beyond, 0),
            255 => (285, 0),
            _ => {
                let log = beyond.ilog2();
                (257 + 4 * (log - 1) + (beyond >> (log - 2) & 3), log - 2)
            }
        };
        let Code { bits, len } = SYMBOLS[symbol as usize];
        let tail = beyond & ((1 << extra) - 1);
        codes[length] = Code { bits: bits | (tail << len) as u16, len: len + extra as u8 };
        length += 1;
    }
    codes
};

/// Huffman codes go from their highest bit on.
const fn reversed(code: u32, len: u32) -> u32 {
    code.reverse_bits() >> (u32::BITS - len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::websocket::independent::Context;

    /// Sends messages through both, and returns the bytes that they came to.
    fn through(window_bits: u8, messages: &[Vec<u8>], anew_every: usize) -> usize {
        let (mut compact, mut reader) = (Compact::new(window_bits), Context::new(window_bits));
        let mut bytes = 0;
        for (n, message) in messages.iter().enumerate() {
            if n % anew_every == anew_every - 1 {
                compact.begin_anew();
                // Nothing behind refers back beyond that.
                reader = Context::new(window_bits);
            }
            let mut out = Vec::new();
            compact.message(message, &mut out);
            assert!(out.len() <= bytes_at_most(message.len()), "{} of {}", out.len(), message.len());
            assert!(reader.message(&out).as_ref() == Some(message), "message {n} of {} bytes", message.len());
            bytes += out.len();
        }
        bytes
    }

    fn quotes(n: usize) -> Vec<Vec<u8>> {
        let quote = |n: usize| {
            format!(
                r#"{{"type":"update","topic":"q.us.{}","seq":{n},"ts":17231612539{n:05},"data":{{"bid":{}.{:02},"ask":{}.{:02}}}}}"#,
                ["AAPL", "MSFT", "NVDA"][n % 3],
                100 + n * 7 % 90,
                n * 31 % 97,
                101 + n * 7 % 90,
                n * 37 % 97
            )
        };
        (0..n).map(|n| quote(n).into_bytes()).collect()
    }

    #[test]
    fn every_length_and_distance_is_read_by_another_inflater() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut noise = |len: usize| -> Vec<u8> { (0..len).map(|_| random.u8(..)).collect() };
        for bits in 9..=12 {
            for len in (MATCH_MIN..=MATCH_MAX + 3).step_by(if bits == 12 { 1 } else { 17 }) {
                // Of the last stretch the first and the second half of a window, and one byte more than may be referred to.
                for distance in [len, len + 7, (1 << bits) / 2, (1 << bits) - 1, 1 << bits, (1 << bits) + 1] {
                    let stretch = noise(len);
                    let between = noise(distance.saturating_sub(len));
                    let mut messages = vec![stretch.clone()];
                    messages.extend(between.chunks(700).map(<[u8]>::to_vec));
                    messages.push(stretch);
                    through(bits, &messages, usize::MAX);
                }
            }
        }
        // Referring to what is not over yet.
        for period in 1..20 {
            let pattern: Vec<u8> = noise(period).into_iter().cycle().take(5000).collect();
            assert!(through(12, &[pattern], usize::MAX) < 250, "{period}");
        }
    }

    #[test]
    fn nothing_is_referred_to_at_a_wrong_distance_behind_what_was_passed_over() {
        let mut random = fastrand::Rng::with_seed(4);
        let mut noise = |len: usize| -> Vec<u8> { (0..len).map(|_| random.u8(..)).collect() };
        let stretch = noise(200);
        for len in (0..3 * WINDOW).step_by(61).chain([WINDOW - 200, WINDOW - 199, WINDOW, WINDOW + 1, 2 * WINDOW]) {
            let (mut compact, mut reader) = (Compact::new(12), Context::new(12));
            let (passed, mut out) = (noise(len), Vec::new());
            compact.message(&stretch, &mut out);
            reader.message(&out).unwrap();
            compact.pass(&passed);
            // Stored, as whoever compresses by other means may do.
            for part in passed.chunks(60_000) {
                let len = part.len() as u16;
                let block = [&[0][..], &len.to_le_bytes(), &(!len).to_le_bytes(), part, &[0]].concat();
                assert!(reader.message(&block).as_deref() == Some(part));
            }
            out.clear();
            compact.message(&stretch, &mut out);
            assert!(reader.message(&out).as_ref() == Some(&stretch), "{len} between");
            let is_near = len + stretch.len() <= WINDOW;
            assert_eq!(out.len() < 20, is_near, "{} bytes, {len} between", out.len());
        }
    }

    #[test]
    fn what_repeats_leaves_little_and_what_does_not_an_eighth_more_at_most() {
        let messages = quotes(2000);
        let bytes = through(12, &messages, usize::MAX);
        let mut zlib = flate2::Compress::new_with_window_bits(flate2::Compression::fast(), false, 12);
        let mut theirs = 0;
        for message in &messages {
            let mut out = Vec::with_capacity(1000);
            zlib.compress_vec(message, &mut out, flate2::FlushCompress::Sync).unwrap();
            theirs += out.len() - 4;
        }
        assert!(bytes < theirs, "{bytes}, and {theirs} of zlib-rs at its level 1");
        let mut random = fastrand::Rng::with_seed(2);
        let noise: Vec<Vec<u8>> = [0, 1, 2, 3, 4, 5, PIECE - 1, PIECE, PIECE + 1, 3 * WINDOW, 70_000]
            .map(|len| (0..len).map(|_| random.u8(..)).collect())
            .into();
        through(12, &noise, usize::MAX);
    }

    #[test]
    fn what_came_before_is_known_wherever_the_text_has_moved_down() {
        let mut random = fastrand::Rng::with_seed(3);
        let stretch: Vec<u8> = (0..200).map(|_| random.u8(..)).collect();
        for before in (0..2 * WINDOW + 600).step_by(97) {
            let mut compact = Compact::new(12);
            let mut out = Vec::new();
            let noise: Vec<u8> = (0..before).map(|_| random.u8(..)).collect();
            noise.chunks(PIECE / 2).for_each(|part| compact.message(part, &mut Vec::new()));
            compact.message(&stretch, &mut Vec::new());
            // More than half of a window lies between, and less than three quarters.
            let between: Vec<u8> = (0..WINDOW * 5 / 8).map(|_| random.u8(..)).collect();
            between.chunks(PIECE / 2).for_each(|part| compact.message(part, &mut Vec::new()));
            compact.message(&stretch, &mut out);
            assert!(out.len() < 10, "{} bytes behind {before}", out.len());
        }
    }

    proptest! {
        #[test]
        fn whatever_is_compressed_is_read_by_another_inflater(
            bits in 9u8..=15,
            anew_every in 1usize..40,
            seeds in prop::collection::vec((0usize..3000, 1u8..20, any::<u64>()), 1..40),
        ) {
            let message = |&(len, letters, seed): &(usize, u8, u64)| {
                let mut random = fastrand::Rng::with_seed(seed % 3);
                (0..len).map(|_| random.u8(..letters)).collect()
            };
            let messages: Vec<Vec<u8>> = seeds.iter().map(message).collect();
            through(bits, &messages, anew_every);
        }
    }
}
