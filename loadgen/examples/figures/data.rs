//! Raw data, and what of it counts.
//!
//! - Results of the load generator (`.json.gz`). Only **sound** runs count: those that nothing speaks against, that lost nothing, and that delivered what was
//!   offered in its time. There have to be two of them at least, and as many of them as of others; else there is no figure. Where a round was run again
//!   because of a doubt, the last sound run of it counts, as in a sweep. Percentiles take as many publications as the generator itself asks for before it
//!   prints them.
//! - The ratio of two servers is of rounds in which both were sound ([`Ratio`]): what moved the machine meanwhile is in both. It takes two of them.
//! - Any other text: a number behind words that stand on one line of it, or, where lowest, highest or median is asked for, on several. Where the text is what
//!   the generator printed, its doubts count as well.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    fs,
    io::Read,
    path::{Path, PathBuf},
    rc::Rc,
};

use flate2::read::GzDecoder;
use loadgen::{
    exit,
    figures::{Report, Run},
    merge,
    output::sweep::Ratio,
    samples::{Pool, QUANTILES},
    spec::Pace,
    thresholds,
};
use serde::Deserialize;

use crate::figure::{self, Kind, PLAIN, Quantity};

/// Sound runs that a figure takes.
const SOUND_MIN: usize = 2;

/// Rounds that a quoted ratio takes. Of two the interval is very wide, which is what two rounds are worth.
const PAIRS_MIN: usize = 2;

/// How what the generator prints begins where it doubts a run, or where something was lost.
const SAYS_DOUBTFUL: [&str; 2] = ["DOUBTS:", "FAULTS"];
/// How a line begins that begins another run in such a text.
const BEGINS_RUN: [&str; 2] = ["== ", "$ "];

/// All raw data of a project.
pub struct Data {
    root: PathBuf,
    reports: RefCell<HashMap<PathBuf, Rc<Measured>>>,
}

/// One file of results.
struct Measured {
    report: Report,
    /// The round of each run, as far as it says.
    rounds: Vec<Option<u32>>,
}

impl Data {
    /// That of the project in a folder.
    pub fn of(root: &Path) -> Self {
        Self { root: root.to_owned(), reports: RefCell::default() }
    }

    /// A figure of a server in results of the generator.
    ///
    /// # Errors
    /// There is no such file, server or figure, or too few sound runs.
    pub fn measured(&self, path: &str, server: &str, name: &str, of: Of) -> Result<Quantity, String> {
        let reports = self.results(path)?;
        let all = rounds_of(&reports, server)?;
        let runs = sound(&all, name)?;
        let each = || runs.iter().map(|run| thresholds::measure(name, &[run])).collect::<Result<Vec<f64>, String>>();
        // The median latency is the median run's, as in the generator's tables; further out, all runs are needed together.
        let value = match of {
            Of::All if name != "p50" => thresholds::measure(name, &runs)?,
            Of::All => Of::Median.pick(each()?),
            of => of.pick(each()?),
        };
        let (scale, kind) = unit_of(name);
        Ok(Quantity { value: value * scale, kind })
    }

    /// What a server took to what another took, by rounds in which both were sound.
    ///
    /// # Errors
    /// One of the two has no such figure, or there are too few rounds of both.
    pub fn paired(&self, path: &str, server: &str, base: &str, name: &str) -> Result<Ratio, String> {
        let pairs = self.pairs(path, server, base, name)?;
        let ratio = Ratio::of(&pairs).filter(|ratio| ratio.rounds >= PAIRS_MIN);
        ratio.ok_or_else(|| {
            format!("both {server} and {base} were sound in {} rounds, and a ratio takes {PAIRS_MIN}", pairs.len())
        })
    }

