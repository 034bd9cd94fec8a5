//! The kernel edge: where workers and the control thread talk to the kernel about sockets.
//!
//! The seam is what a level-triggered wait offers: it says which sockets may be ready, and whoever owns one then tries. A read says how many
//! bytes there were, a send how many it took; neither waits. Behind it stands [`epoll`], and in tests a simulated, seeded
//! kernel with partial writes, resets and stalls (`sim`). Beside it are listening sockets ([`listener`]) and waking ([`waker`]).

pub mod acks;
mod defer;
pub mod epoll;
pub mod listener;
pub mod path;
#[cfg(all(any(test, fuzzing), not(loom)))]
pub mod sim;
pub mod unsent;
pub mod waker;

use std::{io, time::Duration};

use self::{acks::Acks, path::Path, waker::Sleep};
use crate::clock::Moment;

/// Names a socket towards the edge: the owner's index of it.
pub type Token = u32;

/// Most bytes in one call of `send`: one segment of the loopback path (its MTU less the headers). A few bytes more cost
/// 60 % more there, twice as many gain nothing; on a network card the kernel cuts at 64 KiB as well.
pub const SEND_MAX: usize = 65_483;

/// What became of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes are in the buffer; at least one.
    Bytes(usize),
    /// Nothing there now.
    Nothing,
    /// The peer has closed its side; nothing will follow.
    End,
    /// The connection is broken.
    Broken(io::ErrorKind),
}

/// What became of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel took so many of the bytes: all, or its buffer is full now.
    Took(usize),
    /// The kernel's buffer is full: it took none.
    Full,
    /// The connection is broken.
    Broken(io::ErrorKind),
}

/// A socket that may be read or written. Only a hint: what it says may be over by the time one looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Whose it is.
    pub token: Token,
    /// There are bytes, an end or an error to read.
    pub readable: bool,
    /// There is room to write, or an error to find.
    pub writable: bool,
}

/// One thread's edge with the kernel.
pub trait Edge {
    /// A connected socket; dropping it closes it.
    type Socket;

    /// The monotonic clock.
    fn now(&self) -> Moment;

    /// The wall clock, in microseconds since the Unix epoch.
    fn wall_us(&self) -> u64;

    /// Watches a socket for reading.
    ///
    /// # Errors
    /// The kernel has no room for it.
    fn watch(&mut self, socket: &Self::Socket, token: Token) -> io::Result<()>;

    /// Says what to watch a socket for from now on.
    fn interest(&mut self, socket: &Self::Socket, token: Token, read: bool, write: bool);

    /// Stops watching a socket that is given away.
    fn unwatch(&mut self, socket: &Self::Socket);

    /// Waits until a socket is ready, the thread is woken, or `timeout` is over; fills `ready` anew.
    ///
    /// `work` says whether there is something to do already; it is asked once more after sleep was announced, and
    /// `depth` says what may disturb it.
    fn wait(&mut self, timeout: Option<Duration>, depth: Sleep, work: &mut dyn FnMut() -> bool, ready: &mut Vec<Ready>);

    /// Reads what is there into `buffer`.
    fn receive(&mut self, socket: &Self::Socket, buffer: &mut [u8]) -> Received;

    /// Sends as much of `bytes` as the kernel takes now.
    fn send(&mut self, socket: &Self::Socket, bytes: &[u8]) -> Sent;

    /// Tells the peer that nothing more will be sent.
    fn finish(&mut self, socket: &Self::Socket);

    /// Keeps what a socket takes short, so that what is sent to a slow peer is young when it gets there; or no longer.
    fn keep_short(&mut self, socket: &Self::Socket, short: bool);

    /// What the peer's TCP has acknowledged. For connections that are silent or full, now and then.
    fn acks(&mut self, socket: &Self::Socket) -> Acks;

    /// Has the kernel ask a peer that is silent, often enough to know after `timeout` whether it is gone.
    fn keep_asking(&mut self, socket: &Self::Socket, timeout: Duration);

    /// What is known of the way to a socket's peer. For looking at a few sockets now and then.
    fn path(&mut self, socket: &Self::Socket) -> Option<Path>;
}
