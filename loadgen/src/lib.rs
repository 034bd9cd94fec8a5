//! Honest load generation for WebSocket broadcast servers.

pub mod clock;
pub mod dialect;
pub mod frame;
pub mod handshake;
pub mod ledger;
pub mod schedule;
pub mod socket;
pub mod spec;
pub mod stamp;
pub mod target;
pub mod units;
