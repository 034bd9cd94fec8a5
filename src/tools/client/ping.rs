//! `stentor ping`: there and back, through the protocol.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use clap::Args;
use stentor_client::Event;

use super::{Connect, Failure, Next, Session};
use crate::config::Span;

/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `stentor ping` is told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The server [default: ws://127.0.0.1:9001/ws]
    #[arg(value_name = "URL")]
    pub url: Option<String>,

    /// How often
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub count: u64,

    /// Time between two
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub interval: Span,

    /// How to reach the server.
    #[command(flatten)]
    pub connect: Connect,
}

/// Asks, and prints how long each answer took, and the least, the middle and the most.
///
/// # Errors
/// See the module above.
pub fn run(options: &Options) -> Result<(), Failure> {
    let mut session = Session::open(options.url.as_deref(), &options.connect, "ping")?;
    let begun = Instant::now();
    if let Next::Interrupted = session.greeted(Some(begun + PATIENCE))? {
        return Ok(());
    }
    if !session.client.is_open() {
        return Err(Failure::Unreachable(format!("no greeting within {} s", PATIENCE.as_secs())));
    }
    writeln!(io::stdout(), "connected in {:.3} ms", begun.elapsed().as_secs_f64() * 1000.0)?;
    let mut times = Vec::new();
    let mut interrupted = false;
    for nth in 1..=options.count {
        let sent = Instant::now();
        let ticket = session.client.ping().map_err(|error| Failure::Unreachable(error.to_string()))?;
        loop {
            match session.next(Some(sent + PATIENCE))? {
                Next::Event(Event::Pong { ticket: answered }) if answered == ticket => {
                    times.push(sent.elapsed().as_secs_f64() * 1000.0);
                    writeln!(io::stdout(), "{nth}: {:.3} ms", times.last().copied().unwrap_or_default())?;
                    break;
                }
                Next::Interrupted => interrupted = true,
                Next::Nothing => session.say(&format!("{nth}: no answer within {} s", PATIENCE.as_secs())),
                Next::Event(_) => continue,
            }
            break;
        }
        let rest = sent + options.interval.get();
        while !interrupted && nth < options.count && Instant::now() < rest {
            interrupted = matches!(session.next(Some(rest))?, Next::Interrupted);
        }
        if interrupted {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (times.first(), times.last()) {
        let middle = times[times.len() / 2];
        writeln!(
            io::stdout(),
            "{} answers: least {least:.3} ms, median {middle:.3} ms, most {most:.3} ms",
            times.len()
        )?;
    }
    session.client.close();
    match (times.len() as u64, interrupted) {
        (answers, false) if answers < options.count => {
            Err(Failure::TooFew(format!("{answers} of {} answers came", options.count)))
        }
        _ => Ok(()),
    }
}
