//! The server as its users meet it: real sockets, an independent WebSocket client (tungstenite), the real binary.

mod auth;
mod binary;
mod browser;
mod client;
mod console;
mod handshake;
mod javascript;
mod limits;
mod link;
mod protocol;
mod raw;
mod replay;
mod slow;
mod stopping;
