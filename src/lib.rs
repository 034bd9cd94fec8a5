//! Stentor: a multi-threaded WebSocket broadcast server for market data.
//!
//! Publishers put small payloads on topics; each is encoded once, appended to one shared *tape*, and sent from there to
//! every subscriber. A subscriber is a *cursor* on the tape, so a slow one costs a position and not a queue.
//!
//! The floors below are the whole structure; a module uses its own floor and those beneath it, and none of them use each other
//! in a circle. A test (`tests/it/floors/`) holds the source to what is drawn here.
//!
//! ```text
//!  7  server                           assembly
//!     program, cli, check              the program around it: flags, log, signals
//!     tools                            its other tasks, clients of a running server: top
//!  6  control, feeds                   HTTP API, metrics, page; demo and replay
//!  5  worker, acceptor, handshakes     the data plane
//!  4  publish, pulse, rota, shared     the way onto the tape; what the threads share; whether they go on; who is next
//!  3  io, handover, proxy              the kernel edge, sockets from thread to thread, who is really there
//!  2  tape, topic, packs, stream       shared memory; streams that cohorts share
//!     tls                              certificates, what is said of TLS, records by its keys
//!     audit                            who was there, and what they asked for
//!  1  lane, http, websocket, protocol  bytes and values: no socket, thread, lock or clock
//!     access                           who may what
//!  0  certified, cgroup, clock,        ground
//!     config, cores, counted, limits,
//!     live, log, metrics, panic,
//!     publication, signals, slack
//! ```

mod acceptor;
mod access;
mod audit;
#[cfg(all(any(feature = "bench", test), not(loom)))]
mod bench;
mod certified;
mod cgroup;
#[cfg(feature = "cli")]
mod check;
#[cfg(feature = "cli")]
mod cli;
mod clock;
pub mod config;
mod control;
mod cores;
mod counted;
mod feeds;
mod handover;
mod handshakes;
mod http;
#[cfg(any(feature = "bench", fuzzing))]
#[doc(hidden)]
pub mod internals;
mod io;
mod lane;
mod limits;
mod live;
mod log;
mod metrics;
mod packs;
mod panic;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod program;
mod protocol;
mod proxy;
mod publication;
mod publish;
mod pulse;
mod rota;
#[cfg(all(test, not(loom)))]
mod seeds;
pub mod server;
mod shared;
#[cfg(feature = "cli")]
mod signals;
#[cfg(test)]
mod skip;
mod slack;
mod stream;
mod tape;
mod tls;
#[cfg(feature = "cli")]
mod tools;
mod topic;
mod websocket;
mod worker;

pub use self::{
    protocol::Payload,
    publication::Kind,
    publish::{Batch, PublishError, Publisher},
    pulse::Pulse,
    tape::{Appended, Position},
};
