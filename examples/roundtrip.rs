//! Uses a server the way its users do, through whatever stands in front of it: subscribes, publishes in three ways, waits
//! for what the server sends by itself, and closes.
//!
//! ```text
//! roundtrip ADDRESS TOKEN [SOURCE [CA]]
//! ```
//!
//! TOKEN is the server's `--publish-token`. SOURCE is the address to connect from; on a machine alone, 127.0.0.2 can be
//! told from a proxy on 127.0.0.1. With CA, a PEM file, it is TLS, and whoever answers has to be `localhost` by a certificate of whom that file names.
//! Prints what worked, or exits with 1 and says what didn't.

use std::{
    error::Error,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde_json::Value;
use socket2::{Domain, Type};
use tungstenite::{Message, WebSocket, client::IntoClientRequest};

/// No step takes longer, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address that nobody has (RFC 5737): what a client pretends that wants to hide.
const PRETENDED: &str = "203.0.113.9";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Target {
    address: SocketAddr,
    source: Option<IpAddr>,
    token: String,
    tls: Option<Arc<ClientConfig>>,
}

/// A connection, with TLS or without.
trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}
type Socket = WebSocket<Box<dyn Stream>>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(text) => println!("{text}"),
        Err(error) => {
            eprintln!("roundtrip: {error}");
            std::process::exit(1);
        }
    }
}

fn run(args: &[String]) -> Result<String> {
    let [address, token, rest @ ..] = args else { return Err("usage: roundtrip ADDRESS TOKEN [SOURCE [CA]]".into()) };
    let source = rest.first().map(|source| source.parse()).transpose()?;
    let tls = rest.get(1).map(|ca| trusting(ca)).transpose()?;
    let target = Target { address: address.parse()?, source, token: token.clone(), tls };
    let fail = |step: &'static str| move |error: Box<dyn Error>| format!("{step}: {error}");

    let mut subscriber = target.websocket("/ws?topics=roundtrip.*").map_err(fail("subscribing"))?;
    expect(&json(&mut subscriber)?, "type", "hello")?;
    expect(&json(&mut subscriber)?, "type", "ack")?;
    let mut raw = target.websocket("/raw/roundtrip.raw?echo=0").map_err(fail("a bare topic"))?;
    publish_by_command(&target, &mut subscriber).map_err(fail("publishing by command"))?;
    publish_bytes(&mut raw, &mut subscriber).map_err(fail("publishing binary on a bare topic"))?;
    publish_over_http(&target, &mut subscriber).map_err(fail("publishing over HTTP"))?;
    let events = read_events(&target).map_err(fail("Server-Sent Events"))?;
    for socket in [&mut subscriber, &mut raw] {
        close(socket).map_err(fail("closing"))?;
    }
    Ok(format!("WebSocket, bare topics, HTTP{events}"))
}

fn trusting(ca: &str) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

impl Target {
    fn connect(&self) -> Result<Box<dyn Stream>> {
        let tcp = self.connect_tcp()?;
        let Some(config) = &self.tls else { return Ok(Box::new(tcp)) };
        Ok(Box::new(StreamOwned::new(ClientConnection::new(Arc::clone(config), "localhost".try_into()?)?, tcp)))
    }

    fn connect_tcp(&self) -> Result<TcpStream> {
        let socket = socket2::Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        if let Some(source) = self.source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect_timeout(&self.address.into(), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket.into())
    }

    fn websocket(&self, path: &str) -> Result<Socket> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("X-Forwarded-For", PRETENDED.parse()?);
        headers.insert("Authorization", format!("Bearer {}", self.token).parse()?);
        let (socket, _) = tungstenite::client(request, self.connect()?).map_err(|error| error.to_string())?;
        Ok(socket)
    }

    /// Sends a request and returns the status, and the body line by line.
    fn request(&self, start: &str, body: &str) -> Result<(u16, impl Iterator<Item = std::io::Result<String>>)> {
        let mut stream = self.connect()?;
        write!(
            stream,
            "{start} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            self.token,
            body.len()
        )?;
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next().ok_or("no answer")??;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("not an HTTP answer")?;
        for line in lines.by_ref() {
            if line?.is_empty() {
                break;
            }
        }
        Ok((status, lines))
    }
}

fn publish_by_command(target: &Target, socket: &mut Socket) -> Result<()> {
    let token = &target.token;
    socket.send(Message::text(format!(r#"{{"op":"auth","id":1,"token":"{token}"}}"#)))?;
    expect(&json(socket)?, "type", "ack")?;
    socket.send(Message::text(r#"{"op":"pub","topic":"roundtrip.command","data":{"n":1}}"#))?;
    expect(&update(socket, "roundtrip.command")?["data"], "n", 1)
}

fn publish_bytes(raw: &mut Socket, socket: &mut Socket) -> Result<()> {
    raw.send(Message::binary(vec![0, 255, 1]))?;
    expect(&update(socket, "roundtrip.raw")?, "base64", "AP8B")
}

fn publish_over_http(target: &Target, socket: &mut Socket) -> Result<()> {
    let (status, body) = target.request("POST /publish/roundtrip.http", r#"{"n":2}"#)?;
    if status != 200 {
        return Err(format!("status {status}: {}", body.map_while(|line| line.ok()).collect::<String>()).into());
    }
    expect(&update(socket, "roundtrip.http")?["data"], "n", 2)
}

/// The last value of a topic, as an event; a server that has none of these says 501.
fn read_events(target: &Target) -> Result<&'static str> {
    let (status, mut lines) = target.request("GET /sse?topics=roundtrip.http", "")?;
    match status {
        501 => return Ok(" (Server-Sent Events: not served yet)"),
        200 => {}
        _ => return Err(format!("status {status}").into()),
    }
    let is_event = |line: &std::io::Result<String>| line.as_ref().is_ok_and(|line| line.contains(r#"{"n":2}"#));
    lines.find(is_event).map(|_| ", Server-Sent Events").ok_or_else(|| "the last value did not come".into())
}

fn close(socket: &mut Socket) -> Result<()> {
    socket.close(None)?;
    loop {
        match socket.read() {
            Ok(_) => {}
            Err(tungstenite::Error::ConnectionClosed) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let mut rest = Vec::new();
    socket.get_mut().read_to_end(&mut rest)?;
    Ok(())
}

/// The next update, of whatever topic, which has to be this.
fn update(socket: &mut Socket, topic: &str) -> Result<Value> {
    loop {
        let message = json(socket)?;
        if message["type"] == "update" {
            expect(&message, "topic", topic)?;
            return Ok(message);
        }
    }
}

fn json(socket: &mut Socket) -> Result<Value> {
    loop {
        if let Message::Text(text) = socket.read()? {
            return Ok(serde_json::from_str(&text)?);
        }
    }
}

fn expect(message: &Value, key: &str, value: impl Into<Value>) -> Result<()> {
    let value = value.into();
    if message[key] == value { Ok(()) } else { Err(format!("expected {key} {value}, found {message}").into()) }
}
