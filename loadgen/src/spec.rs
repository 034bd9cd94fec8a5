//! What a run is: every setting, resolved, in one value that is stored with the result.
//!
//! The command line fills it in; [`Spec::check`] holds what must be true between settings, and each refusal says what
//! was given and what would do. Nothing is guessed later: a run repeats from its stored settings.

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{
    dialect::{Dialect, Protocol, Settings},
    inflate::Offer,
    stamp::Form,
    tls,
    units::{Among, Bytes, Rate, Share, Span, Weighted},
};

/// The question that a run answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Scenario {
    Fanout,
    Connect,
    Churn,
    Slow,
    Burst,
    Storm,
    Join,
    Replay,
    Mix,
    Echo,
    Listen,
}

/// How the publications of a rate follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// At the same distances
    #[default]
    Even,
    /// Independently of each other: a Poisson process
    Poisson,
    /// In groups that are due at one moment, of ten on average; groups come independently of each other
    Bursty,
}

/// When publications are due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// Nothing is published.
    Silent,
    /// So many a second; how they follow each other is [`Arrivals`].
    Rate(Rate),
    /// As many as go, with at most so many not yet delivered to everybody.
    Window(usize),
    /// `rate` a second, and `burst` a second for `length` at the end of `every`.
    Bursts {
        /// Publications a second between bursts.
        rate: Rate,
        /// Publications a second within.
        burst: Rate,
        /// From the start of one burst to the next.
        every: Span,
        /// How long a burst lasts.
        length: Span,
    },
    /// At a captured file's own timing, so many times faster.
    Replay {
        /// The captured file.
        file: PathBuf,
        /// 2 is twice as fast.
        speed: f64,
    },
}

/// Something done to a share of the subscribers while the others are measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disturbance {
    /// None.
    None,
    /// From the middle of the run on, in a mix all the time, they read only so many bytes a second; 0 is nothing at all.
    Slow {
        /// How many of the subscribers.
        share: Share,
        /// Bytes a second that each still reads.
        read: Bytes,
    },
    /// They leave and return, so many times a second in all.
    Churn {
        /// How many of the subscribers.
        share: Share,
        /// Departures a second.
        rate: Rate,
    },
    /// They connect only in the second half of the run, evenly.
    Join {
        /// How many of the subscribers.
        share: Share,
    },
    /// In the middle of the run all of them are cut off and reconnect at once.
    Storm {
        /// How many of the subscribers.
        share: Share,
    },
}

/// One process's part of a run that several processes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which, from 0; part 0 publishes.
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

fn one() -> usize {
    1
}

