//! A request's head, read strictly.
//!
//! `httparse` finds the pieces; what is decided here is which requests are good. The rule is that of RFC 9112 section
//! 11.2: whatever a proxy in front and this server could understand differently, so that one request might pass for two,
//! is refused rather than repaired. Lines end in CR LF and are not folded, one length says where the body ends, one
//! `Host` says whom it is for, and the values that are read here are visible ASCII. What others are is nobody's business here
//! (RFC 9110 section 5.5): proxies send the names of cities in them, in whatever letters. What proxies say of the way that a request has
//! come ([`FORWARDED`]) is begun by whoever sent it, and read from its end: whatever bytes are before that, the rest counts.
//!
//! [`parse`] is called with everything read so far, again and again until the head is whole. What is obviously not HTTP
//! (a TLS greeting, say) is refused at its first bytes. Values borrow from that buffer.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

use std::borrow::Cow;

use httparse::{EMPTY_HEADER, Error, Status};

use super::response::Refusal;
use crate::counted::counted;

/// The most headers in a request, unless told otherwise. Browsers send fewer than 20, and each proxy on the way a few.
pub const HEADERS_MAX: usize = 100;

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// In bytes, its empty line included.
    pub bytes: usize,
    /// How many headers it may have.
    pub headers: usize,
}

impl From<usize> for Bounds {
    /// So many bytes, and as many headers as there may be by default.
    fn from(bytes: usize) -> Bounds {
        Bounds { bytes, headers: HEADERS_MAX }
    }
}

/// The longest method. The registered ones have at most 17 letters; more without a space is no HTTP.
const METHOD_MAX: usize = 32;

/// The headers that something here reads: refused if they aren't ASCII, where another is passed over. Whoever reads one that
/// isn't among them fails its tests.
const READ: [&str; 24] = [
    "Accept",
    "Accept-Encoding",
    "Access-Control-Request-Headers",
    "Access-Control-Request-Method",
    "Authorization",
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Expect",
    "Forwarded",
    "Host",
    LAST_EVENT_ID,
    "Origin",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
    "TE",
    "Transfer-Encoding",
    "Upgrade",
    USER_AGENT,
    "Via",
    "X-Forwarded-For",
];

/// The header that another server may have made, and that is passed over where it is nothing of ours.
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// What a client calls itself, in whatever letters: where that isn't ASCII, it is no name that is known here.
const USER_AGENT: &str = "User-Agent";

/// The headers by which a proxy says that it has passed a request on. Each appends to what is there.
pub const FORWARDED: [&str; 3] = ["Forwarded", "X-Forwarded-For", "Via"];

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks, each with its length.
    Chunked,
}

/// The head of a request, borrowed from the bytes that it was parsed from.
#[derive(Clone, Debug)]
pub struct Request<'b> {
    /// The method as sent; methods are case-sensitive.
    pub method: &'b str,
    /// The client speaks HTTP/1.1, not 1.0.
    pub is_http11: bool,
    /// The client wants to send another request afterwards.
    pub keep_alive: bool,
    /// How the body is delimited.
    pub body: Body,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    path_and_query: &'b str,
    headers: Vec<(&'b str, &'b str)>,
}

/// Whether [`parse`] may come to anything new with what is in `buffer`, of which it has seen `seen` bytes: the head may be whole,
/// or is too long; or there is twice as much as before, so that what is no HTTP is found out early. So the bytes of a head
/// that comes in small pieces are looked at a few times each, and not once with each piece.
pub fn is_worth_parsing(buffer: &[u8], seen: usize, max_head: usize) -> bool {
    let is_first = seen == 0;
    let is_twice = seen.checked_ilog2() < buffer.len().checked_ilog2();
    if is_first || is_twice || buffer.len() >= max_head {
        return true;
    }
    // A line's end behind another one; the pair may have come in two pieces.
    let from = seen.saturating_sub(2);
    let ends_behind = |at: usize| matches!(buffer.get(..at), Some([.., b'\n', b'\r'] | [.., b'\n']));
    let fresh = buffer.get(from..).unwrap_or_default();
    memchr::memchr_iter(b'\n', fresh).any(|at| ends_behind(from.saturating_add(at)))
}

