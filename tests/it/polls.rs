//! Long polling, as a client meets it that can do nothing else.

use std::collections::BTreeMap;

use bytesize::ByteSize;
use serde_json::{Value, json};
use stentor::{Payload, server::Server};

use crate::{
    client::{Client, exchange, serve, tcp},
    cursors::{Feed, Known, cuts},
    http::{Answer, Http},
    process::{metric, wait_for},
    skip::skip,
};

fn publish(server: &Server, topic: &str, value: &Value) -> u64 {
    server.publisher().publish(topic, Payload::Json(value.to_string().as_bytes())).unwrap().seq
}

fn connect(server: &Server) -> Http {
    Http::connect(server.addresses()[0])
}

/// The cursor and the messages of an answer.
fn told(answer: &Answer) -> (String, Vec<Value>) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    let cursor = json["cursor"].as_str().unwrap().to_owned();
    assert!(cursor.len() <= 32 && cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    (cursor, json["messages"].as_array().unwrap().clone())
}

fn is_waiting(server: &Server, polls: f64) {
    let at = server.addresses()[0];
    wait_for("polls that wait", || metric(at, "polls_waiting") == polls);
}

#[test]
fn a_poll_begins_with_last_values_and_the_next_ones_go_on_exactly_there() {
    let server = serve(|_| {});
    (1..=3).for_each(|n| {
        publish(&server, "t.a", &json!(n));
    });
    publish(&server, "t.b", &json!("b"));
    publish(&server, "other", &json!(0));
    let mut http = connect(&server);
    let answer = http.get("/poll?topics=t.*");
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    let (cursor, messages) = told(&answer);
    assert_eq!(messages.len(), 3);
    assert_eq!(
        (&messages[0]["type"], &messages[0]["topic"], &messages[0]["data"]),
        (&json!("snapshot"), &json!("t.a"), &json!(3))
    );
    assert_eq!((&messages[1]["type"], &messages[1]["topic"]), (&json!("snapshot"), &json!("t.b")));
    assert_eq!(messages[2], json!({ "type": "status", "code": "current" }));
    // What comes before the next poll, of topics that are new, too.
    publish(&server, "t.a", &json!(4));
    publish(&server, "other", &json!(1));
    publish(&server, "t.c", &json!("c"));
    publish(&server, "t.a", &json!(5));
    let (next, messages) = told(&http.get(&format!("/poll?topics=t.*&cursor={cursor}")));
    let found: Vec<_> =
        messages.iter().map(|it| (it["type"].as_str(), it["topic"].as_str(), it["seq"].as_u64())).collect();
    let update = |topic, seq| (Some("update"), Some(topic), Some(seq));
    assert_eq!(found, [update("t.a", 4), update("t.c", 1), update("t.a", 5)]);
    assert!(messages[1]["epoch"].is_string(), "a topic's first says in which epoch it begins");
    // Nothing has come since; from the cursor before, it is all there once more.
    let (same, messages) = told(&http.get(&format!("/poll?topics=t.*&cursor={next}&wait=0")));
    assert_eq!(messages, [] as [Value; 0]);
    assert_eq!(told(&http.get(&format!("/poll?topics=t.*&cursor={cursor}"))).1.len(), 3);
    // By other names, from the same place.
    assert_eq!(told(&http.get(&format!("/poll?topics=t.c&cursor={cursor}"))).1.len(), 1);
    assert_eq!(told(&http.get(&format!("/poll?topics=t.*&cursor={same}&wait=0"))).1.len(), 0);
    assert_eq!(http.get("/healthz").text(), "ok\n", "the connection is as any other");
    // Without last values.
    let (_, messages) = told(&http.get("/poll?topics=t.*&snapshot=0"));
    assert_eq!(messages, [json!({ "type": "status", "code": "current" })]);
}

