//! One TLS session: bytes to records and back, without a socket.
//!
//! The one place that knows rustls' unbuffered API (`rustls::unbuffered`), which leaves all buffers to us. What came in is judged as
//! soon as it is there, so between calls nothing is left of it but the beginning of a record, or of a handshake message in several.
//!
//! ```text
//!   input   records that came ──► take_in ──► plain    what they say
//!                                        └──► answer   what TLS itself has to say: handshake, alerts, key updates
//!   plain   to be sent ─────────► encrypt ──► records
//! ```
//!
//! Records of data are sealed without rustls, by the key that it has made and shares ([`seal`]), where it does; the first with each key
//! is sealed by it, and so goes behind whatever it has to say before. What is touched for each record lies together, and rustls' own memory elsewhere.

use std::{fmt, sync::Arc};

use rustls::{
    Error, HandshakeKind, ProtocolVersion, ServerConfig, SupportedCipherSuite,
    pki_types::CertificateDer,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, UnbufferedStatus, WriteTraffic},
};

use crate::tls::seal::{self, Sealer};

/// Most bytes of plaintext in a record (RFC 8446, section 5.1).
pub const RECORD_MAX: usize = 16 * 1024;

/// Most bytes that a record is longer than its plaintext, in the versions and suites that are spoken here: header, nonce and tag of
/// TLS 1.2's AES-GCM (RFC 5288).
pub const RECORD_OVERHEAD: usize = 5 + 8 + 16;

/// Most bytes of one record on the wire (RFC 5246, section 6.2.3), its header included.
pub const WIRE_RECORD_MAX: usize = 5 + RECORD_MAX + 2048;

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The handshake needs more from the peer.
    Shaking,
    /// Bytes may go either way.
    Open,
    /// The peer has said that it sends no more.
    Ended,
}

/// See the module's description.
pub struct Session {
    /// What data is sealed by, once rustls has sealed some by the same key. None where it alone seals, or nothing may be sent.
    sealer: Option<Arc<Sealer>>,
    /// How many records this may seal.
    most: u64,
    stage: Stage,
    /// The peer has broken the rules: nothing goes on.
    failed: bool,
    /// It was said that nothing more is sent.
    finished: bool,
    /// The same of a key that rustls has made, and hasn't sealed data by.
    made: Option<Arc<Sealer>>,
    /// Records that were encrypted by rustls.
    records: u64,
    /// Apart, since it is large, and seldom needed.
    tls: Box<UnbufferedServerConnection>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl Session {
    /// One that waits for the client's hello.
    ///
    /// # Errors
    /// The settings can't be used, which they were checked for.
    pub fn new(config: Arc<ServerConfig>) -> Result<Session, Error> {
        Ok(Session {
            sealer: None,
            most: 0,
            stage: Stage::Shaking,
            failed: false,
            finished: false,
            made: None,
            records: 0,
            tls: Box::new(UnbufferedServerConnection::new(config)?),
        })
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether the peer's first message has come whole: it was answered.
    pub fn is_answered(&self) -> bool {
        self.tls.protocol_version().is_some()
    }

    /// Whether the handshake resumed an earlier session; none before its end.
    pub fn is_resumed(&self) -> Option<bool> {
        self.tls.handshake_kind().map(|kind| kind == HandshakeKind::Resumed)
    }

    /// The certificates that the peer has shown, its own first: in this handshake, or in that of the session that it resumes. None before the
    /// handshake's end, and none of somebody who has shown none.
    pub fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.tls.peer_certificates().filter(|shown| !shown.is_empty())
    }

    /// Whether nearly as many records were encrypted as one key may (RFC 8446, section 5.5), where it can't be changed: TLS 1.2 has no
    /// way to, and its AES-GCM ends after 2^24.
    pub fn is_worn(&self) -> bool {
        let most = self.records_max();
        self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_2) && self.records >= most - most / 16
    }

