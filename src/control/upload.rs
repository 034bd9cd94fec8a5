//! Publishing over HTTP: a body that is one payload, or one publication a line.
//!
//! Lines are published as they arrive: those that one read completes are taken apart first, and then appended together
//! under one hold of the tape's lock. What is kept of a body is one payload, or the beginning of one line: never more than
//! `--max-message` and a kilobyte, beside what one read brings.

use std::{borrow::Cow, fmt::Display, net::SocketAddr, sync::Arc};

use crate::{
    access::{Holder, Standing},
    clock::Moment,
    counted::counted,
    http::{Body, BodyDecoder, BodyEvent, Refusal, Request},
    limits::{self, Account, Quota},
    metrics,
    protocol::{
        Declared, ErrorCode, Payload,
        envelope::push_string,
        ndjson::{self, Value},
    },
    publish::{By, PublishError, Publisher},
    slack::{KEPT_BY_ONE, Slack},
    tape::{About, Appended},
};

/// Room on a line for what is around the payload: a topic's name, which has 128 bytes at most unless `--max-topic-length` says
/// otherwise, and the names of the fields.
const AROUND_PAYLOAD: usize = 1024;

/// A body being taken in.
pub(super) struct Upload {
    /// Who sends it.
    pub sender: Sender,
    /// The client wants to send another request afterwards.
    pub keep_alive: bool,
    decoder: BodyDecoder,
    target: Target,
}

/// The client that publishes.
pub(super) struct Sender {
    /// Who it is; what it may is asked for anew with each piece: bodies last, and rules change.
    pub holder: Holder,
    /// The server stops: nothing is taken any more.
    pub comes_too_late: bool,
    /// Where it is: behind a proxy that isn't the other end of the connection. None before that is known.
    pub client: Option<SocketAddr>,
    /// Whose topics, values and publications these are; none if they aren't counted for an address.
    pub charged: Option<Charged>,
}

/// When it is, by both clocks of the edge, and what the sender may then.
#[derive(Clone, Copy)]
pub(super) struct Time<'r> {
    pub now: Moment,
    pub wall_us: u64,
    pub may: Standing<'r>,
}

/// What a client's publications are counted for.
#[derive(Clone)]
pub(super) struct Charged {
    pub account: Arc<Account>,
    /// How often it may.
    pub quota: Quota,
}

enum Target {
    One { topic: String, form: Form, body: Vec<u8> },
    Lines(Lines),
    Revocation(Vec<u8>),
}

/// Bytes of a body that revokes somebody: names have 256 at most, and each of them may be written as six.
const REVOCATION_BYTES: u64 = 4096;

/// What a payload is, by `?as=`, or else by the request's `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Text of this sort, and bytes only where nothing is said of it.
    Text(Declared),
    /// Bytes, whatever they look like.
    Binary,
}

/// How far a body is.
pub(super) enum Progress {
    /// It goes on.
    NeedsMore,
    /// Published; the answer is this JSON.
    Done(Vec<u8>),
    /// This says who is to be revoked.
    Revocation(Vec<u8>),
}

/// Why a body was refused.
pub(super) struct Fault {
    pub refusal: Refusal,
    /// How it is counted, if not by its status.
    pub why: Option<metrics::Refusal>,
    /// Nothing of the body is left to come.
    pub is_complete: bool,
}

impl Upload {
    /// The body as the payload of one publication.
    ///
    /// # Errors
    /// It is known to be too large, is coded, or has no length; or `?as=` says what there isn't.
    pub fn one(head: &Request<'_>, holder: Holder, topic: &str, message_max: usize) -> Result<Upload, Refusal> {
        let target = Target::One { topic: topic.to_owned(), form: Form::of(head)?, body: Vec::new() };
        Upload::new(head, holder, target, message_max as u64)
    }

    /// The body as one publication a line.
    ///
    /// # Errors
    /// It is known to be too large; or `?as=` says something else of payloads that come within JSON.
    pub fn lines(head: &Request<'_>, holder: Holder, message_max: usize, body_max: u64) -> Result<Upload, Refusal> {
        if head.choice("as", &Declared::WORDS)? == Some(Declared::Text) {
            let text = "In the address: as=text is for one payload; a line says by itself what is text, by \"text\".";
            return Err(Refusal::new(400, text));
        }
        let lines = Lines { len_max: message_max + AROUND_PAYLOAD, ..Lines::default() };
        Upload::new(head, holder, Target::Lines(lines), body_max)
    }

