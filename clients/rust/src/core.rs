//! The protocol as a client sees it, without sockets, threads or clocks: messages in, events and commands out.
//!
//! It keeps what the program wants, and for each topic seen where it stands (`topics`). With this every number is accounted for: what comes twice is told once, what is missing is fetched, or told.
//!
//! After a loss everything is asked for again. In mode `all` topics go on where they were left: all at once, if the server gives cursors, else each by its own point, as many as the server lets one
//! name. A `ping` goes behind it, and its answer comes behind all snapshots: a topic that nothing was heard of until then can't be continued, and is told as a [`Reset`](crate::Reset). What the new
//! server numbers otherwise is a reset too, and never a gap.
//!
//! Memory: a small record for each topic, up to a bound, and what waits for its answer.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    mem,
};

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    event::{Error, Event, Receipt, Status, Update},
    messages::Publication,
    names::{Point, split},
    subscription::{From, How, Mode},
    topics::{Arrival, Broken, Topics, Want},
};

/// Of a command that carries many names, what isn't names.
const COMMAND_BYTES: usize = 256;

/// What a server that says nothing else allows: names of one connection, bytes of one message.
const TOPICS_MAX: i64 = 1024;
const MESSAGE_MAX: usize = 65_536;

/// Codes of refusals that are about this moment: a name that was taken before will be taken again.
const PASSING: [&str; 3] = ["server_full", "address_full", "draining"];

/// What waits for its answer.
enum Asked {
    Sub {
        /// All of those that were asked for together, and those of this command.
        names: Vec<String>,
        part: Vec<String>,
        points: HashMap<String, Point>,
        cursor: Option<String>,
        misses: bool,
        extra: Vec<String>,
    },
    /// Last values of these have come.
    Known(Vec<String>),
    /// The same, behind a greeting.
    Synced(Vec<String>),
    Publish(u64),
    Ping(u64),
    Nothing,
}

/// A message of the server, as far as it is known.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    id: Option<u64>,
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    #[serde(borrow)]
    epoch: Option<Cow<'a, str>>,
    seq: Option<u64>,
    ts: Option<u64>,
    from: Option<u64>,
    to: Option<u64>,
    #[serde(borrow)]
    why: Option<Cow<'a, str>>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
    #[serde(borrow)]
    cursor: Option<Cow<'a, str>>,
    #[serde(borrow)]
    server: Option<Cow<'a, str>>,
    #[serde(default)]
    key: bool,
    #[serde(default)]
    stale: bool,
    topics: Option<Value>,
    limits: Option<Value>,
    heartbeat: Option<f64>,
    retry_ms: Option<Value>,
    since: Option<u64>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    base64: Option<Cow<'a, str>>,
}

/// Of any message.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

const KINDS: [&str; 11] =
    ["hello", "update", "snapshot", "ack", "pong", "subscriptions", "error", "skip", "reset", "status", "heartbeat"];

/// What the server said in its greeting.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    /// Seconds between signs of life; nought for none.
    pub heartbeat: f64,
    topics_max: i64,
    message_max: usize,
}

/// What a client knows.
pub(crate) struct Core {
    pub topics: Topics,
    /// Commands to be sent.
    pub out: Vec<String>,
    asked: BTreeMap<u64, Asked>,
    asking: u64,
    calls: u64,
    /// The greeting, while there is a connection.
    pub hello: Option<Hello>,
    /// Up to here everything has come, if the server says so.
    pub cursor: Option<String>,
    /// The window, in milliseconds, in which the server wants us back.
    pub window: Option<(f64, f64)>,
    /// What the last message about its end was.
    pub farewell: String,
    /// The server has asked for another token.
    pub expiring: bool,
    /// Behind a greeting, until all last values have come.
    is_syncing: bool,
}

impl Core {
    pub fn new(topics_max: usize) -> Core {
        Core {
            topics: Topics::new(topics_max),
            out: Vec::new(),
            asked: BTreeMap::new(),
            asking: 0,
            calls: 0,
            hello: None,
            cursor: None,
            window: None,
            farewell: String::new(),
            expiring: false,
            is_syncing: false,
        }
    }

    // ---- What the program says -----------------------------------------------------------------------------------------

