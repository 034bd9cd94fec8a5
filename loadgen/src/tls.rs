//! TLS, seen from the client: one session for each connection, without a socket.
//!
//! rustls' unbuffered interface: records in, bytes out, and the other way round, in buffers that the caller has. What a session keeps between two
//! reads is the beginning of a record whose rest has not come, and nothing else; a receiving thread reads ciphertext into one buffer for all of its
//! connections, as it does without TLS.
//!
//! What TLS costs here is the generator's, not the server's, so it is measured: each thread adds up what it spent ([`work`]). Handshakes are timed by
//! the thread's own processor time, whose reading is a system call; records, which take less than that, by the clock, which counts what else ran
//! meanwhile where the thread had no core of its own.
//!
//! With [`Settings::resume`] each connection has a ticket box of its own, so that a subscriber that comes back resumes its own session, and one that
//! comes for the first time never somebody else's.

use std::{
    cell::Cell,
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, anyhow};
use rustls::{
    ClientConfig, HandshakeKind, NamedGroup,
    client::{
        ClientConnectionData, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
        UnbufferedClientConnection,
    },
    pki_types::ServerName,
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic},
};
use serde::{Deserialize, Serialize};

use crate::{clock, target::Url, trust};

/// How servers are spoken to whose address is `wss://` or `https://`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// PEM file of those that are trusted; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// Anybody is trusted.
    pub insecure: bool,
    /// Subscribers that come back resume their sessions.
    pub resume: bool,
}

/// What one server is spoken to with.
#[derive(Clone)]
pub struct Peer {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    resume: bool,
}

/// What a subscriber keeps of its session until it comes back: the newest ticket, and no more.
#[derive(Default)]
pub struct Ticket(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    tls13: Option<Tls13ClientSessionValue>,
    tls12: Option<Tls12ClientSessionValue>,
}

/// One connection's TLS.
pub struct Session {
    conn: UnbufferedClientConnection,
    /// The beginning of a record.
    held: Vec<u8>,
    is_open: bool,
    has_failed: bool,
}

/// What taking records in came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// More may come.
    Open,
    /// The other end has said that it will say no more (`close_notify`).
    End,
}

/// What is to be done after a step of rustls'.
enum Next {
    Go,
    /// All that came was taken in, and data may be sent.
    Opened,
    /// More has to come.
    Wait,
    Broken(io::Error),
}

/// What a thread has spent on TLS since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Time, in nanoseconds.
    pub ns: u64,
    /// Records with data that were decrypted.
    pub records: u64,
    /// Handshakes that were completed anew.
    pub full: u64,
    /// Handshakes that resumed a session.
    pub resumed: u64,
}

/// The longest record, TLS 1.2's with its header (RFC 5246, section 6.2.3); 1.3's are shorter. So much data can come of a read beyond what was read.
pub const RECORD_MAX: usize = 5 + (1 << 14) + 2048;

/// Bytes of what isn't whole: a handshake message of 64 KiB in records, which is as long as rustls takes them, and one record.
const HELD_MAX: usize = 2 * (64 << 10);

thread_local! {
    static WORK: Cell<Work> = const { Cell::new(Work { ns: 0, records: 0, full: 0, resumed: 0 }) };
}

/// What this thread has spent.
pub fn work() -> Work {
    WORK.get()
}

/// Adds to it what `step` takes, by a clock.
fn worked<T>(clock: fn() -> u64, step: impl FnOnce(&mut Work) -> T) -> T {
    let (begin, mut work) = (clock(), WORK.get());
    let done = step(&mut work);
    work.ns += clock() - begin;
    WORK.set(work);
    done
}

impl Work {
    /// What was spent since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            ns: self.ns - before.ns,
            records: self.records - before.records,
            full: self.full - before.full,
            resumed: self.resumed - before.resumed,
        }
    }

    /// Adds another's.
    pub fn add(&mut self, other: Self) {
        self.ns += other.ns;
        self.records += other.records;
        self.full += other.full;
        self.resumed += other.resumed;
    }
}

