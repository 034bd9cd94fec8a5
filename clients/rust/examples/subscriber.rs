//! A program that takes updates through this client, or through tungstenite with `serde_json` by hand, parses each payload and looks at a field: what `scripts/drivers` measures.
//!
//! ```sh
//! target/release/examples/subscriber VARIANT URL COUNT…
//! ```
//!
//! It writes `ready` when it has subscribed, and `done` behind as many updates as each count says.

use std::{
    io::{self, Read},
    net::TcpStream,
};

use serde::Deserialize;
use serde_json::value::RawValue;
use stentor_client::{Client, Event, How, Options};
use tungstenite::{Message, WebSocket, stream::MaybeTlsStream};

/// What is published.
#[derive(Deserialize)]
#[allow(dead_code)] // All of it is parsed.
struct Quote {
    bid: f64,
    ask: f64,
    bidsz: u32,
    asksz: u32,
    venue: String,
    flags: Vec<String>,
}

/// A message of the server's, as one reads it by hand.
#[derive(Deserialize)]
#[allow(dead_code)] // As above.
struct Said<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(default)]
    topic: Option<String>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    ts: u64,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// One count after the other.
struct Counts {
    left: u64,
    rest: std::vec::IntoIter<u64>,
}

impl Counts {
    /// Whether that was the last of all.
    fn tick(&mut self, quote: &Quote) -> bool {
        assert!(quote.bid > 0.0);
        self.left -= 1;
        if self.left > 0 {
            return false;
        }
        println!("done");
        self.left = self.rest.next().unwrap_or(0);
        self.left == 0
    }
}

fn client(url: &str, counts: &mut Counts) {
    let mut md = Client::new(Options::new([url])).expect("the address is one");
    md.subscribe(["b.*"], How::default());
    loop {
        match md.next().expect("the server is there") {
            Event::Update(update) if counts.tick(&update.data().expect("a quote")) => return,
            Event::Current => println!("ready"),
            _ => {}
        }
    }
}

fn bare(url: &str, counts: &mut Counts) {
    let (mut socket, _): (WebSocket<MaybeTlsStream<TcpStream>>, _) =
        tungstenite::connect(url).expect("the server is there");
    socket.send(Message::text(r#"{"op":"sub","topics":["b.*"]}"#)).expect("it takes a command");
    loop {
        let Message::Text(text) = socket.read().expect("it says something") else { continue };
        let said: Said<'_> = serde_json::from_str(text.as_str()).expect("a message");
        match (said.kind, said.data) {
            ("ack", _) => println!("ready"),
            ("update", Some(data)) if counts.tick(&serde_json::from_str(data.get()).expect("a quote")) => return,
            _ => {}
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [variant, url, numbers @ ..] = &words[..] else { panic!("expected VARIANT URL COUNT…") };
    let numbers: Vec<u64> = numbers.iter().map(|number| number.parse().expect("a count")).collect();
    let mut rest = numbers.into_iter();
    let mut counts = Counts { left: rest.next().expect("a count"), rest };
    match variant.as_str() {
        "stentor-client" => client(url, &mut counts),
        _ => bare(url, &mut counts),
    }
    let _ = io::stdin().read_to_end(&mut Vec::new());
}