/// Parses the head of a request, and says how many bytes it has; `None` while more are needed.
///
/// # Errors
///
/// A refusal, as soon as no further bytes could make the head good. Afterwards the connection can't be used.
pub fn parse(buffer: &[u8], bounds: impl Into<Bounds>) -> Result<Option<(Request<'_>, usize)>, Refusal> {
    let bounds = bounds.into();
    let bytes = buffer.get(..bounds.bytes).unwrap_or(buffer);
    let mut headers = vec![EMPTY_HEADER; bounds.headers];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(bytes) {
        Ok(Status::Complete(len)) => {
            let head = bytes.get(..len).unwrap_or(bytes);
            refuse_bare_line_feeds(head)?;
            refuse_no_method(head)?;
            Ok(Some((Request::judge(&parsed)?, len)))
        }
        Ok(Status::Partial) if buffer.len() >= bounds.bytes => Err(too_long(bytes)),
        Ok(Status::Partial) => refuse_no_method(bytes).map(|()| None),
        Err(Error::TooManyHeaders) => Err(too_many(bounds)),
        Err(Error::Version) if is_later_version(bytes) => parse_later(bytes, bounds),
        Err(error) => Err(explain(error, bytes)),
    }
}

/// Parses the head of a request of HTTP/1.2 or later, which is read as one of 1.1 (RFC 9110 section 2.5). The request line, as far
/// as it is there, is one already.
fn parse_later(bytes: &[u8], bounds: Bounds) -> Result<Option<(Request<'_>, usize)>, Refusal> {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let end = memchr::memchr(b'\n', bytes.get(start..).unwrap_or_default()).map(|end| start.saturating_add(end));
    let Some((line, rest)) = end.and_then(|end| bytes.split_at_checked(end.saturating_add(1))) else {
        return if bytes.len() >= bounds.bytes { Err(too_long(bytes)) } else { Ok(None) };
    };
    let line = line.get(start..).and_then(|line| str::from_utf8(line).ok()).ok_or_else(not_http)?;
    let mut words = line.trim_end_matches(['\r', '\n']).split(' ');
    let (Some(method), Some(target), Some(_), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(explain_line(bytes).unwrap_or_else(not_http));
    };
    let mut headers = vec![EMPTY_HEADER; bounds.headers];
    match httparse::parse_headers(rest, &mut headers) {
        Ok(Status::Complete((len, headers))) => {
            let len = line.len().saturating_add(start).saturating_add(len);
            let head = bytes.get(..len).unwrap_or(bytes);
            refuse_bare_line_feeds(head)?;
            refuse_no_method(head)?;
            let found = headers.len();
            let mut headers = headers.to_vec();
            let mut parsed = httparse::Request::new(&mut headers);
            (parsed.method, parsed.path, parsed.version) = (Some(method), Some(target), Some(1));
            debug_assert_eq!(parsed.headers.len(), found);
            Ok(Some((Request::judge(&parsed)?, len)))
        }
        Ok(Status::Partial) if bytes.len() >= bounds.bytes => Err(too_long(bytes)),
        Ok(Status::Partial) => Ok(None),
        Err(Error::TooManyHeaders) => Err(too_many(bounds)),
        Err(error) => Err(explain(error, bytes)),
    }
}

/// Whether the request line, as far as it is there, is that of HTTP/1.2 or later; a method and a target, as `httparse` takes
/// them, stand before the version.
fn is_later_version(bytes: &[u8]) -> bool {
    version(bytes).and_then(|version| version.strip_prefix(b"1.")).is_some_and(|minor| matches!(minor, [b'2'..=b'9']))
}

/// What is there of a head that was refused, or of which no more came: from which page and for whom, so that it can be said who may
/// read the refusal. All else is as if it weren't there.
pub fn outline(bytes: &[u8]) -> Request<'_> {
    let lines = bytes.trim_ascii_start().split_inclusive(|&byte| byte == b'\n');
    // The last may not be all of it.
    let lines = lines.map_while(|line| line.strip_suffix(b"\n")).map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let headers = lines.skip(1).take_while(|line| !line.is_empty()).filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = (line.get(..colon)?, line.get(colon.saturating_add(1)..)?);
        let name = str::from_utf8(name).ok().filter(|name| is_among(&["Host", "Origin"], name))?;
        let value = str::from_utf8(value).ok().filter(|value| value.bytes().all(is_visible))?;
        Some((name, value.trim_matches([' ', '\t'])))
    });
    Request {
        method: "",
        is_http11: false,
        keep_alive: false,
        body: Body::None,
        expect_continue: false,
        path_and_query: "*",
        headers: headers.collect(),
    }
}

