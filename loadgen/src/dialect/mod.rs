//! Dialects: how one subscribes, publishes and is answered, on one kind of server.
//!
//! What is measured is the same everywhere, the stamp in the payload. A dialect knows the rest: which path to ask for,
//! what to say after the handshake, how a publication is wrapped, and what the messages mean that carry no stamp. It
//! holds no socket and keeps no state, so all threads share one.

mod file;
mod generic;
pub mod poll;
mod sign;
mod stentor;
mod steps;
mod template;

use std::{env, path::PathBuf};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

pub use file::File;
pub use sign::Sign;
pub use steps::{Step, Steps, Waiting};
pub use template::{Template, Values};

use crate::{
    frame::Opcode,
    stamp::{Form, Stamp},
    target::Url,
    token,
};

/// Which dialect a server speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Protocol {
    /// Stentor's JSON on /ws
    #[default]
    Stentor,
    /// The bare topic on /raw/TOPIC: messages are payloads
    Raw,
    /// Stentor's long polling on /poll; publications go to /ws
    Poll,
    /// Templates given on the command line
    Generic,
}

/// The settings of a dialect.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// Which dialect.
    pub protocol: Protocol,
    /// Where publishers connect; the subscribers' address where none is given.
    pub publish_url: Option<String>,
    /// Message that subscribes to `{topic}`, sent once per topic.
    pub subscribe: Option<String>,
    /// One name to subscribe to instead of each topic's, such as `>`.
    #[serde(default)]
    pub subscribe_as: Option<String>,
    /// Message that unsubscribes from `{topic}`.
    pub unsubscribe: Option<String>,
    /// Message that publishes `{payload}` on `{topic}`.
    pub publish: Option<String>,
    /// Message sent first on every connection.
    pub greeting: Option<String>,
    /// Message that shows that a subscriber is there; a WebSocket ping where none is given.
    #[serde(default)]
    pub heartbeat: Option<String>,
    /// What a message contains that shows a subscription to be in force.
    pub ready: Option<String>,
    /// `QUESTION=>ANSWER` pairs: what to send when a message begins with QUESTION.
    pub answers: Vec<String>,
    /// Send binary messages rather than text.
    pub binary: bool,
    /// Ask for the newest value only (`all` where false).
    pub latest: bool,
    /// With `latest`: so many updates a second.
    pub latest_rate: Option<f64>,
    /// What subscribers say and wait for, instead of the messages above.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// The same of publishers.
    #[serde(default)]
    pub publisher_steps: Vec<Step>,
    /// Path to ask for where the address names none.
    #[serde(default)]
    pub path: Option<String>,
    /// The same of publishers, where theirs is another.
    #[serde(default)]
    pub publish_path: Option<String>,
    /// How requests that publish are signed.
    #[serde(default)]
    pub sign: Option<Sign>,
    /// A dialect file that has no words for publishing.
    #[serde(default)]
    pub listens_only: bool,
    /// Extra header lines of the handshake.
    pub headers: Vec<String>,
    /// Where the token is that is shown.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Names of topics, `{n}` being the number.
    pub topic: String,
}

impl Settings {
    /// With what a file says.
    #[must_use]
    pub fn with(mut self, file: &File) -> Self {
        self.path.clone_from(&file.path);
        self.publish_path.clone_from(&file.publish_path);
        self.sign.clone_from(&file.sign);
        self.headers.extend(file.headers.iter().cloned());
        self.binary |= file.binary;
        self.steps.clone_from(&file.subscriber);
        self.publisher_steps.clone_from(&file.publisher);
        self.publish.clone_from(&file.publish);
        self.listens_only = file.publish.is_none();
        self.answers.extend(file.answers.iter().cloned());
        self.heartbeat = self.heartbeat.or_else(|| file.heartbeat.clone());
        self
    }
}

