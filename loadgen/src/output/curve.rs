//! Curves: what one setting of a server does, from the lowest of its values to the highest.
//!
//! Servers that differ in one flag are called `SERVER:FLAG=VALUE`, as `scripts/compare` calls them. All values of a flag that
//! were measured with one question make a curve, a point each: a table of what a send carries, what a delivery costs and
//! how long it takes; and plots of the latter two against the former. Several flags at once (`FLAG=VALUE+FLAG=VALUE`) make none.

use super::{
    compare::{Group, as_markdown, middle},
    plot::{self, Line, Plot, Scale},
    question::{Question, cpu, factor, mark, median, sends, tail},
};
use crate::{
    figures::Run,
    units::{self, Bytes, Span},
};

/// The values of one flag of one server, under one question.
pub(super) struct Curve<'a> {
    question: &'a Question,
    server: &'a str,
    flag: &'a str,
    /// What is measured against.
    first: Group<'a>,
    points: Vec<Point<'a>>,
}

/// One value and its runs.
struct Point<'a> {
    value: &'a str,
    group: Group<'a>,
}

/// A column of a curve's table.
struct Column {
    title: String,
    cell: Box<dyn Fn(&Group<'_>) -> String>,
}

/// The curves of a question, in the order in which its servers were measured.
pub(super) fn of(question: &Question) -> Vec<Curve<'_>> {
    let mut curves: Vec<Curve<'_>> = Vec::new();
    for group in question.groups() {
        let Some((server, flag, value)) = variant(group.name) else { continue };
        let point = Point { value, group };
        match curves.iter_mut().find(|curve| (curve.server, curve.flag) == (server, flag)) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { question, server, flag, first: question.first(), points: vec![point] }),
        }
    }
    curves.retain(|curve| curve.points.len() > 1);
    curves.iter_mut().for_each(|curve| in_order(&mut curve.points, |point| point.value));
    curves
}

/// Takes `SERVER:FLAG=VALUE` apart; none where a name is not of that kind.
fn variant(name: &str) -> Option<(&str, &str, &str)> {
    let (server, setting) = name.split_once(':')?;
    let (flag, value) = setting.split_once('=')?;
    let plain = flag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && !value.contains('+');
    (plain && !flag.is_empty() && !value.is_empty()).then_some((server, flag, value))
}

/// Sorts by value, where all of them are times, sizes or numbers; else it stays as it was.
fn in_order<T>(all: &mut [T], value: impl Fn(&T) -> &str) {
    if all.iter().all(|one| amount(value(one)).is_some()) {
        all.sort_by_key(|one| amount(value(one)));
    }
}

fn amount(value: &str) -> Option<u64> {
    let size = || value.parse::<Bytes>().map(|size| size.0 as u64);
    value.parse::<Span>().map(|span| span.0).or_else(|_| size()).ok()
}

impl Curve<'_> {
    /// Whether a server's runs are a point of it.
    pub fn holds(&self, name: &str) -> bool {
        self.points.iter().any(|point| point.group.name == name)
    }

    /// The table, below what it is of.
    pub fn table(&self) -> String {
        let columns = self.columns();
        let row = |value: &str, group: &Group<'_>| {
            let cells = columns.iter().map(|column| (column.cell)(group));
            std::iter::once(format!("{value}{}", mark(group))).chain(cells).collect::<Vec<String>>()
        };
        let mut rows = vec![vec![String::new()]];
        rows[0].extend(columns.iter().map(|column| column.title.clone()));
        if !self.holds(self.first.name) {
            rows.push(row(self.first.name, &self.first));
        }
        rows.extend(self.points.iter().map(|point| row(point.value, &point.group)));
        format!("`--{}` of {} at {}:\n\n{}", self.flag, self.server, self.question.name, as_markdown(&rows))
    }

    fn columns(&self) -> Vec<Column> {
        let base = median(&self.first, cpu);
        let ratio = move |group: &Group<'_>| match median(group, cpu) / base {
            ratio if ratio.is_finite() && ratio > 0.0 => factor(ratio),
            _ => "-".into(),
        };
        let mut columns = vec![
            column("publications a send", publications, factor),
            column("CPU a delivery", cpu, units::time),
            Column { title: format!("times {}", self.first.name), cell: Box::new(ratio) },
        ];
        if self.question.has_latencies() {
            columns.push(column("p50", middle, units::time));
            for (title, quantile) in [("p99", 0.99), ("p99.9", 0.999)] {
                columns.push(Column { title: title.into(), cell: Box::new(move |group| tail(group, quantile)) });
            }
        } else {
            columns.push(column("deliveries/s", |run| run.deliveries_per_s(), units::short));
        }
        columns.push(column("sends a delivery", sends, |value| format!("{value:.4}")));
        columns
    }

    /// Latency over `across`: the median and the tail. None where that isn't known or doesn't change: it would be no curve.
    fn latencies(&self, across: fn(&Run) -> f64) -> Vec<Line> {
        let at: Vec<f64> = self.points.iter().map(|point| median(&point.group, across)).collect();
        let (low, high) = at.iter().fold((f64::MAX, 0.0f64), |(low, high), &at| (low.min(at), high.max(at)));
        if low <= 0.0 || high < low * 1.05 {
            return Vec::new();
        }
        // A point that has too few publications for the percentile is left out.
        let line = |(label, quantile): (&str, f64)| {
            let known = at.iter().zip(&self.points).filter_map(|(&at, point)| {
                let ns = point.group.tail(quantile)?.ok()?;
                Some(((at, ns), point.value.to_owned()))
            });
            let (points, labels) = known.unzip();
            Line { name: format!("{}, {label}", self.name()), points, labels }
        };
        let mut lines: Vec<Line> = [("p50", 0.5), ("p99", 0.99)].map(line).into();
        lines.retain(|line| !line.points.is_empty());
        lines
    }

    /// Processor time of each value, at the value's place among `values`.
    fn costs(&self, values: &[&str]) -> Line {
        let place = |value: &str| values.iter().position(|known| *known == value).unwrap_or_default() as f64;
        let points = self.points.iter().map(|point| (place(point.value), median(&point.group, cpu))).collect();
        Line { name: self.name(), points, labels: self.points.iter().map(|_| String::new()).collect() }
    }

    /// Processor time of what is measured against, along `values` places.
    fn base(&self, values: usize) -> Line {
        let cost = median(&self.first, cpu);
        let points = vec![(0.0, cost), (values.saturating_sub(1) as f64, cost)];
        Line { name: format!("{}, {}", self.question.name, self.first.name), points, labels: Vec::new() }
    }

    fn name(&self) -> String {
        format!("{}, {}", self.question.name, self.server)
    }
}

