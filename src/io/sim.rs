//! A simulated edge: sockets in memory, a clock that the test owns, and bad luck from a seed.
//!
//! One thread, no kernel. A socket is two byte queues; the worker's end is a [`Socket`], the other end a [`Peer`] that the
//! test writes to and reads from when it likes. What a kernel may do, this one does, at random but by the seed:
//!
//! - a send takes any part of the bytes, or none, also where there is room for more;
//! - a read hands out any part of what is there, down to one byte;
//! - a wait reports some of the sockets that are ready, in any order, and now and then one that isn't;
//! - a peer ends, breaks the connection, doesn't read for as long as the test likes, or vanishes without a word;
//! - a peer's TCP acknowledges what its window has room for, which may be much more than the peer has read; it answers the
//!   questions of one that is full late, and one of them not at all.
//!
//! Readiness is level-triggered: a socket that was full is writable again and again, until [`Edge::flush`].
//!
//! There may be several workers, each with an edge of its own; the test decides whose turn it is. A wait that finds nothing to
//! do announces sleep beside the worker's real [`Waker`], and the worker may take no turn ([`Kernel::may_run`]) until that is
//! rung, a socket of its own is ready, or its timeout is over. So what nobody wakes it for, it sleeps over. Time passes only while
//! all sleep ([`Kernel::pass_time`]), and no further than the test allows ([`Kernel::allow`]).

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

#[cfg(test)]
use super::tls::testing::Client;
use super::{
    Edge, Flushed, Ready, Received, Sent, Token,
    acks::Acks,
    path::Path,
    waker::{Sleep, Waker},
};
use crate::clock::Moment;

/// What the workers' edges and the test share.
pub struct Kernel {
    random: RefCell<fastrand::Rng>,
    now: Cell<u64>,
    /// Time doesn't pass beyond this.
    allowed: Cell<u64>,
    /// The wall clock's microseconds at the monotonic clock's zero; steps when somebody sets it.
    wall: Cell<u64>,
    sleepers: RefCell<Vec<Sleeper>>,
    /// Bytes moved and time passed, in no unit: when it stands still, nothing happens.
    progress: Cell<u64>,
    watched: RefCell<Vec<Rc<RefCell<Wire>>>>,
    /// What another thread does just before the worker falls asleep.
    meanwhile: RefCell<Option<Act>>,
    /// What another thread does just before a worker's call: that which is so many calls from now.
    between: RefCell<Option<(u32, Act)>>,
}

/// What another thread does.
type Act = Box<dyn FnOnce()>;

/// One worker's sleep.
struct Sleeper {
    waker: Arc<Waker>,
    /// Its last wait had nothing to do.
    asleep: bool,
    /// Where `progress` stood at that time.
    asleep_at: u64,
    /// When that wait's timeout is over.
    until: u64,
    /// It was rung, or the test wakes it for nothing.
    rung: bool,
}

/// The two queues of one connection.
struct Wire {
    to_worker: VecDeque<u8>,
    /// Bytes that have come from the peer.
    received: u64,
    to_peer: VecDeque<u8>,
    /// Bytes that `to_peer` holds at most.
    room: usize,
    /// Of those, how many the peer's TCP holds, and acknowledges.
    window: usize,
    /// Bytes that the peer has read.
    read: u64,
    /// Bytes that its TCP has acknowledged, and when it did last.
    acked: u64,
    acked_at: u64,
    /// The peer is gone without a word.
    vanished: bool,
    /// Since when the kernel asks a peer that doesn't answer.
    asked_since: Option<u64>,
    /// A quiet peer is asked when so many nanoseconds have gone by.
    asks_after: Option<u64>,
    watch: Option<Watch>,
    broken: Option<io::ErrorKind>,
    /// The peer sends no more.
    peer_ended: bool,
    /// The worker sends no more.
    finished: bool,
    /// The worker has dropped its end.
    dropped: bool,
}

#[derive(Clone, Copy)]
struct Watch {
    edge: usize,
    token: Token,
    read: bool,
    write: bool,
}

impl Wire {
    /// The peer's TCP acknowledges what it has room for.
    fn acknowledge(&mut self, now: u64) {
        let sent = self.read + self.to_peer.len() as u64;
        let takes = sent.min(self.read + self.window as u64);
        if self.vanished {
            self.asked_since = self.asked_since.or((sent > self.acked).then_some(now));
        } else if takes > self.acked {
            (self.acked, self.acked_at) = (takes, now);
        }
    }
}

