//! What coming back costs: by a cursor, by names, without either; and what polls that wait cost.
//!
//! ```text
//! resume resuming ADDRESS PID [TOPICS] [TIMES] [ROUNDS]      a client of t.us.* was away for a second, in which each topic had TIMES publications
//! resume polls ADDRESS PID [COUNT] [ROUNDS]                  so many polls wait, and a publication wakes all of them
//! resume subscribers ADDRESS PID [COUNT] [ROUNDS]            the same of as many subscribers on /ws
//! ```
//!
//! The server is one worker in a process of its own, PID (`scripts/resume` starts it). Its processor time is that of its workers' threads, of which the
//! kernel keeps an account in nanoseconds. Everything that comes is held against what must come, after the clock was stopped.

use std::{
    collections::HashMap,
    error::Error,
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

#[path = "hostile/attacks/wire.rs"]
#[allow(dead_code, reason = "attackers use the rest")]
mod wire;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes of each payload.
const PAYLOAD: usize = 128;

/// Names in one connection's command: the server's own bound is 1024.
const BATCH: usize = 1000;

/// How long anything may take before this gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections from one address: so many connect within the server's quota of two seconds, and poll within that of one.
const PER_ADDRESS: usize = 1000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = run(&args) {
        eprintln!("resume: {error}");
        std::process::exit(1);
    }
}

fn run(args: &[String]) -> Result<()> {
    let [what, address, pid, more @ ..] = args else {
        return Err("expected resuming, polls or subscribers, the server's address, and its PID".into());
    };
    let server = Server { address: address.parse()?, pid: pid.parse()? };
    let number = |n: usize, default: usize| more.get(n).map_or(Ok(default), |text| text.parse());
    match &**what {
        "resuming" => resuming(&server, number(0, 3000)?, number(1, 10)?, number(2, 15)?),
        "polls" => waiting(&server, true, number(0, 10_000)?, number(1, 5)?),
        "subscribers" => waiting(&server, false, number(0, 10_000)?, number(1, 5)?),
        other => Err(format!("{other}: expected resuming, polls or subscribers").into()),
    }
}

// ---- The server, from outside ----------------------------------------------------------------------------------------------

struct Server {
    address: SocketAddr,
    pid: u32,
}

