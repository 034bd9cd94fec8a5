//! A question: one file of runs against several targets, and what is told of those of one target.
//!
//! All figures are medians over a target's runs, but for percentiles further out, which are of all of them together.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::compare::{Group, groups, spread};
use crate::{
    figures::{Report, Run},
    merge,
    spec::Pace,
    units,
};

/// What the bare loop is called in results, after its subcommand.
const BARE_LOOP: &str = "bare-loop";

/// Bytes of one segment over loopback: up to here a send costs nearly what the smallest does, and twice as much just beyond.
const SEGMENT: f64 = 65_483.0;

/// The runs that answer one question.
pub struct Question {
    /// What it is called: the file's name.
    pub(super) name: String,
    pub(super) report: Report,
}

impl Question {
    /// Reads a file.
    pub fn read(path: &PathBuf) -> Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let report = merge::read(path)?;
        ensure!(!report.runs.is_empty(), "{} holds no runs", path.display());
        Ok(Self { name: name.split('.').next().unwrap_or_default().to_owned(), report })
    }

    /// The runs of each target.
    pub(super) fn groups(&self) -> Vec<Group<'_>> {
        groups(std::slice::from_ref(&self.report))
    }

    /// What the others are measured against.
    pub(super) fn first(&self) -> Group<'_> {
        self.groups().swap_remove(0)
    }

    /// Publications in flight, where it is of a closed window.
    pub(super) fn window(&self) -> Option<usize> {
        match self.report.spec.pace {
            Pace::Window(window) => Some(window),
            _ => None,
        }
    }

    /// What tells questions apart, but for their loads.
    pub(super) fn shape(&self) -> (usize, usize, usize, usize) {
        let spec = &self.report.spec;
        (spec.subs, spec.size, spec.topics, spec.topics_per_sub)
    }

    /// Processor time of one send by the bare loop, if this is where it makes one for each delivery, and like `other` in all else.
    pub(super) fn send_like(&self, other: &Self) -> Option<f64> {
        let alike = self.window() == Some(1) && self.shape() == other.shape();
        let groups = self.groups();
        let bare = groups.iter().find(|group| alike && group.name == BARE_LOOP)?;
        Some(median(bare, cpu)).filter(|send| *send > 0.0)
    }

    /// How many publications a send can carry at most: all that are under way to one subscriber, as far as a segment holds them.
    pub(super) fn in_a_send(&self) -> f64 {
        let spec = &self.report.spec;
        let own = self.window().unwrap_or(1) as f64 * spec.topics_per_sub as f64 / spec.topics.max(1) as f64;
        own.min(SEGMENT / spec.size as f64).max(1.0)
    }

    /// Whether any of its publications were due at planned moments.
    pub(super) fn has_latencies(&self) -> bool {
        self.report.runs.iter().any(|run| run.open_loop)
    }
}

/// A factor with as many places as mean something.
pub(super) fn factor(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

/// A percentile of all runs together, or that there are too few publications for it.
pub(super) fn tail(group: &Group<'_>, quantile: f64) -> String {
    match group.tail(quantile) {
        None => "-".into(),
        Some(Ok(ns)) => units::time(ns),
        Some(Err(_)) => TOO_FEW.into(),
    }
}

/// What stands where a percentile would, if there are too few publications for it.
pub(super) const TOO_FEW: &str = "too few";

/// What is behind a figure, or a name, that isn't to be quoted.
pub(super) fn mark(group: &Group<'_>) -> &'static str {
    match () {
        () if group.runs.iter().any(|run| matches!(run.exit(), 1 | 4)) => " !",
        () if group.runs.iter().any(|run| !run.doubts.is_empty()) => " ?",
        () => "",
    }
}

/// The median over a target's runs.
pub(super) fn median(group: &Group<'_>, of: impl Fn(&Run) -> f64) -> f64 {
    spread(group.runs.iter().map(|run| of(run)).collect()).1
}

/// Processor time of the server's for each delivery, in nanoseconds; 0 where nobody looked.
pub(super) fn cpu(run: &Run) -> f64 {
    run.server.as_ref().filter(|_| run.deliveries > 0).map_or(0.0, |server| server.cpu_ns_per_delivery)
}

/// Calls of `send` for each delivery; 0 where nobody knows.
pub(super) fn sends(run: &Run) -> f64 {
    run.sends_per_delivery().unwrap_or(0.0)
}
