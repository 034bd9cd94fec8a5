//! The figures of `GET /metrics`, in the two text formats that Prometheus reads.
//!
//! Counted elsewhere, in plain atomics (`crate::metrics`), the tape and the tables; here they get names, help and units at
//! the moment of a scrape. `prometheus-client` writes OpenMetrics. The older text format differs in little, and is made of
//! it line by line: there a counter's help and type bear the name that its samples have, and units are unknown.
//!
//! Both are made together, four times a second at most, and kept: many that scrape, or slow ones, share the text. Making them takes
//! no lock for longer than it takes to copy what is under it, and waits for none of the tape's; while that is held, its
//! figures are those of the last time.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::{Registry, Unit},
};
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::{
    Context,
    out::{Pending, Text},
    stall::turn_age,
};
use crate::{
    clock::{self, Moment},
    http::Request,
    metrics::{Door, Figure, Held, STEPS, Times, WorkerMetrics},
    tape::TapeStatus,
};

/// How long figures are the newest ones. Prometheus asks every 15 seconds, `stentor top` and the console every second.
const KEPT: Duration = Duration::from_millis(250);

/// The OpenMetrics type.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The type of the older text format.
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper ends of the buckets for times, in microseconds: a send takes some, a turn with thousands of subscribers takes
/// milliseconds, and whatever takes a second needs no finer telling.
const BOUNDS_US: [u64; 16] =
    [10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000];

/// What renders the figures.
pub(super) struct Exposition {
    registry: Registry,
    pending: Pending,
    made: Option<Made>,
}

/// The figures of a moment, in both formats.
struct Made {
    at: Moment,
    open: Arc<Text>,
    classic: Arc<Text>,
}

impl Exposition {
    /// The figures of `context`; the memory of their text is counted in `pending`.
    pub fn new(context: Context, pending: Pending) -> Exposition {
        let started_us = clock::wall_us().saturating_sub(Moment::now().since(context.started).as_micros() as u64);
        let mut registry = Registry::with_prefix("stentor");
        registry.register_collector(Box::new(Figures { context, started_us, status: Mutex::default() }));
        Exposition { registry, pending, made: None }
    }

    /// The content type and the text that a client gets, OpenMetrics if it names it, and whether it was made for it.
    pub fn render(&mut self, head: &Request<'_>, now: Moment) -> (&'static str, Arc<Text>, bool) {
        let is_new = self.made.as_ref().is_none_or(|made| now.since(made.at) >= KEPT);
        let fresh = is_new.then(|| self.make(now));
        let made = match fresh {
            Some(fresh) => self.made.insert(fresh),
            None => self.made.as_mut().expect("what is not to be made is there"),
        };
        // RFC 9110 section 12.4.2: of no weight is nought with up to three noughts behind the point.
        let is_unwanted = |part: &str| {
            let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            weight.is_some_and(|weight| weight.parse() == Ok(0.0))
        };
        let accepts = |element: &str| {
            let mut parts = element.split(';').map(str::trim);
            parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"))
                && !parts.any(is_unwanted)
        };
        let (content_type, text) = match head.list("Accept").any(accepts) {
            true => (OPENMETRICS, &made.open),
            false => (CLASSIC, &made.classic),
        };
        (content_type, Arc::clone(text), is_new)
    }

    fn make(&self, at: Moment) -> Made {
        let mut text = String::new();
        let written = encode(&mut text, &self.registry);
        debug_assert!(written.is_ok(), "a String takes everything");
        let classic = Text::new(classic(&text), &self.pending);
        Made { at, open: Text::new(text, &self.pending), classic }
    }
}

/// The older text format, from OpenMetrics.
fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            let help = help.split_once(' ').map_or("", |(_, help)| help);
            for line in ["# HELP ", name, suffix, " ", help, "\n# TYPE ", name, suffix, " ", kind, "\n"] {
                out.push_str(line);
            }
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// All figures.
struct Figures {
    context: Context,
    started_us: u64,
    /// What the tape said of itself last.
    status: Mutex<TapeStatus>,
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").finish_non_exhaustive()
    }
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer(encoder);
        self.server(&mut out)?;
        self.connections(&mut out)?;
        self.publications(&mut out)?;
        self.sending(&mut out)?;
        self.compression(&mut out)?;
        self.times(&mut out)?;
        self.tape(&mut out)?;
        self.process(&mut out)
    }
}

