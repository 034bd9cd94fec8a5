//! The JSON lane: the `update` envelope in a text frame, for `/ws`.
//!
//! Each command of the client and each reply is one text message that holds one JSON object. A binary message is none, and closes
//! the connection.

use std::borrow::Cow;

use super::{Address, Asked, Encoding, Numbered, Words};
use crate::{
    protocol::{
        Command, Envelope, Reply,
        command::Limits,
        envelope::{self, LeftOut},
    },
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
        !matches!(kind, Kind::Json | Kind::TooLarge)
    }

    fn prepare(&self, payload: Payload<'_>, body: &mut Vec<u8>) {
        envelope::push_value(body, payload);
    }

    #[inline]
    fn len(&self, of: &Numbered<'_>, kind: Kind, body: &[u8]) -> usize {
        let len = of.message_len(kind, body);
        frame::header_len(len) + len
    }

    #[inline]
    fn write(&self, of: &Numbered<'_>, kind: Kind, body: &[u8], room: &mut [u8]) {
        let header = frame::write_header_to_fill(room, Opcode::Text);
        of.write_message(kind, body, &mut room[header..]);
    }
}

impl<'a> Numbered<'a> {
    /// The update, of a payload that is in JSON.
    #[inline]
    pub(super) fn envelope<'v>(&self, kind: Kind, value: &'v [u8]) -> Envelope<'v>
    where
        'a: 'v,
    {
        Envelope::of_value(self.prefix, self.seq, self.ts, kind, value)
    }

    /// How long the message is that subscribers are sent: the update, or that there is none that could be carried.
    #[inline]
    pub(super) fn message_len(&self, kind: Kind, value: &[u8]) -> usize {
        match kind {
            Kind::TooLarge => left_out_len(self),
            kind => self.envelope(kind, value).len(),
        }
    }

    /// Writes it.
    #[inline]
    pub(super) fn write_message(&self, kind: Kind, value: &[u8], out: &mut [u8]) {
        match kind {
            Kind::TooLarge => write_left_out(self, out),
            kind => self.envelope(kind, value).write(out),
        }
    }
}

// Out of the way of what is published by the million.

#[cold]
#[inline(never)]
fn left_out_len(of: &Numbered<'_>) -> usize {
    LeftOut::new(of.prefix, of.seq).len()
}

#[cold]
#[inline(never)]
fn write_left_out(of: &Numbered<'_>, out: &mut [u8]) {
    LeftOut::new(of.prefix, of.seq).write(out);
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
