//! Assembly: the threads of one server, started in order and stopped in the reverse.
//!
//! ```text
//!                     ┌────────────┐   sockets   ┌────────────┐
//!   clients ────────► │ accept-0…  │ ──────────► │ worker-0…  │ ◄── frames, commands
//!                     └────────────┘             │  pinned    │ ──► the tape's own bytes
//!                                    plain HTTP  └─┬────────▲─┘
//!                     ┌────────────┐ ◄─────────────┘        │ reads
//!   scrapes, curl ◄── │  control   │                 ┌──────┴──────┐
//!                     └─────┬──────┘ ── publish ───► │  the tape   │
//!                     ┌─────┴──────┐                 └──────▲──────┘
//!                     │ demo/replay│ ────── publish ────────┘
//!                     └────────────┘
//! ```
//!
//! A panic in one of these threads ends the process (`panic.rs`).
//!
//! To stop: readiness goes red, feeds and acceptors end, workers tell their clients, send what is on the tape and close,
//! and the control thread goes last. Beside all of them stand the thread `probe`, if there is an `--admin-listen`, and `acme`, if there
//! is an `--acme-listen`: they accept by themselves and are there until the very end. `certificates` looks after the files of TLS, and
//! `audit` writes down who was there.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use core_affinity::CoreId;
use crossbeam_channel::Sender;
use rustix::fd::OwnedFd;
use socket2::Socket;

use crate::{
    acceptor::Acceptor,
    access::Rules,
    audit::{self, Audit},
    clock::{self, Moment},
    config::{Config, ConfigError, Shown},
    control::{self, Control},
    cores::{Places, pin},
    feeds::{
        self,
        market::Market,
        replay::{self, Progress, Replay},
    },
    handover::{Inbox, Listener, Message},
    handshakes::{Handshakes, Means},
    io::{
        Line,
        epoll::{self, Epoll},
        listener,
        tls::Tls,
        waker::Waker,
    },
    limits::{Bounds, Limits},
    log::{Dropped, Log},
    panic::spawn,
    publish::Publisher,
    pulse::Pulse,
    shared::{Settings, Shared, tape_settings},
    tape::Tape,
    tls::Keys,
    worker::Worker,
};
pub use crate::{access::RulesError, audit::AuditError, feeds::replay::ReplayError, tls::KeysError};

/// Descriptors that are not connections: standard streams, epoll sets, bells, files, refusals on their way.
const DESCRIPTORS_BESIDE: u64 = 128;

/// Threads that every server has: the main one, that of the log, and the control thread.
const THREADS_BESIDE: usize = 3;

/// How long the control thread has to answer what it is in the middle of, after the workers are done.
const CONTROL_DRAIN: Duration = Duration::from_secs(1);

/// Why a server didn't start; one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting, or settings that don't go together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address that can't be listened on.
    #[error("{flag} {}: {cause}: {advice}", Shown(*address))]
    Listen {
        /// The flag that names it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
        /// What would do.
        advice: &'static str,
    },
    /// The descriptor limit is too low.
    #[error(
        "--max-connections {connections} needs {needed} descriptors, and the limit is {limit}: lower it to at most {}, \
         or raise the limit (ulimit -Hn {needed}, or LimitNOFILE={needed} in a systemd unit)",
        limit.saturating_sub(needed - *connections as u64)
    )]
    Descriptors {
        /// What was asked for.
        connections: usize,
        /// What that takes.
        needed: u64,
        /// What there is.
        limit: u64,
    },
    /// Something else than listening sockets was passed to this process.
    #[error(
        "LISTEN_FDS: {0}: pass listening TCP sockets (ListenStream= in a systemd socket unit), those for TLS by the name tls \
         (FileDescriptorName=), or none"
    )]
    Passed(#[source] io::Error),
    /// The recording can't be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A certificate or its key can't be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The file of the audit can't be opened.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A file of keys, rights or revocations can't be used.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The system has no thread left.
    #[error(
        "the thread {name} could not be started: {cause}: this server needs {needed} threads; raise the limit (TasksMax= in \
         a systemd unit, --pids-limit of a container, ulimit -u), or lower --workers and --acceptors"
    )]
    Thread {
        /// Which of them.
        name: String,
        /// How many there are to be, the main thread and the log's included.
        needed: usize,
        /// What the system says.
        cause: io::Error,
    },
    /// The system has no descriptor left for what is no connection.
    #[error(
        "a descriptor could not be made: {0}: raise the limit on descriptors (LimitNOFILE= in a systemd unit, ulimit -Hn)"
    )]
    Descriptor(#[from] io::Error),
}

