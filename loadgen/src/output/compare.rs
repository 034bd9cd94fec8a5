//! Comparison: targets side by side, as ratios, with the spread over repeated runs.
//!
//! A figure without its spread invites conclusions that the next run refutes. So every column shows the median of the
//! runs and, beside the ratio to the first target, how far the runs were apart. The ratio is of medians; in an
//! interleaved session the runs of both met the same weather. Percentiles beyond the median are of all runs together, so far as
//! these have the publications for it ([`crate::samples`]).

use std::fmt::Write;

use super::plot::escape;
use crate::{
    doubts,
    figures::{Report, Run},
    samples::{Pool, TooFew},
    units,
};

/// The runs against one target.
pub(super) struct Group<'a> {
    pub name: &'a str,
    pub runs: Vec<&'a Run>,
}

impl Group<'_> {
    /// A percentile of the latencies of all runs; none where none were measured.
    pub(super) fn tail(&self, quantile: f64) -> Option<Result<f64, TooFew>> {
        Some(Pool::of(self.runs.iter().copied())?.quantile(quantile))
    }
}

/// A figure that is compared.
struct Column {
    title: &'static str,
    of: Figure,
    show: fn(f64) -> String,
}

/// Where a figure comes from.
enum Figure {
    /// The median over the runs; 0 where a run has none.
    Median(fn(&Run) -> f64),
    /// This percentile of the latencies of all runs.
    Tail(f64),
}

const COLUMNS: [Column; 9] = [
    Column { title: "deliveries/s", of: Figure::Median(|run| run.deliveries_per_s()), show: units::short },
    Column { title: "p50", of: Figure::Median(middle), show: units::time },
    Column { title: "p99", of: Figure::Tail(0.99), show: units::time },
    Column { title: "p99.9", of: Figure::Tail(0.999), show: units::time },
    Column { title: "p99.99", of: Figure::Tail(0.9999), show: units::time },
    Column { title: "spread p50", of: Figure::Median(|run| run.spread.p50_ns as f64), show: units::time },
    Column {
        title: "server CPU/delivery",
        of: Figure::Median(|run| run.server.as_ref().map_or(0.0, |server| server.cpu_ns_per_delivery)),
        show: units::time,
    },
    Column {
        title: "sends/delivery",
        of: Figure::Median(|run| run.sends_per_delivery().unwrap_or(0.0)),
        show: |value| format!("{value:.4}"),
    },
    Column {
        title: "server memory",
        of: Figure::Median(|run| run.server.as_ref().map_or(0.0, |server| server.resident_max as f64)),
        show: units::bytes,
    },
];

impl Figure {
    /// The figure of a group; none where nothing of the kind was measured.
    fn of(&self, group: &Group<'_>) -> Option<Result<f64, TooFew>> {
        match *self {
            Self::Tail(quantile) => group.tail(quantile),
            Self::Median(_) => self.range(group).map(|(_, middle, _)| Ok(middle)),
        }
    }

    /// The lowest, the median and the highest of the runs; none where they are none by themselves.
    fn range(&self, group: &Group<'_>) -> Option<(f64, f64, f64)> {
        let one = |run: &&Run| match *self {
            Self::Median(of) => Some(of(run)),
            Self::Tail(quantile) => Pool::of([*run])?.quantile(quantile).ok(),
        };
        let all = spread(group.runs.iter().map(one).collect::<Option<Vec<f64>>>()?);
        (all.2 > 0.0).then_some(all)
    }
}

/// The median latency; 0 where none was measured.
pub(super) fn middle(run: &Run) -> f64 {
    Pool::of([run]).map_or(0.0, |pool| pool.latency.value_at_quantile(0.5) as f64)
}

/// Compares the targets of sessions; runs of the same name belong together.
pub fn sessions(reports: &[Report], markdown: bool) -> String {
    let rows: Vec<Vec<String>> =
        rows(&groups(reports)).iter().map(|row| row.iter().map(Cell::text).collect()).collect();
    if markdown { as_markdown(&rows) } else { as_text(&rows) }
}

/// The same as a table for a page: medians and ratios, with the spreads below them.
pub fn html(report: &Report) -> String {
    let rows = rows(&groups(std::slice::from_ref(report)));
    let head: String = rows[0].iter().map(|cell| format!("<th scope=\"col\">{}</th>", escape(&cell.middle))).collect();
    let row = |row: &Vec<Cell>| {
        let figures: String = row[1..].iter().map(Cell::html).collect();
        format!("<tr><th scope=\"row\">{}</th>{figures}</tr>\n", escape(&row[0].middle))
    };
    let body: String = rows[1..].iter().map(row).collect();
    format!("<div class=\"wide\"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n")
}

/// The runs of each target, in the order in which targets first appear.
pub(super) fn groups(reports: &[Report]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for run in reports.iter().flat_map(|report| &report.runs) {
        match groups.iter_mut().find(|group| group.name == run.name) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { name: &run.name, runs: vec![run] }),
        }
    }
    groups
}

