//! A client's text frame, read into a command.
//!
//! One frame is one JSON object. It is read in one pass over the text; nothing is copied that can be borrowed, so a `pub`
//! allocates nothing (unless its topic is written with escapes), and its `data` is passed on as the very bytes that were sent.
//! Fields that nobody knows are passed over; a field that is known and there twice is an error, since nobody could tell
//! which one counts.
//!
//! A command is taken whole or refused whole. A refusal carries a code for programs, a sentence for people, and the
//! command's `id` wherever it could be read, even if the JSON breaks off behind it.
//!
//! What a name means, whether the sender may do this, and how many subscriptions it already has, is the worker's business;
//! here names are only checked for their form.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, hash_map::Entry},
    fmt,
    str::FromStr,
};

use super::{
    code::ErrorCode,
    cursor::{Cursor, Garbled},
    json::Json,
    name::{self, NameError, Topic},
    object::{Entries, Fields, ObjectError, Text, kind, shown, string},
};
use crate::counted::counted;

/// What a client asks for.
#[derive(Debug)]
pub struct Command<'a> {
    /// What to echo in the answer.
    pub id: Option<Id<'a>>,
    /// What to do.
    pub op: Op<'a>,
}

/// The commands there are.
#[derive(Debug)]
pub enum Op<'a> {
    /// Subscribe, or change a subscription's mode and rate.
    Sub(Sub<'a>),
    /// End subscriptions, named as they were subscribed to.
    Unsub {
        /// Topics and patterns, each once, at least one.
        topics: Vec<Cow<'a, str>>,
    },
    /// Tell me my subscriptions.
    List,
    /// Publish.
    Pub {
        /// Where to.
        topic: Cow<'a, str>,
        /// Any JSON value, as it was written.
        data: Json<'a>,
    },
    /// Show the right to publish.
    Auth {
        /// The secret.
        token: Cow<'a, str>,
    },
    /// Answer with a pong.
    Ping,
}

/// A subscription as it was asked for.
#[derive(Debug)]
pub struct Sub<'a> {
    /// Topics and patterns, each once, at least one.
    pub topics: Vec<Cow<'a, str>>,
    /// How to deliver.
    pub mode: Mode,
    /// With [`Mode::Latest`]: at most so many updates a second for each topic; finite and above 0.
    pub rate: Option<f64>,
    /// Whether to begin with each topic's last value.
    pub snapshot: bool,
    /// Where to resume, for some of the topics, and for no patterns. Where there are patterns among `topics`, one of them has to
    /// stand for it: that is for the worker to see, which needs them in order for more than this.
    pub from: HashMap<Cow<'a, str>, ResumePoint<'a>>,
    /// Where to resume all of them; instead of `from`. What is no cursor is one that is good no more.
    pub cursor: Option<Result<Cursor, Garbled>>,
}

/// The last publication of a topic that a subscriber has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumePoint<'a> {
    /// The numbering that `seq` belongs to.
    pub epoch: Cow<'a, str>,
    /// Its number, below 2^53.
    pub seq: u64,
}

/// How a subscription is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Every publication.
    #[default]
    All,
    /// The newest value, as often as the subscriber can take it.
    Latest,
}

impl Mode {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::All => "all",
            Mode::Latest => "latest",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Mode::All),
            "latest" => Ok(Mode::Latest),
            _ => Err(format!("expected all or latest, found {}", shown(text))),
        }
    }
}

/// A command's `id`: the JSON text of a string or a number, to be echoed as it was written.
#[derive(Clone, Copy)]
pub struct Id<'a>(&'a str);

impl<'a> Id<'a> {
    /// The JSON text, quotes included.
    pub fn json(self) -> &'a str {
        self.0
    }

    /// The id whose [`Id::json`] this is: of a command that is answered later.
    pub fn again(json: &'a str) -> Self {
        Id(json)
    }

    fn new(value: Json<'a>) -> Option<Self> {
        let text = value.get();
        matches!(kind(text), "a string" | "a number").then_some(Id(text))
    }
}

impl fmt::Debug for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Why a command was refused.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct CommandError<'a> {
    /// The command's id, where it could be read.
    pub id: Option<Id<'a>>,
    /// One of `bad_json`, `bad_command`, `unknown_op`, `bad_topic` and `too_many`.
    pub code: ErrorCode,
    /// One sentence: what was expected, what was found.
    pub message: String,
}

