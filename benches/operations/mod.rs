//! What is measured: every step of a publication on its way, and whole turns of a worker, without the kernel.
//!
//! One list, measured twice: `timings` says how long each takes here and now, `instructions` how many instructions it is,
//! whatever the machine's mood. Work is made ready once and then done any number of times, each time like the last.

use std::hint::black_box;

use stentor::internals::{
    bench::{Bench, Client},
    lane::Lane,
    protocol::{Command, Envelope, Payload, Topic, command::Limits, matches, update_prefix},
    publication::Flags,
    publish::{By, Door},
    tape::{About, Position, Reader, Tape, TapeSettings},
    websocket::{
        Decoder, Event, Role,
        client::push_masked,
        deflate::{Deflater, StreamDeflater},
        frame::Opcode,
        mask::unmask,
        utf8::Utf8,
    },
};

/// One thing that is measured.
pub struct Operation {
    /// What it is called: a group, and what in it.
    pub name: &'static str,
    /// How many units it is, and what they are called.
    pub units: (u64, &'static str),
    /// Whether instructions are counted, too: not where getting ready would take too long under a simulated processor.
    #[allow(dead_code, reason = "timings takes all")]
    pub counted: bool,
    /// Makes it ready.
    pub prepare: fn() -> Work,
}

/// What is done over and over.
pub enum Work {
    /// Something by itself.
    Alone(Box<dyn FnMut()>),
    /// A worker's turn, for which something has to happen first.
    Turn(Box<Turn>),
}

/// Turns of a worker.
pub struct Turn {
    bench: Bench,
    /// Makes something to do; says how many deliveries it is.
    happen: Box<dyn FnMut(&mut Bench) -> u64>,
    until: u64,
}

impl Turn {
    /// Makes something to do; not measured.
    pub fn happen(&mut self) {
        self.until = self.bench.deliveries() + (self.happen)(&mut self.bench);
    }

    /// Lets the worker do it: one turn, unless it is more than that.
    pub fn take(&mut self) {
        self.bench.turn();
        while self.bench.deliveries() < self.until {
            self.bench.turn();
        }
    }
}

/// Everything that is measured.
pub const OPERATIONS: &[Operation] = &[
    counted("mask/125B", (125, "byte"), || mask(125)),
    counted("mask/1KiB", (1024, "byte"), || mask(1024)),
    counted("utf8/ascii-125B", (125, "byte"), || utf8("{\"bid\":189.21}")),
    counted("utf8/mixed-125B", (125, "byte"), || utf8("{\"bid\":\"€ 189\"}")),
    counted("decode/64x128B", (64, "frame"), || decode(64)),
    counted("topic/check", (1, "name"), topic_check),
    counted("topic/match", (1, "name"), topic_match),
    counted("command/publish", (1, "command"), command_publish),
    counted("envelope/json-128B", (1, "publication"), || envelope(Payload::Json(JSON.as_bytes()))),
    counted("envelope/text-128B", (1, "publication"), || envelope(Payload::Text(JSON))),
    counted("append/raw", (64, "publication"), || append(&[Lane::Raw], 1, Payload::Text(JSON))),
    counted("append/json", (64, "publication"), || append(&[Lane::Json], 1, Payload::Json(JSON.as_bytes()))),
    counted("append/json-of-text", (64, "publication"), || append(&[Lane::Json], 1, Payload::Text(JSON))),
    counted("append/both", (64, "publication"), || append(&[Lane::Json, Lane::Raw], 1, Payload::Json(JSON.as_bytes()))),
    counted("append/10k-topics", (64, "publication"), || append(&[Lane::Raw], 10_000, Payload::Text(JSON))),
    counted("scan/4096", (4096, "entry"), scan),
    counted("turn/idle", (1, "turn"), turn_idle),
    counted("plan/one-cohort-256", (256, "publication"), || plan(1)),
    counted("plan/50-cohorts-256", (256, "publication"), || plan(50)),
    counted("turn/1-to-1000", (1_000, "delivery"), || turn(1, 1_000)),
    counted("turn/1-to-10000", (10_000, "delivery"), || turn(1, 10_000)),
    timed("turn/1-to-100000", (100_000, "delivery"), || turn(1, 100_000)),
    counted("turn/256-to-1000", (256_000, "delivery"), || turn(256, 1_000)),
    counted("turn/1-to-200-tls", (200, "delivery"), || turn_secured(1)),
    counted("turn/256-to-200-tls", (51_200, "delivery"), || turn_secured(256)),
    counted("turn/1-to-1000-compressed", (1_000, "delivery"), || turn_compressed(1, ALONE)),
    counted("turn/256-to-1000-compressed", (256_000, "delivery"), || turn_compressed(256, ALONE)),
    counted("turn/1-to-1000-shared", (1_000, "delivery"), || turn_compressed(1, TOGETHER)),
    counted("turn/256-to-1000-shared", (256_000, "delivery"), || turn_compressed(256, TOGETHER)),
    timed("stream/level-1", (1, "frame"), || stream(1, 1)),
    timed("stream/level-7", (1, "frame"), || stream(7, 1)),
    timed("stream/level-1-of-300", (300, "frame"), || stream(1, 300)),
    timed("stream/level-7-of-300", (300, "frame"), || stream(7, 300)),
    timed("stream/once-level-6", (1, "frame"), once),
    counted("turn/1000-topics", (400, "delivery"), turn_topics),
    counted("turn/read-16-raw", (16, "publication"), || turn_read("/raw/a", push_raw)),
    counted("turn/read-16-json", (16, "publication"), || turn_read("/ws?topics=a", push_command)),
];

const fn counted(name: &'static str, units: (u64, &'static str), prepare: fn() -> Work) -> Operation {
    Operation { name, units, counted: true, prepare }
}

