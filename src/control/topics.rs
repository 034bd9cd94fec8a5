//! `GET /topics` and `GET /topics/TOPIC`: what topics there are, and what was last published on one.
//!
//! Everybody who publishes waits for the lock of the table, so it is looked at a stretch at a time, in the order of the names,
//! and only where names begin like the pattern; what is there is taken along, and held against the pattern afterwards. The
//! answer is no picture of one moment. A page begins right behind `after` and ends when it is full. Only the first page says
//! how many match, for which all of them are looked at, over as many turns as that takes. Who listens is counted for as many
//! rows at a time as one short hold of the subscriptions' lock allows. What whoever looks may not subscribe to is not there for it, neither
//! in the list nor in its count. [`Listing::advance`] is one step of either.

use std::{collections::VecDeque, ops::Bound, sync::Arc};

use super::{Context, out::Held};
use crate::{
    access::{Rules, Viewer},
    http::{Refusal, Request},
    protocol::{Envelope, envelope::push_string, is_pattern, matches, name::check_pattern},
    publication::Kind,
    topic::Topic,
};

/// Topics that are looked at under one hold of the tape's lock: some twenty microseconds.
pub(super) const LOOK_AT_ONCE: u32 = 256;

/// Topics on a page of the list: unless `?limit=` asks for fewer, and at most.
const LIMIT: usize = 1000;

/// What a row of the list takes beside the topic's name: the names of its fields, and three numbers.
const ROW_BYTES: usize = 112;

/// Which topics are asked for.
pub(super) struct Query {
    pattern: String,
    viewer: Viewer,
    after: String,
    limit: usize,
}

/// A page of the list in the making.
pub(super) struct Listing {
    query: Query,
    /// The request was a HEAD.
    pub is_head: bool,
    /// The client wants to send another request afterwards.
    pub keep_alive: bool,
    /// It takes gzip.
    pub gzip: bool,
    /// Whoever looks may not see all there is.
    pub filters: bool,
    /// How many match, where that is asked.
    count: Option<u64>,
    /// The last name looked at.
    at: Option<Arc<str>>,
    rows: Vec<u8>,
    /// Rows whose listeners are still to be counted.
    waiting: VecDeque<Row>,
    shown: usize,
    /// Nothing is left to be looked at.
    is_complete: bool,
    /// The last name on the page.
    last: Option<Arc<str>>,
    has_more: bool,
    /// Room for the page among the answers.
    _room: Held,
}

/// A topic as the list shows it.
struct Row {
    name: Arc<str>,
    seq: u64,
    ts: u64,
}

impl Query {
    /// Reads `?pattern=q.>&limit=1000&after=NAME`.
    ///
    /// # Errors
    /// What of it is wrong.
    pub fn read(head: &Request<'_>, viewer: Viewer, topic_length_max: usize) -> Result<Query, Refusal> {
        let pattern = head.name("pattern")?.unwrap_or_else(|| ">".to_owned());
        check_pattern(&pattern, topic_length_max)
            .map_err(|error| Refusal::new(400, format!("Not a pattern: {error}.")))?;
        let limit = match head.parameter("limit")? {
            None => LIMIT,
            Some(text) if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) => 0,
            // A number too large for any is more than a page as well.
            Some(text) => text.parse().unwrap_or(LIMIT).min(LIMIT),
        };
        if limit == 0 {
            return Err(Refusal::new(400, "The limit has to be a number from 1 on; a page has 1000 topics at most."));
        }
        let after = head.name("after")?.unwrap_or_default();
        Ok(Query { pattern, viewer, after, limit })
    }

    /// The most bytes that the page can have.
    pub fn bytes_max(&self, topic_length_max: usize) -> usize {
        self.limit * (topic_length_max + ROW_BYTES)
    }

    /// What all names begin with that match.
    fn prefix(&self) -> &str {
        &self.pattern[..self.pattern.find(['*', '>']).unwrap_or(self.pattern.len())]
    }
}

impl Listing {
    /// A page with nothing on it yet, and `room` for it.
    pub fn new(query: Query, (is_head, keep_alive, gzip): (bool, bool, bool), room: Held) -> Listing {
        let count = query.after.is_empty().then_some(0);
        Listing {
            query,
            is_head,
            keep_alive,
            gzip,
            filters: false,
            count,
            at: None,
            rows: Vec::new(),
            waiting: VecDeque::new(),
            shown: 0,
            is_complete: false,
            last: None,
            has_more: false,
            _room: room,
        }
    }

    /// Looks at the next stretch, or counts who listens to some of it. Returns whether the page is complete.
    pub fn advance(&mut self, context: &Context, rules: &Rules, wall_us: u64) -> bool {
        if self.waiting.is_empty() && !self.is_complete {
            self.look(context, rules, wall_us);
        } else {
            self.write(context);
        }
        self.waiting.is_empty() && self.is_complete
    }

