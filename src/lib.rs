//! Stentor: a multi-threaded WebSocket broadcast server for market data.
//!
//! Publishers put small payloads on topics; each is encoded once, appended to one shared *tape*, and sent from there to
//! every subscriber. A subscriber is a *cursor* on the tape, so a slow one costs a position and not a queue.
//!
//! The floors below are the whole structure; a module uses its own floor and those beneath it:
//!
//! ```text
//!  6  cli, check, server           assembly
//!     top                          a server shown in a terminal; a client of its HTTP
//!  5  control, feeds               HTTP API, metrics, page; demo and replay
//!  4  publish, acceptor, worker    the data plane; handover, limits and shared between its threads
//!  3  io                           the kernel edge
//!  2  tape, topic                  shared memory
//!  1  lane, access, http, proxy,   bytes and values: no socket, thread, lock or clock
//!     websocket, protocol
//!  0  clock, config, metrics,      ground
//!     live, log, panic, slack
//! ```

mod acceptor;
pub mod access;
#[cfg(all(any(feature = "bench", test), not(loom)))]
#[doc(hidden)]
pub mod bench;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
mod control;
pub mod feeds;
mod handover;
pub mod http;
pub mod io;
pub mod lane;
mod limits;
mod live;
mod log;
pub mod metrics;
pub mod panic;
pub mod protocol;
mod proxy;
pub mod publish;
pub mod server;
mod shared;
#[cfg(test)]
mod skip;
mod slack;
pub mod tape;
pub mod top;
pub mod topic;
pub mod websocket;
mod worker;

/// For `fuzz/`, which drives the worker's tables as their tests do.
#[cfg(fuzzing)]
#[doc(hidden)]
pub use worker::{reload_script as worker_reload, script as worker_script};
