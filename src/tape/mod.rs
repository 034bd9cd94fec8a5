//! The tape: one append-only log of publications, from which every subscriber is sent.
//!
//! A publication is encoded once for each *lane* that has subscribers, ready to be sent, and the bytes are appended to the
//! newest *segment*; what they mean is not known here. Beside them runs an index entry: topic, seq, ts, kind, and where the
//! frames are. A publication's number on the tape is its [`Position`]; subscribers are positions, too.
//!
//! ```text
//!              tail                                                head
//!               |                                                   |
//!   segments    [ 0 1 2 3 4 ][ 5 6 7 8 ][ 9 10 11 12 13 ][ 14 15 ...
//!                              ^ a slow subscriber's cursor    ^ everybody else's
//! ```
//!
//! One writer at a time, under a short lock that also guards the topics' numbering, so that per-topic and global order
//! can't disagree. Readers take no lock to read: they load the head once (Acquire, pairing with the writer's Release)
//! and everything before it is immutable. Only when the head has left the newest segment that a reader knows does it
//! take the lock for a moment, to fetch the newer ones.
//!
//! Memory is bounded by `--retain`: older segments are let go, and live on only while a reader that is in the middle of a
//! pass pins them. Their buffers are used again.

#[cfg(all(test, loom))]
mod loom_model;
mod reader;
#[cfg(all(any(test, fuzzing), not(loom)))]
#[doc(hidden)]
pub mod script;
mod segment;
mod store;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;
mod writer;

pub use reader::{Published, Reader, Run};
pub use segment::{Entry, Whole, least};
pub use writer::{About, Appended, Appender, Tape, TapeSettings, TapeStatus};

/// A publication's number on the tape, counted from 0; also the number of publications before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);
