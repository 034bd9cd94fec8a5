//! Every setting of the server, once: its name, default, environment variable, help and cost.
//!
//! [`Config`] is what the command line fills in, what an embedding program sets field by field, and what
//! `--print-config` prints. [`Config::check`] holds it against a list of rules (`rules.rs`), for the start, for a reload and for
//! `--check` alike; each error names the flag, what was given and what would do.
//!
//! What the rest of the program is given is within bounds: rates and times by their types (`values.rs`), numbers, sizes and
//! relations by the rules.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

mod follow;
mod listen;
pub mod page;
mod rules;
mod values;

use std::{net::SocketAddr, path::PathBuf};

use bytesize::ByteSize;
use clap::{Args, FromArgMatches};

use self::rules::Rule;
pub use self::{
    follow::Followed,
    listen::Addresses,
    values::{
        Client, ClientAuth, Compression, Level, LogFormat, Network, Pin, Rate, RateLimit, Secret, Span, Speed, Topics,
    },
};
pub(crate) use self::{listen::Shown, values::Exactly};

/// The settings of one server.
#[derive(Args, Clone, Debug)]
pub struct Config {
    // ---- Listening -------------------------------------------------------------------------------------------------
    /// Where to listen for clients in clear; its help is beside its type, since it may be `none`.
    #[command(flatten)]
    pub listen: Addresses,

