//! Two counts of the same sends: the server's own, and that of its subscribers' kernels.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
};

use loadgen::segments;
use stentor::server::Server;
use tungstenite::{Message, WebSocket};

/// How far they may be apart: one in so many. Sends that a kernel had to keep back come together, as fewer segments.
const APART_MAX: u64 = 50;

fn connect(address: SocketAddr, path: &str) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    tungstenite::client(format!("ws://{address}{path}"), stream).unwrap().0
}

/// Calls of `send`, as the server counts them.
fn counted(address: SocketAddr) -> u64 {
    let (mut stream, mut answer) = (TcpStream::connect(address).unwrap(), String::new());
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    stream.read_to_string(&mut answer).unwrap();
    let lines = answer.lines().filter(|line| line.starts_with("stentor_sends_total"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Segments with data, as the kernels of all subscribers count them.
fn seen(subscribers: &[WebSocket<TcpStream>]) -> u64 {
    subscribers.iter().map(|one| segments::received(one.get_ref().as_fd()).expect("Linux tells")).sum()
}

#[test]
fn the_segments_that_subscribers_see_are_the_sends_that_stentor_counts() {
    let set = |config: &mut stentor::config::Config| {
        config.workers = Some(1);
        config.pin = stentor::config::Pin::None;
    };
    let server = Server::builder().listen("127.0.0.1:0".parse().unwrap()).set(set).start().unwrap();
    let address = server.addresses()[0];
    let mut subscribers: Vec<_> = (0..8).map(|_| connect(address, "/raw/x")).collect();
    let mut publisher = connect(address, "/raw/x?echo=0");
    // Several at once are several sends or one, as it happens; the next ones follow when everybody has these.
    let mut publish = |bursts: std::ops::Range<usize>| {
        for burst in bursts.map(|nth| nth % 5 + 1) {
            (0..burst).for_each(|_| publisher.write(Message::text("x".repeat(100))).unwrap());
            publisher.flush().unwrap();
            for subscriber in &mut subscribers {
                (0..burst).for_each(|_| drop(subscriber.read().unwrap()));
            }
        }
        // Whoever answers this has made its sends, and counted them.
        publisher.send(Message::Ping("?".into())).unwrap();
        while !publisher.read().unwrap().is_pong() {}
        seen(&subscribers)
    };
    let before = (publish(0..1), counted(address));
    let seen = publish(1..41) - before.0;
    // What it tells is kept for a moment, and told again.
    let fresh = std::iter::repeat_with(|| counted(address)).find(|now| *now != before.1).unwrap();
    let counted = fresh - before.1;
    assert!((8 * 40..=8 * 120).contains(&counted), "{counted} sends");
    assert!(counted.abs_diff(seen) * APART_MAX <= counted, "{counted} sends, {seen} segments");
}
