//! The hostile client suite: one attack after the other on a server of its own, with healthy clients beside it, and figures
//! that say whether they noticed.
//!
//! ```text
//! hostile --server target/release/stentor [--seconds 4] [--json FILE] [NAME…] [-- FLAGS OF THE SERVER]
//! ```
//!
//! The server has its defaults and one core, the first; whoever attacks and whoever is healthy share the second, the
//! attacker at a lower priority, so that what the healthy wait for is the server. They come from 127.0.0.1, the attacker
//! from 127.0.0.2. Each attack is described in `attacks`, who is healthy in `healthy`.
//!
//! For each attack the server starts anew and its tape is filled; then the healthy have a quiet second, the attack comes and
//! goes, and the server has some seconds to come to rest. Where TLS is attacked, some of the healthy come by TLS as well. It has passed if nobody healthy waited longer than 250 ms or was
//! turned away, if memory stayed within the attack's bound, and if everything was given back. The first attack is none at all,
//! `calm`: if that fails, this machine can't tell.
//!
//! ```text
//!   start ── calm 1 s ──┬── attack ──┬── aftermath 1 s ──┬── rest ── end
//!                       RSS before   RSS at most         RSS left, figures as before
//! ```

mod attacks;
mod healthy;
mod server;

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use serde_json::{Value, json};

use self::{
    attacks::{Attack, Attacker},
    healthy::{Healthy, Waits},
    server::{Figures, Server},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Where the healthy come from, and where the attacker does.
const HEALTHY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Who fills the tape before: somebody else, since whoever has published much waits first.
const FILLER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const HOSTILE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// What nobody healthy may wait longer than.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// Series of metrics that an attack may add, and lines a second that it may have the server log.
const SERIES_MAX: usize = 40;
const LINES_MAX: f64 = 100.0;

/// How far below the others' the attacker's priority is.
const ATTACKER_NICE: i32 = 15;

const CALM: Duration = Duration::from_secs(1);
const AFTERMATH: Duration = Duration::from_secs(1);

/// How long an attack that has taken up its position goes on, at least; how long it may take to do so.
const SETTLED_AT_LEAST: Duration = Duration::from_secs(2);
const ATTACK_AT_MOST: Duration = Duration::from_secs(20);

/// How long the server has to come to rest.
const REST: Duration = Duration::from_secs(15);

/// Figures that are as before once it rests, and how much above that is the coming and going of the healthy.
const RESTING: &[(&str, f64)] = &[
    ("connections_admitted", 10.0),
    ("websocket_connections", 10.0),
    ("event_streams", 0.0),
    ("http_connections", 10.0),
    ("subscriptions", 20.0),
    ("cohorts", 10.0),
    ("names", 20.0),
    ("pending_answers_bytes", 65_536.0),
    ("assembly_bytes", 0.0),
    ("inbox_length", 5.0),
    ("tls_sessions", 10.0),
    ("tls_handshakes_going", 10.0),
    ("tls_held_bytes", 65_536.0),
    ("tls_kept_bytes", 65_536.0),
];

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Tries to hurt a server's other clients, and says whether they noticed.
#[derive(Parser)]
struct Options {
    /// The server's program, a release build.
    #[arg(long)]
    server: PathBuf,
    /// How long each attack lasts; longer if it takes longer to take up its position.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Where to write all figures.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Says what attacks there are.
    #[arg(long)]
    list: bool,
    /// The attacks to be made; all, if none is named.
    names: Vec<String>,
    /// Further flags of the server.
    #[arg(last = true)]
    flags: Vec<String>,
}

const NONE: Attack =
    Attack { name: "calm", text: "nobody attacks", peak: 8 << 20, left: 8 << 20, flags: &[], tls: false, run: |_| {} };

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for attack in attacks::ALL {
            println!("{:25} {}", attack.name, attack.text);
        }
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hostile: {error}");
            ExitCode::from(2)
        }
    }
}

/// Makes the attacks; returns whether none of them hurt.
fn run(options: &Options) -> Result<bool> {
    let chosen = choose(&options.names)?;
    allow_descriptors()?;
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let (theirs, ours) = match cores[..] {
        [theirs, ours, ..] => (Some(theirs), Some(ours)),
        _ => (None, None),
    };
    ours.map(core_affinity::set_for_current);
    let place = |core: Option<core_affinity::CoreId>| core.map_or("any".to_owned(), |core| core.id.to_string());
    println!(
        "server on core {}, attacker (127.0.0.2, at a lower priority) and healthy clients (127.0.0.1) on core {}",
        place(theirs),
        place(ours)
    );
    println!("waits in ms, at most; memory of the server in MiB; busy: per cent of a core while the attack lasted");
    println!(
        "{:25} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>6} {:>17} {:>10}  verdict",
        "attack", "delivery", "command", "probe", "newcomer", "post", "failed", "conns", "memory", "busy s+g"
    );
    let mut raw = Vec::new();
    let mut passed = true;
    for attack in chosen {
        let outcome = beside(options, &attack, theirs).map_err(|error| format!("{}: {error}", attack.name))?;
        passed &= outcome.faults.is_empty();
        println!("{}", outcome.line(&attack));
        raw.push(outcome.json(&attack));
    }
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_string_pretty(&raw)?)?;
    }
    Ok(passed)
}

