//! `stentor top`: a running server, live in a terminal.
//!
//! Reads `/metrics` and `/debug/slow` of a server over HTTP, with TLS or without, as any operator could, and shows what happens between two
//! readings and who is behind. A thread fetches, so that a server that doesn't answer never holds up the keys; the
//! terminal is drawn when something has changed. Where the output is no terminal, or with `--once`, one frame is printed as
//! plain text.
//!
//! | file | holds |
//! | --- | --- |
//! | `fetch` | one GET, bounded in size and time |
//! | `figures` | from two scrapes to rates and percentiles |
//! | `slow` | the list of those behind, its columns and their order |
//! | `view` | a frame: figures and list as lines of text |
//! | `text` | numbers, sizes and times as people read them |
//! | `screen` | the terminal |
//! | `end` | signals, and a terminal that is gone |

mod end;
mod fetch;
mod figures;
mod screen;
mod slow;
mod text;
mod view;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use crossbeam_channel::{Receiver, Sender, bounded};

use self::{
    fetch::Asker,
    figures::{Figures, Scrape},
    screen::{Asked, Screen},
    slow::{Order, SlowList},
    view::View,
};
pub use self::{
    fetch::{FetchError, Target},
    slow::Column,
};
use crate::config::{Secret, Span};

/// What `stentor top` is told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The server; https:// for its --tls-listen
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:9001/")]
    pub url: Target,

    /// Time between two readings
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub interval: Span,

    /// Print one frame as plain text, and exit; so it is where the output is no terminal
    #[arg(long)]
    pub once: bool,

    /// Order of the slow list: the column that the worst are first by
    #[arg(long, value_name = "COLUMN", default_value = "behind")]
    pub sort: Column,

    /// The server's --admin-token; where it has none, its --publish-token, if it has that
    ///
    /// Without either, a server that has an --admin-token shows nothing, and one that has a --publish-token no clients.
    #[arg(long, value_name = "TOKEN", env = "STENTOR_ADMIN_TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,

    /// With https://: PEM file of certificates that are trusted, such as its --tls-self-signed has [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// With https://: trust whoever answers. Don't show a token then
    #[arg(long, conflicts_with = "tls_ca")]
    pub insecure: bool,
}

impl Options {
    fn asker(&self) -> Result<Asker, FetchError> {
        let publishing = || std::env::var("STENTOR_PUBLISH_TOKEN").ok()?.parse().ok();
        let token = self.token.clone().or_else(publishing);
        Asker::new(self.url.clone(), token, self.tls_ca.as_deref(), self.insecure)
    }
}

/// A server makes its figures four times a second at most.
fn interval(text: &str) -> Result<Span, String> {
    let span: Span = text.parse()?;
    let (least, most) = (Duration::from_millis(250), Duration::from_secs(3600));
    if (least..=most).contains(&span.get()) { Ok(span) } else { Err(format!("expected 250ms to 1h; found {text}")) }
}

/// What was read of the server at one time.
struct Reading {
    scrape: Scrape,
    slow: Result<SlowList, String>,
}

/// Runs until it is asked to end, or makes one frame and returns it, to be printed.
///
/// # Errors
/// With one frame: the server can't be read. Live, that is shown and tried again; then only the terminal can fail.
pub fn run(options: &Options) -> Result<Option<String>, FetchError> {
    if options.once || !io::stdout().is_terminal() {
        return once(options).map(Some);
    }
    // Whom to trust is known before the terminal is touched.
    match live(options, options.asker()?) {
        Err(_) if end::is_terminal_gone() => Ok(None),
        other => other.map(|()| None).map_err(FetchError::Terminal),
    }
}

/// One frame as text: what happened within one interval.
fn once(options: &Options) -> Result<String, FetchError> {
    let asker = options.asker()?;
    let before = read_figures(&asker)?;
    thread::sleep(options.interval.get());
    let after = read_figures(&asker)?;
    let mut view = View::new(options.url.to_string(), Order::by(options.sort));
    view.take(Figures::between(&before, &after), read_slow(&asker)?);
    Ok(view.plain())
}

/// Draws until somebody has seen enough.
fn live(options: &Options, asker: Asker) -> io::Result<()> {
    let readings = start_reading(asker, options.interval)?;
    let mut screen = Screen::open()?;
    let mut view = View::new(options.url.to_string(), Order::by(options.sort));
    let mut before: Option<Scrape> = None;
    loop {
        screen.draw(&view)?;
        loop {
            match screen.asked()? {
                Some(Asked::Quit) => return Ok(()),
                Some(Asked::Pause) => view.is_paused = !view.is_paused,
                Some(Asked::Next) => view.order.next(),
                Some(Asked::Previous) => view.order.previous(),
                Some(Asked::Reverse) => view.order.reverse(),
                Some(Asked::Stop) => screen::stop(),
                Some(Asked::Draw) => {}
                None => match readings.try_recv() {
                    Ok(_) if view.is_paused => continue,
                    Ok(Ok(Reading { scrape, slow })) => {
                        view.take(Figures::between(before.as_ref().unwrap_or(&scrape), &scrape), slow);
                        before = Some(scrape);
                    }
                    Ok(Err(error)) => {
                        view.fail(error.to_string());
                        before = None;
                    }
                    Err(_) => continue,
                },
            }
            break;
        }
    }
}

/// Reads in a thread of its own, which ends with the process, or when nobody takes its readings.
fn start_reading(asker: Asker, interval: Span) -> io::Result<Receiver<Result<Reading, FetchError>>> {
    let (sender, receiver) = bounded(1);
    let started = thread::Builder::new().name("top-read".into()).spawn(move || read_on(&asker, interval, &sender));
    started.map_err(|cause| io::Error::other(format!("the thread that reads could not be started: {cause}")))?;
    Ok(receiver)
}

fn read_on(asker: &Asker, interval: Span, sender: &Sender<Result<Reading, FetchError>>) {
    let mut due = Instant::now();
    let mut refused = None;
    while sender.send(read(asker, &mut refused)).is_ok() {
        // At its times, and without hurry after a delay.
        due = (due + interval.get()).max(Instant::now());
        thread::sleep(due - Instant::now());
    }
}

/// Reads both. Where the list was once refused, it is not asked for again: each time would count as one more refusal.
fn read(asker: &Asker, refused: &mut Option<String>) -> Result<Reading, FetchError> {
    let scrape = read_figures(asker)?;
    let slow = match refused {
        Some(why) => Err(why.clone()),
        None => read_slow(asker)?,
    };
    *refused = slow.as_ref().err().cloned();
    Ok(Reading { scrape, slow })
}

fn read_figures(asker: &Asker) -> Result<Scrape, FetchError> {
    let text = asker.get("/metrics")?;
    Ok(Scrape::parse(&text, Instant::now()))
}

/// The list, or why there is none: the figures are for everybody, the clients are not.
fn read_slow(asker: &Asker) -> Result<Result<SlowList, String>, FetchError> {
    match asker.get("/debug/slow") {
        Ok(json) => Ok(SlowList::parse(&json)),
        Err(FetchError::Status { status, sentence, .. }) => Ok(Err(format!("{status}: {sentence}"))),
        Err(other) => Err(other),
    }
}
