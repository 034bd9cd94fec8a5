//! Frames: their header read and written, and small ones appended to a buffer.
//!
//! ```text
//!   byte 0                1                2 …                      then, if masked
//!  ┌─┬─┬─┬─┬───────┐┌─┬─────────────┐┌─────────────────────────┐┌──────────────────┐┌─────────
//!  │F│R│R│R│opcode ││M│ length      ││ longer length:          ││ masking key,     ││ payload
//!  │I│S│S│S│       ││A│ 0–125: it   ││ 2 bytes if length = 126 ││ 4 bytes          ││ …
//!  │N│V│V│V│       ││S│ 126, 127:   ││ 8 bytes if length = 127 ││                  ││
//!  │ │1│2│3│       ││K│ see right   ││ big-endian              ││                  ││
//!  └─┴─┴─┴─┴───────┘└─┴─────────────┘└─────────────────────────┘└──────────────────┘└─────────
//! ```
//!
//! (RFC 6455 section 5.2.) A server's frames are unmasked, so their header has 2, 4 or 10 bytes; a client's has 4 more.
//! Reading refuses what no peer may send in any state: reserved bits and opcodes, lengths not in their shortest form,
//! long or fragmented control frames. What depends on the state of a connection is the decoder's business. Of the reserved bits the
//! first has a meaning where permessage-deflate was agreed on: the message that begins with the frame is compressed (RFC 7692
//! section 6).

use super::{
    close::{self, CloseCode},
    violation::Violation,
};

/// The longest header: two bytes, eight of length, four of key.
pub const HEADER_MAX: usize = 14;

/// The longest payload of a control frame (RFC 6455 section 5.5).
pub const CONTROL_MAX: usize = 125;

const FIN: u8 = 0x80;
const DEFLATED: u8 = 0x40;
const RESERVED: u8 = 0x30;
const OPCODE: u8 = 0x0F;
const MASK: u8 = 0x80;
const LENGTH: u8 = 0x7F;
const LENGTH_IN_2: u8 = 126;
const LENGTH_IN_8: u8 = 127;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// Goes on with the message begun.
    Continuation = 0x0,
    /// Begins a message of UTF-8 text.
    Text = 0x1,
    /// Begins a message of bytes.
    Binary = 0x2,
    /// Begins or answers the end of the connection.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping, or just shows a sign of life.
    Pong = 0xA,
}

impl Opcode {
    /// Close, ping and pong: they may come between the frames of a message.
    pub fn is_control(self) -> bool {
        self as u8 >= 0x8
    }

    fn from_bits(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xA => Opcode::Pong,
            _ => return None,
        })
    }
}

/// The header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The last frame of its message.
    pub fin: bool,
    /// It begins a message that is compressed (RSV1).
    pub deflated: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The key that the payload is masked with, if it is.
    pub key: Option<[u8; 4]>,
    /// The payload's bytes, below 2^63.
    pub payload_len: u64,
}

impl Header {
    /// Reads the header at the start of `bytes` and says how many bytes it has; `None` while it is incomplete.
    ///
    /// # Errors
    ///
    /// As soon as the bytes there break a rule, also before the header is complete.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Violation> {
        Header::parse_with(bytes, false)
    }

    /// The same, where messages may be compressed.
    ///
    /// # Errors
    ///
    /// As [`Header::parse`].
    #[inline]
    pub fn parse_with(bytes: &[u8], may_deflate: bool) -> Result<Option<(Header, usize)>, Violation> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let (fin, deflated) = (first & FIN != 0, first & DEFLATED != 0);
        if first & RESERVED != 0 || (deflated && !may_deflate) {
            return Err(Violation::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & OPCODE).ok_or(Violation::ReservedOpcode)?;
        if deflated && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err(Violation::DeflatedWithin);
        }
        if opcode.is_control() && !fin {
            return Err(Violation::FragmentedControl);
        }

        let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
        let length = second & LENGTH;
        if opcode.is_control() && usize::from(length) > CONTROL_MAX {
            return Err(Violation::LongControl);
        }
        let Some((payload_len, rest)) = parse_length(length, rest)? else { return Ok(None) };

        let (key, rest) = if second & MASK == 0 {
            (None, rest)
        } else {
            let Some((key, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
            (Some(*key), rest)
        };
        Ok(Some((Header { fin, deflated, opcode, key, payload_len }, bytes.len() - rest.len())))
    }

    /// Appends the header as it goes on the wire, the length in its shortest form.
    pub fn push(&self, out: &mut Vec<u8>) {
        let mask = if self.key.is_some() { MASK } else { 0 };
        out.push(first_byte(self.fin, self.opcode) | if self.deflated { DEFLATED } else { 0 });
        match self.payload_len {
            0..=125 => out.push(mask | self.payload_len as u8),
            126..=0xFFFF => {
                out.push(mask | LENGTH_IN_2);
                out.extend_from_slice(&(self.payload_len as u16).to_be_bytes());
            }
            _ => {
                out.push(mask | LENGTH_IN_8);
                out.extend_from_slice(&self.payload_len.to_be_bytes());
            }
        }
        out.extend_from_slice(self.key.as_ref().map_or(&[], |key| &key[..]));
    }
}

