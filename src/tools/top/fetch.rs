//! One GET over HTTP, with TLS or without, bounded in size and time.
//!
//! HTTP/1.0, so that no server answers in chunks, and a connection for each request: an answer ends where the connection
//! does. Reading a server's own figures needs no more of HTTP than that.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    path::Path,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

use crate::{config::Secret, tools::trust};

/// Time for one answer, connecting included.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest answer taken. A scrape is some tens of kilobytes, the longest slow list about a megabyte a worker.
const ANSWER_MAX: u64 = 16 * 1024 * 1024;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    tls: bool,
    /// Host and port, as in a Host header.
    authority: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected an address like http://127.0.0.1:9001/; found {text:?}");
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, rest) => (false, rest.unwrap_or(text)),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]%".contains(&byte);
        if authority.is_empty() || !authority.bytes().all(is_plain) {
            return Err(wrong());
        }
        let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        let authority = match port {
            Some(port) => port.parse::<u16>().map(|_| authority.to_owned()).map_err(|_| wrong())?,
            None => format!("{authority}:{}", if tls { 443 } else { 80 }),
        };
        let target = Target { tls, authority };
        if tls && target.name().is_err() {
            return Err(wrong());
        }
        Ok(target)
    }
}

impl Target {
    /// What the server's certificate has to be for.
    fn name(&self) -> io::Result<ServerName<'static>> {
        let host = self.authority.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(host.to_owned()).map_err(io::Error::other)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

/// Why a server could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection, or it broke, or took too long.
    #[error("{url}: {cause}")]
    Io {
        /// What was asked for.
        url: String,
        /// What the system says.
        cause: io::Error,
    },
    /// The answer is not what a server of ours says.
    #[error("{url}: {what}: is it a Stentor server?")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The server refused.
    #[error("{url}: {status}: {sentence}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// What it says about it.
        sentence: String,
    },
    /// There is nobody to be trusted.
    #[error("{0}")]
    Trust(String),
    /// The terminal failed.
    #[error("the terminal: {0}")]
    Terminal(io::Error),
}

/// How a server is asked: where, by whom, and whom that trusts.
#[derive(Clone)]
pub(super) struct Asker {
    target: Target,
    token: Option<Secret>,
    tls: Option<Arc<ClientConfig>>,
}

impl Asker {
    /// Asks `target`, showing `token`; over TLS, whoever is in the PEM file `ca` is trusted, or anybody where `insecure`, or whom the system trusts.
    ///
    /// # Errors
    /// Nobody is there to be trusted.
    pub(super) fn new(
        target: Target,
        token: Option<Secret>,
        ca: Option<&Path>,
        insecure: bool,
    ) -> Result<Self, FetchError> {
        let tls = match target.tls {
            true => Some(Arc::new(trust::client(ca, insecure).map_err(FetchError::Trust)?)),
            false => None,
        };
        Ok(Self { target, token, tls })
    }

    /// The body of the answer to a GET of `path`.
    pub(super) fn get(&self, path: &str) -> Result<String, FetchError> {
        let url = || format!("{}{path}", self.target);
        let answer = self.exchange(path).map_err(|cause| FetchError::Io { url: url(), cause: explained(cause) })?;
        let broken = |what| FetchError::Answer { url: url(), what };
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(len)) = head.parse(&answer) else {
            return Err(broken("the answer is not HTTP"));
        };
        let body = str::from_utf8(&answer[len..]).map_err(|_| broken("the answer is not text"))?;
        let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("Content-Length"));
        let length = length.and_then(|header| str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
        if length.is_some_and(|length| length != body.len()) {
            return Err(broken("the answer breaks off, or is too large"));
        }
        match head.code.unwrap_or_default() {
            200 => Ok(body.to_owned()),
            status => {
                let sentence = body.lines().next().unwrap_or_default().chars().take(200).collect();
                Err(FetchError::Status { url: url(), status, sentence })
            }
        }
    }

    /// Sends the request; returns all that comes until the server ends the connection.
    fn exchange(&self, path: &str) -> io::Result<Vec<u8>> {
        let channel = Channel::connect(&self.target.authority, Instant::now() + PATIENCE)?;
        let Some(config) = &self.tls else { return self.ask(path, channel) };
        let session = ClientConnection::new(Arc::clone(config), self.target.name()?).map_err(io::Error::other)?;
        self.ask(path, StreamOwned::new(session, channel))
    }

    fn ask(&self, path: &str, mut stream: impl Read + Write) -> io::Result<Vec<u8>> {
        let bearer = self.token.as_ref().map(|token| format!("Authorization: Bearer {}\r\n", token.expose()));
        let bearer = bearer.unwrap_or_default();
        // In one piece, which is one record with TLS.
        let host = &self.target.authority;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n{bearer}\r\n").as_bytes())?;
        let mut answer = Vec::new();
        match stream.take(ANSWER_MAX).read_to_end(&mut answer) {
            // TLS that ends without a word: whether the answer is whole, its length tells.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !answer.is_empty() => Ok(answer),
            outcome => outcome.map(|_| answer),
        }
    }
}

/// What TLS has to say, in words.
fn explained(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => io::Error::other(trust::explain(tls)),
        None => error,
    }
}

/// A connection that is given up at a moment, whatever is done with it.
struct Channel {
    tcp: TcpStream,
    until: Instant,
}

