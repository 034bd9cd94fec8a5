//! Good requests and what they say, then each refusal.

use proptest::prelude::*;

use super::*;

fn good(text: &str) -> Request<'_> {
    match parse(text.as_bytes(), 8192) {
        Ok(Some((request, len))) if len == text.len() => request,
        other => panic!("{text:?}: {other:?}"),
    }
}

/// The status that answers a request with these lines.
fn status(lines: &str) -> u16 {
    refused(format!("{lines}\r\n\r\n").as_bytes()).status
}

fn refused(bytes: &[u8]) -> Refusal {
    parse(bytes, 8192).map(|parsed| panic!("{:?}: {parsed:?}", bytes.escape_ascii().to_string())).unwrap_err()
}

#[test]
fn a_request_says_what_it_asks_for() {
    let request =
        good("GET /raw/q.us.AAPL?echo=0&topics=a%2Cb+c HTTP/1.1\r\nHost: x\r\nAccept: a\r\naccept: b\r\n\r\n");
    assert_eq!((request.method, request.path()), ("GET", "/raw/q.us.AAPL"));
    assert_eq!(request.parameter("topics").unwrap().as_deref(), Some("a,b c"));
    assert_eq!(request.query().count(), 2);
    assert_eq!(request.header("ACCEPT"), Some("a"));
    assert_eq!(request.headers("accept").collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((request.keep_alive, request.body, request.is_upgrade()), (true, Body::None, false));
}

#[test]
fn parameters_are_given_once_and_names_as_often_as_one_likes() {
    let head = "GET /ws?topics=a%2Cb+c&x=1&topics=&y=true&y=true&z=+&topics=d HTTP/1.0\r\n\r\n";
    let request = good(head);
    assert_eq!(request.names("topics").as_deref(), Some("a,b+c,,d"));
    assert_eq!((request.names("none"), request.name("none")), (None, Ok(None)));
    assert_eq!((request.switch("x"), request.switch("none")), (Ok(Some(true)), Ok(None)));
    assert_eq!(request.parameter("z").unwrap().as_deref(), Some(" "));
    for refusal in
        [request.switch("y").unwrap_err(), request.switch("z").unwrap_err(), request.name("topics").unwrap_err()]
    {
        assert_eq!(refusal.status, 400, "{refusal}");
    }
    assert_eq!(good("GET / HTTP/1.0\r\n\r\n").names("topics"), None);
}

#[test]
fn the_head_ends_where_the_body_begins() {
    let bytes = b"POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbodyGET /";
    let (request, len) = parse(bytes, 8192).unwrap().unwrap();
    assert_eq!((request.body, &bytes[len..]), (Body::Length(4), &b"bodyGET /"[..]));
}

#[test]
fn http_1_0_closes_unless_asked_to_stay() {
    assert!(!good("GET / HTTP/1.0\r\n\r\n").keep_alive);
    assert!(good("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
    assert!(!good("GET / HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n").keep_alive);
}

#[test]
fn an_absolute_target_counts_with_its_path() {
    let request = good("GET http://example.com:80/ws?a=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((request.path(), request.parameter("a").unwrap().as_deref()), ("/ws", Some("1")));
    assert_eq!(good("GET http://example.com HTTP/1.1\r\nHost: x\r\n\r\n").path(), "/");
}

#[test]
fn escapes_in_the_path_are_resolved_or_reported() {
    let topic = |path: &str| {
        let head = format!("GET {path} HTTP/1.0\r\n\r\n");
        let behind = good(&head).topic_behind("/raw/")?;
        Some(behind.map(Cow::into_owned).map_err(|refusal| refusal.status))
    };
    assert_eq!(topic("/raw/fx%3AEUR%2B%e2%82%ac%7E"), Some(Ok("fx:EUR+€~".into())));
    for wrong in ["%", "%4", "%zz", "%ff", "%00", "%+1", "%61", "a%2Eb", "%2D", "%5f", "%31"] {
        assert_eq!(topic(&format!("/raw/{wrong}")), Some(Err(400)), "{wrong}");
    }
    for other in ["/%72aw/a", "/raw%2Fa", "//raw/a"] {
        assert_eq!(topic(other), None, "{other}");
    }
}

#[test]
fn a_client_may_wait_for_100_continue() {
    let head = "POST /publish HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nTransfer-Encoding: Chunked\r\n\r\n";
    let request = good(head);
    assert_eq!((request.expect_continue, request.body), (true, Body::Chunked));
    assert_eq!(status("GET / HTTP/1.1\r\nHost: x\r\nExpect: tea"), 417);
}

#[test]
fn a_length_said_twice_is_fine_if_it_is_the_same() {
    let request = good("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(request.body, Body::Length(5));
}

#[test]
fn a_header_that_nobody_reads_is_passed_over_if_it_is_not_ascii() {
    for value in ["naïve=1".as_bytes(), b"S\xe3o Paulo", b"\x80\xff"] {
        for name in ["Cookie", "cf-ipcity", "X-Anything", LAST_EVENT_ID, USER_AGENT] {
            let head =
                [b"GET / HTTP/1.1\r\nHost: x\r\n", name.as_bytes(), b": ", value, b"\r\nAccept: y\r\n\r\n"].concat();
            let (request, _) = parse(&head, 8192).unwrap().unwrap();
            assert_eq!((request.header(name), request.header("accept")), (None, Some("y")), "{name}");
        }
        for name in
            READ.into_iter().filter(|name| !FORWARDED.contains(name) && ![LAST_EVENT_ID, USER_AGENT].contains(name))
        {
            let head =
                [b"GET / HTTP/1.1\r\n", name.to_ascii_lowercase().as_bytes(), b": ", value, b"\r\n\r\n"].concat();
            let refusal = refused(&head);
            assert!(refusal.status == 400 && refusal.message.contains(&name.to_ascii_lowercase()), "{name}: {refusal}");
        }
    }
}

#[test]
fn of_the_way_that_a_request_has_come_counts_what_is_behind_other_bytes() {
    for name in FORWARDED {
        let head = [b"GET / HTTP/1.0\r\n", name.to_ascii_lowercase().as_bytes(), b": a, \xe9b, c,d\r\n\r\n"].concat();
        let (request, _) = parse(&head, 8192).unwrap().unwrap();
        assert_eq!(request.list(name).collect::<Vec<_>>(), ["unknown", "c", "d"], "{name}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let lines = [
        ("a folded header", "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c"),
        ("a blank before the first name", "GET / HTTP/1.1\r\n Host: x"),
        ("a blank before the colon", "GET / HTTP/1.1\r\nHost : x"),
        ("no colon", "GET / HTTP/1.1\r\nHost: x\r\nnonsense"),
        ("a bare line feed", "GET / HTTP/1.1\r\nHost: x\nA: b"),
        ("a bare line feed before the request", "\nGET / HTTP/1.1\r\nHost: x"),
        ("a bare carriage return", "GET / HTTP/1.1\r\nHost: x\rA: b"),
        ("a control character", "GET / HTTP/1.1\r\nHost: x\r\nA: b\u{1}c"),
        ("a NUL", "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c"),
        ("a delete", "GET / HTTP/1.1\r\nHost: x\r\nA: b\u{7f}c"),
        ("length and coding", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked"),
        ("differing lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4"),
        ("differing lengths in a list", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 4"),
        ("a signed length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3"),
        ("an empty length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length:"),
        ("an overflowing length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616"),
        ("a coding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked"),
        ("no host", "GET / HTTP/1.1"),
        ("two hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: x"),
        ("a list of hosts", "GET / HTTP/1.1\r\nHost: x, y"),
        ("a body on an upgrade", "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nContent-Length: 3"),
        ("a fragment", "GET /a#b HTTP/1.1\r\nHost: x"),
        ("an asterisk", "GET * HTTP/1.1\r\nHost: x"),
        ("an authority", "CONNECT example.com:443 HTTP/1.1\r\nHost: x"),
        ("another scheme", "GET ftp://example.com/ HTTP/1.1\r\nHost: x"),
        ("a URL without a host", "GET http:///path HTTP/1.1\r\nHost: x"),
        ("a target that isn't ASCII", "GET /naïve HTTP/1.1\r\nHost: x"),
        ("two blanks", "GET  / HTTP/1.1\r\nHost: x"),
        ("no version", "GET /"),
    ];
    for (what, lines) in lines {
        assert_eq!(status(lines), 400, "{what}");
    }
}

#[test]
fn sentences_name_the_oddity() {
    let sentence = |lines: &str| refused(format!("{lines}\r\n\r\n").as_bytes()).message;
    assert!(sentence("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c").contains("folded"));
    assert!(sentence("GET / HTTP/1.1\r\nHost : x").contains("before its colon"));
    assert!(sentence("GET / HTTP/1.1\r\nHo(st: x").contains("name"));
}

#[test]
fn other_codings_are_not_implemented() {
    for coding in ["gzip", "gzip, chunked", "chunked, chunked", "identity", "chunked\r\nTransfer-Encoding: chunked", ""]
    {
        let lines = format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {coding}");
        assert_eq!(status(&lines), 501, "{coding}");
    }
}

#[test]
fn a_request_line_that_is_malformed_says_what_was_expected() {
    let malformed = "malformed: expected HTTP/1.1 or HTTP/1.0, with one digit on either side of the point; found ";
    for (line, said) in [
        ("GET / HTTP/1.10", &format!("{malformed}\"HTTP/1.10\"")[..]),
        ("GET / HTTP/1.20", malformed),
        ("GET / HTTP/1.01", malformed),
        ("GET / HTTP/01.1", malformed),
        ("GET / HTTP/11.1", malformed),
        ("GET / HTTP/2.00", malformed),
        ("GET / HTTP/2", malformed),
        ("GET / HTTP/1", malformed),
        ("GET / HTTP/1.", malformed),
        ("GET / HTTP/", malformed),
        ("GET / HTTP/1.1x", malformed),
        ("GET / HTTP/1,1", malformed),
        ("GET / http/1.1", malformed),
        ("GET / HTTP/x.y", malformed),
        ("GET / HTTP/1.1 ", "something behind the version"),
        ("GET / HTTP/1.0 x", "something behind the version"),
        ("GET / HTTP/1.7 ", "something behind the version"),
        ("GET  / HTTP/1.1", "too many blanks"),
        ("GET /  HTTP/1.1", "too many blanks"),
        ("GET /a b HTTP/1.1", "too many blanks"),
        ("GET /a b HTTP/1.3", "too many blanks"),
        ("GET /", "no version"),
        ("GET HTTP/1.1", "no target"),
        ("EHLO example", "not an HTTP request"),
        ("SSH-2.0-x", "not an HTTP request"),
        ("GET / HTML/1.1", "not an HTTP request"),
        ("(GET) / HTTP/1.1", "not an HTTP request"),
    ] {
        for begin in ["", "\r\n"] {
            let refusal = refused(format!("{begin}{line}\r\nHost: x\r\n\r\n").as_bytes());
            assert!(refusal.status == 400 && refusal.message.contains(said), "{line:?}: {refusal}");
        }
    }
    for line in ["GET / HTTP/0.9", "GET / HTTP/2.0", "GET / HTTP/3.0", "GET / HTTP/9.9"] {
        let refusal = refused(format!("{line}\r\nHost: x\r\n\r\n").as_bytes());
        assert!(refusal.status == 505 && refusal.message.contains("1.1 and 1.0"), "{line:?}: {refusal}");
    }
}

#[test]
fn other_versions_of_http_are_told_which_are_served() {
    assert_eq!(refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status, 505);
    assert_eq!(status("GET / HTTP/2.0\r\nHost: x"), 505);
    assert_eq!(status("GET / HTML/1.1\r\nHost: x"), 400);
}

#[test]
fn a_later_version_of_http_1_is_read_as_1_1_and_as_strictly() {
    let later = |head: &str| head.replace("HTTP/1.1", "HTTP/1.7");
    let head = "POST /publish?a=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nA: b\r\n\r\n";
    for head in [head.to_owned(), format!("\r\n{head}")] {
        let text = later(&head);
        let request = good(&text);
        assert_eq!((request.path(), request.body, request.is_http11), ("/publish", Body::Length(2), true));
        assert_eq!((request.keep_alive, request.header("host")), (true, Some("x")));
        for cut in 0..text.len() {
            assert!(matches!(parse(&text.as_bytes()[..cut], 8192), Ok(None)), "{cut}");
        }
    }
    for wrong in [
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c",
        "GET / HTTP/1.1\r\nHost: x\nA: b",
        "GET / HTTP/1.1\nHost: x",
        "GET / x HTTP/1.1\r\nHost: x",
        "GET /na\u{ef}ve HTTP/1.1\r\nHost: x",
        "GET  / HTTP/1.1\r\nHost: x",
    ] {
        assert_eq!(status(&later(wrong)), 400, "{wrong:?}");
    }
    let long = format!("{}A: {}\r\n", later("GET / HTTP/1.1\r\n"), "b".repeat(9000));
    assert_eq!(parse(long.as_bytes(), 8192).unwrap_err().status, 431);
    let many = format!("{}{}\r\n", later("GET / HTTP/1.1\r\n"), "A: b\r\n".repeat(HEADERS_MAX + 1));
    assert_eq!(parse(many.as_bytes(), 8192).unwrap_err().status, 431);
}

#[test]
fn what_is_not_http_is_refused_at_its_first_bytes() {
    assert_eq!(refused(&[0x16]).status, 400, "a TLS greeting");
    assert_eq!(refused(&[0x16, 0x03, 0x01, 0x02]).status, 400);
    assert_eq!(refused(&[0]).status, 400);
    assert_eq!(refused(b"{\"op\":").status, 400);
    assert_eq!(refused(&[b'A'; 40]).status, 400, "letters without end");
}

#[test]
fn a_head_beyond_the_limit_is_refused_and_one_within_it_is_not() {
    let head = format!("GET / HTTP/1.0\r\nA: {}\r\n\r\n", "x".repeat(100));
    assert!(matches!(parse(head.as_bytes(), head.len()), Ok(Some(_))));
    assert_eq!(parse(head.as_bytes(), head.len() - 1).unwrap_err().status, 431);
    assert_eq!(parse(&head.as_bytes()[..50], 50).unwrap_err().status, 431);
    assert!(matches!(parse(&head.as_bytes()[..50], 51), Ok(None)));
    let target = format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(100));
    assert_eq!(parse(target.as_bytes(), 60).unwrap_err().status, 414);
}

#[test]
fn so_many_headers_are_taken_as_may_be() {
    let head = |n: usize| format!("GET / HTTP/1.0\r\n{}\r\n", "A: b\r\n".repeat(n));
    good(&head(HEADERS_MAX));
    assert_eq!(refused(head(HEADERS_MAX + 1).as_bytes()).status, 431);
    let bounds = Bounds { bytes: 8192, headers: 3 };
    assert!(parse(head(3).as_bytes(), bounds).is_ok_and(|parsed| parsed.is_some()));
    assert_eq!(parse(head(4).as_bytes(), bounds).unwrap_err().status, 431);
}

#[test]
fn an_empty_line_before_the_request_is_passed_over() {
    assert_eq!(good("\r\nGET /x HTTP/1.0\r\n\r\n").path(), "/x");
}

proptest! {
    #[test]
    fn a_good_head_is_never_refused_before_it_is_whole(
        path in "/[a-z.]{0,20}",
        values in prop::collection::vec("[ -~]{0,30}", 0..10),
    ) {
        let headers: String = values.iter().map(|value| format!("X-Value: {value}\r\n")).collect();
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        for cut in 0..head.len() {
            prop_assert!(matches!(parse(&head.as_bytes()[..cut], 8192), Ok(None)), "cut at {}", cut);
        }
        prop_assert_eq!(good(&head).headers("x-value").count(), values.len());
    }

    #[test]
    fn arbitrary_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes, 200);
        let begun = [b"GET / HTTP/1.1\r\nHost: x\r\n", &bytes[..]].concat();
        let _ = parse(&begun, 200);
    }
}

#[test]
fn a_method_that_is_too_long_is_refused_in_whatever_pieces_it_comes() {
    let head = format!("{} / HTTP/1.0\r\n\r\n", "M".repeat(33));
    for cut in 33..=head.len() {
        assert_eq!(parse(&head.as_bytes()[..cut], 8192).unwrap_err().status, 400, "{cut}");
    }
    assert!(parse(&head.as_bytes()[1..], 8192).unwrap().is_some());
}

#[test]
fn a_head_in_small_pieces_is_looked_at_a_few_times_and_comes_to_the_same() {
    let good = format!("\r\nGET /a HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "y".repeat(3000));
    let bare = good.replace("Host: x\r\n\r\n", "\n\n").replace("\r\n\r\n", "\n\n");
    let long = format!("GET /a HTTP/1.1\r\nX-Long: {}", "y".repeat(6000));
    for (text, status) in [(&good, None), (&bare, Some(400)), (&long, Some(431))] {
        for size in [1, 2, 3, 7, 100] {
            let (mut seen, mut parses, mut found) = (0, 0, None);
            for end in (size..text.len()).step_by(size).chain([text.len()]) {
                let bytes = &text.as_bytes()[..end];
                if is_worth_parsing(bytes, seen, 5000) {
                    parses += 1;
                    found = parse(bytes, 5000).transpose().map(|found| found.map(|(_, len)| len));
                }
                seen = end;
                if found.is_some() {
                    break;
                }
            }
            assert!(parses < 20, "{parses} looks at {} bytes in pieces of {size}", text.len());
            match (found.unwrap(), status) {
                (Ok(len), None) => assert_eq!(len, text.len()),
                (Err(refusal), Some(status)) => assert_eq!(refusal.status, status),
                (found, _) => panic!("{found:?}"),
            }
        }
    }
}
