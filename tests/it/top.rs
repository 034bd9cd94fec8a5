//! `GET /debug/slow` and `stentor top`, on a real server with a client that doesn't read.

use serde_json::Value;

use crate::{
    client::{Client, PATIENCE, exchange},
    process::{Running, run, stentor},
};

/// A server on which one client stalls; returned with the client's name.
fn stalled(args: &[&str], token: &str) -> (Running, Client, String) {
    let running = Running::start(&[&["--workers", "1", "--sndbuf", "8KiB"], args].concat());
    let mut slow = running.client("/ws?topics=a,q.%3E");
    let name = slow.json()["conn"].as_str().unwrap().to_owned();
    let mut publisher = running.client(&format!("/raw/a?echo=0{token}"));
    let mut healthy = running.client("/raw/a");
    let data = "x".repeat(2000);
    // More than both kernels' buffers take.
    for _ in 0..50 {
        (0..100).for_each(|_| publisher.send(&data));
        (0..100).for_each(|_| assert_eq!(healthy.text(), data));
    }
    (running, slow, name)
}

/// `/debug/slow` once `is_it` says that it is what is waited for: the list is at most a second behind.
fn shown(running: &Running, is_it: impl Fn(&[Value]) -> bool) -> Value {
    let request = b"GET /debug/slow HTTP/1.0\r\nHost: localhost\r\n\r\n";
    let begun = std::time::Instant::now();
    loop {
        let answer = exchange(running.address.parse().unwrap(), request);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
        let mut list: Value = serde_json::from_str(body).unwrap();
        let rows = list["connections"].take();
        if is_it(rows.as_array().unwrap()) {
            return rows;
        }
        assert!(begun.elapsed() < PATIENCE, "{rows}");
        std::thread::yield_now();
    }
}

#[test]
fn a_client_that_does_not_read_is_shown_and_is_gone_when_it_has_read() {
    let (running, mut slow, name) = stalled(&[], "");
    // Others may have been behind for a moment while publications poured in.
    let list = shown(&running, |rows| rows.len() == 1 && rows[0]["lag_bytes"].as_u64() > Some(1_000_000));
    let row = &list[0];
    let own = slow.socket.get_ref().local_addr().unwrap().to_string();
    assert_eq!((row["conn"].as_str(), row["address"].as_str()), (Some(&*name), Some(&*own)), "{list}");
    assert_eq!((&row["worker"], &row["mode"], &row["more"]), (&0.into(), &"all".into(), &0.into()));
    assert_eq!(row["subscriptions"], serde_json::json!(["a", "q.>"]));
    let number = |field: &str| row[field].as_u64().unwrap_or_else(|| panic!("{field}: {list}"));
    // 5,000 publications of 2,000 bytes, of which the kernels hold some.
    assert!(number("lag_bytes") < 11_000_000, "{list}");
    // Kernels without socket diagnostics tell nothing.
    if !row["rtt_us"].is_null() {
        assert!(number("unacked_bytes") + number("unsent_bytes") > 0 && number("rtt_us") > 0, "{list}");
        assert!(number("kernel_bytes") < 1 << 20, "{list}");
    }
    let mut last = 0;
    while last < 5_000 {
        let message = slow.json();
        last = if message["type"] == "update" { message["seq"].as_u64().unwrap() } else { last };
    }
    shown(&running, |rows| rows.is_empty());
}

#[test]
fn top_prints_one_frame_where_there_is_no_terminal() {
    let (running, _slow, name) = stalled(&["--publish-token", "s3cret"], "&token=s3cret");
    let url = format!("http://{}/", running.address);
    let frame = |args: &[&str]| {
        let output = run(&[&["top", &url, "--interval", "250ms"], args].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = frame(&[]);
    assert!(
        text.starts_with(&format!("stentor top  http://{}  {}", running.address, env!("CARGO_PKG_VERSION"))),
        "{text}"
    );
    for words in
        ["of 10.0k connections", "1 with a cursor of its own, lag at most", "401: Looking at clients needs a token"]
    {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let text = frame(&["--once", "--token", "s3cret", "--sort", "rtt"]);
    let row = text.lines().find(|line| line.starts_with(&name)).expect(&text);
    assert!(row.contains("127.0.0.1:") && row.ends_with("all   a q.>") && text.contains("RTT▼"), "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
}

#[test]
fn top_shows_the_token_of_operators_by_flag_or_from_the_environment() {
    let running = Running::start(&["--admin-token", "boss"]);
    let url = format!("http://{}/", running.address);
    let top = |variable: Option<(&str, &str)>, args: &[&str]| {
        let mut command = stentor();
        command.args(["top", &url, "--interval", "250ms", "--once"]).args(args).envs(variable);
        let output = command.output().unwrap();
        let text = String::from_utf8(if output.status.success() { output.stdout } else { output.stderr }).unwrap();
        (output.status.code(), text)
    };
    let (code, text) = top(None, &[]);
    assert!(code == Some(1) && text.contains("/metrics: 401: This is for operators"), "{text}");
    for (variable, args) in [
        (None, &["--token", "boss"][..]),
        (Some(("STENTOR_ADMIN_TOKEN", "boss")), &[]),
        (Some(("STENTOR_PUBLISH_TOKEN", "boss")), &[]),
    ] {
        let (code, text) = top(variable, args);
        assert!(code == Some(0) && text.contains("of 10.0k connections"), "{text}");
        assert!(!text.contains("401"), "{text}");
    }
}

#[test]
fn top_of_no_server_says_so() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = run(&["top", &free]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with(&format!("stentor top: http://{free}/metrics: ")) && text.lines().count() == 1, "{text}");
}
