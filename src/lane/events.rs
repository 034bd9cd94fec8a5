//! The lane of `/sse`: the messages of `/ws`, one way, as Server-Sent Events.
//!
//! The stream is the body of an HTTP answer. Nothing can be said on it but replies, and its end is the goodbye.

use super::{Address, Asked, Words};
use crate::{
    protocol::{Payload, Reply, command::Limits, event},
    websocket::CloseCode,
};

/// How it is spoken.
pub struct Events;

impl Words for Events {
    fn address(&self) -> Address {
        Address::Sse
    }

    fn subprotocol(&self) -> Option<&'static str> {
        None
    }

    fn tells(&self) -> bool {
        true
    }

    fn hears(&self) -> bool {
        false
    }

    fn read<'m>(&self, _: Payload<'m>, _: &Limits) -> Asked<'m> {
        Asked::Nothing
    }

    fn push_reply(&self, out: &mut Vec<u8>, reply: &Reply<'_>) {
        event::push_event_with(out, |out| reply.push_json(out));
    }

    fn push_close(&self, _: &mut Vec<u8>, _: Option<(CloseCode, &str)>) {}
}
