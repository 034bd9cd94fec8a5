//! The server as its users meet it: real sockets, an independent WebSocket client (tungstenite), the real binary.

mod activation;
mod auth;
mod binary;
mod browser;
mod check;
mod client;
mod handshake;
mod isolation;
mod limits;
mod operations;
mod protocol;
mod proxy;
mod raw;
mod reload;
mod replay;
mod slow;
mod stopping;
mod top;
