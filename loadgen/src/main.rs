//! The load generator's program: parses, runs, prints, exits with a code that says how it went.

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
    output,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = match &cli.command {
        Command::Compare(compare) => told(output::compared(compare).map(print)),
        Command::Summary(summary) => told(output::summed(summary).map(print)),
        Command::Merge(merge) => told(output::merged(&merge.files, merge.json.as_deref()).map(print)),
        Command::Ceiling(ceiling) => told(loadgen::ceiling::serve(ceiling.listen)),
        scenario => run(scenario),
    };
    ExitCode::from(code)
}

/// Runs a scenario, and tells what came of it also where it failed.
fn run(command: &Command) -> u8 {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second signal ends the process at once, for a run that does not come to its end.
        let _ = signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop));
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    match campaign::run(command, asked(), &stop) {
        Ok(report) => finish(command, &report, campaign::exit_code(&report)),
        Err(Failure { error, code, report }) => {
            eprintln!("loadgen: {error:#}");
            match report {
                Some(report) if !report.runs.is_empty() => exit::worse(code, finish(command, &report, code)),
                _ => code,
            }
        }
    }
}

fn finish(command: &Command, report: &Report, code: u8) -> u8 {
    match output::write(command, report) {
        Ok(()) => code,
        Err(error) => {
            eprintln!("loadgen: {error:#}");
            exit::worse(code, exit::COULD_NOT)
        }
    }
}

fn print(text: String) {
    print!("{text}");
}

fn told(outcome: Result<()>) -> u8 {
    match outcome {
        Ok(()) => exit::FINE,
        Err(error) => {
            eprintln!("loadgen: {error:#}");
            exit::COULD_NOT
        }
    }
}

/// The command as it is kept with the result: the program by its name, wherever it was started from.
fn asked() -> Vec<String> {
    std::iter::once("loadgen".to_owned()).chain(std::env::args().skip(1)).collect()
}
