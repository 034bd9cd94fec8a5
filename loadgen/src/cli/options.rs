//! Options that all scenarios share.

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::{
    dialect::{File, Protocol, Settings},
    quotes,
    spec::{Arrivals, Disturbance, Pace, Part, Scenario, Spec},
    stamp::Form,
    thresholds::Condition,
    tls,
    units::{Bytes, Rate, Span, Weighted},
};

/// How a subscription is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Every publication.
    All,
    /// The newest of each topic.
    Latest,
}

/// The shape of payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Payload {
    /// A JSON object.
    Json,
    /// Bare text, without quotation marks or braces.
    Plain,
    /// JSON that looks and changes as a feed's does; without --size.
    Quotes,
}

/// What all scenarios can be told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The server, like ws://127.0.0.1:9001 or wss://…; {topic} in the path is each connection's topic, {topics} all of its topics
    pub url: String,

    // ---- Load ------------------------------------------------------------------------------------------------------
    /// Subscribers [default: 1000; connect 10000, echo, replay 100, listen 1]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub subs: Option<usize>,
    /// Topics [default: 1; echo one per connection; mix 5000]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub topics: Option<usize>,
    /// Topics of each subscriber [default: 1; replay and --subscribe-as all]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub topics_per_sub: Option<usize>,
    /// Publications a second [default: 50/s; echo 1k/s; mix 100/s; fanout none]
    ///
    /// Over all topics. They are due at planned moments, whatever the server does, and latency counts from those. Without a rate, fanout
    /// runs flat out in a window and prints throughput only.
    #[arg(long, value_name = "RATE", help_heading = "Load")]
    pub rate: Option<Rate>,
    /// How they follow each other: even, poisson (independent sources), bursty (groups of ten on average); by --seed
    #[arg(
        long,
        value_enum,
        default_value = "even",
        hide_possible_values = true,
        hide_short_help = true,
        help_heading = "Load"
    )]
    pub arrivals: Arrivals,
    /// Zipf's exponent by which publications are spread over topics, 1 being usual; 0 is evenly [default: 0; mix 1]
    #[arg(long, value_name = "S", hide_short_help = true, help_heading = "Load")]
    pub topic_skew: Option<f64>,
    /// Without --rate: publications not yet delivered to everybody [default: 256]
    #[arg(long, value_name = "N", conflicts_with = "rate", help_heading = "Load")]
    pub window: Option<usize>,
    /// Bytes of each payload
    #[arg(long, value_name = "SIZE", default_value = "128", help_heading = "Load")]
    pub size: Bytes,
    /// With --window: publish as deliveries come, instead of a quarter of the window whenever everybody has that
    ///
    /// A window that waits for everybody refills in batches, which makes half-full sends of full ones. A rolling one bounds the deliveries that
    /// are under way: N publications' worth. Nobody is further behind than 2,048 publications, or the window where that is more.
    #[arg(long, conflicts_with = "rate", hide_short_help = true, help_heading = "Load")]
    pub rolling: bool,
    /// Several sizes and how often each comes, in proportion, like 128:90,4KiB:9,64KiB:1
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        conflicts_with = "size",
        hide_short_help = true,
        help_heading = "Load"
    )]
    pub size_mix: Vec<Weighted>,
    /// Measured time
    #[arg(long, value_name = "TIME", default_value = "10s", help_heading = "Load")]
    pub duration: Span,
    /// Time before that, not measured; at least 20 publications to each subscriber
    #[arg(long, value_name = "TIME", default_value = "1s", hide_short_help = true, help_heading = "Load")]
    pub warmup: Span,
    /// How long stragglers are waited for at the end; what is missing then is lost
    #[arg(long, value_name = "TIME", default_value = "10s", hide_short_help = true, help_heading = "Load")]
    pub drain: Span,
    /// Payloads as JSON objects, as plain text for servers that carry them in strings, or as quotes [default: json; mix quotes]
    ///
    /// The first two are filled with letters by chance, of which compression leaves much. Quotes are JSON as feeds have it, of some 240 bytes with the
    /// stamp: prices walk, sizes and times change, names stay.
    #[arg(long, value_enum, hide_short_help = true, help_heading = "Load")]
    pub payload: Option<Payload>,
    /// What random choices are made from
    #[arg(long, value_name = "N", default_value_t = 1, hide_short_help = true, help_heading = "Load")]
    pub seed: u64,

    // ---- Protocol --------------------------------------------------------------------------------------------------
    /// How the server is spoken to: stentor, raw or generic
    #[arg(long, value_enum, default_value = "stentor", hide_possible_values = true, help_heading = "Protocol")]
    pub protocol: Protocol,
    /// Where publishers connect; http:// is by POST [default: the same]
    ///
    /// By HTTP or HTTPS, each publication is a POST of its payload, or of --publish-template, to the address, in which {topic} is its topic. A connection is
    /// kept, and waits for each answer before it asks again: --publishers gives more of them.
    #[arg(long, value_name = "URL", help_heading = "Protocol")]
    pub publish_url: Option<String>,
    /// All publications, or the newest of each topic (conflation)
    #[arg(long, value_enum, default_value = "all", hide_short_help = true, help_heading = "Protocol")]
    pub mode: Mode,
    /// With --mode latest: at most so many updates a second of each topic, the server's `rate`
    #[arg(long, value_name = "N", hide_short_help = true, help_heading = "Protocol")]
    pub latest_rate: Option<f64>,
    /// File that says how the server is spoken to, with steps that wait for its answers; see dialects/
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["protocol", "subscribe_template", "unsubscribe_template", "publish_template", "greeting_template", "ready"],
        hide_short_help = true,
        help_heading = "Protocol"
    )]
    pub dialect: Option<PathBuf>,
    /// generic: message that subscribes to {topic}
    #[arg(long, value_name = "TEXT", help_heading = "Protocol")]
    pub subscribe_template: Option<String>,
    /// Subscribe to this one name, such as '>', which stands for all topics; every subscriber then gets everything
    #[arg(long, value_name = "NAME", hide_short_help = true, help_heading = "Protocol")]
    pub subscribe_as: Option<String>,
    /// generic: message that unsubscribes from {topic}
    #[arg(long, value_name = "TEXT", hide_short_help = true, help_heading = "Protocol")]
    pub unsubscribe_template: Option<String>,
    /// generic: message that publishes {payload} on {topic}
    #[arg(long, value_name = "TEXT", help_heading = "Protocol")]
    pub publish_template: Option<String>,
    /// How often each subscriber shows that it is there, by a ping or --heartbeat-template; they take turns
    #[arg(long, value_name = "TIME", hide_short_help = true, help_heading = "Protocol")]
    pub heartbeat: Option<Span>,
    /// generic: message that does so
    #[arg(long, value_name = "TEXT", requires = "heartbeat", hide_short_help = true, help_heading = "Protocol")]
    pub heartbeat_template: Option<String>,
    /// generic: first message of every connection
    #[arg(long, value_name = "TEXT", hide_short_help = true, help_heading = "Protocol")]
    pub greeting_template: Option<String>,
    /// generic: what a message contains that confirms a subscription
    #[arg(long, value_name = "TEXT", hide_short_help = true, help_heading = "Protocol")]
    pub ready: Option<String>,
    /// generic: how to answer a message that begins so, as 'QUESTION=>ANSWER'; repeat for several
    #[arg(long, value_name = "PAIR", hide_short_help = true, help_heading = "Protocol")]
    pub answer: Vec<String>,
    /// Send binary messages
    #[arg(long, hide_short_help = true, help_heading = "Protocol")]
    pub binary: bool,
    /// Header line of handshakes and HTTP requests, like 'Authorization: Bearer x'; repeat for several
    #[arg(long, value_name = "LINE", hide_short_help = true, help_heading = "Protocol")]
    pub header: Vec<String>,
    /// File with the token to show [default: STENTOR_TOKEN of the environment]
    ///
    /// By subscribers and publishers alike, as `Authorization: Bearer`. What is in the environment is shown to servers that speak Stentor's protocols,
    /// and where no --header says something else. On the command line everybody could read it.
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = "Protocol")]
    pub token_file: Option<PathBuf>,
    /// With wss:// and https://: PEM file of certificates that are trusted [default: the system's]
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = "Protocol")]
    pub tls_ca: Option<PathBuf>,
    /// With wss:// and https://: trust anybody
    #[arg(long, conflicts_with = "tls_ca", hide_short_help = true, help_heading = "Protocol")]
    pub insecure: bool,
    /// With wss://: subscribers that come back (storm, churn) resume their sessions
    ///
    /// Each with its own newest ticket, so that the first handshake of each is a full one. Without it all are: what strangers cost a server.
    #[arg(long, hide_short_help = true, help_heading = "Protocol")]
    pub tls_resume: bool,
    /// Names of topics, {n} being a number [default: bench.{n}]
    #[arg(long, value_name = "TEXT", hide_short_help = true, help_heading = "Protocol")]
    pub topic: Option<String>,
    /// How long a server is given that does not confirm subscriptions
    #[arg(long, value_name = "TIME", default_value = "300ms", hide_short_help = true, help_heading = "Protocol")]
    pub settle: Span,

    // ---- Machine ---------------------------------------------------------------------------------------------------
    /// Receiving threads
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Machine")]
    pub threads: usize,
    /// Cores for them, like 1 or 1,2; keep the server off these
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = "Machine")]
    pub cores: Vec<usize>,
    /// Cores for the publishing threads, like 1 or 1,2 [default: any of --cores]
    #[arg(long, value_name = "LIST", value_delimiter = ',', hide_short_help = true, help_heading = "Machine")]
    pub publisher_core: Vec<usize>,
    /// Threads that publish, which share the topics out
    #[arg(long, value_name = "N", default_value_t = 1, hide_short_help = true, help_heading = "Machine")]
    pub publisher_threads: usize,
    /// Connections that publish, at least one for each thread
    #[arg(long, value_name = "N", default_value_t = 1, hide_short_help = true, help_heading = "Machine")]
    pub publishers: usize,
    /// Connections begun a second [default: connect 5k/s, else no limit]
    #[arg(long, value_name = "RATE", hide_short_help = true, help_heading = "Machine")]
    pub connect_rate: Option<Rate>,
    /// How long a connection may take to be set up
    #[arg(long, value_name = "TIME", default_value = "10s", hide_short_help = true, help_heading = "Machine")]
    pub timeout: Span,
    /// Source addresses [default: on loopback as many as are needed]
    #[arg(long, value_name = "LIST", value_delimiter = ',', hide_short_help = true, help_heading = "Machine")]
    pub source: Vec<IpAddr>,
    /// Have subscribers offer compression (permessage-deflate, each message by itself), inflate what comes, and compare that
    ///
    /// A server that doesn't take it up, or that keeps a window between messages, is refused. What a second's figures have as bytes is what came on
    /// the wire, as always.
    #[arg(long, conflicts_with = "bare", hide_short_help = true, help_heading = "Load")]
    pub compress: bool,
    /// The same as browsers do it: messages may refer to those before them
    ///
    /// Takes some 40 KiB for each subscriber, and a microsecond or two of the generator for each message: look whether it was the side that was full.
    #[arg(long, conflicts_with_all = ["bare", "compress"], hide_short_help = true, help_heading = "Load")]
    pub compress_context: bool,
    /// Receive buffer of each subscriber [default: the system's]
    #[arg(long, value_name = "SIZE", default_value = "0", hide_short_help = true, help_heading = "Machine")]
    pub rcvbuf: Bytes,
    /// Processes that share the subscribers
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Machine")]
    pub processes: usize,
    /// The server's process: shows its CPU per delivery and its memory
    ///
    /// With those of all processes that it has started: workers, or a shell's children.
    #[arg(long, value_name = "PID", help_heading = "Machine")]
    pub server_pid: Option<u32>,
    /// Where it tells its own counters, like http://127.0.0.1:9001/metrics: shows its sends per delivery
    ///
    /// Prometheus text, of which lines named ..._sends_total and ..._deliveries_total are read before and after the measured part.
    /// A token that the server wants to see goes into the environment, as STENTOR_ADMIN_TOKEN.
    #[arg(long, value_name = "URL", requires = "server_pid", hide_short_help = true, help_heading = "Machine")]
    pub server_metrics: Option<String>,
    /// Only count bytes and check nothing: shows what the checking costs
    #[arg(long, hide_short_help = true, help_heading = "Machine")]
    pub bare: bool,

    // ---- Session ---------------------------------------------------------------------------------------------------
    /// How often to run
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Session")]
    pub repeat: usize,
    /// Search for the highest --rate at which this holds, like 'p99<5ms'
    ///
    /// Begins at --rate [default: 100/s]. A probe is a run of --duration, or for as long as it takes to make the publications that the
    /// percentile needs, up to 60s. The rate is doubled until a probe fails, or halved until one holds; then the geometric middle is
    /// tried, until the highest that held and the lowest that failed are within 5 %. The highest is run again, and given up where it then
    /// fails. A probe with faults fails. 'delivered>95%' searches for what the server can take at all. The result is of both runs, and names
    /// the side that was saturated above it.
    #[arg(long, value_name = "CONDITION", conflicts_with_all = ["window", "against", "repeat"], help_heading = "Session")]
    pub find_max: Option<Condition>,
    /// A second server, run in turns with the first (A B A B)
    #[arg(long, value_name = "URL", help_heading = "Session")]
    pub against: Option<String>,
    /// The second server's process
    #[arg(long, value_name = "PID", requires = "against", hide_short_help = true, help_heading = "Session")]
    pub against_pid: Option<u32>,
    /// How the second server is spoken to [default: as the first]
    #[arg(long, value_enum, requires = "against", hide_short_help = true, help_heading = "Session")]
    pub against_protocol: Option<Protocol>,
    /// Where the second server's publishers connect [default: the same address]
    #[arg(long, value_name = "URL", requires = "against", hide_short_help = true, help_heading = "Session")]
    pub against_publish_url: Option<String>,
    /// Fail, with exit code 5, where a figure is so: 'p99>5ms'; repeat for several
    ///
    /// A figure, a comparison (> >= < <=) and a value with its unit; judged on all runs against the first server together. Latency: p50, p90, p99,
    /// p99.9, p99.99, max, mean. The same percentiles of other times: spread-p99 (first to last subscriber), connecting-p99, returning-p99.
    /// A second: deliveries, publications, connections, bytes; delivered, the share of what was offered a second; left, the share of bytes that compression leaves. Counts: missing, doubts. Of
    /// the server: cpu (a delivery), cores, memory, sends (a delivery). A figure that can't be given, such as p99 of fewer than 1,000 publications, fails as well, and says why.
    #[arg(long, value_name = "CONDITION", help_heading = "Session")]
    pub fail_if: Vec<Condition>,
    /// What the server is called in tables [default: its address]
    #[arg(long, value_name = "NAME", hide_short_help = true, help_heading = "Session")]
    pub name: Option<String>,
    /// Its version, for the record
    #[arg(long, value_name = "TEXT", hide_short_help = true, help_heading = "Session")]
    pub server_version: Option<String>,
    /// Which round this is, where a session is made of several commands; `sweep` pairs the runs of a round
    #[arg(long, value_name = "N", default_value_t = 1, hide_short_help = true, help_heading = "Session")]
    pub round: u32,

    // ---- Output ----------------------------------------------------------------------------------------------------
    /// Write everything as JSON, histograms included
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json: Option<PathBuf>,
    /// Write the latency distribution in HdrHistogram's percentile format
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = "Output")]
    pub hgrm: Option<PathBuf>,
    /// Write each second's histogram in HdrHistogram's log format
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = "Output")]
    pub hlog: Option<PathBuf>,
    /// Write one self-contained HTML page
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub report: Option<PathBuf>,
    /// Print the results only
    #[arg(long, short, help_heading = "Output")]
    pub quiet: bool,
}

