//! The service manager that starts the program and wants to be told how it goes, as systemd does with `Type=notify`: a datagram
//! socket.

use std::{
    fs,
    os::{linux::net::SocketAddrExt, unix::net},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    process::Signal,
    time::{ClockId, clock_gettime},
};
use stentor::{Payload, Pulse};

use crate::{
    client::{Client, PATIENCE, serve, tcp},
    process::{Running, stentor, wait_for},
    reload::File,
};

struct Manager {
    socket: net::UnixDatagram,
    /// As `NOTIFY_SOCKET` has it.
    name: String,
}

impl Manager {
    fn new(is_abstract: bool) -> Manager {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("notify-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from("/tmp").join(format!("stentor-{name}"));
        let socket = match is_abstract {
            true => net::UnixDatagram::bind_addr(&net::SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
            false => net::UnixDatagram::bind(&path).unwrap(),
        };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, name: if is_abstract { format!("@{name}") } else { path.display().to_string() } }
    }

    /// The program, that it has started with these settings and this in its environment.
    fn starts(&self, args: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = stentor();
        command.args(["--listen", "127.0.0.1:0", "--workers", "1", "--pin", "none"]).args(args);
        command.env("NOTIFY_SOCKET", &self.name).envs(environment.iter().copied());
        command
    }

    /// The next datagram.
    fn hear(&self) -> String {
        let mut text = [0; 4096];
        let len = self.socket.recv(&mut text).expect("it says something");
        String::from_utf8(text[..len].to_vec()).unwrap()
    }

    /// The value of a line of it.
    fn hear_of(&self, name: &str) -> (String, String) {
        let text = self.hear();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        (value.unwrap_or_else(|| panic!("no {name} in {text:?}")).to_owned(), text)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.name);
    }
}

fn monotonic_us() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

#[test]
fn it_is_told_that_the_server_listens_reads_its_settings_again_and_stops() {
    for is_abstract in [false, true] {
        let manager = Manager::new(is_abstract);
        let file = File::new("max-pending = '1MiB'\n");
        let running = Running::spawn(&mut manager.starts(&["--config", file.path(), "--drain-timeout", "3s"], &[]));
        let (ready, text) = manager.hear_of("READY");
        assert_eq!((&*ready, text), ("1", format!("READY=1\nSTATUS=Listens on {}\n", running.address)));
        tcp(running.at());

        for (settings, outcome) in [("max-pending = '2MiB'\n", "were read again"), ("max-pending = 2\n", "max-pending")]
        {
            file.write(settings);
            let before = monotonic_us();
            running.signal(Signal::HUP);
            let (reloading, text) = manager.hear_of("RELOADING");
            let time = text.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("it says when");
            let time = time.parse::<i64>().unwrap();
            assert!(reloading == "1" && (before..=monotonic_us()).contains(&time), "{text}");
            let (ready, text) = manager.hear_of("READY");
            assert!(ready == "1" && text.contains(outcome) && text.lines().count() == 2, "{text}");
        }

        running.signal(Signal::TERM);
        let (stopping, text) = manager.hear_of("STOPPING");
        assert_eq!(stopping, "1");
        // Of a --close-timeout of 5 s, twice, and something over.
        assert!(text.contains("\nEXTEND_TIMEOUT_USEC=18000000\n") && text.contains("\nSTATUS="), "{text}");
        assert_eq!(running.end().0, Some(0));
    }
}

#[test]
fn a_start_that_fails_says_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let manager = Manager::new(false);
    let address = taken.local_addr().unwrap().to_string();
    let mut command = stentor();
    let output = command.args(["--listen", &address]).env("NOTIFY_SOCKET", &manager.name).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let (status, _) = manager.hear_of("STATUS");
    assert!(status.starts_with(&format!("--listen {address}: ")), "{status}");
}

