//! permessage-deflate as its users meet it: offers, compressed messages either way, and what isn't in order. Messages are inflated by
//! another library than the server's.

use std::{io::Write, net::TcpStream};

use miniz_oxide::{deflate::compress_to_vec, inflate::decompress_to_vec};
use stentor::{
    config::{Compression, Config},
    server::Server,
};

use crate::client::{Client, close_code, exchange, frame, read_frame, serve, tcp, until};

#[path = "../../src/websocket/independent.rs"]
mod independent;

use independent::Context;

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The value of the header with which an offer is answered, and the connection.
fn offered(server: &Server, path: &str, headers: &str) -> (Option<String>, TcpStream) {
    let mut stream = tcp(server.addresses()[0]);
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
    .unwrap();
    let head = until(&mut stream, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let answer = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
    (answer.map(str::to_owned), stream)
}

/// The next frame, its payload inflated where it is marked as compressed.
fn next(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let (first, payload) = read_frame(stream);
    if first & 0x40 == 0 {
        return (first, payload);
    }
    (first, decompress_to_vec(&[&payload[..], &TAIL, &[3, 0]].concat()).unwrap())
}

/// A frame that holds a compressed message.
fn compressed(first: u8, message: &[u8]) -> Vec<u8> {
    // What ends its stream has a byte behind it (RFC 7692 section 7.2.3.4).
    let mut packed = compress_to_vec(message, 9);
    packed.push(0);
    frame(first | 0x40, &packed)
}

fn quote(n: usize) -> String {
    format!(r#"{{"bid":{n}.25,"ask":{n}.5,"note":"{}"}}"#, "a quote that is long enough ".repeat(8))
}

#[test]
fn whoever_offers_it_is_sent_compressed_publications_and_others_the_same_in_clear() {
    let server = serve(|config| config.compression = Compression::Once);
    let plain = "permessage-deflate; client_no_context_takeover";
    let twelve = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12\r\n";
    let nine = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9; server_no_context_takeover\r\n";
    let safari = "User-Agent: Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 Version/15.3 Safari/605.1.15\r\n";
    let chrome = "User-Agent: Mozilla/5.0 (X11) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36 \u{e9}\r\n";
    let nines = format!("{plain}; server_no_context_takeover; server_max_window_bits=9");
    let cases = [
        ("/raw/a", OFFER.to_owned(), Some(plain.to_owned()), true),
        ("/raw/a", format!("{OFFER}{chrome}"), Some(plain.to_owned()), true),
        ("/raw/a", twelve.to_owned(), Some(format!("{plain}; server_max_window_bits=12")), true),
        ("/raw/a", nine.to_owned(), Some(nines), false),
        ("/raw/a", String::new(), None, false),
        ("/raw/a?compress=0", OFFER.to_owned(), None, false),
        ("/raw/a?compress=1", OFFER.to_owned(), Some(plain.to_owned()), true),
        ("/raw/a", format!("{OFFER}{safari}"), None, false),
        (
            "/raw/a",
            "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8\r\n".to_owned(),
            None,
            false,
        ),
    ];
    let mut clients = Vec::new();
    for (path, headers, answer, is_compressed) in cases {
        let (found, stream) = offered(&server, path, &headers);
        assert_eq!(found, answer, "{path} {headers}");
        clients.push((stream, is_compressed));
    }
    let mut publisher = Client::connect(&server, "/raw/a?echo=0");
    for n in 0..5 {
        let text = quote(n);
        publisher.send(&text);
        publisher.send("short");
        for (stream, is_compressed) in &mut clients {
            let first = if *is_compressed { 0xc1 } else { 0x81 };
            assert_eq!(next(stream), (first, text.clone().into_bytes()));
            assert_eq!(next(stream), (0x81, b"short".to_vec()));
        }
    }
}

#[test]
fn on_ws_answers_and_snapshots_come_as_they_are_and_updates_compressed() {
    let server = serve(|_| {});
    let mut publisher = Client::connect(&server, "/raw/a?echo=0");
    publisher.send(&quote(0));
    let (_, mut stream) = offered(&server, "/ws?topics=a", OFFER);
    let mut read = |kind: &str| {
        let (first, message) = next(&mut stream);
        let message: serde_json::Value = serde_json::from_slice(&message).unwrap();
        assert_eq!(message["type"], kind, "{message}");
        (first, message["data"].to_string())
    };
    assert_eq!(read("hello").0, 0x81);
    assert_eq!(read("ack").0, 0x81);
    assert_eq!(read("snapshot").0, 0x81);
    publisher.send(&quote(1));
    let (first, data) = read("update");
    assert_eq!((first, data.contains("1.25")), (0xc1, true), "{data}");
}

#[test]
fn off_takes_up_no_offer_whatever_it_is() {
    let server = serve(|config: &mut Config| config.compression = Compression::Off);
    for headers in [OFFER, "Sec-WebSocket-Extensions: ;;;\r\n"] {
        assert_eq!(offered(&server, "/raw/a", headers).0, None);
    }
}

#[test]
fn what_is_no_list_of_extensions_is_answered_400_with_the_byte() {
    let server = serve(|_| {});
    let request = "GET /raw/a HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate; =8\r\n\r\n";
    let answer = exchange(server.addresses()[0], request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("at byte 20: expected the name of a parameter, found '='"), "{answer}");
}

#[test]
fn a_compressed_message_is_taken_as_what_it_inflates_to_also_in_pieces_with_a_ping_between() {
    let server = serve(|_| {});
    let mut subscriber = Client::connect(&server, "/raw/a");
    let (_, mut stream) = offered(&server, "/raw/a?echo=0", OFFER);
    stream.write_all(&compressed(0x81, b"one")).unwrap();
    assert_eq!(subscriber.text(), "one");
    let long = quote(7).repeat(100);
    let mut packed = compress_to_vec(long.as_bytes(), 9);
    packed.push(0);
    let (beginning, end) = packed.split_at(10);
    stream.write_all(&frame(0x42, beginning)).unwrap();
    stream.write_all(&frame(0x89, b"?")).unwrap();
    stream.write_all(&frame(0x80, end)).unwrap();
    assert_eq!(next(&mut stream), (0x8a, b"?".to_vec()));
    assert!(subscriber.message().into_data() == long.as_bytes());
    // The same server takes what isn't compressed from the same client.
    stream.write_all(&frame(0x81, b"three")).unwrap();
    assert_eq!(subscriber.text(), "three");
}

#[test]
fn what_a_client_may_not_send_ends_its_connection_with_the_code_for_it() {
    let server = serve(|_| {});
    let bomb = compressed(0x81, &vec![0; 64 << 20]);
    for (path, headers, bytes, code) in [
        ("/raw/a", OFFER, bomb.clone(), 1009),
        ("/ws", OFFER, bomb, 1009),
        ("/raw/a", OFFER, compressed(0x81, b"\xff\xfe"), 1007),
        ("/raw/a", OFFER, frame(0xc1, b"\x07 is no kind of block"), 1007),
        ("/raw/a", OFFER, frame(0xc9, b"?"), 1002),
        ("/raw/a", OFFER, frame(0xa1, b"a"), 1002),
        ("/raw/a", OFFER, [frame(0x41, &[0xf2]), frame(0xc0, &[0x48])].concat(), 1002),
        ("/raw/a", OFFER, [frame(0x01, b"a"), frame(0xc0, b"b")].concat(), 1002),
        ("/raw/a", "", compressed(0x81, b"nothing was agreed on"), 1002),
    ] {
        assert!(bytes.len() < 70_000, "{}", bytes.len());
        let (_, mut stream) = offered(&server, path, headers);
        stream.write_all(&bytes).unwrap();
        assert_eq!(close_code(&mut stream), code, "{path} {headers}");
    }
    // Others notice nothing.
    let mut client = Client::connect(&server, "/raw/a");
    client.send("still there");
    assert_eq!(client.text(), "still there");
}

#[test]
fn the_metrics_show_what_was_compressed_and_inflated() {
    let server = serve(|config| config.compression = Compression::Once);
    let (_, mut stream) = offered(&server, "/raw/a", OFFER);
    stream.write_all(&compressed(0x81, quote(1).as_bytes())).unwrap();
    assert_eq!(next(&mut stream), (0xc1, quote(1).into_bytes()));
    let metrics =
        exchange(server.addresses()[0], b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix([' ', '{']));
        line.unwrap_or_else(|| panic!("{name}")).split(' ').next_back().unwrap().parse().unwrap()
    };
    let len = quote(1).len() as f64;
    assert_eq!(value("stentor_compressed_connections"), 1.0);
    assert_eq!(value("stentor_compressed_frames_total"), 1.0);
    assert_eq!(value("stentor_compressed_from_bytes_total"), len + 4.0);
    let out = value("stentor_compressed_bytes_total");
    assert!(out > 0.0 && out < len, "{out}");
    assert_eq!(value("stentor_compression_saved_bytes_total"), len + 4.0 - out);
    assert_eq!(value("stentor_inflated_messages_total"), 1.0);
    assert_eq!(value("stentor_inflated_bytes_total"), len);
}

/// The next frame, its payload inflated behind those before it where it is marked as compressed.
fn next_behind(context: &mut Context, stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let (first, payload) = read_frame(stream);
    if first & 0x40 == 0 {
        return (first, payload);
    }
    let text = context.message(&payload).unwrap_or_else(|| panic!("no deflate: {first:x} {payload:x?}"));
    (first, text)
}

#[test]
fn subscribers_of_the_same_names_share_a_stream_and_whoever_wants_no_context_is_sent_what_needs_none() {
    let server = serve(|config: &mut Config| {
        config.compression = Compression::Shared;
        config.compression_min_members = 2;
        config.workers = Some(1);
        config.compression_private = vec!["secret".parse().unwrap()];
    });
    let single = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n";
    let mut members: Vec<_> =
        (0..4).map(|_| (offered(&server, "/ws?topics=>", OFFER).1, Context::new(12), 0)).collect();
    let (_, mut alone) = offered(&server, "/ws?topics=>", single);
    let mut publisher = Client::connect(&server, "/raw/a?echo=0");
    let mut secret = Client::connect(&server, "/raw/secret?echo=0");
    for (stream, context, _) in &mut members {
        assert!(next_behind(context, stream).1.starts_with(b"{\"type\":\"hello\""));
        assert!(next_behind(context, stream).1.starts_with(b"{\"type\":\"ack\""));
    }
    for _ in 0..2 {
        next(&mut alone);
    }
    for n in 0..600 {
        if n == 300 {
            // One more, who comes to it where it begins anew.
            let mut late = (offered(&server, "/ws?topics=>", OFFER).1, Context::new(12), 0);
            for _ in 0..3 {
                next_behind(&mut late.1, &mut late.0);
            }
            members.push(late);
        }
        let text = quote(n);
        let (topic, from) = if n % 10 == 7 { ("secret", &mut secret) } else { ("a", &mut publisher) };
        from.send(&text);
        for (at, (stream, context, packed)) in members.iter_mut().enumerate() {
            let is_snapshot = at == 4 && n == 300;
            let (first, mut message) = next_behind(context, stream);
            if is_snapshot && message.starts_with(b"{\"type\":\"snapshot\"") {
                message = next_behind(context, stream).1;
            }
            let message = String::from_utf8(message).unwrap();
            assert!(message.contains(&format!("{:?}", text)) || message.contains(&text), "{n} {at}: {message}");
            assert!(message.contains(&format!("\"topic\":\"{topic}\"")), "{message}");
            // Who came later waits for a time, and is sent what was compressed for whoever wants no context.
            assert!(topic == "a" || first == 0x81 || at == 4, "what is private goes as it is");
            *packed += usize::from(first == 0xc1);
        }
        let (_, message) = next(&mut alone);
        assert!(String::from_utf8(message).unwrap().contains(&format!("{n}.25")));
    }
    assert!(members[..4].iter().all(|(_, _, packed)| *packed >= 530), "they were sent it compressed");
    assert!(members[4].2 > 100, "{}", members[4].2);
    let metrics =
        exchange(server.addresses()[0], b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix([' ', '{']));
        line.unwrap_or_else(|| panic!("{name}")).split(' ').next_back().unwrap().parse().unwrap()
    };
    assert_eq!((value("stentor_shared_streams"), value("stentor_shared_stream_members")), (1.0, 5.0));
    let (from, to) = (value("stentor_shared_from_bytes_total"), value("stentor_shared_bytes_total"));
    assert!(to * 4.0 < from, "{to} of {from}");
}