impl Kernel {
    /// A kernel whose luck is `seed`.
    pub fn new(seed: u64) -> Rc<Kernel> {
        Rc::new(Kernel {
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            now: Cell::new(1_000_000_000),
            allowed: Cell::new(1_000_000_000),
            wall: Cell::new(1_700_000_000_000_000),
            sleepers: RefCell::default(),
            progress: Cell::new(0),
            watched: RefCell::default(),
            meanwhile: RefCell::default(),
            between: RefCell::default(),
        })
    }

    /// The edge of one more worker, which sleeps beside `waker`. They are numbered from 0.
    pub fn edge(self: &Rc<Kernel>, waker: Arc<Waker>) -> SimEdge {
        let mut sleepers = self.sleepers.borrow_mut();
        sleepers.push(Sleeper { waker, asleep: false, asleep_at: 0, until: 0, rung: false });
        SimEdge { kernel: Rc::clone(self), index: sleepers.len() - 1 }
    }

    /// A connection, whose queue towards the peer holds `room` bytes, some of them at the peer's side.
    pub fn connect(self: &Rc<Kernel>, room: usize) -> (Socket, Peer) {
        let room = room.max(1);
        let wire = Rc::new(RefCell::new(Wire {
            to_worker: VecDeque::new(),
            received: 0,
            to_peer: VecDeque::new(),
            room,
            window: self.random.borrow_mut().usize(1..=room),
            read: 0,
            acked: 0,
            acked_at: self.now.get(),
            vanished: false,
            asked_since: None,
            asks_after: None,
            watch: None,
            broken: None,
            peer_ended: false,
            finished: false,
            dropped: false,
        }));
        (
            Socket { wire: Rc::clone(&wire), kernel: Rc::clone(self) },
            Peer {
                wire,
                kernel: Rc::clone(self),
                #[cfg(test)]
                tls: None,
            },
        )
    }

    /// Lets so much time pass at once.
    pub fn advance(&self, length: Duration) {
        self.now.set(self.now.get() + length.as_nanos() as u64);
        self.allow(Duration::ZERO);
    }

    /// Lets so much time pass from now on.
    pub fn allow(&self, length: Duration) {
        self.allowed.set(self.now.get() + length.as_nanos() as u64);
    }

    /// Whether this worker may take a turn: it doesn't sleep, or something has woken it.
    pub fn may_run(&self, edge: usize) -> bool {
        let sleeper = &mut self.sleepers.borrow_mut()[edge];
        sleeper.rung |= sleeper.asleep && sleeper.was_rung();
        let stirs = |wire: &Rc<RefCell<Wire>>| {
            let wire = wire.borrow();
            wire.watch.is_some_and(|watch| watch.edge == edge && wire.readiness(watch) != (false, false))
        };
        !sleeper.asleep || sleeper.rung || sleeper.until <= self.now.get() || self.watched.borrow().iter().any(stirs)
    }

    /// Wakes a worker for nothing, as may happen.
    pub fn disturb(&self, edge: usize) {
        self.sleepers.borrow_mut()[edge].rung = true;
    }

    /// This worker takes no more turns.
    pub fn retire(&self, edge: usize) {
        let sleeper = &mut self.sleepers.borrow_mut()[edge];
        (sleeper.asleep, sleeper.until) = (true, u64::MAX);
    }

    /// All sleep: lets time pass until one of them has to wake. False if no more is allowed.
    pub fn pass_time(&self) -> bool {
        let due = self.sleepers.borrow().iter().map(|sleeper| sleeper.until).min();
        let reached = due.unwrap_or(u64::MAX).min(self.allowed.get());
        let passed = reached.saturating_sub(self.now.get());
        self.moved(passed as usize);
        self.now.set(self.now.get() + passed);
        passed > 0
    }

    /// Whether all the time has passed that is allowed.
    pub fn time_is_up(&self) -> bool {
        self.now.get() >= self.allowed.get()
    }

    /// One of `count`, by luck; where there is just one, luck isn't asked.
    pub fn pick(&self, count: usize) -> usize {
        if count > 1 { self.random.borrow_mut().usize(..count) } else { 0 }
    }

    /// Does something in the next wait, after the worker has decided to sleep and before it looks once more.
    pub fn meanwhile(&self, act: impl FnOnce() + 'static) {
        *self.meanwhile.borrow_mut() = Some(Box::new(act));
    }

