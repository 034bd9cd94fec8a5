//! Who may see and say what, until when: tokens as they are shown, and what becomes of connections when their rights do.
//!
//! Tokens are signed here by hand, and not by what the server judges them with.

use std::{
    io::Write,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use stentor::{Payload, config::Config, server::Server};
use tempfile::TempDir;
use tungstenite::{Message, client::IntoClientRequest};

use crate::{
    client::{Client, serve, tcp, until},
    http::Http,
    process::{metric, wait_for},
};

const SECRET: &[u8] = b"a secret of thirty-two bytes or more";

/// A server that knows tokens, and the folder with its files.
struct World {
    server: Server,
    dir: TempDir,
}

impl World {
    fn new(change: impl FnOnce(&mut Config)) -> World {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys.json");
        let key = json!({ "kty": "oct", "kid": "one", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(SECRET) });
        std::fs::write(&keys, json!({ "keys": [key] }).to_string()).unwrap();
        let server = serve(|config| {
            config.jwt_keys = Some(keys);
            config.revoked = Some(dir.path().join("revoked"));
            change(config);
        });
        World { server, dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn publish(&self, topic: &str, value: u64) {
        self.server.publisher().publish(topic, Payload::Json(value.to_string().as_bytes())).unwrap();
    }

    fn http(&self) -> Http {
        Http::connect(self.server.addresses()[0])
    }

    fn get(&self, path: &str, token: &str) -> (u16, String) {
        let mut http = self.http();
        http.ask(path, &[&format!("Authorization: Bearer {token}")]);
        let answer = http.answer();
        (answer.status, answer.text())
    }

    fn post(&self, path: &str, token: &str, body: &str) -> (u16, String) {
        let mut http = self.http();
        let len = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n");
        http.write(format!("{head}Content-Length: {len}\r\n\r\n{body}").as_bytes());
        let answer = http.answer();
        (answer.status, answer.text())
    }

    /// A client of `/ws` that has shown this in its request, and has read its greeting.
    fn open(&self, path: &str, token: &str) -> (Client, Value) {
        let bearer = format!("Bearer {token}");
        let mut client = Client::try_connect(self.server.addresses()[0], path, &[("Authorization", &bearer)]).unwrap();
        let hello = client.json();
        assert_eq!(hello["type"], "hello");
        (client, hello)
    }

    fn lost(&self, why: &str) -> f64 {
        metric(self.server.addresses()[0], &format!("rights_lost_total{{why=\"{why}\"}}"))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token of a subject for an hour, with these rights and other claims.
fn token_with(sub: &str, stentor: Value, claims: Value) -> String {
    let mut all = json!({ "aud": "stentor", "sub": sub, "exp": now() + 3600, "stentor": stentor });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    let head = json!({ "alg": "HS256", "kid": "one", "typ": "JWT" });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&head), part(&all));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
}

fn token(sub: &str, stentor: Value) -> String {
    token_with(sub, stentor, json!({}))
}

fn sees(patterns: &[&str]) -> Value {
    json!({ "sub": patterns })
}

/// The same token, of which the signature is another.
fn forged(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let swapped = if signature.starts_with('A') { "B" } else { "A" };
    format!("{signed}.{swapped}{}", &signature[1..])
}

#[test]
fn a_token_is_shown_in_three_ways_and_the_greeting_says_whose_it_is() {
    let world = World::new(|_| {});
    let exp = now() + 200;
    let token = token_with("u42", sees(&["q.us.>"]), json!({ "exp": exp }));
    let (_, hello) = world.open("/ws", &token);
    assert_eq!(hello["holder"], json!({ "sub": "u42", "exp": exp }));
    let mut in_address = Client::hello(&world.server, &format!("/ws?token={token}&topics=q.us.A"));
    assert_eq!(in_address.json()["type"], "ack");
    let address = world.server.addresses()[0];
    let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
    let offered = format!("stentor.bearer.{token}, stentor.v1.json");
    request.headers_mut().insert("Sec-WebSocket-Protocol", offered.parse().unwrap());
    let (socket, answer) = tungstenite::client(request, tcp(address)).unwrap();
    assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "stentor.v1.json", "the token is never what is chosen");
    assert_eq!(Client { socket }.json()["holder"]["sub"], "u42");
    // By a command, and the answer says who it is then.
    let mut later = Client::hello(&world.server, "/ws");
    let ack = later.ask(&format!(r#"{{"op":"auth","id":1,"token":"{token}"}}"#));
    assert_eq!(ack, json!({ "type": "ack", "id": 1, "holder": { "sub": "u42", "exp": exp } }));
    assert_eq!(later.ask(r#"{"op":"sub","id":2,"topics":["q.us.*"]}"#)["type"], "ack");
    // Who shows nothing is nobody.
    assert_eq!(Client::connect(&world.server, "/ws").json().get("holder"), None);
}

#[test]
fn a_wrong_token_is_told_on_a_websocket_and_is_401_over_http() {
    let world = World::new(|_| {});
    world.publish("q.us.A", 1);
    let good = token("u1", sees(&[">"]));
    let long = token_with("u1", sees(&[">"]), json!({ "exp": now() + 3600 }));
    for (wrong, said) in [
        (forged(&good), "signature"),
        (token_with("u1", sees(&[">"]), json!({ "exp": now() - 60 })), "expired"),
        (token_with("u1", sees(&[">"]), json!({ "aud": "others" })), "aud"),
        (token_with("u1", sees(&[">"]), json!({ "nbf": now() + 600 })), "not yet valid"),
        ("garbled".to_owned(), "not the right one"),
        ("a.b.c".to_owned(), "garbled"),
    ] {
        let (mut client, _) = world.open("/ws?topics=q.us.A", &wrong);
        let error = client.json();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("unauthorized")), "{error}");
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
        assert_eq!(client.closed().0, 4001);
        let bearer = format!("Bearer {wrong}");
        let raw = Client::try_connect(world.server.addresses()[0], "/raw/q.us.A", &[("Authorization", &bearer)]);
        assert_eq!(raw.unwrap().closed().0, 4001);
        for path in ["/sse?topics=q.us.A", "/poll?topics=q.us.A", "/history/q.us.A", "/topics", "/topics/q.us.A"] {
            let (status, text) = world.get(path, &wrong);
            assert_eq!(status, 401, "{path}: {text}");
        }
        assert_eq!(world.post("/publish/q.us.A", &wrong, "1").0, 401);
    }
    // Of two that differ, and of one in an address that is logged, for longer than that may be.
    let mut http = world.http();
    http.ask(&format!("/topics?token={good}"), &["Authorization: Bearer other"]);
    assert_eq!(http.answer().status, 400);
    let mut client = Client::hello(&world.server, &format!("/ws?token={long}"));
    assert_eq!(client.json()["code"], "unauthorized");
    assert_eq!(client.closed().0, 4001);
}

#[test]
fn what_is_not_covered_is_refused_the_same_whether_it_exists_or_not() {
    let world = World::new(|_| {});
    ["q.us.A", "q.eu.there"].iter().for_each(|topic| world.publish(topic, 1));
    let mine = token("u1", sees(&["q.us.>", "t.*"]));
    let (mut client, _) = world.open("/ws", &mine);
    for (asked, first) in [
        (json!(["q.us.A", "q.eu.there"]), "q.eu.there"),
        (json!(["q.eu.nowhere"]), "q.eu.nowhere"),
        (json!(["q.>"]), "q.>"),
        (json!(["t.a.b"]), "t.a.b"),
        (json!(["t.>"]), "t.>"),
        (json!(["*.us.A"]), "*.us.A"),
    ] {
        let error = client.ask(&json!({ "op": "sub", "id": 7, "topics": asked }).to_string());
        assert_eq!((&error["code"], &error["id"]), (&json!("forbidden"), &json!(7)), "{error}");
        let expected = format!("{first}: you may not subscribe to that");
        assert_eq!((&error["message"], &error["topics"]), (&json!(expected), &json!([first])));
    }
    let several = client.ask(r#"{"op":"sub","topics":["q.us.A","q.eu.there","q.eu.nowhere","t.a","q.>"]}"#);
    let mut named: Vec<_> = several["topics"].as_array().unwrap().clone();
    named.sort_by_key(Value::to_string);
    assert_eq!(named, ["q.>", "q.eu.nowhere", "q.eu.there"], "whoever asks for the others is refused nothing more");
    assert_eq!(client.ask(r#"{"op":"sub","id":8,"topics":["q.us.>","t.*","q.us.*"]}"#)["type"], "ack");
    for name in ["q.eu.there", "q.eu.nowhere"] {
        let told = |path: &str| world.get(path, &mine);
        for path in [
            format!("/sse?topics={name}"),
            format!("/poll?topics={name}"),
            format!("/history/{name}"),
            format!("/topics/{name}"),
        ] {
            let (status, text) = told(&path);
            assert_eq!(status, 403, "{path}: {text}");
            assert_eq!(
                text.replace(name, "NAME"),
                told(&path.replace(name, "q.eu.other")).1.replace("q.eu.other", "NAME")
            );
        }
        let bearer = format!("Bearer {mine}");
        let raw =
            Client::try_connect(world.server.addresses()[0], &format!("/raw/{name}"), &[("Authorization", &bearer)]);
        let (code, reason) = raw.unwrap().closed();
        assert_eq!((code, reason), (4001, format!("{name}: you may not subscribe to that")));
    }
    for path in ["/poll?topics=q.us.A", "/history/q.us.A", "/topics/q.us.A"] {
        assert_eq!(world.get(path, &mine).0, 200, "{path}");
    }
    // Who shows nothing may nothing, and is told to show something.
    let mut http = world.http();
    for path in ["/sse?topics=q.us.A", "/poll?topics=q.us.A", "/history/q.us.A", "/topics/q.us.A"] {
        let answer = http_once(&world, path);
        assert_eq!(answer.0, 401, "{path}: {}", answer.1);
    }
    assert_eq!(http.get("/healthz").status, 200);
}

fn http_once(world: &World, path: &str) -> (u16, String) {
    let answer = world.http().get(path);
    (answer.status, answer.text())
}

#[test]
fn publishing_is_asked_for_each_topic_and_each_line() {
    let world = World::new(|config| config.anonymous_subscribe = vec![">".into()]);
    let mine = token("p1", json!({ "pub": ["q.us.>"] }));
    let (mut client, _) = world.open("/ws", &mine);
    assert_eq!(client.ask(r#"{"op":"pub","id":1,"topic":"q.us.A","data":1}"#)["seq"], 1);
    assert_eq!(client.ask(r#"{"op":"pub","id":2,"topic":"q.eu.A","data":1}"#)["code"], "forbidden");
    assert_eq!(world.post("/publish/q.us.A", &mine, "2").0, 200);
    assert_eq!(world.post("/publish/q.eu.A", &mine, "2").0, 401);
    let lines =
        "{\"topic\":\"q.us.A\",\"data\":3}\n{\"topic\":\"q.eu.A\",\"data\":3}\n{\"topic\":\"q.us.A\",\"data\":4}\n";
    let (status, text) = world.post("/publish", &mine, lines);
    assert_eq!(status, 401, "{text}");
    assert!(
        text.contains("Line 2") && text.contains("q.eu.A") && text.contains("1 publication went before it"),
        "{text}"
    );
    // On /raw it says what it may, and isn't sent what it may not see.
    let bearer = format!("Bearer {}", token("p2", json!({ "pub": ["r"], "sub": ["s"] })));
    let mut raw = Client::try_connect(world.server.addresses()[0], "/raw/r", &[("Authorization", &bearer)]).unwrap();
    let mut subscriber = Client::hello(&world.server, "/ws?topics=r");
    assert_eq!(subscriber.json()["type"], "ack");
    raw.send("5");
    assert_eq!(subscriber.json()["data"], 5);
}

#[test]
fn a_holder_adds_only_so_many_topics_from_wherever_it_comes() {
    let world = World::new(|config| config.max_topics_per_holder = Some(3));
    let mine = token("p1", json!({ "pub": ["t.>"] }));
    let (mut client, _) = world.open("/ws", &mine);
    for topic in ["t.1", "t.2", "t.1"] {
        assert_eq!(client.ask(&json!({ "op": "pub", "id": 1, "topic": topic, "data": 1 }).to_string())["type"], "ack");
    }
    assert_eq!(world.post("/publish/t.3", &mine, "1").0, 200);
    let (status, text) = world.post("/publish/t.4", &mine, "1");
    assert!(status == 503 && text.contains("3 topics, as many as --max-topics-per-holder allows"), "{status} {text}");
    let refused = client.ask(r#"{"op":"pub","id":2,"topic":"t.5","data":1}"#);
    assert_eq!(refused["code"], "too_many_topics", "{refused}");
    assert_eq!(world.post("/publish/t.3", &mine, "2").0, 200);
    // Another's are its own.
    assert_eq!(world.post("/publish/t.4", &token("p2", json!({ "pub": ["t.>"] })), "1").0, 200);
}

#[test]
fn a_mode_or_rate_above_the_right_is_refused_and_what_is_allowed_is_named() {
    let world = World::new(|_| {});
    let mine = token("u1", json!({ "sub": ["q.>", "t.>"], "rate": { "q.us.>": 4 } }));
    let (mut client, _) = world.open("/ws", &mine);
    for asked in [
        r#"{"op":"sub","topics":["q.us.A"]}"#,
        r#"{"op":"sub","topics":["q.>"],"mode":"latest"}"#,
        r#"{"op":"sub","topics":["q.us.A"],"mode":"latest","rate":5}"#,
    ] {
        let error = client.ask(asked);
        assert_eq!(error["code"], "forbidden", "{error}");
        assert!(error["message"].as_str().unwrap().contains("rate of at most 4"), "{error}");
    }
    assert_eq!(client.ask(r#"{"op":"sub","topics":["q.us.A"],"mode":"latest","rate":4}"#)["type"], "ack");
    assert_eq!(client.ask(r#"{"op":"sub","topics":["t.us.A"]}"#)["type"], "ack");
    // A poll has no rate, and history has every publication.
    assert_eq!(world.get("/poll?topics=q.us.A", &mine).0, 403);
    assert_eq!(world.get("/history/q.us.A", &mine).0, 403);
    assert_eq!(world.get("/poll?topics=t.us.A", &mine).0, 200);
    // Nor is its last value there for the asking, again and again.
    world.publish("q.us.A", 1);
    world.publish("t.us.A", 1);
    let (status, text) = world.get("/topics/q.us.A", &mine);
    assert!(status == 403 && text.contains("rate of at most 4"), "{status} {text}");
    assert_eq!(world.get("/topics/t.us.A", &mine).0, 200);
    let newest = token("u2", json!({ "sub": ["q.>"], "modes": ["latest"] }));
    assert_eq!(world.get("/topics/q.us.A", &newest).0, 200);
}

#[test]
fn who_shows_nothing_that_gives_a_right_is_sent_away() {
    let world = World::new(|config| config.auth_timeout = "1s".parse().unwrap());
    let mut client = Client::hello(&world.server, "/ws");
    assert_eq!(client.ask(r#"{"op":"sub","topics":["a"]}"#)["code"], "forbidden");
    assert_eq!(client.json()["code"], "unauthorized");
    assert_eq!(client.closed().0, 4001);
    // In time.
    let mut client = Client::hello(&world.server, "/ws");
    client.ask(&format!(r#"{{"op":"auth","token":"{}"}}"#, token("u1", sees(&["a"]))));
    assert_eq!(client.ask(r#"{"op":"sub","topics":["a"]}"#)["type"], "ack");
    let mut third = Client::hello(&world.server, "/ws");
    assert_eq!(third.closed().0, 4001);
    world.publish("a", 1);
    assert_eq!(client.json()["data"], 1, "whoever has a right stays");
    assert_eq!(world.lost("nothing"), 2.0);
}

#[test]
fn a_token_is_renewed_on_the_same_connection_and_nothing_is_missed() {
    let world = World::new(|_| {});
    let first = token_with("u1", sees(&["a"]), json!({ "exp": now() + 30 }));
    let (mut client, _) = world.open("/ws?topics=a", &first);
    assert_eq!(client.json()["type"], "ack");
    let told = client.json();
    assert_eq!((&told["type"], &told["code"]), (&json!("status"), &json!("token_expiring")));
    let within = told["in"].as_u64().unwrap();
    assert!((20..=30).contains(&within), "{told}");
    // Who shows it again, or one that lasts no longer, isn't told so again: it would go on for ever.
    let shorter = token_with("u1", sees(&["a"]), json!({ "exp": now() + 20 }));
    for same in [&first, &first, &shorter] {
        assert_eq!(client.ask(&format!(r#"{{"op":"auth","token":"{same}"}}"#))["type"], "ack");
    }
    assert_eq!(client.ask(r#"{"op":"ping"}"#)["type"], "pong");
    (1..=3).for_each(|n| world.publish("a", n));
    let exp = now() + 3600;
    let second = token_with("u1", sees(&["a"]), json!({ "exp": exp }));
    client.send(&format!(r#"{{"op":"auth","id":1,"token":"{second}"}}"#));
    (4..=6).for_each(|n| world.publish("a", n));
    let (mut seen, mut acks) = (Vec::new(), Vec::new());
    while seen.len() < 6 || acks.is_empty() {
        let message = client.json();
        match message["type"].as_str().unwrap() {
            "update" => seen.push(message["data"].as_u64().unwrap()),
            _ => acks.push(message),
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
    assert_eq!(acks, [json!({ "type": "ack", "id": 1, "holder": { "sub": "u1", "exp": exp } })]);
    // Another's doesn't take over what this one has begun.
    let other = token("u2", sees(&["a"]));
    assert_eq!(client.ask(&format!(r#"{{"op":"auth","id":2,"token":"{other}"}}"#))["code"], "unauthorized");
    assert_eq!(client.closed().0, 4001);
}

#[test]
fn a_connection_ends_with_its_token_whatever_it_is() {
    let world = World::new(|config| config.jwt_leeway = "0s".parse().unwrap());
    let brief = |n: u64| token_with(&format!("u{n}"), sees(&["a"]), json!({ "exp": now() + 2 }));
    let (mut client, _) = world.open("/ws?topics=a", &brief(1));
    let bearer = format!("Authorization: Bearer {}", brief(2));
    let mut stream = tcp(world.server.addresses()[0]);
    write!(stream, "GET /sse?topics=a HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n\r\n").unwrap();
    assert!(until(&mut stream, "\"code\":\"current\"}").contains("\"sub\":\"u2\""));
    let cursor = world.get("/poll?topics=a", &brief(3)).1;
    let cursor = serde_json::from_str::<Value>(&cursor).unwrap()["cursor"].as_str().unwrap().to_owned();
    let mut poll = world.http();
    poll.ask(&format!("/poll?topics=a&cursor={cursor}"), &[&bearer]);
    assert_eq!(client.closed(), (4001, "the token has expired".to_owned()));
    assert!(until(&mut stream, "\"message\":\"the token has expired\"}").contains("\"code\":\"unauthorized\""));
    assert_eq!(poll.answer().status, 401);
    // A body that goes on, too.
    let brief = token_with("p", json!({ "pub": ["a"] }), json!({ "exp": now() + 1 }));
    let line = "{\"topic\":\"a\",\"data\":1}\n";
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    let mut body = tcp(world.server.addresses()[0]);
    let head = format!("POST /publish HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {brief}\r\n");
    write!(body, "{head}Transfer-Encoding: chunked\r\n\r\n").unwrap();
    wait_for("the token's end", || {
        let _ = body.write_all(chunk.as_bytes());
        world.get("/poll?topics=a&wait=0", &brief).0 == 401
    });
    body.write_all(chunk.as_bytes()).unwrap();
    assert!(until(&mut body, "before it.").starts_with("HTTP/1.1 401 "));
}

#[test]
fn rights_that_become_less_end_what_they_no_longer_cover_name_by_name() {
    let world = World::new(|_| {});
    let wide = token("u1", sees(&["q.>", "t.>"]));
    let (mut client, _) = world.open("/ws?topics=q.us.A,q.us.*,q.eu.A,t.%3E", &wide);
    assert_eq!(client.json()["type"], "ack");
    world.publish("q.eu.A", 1);
    assert_eq!(client.json()["topic"], "q.eu.A");
    let narrow = token("u1", sees(&["q.us.>"]));
    assert_eq!(client.ask(&format!(r#"{{"op":"auth","id":1,"token":"{narrow}"}}"#))["type"], "ack");
    let mut ended: Vec<String> = (0..2)
        .map(|_| {
            let error = client.json();
            assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("forbidden")));
            error["topic"].as_str().unwrap().to_owned()
        })
        .collect();
    ended.sort();
    assert_eq!(ended, ["q.eu.A", "t.>"]);
    for topic in ["q.eu.A", "t.x", "q.us.A", "q.us.B"] {
        world.publish(topic, 2);
    }
    assert_eq!((client.json()["topic"].clone(), client.json()["topic"].clone()), (json!("q.us.A"), json!("q.us.B")));
    let list = client.ask(r#"{"op":"list"}"#);
    let names: Vec<_> = list["topics"].as_array().unwrap().iter().map(|it| it["topic"].as_str().unwrap()).collect();
    assert_eq!(names, ["q.us.*", "q.us.A"]);
    assert_eq!(client.ask(r#"{"op":"sub","topics":["t.>"]}"#)["code"], "forbidden");
    assert_eq!(world.lost("names"), 2.0);
    wait_for("names to be let go of", || metric(world.server.addresses()[0], "names") == 2.0);
}

/// Somebody who doesn't read has not had what was published, and isn't sent it when it reads at last.
#[test]
fn what_a_slow_subscriber_has_not_had_yet_of_a_topic_that_it_lost_it_never_gets() {
    let dir = tempfile::tempdir().unwrap();
    let roles = dir.path().join("rights.toml");
    let role = |names: &str| std::fs::write(&roles, format!("[roles.pro]\nsub = [{names}]\n")).unwrap();
    role("\"a\", \"b\"");
    let mut kept = Config::default();
    let mut world = World::new(|config| {
        config.rights = Some(roles.clone());
        config.sndbuf = "16KiB".parse().unwrap();
        kept = config.clone();
    });
    let (mut client, _) = world.open("/ws?topics=a,b", &token("u1", json!({ "role": "pro" })));
    assert_eq!(client.json()["type"], "ack");
    let filler = "x".repeat(1000);
    let publish = |world: &World, topic: &str| {
        let payload = format!("\"{filler}\"");
        world.server.publisher().publish(topic, Payload::Json(payload.as_bytes())).unwrap().seq
    };
    let mut last = 0;
    for _ in 0..10_000 {
        publish(&world, "a");
        last = publish(&world, "b");
    }
    wait_for("it to be behind", || metric(world.server.addresses()[0], "alone_subscribers") == 1.0);
    role("\"a\"");
    world.server.reload(&kept).unwrap();
    wait_for("its rights to be looked at", || world.lost("names") + world.lost("narrowed") == 1.0);
    let (mut a, mut b, mut told) = (0, 0, false);
    // Where it stopped within a publication of `b`, nothing can follow: it is cut.
    while let Ok(message) = client.socket.read() {
        let Message::Text(text) = message else { continue };
        let message: Value = serde_json::from_str(&text).unwrap();
        let seq = message["seq"].as_u64();
        match (message["type"].as_str().unwrap(), message["topic"].as_str()) {
            ("update", Some("a")) => {
                assert_eq!(seq, Some(a + 1), "of what is left nothing is missed");
                a += 1;
            }
            ("update", Some("b")) => {
                assert!(!told, "nothing follows the word that it has ended");
                assert_eq!(seq, Some(b + 1));
                b += 1;
            }
            ("error", Some("b")) => told = true,
            ("heartbeat", _) => {}
            other => panic!("{other:?}"),
        }
        if a == last {
            break;
        }
    }
    assert!(b < last, "{b} of {last} had come before");
    if told {
        assert_eq!(a, last);
    }
    drop(dir);
}

#[test]
fn whoever_is_revoked_is_gone_from_every_worker_and_stays_out() {
    let world = World::new(|config| config.workers = Some(2));
    let admin = token("boss", json!({ "admin": true }));
    let victim = token_with("u1", sees(&["a"]), json!({ "jti": "t1" }));
    let (other, by_id) = (token("u2", sees(&["a"])), token_with("u3", sees(&["a"]), json!({ "jti": "t3" })));
    let mut victims: Vec<Client> = (0..4).map(|_| world.open("/ws?topics=a", &victim).0).collect();
    victims.iter_mut().for_each(|client| assert_eq!(client.json()["type"], "ack"));
    let (mut stays, _) = world.open("/ws?topics=a", &other);
    assert_eq!(stays.json()["type"], "ack");
    let (mut third, _) = world.open("/ws?topics=a", &by_id);
    let mut poll = world.http();
    let cursor = serde_json::from_str::<Value>(&world.get("/poll?topics=a", &victim).1).unwrap();
    let bearer = format!("Authorization: Bearer {victim}");
    poll.ask(&format!("/poll?topics=a&cursor={}", cursor["cursor"].as_str().unwrap()), &[&bearer]);
    wait_for("a poll that waits", || metric(world.server.addresses()[0], "polls_waiting") == 1.0);
    // Nobody but an operator.
    assert_eq!(world.post("/revoke", &victim, r#"{"sub":"u2"}"#).0, 403);
    let (status, text) = world.post("/revoke", &admin, r#"{"sub":"u1"}"#);
    assert_eq!(status, 200, "{text}");
    for client in &mut victims {
        let error = client.json();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("revoked")), "{error}");
        assert_eq!(client.closed().0, 4001);
    }
    assert_eq!(poll.answer().status, 401);
    let (mut again, _) = world.open("/ws", &victim);
    assert_eq!(again.json()["code"], "unauthorized");
    assert_eq!(world.get("/poll?topics=a", &victim).0, 401);
    // By the token's own id.
    assert_eq!(world.post("/revoke", &admin, r#"{"jti":"t3"}"#).0, 200);
    assert_eq!(third.closed().0, 4001);
    world.publish("a", 1);
    assert_eq!(stays.json()["data"], 1);
    for (bad, said) in [("{}", "sub or jti"), (r#"{"sub":"a","jti":"b"}"#, "both"), ("[", "expected")] {
        let (status, text) = world.post("/revoke", &admin, bad);
        assert!(status == 400 && text.contains(said), "{status} {text}");
    }
    // It is kept.
    let file = std::fs::read_to_string(world.file("revoked")).unwrap();
    assert!(file.contains("\"sub\":\"u1\"") && file.contains("\"jti\":\"t3\""), "{file}");
}

#[test]
fn of_a_holder_with_too_many_connections_the_oldest_is_replaced() {
    let world = World::new(|config| config.workers = Some(2));
    let mine = token("u1", json!({ "sub": ["a"], "conns": 2 }));
    let (mut first, _) = world.open("/ws?topics=a", &mine);
    let (mut second, _) = world.open("/ws?topics=a", &mine);
    let (mut third, _) = world.open("/ws?topics=a", &mine);
    assert_eq!(first.json()["type"], "ack");
    assert_eq!(first.json()["code"], "replaced");
    assert_eq!(first.closed().0, 4002);
    // Streams count, and another subject has its own.
    let bearer = format!("Authorization: Bearer {mine}");
    let mut stream = tcp(world.server.addresses()[0]);
    write!(stream, "GET /sse?topics=a HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n\r\n").unwrap();
    until(&mut stream, "\"code\":\"current\"}");
    assert_eq!(second.closed().0, 4002);
    let (mut other, _) = world.open("/ws?topics=a", &token("u2", json!({ "sub": ["a"], "conns": 1 })));
    assert_eq!((third.json()["type"].clone(), other.json()["type"].clone()), (json!("ack"), json!("ack")));
    world.publish("a", 1);
    assert_eq!((third.json()["data"].clone(), other.json()["data"].clone()), (json!(1), json!(1)));
    // Whoever leaves makes room: nobody is replaced for the next.
    third.socket.close(None).unwrap();
    third.closed();
    let (mut next, _) = world.open("/ws?topics=a", &mine);
    assert_eq!(next.json()["type"], "ack");
    world.publish("a", 2);
    until(&mut stream, "\"data\":2}");
    assert_eq!(world.lost("replaced"), 2.0);
}

#[test]
fn signatures_of_one_address_are_bounded_and_known_tokens_are_not() {
    let world = World::new(|config| config.max_tokens_per_ip = "1/s".parse().unwrap());
    let known = token("u1", sees(&["a"]));
    assert_eq!(world.get("/topics/a", &known).0, 404);
    let wrong = |n: usize| forged(&token(&format!("x{n}"), sees(&["a"])));
    let refused = (0..200).filter(|n| world.get("/poll?topics=a", &wrong(*n)).0 == 429).count();
    assert!(refused > 100, "{refused}");
    let refused = (0..200).filter(|n| world.get("/topics/a", &wrong(500 + *n)).0 == 429).count();
    assert!(refused > 100, "{refused}");
    // One that was found genuine before costs nothing, and is taken.
    let (mut client, _) = world.open("/ws?topics=a", &known);
    assert_eq!(client.json()["type"], "ack");
    assert_eq!(client.ask(&format!(r#"{{"op":"auth","token":"{}"}}"#, wrong(1000)))["code"], "rate_limited");
    assert_eq!(client.closed().0, 4003);
    let limited = metric(world.server.addresses()[0], "refusals_total{reason=\"tokens_limited\"}");
    assert!(limited > 200.0, "{limited}");
}

#[test]
fn whoever_shows_nothing_has_what_is_named_for_everybody() {
    let world = World::new(|config| config.anonymous_subscribe = vec!["free.>".into()]);
    let mut client = Client::hello(&world.server, "/ws");
    assert_eq!(client.ask(r#"{"op":"sub","topics":["free.a"]}"#)["type"], "ack");
    assert_eq!(client.ask(r#"{"op":"sub","topics":["paid.a"]}"#)["code"], "forbidden");
    assert_eq!(client.ask(r#"{"op":"pub","topic":"free.a","data":1}"#)["code"], "forbidden");
    // A token takes its place, and what only the others had is over.
    let ack = client.ask(&format!(r#"{{"op":"auth","id":1,"token":"{}"}}"#, token("u1", sees(&["paid.>"]))));
    assert_eq!(ack["holder"]["sub"], "u1");
    assert_eq!(client.json()["topic"], "free.a");
    assert_eq!(client.ask(r#"{"op":"sub","topics":["paid.a"]}"#)["type"], "ack");
}

#[test]
fn tokens_of_one_connection_are_bounded_and_those_of_others_at_its_address_are_not() {
    let world = World::new(|config| config.max_auths = "1/s".parse().unwrap());
    let fresh = |n: usize| token_with("u1", sees(&["a"]), json!({ "jti": format!("t{n}") }));
    let (mut client, _) = world.open("/ws", &fresh(0));
    let auth = |token: &str| format!(r#"{{"op":"auth","token":"{token}"}}"#);
    // What was seen before costs nothing.
    for _ in 0..20 {
        assert_eq!(client.ask(&auth(&fresh(0)))["type"], "ack");
    }
    let told: Vec<Value> =
        (1..=20).map(|n| client.ask(&auth(&fresh(n)))).take_while(|told| told["type"] == "ack").collect();
    assert!((1..20).contains(&told.len()), "{told:?}");
    assert_eq!(client.closed().0, 4003);
    let (mut other, _) = world.open("/ws", &fresh(100));
    assert_eq!(other.ask(&auth(&fresh(101)))["type"], "ack");
    // Requests of many clients may come on one connection.
    let mut http = world.http();
    for n in 200..220 {
        http.ask("/topics", &[&format!("Authorization: Bearer {}", fresh(n))]);
        assert_eq!(http.answer().status, 200);
    }
    assert!(metric(world.server.addresses()[0], "refusals_total{reason=\"tokens_limited\"}") >= 1.0);
}

#[test]
fn who_may_have_fewer_connections_than_there_are_loses_the_oldest_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let roles = dir.path().join("rights.toml");
    let role = |conns: u32| std::fs::write(&roles, format!("[roles.pro]\nsub = ['a']\nconns = {conns}\n")).unwrap();
    role(3);
    let mut kept = Config::default();
    let mut world = World::new(|config| {
        config.rights = Some(roles.clone());
        kept = config.clone();
    });
    let mine = token("u1", json!({ "role": "pro" }));
    let mut clients: Vec<Client> = (0..3).map(|_| world.open("/ws?topics=a", &mine).0).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.json()["type"], "ack"));
    role(1);
    world.server.reload(&kept).unwrap();
    assert_eq!((clients[0].closed().0, clients[1].closed().0), (4002, 4002));
    world.publish("a", 1);
    // A machine that is slow has heartbeats come before.
    let told = std::iter::repeat_with(|| clients[2].json()).find(|told| told["type"] != "heartbeat");
    assert_eq!(told.unwrap()["data"], 1);
}

#[test]
fn where_connections_are_bounded_for_the_first_time_it_is_the_oldest_that_end() {
    let dir = tempfile::tempdir().unwrap();
    let roles = dir.path().join("rights.toml");
    let role = |more: &str| std::fs::write(&roles, format!("[roles.pro]\nsub = ['a']\n{more}")).unwrap();
    role("");
    let mut kept = Config::default();
    let mut world = World::new(|config| {
        config.rights = Some(roles.clone());
        kept = config.clone();
    });
    let mine = token("u1", json!({ "role": "pro" }));
    let mut clients: Vec<Client> = (0..3).map(|_| world.open("/ws?topics=a", &mine).0).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.json()["type"], "ack"));
    role("conns = 1\n");
    world.server.reload(&kept).unwrap();
    assert_eq!((clients[0].closed().0, clients[1].closed().0), (4002, 4002));
    world.publish("a", 1);
    // A machine that is slow has heartbeats come before.
    let told = std::iter::repeat_with(|| clients[2].json()).find(|told| told["type"] != "heartbeat");
    assert_eq!(told.unwrap()["data"], 1);
}
