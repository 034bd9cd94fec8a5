//! One WebSocket, with TLS or without: the library `tungstenite` does the handshake and the frames, `rustls` the rest. It knows no compression, so none is offered.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use tungstenite::{
    HandshakeError, Message, Utf8Bytes, WebSocket,
    client::{IntoClientRequest, client_with_config},
    error::Error as WsError,
    http::{HeaderValue, Uri},
    protocol::WebSocketConfig,
};

use crate::{event::Error, tls};

/// How a connection ends that breaks without a close frame (RFC 6455, section 7.1.5).
pub(crate) const ABNORMAL: u16 = 1006;

/// There is no WebSocket.
pub(crate) struct Refused {
    /// Of the answer; nought if there was none.
    pub status: u16,
    pub message: String,
    /// At least so long.
    pub retry_after: Duration,
}

impl Refused {
    fn silent(message: impl fmt::Display) -> Refused {
        Refused { status: 0, message: message.to_string(), retry_after: Duration::ZERO }
    }
}

/// What was read.
pub(crate) enum Read1 {
    Text(Utf8Bytes),
    /// A message that isn't text, or a control frame.
    Other,
    /// Nothing within the time.
    Nothing,
    /// It is over.
    End {
        code: u16,
        why: String,
    },
}

enum Stream {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Clear(tcp) => tcp,
            Stream::Tls(tls) => &tls.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Clear(tcp) => tcp.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Clear(tcp) => tcp.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Clear(tcp) => tcp.flush(),
            Stream::Tls(tls) => tls.flush(),
        }
    }
}

/// A connection.
pub(crate) struct Wire {
    socket: WebSocket<Stream>,
    /// How long a read waits now.
    waits: Duration,
}

/// An address as it is connected to: `http` stands for `ws`, and no path for `/ws`.
///
/// # Errors
/// `bad_address`: it is none.
pub fn address(url: &str) -> Result<String, Error> {
    let wrong = || Error::new("bad_address", format!("expected something like wss://host/ws, found {url:?}"));
    let url = match url.split_once("://") {
        Some(("http", rest)) => format!("ws://{rest}"),
        Some(("https", rest)) => format!("wss://{rest}"),
        Some(("ws" | "wss", _)) => url.to_owned(),
        _ => return Err(wrong()),
    };
    let url = url.split('#').next().unwrap_or_default();
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
    if uri.path() != "/" {
        return Ok(url.to_owned());
    }
    let (scheme, authority) =
        (uri.scheme_str().unwrap_or("ws"), uri.authority().map_or("", |authority| authority.as_str()));
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{scheme}://{authority}/ws{query}"))
}

impl Wire {
    /// Connects, within this time.
    pub fn open(
        url: &str,
        token: Option<&str>,
        trusted: Option<&Arc<ClientConfig>>,
        message_max: usize,
        patience: Duration,
    ) -> Result<Wire, Refused> {
        let until = Instant::now() + patience;
        let url = address(url).map_err(Refused::silent)?;
        let mut request = url.as_str().into_client_request().map_err(Refused::silent)?;
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", HeaderValue::from_static("stentor.v1.json"));
        if let Some(token) = token {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            let mut value = value.map_err(|_| Refused::silent("the token has characters that a header can't have"))?;
            value.set_sensitive(true);
            headers.insert("Authorization", value);
        }
        let uri = request.uri().clone();
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_tls = uri.scheme_str() == Some("wss");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tcp = connect(&host, port, until).map_err(Refused::silent)?;
        let _ = tcp.set_nodelay(true);
        let timeout =
            |tcp: &TcpStream| tcp.set_read_timeout(Some(patience)).and_then(|()| tcp.set_write_timeout(Some(patience)));
        timeout(&tcp).map_err(Refused::silent)?;
        let stream = match is_tls {
            false => Stream::Clear(tcp),
            true => {
                let config = trusted.cloned().map_or_else(tls::system, Ok).map_err(Refused::silent)?;
                let name = ServerName::try_from(host).map_err(Refused::silent)?;
                let session = ClientConnection::new(config, name).map_err(Refused::silent)?;
                Stream::Tls(Box::new(StreamOwned::new(session, tcp)))
            }
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(message_max))
            .max_frame_size(Some(message_max))
            .max_write_buffer_size(usize::MAX);
        match client_with_config(request, stream, Some(config)) {
            Ok((socket, _)) => Ok(Wire { socket, waits: patience }),
            Err(HandshakeError::Interrupted(_)) => Err(Refused::silent("no answer")),
            Err(HandshakeError::Failure(WsError::Http(answer))) => {
                let after =
                    answer.headers().get("Retry-After").and_then(|after| after.to_str().ok()?.parse::<f64>().ok());
                let body = answer.body().as_deref().unwrap_or_default();
                let body = String::from_utf8_lossy(body).trim().to_owned();
                let reason = answer.status().canonical_reason().unwrap_or_default().to_owned();
                Err(Refused {
                    status: answer.status().as_u16(),
                    message: if body.is_empty() { reason } else { body },
                    retry_after: Duration::from_secs_f64(after.unwrap_or_default().clamp(0.0, 600.0)),
                })
            }
            Err(HandshakeError::Failure(WsError::Io(error))) if is_waiting(&error) => Err(Refused::silent("no answer")),
            Err(HandshakeError::Failure(error)) => Err(Refused::silent(words(&error))),
        }
    }

