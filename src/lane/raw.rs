//! The raw lane: the payload alone in a frame of its own kind, for `/raw`.

use super::{Encoding, Numbered};
use crate::{
    publication::{Kind, Payload},
    websocket::frame::{self, Header, Opcode},
};

// Publications.

/// The encoding of [`Lane::Raw`](super::Lane::Raw).
pub struct Raw;

impl Encoding for Raw {
    fn asks_for_json(&self) -> bool {
        false
    }

    fn prepare(&self, _: Payload<'_>, _: &mut Vec<u8>) {}

    fn len(&self, _: &Numbered<'_>, _: Kind, body: &[u8]) -> usize {
        frame::header_len(body.len()) + body.len()
    }

    fn write(&self, _: &Numbered<'_>, kind: Kind, body: &[u8], room: &mut [u8]) {
        let opcode = if kind == Kind::Binary { Opcode::Binary } else { Opcode::Text };
        let header = frame::write_header_to_fill(room, opcode);
        room[header..].copy_from_slice(body);
    }
}

/// The payload inside a frame.
pub(super) fn payload_of(frame: &[u8]) -> &[u8] {
    let (_, len) = Header::parse(frame).ok().flatten().expect("the tape holds whole frames");
    &frame[len..]
}
