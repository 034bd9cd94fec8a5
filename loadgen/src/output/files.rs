//! The files that a run is asked to write: opened before it, so that a bad path costs no run; then each is written, whatever became of
//! the others.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::PathBuf,
};

use anyhow::{Context, Error, Result, bail};

use super::{hdr, pretty, report};
use crate::{cli::Options, figures::Report};

/// What is written into a file.
type Content = fn(&Report) -> Result<Vec<u8>>;

/// Files that can be written to. Those that were not there before go again, if nothing comes to be written.
#[derive(Default)]
pub struct Files(Vec<Opened>);

struct Opened {
    path: PathBuf,
    file: File,
    content: Content,
    /// It was made here, and there is nothing in it yet.
    is_new: bool,
}

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
        for (flag, path, content) in &asked {
            let (Some(path), flag, content) = (path, *flag, *content) else { continue };
            let same =
                asked.iter().take_while(|(other, ..)| *other != flag).find(|(_, one, _)| one.as_ref() == Some(path));
            // A device takes what several write.
            if let Some((other, ..)) = same.filter(|_| path.is_file()) {
                bail!("{flag} {}: expected another file than {other} writes", path.display());
            }
            let is_new = !path.exists();
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
            let file =
                file.with_context(|| format!("{flag} {}: expected a file that can be written", path.display()))?;
            files.push(Opened { path: path.clone(), file, content, is_new });
        }
        Ok(Files(files))
    }

    /// Writes them all.
    ///
    /// # Errors
    /// Everything that went wrong.
    pub fn write(self, report: &Report) -> Result<()> {
        all(self.0.into_iter().map(|opened| opened.fill(report)))
    }
}

impl Opened {
    fn fill(mut self, report: &Report) -> Result<()> {
        let bytes = (self.content)(report)?;
        self.is_new = false;
        let context = || format!("writing {}", self.path.display());
        // A pipe or a terminal has nothing to cut.
        if self.file.metadata().with_context(context)?.is_file() {
            self.file.set_len(0).with_context(context)?;
        }
        self.file.write_all(&bytes).with_context(context)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.is_new {
            // Whoever has taken it away since has done the same.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Does all of it, and then says what went wrong.
pub fn all(outcomes: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    let wrong: Vec<Error> = outcomes.into_iter().filter_map(Result::err).collect();
    let said: Vec<String> = wrong.iter().map(|error| format!("{error:#}")).collect();
    if said.is_empty() { Ok(()) } else { Err(Error::msg(said.join("; "))) }
}