/// Every setting of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The question.
    pub scenario: Scenario,
    /// How the server is spoken to.
    pub dialect: Settings,
    /// With TLS, how.
    #[serde(default)]
    pub tls: tls::Settings,
    /// Subscribers, over all parts.
    pub subs: usize,
    /// Topics.
    pub topics: usize,
    /// Topics of each subscriber; where each has a list of its own, their mean.
    pub topics_per_sub: usize,
    /// Each subscriber has a list of its own, of so many topics; none where all have as many, one behind the other.
    #[serde(default)]
    pub watch_list: Option<Among>,
    /// So many of the subscribers are content with newest values; none where the dialect says it for all.
    #[serde(default)]
    pub latest_share: Option<Share>,
    /// Connections that publish.
    pub publishers: usize,
    /// When publications are due.
    pub pace: Pace,
    /// Of a window: it is counted in deliveries, and not in publications that everybody has.
    #[serde(default)]
    pub rolling: bool,
    /// Measured time.
    pub duration: Span,
    /// Time before it that is not measured.
    pub warmup: Span,
    /// How long stragglers are waited for at the end.
    pub drain: Span,
    /// How long a connection may take to be set up.
    pub timeout: Span,
    /// How long servers are given that do not acknowledge subscriptions.
    pub settle: Span,
    /// How the publications of a rate follow each other.
    #[serde(default)]
    pub arrivals: Arrivals,
    /// Exponent of Zipf's law by which publications are spread over topics; 0 is evenly.
    #[serde(default)]
    pub topic_skew: f64,
    /// Bytes of each payload; of a mix of sizes, and of quotes, the mean.
    pub size: usize,
    /// Sizes of payloads that come in a mix; none where all have the same.
    #[serde(default)]
    pub sizes: Vec<Weighted>,
    /// Shape of the payloads.
    pub form: Form,
    /// They are quotes, of the sizes that those have, and not letters.
    #[serde(default)]
    pub quotes: bool,
    /// What happens to some of the subscribers.
    pub disturbance: Disturbance,
    /// Event-loop threads.
    pub threads: usize,
    /// Those who are disturbed have a further one of their own, so that what setting them up costs the generator is in nobody else's latencies.
    #[serde(default)]
    pub apart: bool,
    /// Cores for them, in turn; none leaves them where the system puts them.
    pub cores: Vec<usize>,
    /// Threads that publish.
    #[serde(default = "one")]
    pub publisher_threads: usize,
    /// Cores for those, in turn; none leaves them on the receivers'.
    #[serde(default)]
    pub publisher_cores: Vec<usize>,
    /// Connections begun a second; none for as fast as it goes.
    pub connect_rate: Option<Rate>,
    /// How often each subscriber shows that it is there; none for never.
    #[serde(default)]
    pub heartbeat: Option<Span>,
    /// Source addresses; none for a choice of its own.
    pub sources: Vec<IpAddr>,
    /// `SO_RCVBUF` of each subscriber; 0 leaves it to the system.
    pub receive_buffer: usize,
    /// Subscribers offer compression, and are not content without.
    #[serde(default)]
    pub compress: bool,
    /// The same, where messages may refer to those before them.
    #[serde(default)]
    pub compress_context: bool,
    /// Process whose processor time and memory are the server's.
    pub server_pid: Option<u32>,
    /// Where that process tells its own counters.
    #[serde(default)]
    pub server_metrics: Option<String>,
    /// Only count bytes, check nothing: shows what checking costs.
    pub bare: bool,
    /// Which part of the run this process is.
    pub part: Part,
    /// What random choices are made from.
    pub seed: u64,
}

impl Spec {
    /// What subscribers offer of compression.
    pub fn offer(&self) -> Option<Offer> {
        match (self.compress_context, self.compress) {
            (true, _) => Some(Offer::Context),
            (false, true) => Some(Offer::Single),
            (false, false) => None,
        }
    }

    /// Receiving threads: those of all, and of the disturbed where these have one of their own, which is the last.
    pub fn receivers(&self) -> usize {
        self.threads + usize::from(self.apart)
    }

    /// Whether publications have planned moments of sending.
    pub fn is_open_loop(&self) -> bool {
        !matches!(self.pace, Pace::Window(_) | Pace::Silent)
    }

    /// Refuses settings that cannot be met.
    pub fn check(&self, dialect: &Dialect) -> Result<()> {
        ensure!(self.subs > 0, "--subs 0: at least 1 subscriber is needed");
        ensure!(self.threads > 0, "--threads 0: at least 1 is needed");
        ensure!(self.topics > 0 && self.topics <= 65_535, "--topics {}: from 1 to 65535 are possible", self.topics);
        ensure!(
            (1..=self.topics).contains(&self.topics_per_sub),
            "--topics-per-sub {}: from 1 to --topics {} are possible",
            self.topics_per_sub,
            self.topics
        );
        if let Some(Among { from, to }) = self.watch_list {
            let topics = self.topics;
            ensure!(from >= 1 && to <= topics, "--watch-list {from}..{to}: from 1 to --topics {topics} are possible");
        }
        ensure!(
            self.dialect.subscribe_as.is_none() || self.topics_per_sub == self.topics,
            "--topics-per-sub {}: with --subscribe-as every subscriber has all {} topics; leave it out",
            self.topics_per_sub,
            self.topics
        );
        ensure!(self.publishers > 0, "--publishers 0: at least 1 is needed");
        ensure!(
            (1..=self.topics).contains(&self.publisher_threads),
            "--publisher-threads {}: from 1 to --topics {} are possible, since a topic's publications go out in order",
            self.publisher_threads,
            self.topics
        );
        ensure!(
            self.publisher_threads == 1 || !matches!(self.pace, Pace::Window(_)),
            "--publisher-threads {}: it needs --rate; a window is one thread's",
            self.publisher_threads
        );
        ensure!(self.heartbeat != Some(Span(0)), "--heartbeat 0s: a time above 0 is needed");
        self.check_payload()?;
        self.check_dialect(dialect)?;
        self.check_pace()
    }