impl Figures {
    fn server(&self, out: &mut Writer<'_>) -> fmt::Result {
        out.info("build", "The program", &[("version", env!("CARGO_PKG_VERSION"))])?;
        let started = self.started_us as f64 / 1e6;
        out.gauge("start_time", "When the server started, since the Unix epoch", Some(Unit::Seconds), started)?;
        // Relaxed: a scrape needs no order between figures.
        let ready = u64::from(self.context.shared.welcomes());
        out.gauge("ready", "1 while new connections are welcome, 0 while the server drains", None, ready)
    }

    fn connections(&self, out: &mut Writer<'_>) -> fmt::Result {
        let (context, metrics) = (&self.context, &self.context.shared.metrics);
        self.worker_gauges(out, "connections", "Connections of a worker, of any kind", |w| w.connections.get())?;
        self.worker_gauges(out, "websocket_connections", "Open WebSocket connections", |w| w.websockets.get())?;
        self.worker_gauges(out, "event_streams", "Open streams of Server-Sent Events", |w| w.streams.get())?;
        let help = "Connections that the server may have at once (--max-connections)";
        out.gauge("connections_max", help, None, context.limits.connections_max())?;
        out.gauge("connections_admitted", "Connections that count towards it", None, context.limits.connections())?;
        out.gauge("addresses", "Addresses that something is counted for", None, context.limits.addresses())?;
        out.gauge("http_connections", "Plain HTTP connections", None, metrics.http_connections.get())?;
        let help = "Plain HTTP connections that there may be at once (--max-http-connections)";
        out.gauge("http_connections_max", help, None, context.settings.http_connections_max)?;
        let help = "Connections to the admin address (--admin-listen)";
        out.gauge("admin_connections", help, None, metrics.admin_connections.get())?;
        let help = "Answers over plain HTTP that clients have not taken, those in the making included";
        out.gauge("http_pending", help, Some(Unit::Bytes), metrics.http_pending_bytes.get())?;
        let help = "Memory that they may have (--max-http-pending)";
        let most = context.shared.settings.get().http_pending_max as u64;
        out.gauge("http_pending_max", help, Some(Unit::Bytes), most)?;
        let help =
            "Plain HTTP connections ended because others needed the room, or because their client was too slow, by why";
        let evictions = metrics.evictions().map(|(why, count)| (why.name().to_owned(), count));
        out.counters("http_evictions", help, None, "why", evictions)?;
        let shaken = metrics.handshakes().map(|(what, count)| (what.name().to_owned(), count));
        out.counters("tls_handshakes", "TLS handshakes that are over, by what became of them", None, "result", shaken)?;
        let over: u64 = metrics.handshakes().map(|(_, count)| count).sum();
        let going = metrics.handshakes_begun.get().saturating_sub(over);
        out.gauge("tls_handshakes_going", "TLS handshakes that are not over (--handshakes)", None, going)?;
        let tls = &context.shared.tls;
        out.gauge("tls_sessions", "TLS sessions, those in their handshake included", None, tls.sessions())?;
        let help = "Encrypted bytes that the kernel has not taken (--tls-buffers)";
        out.gauge("tls_held", help, Some(Unit::Bytes), tls.held())?;
        let help = "Bytes of records that are not whole, or not read yet (--tls-buffers)";
        out.gauge("tls_kept", help, Some(Unit::Bytes), tls.kept())?;
        let help = "TLS connections closed because there was no room for what they had sent of a record";
        out.counter("tls_cut", help, None, tls.cut())?;
        out.counter("http_requests", "HTTP requests taken by the control thread", None, metrics.http_requests.get())?;
        out.counter("accepted_connections", "Sockets accepted", None, metrics.accepted.get())?;
        out.counter(
            "accept_errors",
            "Failures to accept, such as being out of descriptors",
            None,
            metrics.accept_errors.get(),
        )?;
        let help = "Connections and requests turned away, by reason";
        let refusals = metrics.refusals().map(|(why, count)| (why.name().to_owned(), count));
        out.counters("refusals", help, None, "reason", refusals)?;
        self.worker_counters(out, "upgrades", "Connections that became WebSocket", None, |w| w.upgrades.get())?;
        self.worker_gauges(out, "polls_waiting", "Polls that wait for something to come", |w| w.polls_waiting.get())?;
        self.worker_counters(out, "polls", "Polls taken", None, |w| w.polls.get())?;
        self.worker_counters(out, "history_requests", "Requests for the history of a topic", None, |w| {
            w.histories.get()
        })?;
        let help = "WebSocket connections that ended, by close code; 1006 where no close frame was seen";
        let closes = metrics.closes().map(|(ending, count)| (ending.name(), count));
        out.counters("websocket_closes", help, None, "code", closes)?;
        let help = "Connections given up because the peer's TCP answered nothing for --idle-timeout";
        self.worker_counters(out, "dead_connections", help, None, |w| w.dead.get())?;
        let help = "Log lines left out because clients caused too many of a kind (--log-limit)";
        out.counters("log_lines_left_out", help, None, "kind", context.shared.log.left_out())?;
        let help = "Log lines dropped because they came faster than they could be written";
        out.counter("log_lines_dropped", help, None, context.shared.log.dropped())?;
        let audit = context.shared.audit.figures().unwrap_or_default();
        let help = "1 while the file of the audit takes what comes, 0 while it doesn't, or there is none (--audit)";
        out.gauge("audit_writing", help, None, u64::from(audit.is_writing))?;
        out.counter("audit_lines", "Lines of the audit that were written", None, audit.lines)?;
        let help = "Events that are missing in the audit, because they came faster than they could be written";
        out.counter("audit_dropped", help, None, audit.dropped)?;
        let help = "Lines left out of the audit because their address had its share (--audit-limit)";
        out.counter("audit_left_out", help, None, audit.left_out)?;
        let help = "How often the file of the audit could not be written, opened or moved aside";
        out.counter("audit_failures", help, None, audit.failures)?;
        let help = "Events that wait to be written into the audit";
        out.gauge("audit_queued", help, Some(Unit::Bytes), audit.queued)?;
        let help = "Memory that they may have (--audit-queue)";
        out.gauge("audit_queued_max", help, Some(Unit::Bytes), audit.queue_max)?;
        let inboxes = context.inboxes.iter().enumerate().map(|(n, inbox)| (n.to_string(), inbox.get() as u64));
        out.gauges("inbox_length", "Sockets that wait for a worker to take them over", None, "worker", inboxes)?;
        self.rights(out)?;
        self.certificates(out)
    }