    /// The body as what revokes somebody.
    ///
    /// # Errors
    /// It is known to be too large, is coded, or has no length.
    pub fn revocation(head: &Request<'_>, holder: Holder) -> Result<Upload, Refusal> {
        Upload::new(head, holder, Target::Revocation(Vec::new()), REVOCATION_BYTES)
    }

    fn new(head: &Request<'_>, holder: Holder, target: Target, body_max: u64) -> Result<Upload, Refusal> {
        if head.list("Content-Encoding").any(|coding| !coding.eq_ignore_ascii_case("identity")) {
            let text = "The body has a Content-Encoding, and payloads are published as they come: send it without.";
            return Err(Refusal::new(415, text).with(&[("Accept-Encoding", "identity")]));
        }
        if head.body == Body::None {
            // HTTP/1.0 ends it with the connection, where nobody can tell a whole one from half of one.
            return Err(Refusal::new(411, "The body needs a Content-Length, be it 0, or has to come in chunks."));
        }
        let mut decoder = BodyDecoder::new(head.body, body_max);
        // Before it is asked for, with 100 Continue.
        decoder.next(&mut &b""[..])?;
        Ok(Upload {
            sender: Sender { holder, comes_too_late: false, client: None, charged: None },
            keep_alive: head.keep_alive,
            decoder,
            target,
        })
    }

    /// Takes in what has come, which it advances past what was read.
    pub fn take_in(&mut self, input: &mut &[u8], publisher: &Publisher, time: Time<'_>) -> Result<Progress, Fault> {
        let is_complete = loop {
            match self.decoder.next(input) {
                Ok(Some(BodyEvent::Data(data))) => self.target.keep(data),
                Ok(Some(BodyEvent::End)) => break true,
                Ok(None) => break false,
                Err(refusal) => return Err(self.broken(refusal, publisher, time)),
            }
        };
        let sender = &self.sender;
        match &mut self.target {
            Target::Lines(lines) => lines.publish(publisher, sender, time, is_complete),
            Target::One { .. } | Target::Revocation(_) if !is_complete => return Ok(Progress::NeedsMore),
            Target::Revocation(body) => return Ok(Progress::Revocation(std::mem::take(body))),
            Target::One { topic, form, body } => publish_one(publisher, sender, time, topic, *form, body),
        }
        .map(|json| json.map_or(Progress::NeedsMore, Progress::Done))
        .map_err(|fault| Fault { is_complete, ..fault })
    }

    /// Whether the body is one payload, which has an end in sight; lines may go on for hours.
    pub fn is_one(&self) -> bool {
        matches!(self.target, Target::One { .. } | Target::Revocation(_))
    }

    /// What to say of a body that never ended.
    pub fn cut_short(&self) -> String {
        format!("The body did not come in time{}.", self.target.before())
    }

    /// The body can't be read on; the lines before are published still, as they would have been if it had come more slowly.
    fn broken(&mut self, refusal: Refusal, publisher: &Publisher, time: Time<'_>) -> Fault {
        if let Target::Lines(lines) = &mut self.target
            && let Err(fault) = lines.publish(publisher, &self.sender, time, false)
        {
            return fault;
        }
        let sentence = refusal.message.trim_end_matches('.');
        Fault::new(Refusal::new(refusal.status, format!("{sentence}{}.", self.target.before())))
    }
}

impl Target {
    fn keep(&mut self, data: &[u8]) {
        match self {
            Target::One { body, .. } | Target::Revocation(body) => body.extend_from_slice(data),
            Target::Lines(lines) => lines.buffer.extend_from_slice(data),
        }
    }

    /// The end of a sentence: how many publications went before.
    fn before(&self) -> String {
        match self {
            Target::One { .. } | Target::Revocation(_) => String::new(),
            Target::Lines(lines) => format!("; {}", before(lines.published)),
        }
    }
}

impl Fault {
    fn new(refusal: Refusal) -> Fault {
        Fault { refusal, why: None, is_complete: false }
    }

    /// What a refused publication comes to; `sentence` makes a sentence of what was wrong.
    fn of(error: &PublishError, line: bool, sentence: impl FnOnce(&dyn Display) -> String) -> Fault {
        let why = match error {
            PublishError::TopicsFull { .. } => Some(metrics::Refusal::TopicsFull),
            PublishError::HolderFull { .. } => Some(metrics::Refusal::HolderTopicsFull),
            PublishError::AddressFull { .. } => Some(metrics::Refusal::AddressTopicsFull),
            PublishError::Forbidden(_) => Some(metrics::Refusal::Forbidden),
            PublishError::Draining => Some(metrics::Refusal::Draining),
            PublishError::TooLarge { .. } | PublishError::BadTopic(_) => None,
        };
        let status = match error.code() {
            // The line is bad; the body may be as large as it is.
            ErrorCode::TooLarge if line => 400,
            code => code.status(),
        };
        Fault { refusal: Refusal::new(status, sentence(error)), why, is_complete: false }
    }
}

