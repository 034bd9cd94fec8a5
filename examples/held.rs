//! How old is the newest value that a slow reader holds?
//!
//! ```text
//! cargo run --release --example held -- 127.0.0.1:9001 'topics=q.%3E&mode=latest' 440000 20
//! ```
//!
//! Subscribes, reads so many bytes a second for so many seconds, and prints how old what it holds was, looked at a hundred
//! times a second in the second half of the time, and how much it was told that was left out for it, and how much was too large for
//! anybody: then it holds an older value, and knows it.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant, SystemTime},
};

use tungstenite::Message;

/// A connection that gives out so many bytes a second.
struct Slow {
    stream: TcpStream,
    per_second: f64,
    begun: Instant,
    read: f64,
}

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let allowed = self.begun.elapsed().as_secs_f64() * self.per_second - self.read;
        if allowed < 200.0 {
            std::thread::sleep(Duration::from_millis(5));
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = buffer.len().min(allowed as usize);
        let n = self.stream.read(&mut buffer[..len])?;
        self.read += n as f64;
        Ok(n)
    }
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// What it was told.
#[derive(Debug, Default, PartialEq)]
struct Told {
    updates: u64,
    /// Publications that were left out for it.
    skipped: u64,
    /// Publications that the server could carry to nobody.
    too_large: u64,
    /// When the newest value that it holds was published, in microseconds since the Unix epoch.
    newest: Option<u64>,
}

impl Told {
    fn hear(&mut self, message: &serde_json::Value) {
        let number = |name: &str| message[name].as_u64().unwrap_or(0);
        match (message["type"].as_str(), message["why"].as_str()) {
            (Some("update"), _) => (self.updates, self.newest) = (self.updates + 1, message["ts"].as_u64()),
            (Some("skip"), Some("too_large")) => self.too_large += 1,
            (Some("skip"), _) => self.skipped += number("to") - number("from") + 1,
            _ => {}
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, query, per_second, seconds] = &args[..] else {
        eprintln!("usage: held ADDRESS QUERY BYTES-PER-SECOND SECONDS");
        std::process::exit(2);
    };
    let stream = TcpStream::connect(address).expect("the server is there");
    let length = Duration::from_secs_f64(seconds.parse().expect("SECONDS is a number"));
    let per_second = per_second.parse().expect("BYTES-PER-SECOND is a number");
    let (socket, _) = tungstenite::client(format!("ws://{address}/ws?{query}"), stream).expect("it upgrades");
    let stream = socket.get_ref().try_clone().expect("a descriptor");
    stream.set_read_timeout(Some(Duration::from_millis(5))).expect("it may");
    let slow = Slow { stream, per_second, begun: Instant::now(), read: 0.0 };
    let begun = slow.begun;
    let mut socket = tungstenite::WebSocket::from_raw_socket(slow, tungstenite::protocol::Role::Client, None);
    let (mut told, mut ages) = (Told::default(), Vec::new());
    while begun.elapsed() < length {
        match socket.read() {
            Ok(Message::Text(text)) => told.hear(&serde_json::from_str(&text).expect("JSON")),
            Ok(Message::Close(frame)) => panic!("closed: {frame:?}"),
            Ok(_) => {}
            Err(tungstenite::Error::Io(error))
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => panic!("{error}"),
        }
        let due = begun.elapsed().as_millis() / 10 > ages.len() as u128;
        if let Some(ts) = told.newest.filter(|_| due) {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_micros() as u64;
            ages.push(now.saturating_sub(ts) / 1000);
        }
    }
    let mut late = ages.split_off(ages.len() / 2);
    late.sort_unstable();
    let at = |share: f64| late.get((late.len() as f64 * share) as usize).or(late.last()).copied().unwrap_or(0);
    let (p50, p99, max) = (at(0.5), at(0.99), late.last().copied().unwrap_or(0));
    let Told { updates, skipped, too_large, .. } = told;
    println!(
        "{updates} updates, {skipped} left out for it, {too_large} too large for anybody; \
         age of what it holds: p50 {p50} ms, p99 {p99} ms, at most {max} ms"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_too_large_for_anybody_was_not_left_out_for_it() {
        let mut told = Told::default();
        for text in [
            r#"{"type":"update","topic":"a","seq":1,"ts":17,"data":1}"#,
            r#"{"type":"skip","topic":"a","from":2,"to":4,"why":"slow"}"#,
            r#"{"type":"skip","topic":"a","from":5,"to":5,"why":"too_large"}"#,
            r#"{"type":"skip","topic":"b","epoch":"k","from":9,"to":9,"why":"too_large"}"#,
        ] {
            told.hear(&serde_json::from_str(text).unwrap());
        }
        assert_eq!(told, Told { updates: 1, skipped: 3, too_large: 2, newest: Some(17) });
    }
}
