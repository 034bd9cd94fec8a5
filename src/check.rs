//! `--check`: what would happen with these settings on this machine, without starting anything.
//!
//! Three kinds of remarks: an `error` would keep the server from starting, a `warning` makes it work differently from
//! what the settings say, a `note` is arithmetic that an operator wants to see. `judge` compares the settings with
//! what the kernel allows (`Machine`); the rest asks the system itself.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

use std::{fmt, fs, io, net::SocketAddr, path::Path, time::Duration};

use bytesize::ByteSize;
use rustix::process::{Resource, getrlimit};

use crate::{
    access::{self, Rules},
    audit,
    cgroup::Share,
    clock,
    config::{Compression, Config, Shown, Span},
    cores::Places,
    counted::counted,
    feeds::replay::{Options, Replay},
    io::listener,
    server::{self, Passed},
    shared,
    tape::{self, Whole},
    tls::Inspection,
};

/// What the kernel needs for an idle connection of this server, its place in the epoll set included. Measured on Linux
/// 6.18: `scripts/connections`, results/2026-11-29-connections. The client's end, where it is on the same machine, takes as much again.
const KERNEL_BYTES: u64 = 3800;

/// What the server itself needs for an idle connection with one subscription. Measured: `scripts/connections`, results/2026-11-29-connections.
const OWN_BYTES: u64 = 293;

/// What a message of `/ws` has beside its payload, of a topic with a dozen letters.
const ENVELOPE: f64 = 87.0;

/// How much a remark matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    Note,
    Warning,
    Error,
}

/// All remarks.
#[derive(Debug)]
pub struct Report(Vec<(Weight, String)>);

impl Report {
    /// Whether nothing would keep the server from starting.
    pub fn would_start(&self) -> bool {
        self.0.iter().all(|(weight, _)| *weight != Weight::Error)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (weight, text) in &self.0 {
            let word = match weight {
                Weight::Note => "note",
                Weight::Warning => "warning",
                Weight::Error => "error",
            };
            writeln!(f, "{word}: {text}")?;
        }
        writeln!(f, "{}", if self.would_start() { "It would start." } else { "It would not start." })
    }
}

/// Checks everything that can be checked without starting. `passed` are listening sockets that this process was given.
pub fn check(config: &Config, passed: &Passed) -> Report {
    let mut config = config.clone();
    passed.tell(&mut config);
    let mut remarks = Vec::new();
    if let Err(error) = config.check() {
        remarks.push((Weight::Error, error.to_string()));
        // What comes behind reckons with numbers that are within their ranges.
        if config.check_ranges().is_err() {
            return Report(remarks);
        }
    }
    if passed.is_empty() {
        remarks.extend(config.listen.iter().map(|address| probe(CLEAR, *address)));
        remarks.extend(config.tls_listen.iter().map(|address| probe(TLS, *address)));
    } else {
        let tls = config.tls_listen.iter().map(|address| format!("{} (TLS)", Shown(*address)));
        let addresses: Vec<String> = config.listen.iter().map(|it| Shown(*it).to_string()).chain(tls).collect();
        let text = format!(
            "listens on sockets passed by LISTEN_FDS, on {}; --listen and --tls-listen are not used",
            addresses.join(", ")
        );
        remarks.push((Weight::Note, text));
    }
    remarks.extend(config.admin_listen.map(|address| probe_admin(address, config.admin_token.is_some())));
    remarks.extend(config.acme_listen.map(|address| probe_acme(address, &config)));
    remarks.push(publishing(&config));
    remarks.extend(rights(&config));
    remarks.extend(certificates(&config));
    if let Some(path) = &config.audit {
        remarks.push(match audit::inspect(path) {
            Ok(()) => (Weight::Note, format!("the audit is appended to {}", path.display())),
            Err(error) => (Weight::Error, format!("--audit {}: {error}", path.display())),
        });
    }
    let workers = match Places::pick(&config) {
        Ok(places) => {
            let acceptors = counted(config.acceptors, "acceptor");
            let text = format!("{}; {acceptors} for each address", places.sentence());
            remarks.push((Weight::Note, text));
            remarks.extend(places.by_quota().map(|text| (Weight::Note, text)));
            remarks.extend(places.too_many().map(|text| (Weight::Warning, text)));
            places.workers.len()
        }
        Err(error) => {
            remarks.push((Weight::Error, error.to_string()));
            1
        }
    };
    if let Some(path) = &config.replay
        && let Err(error) = Replay::open(path, Options::of(&config))
    {
        remarks.push((Weight::Error, error.to_string()));
    }
    remarks.extend(judge(&config, workers, &Machine::read()));
    Report(remarks)
}