impl Server {
    fn connect(&self, n: usize) -> Result<TcpStream> {
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + 1 + (n / PER_ADDRESS) as u32);
        let stream = wire::connect(self.address, IpAddr::V4(source))?;
        wire::reset_at_close(&stream);
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Processor time of its workers so far.
    fn cpu(&self) -> Result<Duration> {
        let mut ns = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let path = task?.path();
            if fs::read_to_string(path.join("comm"))?.starts_with("worker") {
                ns += fs::read_to_string(path.join("schedstat"))?.split(' ').next().unwrap_or("0").parse::<u64>()?;
            }
        }
        Ok(Duration::from_nanos(ns))
    }

    fn resident(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/statm", self.pid))?;
        let pages: u64 = text.split(' ').nth(1).unwrap_or("0").parse()?;
        Ok(pages * rustix::param::page_size() as u64)
    }

    /// A figure of `/metrics`, without its `stentor_`, summed over its labels.
    fn figure(&self, name: &str) -> Result<f64> {
        let text = self.ask(&wire::get("/metrics", "Connection: close\r\n"))?;
        let of = |line: &str| {
            let (labels, value) = line.strip_prefix("stentor_")?.strip_prefix(name)?.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then(|| value.parse::<f64>().ok())?
        };
        Ok(text.lines().filter_map(of).sum())
    }

    fn wait_for(&self, name: &str, is: impl Fn(f64) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !is(self.figure(name)?) {
            if begun.elapsed() > PATIENCE {
                return Err(format!("{name} is {} for long", self.figure(name)?).into());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Sends a request, on a connection of its own; returns the answer.
    fn ask(&self, request: &[u8]) -> Result<String> {
        let mut stream = self.connect(0)?;
        stream.write_all(request)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Publishes once on each of these topics.
    fn publish(&self, topics: impl Iterator<Item = String>) -> Result<()> {
        let payload = format!("\"{}\"", "x".repeat(PAYLOAD - 2));
        let answer = self.ask(&wire::publish_lines(topics, &payload))?;
        if answer.contains("\"published\":") { Ok(()) } else { Err(answer.into()) }
    }
}

/// Bytes of the kernel's objects of which each end of a connection has some, as `scripts/connections` counts them; 0 where only root may see it.
fn kernel() -> u64 {
    let Ok(text) = fs::read_to_string("/proc/slabinfo") else { return 0 };
    let (mut sum, mut files, mut name) = (0, 0, 0);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(kind), Some(count)) = (words.next(), words.next().and_then(|word| word.parse::<u64>().ok())) else {
            continue;
        };
        let size = words.nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        match kind {
            "TCP" | "sock_inode_cache" | "eventpoll_epi" => sum += count * size,
            "filp" => (sum, files) = (sum + count * size, count),
            "dentry" => name = size,
            _ => {}
        }
    }
    sum + files * name
}

/// What a list comes to: its median, and the least and the most.
struct Spread(Vec<f64>);

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
        write!(f, "{:.2} ({least:.2} to {most:.2})", sorted[sorted.len() / 2])
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

// ---- Coming back -----------------------------------------------------------------------------------------------------------

/// How somebody comes back.
#[derive(Clone, Copy)]
enum Way {
    Cursor,
    CursorLatest,
    Names,
    Snapshots,
}

/// What a client has that goes away.
struct Had {
    cursor: String,
    epoch: String,
    seqs: HashMap<String, u64>,
}

/// What it took to come back.
struct Back {
    took: Duration,
    cpu: Duration,
    commands: usize,
    commands_bytes: usize,
    messages: Vec<Value>,
    bytes: usize,
}

fn resuming(server: &Server, topics: usize, times: usize, rounds: usize) -> Result<()> {
    let names: Vec<String> = (0..topics).map(|n| format!("t.us.S{n:04}")).collect();
    server.publish(names.iter().cloned())?;
    let had = go_away(server, &names)?;
    let begun = Instant::now();
    for n in 0..times {
        thread::sleep((Duration::from_secs(1) * n as u32 / times as u32).saturating_sub(begun.elapsed()));
        server.publish(names.iter().cloned())?;
    }
    thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()));
    println!(
        "{topics} topics, {times} publications on each while it was away, {PAYLOAD} bytes; {rounds} rounds, in turns: median (least to most)"
    );
    let ways = [
        ("by cursor", Way::Cursor),
        ("by names", Way::Names),
        ("by cursor, newest values", Way::CursorLatest),
        ("with snapshots alone", Way::Snapshots),
    ];
    let mut backs: Vec<Vec<Back>> = ways.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for (n, (name, way)) in ways.iter().enumerate() {
            let back = come_back(server, *way, &had, &names, times)?;
            check(*way, &back, &had, times).map_err(|wrong| format!("{name}: {wrong}"))?;
            // The first round warms up.
            if round > 0 {
                backs[n].push(back);
            }
        }
    }
    for ((name, _), backs) in ways.iter().zip(&backs) {
        let Back { commands, commands_bytes, messages, bytes, .. } = &backs[0];
        println!(
            "{name}: {} messages, {bytes} bytes, for {commands} commands of {commands_bytes} bytes; took {} ms; worker CPU {} ms",
            messages.len(),
            Spread(backs.iter().map(|back| ms(back.took)).collect()),
            Spread(backs.iter().map(|back| ms(back.cpu)).collect()),
        );
    }
    Ok(())
}

