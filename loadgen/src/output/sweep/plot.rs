//! A sweep's plot: four figures over the offered load, all servers in each, with one legend.
//!
//! Lines hold the rates that a server held. One that ends in a bar fell behind at the next rate of the grid; one that ends in an arrow may go on:
//! the generator was the limit there, or it wasn't asked for more. Colours are those of all plots; beyond so many servers
//! they come again, broken. The ground and the colours are made for light and for dark.

use std::fmt::Write;

use super::{Above, FIGURES, Figure, SENDS, Standing, Sweep};
use crate::{
    output::plot::{Axis, COLOURS, Scale, escape, round_ticks},
    units::short,
};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 62.0;
const PANEL: (f64, f64) = (410.0, 230.0);
/// From one panel to the next.
const STEP: (f64, f64) = (500.0, 290.0);
/// Where the legend begins, and its columns and rows.
const LEGEND_TOP: f64 = 44.0;
const LEGEND: f64 = 156.0;
const LEGENDS: usize = 6;
const LEGEND_ROW: f64 = 17.0;
/// Labels of the horizontal axis nearer than this would run into each other.
const APART: f64 = 30.0;

/// What a line says of one server.
struct Line<'a> {
    server: &'a str,
    style: String,
    /// Of the rates that it held: which, and the highest that it held may go on.
    held: Vec<usize>,
    goes_on: bool,
}

/// The whole picture.
pub(super) fn of(sweep: &Sweep) -> String {
    let lines: Vec<Line<'_>> =
        sweep.servers().into_iter().enumerate().map(|(nth, server)| line(sweep, nth, server)).collect();
    let top = LEGEND_TOP + LEGEND_ROW * lines.len().div_ceil(LEGENDS) as f64 + 34.0;
    let height = top + STEP.1 * 2.0 - 20.0;
    let title = format!("The same offered load for all: {}", sweep.kind());
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\"><text x=\"{LEFT}\" y=\"20\" class=\"title\">{0}</text>\n",
        escape(&title)
    );
    legend(&lines, &mut out);
    for (nth, figure) in FIGURES.iter().enumerate() {
        let at = (LEFT + STEP.0 * (nth % 2) as f64, top + STEP.1 * (nth / 2) as f64);
        panel(sweep, figure, &lines, at, &mut out);
    }
    out + "</svg>\n"
}

fn line<'a>(sweep: &Sweep, nth: usize, server: &'a str) -> Line<'a> {
    let held = |&nth: &usize| sweep.point(nth, server).is_some_and(|point| point.standing() == Standing::Held);
    let goes_on = !matches!(sweep.capacity(server).above, Above::Behind { .. });
    let style = format!("plot-{}{}", nth % COLOURS, if nth < COLOURS { "" } else { " broken" });
    Line { server, style, held: (0..sweep.rates.len()).filter(held).collect(), goes_on }
}

