//! `GET /poll`: long polling, for clients behind whatever breaks everything else.
//!
//! A poll is a subscription for as long as it takes to say something. It has a place on the tape, and everything before that was told by
//! the polls before: the cursor that each of them is answered with is all that there is between two. Where there is none, or it is good
//! no more, it begins with the topics' last values, as every subscription does (`collect.rs`).
//!
//! ```text
//!            no cursor, or lost                         something is there
//!   request ──► collect ──► snapshots, current ────────────────────────────┐
//!      │                                                                   ▼
//!      └──► collect the names ──► look at what followed ──► messages ──► answered, and its names are let go of
//!                                       ▲    │                             ▲
//!                                 woken │    ▼ nothing                     │ nothing, when its time is up
//!                                       └── waits: a member of its cohort ─┘
//! ```
//!
//! Whoever waits is a member of a cohort at the head like every subscriber, and costs what that costs. But what is planned for a cohort
//! that polls isn't sent: its members are woken by it (`fan/serve.rs`), and each looks for itself what there is for it, from its own place
//! on. What an answer may have in bytes bounds how far it looks; the cursor then stands there, and the next poll goes on.
//!
//! With mode `latest` it is told the newest value of each topic that has changed, as of where it has looked, and what was left out.

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration, vec};

use rustc_hash::FxHashMap;

use super::{
    super::{
        connection::Phase,
        cursors::{Beginnings, Resumed},
        fan::{
            delivery::Delivery,
            interest::{CohortKey, NameId},
            push_entry,
        },
        ground::Ground,
        work::price,
    },
    Clerk,
    asking::Job,
    collect::{AsOf, Collect, Refused},
    exchange::{Terms, bytes_max, push_messages},
    points::Since,
    quota::LATER,
};
use crate::{
    audit::What,
    clock::Moment,
    http::{self, Request, response::JSON},
    io::{Edge, SEND_MAX, Token},
    lane::Lane,
    packs::{Frames, Packing},
    protocol::{ErrorCode, Mode, Reply, Sub, cursor::Cursor},
    tape::Position,
    topic::{Topic, TopicId},
};

/// How long a poll waits, unless `?wait=` says otherwise, and at most.
const WAIT: Duration = Duration::from_secs(25);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Bytes, or topics that a subscription begins with, of messages that are written at once.
const STEP_BYTES: usize = SEND_MAX / 2;
const STEP_TOPICS: u64 = 1024;

/// Publications that are looked at in one step: at least, lest it never come on, and at most.
const LOOKS_LEAST: u64 = 64;
const LOOKS_MOST: u64 = 16 * 1024;

/// What a message has around the bytes that were published, about.
const AROUND: usize = 96;

/// See the module's description.
pub struct Poll {
    terms: Terms,
    /// It wants the newest of each topic.
    latest: bool,
    /// It has come with a cursor that is good no more.
    is_lost: bool,
    /// When it is answered, with nothing if there is nothing.
    due: Moment,
    /// Everything before was seen to.
    from: Position,
    /// What it begins with and is still to be written.
    begins: Option<Box<Beginnings>>,
    /// With mode `latest`: what is the newest of each topic, up to where it has looked.
    newest: FxHashMap<TopicId, Newest>,
    /// The same in order, while it is written.
    writing: Option<vec::IntoIter<Newest>>,
    /// Bytes that what it has found will come to, about.
    bytes: usize,
    /// The messages so far, each behind a comma.
    messages: Vec<u8>,
    publications: u64,
}

/// The newest publication of a topic, of those that a poll has looked at.
struct Newest {
    at: Position,
    topic: TopicId,
    seq: u64,
    /// The number before the first of them.
    before: u64,
    bytes: usize,
}

/// A poll that waits: what there is of it then. Many may wait for long.
pub struct Waiting {
    terms: Terms,
    /// When it is answered, with nothing if there is nothing.
    pub due: Moment,
    from: Position,
    latest: bool,
}

impl Waiting {
    /// Whether it is told the newest of each topic alone.
    pub fn is_latest(&self) -> bool {
        self.latest
    }

    /// It goes on.
    pub fn wake(self) -> Poll {
        let Waiting { terms, due, from, latest } = self;
        Poll::new(terms, latest, due, from)
    }
}