impl Time<'_> {
    /// What is said of what comes now over HTTP: no connection, since none is to be spared its own publications.
    fn about(self) -> About {
        About { ts: self.wall_us, ..About::default() }
    }
}

impl Sender {
    /// Counts one publication; returns what it is charged to if that has had too many already.
    fn is_too_fast(&self, len: usize, now: Moment) -> Option<&Charged> {
        self.charged.as_ref().filter(|charged| !charged.may_now(len, now))
    }

    /// Whether it is one of those who wait for workers first.
    pub fn has_published_much(&self, allowance: f32, now: Moment) -> bool {
        self.charged.as_ref().is_none_or(|charged| charged.account.has_published_much(allowance, now))
    }

    /// What the door wants to know.
    fn by<'s>(&'s self, time: Time<'s>) -> By<'s> {
        let account = self.charged.as_ref().map(|charged| &charged.account);
        By { may: time.may, account, holder: self.holder.key() }
    }
}

impl Charged {
    /// Counts one publication of so many bytes, once for each KiB of it that is begun, if it may be now.
    fn may_now(&self, len: usize, now: Moment) -> bool {
        let (spent, weight) = (&self.account.publications, limits::weight(len));
        self.account.has_published(weight, now);
        self.quota.is_none() || self.quota.allows_several_shared(spent, weight, now)
    }

    /// What it is told if not; `sentence` makes a sentence of it.
    fn too_often(&self, sentence: impl FnOnce(&dyn Display) -> String) -> Fault {
        let limit = self.quota.limit();
        let what = format!("too many publications from your address, --max-publications-per-ip allows {limit}");
        let refusal = Refusal::new(ErrorCode::RateLimited.status(), sentence(&what)).with(&[("Retry-After", "1")]);
        Fault { refusal, why: Some(metrics::Refusal::AddressRateLimited), is_complete: false }
    }
}

impl Form {
    fn of(head: &Request<'_>) -> Result<Form, Refusal> {
        if let Some(declared) = head.choice("as", &Declared::WORDS)? {
            return Ok(Form::Text(declared));
        }
        let media_type = head.header("Content-Type").unwrap_or_default().split(';').next().unwrap_or_default().trim();
        Ok(match media_type.to_ascii_lowercase().as_str() {
            // Those that the MIME Sniffing Standard, section 4.6, calls JSON.
            "application/json" | "text/json" => Form::Text(Declared::Json),
            json if json.ends_with("+json") => Form::Text(Declared::Json),
            text if text.starts_with("text/") => Form::Text(Declared::Text),
            "application/octet-stream" => Form::Binary,
            // That of forms is what curl says of everything.
            _ => Form::Text(Declared::Auto),
        })
    }

    /// The payload that a body is.
    fn payload(self, body: &[u8]) -> Result<Payload<'_>, Refusal> {
        let what = match (self, simdutf8::basic::from_utf8(body)) {
            (Form::Binary, _) | (Form::Text(Declared::Auto), Err(_)) => return Ok(Payload::Binary(body)),
            (Form::Text(Declared::Json), Err(_)) => "is said to be JSON, and is not UTF-8 text".to_owned(),
            (Form::Text(Declared::Text), Err(_)) => "is said to be text, and is not UTF-8".to_owned(),
            (Form::Text(declared), Ok(text)) => match declared.payload(text) {
                Ok(payload) => return Ok(payload),
                Err(what) => what,
            },
        };
        Err(Refusal::new(400, format!("The body {what}.")))
    }
}

fn publish_one(
    publisher: &Publisher,
    sender: &Sender,
    time: Time<'_>,
    topic: &str,
    form: Form,
    body: &[u8],
) -> Result<Option<Vec<u8>>, Fault> {
    let payload = form.payload(body).map_err(Fault::new)?;
    let sentence = |why: &dyn Display| format!("Nothing was published: {why}.");
    if sender.comes_too_late {
        return Err(Fault::of(&PublishError::Draining, false, sentence));
    }
    if let Some(charged) = sender.is_too_fast(body.len(), time.now) {
        return Err(charged.too_often(sentence));
    }
    let done = publisher.publish_for(sender.by(time), topic, payload, time.about());
    let Appended { seq, ts, .. } = done.map_err(|error| Fault::of(&error, false, sentence))?;
    let mut json = b"{\"topic\":".to_vec();
    push_string(&mut json, topic);
    json.extend(format!(",\"seq\":{seq},\"ts\":{ts}}}").bytes());
    Ok(Some(json))
}