    fn rights(&self, out: &mut Writer<'_>) -> fmt::Result {
        let metrics = &self.context.shared.metrics;
        let help = "Tokens that were shown, by whether they were the right ones";
        let judged = ["good", "wrong"].into_iter().zip(&metrics.tokens);
        out.counters("tokens", help, None, "result", judged.map(|(result, times)| (result.to_owned(), times.get())))?;
        let help = "What was ended for somebody's rights: connections by why, and subscriptions (names) that rights don't cover any more";
        let losses = metrics.losses().map(|(why, count)| (why.name().to_owned(), count));
        out.counters("rights_lost", help, None, "why", losses)?;
        let help = "Connections looked at because something about rights had changed";
        out.counter("rights_judged", help, None, metrics.rights_judged.get())?;
        let shared = &self.context.shared;
        let access = &shared.settings.get().access;
        let (seen, seen_max) = access.seen();
        out.gauge("tokens_remembered", "Tokens that are remembered as genuine", None, seen)?;
        out.gauge("tokens_remembered_max", "Tokens that may be (--token-cache)", None, seen_max)?;
        let (revoked, most) = access.revoked().count();
        out.gauge("revocations", "Revocations that there are", None, revoked)?;
        out.gauge("revocations_max", "Revocations that there may be (--max-revoked)", None, most)?;
        let help = "Connections of holders that may have only so many";
        out.gauge("holder_seats", help, None, shared.holders.len())
    }

