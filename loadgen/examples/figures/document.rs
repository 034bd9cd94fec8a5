//! A document in Markdown: what people read of it, its figures, and the comments that say where they come from.
//!
//! ```text
//!   text      A send is 4.2 µs here. <!-- figures: kernel.txt "| 4096" ns -->    Another `--flag 5s`.
//!   prose     A send is 4.2 µs here.                                             Another            .
//!             figure ───┘  ↑ its source: the comment behind it
//! ```
//!
//! Prose has the length of the text, with spaces where code, comments, addresses of links and made tables are, so that a place in one is the same
//! place in the other.

use std::ops::Range;

use crate::{
    Outcome,
    data::Data,
    excuses::Excuses,
    figure::{self, Figure, Form},
    source, table,
};

/// How a comment begins that names sources.
const SOURCES: &str = "figures:";
/// How one begins that says in which folder they are from here on.
const FOLDER: &str = "figures from ";
/// How one begins that a table is made by.
const TABLE: &str = "table:";
/// Stands for the source of a figure that was none of the measurement's results, but one of its settings.
const GIVEN: &str = "given";
/// What ends a table that is made.
const TABLE_END: &str = "<!-- end of table -->";

/// A document.
pub struct Document {
    path: String,
    text: String,
    blocks: Vec<Block>,
    comments: Vec<Comment>,
    tables: Vec<Made>,
    figures: Vec<Figure>,
    /// Comments and tables that are not as they should be: where, and what.
    faults: Vec<(usize, String)>,
}

/// Lines of prose without an empty one between them.
struct Block {
    range: Range<usize>,
    /// The heading that it stands under.
    section: String,
}

/// A comment that names sources.
struct Comment {
    at: usize,
    /// The folder in which it looks.
    folder: String,
    /// Each source, as it is written.
    sources: Vec<String>,
}

/// A table that is made from raw data.
struct Made {
    /// From the end of its comment to its end.
    range: Range<usize>,
    folder: String,
    rules: String,
}

/// A figure with its source.
struct Pair<'a> {
    figure: &'a Figure,
    comment: &'a Comment,
    source: &'a str,
}

impl Document {
    /// Reads a document; its path tells whether it is about measuring, and where its sources are.
    pub fn parse(path: &str, text: &str) -> Self {
        let mut document = Self {
            path: path.to_owned(),
            text: text.to_owned(),
            blocks: Vec::new(),
            comments: Vec::new(),
            tables: Vec::new(),
            figures: Vec::new(),
            faults: Vec::new(),
        };
        let prose = document.read(text);
        document.blocks = blocks(text, &prose);
        document.figures = figure::all(&prose, is_about_measuring(path));
        document
    }

    /// Takes comments, code and addresses out of the text.
    fn read(&mut self, text: &str) -> String {
        // A page of a session speaks of its own files.
        let mut folder = self.path.strip_suffix("/reading.md").unwrap_or_default().to_owned();
        let mut prose = text.as_bytes().to_vec();
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let starts_line = at == 0 || text[..at].ends_with('\n');
            let end = match () {
                () if starts_line && rest.starts_with("```") => {
                    at + rest[3..].find("\n```").map_or(rest.len(), |end| end + 7)
                }
                () if rest.starts_with("<!--") => {
                    let end = at + rest.find("-->").map_or(rest.len(), |end| end + 3);
                    self.comment(at..end, &mut folder)
                }
                () if rest.starts_with('`') => {
                    let line = rest.find("\n\n").unwrap_or(rest.len());
                    at + rest[1..line].find('`').map_or(1, |end| end + 2)
                }
                () if rest.starts_with("](") => at + rest.find(')').map_or(rest.len(), |end| end + 1),
                () => {
                    at += rest.chars().next().map_or(1, char::len_utf8);
                    continue;
                }
            };
            prose[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
            at = end;
        }
        String::from_utf8(prose).expect("whole characters were taken out")
    }