impl<'b> Request<'b> {
    /// The path as sent, from its `/` to before the `?`.
    pub fn path(&self) -> &'b str {
        self.path_and_query.split_once('?').map_or(self.path_and_query, |(path, _)| path)
    }

    /// The path and the query as sent; `*` of a request for the options of the whole server.
    pub fn target(&self) -> &'b str {
        self.path_and_query
    }

    /// The topic behind the beginning of a path, its percent escapes resolved; `None` if the path doesn't begin like that.
    ///
    /// The beginning has to be there as it is, and what needs no escape must have none: a proxy in front has rules for paths, and
    /// compares them as they were sent.
    ///
    /// # Errors
    /// Escapes that are malformed, needless, or don't make text.
    pub fn topic_behind(&self, beginning: &str) -> Option<Result<Cow<'b, str>, Refusal>> {
        let rest = self.path().strip_prefix(beginning)?;
        Some(
            decode(rest)
                .ok_or_else(|| Refusal::new(400, "The path has an escape that is malformed, or that it needs not.")),
        )
    }

    /// The pairs of the query, decoded as forms encode them.
    pub fn query(&self) -> impl Iterator<Item = (Cow<'b, str>, Cow<'b, str>)> + use<'b> {
        let query = self.path_and_query.split_once('?').map_or("", |(_, query)| query);
        form_urlencoded::parse(query.as_bytes())
    }

    /// The value of a parameter that may be given once.
    ///
    /// # Errors
    /// It is given more often: which of them was meant is not guessed.
    pub fn parameter(&self, name: &str) -> Result<Option<Cow<'b, str>>, Refusal> {
        let mut values = self.query().filter(|(key, _)| key == name).map(|(_, value)| value);
        let value = values.next();
        match values.next() {
            None => Ok(value),
            Some(_) => Err(Refusal::new(400, format!("In the address: {name} is given more than once."))),
        }
    }

    /// The value of a parameter that is on or off.
    ///
    /// # Errors
    /// It is neither, or given more than once.
    pub fn switch(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.parameter(name)?.as_deref() {
            None => Ok(None),
            Some("1" | "true") => Ok(Some(true)),
            Some("0" | "false") => Ok(Some(false)),
            Some(other) => {
                let found: String = other.escape_debug().take(32).collect();
                Err(Refusal::new(
                    400,
                    format!("In the address: {name} is 1 or true, or 0 or false; found \"{found}\"."),
                ))
            }
        }
    }

    /// What a parameter chooses among a few words.
    ///
    /// # Errors
    /// It is none of them, or given more than once.
    pub fn choice<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Refusal> {
        let Some(value) = self.parameter(name)? else { return Ok(None) };
        if let Some((_, chosen)) = words.iter().find(|(word, _)| *word == value) {
            return Ok(Some(*chosen));
        }
        let found: String = value.escape_debug().take(32).collect();
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        Err(Refusal::new(400, format!("In the address: {name} is one of {}; found \"{found}\".", words.join(", "))))
    }

    /// Names of topics in a parameter, which may be given several times, separated by commas. A plus sign stands for itself: forms encode
    /// spaces so, and names have none.
    pub fn names(&self, name: &str) -> Option<String> {
        let (_, query) = self.path_and_query.split_once('?')?;
        let query = query.replace('+', "%2B");
        let values = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
        values.map(|(_, value)| value.into_owned()).reduce(|names, more| format!("{names},{more}"))
    }

    /// One such name.
    ///
    /// # Errors
    /// It is given more than once.
    pub fn name(&self, name: &str) -> Result<Option<String>, Refusal> {
        self.parameter(name)?;
        Ok(self.names(name))
    }

    /// The value of the first header of this name, in any case of letters.
    pub fn header(&self, name: &str) -> Option<&'b str> {
        self.headers(name).next()
    }

    /// The values of all headers of this name, in the order sent.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &'b str> {
        debug_assert!(cfg!(test) || is_read(name), "{name} may have been passed over");
        self.headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|&(_, value)| value)
    }

    /// The elements of a header that is a list, over all lines of this name, without the empty ones.
    pub fn list(&self, name: &str) -> impl Iterator<Item = &'b str> {
        self.headers(name)
            .flat_map(|value| value.split(','))
            .map(|element| element.trim_matches([' ', '\t']))
            .filter(|element| !element.is_empty())
    }

    /// Whether a header that is a list has this token, in any case of letters.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|element| element.eq_ignore_ascii_case(token))
    }

    /// The client asks to go on as WebSocket. Whether it asks properly is the handshake's business.
    pub fn is_upgrade(&self) -> bool {
        self.has_token("Upgrade", "websocket")
    }

    /// Holds what was found against the rules.
    fn judge(parsed: &httparse::Request<'_, 'b>) -> Result<Request<'b>, Refusal> {
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Refusal::new(400, "The request line is incomplete."));
        };
        let mut request = Request {
            method,
            is_http11: version == 1,
            keep_alive: false,
            body: Body::None,
            expect_continue: false,
            path_and_query: path_and_query(method, target)?,
            headers: visible(parsed.headers)?,
        };
        request.check_host()?;
        request.body = request.body()?;
        request.expect_continue = request.expectation()?;
        request.keep_alive = match version {
            1 => !request.has_token("Connection", "close"),
            _ => request.has_token("Connection", "keep-alive") && !request.has_token("Connection", "close"),
        };
        if request.is_upgrade() && !matches!(request.body, Body::None | Body::Length(0)) {
            return Err(Refusal::new(400, "A request to upgrade to WebSocket must not have a body."));
        }
        Ok(request)
    }

    /// RFC 9112 section 3.2: one `Host`, and HTTP/1.1 requires it.
    fn check_host(&self) -> Result<(), Refusal> {
        let mut hosts = self.headers("Host");
        match (hosts.next(), hosts.next()) {
            (None, _) if self.is_http11 => Err(Refusal::new(400, "The Host header is missing.")),
            (Some(_), Some(_)) => Err(Refusal::new(400, "There is more than one Host header.")),
            (Some(host), None) if host.contains([' ', '\t', ',', '/', '\\', '@', '?', '#']) => {
                Err(Refusal::new(400, "The Host header is not a host with an optional port."))
            }
            _ => Ok(()),
        }
    }

    /// RFC 9112 section 6: what delimits the body, with nothing left to interpretation.
    fn body(&self) -> Result<Body, Refusal> {
        let length = self.content_length()?;
        let mut codings = self.headers("Transfer-Encoding").peekable();
        if codings.peek().is_none() {
            return Ok(length.map_or(Body::None, Body::Length));
        }
        if length.is_some() {
            return Err(Refusal::new(400, "Content-Length and Transfer-Encoding exclude each other."));
        }
        if !self.is_http11 {
            return Err(Refusal::new(400, "HTTP/1.0 has no Transfer-Encoding."));
        }
        match (codings.next(), codings.next()) {
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Ok(Body::Chunked),
            _ => Err(Refusal::new(501, "The only Transfer-Encoding served here is chunked, once.")),
        }
    }

    /// Digits only; said more than once only if it is the same each time.
    fn content_length(&self) -> Result<Option<u64>, Refusal> {
        let mut length = None;
        for value in self.headers("Content-Length").flat_map(|value| value.split(',')) {
            let value = value.trim_matches([' ', '\t']);
            let is_digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let number = value.parse().ok().filter(|_| is_digits);
            let number: u64 =
                number.ok_or_else(|| Refusal::new(400, "The Content-Length is not a number of bytes."))?;
            if length.is_some_and(|length| length != number) {
                return Err(Refusal::new(400, "There are several Content-Lengths, and they differ."));
            }
            length = Some(number);
        }
        Ok(length)
    }

    /// RFC 9110 section 10.1.1: the one expectation there is, which HTTP/1.0 doesn't have.
    fn expectation(&self) -> Result<bool, Refusal> {
        match self.header("Expect") {
            Some(expect) if expect.eq_ignore_ascii_case("100-continue") => {
                Ok(self.is_http11 && self.body != Body::None)
            }
            Some(_) => Err(Refusal::new(417, "The only expectation met here is 100-continue.")),
            None => Ok(false),
        }
    }
}

