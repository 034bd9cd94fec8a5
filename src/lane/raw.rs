//! The raw lane: the payload alone in a frame of its own kind, for `/raw`.
//!
//! There are no words: each message of the client is a publication, each message to it is one, and whatever else happens is
//! told by the close frame at the end.

use super::{Address, Asked, Encoding, Numbered, Words};
use crate::{
    protocol::{Reply, command::Limits},
    publication::{Kind, Payload},
    websocket::{
        CloseCode,
        frame::{self, Header, Opcode},
    },
};

// Publications.

/// The encoding of [`Lane::Raw`](super::Lane::Raw).
pub struct Raw;

impl Encoding for Raw {
    #[inline]
    fn asks_for_json(&self) -> bool {
        false
    }

    #[inline]
    fn may_differ(&self, _: Kind) -> bool {
        false
    }

    fn prepare(&self, _: Payload<'_>, _: &mut Vec<u8>) {}

    #[inline]
    fn len(&self, _: &Numbered<'_>, _: Kind, body: &[u8]) -> usize {
        frame::header_len(body.len()) + body.len()
    }

    #[inline]
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

// What is heard and said.

impl Words for Raw {
    fn address(&self) -> Address {
        Address::Raw
    }

    fn subprotocol(&self) -> Option<&'static str> {
        Some("stentor.v1.raw")
    }

    fn tells(&self) -> bool {
        false
    }

    fn hears(&self) -> bool {
        true
    }

    fn read<'m>(&self, message: Payload<'m>, _: &Limits) -> Asked<'m> {
        Asked::Publish(message)
    }

    fn push_reply(&self, _: &mut Vec<u8>, _: &Reply<'_>) {}

    fn push_close(&self, out: &mut Vec<u8>, close: Option<(CloseCode, &str)>) {
        frame::push_close(out, close);
    }
}
