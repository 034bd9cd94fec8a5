//! Plots as SVG: a few lines or bars with axes, drawn without a library and readable without a script.

use std::fmt::Write;

/// One line of a plot.
pub struct Line {
    /// What it is called in the legend.
    pub name: String,
    /// Its points, in the order in which they are joined.
    pub points: Vec<(f64, f64)>,
    /// What is written beside each point, which gets a dot; none for a line without dots.
    pub labels: Vec<String>,
}

/// How values are laid out along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// Each factor of ten takes the same room.
    Log,
}

/// A plot.
pub struct Plot<'a> {
    /// What it shows.
    pub title: &'a str,
    /// Ticks of the horizontal axis, with their labels.
    pub ticks: Vec<(f64, String)>,
    /// The horizontal axis' layout.
    pub across: Scale,
    /// The vertical axis' layout.
    pub up: Scale,
    /// Writes a value of the vertical axis.
    pub show: fn(f64) -> String,
    /// The lines.
    pub lines: Vec<Line>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
/// Names of lines stand in rows below the title.
const LEGEND: f64 = 190.0;
const LEGENDS: usize = 4;
const LEGEND_TOP: f64 = 32.0;
const LEGEND_ROW: f64 = 14.0;
const BOTTOM: f64 = 36.0;

/// Colours by which lines and bars are told apart; `plot.css` has so many.
pub(super) const COLOURS: usize = 8;

/// The console's colours and type, so that what measures a server and what shows it look alike.
pub(super) const LOOK: &str = include_str!("../../../src/control/console/look.css");

/// How plots are drawn.
pub(super) const PLOTS: &str = include_str!("plot.css");

impl Plot<'_> {
    /// The plot as one SVG element.
    pub fn svg(&self) -> String {
        let mut out = head(self.title);
        let (x, y) = (self.across_of(), self.up_of());
        self.draw_axes(&x, &y, &mut out);
        for (nth, line) in self.lines.iter().enumerate() {
            self.draw_line(nth, line, &x, &y, &mut out);
        }
        out.push_str("</svg>\n");
        out
    }

    /// Where the title and the names end.
    fn top(&self) -> f64 {
        LEGEND_TOP + LEGEND_ROW * self.lines.len().div_ceil(LEGENDS) as f64
    }

    fn across_of(&self) -> Axis {
        let points = self.lines.iter().flat_map(|line| line.points.iter().map(|point| point.0));
        Axis::over(points.chain(self.ticks.iter().map(|tick| tick.0)), self.across, LEFT, WIDTH - RIGHT)
    }

    fn up_of(&self) -> Axis {
        let points = self.lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
        let zero = (self.up == Scale::Linear).then_some(0.0);
        Axis::over(points.chain(zero), self.up, HEIGHT - BOTTOM, self.top())
    }

    fn draw_axes(&self, x: &Axis, y: &Axis, out: &mut String) {
        let (bottom, right, top) = (HEIGHT - BOTTOM, WIDTH - RIGHT, self.top());
        for (value, label) in &self.ticks {
            let at = x.place(*value);
            let _ = writeln!(
                out,
                "<path d=\"M{at:.1} {top}V{bottom}\" class=\"grid\"/><text x=\"{at:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                escape(label)
            );
        }
        for value in y.ticks() {
            let at = y.place(value);
            let _ = writeln!(
                out,
                "<path d=\"M{LEFT} {at:.1}H{right}\" class=\"grid\"/><text x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                escape(&(self.show)(value))
            );
        }
    }

    fn draw_line(&self, nth: usize, line: &Line, x: &Axis, y: &Axis, out: &mut String) {
        let mut path = String::new();
        for (nth, point) in line.points.iter().enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if nth == 0 { 'M' } else { 'L' }, x.place(point.0), y.place(point.1));
        }
        let _ = writeln!(out, "<path d=\"{path}\" class=\"line plot-{}\"/>", nth % COLOURS);
        for (label, point) in line.labels.iter().zip(&line.points) {
            let (x, y) = (x.place(point.0), y.place(point.1));
            let _ = writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" class=\"bar plot-{}\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\" class=\"small\">{}</text>",
                nth % COLOURS,
                y - 6.0,
                escape(label)
            );
        }
        legend(nth, &line.name, out);
    }
}

