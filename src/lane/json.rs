//! The JSON lane: the `update` envelope in a text frame, for `/ws`.
//!
//! Each command of the client and each reply is one text message that holds one JSON object. A binary message is none, and closes
//! the connection.

use std::borrow::Cow;

use super::{Address, Asked, Encoding, Numbered, Words};
use crate::{
    protocol::{Command, Envelope, Reply, command::Limits, envelope},
    publication::{Kind, Payload},
    websocket::{
        CloseCode,
        frame::{self, Header, Opcode},
    },
};

// Publications.

/// The encoding of [`Lane::Json`](super::Lane::Json).
pub struct Json;

impl Encoding for Json {
    #[inline]
    fn asks_for_json(&self) -> bool {
        true
    }

    #[inline]
    fn may_differ(&self, kind: Kind) -> bool {
        kind != Kind::Json
    }

    fn prepare(&self, payload: Payload<'_>, body: &mut Vec<u8>) {
        envelope::push_value(body, payload);
    }

    #[inline]
    fn len(&self, of: &Numbered<'_>, kind: Kind, body: &[u8]) -> usize {
        let len = of.envelope(kind, body).len();
        frame::header_len(len) + len
    }

    #[inline]
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

// What is heard and said.

impl Words for Json {
    fn address(&self) -> Address {
        Address::Ws
    }

    fn subprotocol(&self) -> Option<&'static str> {
        Some("stentor.v1.json")
    }

    fn tells(&self) -> bool {
        true
    }

    fn hears(&self) -> bool {
        true
    }

    fn read<'m>(&self, message: Payload<'m>, limits: &Limits) -> Asked<'m> {
        match message {
            Payload::Text(text) => Asked::Command(Command::parse(text, limits)),
            _ => Asked::Unfit(CloseCode::UNSUPPORTED, "commands are text messages"),
        }
    }

    fn push_reply(&self, out: &mut Vec<u8>, reply: &Reply<'_>) {
        frame::push_text_with(out, |out| reply.push_json(out));
    }

    fn push_close(&self, out: &mut Vec<u8>, close: Option<(CloseCode, &str)>) {
        frame::push_close(out, close);
    }
}
