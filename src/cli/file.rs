//! The settings file: TOML, one key for each flag, without its dashes.
//!
//! ```toml
//! listen = ["0.0.0.0:9001", "[::]:9001"]
//! retain = "256MiB"
//! max-connections = 50_000
//! demo = true
//! ```
//!
//! A value is read by the flag's own parser, so that a file takes exactly what the command line takes. What the file says
//! becomes the flag's default: flags and environment variables win over it without further ado. All mistakes are named at
//! once, each with its line.

use std::{fmt, fs, path::Path};

use clap::{
    Arg, Command,
    error::{ContextKind, ContextValue, Error, ErrorKind},
};
use toml::de::{DeTable, DeValue};

use super::{
    name,
    settings::{self, Given},
};

/// A file of settings has a few lines; what is larger is another file, given by mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the file at `path`.
///
/// # Errors
/// Every mistake in it, one a line: file, line, key, what was expected and what was found.
pub(super) fn read(path: &Path, command: &Command) -> Result<Vec<Given>, String> {
    let wrong = |why: &dyn fmt::Display| format!("--config {}: {why}", path.display());
    let length = fs::metadata(path).map_err(|error| wrong(&error))?.len();
    if length > FILE_BYTES_MAX {
        return Err(wrong(&format_args!("expected a file of at most {FILE_BYTES_MAX} bytes, found {length}")));
    }
    let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
    parse(&text, &path.display().to_string(), command)
}

/// Makes what the file says the default of its flags.
pub(super) fn apply(command: Command, file: &[Given]) -> Command {
    // Not flag by flag: `mut_arg` would move each to the end.
    command.mut_args(|flag| match file.iter().find(|given| given.id == flag.get_id().as_str()) {
        Some(given) => flag.default_values(given.values.iter()),
        None => flag,
    })
}

fn parse(text: &str, file: &str, command: &Command) -> Result<Vec<Given>, String> {
    let place = |at: usize| (text.bytes().take(at).filter(|byte| *byte == b'\n').count().saturating_add(1), file);
    let at_line = |at: usize, what: &dyn fmt::Display| format!("{file}:{}: {what}", place(at).0);
    let table = DeTable::parse(text).map_err(|error| {
        let why = error.message().trim().replace('\n', ", ");
        at_line(error.span().map_or(0, |span| span.start), &format_args!("not TOML: {why}"))
    })?;
    let (mut given, mut mistakes) = (Vec::new(), Vec::new());
    for (key, value) in table.get_ref() {
        let (at, key) = (key.span().start, key.get_ref().as_ref());
        match take(key, value.get_ref(), command) {
            Ok((flag, values)) => {
                let place = format!("{file}:{}", place(at).0);
                given.push(Given { id: flag.get_id().to_string(), place, values });
            }
            Err(why) => mistakes.push((at, at_line(at, &format_args!("{key}: {why}")))),
        }
    }
    if mistakes.is_empty() {
        return Ok(given);
    }
    mistakes.sort();
    Err(mistakes.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n"))
}

/// The flag that a key means, and the value as the command line would have it.
fn take<'c>(key: &str, value: &DeValue<'_>, command: &'c Command) -> Result<(&'c Arg, Vec<String>), String> {
    let flag = settings::all(command).find(|flag| name(flag) == key).ok_or_else(|| unknown(key, command))?;
    let values = words(flag, value)?;
    if flag.get_action().takes_values() {
        values.iter().try_for_each(|value| judge(flag, value))?;
    }
    Ok((flag, values))
}

/// A value as text, if it is of the kind that the flag takes.
fn words(flag: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let is_list = flag.get_value_delimiter().is_some();
    let expected = match (flag.get_action().takes_values(), is_list) {
        (false, _) => "true or false",
        (_, true) => "a string, a number, or an array of them",
        (_, false) => "a string or a number",
    };
    let wrong = |value: &DeValue<'_>| format!("expected {expected}, found {}", kind(value));
    let word = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Ok(number.to_string()),
            Err(_) => Err(format!("expected a number below 2^63, found {}", number.as_str())),
        },
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        other => Err(wrong(other)),
    };
    match value {
        DeValue::Boolean(on) if !flag.get_action().takes_values() => Ok(vec![on.to_string()]),
        other if !flag.get_action().takes_values() => Err(wrong(other)),
        DeValue::Array(values) if is_list => values.iter().map(|value| word(value.get_ref())).collect(),
        value => Ok(vec![word(value)?]),
    }
}

/// Whether the flag's own parser takes the value.
fn judge(flag: &Arg, value: &str) -> Result<(), String> {
    let alone = Command::new("stentor").no_binary_name(true).arg(flag.clone().env(None::<&str>));
    let Err(error) = alone.try_get_matches_from([format!("--{}={value}", name(flag))]) else { return Ok(()) };
    let expected = flag.get_value_names().and_then(|names| names.first()).map_or("a value", |name| name.as_str());
    let found = if flag.is_hide_env_values_set() { "(hidden)" } else { value };
    let why = match (std::error::Error::source(&error), error.get(ContextKind::ValidValue)) {
        (Some(why), _) => format!(": {why}"),
        (None, Some(ContextValue::Strings(words))) => format!(": one of {}", words.join(", ")),
        (None, _) => String::new(),
    };
    Err(format!("expected {expected}, found {found:?}{why}"))
}