#[test]
fn its_watchdog_is_kept_quiet_until_the_end() {
    let manager = Manager::new(true);
    let args = ["--drain-timeout", "30s", "--sndbuf", "4KiB"];
    let running = Running::spawn(&mut manager.starts(&args, &[("WATCHDOG_USEC", "300000")]));
    manager.hear_of("READY");
    for _ in 0..3 {
        manager.hear_of("WATCHDOG");
    }
    // A subscriber that reads nothing keeps the server stopping for as long as it may.
    let slow = running.client("/ws?topics=a");
    let mut publisher = running.client("/ws");
    assert_eq!(publisher.json()["type"], "hello");
    let text = format!(r#"{{"op":"pub","id":1,"topic":"a","data":"{}"}}"#, "x".repeat(60_000));
    for _ in 0..200 {
        assert_eq!(publisher.ask(&text)["type"], "ack");
    }
    drop(publisher);
    running.signal(Signal::TERM);
    while !manager.hear().starts_with("STOPPING=1\n") {}
    for _ in 0..3 {
        manager.hear_of("WATCHDOG");
    }
    drop(slow);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn a_watchdog_for_another_process_is_left_to_that() {
    let threads = |pid: &str| {
        let manager = Manager::new(true);
        let program = manager.starts(&[], &[]);
        let mut command = Command::new("sh");
        let script = format!("WATCHDOG_USEC=30000000 WATCHDOG_PID={pid} exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                None => command.env_remove(name),
                Some(value) => command.env(name, value),
            };
        }
        let running = Running::spawn(&mut command);
        // Whoever keeps the watchdog quiet was started before.
        manager.hear_of("READY");
        fs::read_dir(format!("/proc/{}/task", running.child.id())).unwrap().count()
    };
    assert_eq!(threads("$$"), threads("1") + 1);
}

#[test]
fn a_manager_that_cannot_be_told_is_a_line_in_the_log_and_nothing_else() {
    let args = ["--listen", "127.0.0.1:0", "--workers", "1", "--pin", "none"];
    let running = Running::spawn(stentor().args(args).env("NOTIFY_SOCKET", "/no/such/socket"));
    drop(tcp(running.at()));
    running.signal(Signal::TERM);
    let (code, log) = running.end();
    assert!(code == Some(0) && log.contains("the service manager could not be told"), "{log}");

    let mut command = stentor();
    command.args(args).args(["--max-connections", "2000000000"]).env("NOTIFY_SOCKET", "vsock:2:1");
    let log = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(log.contains("NOTIFY_SOCKET=vsock:2:1: neither a path"), "{log}");
}

/// Waits until somebody has been missed ten times in a row: once may be a machine that is busy.
fn until_missed(pulse: &mut Pulse, who: &str) {
    let mut times = 0;
    wait_for(who, || {
        times = if pulse.feel().is_err_and(|said| said.starts_with(who)) { times + 1 } else { 0 };
        times == 10
    });
}

#[test]
fn a_worker_or_a_control_thread_that_stands_still_is_felt_until_it_goes_on() {
    let server = serve(|_| {});
    let mut pulse = server.pulse();
    wait_for("everybody to answer the first call", || pulse.feel().is_ok());
    let mut client = Client::hello(&server, "/ws");
    let publisher = server.publisher();
    // As long as this is open, nobody else can publish: whoever wants to waits for it in the middle of a turn.
    let mut batch = publisher.batch();
    batch.push("a", Payload::Text("1")).unwrap();
    client.send(r#"{"op":"pub","id":1,"topic":"a","data":1}"#);
    until_missed(&mut pulse, "worker 0 has taken no turn");
    drop(batch);
    assert_eq!(client.json()["type"], "ack");
    wait_for("it to be felt again", || pulse.feel().is_ok());

    let mut batch = publisher.batch();
    batch.push("a", Payload::Text("1")).unwrap();
    let mut post = tcp(server.addresses()[0]);
    let request = b"POST /publish/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1";
    std::io::Write::write_all(&mut post, request).unwrap();
    until_missed(&mut pulse, "the control thread has taken no turn");
    drop(batch);
    wait_for("it to be felt again", || pulse.feel().is_ok());
}