/// A flag that names addresses, and what is spoken there.
type Door = (&'static str, [&'static str; 2]);

const CLEAR: Door = ("--listen", ["http", "ws"]);
const TLS: Door = ("--tls-listen", ["https", "wss"]);

/// Whether an address could be bound. That it is in use may be because the server runs already.
fn probe((flag, [http, ws]): Door, address: SocketAddr) -> (Weight, String) {
    let probed = listener::probe(address);
    let address = Shown(address);
    match probed {
        Ok(()) => (Weight::Note, format!("would listen on {address}: {http}://{address}/, {ws}://{address}/ws")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            (Weight::Warning, format!("{flag} {address}: in use now; fine if that is the server to be restarted"))
        }
        Err(error) => (Weight::Error, format!("{flag} {address}: {error}")),
    }
}

/// The same for the admin address.
fn probe_admin(address: SocketAddr, has_token: bool) -> (Weight, String) {
    let (probed, is_near) = (listener::probe(address), address.ip().to_canonical().is_loopback());
    let address = Shown(address);
    match probed {
        Ok(()) if is_near => (Weight::Note, format!("for operators: http://{address}/")),
        Ok(()) if has_token => {
            (Weight::Note, format!("for operators: http://{address}/; the figures take the --admin-token"))
        }
        Ok(()) => {
            let text = format!(
                "for operators: http://{address}/; without an --admin-token the figures are for this machine only, and health for \
                 whoever can connect there"
            );
            (Weight::Warning, text)
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let text = format!("--admin-listen {address}: in use now; fine if that is the server to be restarted");
            (Weight::Warning, text)
        }
        Err(error) => (Weight::Error, format!("--admin-listen {address}: {error}")),
    }
}

/// The same for the address for challenges, and whether there is a folder for them.
fn probe_acme(address: SocketAddr, config: &Config) -> (Weight, String) {
    let webroot = config.acme_webroot.as_deref().unwrap_or(Path::new(""));
    if !webroot.is_dir() {
        return (Weight::Warning, format!("--acme-webroot {}: there is no such folder yet", webroot.display()));
    }
    let probed = listener::probe(address);
    let address = Shown(address);
    match probed {
        Ok(()) => (Weight::Note, format!("answers ACME challenges on {address}, from {}", webroot.display())),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let text = format!("--acme-listen {address}: in use now; fine if that is the server to be restarted");
            (Weight::Warning, text)
        }
        Err(error) => (Weight::Error, format!("--acme-listen {address}: {error}")),
    }
}

/// What is wrong with certificates, and what would be shown.
fn certificates(config: &Config) -> impl Iterator<Item = (Weight, String)> {
    let Inspection { errors, warnings, notes } = Inspection::of(config);
    let errors = errors.into_iter().map(|text| (Weight::Error, text));
    let warnings = warnings.into_iter().map(|text| (Weight::Warning, text));
    errors.chain(warnings).chain(notes.into_iter().map(|text| (Weight::Note, text)))
}

/// What is wrong with keys, roles and so on, and what there would be of them.
fn rights(config: &Config) -> Vec<(Weight, String)> {
    match Rules::read(config, clock::wall_us()) {
        Ok((rules, notes)) => {
            let notes = notes.into_iter().map(|text| (Weight::Warning, text));
            notes.chain(rules.sentence().map(|text| (Weight::Note, text))).collect()
        }
        Err(error) => error.to_string().lines().map(|line| (Weight::Error, line.to_owned())).collect(),
    }
}