    /// Sends a command.
    ///
    /// # Errors
    /// What is wrong with the connection.
    pub fn send(&mut self, text: String) -> Result<(), String> {
        self.socket.send(Message::text(text)).map_err(|error| words(&error))
    }

    /// What comes next, within this time, or that nothing has come for at least half of it.
    pub fn read(&mut self, patience: Duration) -> Read1 {
        let patience = waiting(patience);
        if patience != self.waits {
            if let Err(error) = self.socket.get_ref().tcp().set_read_timeout(Some(patience)) {
                return Read1::End { code: ABNORMAL, why: error.to_string() };
            }
            self.waits = patience;
        }
        match self.socket.read() {
            Ok(Message::Text(text)) => Read1::Text(text),
            Ok(Message::Close(frame)) => {
                let (code, why) =
                    frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                let _ = self.socket.flush();
                Read1::End { code, why }
            }
            Ok(_) => Read1::Other,
            Err(WsError::Io(error)) if is_waiting(&error) => Read1::Nothing,
            Err(error) => Read1::End { code: ABNORMAL, why: words(&error) },
        }
    }

    /// Says goodbye, and waits so long for the other side's.
    pub fn close(mut self, patience: Duration) {
        let until = Instant::now() + patience;
        let _ = self.socket.close(None);
        let _ = self.socket.flush();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || matches!(self.read(left), Read1::End { .. }) {
                break;
            }
        }
        let _ = self.socket.get_ref().tcp().shutdown(Shutdown::Both);
    }
}

fn is_waiting(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// How long a read waits that is to wait so long at most: a power of two of milliseconds, so that the kernel needn't be told another time at each.
fn waiting(patience: Duration) -> Duration {
    // Nought would be for ever.
    let most = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 20);
    Duration::from_millis(1 << most.ilog2())
}

/// What is wrong with a connection, in words for people.
fn words(error: &WsError) -> String {
    match error {
        WsError::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => tls::explain(error),
            None => error.to_string(),
        },
        other => other.to_string(),
    }
}

fn connect(host: &str, port: u16, until: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_waits_for_no_longer_than_it_may_and_for_no_less_than_half_of_it() {
        for (may, waits) in [(0, 1), (1, 1), (2, 2), (100, 64), (1023, 512), (1024, 1024), (30_000, 16_384)] {
            assert_eq!(waiting(Duration::from_millis(may)), Duration::from_millis(waits));
        }
        assert_eq!(waiting(Duration::MAX), Duration::from_millis(1 << 20));
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, read) in [
            ("ws://a", "ws://a/ws"),
            ("http://127.0.0.1:9001/", "ws://127.0.0.1:9001/ws"),
            ("https://a/x?y=1", "wss://a/x?y=1"),
            ("wss://[::1]:1?token=t", "wss://[::1]:1/ws?token=t"),
        ] {
            assert_eq!(address(text).unwrap(), read);
        }
        for text in ["", "a", "ftp://a", "ws://", "ws:///ws", "ws://a b"] {
            assert!(address(text).unwrap_err().message.starts_with("expected something like"), "{text}");
        }
    }
}
