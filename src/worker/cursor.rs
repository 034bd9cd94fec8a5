//! A cursor: where a subscriber is on the tape.
//!
//! ```text
//!   the tape   ────────────────────────────────────────────► head
//!                  ▲            ▲                    ▲▲▲▲▲▲
//!                  behind: each with a position      at the head: members of their cohorts, to be
//!                  and a state of its own            sent the same bytes (`fan/column.rs`)
//!                  (`cursors/behind.rs`)
//! ```
//!
//! Most cursors are at the head, and then a cursor is nothing but a place in a list: what was planned and is still to be sent is
//! its cohort's. Who subscribes, or can't be sent everything, is behind until it has caught up.

/// Where a connection's cursor is, and who keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// It has no subscription.
    None,
    /// At the head: one of its cohort's members, and at which place among them (kept by the fan).
    Head(u32),
    /// Behind: its place among those that are (kept by the cursors).
    Behind(u32),
}
