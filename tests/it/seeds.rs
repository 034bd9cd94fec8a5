//! The fuzzer's seeds (`fuzz/seeds`), made from sessions with the simulated market:
//! `cargo test --test it -- --ignored seeds`.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use stentor::server::Server;
use tungstenite::{Message, WebSocket, client::IntoClientRequest};

use crate::client::{exchange, serve, tcp};

/// Enough of a session: inputs are best small.
const BYTES: usize = 1200;

/// A connection that remembers what went over it.
struct Recorded {
    stream: TcpStream,
    sent: Arc<Mutex<Vec<u8>>>,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Read for Recorded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.stream.read(buffer)?;
        self.received.lock().unwrap().extend_from_slice(&buffer[..len]);
        Ok(len)
    }
}

impl Write for Recorded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.stream.write(bytes)?;
        self.sent.lock().unwrap().extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

struct Session {
    socket: WebSocket<Recorded>,
    sent: Arc<Mutex<Vec<u8>>>,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Session {
    fn open(server: &Server, path: &str) -> Session {
        let address = server.addresses()[0];
        let (sent, received) = <(Arc<Mutex<Vec<u8>>>, Arc<Mutex<Vec<u8>>>)>::default();
        let recorded = Recorded { stream: tcp(address), sent: sent.clone(), received: received.clone() };
        let request = format!("ws://{address}{path}").into_client_request().unwrap();
        let (socket, _) = tungstenite::client(request, recorded).unwrap();
        Session { socket, sent, received }
    }

    fn say(&mut self, message: Message) {
        self.socket.send(message).unwrap();
    }

    /// Says goodbye, and leaves what was said as seeds.
    fn end(mut self, name: &str) {
        self.socket.close(None).unwrap();
        while self.socket.read().is_ok() {}
        for (end, bytes) in [("client", &self.sent), ("server", &self.received)] {
            let bytes = bytes.lock().unwrap();
            let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
            write("request", &format!("{name}-{end}"), &bytes[..head]);
            // Which end reads it, and in which pieces.
            let how = [u8::from(end == "server"), 2, 60, 255];
            write("decoder", &format!("{name}-{end}"), &[&bytes[head..bytes.len().min(head + BYTES)], &how].concat());
        }
    }
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

const COMMANDS: [&str; 8] = [
    r#"{"op":"sub","id":1,"topics":["q.demo.*","news"]}"#,
    r#"{"op":"sub","id":"two","topics":["t.demo.>"],"mode":"latest","rate":4,"snapshot":false}"#,
    r#"{"op":"sub","topics":["news"],"from":{"news":["k3",9812]}}"#,
    r#"{"op":"pub","id":4,"topic":"news","data":{"headline":"\u00e9 é","at":[1.50,null,true]}}"#,
    r#"{"op":"unsub","id":5,"topics":["q.demo.*"]}"#,
    r#"{"op":"list","id":6}"#,
    r#"{"op":"auth","id":7,"token":"none"}"#,
    r#"{"op":"ping","id":8}"#,
];

#[test]
#[ignore = "writes fuzz/seeds"]
fn seeds_are_what_a_session_says() {
    let server = serve(|config| {
        config.demo = true;
        config.demo_symbols = 5;
    });
    let mut json = Session::open(&server, "/ws?topics=t.demo.*");
    for (n, command) in COMMANDS.iter().enumerate() {
        if !command.contains("auth") {
            json.say(Message::text(*command));
        }
        write("command", &format!("{n}"), command.as_bytes());
    }
    json.say(Message::Ping(b"there?".to_vec().into()));
    let mut lines = String::new();
    while lines.lines().count() < 12 {
        let Message::Text(text) = json.socket.read().unwrap() else { continue };
        let message: Value = serde_json::from_str(&text).unwrap();
        if message["type"] == "update" {
            let (ts, topic, data) = (message["ts"].as_u64().unwrap(), &message["topic"], &message["data"]);
            lines += &format!("{{\"ts_ns\":{ts}000,\"topic\":{topic},\"data\":{data}}}\n");
        }
    }
    json.end("ws");
    write("lines", "plain", lines.as_bytes());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(lines.as_bytes()).unwrap();
    write("lines", "gzip", &gzip.finish().unwrap());

    let mut raw = Session::open(&server, "/raw/news");
    for message in [Message::text("€ and text"), Message::binary(vec![0, 255]), Message::text("x".repeat(300))] {
        raw.say(message);
        raw.socket.read().unwrap();
    }
    raw.end("raw");

    let chunks = format!("{:x}\r\n{lines}\r\n0\r\n\r\n", lines.len());
    for (name, request) in [
        ("metrics", "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".to_owned()),
        ("topics", "GET http://x/topics?pattern=q.%3E&limit=2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned()),
        ("publish", "POST /publish/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}".to_owned()),
        ("lines", format!("POST /publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")),
    ] {
        // Only what this server takes is a seed.
        let answer =
            exchange(server.addresses()[0], request.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200 "), "{name}: {answer}");
        write("request", name, request.as_bytes());
    }
    for (n, names) in
        ["q.demo.*\nq.demo.AB", "q.>\nq.us.AAPL", "*.us.*\nq.us.A-b_c:@+=~9", ">\na", "a..b\n.a"].iter().enumerate()
    {
        write("names", &format!("{n}"), names.as_bytes());
    }
}

#[test]
#[ignore = "writes fuzz/seeds"]
fn seeds_of_scripts_are_long_ones_by_luck() {
    for n in 0..4 {
        let mut random = fastrand::Rng::with_seed(n);
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(BYTES).collect();
        write("work", &n.to_string(), &bytes);
    }
}
