//! A control thread on real sockets, spoken to in plain HTTP.

mod acme;
mod admin;
mod connections;
mod fairness;
mod metrics;
#[cfg(not(loom))]
mod pace;
mod page;
mod publishing;
mod slow;
mod topics;
#[cfg(not(loom))]
mod world;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::Receiver;
use rustix::fd::OwnedFd;
use serde_json::Value;

use super::{Context, Control, HttpSettings, OwnParts, sweep};
use crate::{
    clock::Moment,
    config::{Config, Span},
    handover::{Arrival, Beginning, Inbox, Listener, Message},
    io::{
        epoll::{Epoll, Socket},
        waker::Waker,
    },
    limits::{Bounds, Limits},
    log::{Dropped, Log},
    metrics::{Eviction, Refusal},
    protocol::Payload,
    shared::{Settings, Shared, tape_settings},
    tape::{Tape, TapeSettings},
};

/// Long enough that a test never meets it.
const NEVER: Duration = Duration::from_secs(600);

/// Short enough to be waited for.
const SOON: Duration = Duration::from_millis(50);

struct Server {
    listener: TcpListener,
    context: Context,
    inbox: Inbox<Socket>,
    worker: Receiver<Message<Socket>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Server {
        Server::with(|_| {}, |_| {})
    }

    fn with(config: impl FnOnce(&mut Config), settings: impl FnOnce(&mut HttpSettings)) -> Server {
        let (context, workers, worker) = context(config, settings);
        let waker = Arc::new(Waker::new().unwrap());
        let (inbox, receiver) = Inbox::new(1024, Arc::clone(&waker));
        let of_thread = context.clone();
        let thread = std::thread::spawn(move || {
            let edge = Epoll::new(waker, Duration::ZERO).unwrap();
            Control::new(of_thread, edge, receiver, vec![workers]).run();
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // As --sndbuf would: what a client doesn't take is in the control thread's memory and not in the kernel's.
        socket2::SockRef::from(&listener).set_send_buffer_size(32 * 1024).unwrap();
        Server { listener, context, inbox, worker, thread: Some(thread) }
    }

    /// A connection that the control thread owns, of which a worker has read `received`.
    fn connect_after(&self, received: &[u8]) -> Client {
        let stream = arrive(&self.listener, &self.context.limits, |peer| Some(peer.ip()), received, &self.inbox);
        // A guard: a test that would hang fails.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Client(BufReader::new(stream))
    }

    fn connect(&self) -> Client {
        self.connect_after(b"")
    }

    fn evicted(&self, why: Eviction) -> u64 {
        self.context.shared.metrics.evictions().find(|(reason, _)| *reason == why).unwrap().1
    }

    fn refused(&self, why: Refusal) -> u64 {
        self.context.shared.metrics.refusals().find(|(reason, _)| *reason == why).unwrap().1
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.inbox.drain(Moment::now());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// A connection to `listener` that is handed over as one of which a worker has read `received`, counted for whose it is.
fn arrive(
    listener: &TcpListener,
    limits: &Arc<Limits>,
    whose: impl FnOnce(SocketAddr) -> Option<IpAddr>,
    received: &[u8],
    inbox: &Inbox<Socket>,
) -> TcpStream {
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, peer) = listener.accept().unwrap();
    let permit = limits.admit(whose(peer), Moment::now()).unwrap();
    let beginning = Beginning::Read(received.to_vec());
    let socket = OwnedFd::from(socket).into();
    inbox.hand_over(Arrival { socket, peer, permit, by: Listener::Clear, beginning }).unwrap();
    stream
}

/// What a control thread works with, and both ends of the one worker's inbox.
fn context(
    change: impl FnOnce(&mut Config),
    change_settings: impl FnOnce(&mut HttpSettings),
) -> (Context, Inbox<Socket>, Receiver<Message<Socket>>) {
    let (worker, receiver) = Inbox::new(4, Arc::new(Waker::new().unwrap()));
    (Context { inboxes: vec![worker.level()], ..context_alone(change, change_settings) }, worker, receiver)
}

/// What a control thread works with where no worker is.
fn context_alone(change: impl FnOnce(&mut Config), change_settings: impl FnOnce(&mut HttpSettings)) -> Context {
    let mut config = Config {
        close_timeout: Span::new(NEVER),
        handshake_timeout: Span::new(NEVER),
        keep_alive_timeout: Span::new(NEVER),
        ..Config::default()
    };
    change(&mut config);
    let mut settings = HttpSettings::new(&config);
    change_settings(&mut settings);
    let tape = Tape::new(TapeSettings { retain: 256 * 1024, segment: 64 * 1024, ..tape_settings(&config, 36) });
    let log = Log::new(config.log_limit, Dropped::default());
    let shared = Shared::new(Settings::new(&config), log, &tape, 1, Arc::new([]));
    Context {
        keys: None,
        settings,
        shared,
        tape,
        limits: Limits::new(&Bounds::of(&config), config.ipv6_prefix),
        inboxes: Vec::new(),
        started: Moment::now(),
    }
}

/// Asks again and again until it is so; a guard, as above.
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
    }
}

struct Client(BufReader<TcpStream>);

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    /// Whose page may read it.
    fn reader(&self) -> Option<&str> {
        self.headers.get("access-control-allow-origin").map(String::as_str)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Client {
    fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
        self
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.ends_with("\r\n"), "the connection ended after {line:?}");
        line.trim_end().to_owned()
    }

    /// The head of an answer, and its body unless there is none to a HEAD.
    fn answer_to(&mut self, method: &str) -> Answer {
        let status = self.line().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let len =
            if method == "HEAD" { 0 } else { headers.get("content-length").map_or(0, |len| len.parse().unwrap()) };
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).unwrap();
        Answer { status, headers, body: String::from_utf8(body).unwrap() }
    }

    fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    fn ask(&mut self, method: &str, target: &str) -> Answer {
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).answer_to(method)
    }

    fn get(&mut self, target: &str) -> Answer {
        self.ask("GET", target)
    }

    fn post(&mut self, target: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        let head =
            format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        self.send(head).send(body).answer()
    }

    /// The server has ended the connection, and said nothing more.
    fn assert_ended(&mut self) {
        assert_eq!(self.0.read(&mut [0; 64]).unwrap(), 0);
    }
}

fn last(client: &mut Client, topic: &str) -> Value {
    client.get(&format!("/topics/{topic}")).json()
}