    /// Takes a comment in, and returns where what is not prose ends.
    fn comment(&mut self, range: Range<usize>, folder: &mut String) -> usize {
        let (text, at, end) = (self.text.clone(), range.start, range.end);
        let content = text[range].trim_start_matches("<!--").trim_end_matches("-->").trim();
        if let Some(sources) = content.strip_prefix(SOURCES) {
            self.comments.push(Comment { at, folder: folder.clone(), sources: source::split(sources) });
        } else if let Some(named) = content.strip_prefix(FOLDER) {
            named.trim().clone_into(folder);
        } else if let Some(rules) = content.strip_prefix(TABLE) {
            let Some(length) = text[end..].find(TABLE_END) else {
                self.faults.push((at, format!("a table is made here, and nothing ends it: expected {TABLE_END}")));
                return end;
            };
            let made = Made { range: end..end + length, folder: folder.clone(), rules: rules.to_owned() };
            self.tables.push(made);
            return end + length + TABLE_END.len();
        } else if content.starts_with("figure") {
            let said = "a comment that is not understood: expected `figures: SOURCE; …` or `figures from FOLDER`";
            self.faults.push((at, said.into()));
        }
        end
    }

    /// Says what is wrong with it.
    pub fn judge(&self, data: &Data, excuses: &mut Excuses, outcome: &mut Outcome) {
        let mut problems = self.faults.clone();
        let excused = self.excused(excuses);
        outcome.excused += excused.iter().filter(|is| **is).count();
        for pair in self.pairs(&excused, &mut problems) {
            match pair.judge(data) {
                _ if pair.source == GIVEN => outcome.excused += 1,
                Ok(()) => outcome.traced += 1,
                Err(why) => problems.push((pair.figure.at.start, format!("{}: {why}", self.shown(pair.figure)))),
            }
        }
        for made in &self.tables {
            match table::made(&made.rules, &made.folder, data) {
                Ok((table, figures)) if self.text[made.range.clone()].trim() == table.trim() => {
                    outcome.traced += figures
                }
                Ok(_) => problems.push((
                    made.range.start,
                    "this table is not what its raw data says: scripts/figures --write".into(),
                )),
                Err(why) => problems.push((made.range.start, why)),
            }
        }
        problems.sort();
        outcome
            .problems
            .extend(problems.into_iter().map(|(at, said)| format!("{}:{}: {said}", self.path, self.line(at))));
    }

    /// The text with what the raw data says in it. What can't be told stays.
    pub fn renewed(&self, data: &Data, excuses: &mut Excuses) -> String {
        let mut changes: Vec<(Range<usize>, String)> = Vec::new();
        let excused = self.excused(excuses);
        for Pair { figure, comment, source } in self.pairs(&excused, &mut Vec::new()) {
            let value = source::value(source, &comment.folder, data).and_then(|raw| figure.of(raw));
            if let Ok(value) = value
                && !figure.holds(value)
                && let Some(digits) = figure.digits(value)
            {
                changes.push((figure.at.clone(), digits));
            }
        }
        for made in &self.tables {
            if let Ok((table, _)) = table::made(&made.rules, &made.folder, data) {
                changes.push((made.range.clone(), format!("\n{}\n", table.trim())));
            }
        }
        changes.sort_by_key(|(range, _)| range.start);
        let mut text = self.text.clone();
        for (range, new) in changes.into_iter().rev() {
            text.replace_range(range, &new);
        }
        text
    }

    /// Whether each figure is excused.
    fn excused(&self, excuses: &mut Excuses) -> Vec<bool> {
        let section = |figure: &Figure| self.block(figure.at.start).map_or("", |block| &self.blocks[block].section);
        self.figures.iter().map(|figure| excuses.excuse(&self.path, section(figure), &self.text, figure)).collect()
    }