    /// Does something just before a worker's call that is so many calls from now: a look at the wall clock, a read or a send.
    pub fn between(&self, calls: u32, act: impl FnOnce() + 'static) {
        *self.between.borrow_mut() = Some((calls, Box::new(act)));
    }

    /// A worker is about to make a call.
    fn called(&self) {
        let act = self.between.borrow_mut().take_if(|(calls, _)| {
            *calls = calls.saturating_sub(1);
            *calls == 0
        });
        act.into_iter().for_each(|(_, act)| act());
    }

    /// Sets the wall clock by so many microseconds, forward or back.
    pub fn step_wall_clock(&self, us: i64) {
        self.wall.set(self.wall.get().saturating_add_signed(us));
    }

    /// Whether this worker's last wait had nothing to do.
    pub fn asleep(&self, edge: usize) -> bool {
        self.sleepers.borrow()[edge].asleep
    }

    /// Whether bytes moved after the worker had decided to sleep: then it would have slept over something.
    pub fn overslept(&self, edge: usize) -> bool {
        let sleeper = &self.sleepers.borrow()[edge];
        sleeper.asleep && self.progress.get() != sleeper.asleep_at
    }

    /// Changes whenever bytes move or time passes.
    pub fn progress(&self) -> u64 {
        self.progress.get()
    }

    /// The monotonic clock, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now.get()
    }

    /// The wall clock.
    pub fn wall_us(&self) -> u64 {
        self.wall.get() + self.now.get() / 1000
    }

    fn moved(&self, bytes: usize) {
        self.progress.set(self.progress.get() + bytes as u64);
    }

    fn one_in(&self, n: u32) -> bool {
        self.random.borrow_mut().u32(..n) == 0
    }

    /// Any number from 1 to `most`, often `most` and often small.
    fn part(&self, most: usize) -> usize {
        let mut random = self.random.borrow_mut();
        match random.u8(..8) {
            0..5 => most,
            5 => random.usize(1..=most.min(3)),
            _ => random.usize(1..=most),
        }
    }
}

impl Sleeper {
    /// Whether its bell was rung; it is still by then.
    fn was_rung(&self) -> bool {
        rustix::io::read(&self.waker, &mut [0; 8]).is_ok()
    }
}

impl Wire {
    /// Whether it can be read, and written.
    fn readiness(&self, watch: Watch) -> (bool, bool) {
        let broken = self.broken.is_some();
        let readable = broken || (watch.read && (self.peer_ended || !self.to_worker.is_empty()));
        // As the kernel does, which tells of room when a third of its own is free, not taken by what the peer has not acknowledged.
        let (own, unacked) = (self.room - self.window, self.to_peer.len().saturating_sub(self.window));
        let has_room = self.to_peer.len() < self.room && 3 * unacked <= 2 * own;
        (readable, broken || (watch.write && has_room))
    }
}

/// The worker's end of a connection.
pub struct Socket {
    wire: Rc<RefCell<Wire>>,
    kernel: Rc<Kernel>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut wire = self.wire.borrow_mut();
        (wire.dropped, wire.watch) = (true, None);
        drop(wire);
        self.kernel.watched.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.wire));
    }
}

/// The other end of a connection.
pub struct Peer {
    wire: Rc<RefCell<Wire>>,
    kernel: Rc<Kernel>,
    /// It speaks TLS.
    #[cfg(test)]
    tls: Option<RefCell<Client>>,
}

impl Peer {
    /// Sends; the worker's receive queue has room for everything.
    pub fn write(&self, bytes: &[u8]) {
        #[cfg(test)]
        if let Some(tls) = &self.tls {
            // In one record, or in pieces down to a byte.
            let most = if self.kernel.one_in(4) { 1 + self.kernel.pick(2 * bytes.len()) } else { bytes.len().max(1) };
            return self.put(&tls.borrow_mut().encrypt(bytes.chunks(most)));
        }
        self.put(bytes);
    }

    fn put(&self, bytes: &[u8]) {
        let mut wire = self.wire.borrow_mut();
        if !wire.vanished {
            wire.to_worker.extend(bytes);
            wire.received += bytes.len() as u64;
        }
    }

    /// What it writes and reads is encrypted from now on; the handshake is done.
    #[cfg(test)]
    pub fn secure(&mut self, client: Client) {
        self.tls = Some(RefCell::new(client));
    }

