//! The certificates that the server shows, and what it says of TLS.
//!
//! ```text
//!  --tls-cert, --tls-key ─┐ read, checked                    ┌─► who asks for a name that is in a certificate: that one
//!                         ├────────────────► pairs ──► table ┤
//!  --tls-self-signed ─────┘ made, if it isn't there          └─► everybody else: the first
//! ```
//!
//! There is one [`Keys`] for the life of a server, with a `rustls::ServerConfig` for all of its threads. Certificates change under it: its
//! resolver looks at the newest table, so that a new handshake is shown the new certificate, while nobody who is connected
//! notices. Tickets are encrypted by one ticketer, whose own keys are renewed every few hours; it outlives every change of
//! certificates, so that clients resume across it, at whichever thread they come to. A ticket proves that its client has seen a certificate of
//! this server; where clients show certificates, of those who sign them. When that changes, there is another `ServerConfig` for new sessions
//! ([`Terms`]), whose ticketer can't read the tickets of before.
//!
//! Certificates are read again when their files change, and when somebody says so (SIGHUP). All of them are read and checked
//! before any is shown: after any mistake the old ones stay, and the log names the file and what is wrong with it.
//!
//! | file | holds |
//! | --- | --- |
//! | `pair` | a certificate and its key: read from files and checked |
//! | `table` | which of them is shown to whom |
//! | `self_signed` | a certificate for trying out |
//! | `clients` | certificates that clients show |
//! | `files` | whether files have changed |
//! | `seal` | records of data, encrypted by keys that rustls made |

mod clients;
mod files;
mod pair;
pub mod seal;
mod self_signed;
mod table;
#[cfg(all(test, not(loom)))]
mod tests;

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;
use rustls::{
    ServerConfig, SupportedCipherSuite,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, Ticketer, cipher_suite},
    },
    pki_types::CertificateDer,
    server::{NoServerSessionStorage, ResolvesServerCert},
    version::{TLS12, TLS13},
};

pub(crate) use self::clients::Nameless;
pub use self::pair::KeysError;
use self::{
    clients::{ClientSources, Clients, Judge},
    files::Stamp,
    pair::Pair,
    table::Table,
};
use crate::{
    certified::{Certified, TakenBack},
    clock,
    config::Config,
    live::Live,
    metrics::Tally,
};

/// How often it is looked whether files have changed.
const LOOK: Duration = Duration::from_secs(1);

/// How long it takes at least, in seconds, until the certificate for trying out is made anew once more, should that not help.
const RENEWAL: u64 = 3600;

/// Suites in the order in which they are preferred, whatever the client prefers. TLS 1.2 has ChaCha20 first: rustls ends a connection
/// with AES-GCM of that version after 2^24 records, which a busy subscriber has had within a day, and 1.2 can't renew its keys.
const SUITES: &[SupportedCipherSuite] = &[
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
];

/// The same, as sessions have them.
static SHARED: LazyLock<Vec<SupportedCipherSuite>> = LazyLock::new(|| seal::suites(SUITES));

/// See the module's description.
pub(crate) struct Keys {
    table: Arc<Live<Table>>,
    terms: Arc<Live<Terms>>,
    state: Mutex<State>,
    /// How often certificates were read again, and how often that led to nothing.
    pub reloads: Tally,
    pub failures: Tally,
}

/// Where certificates come from, and what has been seen there. Under a lock that is held while they are read, so that
/// two who read them again do so one after the other.
struct State {
    sources: Sources,
    /// What the files were when they were last read, well or badly.
    read: Vec<Stamp>,
    /// What they were at the last look.
    seen: Vec<Stamp>,
    /// Whether it was said that one of those shown has expired.
    told: bool,
    /// When the one for trying out was last made anew, or that was tried.
    renewed: u64,
    /// How clients' certificates are judged.
    clients: Option<Clients>,
    /// Whether it was said that a list of what was taken back is out of date.
    told_list: bool,
}

