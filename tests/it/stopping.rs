//! How the server goes away.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use rustix::process::Signal;
use stentor::Payload;

use crate::{
    client::{Client, close_code, serve, tcp, until, upgraded},
    process::{Running, metric, wait_for},
};

#[test]
fn clients_are_told_sent_everything_and_closed_with_1001() {
    let server = serve(|_| {});
    let mut json = Client::hello(&server, "/ws?topics=a");
    json.json();
    let mut raw = Client::connect(&server, "/raw/a");
    raw.send("ready");
    assert_eq!(raw.text(), "ready");
    assert_eq!(json.json()["seq"], 1);
    for n in 0..1000 {
        server.publisher().publish("a", Payload::Json(n.to_string().as_bytes())).unwrap();
    }
    let address = server.addresses()[0];
    let stopper = std::thread::spawn(move || server.stop());
    let mut updates = 0;
    let mut told = false;
    let code = loop {
        match json.message() {
            tungstenite::Message::Text(text) => {
                let message: serde_json::Value = serde_json::from_str(&text).unwrap();
                match message["type"].as_str().unwrap() {
                    "update" => updates += 1,
                    "status" => {
                        told = true;
                        assert_eq!(message["code"], "draining");
                        assert!(message["retry_ms"][1].as_u64().unwrap() > 0);
                    }
                    other => panic!("{other}"),
                }
            }
            tungstenite::Message::Close(frame) => break u16::from(frame.unwrap().code),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((updates, told, code), (1000, true, 1001));
    for _ in 0..1000 {
        raw.text();
    }
    assert_eq!(raw.closed().0, 1001);
    drop((json, raw));
    stopper.join().unwrap();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_stream_of_events_is_told_when_to_come_back() {
    let server = serve(|_| {});
    let address = server.addresses()[0];
    let mut events = tcp(address);
    events.write_all(b"GET /sse?topics=a HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    wait_for("the stream", || metric(address, "event_streams") == 1.0);
    let stopper = std::thread::spawn(move || server.stop());
    let mut said = String::new();
    events.read_to_string(&mut said).unwrap();
    stopper.join().unwrap();
    let event = said.split("\n\n").find(|event| event.contains("draining")).unwrap_or_else(|| panic!("{said}"));
    let field =
        |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{event}"));
    let data: serde_json::Value = serde_json::from_str(field("data: ")).unwrap();
    let window = &data["retry_ms"];
    let retry: u64 = field("retry: ").parse().unwrap();
    assert!((window[0].as_u64().unwrap()..=window[1].as_u64().unwrap()).contains(&retry), "{event}");
}

#[test]
fn a_client_that_never_answers_does_not_hold_the_server_up_for_ever() {
    let running = Running::start(&["--drain-timeout", "300ms", "--close-timeout", "300ms"]);
    let mut silent = upgraded(running.at(), "/ws");
    let mut half = tcp(running.at());
    half.write_all(b"GET /ws HTTP/1.1\r\n").unwrap();
    running.until("connections_admitted", |count| count >= 2.0);
    running.signal(Signal::TERM);
    // Told, and sent the close frame that it doesn't answer.
    assert_eq!(close_code(&mut silent), 1001);
    let mut running = running;
    wait_for("its end", || running.child.try_wait().unwrap().is_some());
    let (code, log) = running.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("stopped"), "{log}");
    assert_eq!(half.read(&mut [0; 16]).unwrap_or(0), 0, "half a request is answered by nobody");
}

#[test]
fn nothing_is_acknowledged_any_more_once_subscribers_are_sent_away() {
    let server = serve(|_| {});
    let address = server.addresses()[0];
    let mut kept = tcp(address);
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(until(&mut kept, "ok\n").starts_with("HTTP/1.1 200 "));
    let mut feed = tcp(address);
    let line = "{\"topic\":\"b\",\"data\":1}\n";
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    let head = "POST /publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    feed.write_all(format!("{head}{chunk}").as_bytes()).unwrap();
    // Whoever doesn't take what is on the tape holds the end up.
    let silent = upgraded(address, "/raw/a");
    for _ in 0..300 {
        server.publisher().publish("a", Payload::Binary(&[7; 60_000])).unwrap();
    }
    let mut client = Client::hello(&server, "/ws?topics=b");
    client.json();
    client.json();
    let mut raw = Client::connect(&server, "/raw/c");
    let stopper = std::thread::spawn(move || server.stop());
    assert_eq!(client.json()["code"], "draining");
    let refused = client.ask(r#"{"op":"pub","id":7,"topic":"b","data":1}"#);
    assert_eq!((&refused["code"], &refused["id"]), (&"draining".into(), &7.into()), "{refused}");
    raw.send("1");
    assert_eq!(raw.closed().0, 1001);
    kept.write_all(b"POST /publish/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1").unwrap();
    let answer = until(&mut kept, "\n");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    feed.write_all(chunk.as_bytes()).unwrap();
    let answer = until(&mut feed, "before it.");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("1 publication went before it"), "{answer}");
    drop((silent, client, raw, kept, feed));
    stopper.join().unwrap();
}
