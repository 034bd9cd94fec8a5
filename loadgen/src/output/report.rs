//! The report: one page that needs nothing else, for whoever has to believe the figures.
//!
//! Doubts come first. Then the table (several runs side by side, each of them folded away), the percentile plot on a scale of nines, throughput and latency over time, and
//! everything that is needed to repeat the session.

use std::fmt::Write;

use anyhow::Result;

use super::{
    compare,
    plot::{LOOK, Line, PLOTS, Plot, Scale, escape},
    table,
};
use crate::{
    figures::{IntervalFigures, Report, Run},
    meter::{Times, add},
    samples, units,
};

/// What only reports have.
const STYLE: &str = include_str!("report.css");

/// The page of a session.
pub fn page(report: &Report) -> Result<String> {
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>loadgen report</title><style>{LOOK}{STYLE}{PLOTS}</style>\n\
         <h1>{}</h1>\n<p class=\"from\">{}</p>\n",
        escape(&title(report)),
        escape(&machine(report))
    );
    verdict(report, &mut out);
    if report.search.is_some() {
        let _ = writeln!(out, "<section><h2>Search</h2><pre>{}</pre></section>", escape(&table::searched(report)));
    }
    let runs = format!("<pre>{}</pre>", escape(&table::session(report)));
    if report.runs.len() > 1 {
        // With several runs the comparison is what one came for, and each run is there to be looked up.
        let _ = writeln!(out, "<section><h2>Side by side</h2>{}", compare::html(report));
        let _ = writeln!(out, "<details><summary>All {} runs</summary>{runs}</details></section>", report.runs.len());
    } else {
        let _ = writeln!(out, "<section><h2>Figures</h2>{runs}</section>");
    }
    if report.runs.iter().any(|run| run.open_loop) {
        out += &percentiles(report)?;
    }
    out += &over_time(report);
    set_up(report, &mut out);
    out.push_str("</html>\n");
    Ok(out)
}

fn title(report: &Report) -> String {
    let mut unique: Vec<&str> = Vec::new();
    for run in &report.runs {
        if !unique.contains(&run.name.as_str()) {
            unique.push(&run.name);
        }
    }
    format!("{:?}: {}", report.spec.scenario, unique.join(", "))
}

fn verdict(report: &Report, out: &mut String) {
    let said = |run: &Run| {
        let all = run.ended.iter().chain(&run.faults).chain(&run.doubts);
        all.map(|text| format!("<li>{}: {}</li>", escape(&run.name), escape(text))).collect::<String>()
    };
    let failed = report.thresholds.iter().filter(|outcome| outcome.fails());
    let failed = failed.map(|one| format!("<li>failed: {}: {}</li>", escape(&one.condition), escape(&one.found)));
    let items: String = report.runs.iter().map(said).chain(failed).collect();
    let _ = if items.is_empty() {
        writeln!(out, "<p class=\"fine\">Everything arrived, and nothing speaks against these figures.</p>")
    } else {
        writeln!(out, "<div class=\"doubts\"><strong>Before you read the figures</strong><ul>{items}</ul></div>")
    };
}

fn percentiles(report: &Report) -> Result<String> {
    let plot = percentile_plot(report, "Latency from the planned send time, by percentile")?;
    Ok(format!("<section><h2>Latency</h2>\n{plot}</section>\n"))
}

/// Latency by percentile; the distance to 100 % is what the horizontal axis halves. Lines end where the publications do that a
/// percentile needs.
pub(super) fn percentile_plot(report: &Report, title: &str) -> Result<String> {
    let nines = [("0", 1.0), ("90%", 10.0), ("99%", 100.0), ("99.9%", 1e3), ("99.99%", 1e4), ("99.999%", 1e5)];
    let mut merged: Vec<(String, Times, u64)> = Vec::new();
    for run in report.runs.iter().filter(|run| run.open_loop) {
        for class in &run.classes {
            let name = if run.classes.len() > 1 { format!("{}, {}", run.name, class.label) } else { run.name.clone() };
            let (times, publications) = (class.latency.times()?, run.publications_of(class));
            match merged.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, sum, pooled)) => {
                    add(sum, &times);
                    *pooled += publications;
                }
                None => merged.push((name, times, publications)),
            }
        }
    }
    let last = merged.iter().map(|(.., publications)| last_place(*publications)).fold(10.0, f64::max);
    let ticks = nines.iter().filter(|tick| tick.1 <= last * 10.0).map(|tick| (tick.1, tick.0.to_owned())).collect();
    let line = |(name, times, publications): (String, Times, u64)| {
        let points = points_of(&times, last_place(publications));
        Line { name, points, labels: Vec::new() }
    };
    let lines = merged.into_iter().map(line).collect();
    let plot = Plot { title, ticks, across: Scale::Log, up: Scale::Log, show: units::time, lines };
    Ok(plot.svg())
}