/// Bars side by side, in groups, on a logarithmic scale, each with its value above it.
pub struct Bars<'a> {
    /// What it shows.
    pub title: &'a str,
    /// What each bar of a group is called; the same for all groups.
    pub names: Vec<String>,
    /// The groups: what each is called, and its bars' values; none where there is no such bar.
    pub groups: Vec<(String, Vec<Option<f64>>)>,
    /// Writes a value.
    pub show: fn(f64) -> String,
}

impl Bars<'_> {
    /// The plot as one SVG element.
    pub fn svg(&self) -> String {
        let mut out = head(self.title);
        let bottom = HEIGHT - BOTTOM;
        let top = LEGEND_TOP + LEGEND_ROW * (self.names.len().div_ceil(LEGENDS) + 1) as f64;
        let values = || self.groups.iter().flat_map(|(_, values)| values.iter().flatten().copied());
        let lowest = values().fold(f64::MAX, f64::min);
        let highest = values().fold(f64::MIN, f64::max);
        // Half the lowest is the floor, so that the lowest has a height, too.
        let up = Axis { low: lowest / 2.0, high: highest.max(lowest * 2.0), from: bottom, to: top, scale: Scale::Log };
        let room = (WIDTH - LEFT - RIGHT) / self.groups.len().max(1) as f64;
        let width = room * 0.9 / self.names.len().max(1) as f64;
        for (nth, name) in self.names.iter().enumerate() {
            legend(nth, name, &mut out);
        }
        for (group, (label, values)) in self.groups.iter().enumerate() {
            let left = LEFT + room * (group as f64 + 0.05);
            for (nth, value) in values.iter().enumerate() {
                let Some(value) = value.filter(|value| *value > 0.0) else { continue };
                let (x, y) = (left + width * nth as f64, up.place(value));
                let _ = writeln!(
                    out,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" class=\"bar plot-{}\"/><text \
                     x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" class=\"small\">{}</text>",
                    width - 2.0,
                    bottom - y,
                    nth % COLOURS,
                    x + width / 2.0 - 1.0,
                    y - 4.0,
                    escape(&(self.show)(value))
                );
            }
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                left + room * 0.45,
                bottom + 16.0,
                escape(label)
            );
        }
        let _ = writeln!(out, "<path d=\"M{LEFT} {bottom}H{}\" class=\"grid\"/>", WIDTH - RIGHT);
        out.push_str("</svg>\n");
        out
    }
}

/// The same plot as a file of its own, which brings its style along.
pub fn standalone(svg: &str) -> String {
    let ground = "<rect width=\"100%\" height=\"100%\" class=\"ground\"/>";
    let (tag, rest) = svg.split_at(svg.find('>').map_or(0, |end| end + 1));
    format!(
        "{}<style>{LOOK}{PLOTS}</style>{ground}{rest}",
        tag.replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1)
    )
}

/// Several plots, one below the other, as one SVG element.
pub fn stacked(svgs: &[String]) -> String {
    let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {}\">\n", HEIGHT * svgs.len() as f64);
    for (nth, svg) in svgs.iter().enumerate() {
        let place = format!("<svg y=\"{}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" ", HEIGHT * nth as f64);
        out += &svg.replacen("<svg ", &place, 1);
    }
    out + "</svg>\n"
}

/// The opening tag and the title.
fn head(title: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\"><text x=\"{LEFT}\" y=\"16\" \
         class=\"title\">{0}</text>\n",
        escape(title)
    )
}

/// A name in its colour, in its place below the title.
fn legend(nth: usize, name: &str, out: &mut String) {
    let x = LEFT + LEGEND * (nth % LEGENDS) as f64;
    let y = LEGEND_TOP + LEGEND_ROW * (nth / LEGENDS) as f64;
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" class=\"name plot-{}\">{}</text>", nth % COLOURS, escape(name));
}

/// Maps values to places.
pub(super) struct Axis {
    pub low: f64,
    pub high: f64,
    pub from: f64,
    pub to: f64,
    pub scale: Scale,
}

impl Axis {
    pub fn over(values: impl Iterator<Item = f64>, scale: Scale, from: f64, to: f64) -> Self {
        let usable = values.filter(|value| value.is_finite() && (scale == Scale::Linear || *value > 0.0));
        let (mut low, mut high) =
            usable.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        if scale == Scale::Log && from > to {
            (low, high) = (10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil()));
        }
        if high <= low {
            high = if scale == Scale::Log { low * 10.0 } else { low + 1.0 };
        }
        Self { low, high, from, to, scale }
    }

    pub fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = round_step((self.high - self.low) / 4.0);
                (0..=6).map(|nth| self.low + step * f64::from(nth)).filter(|tick| *tick <= self.high).collect()
            }
            Scale::Log => {
                let decades = (self.high / self.low).log10().round() as i32;
                (0..=decades).map(|decade| self.low * 10f64.powi(decade)).collect()
            }
        }
    }
}

