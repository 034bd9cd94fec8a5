//! Stays connected: connects, comes back after every loss, and takes what came from the socket to the program when that asks.
//!
//! The delay before coming back is random between nothing and a bound that doubles (full jitter), or within the window that the server named.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::ClientConfig;

use crate::{
    core::Core,
    event::{Error, Event, Status},
    subscription::How,
    wire::{ABNORMAL, Read1, Wire, address},
};

/// A connection of so long was a good one: the next loss begins with short delays again.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// Wrong tokens in a row, from a function that is asked for each, after which it is given up.
const WRONG_TOKENS: u32 = 3;

/// Answers to the handshake that another try won't change.
const HOPELESS: [u16; 6] = [400, 401, 403, 404, 405, 426];

/// Seconds that a server may send one away for.
const AWAY_MAX: f64 = 600.0;

/// Time of much traffic after which the server is asked how far one has come, once it has shown that it gives cursors.
const CURSOR_EVERY: Duration = Duration::from_secs(3);

/// What shows who one is.
pub enum Token {
    /// Always this.
    Word(String),
    /// What this says: it is called before each connecting, and when the server says that the old one is about to expire. An error is as an address that doesn't answer.
    Ask(Box<dyn FnMut() -> Result<String, String> + Send>),
}

/// How to connect.
pub struct Options {
    /// Where to: one after the other, until one answers.
    pub urls: Vec<String>,
    /// What to show.
    pub token: Option<Token>,
    /// Whom to trust, over TLS; the system's roots if nothing is said. [`tls`](crate::tls) makes others.
    pub tls: Option<Arc<ClientConfig>>,
    /// The first bound of a delay before coming back, and the last.
    pub backoff: (Duration, Duration),
    /// Time for connecting, for the greeting, and for the network to take what is sent.
    pub patience: Duration,
    /// Topics that are remembered, some hundred bytes each. Of others, what was missed while there was no connection is a reset.
    pub topics_max: usize,
    /// The largest message that is taken, in bytes.
    pub message_max: usize,
}

impl Options {
    /// To these addresses, with nothing to show.
    pub fn new<T: Into<String>>(urls: impl IntoIterator<Item = T>) -> Options {
        Options {
            urls: urls.into_iter().map(Into::into).collect(),
            token: None,
            tls: None,
            backoff: (Duration::from_millis(500), Duration::from_secs(15)),
            patience: Duration::from_secs(10),
            topics_max: 100_000,
            message_max: 16 << 20,
        }
    }
}

/// The connection, or the lack of one.
enum State {
    /// There will be another then.
    Away(Instant),
    Open {
        wire: Box<Wire>,
        since: Instant,
        heard: Instant,
        is_greeted: bool,
    },
    /// There will be none any more.
    Ended(Error),
}

/// A client. Dropping it drops its connection; [`close`](Client::close) says goodbye.
pub struct Client {
    options: Options,
    core: Core,
    state: State,
    nth: usize,
    failures: u32,
    wrong_tokens: u32,
    /// The token that the server was shown last.
    shown: Option<String>,
    was_open: bool,
    cursor_at: Instant,
    trouble: String,
}

impl Client {
    /// One that connects when it is first asked for something.
    ///
    /// # Errors
    /// `bad_address`.
    pub fn new(options: Options) -> Result<Client, Error> {
        if options.urls.is_empty() {
            return Err(Error::new("bad_address", "expected at least one address, found none"));
        }
        for url in &options.urls {
            address(url)?;
        }
        let now = Instant::now();
        Ok(Client {
            core: Core::new(options.topics_max),
            options,
            state: State::Away(now),
            nth: 0,
            failures: 0,
            wrong_tokens: 0,
            shown: None,
            was_open: false,
            cursor_at: now,
            trouble: String::new(),
        })
    }

    /// Subscribes to names, now and after every loss. A refusal is an event.
    pub fn subscribe<T: Into<String>>(&mut self, names: impl IntoIterator<Item = T>, how: How) {
        self.core.subscribe(names.into_iter().map(Into::into).collect(), &how);
        self.send();
    }

