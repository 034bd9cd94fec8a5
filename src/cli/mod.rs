//! The command line: the server's settings, and how the program itself behaves.
//!
//! Settings live in [`Config`]; here are the flags that only a program has (its log, `--print-config`), the help, and
//! where each value came from. `-h` is one line a flag and fits a screen; `--help` explains each flag, its environment
//! variable and its cost. A flag wins over its environment variable, which wins over the file, which wins over the default.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

mod file;
mod settings;

use std::{ffi::OsString, fmt, fmt::Write, path::PathBuf, str::FromStr};

use clap::{
    Arg, ArgAction, Command, CommandFactory, FromArgMatches, Parser, Subcommand, builder::BoolishValueParser,
    error::ErrorKind,
};
use clap_complete::Shell;
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, LogFormat},
    tools::{
        client::{ping, publish, record, replay, sub},
        token, top,
    },
};
pub use settings::Settings;

/// The heading of the flags that ask the program something, or say where its settings are; the others are settings.
const ASKING: &str = "Program";

/// What the command line asked for.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "stentor",
    version,
    about = "Broadcasts market data to many WebSocket subscribers",
    long_about = LONG_ABOUT,
    after_help = "Try: stentor --demo, then open http://127.0.0.1:9001/, or watch it with: stentor top",
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Something else than to serve.
    #[command(subcommand)]
    pub task: Option<Task>,

    /// The server's settings.
    #[command(flatten)]
    pub config: Config,

    /// How events are written to standard error
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        env = "STENTOR_LOG_FORMAT",
        default_value = "text",
        help_heading = "Log"
    )]
    pub log_format: LogFormat,

    /// Least important events to log: error, warn, info, debug, trace; or a filter
    ///
    /// A filter names parts of the program, such as `info,stentor::worker=debug`.
    #[arg(long, value_name = "LEVEL|FILTER", env = "STENTOR_LOG_LEVEL", default_value = "info", help_heading = "Log")]
    pub log_level: LogLevel,

    /// Read settings from this file: TOML, `name = value` as the flags are called
    ///
    /// Flags and environment variables win over the file. SIGHUP reads it again: what can change while the server runs
    /// does, and the log says what did and what needs a restart.
    #[arg(long = "config", value_name = "FILE", env = "STENTOR_CONFIG", help_heading = ASKING)]
    pub config_file: Option<PathBuf>,

    /// Print every setting and where it came from, and exit
    ///
    /// What is printed is a file that --config takes. What isn't set is a comment in it, and so are secrets.
    #[arg(long, help_heading = ASKING)]
    pub print_config: bool,

    /// Print what would happen with these settings, and exit: 0 if it would start
    ///
    /// And 1 if it would not. Looks at the addresses, the limits on descriptors, memory, and the kernel's limits for sockets. Changes nothing.
    #[arg(long, help_heading = ASKING)]
    pub check: bool,

    /// Print completions for a shell, and exit
    ///
    /// The shells are bash, elvish, fish, powershell and zsh.
    #[arg(long, value_name = "SHELL", value_enum, hide_possible_values = true, help_heading = ASKING)]
    pub completions: Option<Shell>,

    /// Print the manual page, and exit
    #[arg(long, help_heading = ASKING)]
    pub man: bool,

    /// Every setting, as it was written, with where it came from.
    #[arg(skip)]
    pub settings: Settings,
}

/// What the program does beside serving.
#[derive(Subcommand, Clone, Debug)]
pub enum Task {
    /// Show a running server live in the terminal: rates, latency, and who is slow
    Top(top::Options),
    /// Print what is published on topics
    Sub(sub::Options),
    /// Publish an argument, lines of standard input, or a file
    Pub(publish::Options),
    /// Write what is published on topics as a recording, for --replay
    Record(record::Options),
    /// Play a recording to a server
    Replay(replay::Options),
    /// Measure how long a server's answers take
    Ping(ping::Options),
    /// Make a key or a token for trying out, or say what a token allows
    Token(token::Options),
}

const LONG_ABOUT: &str = "\
Broadcasts market data to many WebSocket subscribers.

