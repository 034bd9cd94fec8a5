//! Merging: the parts of one run, measured by several processes, become one result.
//!
//! Nothing is averaged: counts add up, histograms add bucket by bucket, so every percentile of the sum is what one
//! process would have measured.

use std::{collections::BTreeSet, fs, io::Read, path::PathBuf};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;

use crate::{
    doubts,
    figures::{Distribution, IntervalFigures, Report, Run, TlsFigures, WireFigures},
    machine::CoreWork,
    meter::add,
};

/// Adds the results of further parts, one JSON text each, to the first part's. What speaks against the sum is said of the sum: a part
/// knows neither the server's side nor what the others did on the cores that they share.
pub fn with_parts(mut first: Run, parts: &[String]) -> Result<Run> {
    for text in parts {
        let part: Run = serde_json::from_str(text).context("reading the result of a part")?;
        absorb(&mut first, &part)?;
    }
    first.doubts = doubts::of(&first);
    first.notes = doubts::notes(&first);
    if first.spread.count > 0 {
        first.notes.push("first to last subscriber: of those of the first process".into());
    }
    Ok(first)
}

/// Adds up the result files of the parts of one run.
pub fn files(paths: &[PathBuf]) -> Result<Report> {
    let mut reports = paths.iter().map(read).collect::<Result<Vec<_>>>()?.into_iter();
    let mut sum = reports.next().context("no result to merge")?;
    for report in reports {
        ensure!(
            report.runs.len() == sum.runs.len(),
            "parts of one session have as many runs each; these have {} and {}",
            sum.runs.len(),
            report.runs.len()
        );
        for (sum, part) in sum.runs.iter_mut().zip(&report.runs) {
            absorb(sum, part)?;
        }
        sum.spec.subs += report.spec.subs;
    }
    // They were judged on a part of it.
    sum.thresholds.clear();
    sum.search = None;
    Ok(sum)
}

/// How gzip files begin.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// Reads one result file, packed by gzip or not.
pub fn read(path: &PathBuf) -> Result<Report> {
    let mut text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    if text.starts_with(GZIP) {
        let mut plain = Vec::new();
        GzDecoder::new(&text[..]).read_to_end(&mut plain).with_context(|| format!("unpacking {}", path.display()))?;
        text = plain;
    }
    serde_json::from_slice(&text).with_context(|| format!("{} is no result of this version", path.display()))
}