    fn check_payload(&self) -> Result<()> {
        let smallest = self.form.smallest();
        let flag = if self.sizes.is_empty() { "--size" } else { "--size-mix" };
        for size in self.sizes.iter().map(|one| one.bytes.0).chain(self.sizes.is_empty().then_some(self.size)) {
            ensure!(
                size >= smallest,
                "{flag} {size}: too small for its stamp; {smallest} bytes would do{}",
                if self.form == Form::Json { ", or 84 with --payload plain" } else { "" }
            );
            ensure!(size <= 64 << 20, "{flag} {}: at most 64MiB are possible", Bytes(size));
        }
        ensure!(
            !self.bare || (self.sizes.is_empty() && !self.quotes),
            "--size-mix, --payload quotes: with --bare all have one size, by which they are counted"
        );
        ensure!(
            !self.quotes || self.sizes.is_empty(),
            "--size-mix: quotes have the sizes that they have; leave it out, or take --payload json"
        );
        Ok(())
    }

    fn check_dialect(&self, dialect: &Dialect) -> Result<()> {
        let (largest, most) =
            (self.sizes.iter().map(|one| one.bytes.0).max().unwrap_or(self.size), dialect.payload_max());
        ensure!(
            largest <= most,
            "--size {}: the length that is said of a payload holds at most {most} bytes",
            Bytes(largest)
        );
        ensure!(
            self.topics_per_sub == 1 || !dialect.one_topic_per_subscriber(),
            "--topics-per-sub {}: the address names the topic, so a connection has 1",
            self.topics_per_sub
        );
        ensure!(
            self.form == Form::Json || !matches!(self.dialect.protocol, Protocol::Stentor | Protocol::Poll),
            "--payload plain: Stentor's JSON protocol carries JSON; leave it out, or take --protocol raw"
        );
        let publishes = !matches!(self.pace, Pace::Silent);
        ensure!(
            !publishes || !self.dialect.listens_only,
            "--dialect: the file has no `publish`, so it is to `listen` and to `connect` with"
        );
        ensure!(
            !publishes || self.dialect.sign.is_none() || dialect.publishes_by_http(),
            "publications of this dialect are signed requests: say where by --publish-url http://HOST:PORT"
        );
        let only_polls = dialect.polls() && (self.bare || self.echoes() || self.heartbeat.is_some());
        ensure!(!only_polls, "--protocol poll: there is no --bare, no echo and no --heartbeat of a poll");
        ensure!(!dialect.polls() || self.dialect.latest_rate.is_none(), "--latest-rate: a poll has none");
        ensure!(
            self.latest_share.is_none_or(|share| share.0 == 0.0) || self.dialect.protocol == Protocol::Stentor,
            "--latest-share: only --protocol stentor says for each connection in which mode it is; give --latest-share 0"
        );
        if let Some(rate) = self.dialect.latest_rate {
            ensure!(rate > 0.0 && rate.is_finite(), "--latest-rate {rate}: a number above 0 is needed");
            ensure!(self.dialect.latest, "--latest-rate {rate}: it needs --mode latest");
        }
        Ok(())
    }

    fn check_pace(&self) -> Result<()> {
        let skew = self.topic_skew;
        ensure!((0.0..=10.0).contains(&skew), "--topic-skew {skew}: from 0 to 10 is possible");
        ensure!(skew == 0.0 || self.topics > 1, "--topic-skew {skew}: there is one topic; give more with --topics");
        ensure!(
            self.arrivals == Arrivals::Even || matches!(self.pace, Pace::Rate(_)),
            "--arrivals: they are of publications that come at a steady --rate; this run has none"
        );
        let windowed = matches!(self.pace, Pace::Window(_));
        ensure!(
            windowed || !self.rolling,
            "--rolling: it is a window that rolls; leave out --rate, and take fanout or echo"
        );
        match &self.pace {
            Pace::Window(window) => {
                ensure!((1..=1 << 20).contains(window), "--window {window}: from 1 to 1048576 are possible");
                ensure!(
                    self.part.of == 1,
                    "--processes needs --rate: without one, a window would have to span processes"
                );
                ensure!(!self.bare, "--bare needs --rate: who only counts bytes cannot tell when a window has moved");
                ensure!(!self.dialect.latest, "--mode latest needs --rate: a window counts every delivery");
                ensure!(
                    matches!(self.disturbance, Disturbance::None),
                    "this scenario needs --rate: a window would wait for the subscribers that are disturbed"
                );
            }
            Pace::Bursts { every, length, .. } => {
                ensure!(length < every, "--burst-length {length}: it must be shorter than --burst-every {every}")
            }
            Pace::Replay { .. } if !self.sizes.is_empty() || self.topic_skew > 0.0 || self.quotes => {
                bail!(
                    "--size-mix, --topic-skew, --payload quotes: what is replayed has its own payloads and topics; leave them out"
                )
            }
            Pace::Replay { speed, .. } => ensure!(*speed > 0.0, "--speed {speed}: a factor above 0 is needed"),
            Pace::Silent | Pace::Rate(_) => {}
        }
        Ok(())
    }