fn choose(names: &[String]) -> Result<Vec<Attack>> {
    let mut chosen = vec![NONE];
    if names.is_empty() {
        chosen.extend(attacks::ALL);
    }
    for name in names {
        let found = attacks::ALL.iter().find(|attack| attack.name == name);
        chosen.push(*found.ok_or_else(|| format!("no attack is called {name}: --list names them"))?);
    }
    Ok(chosen)
}

/// As many descriptors as we may have.
fn allow_descriptors() -> Result<()> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    Ok(rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?)
}

/// What an attack came to.
struct Outcome {
    waits: BTreeMap<&'static str, Waits>,
    faults: Vec<String>,
    connections: (usize, usize),
    /// Resident memory of the server before, at most, and left.
    memory: [u64; 3],
    series: [usize; 2],
    lines: f64,
    reload: Option<Duration>,
    /// How long it took to come to rest.
    rest: Option<Duration>,
    lasted: Duration,
    /// CPU time of the server's threads, of the attacker and of all of us, while the attack lasted.
    busy: BTreeMap<String, Duration>,
}

/// Starts a server and the healthy, and makes one attack.
fn beside(options: &Options, attack: &Attack, core: Option<core_affinity::CoreId>) -> Result<Outcome> {
    let flags: Vec<&str> = attack.flags.iter().copied().chain(options.flags.iter().map(String::as_str)).collect();
    let mut server = Server::start(&options.server, &flags, attack.tls, core)?;
    let healthy = Healthy::new(&server);
    let attacker = Attacker::new(server.address, HOSTILE, 1).over(server.secure.clone());
    let outcome = thread::scope(|scope| {
        // Whatever happens here, those threads must come to their end.
        let outcome = observe(scope, options, attack, &server, &healthy, &attacker);
        attacker.stop();
        healthy.stop_publishing();
        healthy.stop();
        outcome
    });
    let mut outcome = outcome?;
    outcome.waits = healthy.take();
    outcome.connections = attacker.connections();
    outcome.faults.extend(attacker.wrongs());
    if !server.lives() {
        outcome.faults.push("the server has ended".to_owned());
    }
    outcome.judge(attack);
    Ok(outcome)
}

fn observe<'s, 'e>(
    scope: &'s thread::Scope<'s, 'e>,
    options: &Options,
    attack: &Attack,
    server: &'e Server,
    healthy: &'e Healthy,
    attacker: &'e Attacker,
) -> Result<Outcome> {
    healthy.start(scope)?;
    thread::sleep(CALM);
    let before = server.figures()?;
    let (resident, lines) = (server.resident()?, server.lines());
    healthy.begin();
    let (begun, busy) = (Instant::now(), all_threads(server)?);
    let run = attack.run;
    let attacking = thread::Builder::new().name("attacker".to_owned()).spawn_scoped(scope, move || {
        let ours = rustix::process::getpriority_process(None).unwrap_or(0);
        let _ = rustix::process::setpriority_process(None, (ours + ATTACKER_NICE).min(19));
        run(attacker);
    })?;
    let mut peak = resident;
    let mut look = || -> Result<()> {
        thread::sleep(LOOK_EVERY);
        peak = peak.max(server.resident()?);
        Ok(())
    };
    let (mut settled, mut reload) = (None, None);
    loop {
        look()?;
        let elapsed = begun.elapsed();
        if settled.is_none() && (attacker.is_settled() || attacking.is_finished()) {
            settled = Some(elapsed);
            // Somebody else's line, in the middle of it.
            reload = server.reload();
        }
        let due = settled
            .map_or(ATTACK_AT_MOST, |settled| (settled + SETTLED_AT_LEAST).max(Duration::from_secs(options.seconds)));
        if elapsed >= due {
            break;
        }
    }
    let lasted = begun.elapsed();
    let busy = used(&busy, &all_threads(server)?);
    attacker.stop();
    let ended = Instant::now();
    while ended.elapsed() < AFTERMATH || !attacking.is_finished() {
        look()?;
    }
    healthy.stop_publishing();
    let logged = (server.lines() - lines) as f64 / begun.elapsed().as_secs_f64();
    let (rest, unrest, after) = come_to_rest(server, &before);
    let mut faults: Vec<String> = unrest.into_iter().collect();
    if settled.is_none() {
        faults.push("the attack never took up its position".to_owned());
    }
    Ok(Outcome {
        waits: BTreeMap::new(),
        faults,
        connections: (0, 0),
        memory: [resident, peak, server.resident()?],
        series: [before.series(), after.map_or(before.series(), |after| after.series())],
        lines: logged,
        reload,
        rest,
        lasted,
        busy,
    })
}