/// What the server allows in one command.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest name of a topic or pattern, in bytes (`--max-topic-length`).
    pub topic_length_max: usize,
    /// Most names in one command (`--max-subscriptions`).
    pub topics_max: usize,
}

impl<'a> Command<'a> {
    /// Reads one text frame.
    ///
    /// # Errors
    /// Not JSON, not an object, an op that nobody knows, a field that is missing, of the wrong type or there twice, a name
    /// that breaks the rules, or too many of them.
    pub fn parse(frame: &'a str, limits: &Limits) -> Result<Self, CommandError<'a>> {
        let mut fields = Fields::new(&FIELDS);
        let read = fields.read(frame);
        let given = fields.get(ID);
        // An id that was given twice is nobody's.
        let id = match &read {
            Err(ObjectError::Twice(field)) if *field == FIELDS[ID] => None,
            _ => given.and_then(Id::new),
        };
        let op = || {
            read.map_err(Refusal::object)?;
            match (given, id) {
                (Some(other), None) => Err(Refusal::wrong("id", "a string or a number", other)),
                _ => Op::read(&fields, limits),
            }
        };
        match op() {
            Ok(op) => Ok(Command { id, op }),
            Err(Refusal { code, message }) => Err(CommandError { id, code, message }),
        }
    }
}

impl<'a> Op<'a> {
    fn read(fields: &Known<'a>, limits: &Limits) -> Result<Self, Refusal> {
        let op = need(fields, OP, "the command")?;
        match string(op).as_deref() {
            Some("pub") => {
                let topic = need_string(fields, TOPIC, "pub")?;
                Topic::check(&topic, limits.topic_length_max).map_err(|error| Refusal::name(&topic, error))?;
                Ok(Op::Pub { topic, data: need(fields, DATA, "pub")? })
            }
            Some("sub") => Sub::read(fields, limits).map(Op::Sub),
            Some("unsub") => Ok(Op::Unsub { topics: read_topics(need(fields, TOPICS, "unsub")?, limits)? }),
            Some("list") => Ok(Op::List),
            Some("auth") => Ok(Op::Auth { token: need_string(fields, TOKEN, "auth")? }),
            Some("ping") => Ok(Op::Ping),
            Some(other) => Err(Refusal {
                code: ErrorCode::UnknownOp,
                message: format!("expected op sub, unsub, list, pub, auth or ping, found {}", shown(other)),
            }),
            None => Err(Refusal::wrong("op", "a string", op)),
        }
    }
}

impl<'a> Sub<'a> {
    /// The subscription that an address asks for: `?topics=a,b&mode=latest&rate=4`, each value already unescaped.
    ///
    /// # Errors
    /// As for a `sub` command.
    pub fn from_query(
        topics: &'a str,
        mode: Option<&str>,
        rate: Option<&str>,
        limits: &Limits,
    ) -> Result<Self, CommandError<'a>> {
        let read = || {
            let topics = check_topics(topics.split(',').map(Cow::Borrowed), limits)?;
            let mode = mode.map_or(Ok(Mode::All), read_mode)?;
            let rate = rate.map(|rate| read_rate(rate).ok_or_else(|| Refusal::rate(&shown(rate)))).transpose()?;
            Sub { topics, mode, rate, snapshot: true, from: HashMap::new(), cursor: None }.checked()
        };
        read().map_err(|Refusal { code, message }| CommandError { id: None, code, message })
    }

    fn read(fields: &Known<'a>, limits: &Limits) -> Result<Self, Refusal> {
        let topics = read_topics(need(fields, TOPICS, "sub")?, limits)?;
        let mode = match fields.get(MODE) {
            None => Mode::All,
            Some(value) => read_mode(&string(value).ok_or_else(|| Refusal::wrong("mode", "all or latest", value))?)?,
        };
        let rate = match fields.get(RATE) {
            None => None,
            Some(value) => Some(read_rate(value.get()).ok_or_else(|| Refusal::rate(&shown(value.get())))?),
        };
        let snapshot = match fields.get(SNAPSHOT).map(|value| (value, value.get())) {
            None | Some((_, "true")) => true,
            Some((_, "false")) => false,
            Some((value, _)) => return Err(Refusal::wrong("snapshot", "true or false", value)),
        };
        let (from, cursor) = match fields.get(FROM).map(|value| (value, string(value))) {
            None => (HashMap::new(), None),
            Some((_, Some(word))) => (HashMap::new(), Some(Cursor::parse(&word))),
            Some((value, None)) => (read_from(value, &topics)?, None),
        };
        Sub { topics, mode, rate, snapshot, from, cursor }.checked()
    }

