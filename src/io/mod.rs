//! The kernel edge: where workers and the control thread talk to the kernel about sockets.
//!
//! The seam is as narrow as an owner of sockets can do with: it is told which of them are ready, reads what is there, and gives
//! away what is to be sent. So [`epoll`] (level-triggered, plain non-blocking `recv` and `send`) can be exchanged for another
//! kernel interface, wrapped in one that does something to the bytes, and in tests be a simulated, seeded one with partial
//! writes, resets and stalls (`sim`), or one that keeps things back as a wrapper may (`holding`).
//!
//! # Who owns what is sent
//!
//! What an edge takes is the edge's from then on, whether the kernel has it or not ([`Sent::Took`]). One that encrypts must hold
//! back what a full socket leaves over, since nothing that is encrypted can be taken back. That is why seeing to it is the
//! edge's own affair, and takes nobody else's knowledge:
//!
//! ```text
//!   owner                          edge
//!   send ────────────────────────► takes some, or all; holds what the kernel doesn't take, and asks it for room
//!                                  until then: `Full`
//!   is told ◄───────────────────── there is room (`Ready::writable`)
//!   flush ───────────────────────► sends what it holds: `All`, or `Held` and asks again
//!   goes on sending
//! ```
//!
//! What it holds is bounded by one call of `send`, shows in [`Edge::held`], and goes along where a socket is handed over.

pub mod acks;
mod defer;
pub mod epoll;
#[cfg(all(test, not(loom)))]
pub mod holding;
pub mod listener;
pub mod path;
pub mod priority;
#[cfg(all(any(test, fuzzing), not(loom)))]
pub mod sim;
pub mod tls;
pub mod unsent;
pub mod waker;

use std::{io, time::Duration};

use self::{acks::Acks, path::Path, waker::Sleep};
use crate::{certified::Certified, clock::Moment};

/// The sockets of a server's threads.
pub type Line = tls::Socket<epoll::Socket>;

/// Names a socket towards the edge: the owner's index of it.
pub type Token = u32;

/// The greatest of them: so many sockets would take a terabyte of the kernel. The bits above are for what an edge notes beside.
pub const TOKEN_MAX: Token = (1 << 29) - 1;

/// Most bytes in one call of `send`: one segment of the loopback path (its MTU less the headers), less what the records of TLS add
/// to so many bytes. A few bytes more cost 60 % more there, twice as many gain nothing; on a network card the kernel cuts at 64 KiB
/// as well.
pub const SEND_MAX: usize = 65_483 - 4 * 29;

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

/// What became of a send. Where it took less than everything, there is room for no more now, and the edge tells when there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The edge took so many of the bytes, at least one. They are its own now: they go out in this order, before whatever is
    /// sent later, unless the connection breaks or the socket is dropped. The kernel need not have them yet.
    Took(usize),
    /// There is no room: it took none.
    Full,
    /// The connection is broken.
    Broken(io::ErrorKind),
}

/// What became of what an edge held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(all(test, not(loom))),
    allow(dead_code, reason = "epoll holds nothing back; a wrapper that encrypts does")
)]
pub enum Flushed {
    /// The kernel has all of it, and may have room for more.
    All,
    /// Some is held still, and so there is no room; the edge tells when it has got on.
    Held,
    /// The connection is broken.
    Broken(io::ErrorKind),
}

/// A socket that may be read, or written where the edge has asked for room. Only a hint: what it says may be over by the time
/// one looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Whose it is.
    pub token: Token,
    /// There are bytes, an end or an error to read.
    pub readable: bool,
    /// There is room, or an error to find: its owner calls [`Edge::flush`].
    pub writable: bool,
}

/// One thread's edge with the kernel.
///
/// What is known of one socket lives in the socket, which its owner keeps: so it goes along when the socket is handed to another
/// thread, and goes away with it.
pub trait Edge {
    /// A connected socket, and all that this edge keeps of it; dropping it closes it, and loses what is held back.
    type Socket;

    /// The monotonic clock.
    fn now(&self) -> Moment;

    /// The wall clock, in microseconds since the Unix epoch.
    fn wall_us(&self) -> u64;

    /// Watches a socket for reading, and for room if something is held back. From here on it goes by `token`.
    ///
    /// # Errors
    /// The kernel has no room for it.
    fn watch(&mut self, socket: &mut Self::Socket, token: Token) -> io::Result<()>;

    /// Says whether to watch a socket for reading from now on. What it is written to for, the edge knows itself.
    fn interest(&mut self, socket: &mut Self::Socket, read: bool);

    /// Stops watching a socket that is given away. Of one that isn't watched, nobody tells when it has room.
    fn unwatch(&mut self, socket: &mut Self::Socket);

    /// Waits until a socket is ready, the thread is woken, or `timeout` is over; fills `ready` anew.
    /// A socket that is ready, and that its owner leaves for later, is ready again at the next wait: also where the edge has read ahead.
    ///
    /// `work` says whether there is something to do already; it is asked once more after sleep was announced, and
    /// `depth` says what may disturb it.
    fn wait(&mut self, timeout: Option<Duration>, depth: Sleep, work: &mut dyn FnMut() -> bool, ready: &mut Vec<Ready>);

    /// Reads what is there into `buffer`. What the edge has read itself and there was no room for is ready again.
    fn receive(&mut self, socket: &mut Self::Socket, buffer: &mut [u8]) -> Received;

    /// Takes as much of `bytes` as there is room for now, at least one byte; never behind [`Edge::finish`].
    fn send(&mut self, socket: &mut Self::Socket, bytes: &[u8]) -> Sent;

    /// The socket was said to be writable: sends what is held back. To be called each time, also by an owner that has nothing to
    /// send, or the edge goes on telling.
    fn flush(&mut self, socket: &mut Self::Socket) -> Flushed;

    /// How many bytes are held back: taken, and not given to the kernel yet. A wrapper counts them as the kernel will.
    fn held(&self, socket: &Self::Socket) -> usize;

    /// How many of them are encrypted; none for a socket that is in clear.
    fn encrypted(&self, _: &Self::Socket) -> Option<usize> {
        None
    }

    /// Tells the peer that nothing more will be sent, once it was sent what is held back. Telling it twice is telling it once.
    fn finish(&mut self, socket: &mut Self::Socket);

    /// Keeps what a socket takes short, so that what is sent to a slow peer is young when it gets there; or no longer.
    fn keep_short(&mut self, socket: &mut Self::Socket, short: bool);

    /// What the peer's TCP has acknowledged; what is held back counts as queued. For connections that are silent or full, now and
    /// then.
    fn acks(&mut self, socket: &Self::Socket) -> Acks;

    /// Has the kernel ask a peer that is silent, often enough to know after `timeout` whether it is gone.
    fn keep_asking(&mut self, socket: &Self::Socket, timeout: Duration);

    /// Whose certificate the peer of a socket has shown, of an edge where peers show some.
    fn certified<'s>(&self, _: &'s Self::Socket) -> Option<&'s Certified> {
        None
    }

    /// Whether a socket can't be sent to for much longer, and its peer should come back by another one. To be asked now and then.
    fn is_worn(&self, _: &Self::Socket) -> bool {
        false
    }

    /// How many records came since this was last asked, on all sockets: of an edge whose bytes come in records, which cost something
    /// whatever is in them.
    fn take_records(&mut self) -> u32 {
        0
    }

    /// What the kernel knows of the way to a socket's peer, which is nothing of what is held back. For looking at a few sockets now
    /// and then.
    fn path(&mut self, socket: &Self::Socket) -> Option<Path>;
}