/// How rare what is shown may be: one in so many, with ten publications beyond.
fn last_place(publications: u64) -> f64 {
    (publications as f64 / 10.0).max(10.0)
}

/// A histogram's percentiles, by how many times rarer than one in one they are; up to `last`.
fn points_of(times: &Times, last: f64) -> Vec<(f64, f64)> {
    let steps = times.iter_quantiles(4).filter(|step| step.quantile_iterated_to() < 1.0);
    let place = |quantile: f64| 1.0 / (1.0 - quantile);
    let mut points: Vec<(f64, f64)> =
        steps.map(|step| (place(step.quantile_iterated_to()), step.value_iterated_to() as f64)).collect();
    points.retain(|(place, _)| *place <= last);
    points.push((last, times.value_at_quantile(1.0 - 1.0 / last) as f64));
    points.dedup_by(|a, b| a.0 <= b.0);
    points
}

/// Throughput and latency second by second: of the first run against each target.
fn over_time(report: &Report) -> String {
    let mut runs: Vec<&Run> = Vec::new();
    for run in &report.runs {
        if !runs.iter().any(|known| known.name == run.name) {
            runs.push(run);
        }
    }
    let rate = |interval: &IntervalFigures| interval.deliveries as f64 / interval.seconds.max(1e-9);
    let mut out = String::from("<section><h2>Over time</h2>\n");
    out += &seconds("Deliveries per second", Scale::Linear, units::short, &runs, rate);
    if runs.iter().any(|run| run.open_loop) {
        out +=
            &seconds("Latency p50, second by second", Scale::Log, units::time, &runs, |one| one.latency.p50_ns as f64);
        let mut each = runs.iter().flat_map(|run| &run.intervals);
        if each.all(|one| samples::enough(0.99, one.publications).is_ok()) {
            out += &seconds("Latency p99, second by second", Scale::Log, units::time, &runs, |one| {
                one.latency.p99_ns as f64
            });
        }
        out += &seconds("Worst latency, second by second", Scale::Log, units::time, &runs, |one| {
            one.latency.max_ns as f64
        });
    }
    out.push_str("</section>\n");
    out
}

/// One figure of every second, a line a run.
fn seconds(
    title: &str,
    up: Scale,
    show: fn(f64) -> String,
    runs: &[&Run],
    figure: impl Fn(&IntervalFigures) -> f64,
) -> String {
    let last = runs.iter().flat_map(|run| run.intervals.last()).map(|interval| interval.index).max().unwrap_or(1);
    let step = (last / 10 + 1) as usize;
    let ticks = (0..=last).step_by(step).map(|second| (second as f64, format!("{second} s"))).collect();
    let line = |run: &&Run| Line {
        name: run.name.clone(),
        points: run.intervals.iter().map(|interval| (interval.index as f64, figure(interval))).collect(),
        labels: Vec::new(),
    };
    Plot { title, ticks, across: Scale::Linear, up, show, lines: runs.iter().map(line).collect() }.svg()
}

fn set_up(report: &Report, out: &mut String) {
    let spec = serde_json::to_string_pretty(&report.spec).unwrap_or_default();
    let _ = writeln!(
        out,
        "<section><h2>Set-up</h2><pre>{}\nloadgen {}{}\n{}\n\n{}</pre></section>",
        escape(&report.command.join(" ")),
        report.version,
        report.commit.as_ref().map_or_else(String::new, |commit| format!(", commit {commit}")),
        escape(&machine(report)),
        escape(&spec)
    );
}

/// What it ran on.
fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let memory = units::bytes(machine.memory as f64);
    let (cpu, cores, kernel, congestion) = (&machine.cpu, machine.cores, &machine.kernel, &machine.congestion);
    format!("{cpu}, {cores} cores, {memory}, {kernel}, congestion control {congestion}")
}