/// The header lines of requests, that of the token among them, which may come from a file or is this one of the environment.
fn headers(settings: &Settings, variable: Option<String>) -> Result<Vec<String>> {
    let is_shown = settings.headers.iter().any(|line| token::is_shown_by(line));
    ensure!(
        !is_shown || settings.token_file.is_none(),
        "--token-file shows what an Authorization header shows as well: leave one of them out"
    );
    let is_ours = settings.protocol != Protocol::Generic && !is_shown;
    let token = token::find(settings.token_file.as_deref(), variable.filter(|_| is_ours))?;
    Ok(settings.headers.iter().cloned().chain(token.as_deref().map(token::header)).collect())
}

/// What a message without a stamp of this run means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing to measurement.
    Nothing,
    /// A subscription is in force; the topics that have a value, of which a snapshot must follow.
    Subscribed(Vec<usize>),
    /// A snapshot of a topic, of a value that this run did not publish.
    Snapshot(usize),
    /// Publications of a topic were left out knowingly, and announced: the first and the last, by the server's numbers.
    Skipped(usize, u64, u64),
    /// A publication of a topic that somebody else made was too large to be sent: its number.
    TooLarge(usize, u64),
    /// Something that wants this answer.
    Answer(Vec<u8>),
    /// The server is not content, and says so.
    Complaint(String),
    /// A publication that has lost its stamp.
    Unstamped,
}

/// What the bytes around a good stamp show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// A publication, with the server's own number where it gives one.
    Update(Option<u64>),
    /// The last value of a topic, sent upon subscribing.
    Snapshot,
    /// Not what the server should have put around this payload.
    Wrong,
}

/// Which publications a subscriber may never be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gaps {
    /// None.
    Never,
    /// Those that aren't the newest of their topic any more, if it is announced.
    Announced,
    /// The same, without a word.
    Silent,
}

/// One way of speaking, with everything filled in that does not change during a run.
#[derive(Clone, Debug)]
pub struct Dialect {
    settings: Settings,
    subscribe_url: Url,
    publish_url: Url,
    by_http: bool,
    steps: Steps,
    publisher_steps: Steps,
    publish: Template,
    answers: Vec<(Vec<u8>, Vec<u8>)>,
    headers: Vec<String>,
    /// Names of the topics, by index.
    pub topics: Vec<String>,
    /// Shape of the payloads.
    pub form: Form,
}

impl Dialect {
    /// Puts a dialect together for the server at `url`; `topics` overrides the names that the settings make.
    pub fn new(url: &str, settings: Settings, form: Form, topics: Vec<String>) -> Result<Self> {
        let mut subscribe_url = Url::parse(url)?;
        let by_http = settings.publish_url.as_ref().is_some_and(|url| url.starts_with("http"));
        let mut publish_url = match &settings.publish_url {
            Some(url) if by_http => Url::parse_http(url)?,
            Some(url) => Url::parse(url)?,
            None if settings.protocol == Protocol::Poll => Url { path: "/".into(), ..subscribe_url.clone() },
            None => subscribe_url.clone(),
        };
        match settings.protocol {
            Protocol::Stentor => stentor::complete(&mut subscribe_url),
            Protocol::Poll => poll::complete(&mut subscribe_url),
            Protocol::Raw => generic::complete_raw(&mut subscribe_url, &settings, false),
            Protocol::Generic => generic::complete(&mut subscribe_url, settings.path.as_ref()),
        }
        match settings.protocol {
            Protocol::Generic => {
                generic::complete(&mut publish_url, settings.publish_path.as_ref().or(settings.path.as_ref()));
            }
            _ if by_http => stentor::complete_http(&mut publish_url),
            Protocol::Stentor | Protocol::Poll => stentor::complete(&mut publish_url),
            Protocol::Raw => generic::complete_raw(&mut publish_url, &settings, settings.publish_url.is_none()),
        }
        let publish = match settings.protocol {
            Protocol::Stentor | Protocol::Raw | Protocol::Poll if by_http => Template::parse("{payload}")?,
            Protocol::Stentor | Protocol::Poll => Template::parse(stentor::PUBLISH)?,
            Protocol::Raw => Template::parse("{payload}")?,
            Protocol::Generic => Template::parse(settings.publish.as_deref().unwrap_or("{payload}"))?,
        };
        ensure!(publish.has_payload(), "--publish-template must hold {{payload}}");
        let answers = settings.answers.iter().map(|pair| generic::answer(pair)).collect::<Result<_>>()?;
        let headers = headers(&settings, env::var(token::VARIABLE).ok())?;
        let (steps, publisher_steps) = (Steps::new(&settings.steps)?, Steps::new(&settings.publisher_steps)?);
        Ok(Self {
            settings,
            subscribe_url,
            publish_url,
            by_http,
            steps,
            publisher_steps,
            publish,
            answers,
            headers,
            topics,
            form,
        })
    }

