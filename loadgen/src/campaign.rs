//! A campaign: the runs of one session, repeated and interleaved, and what is written about them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};

use crate::{
    cli::{Command, Options},
    conduct::{Conduct, Conductor, Part, Solo},
    dialect::Dialect,
    exit,
    figures::{FORMAT, Report, Run},
    machine::{self, Machine},
    merge,
    schedule::Capture,
    session::{self, Setting},
    spec::{Pace, Spec},
    watch::{Watcher, watcher},
};

/// A failure, and the exit code that it asks for.
#[derive(Debug)]
pub struct Failure {
    /// The plain sentence.
    pub error: anyhow::Error,
    /// The exit code.
    pub code: u8,
    /// What was done until then.
    pub report: Option<Box<Report>>,
}

/// One target of a campaign.
struct Target<'a> {
    label: &'static str,
    url: &'a str,
    spec: Spec,
}

/// Runs what the command line asks for, once the settings can be met and `prepare` has done its part.
///
/// # Errors
/// The settings can't be met, `prepare` failed, or a run could not be made.
pub fn run(
    command: &Command,
    arguments: Vec<String>,
    stop: &Arc<AtomicBool>,
    prepare: impl FnOnce() -> Result<()>,
) -> Result<Report, Failure> {
    let settings = |error| Failure { error, code: exit::SETTINGS, report: None };
    let (spec, capture) = resolve(command).map_err(settings)?;
    let (_, options, ..) = command.scenario().expect("a scenario, as resolved");
    let targets = targets(options, &spec);
    for target in &targets {
        let dialect = dialect(target, capture.as_deref()).map_err(settings)?;
        session::check(&target.spec, &dialect).map_err(settings)?;
    }
    prepare().map_err(settings)?;
    let mut report = Report {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        commit: machine::commit(),
        started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        command: arguments,
        machine: Machine::read(),
        spec: spec.clone(),
        runs: Vec::new(),
    };
    let mut watcher = watcher(options.quiet || options.part.is_some());
    for round in 0..options.repeat {
        for target in &targets {
            if stop.load(Ordering::Relaxed) {
                return Ok(report);
            }
            watcher.begin(&format!("round {} of {}: {} {}", round + 1, options.repeat, target.label, target.url));
            match one(target, options, capture.clone(), &report.command, watcher.as_mut(), stop) {
                Ok(run) => report.runs.push(run),
                Err(error) => return Err(Failure { error, code: exit::COULD_NOT, report: Some(Box::new(report)) }),
            }
        }
    }
    Ok(report)
}

/// The settings of a run, and the captured file where it needs one.
fn resolve(command: &Command) -> Result<(Spec, Option<Arc<Capture>>)> {
    let (scenario, options, pace, disturbance) = command.scenario().context("this runs nothing")?;
    ensure!(options.repeat > 0, "--repeat 0: at least 1 is needed");
    ensure!(options.processes > 0, "--processes 0: at least 1 is needed");
    let capture = match &pace {
        Some(Pace::Replay { file, speed }) => {
            ensure!(*speed > 0.0, "--speed {speed}: a factor above 0 is needed");
            let longest = (options.duration.0 as f64 * speed) as u64;
            Some(Arc::new(Capture::load(file, longest)?))
        }
        _ => None,
    };
    let captured = capture.as_ref().map(|capture| capture.topics.len());
    Ok((options.spec(scenario, pace, disturbance, captured)?, capture))
}

fn targets<'a>(options: &'a Options, spec: &Spec) -> Vec<Target<'a>> {
    let mut targets = vec![Target { label: "A", url: &options.url, spec: spec.clone() }];
    if let Some(url) = &options.against {
        let dialect = options.settings(options.against_protocol.unwrap_or(options.protocol));
        let spec = Spec { server_pid: options.against_pid, server_metrics: None, dialect, ..spec.clone() };
        targets.push(Target { label: "B", url, spec });
    }
    targets
}

fn dialect(target: &Target<'_>, capture: Option<&Capture>) -> Result<Dialect> {
    let spec = &target.spec;
    let topics = match capture {
        Some(capture) => capture.topics.clone(),
        None => (0..spec.topics).map(|nth| spec.dialect.topic.replace("{n}", &nth.to_string())).collect(),
    };
    Dialect::new(target.url, spec.dialect.clone(), spec.form, topics)
}

/// One run, in as many processes as were asked for.
fn one(
    target: &Target<'_>,
    options: &Options,
    capture: Option<Arc<Capture>>,
    arguments: &[String],
    watcher: &mut dyn Watcher,
    stop: &Arc<AtomicBool>,
) -> Result<Run> {
    let spec = &target.spec;
    let number = options.run_number.unwrap_or_else(|| fastrand::u32(1..));
    let setting = Setting { dialect: dialect(target, capture.as_deref())?, capture, run: number };
    let mut go = |conduct: &mut dyn Conduct| session::run(spec, setting.clone(), target.label, conduct, watcher, stop);
    let mut run = match (options.part, spec.part.of) {
        (Some(_), _) => go(&mut Part::new(std::io::stdin().lock()))?,
        (None, 1) => go(&mut Solo)?,
        (None, parts) => {
            let child = child_arguments(arguments, &options.url, target, number);
            let mut conductor = Conductor::start(&child, parts)?;
            let run = go(&mut conductor)?;
            merge::with_parts(run, &conductor.results()?)?
        }
    };
    if let Some(name) = options.name.as_ref().filter(|_| target.label == "A") {
        run.name = name.clone();
    }
    Ok(run)
}

/// The command line for another process of the same run: without what only the first does.
fn child_arguments(arguments: &[String], first: &str, target: &Target<'_>, number: u32) -> Vec<String> {
    const FIRST_ONLY: [&str; 9] =
        ["--json", "--hgrm", "--hlog", "--report", "--repeat", "--against", "--against-pid", "--server-pid", "--name"];
    let mut kept = Vec::new();
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        match FIRST_ONLY.iter().find(|&&name| argument == name || argument.starts_with(&format!("{name}="))) {
            Some(&name) if argument == name => drop(rest.next()),
            Some(_) => {}
            None => kept.push(argument.clone()),
        }
    }
    if let Some(url) = kept.iter_mut().find(|argument| *argument == first) {
        *url = target.url.to_owned();
    }
    kept.push(format!("--run-number={number}"));
    kept
}

/// The exit code of a whole session.
pub fn exit_code(report: &Report) -> u8 {
    report.runs.iter().map(Run::exit).fold(exit::FINE, exit::worse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::sample;

    #[test]
    fn a_further_process_writes_nothing_and_knows_its_run() {
        let text = "loadgen fanout ws://a:1 --json x.json --subs 9 --repeat=3 --against ws://b:1 --rate 5/s";
        let arguments: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let target = Target { label: "B", url: "ws://b:1", spec: sample() };
        let child = child_arguments(&arguments, "ws://a:1", &target, 7).join(" ");
        assert_eq!(child, "fanout ws://b:1 --subs 9 --rate 5/s --run-number=7");
    }
}
