//! Listening sockets that come from whoever starts the server, as systemd does it.

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    process::{Command, Stdio},
};

use rustix::process::Signal;

use crate::{
    certificates::Visitor,
    client::{Client, exchange},
    process::{Running, stentor},
};

/// The program, with `socket` as its descriptor 3. The shell makes it so: it is not for a safe program to give its child a
/// certain descriptor.
fn with_socket(socket: impl Into<OwnedFd>, pid: &str, args: &[&str]) -> Command {
    let program = stentor();
    let script = format!("exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID={pid} exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    for (name, _) in program.get_envs() {
        command.env_remove(name);
    }
    command.args(["-c", &script]).arg(program.get_program()).args(args).stdin(Stdio::from(socket.into()));
    command
}

/// The same with two sockets, and what they are called.
fn with_sockets(sockets: [&TcpListener; 2], names: &str, args: &[&str]) -> Command {
    let program = stentor();
    let script = format!(
        "exec 3<&0 4<&1 0</dev/null 1>/dev/null; LISTEN_FDS=2 LISTEN_PID=$$ LISTEN_FDNAMES={names} exec \"$0\" \"$@\""
    );
    let mut command = Command::new("sh");
    for (name, _) in program.get_envs() {
        command.env_remove(name);
    }
    let [first, second] = sockets.map(|socket| Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    command.args(["-c", &script]).arg(program.get_program()).args(args).stdin(first).stdout(second);
    command
}

#[test]
fn passed_sockets_are_told_apart_by_their_names() {
    let folder = tempfile::TempDir::new().unwrap();
    let own = folder.path().to_str().unwrap();
    let sockets = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let [first, second] = [0, 1].map(|n| sockets[n].local_addr().unwrap());
    for (names, clear, tls) in [("clear:tls", first, second), ("tls:stentor.socket", second, first)] {
        let mut command = with_sockets([&sockets[0], &sockets[1]], names, &["--tls-self-signed", own]);
        let running = Running::spawn(&mut command);
        assert_eq!(running.address, clear.to_string(), "{names}");
        let mut stream = Visitor::trusting(folder.path().join("certificate.pem")).open(tls);
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("ok\n"), "{names}: {answer}");
    }
    // Made above; read again where these sockets are in the place of any address.
    let [cert, key] = ["certificate.pem", "key.pem"].map(|name| format!("{own}/{name}"));
    let mut command = with_sockets([&sockets[0], &sockets[1]], "clear:tls", &["--tls-cert", &cert, "--tls-key", &key]);
    let mut running = Running::spawn(&mut command);
    running.signal(Signal::HUP);
    let log = running.logged("reloaded");
    assert!(!log.contains("nothing was reloaded"), "{log}");
    drop(running);
    for (names, said) in [
        ("clear:https", "socket 1 is named \"https\", and not clear or tls (LISTEN_FDNAMES)"),
        ("tls", "2 sockets have 1 names (LISTEN_FDNAMES)"),
        ("clear:clear", "nothing listens for TLS"),
        ("clear:tls", "has no certificate"),
    ] {
        let args: &[&str] = if names == "clear:tls" { &[] } else { &["--tls-self-signed", own] };
        let output = with_sockets([&sockets[0], &sockets[1]], names, args).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(said), "{names}: {text}");
    }
}

#[test]
fn a_socket_that_was_passed_outlives_the_server_and_no_connection_is_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    for acceptors in ["1", "2"] {
        let mut command = with_socket(listener.try_clone().unwrap(), "$$", &["--acceptors", acceptors]);
        let first = Running::spawn(&mut command);
        assert_eq!(first.address, address.to_string(), "it listens there, not on --listen");
        let mut client = first.client("/ws");
        assert_eq!(client.json()["type"], "hello");
        first.signal(Signal::TERM);
        assert_eq!(client.json()["type"], "status");
        assert_eq!(client.closed().0, 1001);
        drop(client);
        assert_eq!(first.end().0, Some(0));

        // Nobody accepts now. Who connects waits for the next server.
        let waiting = std::thread::spawn(move || Client::try_connect(address, "/ws", &[]).unwrap());
        let second = Running::spawn(&mut with_socket(listener.try_clone().unwrap(), "$$", &[]));
        assert_eq!(waiting.join().unwrap().json()["type"], "hello");
        drop(second);
    }
}

#[test]
fn whoever_comes_by_ipv4_to_a_socket_for_both_is_seen_as_that() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut running = Running::spawn(&mut with_socket(listener, "$$", &["--log-level", "debug"]));
    let near = SocketAddr::from(([127, 0, 0, 1], port));
    let answer = exchange(near, b"GET /debug/slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let _client = Client::try_connect(near, "/ws", &[]).unwrap();
    let log = running.logged("opened");
    assert!(log.contains("127.0.0.1:") && !log.contains("::ffff:"), "{log}");
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let running = Running::spawn(&mut with_socket(listener.try_clone().unwrap(), "1", &["--listen", "127.0.0.1:0"]));
    assert_ne!(running.address, listener.local_addr().unwrap().to_string());
}

#[test]
fn whether_publishing_is_open_depends_on_the_socket_that_was_passed() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _running = Running::spawn(&mut with_socket(listener, "$$", &[]));
    let mut client = Client::try_connect(SocketAddr::from(([127, 0, 0, 1], port)), "/ws", &[]).unwrap();
    assert_eq!(client.json()["type"], "hello");
    assert_eq!(client.ask(r#"{"op":"pub","id":1,"topic":"a","data":1}"#)["code"], "forbidden");
}

#[test]
fn something_else_than_a_listening_socket_is_refused() {
    for other in [OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap()), File::open("/dev/null").unwrap().into()] {
        let output = with_socket(other, "$$", &[]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("LISTEN_FDS: ") && text.lines().count() == 1, "{text}");
    }
}
