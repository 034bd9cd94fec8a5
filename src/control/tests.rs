//! A control thread on real sockets, spoken to in plain HTTP.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::Receiver;
use rustix::fd::OwnedFd;
use serde_json::Value;

use super::{Context, Control, Settings, sweep};
use crate::{
    clock::Moment,
    config::{Config, Span},
    handover::{Arrival, Inbox, Message},
    io::{epoll::Epoll, waker::Waker},
    limits::Limits,
    metrics::{Metrics, Refusal},
    protocol::Payload,
    publish::Publisher,
    tape::{Tape, TapeSettings},
    topic::Subscriptions,
    worker,
};

/// Long enough that a test never meets it.
const NEVER: Duration = Duration::from_secs(600);

/// Short enough to be waited for.
const SOON: Duration = Duration::from_millis(50);

struct Server {
    listener: TcpListener,
    context: Context,
    inbox: Inbox<OwnedFd>,
    worker: Receiver<Message<OwnedFd>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Server {
        Server::with(|_| {}, |_| {})
    }

    fn with(config: impl FnOnce(&mut Config), settings: impl FnOnce(&mut Settings)) -> Server {
        let (context, worker) = context(config, settings);
        let waker = Arc::new(Waker::new().unwrap());
        let (inbox, receiver) = Inbox::new(1024, Arc::clone(&waker));
        let of_thread = context.clone();
        let thread = std::thread::spawn(move || {
            let edge = Epoll::new(waker, Duration::ZERO).unwrap();
            Control::new(of_thread, edge, receiver).run();
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Server { listener, context, inbox, worker, thread: Some(thread) }
    }

    /// A connection that the control thread owns, of which a worker has read `received`.
    fn connect_after(&self, received: &[u8]) -> Client {
        let stream = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = self.listener.accept().unwrap();
        let permit = self.context.limits.admit(peer.ip()).unwrap();
        let arrival = Arrival { socket: socket.into(), peer, permit, received: received.to_vec() };
        self.inbox.hand_over(arrival).unwrap();
        // A guard: a test that would hang fails.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Client(BufReader::new(stream))
    }

    fn connect(&self) -> Client {
        self.connect_after(b"")
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

/// What a control thread works with, and the inbox of the one worker.
fn context(
    change: impl FnOnce(&mut Config),
    change_settings: impl FnOnce(&mut Settings),
) -> (Context, Receiver<Message<OwnedFd>>) {
    let mut config = Config { close_timeout: Span(NEVER), handshake_timeout: Span(NEVER), ..Config::default() };
    change(&mut config);
    let mut settings = Settings { keep_alive: NEVER, ..Settings::new(&config) };
    change_settings(&mut settings);
    let tape = Tape::new(TapeSettings {
        retain: 256 * 1024,
        segment: 64 * 1024,
        message_max: config.max_message.as_u64() as usize,
        topics_max: config.max_topics,
        value_bytes_max: config.max_values.as_u64() as usize,
        epoch: 36,
    });
    let metrics = Arc::new(Metrics::new(1));
    let publisher = Publisher::new(tape.clone(), Arc::new([]), Arc::clone(&metrics), config.max_topic_length);
    let shared = worker::Shared {
        settings: Arc::new(worker::Settings::new(&config)),
        publisher,
        subscriptions: Subscriptions::new(config.max_subscriptions_total),
        metrics,
    };
    let (worker, receiver) = Inbox::new(4, Arc::new(Waker::new().unwrap()));
    let context = Context {
        settings,
        shared: Arc::new(shared),
        tape,
        limits: Limits::new(config.max_connections, 0),
        workers: vec![worker],
        readiness: Arc::new(AtomicBool::new(true)),
        started: Moment::now(),
    };
    (context, receiver)
}

struct Client(BufReader<TcpStream>);

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
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
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n")).answer_to(method)
    }

    fn get(&mut self, target: &str) -> Answer {
        self.ask("GET", target)
    }

    fn post(&mut self, target: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
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

// ---- Publishing --------------------------------------------------------------------------------------------------------

#[test]
fn a_body_is_the_payload_of_one_publication() {
    let server = Server::start();
    let mut client = server.connect();
    let first = client.post("/publish/a.b", "", "{\"px\": 1.50}").json();
    assert_eq!((&first["topic"], &first["seq"]), (&"a.b".into(), &1.into()));
    assert_eq!(client.post("/publish/a.b", "", "not JSON").json()["seq"], 2);
    assert_eq!(last(&mut client, "a.b")["data"], "not JSON");
    assert_eq!(client.post("/publish/a.b", "Content-Type: application/json; charset=utf-8\r\n", "[1]").status, 200);
    let value = client.get("/topics/a.b");
    assert!(value.body.starts_with(r#"{"topic":"a.b","epoch":"10","subscribers":0,"seq":3,"ts":"#), "{}", value.body);
    assert!(value.body.ends_with(r#","data":[1]}"#), "{}", value.body);
    client.post("/publish/a.b", "Content-Type: application/octet-stream\r\n", "[1]");
    assert_eq!(last(&mut client, "a.b")["base64"], "WzFd");
    client.post("/publish/a.b", "", b"\xff");
    assert_eq!(last(&mut client, "a.b")["base64"], "/w==");
    let metrics = &server.context.shared.metrics;
    assert_eq!((metrics.http_publications.get(), metrics.own_publications.get()), (5, 0));
}

#[test]
fn a_body_said_to_be_json_must_be_that() {
    let server = Server::start();
    let mut client = server.connect();
    let answer = client.post("/publish/a", "Content-Type: Application/JSON\r\n", "{\"px\":");
    assert_eq!(answer.status, 400);
    assert!(answer.body.starts_with("The body is said to be JSON, and isn't: "), "{}", answer.body);
    assert_eq!(client.get("/topics/a").status, 404);
}

#[test]
fn a_topic_that_is_none_and_one_too_many_are_refused() {
    let server = Server::with(|config| config.max_topics = 1, |_| {});
    let mut client = server.connect();
    assert!(client.post("/publish/a..b", "", "").body.contains("byte 2"));
    let mut client = server.connect();
    assert_eq!(client.post("/publish/a", "", "1").status, 200);
    let answer = client.post("/publish/b", "", "1");
    assert_eq!((answer.status, answer.body.contains("--max-topics")), (503, true));
    assert_eq!(server.refused(Refusal::TopicsFull), 1);
    assert_eq!(client.post("/publish/a", "", "1").json()["seq"], 2);
}

#[test]
fn lines_are_published_blank_ones_left_out() {
    let server = Server::start();
    let mut client = server.connect();
    let lines =
        "{\"topic\":\"a\",\"data\":1}\n\r\n  \n{\"topic\":\"a\",\"data\":2}\r\n{\"topic\":\"b\",\"data\":{\"x\":1.0}}";
    assert_eq!(client.post("/publish", "", lines).body, r#"{"published":3}"#);
    assert_eq!(last(&mut client, "a")["seq"], 2);
    assert!(client.get("/topics/b").body.ends_with(r#""data":{"x":1.0}}"#));
    assert_eq!(client.post("/publish", "", "").body, r#"{"published":0}"#);
    assert_eq!(server.context.shared.metrics.http_publications.get(), 3);
}

#[test]
fn lines_in_any_pieces_come_to_the_same() {
    let server = Server::start();
    let lines = "{\"topic\":\"a\",\"data\":\"é\"}\r\n\n{\"topic\":\"a\",\"data\":2}";
    for size in [1, 2, 7, 100] {
        let mut client = server.connect();
        client.0.get_ref().set_nodelay(true).unwrap();
        client.send("POST /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in lines.as_bytes().chunks(size) {
            client.send(format!("{:x}\r\n", piece.len())).send(piece).send("\r\n");
        }
        assert_eq!(client.send("0\r\n\r\n").answer().body, r#"{"published":2}"#);
    }
    assert_eq!(last(&mut server.connect(), "a")["seq"], 8);
}

#[test]
fn lines_are_published_before_the_body_has_ended() {
    let server = Server::start();
    let mut publisher = server.connect();
    publisher
        .send("POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"topic\":\"a\",\"data\":1}\n{\"to");
    let mut client = server.connect();
    while client.get("/topics/a").status == 404 {}
    assert_eq!(last(&mut client, "a")["data"], 1);
}

#[test]
fn a_bad_line_is_named_with_what_went_before() {
    let server = Server::start();
    let good = "{\"topic\":\"a\",\"data\":1}\n";
    for (bad, what) in [
        (
            "{\"topic\":\"a\"}\n",
            "Line 4 is bad: expected a field \"data\", found none; 2 publications went before it.\n",
        ),
        ("{\"topic\":\"a..\",\"data\":1}\n", "byte 2: dots stand between segments, one at a time; 2 publications"),
        ("nonsense", "Line 4 is bad: expected a JSON object"),
    ] {
        let mut client = server.connect();
        let answer = client.post("/publish", "", format!("{good}\n{good}{bad}{good}"));
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains(what), "{}", answer.body);
        // The whole body had come, so the connection is good for more.
        assert_eq!(client.get("/healthz").status, 200);
    }
    assert_eq!(server.context.shared.metrics.http_publications.get(), 6);
}

#[test]
fn a_line_without_end_is_refused_at_its_bound() {
    let server = Server::with(|config| config.max_message = "1KiB".parse().unwrap(), |_| {});
    let mut client = server.connect();
    client.send("POST /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("1000\r\n").send("x".repeat(0x1000));
    let answer = client.answer();
    assert_eq!(
        answer.body,
        "Line 1 is bad: expected at most 2048 bytes, found more; nothing was published before it.\n"
    );
    assert_eq!(answer.headers["connection"], "close");
    client.assert_ended();
}

#[test]
fn a_body_that_grows_too_large_says_what_went_before() {
    let server = Server::with(|config| config.max_body = "64B".parse().unwrap(), |_| {});
    let mut client = server.connect();
    client.send("POST /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let line = "{\"topic\":\"a\",\"data\":1}\n";
    let answer = client.send(format!("17\r\n{line}\r\n17\r\n{line}\r\n17\r\n")).answer();
    assert_eq!(answer.status, 413);
    assert_eq!(answer.body, "The body is larger than accepted here; 2 publications went before it.\n");
}

#[test]
fn a_client_that_expects_continue_is_told_to_or_refused() {
    let server = Server::with(|config| config.max_message = "1KiB".parse().unwrap(), |_| {});
    let mut client = server.connect();
    let head = "POST /publish/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n";
    client.send(head).send("Transfer-Encoding: chunked\r\n\r\n");
    assert_eq!((client.line().as_str(), client.line().as_str()), ("HTTP/1.1 100 Continue", ""));
    assert_eq!(client.send("2\r\n12\r\n1\r\n3\r\n0\r\n\r\n").answer().status, 200);
    assert_eq!(last(&mut client, "a")["data"], 123);
    let answer = client.send(head).send("Content-Length: 1025\r\n\r\n").answer();
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (413, "close"));
    client.assert_ended();
}

#[test]
fn publishing_needs_the_token() {
    let server = Server::with(|config| config.publish_token = Some("secret".parse().unwrap()), |_| {});
    for (target, headers) in [
        ("/publish/a", ""),
        ("/publish", ""),
        ("/publish/a?token=wrong", ""),
        ("/publish/a", "Authorization: Bearer wrong\r\n"),
    ] {
        let answer = server.connect().post(target, headers, "1");
        assert_eq!((answer.status, answer.headers["connection"].as_str()), (401, "close"), "{target} {headers}");
        assert!(answer.headers["www-authenticate"].starts_with("Bearer"));
    }
    assert_eq!(server.refused(Refusal::Forbidden), 4);
    let mut client = server.connect();
    assert_eq!(client.post("/publish/a", "Authorization: Bearer secret\r\n", "1").status, 200);
    assert_eq!(client.post("/publish/a?token=secret", "", "1").status, 200);
    assert_eq!(client.get("/topics").status, 200);
}

#[test]
fn a_page_from_elsewhere_may_not_publish() {
    let server = Server::with(|config| config.allow_origin = vec!["https://example.com".into()], |_| {});
    assert_eq!(server.connect().post("/publish/a", "Origin: https://evil.example\r\n", "1").status, 403);
    assert_eq!(server.connect().post("/publish/a", "Origin: https://example.com\r\n", "1").status, 200);
    assert_eq!(server.refused(Refusal::Origin), 1);
}

// ---- Requests and connections ------------------------------------------------------------------------------------------

#[test]
fn what_a_worker_has_read_is_answered() {
    let server = Server::start();
    let mut client = server.connect_after(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /re");
    assert_eq!(client.answer().body, "ok\n");
    assert_eq!(client.send("adyz HTTP/1.1\r\nHost: x\r\n\r\n").answer().body, "ready\n");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut client = server.connect();
    let mut requests = String::new();
    for n in 0..100 {
        requests += &format!("POST /publish/t{n} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n7");
    }
    client.send(requests);
    for n in 0..100 {
        assert_eq!(client.answer().json()["topic"], format!("t{n}"));
    }
}

#[test]
fn an_old_client_and_one_that_asks_for_it_are_closed_after_the_answer() {
    let server = Server::start();
    for request in ["GET /healthz HTTP/1.0\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"] {
        let mut client = server.connect();
        assert_eq!(client.send(request).answer().headers["connection"], "close");
        client.assert_ended();
    }
}

#[test]
fn a_client_that_has_said_all_still_gets_its_answers() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(40));
    client.0.get_ref().shutdown(Shutdown::Write).unwrap();
    for _ in 0..40 {
        assert_eq!(client.answer().status, 200);
    }
    client.assert_ended();
}

#[test]
fn other_paths_and_methods_are_refused_with_a_sentence() {
    let server = Server::start();
    let mut client = server.connect();
    let answer = client.get("/nothing");
    assert_eq!((answer.status, answer.body.as_str()), (404, "There is nothing at this path.\n"));
    for (method, target, allow) in [
        ("GET", "/publish", "POST"),
        ("GET", "/publish/a", "POST"),
        ("DELETE", "/topics", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
        ("PUT", "/", "GET, HEAD"),
        ("OPTIONS", "/healthz", "GET, HEAD"),
    ] {
        let answer = client.ask(method, target);
        assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, allow), "{method} {target}");
        assert!(answer.body.ends_with(".\n"));
    }
    let answer = client.get("/sse?topics=a");
    assert!(answer.status == 501 && answer.body.contains("unsupported"));
    assert_eq!(server.refused(Refusal::BadRequest), 8);
}

#[test]
fn a_head_has_the_length_and_not_the_body() {
    let server = Server::start();
    let mut client = server.connect();
    for target in ["/", "/healthz", "/topics", "/metrics", "/topics/none", "/nothing"] {
        assert_ne!(client.ask("HEAD", target).headers["content-length"], "0", "{target}");
    }
    assert_eq!(client.get("/healthz").body, "ok\n");
}

#[test]
fn a_malformed_request_ends_the_connection_with_its_answer() {
    let server = Server::start();
    let mut client = server.connect();
    let answer = client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost : x\r\n\r\n").answer();
    assert_eq!(answer.status, 200);
    assert_eq!(client.answer().status, 400);
    client.assert_ended();
    let mut client = server.connect();
    client.send("GET /").send("a".repeat(9000));
    assert_eq!(client.answer().status, 414);
}

#[test]
fn a_body_that_nobody_asked_for_is_not_taken_for_a_request() {
    let server = Server::start();
    let mut client = server.connect();
    let answer =
        client.send("GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\n").answer();
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (200, "close"));
    client.assert_ended();
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_waiting_and_loses_nothing() {
    let server = Server::start();
    let mut slow = server.connect();
    let count = 4000;
    let mut writer = slow.0.get_ref().try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.write_all("GET /page.js HTTP/1.1\r\nHost: x\r\n\r\n".repeat(count).as_bytes()).unwrap();
    });
    for _ in 0..100 {
        assert_eq!(server.connect().get("/healthz").status, 200);
    }
    let script = include_str!("page.js");
    for _ in 0..count {
        assert_eq!(slow.answer().body, script);
    }
    writing.join().unwrap();
}

#[test]
fn a_client_that_never_reads_is_dropped() {
    let server = Server::with(|config| config.close_timeout = Span(SOON), |_| {});
    let slow = server.connect();
    let mut writer = slow.0.get_ref().try_clone().unwrap();
    // The error comes when the server has dropped it with requests unread.
    let writing = std::thread::spawn(move || {
        let requests = "GET /page.js HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
        while writer.write_all(requests.as_bytes()).is_ok() {}
    });
    writing.join().unwrap();
    assert_eq!(server.connect().get("/healthz").status, 200);
}

#[test]
fn half_a_request_and_silence_is_answered_in_time() {
    let server = Server::with(|config| config.close_timeout = Span(SOON), |_| {});
    let mut client = server.connect();
    assert_eq!(client.send("GET /healthz HTTP/1.1\r\nHo").answer().status, 408);
    client.assert_ended();
    let mut client = server.connect();
    client.send("POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{\"topic\":\"a\",\"data\":1}\n{");
    let answer = client.answer();
    assert_eq!(answer.body, "The body did not come in time; 1 publication went before it.\n");
    assert_eq!(answer.status, 408);
    client.assert_ended();
    assert_eq!(server.refused(Refusal::HandshakeTimeout), 2);
}

#[test]
fn a_head_that_trickles_in_must_be_whole_in_time() {
    let server = Server::with(|config| config.handshake_timeout = Span(SOON), |_| {});
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nX: ");
    client.0.get_ref().set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    // A byte whenever there is no answer yet.
    while client.0.fill_buf().is_err() {
        client.send("y");
    }
    assert_eq!(client.answer().status, 408);
}

#[test]
fn a_client_that_is_quiet_between_requests_is_closed_without_a_word() {
    let server = Server::with(|_| {}, |settings| settings.keep_alive = SOON);
    let mut client = server.connect();
    assert_eq!(client.get("/healthz").status, 200);
    client.assert_ended();
}

#[test]
fn one_connection_too_many_is_told_so() {
    let server = Server::with(|_| {}, |settings| settings.http_connections_max = 1);
    let mut first = server.connect();
    assert_eq!(first.get("/healthz").status, 200);
    let mut second = server.connect();
    assert_eq!(second.answer().status, 503);
    second.assert_ended();
    assert_eq!(server.refused(Refusal::HttpFull), 1);
    assert_eq!(first.get("/healthz").status, 200);
}

#[test]
fn a_later_upgrade_goes_to_a_worker_with_its_bytes() {
    let server = Server::start();
    let mut client = server.connect();
    let upgrade = "GET /ws?topics=a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\nframes";
    client.send(format!("GET /page.js HTTP/1.1\r\nHost: x\r\n\r\n{upgrade}"));
    assert_eq!(client.answer().status, 200);
    let Message::Take(arrival) = server.worker.recv().unwrap() else { panic!("not a socket") };
    assert_eq!(arrival.received, upgrade.as_bytes());
    assert_eq!(arrival.peer, client.0.get_ref().local_addr().unwrap());
    rustix::net::send(&arrival.socket, b"HTTP/1.1 101 -\r\n\r\n", rustix::net::SendFlags::empty()).unwrap();
    assert_eq!(client.answer().status, 101);
}

#[test]
fn an_upgrade_that_no_worker_takes_is_refused() {
    let server = Server::start();
    let upgrade = "GET /raw/a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n";
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let mut client = server.connect();
        client.send(upgrade);
        waiting.push(client);
    }
    let mut client = server.connect();
    while server.worker.len() < 4 {
        assert_eq!(client.get("/healthz").status, 200);
    }
    assert_eq!(client.send(upgrade).answer().status, 503);
    client.assert_ended();
    assert_eq!(server.refused(Refusal::InboxFull), 1);
}

#[test]
fn draining_ends_idle_connections_and_finishes_requests() {
    let server = Server::start();
    let (mut idle, mut busy) = (server.connect(), server.connect());
    assert_eq!(idle.get("/readyz").status, 200);
    busy.send("POST /publish/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(busy.line(), "HTTP/1.1 100 Continue");
    busy.line();
    server.context.readiness.store(false, Ordering::Relaxed);
    assert_eq!(idle.get("/readyz").status, 503);
    server.inbox.drain(Moment::now() + NEVER);
    idle.assert_ended();
    let answer = busy.send("17").answer();
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (200, "close"));
    busy.assert_ended();
}

// ---- Topics ------------------------------------------------------------------------------------------------------------

#[test]
fn topics_are_listed_in_order_page_by_page() {
    let server = Server::start();
    for n in (0..600).rev() {
        server.context.shared.publisher.publish(&format!("q.{n:03}"), Payload::Text("1")).unwrap();
    }
    server.context.shared.publisher.publish("t.a", Payload::Text("1")).unwrap();
    let _held = server.context.shared.subscriptions.add(["q.*", "t.a"].into_iter()).unwrap();
    let mut client = server.connect();
    let all = client.get("/topics").json();
    assert_eq!((&all["count"], all["topics"].as_array().unwrap().len()), (&601.into(), 601));
    assert_eq!(all.get("next"), None);
    let (mut after, mut names) = (String::new(), Vec::new());
    loop {
        let page = client.get(&format!("/topics?pattern=q.%3E&limit=250&after={after}")).json();
        assert_eq!(page["count"], 600);
        for row in page["topics"].as_array().unwrap() {
            assert_eq!((&row["seq"], &row["subscribers"]), (&1.into(), &1.into()));
            names.push(row["topic"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!(names, (0..600).map(|n| format!("q.{n:03}")).collect::<Vec<_>>());
    for bad in ["/topics?pattern=a..b", "/topics?limit=0", "/topics?limit=10001", "/topics?limit=x"] {
        assert_eq!(client.get(bad).status, 400, "{bad}");
    }
}

#[test]
fn a_topic_that_nobody_needs_is_forgotten() {
    let hour = Duration::from_secs(3600);
    let (context, _worker) = context(|config| config.topic_expiry = Span(hour), |_| {});
    let publisher = &context.shared.publisher;
    for topic in ["old", "heard"] {
        publisher.publish(topic, Payload::Text("1")).unwrap();
    }
    let _held = context.shared.subscriptions.add(["heard"].into_iter()).unwrap();
    let now = crate::clock::wall_us();
    let has = |name: &str| context.tape.with_topics(|topics, _| topics.find(name).is_some());
    sweep::forget_some(&context, 0..256, now + 2 * hour.as_micros() as u64);
    assert!(has("old"), "it is on the tape still");
    let filler = "x".repeat(10_000);
    while context.tape.tail().0 < 2 {
        publisher.publish("new", Payload::Text(&filler)).unwrap();
    }
    sweep::forget_some(&context, 0..256, now);
    assert!(has("old"), "it is young still");
    sweep::forget_some(&context, 0..256, now + 2 * hour.as_micros() as u64);
    assert!(!has("old") && has("heard") && has("new"));
    assert_eq!(context.shared.metrics.topics_forgotten.get(), 1);
}

#[test]
fn a_topic_without_value_is_forgotten_without_expiry() {
    let (context, _worker) = context(|config| config.max_values = "4B".parse().unwrap(), |_| {});
    let publisher = &context.shared.publisher;
    publisher.publish("kept", Payload::Text("1")).unwrap();
    publisher.publish("dropped", Payload::Text("12345")).unwrap();
    while context.tape.tail().0 < 2 {
        publisher.publish("new", Payload::Text("1")).unwrap();
    }
    sweep::forget_some(&context, 0..256, crate::clock::wall_us());
    let names = context.tape.with_topics(|topics, _| ["kept", "dropped"].map(|name| topics.find(name).is_some()));
    assert_eq!(names, [true, false]);
}

// ---- Metrics -----------------------------------------------------------------------------------------------------------

/// Families by name: type and samples.
type Families = BTreeMap<String, (String, Vec<(String, f64)>)>;

/// Reads the figures with a parser of its own, and checks what both formats demand of every line.
fn parse_metrics(text: &str, is_openmetrics: bool) -> Families {
    let mut families: Families = BTreeMap::new();
    let (mut helped, mut family) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.ends_with('.') && help.len() > 8, "{line}");
            helped = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(helped, name, "help comes before the type");
            assert!(families.insert(name.to_owned(), (kind.to_owned(), Vec::new())).is_none(), "{name} twice");
            family = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').unwrap();
            assert!(is_openmetrics && name == family && name.ends_with(unit), "{line}");
        } else if line == "# EOF" {
            assert!(is_openmetrics);
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let (kind, samples) = families.get_mut(&family).unwrap_or_else(|| panic!("no family for {line}"));
            let suffixes: &[&str] = match (kind.as_str(), is_openmetrics) {
                ("counter", true) => &["_total"],
                ("info", true) => &["_info"],
                ("histogram", _) => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.iter().any(|suffix| name.strip_prefix(&*family) == Some(suffix)), "{line} in {family}");
            assert!(name.starts_with("stentor_") && (kind != "counter" || name.ends_with("_total")), "{line}");
            samples.push((sample.to_owned(), value.parse().unwrap()));
        }
    }
    assert!(!is_openmetrics || text.ends_with("# EOF\n"));
    families
}

fn value(families: &Families, sample: &str) -> f64 {
    let mut all = families.values().flat_map(|(_, samples)| samples);
    all.find(|(name, _)| name == sample).unwrap_or_else(|| panic!("no sample {sample}")).1
}

#[test]
fn the_figures_are_those_of_the_formats_that_prometheus_reads() {
    let server = Server::start();
    let worker = &server.context.shared.metrics.workers[0];
    worker.turn.record([5, 60, 60, 3_000_000].into_iter());
    worker.deliveries.add(12);
    server.context.shared.metrics.close(4100);
    let mut client = server.connect();
    client.post("/publish/a", "", "12345");
    let answer = client.get("/metrics");
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let classic = parse_metrics(&answer.body, false);
    client.send(
        "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text;version=1.0.0;q=0.6,*/*\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!(answer.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let open = parse_metrics(&answer.body, true);
    for families in [&classic, &open] {
        for (sample, expected) in [
            ("stentor_publications_total{source=\"http\"}", 1.0),
            ("stentor_deliveries_total{worker=\"0\"}", 12.0),
            ("stentor_websocket_closes_total{code=\"4100\"}", 1.0),
            ("stentor_refusals_total{reason=\"forbidden\"}", 0.0),
            ("stentor_tape_publications_total", 1.0),
            ("stentor_topics", 1.0),
            ("stentor_values_bytes", 5.0),
            ("stentor_http_connections", 1.0),
            ("stentor_connections_max", 10_000.0),
        ] {
            assert_eq!(value(families, sample), expected, "{sample}");
        }
        assert!(value(families, "stentor_process_descriptors_open") > 3.0);
        assert!(value(families, "stentor_process_resident_memory_bytes") > 100_000.0);
        assert!(value(families, "stentor_process_cpu_seconds_total") > 0.0);
        assert!(value(families, "stentor_start_time_seconds") > 1.6e9);
        for (name, (_, samples)) in families.iter().filter(|(_, (kind, _))| kind == "histogram") {
            assert!(name.ends_with("_seconds"));
            let of = |suffix: &'static str| samples.iter().filter(move |(sample, _)| sample.contains(suffix));
            let buckets: Vec<f64> = of("_bucket{").map(|(_, value)| *value).collect();
            assert!(buckets.is_sorted() && buckets.len() == 17, "{name}: {buckets:?}");
            assert!(of("_bucket{").next_back().unwrap().0.contains("le=\"+Inf\""));
            assert_eq!(buckets.last(), of("_count{").next().map(|(_, count)| count));
        }
        assert_eq!(value(families, "stentor_turn_duration_seconds_count{worker=\"0\"}"), 4.0);
        assert!((value(families, "stentor_turn_duration_seconds_sum{worker=\"0\"}") - 3.000125).abs() < 1e-6);
    }
    assert_eq!(value(&open, "stentor_turn_duration_seconds_bucket{le=\"0.0001\",worker=\"0\"}"), 3.0);
}

// ---- The page ----------------------------------------------------------------------------------------------------------

#[test]
fn the_page_may_load_nothing_from_elsewhere() {
    let server = Server::start();
    let mut client = server.connect();
    for (target, kind) in [("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")] {
        let answer = client.get(target);
        assert!(answer.status == 200 && answer.headers["content-type"].starts_with(kind), "{target}");
        assert!(answer.headers["content-security-policy"].starts_with("default-src 'none'"));
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert!(!answer.body.contains("http://") && !answer.body.contains("https://"), "{target}");
    }
}

#[test]
fn every_address_on_the_page_is_served() {
    let server = Server::start();
    let mut client = server.connect();
    let html = client.get("/").body;
    let after = |key: &'static str| html.split(key).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    let named: Vec<String> = after("src=\"").chain(after("href=\"")).filter(|at| !at.starts_with("data:")).collect();
    assert!(named.len() >= 5, "{named:?}");
    for address in named {
        assert_eq!(client.get(&address).status, 200, "{address}");
    }
}

// ---- Bad luck ----------------------------------------------------------------------------------------------------------

#[test]
fn whatever_clients_send_the_next_one_is_served() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let pieces: [&[u8]; 16] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /publish HTTP/1.1\r\nHost: x\r\n",
        b"POST /publish/a HTTP/1.1\r\nHost: x\r\n",
        b"Content-Length: 30\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"Expect: 100-continue\r\n",
        b"5\r\n12345\r\n",
        b"0\r\n\r\n",
        b"{\"topic\":\"a\",\"data\":1}\n",
        b"{\"topic\":\"a\",",
        b"\r\n",
        b"\n",
        b"\xff\x00\x16\x03",
        b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /topics HTTP/1.0\r\n\r\n",
        b"GET /raw/a HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    let server = Server::with(|config| config.close_timeout = Span(SOON), |_| {});
    for _ in 0..300 {
        let mut client = server.connect();
        for _ in 0..random.usize(1..8) {
            // An error means that the server has ended a connection that it can't use.
            if client.0.get_mut().write_all(random.choice(pieces).unwrap()).is_err() {
                break;
            }
        }
        if random.bool() {
            let _ = client.0.get_ref().shutdown(Shutdown::Write);
            // Those for a worker wait in its inbox; here they are turned away.
            while let Ok(Message::Take(arrival)) = server.worker.try_recv() {
                drop(arrival);
            }
        }
    }
    assert_eq!(server.connect().get("/healthz").status, 200);
}
