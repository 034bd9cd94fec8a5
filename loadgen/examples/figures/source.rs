//! Sources: where a figure comes from, as a comment names it.
//!
//! ```text
//! results/2026-11-21/1000x128-w16 bun cpu                     a server's figure in results of the generator; its name is one of `--fail-if`
//! results/2026-11-21/1000x128-w16 bun cpu least               the lowest of the runs; or most, mean, median
//! 1000x128-w16 bun cpu                                        the same, behind a comment `figures from results/2026-11-21`
//! 1000x128-w16 bun cpu paired bare                            its ratio to another server, by rounds: the geometric mean; with `low` or `high`, an end of
//!                                                             its interval at 95 %
//! results/2026-11-21/kernel.txt "| 4096 " ns                  the number behind these words in a text, and its unit where none stands there
//! kernel.txt "| 4096 " 3                                      the third number behind them
//! kernel.txt "One send" "| 4096 " ns                          under the heading that has the first words in it
//! run-1.txt "^server "                                        behind words that begin a line
//! connections/19000-*.txt "at once: " median                  over several files, numbered where `*` is, or lines
//! 1000x128-w16 bun cpu / 1000x128-w16 bare cpu                arithmetic: + - * / and brackets, with spaces around each
//! 1000x128-w16 bun cpu in ms                                  a number, where the figure has no unit of its own
//! computed 4.2 KB * 10000                                     no raw data, but arithmetic with figures that have some
//! given                                                       none: what was asked, at a rate of so much a second, with so many bytes
//! ```

use crate::{
    data::{Data, Of, Place},
    figure::{self, PLAIN, Quantity},
};

/// The sources of a comment: separated by `;`, which may stand within quotes.
pub fn split(text: &str) -> Vec<String> {
    let mut sources = vec![String::new()];
    let mut quote = None;
    for c in text.chars() {
        match (c, quote) {
            (';', None) => sources.push(String::new()),
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
        if c != ';' || quote.is_some() {
            sources.last_mut().expect("there is one").push(c);
        }
    }
    sources.retain(|source| !source.trim().is_empty());
    sources
        .iter()
        .map(|source| source.split('\n').map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned())
        .collect()
}

/// What a source says.
///
/// # Errors
/// It is not understood, or there is no such raw data, or none that counts.
pub fn value(source: &str, folder: &str, data: &Data) -> Result<Quantity, String> {
    let tokens = tokens(source)?;
    let (is_computed, tokens) = match tokens.split_first() {
        Some((Token::Word(word), rest)) if word == "computed" => (true, rest),
        _ => (false, &tokens[..]),
    };
    let mut reading = Reading { tokens, at: 0, folder, data, files: 0 };
    let mut value = reading.sum()?;
    if reading.take_word("in") {
        let name = reading.word("a unit")?;
        let unit = figure::unit(&name).ok_or_else(|| format!("{name} is no unit"))?;
        if unit.kind != value.kind {
            return Err(format!("the raw data is not in {name}"));
        }
        value = Quantity { value: value.value / unit.scale, kind: PLAIN };
    }
    match reading.tokens.get(reading.at) {
        Some(token) => Err(format!("{token:?} is not understood")),
        None if reading.files == 0 && !is_computed => {
            Err("it names no raw data: arithmetic alone begins with `computed`".into())
        }
        None => Ok(value),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end;
        if first == '"' || first == '\'' {
            let length = rest[1..].find(first).ok_or_else(|| format!("no {first} ends what begins here: {rest}"))?;
            tokens.push(Token::Quoted(rest[1..=length].to_owned()));
            end = length + 2;
        } else {
            end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
        }
        rest = rest[end..].trim_start();
    }
    Ok(tokens)
}

/// A source that is being read.
struct Reading<'a> {
    tokens: &'a [Token],
    at: usize,
    folder: &'a str,
    data: &'a Data,
    /// Raw data that it has named so far.
    files: usize,
}

