//! The bare loop: a server that reads and sends, and does nothing else.
//!
//! One thread reads what publishers send on `/pub/TOPIC`, puts what one read brought into one contiguous run of frames,
//! and sends that run to every subscriber of `/sub/TOPIC`. On `/pub` each message is a topic, a blank, and the payload;
//! then what one read brought for each subscriber of `/sub/TOPIC,TOPIC,…` (or of `/sub/>`, all topics) is one run of its own. It keeps no history, checks nothing, and when a subscriber's
//! socket is full it waits for that one. It is a yardstick, not a server: one slow subscriber stops all.
//!
//! One publication at a time it shows what a `send` costs, which nobody avoids; what a server takes beyond that is its own. With more under way it
//! is no bound: it goes round with what it has read, and who gathers more for each `send` makes fewer of them.
//!
//! Where it is to tell when it sent, each run has the moment before it ([`crate::handover`]): one more reading of the clock and eight more bytes to
//! write for each send. So the part of a latency that is not the server's can be measured, at a server whose work for each subscriber is always the same.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::Range,
    os::fd::OwnedFd,
    time::Duration,
};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustix::event::{PollFd, PollFlags, poll};
use sha1::{Digest, Sha1};
use socket2::{Domain, Socket, Type};

use crate::{
    clock,
    frame::{self, Scan},
    handover,
    output::terminal::print,
    socket::{self, Interest, Poller, Read},
};

/// One connected client.
struct Client {
    fd: OwnedFd,
    role: Role,
    /// Of a publisher: bytes of a frame that is not whole yet.
    pending: Vec<u8>,
    /// Of a subscriber: what it is about to be sent, gathered.
    out: Vec<u8>,
}

/// What a client is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    /// Subscribes to these.
    Subscriber(Vec<String>),
    /// Publishes on this.
    Publisher(String),
    /// Publishes on what each message begins with.
    Anywhere,
}

#[derive(Default)]
struct Server {
    clients: HashMap<u64, Client>,
    subscribers: HashMap<String, Vec<u64>>,
    next: u64,
    /// Tells each subscriber when it was sent what follows.
    tells: bool,
    /// A run with its moment before it.
    run: Vec<u8>,
}

const LISTENER: u64 = 0;

/// Who subscribes to this is sent everything.
const ALL: &str = ">";

/// Serves until it is killed; prints the address that it listens on. Tells when it sent what, if it is to.
pub fn serve(listen: SocketAddr, tells: bool) -> Result<()> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&listen.into()).with_context(|| format!("listening on {listen}"))?;
    socket.listen(4096)?;
    let listener: TcpListener = socket.into();
    print(&format!("listening on ws://{}/sub/{{topic}}, publish on /pub/{{topic}}\n", listener.local_addr()?))?;
    serve_telling(listener, tells)
}

/// Serves the connections of a listener.
pub fn serve_on(listener: TcpListener) -> Result<()> {
    serve_telling(listener, false)
}

/// The same, telling when it sent what, if it is to.
pub fn serve_telling(listener: TcpListener, tells: bool) -> Result<()> {
    crate::machine::raise_descriptors(rlimit_room(), 1)?;
    listener.set_nonblocking(true)?;
    let mut poller = Poller::new()?;
    poller.add(&listener, LISTENER, Interest::IN)?;
    let mut server = Server { next: 1, tells, ..Server::default() };
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let ready = poller.wait(None)?;
        for nth in 0..ready {
            match poller.event(nth).0 {
                LISTENER => server.accept(&listener, &poller),
                token => server.read(token, &mut buffer),
            }
        }
    }
}

/// As many descriptors as the system grants.
fn rlimit_room() -> u64 {
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limits.maximum.unwrap_or(1 << 20).saturating_sub(64)
}

impl Server {
    fn accept(&mut self, listener: &TcpListener, poller: &Poller) {
        let Ok((stream, _)) = listener.accept() else { return };
        // A client that does not get through its handshake is dropped; the yardstick has no use for it.
        let Ok((role, stream)) = welcome(stream) else { return };
        let token = self.next;
        self.next += 1;
        if poller.add(&stream, token, Interest::IN).is_err() {
            return;
        }
        if let Role::Subscriber(topics) = &role {
            for topic in topics {
                self.subscribers.entry(topic.clone()).or_default().push(token);
            }
        }
        self.clients.insert(token, Client { fd: stream.into(), role, pending: Vec::new(), out: Vec::new() });
    }

