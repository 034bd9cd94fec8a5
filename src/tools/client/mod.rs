//! `stentor sub`, `pub`, `record`, `replay` and `ping`: a client for a shell.
//!
//! They speak to a server as the crate `stentor-client` does, which is in this project as well: they come back after a loss, go on where they were, and say what didn't come. What they
//! print goes to standard output; what they have to say about it to standard error.
//!
//! | file | holds |
//! | --- | --- |
//! | `sub` | what is published, as lines or a table |
//! | `publish` | publishing an argument, lines, a file |
//! | `record` | a recording for `--replay` |
//! | `replay` | playing one to a server |
//! | `ping` | there and back |
//! | `line` | a publication as a line of text |
//!
//! Exit codes, the same for all: 0 it did what it was asked; 1 the server couldn't be reached, or was lost for good; 2 the command line; 3 the server refused; 4 less came than
//! was asked for (`--count` within `--for`).

mod line;
pub mod ping;
pub mod publish;
pub mod record;
pub mod replay;
pub mod sub;

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use stentor_client::{Client, Event, Gap, Options, Reset, Status, Token, address};

use super::trust;
use crate::config::Secret;

/// Where a server is that nobody named.
const HERE: &str = "ws://127.0.0.1:9001/ws";

/// How long until it is looked again whether somebody wants the end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How to reach a server.
#[derive(Args, Clone, Debug)]
pub struct Connect {
    /// The token to show
    #[arg(long, value_name = "TOKEN", env = "STENTOR_TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,

    /// With wss://: PEM file of certificates that are trusted, such as its --tls-self-signed has [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// With wss://: trust whoever answers. Don't show a token then
    #[arg(long, conflicts_with = "tls_ca")]
    pub insecure: bool,

    /// Try until the server is there, rather than fail if it isn't at the beginning
    #[arg(long)]
    pub wait: bool,
}

/// Why it ends otherwise than it should.
#[derive(Debug)]
pub enum Failure {
    /// The server can't be reached, or was lost for good.
    Unreachable(String),
    /// The command line: what it names can't be read, or is none.
    Usage(String),
    /// The server refused.
    Refused(String),
    /// Less came than was asked for.
    TooFew(String),
    /// What is printed can't be written; nothing is said where whoever read it has had enough.
    Output(io::Error),
}

