//! Honest load generation for WebSocket broadcast servers.

pub mod clock;
pub mod frame;
pub mod ledger;
pub mod stamp;
pub mod units;
