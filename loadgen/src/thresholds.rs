//! Thresholds: figures that a session has to keep to, and whether it did.
//!
//! `--fail-if 'p99>5ms'` is a figure, a comparison and a value. It is judged when all is done, on all runs against the first target: the
//! percentiles of latency on those of all runs together, as far as there are the publications for it ([`crate::samples`]), all else on the
//! median over the runs. A figure that can't be given has not been kept to.

use std::{fmt, str::FromStr};

use anyhow::{Result, ensure};

use crate::{
    figures::{Distribution, Outcome, Report, Run, WireFigures},
    samples::{self, Pool, QUANTILES},
    server::ServerFigures,
    spec::{Disturbance, Spec},
    units::{self, Bytes, Rate, Share, Span},
};

/// A comparison that must not hold, or one that has to.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    figure: &'static Figure,
    /// Names a percentile, where the figure has several.
    quantile: Option<(&'static str, f64)>,
    comparison: Comparison,
    value: f64,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// A figure that conditions may be about.
#[derive(Debug, PartialEq)]
struct Figure {
    name: &'static str,
    unit: Unit,
    of: Of,
    /// What it takes, where a session may not have it.
    needs: Needs,
}

/// Where a figure comes from.
#[derive(Clone, Copy, Debug)]
enum Of {
    /// Percentiles, named by themselves, of all publications' latency.
    Latency,
    /// Percentiles of other times, named behind the figure.
    Times(fn(&Run) -> &Distribution),
    /// The worst latency of all.
    Worst,
    /// The mean latency of all.
    Mean,
    /// One figure of each run.
    Each(fn(&Run) -> Option<f64>),
}

impl PartialEq for Of {
    /// Figures are told apart by their names.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Time,
    Rate,
    Bytes,
    Share,
    Number,
}

const FIGURES: [Figure; 18] = [
    Figure { name: "", unit: Unit::Time, of: Of::Latency, needs: Needs::Plan },
    Figure { name: "max", unit: Unit::Time, of: Of::Worst, needs: Needs::Plan },
    Figure { name: "mean", unit: Unit::Time, of: Of::Mean, needs: Needs::Plan },
    Figure { name: "spread-", unit: Unit::Time, of: Of::Times(|run| &run.spread), needs: Needs::Plan },
    Figure { name: "connecting-", unit: Unit::Time, of: Of::Times(|run| &run.joins), needs: Needs::Nothing },
    Figure { name: "returning-", unit: Unit::Time, of: Of::Times(|run| &run.rejoins), needs: Needs::Return },
    Figure {
        name: "deliveries",
        unit: Unit::Rate,
        of: Of::Each(|run| Some(run.deliveries_per_s())),
        needs: Needs::Nothing,
    },
    Figure {
        name: "publications",
        unit: Unit::Rate,
        of: Of::Each(|run| Some(run.publications_per_s())),
        needs: Needs::Nothing,
    },
    Figure { name: "delivered", unit: Unit::Share, of: Of::Each(Run::delivered), needs: Needs::Plan },
    Figure { name: "bytes", unit: Unit::Bytes, of: Of::Each(|run| Some(run.bytes_per_s())), needs: Needs::Nothing },
    Figure {
        name: "left",
        unit: Unit::Share,
        of: Of::Each(|run| run.wire.map(WireFigures::left)),
        needs: Needs::Nothing,
    },
    Figure {
        name: "connections",
        unit: Unit::Rate,
        of: Of::Each(|run| Some(run.connections_per_s)),
        needs: Needs::Nothing,
    },
    Figure {
        name: "missing",
        unit: Unit::Number,
        of: Of::Each(|run| Some(run.checks.missing as f64)),
        needs: Needs::Nothing,
    },
    Figure {
        name: "doubts",
        unit: Unit::Number,
        of: Of::Each(|run| Some(run.doubts.len() as f64)),
        needs: Needs::Nothing,
    },
    Figure { name: "cpu", unit: Unit::Time, of: Of::Each(cpu), needs: Needs::Server },
    Figure {
        name: "cores",
        unit: Unit::Number,
        of: Of::Each(|run| seen(run, |server| server.cores_busy)),
        needs: Needs::Server,
    },
    Figure {
        name: "memory",
        unit: Unit::Bytes,
        of: Of::Each(|run| seen(run, |server| server.resident_max as f64)),
        needs: Needs::Server,
    },
    Figure { name: "sends", unit: Unit::Number, of: Of::Each(Run::sends_per_delivery), needs: Needs::Counts },
];

/// What a figure takes, beside a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// Publications that are due at planned moments.
    Plan,
    /// Subscribers that come back.
    Return,
    /// The server's process.
    Server,
    /// Who counts sends: kernels of subscribers that stay, or the server.
    Counts,
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "something that was measured",
            Self::Plan => "publications that are due at planned moments: give a --rate",
            Self::Return => "subscribers that come under load, as with churn, storm and join",
            Self::Server => "--server-pid",
            Self::Counts => "subscribers that stay, or --server-metrics and a server that counts both",
        })
    }
}