    fn certificates(&self, out: &mut Writer<'_>) -> fmt::Result {
        let keys = self.context.keys.as_ref();
        let help = "When a certificate that is shown expires, or another of its chain, since the Unix epoch, by its first name and its file";
        let shown = keys.map(|keys| keys.shown()).unwrap_or_default();
        let shown = shown.into_iter().map(|it| ([("name", it.name), ("file", it.file)], it.expires));
        out.labelled("tls_certificate_expiry_timestamp", help, Some(Unit::Seconds), shown)?;
        let [taken, failed] = keys.map_or([0, 0], |keys| [keys.reloads.get(), keys.failures.get()]);
        let help = "How often certificates were read again, and whether they were taken or the old ones kept";
        let outcomes = [("taken", taken), ("failed", failed)].map(|(outcome, times)| (outcome.to_owned(), times));
        out.counters("tls_certificate_reloads", help, None, "outcome", outcomes)?;
        let lists = keys.map(|keys| keys.lists()).unwrap_or_default();
        let help = "When the next list of clients' certificates that were taken back is due, since the Unix epoch, by the file of the last";
        out.gauges("tls_client_crl_expiry_timestamp", help, Some(Unit::Seconds), "file", lists)?;
        let metrics = &self.context.shared.metrics;
        let help = "Connections to the address for ACME challenges (--acme-listen)";
        out.gauge("acme_connections", help, None, metrics.acme_connections.get())?;
        let outcomes = [("answered", &metrics.challenges_answered), ("missing", &metrics.challenges_missing)];
        let outcomes = outcomes.map(|(outcome, times)| (outcome.to_owned(), times.get()));
        out.counters(
            "acme_challenges",
            "ACME challenges asked for, and whether they were there",
            None,
            "outcome",
            outcomes,
        )
    }

    fn publications(&self, out: &mut Writer<'_>) -> fmt::Result {
        let (context, metrics) = (&self.context, &self.context.shared.metrics);
        let by_clients = metrics.workers.iter().map(|worker| worker.publications.get()).sum();
        let by_source = [
            ("client".to_owned(), by_clients),
            ("http".to_owned(), metrics.http_publications.get()),
            ("feed".to_owned(), metrics.own_publications.get()),
        ];
        let help = "Publications taken in: from WebSocket clients, over HTTP, and from feeds or the embedding program";
        out.counters("publications", help, None, "source", by_source)?;
        let skipped = metrics.skipped_lines().map(|(why, lines)| (why.name().to_owned(), lines));
        let help = "Lines of the recording that were not published as they are: bad, larger than --max-replay-message, nested too deeply, \
                    refused";
        out.counters("replay_skipped_lines", help, None, "why", skipped)?;
        self.worker_counters(out, "messages", "Messages received from WebSocket clients", None, |w| w.messages.get())?;
        self.worker_gauges(out, "cohorts", "Groups of subscribers with the same subscriptions", |w| w.cohorts.get())?;
        let help = "Groups of subscribers that are sent what they want behind the others";
        self.worker_gauges(out, "cohorts_trailing", help, |w| w.cohorts_trailing.get())?;
        self.worker_gauges(out, "names", "Distinct topics and patterns subscribed to at a worker", |w| w.names.get())?;
        out.gauge(
            "subscriptions",
            "Topics and patterns subscribed to, over all connections",
            None,
            context.shared.subscriptions.total(),
        )?;
        let help = "Subscriptions that there may be (--max-subscriptions-total)";
        out.gauge("subscriptions_max", help, None, context.shared.settings.get().subscriptions_total_max)
    }

