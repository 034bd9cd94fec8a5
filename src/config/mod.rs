//! Every setting of the server, once: its name, default, environment variable, help and cost.
//!
//! [`Config`] is what the command line fills in, what an embedding program sets field by field, and what
//! `--print-config` prints. [`Config::check`] holds the relations between settings; each error names the flag, what was
//! given and what would do.

mod values;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use clap::{Args, FromArgMatches};

pub use values::{LogFormat, Network, Pin, Rate, RateLimit, Secret, Span, Speed};

/// The settings of one server.
#[derive(Args, Clone, Debug)]
pub struct Config {
    // ---- Listening -------------------------------------------------------------------------------------------------
    /// Address and port to listen on; repeat for several
    ///
    /// IPv4 (`127.0.0.1:9001`) or IPv6 (`[::1]:9001`). Port 0 lets the system choose; the log says which it chose.
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "STENTOR_LISTEN",
        value_delimiter = ',',
        default_value = "127.0.0.1:9001",
        help_heading = "Listening"
    )]
    pub listen: Vec<SocketAddr>,

    /// Acceptor threads for each address
    ///
    /// Each has a listening socket of its own (SO_REUSEPORT). One accepts some 50,000 connections a second.
    #[arg(long, value_name = "N", env = "STENTOR_ACCEPTORS", default_value_t = 1, help_heading = "Listening")]
    pub acceptors: usize,

    /// Connections that may wait to be accepted, per listening socket
    #[arg(long, value_name = "N", env = "STENTOR_BACKLOG", default_value_t = 4096, help_heading = "Listening")]
    pub backlog: u32,

    /// Web pages that may connect, as `https://host[:port]`; repeat for several [default: any]
    ///
    /// Compared with the Origin header that browsers send. Clients that send none are let in.
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
    /// The client that such a proxy names is what the log shows and what --max-connections-per-ip counts; the proxy itself
    /// is not counted. With this, publishing is no longer open merely because the server listens on loopback.
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

    // ---- Threads ---------------------------------------------------------------------------------------------------
    /// Worker threads; each owns its share of the connections [default: the cores it may use]
    #[arg(long, value_name = "N", env = "STENTOR_WORKERS", help_heading = "Threads")]
    pub workers: Option<usize>,

    /// Cores for the workers: `auto`, `none`, or a list like `0,2-3`
    ///
    /// `auto` pins one worker to each core that this process may use, and leaves them unpinned where there are more
    /// workers than cores.
    #[arg(long, value_name = "auto|none|LIST", env = "STENTOR_PIN", default_value = "auto", help_heading = "Threads")]
    pub pin: Pin,

    /// Microseconds that a worker looks for work before it sleeps
    ///
    /// Saves the 30 to 50 microseconds of waking a sleeping core, and burns the core meanwhile.
    #[arg(long, value_name = "MICROSECONDS", env = "STENTOR_SPIN", default_value_t = 0, help_heading = "Threads")]
    pub spin: u64,

    /// Sockets that may wait for a worker to take them over, per worker; beyond, 503
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

    /// Memory for the tape: how far back a slow subscriber may be
    ///
    /// The tape holds the newest publications in this much memory; a subscriber that falls off its end is told and closed.
    #[arg(long, value_name = "SIZE", env = "STENTOR_RETAIN", default_value = "64MiB", help_heading = "Fan-out")]
    pub retain: ByteSize,

    /// Furthest that a subscriber of every publication may be behind, in bytes of the tape; 0 for as far as the tape reaches
    ///
    /// Beyond it, it is told (`lagged`) and closed with 4100, so that it comes back sooner than the tape would force it to.
    /// Subscribers of newest values are never closed for that.
    #[arg(long, value_name = "SIZE", env = "STENTOR_LAG_LIMIT", default_value = "0B", help_heading = "Fan-out")]
    pub lag_limit: ByteSize,

    /// The same in time: the age of the oldest publication that it wasn't sent; 0 for no limit
    #[arg(long, value_name = "TIME", env = "STENTOR_LAG_LIMIT_AGE", default_value = "0s", help_heading = "Fan-out")]
    pub lag_limit_age: Span,

    /// Size of the pieces in which the tape is allocated and given back
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

    // ---- Limits ----------------------------------------------------------------------------------------------------
    /// Connections at once; beyond, 503
    #[arg(long, value_name = "N", env = "STENTOR_MAX_CONNECTIONS", default_value_t = 10_000, help_heading = "Limits")]
    pub max_connections: usize,

    /// Connections at once from one address; 0 for no limit
    #[arg(
        long,
        value_name = "N",
        env = "STENTOR_MAX_CONNECTIONS_PER_IP",
        default_value_t = 0,
        help_heading = "Limits"
    )]
    pub max_connections_per_ip: usize,

    /// Plain HTTP connections at once (metrics, publishing, the page); beyond, 503
    #[arg(
        long,
        value_name = "N",
        env = "STENTOR_MAX_HTTP_CONNECTIONS",
        default_value_t = 512,
        help_heading = "Limits"
    )]
    pub max_http_connections: usize,

    /// Largest message, command or payload taken from a client
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_MESSAGE", default_value = "64KiB", help_heading = "Limits")]
    pub max_message: ByteSize,

    /// Largest body of one `POST /publish`; its lines are published as they arrive
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_BODY", default_value = "64MiB", help_heading = "Limits")]
    pub max_body: ByteSize,

    /// Largest HTTP request head
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_HEAD", default_value = "8KiB", help_heading = "Limits")]
    pub max_head: ByteSize,

    /// Topics at once; publishing on one more is refused
    #[arg(long, value_name = "N", env = "STENTOR_MAX_TOPICS", default_value_t = 65_536, help_heading = "Limits")]
    pub max_topics: usize,

    /// Memory for the last values of all topics
    ///
    /// Beyond it, a topic's newest value is delivered and not kept: later subscribers get no snapshot of it.
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_VALUES", default_value = "256MiB", help_heading = "Limits")]
    pub max_values: ByteSize,

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

    /// Longest topic name, in bytes
    #[arg(long, value_name = "N", env = "STENTOR_MAX_TOPIC_LENGTH", default_value_t = 128, help_heading = "Limits")]
    pub max_topic_length: usize,

    /// Bytes of acks, snapshots and other answers that may wait for one connection; beyond, it is closed
    #[arg(long, value_name = "SIZE", env = "STENTOR_MAX_PENDING", default_value = "16MiB", help_heading = "Limits")]
    pub max_pending: ByteSize,

    /// Commands and pings a second from one connection; beyond, 4003; 0 for no limit
    ///
    /// Two seconds' worth may come at once. Publications are bounded by --max-publications instead.
    #[arg(long, value_name = "RATE", env = "STENTOR_MAX_COMMANDS", default_value = "1000/s", help_heading = "Limits")]
    pub max_commands: RateLimit,

    /// Publications a second from one connection; beyond, 4003; 0 for no limit
    ///
    /// By `pub` on /ws or by a message on /raw; two seconds' worth may come at once. Not for `POST /publish`.
    #[arg(long, value_name = "RATE", env = "STENTOR_MAX_PUBLICATIONS", default_value = "0/s", help_heading = "Limits")]
    pub max_publications: RateLimit,

    /// Slow subscribers that each worker shows at `/debug/slow`; 0 for none
    ///
    /// Those furthest behind; looked at once a second, some 10 microseconds each.
    #[arg(long, value_name = "N", env = "STENTOR_SLOW_LIST", default_value_t = 32, help_heading = "Limits")]
    pub slow_list: usize,

    // ---- Timeouts --------------------------------------------------------------------------------------------------
    /// Time for a client to send its request
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
    /// Without this and without --publish-token, publishing is open only while every --listen address is loopback and there
    /// is no --trusted-proxy.
    #[arg(long, env = "STENTOR_ANONYMOUS_PUBLISH", help_heading = "Publishing")]
    pub anonymous_publish: bool,

    // ---- Feeds -----------------------------------------------------------------------------------------------------
    /// Publish a simulated market on q.demo.SYMBOL and t.demo.SYMBOL
    #[arg(long, env = "STENTOR_DEMO", help_heading = "Feeds")]
    pub demo: bool,

    /// Instruments of the simulated market
    #[arg(long, value_name = "N", env = "STENTOR_DEMO_SYMBOLS", default_value_t = 300, help_heading = "Feeds")]
    pub demo_symbols: usize,

    /// Publications per second of the simulated market, on average: `500`, `2k/s`
    #[arg(long, value_name = "RATE", env = "STENTOR_DEMO_RATE", default_value = "1000/s", help_heading = "Feeds")]
    pub demo_rate: Rate,

    /// Publish a recorded feed: newline-delimited JSON, plain or gzip
    ///
    /// Each line is {"ts_ns":…,"topic":…,"data":…}; data is published byte for byte.
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

