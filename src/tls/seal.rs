//! Sealing: encrypting what is sent, with as little as possible between the tape's bytes and the socket.
//!
//! rustls owns everything of a session: the handshake, all that comes, alerts, changes of keys. What it is asked for most by far is the one
//! thing that isn't hard: one more record of data under the present key. Through it, such a record costs two copies, an allocation and a walk through
//! the state of the whole session, most of which isn't in the cache when there are thousands of them. So the key that rustls makes for sending is
//! made here ([`suites`] has it do so), and shared: rustls seals by it what it has to say itself, and the session seals data by it.
//!
//! ```text
//!   rustls  alerts, tickets, changes of keys ─┐
//!                                             ├─► Sealer: key, iv, how many records ──► records
//!   session the tape's bytes ─────────────────┘
//!
//!   a record  23 │ 3 3 │ length │ data, encrypted │ type, encrypted │ tag        (RFC 8446, section 5.2)
//!              1 │  2  │   2    │                 │        1        │ 16
//! ```
//!
//! Both take their record's number from the sealer, so that no number is used twice, whoever comes first; the cipher itself refuses a number
//! that isn't greater than the last one.
//!
//! It is so for AES-GCM in TLS 1.3, which nearly everybody speaks. Others go through rustls.

use std::{cell::Cell, fmt, sync::Arc};

use aws_lc_rs::aead::{self, Aad, TlsProtocolId, TlsRecordSealingKey};
use parking_lot::Mutex;
use rustls::{
    CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SupportedCipherSuite,
    Tls13CipherSuite,
    crypto::cipher::{
        AeadKey, Iv, MessageDecrypter, MessageEncrypter, Nonce, OutboundOpaqueMessage, OutboundPlainMessage,
        PrefixedPayload, Tls13AeadAlgorithm, UnsupportedOperationError, make_tls13_aad,
    },
};

/// Bytes before the data of a record.
const HEADER: usize = 5;

/// Bytes of a record's tag, in all suites of TLS 1.3.
const TAG: usize = 16;

/// Bytes that a record is longer than what is in it.
pub const OVERHEAD: usize = HEADER + 1 + TAG;

thread_local! {
    /// The key for sending that rustls made last on this thread, if nobody has taken it yet. It says itself for which session it makes keys by
    /// making them while it is told to go on with that one.
    static MADE: Cell<Option<Arc<Sealer>>> = const { Cell::new(None) };
}

/// The key that was made for sending on this thread since this was asked last.
pub fn take_made() -> Option<Arc<Sealer>> {
    MADE.take()
}

/// A key for sending, with what goes with it. See the module's description.
pub struct Sealer {
    // Never waited for: a session is with one thread at a time. It is what lets rustls hold one end, and us the other.
    state: Mutex<State>,
}

struct State {
    /// Records that were sealed: the number of the next one.
    records: u64,
    iv: Iv,
    key: TlsRecordSealingKey,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    fn new(algorithm: &'static aead::Algorithm, key: &AeadKey, iv: Iv) -> Sealer {
        let key = TlsRecordSealingKey::new(algorithm, TlsProtocolId::TLS13, key.as_ref());
        let key = key.expect("rustls derives keys as long as they have to be");
        Sealer { state: Mutex::new(State { records: 0, iv, key }) }
    }

    /// Seals `plain`, at most 16 KiB, as one record of data into `room`; returns how long the record is, or none if `most` were sealed by
    /// this key.
    ///
    /// # Errors
    /// There is no room, or the cipher refuses.
    pub fn seal(&self, plain: &[u8], room: &mut [u8], most: u64) -> Result<Option<usize>, Error> {
        let len = OVERHEAD + plain.len();
        let Some((header, rest)) = room.get_mut(..len).and_then(|room| room.split_first_chunk_mut::<HEADER>()) else {
            return Err(Error::General("no room for a record".into()));
        };
        let (data, end) = rest.split_at_mut(plain.len());
        // What is sealed along with it is the very header.
        *header = make_tls13_aad(len - HEADER);
        let state = &mut *self.state.lock();
        if state.records >= most {
            return Ok(None);
        }
        let nonce = state.next();
        state
            .key
            .seal_out_of_place_scatter(
                nonce,
                Aad::from(*header),
                plain,
                data,
                &[u8::from(ContentType::ApplicationData)],
                end,
            )
            .map_err(|_| Error::EncryptError)?;
        Ok(Some(len))
    }
}

impl State {
    /// That of the next record.
    fn next(&mut self) -> aead::Nonce {
        let nonce = Nonce::new(&self.iv, self.records);
        self.records += 1;
        aead::Nonce::assume_unique_for_key(nonce.0)
    }
}

/// What rustls holds of it.
struct Through(Arc<Sealer>);

impl MessageEncrypter for Through {
    // rustls counts what goes through here alone.
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, _number: u64) -> Result<OutboundOpaqueMessage, Error> {
        let len = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(len);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&[u8::from(message.typ)]);
        let state = &mut *self.0.state.lock();
        let nonce = state.next();
        state
            .key
            .seal_in_place_append_tag(nonce, Aad::from(make_tls13_aad(len)), &mut payload)
            .map_err(|_| Error::EncryptError)?;
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        payload_len + 1 + TAG
    }
}

/// rustls' way to make keys, but for the one to send with.
struct Shared {
    theirs: &'static dyn Tls13AeadAlgorithm,
    algorithm: &'static aead::Algorithm,
}

