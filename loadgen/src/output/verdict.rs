//! The verdict: whether a run worked, in one sentence before all else; and what is still to be done for figures that can be quoted.
//!
//! Whoever runs this for the first time wants to know whether the server was spoken to in its own way and whether everything came, and only
//! then how fast.

use crate::{
    figures::{Report, Run},
    samples::{self, Pool},
    spec::{Disturbance, Pace, Scenario, Spec},
    units::{Span, count},
};

/// What became of a run, as a line.
pub fn of(spec: &Spec, run: &Run) -> String {
    let (publications, deliveries) = (count(run.publications), count(run.deliveries));
    let left_out = match spec.disturbance {
        _ if spec.dialect.latest => ", or were left out as agreed",
        Disturbance::Slow { .. } if spec.latest_share.is_some() => " who kept reading, or were left out as agreed",
        Disturbance::Slow { .. } => " who kept reading",
        _ => "",
    };
    let what = match spec.scenario {
        _ if run.ended.is_some() => {
            return "It did not come to its end: these figures are of what was done until then.\n".into();
        }
        _ if !run.faults.is_empty() => return "It did not work: see the faults.\n".into(),
        Scenario::Connect => format!("{} connections were set up and kept", count(run.connected)),
        Scenario::Listen if run.deliveries == 0 => return "Nothing came.\n".into(),
        Scenario::Listen => format!("{deliveries} messages came"),
        _ if spec.bare => {
            format!("{publications} publications, {deliveries} deliveries, of which nothing was verified (--bare)")
        }
        _ => format!(
            "{publications} publications reached everybody{left_out}: {deliveries} deliveries, each byte as it was sent"
        ),
    };
    let quotable = if run.doubts.is_empty() { "" } else { " Don't quote the figures, for the doubts below." };
    format!("It worked: {what}.{quotable}\n")
}

/// What a session lacks whose figures are to be believed by others; empty where it lacks nothing.
pub fn advice(report: &Report) -> String {
    let steps = steps(report);
    if steps.is_empty() {
        return String::new();
    }
    let line = |step: &String| format!("  - {step}\n");
    format!("For figures that can be quoted:\n{}", steps.iter().map(line).collect::<String>())
}

fn steps(report: &Report) -> Vec<String> {
    let (spec, runs) = (&report.spec, report.runs.iter().filter(|run| run.label == "A").count());
    let mut steps = Vec::new();
    if runs == 0 || spec.scenario == Scenario::Listen {
        return steps;
    }
    let (observed, pinned) = (spec.server_pid.is_some(), !spec.cores.is_empty());
    if !observed {
        steps.push("--server-pid PID tells which side was the limit, and what a delivery costs the server".into());
    }
    if !pinned {
        steps.push(
            "keep the server and this generator on cores of their own: taskset -c 0 for the server, --cores 1 here"
                .into(),
        );
    }
    if runs < 3 {
        steps
            .push("--repeat 3 shows how far runs lie apart; --against URL runs another server in turns with it".into());
    }
    steps.extend(longer(report));
    if matches!(spec.pace, Pace::Window(_)) {
        steps.push("this is throughput; for latencies give a --rate that the server holds easily".into());
    }
    steps
}

/// How long a session has to be for p99.
fn longer(report: &Report) -> Option<String> {
    let (spec, runs) = (&report.spec, report.runs.iter().filter(|run| run.label == "A"));
    let pool = Pool::of(runs.clone()).filter(|_| spec.is_open_loop())?;
    let few = samples::enough(0.99, pool.publications).err()?;
    let seconds = spec.duration.seconds() * few.need as f64 / few.have.max(1) as f64;
    let duration = Span::s(seconds.ceil() as u64);
    Some(format!("--duration {duration} makes the {} publications that p99 takes, at this rate", count(few.need)))
}
