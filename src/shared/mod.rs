//! What the threads of one server share, and the settings as they use them.
//!
//! [`Shared::audited`] is the one place where it is put together, for a server, for the bench and for every test. Tests vary what they
//! hand in: the settings, the tape, who is woken.

mod holders;
mod looks;
mod slow;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub(crate) use self::{
    holders::{Holders, Seat},
    looks::{Ask, Found, Looks, ROWS_MAX, Shown},
    slow::{SlowClient, SlowClients},
};
use crate::{
    access::Rules,
    audit::Audit,
    config::{Client, Compression, Config, DENIED},
    http::head::Bounds,
    io::{SEND_MAX, tls::Buffers, waker::Waker},
    limits::{Quota, share},
    live::Live,
    log::Log,
    metrics::Metrics,
    packs::{PackSettings, Packs},
    proxy::Proxies,
    publish::Publisher,
    stream::StreamSettings,
    tape::{Tape, TapeSettings},
    topic::Subscriptions,
};

/// Most bytes that a member is to be owed: two full sends. More would save nothing, and fill the sockets of peers that aren't
/// slow.
pub(crate) const OWED_MAX: usize = 2 * SEND_MAX;

/// What may be held of encrypted bytes, unless the settings say otherwise.
const TLS_BUFFERS: u64 = 64 << 20;

/// What a worker and the control thread need to know of the configuration, in plain numbers. A reload replaces all of it.
pub(crate) struct Settings {
    pub head: Bounds,
    pub message_max: usize,
    pub pending_max: usize,
    pub topic_length_max: usize,
    /// Topics that each holder with a name may add.
    pub topics_per_holder: usize,
    /// Bytes of the tape that a worker may be behind before whoever publishes much waits; only of the start.
    pub lead_max: usize,
    pub subscriptions_max: usize,
    pub subscriptions_total_max: usize,
    pub commands: Quota,
    pub commands_per_address: Quota,
    pub publications: Quota,
    pub publications_per_address: Quota,
    /// Tokens that are to be judged.
    pub tokens_per_address: Quota,
    /// Of one WebSocket.
    pub auths: Quota,
    /// How long a connection may be there without any right.
    pub auth_timeout: Duration,
    pub slow_list: usize,
    pub flush_interval: Duration,
    pub turn_sends: usize,
    /// In units of the worker's prices.
    pub turn_work: u64,
    /// Bytes that a subscriber at the head is to be owed at most.
    pub owed_max: usize,
    /// In bytes of the tape; 0 for none.
    pub lag_limit: u64,
    /// Zero for none.
    pub lag_limit_age: Duration,
    pub handshake_timeout: Duration,
    pub heartbeat: Duration,
    pub idle_timeout: Duration,
    pub close_timeout: Duration,
    /// How long a plain HTTP connection may be quiet between two requests.
    pub keep_alive_timeout: Duration,
    pub drain_timeout: Duration,
    /// Bytes a second of what plain HTTP sends or takes; 0 for any.
    pub http_rate_min: u64,
    /// Memory of the answers over plain HTTP.
    pub http_pending_max: usize,
    /// How long a worker may stand still and be called healthy; zero for ever.
    pub stall_limit: Duration,
    /// Who may do what.
    pub access: Rules,
    pub proxies: Proxies,
    pub compression: Compressing,
}

/// What is to be compressed, and for whom.
pub(crate) struct Compressing {
    pub is_on: bool,
    /// Cohorts may share streams.
    pub is_shared: bool,
    /// Clients for whom nothing is.
    pub deny: Vec<Client>,
    /// Only of the start.
    pub packs: PackSettings,
    /// Only of the start; all workers together may have so many.
    pub streams: StreamSettings,
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Settings {
        Settings {
            head: Bounds { bytes: config.max_head.as_u64() as usize, headers: config.max_headers },
            message_max: config.max_message.as_u64() as usize,
            pending_max: config.max_pending.as_u64() as usize,
            topic_length_max: config.max_topic_length,
            topics_per_holder: share(config.max_topics_per_holder, config.max_topics),
            lead_max: config.max_lead.0 as usize,
            subscriptions_max: config.max_subscriptions,
            subscriptions_total_max: config.max_subscriptions_total,
            commands: Quota::new(config.max_commands),
            commands_per_address: Quota::new(config.max_commands_per_ip),
            publications: Quota::new(config.max_publications),
            publications_per_address: Quota::new(config.max_publications_per_ip),
            tokens_per_address: Quota::new(config.max_tokens_per_ip),
            auths: Quota::new(config.max_auths),
            auth_timeout: config.auth_timeout.get(),
            slow_list: config.slow_list,
            flush_interval: config.flush_interval.get(),
            turn_sends: config.turn_sends,
            turn_work: config.turn_work,
            owed_max: OWED_MAX,
            lag_limit: config.lag_limit.as_u64(),
            lag_limit_age: config.lag_limit_age.get(),
            handshake_timeout: config.handshake_timeout.get(),
            heartbeat: config.heartbeat.get(),
            idle_timeout: config.idle_timeout.get(),
            close_timeout: config.close_timeout.get(),
            keep_alive_timeout: config.keep_alive_timeout.get(),
            drain_timeout: config.drain_timeout.get(),
            http_rate_min: config.min_http_rate.as_u64(),
            http_pending_max: config.max_http_pending.as_u64() as usize,
            stall_limit: config.stall_limit.get(),
            access: Rules::of(config),
            proxies: Proxies::new(config.trusted_proxy.clone(), config.proxy_protocol),
            compression: Compressing {
                is_on: config.compression != Compression::Off,
                is_shared: config.compression == Compression::Shared,
                deny: denied(config),
                packs: PackSettings {
                    level: config.compression_level.0.unwrap_or(LEVEL_ONCE),
                    least: config.compression_min_bytes as usize,
                    memory: config.compression_memory.as_u64() as usize,
                },
                streams: streams(config),
            },
        }
    }
}

