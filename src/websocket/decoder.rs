//! Bytes as they came from a socket, turned into messages.
//!
//! A worker reads into a buffer of its own and lends it to the connection's [`Decoder`], calling [`Decoder::next`] until
//! it says `None`. A whole frame inside that buffer, which is nearly every frame that a subscriber sends, is unmasked
//! where it lies and handed out as a slice of it: nothing is copied or allocated. Only what the end of the buffer cuts
//! off, and messages in several frames, are gathered in memory of the decoder's own, which it has for as long as
//! something is incomplete and no longer. That is why an idle connection's decoder is two words.
//!
//! What it promises:
//!
//! - The events depend on the bytes alone, not on the pieces in which they came.
//! - Memory grows with bytes that have arrived, never with what a header claims, and a message that would exceed the
//!   limit is refused when the header says so, before a byte of it is kept.
//! - Text is checked as it arrives; bad UTF-8 is refused in the middle of a frame.
//! - After a close frame or a [`Violation`] there is nothing more: the rest of the input is dropped unread.
//!
//! Answering (pongs, the closing handshake) is left to the caller. So is inflating, where permessage-deflate was agreed on: a compressed
//! message is held until it is whole, and handed out as it came.

use std::mem;

use super::{
    close::{self, CloseCode},
    deflate::compressed_max,
    frame::{HEADER_MAX, Header, Opcode},
    mask::unmask,
    utf8::Utf8,
    violation::Violation,
};

/// Which end of the connection the decoder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads what a client sent: every frame has to be masked.
    Server,
    /// Reads what a server sent: no frame may be masked.
    #[cfg_attr(
        not(any(feature = "bench", fuzzing, test)),
        expect(dead_code, reason = "nothing here is a client, but for tests and fuzz targets")
    )]
    Client,
}

