//! The command line: what can be asked for, and how it becomes a [`Spec`](crate::spec::Spec).
//!
//! One subcommand per question. All of them share the options below; what an option is worth when it is left out
//! depends on the question and is said in its help. `-h` shows what is usual, `--help` everything.

mod options;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

pub use self::options::Options;
use crate::{
    spec::{Disturbance, Pace, Scenario},
    units::{Among, Bytes, Rate, Share, Span},
};

/// Honest load generation for WebSocket broadcast servers.
///
/// Publications are scheduled before the run and latency counts from the planned moment of sending, so a stall cannot
/// hide. Every delivery is verified: order, completeness, every byte. What speaks against the figures is printed before
/// them.
#[derive(Parser, Debug)]
#[command(name = "loadgen", version, after_help = AFTER, after_long_help = AFTER_LONG, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER: &str = "\
Exit codes: 0 fine, 1 lost or wrong, 2 settings that cannot be met, 3 doubtful figures,
  4 could not run, 5 a --fail-if held.

  loadgen fanout ws://127.0.0.1:9001 --subs 1000 --rate 50/s --server-pid 1234 --cores 1";

const AFTER_LONG: &str = "\
Exit codes:
  0  everything arrived, and nothing speaks against the figures
  1  something was lost, repeated, out of order or wrong, whatever the speed; or connections failed
  2  the settings cannot be met; the message says what would do
  3  everything arrived, but the figures may not be the server's: the doubts are printed before them
  4  the run could not be made or finished: refused, no WebSocket, the server died
  5  a --fail-if held, or its figure could not be given; or --find-max found no rate. Doubts are printed before

A benchmark of one's own server, honestly:
  taskset -c 0 ./my-server &
  loadgen fanout ws://127.0.0.1:9001/feed --protocol generic --publish-url ws://127.0.0.1:9001/publish \\
      --subs 1000 --rate 50/s --server-pid $! --cores 1 --repeat 3 --report result.html
Pin server and generator to different cores, give a rate well below saturation for latencies and none for throughput,
repeat, and don't quote a run that exits with 3.";

/// The questions.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// How fast do publications reach all subscribers?
    Fanout(Options),
    /// How many connections, how fast, at what memory?
    Connect(Options),
    /// What do subscribers notice while others come and go?
    Churn(Churn),
    /// What do healthy subscribers notice of slow or stalled ones?
    Slow(Slow),
    /// What happens in bursts, as at a market's opening?
    Burst(Burst),
    /// How long until all are back when all reconnect at once?
    Storm(Storm),
    /// How long does connecting take under load, and what do the others notice?
    Join(Join),
    /// How does a captured session go, at its own timing?
    Replay(Replay),
    /// How does it go with subscribers as they are, each with topics of its own?
    ///
    /// Some have newest values only, and some are slow.
    Mix(Mix),
    /// How long is the way there and back?
    Echo(Options),
    /// What comes on a feed that others publish? Nothing is published or verified
    Listen(Options),
    /// Put results side by side, as ratios
    Compare(Compare),
    /// Make tables and plots of the results of several questions
    Summary(Summary),
    /// Put servers side by side at one grid of offered loads
    ///
    /// Which rate each holds, and what it takes at each, with ratios that are paired by round.
    Sweep(Sweep),
    /// Say what results were measured on
    Conditions(Conditions),
    /// Add up the results of several processes of one run, exactly
    Merge(Merge),
    /// The bare loop: a server that only sends, to measure against
    BareLoop(BareLoop),
    /// A further process of a run, which hears on its standard input what it is to do
    #[command(hide = true)]
    Part,
}

/// Options of `churn`.
#[derive(Args, Debug)]
pub struct Churn {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub options: Options,
    /// Share of the subscribers that come and go
    #[arg(long, value_name = "SHARE", default_value = "10%", help_heading = "Scenario")]
    pub churn_share: Share,
    /// How often one of them does
    #[arg(long, value_name = "RATE", default_value = "100/s", help_heading = "Scenario")]
    pub churn_rate: Rate,
}

/// Options of `slow`.
#[derive(Args, Debug)]
pub struct Slow {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub options: Options,
    /// Share of the subscribers that are slow from the middle of the run on
    #[arg(long, value_name = "SHARE", default_value = "10%", help_heading = "Scenario")]
    pub slow_share: Share,
    /// What each of them still reads per second; 0 is a stall
    #[arg(long, value_name = "SIZE", default_value = "0", help_heading = "Scenario")]
    pub slow_read: Bytes,
}