    fn read(&mut self, token: u64, buffer: &mut [u8]) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        match socket::recv(&client.fd, buffer) {
            Ok(Read::Data(len)) => match &client.role {
                Role::Subscriber(_) => {}
                Role::Publisher(topic) => {
                    client.pending.extend_from_slice(&buffer[..len]);
                    let topic = topic.clone();
                    let frames = reframe(&mut client.pending);
                    self.send(&topic, &frames);
                }
                Role::Anywhere => {
                    client.pending.extend_from_slice(&buffer[..len]);
                    let (frames, topics) = take_topics_off(&reframe(&mut client.pending));
                    self.send(ALL, &frames);
                    self.send_each(&frames, &topics);
                }
            },
            Ok(Read::Empty) => {}
            Ok(Read::End) | Err(_) => self.drop_client(token),
        }
    }

    fn send(&mut self, topic: &str, frames: &[u8]) {
        if frames.is_empty() {
            return;
        }
        let mut gone = Vec::new();
        self.run.clear();
        if self.tells {
            self.run.extend_from_slice(&handover::frame(0));
            self.run.extend_from_slice(frames);
        }
        for &token in self.subscribers.get(topic).map_or(&[][..], Vec::as_slice) {
            let sent = self.clients.get(&token).map(|client| match self.run.first_chunk_mut() {
                None => send_all(&client.fd, frames),
                Some(moment) => {
                    *moment = handover::frame(clock::now());
                    send_all(&client.fd, &self.run)
                }
            });
            if sent.is_none_or(|sent| sent.is_err()) {
                gone.push(token);
            }
        }
        gone.into_iter().for_each(|token| self.drop_client(token));
    }

    /// Sends each subscriber, in one piece, the frames of its topics.
    fn send_each(&mut self, frames: &[u8], topics: &[(String, Range<usize>)]) {
        let mut touched = Vec::new();
        for (topic, range) in topics {
            for token in self.subscribers.get(topic).map_or(&[][..], Vec::as_slice) {
                let Some(client) = self.clients.get_mut(token) else { continue };
                if client.out.is_empty() {
                    touched.push(*token);
                    if self.tells {
                        client.out.extend_from_slice(&handover::frame(0));
                    }
                }
                client.out.extend_from_slice(&frames[range.clone()]);
            }
        }
        for token in touched {
            let Some(client) = self.clients.get_mut(&token) else { continue };
            if let (true, Some(moment)) = (self.tells, client.out.first_chunk_mut()) {
                *moment = handover::frame(clock::now());
            }
            let sent = send_all(&client.fd, &client.out);
            client.out.clear();
            if sent.is_err() {
                self.drop_client(token);
            }
        }
    }

    fn drop_client(&mut self, token: u64) {
        let Some(Client { role: Role::Subscriber(topics), .. }) = self.clients.remove(&token) else { return };
        for topic in &topics {
            self.subscribers.entry(topic.clone()).or_default().retain(|&subscriber| subscriber != token);
        }
    }
}

fn send_all(fd: &OwnedFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let sent = socket::send(fd, bytes)?;
        bytes = &bytes[sent..];
        if !bytes.is_empty() {
            poll(&mut [PollFd::new(fd, PollFlags::OUT)], None)?;
        }
    }
    Ok(())
}

/// Reads the request and accepts it; returns what the client is there for, and the connection.
fn welcome(mut stream: TcpStream) -> Result<(Role, TcpStream)> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    let mut buffer = [0; 2048];
    let (path, key) = loop {
        let len = stream.read(&mut buffer)?;
        head.extend_from_slice(&buffer[..len]);
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        if request.parse(&head)?.is_complete() {
            let key = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("Sec-WebSocket-Key"));
            break (request.path.unwrap_or("/").to_owned(), key.context("no key")?.value.to_vec());
        }
        anyhow::ensure!(len > 0, "hung up");
    };
    let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT).finalize());
    stream.write_all(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .as_bytes(),
    )?;
    stream.set_nonblocking(true)?;
    Ok((role_of(&path), stream))
}

fn role_of(path: &str) -> Role {
    match path.strip_prefix("/pub") {
        Some("" | "/") => Role::Anywhere,
        Some(_) => Role::Publisher(path.rsplit('/').next().unwrap_or_default().to_owned()),
        None => Role::Subscriber(path.rsplit('/').next().unwrap_or_default().split(',').map(str::to_owned).collect()),
    }
}

