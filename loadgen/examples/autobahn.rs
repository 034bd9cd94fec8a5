//! The load generator's client before a fuzzing server of Autobahn|Testsuite: takes each of its cases and sends back
//! every message that it gets.
//!
//! ```sh
//! cargo run -p loadgen --example autobahn -- ws://127.0.0.1:9001
//! ```

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use loadgen::{
    dial::dial,
    frame::{self, Opcode, Scan},
    message::{Assembly, Event, PROTOCOL_ERROR, Violation},
    target::Url,
};

/// The name in the suite's reports.
const AGENT: &str = "loadgen";

/// What a case may be silent for; the longest of the suite is for a second.
const TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let Some(url) = std::env::args().nth(1) else {
        eprintln!("autobahn: expected the fuzzing server's address, like ws://127.0.0.1:9001");
        return ExitCode::from(2);
    };
    match run(&url) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("autobahn: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(url: &str) -> Result<()> {
    let host = Url::parse(url)?.host;
    let server = Url::parse(url)?.address()?;
    let mut count = Vec::new();
    Session::open(server, &host, "/getCaseCount")?.last(|_, message| {
        count = message.to_vec();
        None
    })?;
    let count: u32 = String::from_utf8(count)?.parse().context("the server's number of cases")?;
    for case in 1..=count {
        let path = format!("/runCase?case={case}&agent={AGENT}");
        let echo = |kind, message: &[u8]| Some((kind, message.to_vec()));
        Session::open(server, &host, &path)?.last(echo).with_context(|| format!("case {case} of {count}"))?;
    }
    Session::open(server, &host, &format!("/updateReports?agent={AGENT}"))?.last(|_, _| None)
}

/// One connection, from its handshake to its end.
struct Session {
    stream: TcpStream,
    pending: Vec<u8>,
    assembly: Assembly,
    closed: bool,
}

impl Session {
    fn open(server: SocketAddr, host: &str, path: &str) -> Result<Self> {
        let (stream, pending) = dial(server, host, path, &[], TIMEOUT)?;
        Ok(Self { stream, pending, assembly: Assembly::default(), closed: false })
    }

    /// Answers messages until the server has ended the connection.
    fn last(mut self, mut answer: impl FnMut(Opcode, &[u8]) -> Option<(Opcode, Vec<u8>)>) -> Result<()> {
        let mut buffer = vec![0; 256 * 1024];
        let mut out = Vec::new();
        loop {
            let taken = self.take(&mut answer, &mut out);
            self.pending.drain(..taken);
            // A server that has gone no longer hears an answer, which shows at the next read.
            let _ = self.stream.write_all(&out);
            out.clear();
            let read = match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset) => return Ok(()),
                Err(error) => return Err(error).context("reading"),
            };
            self.pending.extend_from_slice(&buffer[..read]);
        }
    }

    /// Takes the frames that are there; returns how many bytes they were. What follows a close frame is thrown away.
    fn take(
        &mut self,
        answer: &mut impl FnMut(Opcode, &[u8]) -> Option<(Opcode, Vec<u8>)>,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut at = 0;
        while !self.closed {
            let event = match frame::scan(&self.pending[at..]) {
                Scan::Partial(_) => return at,
                Scan::Wrong(why) => Err(Violation { code: PROTOCOL_ERROR, why }),
                Scan::Frame(frame) => {
                    at += frame.len;
                    self.assembly.take(&frame)
                }
            };
            match event {
                Ok(Event::Nothing) => {}
                Ok(Event::Message(kind, message)) => {
                    if let Some((kind, message)) = answer(kind, &message) {
                        frame::write(kind, &message, out);
                    }
                }
                Ok(Event::Ping(payload)) => frame::write(Opcode::Pong, payload, out),
                Ok(Event::Close(code, _)) => {
                    frame::write_close(code, out);
                    self.closed = true;
                }
                Err(violation) => {
                    frame::write_close(violation.code, out);
                    self.closed = true;
                }
            }
        }
        self.pending.len()
    }
}
