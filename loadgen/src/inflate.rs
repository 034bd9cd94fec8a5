//! Compressed messages (permessage-deflate, RFC 7692), as `--compress` asks for them.
//!
//! What is offered is `server_no_context_takeover`, so that each message stands by itself: no window has to be kept for a connection, and a message
//! that many are sent is inflated once, as long as it is among the last ones. That is for whoever sends all of them the same bytes; where each
//! connection has a compressor of its own the bytes may be the same all the same, since each message begins anew. Inflated by
//! a library that no server here is made of, byte by byte what is then judged as if it had come in clear.

use std::sync::Arc;

use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// What is offered, as a header.
pub const OFFER: &str =
    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover";

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
pub fn refusal(answer: Option<&str>) -> Option<String> {
    let Some(answer) = answer else {
        return Some(
            "it does not compress: it answered the handshake without Sec-WebSocket-Extensions (--compress)".into(),
        );
    };
    let mut words = answer.split(';').map(str::trim);
    if words.next() != Some("permessage-deflate") {
        return Some(format!("it turned on an extension that was not offered: `{answer}`"));
    }
    if !words.any(|word| word == "server_no_context_takeover") {
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
        assert_eq!(refusal(Some("permessage-deflate; client_no_context_takeover; server_no_context_takeover")), None);
        assert!(refusal(None).unwrap().contains("does not compress"));
        assert!(refusal(Some("x-webkit-deflate-frame")).unwrap().contains("not offered"));
        assert!(refusal(Some("permessage-deflate")).unwrap().contains("server_no_context_takeover"));
    }
}