#[test]
fn a_poll_waits_until_something_comes_and_costs_none_of_the_places_for_plain_http() {
    let server = serve(|config| config.max_http_connections = 2);
    publish(&server, "q.a", &json!(1));
    let (cursor, _) = told(&connect(&server).get("/poll?topics=q.*"));
    let mut polls: Vec<Http> = (0..40).map(|_| connect(&server)).collect();
    polls.iter_mut().for_each(|http| http.ask(&format!("/poll?topics=q.*&cursor={cursor}"), &[]));
    is_waiting(&server, 40.0);
    publish(&server, "t", &json!("for nobody"));
    assert_eq!(connect(&server).get("/healthz").status, 200);
    is_waiting(&server, 40.0);
    publish(&server, "q.b", &json!(2));
    let answers: Vec<_> = polls.iter_mut().map(|http| told(&http.answer())).collect();
    for (next, messages) in &answers {
        assert_eq!(messages.len(), 1);
        assert_eq!((&messages[0]["topic"], &messages[0]["data"]), (&json!("q.b"), &json!(2)));
        assert_ne!(*next, cursor);
    }
    is_waiting(&server, 0.0);
    // The next ones come on the same connections.
    for (http, (next, _)) in polls.iter_mut().zip(&answers) {
        http.ask(&format!("/poll?topics=q.*&cursor={next}"), &[]);
    }
    is_waiting(&server, 40.0);
    publish(&server, "q.a", &json!(3));
    polls.iter_mut().for_each(|http| assert_eq!(told(&http.answer()).1[0]["data"], 3));
}

#[test]
fn a_poll_for_which_nothing_comes_is_answered_when_its_time_is_up() {
    let server = serve(|_| {});
    publish(&server, "a", &json!(1));
    let mut http = connect(&server);
    let (mut cursor, _) = told(&http.get("/poll?topics=a"));
    for _ in 0..2 {
        let (next, messages) = told(&http.get(&format!("/poll?topics=a&cursor={cursor}&wait=1")));
        assert_eq!(messages, [] as [Value; 0]);
        cursor = next;
        publish(&server, "other", &json!(0));
    }
    publish(&server, "a", &json!(2));
    assert_eq!(told(&http.get(&format!("/poll?topics=a&cursor={cursor}&wait=1"))).1[0]["data"], 2);
}

#[test]
fn a_poller_that_is_cut_two_hundred_times_has_exactly_the_sequence_of_each_topic() {
    let server = serve(|_| {});
    let topics: Vec<String> = (0..30).map(|n| format!("t.{}.{n}", n % 3)).collect();
    let names = "t.0.*,t.1.>,t.2.2,t.2.5,none.*";
    let wanted =
        |topic: &str| topic.starts_with("t.0.") || topic.starts_with("t.1.") || matches!(topic, "t.2.2" | "t.2.5");
    let mut random = fastrand::Rng::with_seed(7);
    let (mut cursor, mut seen) = (None::<String>, BTreeMap::<String, u64>::new());
    let mut http = connect(&server);
    for round in 0..400 {
        for _ in 0..random.usize(..40) {
            publish(&server, &topics[random.usize(..30)], &json!(round));
        }
        let from = cursor.as_ref().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        http.ask(&format!("/poll?topics={names}&wait=0{from}"), &[]);
        if round % 2 == 1 {
            // Cut, before the answer is there or when it is: what it says is lost.
            if random.bool() {
                http.head();
            }
            http = connect(&server);
            continue;
        }
        let (next, messages) = told(&http.answer());
        for message in &messages {
            let kind = message["type"].as_str().unwrap();
            if kind == "status" {
                continue;
            }
            let (topic, seq) = (message["topic"].as_str().unwrap(), message["seq"].as_u64().unwrap());
            let last = seen.entry(topic.to_owned()).or_default();
            assert!(
                wanted(topic) && (kind == "snapshot" && round == 0 || kind == "update" && seq == *last + 1),
                "{message} after {last}"
            );
            *last = seq;
        }
        cursor = Some(next);
    }
    http.ask(&format!("/poll?topics={names}&wait=0&cursor={}", cursor.unwrap()), &[]);
    for message in told(&http.answer()).1 {
        *seen.get_mut(message["topic"].as_str().unwrap()).unwrap() += 1;
    }
    for topic in topics.iter().filter(|topic| wanted(topic)) {
        let last = connect(&server).get(&format!("/topics/{topic}")).json()["seq"].as_u64().unwrap();
        assert_eq!(seen[topic], last, "{topic}");
    }
}

