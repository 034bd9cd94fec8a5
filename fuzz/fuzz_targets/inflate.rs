//! Compressed messages: what comes is inflated as another inflater does, or refused, within the bound and without memory beyond it; an inflater
//! that has seen whatever before does the same; and what is compressed comes out as it was.
//!
//! The input is a message, and behind it two bytes that say how much it may inflate to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use miniz_oxide::inflate::{TINFLStatus, core::{DecompressorOxide, decompress, inflate_flags}};
use stentor::internals::websocket::{
    Violation,
    deflate::{Deflater, Inflater},
    frame::{self, Opcode},
};

const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// What another inflater makes of the first stream of a message, and whether it ended by itself or was cut off.
fn independently(message: &[u8], most: usize) -> (Vec<u8>, TINFLStatus) {
    let input = [message, &TAIL, &[3, 0]].concat();
    let mut out = vec![0; most + 1];
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, _, len) = decompress(&mut DecompressorOxide::new(), &input, &mut out, 0, flags);
    out.truncate(len);
    (out, status)
}

fuzz_target!(|data: &[u8]| {
    let Some((message, bound)) = data.split_last_chunk::<2>() else { return };
    let most = usize::from(u16::from_le_bytes(*bound));
    let (mut inflater, mut out) = (Inflater::default(), Vec::new());
    let first = inflater.message(message, most, &mut out);
    assert!(out.capacity() <= 2 * most + 64, "{} of {most}", out.capacity());
    let mut again = Vec::new();
    assert_eq!((inflater.message(message, most, &mut again), &again), (first, &out), "whatever it has seen");
    let (theirs, status) = independently(message, most);
    match first {
        Ok(()) => {
            assert!(out.len() <= most);
            // Behind a last block, others may follow here.
            assert!(status != TINFLStatus::Done || out.starts_with(&theirs));
            assert!(status != TINFLStatus::Failed || out.starts_with(&theirs) || theirs.starts_with(&out));
        }
        Err(Violation::TooBig) => assert!(out.len() > most),
        Err(violation) => assert_eq!(violation, Violation::BadDeflate),
    }

    let mut clear = vec![0; frame::header_len(message.len())];
    frame::write_header(&mut clear, true, Opcode::Binary, message.len());
    clear.extend_from_slice(message);
    let level = 1 + bound[0] % 9;
    let mut deflater = Deflater::new(level);
    let Some(packed) = deflater.frame(&clear) else { return };
    assert!(packed.len() < clear.len());
    assert!(deflater.frame(&clear).is_some_and(|again| again == packed), "the same again");
    let (header, at) = frame::Header::parse_with(&packed, true).expect("it is a header").expect("it is whole");
    assert!(header.deflated && header.fin && header.payload_len as usize == packed.len() - at);
    let mut inflated = Vec::new();
    inflater.message(&packed[at..], message.len(), &mut inflated).expect("it is what was compressed");
    assert!(inflated == message);
    assert!(independently(&packed[at..], message.len()).0 == message);
});
