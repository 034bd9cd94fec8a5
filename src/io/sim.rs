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
//! Readiness is level-triggered and goes by the last [`Edge::interest`]. Time passes only in a wait that finds nothing to
//! do, and no further than the test allows ([`Kernel::allow`]); a wait that reaches that bound is where the worker sleeps.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    rc::Rc,
    time::Duration,
};

use super::{Edge, Ready, Received, Sent, Token, acks::Acks, path::Path, waker::Sleep};
use crate::clock::Moment;

/// What the worker's edge and the test share.
pub struct Kernel {
    random: RefCell<fastrand::Rng>,
    now: Cell<u64>,
    /// Waits don't let time pass beyond this.
    allowed: Cell<u64>,
    /// The wall clock's microseconds at the monotonic clock's zero; steps when somebody sets it.
    wall: Cell<u64>,
    /// Whether the last wait had nothing to do and no time left.
    asleep: Cell<bool>,
    /// Where `progress` stood at that time.
    asleep_at: Cell<u64>,
    /// Bytes moved and time passed, in no unit: when it stands still, nothing happens.
    progress: Cell<u64>,
    watched: RefCell<Vec<Rc<RefCell<Wire>>>>,
    /// What another thread does just before the worker falls asleep.
    meanwhile: RefCell<Option<Box<dyn FnOnce()>>>,
}

