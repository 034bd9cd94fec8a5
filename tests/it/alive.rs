//! Who is slow, who hangs, who has stopped reading: each looks silent to the server, and only one of them is closed.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use bytesize::ByteSize;
use socket2::{Domain, Socket, Type};
use stentor::{Payload, config::Config, server::Server};

use crate::{
    client::{PATIENCE, close_code, frame, read_frame, serve, tcp, upgraded},
    process::{metric, wait_for},
};

/// A server that pings after so much silence, twice over, and says nothing else by itself.
fn impatient(idle: &str, change: impl FnOnce(&mut Config)) -> Server {
    serve(|config| {
        config.heartbeat = "0".parse().unwrap();
        config.idle_timeout = idle.parse().unwrap();
        change(config);
    })
}

/// A connection whose kernel takes a few kilobytes that were not read, behind the answer to its request for this path.
fn narrow(address: SocketAddr, path: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13";
    write!(stream, "GET {path} HTTP/1.1\r\n{head}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").unwrap();
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    stream
}

/// So many publications of a kilobyte, each on a topic of its own below `q`, or all on one.
fn burst(server: &Server, count: usize, topic: impl Fn(usize) -> String) {
    for n in 0..count {
        server.publisher().publish(&topic(n), Payload::Text(&"x".repeat(1000))).unwrap();
    }
}

/// A kilobyte at a time with pauses between: 8 KB a second. How slowly it reads is what is tried, so there is nothing to await.
struct Slowly(TcpStream);

impl Read for Slowly {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(1000);
        thread::sleep(Duration::from_millis(most as u64 / 8));
        self.0.read(&mut buffer[..most])
    }
}

#[test]
fn a_slow_reader_is_not_taken_for_dead() {
    let server = impatient("2s", |_| {});
    let address = server.addresses()[0];
    let mut slow = Slowly(narrow(address, "/ws?topics=q.*&mode=latest"));
    while !read_frame(&mut slow).1.starts_with(b"{\"type\":\"ack\"") {}
    // All of it goes to the kernel at once, and the ping stands behind: there for seven seconds, three times the timeout.
    burst(&server, 60, |n| format!("q.{n}"));
    let mut updates = 0;
    let mut pings = 0;
    while updates < 60 || pings == 0 {
        match read_frame(&mut slow) {
            (0x89, ping) => {
                slow.0.write_all(&frame(0x8a, &ping)).unwrap();
                pings += 1;
            }
            (0x81, update) => {
                assert!(update.starts_with(b"{\"type\":\"update\""));
                updates += 1;
            }
            (first, payload) => panic!("{first:#x} {}", String::from_utf8_lossy(&payload)),
        }
    }
    slow.0.write_all(&frame(0x81, br#"{"op":"ping"}"#)).unwrap();
    assert!(read_frame(&mut slow).1.starts_with(b"{\"type\":\"pong\""));
}

/// Hangs until it is closed for that.
fn hang(address: SocketAddr, path: &str) -> TcpStream {
    let closes = || metric(address, "websocket_closes_total");
    let before = closes();
    let hung = upgraded(address, path);
    wait_for("the end of a page that hangs", || closes() > before);
    hung
}

#[test]
fn a_page_that_hangs_is_closed_though_its_kernel_takes_everything() {
    let server = impatient("1s", |_| {});
    burst(&server, 20, |n| format!("q.{n}"));
    for path in ["/ws?topics=q.*", "/raw/q.1?mode=latest"] {
        let mut hung = hang(server.addresses()[0], path);
        assert_eq!(close_code(&mut hung), 1008);
    }
    assert_eq!(metric(server.addresses()[0], "dead_connections_total"), 0.0);
}

#[test]
fn a_subscriber_that_has_stopped_reading_stays_and_goes_on_when_it_reads() {
    // Its window is closed: with a full socket, and with one in which a ping finds room.
    for sndbuf in [8, 1024] {
        let server = impatient("1s", |config| config.sndbuf = ByteSize::kib(sndbuf));
        let address = server.addresses()[0];
        let mut stalled = ["/ws?topics=a&mode=latest", "/raw/a?mode=latest"].map(|path| narrow(address, path));
        let mut events = narrow(address, "/sse?topics=a&mode=latest");
        burst(&server, 60, |_| "a".into());
        // Each time that takes longer than the timeout, and pings go out.
        (0..3).for_each(|_| drop(hang(address, "/ws")));
        assert_eq!(metric(address, "websocket_connections"), 2.0, "--sndbuf {sndbuf}KiB");
        server.publisher().publish("a", Payload::Text("the newest")).unwrap();
        for stream in &mut stalled {
            while !read_frame(stream).1.windows(10).any(|ten| ten == b"the newest") {}
        }
        let (mut text, mut byte) = (Vec::new(), [0]);
        while !text.ends_with(b"the newest") {
            events.read_exact(&mut byte).unwrap();
            text.push(byte[0]);
        }
        assert_eq!(metric(address, "dead_connections_total"), 0.0);
    }
}

#[test]
fn what_an_idle_stream_of_events_is_asked_does_not_end_it() {
    // Nothing is ever sent: the kernel asks its peer's.
    let server = impatient("1s", |_| {});
    let address = server.addresses()[0];
    let mut events = tcp(address);
    events.write_all(b"GET /sse?topics=a HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    (0..3).for_each(|_| drop(hang(address, "/ws")));
    assert_eq!(metric(address, "event_streams"), 1.0);
    server.publisher().publish("a", Payload::Text("still there")).unwrap();
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(b"still there") {
        events.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
}