    /// Address and port for operators: health, metrics, who is slow; a thread of its own
    ///
    /// Serves /healthz, which is red when a worker stands still (--stall-limit), /readyz, /metrics and /debug/slow, and nothing else.
    /// Whatever happens on the other addresses, it answers.
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "STENTOR_ADMIN_LISTEN",
        value_parser = listen::read,
        help_heading = "Listening"
    )]
    pub admin_listen: Option<SocketAddr>,

    /// Secret that a request must show for what is for operators (`Authorization: Bearer`, or `?token=`)
    ///
    /// /metrics, /debug/slow, and all of /topics, on every address, --admin-listen too. Without it they are for this machine alone, and /topics
    /// shows what whoever asks may subscribe to. It opens nothing else.
    #[arg(long, value_name = "TOKEN", env = "STENTOR_ADMIN_TOKEN", hide_env_values = true, help_heading = "Listening")]
    pub admin_token: Option<Secret>,

    /// Acceptor threads for each address
    ///
    /// Each has a listening socket of its own (SO_REUSEPORT). One accepts some 50,000 connections a second.
    #[arg(long, value_name = "N", env = "STENTOR_ACCEPTORS", default_value_t = 1, help_heading = "Listening")]
    pub acceptors: usize,

    /// Connections that may wait to be accepted, per listening socket
    #[arg(long, value_name = "N", env = "STENTOR_BACKLOG", default_value_t = 4096, help_heading = "Listening")]
    pub backlog: u32,

    /// Web pages that may connect: `https://host[:port]`; repeat for several [default: any]
    ///
    /// Compared with the Origin header that browsers send. `https://*.host` is every name below, `capacitor://localhost` an app's
    /// page, `null` a document without an origin, `*` any page. The server's own page may, too, at an address or by https. Without this, a server that is
    /// open only because it is on loopback takes pages of this machine alone. Clients that send no Origin are let in.
    #[arg(
        long,
        value_name = "ORIGIN",
        env = "STENTOR_ALLOW_ORIGIN",
        value_delimiter = ',',
        help_heading = "Listening"
    )]
    pub allow_origin: Vec<String>,

    /// Proxies whose `X-Forwarded-For` counts, as address or network; repeat for several
    ///
    /// The client that such a proxy names is what the log shows and what the bounds for one address count (--max-…-per-ip);
    /// the proxy itself is not counted. All clients of a proxy that isn't named are one address. With this,
    /// publishing is no longer open merely because the server listens on loopback.
    #[arg(
        long,
        value_name = "ADDR|NETWORK",
        env = "STENTOR_TRUSTED_PROXY",
        value_delimiter = ',',
        help_heading = "Listening"
    )]
    pub trusted_proxy: Vec<Network>,

    /// Connections from --trusted-proxy begin with a PROXY header, version 1 or 2
    ///
    /// Those without one are refused, and from other addresses none is taken.
    #[arg(long, env = "STENTOR_PROXY_PROTOCOL", help_heading = "Listening")]
    pub proxy_protocol: bool,

    // ---- TLS -------------------------------------------------------------------------------------------------------
    /// Address and port to listen on for TLS (https, wss); repeat for several
    ///
    /// Written as --listen is, and beside it, or in its place with --listen none. Needs a certificate: --tls-cert and --tls-key, or
    /// --tls-self-signed.
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "STENTOR_TLS_LISTEN",
        value_delimiter = ',',
        value_parser = listen::read,
        help_heading = "TLS"
    )]
    pub tls_listen: Vec<SocketAddr>,

    /// Certificate to show, and behind it those that signed it (PEM); repeat for several
    ///
    /// Each has its --tls-key, in the same order. The names in them say which is shown to whom; who asks for none of them, or names
    /// nothing, is shown the first. Read again at SIGHUP, and when a file changes: after any mistake the old ones stay.
    #[arg(long, value_name = "FILE", env = "STENTOR_TLS_CERT", value_delimiter = ',', help_heading = "TLS")]
    pub tls_cert: Vec<PathBuf>,

    /// Private key of the certificate (PEM); repeat for several
    #[arg(long, value_name = "FILE", env = "STENTOR_TLS_KEY", value_delimiter = ',', help_heading = "TLS")]
    pub tls_key: Vec<PathBuf>,

    /// Make a certificate for trying out, and keep it in this folder
    ///
    /// For localhost, 127.0.0.1, ::1 and this machine's name. It is there after a restart, and made anew when it has expired. Browsers
    /// warn of it; the log says its fingerprint. Alone it puts TLS on 127.0.0.1:9443.
    #[arg(long, value_name = "DIR", env = "STENTOR_TLS_SELF_SIGNED", help_heading = "TLS")]
    pub tls_self_signed: Option<PathBuf>,

    /// Authorities whose certificates clients may show (PEM); each certificate names a holder
    ///
    /// By one DNS name or URI among its alternative names. Read again at SIGHUP, and when it changes, as its lists are.
    #[arg(long, value_name = "FILE", env = "STENTOR_TLS_CLIENT_CA", help_heading = "TLS")]
    pub tls_client_ca: Option<PathBuf>,

    /// Whether clients must show a certificate of --tls-client-ca, or may
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        env = "STENTOR_TLS_CLIENT_AUTH",
        default_value = "require",
        help_heading = "TLS"
    )]
    pub tls_client_auth: ClientAuth,

    /// Lists of clients' certificates that were taken back (PEM); repeat for several
    ///
    /// Of each authority of a chain there must be one, and none may be out of date: otherwise its certificates are refused.
    #[arg(long, value_name = "FILE", env = "STENTOR_TLS_CLIENT_CRL", value_delimiter = ',', help_heading = "TLS")]
    pub tls_client_crl: Vec<PathBuf>,

    /// TLS handshakes at once; beyond, the oldest that waits for its client goes
    ///
    /// Places, over all --handshake-threads: most wait for a client's next bytes. Shared out by address.
    #[arg(long, value_name = "N", env = "STENTOR_HANDSHAKES", default_value_t = 1024, help_heading = "TLS")]
    pub handshakes: usize,

    /// Threads for TLS handshakes, which are nobody else's work
    ///
    /// At low priority. A handshake takes 0.14 to 0.4 ms of CPU, so that one thread makes some thousand a second.
    #[arg(long, value_name = "N", env = "STENTOR_HANDSHAKE_THREADS", default_value_t = 1, help_heading = "TLS")]
    pub handshake_threads: usize,

    /// Memory for encrypted bytes that wait, to and from all clients
    ///
    /// What a full socket has left of a send that is encrypted already, and records of which a part has come.
    #[arg(long, value_name = "SIZE", env = "STENTOR_TLS_BUFFERS", default_value = "64MiB", help_heading = "TLS")]
    pub tls_buffers: ByteSize,

    /// Address and port (80) for ACME challenges; whatever else is asked there is sent on to https
    ///
    /// A port alone, or `[::]:80`, takes IPv4 and IPv6. A thread of its own, which serves --acme-webroot and nothing else.
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "STENTOR_ACME_LISTEN",
        value_parser = listen::read_everywhere,
        help_heading = "TLS"
    )]
    pub acme_listen: Option<SocketAddr>,

    /// Folder in which the ACME client puts .well-known/acme-challenge/TOKEN
    #[arg(long, value_name = "DIR", env = "STENTOR_ACME_WEBROOT", help_heading = "TLS")]
    pub acme_webroot: Option<PathBuf>,

    // ---- Threads ---------------------------------------------------------------------------------------------------
    /// Worker threads; each owns its share of the connections [default: the cores it may use]
    ///
    /// Where a control group has a CPU quota, as containers have, as many as there are whole cores in it, and at least one.
    #[arg(long, value_name = "N", env = "STENTOR_WORKERS", help_heading = "Threads")]
    pub workers: Option<usize>,

    /// Cores for the workers: `auto`, `none`, or a list like `0,2-3`
    ///
    /// `auto` pins one worker to each core that this process may use, and leaves them unpinned where there are more
    /// workers than cores, or a CPU quota of less than the cores.
    #[arg(long, value_name = "auto|none|LIST", env = "STENTOR_PIN", default_value = "auto", help_heading = "Threads")]
    pub pin: Pin,

    /// Microseconds that a worker looks for work before it sleeps; 0 sleeps at once
    ///
    /// Saves the 30 to 50 microseconds of waking a sleeping core, and burns the core meanwhile.
    #[arg(long, value_name = "MICROSECONDS", env = "STENTOR_SPIN", default_value_t = 0, help_heading = "Threads")]
    pub spin: u64,

    /// Sockets that may wait for a worker to take them over, per worker; beyond, 503
    ///
    /// Before anybody is told that, there is a quarter of a second for room to be made.
    #[arg(long, value_name = "N", env = "STENTOR_INBOX", default_value_t = 1024, help_heading = "Threads")]
    pub inbox: usize,

    // ---- Fan-out ---------------------------------------------------------------------------------------------------
    /// Shortest time between two passes over the subscribers
    ///
    /// 0 sends at once. More gathers publications into fewer sends, if it is longer than a pass takes: less CPU, and that much
    /// more latency.
    #[arg(
        long,
        value_name = "DURATION",
        env = "STENTOR_FLUSH_INTERVAL",
        default_value = "0s",
        help_heading = "Fan-out"
    )]
    pub flush_interval: Span,

    /// Sends that a worker makes before it looks for new publications
    ///
    /// What is published meanwhile goes along to the subscribers that come later. Fewer: publications are on their way
    /// earlier; more: a little less work for each.
    #[arg(long, value_name = "N", env = "STENTOR_TURN_SENDS", default_value_t = 64, help_heading = "Fan-out")]
    pub turn_sends: usize,

    /// What a worker does for those who ask, in one turn, beside its sends
    ///
    /// In units of some ten nanoseconds. Reading, commands, matching names, planning and gathering are priced, and what doesn't
    /// fit goes on in the next turn, in which everybody else has theirs. Fewer: others wait less for somebody who asks for much;
    /// more: who asks for much has it sooner.
    #[arg(long, value_name = "UNITS", env = "STENTOR_TURN_WORK", default_value_t = 250_000, help_heading = "Fan-out")]
    pub turn_work: u64,

    /// Memory for the tape: how far back a slow subscriber may be
    ///
    /// The tape holds the newest publications in this much memory; a subscriber that falls off its end is told and closed. That is not
    /// payload alone: each counts once for each format (/ws, /raw, /sse) that has subscribers, with its index. --check says what
    /// that comes to, and stentor top and stentor_tape_holds_seconds for how many seconds it is at least at the present rate.
    #[arg(long, value_name = "SIZE", env = "STENTOR_RETAIN", default_value = "64MiB", help_heading = "Fan-out")]
    pub retain: ByteSize,

    /// Bytes of tape that a worker may be behind before publishers wait for it
    ///
    /// Whoever publishes much waits from then on, feeds too; whoever publishes little, at twice that. More is latency, less makes
    /// publishers and workers wait for each other. An eighth of --retain at most.
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_LEAD", default_value = "2MiB", help_heading = "Fan-out")]
    pub max_lead: ByteSize,

    /// Furthest that a subscriber of every publication may be behind, in bytes of tape; 0 for as far as the tape reaches
    ///
    /// Beyond it, it is told (`lagged`) and closed with 4100, so that it comes back sooner than the tape would force it to.
    /// Subscribers of newest values are never closed for that.
    #[arg(long, value_name = "SIZE", env = "STENTOR_LAG_LIMIT", default_value = "0B", help_heading = "Fan-out")]
    pub lag_limit: ByteSize,

    /// The same in time: the age of the oldest publication that it wasn't sent; 0 for no limit
    #[arg(long, value_name = "TIME", env = "STENTOR_LAG_LIMIT_AGE", default_value = "0s", help_heading = "Fan-out")]
    pub lag_limit_age: Span,

    /// Size of the pieces in which the tape is given back, for each format in them
    #[arg(long, value_name = "SIZE", env = "STENTOR_SEGMENT", default_value = "1MiB", help_heading = "Fan-out")]
    pub segment: ByteSize,

    /// Kernel send buffer of one connection, as SO_SNDBUF; 0 leaves it to the kernel, up to 4 MiB each
    ///
    /// Bounds what a slow subscriber costs in kernel memory, and what one send can carry to a fast one.
    #[arg(long, value_name = "SIZE", env = "STENTOR_SNDBUF", default_value = "128KiB", help_heading = "Fan-out")]
    pub sndbuf: ByteSize,

    /// Kernel receive buffer of one connection, as SO_RCVBUF; 0 leaves it to the kernel
    #[arg(long, value_name = "SIZE", env = "STENTOR_RCVBUF", default_value = "0B", help_heading = "Fan-out")]
    pub rcvbuf: ByteSize,

    // ---- Compression -----------------------------------------------------------------------------------------------
    /// Compression for WebSocket clients that offer it: off, once or shared
    ///
    /// That is permessage-deflate, which browsers offer. With `shared`, subscribers of the very same names, who are sent every publication or keep up with
    /// newest values, have one stream together, in which each of up to 32 KiB is compressed by those before it: quotes come to 20 to 30 % of their bytes. All others, and what is longer, come as
    /// with `once`: each publication compressed by itself, once for all of them, to 55 to 70 %. It costs the server some microseconds for each
    /// publication, with `shared` also for each set of names; and clients one or two for each message.
    /// `?compress=0` in an address declines it.
    #[arg(
        long,
        value_name = "MODE",
        env = "STENTOR_COMPRESSION",
        value_enum,
        default_value_t = Compression::Shared,
        hide_possible_values = true,
        help_heading = "Compression"
    )]
    pub compression: Compression,

    /// How hard to compress: 1, the fastest, to 9; auto chooses
    ///
    /// Of quotes of 340 bytes compressed by themselves, 1 leaves 70 % and takes 2 microseconds, 6 leaves 57 % and takes 8. `auto` is 6, and in a stream 7, or 1 from where it next begins anew if fewer than 32
    /// share it, if the worker's last turn had no room for all that there was to plan, or if its subscribers are owed a full send each. Where turns are full
    /// for longer than a burst, those of fewer than 8 are done without.
    #[arg(
        long,
        value_name = "N",
        env = "STENTOR_COMPRESSION_LEVEL",
        default_value_t = Level(None),
        help_heading = "Compression"
    )]
    pub compression_level: Level,

    /// Bits of the window of shared streams, 9 to 15
    ///
    /// Fewer bits leave more bytes. Who agrees to fewer than this has no part in a stream: Python's websockets asks for
    /// 12. At level 1 no more than 12 are made use of.
    #[arg(
        long,
        value_name = "N",
        env = "STENTOR_COMPRESSION_WINDOW",
        default_value_t = 12,
        help_heading = "Compression"
    )]
    pub compression_window: u8,

    /// Shared streams at once, over all workers; beyond, once
    ///
    /// Each takes 16 KiB for its compressor, or 300 where 32 and more share it at leisure, and up to 8 KiB for each subscriber, 256 at most, for those
    /// behind. Where there are more cohorts, one takes the place of another that has half as many subscribers or fewer.
    #[arg(
        long,
        value_name = "N",
        env = "STENTOR_COMPRESSION_STREAMS",
        default_value_t = 1024,
        help_heading = "Compression"
    )]
    pub compression_streams: usize,

    /// Publications of fewer bytes, in their frame, stay as they are
    #[arg(
        long,
        value_name = "N",
        env = "STENTOR_COMPRESSION_MIN_BYTES",
        default_value_t = 128,
        help_heading = "Compression"
    )]
    pub compression_min_bytes: u32,

    /// Subscribers of the same names on one worker from which on they share a stream
    ///
    /// A stream has each of its publications compressed, which at level 1 costs less than one send, however many read it. For fewer than eight they are
    /// done without where turns are full for longer than a burst.
    #[arg(
        long,
        value_name = "N",
        env = "STENTOR_COMPRESSION_MIN_MEMBERS",
        default_value_t = 1,
        help_heading = "Compression"
    )]
    pub compression_min_members: usize,

    /// Topics that go uncompressed between a stream's frames, by names and patterns
    ///
    /// Who publishes into a stream, and sees how long its frames are, can find out by trying what others publish into it (CRIME). Name the topics of
    /// those who don't trust each other.
    #[arg(
        long,
        value_name = "PATTERN",
        env = "STENTOR_COMPRESSION_PRIVATE",
        value_delimiter = ',',
        help_heading = "Compression"
    )]
    pub compression_private: Vec<Topics>,

    /// Memory for compressed publications, beside the tape; beyond, the oldest go
    ///
    /// Each takes no more than it does on the tape. Who is so far behind that its were let go has them compressed again.
    #[arg(
        long,
        value_name = "SIZE",
        env = "STENTOR_COMPRESSION_MEMORY",
        default_value = "16MiB",
        help_heading = "Compression"
    )]
    pub compression_memory: ByteSize,

    /// Clients that get none, by pieces of their User-Agent [default: Safari 15 before 15.4]
    ///
    /// Pieces that stand there one behind the other are written with `*` between them; `none` denies it to nobody. By default those are denied of
    /// whom it is known that they fail with it: Safari 15 before 15.4, and whatever else shows pages on iOS 15 before 15.4 (issue 1347 of
    /// uWebSockets, and 731 of gorilla/websocket). A list of your own stands in place of that.
    #[arg(
        long,
        value_name = "CLIENT",
        env = "STENTOR_COMPRESSION_DENY",
        value_delimiter = ',',
        help_heading = "Compression"
    )]
    pub compression_deny: Vec<Client>,

    // ---- Limits ----------------------------------------------------------------------------------------------------
    /// Connections at once; beyond, 503
    #[arg(long, value_name = "N", env = "STENTOR_MAX_CONNECTIONS", default_value_t = 10_000, help_heading = "Limits")]
    pub max_connections: usize,

    /// Connections at once from one address; 0 for no limit [default: half]
    ///
    /// Half of --max-connections. An IPv6 address counts by its network: see --ipv6-prefix.
    #[arg(long, value_name = "N", env = "STENTOR_MAX_CONNECTIONS_PER_IP", help_heading = "Limits")]
    pub max_connections_per_ip: Option<usize>,

    /// New connections a second from one address; beyond, 429; 0 for no limit
    ///
    /// Two seconds' worth may come at once.
    #[arg(
        long,
        value_name = "RATE",
        env = "STENTOR_MAX_CONNECTS_PER_IP",
        default_value = "2500/s",
        help_heading = "Limits"
    )]
    pub max_connects_per_ip: RateLimit,

    /// Bits of an IPv6 address that count where something is counted by address
    ///
    /// A household or a rented machine has all addresses that begin with the same 64 bits.
    #[arg(
        long,
        value_name = "BITS",
        env = "STENTOR_IPV6_PREFIX",
        default_value_t = 64,
        value_parser = clap::value_parser!(u8).range(1..=128),
        help_heading = "Limits"
    )]
    pub ipv6_prefix: u8,

    /// Plain HTTP connections at once (metrics, publishing, the page); beyond, 503
    #[arg(
        long,
        value_name = "N",
        env = "STENTOR_MAX_HTTP_CONNECTIONS",
        default_value_t = 512,
        help_heading = "Limits"
    )]
    pub max_http_connections: usize,

    /// Memory for the answers that plain HTTP clients have not taken; beyond, the slowest of them go
    ///
    /// Those of all clients together. A request for whose answer there is no room waits, and is told 503 after --close-timeout.
    #[arg(
        long,
        value_name = "SIZE",
        env = "STENTOR_MAX_HTTP_PENDING",
        default_value = "64MiB",
        help_heading = "Limits"
    )]
    pub max_http_pending: ByteSize,

    /// Least bytes a second of an HTTP head, of one payload and of an answer; 0 for any
    ///
    /// After the first --close-timeout. A slower request is told 408, a slower answer is cut off. Not for bodies of many
    /// publications and not for events.
    #[arg(long, value_name = "SIZE", env = "STENTOR_MIN_HTTP_RATE", default_value = "1KiB", help_heading = "Limits")]
    pub min_http_rate: ByteSize,

    /// Largest message, command or payload taken from a client
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_MESSAGE", default_value = "64KiB", help_heading = "Limits")]
    pub max_message: ByteSize,

    /// Memory for the unfinished messages of all clients; beyond, 1013
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_ASSEMBLY", default_value = "256MiB", help_heading = "Limits")]
    pub max_assembly: ByteSize,

    /// The same for one address; 0 for no limit [default: half]
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_ASSEMBLY_PER_IP", help_heading = "Limits")]
    pub max_assembly_per_ip: Option<ByteSize>,

    /// Memory for all that clients have the server hold; beyond, asking for more is refused, then the largest is cut
    ///
    /// Answers and snapshots that they don't read, unfinished messages, heads of requests, what is noted for slow subscribers. Not
    /// what the kernel holds for them, see --sndbuf.
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_HELD", default_value = "256MiB", help_heading = "Limits")]
    pub max_held: ByteSize,

    /// The same for one address; 0 for no limit [default: half]
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_HELD_PER_IP", help_heading = "Limits")]
    pub max_held_per_ip: Option<ByteSize>,

    /// Largest body of one `POST /publish`; its lines are published as they arrive
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_BODY", default_value = "64MiB", help_heading = "Limits")]
    pub max_body: ByteSize,

    /// Largest HTTP request head
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_HEAD", default_value = "8KiB", help_heading = "Limits")]
    pub max_head: ByteSize,

    /// Headers in one HTTP request; beyond, 431
    #[arg(long, value_name = "N", env = "STENTOR_MAX_HEADERS", default_value_t = 100, help_heading = "Limits")]
    pub max_headers: usize,

    /// Topics at once; publishing on one more is refused
    #[arg(long, value_name = "N", env = "STENTOR_MAX_TOPICS", default_value_t = 65_536, help_heading = "Limits")]
    pub max_topics: usize,

    /// Topics that one address may add; publishing on one more is refused; 0 for no limit [default: half]
    ///
    /// Half of --max-topics. A topic is charged to the address that published on it first, until it is forgotten.
    #[arg(long, value_name = "N", env = "STENTOR_MAX_TOPICS_PER_IP", help_heading = "Limits")]
    pub max_topics_per_ip: Option<usize>,

    /// Memory for the last values of all topics
    ///
    /// Beyond it, a topic's newest value is delivered and not kept: later subscribers get no snapshot of it. An eighth is for
    /// topics that have a value already, so that new topics don't cost others theirs.
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_VALUES", default_value = "256MiB", help_heading = "Limits")]
    pub max_values: ByteSize,

    /// The same for values that one address has published; 0 for no limit [default: half]
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_VALUES_PER_IP", help_heading = "Limits")]
    pub max_values_per_ip: Option<ByteSize>,

    /// Topics and patterns that one connection may subscribe to
    #[arg(long, value_name = "N", env = "STENTOR_MAX_SUBSCRIPTIONS", default_value_t = 1024, help_heading = "Limits")]
    pub max_subscriptions: usize,

    /// Topics and patterns subscribed to over all connections
    #[arg(
        long,
        value_name = "N",
        env = "STENTOR_MAX_SUBSCRIPTIONS_TOTAL",
        default_value_t = 1_000_000,
        help_heading = "Limits"
    )]
    pub max_subscriptions_total: usize,

    /// Topics and patterns subscribed to from one address; 0 for no limit [default: half]
    ///
    /// Half of --max-subscriptions-total.
    #[arg(long, value_name = "N", env = "STENTOR_MAX_SUBSCRIPTIONS_PER_IP", help_heading = "Limits")]
    pub max_subscriptions_per_ip: Option<usize>,

    /// Longest topic name, in bytes
    #[arg(long, value_name = "N", env = "STENTOR_MAX_TOPIC_LENGTH", default_value_t = 128, help_heading = "Limits")]
    pub max_topic_length: usize,

    /// Bytes that one connection may hold of acks, snapshots and other answers (beside a message); beyond, it is closed
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_PENDING", default_value = "16MiB", help_heading = "Limits")]
    pub max_pending: ByteSize,

    /// Commands and pings a second from one connection; beyond, 4003; 0 for no limit
    ///
    /// Two seconds' worth may come at once. Pongs count, and so do fragments of messages with less than 64 bytes, but for the last.
    /// Publications are bounded by --max-publications instead.
    #[arg(long, value_name = "RATE", env = "STENTOR_MAX_COMMANDS", default_value = "1000/s", help_heading = "Limits")]
    pub max_commands: RateLimit,

    /// The same from one address, with what it subscribes to by connecting
    ///
    /// `/ws?topics=`, `/raw` and `/sse` subscribe with the request, which counts as a command; beyond, 429. Pongs don't count.
    #[arg(
        long,
        value_name = "RATE",
        env = "STENTOR_MAX_COMMANDS_PER_IP",
        default_value = "10000/s",
        help_heading = "Limits"
    )]
    pub max_commands_per_ip: RateLimit,

    /// Publications a second from one connection; beyond, 4003; 0 for no limit
    ///
    /// By `pub` on /ws or by a message on /raw; two seconds' worth may come at once. One counts once for each KiB that its payload
    /// begins. Not for `POST /publish`. Without a limit, who publishes faster than workers can send waits for them.
    #[arg(long, value_name = "RATE", env = "STENTOR_MAX_PUBLICATIONS", default_value = "0/s", help_heading = "Limits")]
    pub max_publications: RateLimit,

    /// The same from one address, by HTTP, too; 0 for no limit
    #[arg(
        long,
        value_name = "RATE",
        env = "STENTOR_MAX_PUBLICATIONS_PER_IP",
        default_value = "0/s",
        help_heading = "Limits"
    )]
    pub max_publications_per_ip: RateLimit,

    /// Slow subscribers that each worker shows at `/debug/slow`; 0 for none
    ///
    /// Those furthest behind; looked at once a second, some 10 microseconds each.
    #[arg(long, value_name = "N", env = "STENTOR_SLOW_LIST", default_value_t = 32, help_heading = "Limits")]
    pub slow_list: usize,

    /// Log lines of each kind a second that clients can cause, such as refusals; 0 for no limit
    ///
    /// Two seconds' worth may come at once. The next line of the kind says how many were left out. Not for `debug` and `trace`.
    #[arg(long, value_name = "RATE", env = "STENTOR_LOG_LIMIT", default_value = "5/s", help_heading = "Limits")]
    pub log_limit: RateLimit,

    // ---- Audit -----------------------------------------------------------------------------------------------------
    /// Append who connects, subscribes, is refused and ends to this file, as lines of JSON
    ///
    /// With the holder, the address and the bytes sent, and a line a minute for each who is there. In a thread of its own: nobody
    /// waits for the disk. What can't be written is counted, and said in the file. Opened anew at SIGHUP, and when it was moved.
    #[arg(long, value_name = "FILE", env = "STENTOR_AUDIT", help_heading = "Audit")]
    pub audit: Option<PathBuf>,

    /// Size at which FILE is moved to FILE.1, FILE.1 to FILE.2 and so on; 0 leaves that to others
    #[arg(long, value_name = "SIZE", env = "STENTOR_AUDIT_SIZE", default_value = "64MiB", help_heading = "Audit")]
    pub audit_size: ByteSize,

    /// So many files are kept beside it; what is older is removed
    #[arg(long, value_name = "N", env = "STENTOR_AUDIT_FILES", default_value_t = 16, help_heading = "Audit")]
    pub audit_files: usize,

    /// Bytes a second that one address may have of it; 0 for no limit
    ///
    /// A minute's worth may come at once. The next line of the address says how many were left out. Lines about who came, went and is
    /// there are always written.
    #[arg(long, value_name = "SIZE", env = "STENTOR_AUDIT_LIMIT", default_value = "128KiB", help_heading = "Audit")]
    pub audit_limit: ByteSize,

    /// Memory for events that wait to be written; beyond, they are dropped and counted
    #[arg(long, value_name = "SIZE", env = "STENTOR_AUDIT_QUEUE", default_value = "16MiB", help_heading = "Audit")]
    pub audit_queue: ByteSize,

    // ---- Timeouts --------------------------------------------------------------------------------------------------
    /// Time for a client to send its request, and for its TLS handshake before
    #[arg(
        long,
        value_name = "DURATION",
        env = "STENTOR_HANDSHAKE_TIMEOUT",
        default_value = "10s",
        help_heading = "Timeouts"
    )]
    pub handshake_timeout: Span,

    /// Silence after which a `/ws` client is sent a heartbeat; 0 for never
    #[arg(long, value_name = "DURATION", env = "STENTOR_HEARTBEAT", default_value = "15s", help_heading = "Timeouts")]
    pub heartbeat: Span,

    /// Time without a pong, or a sign of its TCP, after which a client is closed; 0 for never
    #[arg(
        long,
        value_name = "DURATION",
        env = "STENTOR_IDLE_TIMEOUT",
        default_value = "60s",
        help_heading = "Timeouts"
    )]
    pub idle_timeout: Span,

    /// Time for the peer to answer a close, and for an HTTP client to go on
    #[arg(
        long,
        value_name = "DURATION",
        env = "STENTOR_CLOSE_TIMEOUT",
        default_value = "5s",
        help_heading = "Timeouts"
    )]
    pub close_timeout: Span,

    /// Time that an HTTP client may leave between two requests
    ///
    /// Longer than a load balancer keeps its own (60s in most), or it sends a request to where nobody is any more. Idle
    /// connections give their place up when others need it.
    #[arg(
        long,
        value_name = "DURATION",
        env = "STENTOR_KEEP_ALIVE_TIMEOUT",
        default_value = "75s",
        help_heading = "Timeouts"
    )]
    pub keep_alive_timeout: Span,

    /// Time without a turn of a worker after which /healthz on --admin-listen is red; 0 for never
    ///
    /// Counts how long it has been in one turn, or has left a wake-up unanswered. Publishers don't wait for such a worker.
    #[arg(long, value_name = "DURATION", env = "STENTOR_STALL_LIMIT", default_value = "5s", help_heading = "Timeouts")]
    pub stall_limit: Span,

    /// Time until a topic that nobody uses is forgotten; 0 for never
    ///
    /// Nobody uses it: no publication for so long, and no subscriber. Its last value goes with it.
    #[arg(
        long,
        value_name = "DURATION",
        env = "STENTOR_TOPIC_EXPIRY",
        default_value = "0s",
        help_heading = "Timeouts"
    )]
    pub topic_expiry: Span,

    /// Time to send what is on the tape when the server stops
    #[arg(
        long,
        value_name = "DURATION",
        env = "STENTOR_DRAIN_TIMEOUT",
        default_value = "8s",
        help_heading = "Timeouts"
    )]
    pub drain_timeout: Span,

    // ---- Publishing ------------------------------------------------------------------------------------------------
    /// Secret that a client must show to publish (op `auth`, `?token=`, or `Authorization: Bearer`)
    #[arg(
        long,
        value_name = "TOKEN",
        env = "STENTOR_PUBLISH_TOKEN",
        hide_env_values = true,
        help_heading = "Publishing"
    )]
    pub publish_token: Option<Secret>,

    /// Let anyone publish, also from other machines
    ///
    /// Without this and without --publish-token, publishing is open only while every --listen and --tls-listen address is loopback
    /// and there is no --trusted-proxy; then, only requests to localhost or a loopback address are taken.
    #[arg(long, env = "STENTOR_ANONYMOUS_PUBLISH", help_heading = "Publishing")]
    pub anonymous_publish: bool,

    // ---- Rights ----------------------------------------------------------------------------------------------------
    /// Keys of those who issue tokens (JWT), as a JWKS
    ///
    /// With this, or --rights, whoever shows nothing may only what --anonymous-subscribe and --anonymous-publish name. Read again at SIGHUP: after
    /// a mistake the old keys stay.
    #[arg(long, value_name = "FILE", env = "STENTOR_JWT_KEYS", help_heading = "Rights")]
    pub jwt_keys: Option<PathBuf>,

    /// Who must have issued a token (`iss`) [default: anybody whose key is in --jwt-keys]
    #[arg(long, value_name = "ISSUER", env = "STENTOR_JWT_ISSUER", help_heading = "Rights")]
    pub jwt_issuer: Option<String>,

    /// For whom a token must be (`aud`): one of these; repeat for several
    #[arg(
        long,
        value_name = "AUDIENCE",
        env = "STENTOR_JWT_AUDIENCE",
        default_value = "stentor",
        value_delimiter = ',',
        help_heading = "Rights"
    )]
    pub jwt_audience: Vec<String>,

    /// How far the issuer's clock may be from this one; also how long after `exp` a connection is closed
    #[arg(long, value_name = "DURATION", env = "STENTOR_JWT_LEEWAY", default_value = "5s", help_heading = "Rights")]
    pub jwt_leeway: Span,

    /// Longest token; --max-head, unless set, has room for it
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_TOKEN", default_value = "4KiB", help_heading = "Rights")]
    pub max_token: ByteSize,

    /// Tokens that are remembered as genuine, so that a signature is checked once; 0 for none
    ///
    /// A small record each, and what patterns it has.
    #[arg(long, value_name = "N", env = "STENTOR_TOKEN_CACHE", default_value_t = 10_000, help_heading = "Rights")]
    pub token_cache: usize,

    /// Roles, static tokens and names of client certificates with what they may: TOML
    ///
    /// See docs/rights.md. Read again at SIGHUP: after a mistake what it said before stays.
    #[arg(long, value_name = "FILE", env = "STENTOR_RIGHTS", help_heading = "Rights")]
    pub rights: Option<PathBuf>,

    /// What whoever shows nothing may subscribe to; repeat for several [default: all, or nothing with --jwt-keys or --rights]
    #[arg(
        long,
        value_name = "PATTERN",
        env = "STENTOR_ANONYMOUS_SUBSCRIBE",
        value_delimiter = ',',
        help_heading = "Rights"
    )]
    pub anonymous_subscribe: Vec<String>,

    /// Take tokens in addresses (`?token=`) that are valid for longer than five minutes
    ///
    /// Addresses are logged, by proxies and elsewhere.
    #[arg(long, env = "STENTOR_TOKEN_IN_URL", help_heading = "Rights")]
    pub token_in_url: bool,

    /// Time for a client without any right to show a token; beyond, 4001
    #[arg(long, value_name = "DURATION", env = "STENTOR_AUTH_TIMEOUT", default_value = "10s", help_heading = "Rights")]
    pub auth_timeout: Span,

    /// Who was revoked: a JSON line each, appended to by `POST /revoke`, read again at SIGHUP
    #[arg(long, value_name = "FILE", env = "STENTOR_REVOKED", help_heading = "Rights")]
    pub revoked: Option<PathBuf>,

    /// Revocations at once; one more is refused
    #[arg(long, value_name = "N", env = "STENTOR_MAX_REVOKED", default_value_t = 100_000, help_heading = "Rights")]
    pub max_revoked: usize,

    /// Tokens a second from one address whose signature has to be verified; beyond, 429 or 4003
    ///
    /// Two seconds' worth may come at once. Those that were found to be genuine before, and static ones, don't count.
    #[arg(
        long,
        value_name = "RATE",
        env = "STENTOR_MAX_TOKENS_PER_IP",
        default_value = "500/s",
        help_heading = "Rights"
    )]
    pub max_tokens_per_ip: RateLimit,

    /// The same of one WebSocket, by `auth`; beyond, it is told and closed with 4003
    ///
    /// Two seconds' worth may come at once. Requests over plain HTTP are bounded by address alone: a proxy may send those of many clients
    /// on one connection.
    #[arg(long, value_name = "RATE", env = "STENTOR_MAX_AUTHS", default_value = "2/s", help_heading = "Rights")]
    pub max_auths: RateLimit,

    /// Topics that one holder of a token or certificate may add, from whatever addresses; 0 for no limit [default: half]
    ///
    /// Half of --max-topics. Counts beside --max-topics-per-ip, until the topic is forgotten.
    #[arg(long, value_name = "N", env = "STENTOR_MAX_TOPICS_PER_HOLDER", help_heading = "Rights")]
    pub max_topics_per_holder: Option<usize>,

    // ---- Feeds -----------------------------------------------------------------------------------------------------
    /// Publish a simulated market on q.demo.SYMBOL and t.demo.SYMBOL
    #[arg(long, env = "STENTOR_DEMO", help_heading = "Feeds")]
    pub demo: bool,

    /// Instruments of the simulated market
    #[arg(long, value_name = "N", env = "STENTOR_DEMO_SYMBOLS", default_value_t = 300, help_heading = "Feeds")]
    pub demo_symbols: usize,

    /// Publications per second of the simulated market, on average: `500`, `2k/s`
    ///
    /// Over each minute: in its last two seconds the market opens, and there are six times as many, which is saved before.
    #[arg(long, value_name = "RATE", env = "STENTOR_DEMO_RATE", default_value = "1000/s", help_heading = "Feeds")]
    pub demo_rate: Rate,

    /// Which simulated market: the same number makes the same symbols and prices
    #[arg(long, value_name = "N", env = "STENTOR_DEMO_SEED", default_value_t = 1, help_heading = "Feeds")]
    pub demo_seed: u64,

    /// Publish a recorded feed: newline-delimited JSON, plain, gzip or zstd
    ///
    /// Each line is {"ts_ns":…,"topic":…,"data":…}; data is published byte for byte. What is whole of a file that is cut off is published,
    /// and the log says where that ends.
    #[arg(long, value_name = "FILE", env = "STENTOR_REPLAY", help_heading = "Feeds")]
    pub replay: Option<PathBuf>,

    /// Replay so many times as fast as it was recorded, or `max`
    #[arg(long, value_name = "FACTOR|max", env = "STENTOR_SPEED", default_value = "1", help_heading = "Feeds")]
    pub speed: Speed,

    /// Time to wait before the recorded feed begins
    ///
    /// So that subscribers can be there first.
    #[arg(long, value_name = "DURATION", env = "STENTOR_REPLAY_DELAY", default_value = "0s", help_heading = "Feeds")]
    pub replay_delay: Span,

    /// Longest gap in the recorded feed; longer ones are cut to it; 0 for any
    ///
    /// In the recording's own time, before --speed. So a night that was recorded along, or a damaged timestamp, is not waited for.
    #[arg(long, value_name = "DURATION", env = "STENTOR_MAX_GAP", default_value = "1h", help_heading = "Feeds")]
    pub max_gap: Span,

    /// Largest message that a line of the recorded feed may become
    ///
    /// That is its data and what is put around it. What is larger is left out: it is counted and logged, and subscribers are told. Many
    /// WebSocket libraries take no more than 1 MiB unless they are told to. At least --max-message unless set.
    #[arg(
        long,
        value_name = "SIZE",
        env = "STENTOR_MAX_REPLAY_MESSAGE",
        default_value = "1MiB",
        help_heading = "Feeds"
    )]
    pub max_replay_message: ByteSize,

    /// Begin again when the recorded feed ends
    #[arg(long = "loop", env = "STENTOR_LOOP", help_heading = "Feeds")]
    pub replay_loop: bool,
}