    /// Whether it speaks TLS.
    #[cfg(test)]
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Is gone: from now on nothing arrives, from here or there, and nothing is acknowledged.
    pub fn vanish(&self) {
        let mut wire = self.wire.borrow_mut();
        let now = self.kernel.now.get();
        if let Some(after) = wire.asks_after {
            wire.acked_at = wire.acked_at.max(now - now % after);
            wire.asked_since = Some(wire.acked_at + after);
        }
        wire.vanished = true;
        wire.acknowledge(now);
    }

    /// How many bytes that it hasn't read its TCP holds.
    pub fn window(&self) -> usize {
        self.wire.borrow().window
    }

    /// Sets that; at the beginning.
    pub fn set_window(&self, bytes: usize) {
        let mut wire = self.wire.borrow_mut();
        wire.window = bytes.min(wire.room);
    }

    /// Takes up to `most` bytes of what has arrived.
    pub fn read(&self, most: usize) -> Vec<u8> {
        let bytes = self.take(most);
        #[cfg(test)]
        if let Some(tls) = &self.tls {
            return tls.borrow_mut().decrypt(&bytes).expect("what arrives is encrypted as it should be");
        }
        bytes
    }

    fn take(&self, most: usize) -> Vec<u8> {
        let mut wire = self.wire.borrow_mut();
        if wire.vanished {
            return Vec::new();
        }
        let len = wire.to_peer.len().min(most);
        self.kernel.moved(len);
        let bytes = wire.to_peer.drain(..len).collect();
        wire.read += len as u64;
        wire.acknowledge(self.kernel.now.get());
        bytes
    }

    /// How much has arrived.
    pub fn arrived(&self) -> usize {
        self.wire.borrow().to_peer.len()
    }

    /// Sends no more.
    pub fn end(&self) {
        #[cfg(test)]
        if let Some(tls) = self.tls.as_ref().filter(|_| self.kernel.one_in(2)) {
            self.put(&tls.borrow_mut().end());
        }
        self.wire.borrow_mut().peer_ended = true;
    }

    /// Breaks the connection; what is on its way is lost.
    pub fn reset(&self) {
        let mut wire = self.wire.borrow_mut();
        wire.broken = Some(io::ErrorKind::ConnectionReset);
        wire.to_peer.clear();
        wire.to_worker.clear();
    }

    /// The worker has finished or dropped its end, and everything was read.
    pub fn at_end(&self) -> bool {
        let wire = self.wire.borrow();
        (wire.finished || wire.dropped) && wire.to_peer.is_empty()
    }

    /// The worker has dropped its end.
    pub fn dropped(&self) -> bool {
        self.wire.borrow().dropped
    }
}

/// A worker's edge.
pub struct SimEdge {
    kernel: Rc<Kernel>,
    index: usize,
}

impl Edge for SimEdge {
    type Socket = Socket;

    fn now(&self) -> Moment {
        Moment(self.kernel.now.get())
    }

    fn wall_us(&self) -> u64 {
        self.kernel.called();
        self.kernel.wall_us()
    }

    fn watch(&mut self, socket: &mut Socket, token: Token) -> io::Result<()> {
        let watch = Watch { edge: self.index, token, read: true, write: false };
        assert!(socket.wire.borrow_mut().watch.replace(watch).is_none(), "watched twice");
        self.kernel.watched.borrow_mut().push(Rc::clone(&socket.wire));
        Ok(())
    }

    fn interest(&mut self, socket: &mut Socket, read: bool) {
        socket.wire.borrow_mut().watch.as_mut().expect("interest in a socket that isn't watched").read = read;
    }

    fn unwatch(&mut self, socket: &mut Socket) {
        socket.wire.borrow_mut().watch = None;
        self.kernel.watched.borrow_mut().retain(|other| !Rc::ptr_eq(other, &socket.wire));
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        depth: Sleep,
        work: &mut dyn FnMut() -> bool,
        ready: &mut Vec<Ready>,
    ) {
        ready.clear();
        let kernel = &self.kernel;
        let sleeper = &mut kernel.sleepers.borrow_mut()[self.index];
        sleeper.waker.awake();
        sleeper.was_rung();
        (sleeper.asleep, sleeper.rung) = (false, false);
        let mut kept_back = false;
        for wire in kernel.watched.borrow().iter() {
            let wire = wire.borrow();
            let Some(watch) = wire.watch.filter(|watch| watch.edge == self.index) else { continue };
            let (readable, writable) = wire.readiness(watch);
            let spurious = kernel.one_in(50);
            if (readable || writable) && kernel.one_in(8) {
                kept_back = true;
            } else if readable || writable || spurious {
                ready.push(Ready { token: watch.token, readable: readable || spurious, writable });
            }
        }
        kernel.random.borrow_mut().shuffle(ready);
        if !ready.is_empty() || kept_back || timeout == Some(Duration::ZERO) || work() {
            return;
        }
        sleeper.waker.sleeping(depth);
        if let Some(act) = kernel.meanwhile.borrow_mut().take() {
            act();
        }
        if work() {
            return sleeper.waker.awake();
        }
        let until = timeout.map_or(u64::MAX, |timeout| (self.now() + timeout).0);
        (sleeper.asleep, sleeper.asleep_at, sleeper.until) = (true, kernel.progress.get(), until);
    }

