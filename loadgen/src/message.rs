//! Messages: frames in their order, put together and held against the rules (RFC 6455, sections 5.4, 5.5.1 and 8.1).
//!
//! [`frame::scan`](crate::frame::scan) judges a frame by itself; what is wrong only because of the frames before it, or
//! within the payload, is found here. Text is checked as its fragments come in, so a bad one ends the connection early. A
//! frame is looked at only when all of it has come: bad text within a half-received one is not noticed before.

use std::borrow::Cow;

use crate::frame::{Frame, Opcode};

/// What a frame amounts to.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A part of a message, or the answer to a ping: nothing to do.
    Nothing,
    /// A whole message: its kind, which is text or binary, and its payload.
    Message(Opcode, Cow<'a, [u8]>),
    /// A ping, to be answered with the same payload.
    Ping(&'a [u8]),
    /// The other end closes, with this code (1005 where it gave none) and reason.
    Close(u16, &'a str),
}

/// What no server may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The code to close with.
    pub code: u16,
    /// What it was.
    pub why: &'static str,
}

/// The message that is coming in on one connection.
#[derive(Debug, Default)]
pub struct Assembly {
    kind: Option<Opcode>,
    payload: Vec<u8>,
    /// How much of the payload is known to be good text.
    good: usize,
}

/// The largest message that is put together, as large as the largest frame.
const MESSAGE_MAX: usize = 1 << 30;

/// RFC 6455, section 7.4.1: the rules of the protocol were broken.
pub const PROTOCOL_ERROR: u16 = 1002;
/// Likewise: text that is not UTF-8.
pub const BAD_TEXT: u16 = 1007;
/// Likewise: a message too large.
pub const TOO_BIG: u16 = 1009;
/// Likewise: a close frame without a code; never sent.
const NO_CODE: u16 = 1005;

impl Assembly {
    /// Whether no message is half received.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.kind.is_none()
    }

    /// Takes the next frame of the connection in.
    pub fn take<'a>(&mut self, frame: &Frame<'a>) -> Result<Event<'a>, Violation> {
        match (frame.opcode, self.kind) {
            (Opcode::Ping, _) => Ok(Event::Ping(frame.payload)),
            (Opcode::Pong, _) => Ok(Event::Nothing),
            (Opcode::Close, _) => close(frame.payload),
            (Opcode::Continuation, None) => Err(broken("a continuation continued nothing")),
            (Opcode::Continuation, Some(kind)) => self.extend(kind, frame),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(broken("a message began inside another")),
            (kind, None) if frame.fin => {
                if kind == Opcode::Text && std::str::from_utf8(frame.payload).is_err() {
                    return Err(BAD);
                }
                Ok(Event::Message(kind, Cow::Borrowed(frame.payload)))
            }
            (kind, None) => {
                self.kind = Some(kind);
                self.extend(kind, frame)
            }
        }
    }

    fn extend<'a>(&mut self, kind: Opcode, frame: &Frame<'a>) -> Result<Event<'a>, Violation> {
        if self.payload.len() + frame.payload.len() > MESSAGE_MAX {
            return Err(Violation { code: TOO_BIG, why: "a message was longer than 1 GiB" });
        }
        self.payload.extend_from_slice(frame.payload);
        if kind == Opcode::Text {
            self.check(frame.fin)?;
        }
        if !frame.fin {
            return Ok(Event::Nothing);
        }
        let Self { payload, .. } = std::mem::take(self);
        Ok(Event::Message(kind, Cow::Owned(payload)))
    }

    /// Checks the text behind what is known to be good; only at the end it must not stop within a character.
    fn check(&mut self, whole: bool) -> Result<(), Violation> {
        match std::str::from_utf8(&self.payload[self.good..]) {
            Ok(_) => self.good = self.payload.len(),
            Err(error) if whole || error.error_len().is_some() => return Err(BAD),
            Err(error) => self.good += error.valid_up_to(),
        }
        Ok(())
    }
}

const BAD: Violation = Violation { code: BAD_TEXT, why: "a text message was not UTF-8" };

