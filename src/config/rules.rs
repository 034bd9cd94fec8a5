//! The rules that settings must keep, each a line with its flag or a function with its sentence.
//!
//! They are asked in order, and the first that is broken is what the operator is told: ranges first, so that what the relations
//! compute can't overflow. A relation between two settings can be broken only by two that were both set, since what wasn't set has
//! followed (`follow.rs`): so each names both, with what they were given as.

use std::{path::PathBuf, time::Duration};

use bytesize::ByteSize;

use super::{Config, Exactly, Pin, SYMBOLS_MAX, Shown, Span, page::Named};
use crate::counted::counted;

/// A rule, and how to find what it is about.
pub(super) enum Rule {
    /// A number from the least to the most.
    Count { flag: &'static str, of: fn(&Config) -> u64, least: u64, most: u64 },
    /// A size from the least to the most.
    Size { flag: &'static str, of: fn(&Config) -> ByteSize, least: ByteSize, most: ByteSize },
    /// A size that is zero for no limit, or from the least to the most.
    NoneOr { flag: &'static str, of: fn(&Config) -> ByteSize, least: ByteSize, most: ByteSize },
    /// A time that is zero for never, or no shorter than this.
    NeverOr { flag: &'static str, of: fn(&Config) -> Span, least: Span },
    /// A time that is more than zero.
    Lasts { flag: &'static str, of: fn(&Config) -> Span },
    /// A time that is no longer than this.
    Within { flag: &'static str, of: fn(&Config) -> Span, most: Span },
    /// Anything else: returns what is wrong.
    Other(fn(&Config) -> Option<String>),
}

impl Rule {
    /// # Errors
    /// It is broken: the sentence for the operator.
    pub(super) fn check(&self, config: &Config) -> Result<(), String> {
        let wrong = match *self {
            Rule::Count { flag, of, least, most } => {
                let given = of(config);
                let fits = (least..=most).contains(&given);
                (!fits).then(|| format!("{flag} was given as {given}: it must be from {least} to {most}"))
            }
            Rule::Size { flag, of, least, most } => {
                let given = of(config);
                let fits = (least..=most).contains(&given);
                let [given, least, most] = [given, least, most].map(Exactly);
                (!fits).then(|| format!("{flag} was given as {given}: it must be from {least} to {most}"))
            }
            Rule::NoneOr { flag, of, least, most } => {
                let given = of(config);
                let fits = given == NONE || (least..=most).contains(&given);
                let [given, least, most] = [given, least, most].map(Exactly);
                (!fits)
                    .then(|| format!("{flag} was given as {given}: it must be 0 (no limit), or from {least} to {most}"))
            }
            Rule::NeverOr { flag, of, least } => {
                let given = of(config);
                let fits = given.is_zero() || given >= least;
                (!fits).then(|| format!("{flag} was given as {given}: it must be 0s (never) or at least {least}"))
            }
            Rule::Lasts { flag, of } => {
                of(config).is_zero().then(|| format!("{flag} was given as 0s: it must be more than that"))
            }
            Rule::Within { flag, of, most } => {
                let given = of(config);
                (given > most).then(|| format!("{flag} was given as {given}: it must be at most {most}"))
            }
            Rule::Other(wrong) => wrong(config),
        };
        wrong.map_or(Ok(()), Err)
    }
}

/// What a descriptor or a name can be numbered with, for numbers that seem to have no bound.
pub(super) const NUMBERED: u64 = i32::MAX as u64;

const NONE: ByteSize = ByteSize::b(0);
const MOST: ByteSize = ByteSize::pib(1);

/// The least segment.
pub(super) const SEGMENT_MIN: ByteSize = ByteSize::kib(64);

/// The least room for messages: one of a KiB, and what it takes beside.
const ROOM_MIN: ByteSize = ByteSize::b(MESSAGE_BESIDE + 1024);

/// Every number and every size, with the least and the most that it may be. Beyond these bounds memory is reserved that there is
/// not, or sums overflow.
pub(super) const RANGES: &[Rule] = &[
    count("--acceptors", |c| wide(c.acceptors), 1, 1024),
    count("--workers", |c| wide(c.workers.unwrap_or(1)), 1, 4096),
    count("--backlog", |c| c.backlog.into(), 1, NUMBERED),
    count("--inbox", |c| wide(c.inbox), 1, 1 << 20),
    count("--handshakes", |c| wide(c.handshakes), 1, 1 << 20),
    count("--handshake-threads", |c| wide(c.handshake_threads), 1, 1024),
    count("--max-connections", |c| wide(c.max_connections), 1, NUMBERED),
    count("--max-connections-per-ip", |c| share(c.max_connections_per_ip), 0, NUMBERED),
    count("--max-topics-per-ip", |c| share(c.max_topics_per_ip), 0, NUMBERED),
    count("--max-topics-per-holder", |c| share(c.max_topics_per_holder), 0, NUMBERED),
    count("--max-subscriptions-per-ip", |c| share(c.max_subscriptions_per_ip), 0, NUMBERED),
    count("--ipv6-prefix", |c| c.ipv6_prefix.into(), 1, 128),
    count("--max-http-connections", |c| wide(c.max_http_connections), 1, NUMBERED),
    // The least that browsers send, with what proxies add.
    count("--max-headers", |c| wide(c.max_headers), 32, 1024),
    count("--max-topics", |c| wide(c.max_topics), 1, 1 << 24),
    count("--max-subscriptions", |c| wide(c.max_subscriptions), 1, NUMBERED),
    count("--max-subscriptions-total", |c| wide(c.max_subscriptions_total), 1, NUMBERED),
    count("--max-topic-length", |c| wide(c.max_topic_length), 1, 1024),
    count("--slow-list", |c| wide(c.slow_list), 0, 1000),
    count("--turn-sends", |c| wide(c.turn_sends), 1, 1_000_000),
    count("--audit-files", |c| wide(c.audit_files), 1, 1000),
    // From ten microseconds to ten seconds.
    count("--turn-work", |c| c.turn_work, 1000, 1_000_000_000),
    count("--compression-window", |c| c.compression_window.into(), 9, 15),
    count("--compression-min-members", |c| wide(c.compression_min_members), 1, NUMBERED),
    count("--compression-streams", |c| wide(c.compression_streams), 0, 4096),
    // A segment of the largest frames.
    count("--compression-min-bytes", |c| c.compression_min_bytes.into(), 0, 1 << 20),
    // A second.
    count("--spin", |c| c.spin, 0, 1_000_000),
    count("--demo-symbols", |c| wide(c.demo_symbols), 1, SYMBOLS_MAX as u64),
    // Two segments.
    size("--retain", |c| c.retain, ByteSize::b(2 * SEGMENT_MIN.0), MOST),
    size("--compression-memory", |c| c.compression_memory, NONE, MOST),
    size("--max-lead", |c| c.max_lead, NONE, MOST),
    size("--lag-limit", |c| c.lag_limit, NONE, MOST),
    size("--segment", |c| c.segment, SEGMENT_MIN, ByteSize::gib(1)),
    size("--sndbuf", |c| c.sndbuf, NONE, ByteSize::gib(1)),
    size("--rcvbuf", |c| c.rcvbuf, NONE, ByteSize::gib(1)),
    size("--max-message", |c| c.max_message, ByteSize::b(1), ByteSize::mib(512)),
    size("--max-replay-message", |c| c.max_replay_message, ByteSize::kib(1), ByteSize::mib(512)),
    size("--max-body", |c| c.max_body, ByteSize::b(1), ByteSize::tib(1)),
    size("--max-head", |c| c.max_head, ByteSize::b(512), ByteSize::mib(1)),
    count("--token-cache", |c| wide(c.token_cache), 0, 1 << 24),
    count("--max-revoked", |c| wide(c.max_revoked), 0, 1 << 24),
    size("--max-token", |c| c.max_token, ByteSize::b(64), ByteSize::kib(512)),
    size("--max-values", |c| c.max_values, NONE, MOST),
    size("--max-values-per-ip", |c| c.max_values_per_ip.unwrap_or(NONE), NONE, MOST),
    size("--max-assembly", |c| c.max_assembly, ROOM_MIN, MOST),
    room("--max-assembly-per-ip", |c| c.max_assembly_per_ip.unwrap_or(NONE)),
    size("--max-held", |c| c.max_held, ByteSize::mib(1), MOST),
    room("--max-held-per-ip", |c| c.max_held_per_ip.unwrap_or(NONE)),
    size("--max-pending", |c| c.max_pending, ByteSize::kib(64), ByteSize::gib(1)),
    size("--max-http-pending", |c| c.max_http_pending, ByteSize::mib(4), ByteSize::gib(16)),
    size("--tls-buffers", |c| c.tls_buffers, ByteSize::mib(1), MOST),
    Rule::NoneOr { flag: "--audit-size", of: |c| c.audit_size, least: ByteSize::mib(1), most: MOST },
    Rule::NoneOr { flag: "--audit-limit", of: |c| c.audit_limit, least: ByteSize::kib(1), most: MOST },
    size("--audit-queue", |c| c.audit_queue, ByteSize::kib(64), ByteSize::gib(4)),
    size("--min-http-rate", |c| c.min_http_rate, NONE, ByteSize::mib(1)),
];

/// What holds between settings, and what is no range.
pub(super) const RELATIONS: &[Rule] = &[
    Rule::Other(somewhere_is_listened),
    Rule::Other(each_certificate_has_its_key),
    Rule::Other(tls_has_a_certificate),
    Rule::Other(a_certificate_is_for_tls),
    Rule::Other(clients_certificates_are_for_tls),
    Rule::Other(challenges_have_a_folder),
    Rule::Other(a_message_fits_a_segment),
    Rule::Other(a_replayed_message_fits_a_segment),
    Rule::Other(the_tape_holds_two_messages),
    Rule::Other(the_tape_holds_two_replayed_messages),
    Rule::Other(the_tape_holds_two_segments),
    Rule::Other(a_message_can_be_assembled),
    Rule::Other(a_message_can_be_held),
    Rule::Other(one_connection_has_no_more_names_than_all),
    Rule::Other(each_worker_has_a_core),
    Rule::NeverOr { flag: "--heartbeat", of: |c| c.heartbeat, least: SECOND },
    Rule::NeverOr { flag: "--idle-timeout", of: |c| c.idle_timeout, least: SECOND },
    Rule::NeverOr { flag: "--stall-limit", of: |c| c.stall_limit, least: SECOND },
    Rule::Lasts { flag: "--handshake-timeout", of: |c| c.handshake_timeout },
    Rule::Lasts { flag: "--auth-timeout", of: |c| c.auth_timeout },
    Rule::Within { flag: "--jwt-leeway", of: |c| c.jwt_leeway, most: Span::new(Duration::from_secs(300)) },
    Rule::Lasts { flag: "--close-timeout", of: |c| c.close_timeout },
    Rule::Lasts { flag: "--keep-alive-timeout", of: |c| c.keep_alive_timeout },
    Rule::NeverOr { flag: "--topic-expiry", of: |c| c.topic_expiry, least: Span::new(Duration::from_secs(60)) },
    Rule::Within { flag: "--flush-interval", of: |c| c.flush_interval, most: Span::new(Duration::from_secs(10)) },
    Rule::Other(origins_look_like_origins),
    Rule::Other(tokens_are_for_somebody),
    Rule::Other(a_head_holds_a_token),
    Rule::Other(the_proxy_protocol_has_proxies),
    Rule::Other(a_loop_has_a_replay),
    Rule::Other(private_topics_are_few_patterns),
];

const SECOND: Span = Span::new(Duration::from_secs(1));

const fn count(flag: &'static str, of: fn(&Config) -> u64, least: u64, most: u64) -> Rule {
    Rule::Count { flag, of, least, most }
}

const fn size(flag: &'static str, of: fn(&Config) -> ByteSize, least: ByteSize, most: ByteSize) -> Rule {
    Rule::Size { flag, of, least, most }
}

/// Room for the messages of one address.
const fn room(flag: &'static str, of: fn(&Config) -> ByteSize) -> Rule {
    Rule::NoneOr { flag, of, least: ROOM_MIN, most: MOST }
}

fn wide(n: usize) -> u64 {
    n as u64
}

fn share(n: Option<usize>) -> u64 {
    n.map_or(0, wide)
}

fn somewhere_is_listened(c: &Config) -> Option<String> {
    (c.listen.is_empty() && c.tls_listen.is_empty()).then(|| {
        "--listen names no address, and there is no --tls-listen: give at least one, such as 127.0.0.1:9001".into()
    })
}

fn each_certificate_has_its_key(c: &Config) -> Option<String> {
    let (certs, keys) = (c.tls_cert.len(), c.tls_key.len());
    let without = |flag: &str, files: &[PathBuf], other: &str, others: usize| {
        let file = files.get(others)?.display();
        Some(format!(
            "{flag} {file} has no {other}: each {flag} needs one, in the same order, and there {} of {}",
            if others == 1 { "is 1".to_owned() } else { format!("are {others}") },
            files.len()
        ))
    };
    without("--tls-cert", &c.tls_cert, "--tls-key", keys)
        .or_else(|| without("--tls-key", &c.tls_key, "--tls-cert", certs))
}

fn tls_has_a_certificate(c: &Config) -> Option<String> {
    let address = c.tls_listen.first().filter(|_| c.tls_cert.is_empty() && c.tls_self_signed.is_none())?;
    Some(format!(
        "--tls-listen {} has no certificate: name one with --tls-cert and --tls-key, or make one for trying out with \
         --tls-self-signed DIR",
        Shown(*address)
    ))
}

fn a_certificate_is_for_tls(c: &Config) -> Option<String> {
    let cert = c.tls_cert.first().map(|file| ("--tls-cert", file));
    let (flag, path) = cert.or(c.tls_self_signed.as_ref().map(|dir| ("--tls-self-signed", dir)))?;
    c.tls_listen.is_empty().then(|| {
        format!(
            "{flag} {} was given, and nothing listens for TLS: name an address with --tls-listen, such as 0.0.0.0:443, or \
             call a passed socket tls (FileDescriptorName=)",
            path.display()
        )
    })
}

fn clients_certificates_are_for_tls(c: &Config) -> Option<String> {
    match (&c.tls_client_ca, c.tls_client_crl.first()) {
        (Some(file), _) if c.tls_listen.is_empty() => Some(format!(
            "--tls-client-ca {} was given, and nothing listens for TLS: name an address with --tls-listen, such as 0.0.0.0:443",
            file.display()
        )),
        (None, Some(file)) => Some(format!(
            "--tls-client-crl {} was given without --tls-client-ca: name the authorities that sign clients' certificates",
            file.display()
        )),
        _ => None,
    }
}

fn challenges_have_a_folder(c: &Config) -> Option<String> {
    match (&c.acme_listen, &c.acme_webroot) {
        (Some(address), None) => Some(format!(
            "--acme-listen {} was given without --acme-webroot: name the folder into which the ACME client puts its files",
            Shown(*address)
        )),
        (None, Some(dir)) => Some(format!(
            "--acme-webroot {} was given without --acme-listen: name where challenges come in, such as :80",
            dir.display()
        )),
        _ => None,
    }
}

fn a_message_fits_a_segment(c: &Config) -> Option<String> {
    fits_a_segment(c, "--max-message", c.max_message)
}

fn a_replayed_message_fits_a_segment(c: &Config) -> Option<String> {
    c.replay.as_ref().and_then(|_| fits_a_segment(c, "--max-replay-message", c.max_replay_message))
}

fn fits_a_segment(c: &Config, flag: &str, message: ByteSize) -> Option<String> {
    let [given, segment] = [message, c.segment].map(Exactly);
    (message > c.segment).then(|| {
        format!(
            "{flag} {given} does not fit into --segment {segment}: raise --segment to at least {given}, or lower {flag}"
        )
    })
}

fn the_tape_holds_two_messages(c: &Config) -> Option<String> {
    tape_holds_two(c, "messages of --max-message", c.max_message, "--max-message")
}

fn the_tape_holds_two_replayed_messages(c: &Config) -> Option<String> {
    let flag = "--max-replay-message";
    c.replay.as_ref().and_then(|_| tape_holds_two(c, "messages of --max-replay-message", c.max_replay_message, flag))
}

fn the_tape_holds_two_segments(c: &Config) -> Option<String> {
    tape_holds_two(c, "segments of --segment", c.segment, "--segment")
}

fn tape_holds_two(c: &Config, what: &str, size: ByteSize, flag: &str) -> Option<String> {
    let two = ByteSize::b(size.as_u64().saturating_mul(2));
    let [retain, size, least] = [c.retain, size, two].map(Exactly);
    (c.retain < two).then(|| {
        format!("--retain {retain} holds fewer than two {what} {size}: raise it to at least {least}, or lower {flag}")
    })
}

/// What an unfinished message takes beside its bytes, and more.
pub(super) const MESSAGE_BESIDE: u64 = 1024;

fn a_message_can_be_assembled(c: &Config) -> Option<String> {
    holds_a_message(c, "--max-assembly", c.max_assembly)
        .or_else(|| one_address_holds_a_message(c, "--max-assembly-per-ip", c.max_assembly_per_ip))
}

fn a_message_can_be_held(c: &Config) -> Option<String> {
    holds_a_message(c, "--max-held", c.max_held)
        .or_else(|| one_address_holds_a_message(c, "--max-held-per-ip", c.max_held_per_ip))
}

/// What wasn't set is as much as one message in any case.
fn one_address_holds_a_message(c: &Config, flag: &str, given: Option<ByteSize>) -> Option<String> {
    holds_a_message(c, flag, given.filter(|given| *given > NONE)?)
}

fn holds_a_message(c: &Config, flag: &str, given: ByteSize) -> Option<String> {
    let least = ByteSize::b(c.message_room());
    let [shown, message, enough] = [given, c.max_message, least].map(Exactly);
    (given < least).then(|| {
        format!(
            "{flag} {shown} does not hold one message of --max-message {message}: raise it to at least {enough}, or lower \
             --max-message"
        )
    })
}

fn one_connection_has_no_more_names_than_all(c: &Config) -> Option<String> {
    (c.max_subscriptions > c.max_subscriptions_total).then(|| {
        format!(
            "--max-subscriptions {} is more than --max-subscriptions-total {}: raise --max-subscriptions-total, or lower \
             --max-subscriptions",
            c.max_subscriptions, c.max_subscriptions_total
        )
    })
}

fn each_worker_has_a_core(c: &Config) -> Option<String> {
    let (Pin::Cores(cores), Some(workers)) = (&c.pin, c.workers) else { return None };
    (workers > cores.len()).then(|| {
        format!(
            "--workers {workers} is more than the {} of --pin {}: name one core for each worker, or use --pin none",
            counted(cores.len(), "core"),
            c.pin
        )
    })
}

fn origins_look_like_origins(c: &Config) -> Option<String> {
    c.allow_origin.iter().find_map(|origin| {
        let wrong = origin.parse::<Named>().err()?;
        Some(format!("--allow-origin was given as {origin}: {wrong}"))
    })
}

fn tokens_are_for_somebody(c: &Config) -> Option<String> {
    if c.jwt_audience.is_empty() || c.jwt_audience.iter().any(String::is_empty) {
        return Some("--jwt-audience was given as nothing: a token must be for somebody, such as stentor".into());
    }
    let nobody = c.jwt_issuer.as_ref().is_some_and(String::is_empty);
    nobody.then(|| "--jwt-issuer was given as nothing: leave it out where anybody may issue tokens".into())
}

fn a_head_holds_a_token(c: &Config) -> Option<String> {
    let [given, token] = [c.max_head, c.max_token].map(Exactly);
    (c.jwt_keys.is_some() && c.max_head <= c.max_token).then(|| {
        format!(
            "--max-head {given} does not hold one token of --max-token {token}: raise --max-head, or lower --max-token"
        )
    })
}

fn the_proxy_protocol_has_proxies(c: &Config) -> Option<String> {
    (c.proxy_protocol && c.trusted_proxy.is_empty())
        .then(|| "--proxy-protocol was given without --trusted-proxy: name the proxies that may use it".into())
}

/// Patterns of `--compression-private`: each publication of a shared stream is held against all of them.
const PRIVATE_MAX: usize = 64;

fn private_topics_are_few_patterns(config: &Config) -> Option<String> {
    let given = config.compression_private.len();
    (given > PRIVATE_MAX).then(|| {
        format!("--compression-private was given {given} names and patterns: they may be at most {PRIVATE_MAX}; patterns stand for many topics")
    })
}

fn a_loop_has_a_replay(c: &Config) -> Option<String> {
    (c.replay_loop && c.replay.is_none()).then(|| "--loop was given without --replay: name the file to repeat".into())
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    /// The flags that rules of a form name, in their order.
    fn flags() -> Vec<&'static str> {
        let flag = |rule: &Rule| match *rule {
            Rule::Count { flag, .. }
            | Rule::Size { flag, .. }
            | Rule::NoneOr { flag, .. }
            | Rule::NeverOr { flag, .. }
            | Rule::Lasts { flag, .. }
            | Rule::Within { flag, .. } => Some(flag),
            Rule::Other(_) => None,
        };
        RANGES.iter().chain(RELATIONS).filter_map(flag).collect()
    }

    #[test]
    fn every_rule_is_about_a_flag_that_there_is_and_has_it_to_itself() {
        let command = Config::augment_args(clap::Command::new("stentor"));
        let known: Vec<String> =
            command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
        let mut flags = flags();
        for flag in &flags {
            assert!(known.iter().any(|known| known == flag), "{flag}");
        }
        let all = flags.len();
        flags.sort_unstable();
        flags.dedup();
        assert_eq!(flags.len(), all);
    }

    #[test]
    fn what_a_rule_of_each_form_says_names_the_flag_what_was_given_and_what_would_do() {
        let said = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err().0
        };
        let second = |seconds| Span::new(Duration::from_secs(seconds));
        assert_eq!(said(|c| c.inbox = 0), "--inbox was given as 0: it must be from 1 to 1048576");
        assert_eq!(
            said(|c| c.max_head = ByteSize::b(511)),
            "--max-head was given as 511 B: it must be from 512 B to 1.0 MiB"
        );
        assert_eq!(
            said(|c| c.topic_expiry = Span::new(Duration::from_secs(59))),
            "--topic-expiry was given as 59s: it must be 0s (never) or at least 1m"
        );
        assert_eq!(
            said(|c| c.close_timeout = Span::new(Duration::ZERO)),
            "--close-timeout was given as 0s: it must be more than that"
        );
        assert_eq!(
            said(|c| c.flush_interval = Span::new(Duration::from_secs(11))),
            "--flush-interval was given as 11s: it must be at most 10s"
        );
        assert_eq!(
            said(|c| c.max_held_per_ip = Some(ByteSize::b(2047))),
            "--max-held-per-ip was given as 2047 B: it must be 0 (no limit), or from 2.0 KiB to 1.0 PiB"
        );
        let kept =
            Config { topic_expiry: second(60), flush_interval: second(10), heartbeat: second(0), ..Config::default() };
        kept.check().unwrap();
    }

    /// What flags come to, with what follows them.
    fn given(args: &[String]) -> Config {
        let command = Config::augment_args(clap::Command::new("stentor")).mut_args(|arg| arg.env(None::<&str>));
        let matches = command.get_matches_from(std::iter::once("stentor").chain(args.iter().map(String::as_str)));
        let mut config = Config::from_arg_matches(&matches).unwrap();
        config.follow(|name| args.iter().any(|arg| arg.starts_with(&format!("--{name}="))));
        config
    }

    /// The ends of what a flag may be given as, and something between.
    fn ends(rule: &Rule) -> Option<(&'static str, Vec<String>)> {
        // Evenly in their logarithm: a range is from bytes to pebibytes.
        let between = |least: u64, most: u64| {
            let (least, most) = ((least.max(1) as f64).ln(), (most as f64).ln());
            ((least + fastrand::f64() * (most - least)).exp() as u64).max(1)
        };
        let counts = |least: u64, most: u64| [least, most, between(least, most).clamp(least, most)];
        let sizes = |least: ByteSize, most: ByteSize| counts(least.0, most.0).map(|bytes| format!("{bytes}B"));
        let [zero, most] = [Span::new(Duration::ZERO), Span::MOST].map(|span| span.to_string());
        Some(match *rule {
            Rule::Count { flag, least, most, .. } => {
                (flag, counts(least, most).map(|count| count.to_string()).to_vec())
            }
            Rule::Size { flag, least, most, .. } => (flag, sizes(least, most).to_vec()),
            Rule::NoneOr { flag, least, most, .. } => (flag, [&["0B".to_owned()][..], &sizes(least, most)].concat()),
            Rule::NeverOr { flag, least, .. } => (flag, vec![zero, least.to_string(), most]),
            Rule::Lasts { flag, .. } => (flag, vec!["1ns".to_owned(), most]),
            Rule::Within { flag, most, .. } => (flag, vec![zero, most.to_string()]),
            Rule::Other(_) => return None,
        })
    }

    #[test]
    fn each_flag_alone_is_taken_to_the_ends_of_its_range() {
        for _ in 0..50 {
            for (flag, values) in RANGES.iter().chain(RELATIONS).filter_map(ends) {
                for value in values {
                    for replay in [&[][..], &["--replay=a".to_owned()]] {
                        let args = [&[format!("{flag}={value}")], replay].concat();
                        given(&args).check().unwrap_or_else(|error| panic!("{args:?}: {error}"));
                    }
                }
            }
        }
    }

    #[test]
    fn two_that_are_both_set_and_do_not_go_together_are_named_with_what_they_were_given_as() {
        for (args, said) in [
            (
                &["--max-message=2MiB", "--segment=1MiB"][..],
                "--max-message 2.0 MiB does not fit into --segment 1.0 MiB: raise --segment to at least 2.0 MiB, or lower \
                 --max-message",
            ),
            (
                &["--replay=a", "--max-replay-message=2049KiB", "--segment=2MiB"],
                "--max-replay-message 2049 KiB does not fit into --segment 2.0 MiB: ",
            ),
            (
                &["--max-message=32MiB", "--retain=8MiB"],
                "--retain 8.0 MiB holds fewer than two messages of --max-message 32.0 MiB: raise it to at least 64.0 MiB",
            ),
            (
                &["--replay=a", "--max-replay-message=32MiB", "--retain=8MiB"],
                "--retain 8.0 MiB holds fewer than two messages of --max-replay-message 32.0 MiB: ",
            ),
            (
                &["--segment=1MiB", "--retain=1MiB"],
                "--retain 1.0 MiB holds fewer than two segments of --segment 1.0 MiB: ",
            ),
            (
                &["--max-message=2MiB", "--max-held=2MiB"],
                "--max-held 2.0 MiB does not hold one message of --max-message 2.0 MiB: raise it to at least 2049 KiB, or \
                 lower --max-message",
            ),
            (
                &["--max-message=2MiB", "--max-held-per-ip=2MiB"],
                "--max-held-per-ip 2.0 MiB does not hold one message of --max-message 2.0 MiB: ",
            ),
            (
                &["--max-message=8KiB", "--max-assembly=8KiB"],
                "--max-assembly 8.0 KiB does not hold one message of --max-message 8.0 KiB: raise it to at least 9.0 KiB",
            ),
            (&["--max-message=8KiB", "--max-assembly-per-ip=8KiB"], "--max-assembly-per-ip 8.0 KiB does not hold one "),
            (
                &["--max-subscriptions=11", "--max-subscriptions-total=10"],
                "--max-subscriptions 11 is more than --max-subscriptions-total 10: raise --max-subscriptions-total, or ",
            ),
            (&["--workers=2", "--pin=0"], "--workers 2 is more than the 1 core of --pin 0: "),
        ] {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            let error = given(&args).check().expect_err("they don't go together").0;
            assert!(error.starts_with(said), "{args:?}: {error}");
        }
    }
}