    /// The streams that cohorts share.
    fn streams(&self, out: &mut Writer<'_>) -> fmt::Result {
        let (packs, bytes) = (&self.context.shared.packs, || Some(Unit::Bytes));
        let counts = &packs.stream_counts;
        let help = "Compressed streams that subscribers of the same names share (--compression shared)";
        self.worker_gauges(out, "shared_streams", help, |w| w.shared_streams.get())?;
        let help = "Streams that there may be (--compression-streams), divided among the workers";
        out.gauge("shared_streams_max", help, None, packs.streams.most as u64)?;
        let help = "Memory of shared streams";
        self.worker_units(out, "shared_streams_held", help, Unit::Bytes, |w| w.shared_streams_bytes.get())?;
        let help = "Subscribers at the head that read a shared stream";
        self.worker_gauges(out, "shared_stream_members", help, |w| w.stream_members.get())?;
        let help =
            "Subscribers at the head of whose names there is a shared stream, and that wait for it to begin anew";
        self.worker_gauges(out, "shared_stream_waiting", help, |w| w.stream_waiting.get())?;
        out.counter("shared_streams_opened", "Shared streams that were begun", None, counts.opened.get())?;
        let help = "How often shared streams have begun anew: due, or earlier because somebody waited (joined)";
        let anew = [("due", counts.anew_due.get()), ("joined", counts.anew_joined.get())];
        out.counters("shared_streams_anew", help, None, "why", anew.map(|(why, count)| (why.to_owned(), count)))?;
        let help = "Publications in shared streams, once for each stream: packed; alone, compressed by themselves, since they are large or wanted by too many streams; or clear, as they are, since they are small, private or over 128 KiB, get no shorter, or nobody read the stream";
        let frames = [("packed", counts.frames.get()), ("alone", counts.passed.get()), ("clear", counts.clear.get())];
        out.counters("shared_frames", help, None, "result", frames.map(|(how, frames)| (how.to_owned(), frames)))?;
        let help = "Bytes of the publications that were compressed in shared streams, as they were; see stentor_shared_bytes for what became of them";
        out.counter("shared_from", help, bytes(), counts.bytes_in.get())?;
        out.counter("shared", "Bytes that they came to", bytes(), counts.bytes_out.get())?;
        let help = "Frames of shared streams let go for want of room; whoever is so far behind is sent publications that are compressed by themselves";
        out.counter("shared_evicted", help, None, counts.evicted.get())
    }

    fn compression(&self, out: &mut Writer<'_>) -> fmt::Result {
        let help = "Open WebSocket connections that are sent compressed publications";
        self.worker_gauges(out, "compressed_connections", help, |w| w.packed.get())?;
        let help = "WebSocket connections that agreed on compression";
        self.worker_counters(out, "compressed_upgrades", help, None, |w| w.upgrades_deflated.get())?;
        let packs = &self.context.shared.packs;
        let (counts, bytes) = (&packs.counts, || Some(Unit::Bytes));
        let help = "Publications compressed, once for each format: packed, and longer, which got no shorter and are sent as they are";
        let frames = [("packed", counts.frames.get()), ("longer", counts.refused.get())];
        out.counters("compressed_frames", help, None, "result", frames.map(|(how, frames)| (how.to_owned(), frames)))?;
        let help = "Bytes of the publications that were compressed, as they were; see stentor_compressed_bytes for what became of them";
        out.counter("compressed_from", help, bytes(), counts.bytes_in.get())?;
        out.counter("compressed", "Bytes that they came to", bytes(), counts.bytes_out.get())?;
        let help = "Compressed publications let go for want of room (--compression-memory), and made again when somebody wants them";
        out.counter("compressed_evicted", help, None, counts.evicted.get())?;
        let help = "Memory of compressed publications (--compression-memory)";
        out.gauge("compressed_held", help, bytes(), packs.held() as u64)?;
        self.streams(out)?;
        let help = "Bytes that WebSocket subscribers were not sent because publications were compressed";
        self.worker_counters(out, "compression_saved", help, bytes(), |w| w.packed_saved_bytes.get())?;
        let help = "Compressed messages received";
        self.worker_counters(out, "inflated_messages", help, None, |w| w.inflated.messages.get())?;
        let help = "Bytes of compressed messages received; see stentor_inflated_bytes for what they came to";
        self.worker_counters(out, "inflated_from", help, bytes(), |w| w.inflated.bytes_in.get())?;
        self.worker_counters(out, "inflated", "Bytes that they came to", bytes(), |w| w.inflated.bytes_out.get())
    }