    /// Takes in what has come: whole records are decrypted, and `plain` is given what they say. Returns how many bytes are done with;
    /// what stands behind them has to be there again, as this has left it, the next time. `answer` is what is to be sent.
    ///
    /// # Errors
    /// The peer has broken the rules; the alert that says so is in `answer`.
    pub fn take_in(
        &mut self,
        input: &mut [u8],
        mut plain: impl FnMut(&[u8]),
        answer: &mut Vec<u8>,
    ) -> (usize, Result<(), Error>) {
        if self.failed {
            return (input.len(), Err(Error::General("the session has failed".into())));
        }
        let mut done = 0;
        let result = loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut input[done..]);
            let goes_on = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    let mut read = Ok(true);
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                plain(record.payload);
                            }
                            Err(error) => read = Err(error),
                        }
                    }
                    read
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(|room| data.encode(room), answer);
                    Ok(true)
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Ok(true)
                }
                Ok(ConnectionState::BlockedHandshake) => Ok(false),
                Ok(ConnectionState::WriteTraffic(_)) => {
                    if self.stage == Stage::Shaking {
                        self.stage = Stage::Open;
                    }
                    Ok(false)
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.stage = Stage::Ended;
                    Ok(true)
                }
                Ok(ConnectionState::Closed) => Ok(false),
                // Early data is switched off, and other states there are none.
                Ok(_) => Err(Error::General("early data".into())),
                Err(error) => Err(error),
            };
            done += discard;
            match goes_on {
                Ok(true) => {}
                Ok(false) => {
                    if self.stage == Stage::Ended {
                        // Nothing counts behind the peer's end (RFC 8446, section 6.1).
                        done = input.len();
                    }
                    break Ok(());
                }
                Err(error) => {
                    self.take_alert(&mut input[done..], answer);
                    break Err(error);
                }
            }
        };
        self.note_key();
        (done, result)
    }

    /// Notes the key that rustls has made for sending, if it has: what it says of that has to be sent first.
    fn note_key(&mut self) {
        if let Some(made) = seal::take_made() {
            (self.sealer, self.made) = (None, Some(made));
        }
    }

    /// The alert that tells the peer what was wrong.
    fn take_alert(&mut self, rest: &mut [u8], answer: &mut Vec<u8>) {
        (self.failed, self.sealer) = (true, None);
        while self.tls.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut data)) = self.tls.process_tls_records(rest).state
        {
            encode(|room| data.encode(room), answer);
        }
    }

    /// Encrypts `plain` into `room`, in records of at most `record` bytes; returns how long they are. `input` is what was left of the
    /// records that were taken in, and nothing that comes behind them.
    ///
    /// # Errors
    /// So much was encrypted that these keys may encrypt no more, or nothing may be sent (any more).
    pub fn encrypt(&mut self, input: &mut [u8], plain: &[u8], record: usize, room: &mut [u8]) -> Result<usize, Error> {
        let mut len = 0;
        for part in plain.chunks(record) {
            len += match &self.sealer {
                Some(sealer) => match sealer.seal(part, &mut room[len..], self.most)? {
                    Some(sealed) => sealed,
                    None => self.encrypt_anew(input, part, &mut room[len..])?,
                },
                None => self.encrypt_by_rustls(input, part, &mut room[len..])?,
            };
        }
        Ok(len)
    }

    /// Encrypts one record by rustls, behind what it has to say itself; from then on it needn't.
    fn encrypt_by_rustls(&mut self, input: &mut [u8], part: &[u8], room: &mut [u8]) -> Result<usize, Error> {
        if self.finished {
            return Err(Error::General("nothing may be sent behind the end".into()));
        }
        self.records += 1;
        let made = self.made.take();
        let len = self.write(input, |mut traffic| traffic.encrypt(part, room).map_err(|why| why.to_string()))?;
        if made.is_some() {
            // With the last record that a key may seal it is said that there is another from then on.
            self.most = self.records_max().saturating_sub(1);
            self.sealer = made;
            self.note_key();
        }
        Ok(len)
    }

    /// The same by a new key, since the one there is has sealed as much as it may.
    #[cold]
    fn encrypt_anew(&mut self, input: &mut [u8], part: &[u8], room: &mut [u8]) -> Result<usize, Error> {
        self.sealer = None;
        self.write(input, |traffic| traffic.refresh_traffic_keys().map(|()| 0).map_err(|why| why.to_string()))?;
        self.note_key();
        let mut said = 0;
        loop {
            match self.tls.process_tls_records(input).state? {
                ConnectionState::EncodeTlsData(mut data) => {
                    said += data.encode(&mut room[said..]).map_err(|why| Error::General(why.to_string()))?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                _ => break,
            }
        }
        Ok(said + self.encrypt_by_rustls(input, part, &mut room[said..])?)
    }

    /// How many records one key may encrypt (RFC 8446, section 5.5).
    fn records_max(&self) -> u64 {
        match self.tls.negotiated_cipher_suite() {
            Some(SupportedCipherSuite::Tls12(suite)) => suite.common.confidentiality_limit,
            Some(SupportedCipherSuite::Tls13(suite)) => suite.common.confidentiality_limit,
            None => 0,
        }
    }

    /// Says that nothing more will be sent (`close_notify`), into `room`; returns how many bytes that is.
    ///
    /// # Errors
    /// Nothing may be sent (any more).
    pub fn end(&mut self, input: &mut [u8], room: &mut [u8]) -> Result<usize, Error> {
        (self.finished, self.sealer, self.made) = (true, None, None);
        self.write(input, |mut traffic| traffic.queue_close_notify(room).map_err(|why| why.to_string()))
    }

    fn write(
        &mut self,
        input: &mut [u8],
        act: impl FnOnce(WriteTraffic<'_, ServerConnectionData>) -> Result<usize, String>,
    ) -> Result<usize, Error> {
        if self.failed {
            return Err(Error::General("the session has failed".into()));
        }
        loop {
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(input);
            debug_assert_eq!(discard, 0, "what came was taken in");
            match state? {
                ConnectionState::WriteTraffic(traffic) => return act(traffic).map_err(Error::General),
                ConnectionState::PeerClosed => self.stage = Stage::Ended,
                // What there is to say of TLS' own was said when it came; and what came was taken in.
                _ => return Err(Error::General("nothing may be sent now".into())),
            }
        }
    }
}

fn encode(mut into: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>, answer: &mut Vec<u8>) {
    let at = answer.len();
    let len = match into(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        _ => 0,
    };
    answer.resize(at + len, 0);
    let encoded = into(&mut answer[at..]);
    debug_assert!(encoded.is_ok_and(|n| n == len), "it has said how much room it needs");
}

/// Records that were found among bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// How many begin there.
    pub begun: u32,
    /// How many of them are whole.
    pub whole: u32,
    /// Bytes of these.
    pub whole_len: usize,
    /// The same, and those of one that isn't whole.
    pub len: usize,
}

/// The first records within `bytes`, whose first byte begins one: `most` at most.
pub fn records(bytes: &[u8], most: usize) -> Found {
    let (mut begun, mut whole, mut at) = (0, 0, 0);
    while at < bytes.len() && begun < most {
        begun += 1;
        let rest = &bytes[at..];
        let Some(&[high, low]) = rest.get(3..5).and_then(|length| length.first_chunk::<2>()) else { break };
        let len = 5 + usize::from(u16::from_be_bytes([high, low]));
        if len > rest.len() {
            break;
        }
        whole += 1;
        at += len;
    }
    let len = if begun > whole { bytes.len() } else { at };
    Found { begun: begun as u32, whole: whole as u32, whole_len: at, len }
}
