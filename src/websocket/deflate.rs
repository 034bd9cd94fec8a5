//! Messages compressed and inflated (RFC 7692 section 7.2): each by itself, so that no bytes of another are referred to, or one behind the other, in a
//! stream.
//!
//! ```text
//!   a message      {"type":"update", …}
//!   compressed     | blocks | 00 00 ff ff |         a stream of deflate (RFC 1951) that was flushed
//!   on the wire    | blocks |                       without its end, which is always the same
//! ```
//!
//! What works on the messages, a [`Deflater`] or an [`Inflater`], has some memory that is used again for the next, whoever that is
//! from or for; it belongs to a worker. To keep nothing from one message to the next costs bytes, and makes each frame the same for
//! whoever gets it, whenever.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{
    compact::{COMPACT_BYTES, Compact},
    frame::{self, Header},
    violation::Violation,
};

/// What every flush ends with, and what is left out of a message: an empty block of bytes that are stored.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The bits of the window that messages are compressed with. Whoever has agreed to as many or more can read them; more would leave
/// little less, in messages of some hundred bytes, and each begins with a window to be cleared.
pub const WINDOW_BITS: u8 = 12;

/// A frame with a payload of more bytes isn't compressed: that would take more than some three milliseconds, in which a worker does nothing
/// else.
pub const COMPRESSED_MAX: usize = 128 * 1024;

/// Compresses messages, one after the other.
pub struct Deflater {
    compress: Compress,
    /// As long as the longest payload was, and a little: what is compressed is put here first.
    room: Vec<u8>,
}

impl Deflater {
    /// At a level from 1, the fastest, to 9, which leaves the fewest bytes.
    pub fn new(level: u8) -> Deflater {
        let level = Compression::new(u32::from(level.clamp(1, 9)));
        Deflater { compress: Compress::new_with_window_bits(level, false, WINDOW_BITS), room: Vec::new() }
    }

    /// A frame of a whole message, as it is compressed; none if that is no shorter, or the payload longer than [`COMPRESSED_MAX`]. That
    /// depends on the frame and the level, and on nothing that was compressed before.
    pub fn frame(&mut self, frame: &[u8]) -> Option<Box<[u8]>> {
        let Ok(Some((header, header_len))) = Header::parse(frame) else {
            debug_assert!(false, "a whole frame");
            return None;
        };
        let payload = &frame[header_len..];
        if payload.len() > COMPRESSED_MAX {
            return None;
        }
        // What comes to more is of no use.
        let most = payload.len() + TAIL.len();
        if self.room.len() < most {
            self.room.resize(most, 0);
        }
        self.compress.reset();
        let status = self.compress.compress(payload, &mut self.room[..most], FlushCompress::Sync);
        debug_assert!(matches!(status, Ok(Status::Ok)), "{status:?}");
        // A flush is over when there is room left behind it.
        let len = self.compress.total_out() as usize;
        if status.is_err() || self.compress.total_in() as usize != payload.len() || len == most {
            return None;
        }
        let Some(packed) = self.room[..len].strip_suffix(&TAIL) else {
            debug_assert!(false, "a flush ends so");
            return None;
        };
        let len = frame::header_len(packed.len()) + packed.len();
        if len >= frame.len() {
            return None;
        }
        let mut done = Vec::with_capacity(len);
        Header { deflated: true, key: None, payload_len: packed.len() as u64, ..header }.push(&mut done);
        done.extend_from_slice(packed);
        Some(done.into_boxed_slice())
    }

    /// Gives back room that was needed once.
    pub fn give_back(&mut self) {
        if self.room.len() > KEPT {
            self.room = Vec::new();
        }
    }
}

/// Room that stays.
const KEPT: usize = 16 * 1024;

/// Compresses messages one behind the other, each with the context of those before it: who has read all of them since it last began anew
/// can read the next one.
///
/// It is one stream of deflate, flushed behind each message. Beginning anew forgets what came before, so that nothing behind that point
/// refers back beyond it; to an inflater it is nothing at all.
pub struct StreamDeflater {
    engine: Engine,
    level: u8,
    window_bits: u8,
}

/// What compresses: level 1 is [`Compact`], the others are zlib-rs's.
enum Engine {
    Compact(Compact),
    Zlib(Compress),
}

impl StreamDeflater {
    /// At a level from 1 to 9, with a window of 9 to 15 bits.
    pub fn new(level: u8, window_bits: u8) -> StreamDeflater {
        let window_bits = window_bits.clamp(9, 15);
        StreamDeflater { engine: StreamDeflater::engine(level, window_bits), level, window_bits }
    }