    fn sending(&self, out: &mut Writer<'_>) -> fmt::Result {
        let help = "Publications sent, once for each subscriber; divided by stentor_sends, the publications that one send carries";
        self.worker_counters(out, "deliveries", help, None, |w| w.deliveries.get())?;
        let help = "Publications left out, and told to be, because a subscriber of newest values was slow";
        self.worker_counters(out, "skipped", help, None, |w| w.skipped.get())?;
        let help = "Subscriptions that resumed by a cursor, by whether it was good still";
        let resumed = ["good", "lost"].into_iter().enumerate().map(|(n, cursor)| {
            let subscriptions = self.context.shared.metrics.workers.iter().map(|worker| worker.resumed[n].get());
            (cursor.to_owned(), subscriptions.sum::<u64>())
        });
        out.counters("resumed", help, None, "cursor", resumed)?;
        let help = "Calls of send, the unit of what delivery costs; see stentor_deliveries for how full they are";
        self.worker_counters(out, "sends", help, None, |w| w.sends.get())?;
        let help = "Sends of which the kernel did not take all, because the subscriber's buffer was full";
        self.worker_counters(out, "sends_full", help, None, |w| w.sends_full.get())?;
        self.worker_counters(out, "sent", "Bytes sent by workers", Some(Unit::Bytes), |w| w.sent_bytes.get())?;
        self.worker_counters(out, "received", "Bytes received by workers", Some(Unit::Bytes), |w| {
            w.received_bytes.get()
        })?;
        let help = "What the steps of workers' turns have cost, in units of some ten nanoseconds (--turn-work)";
        self.steps(out, "work", help, |w| &w.work)?;
        let help = "Turns in which a step left something for the next, because its part of --turn-work was used up";
        self.steps(out, "work_put_off", help, |w| &w.put_off)?;
        let help = "Connections that have sent something and stand in line to be read";
        self.worker_gauges(out, "unread_connections", help, |w| w.unread.get())?;
        let behind = self.context.shared.publisher.behind().enumerate().map(|(n, bytes)| (n.to_string(), bytes));
        let help = "What a worker has still to send to those that keep up, in bytes of the tape";
        out.gauges("behind", help, Some(Unit::Bytes), "worker", behind)?;
        let help = "How far the slowest worker may be behind before publishers are held back";
        out.gauge("behind_max", help, Some(Unit::Bytes), self.context.shared.publisher.lead().bound())?;
        let held = &self.context.shared.metrics.held;
        let by_door = |door: Door| (door.name().to_owned(), &held[door]);
        let help = "How often publishers were held back until workers had come on, by the way that they came";
        out.counters("holds", help, None, "door", Door::ALL.map(by_door).map(|(door, held)| (door, held.times.get())))?;
        let help = "How long they were held back";
        let seconds = |(door, held): (String, &Held)| (door, held.us.get() as f64 / 1e6);
        out.counters("held", help, Some(Unit::Seconds), "door", Door::ALL.map(by_door).map(seconds))?;
        let help = "Subscribers with a cursor of their own, because their socket was full or they just joined";
        self.worker_gauges(out, "alone_subscribers", help, |w| w.behind.get())?;
        self.worker_gauges(
            out,
            "lag_publications_max",
            "How far the slowest subscriber is behind the newest publication",
            |w| w.lag_max.get(),
        )?;
        let help = "Acks, snapshots and other answers that wait for full sockets";
        self.worker_units(out, "pending_answers", help, Unit::Bytes, |w| w.pending_bytes.get())?;
        let help =
            "Connections with commands that go on over turns, or that wait behind these or until answers were taken";
        self.worker_gauges(out, "commands_waiting", help, |w| w.commands_waiting.get())?;
        let help = "Messages among these that wait, as they came";
        self.worker_units(out, "commands_waiting", help, Unit::Bytes, |w| w.commands_waiting_bytes.get())?;
        let help = "Unfinished messages held, of clients that send them in pieces";
        self.worker_units(out, "assembly", help, Unit::Bytes, |w| w.assembly_bytes.get())?;
        let help = "Memory that they may have, over all workers (--max-assembly)";
        out.gauge("assembly_max", help, Some(Unit::Bytes), self.context.limits.assembly_max())?;
        let help =
            "Memory that connections hold: answers, unfinished messages, requests, what is noted for slow subscribers";
        self.worker_units(out, "held", help, Unit::Bytes, |w| w.held_bytes.get())?;
        let help = "Memory that they may hold, over all workers (--max-held)";
        out.gauge("held_max", help, Some(Unit::Bytes), self.context.limits.held_max())?;
        let help = "Connections that were cut because all held more than --max-held or --max-held-per-ip";
        self.worker_counters(out, "held_cut", help, None, |w| w.held_cut.get())?;
        let help = "Publications planned and not yet sent to every subscriber at the head, each counted once";
        self.worker_units(out, "planned", help, Unit::Bytes, |w| w.planned_bytes.get())?;
        self.worker_gauges(out, "pinned_segments", "Segments of the tape that a worker reads", |w| {
            w.segments_pinned.get()
        })
    }