/// Options of `burst`.
#[derive(Args, Debug)]
pub struct Burst {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub options: Options,
    /// Publications a second within a burst
    #[arg(long, value_name = "RATE", default_value = "500/s", help_heading = "Scenario")]
    pub burst_rate: Rate,
    /// Time from one burst to the next
    #[arg(long, value_name = "TIME", default_value = "2s", help_heading = "Scenario")]
    pub burst_every: Span,
    /// How long a burst lasts
    #[arg(long, value_name = "TIME", default_value = "200ms", help_heading = "Scenario")]
    pub burst_length: Span,
}

/// Options of `storm`.
#[derive(Args, Debug)]
pub struct Storm {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub options: Options,
    /// Share of the subscribers that are cut off in the middle of the run and reconnect at once
    #[arg(long, value_name = "SHARE", default_value = "50%", help_heading = "Scenario")]
    pub storm_share: Share,
}

/// Options of `join`.
#[derive(Args, Debug)]
pub struct Join {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub options: Options,
    /// Share of the subscribers that connect only in the second half of the run, evenly
    #[arg(long, value_name = "SHARE", default_value = "50%", help_heading = "Scenario")]
    pub join_share: Share,
}

/// Options of `replay`.
#[derive(Args, Debug)]
pub struct Replay {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub options: Options,
    /// Captured file: lines of {"ts_ns":TIME,"topic":NAME,"data":JSON}, gzipped or not
    #[arg(long, value_name = "FILE", help_heading = "Scenario")]
    pub file: PathBuf,
    /// How much faster than it happened
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, help_heading = "Scenario")]
    pub speed: f64,
}

/// Options of `mix`.
#[derive(Args, Debug)]
pub struct Mix {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub options: Options,
    /// Topics on each subscriber's own list
    ///
    /// Which they are follows --topic-skew, as publications do.
    #[arg(long, value_name = "N..N", default_value = "5..200", help_heading = "Scenario")]
    pub watch_list: Among,
    /// Share that is content with newest values
    #[arg(long, value_name = "SHARE", default_value = "33%", help_heading = "Scenario")]
    pub latest_share: Share,
    /// Share that is slow while it is measured
    #[arg(long, value_name = "SHARE", default_value = "10%", help_heading = "Scenario")]
    pub slow_share: Share,
    /// What each of them reads per second, through a receive buffer of 16 KiB; 0 is a stall
    #[arg(long, value_name = "SIZE", default_value = "1KiB", hide_short_help = true, help_heading = "Scenario")]
    pub slow_read: Bytes,
}

