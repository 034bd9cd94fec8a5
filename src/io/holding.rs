//! An edge around another that keeps things back, as one that encrypts does; for tests.
//!
//! Of what it is given to send it takes more than the other edge does, up to all of it, and holds the rest until there is room;
//! meanwhile it takes nothing. Of what it reads it may hand out a part, or nothing yet, and says by itself that there is more. How
//! much, luck decides, by a seed; without one it is as if it weren't there.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{Edge, Flushed, Ready, Received, Sent, Token, acks::Acks, path::Path, waker::Sleep};
use crate::{certified::Certified, clock::Moment};

/// The edge.
pub struct Holding<E> {
    edge: E,
    luck: Option<fastrand::Rng>,
    /// Sockets of which something was read that is not handed out yet, as far as their owners read from them, and whether they are
    /// still there. They are told of at each wait until somebody reads: an owner may leave them for a later turn.
    unread: Vec<(Token, Weak<()>)>,
}

/// A socket, and what is held back of it.
#[derive(Debug)]
pub struct Socket<S> {
    socket: S,
    /// None while it isn't watched.
    token: Option<Token>,
    /// Taken, and not sent.
    out: Vec<u8>,
    /// Read, and not handed out.
    input: VecDeque<u8>,
    /// Nothing follows what is held.
    finished: bool,
    /// Goes with it.
    there: Arc<()>,
}

impl<S> From<S> for Socket<S> {
    fn from(socket: S) -> Self {
        Socket { socket, token: None, out: Vec::new(), input: VecDeque::new(), finished: false, there: Arc::default() }
    }
}

impl<E: Edge> Holding<E> {
    /// Around `edge`, with the luck of `seed`; without one, nothing is held back.
    pub fn new(edge: E, seed: Option<u64>) -> Holding<E> {
        Holding { edge, luck: seed.map(fastrand::Rng::with_seed), unread: Vec::new() }
    }

    /// How many of so many bytes are kept back, from none to all: often the one or the other.
    fn part(&mut self, len: usize) -> usize {
        match &mut self.luck {
            None => 0,
            Some(luck) => [0, len, luck.usize(0..=len)][luck.usize(..3)],
        }
    }

    /// Says that there is something to read.
    fn tell_unread(&mut self, socket: &Socket<E::Socket>) {
        if let Some(token) = socket.token.filter(|_| !socket.input.is_empty()) {
            self.unread.push((token, Arc::downgrade(&socket.there)));
        }
    }

    fn forget_unread(&mut self, socket: &Socket<E::Socket>) {
        self.unread.retain(|(token, _)| Some(*token) != socket.token);
    }
}

impl<E: Edge> Edge for Holding<E> {
    type Socket = Socket<E::Socket>;

    fn now(&self) -> Moment {
        self.edge.now()
    }

    fn wall_us(&self) -> u64 {
        self.edge.wall_us()
    }

    fn watch(&mut self, socket: &mut Self::Socket, token: Token) -> io::Result<()> {
        self.edge.watch(&mut socket.socket, token)?;
        socket.token = Some(token);
        self.tell_unread(socket);
        // Whatever still doesn't fit has the other edge ask for room.
        self.flush(socket);
        Ok(())
    }

    fn interest(&mut self, socket: &mut Self::Socket, read: bool) {
        self.edge.interest(&mut socket.socket, read);
        self.forget_unread(socket);
        if read {
            self.tell_unread(socket);
        }
    }

    fn unwatch(&mut self, socket: &mut Self::Socket) {
        self.edge.unwatch(&mut socket.socket);
        self.forget_unread(socket);
        socket.token = None;
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        depth: Sleep,
        work: &mut dyn FnMut() -> bool,
        ready: &mut Vec<Ready>,
    ) {
        self.unread.retain(|(_, there)| there.strong_count() > 0);
        let timeout = if self.unread.is_empty() { timeout } else { Some(Duration::ZERO) };
        self.edge.wait(timeout, depth, work, ready);
        for &(token, _) in &self.unread {
            match ready.iter_mut().find(|ready| ready.token == token) {
                Some(ready) => ready.readable = true,
                None => ready.push(Ready { token, readable: true, writable: false }),
            }
        }
    }

    fn receive(&mut self, socket: &mut Self::Socket, buffer: &mut [u8]) -> Received {
        self.forget_unread(socket);
        let mut len = socket.input.len().min(buffer.len());
        if len == 0 {
            len = match self.edge.receive(&mut socket.socket, buffer) {
                Received::Bytes(len) => len,
                other => return other,
            };
            socket.input.extend(&buffer[..len]);
            len -= self.part(len);
        }
        buffer.iter_mut().zip(socket.input.drain(..len)).for_each(|(to, from)| *to = from);
        self.tell_unread(socket);
        if len == 0 { Received::Nothing } else { Received::Bytes(len) }
    }

    fn send(&mut self, socket: &mut Self::Socket, bytes: &[u8]) -> Sent {
        assert!(!socket.finished, "a send behind the end");
        if !socket.out.is_empty() {
            return Sent::Full;
        }
        let sent = match self.edge.send(&mut socket.socket, bytes) {
            Sent::Took(sent) => sent,
            Sent::Full => 0,
            broken => return broken,
        };
        // The other edge asks for room now; of a socket that isn't watched nobody would tell.
        let held = if socket.token.is_some() { self.part(bytes.len() - sent) } else { 0 };
        socket.out.extend_from_slice(&bytes[sent..sent + held]);
        if sent + held == 0 { Sent::Full } else { Sent::Took(sent + held) }
    }

    fn flush(&mut self, socket: &mut Self::Socket) -> Flushed {
        match self.edge.flush(&mut socket.socket) {
            Flushed::All => {}
            other => return other,
        }
        if !socket.out.is_empty() {
            match self.edge.send(&mut socket.socket, &socket.out) {
                Sent::Took(sent) => drop(socket.out.drain(..sent)),
                Sent::Full => {}
                Sent::Broken(why) => return Flushed::Broken(why),
            }
        }
        if !socket.out.is_empty() {
            return Flushed::Held;
        }
        if socket.finished {
            self.edge.finish(&mut socket.socket);
        }
        Flushed::All
    }

    fn held(&self, socket: &Self::Socket) -> usize {
        socket.out.len() + self.edge.held(&socket.socket)
    }

    fn encrypted(&self, socket: &Self::Socket) -> Option<usize> {
        self.edge.encrypted(&socket.socket)
    }

    fn finish(&mut self, socket: &mut Self::Socket) {
        socket.finished = true;
        if socket.out.is_empty() {
            self.edge.finish(&mut socket.socket);
        }
    }

    fn keep_short(&mut self, socket: &mut Self::Socket, short: bool) {
        self.edge.keep_short(&mut socket.socket, short);
    }

    fn acks(&mut self, socket: &Self::Socket) -> Acks {
        let acks = self.edge.acks(&socket.socket);
        Acks { queued: acks.queued + socket.out.len() as u64, ..acks }
    }

    fn keep_asking(&mut self, socket: &Self::Socket, timeout: Duration) {
        self.edge.keep_asking(&socket.socket, timeout);
    }

    fn certified<'s>(&self, socket: &'s Self::Socket) -> Option<&'s Certified> {
        self.edge.certified(&socket.socket)
    }

    fn is_worn(&self, socket: &Self::Socket) -> bool {
        self.edge.is_worn(&socket.socket)
    }

    fn take_records(&mut self) -> u32 {
        self.edge.take_records()
    }

    fn path(&mut self, socket: &Self::Socket) -> Option<Path> {
        self.edge.path(&socket.socket)
    }
}