impl Default for Config {
    /// The defaults of the command line, whatever the environment says.
    fn default() -> Self {
        let command = Config::augment_args(clap::Command::new("stentor")).mut_args(|arg| arg.env(None::<&str>));
        let matches = command.get_matches_from(["stentor"]);
        Config::from_arg_matches(&matches).expect("every setting has a default")
    }
}

/// Clients that fail with compression: those of WebKit's releases that have it from the system, and get it wrong.
pub(crate) const DENIED: [&str; 8] =
    ["Version/15.0", "Version/15.1", "Version/15.2", "Version/15.3", " OS 15_0", " OS 15_1", " OS 15_2", " OS 15_3"];

/// The most instruments of the simulated market: names for more would run out.
pub const SYMBOLS_MAX: usize = 1_000_000;

/// Makes the list of settings that can change while the server runs, and the function that takes them over, from one list.
macro_rules! live {
    ($($field:ident)*) => {
        /// The settings that can change while the server runs, by field name. The others need a restart: memory,
        /// sockets and threads were made according to them.
        pub const LIVE: &[&str] = &[$(stringify!($field)),*];

        impl Config {
            /// These settings, with those of `wanted` that can change while the server runs. Where TLS begins or ends with them, which
            /// needs a restart, certificates wait for that, too.
            pub fn with_live(&self, wanted: &Config) -> Config {
                let config = Config { $($field: wanted.$field.clone(),)* ..self.clone() };
                if self.tls_listen.is_empty() == wanted.tls_listen.is_empty() {
                    return config;
                }
                Config {
                    tls_cert: self.tls_cert.clone(),
                    tls_key: self.tls_key.clone(),
                    tls_client_ca: self.tls_client_ca.clone(),
                    tls_client_crl: self.tls_client_crl.clone(),
                    ..config
                }
            }
        }
    };
}

