//! Plots as inline SVG: a few lines with axes, drawn without a library and readable without a script.

use std::fmt::Write;

/// One line of a plot.
pub struct Line {
    /// What it is called in the legend.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
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

/// Lines that are told apart by colour; the page's style has so many.
const COLOURS: usize = 8;

impl Plot<'_> {
    /// The plot as one SVG element.
    pub fn svg(&self) -> String {
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\"><text x=\"{LEFT}\" y=\"16\" \
             class=\"title\">{0}</text>\n",
            escape(self.title)
        );
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
        let colour = nth % COLOURS;
        let mut path = String::new();
        for (nth, point) in line.points.iter().enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if nth == 0 { 'M' } else { 'L' }, x.place(point.0), y.place(point.1));
        }
        let legend = LEFT + LEGEND * (nth % LEGENDS) as f64;
        let row = LEGEND_TOP + LEGEND_ROW * (nth / LEGENDS) as f64;
        let _ = writeln!(
            out,
            "<g class=\"plot-{colour}\"><path d=\"{path}\" class=\"line\"/><text x=\"{legend}\" y=\"{row}\" \
             class=\"name\">{}</text></g>",
            escape(&line.name)
        );
    }
}

/// Maps values to places.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    scale: Scale,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, scale: Scale, from: f64, to: f64) -> Self {
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

    fn place(&self, value: f64) -> f64 {
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
    }

    #[test]
    fn a_plot_without_points_is_still_a_plot() {
        let lines = vec![Line { name: "<a>".into(), points: Vec::new() }];
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
}
