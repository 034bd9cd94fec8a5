//! Compressed messages (permessage-deflate, RFC 7692), as `--compress` asks for them.
//!
//! What `--compress` offers is `server_no_context_takeover`, so that each message stands by itself: no window has to be kept for a connection, and a message
//! that many are sent is inflated once, as long as it is among the last ones. That is for whoever sends all of them the same bytes; where each
//! connection has a compressor of its own the bytes may be the same all the same, since each message begins anew. Inflated by
//! a library that no server here is made of, byte by byte what is then judged as if it had come in clear.
//!
//! `--compress-context` offers what browsers do: then each message may refer to those before it, so every connection has a window of its own, of
//! 32 KiB and some tables, and every message is inflated at every connection. That costs the generator a microsecond or two for each.

use std::sync::Arc;

use miniz_oxide::{
    DataFormat, MZFlush,
    inflate::{
        decompress_to_vec_with_limit,
        stream::{InflateState, inflate},
    },
};

/// What is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Each message by itself.
    Single,
    /// A message may refer to those before it.
    Context,
}

impl Offer {
    /// As a header.
    pub fn header(self) -> &'static str {
        match self {
            Offer::Single => {
                "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            }
            Offer::Context => "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover",
        }
    }
}

/// What a message ends with that isn't sent, and a last block behind it.
const TAIL: [u8; 6] = [0, 0, 0xff, 0xff, 3, 0];

/// The longest that a message may inflate to, as long as the longest frame.
const MESSAGE_MAX: usize = 1 << 30;

/// Messages that are kept: those that a thousand subscribers may be apart by.
const KEPT: usize = 4096;

/// The messages that were inflated last. See the module's description.
pub struct Inflated {
    kept: Vec<Option<Kept>>,
    input: Vec<u8>,
}

struct Kept {
    compressed: Box<[u8]>,
    message: Arc<[u8]>,
}

impl Default for Inflated {
    fn default() -> Self {
        Self { kept: (0..KEPT).map(|_| None).collect(), input: Vec::new() }
    }
}

impl Inflated {
    /// What a message inflates to; none if it is no deflate.
    pub fn message(&mut self, compressed: &[u8]) -> Option<Arc<[u8]>> {
        let place = place(compressed);
        if let Some(kept) = &self.kept[place]
            && *kept.compressed == *compressed
        {
            return Some(Arc::clone(&kept.message));
        }
        self.input.clear();
        self.input.extend_from_slice(compressed);
        self.input.extend_from_slice(&TAIL);
        let message: Arc<[u8]> = decompress_to_vec_with_limit(&self.input, MESSAGE_MAX).ok()?.into();
        self.kept[place] = Some(Kept { compressed: compressed.into(), message: Arc::clone(&message) });
        Some(message)
    }
}

/// An inflater that knows all compressed messages of its connection.
pub struct Context {
    state: Box<InflateState>,
    input: Vec<u8>,
}

impl Default for Context {
    fn default() -> Self {
        Self { state: InflateState::new_boxed(DataFormat::Raw), input: Vec::new() }
    }
}

impl Context {
    /// What a message inflates to behind those before it; none if it is no deflate, or inflates to more than a gigabyte.
    pub fn message(&mut self, compressed: &[u8]) -> Option<Vec<u8>> {
        self.input.clear();
        self.input.extend_from_slice(compressed);
        self.input.extend_from_slice(&TAIL[..4]);
        let (mut rest, mut out, mut room) = (&self.input[..], Vec::new(), [0; 4096]);
        loop {
            let done = inflate(&mut self.state, rest, &mut room, MZFlush::Sync);
            rest = &rest[done.bytes_consumed..];
            out.extend_from_slice(&room[..done.bytes_written]);
            if out.len() > MESSAGE_MAX {
                return None;
            }
            if done.bytes_consumed + done.bytes_written == 0 {
                return rest.is_empty().then_some(out);
            }
            done.status.ok()?;
        }
    }
}

