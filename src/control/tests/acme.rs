//! The address for challenges.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{admin::Admin, *};

/// A webroot with the folder for challenges in it, that goes with its test.
struct Webroot(PathBuf);

impl Webroot {
    fn new() -> Webroot {
        let webroot = std::env::temp_dir().join(format!("stentor-acme-{}-{:x}", std::process::id(), fastrand::u64(..)));
        fs::create_dir_all(webroot.join(".well-known/acme-challenge")).unwrap();
        Webroot(webroot)
    }

    fn path(&self, token: &str) -> PathBuf {
        self.0.join(".well-known/acme-challenge").join(token)
    }

    /// A thread that answers from it.
    fn serve(&self) -> Admin {
        let webroot = self.0.clone();
        Admin::with(
            |_| {},
            move |parts| {
                let config = Config { acme_webroot: Some(webroot), ..Config::default() };
                Control::acme(parts, &config, Some(443))
            },
        )
    }
}

impl Drop for Webroot {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn target(token: &str) -> String {
    format!("/.well-known/acme-challenge/{token}")
}

#[test]
fn a_challenge_is_answered_with_what_is_in_its_file() {
    let webroot = Webroot::new();
    let server = webroot.serve();
    let mut client = server.connect();
    assert_eq!(client.get(&target("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA")).status, 404);
    fs::write(webroot.path("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA"), "the.answer").unwrap();
    let answer = client.get(&target("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA"));
    assert_eq!((answer.status, answer.body.as_str()), (200, "the.answer"));
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    assert_eq!(
        client.ask("HEAD", &target("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA")).headers["content-length"],
        "10"
    );
    assert_eq!(client.ask("DELETE", &target("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA")).status, 405);
    fs::write(webroot.path("largest"), "x".repeat(4096)).unwrap();
    assert_eq!(client.get(&target("largest")).body.len(), 4096);
    let metrics = &server.context.shared.metrics;
    assert_eq!((metrics.challenges_answered.get(), metrics.challenges_missing.get()), (3, 1));
}

#[test]
fn nothing_but_plain_files_of_the_folder_can_be_reached() {
    let webroot = Webroot::new();
    let secret = webroot.0.join("secret");
    fs::write(&secret, "secret").unwrap();
    fs::write(webroot.path("good"), "good").unwrap();
    fs::write(webroot.path("index.html"), "secret").unwrap();
    fs::write(webroot.path("large"), "x".repeat(4097)).unwrap();
    symlink(&secret, webroot.path("link")).unwrap();
    fs::create_dir(webroot.path("folder")).unwrap();
    mknodat(CWD, webroot.path("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let server = webroot.serve();
    let mut client = server.connect();
    let long = "a".repeat(200);
    for token in [
        "link",
        "folder",
        "pipe",
        "large",
        "index.html",
        "",
        ".",
        "..",
        "../../secret",
        "%2e%2e/%2e%2e/secret",
        "good/",
        "goo%64",
        "good?x",
        "/good",
        &long,
    ] {
        let answer = client.get(&target(token));
        let expected = if token == "good?x" { 200 } else { 404 };
        assert_eq!(answer.status, expected, "{token}: {answer:?}");
        assert!(!answer.body.contains("secret"), "{token}: {answer:?}");
    }
    // A folder on the way that is a link leads nowhere, either.
    let elsewhere = Webroot::new();
    fs::remove_dir(elsewhere.path("")).unwrap();
    symlink(webroot.path(""), elsewhere.0.join(".well-known/acme-challenge")).unwrap();
    assert_eq!(elsewhere.serve().connect().get(&target("good")).status, 404);
}

#[test]
fn everything_else_is_sent_on_to_https_under_the_name_that_was_asked_for() {
    let webroot = Webroot::new();
    let server = webroot.serve();
    let mut client = server.connect();
    let mut location = |method: &str, target: &str, host: &str| {
        let answer = client.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).answer_to(method);
        assert_eq!(answer.status, 301, "{answer:?}");
        answer.headers["location"].clone()
    };
    assert_eq!(location("GET", "/a?b=%20c", "Example.com"), "https://Example.com/a?b=%20c");
    assert_eq!(location("GET", "http://other.example/a", "example.com:80"), "https://example.com/a");
    assert_eq!(location("HEAD", "/.well-known/acme-challenge", "[::1]"), "https://[::1]/.well-known/acme-challenge");
    assert_eq!(location("OPTIONS", "*", "example.com"), "https://example.com/");
    assert_eq!(location("GET", "/publish", "example.com"), "https://example.com/publish");
    for host in ["exa\"mple.com", "a:b", "a:99999", ""] {
        let mut client = server.connect();
        let answer = client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).answer();
        assert!(answer.status == 400 && !answer.headers.contains_key("location"), "{host}: {answer:?}");
    }
    let mut client = server.connect();
    assert_eq!(client.send("GET / HTTP/1.0\r\n\r\n").answer().status, 400);
    let mut client = server.connect();
    let answer = client.send("POST /publish HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").answer();
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (301, "close"), "nobody reads the body");
}

#[test]
fn connections_that_say_nothing_keep_no_challenge_out() {
    let webroot = Webroot::new();
    fs::write(webroot.path("token"), "answer").unwrap();
    let server = webroot.serve();
    let _silent: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    let answered = || {
        let mut client = server.connect();
        client.send(format!("GET {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", target("token")));
        let mut answer = String::new();
        client.0.read_to_string(&mut answer).is_ok_and(|_| answer.ends_with("answer"))
    };
    until("an answer", answered);
    assert!(server.context.shared.metrics.acme_connections.get() <= 64);
}