impl Options {
    /// All settings of a run, with what was left out filled in. `captured` names the topics of a replay.
    pub fn spec(
        &self,
        scenario: Scenario,
        pace: Option<Pace>,
        disturbance: Disturbance,
        captured: Option<usize>,
    ) -> Result<Spec> {
        let (subs, rate, connect_rate) = match scenario {
            Scenario::Connect => (10_000, None, Some(Rate(5_000.0))),
            Scenario::Echo => (100, Some(Rate(1_000.0)), None),
            Scenario::Replay => (100, None, None),
            Scenario::Listen => (1, None, None),
            Scenario::Fanout => (1_000, None, None),
            Scenario::Mix => (1_000, Some(Rate(100.0)), None),
            _ => (1_000, Some(Rate(50.0)), None),
        };
        let subs = self.subs.unwrap_or(subs);
        let usual = match scenario {
            Scenario::Echo => subs,
            Scenario::Mix => 5_000,
            _ => 1,
        };
        let topics = captured.or(self.topics).unwrap_or(usual);
        ensure!(
            scenario != Scenario::Mix || (self.topics_per_sub.is_none() && self.mode == Mode::All),
            "--topics-per-sub, --mode: in a mix these are --watch-list and --latest-share"
        );
        ensure!(
            scenario != Scenario::Echo || topics == subs,
            "--topics {topics}: with echo every connection has its own; leave it out"
        );
        ensure!(
            scenario != Scenario::Echo || self.processes == 1,
            "--processes {}: echo runs in one process",
            self.processes
        );
        let every = captured.or_else(|| self.subscribe_as.as_ref().map(|_| topics));
        let pace = match pace {
            Some(pace) => pace,
            None => match self.rate.or(rate.filter(|_| self.window.is_none())) {
                Some(rate) => Pace::Rate(rate),
                None => Pace::Window(self.window.unwrap_or(256)),
            },
        };
        let file = self.dialect_file()?;
        let is_mix = scenario == Scenario::Mix;
        let payload = self.payload.unwrap_or(if is_mix { Payload::Quotes } else { Payload::Json });
        let (form, quotes) = match payload {
            Payload::Json => (Form::Json, false),
            Payload::Plain => (Form::Plain, false),
            Payload::Quotes => (Form::Json, true),
        };
        Ok(Spec {
            scenario,
            dialect: self.settings(self.protocol, self.publish_url.as_ref())?,
            tls: self.tls(),
            subs,
            topics,
            topics_per_sub: self.topics_per_sub.or(every).unwrap_or(1),
            watch_list: None,
            latest_share: None,
            publishers: self.publishers.max(self.publisher_threads),
            pace,
            rolling: self.rolling,
            duration: self.duration,
            warmup: self.warmup,
            drain: self.drain,
            timeout: self.timeout,
            settle: self.settle,
            arrivals: self.arrivals,
            topic_skew: self.topic_skew.unwrap_or(if is_mix { 1.0 } else { 0.0 }),
            size: if quotes { quotes::USUAL } else { self.mean_size() },
            sizes: self.size_mix.clone(),
            form: file.as_ref().and_then(File::form).unwrap_or(form),
            quotes,
            disturbance,
            threads: self.threads,
            apart: matches!(scenario, Scenario::Storm | Scenario::Churn | Scenario::Join),
            cores: self.cores.clone(),
            publisher_threads: self.publisher_threads,
            publisher_cores: self.publisher_core.clone(),
            connect_rate: self.connect_rate.or(connect_rate),
            heartbeat: self.heartbeat,
            sources: self.source.clone(),
            receive_buffer: self.rcvbuf.0,
            compress: self.compress,
            compress_context: self.compress_context,
            server_pid: self.server_pid,
            server_metrics: self.server_metrics.clone(),
            bare: self.bare,
            part: Part { index: 0, of: self.processes },
            seed: self.seed,
        })
    }

