//! The server as its users meet it: real sockets, an independent WebSocket client (tungstenite), the real binary.

mod auth;
mod binary;
mod browser;
mod client;
mod faults;
mod handshake;
mod isolation;
mod leaks;
mod limits;
mod malformed;
mod process;
mod protocol;
mod raw;
mod replay;
mod seeds;
mod slow;
mod stopping;
mod top;
