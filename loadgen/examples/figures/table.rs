//! Tables that are made from results of the generator, so that nobody types a figure.
//!
//! ```md
//! <!-- figures from results/2026-11-30-sweep -->
//! <!-- table:
//! row bare-loop = a bare loop of sends
//! row stentor-raw = **Stentor**, `/raw`
//! maybe gobwas = gobwas (Go)
//! column CPU a delivery at 50k/s = 1000x128-r50 cpu
//! column p50 / p99 = 1000x128-r50 p50 p99
//! column highest rate held = 1000x128-r* held
//! -->
//! (the table)
//! <!-- end of table -->
//! ```
//!
//! A column names a file and figures of it as `--fail-if` does, or `held`: the highest rate of several files, in deliveries a second, that was held: in every
//! round all of it was delivered, in the time that it was offered in, and nothing speaks against half of them at least. `≥` stands before it where more may be held. Where a server didn't hold a rate, that stands in place of what survived; `–` stands
//! where too few runs were sound, or too few publications made for a percentile. Whoever was measured in one of the files has a row, and whoever has a row was
//! measured, but that `maybe` is for those who need not be. In bold is what is ahead of everybody else's in its column, as far
//! as rounds tell: of the ratio to each of them, paired by round, the interval (95 %) doesn't hold 1. Servers of one make (`stentor`, `stentor-raw`) are not held against each other; the first
//! row, what the others are measured by, takes no part.

use crate::{
    data::{Data, Of},
    figure::{Kind, Quantity},
};

/// What can't be told.
const NONE: &str = "–";

/// A column of the highest rates that were held.
const HELD: &str = "held";

/// What stands where a server didn't hold the rate, and before a rate where more may be held.
const NOT_HELD: &str = "not held";
const LEAST: &str = "≥ ";

/// Whose a server is, whatever its lane, workers and flags.
fn kind_of(server: &str) -> &str {
    server.split(['-', ':', ' ']).next().unwrap_or(server)
}

struct Column<'a> {
    title: &'a str,
    path: String,
    names: Vec<&'a str>,
}

/// A table in Markdown, and how many figures are in it.
///
/// # Errors
/// A rule that is not understood, or servers that have no row or no runs.
pub fn made(rules: &str, folder: &str, data: &Data) -> Result<(String, usize), String> {
    let (mut rows, mut some, mut columns) = (Vec::new(), Vec::new(), Vec::new());
    for rule in rules.lines().map(str::trim).filter(|rule| !rule.is_empty()) {
        let wrong =
            || format!("`{rule}` is not understood: expected `row SERVER = TITLE` or `column TITLE = FILE FIGURE …`");
        let (what, value) = rule.split_once(" = ").ok_or_else(wrong)?;
        match what.split_once(' ').ok_or_else(wrong)? {
            ("row", server) => rows.push((server, value)),
            ("maybe", server) => some.push((server, value)),
            ("column", title) => {
                let mut words = value.split_whitespace();
                let path = words.next().ok_or_else(wrong)?;
                let path = if path.starts_with("results/") { path.to_owned() } else { format!("{folder}/{path}") };
                columns.push(Column { title, path, names: words.collect() });
            }
            _ => return Err(wrong()),
        }
    }
    complete(&mut rows, some, &columns, data)?;
    let titles: String = columns.iter().map(|column| format!(" {} |", column.title)).collect();
    let mut table = format!("| |{titles}\n|{}\n", " --- |".repeat(columns.len() + 1));
    let mut lines: Vec<String> = rows.iter().map(|(_, title)| format!("| {title} |")).collect();
    let mut figures = 0;
    for column in &columns {
        let cells = rows.iter().map(|(server, _)| column.cell(server, data)).collect::<Result<Vec<Cell>, String>>()?;
        let bold = column.bold(&rows, &cells, data);
        for (nth, (line, cell)) in lines.iter_mut().zip(&cells).enumerate() {
            figures += cell.values.iter().flatten().count();
            line.push_str(&format!(" {} |", cell.text(&bold[nth])));
        }
    }
    lines.iter().for_each(|line| table += &format!("{line}\n"));
    Ok((table, figures))
}