fn seen(run: &Run, of: fn(&ServerFigures) -> f64) -> Option<f64> {
    run.server.as_ref().map(of)
}

fn cpu(run: &Run) -> Option<f64> {
    run.server.as_ref().filter(|_| run.deliveries > 0).map(|server| server.cpu_ns_per_delivery)
}

/// What can be compared with what, in one sentence.
pub const GRAMMAR: &str = "FIGURE, then > >= < or <=, then a value, like 'p99>5ms'. Figures: p50 p90 p99 p99.9 p99.99 max mean (latency), the \
     same percentiles after spread- connecting- returning-, deliveries publications connections (a second), bytes (a second), delivered \
     (the share of what was offered a second), left (the share of bytes that compression leaves), missing, doubts, cpu (a delivery), cores, memory, sends (a delivery)";

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at = text.find(['<', '>']).ok_or_else(|| format!("`{text}` compares nothing: write {GRAMMAR}"))?;
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let comparisons = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            (">", Comparison::Above),
            ("<", Comparison::Below),
        ];
        let found = comparisons.iter().find_map(|(sign, comparison)| Some((rest.strip_prefix(sign)?, *comparison)));
        let (value, comparison) = found.ok_or_else(|| format!("`{text}` compares nothing: write {GRAMMAR}"))?;
        let (figure, quantile) =
            named(name).ok_or_else(|| format!("`{name}` in `{text}` is no figure: write {GRAMMAR}"))?;
        let value = figure.unit.value(value.trim()).map_err(|why| format!("in `{text}`: {why}"))?;
        Ok(Self { figure, quantile, comparison, value, text: text.to_owned() })
    }
}

/// The figure of a name, and the percentile in it.
fn named(name: &str) -> Option<(&'static Figure, Option<(&'static str, f64)>)> {
    let of = |figure: &'static Figure| match figure.of {
        Of::Latency | Of::Times(_) => {
            let rest = name.strip_prefix(figure.name)?;
            let quantile = QUANTILES.iter().find(|(quantile, _)| *quantile == rest)?;
            Some((figure, Some(*quantile)))
        }
        _ => (figure.name == name).then_some((figure, None)),
    };
    FIGURES.iter().find_map(of)
}

impl Unit {
    fn value(self, text: &str) -> Result<f64, String> {
        match self {
            Self::Time => text.parse::<Span>().map(|span| span.0 as f64),
            Self::Rate => text.parse::<Rate>().map(|rate| rate.0),
            Self::Bytes => text.parse::<Bytes>().map(|bytes| bytes.0 as f64),
            Self::Share => text.parse::<Share>().map(|share| share.0),
            Self::Number => text.parse::<f64>().map_err(|_| format!("`{text}` is no number")),
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::Time => units::time(value),
            Self::Rate => format!("{}/s", units::short(value)),
            Self::Bytes => units::bytes(value),
            Self::Share => Share(value).to_string(),
            Self::Number => format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        }
    }
}

impl Comparison {
    fn holds(self, figure: f64, value: f64) -> bool {
        match self {
            Self::Above => figure > value,
            Self::AtLeast => figure >= value,
            Self::Below => figure < value,
            Self::AtMost => figure <= value,
        }
    }
}

impl Condition {
    /// Whether it holds of these runs, together.
    pub fn judge(&self, runs: &[&Run]) -> Outcome {
        let figure = self.measure(runs);
        let (holds, found) = match figure {
            Ok(figure) => (Some(self.comparison.holds(figure, self.value)), self.figure.unit.show(figure)),
            Err(why) => (None, why),
        };
        Outcome { condition: self.text.clone(), holds, found }
    }

    /// Refuses what runs of these settings can't tell.
    ///
    /// # Errors
    /// What it takes.
    pub fn check(&self, spec: &Spec) -> Result<()> {
        let given = match self.figure.needs {
            Needs::Nothing => true,
            Needs::Plan => spec.is_open_loop(),
            Needs::Return => {
                use Disturbance::{Churn, Join, Storm};
                matches!(spec.disturbance, Churn { .. } | Storm { .. } | Join { .. })
            }
            Needs::Server => spec.server_pid.is_some(),
            Needs::Counts => spec.disturbance == Disturbance::None || spec.server_metrics.is_some(),
        };
        ensure!(given, "`{}`: that figure takes {}", self.text, self.figure.needs);
        Ok(())
    }

