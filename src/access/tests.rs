use std::net::SocketAddr;

use super::*;
use crate::http::head::parse;

/// When tests are: in November 2026.
const NOW: u64 = 1_795_900_000_000_000;

/// Asks something of a request with this target and these lines.
fn of<T>(target: &str, lines: &str, ask: impl FnOnce(&Request<'_>) -> T) -> T {
    let head = format!("GET {target} HTTP/1.1\r\n{lines}\r\n");
    let (request, _) = parse(head.as_bytes(), 8192).unwrap_or_else(|why| panic!("{why}: {head}")).unwrap();
    ask(&request)
}

fn rules(token: Option<&str>, is_open: bool) -> Rules {
    Rules::new(token.map(|token| token.parse().unwrap()), vec!["https://ours.example".parse().unwrap()], is_open)
}

fn status<T>(judged: Result<T, impl Into<Refusal>>) -> u16 {
    judged.map_or_else(|why| why.into().status, |_| 200)
}

#[test]
fn a_token_is_shown_by_the_header_the_subprotocol_or_the_address() {
    let long = format!("Bearer {}", "x".repeat(4000));
    for (target, header, shown) in [
        ("/ws", "", None),
        ("/ws", "Bearer s3cret", Some("s3cret")),
        ("/ws", "bEARER s3cret", Some("s3cret")),
        ("/ws", "Bearer   s3cret ", Some("s3cret")),
        ("/ws", "Bearer two words", Some("two words")),
        ("/ws", "Bearer", Some("")),
        ("/ws", "Bearer\ts3cret", Some("s3cret")),
        ("/ws", "Basic czNjcmV0", None),
        ("/ws", "s3cret", None),
        ("/ws", &long, Some(&long[7..])),
        ("/ws?token=s3cret", "", Some("s3cret")),
        ("/ws?topics=a&token=s%33cret&mode=all", "", Some("s3cret")),
        ("/ws?token=a+b%2Bc", "", Some("a b+c")),
        ("/ws?tok%65n=s3cret", "", Some("s3cret")),
        ("/ws?token=", "", Some("")),
        ("/ws?token", "", Some("")),
        ("/ws?token=%ff", "", Some("\u{fffd}")),
        ("/ws?TOKEN=s3cret", "", None),
        ("/ws?token=same", "Bearer same", Some("same")),
        ("/ws?token=address", "Basic header", Some("address")),
        ("/ws?token=", "Bearer", Some("")),
    ] {
        let lines = if header.is_empty() { String::new() } else { format!("Authorization: {header}\r\n") };
        let found = of(target, &format!("Host: x\r\n{lines}"), |head| {
            shown_token(head).unwrap().map(|shown| shown.text.into_owned())
        });
        assert_eq!(found.as_deref(), shown, "{target} {lines}");
    }
    for (target, offered, shown) in [
        ("/ws", "stentor.v1.json, stentor.bearer.a.b.c", Some(("a.b.c", false))),
        ("/ws", "stentor.bearer.a.b.c,stentor.v1.raw", Some(("a.b.c", false))),
        ("/ws?token=a.b.c", "stentor.bearer.a.b.c", Some(("a.b.c", false))),
        ("/ws?token=a.b.c", "stentor.v1.json", Some(("a.b.c", true))),
        ("/ws", "stentor.bearer.", Some(("", false))),
        ("/ws", "stentor.v1.json, Stentor.Bearer.a", None),
    ] {
        let lines = format!("Host: x\r\nSec-WebSocket-Protocol: {offered}\r\n");
        let found =
            of(target, &lines, |head| shown_token(head).unwrap().map(|it| (it.text.into_owned(), it.in_address)));
        assert_eq!(found.as_ref().map(|(text, place)| (&**text, *place)), shown, "{target} {offered}");
    }
}

#[test]
fn of_several_tokens_none_is_taken() {
    let authorization = "Authorization: Bearer s3cret\r\n";
    for (target, lines, said) in [
        ("/ws?token=s3cret&token=s3cret", "", "token is given more than once"),
        ("/ws?token=s3cret&topics=a&tok%65n=", "", "token is given more than once"),
        ("/ws?token=one&token=two", authorization, "token is given more than once"),
        ("/ws?token=one", authorization, "two tokens that differ"),
        ("/ws?token=one", "Authorization: Bearer\r\n", "two tokens that differ"),
        ("/ws", &format!("{authorization}Sec-WebSocket-Protocol: stentor.bearer.one\r\n"), "two tokens that differ"),
        ("/ws", "Sec-WebSocket-Protocol: stentor.bearer.one, stentor.bearer.two\r\n", "two tokens that differ"),
        ("/ws?token=two", "Sec-WebSocket-Protocol: stentor.bearer.one\r\n", "two tokens that differ"),
        ("/ws", &authorization.repeat(2), "more than one Authorization header"),
        ("/ws", &format!("Authorization: Basic one\r\n{authorization}"), "more than one Authorization header"),
    ] {
        let lines = format!("Host: localhost\r\n{lines}");
        let refusal = of(target, &lines, |head| shown_token(head).map(|found| format!("{found:?}"))).unwrap_err();
        assert!(refusal.status == 400 && refusal.message.contains(said), "{target} {lines}: {refusal}");
        // Whether one is needed or not.
        let local = "127.0.0.1:1".parse().unwrap();
        for rules in [rules(Some("s3cret"), false), rules(None, true)] {
            of(target, &lines, |head| {
                assert_eq!(
                    (status(rules.reader(head, NOW)), status(rules.publisher(head, NOW))),
                    (400, 400),
                    "{target}"
                );
                assert_eq!(status(rules.may_inspect(head, (local, &Holder::Anonymous), NOW)), 400, "{target}");
            });
        }
    }
}

/// Who shows this in a header.
fn shows(rules: &Rules, token: &str) -> Result<Holder, Wrong> {
    rules.holder(Some(&Shown::new(token)), NOW)
}

#[test]
fn a_holder_is_whoever_shows_the_token_or_nothing() {
    let guarded = rules(Some("s3cret"), false);
    assert!(matches!(guarded.holder(None, NOW), Ok(Holder::Anonymous)));
    assert!(matches!(shows(&guarded, "s3cret"), Ok(Holder::Publisher { generation: 0 })));
    for wrong in ["", "s3cre", "s3cret ", "S3CRET", "s3cret\0", "a.b.c", ".."] {
        assert!(matches!(shows(&guarded, wrong), Err(Wrong::Unknown)), "{wrong:?}");
    }
    assert!(matches!(shows(&rules(None, true), ""), Err(Wrong::Unknown)), "where none is set, none is right");
}

#[test]
fn the_token_publishes_and_the_anonymous_where_anybody_may() {
    let (open, closed) = (rules(Some("s3cret"), true), rules(Some("s3cret"), false));
    let token = shows(&closed, "s3cret").unwrap();
    let token = closed.now(&token, NOW);
    assert!(token.may_publish("a") && Standing::SERVER.may_publish("a"));
    assert!(open.nobody().may_publish("a"));
    assert!(!closed.nobody().may_publish("a"));
    assert!([token, open.nobody(), closed.nobody()].iter().all(|it| it.may_subscribe("a.>")));
    assert!(!token.is_admin() && Standing::SERVER.is_admin());
}

#[test]
fn a_change_of_the_rules_is_for_those_who_are_there_already() {
    let open = rules(None, true);
    let first = rules(Some("first"), false).after(&open);
    let again = rules(Some("first"), false).after(&first);
    let second = rules(Some("second"), false).after(&again);
    let back = rules(Some("first"), false).after(&second);
    let none = rules(None, true).after(&back);
    let holder = shows(&first, "first").unwrap();
    let may = |holder: &Holder, rules: &[&Rules]| {
        Vec::from_iter(rules.iter().map(|rules| rules.now(holder, NOW).publishes()))
    };
    let all = [&open, &first, &again, &second, &back, &none];
    assert_eq!(may(&Holder::Anonymous, &all), [true, false, false, false, false, true], "whoever never showed one");
    // A token that was taken back is not given again by being the right one again.
    assert_eq!(may(&holder, &all[1..]), [true, true, false, false, true], "whoever showed the first");
    assert_eq!(may(&Holder::Server, &all), [true; 6]);
}

#[test]
fn a_holder_takes_sixteen_bytes() {
    assert_eq!(size_of::<Holder>(), 16);
}

#[test]
fn publishing_over_http_asks_for_the_page_and_the_token() {
    let judge = |rules: &Rules, target: &str, lines: &str| {
        of(target, &format!("Host: x\r\n{lines}"), |head| rules.publisher(head, NOW))
    };
    let guarded = rules(Some("s3cret"), false);
    let refusal = judge(&guarded, "/publish", "").unwrap_err();
    assert!(refusal.status == 401 && refusal.message.contains("needs a token") && refusal.headers == CHALLENGE);
    let refusal = judge(&guarded, "/publish?token=guess", "").unwrap_err();
    assert!(refusal.status == 401 && refusal.message.contains("not the right one") && refusal.headers == CHALLENGE);
    assert!(matches!(judge(&guarded, "/publish?token=s3cret", ""), Ok(Holder::Publisher { generation: 0 })));
    let foreign = "Origin: https://theirs.example\r\n";
    assert_eq!(status(judge(&guarded, "/publish?token=s3cret", foreign)), 403);
    assert_eq!(
        status(judge(&guarded, "/publish?token=guess", foreign)),
        403,
        "a page elsewhere is told nothing of tokens"
    );
    assert!(matches!(judge(&rules(None, true), "/publish?token=any", ""), Ok(Holder::Anonymous)));
    // Nobody can publish on such a server.
    let refusal = judge(&rules(None, false), "/publish?token=any", "").unwrap_err();
    assert!(refusal.status == 401 && refusal.message.contains("not the right one"));
    let refusal = judge(&rules(None, false), "/publish", "").unwrap_err();
    assert!(refusal.status == 401 && refusal.message.contains("needs a token"));
}

#[test]
fn publishing_is_open_on_loopback_only() {
    let open = |change: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        publishing_is_open(&config)
    };
    assert!(open(&|_| {}));
    assert!(!open(&|c| c.listen.push("0.0.0.0:9001".parse().unwrap())));
    assert!(!open(&|c| c.tls_listen.push("[::]:443".parse().unwrap())));
    assert!(open(&|c| c.tls_listen.push("[::1]:443".parse().unwrap())));
    assert!(!open(&|c| (c.listen, c.tls_listen) = (Vec::new().into(), vec!["192.0.2.1:443".parse().unwrap()])));
    assert!(open(&|c| (c.listen, c.anonymous_publish) = (vec!["0.0.0.0:9001".parse().unwrap()].into(), true)));
    assert!(!open(&|c| c.trusted_proxy = vec!["127.0.0.1".parse().unwrap()]));
    assert!(!open(&|c| c.publish_token = Some("s3cret".parse().unwrap())));
}