/// One cell.
struct Cell {
    /// What stands there; empty where it is the figures.
    words: String,
    /// The figures of it; none where one can't be told.
    values: Vec<Option<Quantity>>,
}

impl Cell {
    fn value(&self, at: usize) -> Option<f64> {
        self.values.get(at).copied().flatten().map(|one| one.value)
    }

    fn without(words: &str) -> Self {
        Self { words: words.to_owned(), values: Vec::new() }
    }

    /// With those figures in bold that are to be.
    fn text(&self, bold: &[bool]) -> String {
        let all = !bold.is_empty() && bold.iter().all(|bold| *bold);
        match () {
            () if !self.words.is_empty() && all => format!("**{}**", self.words),
            () if !self.words.is_empty() => self.words.clone(),
            () if all => format!("**{}**", together(&self.values, &[])),
            () => together(&self.values, bold),
        }
    }
}

/// Nobody who was measured is left out, and nobody is there who wasn't. Those who may be there or not come last.
fn complete<'a>(
    rows: &mut Vec<(&'a str, &'a str)>,
    some: Vec<(&'a str, &'a str)>,
    columns: &[Column<'_>],
    data: &Data,
) -> Result<(), String> {
    let mut measured = Vec::new();
    for column in columns {
        measured.extend(data.servers(&column.path)?);
    }
    if let Some((row, _)) = rows.iter().find(|(row, _)| !measured.iter().any(|server| server == row)) {
        return Err(format!("{row} has a row and was not measured"));
    }
    rows.extend(some.into_iter().filter(|(row, _)| measured.iter().any(|server| server == row)));
    match measured.iter().find(|server| !rows.iter().any(|(row, _)| row == server)) {
        Some(server) => Err(format!("{server} was measured and has no row")),
        None => Ok(()),
    }
}

impl Column<'_> {
    fn is_more_better(&self) -> bool {
        matches!(self.names[..], [HELD | "deliveries" | "publications" | "bytes", ..])
    }

    /// Which figures of each cell are ahead of everybody else's, as far as the rounds tell.
    fn bold(&self, rows: &[(&str, &str)], cells: &[Cell], data: &Data) -> Vec<Vec<bool>> {
        let others = |nth: usize| (1..cells.len()).any(|other| kind_of(rows[other].0) != kind_of(rows[nth].0));
        let is_ahead = |nth: usize, at: usize| {
            nth > 0
                && others(nth)
                && cells[nth].value(at).is_some()
                && (1..cells.len())
                    .filter(|other| kind_of(rows[*other].0) != kind_of(rows[nth].0))
                    .all(|other| self.is_ahead(at, (rows[nth].0, &cells[nth]), (rows[other].0, &cells[other]), data))
        };
        (0..cells.len()).map(|nth| (0..cells[nth].values.len()).map(|at| is_ahead(nth, at)).collect()).collect()
    }

    /// Whether a server's figure is better than another's, and their rounds tell it.
    fn is_ahead(&self, at: usize, (server, own): (&str, &Cell), (other, theirs): (&str, &Cell), data: &Data) -> bool {
        let (name, Some(value)) = (self.names[at], own.value(at)) else { return false };
        match theirs.value(at) {
            // Who fell behind is; of who has no figure for other reasons, nobody knows, unless it wasn't asked.
            None if theirs.words == NOT_HELD => true,
            None => name != HELD && data.servers(&self.path).is_ok_and(|all| !all.iter().any(|name| name == other)),
            Some(less) if name == HELD => value > less && !theirs.words.starts_with(LEAST),
            Some(theirs) if (value > theirs) != self.is_more_better() => false,
            Some(_) => data.differ(&self.path, server, other, name).unwrap_or(false),
        }
    }

    fn cell(&self, server: &str, data: &Data) -> Result<Cell, String> {
        if self.names == [HELD] {
            let Some((rate, fell_behind)) = data.highest_held(&self.path, server)? else {
                return Ok(Cell::without(NONE));
            };
            // What was doubtful above it, or not tried, may be held as well.
            let least = if fell_behind { "" } else { LEAST };
            let text = format!("{least}{}/s", loadgen::units::short(rate));
            let rate = Quantity { value: rate, kind: Kind { seconds: -1, bytes: 0 } };
            return Ok(Cell { words: text, values: vec![Some(rate)] });
        }
        if !data.servers(&self.path)?.iter().any(|name| name == server) {
            return Ok(Cell::without(NONE));
        }
        if !data.kept_up(&self.path, server)? {
            return Ok(Cell::without(NOT_HELD));
        }
        let of = |name: &&str| data.measured(&self.path, server, name, Of::All).ok();
        let values: Vec<Option<Quantity>> = self.names.iter().map(of).collect();
        if values.iter().flatten().count() == 0 {
            return Ok(Cell::without(NONE));
        }
        Ok(Cell { words: String::new(), values })
    }
}

