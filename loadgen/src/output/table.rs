//! The table that people read: whether it worked, then doubts, then figures.

use std::fmt::Write;

use super::verdict;
use crate::{
    figures::{ClassFigures, Distribution, Outcome, PhaseFigures, Report, Run},
    samples::{self, QUANTILES, TooFew},
    spec::{Arrivals, Pace, Scenario, Spec},
    units::{self, count, short, time},
};

/// Everything of a session, run by run.
pub fn session(report: &Report) -> String {
    let mut out = String::new();
    for (nth, run) in report.runs.iter().enumerate() {
        if report.runs.len() > 1 {
            let _ = writeln!(out, "\nrun {} of {}: {} {}", nth + 1, report.runs.len(), run.label, run.target);
        }
        out += &self::run(&report.spec, run);
    }
    out
}

/// What came of the search: the rate, and how it was found.
pub fn searched(report: &Report) -> String {
    let Some(found) = &report.search else { return String::new() };
    let mut out = String::new();
    let condition = &found.condition;
    let _ = match found.rate {
        Some(rate) => writeln!(out, "highest rate at which {condition} held, twice: {}/s", short(rate)),
        None => writeln!(out, "no rate at which {condition} held, twice"),
    };
    for doubt in found.doubts() {
        let _ = writeln!(out, "DOUBT: {doubt}");
    }
    let mut row = |cells: [&str; 8]| {
        let [rate, length, deliveries, held, server, generator, saturated, found] = cells;
        let line = format!(
            "{rate:>10} {length:>8} {deliveries:>14}  {held:<6} {server:>6} {generator:>9}  {saturated:<9}  {found}"
        );
        let _ = writeln!(out, "  {line}");
    };
    row(["rate", "for", "deliveries/s", "", "server", "generator", "saturated", "found"]);
    let share = |busy: f64| format!("{:.0} %", busy * 100.0);
    for probe in &found.probes {
        row([
            &format!("{}/s", short(probe.rate)),
            &time(probe.seconds * 1e9),
            &short(probe.deliveries_per_s),
            if probe.held { "held" } else { "failed" },
            &probe.server_busy.map_or("-".into(), share),
            &share(probe.generator_busy),
            &probe.saturated,
            &format!("{}{}", probe.found, if probe.doubts.is_empty() { "" } else { " ?" }),
        ]);
    }
    out += "\n";
    out
}

/// What came of the thresholds, one line each.
pub fn thresholds(report: &Report) -> String {
    let line = |outcome: &Outcome| {
        let Outcome { condition, found, .. } = outcome;
        let word = if outcome.fails() { "FAILED" } else { "kept" };
        format!("{word:<6} --fail-if {condition}: {found}\n")
    };
    report.thresholds.iter().map(line).collect()
}

/// One run.
pub fn run(spec: &Spec, run: &Run) -> String {
    let mut out = verdict::of(spec, run);
    let mut section = |title: &str, lines: &[String]| {
        if !lines.is_empty() {
            let _ = writeln!(out, "{title}");
            lines.iter().for_each(|line| out += &format!("  - {line}\n"));
        }
    };
    section("DOUBTS: these figures may not be the server's", &run.doubts);
    section("ENDED EARLY", &run.ended.iter().cloned().collect::<Vec<_>>());
    section("FAULTS", &run.faults);
    let remarks: Vec<String> =
        run.checks.remarks.iter().map(|(text, times)| format!("{} times: {text}", count(*times))).collect();
    section("remarks", &remarks);
    section("notes", &run.notes);
    let _ = writeln!(out, "{}", headline(spec, run));
    out += &latencies(spec, run);
    out += &rates(spec, run);
    out += &sides(spec, run);
    out
}

fn headline(spec: &Spec, run: &Run) -> String {
    let what = match &spec.pace {
        Pace::Silent if spec.scenario == Scenario::Listen => format!("listened to for {}", spec.duration),
        Pace::Silent => format!("held for {}", spec.duration),
        Pace::Rate(rate) if spec.arrivals == Arrivals::Even => format!("{rate} for {}", spec.duration),
        Pace::Rate(rate) => format!("{rate}, {}, for {}", format!("{:?}", spec.arrivals).to_lowercase(), spec.duration),
        Pace::Window(window) => {
            let rolling = if spec.rolling { ", rolling" } else { "" };
            format!("flat out, {window} in flight{rolling}, for {}", spec.duration)
        }
        Pace::Bursts { rate, burst, every, length } => {
            format!("{rate}, bursts of {burst} for {length} every {every}, for {}", spec.duration)
        }
        Pace::Replay { file, speed } => format!("{} at {speed}x", file.display()),
    };
    format!(
        "{}: {} subscribers, {} topic{}{}{}, {}{} bytes, {what}",
        run.target,
        count(spec.subs as u64),
        spec.topics,
        if spec.topics == 1 { "" } else { "s" },
        spec.watch_list.map_or(String::new(), |among| format!(", {} to {} each", among.from, among.to)),
        if spec.topic_skew > 0.0 { format!(" skewed by {}", spec.topic_skew) } else { String::new() },
        if spec.sizes.is_empty() { "" } else { "on average " },
        if spec.quotes { format!("quotes of some {}", spec.size) } else { spec.size.to_string() }
    )
}

