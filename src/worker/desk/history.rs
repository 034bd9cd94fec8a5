//! `GET /history/TOPIC`: what the tape has of one topic, oldest first, a line for each publication.
//!
//! A topic's publications are linked backwards on the tape, and of every sixteenth the topic knows where it is (`topic/registry.rs`). So
//! they are read in blocks: from the next mark back to where the last block ended, and then forwards. Nothing of other topics is looked
//! at, however many there are between.
//!
//! ```text
//!   the tape    . . 17 . . . . 18 . . 19 . … . 32 . . . 33 .
//!                   └────────◄──┘└───◄─┘        │
//!                   next                        the mark
//! ```
//!
//! What can't be had is told before: a `reset`, where the first number that the tape has isn't the one behind `from`. The last line is a
//! `status` that says whether there was more. Each step looks under the tape's lock where a few marks are, and at nothing else.

use std::sync::Arc;

use super::{
    super::{fan::push_entry, ground::Ground, work::price},
    Clerk,
    asking::Job,
    exchange::{Terms, bytes_max, push_messages},
};
use crate::{
    audit::What,
    http::{self, Request},
    io::{Edge, Token},
    lane::Lane,
    packs::Frames,
    protocol::{Mode, Reply, Topic},
    publication::Epoch,
    tape::{Position, Reader},
    topic::{self, TopicId},
};

/// Lines of an answer, unless `?limit=` says otherwise, and at most.
const LIMIT: usize = 1000;
const LIMIT_MAX: usize = 10_000;

/// Marks that are looked up under one hold of the tape's lock.
const MARKS_AT_ONCE: usize = 16;

/// The type of what is one JSON object a line.
const NDJSON: &str = "application/x-ndjson";

/// See the module's description.
pub struct History {
    terms: Terms,
    topic: Arc<str>,
    /// The last that the client has; none if it has said nothing of it.
    from: Option<(Box<str>, u64)>,
    to: u64,
    /// Lines that it may still be told.
    left: usize,
    reading: Option<Reading>,
    /// The lines so far.
    lines: Vec<u8>,
}

/// How far it has come.
#[derive(Clone, Copy)]
struct Reading {
    id: TopicId,
    epoch: Epoch,
    /// The next number.
    next: u64,
    /// The last one that is told.
    last: u64,
}

/// What is known of a topic under the tape's lock.
struct Look {
    id: TopicId,
    epoch: Epoch,
    seq: u64,
    /// Near its oldest publication that the tape has.
    oldest: Option<u64>,
}

impl Look {
    fn at(topic: &topic::Topic, tail: u64) -> Look {
        Look { id: topic.id, epoch: topic.epoch, seq: topic.seq, oldest: topic.oldest_near(tail) }
    }
}

/// Why a line is the last one.
enum End {
    /// There is nothing more up to where was asked for.
    Current,
    /// There is more, for another request.
    More,
}

impl History {
    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        self.lines.capacity() + self.topic.len()
    }

    /// What is known of its request.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What it is of.
    pub fn topic(&self) -> Arc<str> {
        Arc::clone(&self.topic)
    }

    fn push(&mut self, reply: &Reply<'_>) {
        reply.push_json(&mut self.lines);
        self.lines.push(b'\n');
    }
}

