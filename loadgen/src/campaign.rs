//! A campaign: the runs of one session, repeated and interleaved, and what is written about them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    cli::{Command, Options},
    conduct::{self, Assignment, Conduct, Conductor, Solo},
    dialect::Dialect,
    exit,
    figures::{FORMAT, Found, Outcome, Probe, Report, Run},
    machine::{self, Machine},
    merge,
    output::terminal::print,
    schedule::Capture,
    search::{self, Next, Search},
    session::{self, Setting},
    spec::{Pace, Part, Spec},
    thresholds::{self, Condition},
    tls,
    units::{Rate, Span},
    watch::{Quiet, Watcher, watcher},
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
    if let Some(condition) = &options.find_max {
        search::check(condition, &spec).context("--find-max").map_err(settings)?;
    }
    for condition in &options.fail_if {
        condition.check(&spec).context("--fail-if").map_err(settings)?;
    }
    let targets = targets(options, &spec).map_err(settings)?;
    let mut has_tls = spec.server_metrics.as_ref().is_some_and(|url| url.starts_with("https://"));
    for target in &targets {
        let dialect = dialect(target.url, &target.spec, capture.as_deref()).map_err(settings)?;
        session::check(&target.spec, &dialect).map_err(settings)?;
        has_tls |= dialect.subscribe_url().tls || dialect.publish_url().tls;
    }
    check_tls(&spec.tls, has_tls).map_err(settings)?;
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
        thresholds: Vec::new(),
        search: None,
    };
    let mut watcher = watcher(options.quiet);
    if let Some(condition) = &options.find_max {
        let searched = find_max(condition, &targets[0], options, capture, &mut report, watcher.as_mut(), stop);
        return match searched {
            Ok(()) => Ok(judged(report, options)),
            Err(error) => Err(Failure { error, code: exit::COULD_NOT, report: Some(Box::new(report)) }),
        };
    }
    for round in 0..options.repeat {
        for target in &targets {
            if stop.load(Ordering::Relaxed) {
                return Ok(judged(report, options));
            }
            watcher.begin(&format!("round {} of {}: {} {}", round + 1, options.repeat, target.label, target.url));
            match one(target, options, capture.clone(), watcher.as_mut(), stop) {
                Ok(run) => report.runs.push(Run { round: Some(options.round + round as u32), ..run }),
                Err(error) => return Err(Failure { error, code: exit::COULD_NOT, report: Some(Box::new(report)) }),
            }
        }
    }
    Ok(judged(report, options))
}

/// Refuses what is said of TLS where there is none.
fn check_tls(tls: &tls::Settings, has_tls: bool) -> Result<()> {
    let given = [(tls.ca.is_some(), "--tls-ca"), (tls.insecure, "--insecure"), (tls.resume, "--tls-resume")];
    match given.iter().find(|(given, _)| *given && !has_tls) {
        Some((_, flag)) => {
            bail!("{flag}: no address here is spoken to with TLS: write wss:// or https://, or leave it out")
        }
        None => Ok(()),
    }
}

/// Probes until the highest rate is found, and keeps its runs.
fn find_max(
    condition: &Condition,
    target: &Target<'_>,
    options: &Options,
    capture: Option<Arc<Capture>>,
    report: &mut Report,
    watcher: &mut dyn Watcher,
    stop: &Arc<AtomicBool>,
) -> Result<()> {
    let (quantile, asked) = (condition.quantile(), target.spec.duration);
    let mut search = Search::new(options.rate.unwrap_or(search::FIRST), search::lowest(quantile, asked));
    let (mut runs, mut found) = (Vec::new(), Found { condition: condition.to_string(), ..Found::default() });
    while let (Next::Probe(rate), false) = (search.next(), stop.load(Ordering::Relaxed)) {
        let spec = Spec {
            pace: Pace::Rate(Rate(rate)),
            duration: search::length(rate, quantile, asked),
            ..target.spec.clone()
        };
        watcher.begin(&format!("probe {}: {} for {}", found.probes.len() + 1, Rate(rate), spec.duration));
        let run = one(&Target { spec: spec.clone(), ..*target }, options, capture.clone(), watcher, stop)?;
        let probe = Probe::of(rate, condition, &run);
        watcher.begin(&format!("{}: {}", if probe.held { "held" } else { "failed" }, probe.found));
        search.enter(rate, probe.held);
        found.probes.push(probe);
        runs.push((rate, spec, run));
        pause(stop);
    }
    if let Next::Found(rate) = search.next() {
        found.rate = Some(rate);
        for (_, spec, run) in runs.into_iter().filter(|(probed, ..)| *probed == rate) {
            report.spec = spec;
            report.runs.push(run);
        }
    }
    report.search = Some(found);
    Ok(())
}

