//! Doubts: reasons why a run's figures may be the generator's, the machine's or the clock's, and not the server's.
//!
//! Each doubt is one sentence with what was measured and what would help. They are printed before the figures and make
//! the exit code 3. What only explains a figure is a note and changes nothing.

use crate::{
    figures::{GeneratorFigures, Run, TlsFigures},
    machine::CoreWork,
    server::ServerFigures,
    target::Url,
    units,
};

/// A receiving thread that is busy for more than this has no reserve: its own queueing is in the figures.
const BUSY: f64 = 0.90;

/// One publication in a hundred sent later than this is more than a timer's inaccuracy: waking a sleeping thread takes
/// some 50 us on a virtual machine.
const SLIP_NS: u64 = 1_000_000;

/// A publication sent this late was held up by more than the scheduler.
const SLIP_WORST_NS: u64 = 20_000_000;

/// Publications that the server took so late were not the load that was asked for.
const BEHIND_NS: u64 = 1_000_000_000;

/// Unread bytes that amount to this much traffic mean that reading lags behind.
const BACKLOG_SECONDS: f64 = 0.02;

/// The host may take this share of the time before it shows.
const STEAL: f64 = 0.02;

/// A reading of the clock that costs more is not served from memory.
const CLOCK_READ_NS: f64 = 200.0;

/// What speaks against the figures of `run`.
pub fn of(run: &Run) -> Vec<String> {
    let mut doubts = Vec::new();
    let generator = &run.generator;
    if run.stopped {
        doubts.push("the run was stopped before its end".into());
    }
    doubts.extend(saturated(generator, run.server.as_ref()));
    if run.open_loop {
        doubts.extend(slipped(generator));
        doubts.extend(behind(run));
        doubts.extend(backlogged(run));
    }
    doubts.extend(shared_cores(generator, run.server.as_ref()));
    doubts.extend(clock(run));
    if generator.steal > STEAL {
        let share = generator.steal * 100.0;
        doubts.push(format!("the host took {share:.0} % of this machine's time away: repeat when it is quieter"));
    }
    doubts
}

fn saturated(generator: &GeneratorFigures, server: Option<&ServerFigures>) -> Option<String> {
    let busiest = generator.busiest();
    let busy = busiest * 100.0;
    match server {
        _ if busiest < BUSY => None,
        Some(server) if server.is_saturated() => None,
        Some(server) => Some(format!(
            "the generator was the saturated side: its busiest thread worked {busy:.0} % of the time, the server {:.2} \
             cores' worth; give it more --threads and --cores",
            server.cores_busy
        )),
        None => Some(format!(
            "the generator may have been the saturated side: its busiest thread worked {busy:.0} % of the time; give it \
             more --threads and --cores, or --server-pid to see which side was the limit"
        )),
    }
}

/// Which side had no more to give: the figures are that side's.
pub fn saturated_side(run: &Run) -> &'static str {
    let busiest = run.generator.busiest();
    let server = run.server.as_ref().is_some_and(ServerFigures::is_saturated);
    match (server, busiest >= BUSY) {
        (true, true) => "both",
        (true, false) => "server",
        (false, true) => "generator",
        (false, false) => "neither",
    }
}

/// Both sides being busy is no doubt about throughput, but should be known.
pub fn notes(run: &Run) -> Vec<String> {
    let mut notes = Vec::new();
    let busiest = run.generator.receivers_busy.iter().copied().fold(0.0, f64::max);
    match &run.server {
        Some(server) if busiest >= BUSY && server.is_saturated() => notes.push(format!(
            "both sides were saturated: the server used {:.2} cores, the busiest receiving thread {:.0} % of one",
            server.cores_busy,
            busiest * 100.0
        )),
        _ => {}
    }
    if run.generator.held_up.count > 0 && behind(run).is_none() {
        notes.push(format!(
            "{} publications waited for the server to take earlier ones, the longest {}; it is part of their latency",
            units::count(run.generator.held_up.count),
            units::time(run.generator.held_up.max_ns as f64)
        ));
    }
    notes.extend(run.generator.tls.as_ref().map(tls));
    let connecting = run.generator.connecting_busy;
    if connecting >= BUSY {
        notes.push(format!(
            "while connections were set up, a receiving thread worked {:.0} % of the time: how long that took may be the generator's; give \
             it more --threads and --cores, or --processes",
            connecting * 100.0
        ));
    }
    if run.spread_unknown > 0 {
        let unknown = units::count(run.spread_unknown);
        let why = if run.checks.conflated > 0 { "some were not sent them" } else { "too many were under way" };
        notes.push(format!("the spread of {unknown} publications is unknown: {why}"));
    }
    if run.generator.clock.wall_step_ns.abs() > 1_000_000 {
        let step = units::time(run.generator.clock.wall_step_ns as f64);
        notes.push(format!("the wall clock was stepped by {step}; nothing here is measured with it"));
    }
    notes.extend(sends_apart(run));
    if run.server.is_some() && Url::parse(&run.target).is_ok_and(|url| url.is_loopback()) {
        notes.push(
            "over loopback the server's processor time holds the kernel's receiving as well as its sending".into(),
        );
    }
    notes
}

