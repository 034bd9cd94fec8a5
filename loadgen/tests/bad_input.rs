//! Bad input: a plain sentence, a code, no panic.

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
};

use common::{Act, loadgen, program, run, serve};

/// A server that answers every connection with these bytes and hangs up.
fn answering(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(bytes);
        }
    });
    address
}

#[track_caller]
fn fails(arguments: &str, code: i32, sentences: &[&str]) {
    let outcome = program(arguments);
    assert_eq!(outcome.code, code, "{}{}", outcome.out, outcome.err);
    for sentence in sentences {
        assert!(outcome.err.contains(sentence), "expected `{sentence}` in: {}", outcome.err);
    }
    assert!(!outcome.err.contains("panicked"), "{}", outcome.err);
}

#[test]
fn a_refused_connection() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fails(
        &format!("fanout ws://{unused} --subs 10"),
        4,
        &["onnection refused", "of 10 subscribers", &unused.to_string()],
    );
}

#[test]
fn a_server_that_speaks_no_websocket() {
    let server = answering(b"SSH-2.0-OpenSSH_9.2\r\n");
    fails(&format!("fanout ws://{server} --subs 3"), 4, &["speaks no HTTP", "SSH-2.0"]);
}

#[test]
fn a_refused_handshake() {
    let server = answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nno entry");
    fails(&format!("fanout ws://{server} --subs 3"), 4, &["refused the handshake with 403 Forbidden", "no entry"]);
}

#[test]
fn a_server_that_never_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    fails(&format!("fanout ws://{address} --subs 3 --timeout 200ms"), 4, &["the handshake was not done within 200ms"]);
}

#[test]
fn a_server_that_refuses_some_connections_fails_only_those() {
    let served = std::sync::atomic::AtomicUsize::new(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let keep = thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if served.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 6 {
                thread::spawn(move || drop(tungstenite::accept(stream).unwrap().read()));
            }
        }
    });
    let outcome = run(&format!("connect ws://{address} --protocol raw --subs 10 --connect-rate 1k/s --duration 100ms"));
    assert_eq!((outcome.code, outcome.check("failed")), (1, 4), "{}{}", outcome.out, outcome.err);
    assert!(outcome.out.contains("4 connections failed"), "{}", outcome.out);
    drop(keep);
}

#[test]
fn settings_that_cannot_be_met_are_refused_with_what_would_do() {
    let refused = [
        ("fanout ws://127.0.0.1:1 --size 50", "92 bytes would do"),
        ("fanout ws://192.0.2.1:80 --subs 15000 --source 192.0.2.9 --topics 0", "--topics 0"),
        ("fanout 127.0.0.1:1", "ws://127.0.0.1:9001"),
        ("fanout wss:///ws", "names no host"),
        ("fanout ws://127.0.0.1:1 --rate 50", "50k/s"),
        ("fanout ws://127.0.0.1:1 --rate 5/s --window 5", "cannot be used with"),
        ("fanout ws://127.0.0.1:1 --subs 1000000 --rate 1/s", "--processes"),
        ("fanout ws://127.0.0.1:1 --processes 2", "needs --rate"),
        ("burst ws://127.0.0.1:1 --burst-length 3s", "--burst-every"),
        ("fanout ws://127.0.0.1:1 --rate 5/s --publisher-threads 2", "go out in order"),
        ("fanout ws://127.0.0.1:1 --topics 2 --publisher-threads 2", "--publisher-threads 2: it needs --rate"),
        ("fanout ws://127.0.0.1:1 --rate 5/s --rolling", "cannot be used with"),
        ("churn ws://127.0.0.1:1 --rolling", "leave out --rate"),
        ("fanout ws://127.0.0.1:1 --against ws://127.0.0.1:2 --publish-url ws://127.0.0.1:1", "--against-publish-url"),
        ("fanout ws://127.0.0.1:1 --against-protocol raw", "--against <URL>"),
        ("replay ws://127.0.0.1:1 --file /nowhere/x.ndjson", "/nowhere/x.ndjson"),
        ("echo ws://127.0.0.1:1 --topics 3", "--topics 3"),
        ("fanout ws://127.0.0.1:1 --protocol generic --publish-template x", "{payload}"),
    ];
    for (arguments, sentence) in refused {
        fails(arguments, 2, &[sentence]);
    }
}

#[test]
fn a_process_that_is_not_there() {
    let server = serve(|_, _| Act::Pass);
    let outcome = loadgen("fanout", server, "--subs 2 --rate 100/s --server-pid 2147483000");
    assert_eq!(outcome.code, 4);
    assert!(outcome.err.contains("--server-pid 2147483000"), "{}", outcome.err);
}

#[test]
fn a_result_file_that_is_none() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display();
    fails(&format!("compare {path}"), 4, &["is no result"]);
    fails("compare /nowhere/a.json", 4, &["/nowhere/a.json"]);
}
