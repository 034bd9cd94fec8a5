//! Requests and frames that are not as they should be, byte by byte.

use std::io::Write;

use stentor::server::Server;
use tungstenite::{Error, HandshakeError, client::IntoClientRequest};

use crate::client::{Client, close_code, exchange, frame, read_frame, serve, tcp, upgraded};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn upgrade(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n{more}\r\n"
    )
}

#[test]
fn a_bad_request_gets_its_status_and_one_plain_sentence() {
    let server = serve(|_| {});
    let v13 = "Sec-WebSocket-Version: 13\r\n";
    for (request, status) in [
        ("\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03".to_owned(), "400"),
        ("hello\r\n\r\n".to_owned(), "400"),
        (upgrade("/ws", v13), "400"),
        (upgrade("/ws", &format!("{v13}Sec-WebSocket-Key: short\r\n")), "400"),
        (upgrade("/ws", &format!("Sec-WebSocket-Version: 8\r\n{KEY}")), "426"),
        (upgrade("/ws", KEY), "426"),
        ("GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "426"),
        ("POST /ws HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".to_owned(), "405"),
        (upgrade("/raw/not..a.topic", &format!("{v13}{KEY}")), "400"),
        (upgrade("/ws?topics=not..a.topic", &format!("{v13}{KEY}")), "400"),
        (upgrade("/ws", &format!("{v13}{KEY}Folded: a\r\n b\r\n")), "400"),
        (upgrade("/ws", &format!("{v13}{KEY}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n")), "400"),
        (format!("GET /ws HTTP/1.1\r\nHost: localhost\r\nLong: {}\r\n\r\n", "x".repeat(10_000)), "431"),
    ] {
        let answer = exchange(server.addresses()[0], request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(body.trim_end().ends_with('.') && body.trim_end().lines().count() == 1, "{request:?}: {body:?}");
        assert!(head.to_ascii_lowercase().contains("connection:"), "{head}");
        assert_eq!(status == "426", head.contains("Sec-WebSocket-Version: 13"), "{head}");
    }
}

#[test]
fn half_a_request_and_then_silence_is_answered_408() {
    let server = serve(|config| config.handshake_timeout = "200ms".parse().unwrap());
    let answer = exchange(server.addresses()[0], b"GET /ws HTTP/1.1\r\nHost: localhost\r\n");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn a_request_in_single_bytes_with_frames_behind_it_is_understood() {
    let server = serve(|_| {});
    let mut stream = tcp(server.addresses()[0]);
    let mut bytes = upgrade("/raw/a", &format!("Sec-WebSocket-Version: 13\r\n{KEY}")).into_bytes();
    bytes.extend(frame(0x81, b"early"));
    for byte in bytes {
        stream.write_all(&[byte]).unwrap();
    }
    let mut text = Vec::new();
    while !text.ends_with(b"\x81\x05early") {
        let mut byte = [0];
        std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
        text.push(byte[0]);
    }
}

#[test]
fn pages_from_elsewhere_are_kept_out() {
    let server = serve(|config| config.allow_origin = vec!["https://trade.example".into()]);
    let address = server.addresses()[0];
    let refused = Client::try_connect(address, "/ws", &[("Origin", "https://evil.example")]).err().unwrap();
    assert!(refused.contains("403"), "{refused}");
    for headers in [&[("Origin", "https://trade.example")][..], &[]] {
        let mut client = Client::try_connect(address, "/ws", headers).unwrap();
        assert_eq!(client.json()["type"], "hello");
    }
}

/// Connects, offering these subprotocols if any: the one that the server chose, or the status and sentence of its refusal.
fn offer(server: &Server, path: &str, offered: &[&str]) -> Result<(Client, Option<String>), (u16, String)> {
    let mut request = format!("ws://{}{path}", server.addresses()[0]).into_client_request().unwrap();
    if !offered.is_empty() {
        request.headers_mut().insert("Sec-WebSocket-Protocol", offered.join(", ").parse().unwrap());
    }
    match tungstenite::client(request, tcp(server.addresses()[0])) {
        Ok((socket, answer)) => {
            let chosen = answer.headers().get("Sec-WebSocket-Protocol").map(|name| name.to_str().unwrap().to_owned());
            Ok((Client { socket }, chosen))
        }
        Err(HandshakeError::Failure(Error::Http(answer))) => {
            let sentence = String::from_utf8(answer.body().clone().unwrap_or_default()).unwrap();
            Err((answer.status().as_u16(), sentence))
        }
        Err(error) => panic!("{path} {offered:?}: {error}"),
    }
}

#[test]
fn the_subprotocol_is_chosen_when_offered() {
    let server = serve(|_| {});
    for offered in [&["stentor.v1.json"][..], &["other", "stentor.v1.json"], &["stentor.v1.raw", "stentor.v1.json"]] {
        let (mut client, chosen) = offer(&server, "/ws", offered).unwrap();
        assert_eq!(chosen.as_deref(), Some("stentor.v1.json"), "{offered:?}");
        assert_eq!(client.json()["type"], "hello");
    }
    for offered in [&["stentor.v1.raw"][..], &["other", "stentor.v1.raw"], &["stentor.v1.json", "stentor.v1.raw"]] {
        let (mut client, chosen) = offer(&server, "/raw/a", offered).unwrap();
        assert_eq!(chosen.as_deref(), Some("stentor.v1.raw"), "{offered:?}");
        client.send("bare");
        assert_eq!(client.text(), "bare");
    }
}

#[test]
fn a_subprotocol_of_the_other_path_is_refused_with_both_names() {
    let server = serve(|_| {});
    for (path, offered) in [
        ("/ws", &["stentor.v1.raw"][..]),
        ("/ws?topics=a", &["other", "stentor.v1.raw"]),
        ("/raw/a", &["stentor.v1.json"]),
    ] {
        let (status, sentence) = offer(&server, path, offered).err().unwrap();
        assert_eq!(status, 400, "{path} {offered:?}");
        let names = ["stentor.v1.json", "stentor.v1.raw", "/ws", "/raw/TOPIC"];
        assert!(names.iter().all(|name| sentence.contains(name)), "{path} {offered:?}: {sentence}");
    }
}

#[test]
fn a_subprotocol_that_nobody_knows_is_not_answered() {
    let server = serve(|_| {});
    for path in ["/ws", "/raw/a"] {
        assert_eq!(offer(&server, path, &[]).unwrap().1, None);
        let answer = raw_answer(&server, path, "Sec-WebSocket-Protocol: mqtt, Stentor.v1.json, stentor.v2.raw\r\n");
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(!answer.contains("Sec-WebSocket-Protocol"), "{answer}");
    }
}

/// All that comes back for an upgrade with these header lines, up to the server's goodbye. tungstenite as a client gives up
/// where it has offered something and the answer names nothing.
fn raw_answer(server: &Server, path: &str, lines: &str) -> String {
    let mut stream = tcp(server.addresses()[0]);
    let more = format!("Sec-WebSocket-Version: 13\r\n{KEY}{lines}");
    stream.write_all(upgrade(path, &more).as_bytes()).unwrap();
    stream.write_all(&frame(0x88, &1000u16.to_be_bytes())).unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_frame_that_breaks_the_rules_is_closed_with_the_code_for_it() {
    let server = serve(|_| {});
    let unmasked = b"\x81\x02hi".to_vec();
    let mut huge = vec![0x82, 0xff];
    huge.extend_from_slice(&(1u64 << 62).to_be_bytes());
    huge.extend_from_slice(b"key!");
    let mut impossible = vec![0x82, 0xff];
    impossible.extend_from_slice(&u64::MAX.to_be_bytes());
    impossible.extend_from_slice(b"key!");
    let mut interrupted = frame(0x01, b"a");
    interrupted.extend(frame(0x81, b"b"));
    for (name, bytes, code) in [
        ("unmasked", unmasked, 1002),
        ("larger than --max-message", frame(0x82, &vec![0; 65_537]), 1009),
        ("claims 2^62 bytes", huge, 1009),
        ("claims 2^64 - 1 bytes", impossible, 1002),
        ("a reserved bit", frame(0xc1, b"a"), 1002),
        ("a reserved opcode", frame(0x83, b"a"), 1002),
        ("a fragmented ping", frame(0x09, b"a"), 1002),
        ("a ping of 126 bytes", frame(0x89, &[0; 126]), 1002),
        ("a continuation of nothing", frame(0x80, b"a"), 1002),
        ("a message inside a message", interrupted, 1002),
        ("text that is not UTF-8", frame(0x81, b"\xff"), 1007),
        ("a beginning of text that is not UTF-8", frame(0x01, b"a\xc0"), 1007),
        ("a close with half a code", frame(0x88, &[3]), 1002),
        ("a close with a forbidden code", frame(0x88, &1005u16.to_be_bytes()), 1002),
        ("a close with a bad reason", frame(0x88, &[3, 232, 0xff]), 1007),
    ] {
        let mut stream = upgraded(server.addresses()[0], "/raw/a");
        stream.write_all(&bytes).unwrap();
        assert_eq!(close_code(&mut stream), code, "{name}");
    }
}

#[test]
fn what_was_published_before_the_fault_is_still_delivered() {
    let server = serve(|_| {});
    let mut stream = upgraded(server.addresses()[0], "/raw/a");
    let mut bytes = frame(0x81, b"before");
    bytes.extend(frame(0x83, b"a reserved opcode"));
    stream.write_all(&bytes).unwrap();
    assert_eq!(read_frame(&mut stream), (0x81, b"before".to_vec()));
    assert_eq!(close_code(&mut stream), 1002);
    assert_eq!(std::io::Read::read(&mut stream, &mut [0]).unwrap(), 0, "a failed connection is ended by the server");
}

#[test]
fn fragments_with_a_ping_between_make_one_message() {
    let server = serve(|_| {});
    let mut stream = upgraded(server.addresses()[0], "/raw/a");
    for bytes in [frame(0x01, b"one "), frame(0x89, b"ping"), frame(0x00, b"two "), frame(0x80, b"three")] {
        for byte in bytes {
            stream.write_all(&[byte]).unwrap();
        }
    }
    assert_eq!(read_frame(&mut stream), (0x8a, b"ping".to_vec()));
    assert_eq!(read_frame(&mut stream), (0x81, b"one two three".to_vec()));
}

#[test]
fn a_close_is_answered_with_its_code_and_the_connection_ends() {
    let server = serve(|_| {});
    let mut stream = upgraded(server.addresses()[0], "/ws");
    stream.write_all(&frame(0x88, &[0x0b, 0xb8, b'b', b'y', b'e'])).unwrap();
    assert_eq!(close_code(&mut stream), 3000);
    assert_eq!(std::io::Read::read(&mut stream, &mut [0]).unwrap(), 0);
}

#[test]
fn resets_at_every_stage_leave_nothing_behind() {
    let server = serve(|config| {
        config.max_connections = 4;
        config.max_connections_per_ip = Some(0);
        config.max_connects_per_ip = "0".parse().unwrap();
    });
    let whole = upgrade("/ws?topics=a", &format!("Sec-WebSocket-Version: 13\r\n{KEY}"));
    let mut bytes = whole.into_bytes();
    bytes.extend(frame(0x81, br#"{"op":"sub","topics":["b","c.*"]}"#));
    for cut in (1..bytes.len()).step_by(3) {
        // More connections than are allowed at once: only if every one is given back can the last be made.
        let mut stream = loop {
            let mut stream = tcp(server.addresses()[0]);
            if stream.write_all(&bytes[..cut]).is_ok() {
                break stream;
            }
        };
        let _ = stream.flush();
        // Unread answers make the close a reset.
        drop(stream);
    }
    let mut client = loop {
        match Client::try_connect(server.addresses()[0], "/ws", &[]) {
            Ok(client) => break client,
            Err(error) => assert!(error.contains("503") || error.contains("reset"), "{error}"),
        }
    };
    assert_eq!(client.json()["type"], "hello");
}
