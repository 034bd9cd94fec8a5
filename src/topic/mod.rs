//! Topics: their names, numbering and last values.
//!
//! A topic comes into being when something is first published on it. From then on it has a number for use on the tape
//! ([`TopicId`]), a `seq` that counts its publications, an [`Epoch`](crate::publication::Epoch), and its last value, which outlives the value's
//! place on the tape and makes the snapshot of later subscribers. The [`Registry`] is a plain table: the tape's writer
//! owns it under its lock, so that numbering and tape order can't disagree. [`Subscriptions`] counts, for the whole
//! server, who is subscribed to which name.

#[cfg(any(test, fuzzing))]
mod looks;
mod names;
mod patterns;
mod registry;
#[cfg(all(any(test, fuzzing), not(loom)))]
#[doc(hidden)]
pub mod script;
mod subscriptions;

#[cfg(any(test, fuzzing))]
pub(crate) use looks::Looks;
pub use registry::{LastValue, Registry, RegistryFull, Topic, TopicId, block_end};
pub use subscriptions::{Subscriptions, TooManySubscriptions};
