//! A request's body, as it arrives: by length, or in chunks.
//!
//! ```text
//!  4;ext=1 CR LF     size in hex digits, extensions (ignored)
//!  data CR LF        so many bytes
//!  0 CR LF           the last chunk has none
//!  Name: value CR LF trailers (ignored)
//!  CR LF
//! ```
//!
//! [`BodyDecoder`] hands out slices of its input and keeps nothing but where it stands, so that a body costs no memory
//! here; what is done with it, and where it is collected, is the caller's choice. A body larger than the limit is refused
//! when its length is known, which for a chunked one is at the size of the chunk that goes too far. What isn't data
//! (extensions, trailers) is bounded over the whole body, and every line has to end in CR LF: chunked bodies are where
//! requests are smuggled.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

use super::{head::Body, response::Refusal};

/// The most bytes of chunk extensions and trailers in one body. Few clients send any.
pub const IGNORED_MAX: u32 = 4096;

/// What comes next in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEvent<'i> {
    /// Bytes of the body, never empty.
    Data(&'i [u8]),
    /// The body is complete; the input goes on with the next request.
    End,
}

/// Where a body stands.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    /// How many bytes of data may still come, beyond the chunk being read.
    room: u64,
    ignored: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes to go, of a body with a length.
    Length(u64),
    /// In the digits of a chunk's size.
    Size { size: u64, digits: u32 },
    /// In the extensions after a chunk's size.
    Extension { size: u64 },
    /// After the CR of that line.
    SizeEnd { size: u64 },
    /// So many bytes to go in a chunk.
    Data(u64),
    /// After a chunk's data.
    DataEnd,
    /// After the CR there.
    DataEndLf,
    /// In a trailer line, which has bytes already or none yet.
    Trailer { is_empty: bool },
    /// After the CR of that line.
    TrailerEnd { is_empty: bool },
    /// Complete.
    End,
}

impl BodyDecoder {
    /// A decoder for a body of at most `max` bytes of data.
    pub fn new(body: Body, max: u64) -> BodyDecoder {
        let state = match body {
            Body::None => State::End,
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::Size { size: 0, digits: 0 },
        };
        BodyDecoder { state, room: max, ignored: 0 }
    }

    /// What comes next in `input`, which it advances past what was read; `None` if more input is needed.
    ///
    /// With an empty input it says whether anything is to come at all, and refuses a length beyond the limit: good to
    /// know before `100 Continue` is sent.
    ///
    /// # Errors
    ///
    /// 413 for a body larger than the limit, 400 for one that is malformed. Afterwards the connection can't be used.
    pub fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<BodyEvent<'i>>, Refusal> {
        loop {
            match self.state {
                State::End | State::Length(0) => return Ok(Some(BodyEvent::End)),
                State::Length(left) if left > self.room => return Err(too_large()),
                State::Length(_) if input.is_empty() => return Ok(None),
                State::Length(left) => {
                    let data = take(input, left);
                    self.room = self.room.saturating_sub(data.len() as u64);
                    self.state = State::Length(left.saturating_sub(data.len() as u64));
                    return Ok(Some(BodyEvent::Data(data)));
                }
                State::Data(_) if input.is_empty() => return Ok(None),
                State::Data(left) => {
                    let data = take(input, left);
                    self.state = match left.saturating_sub(data.len() as u64) {
                        0 => State::DataEnd,
                        left => State::Data(left),
                    };
                    return Ok(Some(BodyEvent::Data(data)));
                }
                state => {
                    let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
                    *input = rest;
                    self.state = self.step(state, byte)?;
                }
            }
        }
    }

    /// The state after one more byte of what is around the data.
    fn step(&mut self, state: State, byte: u8) -> Result<State, Refusal> {
        Ok(match (state, byte) {
            (State::Size { digits: 1.., size }, b'\r') => State::SizeEnd { size },
            (State::Size { digits: 1.., size }, b';') => State::Extension { size },
            (State::Size { size, digits }, _) => self.digit(size, digits, byte)?,
            (State::Extension { size }, b'\r') => State::SizeEnd { size },
            (State::Extension { .. }, _) => self.ignore(state, byte)?,
            (State::SizeEnd { size: 0 }, b'\n') => State::Trailer { is_empty: true },
            (State::SizeEnd { size }, b'\n') => {
                self.room = self.room.saturating_sub(size);
                State::Data(size)
            }
            (State::DataEnd, b'\r') => State::DataEndLf,
            (State::DataEndLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::Trailer { is_empty }, b'\r') => State::TrailerEnd { is_empty },
            (State::Trailer { .. }, _) => self.ignore(State::Trailer { is_empty: false }, byte)?,
            (State::TrailerEnd { is_empty: true }, b'\n') => State::End,
            (State::TrailerEnd { is_empty: false }, b'\n') => State::Trailer { is_empty: true },
            _ => return Err(malformed()),
        })
    }

    /// A digit more of a chunk's size. Sixteen are all that a size can have; leading zeros count, or there would be no end.
    fn digit(&self, size: u64, digits: u32, byte: u8) -> Result<State, Refusal> {
        let digit = char::from(byte).to_digit(16).filter(|_| digits < 16).ok_or_else(malformed)?;
        let size = size << 4 | u64::from(digit);
        if size > self.room {
            return Err(too_large());
        }
        Ok(State::Size { size, digits: digits.saturating_add(1) })
    }

    /// Passes over a byte of what is ignored, within bounds.
    fn ignore(&mut self, state: State, byte: u8) -> Result<State, Refusal> {
        if byte.is_ascii_control() && byte != b'\t' {
            return Err(malformed());
        }
        self.ignored = self.ignored.saturating_add(1);
        if self.ignored > IGNORED_MAX {
            return Err(Refusal::new(413, "The body has too many chunk extensions or trailers."));
        }
        Ok(state)
    }
}