impl StartError {
    /// That this thread could not be started, of all those that these settings want.
    pub fn thread(name: String, config: &Config, cause: io::Error) -> StartError {
        let workers = Places::pick(config).map_or(1, |places| places.workers.len());
        let feeds = usize::from(config.demo) + usize::from(config.replay.is_some());
        let own = [config.admin_listen, config.acme_listen].iter().flatten().count();
        let tls = if config.tls_listen.is_empty() { 0 } else { 1 + config.handshake_threads };
        let beside = THREADS_BESIDE + own + tls + usize::from(config.audit.is_some());
        let needed = beside + workers + config.addresses().count() * config.acceptors + feeds;
        StartError::Thread { name, needed, cause }
    }
}

/// Settings on their way to becoming a server.
#[derive(Debug, Default)]
pub struct Builder {
    config: Config,
    passed: Passed,
    dropped: Dropped,
    progress: Progress,
}

impl Builder {
    /// Takes all settings at once; those set before are forgotten.
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }

    /// Listens on this address, and no other. Port 0 lets the system choose; [`Server::addresses`] tells.
    pub fn listen(mut self, address: SocketAddr) -> Builder {
        self.config.listen = vec![address].into();
        self
    }

    /// Runs so many workers.
    pub fn workers(mut self, workers: usize) -> Builder {
        self.config.workers = Some(workers);
        self
    }

    /// Listens on these sockets, which listen already, in place of any address; on none, the addresses stand. They are
    /// not shut down when the server stops.
    pub fn sockets(mut self, sockets: Vec<Socket>) -> Builder {
        self.passed.clear = sockets;
        self
    }

    /// The same for TLS. With sockets of either kind, no address of `--listen` and `--tls-listen` is listened on.
    pub fn tls_sockets(mut self, sockets: Vec<Socket>) -> Builder {
        self.passed.tls = sockets;
        self
    }

    /// Changes any setting.
    pub fn set(mut self, change: impl FnOnce(&mut Config)) -> Builder {
        change(&mut self.config);
        self
    }

    /// Asks this how many lines the program's log writer had to drop so far, for the metrics.
    pub fn log_dropped(mut self, count: impl Fn() -> u64 + Send + Sync + 'static) -> Builder {
        self.dropped = Dropped(Some(Arc::new(count)));
        self
    }

    /// Tells this, now and then, how far the replay has come: how many of the file's bytes it has taken, and how many there are (0
    /// where that is not known). Called by the replay's own thread, and dropped when it ends.
    pub fn replay_progress(mut self, tell: impl FnMut(u64, u64) + Send + 'static) -> Builder {
        self.progress = Progress(Some(Box::new(tell)));
        self
    }

    /// Starts the server. When this returns, it accepts connections.
    ///
    /// # Errors
    /// [`StartError`]: nothing is left running.
    pub fn start(self) -> Result<Server, StartError> {
        Server::start(self)
    }
}

/// Listening sockets that were passed to this process.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    pub clear: Vec<Socket>,
    pub tls: Vec<Socket>,
}

impl Passed {
    pub fn is_empty(&self) -> bool {
        self.clear.is_empty() && self.tls.is_empty()
    }

    /// Puts where they listen in the place of all addresses, if there are any: whether publishing is open depends on where the server
    /// really listens.
    pub fn tell(&self, config: &mut Config) {
        let addresses = |sockets: &[Socket]| -> Vec<SocketAddr> {
            sockets.iter().filter_map(|socket| socket.local_addr().ok()?.as_socket()).collect()
        };
        if !self.is_empty() {
            (config.listen, config.tls_listen) = (addresses(&self.clear).into(), addresses(&self.tls));
        }
    }
}

