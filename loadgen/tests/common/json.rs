//! An independent server of the JSON protocol, on tungstenite: subscriptions, snapshots, updates, publishing. It takes
//! a lock for everything, which is slow and hard to get wrong.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, accept};

/// What the server gets wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// Subscribers that come later get no snapshot.
    NoSnapshot,
    /// The snapshot is older than the first update's predecessor.
    StaleSnapshot,
    /// An update says it is of another topic.
    WrongTopic,
    /// The server's own numbering skips a number.
    SkippedSeq,
}

#[derive(Default)]
struct State {
    /// Number, last value, the value before.
    topics: HashMap<String, (u64, String, String)>,
    clients: HashMap<usize, (Vec<String>, Sender<String>)>,
    next: usize,
}

/// Starts a server; it lives as long as the test.
pub fn serve(flaw: Flaw) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state: Arc<Mutex<State>> = Arc::default();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = Arc::clone(&state);
            thread::spawn(move || client(stream, &state, flaw));
        }
    });
    address
}

fn client(stream: TcpStream, state: &Arc<Mutex<State>>, flaw: Flaw) {
    stream.set_nodelay(true).unwrap();
    let writer = stream.try_clone().unwrap();
    let Ok(mut socket) = accept(stream) else { return };
    let (to, from) = channel();
    thread::spawn(move || write(writer, from));
    let me = {
        let mut state = state.lock().unwrap();
        state.next += 1;
        state.next
    };
    while let Ok(message) = socket.read() {
        if let (true, Ok(text)) = (message.is_text(), message.to_text()) {
            command(&mut state.lock().unwrap(), me, &to, &serde_json::from_str(text).unwrap(), text, flaw);
        }
    }
    state.lock().unwrap().clients.remove(&me);
}

/// A second WebSocket on the same connection, for sending only.
fn write(stream: TcpStream, from: Receiver<String>) {
    let mut socket = WebSocket::from_raw_socket(stream, tungstenite::protocol::Role::Server, None);
    for text in from {
        if socket.send(Message::text(text)).is_err() {
            return;
        }
    }
}

fn command(state: &mut State, me: usize, to: &Sender<String>, command: &Value, text: &str, flaw: Flaw) {
    match command["op"].as_str().unwrap() {
        "sub" => {
            let names: Vec<String> = serde_json::from_value(command["topics"].clone()).unwrap();
            let topic = |name: &String| json!({"topic": name, "epoch": "e", "seq": state.topics.get(name).map_or(0, |topic| topic.0)});
            let topics: Vec<Value> = names.iter().map(topic).collect();
            let _ = to.send(json!({"type": "ack", "id": command["id"], "topics": topics}).to_string());
            for name in &names {
                if let Some((seq, last, before)) = state.topics.get(name) {
                    let value = if flaw == Flaw::StaleSnapshot && !before.is_empty() { before } else { last };
                    if flaw != Flaw::NoSnapshot {
                        let _ = to.send(format!(
                            r#"{{"type":"snapshot","topic":"{name}","epoch":"e","seq":{seq},"ts":1,"data":{value}}}"#
                        ));
                    }
                }
            }
            state.clients.insert(me, (names, to.clone()));
        }
        "unsub" => drop(state.clients.remove(&me)),
        "pub" => publish(state, command["topic"].as_str().unwrap(), data_of(text), flaw),
        other => panic!("unexpected {other}"),
    }
}

/// The bytes of `data`, as they came.
fn data_of(text: &str) -> String {
    let at = text.find("\"data\":").unwrap() + 7;
    text[at..text.len() - 1].to_owned()
}

fn publish(state: &mut State, name: &str, data: String, flaw: Flaw) {
    let topic = state.topics.entry(name.to_owned()).or_default();
    topic.0 += if flaw == Flaw::SkippedSeq && topic.0 == 150 { 2 } else { 1 };
    topic.2 = std::mem::replace(&mut topic.1, data);
    let shown = if flaw == Flaw::WrongTopic && topic.0 == 150 { "other" } else { name };
    let update = format!(r#"{{"type":"update","topic":"{shown}","seq":{},"ts":1,"data":{}}}"#, topic.0, topic.1);
    for (names, to) in state.clients.values() {
        if names.iter().any(|subscribed| subscribed == name) {
            let _ = to.send(update.clone());
        }
    }
}
