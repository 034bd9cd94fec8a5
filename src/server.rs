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
//! To stop: readiness goes red, feeds and acceptors end, workers tell their clients, send what is on the tape and close,
//! and the control thread goes last.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use core_affinity::CoreId;
use crossbeam_channel::Sender;
use rustix::fd::OwnedFd;
use socket2::Socket;

use crate::{
    acceptor::Acceptor,
    clock::{self, Moment},
    config::{Config, ConfigError, Pin},
    control::{self, Control},
    feeds::{
        self,
        market::Market,
        replay::{self, Replay, ReplayError},
    },
    handover::{Inbox, Message},
    io::{epoll::Epoll, listener, waker::Waker},
    limits::{Bounds, Limits},
    live::Live,
    metrics::Metrics,
    publish::Publisher,
    tape::{Tape, TapeSettings},
    topic::Subscriptions,
    worker::{Settings, Shared, SlowClients, Worker},
};

/// Descriptors that are not connections: standard streams, epoll sets, bells, files, refusals on their way.
const DESCRIPTORS_BESIDE: u64 = 96;

/// How long the control thread has to answer what it is in the middle of, after the workers are done.
const CONTROL_DRAIN: Duration = Duration::from_secs(1);

/// Why a server didn't start; one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting, or settings that don't go together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address that can't be listened on.
    #[error("--listen {address}: {cause}: {advice}")]
    Listen {
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
    #[error("LISTEN_FDS: {0}: pass listening TCP sockets (ListenStream= in a systemd socket unit), or none")]
    Passed(#[source] io::Error),
    /// The recording can't be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The system has no thread or descriptor left.
    #[error("a thread could not be started: {0}")]
    Thread(#[source] io::Error),
}

/// Settings on their way to becoming a server.
#[derive(Debug, Default)]
pub struct Builder {
    config: Config,
    sockets: Vec<Socket>,
}

impl Builder {
    /// Takes all settings at once; those set before are forgotten.
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }

    /// Listens on this address, and no other. Port 0 lets the system choose; [`Server::addresses`] tells.
    pub fn listen(mut self, address: SocketAddr) -> Builder {
        self.config.listen = vec![address];
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
        self.sockets = sockets;
        self
    }

    /// Changes any setting.
    pub fn set(mut self, change: impl FnOnce(&mut Config)) -> Builder {
        change(&mut self.config);
        self
    }

    /// Starts the server. When this returns, it accepts connections.
    ///
    /// # Errors
    /// [`StartError`]: nothing is left running.
    pub fn start(self) -> Result<Server, StartError> {
        Server::start(self.config, self.sockets)
    }
}

/// A running server. Dropping it stops it, like [`Server::stop`].
pub struct Server {
    addresses: Vec<SocketAddr>,
    publisher: Publisher,
    config: Config,
    shared: Arc<Shared>,
    limits: Arc<Limits>,
    ready: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    listeners: Vec<Arc<Socket>>,
    bell: Option<Arc<OwnedFd>>,
    acceptors: Vec<JoinHandle<()>>,
    workers: Vec<(Inbox<OwnedFd>, JoinHandle<()>)>,
    control: Option<(Inbox<OwnedFd>, JoinHandle<()>)>,
    feeds: Option<Feeds>,
}

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

    /// A handle for publishing from this process.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    fn start(mut config: Config, passed: Vec<Socket>) -> Result<Server, StartError> {
        let bell = if passed.is_empty() { None } else { Some(Arc::new(new_bell().map_err(StartError::Thread)?)) };
        if !passed.is_empty() {
            // Whether publishing is open depends on where the server really listens.
            config.listen = addresses_passed(&passed);
        }
        config.check()?;
        let cores = pick_cores(&config)?;
        let replay = config.replay.as_ref().map(|path| Replay::open(path, replay::Options::of(&config))).transpose()?;
        let listeners = if passed.is_empty() { listen_all(&config)? } else { adopt_all(&config, passed)? };
        reserve_descriptors(&config, listeners.len(), cores.len())?;
        let addresses = addresses_of(&config, &listeners);
        let parts = Parts::new(&config, cores.len()).map_err(StartError::Thread)?;
        parts.spawn(config, cores, listeners, bell, addresses, replay).map_err(StartError::Thread)
    }

    /// Takes over those of the `wanted` settings that can change while the server runs ([`LIVE`](crate::config::LIVE)); the others stay
    /// as they were at the start. Connections see new timeouts when their next one comes, and who has shown the token
    /// that was right keeps the right to publish until it disconnects.
    ///
    /// # Errors
    /// What is wrong with the settings, or that there are too few descriptors for the connections: nothing has changed.
    pub fn reload(&mut self, wanted: &Config) -> Result<(), StartError> {
        wanted.check()?;
        let config = self.config.with_live(wanted);
        config.check()?;
        if config.max_connections > self.config.max_connections {
            reserve_descriptors(&config, self.listeners.len(), self.workers.len())?;
        }
        self.limits.set(&Bounds::of(&config));
        self.shared.settings.set(Settings::new(&config));
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
        self.ready.store(false, Ordering::Release);
        tracing::info!("draining: no new connections, sending what is on the tape");
        if let Some(Feeds { stop, threads }) = self.feeds.take() {
            drop(stop);
            join(threads);
        }
        // Release: pairs with the Acquire of the acceptors, which look when `accept` has failed.
        self.stopping.store(true, Ordering::Release);
        if let Some(bell) = &self.bell {
            let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
        }
        for listener in self.listeners.iter().filter(|_| self.bell.is_none()) {
            // Ends a waiting `accept4(2)` with EINVAL.
            let _ = listener.shutdown(std::net::Shutdown::Both);
        }
        for acceptor in &self.acceptors {
            acceptor.thread().unpark();
        }
        join(self.acceptors.drain(..));
        let until = Moment::now() + self.config.drain_timeout.get();
        let (inboxes, threads): (Vec<_>, Vec<_>) = self.workers.drain(..).unzip();
        for inbox in &inboxes {
            inbox.drain(until);
        }
        join(threads);
        control.drain(Moment::now() + CONTROL_DRAIN);
        join([control_thread]);
        tracing::info!("stopped");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_all();
    }
}