/// The settings that name certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sources {
    /// Certificates and keys.
    pairs: Vec<(PathBuf, PathBuf)>,
    self_signed: Option<PathBuf>,
    /// By what clients' certificates are judged.
    clients: Option<ClientSources>,
}

/// What new sessions are begun with.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// For a new session.
    pub config: Arc<ServerConfig>,
    judge: Option<Arc<Judge>>,
    /// Lists of what was taken back, by their files, with when the next ones are due.
    lists: Vec<(String, u64)>,
}

impl Terms {
    /// Those of a server that asks clients for no certificate.
    #[cfg(test)]
    pub fn of(config: Arc<ServerConfig>) -> Terms {
        Terms { config, judge: None, lists: Vec::new() }
    }

    /// With certificates from there, and clients judged so.
    fn new(certificates: Arc<dyn ResolvesServerCert>, clients: Option<&Clients>) -> Terms {
        let judge = clients.map(|clients| Arc::clone(&clients.judge));
        let lists = clients.iter().flat_map(|clients| &clients.lists);
        let lists = lists.map(|(file, next)| (file.display().to_string(), *next)).collect();
        Terms { config: Arc::new(server_config_for(certificates, judge.clone())), judge, lists }
    }

    /// Who somebody is whose handshake is done, by the certificates that it has shown, now or in the session that it resumes. None where clients are
    /// asked for none, or it has shown none and needn't.
    ///
    /// # Errors
    /// The certificate isn't good (any more), or there is none and there must be.
    pub fn judge(&self, shown: Option<&[CertificateDer<'_>]>) -> Result<Option<Certified>, rustls::Error> {
        self.judge.as_ref().map_or(Ok(None), |judge| judge.judge(shown, now()))
    }
}

impl Sources {
    fn of(config: &Config) -> Sources {
        let pairs = config.tls_cert.iter().cloned().zip(config.tls_key.iter().cloned());
        Sources {
            pairs: pairs.collect(),
            self_signed: config.tls_self_signed.clone(),
            clients: ClientSources::of(config),
        }
    }

    /// All files, but for those that are made here.
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let clients = self.clients.iter().flat_map(ClientSources::files);
        self.pairs.iter().flat_map(|(cert, key)| [cert, key]).chain(clients)
    }

    fn stamps(&self) -> Vec<Stamp> {
        self.files().map(|file| Stamp::of(file)).collect()
    }

    /// Reads and checks all of them; makes the one for trying out, unless it is there.
    fn read(&self, now: u64) -> Result<(Table, Option<Clients>), KeysError> {
        let pairs = self.pairs.iter().map(|(cert, key)| pair::read(cert, key, now));
        let mut pairs = pairs.collect::<Result<Vec<Pair>, KeysError>>()?;
        if let Some(dir) = &self.self_signed {
            pairs.push(self_signed::keep(dir, now)?);
        }
        let clients = self.clients.as_ref().map(|clients| Clients::read(clients, &provider(), now)).transpose()?;
        Ok((Table::new(pairs), clients))
    }
}

/// A certificate that is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The first of its names.
    pub name: String,
    /// Its file.
    pub file: String,
    /// When it or another of its chain expires, in seconds since the Unix epoch.
    pub expires: u64,
}

impl Keys {
    /// Reads and checks all pairs, and makes the one for trying out if it isn't there. None where nothing listens for TLS.
    ///
    /// # Errors
    /// The first mistake: the flag, the file, and what is wrong with it.
    pub fn load(config: &Config) -> Result<Option<Keys>, KeysError> {
        if config.tls_listen.is_empty() {
            return Ok(None);
        }
        let sources = Sources::of(config);
        // Looked at before they are read: what changes meanwhile is read again.
        let stamps = sources.stamps();
        let (table, clients) = sources.read(now())?;
        table.tell();
        tell_of(clients.as_ref());
        let table = Arc::new(Live::new(table));
        let terms = Terms::new(Arc::new(table::Resolver(Arc::clone(&table))), clients.as_ref());
        let state =
            State { sources, read: stamps.clone(), seen: stamps, told: false, renewed: 0, clients, told_list: false };
        Ok(Some(Keys {
            terms: Arc::new(Live::new(terms)),
            table,
            state: Mutex::new(state),
            reloads: Tally::default(),
            failures: Tally::default(),
        }))
    }