/// Times, and how many samples they are of.
struct Row<'a> {
    label: String,
    times: &'a Distribution,
    samples: u64,
}

impl Row<'_> {
    /// Percentiles, the worst, the mean, the count; what there are too few samples for says so.
    fn append(&self, out: &mut String) {
        let Self { label, times, samples } = self;
        let _ = write!(out, "  {label:<26}");
        for ((_, quantile), value) in QUANTILES.iter().zip(times.percentiles()) {
            let figure = samples::enough(*quantile, *samples).map_or("too few".into(), |()| time(value as f64));
            let _ = write!(out, " {figure:>9}");
        }
        let _ = write!(out, " {:>9} {:>9}", time(times.max_ns as f64), time(times.mean_ns));
        let _ = writeln!(out, " {:>12}", count(times.count));
    }
}

fn latencies(spec: &Spec, run: &Run) -> String {
    let several = run.classes.len() > 1;
    let label = |text: &str, class: &str| if several { format!("{text}, {class}") } else { text.to_owned() };
    let mut rows = Vec::new();
    if run.open_loop {
        for class in &run.classes {
            let samples = run.publications_of(class);
            rows.push(Row { label: label("latency", &class.label), times: &class.latency, samples });
            rows.push(Row { label: label("from actual send", &class.label), times: &class.sent, samples });
            if let Some(handed) = &class.handed {
                rows.push(Row { label: label("until handed over", &class.label), times: &handed.until, samples });
                rows.push(Row { label: label("from then to receipt", &class.label), times: &handed.since, samples });
            }
        }
    }
    // These have one sample each of a publication, or of a connection.
    let mut each = |label: &str, times| rows.push(Row { label: label.into(), times, samples: times.count });
    if run.open_loop {
        each("first to last subscriber", &run.spread);
    }
    each("connecting", &run.joins);
    phases(run, |phases| &phases.first).for_each(|(label, times)| each(label, times));
    each(if spec.scenario == Scenario::Join { "connecting under load" } else { "coming back" }, &run.rejoins);
    phases(run, |phases| &phases.again).for_each(|(label, times)| each(label, times));
    rows.retain(|row| row.times.count > 0);
    let mut out = String::new();
    if !rows.is_empty() {
        let _ = write!(out, "  {:<26}", "");
        for column in QUANTILES.iter().map(|(name, _)| *name).chain(["max", "mean"]) {
            let _ = write!(out, " {column:>9}");
        }
        let _ = writeln!(out, " {:>12}", "count");
    }
    rows.iter().for_each(|row| row.append(&mut out));
    if run.open_loop && run.deliveries > 0 {
        out += &own_share(run);
        out += &too_few(run);
    }
    if !run.open_loop && run.publications > 0 {
        out += "  No latencies: without --rate every publication waits for the window, so what a delivery takes is \
                decided\n  by the generator's own pressure. Throughput is the figure here; give a --rate for latency.\n";
    }
    out
}

/// What of the median is the generator's own, at servers that tell.
fn own_share(run: &Run) -> String {
    let line = |class: &ClassFigures| {
        let (own, all) = (class.not_the_servers_p50()? as f64, class.latency.p50_ns as f64);
        let of = if run.classes.len() > 1 { format!(", {}", class.label) } else { String::new() };
        Some(format!(
            "  Of p50{of}, {}, {} ({:.0} %) are not the server's: publishing late, the kernel's way, and this generator's receiving.\n",
            time(all),
            time(own),
            100.0 * own / all.max(1.0)
        ))
    };
    run.classes.iter().filter_map(line).collect()
}

/// The steps of setting connections up, where TLS is one of them.
fn phases(
    run: &Run,
    of: fn(&PhaseFigures) -> &[Distribution; 3],
) -> impl Iterator<Item = (&'static str, &Distribution)> {
    let times = run.phases.as_ref().map(of).filter(|[_, tls, _]| tls.count > 0);
    times.into_iter().flat_map(|times| ["  of which TCP", "  TLS", "  upgrade"].into_iter().zip(times))
}