    /// Gives each figure its source; what is left over is a problem.
    fn pairs(&self, excused: &[bool], problems: &mut Vec<(usize, String)>) -> Vec<Pair<'_>> {
        let mut pairs = Vec::new();
        let mut taken = 0;
        let figures: Vec<&Figure> =
            self.figures.iter().zip(excused).filter(|(_, is)| !**is).map(|(figure, _)| figure).collect();
        for comment in &self.comments {
            let block = self.block(comment.at);
            let before = |figure: &&&Figure| figure.at.start < comment.at;
            let passed = figures[taken..].iter().take_while(before).count();
            let (all, from) = (&figures[taken..taken + passed], taken);
            let own = all.iter().skip_while(|figure| self.block(figure.at.start) != block).copied().collect::<Vec<_>>();
            taken += passed;
            let strangers = &figures[from..taken - own.len()];
            problems.extend(strangers.iter().map(|figure| self.untraced(figure)));
            if own.len() == comment.sources.len() {
                let sources = own.iter().zip(&comment.sources);
                pairs.extend(sources.map(|(figure, source)| Pair { figure, comment, source }));
            } else {
                let shown: Vec<String> = own.iter().map(|figure| self.shown(figure)).collect();
                let said = format!("{} sources for {} figures: {}", comment.sources.len(), own.len(), shown.join("; "));
                problems.push((comment.at, said));
            }
        }
        problems.extend(figures[taken..].iter().map(|figure| self.untraced(figure)));
        pairs
    }

    fn untraced(&self, figure: &Figure) -> (usize, String) {
        (
            figure.at.start,
            format!(
                "{}: no raw data is named for it, and nothing in {} excuses it",
                self.shown(figure),
                crate::EXCUSES
            ),
        )
    }

    /// The block that a place is in, or that it follows.
    fn block(&self, at: usize) -> Option<usize> {
        self.blocks.partition_point(|block| block.range.start <= at).checked_sub(1)
    }

    fn line(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }

    fn shown(&self, figure: &Figure) -> String {
        let digits = &self.text[figure.at.clone()];
        let space = if figure.unit_text.is_empty() { "" } else { " " };
        match figure.form {
            Form::Words => format!("`{digits}`"),
            Form::Cell => format!("`{digits}` alone in a cell"),
            _ => format!("`{digits}{space}{}`", figure.unit_text),
        }
    }
}

impl Pair<'_> {
    fn judge(&self, data: &Data) -> Result<(), String> {
        let raw = source::value(self.source, &self.comment.folder, data)
            .map_err(|why| format!("`{}`: {why}", self.source))?;
        let value = self.figure.of(raw).map_err(|why| format!("`{}`: {why}", self.source))?;
        if self.figure.holds(value) {
            return Ok(());
        }
        let says = self.figure.digits(value).unwrap_or_else(|| format!("{value:.3}"));
        Err(format!("`{}` says {says} ({value:.4})", self.source))
    }
}

/// Whether fractions in words are figures there.
fn is_about_measuring(path: &str) -> bool {
    matches!(path, "README.md" | "docs/performance.md") || path.starts_with("results/")
}

/// What stands together in the prose. An empty line in the text ends a block, a line that only a comment stands in doesn't, and a heading is one
/// by itself.
fn blocks(text: &str, prose: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut at, mut section, mut is_open) = (0, String::new(), false);
    for (line, original) in prose.split_inclusive('\n').zip(text.split_inclusive('\n')) {
        let range = at..at + line.len();
        at = range.end;
        let is_heading = original.starts_with('#') && line.starts_with('#');
        if is_heading {
            original.trim_start_matches('#').trim().clone_into(&mut section);
        }
        match () {
            () if original.trim().is_empty() => is_open = false,
            () if line.trim().is_empty() => {}
            () if is_open && !is_heading => blocks.last_mut().expect("it is open").range.end = range.end,
            () => {
                blocks.push(Block { range, section: section.clone() });
                is_open = !is_heading;
            }
        }
    }
    blocks
}