    /// What new sessions are begun with, from now on.
    pub fn terms(&self) -> Arc<Live<Terms>> {
        Arc::clone(&self.terms)
    }

    /// Reads all files again, those that are named now. On any mistake the old ones stay.
    ///
    /// # Errors
    /// As [`Keys::load`].
    pub fn reload(&self, config: &Config) -> Result<(), KeysError> {
        self.read_again(&mut self.state.lock(), Sources::of(config), now())
    }

    fn read_again(&self, state: &mut State, sources: Sources, now: u64) -> Result<(), KeysError> {
        let stamps = sources.stamps();
        let read = sources.read(now);
        if read.is_ok() || sources == state.sources {
            (state.read, state.seen) = (stamps.clone(), stamps);
        }
        let (table, clients) = read.inspect_err(|_| self.failures.bump())?;
        self.table.set(table);
        let made_of = |clients: &Option<Clients>| clients.as_ref().map(|clients| clients.made_of.clone());
        if made_of(&clients) != made_of(&state.clients) {
            // Tickets of before say nothing about what counts now.
            self.terms.set(Terms::new(Arc::new(table::Resolver(Arc::clone(&self.table))), clients.as_ref()));
        }
        self.reloads.bump();
        self.table.get().tell();
        tell_of(clients.as_ref());
        (state.sources, state.told) = (sources, false);
        (state.clients, state.told_list) = (clients, false);
        Ok(())
    }

    /// The certificates that are shown now.
    pub fn shown(&self) -> Vec<Shown> {
        self.table.get().pairs().iter().map(Pair::shown).collect()
    }

    /// Looks every second whether files have changed, until `stop` has no sender any more. `tell` is told by what clients' certificates are judged
    /// whenever they have been read again.
    pub fn watch(&self, stop: &Receiver<()>, tell: impl Fn(Arc<TakenBack>)) {
        let mut before = self.reloads.get();
        while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(LOOK) {
            self.look(now());
            let reloads = self.reloads.get();
            if std::mem::replace(&mut before, reloads) != reloads {
                self.tell_taken_back(&tell);
            }
        }
    }

    /// Tells by what clients' certificates are judged that were shown before: where clients are asked for none, all of them are taken back. Nothing is read meanwhile, so that of two
    /// who tell, the last tells the newest.
    pub fn tell_taken_back(&self, tell: impl FnOnce(Arc<TakenBack>)) {
        let state = self.state.lock();
        tell(match &state.clients {
            Some(clients) => Arc::clone(&clients.taken_back),
            None => Arc::new(TakenBack::all()),
        });
    }

    /// Reads everything again if files have changed since they were read, and not since the last look: certificate and key are seldom
    /// replaced in the same moment. Also if the certificate for trying out has expired.
    fn look(&self, now: u64) {
        let state = &mut *self.state.lock();
        let stamps = state.sources.stamps();
        let is_new = stamps != state.read && stamps == state.seen;
        state.seen = stamps;
        let is_due = self.needs_renewal(&state.sources, now) && now >= state.renewed.saturating_add(RENEWAL);
        if is_due {
            state.renewed = now;
        }
        if is_new || is_due {
            let sources = state.sources.clone();
            if let Err(error) = self.read_again(state, sources, now) {
                tracing::error!("the certificates stay as they are: {error}");
            }
        }
        let table = self.table.get();
        let mut expired = table.pairs().iter().filter(|pair| pair.expires <= now);
        if let Some(Shown { name, file, .. }) = expired.next().filter(|_| !state.told).map(Pair::shown) {
            tracing::error!(name, file, "a certificate has expired, and clients refuse it");
            state.told = true;
        }
        let mut lists = state.clients.iter().flat_map(|clients| &clients.lists);
        if let Some((file, _)) = lists.find(|(_, next)| *next <= now).filter(|_| !state.told_list) {
            let file = file.display();
            tracing::error!(%file, "a list of certificates that were taken back is out of date: clients whose certificates it is about are refused");
            state.told_list = true;
        }
    }