impl Failure {
    /// What the program ends with, after a word about it.
    pub fn end(&self, task: &str) -> ExitCode {
        let code = match self {
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Failure::Unreachable(_) | Failure::Output(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Refused(_) => 3,
            Failure::TooFew(_) => 4,
        };
        let _ = writeln!(io::stderr(), "stentor {task}: {self}");
        ExitCode::from(code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreachable(text) | Failure::Usage(text) | Failure::Refused(text) | Failure::TooFew(text) => {
                f.write_str(&shown(text))
            }
            Failure::Output(error) => write!(f, "what is printed can't be written: {error}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}

/// A client of one server, for a program that says what becomes of it.
struct Session {
    client: Client,
    task: &'static str,
    waits: bool,
    was_open: bool,
    is_quiet: bool,
    /// What keeps it waiting, as it was said last.
    waits_for: String,
    interrupted: Arc<AtomicBool>,
}

/// What a session comes to next.
enum Next {
    Event(Event),
    /// Nothing until the moment that was named.
    Nothing,
    /// A signal asked for the end.
    Interrupted,
}

impl Session {
    /// A session with this server, or the one on this machine.
    fn open(url: Option<&str>, connect: &Connect, task: &'static str) -> Result<Session, Failure> {
        let url = address(url.unwrap_or(HERE)).map_err(|error| Failure::Usage(shown(&error.message)))?;
        let mut options = Options::new([url.as_str()]);
        options.token = connect.token.as_ref().map(|token| Token::Word(token.expose().to_owned()));
        if url.starts_with("wss://") {
            let trusted = trust::client(connect.tls_ca.as_deref(), connect.insecure).map_err(Failure::Usage)?;
            options.tls = Some(Arc::new(trusted));
        }
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // A second one is heeded at once.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&interrupted))
                .and_then(|_| flag::register(signal, Arc::clone(&interrupted)))
                .map_err(Failure::Output)?;
        }
        let client = Client::new(options).map_err(|error| Failure::Usage(error.message))?;
        Ok(Session {
            client,
            task,
            waits: connect.wait,
            was_open: false,
            is_quiet: false,
            waits_for: String::new(),
            interrupted,
        })
    }

    /// What comes next, if it does until then. What is to be said of the connection is said, and refusals are failures.
    fn next(&mut self, until: Option<Instant>) -> Result<Next, Failure> {
        loop {
            if let Some(next) = self.look(until)? {
                return Ok(next);
            }
        }
    }

    /// Waits until there is a connection, and the server has greeted.
    fn greeted(&mut self, until: Option<Instant>) -> Result<Next, Failure> {
        while !self.client.is_open() {
            if let Some(next) = self.look(until)? {
                return Ok(next);
            }
        }
        Ok(Next::Nothing)
    }

    /// What comes next, or nothing if it is to be looked again.
    fn look(&mut self, until: Option<Instant>) -> Result<Option<Next>, Failure> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Ok(Some(Next::Interrupted));
        }
        let look = Instant::now() + LOOK_EVERY;
        let event = self.client.next_until(until.map_or(look, |until| until.min(look))).map_err(|error| match error
            .code
            .as_str()
        {
            "unauthorized" | "refused" => Failure::Refused(error.message),
            _ => Failure::Unreachable(error.to_string()),
        })?;
        match event {
            Some(Event::Status(status)) => self.tell(&status),
            Some(Event::Refused { error, names }) => {
                return Err(Failure::Refused(format!("{error} ({})", names.join(", "))));
            }
            Some(event) => return Ok(Some(Next::Event(event))),
            None => {
                self.judge_trouble()?;
                if until.is_some_and(|until| Instant::now() >= until) {
                    return Ok(Some(Next::Nothing));
                }
            }
        }
        Ok(None)
    }

    /// Before the first connection: what is in its way ends it, or is said, once, if it is to wait.
    fn judge_trouble(&mut self) -> Result<(), Failure> {
        let trouble = self.client.trouble();
        if self.was_open || trouble.is_empty() || trouble == self.waits_for {
            return Ok(());
        }
        let said = advised(trouble);
        if !self.waits {
            return Err(Failure::Unreachable(said));
        }
        self.waits_for = trouble.to_owned();
        self.say(&format!("{said}; waiting"));
        Ok(())
    }

    fn tell(&mut self, status: &Status) {
        match status.code.as_str() {
            "connected" if !self.was_open => self.was_open = true,
            "connected" => self.say("connected again"),
            // Who doesn't come back has another word to say.
            "lost" if self.client.is_over() => {}
            "lost" => self.say(&format!("{}; coming back", status.message)),
            // What the token is to be is for whoever started this to say.
            "token_expiring" | "gap" => {}
            code => {
                let topics =
                    if status.topics.is_empty() { String::new() } else { format!(" {}", status.topics.join(", ")) };
                let message = if status.message.is_empty() { String::new() } else { format!(": {}", status.message) };
                self.say(&format!("{code}{topics}{message}"));
            }
        }
    }

    fn gap(&self, gap: &Gap) {
        let Gap { topic, first, last, why, .. } = gap;
        let which = if first == last { format!("{first} is") } else { format!("{first} to {last} are") };
        self.say(&format!("gap: {topic}: {which} not coming ({why})"));
    }

    fn reset(&self, reset: &Reset) {
        self.say(&format!("reset: {} begins anew ({})", reset.topic, reset.why));
    }

    /// A line to standard error.
    fn say(&self, text: &str) {
        if !self.is_quiet {
            let _ = writeln!(io::stderr(), "stentor {}: {}", self.task, shown(text));
        }
    }
}

/// Text of somebody else's, for a terminal: control characters are escaped, so that it says nothing to that.
fn shown(text: &str) -> String {
    if !io::stderr().is_terminal() && !text.contains(['\n', '\r', '\x1b']) {
        return text.to_owned();
    }
    line::escaped(text)
}

/// The address and what is behind it, of arguments of which the first may be one.
fn split_url(arguments: &[String]) -> (Option<&str>, &[String]) {
    match arguments {
        [url, rest @ ..] if url.contains("://") => (Some(url), rest),
        all => (None, all),
    }
}

/// Behind the trouble with a server that nobody named: that the first name looks as if it were to be the address, which it can't be told from.
fn hinted(outcome: Result<(), Failure>, url: Option<&str>, names: &[String]) -> Result<(), Failure> {
    let is_address = |name: &&String| {
        let port = name.rsplit_once(':').map(|(_, port)| port);
        port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match (outcome, names.first().filter(is_address)) {
        (Err(Failure::Unreachable(said)), Some(name)) if url.is_none() => {
            Err(Failure::Unreachable(format!("{said}; if {name} is to be the address, write ws://{name}")))
        }
        (outcome, _) => outcome,
    }
}

/// What was said of a connection that failed, with what would do behind it where a flag of ours would.
fn advised(said: &str) -> String {
    if said.ends_with(stentor_client::tls::UNTRUSTED) { format!("{said}: {}", trust::TRUST) } else { said.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_its_scheme_is_taken_for_a_topic_and_told_from_one() {
        let names = |name: &str| vec![name.to_owned()];
        let lost = || Err(Failure::Unreachable("refused".into()));
        let said = |outcome: Result<(), Failure>| outcome.unwrap_err().to_string();
        let hint = "refused; if 10.0.0.1:9001 is to be the address, write ws://10.0.0.1:9001";
        assert_eq!(said(hinted(lost(), None, &names("10.0.0.1:9001"))), hint);
        assert_eq!(said(hinted(lost(), Some("ws://h"), &names("10.0.0.1:9001"))), "refused");
        assert_eq!(said(hinted(lost(), None, &names("q.us.*"))), "refused");
    }
}