impl<E: Edge> Clerk<'_, E> {
    /// `GET /history/TOPIC?from=EPOCH:SEQ&to=SEQ&limit=N`
    pub fn open_history(
        &mut self,
        token: Token,
        head: &Request<'_>,
        topic: &str,
        is_passed_on: bool,
    ) -> Result<(), http::Refusal> {
        if !matches!(head.method, "GET" | "HEAD") {
            let allowed = &[("Allow", "GET, HEAD, OPTIONS")];
            return Err(http::Refusal::new(405, "History is read with GET.").with(allowed));
        }
        let holder = self.reader_of(token, head)?;
        Topic::check(topic, self.ground.settings.topic_length_max)
            .map_err(|error| http::Refusal::new(400, format!("Not a topic: {error}.")))?;
        let from = head.parameter("from")?;
        let from =
            from.as_deref().map(|text| read_point(text).ok_or_else(|| bad("from", "EPOCH:SEQ", text))).transpose()?;
        let to = head.parameter("to")?;
        let to = to.as_deref().map(|text| {
            read_end(text, from).ok_or_else(|| bad("to", "SEQ, or EPOCH:SEQ with the epoch of from", text))
        });
        let to = to.transpose()?.unwrap_or(u64::MAX);
        let limit = match head.parameter("limit")? {
            None => LIMIT,
            Some(text) => read_limit(&text).ok_or_else(|| bad("limit", "a number from 1 on", &text))?,
        };
        self.check_request_rights(&holder, [topic], (Mode::All, None))?;
        self.may_subscribe_now(token)?;
        let from = from.map(|(epoch, seq)| (epoch.into(), seq));
        let terms = self.begin_exchange(token, head, is_passed_on);
        if let Some(connection) = self.connections.get_mut(token) {
            connection.holder = holder;
        }
        let history = History { terms, topic: topic.into(), from, to, left: limit, reading: None, lines: Vec::new() };
        self.ground.work.charge(price::COMMAND);
        self.ground.metrics.histories.add(1);
        self.put_by(token, Job::History(Box::new(history)));
        self.set_timer(token);
        Ok(())
    }

    /// Goes on with an answer; returns it if there is more to do.
    pub fn go_on_reading_back(&mut self, token: Token, mut history: Box<History>) -> Option<Job> {
        let Some(reading) = history.reading else {
            return match self.begin_history(&mut history) {
                Ok(()) => {
                    self.note_names(token, &[Arc::from(&*history.topic)], |names| What::Read {
                        door: "history",
                        names,
                    });
                    Some(Job::History(history))
                }
                Err(refusal) => {
                    self.let_go_of_tape();
                    self.refuse_exchange(token, &history.terms, &refusal);
                    None
                }
            };
        };
        match self.read_some(&mut history, reading) {
            None => Some(Job::History(history)),
            Some(end) => {
                let code = match end {
                    End::Current => "current",
                    End::More => "more",
                };
                history.push(&Reply::Status { code });
                let History { terms, lines, .. } = *history;
                self.let_go_of_tape();
                self.respond(token, terms, NDJSON, lines)
            }
        }
    }

    /// Finds out where the answer begins, and says so if that isn't right behind what the client has.
    fn begin_history(&mut self, history: &mut History) -> Result<(), http::Refusal> {
        self.ground.work.charge(price::MATCH + price::LOOK);
        let tail = self.ground.tape.tail().0;
        let look = self.ground.tape.with_topics(|topics, _| Some(Look::at(topics.find(&history.topic)?, tail)));
        let look = look.ok_or_else(|| http::Refusal::new(404, "There is no such topic."))?;
        let next = self.oldest(&look);
        let (epoch, has) = (look.epoch.to_string(), next - 1);
        // Who says nothing of what it has, has nothing.
        let (is_same, seq) = match &history.from {
            Some((theirs, seq)) => (**theirs == *epoch, *seq),
            None => (true, 0),
        };
        let goes_on = is_same && (seq >= has && seq <= look.seq);
        if !goes_on {
            let why = if is_same { "history" } else { "epoch" };
            let topic = Arc::clone(&history.topic);
            history.push(&Reply::Reset { topic: &topic, epoch: &epoch, seq: has, why });
        }
        let next = if goes_on { seq + 1 } else { next };
        let last = look.seq.min(history.to);
        history.reading = Some(Reading { id: look.id, epoch: look.epoch, next, last });
        Ok(())
    }

    /// The number of a topic's oldest publication that the tape has; one more than the newest, if it has none.
    fn oldest(&mut self, look: &Look) -> u64 {
        self.refresh_reader();
        let mut oldest = look.seq + 1;
        let mut at = look.oldest.map(Position);
        while let Some(position) = at
            && position >= self.ground.reader.floor()
            && let Some(found) = self.ground.reader.look(position)
        {
            self.ground.work.charge(price::LOOK);
            oldest = found.seq;
            at = found.previous.checked_sub(1).map(Position);
        }
        oldest
    }

    /// Sees what the tape has now.
    pub fn refresh_reader(&mut self) -> Position {
        let head = self.ground.reader.refresh();
        if self.fan.interest.is_empty() {
            // Nobody else is sent anything from here.
            self.ground.reader.trim_before(self.ground.reader.floor());
        }
        head
    }

    /// Nothing is read from the tape any more, unless somebody is subscribed.
    pub fn let_go_of_tape(&mut self) {
        if self.fan.interest.is_empty() {
            self.ground.reader.detach();
        }
    }

    /// Tells some more. Returns why that was all, if it was.
    fn read_some(&mut self, history: &mut History, reading: Reading) -> Option<End> {
        let Reading { id, epoch, mut next, last } = reading;
        if next > last {
            return Some(End::Current);
        }
        let (tail, mut blocks) = (self.ground.tape.tail().0, Vec::with_capacity(MARKS_AT_ONCE));
        let look = self.ground.tape.with_topics(|topics, _| {
            let topic = topics.at(id.slot).filter(|topic| topic.id == id)?;
            let mut from = next;
            while from <= last && blocks.len() < MARKS_AT_ONCE {
                let until = topic::block_end(from).min(last);
                blocks.push((until, topic.near(until)?));
                from = until + 1;
            }
            Some(Look::at(topic, tail))
        });
        self.ground.work.charge(price::MATCH + price::LOOK * MARKS_AT_ONCE as u64);
        // It was forgotten: whoever goes on from here is told.
        let Some(look) = look else { return Some(End::More) };
        self.refresh_reader();
        let most = bytes_max(self.ground.settings.pending_max);
        let (mut block, mut frame) = (Vec::new(), Vec::new());
        for (until, near) in blocks {
            if !gather(&self.ground.reader, Position(near), (next, until), &mut block) {
                // The tape has rolled on over it.
                let oldest = self.oldest(&look).max(next);
                let (topic, epoch) = (Arc::clone(&history.topic), epoch.to_string());
                history.push(&Reply::Reset { topic: &topic, epoch: &epoch, seq: oldest - 1, why: "history" });
                history.reading = Some(Reading { next: oldest, ..reading });
                return None;
            }
            self.ground.work.charge(2 * price::LOOK * block.len() as u64);
            for position in block.drain(..).rev() {
                if history.left == 0 || history.lines.len() >= most {
                    return Some(End::More);
                }
                frame.clear();
                let Ground { reader, packer, tape, .. } = &mut *self.ground;
                let published = reader.look(position);
                let is_there = published.is_some_and(|published| {
                    push_entry(&mut Frames { reader, packer }, tape, Lane::Json.into(), &published, &mut frame)
                });
                if !is_there {
                    return Some(End::More);
                }
                self.ground.work.charge(2 * price::lines(frame.len()));
                let start = history.lines.len();
                push_messages(&frame, (b"", b"\n"), &mut history.lines);
                let end = history.lines.len() - 1;
                unbreak(&mut history.lines[start..end]);
                history.left -= 1;
                next += 1;
            }
            history.reading = Some(Reading { next, ..reading });
            if !self.has_time() {
                return None;
            }
        }
        None
    }
}

