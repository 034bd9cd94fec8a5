//! Every setting with its value and where that came from: what `--print-config` shows, and what a reload compares.
//!
//! It is shown as a settings file: what is printed can be read again, and means the same. What a file can't say is a comment in it:
//! what isn't set, with what follows from that here, and secrets.

use std::fmt::{self, Write};

use bytesize::ByteSize;
use clap::{Arg, ArgMatches, Command, parser::ValueSource};

use super::name;
use crate::{
    config::{Config, Followed},
    cores::Places,
    limits::{Bounds, share},
};

/// Where a value is from that nobody has set.
const DEFAULT: &str = "default";

/// One setting.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its flag, without the dashes.
    pub name: String,
    value: Option<String>,
    kind: Kind,
    is_secret: bool,
    /// Where nothing is set: what the server takes instead.
    instead: Option<String>,
    /// What 0 means, where it means something else than nothing.
    zero: Option<String>,
    /// `flag`, `environment NAME`, `file FILE:LINE`, `default`, or `follows` another setting.
    pub source: String,
}

/// How a file writes a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `true` or `false`
    Switch,
    /// A number or a string
    Word,
    /// An array of strings
    List,
}

/// All settings, in the order of the help.
#[derive(Clone, Debug, Default)]
pub struct Settings(pub Vec<Setting>);

/// What a settings file says about one flag.
pub(super) struct Given {
    /// The flag's id.
    pub id: String,
    /// `FILE:LINE`
    pub place: String,
    /// What comes behind it.
    pub values: Vec<String>,
}

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

impl Kind {
    fn of(flag: &Arg) -> Kind {
        match flag.get_action().takes_values() {
            false => Kind::Switch,
            true if flag.get_value_delimiter().is_some() => Kind::List,
            true => Kind::Word,
        }
    }

    /// A value as TOML has it.
    fn toml(self, value: &str) -> String {
        let is_number = value.parse::<i64>().is_ok_and(|number| number.to_string() == value);
        match self {
            Kind::Switch => value.to_owned(),
            Kind::Word if is_number => value.to_owned(),
            Kind::Word => quoted(value),
            Kind::List => format!("[{}]", value.split(',').map(quoted).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for one in text.chars() {
        // Writing to a String can't fail.
        let _ = match one {
            '"' | '\\' => write!(out, "\\{one}"),
            one if one.is_control() => write!(out, "\\u{:04X}", u32::from(one)),
            one => write!(out, "{one}"),
        };
    }
    out.push('"');
    out
}

/// Whether a value is 0, of whatever it is measured in.
fn is_zero(value: &str) -> bool {
    let number = value.trim_end_matches(|one: char| one.is_ascii_alphabetic() || one == '/');
    number.trim().parse::<f64>().is_ok_and(|number| number == 0.0)
}

/// What the help says of 0: `0 for no limit`.
fn zero(flag: &Arg) -> Option<String> {
    let help = flag.get_long_help().or(flag.get_help())?.to_string();
    let said = help.split(['.', ';', '[', '\n']).map(str::trim);
    said.into_iter().find(|part| part.starts_with("0 ")).map(str::to_owned)
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.value, &self.instead) {
            (Some(value), _) if !self.is_secret => {
                write!(f, "{} = {}  # {}", self.name, self.kind.toml(value), self.source)?;
                let zero = self.zero.as_ref().filter(|_| is_zero(value));
                zero.map_or(Ok(()), |means| write!(f, ": {means}"))
            }
            (None, Some(instead)) => write!(f, "# {} = {}  # {}", self.name, Kind::Word.toml(instead), self.source),
            _ => write!(f, "# {} = {}  # {}", self.name, self.value(), self.source),
        }
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
    pub(super) fn follow(&mut self, followed: &Followed) {
        if let Some(setting) = self.0.iter_mut().find(|setting| setting.name == followed.name) {
            (setting.value, setting.source) = (Some(followed.value.clone()), format!("follows {}", followed.of));
        }
    }

    /// Reads what the flags, the environment and the file came to.
    pub(super) fn of(command: &Command, matches: &ArgMatches, file: &[Given]) -> Settings {
        let settings = all(command).map(|flag| Setting {
            name: name(flag).to_owned(),
            value: value(flag, matches),
            kind: Kind::of(flag),
            is_secret: flag.is_hide_env_values_set(),
            instead: None,
            zero: zero(flag),
            source: source(flag, matches, file),
        });
        Settings(settings.collect())
    }

    /// Adds what the server takes for what isn't set, from what is and from the machine.
    pub(super) fn fill(mut self, config: &Config) -> Settings {
        let [connections, subscriptions, topics, values, assembly, held, ..] = Bounds::of(config).shares;
        let per_holder = share(config.max_topics_per_holder, config.max_topics);
        let size = |bytes: usize| ByteSize::b(bytes as u64).to_string();
        // As many as were asked for may be more than can be.
        let workers = match config.workers {
            Some(_) => None,
            None => Places::pick(config).ok().map(|places| places.workers.len().to_string()),
        };
        for (name, instead) in [
            ("workers", workers),
            ("max-connections-per-ip", Some(connections.to_string())),
            ("max-subscriptions-per-ip", Some(subscriptions.to_string())),
            ("max-topics-per-ip", Some(topics.to_string())),
            ("max-topics-per-holder", Some(per_holder.to_string())),
            ("max-values-per-ip", Some(size(values))),
            ("max-assembly-per-ip", Some(size(assembly))),
            ("max-held-per-ip", Some(size(held))),
        ] {
            if let Some(setting) = self.0.iter_mut().find(|setting| setting.name == name) {
                setting.instead = instead;
            }
        }
        self
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
