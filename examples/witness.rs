//! Checks a replay with a thousand eyes: every subscriber's bytes are compared with every other's, and the one stream they
//! agree on with the recording itself, publication by publication.
//!
//! ```text
//! stentor --replay feed.ndjson.gz --speed 10 --replay-delay 5s &
//! witness ADDRESS FILE SUBSCRIBERS SERVER-PID [STALLED]
//! ```
//!
//! All subscribe to `>`. STALLED more subscribe and never read. Prints what was delivered, the server's CPU time for each
//! delivery and its resident memory, and how busy each side was; exits with 1 if a byte is missing or wrong.

use std::{
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
    let publications = compare_with(file, &watched.stream)?;
    let deliveries = publications as u64 * subscribers as u64;
    let seconds = watched.took.as_secs_f64();
    println!("publications         {publications}, each the recording's, byte for byte and in order");
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

/// Compares the updates in `stream` with the lines of the recording; returns how many there are.
fn compare_with(file: &str, stream: &[u8]) -> Result<usize> {
    #[derive(serde::Deserialize)]
    struct Line<'l> {
        topic: &'l str,
        #[serde(borrow)]
        data: &'l RawValue,
    }
    let reader: Box<dyn Read> = match file.ends_with(".gz") {
        true => Box::new(MultiGzDecoder::new(fs::File::open(file)?)),
        false => Box::new(fs::File::open(file)?),
    };
    let (mut at, mut count) = (0, 0);
    for line in BufReader::new(reader).lines() {
        let line = line?;
        let expected: Line = serde_json::from_str(&line)?;
        let (header, len) = match stream.get(at + 1).ok_or("the stream ends before the recording")? {
            126 => (4, usize::from(u16::from_be_bytes([stream[at + 2], stream[at + 3]]))),
            127 => (10, u64::from_be_bytes(stream[at + 2..at + 10].try_into()?) as usize),
            len => (2, usize::from(*len)),
        };
        let update = std::str::from_utf8(&stream[at + header..at + header + len])?;
        count += 1;
        let topic = format!("{{\"type\":\"update\",\"topic\":\"{}\",\"seq\":", expected.topic);
        let data = format!(",\"data\":{}}}", expected.data.get());
        if stream[at] != 0x81 || !update.starts_with(&topic) || !update.ends_with(&data) {
            return Err(format!("publication {count} differs from line {count}: {update}").into());
        }
        at += header + len;
    }
    if at == stream.len() { Ok(count) } else { Err("there is more in the stream than in the recording".into()) }
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