/// What TLS took of the generator's time. Who is saturated by it shows as ever.
fn tls(tls: &TlsFigures) -> String {
    let delivery = match tls.ns_per_delivery {
        0.0 => String::new(),
        ns => format!(", {} a delivery, {:.1} records a read", units::time(ns), tls.records_per_read),
    };
    format!(
        "TLS is {:.0} % of what the receiving threads did{delivery}, {:.0} % of what the publisher did; handshakes: {} full, {} resumed",
        tls.receivers * 100.0,
        tls.publisher * 100.0,
        units::count(tls.full),
        units::count(tls.resumed)
    )
}

/// How far apart the two counts of sends may be, as a share: the server's own, and segments that came. Where nothing is kept back they are one.
const SENDS_APART: f64 = 0.05;

fn sends_apart(run: &Run) -> Option<String> {
    let seen = run.segments.filter(|_| run.deliveries > 0)? as f64 / run.deliveries as f64;
    let counted = run.server.as_ref()?.sends_per_delivery.filter(|counted| *counted > 0.0)?;
    ((seen / counted - 1.0).abs() > SENDS_APART).then(|| {
        format!(
            "the server counts {counted:.4} sends a delivery, and {seen:.4} segments came: sends were kept back and came together, or were \
             longer than a segment"
        )
    })
}

fn slipped(generator: &GeneratorFigures) -> Option<String> {
    let slip = &generator.slip;
    (slip.p99_ns > SLIP_NS || slip.max_ns > SLIP_WORST_NS).then(|| {
        format!(
            "the schedule slipped: the publisher was late by {} (p99), {} at worst, for reasons of its own; give it a \
             core with --publisher-core, or a lower --rate",
            units::time(slip.p99_ns as f64),
            units::time(slip.max_ns as f64)
        )
    })
}

fn behind(run: &Run) -> Option<String> {
    let held_up = &run.generator.held_up;
    (run.open_loop && held_up.max_ns > BEHIND_NS).then(|| {
        format!(
            "{} publications waited for the server to take earlier ones, the longest {}: so far behind the plan, what it was \
             offered was not the --rate, and the latencies are of a queue that grew; give a lower --rate, or --speed",
            units::count(held_up.count),
            units::time(held_up.max_ns as f64)
        )
    })
}

fn backlogged(run: &Run) -> Option<String> {
    let seconds = run.generator.backlog_bytes as f64 / run.bytes_per_s().max(1.0);
    (seconds > BACKLOG_SECONDS && run.bytes > 0).then(|| {
        format!(
            "receiving lagged behind: {} lay unread, {} worth of traffic; give it more --threads and --cores",
            units::bytes(run.generator.backlog_bytes as f64),
            units::time(seconds * 1e9)
        )
    })
}

fn shared_cores(generator: &GeneratorFigures, server: Option<&ServerFigures>) -> Vec<String> {
    let mut doubts = Vec::new();
    if let Some(server) = server {
        let common: Vec<usize> = generator.cores.iter().copied().filter(|core| server.cores.contains(core)).collect();
        if !common.is_empty() {
            doubts.push(format!(
                "server and generator may both run on cores {common:?}: pin the server (taskset) and give the generator \
                 others with --cores"
            ));
        }
        if let Some(work) = server.work.as_ref().filter(|_| server.waited.is_none_or(|waited| waited > WAITED)) {
            doubts.extend(shared(work, "the server"));
        }
    } else if generator.machine_busy > 0.97 {
        let busy = generator.machine_busy * 100.0;
        doubts.push(format!("the whole machine was busy for {busy:.0} % of the time: somebody waited for a core"));
    }
    doubts.extend(generator.work.as_ref().and_then(|work| shared(work, "the generator")));
    doubts
}

/// Others' work on a core that is more than the kernel's housekeeping; and of each further core.
const FOREIGN: (f64, f64) = (0.10, 0.03);

/// Others' work on a server's core counts as such only where the server has waited for the core so much: kernels that keep the time of
/// interrupts apart don't charge a server with its own traffic's.
const WAITED: f64 = 0.01;

fn shared(work: &CoreWork, whose: &str) -> Option<String> {
    let most = FOREIGN.0 + FOREIGN.1 * work.cores.len().saturating_sub(1) as f64;
    let (cores, foreign) = (&work.cores, work.foreign());
    (foreign > most).then(|| {
        format!(
            "cores {cores:?} were shared: {foreign:.2} cores' worth of their time went to others than {whose}; stop those, or give \
             it cores of its own"
        )
    })
}

fn clock(run: &Run) -> Vec<String> {
    let mut doubts = Vec::new();
    let clock = &run.generator.clock;
    if clock.read_ns > CLOCK_READ_NS {
        let (source, cost) = (&clock.source, clock.read_ns);
        doubts
            .push(format!("reading the clock ({source}) takes {cost:.0} ns: times are coarse and cost processor time"));
    }
    if run.checks.too_early > 0 {
        let count = units::count(run.checks.too_early);
        doubts
            .push(format!("{count} deliveries came before they were sent: publisher and receiver don't share a clock"));
    }
    doubts
}

#[cfg(test)]
#[path = "doubts_tests.rs"]
mod tests;
