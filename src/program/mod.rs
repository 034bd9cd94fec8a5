//! The `stentor` program: flags, log, start, signals.
//!
//! It is what a server inside another program doesn't have, together with the command line (`cli`), `--check` and the
//! tools: only with the feature `cli`.
//!
//! | file | holds |
//! | --- | --- |
//! | `writer` | the log, and who writes it |
//! | `panic` | the last words of a server that panics |
//! | `bar` | how far a replay has come, on a terminal |
//! | `heap` | what the allocator keeps |
//! | `manager` | what systemd is told, and its watchdog |

mod bar;
mod heap;
mod manager;
mod panic;
mod writer;

use std::{
    fmt::Arguments,
    io::{self, Write},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use listenfd::ListenFd;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
    iterator::Signals,
    low_level,
};
use socket2::Socket;

use self::{
    manager::{Manager, News, Watch},
    writer::Log,
};
use crate::{
    check,
    cli::{self, Cli, Task},
    config::{Config, LIVE, Shown},
    server::{Passed, Server, StartError},
    signals,
    tools::{
        client::{ping, publish, record, replay, sub},
        token, top,
    },
};

/// What events of the program are said to be from.
const TARGET: &str = "stentor";

/// What the program does from its start to its end.
pub fn main() -> ExitCode {
    heap::give_back();
    let cli = match cli::parse_from(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => error.exit(),
        Err(help) => return printed(help.print(), 0),
    };
    if cli.print_config {
        return print(cli.settings.to_string().as_bytes());
    }
    if let Some(task) = &cli.task {
        return beside(task);
    }
    if let Some(shell) = cli.completions {
        return print(&cli::completions(shell));
    }
    if cli.man {
        return print(&cli::manual());
    }
    // Before there are threads: it takes what it reads out of the environment.
    let passed = match passed() {
        Ok(passed) => passed,
        Err(error) => return failed(&StartError::Passed(error)),
    };
    if cli.check {
        let report = check::check(&cli.config, &passed);
        let text = format!("{}\n{report}", cli.settings);
        return printed(write(text.as_bytes()), if report.would_start() { 0 } else { 1 });
    }
    let log = Log::start(&cli);
    match run(cli, passed, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// What the program does beside serving.
fn beside(task: &Task) -> ExitCode {
    let (name, outcome) = match task {
        Task::Top(options) => {
            return match top::run(options) {
                Ok(Some(frame)) => print(frame.as_bytes()),
                // Nothing is left to be said, and the terminal may be gone.
                Ok(None) => ExitCode::SUCCESS,
                Err(error) => {
                    complain(format_args!("stentor top: {error}"));
                    ExitCode::FAILURE
                }
            };
        }
        Task::Token(options) => {
            return match token::run(options) {
                Ok(outcome) => printed(write(outcome.text.as_bytes()), u8::from(outcome.is_refusal)),
                Err(error) => {
                    complain(format_args!("stentor token: {error}"));
                    ExitCode::from(2)
                }
            };
        }
        Task::Sub(options) => ("sub", sub::run(options)),
        Task::Pub(options) => ("pub", publish::run(options)),
        Task::Record(options) => ("record", record::run(options)),
        Task::Replay(options) => ("replay", replay::run(options)),
        Task::Ping(options) => ("ping", ping::run(options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.end(name),
    }
}

/// To standard output, which ends the program.
fn print(text: &[u8]) -> ExitCode {
    printed(write(text), 0)
}

fn write(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush())
}

/// What the program ends with when it has printed, if all else was well: `code`. Whoever reads it may have had enough, or may want
/// the code alone; but what a full disk doesn't take is missing.
fn printed(written: io::Result<()>, code: u8) -> ExitCode {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(format_args!("stentor: standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::from(code),
    }
}

/// A line to standard error, which may be gone, as a terminal is that was closed: that is no reason to panic.
fn complain(line: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// 2 for what flags or the file got wrong, 1 for what the machine has too little of.
fn failed(error: &StartError) -> ExitCode {
    complain(format_args!("stentor: {error}"));
    match error {
        StartError::Thread { .. } | StartError::Descriptor(_) => ExitCode::FAILURE,
        _ => ExitCode::from(2),
    }
}

fn run(mut cli: Cli, passed: Passed, log: &Log) -> Result<(), StartError> {
    let has_certificates = !cli.config.tls_cert.is_empty() || cli.config.tls_self_signed.is_some();
    let has_rules = [&cli.config.jwt_keys, &cli.config.rights, &cli.config.revoked].iter().any(|file| file.is_some());
    let has_files = has_certificates || has_rules || cli.config.audit.is_some();
    let mut signals = heed(cli.config_file.is_some() || has_files)?;
    let dropped = log.dropped.clone();
    let builder = Server::builder().config(cli.config.clone()).sockets(passed.clear).tls_sockets(passed.tls);
    let builder = builder.log_dropped(move || dropped.dropped_lines() as u64);
    let manager = Arc::new(Manager::of_environment());
    let server = builder.replay_progress(bar::Bar::default().draw()).start();
    let mut server = server.inspect_err(|error| manager.tell(&News::Failed(&error.to_string())))?;
    for address in server.addresses() {
        let tls = if server.tls_addresses().contains(address) { "s" } else { "" };
        let address = Shown(*address);
        tracing::info!(target: TARGET, "listening on http{tls}://{address}/ (subscribe at ws{tls}://{address}/ws)");
    }
    if let Some(address) = server.admin_address().map(Shown) {
        tracing::info!(target: TARGET, "for operators: http://{address}/ (health, metrics, who is slow)");
    }
    if let Some(address) = server.acme_address().map(Shown) {
        tracing::info!(target: TARGET, "ACME challenges: http://{address}/, everything else is sent on to https");
    }
    let mut pulse = server.pulse();
    let watch = manager.watch(move || pulse.feel());
    let watch = watch.map_err(|cause| StartError::thread("watchdog".into(), &cli.config, cause))?;
    let addresses: Vec<String> = server.addresses().iter().map(|address| Shown(*address).to_string()).collect();
    let listens = format!("Listens on {}", addresses.join(", "));
    manager.tell(&News::Ready(&listens));
    for signal in signals.forever() {
        if signal != SIGHUP {
            break;
        }
        manager.tell(&News::Reloading);
        let outcome = match reload(&mut cli, &mut server, log) {
            Ok(()) => format!("{listens}; its settings were read again"),
            Err(why) => {
                tracing::error!(target: TARGET, "nothing was reloaded: {why}");
                format!("{listens}; nothing was reloaded: {why}")
            }
        };
        manager.tell(&News::Ready(&outcome));
    }
    manager.tell(&News::Stopping(stopping_max(&cli.config)));
    watch.iter().for_each(Watch::let_stop);
    server.stop();
    watch.into_iter().for_each(Watch::end);
    Ok(())
}

/// From now on SIGTERM and SIGINT, and SIGHUP where the settings can be read again, come as values, as far as they were not ignored
/// when this process started.
fn heed(reloads: bool) -> io::Result<Signals> {
    let all = [SIGTERM, SIGINT, SIGHUP];
    let mut heeded = signals::heeded(&all);
    for signal in all.iter().filter(|signal| !heeded.contains(signal)) {
        let name = low_level::signal_name(*signal).unwrap_or_default();
        tracing::info!(target: TARGET, "{name} is ignored, as whoever started this process has it");
    }
    // Without a file, of settings, of certificates, of rights or an audit, there is nothing to read again, and a terminal that is closed ends its programs by the same signal.
    heeded.retain(|signal| *signal != SIGHUP || reloads);
    let asked = Arc::new(AtomicBool::new(false));
    for signal in heeded.iter().copied().filter(|signal| *signal != SIGHUP) {
        // In this order: the first signal finds `asked` false and sets it, the second ends the process at once.
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&asked))?;
        flag::register(signal, Arc::clone(&asked))?;
    }
    Signals::new(heeded)
}

/// How long it may take to stop: clients are sent what is left, then closed, and then the threads for plain HTTP end.
fn stopping_max(config: &Config) -> Duration {
    config.drain_timeout.get().saturating_add(config.close_timeout.get() * 2).saturating_add(Duration::from_secs(5))
}

/// Reads flags, environment and file again, and takes over what can change while the server runs. After any mistake nothing
/// has changed.
///
/// # Errors
/// What is wrong.
fn reload(cli: &mut Cli, server: &mut Server, log: &Log) -> Result<(), String> {
    let wanted = cli::parse_from(std::env::args_os()).map_err(|error| {
        let text = error.to_string();
        let lines = text.lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>();
        lines.join("; ").trim_start_matches("error: ").to_owned()
    })?;
    server.reload(&wanted.config).map_err(|error| error.to_string())?;
    // As `with_live` has it.
    let tls_waits = cli.config.tls_listen.is_empty() != wanted.config.tls_listen.is_empty();
    cli.config = cli.config.with_live(&wanted.config);
    log.set_level(&wanted.log_level);
    let waits = |name: &str| tls_waits && matches!(name, "tls-cert" | "tls-key");
    let is_live =
        |name: &str| name == "log-level" || !waits(name) && LIVE.iter().any(|field| field.replace('_', "-") == name);
    let mut in_force = cli.settings.clone();
    for (setting, (now, wanted)) in in_force.0.iter_mut().zip(cli.settings.0.iter().zip(&wanted.settings.0)) {
        if is_live(&wanted.name) {
            *setting = wanted.clone();
        }
        if now.differs(wanted) {
            let (name, from, to) = (&now.name, now.value(), wanted.value());
            match is_live(name) {
                true => tracing::info!(target: TARGET, name, from, to, source = wanted.source, "changed"),
                false => tracing::warn!(target: TARGET, name, from, to, source = wanted.source, "needs a restart"),
            }
        }
    }
    cli.settings = in_force;
    tracing::info!(target: TARGET, "reloaded");
    Ok(())
}

/// The listening sockets that whoever started this process has passed to it: `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES`, as
/// `sd_listen_fds_with_names(3)` has them. Takes them out of the environment, so it must be called before there are other threads.
///
/// # Errors
/// What was passed is no listening TCP socket, or it is not clear what for.
fn passed() -> io::Result<Passed> {
    let mut fds = ListenFd::from_env();
    // Without a name, for whoever knows none: all are clear.
    let names = std::env::var("LISTEN_FDNAMES").ok().filter(|_| fds.len() > 0);
    let names: Option<Vec<&str>> = names.as_ref().map(|names| names.split(':').collect());
    if let Some(names) = names.as_ref().filter(|names| names.len() != fds.len()) {
        return Err(io::Error::other(format!("{} sockets have {} names (LISTEN_FDNAMES)", fds.len(), names.len())));
    }
    let mut passed = Passed::default();
    for index in 0..fds.len() {
        if let Some(listener) = fds.take_tcp_listener(index)? {
            let socket = Socket::from(listener);
            if !socket.is_listener()? {
                return Err(io::Error::other(format!("socket {index} is not listening")));
            }
            let name = names.as_ref().and_then(|names| names.get(index).copied()).unwrap_or_default();
            match is_tls(name) {
                Some(true) => passed.tls.push(socket),
                Some(false) => passed.clear.push(socket),
                None => {
                    let text = format!("socket {index} is named {name:?}, and not clear or tls (LISTEN_FDNAMES)");
                    return Err(io::Error::other(text));
                }
            }
        }
    }
    Ok(passed)
}

/// Whether a socket of this name is one for TLS, if the name says so or nothing. A unit that gives none has its own, and systemd
/// calls what it knows no name of `unknown`.
fn is_tls(name: &str) -> Option<bool> {
    match name {
        "tls" => Some(true),
        "" | "clear" | "unknown" => Some(false),
        name => name.ends_with(".socket").then_some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_told_by_its_name_and_is_clear_without_one() {
        for (name, tls) in [
            ("tls", Some(true)),
            ("clear", Some(false)),
            ("", Some(false)),
            ("unknown", Some(false)),
            ("stentor.socket", Some(false)),
            ("TLS", None),
            ("https", None),
        ] {
            assert_eq!(is_tls(name), tls, "{name}");
        }
    }
}