/// How shared streams are made.
pub fn streams(config: &Config) -> StreamSettings {
    StreamSettings {
        most: config.compression_streams,
        members_min: config.compression_min_members,
        window_bits: config.compression_window,
        level: config.compression_level.0,
        least: config.compression_min_bytes as usize,
        private: config.compression_private.iter().map(|name| name.as_str().into()).collect(),
        ..StreamSettings::default()
    }
}

/// The level at which publications are compressed by themselves, where it is to be found out for streams.
const LEVEL_ONCE: u8 = 6;

/// Clients for whom nothing is compressed.
fn denied(config: &Config) -> Vec<Client> {
    match &config.compression_deny[..] {
        [] => DENIED.iter().filter_map(|client| client.parse().ok()).collect(),
        denied => denied.to_vec(),
    }
}

/// What the tape is made of with these settings; its topics begin with `epoch`.
pub(crate) fn tape_settings(config: &Config, epoch: u64) -> TapeSettings {
    TapeSettings {
        retain: config.retain.as_u64() as usize,
        segment: config.segment.as_u64() as usize,
        message_max: config.max_message.as_u64() as usize,
        topics_max: config.max_topics,
        value_bytes_max: config.max_values.as_u64() as usize,
        epoch,
    }
}

/// What all threads share.
pub(crate) struct Shared {
    pub settings: Live<Settings>,
    pub publisher: Publisher,
    pub subscriptions: Subscriptions,
    pub metrics: Arc<Metrics>,
    pub log: Log,
    /// Who was there, and what they asked for.
    pub audit: Audit,
    pub slow: SlowClients,
    /// What operators ask of workers.
    pub looks: Looks,
    /// How often holders are connected.
    pub holders: Holders,
    /// Compressed frames.
    pub packs: Arc<Packs>,
    /// What is held of encrypted bytes.
    pub tls: Arc<Buffers>,
    /// False from when the server is asked to stop: then no client publishes any more, and readiness is red.
    welcomes: AtomicBool,
}

impl Shared {
    /// What so many workers on one tape share. Whoever publishes wakes those of `wakers`. Nothing is noted for an audit.
    #[cfg(any(feature = "bench", test, fuzzing))]
    pub(crate) fn new(
        settings: Settings,
        log: Log,
        tape: &Tape,
        workers: usize,
        wakers: Arc<[Arc<Waker>]>,
    ) -> Arc<Shared> {
        Shared::audited(settings, (log, Audit::default()), tape, workers, wakers)
    }

    /// What so many workers on one tape share. Whoever publishes wakes those of `wakers`; `audit` takes who was there.
    pub(crate) fn audited(
        settings: Settings,
        (log, audit): (Log, Audit),
        tape: &Tape,
        workers: usize,
        wakers: Arc<[Arc<Waker>]>,
    ) -> Arc<Shared> {
        let metrics = Arc::new(Metrics::new(workers));
        let streams = settings.compression.streams.clone();
        let (length_max, lead_max) = (settings.topic_length_max, settings.lead_max);
        let publisher = Publisher::new(tape.clone(), wakers, Arc::clone(&metrics), length_max, lead_max);
        publisher.set_topics_per_holder(settings.topics_per_holder);
        Arc::new(Shared {
            publisher,
            packs: Packs::with_streams(tape.clone(), settings.compression.packs, streams),
            subscriptions: Subscriptions::new(settings.subscriptions_total_max),
            settings: Live::new(settings),
            metrics,
            log,
            audit,
            slow: SlowClients::new(workers),
            looks: Looks::new(workers),
            holders: Holders::new(workers),
            tls: Buffers::new(TLS_BUFFERS),
            welcomes: AtomicBool::new(true),
        })
    }

    /// How many of the streams that cohorts share may be those of the worker with this number.
    pub(crate) fn streams_of(&self, index: usize) -> usize {
        let (most, workers) = (self.packs.streams.most, self.metrics.workers.len().max(1));
        most / workers + usize::from(index < most % workers)
    }

    /// Whether connections are welcome, and what clients publish is taken.
    pub(crate) fn welcomes(&self) -> bool {
        // Relaxed: who asks may as well have asked a moment earlier.
        self.welcomes.load(Ordering::Relaxed)
    }

    /// The server is about to stop.
    pub(crate) fn close_doors(&self) {
        self.welcomes.store(false, Ordering::Relaxed);
    }
}
