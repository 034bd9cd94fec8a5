//! `GET /debug/slow`: the subscribers furthest behind, as their workers last saw them.
//!
//! Made of the workers' own lists (`worker/cursors/slow.rs`), each at most `--slow-list` long and a second old, so an answer has a
//! bound, and asking often costs no worker anything.

use serde::Serialize;

use crate::shared::{SlowClient, SlowClients};

/// The answer.
#[derive(Serialize)]
struct Answer<'c> {
    ts: u64,
    connections: Vec<Row<'c>>,
}

/// One subscriber. What the kernel doesn't tell is `null`.
#[derive(Serialize)]
struct Row<'c> {
    conn: &'c str,
    address: String,
    worker: usize,
    connected_s: u64,
    lag_bytes: u64,
    lag_ms: u64,
    skips: u64,
    pending_bytes: usize,
    tls_held_bytes: Option<usize>,
    unacked_bytes: Option<u32>,
    unsent_bytes: Option<u32>,
    kernel_bytes: Option<u32>,
    rtt_us: Option<u32>,
    subscriptions: Vec<&'c str>,
    more: usize,
    mode: &'static str,
    compression: &'static str,
}

/// The answer as JSON, worst lag first, as of `ts` microseconds since the Unix epoch.
pub(super) fn answer(slow: &SlowClients, ts: u64) -> Vec<u8> {
    let clients = slow.all();
    let answer = Answer { ts, connections: clients.iter().map(Row::of).collect() };
    serde_json::to_vec(&answer).expect("plain values can be written")
}

impl<'c> Row<'c> {
    fn of(client: &'c SlowClient) -> Row<'c> {
        Row {
            conn: &client.conn,
            address: client.address.to_string(),
            worker: client.worker,
            connected_s: client.connected.as_secs(),
            lag_bytes: client.lag_bytes,
            lag_ms: client.lag.as_millis() as u64,
            skips: client.skips,
            pending_bytes: client.pending_bytes,
            tls_held_bytes: client.tls_held_bytes,
            unacked_bytes: client.path.map(|path| path.unacked_bytes),
            unsent_bytes: client.path.map(|path| path.unsent_bytes),
            kernel_bytes: client.path.map(|path| path.kernel_bytes),
            rtt_us: client.path.map(|path| path.rtt_us),
            subscriptions: client.subscriptions.iter().map(|name| &**name).collect(),
            more: client.more,
            mode: client.mode,
            compression: client.compression,
        }
    }
}