    fn engine(level: u8, window_bits: u8) -> Engine {
        match level {
            0..=1 => Engine::Compact(Compact::new(window_bits)),
            _ => {
                let level = Compression::new(level.min(9).into());
                Engine::Zlib(Compress::new_with_window_bits(level, false, window_bits))
            }
        }
    }

    /// Forgets what came before, and goes on at this level.
    pub fn begin_anew(&mut self, level: u8) {
        match &mut self.engine {
            _ if level != self.level => {
                (self.engine, self.level) = (StreamDeflater::engine(level, self.window_bits), level);
            }
            Engine::Compact(compact) => compact.begin_anew(),
            Engine::Zlib(compress) => compress.reset(),
        }
    }

    /// Memory that a compressor of this level takes, in bytes: of zlib-rs at most a window, twice, a chain as long, and its tables.
    pub const fn held(level: u8, window_bits: u8) -> usize {
        match level {
            0..=1 => COMPACT_BYTES,
            _ => (284 << 10) + (4 << window_bits),
        }
    }

    /// How far back it refers at most.
    pub fn window_bits(&self) -> u8 {
        self.window_bits
    }

    /// The level that it compresses at.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Takes in a frame of a whole message that its readers are sent compressed by itself ([`Deflater::frame`]), so that its text is in their windows:
    /// what comes behind goes on from there. Returns false if that failed, as it never should; then nothing can come behind it.
    #[must_use]
    pub fn pass(&mut self, frame: &[u8]) -> bool {
        let Ok(Some((_, header_len))) = Header::parse(frame) else {
            debug_assert!(false, "a whole frame");
            return false;
        };
        let payload = &frame[header_len..];
        match &mut self.engine {
            Engine::Compact(compact) => {
                compact.pass(payload);
                true
            }
            // Between two flushes that is what a dictionary is: text that came before. What is beyond a window isn't referred to.
            Engine::Zlib(compress) => {
                let known = payload.len().saturating_sub(1 << self.window_bits);
                compress.set_dictionary(&payload[known..]).is_ok()
            }
        }
    }

    /// A frame of a whole message, which is not empty, as it is compressed, be that shorter or not: its readers have to have read it. None
    /// if the compressor failed, as it never should; then nothing can come behind it.
    pub fn frame(&mut self, frame: &[u8]) -> Option<Box<[u8]>> {
        let Ok(Some((header, header_len))) = Header::parse(frame) else {
            debug_assert!(false, "a whole frame");
            return None;
        };
        let payload = &frame[header_len..];
        // What can't be compressed is stored, with some bytes before each block of it; there has to be more room than is needed.
        let most = 2 * payload.len() + 64;
        let mut room = Vec::with_capacity(most);
        let packed = match &mut self.engine {
            Engine::Compact(compact) => {
                compact.message(payload, &mut room);
                &room[..]
            }
            Engine::Zlib(compress) => {
                let before = compress.total_in();
                let status = compress.compress_vec(payload, &mut room, FlushCompress::Sync);
                let taken = (compress.total_in() - before) as usize;
                if !matches!(status, Ok(Status::Ok)) || taken != payload.len() || room.len() == room.capacity() {
                    debug_assert!(false, "{status:?}, {taken} of {} taken, {} made", payload.len(), room.len());
                    return None;
                }
                let Some(packed) = room.strip_suffix(&TAIL) else {
                    debug_assert!(false, "a flush ends so");
                    return None;
                };
                packed
            }
        };
        let mut done = Vec::with_capacity(frame::header_len(packed.len()) + packed.len());
        Header { deflated: true, key: None, payload_len: packed.len() as u64, ..header }.push(&mut done);
        done.extend_from_slice(packed);
        Some(done.into_boxed_slice())
    }
}

/// Inflates messages, one after the other.
pub struct Inflater {
    inflate: Decompress,
}

/// A message has so many streams of deflate behind each other at most. Compressors that can't flush end one with each fragment; many
/// empty ones would be work for nothing.
const STREAMS_MAX: usize = 256;

/// Bytes that are inflated before it is looked again how many there may be.
const STEP: usize = 16 * 1024;

/// How many bytes of a compressed message are taken where what it inflates to may have `most`: whatever doesn't get shorter is stored as
/// it is, with a few bytes before each part of it.
pub fn compressed_max(most: usize) -> usize {
    most.saturating_add(most / 8).saturating_add(64)
}

impl Default for Inflater {
    /// For messages that were compressed with whatever window.
    fn default() -> Inflater {
        Inflater { inflate: Decompress::new(false) }
    }
}