fn publishing(config: &Config) -> (Weight, String) {
    let far = config.addresses().find(|address| !address.ip().to_canonical().is_loopback());
    match (access::publishing_is_open(config), config.publish_token.is_some(), far.map(Shown)) {
        (true, _, Some(address)) => {
            (Weight::Warning, format!("anybody who reaches {address} may publish, because of --anonymous-publish"))
        }
        (true, ..) => (Weight::Note, "anybody may publish, which is anybody on this machine".into()),
        (false, true, _) => (Weight::Note, "publishing needs the token".into()),
        (false, false, _) if config.jwt_keys.is_some() || config.rights.is_some() => {
            (Weight::Note, "publishing needs a right: of a token, or by the rights file".into())
        }
        (false, false, _) => {
            let text = "no client may publish: it listens for other machines, and there is neither --publish-token nor --anonymous-publish";
            (Weight::Warning, text.into())
        }
    }
}

/// What the kernel allows; `None` where it doesn't say.
#[derive(Clone, Debug, Default)]
struct Machine {
    descriptors_hard: Option<u64>,
    descriptors_system: Option<u64>,
    backlog_max: Option<u64>,
    send_buffer_max: Option<u64>,
    receive_buffer_max: Option<u64>,
    ports: Option<(u64, u64)>,
    tcp_memory: Option<u64>,
    /// And whose limit it is.
    memory: Option<(u64, &'static str)>,
}

impl Machine {
    fn read() -> Machine {
        let page = rustix::param::page_size() as u64;
        let number = |path: &str| numbers(path).first().copied();
        let pages_max = numbers("/proc/sys/net/ipv4/tcp_mem").get(2).copied();
        let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            let kib = line.split_whitespace().next()?.parse::<u64>().ok()?;
            Some((kib.saturating_mul(1024), "on this machine"))
        });
        let own_share = Share::own().memory.map(|bytes| (bytes, "for the control group of this process"));
        Machine {
            descriptors_hard: getrlimit(Resource::Nofile).maximum,
            descriptors_system: number("/proc/sys/fs/file-max"),
            backlog_max: number("/proc/sys/net/core/somaxconn"),
            send_buffer_max: number("/proc/sys/net/core/wmem_max"),
            receive_buffer_max: number("/proc/sys/net/core/rmem_max"),
            ports: match numbers("/proc/sys/net/ipv4/ip_local_port_range")[..] {
                [first, last] => Some((first, last)),
                _ => None,
            },
            tcp_memory: pages_max.map(|pages| pages.saturating_mul(page)),
            memory: [total, own_share].into_iter().flatten().min(),
        }
    }
}

/// The whitespace-separated numbers in a file; none if there is no such file.
fn numbers(path: &str) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map_while(|word| word.parse().ok()).collect()
}

/// Holds the settings against the machine.
fn judge(config: &Config, workers: usize, machine: &Machine) -> Vec<(Weight, String)> {
    let mut remarks = descriptors(config, workers, machine);
    remarks.extend(sockets(config, machine));
    remarks.extend(memory(config, machine));
    remarks
}

fn descriptors(config: &Config, workers: usize, machine: &Machine) -> Vec<(Weight, String)> {
    let connections = config.max_connections;
    let needed =
        server::descriptors_needed(config, config.addresses().count().saturating_mul(config.acceptors), workers);
    let short = |what: &str, limit: u64, how: &str| {
        format!("--max-connections {connections} needs {needed} descriptors, and {what} is {limit}: {how}")
    };
    let mut remarks = Vec::new();
    match machine.descriptors_hard {
        Some(limit) if limit < needed => {
            let how = format!(
                "raise it (LimitNOFILE={needed} in a systemd unit, ulimit -Hn {needed}), or lower --max-connections"
            );
            remarks.push((Weight::Error, short("the limit of this process", limit, &how)));
        }
        limit => {
            let limit = limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
            remarks
                .push((Weight::Note, format!("{needed} descriptors of {limit} for --max-connections {connections}")));
        }
    }
    if let Some(limit) = machine.descriptors_system.filter(|limit| *limit < needed) {
        let how = format!("sysctl fs.file-max={}", needed.saturating_mul(2));
        remarks.push((Weight::Warning, short("that of the whole system (fs.file-max)", limit, &how)));
    }
    remarks
}

