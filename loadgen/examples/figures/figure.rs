//! What a figure is, as it stands in a text: which numbers, in which unit, how exact.
//!
//! - A number with a unit in which something is measured: time, bytes, a rate, `%`, `×`, `times`, instructions. Several may share a unit:
//!   `2.4 / 7.1 ms`, `3 to 5 µs`.
//! - A number alone in a cell of a table, beside its first column, whose unit the head of the table tells.
//! - A number with a decimal point, but for a version behind the name of a program (`Linux 6.18`).
//! - In what is about measuring, a fraction in words: `half as many`, `a sixth of`, `twice the`.
//!
//! Not looked at are code, addresses of links, comments, heads of tables, and counts of what was set up (`1,000 subscribers`).

use std::{ops::Range, sync::LazyLock};

use regex::Regex;

/// A power of seconds and one of bytes: what a quantity is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub seconds: i8,
    pub bytes: i8,
}

/// Neither time nor bytes.
pub const PLAIN: Kind = Kind { seconds: 0, bytes: 0 };

/// A value in seconds, bytes, or bytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantity {
    pub value: f64,
    pub kind: Kind,
}

/// What a printed number is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    pub scale: f64,
    pub kind: Kind,
}

/// No unit at all.
pub const NONE: Unit = Unit { scale: 1.0, kind: PLAIN };

/// How a figure is found, for excuses that are about a way of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// By its unit.
    Unit,
    /// By standing alone in a cell.
    Cell,
    /// By its decimal point.
    Decimal,
    /// In words.
    Words,
}

/// A figure in a text.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Where its digits or words are.
    pub at: Range<usize>,
    /// What it says, as printed.
    pub printed: f64,
    pub unit: Unit,
    /// How the unit is written; empty for none.
    pub unit_text: String,
    pub form: Form,
    /// How far the raw data may be off, in the printed unit.
    tolerance: f64,
    /// Decimal places.
    places: usize,
}

/// Whose versions are named.
const VERSIONED: [&str; 10] = ["Apache", "Caddy", "Go", "HAProxy", "HTTP", "Java", "Linux", "Node", "Python", "TLS"];

const NUMBER: &str = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?";
/// What may be between numbers that share a unit.
const BETWEEN: &str = r"\sto\s|\sand\s|\sor\s|\sagainst\s|\s/\s|,\s";
const UNITS: &str = r"(?:ns|µs|us|ms|(?:nano|micro|milli)?seconds?|minutes?|s|(?:[KMG]iB|[KMG]B|B|bytes?)(?:/s|\sa\ssecond)?|per\scent|times|instructions|(?:k|M|thousand|million)?(?:\s?(?:deliveries|publications|sends|connections|messages|handshakes|clients))?(?:/s|\sa\ssecond)|(?:million|M)\s(?:deliveries|publications|sends))\b|%|×";

static NUMBERS: LazyLock<Regex> = LazyLock::new(|| Regex::new(NUMBER).expect("a pattern"));
static WITH_UNIT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!(r"(?P<list>(?:{NUMBER})(?:(?:{BETWEEN})(?:{NUMBER}))*)[\s\u{{a0}}]?(?P<unit>{UNITS})"))
        .expect("a pattern")
});
static FACTOR: LazyLock<Regex> = LazyLock::new(|| Regex::new(&format!(r"[×x] ?({NUMBER})")).expect("a pattern"));
static CELL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!(r"^[\s*]*((?:{NUMBER})(?:(?: to | / |, )(?:{NUMBER}))*)[\s*]*$")).expect("a pattern")
});
static WORDS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)\b(twice|(?:half|(?:a|one|two|three|four|five) (?:third|quarter|fifth|sixth|seventh|eighth|ninth|tenth|twentieth)s?)\b)\s(?:as|of|more|less|the)\b",
    )
    .expect("a pattern")
});