Publishers put small payloads on topics; every subscriber of a topic gets each of them, in order, as soon as its socket \
takes it. A subscriber that is slow costs the others nothing.

Each setting can be given as a flag, as an environment variable or in a file (--config); a flag wins over the \
environment, and that over the file. Sizes are written like 64KiB or 1MiB, \
times like 250ms or 10s, rates like 500 or 50k/s.";

/// Reads the command line, the program's name first.
///
/// # Errors
/// A flag or key that doesn't exist, or a value that it cannot take: says so, and exits with 2 when told to. Help and version come
/// as errors too, that exit with 0.
pub fn parse_from<I>(args: I) -> Result<Cli, clap::Error>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let mut command = command();
    // A task has few flags, and its own help.
    if args.iter().any(|arg| arg == "-h")
        && !command.get_subcommands().any(|task| args.iter().any(|arg| arg == task.get_name()))
    {
        let help = short_help(&command);
        command = command.override_help(help);
    }
    // Kept as it was defined: a command that has parsed once has its arguments in a fixed order.
    let fresh = command.clone();
    let mut matches = command.try_get_matches_from_mut(args.clone())?;
    let mut given = Vec::new();
    if let Some(path) = matches.get_one::<PathBuf>("config_file") {
        given = file::read(path, &command).map_err(|text| command.error(ErrorKind::ValueValidation, text))?;
        command = file::apply(fresh, &given);
        matches = command.try_get_matches_from_mut(args)?;
    }
    let mut settings = Settings::of(&command, &matches, &given);
    let mut cli = Cli::from_arg_matches(&matches)?;
    for followed in cli.config.follow(|name| settings.is_set(name)) {
        settings.follow(&followed);
    }
    let settings = settings.fill(&cli.config);
    Ok(Cli { settings, ..cli })
}

/// The flags, with switches that the environment may turn on as people do: `1`, `yes`, `on` or `true`.
fn command() -> Command {
    Cli::command().mut_args(|flag| match flag.get_action() {
        ArgAction::SetTrue if flag.get_env().is_some() => flag.value_parser(BoolishValueParser::new()),
        _ => flag,
    })
}

/// The script that makes a shell complete the flags.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "stentor", &mut script);
    script
}

/// The manual page, for `man`.
pub fn manual() -> Vec<u8> {
    let mut page = Vec::new();
    let written = clap_mangen::Man::new(command()).render(&mut page);
    debug_assert!(written.is_ok(), "a Vec takes everything");
    page
}

