//! `GET /debug/connections`: who is there, how each is sent publications, and why it reads no shared stream.

use std::{
    collections::BTreeSet,
    io::Write,
    net::{SocketAddr, TcpStream},
    time::Instant,
};

use serde_json::Value;
use stentor::config::Compression;

use crate::{
    client::{Client, PATIENCE, exchange, read_frame, serve, tcp, until},
    process::Running,
};

/// What browsers offer.
const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// A subscriber at `path` that offers this, once it has been greeted; with how it appears.
fn subscriber(address: SocketAddr, path: &str, offer: &str, header: &str) -> (TcpStream, String) {
    let mut stream = tcp(address);
    let extensions =
        if offer.is_empty() { String::new() } else { format!("Sec-WebSocket-Extensions: {offer}\r\n{header}") };
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let upgrade = if path.starts_with("/sse") { "" } else { upgrade };
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{upgrade}{extensions}\r\n").unwrap();
    let head = until(&mut stream, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 ") || head.starts_with("HTTP/1.1 200 "), "{head}");
    let name = stream.local_addr().unwrap().to_string();
    (stream, name)
}

/// An answer's status line and body.
fn ask(address: SocketAddr, target: &str) -> (String, String) {
    let answer = exchange(address, format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn page(address: SocketAddr, target: &str) -> Value {
    let (status, body) = ask(address, target);
    assert!(status.starts_with("HTTP/1.1 200 "), "{status}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// The page, once it says this of that many fields of the connection with this address.
fn shown(address: SocketAddr, client: &str, field: &str, expected: &Value) -> Value {
    let begun = Instant::now();
    loop {
        let page = page(address, "/debug/connections");
        let row = page["connections"].as_array().unwrap().iter().find(|row| row["address"] == client);
        if let Some(row) = row.filter(|row| row[field] == *expected) {
            return row.clone();
        }
        assert!(begun.elapsed() < PATIENCE, "{expected}: {row:?}");
        std::thread::yield_now();
    }
}

#[test]
fn of_each_connection_it_is_told_whether_it_reads_a_shared_stream_and_why_not() {
    let running = Running::start(&[
        "--workers=1",
        "--compression=shared",
        "--compression-window=14",
        "--compression-min-members=3",
        "--compression-streams=1",
        "--compression-private=p.>",
    ]);
    let address = running.address.parse().unwrap();
    let safari = "User-Agent: Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 Version/15.3 Safari/605.1.15\r\n";
    let own = "once: its own publications are left out for it, so nobody has the same subscription";
    let mut clients = Vec::new();
    // Those of `a` share the only stream that there may be; a fourth comes when that has begun.
    for (path, offer, header, expected) in [
        ("/raw/a", OFFER, "", "shared"),
        ("/raw/a", OFFER, "", "shared"),
        ("/raw/a", OFFER, "", "shared"),
        ("/raw/c", OFFER, "", "once: no stream is free"),
        ("/raw/c", OFFER, "", "once: no stream is free"),
        ("/raw/c", OFFER, "", "once: no stream is free"),
        ("/raw/b", OFFER, "", "once: too few on its worker have the same subscription"),
        ("/raw/a?echo=0", OFFER, "", own),
        ("/ws?topics=a&mode=latest", OFFER, "", "once: too few on its worker have the same subscription"),
        ("/ws?topics=a&mode=latest&rate=2", OFFER, "", "once: some of its names have a rate"),
        ("/ws?topics=p.x,p.y.*", OFFER, "", "once: --compression-private keeps its topics out of streams"),
        ("/ws", OFFER, "", "once: it is subscribed to nothing"),
        (
            "/raw/a",
            "permessage-deflate; server_no_context_takeover",
            "",
            "once: it wants each message compressed by itself",
        ),
        (
            "/raw/a",
            "permessage-deflate; server_max_window_bits=12",
            "",
            "once: its window is smaller than --compression-window",
        ),
        (
            "/raw/a",
            "permessage-deflate; server_max_window_bits=9",
            "",
            "none: it has agreed to a window of less than 12 bits",
        ),
        ("/raw/a", "", "", "none: it has offered no permessage-deflate, or none that can be kept"),
        ("/raw/a", "permessage-deflate; x", "", "none: it has offered no permessage-deflate, or none that can be kept"),
        ("/raw/a?compress=0", OFFER, "", "none: its address says compress=0"),
        ("/raw/a", OFFER, safari, "none: --compression-deny names it"),
        ("/sse?topics=a", "", "", "none: it is no WebSocket"),
    ] {
        clients.push((subscriber(address, path, offer, header), expected, path));
    }
    let mut publisher = running.client("/raw/a?echo=0");
    let quote = format!(r#"{{"bid":101.25,"ask":101.5,"note":"{}"}}"#, "a quote that is long enough ".repeat(8));
    publisher.send(&quote);
    // They have been sent it, and so has the stream begun.
    clients.iter_mut().take(3).for_each(|((stream, _), ..)| assert_eq!(read_frame(stream).0, 0xc1));
    let mut other = running.client("/raw/c?echo=0");
    other.send(&quote);
    clients.iter_mut().skip(3).take(3).for_each(|((stream, _), ..)| assert_eq!(read_frame(stream).0, 0xc1));
    for ((_, name), expected, path) in &clients {
        let row = shown(address, name, "compression", &(*expected).into());
        assert_eq!((&row["worker"], row["door"].as_str()), (&0.into(), path[1..].split(['/', '?']).next()), "{row}");
    }
    let row = shown(address, &clients[0].0.1, "same", &3.into());
    assert_eq!(row["subscriptions"], serde_json::json!(["a"]), "those with other windows are others: {row}");
    let row = shown(address, &clients[10].0.1, "mode", &"all".into());
    assert_eq!(row["subscriptions"], serde_json::json!(["p.x", "p.y.*"]), "{row}");
    let (_late, name) = subscriber(address, "/raw/a", OFFER, "");
    shown(address, &name, "compression", &Value::from("clear: it waits for the stream to begin anew"));
}

#[test]
fn connections_are_shown_a_page_at_a_time_or_one_by_its_name() {
    let server = serve(|config| {
        config.workers = Some(2);
        config.admin_listen = Some("127.0.0.1:0".parse().unwrap());
        config.compression = Compression::Off;
    });
    let address = server.addresses()[0];
    let mut clients: Vec<_> = (0..7).map(|_| Client::connect(&server, "/ws?topics=a")).collect();
    let names: BTreeSet<String> =
        clients.iter_mut().map(|client| client.json()["conn"].as_str().unwrap().to_owned()).collect();
    let (mut found, mut target, mut pages) = (Vec::new(), "/debug/connections?limit=2".to_owned(), 0);
    loop {
        let page = page(address, &target);
        let rows = page["connections"].as_array().unwrap();
        assert!(rows.len() <= 2, "{page}");
        for row in rows {
            assert_eq!(row["compression"], "none: --compression was off when it came");
            found.push(row["conn"].as_str().unwrap().to_owned());
        }
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/debug/connections?limit=2&after={next}");
    }
    assert!(pages >= 4, "{pages}");
    assert_eq!((found.len(), found.iter().cloned().collect::<BTreeSet<_>>()), (7, names.clone()), "each once");
    for name in &names {
        let page = page(address, &format!("/debug/connections?conn={name}"));
        assert_eq!((page["connections"][0]["conn"].as_str(), page["next"].as_str()), (Some(&**name), None), "{page}");
        assert_eq!(page["connections"].as_array().unwrap().len(), 1);
    }
    for (target, status, word) in [
        ("?conn=1-ffffff", 404, "no such connection"),
        ("?conn=99-1", 404, "no such connection"),
        ("?conn=x", 400, "Not a connection"),
        ("?after=1", 400, "next"),
        ("?limit=0", 400, "limit"),
        ("?limit=251", 400, "limit"),
    ] {
        let (found, body) = ask(address, &format!("/debug/connections{target}"));
        assert!(found.starts_with(&format!("HTTP/1.1 {status} ")) && body.contains(word), "{target}: {found} {body}");
    }
    let admin = server.admin_address().unwrap();
    assert_eq!(page(admin, "/debug/connections")["connections"].as_array().unwrap().len(), 7);
    let head = exchange(address, b"HEAD /debug/connections HTTP/1.0\r\nHost: localhost\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let far = exchange(address, b"GET /debug/connections HTTP/1.0\r\nHost: feed.example.com\r\n\r\n");
    assert!(far.starts_with("HTTP/1.1 403 "), "it is for operators: {far}");
}
