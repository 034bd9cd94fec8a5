//! The report: one page that needs nothing else, for whoever has to believe the figures.
//!
//! Doubts come first. Then the table, the percentile plot on a scale of nines, throughput and latency over time, and
//! everything that is needed to repeat the session.

use std::fmt::Write;

use anyhow::Result;

use super::{
    compare,
    plot::{Line, Plot, Scale, escape},
    table,
};
use crate::{
    figures::{Report, Run},
    units,
};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}pre{background:#f6f6f4;padding:1em;white-space:pre-wrap;font-size:12px}\
svg{width:100%;font:11px system-ui,sans-serif}.grid{stroke:#ddd;fill:none}.title{font-weight:600;font-size:13px}\
.doubts{border-left:4px solid #d55e00;background:#fdf1e8;padding:.5em 1em}.fine{border-left:4px solid #009e73;\
background:#eef8f4;padding:.5em 1em}\
@media(prefers-color-scheme:dark){body{background:#191919;color:#ddd}pre{background:#242424}.grid{stroke:#444}\
svg text{fill:#ccc}.doubts{background:#3a2a1c}.fine{background:#1c3029}}";

/// The page of a session.
pub fn page(report: &Report) -> Result<String> {
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>loadgen report</title><style>{STYLE}</style>\n<h1>{}</h1>\n",
        escape(&title(report))
    );
    verdict(report, &mut out);
    let _ = writeln!(out, "<pre>{}</pre>", escape(&table::session(report)));
    if report.runs.len() > 1 {
        let comparison = compare::sessions(std::slice::from_ref(report), false);
        let _ = writeln!(out, "<h2>Side by side</h2><pre>{}</pre>", escape(&comparison));
    }
    if report.runs.iter().any(|run| run.open_loop) {
        out += &percentiles(report)?;
    }
    for run in &report.runs {
        out += &over_time(run);
    }
    set_up(report, &mut out);
    out.push_str("</html>\n");
    Ok(out)
}

fn title(report: &Report) -> String {
    let targets: Vec<&str> = report.runs.iter().take(2).map(|run| run.name.as_str()).collect();
    let mut unique = targets.clone();
    unique.dedup();
    format!("{:?}: {}", report.spec.scenario, unique.join(" and "))
}

fn verdict(report: &Report, out: &mut String) {
    let said = |run: &Run| {
        let all = run.ended.iter().chain(&run.faults).chain(&run.doubts);
        all.map(|text| format!("<li>{}: {}</li>", escape(&run.name), escape(text))).collect::<String>()
    };
    let items: String = report.runs.iter().map(said).collect();
    let _ = if items.is_empty() {
        writeln!(out, "<p class=\"fine\">Everything arrived, and nothing speaks against these figures.</p>")
    } else {
        writeln!(out, "<div class=\"doubts\"><strong>Before you read the figures</strong><ul>{items}</ul></div>")
    };
}

/// Latency by percentile; the distance to 100 % is what the horizontal axis halves.
fn percentiles(report: &Report) -> Result<String> {
    let nines = [("0", 1.0), ("90%", 10.0), ("99%", 100.0), ("99.9%", 1e3), ("99.99%", 1e4), ("99.999%", 1e5)];
    let most = report.runs.iter().map(|run| run.deliveries).max().unwrap_or(1).max(10) as f64;
    let ticks = nines.iter().filter(|tick| tick.1 <= most * 10.0).map(|tick| (tick.1, tick.0.to_owned())).collect();
    let mut lines = Vec::new();
    for (nth, run) in report.runs.iter().enumerate().filter(|(_, run)| run.open_loop) {
        for class in &run.classes {
            let times = class.latency.times()?;
            let steps = times.iter_quantiles(4).filter(|step| step.quantile_iterated_to() < 1.0);
            let mut points: Vec<(f64, f64)> = steps
                .map(|step| (1.0 / (1.0 - step.quantile_iterated_to()), step.value_iterated_to() as f64))
                .collect();
            points.push((times.len().max(2) as f64, times.max() as f64));
            points.dedup_by(|a, b| a.0 <= b.0);
            let name = format!("{} {} {}", run.label, nth / 2 + 1, class.label);
            lines.push(Line { name, points });
        }
    }
    let plot = Plot {
        title: "Latency from the planned send time, by percentile",
        ticks,
        across: Scale::Log,
        up: Scale::Log,
        show: units::time,
        lines,
    };
    Ok(format!("<h2>Latency</h2>\n{}", plot.svg()))
}

fn over_time(run: &Run) -> String {
    let seconds: Vec<f64> = run.intervals.iter().map(|interval| interval.index as f64).collect();
    let last = seconds.last().copied().unwrap_or(1.0);
    let step = (last / 10.0).ceil().max(1.0);
    let ticks = || -> Vec<(f64, String)> {
        (0..=(last / step) as u64).map(|nth| (nth as f64 * step, format!("{} s", nth as f64 * step))).collect()
    };
    let line = |name: &str, value: &dyn Fn(&crate::figures::IntervalFigures) -> f64| Line {
        name: name.to_owned(),
        points: run.intervals.iter().map(|interval| (interval.index as f64, value(interval))).collect(),
    };
    let throughput = Plot {
        title: "Deliveries per second",
        ticks: ticks(),
        across: Scale::Linear,
        up: Scale::Linear,
        show: units::short,
        lines: vec![line("deliveries/s", &|interval| interval.deliveries as f64 / interval.seconds.max(1e-9))],
    };
    let mut out = format!("<h2>{} {} over time</h2>\n{}", escape(&run.label), escape(&run.name), throughput.svg());
    if run.open_loop {
        let latency = Plot {
            title: "Latency, second by second",
            ticks: ticks(),
            across: Scale::Linear,
            up: Scale::Log,
            show: units::time,
            lines: vec![
                line("p50", &|interval| interval.latency.p50_ns as f64),
                line("p99", &|interval| interval.latency.p99_ns as f64),
                line("max", &|interval| interval.latency.max_ns as f64),
            ],
        };
        out += &latency.svg();
    }
    out
}

fn set_up(report: &Report, out: &mut String) {
    let machine = &report.machine;
    let spec = serde_json::to_string_pretty(&report.spec).unwrap_or_default();
    let _ = writeln!(
        out,
        "<h2>Set-up</h2><pre>{}\nloadgen {}{}\n{}, {} cores, {}, {}\n\n{}</pre>",
        escape(&report.command.join(" ")),
        report.version,
        report.commit.as_ref().map_or_else(String::new, |commit| format!(", commit {commit}")),
        escape(&machine.cpu),
        machine.cores,
        units::bytes(machine.memory as f64),
        escape(&machine.kernel),
        escape(&spec)
    );
}