/// Gives a server that was asked too much the time to be done with it.
fn pause(stop: &AtomicBool) {
    for _ in 0..10 {
        if !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// With what came of the thresholds.
fn judged(mut report: Report, options: &Options) -> Report {
    report.thresholds = thresholds::judge(&options.fail_if, &report);
    report
}

/// The settings of a run, and the captured file where it needs one.
fn resolve(command: &Command) -> Result<(Spec, Option<Arc<Capture>>)> {
    let (scenario, options, pace, disturbance) = command.scenario().context("this runs nothing")?;
    ensure!(options.repeat > 0, "--repeat 0: at least 1 is needed");
    ensure!(options.processes > 0, "--processes 0: at least 1 is needed");
    let capture = pace.as_ref().map_or(Ok(None), |pace| capture(pace, options.duration))?;
    let captured = capture.as_ref().map(|capture| capture.topics.len());
    let mut spec = options.spec(scenario, pace, disturbance, captured)?;
    if let Command::Mix(mix) = command {
        let among = mix.watch_list;
        spec.topics_per_sub = among.mean().max(1);
        (spec.watch_list, spec.latest_share) = (Some(among), Some(mix.latest_share));
    }
    if let (Some(_), Pace::Window(_)) = (&options.find_max, &spec.pace) {
        spec.pace = Pace::Rate(search::FIRST);
    }
    Ok((spec, capture))
}

/// The captured file, where that is what is published.
fn capture(pace: &Pace, duration: Span) -> Result<Option<Arc<Capture>>> {
    let Pace::Replay { file, speed } = pace else { return Ok(None) };
    ensure!(*speed > 0.0, "--speed {speed}: a factor above 0 is needed");
    let longest = (duration.0 as f64 * speed) as u64;
    Ok(Some(Arc::new(Capture::load(file, longest)?)))
}

fn targets<'a>(options: &'a Options, spec: &Spec) -> Result<Vec<Target<'a>>> {
    let mut targets = vec![Target { label: "A", url: &options.url, spec: spec.clone() }];
    if let Some(url) = &options.against {
        ensure!(
            options.publish_url.is_some() == options.against_publish_url.is_some(),
            "--publish-url is of the first server and --against-publish-url of the second: give both or none"
        );
        let protocol = options.against_protocol.unwrap_or(options.protocol);
        let dialect = options.settings(protocol, options.against_publish_url.as_ref())?;
        let spec = Spec { server_pid: options.against_pid, server_metrics: None, dialect, ..spec.clone() };
        targets.push(Target { label: "B", url, spec });
    }
    Ok(targets)
}

fn dialect(url: &str, spec: &Spec, capture: Option<&Capture>) -> Result<Dialect> {
    let topics = match capture {
        Some(capture) => capture.topics.clone(),
        None => (0..spec.topics).map(|nth| spec.dialect.topic.replace("{n}", &nth.to_string())).collect(),
    };
    Dialect::new(url, spec.dialect.clone(), spec.form, topics)
}

/// One run, in as many processes as were asked for.
fn one(
    target: &Target<'_>,
    options: &Options,
    capture: Option<Arc<Capture>>,
    watcher: &mut dyn Watcher,
    stop: &Arc<AtomicBool>,
) -> Result<Run> {
    let spec = &target.spec;
    let setting = Setting { dialect: dialect(target.url, spec, capture.as_deref())?, capture, run: fastrand::u32(1..) };
    let mut go = |conduct: &mut dyn Conduct| session::run(spec, setting.clone(), target.label, conduct, watcher, stop);
    let mut run = match spec.part.of {
        1 => go(&mut Solo)?,
        _ => {
            let mut conductor = Conductor::start(&assignments(target, setting.run))?;
            let run = go(&mut conductor)?;
            merge::with_parts(run, &conductor.results()?)?
        }
    };
    if let Some(name) = options.name.as_ref().filter(|_| target.label == "A") {
        run.name = name.clone();
    }
    if target.label == "A" {
        run.version = options.server_version.clone();
    }
    Ok(run)
}

/// What the other processes of a run are to do: the same against the same server, but to look at it.
fn assignments(target: &Target<'_>, run: u32) -> Vec<Assignment> {
    let spec = Spec { server_pid: None, server_metrics: None, ..target.spec.clone() };
    let of = spec.part.of;
    let assignment = |index| Assignment {
        url: target.url.to_owned(),
        label: target.label.to_owned(),
        run,
        spec: Spec { part: Part { index, of }, ..spec.clone() },
    };
    (1..of).map(assignment).collect()
}

/// Does what another process of the same run says on standard input, and tells it the result in one line.
///
/// # Errors
/// Nobody says anything, or the run could not be made.
pub fn part(stop: &Arc<AtomicBool>) -> Result<()> {
    let (Assignment { url, label, run, spec }, mut conduct) = conduct::Part::assigned(std::io::stdin().lock())?;
    let capture = capture(&spec.pace, spec.duration)?;
    let setting = Setting { dialect: dialect(&url, &spec, capture.as_deref())?, capture, run };
    let run = session::run(&spec, setting, &label, &mut conduct, &mut Quiet, stop)?;
    print(&format!("{}\n", serde_json::to_string(&run)?))
}

/// The exit code of a whole session.
pub fn exit_code(report: &Report) -> u8 {
    let nothing = report.search.as_ref().is_some_and(|found| found.rate.is_none());
    let doubts = report.search.as_ref().is_some_and(|found| !found.doubts().is_empty());
    let kept = match () {
        () if nothing || report.thresholds.iter().any(Outcome::fails) => exit::THRESHOLDS,
        () if doubts => exit::DOUBTS,
        () => exit::FINE,
    };
    report.runs.iter().map(Run::exit).fold(kept, exit::worse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dialect::Protocol, spec::tests::sample};

    #[test]
    fn a_further_process_does_what_its_target_asks_for_and_leaves_the_server_to_the_first() {
        let mut spec = Spec { part: Part { index: 0, of: 3 }, server_pid: Some(7), ..sample() };
        spec.dialect.protocol = Protocol::Generic;
        spec.server_metrics = Some("http://b:1/metrics".into());
        let given = assignments(&Target { label: "B", url: "ws://b:1", spec }, 9);
        let parts: Vec<(usize, usize)> = given.iter().map(|one| (one.spec.part.index, one.spec.part.of)).collect();
        assert_eq!(parts, [(1, 3), (2, 3)]);
        for one in given {
            assert_eq!((one.url.as_str(), one.label.as_str(), one.run), ("ws://b:1", "B", 9));
            assert_eq!((one.spec.dialect.protocol, one.spec.server_pid), (Protocol::Generic, None));
            assert_eq!(one.spec.server_metrics, None);
        }
    }
}