#[test]
fn an_origin_is_compared_by_scheme_host_and_port() {
    let allowed =
        ["https://Example.com", "http://localhost:8080/", "http://[::1]"].map(|origin| origin.parse().unwrap());
    let rules = Rules::new(None, allowed.into(), true);
    for (origins, may) in [
        (&["https://example.com"][..], true),
        (&["HTTPS://EXAMPLE.COM:443"], true),
        (&["https://example.com/"], true),
        (&["http://localhost:8080"], true),
        (&["http://[::1]:80"], true),
        (&["http://example.com"], false),
        (&["https://example.com:8443"], false),
        (&["https://example.com:"], false),
        (&["https://example.com.evil.org"], false),
        (&["https://evil.org/example.com"], false),
        (&["https://user@example.com"], false),
        (&["http://localhost"], false),
        (&["http://[::2]"], false),
        (&["null"], false),
        (&[""], false),
        // Each of several counts.
        (&["https://example.com", "https://evil.org"], false),
        (&["https://evil.org", "https://example.com"], false),
        (&["https://example.com", "http://localhost:8080"], true),
        // Programs send none.
        (&[], true),
    ] {
        let lines: String = origins.iter().map(|origin| format!("Origin: {origin}\r\n")).collect();
        let found = of("/ws", &format!("Host: x\r\n{lines}"), |head| status(rules.check_page(head)));
        assert_eq!(found, if may { 200 } else { 403 }, "{origins:?}");
    }
}