    pub fn subscribe(&mut self, names: Vec<String>, how: &How) {
        self.calls += 1;
        for name in &names {
            let mut want = Want::new(how.clone());
            if let Some(known) = self.topics.wants.get(name) {
                want = Want { how: how.clone(), is_alone: false, ..known.clone() };
            }
            want.call = self.calls;
            self.topics.wants.insert(name.clone(), want);
        }
        self.topics.list_patterns();
        if self.hello.is_some() && !names.is_empty() {
            // Those that were told already and those that weren't don't differ here: nothing is resumed.
            self.ask_for(&names, None);
            self.ask(json!({"op": "ping"}), Asked::Known(names));
        }
    }

    pub fn unsubscribe(&mut self, names: &[String]) {
        let ended: Vec<String> =
            names.iter().filter(|name| self.topics.wants.remove(*name).is_some()).cloned().collect();
        self.topics.forget(&ended);
        if self.hello.is_some() {
            self.leave(&ended);
        }
    }

    /// Publishes JSON; the number that its outcome is told with.
    pub fn publish(&mut self, topic: &str, raw: &str) -> Result<u64, Error> {
        let Some(hello) = &self.hello else { return Err(Error::new("disconnected", "there is no connection now")) };
        let ticket = self.asking + 1;
        let message = format!(r#"{{"op":"pub","id":{ticket},"topic":{},"data":{raw}}}"#, Value::from(topic));
        if message.len() > hello.message_max {
            let text = format!("the message is of {} bytes, the server takes {}", message.len(), hello.message_max);
            return Err(Error::new("too_large", text));
        }
        self.asking = ticket;
        self.asked.insert(ticket, Asked::Publish(ticket));
        self.out.push(message);
        Ok(ticket)
    }

    /// Asks for a sign of life; the number that it is told with.
    pub fn ping(&mut self) -> Result<u64, Error> {
        if self.hello.is_none() {
            return Err(Error::new("disconnected", "there is no connection now"));
        }
        let ticket = self.asking + 1;
        self.ask(json!({"op": "ping"}), Asked::Ping(ticket));
        Ok(ticket)
    }

    /// Publications that wait for their answers.
    pub fn unanswered(&self) -> usize {
        self.asked.values().filter(|asked| matches!(asked, Asked::Publish(_))).count()
    }

    pub fn ask_cursor(&mut self) {
        self.ask(json!({"op": "ping"}), Asked::Nothing);
    }

    pub fn show(&mut self, token: &str) {
        self.ask(json!({"op": "auth", "token": token}), Asked::Nothing);
    }

    fn ask(&mut self, mut command: Value, asked: Asked) {
        self.asking += 1;
        command["id"] = self.asking.into();
        self.asked.insert(self.asking, asked);
        self.out.push(command.to_string());
    }

    // ---- What the connection says --------------------------------------------------------------------------------------

    /// The connection is gone.
    pub fn lost(&mut self) {
        self.hello = None;
        self.expiring = false;
        self.out.clear();
        self.topics.lost();
        if mem::take(&mut self.topics.has_gap) {
            self.cursor = None; // It may be behind what is missing.
        }
        for (_, asked) in mem::take(&mut self.asked) {
            if let Asked::Publish(ticket) = asked {
                let error = Error::new("disconnected", "the connection ended before the answer came");
                self.topics.events.push_back(Event::Published { ticket, outcome: Err(error) });
            }
        }
    }

    /// One message. An error: no more of this connection is to be read.
    pub fn read(&mut self, text: &str) -> Result<(), Broken> {
        match Publication::of(text) {
            Some(found) if self.hello.is_some() => self.topics.publication(&found),
            _ => self.read_any(text),
        }
    }

    fn read_any(&mut self, text: &str) -> Result<(), Broken> {
        let message: Message<'_> = match serde_json::from_str(text) {
            Ok(message) => message,
            Err(error) => {
                return match serde_json::from_str::<Kind<'_>>(text) {
                    Ok(Kind { kind }) if !KINDS.contains(&&*kind) => Ok(()),
                    Ok(Kind { kind }) => Err(Broken(format!("a {kind} that is not as it should be: {error}"))),
                    Err(_) => Err(Broken("the server sent what is not a message".into())),
                };
            }
        };
        let lacks = |field: &str| Broken(format!("a {} that lacks what it should have: {field}", message.kind));
        let topic = || message.topic.as_deref().ok_or_else(|| lacks("topic"));
        let seq = || message.seq.ok_or_else(|| lacks("seq"));
        if message.kind == "hello" {
            self.greet(&message);
            return Ok(());
        }
        if self.hello.is_none() {
            if message.kind == "error" {
                self.farewell = message.message.as_deref().unwrap_or_default().into();
            }
            return Ok(());
        }
        match &*message.kind {
            "update" => {
                let update = update(&message)?;
                self.topics.arrive(topic()?, seq()?, seq()?, message.epoch.as_deref(), Arrival::Update(update))?;
            }
            "snapshot" => {
                let epoch = message.epoch.as_deref().ok_or_else(|| lacks("epoch"))?;
                self.topics.stand(topic()?, seq()?, seq()?, epoch, Arrival::Update(update(&message)?));
            }
            "ack" | "pong" | "subscriptions" => {
                if let Some(asked) = message.id.and_then(|id| self.asked.remove(&id)) {
                    self.answered(asked, &message)?;
                }
            }
            "error" => self.error(&message)?,
            "skip" => {
                let (first, last) =
                    (message.from.ok_or_else(|| lacks("from"))?, message.to.ok_or_else(|| lacks("to"))?);
                let why = message.why.as_deref().unwrap_or_default();
                self.topics.skip(topic()?, first, last, message.epoch.as_deref(), why)?;
            }
            "reset" => {
                let epoch = message.epoch.as_deref().ok_or_else(|| lacks("epoch"))?;
                self.topics.reset(topic()?, epoch, seq()?, message.why.as_deref().unwrap_or_default());
            }
            "status" => self.status(&message)?,
            _ => {}
        }
        if let Some(cursor) = message.cursor.as_deref().filter(|_| ["pong", "heartbeat"].contains(&&*message.kind))
            && self.topics.wants.values().all(|want| want.is_told)
        {
            // Everything up to there has come: of names whose last values have, too.
            self.cursor = Some(cursor.into());
        }
        Ok(())
    }

    fn greet(&mut self, message: &Message<'_>) {
        let limit = |name: &str| message.limits.as_ref().and_then(|limits| limits.get(name)?.as_u64());
        let hello = Hello {
            heartbeat: message.heartbeat.unwrap_or_default().clamp(0.0, 86_400.0),
            topics_max: limit("topics").and_then(|most| i64::try_from(most).ok()).unwrap_or(TOPICS_MAX),
            message_max: limit("message").and_then(|most| usize::try_from(most).ok()).unwrap_or(MESSAGE_MAX),
        };
        let mut room = hello.topics_max.saturating_sub_unsigned(self.topics.wants.len() as u64);
        self.hello = Some(hello);
        self.farewell.clear();
        self.window = None;
        let message = message.server.as_deref().unwrap_or_default().into();
        let status = Status { code: "connected".into(), message, ..Status::default() };
        self.topics.events.push_back(Event::Status(status));
        (self.topics.by_cursor, self.topics.is_void) = (false, false);
        let mut names: Vec<String> = self.topics.wants.keys().cloned().collect();
        names.sort_unstable();
        let mut groups: Vec<Vec<String>> = Vec::new();
        for name in &names {
            let alike = |group: &&mut Vec<String>| {
                group.first().is_some_and(|first| self.topics.wants[first].is_alike(&self.topics.wants[name]))
            };
            match groups.iter_mut().find(alike) {
                Some(group) => group.push(name.clone()),
                None => groups.push(vec![name.clone()]),
            }
        }
        for group in groups {
            self.ask_for(&group, Some(&mut room));
        }
        self.is_syncing = !names.is_empty();
        if self.is_syncing {
            self.ask(json!({"op": "ping"}), Asked::Synced(names));
        }
    }

    fn answered(&mut self, asked: Asked, answer: &Message<'_>) -> Result<(), Broken> {
        match asked {
            Asked::Sub { names, points, cursor, misses, extra, .. } => {
                // The answer says where it begins: elsewhere, if the cursor was good no more.
                if cursor.is_some() && answer.cursor.is_some() && cursor.as_deref() != answer.cursor.as_deref() {
                    self.topics.is_void = true;
                }
                self.taken(&names, &points, answer, misses, &extra)?;
            }
            Asked::Known(names) => {
                self.know(&names);
                // Else the ping behind the greeting tells it.
                if !self.is_syncing && !self.asks_again(&names) {
                    self.topics.events.push_back(Event::Current);
                }
            }
            Asked::Synced(names) => {
                self.know(&names);
                if !self.asks_again(&names) {
                    self.is_syncing = false;
                    self.topics.settle();
                    self.topics.events.push_back(Event::Current);
                }
            }
            Asked::Publish(ticket) => {
                let receipt = Receipt {
                    topic: answer.topic.as_deref().unwrap_or_default().into(),
                    seq: answer.seq.unwrap_or_default(),
                    ts: answer.ts.unwrap_or_default(),
                };
                self.topics.events.push_back(Event::Published { ticket, outcome: Ok(receipt) });
            }
            Asked::Ping(ticket) => self.topics.events.push_back(Event::Pong { ticket }),
            Asked::Nothing => {}
        }
        Ok(())
    }

    fn error(&mut self, message: &Message<'_>) -> Result<(), Broken> {
        let code = message.code.as_deref().unwrap_or_default();
        let said = message.message.as_deref().unwrap_or_default();
        if let Some(retry) = &message.retry_ms {
            self.window = Some(window_of(retry)?);
        }
        let mut id = message.id;
        if id.is_none() && ["bad_json", "bad_command"].contains(&code) {
            // Answers come in order, and all that we say has an id: it couldn't be read.
            id = self.asked.keys().next().copied();
        }
        let error = Error::new(code, said);
        match id.and_then(|id| self.asked.remove(&id)) {
            Some(Asked::Sub { names, part, .. }) => {
                let topics = message.topics.as_ref().and_then(Value::as_array).into_iter().flatten();
                let named: Vec<&str> = topics.filter_map(Value::as_str).collect();
                let mine = names.iter().filter(|name| self.topics.wants.contains_key(*name));
                let (uncovered, others): (Vec<String>, Vec<String>) =
                    mine.cloned().partition(|name| named.contains(&name.as_str()));
                if uncovered.is_empty() {
                    self.refused(&names, error)?;
                } else {
                    self.narrow(uncovered, others.into_iter().filter(|name| part.contains(name)).collect(), error)?;
                }
            }
            Some(Asked::Publish(ticket)) => {
                self.topics.events.push_back(Event::Published { ticket, outcome: Err(error) });
            }
            Some(_) => {}
            // Rights that have become less don't cover it any more; the others go on.
            None if message.topic.as_deref().is_some_and(|topic| self.topics.wants.remove(topic).is_some()) => {
                let names: Vec<String> = message.topic.as_deref().map(str::to_owned).into_iter().collect();
                self.topics.forget(&names);
                self.topics.events.push_back(Event::Refused { error, names });
            }
            None => {
                self.farewell = said.into();
                if !["unauthorized", "replaced"].contains(&code) {
                    let status = Status { code: code.into(), message: said.into(), ..Status::default() };
                    self.topics.events.push_back(Event::Status(status));
                }
            }
        }
        Ok(())
    }

    fn status(&mut self, message: &Message<'_>) -> Result<(), Broken> {
        let code = message.code.as_deref().unwrap_or_default();
        if let Some(retry) = &message.retry_ms {
            self.window = Some(window_of(retry)?);
        }
        self.expiring |= code == "token_expiring";
        let topics = message.topics.as_ref().and_then(Value::as_array).into_iter().flatten();
        let status = Status {
            code: code.into(),
            topics: topics.filter_map(|topic| topic.as_str().map(str::to_owned)).collect(),
            since: message.since,
            message: message.message.as_deref().unwrap_or_default().into(),
        };
        self.topics.events.push_back(Event::Status(status));
        Ok(())
    }

    // ---- Subscribing ---------------------------------------------------------------------------------------------------

    fn message_max(&self) -> usize {
        self.hello.as_ref().map_or(MESSAGE_MAX, |hello| hello.message_max).saturating_sub(COMMAND_BYTES)
    }

    /// Asks for names that go in one command, or some; after a loss (`room`) from where their topics were left. Topics that a pattern brought are named for that, and only until the server has
    /// answered: as many as there is room for.
    fn ask_for(&mut self, names: &[String], room: Option<&mut i64>) {
        let Some(first) = names.first().and_then(|name| self.topics.wants.get(name)).cloned() else { return };
        let mut cursor = match &first.how.from {
            Some(From::Cursor(cursor)) => Some(cursor.clone()),
            _ => None,
        };
        let mut points: HashMap<String, Point> = HashMap::new();
        if let Some(room) = room
            && first.is_old
            && first.how.mode == Mode::All
        {
            cursor = self.cursor.clone().filter(|_| first.is_told);
            match cursor {
                Some(_) => self.topics.by_cursor = true,
                None => points = self.topics.left(names, room),
            }
        }
        for want in names.iter().filter_map(|name| self.topics.wants.get(name)) {
            if let Some(From::Points(given)) = &want.how.from {
                for (topic, point) in given {
                    points.entry(topic.clone()).or_insert_with(|| point.clone());
                }
            }
        }
        let mut extra: Vec<String> =
            points.keys().filter(|topic| !self.topics.wants.contains_key(*topic)).cloned().collect();
        extra.sort_unstable();
        let misses =
            cursor.is_none() && names.iter().any(|name| self.topics.wants.get(name).is_some_and(|want| want.misses));
        let mut command = json!({"op": "sub", "mode": first.how.mode.word()});
        if let Some(rate) = first.how.rate {
            command["rate"] = rate.into();
        }
        if !first.how.snapshot {
            command["snapshot"] = false.into();
        }
        let all = extra.iter().chain(names).map(String::as_str);
        let parts: Vec<(Vec<String>, HashMap<String, Point>)> =
            split(all, |name| points.get(name).cloned(), self.message_max())
                .into_iter()
                .map(|(topics, start)| {
                    let start = start.into_iter().map(|(name, point)| (name.to_owned(), point)).collect();
                    (topics.into_iter().map(str::to_owned).collect(), start)
                })
                .collect();
        let last = parts.len().saturating_sub(1);
        for (nth, (topics, start)) in parts.into_iter().enumerate() {
            let mut command = command.clone();
            command["topics"] = topics.as_slice().into();
            match &cursor {
                Some(cursor) => command["from"] = cursor.as_str().into(),
                None if !start.is_empty() => command["from"] = json!(start),
                None => {}
            }
            let extra = if nth == last { mem::take(&mut extra) } else { Vec::new() };
            let (names, points, cursor) = (names.to_vec(), start, cursor.clone());
            let asked = Asked::Sub { names, part: topics, points, cursor, misses, extra };
            self.ask(command, asked);
        }
    }

    fn taken(
        &mut self,
        names: &[String],
        points: &HashMap<String, Point>,
        answer: &Message<'_>,
        misses: bool,
        extra: &[String],
    ) -> Result<(), Broken> {
        let lacks = || Broken("an ack that lacks what it should have".into());
        let mut entries = Vec::new();
        for entry in answer.topics.as_ref().and_then(Value::as_array).into_iter().flatten() {
            let topic = entry.get("topic").and_then(Value::as_str).ok_or_else(lacks)?;
            entries.push((topic, entry));
        }
        let is_named = |name: &&String| entries.iter().any(|(topic, _)| topic == name);
        let taken: Vec<String> =
            names.iter().filter(is_named).filter(|name| self.topics.wants.contains_key(*name)).cloned().collect();
        // What came so far may have had holes, if it wasn't mode `all`.
        let anew: Vec<String> = taken.iter().filter(|name| !self.topics.wants[*name].has_all()).cloned().collect();
        self.topics.start_anew(&anew, points);
        for (topic, entry) in &entries {
            let Some(want) = self.topics.wants.get_mut(*topic).filter(|_| taken.iter().any(|name| name == topic))
            else {
                continue;
            };
            let mode = match entry.get("mode").and_then(Value::as_str) {
                Some("latest") => Mode::Latest,
                Some(_) => Mode::All,
                None => want.how.mode,
            };
            want.agreed = Some((mode, entry.get("rate").and_then(Value::as_f64)));
            (want.is_old, want.misses, want.again, want.how.from) = (true, false, false, None);
        }
        self.topics.was_away = misses;
        self.topics.measure(&taken);
        for (topic, entry) in &entries {
            if let Some(epoch) = entry.get("epoch").and_then(Value::as_str) {
                let seq = entry.get("seq").and_then(Value::as_u64).ok_or_else(lacks)?;
                self.topics.acknowledged(topic, epoch, seq, points.get(*topic));
            }
        }
        let left: Vec<String> = extra.iter().filter(|topic| !self.topics.wants.contains_key(*topic)).cloned().collect();
        self.leave(&left);
        Ok(())
    }

    fn refused(&mut self, names: &[String], error: Error) -> Result<(), Broken> {
        let mine: Vec<String> = names.iter().filter(|name| self.topics.wants.contains_key(*name)).cloned().collect();
        if PASSING.contains(&error.code.as_str()) && mine.iter().any(|name| self.topics.wants[name].is_old) {
            return Err(Broken(error.to_string()));
        }
        let calls: Vec<u64> = mine.iter().map(|name| self.topics.wants[name].call).collect();
        if calls.iter().any(|call| *call != calls[0]) {
            // One name is to blame, and others mustn't end with it: on the next connection each call is asked for by itself.
            for name in &mine {
                self.topics.wants.entry(name.clone()).and_modify(|want| want.is_alone = true);
            }
            return Err(Broken(error.to_string()));
        }
        let mut ended = Vec::new();
        for name in &mine {
            match self.topics.wants.get_mut(name) {
                Some(Want { agreed: Some((mode, rate)), how, .. }) => (how.mode, how.rate) = (*mode, *rate),
                _ => {
                    self.topics.wants.remove(name);
                    ended.push(name.clone());
                }
            }
        }
        self.topics.forget(&ended);
        // Some may have been taken, if it took several commands.
        self.leave(&ended);
        if !mine.is_empty() {
            self.topics.events.push_back(Event::Refused { error, names: mine });
        }
        Ok(())
    }

    /// Rights don't cover some names of a command: they end, and the others are asked for again.
    fn narrow(&mut self, uncovered: Vec<String>, others: Vec<String>, error: Error) -> Result<(), Broken> {
        let wants = &mut self.topics.wants;
        let ended = uncovered.iter().filter_map(|name| wants.remove(name).map(|want| (name, want)));
        let agreed: Vec<String> =
            ended.filter(|(_, want)| want.agreed.is_some()).map(|(name, _)| name.clone()).collect();
        self.topics.forget(&uncovered);
        self.leave(&agreed);
        let broken = Broken(error.to_string());
        self.topics.events.push_back(Event::Refused { error, names: uncovered });
        let mut asked = others.iter().filter_map(|name| self.topics.wants.get(name));
        if asked.any(|want| want.is_old && want.agreed.is_none()) {
            return Err(broken); // They go on where they were, with all that belongs to that: on the next connection.
        }
        if others.is_empty() {
            return Ok(());
        }
        for name in &others {
            self.topics.wants.entry(name.clone()).and_modify(|want| want.again = true);
        }
        self.ask_for(&others, None);
        let asked = match self.is_syncing {
            true => Asked::Synced(self.topics.wants.keys().cloned().collect()),
            false => Asked::Known(others),
        };
        self.ask(json!({"op": "ping"}), asked);
        Ok(())
    }

    fn leave(&mut self, names: &[String]) {
        let parts: Vec<Value> = split(names.iter().map(String::as_str), |_| None, self.message_max())
            .into_iter()
            .map(|(topics, _)| json!({"op": "unsub", "topics": topics}))
            .collect();
        for command in parts {
            self.ask(command, Asked::Nothing);
        }
    }

    /// Whether some of these were asked for again: behind them is another ping.
    fn asks_again(&self, names: &[String]) -> bool {
        names.iter().any(|name| self.topics.wants.get(name).is_some_and(|want| want.again))
    }

    fn know(&mut self, names: &[String]) {
        self.topics.was_away = false;
        let all = self.topics.knows_all();
        for name in names {
            // Behind one that was asked for again is another ping.
            if let Some(want) = self.topics.wants.get_mut(name).filter(|want| !want.again) {
                want.is_told = true;
                want.knows_all = want.how.snapshot && all;
            }
        }
    }
}

