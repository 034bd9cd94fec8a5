//! Who goes when there is no room, who is asked first, and what one client can make the others wait for.

use super::{super::work, *};

/// A client in the middle of a body, which nobody may end for its place.
fn in_a_body(server: &Server) -> Client {
    let mut client = server.connect();
    client.send("POST /publish HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n");
    assert_eq!(client.line(), "HTTP/1.1 100 Continue");
    client.line();
    client
}

/// A client with answers that it doesn't take.
fn that_takes_nothing(server: &Server, target: &str) -> Client {
    let client = server.connect();
    let mut writer = client.0.get_ref();
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    writer.set_nonblocking(true).unwrap();
    let _ = writer.write(request.repeat(200).as_bytes());
    writer.set_nonblocking(false).unwrap();
    client
}

/// A page of topics that takes some 200 KB.
fn a_long_list(server: &Server) {
    let mut batch = server.context.shared.publisher.batch();
    for n in 0..1000 {
        batch.push(&format!("{}.{n}", "name".repeat(28)), Payload::Text("1")).unwrap();
    }
}

const PROBE: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
const LIST: &[u8] = b"GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n";
const PAGES_LIST: &[u8] = b"GET /topics HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:5173\r\n\r\n";

#[test]
fn one_connection_too_many_is_told_so_and_a_probe_is_answered() {
    let server = Server::with(|_| {}, |settings| settings.http_connections_max = 2);
    let _busy = [in_a_body(&server), in_a_body(&server)];
    let mut refused = server.connect_after(PAGES_LIST);
    let answer = refused.answer();
    assert_eq!((answer.status, answer.reader()), (503, Some("http://localhost:5173")));
    refused.assert_ended();
    assert_eq!(server.refused(Refusal::HttpFull), 1);
    let mut probe = server.connect_after(PROBE);
    let answer = probe.answer();
    assert_eq!((answer.body.as_str(), answer.headers["connection"].as_str()), ("ok\n", "close"));
    probe.assert_ended();
}

#[test]
fn probes_that_stay_keep_no_place_from_the_next() {
    let server = Server::with(|_| {}, |settings| settings.http_connections_max = 1);
    let _busy = in_a_body(&server);
    let mut probes = Vec::new();
    for _ in 0..100 {
        let mut probe = server.connect_after(PROBE);
        assert_eq!(probe.answer().status, 200);
        probes.push(probe);
    }
    assert_eq!(server.context.limits.connections(), 1 + 32, "the others were ended");
}

#[test]
fn the_longest_idle_goes_first() {
    let server = Server::with(|_| {}, |settings| settings.http_connections_max = 3);
    let (mut first, mut second, mut third) = (server.connect(), server.connect(), server.connect());
    for client in [&mut first, &mut second, &mut third] {
        assert_eq!(client.get("/healthz").status, 200);
    }
    assert_eq!(first.get("/healthz").status, 200);
    assert_eq!(server.connect_after(LIST).answer().status, 200);
    second.assert_ended();
    assert_eq!((first.get("/topics").status, third.get("/topics").status), (200, 200));
    assert_eq!(server.evicted(Eviction::Idle), 1);
}

#[test]
fn whoever_takes_its_answers_slowest_goes_when_nobody_is_idle() {
    let server = Server::with(|_| {}, |settings| settings.http_connections_max = 2);
    let _busy = in_a_body(&server);
    let _slow = that_takes_nothing(&server, "/stentor.js");
    // Until it has taken nothing for long enough, there is no place.
    until("a place", || server.connect_after(LIST).answer().status == 200);
    assert_eq!((server.evicted(Eviction::Slow), server.evicted(Eviction::Idle)), (1, 0));
}

#[test]
fn a_byte_now_and_then_keeps_no_place() {
    for beginning in
        ["POST /publish/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n", "GET / HTTP/1.1\r\nX: "]
    {
        let server = Server::with(|_| {}, |settings| settings.http_connections_max = 2);
        let _busy = in_a_body(&server);
        let mut slow = server.connect();
        slow.send(beginning);
        // It has gone on each time that a place is looked for.
        until("a place", || {
            let _ = slow.0.get_ref().write(b"x");
            server.connect_after(LIST).answer().status == 200
        });
        assert_eq!((server.evicted(Eviction::Slow), server.evicted(Eviction::Idle)), (1, 0), "{beginning}");
    }
}

