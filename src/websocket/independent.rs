//! What the tests read compressed messages with.

use miniz_oxide::inflate::{
    TINFLStatus,
    core::{
        DecompressorOxide, decompress,
        inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF},
    },
};

/// An inflater that has seen all compressed messages of a connection, of another make than the server's. It knows no more of them than the window that was
/// agreed on: whatever refers back beyond that is no deflate to it.
pub struct Context {
    window: usize,
    /// The end of what came before.
    before: Vec<u8>,
    inflater: Box<DecompressorOxide>,
}

impl Context {
    /// With a window of so many bits.
    pub fn new(window_bits: u8) -> Context {
        Context { window: 1 << window_bits, before: Vec::new(), inflater: Box::default() }
    }

    /// What a message inflates to behind those before it.
    pub fn message(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let input = [message, &[0, 0, 0xff, 0xff]].concat();
        let mut out = std::mem::take(&mut self.before);
        let (start, mut read, mut at) = (out.len(), 0, out.len());
        // A message ends on a whole byte, between blocks: what goes on there needs to know of nothing but the bytes before.
        self.inflater.init();
        let flags = TINFL_FLAG_HAS_MORE_INPUT | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        loop {
            out.resize(at + 4096, 0);
            let (status, taken, made) = decompress(&mut self.inflater, &input[read..], &mut out, at, flags);
            (read, at) = (read + taken, at + made);
            match status {
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput if read == input.len() => break,
                _ => return None,
            }
        }
        out.truncate(at);
        let text = out[start..].to_vec();
        out.drain(..at.saturating_sub(self.window));
        self.before = out;
        Some(text)
    }
}
