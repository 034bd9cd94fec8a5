//! The opening handshake: an upgrade request judged, its answer written. The client's side of both is in `client.rs`.
//!
//! ```text
//!  GET /ws HTTP/1.1                                  HTTP/1.1 101 Switching Protocols
//!  Host: …                                           Upgrade: websocket
//!  Upgrade: websocket                                Connection: Upgrade
//!  Connection: Upgrade                         →     Sec-WebSocket-Accept: base64(sha1(key + GUID))
//!  Sec-WebSocket-Version: 13                         Sec-WebSocket-Protocol: one of those offered
//!  Sec-WebSocket-Key: base64 of 16 bytes
//!  Sec-WebSocket-Protocol: what is offered
//! ```
//!
//! (RFC 6455 section 4.) Every function takes a parsed request and returns a value; a request that won't do becomes a
//! [`Refusal`] with the sentence that its sender needs. The order for a caller: [`check`], [`offered`], [`agree`],
//! [`push_accepted`]; who may connect is for [`access`](crate::access) to say.

use base64::{
    Engine, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use sha1::{Digest, Sha1};

use super::extension::{self, Agreed};
use crate::http::{
    Refusal, Request,
    response::{push_header, push_status_line},
};

/// How keys are read. The last character has bits that stand for nothing; RFC 6455's own example, in section 4.1, has some set,
/// and so have clients that send 24 random characters.
const KEY: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// The one version of WebSocket there is (RFC 6455 section 11.6).
pub(super) const VERSION: &str = "13";

/// What the key is joined with before it is hashed, so that no other server gives the answer by accident (section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What goes with 426: RFC 9110 section 15.5.22 wants `Upgrade`, section 7.8 its name in `Connection` (a list, so that a
/// line more adds to it), and RFC 6455 section 4.4 the version.
const UPGRADE_REQUIRED: &[(&str, &str)] =
    &[("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", VERSION)];

/// The value of `Sec-WebSocket-Accept` that proves to a client that its key was read.
pub fn accept_key(key: &str) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    let written = STANDARD.encode_slice(digest, &mut accept);
    debug_assert_eq!(written, Ok(28), "20 bytes are 28 in base64");
    accept
}

/// Judges an upgrade request and returns the accept key for its answer.
///
/// # Errors
///
/// 405 for another method than GET; 426 if it isn't an upgrade to WebSocket or to another version; 400 if it is malformed.
pub fn check(request: &Request<'_>) -> Result<[u8; 28], Refusal> {
    if request.method != "GET" {
        return Err(Refusal::new(405, "WebSocket begins with a GET request.").with(&[("Allow", "GET, OPTIONS")]));
    }
    if !request.is_upgrade() {
        return Err(Refusal::new(426, "This address is for WebSocket: the Upgrade header has to name it.")
            .with(UPGRADE_REQUIRED));
    }
    if !request.is_http11 {
        return Err(Refusal::new(400, "WebSocket begins with HTTP/1.1."));
    }
    if !request.has_token("Connection", "upgrade") {
        return Err(Refusal::new(400, "The Connection header has to name upgrade."));
    }
    if only(request, "Sec-WebSocket-Version") != Some(VERSION) {
        return Err(Refusal::new(426, "The version of WebSocket spoken here is 13.").with(UPGRADE_REQUIRED));
    }
    match only(request, "Sec-WebSocket-Key") {
        Some(key) if is_key(key) => Ok(accept_key(key)),
        Some(_) => Err(Refusal::new(400, "The Sec-WebSocket-Key has to be 16 bytes in base64.")),
        None => Err(Refusal::new(400, "There has to be one Sec-WebSocket-Key header.")),
    }
}

/// The subprotocols that a client offers, most wanted first. Their names are case-sensitive.
pub fn offered<'b>(request: &Request<'b>) -> impl Iterator<Item = &'b str> {
    request.list("Sec-WebSocket-Protocol")
}

/// What can be agreed on of the extensions that a client offers; nothing, if there is nothing.
///
/// # Errors
///
/// 400 if what it offers is no list of extensions.
pub fn agree(request: &Request<'_>) -> Result<Option<Agreed>, Refusal> {
    extension::agree(request.headers("Sec-WebSocket-Extensions"))
        .map_err(|malformed| Refusal::new(400, format!("The handshake is malformed: {malformed}.")))
}

/// Appends the 101 answer, after which frames begin.
pub fn push_accepted(out: &mut Vec<u8>, accept: &[u8; 28], subprotocol: Option<&str>, deflate: Option<&Agreed>) {
    push_status_line(out, 101);
    push_header(out, "Upgrade", "websocket");
    push_header(out, "Connection", "Upgrade");
    push_header(out, "Sec-WebSocket-Accept", str::from_utf8(accept).unwrap_or_default());
    if let Some(subprotocol) = subprotocol {
        push_header(out, "Sec-WebSocket-Protocol", subprotocol);
    }
    if let Some(agreed) = deflate {
        push_header(out, "Sec-WebSocket-Extensions", &agreed.answer());
    }
    out.extend_from_slice(b"\r\n");
}

/// The value of a header that must come exactly once.
fn only<'b>(request: &Request<'b>, name: &str) -> Option<&'b str> {
    let mut values = request.headers(name);
    values.next().filter(|_| values.next().is_none())
}

