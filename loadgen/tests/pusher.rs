//! Pusher's dialect, against a server that follows "Pusher Channels Protocol" (version 7) and the "HTTP API reference", and takes nothing else.

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::Sender,
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use common::{listen, run, split};
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use serde_json::{Value, json};
use sha2::Sha256;
use tungstenite::{
    Message, accept_hdr,
    handshake::server::{Request, Response},
};

const PUSHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dialects/pusher.toml");

/// How old a request may be.
const AGE_MAX: Duration = Duration::from_secs(600);

/// The application that the dialect's file names.
#[derive(Default)]
struct App {
    channels: Mutex<Vec<(String, Sender<Message>)>>,
    pongs: AtomicUsize,
}

fn app() -> (SocketAddr, Arc<App>) {
    let app: Arc<App> = Arc::default();
    let own = Arc::clone(&app);
    (listen(move |stream| own.client(stream)), app)
}

impl App {
    fn client(&self, stream: TcpStream) {
        let mut first = [0; 1];
        match stream.peek(&mut first) {
            Ok(1) if first == *b"P" => drop(self.requests(stream)),
            Ok(1) => self.subscriber(stream),
            _ => {}
        }
    }

    #[allow(clippy::result_large_err)]
    fn subscriber(&self, stream: TcpStream) {
        let hear = |request: &Request, response: Response| {
            assert_eq!(request.uri().path(), "/app/app-key");
            assert!(request.uri().query().unwrap().contains("protocol=7"));
            Ok(response)
        };
        let Ok(socket) = accept_hdr(stream, hear) else { return };
        let (mut socket, out) = split(socket);
        let say = |message: Value| drop(out.send(Message::text(message.to_string())));
        say(json!({
            "event": "pusher:connection_established",
            "data": "{\"socket_id\":\"1.1\",\"activity_timeout\":120}"
        }));
        while let Ok(Message::Text(text)) = socket.read() {
            let said: Value = serde_json::from_str(&text).unwrap();
            match said["event"].as_str().unwrap() {
                "pusher:subscribe" => {
                    let channel = said["data"]["channel"].as_str().unwrap().to_owned();
                    say(json!({"event": "pusher_internal:subscription_succeeded", "channel": channel, "data": "{}"}));
                    drop(out.send(Message::text("{\"event\":\"pusher:ping\",\"data\":{}}")));
                    self.channels.lock().unwrap().push((channel, out.clone()));
                }
                "pusher:pong" => {
                    self.pongs.fetch_add(1, Ordering::SeqCst);
                }
                other => panic!("{other}"),
            }
        }
    }

    /// Requests, one after the other on one connection.
    fn requests(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let (mut line, mut length) = (String::new(), 0);
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let target = line.split(' ').nth(1).unwrap().to_owned();
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line)?;
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let answer = match authenticated(&target, &body) {
                Ok(()) => {
                    self.publish(&serde_json::from_slice(&body).unwrap());
                    "200 OK\r\nContent-Length: 2\r\n\r\n{}".to_owned()
                }
                Err(why) => format!("401 Unauthorized\r\nContent-Length: {}\r\n\r\n{why}", why.len()),
            };
            stream.write_all(format!("HTTP/1.1 {answer}").as_bytes())?;
        }
    }

    fn publish(&self, event: &Value) {
        let (channel, data) = (event["channel"].as_str().unwrap(), event["data"].as_str().unwrap());
        let message = json!({"event": event["name"], "channel": channel, "data": data}).to_string();
        let channels = self.channels.lock().unwrap();
        let listeners = channels.iter().filter(|(name, _)| name == channel);
        listeners.for_each(|(_, to)| drop(to.send(Message::text(message.clone()))));
    }
}

/// Whether a request comes from whoever knows the secret, as the section "Authentication" has it; if not, why.
fn authenticated(target: &str, body: &[u8]) -> Result<(), &'static str> {
    let (path, query) = target.split_once('?').ok_or("no query")?;
    if path != "/apps/app-id/events" {
        return Err("another path");
    }
    let mut parameters: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    parameters.sort_unstable();
    let value = |name: &str| parameters.iter().find(|(own, _)| *own == name).map_or("", |(_, value)| *value);
    let rest = parameters.iter().filter(|(name, _)| *name != "auth_signature");
    let signed = rest.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
    let mut mac = Hmac::<Sha256>::new_from_slice(b"app-secret").unwrap();
    mac.update(format!("POST\n{path}\n{signed}").as_bytes());
    let sent = Duration::from_secs(value("auth_timestamp").parse().map_err(|_| "no time")?);
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().abs_diff(sent);
    match () {
        () if value("auth_key") != "app-key" || value("auth_version") != "1.0" => Err("another application"),
        () if value("body_md5") != hex(&Md5::digest(body)) => Err("another body"),
        () if value("auth_signature") != hex(&mac.finalize().into_bytes()) => Err("another signature"),
        () if age > AGE_MAX => Err("another time"),
        () => Ok(()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const SHORT: &str = "--subs 6 --topics 3 --rate 200/s --duration 1s --warmup 200ms --drain 500ms";

#[test]
fn publications_are_signed_requests_and_the_servers_pings_are_answered() {
    let (address, app) = app();
    let outcome = run(&format!(
        "fanout ws://{address} --dialect {PUSHER} --publish-url http://{address} --publishers 2 --topics-per-sub 2 {SHORT}"
    ));
    outcome.assert_fine();
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * 4), "{}", outcome.out);
    assert_eq!(app.pongs.load(Ordering::SeqCst), 6 * 2);
}

#[test]
fn whoever_knows_another_secret_is_told_what_the_server_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.toml");
    let text = std::fs::read_to_string(PUSHER).unwrap().replace("secret = 'app-secret'", "secret = 'other'");
    std::fs::write(&path, text).unwrap();
    let (address, _) = app();
    let outcome =
        run(&format!("fanout ws://{address} --dialect {} --publish-url http://{address} {SHORT}", path.display()));
    assert_eq!(outcome.code, 1, "{}{}", outcome.out, outcome.err);
    assert!(outcome.out.contains("401 Unauthorized another signature"), "{}", outcome.out);
}

#[test]
fn without_an_address_for_requests_it_says_what_is_missing() {
    let outcome = common::program(&format!("fanout ws://127.0.0.1:1 --dialect {PUSHER} --rate 5/s"));
    assert_eq!(outcome.code, 2, "{}{}", outcome.out, outcome.err);
    assert!(outcome.err.contains("--publish-url http://"), "{}", outcome.err);
}