/// The positions of a topic's publications of these numbers, the last one first, going back from one at `near` that isn't before the
/// last. Returns whether all of them are there.
fn gather(reader: &Reader, near: Position, (first, last): (u64, u64), found: &mut Vec<Position>) -> bool {
    let mut at = near;
    found.clear();
    while at >= reader.floor()
        && let Some(published) = reader.look(at)
    {
        if published.seq <= last {
            found.push(at);
        }
        if published.seq <= first {
            return published.seq == first;
        }
        let Some(before) = published.previous.checked_sub(1) else { return false };
        at = Position(before);
    }
    false
}

/// Line ends within a payload, which JSON has between its parts and nowhere else, would end the line: they become spaces.
fn unbreak(line: &mut [u8]) {
    while let Some(at) = memchr::memchr2(b'\n', b'\r', line) {
        line[at] = b' ';
    }
}

fn read_point(text: &str) -> Option<(&str, u64)> {
    let (epoch, seq) = text.split_once(':').filter(|(epoch, _)| !epoch.is_empty())?;
    Some((epoch, read_number(seq)?))
}

/// Where to stop: a number, or a point of the same epoch.
fn read_end(text: &str, from: Option<(&str, u64)>) -> Option<u64> {
    match read_point(text) {
        Some((epoch, seq)) => (from?.0 == epoch).then_some(seq),
        None => read_number(text),
    }
}

fn read_number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// How many lines; a number too large for any is more than there may be as well.
fn read_limit(text: &str) -> Option<usize> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let limit = is_number.then(|| text.parse().unwrap_or(LIMIT_MAX).min(LIMIT_MAX));
    limit.filter(|limit| *limit > 0)
}

fn bad(name: &str, expected: &str, found: &str) -> http::Refusal {
    let found: String = found.escape_debug().take(32).collect();
    http::Refusal::new(400, format!("In the address: {name} is {expected}; found \"{found}\"."))
}
