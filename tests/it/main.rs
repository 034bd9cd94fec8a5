//! The server as its users meet it: real sockets, an independent WebSocket client (tungstenite), the real binary.

mod activation;
mod auth;
mod binary;
mod browser;
mod check;
mod client;
mod console;
mod handshake;
mod isolation;
mod javascript;
mod limits;
mod link;
mod operations;
mod protocol;
mod proxy;
mod raw;
mod reload;
mod replay;
mod slow;
mod stopping;
mod top;
