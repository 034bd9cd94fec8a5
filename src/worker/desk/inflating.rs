//! Compressed messages of clients: inflated when they are whole, each by itself, by the one inflater that a worker has.
//!
//! A client that has agreed on permessage-deflate was asked to compress each message without those before, so nothing of it is kept
//! between two. What has come of a message is held as it came, by the decoder; what it inflates to is in the worker's buffer while
//! it is done what it asks for, at most `--max-message` bytes: where there would be more, inflating stops at once.
//!
//! **What one client can make others pay.** A few bytes can inflate to all that a message may have. So what comes out is charged, as work of
//! the turn, and counts as publications do by its own length; and from whoever may send compressed messages so few bytes are read at a
//! time that what they can come to is no more than a turn has left ([`Inflating::byte_max`]). A message in which there is much to be
//! made ready and nothing to come out is charged by the bytes that have come.

use super::super::work::price;
use crate::websocket::{Violation, deflate::Inflater};

/// See the module's description.
#[derive(Default)]
pub struct Inflating {
    /// There while messages come: some 50 KiB.
    inflater: Option<Inflater>,
    /// What the message inflates to that is being looked at.
    message: Vec<u8>,
    /// Bytes that messages inflated to since that was last asked.
    inflated: usize,
    /// There was a message since room was last given back.
    has_worked: bool,
}

/// The most that a byte of deflate can inflate to: 258 bytes by two bits.
const INFLATES_MAX: u64 = 1032;

/// Room for messages that stays.
const KEPT: usize = 16 * 1024;

impl Inflating {
    /// What a byte that comes can cost at most, where it costs `each` to take in a line of what it inflates to.
    pub const fn byte_max(each: u64) -> u64 {
        price::DEFLATED_BYTE + (INFLATES_MAX * (price::INFLATED_LINE + each)).div_ceil(64)
    }

    /// Inflates a message of which there may be `most` bytes, and says what that costs; the buffer is to be handed back.
    pub fn take(&mut self, message: &[u8], most: usize) -> (Result<Vec<u8>, Violation>, u64) {
        self.has_worked = true;
        let mut out = std::mem::take(&mut self.message);
        out.clear();
        let done = self.inflater.get_or_insert_default().message(message, most, &mut out);
        let lines = (out.len() as u64).div_ceil(64);
        let cost = price::FRAME + price::DEFLATED_BYTE * message.len() as u64 + price::INFLATED_LINE * lines;
        match done {
            Ok(()) => {
                self.inflated += out.len();
                (Ok(out), cost)
            }
            Err(violation) => {
                self.hand_back(out);
                (Err(violation), cost)
            }
        }
    }

    /// Takes the buffer back.
    pub fn hand_back(&mut self, message: Vec<u8>) {
        self.message = message;
    }

    /// Bytes that messages inflated to since this was last asked.
    pub fn take_inflated(&mut self) -> usize {
        std::mem::take(&mut self.inflated)
    }

    /// Gives back what was needed once.
    pub fn give_back(&mut self) {
        if !std::mem::take(&mut self.has_worked) {
            *self = Inflating::default();
        } else if self.message.capacity() > KEPT {
            self.message = Vec::new();
        }
    }
}