/// A running server. Dropping it stops it, like [`Server::stop`].
pub struct Server {
    addresses: Vec<SocketAddr>,
    publisher: Publisher,
    config: Config,
    shared: Arc<Shared>,
    limits: Arc<Limits>,
    keys: Option<Arc<Keys>>,
    stopping: Arc<AtomicBool>,
    tls_addresses: Vec<SocketAddr>,
    listeners: Vec<Entrance>,
    bell: Option<Arc<OwnedFd>>,
    acceptors: Vec<JoinHandle<()>>,
    handshakes: Vec<(Inbox<Line>, JoinHandle<()>)>,
    workers: Vec<(Inbox<Line>, JoinHandle<()>)>,
    control: Option<(Inbox<Line>, JoinHandle<()>)>,
    admin: Option<Own>,
    acme: Option<Own>,
    feeds: Option<Feeds>,
    /// The thread that writes the audit; ends when its sender is dropped.
    audit: Option<(Sender<()>, JoinHandle<()>)>,
}

/// A listening socket, and what is spoken there.
type Entrance = (Arc<Socket>, Listener);

/// A thread with an address of its own.
struct Own {
    address: SocketAddr,
    inbox: Inbox<epoll::Socket>,
    thread: JoinHandle<()>,
}

/// The threads that end when they are told to: feeds, and the one that looks after certificates.
struct Feeds {
    stop: Sender<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// A server with the default settings, to be changed.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The addresses that it listens on, with the ports that the system chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Those of them where TLS is spoken.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.tls_addresses
    }

    /// The address for operators, with the port that the system chose, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.address)
    }

    /// The address for ACME challenges, with the port that the system chose, if there is one.
    pub fn acme_address(&self) -> Option<SocketAddr> {
        self.acme.as_ref().map(|acme| acme.address)
    }

    /// A handle for publishing from this process.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Feels whether its workers and its control thread go on, from now on.
    pub fn pulse(&self) -> Pulse {
        let workers = self.workers.iter().map(|(inbox, _)| inbox.bell());
        let control = self.control.iter().map(|(inbox, _)| inbox.bell());
        Pulse::new(Arc::clone(&self.shared.metrics), workers.chain(control).collect())
    }

    fn start(builder: Builder) -> Result<Server, StartError> {
        let Builder { mut config, passed, dropped, progress } = builder;
        let bell = if passed.is_empty() { None } else { Some(Arc::new(new_bell()?)) };
        passed.tell(&mut config);
        config.check()?;
        let places = Places::pick(&config)?;
        if let Some(sentence) = places.too_many() {
            tracing::warn!("{sentence}");
        } else if let Some(sentence) = places.by_quota() {
            tracing::info!("{sentence}");
        }
        let cores = places.workers;
        let replay = config.replay.as_ref().map(|path| Replay::open(path, replay::Options::of(&config))).transpose()?;
        let replay = replay.map(|replay| replay.telling(progress));
        let keys = Keys::load(&config)?.map(Arc::new);
        let listeners = if passed.is_empty() { listen_all(&config)? } else { adopt_all(&config, passed)? };
        let admin = config.admin_listen.map(|address| listen_admin(address, &config)).transpose()?;
        let acme = config.acme_listen.map(|address| listen_acme(address, &config)).transpose()?;
        reserve_descriptors(&config, listeners.len(), cores.len())?;
        let rules = read_rules(&config)?;
        rules.compact_revoked(clock::wall_us());
        let (audit, writer) = Audit::open(&config)?.unzip();
        let log = Log::new(config.log_limit, dropped);
        let parts = Parts::new(&config, rules, cores.len(), (log, audit.unwrap_or_default()), keys)?;
        parts.shared.tls.set(config.tls_buffers.as_u64());
        let doors = Doors { listeners, bell, admin, acme };
        parts.spawn(config, cores, doors, (replay, writer))
    }

    /// Reads certificates again, and takes over those of the `wanted` settings that can change while the server runs ([`LIVE`](crate::config::LIVE)); the others stay
    /// as they were at the start. Connections see new timeouts when their next one comes. Who may publish is asked anew for each
    /// publication: of those who are connected, only who has shown the token that is set now may, where one is needed.
    ///
    /// # Errors
    /// What is wrong with the settings or with a certificate, or that there are too few descriptors for the connections: nothing has
    /// changed.
    pub fn reload(&mut self, wanted: &Config) -> Result<(), StartError> {
        let mut wanted = wanted.clone();
        if self.bell.is_some() {
            // It listens on sockets that were passed, whatever addresses there are.
            (wanted.listen, wanted.tls_listen) = (self.config.listen.clone(), self.config.tls_listen.clone());
        }
        wanted.check()?;
        let config = self.config.with_live(&wanted);
        config.check()?;
        if config.max_connections > self.config.max_connections {
            reserve_descriptors(&config, self.listeners.len(), self.workers.len())?;
        }
        let rules = read_rules(&config)?;
        if let Some(keys) = &self.keys {
            keys.reload(&config)?;
        }
        self.limits.set(&Bounds::of(&config));
        self.shared.tls.set(config.tls_buffers.as_u64());
        let mut settings = Settings::new(&config);
        settings.access = rules.after(&self.shared.settings.get().access);
        if let Some(keys) = &self.keys {
            keys.tell_taken_back(|taken_back| settings.access.revoked().set_certificates(taken_back));
        }
        self.shared.publisher.set_topics_per_holder(settings.topics_per_holder);
        self.shared.settings.set(settings);
        // Who is subscribed to what it may see no more isn't to have it until something else wakes its worker.
        self.shared.publisher.wake_all();
        self.shared.log.set_limit(config.log_limit);
        self.shared.audit.set(&config);
        self.shared.audit.reopen();
        self.config = config;
        Ok(())
    }

    /// Stops: nobody new comes in, clients are told and sent what is on the tape, connections are closed. Waits for all of
    /// it, for `--drain-timeout` at most and a little for the closing.
    pub fn stop(mut self) {
        self.stop_all();
    }

    fn stop_all(&mut self) {
        let Some((control, control_thread)) = self.control.take() else { return };
        self.shared.close_doors();
        // The feeds come last; without them it has not started, and has nothing to say about its end.
        let has_started = self.feeds.is_some();
        if has_started {
            tracing::info!("draining: no new connections, sending what is on the tape");
        }
        if let Some(Feeds { stop, threads }) = self.feeds.take() {
            drop(stop);
            join(threads);
        }
        // Release: pairs with the Acquire of the acceptors, which look when `accept` has failed.
        self.stopping.store(true, Ordering::Release);
        if let Some(bell) = &self.bell {
            let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
        }
        for (listener, _) in self.listeners.iter().filter(|_| self.bell.is_none()) {
            // Ends a waiting `accept4(2)` with EINVAL.
            let _ = listener.shutdown(std::net::Shutdown::Both);
        }
        for acceptor in &self.acceptors {
            acceptor.thread().unpark();
        }
        join(self.acceptors.drain(..));
        for (inbox, thread) in self.handshakes.drain(..) {
            // What is not done by now ends.
            inbox.drain(Moment::now());
            join([thread]);
        }
        let until = Moment::now() + self.config.drain_timeout.get();
        let (inboxes, threads): (Vec<_>, Vec<_>) = self.workers.drain(..).unzip();
        for inbox in &inboxes {
            inbox.drain(until);
        }
        join(threads);
        control.drain(Moment::now() + CONTROL_DRAIN);
        join([control_thread]);
        for Own { inbox, thread, .. } in [self.acme.take(), self.admin.take()].into_iter().flatten() {
            inbox.drain(Moment::now() + CONTROL_DRAIN);
            join([thread]);
        }
        self.shared.log.settle(Moment::now(), true);
        // Last of all: everybody else may have something to note.
        if let Some((stop, thread)) = self.audit.take() {
            drop(stop);
            join([thread]);
        }
        if has_started {
            tracing::info!("stopped");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_all();
    }
}

