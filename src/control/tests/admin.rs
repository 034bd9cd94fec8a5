//! The admin address.

use std::net::SocketAddr;

use super::*;

/// A thread with an address of its own.
pub(super) struct Admin {
    address: SocketAddr,
    pub(super) context: Context,
    inbox: Inbox<Socket>,
    workers: Inbox<Socket>,
    _worker: Receiver<Message<Socket>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    fn start(config: impl FnOnce(&mut Config)) -> Admin {
        Admin::with(config, Control::admin)
    }

    /// One that does something else.
    pub(super) fn with(
        config: impl FnOnce(&mut Config),
        make: impl FnOnce(OwnParts) -> std::io::Result<Control<Epoll>>,
    ) -> Admin {
        let (context, workers, worker) = context(config, |_| {});
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let waker = Arc::new(Waker::new().unwrap());
        let (inbox, receiver) = Inbox::new(1, Arc::clone(&waker));
        let edge = Epoll::new(waker, Duration::ZERO).unwrap();
        let parts = OwnParts { context: context.clone(), edge, inbox: receiver, socket: listener.into() };
        let control = make(parts).unwrap();
        let thread = std::thread::spawn(move || control.run());
        Admin { address, context, inbox, workers, _worker: worker, thread: Some(thread) }
    }

    pub(super) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Client(BufReader::new(stream))
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.inbox.drain(Moment::now());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

#[test]
fn health_is_red_while_a_worker_stands_still_and_green_when_it_goes_on() {
    let admin = Admin::start(|config| config.stall_limit = Span::new(SOON));
    let worker = &admin.context.shared.metrics.workers[0];
    worker.sleeps_for.set(u64::MAX);
    let mut client = admin.connect();
    assert_eq!(client.get("/healthz").body, "ok\n");
    worker.turn_begun.set(Moment::now().0);
    until("red", || client.get("/healthz").status != 200);
    let answer = client.get("/healthz");
    assert_eq!((answer.status, answer.body.as_str()), (503, "Worker 0 has been in one turn for 0 s.\n"));
    worker.turn_begun.set(0);
    assert_eq!(client.get("/healthz").status, 200);
    // Nobody reads its inbox.
    let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
    let permit = admin.context.limits.admit(None, Moment::now()).unwrap();
    let arrival = Arrival {
        socket: OwnedFd::from(socket).into(),
        peer: admin.address,
        permit,
        by: Listener::Clear,
        beginning: Beginning::Awaited,
    };
    admin.workers.hand_over(arrival).unwrap();
    until("red", || client.get("/healthz").status != 200);
    assert_eq!(client.get("/healthz").body, "Worker 0 has left a wake-up unanswered for 0 s.\n");
}

#[test]
fn health_and_figures_need_no_lock_that_a_worker_may_hold() {
    let admin = Admin::start(|_| {});
    let _held = admin.context.tape.appender();
    let mut client = admin.connect();
    assert_eq!(client.get("/healthz").status, 200);
    assert!(client.get("/metrics").body.contains("stentor_admin_connections"));
    assert_eq!(client.get("/readyz").status, 200);
}

#[test]
fn operators_find_what_is_for_them_and_nothing_else() {
    let admin = Admin::start(|config| config.publish_token = Some("secret".parse().unwrap()));
    let mut client = admin.connect();
    assert!(client.get("/").body.contains("/healthz"));
    assert_eq!((client.get("/debug/slow").status, client.get("/debug/slow?token=secret").status), (401, 200));
    for target in ["/topics", "/ws", "/sse?topics=a", "/raw/a", "/stentor.js", "/nothing"] {
        assert_eq!(client.get(target).status, 404, "{target}");
    }
    assert_eq!(client.ask("HEAD", "/metrics").status, 200);
    assert_eq!(client.ask("DELETE", "/healthz").status, 405);
    admin.context.shared.close_doors();
    assert_eq!(client.get("/readyz").status, 503);
}

#[test]
fn a_page_that_a_name_was_made_to_lead_here_for_reads_no_figures() {
    let near = Admin::start(|config| config.admin_listen = Some("127.0.0.1:9002".parse().unwrap()));
    let guarded = Admin::start(|config| {
        config.admin_listen = Some("[::1]:9002".parse().unwrap());
        (config.publish_token, config.anonymous_publish) = (Some("secret".parse().unwrap()), true);
    });
    let far = Admin::start(|config| {
        config.admin_listen = Some("192.0.2.1:9002".parse().unwrap());
        config.admin_token = Some("boss".parse().unwrap());
    });
    let named = Admin::start(|config| {
        config.admin_listen = Some("127.0.0.1:9002".parse().unwrap());
        config.allow_origin = vec!["https://ops.example".into()];
    });
    let status = |admin: &Admin, path: &str, host: &str, origin: &str| {
        let origin = if origin.is_empty() { String::new() } else { format!("Origin: {origin}\r\n") };
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{origin}\r\n");
        admin.connect().send(head).answer().status
    };
    for (host, origin, expected) in [
        ("127.0.0.1:9002", "", 200),
        ("localhost:1", "http://localhost:5173", 200),
        ("evil.example:9002", "", 403),
        ("evil.example:9002", "http://evil.example:9002", 403),
        ("localhost", "http://evil.example", 403),
        ("localhost", "null", 403),
        ("localhost:80:evil", "", 403),
        ("[::1].evil.example", "", 403),
    ] {
        for path in ["/metrics", "/"] {
            for admin in [&near, &guarded] {
                assert_eq!(status(admin, path, host, origin), expected, "{path} {host} {origin}");
            }
            let shown = format!("{path}?token=boss");
            assert_eq!(status(&far, &shown, host, origin), 200, "{path} {host} {origin}: for whoever shows the token");
            let told = if path == "/" { 200 } else { 401 };
            assert_eq!(status(&far, path, host, origin), told, "{path} {host} {origin}");
        }
        for path in ["/healthz", "/readyz"] {
            assert_eq!(status(&near, path, host, origin), 200, "{path} {host} {origin}");
        }
    }
    let slow = |host: &str, origin: &str| status(&guarded, "/debug/slow?token=secret", host, origin);
    assert_eq!((slow("localhost", ""), slow("evil.example", "")), (200, 403));
    let page = |origin: &str| status(&named, "/metrics", "localhost:9002", origin);
    assert_eq!((page("https://ops.example"), page("http://localhost:5173")), (200, 403));
}

#[test]
fn connections_that_say_nothing_keep_no_probe_out() {
    let admin = Admin::start(|_| {});
    let _silent: Vec<Client> = (0..80).map(|_| admin.connect()).collect();
    let mut halves: Vec<Client> = (0..80).map(|_| admin.connect()).collect();
    for half in &mut halves {
        let _ = half.0.get_mut().write_all(b"GET /hea");
    }
    // Whoever is in the middle of a head is let be for a moment; until then it may be refused.
    let answered = || {
        let mut stream = TcpStream::connect(admin.address)?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer.ends_with("ok\n"))
    };
    until("an answer", || answered().is_ok_and(|answered: bool| answered));
}