fn broken(why: &'static str) -> Violation {
    Violation { code: PROTOCOL_ERROR, why }
}

fn close(payload: &[u8]) -> Result<Event<'_>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(Event::Close(NO_CODE, "")),
        [_] => return Err(broken("a close frame held half a code")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    // What RFC 6455, section 7.4 and the registry of codes allow in a frame.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(broken("a close frame held a code that none may hold"));
    }
    match std::str::from_utf8(reason) {
        Ok(reason) => Ok(Event::Close(code, reason)),
        Err(_) => Err(Violation { code: BAD_TEXT, why: "the reason in a close frame was not UTF-8" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Frame<'_> {
        Frame { fin, opcode, compressed: false, payload, len: payload.len() + 2 }
    }

    fn code(event: Result<Event<'_>, Violation>) -> u16 {
        event.unwrap_err().code
    }

    #[test]
    fn fragments_make_one_message_and_pings_go_between() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.take(&frame(false, Opcode::Binary, b"ab")), Ok(Event::Nothing));
        assert_eq!(assembly.take(&frame(true, Opcode::Ping, b"?")), Ok(Event::Ping(b"?")));
        assert_eq!(assembly.take(&frame(false, Opcode::Continuation, b"")), Ok(Event::Nothing));
        let whole = assembly.take(&frame(true, Opcode::Continuation, b"\xff"));
        assert_eq!(whole, Ok(Event::Message(Opcode::Binary, Cow::Borrowed(b"ab\xff"))));
        assert!(assembly.is_empty());
    }

    #[test]
    fn frames_out_of_their_order_are_a_protocol_error() {
        assert_eq!(code(Assembly::default().take(&frame(true, Opcode::Continuation, b""))), PROTOCOL_ERROR);
        let mut assembly = Assembly::default();
        assembly.take(&frame(false, Opcode::Text, b"a")).unwrap();
        assert_eq!(code(assembly.take(&frame(true, Opcode::Text, b"b"))), PROTOCOL_ERROR);
    }

    #[test]
    fn text_may_be_cut_anywhere_and_must_be_text_in_the_end() {
        let text = "a\u{e9}\u{20ac}\u{1f600}".as_bytes();
        for cut in 0..=text.len() {
            let mut assembly = Assembly::default();
            assert_eq!(assembly.take(&frame(false, Opcode::Text, &text[..cut])), Ok(Event::Nothing), "cut at {cut}");
            let whole = assembly.take(&frame(true, Opcode::Continuation, &text[cut..]));
            assert_eq!(whole, Ok(Event::Message(Opcode::Text, Cow::Borrowed(text))), "cut at {cut}");
        }
        assert_eq!(code(Assembly::default().take(&frame(true, Opcode::Text, &text[..2]))), BAD_TEXT);
        let mut assembly = Assembly::default();
        assembly.take(&frame(false, Opcode::Text, &text[..2])).unwrap();
        assert_eq!(code(assembly.take(&frame(true, Opcode::Continuation, b""))), BAD_TEXT);
    }

    #[test]
    fn bad_text_is_found_before_its_last_fragment() {
        let mut assembly = Assembly::default();
        assembly.take(&frame(false, Opcode::Text, b"a\xc3")).unwrap();
        assert_eq!(code(assembly.take(&frame(false, Opcode::Continuation, b"b"))), BAD_TEXT);
    }

    #[test]
    fn a_close_frame_gives_its_code_and_reason_or_what_is_wrong_with_it() {
        let closed = |payload| Assembly::default().take(&frame(true, Opcode::Close, payload));
        assert_eq!(closed(&[0x10, 0x04, b'l', b'a', b'g']), Ok(Event::Close(4100, "lag")));
        assert_eq!(closed(&[]), Ok(Event::Close(1005, "")));
        assert_eq!(code(closed(&[3])), PROTOCOL_ERROR);
        assert_eq!(code(closed(&[0x03, 0xed])), PROTOCOL_ERROR);
        assert_eq!(code(closed(&[0x03, 0xe8, 0xff])), BAD_TEXT);
    }
}