impl Peer {
    /// What each of these is spoken to with; none where it is spoken to in clear.
    ///
    /// # Errors
    /// Nobody is there to be trusted.
    pub fn of<const N: usize>(settings: &Settings, urls: [Option<&Url>; N]) -> Result<[Option<Self>; N]> {
        if !urls.iter().flatten().any(|url| url.tls) {
            return Ok(urls.map(|_| None));
        }
        let config = trust::client(settings.ca.as_deref(), settings.insecure).map_err(|why| anyhow!(why))?;
        let config = Arc::new(config);
        let peer = |url: &Url| {
            let name = url.server_name()?;
            anyhow::Ok(Self { config: Arc::clone(&config), name, resume: settings.resume })
        };
        let mut peers = urls.map(|_| None);
        for (peer_of, url) in peers.iter_mut().zip(urls) {
            *peer_of = url.filter(|url| url.tls).map(peer).transpose()?;
        }
        Ok(peers)
    }

    /// Where a connection keeps its tickets, if sessions are resumed.
    pub fn ticket(&self) -> Option<Arc<Ticket>> {
        self.resume.then(Arc::default)
    }

    /// A new session, which resumes the one that `ticket` is of.
    pub fn session(&self, ticket: Option<&Arc<Ticket>>) -> Result<Session> {
        worked(clock::thread_cpu, |_| {
            let config = match ticket {
                None => Arc::clone(&self.config),
                Some(ticket) => {
                    let mut config = ClientConfig::clone(&self.config);
                    config.resumption = Resumption::store(Arc::<Ticket>::clone(ticket));
                    Arc::new(config)
                }
            };
            let conn = UnbufferedClientConnection::new(config, self.name.clone()).context("beginning TLS")?;
            Ok(Session { conn, held: Vec::new(), is_open: false, has_failed: false })
        })
    }
}

