//! Connections come and leave in every way there is, and nothing of them stays.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    client::{PATIENCE, frame, read_frame},
    process::Running,
};

/// How many connections come and go in an ordinary run; `STENTOR_CHURN=100000` says otherwise.
const CONNECTIONS: usize = 4000;

/// So many at once for each thread.
const OPEN: usize = 50;

const THREADS: usize = 4;

/// What a connection does, and how it leaves.
const WAYS: [fn(&mut Visitor); 16] = [
    |_| {},
    |visitor| visitor.say(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgr"),
    |visitor| {
        visitor.say(b"GET /metr");
        visitor.break_off();
    },
    |visitor| {
        visitor.say(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        visitor.head();
    },
    |visitor| {
        visitor.say(b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{\"topic\":\"a\",\"da");
        visitor.break_off();
    },
    |visitor| visitor.say(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n"),
    // From here on it is a WebSocket that has subscribed.
    |visitor| {
        visitor.subscribe();
        visitor.say(&frame(0x88, &[0x03, 0xe8]));
        visitor.until(|first, _| first == 0x88);
    },
    |visitor| {
        visitor.subscribe();
        visitor.publish(20);
    },
    |visitor| {
        visitor.subscribe();
        visitor.publish(1);
        let _ = visitor.stream.get_ref().shutdown(Shutdown::Write);
        let _ = visitor.stream.read_to_end(&mut Vec::new());
    },
    |visitor| {
        visitor.subscribe();
        visitor.publish(1);
        visitor.break_off();
    },
    |visitor| {
        visitor.subscribe();
        visitor.say(&frame(0x81, &[b'x'; 40_000])[..30_000]);
    },
    |visitor| {
        visitor.subscribe();
        visitor.say(&frame(0x01, &[b'x'; 10_000]));
        visitor.break_off();
    },
    |visitor| {
        visitor.subscribe();
        visitor.say(&[0xff; 100]);
        visitor.until(|first, _| first == 0x88);
    },
    |visitor| {
        visitor.subscribe();
        visitor.say(&frame(0x81, br#"{"op":"unsub","id":2,"topics":["leaks.>"]}"#));
        visitor.until(|_, text| text.contains(r#""id":2"#));
    },
    |visitor| {
        visitor.upgrade("/raw/leaks.raw");
        visitor.say(&frame(0x82, b"bytes"));
        visitor.until(|first, _| first == 0x82);
    },
    |visitor| visitor.upgrade("/ws?topics=leaks.*,>,a.b.c"),
];

struct Visitor {
    stream: BufReader<TcpStream>,
    number: usize,
}

impl Visitor {
    /// Comes from one of many addresses, each of which has ports of its own.
    fn come(server: SocketAddr, number: usize) -> Visitor {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let source = Ipv4Addr::new(127, 0, 1, (number % 250) as u8 + 1);
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&server.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Visitor { stream: BufReader::new(stream), number }
    }

    /// Says what it can: the server may have hung up.
    fn say(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_ref().write_all(bytes);
    }

    /// Reads the head of an answer.
    fn head(&mut self) {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "it hung up");
        }
    }

    fn upgrade(&mut self, path: &str) {
        let rest = "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        self.say(format!("GET {path} HTTP/1.1\r\n{rest}").as_bytes());
        self.head();
    }

    fn subscribe(&mut self) {
        self.upgrade("/ws");
        let own = format!("leaks.{}", self.topic());
        self.say(&frame(0x81, format!(r#"{{"op":"sub","id":1,"topics":["leaks.>","{own}"]}}"#).as_bytes()));
        self.until(|_, text| text.contains(r#""type":"ack""#));
    }

    fn publish(&mut self, count: usize) {
        let text = format!(r#"{{"op":"pub","topic":"leaks.{}","data":"{}"}}"#, self.topic(), "x".repeat(300));
        for _ in 0..count {
            self.say(&frame(0x81, text.as_bytes()));
        }
    }

    fn topic(&self) -> usize {
        self.number % 500
    }

    fn until(&mut self, is: impl Fn(u8, &str) -> bool) {
        loop {
            let (first, payload) = read_frame(&mut self.stream);
            if is(first, &String::from_utf8_lossy(&payload)) {
                return;
            }
        }
    }

    /// Leaves with a reset.
    fn break_off(&self) {
        SockRef::from(self.stream.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// So many connections, several at a time, in all ways by turns.
fn churn(server: SocketAddr, count: usize) {
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut open = VecDeque::new();
                for number in (thread..count).step_by(THREADS) {
                    let mut visitor = Visitor::come(server, number);
                    // Not by the number alone, or each thread would know some of the ways only.
                    WAYS[(number / THREADS) % WAYS.len()](&mut visitor);
                    open.push_back(visitor);
                    if open.len() > OPEN {
                        open.pop_front();
                    }
                }
            });
        }
    });
}

#[test]
fn nothing_stays_of_connections_that_have_left() {
    let asked =
        std::env::var("STENTOR_CHURN").ok().map(|count| count.parse::<usize>().expect("STENTOR_CHURN is a number"));
    let count = asked.unwrap_or(CONNECTIONS);
    let small = ["--segment", "64KiB", "--retain", "1MiB", "--topic-expiry", "1m", "--workers", "2", "--pin", "none"];
    // All of them come from one address, as fast as they can.
    let many = ["--max-connects-per-ip", "0", "--max-commands-per-ip", "0"];
    let running = Running::start(&[&small[..], &many].concat());
    let before = running.resident();
    // Whoever saw that it runs has left.
    running.until("connections_admitted", |connections| connections == 1.0);
    // One of them is that of the last who asked, if it is not closed yet. And each worker may come to ask the kernel about somebody who
    // is slow, which takes one.
    let descriptors = running.descriptors() + 2;
    let mut resident = [0; 2];
    for half in &mut resident {
        churn(running.at(), count / 2);
        // The connection that asks is one itself.
        running.until("connections_admitted", |connections| connections == 1.0);
        for gone in
            ["websocket_connections", "subscriptions", "cohorts", "names", "pending_answers_bytes", "assembly_bytes"]
        {
            running.until(gone, |value| value == 0.0);
        }
        running.until("http_connections", |connections| connections <= 1.0);
        let what = format!("{descriptors} descriptors: {} are open", running.descriptors());
        crate::process::wait_for(&what, || running.descriptors() <= descriptors);
        if asked.is_some() {
            running.until("topics", |topics| topics == 0.0);
        }
        *half = running.resident();
    }
    assert!(running.metric("accepted_connections_total") >= (count / 2 * 2) as f64);
    // What the first half has taken is there for the second: the allocator's, the tape's and the tables' room.
    let grown = resident[1].saturating_sub(resident[0]);
    assert!(grown < 4 << 20, "{count} connections: {grown} bytes more after the second half, {resident:?}");
    assert!(resident[1] < before + (24 << 20), "{count} connections: {before} bytes before, {resident:?} after");
    println!("{count} connections: {descriptors} descriptors; {before} bytes before, {resident:?} after each half");
}
