//! HdrHistogram's own file formats, as its plotters and log processors read them.
//!
//! `.hgrm` is a percentile distribution as text; `.hlog` is a log of interval histograms, compressed (V2). Values are in
//! milliseconds, as is customary there; the histograms inside a log are in nanoseconds.

use std::{
    fmt::Write,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use hdrhistogram::serialization::{
    V2DeflateSerializer,
    interval_log::{IntervalLogWriterBuilder, Tag},
};

use crate::{
    figures::Report,
    meter::{Times, add, times},
};

/// Nanoseconds in the unit of the text formats.
const UNIT: f64 = 1e6;

/// Steps of the percentile distribution for each halving of the distance to 100 %.
const STEPS: u32 = 5;

/// The percentile distribution of all runs against the first target.
pub fn percentiles(report: &Report) -> Result<Vec<u8>> {
    let (mut sum, mut publications) = (times(), 0);
    for run in report.runs.iter().filter(|run| run.label == "A") {
        add(&mut sum, &run.latency()?);
        publications += run.publications;
    }
    // The format goes to the last delivery; how far it can be believed is said beside it.
    let note = format!(
        "#[Publications = {publications}, of which ten have to lie beyond a percentile: deliveries of one are one sample]\n"
    );
    Ok((distribution(&sum) + &note).into_bytes())
}

/// One histogram as text.
fn distribution(times: &Times) -> String {
    let mut out = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    for step in times.iter_quantiles(STEPS) {
        let value = step.value_iterated_to() as f64 / UNIT;
        let quantile = step.quantile_iterated_to();
        let below = times.count_between(0, step.value_iterated_to());
        let _ = match 1.0 / (1.0 - quantile) {
            inverse if inverse.is_finite() => {
                writeln!(out, "{value:>12.3} {quantile:>2.12} {below:>10} {inverse:>14.2}")
            }
            _ => writeln!(out, "{value:>12.3} {quantile:>2.12} {below:>10}"),
        };
    }
    let (mean, deviation) = (times.mean() / UNIT, times.stdev() / UNIT);
    let max = times.max() as f64 / UNIT;
    let _ = writeln!(out, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]");
    let _ = writeln!(out, "#[Max     = {max:>12.3}, Total count    = {:>12}]", times.len());
    let _ = writeln!(out, "#[Buckets = {:>12}, SubBuckets     = {:>12}]", times.buckets(), 2048);
    out
}

/// The log of all runs, second by second, tagged with the target's label.
pub fn log(report: &Report) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let started = UNIX_EPOCH + Duration::from_secs(report.started);
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment(&format!("[loadgen {}: latency from planned send times, in ns]", report.version))
        .with_start_time(started)
        .with_base_time(UNIX_EPOCH)
        .with_max_value_divisor(UNIT)
        .begin_log_with(&mut out, &mut serializer)
        .context("beginning the log")?;
    let mut begin = Duration::from_secs(report.started);
    for run in &report.runs {
        for interval in &run.intervals {
            let length = Duration::from_secs_f64(interval.seconds);
            let histogram = interval.latency.times()?;
            writer
                .write_histogram(&histogram, begin, length, Tag::new(&run.label))
                .map_err(|error| anyhow::anyhow!("writing the log: {error:?}"))?;
            begin += length;
        }
    }
    drop(writer);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_distribution_climbs_to_all_values_and_the_maximum() {
        let mut times = times();
        (1..=100_000u64).for_each(|nth| times.record(nth * 1_000).unwrap());
        let text = distribution(&times);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().filter_map(|field| field.parse().ok()).collect())
            .collect();
        assert!(rows.len() > 50);
        assert!(rows.windows(2).all(|pair| pair[1][0] >= pair[0][0] && pair[1][1] >= pair[0][1]));
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2]), (1.0, 100_000.0));
        let median = rows.iter().find(|row| row[1] == 0.5).unwrap();
        assert!((median[0] - 50.0).abs() < 0.1 && (median[3] - 2.0).abs() < 1e-9, "{median:?}");
        assert!(text.contains("#[Max     =      100"), "{text}");
    }
}
