//! WebSocket (RFC 6455) as bytes and values: no socket, thread, lock or clock.
//!
//! One noun, one file:
//!
//! | file | what |
//! | --- | --- |
//! | [`handshake`] | the upgrade request judged, the 101 answer written |
//! | [`frame`] | the header of a frame, read and written; small frames appended to a buffer |
//! | [`mask`] | the XOR that clients' payloads carry |
//! | [`utf8`] | text checked as it arrives, in any pieces |
//! | [`close`] | close codes, and the payload of a close frame |
//! | [`decoder`] | bytes as they came from a socket turned into messages |
//! | [`extension`] | what is agreed on of permessage-deflate |
//! | [`deflate`] | messages compressed and inflated |
//! | [`violation`] | the ways in which a peer can break the protocol |
//! | `client` | the client's side, for tests, benches and fuzz targets |
//!
//! The server's own broadcast frames are built once, on the tape; what is here writes their header and everything that
//! is sent to one connection alone. The one extension that is known is permessage-deflate (RFC 7692).

#[cfg(any(feature = "bench", fuzzing, test))]
pub mod client;
pub mod close;
pub mod compact;
pub mod decoder;
pub mod deflate;
pub mod extension;
pub mod frame;
pub mod handshake;
#[cfg(test)]
pub mod independent;
pub mod mask;
pub mod utf8;
pub mod violation;

pub use close::CloseCode;
pub use decoder::{Decoder, Event, Role};
pub use violation::Violation;