/// A level or filter of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    /// The filter for the subscriber of events.
    pub fn filter(&self) -> EnvFilter {
        // It was parsed once already, and parses alike again.
        EnvFilter::try_new(&self.0).unwrap_or_else(|_| EnvFilter::new("info"))
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A bare word would pass as the name of a module: far more likely it is a level misspelt.
        let words = ["off", "error", "warn", "info", "debug", "trace"];
        let known = |part: &str| part.contains('=') || words.contains(&part.trim().to_ascii_lowercase().as_str());
        let wrong = |why: &str| {
            format!("expected error, warn, info, debug, trace, or a filter like info,stentor::worker=debug{why}")
        };
        if !text.split(',').all(known) {
            return Err(wrong(""));
        }
        EnvFilter::try_new(text).map_err(|error| wrong(&format!(": {error}")))?;
        Ok(LogLevel(text.to_owned()))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the name of a flag ends in that bounds for one address what another bounds for all.
const PER_IP: &str = "-per-ip";

/// Flags that short help names and doesn't explain: finer points of others, which few have to set.
const NAMED_ONLY: &[&str] = &[
    "handshakes",
    "handshake-threads",
    "tls-buffers",
    "acme-webroot",
    "ipv6-prefix",
    "max-http-pending",
    "min-http-rate",
    "max-headers",
    "max-topic-length",
    "slow-list",
    "log-limit",
    "demo-symbols",
    "demo-rate",
    "demo-seed",
    "speed",
    "replay-delay",
    "max-gap",
    "max-replay-message",
    "loop",
];

/// Every flag on one line, in its group, with what it is for one address on the same, and finer points by their names alone; no blank lines, so
/// that all of it fits a screen.
fn short_help(command: &Command) -> String {
    let all: Vec<&Arg> = command.get_arguments().collect();
    let has = |wanted: &str| all.iter().any(|flag| name(flag) == wanted);
    let is_beside = |flag: &Arg| name(flag).strip_suffix(PER_IP).is_some_and(has);
    let usage = |flag: &Arg| match has(&format!("{}{PER_IP}", name(flag))) {
        true => usage(flag).replacen(name(flag), &format!("{}[{PER_IP}]", name(flag)), 1),
        false => usage(flag),
    };
    let flags: Vec<&Arg> = all.iter().copied().filter(|flag| !is_beside(flag)).collect();
    let explained = flags.iter().filter(|flag| !is_named_only(flag));
    let width = explained.map(|flag| usage(flag).len()).max().unwrap_or(0);
    let mut help = format!(
        "{}\nUsage: stentor [OPTIONS], or stentor top|sub|pub|record|replay|ping|token (each has -h)   (--help explains each)\n",
        about(command)
    );
    let (mut group, mut finer) = (None, Vec::new());
    for flag in flags {
        if flag.get_help_heading() != group {
            help.push_str(&named(&mut finer));
            group = flag.get_help_heading();
            let _ = writeln!(help, "{}:", group.unwrap_or("Options"));
        }
        if is_named_only(flag) {
            finer.push(usage(flag));
            continue;
        }
        let text = flag.get_help().map(ToString::to_string).unwrap_or_default();
        let default = flag.get_default_values().first().filter(|_| flag.get_action().takes_values());
        let default = default.map(|value| format!(" [{}]", value.to_string_lossy())).unwrap_or_default();
        let text = shortened(&text, COLUMNS_MAX.saturating_sub(4).saturating_sub(width).saturating_sub(default.len()));
        let _ = writeln!(help, "  {:width$}  {text}{default}", usage(flag));
    }
    help.push_str(&named(&mut finer));
    let _ = writeln!(help, "  {:width$}  This, or --help for more; --version", "-h");
    let _ = write!(help, "{}", command.get_after_help().map(ToString::to_string).unwrap_or_default());
    help
}

/// Groups of which the short help names the flags and no more: a page of its own explains them.
const LISTED: &[&str] = &["Rights", "Compression"];

/// Whether short help names a flag and no more.
fn is_named_only(flag: &Arg) -> bool {
    NAMED_ONLY.contains(&name(flag)) || flag.get_help_heading().is_some_and(|group| LISTED.contains(&group))
}

/// Flags by their names alone, in as many lines as they take.
fn named(flags: &mut Vec<String>) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for flag in flags.drain(..) {
        if line.len().saturating_add(flag.len()).saturating_add(4) > COLUMNS_MAX {
            let _ = writeln!(lines, "  {}", std::mem::take(&mut line));
        }
        line.push_str(if line.is_empty() { "" } else { ", " });
        line.push_str(&flag);
    }
    if !line.is_empty() {
        let _ = writeln!(lines, "  {line}");
    }
    lines
}

/// A terminal is rarely wider than this.
const COLUMNS_MAX: usize = 120;