    /// Where subscribers connect.
    pub fn subscribe_url(&self) -> &Url {
        &self.subscribe_url
    }

    /// Where publishers connect.
    pub fn publish_url(&self) -> &Url {
        &self.publish_url
    }

    /// Whether publications are HTTP requests.
    pub fn publishes_by_http(&self) -> bool {
        self.by_http
    }

    /// How those are signed.
    pub fn sign(&self) -> Option<&Sign> {
        self.settings.sign.as_ref()
    }

    /// What those carry.
    pub fn content_type(&self) -> &'static str {
        match (self.settings.binary, self.form) {
            (true, _) => "application/octet-stream",
            (false, Form::Json) => "application/json",
            (false, Form::Plain) => "text/plain",
        }
    }

    /// Whether subscribers have steps to go through.
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    /// Those of publishers.
    pub fn publisher_steps(&self) -> &Steps {
        &self.publisher_steps
    }

    /// Says what is to be said from a step on; returns what is waited for next, or none where the connection is ready.
    pub fn go(&self, at: usize, topics: &[usize], say: &mut dyn FnMut(&[u8])) -> Option<Waiting> {
        self.steps.go(at, &self.names(topics), say)
    }

    /// The longest payload that a publication can carry.
    pub fn payload_max(&self) -> usize {
        self.publish.payload_max()
    }

    /// Header lines to add to a handshake, and to a request that publishes.
    pub fn headers(&self) -> &[String] {
        &self.headers
    }

    /// What may be missing, to whom is content with newest values, or isn't. What a rate leaves out is not announced, and only Stentor's JSON has
    /// words for the rest.
    pub fn gaps(&self, latest: bool) -> Gaps {
        match (latest, self.settings.latest_rate, self.settings.protocol) {
            (false, ..) => Gaps::Never,
            (true, None, Protocol::Stentor | Protocol::Poll) => Gaps::Announced,
            (true, ..) => Gaps::Silent,
        }
    }

    /// The path that a subscriber of `topics` asks for: `{topic}` in it is the first, `{topics}` all of them.
    pub fn subscribe_path(&self, topics: &[usize]) -> String {
        let names = self.names(topics);
        self.subscribe_url.path.replace("{topic}", names[0]).replace("{topics}", &names.join(","))
    }

    /// What to call `topics` when subscribing: their names, or the one that stands for all.
    fn names(&self, topics: &[usize]) -> Vec<&str> {
        match &self.settings.subscribe_as {
            Some(name) => vec![name],
            None => topics.iter().map(|&topic| self.topics[topic].as_str()).collect(),
        }
    }

    /// The path that a publisher of `topic` asks for.
    pub fn publish_path(&self, topic: usize) -> String {
        self.publish_url.path.replace("{topic}", &self.topics[topic])
    }

    /// The address names the topic, so a connection has just one.
    pub fn one_topic_per_subscriber(&self) -> bool {
        self.subscribe_url.path.contains("{topic}") && self.settings.subscribe_as.is_none()
    }

    /// The address names the topic, so a publisher has just one. Each HTTP request has an address of its own.
    pub fn one_topic_per_publisher(&self) -> bool {
        self.publish_url.path.contains("{topic}") && !self.by_http
    }

    /// Whether unsubscribing without leaving is possible.
    pub fn can_unsubscribe(&self) -> bool {
        self.settings.protocol == Protocol::Stentor || self.settings.unsubscribe.is_some()
    }

    /// Whether subscribers poll.
    pub fn polls(&self) -> bool {
        self.settings.protocol == Protocol::Poll
    }

    /// Whether the server says when a subscription is in force.
    pub fn acknowledges(&self) -> bool {
        self.settings.protocol == Protocol::Stentor
            || self.polls()
            || self.settings.ready.is_some()
            || self.steps.wait()
    }

    /// The opcode of what is sent.
    pub fn opcode(&self) -> Opcode {
        if self.settings.binary { Opcode::Binary } else { Opcode::Text }
    }

    /// The messages that a connection begins with, one callback each.
    pub fn greet(&self, say: &mut dyn FnMut(&[u8])) {
        if let Some(greeting) = &self.settings.greeting {
            say(&template::unescape(greeting));
        }
    }

    /// What shows that a subscriber is there.
    pub fn heartbeat(&self) -> (Opcode, Vec<u8>) {
        match &self.settings.heartbeat {
            Some(text) => (self.opcode(), template::unescape(text)),
            None => (Opcode::Ping, Vec::new()),
        }
    }

    /// The messages that subscribe to `topics`, or to the newest value of each.
    pub fn subscribe(&self, topics: &[usize], latest: bool, say: &mut dyn FnMut(&[u8])) {
        match self.settings.protocol {
            Protocol::Stentor => say(&stentor::subscribe(self, topics, latest)),
            Protocol::Raw | Protocol::Poll => {}
            Protocol::Generic => self.say_each(&self.settings.subscribe, topics, say),
        }
    }

    /// The messages that end the subscription to `topics`.
    pub fn unsubscribe(&self, topics: &[usize], say: &mut dyn FnMut(&[u8])) {
        match self.settings.protocol {
            Protocol::Stentor => say(&stentor::unsubscribe(self, topics)),
            Protocol::Raw | Protocol::Poll => {}
            Protocol::Generic => self.say_each(&self.settings.unsubscribe, topics, say),
        }
    }

    fn say_each(&self, template: &Option<String>, topics: &[usize], say: &mut dyn FnMut(&[u8])) {
        let Some(template) = template.as_deref().and_then(|text| Template::parse(text).ok()) else { return };
        for (nth, topic) in self.names(topics).into_iter().enumerate() {
            let mut message = Vec::new();
            let id = nth as u64 + 1;
            template.expand(&Values { topic, payload: b"", id }, &mut message);
            say(&message);
        }
    }

    /// Appends the message that publishes `payload`.
    pub fn publish(&self, topic: usize, payload: &[u8], id: u64, out: &mut Vec<u8>) {
        self.publish.expand(&Values { topic: &self.topics[topic], payload, id }, out);
    }

    /// What a message means that carries no stamp of this run.
    pub fn hear(&self, message: &[u8]) -> Heard {
        match self.settings.protocol {
            Protocol::Stentor => stentor::hear(self, message),
            Protocol::Poll => poll::hear(self, message),
            Protocol::Raw => Heard::Unstamped,
            Protocol::Generic => self.hear_generic(message),
        }
    }

    /// What stands around the good stamp whose span is `message[at..at + len]`.
    pub fn envelope(&self, stamp: &Stamp, message: &[u8], at: usize, len: usize) -> Envelope {
        let (head, tail) = (&message[..at], &message[at + len..]);
        match self.settings.protocol {
            Protocol::Stentor | Protocol::Poll => stentor::envelope(self, stamp, head, tail),
            Protocol::Raw if head == self.form.head() && tail.is_empty() => Envelope::Update(None),
            Protocol::Raw => Envelope::Wrong,
            Protocol::Generic => Envelope::Update(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn dialect(protocol: Protocol, settings: Settings) -> Dialect {
        let settings = Settings { protocol, ..settings };
        Dialect::new("ws://127.0.0.1:9001", settings, Form::Json, vec!["a".into(), "b".into()]).unwrap()
    }

    #[test]
    fn a_raw_payload_must_be_the_whole_message() {
        let raw = dialect(Protocol::Raw, Settings::default());
        let stamp = Stamp::default();
        assert_eq!(raw.envelope(&stamp, b"{\"x\":\"span", 6, 4), Envelope::Update(None));
        assert_eq!(raw.envelope(&stamp, b"{\"x\":\"span}", 6, 4), Envelope::Wrong);
        assert_eq!(raw.envelope(&stamp, b"span", 0, 4), Envelope::Wrong);
        assert_eq!(raw.hear(b"anything"), Heard::Unstamped);
    }

    #[test]
    fn a_raw_publisher_does_not_hear_itself() {
        let raw = dialect(Protocol::Raw, Settings::default());
        assert_eq!(raw.subscribe_path(&[1]), "/raw/b");
        assert_eq!(raw.publish_path(0), "/raw/a?echo=0");
        assert!(raw.one_topic_per_subscriber() && raw.one_topic_per_publisher());
    }

    #[test]
    fn an_address_may_name_all_topics_or_one_that_stands_for_them() {
        let path = |subscribe_as: Option<&str>| {
            let subscribe_as = subscribe_as.map(str::to_owned);
            let settings = Settings { protocol: Protocol::Generic, subscribe_as, ..Settings::default() };
            let dialect = Dialect::new("ws://h/{topics}", settings, Form::Json, vec!["a".into(), "b".into()]).unwrap();
            assert!(!dialect.one_topic_per_subscriber());
            dialect.subscribe_path(&[1, 0])
        };
        assert_eq!(path(None), "/b,a");
        assert_eq!(path(Some(">")), "/>");
    }

    #[test]
    fn publishers_may_have_a_path_of_their_own() {
        let settings = Settings {
            path: Some("/app".into()),
            publish_path: Some("/apps/1/events".into()),
            publish_url: Some("http://h".into()),
            ..Settings::default()
        };
        let dialect = dialect(Protocol::Generic, settings);
        assert_eq!((dialect.subscribe_path(&[0]), dialect.publish_path(0)), ("/app".into(), "/apps/1/events".into()));
    }

    #[test]
    fn the_token_of_the_environment_is_for_stentors_protocols_and_a_header_goes_before() {
        let shown = |protocol, header: Option<&str>| {
            let settings =
                Settings { protocol, headers: header.map(str::to_owned).into_iter().collect(), ..Settings::default() };
            headers(&settings, Some("s3cret".into())).unwrap()
        };
        for protocol in [Protocol::Stentor, Protocol::Raw, Protocol::Poll] {
            assert_eq!(shown(protocol, None), ["Authorization: Bearer s3cret"]);
        }
        assert_eq!(shown(Protocol::Stentor, Some("X-More: 1")), ["X-More: 1", "Authorization: Bearer s3cret"]);
        assert_eq!(shown(Protocol::Stentor, Some("authorization: Basic x")), ["authorization: Basic x"]);
        assert_eq!(shown(Protocol::Generic, None), [""; 0]);
        let both = Settings {
            headers: vec!["Authorization: Basic x".into()],
            token_file: Some("token".into()),
            ..Settings::default()
        };
        assert!(headers(&both, None).unwrap_err().to_string().contains("leave one of them out"));
    }

    #[test]
    fn a_publish_template_without_payload_is_refused() {
        let settings = Settings { protocol: Protocol::Generic, publish: Some("{topic}".into()), ..Settings::default() };
        let error = Dialect::new("ws://h/", settings, Form::Plain, Vec::new()).unwrap_err();
        assert!(error.to_string().contains("{payload}"), "{error}");
    }
}
