//! The load generator's program: parses, runs, prints, exits with a code that says how it went.

#[path = "../../src/signals.rs"]
mod signals;

use std::{
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::Result;
use clap::Parser;
use loadgen::{
    campaign::{self, Failure},
    cli::{Cli, Command},
    exit,
    figures::Report,
    output::{
        self,
        files::Files,
        terminal::{print, say},
    },
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = match &cli.command {
        Command::Compare(compare) => told(output::compared(compare).and_then(|text| print(&text))),
        Command::Summary(summary) => told(output::summed(summary).and_then(|text| print(&text))),
        Command::Sweep(sweep) => told(output::swept(sweep).and_then(|text| print(&text))),
        Command::Conditions(of) => told(output::conditions(&of.files).and_then(|text| print(&text))),
        Command::Merge(merge) => {
            told(output::merged(&merge.files, merge.json.as_deref()).and_then(|text| print(&text)))
        }
        Command::BareLoop(bare) => told(loadgen::bare_loop::serve(bare.listen, bare.tell_sent)),
        Command::Part => told(campaign::part(&stopped_by_signals())),
        scenario => run(scenario),
    };
    ExitCode::from(code)
}

/// Runs a scenario, and tells what came of it also where it failed.
fn run(command: &Command) -> u8 {
    let stop = stopped_by_signals();
    // Opened before the run, which may take an hour.
    let mut files = Files::default();
    let open = || output::open(command).map(|opened| files = opened);
    match campaign::run(command, asked(), &stop, open) {
        Ok(report) => finish(command, files, &report, campaign::exit_code(&report)),
        Err(Failure { error, code, report }) => {
            say(format_args!("loadgen: {error:#}"));
            match report {
                Some(report) if !report.runs.is_empty() => exit::worse(code, finish(command, files, &report, code)),
                _ => code,
            }
        }
    }
}

/// Set by the first signal that asks to end. A second ends the process at once, for a run that does not come to its end.
fn stopped_by_signals() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in signals::heeded(&[signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM]) {
        let _ = signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop));
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    stop
}

fn finish(command: &Command, files: Files, report: &Report, code: u8) -> u8 {
    match output::write(command, files, report) {
        Ok(()) => code,
        Err(error) => {
            say(format_args!("loadgen: {error:#}"));
            exit::worse(code, exit::COULD_NOT)
        }
    }
}

fn told(outcome: Result<()>) -> u8 {
    match outcome {
        Ok(()) => exit::FINE,
        Err(error) => {
            say(format_args!("loadgen: {error:#}"));
            exit::COULD_NOT
        }
    }
}

/// The command as it is kept with the result: the program by its name, wherever it was started from.
fn asked() -> Vec<String> {
    std::iter::once("loadgen".to_owned()).chain(std::env::args().skip(1)).collect()
}