impl Reading<'_> {
    fn sum(&mut self) -> Result<Quantity, String> {
        let mut value = self.product()?;
        loop {
            let sign = match () {
                () if self.take_word("+") => 1.0,
                () if self.take_word("-") => -1.0,
                () => return Ok(value),
            };
            let other = self.product()?;
            if other.kind != value.kind {
                return Err("quantities of two kinds have no sum".into());
            }
            value.value += sign * other.value;
        }
    }

    fn product(&mut self) -> Result<Quantity, String> {
        let mut value = self.term()?;
        loop {
            let power = match () {
                () if self.take_word("*") => 1,
                () if self.take_word("/") => -1,
                () => return Ok(value),
            };
            let other = self.term()?;
            value.value *= other.value.powi(power);
            value.kind.seconds += power as i8 * other.kind.seconds;
            value.kind.bytes += power as i8 * other.kind.bytes;
        }
    }

    fn term(&mut self) -> Result<Quantity, String> {
        if self.take_word("(") {
            let value = self.sum()?;
            return if self.take_word(")") { Ok(value) } else { Err("a bracket is not closed".into()) };
        }
        let word = self.word("a file, a number or a bracket")?;
        if let Ok(number) = word.replace(',', "").parse::<f64>() {
            let unit = self.take(figure::unit).unwrap_or(figure::NONE);
            return Ok(Quantity { value: number * unit.scale, kind: unit.kind });
        }
        self.files += 1;
        let is_whole = ["results/", "benches/", "docs/"].iter().any(|root| word.starts_with(root));
        let path = if is_whole || self.folder.is_empty() { word } else { format!("{}/{word}", self.folder) };
        if let Some(first) = self.quoted() {
            let (section, words) = self.quoted().map_or((None, first.clone()), |words| (Some(first), words));
            let nth = self.take(|word| word.parse().ok().filter(|nth| *nth > 0)).unwrap_or(1);
            let unit = self.take(|word| figure::unit(word).map(|_| word.to_owned()));
            let of = self.take(Of::named).unwrap_or(Of::All);
            return self.data.written(&path, &Place { section, words, nth, unit }, of);
        }
        let server = self.word("a server's name, or words in quotes")?;
        let name = self.word("a figure's name")?;
        if self.take_word("paired") {
            let base = self.word("another server's name")?;
            let ratio = self.data.paired(&path, &server, &base, &name).map_err(|why| format!("{path}: {why}"))?;
            let (low, high) = ratio.interval.expect("of several rounds");
            let end = self.take(|word| match word {
                "low" => Some(low),
                "high" => Some(high),
                _ => None,
            });
            return Ok(Quantity { value: end.unwrap_or(ratio.mean), kind: PLAIN });
        }
        let of = self.take(Of::named).unwrap_or(Of::All);
        self.data.measured(&path, &server, &name, of).map_err(|why| format!("{path}: {why}"))
    }

    fn quoted(&mut self) -> Option<String> {
        let Some(Token::Quoted(words)) = self.tokens.get(self.at) else { return None };
        self.at += 1;
        Some(words.clone())
    }

    /// The next word, if it is one that this makes something of.
    fn take<T>(&mut self, of: impl Fn(&str) -> Option<T>) -> Option<T> {
        let Some(Token::Word(word)) = self.tokens.get(self.at) else { return None };
        let taken = of(word)?;
        self.at += 1;
        Some(taken)
    }

    fn take_word(&mut self, word: &str) -> bool {
        self.take(|next| (next == word).then_some(())).is_some()
    }

    fn word(&mut self, expected: &str) -> Result<String, String> {
        self.take(|word| Some(word.to_owned())).ok_or_else(|| format!("expected {expected}"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn of(source: &str) -> Result<Quantity, String> {
        value(source, "", &Data::of(Path::new(".")))
    }

    #[test]
    fn sources_are_apart_by_semicolons_but_not_within_quotes() {
        assert_eq!(split(" a.txt \"b; c\" 2;\n  d e p50 "), ["a.txt \"b; c\" 2", "d e p50"]);
    }

    #[test]
    fn arithmetic_keeps_track_of_what_it_is_with() {
        let all = of("computed ( 4 KB + 200 B ) * 10000").unwrap();
        assert!((all.value - 42e6).abs() < 1e-3 && all.kind.bytes == 1, "{all:?}");
        let rate = of("computed 1 / 4 us").unwrap();
        assert!((rate.value - 250_000.0).abs() < 1e-3 && rate.kind.seconds == -1, "{rate:?}");
        assert_eq!(of("computed 5 ms in ms").unwrap(), Quantity { value: 5.0, kind: PLAIN });
        assert!(of("computed 1 s + 1 B").unwrap_err().contains("two kinds"));
    }

    #[test]
    fn a_source_names_raw_data_or_says_that_it_computes() {
        assert!(of("4.2 KB * 3").unwrap_err().contains("names no raw data"));
        assert!(of("results/none.txt \"x\"").unwrap_err().contains("there is no file results/none.txt"));
        assert!(of("computed 1 2").unwrap_err().contains("not understood"));
    }
}