    /// Subscribers of this part, and how many are in the parts before it.
    pub fn share_of_subs(&self) -> (usize, usize) {
        let upto = |index: usize| self.subs * index / self.part.of;
        let first = upto(self.part.index);
        (first, upto(self.part.index + 1) - first)
    }

    /// Whether the `nth` subscriber (over all parts) is one of those that are disturbed; they are spread evenly.
    pub fn disturbs(&self, nth: usize) -> bool {
        let share = match self.disturbance {
            Disturbance::None => return false,
            Disturbance::Slow { share, .. } | Disturbance::Churn { share, .. } => share,
            Disturbance::Storm { share } | Disturbance::Join { share } => share,
        };
        let count = share.of(self.subs);
        (nth + 1) * count / self.subs > nth * count / self.subs
    }

    /// Whether the `nth` subscriber connects only when the others are measured.
    pub fn joins_late(&self, nth: usize) -> bool {
        matches!(self.disturbance, Disturbance::Join { .. }) && self.disturbs(nth)
    }

    /// The core of a receiving thread, where they have any: the threads of all parts take turns.
    pub fn core_of(&self, thread: usize) -> Option<usize> {
        let nth = self.part.index * self.receivers() + thread;
        self.cores.get(nth % self.cores.len().max(1)).copied()
    }

    /// `SO_RCVBUF` of the `nth` subscriber; 0 leaves it to the system. Who is slow in a mix is so because little fits on its way.
    pub fn receive_buffer_of(&self, nth: usize) -> usize {
        let is_slow = self.scenario == Scenario::Mix && self.disturbs(nth);
        if is_slow && self.receive_buffer == 0 { SLOW_RECEIVE_BUFFER } else { self.receive_buffer }
    }

    /// Whether the connection that receives is the one that sends.
    pub fn echoes(&self) -> bool {
        self.scenario == Scenario::Echo
    }
}