/// A unit by its name.
pub fn unit(name: &str) -> Option<Unit> {
    let (seconds, bytes) = (Kind { seconds: 1, bytes: 0 }, Kind { seconds: 0, bytes: 1 });
    let time = |scale| Some(Unit { scale, kind: seconds });
    let plain = |scale| Some(Unit { scale, kind: PLAIN });
    if let Some(of) = name.strip_suffix("/s").or_else(|| name.strip_suffix("a second")) {
        let inner = unit(of.trim()).unwrap_or(NONE);
        return Some(Unit { kind: Kind { seconds: inner.kind.seconds - 1, ..inner.kind }, ..inner });
    }
    let (binary, decimal) = (f64::powi(1024.0, 1), 1e3);
    let bytes = |scale| Some(Unit { scale, kind: bytes });
    match name {
        "ns" | "nanosecond" | "nanoseconds" => time(1e-9),
        "µs" | "us" | "microsecond" | "microseconds" => time(1e-6),
        "ms" | "millisecond" | "milliseconds" => time(1e-3),
        "s" | "second" | "seconds" => time(1.0),
        "minute" | "minutes" => time(60.0),
        "B" | "byte" | "bytes" => bytes(1.0),
        "KB" => bytes(decimal),
        "MB" => bytes(decimal.powi(2)),
        "GB" => bytes(decimal.powi(3)),
        "KiB" => bytes(binary),
        "MiB" => bytes(binary.powi(2)),
        "GiB" => bytes(binary.powi(3)),
        "%" | "per cent" => plain(0.01),
        "×" | "times" | "instructions" => plain(1.0),
        _ => match name.split(' ').next().unwrap_or_default() {
            "k" | "thousand" => plain(1e3),
            "M" | "million" => plain(1e6),
            "deliveries" | "publications" | "sends" | "connections" | "messages" | "handshakes" | "clients" => {
                plain(1.0)
            }
            _ => None,
        },
    }
}

/// Where numbers stand in a text, whatever they are.
pub fn digits(text: &str) -> impl Iterator<Item = Range<usize>> {
    NUMBERS.find_iter(text).map(|number| number.range())
}

/// All figures of a text in which nothing is left but what people read.
///
/// Fractions in words are figures only where `words` says so.
pub fn all(text: &str, words: bool) -> Vec<Figure> {
    let mut found = Vec::new();
    for with in WITH_UNIT.captures_iter(text) {
        let (list, name) = (with.name("list").expect("a list"), with.name("unit").expect("a unit"));
        let words = name.as_str().split_whitespace().collect::<Vec<_>>().join(" ");
        let Some(unit) = unit(&words).filter(|_| ends_here(text, name.end())) else { continue };
        numbers(text, list.range(), unit, &words, Form::Unit, &mut found);
    }
    for factor in FACTOR.captures_iter(text) {
        let number = factor.get(1).expect("a number");
        if begins_here(text, factor.get(0).expect("all of it").start()) {
            numbers(text, number.range(), NONE, "×", Form::Unit, &mut found);
        }
    }
    cells(text, &mut found);
    for number in NUMBERS.find_iter(text).filter(|number| number.as_str().contains('.')) {
        if !is_version(&text[..number.start()]) && ends_here(text, number.end()) {
            numbers(text, number.range(), NONE, "", Form::Decimal, &mut found);
        }
    }
    if words {
        found.extend(WORDS.captures_iter(text).map(|all| in_words(all.get(1).expect("words"))));
    }
    let heads = heads(text);
    found.retain(|figure| !heads.iter().any(|head| head.contains(&figure.at.start)));
    found.sort_by_key(|figure| figure.at.start);
    found.dedup_by_key(|figure| figure.at.start);
    found
}

/// The heads of tables.
fn heads(text: &str) -> Vec<Range<usize>> {
    let (mut heads, mut at, mut last) = (Vec::new(), 0, 0..0);
    for line in text.split_inclusive('\n') {
        if is_rule(line) {
            heads.push(last);
        }
        last = at..at + line.len();
        at += line.len();
    }
    heads
}

/// Whether a line is what stands between a table's head and its rows.
fn is_rule(line: &str) -> bool {
    line.starts_with('|') && line.trim_end().chars().all(|c| "|-: ".contains(c))
}

/// Numbers alone in a cell, but for those of the first column and of the head.
fn cells(text: &str, found: &mut Vec<Figure>) {
    let mut at = 0;
    let mut in_body = false;
    for line in text.split_inclusive('\n') {
        let is_row = line.starts_with('|');
        let is_rule = is_rule(line);
        in_body = is_row && (in_body || is_rule);
        if in_body && !is_rule {
            let mut start = at;
            for (nth, cell) in line.split('|').enumerate() {
                // Before the first bar there is nothing.
                if nth > 1
                    && let Some(all) = CELL.captures(cell)
                {
                    let range = all.get(1).expect("numbers").range();
                    numbers(text, start + range.start..start + range.end, NONE, "", Form::Cell, found);
                }
                start += cell.len() + 1;
            }
        }
        at += line.len();
    }
}