    /// Writes rows for as long as their listeners are counted under one hold of the lock.
    fn write(&mut self, context: &Context) {
        let names: Vec<Arc<str>> = self.waiting.iter().map(|row| Arc::clone(&row.name)).collect();
        let listeners = context.shared.subscriptions.listeners(&names);
        for (row, subscribers) in self.waiting.drain(..listeners.len()).zip(listeners) {
            self.rows.extend_from_slice(if self.shown == 0 { b"{\"topic\":" } else { b",{\"topic\":" });
            push_string(&mut self.rows, &row.name);
            let (seq, ts) = (row.seq, row.ts);
            self.rows.extend(format!(",\"seq\":{seq},\"ts\":{ts},\"subscribers\":{subscribers}}}").bytes());
            self.shown += 1;
            self.last = Some(row.name);
        }
    }

    /// The next stretch: rows that match wait to be written.
    fn look(&mut self, context: &Context, rules: &Rules, wall_us: u64) {
        let Listing { query, filters, count, at, waiting, shown, has_more, is_complete, .. } = self;
        let prefix = query.prefix();
        let from = match at {
            Some(at) => Bound::Excluded(&**at),
            None if !query.after.is_empty() && *query.after >= *prefix => Bound::Excluded(&*query.after),
            None => Bound::Included(prefix),
        };
        let (stretch, all) = context.tape.with_topics(|topics, _| {
            let row = |topic: &Topic| Row { name: Arc::clone(&topic.name), seq: topic.seq, ts: topic.ts };
            (topics.from(from).take(LOOK_AT_ONCE as usize).map(row).collect::<Vec<Row>>(), topics.len() as u64)
        });
        let sees_all = rules.sees(&query.viewer, ">", wall_us);
        *filters = !sees_all;
        let counts_all = query.pattern == ">" && sees_all;
        if counts_all && let Some(count) = count {
            *count = all;
        }
        *is_complete = stretch.len() < LOOK_AT_ONCE as usize || !is_pattern(&query.pattern);
        *at = stretch.last().map(|row| Arc::clone(&row.name));
        for row in stretch {
            if !row.name.starts_with(prefix) {
                *is_complete = true;
                return;
            }
            if !matches(&query.pattern, &row.name) || !(sees_all || rules.sees(&query.viewer, &row.name, wall_us)) {
                continue;
            }
            if let Some(count) = count
                && !counts_all
            {
                *count += 1;
            }
            if *shown + waiting.len() < query.limit {
                waiting.push_back(row);
            } else {
                *has_more = true;
                if count.is_none() || counts_all {
                    *is_complete = true;
                    return;
                }
            }
        }
    }

    /// The page: `{"count":N,"topics":[…]}`, the first one with its count; with `"next"` for `?after=` where there are more.
    pub fn finish(self) -> Vec<u8> {
        let count = self.count.map(|count| format!("\"count\":{count},")).unwrap_or_default();
        let mut json = format!("{{{count}\"topics\":[").into_bytes();
        json.extend_from_slice(&self.rows);
        json.push(b']');
        if let (true, Some(last)) = (self.has_more, self.last) {
            json.extend_from_slice(b",\"next\":");
            push_string(&mut json, &last);
        }
        json.push(b'}');
        json
    }
}

/// The answer about one topic: `{"topic":…,"epoch":…,"subscribers":n,"seq":…,"ts":…,"data":…}`.
///
/// # Errors
/// There is no such topic, or its value was not kept.
pub(super) fn last_value(context: &Context, topic: &str) -> Result<Vec<u8>, Refusal> {
    let found = context
        .tape
        .with_topics(|topics, _| topics.find(topic).map(|t| (Arc::clone(&t.name), t.epoch, t.seq, t.last.clone())));
    let Some((name, epoch, seq, last)) = found else {
        return Err(Refusal::new(404, "There is no such topic."));
    };
    let last = last.ok_or_else(|| {
        Refusal::new(
            404,
            "The topic's last value was not kept: there was no room within --max-values or --max-values-per-ip.",
        )
    })?;
    if last.kind == Kind::TooLarge {
        let text = "The topic has no last value: its newest publication is one of a recording that is larger than --max-replay-message, too deep, or missing.";
        return Err(Refusal::new(404, text));
    }
    let subscribers = context.shared.subscriptions.listeners(&[name])[0];
    let mut prefix = b"{\"topic\":".to_vec();
    push_string(&mut prefix, topic);
    prefix.extend(format!(",\"epoch\":\"{epoch}\",\"subscribers\":{subscribers},\"seq\":").bytes());
    let mut json = Vec::new();
    Envelope::new(&prefix, seq, last.ts, last.payload()).append(&mut json);
    Ok(json)
}
