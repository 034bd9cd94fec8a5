//! Checks a replay with a thousand eyes: every subscriber's bytes are compared with every other's, and the one stream they
//! agree on with the recording itself, publication by publication.
//!
//! ```text
//! stentor --replay feed.ndjson.gz --speed 10 --replay-delay 5s &
//! witness ADDRESS FILE SUBSCRIBERS SERVER-PID [STALLED]
//! ```
//!
//! All subscribe to `>`. STALLED more subscribe and never read. Prints what was delivered, the server's CPU time for each
//! delivery and its resident memory, and how busy each side was; exits with 1 if a byte is missing or wrong. A line that is larger than
//! the server's --max-replay-message, or a gap, has to be told in its place by a `skip`.

use std::{
    collections::HashMap,
    error::Error,
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    time::{Duration, Instant},
};

use flate2::read::MultiGzDecoder;
use rustix::{
    event::{Timespec, epoll},
    net::{AddressFamily, SocketType},
};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// How often the processes are looked at: the last look comes at most this much before the last byte.
const SURVEY_EVERY: Duration = Duration::from_millis(100);

/// How often a sign of life is sent, so that no ping comes between the publications.
const BEAT_EVERY: Duration = Duration::from_secs(10);

/// A pong that answers no ping is allowed (RFC 6455, section 5.5.3). Masked with zeroes.
const UNASKED_PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Connections from one source address: beyond some 5,000 the search for a free port becomes slow.
const PER_ADDRESS: usize = 5000;

/// Without a byte for so long after the first, the replay is over.
const QUIET: Duration = Duration::from_secs(4);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, file, subscribers, pid, rest @ ..] = &args[..] else {
        return Err("usage: witness ADDRESS FILE SUBSCRIBERS SERVER-PID [STALLED]".into());
    };
    let (address, subscribers): (SocketAddrV4, usize) = (address.parse()?, subscribers.parse()?);
    let stalled: usize = rest.first().map_or(Ok(0), |n| n.parse())?;

    let subscribe = |n: usize| connect(address, n);
    let mut witnesses = (0..subscribers).map(subscribe).collect::<Result<Vec<_>>>()?;
    let _silent = (subscribers..subscribers + stalled).map(subscribe).collect::<Result<Vec<_>>>()?;
    println!(
        "{subscribers} subscribers and {stalled} that never read are there; server RSS {} KiB",
        resident(pid)? / 1024
    );

    let watched = watch(&mut witnesses, pid)?;
    let complete = watched.received.iter().all(|received| *received == watched.stream.len());
    let Compared { publications, too_large } = compare(open(file)?, &watched.stream)?;
    let deliveries = publications as u64 * subscribers as u64;
    let seconds = watched.took.as_secs_f64();
    println!("publications         {publications}, each the recording's, byte for byte and in order");
    println!(
        "too large            {too_large} of them, of which every subscriber was told the number and nothing else"
    );
    println!("complete             {complete}: {subscribers} equal streams of {} bytes", watched.stream.len());
    println!("deliveries           {deliveries}, {:.0}/s over {seconds:.1} s", deliveries as f64 / seconds);
    println!("server CPU           {:.1} ns a delivery", watched.server_ns as f64 / deliveries as f64);
    println!("busy                 server {:.2} cores, witness {:.2}", watched.server_share(), watched.own_share());
    println!("server RSS           {} KiB at most, {} KiB at the end", watched.rss_max / 1024, resident(pid)? / 1024);
    if complete { Ok(()) } else { Err("some subscribers did not receive everything".into()) }
}

/// Connects from one of several addresses, subscribes to everything, and reads up to the acknowledgement.
fn connect(address: SocketAddrV4, n: usize) -> Result<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    let from = Ipv4Addr::new(127, 0, 0, 1 + u8::try_from(n / PER_ADDRESS)?);
    rustix::net::bind(&socket, &SocketAddr::from((from, 0)))?;
    rustix::net::connect(&socket, &address)?;
    let mut stream = TcpStream::from(socket);
    write!(
        stream,
        "GET /ws?topics=%3E HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )?;
    let mut seen = Vec::new();
    while !(seen.ends_with(b"}]}") && seen.windows(12).any(|w| w == b"\"type\":\"ack\"")) {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        seen.push(byte[0]);
    }
    stream.set_nonblocking(true)?;
    Ok(stream)
}

struct Watched {
    /// What was received, by whoever was first.
    stream: Vec<u8>,
    received: Vec<usize>,
    took: Duration,
    server_ns: u64,
    own_ns: u64,
    rss_max: u64,
}

impl Watched {
    fn server_share(&self) -> f64 {
        self.server_ns as f64 / self.took.as_nanos() as f64
    }

    fn own_share(&self) -> f64 {
        self.own_ns as f64 / self.took.as_nanos() as f64
    }
}

