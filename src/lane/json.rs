//! The lane of `/ws`: JSON in text frames.
//!
//! Each command of the client and each reply is one text message that holds one JSON object. A binary message is none, and closes
//! the connection.

use super::{Address, Asked, Words};
use crate::{
    protocol::{Command, Payload, Reply, command::Limits},
    websocket::{CloseCode, frame},
};

/// How it is spoken.
pub struct Json;

impl Words for Json {
    fn address(&self) -> Address {
        Address::Ws
    }

    fn subprotocol(&self) -> Option<&'static str> {
        Some("stentor.v1.json")
    }

    fn tells(&self) -> bool {
        true
    }

    fn hears(&self) -> bool {
        true
    }

    fn read<'m>(&self, message: Payload<'m>, limits: &Limits) -> Asked<'m> {
        match message {
            Payload::Text(text) => Asked::Command(Command::parse(text, limits)),
            _ => Asked::Unfit(CloseCode::UNSUPPORTED, "commands are text messages"),
        }
    }

    fn push_reply(&self, out: &mut Vec<u8>, reply: &Reply<'_>) {
        frame::push_text_with(out, |out| reply.push_json(out));
    }

    fn push_close(&self, out: &mut Vec<u8>, close: Option<(CloseCode, &str)>) {
        frame::push_close(out, close);
    }
}
