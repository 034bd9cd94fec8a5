//! What does a connection cost at least?
//!
//! A bare loop accepts, sets `TCP_NODELAY` and has the connection watched; or reads an upgrade request and answers it,
//! besides. Both once with connections that are waiting already, a hundred at a time, and once with clients that come one
//! by one, so that the loop sleeps in between. What the server's own set-up costs is to be held against this.
//!
//! All connections of a sample stay open until its end, as they do in a server: memory for a new one isn't that of one
//! that has just gone.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Barrier,
    thread,
    time::Duration,
};

use memchr::memmem;
use rustix::{
    event::epoll,
    fd::OwnedFd,
    net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send, sockopt::set_tcp_nodelay},
};
use socket2::{Domain, SockAddr, Socket, Type};
use stentor::internals::{
    io::listener::reserve_descriptors,
    websocket::{client, handshake},
};

use crate::{
    cpu::{Cores, Time},
    rounds, table,
};

/// How connections come, and how far they get.
#[derive(Clone, Copy)]
struct Way {
    /// They wait in the listener's queue before any is accepted.
    waiting: bool,
    /// A request is read and answered.
    upgraded: bool,
}

const WAYS: &[Way] = &[
    Way { waiting: true, upgraded: false },
    Way { waiting: true, upgraded: true },
    Way { waiting: false, upgraded: false },
    Way { waiting: false, upgraded: true },
];

const NAMES: &[&str] = &[
    "waiting, accepted",
    "waiting, accepted and upgraded",
    "one by one, accepted",
    "one by one, accepted and upgraded",
];

/// Connections of a sample.
const CONNECTIONS: usize = 4_000;

/// Connections that wait at a time: fewer than the shortest queue that a kernel has by default.
const QUEUE: usize = 100;

/// Clients that share an address: the search for a free port takes longer and longer beyond some 5,000.
const PER_ADDRESS: usize = 1_000;

/// What clients ask with: the key of the RFC's example (section 1.3).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The answer around the accept key.
const ANSWER: (&[u8], &[u8]) = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    b"\r\n\r\n",
);

pub fn answer(cores: Cores) -> io::Result<()> {
    let needed = 2 * CONNECTIONS as u64 + 64;
    reserve_descriptors(needed)
        .map_err(|limit| io::Error::other(format!("{needed} descriptors are needed, {limit} are allowed")))?;
    let listener = listen()?;
    let mut total = Time::default();
    let spreads = rounds::interleaved(WAYS, |way| {
        let time = sample(way, &listener, cores);
        if way.waiting {
            total.add(time);
        }
        time.cpu / CONNECTIONS as f64
    });
    table::print_ways("Setting up a connection: CPU time of who accepts", "a connection", NAMES, &spreads);
    println!("\nOf those waiting, the loop had its core {:.1} % of the time.", total.presence());
    Ok(())
}

fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
    socket.listen(CONNECTIONS as i32)?;
    Ok(socket.into())
}

/// Sets up [`CONNECTIONS`].
fn sample(way: Way, listener: &TcpListener, cores: Cores) -> Time {
    let at_a_time = if way.waiting { QUEUE } else { CONNECTIONS };
    let meet = Barrier::new(2);
    let address = listener.local_addr().expect("it is bound");
    thread::scope(|scope| {
        scope.spawn(|| {
            cores.pin_second();
            let mut clients = Vec::with_capacity(CONNECTIONS);
            while clients.len() < CONNECTIONS {
                meet.wait();
                for _ in 0..at_a_time {
                    clients.push(connect(address, clients.len(), way.upgraded).expect("a connection over loopback"));
                }
                meet_if(way.waiting, &meet);
                meet.wait();
            }
            if way.upgraded {
                clients.iter_mut().for_each(check_answer);
            }
            // Before the other side does, which would keep the port for a while.
            drop(clients);
            meet.wait();
        });
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor");
        let (mut accepted, mut time) = (Vec::with_capacity(CONNECTIONS), Time::default());
        while accepted.len() < CONNECTIONS {
            meet.wait();
            meet_if(way.waiting, &meet);
            time.add(Time::of(|| {
                for _ in 0..at_a_time {
                    accepted.push(set_up(listener, &set, accepted.len(), way.upgraded).expect("a connection"));
                }
            }));
            meet.wait();
        }
        // Until the clients have read their answers and are gone.
        meet.wait();
        time
    })
}

fn meet_if(agreed: bool, meet: &Barrier) {
    if agreed {
        meet.wait();
    }
}

/// What is measured.
fn set_up(listener: &TcpListener, set: &OwnedFd, nth: usize, upgraded: bool) -> rustix::io::Result<OwnedFd> {
    let socket = accept_with(listener, SocketFlags::CLOEXEC)?;
    set_tcp_nodelay(&socket, true)?;
    epoll::add(set, &socket, epoll::EventData::new_u64(nth as u64), epoll::EventFlags::IN)?;
    if upgraded {
        upgrade(&socket)?;
    }
    Ok(socket)
}

/// Reads a request, which comes in one piece, and answers it. There may have to be a wait for it.
fn upgrade(socket: &OwnedFd) -> rustix::io::Result<()> {
    const FIELD: &[u8] = b"Sec-WebSocket-Key: ";
    let mut request = [0; 1024];
    let (len, _) = recv(socket, &mut request[..], RecvFlags::empty())?;
    let at = memmem::find(&request[..len], FIELD).expect("a request has a key") + FIELD.len();
    let key = str::from_utf8(&request[at..at + KEY.len()]).expect("a key is ASCII");
    let mut answer = [0; ANSWER.0.len() + 28 + ANSWER.1.len()];
    answer[..ANSWER.0.len()].copy_from_slice(ANSWER.0);
    answer[ANSWER.0.len()..][..28].copy_from_slice(&handshake::accept_key(key));
    answer[ANSWER.0.len() + 28..].copy_from_slice(ANSWER.1);
    let sent = send(socket, &answer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    assert_eq!(sent, answer.len(), "an empty socket takes an answer");
    Ok(())
}

/// Connects the `nth` client from an address that it shares with few enough, and sends a request if there is to be one.
fn connect(server: SocketAddr, nth: usize, upgraded: bool) -> io::Result<TcpStream> {
    let address = Ipv4Addr::new(127, 0, 0, 2 + (nth / PER_ADDRESS) as u8);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(SocketAddr::from((address, 0))))?;
    socket.connect(&server.into())?;
    // Closing is a reset, after which the port is free at once: a quarter of a million are needed in all.
    socket.set_linger(Some(Duration::ZERO))?;
    let mut stream = TcpStream::from(socket);
    if upgraded {
        let mut request = Vec::new();
        client::push_request(&mut request, "kernel.bench", "/ws", KEY, &[]);
        stream.write_all(&request)?;
    }
    Ok(stream)
}

fn check_answer(client: &mut TcpStream) {
    let mut answer = [0; ANSWER.0.len() + 28 + ANSWER.1.len()];
    client.read_exact(&mut answer).expect("an answer");
    assert!(answer.starts_with(ANSWER.0) && answer.ends_with(ANSWER.1), "an answer is whole");
}