    /// Checks what no field can be wrong about alone.
    fn checked(self) -> Result<Self, Refusal> {
        if self.rate.is_some() && self.mode == Mode::All {
            return Err(Refusal::command("rate", "goes with mode latest only, found mode all"));
        }
        Ok(self)
    }
}

/// Reads and checks a list of names; each is kept once.
fn read_topics<'a>(value: Json<'a>, limits: &Limits) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let names: Vec<Text<'a>> =
        serde_json::from_str(value.get()).map_err(|_| Refusal::wrong("topics", "a list of strings", value))?;
    check_topics(names.into_iter().map(|Text(name)| name), limits)
}

fn check_topics<'a>(names: impl Iterator<Item = Cow<'a, str>>, limits: &Limits) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let mut topics = Vec::new();
    let mut seen = HashSet::new();
    for name in names {
        name::check_pattern(&name, limits.topic_length_max).map_err(|error| Refusal::name(&name, error))?;
        if seen.insert(name.clone()) {
            topics.push(name);
        }
        // How many there are in all is nothing that is worth finding out.
        if topics.len() > limits.topics_max {
            let most = limits.topics_max;
            let most = counted(most, "name");
            let message = format!("topics: expected at most {most} (--max-subscriptions), found more");
            return Err(Refusal { code: ErrorCode::TooMany, message });
        }
    }
    match topics.len() {
        0 => Err(Refusal::command("topics", "expected at least one name, found an empty list")),
        _ => Ok(topics),
    }
}

fn read_mode(text: &str) -> Result<Mode, Refusal> {
    text.parse().map_err(|error: String| Refusal::command("mode", &error))
}

/// A rate: a finite number above 0.
fn read_rate(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate > 0.0)
}

/// Reads `{"TOPIC":["EPOCH",SEQ],…}`, whose topics must be among those subscribed to, unless a pattern may stand for them.
fn read_from<'a>(value: Json<'a>, topics: &[Cow<'a, str>]) -> Result<HashMap<Cow<'a, str>, ResumePoint<'a>>, Refusal> {
    let Ok(Entries(entries)) = serde_json::from_str(value.get()) else {
        return Err(Refusal::wrong("from", "an object or a cursor", value));
    };
    let has_patterns = topics.iter().any(|topic| name::is_pattern(topic));
    let topics: HashSet<&str> = topics.iter().map(|topic| &**topic).collect();
    let mut points = HashMap::with_capacity(entries.len());
    for (topic, point) in entries {
        if name::is_pattern(&topic) || !(has_patterns || topics.contains(&*topic)) {
            return Err(Refusal { code: ErrorCode::BadTopic, message: unrelated(&topic) });
        }
        let point = read_point(point).ok_or_else(|| {
            Refusal::command(
                "from",
                &format!("expected [epoch, seq] for {}, found {}", shown(&topic), shown(point.get())),
            )
        })?;
        match points.entry(topic) {
            Entry::Vacant(place) => drop(place.insert(point)),
            Entry::Occupied(place) => {
                let name = shown(place.key());
                return Err(Refusal::command("from", &format!("expected {name} once, found it twice")));
            }
        }
    }
    Ok(points)
}

/// What is wrong with a topic to resume that is none of those subscribed to.
pub fn unrelated(topic: &str) -> String {
    format!("from: expected a topic among those subscribed to, no pattern, found {}", shown(topic))
}