/// The two queues of one connection.
struct Wire {
    to_worker: VecDeque<u8>,
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
            asleep: Cell::new(false),
            asleep_at: Cell::new(0),
            progress: Cell::new(0),
            watched: RefCell::default(),
            meanwhile: RefCell::default(),
        })
    }

    /// A connection, whose queue towards the peer holds `room` bytes, some of them at the peer's side.
    pub fn connect(self: &Rc<Kernel>, room: usize) -> (Socket, Peer) {
        let room = room.max(1);
        let wire = Rc::new(RefCell::new(Wire {
            to_worker: VecDeque::new(),
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
        (Socket { wire: Rc::clone(&wire), kernel: Rc::clone(self) }, Peer { wire, kernel: Rc::clone(self) })
    }

    /// Lets so much time pass at once.
    pub fn advance(&self, length: Duration) {
        self.now.set(self.now.get() + length.as_nanos() as u64);
        self.allow(Duration::ZERO);
    }

    /// Lets waits pass so much time from now on.
    pub fn allow(&self, length: Duration) {
        self.allowed.set(self.now.get() + length.as_nanos() as u64);
        self.asleep.set(false);
    }

    /// Does something in the next wait, after the worker has decided to sleep and before it looks once more.
    pub fn meanwhile(&self, act: impl FnOnce() + 'static) {
        *self.meanwhile.borrow_mut() = Some(Box::new(act));
    }

    /// Sets the wall clock by so many microseconds, forward or back.
    pub fn step_wall_clock(&self, us: i64) {
        self.wall.set(self.wall.get().saturating_add_signed(us));
    }

    /// Whether the last wait had nothing to do and no time left.
    pub fn asleep(&self) -> bool {
        self.asleep.get()
    }

    /// Whether bytes moved after the worker had decided to sleep: then it would have slept over something.
    pub fn overslept(&self) -> bool {
        self.asleep.get() && self.progress.get() != self.asleep_at.get()
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
}

impl Peer {
    /// Sends; the worker's receive queue has room for everything.
    pub fn write(&self, bytes: &[u8]) {
        let mut wire = self.wire.borrow_mut();
        if !wire.vanished {
            wire.to_worker.extend(bytes);
        }
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

/// The worker's edge.
pub struct SimEdge(pub Rc<Kernel>);

impl Edge for SimEdge {
    type Socket = Socket;

    fn now(&self) -> Moment {
        Moment(self.0.now.get())
    }

    fn wall_us(&self) -> u64 {
        self.0.wall_us()
    }

    fn watch(&mut self, socket: &Socket, token: Token) -> io::Result<()> {
        let watch = Watch { token, read: true, write: false };
        assert!(socket.wire.borrow_mut().watch.replace(watch).is_none(), "watched twice");
        self.0.watched.borrow_mut().push(Rc::clone(&socket.wire));
        Ok(())
    }

    fn interest(&mut self, socket: &Socket, token: Token, read: bool, write: bool) {
        let mut wire = socket.wire.borrow_mut();
        assert_eq!(wire.watch.map(|watch| watch.token), Some(token), "interest in a socket under another's token");
        wire.watch = Some(Watch { token, read, write });
    }

    fn unwatch(&mut self, socket: &Socket) {
        socket.wire.borrow_mut().watch = None;
        self.0.watched.borrow_mut().retain(|other| !Rc::ptr_eq(other, &socket.wire));
    }

    fn wait(&mut self, timeout: Option<Duration>, _: Sleep, work: &mut dyn FnMut() -> bool, ready: &mut Vec<Ready>) {
        ready.clear();
        let kernel = &self.0;
        kernel.asleep.set(false);
        if let Some(act) = kernel.meanwhile.borrow_mut().take() {
            act();
        }
        let mut kept_back = false;
        for wire in kernel.watched.borrow().iter() {
            let wire = wire.borrow();
            let Some(watch) = wire.watch else { continue };
            let broken = wire.broken.is_some();
            let readable = broken || (watch.read && (wire.peer_ended || !wire.to_worker.is_empty()));
            // As the kernel does, which tells of room when a third is free.
            let writable = broken || (watch.write && 3 * wire.to_peer.len() <= 2 * wire.room);
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
        let until = timeout.map_or(u64::MAX, |timeout| (self.now() + timeout).0);
        let reached = until.min(kernel.allowed.get()).max(kernel.now.get());
        kernel.moved((reached - kernel.now.get()) as usize);
        kernel.now.set(reached);
        kernel.asleep.set(reached < until);
        kernel.asleep_at.set(kernel.progress.get());
    }

    fn receive(&mut self, socket: &Socket, buffer: &mut [u8]) -> Received {
        let mut wire = socket.wire.borrow_mut();
        if let Some(why) = wire.broken {
            return Received::Broken(why);
        }
        if wire.to_worker.is_empty() {
            return if wire.peer_ended { Received::End } else { Received::Nothing };
        }
        let len = self.0.part(wire.to_worker.len().min(buffer.len()));
        for (to, from) in buffer.iter_mut().zip(wire.to_worker.drain(..len)) {
            *to = from;
        }
        self.0.moved(len);
        Received::Bytes(len)
    }

    fn send(&mut self, socket: &Socket, bytes: &[u8]) -> Sent {
        let mut wire = socket.wire.borrow_mut();
        assert!(!wire.finished, "a send behind the end");
        if let Some(why) = wire.broken {
            return Sent::Broken(why);
        }
        let room = wire.room.saturating_sub(wire.to_peer.len()).min(bytes.len());
        if room == 0 || self.0.one_in(20) {
            return Sent::Full;
        }
        let len = self.0.part(room);
        wire.to_peer.extend(&bytes[..len]);
        wire.acknowledge(self.0.now.get());
        self.0.moved(len);
        Sent::Took(len)
    }

    fn finish(&mut self, socket: &Socket) {
        socket.wire.borrow_mut().finished = true;
    }

    fn keep_short(&mut self, _: &Socket, _: bool) {}

    fn acks(&mut self, socket: &Socket) -> Acks {
        let now = self.0.now.get();
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
            let mut random = self.0.random.borrow_mut();
            silent = silent.min(Duration::from_secs(random.u64(..120)));
            unanswered = random.u32(..2);
        }
        Acks { acked: wire.acked, queued, silent, unanswered }
    }

    fn keep_asking(&mut self, socket: &Socket, timeout: Duration) {
        let now = self.0.now.get();
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
