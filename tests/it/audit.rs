//! The audit, as whoever reads the file finds it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::Value;

use crate::{
    client::{Client, exchange, serve},
    http::Http,
    process::{Running, run, stentor, wait_for},
};

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("audit-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = Folder(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name));
        fs::create_dir(&folder.0).unwrap();
        folder
    }

    fn file(&self) -> PathBuf {
        self.0.join("audit.jsonl")
    }

    fn flag(&self) -> String {
        format!("--audit={}", self.file().display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The whole lines of a file; none if there is none.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"))).collect()
}

/// Waits until the file has a line that is such, and returns it.
fn line(path: &Path, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let mut found = None;
    wait_for(what, || {
        found = lines(path).into_iter().find(&is);
        found.is_some()
    });
    found.unwrap()
}

fn is(event: &str) -> impl Fn(&Value) -> bool {
    move |line| line["event"] == event
}

#[test]
fn who_comes_subscribes_leaves_names_and_goes_is_in_the_file_with_what_was_sent() {
    let folder = Folder::new();
    let server = serve(|config| config.audit = Some(folder.file()));
    let mut client = Client::connect(&server, "/ws?topics=q.a");
    let conn = client.json()["conn"].clone();
    client.json();
    client.ask(r#"{"op":"sub","topics":["q.b.*","t.>"],"mode":"latest","rate":2}"#);
    assert_eq!(client.ask(r#"{"op":"pub","id":1,"topic":"q.a","data":"xxxxxxxxxx"}"#)["topic"], "q.a");
    client.ask(r#"{"op":"unsub","topics":["t.>","nothing.of.this"]}"#);
    client.socket.close(None).unwrap();
    client.closed();
    let path = folder.file();
    line(&path, "its end", is("end"));
    let all = lines(&path);
    let of: Vec<&Value> = all.iter().filter(|line| line["conn"] == conn).collect();
    let events: Vec<&str> = of.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!(events, ["connect", "subscribe", "subscribe", "unsubscribe", "end"], "{all:#?}");
    assert_eq!((&of[0]["door"], &of[0]["tls"]), (&"ws".into(), &false.into()));
    assert_eq!((of[1]["topics"].to_string(), &of[1]["mode"]), (r#"["q.a"]"#.to_owned(), &"all".into()));
    assert_eq!(of[2]["topics"].to_string(), r#"["q.b.*","t.>"]"#);
    assert_eq!((&of[2]["mode"], of[2]["rate"].as_f64()), (&"latest".into(), Some(2.0)));
    assert_eq!(of[3]["topics"].to_string(), r#"["t.>"]"#);
    assert_eq!(of[4]["code"], 1005);
    // At least the upgrade, the greeting and the publication; by then the kernel may not know of all of it.
    let sent = of[4]["bytes"].as_u64().unwrap() + of[4]["unacked"].as_u64().unwrap_or(0);
    assert!((400..10_000).contains(&sent), "{sent}");
    // The request, three commands and the farewell.
    let received = of[4]["received"].as_u64().unwrap();
    assert!((250..2_000).contains(&received), "{received}");
    for line in &of {
        assert_eq!((&line["holder"], &line["source"]), (&"anonymous".into(), &"none".into()), "{line}");
        assert!(line["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        assert!(line["ts"].as_u64().unwrap() > 1_700_000_000_000_000, "{line}");
    }
    drop(server);
    let all = lines(&path);
    assert_eq!((&all[0]["event"], &all.last().unwrap()["event"]), (&"start".into(), &"stop".into()));
}

#[test]
fn what_is_read_over_plain_http_and_what_is_refused_is_there_and_no_secret() {
    let folder = Folder::new();
    let server = serve(|config| {
        config.audit = Some(folder.file());
        config.publish_token = Some("s3cret".parse().unwrap());
    });
    let path = folder.file();
    server.publisher().publish("q.a", stentor::Payload::Json(b"1")).unwrap();
    let get = |target: &str| {
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        exchange(server.addresses()[0], head.as_bytes())
    };
    for (target, door) in [("/poll?topics=q.*&wait=0", "poll"), ("/history/q.a", "history"), ("/topics/q.a", "topics")]
    {
        assert!(get(target).starts_with("HTTP/1.1 200 "));
        let found = line(&path, door, |line| line["door"] == door);
        let topics = if door == "poll" { r#"["q.*"]"# } else { r#"["q.a"]"# };
        assert_eq!((&found["event"], found["topics"].to_string()), (&"read".into(), topics.to_owned()));
    }
    assert!(get("/history/q.none").starts_with("HTTP/1.1 404 "));
    assert!(get("/topics?token=guessed-over-http").starts_with("HTTP/1.1 401 "));
    line(&path, "a refusal over plain HTTP", |line| line["why"] == "unauthorized" && line.get("conn").is_none());
    assert!(get("/poll?topics=a&token=guessed-of-a-worker").starts_with("HTTP/1.1 401 "));
    line(&path, "a refusal by a worker", |line| line["why"] == "forbidden" && line.get("conn").is_some());
    let mut client = Client::hello(&server, "/ws");
    assert_eq!(client.ask(r#"{"op":"pub","id":1,"topic":"a","data":1}"#)["code"], "forbidden");
    assert_eq!(client.ask(r#"{"op":"auth","token":"s3cret"}"#)["type"], "ack");
    assert_eq!(client.ask(r#"{"op":"pub","id":1,"topic":"a","data":1}"#)["seq"], 1);
    assert_eq!(client.ask(r#"{"op":"auth","token":"guessed"}"#)["code"], "unauthorized");
    line(&path, "its end", |line| line["event"] == "end" && line["code"] == 4001);
    let all = lines(&path);
    let auth = all.iter().find(|line| line["event"] == "auth").unwrap();
    assert_ne!(auth["holder"], "anonymous");
    let refused: Vec<&Value> = all.iter().filter(|line| line["conn"] == auth["conn"]).collect();
    let whys: Vec<&str> = refused.iter().filter_map(|line| line["why"].as_str()).collect();
    assert_eq!(whys, ["forbidden", "unauthorized"], "{refused:#?}");
    assert!(!all.iter().any(|line| line["topics"].to_string().contains("none")), "what isn't there was not looked at");
    // A request that is refused is its sender's, whoever has sent the one before on that connection.
    let mut http = Http::connect(server.addresses()[0]);
    http.ask("/poll?topics=q.a&wait=0", &["Authorization: Bearer s3cret"]);
    assert_eq!(http.answer().status, 200);
    http.ask("/poll?topics=q.a&wait=0&token=guessed", &[]);
    assert_eq!(http.answer().status, 401);
    let read = line(&path, "a poll", |line| line["door"] == "poll" && line["holder"] == "publisher");
    let found = line(&path, "its refusal", |line| line["event"] == "refused" && line["conn"] == read["conn"]);
    assert_eq!(found["holder"], "anonymous");
    // Who was revoked, by whom.
    let body = r#"{"sub":"u42","until":4102444800}"#;
    let head = format!(
        "POST /revoke HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(exchange(server.addresses()[0], head.as_bytes()).starts_with("HTTP/1.1 200 "));
    let revoked = line(&path, "who was revoked", is("revoked"));
    assert_eq!(
        (&revoked["sub"], &revoked["until"], &revoked["holder"]),
        (&"u42".into(), &4102444800_u64.into(), &"operator".into())
    );
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("s3cret") && !text.contains("guessed"), "{text}");
}

#[test]
fn what_becomes_of_a_body_is_the_clients_and_not_the_proxys() {
    let folder = Folder::new();
    let server = serve(|config| {
        config.audit = Some(folder.file());
        config.trusted_proxy = vec!["127.0.0.1".parse().unwrap()];
        config.admin_token = Some("boss".parse().unwrap());
        config.publish_token = Some("s3cret".parse().unwrap());
        config.max_publications_per_ip = "1/s".parse().unwrap();
    });
    let mut http = Http::connect(server.addresses()[0]);
    let mut post = |path: &str, token: &str, client: &str, body: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\nAuthorization: Bearer {token}\r\n"
        );
        http.write(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        http.answer().status
    };
    assert_eq!(post("/revoke", "boss", "192.0.2.1", r#"{"sub":"u42"}"#), 200);
    let lines = "{\"topic\":\"a\",\"data\":1}\n".repeat(100);
    assert_eq!(post("/publish", "s3cret", "192.0.2.2", &lines), 429);
    let path = folder.file();
    assert_eq!(line(&path, "who was revoked", is("revoked"))["address"], "192.0.2.1:0");
    assert_eq!(line(&path, "what was refused", is("refused"))["address"], "192.0.2.2:0");
}

#[test]
fn sighup_opens_the_file_anew_and_a_kill_leaves_a_beginning_without_an_end() {
    let folder = Folder::new();
    let running = Running::start(&[&folder.flag()]);
    let path = folder.file();
    line(&path, "the start", is("start"));
    let moved = folder.0.join("audit.jsonl.1");
    fs::rename(&path, &moved).unwrap();
    running.signal(Signal::HUP);
    wait_for("the new file", || path.exists());
    let _client = running.client("/ws");
    line(&path, "a line in the new file", is("connect"));
    assert_eq!(lines(&moved).len(), 1);
    assert_eq!((running.metric("audit_writing"), running.metric("audit_dropped_total")), (1.0, 0.0));
    running.signal(Signal::KILL);
    running.end();
    let again = Running::start(&[&folder.flag()]);
    wait_for("the second start", || lines(&path).iter().filter(|line| line["event"] == "start").count() == 1);
    assert!(!lines(&path).iter().any(|line| line["event"] == "end" || line["event"] == "stop"));
    again.signal(Signal::TERM);
    assert_eq!(again.end().0, Some(0));
    assert_eq!(lines(&path).last().unwrap()["event"], "stop");
}

#[test]
fn a_disk_that_takes_no_more_stops_nobody_and_is_told() {
    let folder = Folder::new();
    // A file that may have 8 KiB, of which the kernel takes the part of a write that fits, as a full disk does.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -S -f 16; exec \"$@\"", "sh"]).arg(stentor().get_program());
    for (name, _) in stentor().get_envs() {
        command.env_remove(name);
    }
    command
        .args([
            "--listen",
            "127.0.0.1:0",
            "--audit-queue",
            "64KiB",
            "--max-commands",
            "0",
            "--max-commands-per-ip",
            "0",
        ])
        .arg(folder.flag());
    let mut running = Running::spawn(&mut command);
    let path = folder.file();
    let mut client = running.client("/ws");
    client.json();
    let fill = |client: &mut Client| {
        for n in 0..400 {
            client.ask(&format!(r#"{{"op":"sub","topics":["q.{n}"],"snapshot":false}}"#));
        }
    };
    fill(&mut client);
    running.logged("the audit is not written");
    running.until("audit_writing", |writing| writing == 0.0);
    for _ in 0..5 {
        fill(&mut client);
    }
    running.until("audit_dropped_total", |dropped| dropped > 0.0);
    assert_eq!(client.ask(r#"{"op":"ping"}"#)["type"], "pong");
    // There is room again.
    let any = Rlimit { current: None, ..getrlimit(Resource::Fsize) };
    prlimit(Some(Pid::from_child(&running.child)), Resource::Fsize, any).unwrap();
    running.logged("the audit is written again");
    let dropped = line(&path, "what is missing", is("dropped"));
    assert!(dropped["lines"].as_u64().unwrap() > 0);
    // The line that was cut off goes on where it ended: all of them are JSON.
    assert!(lines(&path).len() > 100);
    assert!(fs::metadata(&path).unwrap().len() > 16 * 1024);
}

#[test]
fn a_file_that_cannot_be_appended_to_ends_the_start_and_check_says_so() {
    let folder = Folder::new();
    let flag = format!("--audit={}", folder.0.join("none/audit").display());
    let output = run(&["--listen", "127.0.0.1:0", &flag]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("--audit ") && text.contains("No such file"), "{text}");
    let check = |flag: &str| {
        let output = run(&["--check", "--listen", "127.0.0.1:0", "--max-connections", "100", flag]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = check(&flag);
    assert!(code == Some(1) && text.contains("error: --audit "), "{text}");
    let (code, text) = check(&folder.flag());
    assert!(code == Some(0) && text.contains("note: the audit is appended to "), "{text}");
    assert!(!folder.file().exists(), "checking makes nothing");
    fs::File::create(folder.file()).unwrap().write_all(b"{}\n").unwrap();
    assert_eq!(check(&folder.flag()).0, Some(0));
}
