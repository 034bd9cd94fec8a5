//! Figures that no measurement of ours stands behind: bounds, defaults, what other programs do, arithmetic. A list of them, each with its reason.
//!
//! ```text
//! docs/protocol.md: KiB MiB bytes s
//!   Bounds and defaults, which tests hold the server to.
//!
//! docs/operations.md § The admin address: s
//!   An example of an answer.
//!
//! docs/operations.md: "some 200 µs of work"
//!   A bound of the control thread's.
//! ```
//!
//! An entry excuses figures by their units (`number` is one with a decimal point, `cell` one alone in a cell, `words` one in words, `*` all), in a document
//! or under one of its headings, or those within the words that it quotes. One that excuses nothing any more is a fault, and so is one without a reason.

use anyhow::{Result, ensure};

use crate::figure::{Figure, Form};

/// The list.
pub struct Excuses(Vec<Excuse>);

struct Excuse {
    /// As it is written.
    text: String,
    path: String,
    section: Option<String>,
    what: What,
    is_used: bool,
}

enum What {
    Units(Vec<String>),
    Quoted(String),
}

impl Excuses {
    /// Reads the list.
    ///
    /// # Errors
    /// An entry that is not understood, or has no reason.
    pub fn read(list: &str) -> Result<Self> {
        let mut excuses = Vec::new();
        let mut lines = list.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).peekable();
        while let Some(line) = lines.next() {
            ensure!(!line.starts_with(' '), "{}: a reason without an entry: {line}", crate::EXCUSES);
            let reason = lines.peek().is_some_and(|next| next.starts_with(' '));
            ensure!(reason, "{}: there is no reason below: {line}", crate::EXCUSES);
            while lines.peek().is_some_and(|next| next.starts_with(' ')) {
                lines.next();
            }
            excuses.push(Excuse::read(line)?);
        }
        Ok(Self(excuses))
    }

    /// Whether a figure is excused. Every entry that does so has been of use.
    pub fn excuse(&mut self, path: &str, section: &str, text: &str, figure: &Figure) -> bool {
        let mut excused = false;
        for excuse in self.0.iter_mut().filter(|excuse| excuse.path == path) {
            if excuse.covers(section, text, figure) {
                excuse.is_used = true;
                excused = true;
            }
        }
        excused
    }

    /// Entries that excuse nothing.
    pub fn unused(&self) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .filter(|excuse| !excuse.is_used)
            .map(|excuse| format!("{}: excuses nothing any more: {}", crate::EXCUSES, excuse.text))
    }
}

impl Excuse {
    fn read(line: &str) -> Result<Self> {
        let (place, what) = line.split_once(": ").unwrap_or((line, ""));
        ensure!(!what.is_empty(), "{}: expected DOCUMENT: UNITS or DOCUMENT: \"WORDS\", found: {line}", crate::EXCUSES);
        let (path, section) = match place.split_once(" § ") {
            Some((path, section)) => (path, Some(section.to_owned())),
            None => (place, None),
        };
        let what = match what.strip_prefix('"').and_then(|what| what.strip_suffix('"')) {
            Some(quoted) => What::Quoted(quoted.to_owned()),
            None => What::Units(what.split_whitespace().map(str::to_owned).collect()),
        };
        Ok(Self { text: line.to_owned(), path: path.to_owned(), section, what, is_used: false })
    }

    fn covers(&self, section: &str, text: &str, figure: &Figure) -> bool {
        if self.section.as_ref().is_some_and(|own| own != section) {
            return false;
        }
        match &self.what {
            What::Units(units) => units.iter().any(|unit| unit == "*" || unit == name_of(figure)),
            What::Quoted(words) => stands_in(words, text, figure),
        }
    }
}

fn name_of(figure: &Figure) -> &str {
    match figure.form {
        Form::Unit => figure.unit_text.trim_start_matches("a ").split(' ').next().unwrap_or_default(),
        Form::Decimal => "number",
        Form::Cell => "cell",
        Form::Words => "words",
    }
}

/// Whether the figure is within these words, whatever lines they are broken into.
fn stands_in(words: &str, text: &str, figure: &Figure) -> bool {
    // A figure's neighbourhood is as long as the words at most, on either side.
    let mut from = figure.at.start.saturating_sub(words.len() + 8);
    while !text.is_char_boundary(from) {
        from -= 1;
    }
    let mut to = (figure.at.end + words.len() + 8).min(text.len());
    while !text.is_char_boundary(to) {
        to += 1;
    }
    let flat = |part: &str| part.replace('\n', " ");
    let (around, at) = (flat(&text[from..to]), figure.at.start - from);
    let mut found = around.match_indices(words);
    found.any(|(start, _)| start <= at && at + figure.at.len() <= start + words.len())
}