    /// Whether the rounds tell two servers apart: the interval of their ratio doesn't hold 1. Without rounds of both, nothing does.
    ///
    /// # Errors
    /// One of the two has no such figure.
    pub fn differ(&self, path: &str, server: &str, base: &str, name: &str) -> Result<bool, String> {
        let interval = Ratio::of(&self.pairs(path, server, base, name)?).and_then(|ratio| ratio.interval);
        Ok(interval.is_some_and(|(low, high)| low > 1.0 || high < 1.0))
    }

    /// The figures of two servers, of each round in which both were sound.
    fn pairs(&self, path: &str, server: &str, base: &str, name: &str) -> Result<Vec<(f64, f64)>, String> {
        // Percentiles need their publications on either side.
        self.measured(path, server, name, Of::All)?;
        self.measured(path, base, name, Of::All)?;
        let reports = self.results(path)?;
        let (own, bases) = (rounds_of(&reports, server)?, rounds_of(&reports, base)?);
        let mut pairs = Vec::new();
        for round in own.iter().filter(|round| counts(round.standing, name)) {
            let same = |other: &&Round<'_>| other.nth == round.nth && counts(other.standing, name);
            if let Some(other) = bases.iter().find(same) {
                pairs.push((of_one(name, round.run)?, of_one(name, other.run)?));
            }
        }
        Ok(pairs)
    }

    /// Whether a server has delivered what was offered, in every round.
    pub fn kept_up(&self, path: &str, server: &str) -> Result<bool, String> {
        let reports = self.results(path)?;
        let rounds = rounds_of(&reports, server)?;
        Ok(rounds.iter().all(|round| round.standing != Standing::Behind))
    }

    /// The highest rate of several results, in deliveries a second, that a server held, and whether it fell behind at the next; none where it held none.
    pub fn highest_held(&self, path: &str, server: &str) -> Result<Option<(f64, bool)>, String> {
        let mut rates = Vec::new();
        for one in self.results(path)? {
            let spec = &one.report.spec;
            let Pace::Rate(rate) = spec.pace else { continue };
            let offered = rate.0 * (spec.subs * spec.topics_per_sub) as f64 / spec.topics as f64;
            if let Ok(rounds) = rounds_of(std::slice::from_ref(&one), server) {
                let fell_behind = rounds.iter().any(|round| round.standing == Standing::Behind);
                rates.push((offered, fell_behind, !fell_behind && sound(&rounds, "deliveries").is_ok()));
            }
        }
        rates.sort_by(|a, b| a.0.total_cmp(&b.0));
        let highest = rates.iter().rposition(|(_, _, held)| *held);
        Ok(highest.map(|at| (rates[at].0, rates.get(at + 1).is_some_and(|(_, fell_behind, _)| *fell_behind))))
    }

    /// The names of those who were measured.
    pub fn servers(&self, path: &str) -> Result<Vec<String>, String> {
        let reports = self.results(path)?;
        Ok(reports.iter().flat_map(|one| &one.report.runs).map(|run| run.name.clone()).collect())
    }

    /// A number behind words in a text.
    ///
    /// # Errors
    /// There is no such file, or the words stand on no line, or on several where one is asked for.
    pub fn written(&self, path: &str, place: &Place, of: Of) -> Result<Quantity, String> {
        let (mut found, words) = (Vec::new(), &place.words);
        for path in self.paths(path)? {
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", self.shown(&path)))?;
            found.extend(numbers(&text, place).map_err(|why| format!("{}: {why}", self.shown(&path)))?);
        }
        let first = found.first().ok_or_else(|| format!("no line of {path} has \"{words}\" in it"))?;
        let kind = first.kind;
        match (of, found.len()) {
            (Of::All, 1) => Ok(*first),
            (Of::All, lines) => Err(format!("{lines} lines of {path} have \"{words}\" in them, and one is asked for")),
            (of, _) => Ok(Quantity { value: of.pick(found.iter().map(|one| one.value).collect()), kind }),
        }
    }

