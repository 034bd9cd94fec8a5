//! The lists of slow subscribers: each worker leaves its own here, and the control thread finds it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::io::path::Path;

/// A subscriber that is behind, as of the worker's last look.
#[derive(Clone, Debug)]
pub(crate) struct SlowClient {
    /// What `hello` and the log call it.
    pub conn: String,
    pub address: SocketAddr,
    pub worker: usize,
    /// How long it has been speaking WebSocket.
    pub connected: Duration,
    /// Bytes of its lane between its cursor and the newest publication.
    pub lag_bytes: u64,
    /// Age of the oldest publication that it wasn't sent.
    pub lag: Duration,
    /// Publications left out for it.
    pub skips: u64,
    /// Answers that wait for it.
    pub pending_bytes: usize,
    /// What is encrypted and waits for room in its socket; None for one in clear.
    pub tls_held_bytes: Option<usize>,
    /// What the kernel knows; None where it doesn't tell.
    pub path: Option<Path>,
    /// The first of its subscriptions.
    pub subscriptions: Vec<Arc<str>>,
    /// How many more it has.
    pub more: usize,
    pub mode: &'static str,
    /// How it is sent publications, and why it reads no shared stream where it doesn't.
    pub compression: &'static str,
}

/// Each worker's list. The worker replaces it, whoever looks copies it: neither takes longer than a list is long.
#[derive(Debug)]
pub(crate) struct SlowClients(Box<[CachePadded<Mutex<Vec<SlowClient>>>]>);

impl SlowClients {
    pub(crate) fn new(workers: usize) -> SlowClients {
        SlowClients((0..workers).map(|_| CachePadded::default()).collect())
    }

    /// All workers' lists, worst lag first.
    pub(crate) fn all(&self) -> Vec<SlowClient> {
        let mut all: Vec<SlowClient> = self.0.iter().flat_map(|list| list.lock().clone()).collect();
        all.sort_by_key(|client| std::cmp::Reverse((client.lag, client.lag_bytes)));
        all
    }

    /// Replaces a worker's list.
    pub(crate) fn set(&self, worker: usize, list: Vec<SlowClient>) {
        let before = std::mem::replace(&mut *self.0[worker].lock(), list);
        drop(before);
    }
}
