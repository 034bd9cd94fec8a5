//! What web pages may do, and who else comes by way of a browser or a proxy.

use std::{
    io::{Read, Write},
    net::SocketAddr,
};

use stentor::{Payload, server::Server};

use crate::client::{Client, exchange, serve, tcp};

/// The answer to a request with these lines, and the body that they announce; of a WebSocket or a stream, all up to a goodbye.
fn ask(at: SocketAddr, start: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let body = if start.starts_with("POST") { "{}" } else { "" };
    let len = body.len();
    exchange(
        at,
        format!("{start} HTTP/1.1\r\n{lines}Connection: close\r\nContent-Length: {len}\r\n\r\n{body}").as_bytes(),
    )
}

/// The status with which an upgrade with these lines is answered.
fn upgrade(at: SocketAddr, path: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let request = format!(
        "GET {path} HTTP/1.1\r\n{lines}Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    // An unmasked frame behind it ends the connection.
    exchange(at, &[request.as_bytes(), b"\x81\x00"].concat())[9..12].to_owned()
}

/// The status of an answer that has no end.
fn begins(at: SocketAddr, start: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let (mut stream, mut begun) = (tcp(at), [0; 12]);
    write!(stream, "{start} HTTP/1.1\r\n{lines}\r\n").unwrap();
    stream.read_exact(&mut begun).unwrap();
    String::from_utf8_lossy(&begun[9..]).into_owned()
}

fn status(answer: &str) -> &str {
    &answer[9..12]
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

const REQUESTS: [&str; 6] =
    ["POST /publish", "POST /publish/a", "GET /topics", "GET /topics/a", "GET /metrics", "GET /debug/slow"];

fn with_a_value(server: Server) -> Server {
    server.publisher().publish("a", Payload::Json(b"1")).unwrap();
    server
}

#[test]
fn a_server_that_is_open_because_it_is_loopback_takes_only_what_was_meant_for_loopback() {
    let server = with_a_value(serve(|_| {}));
    let at = server.addresses()[0];
    for (host, origin, may) in [
        ("localhost", None, true),
        ("LocalHost.:9001", None, true),
        ("127.8.9.1:1", None, true),
        ("[::1]:9001", None, true),
        ("app.localhost", None, true),
        ("localhost:9001", Some("http://localhost:5173"), true),
        ("localhost:9001", Some("https://127.0.0.1:3000"), true),
        ("localhost:9001", Some("http://[::1]"), true),
        ("evil.example", None, false),
        ("evil.example:9001", Some("http://evil.example:9001"), false),
        ("[::1].evil.example", None, false),
        ("[::1", None, false),
        ("localhost:80:evil", None, false),
        ("localhost.evil.example", None, false),
        ("127.0.0.1.evil.example", None, false),
        ("0.0.0.0:9001", None, false),
        ("", None, false),
        ("localhost", Some("https://evil.example"), false),
        ("localhost", Some("null"), false),
        ("localhost", Some("http://[::1].evil.example"), false),
        ("localhost", Some("http://localhost:80:evil"), false),
        ("localhost", Some("http://localhost@evil.example"), false),
        ("localhost", Some("http://evil.example/localhost"), false),
        ("localhost", Some(""), false),
    ] {
        let (host, origin) = (format!("Host: {host}"), origin.map(|origin| format!("Origin: {origin}")));
        let lines: Vec<&str> = [Some(&*host), origin.as_deref()].into_iter().flatten().collect();
        for start in REQUESTS {
            let answer = ask(at, start, &lines);
            let body_is_bad = start == "POST /publish" && status(&answer) == "400";
            let found = status(&answer) == "200" || body_is_bad;
            assert!(found == may && (may || status(&answer) == "403"), "{start} {lines:?}: {answer}");
        }
        for path in ["/ws?topics=a", "/raw/a"] {
            assert_eq!(upgrade(at, path, &lines), if may { "101" } else { "403" }, "{path} {lines:?}");
        }
        assert_eq!(begins(at, "GET /sse?topics=a", &lines), if may { "200" } else { "403" }, "{lines:?}");
        for start in ["GET /healthz", "GET /readyz", "GET /", "GET /stentor.js"] {
            assert_eq!(status(&ask(at, start, &lines)), "200", "{start} {lines:?}: says nothing of anybody");
        }
    }
}

#[test]
fn a_server_that_was_opened_or_has_a_token_is_found_by_any_name() {
    let open = serve(|config| config.anonymous_publish = true);
    let guarded = serve(|config| config.publish_token = Some("s3cret".parse().unwrap()));
    let behind = serve(|config| config.trusted_proxy = vec!["127.0.0.1".parse().unwrap()]);
    for server in [open, guarded, behind].map(with_a_value) {
        let at = server.addresses()[0];
        let lines = ["Host: feed.example", "Origin: https://shop.example"];
        assert_eq!(status(&ask(at, "GET /topics/a", &lines)), "200");
        assert_eq!(upgrade(at, "/ws?topics=a", &lines), "101");
    }
}

#[test]
fn the_servers_own_page_is_let_in_beside_those_that_are_named() {
    let server = with_a_value(serve(|config| {
        config.publish_token = Some("s3cret".parse().unwrap());
        let named = ["https://shop.example", "https://*.ours.example", "capacitor://localhost", "null"];
        config.allow_origin = named.map(String::from).to_vec();
    }));
    let at = server.addresses()[0];
    for (host, origin, may) in [
        ("feed.example", "https://shop.example", true),
        ("feed.example", "https://a.ours.example", true),
        ("feed.example", "https://a.b.OURS.example:443", true),
        ("feed.example", "capacitor://localhost", true),
        ("feed.example", "null", true),
        // Behind a proxy that ends TLS the scheme is not known here; the name was vouched for by a certificate.
        ("feed.example", "https://feed.example", true),
        ("feed.example:443", "https://feed.example", true),
        ("feed.example:8443", "https://feed.example:8443", true),
        ("10.0.0.1:9001", "http://10.0.0.1:9001", true),
        ("[2001:db8::1]:9001", "http://[2001:db8::1]:9001", true),
        ("localhost:9001", "http://localhost:9001", true),
        // Any name can be made to lead here.
        ("evil.example:9001", "http://evil.example:9001", false),
        ("feed.example", "https://feed.example:8443", false),
        ("feed.example:9001", "https://feed.example", false),
        ("10.0.0.1:9001", "http://10.0.0.1:9002", false),
        ("feed.example", "https://ours.example", false),
        ("feed.example", "http://a.ours.example", false),
        ("feed.example", "https://aours.example", false),
        ("feed.example", "https://a.ours.example.evil.example", false),
        ("feed.example", "ionic://localhost", false),
    ] {
        let (host, origin) = (format!("Host: {host}"), format!("Origin: {origin}"));
        let lines = [&*host, &*origin];
        assert_eq!(upgrade(at, "/ws", &lines), if may { "101" } else { "403" }, "{lines:?}");
        assert_eq!(status(&ask(at, "GET /topics/a", &lines)), if may { "200" } else { "403" }, "{lines:?}");
    }
}

#[test]
fn a_path_that_hides_behind_escapes_is_no_other() {
    let server = with_a_value(serve(|_| {}));
    let at = server.addresses()[0];
    let host = ["Host: localhost"];
    for path in ["/%6detrics", "/%6Detrics", "/metric%73", "/%2fmetrics", "//metrics", "/./metrics", "/metrics%00"] {
        assert_eq!(status(&ask(at, &format!("GET {path}"), &host)), "404", "{path}");
    }
    for start in ["POST /%70ublish/a", "POST /publish%2fa", "GET /%74opics/a", "GET /topics%2Fa", "GET /%68ealthz"] {
        assert_eq!(status(&ask(at, start, &host)), "404", "{start}");
    }
    for start in ["POST /publish/%61", "GET /topics/%61", "POST /publish/a%2eb"] {
        assert_eq!(status(&ask(at, start, &host)), "400", "{start}: a letter that needs no escape");
    }
    for path in ["/%77s", "/%72aw/a", "/raw%2fa", "/%73se?topics=a"] {
        assert_eq!(upgrade(at, path, &host), "404", "{path}");
    }
    assert_eq!(upgrade(at, "/raw/%61", &host), "400");
    assert_eq!(upgrade(at, "/raw/fx%3AEUR%2BUSD", &host), "101");
    let published = ask(at, "POST /publish/fx%3aEUR%2bUSD", &host);
    assert!(published.contains(r#""topic":"fx:EUR+USD""#), "{published}");
}

#[test]
fn a_page_that_is_named_can_publish_json_and_read_the_answers() {
    let server = with_a_value(serve(|config| {
        config.publish_token = Some("s3cret".parse().unwrap());
        config.admin_token = Some("boss".parse().unwrap());
        config.allow_origin = vec!["https://shop.example".into()];
    }));
    let at = server.addresses()[0];
    let page = ["Host: feed.example", "Origin: https://shop.example"];
    for path in ["/publish", "/publish/a", "/topics", "/topics/a", "/healthz", "/readyz", "/metrics", "/sse?topics=a"] {
        let asked = "Access-Control-Request-Headers: authorization,content-type";
        let method = if path.starts_with("/publish") { "POST" } else { "GET" };
        let wanted = format!("Access-Control-Request-Method: {method}");
        let answer = ask(at, &format!("OPTIONS {path}"), &[&page[..], &[&*wanted, asked]].concat());
        assert_eq!(status(&answer), "204", "{path}: {answer}");
        assert_eq!(header(&answer, "Access-Control-Allow-Origin"), Some("https://shop.example"), "{path}: {answer}");
        assert!(header(&answer, "Access-Control-Allow-Methods").unwrap().contains(method), "{answer}");
        let headers = header(&answer, "Access-Control-Allow-Headers").unwrap().to_ascii_lowercase();
        assert!(headers.contains("authorization") && headers.contains("content-type"), "{answer}");
        assert!(header(&answer, "Access-Control-Max-Age").is_some(), "{answer}");
        assert!(header(&answer, "Vary").unwrap().contains("Origin"), "{answer}");
        let refused = ask(at, &format!("OPTIONS {path}"), &["Host: x", "Origin: https://evil.example", &wanted]);
        assert_eq!((status(&refused), header(&refused, "Access-Control-Allow-Origin")), ("403", None), "{refused}");
    }
    let json = "Content-Type: application/json";
    let token = "Authorization: Bearer s3cret";
    for (start, lines, found) in [
        ("POST /publish/a", &[json, token][..], "200"),
        ("POST /publish/a", &[json], "401"),
        ("POST /publish/a..b", &[token], "400"),
        ("POST /publish", &[token], "400"),
        ("GET /publish", &[], "405"),
        ("GET /topics", &[], "200"),
        ("GET /topics/none", &[], "404"),
        ("GET /topics/a", &[], "200"),
        ("GET /healthz", &[], "200"),
        ("GET /metrics", &[], "401"),
        ("GET /metrics", &["Authorization: Bearer boss"], "200"),
        ("GET /sse", &[], "400"),
        ("GET /sse?topics=a&token=guess", &[], "401"),
    ] {
        let answer = ask(at, start, &[&page[..], lines].concat());
        assert_eq!(status(&answer), found, "{start}: {answer}");
        assert_eq!(header(&answer, "Access-Control-Allow-Origin"), Some("https://shop.example"), "{start}: {answer}");
        assert_eq!(header(&answer, "Vary"), Some("Origin"), "{start}: {answer}");
        let alone = ask(at, start, &[&page[..1], lines].concat());
        assert_eq!(header(&alone, "Access-Control-Allow-Origin"), None, "{start}: {alone}");
        assert_eq!(header(&alone, "Vary"), Some("Origin"), "{start}: a cache must not give it to pages: {alone}");
    }
    // Health is no secret, and stays none of a page's that isn't named.
    let other = ask(at, "GET /healthz", &["Host: x", "Origin: https://evil.example"]);
    assert_eq!((status(&other), header(&other, "Access-Control-Allow-Origin")), ("200", None), "{other}");
}

/// Whose page may read an answer with this status.
fn reader<'a>(answer: &'a str, expected: &str) -> Option<&'a str> {
    assert_eq!(status(answer), expected, "{answer}");
    assert_eq!(header(answer, "Vary"), Some("Origin"), "{answer}");
    header(answer, "Access-Control-Allow-Origin")
}

#[test]
fn a_page_reads_also_how_a_request_was_refused_that_was_not_read_to_its_end() {
    let shop = "https://shop.example";
    let server = serve(|config| {
        config.allow_origin = vec![shop.into()];
        config.handshake_timeout = "500ms".parse().unwrap();
        config.close_timeout = "500ms".parse().unwrap();
    });
    let at = server.addresses()[0];
    let many = "A: b\r\n".repeat(120);
    let long = format!("A: {}\r\n", "b".repeat(9000));
    // As the first request, which a worker reads, and as a later one.
    for before in ["", "GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let asked = |origin: &str, start: &str, more: &str, expected: &str| {
            let request = format!("{before}{start}\r\nHost: localhost\r\nOrigin: {origin}\r\n{more}");
            let answers = exchange(at, request.as_bytes());
            let last = answers.rfind(&format!("HTTP/1.1 {expected} "));
            answers[last.unwrap_or_else(|| panic!("{start}, {expected}: {answers}"))..].to_owned()
        };
        for (start, more, expected) in [
            ("GET /topics HTTP/1.1", &*many, "431"),
            ("GET /topics HTTP/1.1", &*long, "431"),
            ("GET /topics HTTP/1.10", "\r\n", "400"),
            ("GET /topics HTTP/3.0", "\r\n", "505"),
            ("GET /topics HTTP/1.1", "A: b\u{1}\r\n\r\n", "400"),
            ("GET /topics HTTP/1.1", "Expect: tea\r\n\r\n", "417"),
            ("POST /publish/a HTTP/1.1", "Content-Length: 99999999\r\n\r\n", "413"),
            ("POST /publish/a HTTP/1.1", "Content-Length: x\r\n\r\n", "400"),
            ("POST /publish/a HTTP/1.1", "Connection: close\r\n\r\n", "411"),
            // Nothing more comes of it.
            ("GET /topics HTTP/1.1", "Accept: ", "408"),
        ] {
            assert_eq!(reader(&asked(shop, start, more, expected), expected), Some(shop), "{before}{start}");
            // What was read to its end is refused to others for that they are others.
            let told = if matches!(expected, "411" | "413") { "403" } else { expected };
            assert_eq!(reader(&asked("https://evil.example", start, more, told), told), None, "{before}{start}");
        }
        // What has not come isn't known, and what stands in a body is none of it.
        let answers = exchange(at, format!("{before}GET /{}", "a".repeat(9000)).as_bytes());
        assert_eq!(reader(&answers[answers.rfind("HTTP/1.1 414").unwrap()..], "414"), None);
        let body = format!("{before}GET / HTTP/9.9\r\nHost: localhost\r\n\r\nOrigin: {shop}\r\n\r\n");
        let answers = exchange(at, body.as_bytes());
        assert_eq!(reader(&answers[answers.rfind("HTTP/1.1 505").unwrap()..], "505"), None);
    }
}

#[test]
fn a_page_reads_that_there_is_no_room_for_it() {
    let shop = "https://shop.example";
    let request = format!("GET /topics HTTP/1.1\r\nHost: localhost\r\nOrigin: {shop}\r\n\r\n");
    let full = serve(|config| {
        config.allow_origin = vec![shop.into()];
        (config.max_connections, config.max_connections_per_ip) = (1, Some(0));
    });
    let _one = Client::hello(&full, "/ws");
    assert_eq!(reader(&exchange(full.addresses()[0], request.as_bytes()), "503"), Some(shop));
    let quick = serve(|config| {
        config.allow_origin = vec![shop.into()];
        config.max_connects_per_ip = "0.001/s".parse().unwrap();
    });
    let at = quick.addresses()[0];
    let answers: Vec<String> =
        (0..4).map(|_| exchange(at, request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes())).collect();
    assert_eq!(reader(answers.last().unwrap(), "429"), Some(shop));
}

#[test]
fn the_javascript_client_is_anybodys() {
    let server = serve(|config| config.allow_origin = vec!["https://shop.example".into()]);
    let answer = ask(server.addresses()[0], "GET /stentor.js", &["Host: localhost", "Origin: https://evil.example"]);
    assert_eq!((status(&answer), header(&answer, "Access-Control-Allow-Origin")), ("200", Some("*")), "{answer}");
    let console = ask(server.addresses()[0], "GET /console.js", &["Host: localhost", "Origin: https://evil.example"]);
    assert_eq!(header(&console, "Access-Control-Allow-Origin"), None, "{console}");
}
