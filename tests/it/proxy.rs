//! Behind a proxy: the client that it names is the one that counts, if the proxy is trusted.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use rustix::process::Signal;
use stentor::{config::Config, server::Server};

use crate::{
    client::{Client, exchange, read_frame, serve, tcp},
    process::{Running, metric, wait_for},
};

const BEHIND: &str = "127.0.0.1";

fn behind(change: impl FnOnce(&mut Config)) -> Server {
    serve(|config| {
        config.trusted_proxy = vec![BEHIND.parse().unwrap()];
        config.max_connections_per_ip = Some(1);
        change(config);
    })
}

fn try_for(server: &Server, client: &str) -> Result<Client, String> {
    Client::try_connect(server.addresses()[0], "/ws", &[("X-Forwarded-For", client)])
}

#[test]
fn clients_of_a_trusted_proxy_are_counted_one_by_one() {
    let server = behind(|_| {});
    let first = try_for(&server, "192.0.2.1").unwrap();
    let _second = try_for(&server, "192.0.2.2").unwrap();
    assert!(try_for(&server, "192.0.2.1").is_err_and(|error| error.contains("503")));
    // What the client pretends comes before what the proxy has seen.
    assert!(try_for(&server, "192.0.2.9, 192.0.2.1").is_err_and(|error| error.contains("503")));
    // The proxy's own connections are not counted.
    for _ in 0..3 {
        let answer = exchange(server.addresses()[0], b"GET /healthz HTTP/1.0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    drop(first);
    let again = (0..10_000).find_map(|_| try_for(&server, "192.0.2.1").ok());
    assert_eq!(again.expect("room was given back").json()["type"], "hello");
}

#[test]
fn streams_of_events_are_counted_as_their_client_too() {
    let server = behind(|_| {});
    let ask = |client: &str| {
        let mut stream = tcp(server.addresses()[0]);
        // Behind another request on the same connection, as proxies do it.
        let first = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.99\r\n\r\n";
        write!(stream, "{first}GET /sse?topics=a HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n\r\n")
            .unwrap();
        assert!(head(&mut stream).starts_with("HTTP/1.1 200 "));
        stream.read_exact(&mut [0; 3]).unwrap();
        let head = head(&mut stream);
        (stream, head)
    };
    let (_first, answer) = ask("192.0.2.1");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("text/event-stream"), "{answer}");
    let (_second, answer) = ask("192.0.2.2");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_third, answer) = ask("192.0.2.1");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[test]
fn a_connection_that_a_proxy_keeps_is_nobodys_whatever_its_first_request_looks_like() {
    let server = behind(|_| {});
    for (first, body) in [
        ("OPTIONS /poll?topics=a HTTP/1.1\r\n", 0),
        ("OPTIONS /history/a HTTP/1.1\r\n", 0),
        ("GET /healthz HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", 3),
    ] {
        let mut kept = tcp(server.addresses()[0]);
        write!(kept, "{first}Host: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n").unwrap();
        assert!(head(&mut kept).starts_with("HTTP/1.1 20"), "{first}");
        kept.read_exact(&mut vec![0; body]).unwrap();
        // It has taken none of the places of that client, and the next request may be another's.
        let mut client = try_for(&server, "192.0.2.1").expect(first);
        assert_eq!(client.json()["type"], "hello");
        write!(kept, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.2\r\n\r\n").unwrap();
        assert!(head(&mut kept).starts_with("HTTP/1.1 200 "), "{first}");
        drop((client, kept));
        wait_for("them to be gone", || metric(server.addresses()[0], "connections_admitted") <= 1.0);
    }
}

#[test]
fn who_is_not_trusted_can_not_name_another() {
    let server = serve(|config| {
        config.trusted_proxy = vec!["192.0.2.0/24".parse().unwrap()];
        config.max_connections_per_ip = Some(1);
    });
    let _first = try_for(&server, "198.51.100.1").unwrap();
    assert!(try_for(&server, "198.51.100.2").is_err());
}

#[test]
fn behind_a_proxy_publishing_is_not_open_because_of_loopback() {
    let server = behind(|_| {});
    let mut client = try_for(&server, "192.0.2.1").unwrap();
    assert_eq!(client.json()["type"], "hello");
    assert_eq!(client.ask(r#"{"op":"pub","id":1,"topic":"a","data":1}"#)["code"], "forbidden");
}

#[test]
fn the_log_names_the_client_and_not_the_proxy() {
    let running = Running::start(&["--trusted-proxy", "127.0.0.0/8", "--log-level", "debug"]);
    let address = running.address.parse().unwrap();
    let mut client = Client::try_connect(address, "/ws", &[("X-Forwarded-For", "192.0.2.77")]).unwrap();
    assert_eq!(client.json()["type"], "hello");
    let answer = exchange(
        address,
        b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.78\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 404 "));
    running.signal(Signal::TERM);
    let _ = client.closed();
    drop(client);
    let (_, log) = running.end();
    let line = |word: &str| log.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("{word}: {log}"));
    assert!(line("opened").contains("192.0.2.77"), "{log}");
    assert!(line("/nothing").contains("192.0.2.78"), "{log}");
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Connects, sends the PROXY header and asks for `/ws`, in pieces of this size; the answer's head.
fn announced(server: &Server, header: &[u8], piece: usize) -> (TcpStream, String) {
    let mut stream = tcp(server.addresses()[0]);
    for piece in [header, UPGRADE.as_bytes()].concat().chunks(piece) {
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let head = head(&mut stream);
    (stream, head)
}

fn version_2(source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(source);
    header.extend([10, 0, 0, 1, 0xc8, 0x22, 1, 0xbb]);
    header
}

#[test]
fn a_proxy_header_names_the_client_in_any_pieces() {
    let server = behind(|config| config.proxy_protocol = true);
    let mut all = Vec::new();
    for (n, piece) in [1, 7, 4096].into_iter().enumerate() {
        let text = format!("PROXY TCP4 192.0.2.{n} 10.0.0.1 51234 443\r\n");
        let (mut stream, head) = announced(&server, text.as_bytes(), piece);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let (_, hello) = read_frame(&mut stream);
        assert!(String::from_utf8(hello).unwrap().contains("hello"));
        all.push(stream);
        assert!(announced(&server, text.as_bytes(), 4096).1.starts_with("HTTP/1.1 503 "), "the same client again");
        assert!(announced(&server, &version_2([192, 0, 2, n as u8]), 4096).1.starts_with("HTTP/1.1 503 "));
        let (stream, head) = announced(&server, &version_2([192, 0, 3, n as u8]), piece);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        all.push(stream);
    }
}

#[test]
fn a_trusted_proxy_has_to_send_the_header_and_nobody_else_may() {
    let server = behind(|config| config.proxy_protocol = true);
    let (_, head) = announced(&server, b"", 4096);
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    let elsewhere = serve(|config| {
        config.trusted_proxy = vec!["192.0.2.0/24".parse().unwrap()];
        config.proxy_protocol = true;
    });
    let (_, head) = announced(&elsewhere, b"PROXY TCP4 192.0.2.1 10.0.0.1 51234 443\r\n", 4096);
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    Client::hello(&elsewhere, "/ws");
}

#[test]
fn an_upgrade_behind_other_requests_needs_no_second_header() {
    let server = behind(|config| config.proxy_protocol = true);
    let mut stream = tcp(server.addresses()[0]);
    stream
        .write_all(b"PROXY TCP4 192.0.2.1 10.0.0.1 51234 443\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    assert!(head(&mut stream).starts_with("HTTP/1.1 200 "));
    let mut body = [0; 3];
    stream.read_exact(&mut body).unwrap();
    stream.write_all(UPGRADE.as_bytes()).unwrap();
    assert!(head(&mut stream).starts_with("HTTP/1.1 101 "));
}

#[test]
fn a_health_check_of_the_proxy_itself_is_answered() {
    let server = behind(|config| config.proxy_protocol = true);
    let address: SocketAddr = server.addresses()[0];
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let answer = exchange(address, &[header, b"GET /readyz HTTP/1.0\r\n\r\n"].concat());
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}