/// Newline-delimited publications.
#[derive(Default)]
struct Lines {
    /// Received and not taken apart: at most the beginning of one line between two reads.
    buffer: Vec<u8>,
    /// The longest line taken, without its end.
    len_max: usize,
    /// Lines taken apart.
    number: u64,
    published: u64,
}

/// A line that is good so far.
struct Line<'b> {
    number: u64,
    topic: Cow<'b, str>,
    value: Value<'b>,
}

/// A line that isn't, and what is wrong with it.
struct BadLine {
    number: u64,
    what: String,
}

impl Lines {
    /// Publishes the lines that are complete, which the last one is with the body. Returns the answer at its end.
    fn publish(
        &mut self,
        publisher: &Publisher,
        sender: &Sender,
        time: Time<'_>,
        is_complete: bool,
    ) -> Result<Option<Vec<u8>>, Fault> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let whole = match memchr::memrchr(b'\n', &buffer) {
            _ if is_complete => buffer.len(),
            Some(last) => last + 1,
            None => 0,
        };
        let (lines, bad) = self.read(&buffer[..whole]);
        self.append(publisher, sender, time, &lines)?;
        if let Some(BadLine { number, what }) = bad {
            return Err(self.bad(number, &what));
        }
        self.number += memchr::memchr_iter(b'\n', &buffer[..whole]).count() as u64;
        buffer.drain(..whole);
        buffer.give_back(KEPT_BY_ONE);
        self.buffer = buffer;
        if self.buffer.len() > self.len_max + 1 {
            return Err(self.bad(self.number + 1, &self.too_long()));
        }
        Ok(is_complete.then(|| format!("{{\"published\":{}}}", self.published).into_bytes()))
    }

    /// Appends lines to the tape, under one hold of its lock, up to the first that it refuses.
    fn append(
        &mut self,
        publisher: &Publisher,
        sender: &Sender,
        time: Time<'_>,
        lines: &[Line<'_>],
    ) -> Result<(), Fault> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut batch = publisher.batch_for(sender.by(time));
        for Line { number, topic, value } in lines {
            let payload = value.payload();
            if sender.comes_too_late {
                return Err(Fault::of(&PublishError::Draining, true, |why| refused_line(*number, why, self.published)));
            }
            if let Some(charged) = sender.is_too_fast(payload.bytes().len(), time.now) {
                return Err(charged.too_often(|why| refused_line(*number, why, self.published)));
            }
            if let Err(error) = batch.push_as(topic, payload, time.about()) {
                return Err(Fault::of(&error, true, |error| bad_line(*number, error, self.published)));
            }
            self.published += 1;
        }
        Ok(())
    }

    fn bad(&self, number: u64, what: &str) -> Fault {
        Fault::new(Refusal::new(400, bad_line(number, &what, self.published)))
    }

    /// Takes whole lines apart, up to the first that is bad.
    fn read<'b>(&self, text: &'b [u8]) -> (Vec<Line<'b>>, Option<BadLine>) {
        let mut read = Vec::new();
        for (number, line) in (self.number + 1..).zip(text.split(|&byte| byte == b'\n')) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.trim_ascii().is_empty() {
                continue;
            }
            match self.read_line(line) {
                Ok((topic, value)) => read.push(Line { number, topic, value }),
                Err(what) => return (read, Some(BadLine { number, what })),
            }
        }
        (read, None)
    }

    fn read_line<'b>(&self, line: &'b [u8]) -> Result<(Cow<'b, str>, Value<'b>), String> {
        if line.len() > self.len_max {
            return Err(self.too_long());
        }
        let line = simdutf8::basic::from_utf8(line).map_err(|_| "expected UTF-8 text, found other bytes".to_owned())?;
        ndjson::parse(line).map_err(|error| error.to_string())
    }

    fn too_long(&self) -> String {
        format!("expected at most {} bytes, found more", self.len_max)
    }
}

/// The sentence about a line that comes too soon.
fn refused_line(number: u64, why: &dyn Display, published: u64) -> String {
    format!("Line {number} was refused: {why}; {}.", before(published))
}

/// The sentence about a bad line.
fn bad_line(number: u64, what: &dyn Display, published: u64) -> String {
    format!("Line {number} is bad: {what}; {}.", before(published))
}

fn before(published: u64) -> String {
    match published {
        0 => "nothing was published before it".to_owned(),
        n => format!("{} went before it", counted(n, "publication")),
    }
}
