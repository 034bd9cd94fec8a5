//! The load generator's client before a fuzzing server of Autobahn|Testsuite: takes each of its cases and sends back
//! every message that it gets.
//!
//! ```sh
//! cargo run -p loadgen --example autobahn -- ws://127.0.0.1:9001
//! cargo run -p loadgen --example autobahn -- wss://127.0.0.1:9443 ca.pem
//! ```
//!
//! With TLS the second argument is a file of who is trusted; without it, whom the system trusts.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use loadgen::{
    dial::{self, dial},
    frame::{self, Opcode, Scan},
    message::{Assembly, Event, PROTOCOL_ERROR, Violation},
    target::Url,
    tls::{Peer, Settings},
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
    let tls = Settings { ca: std::env::args_os().nth(2).map(Into::into), ..Settings::default() };
    match run(&url, &tls) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("autobahn: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(url: &str, tls: &Settings) -> Result<()> {
    let url = Url::parse(url)?;
    let [peer] = Peer::of(tls, [Some(&url)])?;
    let server = url.address()?;
    let open = |path: &str| Session::open(server, peer.as_ref(), &url.host, path);
    let count = open("/getCaseCount")?.hold(false)?;
    let count: u32 = String::from_utf8(count)?.parse().context("the server's number of cases")?;
    for case in 1..=count {
        let path = format!("/runCase?case={case}&agent={AGENT}");
        open(&path)?.hold(true).with_context(|| format!("case {case} of {count}"))?;
    }
    open(&format!("/updateReports?agent={AGENT}"))?.hold(false).map(drop)
}

/// One connection, from its handshake to its end.
struct Session {
    stream: dial::Stream,
    pending: Vec<u8>,
    assembly: Assembly,
    /// The latest message.
    latest: Vec<u8>,
    /// Our close frame is sent, and the server is to hang up.
    closed: bool,
}

impl Session {
    fn open(server: SocketAddr, peer: Option<&Peer>, host: &str, path: &str) -> Result<Self> {
        let (stream, pending) = dial(server, peer, host, path, &[], TIMEOUT)?;
        Ok(Self { stream, pending, assembly: Assembly::default(), latest: Vec::new(), closed: false })
    }

    /// Stays until the server has ended the connection, echoing or not; returns the latest message.
    fn hold(mut self, echoes: bool) -> Result<Vec<u8>> {
        let mut buffer = vec![0; 256 * 1024];
        let mut out = Vec::new();
        loop {
            let taken = self.take(echoes, &mut out);
            self.pending.drain(..taken);
            // A server that has gone no longer hears an answer, which shows at the next read.
            let _ = self.stream.write_all(&out);
            out.clear();
            let read = match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(self.latest),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(self.latest),
                Err(error) => return Err(error).context("reading"),
            };
            self.pending.extend_from_slice(&buffer[..read]);
        }
    }

    /// Takes the frames that are there; returns how many bytes they were. What follows a close frame is thrown away.
    fn take(&mut self, echoes: bool, out: &mut Vec<u8>) -> usize {
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
                    if echoes {
                        frame::write(kind, &message, out);
                    }
                    self.latest = message.into_owned();
                }
                Ok(Event::Ping(payload)) => frame::write(Opcode::Pong, payload, out),
                Ok(Event::Close(code, _)) | Err(Violation { code, .. }) => {
                    frame::write_close(code, out);
                    self.closed = true;
                }
            }
        }
        self.pending.len()
    }
}