/// CPU time so far: the server's threads by name, the attacker, and all that runs here.
fn all_threads(server: &Server) -> Result<BTreeMap<String, Duration>> {
    let mut all = BTreeMap::new();
    for (name, time) in server.threads()? {
        *all.entry(format!("server {name}")).or_default() += time;
        *all.entry("server".to_owned()).or_default() += time;
    }
    for (name, time) in server::threads("self")? {
        *all.entry("generator".to_owned()).or_default() += time;
        if name == "attacker" {
            *all.entry(name).or_default() += time;
        }
    }
    Ok(all)
}

fn used(before: &BTreeMap<String, Duration>, after: &BTreeMap<String, Duration>) -> BTreeMap<String, Duration> {
    let since = |(name, time): (&String, &Duration)| {
        (name.clone(), time.saturating_sub(before.get(name).copied().unwrap_or_default()))
    };
    after.iter().map(since).collect()
}

/// Waits until the server's figures are as before; returns how long that took, or what isn't, and the last figures.
fn come_to_rest(server: &Server, before: &Figures) -> (Option<Duration>, Option<String>, Option<Figures>) {
    let begun = Instant::now();
    let mut last = None;
    let mut unrest = Some("no figures to be had".to_owned());
    while begun.elapsed() < REST {
        if let Ok(now) = server.figures() {
            let above = RESTING.iter().find(|(name, slack)| now.sum(name) > before.sum(name) + slack);
            unrest = above
                .map(|(name, _)| format!("not at rest: {name} {} before, {} after", before.sum(name), now.sum(name)));
            last = Some(now);
            if unrest.is_none() {
                let rest = begun.elapsed();
                // What is given back in its own time: the allocator's, a timer's.
                thread::sleep(Duration::from_millis(500));
                return (Some(rest), None, last);
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
    (None, unrest, last)
}

impl Outcome {
    /// Holds it against the bounds.
    fn judge(&mut self, attack: &Attack) {
        for (kind, waits) in &self.waits {
            if waits.worst() > WAIT_MAX {
                self.faults.push(format!("{kind} waited {:.0} ms", ms(waits.worst())));
            }
            if waits.failed > 0 {
                self.faults.push(format!("{} {kind} failed ({})", waits.failed, waits.reasons.join("; ")));
            }
        }
        let [before, peak, left] = self.memory.map(|bytes| bytes as i64);
        for (what, grown, most) in [("grew by", peak - before, attack.peak), ("kept", left - before, attack.left)] {
            if grown > most as i64 {
                self.faults.push(format!("memory {what} {} MiB, bound {}", grown >> 20, most >> 20));
            }
        }
        if self.series[1] > self.series[0] + SERIES_MAX {
            self.faults.push(format!("{} series more", self.series[1] - self.series[0]));
        }
        if self.lines > LINES_MAX {
            self.faults.push(format!("{:.0} lines/s logged", self.lines));
        }
        match self.reload {
            Some(waited) if waited <= WAIT_MAX => {}
            Some(waited) => self.faults.push(format!("a line of the log waited {:.0} ms", ms(waited))),
            None => self.faults.push("a line of the log never came".to_owned()),
        }
    }

    fn share(&self, thread: &str) -> f64 {
        self.busy.get(thread).copied().unwrap_or_default().as_secs_f64() / self.lasted.as_secs_f64() * 100.0
    }

    fn line(&self, attack: &Attack) -> String {
        let worst =
            |kind: &str| self.waits.get(kind).map_or("-".to_owned(), |waits| format!("{:.1}", ms(waits.worst())));
        let failed: usize = self.waits.values().map(|waits| waits.failed).sum();
        let memory = self.memory.map(|bytes| (bytes >> 20).to_string()).join(" > ");
        let busy = format!("{:.0}+{:.0}", self.share("server"), self.share("generator"));
        let verdict =
            if self.faults.is_empty() { "passed".to_owned() } else { format!("FAILED: {}", self.faults.join("; ")) };
        format!(
            "{:25} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>6} {:>17} {:>10}  {verdict}",
            attack.name,
            worst("deliveries"),
            worst("commands"),
            worst("probes"),
            worst("newcomers"),
            worst("posts"),
            failed,
            self.connections.0.max(self.connections.1.min(1)),
            memory,
            busy,
        )
    }

    fn json(&self, attack: &Attack) -> Value {
        let busy: BTreeMap<&String, f64> = self.busy.keys().map(|name| (name, self.share(name))).collect();
        let waits: BTreeMap<_, _> = self.waits.iter().map(|(kind, waits)| (kind, waits.json())).collect();
        json!({
            "attack": attack.name, "attacker": attack.text, "passed": self.faults.is_empty(), "faults": self.faults,
            "seconds": self.lasted.as_secs_f64(),
            "connections": { "held": self.connections.0, "made": self.connections.1 },
            "memory": { "before": self.memory[0], "peak": self.memory[1], "left": self.memory[2],
                        "peak_max": attack.peak, "left_max": attack.left },
            "series": self.series, "log_lines_per_second": self.lines,
            "reload_ms": self.reload.map(ms), "rest_ms": self.rest.map(ms),
            "busy_per_cent": busy, "waits": waits,
        })
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