/// The key's suffix of RFC 6455.
const ACCEPT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Takes whole client frames off the front of `pending`; returns them unmasked, as a server sends them.
fn reframe(pending: &mut Vec<u8>) -> Vec<u8> {
    let (mut out, mut at) = (Vec::with_capacity(pending.len()), 0);
    while let Some((header, len)) = header_of(&pending[at..]) {
        let (start, end) = (at + header, at + header + len);
        if end > pending.len() {
            break;
        }
        if pending[at] & 0x0F <= 2 {
            out.push(pending[at]);
            out.push(pending[at + 1] & 0x7F);
            out.extend_from_slice(&pending[at + 2..start - 4]);
            let key: [u8; 4] = pending[start - 4..start].try_into().expect("4 bytes");
            out.extend(pending[start..end].iter().zip(key.into_iter().cycle()).map(|(byte, key)| byte ^ key));
        }
        at = end;
    }
    pending.drain(..at);
    out
}

/// Takes the topic, up to the first blank, off each message of a run of frames; returns the run without, and where in it
/// the message of each topic is.
fn take_topics_off(frames: &[u8]) -> (Vec<u8>, Vec<(String, Range<usize>)>) {
    let (mut out, mut topics, mut rest) = (Vec::with_capacity(frames.len()), Vec::new(), frames);
    while let Scan::Frame(whole) = frame::scan(rest) {
        if let Some(blank) = memchr::memchr(b' ', whole.payload) {
            let (topic, payload) = (&whole.payload[..blank], &whole.payload[blank + 1..]);
            let start = out.len();
            out.push(rest[0]);
            match payload.len() {
                len @ ..126 => out.push(len as u8),
                len @ ..65_536 => {
                    out.push(126);
                    out.extend_from_slice(&(len as u16).to_be_bytes());
                }
                len => {
                    out.push(127);
                    out.extend_from_slice(&(len as u64).to_be_bytes());
                }
            }
            out.extend_from_slice(payload);
            topics.push((String::from_utf8_lossy(topic).into_owned(), start..out.len()));
        }
        rest = &rest[whole.len..];
    }
    (out, topics)
}

/// Length of a masked frame's header and of its payload.
fn header_of(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes.get(1)? & 0x7F {
        126 => Some((8, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into())),
        127 => Some((14, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize)),
        len => Some((6, len.into())),
    }
    .filter(|(header, _)| bytes.len() >= *header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Opcode;

    #[test]
    fn frames_are_passed_on_unmasked_in_one_run_and_a_rest_is_kept() {
        let mut pending = Vec::new();
        for len in [5, 300, 70_000] {
            frame::write(Opcode::Text, &vec![b'a'; len], &mut pending);
        }
        pending.truncate(pending.len() - 1);
        let frames = reframe(&mut pending);
        let Scan::Frame(first) = frame::scan(&frames) else { panic!("no frame") };
        let Scan::Frame(second) = frame::scan(&frames[first.len..]) else { panic!("no second frame") };
        assert_eq!((first.payload, second.payload.len()), (&b"aaaaa"[..], 300));
        assert_eq!(first.len + second.len, frames.len());
        assert_eq!(pending.len(), 70_000 + 14 - 1);
    }

    #[test]
    fn topics_are_taken_off_messages_of_any_length() {
        let mut pending = Vec::new();
        for len in [0, 125, 126, 65_535, 65_536] {
            frame::write(Opcode::Text, &[&b"t "[..], &vec![b'a'; len]].concat(), &mut pending);
        }
        let (frames, topics) = take_topics_off(&reframe(&mut pending));
        let lens: Vec<usize> = topics
            .iter()
            .map(|(topic, range)| match frame::scan(&frames[range.clone()]) {
                Scan::Frame(whole) if topic == "t" && whole.len == range.len() => whole.payload.len(),
                _ => panic!("no frame of the topic t"),
            })
            .collect();
        assert_eq!(lens, [0, 125, 126, 65_535, 65_536]);
    }

    #[test]
    fn the_path_says_who_is_who() {
        assert_eq!(role_of("/sub/a,b"), Role::Subscriber(vec!["a".into(), "b".into()]));
        assert_eq!(role_of("/pub/a"), Role::Publisher("a".into()));
        assert_eq!(role_of("/pub"), Role::Anywhere);
    }
}
