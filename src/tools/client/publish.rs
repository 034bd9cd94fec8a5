//! `stentor pub`: publishes an argument, lines of standard input, or a file.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Value, value::RawValue};
use stentor_client::{Event, Receipt};

use super::{Connect, Failure, Next, Session, hinted, split_url};

/// Publications that may wait for their answers.
const UNANSWERED_MAX: usize = 256;

/// The longest line that is read; what a server takes is its own affair.
const LINE_MAX: u64 = 16 << 20;

/// Time for the last answers, and for a server that isn't there any more to come back.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `stentor pub` is told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The server [default: ws://127.0.0.1:9001/ws], the topic, and what to publish: JSON or else text; - or nothing for the lines of standard input, each one publication
    #[arg(value_name = "[URL] TOPIC [DATA|-]", required = true, num_args = 1..=3)]
    pub what: Vec<String>,

    /// Publish what is in this file, as one publication
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// It is text, whatever it looks like
    #[arg(long)]
    pub text: bool,

    /// Of lines: at most so many a second
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub rate: Option<f64>,

    /// Print the number and the time that each was given, as a JSON object a line
    #[arg(long)]
    pub receipts: bool,

    /// How to reach the server.
    #[command(flatten)]
    pub connect: Connect,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "expected a number, such as 100".to_owned())?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("expected more than 0".into()) }
}

/// What is published of a text: the JSON that it is, or a JSON string.
fn payload(text: &str, is_text: bool) -> String {
    let json = serde_json::from_str::<&RawValue>(text).ok().filter(|_| !is_text);
    json.map_or_else(|| Value::from(text).to_string(), |json| json.get().to_owned())
}

/// Publications that were sent.
struct Sent {
    session: Session,
    /// Those without an answer, and the lines they were.
    waiting: BTreeMap<u64, u64>,
    receipts: bool,
    refused: u64,
    unknown: u64,
}

impl Sent {
    fn publish(&mut self, topic: &str, json: &str, line: u64) -> Result<bool, Failure> {
        while self.waiting.len() >= UNANSWERED_MAX {
            if !self.heed(Instant::now() + PATIENCE)? {
                return Ok(false);
            }
        }
        // What became of others is heeded meanwhile.
        while !self.session.client.is_open() {
            if !self.heed(Instant::now() + PATIENCE)? {
                return Ok(false);
            }
        }
        match self.session.client.publish(topic, json) {
            Ok(ticket) => _ = self.waiting.insert(ticket, line),
            Err(error) => self.not_taken(line, &error.to_string()),
        }
        Ok(true)
    }

    fn not_taken(&mut self, line: u64, why: &str) {
        self.refused += 1;
        // The first say what is wrong.
        if self.refused <= 10 {
            self.session.say(&format!("line {line} was not published: {why}"));
        }
    }

    /// Heeds what comes next, or that nothing does until then; whether it may go on.
    fn heed(&mut self, until: Instant) -> Result<bool, Failure> {
        match self.session.look(Some(until))? {
            Some(Next::Event(Event::Published { ticket, outcome })) => {
                let line = self.waiting.remove(&ticket).unwrap_or_default();
                match outcome {
                    Ok(receipt) if self.receipts => print(&receipt)?,
                    Ok(_) => {}
                    Err(error) if error.code == "disconnected" => self.unknown += 1,
                    Err(error) => self.not_taken(line, &error.to_string()),
                }
                Ok(true)
            }
            Some(Next::Interrupted) => Ok(false),
            Some(Next::Nothing | Next::Event(_)) | None => Ok(true),
        }
    }

    /// Waits for the answers that are missing.
    fn end(mut self) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        while !self.waiting.is_empty() && Instant::now() < until {
            if !self.heed(until)? {
                break;
            }
        }
        let unknown = self.unknown + self.waiting.len() as u64;
        // Where there is a reason why nothing more will come, such as a wrong token, that is what is said.
        while unknown > 0 && self.session.client.is_over() {
            if let Next::Interrupted = self.session.next(Some(Instant::now()))? {
                break;
            }
        }
        self.session.client.close();
        match (self.refused, unknown) {
            (0, 0) => Ok(()),
            (0, unknown) => Err(Failure::Unreachable(format!("nobody knows whether {} published", were(unknown)))),
            (refused, _) => Err(Failure::Refused(format!("{} not published", were(refused)))),
        }
    }
}