/// The text, or where that is wider than `columns`, the part before its first aside.
fn shortened(text: &str, columns: usize) -> &str {
    let aside = [text.find(';'), text.find(" (")].into_iter().flatten().min();
    match aside {
        Some(at) if text.chars().count() > columns => &text[..at],
        _ => text,
    }
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// `--retain SIZE`
fn usage(flag: &Arg) -> String {
    let name = name(flag);
    match flag.get_value_names() {
        Some([value, ..]) if flag.get_action().takes_values() => format!("--{name} {value}"),
        _ => format!("--{name}"),
    }
}

fn name(flag: &Arg) -> &str {
    flag.get_long().unwrap_or_else(|| flag.get_id().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check, server};
    use clap::{ValueEnum, error::ErrorKind};

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        parse_from(["stentor"].iter().chain(args))
    }

    fn refused(args: &[&str]) -> String {
        let error = parse(args).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    }

    #[test]
    fn the_definition_holds_together() {
        command().debug_assert();
    }

    #[test]
    fn an_unknown_flag_is_named() {
        assert!(refused(&["--retian", "1MiB"]).contains("--retian"));
        assert!(refused(&["surplus"]).contains("surplus"));
    }

    #[test]
    fn a_bad_value_names_the_flag_what_was_given_and_what_would_do() {
        for (flag, given, would_do) in [
            ("--listen", "localhost", "localhost:9001"),
            ("--listen", "nobody", "or none"),
            ("--tls-listen", "none", "127.0.0.1:9001"),
            ("--demo-rate", "fast", "50k/s"),
            ("--pin", "3-1", "0,2-3"),
            ("--heartbeat", "15", "10s"),
            ("--speed", "-2", ""),
            ("--workers", "many", "invalid digit"),
            ("--log-format", "xml", "json"),
            ("--log-level", "inof", "warn"),
        ] {
            let text = refused(&[&format!("{flag}={given}")]);
            assert!(text.contains(flag) && text.contains(given) && text.contains(would_do), "{text}");
        }
    }

    #[test]
    fn no_value_of_any_flag_is_taken_that_something_would_panic_over() {
        let values = [
            "0",
            "1",
            "-1",
            "65536",
            "2147483648",
            "18446744073709551615",
            "18446744073709551616",
            "1e-300",
            "1e-20",
            "1e300",
            "inf",
            "nan",
            "0s",
            "1ns",
            "100years",
            "584years",
            "18446744073709551615s",
            "1B",
            "16EiB",
            "18446744073709551615B",
            "",
        ];
        let (mut taken, mut refused) = (0, 0);
        let command = command();
        for flag in settings::all(&command).filter(|flag| flag.get_action().takes_values()) {
            for value in values {
                let given = format!("--{}={value}", name(flag));
                let Ok(cli) = parse(&["--listen=127.0.0.1:0", &given]) else { continue };
                let _ = check::check(&cli.config, &server::Passed::default());
                match cli.config.check() {
                    Ok(()) => {
                        let _ = crate::shared::Settings::new(&cli.config);
                        let _ = server::StartError::thread("log".into(), &cli.config, std::io::ErrorKind::Other.into());
                        taken += 1;
                    }
                    Err(error) => {
                        assert!(error.0.contains(&format!("--{}", name(flag))), "{given}: {error}");
                        refused += 1;
                    }
                }
            }
        }
        assert!(taken > 100 && refused > 100, "{taken} taken, {refused} refused");
    }

    #[test]
    fn listening_in_clear_can_be_switched_off_where_there_is_tls() {
        let tls = ["--tls-self-signed", "dir"];
        let cli = parse(&[&tls[..], &["--listen", "none"]].concat()).unwrap();
        cli.config.check().unwrap();
        assert!(cli.config.listen.is_empty());
        let text = cli.settings.to_string();
        for line in ["listen = [\"none\"]  # flag\n", "tls-listen = [\"127.0.0.1:9443\"]  # follows tls-self-signed\n"]
        {
            assert!(text.contains(line), "{line}{text}");
        }
        let alone = parse(&["--listen", "none"]).unwrap().config.check().unwrap_err();
        assert!(alone.0.contains("--tls-listen"), "{alone}");
        assert!(refused(&["--listen", "none,127.0.0.1:1"]).contains("as none and as 127.0.0.1:1"));
    }

    #[test]
    fn certificates_and_keys_are_counted_and_the_one_without_the_other_is_named() {
        let said = |args: &[&str]| parse(args).unwrap().config.check().err().map(|error| error.0);
        let tls = "--tls-listen=127.0.0.1:0";
        assert_eq!(said(&[tls, "--tls-cert=a,b", "--tls-key=x", "--tls-key=y"]), None);
        for (args, words) in [
            (&[tls][..], "--tls-listen 127.0.0.1:0 has no certificate"),
            (&[tls, "--tls-cert=a"], "--tls-cert a has no --tls-key"),
            (&[tls, "--tls-cert=a,b", "--tls-key=x"], "--tls-cert b has no --tls-key"),
            (&[tls, "--tls-cert=a", "--tls-key=x", "--tls-key=y"], "--tls-key y has no --tls-cert"),
            (&["--tls-cert=a", "--tls-key=x"], "--tls-cert a was given, and nothing listens for TLS"),
            (&["--acme-listen=:80"], "--acme-listen [::]:80 was given without --acme-webroot"),
            (&["--acme-webroot=a"], "--acme-webroot a was given without --acme-listen"),
        ] {
            let error = said(args).unwrap_or_default();
            assert!(error.starts_with(words), "{args:?}: {error}");
        }
    }

    #[test]
    fn a_log_filter_may_name_parts_of_the_program() {
        for text in ["warn", "DEBUG", "info,stentor::worker=debug", "off"] {
            assert_eq!(text.parse::<LogLevel>().unwrap().to_string(), text);
        }
        for text in ["", "loud", "info,stentor=loud", "info,,"] {
            assert!(text.parse::<LogLevel>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn short_help_fits_a_screen_and_names_every_flag() {
        let error = parse(&["-h"]).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::DisplayHelp, 0));
        let help = error.to_string();
        assert!(help.lines().count() <= 96, "{} lines", help.lines().count());
        let widest = help.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= COLUMNS_MAX, "{widest} columns");
        let flags = Cli::command();
        for flag in flags.get_arguments() {
            let of_all =
                name(flag).strip_suffix(PER_IP).filter(|of_all| flags.get_arguments().any(|it| name(it) == *of_all));
            let usage = of_all.map_or_else(|| format!("--{}", name(flag)), |of_all| format!("--{of_all}[{PER_IP}]"));
            assert!(help.contains(&usage), "{usage}");
        }
        for group in [
            "Listening:",
            "TLS:",
            "Threads:",
            "Fan-out:",
            "Limits:",
            "Timeouts:",
            "Publishing:",
            "Feeds:",
            "Log:",
            "Program:",
        ] {
            assert_eq!(help.matches(&format!("\n{group}\n")).count(), 1, "{group}");
        }
    }

    #[test]
    fn completions_and_the_manual_name_every_flag() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(completions(*shell)).unwrap();
            for flag in command().get_arguments() {
                assert!(script.contains(name(flag)), "{shell}: {}", name(flag));
            }
        }
        let page = String::from_utf8(manual()).unwrap().replace('\\', "");
        for flag in command().get_arguments() {
            assert!(page.contains(&format!("--{}", name(flag))), "{}", name(flag));
        }
        assert!(page.contains("that falls off"));
    }

    #[test]
    fn long_help_explains_what_short_help_only_names() {
        let help = parse(&["--help"]).unwrap_err().to_string();
        assert!(help.contains("STENTOR_RETAIN") && help.contains("that falls off"), "{help}");
    }

    #[test]
    fn top_takes_an_address_and_no_flags_of_the_server() {
        let task = |args: &[&str]| parse(args).unwrap().task;
        assert!(task(&["--demo"]).is_none());
        let Some(Task::Top(options)) = task(&["top"]) else { panic!("it is a task") };
        assert_eq!((options.url.to_string().as_str(), options.once), ("http://127.0.0.1:9001", false));
        let Some(Task::Top(options)) = task(&["top", "localhost:80", "--once", "--interval", "2s"]) else {
            panic!("it is a task")
        };
        assert_eq!((options.url.to_string().as_str(), options.once), ("http://localhost:80", true));
        let Some(Task::Top(options)) = task(&["top", "https://localhost", "--tls-ca", "x"]) else {
            panic!("it is a task")
        };
        assert_eq!(options.url.to_string(), "https://localhost:443");
        for (args, words) in [
            (&["top", "wss://a"][..], "expected an address"),
            (&["top", "--insecure", "--tls-ca", "x"], "cannot be used with"),
            (&["top", "--interval", "0"], "250ms to 1h"),
            (&["top", "--sort", "speed"], "conn, address"),
            (&["top", "--demo"], "--demo"),
            (&["--demo", "top"], "top"),
        ] {
            assert!(refused(args).contains(words), "{args:?}: {}", refused(args));
        }
        let help = parse(&["top", "-h"]).unwrap_err().to_string();
        assert!(help.contains("--once") && !help.contains("--retain"), "{help}");
    }

    #[test]
    fn print_config_lists_every_flag_and_where_it_came_from() {
        let args = ["--print-config", "--retain", "8MiB", "--demo", "--publish-token", "s3cret", "--pin", "none"];
        let more = ["--listen", "127.0.0.1:9001", "--listen", "[::1]:9001", "--max-connections", "90", "--sndbuf", "0"];
        let cli = parse(&[&args[..], &more].concat()).unwrap();
        let text = format!("\n{}", cli.settings);
        let count = std::thread::available_parallelism().unwrap();
        let text = text.replace(&format!("# workers = {count} "), "# workers = 2 ");
        for flag in settings::all(&command()) {
            let start = format!("{} = ", name(flag));
            let lines = text.lines().map(|line| line.trim_start_matches("# "));
            assert_eq!(lines.filter(|line| line.starts_with(&start)).count(), 1, "{start}");
        }
        for line in [
            "\nretain = \"8MiB\"  # flag\n",
            "\ndemo = true  # flag\n",
            "\nbacklog = 4096  # default\n",
            "\nlisten = [\"127.0.0.1:9001\", \"[::1]:9001\"]  # flag\n",
            "\nlag-limit-age = \"0s\"  # default: 0 for no limit\n",
            "\nmax-publications = \"0/s\"  # default: 0 for no limit\n",
            "\nsndbuf = 0  # flag: 0 leaves it to the kernel, up to 4 MiB each\n",
            "\nflush-interval = \"0s\"  # default: 0 sends at once\n",
            "\n# replay = (not set)  # default\n",
            "\n# max-connections-per-ip = 45  # default\n",
            "\n# max-values-per-ip = \"128.0 MiB\"  # default\n",
            "\n# workers = 2  # default\n",
            "\n# publish-token = (hidden)  # flag\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("s3cret") && !text.contains("version"));
        assert!(!format!("{cli:?}").contains("s3cret"));
    }

    #[test]
    fn what_print_config_prints_is_a_file_that_means_the_same() {
        for args in [
            &[][..],
            &["--demo", "--retain=8MiB", "--listen=127.0.0.1:1,[::1]:2", "--speed=2.5", "--spin=0", "--workers=1"],
            &[
                "--replay=a \"b\" \\c\u{7f}\n.ndjson",
                "--allow-origin=https://a,https://b",
                "--log-level=info,stentor=debug",
            ],
            &[
                "--max-topics-per-ip=0",
                "--max-commands=2.5/s",
                "--pin=0,2-3",
                "--heartbeat=1m 30s",
                "--loop",
                "--speed=max",
            ],
        ] {
            let printed = parse(args).unwrap();
            let read = in_file(&printed.settings.to_string(), &[]).unwrap_or_else(|error| panic!("{args:?}: {error}"));
            let changes: Vec<_> =
                printed.settings.0.iter().zip(&read.settings.0).filter(|(a, b)| a.differs(b)).collect();
            assert!(changes.is_empty(), "{changes:?}");
            assert_eq!(format!("{:?}", printed.config), format!("{:?}", read.config));
        }
    }

    #[test]
    fn what_was_not_set_follows_what_was_and_says_so() {
        let cli = parse(&["--max-message", "32MiB"]).unwrap();
        cli.config.check().unwrap();
        let text = cli.settings.to_string();
        for line in ["segment = \"32.0 MiB\"  # follows max-message\n", "retain = \"64MiB\"  # default\n"] {
            assert!(text.contains(line), "{line}{text}");
        }
        let cli = in_file("max-message = '64MiB'\n", &["--segment", "64MiB"]).unwrap();
        assert!(cli.settings.to_string().contains("retain = \"128.0 MiB\"  # follows segment\n"));
        let cli = parse(&["--max-subscriptions-total", "10", "--retain", "1234567B"]).unwrap();
        cli.config.check().unwrap();
        let text = cli.settings.to_string();
        for line in [
            "max-subscriptions = 10  # follows max-subscriptions-total\n",
            "segment = \"617283 B\"  # follows retain\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        let cli = in_file("max-message = '32MiB'\nsegment = '1MiB'\n", &[]).unwrap();
        assert!(cli.config.check().is_err_and(|error| error.0.contains("--segment 1.0 MiB")));
    }

    fn in_file(text: &str, args: &[&str]) -> Result<Cli, clap::Error> {
        let path = std::env::temp_dir().join(format!("stentor-{}-{:x}.toml", std::process::id(), fastrand::u64(..)));
        std::fs::write(&path, text).unwrap();
        let cli = parse(&[&["--config", path.to_str().unwrap()], args].concat());
        std::fs::remove_file(path).unwrap();
        cli
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_wins_over_defaults() {
        let cli =
            in_file("retain = '8MiB'\nbacklog = 77\nlisten = ['[::1]:1', '[::1]:2']\ndemo = true\n", &["--backlog=9"]);
        let cli = cli.unwrap();
        assert_eq!((cli.config.retain.as_u64(), cli.config.backlog, cli.config.demo), (8 << 20, 9, true));
        assert_eq!(cli.config.listen.len(), 2);
        let text = cli.settings.to_string();
        assert!(text.contains("backlog = 9  # flag\n"), "{text}");
        assert!(
            text.lines().any(|line| line.starts_with("retain = \"8MiB\"  # file ") && line.ends_with(".toml:1")),
            "{text}"
        );
    }

    #[test]
    fn a_mistake_in_the_file_is_an_error_of_the_command_line() {
        let error = in_file("workers = 'many'", &[]).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(".toml:1: workers: expected N"), "{error}");
        assert!(refused(&["--config", "/no/such/file"]).contains("--config /no/such/file: No such file"));
    }

    #[test]
    fn what_changed_is_told_by_value_and_secrets_are_compared_unseen() {
        let now = parse(&["--retain", "8MiB", "--publish-token", "a", "--spin=0"]).unwrap().settings;
        let wanted = parse(&["--retain", "9MiB", "--publish-token", "b"]).unwrap().settings;
        let pairs = now.0.iter().zip(&wanted.0).filter(|(now, wanted)| now.differs(wanted));
        let changes: Vec<String> = pairs.map(|(a, b)| format!("{} {} {}", a.name, a.value(), b.value())).collect();
        assert_eq!(changes, ["retain 8MiB 9MiB", "publish-token (hidden) (hidden)"]);
    }

    /// The environment belongs to the whole process, so this test runs itself again in one of its own.
    #[test]
    fn the_environment_is_honoured_wins_over_the_file_and_flags_win_over_it() {
        const CHILD: &str = "STENTOR_TEST_CHILD";
        if std::env::var_os(CHILD).is_none() {
            let test = "cli::tests::the_environment_is_honoured_wins_over_the_file_and_flags_win_over_it";
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/settings.toml");
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test])
                .env(CHILD, "1")
                .env("STENTOR_WORKERS", "7")
                .env("STENTOR_BACKLOG", "9")
                .env("STENTOR_DEMO", "1")
                .env("STENTOR_LOOP", "no")
                .env("STENTOR_PUBLISH_TOKEN", "s3cret")
                .env("STENTOR_LOG_LEVEL", "debug")
                .env("STENTOR_CONFIG", file)
                .status();
            return assert!(status.unwrap().success());
        }
        let cli = parse(&["--print-config", "--backlog", "10"]).unwrap();
        assert_eq!((cli.config.workers, cli.config.backlog, cli.config.demo), (Some(7), 10, true));
        assert_eq!((&*cli.log_level.to_string(), cli.config.replay_loop), ("debug", false));
        let text = cli.settings.to_string();
        assert!(text.contains("workers = 7  # environment STENTOR_WORKERS\n"), "{text}");
        assert!(text.contains("backlog = 10  # flag\n"), "{text}");
        assert!(text.contains("acceptors = 3  # file "), "{text}");
        assert!(text.contains("publish-token = (hidden)  # environment STENTOR_PUBLISH_TOKEN\n"));
        assert!(!parse(&["--help"]).unwrap_err().to_string().contains("s3cret"));
    }
}