/// Something whole that the peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'d> {
    /// A text message.
    Text(&'d str),
    /// A binary message.
    Binary(&'d [u8]),
    /// A message that is compressed, and whether it is text.
    Deflated {
        /// Once it is inflated.
        is_text: bool,
        /// As it came.
        message: &'d [u8],
    },
    /// A ping, to be answered with a pong of the same payload.
    Ping(&'d [u8]),
    /// A pong, asked for or not.
    Pong(&'d [u8]),
    /// The peer closes, with a code and reason or without. The last event.
    Close(Option<(CloseCode, &'d str)>),
}

/// One connection's decoder.
#[derive(Debug)]
pub struct Decoder {
    /// Present only while a header, a frame or a message is incomplete, or handed out from here.
    unfinished: Option<Box<Unfinished>>,
    role: Role,
    ended: bool,
    /// Messages may be compressed.
    inflates: bool,
    came: Came,
}

/// What came since somebody asked, whether it made an event or not. Beyond what 16 bits hold it isn't counted: no read brings so
/// many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Came {
    /// Frames.
    pub frames: u16,
    /// Of those, such as have little of a message and don't end it (see [`FRAGMENT_LEAST`]).
    pub fragments: u16,
}

/// A frame that doesn't end its message brings so many bytes of it at least, or it is work for next to nothing, and counts as a
/// command. Who sends in pieces has large messages, and pieces of some KiB.
pub const FRAGMENT_LEAST: usize = 64;

/// What a decoder remembers between two pieces of input.
#[derive(Debug, Default)]
struct Unfinished {
    /// The beginning of a header that the input cut off.
    head: [u8; HEADER_MAX],
    head_len: u8,
    /// The frame whose payload is arriving.
    frame: Option<Frame>,
    /// Text or binary, while a message is incomplete.
    message: Option<Opcode>,
    /// That message is compressed.
    deflated: bool,
    /// That message, or the one just handed out.
    data: Vec<u8>,
    text: Utf8,
    /// The payload of a control frame that the input cut off, or of the one just handed out.
    control: Vec<u8>,
}

/// A frame whose payload is arriving. Lengths fit a `usize`: a larger one has been refused.
#[derive(Clone, Copy, Debug)]
struct Frame {
    fin: bool,
    deflated: bool,
    opcode: Opcode,
    key: Option<[u8; 4]>,
    len: usize,
    taken: usize,
    /// How large the payload and what may follow it in the same message can become: the bound of what is set aside.
    room: usize,
}

/// What [`Decoder::advance`] came upon.
enum Found<'i> {
    /// The input is used up.
    Nothing,
    /// A whole message or control frame inside the input.
    InInput(Opcode, &'i [u8]),
    /// The same, compressed.
    DeflatedInInput(Opcode, &'i [u8]),
    /// A control frame that has become whole in `Unfinished::control`.
    Control(Opcode),
    /// A message that has become whole in `Unfinished::data`.
    Message(Opcode),
}

impl Decoder {
    /// A decoder for the beginning of a connection.
    pub fn new(role: Role) -> Decoder {
        Decoder { unfinished: None, role, ended: false, inflates: false, came: Came::default() }
    }

    /// From now on messages may be compressed: that was agreed on.
    pub fn take_deflated(&mut self) {
        self.inflates = true;
    }

    /// Whether messages may be compressed.
    pub fn takes_deflated(&self) -> bool {
        self.inflates
    }

    /// The next event in `input`, which it advances past what was read; `None` once the input is used up.
    ///
    /// Payloads are unmasked in place. `max_message` is the largest message in bytes; of a compressed one, what it inflates to is for the
    /// caller to bound, and here is taken what can come to no more than that. Call it until it says `None`: the
    /// memory of an event that was gathered from several inputs is released by the call after it.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol; nothing more will come out.
    pub fn next<'d, 'i: 'd>(
        &'d mut self,
        input: &mut &'i mut [u8],
        max_message: usize,
    ) -> Result<Option<Event<'d>>, Violation> {
        self.release();
        if self.ended {
            *input = &mut [];
            return Ok(None);
        }
        let found = match self.advance(input, max_message) {
            Ok(found) => found,
            Err(violation) => {
                *input = &mut [];
                self.end();
                return Err(violation);
            }
        };
        // A close frame is the last, whether its payload is in order or not.
        let closes = matches!(found, Found::InInput(Opcode::Close, _) | Found::Control(Opcode::Close));
        self.ended = closes;
        let event = self.event(found);
        if closes || event.is_err() {
            *input = &mut [];
        }
        event
    }

    /// The bytes of memory held beyond the decoder itself; 0 while nothing is incomplete.
    pub fn buffered(&self) -> usize {
        self.unfinished.as_ref().map_or(0, |unfinished| {
            size_of::<Unfinished>() + unfinished.data.capacity() + unfinished.control.capacity()
        })
    }

    /// Ends it as a violation does: what is unfinished is dropped, and further input unread.
    pub fn end(&mut self) {
        *self = Decoder { unfinished: None, ended: true, ..*self };
    }

    /// What came since this was last asked.
    pub fn take_came(&mut self) -> Came {
        mem::take(&mut self.came)
    }

    /// Bytes of the payload that is arriving which are still to come: so many can't be small frames.
    pub fn missing(&self) -> usize {
        let frame = self.unfinished.as_ref().and_then(|unfinished| unfinished.frame.as_ref());
        frame.map_or(0, |frame| frame.len - frame.taken)
    }

    /// Frees what the last event was handed out from.
    fn release(&mut self) {
        let Some(unfinished) = &mut self.unfinished else { return };
        if self.ended || unfinished.is_idle() {
            self.unfinished = None;
        } else if unfinished.frame.is_none() {
            unfinished.control = Vec::new();
        }
    }

    /// Reads frames until one makes an event or the input is used up.
    fn advance<'i>(&mut self, input: &mut &'i mut [u8], max_message: usize) -> Result<Found<'i>, Violation> {
        loop {
            if self.unfinished.as_ref().is_none_or(|unfinished| unfinished.frame.is_none()) {
                let Some(header) = self.read_header(input)? else { return Ok(Found::Nothing) };
                let frame = self.check(header, max_message)?;
                self.came.count(&frame);
                if input.len() >= frame.len && self.is_event_alone(&frame) {
                    let payload = take(input, frame.len);
                    frame.unmask(payload);
                    return Ok(match frame.deflated {
                        true => Found::DeflatedInInput(frame.opcode, payload),
                        false => Found::InInput(frame.opcode, payload),
                    });
                }
                self.unfinished.get_or_insert_default().begin(frame);
            }
            let Some(unfinished) = &mut self.unfinished else { return Ok(Found::Nothing) };
            match unfinished.gather(input)? {
                Found::Nothing if input.is_empty() => return Ok(Found::Nothing),
                Found::Nothing => {}
                found => return Ok(found),
            }
        }
    }

    /// The next header, or `None` when the input ends before it does. Its beginning is kept.
    fn read_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, Violation> {
        if input.is_empty() {
            return Ok(None);
        }
        let inflates = self.inflates;
        match &mut self.unfinished {
            Some(unfinished) if unfinished.head_len > 0 => unfinished.complete_header(input, inflates),
            _ => match Header::parse_with(input, inflates)? {
                Some((header, len)) => {
                    take(input, len);
                    Ok(Some(header))
                }
                None => self.unfinished.get_or_insert_default().complete_header(input, inflates),
            },
        }
    }

    /// Holds a header against what this end expects and what is unfinished.
    fn check(&self, header: Header, max_message: usize) -> Result<Frame, Violation> {
        match (self.role, header.key) {
            (Role::Server, None) => return Err(Violation::Unmasked),
            (Role::Client, Some(_)) => return Err(Violation::Masked),
            _ => {}
        }
        let gathered = self.unfinished.as_ref().filter(|unfinished| unfinished.message.is_some());
        match (header.opcode, gathered) {
            (Opcode::Continuation, None) => return Err(Violation::LoneContinuation),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Violation::InterruptedMessage),
            _ => {}
        }
        let is_deflated = header.deflated || gathered.is_some_and(|unfinished| unfinished.deflated);
        let most = if is_deflated { compressed_max(max_message) } else { max_message };
        let room = most.saturating_sub(gathered.map_or(0, |unfinished| unfinished.data.len()));
        if !header.opcode.is_control() && header.payload_len > room as u64 {
            return Err(Violation::TooBig);
        }
        let len = header.payload_len as usize;
        let room = if header.fin { len } else { room };
        Ok(Frame {
            fin: header.fin,
            deflated: header.deflated,
            opcode: header.opcode,
            key: header.key,
            len,
            taken: 0,
            room,
        })
    }

    /// Whether the frame makes an event without any other.
    fn is_event_alone(&self, frame: &Frame) -> bool {
        frame.opcode.is_control() || (frame.fin && frame.opcode != Opcode::Continuation)
    }

    /// Makes the event of what was found.
    fn event<'d, 'i: 'd>(&'d mut self, found: Found<'i>) -> Result<Option<Event<'d>>, Violation> {
        let (opcode, payload): (Opcode, &'d [u8]) = match (found, &self.unfinished) {
            (Found::InInput(opcode, payload), _) => (opcode, payload),
            (Found::DeflatedInInput(opcode, message), _) => {
                return Ok(Some(Event::Deflated { is_text: opcode == Opcode::Text, message }));
            }
            (Found::Message(opcode), Some(unfinished)) if unfinished.deflated => {
                return Ok(Some(Event::Deflated { is_text: opcode == Opcode::Text, message: &unfinished.data }));
            }
            (Found::Control(opcode), Some(unfinished)) => (opcode, &unfinished.control),
            (Found::Message(opcode), Some(unfinished)) => (opcode, &unfinished.data),
            _ => return Ok(None),
        };
        Ok(Some(match opcode {
            // A gathered text has been checked piece by piece and can't fail here; without `unsafe`, making it a `str`
            // takes a second check, at some 20 to 130 GB/s.
            Opcode::Text => Event::Text(simdutf8::basic::from_utf8(payload).map_err(|_| {
                self.ended = true;
                Violation::BadText
            })?),
            Opcode::Binary | Opcode::Continuation => Event::Binary(payload),
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong(payload),
            Opcode::Close => Event::Close(close::parse(payload)?),
        }))
    }
}

