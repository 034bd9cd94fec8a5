//! One connection of the publisher: what is to be sent over it, and what the server says on it.
//!
//! Set up with plain blocking calls before the run; there are few, and nothing is measured yet.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::http::{self, Answer, Verdict};
use crate::{
    dial::{Stream, dial},
    dialect::{Dialect, Heard},
    frame::{self, Frame, Opcode, Scan},
    line::{Arrival, Line},
    message::{Assembly, Event},
    meter::Checks,
    socket::Interest,
    tls::Peer,
};

/// A connection to publish over.
pub struct Outlet {
    /// Its sending side.
    pub line: Arc<Line>,
    /// What is due and not sent.
    pub queue: VecDeque<Queued>,
    /// Bytes of the latest batch; kept for its room.
    pub batch: Vec<u8>,
    /// Whether what arrives on it is ours to read.
    pub listens: bool,
    /// Whether publications are requests, of which the next waits for the answer to the one before.
    pub asks: bool,
    /// Whether there is one without an answer.
    pub unanswered: bool,
    pending: Vec<u8>,
    assembly: Assembly,
}

/// Goes through the steps of a publisher of these topics, waiting for what is to be waited for.
fn go_through(stream: &mut Stream, pending: &mut Vec<u8>, dialect: &Dialect, topics: &[usize]) -> Result<()> {
    let (steps, mut assembly, mut buffer) = (dialect.publisher_steps(), Assembly::default(), [0; 4096]);
    let names: Vec<&str> = topics.iter().map(|&topic| dialect.topics[topic].as_str()).collect();
    let mut at = 0;
    loop {
        let mut said = Vec::new();
        let say = &mut |message: &[u8]| frame::write(dialect.opcode(), message, &mut said);
        let next = steps.go(at, &names, say);
        stream.write_all(&said)?;
        let Some(mut waiting) = next else { return Ok(()) };
        while !waiting.is_over() {
            if !heard(pending, &mut assembly, |message| steps.take(&mut waiting, message))? {
                let len = stream.read(&mut buffer).context("waiting for the server")?;
                ensure!(len > 0, "the server hung up");
                pending.extend_from_slice(&buffer[..len]);
            }
        }
        at = waiting.next();
    }
}

/// Takes whole messages off what came until one is awaited.
fn heard(pending: &mut Vec<u8>, assembly: &mut Assembly, mut awaited: impl FnMut(&[u8]) -> bool) -> Result<bool> {
    let (mut at, mut found) = (0, false);
    while let (Scan::Frame(frame), false) = (frame::scan(&pending[at..]), found) {
        at += frame.len;
        match assembly.take(&frame) {
            Ok(Event::Message(_, message)) => found = awaited(&message),
            Ok(Event::Close(code, reason)) => bail!("the server closed it with {code} {reason}"),
            Ok(_) => {}
            Err(violation) => bail!(violation.why),
        }
    }
    pending.drain(..at);
    Ok(found)
}

/// A publication that is due.
#[derive(Debug)]
pub struct Queued {
    /// When it should have been sent, on the monotonic clock.
    pub planned: u64,
    /// Index of its topic.
    pub topic: u32,
    /// Which of the run's publications it is.
    pub number: u32,
    /// The captured payload that it carries.
    pub data: Option<u32>,
    /// Bytes of one that is made up.
    pub size: usize,
    /// The server had not taken earlier ones when it became due.
    pub held_up: bool,
}

/// Bytes of what the server says to publishers that are looked at at once.
const HEARD: usize = 64 * 1024;