#[test]
fn without_a_list_any_page_may_connect() {
    for origin in ["https://anywhere.example", "null", ""] {
        let lines = format!("Host: x\r\nOrigin: {origin}\r\n");
        assert_eq!(of("/ws", &lines, |head| Rules::default().check_page(head)), Ok(()));
    }
}

#[test]
fn clients_are_shown_to_this_machine_or_for_the_token() {
    let (near, near6) = ("127.0.0.1:5555".parse().unwrap(), "[::1]:5555".parse().unwrap());
    let far: SocketAddr = "192.0.2.7:5555".parse().unwrap();
    let open = rules(None, true);
    for (peer, host, more, may) in [
        (near, "localhost:9001", "", true),
        (near, "LOCALHOST", "", true),
        (near, "127.8.9.1", "", true),
        (near, "[::1]", "", true),
        (near6, "[::1]:9001", "", true),
        (near, "localhost", "Origin: https://ours.example\r\n", true),
        (near, "localhost", "Authorization: Basic YW55\r\n", true),
        (near, "localhost", "Origin: https://theirs.example\r\n", false),
        (near, "feed.example.com", "", false),
        (near, "10.0.0.1:9001", "", false),
        (near, "[2001:db8::1]:80", "", false),
        (near, "[::1", "", false),
        (near, "localhost.", "", true),
        ("[::ffff:127.0.0.1]:5555".parse().unwrap(), "127.0.0.1", "", true),
        (near, "localhost.example.com", "", false),
        (near, "", "", false),
        (near, "localhost", "Forwarded: for=192.0.2.7\r\n", false),
        (near, "localhost", "X-Forwarded-For: 192.0.2.7\r\n", false),
        (near, "localhost", "Via: 1.1 proxy\r\n", false),
        (near, "localhost", "Via: 1.1 é\r\n", false),
        (near, "localhost", "X-Forwarded-For: é\r\n", false),
        (far, "localhost", "", false),
    ] {
        let lines = format!("Host: {host}\r\n{more}");
        let found = of("/debug/slow", &lines, |head| status(open.may_inspect(head, (peer, &Holder::Anonymous), NOW)));
        assert_eq!(found, if may { 200 } else { 403 }, "{peer} {lines}");
    }
    let guarded = rules(Some("s3cret"), true);
    for (target, peer, lines, found) in [
        ("/debug/slow", near, "Host: localhost\r\n", 401),
        ("/debug/slow?token=guess", near, "Host: localhost\r\n", 401),
        ("/debug/slow?token=s3cret", near, "Host: localhost\r\n", 200),
        ("/debug/slow?token=s3cret", near, "Host: feed.example.com\r\nVia: 1.1 proxy\r\n", 403),
        ("/debug/slow?token=s3cret", far, "Host: localhost\r\n", 403),
    ] {
        assert_eq!(
            of(target, lines, |head| status(guarded.may_inspect(head, (peer, &Holder::Anonymous), NOW))),
            found,
            "{target} {peer}"
        );
    }
}

#[test]
fn a_page_is_named_in_one_of_its_forms_or_the_operator_is_told_them() {
    for named in
        ["https://example.com", "http://[::1]:8080", "https://*.example.com:8443", "capacitor://localhost", "null", "*"]
    {
        assert!(named.parse::<Named>().is_ok(), "{named}");
    }
    for named in [
        "",
        "example.com",
        "https://",
        "https://*",
        "https://*.",
        "https://a.*.example",
        "https://*example.com",
        "https://example.com/path",
        "https://user@example.com",
        "https://example.com:port",
        "https://example.com:65536",
        "https://exa mple.com",
        "https://[::1",
        "NULL",
        "://example.com",
    ] {
        assert!(named.parse::<Named>().is_err_and(|why| why.contains("https://*.example.com")), "{named}");
    }
}