/// Subscribes, takes everything, and leaves.
fn go_away(server: &Server, names: &[String]) -> Result<Had> {
    let back = said(
        server,
        vec![vec![r#"{"op":"sub","topics":["t.us.*"]}"#.to_owned(), PING.to_owned()]],
        names.len(),
        "snapshot",
    )?;
    let (mut seqs, mut epoch, mut cursor) = (HashMap::new(), String::new(), String::new());
    for message in &back.messages {
        match message["type"].as_str() {
            Some("snapshot") => {
                epoch = message["epoch"].as_str().unwrap_or_default().to_owned();
                seqs.insert(
                    message["topic"].as_str().unwrap_or_default().to_owned(),
                    message["seq"].as_u64().unwrap_or(0),
                );
            }
            Some("pong") => cursor = message["cursor"].as_str().unwrap_or_default().to_owned(),
            _ => {}
        }
    }
    if seqs.len() != names.len() || cursor.is_empty() {
        return Err(format!("{} snapshots of {}, and the cursor \"{cursor}\"", seqs.len(), names.len()).into());
    }
    Ok(Had { cursor, epoch, seqs })
}

const PING: &str = r#"{"op":"ping"}"#;

fn come_back(server: &Server, way: Way, had: &Had, names: &[String], times: usize) -> Result<Back> {
    let all = names.len() * times;
    let by_cursor = |more: &str| {
        json!({ "op": "sub", "topics": ["t.us.*"], "from": had.cursor }).to_string().replacen(
            '{',
            &format!("{{{more}"),
            1,
        )
    };
    let batch = |names: &[String]| {
        let from: HashMap<&String, (&String, u64)> =
            names.iter().map(|name| (name, (&had.epoch, had.seqs[name]))).collect();
        vec![json!({ "op": "sub", "topics": names, "from": from }).to_string(), PING.to_owned()]
    };
    match way {
        Way::Cursor => said(server, vec![vec![by_cursor(""), PING.to_owned()]], all, "update"),
        Way::CursorLatest => {
            said(server, vec![vec![by_cursor(r#""mode":"latest","#), PING.to_owned()]], names.len(), "snapshot")
        }
        Way::Snapshots => said(
            server,
            vec![vec![r#"{"op":"sub","topics":["t.us.*"]}"#.to_owned(), PING.to_owned()]],
            names.len(),
            "snapshot",
        ),
        Way::Names => said(server, names.chunks(BATCH).map(batch).collect(), all, "update"),
    }
}

/// Connects once for each list of commands, says them, and reads until so many messages of this type, and each `pong`, have come.
fn said(server: &Server, lists: Vec<Vec<String>>, wanted: usize, kind: &str) -> Result<Back> {
    thread::sleep(Duration::from_millis(50));
    let (cpu, begun) = (server.cpu()?, Instant::now());
    let mark = format!("{{\"type\":\"{kind}\"").into_bytes();
    let mut streams = Vec::new();
    let (mut commands, mut commands_bytes) = (0, 0);
    for list in &lists {
        let mut stream = server.connect(0)?;
        wire::upgrade(&mut stream, "/ws")?;
        let frames: Vec<u8> = list.iter().flat_map(|text| wire::command(text)).collect();
        stream.write_all(&frames)?;
        (commands, commands_bytes) =
            (commands + list.len(), commands_bytes + list.iter().map(String::len).sum::<usize>());
        stream.set_nonblocking(true)?;
        streams.push((stream, Frames::default()));
    }
    let (mut buffer, mut found, mut pongs) = (vec![0; 256 * 1024], 0, 0);
    while found < wanted || pongs < lists.len() {
        if begun.elapsed() > PATIENCE {
            return Err(format!("{found} of {wanted} came, and {pongs} pongs").into());
        }
        wait(streams.iter().map(|(stream, _)| stream));
        for (stream, frames) in &mut streams {
            match stream.read(&mut buffer) {
                Ok(0) => return Err("the server has closed a connection".into()),
                Ok(len) => frames.take(&buffer[..len], |payload| {
                    found += usize::from(payload.starts_with(&mark));
                    pongs += usize::from(payload.starts_with(b"{\"type\":\"pong\""));
                }),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let took = begun.elapsed();
    thread::sleep(Duration::from_millis(20));
    let cpu = server.cpu()? - cpu;
    let bytes = streams.iter().map(|(_, frames)| frames.bytes.len()).sum();
    let messages: std::result::Result<Vec<Value>, _> =
        streams.iter().flat_map(|(_, frames)| frames.payloads()).map(serde_json::from_slice).collect();
    Ok(Back { took, cpu, commands, commands_bytes, messages: messages?, bytes })
}

/// Holds what came against what must come.
fn check(way: Way, back: &Back, had: &Had, times: usize) -> std::result::Result<(), String> {
    let mut seqs = had.seqs.clone();
    let mut snapshots = 0;
    for message in &back.messages {
        let number = |field: &str| message[field].as_u64().unwrap_or(0);
        let Some(seq) = message["topic"].as_str().and_then(|topic| seqs.get_mut(topic)) else { continue };
        match (message["type"].as_str(), way) {
            (Some("update"), Way::Cursor | Way::Names) if number("seq") == *seq + 1 => *seq += 1,
            (Some("skip"), Way::CursorLatest) if number("from") == *seq + 1 => *seq = number("to"),
            (Some("snapshot"), Way::CursorLatest) if number("seq") == *seq + 1 => *seq += 1,
            (Some("snapshot"), Way::Snapshots) => (*seq, snapshots) = (number("seq"), snapshots + 1),
            _ => return Err(format!("with {seq} had, it was sent {message}")),
        }
    }
    match seqs.iter().find(|(topic, seq)| **seq != had.seqs[*topic] + times as u64) {
        Some((topic, seq)) => Err(format!("{topic} ends with {seq}")),
        None => Ok(()),
    }
}

/// Bytes that have come of a WebSocket, behind the head of the answer.
#[derive(Default)]
struct Frames {
    bytes: Vec<u8>,
    /// Where the first frame begins that isn't whole.
    at: usize,
}

impl Frames {
    fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        self.bytes.extend_from_slice(bytes);
        while let Some((start, end)) = frame_at(&self.bytes, self.at) {
            each(&self.bytes[start..end]);
            self.at = end;
        }
    }

    fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let (start, end) = frame_at(&self.bytes, at)?;
            at = end;
            Some(&self.bytes[start..end])
        })
    }
}

/// Where the payload of the frame at `at` begins and ends, if it is whole.
fn frame_at(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let (start, len) = match *bytes.get(at + 1)? {
        126 => (at + 4, u16::from_be_bytes(bytes.get(at + 2..at + 4)?.try_into().ok()?).into()),
        127 => (at + 10, u64::from_be_bytes(bytes.get(at + 2..at + 10)?.try_into().ok()?) as usize),
        len => (at + 2, usize::from(len)),
    };
    (bytes.len() >= start + len).then_some((start, start + len))
}

/// Waits until one of them can be read, or a moment.
fn wait<'a>(streams: impl Iterator<Item = &'a TcpStream>) {
    let mut fds: Vec<PollFd<'_>> =
        streams.map(|stream| PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)).collect();
    let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }));
}

// ---- Polls that wait, and subscribers that do the same -----------------------------------------------------------------------

const TOPIC: &str = "t.wake";

fn waiting(server: &Server, polls: bool, count: usize, rounds: usize) -> Result<()> {
    server.publish([TOPIC.to_owned()].into_iter())?;
    let what = if polls { "polls" } else { "subscribers" };
    // What the server opens once, and keeps, it has after a first few.
    drop(come(server, polls, 100)?);
    server.wait_for("connections_admitted", |it| it <= 2.0)?;
    thread::sleep(Duration::from_millis(500));
    let before = (server.resident()?, kernel());
    let mut clients = come(server, polls, count)?;
    thread::sleep(Duration::from_millis(500));
    let each = (server.resident()?.saturating_sub(before.0), kernel().saturating_sub(before.1));
    println!("{count} {what} wait: {} bytes each in the server", each.0 / count as u64);
    println!(
        "each end of one of {count} {what} in the kernel: {} bytes (socket, inode, file, name, epoll entry)",
        each.1 / 2 / count as u64
    );
    let (mut woken, mut took, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (cpu, begun) = (server.cpu()?, Instant::now());
        server.publish([TOPIC.to_owned()].into_iter())?;
        take_answers(&mut clients, polls)?;
        let lasted = begun.elapsed();
        thread::sleep(Duration::from_millis(100));
        let after = server.cpu()?;
        if round > 0 {
            woken.push((after - cpu).as_secs_f64() * 1e6 / count as f64);
            took.push(ms(lasted));
        }
        if polls {
            // Once within a second, of each address, are as many polls as may be.
            thread::sleep(Duration::from_millis(1200));
            let cpu = server.cpu()?;
            ask_again(&mut clients)?;
            server.wait_for("polls_waiting", |it| it as usize == count)?;
            if round > 0 {
                asked.push((server.cpu()? - cpu).as_secs_f64() * 1e6 / count as f64);
            }
        } else {
            thread::sleep(Duration::from_millis(1200));
        }
    }
    let again = server.resident()?.saturating_sub(before.0);
    println!("a publication to {count} {what}: {} µs of worker CPU each", Spread(woken));
    println!("until the last of {count} {what} has it: {} ms", Spread(took));
    if polls {
        println!("until each of {count} {what} waits again: {} µs of worker CPU each", Spread(asked));
    }
    println!("{count} {what} wait again: {} bytes each in the server", again / count as u64);
    Ok(())
}

struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
    has: bool,
}

/// So many come, and wait.
fn come(server: &Server, polls: bool, count: usize) -> Result<Vec<Client>> {
    let cursor = cursor_of(&server.ask(&wire::get(&format!("/poll?topics={TOPIC}&wait=0"), "Connection: close\r\n"))?)?;
    let mut clients = Vec::with_capacity(count);
    for n in 0..count {
        let mut stream = server.connect(n)?;
        if polls {
            stream.write_all(&poll_request(&cursor))?;
        } else {
            wire::upgrade(&mut stream, &format!("/ws?topics={TOPIC}&snapshot=0"))?;
        }
        stream.set_nonblocking(true)?;
        clients.push(Client { stream, bytes: Vec::new(), has: false });
        // As many a second as scripts/connections has come.
        if n % 100 == 99 {
            thread::sleep(Duration::from_millis(50));
        }
    }
    let figure = if polls { "polls_waiting" } else { "subscriptions" };
    server.wait_for(figure, |it| it as usize == count)?;
    if !polls {
        // `hello` and `ack`.
        read_all(&mut clients, |bytes| memchr::memmem::find(bytes, b"\"ack\"").is_some())?;
    }
    clients.iter_mut().for_each(|client| client.bytes = Vec::new());
    Ok(clients)
}

fn poll_request(cursor: &str) -> Vec<u8> {
    wire::get(&format!("/poll?topics={TOPIC}&cursor={cursor}&wait=60"), "")
}

fn cursor_of(answer: &str) -> Result<String> {
    let (_, rest) = answer.split_once("{\"cursor\":\"").ok_or_else(|| format!("no cursor in {answer}"))?;
    Ok(rest.split('"').next().unwrap_or_default().to_owned())
}

/// Reads until each has its publication.
fn take_answers(clients: &mut [Client], polls: bool) -> Result<()> {
    let end: &[u8] = if polls { b"}]}" } else { b"x\"}" };
    read_all(clients, |bytes| bytes.ends_with(end))?;
    let is_one = |client: &Client| memchr::memmem::find_iter(&client.bytes, b"\"type\":\"update\"").count() == 1;
    match clients.iter().find(|client| !is_one(client)) {
        Some(client) => Err(format!("it was sent {}", String::from_utf8_lossy(&client.bytes)).into()),
        None if polls => Ok(()),
        None => {
            clients.iter_mut().for_each(|client| client.bytes.clear());
            Ok(())
        }
    }
}

/// Each polls again, behind what it was answered.
fn ask_again(clients: &mut [Client]) -> Result<()> {
    for client in clients {
        let cursor = cursor_of(std::str::from_utf8(&client.bytes)?)?;
        client.stream.write_all(&poll_request(&cursor))?;
        client.bytes.clear();
    }
    Ok(())
}

/// Reads of all of them until each has all that it waits for.
fn read_all(clients: &mut [Client], is_all: impl Fn(&[u8]) -> bool) -> Result<()> {
    let (begun, mut buffer) = (Instant::now(), vec![0; 64 * 1024]);
    clients.iter_mut().for_each(|client| client.has = is_all(&client.bytes));
    while clients.iter().any(|client| !client.has) {
        if begun.elapsed() > PATIENCE {
            return Err("not all have come in time".into());
        }
        wait(clients.iter().filter(|client| !client.has).map(|client| &client.stream));
        for client in clients.iter_mut().filter(|client| !client.has) {
            match client.stream.read(&mut buffer) {
                Ok(0) => return Err("the server has closed a connection".into()),
                Ok(len) => client.bytes.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            client.has = is_all(&client.bytes);
        }
    }
    Ok(())
}
