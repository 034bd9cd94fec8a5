//! This client as the conformance script drives it: a line on standard input starts a client or ends it, each thing that it tells is a line on standard output.
//!
//! ```sh
//! python clients/conformance/run.py target/debug/examples/driver
//! ```

use std::{
    collections::HashMap,
    io::{self, BufRead, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use stentor_client::{Client, Error, Event, How, Mode, Options, Token};

/// How long until a client looks again whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Clone)]
struct Out {
    id: Value,
    out: Arc<Mutex<io::Stdout>>,
}

impl Out {
    fn tell(&self, line: Value) {
        let mut all = Map::from_iter([("id".to_owned(), self.id.clone())]);
        all.extend(line.as_object().cloned().unwrap_or_default());
        let mut out = self.out.lock().expect("nobody panics with it");
        let _ = writeln!(out, "{}", Value::from(all));
        let _ = out.flush();
    }
}

fn line_of(event: Event) -> Option<Value> {
    Some(match event {
        Event::Update(update) => {
            let mut line = json!({"update": update.topic, "seq": update.seq, "data": update.data::<Value>().ok()?});
            for (name, there) in [("snapshot", update.is_snapshot), ("key", update.is_key), ("stale", update.is_stale)]
            {
                if there {
                    line[name] = true.into();
                }
            }
            line
        }
        Event::Gap(gap) => json!({"gap": gap.topic, "first": gap.first, "last": gap.last, "why": gap.why}),
        Event::Reset(reset) => json!({"reset": reset.topic, "why": reset.why}),
        Event::Status(status) if ["connected", "lost"].contains(&status.code.as_str()) => return None,
        Event::Status(status) => json!({"status": status.code, "topics": status.topics}),
        Event::Refused { error, names } => error_of(&error, &names),
        Event::Published { outcome: Err(error), .. } => error_of(&error, &[]),
        Event::Published { .. } | Event::Current | Event::Pong { .. } => return None,
    })
}

fn error_of(error: &Error, names: &[String]) -> Value {
    json!({"error": error.code, "topics": names})
}

/// One word, or a function that has another each time.
fn token_of(words: &Value) -> Option<Token> {
    let mut words: Vec<String> = words.as_array()?.iter().filter_map(|word| Some(word.as_str()?.to_owned())).collect();
    match words.len() {
        0 => None,
        1 => words.pop().map(Token::Word),
        _ => {
            let mut left = words.into_iter();
            Some(Token::Ask(Box::new(move || left.next().ok_or_else(|| "no more tokens".to_owned()))))
        }
    }
}

fn run(order: &Value, out: &Out, ended: &AtomicBool) {
    let url = order["url"].as_str().expect("an order has a url");
    let options = Options {
        token: token_of(&order["token"]),
        backoff: (Duration::from_millis(10), Duration::from_millis(50)),
        ..Options::new([url])
    };
    let mut client = Client::new(options).expect("the script gives good addresses");
    for one in order["subscribe"].as_array().into_iter().flatten() {
        let names: Vec<String> = serde_json::from_value(one["topics"].clone()).expect("topics are names");
        let mode = if one["mode"] == "latest" { Mode::Latest } else { Mode::All };
        let snapshot = one["snapshot"].as_bool().unwrap_or(true);
        client.subscribe(names, How { mode, rate: one["rate"].as_f64(), snapshot, from: None });
    }
    let mut publish: Vec<Value> = order["publish"].as_array().cloned().unwrap_or_default();
    while !ended.load(Ordering::Relaxed) {
        if client.is_open() {
            for one in publish.drain(..) {
                let topic = one["topic"].as_str().expect("a publication has a topic");
                if let Err(error) = client.publish(topic, &one["data"].to_string()) {
                    out.tell(error_of(&error, &[]));
                }
            }
        }
        match client.next_until(Instant::now() + LOOK_EVERY) {
            Ok(event) => {
                if let Some(line) = event.and_then(line_of) {
                    out.tell(line);
                }
            }
            Err(error) => {
                out.tell(error_of(&error, &[]));
                while !ended.load(Ordering::Relaxed) {
                    thread::sleep(LOOK_EVERY);
                }
            }
        }
    }
    client.close();
    out.tell(json!({"end": true}));
}

fn main() {
    let out = Arc::new(Mutex::new(io::stdout()));
    let mut clients: HashMap<String, Arc<AtomicBool>> = HashMap::new();
    for line in io::stdin().lock().lines() {
        let order: Value = serde_json::from_str(&line.expect("the input can be read")).expect("orders are JSON");
        let ended = clients.entry(order["id"].to_string()).or_default().clone();
        if order["end"] == true {
            ended.store(true, Ordering::Relaxed);
            continue;
        }
        let out = Out { id: order["id"].clone(), out: Arc::clone(&out) };
        thread::spawn(move || run(&order, &out, &ended));
    }
}
