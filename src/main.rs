//! The `stentor` binary: flags, log, start, signals.

use std::{
    io::{IsTerminal, Write},
    process::{self, ExitCode},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use rustix::io::Errno;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};
use socket2::Socket;
use stentor::{
    check,
    cli::{self, Cli, LogLevel, Task},
    config::{LIVE, LogFormat},
    io::{heap, listener},
    panic,
    server::{Server, StartError},
    top,
};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};

fn main() -> ExitCode {
    heap::give_back();
    let cli = cli::parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit());
    if cli.print_config {
        return print(cli.settings.to_string().as_bytes());
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
    if let Some(shell) = cli.completions {
        return print(&cli::completions(shell));
    }
    if cli.man {
        return print(&cli::manual());
    }
    // Before there are threads: it takes what it reads out of the environment.
    let sockets = match listener::passed() {
        Ok(sockets) => sockets,
        Err(error) => return failed(&StartError::Passed(error)),
    };
    if cli.check {
        let report = check::check(&cli, &sockets);
        let printed = print(report.to_string().as_bytes());
        return if report.would_start() { printed } else { ExitCode::FAILURE };
    }
    let log = Log::start(&cli);
    match run(cli, sockets, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// To standard output; whoever reads it may have gone.
fn print(text: &[u8]) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// 2 for what flags or the file got wrong, 1 for what the machine has too little of.
fn failed(error: &StartError) -> ExitCode {
    eprintln!("stentor: {error}");
    match error {
        StartError::Thread { .. } | StartError::Descriptor(_) => ExitCode::FAILURE,
        _ => ExitCode::from(2),
    }
}

fn run(mut cli: Cli, sockets: Vec<Socket>, log: &Log) -> Result<(), StartError> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds `asked` false and sets it, the second ends the process at once.
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&asked))?;
        flag::register(signal, Arc::clone(&asked))?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    // Without a file there is nothing to read again, and a terminal that is closed ends its programs by the same signal.
    if cli.config_file.is_some() {
        signals.add_signal(SIGHUP)?;
    }
    let dropped = log.dropped.clone();
    let builder = Server::builder().config(cli.config.clone()).sockets(sockets);
    let mut server = builder.log_dropped(move || dropped.dropped_lines() as u64).start()?;
    for address in server.addresses() {
        tracing::info!("listening on http://{address}/ (subscribe at ws://{address}/ws)");
    }
    if let Some(address) = server.admin_address() {
        tracing::info!("for operators: http://{address}/ (health, metrics, who is slow)");
    }
    for signal in signals.forever() {
        match signal {
            SIGHUP => reload(&mut cli, &mut server, log),
            _ => break,
        }
    }
    server.stop();
    Ok(())
}

/// Reads flags, environment and file again, and takes over what can change while the server runs. After any mistake nothing
/// has changed.
fn reload(cli: &mut Cli, server: &mut Server, log: &Log) {
    let wanted = match cli::parse_from(std::env::args_os()) {
        Ok(wanted) => wanted,
        Err(error) => {
            let text = error.to_string();
            let lines = text.lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>();
            let why = lines.join("; ");
            return tracing::error!("nothing was reloaded: {}", why.trim_start_matches("error: "));
        }
    };
    if let Err(error) = server.reload(&wanted.config) {
        return tracing::error!("nothing was reloaded: {error}");
    }
    log.set_level(&wanted.log_level);
    let is_live = |name: &str| name == "log-level" || LIVE.iter().any(|field| field.replace('_', "-") == name);
    let mut in_force = cli.settings.clone();
    for (setting, (now, wanted)) in in_force.0.iter_mut().zip(cli.settings.0.iter().zip(&wanted.settings.0)) {
        if is_live(&wanted.name) {
            *setting = wanted.clone();
        }
        if now.differs(wanted) {
            let (name, from, to) = (&now.name, now.value(), wanted.value());
            match is_live(name) {
                true => tracing::info!(name, from, to, source = wanted.source, "changed"),
                false => tracing::warn!(name, from, to, source = wanted.source, "needs a restart"),
            }
        }
    }
    cli.settings = in_force;
    tracing::info!("reloaded");
}

/// The log: events go to standard error from a thread of their own, so that a slow terminal or pipe never holds up a worker;
/// what comes faster than it can be written is dropped, and counted by the writer.
struct Log {
    set_level: Box<dyn Fn(&LogLevel)>,
    dropped: ErrorCounter,
    writer: Writer,
}

/// Whoever drops the guard waits, for a second at most, until all events are written.
type Writer = Arc<Mutex<Option<WorkerGuard>>>;

impl Log {
    fn start(cli: &Cli) -> Log {
        const NAME: &str = "log";
        // The writer panics where its thread can't be started, and for no other reason.
        let failure = StartError::thread(NAME.into(), &cli.config, Errno::AGAIN.into());
        std::panic::set_hook(Box::new(move |_| {
            failed(&failure);
            process::exit(1);
        }));
        let (writer, guard) = NonBlockingBuilder::default().thread_name(NAME).finish(std::io::stderr());
        let guard: Writer = Arc::new(Mutex::new(Some(guard)));
        let held = Arc::clone(&guard);
        panic::end_process(cli.log_format, move || flush(&held));
        let dropped = writer.error_counter();
        let log = tracing_subscriber::fmt().with_env_filter(cli.log_level.filter()).with_writer(writer);
        // An error here would mean that the subscriber is gone; it stays as long as the process.
        let set_level: Box<dyn Fn(&LogLevel)> = match cli.log_format {
            LogFormat::Text => {
                let log = log.with_ansi(std::io::stderr().is_terminal()).with_target(false).with_filter_reloading();
                let handle = log.reload_handle();
                log.init();
                Box::new(move |level| drop(handle.reload(level.filter())))
            }
            LogFormat::Json => {
                let log = log.json().flatten_event(true).with_filter_reloading();
                let handle = log.reload_handle();
                log.init();
                Box::new(move |level| drop(handle.reload(level.filter())))
            }
        };
        Log { set_level, dropped, writer: guard }
    }

    fn set_level(&self, level: &LogLevel) {
        (self.set_level)(level);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        flush(&self.writer);
    }
}

fn flush(writer: &Writer) {
    drop(writer.lock().ok().and_then(|mut writer| writer.take()));
}