impl Session {
    /// Whether the handshake is done, and data may be sent.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// The beginning of a record, which has to stand before what is read next.
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    /// Takes in what came, behind what is held: hands data to `plain`, and appends to `out` what has to be sent. None at all begins the handshake.
    ///
    /// # Errors
    /// It is no TLS, or none that is trusted: a sentence. `out` may then have an alert.
    pub fn take(
        &mut self,
        records: &mut [u8],
        mut plain: impl FnMut(&[u8]) -> io::Result<()>,
        out: &mut Vec<u8>,
    ) -> io::Result<Taken> {
        self.check()?;
        let taken = worked(if self.is_open { clock::now } else { clock::thread_cpu }, |work| {
            let (mut at, mut taken) = (0, Taken::Open);
            loop {
                let UnbufferedStatus { discard, state } = self.conn.process_tls_records(&mut records[at..]);
                at += discard;
                let next = match state {
                    Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                        while let Some(record) = traffic.next_record() {
                            let record = record.map_err(|error| broken(&error))?;
                            at += record.discard;
                            work.records += 1;
                            plain(record.payload)?;
                        }
                        Next::Go
                    }
                    Ok(ConnectionState::EncodeTlsData(mut data)) => {
                        encode(&mut data, out);
                        Next::Go
                    }
                    Ok(ConnectionState::TransmitTlsData(data)) => {
                        // In `out` it is as good as sent: whatever comes after it goes behind it.
                        data.done();
                        Next::Go
                    }
                    Ok(ConnectionState::PeerClosed) => {
                        taken = Taken::End;
                        Next::Go
                    }
                    Ok(ConnectionState::WriteTraffic(_)) => Next::Opened,
                    Ok(_) => Next::Wait,
                    Err(error) => Next::Broken(broken(&error)),
                };
                match next {
                    Next::Go => {}
                    Next::Opened => {
                        self.opened(work);
                        break;
                    }
                    Next::Wait => break,
                    Next::Broken(error) => {
                        self.alert(&mut records[at..], out);
                        return Err(error);
                    }
                }
            }
            self.hold(&records[at..])?;
            Ok(taken)
        });
        self.has_failed |= taken.is_err();
        taken
    }

    fn opened(&mut self, work: &mut Work) {
        if !std::mem::replace(&mut self.is_open, true) {
            match self.conn.handshake_kind() {
                Some(HandshakeKind::Resumed) => work.resumed += 1,
                _ => work.full += 1,
            }
        }
    }

    /// What is queued when something was wrong; nothing comes after it. rustls remembers where in `records` a message is that it has not taken yet, and
    /// panics where it finds others; and also where it comes upon the same mistake once more.
    fn alert(&mut self, records: &mut [u8], out: &mut Vec<u8>) {
        while self.conn.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut data)) = self.conn.process_tls_records(records).state
        {
            encode(&mut data, out);
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.has_failed { Err(io::Error::new(io::ErrorKind::NotConnected, "TLS has failed")) } else { Ok(()) }
    }

    fn hold(&mut self, rest: &[u8]) -> io::Result<()> {
        if rest.len() > HELD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a TLS message of it has no end"));
        }
        // With nothing to hold, nothing is kept: few connections ever are in the middle of a record.
        self.held = rest.to_vec();
        Ok(())
    }

    /// Appends `bytes` to `out`, in records.
    ///
    /// # Errors
    /// The handshake isn't done, or the session has ended.
    pub fn encrypt(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.check()?;
        worked(clock::now, |_| {
            loop {
                let discard = {
                    let UnbufferedStatus { discard, state } = self.conn.process_tls_records(&mut self.held);
                    match state.map_err(|error| broken(&error))? {
                        ConnectionState::WriteTraffic(mut traffic) => {
                            return append(&mut traffic, bytes, out);
                        }
                        ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out),
                        ConnectionState::TransmitTlsData(data) => data.done(),
                        ConnectionState::PeerClosed => {}
                        _ => {
                            return Err(io::Error::new(io::ErrorKind::NotConnected, "TLS is not set up, or has ended"));
                        }
                    }
                    discard
                };
                self.held.drain(..discard);
            }
        })
    }
}

/// Appends data to `out`, in records.
fn append(traffic: &mut WriteTraffic<'_, ClientConnectionData>, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let begin = out.len();
    let mut room = bytes.len() + RECORD_OVERHEAD * (bytes.len() / (1 << 14) + 2);
    loop {
        out.resize(begin + room, 0);
        match traffic.encrypt(bytes, &mut out[begin..]) {
            Ok(len) => {
                out.truncate(begin + len);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(size)) => room = size.required_size,
            Err(EncryptError::EncryptExhausted) => {
                out.truncate(begin);
                return Err(io::Error::other("as much was sent as one TLS session can"));
            }
        }
    }
}

/// What a record has beside its data, at most: a header, an explicit nonce (1.2), the type, a tag; and as much again for a KeyUpdate before it.
const RECORD_OVERHEAD: usize = 64;

fn encode(data: &mut EncodeTlsData<'_, ClientConnectionData>, out: &mut Vec<u8>) {
    let begin = out.len();
    let mut room = 0;
    loop {
        out.resize(begin + room, 0);
        match data.encode(&mut out[begin..]) {
            Err(EncodeError::InsufficientSize(size)) => room = size.required_size,
            Ok(len) => return out.truncate(begin + len),
            Err(EncodeError::AlreadyEncoded) => return out.truncate(begin),
        }
    }
}

fn broken(error: &rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, trust::explain(error))
}

impl Ticket {
    /// Nothing under the lock panics, so a poisoned one is as good as any.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

/// The name is always the same: a box is of one connection.
impl ClientSessionStore for Ticket {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept().tls12 = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().tls12.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.kept().tls12 = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.kept().tls13 = Some(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().tls13.take()
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