    fn times(&self, out: &mut Writer<'_>) -> fmt::Result {
        self.worker_counters(out, "turns", "Turns taken by a worker", None, |w| w.turns.get())?;
        let now = Moment::now();
        let ages = self.context.shared.metrics.workers.iter().enumerate();
        let ages = ages.map(|(n, worker)| (n.to_string(), turn_age(now, &worker.turn_begun).as_secs_f64()));
        let help = "How long a worker has been in its present turn; 0 while it waits";
        out.gauges("turn_age", help, Some(Unit::Seconds), "worker", ages)?;
        self.histograms(out, "turn_duration", "How long a worker's turns took, waiting not counted", |w| &w.turn)?;
        let help = "From a publication until a worker's subscribers at the head were sent it, those that trail apart";
        self.histograms(out, "publish_to_send", help, |w| &w.publish_to_send)
    }

    fn tape(&self, out: &mut Writer<'_>) -> fmt::Result {
        let settings = &self.context.settings;
        let status = {
            let mut last = self.status.lock();
            *last = self.context.tape.try_status().unwrap_or(*last);
            *last
        };
        let age_us = if status.oldest_ts == 0 { 0 } else { clock::wall_us().saturating_sub(status.oldest_ts) };
        out.counter("tape_publications", "Publications appended to the tape", None, status.publications)?;
        out.gauge("tape_retained_publications", "Publications still on the tape", None, status.retained)?;
        out.gauge("tape", "Memory of the tape's segments", Some(Unit::Bytes), status.bytes)?;
        out.gauge("tape_retain", "Memory that they may have (--retain)", Some(Unit::Bytes), settings.retain_bytes)?;
        out.gauge("tape_segments", "Segments of the tape", None, status.segments)?;
        let help = "Age of the oldest publication on the tape: how far back a subscriber can be resumed now";
        out.gauge("tape_oldest_age", help, Some(Unit::Seconds), age_us as f64 / 1e6)?;
        let help = "How far back the tape reaches at least when it is full, at the rate of the last ten seconds";
        let holds = match self.context.shared.metrics.tape_holds_us.get() {
            0 => f64::INFINITY,
            us => us as f64 / 1e6,
        };
        out.gauge("tape_holds", help, Some(Unit::Seconds), holds)?;
        out.gauge("topics", "Topics that there are", None, status.topics)?;
        out.gauge("topics_max", "Topics that there may be (--max-topics)", None, settings.topics_max)?;
        out.counter("topics_forgotten", "Topics forgotten", None, self.context.shared.metrics.topics_forgotten.get())?;
        out.gauge("values", "Last values kept for snapshots", Some(Unit::Bytes), status.value_bytes)?;
        let help = "Memory that they may have (--max-values)";
        out.gauge("values_max", help, Some(Unit::Bytes), settings.value_bytes_max)?;
        let help = "Publications whose value was not kept, for want of room";
        out.counter("values_dropped", help, None, status.values_dropped)
    }

    /// What the kernel knows of this process; what it doesn't tell is left out.
    fn process(&self, out: &mut Writer<'_>) -> fmt::Result {
        if let Some(open) = descriptors_open() {
            out.gauge("process_descriptors_open", "Descriptors open", None, open)?;
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            out.gauge("process_descriptors_max", "Descriptors that may be open", None, most)?;
        }
        if let Some(bytes) = resident_bytes() {
            out.gauge("process_resident_memory", "Memory that the process has in use", Some(Unit::Bytes), bytes)?;
        }
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
        out.counter(
            "process_cpu",
            "Processor time, of all threads, in user and kernel mode",
            Some(Unit::Seconds),
            seconds,
        )
    }

    fn each_worker(&self, get: impl Fn(&WorkerMetrics) -> u64) -> impl Iterator<Item = (String, u64)> {
        self.context.shared.metrics.workers.iter().enumerate().map(move |(n, worker)| (n.to_string(), get(worker)))
    }

