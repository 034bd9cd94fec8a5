//! Publishing by HTTP: one POST for each publication, over a connection that is kept.
//!
//! The next request on a connection goes out when the one before is answered, as clients do it that don't pipeline, so a topic's
//! publications keep their order. What waits for an answer waits for the server. An answer that is no 2xx is remarked on; what it
//! should have published is then missing. Enough of HTTP/1.1 (RFC 9112) for answers: their status, and where they end.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::dialect::Dialect;

/// The longest answer that is waited for.
const ANSWER_MAX: usize = 1 << 20;

/// What an answer amounts to so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not all of it is there.
    Incomplete,
    /// It is so many bytes long. With its status, where that isn't 2xx; none for an interim one, behind which the answer is still to come.
    Whole(usize, Verdict),
    /// It is no answer that can be read.
    Wrong(&'static str),
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The publication was taken.
    Taken,
    /// It was not, for this reason.
    Refused(String),
    /// Nothing yet.
    Interim,
}

/// Appends the request that publishes `body` on a topic.
pub fn request(dialect: &Dialect, topic: usize, body: &[u8], out: &mut Vec<u8>) {
    let (host, mut path) = (&dialect.publish_url().host, dialect.publish_path(topic));
    if let Some(sign) = dialect.sign() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        path += &sign.query(&path, body, now);
    }
    let mut head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n", body.len());
    let typed = |line: &String| line.get(..13).is_some_and(|name| name.eq_ignore_ascii_case("content-type:"));
    if !dialect.headers().iter().any(typed) {
        head += &format!("Content-Type: {}\r\n", dialect.content_type());
    }
    for line in dialect.headers() {
        head += &format!("{line}\r\n");
    }
    head += "\r\n";
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body);
}

/// Judges the answer at the start of `bytes`.
pub fn judge(bytes: &[u8]) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() < ANSWER_MAX => return Answer::Incomplete,
        Ok(httparse::Status::Partial) => return Answer::Wrong("its answer has no end"),
        Err(_) => return Answer::Wrong("what it answered is no HTTP"),
    };
    let code = response.code.unwrap_or(0);
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).trim().to_ascii_lowercase())
    };
    let end = match (header("transfer-encoding"), header("content-length")) {
        _ if (100..200).contains(&code) || code == 204 || code == 304 => Some(head),
        (Some(coding), _) if coding == "chunked" => match chunks(&bytes[head..]) {
            Ok(end) => end.map(|end| head + end),
            Err(why) => return Answer::Wrong(why),
        },
        (None, Some(length)) => match length.parse::<usize>() {
            Ok(length) if length <= ANSWER_MAX => (bytes.len() >= head + length).then_some(head + length),
            _ => return Answer::Wrong("its answer's Content-Length is no length, or above 1 MiB"),
        },
        _ => return Answer::Wrong("its answer doesn't say how long it is, so the connection can't be kept"),
    };
    let Some(end) = end else {
        return if bytes.len() < 2 * ANSWER_MAX { Answer::Incomplete } else { Answer::Wrong("its answer has no end") };
    };
    let verdict = match code {
        100..200 => Verdict::Interim,
        200..300 => Verdict::Taken,
        _ => {
            let said: String = String::from_utf8_lossy(&bytes[head..end]).chars().take(80).collect();
            let text = format!("{code} {} {}", response.reason.unwrap_or(""), said.trim());
            Verdict::Refused(text.trim_end().to_owned())
        }
    };
    Answer::Whole(end, verdict)
}

/// Where a chunked body ends; none where not all of it is there.
fn chunks(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let mut at = 0;
    loop {
        match httparse::parse_chunk_size(&bytes[at..]) {
            Ok(httparse::Status::Complete((head, 0))) => {
                // Trailers would stand here; the empty line behind them is the end.
                let rest = &bytes[at + head..];
                if rest.starts_with(b"\r\n") {
                    return Ok(Some(at + head + 2));
                }
                return Ok(memchr::memmem::find(rest, b"\r\n\r\n").map(|end| at + head + end + 4));
            }
            Ok(httparse::Status::Complete((head, size))) if size <= ANSWER_MAX as u64 => {
                at += head + size as usize + 2;
                if at > bytes.len() {
                    return Ok(None);
                }
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            _ => return Err("its answer's chunks are none, or too large"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> (usize, Verdict) {
        match judge(text.as_bytes()) {
            Answer::Whole(len, verdict) => (len, verdict),
            other => panic!("{other:?}: {text}"),
        }
    }

    #[test]
    fn an_answer_ends_where_it_says_however_it_says_so() {
        for answer in [
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
            "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-After: 1\r\n\r\n",
        ] {
            let two = format!("{answer}HTTP/1.1 200");
            assert_eq!(whole(&two), (answer.len(), Verdict::Taken), "{answer}");
            for cut in 0..answer.len() {
                assert_eq!(judge(&answer.as_bytes()[..cut]), Answer::Incomplete, "{cut} of {answer}");
            }
        }
    }

    #[test]
    fn what_was_refused_says_why_and_what_is_interim_is_no_answer() {
        let (_, refused) = whole("HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nno entry");
        assert_eq!(refused, Verdict::Refused("403 Forbidden no entry".into()));
        assert_eq!(whole("HTTP/1.1 100 Continue\r\n\r\nHTTP").1, Verdict::Interim);
    }

    #[test]
    fn what_can_not_be_read_is_wrong() {
        for answer in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        ] {
            assert!(matches!(judge(answer.as_bytes()), Answer::Wrong(_)), "{answer}: {:?}", judge(answer.as_bytes()));
        }
    }
}