/// Receives until nothing comes any more, comparing each subscriber's bytes with what others received at the same place.
fn watch(witnesses: &mut [TcpStream], pid: &str) -> Result<Watched> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (n, stream) in witnesses.iter().enumerate() {
        epoll::add(&set, stream, epoll::EventData::new_u64(n as u64), epoll::EventFlags::IN)?;
    }
    let mut watched = Watched {
        stream: Vec::new(),
        received: vec![0; witnesses.len()],
        took: Duration::ZERO,
        server_ns: 0,
        own_ns: 0,
        rss_max: 0,
    };
    let mut buffer = vec![0; 1 << 18];
    let (mut begun, mut last) = (None, Instant::now());
    let (mut before, mut surveyed, mut beaten) = ((0, 0), Instant::now(), Instant::now());
    loop {
        let mut events = [const { MaybeUninit::uninit() }; 256];
        let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
        let (events, _) = epoll::wait(&set, &mut events, Some(&patience))?;
        if begun.is_none() && !events.is_empty() {
            begun = Some(Instant::now());
            before = (cpu(pid)?, cpu("self")?);
        }
        if beaten.elapsed() > BEAT_EVERY {
            beaten = Instant::now();
            for stream in witnesses.iter_mut() {
                stream.write_all(&UNASKED_PONG)?;
            }
        }
        if events.is_empty() && begun.is_some() && last.elapsed() > QUIET {
            break;
        }
        for event in events.iter() {
            let n = event.data.u64() as usize;
            let len = match witnesses[n].read(&mut buffer) {
                Ok(0) => return Err(format!("subscriber {n} was disconnected").into()),
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            let (at, chunk) = (watched.received[n], &buffer[..len]);
            let known = watched.stream[at..].len().min(len);
            if watched.stream[at..at + known] != chunk[..known] {
                let same = chunk.iter().zip(&watched.stream[at..]).take_while(|(a, b)| a == b).count();
                let shown = String::from_utf8_lossy(&chunk[same..chunk.len().min(same + 200)]).into_owned();
                return Err(
                    format!("subscriber {n} received other bytes than another at byte {}: {shown}", at + same).into()
                );
            }
            watched.stream.extend_from_slice(&chunk[known..]);
            watched.received[n] += len;
        }
        if !events.is_empty() {
            last = Instant::now();
        }
        if surveyed.elapsed() > SURVEY_EVERY && !events.is_empty() {
            surveyed = last;
            watched.rss_max = watched.rss_max.max(resident(pid)?);
            watched.server_ns = cpu(pid)? - before.0;
            watched.own_ns = cpu("self")? - before.1;
            watched.took = begun.map_or(Duration::ZERO, |begun| last - begun);
        }
    }
    Ok(watched)
}

fn open(file: &str) -> Result<Box<dyn BufRead>> {
    let opened = fs::File::open(file)?;
    Ok(if file.ends_with(".gz") {
        Box::new(BufReader::new(MultiGzDecoder::new(opened)))
    } else {
        Box::new(BufReader::new(opened))
    })
}

/// What the stream has of the recording.
#[derive(Debug, PartialEq)]
struct Compared {
    publications: usize,
    /// Those that the server could carry to nobody.
    too_large: usize,
}

/// A line of the recording; what it publishes is one of the fields behind the topic, and a gap has none.
#[derive(serde::Deserialize)]
struct Line<'l> {
    topic: &'l str,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'l RawValue>,
    text: Option<String>,
    base64: Option<String>,
}

/// A field that is there has a value, be it `null`.
fn present<'d, D: Deserializer<'d>>(value: D) -> std::result::Result<Option<&'d RawValue>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

/// What came for it.
#[derive(serde::Deserialize)]
struct Message<'m> {
    r#type: &'m str,
    topic: &'m str,
    seq: Option<u64>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'m RawValue>,
    base64: Option<&'m str>,
    from: Option<u64>,
    to: Option<u64>,
    why: Option<&'m str>,
}

impl Message<'_> {
    /// Its number in the topic, if it stands for the line; and whether that was too large to be sent.
    fn stands_for(&self, line: &Line<'_>) -> Option<(u64, bool)> {
        let data = self.data.map(RawValue::get);
        let is_it = match (line.data, &line.text, line.base64.as_deref()) {
            (Some(line), ..) => data == Some(line.get()),
            (_, Some(text), _) => {
                data.is_some_and(|data| serde_json::from_str(data).is_ok_and(|data: String| data == *text))
            }
            (.., base64) => base64.is_some() && self.base64 == base64,
        };
        match self.r#type {
            _ if self.topic != line.topic => None,
            "update" if is_it => Some((self.seq?, false)),
            "skip" if self.why == Some("too_large") && self.from == self.to => Some((self.from?, true)),
            _ => None,
        }
    }
}

