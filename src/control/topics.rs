//! `GET /topics` and `GET /topics/TOPIC`: what topics there are, and what was last published on one.
//!
//! The table may be large and everybody who publishes waits for its lock, so it is looked at a stretch at a time; the answer
//! is no picture of one moment. A page of the list has the names behind `after`, in order; how many are kept meanwhile is
//! bounded by `limit`, not by how many topics there are.

use std::{collections::BinaryHeap, sync::Arc};

use super::Context;
use crate::{
    http::{Refusal, Request},
    protocol::{Envelope, envelope::push_string, matches, name::check_pattern},
};

/// Topics that are looked at under one hold of the tape's lock: some ten microseconds.
pub(super) const LOOK_AT_ONCE: u32 = 256;

/// Topics on a page of the list, unless `?limit=` says otherwise.
const LIMIT: usize = 1000;

/// The largest page: some megabytes of answer.
const LIMIT_MAX: usize = 10_000;

/// Which topics are asked for.
pub(super) struct Query {
    pattern: String,
    after: String,
    limit: usize,
}

/// A topic as the list shows it. Ordered by name, which comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
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
    pub fn read(head: &Request<'_>, topic_length_max: usize) -> Result<Query, Refusal> {
        let pattern = head.query_value("pattern").map_or_else(|| ">".to_owned(), |pattern| pattern.into_owned());
        check_pattern(&pattern, topic_length_max)
            .map_err(|error| Refusal::new(400, format!("Not a pattern: {error}.")))?;
        let limit = head.query_value("limit").map_or(Some(LIMIT), |limit| limit.parse().ok());
        let limit = limit
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| Refusal::new(400, format!("The limit has to be a number from 1 to {LIMIT_MAX}.")))?;
        let after = head.query_value("after").map_or_else(String::new, |after| after.into_owned());
        Ok(Query { pattern, after, limit })
    }

    /// The answer: `{"count":N,"topics":[…]}`, with `"next"` for `?after=` where there are more.
    pub fn answer(&self, context: &Context) -> Vec<u8> {
        let (count, has_more, rows) = self.collect(context);
        let names: Vec<Arc<str>> = rows.iter().map(|row| Arc::clone(&row.name)).collect();
        let mut json = format!("{{\"count\":{count},\"topics\":[").into_bytes();
        let mut separator = "";
        for (rows, names) in rows.chunks(LOOK_AT_ONCE as usize).zip(names.chunks(LOOK_AT_ONCE as usize)) {
            let listeners = context.shared.subscriptions.listeners(names);
            for (row, subscribers) in rows.iter().zip(listeners) {
                json.extend(format!("{separator}{{\"topic\":").bytes());
                push_string(&mut json, &row.name);
                let (seq, ts) = (row.seq, row.ts);
                json.extend(format!(",\"seq\":{seq},\"ts\":{ts},\"subscribers\":{subscribers}}}").bytes());
                separator = ",";
            }
        }
        json.push(b']');
        if let (true, Some(last)) = (has_more, rows.last()) {
            json.extend_from_slice(b",\"next\":");
            push_string(&mut json, &last.name);
        }
        json.push(b'}');
        json
    }

    /// How many topics match, whether some of them come behind the page, and the page.
    fn collect(&self, context: &Context) -> (u64, bool, Vec<Row>) {
        let (mut count, mut has_more) = (0, false);
        let mut first: BinaryHeap<Row> = BinaryHeap::new();
        let mut some = Vec::new();
        let slots = context.tape.with_topics(|topics, _| topics.slots());
        for start in (0..slots).step_by(LOOK_AT_ONCE as usize) {
            let stretch = start..slots.min(start + LOOK_AT_ONCE);
            context.tape.with_topics(|topics, _| {
                let here = stretch.filter_map(|slot| topics.at(slot));
                some.extend(here.map(|topic| Row { name: Arc::clone(&topic.name), seq: topic.seq, ts: topic.ts }));
            });
            for row in some.drain(..).filter(|row| matches(&self.pattern, &row.name)) {
                count += 1;
                if *row.name > *self.after {
                    first.push(row);
                }
                if first.len() > self.limit {
                    has_more = true;
                    first.pop();
                }
            }
        }
        let mut rows = first.into_sorted_vec();
        // A topic that was forgotten and made anew meanwhile may have been met in two places.
        rows.dedup_by(|row, before| row.name == before.name);
        (count, has_more, rows)
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
    let subscribers = context.shared.subscriptions.listeners(&[name])[0];
    let mut prefix = b"{\"topic\":".to_vec();
    push_string(&mut prefix, topic);
    prefix.extend(format!(",\"epoch\":\"{epoch}\",\"subscribers\":{subscribers},\"seq\":").bytes());
    let mut json = Vec::new();
    Envelope::new(&prefix, seq, last.ts, last.payload()).append(&mut json);
    Ok(json)
}