/// Splits off at most `max` bytes of the input.
fn take<'i>(input: &mut &'i [u8], max: u64) -> &'i [u8] {
    let len = usize::try_from(max).unwrap_or(usize::MAX).min(input.len());
    let (taken, rest) = input.split_at(len);
    *input = rest;
    taken
}

fn too_large() -> Refusal {
    Refusal::new(413, "The body is larger than accepted here.")
}

fn malformed() -> Refusal {
    Refusal::new(400, "The chunks of the body are malformed.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A body and what follows it, `None` if the input ends first; or the status of a refusal.
    type Outcome = Result<Option<(Vec<u8>, Vec<u8>)>, u16>;

    /// Reads a body in pieces of `size` bytes.
    fn read(body: Body, max: u64, bytes: &[u8], size: usize) -> Outcome {
        let (mut decoder, mut data, mut rest) = (BodyDecoder::new(body, max), Vec::new(), bytes);
        loop {
            let (mut piece, after) = rest.split_at(size.min(rest.len()));
            loop {
                match decoder.next(&mut piece).map_err(|refusal| refusal.status)? {
                    Some(BodyEvent::Data(bytes)) => data.extend_from_slice(bytes),
                    Some(BodyEvent::End) => return Ok(Some((data, [piece, after].concat()))),
                    None => break,
                }
            }
            if after.is_empty() {
                return Ok(None);
            }
            rest = after;
        }
    }

    fn chunked(bytes: &[u8]) -> Outcome {
        read(Body::Chunked, 1000, bytes, usize::MAX)
    }

    #[test]
    fn a_body_ends_where_its_length_says() {
        assert_eq!(read(Body::Length(4), 4, b"bodyGET", 3), Ok(Some((b"body".into(), b"GET".into()))));
        assert_eq!(read(Body::Length(4), 4, b"bod", 9), Ok(None));
        assert_eq!(read(Body::Length(0), 4, b"GET", 9), Ok(Some((vec![], b"GET".into()))));
        assert_eq!(read(Body::None, 4, b"GET", 9), Ok(Some((vec![], b"GET".into()))));
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_a_byte_is_read() {
        let mut decoder = BodyDecoder::new(Body::Length(5), 4);
        assert_eq!(decoder.next(&mut &b""[..]).unwrap_err().status, 413);
    }

    #[test]
    fn extensions_and_trailers_are_passed_over() {
        let bytes = b"4;a=\"b\"\r\nRust\r\nA\r\n0123456789\r\n000\r\nTrailer: x\r\nB: y\r\n\r\nGET";
        assert_eq!(chunked(bytes), Ok(Some((b"Rust0123456789".into(), b"GET".into()))));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        let bodies: [&[u8]; 14] = [
            b"\r\n",
            b";ext\r\n",
            b"4 \r\nRust\r\n",
            b" 4\r\nRust\r\n",
            b"0x4\r\nRust\r\n",
            b"+4\r\nRust\r\n",
            b"4\nRust\r\n",
            b"4\r\nRust0\r\n",
            b"4\r\nRust\n0\r\n",
            b"4\r\rRust\r\n",
            b"4;a\nb\r\nRust\r\n",
            b"00000000000000001\r\nx\r\n",
            b"0\r\n\n",
            b"0\r\nA: b\n\r\n",
        ];
        for bytes in bodies {
            assert_eq!(chunked(bytes), Err(400), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn chunks_that_add_up_to_more_than_the_limit_are_refused_at_their_size() {
        assert_eq!(read(Body::Chunked, 6, b"4\r\nRust\r\n3", 99), Err(413));
        assert_eq!(chunked(b"FFFFFFFFFFFFFFFF"), Err(413));
    }

    #[test]
    fn what_is_ignored_is_bounded_over_the_whole_body() {
        let ext = [b"1;", &[b'e'; 1500][..], b"\r\nx\r\n"].concat();
        assert_eq!(chunked(&ext.repeat(3)), Err(413));
        assert_eq!(chunked(&[b"0\r\n", &b"A: b\r\n".repeat(2000)[..]].concat()), Err(413));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_bytes(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..80), 0..10),
            extension in "(;[a-z]{1,5})?",
            trailer in "(X: [a-z]{0,9}\r\n)?",
            size in 1_usize..50,
        ) {
            let mut bytes = Vec::new();
            for part in &parts {
                bytes.extend(format!("{:x}{extension}\r\n", part.len()).bytes());
                bytes.extend_from_slice(part);
                bytes.extend(b"\r\n");
            }
            bytes.extend(format!("0\r\n{trailer}\r\nnext").bytes());
            prop_assert_eq!(read(Body::Chunked, 1000, &bytes, size), Ok(Some((parts.concat(), b"next".into()))));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused_alike_in_any_pieces(
            bytes in "[0-9a-f;x\r\n ]{0,60}",
            size in 1_usize..9,
        ) {
            prop_assert_eq!(read(Body::Chunked, 50, bytes.as_bytes(), size), read(Body::Chunked, 50, bytes.as_bytes(), 99));
        }
    }
}
