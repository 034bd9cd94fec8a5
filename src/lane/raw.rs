//! The lane of `/raw/TOPIC`: the payloads of one topic, and nothing around them.
//!
//! There are no words: each message of the client is a publication, each message to it is one, and whatever else happens is
//! told by the close frame at the end.

use super::{Address, Asked, Words};
use crate::{
    protocol::{Payload, Reply, command::Limits},
    websocket::{CloseCode, frame},
};

/// How it is spoken.
pub struct Raw;

impl Words for Raw {
    fn address(&self) -> Address {
        Address::Raw
    }

    fn subprotocol(&self) -> Option<&'static str> {
        Some("stentor.v1.raw")
    }

    fn tells(&self) -> bool {
        false
    }

    fn hears(&self) -> bool {
        true
    }

    fn read<'m>(&self, message: Payload<'m>, _: &Limits) -> Asked<'m> {
        Asked::Publish(message)
    }

    fn push_reply(&self, _: &mut Vec<u8>, _: &Reply<'_>) {}

    fn push_close(&self, out: &mut Vec<u8>, close: Option<(CloseCode, &str)>) {
        frame::push_close(out, close);
    }
}