fn is_key(key: &str) -> bool {
    // 16 bytes are 24 characters, which decode into at most 18 bytes: what is longer is told apart.
    key.len() == 24 && KEY.decode_slice(key, &mut [0; 18]) == Ok(16)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        io::{self, Read, Write},
    };

    use tungstenite::client::IntoClientRequest;

    use super::*;
    use crate::{
        http::head::parse,
        websocket::{
            client::{NotUpgraded, check_response, client_key, push_request},
            frame::push_text,
        },
    };

    const SUBPROTOCOL: &str = "stentor.v1.json";

    const GOOD: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: h2c, WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
                        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn with<T>(head: &str, judge: impl FnOnce(&Request<'_>) -> T) -> T {
        let (request, _) = parse(head.as_bytes(), 8192).unwrap().unwrap();
        judge(&request)
    }

    /// The status that answers the good request with one thing replaced.
    fn status(from: &str, to: &str) -> u16 {
        assert!(GOOD.contains(from));
        with(&GOOD.replace(from, to), check).unwrap_err().status
    }

    #[test]
    fn the_accept_key_is_that_of_rfc_6455_section_1_3() {
        assert_eq!(with(GOOD, check).unwrap(), *b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn the_key_of_rfc_6455_section_4_1_is_one_and_so_is_any_with_bits_that_stand_for_nothing() {
        for key in ["AQIDBAUGBwgJCgsMDQ4PEC==", "AAAAAAAAAAAAAAAAAAAAAB==", "////////////////////////"] {
            let head = GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", key);
            let taken = with(&head, |request| check(request).map_err(|refusal| refusal.status));
            assert_eq!(taken, if key.ends_with('=') { Ok(accept_key(key)) } else { Err(400) }, "{key}");
        }
    }

    #[test]
    fn each_thing_missing_or_wrong_has_its_status() {
        assert_eq!(status("GET", "POST"), 405);
        assert_eq!(status("HTTP/1.1", "HTTP/1.0"), 400);
        assert_eq!(status("h2c, WebSocket", "h2c"), 426);
        assert_eq!(status("keep-alive, Upgrade", "keep-alive"), 400);
        assert_eq!(status("Version: 13", "Version: 8"), 426);
        assert_eq!(status("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 8"), 426);
        assert_eq!(status("Sec-WebSocket-Version: 13\r\n", ""), 426);
        assert_eq!(status("Sec-WebSocket-Key", "X-Key"), 400);
        assert_eq!(status("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="[4..].into()), 400);
        assert_eq!(status("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZTE="), 400, "17 bytes");
        assert_eq!(status("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZTEx"), 400, "18 bytes");
        assert_eq!(status("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j?Q=="), 400, "no base64");
        assert_eq!(status("\r\n\r\n", "\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"), 400, "two keys");
    }

    #[test]
    fn another_version_is_told_which_is_spoken() {
        let refusal = with(&GOOD.replace("13", "8"), check).unwrap_err();
        let mut answer = Vec::new();
        refusal.response().write(&mut answer, false);
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{answer}");
        assert!(answer.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{answer}");
    }

    #[test]
    fn subprotocols_are_offered_in_one_header_or_several() {
        let offers = |lines: &str| {
            let head = GOOD.replace("\r\n\r\n", &format!("\r\n{lines}\r\n\r\n"));
            with(&head, |request| offered(request).map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(offers("Sec-WebSocket-Protocol: mqtt, stentor.v1.json"), ["mqtt", SUBPROTOCOL]);
        assert_eq!(offers("Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Protocol: Other"), ["mqtt", "Other"]);
        assert!(offers("X-Other: 1").is_empty());
    }

    #[test]
    fn client_and_server_agree() {
        let (key, mut request) = (client_key([7; 16]), Vec::new());
        push_request(&mut request, "localhost:9001", "/ws?topics=a", &key, &[("Sec-WebSocket-Protocol", SUBPROTOCOL)]);
        let (parsed, len) = parse(&request, 8192).unwrap().unwrap();
        assert_eq!((len, parsed.path()), (request.len(), "/ws"));

        let mut answer = Vec::new();
        push_accepted(&mut answer, &check(&parsed).unwrap(), offered(&parsed).next(), None);
        let head = answer.len();
        answer.extend_from_slice(b"\x81\x00");
        assert_eq!(check_response(&answer[..head - 1], &key), Ok(None));
        assert_eq!(check_response(&answer, &key), Ok(Some(head)));
        assert_eq!(check_response(&answer, &client_key([8; 16])), Err(NotUpgraded::Mismatch));
        assert_eq!(check_response(b"HTTP/1.1 503 Full\r\n\r\n", &key), Err(NotUpgraded::Status(503)));
        assert_eq!(check_response(b"\x15\x03\x03", &key), Err(NotUpgraded::Malformed));
    }

    /// A connection to ourselves: answers whatever was written as this server does.
    #[derive(Default)]
    struct Loopback {
        request: Vec<u8>,
        answer: VecDeque<u8>,
    }

    impl Write for Loopback {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.request.extend_from_slice(bytes);
            if let Some((request, _)) = parse(&self.request, 8192).map_err(io::Error::other)? {
                let accept = check(&request).map_err(io::Error::other)?;
                let mut answer = Vec::new();
                push_accepted(&mut answer, &accept, offered(&request).next(), None);
                push_text(&mut answer, "welcome");
                self.answer.extend(answer);
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Read for Loopback {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.answer.read(out)
        }
    }

    #[test]
    fn tungstenite_as_client_is_accepted_and_accepts_the_answer() {
        let mut request = "ws://localhost:9001/ws?topics=a".into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", SUBPROTOCOL.parse().unwrap());
        let (mut socket, answer) = tungstenite::client(request, Loopback::default()).unwrap();
        assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], SUBPROTOCOL);
        assert_eq!(socket.read().unwrap().to_text().unwrap(), "welcome");
    }
}