fn absorb(sum: &mut Run, part: &Run) -> Result<()> {
    ensure!(sum.classes.len() == part.classes.len(), "parts of one run have the same classes of publications");
    for (sum, part) in sum.classes.iter_mut().zip(&part.classes) {
        merge(&mut sum.latency, &part.latency)?;
        merge(&mut sum.sent, &part.sent)?;
        if let Some(part) = &part.handed {
            let sum = sum.handed.get_or_insert_default();
            merge(&mut sum.until, &part.until)?;
            merge(&mut sum.since, &part.since)?;
        }
        sum.bytes += part.bytes;
        sum.publications = sum.publications.max(part.publications);
    }
    merge(&mut sum.joins, &part.joins)?;
    merge(&mut sum.rejoins, &part.rejoins)?;
    match (&mut sum.phases, &part.phases) {
        (Some(mine), Some(theirs)) => {
            let times = theirs.first.iter().chain(&theirs.again);
            for (sum, part) in mine.first.iter_mut().chain(&mut mine.again).zip(times) {
                merge(sum, part)?;
            }
        }
        (mine, theirs) => *mine = mine.take().or_else(|| theirs.clone()),
    }
    merge(&mut sum.spread, &part.spread)?;
    sum.spread_unknown += part.spread_unknown;
    sum.wire = sum.wire.zip(part.wire).map(|(sum, part)| WireFigures {
        bytes: sum.bytes + part.bytes,
        clear_bytes: sum.clear_bytes + part.clear_bytes,
        deliveries: sum.deliveries + part.deliveries,
    });
    let (mine, theirs) = (sum.deliveries as f64, part.deliveries as f64);
    let generator = &mut sum.generator;
    // Of what is said of each delivery.
    let mean = |a: f64, b: f64| (a * mine + b * theirs) / (mine + theirs).max(1.0);
    generator.receive_ns = mean(generator.receive_ns, part.generator.receive_ns);
    generator.receivers_busy.extend(&part.generator.receivers_busy);
    generator.backlog_bytes += part.generator.backlog_bytes;
    generator.connecting_busy = generator.connecting_busy.max(part.generator.connecting_busy);
    generator.tls = match (generator.tls.take(), &part.generator.tls) {
        (Some(mine), Some(theirs)) => Some(TlsFigures {
            receivers: mine.receivers.max(theirs.receivers),
            publisher: mine.publisher.max(theirs.publisher),
            ns_per_delivery: mean(mine.ns_per_delivery, theirs.ns_per_delivery),
            records_per_read: mean(mine.records_per_read, theirs.records_per_read),
            full: mine.full + theirs.full,
            resumed: mine.resumed + theirs.resumed,
        }),
        (mine, theirs) => mine.or_else(|| theirs.clone()),
    };
    generator.cores = union(&generator.cores, &part.generator.cores);
    generator.steal = generator.steal.max(part.generator.steal);
    generator.machine_busy = generator.machine_busy.max(part.generator.machine_busy);
    generator.work = match (generator.work.take(), &part.generator.work) {
        (Some(mine), Some(theirs)) => Some(CoreWork {
            cores: union(&mine.cores, &theirs.cores),
            busy: mine.busy.max(theirs.busy),
            own: mine.own + theirs.own,
        }),
        (mine, theirs) => mine.or_else(|| theirs.clone()),
    };
    sum.stopped |= part.stopped;
    sum.seconds = sum.seconds.max(part.seconds);
    sum.connected += part.connected;
    sum.connections_per_s += part.connections_per_s;
    sum.publications = sum.publications.max(part.publications);
    sum.deliveries += part.deliveries;
    sum.bytes += part.bytes;
    sum.segments = sum.segments.zip(part.segments).map(|(mine, theirs)| mine + theirs);
    sum.checks.add(&part.checks);
    sum.faults = sum.checks.faults();
    sum.ended = sum.ended.take().or_else(|| part.ended.clone());
    extend(&mut sum.doubts, &part.doubts);
    extend(&mut sum.notes, &part.notes);
    if let Some(server) = &mut sum.server {
        server.cpu_ns_per_delivery = server.cpu_ns as f64 / sum.deliveries.max(1) as f64;
    }
    absorb_intervals(&mut sum.intervals, &part.intervals)
}

fn absorb_intervals(sum: &mut Vec<IntervalFigures>, part: &[IntervalFigures]) -> Result<()> {
    for interval in part {
        match sum.iter_mut().find(|mine| mine.index == interval.index) {
            None => sum.push(interval.clone()),
            Some(mine) => {
                mine.deliveries += interval.deliveries;
                mine.bytes += interval.bytes;
                mine.joined += interval.joined;
                mine.publications = mine.publications.max(interval.publications);
                mine.seconds = mine.seconds.max(interval.seconds);
                merge(&mut mine.latency, &interval.latency)?;
            }
        }
    }
    sum.sort_by_key(|interval| interval.index);
    Ok(())
}

/// The numbers of both, in order.
fn union(a: &[usize], b: &[usize]) -> Vec<usize> {
    a.iter().chain(b).copied().collect::<BTreeSet<usize>>().into_iter().collect()
}

/// What several parts say is said once.
fn extend(sum: &mut Vec<String>, part: &[String]) {
    for text in part {
        if !sum.contains(text) {
            sum.push(text.clone());
        }
    }
}

fn merge(sum: &mut Distribution, part: &Distribution) -> Result<()> {
    let mut times = sum.times()?;
    // Stored histograms end at their highest value: the sum must have room for both.
    times.auto(true);
    let other = part.times()?;
    let mut all = crate::meter::times();
    add(&mut all, &times);
    add(&mut all, &other);
    *sum = Distribution::of(&all);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::times;

    #[test]
    fn merged_percentiles_are_those_of_one_process() {
        let (mut a, mut b, mut all) = (times(), times(), times());
        for nth in 1..20_000u64 {
            let value = nth * nth % 1_000_003 + 1;
            if nth % 7 < 3 { &mut a } else { &mut b }.record(value).unwrap();
            all.record(value).unwrap();
        }
        let mut sum = Distribution::of(&a);
        merge(&mut sum, &Distribution::of(&b)).unwrap();
        assert_eq!(sum.percentiles(), Distribution::of(&all).percentiles());
        assert_eq!(sum.times().unwrap(), all);
    }
}
