//! A line: one connection's sending side, which never waits.
//!
//! What the socket does not take at once is kept as the line's tail, and nothing else is sent before it: frames never
//! interleave, also where a publisher and a receiver share a connection (round trips). Data is only handed in while the
//! tail is empty, so a tail is never longer than one batch and a few control frames.
//!
//! With TLS the tail is ciphertext, and receiving takes the same lock as sending: a session has both directions. Nobody else waits for it but where a
//! publisher and a receiver share a connection.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    clock, frame,
    frame::Opcode,
    socket::{self, Read},
    tls::{self, Session, Taken},
};

/// A connection's socket, and its sending side.
pub struct Line {
    /// The socket.
    pub fd: OwnedFd,
    has_tls: bool,
    side: Mutex<Side>,
}

/// What is shared by who sends and, with TLS, who receives.
struct Side {
    /// What the socket has not taken; ciphertext where there is TLS.
    tail: Vec<u8>,
    session: Option<Box<Session>>,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// So many bytes, and when the system had handed them over, on the monotonic clock: with TLS, before they were decrypted.
    Data(usize, u64),
    /// Nothing for now; with TLS, nothing that is whole.
    Empty,
    /// The other end has finished.
    End,
}

/// Bytes that are read at once with TLS.
const RECORDS: usize = 256 * 1024;

impl Line {
    /// A line on a connected, non-blocking socket.
    pub fn new(fd: OwnedFd) -> Self {
        Self::over(fd, None)
    }

    /// The same, with TLS where there is a session.
    pub fn over(fd: OwnedFd, session: Option<Session>) -> Self {
        let side = Side { tail: Vec::new(), session: session.map(Box::new) };
        Self { fd, has_tls: side.session.is_some(), side: Mutex::new(side) }
    }

    /// Whether it has TLS.
    pub fn has_tls(&self) -> bool {
        self.has_tls
    }

    /// Room that a read needs beyond what it is to read: what it ends may have begun before.
    pub fn reserve(&self) -> usize {
        if self.has_tls { tls::RECORD_MAX } else { 0 }
    }

    /// Reads once, at most as much as leaves [`reserve`](Self::reserve) of `buffer`, without waiting; with TLS by way of `records`, whose room is
    /// kept for the next.
    #[inline]
    pub fn recv(&self, buffer: &mut [u8], records: &mut Vec<u8>) -> io::Result<Arrival> {
        if self.has_tls {
            return self.recv_records(buffer, records);
        }
        Ok(match socket::recv(&self.fd, buffer)? {
            Read::Data(len) => Arrival::Data(len, clock::now()),
            Read::Empty => Arrival::Empty,
            Read::End => Arrival::End,
        })
    }

    fn recv_records(&self, buffer: &mut [u8], records: &mut Vec<u8>) -> io::Result<Arrival> {
        let most = buffer.len().saturating_sub(tls::RECORD_MAX).clamp(1, RECORDS);
        let mut filled = 0;
        let fill = |plain: &[u8]| {
            let room = buffer.get_mut(filled..filled + plain.len());
            room.ok_or_else(|| io::Error::other("a TLS record is longer than any may be"))?.copy_from_slice(plain);
            filled += plain.len();
            Ok(())
        };
        let (read, at) = self.pull(most, records, fill)?;
        Ok(match read {
            _ if filled > 0 => Arrival::Data(filled, at),
            Read::End => Arrival::End,
            Read::Data(_) | Read::Empty => Arrival::Empty,
        })
    }

    /// Reads records and takes them in, and sends what that asks for. Tells when they were read.
    fn pull(
        &self,
        most: usize,
        records: &mut Vec<u8>,
        plain: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<(Read, u64)> {
        let mut side = self.side();
        let Side { tail, session: Some(session) } = &mut *side else { return Ok((Read::Empty, 0)) };
        let held = session.held().len();
        if records.len() < held + most {
            records.resize(held + most, 0);
        }
        records[..held].copy_from_slice(session.held());
        let len = match socket::recv(&self.fd, &mut records[held..held + most])? {
            Read::Data(len) => len,
            none => return Ok((none, 0)),
        };
        let at = clock::now();
        let taken = session.take(&mut records[..held + len], plain, tail);
        side.flush(&self.fd)?;
        Ok((if taken? == Taken::End { Read::End } else { Read::Data(len) }, at))
    }

    /// Begins the handshake of TLS.
    pub fn greet(&self) -> io::Result<()> {
        let mut side = self.side();
        let Side { tail, session: Some(session) } = &mut *side else { return Ok(()) };
        session.take(&mut [], |_| Ok(()), tail)?;
        side.flush(&self.fd)
    }

    /// Goes on with it, with what has come; true when it is done.
    pub fn shake(&self, records: &mut Vec<u8>) -> io::Result<bool> {
        let early = |_: &[u8]| Err(io::Error::new(io::ErrorKind::InvalidData, "it spoke before it was asked anything"));
        if self.pull(RECORDS, records, early)?.0 == Read::End {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"));
        }
        Ok(self.side().session.as_ref().is_none_or(|session| session.is_open()))
    }

    /// Sends `bytes`, keeping what the socket does not take; true when nothing is left.
    pub fn write(&self, bytes: &[u8]) -> io::Result<bool> {
        let mut side = self.side();
        let was_clear = side.tail.is_empty();
        let Side { tail, session } = &mut *side;
        match session {
            Some(session) => {
                session.encrypt(bytes, tail)?;
                if was_clear {
                    side.flush(&self.fd)?;
                }
            }
            None => {
                let taken = if was_clear { socket::send(&self.fd, bytes)? } else { 0 };
                tail.extend_from_slice(&bytes[taken..]);
            }
        }
        Ok(side.tail.is_empty())
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
        let mut side = self.side();
        side.flush(&self.fd)?;
        Ok(side.tail.is_empty())
    }

    /// Whether nothing is kept.
    pub fn is_clear(&self) -> bool {
        self.side().tail.is_empty()
    }

    /// Nothing under the lock panics, so a poisoned one is as good as any.
    fn side(&self) -> MutexGuard<'_, Side> {
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Side {
    fn flush(&mut self, fd: &OwnedFd) -> io::Result<()> {
        if !self.tail.is_empty() {
            let taken = socket::send(fd, &self.tail)?;
            self.tail.drain(..taken);
        }
        Ok(())
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
