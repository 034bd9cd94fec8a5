//! `stentor replay`: plays a recording to a server, at its own pace.
//!
//! What is read is what `--replay` reads, by the same rules. It goes over HTTP, as lines of `POST /publish` on one connection, since these keep text, JSON and bytes apart, as a recording
//! does. What is due at the same moment is one request; the next one waits for its answer, so that a server that is slow is not flooded. A recording that comes by standard input
//! can be one that is being made: `stentor record -o - … | stentor replay - …`.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use serde_json::Value;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};
use tracing::Level;

use super::{Connect, Failure, shown};
use crate::{
    config::{Span, Speed},
    feeds::{
        self, Sink,
        replay::{Options as How, Replay},
    },
    metrics::Skipped,
    publication::Payload,
    tools::trust,
};

/// Time for a server to take a request, and for its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a server that isn't there is tried, with `--wait`.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// The largest answer that is taken.
const ANSWER_MAX: usize = 1 << 20;

/// What `stentor replay` is told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The recording: plain, gzip or zstd; - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// The server
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:9001/")]
    pub url: String,

    /// So many times its own pace, or max
    #[arg(long, value_name = "FACTOR", default_value = "1")]
    pub speed: Speed,

    /// Begin again at the end
    #[arg(long = "loop")]
    pub repeat: bool,

    /// Pauses of the recording that are longer are cut to this; 0s for any
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub max_gap: Span,

    /// How to reach the server.
    #[command(flatten)]
    pub connect: Connect,
}

/// A connection that takes requests.
struct Door {
    url: String,
    connect: Connect,
    authority: String,
    stream: Stream,
}

enum Stream {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Door {
    fn open(url: &str, connect: &Connect) -> Result<Door, Failure> {
        let wrong = || Failure::Usage(format!("expected an address like http://127.0.0.1:9001/; found {url}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let is_tls = match scheme {
            "http" | "ws" => false,
            "https" | "wss" => true,
            _ => return Err(wrong()),
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (authority, if is_tls { 443 } else { 80 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || !authority.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong());
        }
        let unreachable = |error: io::Error| Failure::Unreachable(format!("{url}: {error}"));
        let tcp = dial(host, port).map_err(unreachable)?;
        let stream = match is_tls {
            false => Stream::Clear(tcp),
            true => {
                let config = trust::client(connect.tls_ca.as_deref(), connect.insecure).map_err(Failure::Usage)?;
                Stream::Tls(Box::new(secure(config, host, tcp).map_err(unreachable)?))
            }
        };
        Ok(Door { url: url.to_owned(), connect: connect.clone(), authority: authority.to_owned(), stream })
    }

    /// Publishes lines; what the server said to them. A server may close a connection on which nothing was asked for a while: then it is asked on another.
    fn publish(&mut self, lines: &[u8]) -> Result<(u16, String), Failure> {
        match self.request(lines) {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                *self = Door::open(&self.url, &self.connect)?;
                self.request(lines)
            }
            other => other,
        }
        .map_err(|error| Failure::Unreachable(format!("{}: {error}", self.authority)))
    }

    fn request(&mut self, lines: &[u8]) -> io::Result<(u16, String)> {
        let bearer = self.connect.token.as_ref().map(|token| format!("Authorization: Bearer {}\r\n", token.expose()));
        let mut request = format!(
            "POST /publish HTTP/1.1\r\nHost: {}\r\n{}Content-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
            self.authority,
            bearer.unwrap_or_default(),
            lines.len()
        )
        .into_bytes();
        request.extend_from_slice(lines);
        let stream: &mut dyn Both = match &mut self.stream {
            Stream::Clear(tcp) => tcp,
            Stream::Tls(tls) => &mut **tls,
        };
        stream.write_all(&request)?;
        stream.flush()?;
        answer(stream)
    }
}

/// What is read and written.
trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(tcp) => {
                tcp.set_nodelay(true)?;
                tcp.set_read_timeout(Some(PATIENCE))?;
                tcp.set_write_timeout(Some(PATIENCE))?;
                return Ok(tcp);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn secure(config: ClientConfig, host: &str, tcp: TcpStream) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(tls) => io::Error::other(trust::explain(tls)),
                None => error,
            }
        })?;
    }
    Ok(stream)
}

/// One answer: its status, and its body.
fn answer(stream: &mut dyn Both) -> io::Result<(u16, String)> {
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what}: is it a Stentor server?"));
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let len = stream.read(&mut part)?;
        bytes.extend_from_slice(&part[..len]);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        if let httparse::Status::Complete(begin) = head.parse(&bytes).map_err(|_| broken("the answer is not HTTP"))? {
            let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("Content-Length"));
            let length = length.and_then(|header| str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
            let end = begin + length.ok_or_else(|| broken("the answer has no length"))?;
            if bytes.len() >= end {
                let status = head.code.unwrap_or_default();
                return Ok((status, String::from_utf8_lossy(&bytes[begin..end]).into_owned()));
            }
        }
        if len == 0 && bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if len == 0 || bytes.len() > ANSWER_MAX {
            return Err(broken("the answer breaks off, or is too large"));
        }
    }
}

/// Where a recording's publications go.
struct Publishing {
    door: Door,
    lines: Vec<u8>,
    count: u64,
    /// Told when nothing more can be published.
    stop: Sender<()>,
    outcome: Arc<Mutex<Outcome>>,
}

/// What became of them, for who waits for the end.
#[derive(Default)]
struct Outcome {
    /// Publications that the server took.
    taken: u64,
    failure: Option<Failure>,
}