impl Poll {
    fn new(terms: Terms, latest: bool, due: Moment, from: Position) -> Poll {
        Poll {
            terms,
            latest,
            is_lost: false,
            due,
            from,
            begins: None,
            newest: FxHashMap::default(),
            writing: None,
            bytes: 0,
            messages: Vec::new(),
            publications: 0,
        }
    }

    /// There is nothing for it yet.
    pub fn wait(self) -> Waiting {
        debug_assert!(self.messages.is_empty() && self.newest.is_empty() && self.begins.is_none() && !self.is_lost);
        let Poll { terms, due, from, latest, .. } = self;
        Waiting { terms, due, from, latest }
    }

    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        let writing = self.writing.as_ref().map_or(0, |writing| writing.as_slice().len());
        self.messages.capacity() + (self.newest.capacity() + writing) * size_of::<(TopicId, Newest)>()
    }

    /// What is known of its request.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whether it is told the newest of each topic alone.
    pub fn is_latest(&self) -> bool {
        self.latest
    }

    fn push(&mut self, reply: &Reply<'_>) {
        self.messages.push(b',');
        reply.push_json(&mut self.messages);
    }

    /// Everything before `position` was seen to, for somebody who has waited.
    pub fn comes_to(&mut self, position: Position) {
        self.from = self.from.max(position);
    }
}

