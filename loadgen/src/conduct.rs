//! Conducting: how one or several processes of a run agree when it starts and what was published.
//!
//! Alone, there is nothing to agree on. With `--processes`, part 0 publishes and conducts: it starts the others as
//! children, which say one line when their subscribers are up, hear the moment of the start on their standard input,
//! and at the end the last number of each topic, so that they too know what is missing.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{clock, output::terminal::print};

/// Time between the agreement to start and the start.
const LEAD_NS: u64 = 100_000_000;

/// Agrees with whoever else takes part.
pub trait Conduct {
    /// This part's subscribers are up; returns the moment of the start.
    fn ready(&mut self) -> Result<u64>;
    /// The last number of each topic: told by the part that publishes, filled in for the others.
    fn published(&mut self, last: &mut [u32]) -> Result<()>;
}

/// The only process of a run.
pub struct Solo;

impl Conduct for Solo {
    fn ready(&mut self) -> Result<u64> {
        Ok(clock::now() + LEAD_NS / 5)
    }

    fn published(&mut self, _: &mut [u32]) -> Result<()> {
        Ok(())
    }
}

/// The process that publishes, with its children.
pub struct Conductor {
    parts: Vec<PartProcess>,
}

struct PartProcess {
    child: Child,
    say: ChildStdin,
    hear: Lines<BufReader<ChildStdout>>,
}

impl Conductor {
    /// Starts this very program again, once per further part, with `--part` added to `arguments`.
    pub fn start(arguments: &[String], parts: usize) -> Result<Self> {
        let program = std::env::current_exe().context("looking for this program")?;
        let start = |index: usize| -> Result<PartProcess> {
            let mut child = Command::new(&program)
                .args(arguments)
                .arg(format!("--part={index}/{parts}"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("starting a further process")?;
            let say = child.stdin.take().context("a child without standard input")?;
            let hear = BufReader::new(child.stdout.take().context("a child without standard output")?).lines();
            Ok(PartProcess { child, say, hear })
        };
        Ok(Self { parts: (1..parts).map(start).collect::<Result<_>>()? })
    }

    /// Waits for the results of all parts: one line of JSON each.
    pub fn results(mut self) -> Result<Vec<String>> {
        let mut results = Vec::new();
        for part in &mut self.parts {
            results.push(part.line().context("waiting for the result of a part")?);
            part.child.wait().context("waiting for a part to end")?;
        }
        Ok(results)
    }
}

impl PartProcess {
    fn line(&mut self) -> Result<String> {
        match self.hear.next() {
            Some(line) => Ok(line?),
            None => bail!("it ended before it was done"),
        }
    }

    fn tell(&mut self, text: &str) -> Result<()> {
        writeln!(self.say, "{text}").context("telling a part")?;
        self.say.flush().context("telling a part")
    }
}

impl Conduct for Conductor {
    fn ready(&mut self) -> Result<u64> {
        for part in &mut self.parts {
            let line = part.line().context("waiting for the subscribers of a part")?;
            ensure!(line == "ready", "a part could not be set up: {line}");
        }
        let start = clock::now() + LEAD_NS;
        for part in &mut self.parts {
            part.tell(&start.to_string())?;
        }
        Ok(start)
    }

    fn published(&mut self, last: &mut [u32]) -> Result<()> {
        let text: Vec<String> = last.iter().map(u32::to_string).collect();
        self.parts.iter_mut().try_for_each(|part| part.tell(&text.join(" ")))
    }
}

impl Drop for Conductor {
    /// A part that is given up sees its standard input end, and ends; nobody is left behind.
    fn drop(&mut self) {
        for mut part in self.parts.drain(..) {
            drop(part.say);
            let _ = part.child.wait();
        }
    }
}

/// A process that another one conducts.
pub struct Part<R> {
    hear: Lines<R>,
}

impl<R: BufRead> Part<R> {
    /// Hears the conductor on `hear`, and speaks on standard output.
    pub fn new(hear: R) -> Self {
        Self { hear: hear.lines() }
    }

    fn line(&mut self) -> Result<String> {
        Ok(self.hear.next().context("the conducting process has gone")??)
    }
}

impl<R: BufRead> Conduct for Part<R> {
    fn ready(&mut self) -> Result<u64> {
        print("ready\n")?;
        self.line()?.parse().context("reading the moment of the start")
    }

    fn published(&mut self, last: &mut [u32]) -> Result<()> {
        let line = self.line()?;
        let numbers: Vec<u32> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        ensure!(numbers.len() == last.len(), "told of {} topics, expected {}", numbers.len(), last.len());
        last.copy_from_slice(&numbers);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_hears_the_start_and_what_was_published() {
        let mut part = Part::new(&b"12345\n7 9\n"[..]);
        assert_eq!(part.ready().unwrap(), 12345);
        let mut last = [0, 0];
        part.published(&mut last).unwrap();
        assert_eq!(last, [7, 9]);
        assert!(part.published(&mut last).unwrap_err().to_string().contains("has gone"));
    }

    #[test]
    fn a_start_alone_is_soon_and_in_the_future() {
        let now = clock::now();
        assert!((now..now + 1_000_000_000).contains(&Solo.ready().unwrap()));
    }
}
