//! The sweep: all servers at the same offered loads, from an idle one to the highest that each can take.
//!
//! Each file holds the runs at one rate of the grid, against all servers, in rounds. A server has held a rate where it delivered what it was
//! offered in every round, and where at least half of its rounds are sound: nothing speaks against them. Where a round was
//! run again because of a doubt, the last sound run of it counts. Its capacity is the highest rate of the grid that it held; if what is above was
//! doubtful, or the generator's limit, or not tried, that is said beside it: then it is at least so much.
//!
//! Only sound rounds have figures. Times and processor time are medians over rounds, percentiles beyond the median of all rounds together
//! ([`crate::samples`]); ratios are paired by round (`paired.rs`).

mod paired;
mod plot;
mod table;

use anyhow::{Context, Result, bail, ensure};

pub use self::paired::Ratio;
use super::compare::{middle, spread};
use crate::{
    doubts,
    figures::{Report, Run},
    samples::{Pool, TooFew},
    spec::{Pace, Spec},
    units,
};

/// One grid of rates, and what was measured on it.
pub struct Sweep {
    /// By rate, in publications a second.
    rates: Vec<(f64, Report)>,
    /// Searches for the highest rate that a server holds.
    searches: Vec<Report>,
    /// What the others are compared with.
    against: String,
}

/// What became of a server at a rate, or in one round there. The worse is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It delivered what it was offered, and nothing speaks against the figures.
    Held,
    /// It delivered, but something speaks against the figures.
    Doubtful,
    /// It delivered less than [`DELIVERED`] of it in the time, or lost something, or died.
    Behind,
}

/// A server that has delivered less of what it was offered a second has not kept up. The last publication's own time, of some
/// milliseconds, is within this even in runs of a second.
pub const DELIVERED: f64 = 0.95;

/// A server at a rate.
struct Point<'a> {
    rounds: Vec<Round<'a>>,
}

/// One round of it: the run that counts.
struct Round<'a> {
    nth: u32,
    run: &'a Run,
    standing: Standing,
}

/// The highest rate that a server held, and why it is no higher one.
#[derive(Debug, PartialEq)]
struct Capacity {
    /// Publications a second; none where it held none.
    held: Option<f64>,
    above: Above,
}

/// What is known of the next rate.
#[derive(Debug, PartialEq)]
enum Above {
    /// It fell behind there, in so many of its rounds: the capacity is what it says.
    Behind { rate: f64, behind: usize, rounds: usize },
    /// Nobody knows: the generator was the limit there.
    Generator { rate: f64 },
    /// Nobody knows: too few of its rounds were sound.
    Doubtful { rate: f64, why: String },
    /// It wasn't asked for more.
    Nothing,
}

/// A figure of the tables and plots.
struct Figure {
    title: &'static str,
    /// Of one round; none where it isn't known.
    of: fn(&Run) -> Option<f64>,
    /// The percentile that it is, where it takes many publications.
    tail: Option<f64>,
    show: fn(f64) -> String,
}

/// What a sweep shows, in its tables and in its plot.
const FIGURES: [Figure; 4] = [
    CPU,
    SENDS,
    Figure { title: "p50", of: |run| Some(middle(run)), tail: None, show: units::time },
    Figure {
        title: "p99",
        of: |run| Some(Pool::of([run])?.latency.value_at_quantile(0.99) as f64),
        tail: Some(0.99),
        show: units::time,
    },
];

/// What a closed window has instead.
const CLOSED: [Figure; 3] = [
    CPU,
    SENDS,
    Figure { title: "deliveries/s", of: |run| Some(run.deliveries_per_s()), tail: None, show: units::short },
];

const CPU: Figure = Figure {
    title: "CPU a delivery",
    of: |run| Some(run.server.as_ref().filter(|_| run.deliveries > 0)?.cpu_ns_per_delivery),
    tail: None,
    show: units::time,
};

const SENDS: Figure =
    Figure { title: "sends a delivery", of: Run::sends_per_delivery, tail: None, show: |value| format!("{value:.3}") };