#[test]
fn a_cursor_that_is_good_no_more_resets_each_topic_and_gives_their_values() {
    let server = serve(|config| {
        config.retain = ByteSize::kib(512);
        config.segment = ByteSize::kib(64);
    });
    publish(&server, "a", &json!(1));
    publish(&server, "b", &json!(1));
    let mut http = connect(&server);
    let (old, _) = told(&http.get("/poll?topics=a,b"));
    let other = serve(|_| {});
    (0..10).for_each(|_| {
        publish(&other, "a", &json!(1));
    });
    let (foreign, _) = told(&connect(&other).get("/poll?topics=a"));
    (0..10_000).for_each(|n| {
        publish(&server, "a", &json!(n));
    });
    let garbled = format!("{}A", &old[..old.len() - 1]);
    for cursor in [&*old, &foreign, &garbled, "k3:7", "x", "%20"] {
        let (next, messages) = told(&http.get(&format!("/poll?topics=a,b&cursor={cursor}")));
        let found: Vec<_> = messages.iter().map(|it| (it["type"].as_str().unwrap(), it["topic"].as_str())).collect();
        let expected = [
            ("reset", Some("a")),
            ("snapshot", Some("a")),
            ("reset", Some("b")),
            ("snapshot", Some("b")),
            ("status", None),
        ];
        assert_eq!(found, expected, "{cursor}");
        assert_eq!((&messages[0]["why"], &messages[0]["seq"]), (&json!("cursor"), &json!(10_001)));
        assert_eq!((&messages[1]["data"], &messages[4]["code"]), (&json!(9_999), &json!("current")));
        // And from there on all is well.
        assert_eq!(told(&http.get(&format!("/poll?topics=a,b&cursor={next}&wait=0"))).1.len(), 0);
    }
}

#[test]
fn a_waiting_poll_whose_place_is_gone_has_missed_nothing_that_it_wants() {
    let server = serve(|config| {
        config.retain = ByteSize::kib(512);
        config.segment = ByteSize::kib(64);
    });
    publish(&server, "quiet", &json!(1));
    let mut http = connect(&server);
    let (cursor, _) = told(&http.get("/poll?topics=quiet"));
    http.ask(&format!("/poll?topics=quiet&cursor={cursor}&wait=60"), &[]);
    is_waiting(&server, 1.0);
    // The tape rolls over its cursor while it waits, and not over the worker.
    let mut client = Client::hello(&server, "/ws?topics=busy");
    client.json();
    for _ in 0..20 {
        (0..500).for_each(|n| {
            publish(&server, "busy", &json!(n));
        });
        (0..500).for_each(|_| assert_eq!(client.json()["topic"], "busy"));
    }
    publish(&server, "quiet", &json!(2));
    let (_, messages) = told(&http.answer());
    assert_eq!((messages.len(), &messages[0]["type"], &messages[0]["seq"]), (1, &json!("update"), &json!(2)));
}

#[test]
fn with_newest_values_a_poll_tells_each_topic_once_and_what_was_left_out() {
    let server = serve(|_| {});
    publish(&server, "q.a", &json!(1));
    let mut http = connect(&server);
    let (cursor, _) = told(&http.get("/poll?topics=q.*&mode=latest"));
    for n in 2..=9 {
        publish(&server, "q.a", &json!(n));
    }
    publish(&server, "q.b", &json!("b"));
    publish(&server, "q.a", &json!(10));
    let (cursor, messages) = told(&http.get(&format!("/poll?topics=q.*&mode=latest&cursor={cursor}")));
    assert_eq!(messages.len(), 3);
    assert_eq!((&messages[0]["topic"], &messages[0]["data"]), (&json!("q.b"), &json!("b")));
    assert_eq!(messages[1], json!({ "type": "skip", "topic": "q.a", "from": 2, "to": 9, "why": "slow" }));
    assert_eq!((&messages[2]["type"], &messages[2]["seq"]), (&json!("update"), &json!(10)));
    publish(&server, "q.a", &json!(11));
    let (_, messages) = told(&http.get(&format!("/poll?topics=q.*&mode=latest&cursor={cursor}")));
    assert_eq!((messages.len(), &messages[0]["seq"]), (1, &json!(11)), "nothing was left out");
}