impl Outlet {
    /// Connects as a publisher of these topics, of which there is one at least.
    pub fn connect(
        target: SocketAddr,
        peer: Option<&Peer>,
        dialect: &Dialect,
        topics: &[usize],
        timeout: Duration,
    ) -> Result<Self> {
        if dialect.publishes_by_http() {
            let (line, pending) = Stream::connect(target, peer, timeout)?.into_line()?;
            return Ok(Self { listens: true, asks: true, pending, ..Self::over(Arc::new(line)) });
        }
        let (path, host) = (dialect.publish_path(topics[0]), &dialect.publish_url().host);
        let (mut stream, mut pending) = dial(target, peer, host, &path, dialect.headers(), timeout)?;
        go_through(&mut stream, &mut pending, dialect, topics).context("getting ready to publish")?;
        let (line, more) = stream.into_line()?;
        pending.extend_from_slice(&more);
        dialect.greet(&mut |message| {
            // A line that is broken shows at the first publication.
            let _ = line.write_frame(dialect.opcode(), message);
        });
        Ok(Self { listens: true, pending, ..Self::over(Arc::new(line)) })
    }

    /// Publishes over a connection that somebody else reads.
    pub fn over(line: Arc<Line>) -> Self {
        Self {
            line,
            queue: VecDeque::new(),
            batch: Vec::new(),
            listens: false,
            asks: false,
            unanswered: false,
            pending: Vec::new(),
            assembly: Assembly::default(),
        }
    }

    /// Whether the next publication may go out.
    pub fn is_ready(&self) -> bool {
        !self.unanswered && self.line.is_clear()
    }

    /// What to watch it for.
    pub fn interest(&self) -> Interest {
        if self.listens { Interest::IN } else { Interest::empty() }
    }

    /// Reads what the server says: answers its questions, notes its complaints, skips all else.
    pub fn listen(&mut self, dialect: &Dialect, checks: &mut Checks, records: &mut Vec<u8>) -> io::Result<()> {
        let begin = self.pending.len();
        self.pending.resize(begin + HEARD + self.line.reserve(), 0);
        let outcome = self.line.recv(&mut self.pending[begin..], records);
        let read = match outcome {
            Ok(Arrival::Data(len, _)) => len,
            Ok(Arrival::Empty) => 0,
            Ok(Arrival::End) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up")),
            Err(error) => return Err(error),
        };
        self.pending.truncate(begin + read);
        let pending = std::mem::take(&mut self.pending);
        let mut at = 0;
        while self.asks {
            match http::judge(&pending[at..]) {
                Answer::Incomplete => {
                    self.pending = pending[at..].to_vec();
                    return Ok(());
                }
                Answer::Wrong(why) => return Err(io::Error::new(io::ErrorKind::InvalidData, why)),
                Answer::Whole(len, verdict) => {
                    at += len;
                    self.unanswered &= verdict == Verdict::Interim;
                    if let Verdict::Refused(why) = verdict {
                        checks.remark(format!("the server answered a publication with {why}"));
                    }
                }
            }
        }
        loop {
            match frame::scan(&pending[at..]) {
                Scan::Frame(frame) => {
                    at += frame.len;
                    self.hear(dialect, &frame, checks)?;
                }
                Scan::Partial(_) => break,
                Scan::Wrong(why) => return Err(io::Error::new(io::ErrorKind::InvalidData, why)),
            }
        }
        self.pending = pending[at..].to_vec();
        Ok(())
    }

    fn hear(&mut self, dialect: &Dialect, frame: &Frame<'_>, checks: &mut Checks) -> io::Result<()> {
        let message = match self.assembly.take(frame) {
            Ok(Event::Nothing) => return Ok(()),
            Ok(Event::Message(_, message)) => message,
            Ok(Event::Ping(payload)) => return self.line.write_frame(Opcode::Pong, payload).map(|_| ()),
            Ok(Event::Close(code, reason)) => {
                let _ = self.line.write_close(code);
                let why = format!("the server closed it with {code} {reason}");
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why.trim_end()));
            }
            Err(violation) => {
                let _ = self.line.write_close(violation.code);
                return Err(io::Error::new(io::ErrorKind::InvalidData, violation.why));
            }
        };
        match dialect.hear(&message) {
            Heard::Answer(answer) => self.line.write_frame(dialect.opcode(), &answer).map(|_| ()),
            Heard::Complaint(text) => {
                checks.remark(format!("the server said to the publisher: {text}"));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