fn legend(lines: &[Line<'_>], out: &mut String) {
    for (nth, Line { server, style, .. }) in lines.iter().enumerate() {
        let (x, y) = (LEFT + LEGEND * (nth % LEGENDS) as f64, LEGEND_TOP + LEGEND_ROW * (nth / LEGENDS) as f64);
        let _ = writeln!(
            out,
            "<path d=\"M{x} {:.1}h24\" class=\"line {style}\"/><text x=\"{}\" y=\"{y}\">{}</text>",
            y - 4.0,
            x + 30.0,
            escape(server)
        );
    }
    let y = LEGEND_TOP + LEGEND_ROW * lines.len().div_ceil(LEGENDS) as f64 + 2.0;
    let (bar, arrow) = (end(LEFT + 8.0, y - 4.0, false), end(LEFT + 280.0, y - 4.0, true));
    let _ = writeln!(
        out,
        "<path d=\"M{LEFT} {0:.1}h8{bar}\" class=\"line known\"/><text x=\"{1}\" y=\"{y}\">capacity: it fell behind at the next rate</text>\
         <path d=\"M{2} {0:.1}h8{arrow}\" class=\"line known\"/><text x=\"{3}\" y=\"{y}\">at least so much: the generator's limit, a doubt, or the grid's end</text>",
        y - 4.0,
        LEFT + 20.0,
        LEFT + 272.0,
        LEFT + 296.0
    );
}

/// How a line ends: by a bar, or by an arrow.
fn end(x: f64, y: f64, goes_on: bool) -> String {
    match goes_on {
        true => format!("M{:.1} {:.1}l6 4l-6 4", x, y - 4.0),
        false => format!("M{x:.1} {:.1}v12", y - 6.0),
    }
}

fn panel(sweep: &Sweep, figure: &Figure, lines: &[Line<'_>], (left, top): (f64, f64), out: &mut String) {
    let (right, bottom) = (left + PANEL.0, top + PANEL.1);
    let value = |nth: usize, server: &str| sweep.point(nth, server)?.figure(figure)?.ok();
    let points: Vec<Vec<(usize, f64)>> = lines
        .iter()
        .map(|line| line.held.iter().filter_map(|&nth| Some((nth, value(nth, line.server)?))).collect())
        .collect();
    let all = || points.iter().flatten().map(|(_, value)| *value);
    let x = Axis::over(sweep.rates.iter().map(|(rate, _)| *rate), Scale::Log, left, right - 10.0);
    let linear = figure.title == SENDS.title;
    let ticks = if linear {
        vec![0.0, 0.25, 0.5, 0.75, 1.0]
    } else if all().next().is_some() {
        round_ticks(all())
    } else {
        vec![1.0, 10.0]
    };
    let up = Axis {
        low: ticks[0],
        high: all().fold(ticks[ticks.len() - 1], f64::max),
        from: bottom,
        to: top,
        scale: if linear { Scale::Linear } else { Scale::Log },
    };
    let what = match figure.tail {
        Some(_) => format!("{}, where 1,000 publications were pooled", figure.title),
        None => figure.title.to_owned(),
    };
    let _ = writeln!(out, "<text x=\"{left}\" y=\"{}\" class=\"name known\">{}</text>", top - 10.0, escape(&what));
    across(sweep, &x, (top, bottom), out);
    for tick in &ticks {
        let y = up.place(*tick);
        let label = if linear { tick.to_string() } else { (figure.show)(*tick) };
        let _ = writeln!(
            out,
            "<path d=\"M{left} {y:.1}H{right}\" class=\"grid\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            y + 4.0,
            escape(&label)
        );
    }
    for (line, points) in lines.iter().zip(&points) {
        let places: Vec<(f64, f64)> =
            points.iter().map(|&(nth, value)| (x.place(sweep.rates[nth].0), up.place(value))).collect();
        draw(line, &places, points.last().map(|last| last.0) == line.held.last().copied(), out);
    }
}

/// The rates of the grid, as many of them as there is room for.
fn across(sweep: &Sweep, x: &Axis, (top, bottom): (f64, f64), out: &mut String) {
    let mut last = f64::MIN;
    for (rate, _) in &sweep.rates {
        let at = x.place(*rate);
        let _ = write!(out, "<path d=\"M{at:.1} {top}V{bottom}\" class=\"grid\"/>");
        if at - last >= APART {
            last = at;
            let label = escape(&short(*rate));
            let _ =
                writeln!(out, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>", bottom + 15.0);
        }
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">publications a second</text>",
        x.to,
        bottom + 29.0
    );
}

/// One server's line with its dots; `ends` where its last point is the highest that it held.
fn draw(line: &Line<'_>, places: &[(f64, f64)], ends: bool, out: &mut String) {
    let Some(&(x, y)) = places.last() else { return };
    let mut path = String::new();
    for (nth, (x, y)) in places.iter().enumerate() {
        let _ = write!(path, "{}{x:.1} {y:.1}", if nth == 0 { 'M' } else { 'L' });
        let _ = write!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.2\" class=\"bar {}\"/>", line.style);
    }
    let mark = if ends { end(x + 3.0, y, line.goes_on) } else { String::new() };
    let _ = writeln!(
        out,
        "<path d=\"{path}\" class=\"line {0}\"/><path d=\"{mark}\" class=\"line {1}\"/>",
        line.style,
        line.style.trim_end_matches(" broken")
    );
}
