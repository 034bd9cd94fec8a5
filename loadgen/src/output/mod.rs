//! Outputs: the same figures for people, for programs, for HdrHistogram's tools, and as a page.

pub mod compare;
pub mod curve;
pub mod hdr;
pub mod plot;
pub mod report;
pub mod summary;
pub mod table;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    cli::{Command, Compare, Summary},
    figures::Report,
    merge,
};

/// Prints a session's results and writes the files that were asked for.
pub fn write(command: &Command, report: &Report) -> Result<()> {
    let Some((_, options, ..)) = command.scenario() else { return Ok(()) };
    if options.part.is_some() {
        return part(report);
    }
    print!("{}", table::session(report));
    if report.runs.len() > 1 {
        print!("\n{}", compare::sessions(std::slice::from_ref(report), false));
    }
    if let Some(path) = &options.json {
        json(path, report)?;
    }
    if let Some(path) = &options.hgrm {
        file(path, &hdr::percentiles(report)?)?;
    }
    if let Some(path) = &options.hlog {
        file(path, &hdr::log(report)?)?;
    }
    if let Some(path) = &options.report {
        file(path, report::page(report)?.as_bytes())?;
    }
    Ok(())
}

/// A part of a run tells its conductor, in one line.
fn part(report: &Report) -> Result<()> {
    let run = report.runs.first().context("this part measured nothing")?;
    println!("{}", serde_json::to_string(run)?);
    Ok(())
}

/// Puts result files side by side: returns the table, and writes all runs as one result where asked to.
pub fn compared(compare: &Compare) -> Result<String> {
    let reports = compare.files.iter().map(merge::read).collect::<Result<Vec<_>>>()?;
    let mut all = reports.first().context("no result to compare")?.clone();
    all.runs = reports.iter().flat_map(|report| report.runs.clone()).collect();
    if let Some(path) = &compare.json {
        json(path, &all)?;
    }
    if let Some(path) = &compare.report {
        file(path, report::page(&all)?.as_bytes())?;
    }
    Ok(compare::sessions(&reports, compare.markdown))
}

/// Makes tables of the results of several questions, and draws what was asked for.
pub fn summed(summary: &Summary) -> Result<String> {
    let questions = summary.files.iter().map(summary::Question::read).collect::<Result<Vec<_>>>()?;
    if let Some(path) = &summary.cost {
        file(path, plot::standalone(&summary::cost(&questions)?).as_bytes())?;
    }
    if let Some(path) = &summary.latency {
        file(path, plot::standalone(&summary::latency(&questions)?).as_bytes())?;
    }
    if let Some(folder) = &summary.curves {
        for (flag, svg) in curve::plots(&questions) {
            file(&folder.join(format!("curve-{flag}.svg")), plot::standalone(&svg).as_bytes())?;
        }
    }
    Ok(summary::tables(&questions))
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
    file(path, serde_json::to_string_pretty(report)?.as_bytes())
}

fn file(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
