//! A line: one connection's sending side, which never waits.
//!
//! What the socket does not take at once is kept as the line's tail, and nothing else is sent before it: frames never
//! interleave, also where a publisher and a receiver share a connection (round trips). Data is only handed in while the
//! tail is empty, so a tail is never longer than one batch and a few control frames.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{frame, frame::Opcode, socket};

/// The sending side of a connection.
pub struct Line {
    /// The socket.
    pub fd: OwnedFd,
    tail: Mutex<Vec<u8>>,
}

impl Line {
    /// A line on a connected, non-blocking socket.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, tail: Mutex::new(Vec::new()) }
    }

    /// Sends `bytes`, keeping what the socket does not take; true when nothing is left.
    pub fn write(&self, bytes: &[u8]) -> io::Result<bool> {
        let mut tail = self.tail();
        let taken = if tail.is_empty() { socket::send(&self.fd, bytes)? } else { 0 };
        tail.extend_from_slice(&bytes[taken..]);
        Ok(tail.is_empty())
    }

    /// Sends one masked frame.
    pub fn write_frame(&self, opcode: Opcode, payload: &[u8]) -> io::Result<bool> {
        let mut bytes = Vec::with_capacity(payload.len() + 14);
        frame::write(opcode, payload, &mut bytes);
        self.write(&bytes)
    }

    /// Sends a close frame.
    pub fn write_close(&self, code: u16) -> io::Result<bool> {
        let mut bytes = Vec::new();
        frame::write_close(code, &mut bytes);
        self.write(&bytes)
    }

    /// Sends what was kept; true when nothing is left.
    pub fn flush(&self) -> io::Result<bool> {
        let mut tail = self.tail();
        if !tail.is_empty() {
            let taken = socket::send(&self.fd, &tail)?;
            tail.drain(..taken);
        }
        Ok(tail.is_empty())
    }

    /// Whether nothing is kept.
    pub fn is_clear(&self) -> bool {
        self.tail().is_empty()
    }

    /// Nothing under the lock panics, so a poisoned one is as good as any.
    fn tail(&self) -> MutexGuard<'_, Vec<u8>> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn a_full_socket_keeps_the_rest_and_its_order() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let line = Line::new(stream.into());
        let big: Vec<u8> = (0..16 << 20).map(|at: u32| (at % 251) as u8).collect();
        assert!(!line.write(&big).unwrap(), "16 MiB fitted into a socket buffer");
        assert!(!line.write(b"end").unwrap());
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; (16 << 20) + 3];
            peer.read_exact(&mut all).unwrap();
            all
        });
        let mut poller = socket::Poller::new().unwrap();
        poller.add(&line.fd, 0, socket::Interest::OUT).unwrap();
        while !line.flush().unwrap() {
            poller.wait(None).unwrap();
        }
        let all = reader.join().unwrap();
        assert!(line.is_clear() && all[..16 << 20] == big && all.ends_with(b"end"));
    }
}
