//! `stentor sub`, `pub`, `record`, `replay` and `ping`, as a shell has them: what they print, and what they end with.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, ChildStdout, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::process::{Running, run, stentor};

/// A task that goes on, its output read a line at a time.
struct Task {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Task {
    fn start(args: &[&str]) -> Task {
        let mut child =
            stentor().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Task { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.out.read_line(&mut line).unwrap() > 0, "it ended: {}", self.complaint());
        line.trim_end().to_owned()
    }

    fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    fn complaint(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// Waits for its end: the exit code, and what it said.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.child.stdin.take());
        let text = self.complaint();
        (self.child.wait().unwrap().code(), text)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn url(server: &Running) -> String {
    format!("ws://{}", server.address)
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    str::from_utf8(&output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn said(output: &Output) -> (Option<i32>, &str) {
    (output.status.code(), str::from_utf8(&output.stderr).unwrap())
}

#[test]
fn what_one_shell_publishes_another_prints() {
    let server = Running::start(&[]);
    let url = url(&server);
    assert_eq!(said(&run(&["pub", &url, "q.a", r#"{"bid":1.50}"#])), (Some(0), ""));
    let mut sub = Task::start(&["sub", &url, "q.*", "--count", "5"]);
    let last = sub.json();
    assert_eq!((&last["topic"], &last["seq"], &last["snapshot"]), (&json!("q.a"), &json!(1), &json!(true)));
    let mut publisher = Task::start(&["pub", &url, "q.a", "--receipts"]);
    publisher.child.stdin.as_mut().unwrap().write_all(b"7\nseven\n{\"a\": [1,\t2]}\n").unwrap();
    let given: Vec<Value> = (0..3).map(|_| sub.json()).collect();
    assert_eq!(
        given.iter().map(|line| line["data"].clone()).collect::<Vec<_>>(),
        [json!(7), json!("seven"), json!({"a": [1, 2]})]
    );
    drop(publisher.child.stdin.take());
    let receipts: Vec<Value> = (0..3).map(|_| publisher.json()).collect();
    for (receipt, line) in receipts.iter().zip(&given) {
        assert_eq!((&receipt["seq"], &receipt["ts"]), (&line["seq"], &line["ts"]));
    }
    assert_eq!(publisher.end(), (Some(0), String::new()));
    run(&["pub", &url, "q.b", "7", "--text"]);
    assert_eq!(sub.json()["data"], "7");
    assert_eq!(sub.end(), (Some(0), String::new()));
}

#[test]
fn a_line_is_as_its_format_says() {
    let server = Running::start(&[]);
    let url = url(&server);
    run(&["pub", &url, "q.a", r#"{"bid":1.50}"#]);
    let output = run(&["sub", &url, "q.a", "--count", "1", "--format", "{{{topic}}} {seq}\\t{data}"]);
    assert_eq!(str::from_utf8(&output.stdout).unwrap(), "{q.a} 1\t{\"bid\":1.50}\n");
    let (code, said) = said(&output);
    assert_eq!((code, said), (Some(0), ""));
}

#[test]
fn each_way_to_fail_has_a_code_and_a_sentence() {
    let server = Running::start(&["--publish-token", "s3cret"]);
    let url = url(&server);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = format!("ws://{free}/");
    for (args, code, words) in [
        (&["sub", &*gone, "a"][..], 1, "refused"),
        (&["pub", &gone, "a", "1"], 1, "refused"),
        (&["ping", &gone], 1, "refused"),
        (&["sub", "ftp://x", "a"], 2, "expected something like wss://host/ws"),
        (&["sub", &url], 2, "expected names of topics"),
        (&["sub", &url, "a", "--from", "x=y"], 2, "found x=y"),
        (&["sub", &url, "a", "--watch"], 2, "expected a terminal"),
        (&["sub", &url, "a", "--format", "{x}"], 2, "found {x}"),
        (&["sub", &url, "a..b"], 3, "a..b"),
        (&["pub", &url, "a", "1"], 3, "forbidden"),
        (&["sub", &url, "a", "--count", "1", "--for", "10ms"], 4, "0 of 1 came"),
        (&["record", "-o", "/nonexistent/x", &url, "a"], 2, "/nonexistent/x"),
        (&["replay", "/nonexistent/x"], 2, "/nonexistent/x"),
    ] {
        let output = run(args);
        let (ended, text) = said(&output);
        assert_eq!(ended, Some(code), "{args:?}: {text}");
        assert!(text.contains(words) && !text.contains("s3cret"), "{args:?}: {text}");
    }
    assert_eq!(said(&run(&["pub", &url, "a", "1", "--token", "s3cret"])), (Some(0), ""));
}

#[test]
fn a_subscriber_lives_through_a_restart_and_says_so() {
    let server = Running::start(&[]);
    let address = server.address.clone();
    let url = url(&server);
    run(&["pub", &url, "q.a", "1"]);
    let mut sub = Task::start(&["sub", &url, "q.>", "--count", "2"]);
    assert_eq!(sub.json()["data"], 1);
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    let server = Running::listen(&address, &[]);
    run(&["pub", &url, "q.a", "2"]);
    let next = sub.json();
    assert_eq!((&next["data"], &next["seq"]), (&json!(2), &json!(1)));
    let (code, text) = sub.end();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("coming back") && text.contains("connected again"), "{text}");
    assert!(text.contains("reset: q.a begins anew") && !text.contains("gap:"), "{text}");
    drop(server);
}

#[test]
fn what_was_recorded_is_replayed_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let server = Running::start(&[]);
    let url = url(&server);
    for name in ["feed.ndjson", "feed.ndjson.gz", "feed.ndjson.zst"] {
        let file: PathBuf = folder.path().join(name);
        let file = file.to_str().unwrap();
        let recorder = Task::start(&["record", "-o", file, &url, "in.>", "--count", "3"]);
        // It is there when it has a subscription.
        server.until("subscriptions", |count| count >= 1.0);
        let mut publisher = Task::start(&["pub", &url, "in.a"]);
        publisher
            .child
            .stdin
            .as_mut()
            .unwrap()
            .write_all("{\"px\": 1.50, \"s\": \"\u{e9}\"}\n\"text\"\n7e2\n".as_bytes())
            .unwrap();
        assert_eq!(publisher.end().0, Some(0));
        let (code, text) = recorder.end();
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("3 publications"), "{text}");
        let again = run(&["record", "-o", file, &url, "in.>", "--count", "1"]);
        assert_eq!(again.status.code(), Some(2), "{again:?}");
        assert!(said(&again).1.contains("--overwrite"), "{again:?}");
        server.until("subscriptions", |count| count == 0.0);

        let other = Running::start(&[]);
        let target = format!("http://{}", other.address);
        let mut sub = Task::start(&["sub", &target, "in.a", "--count", "3", "--format", "{data}"]);
        other.until("subscriptions", |count| count >= 1.0);
        let output = run(&["replay", file, &target, "--speed", "max"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(said(&output).1.contains("3 publications"), "{output:?}");
        let got: Vec<String> = (0..3).map(|_| sub.line()).collect();
        assert_eq!(got, ["{\"px\": 1.50, \"s\": \"\u{e9}\"}", "\"text\"", "7e2"]);
        assert_eq!(sub.end().0, Some(0));
    }
}

#[test]
fn a_recording_goes_through_a_pipe_as_it_is_made() {
    let (server, other) = (Running::start(&[]), Running::start(&[]));
    let (from, to) = (url(&server), format!("http://{}", other.address));
    let mut recorder = Task::start(&["record", "-o", "-", &from, "in.>", "--count", "2"]);
    let mut sub = Task::start(&["sub", &to, "in.a", "--count", "2", "--format", "{data}"]);
    let mut replay = Task::start(&["replay", "-", &to, "--speed", "max"]);
    server.until("subscriptions", |count| count >= 1.0);
    other.until("subscriptions", |count| count >= 1.0);
    for value in ["1.50", "{\"s\": \"\u{e9}\"}"] {
        assert!(run(&["pub", &from, "in.a", value]).status.success());
        // Each is there at once, whatever comes behind it.
        let line = recorder.line();
        assert!(line.ends_with(&format!("\"data\":{value}}}")), "{line}");
        writeln!(replay.child.stdin.as_mut().unwrap(), "{line}").unwrap();
        assert_eq!(sub.line(), value);
    }
    let (code, text) = recorder.end();
    assert!(code == Some(0) && text.contains("standard output: 2 publications"), "{text}");
    let (code, text) = replay.end();
    assert!(code == Some(0) && text.contains("standard input: 2 publications"), "{text}");
    assert_eq!(sub.end().0, Some(0));
    let output = run(&["replay", "-", "--loop"]);
    assert!(output.status.code() == Some(2) && said(&output).1.contains("--loop"), "{output:?}");
    // Like `| head -1`. The one before has to be gone, or its subscription would be taken for this one's.
    server.until("subscriptions", |count| count == 0.0);
    let mut recorder = Task::start(&["record", "-o", "-", &from, "in.>"]);
    server.until("subscriptions", |count| count >= 1.0);
    let unread = stentor().arg("--version").stdout(Stdio::piped()).spawn().unwrap().stdout.take().unwrap();
    drop(std::mem::replace(&mut recorder.out, BufReader::new(unread)));
    assert!(run(&["pub", &from, "in.a", "3"]).status.success());
    assert_eq!(recorder.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_signal_ends_it_well_and_a_reader_that_has_enough_too() {
    let server = Running::start(&["--demo"]);
    let url = url(&server);
    let mut sub = Task::start(&["sub", &url, ">"]);
    sub.json();
    kill_process(Pid::from_child(&sub.child), Signal::INT).unwrap();
    assert_eq!(sub.end(), (Some(0), String::new()));
    let mut sub = Task::start(&["sub", &url, ">"]);
    sub.json();
    // Like `| head -1`.
    let unread = stentor().arg("--version").stdout(Stdio::piped()).spawn().unwrap().stdout.take().unwrap();
    drop(std::mem::replace(&mut sub.out, BufReader::new(unread)));
    assert_eq!(sub.end(), (Some(0), String::new()));
}

#[test]
fn a_ping_is_answered_and_counted() {
    let server = Running::start(&[]);
    let output = run(&["ping", &url(&server), "--count", "3", "--interval", "1ms"]);
    assert!(output.status.success(), "{output:?}");
    let text = str::from_utf8(&output.stdout).unwrap();
    assert!(text.starts_with("connected in ") && text.contains("3 answers: least "), "{text}");
    assert_eq!(lines(&run(&["sub", &url(&server), "none", "--for", "1ms"])), Vec::<Value>::new());
}

/// What it said, where that is one line.
fn one_line(output: &Output) -> (Option<i32>, &str) {
    let (code, text) = said(output);
    assert_eq!(text.lines().count(), 1, "{text}");
    (code, text)
}

/// A port of this machine where nobody listens.
fn free() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn a_ping_is_connected_when_the_server_has_greeted() {
    let server = Running::start(&[]);
    let output = run(&["ping", &url(&server), "--count", "1"]);
    let text = str::from_utf8(&output.stdout).unwrap();
    let (_, took) = text.lines().next().unwrap().split_once("connected in ").unwrap();
    let took: f64 = took.trim_end_matches(" ms").parse().unwrap();
    // All of its patience, which is 10 s, was what it once took.
    assert!(took < 9_000.0, "{text}");
}

#[test]
fn a_wrong_token_is_one_line_and_nothing_of_coming_back() {
    let server = Running::start(&["--publish-token", "s3cret"]);
    let url = url(&server);
    for args in [&["sub", &*url, "a", "--token", "wrong"][..], &["pub", &url, "a", "1", "--token", "wrong"]] {
        let output = run(args);
        let (code, text) = one_line(&output);
        assert_eq!(code, Some(3), "{text}");
        assert!(text.contains("token") && !text.contains("coming back") && !text.contains("wrong\n"), "{text}");
    }
}

#[test]
fn what_is_wrong_over_tls_is_a_sentence_that_says_what_would_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let mut server = Running::start(&["--tls-listen", "127.0.0.1:0", "--tls-self-signed", path]);
    let log = server.logged("listening on https://");
    let port = log.split("listening on https://").nth(1).unwrap().split(['/', ':']).nth(1).unwrap();
    let secure = format!("wss://localhost:{port}");
    let certificate = format!("{path}/certificate.pem");
    let clear = server.address.replace("127.0.0.1", "wss://localhost");
    for (args, words) in [
        (&["sub", &*secure, "a"][..], "signed by nobody who is trusted here: give its CA"),
        (&["sub", &clear, "a"], "it speaks no TLS there"),
        (&["ping", &format!("ws://localhost:{port}")], "This port speaks TLS"),
        (&["sub", &format!("wss://127.0.0.2:{port}"), "a", "--tls-ca", &certificate], "127.0.0.2"),
    ] {
        let output = run(args);
        let (code, text) = one_line(&output);
        assert!(matches!(code, Some(1 | 3)), "{text}");
        assert!(text.contains(words), "{args:?}: {text}");
    }
    assert_eq!(said(&run(&["pub", &secure, "a", "1", "--tls-ca", &certificate])), (Some(0), ""));
}

#[test]
fn who_is_to_wait_says_for_what_and_begins_once_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("feed.ndjson");
    std::fs::write(&file, "{\"ts_ns\":1,\"topic\":\"a\",\"data\":1.50}\n").unwrap();
    let address = free();
    let at = format!("http://{address}/");
    let mut sub = Task::start(&["sub", &at, "a", "--wait", "--count", "1", "--format", "{data}"]);
    let mut replay = Task::start(&["replay", file.to_str().unwrap(), &at, "--wait"]);
    let waits = |task: &mut Task| {
        let mut err = BufReader::new(task.child.stderr.take().unwrap());
        let mut line = String::new();
        err.read_line(&mut line).unwrap();
        assert!(line.contains("refused") && line.ends_with("; waiting\n"), "{line}");
        err
    };
    let errors = [waits(&mut sub), waits(&mut replay)];
    let server = Running::listen(&address, &[]);
    assert_eq!(sub.line(), "1.50");
    assert_eq!((sub.child.wait().unwrap().code(), replay.child.wait().unwrap().code()), (Some(0), Some(0)));
    drop((server, errors));
}

#[test]
fn a_recording_over_a_restart_says_where_it_has_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("feed.ndjson");
    let server = Running::start(&[]);
    let (address, url) = (server.address.clone(), url(&server));
    let recorder = Task::start(&["record", "-o", file.to_str().unwrap(), &url, "q.>", "--count", "3"]);
    server.until("subscriptions", |count| count >= 1.0);
    for value in ["1", "2"] {
        run(&["pub", &url, "q.a", value]);
    }
    // Both have been taken to the recorder, when a ping behind them is answered.
    assert_eq!(run(&["ping", &url, "--count", "1"]).status.code(), Some(0));
    server.until("deliveries_total", |count| count >= 2.0);
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    let server = Running::listen(&address, &[]);
    server.until("subscriptions", |count| count >= 1.0);
    run(&["pub", &url, "q.a", "3"]);
    let (code, text) = recorder.end();
    assert_eq!(code, Some(0), "{text}");
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines
        .iter()
        .map(|line| {
            if line["gap"].is_object() {
                "gap"
            } else {
                line["data"].as_i64().map_or("?", |n| ["", "1", "2", "3"][n as usize])
            }
        })
        .collect();
    assert_eq!(kinds, ["1", "2", "gap", "3"], "{text}");
    assert!(lines[3]["seq"] == 1 && lines.iter().all(|line| line["topic"] == "q.a"), "{text}");
    drop(server);
}

#[test]
fn what_is_no_recording_says_which_line_lacks_what() {
    let folder = tempfile::tempdir().unwrap();
    let server = Running::start(&[]);
    let http = format!("http://{}/", server.address);
    let play = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        run(&["replay", file.to_str().unwrap(), &http, "--speed", "max"])
    };
    let foreign = play("foreign.ndjson", "{\"time\":1,\"symbol\":\"a\"}\nnot JSON\n");
    let (code, text) = said(&foreign);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("line 1: ") && text.contains("ts_ns") && text.contains("line 2: "), "{text}");
    assert!(text.ends_with("no line of it is a publication\n"), "{text}");
    let mixed = play("mixed.ndjson", "{\"ts_ns\":1,\"topic\":\"a\",\"data\":7}\n{\"ts_ns\":2}\n");
    let (code, text) = said(&mixed);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("line 2: ") && text.contains(": 1 publications in ") && text.contains("1 lines left out"),
        "{text}"
    );
}

#[test]
fn what_a_server_refused_is_not_counted_as_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("feed.ndjson");
    std::fs::write(&file, "{\"ts_ns\":1,\"topic\":\"a\",\"data\":1}\n").unwrap();
    let server = Running::start(&["--publish-token", "s3cret"]);
    let output = run(&["replay", file.to_str().unwrap(), &format!("http://{}/", server.address)]);
    let (code, text) = said(&output);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains(": 0 publications in ") && text.contains("401"), "{text}");
}

#[test]
fn a_recording_into_a_folder_says_that_it_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let server = Running::start(&[]);
    let output = run(&["record", "-o", folder.path().to_str().unwrap(), &url(&server), "a"]);
    let (code, text) = one_line(&output);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("expected a file, found a folder") && !text.contains("--overwrite"), "{text}");
}
