//! Two workers, at rate: publishers of every sort on both, subscribers of every sort on both, and one order for all.
//!
//! Nothing here is timed. What is looked at are counts, which are the same on a machine with one core.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Read, Write},
    sync::{Arc, Barrier},
    thread::{self, JoinHandle},
};

use serde_json::Value;
use stentor::{Payload, server::Server};
use tungstenite::Message;

use crate::{
    client::{Client, serve, tcp},
    process::{fresh, metric, wait_for},
};

/// What each publisher publishes.
const COUNT: u64 = 1000;

/// Whom the others share a topic with.
const SHARED: &str = "all";

/// Two workers that only a bell takes out of their sleep.
fn two() -> Server {
    serve(|config| {
        config.workers = Some(2);
        config.heartbeat = "0".parse().unwrap();
        config.idle_timeout = "0".parse().unwrap();
    })
}

/// A worker's figure.
fn of_worker(server: &Server, worker: usize, name: &str) -> u64 {
    metric(server.addresses()[0], &format!("{name}{{worker=\"{worker}\"}}")) as u64
}

/// Connections on the worker that is asked for. Each goes to the worker with the fewest, so others that want nothing even out.
struct Seats<'s> {
    server: &'s Server,
    others: Vec<Client>,
    /// How many connections there are.
    taken: u64,
}

impl Seats<'_> {
    fn of(server: &Server) -> Seats<'_> {
        Seats { server, others: Vec::new(), taken: 0 }
    }

    /// The connections of each worker, once all that are to be there are.
    fn counts(&self) -> [u64; 2] {
        let mut counts = [0; 2];
        wait_for("all connections", || {
            fresh(self.server.addresses()[0]);
            counts = [0, 1].map(|worker| of_worker(self.server, worker, "websocket_connections"));
            counts.iter().sum::<u64>() == self.taken
        });
        counts
    }

    /// One that says nothing of itself.
    fn on(&mut self, worker: usize, path: &str) -> Client {
        for _ in 0..100 {
            let before = self.counts();
            let client = Client::connect(self.server, path);
            self.taken += 1;
            if self.counts()[worker] > before[worker] {
                return client;
            }
            drop(client);
            self.taken -= 1;
            self.even_out();
        }
        panic!("worker {worker} gets no connections");
    }

    /// One of the JSON protocol, which says in its greeting where it is.
    fn greeted(&mut self, worker: usize, path: &str) -> Client {
        for _ in 0..100 {
            let mut client = Client::connect(self.server, path);
            let hello = client.json();
            if hello["conn"].as_str().unwrap().starts_with(&format!("{}-", worker + 1)) {
                self.taken += 1;
                return client;
            }
            drop(client);
            self.even_out();
        }
        panic!("worker {worker} gets no connections");
    }

    /// One has gone, and another comes, so that the next goes elsewhere.
    fn even_out(&mut self) {
        self.counts();
        self.others.push(Client::connect(self.server, "/ws"));
        self.taken += 1;
    }
}

/// A publication as a subscriber sees it: its publisher, and that one's count.
type Seen = (u64, u64);

/// A payload that says what it is.
fn payload(publisher: u64, n: u64) -> String {
    format!("[{publisher},{n}]")
}

fn seen(data: &Value) -> Seen {
    // Text that came bare is a string in the JSON protocol.
    let inner = data.as_str().map(|text| serde_json::from_str(text).unwrap());
    let parts = inner.as_ref().unwrap_or(data);
    (parts[0].as_u64().unwrap(), parts[1].as_u64().unwrap())
}

/// The topic of a publisher's `n`th: its own, and each other time the one that all share.
fn topic(publisher: u64, n: u64) -> String {
    if n.is_multiple_of(2) { SHARED.to_owned() } else { format!("q.{publisher}") }
}

/// One of those that publish, in a thread of its own; it begins with the others.
fn publisher(begin: &Arc<Barrier>, publish: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let begin = Arc::clone(begin);
    thread::spawn(move || {
        begin.wait();
        publish();
    })
}