    /// How servers with TLS are spoken to.
    pub fn tls(&self) -> tls::Settings {
        tls::Settings { ca: self.tls_ca.clone(), insecure: self.insecure, resume: self.tls_resume }
    }

    /// Bytes of a payload, on average.
    fn mean_size(&self) -> usize {
        let weights: f64 = self.size_mix.iter().map(|one| one.weight).sum();
        let bytes: f64 = self.size_mix.iter().map(|one| one.weight * one.bytes.0 as f64).sum();
        if self.size_mix.is_empty() { self.size.0 } else { (bytes / weights).round() as usize }
    }

    /// How a server is spoken to that speaks `protocol`, and takes publications at `publish_url`.
    ///
    /// # Errors
    /// The dialect file can't be read.
    pub fn settings(&self, protocol: Protocol, publish_url: Option<&String>) -> Result<Settings> {
        let file = self.dialect_file()?;
        let topic = self.topic.clone().or_else(|| file.as_ref()?.topic.clone());
        let settings = Settings {
            protocol: if file.is_some() { Protocol::Generic } else { protocol },
            publish_url: publish_url.cloned(),
            subscribe: self.subscribe_template.clone(),
            subscribe_as: self.subscribe_as.clone(),
            unsubscribe: self.unsubscribe_template.clone(),
            publish: self.publish_template.clone(),
            greeting: self.greeting_template.clone(),
            heartbeat: self.heartbeat_template.clone(),
            ready: self.ready.clone(),
            answers: self.answer.clone(),
            binary: self.binary,
            latest: self.mode == Mode::Latest,
            latest_rate: self.latest_rate,
            headers: self.header.clone(),
            token_file: self.token_file.clone(),
            topic: topic.unwrap_or_else(|| "bench.{n}".into()),
            ..Settings::default()
        };
        Ok(file.iter().fold(settings, Settings::with))
    }

    fn dialect_file(&self) -> Result<Option<File>> {
        self.dialect.as_deref().map(File::read).transpose()
    }
}