/// Where clients come in.
struct Doors {
    listeners: Vec<Entrance>,
    /// Ends acceptors whose sockets must not be shut down.
    bell: Option<Arc<OwnedFd>>,
    admin: Option<Socket>,
    acme: Option<Socket>,
}

/// What the threads share, made before any of them runs.
struct Parts {
    tape: Tape,
    shared: Arc<Shared>,
    limits: Arc<Limits>,
    keys: Option<Arc<Keys>>,
    wakers: Vec<Arc<Waker>>,
    inboxes: Vec<Inbox<Line>>,
    receivers: Vec<crossbeam_channel::Receiver<Message<Line>>>,
    control_waker: Arc<Waker>,
    control: Inbox<Line>,
    control_receiver: crossbeam_channel::Receiver<Message<Line>>,
}

/// Who may do what, with the files that say it; what an operator wants to know of them is logged.
fn read_rules(config: &Config) -> Result<Rules, RulesError> {
    let (rules, notes) = Rules::read(config, clock::wall_us())?;
    notes.iter().for_each(|note| tracing::warn!("{note}"));
    rules.sentence().iter().for_each(|sentence| tracing::info!("{sentence}"));
    Ok(rules)
}

impl Parts {
    fn new(
        config: &Config,
        rules: Rules,
        workers: usize,
        told: (Log, Audit),
        keys: Option<Arc<Keys>>,
    ) -> io::Result<Parts> {
        let tape = Tape::new(tape_settings(config, clock::wall_us()));
        let wakers = (0..workers).map(|_| Ok(Arc::new(Waker::new()?))).collect::<io::Result<Vec<_>>>()?;
        let settings = Settings { access: rules, ..Settings::new(config) };
        let shared = Shared::audited(settings, told, &tape, workers, wakers.clone().into());
        let (inboxes, receivers) = wakers.iter().map(|waker| Inbox::new(config.inbox, Arc::clone(waker))).unzip();
        let control_waker = Arc::new(Waker::new()?);
        let (control, control_receiver) = Inbox::new(config.inbox, Arc::clone(&control_waker));
        Ok(Parts {
            tape,
            shared,
            limits: Limits::new(&Bounds::of(config), config.ipv6_prefix),
            keys,
            wakers,
            inboxes,
            receivers,
            control_waker,
            control,
            control_receiver,
        })
    }

