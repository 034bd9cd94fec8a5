//! Connecting with plain blocking calls, for the few connections whose setting up nobody measures.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::handshake::{self, Answer};

/// Connects to `target` and asks for `path`; returns the WebSocket's stream, and what has come on it already.
pub fn dial(
    target: SocketAddr,
    host: &str,
    path: &str,
    headers: &[String],
    timeout: Duration,
) -> Result<(TcpStream, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&target, timeout).context("connecting")?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    let key = handshake::request(host, path, headers, &mut request);
    stream.write_all(&request).context("in the handshake")?;
    let early = answered(&mut stream, &key)?;
    Ok((stream, early))
}

/// Reads the server's answer; returns the bytes behind it.
fn answered(stream: &mut TcpStream, key: &[u8; 16]) -> Result<Vec<u8>> {
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