struct Batch<'a>(&'a mut Publishing);

impl Sink for Publishing {
    type Batch<'a> = Batch<'a>;

    fn batch(&mut self) -> Batch<'_> {
        Batch(self)
    }

    fn holds(&self) -> bool {
        false
    }

    fn held(&self, _: Duration) {}

    fn skipped(&self, _: Skipped) {}
}

impl feeds::Batch for Batch<'_> {
    fn push(&mut self, topic: &str, payload: Payload<'_>) -> Result<(), String> {
        let value = match payload {
            Payload::Json(json) => format!(r#""data":{}"#, String::from_utf8_lossy(json)),
            Payload::Text(text) | Payload::Plain(text) => format!(r#""text":{}"#, Value::from(text)),
            Payload::Binary(bytes) => format!(r#""base64":"{}""#, STANDARD.encode(bytes)),
            // Only a server's own replay can give a number to what isn't there.
            Payload::TooLarge => return Ok(()),
        };
        let line = format!("{{\"topic\":{},{value}}}\n", Value::from(topic));
        self.0.lines.extend_from_slice(line.as_bytes());
        self.0.count += 1;
        Ok(())
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let Publishing { door, lines, count, stop, outcome } = &mut *self.0;
        if lines.is_empty() || outcome.lock().failure.is_some() {
            return;
        }
        let failure = match door.publish(lines) {
            Ok((200..=299, _)) => None,
            Ok((status, said)) => Some(Failure::Refused(format!("{status}: {}", said.trim()))),
            Err(failure) => Some(failure),
        };
        lines.clear();
        let count = std::mem::take(count);
        let mut outcome = outcome.lock();
        match failure {
            None => outcome.taken += count,
            Some(_) => {
                outcome.failure = failure;
                let _ = stop.try_send(());
            }
        }
    }
}

/// Where lines of the log go: to standard error, with a word before that says whose they are.
struct Said;

impl Write for Said {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut out = io::stderr().lock();
        out.write_all(b"stentor ")?;
        out.write_all(line).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A way to the server: at once, or with `--wait` once it is there. None if somebody wants the end before.
fn open(options: &Options, stopped: &Receiver<()>) -> Result<Option<Door>, Failure> {
    let mut waits_for = String::new();
    loop {
        match Door::open(&options.url, &options.connect) {
            Ok(door) => return Ok(Some(door)),
            Err(Failure::Unreachable(why)) if options.connect.wait => {
                if why != waits_for {
                    let _ = writeln!(io::stderr(), "stentor replay: {}; waiting", shown(&why));
                    waits_for = why;
                }
                if stopped.recv_timeout(TRY_EVERY).is_ok() {
                    return Ok(None);
                }
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Plays a recording to its end, or until it is asked to end.
///
/// # Errors
/// See the module above.
pub fn run(options: &Options) -> Result<(), Failure> {
    let how = How {
        speed: options.speed,
        repeat: options.repeat,
        delay: Duration::ZERO,
        gap_max: options.max_gap.get(),
        message_max: 16 << 20,
        topic_length_max: 1024,
    };
    let is_standard = options.file == Path::new("-");
    if is_standard && options.repeat {
        return Err(Failure::Usage("--loop: standard input can't be read again; expected a file".into()));
    }
    let file = if is_standard { Path::new("/dev/stdin") } else { &options.file };
    let replay = Replay::open(file, how).map_err(|error| Failure::Usage(error.to_string()))?;
    let (stop, stopped) = bounded(1);
    if is_standard {
        // Who waits for a line that doesn't come is ended by a second signal.
        let once = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&once))?;
            flag::register(signal, Arc::clone(&once))?;
        }
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let handle = signals.handle();
    let by_signal = stop.clone();
    let waiter = thread::spawn(move || {
        if signals.forever().next().is_some() {
            let _ = by_signal.try_send(());
        }
    });
    let Some(door) = open(options, &stopped)? else { return Ok(()) };
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let publishing = Publishing { door, lines: Vec::new(), count: 0, stop, outcome: Arc::clone(&outcome) };
    // What is wrong with a line is said as it is in a server's log.
    let log = tracing_subscriber::fmt().with_writer(|| Said).with_max_level(Level::WARN).with_ansi(false);
    let log = log.without_time().with_level(false).with_target(false).finish();
    let summary = tracing::subscriber::with_default(log, || replay.run(publishing, &stopped));
    handle.close();
    let _ = waiter.join();
    let Outcome { taken, failure } = std::mem::take(&mut *outcome.lock());
    let left_out = summary.skipped + summary.too_large + summary.too_deep;
    let gaps = if summary.gaps == 0 {
        String::new()
    } else {
        format!(", {} gaps that only --replay can tell of", summary.gaps)
    };
    let lines = if left_out == 0 { String::new() } else { format!(", {left_out} lines left out") };
    let whence = if is_standard { "standard input".into() } else { options.file.display().to_string() };
    let text = format!("{whence}: {taken} publications in {:.1} s{lines}{gaps}", summary.elapsed.as_secs_f64());
    let _ = writeln!(io::stderr(), "stentor replay: {}", shown(&text));
    match failure {
        Some(failure) => Err(failure),
        None if taken == 0 && left_out > 0 => Err(Failure::Usage(format!("{whence}: no line of it is a publication"))),
        None if summary.broken => Err(Failure::Usage(format!("{whence}: the file is damaged from there on"))),
        None => Ok(()),
    }
}