    /// Starts every thread. The server exists from the first on, so that a later failure stops those before.
    fn spawn(
        self,
        config: Config,
        cores: Vec<Option<CoreId>>,
        doors: Doors,
        (replay, writer): (Option<Replay>, Option<audit::Writer>),
    ) -> Result<Server, StartError> {
        let settings = config.clone();
        let start = |name: String, run: Box<dyn FnOnce() + Send>| {
            spawn(name.clone(), run).map_err(|cause| StartError::thread(name, &settings, cause))
        };
        let Doors { listeners, bell, admin, acme } = doors;
        let spin = Duration::from_micros(config.spin);
        let stopping = Arc::new(AtomicBool::new(false));
        let context = control::Context {
            shared: Arc::clone(&self.shared),
            tape: self.tape.clone(),
            limits: Arc::clone(&self.limits),
            keys: self.keys.clone(),
            settings: control::HttpSettings::new(&config),
            inboxes: self.inboxes.iter().map(Inbox::level).collect(),
            started: Moment::now(),
        };
        let edge = Tls::new(Epoll::new(self.control_waker, Duration::ZERO)?);
        let control = Control::new(context.clone(), edge, self.control_receiver, self.inboxes.clone());
        let control_thread = start("control".into(), Box::new(move || control.run()))?;
        let mut server = Server {
            addresses: addresses_of(&config, &listeners, None),
            tls_addresses: addresses_of(&config, &listeners, Some(Listener::Tls)),
            publisher: self.shared.publisher.clone(),
            config,
            shared: Arc::clone(&self.shared),
            limits: Arc::clone(&self.limits),
            keys: self.keys,
            stopping: Arc::clone(&stopping),
            listeners: listeners.clone(),
            bell: bell.clone(),
            acceptors: Vec::new(),
            handshakes: Vec::new(),
            workers: Vec::new(),
            control: Some((self.control.clone(), control_thread)),
            admin: None,
            acme: None,
            feeds: None,
            audit: None,
        };
        if let Some(writer) = writer {
            let (stop, stopped) = crossbeam_channel::bounded(0);
            server.audit = Some((stop, start("audit".into(), Box::new(move || writer.run(&stopped)))?));
        }
        let start_own = |name: &str, socket: Socket, make: &dyn Fn(control::OwnParts) -> io::Result<Control<Epoll>>| {
            start_own(name, context.clone(), socket, make)
                .map_err(|cause| StartError::thread(name.into(), &settings, cause))
        };
        server.admin = admin.map(|socket| start_own("probe", socket, &Control::admin)).transpose()?;
        let https = server.tls_addresses.first().map(SocketAddr::port);
        let acme_of = |parts| Control::acme(parts, &settings, https);
        server.acme = acme.map(|socket| start_own("acme", socket, &acme_of)).transpose()?;
        let each = self.inboxes.iter().zip(self.receivers).zip(self.wakers).zip(cores).enumerate();
        for (index, (((inbox, receiver), waker), core)) in each {
            let edge = Tls::new(Epoll::new(waker, spin)?);
            let (shared, tape, control) = (Arc::clone(&self.shared), self.tape.clone(), self.control.clone());
            let run = move || {
                pin(core, index);
                Worker::new(index, shared, tape, edge, receiver, control).run();
            };
            let thread = start(format!("worker-{index}"), Box::new(run))?;
            server.workers.push((inbox.clone(), thread));
        }
        server.start_handshakes(&self.inboxes)?;
        for (index, (listener, by)) in listeners.into_iter().enumerate() {
            let handshakes = || server.handshakes.iter().map(|(inbox, _)| inbox.clone()).collect();
            let acceptor = Acceptor {
                listener,
                limits: Arc::clone(&self.limits),
                shared: Arc::clone(&self.shared),
                by,
                takers: if by == Listener::Tls { handshakes() } else { self.inboxes.clone() },
                stopping: Arc::clone(&stopping),
                bell: bell.clone(),
                is_stuck: Cell::new(false),
            };
            server.acceptors.push(start(format!("accept-{index}"), Box::new(move || acceptor.run()))?);
        }
        server.start_feeds(replay)?;
        Ok(server)
    }
}

