//! One GET over plain HTTP, bounded in size and time.
//!
//! HTTP/1.0, so that no server answers in chunks, and a connection for each request: an answer ends where the connection
//! does. Reading a server's own figures needs no more of HTTP than that.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    str::FromStr,
    time::{Duration, Instant},
};

use crate::config::Secret;

/// Time for one answer, connecting included.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest answer taken. A scrape is some tens of kilobytes, the longest slow list about a megabyte a worker.
const ANSWER_MAX: u64 = 16 * 1024 * 1024;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host and port, as in a Host header.
    authority: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected an address like http://127.0.0.1:9001/; found {text:?}");
        if text.starts_with("https://") {
            return Err(format!("expected http://: https is not spoken here; found {text:?}"));
        }
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]%".contains(&byte);
        if authority.is_empty() || !authority.bytes().all(is_plain) {
            return Err(wrong());
        }
        let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        match port {
            Some(port) => port.parse::<u16>().map(drop).map_err(|_| wrong())?,
            None => return Ok(Target { authority: format!("{authority}:80") }),
        }
        Ok(Target { authority: authority.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
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
    /// The terminal failed.
    #[error("the terminal: {0}")]
    Terminal(io::Error),
}

impl Target {
    /// The body of the answer to a GET of `path`.
    pub(super) fn get(&self, path: &str, token: Option<&Secret>) -> Result<String, FetchError> {
        let url = || format!("{self}{path}");
        let answer = self.exchange(path, token).map_err(|cause| FetchError::Io { url: url(), cause })?;
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
    fn exchange(&self, path: &str, token: Option<&Secret>) -> io::Result<Vec<u8>> {
        let until = Instant::now() + PATIENCE;
        let left = || match until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, "no whole answer within 5 s")),
            left => Ok(left),
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut connected = None;
        for address in self.authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left()?) {
                Ok(stream) => {
                    connected = Some(stream);
                    break;
                }
                Err(error) => last = error,
            }
        }
        let mut stream = connected.ok_or(last)?;
        stream.set_write_timeout(Some(left()?))?;
        let bearer = token.map(|token| format!("Authorization: Bearer {}\r\n", token.expose())).unwrap_or_default();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n{bearer}\r\n", self.authority)?;
        let mut answer = Vec::new();
        let mut limited = stream.take(ANSWER_MAX);
        let mut piece = [0; 16 * 1024];
        loop {
            // A server that sends a byte now and then is not waited for longer.
            limited.get_ref().set_read_timeout(Some(left()?))?;
            match limited.read(&mut piece) {
                Ok(0) => return Ok(answer),
                Ok(n) => answer.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A socket's timeout shows as one of these.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    left()?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

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
        let got = target.get("/x", Some(&"s3cret".parse().unwrap()));
        (got, server.join().unwrap())
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
        assert!(target.get("/x", None).unwrap_err().to_string().contains("refused"));
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
        ] {
            assert_eq!(read(text).unwrap(), authority);
        }
        for text in ["", "http://", "https://a:1", "a:99999", "a:b", "http://a:1/metrics", "a b:1", "a\r\nX: y"] {
            assert!(read(text).unwrap_err().starts_with("expected "), "{text}");
        }
    }
}
