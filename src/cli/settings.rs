//! Every setting with its value and where that came from: what `--print-config` shows, and what a reload compares.

use std::fmt;

use clap::{Arg, ArgMatches, Command, parser::ValueSource};

use super::{file::Given, name};

/// Where a value is from that nobody has set.
const DEFAULT: &str = "default";

/// One setting.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its flag, without the dashes.
    pub name: String,
    value: Option<String>,
    is_secret: bool,
    /// `flag`, `environment NAME`, `file FILE:LINE`, `default`, or `follows` another setting.
    pub source: String,
}

/// All settings, in the order of the help.
#[derive(Clone, Debug, Default)]
pub struct Settings(pub Vec<Setting>);

impl Setting {
    /// The value as it was written; secrets are not shown.
    pub fn value(&self) -> &str {
        match &self.value {
            None => "(not set)",
            Some(_) if self.is_secret => "(hidden)",
            Some(value) => value,
        }
    }

    /// Whether the values differ, secrets included.
    pub fn differs(&self, other: &Setting) -> bool {
        self.value != other.value
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}  # {}", self.name, self.value(), self.source)
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|setting| writeln!(f, "{setting}"))
    }
}

impl Settings {
    /// Whether a setting is not as it is by default.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.0.iter().any(|setting| setting.name == name && setting.source != DEFAULT)
    }

    /// A setting that wasn't set follows another.
    pub(super) fn follow(&mut self, name: &str, value: impl fmt::Display, of: &str) {
        if let Some(setting) = self.0.iter_mut().find(|setting| setting.name == name) {
            (setting.value, setting.source) = (Some(value.to_string()), format!("follows {of}"));
        }
    }

    /// Reads what the flags, the environment and the file came to.
    pub(super) fn of(command: &Command, matches: &ArgMatches, file: &[Given]) -> Settings {
        let settings = all(command).map(|flag| Setting {
            name: name(flag).to_owned(),
            value: value(flag, matches),
            is_secret: flag.is_hide_env_values_set(),
            source: source(flag, matches, file),
        });
        Settings(settings.collect())
    }
}

/// Every flag that is a setting and not a question.
pub(super) fn all(command: &Command) -> impl Iterator<Item = &Arg> {
    let is_asked = |flag: &Arg| flag.get_help_heading() == Some(super::ASKING);
    command.get_arguments().filter(move |flag| !is_asked(flag) && flag.get_id() != "help" && flag.get_id() != "version")
}

fn value(flag: &Arg, matches: &ArgMatches) -> Option<String> {
    let id = flag.get_id().as_str();
    if !flag.get_action().takes_values() {
        return Some(matches.get_flag(id).to_string());
    }
    let values = matches.get_raw(id)?;
    Some(values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(","))
}

fn source(flag: &Arg, matches: &ArgMatches, file: &[Given]) -> String {
    let given = file.iter().find(|given| given.id == flag.get_id().as_str());
    match (matches.value_source(flag.get_id().as_str()), given) {
        (Some(ValueSource::CommandLine), _) => "flag".into(),
        (Some(ValueSource::EnvVariable), _) => {
            format!("environment {}", flag.get_env().unwrap_or_default().to_string_lossy())
        }
        (_, Some(given)) => format!("file {}", given.place),
        (_, None) => DEFAULT.into(),
    }
}