/// The payload's length from the seven bits in the second byte and the bytes after it.
fn parse_length(length: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, Violation> {
    match length {
        LENGTH_IN_2 => {
            let Some((bytes, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
            match u16::from_be_bytes(*bytes) {
                0..=125 => Err(Violation::LengthNotMinimal),
                length => Ok(Some((length.into(), rest))),
            }
        }
        LENGTH_IN_8 => {
            let Some((bytes, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
            match u64::from_be_bytes(*bytes) {
                0..=0xFFFF => Err(Violation::LengthNotMinimal),
                length if length >> 63 != 0 => Err(Violation::LengthOverflow),
                length => Ok(Some((length, rest))),
            }
        }
        length => Ok(Some((length.into(), rest))),
    }
}

fn first_byte(fin: bool, opcode: Opcode) -> u8 {
    opcode as u8 | if fin { FIN } else { 0 }
}

/// How many bytes the header of an unmasked frame with such a payload has: 2, 4 or 10.
pub fn header_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    }
}

/// Writes the header of an unmasked frame to the start of `out` and returns its length, [`header_len`].
///
/// # Panics
///
/// If `out` is shorter than that.
pub fn write_header(out: &mut [u8], fin: bool, opcode: Opcode, payload_len: usize) -> usize {
    let len = header_len(payload_len);
    write_header_of(len, out, opcode, payload_len);
    out[0] = first_byte(fin, opcode);
    len
}

/// The same for a header that has `len` bytes, of a whole message.
#[inline(always)]
fn write_header_of(len: usize, out: &mut [u8], opcode: Opcode, payload_len: usize) {
    out[0] = first_byte(true, opcode);
    match len {
        2 => out[1] = payload_len as u8,
        4 => {
            out[1] = LENGTH_IN_2;
            out[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
        }
        _ => {
            out[1] = LENGTH_IN_8;
            out[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
        }
    }
}

/// Writes the header of an unmasked frame that is to fill `out`, whose length is that of the header and the payload together,
/// and returns the header's length.
///
/// # Panics
///
/// If `out` is shorter than a header.
#[inline]
pub fn write_header_to_fill(out: &mut [u8], opcode: Opcode) -> usize {
    let len = match out.len() {
        0..=127 => 2,
        128..=0x1_0003 => 4,
        _ => 10,
    };
    let payload_len = out.len() - len;
    write_header_of(len, out, opcode, payload_len);
    len
}

/// Appends a text message in one frame.
#[cfg(test)]
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    push(out, Opcode::Text, text.as_bytes());
}

/// Appends a text message in one frame, which `write` appends: how long it is needn't be known before.
pub fn push_text_with(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    // The header of most messages takes so many bytes or two less: then little is moved.
    out.extend_from_slice(&[0; 4]);
    write(out);
    let mut header = [0; HEADER_MAX];
    let len = write_header(&mut header, true, Opcode::Text, out.len() - start - 4);
    out.splice(start..start + 4, header[..len].iter().copied());
}

/// Appends a binary message in one frame.
#[cfg(test)]
pub fn push_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    push(out, Opcode::Binary, bytes);
}

/// Appends a ping. A payload beyond [`CONTROL_MAX`] bytes is cut.
pub fn push_ping(out: &mut Vec<u8>, payload: &[u8]) {
    push(out, Opcode::Ping, &payload[..payload.len().min(CONTROL_MAX)]);
}

/// Appends a pong. A payload beyond [`CONTROL_MAX`] bytes is cut; that of a ping never is.
pub fn push_pong(out: &mut Vec<u8>, payload: &[u8]) {
    push(out, Opcode::Pong, &payload[..payload.len().min(CONTROL_MAX)]);
}

/// Appends a close frame, with a code and reason or empty. Takes what [`Event::Close`](super::Event::Close) gave, to
/// answer it. A reason beyond [`close::REASON_MAX`] bytes is cut where a character ends.
pub fn push_close(out: &mut Vec<u8>, close: Option<(CloseCode, &str)>) {
    match close {
        None => push(out, Opcode::Close, &[]),
        Some((code, reason)) => {
            let payload_len = 2 + close::fitting(reason).len() as u64;
            Header { fin: true, deflated: false, opcode: Opcode::Close, key: None, payload_len }.push(out);
            close::push_payload(out, code, reason);
        }
    }
}

/// Appends a whole unmasked frame.
fn push(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    Header { fin: true, deflated: false, opcode, key: None, payload_len: payload.len() as u64 }.push(out);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::client::push_masked, *};

    #[test]
    fn the_examples_of_rfc_6455_section_5_7_come_out_byte_for_byte() {
        let mut out = Vec::new();
        push_text(&mut out, "Hello");
        assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);

        out.clear();
        push_masked(&mut out, Opcode::Pong, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(out, [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);

        out.clear();
        push_binary(&mut out, &[0; 256]);
        assert_eq!(out[..4], [0x82, 0x7E, 0x01, 0x00]);

        out.clear();
        push_binary(&mut out, &[0; 65536]);
        assert_eq!(out[..10], [0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_text_is_framed_the_same_whether_its_length_is_known_before_or_not() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let text = "x".repeat(len);
            let (mut known, mut found) = (b"before".to_vec(), b"before".to_vec());
            push_text(&mut known, &text);
            push_text_with(&mut found, |out| out.extend_from_slice(text.as_bytes()));
            assert!(known == found, "{len}");
        }
    }

    #[test]
    fn each_rule_about_headers_has_its_refusal() {
        let refusal = |bytes: &[u8]| Header::parse(bytes).unwrap_err();
        assert_eq!(refusal(&[0xC1]), Violation::ReservedBits);
        let compressed = |bytes: &[u8]| Header::parse_with(bytes, true);
        for first in [0x61, 0x51, 0xE1] {
            assert_eq!(compressed(&[first]).unwrap_err(), Violation::ReservedBits);
        }
        for first in [0x40, 0xC0, 0xC8, 0xC9, 0xCA] {
            assert_eq!(compressed(&[first]).unwrap_err(), Violation::DeflatedWithin);
        }
        assert_eq!(refusal(&[0x83]), Violation::ReservedOpcode);
        assert_eq!(refusal(&[0x8B]), Violation::ReservedOpcode);
        assert_eq!(refusal(&[0x09]), Violation::FragmentedControl);
        assert_eq!(refusal(&[0x89, 0xFE]), Violation::LongControl);
        assert_eq!(refusal(&[0x82, 126, 0, 125]), Violation::LengthNotMinimal);
        assert_eq!(refusal(&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]), Violation::LengthNotMinimal);
        assert_eq!(refusal(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]), Violation::LengthOverflow);
    }

    #[test]
    fn a_control_frame_never_grows_beyond_125_bytes() {
        let mut out = Vec::new();
        push_ping(&mut out, &[7; 200]);
        assert_eq!(out.len(), 2 + 125);
        out.clear();
        push_close(&mut out, Some((CloseCode::LAGGED, &"y".repeat(200))));
        assert_eq!((out.len(), out[1]), (2 + 125, 125));
        out.clear();
        push_close(&mut out, None);
        assert_eq!(out, [0x88, 0]);
    }

    fn headers() -> impl Strategy<Value = Header> {
        let control = prop::sample::select(vec![Opcode::Close, Opcode::Ping, Opcode::Pong]);
        let data = prop::sample::select(vec![Opcode::Continuation, Opcode::Text, Opcode::Binary]);
        let length = prop_oneof![0_u64..300, 65_000_u64..66_000, 0_u64..=u64::MAX >> 1];
        prop_oneof![
            (control, 0_u64..126).prop_map(|(opcode, length)| (true, opcode, length)),
            (any::<bool>(), data, length),
        ]
        .prop_flat_map(|(fin, opcode, payload_len)| {
            any::<(Option<[u8; 4]>, bool)>().prop_map(move |(key, deflated)| {
                let deflated = deflated && matches!(opcode, Opcode::Text | Opcode::Binary);
                Header { fin, deflated, opcode, key, payload_len }
            })
        })
    }

    proptest! {
        #[test]
        fn a_header_reads_back_as_written_and_no_shorter_prefix_is_complete(header in headers()) {
            let mut out = Vec::new();
            header.push(&mut out);
            prop_assert_eq!(Header::parse_with(&out, true), Ok(Some((header, out.len()))));
            for shorter in 0..out.len() {
                prop_assert_eq!(Header::parse_with(&out[..shorter], true), Ok(None));
            }
            prop_assert_eq!(Header::parse(&out).is_err(), header.deflated);
        }

        #[test]
        fn both_ways_of_writing_an_unmasked_header_agree(header in headers()) {
            let (mut pushed, mut written) = (Vec::new(), [0; HEADER_MAX]);
            Header { key: None, deflated: false, ..header }.push(&mut pushed);
            let len = write_header(&mut written, header.fin, header.opcode, header.payload_len as usize);
            prop_assert_eq!(&written[..len], &pushed);
        }
    }

    #[test]
    fn a_header_that_is_to_fill_its_room_is_the_one_of_the_payload() {
        for payload_len in [0, 1, 124, 125, 126, 127, 65_534, 65_535, 65_536, 70_000] {
            let mut expected = [0; HEADER_MAX];
            let len = write_header(&mut expected, true, Opcode::Text, payload_len);
            let mut room = vec![0; len + payload_len];
            assert_eq!(write_header_to_fill(&mut room, Opcode::Text), len, "{payload_len}");
            assert_eq!(room[..len], expected[..len], "{payload_len}");
        }
    }
}