    fn results(&self, path: &str) -> Result<Vec<Rc<Measured>>, String> {
        let path =
            if path.ends_with(".gz") || path.ends_with(".json") { path.to_owned() } else { format!("{path}.json.gz") };
        self.paths(&path)?.into_iter().map(|path| self.report(path)).collect()
    }

    fn report(&self, path: PathBuf) -> Result<Rc<Measured>, String> {
        if let Some(known) = self.reports.borrow().get(&path) {
            return Ok(known.clone());
        }
        let report = merge::read(&path).map_err(|error| format!("{error:#}"))?;
        let rounds = rounds_in(&path).unwrap_or_default();
        let report = Rc::new(Measured { report, rounds });
        self.reports.borrow_mut().insert(path, report.clone());
        Ok(report)
    }

    /// The files of a name, in which one `*` stands for any number.
    fn paths(&self, path: &str) -> Result<Vec<PathBuf>, String> {
        let whole = self.root.join(path);
        let name = whole.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let Some((begin, end)) = name.split_once('*') else {
            return if whole.is_file() { Ok(vec![whole]) } else { Err(format!("there is no file {path}")) };
        };
        let matches = |name: &str| {
            let number = name.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end));
            number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let entries = fs::read_dir(whole.parent().unwrap_or(&self.root)).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> =
            entries.filter(|entry| entry.file_name().to_str().is_some_and(matches)).map(|entry| entry.path()).collect();
        found.sort();
        if found.is_empty() { Err(format!("there is no file {path}")) } else { Ok(found) }
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

/// The share of what is offered a second that has to be delivered in it, as in a sweep.
const DELIVERED: f64 = 0.95;

/// What became of a round. The later ones are the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Sound,
    Doubtful,
    /// It lost something, or delivered less than [`DELIVERED`].
    Behind,
}

/// The run of a round that counts.
#[derive(Clone, Copy)]
struct Round<'a> {
    nth: u32,
    run: &'a Run,
    standing: Standing,
}

/// The number of each run's round.
fn rounds_in(path: &Path) -> anyhow::Result<Vec<Option<u32>>> {
    #[derive(Deserialize)]
    struct Numbered {
        round: Option<u32>,
    }
    #[derive(Deserialize)]
    struct All {
        runs: Vec<Numbered>,
    }
    let mut text = String::new();
    GzDecoder::new(fs::File::open(path)?).read_to_string(&mut text)?;
    let all: All = serde_json::from_str(&text)?;
    Ok(all.runs.into_iter().map(|run| run.round).collect())
}

/// A server's rounds, each with its last sound run, or else with its last.
fn rounds_of<'a>(files: &'a [Rc<Measured>], server: &str) -> Result<Vec<Round<'a>>, String> {
    let mut rounds: Vec<Round<'a>> = Vec::new();
    for (file, one) in files.iter().enumerate() {
        let runs = one.report.runs.iter().enumerate().filter(|(_, run)| run.name == server);
        for (at, run) in runs {
            // Those of several files, and those without a number, are rounds by themselves.
            let number = one.rounds.get(at).copied().flatten().map(|nth| nth + file as u32 * 1_000);
            let round = Round {
                nth: number.unwrap_or(1_000_000 + rounds.len() as u32),
                run,
                standing: standing(run, &one.report),
            };
            match rounds.iter_mut().find(|known| known.nth == round.nth) {
                Some(known) if round.standing != Standing::Doubtful || known.standing == Standing::Doubtful => {
                    *known = round
                }
                Some(_) => {}
                None => rounds.push(round),
            }
        }
    }
    if rounds.is_empty() {
        let all = files.iter().flat_map(|one| &one.report.runs);
        let names: BTreeSet<&str> = all.map(|run| run.name.as_str()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        return Err(format!("no run is of {server}; there are {}", names.join(", ")));
    }
    Ok(rounds)
}