/// Which side had no more to give, in words; those of several runs that differ, all of them.
fn saturated(group: &Group<'_>) -> String {
    let mut sides: Vec<&str> = group.runs.iter().map(|run| doubts::saturated_side(run)).collect();
    sides.sort_unstable();
    sides.dedup();
    sides.join(", ")
}

/// How many runs are not to be trusted, and how many lost or changed something.
fn verdict(group: &Group<'_>) -> String {
    let doubtful = group.runs.iter().filter(|run| !run.doubts.is_empty()).count();
    let faulty = group.runs.iter().filter(|run| run.exit() == 1 || run.exit() == 4).count();
    match (doubtful, faulty) {
        (0, 0) => "-".into(),
        (doubtful, 0) => format!("{doubtful} doubtful"),
        (0, faulty) => format!("{faulty} faulty"),
        (doubtful, faulty) => format!("{doubtful} doubtful, {faulty} faulty"),
    }
}

/// One figure of one target.
#[derive(Default)]
struct Cell {
    middle: String,
    /// `lowest to highest`; empty where there is one run.
    spread: String,
    /// To the first target; empty for itself.
    ratio: String,
}

impl Cell {
    fn plain(text: impl Into<String>) -> Cell {
        Cell { middle: text.into(), ..Cell::default() }
    }

    /// `median (lowest to highest) xratio`.
    fn text(&self) -> String {
        let spread = if self.spread.is_empty() { String::new() } else { format!(" ({})", self.spread) };
        let ratio = if self.ratio.is_empty() { String::new() } else { format!(" x{}", self.ratio) };
        format!("{}{spread}{ratio}", self.middle)
    }

    fn html(&self) -> String {
        let ratio = if self.ratio.is_empty() { String::new() } else { format!(" <b>×{}</b>", self.ratio) };
        let spread = if self.spread.is_empty() { String::new() } else { format!("<small>{}</small>", self.spread) };
        format!("<td class=\"number\">{}{ratio}{spread}</td>", self.middle)
    }
}

fn rows(groups: &[Group<'_>]) -> Vec<Vec<Cell>> {
    let used: Vec<&Column> =
        COLUMNS.iter().filter(|column| groups.iter().any(|group| column.of.of(group).is_some())).collect();
    let mut rows = vec![vec![Cell::plain("target"), Cell::plain("runs")]];
    rows[0].extend(used.iter().map(|column| Cell::plain(column.title)));
    rows[0].extend(["saturated", "doubts"].map(Cell::plain));
    for group in groups {
        let mut row = vec![Cell::plain(group.name), Cell::plain(group.runs.len().to_string())];
        row.extend(used.iter().map(|column| cell(column, group, &groups[0])));
        row.extend([saturated(group), verdict(group)].map(Cell::plain));
        rows.push(row);
    }
    rows
}

fn cell(column: &Column, group: &Group<'_>, first: &Group<'_>) -> Cell {
    let figure = match column.of.of(group) {
        None => return Cell::plain("-"),
        Some(Err(few)) => return Cell::plain(few.to_string()),
        Some(Ok(figure)) => figure,
    };
    let mut cell = Cell::plain((column.show)(figure));
    if let Some((low, _, high)) = column.of.range(group).filter(|_| group.runs.len() > 1) {
        cell.spread = format!("{} to {}", (column.show)(low), (column.show)(high));
    }
    match column.of.of(first) {
        Some(Ok(base)) if base > 0.0 && !std::ptr::eq(group, first) => cell.ratio = format!("{:.2}", figure / base),
        _ => {}
    }
    cell
}

/// The lowest, the median and the highest.
pub(super) fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let middle = match values.len() {
        0 => return (0.0, 0.0, 0.0),
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    };
    (values[0], middle, values[values.len() - 1])
}

fn as_text(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (nth, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if nth == 0 { write!(out, "{cell:<width$}") } else { write!(out, "  {cell:>width$}") };
        }
        out.push('\n');
    }
    out
}

pub(super) fn as_markdown(rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<String> = rows[0].iter().map(|_| "---".to_owned()).collect();
    let mut out = line(&rows[0]) + &line(&rule);
    rows[1..].iter().for_each(|row| out += &line(row));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_lowest_median_highest() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), (1.0, 2.0, 3.0));
        assert_eq!(spread(vec![4.0, 1.0]), (1.0, 2.5, 4.0));
        assert_eq!(spread(vec![]), (0.0, 0.0, 0.0));
    }

    #[test]
    fn tables_line_up() {
        let rows = vec![vec!["a".to_owned(), "bb".to_owned()], vec!["long".to_owned(), "1".to_owned()]];
        assert_eq!(as_text(&rows), "a     bb\nlong   1\n");
        assert_eq!(as_markdown(&rows), "| a | bb |\n| --- | --- |\n| long | 1 |\n");
    }
}