const fn timed(name: &'static str, units: (u64, &'static str), prepare: fn() -> Work) -> Operation {
    Operation { name, units, counted: false, prepare }
}

/// A quote of 128 bytes.
const JSON: &str = concat!(
    r#"{"bid":189.21,"ask":189.23,"bidsz":200,"asksz":400,"cond":"R","venue":"XNAS","#,
    r#""ts":1723161253937085768,"flags":0,"id":"abcdefgh"}"#
);

/// What a client masks with.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn mask(len: usize) -> Work {
    let mut bytes = vec![b'x'; len];
    alone(move || unmask(black_box(&mut bytes), KEY, 0))
}

/// Checks 125 bytes that repeat `piece`.
fn utf8(piece: &str) -> Work {
    let text: Vec<u8> = piece.bytes().cycle().take(125).collect();
    alone(move || {
        let mut check = Utf8::default();
        black_box(check.feed(black_box(&text))).expect("the piece is cut after a whole character");
    })
}

fn decode(frames: usize) -> Work {
    let mut sent = Vec::new();
    (0..frames).for_each(|_| push_raw(&mut sent));
    let mut buffer = sent.clone();
    let mut decoder = Decoder::new(Role::Server);
    alone(move || {
        // Payloads are unmasked where they lie.
        buffer.copy_from_slice(&sent);
        let (mut input, mut texts) = (&mut buffer[..], 0);
        while let Some(event) = decoder.next(&mut input, 1 << 16).expect("good frames") {
            texts += usize::from(matches!(black_box(event), Event::Text(_)));
        }
        assert_eq!(texts, frames);
    })
}

fn topic_check() -> Work {
    alone(|| Topic::check(black_box("q.us.AAPL"), 128).expect("it is one"))
}

fn topic_match() -> Work {
    alone(|| assert!(matches(black_box("q.*.AAPL"), black_box("q.us.AAPL"))))
}