fn standing(run: &Run, report: &Report) -> Standing {
    let delivered = report.spec.duration.seconds() / run.seconds.max(1e-9);
    match run.exit() {
        exit::FAULTS | exit::COULD_NOT => Standing::Behind,
        _ if run.open_loop && delivered < DELIVERED => Standing::Behind,
        exit::FINE => Standing::Sound,
        _ => Standing::Doubtful,
    }
}

/// Whether a run counts for a figure. How many bytes are left and how much memory is taken are no matter of time: what makes the generator doubt a run is
/// not about them, unless something was lost.
fn counts(standing: Standing, name: &str) -> bool {
    standing == Standing::Sound || (standing == Standing::Doubtful && matches!(name, "left" | "memory"))
}

/// Those of the runs that count.
fn sound<'a>(rounds: &[Round<'a>], name: &str) -> Result<Vec<&'a Run>, String> {
    let sound: Vec<&Run> = rounds.iter().filter(|round| counts(round.standing, name)).map(|round| round.run).collect();
    if sound.len() >= SOUND_MIN && 2 * sound.len() >= rounds.len() {
        return Ok(sound);
    }
    let said = rounds.iter().flat_map(|round| round.run.doubts.iter().chain(&round.run.faults)).next();
    let said = said.map_or(String::new(), |said| format!("; one says: {said}"));
    let (sound, all) = (sound.len(), rounds.len());
    Err(format!("{sound} of {all} runs are sound, and a figure takes {SOUND_MIN}, and half of them{said}"))
}

/// A figure of one round, for a ratio: a percentile whatever the number of its publications, since only all rounds together have to have enough.
fn of_one(name: &str, run: &Run) -> Result<f64, String> {
    let percentile = QUANTILES.into_iter().find(|(own, _)| *own == name);
    let of_pool = |(_, quantile)| Some(Pool::of([run])?.latency.value_at_quantile(quantile) as f64);
    percentile.and_then(of_pool).map_or_else(|| thresholds::measure(name, &[run]), Ok)
}

/// What a figure of the generator's is one of, and its factor.
fn unit_of(name: &str) -> (f64, Kind) {
    let kind = |seconds, bytes| Kind { seconds, bytes };
    match name {
        "deliveries" | "publications" | "connections" => (1.0, kind(-1, 0)),
        "bytes" => (1.0, kind(-1, 1)),
        "memory" => (1.0, kind(0, 1)),
        "missing" | "doubts" | "cores" | "sends" | "delivered" => (1.0, PLAIN),
        // In per cent.
        "left" => (100.0, PLAIN),
        _ => (1e-9, kind(1, 0)),
    }
}

/// Which of several figures is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// That of all runs together, or the only one.
    All,
    Least,
    Median,
    Most,
    Mean,
}

impl Of {
    /// The one that goes by a name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [("least", Self::Least), ("median", Self::Median), ("most", Self::Most), ("mean", Self::Mean)];
        all.into_iter().find_map(|(own, of)| (own == name).then_some(of))
    }

    /// One of some values, of which there is one at least.
    pub fn pick(self, mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        let last = values.len() - 1;
        match self {
            Self::Least => values[0],
            Self::Most => values[last],
            Self::All | Self::Median => (values[last / 2] + values[last.div_ceil(2)]) / 2.0,
            Self::Mean => values.iter().sum::<f64>() / values.len() as f64,
        }
    }
}

/// Where a number is in a text.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// It is under the heading that has these words in it; none where it may be anywhere.
    pub section: Option<String>,
    /// It is behind these words, however many spaces are between them; with a `^` before them, they begin the line.
    pub words: String,
    /// It is so manieth of those behind them, from 1.
    pub nth: usize,
    /// Its unit, where none stands behind it.
    pub unit: Option<String>,
}