#[test]
fn an_answer_is_bounded_in_bytes_and_the_cursor_stands_in_the_middle() {
    let server = serve(|_| {});
    let mut http = connect(&server);
    let (mut cursor, _) = told(&http.get("/poll?topics=a"));
    let pad = "x".repeat(10_000);
    (0..300).for_each(|_| {
        publish(&server, "a", &json!(pad));
    });
    let (mut seen, mut answers) = (0, 0);
    while seen < 300 {
        let answer = http.get(&format!("/poll?topics=a&cursor={cursor}"));
        assert!(answer.body.len() < 1024 * 1024 + 30_000, "{}", answer.body.len());
        let (next, messages) = told(&answer);
        for message in &messages {
            seen += 1;
            assert_eq!(message["seq"], seen);
        }
        cursor = next;
        answers += 1;
    }
    assert_eq!(answers, 3);
}

#[test]
fn gzip_is_for_a_poll_that_takes_it() {
    let server = serve(|_| {});
    (0..300).for_each(|n| {
        publish(&server, &format!("q.{n}"), &json!({ "bid": 1.5, "ask": 1.6 }));
    });
    let mut http = connect(&server);
    let plain = http.get("/poll?topics=q.*");
    http.ask("/poll?topics=q.*", &["Accept-Encoding: gzip, deflate, br"]);
    let packed = http.answer();
    assert_eq!(packed.header("Content-Encoding"), Some("gzip"));
    assert!(packed.body.len() * 4 < plain.body.len());
    assert_eq!(told(&packed).1, told(&plain).1);
    let (cursor, _) = told(&packed);
    http.ask(&format!("/poll?topics=q.*&wait=0&cursor={cursor}"), &["Accept-Encoding: gzip"]);
    assert_eq!(http.answer().header("Content-Encoding"), None);
}

