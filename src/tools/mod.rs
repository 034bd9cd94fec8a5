//! What the program does beside serving, each a task of the command line: clients of a running server, and what makes and explains
//! tokens.
//!
//! Clients speak to a server as anybody could, and nothing of the server uses them. They and what they need for a terminal are there only
//! with the feature `cli`.

pub mod client;
pub mod token;
pub mod top;
mod trust;