/// Publishes over `/ws`, up to `flight` at a time that are not acknowledged yet; 0 asks for no acknowledgement.
fn over_ws(mut client: Client, number: u64, flight: u64) {
    for n in 0..COUNT {
        let (topic, data) = (topic(number, n), payload(number, n));
        let id = if flight > 0 { r#""id":1,"# } else { "" };
        client.send(&format!(r#"{{"op":"pub",{id}"topic":"{topic}","data":{data}}}"#));
        if flight > 0 && (n + 1) % flight == 0 {
            for n in n + 1 - flight..=n {
                let ack = client.json();
                assert_eq!(ack["type"], "ack");
                // Nobody else publishes on its own topic.
                assert!(n % 2 == 0 || ack["seq"] == n / 2 + 1, "{ack}");
            }
        }
    }
    // By then it has read them all.
    assert_eq!(client.ask(r#"{"op":"ping"}"#)["type"], "pong");
}

/// Publishes over HTTP, many at a time on one connection.
fn over_http(address: std::net::SocketAddr, number: u64) {
    let mut stream = tcp(address);
    for first in (0..COUNT).step_by(50) {
        let line = |n| format!("{{\"topic\":\"{}\",\"data\":{}}}\n", topic(number, n), payload(number, n));
        let lines: String = (first..first + 50).map(line).collect();
        write!(stream, "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{lines}", lines.len())
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"{\"published\":50}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
    }
}

/// Which topics a subscriber wants.
type Wants = fn(&str) -> bool;

/// What a subscriber got, in order: where it is told, with topic and number.
struct Got {
    name: String,
    wants: Wants,
    client: Client,
    seen: Vec<Seen>,
    told: Vec<(String, u64)>,
}

impl Got {
    /// Reads so many publications.
    fn read(&mut self, count: usize) {
        for _ in 0..count {
            let Message::Text(text) = self.client.message() else { panic!("{}: no publication", self.name) };
            let value: Value = serde_json::from_str(&text).unwrap();
            if value.is_array() {
                self.seen.push(seen(&value));
            } else {
                assert_eq!(value["type"], "update", "{}: {text}", self.name);
                self.told.push((value["topic"].as_str().unwrap().to_owned(), value["seq"].as_u64().unwrap()));
                self.seen.push(seen(&value["data"]));
            }
        }
    }

    /// Per topic, 1, 2, 3 and so on.
    fn check_numbers(&self) {
        let mut last = HashMap::new();
        for (topic, seq) in &self.told {
            let last = last.entry(topic).or_insert(0);
            *last += 1;
            assert_eq!(seq, last, "{}: {topic}", self.name);
        }
    }
}

/// Who subscribes on each worker: a path, and which topics that is.
fn wishes() -> Vec<(&'static str, Wants)> {
    vec![
        ("/ws?topics=%3E", |_| true),
        ("/ws?topics=%3E&mode=all", |_| true),
        ("/ws?topics=all,q.1", |topic| matches!(topic, "all" | "q.1")),
        ("/ws?topics=q.*", |topic| topic.starts_with("q.")),
        ("/ws?topics=*,q.%3E,q.4", |_| true),
        ("/raw/all", |topic| topic == SHARED),
        ("/raw/q.4", |topic| topic == "q.4"),
        ("/raw/q.2", |topic| topic == "q.2"),
    ]
}

/// Everybody, on both workers.
fn subscribe(seats: &mut Seats<'_>) -> Vec<Got> {
    let mut all = Vec::new();
    for worker in [0, 1] {
        for (path, wants) in wishes() {
            let name = format!("{path} on worker {worker}");
            let client = if path.starts_with("/ws") {
                let mut client = seats.greeted(worker, path);
                assert_eq!(client.json()["type"], "ack");
                client
            } else {
                seats.on(worker, path)
            };
            all.push(Got { name, wants, client, seen: Vec::new(), told: Vec::new() });
        }
    }
    all
}

#[test]
fn two_workers_at_rate_send_everything_to_everybody_in_one_order() {
    let server = two();
    let mut seats = Seats::of(&server);
    let subscribers = subscribe(&mut seats);
    fresh(server.addresses()[0]);
    let sends = [0, 1].map(|worker| of_worker(&server, worker, "sends_total"));
    let begin = Arc::new(Barrier::new(7));
    let (acked, plain) = (seats.greeted(0, "/ws"), seats.greeted(1, "/ws"));
    let mut raw = seats.on(1, "/raw/q.2?echo=0");
    let (own, batches, address) = (server.publisher(), server.publisher(), server.addresses()[0]);
    let publishers = vec![
        publisher(&begin, move || over_ws(acked, 0, 50)),
        publisher(&begin, move || over_ws(plain, 1, 0)),
        publisher(&begin, move || {
            (0..COUNT).for_each(|n| raw.send(&payload(2, n)));
            raw.socket.close(None).unwrap();
            raw.closed();
        }),
        publisher(&begin, move || over_http(address, 3)),
        publisher(&begin, move || {
            for n in 0..COUNT {
                own.publish(&topic(4, n), Payload::Json(payload(4, n).as_bytes())).unwrap();
            }
        }),
        publisher(&begin, move || {
            for first in (0..COUNT).step_by(20) {
                let mut batch = batches.batch();
                for n in first..first + 20 {
                    batch.push(&topic(5, n), Payload::Json(payload(5, n).as_bytes())).unwrap();
                }
            }
        }),
    ];
    // The raw publisher has its one topic only.
    let topic_of = |(publisher, n): Seen| if publisher == 2 { "q.2".to_owned() } else { topic(publisher, n) };
    let all: Vec<Seen> = (0..6).flat_map(|publisher| (0..COUNT).map(move |n| (publisher, n))).collect();
    let readers: Vec<_> = subscribers
        .into_iter()
        .map(|mut got| {
            let count = all.iter().filter(|publication| (got.wants)(&topic_of(**publication))).count();
            thread::spawn(move || {
                got.read(count);
                got
            })
        })
        .collect();
    begin.wait();
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    let got: Vec<Got> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();

    // The order of the first is the order: complete, and each publisher's own within it.
    let order = got[0].seen.clone();
    let mut next = [0; 6];
    for (publisher, n) in &order {
        assert_eq!(*n, next[*publisher as usize], "publisher {publisher}");
        next[*publisher as usize] += 1;
    }
    assert_eq!(next, [COUNT; 6]);
    for got in &got {
        got.check_numbers();
        let wanted = |publication: &Seen| (got.wants)(&topic_of(*publication));
        let expected: Vec<Seen> = order.iter().copied().filter(wanted).collect();
        let differs = got.seen.iter().zip(&expected).position(|(got, expected)| got != expected);
        assert!(differs.is_none(), "{}: another order from {differs:?} on", got.name);
        assert_eq!(got.seen.len(), expected.len(), "{}", got.name);
    }
    // The server counts the same.
    for worker in [0, 1] {
        let half = &got[worker * wishes().len()..][..wishes().len()];
        let count: u64 = half.iter().map(|got| got.seen.len() as u64).sum();
        wait_for("deliveries", || of_worker(&server, worker, "deliveries_total") == count);
        let sends = of_worker(&server, worker, "sends_total") - sends[worker];
        let full = of_worker(&server, worker, "sends_full_total");
        // Those that publish are answered; nothing else is sent.
        let answers = COUNT + 10;
        assert!(sends <= count + full + answers, "{sends} sends, {full} of them full, for {count} deliveries");
    }
}

#[test]
fn what_is_published_together_takes_one_send_to_each_subscriber_on_either_worker() {
    const BATCHES: u64 = 20;
    const TOGETHER: u64 = 120;
    let server = two();
    let mut seats = Seats::of(&server);
    let mut subscribers = subscribe(&mut seats);
    let publisher = server.publisher();
    let topics = [SHARED, "q.1", "q.2", "q.4"];
    let mut together = |batch| {
        let mut together = publisher.batch();
        for n in 0..TOGETHER {
            let data = payload(batch, n);
            together.push(topics[n as usize % topics.len()], Payload::Json(data.as_bytes())).unwrap();
        }
        drop(together);
        for got in &mut subscribers {
            let share = topics.iter().filter(|topic| (got.wants)(topic)).count() as u64;
            got.read((TOGETHER / topics.len() as u64 * share) as usize);
        }
        // How many deliveries and sends each worker has made: sends are counted first.
        [0, 1].map(|worker| {
            let half = &subscribers[worker * wishes().len()..][..wishes().len()];
            let deliveries: u64 = half.iter().map(|got| got.seen.len() as u64).sum();
            wait_for("deliveries", || of_worker(&server, worker, "deliveries_total") == deliveries);
            (deliveries, of_worker(&server, worker, "sends_total"))
        })
    };
    // It is visible to a worker whole or not at all, and sockets are empty: what follows are counts, on any machine.
    let mut before = together(0);
    for batch in 1..=BATCHES {
        let after = together(batch);
        for ((deliveries, sends), (deliveries_before, sends_before)) in after.into_iter().zip(before) {
            let (deliveries, sends) = (deliveries - deliveries_before, sends - sends_before);
            assert_eq!(sends, wishes().len() as u64, "sends for {deliveries} deliveries");
            assert!(deliveries / sends >= TOGETHER / 2, "{deliveries} deliveries in {sends} sends");
        }
        before = after;
    }
    subscribers.iter().for_each(Got::check_numbers);
}

#[test]
fn what_comes_to_one_worker_wakes_the_other() {
    let server = two();
    let mut seats = Seats::of(&server);
    let mut publishers = [0, 1].map(|worker| seats.greeted(worker, "/ws"));
    let mut subscribers: BTreeMap<String, Client> = BTreeMap::new();
    for worker in [0, 1] {
        let mut json = seats.greeted(worker, "/ws?topics=a.*");
        assert_eq!(json.json()["type"], "ack");
        subscribers.insert(format!("json on {worker}"), json);
        subscribers.insert(format!("raw on {worker}"), seats.on(worker, "/raw/a.b"));
    }
    drop(seats);
    for n in 1..=200 {
        publishers[n % 2].send(&format!(r#"{{"op":"pub","topic":"a.b","data":{n}}}"#));
        // Nobody publishes anything more before everybody has it.
        for (name, client) in &mut subscribers {
            let message = client.json();
            let value = if name.starts_with("raw") { &message } else { &message["data"] };
            assert_eq!(value, n, "{name}");
        }
    }
}
