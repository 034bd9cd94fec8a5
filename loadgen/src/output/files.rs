//! The files that a run is asked to write: opened before it, so that a bad path costs no run; then each is written, whatever became of
//! the others.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Error, Result};

use super::{hdr, pretty, report};
use crate::{cli::Options, figures::Report};

/// What is written into a file.
type Content = fn(&Report) -> Result<Vec<u8>>;

/// Files that can be written to.
#[derive(Default)]
pub struct Files(Vec<(PathBuf, File, Content)>);

impl Files {
    /// Opens them all. What is in them stays until there is something new.
    ///
    /// # Errors
    /// The first that can't be written, with its flag.
    pub fn open(options: &Options) -> Result<Files> {
        let asked: [(&str, &Option<PathBuf>, Content); 4] = [
            ("--json", &options.json, pretty),
            ("--hgrm", &options.hgrm, hdr::percentiles),
            ("--hlog", &options.hlog, hdr::log),
            ("--report", &options.report, |report| report::page(report).map(String::into_bytes)),
        ];
        let mut files = Vec::new();
        for (flag, path, content) in asked {
            let Some(path) = path else { continue };
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
            let file =
                file.with_context(|| format!("{flag} {}: expected a file that can be written", path.display()))?;
            files.push((path.clone(), file, content));
        }
        Ok(Files(files))
    }

    /// Writes them all.
    ///
    /// # Errors
    /// Everything that went wrong.
    pub fn write(self, report: &Report) -> Result<()> {
        let write = |(path, file, content): (PathBuf, File, Content)| fill(&path, file, &content(report)?);
        all(self.0.into_iter().map(write))
    }
}

/// Does all of it, and then says what went wrong.
pub fn all(outcomes: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    let wrong: Vec<Error> = outcomes.into_iter().filter_map(Result::err).collect();
    let said: Vec<String> = wrong.iter().map(|error| format!("{error:#}")).collect();
    if said.is_empty() { Ok(()) } else { Err(Error::msg(said.join("; "))) }
}

fn fill(path: &Path, mut file: File, bytes: &[u8]) -> Result<()> {
    let context = || format!("writing {}", path.display());
    // A pipe or a terminal has nothing to cut.
    if file.metadata().with_context(context)?.is_file() {
        file.set_len(0).with_context(context)?;
    }
    file.write_all(bytes).with_context(context)
}
