//! What is read and said on a wire, beside the publications: one [`Words`] for each lane, in the lane's own file.
//!
//! A connection has a [`Lane`] from its request on and asks that for everything that depends on the wire. What a message asks for
//! comes back as a value, [`Asked`]; what is to be said goes in as one, [`Reply`], and is appended to a buffer as it goes onto
//! the wire. A lane holds no state: what a connection needs beside it, such as the topic of a `/raw` connection, is the
//! connection's.

use super::Address;
use crate::{
    protocol::{
        Command, Payload, Reply,
        command::{CommandError, Limits},
    },
    websocket::CloseCode,
};

/// How one lane is spoken.
pub trait Words: Sync {
    /// Where it is spoken.
    fn address(&self) -> Address;

    /// What a client offers that wants it; none if it can't be offered. No two lanes have the same.
    fn subprotocol(&self) -> Option<&'static str>;

    /// Whether the client is told what happens; if not, it gets the publications and nothing else.
    fn tells(&self) -> bool;

    /// Whether the client says anything once it is open, be it the answer to a ping; if not, the lane is the body of an
    /// HTTP answer and no WebSocket.
    fn hears(&self) -> bool;

    /// What a client's message asks for: [`Payload::Text`] or [`Payload::Binary`], as it came.
    fn read<'m>(&self, message: Payload<'m>, limits: &Limits) -> Asked<'m>;

    /// Appends a reply; nothing, if the lane tells nothing.
    fn push_reply(&self, out: &mut Vec<u8>, reply: &Reply<'_>);

    /// Appends what is said last: a close code and a reason, or a goodbye without. Nothing, if the end says it all.
    fn push_close(&self, out: &mut Vec<u8>, close: Option<(CloseCode, &str)>);
}

/// What a message asks for.
#[derive(Debug)]
pub enum Asked<'m> {
    /// A command, or what is wrong with it.
    Command(Result<Command<'m>, CommandError<'m>>),
    /// To publish this on the connection's own topic.
    Publish(Payload<'m>),
    /// Such a message is not taken here: the connection is closed with this code and reason.
    Unfit(CloseCode, &'static str),
    /// Nothing.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lane::Lane,
        protocol::{
            ErrorCode,
            cursor::{Cursor, Instance},
        },
    };

    fn pushed(lane: Lane, push: impl Fn(&dyn Words, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = b"before".to_vec();
        push(lane.words(), &mut out);
        assert!(out.starts_with(b"before"));
        out.split_off(6)
    }

    #[test]
    fn a_reply_is_one_text_frame_or_one_event_or_nothing_whatever_its_length() {
        let around = r#"{"type":"error","code":"lagged","message":""}"#.len();
        for (len, header) in [
            (around, &[0x81, around as u8][..]),
            (125, b"\x81\x7d"),
            (126, b"\x81\x7e\x00\x7e"),
            (65_535, b"\x81\x7e\xff\xff"),
            (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ] {
            let message = "x".repeat(len - around);
            let json = format!(r#"{{"type":"error","code":"lagged","message":"{message}"}}"#);
            let reply = Reply::Error { id: None, code: ErrorCode::Lagged, message: &message };
            let said = |lane| pushed(lane, |words, out| words.push_reply(out, &reply));
            assert_eq!(said(Lane::Json), [header, json.as_bytes()].concat(), "{len}");
            assert_eq!(said(Lane::Events), format!("data: {json}\n\n").into_bytes(), "{len}");
            assert_eq!(said(Lane::Raw), b"", "{len}");
        }
    }

    #[test]
    fn line_ends_of_a_last_value_stay_within_its_event() {
        let payload = Payload::Json(b"{\n1\r\n2\r3}");
        let cursor = Cursor { tape: Instance(0x0123_4567_89ab_cdef), at: 42, begins: false }.word();
        let reply = Reply::Snapshot { topic: "q", epoch: "k3", seq: 1, ts: 2, payload, cursor };
        let event = "id: AQEjRWeJq83vAAAAAAAAACpTRNCS\ndata: {\"type\":\"snapshot\",\"topic\":\"q\",\"epoch\":\"k3\",\"seq\":1,\"ts\":2,\"data\":{\ndata: 1\ndata: 2\ndata: 3}}\n\n";
        assert_eq!(pushed(Lane::Events, |words, out| words.push_reply(out, &reply)), event.as_bytes());
    }

    #[test]
    fn an_event_tells_a_browser_when_to_come_back() {
        let reply = Reply::Draining { retry_ms: [0, 8000], retry: 4711 };
        let event = "retry: 4711\ndata: {\"type\":\"status\",\"code\":\"draining\",\"retry_ms\":[0,8000]}\n\n";
        assert_eq!(pushed(Lane::Events, |words, out| words.push_reply(out, &reply)), event.as_bytes());
    }

    #[test]
    fn a_close_is_a_frame_with_code_and_reason_or_the_end_itself() {
        let close = |lane, close| pushed(lane, |words, out| words.push_close(out, close));
        for lane in [Lane::Json, Lane::Raw] {
            assert_eq!(close(lane, Some((CloseCode::LAGGED, "slow"))), b"\x88\x06\x10\x04slow");
            assert_eq!(close(lane, None), b"\x88\x00");
        }
        assert_eq!(close(Lane::Events, Some((CloseCode::LAGGED, "slow"))), b"");
    }

    #[test]
    fn each_lane_reads_what_it_takes() {
        let limits = Limits { topic_length_max: 8, topics_max: 8 };
        let read = |lane: Lane, message| lane.words().read(message, &limits);
        let (ping, bytes) = (Payload::Text(r#"{"op":"ping"}"#), Payload::Binary(b"{}"));
        assert!(matches!(read(Lane::Json, ping), Asked::Command(Ok(_))));
        assert!(matches!(read(Lane::Json, Payload::Text("hello")), Asked::Command(Err(_))));
        assert!(matches!(read(Lane::Json, bytes), Asked::Unfit(CloseCode::UNSUPPORTED, _)));
        for message in [ping, bytes] {
            assert!(matches!(read(Lane::Raw, message), Asked::Publish(payload) if payload == message));
            assert!(matches!(read(Lane::Events, message), Asked::Nothing));
        }
    }
}