/// Quantities of a kind in one unit, that of the largest; those in bold that are to be.
fn together(values: &[Option<Quantity>], bold: &[bool]) -> String {
    let largest = values.iter().flatten().fold(0f64, |most, one| most.max(one.value));
    let kind = values.iter().flatten().next().map(|one| one.kind);
    let (scale, unit) = match kind {
        Some(Kind { seconds: 1, bytes: 0 }) => {
            scale_of(largest, &[(1e-9, " ns"), (1e-6, " µs"), (1e-3, " ms"), (1.0, " s")])
        }
        Some(Kind { seconds: 0, bytes: 1 }) => {
            scale_of(largest, &[(1.0, " B"), (1024.0, " KiB"), (1_048_576.0, " MiB")])
        }
        Some(Kind { seconds: -1, .. }) => scale_of(largest, &[(1.0, "/s"), (1e3, "k/s"), (1e6, "M/s")]),
        _ => (1.0, ""),
    };
    let shown = |(at, value): (usize, &Option<Quantity>)| {
        let mark = if bold.get(at).is_some_and(|bold| *bold) { "**" } else { "" };
        value.map_or_else(|| NONE.into(), |one| format!("{mark}{}{mark}", two_digits(one.value / scale)))
    };
    format!("{}{unit}", values.iter().enumerate().map(shown).collect::<Vec<String>>().join(" / "))
}

/// The largest unit of which there is one at least.
fn scale_of(value: f64, units: &[(f64, &'static str)]) -> (f64, &'static str) {
    units.iter().rev().find(|(scale, _)| value >= *scale).copied().unwrap_or(units[0])
}

/// Two significant digits: more than that, two sessions don't agree in. Whole numbers stay.
fn two_digits(value: f64) -> String {
    if value < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_stand_in_the_unit_of_the_largest() {
        let time = |value| Some(Quantity { value, kind: Kind { seconds: 1, bytes: 0 } });
        assert_eq!(together(&[time(0.000_94), time(0.0142)], &[]), "0.9 / 14 ms");
        assert_eq!(together(&[time(3.85e-6)], &[]), "3.9 µs");
        assert_eq!(together(&[time(0.002), None], &[true, false]), "**2.0** / – ms");
        let cell = |words: &str| Cell { words: words.into(), values: vec![time(0.002), time(0.004)] };
        assert_eq!(cell("").text(&[true, true]), "**2.0 / 4.0 ms**");
        assert_eq!(cell("").text(&[false, true]), "2.0 / **4.0** ms");
        assert_eq!(
            (cell("50k/s").text(&[true, true]), Cell::without(NONE).text(&[])),
            ("**50k/s**".into(), NONE.into())
        );
    }
}