/// Compares the messages in `stream` with the lines of the recording.
fn compare(recording: impl BufRead, stream: &[u8]) -> Result<Compared> {
    let (mut at, mut compared) = (0, Compared { publications: 0, too_large: 0 });
    let mut numbers: HashMap<String, u64> = HashMap::new();
    for line in recording.lines() {
        let line = line?;
        let line: Line = serde_json::from_str(&line)?;
        let (header, len) = match stream.get(at + 1).ok_or("the stream ends before the recording")? {
            126 => (4, usize::from(u16::from_be_bytes([stream[at + 2], stream[at + 3]]))),
            127 => (10, u64::from_be_bytes(stream[at + 2..at + 10].try_into()?) as usize),
            len => (2, usize::from(*len)),
        };
        let text = std::str::from_utf8(&stream[at + header..at + header + len])?;
        compared.publications += 1;
        let count = compared.publications;
        let message: Message = serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))?;
        let found = message.stands_for(&line).filter(|_| stream[at] == 0x81);
        let (number, is_too_large) =
            found.ok_or_else(|| format!("publication {count} differs from line {count}: {text}"))?;
        let before = numbers.insert(line.topic.to_owned(), number);
        if before.is_some_and(|before| before + 1 != number) {
            return Err(format!("publication {count} has a number that doesn't follow {before:?}: {text}").into());
        }
        compared.too_large += usize::from(is_too_large);
        at += header + len;
    }
    if at == stream.len() { Ok(compared) } else { Err("there is more in the stream than in the recording".into()) }
}

/// CPU time of all threads of a process, in nanoseconds (`/proc/PID/task/*/schedstat`).
fn cpu(pid: &str) -> Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split(' ').next().unwrap_or("0").parse::<u64>()?;
    }
    Ok(total)
}

/// Resident memory of a process, in bytes.
fn resident(pid: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    Ok(text.split(' ').nth(1).unwrap_or("0").parse::<u64>()? * 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(messages: &[&str]) -> Result<Compared> {
        let lines = [
            r#"{"topic":"a","data":{"px":1.50}}"#,
            r#"{"topic":"b","gap":{"from":7,"to":9}}"#,
            r#"{"topic":"a","text":"2"}"#,
            r#"{"topic":"a","base64":"\/wA="}"#,
            r#"{"topic":"a","data":null}"#,
        ];
        let framed = messages.iter().flat_map(|text| [&[0x81, text.len() as u8], text.as_bytes()].concat());
        compare(lines.join("\n").as_bytes(), &framed.collect::<Vec<u8>>())
    }

    const FIRST: &str = r#"{"type":"update","topic":"a","epoch":"k3","seq":1,"ts":7,"data":{"px":1.50}}"#;
    const TOO_LARGE: &str = r#"{"type":"skip","topic":"b","epoch":"k3","from":1,"to":1,"why":"too_large"}"#;
    const TEXT: &str = r#"{"type":"update","topic":"a","seq":2,"ts":8,"data":"2"}"#;
    const BYTES: &str = r#"{"type":"update","topic":"a","seq":3,"ts":9,"base64":"/wA="}"#;
    const LAST: &str = r#"{"type":"update","topic":"a","seq":4,"ts":9,"data":null}"#;

    #[test]
    fn what_was_too_large_is_told_in_its_place() {
        let found = compared(&[FIRST, TOO_LARGE, TEXT, BYTES, LAST]).unwrap();
        assert_eq!(found, Compared { publications: 5, too_large: 1 });
    }

    #[test]
    fn what_is_wrong_or_missing_is_found() {
        let said = |messages: &[&str]| compared(messages).unwrap_err().to_string();
        let differs = "publication 2 differs from line 2";
        assert!(said(&[FIRST, TEXT, LAST]).starts_with(differs));
        assert!(said(&[FIRST, &TOO_LARGE.replace("too_large", "slow"), TEXT]).starts_with(differs));
        assert!(said(&[&FIRST.replace("1.50", "1.5")]).starts_with("publication 1 differs from line 1"));
        assert!(said(&[FIRST, TOO_LARGE, &TEXT.replace("\"2\"", "2")]).starts_with("publication 3 differs"));
        assert!(said(&[FIRST, TOO_LARGE, TEXT, &BYTES.replace("/wA=", "/wE=")]).starts_with("publication 4 differs"));
        assert!(said(&[FIRST, TOO_LARGE, &TEXT.replace("\"seq\":2", "\"seq\":3")]).contains("doesn't follow Some(1)"));
        assert_eq!(said(&[FIRST, TOO_LARGE, TEXT, BYTES]), "the stream ends before the recording");
        assert_eq!(
            said(&[FIRST, TOO_LARGE, TEXT, BYTES, LAST, LAST]),
            "there is more in the stream than in the recording"
        );
    }
}
