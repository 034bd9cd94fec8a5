//! The lanes: the forms in which publications go to their subscribers.

/// Which encoding of the publications a subscriber is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The `update` envelope in a text frame, for `/ws`.
    Json,
    /// The payload alone in a frame of its own kind, for `/raw`.
    Raw,
    /// The `update` envelope as a Server-Sent Event, for `/sse`.
    Events,
}

/// How many lanes there are.
pub const LANES: usize = 3;

mod address;
mod events;
mod json;
mod raw;
mod words;

pub use address::Address;
pub use words::{Asked, Words};