/// Of subscribers that are slow in a mix: some ten packets.
const SLOW_RECEIVE_BUFFER: usize = 16 * 1024;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Settings for tests to change.
    pub fn sample() -> Spec {
        Spec {
            scenario: Scenario::Fanout,
            dialect: Settings { protocol: Protocol::Raw, topic: "t{n}".into(), ..Settings::default() },
            tls: tls::Settings::default(),
            subs: 10,
            topics: 1,
            topics_per_sub: 1,
            watch_list: None,
            latest_share: None,
            publishers: 1,
            pace: Pace::Rate(Rate(100.0)),
            rolling: false,
            duration: Span::s(1),
            warmup: Span::ms(200),
            drain: Span::s(5),
            timeout: Span::s(5),
            settle: Span::ms(50),
            arrivals: Arrivals::Even,
            topic_skew: 0.0,
            size: 128,
            sizes: Vec::new(),
            form: Form::Json,
            quotes: false,
            disturbance: Disturbance::None,
            threads: 1,
            apart: false,
            cores: Vec::new(),
            publisher_threads: 1,
            publisher_cores: Vec::new(),
            connect_rate: None,
            heartbeat: None,
            sources: Vec::new(),
            receive_buffer: 0,
            compress: false,
            compress_context: false,
            server_pid: None,
            server_metrics: None,
            bare: false,
            part: Part { index: 0, of: 1 },
            seed: 1,
        }
    }

    fn refusal(change: impl FnOnce(&mut Spec)) -> String {
        let mut spec = sample();
        change(&mut spec);
        let dialect = Dialect::new("ws://127.0.0.1:1", spec.dialect.clone(), spec.form, vec!["t0".into()]).unwrap();
        spec.check(&dialect).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_met_is_refused_with_what_would_do() {
        assert!(refusal(|spec| spec.size = 50).contains("92 bytes would do"));
        assert!(refusal(|spec| spec.topics_per_sub = 2).contains("from 1 to --topics 1"));
        assert!(refusal(|spec| spec.subs = 0).contains("at least 1"));
        assert!(refusal(|spec| spec.pace = Pace::Window(0)).contains("1048576"));
        let few_of_all = refusal(|spec| {
            (spec.topics, spec.topics_per_sub, spec.dialect.subscribe_as) = (4, 2, Some(">".into()));
        });
        assert!(few_of_all.contains("has all 4 topics"), "{few_of_all}");
        let rate = refusal(|spec| spec.dialect.latest_rate = Some(4.0));
        assert!(rate.contains("needs --mode latest"), "{rate}");
        let rate = refusal(|spec| (spec.dialect.latest, spec.dialect.latest_rate) = (true, Some(0.0)));
        assert!(rate.contains("above 0"), "{rate}");
        let raw_many = refusal(|spec| (spec.topics, spec.topics_per_sub) = (4, 2));
        assert!(raw_many.contains("a connection has 1"), "{raw_many}");
        let mix = |sizes: &[usize]| sizes.iter().map(|size| Weighted { bytes: Bytes(*size), weight: 1.0 }).collect();
        assert!(refusal(|spec| spec.sizes = mix(&[128, 50])).contains("--size-mix 50: too small"));
        assert!(refusal(|spec| (spec.sizes, spec.bare) = (mix(&[128]), true)).contains("with --bare"));
        assert!(refusal(|spec| (spec.quotes, spec.bare) = (true, true)).contains("with --bare"));
        assert!(refusal(|spec| (spec.sizes, spec.quotes) = (mix(&[128]), true)).contains("quotes have the sizes"));
        assert!(refusal(|spec| spec.watch_list = Some(Among { from: 1, to: 2 })).contains("from 1 to --topics 1"));
        assert!(refusal(|spec| spec.latest_share = Some(Share(0.5))).contains("--latest-share 0"));
        assert!(refusal(|spec| spec.topic_skew = 1.0).contains("give more with --topics"));
        assert!(refusal(|spec| spec.topic_skew = f64::NAN).contains("from 0 to 10"));
        let arrivals = refusal(|spec| (spec.arrivals, spec.pace) = (Arrivals::Poisson, Pace::Window(4)));
        assert!(arrivals.contains("steady --rate"), "{arrivals}");
        let windowed = |spec: &mut Spec| {
            spec.pace = Pace::Window(1);
            spec.disturbance = Disturbance::Storm { share: Share(1.0) };
        };
        assert!(refusal(windowed).contains("needs --rate"));
    }

    #[test]
    fn the_disturbed_are_as_many_as_asked_for_and_spread() {
        let spec = Spec { subs: 100, disturbance: Disturbance::Storm { share: Share(0.1) }, ..sample() };
        let disturbed: Vec<usize> = (0..100).filter(|&nth| spec.disturbs(nth)).collect();
        assert_eq!(disturbed.len(), 10);
        assert!(disturbed.windows(2).all(|pair| pair[1] - pair[0] == 10));
    }

    #[test]
    fn threads_of_all_parts_take_turns_on_the_cores() {
        let core = |index: usize, thread: usize| {
            Spec { part: Part { index, of: 2 }, threads: 2, cores: vec![4, 5, 6], ..sample() }.core_of(thread)
        };
        assert_eq!([core(0, 0), core(0, 1), core(1, 0), core(1, 1)], [Some(4), Some(5), Some(6), Some(4)]);
        assert_eq!(sample().core_of(0), None);
    }

    #[test]
    fn parts_share_all_subscribers_without_overlap() {
        let shares: Vec<(usize, usize)> =
            (0..3).map(|index| Spec { part: Part { index, of: 3 }, ..sample() }.share_of_subs()).collect();
        assert_eq!(shares, [(0, 3), (3, 3), (6, 4)]);
    }
}
