//! Answers, and refusals with one plain sentence.
//!
//! A [`Response`] borrows what it is made of and is written into a buffer of the caller's in one go:
//!
//! ```text
//!  HTTP/1.1 200 OK
//!  Content-Type: application/json
//!  Content-Length: 17
//!  Connection: keep-alive
//!
//!  {"published":200}
//! ```
//!
//! A [`Refusal`] is how everything on this floor says no: a status and a sentence for the person who reads it. There is no clock
//! here: when an answer is made, for its `Date`, is for the caller to say.

use std::{
    borrow::Cow,
    fmt,
    io::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use httpdate::HttpDate;

/// What a client that sent `Expect: 100-continue` waits for before it sends the body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The type of plain text, sentences in refusals for one.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// The type of JSON.
pub const JSON: &str = "application/json";

/// Which web page, of those that have another origin, may read an answer (the CORS protocol of the Fetch standard).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Readers {
    /// Nothing is said of it: none may.
    #[default]
    Untold,
    /// The request came from no such page, or from one that may not; another request could come from one that may.
    Nobody,
    /// The page of this origin.
    Page(Box<str>),
}

/// What pages may read beside the headers that they always may.
const EXPOSED: &str = "Date, Retry-After, WWW-Authenticate";

/// An answer to be written.
#[derive(Clone, Debug)]
pub struct Response<'a> {
    status: u16,
    content_type: Option<&'a str>,
    headers: Vec<(&'a str, Cow<'a, str>)>,
    body: Cow<'a, [u8]>,
    keep_alive: bool,
    is_stream: bool,
    made_at: Option<SystemTime>,
}

impl<'a> Response<'a> {
    /// An empty answer with this status, after which the connection stays open.
    pub fn new(status: u16) -> Response<'a> {
        Response {
            status,
            content_type: None,
            headers: Vec::new(),
            body: Cow::Borrowed(&[]),
            keep_alive: true,
            is_stream: false,
            made_at: None,
        }
    }

    /// With the `Date` that every answer of a server with a clock has (RFC 9110 section 6.6.1), in microseconds since the Unix
    /// epoch.
    pub fn made_at(mut self, wall_us: u64) -> Self {
        self.made_at = UNIX_EPOCH.checked_add(Duration::from_micros(wall_us));
        self
    }

    /// With a body of this type.
    pub fn body(mut self, content_type: &'a str, body: impl Into<Cow<'a, [u8]>>) -> Self {
        self.content_type = Some(content_type);
        self.body = body.into();
        self
    }

    /// With a header more. Control characters in the value are left out, so that none can begin another header.
    pub fn header(mut self, name: &'a str, value: impl Into<Cow<'a, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With what browsers have to know before a page may read it.
    pub fn read_by(mut self, readers: &Readers) -> Self {
        if *readers != Readers::Untold {
            // Or a cache would give what was for one page to another (RFC 9110 section 12.5.5).
            self = self.header("Vary", "Origin");
        }
        match readers {
            Readers::Untold | Readers::Nobody => self,
            Readers::Page(origin) => self
                .header("Access-Control-Allow-Origin", origin.to_string())
                .header("Access-Control-Expose-Headers", EXPOSED),
        }
    }

    /// Whether the connection stays open for another request; it does unless told otherwise.
    pub fn keep_alive(mut self, keep_alive: bool) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// The head of an answer whose body follows piece by piece and ends with the connection.
    pub fn stream(mut self, content_type: &'a str) -> Self {
        self.content_type = Some(content_type);
        self.is_stream = true;
        self
    }

    /// Appends the answer to `out`; without the body if the request was a HEAD.
    pub fn write(&self, out: &mut Vec<u8>, is_head: bool) {
        self.write_head(out, self.body.len());
        if !is_head && self.has_body() {
            out.extend_from_slice(&self.body);
        }
    }

    /// Whether a body may follow the head of such an answer.
    pub(crate) fn has_body(&self) -> bool {
        !matches!(self.status, 100..=199 | 204 | 304)
    }

    /// How long the body is.
    pub(crate) fn body_len(&self) -> usize {
        self.body.len()
    }

    /// The body, for whoever sends it by itself.
    pub(crate) fn into_body(self) -> Cow<'a, [u8]> {
        self.body
    }

    /// Appends the head of the answer to `out`, whose body has `len` bytes.
    pub(crate) fn write_head(&self, out: &mut Vec<u8>, len: usize) {
        push_status_line(out, self.status);
        if let Some(made_at) = self.made_at {
            let written = write!(out, "Date: {}\r\n", HttpDate::from(made_at));
            debug_assert!(written.is_ok(), "a Vec takes everything");
        }
        if let Some(content_type) = self.content_type {
            push_header(out, "Content-Type", content_type);
        }
        // RFC 9110 section 8.6: no length with 1xx and 204; and none here with 304, which describes another answer's.
        if !self.is_stream && self.has_body() {
            push_header(out, "Content-Length", itoa::Buffer::new().format(len));
        }
        push_header(out, "Connection", if self.keep_alive && !self.is_stream { "keep-alive" } else { "close" });
        for (name, value) in &self.headers {
            push_header(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// With this type, and a body that is sent by itself.
    pub(crate) fn content_type(mut self, content_type: &'a str) -> Self {
        self.content_type = Some(content_type);
        self
    }
}

/// Why a request is not done: a status, and one plain sentence about what was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer, 400 or above.
    pub status: u16,
    /// The sentence that is its body.
    pub message: Cow<'static, str>,
    /// What the client needs beside it, such as the methods allowed or the version spoken here.
    pub headers: &'static [(&'static str, &'static str)],
}

impl Refusal {
    /// A refusal with this status and sentence.
    pub fn new(status: u16, message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { status, message: message.into(), headers: &[] }
    }

    /// With headers to go with it.
    pub fn with(mut self, headers: &'static [(&'static str, &'static str)]) -> Refusal {
        self.headers = headers;
        self
    }

    /// The answer that says so. The connection stays open unless told otherwise; after a head or a body that wasn't
    /// understood it has to be closed, for nobody knows where the next request begins.
    pub fn response(&self) -> Response<'static> {
        let body = format!("{}\n", self.message).into_bytes();
        let response = Response::new(self.status).body(TEXT, body);
        self.headers.iter().fold(response, |response, &(name, value)| response.header(name, value))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, reason(self.status), self.message)
    }
}

