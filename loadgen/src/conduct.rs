//! Conducting: how one or several processes of a run agree when it starts and what was published.
//!
//! Alone, there is nothing to agree on. With `--processes`, part 0 publishes and conducts: it starts the others as
//! children, which hear on their standard input what they are to do, all of it resolved; say one line when their
//! subscribers are up; hear the moment of the start, and at the end the last number of each topic, so that they too
//! know what is missing.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{clock, output::terminal::print, spec::Spec};

/// Time between the agreement to start and the start.
const LEAD_NS: u64 = 100_000_000;

/// What a further process of a run is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// The server.
    pub url: String,
    /// Which target of the session that is.
    pub label: String,
    /// The run's number, which payloads carry.
    pub run: u32,
    /// All settings, with the part that it is.
    pub spec: Spec,
}

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
    /// Starts this very program again, once for each assignment.
    pub fn start(assignments: &[Assignment]) -> Result<Self> {
        let program = std::env::current_exe().context("looking for this program")?;
        let start = |assignment: &Assignment| -> Result<PartProcess> {
            let mut child = Command::new(&program)
                .arg("part")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("starting a further process")?;
            let say = child.stdin.take().context("a child without standard input")?;
            let hear = BufReader::new(child.stdout.take().context("a child without standard output")?).lines();
            let mut part = PartProcess { child, say, hear };
            part.tell(&serde_json::to_string(assignment)?)?;
            Ok(part)
        };
        Ok(Self { parts: assignments.iter().map(start).collect::<Result<_>>()? })
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
    /// Hears the conductor on `hear`, and first what it is to do; speaks on standard output.
    ///
    /// # Errors
    /// Nobody is there, or what it says is no assignment.
    pub fn assigned(hear: R) -> Result<(Assignment, Self)> {
        let mut part = Self { hear: hear.lines() };
        let assignment = serde_json::from_str(&part.line()?).context("reading what this process is to do")?;
        Ok((assignment, part))
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
        let mut part = Part { hear: BufRead::lines(&b"12345\n7 9\n"[..]) };
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
