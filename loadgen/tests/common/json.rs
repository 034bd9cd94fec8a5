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
    /// None: subscribers of newest values are spared ten publications, and told.
    Conflates,
    /// They are spared them and not told.
    ConflatesUntold,
    /// They are told of half of them.
    ConflatesHalfTold,
    /// They are told that they are spared what they get.
    TellsAndSends,
    /// They get an older value after a newer one.
    OlderAfterNewer,
    /// They get nothing of the end, and are told so.
    NewestLost,
}

/// What subscribers of newest values are spared.
const SPARED: std::ops::Range<u64> = 150..160;

#[derive(Default)]
struct State {
    /// Number, last value, the value before.
    topics: HashMap<String, (u64, String, String)>,
    clients: HashMap<usize, Client>,
    next: usize,
}

/// Its names, whether it takes newest values, and the way to it.
type Client = (Vec<String>, bool, Sender<String>);

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
            state.clients.insert(me, (names, command["mode"] == "latest", to.clone()));
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
    for (names, latest, to) in state.clients.values() {
        if names.iter().any(|subscribed| subscribed == name) {
            let messages = if *latest { newest(name, topic, &update, flaw) } else { vec![update.clone()] };
            messages.into_iter().for_each(|message| drop(to.send(message)));
        }
    }
}

/// What a subscriber of newest values is sent when there is an update.
fn newest(name: &str, (seq, _, before): &(u64, String, String), update: &str, flaw: Flaw) -> Vec<String> {
    let skip =
        |from: u64, to: u64| format!(r#"{{"type":"skip","topic":"{name}","from":{from},"to":{to},"why":"slow"}}"#);
    let (first, next) = (SPARED.start, SPARED.end);
    let spares = matches!(flaw, Flaw::Conflates | Flaw::ConflatesUntold | Flaw::ConflatesHalfTold);
    let update = update.to_owned();
    match flaw {
        _ if spares && SPARED.contains(seq) => vec![],
        Flaw::Conflates if *seq == next => vec![skip(first, first + 3), skip(first + 4, next - 1), update],
        Flaw::ConflatesHalfTold if *seq == next => vec![skip(first, first + 4), update],
        Flaw::TellsAndSends if *seq == next => vec![skip(first, next - 1), update],
        Flaw::OlderAfterNewer if *seq == next - 1 => vec![],
        Flaw::OlderAfterNewer if *seq == next => {
            let older = format!(r#"{{"type":"update","topic":"{name}","seq":{},"ts":1,"data":{before}}}"#, seq - 1);
            vec![skip(next - 1, next - 1), update, older]
        }
        Flaw::NewestLost if *seq == next => vec![skip(next, 1000)],
        Flaw::NewestLost if *seq > next => vec![],
        _ => vec![update],
    }
}