    fn worker_gauges(
        &self,
        out: &mut Writer<'_>,
        name: &str,
        help: &str,
        get: impl Fn(&WorkerMetrics) -> u64,
    ) -> fmt::Result {
        out.gauges(name, help, None, "worker", self.each_worker(get))
    }

    fn worker_units(
        &self,
        out: &mut Writer<'_>,
        name: &str,
        help: &str,
        unit: Unit,
        get: impl Fn(&WorkerMetrics) -> u64,
    ) -> fmt::Result {
        out.gauges(name, help, Some(unit), "worker", self.each_worker(get))
    }

    /// Of each step, over all workers.
    fn steps(
        &self,
        out: &mut Writer<'_>,
        name: &str,
        help: &str,
        get: impl Fn(&WorkerMetrics) -> &[Figure; STEPS.len()],
    ) -> fmt::Result {
        let workers = &self.context.shared.metrics.workers;
        let sums = STEPS.iter().enumerate().map(|(n, step)| {
            let sum = workers.iter().map(|worker| get(worker)[n].get()).sum::<u64>();
            ((*step).to_owned(), sum)
        });
        out.counters(name, help, None, "step", sums)
    }

    fn worker_counters(
        &self,
        out: &mut Writer<'_>,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        get: impl Fn(&WorkerMetrics) -> u64,
    ) -> fmt::Result {
        out.counters(name, help, unit, "worker", self.each_worker(get))
    }

    fn histograms(
        &self,
        out: &mut Writer<'_>,
        name: &str,
        help: &str,
        get: impl Fn(&WorkerMetrics) -> &Times,
    ) -> fmt::Result {
        let times =
            self.context.shared.metrics.workers.iter().enumerate().map(|(n, worker)| (n.to_string(), get(worker)));
        out.histograms(name, help, "worker", times)
    }
}

/// Writes families, each with its help, type, unit and samples.
struct Writer<'e>(DescriptorEncoder<'e>);

impl Writer<'_> {
    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> fmt::Result {
        self.0.encode_descriptor(name, &sentence(help), None, MetricType::Info)?.encode_info(&labels)
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<Unit>, value: impl EncodeCounterValue) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, &sentence(help), unit.as_ref(), MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<Unit>, value: impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, &sentence(help), unit.as_ref(), MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        label: &str,
        values: impl IntoIterator<Item = (String, impl EncodeCounterValue)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, &sentence(help), unit.as_ref(), MetricType::Counter)?;
        for (which, value) in values {
            family.encode_family(&[(label, which)])?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }

    fn labelled(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        values: impl IntoIterator<Item = ([(&'static str, String); 2], impl EncodeGaugeValue)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, &sentence(help), unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        label: &str,
        values: impl IntoIterator<Item = (String, impl EncodeGaugeValue)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, &sentence(help), unit.as_ref(), MetricType::Gauge)?;
        for (which, value) in values {
            family.encode_family(&[(label, which)])?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn histograms<'t>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        times: impl Iterator<Item = (String, &'t Times)>,
    ) -> fmt::Result {
        let bounds = BOUNDS_US.map(Duration::from_micros);
        let mut family =
            self.0.encode_descriptor(name, &sentence(help), Some(&Unit::Seconds), MetricType::Histogram)?;
        for (which, times) in times {
            let (cumulative, count, sum) = times.cumulative(&bounds);
            let mut buckets = Vec::with_capacity(BOUNDS_US.len() + 1);
            let mut before = 0;
            let ends = bounds.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
            for (end, upto) in ends.zip(cumulative.into_iter().chain([count])) {
                buckets.push((end, upto.saturating_sub(before)));
                before = before.max(upto);
            }
            family.encode_family(&[(label, which)])?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

fn sentence(help: &str) -> String {
    format!("{help}.")
}

/// Memory in use, from `/proc/self/statm`: its second number, in pages.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// How many descriptors are open: since Linux 6.2 the size of `/proc/self/fd`, for which the kernel counts bits. Before, its
/// entries are counted (without the one that this takes), for which it makes one for each descriptor.
fn descriptors_open() -> Option<u64> {
    match std::fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some((std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1)),
        open => Some(open),
    }
}