impl Inflater {
    /// Appends to `out`, which is empty, what a message inflates to, at most `most` bytes; it stops there if there are more.
    ///
    /// # Errors
    /// There are more, or it is no deflate, or ends in the middle.
    pub fn message(&mut self, message: &[u8], most: usize, out: &mut Vec<u8>) -> Result<(), Violation> {
        debug_assert!(out.is_empty());
        self.inflate.reset(false);
        let mut streams = 1;
        for (part, is_tail) in [(message, false), (&TAIL[..], true)] {
            let mut rest = part;
            loop {
                if out.len() == out.capacity() {
                    // One more than there may be shows that there are more.
                    let room = (most - out.len()).saturating_add(1).min(STEP.max(out.len()));
                    out.reserve_exact(room);
                }
                let (taken, made) = (self.inflate.total_in(), out.len());
                let status = self.inflate.decompress_vec(rest, out, FlushDecompress::Sync);
                if out.len() > most {
                    return Err(Violation::TooBig);
                }
                // The end of a message is an empty block, unless that message ends in the middle of one.
                if is_tail && out.len() > made {
                    return Err(Violation::BadDeflate);
                }
                rest = &rest[(self.inflate.total_in() - taken) as usize..];
                match status.map_err(|_| Violation::BadDeflate)? {
                    // The last block of a stream: behind it another may begin (section 7.2.3.4), or nothing but the tail.
                    Status::StreamEnd if rest.is_empty() && is_tail => return Ok(()),
                    Status::StreamEnd if streams == STREAMS_MAX => return Err(Violation::BadDeflate),
                    Status::StreamEnd => {
                        streams += 1;
                        self.inflate.reset(false);
                    }
                    Status::Ok | Status::BufError if rest.is_empty() && out.len() < out.capacity() => break,
                    Status::Ok | Status::BufError => {
                        let stands_still = out.len() == made && self.inflate.total_in() == taken;
                        if stands_still && out.len() < out.capacity() {
                            return Err(Violation::BadDeflate);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use miniz_oxide::inflate::decompress_to_vec;
    use proptest::prelude::*;

    use super::{super::frame::Opcode, *};
    use crate::websocket::independent::Context;

    fn framed(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        Header { fin: true, deflated: false, opcode, key: None, payload_len: payload.len() as u64 }.push(&mut frame);
        frame.extend_from_slice(payload);
        frame
    }

    /// What another inflater makes of a compressed message.
    fn independently(message: &[u8]) -> Option<Vec<u8>> {
        // Its end, and a last block, without which it wants more.
        decompress_to_vec(&[message, &TAIL, &[3, 0]].concat()).ok()
    }

    fn inflated(message: &[u8], most: usize) -> Result<Vec<u8>, Violation> {
        let mut out = Vec::new();
        Inflater::default().message(message, most, &mut out)?;
        Ok(out)
    }

    fn quotes(n: usize) -> String {
        (0..n)
            .map(|n| format!("{{\"topic\":\"q.us.AAPL\",\"seq\":{n},\"bid\":{}.25,\"ask\":{}.5}}\n", n * 7, n * 9))
            .collect()
    }

    #[test]
    fn the_examples_of_rfc_7692_section_7_2_3_are_read() {
        // Compressed; stored; two fragments with a last block; two blocks.
        for message in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            assert_eq!(inflated(message, 5).unwrap(), b"Hello", "{message:x?}");
            assert_eq!(inflated(message, 4), Err(Violation::TooBig), "{message:x?}");
        }
        assert_eq!(inflated(&[0x00], 0).unwrap(), b"", "an empty message, section 7.2.3.6");
        assert_eq!(inflated(&[0x02, 0x00], 0).unwrap(), b"");
    }

    #[test]
    fn a_message_refers_to_nothing_before_it() {
        let mut inflater = Inflater::default();
        let mut deflater = Compress::new(Compression::new(6), false);
        let text = quotes(20);
        let mut compressed = |text: &str| {
            let mut out = Vec::with_capacity(text.len() + 100);
            deflater.compress_vec(text.as_bytes(), &mut out, FlushCompress::Sync).unwrap();
            out.truncate(out.len() - TAIL.len());
            out
        };
        let (first, again) = (compressed(&text), compressed(&text));
        let mut out = Vec::new();
        inflater.message(&first, text.len(), &mut out).unwrap();
        assert!(out == text.as_bytes());
        out.clear();
        assert_eq!(inflater.message(&again, text.len(), &mut out), Err(Violation::BadDeflate));
        out.clear();
        inflater.message(&first, text.len(), &mut out).unwrap();
        assert!(out == text.as_bytes(), "whatever was before");
    }

    #[test]
    fn what_inflates_to_more_than_may_be_is_refused_before_there_is_much_more() {
        let zeroes = vec![0; 64 << 20];
        let bomb = Deflater { compress: Compress::new(Compression::best(), false), room: Vec::new() };
        let mut packed = vec![0; 1 << 20];
        let mut compress = bomb.compress;
        compress.compress(&zeroes, &mut packed, FlushCompress::Sync).unwrap();
        packed.truncate(compress.total_out() as usize - TAIL.len());
        assert!(packed.len() < 70_000, "{}", packed.len());
        let (mut out, most) = (Vec::new(), 64 * 1024);
        assert_eq!(Inflater::default().message(&packed, most, &mut out), Err(Violation::TooBig));
        assert!(out.capacity() <= 2 * most, "{}", out.capacity());
    }

    #[test]
    fn many_empty_streams_and_what_ends_in_the_middle_are_refused() {
        assert_eq!(inflated(&[3, 0].repeat(STREAMS_MAX - 1), 10).unwrap(), b"");
        assert_eq!(inflated(&[3, 0].repeat(STREAMS_MAX), 10), Err(Violation::BadDeflate));
        // A stored block of which bytes are missing.
        assert_eq!(inflated(&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48], 10), Err(Violation::BadDeflate));
        assert_eq!(inflated(&[0x07], 10), Err(Violation::BadDeflate), "a reserved kind of block");
    }

    #[test]
    fn what_gets_no_shorter_is_not_compressed_nor_what_is_long() {
        let mut deflater = Deflater::new(6);
        let mut random = fastrand::Rng::with_seed(1);
        for len in [0, 1, 3, 125, 126, 1000, 65_535, 65_536] {
            let noise: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            assert!(deflater.frame(&framed(Opcode::Binary, &noise)).is_none(), "{len}");
        }
        let text = vec![b'x'; COMPRESSED_MAX + 1];
        assert!(deflater.frame(&framed(Opcode::Text, &text)).is_none());
        assert!(deflater.frame(&framed(Opcode::Text, &text[1..])).is_some());
        deflater.give_back();
        assert!(deflater.room.capacity() <= KEPT);
    }

    #[test]
    fn a_frame_is_compressed_in_the_same_way_whatever_came_before() {
        let mut random = fastrand::Rng::with_seed(7);
        let text = quotes(1200);
        for level in 1..=9 {
            let mut used = Deflater::new(level);
            for _ in 0..60 {
                let longest = if random.u8(..8) == 0 { 60_000 } else { 700 };
                let (from, len) = (random.usize(..1000), random.usize(..longest));
                let mut payload = text.as_bytes()[from..(from + len).min(text.len())].to_vec();
                if random.bool() {
                    payload.iter_mut().step_by(random.usize(1..9)).for_each(|byte| *byte = random.u8(..));
                }
                let opcode = if random.bool() { Opcode::Text } else { Opcode::Binary };
                let frame = framed(opcode, &payload);
                let packed = used.frame(&frame);
                assert!(packed == Deflater::new(level).frame(&frame), "level {level}");
                let Some(packed) = packed else { continue };
                assert!(packed.len() < frame.len());
                let (header, at) = Header::parse_with(&packed, true).unwrap().unwrap();
                assert_eq!((header.deflated, header.opcode, header.fin), (true, opcode, true));
                assert_eq!(header.payload_len as usize, packed.len() - at);
                assert!(independently(&packed[at..]).unwrap() == payload, "level {level}");
                assert!(inflated(&packed[at..], payload.len()).unwrap() == payload, "level {level}");
            }
        }
    }

    #[test]
    fn a_window_of_twelve_bits_is_enough_to_read_a_frame() {
        let mut payload = quotes(400).into_bytes();
        payload.rotate_left(13);
        let packed = Deflater::new(9).frame(&framed(Opcode::Text, &payload)).unwrap();
        let (_, at) = Header::parse_with(&packed, true).unwrap().unwrap();
        let (mut inflate, mut out) = (Decompress::new_with_window_bits(false, WINDOW_BITS), Vec::new());
        // Little by little, so that what is referred to has to be in the window.
        for piece in packed[at..].chunks(16) {
            let mut rest = piece;
            while !rest.is_empty() {
                let before = inflate.total_in();
                out.reserve(64);
                inflate.decompress_vec(rest, &mut out, FlushDecompress::Sync).unwrap();
                rest = &rest[(inflate.total_in() - before) as usize..];
            }
        }
        out.reserve(4096);
        inflate.decompress_vec(&TAIL, &mut out, FlushDecompress::Sync).unwrap();
        assert!(out == payload);
    }

    #[test]
    fn a_stream_is_read_by_whoever_has_read_it_since_it_began_anew_and_by_nobody_else() {
        for (level, window_bits) in [(1, 9), (1, 12), (6, 15), (7, 12), (9, 12)] {
            let mut deflater = StreamDeflater::new(level, window_bits);
            let (mut from_first, mut late) = (Context::new(window_bits), Context::new(window_bits));
            let (mut bytes, mut all, mut misread) = (0, 0, 0);
            for n in 0..300 {
                if n % 100 == 50 {
                    deflater.begin_anew(if n == 150 { 10 - level } else { level });
                    late = Context::new(window_bits);
                }
                let text = quotes(1 + n % 3).replace("seq\":0", &format!("seq\":{n}"));
                let framed = framed(if n % 2 == 0 { Opcode::Text } else { Opcode::Binary }, text.as_bytes());
                let frame = deflater.frame(&framed).expect("it never fails");
                let (header, at) = Header::parse_with(&frame, true).unwrap().unwrap();
                assert!(header.deflated && header.fin && header.payload_len as usize == frame.len() - at);
                assert!(
                    from_first.message(&frame[at..]).as_deref() == Some(text.as_bytes()),
                    "{level} {window_bits} {n}"
                );
                if n >= 50 {
                    assert!(
                        late.message(&frame[at..]).as_deref() == Some(text.as_bytes()),
                        "{level} {window_bits} {n}"
                    );
                }
                if n > 51 && n % 100 != 50 {
                    let fresh = Context::new(window_bits).message(&frame[at..]);
                    misread += usize::from(fresh.as_deref() != Some(text.as_bytes()));
                }
                (bytes, all) = (bytes + frame.len(), all + framed.len());
            }
            assert!(misread > 200, "whoever was not there can't read them: {misread}");
            assert!(bytes * 2 < all, "{bytes} of {all}");
        }
    }

    #[test]
    fn what_is_compressed_by_itself_between_frames_of_a_stream_is_passed_over_by_it() {
        let mut random = fastrand::Rng::with_seed(5);
        let text = quotes(2000).into_bytes();
        for level in 1..=9 {
            for window_bits in [9, 12, 15] {
                let (mut stream, mut alone) = (StreamDeflater::new(level, window_bits), Deflater::new(6));
                let (mut reader, mut bytes, mut all, mut passed) = (Context::new(window_bits), 0, 0, 0);
                for n in 0..200 {
                    if n % 64 == 63 {
                        stream.begin_anew(level);
                    }
                    let longest = [400, 400, 400, 9000, 70_000][random.usize(..5)];
                    let (from, len) = (random.usize(..1000), random.usize(16..longest));
                    let payload = &text[from..(from + len).min(text.len())];
                    let framed = framed(Opcode::Text, payload);
                    let is_alone = random.u8(..3) == 0;
                    let packed = if is_alone { alone.frame(&framed) } else { None };
                    if let Some(packed) = &packed {
                        assert!(stream.pass(&framed), "it never fails");
                        passed += packed.len();
                    }
                    let sent = packed.unwrap_or_else(|| stream.frame(&framed).expect("it never fails"));
                    let (_, at) = Header::parse_with(&sent, true).unwrap().unwrap();
                    let read = reader.message(&sent[at..]);
                    assert!(read.as_deref() == Some(payload), "{level} {window_bits} {n}, alone: {is_alone}");
                    (bytes, all) = (bytes + sent.len(), all + payload.len());
                }
                assert!(passed > 1000 && bytes * 2 < all, "{bytes} of {all}, {passed} of them passed over");
            }
        }
    }

    #[test]
    fn what_gets_no_shorter_is_part_of_a_stream_all_the_same() {
        let (mut deflater, mut reader) = (StreamDeflater::new(7, 12), Context::new(12));
        let mut random = fastrand::Rng::with_seed(3);
        for len in [1, 5, 125, 126, 4096, 65_535, 70_000] {
            let noise: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            let frame = deflater.frame(&framed(Opcode::Binary, &noise)).expect("it never fails");
            let (_, at) = Header::parse_with(&frame, true).unwrap().unwrap();
            assert!(reader.message(&frame[at..]) == Some(noise), "{len}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_inflated_as_another_inflater_does_or_refused(message in prop::collection::vec(any::<u8>(), 0..200)) {
            let ours = inflated(&message, 10_000);
            if let (Ok(ours), Some(theirs)) = (&ours, independently(&message)) {
                prop_assert!(theirs.starts_with(ours) || ours.starts_with(&theirs));
            }
            prop_assert!(!matches!(ours, Ok(out) if out.len() > 10_000));
        }
    }
}
