//! The wire as attackers and healthy clients use it: connections from an address of one's choice, requests and frames made by
//! hand. Nothing waits for longer than [`PATIENCE`].

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

/// What no single step on a connection takes longer than; whoever waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Connects from `source`.
pub fn connect(server: SocketAddr, source: IpAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&server.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// From now on closing it is a reset, which leaves no port waiting.
pub fn reset_at_close(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// From now on its kernel takes little that isn't read. What thousands here leave unread is in the memory of one kernel, which is the
/// server's as well, and which slows everybody down when its TCP has too much: an attacker who is elsewhere has his own.
pub fn take_little(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_recv_buffer_size(16 * 1024);
}

/// A GET request, with further header lines.
pub fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
}

/// The request for a WebSocket.
pub fn upgrade_request(path: &str) -> Vec<u8> {
    upgrade_request_with(path, "")
}

/// The same with further header lines.
fn upgrade_request_with(path: &str, more: &str) -> Vec<u8> {
    let headers = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    get(path, &format!("{headers}{more}"))
}

/// Reads the head of an answer and returns its status; what comes behind it stays in the socket.
pub fn status(stream: &mut impl Read) -> io::Result<u16> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head);
    text.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// Asks for a WebSocket and reads the head of the answer.
///
/// # Errors
/// What broke, or the status that was not 101.
pub fn upgrade(stream: &mut (impl Read + Write), path: &str) -> io::Result<()> {
    upgrade_with(stream, path, "")
}

/// The same with further header lines.
///
/// # Errors
/// What broke, or the status that was not 101.
pub fn upgrade_with(stream: &mut (impl Read + Write), path: &str, more: &str) -> io::Result<()> {
    stream.write_all(&upgrade_request_with(path, more))?;
    match status(stream)? {
        101 => Ok(()),
        other => Err(io::Error::other(format!("answered {other}"))),
    }
}

/// A masked frame: the first byte as it is, a key of zeroes.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..65536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// A command as a masked text frame.
pub fn command(json: &str) -> Vec<u8> {
    frame(0x81, json.as_bytes())
}

/// The next frame from the server: its first byte, and its payload.
pub fn read_frame(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let len = match head[1] {
        126 => {
            let mut len = [0; 2];
            stream.read_exact(&mut len)?;
            u16::from_be_bytes(len).into()
        }
        127 => {
            let mut len = [0; 8];
            stream.read_exact(&mut len)?;
            u64::from_be_bytes(len)
        }
        len => u64::from(len),
    };
    let mut payload = vec![0; len as usize];
    stream.read_exact(&mut payload)?;
    Ok((head[0], payload))
}

/// The body of `POST /publish` that publishes `data` on each of `topics`, with its head.
pub fn publish_lines(topics: impl Iterator<Item = String>, data: &str) -> Vec<u8> {
    let mut lines = Vec::new();
    for topic in topics {
        lines.extend_from_slice(format!("{{\"topic\":\"{topic}\",\"data\":{data}}}\n").as_bytes());
    }
    let mut request = format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        lines.len()
    )
    .into_bytes();
    request.append(&mut lines);
    request
}