    fn receive(&mut self, socket: &mut Socket, buffer: &mut [u8]) -> Received {
        self.kernel.called();
        let mut wire = socket.wire.borrow_mut();
        if let Some(why) = wire.broken {
            return Received::Broken(why);
        }
        if wire.to_worker.is_empty() {
            return if wire.peer_ended { Received::End } else { Received::Nothing };
        }
        let len = self.kernel.part(wire.to_worker.len().min(buffer.len()));
        for (to, from) in buffer.iter_mut().zip(wire.to_worker.drain(..len)) {
            *to = from;
        }
        self.kernel.moved(len);
        Received::Bytes(len)
    }

    fn send(&mut self, socket: &mut Socket, bytes: &[u8]) -> Sent {
        self.kernel.called();
        let mut wire = socket.wire.borrow_mut();
        assert!(!wire.finished, "a send behind the end");
        if let Some(why) = wire.broken {
            return Sent::Broken(why);
        }
        let room = wire.room.saturating_sub(wire.to_peer.len()).min(bytes.len());
        let len = if room == 0 || self.kernel.one_in(20) { 0 } else { self.kernel.part(room) };
        if let Some(watch) = wire.watch.as_mut().filter(|_| len < bytes.len()) {
            watch.write = true;
        }
        if len == 0 {
            return Sent::Full;
        }
        wire.to_peer.extend(&bytes[..len]);
        wire.acknowledge(self.kernel.now.get());
        self.kernel.moved(len);
        Sent::Took(len)
    }

    fn flush(&mut self, socket: &mut Socket) -> Flushed {
        let mut wire = socket.wire.borrow_mut();
        if let Some(watch) = &mut wire.watch {
            watch.write = false;
        }
        wire.broken.map_or(Flushed::All, Flushed::Broken)
    }

    fn held(&self, _: &Socket) -> usize {
        0
    }

    fn finish(&mut self, socket: &mut Socket) {
        socket.wire.borrow_mut().finished = true;
    }

    fn keep_short(&mut self, _: &mut Socket, _: bool) {}

    fn acks(&mut self, socket: &Socket) -> Acks {
        let now = self.kernel.now.get();
        let wire = socket.wire.borrow();
        let queued = wire.read + wire.to_peer.len() as u64 - wire.acked;
        let mut silent = Duration::from_nanos(now - wire.acked_at);
        let mut unanswered = 0;
        if let (true, Some(since)) = (wire.vanished, wire.asked_since) {
            unanswered = Duration::from_nanos(now.saturating_sub(since)).as_secs() as u32;
        } else if queued == 0 {
            silent = silent.min(Duration::from_nanos(wire.asks_after.unwrap_or(u64::MAX)));
        } else if !wire.vanished {
            // It is asked whether it has room, at intervals of up to two minutes; and one answer may be lost.
            let mut random = self.kernel.random.borrow_mut();
            silent = silent.min(Duration::from_secs(random.u64(..120)));
            unanswered = random.u32(..2);
        }
        Acks { acked: wire.acked, queued, silent, unanswered, received: wire.received }
    }

    fn keep_asking(&mut self, socket: &Socket, timeout: Duration) {
        let now = self.kernel.now.get();
        let mut wire = socket.wire.borrow_mut();
        wire.asks_after = Some((timeout / 2).as_nanos() as u64);
        if wire.vanished {
            wire.asked_since.get_or_insert(now);
        }
    }

    fn path(&mut self, socket: &Socket) -> Option<Path> {
        let unacked_bytes = socket.wire.borrow().to_peer.len() as u32;
        Some(Path { rtt_us: 1000, unacked_bytes, unsent_bytes: 0, kernel_bytes: unacked_bytes })
    }
}