    /// The percentile of latency that it is about.
    pub fn quantile(&self) -> Option<f64> {
        let (_, quantile) = self.quantile?;
        matches!(self.figure.of, Of::Latency).then_some(quantile)
    }

    /// Whether it holds at low rates rather than at high ones: an upper bound, or a lower one of the share that was delivered.
    pub fn holds_below(&self) -> bool {
        let upper = matches!(self.comparison, Comparison::Below | Comparison::AtMost);
        upper != (self.figure.name == "delivered")
    }

    fn measure(&self, runs: &[&Run]) -> Result<f64, String> {
        let quantile = self.quantile.map_or(0.5, |(_, quantile)| quantile);
        let none = || format!("there is none: it takes {}", self.figure.needs);
        let pool = || Pool::of(runs.iter().copied()).ok_or_else(none);
        match self.figure.of {
            Of::Latency => pool()?.quantile(quantile).map_err(|few| format!("{few} publications")),
            Of::Worst => Ok(pool()?.latency.max() as f64),
            Of::Mean => Ok(pool()?.latency.mean()),
            Of::Times(of) => {
                let mut sum = crate::meter::times();
                for run in runs {
                    crate::meter::add(&mut sum, &of(run).times().map_err(|error| error.to_string())?);
                }
                if sum.is_empty() {
                    return Err(none());
                }
                samples::enough(quantile, sum.len()).map_err(|few| few.to_string())?;
                Ok(sum.value_at_quantile(quantile) as f64)
            }
            Of::Each(of) => {
                let mut all = runs.iter().map(|run| of(run)).collect::<Option<Vec<f64>>>().ok_or_else(none)?;
                all.sort_by(f64::total_cmp);
                let middle = all.len().checked_sub(1).ok_or_else(none)?;
                Ok((all[middle / 2] + all[middle.div_ceil(2)]) / 2.0)
            }
        }
    }
}

/// A figure of runs against one target, by the name that it has in conditions: in nanoseconds, bytes, a second, or as a number.
///
/// # Errors
/// There is no such figure, or these runs can't tell it: why.
pub fn measure(name: &str, runs: &[&Run]) -> Result<f64, String> {
    let (figure, quantile) = named(name).ok_or_else(|| format!("`{name}` is no figure: write {GRAMMAR}"))?;
    let condition = Condition { figure, quantile, comparison: Comparison::Above, value: 0.0, text: name.to_owned() };
    condition.measure(runs)
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What came of the conditions under which a session fails, of its runs against the first target.
pub fn judge(conditions: &[Condition], report: &Report) -> Vec<Outcome> {
    let runs: Vec<&Run> = report.runs.iter().filter(|run| run.label == "A").collect();
    conditions.iter().map(|condition| condition.judge(&runs)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(text: &str) -> Condition {
        text.parse().unwrap()
    }

    #[test]
    fn a_condition_is_a_figure_a_comparison_and_a_value_with_its_unit() {
        let tail = condition("p99.9 >= 5ms");
        assert_eq!((tail.quantile, tail.comparison, tail.value), (Some(("p99.9", 0.999)), Comparison::AtLeast, 5e6));
        assert_eq!(
            (condition("spread-p50>1ms").figure.name, condition("memory<64MiB").value),
            ("spread-", 67_108_864.0)
        );
        assert_eq!((condition("deliveries<10k/s").value, condition("cores>0.5").value), (10_000.0, 0.5));
    }

    #[test]
    fn what_is_no_condition_is_refused_with_what_would_be() {
        let refused = |text: &str| text.parse::<Condition>().unwrap_err();
        for text in ["p99", "p99=5ms", "p98>5ms", "latency>1ms", ">5ms", "spread->1ms"] {
            assert!(refused(text).contains("'p99>5ms'"), "{text}: {}", refused(text));
        }
        assert!(refused("p99>5").contains("`5` is no length of time"), "{}", refused("p99>5"));
        assert!(refused("memory>5ms").contains("in `memory>5ms`"));
    }

    #[test]
    fn what_holds_at_low_rates_can_be_searched_for() {
        for text in ["p99<5ms", "cpu<=4us", "delivered>95%", "delivered>=0.95"] {
            assert!(condition(text).holds_below(), "{text}");
        }
        for text in ["p99>5ms", "deliveries>5/s", "delivered<95%"] {
            assert!(!condition(text).holds_below(), "{text}");
        }
        assert_eq!(
            (condition("delivered<95%").value, condition("delivered<95%").figure.unit.show(0.5)),
            (0.95, "50%".into())
        );
    }

    #[test]
    fn every_figure_is_in_the_sentence_that_names_them() {
        for figure in &FIGURES {
            assert!(GRAMMAR.contains(figure.name), "{}", figure.name);
        }
    }
}