/// So many, as the beginning of a sentence about them.
fn were(count: u64) -> String {
    if count == 1 { "1 was".into() } else { format!("{count} were") }
}

fn print(receipt: &Receipt) -> io::Result<()> {
    let Receipt { topic, seq, ts } = receipt;
    writeln!(io::stdout(), r#"{{"topic":{},"seq":{seq},"ts":{ts}}}"#, Value::from(topic.as_str()))
}

/// Publishes, and ends when the server has answered for all.
///
/// # Errors
/// See the module above.
pub fn run(options: &Options) -> Result<(), Failure> {
    let (url, rest) = split_url(&options.what);
    let (topic, data) = match (rest, &options.file) {
        ([topic], _) => (topic, None),
        ([topic, data], None) => (topic, Some(data.as_str()).filter(|data| *data != "-")),
        ([_, _], Some(_)) => {
            return Err(Failure::Usage("--file: what to publish was given on the command line as well".into()));
        }
        _ => return Err(Failure::Usage("expected [URL] TOPIC [DATA|-]".into())),
    };
    let mut one = data.map(str::to_owned);
    if let Some(path) = &options.file {
        let wrong = |error: &dyn std::fmt::Display| Failure::Usage(format!("--file {}: {error}", path.display()));
        let bytes = std::fs::read(path).map_err(|error| wrong(&error))?;
        one = Some(String::from_utf8(bytes).map_err(|error| wrong(&format!("expected text (UTF-8): {error}")))?);
    }
    hinted(all(options, url, topic, one), url, rest)
}

/// Publishes that, or the lines of standard input.
fn all(options: &Options, url: Option<&str>, topic: &str, one: Option<String>) -> Result<(), Failure> {
    let session = Session::open(url, &options.connect, "pub")?;
    let mut sent = Sent { session, waiting: BTreeMap::new(), receipts: options.receipts, refused: 0, unknown: 0 };
    if let Some(text) = one {
        sent.publish(topic, &payload(&text, options.text), 1)?;
        return sent.end();
    }
    let mut input = io::stdin().lock();
    let begun = Instant::now();
    let mut line = Vec::new();
    for nth in 1u64.. {
        line.clear();
        let wrong = |error: &dyn std::fmt::Display| Failure::Usage(format!("standard input, line {nth}: {error}"));
        let len = (&mut input).take(LINE_MAX).read_until(b'\n', &mut line).map_err(|error| wrong(&error))?;
        if len == 0 {
            break;
        }
        if len as u64 == LINE_MAX && !line.ends_with(b"\n") {
            return Err(wrong(&format!("expected at most {LINE_MAX} bytes")));
        }
        let text = str::from_utf8(&line).map_err(|error| wrong(&format!("expected text (UTF-8): {error}")))?;
        let text = text.trim_end_matches(['\n', '\r']);
        if let Some(rate) = options.rate {
            let due = begun + Duration::from_secs_f64((nth - 1) as f64 / rate);
            while Instant::now() < due {
                if !sent.heed(due)? {
                    return sent.end();
                }
            }
        }
        if !sent.publish(topic, &payload(text, options.text), nth)? {
            break;
        }
        // Answers that are there are taken along.
        while !sent.waiting.is_empty() && sent.waiting.len().is_multiple_of(64) {
            let before = sent.waiting.len();
            if !sent.heed(Instant::now())? || sent.waiting.len() == before {
                break;
            }
        }
    }
    sent.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_json_is_published_as_it_stands_and_all_else_as_text() {
        for (text, is_text, published) in [
            (r#"{"a": 1.50}"#, false, r#"{"a": 1.50}"#),
            ("7", false, "7"),
            ("7", true, r#""7""#),
            ("hello", false, r#""hello""#),
            ("08", false, r#""08""#),
            ("", false, r#""""#),
            ("a\"b", false, r#""a\"b""#),
        ] {
            assert_eq!(payload(text, is_text), published);
        }
    }
}