live! {
    compression compression_deny allow_origin trusted_proxy proxy_protocol tls_cert tls_key tls_buffers tls_client_ca tls_client_auth tls_client_crl flush_interval turn_sends turn_work lag_limit lag_limit_age
    max_connections max_connections_per_ip max_connects_per_ip max_assembly max_assembly_per_ip max_held max_held_per_ip max_topics_per_ip
    max_topics_per_holder max_values_per_ip max_headers max_subscriptions max_subscriptions_per_ip max_pending max_http_pending min_http_rate
    max_commands max_commands_per_ip max_tokens_per_ip max_auths max_publications max_publications_per_ip slow_list log_limit audit_size
    audit_files audit_limit
    handshake_timeout heartbeat idle_timeout close_timeout keep_alive_timeout stall_limit drain_timeout publish_token anonymous_publish
    admin_token
    jwt_keys jwt_issuer jwt_audience jwt_leeway max_token token_cache rights anonymous_subscribe token_in_url auth_timeout revoked max_revoked
}

/// A setting, or a relation between settings, that cannot work; the text is one sentence for the operator.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Config {
    /// Checks each setting's range and the relations between them.
    ///
    /// # Errors
    /// The first that cannot work: names the flag, what was given, and what would do.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.keep(rules::RANGES)?;
        self.keep(rules::RELATIONS)
    }

    /// Checks numbers and sizes one by one: whatever the relations between them, then nothing overflows.
    #[cfg(feature = "cli")]
    pub(crate) fn check_ranges(&self) -> Result<(), ConfigError> {
        self.keep(rules::RANGES)
    }

    /// All addresses that clients may come to, in clear and by TLS.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listen.iter().chain(&self.tls_listen).copied()
    }

    /// What one message may take while it is unfinished, in bytes: what must have room for one has at least that.
    pub(crate) fn message_room(&self) -> u64 {
        self.max_message.as_u64().saturating_add(rules::MESSAGE_BESIDE)
    }

    fn keep(&self, rules: &[Rule]) -> Result<(), ConfigError> {
        rules.iter().try_for_each(|rule| rule.check(self).map_err(ConfigError))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.check().expect_err("should be refused").0
    }

    #[test]
    fn the_defaults_hold_together() {
        Config::default().check().unwrap();
    }

    #[test]
    fn a_broken_relation_names_the_flag_what_was_given_and_what_would_do() {
        let text = said(|c| c.max_message = ByteSize::mib(2));
        assert!(text.contains("--max-message 2.0 MiB") && text.contains("--segment"), "{text}");
        let text = said(|c| c.retain = ByteSize::mib(1));
        assert!(text.contains("--retain 1.0 MiB") && text.contains("at least 2.0 MiB"), "{text}");
        let text = said(|c| {
            c.pin = Pin::Cores(vec![0]);
            c.workers = Some(2);
        });
        assert!(text.contains("--workers 2") && text.contains("--pin 0"), "{text}");
        let text = said(|c| c.allow_origin = vec!["example.com".into()]);
        assert!(text.contains("--allow-origin") && text.contains("https://"), "{text}");
        assert!(said(|c| c.turn_sends = 0).contains("--turn-sends was given as 0: it must be from 1 to 1000000"));
        let private = |count| (0..count).map(|n| format!("t{n}").parse().unwrap()).collect();
        assert!(said(|c| c.compression_private = private(65)).contains("--compression-private was given 65 names"));
        let text = said(|c| c.max_assembly_per_ip = Some(ByteSize::kib(50)));
        assert!(text.contains("--max-assembly-per-ip 50.0 KiB") && text.contains("at least 65.0 KiB"), "{text}");
        let text = said(|c| (c.max_assembly, c.max_assembly_per_ip) = (ByteSize::kib(60), Some(ByteSize::b(0))));
        assert!(text.contains("--max-assembly 60.0 KiB does not hold one message of --max-message 64.0 KiB"), "{text}");
        assert!(said(|c| c.slow_list = 1001).contains("--slow-list was given as 1001"));
        assert!(said(|c| c.workers = Some(0)).contains("--workers"));
        assert!(said(|c| c.proxy_protocol = true).contains("--trusted-proxy"));
    }

    #[test]
    fn certificates_wait_for_the_restart_that_tls_begins_or_ends_with() {
        let clear = Config::default();
        let tls = Config {
            tls_listen: vec!["127.0.0.1:443".parse().unwrap()],
            tls_cert: vec!["a".into()],
            tls_key: vec!["b".into()],
            ..Config::default()
        };
        let other = Config { tls_cert: vec!["c".into()], ..tls.clone() };
        for (now, wanted, shown) in [(&clear, &tls, None), (&tls, &clear, Some("a")), (&tls, &other, Some("c"))] {
            let config = now.with_live(wanted);
            config.check().unwrap();
            assert_eq!(config.tls_cert.first().and_then(|file| file.to_str()), shown);
        }
    }

    #[test]
    fn numbers_and_sizes_that_nothing_could_be_done_with_are_refused_with_what_is_accepted() {
        for (flag, change) in [
            ("--acceptors", (|c| c.acceptors = usize::MAX) as fn(&mut Config)),
            ("--workers", |c| c.workers = Some(usize::MAX)),
            ("--inbox", |c| c.inbox = usize::MAX),
            ("--max-connections", |c| c.max_connections = usize::MAX),
            ("--max-subscriptions-total", |c| c.max_subscriptions_total = usize::MAX),
            ("--demo-symbols", |c| c.demo_symbols = usize::MAX),
            ("--retain", |c| c.retain = ByteSize::b(u64::MAX)),
            ("--max-values", |c| c.max_values = ByteSize::b(u64::MAX)),
            ("--lag-limit", |c| c.lag_limit = ByteSize::b(u64::MAX)),
            ("--segment", |c| c.segment = ByteSize::b(u64::MAX)),
        ] {
            let text = said(change);
            assert!(text.starts_with(&format!("{flag} was given as ")) && text.contains("it must be from"), "{text}");
        }
    }

    #[test]
    fn the_token_is_matched_whole_and_not_printed() {
        let secret = Config { publish_token: Some("s3cret".parse().unwrap()), ..Config::default() };
        assert!(secret.publish_token.as_ref().unwrap().matches("s3cret"));
        assert!(!secret.publish_token.as_ref().unwrap().matches("s3cre"));
        assert!(!format!("{secret:?}").contains("s3cret"));
    }
}
