//! `GET /debug/connections`: who is connected, how each is sent publications, and why it reads no shared stream; a page at a time, or one by its
//! name.
//!
//! Connections are their workers', so each is asked for a piece of a page, one worker after the other, and answers within a turn
//! (`shared/looks.rs`): no worker's turn is longer for it than a step may be, and this thread waits for none of them, but looks every now and
//! then whether the answer has come. A worker that doesn't answer for `--close-timeout` is told of with 503. The answer is no picture of one moment.

use std::sync::Arc;

use serde::Serialize;

use super::{Context, out::Held};
use crate::{
    clock::Moment,
    http::{Refusal, Request},
    io::Token,
    shared::{Ask, Found, Shown},
};

/// Connections on a page: unless `?limit=` asks for fewer or more, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 250;

/// What a row takes at most beside the names of subscriptions: the names of its fields, what is in them, and a sentence.
const ROW_BYTES: usize = 512;

/// Names in a row (`worker/desk/shown.rs`).
const NAMES: usize = 8;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// The worker to ask first, and from which place on.
    from: (usize, Token),
    limit: usize,
    /// The number of the one that is meant, of that worker alone.
    only: Option<u64>,
}

/// A page in the making.
pub(super) struct Look {
    query: Query,
    /// The request was a HEAD.
    pub is_head: bool,
    /// The client wants to send another request afterwards.
    pub keep_alive: bool,
    /// The worker that is asked next or was asked last, and from which place on.
    at: (usize, Token),
    ask: Option<Arc<Ask>>,
    rows: Vec<Shown>,
    /// When it will have been waited for long enough.
    pub due: Moment,
    /// Room for the page among the answers.
    _room: Held,
}

/// How it goes on with one.
pub(super) enum Step {
    /// The page is complete.
    Done,
    /// A worker is to answer first.
    Waits,
    /// That one has too much to answer.
    Full,
}

/// The answer.
#[derive(Serialize)]
struct Answer<'s> {
    ts: u64,
    connections: Vec<Row<'s>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// One connection.
#[derive(Serialize)]
struct Row<'s> {
    conn: &'s str,
    address: String,
    worker: usize,
    connected_s: u64,
    door: &'static str,
    subscriptions: Vec<&'s str>,
    more: usize,
    mode: &'static str,
    same: usize,
    behind: bool,
    compression: &'static str,
}

impl Query {
    /// Reads `?conn=1-2a`, or `?limit=100&after=WORD`.
    ///
    /// # Errors
    /// What of it is wrong.
    pub fn read(head: &Request<'_>) -> Result<Query, Refusal> {
        let limit = match head.parameter("limit")? {
            None => LIMIT,
            Some(text) => text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit)).ok_or_else(|| {
                Refusal::new(400, format!("The limit has to be a number from 1 to {LIMIT_MAX}: a page has no more."))
            })?,
        };
        if let Some(conn) = head.parameter("conn")? {
            let text = "Not a connection: it has to be as in hello and in the log, such as 1-2a.";
            let (worker, id) = read_name(&conn).ok_or_else(|| Refusal::new(400, text))?;
            return Ok(Query { from: (worker, 0), limit: 1, only: Some(id) });
        }
        let from = match head.parameter("after")? {
            None => (0, 0),
            Some(word) => read_place(&word).ok_or_else(|| {
                Refusal::new(400, "Not a place to go on from: after has to be what next was in an answer.")
            })?,
        };
        Ok(Query { from, limit, only: None })
    }

    /// The most bytes that the page can have.
    pub fn bytes_max(&self, topic_length_max: usize) -> usize {
        self.limit * (NAMES * (topic_length_max + 3) + ROW_BYTES)
    }
}

/// The worker of a connection with such a name, and its number: `3-2a` is the 42nd of the third.
fn read_name(name: &str) -> Option<(usize, u64)> {
    let (worker, nth) = name.split_once('-')?;
    let is_hex = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex(worker) || !is_hex(nth) {
        return None;
    }
    let (worker, nth) = (u64::from_str_radix(worker, 16).ok()?, u64::from_str_radix(nth, 16).ok()?);
    let is_one = (1..1 << 16).contains(&worker) && nth < 1 << 48;
    is_one.then(|| (worker as usize - 1, worker << 48 | nth))
}

