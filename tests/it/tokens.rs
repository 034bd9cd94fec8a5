//! Tokens, roles and revocation, from the files on: what `stentor token` makes, what the server takes, and what it reads again at SIGHUP.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    process::Stdio,
    thread,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    client::Client,
    process::{Running, run, stentor},
};

/// A folder with a key, its public part, and what a program is told to use it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.key("key.pem");
        folder
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// A new key, whose public part the server reads.
    fn key(&self, name: &str) {
        let jwks = said(&["token", "--new-key", &self.path(name)]);
        self.write("keys.json", &jwks);
    }

    fn token(&self, args: &[&str]) -> String {
        let token = said(&[&["token", "--key", &self.path("key.pem"), "--for", "4m"], args].concat());
        token.trim().to_owned()
    }

    fn start(&self, args: &[&str]) -> Running {
        Running::start(&[&["--jwt-keys", &self.path("keys.json")], args].concat())
    }
}

/// What it says that is told this.
fn said_of(args: &[&str], input: &str) -> String {
    let mut child = stentor().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

fn said(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What whoever shows this is told when it subscribes to these names: the type of the answer and, of an error, its code.
fn subscribes(server: &Running, token: &str, names: &str) -> String {
    let authorization = format!("Bearer {token}");
    let headers: &[(&str, &str)] = if token.is_empty() { &[] } else { &[("Authorization", &authorization)] };
    let mut client = Client::try_connect(server.at(), "/ws", headers).unwrap();
    assert_eq!(client.json()["type"], "hello");
    let asked =
        serde_json::json!({"op": "sub", "id": 1, "topics": names.split(' ').collect::<Vec<_>>(), "snapshot": false});
    let answer = client.ask(&asked.to_string());
    answer["code"].as_str().or(answer["type"].as_str()).unwrap_or_default().to_owned()
}

#[test]
fn what_the_program_has_signed_the_server_takes_and_holds_it_to_what_it_says() {
    let folder = Folder::new();
    let server = folder.start(&[]);
    let token = folder.token(&["--sub", "q.us.*,q.us.*.>", "--pub", "n"]);
    for (token, names, answer) in [
        (&token[..], "q.us.A q.us.>", "ack"),
        (&token, "q.us.A q.eu.A", "forbidden"),
        (&token, "q.>", "forbidden"),
        ("", "q.us.A", "forbidden"),
    ] {
        assert_eq!(subscribes(&server, token, names), answer, "{names}");
    }
}

#[test]
fn keys_and_rights_are_read_again_at_sighup_and_after_a_mistake_the_old_ones_stay() {
    let folder = Folder::new();
    folder.write("rights.toml", "[roles.pro]\nsub = ['q.>']\n");
    let mut server = folder.start(&["--rights", &folder.path("rights.toml")]);
    let token = folder.token(&["--role", "pro"]);
    assert_eq!(subscribes(&server, &token, "q.us.A"), "ack");
    for (file, text, place) in [
        ("rights.toml", "[roles.pro]\nsub = ['q.>']\nsubs = []\n", "rights.toml:3: roles.pro: subs: expected"),
        ("keys.json", "{\"keys\":[\n{}]}", "keys.json: line 2: key 1: missing field `kty`"),
    ] {
        let before = fs::read_to_string(folder.path(file)).unwrap();
        folder.write(file, text);
        server.signal(Signal::HUP);
        let log = server.logged("nothing was reloaded");
        assert!(log.contains(place), "{log}");
        assert_eq!(subscribes(&server, &token, "q.us.A"), "ack", "what there was stays");
        folder.write(file, &before);
    }
    folder.write("rights.toml", "[roles.pro]\nsub = ['t.>']\n");
    server.signal(Signal::HUP);
    server.logged("reloaded");
    assert_eq!(subscribes(&server, &token, "q.us.A"), "forbidden");
    assert_eq!(subscribes(&server, &token, "t.us.A"), "ack");
    folder.key("other.pem");
    server.signal(Signal::HUP);
    server.logged("reloaded");
    let authorization = format!("Bearer {token}");
    let mut client = Client::try_connect(server.at(), "/ws", &[("Authorization", &authorization)]).unwrap();
    let mut told = client.json();
    while told["type"] != "error" {
        told = client.json();
    }
    assert_eq!(told["code"], "unauthorized", "{told}");
    assert!(!told.to_string().contains(token.rsplit('.').next().unwrap()));
}

#[test]
fn who_is_revoked_in_the_file_is_so_from_the_start_and_at_sighup() {
    let folder = Folder::new();
    folder.write("revoked", "{\"sub\":\"u1\",\"until\":9999999999}\n");
    let mut server = folder.start(&["--revoked", &folder.path("revoked")]);
    let (one, two) = (folder.token(&["--name", "u1", "--sub", ">"]), folder.token(&["--name", "u2", "--sub", ">"]));
    let is_taken = |server: &Running, token: &str| {
        let authorization = format!("Bearer {token}");
        let request = format!(
            "GET /topics HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\nConnection: close\r\n\r\n"
        );
        crate::client::exchange(server.at(), request.as_bytes()).starts_with("HTTP/1.1 200")
    };
    assert!(!is_taken(&server, &one) && is_taken(&server, &two));
    folder.write("revoked", "{\"sub\":\"u2\",\"until\":9999999999}\n");
    server.signal(Signal::HUP);
    server.logged("reloaded");
    assert!(is_taken(&server, &one) && !is_taken(&server, &two));
}

#[test]
fn check_reads_the_files_and_names_every_mistake_with_its_line() {
    let folder = Folder::new();
    folder.write("rights.toml", "[roles.pro]\nsub = 'q.>'\n[certificates.a]\nrole = 'pro'\n");
    let check = |folder: &Folder| {
        let (keys, rights) = (folder.path("keys.json"), folder.path("rights.toml"));
        let args = [
            "--check",
            "--listen",
            "127.0.0.1:0",
            "--max-connections",
            "100",
            "--jwt-keys",
            &keys,
            "--rights",
            &rights,
        ];
        let output = run(&args);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = check(&folder);
    assert!(code == Some(0) && text.contains("note: rights: 1 key, 1 role, 1 certificate\n"), "{text}");
    assert!(text.contains("note: publishing needs a right"), "{text}");
    folder.write("rights.toml", "[roles.pro]\nsubs = 'q.>'\n[certificates.a]\nrole = 'other'\n");
    let (code, text) = check(&folder);
    assert_eq!(code, Some(1), "{text}");
    for said in [
        "rights.toml:2: roles.pro: subs: expected",
        "rights.toml:4: certificates.\"a\": role: there is no [roles.other]",
    ] {
        assert!(text.lines().any(|line| line.starts_with("error: --rights ") && line.contains(said)), "{said}: {text}");
    }
}

/// Shows a token in every way that there is, and returns what is answered.
fn show(at: SocketAddr, token: &str) -> Vec<String> {
    let mut all = Vec::new();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let body = "{\"sub\":\"nobody\"}";
    for request in [
        format!("GET /topics?token={token} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        format!(
            "GET /topics?token={token} HTTP/1.1\r\nHost: localhost\r\n{bearer}Authorization: Bearer other\r\nConnection: close\r\n\r\n"
        ),
        format!("GET /no/such?token={token} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        format!("BAD /topics?token={token}\r\n\r\n"),
        format!("GET /topics/a HTTP/1.1\r\nHost: localhost\r\n{bearer}Connection: close\r\n\r\n"),
        format!("GET /poll?topics=a&wait=0&token={token} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        format!("GET /history/a HTTP/1.1\r\nHost: localhost\r\n{bearer}Connection: close\r\n\r\n"),
        format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{bearer}Connection: close\r\n\r\n"),
        format!("GET /debug/slow HTTP/1.1\r\nHost: localhost\r\n{bearer}Connection: close\r\n\r\n"),
        format!(
            "POST /publish/a HTTP/1.1\r\nHost: localhost\r\n{bearer}Connection: close\r\nContent-Length: 1\r\n\r\n1"
        ),
        format!(
            "POST /revoke HTTP/1.1\r\nHost: localhost\r\n{bearer}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    ] {
        all.push(crate::client::exchange(at, request.as_bytes()));
    }
    let offered = format!("stentor.v1.json, stentor.bearer.{token}");
    let header = format!("Bearer {token}");
    for (path, headers) in [
        ("/ws?topics=a".to_owned(), vec![("Authorization", &*header)]),
        ("/ws?topics=a".to_owned(), vec![("Sec-WebSocket-Protocol", &*offered)]),
        (format!("/ws?token={token}"), vec![]),
        (format!("/raw/a?token={token}"), vec![]),
    ] {
        let Ok(client) = Client::try_connect(at, &path, &headers) else { continue };
        drop(client);
    }
    let mut client = Client::try_connect(at, "/ws", &[]).unwrap();
    client.send(&format!(r#"{{"op":"auth","id":1,"token":"{token}"}}"#));
    for _ in 0..2 {
        all.push(client.json().to_string());
    }
    // What is no command has it, too.
    client.send(&format!(r#"{{"op":"auth","token":"{token}","#));
    all
}

/// All that a run says, where and to whomever, is looked through for what nobody may see: tokens that are right and wrong, by every way to show one, words
/// of operators and publishers, and keys.
#[test]
fn no_secret_is_in_anything_that_a_run_says() {
    let folder = Folder::new();
    let secret = URL_SAFE_NO_PAD.encode("planted-shared-key-of-32-bytes-or-more");
    let key = format!(r#"{{"kty":"oct","k":"{secret}","alg":"HS256","kid":"shared"}}"#);
    let jwk = folder.write("shared.json", &key);
    folder.write("keys.json", &format!("{{\"keys\":[{key}]}}"));
    let hash = said_of(&["token", "--hash"], "planted-static-token");
    let rights = format!("[tokens.desk]\nsha256 = \"{}\"\nsub = ['>']\npub = ['>']\n", hash.trim());
    let mut all: Vec<String> = Vec::new();
    let sign = |args: &[&str]| said(&[&["token", "--key", &jwk, "--for", "4m"], args].concat()).trim().to_owned();
    let good = sign(&["--name", "u1", "--sub", ">", "--pub", ">"]);
    let admin = sign(&["--name", "boss", "--admin"]);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}{}", if signature.starts_with('A') { "B" } else { "A" }, &signature[1..]);
    let old = sign(&["--name", "u2", "--sub", ">", "--jwt-audience", "elsewhere"]);
    let args = [
        "--rights",
        &folder.write("rights.toml", &rights),
        "--jwt-keys",
        &folder.path("keys.json"),
        "--revoked",
        &folder.path("revoked"),
        "--audit",
        &folder.path("audit"),
        "--log-level",
        "trace",
        "--log-limit",
        "0",
    ];
    let command = || {
        let mut command = stentor();
        command
            .env("STENTOR_PUBLISH_TOKEN", "planted-publishers-word")
            .env("STENTOR_ADMIN_TOKEN", "planted-operators-word");
        command.args(["--listen", "127.0.0.1:0", "--max-connections", "100"]).args(args);
        command
    };
    for asks in ["--print-config", "--check"] {
        let output = command().arg(asks).output().unwrap();
        assert!(output.status.success());
        all.extend([output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()));
    }
    let mut server = Running::spawn(&mut command());
    let (at, pid) = (server.at(), Pid::from_child(&server.child));
    let shown = [
        &good[..],
        &forged,
        &old,
        &admin,
        "planted-static-token",
        "planted-publishers-word",
        "planted-operators-word",
        "planted-guess",
        "planted.guess.token",
    ];
    let log = thread::scope(|scope| {
        // Read all the time, or lines would be left out.
        let log = scope.spawn(|| {
            let mut log = String::new();
            server.log.read_to_string(&mut log).unwrap();
            log
        });
        shown.iter().for_each(|token| all.extend(show(at, token)));
        kill_process(pid, Signal::HUP).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        log.join().unwrap()
    });
    let output =
        stentor().args(["token", "--explain", &forged, "--jwt-keys", &folder.path("keys.json")]).output().unwrap();
    all.extend([output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()));
    assert!(log.contains("a wrong token was shown"), "{log}");
    all.push(log);
    for file in ["audit", "revoked"] {
        all.push(fs::read_to_string(folder.path(file)).unwrap());
    }
    let mut planted = vec!["planted", &secret[..], "shared-key-of-32"];
    planted.extend([&good, &forged, &old, &admin].map(|token| token.rsplit('.').next().unwrap()));
    for text in &all {
        for secret in &planted {
            let found = text.find(secret).map(|at| &text[text.floor_char_boundary(at.saturating_sub(200))..]);
            assert!(found.is_none(), "{secret}: {}", found.unwrap().chars().take(400).collect::<String>());
        }
    }
}

#[test]
fn a_server_whose_files_are_wrong_does_not_start_and_says_why() {
    let folder = Folder::new();
    for (args, said) in [
        (&["--jwt-keys", "/no/such/file"][..], "--jwt-keys /no/such/file: No such file"),
        (&["--rights", "/no/such/file"], "--rights /no/such/file: No such file"),
        (&["--revoked", &folder.write("revoked", "x\n")], "revoked:1: expected {\"sub\""),
        (&["--anonymous-subscribe", "q..a"], "--anonymous-subscribe was given as q..a: an empty segment at byte 2"),
        (&["--jwt-audience", ""], "--jwt-audience was given as nothing"),
        (&["--jwt-leeway", "6m"], "--jwt-leeway was given as 6m: it must be at most 5m"),
    ] {
        let output = run(&[&["--listen", "127.0.0.1:0"], args].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains(said), "{args:?}: {text}");
    }
}