/// Makes the list of settings that can change while the server runs, and the function that takes them over, from one list.
macro_rules! live {
    ($($field:ident)*) => {
        /// The settings that can change while the server runs, by field name. The others need a restart: memory,
        /// sockets and threads were made according to them.
        pub const LIVE: &[&str] = &[$(stringify!($field)),*];

        impl Config {
            /// These settings, with those of `wanted` that can change while the server runs.
            pub fn with_live(&self, wanted: &Config) -> Config {
                Config { $($field: wanted.$field.clone(),)* ..self.clone() }
            }
        }
    };
}

live! {
    allow_origin trusted_proxy proxy_protocol flush_interval turn_sends lag_limit lag_limit_age max_connections max_connections_per_ip max_subscriptions max_pending max_commands max_publications slow_list
    handshake_timeout heartbeat idle_timeout close_timeout drain_timeout publish_token anonymous_publish
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
        let no = |text: String| Err(ConfigError(text));
        for (flag, given) in [
            ("--acceptors", self.acceptors),
            ("--workers", self.workers.unwrap_or(1)),
            ("--backlog", self.backlog as usize),
            ("--inbox", self.inbox),
            ("--max-connections", self.max_connections),
            ("--max-http-connections", self.max_http_connections),
            ("--max-topics", self.max_topics),
            ("--max-subscriptions", self.max_subscriptions),
            ("--max-subscriptions-total", self.max_subscriptions_total),
            ("--demo-symbols", self.demo_symbols),
        ] {
            if given == 0 {
                return no(format!("{flag} was given as 0: it must be at least 1"));
            }
        }
        if self.listen.is_empty() {
            return no("--listen names no address: give at least one, such as 127.0.0.1:9001".into());
        }
        for (flag, given, least, most) in [
            ("--segment", self.segment, ByteSize::kib(64), ByteSize::gib(1)),
            ("--max-message", self.max_message, ByteSize::b(1), ByteSize::mib(512)),
            ("--max-head", self.max_head, ByteSize::b(512), ByteSize::mib(1)),
            ("--max-body", self.max_body, ByteSize::b(1), ByteSize::tib(1)),
            ("--max-pending", self.max_pending, ByteSize::kib(64), ByteSize::gib(1)),
        ] {
            if given < least || given > most {
                return no(format!("{flag} was given as {given}: it must be from {least} to {most}"));
            }
        }
        for (flag, given) in [("--sndbuf", self.sndbuf), ("--rcvbuf", self.rcvbuf)] {
            if given > ByteSize::gib(1) {
                return no(format!("{flag} was given as {given}: it must be at most 1 GiB"));
            }
        }
        if !(1..=1024).contains(&self.max_topic_length) {
            return no(format!("--max-topic-length was given as {}: it must be from 1 to 1024", self.max_topic_length));
        }
        if self.slow_list > 1000 {
            return no(format!("--slow-list was given as {}: it must be at most 1000", self.slow_list));
        }
        if self.max_topics > 1 << 24 {
            return no(format!("--max-topics was given as {}: it must be at most {}", self.max_topics, 1 << 24));
        }
        if self.max_message > self.segment {
            return no(format!(
                "--max-message {} does not fit into --segment {}: raise --segment to at least {0}, or lower --max-message",
                self.max_message, self.segment
            ));
        }
        if self.retain.as_u64() < 2 * self.segment.as_u64() {
            return no(format!(
                "--retain {} holds fewer than two segments of {}: raise it to at least {}, or lower --segment",
                self.retain,
                self.segment,
                ByteSize::b(2 * self.segment.as_u64())
            ));
        }
        if self.max_subscriptions > self.max_subscriptions_total {
            return no(format!(
                "--max-subscriptions {} is more than --max-subscriptions-total {}: raise the total",
                self.max_subscriptions, self.max_subscriptions_total
            ));
        }
        if let (Pin::Cores(cores), Some(workers)) = (&self.pin, self.workers)
            && workers > cores.len()
        {
            return no(format!(
                "--workers {workers} is more than the {} cores of --pin {}: name one core for each worker, or use --pin none",
                cores.len(),
                self.pin
            ));
        }
        if !self.heartbeat.is_zero() && self.heartbeat.get() < Duration::from_secs(1) {
            return no(format!("--heartbeat was given as {}: it must be 0s (never) or at least 1s", self.heartbeat));
        }
        if !self.idle_timeout.is_zero() && self.idle_timeout.get() < Duration::from_secs(1) {
            return no(format!(
                "--idle-timeout was given as {}: it must be 0s (never) or at least 1s",
                self.idle_timeout
            ));
        }
        for (flag, given) in [("--handshake-timeout", self.handshake_timeout), ("--close-timeout", self.close_timeout)]
        {
            if given.is_zero() {
                return no(format!("{flag} was given as 0s: it must be more than that"));
            }
        }
        if !self.topic_expiry.is_zero() && self.topic_expiry.get() < Duration::from_secs(60) {
            return no(format!(
                "--topic-expiry was given as {}: it must be 0s (never) or at least 1m",
                self.topic_expiry
            ));
        }
        if self.flush_interval.get() > Duration::from_secs(10) {
            return no(format!("--flush-interval was given as {}: it must be at most 10s", self.flush_interval));
        }
        if !(1..=1_000_000).contains(&self.turn_sends) {
            return no(format!("--turn-sends was given as {}: it must be from 1 to 1000000", self.turn_sends));
        }
        if self.spin > 1_000_000 {
            return no(format!("--spin was given as {}: it must be at most 1000000 (a second)", self.spin));
        }
        for origin in &self.allow_origin {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if host.is_none_or(|host| host.is_empty() || host.contains(['/', ' '])) {
                return no(format!(
                    "--allow-origin was given as {origin}: it must look like https://example.com or http://localhost:8080"
                ));
            }
        }
        if self.proxy_protocol && self.trusted_proxy.is_empty() {
            return no("--proxy-protocol was given without --trusted-proxy: name the proxies that may use it".into());
        }
        if self.replay_loop && self.replay.is_none() {
            return no("--loop was given without --replay: name the file to repeat".into());
        }
        Ok(())
    }

    /// Whether a client needs no token to publish: it was said so, or only this machine can connect. Behind a proxy, who
    /// connects from this machine may be anybody.
    pub fn publishing_is_open(&self) -> bool {
        let local = self.trusted_proxy.is_empty() && self.listen.iter().all(|address| address.ip().is_loopback());
        self.anonymous_publish || (self.publish_token.is_none() && local)
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
        assert!(said(|c| c.slow_list = 1001).contains("--slow-list was given as 1001"));
        assert!(said(|c| c.workers = Some(0)).contains("--workers"));
        assert!(said(|c| c.proxy_protocol = true).contains("--trusted-proxy"));
    }

    #[test]
    fn publishing_is_open_on_loopback_only() {
        let mut config = Config::default();
        assert!(config.publishing_is_open());
        config.listen.push("0.0.0.0:9001".parse().unwrap());
        assert!(!config.publishing_is_open());
        config.anonymous_publish = true;
        assert!(config.publishing_is_open());
        let behind = Config { trusted_proxy: vec!["127.0.0.1".parse().unwrap()], ..Config::default() };
        assert!(!behind.publishing_is_open());
        let secret = Config { publish_token: Some("s3cret".parse().unwrap()), ..Config::default() };
        assert!(!secret.publishing_is_open());
        assert!(secret.publish_token.as_ref().unwrap().matches("s3cret"));
        assert!(!secret.publish_token.as_ref().unwrap().matches("s3cre"));
        assert!(!format!("{secret:?}").contains("s3cret"));
    }
}
