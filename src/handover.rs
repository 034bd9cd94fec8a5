//! Handing a socket from one thread to another: a bounded channel and a bell.
//!
//! The acceptor hands new sockets to workers; a worker hands those that turn out to be plain HTTP to the control thread,
//! together with what it has read; the control thread hands a later upgrade on the same connection back. However many
//! sockets are queued, a sleeping receiver is rung once.

use std::{net::SocketAddr, sync::Arc};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::{clock::Moment, io::waker::Waker, limits::Permit, metrics::Metrics};

/// A connected socket on its way to the thread that will own it.
#[derive(Debug)]
pub struct Arrival<S> {
    /// The socket.
    pub socket: S,
    /// Who is at its other end.
    pub peer: SocketAddr,
    /// Its room among the connections.
    pub permit: Permit,
    /// The kind of listener that it came by.
    pub by: Listener,
    /// How far it is.
    pub beginning: Beginning,
}

/// The kind of listener that a connection came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// One for clients, who speak in clear.
    Clear,
    /// One for clients, who speak TLS.
    Tls,
    /// The admin address.
    Admin,
    /// The address for challenges.
    Acme,
}

/// Whether what is asked for at this path is a worker's to answer. What may be asked there (`OPTIONS`) is not.
pub fn is_for_worker(path: &str) -> bool {
    matches!(path, "/ws" | "/ws/" | "/sse" | "/sse/" | "/poll" | "/poll/")
        || path.starts_with("/raw/")
        || path.starts_with("/history/")
}

/// How far a connection is that is handed over.
#[derive(Debug)]
pub enum Beginning {
    /// Nothing was read: what comes first is its beginning, and may be a PROXY header.
    Awaited,
    /// It has begun, and who is at its other end is known; these bytes of its next request were read.
    Read(Vec<u8>),
}

impl Beginning {
    /// The bytes that were read, and whether the beginning is still to come.
    pub fn into_read(self) -> (Vec<u8>, bool) {
        match self {
            Beginning::Awaited => (Vec::new(), true),
            Beginning::Read(bytes) => (bytes, false),
        }
    }
}

/// What a thread finds in its inbox.
#[derive(Debug)]
pub enum Message<S> {
    /// A socket to take over.
    Take(Arrival<S>),
    /// Stop: send what there is to send, and be done by then.
    Drain {
        /// The latest moment.
        until: Moment,
    },
}

/// The sending end of a thread's inbox; a thread is reached only through this.
#[derive(Debug)]
pub struct Inbox<S> {
    sender: Sender<Message<S>>,
    waker: Arc<Waker>,
}

impl<S> Clone for Inbox<S> {
    fn clone(&self) -> Self {
        Inbox { sender: self.sender.clone(), waker: Arc::clone(&self.waker) }
    }
}

impl<S> Inbox<S> {
    /// An inbox for at most `len_max` messages, whose owner sleeps beside `waker`.
    pub fn new(len_max: usize, waker: Arc<Waker>) -> (Inbox<S>, Receiver<Message<S>>) {
        let (sender, receiver) = bounded(len_max);
        (Inbox { sender, waker }, receiver)
    }

    /// Hands a socket over.
    ///
    /// # Errors
    /// The socket itself, when the inbox is full or its owner has gone.
    pub fn hand_over(&self, arrival: Arrival<S>) -> Result<(), Arrival<S>> {
        match self.sender.try_send(Message::Take(arrival)) {
            Ok(()) => {
                self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(Message::Take(arrival)) | TrySendError::Disconnected(Message::Take(arrival))) => {
                Err(arrival)
            }
            Err(_) => unreachable!("what was sent comes back"),
        }
    }

    /// Tells the owner to stop; waits for room if it must, because the owner is reading.
    pub fn drain(&self, until: Moment) {
        self.waker.wake();
        let _ = self.sender.send(Message::Drain { until });
        self.waker.wake();
    }

    /// What wakes the owner.
    pub fn bell(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// How many messages wait.
    pub fn waiting(&self) -> usize {
        self.sender.len()
    }
}

/// How full an inbox is, for whoever only looks: whatever kind of socket it takes.
#[derive(Clone)]
pub struct Level(Arc<dyn Fn() -> usize + Send + Sync>);

impl Level {
    /// How many messages wait.
    pub fn get(&self) -> usize {
        (self.0)()
    }
}

impl<S: Send + 'static> Inbox<S> {
    /// How full it is, from now on.
    pub fn level(&self) -> Level {
        let sender = self.sender.clone();
        Level(Arc::new(move || sender.len()))
    }
}

/// Hands a socket to the worker with the fewest connections, those on the way included; to the next, if its inbox is full.
///
/// # Errors
/// The socket itself, when every inbox is full.
pub fn hand_to_fewest<S>(workers: &[Inbox<S>], metrics: &Metrics, arrival: Arrival<S>) -> Result<(), Arrival<S>> {
    hand_by(workers, |n| metrics.workers[n].connections.get() as usize + workers[n].waiting(), arrival)
}

/// Hands a socket to whom the fewest wait for; to the next, if its inbox is full.
///
/// # Errors
/// The socket itself, when every inbox is full.
pub fn hand_to_idlest<S>(takers: &[Inbox<S>], arrival: Arrival<S>) -> Result<(), Arrival<S>> {
    hand_by(takers, |n| takers[n].waiting(), arrival)
}

fn hand_by<S>(takers: &[Inbox<S>], load: impl Fn(usize) -> usize, mut arrival: Arrival<S>) -> Result<(), Arrival<S>> {
    let mut order: Vec<usize> = (0..takers.len()).collect();
    order.sort_by_key(|n| load(*n));
    for n in order {
        match takers[n].hand_over(arrival) {
            Ok(()) => return Ok(()),
            Err(back) => arrival = back,
        }
    }
    Err(arrival)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    #[test]
    fn a_full_inbox_gives_the_socket_back_and_the_next_worker_takes_it() {
        let limits = Limits::of_connections(10);
        let peer: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let permit = || limits.admit(Some(peer.ip()), Moment::default()).unwrap();
        let (by, beginning) = (Listener::Clear, || Beginning::Awaited);
        let arrival = |n| Arrival { socket: n, peer, permit: permit(), by, beginning: beginning() };
        let waker = || Arc::new(Waker::new().unwrap());
        let (workers, receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| Inbox::new(1, waker())).unzip();
        let metrics = Metrics::new(2);
        metrics.workers[0].connections.set(5);
        // The second has the fewest, then it is full, then both are.
        assert!(hand_to_fewest(&workers, &metrics, arrival(1)).is_ok());
        assert!(hand_to_fewest(&workers, &metrics, arrival(2)).is_ok());
        assert_eq!(hand_to_fewest(&workers, &metrics, arrival(3)).unwrap_err().socket, 3);
        let taken = |n: usize| match receivers[n].try_recv().unwrap() {
            Message::Take(arrival) => arrival.socket,
            Message::Drain { .. } => panic!("nobody said so"),
        };
        assert_eq!((taken(0), taken(1)), (2, 1));
        assert_eq!(limits.connections(), 0, "whoever is dropped gives its room back");
    }
}