    /// Ends subscriptions, named as they were made.
    pub fn unsubscribe(&mut self, names: &[String]) {
        self.core.unsubscribe(names);
        self.send();
    }

    /// Publishes a JSON value. What becomes of it is an [`Event::Published`] with the number that is returned; so the program has to ask for events.
    ///
    /// # Errors
    /// `disconnected`: there is no connection now. `too_large`.
    pub fn publish(&mut self, topic: &str, json: &str) -> Result<u64, Error> {
        let ticket = self.core.publish(topic, json);
        self.send();
        ticket
    }

    /// Publications that wait for their answers.
    pub fn unanswered(&self) -> usize {
        self.core.unanswered()
    }

    /// Asks the server for a sign of life, which comes as an [`Event::Pong`] with the number that is returned.
    ///
    /// # Errors
    /// `disconnected`: there is no connection now.
    pub fn ping(&mut self) -> Result<u64, Error> {
        let ticket = self.core.ping();
        self.send();
        ticket
    }

    /// There is a connection, and the server has greeted.
    pub fn is_open(&self) -> bool {
        self.core.hello.is_some()
    }

    /// There will be no connection any more; what is left to be told comes first, then [`next`](Client::next) says why.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    /// Why there is no connection now, in words.
    pub fn trouble(&self) -> &str {
        &self.trouble
    }

    /// Up to here everything has come, and was told, if the server gives cursors: for [`From::Cursor`](crate::From::Cursor), in another run of the program.
    pub fn cursor(&self) -> Option<&str> {
        self.core.cursor.as_deref().filter(|_| self.core.topics.events.is_empty())
    }

