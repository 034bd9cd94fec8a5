//! What the tests speak through: tungstenite for WebSocket, plain TCP for everything that no client library would send.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;
use stentor::{config::Config, server::Server};
use tungstenite::{Message, WebSocket, client::IntoClientRequest, protocol::frame::coding::CloseCode};

/// Long enough for any machine; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A server on a port of its own, with one worker.
pub fn serve(change: impl FnOnce(&mut Config)) -> Server {
    let set = |config: &mut Config| {
        config.listen = vec!["127.0.0.1:0".parse().unwrap()].into();
        config.workers = Some(1);
        config.pin = stentor::config::Pin::None;
        config.max_connections = 1000;
        change(config);
    };
    Server::builder().set(set).start().unwrap()
}

pub fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// What comes up to these words, and with them.
pub fn until(stream: &mut impl Read, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// Sends bytes and returns all that comes back until the server ends the connection.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = tcp(address);
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

pub struct Client {
    pub socket: WebSocket<TcpStream>,
}

impl Client {
    /// Connects to a path, such as `/ws?topics=a`.
    pub fn connect(server: &Server, path: &str) -> Client {
        Client::try_connect(server.addresses()[0], path, &[]).unwrap()
    }

    pub fn try_connect(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Client, String> {
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            let name = tungstenite::http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let (socket, _) = tungstenite::client(request, tcp(address)).map_err(|error| error.to_string())?;
        Ok(Client { socket })
    }

    /// A `/ws` client that has read its greeting.
    pub fn hello(server: &Server, path: &str) -> Client {
        let mut client = Client::connect(server, path);
        assert_eq!(client.json()["type"], "hello");
        client
    }

    pub fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// The next message that is not a ping or pong.
    pub fn message(&mut self) -> Message {
        loop {
            match self.socket.read().unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    pub fn text(&mut self) -> String {
        match self.message() {
            Message::Text(text) => text.to_string(),
            other => panic!("expected text, found {other:?}"),
        }
    }

    pub fn json(&mut self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Sends a command and returns the next message.
    pub fn ask(&mut self, command: &str) -> Value {
        self.send(command);
        self.json()
    }

    /// Reads until the close frame: its code and reason.
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            match self.socket.read() {
                Ok(Message::Close(Some(frame))) => return (frame.code.into(), frame.reason.to_string()),
                Ok(Message::Close(None)) => return (CloseCode::Status.into(), String::new()),
                Ok(_) => {}
                Err(error) => panic!("expected a close frame: {error}"),
            }
        }
    }
}

/// A WebSocket by hand, for what tungstenite refuses to send: the raw stream after a successful handshake.
pub fn upgraded(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = tcp(address);
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    stream
}

/// A masked frame, made here and not by the server's own code.
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
    let key = [0x12, 0x34, 0x56, 0x78];
    frame.extend_from_slice(&key);
    frame.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]));
    frame
}

/// The next frame of a stream by hand: first byte and payload.
pub fn read_frame(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let len = match head[1] {
        126 => {
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            u16::from_be_bytes(len) as usize
        }
        127 => {
            let mut len = [0; 8];
            stream.read_exact(&mut len).unwrap();
            u64::from_be_bytes(len) as usize
        }
        len => len as usize,
    };
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).unwrap();
    (head[0], payload)
}

/// Reads frames until the close frame and returns its code.
pub fn close_code(stream: &mut impl Read) -> u16 {
    loop {
        let (first, payload) = read_frame(stream);
        if first == 0x88 {
            return u16::from_be_bytes([payload[0], payload[1]]);
        }
    }
}
