//! The pages among the examples, in a browser; and the table of what every client does.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    thread,
};

use serde_json::Value;

use crate::{
    browser::Browser,
    client::{Client, serve},
};

/// Serves a page of the examples to whoever asks, on a port of its own, as it would be with this server at the usual address.
fn page(name: &str, server: SocketAddr) -> String {
    let file = format!("{}/examples/pages/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains("//127.0.0.1:9001/"), "{name}");
    let text = text.replace("127.0.0.1:9001", &server.to_string());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let head = BufReader::new(&stream).lines().map_while(Result::ok).find(String::is_empty);
            if head.is_some() {
                let length = text.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes()));
            }
        }
    });
    format!("http://{address}/{name}")
}

/// Types it until it comes back: the page may not be connected yet.
fn say(browser: &mut Browser, words: &str) {
    browser.type_over("words", words);
    browser.press("Enter");
}

#[test]
fn the_page_that_chats_does_so_with_whoever_is_on_the_topic() {
    let server = serve(|_| ());
    let mut other = Client::hello(&server, "/ws?topics=chat.room");
    assert_eq!(other.json()["type"], "ack");
    other.send(r#"{"op":"pub","topic":"chat.room","data":"is anybody there?"}"#);
    let Some(mut browser) = Browser::open(600, &page("chat.html", server.addresses()[0])) else { return };
    browser.wait_for_text("#said", r#"text === "is anybody there?\n""#);
    say(&mut browser, "hello");
    browser.wait_for_text("#said", r#"text === "is anybody there?\nhello\n""#);
    loop {
        let message = other.json();
        if message["data"] == "hello" {
            break;
        }
    }
    browser.assert_clean();
}

#[test]
fn the_page_that_echoes_has_back_what_is_said() {
    let server = serve(|_| ());
    let Some(mut browser) = Browser::open(600, &page("echo.html", server.addresses()[0])) else { return };
    browser.wait_for("() => socket.readyState === WebSocket.OPEN");
    for words in ["hello", "{ 1.50"] {
        say(&mut browser, words);
    }
    browser.wait_for_text("#said", r#"text === "hello\n{ 1.50\n""#);
    browser.assert_clean();
}

/// A column of the table, and what runs every scenario with that client.
const CLIENTS: [(&str, &str); 4] = [
    ("Python", "clients/python/tests/test_conformance.py"),
    ("JavaScript", "scripts/clients-js"),
    ("Go", "scripts/go"),
    ("Rust", "scripts/rust"),
];

#[test]
fn the_table_of_what_every_client_does_has_all_scenarios() {
    let read = |path: &str| std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let scenarios: Vec<HashMap<String, Value>> =
        serde_json::from_str(&read("clients/conformance/scenarios.json")).unwrap();
    let columns: Vec<&str> = CLIENTS.iter().map(|(name, _)| *name).collect();
    let mut expected =
        format!("| scenario | promise | {} |\n| --- | --- |{}\n", columns.join(" | "), " --- |".repeat(columns.len()));
    for scenario in &scenarios {
        let (name, promise) = (scenario["name"].as_str().unwrap(), scenario["promise"].as_str().unwrap());
        expected += &format!("| {name} | {promise} |{}\n", " ● |".repeat(columns.len()));
    }
    let document = read("docs/clients.md");
    assert!(document.contains(&expected), "docs/clients.md has another table than this:\n{expected}");
    // A mark is a promise that is tried: no scenario is left out.
    for (_, runs) in CLIENTS {
        let runs = read(runs);
        assert!(runs.contains("run.py") && !runs.contains("--without"), "{runs}");
    }
}
