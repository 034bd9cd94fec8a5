//! Holds every figure that README and documents quote against the raw data that it names.
//!
//! ```sh
//! scripts/figures            # says which figures have no raw data, or other raw data than they say; exits with 1 if there are any
//! scripts/figures --write    # puts in what the raw data says, in figures and in tables, and then does the same
//! ```
//!
//! What a **figure** is, [`figure`] says: a number with a unit that measurements have, a bare number in a table, a fraction. Each stands before
//! a comment that names its source, or in a table that is made from raw data altogether ([`table`]), or is excused in `scripts/unmeasured`
//! with a reason ([`excuses`]). A comment names the sources of the figures before it, in order, back to the comment before or the beginning of the
//! paragraph or table; what a **source** is, [`source`] says.
//!
//! ```md
//! A send is 4.2 µs of CPU, 5.6 µs with 65,483 bytes in it.
//! <!-- figures: results/2026-11-21/kernel.txt "| 4096   |" ns; results/2026-11-21/kernel.txt "| 65483  |" ns -->
//! ```
//!
//! A figure holds if its raw data, rounded as the figure is, reads the same. Runs that the generator itself doubts, or that lost something, are
//! no raw data ([`data`]).

mod data;
mod document;
mod excuses;
mod figure;
mod source;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};

use crate::{data::Data, document::Document, excuses::Excuses};

/// What figures need not be traced, and why.
const EXCUSES: &str = "scripts/unmeasured";

fn main() -> ExitCode {
    let write = match &std::env::args().skip(1).collect::<Vec<_>>()[..] {
        [] => false,
        [flag] if flag == "--write" => true,
        other => {
            eprintln!("figures: {} is not understood; expected nothing, or --write", other.join(" "));
            return ExitCode::from(2);
        }
    };
    match run(&root(), write) {
        Ok(outcome) => {
            print!("{outcome}");
            if outcome.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("figures: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The project's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What came of a look at all documents.
#[derive(Debug, Default)]
struct Outcome {
    /// Figures that hold.
    traced: usize,
    /// Figures that are excused.
    excused: usize,
    /// Documents that were written.
    written: Vec<String>,
    /// What is wrong, each with its document and line.
    problems: Vec<String>,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.written.iter().try_for_each(|path| writeln!(f, "{path}: written"))?;
        self.problems.iter().try_for_each(|problem| writeln!(f, "{problem}"))?;
        let (traced, excused, wrong) = (self.traced, self.excused, self.problems.len());
        writeln!(f, "figures: {traced} traced to raw data, {excused} excused in {EXCUSES}, {wrong} problems")
    }
}

/// Looks at all documents of a project, and writes them anew where asked to.
fn run(root: &Path, write: bool) -> Result<Outcome> {
    let data = Data::of(root);
    let mut excuses = Excuses::read(&fs::read_to_string(root.join(EXCUSES)).unwrap_or_default())?;
    let mut outcome = Outcome::default();
    for path in documents(root)? {
        let text = fs::read_to_string(root.join(&path)).with_context(|| format!("reading {path}"))?;
        let mut document = Document::parse(&path, &text);
        if write {
            let new = document.renewed(&data, &mut excuses);
            if new != text {
                fs::write(root.join(&path), &new).with_context(|| format!("writing {path}"))?;
                outcome.written.push(path.clone());
                outcome.written.extend(page_of(root, &path, &text, &new)?);
                document = Document::parse(&path, &new);
            }
        }
        document.judge(&data, &mut excuses, &mut outcome);
    }
    outcome.problems.extend(excuses.unused());
    Ok(outcome)
}

/// Puts what is new in a session's `reading.md` into its page, where that has the old, and returns the page's path.
fn page_of(root: &Path, path: &str, old: &str, new: &str) -> Result<Option<String>> {
    let Some(folder) = path.strip_suffix("/reading.md") else { return Ok(None) };
    let page = format!("{folder}/README.md");
    let Ok(text) = fs::read_to_string(root.join(&page)) else { return Ok(None) };
    if !text.contains(old.trim()) {
        return Ok(None);
    }
    fs::write(root.join(&page), text.replace(old.trim(), new.trim())).with_context(|| format!("writing {page}"))?;
    Ok(Some(page))
}

/// What is looked at: all that says something to people, and what they have to say about a session.
fn documents(root: &Path) -> Result<Vec<String>> {
    let mut found: Vec<String> = ["README.md", "loadgen/README.md", "results/README.md"]
        .into_iter()
        .filter(|path| root.join(path).exists())
        .map(str::to_owned)
        .collect();
    found.extend(inside(root, "docs")?.into_iter().filter(|path| path.ends_with(".md")));
    let readings = inside(root, "results")?.into_iter().map(|folder| format!("{folder}/reading.md"));
    found.extend(readings.filter(|path| root.join(path).exists()));
    Ok(found)
}

/// What is in a folder, by path from the root, in order.
fn inside(root: &Path, folder: &str) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return Ok(Vec::new()) };
    let mut paths = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| format!("reading {folder}"))?.file_name();
        paths.push(format!("{folder}/{}", name.to_string_lossy()));
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
