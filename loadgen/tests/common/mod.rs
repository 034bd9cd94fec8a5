//! An independent broadcast server for tests, on tungstenite, that misbehaves on request; and the program under test.

#![allow(dead_code)]

pub mod json;
pub mod relay;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
    time::Duration,
};

use serde_json::Value;
use tungstenite::{
    Message, WebSocket, accept_hdr,
    handshake::server::{Request, Response},
    protocol::Role,
};

/// What the server does to a publication on its way to one subscriber.
#[derive(Clone)]
pub enum Act {
    /// Pass it on.
    Pass,
    /// Leave it out.
    Drop,
    /// Send it twice.
    Repeat,
    /// Send it after the next one.
    Hold,
    /// Change one byte.
    Corrupt,
    /// Cut its end off.
    Cut,
    /// Send nothing for so long, then go on.
    Stall(Duration),
    /// Hang up.
    HangUp,
    /// End the connection of everybody.
    Die,
}

/// Decides for each subscriber (by order of connecting) and publication (by order of arrival).
pub type Fault = dyn Fn(usize, usize) -> Act + Send + Sync;

#[derive(Default)]
struct State {
    subscribers: Mutex<Vec<Sender<(usize, Message)>>>,
    published: AtomicUsize,
}

/// Takes connections, each on a thread of its own, as long as the test lives.
pub fn listen(client: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, client) = (listener.local_addr().unwrap(), Arc::new(client));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let client = Arc::clone(&client);
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || client(stream));
        }
    });
    address
}

/// A WebSocket that is read here, and written to by a thread that has its own hold of it, for as long as anybody may send it something.
pub fn split(socket: WebSocket<TcpStream>) -> (WebSocket<TcpStream>, Sender<Message>) {
    let mut writer = WebSocket::from_raw_socket(socket.get_ref().try_clone().unwrap(), Role::Server, None);
    let (to, from) = channel();
    thread::spawn(move || from.into_iter().all(|message| writer.send(message).is_ok()));
    (socket, to)
}

/// Starts a server: `/pub/…` and `/pub-slow/…` publish, `/echo` echoes, any other path subscribes. It lives as long as the test.
pub fn serve(fault: impl Fn(usize, usize) -> Act + Send + Sync + 'static) -> SocketAddr {
    let (state, fault): (State, Arc<Fault>) = (State::default(), Arc::new(fault));
    listen(move |stream| client(stream, &state, &fault))
}

#[allow(clippy::result_large_err)]
fn client(stream: TcpStream, state: &State, fault: &Arc<Fault>) {
    let mut path = String::new();
    let hear = |request: &Request, response: Response| {
        path = request.uri().path().to_owned();
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr(stream, hear) else { return };
    if path == "/echo" {
        while let Ok(message) = socket.read() {
            if message.is_text() && socket.send(message).is_err() {
                return;
            }
        }
    } else if path.starts_with("/pub") {
        while let Ok(message) = socket.read() {
            if path.starts_with("/pub-slow") {
                // Reads slower than is published, and says something that a publisher does not care for.
                thread::sleep(Duration::from_millis(8));
                let _ = socket.send(Message::text("taken"));
            }
            if message.is_text() {
                let nth = state.published.fetch_add(1, Ordering::SeqCst);
                state.subscribers.lock().unwrap().retain(|to| to.send((nth, message.clone())).is_ok());
            }
        }
    } else {
        subscriber(socket, state, fault);
    }
}

fn subscriber(mut socket: tungstenite::WebSocket<TcpStream>, state: &State, fault: &Arc<Fault>) {
    let (to, from) = channel();
    let me = {
        let mut subscribers = state.subscribers.lock().unwrap();
        subscribers.push(to);
        subscribers.len() - 1
    };
    let mut held = None;
    for (nth, message) in from {
        let out = match fault(me, nth) {
            Act::Pass => vec![message],
            Act::Drop => vec![],
            Act::Repeat => vec![message.clone(), message],
            Act::Hold => {
                held = Some(message);
                continue;
            }
            Act::Corrupt => vec![change(&message, |bytes| *bytes.last_mut().unwrap() ^= 1)],
            Act::Cut => vec![change(&message, |bytes| bytes.truncate(bytes.len() - 3))],
            Act::Stall(time) => {
                thread::sleep(time);
                vec![message]
            }
            Act::HangUp => return,
            Act::Die => {
                state.subscribers.lock().unwrap().clear();
                return;
            }
        };
        for message in out.into_iter().chain(held.take()) {
            if socket.send(message).is_err() {
                return;
            }
        }
    }
}

fn change(message: &Message, how: impl Fn(&mut Vec<u8>)) -> Message {
    let mut bytes = message.clone().into_data().to_vec();
    how(&mut bytes);
    Message::text(String::from_utf8(bytes).unwrap())
}

/// Doubts that a slow or busy machine gives reason for. Deliveries that came before they were sent are not among them.
const MACHINES_AFFAIR: [&str; 9] = [
    "reading the clock (",
    "of this machine's time away",
    "the saturated side",
    "the schedule slipped",
    "receiving lagged behind",
    "may both run on cores",
    "the whole machine was busy",
    "went to others than the generator",
    "went to others than the server",
];

/// What the program said and how it ended.
pub struct Outcome {
    pub code: i32,
    pub out: String,
    pub err: String,
    pub json: Value,
}

impl Outcome {
    /// Ended well. Doubts about how fast this machine is are no test's affair; but the code has to say that there are some,
    /// and that nobody finds any others.
    pub fn assert_fine(&self) {
        let list = |path| self.run(path).as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned());
        assert_eq!(list("/faults").len(), 0, "{}", self.out);
        let doubts: Vec<String> = list("/doubts").collect();
        assert_eq!(self.code, if doubts.is_empty() { 0 } else { 3 }, "{doubts:?}\n{}{}", self.out, self.err);
        for doubt in doubts {
            assert!(MACHINES_AFFAIR.iter().any(|kind| doubt.contains(kind)), "{doubt}");
        }
    }

    /// A field of the first run.
    pub fn run(&self, path: &str) -> &Value {
        self.json
            .pointer(&format!("/runs/0{path}"))
            .unwrap_or_else(|| panic!("no {path} in:\n{}{}", self.out, self.err))
    }

    pub fn check(&self, name: &str) -> u64 {
        self.run(&format!("/checks/{name}")).as_u64().unwrap()
    }
}

/// Runs a scenario against a server of raw topics at `address`.
pub fn loadgen(scenario: &str, address: SocketAddr, arguments: &str) -> Outcome {
    let urls = format!("ws://{address}/sub/{{topic}} --protocol raw --publish-url ws://{address}/pub/{{topic}}");
    run(&format!("{scenario} {urls} {arguments}"))
}

/// Runs the program with a scenario's arguments, and reads its result.
pub fn run(arguments: &str) -> Outcome {
    run_with(&[], arguments)
}

/// The same with this in its environment.
pub fn run_with(environment: &[(&str, &str)], arguments: &str) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("result.json");
    let mut outcome = program_with(environment, &format!("{arguments} --json {}", json.display()));
    outcome.json = std::fs::read(&json).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
    outcome
}

/// Runs the program.
pub fn program(arguments: &str) -> Outcome {
    program_with(&[], arguments)
}

fn program_with(environment: &[(&str, &str)], arguments: &str) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    // A token of whoever runs the tests is no part of them.
    command.env_remove("STENTOR_TOKEN").envs(environment.iter().copied());
    let output = command.args(arguments.split_whitespace()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let code = output.status.code().expect("ended by itself");
    Outcome { code, out: text(output.stdout), err: text(output.stderr), json: Value::Null }
}