/// Arguments of `compare`.
#[derive(Args, Debug)]
pub struct Compare {
    /// Result files; the first target in them is what the others are measured against
    #[arg(required = true, value_name = "RESULT.json")]
    pub files: Vec<PathBuf>,
    /// Print the table as Markdown
    #[arg(long)]
    pub markdown: bool,
    /// Write all runs as one result
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write all runs as one HTML page
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// Arguments of `summary`.
#[derive(Args, Debug)]
pub struct Summary {
    /// Result files, one for each question, as `compare --json` writes them; the first target in each is what the others
    /// are measured against
    #[arg(required = true, value_name = "RESULT.json")]
    pub files: Vec<PathBuf>,
    /// Draw the server's processor time for each delivery, by window: of the questions that differ from the first one with a
    /// window in nothing else
    #[arg(long, value_name = "FILE.svg")]
    pub cost: Option<PathBuf>,
    /// Draw latency by percentile: of the first question with a rate
    #[arg(long, value_name = "FILE.svg")]
    pub latency: Option<PathBuf>,
    /// Draw what a flag does, as `curve-FLAG.svg` in this folder: of targets that are called SERVER:FLAG=VALUE and differ in
    /// that value only
    #[arg(long, value_name = "FOLDER")]
    pub curves: Option<PathBuf>,
}

/// Arguments of `sweep`.
#[derive(Args, Debug)]
pub struct Sweep {
    /// Result files, one for each --rate, as `compare --json` writes them, and those of --find-max, one for each server
    #[arg(required = true, value_name = "RESULT.json")]
    pub files: Vec<PathBuf>,
    /// Whom the others are compared with, round by round [default: the first target]
    #[arg(long, value_name = "NAME")]
    pub against: Option<String>,
    /// Draw processor time, sends, p50 and p99 over the offered load
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

/// Arguments of `conditions`.
#[derive(Args, Debug)]
pub struct Conditions {
    /// Result files
    #[arg(required = true, value_name = "RESULT.json")]
    pub files: Vec<PathBuf>,
}

/// Arguments of `merge`.
#[derive(Args, Debug)]
pub struct Merge {
    /// Result files of the parts of one run
    #[arg(required = true, num_args = 2.., value_name = "PART.json")]
    pub files: Vec<PathBuf>,
    /// Where to write the sum
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Arguments of `bare-loop`.
#[derive(Args, Debug)]
pub struct BareLoop {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Tell each subscriber when it was sent what: the generator then says what part of the latency was its own
    #[arg(long)]
    pub tell_sent: bool,
}

impl Command {
    /// The question, the pace and the disturbance that a subcommand stands for, with its options; none for those that
    /// run nothing.
    pub fn scenario(&self) -> Option<(Scenario, &Options, Option<Pace>, Disturbance)> {
        Some(match self {
            Self::Fanout(options) => (Scenario::Fanout, options, None, Disturbance::None),
            Self::Connect(options) => (Scenario::Connect, options, Some(Pace::Silent), Disturbance::None),
            Self::Listen(options) => (Scenario::Listen, options, Some(Pace::Silent), Disturbance::None),
            Self::Echo(options) => (Scenario::Echo, options, None, Disturbance::None),
            Self::Churn(churn) => {
                let disturbance = Disturbance::Churn { share: churn.churn_share, rate: churn.churn_rate };
                (Scenario::Churn, &churn.options, None, disturbance)
            }
            Self::Slow(slow) => {
                let disturbance = Disturbance::Slow { share: slow.slow_share, read: slow.slow_read };
                (Scenario::Slow, &slow.options, None, disturbance)
            }
            Self::Storm(storm) => {
                (Scenario::Storm, &storm.options, None, Disturbance::Storm { share: storm.storm_share })
            }
            Self::Join(join) => (Scenario::Join, &join.options, None, Disturbance::Join { share: join.join_share }),
            Self::Mix(mix) => {
                let disturbance = match mix.slow_share {
                    Share(0.0) => Disturbance::None,
                    share => Disturbance::Slow { share, read: mix.slow_read },
                };
                (Scenario::Mix, &mix.options, None, disturbance)
            }
            Self::Burst(burst) => {
                let rate = burst.options.rate.unwrap_or(Rate(20.0));
                let (every, length) = (burst.burst_every, burst.burst_length);
                let pace = Pace::Bursts { rate, burst: burst.burst_rate, every, length };
                (Scenario::Burst, &burst.options, Some(pace), Disturbance::None)
            }
            Self::Replay(replay) => {
                let pace = Pace::Replay { file: replay.file.clone(), speed: replay.speed };
                (Scenario::Replay, &replay.options, Some(pace), Disturbance::None)
            }
            Self::Compare(_)
            | Self::Summary(_)
            | Self::Sweep(_)
            | Self::Conditions(_)
            | Self::Merge(_)
            | Self::BareLoop(_)
            | Self::Part => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The options that a reader of the README finds are those that there are.
    #[test]
    fn the_readme_has_every_option_and_no_other() {
        let mut cli = Cli::command();
        cli.build();
        let options =
            cli.get_subcommands().flat_map(|command| command.get_arguments()).filter(|arg| !arg.is_hide_set());
        let known: BTreeSet<String> = options.filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
        let readme = include_str!("../../README.md");
        let (_, section) = readme.split_once("## All options").unwrap();
        let section = section.split("\n## ").next().unwrap();
        let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('|'));
        let word = |word: &str| word.trim_matches(['`', ',']).to_owned();
        let named = cells.flat_map(|(cell, _)| cell.split_whitespace().map(word)).filter(|word| word.starts_with("--"));
        let named: BTreeSet<String> = named.collect();
        let expected: BTreeSet<String> = known.into_iter().filter(|name| name != "--help").collect();
        assert_eq!(named, expected);
    }

    #[test]
    fn every_scenario_and_exit_code_is_in_the_readme() {
        let readme = include_str!("../../README.md");
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(readme.contains(&format!("`{}`", command.get_name())), "{}", command.get_name());
        }
        for code in 0..=crate::exit::THRESHOLDS {
            assert!(readme.contains(&format!("| {code} |")), "exit code {code}");
        }
    }

    #[test]
    fn short_help_fits_a_screen() {
        let mut cli = Cli::command();
        cli.build();
        for name in ["fanout", "churn", "burst", "join", "replay", "mix", "compare", "summary", "sweep", "bare-loop"] {
            let help = cli.find_subcommand_mut(name).unwrap().render_help().to_string();
            assert!(help.lines().count() <= 50, "{name}: {} lines\n{help}", help.lines().count());
        }
        assert!(cli.render_help().to_string().lines().count() <= 32);
    }
}
