//! Connecting with plain blocking calls, for the few connections whose setting up nobody measures.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    handshake::{self, Answer},
    line::Line,
    tls::{Peer, Session, Taken},
};

/// A connection that is spoken over with blocking calls, with TLS or without.
pub struct Stream {
    tcp: TcpStream,
    session: Option<Session>,
    /// What was decrypted and not read yet.
    plain: Vec<u8>,
    has_ended: bool,
}

impl Stream {
    /// Connects to `target`, and sets TLS up where there is a `peer`. No call after it waits longer than `timeout`.
    pub fn connect(target: SocketAddr, peer: Option<&Peer>, timeout: Duration) -> Result<Self> {
        let tcp = TcpStream::connect_timeout(&target, timeout).context("connecting")?;
        tcp.set_read_timeout(Some(timeout))?;
        tcp.set_write_timeout(Some(timeout))?;
        tcp.set_nodelay(true)?;
        let session = peer.map(|peer| peer.session(None)).transpose()?;
        let mut stream = Self { tcp, session, plain: Vec::new(), has_ended: false };
        stream.take_in(&mut []).context("in the TLS handshake")?;
        while stream.session.as_ref().is_some_and(|session| !session.is_open()) {
            stream.pull().context("in the TLS handshake")?;
            if stream.has_ended {
                bail!("it hung up in the TLS handshake");
            }
        }
        Ok(stream)
    }

    /// The same connection as a line, which never waits; and what has come on it already.
    pub fn into_line(self) -> Result<(Line, Vec<u8>)> {
        self.tcp.set_nonblocking(true)?;
        Ok((Line::over(self.tcp.into(), self.session), self.plain))
    }

    /// Waits for more records.
    fn pull(&mut self) -> io::Result<()> {
        let mut records = self.session.as_ref().map(|session| session.held().to_vec()).unwrap_or_default();
        let held = records.len();
        records.resize(held + 16 * 1024, 0);
        let len = self.tcp.read(&mut records[held..])?;
        self.has_ended |= len == 0;
        if len > 0 { self.take_in(&mut records[..held + len]) } else { Ok(()) }
    }

    fn take_in(&mut self, records: &mut [u8]) -> io::Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let (plain, mut out) = (&mut self.plain, Vec::new());
        let taken = session.take(
            records,
            |bytes| {
                plain.extend_from_slice(bytes);
                Ok(())
            },
            &mut out,
        );
        self.tcp.write_all(&out)?;
        self.has_ended |= taken? == Taken::End;
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.session.is_none() {
            return self.tcp.read(buffer);
        }
        while self.plain.is_empty() && !self.has_ended {
            self.pull()?;
        }
        let len = buffer.len().min(self.plain.len());
        buffer[..len].copy_from_slice(&self.plain[..len]);
        self.plain.drain(..len);
        Ok(len)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else { return self.tcp.write(bytes) };
        let mut out = Vec::new();
        session.encrypt(bytes, &mut out)?;
        self.tcp.write_all(&out)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// Connects to `target` and asks for `path`; returns the WebSocket's stream, and what has come on it already.
pub fn dial(
    target: SocketAddr,
    peer: Option<&Peer>,
    host: &str,
    path: &str,
    headers: &[String],
    timeout: Duration,
) -> Result<(Stream, Vec<u8>)> {
    let mut stream = Stream::connect(target, peer, timeout)?;
    let mut request = Vec::new();
    let key = handshake::request(host, path, headers, &mut request);
    stream.write_all(&request).context("in the handshake")?;
    let early = answered(&mut stream, &key)?;
    Ok((stream, early))
}

/// Reads the server's answer; returns the bytes behind it.
fn answered(stream: &mut Stream, key: &[u8; 16]) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let len = stream.read(&mut buffer).context("in the handshake")?;
        head.extend_from_slice(&buffer[..len]);
        match handshake::judge(&head, key) {
            Answer::Accepted(end) => return Ok(head.split_off(end)),
            Answer::Refused(why) => bail!(why),
            Answer::Incomplete if len == 0 => bail!("it hung up in the handshake"),
            Answer::Incomplete => {}
        }
    }
}