/// Adds the numbers of a range, except where one is a part of something else.
fn numbers(text: &str, range: Range<usize>, unit: Unit, unit_text: &str, form: Form, found: &mut Vec<Figure>) {
    for number in NUMBERS.find_iter(&text[range.clone()]) {
        let at = range.start + number.start()..range.start + number.end();
        let known = found.iter().any(|figure| figure.at.start == at.start);
        if !known && begins_here(text, at.start) && !goes_on(text, at.end) {
            found.push(Figure::read(&text[at.clone()], at, unit, unit_text, form));
        }
    }
}

/// Whether nothing stands directly before it that it would be a part of.
fn begins_here(text: &str, at: usize) -> bool {
    !text[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/:".contains(c)) || text[..at].ends_with('×')
}

fn ends_here(text: &str, at: usize) -> bool {
    !text[at..].starts_with(|c: char| c.is_alphanumeric())
}

/// Whether a number is the beginning of a version, a date or an address.
fn goes_on(text: &str, at: usize) -> bool {
    let mut rest = text[at..].chars();
    matches!((rest.next(), rest.next()), (Some('.' | '-' | '_' | ','), Some(next)) if next.is_ascii_digit())
}

/// Whether a number behind this is a name's: `Linux 6.18`.
fn is_version(before: &str) -> bool {
    let Some(before) = before.strip_suffix(' ') else { return false };
    let word = before.rsplit(|c: char| !(c.is_alphanumeric() || "-./+".contains(c))).next().unwrap_or_default();
    VERSIONED.contains(&word)
}

fn in_words(words: regex::Match<'_>) -> Figure {
    let text = words.as_str().to_lowercase();
    let share = |text: &str| {
        let (many, part) = text.split_once(' ')?;
        let many =
            ["", "a", "two", "three", "four", "five"].iter().position(|name| *name == many.replace("one", "a"))?;
        let parts = ["third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];
        let of = parts.iter().position(|name| *name == part.trim_end_matches('s')).map_or(20, |nth| nth + 3);
        Some(many as f64 / of as f64)
    };
    let printed = match text.as_str() {
        "twice" => 2.0,
        "half" => 0.5,
        other => share(other).unwrap_or(0.0),
    };
    let tolerance = printed / 10.0;
    Figure {
        at: words.range(),
        printed,
        unit: NONE,
        unit_text: "words".into(),
        form: Form::Words,
        tolerance,
        places: 0,
    }
}

impl Figure {
    fn read(digits: &str, at: Range<usize>, unit: Unit, unit_text: &str, form: Form) -> Self {
        let plain = digits.replace(',', "");
        let places = plain.split_once('.').map_or(0, |(_, places)| places.len());
        // Zeros at the end of a whole number are rounding, but for its first two digits.
        let zeros = plain.len() - plain.trim_end_matches('0').len();
        let rounded = if places > 0 { 0 } else { zeros.min(plain.len().saturating_sub(2)) };
        let tolerance = 0.5 * 10f64.powi(rounded as i32 - places as i32);
        let printed = plain.parse().expect("digits");
        Self { at, printed, unit, unit_text: unit_text.to_owned(), form, tolerance, places }
    }

    /// What the raw data makes of it, in the unit and with the places of the figure.
    ///
    /// # Errors
    /// It is a quantity of another kind.
    pub fn of(&self, raw: Quantity) -> Result<f64, String> {
        if raw.kind != self.unit.kind {
            return Err(format!(
                "the raw data is {}, and the figure {}; say `in UNIT` behind the source, or the unit of a number that has none",
                name_of(raw.kind),
                name_of(self.unit.kind)
            ));
        }
        Ok(raw.value / self.unit.scale)
    }

    /// Whether such raw data reads like this when it is rounded as this is.
    pub fn holds(&self, value: f64) -> bool {
        (value - self.printed).abs() <= self.tolerance * (1.0 + 1e-6)
    }

    /// The digits that should stand there; none for words.
    pub fn digits(&self, value: f64) -> Option<String> {
        if self.form == Form::Words {
            return None;
        }
        let step = 2.0 * self.tolerance;
        let text = format!("{:.*}", self.places, (value / step).round() * step);
        let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
        let whole = whole.parse().map_or_else(|_| whole.to_owned(), loadgen::units::count);
        Some(if rest.is_empty() { whole } else { format!("{whole}.{rest}") })
    }
}

fn name_of(kind: Kind) -> &'static str {
    match (kind.seconds, kind.bytes) {
        (0, 0) => "a number",
        (1, 0) => "a time",
        (0, 1) => "bytes",
        (-1, 0) => "a rate",
        (-1, 1) => "bytes a second",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> Vec<(f64, String)> {
        all(text, true).into_iter().map(|figure| (figure.printed, figure.unit_text)).collect()
    }

    fn one(value: f64, unit: &str) -> Vec<(f64, String)> {
        vec![(value, unit.to_owned())]
    }

    #[test]
    fn a_number_with_a_unit_is_a_figure() {
        assert_eq!(printed("takes 3.85 µs here"), one(3.85, "µs"));
        assert_eq!(printed("104 ns of it"), one(104.0, "ns"));
        assert_eq!(printed("9.6 million deliveries a second"), one(9.6, "million deliveries a second"));
        assert_eq!(printed("293 bytes each"), one(293.0, "bytes"));
        assert_eq!(printed("at 1.3 MB/s."), one(1.3, "MB/s"));
        assert_eq!(printed("7 %, or so"), one(7.0, "%"));
        assert_eq!(printed("**× 0.56**"), one(0.56, "×"));
        assert_eq!(printed("67,000/s"), one(67_000.0, "/s"));
    }

    #[test]
    fn numbers_that_share_a_unit_are_figures_each() {
        assert_eq!(printed("2.4 / 7.1 ms"), [(2.4, "ms".into()), (7.1, "ms".into())]);
        assert_eq!(printed("3 to 5 µs"), [(3.0, "µs".into()), (5.0, "µs".into())]);
        assert_eq!(printed("12.3 and 10.7 ms"), [(12.3, "ms".into()), (10.7, "ms".into())]);
    }

    #[test]
    fn counts_versions_dates_and_names_are_none() {
        for text in [
            "1,000 subscribers",
            "Linux 6.18",
            "version 8.23.0",
            "2026-11-29",
            "p99.9",
            "127.0.0.1",
            "x86_64",
            "10.2.1 s",
            "the 99.9th of them",
        ] {
            assert!(printed(text).is_empty(), "{text}: {:?}", printed(text));
        }
    }

    #[test]
    fn a_decimal_and_a_fraction_in_words_are_figures() {
        assert_eq!(printed("to 0.72 of it"), one(0.72, ""));
        assert_eq!(printed("and Bun 0.72"), one(0.72, ""));
        assert_eq!(printed("a sixth of the CPU"), one(1.0 / 6.0, "words"));
        assert_eq!(printed("Twice as much"), one(2.0, "words"));
        assert!(all("a sixth of the CPU", false).is_empty());
    }

    #[test]
    fn numbers_alone_in_a_cell_are_figures_but_for_heads_and_the_first_column() {
        let table = "| 4 | 16 MiB |\n| --- | --- |\n| 4096 | **1,047** |\n| 8 | 0.5 to 0.6 |\n";
        let all: Vec<f64> = all(table, true).iter().map(|figure| figure.printed).collect();
        assert_eq!(all, [1047.0, 0.5, 0.6]);
    }

    #[test]
    fn raw_data_holds_where_it_rounds_to_what_is_printed() {
        let figure = |text: &str| all(text, false).remove(0);
        assert!(figure("3.85 µs").holds(3.851) && !figure("3.85 µs").holds(3.856));
        assert!(figure("250,000/s").holds(254_000.0) && !figure("250,000/s").holds(256_000.0));
        assert!(figure("20 ns").holds(20.4) && !figure("20 ns").holds(20.6));
        assert_eq!(figure("3.85 µs").digits(4.2), Some("4.20".into()));
        assert_eq!(figure("250,000/s").digits(1_234_567.0), Some("1,230,000".into()));
    }

    #[test]
    fn a_time_is_not_compared_with_bytes() {
        let figure = all("3 µs", false).remove(0);
        let bytes = Quantity { value: 3.0, kind: Kind { seconds: 0, bytes: 1 } };
        assert!(figure.of(bytes).unwrap_err().contains("the raw data is bytes, and the figure a time"));
    }
}