/// What the percentiles that weren't said would have needed.
fn too_few(run: &Run) -> String {
    let least = run.classes.iter().map(|class| run.publications_of(class)).min().unwrap_or(0);
    let missing = QUANTILES.iter().find_map(|(name, quantile)| Some((name, samples::enough(*quantile, least).err()?)));
    let Some((name, TooFew { have, need })) = missing else { return String::new() };
    let seconds = need as f64 / (have as f64 / run.seconds.max(1e-9)).max(1e-9);
    let longer = if have > 0 { format!(", {} at this rate", time(seconds * 1e9)) } else { String::new() };
    format!(
        "  Too few: {} publications, and {name} takes {}{longer} (p99 1,000, p99.9 10,000). All\n  deliveries of one publication \
         are one sample of its delay.\n",
        count(have),
        count(need)
    )
}

fn rates(spec: &Spec, run: &Run) -> String {
    let mut out = String::new();
    if run.publications > 0 {
        let _ = writeln!(
            out,
            "  {} deliveries/s   {}/s   {} publications/s   ({} deliveries, {} publications, {:.2} s)",
            short(run.deliveries_per_s()),
            units::bytes(run.bytes_per_s()),
            short(run.publications_per_s()),
            count(run.deliveries),
            count(run.publications),
            run.seconds
        );
    }
    if spec.scenario == Scenario::Connect || spec.connect_rate.is_some() {
        let _ = writeln!(out, "  {} connections at {}/s", count(run.connected), short(run.connections_per_s));
    }
    let checks = &run.checks;
    if spec.scenario == Scenario::Listen {
        let (rate, bytes) = (short(run.deliveries_per_s()), units::bytes(run.bytes_per_s()));
        let (all, seconds) = (count(run.deliveries), run.seconds);
        let _ = writeln!(
            out,
            "  {rate} messages/s   {bytes}/s   ({all} messages, {seconds:.2} s); nothing is known of what should have come"
        );
        return out;
    }
    let _ = writeln!(
        out,
        "  checked {} messages: {} missing, {} repeated, {} out of order, {} wrong, {} torn, {} joints, {} conflated",
        count(checks.received),
        count(checks.missing),
        count(checks.repeats),
        count(checks.reordered),
        count(checks.wrong),
        count(checks.torn),
        count(checks.joints),
        count(checks.conflated)
    );
    if let (Some(wire), Some(_)) = (run.wire, spec.offer()) {
        let (bytes, clear) = (units::bytes(wire.bytes as f64), units::bytes(wire.clear_bytes as f64));
        let _ = writeln!(out, "  compressed: {bytes} on the wire, {:.3} of {clear} without", wire.left());
    }
    if spec.dialect.latest || spec.latest_share.is_some() {
        let _ = writeln!(
            out,
            "  newest values: {} delivered, {} left out, {} announced as left out, {} left out without a word",
            count(checks.received),
            count(checks.conflated),
            count(checks.skipped),
            count(checks.untold)
        );
    }
    out
}

fn sides(spec: &Spec, run: &Run) -> String {
    let mut out = String::new();
    if let Some(server) = &run.server {
        let per_connection =
            server.resident_joined.saturating_sub(server.resident_before) as f64 / run.connected.max(1) as f64;
        let (cost, what) = match run.deliveries {
            0 => (server.cpu_ns as f64 / run.connected.max(1) as f64, "connection"),
            _ => (server.cpu_ns_per_delivery, "delivery"),
        };
        let _ = writeln!(
            out,
            "  server    {} CPU per {what}, {:.2} cores{}; resident {}, at most {}; {} per connection",
            time(cost),
            server.cores_busy,
            server.busiest_thread.map_or_else(String::new, |busy| format!(", busiest thread {:.0} %", busy * 100.0)),
            units::bytes(server.resident_before as f64),
            units::bytes(server.resident_max as f64),
            units::bytes(per_connection)
        );
    }
    let generator = &run.generator;
    let busy: Vec<String> = generator.receivers_busy.iter().map(|busy| format!("{:.0} %", busy * 100.0)).collect();
    let _ = match run.deliveries {
        0 => write!(out, "  generator receivers {} busy", busy.join(", ")),
        _ => write!(
            out,
            "  generator {} CPU per delivery ({:.1} a read{}), receivers {} busy, publisher {:.0} %",
            time(generator.receive_ns),
            generator.deliveries_per_read,
            run.segments
                .map_or_else(String::new, |all| format!(", {:.3} segments each", all as f64 / run.deliveries as f64)),
            busy.join(", "),
            generator.publisher_busy * 100.0
        ),
    };
    if spec.pace != Pace::Silent && run.open_loop {
        let slip = &generator.slip;
        let _ = write!(out, "; slip p50 {} p99 {}", time(slip.p50_ns as f64), time(slip.p99_ns as f64));
    }
    out.push('\n');
    out
}
