//! Dialect files: how to speak with a kind of server, written down once.
//!
//! What the options of the generic protocol say, and steps that wait for answers, which they can't. Each that comes with this
//! program says what it was tried against: the server itself, or, where that can't be had, one of the tests that follows its documentation.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{sign::Sign, steps::Step};
use crate::stamp::Form;

/// What a file may say. TOML, where `\'…\'` keeps backslashes for the templates.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct File {
    /// Path to ask for where the address names none.
    pub path: Option<String>,
    /// The same of publishers, where theirs is another.
    pub publish_path: Option<String>,
    /// How requests that publish are signed.
    pub sign: Option<Sign>,
    /// Header lines of the handshake.
    pub headers: Vec<String>,
    /// Binary messages.
    pub binary: bool,
    /// Payloads are plain text, since the server has them in strings.
    pub plain: bool,
    /// Names of topics, unless the command line has others.
    pub topic: Option<String>,
    /// What subscribers say and wait for.
    pub subscriber: Vec<Step>,
    /// The same of publishers.
    pub publisher: Vec<Step>,
    /// Message that publishes; none where others do.
    pub publish: Option<String>,
    /// `QUESTION=>ANSWER` pairs.
    pub answers: Vec<String>,
    /// What `--heartbeat` says.
    pub heartbeat: Option<String>,
}

impl File {
    /// Reads one.
    ///
    /// # Errors
    /// It isn't there, or says something else.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("--dialect {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("--dialect {}", path.display()))
    }

    /// The shape of payloads, where it says one.
    pub fn form(&self) -> Option<Form> {
        self.plain.then_some(Form::Plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{Dialect, Protocol, Settings};

    #[test]
    fn every_file_that_comes_with_the_program_makes_a_dialect() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialects");
        let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty());
        for path in files {
            let file = File::read(&path).unwrap();
            let settings = Settings { protocol: Protocol::Generic, ..Settings::default() }.with(&file);
            let dialect = Dialect::new("ws://h", settings, Form::Json, vec!["t".into()]).unwrap();
            assert!(dialect.acknowledges(), "{}: subscribers don't wait to be told", path.display());
            assert!(fs::read_to_string(&path).unwrap().contains("Tried against "), "{}", path.display());
        }
    }

    #[test]
    fn the_readme_has_everything_that_a_file_may_say() {
        let error = toml::from_str::<File>("x = 1").unwrap_err().to_string();
        let (_, known) = error.split_once("expected one of ").unwrap();
        let (readme, known): (_, Vec<&str>) =
            (include_str!("../../README.md"), known.split('`').skip(1).step_by(2).collect());
        assert!(known.len() >= 12, "{known:?}");
        for key in known {
            assert!(readme.contains(&format!("`{key}`")), "{key}");
        }
    }

    #[test]
    fn what_a_file_may_not_say_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        for (text, said) in
            [("subscribe = \'x\'", "subscribe"), ("subscriber = [{ shout = \'x\' }]", "shout"), ("a", "line 1")]
        {
            fs::write(&path, text).unwrap();
            let error = format!("{:#}", File::read(&path).unwrap_err());
            assert!(error.contains("--dialect ") && error.contains("x.toml") && error.contains(said), "{error}");
        }
    }
}