/// Where a message is kept: by its end, in which numbers and checks differ, and its length.
fn place(compressed: &[u8]) -> usize {
    let mut hash = compressed.len() as u64;
    let (words, rest) = compressed.as_chunks::<8>();
    for word in words {
        hash = (hash.rotate_left(5) ^ u64::from_ne_bytes(*word)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    for byte in rest {
        hash = (hash.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    (hash >> 40) as usize % KEPT
}

/// Why what a server has answered to the offer is not what was asked for; none if it is.
pub fn refusal(answer: Option<&str>, offer: Offer) -> Option<String> {
    let Some(answer) = answer else {
        return Some(
            "it does not compress: it answered the handshake without Sec-WebSocket-Extensions (--compress)".into(),
        );
    };
    let mut words = answer.split(';').map(str::trim);
    if words.next() != Some("permessage-deflate") {
        return Some(format!("it turned on an extension that was not offered: `{answer}`"));
    }
    if offer == Offer::Single && !words.any(|word| word == "server_no_context_takeover") {
        return Some(format!(
            "it does not promise server_no_context_takeover, which --compress asks for: it answered `{answer}`"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_message_is_inflated_once_and_found_again() {
        let mut inflated = Inflated::default();
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let first = inflated.message(&hello).unwrap();
        assert_eq!(*first, *b"Hello");
        assert!(Arc::ptr_eq(&first, &inflated.message(&hello).unwrap()));
        assert!(inflated.message(b"\x07").is_none());
    }

    #[test]
    fn it_inflates_as_another_library_does() {
        let mut inflated = Inflated::default();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..300 {
            let alphabet = random.u8(1..=255);
            let message: Vec<u8> = (0..random.usize(..5000)).map(|_| random.u8(..alphabet)).collect();
            let mut encoder = flate2::read::DeflateEncoder::new(&message[..], flate2::Compression::new(6));
            let mut compressed = Vec::new();
            encoder.read_to_end(&mut compressed).unwrap();
            // A stream that is ended has a byte behind it (RFC 7692 section 7.2.3.4).
            compressed.push(0);
            assert!(*inflated.message(&compressed).unwrap() == *message);
        }
    }

    #[test]
    fn an_answer_has_to_be_to_what_was_offered() {
        let single = |answer| refusal(answer, Offer::Single);
        assert_eq!(single(Some("permessage-deflate; client_no_context_takeover; server_no_context_takeover")), None);
        assert!(single(None).unwrap().contains("does not compress"));
        assert!(single(Some("x-webkit-deflate-frame")).unwrap().contains("not offered"));
        assert!(single(Some("permessage-deflate")).unwrap().contains("server_no_context_takeover"));
        assert_eq!(refusal(Some("permessage-deflate"), Offer::Context), None);
        assert!(refusal(None, Offer::Context).unwrap().contains("does not compress"));
    }

    #[test]
    fn a_message_may_refer_to_those_before_it() {
        let mut deflater = flate2::Compress::new(flate2::Compression::new(6), false);
        let (mut context, mut alone) = (Context::default(), 0);
        for n in 0..50 {
            let message = format!("{{\"topic\":\"quotes.us.{}\",\"seq\":{n}}}", n % 3).repeat(1 + n % 200);
            let mut compressed = Vec::with_capacity(message.len() + 100);
            deflater.compress_vec(message.as_bytes(), &mut compressed, flate2::FlushCompress::Sync).unwrap();
            let compressed = compressed.strip_suffix(&TAIL[..4]).unwrap();
            assert!(context.message(compressed).as_deref() == Some(message.as_bytes()), "{n}");
            let fresh = Context::default().message(compressed);
            alone += usize::from(fresh.as_deref() == Some(message.as_bytes()));
        }
        assert!(alone < 5, "{alone} can be read without");
        assert!(Context::default().message(b"\x07").is_none());
    }
}