/// The numbers of a place, one on every line that its words stand on.
fn numbers(text: &str, place: &Place) -> Result<Vec<Quantity>, String> {
    let (mut found, words) = (Vec::new(), in_one_space(&place.words));
    let mut run: Vec<&str> = Vec::new();
    let (mut is_asked, mut is_there) = (false, place.section.is_none());
    for line in text.lines().chain(["$ "]) {
        if BEGINS_RUN.iter().any(|begin| line.starts_with(begin)) {
            if is_asked {
                is_sound(&run)?;
            }
            run.clear();
            is_asked = false;
        }
        run.push(line);
        if let Some(section) = place.section.as_ref().filter(|_| line.starts_with('#')) {
            is_there = line.contains(section);
        }
        let line = in_one_space(line);
        let behind = match words.strip_prefix('^') {
            Some(words) => line.trim_start().strip_prefix(words),
            None => line.split_once(&words).map(|(_, behind)| behind),
        };
        if let Some(behind) = behind.filter(|_| is_there) {
            is_asked = true;
            let number = number(behind, place).ok_or_else(|| format!("no number behind \"{words}\": {line}"))?;
            found.push(number);
        }
    }
    Ok(found)
}

fn is_sound(lines: &[&str]) -> Result<(), String> {
    match lines.iter().position(|line| SAYS_DOUBTFUL.iter().any(|said| line.starts_with(said))) {
        None => Ok(()),
        Some(at) => Err(format!("the run is doubtful:{}", lines.get(at + 1).unwrap_or(&""))),
    }
}

/// With one space wherever there are any.
fn in_one_space(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let c = if c.is_whitespace() { ' ' } else { c };
        if c != ' ' || !out.ends_with(' ') {
            out.push(c);
        }
    }
    out
}

fn number(text: &str, place: &Place) -> Option<Quantity> {
    let number = figure::digits(text).nth(place.nth.checked_sub(1)?)?;
    let behind = text[number.end..].trim_start();
    let own = || behind.split(|c: char| c.is_whitespace() || ",;)|".contains(c)).next().and_then(figure::unit);
    let unit = place.unit.as_deref().map_or_else(|| own().or(Some(figure::NONE)), figure::unit)?;
    let value: f64 = text[number].replace(',', "").parse().ok()?;
    Some(Quantity { value: value * unit.scale, kind: unit.kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "== a\n  server  3.5us CPU, 0.95 cores\n== b\nDOUBTS: these figures may not be the server's\n  - slipped\n  \
                           server  4us CPU, 1 cores\n";

    fn of(text: &str, words: &str, nth: usize, unit: Option<&str>) -> Result<Vec<Quantity>, String> {
        numbers(text, &Place { section: None, words: words.into(), nth, unit: unit.map(str::to_owned) })
    }

    #[test]
    fn a_number_behind_words_has_the_unit_that_stands_there() {
        let all = of("a  send  | 4190 (4096 to 4267) | 1.5 ms", "a send", 1, Some("ns")).unwrap();
        assert_eq!(all, [Quantity { value: 4190.0 * 1e-9, kind: Kind { seconds: 1, bytes: 0 } }]);
        assert!((of("a send 1,250 ms", "send", 1, None).unwrap()[0].value - 1.25).abs() < 1e-9);
        assert_eq!(of("x 1 2 0.75", "x", 3, None).unwrap()[0], Quantity { value: 0.75, kind: PLAIN });
    }

    #[test]
    fn a_number_may_be_under_a_heading() {
        let place = Place { section: Some("b".into()), words: "x".into(), nth: 1, unit: None };
        let all = numbers("x 0\n## a\nx 1\n## b\nx 2\n## c\nx 3\n", &place).unwrap();
        assert_eq!(all, [Quantity { value: 2.0, kind: PLAIN }]);
    }

    #[test]
    fn what_the_generator_printed_of_a_doubtful_run_is_no_raw_data() {
        assert!(of(PRINTED, "3.5us CPU,", 1, None).is_ok());
        assert!(of(PRINTED, "4us CPU,", 1, None).unwrap_err().contains("doubtful:  - slipped"));
    }
}
