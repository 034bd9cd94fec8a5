//! The lane of Server-Sent Events: the `update` envelope as an event with the id that a browser resumes from, for `/sse`.
//!
//! The stream is the body of an HTTP answer. Nothing can be said on it but replies, and its end is the goodbye.

use super::{Address, Asked, Encoding, Numbered, Words};
use crate::{
    protocol::{
        Reply,
        command::Limits,
        cursor::{self, LETTERS},
        envelope, event,
    },
    publication::{Kind, Payload},
    websocket::CloseCode,
};

// Publications.

/// The encoding of [`Lane::Events`](super::Lane::Events).
pub struct Events;

const ID: &[u8] = b"id: ";
const RETRY: &[u8] = b"retry: ";
const DATA: &[u8] = b"\ndata: ";
const END: &[u8] = b"\n\n";

impl Encoding for Events {
    #[inline]
    fn asks_for_json(&self) -> bool {
        true
    }

    #[inline]
    fn may_differ(&self, kind: Kind) -> bool {
        kind != Kind::TooLarge
    }

    /// JSON may have line ends where it allows white space. They divide the data into lines, and are nowhere else in it.
    fn prepare(&self, payload: Payload<'_>, body: &mut Vec<u8>) {
        match payload {
            Payload::Json(text) => event::push_lines(body, text),
            other => envelope::push_value(body, other),
        }
    }

    fn len(&self, of: &Numbered<'_>, kind: Kind, body: &[u8]) -> usize {
        ID.len() + LETTERS + DATA.len() + of.message_len(kind, body) + END.len()
    }

    fn write(&self, of: &Numbered<'_>, kind: Kind, body: &[u8], room: &mut [u8]) {
        let (message, end) = room.split_at_mut(room.len() - END.len());
        end.copy_from_slice(END);
        let mut at = 0;
        for part in [ID, of.id().as_bytes(), DATA] {
            message[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        of.write_message(kind, body, &mut message[at..]);
    }
}

impl Numbered<'_> {
    /// The id of its event: whoever has taken that was told everything up to behind it.
    fn id(&self) -> cursor::Word {
        self.words.word(self.at + 1)
    }
}

// What is heard and said.

impl Words for Events {
    fn address(&self) -> Address {
        Address::Sse
    }

    fn subprotocol(&self) -> Option<&'static str> {
        None
    }

    fn tells(&self) -> bool {
        true
    }

    fn hears(&self) -> bool {
        false
    }

    fn read<'m>(&self, _: Payload<'m>, _: &Limits) -> Asked<'m> {
        Asked::Nothing
    }

    fn push_reply(&self, out: &mut Vec<u8>, reply: &Reply<'_>) {
        if let Some(cursor) = reply.cursor() {
            push_field(out, ID, cursor.as_bytes());
        }
        if let Reply::Draining { retry, .. } = reply {
            push_field(out, RETRY, itoa::Buffer::new().format(*retry).as_bytes());
        }
        event::push_event(out, |out| reply.push_json(out));
    }

    fn push_close(&self, _: &mut Vec<u8>, _: Option<(CloseCode, &str)>) {}
}

fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    [name, value, b"\n"].into_iter().for_each(|part| out.extend_from_slice(part));
}