impl Tls13AeadAlgorithm for Shared {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        let sealer = Arc::new(Sealer::new(self.algorithm, &key, iv));
        MADE.set(Some(Arc::clone(&sealer)));
        Box::new(Through(sealer))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.theirs.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.theirs.key_len()
    }

    fn extract_keys(&self, key: AeadKey, iv: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.theirs.extract_keys(key, iv)
    }

    fn fips(&self) -> bool {
        self.theirs.fips()
    }
}

/// The same suites, those of them whose keys for sending are shared made so. They stay for the life of the process.
pub fn suites(suites: &[SupportedCipherSuite]) -> Vec<SupportedCipherSuite> {
    suites.iter().map(|suite| shared(*suite)).collect()
}

fn shared(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls13(theirs) = suite else { return suite };
    let algorithm = match suite.suite() {
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256 => &aead::AES_128_GCM,
        rustls::CipherSuite::TLS13_AES_256_GCM_SHA384 => &aead::AES_256_GCM,
        _ => return suite,
    };
    let CipherSuiteCommon { suite, hash_provider, confidentiality_limit } = theirs.common;
    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
        common: CipherSuiteCommon { suite, hash_provider, confidentiality_limit },
        aead_alg: Box::leak(Box::new(Shared { theirs: theirs.aead_alg, algorithm })),
        ..*theirs
    })))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use rustls::crypto::{
        aws_lc_rs::cipher_suite::{TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256},
        cipher::{InboundOpaqueMessage, OutboundChunks},
    };

    use super::*;

    const KEY: [u8; 32] = *b"a key for tests, of thirty-two b";
    const IV: [u8; 12] = *b"twelve bytes";

    fn theirs() -> &'static dyn Tls13AeadAlgorithm {
        let SupportedCipherSuite::Tls13(suite) = TLS13_AES_256_GCM_SHA384 else { panic!() };
        suite.aead_alg
    }

    /// What rustls makes of our keys, and the key.
    fn ours() -> (Box<dyn MessageEncrypter>, Arc<Sealer>) {
        let SupportedCipherSuite::Tls13(suite) = shared(TLS13_AES_256_GCM_SHA384) else { panic!() };
        let encrypter = suite.aead_alg.encrypter(AeadKey::from(KEY), Iv::from(IV));
        let sealer = take_made().unwrap();
        assert!(take_made().is_none(), "it is taken once");
        (encrypter, sealer)
    }

    fn message(typ: ContentType, payload: &[u8]) -> OutboundPlainMessage<'_> {
        OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_3, payload: OutboundChunks::from(payload) }
    }

    #[test]
    fn records_are_those_that_rustls_would_make_whoever_of_both_seals_which() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut through, sealer) = ours();
        let mut theirs = theirs().encrypter(AeadKey::from(KEY), Iv::from(IV));
        let mut room = vec![0; 20_000];
        for (number, len) in [0, 1, 15, 16, 17, 128, 129, 1000, 16_383, 16_384].into_iter().cycle().take(40).enumerate()
        {
            let plain: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
            let typ = if random.bool() { ContentType::ApplicationData } else { ContentType::Handshake };
            let expected = theirs.encrypt(message(typ, &plain), number as u64).unwrap().encode();
            let record = if typ == ContentType::ApplicationData && random.bool() {
                let len = sealer.seal(&plain, &mut room, u64::MAX).unwrap().unwrap();
                room[..len].to_vec()
            } else {
                // Whatever number rustls believes that it has.
                through.encrypt(message(typ, &plain), 7).unwrap().encode()
            };
            assert_eq!(record.len(), plain.len() + OVERHEAD);
            assert!(record == expected, "record {number} of {len} bytes");
        }
    }

    #[test]
    fn what_is_sealed_is_opened_by_rustls_in_its_order_alone() {
        let (_, sealer) = ours();
        let mut open = theirs().decrypter(AeadKey::from(KEY), Iv::from(IV));
        let records = ["one", "two", "three"].map(|text| {
            let mut room = [0; 100];
            let len = sealer.seal(text.as_bytes(), &mut room, u64::MAX).unwrap().unwrap();
            room[HEADER..len].to_vec()
        });
        let mut opened = |at: usize, number: u64| {
            let mut record = records[at].clone();
            let opaque = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, &mut record);
            open.decrypt(opaque, number).map(|plain| plain.payload.to_vec())
        };
        assert_eq!(opened(0, 0).unwrap(), b"one");
        assert_eq!(opened(1, 1).unwrap(), b"two");
        assert!(opened(1, 2).is_err());
        assert_eq!(opened(2, 2).unwrap(), b"three");
    }

    #[test]
    fn a_key_seals_no_more_than_it_may_and_nothing_where_there_is_no_room() {
        let (_, sealer) = ours();
        let mut room = [0; 100];
        assert_eq!(sealer.seal(&[1; 79], &mut room, 2), Err(Error::General("no room for a record".into())));
        assert_eq!(sealer.seal(&[1; 78], &mut room, 2), Ok(Some(100)));
        assert_eq!(sealer.seal(&[], &mut room, 2), Ok(Some(OVERHEAD)));
        assert_eq!(sealer.seal(&[1], &mut room, 2), Ok(None));
        assert_eq!(sealer.seal(&[1], &mut room, 3), Ok(Some(OVERHEAD + 1)));
    }

    #[test]
    fn suites_without_aes_are_left_as_they_are() {
        let SupportedCipherSuite::Tls13(suite) = shared(TLS13_CHACHA20_POLY1305_SHA256) else { panic!() };
        drop(suite.aead_alg.encrypter(AeadKey::from(KEY), Iv::from(IV)));
        assert!(take_made().is_none());
    }
}
