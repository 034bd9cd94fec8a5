//! What the program does beside serving: clients of a running server, each a task of the command line.
//!
//! They speak to a server as anybody could, and nothing of the server uses them. They and what they need for a terminal are there only
//! with the feature `cli`.

pub mod client;
pub mod top;
mod trust;
