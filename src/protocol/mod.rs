//! What subscribers and publishers say to each other, as bytes and values.
//!
//! Nothing here holds a socket, a thread, a lock or a clock: a text frame goes in and a value comes out, or a value goes in
//! and bytes come out. Each file is one noun of the protocol:
//!
//! - [`name`]: topic names and patterns, and which pattern matches which name;
//! - [`name_set`]: many of them, and whether one stands for a topic;
//! - [`code`]: what can be wrong, as a word, and what follows;
//! - [`cursor`]: a place on a tape, as a word that clients hold;
//! - [`command`]: a client's text frame, read into a [`command::Command`];
//! - [`declared`]: what a bare payload is said to be, and when that is guessed;
//! - [`ndjson`]: one line of `POST /publish`;
//! - [`reply`]: what the server says, as a value, and the JSON of it;
//! - [`envelope`]: a publication as the update that `/ws` subscribers get;
//! - [`event`]: the same messages as Server-Sent Events.
//!
//! The public text of the protocol is the one for client authors; this is where it is kept.

pub mod code;
pub mod command;
pub mod cursor;
pub mod declared;
pub mod envelope;
pub mod event;
mod json;
pub mod name;
pub mod name_set;
pub mod ndjson;
pub(crate) mod object;
pub mod reply;

pub use code::ErrorCode;
pub use command::{Command, Id, Mode, Op, Sub};
pub use declared::Declared;
pub use envelope::{Envelope, Payload, first_update_prefix, update_prefix};
pub(crate) use json::DEPTH_MAX;
pub use json::Json;
pub use name::{PATTERN_SEGMENTS_MAX, Topic, is_pattern, matches};
pub use name_set::{Look, NameSet};
pub use reply::Reply;