fn update(message: &Message<'_>) -> Result<Update, Broken> {
    let lacks = |field: &str| Broken(format!("a {} that lacks what it should have: {field}", message.kind));
    let raw = match (&message.base64, message.data) {
        (Some(base64), _) => base64.as_ref().to_owned(),
        (None, Some(data)) => data.get().to_owned(),
        (None, None) => return Err(lacks("data")),
    };
    Ok(Update {
        topic: message.topic.as_deref().ok_or_else(|| lacks("topic"))?.to_owned(),
        seq: message.seq.ok_or_else(|| lacks("seq"))?,
        ts: message.ts.ok_or_else(|| lacks("ts"))?,
        epoch: message.epoch.as_deref().unwrap_or_default().to_owned(),
        is_snapshot: message.kind == "snapshot",
        is_key: message.key,
        is_stale: message.stale,
        is_binary: message.base64.is_some(),
        raw,
    })
}

/// A window of milliseconds: two numbers, or one that is its end.
fn window_of(retry: &Value) -> Result<(f64, f64), Broken> {
    let window = match retry {
        Value::Array(ends) if ends.len() == 2 => ends[0].as_f64().zip(ends[1].as_f64()),
        one => one.as_f64().map(|last| (0.0, last)),
    };
    window.ok_or_else(|| Broken(format!("retry_ms: expected milliseconds, or two of them; found {retry}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = r#"{"type":"hello","heartbeat":0,"limits":{"topics":9,"message":9999}}"#;

    /// What was said: ids and names of `sub` commands.
    fn subs(core: &mut Core) -> Vec<(u64, Vec<String>)> {
        let said = mem::take(&mut core.out).into_iter();
        let said = said.map(|text| serde_json::from_str::<Value>(&text).unwrap()).filter(|said| said["op"] == "sub");
        said.map(|said| (said["id"].as_u64().unwrap(), serde_json::from_value(said["topics"].clone()).unwrap()))
            .collect()
    }

    #[test]
    fn a_name_that_is_refused_takes_none_of_another_call_with_it() {
        let mut core = Core::new(9);
        for name in ["a", "b", "c"] {
            core.subscribe(vec![name.into()], &How::default());
        }
        core.read(HELLO).unwrap();
        let refusal = |id: u64| format!(r#"{{"type":"error","id":{id},"code":"forbidden","message":"b"}}"#);
        let all = subs(&mut core);
        assert_eq!(all.iter().map(|(_, names)| names.len()).collect::<Vec<_>>(), [3]);
        assert!(core.read(&refusal(all[0].0)).is_err());
        core.lost();
        core.read(HELLO).unwrap();
        let each = subs(&mut core);
        assert_eq!(each.iter().map(|(_, names)| names.concat()).collect::<String>(), "abc");
        core.topics.events.clear();
        core.read(&refusal(each[1].0)).unwrap();
        assert!(matches!(&core.topics.events[0], Event::Refused { names, .. } if names == &["b"]));
        assert_eq!(core.topics.wants.len(), 2);
    }

    #[test]
    fn what_is_subscribed_to_on_an_open_connection_is_current_too_and_a_refused_change_leaves_mode_and_rate() {
        let mut core = Core::new(9);
        core.read(HELLO).unwrap();
        let said = |core: &mut Core, how: &How| {
            core.subscribe(vec!["a".into()], how);
            let all = mem::take(&mut core.out).into_iter();
            all.map(|text| serde_json::from_str::<Value>(&text).unwrap()["id"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        let ids = said(&mut core, &How::latest().rate(4.0));
        let ack = r#"{"type":"ack","id":ID,"topics":[{"topic":"a","mode":"latest","rate":4}]}"#;
        core.read(&ack.replace("ID", &ids[0].to_string())).unwrap();
        assert!(!core.topics.events.iter().any(|event| matches!(event, Event::Current)));
        core.read(&format!(r#"{{"type":"pong","id":{}}}"#, ids[1])).unwrap();
        assert!(core.topics.events.iter().any(|event| matches!(event, Event::Current)));
        let ids = said(&mut core, &How::default());
        core.read(&format!(r#"{{"type":"error","id":{},"code":"forbidden","message":"a"}}"#, ids[0])).unwrap();
        let how = &core.topics.wants["a"].how;
        assert_eq!((how.mode, how.rate), (Mode::Latest, Some(4.0)));
    }
}
