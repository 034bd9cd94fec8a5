//! Binance's dialect, against a server that keeps the rules of the exchange's "WebSocket Streams".

mod common;

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use common::{listen, program, run, split};
use serde::Deserialize;
use tungstenite::{
    Message, accept_hdr,
    handshake::server::{Request, Response},
};

const BINANCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dialects/binance.toml");

/// What clients may say in a second, pongs included.
const SAID_MAX: usize = 5;

/// What pings carry, of which pongs have a copy.
const PINGED: &[u8] = b"1672515782136";

#[derive(Deserialize)]
struct Said {
    method: String,
    params: Vec<String>,
    id: u64,
}

/// Streams that are subscribed to have a trade every 2 ms, once the client has answered a ping.
#[allow(clippy::result_large_err)]
fn client(stream: TcpStream) {
    let hear = |request: &Request, response: Response| {
        assert_eq!(request.uri().path(), "/ws");
        Ok(response)
    };
    let Ok(socket) = accept_hdr(stream, hear) else { return };
    let (mut socket, out) = split(socket);
    let (mut streams, mut said) = (Vec::new(), Vec::new());
    while let Ok(message) = socket.read() {
        said.retain(|at: &Instant| at.elapsed() < Duration::from_secs(1));
        said.push(Instant::now());
        match message {
            _ if said.len() > SAID_MAX => return,
            Message::Text(text) => {
                let said: Said = serde_json::from_str(&text).unwrap();
                assert_eq!(said.method, "SUBSCRIBE");
                streams.extend(said.params);
                drop(out.send(Message::text(format!("{{\"result\":null,\"id\":{}}}", said.id))));
                drop(out.send(Message::Ping(PINGED.into())));
            }
            Message::Pong(copy) if copy == PINGED => {
                let (streams, out) = (std::mem::take(&mut streams), out.clone());
                thread::spawn(move || trade(&streams, |message| out.send(message).is_ok()));
            }
            Message::Close(_) => {}
            other => panic!("{other}"),
        }
    }
}

fn trade(streams: &[String], send: impl Fn(Message) -> bool) {
    for id in 0.. {
        thread::sleep(Duration::from_millis(2));
        for stream in streams {
            let symbol = stream.strip_suffix("@trade").unwrap().to_uppercase();
            let text = format!("{{\"e\":\"trade\",\"s\":\"{symbol}\",\"t\":{id},\"p\":\"0.001\",\"q\":\"100\"}}");
            if !send(Message::text(text)) {
                return;
            }
        }
    }
}

#[test]
fn a_feed_is_heard_whose_subscriptions_are_acknowledged_and_whose_pings_are_answered() {
    let topics = "--topics 2 --topics-per-sub 2 --topic sym{n}@trade";
    let outcome = run(&format!("listen ws://{} --dialect {BINANCE} --subs 2 {topics} --duration 1s", listen(client)));
    assert_eq!(outcome.run("/faults").as_array().unwrap().len(), 0, "{}", outcome.out);
    assert!(outcome.run("/deliveries").as_u64().unwrap() >= 4, "{}", outcome.out);
    assert!(outcome.out.contains(" messages/s "), "{}", outcome.out);
}

#[test]
fn nothing_is_published_in_a_dialect_that_has_no_words_for_it() {
    let outcome = program(&format!("fanout ws://127.0.0.1:1 --dialect {BINANCE} --rate 5/s"));
    assert_eq!(outcome.code, 2, "{}{}", outcome.out, outcome.err);
    assert!(outcome.err.contains("`publish`") && outcome.err.contains("`listen`"), "{}", outcome.err);
}
