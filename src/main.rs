//! The `stentor` binary: flags, log, start, signals.

use std::{
    io::IsTerminal,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};
use stentor::{
    cli::{self, Cli, Task},
    config::LogFormat,
    io,
    server::{Server, StartError},
    top,
};

fn main() -> ExitCode {
    io::heap::give_back();
    let cli = cli::parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit());
    if cli.print_config {
        print!("{}", cli.settings);
        return ExitCode::SUCCESS;
    }
    if let Some(Task::Top(options)) = &cli.task {
        return match top::run(options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("stentor top: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let _log = start_log(&cli);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stentor: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> Result<(), StartError> {
    let signals = [SIGTERM, SIGINT];
    let asked = Arc::new(AtomicBool::new(false));
    for signal in signals {
        // In this order: the first signal finds `asked` false and sets it, the second ends the process at once.
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&asked)).map_err(StartError::Thread)?;
        flag::register(signal, Arc::clone(&asked)).map_err(StartError::Thread)?;
    }
    let mut waiting = Signals::new(signals).map_err(StartError::Thread)?;
    let server = Server::builder().config(cli.config).start()?;
    for address in server.addresses() {
        tracing::info!("listening on http://{address}/ (subscribe at ws://{address}/ws)");
    }
    waiting.forever().next();
    server.stop();
    Ok(())
}

/// Sends events to standard error from a thread of their own, so that a slow terminal or pipe never holds up a worker; what
/// comes faster than it can be written is dropped, and counted by the writer.
fn start_log(cli: &Cli) -> tracing_appender::non_blocking::WorkerGuard {
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(cli.log_level.filter()).with_writer(writer);
    match cli.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    guard
}
