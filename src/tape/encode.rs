//! A publication as the bytes of one lane, outside the tape: for a subscriber who needs it where the tape doesn't have it.
//!
//! The tape's own frames are written in place by the writer. These are the same bytes for the rare rest: a value that has
//! outlived its place on the tape, and history from a time when nobody wanted the lane.

use crate::{
    lane::Lane,
    protocol::{Envelope, Kind, Payload, event::push_event},
    topic::Epoch,
    websocket::frame::{self, Header, Opcode},
};

/// One publication, ready to be encoded.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// The constant start of its topic's updates.
    pub prefix: &'a [u8],
    /// Its topic's numbering.
    pub epoch: Epoch,
    /// Its number within the topic.
    pub seq: u64,
    /// When it was taken in, in microseconds since the Unix epoch.
    pub ts: u64,
    /// What was published.
    pub payload: Payload<'a>,
}

impl Publication<'_> {
    /// Appends the frame (or event) that subscribers of `lane` are sent.
    pub fn push(&self, lane: Lane, out: &mut Vec<u8>) {
        match lane {
            Lane::Raw => match self.payload {
                Payload::Binary(bytes) => frame::push_binary(out, bytes),
                Payload::Json(_) | Payload::Text(_) => push_text(out, self.payload.bytes()),
            },
            Lane::Json => push_text(out, &self.message()),
            Lane::Events => push_event(out, Some((&self.epoch, self.seq)), &self.message()),
        }
    }

    fn message(&self) -> Vec<u8> {
        let mut json = Vec::new();
        Envelope::new(self.prefix, self.seq, self.ts, self.payload).append(&mut json);
        json
    }
}

fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    let mut header = [0; frame::HEADER_MAX];
    let len = frame::write_header(&mut header, true, Opcode::Text, text.len());
    out.extend_from_slice(&header[..len]);
    out.extend_from_slice(text);
}

/// The payload inside a frame of the raw lane.
pub fn payload_of(raw: &[u8]) -> Payload<'_> {
    let (header, len) = Header::parse(raw).ok().flatten().expect("the tape holds whole frames");
    let kind = if header.opcode == Opcode::Binary { Kind::Binary } else { Kind::Text };
    Payload::from_parts(kind, &raw[len..])
}

/// The message inside a frame of the JSON lane.
pub fn json_of(frame: &[u8]) -> &[u8] {
    let (_, len) = Header::parse(frame).ok().flatten().expect("the tape holds whole frames");
    &frame[len..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_encoded_for_every_lane() {
        let publication = Publication {
            prefix: &crate::protocol::update_prefix("q"),
            epoch: Epoch(10),
            seq: 3,
            ts: 4,
            payload: Payload::Text("[1]"),
        };
        let pushed = |lane| {
            let mut out = Vec::new();
            publication.push(lane, &mut out);
            out
        };
        let json = r#"{"type":"update","topic":"q","seq":3,"ts":4,"data":[1]}"#;
        assert_eq!(pushed(Lane::Raw), b"\x81\x03[1]");
        assert_eq!(payload_of(&pushed(Lane::Raw)), Payload::Text("[1]"));
        assert_eq!(json_of(&pushed(Lane::Json)), json.as_bytes());
        assert_eq!(pushed(Lane::Events), format!("id: a:3\ndata: {json}\n\n").as_bytes());
    }
}
