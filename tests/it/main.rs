//! The server as its users meet it: real sockets, an independent WebSocket client (tungstenite), the real binary.

mod activation;
mod alive;
mod auth;
mod binary;
mod browser;
mod check;
mod client;
mod console;
mod faults;
mod guard;
mod handshake;
mod hostile;
mod isolation;
mod javascript;
mod leaks;
mod limits;
mod link;
mod malformed;
mod manifest;
mod modes;
mod operations;
mod process;
mod protocol;
mod proxy;
mod raw;
mod reload;
mod replay;
mod scripts;
mod seeds;
#[path = "../../src/skip.rs"]
mod skip;
mod slow;
mod stopping;
mod threads;
mod top;
mod workers;