impl Sweep {
    /// Of result files, one for each rate, and of searches; compared with `against`, or with the first server. One result alone may be of a window.
    ///
    /// # Errors
    /// They are not of one grid, or nobody is called so.
    pub fn of(reports: Vec<Report>, against: Option<&str>) -> Result<Self> {
        let (searches, reports): (Vec<Report>, Vec<Report>) =
            reports.into_iter().partition(|report| report.search.is_some());
        let (mut rates, alone) = (Vec::new(), reports.len() == 1);
        for report in reports {
            let rate = match report.spec.pace {
                Pace::Rate(rate) => rate.0,
                Pace::Window(window) if alone => window as f64,
                _ => bail!("a result without a --rate: a sweep has one result for each rate"),
            };
            rates.push((rate, report));
        }
        rates.sort_by(|a, b| a.0.total_cmp(&b.0));
        let first = rates.first().context("no result of a --rate to sweep over")?;
        let kind = kind(&first.1.spec);
        for report in rates.iter().map(|(_, report)| report).chain(&searches) {
            let other = self::kind(&report.spec);
            ensure!(other == kind, "not one grid: these are of {kind}, and of {other}");
        }
        ensure!(rates.windows(2).all(|two| two[0].0 < two[1].0), "two results of the same rate");
        let mut sweep = Self { rates, searches, against: String::new() };
        let servers = sweep.servers();
        let first = servers.first().context("the results hold no runs")?;
        let against = against.unwrap_or(first).to_owned();
        ensure!(servers.contains(&&*against), "--against {against}: there are {}", servers.join(", "));
        sweep.against = against;
        Ok(sweep)
    }

    /// The tables, as Markdown.
    pub fn tables(&self) -> String {
        table::of(self)
    }

    /// The plot, as one SVG element.
    pub fn plot(&self) -> String {
        plot::of(self)
    }

    /// Whether it is one window, and no grid.
    fn is_closed(&self) -> bool {
        matches!(self.rates[0].1.spec.pace, Pace::Window(_))
    }

    /// What all of it is of.
    fn kind(&self) -> String {
        kind(&self.rates[0].1.spec)
    }

    /// In the order in which they first appear, from the lowest rate on.
    fn servers(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for run in self.rates.iter().flat_map(|(_, report)| &report.runs) {
            if !names.contains(&&*run.name) {
                names.push(&run.name);
            }
        }
        names
    }

    /// Deliveries that a publication makes, everything held.
    fn fan(&self) -> f64 {
        let spec = &self.rates[0].1.spec;
        (spec.subs * spec.topics_per_sub) as f64 / spec.topics.max(1) as f64
    }

    /// What became of a server at the `nth` rate; none where it wasn't asked.
    fn point(&self, nth: usize, server: &str) -> Option<Point<'_>> {
        let runs: Vec<&Run> = self.rates[nth].1.runs.iter().filter(|run| run.name == server).collect();
        (!runs.is_empty()).then(|| Point::of(&runs))
    }

    fn capacity(&self, server: &str) -> Capacity {
        let points: Vec<(f64, Point<'_>)> =
            (0..self.rates.len()).filter_map(|nth| Some((self.rates[nth].0, self.point(nth, server)?))).collect();
        let highest = points.iter().rposition(|(_, point)| point.standing() == Standing::Held);
        let next = points.get(highest.map_or(0, |nth| nth + 1));
        let above = next.map_or(Above::Nothing, |(rate, point)| point.above(*rate));
        Capacity { held: highest.map(|nth| points[nth].0), above }
    }

    /// What a search found for a server: the rate, unless nothing held.
    fn searched(&self, server: &str) -> Option<f64> {
        let of = |report: &&Report| report.runs.iter().any(|run| run.name == server);
        self.searches.iter().find(of)?.search.as_ref()?.rate
    }
}

/// What runs of a grid have in common, in words: all but their rate.
fn kind(spec: &Spec) -> String {
    let bytes = match &spec.sizes[..] {
        [] if spec.quotes => format!("quotes of some {} bytes", spec.size),
        [] => format!("{} bytes", spec.size),
        mix => {
            let all: f64 = mix.iter().map(|one| one.weight).sum();
            let share = |one: &crate::units::Weighted| format!("{} {:.0} %", one.bytes, one.weight * 100.0 / all);
            format!("payloads of {}", mix.iter().map(share).collect::<Vec<String>>().join(", "))
        }
    };
    let topics = match (spec.topics, spec.topics_per_sub) {
        (all, _) if let Some(among) = spec.watch_list => {
            format!("{} to {} of {} topics each", among.from, among.to, units::count(all as u64))
        }
        (1, _) => "one topic".to_owned(),
        (all, each) if all == each => format!("all of {} topics", units::count(all as u64)),
        (all, each) => format!("{} of {} topics each", units::count(each as u64), units::count(all as u64)),
    };
    let skew = match spec.topic_skew {
        skew if skew > 0.0 => format!(", published on by Zipf's law of exponent {skew}"),
        _ => String::new(),
    };
    let arrivals = match spec.pace {
        Pace::Rate(_) => format!(", {} arrivals", format!("{:?}", spec.arrivals).to_lowercase()),
        _ => String::new(),
    };
    format!("{} subscribers of {topics}{skew}, {bytes}{arrivals}", units::count(spec.subs as u64))
}