impl Channel {
    fn connect(authority: &str, until: Instant) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left(until)?) {
                Ok(tcp) => return Ok(Self { tcp, until }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// A server that sends, or takes, a byte now and then is not waited for longer.
fn left(until: Instant) -> io::Result<Duration> {
    match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, "no whole answer within 5 s")),
        left => Ok(left),
    }
}

/// A socket's timeout shows as one of these.
fn timed_out(error: io::Error, until: Instant) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => left(until).err().unwrap_or(error),
        _ => error,
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(Some(left(self.until)?))?;
        self.tcp.read(buffer).map_err(|error| timed_out(error, self.until))
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(Some(left(self.until)?))?;
        self.tcp.write(bytes).map_err(|error| timed_out(error, self.until))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::{ServerConfig, ServerConnection, crypto::aws_lc_rs, pki_types::PrivateKeyDer};

    use super::*;

    /// What comes of `GET /x` from a server that says `answer` and ends.
    fn got(answer: &'static [u8]) -> (Result<String, FetchError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target: Target = listener.local_addr().unwrap().to_string().parse().unwrap();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") {
                socket.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            socket.write_all(answer).unwrap();
            String::from_utf8(request).unwrap()
        });
        let asker = Asker::new(target, Some("s3cret".parse().unwrap()), None, false).unwrap();
        (asker.get("/x"), server.join().unwrap())
    }

    #[test]
    fn the_body_comes_back_and_the_token_went_along() {
        let (body, request) = got(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes");
        assert_eq!(body.unwrap(), "yes");
        assert!(request.starts_with("GET /x HTTP/1.0\r\nHost: 127.0.0.1:"), "{request}");
        assert!(request.contains("\r\nAuthorization: Bearer s3cret\r\n"), "{request}");
    }

    #[test]
    fn what_is_no_good_answer_says_why() {
        for (answer, words) in [
            (&b"HTTP/1.1 401 Unauthorized\r\n\r\nShow a token.\n"[..], "/x: 401: Show a token."),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "breaks off"),
            (b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe", "not text"),
            (b"SSH-2.0-x\r\n", "not HTTP"),
            (b"", "not HTTP"),
        ] {
            let error = got(answer).0.unwrap_err().to_string();
            assert!(error.starts_with("http://127.0.0.1:") && error.contains(words), "{error}");
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let target: Target = format!("http://{free}/").parse().unwrap();
        let asker = Asker::new(target, None, None, false).unwrap();
        assert!(asker.get("/x").unwrap_err().to_string().contains("refused"));
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<Target>().map(|target| target.authority);
        for (text, authority) in [
            ("http://127.0.0.1:9001/", "127.0.0.1:9001"),
            ("localhost:9001", "localhost:9001"),
            ("http://feed.example.com", "feed.example.com:80"),
            ("http://[::1]:9001", "[::1]:9001"),
            ("[::1]", "[::1]:80"),
            ("https://feed.example.com/", "feed.example.com:443"),
            ("https://[::1]", "[::1]:443"),
            ("https://127.0.0.1:9443", "127.0.0.1:9443"),
        ] {
            assert_eq!(read(text).unwrap(), authority);
        }
        for text in [
            "",
            "http://",
            "https://",
            "https://a..b:1",
            "wss://a",
            "a:99999",
            "a:b",
            "http://a:1/metrics",
            "a b:1",
            "a\r\nX: y",
        ] {
            assert!(read(text).unwrap_err().starts_with("expected "), "{text}");
        }
    }
    /// What comes of `GET /x` from a TLS server for `localhost`, which ends with a `close_notify` or without, asked by who trusts it or doesn't.
    fn got_by_tls(ends: bool, host: &str, trusts: bool) -> Result<String, FetchError> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = format!("https://{host}:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        let server = std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), socket);
            let mut request = [0; 1024];
            if stream.read(&mut request).is_ok_and(|len| request[..len].ends_with(b"\r\n\r\n")) {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes").unwrap();
                if ends {
                    stream.conn.send_close_notify();
                    stream.flush().unwrap();
                }
            }
        });
        let ca = std::env::temp_dir().join(format!("stentor-top-{}-{ends}-{host}-{trusts}.pem", std::process::id()));
        std::fs::write(&ca, cert.pem()).unwrap();
        let asker =
            if trusts { Asker::new(target, None, Some(&ca), false) } else { Asker::new(target, None, None, true) };
        std::fs::remove_file(&ca).unwrap();
        let got = asker?.get("/x");
        server.join().unwrap();
        got
    }

    #[test]
    fn the_body_comes_back_over_tls_however_that_ends() {
        for ends in [true, false] {
            assert_eq!(got_by_tls(ends, "localhost", true).unwrap(), "yes");
        }
        assert_eq!(got_by_tls(true, "127.0.0.1", false).unwrap(), "yes");
    }

    #[test]
    fn who_is_not_trusted_is_a_sentence_and_so_is_who_speaks_no_tls() {
        let error = got_by_tls(true, "127.0.0.1", true).unwrap_err().to_string();
        assert!(error.contains("/x: its certificate is not for 127.0.0.1 but for "), "{error}");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            assert!(socket.read(&mut [0; 64]).unwrap() > 0);
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        let error = Asker::new(target, None, None, true).unwrap().get("/x").unwrap_err().to_string();
        assert!(error.ends_with("it speaks no TLS there"), "{error}");
        server.join().unwrap();
    }
}