/// What the threads share, made before any of them runs.
struct Parts {
    tape: Tape,
    shared: Arc<Shared>,
    limits: Arc<Limits>,
    wakers: Vec<Arc<Waker>>,
    inboxes: Vec<Inbox<OwnedFd>>,
    receivers: Vec<crossbeam_channel::Receiver<Message<OwnedFd>>>,
    control_waker: Arc<Waker>,
    control: Inbox<OwnedFd>,
    control_receiver: crossbeam_channel::Receiver<Message<OwnedFd>>,
}

impl Parts {
    fn new(config: &Config, workers: usize) -> io::Result<Parts> {
        let settings = Settings::new(config);
        let tape = Tape::new(TapeSettings {
            retain: config.retain.as_u64() as usize,
            segment: config.segment.as_u64() as usize,
            message_max: settings.message_max,
            topics_max: config.max_topics,
            value_bytes_max: config.max_values.as_u64() as usize,
            epoch: clock::wall_us(),
        });
        let metrics = Arc::new(Metrics::new(workers));
        let wakers = (0..workers).map(|_| Ok(Arc::new(Waker::new()?))).collect::<io::Result<Vec<_>>>()?;
        let for_publisher: Arc<[Arc<Waker>]> = wakers.clone().into();
        let publisher = Publisher::new(tape.clone(), for_publisher, Arc::clone(&metrics), config.max_topic_length);
        let subscriptions = Subscriptions::new(config.max_subscriptions_total);
        let (inboxes, receivers) = wakers.iter().map(|waker| Inbox::new(config.inbox, Arc::clone(waker))).unzip();
        let control_waker = Arc::new(Waker::new()?);
        let (control, control_receiver) = Inbox::new(config.inbox, Arc::clone(&control_waker));
        Ok(Parts {
            tape,
            shared: Arc::new(Shared {
                settings: Live::new(settings),
                publisher,
                subscriptions,
                metrics,
                slow: SlowClients::new(workers),
            }),
            limits: Limits::new(&Bounds::of(config), config.ipv6_prefix),
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
        listeners: Vec<Arc<Socket>>,
        bell: Option<Arc<OwnedFd>>,
        addresses: Vec<SocketAddr>,
        replay: Option<Replay>,
    ) -> io::Result<Server> {
        let spin = Duration::from_micros(config.spin);
        let ready = Arc::new(AtomicBool::new(true));
        let stopping = Arc::new(AtomicBool::new(false));
        let context = control::Context {
            shared: Arc::clone(&self.shared),
            tape: self.tape.clone(),
            limits: Arc::clone(&self.limits),
            settings: control::Settings::new(&config),
            workers: self.inboxes.clone(),
            readiness: Arc::clone(&ready),
            started: Moment::now(),
        };
        let edge = Epoll::new(self.control_waker, Duration::ZERO)?;
        let control = Control::new(context, edge, self.control_receiver);
        let control_thread = spawn("control".into(), move || control.run())?;
        let mut server = Server {
            addresses,
            publisher: self.shared.publisher.clone(),
            config,
            shared: Arc::clone(&self.shared),
            limits: Arc::clone(&self.limits),
            ready,
            stopping: Arc::clone(&stopping),
            listeners: listeners.clone(),
            bell: bell.clone(),
            acceptors: Vec::new(),
            workers: Vec::new(),
            control: Some((self.control.clone(), control_thread)),
            feeds: None,
        };
        let each = self.inboxes.iter().zip(self.receivers).zip(self.wakers).zip(cores).enumerate();
        for (index, (((inbox, receiver), waker), core)) in each {
            let edge = Epoll::new(waker, spin)?;
            let (shared, tape, control) = (Arc::clone(&self.shared), self.tape.clone(), self.control.clone());
            let thread = spawn(format!("worker-{index}"), move || {
                pin(core, index);
                Worker::new(index, shared, tape, edge, receiver, control).run();
            })?;
            server.workers.push((inbox.clone(), thread));
        }
        for (index, listener) in listeners.into_iter().enumerate() {
            let acceptor = Acceptor {
                listener,
                limits: Arc::clone(&self.limits),
                shared: Arc::clone(&self.shared),
                workers: self.inboxes.clone(),
                stopping: Arc::clone(&stopping),
                bell: bell.clone(),
            };
            server.acceptors.push(spawn(format!("accept-{index}"), move || acceptor.run())?);
        }
        server.start_feeds(replay)?;
        Ok(server)
    }
}

impl Server {
    fn start_feeds(&mut self, replay: Option<Replay>) -> io::Result<()> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let mut threads = Vec::new();
        if self.config.demo {
            let (market, sink, stopped) = (Market::of(&self.config), self.publisher.clone(), stopped.clone());
            threads.push(spawn("demo".into(), move || {
                feeds::demo::run(market, sink, &stopped);
            })?);
        }
        if let Some(replay) = replay {
            let sink = self.publisher.clone();
            threads.push(spawn("replay".into(), move || {
                replay.run(sink, &stopped);
            })?);
        }
        self.feeds = Some(Feeds { stop, threads });
        Ok(())
    }
}

/// A descriptor for each connection, and what there is beside them.
pub(crate) fn descriptors_needed(config: &Config, listeners: usize, workers: usize) -> u64 {
    config.max_connections as u64 + DESCRIPTORS_BESIDE + (listeners + 4 * workers) as u64
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

/// Which core each worker is pinned to; as many entries as there are workers.
pub(crate) fn pick_cores(config: &Config) -> Result<Vec<Option<CoreId>>, ConfigError> {
    let usable = core_affinity::get_core_ids().unwrap_or_default();
    let cores = match &config.pin {
        Pin::None => Vec::new(),
        Pin::Auto => usable.clone(),
        Pin::Cores(list) => list.iter().map(|id| CoreId { id: *id }).collect(),
    };
    if let Some(missing) = cores.iter().find(|core| !usable.contains(core)) {
        let names: Vec<String> = usable.iter().map(|core| core.id.to_string()).collect();
        let names = names.join(",");
        return Err(ConfigError(format!(
            "--pin {}: this process may not run on core {}: name cores among {names}",
            config.pin, missing.id
        )));
    }
    let workers = config.workers.unwrap_or(if cores.is_empty() { usable.len().max(1) } else { cores.len() });
    if workers > cores.len() {
        return Ok(vec![None; workers]);
    }
    Ok(cores.into_iter().take(workers).map(Some).collect())
}

fn pin(core: Option<CoreId>, worker: usize) {
    if let Some(core) = core
        && !core_affinity::set_for_current(core)
    {
        tracing::warn!(worker, core = core.id, "a worker could not be pinned");
    }
}

fn listen_options(config: &Config) -> listener::ListenOptions {
    listener::ListenOptions {
        backlog: config.backlog,
        send_buffer: config.sndbuf.as_u64() as usize,
        receive_buffer: config.rcvbuf.as_u64() as usize,
    }
}

/// Sockets that were passed to this process, each once for every acceptor.
fn adopt_all(config: &Config, passed: Vec<Socket>) -> Result<Vec<Arc<Socket>>, StartError> {
    let mut listeners = Vec::new();
    for socket in passed {
        listener::adopt(&socket, listen_options(config)).map_err(StartError::Passed)?;
        let socket = Arc::new(socket);
        listeners.extend((0..config.acceptors).map(|_| Arc::clone(&socket)));
    }
    Ok(listeners)
}

pub(crate) fn addresses_passed(passed: &[Socket]) -> Vec<SocketAddr> {
    passed.iter().filter_map(|socket| socket.local_addr().ok()?.as_socket()).collect()
}

fn new_bell() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?)
}

fn listen_all(config: &Config) -> Result<Vec<Arc<Socket>>, StartError> {
    let mut listeners = Vec::new();
    for address in &config.listen {
        let sockets = listener::listen(*address, config.acceptors, listen_options(config)).map_err(|cause| {
            let advice = match cause.kind() {
                io::ErrorKind::AddrInUse => "another program listens there; stop it or choose another port",
                io::ErrorKind::AddrNotAvailable => "this machine has no such address; choose one of its own",
                io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege; choose a higher one",
                _ => "choose another address",
            };
            StartError::Listen { address: *address, cause, advice }
        })?;
        listeners.extend(sockets.into_iter().map(Arc::new));
    }
    Ok(listeners)
}

fn addresses_of(config: &Config, listeners: &[Arc<Socket>]) -> Vec<SocketAddr> {
    let firsts = listeners.iter().step_by(config.acceptors);
    firsts.filter_map(|listener| listener.local_addr().ok()?.as_socket()).collect()
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(run)
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread had panicked");
        }
    }
}