impl std::error::Error for Refusal {}

/// The answer to a request that is refused, in one call: status and sentence.
pub fn refusal(status: u16, sentence: &str) -> Response<'_> {
    Response::new(status).body(TEXT, format!("{sentence}\n").into_bytes())
}

/// The phrase that goes with a status; empty for one that this server never sends.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Appends `HTTP/1.1 200 OK` and the end of the line.
pub(crate) fn push_status_line(out: &mut Vec<u8>, status: u16) {
    let written = write!(out, "HTTP/1.1 {status} {}\r\n", reason(status));
    debug_assert!(written.is_ok(), "a Vec takes everything");
}

/// Appends one header line.
pub(crate) fn push_header(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.bytes().filter(|byte| !byte.is_ascii_control()));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(response: &Response<'_>, is_head: bool) -> String {
        let mut out = Vec::new();
        response.write(&mut out, is_head);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_says_its_type_its_length_and_whether_the_connection_stays() {
        let response = Response::new(200).body(JSON, &b"{\"published\":2}"[..]).header("X-Extra", "1");
        assert_eq!(
            written(&response, false),
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\nConnection: keep-alive\r\n\
             X-Extra: 1\r\n\r\n{\"published\":2}"
        );
        assert!(written(&response.keep_alive(false), false).contains("Connection: close\r\n"));
    }

    #[test]
    fn the_answer_to_head_has_the_length_and_not_the_body() {
        let text = written(&Response::new(200).body(TEXT, &b"body"[..]), true);
        assert!(text.contains("Content-Length: 4\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    }

    #[test]
    fn the_date_is_when_it_was_made() {
        let text = written(&Response::new(204).made_at(784_111_777_999_999), false);
        assert!(text.contains("\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), "{text}");
    }

    #[test]
    fn no_content_has_no_length() {
        assert_eq!(written(&Response::new(204), false), "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n");
    }

    #[test]
    fn a_stream_has_no_length_and_ends_with_the_connection() {
        let text = written(&Response::new(200).stream("text/event-stream"), false);
        assert_eq!(text, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n");
    }

    #[test]
    fn a_refusal_is_a_sentence_with_what_the_client_needs_beside_it() {
        let refusal = Refusal::new(405, "Only GET is served here.").with(&[("Allow", "GET")]);
        let text = written(&refusal.response(), false);
        assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\n"));
        assert!(text.contains("Allow: GET\r\n") && text.ends_with("\r\n\r\nOnly GET is served here.\n"), "{text}");
    }

    #[test]
    fn a_value_with_line_ends_begins_no_other_header() {
        let text = written(&Response::new(200).header("X-Echo", "a\r\nSet-Cookie: b"), false);
        assert!(text.contains("X-Echo: aSet-Cookie: b\r\n"), "{text}");
    }
}
