//! Phoenix's dialect, against a server that follows the guide "Writing a Channels Client" and takes nothing else.

mod common;

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::Sender,
    },
};

use common::{listen, run, split};
use serde_json::{json, value::RawValue};
use tungstenite::{
    Message, accept_hdr,
    handshake::server::{Request, Response},
};

const PHOENIX: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dialects/phoenix.toml");

/// `[join_reference, message_reference, topic_name, event_name, payload]`
type Said = (Option<String>, Option<String>, String, String, Box<RawValue>);

/// An application with the channel that the dialect's file names.
#[derive(Default)]
struct Endpoint {
    clients: AtomicUsize,
    heartbeats: AtomicUsize,
    /// The topic, who has joined it, and the way there.
    channels: Mutex<Vec<(String, usize, Sender<Message>)>>,
}

fn endpoint() -> (SocketAddr, Arc<Endpoint>) {
    let endpoint: Arc<Endpoint> = Arc::default();
    let own = Arc::clone(&endpoint);
    (listen(move |stream| own.client(stream)), endpoint)
}

impl Endpoint {
    #[allow(clippy::result_large_err)]
    fn client(&self, stream: TcpStream) {
        let hear = |request: &Request, response: Response| {
            assert_eq!(request.uri().to_string(), "/socket/websocket?vsn=2.0.0");
            Ok(response)
        };
        let Ok(socket) = accept_hdr(stream, hear) else { return };
        let (mut socket, out) = split(socket);
        let me = self.clients.fetch_add(1, Ordering::SeqCst);
        let mut joined: HashMap<String, Option<String>> = HashMap::new();
        while let Ok(Message::Text(text)) = socket.read() {
            let (join, reference, topic, event, payload): Said = serde_json::from_str(&text).unwrap();
            let reply = |status: &str| {
                let answer = json!([join, reference, topic, "phx_reply", {"status": status, "response": {}}]);
                drop(out.send(Message::text(answer.to_string())));
            };
            match (event.as_str(), joined.get(&topic)) {
                ("phx_join", None) if topic.starts_with("bench:") => {
                    assert!(join.is_some() && reference.is_some());
                    reply("ok");
                    self.channels.lock().unwrap().push((topic.clone(), me, out.clone()));
                    joined.insert(topic, join);
                }
                ("heartbeat", None) => {
                    assert_eq!((topic.as_str(), &join), ("phoenix", &None));
                    self.heartbeats.fetch_add(1, Ordering::SeqCst);
                    reply("ok");
                }
                // What bears the reference of another time at which it was joined is not heard.
                ("publish", Some(own)) if *own == join => self.broadcast_from(me, &topic, payload.get()),
                ("publish", Some(_)) => {}
                _ => reply("error"),
            }
        }
    }

    fn broadcast_from(&self, me: usize, topic: &str, payload: &str) {
        let message = Message::text(format!("[null,null,\"{topic}\",\"message\",{payload}]"));
        let channels = self.channels.lock().unwrap();
        let others = channels.iter().filter(|(name, client, _)| name == topic && *client != me);
        others.for_each(|(.., to)| drop(to.send(message.clone())));
    }
}

#[test]
fn channels_are_joined_by_those_who_listen_and_by_those_who_publish() {
    let (address, endpoint) = endpoint();
    let outcome = run(&format!(
        "fanout ws://{address} --dialect {PHOENIX} --subs 4 --topics 6 --topics-per-sub 3 --publishers 2 --rate 200/s --duration 1s \
         --warmup 200ms --heartbeat 200ms"
    ));
    outcome.assert_fine();
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * 2), "{}", outcome.out);
    assert!(endpoint.heartbeats.load(Ordering::SeqCst) >= 4);
}

#[test]
fn a_channel_that_may_not_be_joined_is_a_plain_sentence() {
    let (address, _) = endpoint();
    let outcome = run(&format!(
        "fanout ws://{address} --dialect {PHOENIX} --topic room:{{n}} --subs 2 --rate 50/s --timeout 300ms"
    ));
    assert_eq!(outcome.code, 4, "{}{}", outcome.out, outcome.err);
    assert!(outcome.err.contains("the subscription was not done within 300ms"), "{}", outcome.err);
}
