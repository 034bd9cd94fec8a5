//! The program: its exit codes, its one-line errors, its signals.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Command, Stdio},
};

use crate::{
    client::{Client, exchange},
    process::{Running, run},
};

#[test]
fn what_cannot_work_is_one_line_and_exit_code_2() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (args, words) in [
        (&["--listen", &taken][..], &["--listen", &taken, "another program"][..]),
        (&["--listen", &taken, "--acceptors", "2"], &["--listen", &taken]),
        (&["--listen", "192.0.2.1:0"], &["--listen", "192.0.2.1:0"]),
        (&["--replay", "/no/such/file"], &["--replay", "/no/such/file"]),
        (&["--max-message", "2MiB", "--segment", "1MiB"], &["--max-message 2.0 MiB", "--segment"]),
        (&["--pin", "0", "--workers", "2"], &["--workers 2", "--pin 0"]),
        (&["--pin", "4000"], &["--pin 4000", "core 4000"]),
        (&["--max-connections", "2000000000"], &["--max-connections 2000000000", "LimitNOFILE"]),
    ] {
        let output =
            run(&[&["--listen", "127.0.0.1:0"][..], args].concat()[if args[0] == "--listen" { 2 } else { 0 }..]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(words.iter().all(|word| text.contains(word)), "{args:?}: {text}");
    }
    let output = run(&["--listen", "nowhere"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--listen"));
}

#[test]
fn the_first_signal_drains_and_exits_with_0() {
    let running = Running::start(&[]);
    let mut client = running.client("/ws");
    assert_eq!(client.json()["type"], "hello");
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(client.json()["type"], "status");
    assert_eq!(client.closed().0, 1001);
    drop(client);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn the_second_signal_exits_at_once() {
    let running = Running::start(&["--drain-timeout", "1h", "--close-timeout", "1h"]);
    let mut client = running.client("/ws");
    assert_eq!(client.json()["type"], "hello");
    running.signal(rustix::process::Signal::INT);
    assert_eq!(client.json()["type"], "status");
    // The client doesn't answer the close, so the server would wait.
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.end().0, Some(1));
}

#[test]
fn a_log_that_nobody_reads_any_more_does_not_end_it() {
    let mut running = Running::start(&["--log-level", "debug"]);
    // From here on writing the log fails with EPIPE.
    running.log = BufReader::new({
        let mut other = Command::new("true").stderr(Stdio::piped()).spawn().unwrap();
        let stderr = other.stderr.take().unwrap();
        other.wait().unwrap();
        stderr
    });
    for _ in 0..20 {
        assert_eq!(running.client("/ws").json()["type"], "hello");
    }
}

#[test]
fn the_demo_moves() {
    let running = Running::start(&["--demo", "--demo-rate", "1000/s"]);
    let mut client = running.client("/ws?topics=q.demo.*,t.demo.*");
    let mut kinds = std::collections::HashSet::new();
    while kinds.len() < 2 {
        let message = client.json();
        if message["type"] == "update" {
            let topic = message["topic"].as_str().unwrap();
            let data = &message["data"];
            match &topic[..7] {
                "q.demo." => assert!(data["bid"].as_f64().unwrap() < data["ask"].as_f64().unwrap()),
                _ => assert!(data["px"].as_f64().unwrap() > 0.0),
            }
            kinds.insert(topic[..1].to_owned());
        }
    }
}

#[test]
fn the_log_names_the_connection_its_address_and_the_reason_in_both_formats() {
    for format in ["text", "json"] {
        let running = Running::start(&["--log-format", format, "--log-level", "debug"]);
        let mut client = running.client("/ws");
        let conn = client.json()["conn"].as_str().unwrap().to_owned();
        client.socket.send(tungstenite::Message::binary(vec![0])).unwrap();
        assert_eq!(client.closed().0, 1003);
        drop(client);
        running.signal(rustix::process::Signal::TERM);
        let (_, log) = running.end();
        let closed = log.lines().find(|line| line.contains("closed") && line.contains(&conn)).expect(&log);
        assert!(closed.contains("127.0.0.1:") && closed.contains("commands are text messages"), "{closed}");
        assert!(format == "text" || serde_json::from_str::<serde_json::Value>(closed).is_ok(), "{closed}");
    }
}

#[test]
fn a_flood_of_refusals_leaves_the_log_to_others_and_is_counted_in_it_once_it_is_over() {
    const FLOOD: u64 = 60;
    for format in ["text", "json"] {
        let mut running = Running::start(&[
            "--log-format",
            format,
            "--log-limit",
            "1/s",
            "--publish-token",
            "secret",
            "--workers",
            "2",
        ]);
        for _ in 0..FLOOD {
            let answer = exchange(running.at(), b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
        }
        let mut other = running.client("/ws");
        other.json();
        other.send(r#"{"op":"auth","token":"wrong"}"#);
        assert_eq!(other.closed().0, 4001);
        assert!(running.metric("log_lines_left_out_total") > 0.0);
        let log = running.logged("were left out");
        assert!(log.contains("a wrong token was shown"), "{log}");
        // The number alone may be a part of a port or of the time.
        let is_refusal = |line: &str| line.contains("status=426") || line.contains(r#""status":426"#);
        let left_out = |line: &str| {
            let (_, rest) = line.split_once("left_out")?;
            rest.trim_start_matches(['"', ':', '=']).split([' ', ',', '}']).next()?.parse::<u64>().ok()
        };
        let lines: Vec<&str> = log.lines().filter(|line| is_refusal(line) || line.contains("refused_bad")).collect();
        let shown = lines.iter().filter(|line| is_refusal(line)).count() as u64;
        let told: u64 = lines.iter().filter_map(|line| left_out(line)).sum();
        assert!(shown >= 2 && shown + told == FLOOD, "{shown} and {told}: {log}");
        let of_kind = r#"stentor_log_lines_left_out_total{kind="refused_bad_request"} "#;
        let metrics = exchange(running.at(), b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert!(metrics.contains(&format!("{of_kind}{told}\n")), "{told}: {metrics}");
        assert_eq!(running.metric("log_lines_dropped_total"), 0.0);
    }
}

#[test]
fn out_of_descriptors_it_waits_and_goes_on_when_there_are_some() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let mut running = Running::start(&["--max-connections", "100", "--workers", "1"]);
    let pid = Some(Pid::from_child(&running.child));
    let used = running.descriptors() as u64;
    let roomy = getrlimit(Resource::Nofile);
    let tight = Rlimit { current: Some(used + 2), maximum: roomy.maximum };
    prlimit(pid, Resource::Nofile, tight).unwrap();
    // More than there are descriptors for: the others wait in the backlog, connected but not accepted.
    let address = running.at();
    let clients: Vec<_> =
        (0..5).map(|_| std::thread::spawn(move || Client::try_connect(address, "/ws", &[]).unwrap())).collect();
    let mut line = String::new();
    while !line.contains("can't be accepted") {
        line.clear();
        assert!(running.log.read_line(&mut line).unwrap() > 0, "it ended");
    }
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(used + 50), maximum: roomy.maximum }).unwrap();
    for client in clients {
        assert_eq!(client.join().unwrap().json()["type"], "hello");
    }
}

#[test]
fn a_stalled_reader_costs_no_memory_that_grows() {
    // In a process of its own, so that its memory is nobody else's.
    let narrow = ["--workers", "1", "--segment", "64KiB", "--retain", "512KiB", "--sndbuf", "8KiB"];
    let running = Running::start(&narrow);
    let _stalled: Vec<Client> = (0..50).map(|_| running.client("/ws?topics=a")).collect();
    let mut publisher = running.client("/raw/a?echo=0");
    let mut healthy = running.client("/raw/a");
    let data = "x".repeat(500);
    let mut publish = |count: usize| {
        for _ in 0..count / 100 {
            (0..100).for_each(|_| publisher.send(&data));
            (0..100).for_each(|_| assert_eq!(healthy.text().len(), 500));
        }
    };
    publish(3_000);
    let before = running.resident();
    publish(40_000);
    let grown = running.resident().saturating_sub(before);
    // 40,000 publications of 500 bytes for 50 subscribers are 1 GB; the tape is 512 KiB.
    assert!(grown < 4 << 20, "{grown}");
}