impl Standing {
    fn of(run: &Run) -> Self {
        match () {
            () if matches!(run.exit(), 1 | 4) => Self::Behind,
            () if run.delivered().is_some_and(|share| share < DELIVERED) => Self::Behind,
            () if !run.doubts.is_empty() => Self::Doubtful,
            () => Self::Held,
        }
    }
}

impl<'a> Point<'a> {
    /// Of all runs there, of each round the last that is not doubtful, or else the last.
    fn of(runs: &[&'a Run]) -> Self {
        let mut rounds: Vec<Round<'a>> = Vec::new();
        for (nth, run) in runs.iter().enumerate() {
            let round = Round { nth: run.round.unwrap_or(nth as u32 + 1), run, standing: Standing::of(run) };
            match rounds.iter_mut().find(|known| known.nth == round.nth) {
                Some(known) if round.standing != Standing::Doubtful || known.standing == Standing::Doubtful => {
                    *known = round;
                }
                Some(_) => {}
                None => rounds.push(round),
            }
        }
        Self { rounds }
    }

    fn count(&self, standing: Standing) -> usize {
        self.rounds.iter().filter(|round| round.standing == standing).count()
    }

    fn standing(&self) -> Standing {
        match () {
            () if self.count(Standing::Behind) > 0 => Standing::Behind,
            () if self.count(Standing::Held) * 2 >= self.rounds.len() => Standing::Held,
            () => Standing::Doubtful,
        }
    }

    /// What it says of a rate that it didn't hold.
    fn above(&self, rate: f64) -> Above {
        let behind: Vec<&Run> =
            self.rounds.iter().filter(|round| round.standing == Standing::Behind).map(|round| round.run).collect();
        if behind.is_empty() {
            let why = self.doubt();
            return Above::Doubtful { rate, why };
        }
        match behind.iter().all(|run| doubts::saturated_side(run) == "generator") {
            true => Above::Generator { rate },
            false => Above::Behind { rate, behind: behind.len(), rounds: self.rounds.len() },
        }
    }

    /// What speaks against it first, in the last of its doubtful rounds; empty where nothing does.
    fn doubt(&self) -> String {
        let doubtful = self.rounds.iter().rfind(|round| round.standing == Standing::Doubtful);
        let first = doubtful.and_then(|round| round.run.doubts.first());
        first.map_or_else(String::new, |why| why.split([':', ';']).next().unwrap_or_default().to_owned())
    }

    fn sound(&self) -> impl Iterator<Item = &Round<'a>> {
        self.rounds.iter().filter(|round| round.standing == Standing::Held)
    }

    /// A figure of its sound rounds; none where it isn't known.
    fn figure(&self, figure: &Figure) -> Option<Result<f64, TooFew>> {
        if let Some(quantile) = figure.tail {
            return Some(Pool::of(self.sound().map(|round| round.run))?.quantile(quantile));
        }
        let all = self.sound().map(|round| (figure.of)(round.run)).collect::<Option<Vec<f64>>>()?;
        Some(spread(all).1).filter(|value| *value > 0.0).map(Ok)
    }

    /// The same to another server's, by the rounds in which both were sound. Percentiles need their publications on either side.
    fn ratio(&self, base: &Point<'_>, figure: &Figure) -> Option<Ratio> {
        self.figure(figure)?.ok()?;
        base.figure(figure)?.ok()?;
        let pair = |round: &Round<'_>| {
            let other = base.sound().find(|other| other.nth == round.nth)?;
            Some(((figure.of)(round.run)?, (figure.of)(other.run)?))
        };
        Ratio::of(&self.sound().filter_map(pair).collect::<Vec<(f64, f64)>>())
    }
}

#[cfg(test)]
mod tests;