/// That there is no such setting, and which was perhaps meant.
fn unknown(key: &str, command: &Command) -> String {
    let asked = command.clone().try_get_matches_from(["stentor", &format!("--{key}")]);
    let similar = asked.err().filter(|error| error.kind() == ErrorKind::UnknownArgument);
    let similar = similar.as_ref().and_then(|error: &Error| error.get(ContextKind::SuggestedArg));
    let known = |flag: &&str| settings::all(command).any(|setting| name(setting) == *flag);
    match similar {
        Some(ContextValue::String(flag)) if known(&flag.trim_start_matches('-')) => {
            format!("there is no such setting; did you mean {}?", flag.trim_start_matches('-'))
        }
        _ => "there is no such setting: expected the name of a flag that --help lists".into(),
    }
}

fn kind(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(number) => format!("the number {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(on) => format!("{on}"),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "an array".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<(String, Vec<String>)>, String> {
        let given = parse(text, "s.toml", &super::super::command())?;
        Ok(given.into_iter().map(|given| (given.id, given.values)).collect())
    }

    #[test]
    fn a_file_takes_what_the_command_line_takes() {
        let text = "listen = ['127.0.0.1:1', '[::1]:2']\nallow-origin = 'https://a'\nretain = '8MiB'\n\
                    workers = 0x1_0\nspeed = 2.5\ndemo = true\nloop = false # not now\n";
        let mut given = parsed(text).unwrap();
        given.sort();
        let found: Vec<String> = given.iter().map(|(id, values)| format!("{id} {}", values.join(" "))).collect();
        let expected = [
            "allow_origin https://a",
            "demo true",
            "listen 127.0.0.1:1 [::1]:2",
            "replay_loop false",
            "retain 8MiB",
            "speed 2.5",
            "workers 16",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_list_takes_numbers_alone_and_within() {
        for text in ["listen = 9001", "listen = [9001]", "listen = '9001'", "listen = ['127.0.0.1:9001']"] {
            let given = parsed(text).unwrap();
            let listens =
                super::super::parse_from(["stentor".to_owned(), format!("--listen={}", given[0].1[0])]).unwrap();
            assert_eq!(*listens.config.listen, ["127.0.0.1:9001".parse().unwrap()], "{text}");
        }
        assert_eq!(parsed("listen = [9001, '[::1]:2']").unwrap()[0].1, ["9001", "[::1]:2"]);
    }

    #[test]
    fn a_mistake_names_file_line_key_what_was_expected_and_what_was_found() {
        for (text, said) in [
            ("\nretian = '1MiB'", "s.toml:2: retian: there is no such setting; did you mean retain?"),
            ("config = 'x'", "s.toml:1: config: there is no such setting"),
            ("help = true", "s.toml:1: help: there is no such setting"),
            ("demo = 1", "s.toml:1: demo: expected true or false, found the number 1"),
            ("workers = true", "s.toml:1: workers: expected a string or a number, found true"),
            ("workers = 'many'", "s.toml:1: workers: expected N, found \"many\": invalid digit"),
            ("listen = true", "s.toml:1: listen: expected a string, a number, or an array of them, found true"),
            (
                "listen = [9001, [9002]]",
                "s.toml:1: listen: expected a string, a number, or an array of them, found an array",
            ),
            ("listen = [70000]", "s.toml:1: listen: expected ADDR:PORT, found \"70000\": expected an address"),
            ("listen = ['nowhere']", "s.toml:1: listen: expected ADDR:PORT, found \"nowhere\": expected an address"),
            ("heartbeat = 15", "s.toml:1: heartbeat: expected DURATION, found \"15\": expected a time like"),
            ("log-format = 'xml'", "s.toml:1: log-format: expected FORMAT, found \"xml\": one of text, json"),
            ("publish-token = 's3 cret'", "s.toml:1: publish-token: expected TOKEN, found \"(hidden)\": expected one"),
            ("[retain]\nsize = 1", "s.toml:1: retain: expected a string or a number, found a table"),
            ("backlog = 99999999999999999999", "s.toml:1: backlog: expected a number below 2^63"),
            ("\n\nretain = ", "s.toml:3: not TOML: "),
            ("spin = 1\nspin = 2", "s.toml:2: not TOML: duplicate key"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.starts_with(said) && error.lines().count() == 1, "{error}\n{said}");
            assert!(!error.contains("s3 cret"));
        }
    }

    #[test]
    fn all_mistakes_are_named_in_the_order_of_the_file() {
        let error = parsed("workers = true\nacceptors = 'x'\nretain = '8MiB'\ndome = true\n").unwrap_err();
        let lines: Vec<&str> = error.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(lines, ["s.toml:1:", "s.toml:2:", "s.toml:4:"]);
    }
}