impl Came {
    fn count(&mut self, frame: &Frame) {
        self.frames = self.frames.saturating_add(1);
        if !frame.fin && frame.len < FRAGMENT_LEAST {
            self.fragments = self.fragments.saturating_add(1);
        }
    }
}

impl Unfinished {
    /// Nothing is incomplete: what is left has been handed out.
    fn is_idle(&self) -> bool {
        self.head_len == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// Adds bytes to the header begun until it is whole.
    fn complete_header(&mut self, input: &mut &mut [u8], inflates: bool) -> Result<Option<Header>, Violation> {
        while !input.is_empty() {
            self.head[usize::from(self.head_len)] = take(input, 1)[0];
            self.head_len += 1;
            if let Some((header, _)) = Header::parse_with(&self.head[..usize::from(self.head_len)], inflates)? {
                self.head_len = 0;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Begins to gather a frame's payload.
    fn begin(&mut self, frame: Frame) {
        self.frame = Some(frame);
        if matches!(frame.opcode, Opcode::Text | Opcode::Binary) {
            self.message = Some(frame.opcode);
            self.deflated = frame.deflated;
        }
    }

    /// Takes what the input has of the frame's payload.
    fn gather<'i>(&mut self, input: &mut &mut [u8]) -> Result<Found<'i>, Violation> {
        let Some(mut frame) = self.frame else { return Ok(Found::Nothing) };
        let piece = take(input, (frame.len - frame.taken).min(input.len()));
        frame.unmask(piece);
        frame.taken += piece.len();

        let into = if frame.opcode.is_control() { &mut self.control } else { &mut self.data };
        append(into, piece, frame.room - frame.taken);
        let is_text = !frame.opcode.is_control() && self.message == Some(Opcode::Text) && !self.deflated;
        if is_text {
            self.text.feed(piece).map_err(|_| Violation::BadText)?;
        }
        if frame.taken < frame.len {
            self.frame = Some(frame);
            return Ok(Found::Nothing);
        }

        self.frame = None;
        if frame.opcode.is_control() {
            return Ok(Found::Control(frame.opcode));
        }
        if !frame.fin {
            return Ok(Found::Nothing);
        }
        if is_text {
            self.text.finish().map_err(|_| Violation::BadText)?;
        }
        Ok(self.message.take().map_or(Found::Nothing, Found::Message))
    }
}

impl Frame {
    /// Unmasks the next piece of the payload.
    fn unmask(&self, piece: &mut [u8]) {
        if let Some(key) = self.key {
            unmask(piece, key, self.taken);
        }
    }
}

/// Splits the first `len` bytes off the input.
fn take<'i>(input: &mut &'i mut [u8], len: usize) -> &'i mut [u8] {
    debug_assert!(len <= input.len());
    let (taken, rest) = mem::take(input).split_at_mut(len);
    *input = rest;
    taken
}

/// Appends `piece`, after which `room` more bytes may come. When capacity has to grow it doubles, so that a message in
/// tiny pieces isn't copied for each of them, but never beyond what may come.
fn append(out: &mut Vec<u8>, piece: &[u8], room: usize) {
    if out.capacity() - out.len() < piece.len() {
        out.reserve_exact(piece.len() + out.len().min(room));
    }
    out.extend_from_slice(piece);
}

#[cfg(test)]
mod tests;
