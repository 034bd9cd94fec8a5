//! The settings file, read again while the server runs.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::process::Signal;

use crate::{
    client::Client,
    process::{Running, run},
};

/// A settings file that goes with its test.
pub struct File(pub PathBuf);

impl File {
    pub fn new(text: &str) -> File {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file =
            File(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}.toml", std::process::id())));
        file.write(text);
        file
    }

    pub fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

const PUB: &str = r#"{"op":"pub","id":1,"topic":"a","data":1}"#;

/// A `/ws` client with its greeting read.
fn hello(running: &Running, path: &str) -> Client {
    let mut client = running.client(path);
    assert_eq!(client.json()["type"], "hello");
    client
}

#[test]
fn sighup_changes_what_can_change_and_says_what_needs_a_restart() {
    let file = File::new("publish-token = 'old'\nretain = '8MiB'\nlog-level = 'info'\n");
    let mut running = Running::start(&["--config", file.path(), "--spin", "0", "--heartbeat", "20s"]);
    let mut before = hello(&running, "/ws?token=old");
    assert_eq!(before.ask(PUB)["seq"], 1);

    file.write(
        "publish-token = 'new'\nretain = '9MiB'\nlog-level = 'debug'\nallow-origin = 'https://ours.example'\n\
         max-connections-per-ip = 5\nheartbeat = '30s'\n",
    );
    running.signal(Signal::HUP);
    let log = running.logged("reloaded");
    let line = |name: &str| log.lines().find(|line| line.contains(&format!("\"{name}\""))).unwrap_or_default();
    assert!(line("retain").contains("needs a restart") && line("retain").contains("9MiB"), "{log}");
    assert!(line("publish-token").contains("changed") && line("publish-token").contains("(hidden)"), "{log}");
    assert!(line("publish-token").contains(&format!("file {}:1", file.path())), "{log}");
    for name in ["log-level", "allow-origin", "max-connections-per-ip"] {
        assert!(line(name).contains("changed"), "{name}: {log}");
    }
    assert_eq!(line("heartbeat"), "", "a flag wins over the file, at a reload too");
    assert!(!log.contains("old") && !log.contains("new\""), "a token is in the log: {log}");

    assert_eq!(before.ask(PUB)["code"], "forbidden", "a token that was right once is no more than none");
    assert_eq!(before.ask(r#"{"op":"auth","id":2,"token":"new"}"#)["type"], "ack");
    assert_eq!(before.ask(PUB)["seq"], 2);
    let address = running.address.parse().unwrap();
    let refused = Client::try_connect(address, "/ws", &[("Origin", "https://theirs.example")]);
    assert!(refused.is_err_and(|error| error.contains("403")));
    running.logged("refused");
    let mut client = hello(&running, "/ws?token=new");
    assert_eq!(client.ask(PUB)["seq"], 3);
    assert!(running.logged("opened").contains("DEBUG"));
    drop(client);
    running.logged("closed");
    let mut client = hello(&running, "/ws?token=old");
    assert_eq!(client.json()["code"], "unauthorized");
    assert_eq!(client.closed().0, 4001);

    // What needs a restart is said again each time, until there was one; what was changed is not.
    running.signal(Signal::HUP);
    let log = running.logged("reloaded");
    assert!(log.contains("9MiB") && !log.contains("allow-origin"), "{log}");
}

#[test]
fn a_limit_on_connections_can_be_raised_and_lowered() {
    let file = File::new("max-connections = 1\n");
    let mut running = Running::start(&["--config", file.path(), "--max-connections-per-ip", "0"]);
    let address = running.address.parse().unwrap();
    let _first = hello(&running, "/ws");
    assert!(Client::try_connect(address, "/ws", &[]).is_err_and(|error| error.contains("503")));
    file.write("max-connections = 2\n");
    running.signal(Signal::HUP);
    running.logged("reloaded");
    let _second = hello(&running, "/ws");
    file.write("max-connections = 1\n");
    running.signal(Signal::HUP);
    running.logged("reloaded");
    assert!(Client::try_connect(address, "/ws", &[]).is_err_and(|error| error.contains("503")));
    // More than there can be descriptors for.
    file.write("max-connections = 2_000_000_000\n");
    running.signal(Signal::HUP);
    assert!(running.logged("nothing was reloaded").contains("--max-connections 2000000000"));
}

#[test]
fn a_mistake_in_the_file_changes_nothing_and_is_logged_with_its_line() {
    let file = File::new("publish-token = 'old'\n");
    let mut running = Running::start(&["--config", file.path()]);
    for (text, said) in [
        ("publish-token = 'new'\nretian = '1MiB'\n", format!("{}:2: retian", file.path())),
        ("publish-token = 'new'\nmax-subscriptions = 2_000_000\n", "--max-subscriptions-total".to_owned()),
    ] {
        file.write(text);
        running.signal(Signal::HUP);
        let log = running.logged("nothing was reloaded");
        assert!(log.contains(&said), "{log}");
        assert_eq!(hello(&running, "/ws?token=old").ask(PUB)["type"], "ack");
    }
}

#[test]
fn a_mistake_in_the_file_ends_the_start_with_exit_code_2() {
    let file = File::new("workers = 'many'\n");
    let output = run(&["--config", file.path()]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(&format!("{}:1: workers: expected N, found \"many\"", file.path())), "{text}");
}

#[test]
fn a_limit_on_subscriptions_that_is_lowered_below_what_a_client_has_takes_nothing_from_it() {
    let file = File::new("max-subscriptions = 8\n");
    let mut running = Running::start(&["--config", file.path()]);
    let mut client = hello(&running, "/ws?topics=a,b,c");
    assert_eq!(client.json()["type"], "ack");
    file.write("max-subscriptions = 1\n");
    running.signal(Signal::HUP);
    running.logged("reloaded");
    let again = client.ask(r#"{"op":"sub","id":1,"topics":["b"],"mode":"latest"}"#);
    assert_eq!(
        (&again["type"], &again["topics"][0]["mode"]),
        (&"ack".into(), &"latest".into()),
        "what it has is no more"
    );
    let more = client.ask(r#"{"op":"sub","id":2,"topics":["d"]}"#);
    assert_eq!(more["code"], "too_many_subscriptions");
    let text = more["message"].as_str().unwrap();
    assert!(text.contains("d would be one too many") && text.contains("--max-subscriptions allows 1"), "{text}");
    let many = client.ask(r#"{"op":"sub","id":3,"topics":["a","b"]}"#);
    assert!(many["message"].as_str().unwrap().contains("--max-subscriptions"), "{many}");
    assert_eq!(client.ask(r#"{"op":"list","id":4}"#)["topics"].as_array().unwrap().len(), 3);
    let other = &mut hello(&running, "/ws");
    assert_eq!(other.ask(PUB)["type"], "ack");
    assert_eq!(client.json()["topic"], "a");
}

#[test]
fn a_value_that_nothing_can_be_done_with_changes_nothing_and_is_named_with_what_is_accepted() {
    let file = File::new("");
    let mut running = Running::start(&["--config", file.path()]);
    let mut client = hello(&running, "/ws");
    for (setting, given, accepted) in [
        ("max-commands", "1e-20", "from 1 an hour"),
        ("max-publications", "1e-20/s", "from 1 an hour"),
        ("idle-timeout", "500000000years", "at most 100years"),
        ("drain-timeout", "18446744073709551615s", "at most 100years"),
        ("lag-limit", "17179869183GiB", "1.0 PiB"),
    ] {
        file.write(&format!("{setting} = '{given}'\n"));
        running.signal(Signal::HUP);
        let log = running.logged("nothing was reloaded");
        assert!(log.contains(setting) && log.contains(accepted), "{log}");
        assert_eq!(client.ask(PUB)["type"], "ack", "{setting} {given}");
    }
}