fn read_point(value: Json<'_>) -> Option<ResumePoint<'_>> {
    let (Text(epoch), seq): (Text<'_>, u64) = serde_json::from_str(value.get()).ok()?;
    (seq < SEQ_END).then_some(ResumePoint { epoch, seq })
}

#[expect(clippy::indexing_slicing, reason = "fields are named by the constants below")]
fn need<'a>(fields: &Known<'a>, field: usize, op: &str) -> Result<Json<'a>, Refusal> {
    let missing =
        || Refusal { code: ErrorCode::BadCommand, message: format!("{op} needs the field {:?}", FIELDS[field]) };
    fields.get(field).ok_or_else(missing)
}

#[expect(clippy::indexing_slicing, reason = "fields are named by the constants below")]
fn need_string<'a>(fields: &Known<'a>, field: usize, op: &str) -> Result<Cow<'a, str>, Refusal> {
    let value = need(fields, field, op)?;
    string(value).ok_or_else(|| Refusal::wrong(FIELDS[field], "a string", value))
}

/// A [`CommandError`] that doesn't know the command's id.
struct Refusal {
    code: ErrorCode,
    message: String,
}

impl Refusal {
    fn object(error: ObjectError) -> Self {
        let code = match error {
            ObjectError::Json(_) => ErrorCode::BadJson,
            ObjectError::TooDeep(_) => ErrorCode::TooDeep,
            ObjectError::NotObject(_) | ObjectError::Twice(_) => ErrorCode::BadCommand,
        };
        Refusal { code, message: error.to_string() }
    }

    fn command(field: &str, what: &str) -> Self {
        Refusal { code: ErrorCode::BadCommand, message: format!("{field}: {what}") }
    }

    fn wrong(field: &str, expected: &str, found: Json<'_>) -> Self {
        let found = found.get();
        let found = if found.len() <= 32 && !found.starts_with(['{', '[']) { found } else { kind(found) };
        Refusal::command(field, &format!("expected {expected}, found {found}"))
    }

    fn rate(found: &str) -> Self {
        Refusal::command("rate", &format!("expected a number above 0, found {found}"))
    }

    fn name(name: &str, error: NameError) -> Self {
        Refusal { code: ErrorCode::BadTopic, message: format!("topic {}: {error}", shown(name)) }
    }
}

type Known<'a> = Fields<'a, { FIELDS.len() }>;

/// Every field of every command; those of `pub` first, since they are looked up for each publication.
const FIELDS: [&str; 10] = ["op", "topic", "data", "id", "topics", "mode", "rate", "snapshot", "from", "token"];
const OP: usize = 0;
const TOPIC: usize = 1;
const DATA: usize = 2;
const ID: usize = 3;
const TOPICS: usize = 4;
const MODE: usize = 5;
const RATE: usize = 6;
const SNAPSHOT: usize = 7;
const FROM: usize = 8;
const TOKEN: usize = 9;

