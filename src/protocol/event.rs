//! Server-Sent Events: the same messages for clients that speak nothing but HTTP.
//!
//! One message is one event, `data:` and the JSON of the WebSocket protocol, ended by an empty line. What says how far everything was
//! told has that as its id, from which a browser resumes by itself (HTML Standard, "Server-sent events", section 9.2.5). A payload may have line ends
//! where JSON allows white space; they divide the data into lines, which the client joins again with line feeds.

/// Appends one event without an id, which leaves the client's as it is; `write` appends its JSON.
pub fn push_event(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"data: ");
    let start = out.len();
    write(out);
    if memchr::memchr2(b'\n', b'\r', &out[start..]).is_some() {
        // Only a payload in it has line ends.
        let json = out.split_off(start);
        push_lines(out, &json);
    }
    out.extend_from_slice(b"\n\n");
}

/// Appends text that has line ends so that each of its lines is data; text that has none is fit as it is, and of it nothing is
/// appended.
pub fn push_lines(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
        out.extend_from_slice(&rest[..end]);
        out.extend_from_slice(b"\ndata: ");
        // A carriage return and a line feed are one line end.
        let both = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(both)..];
    }
    if rest.len() < text.len() {
        out.extend_from_slice(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> String {
        let mut out = b"before".to_vec();
        push_event(&mut out, |out| out.extend_from_slice(json.as_bytes()));
        String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned()
    }

    #[test]
    fn a_message_is_one_event() {
        assert_eq!(event("{}"), "data: {}\n\n");
    }

    #[test]
    fn line_ends_within_a_payload_divide_the_data_and_nothing_else() {
        assert_eq!(event("{\n1\r\n2\r3}"), "data: {\ndata: 1\ndata: 2\ndata: 3}\n\n");
        assert_eq!(event("1\n"), "data: 1\ndata: \n\n");
    }
}
