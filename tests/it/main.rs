//! The server as its users meet it: real sockets, an independent WebSocket client (tungstenite), the real binary.

mod activation;
mod auth;
mod binary;
mod browser;
mod check;
mod client;
mod faults;
mod handshake;
mod isolation;
mod leaks;
mod limits;
mod malformed;
mod operations;
mod process;
mod protocol;
mod proxy;
mod raw;
mod reload;
mod replay;
mod seeds;
mod slow;
mod stopping;
mod top;