/// The path and query of a target: itself, or what follows the authority in an absolute URL. `*`, the server as a whole, can be
/// asked for its options only (RFC 9112 section 3.2.4).
fn path_and_query<'b>(method: &str, target: &'b str) -> Result<&'b str, Refusal> {
    if target == "*" && method == "OPTIONS" {
        return Ok(target);
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Refusal::new(400, "The request target has characters that need a percent escape."));
    }
    if target.contains('#') {
        return Err(Refusal::new(400, "The request target has a fragment, which is never sent."));
    }
    if target.starts_with('/') {
        return Ok(target);
    }
    let rest = match target.split_once("://") {
        Some((scheme, rest)) if ["http", "https"].iter().any(|http| scheme.eq_ignore_ascii_case(http)) => rest,
        _ => return Err(Refusal::new(400, "The request target has to be a path that begins with a slash.")),
    };
    match rest.find(['/', '?']) {
        None => Ok("/"),
        Some(0) => Err(Refusal::new(400, "The request target is a URL without a host.")),
        Some(at) => {
            let path = rest.get(at..).filter(|path| path.starts_with('/'));
            path.ok_or_else(|| Refusal::new(400, "The request target is a URL without a path."))
        }
    }
}

/// The headers with values as text, without those that are passed over.
fn visible<'b>(headers: &[httparse::Header<'b>]) -> Result<Vec<(&'b str, &'b str)>, Refusal> {
    let mut visible = Vec::with_capacity(headers.len());
    for header in headers {
        let is_visible = header.value.iter().all(|&byte| is_visible(byte));
        match str::from_utf8(header.value) {
            Ok(value) if is_visible => visible.push((header.name, value)),
            // RFC 7239 section 6.2 calls so whom a proxy doesn't know.
            _ if is_among(&FORWARDED, header.name) => {
                visible.extend([(header.name, "unknown"), (header.name, visible_end(header.value))]);
            }
            // A browser shows what it was last told by whatever server was there.
            _ if !is_read(header.name) || is_among(&[LAST_EVENT_ID, USER_AGENT], header.name) => {}
            _ => {
                let text =
                    format!("The value of the header {} has characters that are not visible ASCII.", header.name);
                return Err(Refusal::new(400, text));
            }
        }
    }
    Ok(visible)
}