impl Server {
    /// Starts the threads that do handshakes, if there is TLS; they hand on to `workers`.
    fn start_handshakes(&mut self, workers: &[Inbox<Line>]) -> Result<(), StartError> {
        let Some(keys) = &self.keys else { return Ok(()) };
        let means = Means { terms: keys.terms(), buffers: Arc::clone(&self.shared.tls) };
        let places = self.config.handshakes.div_ceil(self.config.handshake_threads);
        for index in 0..self.config.handshake_threads {
            let waker = Arc::new(Waker::new()?);
            let (inbox, receiver) = Inbox::new(self.config.inbox, Arc::clone(&waker));
            let edge = Epoll::new(waker, Duration::ZERO)?;
            let (shared, means, workers) = (Arc::clone(&self.shared), means.clone(), workers.to_vec());
            let name = format!("handshake-{index}");
            let run = move || Handshakes::new(edge, shared, means, receiver, workers, places).run();
            let thread = spawn(name.clone(), run).map_err(|cause| StartError::thread(name, &self.config, cause))?;
            self.handshakes.push((inbox, thread));
        }
        Ok(())
    }

    fn start_feeds(&mut self, replay: Option<Replay>) -> Result<(), StartError> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let mut threads = Vec::new();
        let failed = |name: &str, cause| StartError::thread(name.into(), &self.config, cause);
        if self.config.demo {
            let (market, sink, stopped) = (Market::of(&self.config), self.publisher.clone(), stopped.clone());
            let run = move || {
                feeds::demo::run(market, sink, &stopped);
            };
            threads.push(spawn("demo".into(), run).map_err(|cause| failed("demo", cause))?);
        }
        if let Some(replay) = replay {
            let (sink, stopped) =
                (self.publisher.for_replay(self.config.max_replay_message.as_u64() as usize), stopped.clone());
            let run = move || {
                replay.run(sink, &stopped);
            };
            threads.push(spawn("replay".into(), run).map_err(|cause| failed("replay", cause))?);
        }
        if let Some(keys) = self.keys.clone() {
            let shared = Arc::clone(&self.shared);
            let tell = move |taken_back| {
                shared.settings.get().access.revoked().set_certificates(taken_back);
                // Whoever shows one of them has it no longer from now on, and not when something else wakes its worker.
                shared.publisher.wake_all();
            };
            let run = move || keys.watch(&stopped, tell);
            threads.push(spawn("certificates".into(), run).map_err(|cause| failed("certificates", cause))?);
        }
        self.feeds = Some(Feeds { stop, threads });
        Ok(())
    }
}

/// Starts a thread with an address of its own.
fn start_own(
    name: &str,
    context: control::Context,
    socket: Socket,
    make: impl FnOnce(control::OwnParts) -> io::Result<Control<Epoll>>,
) -> io::Result<Own> {
    let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    let waker = Arc::new(Waker::new()?);
    // For the word to stop.
    let (inbox, receiver) = Inbox::new(1, Arc::clone(&waker));
    let control =
        make(control::OwnParts { context, edge: Epoll::new(waker, Duration::ZERO)?, inbox: receiver, socket })?;
    Ok(Own { address, inbox, thread: spawn(name.into(), move || control.run())? })
}

