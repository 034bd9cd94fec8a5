//! Requests in order, and the ends of connections.

use super::*;

#[test]
fn what_a_worker_has_read_is_answered() {
    let server = Server::start();
    let mut client = server.connect_after(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /re");
    assert_eq!(client.answer().body, "ok\n");
    assert_eq!(client.send("adyz HTTP/1.1\r\nHost: localhost\r\n\r\n").answer().body, "ready\n");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut client = server.connect();
    let mut requests = String::new();
    for n in 0..100 {
        requests += &format!("POST /publish/t{n} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n7");
    }
    client.send(requests);
    for n in 0..100 {
        assert_eq!(client.answer().json()["topic"], format!("t{n}"));
    }
}

#[test]
fn an_old_client_and_one_that_asks_for_it_are_closed_after_the_answer() {
    let server = Server::start();
    for request in
        ["GET /healthz HTTP/1.0\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"]
    {
        let mut client = server.connect();
        assert_eq!(client.send(request).answer().headers["connection"], "close");
        client.assert_ended();
    }
}

#[test]
fn a_client_that_has_said_all_still_gets_its_answers() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(40));
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
        ("GET", "/publish", "POST, OPTIONS"),
        ("GET", "/publish/a", "POST, OPTIONS"),
        ("DELETE", "/topics", "GET, HEAD, OPTIONS"),
        ("POST", "/metrics", "GET, HEAD, OPTIONS"),
        ("PUT", "/", "GET, HEAD, OPTIONS"),
    ] {
        let answer = client.ask(method, target);
        assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, allow), "{method} {target}");
        assert!(answer.body.ends_with(".\n"));
    }
    assert_eq!(server.refused(Refusal::BadRequest), 6);
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
    let answer = client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost : x\r\n\r\n").answer();
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
    let answer = client
        .send("GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\n")
        .answer();
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
        writer.write_all("GET /console.js HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(count).as_bytes()).unwrap();
    });
    for _ in 0..100 {
        assert_eq!(server.connect().get("/healthz").status, 200);
    }
    let script = include_str!("../console/console.js");
    for _ in 0..count {
        assert_eq!(slow.answer().body, script);
    }
    writing.join().unwrap();
}

#[test]
fn a_client_that_never_reads_is_dropped() {
    let server = Server::with(|config| config.close_timeout = Span::new(SOON), |_| {});
    let slow = server.connect();
    let mut writer = slow.0.get_ref().try_clone().unwrap();
    // The error comes when the server has dropped it with requests unread.
    let writing = std::thread::spawn(move || {
        let requests = "GET /console.js HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
        while writer.write_all(requests.as_bytes()).is_ok() {}
    });
    writing.join().unwrap();
    assert_eq!(server.connect().get("/healthz").status, 200);
}

#[test]
fn half_a_request_and_silence_is_answered_in_time() {
    let server = Server::with(|config| config.close_timeout = Span::new(SOON), |_| {});
    let mut client = server.connect();
    assert_eq!(client.send("GET /healthz HTTP/1.1\r\nHo").answer().status, 408);
    client.assert_ended();
    let mut client = server.connect();
    client
        .send("POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{\"topic\":\"a\",\"data\":1}\n{");
    let answer = client.answer();
    assert_eq!(answer.body, "The body did not come in time; 1 publication went before it.\n");
    assert_eq!(answer.status, 408);
    client.assert_ended();
    assert_eq!(server.refused(Refusal::HandshakeTimeout), 2);
}

#[test]
fn a_head_that_trickles_in_must_be_whole_in_time() {
    let server = Server::with(|config| config.handshake_timeout = Span::new(SOON), |_| {});
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
    let server = Server::with(|config| config.keep_alive_timeout = Span::new(SOON), |_| {});
    let mut client = server.connect();
    assert_eq!(client.get("/healthz").status, 200);
    client.assert_ended();
}

#[test]
fn a_later_upgrade_or_stream_of_events_goes_to_a_worker_with_its_bytes() {
    let server = Server::start();
    for (target, headers, status) in [("/ws", "Upgrade: websocket\r\n", 101), ("/sse", "", 200)] {
        let mut client = server.connect();
        let later = format!("GET {target}?topics=a HTTP/1.1\r\nHost: localhost\r\n{headers}\r\nframes");
        client.send(format!("GET /console.js HTTP/1.1\r\nHost: localhost\r\n\r\n{later}"));
        assert_eq!(client.answer().status, 200);
        let Message::Take(arrival) = server.worker.recv().unwrap() else { panic!("not a socket") };
        let (received, is_awaited) = arrival.beginning.into_read();
        assert_eq!((received.as_slice(), is_awaited), (later.as_bytes(), false));
        assert_eq!(arrival.peer, client.0.get_ref().local_addr().unwrap());
        let answer = format!("HTTP/1.1 {status} -\r\nContent-Length: 0\r\n\r\n");
        rustix::net::send(&arrival.socket, answer.as_bytes(), rustix::net::SendFlags::empty()).unwrap();
        assert_eq!(client.answer().status, status);
    }
}

#[test]
fn an_upgrade_that_no_worker_takes_is_refused() {
    let server = Server::start();
    let upgrade =
        "GET /raw/a HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:5173\r\nUpgrade: websocket\r\n\r\n";
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
    let answer = client.send(upgrade).answer();
    assert_eq!((answer.status, answer.reader()), (503, Some("http://localhost:5173")));
    client.assert_ended();
    assert_eq!(server.refused(Refusal::InboxFull), 1);
}

#[test]
fn draining_ends_idle_connections_and_answers_requests_that_were_begun() {
    let server = Server::start();
    let (mut idle, mut busy) = (server.connect(), server.connect());
    assert_eq!(idle.get("/readyz").status, 200);
    busy.send("POST /publish/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(busy.line(), "HTTP/1.1 100 Continue");
    busy.line();
    server.context.shared.close_doors();
    assert_eq!(idle.get("/readyz").status, 503);
    server.inbox.drain(Moment::now() + NEVER);
    idle.assert_ended();
    let answer = busy.send("17").answer();
    // Those who would have been sent it are gone.
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (503, "close"));
    busy.assert_ended();
}

#[test]
fn a_connection_that_sent_much_keeps_no_room_for_it() {
    let (context, ..) = context(|_| {}, |_| {});
    let waker = Arc::new(Waker::new().unwrap());
    let (inbox, receiver) = Inbox::new(1, Arc::clone(&waker));
    let limits = Arc::clone(&context.limits);
    let mut control = Control::new(context, Epoll::new(waker, Duration::ZERO).unwrap(), receiver, Vec::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, peer) = listener.accept().unwrap();
    // What a worker has read: many requests, and the beginning of one.
    let received = [&b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000)[..], b"GET /"].concat();
    let permit = limits.admit(None, Moment::now()).unwrap();
    inbox
        .hand_over(Arrival {
            socket: OwnedFd::from(socket).into(),
            peer,
            permit,
            by: Listener::Clear,
            beginning: Beginning::Read(received),
        })
        .unwrap();
    let room = |control: &Control<Epoll>| {
        let (_, connection) = control.connections.iter().next().unwrap();
        (connection.input.len(), connection.input.capacity(), control.pending.bytes())
    };
    control.turn();
    assert!(room(&control).1 > 30_000);
    let mut answers = [0; 64 * 1024];
    while room(&control).0 > 5 {
        client.set_nonblocking(true).unwrap();
        let _ = client.read(&mut answers);
        control.turn();
    }
    let (_, input, out) = room(&control);
    assert!(input <= 8 * 1024 && out <= 8 * 1024, "{input} {out}");
}