fn is_visible(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~')
}

/// The elements of a list behind the last one that isn't visible ASCII.
fn visible_end(value: &[u8]) -> &str {
    let end = value.rsplit(|&byte| !is_visible(byte)).next().unwrap_or_default();
    let end = str::from_utf8(end).unwrap_or_default();
    end.split_once(',').map_or("", |(_, elements)| elements)
}

/// Whether anything here reads this header.
fn is_read(name: &str) -> bool {
    is_among(&READ, name)
}

fn is_among(names: &[&str], name: &str) -> bool {
    names.iter().any(|one| one.eq_ignore_ascii_case(name))
}

/// `httparse` takes a lone line feed for a line's end; others don't.
fn refuse_bare_line_feeds(head: &[u8]) -> Result<(), Refusal> {
    let is_bare = |at: usize| at.checked_sub(1).and_then(|before| head.get(before)) != Some(&b'\r');
    if memchr::memchr_iter(b'\n', head).any(is_bare) {
        return Err(Refusal::new(400, "A line ends in a line feed without a carriage return."));
    }
    Ok(())
}

/// Letters without end are no method.
fn refuse_no_method(bytes: &[u8]) -> Result<(), Refusal> {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let (_, line) = bytes.split_at(start);
    if line.get(..=METHOD_MAX).is_some_and(|begun| !begun.contains(&b' ')) {
        return Err(not_http());
    }
    Ok(())
}

fn too_many(bounds: Bounds) -> Refusal {
    let most = bounds.headers;
    Refusal::new(431, format!("There are more than {}, as many as --max-headers allows.", counted(most, "header")))
}

fn not_http() -> Refusal {
    Refusal::new(400, "This is not an HTTP request.")
}

/// Which part of the head is too long: without a whole line, the target.
fn too_long(bytes: &[u8]) -> Refusal {
    let limit = bytes.len();
    match memchr::memchr(b'\n', bytes) {
        Some(_) => Refusal::new(431, format!("The request's head is longer than {limit} bytes.")),
        None => Refusal::new(414, format!("The request line is longer than {limit} bytes.")),
    }
}