/// A descriptor for each connection, and what there is beside them.
pub(crate) fn descriptors_needed(config: &Config, listeners: usize, workers: usize) -> u64 {
    // The addresses of operators and of challenges have each a listening socket, epoll set and bell beside their connections.
    let own = [config.admin_listen, config.acme_listen].iter().flatten().count() * (control::OWN_CONNECTIONS_MAX + 3);
    config.max_connections as u64 + DESCRIPTORS_BESIDE + (listeners + 4 * workers + own) as u64
}

/// Makes room for the descriptors of all connections.
fn reserve_descriptors(config: &Config, listeners: usize, workers: usize) -> Result<(), StartError> {
    let needed = descriptors_needed(config, listeners, workers);
    listener::reserve_descriptors(needed).map_err(|limit| StartError::Descriptors {
        connections: config.max_connections,
        needed,
        limit,
    })
}

fn listen_options(config: &Config) -> listener::ListenOptions {
    listener::ListenOptions {
        backlog: config.backlog,
        send_buffer: config.sndbuf.as_u64() as usize,
        receive_buffer: config.rcvbuf.as_u64() as usize,
    }
}

/// Sockets that were passed to this process, each once for every acceptor.
fn adopt_all(config: &Config, passed: Passed) -> Result<Vec<Entrance>, StartError> {
    let mut listeners = Vec::new();
    let clear = passed.clear.into_iter().map(|socket| (socket, Listener::Clear));
    for (socket, by) in clear.chain(passed.tls.into_iter().map(|socket| (socket, Listener::Tls))) {
        listener::adopt(&socket, listen_options(config)).map_err(StartError::Passed)?;
        let socket = Arc::new(socket);
        listeners.extend((0..config.acceptors).map(|_| (Arc::clone(&socket), by)));
    }
    Ok(listeners)
}

fn new_bell() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?)
}

fn listen_all(config: &Config) -> Result<Vec<Entrance>, StartError> {
    let mut listeners = Vec::new();
    let clear = config.listen.iter().map(|address| (address, Listener::Clear, "--listen"));
    let tls = config.tls_listen.iter().map(|address| (address, Listener::Tls, "--tls-listen"));
    for (address, by, flag) in clear.chain(tls) {
        let sockets = listener::listen(*address, config.acceptors, listen_options(config));
        let sockets = sockets.map_err(|cause| no_listening(flag, *address, cause))?;
        listeners.extend(sockets.into_iter().map(|socket| (Arc::new(socket), by)));
    }
    Ok(listeners)
}

fn listen_admin(address: SocketAddr, config: &Config) -> Result<Socket, StartError> {
    let sockets = listener::listen(address, 1, listen_options(config));
    let mut sockets = sockets.map_err(|cause| no_listening("--admin-listen", address, cause))?;
    Ok(sockets.swap_remove(0))
}

fn listen_acme(address: SocketAddr, config: &Config) -> Result<Socket, StartError> {
    let socket = listener::listen_for_all(address, listen_options(config));
    socket.map_err(|cause| no_listening("--acme-listen", address, cause))
}

fn no_listening(flag: &'static str, address: SocketAddr, cause: io::Error) -> StartError {
    let advice = match cause.kind() {
        io::ErrorKind::AddrInUse => "another program listens there; stop it or choose another port",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address; choose one of its own",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege (AmbientCapabilities=CAP_NET_BIND_SERVICE in a systemd unit); have it, or choose a \
             higher one"
        }
        _ => "choose another address",
    };
    StartError::Listen { flag, address, cause, advice }
}

fn addresses_of(config: &Config, listeners: &[Entrance], only: Option<Listener>) -> Vec<SocketAddr> {
    let firsts = listeners.iter().step_by(config.acceptors).filter(|(_, by)| only.is_none_or(|only| *by == only));
    firsts.filter_map(|(listener, _)| listener.local_addr().ok()?.as_socket()).collect()
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        let ended = thread.join();
        debug_assert!(ended.is_ok(), "a panic ends the process");
    }
}
