//! Outputs: the same figures for people, for programs, for HdrHistogram's tools, and as a page.

pub mod compare;
pub mod conditions;
pub mod curve;
pub mod files;
pub mod hdr;
pub mod plot;
pub mod question;
pub mod report;
pub mod summary;
pub mod sweep;
pub mod table;
pub mod terminal;
pub mod verdict;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use self::files::Files;
use crate::{
    cli::{self, Command, Compare, Summary},
    figures::Report,
    merge,
};

/// Opens the files that a command asks for.
///
/// # Errors
/// One can't be written: which, by its flag.
pub fn open(command: &Command) -> Result<Files> {
    match command.scenario() {
        Some((_, options, ..)) => Files::open(options),
        None => Ok(Files::default()),
    }
}

/// Writes the files that were asked for, and prints a session's results.
///
/// # Errors
/// Everything that could not be written; the rest was.
pub fn write(command: &Command, files: Files, report: &Report) -> Result<()> {
    if command.scenario().is_none() {
        return Ok(());
    }
    let mut text = table::searched(report) + &table::session(report);
    text.push_str(&verdict::advice(report));
    if report.runs.len() > 1 {
        text.push('\n');
        text.push_str(&compare::sessions(std::slice::from_ref(report), false));
    }
    text += &table::thresholds(report);
    files::all([files.write(report), terminal::print(&text)])
}

/// Puts result files side by side: returns the table, and writes all runs as one result where asked to.
pub fn compared(compare: &Compare) -> Result<String> {
    let reports = compare.files.iter().map(merge::read).collect::<Result<Vec<_>>>()?;
    let mut all = reports.first().context("no result to compare")?.clone();
    all.thresholds.clear();
    all.search = None;
    all.runs = reports.iter().flat_map(|report| report.runs.clone()).collect();
    let written = [
        compare.json.as_ref().map(|path| json(path, &all)),
        compare.report.as_ref().map(|path| file(path, report::page(&all)?.as_bytes())),
    ];
    files::all(written.into_iter().flatten())?;
    Ok(compare::sessions(&reports, compare.markdown))
}

/// Makes tables of the results of several questions, and draws what was asked for.
pub fn summed(summary: &Summary) -> Result<String> {
    let questions = summary.files.iter().map(question::Question::read).collect::<Result<Vec<_>>>()?;
    let drawn = |path: &Path, svg: Result<String>| file(path, plot::standalone(&svg?).as_bytes());
    let mut written = Vec::new();
    written.extend(summary.cost.as_ref().map(|path| drawn(path, summary::cost(&questions))));
    written.extend(summary.latency.as_ref().map(|path| drawn(path, summary::latency(&questions))));
    if let Some(folder) = &summary.curves {
        for (flag, svg) in curve::plots(&questions) {
            written.push(drawn(&folder.join(format!("curve-{flag}.svg")), Ok(svg)));
        }
    }
    files::all(written)?;
    Ok(summary::tables(&questions))
}

/// Makes the tables of a sweep, and draws it where asked to.
pub fn swept(sweep: &cli::Sweep) -> Result<String> {
    let reports = sweep.files.iter().map(merge::read).collect::<Result<Vec<_>>>()?;
    let swept = sweep::Sweep::of(reports, sweep.against.as_deref())?;
    if let Some(path) = &sweep.plot {
        file(path, plot::standalone(&swept.plot()).as_bytes())?;
    }
    Ok(swept.tables())
}

/// Says what results were measured on.
pub fn conditions(paths: &[PathBuf]) -> Result<String> {
    Ok(conditions::of(&paths.iter().map(merge::read).collect::<Result<Vec<_>>>()?))
}

/// Merges result files: returns the table, and writes the sum where asked to.
pub fn merged(paths: &[PathBuf], to: Option<&Path>) -> Result<String> {
    let report = merge::files(paths)?;
    if let Some(to) = to {
        json(to, &report)?;
    }
    Ok(table::session(&report))
}

fn json(path: &Path, report: &Report) -> Result<()> {
    file(path, &pretty(report)?)
}

fn pretty(report: &Report) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(report)?)
}

fn file(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