fn sockets(config: &Config, machine: &Machine) -> Vec<(Weight, String)> {
    let mut remarks = Vec::new();
    let mut capped = |flag: &str, given: u64, sysctl: &str, limit: Option<u64>| {
        if let Some(limit) = limit.filter(|limit| given > *limit) {
            let text = format!("{flag} {given} is capped at {limit} by the kernel: sysctl {sysctl}={given}");
            remarks.push((Weight::Warning, text));
        }
    };
    capped("--backlog", u64::from(config.backlog), "net.core.somaxconn", machine.backlog_max);
    capped("--sndbuf", config.sndbuf.as_u64(), "net.core.wmem_max", machine.send_buffer_max);
    capped("--rcvbuf", config.rcvbuf.as_u64(), "net.core.rmem_max", machine.receive_buffer_max);
    if let Some((first, last)) = machine.ports {
        for port in config.addresses().map(|address| address.port()) {
            if (first..=last).contains(&u64::from(port)) {
                let text = format!(
                    "port {port} is among those that outgoing connections take ({first} to {last}), and may be taken at a \
                     restart: choose another, or sysctl net.ipv4.ip_local_reserved_ports={port}"
                );
                remarks.push((Weight::Warning, text));
            }
        }
        let ports = last.saturating_sub(first).saturating_add(1);
        if config.addresses().any(|address| address.ip().is_loopback()) && config.max_connections as u64 > ports {
            let text = format!(
                "a client or proxy on this machine has {} for each pair of addresses, fewer than --max-connections {}: listen \
                 on several addresses, or widen net.ipv4.ip_local_port_range",
                counted(ports, "port"),
                config.max_connections
            );
            remarks.push((Weight::Note, text));
        }
    }
    remarks
}

fn memory(config: &Config, machine: &Machine) -> Vec<(Weight, String)> {
    let connections = config.max_connections as u64;
    let (tape, values) = (config.retain.as_u64(), config.max_values.as_u64());
    let idle = connections.saturating_mul(KERNEL_BYTES + OWN_BYTES);
    let all = tape.saturating_add(values).saturating_add(idle);
    // The kernel doubles what is asked for, for its own bookkeeping: socket(7).
    let buffers = connections.saturating_mul(config.sndbuf.as_u64()).saturating_mul(2);
    let size = ByteSize::b;
    let mut remarks = vec![(
        Weight::Note,
        format!(
            "memory: tape at most {}, last values at most {}, {} about {} ({KERNEL_BYTES} bytes each in the kernel, {OWN_BYTES} here)",
            size(tape),
            size(values),
            counted(connections, "idle connection"),
            size(idle)
        ),
    )];
    let most =
        if config.sndbuf.as_u64() == 0 { "without --sndbuf unbounded".into() } else { size(buffers).to_string() };
    remarks.push((
        Weight::Note,
        format!(
            "if every connection stalled: send buffers in the kernel {most}; what is held for them {} (--max-held); answers of \
             plain HTTP {} (--max-http-pending)",
            config.max_held, config.max_http_pending
        ),
    ));
    if config.compression == Compression::Shared {
        let streams = shared::streams(config).held_at_most(config.max_connections) as u64;
        let text = format!(
            "compressed publications take at most {} (--compression-memory), shared streams {} (--compression-streams)",
            config.compression_memory,
            size(streams)
        );
        remarks.push((Weight::Note, text));
    }
    remarks.push((Weight::Note, stalling(config)));
    if let Some((limit, whose)) = machine.memory.filter(|(limit, _)| all > *limit) {
        let text = format!(
            "--retain, --max-values and {} come to {}, and there is {} {whose}: lower them",
            counted(connections, "idle connection"),
            size(all),
            size(limit)
        );
        remarks.push((Weight::Warning, text));
    }
    if let Some(limit) = machine.tcp_memory.filter(|limit| buffers > *limit) {
        let text = format!(
            "full send buffers of {} are more than all of TCP may have ({}, the last number of net.ipv4.tcp_mem): when many \
             stall at once, the kernel slows everybody",
            counted(connections, "connection"),
            size(limit)
        );
        remarks.push((Weight::Note, text));
    }
    remarks
}