    /// What comes next.
    ///
    /// # Errors
    /// There will be nothing any more: `refused` at the first try, `unauthorized`.
    #[allow(clippy::should_implement_trait)] // An iterator would have to end at an error.
    pub fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.next_until(Instant::now() + Duration::from_secs(3600))? {
                return Ok(event);
            }
        }
    }

    /// What comes next, if it does until then.
    ///
    /// # Errors
    /// As of [`next`](Client::next).
    pub fn next_until(&mut self, until: Instant) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.core.topics.events.pop_front() {
                return Ok(Some(event));
            }
            match &self.state {
                State::Ended(error) => return Err(error.clone()),
                State::Away(at) => {
                    let wake = (*at).min(until);
                    thread::sleep(wake.saturating_duration_since(Instant::now()));
                    if wake < *at {
                        return Ok(None);
                    }
                    self.connect();
                }
                State::Open { .. } => {
                    self.read(until);
                    if self.core.topics.events.is_empty()
                        && Instant::now() >= until
                        && matches!(self.state, State::Open { .. })
                    {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Says goodbye.
    pub fn close(self) {
        if let State::Open { wire, .. } = self.state {
            wire.close(Duration::from_secs(1));
        }
    }

    // ---- One connection after the other --------------------------------------------------------------------------------

    fn connect(&mut self) {
        let url = self.options.urls[self.nth % self.options.urls.len()].clone();
        self.nth += 1;
        let token = match &mut self.options.token {
            None => None,
            Some(Token::Word(word)) => Some(word.clone()),
            Some(Token::Ask(ask)) => match ask() {
                Ok(word) => Some(word),
                Err(why) => {
                    self.trouble = format!("no token: {why}");
                    let delay = self.delay(0);
                    self.state = State::Away(Instant::now() + delay);
                    return;
                }
            },
        };
        self.shown.clone_from(&token);
        let options = &self.options;
        match Wire::open(&url, token.as_deref(), options.tls.as_ref(), options.message_max, options.patience) {
            Ok(wire) => {
                let now = Instant::now();
                self.state = State::Open { wire: Box::new(wire), since: now, heard: now, is_greeted: false };
            }
            Err(refused) => {
                self.trouble = match refused.status {
                    0 => format!("{url}: {}", refused.message),
                    status => format!("{url}: {status}: {}", refused.message),
                };
                if !self.was_open && HOPELESS.contains(&refused.status) {
                    self.state = State::Ended(Error::new("refused", self.trouble.clone()));
                    return;
                }
                let delay = refused.retry_after + self.delay(0);
                self.state = State::Away(Instant::now() + delay);
            }
        }
    }

    /// Reads one message, or waits for it until then.
    fn read(&mut self, until: Instant) {
        let State::Open { wire, heard, is_greeted, .. } = &mut self.state else { return };
        let silence = match &self.core.hello {
            None => Some(self.options.patience),
            Some(hello) if hello.heartbeat > 0.0 => Some(Duration::from_secs_f64(hello.heartbeat * 2.0)),
            Some(_) => None,
        };
        let now = Instant::now();
        let given_up = silence.map(|silence| *heard + silence);
        let wake = given_up.map_or(until, |at| at.min(until));
        match wire.read(wake.saturating_duration_since(now)) {
            Read1::Text(text) => {
                *heard = Instant::now();
                let outcome = self.core.read(&text);
                if self.core.hello.is_some() && !*is_greeted {
                    *is_greeted = true;
                    self.was_open = true;
                    self.trouble.clear();
                }
                match outcome {
                    Ok(()) => self.say(),
                    Err(broken) => self.lose(ABNORMAL, &broken.0),
                }
            }
            Read1::Other => *heard = Instant::now(),
            Read1::Nothing if given_up.is_some_and(|at| Instant::now() >= at) => {
                let why = match &self.core.hello {
                    Some(hello) => format!("nothing was heard for {} s", hello.heartbeat * 2.0),
                    None => "the server did not greet".into(),
                };
                self.lose(ABNORMAL, &why);
            }
            Read1::Nothing => {}
            Read1::End { code, why } => self.lose(code, &why),
        }
    }

    /// Behind a message: what it came to is sent.
    fn say(&mut self) {
        // Without another one the server ends the connection, and it is asked for again.
        if std::mem::take(&mut self.core.expiring)
            && let Some(Token::Ask(ask)) = &mut self.options.token
            && let Ok(word) = ask()
            && self.shown.as_ref() != Some(&word)
        {
            self.core.show(&word);
            self.shown = Some(word);
        }
        if self.core.cursor.is_some() && self.is_open() && self.cursor_at.elapsed() > CURSOR_EVERY {
            self.cursor_at = Instant::now();
            self.core.ask_cursor();
        }
        self.send();
    }

    fn send(&mut self) {
        let State::Open { wire, .. } = &mut self.state else { return };
        let mut outcome = Ok(());
        for text in std::mem::take(&mut self.core.out) {
            outcome = outcome.and_then(|()| wire.send(text));
        }
        if let Err(why) = outcome {
            self.lose(ABNORMAL, &why);
        }
    }

    fn lose(&mut self, code: u16, why: &str) {
        let State::Open { since, is_greeted, .. } = &self.state else { return };
        let (since, was_open) = (*since, *is_greeted);
        let said = [why, &self.core.farewell, "the connection ended"].into_iter().find(|said| !said.is_empty());
        let said = said.unwrap_or_default().to_owned();
        let url = &self.options.urls[(self.nth + self.options.urls.len() - 1) % self.options.urls.len()];
        self.trouble = format!("{url}: {said} ({code})");
        self.core.lost();
        if was_open {
            let status = Status { code: "lost".into(), message: self.trouble.clone(), ..Status::default() };
            self.core.topics.events.push_back(Event::Status(status));
        }
        let was_good = was_open && since.elapsed() > GOOD_AFTER;
        if was_good || (was_open && code != 4001) {
            self.wrong_tokens = 0;
        }
        if code == 4001 {
            // One that has expired after hours was none of those that were wrong.
            self.wrong_tokens += 1;
            let is_asked = matches!(self.options.token, Some(Token::Ask(_)));
            if !is_asked || self.wrong_tokens >= WRONG_TOKENS {
                self.state = State::Ended(Error::new("unauthorized", said));
                return;
            }
        } else if code == 4002 {
            // Another connection of the same holder has taken this one's place: coming back would take its place in turn.
            self.state = State::Ended(Error::new("replaced", said));
            return;
        }
        if was_good {
            self.failures = 0;
        }
        let mut delay = self.delay(code);
        if let Some((first, last)) = self.core.window.take() {
            delay = between(first / 1000.0, last / 1000.0);
        }
        self.state = State::Away(Instant::now() + delay);
    }

    /// How long to stay away: random, so that many clients don't come back at one moment.
    fn delay(&mut self, code: u16) -> Duration {
        let (least, most) = (self.options.backoff.0.as_secs_f64(), self.options.backoff.1.as_secs_f64());
        let failures = self.failures;
        self.failures = (failures + 1).min(32);
        // We were told that we ask too much, or that there is no room: nothing is gained by asking soon.
        if [1013, 4003].contains(&code) {
            return between(most / 2.0, most);
        }
        between(0.0, most.min(least * 2f64.powi(i32::try_from(failures).unwrap_or(32))))
    }
}

/// A moment of a window of seconds; what a server says, if it is a time at all.
fn between(first: f64, last: f64) -> Duration {
    let bounded = |seconds: f64| if seconds.is_nan() { 0.0 } else { seconds.clamp(0.0, AWAY_MAX) };
    let (first, last) = (bounded(first), bounded(last));
    Duration::from_secs_f64(first + (last - first).max(0.0) * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener};

    use tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::HeaderValue,
    };

    use super::*;

    const COUNT: u64 = 300;

    /// A server of one connection, which is offered no compression. It sends so many updates of 50 KB, and then what would be compressed, and comes to a thousand times as much.
    fn server() -> (String, thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let served = thread::spawn(move || {
            #[allow(clippy::result_large_err)] // It is the library's own.
            let judge = |request: &Request, mut answer: Response| -> Result<Response, ErrorResponse> {
                assert_eq!(request.headers().get("Sec-WebSocket-Extensions"), None);
                let protocol = HeaderValue::from_static("stentor.v1.json");
                answer.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
                Ok(answer)
            };
            let mut socket = tungstenite::accept_hdr(listener.accept().unwrap().0, judge).unwrap();
            socket.send(r#"{"type":"hello","version":1,"server":"t","conn":"1","ts":1,"heartbeat":0}"#.into()).unwrap();
            let command = socket.read().unwrap();
            let command: serde_json::Value = serde_json::from_str(command.to_text().unwrap()).unwrap();
            let ack = r#"{"type":"ack","id":ID,"topics":[{"topic":"a","mode":"all","epoch":"k","seq":0}]}"#;
            socket.send(ack.replace("ID", &command["id"].to_string()).into()).unwrap();
            let data = "x".repeat(50_000);
            for seq in 1..=COUNT {
                let update =
                    format!(r#"{{"type":"update","topic":"a","epoch":"k","seq":{seq},"ts":{seq},"data":"{data}"}}"#);
                // Blocks while the other side doesn't read, since the network holds less.
                socket.send(Message::text(update)).unwrap();
            }
            // FIN, RSV1 and text; seven bytes.
            socket.get_mut().write_all(b"\xc1\x07\xaa\x56\x4a\x54\xb2\x52\x00").unwrap();
            while socket.read().is_ok() {}
        });
        (url, served)
    }

    #[test]
    fn nothing_waits_but_what_one_message_came_to_and_nothing_is_inflated() {
        let (url, served) = server();
        let mut client = Client::new(Options::new([url])).unwrap();
        client.subscribe(["a"], How::default());
        let mut last = 0;
        while last < COUNT {
            if let Event::Update(update) = client.next().unwrap() {
                last += 1;
                assert_eq!((update.seq, update.raw().len()), (last, 50_002));
            }
            assert!(client.core.topics.events.len() <= 1, "{} wait", client.core.topics.events.len());
        }
        let lost = client.next().unwrap();
        assert!(matches!(&lost, Event::Status(status) if status.code == "lost"), "{lost:?}");
        assert!(client.trouble().contains("eserved bits"), "{}", client.trouble());
        drop(client);
        served.join().unwrap();
    }
}
