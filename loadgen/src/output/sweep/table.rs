//! A sweep's tables: what each server holds, then what it takes, a table for each rate.

use super::{Above, CLOSED, Capacity, DELIVERED, FIGURES, Figure, Point, Ratio, SENDS, Standing, Sweep};
use crate::{
    figures::Run,
    output::compare::{as_markdown, spread},
    units::{count, short},
};

/// All of them, as Markdown. One result alone is a table and no grid.
pub(super) fn of(sweep: &Sweep) -> String {
    if sweep.is_closed() {
        let window = sweep.rates[0].0;
        return format!("{window} in flight, {}.\n\n{}\n{}", sweep.kind(), at(sweep, 0), paired(sweep));
    }
    let mut out = format!("{}.\n\n", capital(&sweep.kind()));
    if sweep.rates.len() > 1 || !sweep.searches.is_empty() {
        out += &format!("{}\n", capacities(sweep));
    }
    for (nth, (rate, _)) in sweep.rates.iter().enumerate() {
        let title = format!("{} publications a second, {} deliveries", count(*rate as u64), short(rate * sweep.fan()));
        out += &format!("### {title}\n\n{}\n", at(sweep, nth));
    }
    out + &method(sweep)
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn capacities(sweep: &Sweep) -> String {
    let searched = !sweep.searches.is_empty();
    let mut head = vec!["".to_owned(), "held, publications/s".into(), "deliveries/s".into(), "above it".into()];
    if searched {
        head.push("by search".into());
    }
    let mut rows = vec![head];
    for server in sweep.servers() {
        let capacity = sweep.capacity(server);
        let deliveries = capacity.held.map_or_else(|| "-".into(), |rate| short(rate * sweep.fan()));
        let mut row = vec![server.to_owned(), capacity.to_string(), deliveries, capacity.above.to_string()];
        if searched {
            row.push(sweep.searched(server).map_or_else(|| "-".into(), |rate| count(rate as u64)));
        }
        rows.push(row);
    }
    as_markdown(&rows)
}

impl std::fmt::Display for Capacity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.held, &self.above) {
            (None, _) => f.write_str("none of the grid"),
            (Some(rate), Above::Behind { .. }) => write!(f, "{}", count(rate as u64)),
            (Some(rate), _) => write!(f, "at least {}", count(rate as u64)),
        }
    }
}

impl std::fmt::Display for Above {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Behind { rate, behind, rounds } => {
                write!(f, "fell behind at {}, in {behind} of {rounds}", count(*rate as u64))
            }
            Self::Generator { rate } => write!(f, "the generator was the limit at {}", count(*rate as u64)),
            Self::Doubtful { rate, why } => write!(f, "doubtful at {}: {why}", count(*rate as u64)),
            Self::Nothing => f.write_str("was not asked for more"),
        }
    }
}

/// The table of a rate.
fn at(sweep: &Sweep, nth: usize) -> String {
    let base = sweep.point(nth, &sweep.against);
    let figures: &[Figure] = if sweep.is_closed() { &CLOSED } else { &FIGURES };
    let compared = |figure: &Figure| figure.title != SENDS.title;
    let mut rows = vec![vec![String::new(), "rounds".into()]];
    for figure in figures {
        rows[0].push(figure.title.into());
        if compared(figure) {
            rows[0].push(format!("× {}", sweep.against));
        }
    }
    for server in sweep.servers() {
        let Some(point) = sweep.point(nth, server) else { continue };
        let mut row = vec![server.to_owned(), rounds(&point)];
        for figure in figures {
            row.push(value(&point, figure));
            if compared(figure) {
                let ratio = base.as_ref().and_then(|base| point.ratio(base, figure));
                let text = |ratio: Ratio| if server == sweep.against { "1".into() } else { ratio.to_string() };
                row.push(ratio.map_or_else(|| "-".into(), text));
            }
        }
        rows.push(row);
    }
    as_markdown(&rows)
}

/// How many rounds have figures, and what became of the others.
fn rounds(point: &Point<'_>) -> String {
    let (all, sound) = (point.rounds.len(), point.count(Standing::Held));
    let behind = point.rounds.iter().filter(|round| round.standing == Standing::Behind);
    let behind: Vec<&Run> = behind.map(|round| round.run).collect();
    let mut text = if sound == all { sound.to_string() } else { format!("{sound} of {all}") };
    if !behind.is_empty() {
        let share = spread(behind.iter().map(|run| run.delivered().unwrap_or(0.0)).collect()).1;
        // What has not come by the end of a run counts as missing there; who is late is not said to have lost it.
        text += &match share < DELIVERED {
            true => format!(", fell behind: {:.0} % delivered in time", share * 100.0),
            false => ", lost something".to_owned(),
        };
    }
    if point.count(Standing::Doubtful) > 0 {
        text += &format!(", {} doubtful: {}", point.count(Standing::Doubtful), point.doubt());
    }
    text
}

/// A figure, where the rate was held.
fn value(point: &Point<'_>, figure: &Figure) -> String {
    match point.figure(figure) {
        None => "-".into(),
        Some(Err(few)) => few.to_string(),
        Some(Ok(value)) => (figure.show)(value),
    }
}

/// How all of it is to be read.
fn method(sweep: &Sweep) -> String {
    let again: usize = sweep.rates.iter().map(|(_, report)| report.runs.len()).sum::<usize>()
        - (0..sweep.rates.len())
            .flat_map(|nth| sweep.servers().into_iter().filter_map(move |server| sweep.point(nth, server)))
            .map(|point| point.rounds.len())
            .sum::<usize>();
    let again = match again {
        0 => String::new(),
        1 => " One run was made again for that, and is in the raw data, too.".into(),
        more => format!(" {more} runs were made again for that, and are in the raw data, too."),
    };
    format!(
        "A rate is held where every round delivered at least {:.0} % of what was offered a second, with nothing lost, and at least half of the \
         rounds are sound: nothing speaks against them.{again} Figures are of sound rounds: CPU, sends and p50 medians of the rounds, p99 of all \
         their publications together, of which it takes 1,000. Sends are segments as subscribers' kernels count them, on loopback one for each \
         `send` of up to 65,483 bytes. {}",
        DELIVERED * 100.0,
        paired(sweep)
    )
}

fn paired(sweep: &Sweep) -> String {
    let against = &sweep.against;
    format!(
        "`× {against}`: the ratio to {against} in each round in which both were sound, of all of them the geometric mean, and in brackets Student's \
         interval at 95 % of its logarithm.\n"
    )
}