/// For how long the tape holds what may be published: a program that isn't running knows no rate, so at a round one.
fn stalling(config: &Config) -> String {
    let [retain, segment] =
        [config.retain, config.segment].map(|size| usize::try_from(size.as_u64()).unwrap_or(usize::MAX));
    let holds = |payload: f64| tape::least(retain, segment, Whole::about(segment, payload + ENVELOPE, 1), 1);
    let said = [100.0, 1000.0].map(holds).map(|count| {
        let span = if count < 10_000 { Duration::from_millis(count) } else { Duration::from_secs(count / 1000) };
        let span = Span::new(span);
        let count = if count < 10_000 { count.to_string() } else { format!("{} thousand", count / 1000) };
        (count, span)
    });
    let [(small, long), (large, short)] = said;
    format!(
        "a subscriber may stall for as long as --retain {} holds what is published, which is, when the oldest segment has just gone, for /ws \
         alone about {small} publications of 100 bytes, {long} at 1000 a second, or {large} of 1000 bytes, {short}; with /raw and /sse in use, \
         too, two fifths of that. At the present rate: stentor_tape_holds_seconds, stentor top",
        config.retain
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roomy() -> Machine {
        Machine {
            descriptors_hard: Some(1 << 20),
            descriptors_system: Some(1 << 30),
            backlog_max: Some(4096),
            send_buffer_max: Some(4 << 20),
            receive_buffer_max: Some(4 << 20),
            ports: Some((32768, 60999)),
            tcp_memory: Some(16 << 30),
            memory: Some((16 << 30, "here")),
        }
    }

    fn said(change: impl FnOnce(&mut Config, &mut Machine)) -> Vec<(Weight, String)> {
        let (mut config, mut machine) = (Config::default(), roomy());
        change(&mut config, &mut machine);
        judge(&config, 2, &machine)
    }

    #[test]
    fn the_defaults_on_a_roomy_machine_bring_no_more_than_notes() {
        let remarks = said(|_, _| {});
        assert!(remarks.iter().all(|(weight, _)| *weight == Weight::Note), "{remarks:?}");
        let text = format!("{remarks:?}");
        for part in [
            "10137 descriptors of 1048576",
            "tape at most 64.0 MiB",
            "232 thousand publications of 100 bytes, 3m 52s at 1000 a second",
            "39.0 MiB (3800 bytes",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    type Change = fn(&mut Config, &mut Machine);

    #[test]
    fn each_limit_of_the_machine_is_held_against_its_setting() {
        let cases: [(Weight, Change, &[&str]); 9] = [
            (Weight::Error, |_, m| m.descriptors_hard = Some(1024), &["10137", "1024", "LimitNOFILE=10137"]),
            (Weight::Warning, |_, m| m.descriptors_system = Some(5000), &["fs.file-max", "5000"]),
            (Weight::Warning, |_, m| m.backlog_max = Some(128), &["--backlog 4096", "128", "net.core.somaxconn=4096"]),
            (Weight::Warning, |_, m| m.send_buffer_max = Some(65_536), &["--sndbuf 131072", "net.core.wmem_max"]),
            (Weight::Warning, |c, _| c.rcvbuf = ByteSize::mib(8), &["--rcvbuf 8388608", "net.core.rmem_max"]),
            (
                Weight::Warning,
                |c, _| c.listen = vec!["127.0.0.1:40000".parse().unwrap()].into(),
                &["port 40000", "32768 to 60999"],
            ),
            (Weight::Note, |c, _| c.max_connections = 100_000, &["28232 ports", "--max-connections 100000"]),
            (Weight::Warning, |_, m| m.memory = Some((256 << 20, "here")), &["--retain", "256.0 MiB here"]),
            (Weight::Note, |_, m| m.tcp_memory = Some(1 << 30), &["net.ipv4.tcp_mem", "1.0 GiB"]),
        ];
        for (weight, change, words) in cases {
            let remarks = said(change);
            let found = remarks.iter().any(|(w, text)| *w == weight && words.iter().all(|word| text.contains(word)));
            assert!(found, "{words:?}: {remarks:?}");
        }
    }
}