/// Numbers stay below this so that a client whose only numbers are doubles can count them.
const SEQ_END: u64 = 1 << 53;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::cursor::Instance;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { topic_length_max: 16, topics_max: 4 };

    fn parse(frame: &str) -> Command<'_> {
        Command::parse(frame, &LIMITS).unwrap_or_else(|error| panic!("{frame}: {error}"))
    }

    fn refused(frame: &str) -> (Option<&str>, &'static str, String) {
        let error = Command::parse(frame, &LIMITS).expect_err(frame);
        (error.id.map(Id::json), error.code.as_str(), error.message)
    }

    #[test]
    fn a_publication_borrows_its_topic_and_keeps_its_bytes() {
        let frame = r#"{"data": {"bid":189.210, "x":"\u00e9"} ,"topic":"q.us","id":"a\"b","op":"pub","more":[{}]}"#;
        let command = parse(frame);
        assert_eq!(command.id.map(Id::json), Some(r#""a\"b""#));
        let Op::Pub { topic: Cow::Borrowed("q.us"), data } = command.op else { panic!("{command:?}") };
        assert_eq!(data.get(), r#"{"bid":189.210, "x":"\u00e9"}"#);
    }

    #[test]
    fn a_topic_with_escapes_is_read_all_the_same() {
        let Op::Pub { topic, .. } = parse(r#"{"op":"p\u0075b","topic":"q\u002eus","data":null}"#).op else { panic!() };
        assert_eq!(topic, "q.us");
    }

    #[test]
    fn a_subscription_has_defaults() {
        let Op::Sub(sub) = parse(r#"{"op":"sub","topics":["q.us","t.>","q.us"]}"#).op else { panic!() };
        assert_eq!(sub.topics, ["q.us", "t.>"]);
        assert_eq!((sub.mode, sub.rate, sub.snapshot, sub.from.len()), (Mode::All, None, true, 0));
    }

    #[test]
    fn a_subscription_says_how_and_from_where() {
        let frame =
            r#"{"op":"sub","topics":["a","b"],"mode":"latest","rate":2.5,"snapshot":false,"from":{"a":["k3",9]}}"#;
        let Op::Sub(sub) = parse(frame).op else { panic!() };
        assert_eq!((sub.mode, sub.rate, sub.snapshot), (Mode::Latest, Some(2.5), false));
        assert_eq!(sub.from["a"], ResumePoint { epoch: "k3".into(), seq: 9 });
        assert_eq!(sub.cursor, None);
    }

    #[test]
    fn a_subscription_resumes_by_a_cursor_whatever_its_names_and_what_is_none_is_no_error() {
        let parsed = |from: &str| {
            let frame = format!(r#"{{"op":"sub","topics":["a","t.>"],"from":"{from}"}}"#);
            let Op::Sub(sub) = parse(&frame).op else { panic!() };
            assert!(sub.from.is_empty());
            sub.cursor.unwrap()
        };
        let cursor = Cursor { tape: Instance(1), at: 2, begins: false };
        assert_eq!(parsed(&cursor.to_string()), Ok(cursor));
        for none in ["", "k3:7", "\\u00e9", &"x".repeat(4000)] {
            assert!(parsed(none).is_err(), "{none}");
        }
    }

    #[test]
    fn an_address_can_subscribe() {
        let sub = Sub::from_query("a,b.*", Some("latest"), Some("4"), &LIMITS).unwrap();
        assert_eq!((sub.topics.len(), sub.mode, sub.rate, sub.snapshot), (2, Mode::Latest, Some(4.0), true));
        for (topics, mode, rate, code) in [
            ("", None, None, "bad_topic"),
            ("a,,b", None, None, "bad_topic"),
            ("a", Some("some"), None, "bad_command"),
            ("a", Some("latest"), Some("0"), "bad_command"),
            ("a", None, Some("4"), "bad_command"),
            ("a,b,c,d,e", None, None, "too_many"),
        ] {
            assert_eq!(Sub::from_query(topics, mode, rate, &LIMITS).unwrap_err().code.as_str(), code, "{topics}");
        }
    }

    #[test]
    fn the_small_commands_are_read() {
        assert!(matches!(parse(r#"{"op":"list"}"#).op, Op::List));
        assert!(matches!(parse(r#"{"op":"ping","id":-1.5e3}"#), Command { id: Some(Id("-1.5e3")), op: Op::Ping }));
        assert!(matches!(parse(r#"{"op":"auth","token":"s"}"#).op, Op::Auth { token } if token == "s"));
        assert!(matches!(parse(r#"{"op":"unsub","topics":["a"]}"#).op, Op::Unsub { topics } if topics == ["a"]));
    }

    #[test]
    fn a_refusal_has_a_code_and_echoes_the_id_that_could_be_read() {
        for (frame, id, code) in [
            ("", None, "bad_json"),
            ("hello", None, "bad_json"),
            (r#"{"id":7,"op":"ping""#, Some("7"), "bad_json"),
            (r#"{"id":7,"op":"ping"} {}"#, Some("7"), "bad_json"),
            ("[]", None, "bad_command"),
            ("{}", None, "bad_command"),
            (r#"{"op":7,"id":"x"}"#, Some(r#""x""#), "bad_command"),
            (r#"{"op":"fly","id":1}"#, Some("1"), "unknown_op"),
            (r#"{"op":"ping","id":null}"#, None, "bad_command"),
            (r#"{"op":"ping","id":[1]}"#, None, "bad_command"),
            (r#"{"op":"ping","id":1,"id":2}"#, None, "bad_command"),
            (r#"{"op":"ping","op":"list","id":2}"#, Some("2"), "bad_command"),
            (r#"{"op":"pub","topic":"a","id":1}"#, Some("1"), "bad_command"),
            (r#"{"op":"pub","data":1,"id":1}"#, Some("1"), "bad_command"),
            (r#"{"op":"pub","topic":5,"data":1,"id":1}"#, Some("1"), "bad_command"),
            (r#"{"op":"pub","topic":"a.*","data":1,"id":1}"#, Some("1"), "bad_topic"),
            (r#"{"op":"sub","id":1}"#, Some("1"), "bad_command"),
            (r#"{"op":"sub","id":1,"topics":[]}"#, Some("1"), "bad_command"),
            (r#"{"op":"sub","id":1,"topics":"a"}"#, Some("1"), "bad_command"),
            (r#"{"op":"sub","id":1,"topics":["a",1]}"#, Some("1"), "bad_command"),
            (r#"{"op":"sub","id":1,"topics":["a","b","c","d","e"]}"#, Some("1"), "too_many"),
            (r#"{"op":"sub","id":1,"topics":["a"],"mode":"some"}"#, Some("1"), "bad_command"),
            (r#"{"op":"sub","id":1,"topics":["a"],"rate":4}"#, Some("1"), "bad_command"),
            (r#"{"op":"sub","id":1,"topics":["a"],"mode":"latest","rate":"4"}"#, Some("1"), "bad_command"),
            (r#"{"op":"sub","id":1,"topics":["a"],"mode":"latest","rate":0}"#, Some("1"), "bad_command"),
            (r#"{"op":"sub","id":1,"topics":["a"],"mode":"latest","rate":1e999}"#, Some("1"), "bad_command"),
            (r#"{"op":"sub","id":1,"topics":["a"],"snapshot":0}"#, Some("1"), "bad_command"),
            (r#"{"op":"sub","id":1,"topics":["a"],"from":[]}"#, Some("1"), "bad_command"),
            (r#"{"op":"sub","id":1,"topics":["a"],"from":{"a":["k",-1]}}"#, Some("1"), "bad_command"),
            (r#"{"op":"sub","id":1,"topics":["a"],"from":{"a":["k",9007199254740992]}}"#, Some("1"), "bad_command"),
            (r#"{"op":"sub","id":1,"topics":["a"],"from":{"a":["k",1],"a":["k",2]}}"#, Some("1"), "bad_command"),
            (r#"{"op":"sub","id":1,"topics":["a"],"from":{"b":["k",1]}}"#, Some("1"), "bad_topic"),
            (r#"{"op":"sub","id":1,"topics":["*"],"from":{"*":["k",1]}}"#, Some("1"), "bad_topic"),
            (r#"{"op":"auth","id":1}"#, Some("1"), "bad_command"),
        ] {
            let refusal = refused(frame);
            assert_eq!((refusal.0, refusal.1), (id, code), "{frame}: {}", refusal.2);
        }
    }

    #[test]
    fn the_first_bad_topic_is_named() {
        let (_, _, message) = refused(r#"{"op":"sub","topics":["a","b..c","d.>.e"]}"#);
        assert!(message.contains(r#""b..c""#) && message.contains("byte 2"), "{message}");
        let (_, _, message) = refused(r#"{"op":"pub","topic":"aaaaaaaaaaaaaaaaa","data":1}"#);
        assert!(message.contains("at most 16 bytes, found 17"), "{message}");
    }

    #[test]
    fn a_refusal_never_grows_with_what_was_sent() {
        let long = "x".repeat(50_000);
        for frame in [format!(r#"{{"op":"{long}"}}"#), format!(r#"{{"op":"pub","topic":"{long}é","data":1}}"#)] {
            assert!(refused(&frame).2.len() < 300);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered_without_a_panic(frame in "\\PC{0,40}") {
            let _ = Command::parse(&frame, &LIMITS);
        }

        #[test]
        fn a_command_cut_anywhere_is_refused(cut in 0usize..71) {
            let frame = r#"{"op":"sub","id":3,"topics":["t.us.AAPL"],"from":{"t.us.AAPL":["k",9]}}"#;
            let (id, code, _) = refused(&frame[..cut]);
            prop_assert_eq!(code, "bad_json");
            prop_assert!(cut < 19 || id == Some("3"));
        }
    }
}