    /// Each list of clients' certificates that were taken back, by its file, with when the next one is due, in seconds since the Unix epoch.
    /// Waits for nobody who reads files.
    pub fn lists(&self) -> Vec<(String, u64)> {
        self.terms.get().lists.clone()
    }

    fn needs_renewal(&self, sources: &Sources, now: u64) -> bool {
        let Some(dir) = &sources.self_signed else { return false };
        self.table.get().pairs().iter().any(|pair| pair.expires <= now && self_signed::is_in(dir, &pair.file))
    }
}

/// What `--check` says of certificates: the mistakes, the warnings and the rest, each a sentence. Makes nothing.
#[cfg(feature = "cli")]
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
    pub notes: Vec<String>,
}

#[cfg(feature = "cli")]
impl Inspection {
    /// Reads and checks everything that the settings name.
    pub fn of(config: &Config) -> Inspection {
        let (sources, now) = (Sources::of(config), now());
        let mut inspection = Inspection::default();
        for (cert, key) in &sources.pairs {
            inspection.add(pair::read(cert, key, now));
        }
        if let Some(clients) = &sources.clients {
            match Clients::read(clients, &provider(), now) {
                Ok(clients) => {
                    inspection.notes.push(clients.sentence());
                    inspection.warnings.extend(clients.warnings);
                }
                Err(error) => inspection.errors.push(error.to_string()),
            }
        }
        if let Some(dir) = &sources.self_signed {
            match self_signed::find(dir, now) {
                Ok(Some(pair)) => inspection.add(Ok(pair)),
                Ok(None) => {
                    let text = format!("--tls-self-signed: a certificate would be made in {}", dir.display());
                    inspection.notes.push(text);
                }
                Err(error) => inspection.add(Err(error)),
            }
        }
        inspection
    }

    fn add(&mut self, read: Result<Pair, KeysError>) {
        match read {
            Ok(pair) => {
                self.notes.push(pair.to_string());
                self.warnings.extend(pair.warnings);
            }
            Err(error) => self.errors.push(error.to_string()),
        }
    }
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    clock::wall_us() / 1_000_000
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { cipher_suites: SHARED.clone(), ..aws_lc_rs::default_provider() })
}

/// Says how clients' certificates are judged from now on, and what is unwise about it.
fn tell_of(clients: Option<&Clients>) {
    if let Some(clients) = clients {
        tracing::info!("{}", clients.sentence());
        for warning in &clients.warnings {
            tracing::warn!("{warning}");
        }
    }
}

/// What the server says of TLS, with certificates from there, to clients that are asked for none.
#[cfg(all(feature = "bench", not(loom)))]
pub(crate) fn server_config(certificates: Arc<dyn ResolvesServerCert>) -> ServerConfig {
    server_config_for(certificates, None)
}

/// What the server says of TLS, with certificates from there, to clients whose own are judged so.
fn server_config_for(certificates: Arc<dyn ResolvesServerCert>, judge: Option<Arc<Judge>>) -> ServerConfig {
    let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12]);
    let config = config.expect("there are suites for both versions");
    let config = match judge {
        Some(judge) => config.with_client_cert_verifier(judge),
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_cert_resolver(certificates);
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Tickets alone, which any thread can open: a store of sessions would be memory for each client that was ever here, and a lock.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new().expect("the system has random bytes");
    // What is said before the handshake is done could be said again by whoever has heard it (RFC 8446 section 8), and published twice.
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    config
}
