//! The JSON lane: the `update` envelope in a text frame, for `/ws`.

use std::borrow::Cow;

use super::{Encoding, Numbered};
use crate::{
    protocol::{Envelope, envelope},
    publication::{Kind, Payload},
    websocket::frame::{self, Header, Opcode},
};

// Publications.

/// The encoding of [`Lane::Json`](super::Lane::Json).
pub struct Json;

impl Encoding for Json {
    fn asks_for_json(&self) -> bool {
        true
    }

    fn prepare(&self, payload: Payload<'_>, body: &mut Vec<u8>) {
        envelope::push_value(body, payload);
    }

    fn len(&self, of: &Numbered<'_>, kind: Kind, body: &[u8]) -> usize {
        let len = of.envelope(kind, body).len();
        frame::header_len(len) + len
    }

    fn write(&self, of: &Numbered<'_>, kind: Kind, body: &[u8], room: &mut [u8]) {
        let header = frame::write_header_to_fill(room, Opcode::Text);
        of.envelope(kind, body).write(&mut room[header..]);
    }
}

impl<'a> Numbered<'a> {
    /// The update, of a payload that is in JSON.
    #[inline]
    pub(super) fn envelope(&self, kind: Kind, value: &'a [u8]) -> Envelope<'a> {
        Envelope::of_value(self.prefix, self.seq, self.ts, kind, value)
    }
}

/// The payload inside a frame, as it was published.
pub(super) fn payload_of<'f>(frame: &'f [u8], of: &Numbered<'_>, kind: Kind) -> Cow<'f, [u8]> {
    let (_, len) = Header::parse(frame).ok().flatten().expect("the tape holds whole frames");
    envelope::read_value(kind, of.envelope(kind, b"").value_in(&frame[len..]))
}