fn command_publish() -> Work {
    let limits = Limits { topic_length_max: 128, topics_max: 1024 };
    let text = format!(r#"{{"op":"pub","topic":"q.us.AAPL","data":{JSON}}}"#);
    alone(move || {
        black_box(Command::parse(black_box(&text), &limits)).expect("it is one");
    })
}

fn envelope(payload: Payload<'static>) -> Work {
    let prefix = update_prefix("q.us.AAPL");
    let mut out = vec![0; 1024];
    alone(move || {
        let envelope = Envelope::new(&prefix, black_box(9813), 1_700_000_000_000_000, black_box(payload));
        envelope.write(&mut out[..envelope.len()]);
        black_box(&out);
    })
}

fn tape() -> Tape {
    Tape::new(TapeSettings {
        retain: 4 << 20,
        segment: 1 << 20,
        message_max: 1 << 16,
        topics_max: 1 << 16,
        value_bytes_max: 1 << 28,
        epoch: 1,
    })
}

const ABOUT: About = About { ts: 1, origin: 0, flags: Flags(0) };

fn append(lanes: &[Lane], topics: usize, payload: Payload<'static>) -> Work {
    let tape = tape();
    for lane in lanes {
        tape.want(*lane);
    }
    let door = Door::new(tape, 128);
    let names: Vec<String> = (0..topics).map(|nth| format!("q.us.S{nth}")).collect();
    for name in &names {
        door.publish(By::SERVER, name, payload, About::default()).expect("it fits");
    }
    let mut next = 0;
    alone(move || {
        for _ in 0..64 {
            // Not one after the other: that would be kinder to caches than a market is.
            next = (next + 7919) % topics;
            door.publish(By::SERVER, &names[next], black_box(payload), ABOUT).expect("it fits");
        }
    })
}

fn scan() -> Work {
    let tape = tape();
    let door = Door::new(tape.clone(), 128);
    for _ in 0..4096 {
        door.publish(By::SERVER, "a", Payload::Text(JSON), About::default()).expect("it fits");
    }
    let mut reader = Reader::new(tape);
    alone(move || {
        let head = reader.refresh();
        let mut bytes = 0;
        reader.scan(Position(head.0 - 4096), head, |entry| {
            bytes += u64::from(entry.len(Lane::Raw));
            true
        });
        black_box(bytes);
    })
}

/// Turns of `bench`, in each of which all of what `happen` does is delivered.
fn turns(mut bench: Bench, happen: impl FnMut(&mut Bench) -> u64 + 'static) -> Work {
    // Whoever has just subscribed joins the others.
    bench.turn();
    Work::Turn(Box::new(Turn { bench, happen: Box::new(happen), until: 0 }))
}

fn alone(run: impl FnMut() + 'static) -> Work {
    Work::Alone(Box::new(run))
}

/// Many subscribers, and nothing for them.
fn turn_idle() -> Work {
    turns(crowd(1_000), |_| 0)
}

/// So many publications, made since the last turn, to so many subscribers.
fn turn(publications: u64, subscribers: u64) -> Work {
    turns(crowd(subscribers), move |bench| {
        (0..publications).for_each(|_| bench.publish("a", Payload::Text(JSON)));
        publications * subscribers
    })
}

/// So many subscribers of the one topic `a`.
fn crowd(subscribers: u64) -> Bench {
    let mut bench = Bench::new();
    for _ in 0..subscribers {
        bench.connect("/raw/a");
    }
    bench
}

/// So many publications to 200 subscribers over TLS, who have kept up for long enough to be sent records of full size.
fn turn_secured(publications: u64) -> Work {
    let mut bench = Bench::new();
    for _ in 0..200 {
        bench.connect_secured("/raw/a");
    }
    for _ in 0..10 {
        (0..256).for_each(|_| bench.publish("a", Payload::Text(JSON)));
        bench.turn();
    }
    turns(bench, move |bench| {
        (0..publications).for_each(|_| bench.publish("a", Payload::Text(JSON)));
        publications * 200
    })
}

/// What clients offer that are sent each publication compressed by itself, and such as share a stream.
const ALONE: &str = "permessage-deflate; server_no_context_takeover";
const TOGETHER: &str = "permessage-deflate";

/// So many publications to 1,000 subscribers that are sent them compressed; each is another quote, and is compressed once.
fn turn_compressed(publications: u64, offer: &str) -> Work {
    let mut bench = Bench::new();
    for _ in 0..1_000 {
        bench.connect_compressed("/ws?topics=a", offer);
    }
    let mut bid = 0;
    turns(bench, move |bench| {
        for _ in 0..publications {
            bid += 1;
            let quote = JSON.replacen("189.21", &format!("{}.{:02}", 100 + bid % 400, bid % 97), 1);
            bench.publish("a", Payload::Json(quote.as_bytes()));
        }
        publications * 1_000
    })
}

/// The frame of an update whose numbers are others each time, on twenty topics in turn.
fn update(n: u64) -> Vec<u8> {
    let (bid, cents, size) = (100 + n * 7 % 400, n * 31 % 97, 100 * (1 + n * 13 % 23));
    let text = format!(
        r#"{{"type":"update","topic":"quotes.us.Q{}X","seq":{},"ts":{},"data":{{"bid":{bid}.{cents:02},"ask":{bid}.{:02},"bidsz":{size},"asksz":{},"cond":"R","venue":"XNAS","ts":{},"vol":{}}}}}"#,
        n % 20,
        n / 20 + 1,
        1_723_161_253_937 + n * 3,
        cents + 2,
        size + 300,
        1_723_161_253_937_085 + n * 3_177,
        n * 1_100
    );
    let mut frame = vec![0x81, 126];
    frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Compresses a publication in each of so many streams, which begin anew every 256. Of one stream everything is in the processor's cache; of many, what
/// each was left with has to come from memory.
fn stream(level: u8, streams: usize) -> Work {
    let mut streams: Vec<StreamDeflater> = (0..streams).map(|_| StreamDeflater::new(level, 12)).collect();
    let mut n = 0;
    alone(move || {
        n += 1;
        let frame = update(n);
        for stream in &mut streams {
            if n % 256 == 0 {
                stream.begin_anew(level);
            }
            black_box(stream.frame(black_box(&frame)));
        }
    })
}

/// Compresses a publication by itself.
fn once() -> Work {
    let (mut deflater, mut n) = (Deflater::new(6), 0);
    alone(move || {
        n += 1;
        black_box(deflater.frame(black_box(&update(n))));
    })
}

/// Finds out what each cohort is to be sent of 256 publications on 1,000 topics, with next to nobody to send it to: one
/// subscriber each, of everything, or of 20 topics.
fn plan(cohorts: usize) -> Work {
    let mut bench = Bench::new();
    let topics = Topics::new();
    for nth in 0..cohorts {
        bench.connect(&if cohorts == 1 { "/ws?topics=q.>".to_owned() } else { topics.target(nth) });
    }
    topics.introduce(&mut bench);
    let mut topics = topics.names.into_iter().cycle();
    turns(bench, move |bench| {
        (0..256).for_each(|_| bench.publish(&topics.next().expect("a cycle"), Payload::Json(b"1")));
        256
    })
}

/// 20 publications to 1,000 subscribers, of which each has 20 of 1,000 topics.
fn turn_topics() -> Work {
    let mut bench = Bench::new();
    let topics = Topics::new();
    for nth in 0..1_000 {
        bench.connect(&topics.target(nth % 50));
    }
    topics.introduce(&mut bench);
    let mut topics = topics.names.into_iter().cycle();
    turns(bench, move |bench| {
        (0..20).for_each(|_| bench.publish(&topics.next().expect("a cycle"), Payload::Json(JSON.as_bytes())));
        20 * 20
    })
}

/// 1,000 topics, in an order in which neighbours are not of the same subscriber.
struct Topics {
    names: Vec<String>,
}

impl Topics {
    fn new() -> Topics {
        Topics { names: (0..1_000).map(|nth| format!("q.us.S{}", nth * 389 % 1_000)).collect() }
    }

    /// Publishes on each once: the first time, a worker finds out who wants it.
    fn introduce(&self, bench: &mut Bench) {
        self.names.iter().for_each(|name| bench.publish(name, Payload::Json(b"1")));
        bench.turn();
    }

    /// Asks for the `nth` 20 of them.
    fn target(&self, nth: usize) -> String {
        let names: Vec<String> = (nth * 20..nth * 20 + 20).map(|name| format!("q.us.S{name}")).collect();
        format!("/ws?topics={}", names.join(","))
    }
}

/// 16 publications read from a connection, parsed, numbered, encoded, and sent to 100 subscribers.
fn turn_read(target: &'static str, push: fn(&mut Vec<u8>)) -> Work {
    let mut bench = Bench::new();
    for _ in 0..99 {
        bench.connect(target);
    }
    let publisher: Client = bench.connect(target);
    let mut frames = Vec::new();
    (0..16).for_each(|_| push(&mut frames));
    turns(bench, move |bench| {
        bench.feed(publisher, &frames);
        16 * 100
    })
}

fn push_raw(frames: &mut Vec<u8>) {
    push_masked(frames, Opcode::Text, JSON.as_bytes(), KEY);
}

fn push_command(frames: &mut Vec<u8>) {
    push_masked(frames, Opcode::Text, format!(r#"{{"op":"pub","topic":"a","data":{JSON}}}"#).as_bytes(), KEY);
}