#[test]
fn whoever_comes_while_all_others_have_just_begun_is_let_in_once_it_shows_who_is_slow() {
    let server = Server::with(|_| {}, |settings| settings.http_connections_max = 8);
    let slow: Vec<Client> = (0..8).map(|_| server.connect_after(b"GET / HTTP/1.1\r\nX: ")).collect();
    let newcomers: Vec<Client> = (0..8).map(|_| server.connect_after(LIST)).collect();
    for mut client in newcomers {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(server.refused(Refusal::HttpFull), 0);
    drop(slow);
}

#[test]
fn the_answers_of_all_have_one_bound_and_whoever_takes_his_is_answered() {
    let server = Server::with(|config| config.max_http_pending = bytesize::ByteSize::mib(4), |_| {});
    server.context.shared.publisher.publish("large", Payload::Text(&"x".repeat(60_000))).unwrap();
    let _slow: Vec<Client> = (0..200).map(|_| that_takes_nothing(&server, "/topics/large")).collect();
    let pending = &server.context.shared.metrics.http_pending_bytes;
    let mut most = 0;
    until("memory to be needed", || {
        assert_eq!(server.connect().get("/topics/large").status, 200);
        most = most.max(pending.get());
        server.evicted(Eviction::Memory) >= 20
    });
    assert!((3 << 20..(4 << 20) + 100_000).contains(&most), "{most}");
}

#[test]
fn pages_of_the_list_are_within_the_bound_too() {
    let server = Server::with(|config| config.max_http_pending = bytesize::ByteSize::mib(4), |_| {});
    a_long_list(&server);
    let _slow: Vec<Client> = (0..40).map(|_| that_takes_nothing(&server, "/topics?limit=10000")).collect();
    let mut most = 0;
    until("memory to be needed", || {
        assert_eq!(server.connect().get("/topics").json()["count"], 1000);
        most = most.max(server.context.shared.metrics.http_pending_bytes.get());
        server.evicted(Eviction::Memory) >= 10
    });
    assert!(most <= 4 << 20, "{most}");
}

#[test]
fn a_request_for_whose_answer_there_is_no_room_for_long_is_told_so() {
    let (mut control, _inbox) = alone(|config| {
        config.close_timeout = Span::new(SOON);
        config.max_http_pending = bytesize::ByteSize::mib(4);
    });
    let _all = control.pending.hold(5 << 20);
    let mut client = control.connect(PAGES_LIST);
    let mut probe = control.connect(PROBE);
    for client in [&mut probe, &mut client] {
        until("an answer", || {
            control.turn();
            client.0.fill_buf().is_ok()
        });
    }
    assert_eq!(probe.answer().status, 200);
    let answer = client.answer();
    assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (503, "1"));
    assert_eq!(answer.reader(), Some("http://localhost:5173"));
}