impl<E: Edge> Clerk<'_, E> {
    /// `GET /poll?topics=a,b&mode=latest&cursor=C&wait=25`
    pub fn open_poll(&mut self, token: Token, head: &Request<'_>, is_passed_on: bool) -> Result<(), http::Refusal> {
        if !matches!(head.method, "GET" | "HEAD") {
            let allowed = &[("Allow", "GET, HEAD, OPTIONS")];
            return Err(http::Refusal::new(405, "Polls are made with GET.").with(allowed));
        }
        let holder = self.reader_of(token, head)?;
        let topics = head.names("topics");
        let topics = topics.as_deref().ok_or_else(|| http::Refusal::new(400, "Which topics? Ask for ?topics=…"))?;
        let sub = self.sub_from_query(head, topics)?;
        if sub.rate.is_some() {
            let text = "In the address: rate is for streams; a poll is answered as often as it is made.";
            return Err(http::Refusal::new(400, text));
        }
        let wait = read_wait(head)?;
        let cursor = head.parameter("cursor")?;
        self.check_request_rights(&holder, sub.topics.iter().map(|name| &**name), (sub.mode, None))?;
        self.may_subscribe_now(token)?;
        let place = cursor.filter(|word| !word.is_empty()).map(|word| self.poll_place(&word));
        let terms = self.begin_exchange(token, head, is_passed_on);
        if let Some(connection) = self.connections.get_mut(token) {
            connection.holder = holder;
        }
        self.sit(token);
        let wait = if terms.is_head { Duration::ZERO } else { wait };
        let (latest, due) = (sub.mode == Mode::Latest, self.ground.now + wait);
        let mut poll = Box::new(Poll::new(terms, latest, due, place.flatten().unwrap_or_default()));
        poll.is_lost = place == Some(None);
        self.ground.work.charge(price::COMMAND);
        self.ground.metrics.polls.add(1);
        let looks = matches!(place, Some(Some(_)));
        let job = self.collect_for(sub.topics, !looks && (sub.snapshot || place.is_some()), !looks, poll);
        self.put_by(token, job);
        self.set_timer(token);
        Ok(())
    }

    /// Where on the tape a cursor stands; none if that is gone, or nowhere, or a subscription began there of whose values some may
    /// not have been told.
    fn poll_place(&self, word: &str) -> Option<Position> {
        let tape = &self.ground.tape;
        match Since::of(Some(Cursor::parse(word)), tape) {
            Since::Place { at, begins: false } if at >= tape.tail() => Some(at),
            _ => None,
        }
    }

    /// The subscription of a poll, which begins with last values, if there are to be any, or is only to look at what followed.
    fn collect_for(&self, topics: Vec<Cow<'_, str>>, snapshot: bool, begins: bool, mut poll: Box<Poll>) -> Job {
        if begins {
            poll.from = Position(u64::MAX);
        }
        let sub = Sub { topics, mode: Mode::All, rate: None, snapshot, from: HashMap::new(), cursor: None };
        let mut collect = Box::new(Collect::new(None, Lane::Json, &sub, Since::Now));
        collect.poll = Some(poll);
        Job::Sub(collect)
    }

    /// The subscription of a poll is made: everything is known of its topics at this position.
    ///
    /// # Errors
    /// Its answer would be too much.
    pub fn conclude_poll(&mut self, token: Token, collect: &mut Collect, at: &AsOf) -> Result<(), Refused> {
        let most = self.ground.settings.pending_max / 2;
        if collect.bytes > most {
            let message = format!(
                "the snapshots need {} bytes, a poll is answered with half of --max-pending, {most}: ask for fewer topics",
                collect.bytes
            );
            return Err((ErrorCode::TooManyTopics, message));
        }
        self.may_hold(token, collect.bytes)?;
        let has_joined = self.connections.get(token).is_none_or(|connection| connection.cohort.is_some());
        if !has_joined {
            self.note_names(token, &collect.names, |names| What::Read { door: "poll", names });
            let name = |name: &Arc<str>| (self.fan.interest.intern(name), Delivery::All);
            let mut names: Vec<(NameId, Delivery)> = collect.names.iter().map(name).collect();
            names.sort_unstable();
            let key =
                CohortKey { lane: Lane::Json, packed: Packing::Clear, names: names.into(), except: 0, polls: true };
            let cohort = self.fan.interest.join(key, at.position);
            if let Some(connection) = self.connections.get_mut(token) {
                connection.cohort = Some(cohort);
            }
        }
        let Some(poll) = &mut collect.poll else { return Ok(()) };
        // From here on no topic is forgotten that a name stands for.
        poll.is_lost |= poll.from.0 < self.ground.tape.with_topics(|topics, _| topics.forgotten());
        if poll.from <= at.position {
            return Ok(());
        }
        poll.from = at.position;
        let mut topics = std::mem::take(&mut collect.found).into_all();
        if poll.is_lost {
            topics.iter_mut().for_each(|found| found.becomes = Some(Resumed::Reset("cursor")));
        }
        if !collect.snapshot {
            topics.clear();
        }
        // Room that grows by doubling would come to more than a poll may hold.
        poll.messages.reserve_exact(collect.bytes);
        poll.begins = Some(Box::new(Beginnings {
            topics: topics.into_iter(),
            gone: Vec::new(),
            epoch: at.epoch,
            // The answer as a whole has one.
            cursors: [self.ground.tape.words().word(at.position.0); 2],
            after: Vec::new(),
            tells_draining: false,
            bytes: collect.bytes,
        }));
        Ok(())
    }

    /// Goes on with a poll; returns it if there is more to do.
    pub fn go_on_polling(&mut self, token: Token, mut poll: Box<Poll>) -> Option<Job> {
        if poll.begins.is_some() {
            return self.begin_answer(token, poll);
        }
        if poll.writing.is_some() {
            return self.write_newest(token, poll);
        }
        let head = self.refresh_reader();
        if poll.is_lost || poll.from < self.ground.reader.floor() {
            return Some(self.begin_anew(token, *poll));
        }
        let most = bytes_max(self.ground.settings.pending_max);
        let wanted = self.look_on(token, &mut poll, head, most)?;
        for position in wanted {
            self.push_publication(&mut poll, position);
        }
        let (is_all, is_full) = (poll.from >= head, poll.bytes >= most);
        if !poll.newest.is_empty() && (is_all || is_full) {
            let mut newest: Vec<Newest> = std::mem::take(&mut poll.newest).into_values().collect();
            newest.sort_unstable_by_key(|newest| newest.at);
            self.ground.work.charge(newest.len() as u64 * price::MATCH);
            poll.writing = Some(newest.into_iter());
            return Some(Job::Poll(poll));
        }
        if !poll.messages.is_empty() && (is_all || is_full) {
            return self.answer_poll(token, *poll);
        }
        if !is_all {
            return Some(Job::Poll(poll));
        }
        self.let_wait(token, *poll)
    }

    /// Looks at what the tape has for a poll up to `head`, as much as there is room and time for. Returns what is to be told at once;
    /// none if the connection has gone.
    fn look_on(&mut self, token: Token, poll: &mut Poll, head: Position, most: usize) -> Option<Vec<Position>> {
        let cohort = self.connections.get(token)?.cohort?;
        let left = self.time_left();
        let Clerk { ground, fan, .. } = self;
        let (reader, tape, interest) = (&ground.reader, &ground.tape, &mut fan.interest);
        // What was looked at before was for others.
        interest.take_cost();
        let looks_most = (left / (2 * price::LOOK)).clamp(LOOKS_LEAST, LOOKS_MOST);
        let (mut looks, mut step, mut wanted) = (0, 0, Vec::new());
        poll.from = reader.scan(poll.from, head, |entry| {
            let is_over = looks == looks_most || (interest.cost() > left && looks > 0);
            if is_over || poll.bytes >= most || step >= STEP_BYTES {
                return false;
            }
            looks += 1;
            if interest.wants(tape, cohort, entry).is_none() {
                return true;
            }
            let bytes = entry.longest() as usize + AROUND;
            poll.bytes += bytes;
            if poll.latest {
                let new = || Newest { at: entry.position, topic: entry.topic, seq: 0, before: entry.seq - 1, bytes: 0 };
                let newest = poll.newest.entry(entry.topic).or_insert_with(new);
                (newest.at, newest.seq) = (entry.position, entry.seq);
                poll.bytes -= std::mem::replace(&mut newest.bytes, bytes);
            } else {
                step += bytes;
                wanted.push(entry.position);
            }
            true
        });
        let cost = interest.take_cost();
        ground.work.charge(cost + (looks + wanted.len() as u64) * 2 * price::LOOK);
        Some(wanted)
    }

    /// Writes a publication that the tape has. Returns whether it still does.
    fn push_publication(&mut self, poll: &mut Poll, position: Position) -> bool {
        let mut frame = Vec::new();
        let Ground { reader, packer, tape, .. } = &mut *self.ground;
        let published = reader.look(position);
        let is_there = published.is_some_and(|published| {
            push_entry(&mut Frames { reader, packer }, tape, Lane::Json.into(), &published, &mut frame)
        });
        self.ground.work.charge(price::LOOK + 2 * price::lines(frame.len()));
        push_messages(&frame, (b",", b""), &mut poll.messages);
        poll.publications += u64::from(is_there);
        is_there
    }

    /// Writes some of the newest values, each behind what was left out before it.
    fn write_newest(&mut self, token: Token, mut poll: Box<Poll>) -> Option<Job> {
        self.refresh_reader();
        while let Some(newest) = poll.writing.as_mut().and_then(Iterator::next) {
            if newest.at < self.ground.reader.floor() {
                // The tape has rolled on over it.
                return Some(self.begin_anew(token, *poll));
            }
            let (from, to) = (newest.before + 1, newest.seq - 1);
            if from <= to
                && let Some(topic) = self.fan.interest.topic_name(newest.topic.slot)
            {
                let topic = Arc::clone(topic);
                // The update that says in which epoch the topic has begun is among what is left out.
                let epoch = if from == 1 { self.epoch_of(newest.topic) } else { None };
                poll.push(&Reply::Skip { topic: &topic, epoch: epoch.as_deref(), from, to, why: "slow" });
                self.ground.metrics.skipped.add(to - from + 1);
            }
            self.push_publication(&mut poll, newest.at);
            if !self.has_time() {
                return Some(Job::Poll(poll));
            }
        }
        self.answer_poll(token, *poll)
    }

    fn epoch_of(&mut self, id: TopicId) -> Option<String> {
        self.ground.work.charge(price::MATCH);
        let epoch = |topic: &Topic| topic.epoch.to_string();
        self.ground.tape.with_topics(|topics, _| topics.at(id.slot).filter(|topic| topic.id == id).map(epoch))
    }

    /// Writes some of what a poll begins with, and answers it when that is all.
    fn begin_answer(&mut self, token: Token, mut poll: Box<Poll>) -> Option<Job> {
        let Some(begins) = &mut poll.begins else { return Some(Job::Poll(poll)) };
        let mut frames = Vec::new();
        let topics = begins.push_some(Lane::Json, &mut frames, STEP_BYTES, STEP_TOPICS);
        self.ground.work.charge(topics * price::MATCH + 2 * price::lines(frames.len()));
        let is_over = begins.is_over();
        push_messages(&frames, (b",", b""), &mut poll.messages);
        if !is_over {
            return Some(Job::Poll(poll));
        }
        poll.push(&Reply::Status { code: "current" });
        self.answer_poll(token, *poll)
    }

    /// The place of a poll is gone: it begins with last values, and says so of each topic.
    fn begin_anew(&mut self, token: Token, poll: Poll) -> Job {
        let names: Vec<NameId> = self.names_of(token).into_iter().map(|(name, _)| name).collect();
        let topics = names.iter().map(|name| Cow::Owned(self.fan.interest.text(*name).to_string())).collect();
        let Poll { terms, latest, due, .. } = poll;
        let lost = Poll { is_lost: true, ..Poll::new(terms, latest, due, Position::default()) };
        self.collect_for(topics, true, true, Box::new(lost))
    }

    /// A poll for which there is nothing waits until there is, if it may.
    fn let_wait(&mut self, token: Token, poll: Poll) -> Option<Job> {
        let connection = self.connections.get_mut(token)?;
        if self.ground.now >= poll.due || connection.phase == Phase::AnsweringLast {
            return self.answer_poll(token, poll);
        }
        self.fan.join(token, connection);
        self.desk.exchanges.wait(token, poll.wait());
        self.set_timer(token);
        None
    }

    /// Something has come for a poll that waits, from this position on.
    pub fn wake_poll(&mut self, token: Token, from: Position) {
        let Some(mut poll) = self.desk.exchanges.wake(token) else { return };
        poll.comes_to(from);
        self.put_by(token, Job::Poll(Box::new(poll)));
        self.set_timer(token);
    }

    /// A poll that waits has waited for long enough.
    pub fn end_wait(&mut self, token: Token) {
        let Some(mut poll) = self.desk.exchanges.wake(token) else { return };
        let (position, _) = self.fan.part(self.connections, token);
        poll.comes_to(position);
        if let Some(job) = self.answer_poll(token, poll) {
            self.put_by(token, job);
        }
    }

    fn answer_poll(&mut self, token: Token, mut poll: Poll) -> Option<Job> {
        if let Some(connection) = self.connections.get(token).filter(|_| !self.ground.shared.welcomes()) {
            poll.push(&self.draining_of(connection));
        }
        let Poll { terms, from, messages, publications, .. } = poll;
        let word = self.ground.tape.words().word(from.0);
        let mut body = Vec::with_capacity(messages.len() + 64);
        // The first message has a comma before it.
        let messages = messages.get(1..).unwrap_or_default();
        for part in [&b"{\"cursor\":\""[..], word.as_bytes(), b"\",\"messages\":[", messages, b"]}"] {
            body.extend_from_slice(part);
        }
        self.ground.work.charge(price::lines(body.len()));
        self.ground.metrics.deliveries.add(publications);
        self.respond(token, terms, JSON, body)
    }

    /// Refuses a poll whose subscription can't be made.
    pub fn refuse_poll(&mut self, token: Token, poll: &Poll, code: ErrorCode, message: &str) {
        let refusal = self.refusal_of(token, code, message);
        let refusal = if matches!(refusal.status, 429 | 503) { refusal.with(LATER) } else { refusal };
        self.refuse_exchange(token, &poll.terms, &refusal);
    }
}

/// `?wait=`: whole seconds, of which no more count than may be.
fn read_wait(head: &Request<'_>) -> Result<Duration, http::Refusal> {
    let Some(text) = head.parameter("wait")? else { return Ok(WAIT) };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        let found: String = text.escape_debug().take(32).collect();
        let message = format!("In the address: wait is whole seconds, from 0 to 60; found \"{found}\".");
        return Err(http::Refusal::new(400, message));
    }
    // A number too large for any is more than may be as well.
    Ok(text.parse().map_or(WAIT_MAX, Duration::from_secs).min(WAIT_MAX))
}