/// A worker and a place in its table, as `next` says it.
fn read_place(word: &str) -> Option<(usize, Token)> {
    let (worker, token) = word.split_once('-')?;
    Some((worker.parse().ok()?, token.parse().ok()?))
}

impl Look {
    /// A page with nothing on it yet, and `room` for it; to be complete by `due`.
    pub fn new(query: Query, (is_head, keep_alive): (bool, bool), due: Moment, room: Held) -> Look {
        let Query { from, .. } = query;
        Look { query, is_head, keep_alive, at: from, ask: None, rows: Vec::new(), due, _room: room }
    }

    /// Takes what a worker has answered, and asks for what comes next.
    pub fn advance(&mut self, context: &Context) -> Step {
        let looks = &context.shared.looks;
        loop {
            if let Some(ask) = &self.ask {
                let Some(found) = ask.fetch() else { return Step::Waits };
                self.take(found);
            }
            if self.is_complete(looks.workers()) {
                return Step::Done;
            }
            let (worker, from) = self.at;
            let most = self.query.limit - self.rows.len();
            self.ask = looks.ask(worker, (from, most), self.query.only);
            if self.ask.is_none() {
                return Step::Full;
            }
            context.shared.publisher.wake_one(worker);
        }
    }

    /// Whether it goes on at once.
    pub fn is_answered(&self) -> bool {
        self.ask.as_ref().is_none_or(|ask| ask.is_answered())
    }

    fn take(&mut self, found: Found) {
        self.ask = None;
        self.rows.extend(found.rows);
        self.at = match found.next {
            Some(next) => (self.at.0, next),
            None if self.query.only.is_some() => (usize::MAX, 0),
            None => (self.at.0 + 1, 0),
        };
    }

    fn is_complete(&self, workers: usize) -> bool {
        self.rows.len() >= self.query.limit || self.at.0 >= workers
    }

    /// The worker that it waits for.
    pub fn worker(&self) -> usize {
        self.at.0
    }

    /// The page, as of `ts` microseconds since the Unix epoch; with `"next"` for `?after=` where there may be more.
    ///
    /// # Errors
    /// The one that was meant isn't there.
    pub fn finish(self, context: &Context, ts: u64) -> Result<Vec<u8>, Refusal> {
        if self.query.only.is_some() && self.rows.is_empty() {
            return Err(Refusal::new(
                404,
                "There is no such connection: it has ended, or speaks neither WebSocket nor events.",
            ));
        }
        let (worker, token) = self.at;
        let has_more = self.query.only.is_none() && worker < context.shared.looks.workers();
        let next = has_more.then(|| format!("{worker}-{token}"));
        let answer = Answer { ts, connections: self.rows.iter().map(Row::of).collect(), next };
        Ok(serde_json::to_vec(&answer).expect("plain values can be written"))
    }
}

impl<'s> Row<'s> {
    fn of(shown: &'s Shown) -> Row<'s> {
        Row {
            conn: &shown.conn,
            address: shown.address.to_string(),
            worker: shown.worker,
            connected_s: shown.connected.as_secs(),
            door: shown.door,
            subscriptions: shown.subscriptions.iter().map(|name| &**name).collect(),
            more: shown.more,
            mode: shown.mode,
            same: shown.same,
            behind: shown.is_behind,
            compression: shown.compression,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_connection_it_is() {
        assert_eq!(read_name("1-2a"), Some((0, 1 << 48 | 0x2a)));
        assert_eq!(read_name("10-0"), Some((15, 16 << 48)));
        for wrong in ["", "1", "-", "1-", "-1", "0-1", "+1-2", "1-x", "10000-1", "1-1000000000000", "1-2-3"] {
            assert_eq!(read_name(wrong), None, "{wrong}");
        }
        assert_eq!((read_place("1-300"), read_place("1-"), read_place("a-1")), (Some((1, 300)), None, None));
    }
}