/// A column of medians; a figure that isn't known is `-`.
fn column(title: &str, of: fn(&Run) -> f64, show: fn(f64) -> String) -> Column {
    let cell = move |group: &Group<'_>| match median(group, of) {
        value if value > 0.0 => show(value),
        _ => "-".into(),
    };
    Column { title: title.into(), cell: Box::new(cell) }
}

/// Publications that a send carries.
fn publications(run: &Run) -> f64 {
    let sends = sends(run);
    if sends > 0.0 { 1.0 / sends } else { 0.0 }
}

/// One picture for each flag that has curves: the flag, and the SVG.
pub(super) fn plots(questions: &[Question]) -> Vec<(String, String)> {
    let all: Vec<Curve<'_>> = questions.iter().flat_map(of).collect();
    let mut flags: Vec<&str> = Vec::new();
    for curve in &all {
        if !flags.contains(&curve.flag) {
            flags.push(curve.flag);
        }
    }
    let picture = |flag: &str| {
        let own: Vec<&Curve<'_>> = all.iter().filter(|curve| curve.flag == flag).collect();
        (flag.to_owned(), plot::stacked(&panels(flag, &own)))
    };
    flags.into_iter().map(picture).collect()
}

/// Plots of a flag, as far as there is something to show: latency where it was measured, processor time where it wasn't.
fn panels(flag: &str, curves: &[&Curve<'_>]) -> Vec<String> {
    let (open, closed): (Vec<&Curve<'_>>, Vec<&Curve<'_>>) =
        curves.iter().partition(|curve| curve.question.has_latencies());
    let over = |across: fn(&Run) -> f64| open.iter().flat_map(|curve| curve.latencies(across)).collect::<Vec<Line>>();
    let mut panels = Vec::new();
    let mut latency = |lines: Vec<Line>, title: String, show: fn(f64) -> String| {
        if !lines.is_empty() {
            let across = lines.iter().flat_map(|line| line.points.iter().map(|point| point.0));
            let ticks = plot::round_ticks(across).into_iter().map(|tick| (tick, show(tick))).collect();
            let show = units::time;
            panels.push(Plot { title: &title, ticks, across: Scale::Log, up: Scale::Log, show, lines }.svg());
        }
    };
    latency(over(publications), format!("--{flag}: latency by publications a send"), units::short);
    latency(over(cpu), format!("--{flag}: latency by server CPU for each delivery"), units::time);
    if closed.iter().any(|curve| curve.points.iter().any(|point| median(&point.group, cpu) > 0.0)) {
        panels.push(costs(flag, &closed));
    }
    panels
}

fn costs(flag: &str, curves: &[&Curve<'_>]) -> String {
    let mut values: Vec<&str> = Vec::new();
    for point in curves.iter().flat_map(|curve| &curve.points) {
        if !values.contains(&point.value) {
            values.push(point.value);
        }
    }
    in_order(&mut values, |value| value);
    let title = format!("--{flag}: server CPU for each delivery, as fast as it goes");
    let ticks = values.iter().enumerate().map(|(place, value)| (place as f64, (*value).to_owned())).collect();
    let mut lines: Vec<Line> = curves.iter().map(|curve| curve.costs(&values)).collect();
    for curve in curves {
        let against = curve.base(values.len());
        if !lines.iter().any(|line| line.name == against.name) {
            lines.push(against);
        }
    }
    Plot { title: &title, ticks, across: Scale::Linear, up: Scale::Linear, show: units::time, lines }.svg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_one_flag_is_a_point_and_others_are_none() {
        assert_eq!(variant("stentor-raw:flush-interval=5ms"), Some(("stentor-raw", "flush-interval", "5ms")));
        for name in ["stentor-2", "stentor:spin", "stentor:spin=", "stentor:spin=20+sndbuf=64KiB", "x:../up=1"] {
            assert_eq!(variant(name), None, "{name}");
        }
    }

    #[test]
    fn values_stand_in_their_own_order_whatever_their_units() {
        let ordered = |given: &[&'static str]| {
            let mut values = given.to_vec();
            in_order(&mut values, |value| value);
            values
        };
        assert_eq!(ordered(&["10ms", "250us", "1s", "0s"]), ["0s", "250us", "10ms", "1s"]);
        assert_eq!(ordered(&["1MiB", "64KiB", "0"]), ["0", "64KiB", "1MiB"]);
        assert_eq!(ordered(&["none", "auto"]), ["none", "auto"]);
    }
}