/// A sentence for what `httparse` found wrong.
fn explain(error: Error, bytes: &[u8]) -> Refusal {
    // It takes what follows a whole line for the next one.
    let in_line = matches!(error, Error::Version | Error::Token | Error::Status | Error::NewLine);
    if let Some(refusal) = explain_line(bytes).filter(|_| in_line) {
        return refusal;
    }
    match error {
        Error::TooManyHeaders => Refusal::new(431, "There are too many headers."),
        Error::Version | Error::Token | Error::Status => not_http(),
        Error::NewLine => Refusal::new(400, "A line ends in a carriage return without a line feed."),
        Error::HeaderValue => Refusal::new(400, "A header's value has a control character."),
        Error::HeaderName => explain_name(bytes),
    }
}

/// What is wrong with the request line, as far as it is there (RFC 9112 section 3); none if it is a method, a target and a version that
/// is served, with a blank between them.
fn explain_line(bytes: &[u8]) -> Option<Refusal> {
    let words: Vec<&[u8]> = line(bytes).split(|&byte| byte == b' ').collect();
    let is_method = |word: &[u8]| !word.is_empty() && word.iter().all(|&byte| is_token(byte));
    let is_version = |word: &&[u8]| word.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"HTTP/"));
    if !words.first().is_some_and(|method| is_method(method)) {
        return Some(not_http());
    }
    let said = |text: &'static str| Some(Refusal::new(400, text));
    match (words.iter().rposition(is_version), &words[..]) {
        (None, [_, [b'/', ..]]) => said("The request line has no version: expected HTTP/1.1 behind the target."),
        (None, _) => Some(not_http()),
        (Some(at), _) if at.saturating_add(1) < words.len() => {
            said("There is something behind the version in the request line.")
        }
        (Some(_), [_, _]) => said("The request line has no target: expected one between the method and the version."),
        (Some(_), [_, _, version]) => explain_version(version),
        (Some(_), _) => said("The request line has too many blanks: expected one on either side of the target."),
    }
}

/// What is wrong with a version, of which each number is one digit (RFC 9112 section 2.3); none if it is served.
fn explain_version(version: &[u8]) -> Option<Refusal> {
    match version.strip_prefix(b"HTTP/") {
        Some([b'1', b'.', minor]) if minor.is_ascii_digit() => None,
        Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Some(Refusal::new(505, "The versions served here are 1.1 and 1.0."))
        }
        _ => {
            let found: String = String::from_utf8_lossy(version).escape_debug().take(32).collect();
            let text = format!(
                "The version in the request line is malformed: expected HTTP/1.1 or HTTP/1.0, with one digit on either side of the \
                 point; found \"{found}\"."
            );
            Some(Refusal::new(400, text))
        }
    }
}

/// Whether a method may have it (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The request line, as far as it is there.
fn line(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii_start().split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default()
}

/// The version in the request line, as far as it is there.
fn version(bytes: &[u8]) -> Option<&[u8]> {
    line(bytes).rsplit(|&byte| byte == b' ').next().unwrap_or_default().strip_prefix(b"HTTP/")
}

/// What is wrong with a header's name, from the first line that has something wrong.
fn explain_name(bytes: &[u8]) -> Refusal {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    for line in bytes.trim_ascii_start().split(|&byte| byte == b'\n').skip(1) {
        if is_blank(line.first()) {
            return Refusal::new(400, "A header is folded over several lines, or has a blank before its name.");
        }
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        if is_blank(name.last()) && name.len() < line.len() {
            return Refusal::new(400, "A header has a blank before its colon.");
        }
    }
    Refusal::new(400, "A header's name has a character that names don't have.")
}

/// Resolves percent escapes; `None` if one is malformed or stands for what needs none (RFC 3986 section 2.3; but `~`, which
/// older programs escape), or if the result is not UTF-8 text.
fn decode(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    let mut out = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        out.push(match byte {
            b'%' => {
                let byte = (digit(bytes.next())? << 4 | digit(bytes.next())?) as u8;
                let is_needless = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
                (!is_needless).then_some(byte)?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok().filter(|text| !text.contains(char::is_control)).map(Cow::Owned)
}

#[cfg(test)]
mod tests;
