//! Stentor: a multi-threaded WebSocket broadcast server for market data.
//!
//! Publishers put small payloads on topics; each is encoded once, appended to one shared *tape*, and sent from there to
//! every subscriber. A subscriber is a *cursor* on the tape, so a slow one costs a position and not a queue.
//!
//! The floors below are the whole structure; a module uses its own floor and those beneath it, and none of them use each other
//! in a circle. A test (`tests/it/floors/`) holds the source to what is drawn here.
//!
//! ```text
//!  7  server, check, cli               assembly
//!     top                              a server shown in a terminal; a client of its HTTP
//!  6  control, feeds                   HTTP API, metrics, page; demo and replay
//!  5  worker, acceptor                 the data plane
//!  4  publish, shared                  the way onto the tape; what the threads share
//!  3  io, handover, proxy              the kernel edge, sockets from thread to thread, who is really there
//!  2  tape, topic                      shared memory
//!  1  lane, http, websocket, protocol  bytes and values: no socket, thread, lock or clock
//!     access                           who may what
//!  0  clock, config, limits, live,     ground
//!     log, metrics, panic, slack
//! ```

mod acceptor;
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
