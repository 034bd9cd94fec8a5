//! The client's side of the handshake and of a frame. The server needs none of it; tests, benches and fuzz targets do.

use base64::{Engine, engine::general_purpose::STANDARD};
use httparse::{EMPTY_HEADER, Status};
use thiserror::Error;

use super::{
    frame::{Header, Opcode},
    handshake::{VERSION, accept_key},
    mask::unmask,
};
use crate::http::{head::HEADERS_MAX, response::push_header};

/// 16 random bytes as the value of `Sec-WebSocket-Key`.
pub fn client_key(random: [u8; 16]) -> String {
    STANDARD.encode(random)
}

/// Appends the request for an upgrade. `target` is a path with or without a query, `key` comes from
/// [`client_key`], `headers` are what else is to be said.
pub fn push_request(out: &mut Vec<u8>, host: &str, target: &str, key: &str, headers: &[(&str, &str)]) {
    out.extend_from_slice(b"GET ");
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    push_header(out, "Host", host);
    push_header(out, "Upgrade", "websocket");
    push_header(out, "Connection", "Upgrade");
    push_header(out, "Sec-WebSocket-Version", VERSION);
    push_header(out, "Sec-WebSocket-Key", key);
    for (name, value) in headers {
        push_header(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

/// Why a client didn't get its WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotUpgraded {
    /// The answer is not HTTP.
    #[error("the answer to the handshake is not HTTP")]
    Malformed,
    /// The server answers with another status than 101.
    #[error("the answer to the handshake has the status {0}, not 101")]
    Status(u16),
    /// The answer doesn't name the upgrade, or not the accept key that belongs to the key sent.
    #[error("the answer to the handshake doesn't match the request")]
    Mismatch,
}

/// Reads the answer at the start of `buffer` and says how many bytes its head has, after which frames
/// begin; `None` while more are needed.
///
/// # Errors
///
/// The server didn't upgrade the connection.
pub fn check_response(buffer: &[u8], key: &str) -> Result<Option<usize>, NotUpgraded> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let Status::Complete(len) = response.parse(buffer).map_err(|_| NotUpgraded::Malformed)? else { return Ok(None) };
    match response.code {
        Some(101) => {}
        Some(code) => return Err(NotUpgraded::Status(code)),
        None => return Err(NotUpgraded::Malformed),
    }
    let value = |name: &str| {
        response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map_or(&[][..], |h| h.value)
    };
    let is_ours = value("Upgrade").eq_ignore_ascii_case(b"websocket")
        && value("Connection").eq_ignore_ascii_case(b"upgrade")
        && value("Sec-WebSocket-Accept") == accept_key(key);
    if is_ours { Ok(Some(len)) } else { Err(NotUpgraded::Mismatch) }
}

/// Appends a whole frame as a client sends it, masked with `key`.
pub fn push_masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
    Header { fin: true, deflated: false, opcode, key: Some(key), payload_len: payload.len() as u64 }.push(out);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], key, 0);
}
