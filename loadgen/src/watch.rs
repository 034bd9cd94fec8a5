//! Watching a run: progress bars on a terminal, plain lines elsewhere, nothing where quiet is asked for.
//!
//! Everything here goes to standard error; standard output is for results.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{figures::IntervalFigures, output::terminal::say, samples, units};

/// Is told how far a run is.
pub trait Watcher {
    /// A run begins; `title` says which.
    fn begin(&mut self, title: &str);
    /// So many connections are up.
    fn opening(&mut self, live: usize, failed: usize, of: usize);
    /// A second is over.
    fn interval(&mut self, figures: &IntervalFigures, with_latency: bool);
}

/// The watcher that suits where standard error goes.
pub fn watcher(quiet: bool) -> Box<dyn Watcher> {
    match () {
        () if quiet => Box::new(Quiet),
        () if stderr().is_terminal() => Box::new(Bars::default()),
        () => Box::new(Lines::default()),
    }
}

/// Says nothing.
pub struct Quiet;

impl Watcher for Quiet {
    fn begin(&mut self, _: &str) {}
    fn opening(&mut self, _: usize, _: usize, _: usize) {}
    fn interval(&mut self, _: &IntervalFigures, _: bool) {}
}

/// One line for each tenth of a ramp, and for each second.
#[derive(Default)]
pub struct Lines {
    tenths: usize,
}

impl Watcher for Lines {
    fn begin(&mut self, title: &str) {
        self.tenths = 0;
        say(title);
    }

    fn opening(&mut self, live: usize, failed: usize, of: usize) {
        let tenths = 10 * (live + failed) / of.max(1);
        if tenths > self.tenths {
            self.tenths = tenths;
            say(ramp_line(live, failed, of));
        }
    }

    fn interval(&mut self, figures: &IntervalFigures, with_latency: bool) {
        say(interval_line(figures, with_latency));
    }
}

/// A bar while connections ramp up, then lines.
#[derive(Default)]
pub struct Bars {
    bar: Option<ProgressBar>,
}

impl Watcher for Bars {
    fn begin(&mut self, title: &str) {
        say(title);
    }

    fn opening(&mut self, live: usize, failed: usize, of: usize) {
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{bar:40} {msg}").expect("the template is constant and valid");
            ProgressBar::new(of as u64).with_style(style)
        });
        bar.set_position((live + failed) as u64);
        bar.set_message(ramp_line(live, failed, of));
        if live + failed == of {
            bar.finish();
            self.bar = None;
        }
    }

    fn interval(&mut self, figures: &IntervalFigures, with_latency: bool) {
        say(interval_line(figures, with_latency));
    }
}

fn ramp_line(live: usize, failed: usize, of: usize) -> String {
    let failed = if failed > 0 { format!(", {} failed", units::count(failed as u64)) } else { String::new() };
    format!("connected {} of {}{failed}", units::count(live as u64), units::count(of as u64))
}

/// One second in one line; where nothing was due at planned moments, without latencies.
pub fn interval_line(figures: &IntervalFigures, with_latency: bool) -> String {
    let seconds = figures.seconds.max(1e-9);
    let (latency, joined) = (&figures.latency, figures.joined);
    let mut line = format!(
        "{:>4} s  {:>8} deliveries/s  {:>9}/s",
        figures.index + 1,
        units::short(figures.deliveries as f64 / seconds),
        units::bytes(figures.bytes as f64 / seconds)
    );
    if with_latency && latency.count > 0 {
        let time = |ns: u64| units::time(ns as f64);
        line += &format!("  p50 {:>8}", time(latency.p50_ns));
        if samples::enough(0.99, figures.publications).is_ok() {
            line += &format!("  p99 {:>8}", time(latency.p99_ns));
        }
        line += &format!("  max {:>8}", time(latency.max_ns));
    }
    if joined > 0 {
        line += &format!("  {} connections", units::count(joined));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Distribution;

    #[test]
    fn a_second_is_one_line_with_its_units() {
        let mut times = crate::meter::times();
        times.record(1_000_000).unwrap();
        let latency = Distribution::of(&times);
        let (deliveries, publications) = (50_000, 1_000);
        let figures =
            IntervalFigures { index: 2, seconds: 1.0, deliveries, publications, bytes: 1 << 20, joined: 3, latency };
        let line = interval_line(&figures, true);
        for part in ["3 s", "50k deliveries/s", "1MiB/s", "p50", "p99", "3 connections"] {
            assert!(line.contains(part), "{line}");
        }
        assert!(!line.contains('\n') && !interval_line(&figures, false).contains("p50"));
        let few = IntervalFigures { publications: 50, ..figures };
        assert!(!interval_line(&few, true).contains("p99"));
    }
}
