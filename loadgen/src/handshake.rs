//! The opening handshake (RFC 6455, section 4.1), seen from the client.
//!
//! Bytes in, a verdict out. Whatever the other end answers, the outcome is one plain sentence: that it speaks no HTTP,
//! that it refused and how, or that its acceptance is not one.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

use crate::inflate;

/// What the server's answer amounts to so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not all of it is there.
    Incomplete,
    /// The connection is a WebSocket; frames begin after so many bytes.
    Accepted(usize),
    /// It is not going to be one, for this reason.
    Refused(String),
}

/// The longest answer that is waited for.
const HEAD_MAX: usize = 16 * 1024;

/// Appends a request for `path` to `out`; returns the key that it carries.
pub fn request(host: &str, path: &str, headers: &[String], out: &mut Vec<u8>) -> [u8; 16] {
    let key: [u8; 16] = fastrand::u128(..).to_ne_bytes();
    let text = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n",
        STANDARD.encode(key)
    );
    out.extend_from_slice(text.as_bytes());
    for header in headers {
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    key
}

/// Judges the answer to a request that carried `key`.
pub fn judge(bytes: &[u8], key: &[u8; 16]) -> Answer {
    judge_with(bytes, key, None)
}

/// The same, where compression was offered, or not.
pub fn judge_with(bytes: &[u8], key: &[u8; 16], offer: Option<inflate::Offer>) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => match refusal(&response, bytes, len, (key, offer)) {
            Some(why) => Answer::Refused(why),
            None => Answer::Accepted(len),
        },
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => Answer::Incomplete,
        Ok(httparse::Status::Partial) => Answer::Refused("its answer has no end".into()),
        // An alert, which is what TLS has to say to who doesn't speak it (RFC 8446, section 6).
        Err(_) if bytes.starts_with(&[21, 3]) => Answer::Refused("it speaks TLS there: write wss://".into()),
        Err(_) => Answer::Refused(format!("it speaks no HTTP, let alone WebSocket: it answered {}", quote(bytes))),
    }
}

fn refusal(
    response: &httparse::Response<'_, '_>,
    bytes: &[u8],
    len: usize,
    (key, offer): (&[u8; 16], Option<inflate::Offer>),
) -> Option<String> {
    let code = response.code.unwrap_or(0);
    if code != 101 {
        let reason = response.reason.unwrap_or("");
        let body = &bytes[len..];
        let said = if body.is_empty() { String::new() } else { format!(" and said {}", quote(body)) };
        return Some(format!("it refused the handshake with {code} {reason}{said}"));
    }
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
    };
    match header("Sec-WebSocket-Accept") {
        None => Some("it answered 101 without Sec-WebSocket-Accept: it speaks no WebSocket".into()),
        Some(accept) if accept != expected_accept(key) => {
            Some(format!("its Sec-WebSocket-Accept `{accept}` does not match the key"))
        }
        Some(_) => match (header("Sec-WebSocket-Extensions"), offer) {
            (answer, Some(offer)) => inflate::refusal(answer.as_deref(), offer),
            (Some(_), None) => Some("it turned on an extension that was not offered".into()),
            (None, None) => None,
        },
    }
}

/// RFC 6455, section 4.2.2, step 5.4.
fn expected_accept(key: &[u8; 16]) -> String {
    let mut sha = Sha1::new();
    sha.update(STANDARD.encode(key));
    sha.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(sha.finalize())
}

/// The beginning of some bytes, fit for a message.
pub fn quote(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]);
    format!("`{}`", text.trim_end().escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &str, key: &[u8; 16]) -> Answer {
        judge(format!("HTTP/1.1 101 Switching Protocols\r\n{headers}\r\n").as_bytes(), key)
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let key: [u8; 16] = STANDARD.decode("dGhlIHNhbXBsZSBub25jZQ==").unwrap().try_into().unwrap();
        let accepted = answer("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", &key);
        assert!(matches!(accepted, Answer::Accepted(_)), "{accepted:?}");
    }

    #[test]
    fn each_refusal_is_a_sentence_of_its_own() {
        let key = [7; 16];
        let refused = |answer| match answer {
            Answer::Refused(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(refused(judge(b"SSH-2.0-OpenSSH_9\r\n", &key)).contains("speaks no HTTP"));
        assert_eq!(refused(judge(&[21, 3, 3, 0, 2, 2, 10], &key)), "it speaks TLS there: write wss://");
        let busy = refused(judge(b"HTTP/1.1 503 Busy\r\n\r\nfull", &key));
        assert!(busy.contains("503 Busy") && busy.contains("`full`"), "{busy}");
        assert!(refused(answer("", &key)).contains("without Sec-WebSocket-Accept"));
        assert!(refused(answer("Sec-WebSocket-Accept: x\r\n", &key)).contains("does not match"));
        let extended = format!("Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Extensions: x\r\n", expected_accept(&key));
        assert!(refused(answer(&extended, &key)).contains("extension"));
        assert!(refused(judge(&[b"HTTP/1.1 101 ", &[b'x'; HEAD_MAX][..]].concat(), &key)).contains("no end"));
    }

    #[test]
    fn an_answer_is_waited_for_to_its_last_byte() {
        let whole = b"HTTP/1.1 400 Bad Request\r\nA: b\r\n\r\n";
        for cut in 0..whole.len() {
            assert_eq!(judge(&whole[..cut], &[0; 16]), Answer::Incomplete, "cut at {cut}");
        }
    }

    #[test]
    fn a_request_carries_the_extra_headers_and_a_new_key() {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let headers = ["Authorization: Bearer x".to_owned()];
        assert_ne!(request("h", "/p", &headers, &mut a), request("h", "/p", &headers, &mut b));
        let text = String::from_utf8(a).unwrap();
        assert!(text.starts_with("GET /p HTTP/1.1\r\nHost: h\r\n") && text.ends_with("Bearer x\r\n\r\n"), "{text}");
    }
}