/// The next 1, 2 or 5 of its decade, so that ticks read well.
fn round_step(step: f64) -> f64 {
    let decade = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0].map(|factor| factor * decade).into_iter().find(|round| *round >= step).unwrap_or(10.0 * decade)
}

/// Ticks for a logarithmic axis over these values: each 1, 2, 3, 5 and 7 of a decade, from just below them to just above.
pub fn round_ticks(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let (low, high) =
        values.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), value| (low.min(value), high.max(value)));
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let all: Vec<f64> =
        decades.flat_map(|decade| [1.0, 2.0, 3.0, 5.0, 7.0].map(|step| step * 10f64.powi(decade))).collect();
    let from = all.iter().rposition(|tick| *tick <= low).unwrap_or(0);
    let to = all.iter().position(|tick| *tick >= high).unwrap_or(all.len().saturating_sub(1));
    all[from..=to].to_vec()
}

/// Makes text safe inside HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithmic_places_are_even_by_decade() {
        let axis = Axis::over([1.0, 1000.0].into_iter(), Scale::Log, 300.0, 0.0);
        assert_eq!((axis.place(1.0), axis.place(1000.0)), (300.0, 0.0));
        assert!((axis.place(10.0) - 200.0).abs() < 1e-9);
        assert_eq!(axis.ticks().len(), 4);
    }

    #[test]
    fn ticks_are_round() {
        let axis = Axis::over([0.0, 19.46e6].into_iter(), Scale::Linear, 300.0, 0.0);
        assert_eq!(axis.ticks(), [0.0, 5e6, 10e6, 15e6]);
        assert_eq!(round_step(0.3), 0.5);
        assert_eq!(round_ticks([1.2, 20.0, 4.0].into_iter()), [1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0]);
        assert_eq!(round_ticks([600.0].into_iter()), [500.0, 700.0]);
    }

    #[test]
    fn a_plot_without_points_is_still_a_plot() {
        let lines = vec![Line { name: "<a>".into(), points: Vec::new(), labels: Vec::new() }];
        let plot = Plot {
            title: "t",
            ticks: Vec::new(),
            across: Scale::Linear,
            up: Scale::Log,
            show: |v| v.to_string(),
            lines,
        };
        let svg = plot.svg();
        assert!(svg.starts_with("<svg") && svg.contains("&lt;a&gt;") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn labelled_points_have_dots_and_plots_stand_below_each_other() {
        let labels = vec!["<1ms>".to_owned(), "5ms".to_owned()];
        let lines = vec![Line { name: "a".into(), points: vec![(1.0, 10.0), (2.0, 100.0)], labels }];
        let plot = Plot {
            title: "t",
            ticks: Vec::new(),
            across: Scale::Log,
            up: Scale::Log,
            show: |value| value.to_string(),
            lines,
        };
        let svg = plot.svg();
        assert!(svg.matches("<circle").count() == 2 && svg.contains("&lt;1ms&gt;"), "{svg}");
        let both = stacked(&[svg.clone(), svg]);
        assert!(both.contains("0 0 860 640") && both.contains("y=\"0\"") && both.contains("y=\"320\""), "{both}");
    }

    #[test]
    fn bars_stand_by_their_ratios_and_a_missing_one_leaves_its_place() {
        let bars = Bars {
            title: "t",
            names: vec!["a".into(), "b".into()],
            groups: vec![("1".into(), vec![Some(1.0), Some(4.0)]), ("2".into(), vec![None, Some(2.0)])],
            show: |value| value.to_string(),
        };
        let svg = bars.svg();
        let heights: Vec<f64> =
            svg.split("height=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok()).collect();
        assert_eq!(heights.len(), 3);
        // On a scale from 0.5 to 4.
        assert!((heights[1] / heights[0] - 3.0).abs() < 0.01 && (heights[2] / heights[0] - 2.0).abs() < 0.01, "{svg}");
        let file = standalone(&svg);
        assert!(file.starts_with("<svg xmlns=") && file.contains("<style>") && file.ends_with("</svg>\n"), "{file}");
    }
}