#[test]
fn a_payload_that_trickles_in_ends_and_a_feed_of_lines_may_be_slow() {
    let server = Server::with(
        |config| {
            config.close_timeout = Span::new(Duration::from_millis(300));
            config.min_http_rate = bytesize::ByteSize::mib(1);
        },
        |_| {},
    );
    let (mut one, mut lines) = (server.connect(), server.connect());
    one.send("POST /publish/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n");
    lines.send("POST /publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    one.0.get_ref().set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    // Some bytes whenever there is no answer yet.
    until("an answer", || {
        if one.0.fill_buf().is_ok() {
            return true;
        }
        one.send("y");
        lines.send("1\r\n\n\r\n");
        false
    });
    assert_eq!(one.answer().status, 408);
    assert_eq!(lines.send("0\r\n\r\n").answer().json()["published"], 0);
}

#[test]
fn an_answer_that_is_hardly_taken_is_cut_and_counted() {
    let server = Server::with(
        |config| {
            config.close_timeout = Span::new(Duration::from_millis(300));
            config.min_http_rate = bytesize::ByteSize::mib(64);
        },
        |_| {},
    );
    a_long_list(&server);
    let mut slow = that_takes_nothing(&server, "/topics");
    // It takes some now and then, and never as much as it should.
    let mut some = [0; 2000];
    until("the end", || {
        slow.0.get_ref().set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let _ = slow.0.get_mut().read(&mut some);
        // It is slow by the clock, so only the clock can make it so.
        std::thread::sleep(Duration::from_millis(5));
        server.evicted(Eviction::Pace) == 1
    });
}

/// A control thread whose turns the test takes.
struct Alone {
    control: Control<Epoll>,
    inbox: Inbox<Socket>,
    listener: TcpListener,
}

impl std::ops::Deref for Alone {
    type Target = Control<Epoll>;

    fn deref(&self) -> &Control<Epoll> {
        &self.control
    }
}

impl Alone {
    fn turn(&mut self) {
        self.control.turn();
    }

    fn connect(&self, received: &[u8]) -> Client {
        let stream = arrive(&self.listener, &self.control.context.limits, |_| None, received, &self.inbox);
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        Client(BufReader::new(stream))
    }
}

fn alone(config: impl FnOnce(&mut Config)) -> (Alone, Receiver<Message<Socket>>) {
    let (context, workers, worker) = context(config, |_| {});
    let waker = Arc::new(Waker::new().unwrap());
    let (inbox, receiver) = Inbox::new(1024, Arc::clone(&waker));
    let edge = Epoll::new(waker, Duration::ZERO).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (Alone { control: Control::new(context, edge, receiver, vec![workers]), inbox, listener }, worker)
}

#[test]
fn a_probe_does_not_stand_behind_the_requests_of_others() {
    let (mut control, _worker) = alone(|_| {});
    let mut batch = control.control.context.shared.publisher.batch();
    for n in 0..5000 {
        batch.push(&format!("a.{n}"), Payload::Text("1")).unwrap();
    }
    drop(batch);
    let request = "GET /topics?limit=1&pattern=*.x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let _others: Vec<Client> = (0..20).map(|_| control.connect(request.repeat(300).as_bytes())).collect();
    for _ in 0..10 {
        control.turn();
        // What is begun is finished, no more.
        assert!(control.worked < work::TURN + work::CONNECTION + work::STRETCH, "{}", control.worked);
    }
    assert!(!control.again.is_empty(), "there is plenty to do");
    let mut probe = control.connect(PROBE);
    control.turn();
    assert_eq!(probe.answer().status, 200);
    // One that is connected already, too.
    let mut later = control.connect(b"");
    control.turn();
    later.send(PROBE);
    control.turn();
    control.turn();
    assert_eq!(later.answer().status, 200);
}

#[test]
fn everybody_has_a_turn_in_the_same_number_of_turns() {
    let (mut control, _worker) = alone(|_| {});
    let request = "GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut greedy: Vec<Client> = (0..30).map(|_| control.connect(request.repeat(2000).as_bytes())).collect();
    for _ in 0..3 {
        control.turn();
    }
    let mut modest = control.connect(request.as_bytes());
    // Thirty of them have one turn each, ten in a turn of the thread.
    for _ in 0..6 {
        control.turn();
    }
    assert_eq!(modest.answer().status, 200);
    assert!(greedy.iter_mut().all(|client| client.answer().status == 200));
}

#[test]
fn whoever_publishes_little_goes_on_before_workers_have_caught_up() {
    let server = Server::with(|_| {}, |_| {});
    let publisher = &server.context.shared.publisher;
    let (lead, written) = (publisher.lead(), || server.context.tape.written());
    lead.takes_turn(0, Moment::now(), Duration::from_secs(60));
    lead.show(0, Some(written()));
    let begun = written();
    while written() - begun <= 2 * lead.bound() {
        publisher.batch().push("a", Payload::Text(&"x".repeat(1000))).unwrap();
    }
    let mut poster = server.connect_after(b"POST /publish/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1");
    let mut probe = server.connect_after(PROBE);
    assert_eq!(probe.answer().status, 200, "it has been read by now, and waits");
    lead.show(0, Some(written() - lead.bound() * 3 / 2));
    assert!(publisher.holds(Moment::now()));
    assert_eq!(poster.answer().status, 200);
}
