//! Stentor's long polling: the messages of its JSON protocol, in the answers to requests that follow one another on a connection.
//!
//! An answer is asked for with the cursor of the one before it, so what a subscriber is told is one stream all the same, and is judged as
//! one. It is set up when the first answer says that all last values are there.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Dialect, Heard, stentor};
use crate::target::Url;

/// The longest head of an answer that is waited for.
const HEAD_MAX: usize = 16 * 1024;

/// What the bytes at hand begin with.
#[derive(Debug)]
pub enum Taken<'a> {
    /// The beginning of an answer, which has so many bytes, as far as known.
    Partial(usize),
    /// A whole one of so many bytes.
    Answer {
        /// Its bytes.
        len: usize,
        /// Where the next one goes on.
        cursor: &'a str,
        /// What it tells.
        messages: Vec<&'a RawValue>,
    },
    /// No answer that goes on.
    Wrong(String),
}

#[derive(Deserialize)]
struct Told<'a> {
    cursor: &'a str,
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

/// Fills in the path where the address names none.
pub fn complete(url: &mut Url) {
    if url.path == "/" {
        url.path = "/poll".into();
    }
}

/// Appends the request for what has come on `topics` since `cursor`.
pub fn push_request(dialect: &Dialect, topics: &[usize], cursor: Option<&str>, out: &mut Vec<u8>) {
    let Url { host, path, .. } = &dialect.subscribe_url;
    let (names, mode) = (dialect.names(topics).join(","), if dialect.settings.latest { "&mode=latest" } else { "" });
    let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    let names = names.replace('>', "%3E");
    let mut request = format!("GET {path}?topics={names}{mode}{cursor} HTTP/1.1\r\nHost: {host}\r\n");
    for header in dialect.headers() {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    out.extend_from_slice(request.as_bytes());
}

/// Takes the next answer.
pub fn take(bytes: &[u8]) -> Taken<'_> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Taken::Partial(0),
        Ok(httparse::Status::Partial) => return Taken::Wrong("its answer has no end".into()),
        Err(error) => return Taken::Wrong(format!("its answer is no HTTP: {error}")),
    };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("Content-Length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    let Some(length) = length else { return Taken::Wrong("its answer has no length".into()) };
    let len = head.saturating_add(length);
    let Some(body) = bytes.get(head..len) else { return Taken::Partial(len) };
    if response.code != Some(200) {
        let said = String::from_utf8_lossy(body);
        return Taken::Wrong(format!("it answered {}: {}", response.code.unwrap_or(0), said.trim_end()));
    }
    match serde_json::from_slice(body) {
        Ok(Told { cursor, messages }) => Taken::Answer { len, cursor, messages },
        Err(error) => Taken::Wrong(format!("its answer is not what a poll is answered with: {error}")),
    }
}

/// What a message without a stamp of this run means.
pub fn hear(dialect: &Dialect, message: &[u8]) -> Heard {
    if message == br#"{"type":"status","code":"current"}"# {
        return Heard::Subscribed(Vec::new());
    }
    stentor::hear(dialect, message)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Protocol, Settings, tests::dialect},
        *,
    };

    fn answer(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn a_request_names_its_topics_and_where_it_goes_on() {
        let settings = Settings { latest: true, ..Settings::default() };
        let dialect = dialect(Protocol::Poll, settings);
        let mut out = Vec::new();
        push_request(&dialect, &[1, 0], Some("C"), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "GET /poll?topics=b,a&mode=latest&cursor=C HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n\r\n"
        );
        assert_eq!(dialect.publish_url().path, "/ws");
    }

    #[test]
    fn answers_are_taken_apart_one_after_the_other_and_wherever_they_break() {
        let first = answer("200 OK", r#"{"cursor":"A","messages":[{"type":"update","data":1},{"type":"status"}]}"#);
        let both = [&first[..], &answer("200 OK", r#"{"cursor":"B","messages":[]}"#)].concat();
        for end in 0..first.len() {
            assert!(matches!(take(&both[..end]), Taken::Partial(_)), "{end}");
        }
        let Taken::Answer { len, cursor, messages } = take(&both) else { panic!() };
        assert_eq!((len, cursor, messages.len()), (first.len(), "A", 2));
        assert_eq!(messages[0].get(), r#"{"type":"update","data":1}"#);
        assert!(matches!(take(&both[len..]), Taken::Answer { cursor: "B", .. }));
    }

    #[test]
    fn what_is_no_answer_is_said_in_a_sentence() {
        for (bytes, said) in [
            (answer("503 Service Unavailable", "Full.\n"), "it answered 503: Full."),
            (answer("200 OK", "{}"), "is not what a poll is answered with"),
            (b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), "no length"),
            (b"\x81\x02{}".to_vec(), "no HTTP"),
        ] {
            let Taken::Wrong(why) = take(&bytes) else { panic!("{said}") };
            assert!(why.contains(said), "{why}");
        }
    }

    #[test]
    fn a_poller_is_there_when_all_values_are() {
        let dialect = dialect(Protocol::Poll, Settings::default());
        assert_eq!(dialect.hear(br#"{"type":"status","code":"current"}"#), Heard::Subscribed(vec![]));
        assert_eq!(dialect.hear(br#"{"type":"snapshot","topic":"b","seq":4,"data":1}"#), Heard::Snapshot(1));
    }
}