#[test]
fn what_is_wrong_with_a_poll_is_said() {
    let server = serve(|config| {
        config.publish_token = Some("right".parse().unwrap());
        config.max_subscriptions = 2;
    });
    let at = server.addresses()[0];
    for (path, status, named) in [
        ("/poll", 400, "?topics="),
        ("/poll?topics=", 400, "topic"),
        ("/poll?topics=a..b", 400, "a..b"),
        ("/poll?topics=a&mode=fast", 400, "mode"),
        ("/poll?topics=a&mode=latest&rate=4", 400, "rate"),
        ("/poll?topics=a&wait=soon", 400, "wait"),
        ("/poll?topics=a&wait=-1", 400, "wait"),
        ("/poll?topics=a&cursor=x&cursor=y", 400, "cursor is given more than once"),
        ("/poll?topics=a,b,c", 400, "2"),
        ("/poll?topics=a&token=wrong", 401, "token"),
    ] {
        let answer = Http::connect(at).get(path);
        assert!(
            answer.status == status && answer.text().contains(named),
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
    }
    let answer = exchange(at, b"POST /poll?topics=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), "{answer}");
    let options = exchange(at, b"OPTIONS /poll HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(options.starts_with("HTTP/1.1 204 ") && options.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), "{options}");
    let mut http = Http::connect(at);
    http.write(b"HEAD /poll/?topics=a HTTP/1.1\r\nHost: localhost\r\nOrigin: https://a.example\r\n\r\n");
    let head = http.head();
    assert_eq!((head.status, head.header("Access-Control-Allow-Origin")), (200, Some("https://a.example")));
    assert!(head.header("Content-Length").is_some());
    assert_eq!(http.get("/healthz").status, 200);
}

#[test]
fn a_poller_that_goes_away_leaves_nothing_and_one_that_has_said_all_is_answered_at_once() {
    let server = serve(|_| {});
    let at = server.addresses()[0];
    let (cursor, _) = told(&connect(&server).get("/poll?topics=a.*"));
    let mut gone = connect(&server);
    gone.ask(&format!("/poll?topics=a.*,b&cursor={cursor}"), &[]);
    is_waiting(&server, 1.0);
    assert_eq!(metric(at, "subscriptions"), 2.0);
    // Half of it is gone, and the other half may be waiting.
    gone.end();
    let (_, messages) = told(&gone.answer());
    assert_eq!(messages.len(), 0);
    assert!(gone.is_ended());
    is_waiting(&server, 0.0);
    wait_for("its names to go", || metric(at, "subscriptions") == 0.0);
    let mut gone = connect(&server);
    gone.ask(&format!("/poll?topics=a.*,b&cursor={cursor}"), &[]);
    is_waiting(&server, 1.0);
    drop(gone);
    is_waiting(&server, 0.0);
    wait_for("its names to go", || metric(at, "subscriptions") == 0.0);
}

#[test]
fn a_server_that_stops_answers_those_that_wait() {
    let server = serve(|_| {});
    let (cursor, _) = told(&connect(&server).get("/poll?topics=a"));
    let mut http = connect(&server);
    http.ask(&format!("/poll?topics=a&cursor={cursor}&wait=60"), &[]);
    is_waiting(&server, 1.0);
    let stopping = std::thread::spawn(move || server.stop());
    let answer = http.answer();
    assert_eq!(answer.header("Connection"), Some("close"));
    assert_eq!(told(&answer).1, [json!({"type":"status","code":"draining","retry_ms":[0,8000]})]);
    assert!(http.is_ended());
    stopping.join().unwrap();
}

#[test]
fn polls_that_a_proxy_passes_on_count_for_their_clients() {
    let server = serve(|config| {
        config.trusted_proxy = vec!["127.0.0.1".parse().unwrap()];
        config.max_connections_per_ip = Some(1);
    });
    let (cursor, _) = told(&connect(&server).get("/poll?topics=a"));
    let ask = |client: &str| {
        let mut http = connect(&server);
        http.ask(&format!("/poll?topics=a&cursor={cursor}"), &[&format!("X-Forwarded-For: {client}")]);
        http
    };
    let mut first = ask("192.0.2.1");
    is_waiting(&server, 1.0);
    let mut second = ask("192.0.2.2");
    is_waiting(&server, 2.0);
    assert_eq!(ask("192.0.2.1").answer().status, 503);
    publish(&server, "a", &json!(1));
    for http in [&mut first, &mut second] {
        let answer = http.answer();
        assert_eq!(answer.header("Connection"), Some("close"), "the next may be another client's");
        assert_eq!(told(&answer).1.len(), 1);
        assert!(http.is_ended());
    }
}

/// nginx in front of a server, which collects answers before it passes them on.
struct Nginx {
    child: std::process::Child,
    folder: std::path::PathBuf,
    address: std::net::SocketAddr,
}

impl Nginx {
    /// None where there is none to be started.
    fn start(server: std::net::SocketAddr) -> Option<Nginx> {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = std::env::temp_dir().join(format!("stentor-polls-{}-{}", std::process::id(), address.port()));
        std::fs::create_dir_all(&folder).unwrap();
        let at = folder.display();
        let config = format!(
            "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error;\n\
             events {{ worker_connections 200; }}\n\
             http {{ access_log off; client_body_temp_path {at}/a; proxy_temp_path {at}/b; fastcgi_temp_path {at}/c;\n\
               uwsgi_temp_path {at}/d; scgi_temp_path {at}/e;\n\
               upstream stentor {{ server {server}; keepalive 4; }}\n\
               server {{ listen {address}; location / {{\n\
                 proxy_pass http://stentor; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering on;\n\
                 proxy_set_header Host localhost; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }} }}\n"
        );
        std::fs::write(folder.join("conf"), config).unwrap();
        let mut command = std::process::Command::new("nginx");
        let child =
            command.arg("-p").arg(&folder).arg("-e").arg(folder.join("error")).arg("-c").arg(folder.join("conf"));
        let child = child.spawn().ok()?;
        let nginx = Nginx { child, folder, address };
        wait_for("nginx", || std::net::TcpStream::connect(address).is_ok());
        drop(tcp(address));
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It ends its own workers.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn polling_works_behind_a_proxy_that_collects_answers() {
    let server = serve(|config| config.trusted_proxy = vec!["127.0.0.1".parse().unwrap()]);
    let Some(nginx) = Nginx::start(server.addresses()[0]) else {
        return skip("nginx", "polling behind nginx: it is not installed");
    };
    let (mut cursor, mut seen) = (String::new(), 0);
    let mut http = Http::connect(nginx.address);
    for round in 0..200 {
        if round % 10 == 9 {
            http = Http::connect(nginx.address);
        }
        let waits = round % 3 == 0 && round > 0;
        if !waits {
            (0..round % 5 + 1).for_each(|_| {
                publish(&server, "t.a", &json!(round));
            });
        }
        http.ask(&format!("/poll?topics=t.*&cursor={cursor}"), &[]);
        if waits {
            is_waiting(&server, 1.0);
            publish(&server, "t.a", &json!(round));
        }
        let (next, messages) = told(&http.answer());
        for message in messages.iter().filter(|message| message["type"] != "status") {
            seen += 1;
            assert_eq!(message["seq"], seen, "round {round}: {message}");
        }
        cursor = next;
    }
    assert!(seen > 200);
}

/// Polls everything from an address, and loses every second answer, before it comes or when it does: it ends with every number of every topic.
fn is_cut_again_and_again(server: &Server, address: std::net::SocketAddr, seed: u64) {
    let mut feed = Feed::new(server, seed);
    let (mut known, mut place) = (Known::default(), String::new());
    let mut http = Http::connect(address);
    let (mut lost, mut empty) = (0, 0);
    while lost < cuts() || empty == 0 {
        let is_over = lost == cuts();
        let missed = if is_over { 0 } else { feed.random.usize(..400) };
        feed.publish(missed);
        http.ask(&format!("/poll?topics=%3E&wait=0&cursor={place}"), &[]);
        if !is_over && feed.random.bool() {
            if feed.random.bool() {
                http.head();
            }
            http = Http::connect(address);
            lost += 1;
            continue;
        }
        let (next, messages) = told(&http.answer());
        empty += usize::from(is_over && messages.is_empty());
        messages.iter().filter(|message| message["type"] != "status").for_each(|message| known.take(message, false));
        place = next;
    }
    assert!(known.has_all(&feed.numbers));
}

#[test]
fn a_poller_of_everything_that_is_cut_again_and_again_has_every_number_of_every_topic_once() {
    let server = serve(|_| {});
    is_cut_again_and_again(&server, server.addresses()[0], 3);
}

#[test]
fn a_poller_behind_a_proxy_that_collects_answers_is_cut_again_and_again_and_has_every_number_once() {
    let server = serve(|config| config.trusted_proxy = vec!["127.0.0.1".parse().unwrap()]);
    let Some(nginx) = Nginx::start(server.addresses()[0]) else {
        return skip("nginx", "polling behind nginx: it is not installed");
    };
    is_cut_again_and_again(&server, nginx.address, 4);
}

#[test]
fn what_is_left_out_from_a_topics_beginning_on_says_in_which_epoch_it_began() {
    let server = serve(|_| {});
    let mut http = connect(&server);
    let (cursor, _) = told(&http.get("/poll?topics=q.*&mode=latest"));
    (1..=3).for_each(|n| {
        publish(&server, "q.new", &json!(n));
    });
    publish(&server, "q.one", &json!(1));
    let (cursor, messages) = told(&http.get(&format!("/poll?topics=q.*&mode=latest&cursor={cursor}")));
    let epoch = http.get("/topics/q.new").json()["epoch"].clone();
    let skip = json!({ "type": "skip", "topic": "q.new", "epoch": epoch, "from": 1, "to": 2, "why": "slow" });
    assert_eq!(messages[0], skip);
    assert_eq!((&messages[1]["seq"], &messages[1]["epoch"]), (&json!(3), &Value::Null));
    assert_eq!((&messages[2]["seq"], &messages[2]["epoch"]), (&json!(1), &epoch), "the first says it by itself");
    // Later ones need not say it again.
    (4..=6).for_each(|n| {
        publish(&server, "q.new", &json!(n));
    });
    let (_, messages) = told(&http.get(&format!("/poll?topics=q.*&mode=latest&cursor={cursor}")));
    assert_eq!(messages[0], json!({ "type": "skip", "topic": "q.new", "from": 4, "to": 5, "why": "slow" }));
}
