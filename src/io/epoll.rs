//! The real edge: level-triggered epoll, `recv` and `send` that don't wait.
//!
//! Plain calls, since what a send costs is the kernel's way to the peer, which every interface to it has to go; the call itself is a
//! small part of it (`benches/kernel`).
//!
//! It holds nothing back: what the kernel doesn't take is not taken. Room is asked for when a socket turns out to be full, and no
//! longer once it was told of, so a socket that is never full costs no call but its sends.

use std::{cell::OnceCell, io, mem::MaybeUninit, sync::Arc, time::Duration};

use rustix::{
    event::{Timespec, epoll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    net::{RecvFlags, SendFlags, Shutdown},
};

use super::{
    Edge, Flushed, Ready, Received, Sent, TOKEN_MAX, Token,
    acks::{self, Acks},
    path::{Diagnostics, Path},
    waker::{Sleep, Waker},
};
use crate::clock::{self, Moment};

/// The epoll edge of one thread.
pub struct Epoll {
    set: OwnedFd,
    waker: Arc<Waker>,
    spin: Duration,
    /// Opened when it is first asked; then None where the kernel has none.
    diagnostics: OnceCell<Option<Diagnostics>>,
}

/// A socket, and what it is watched for: eight bytes, since a connection has few to spare.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    watch: Watch,
}

/// What a socket is watched for, in one word.
///
/// ```text
///   bit  31       30     29             0
///        watched  read   write   token
/// ```
#[derive(Clone, Copy, Debug, Default)]
struct Watch(u32);

impl Watch {
    const WATCHED: u32 = 1 << 31;
    const READ: u32 = 1 << 30;
    /// It was full, and room is asked for.
    const WRITE: u32 = 1 << 29;

    /// For reading.
    fn new(token: Token) -> Watch {
        debug_assert!(token <= TOKEN_MAX);
        Watch(Watch::WATCHED | Watch::READ | token)
    }

    fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// Sets or clears a flag; returns whether that is a change of what the kernel watches.
    fn set(&mut self, flag: u32, to: bool) -> bool {
        let is_new = self.has(flag) != to;
        self.0 = if to { self.0 | flag } else { self.0 & !flag };
        is_new && self.has(Watch::WATCHED)
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Socket {
        Socket { fd, watch: Watch::default() }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    fn name(&self) -> epoll::EventData {
        epoll::EventData::new_u64((self.watch.0 & TOKEN_MAX).into())
    }
}

/// Sockets that one wait can report (12 KiB of stack); more are reported by the next.
const EVENTS_MAX: usize = 1024;

/// The waker's name in the set; no connection has it.
const BELL: u64 = u64::MAX;

impl Epoll {
    /// An edge that `waker` wakes, and that looks for work for `spin` before it sleeps.
    ///
    /// # Errors
    /// As `epoll_create1(2)`: out of descriptors.
    pub fn new(waker: Arc<Waker>, spin: Duration) -> io::Result<Epoll> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Edge-triggered: each ring is reported once, and the counter never needs to be read.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&set, &*waker, epoll::EventData::new_u64(BELL), flags)?;
        Ok(Epoll { set, waker, spin, diagnostics: OnceCell::new() })
    }

    /// Tells the kernel anew what a socket is watched for.
    fn tell(&self, socket: &Socket) {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, socket.watch.has(Watch::READ));
        flags.set(epoll::EventFlags::OUT, socket.watch.has(Watch::WRITE));
        // Can't fail for a watched socket, short of kernel memory; then the timers end the connection.
        let _ = epoll::modify(&self.set, socket, socket.name(), flags);
    }

    #[cold]
    fn ask_for_room(&self, socket: &mut Socket) {
        if socket.watch.set(Watch::WRITE, true) {
            self.tell(socket);
        }
    }

    fn poll(&self, timeout: Option<Duration>, ready: &mut Vec<Ready>) {
        let timeout = timeout.map(|t| Timespec { tv_sec: t.as_secs() as _, tv_nsec: t.subsec_nanos() as _ });
        let mut events = [const { MaybeUninit::uninit() }; EVENTS_MAX];
        let events = match epoll::wait(&self.set, &mut events, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return,
            Err(error) => panic!("epoll_wait: {error}"),
        };
        ready.extend(events.iter().filter(|event| event.data.u64() != BELL).map(|event| {
            let flags = event.flags;
            let broken = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
            Ready {
                token: event.data.u64() as Token,
                readable: broken || flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP),
                writable: broken || flags.contains(epoll::EventFlags::OUT),
            }
        }));
    }
}

/// What a socket takes that is kept short, beyond what is on its way: a few hundred publications.
const SHORT: u32 = 16 * 1024;

impl Edge for Epoll {
    type Socket = Socket;

    fn now(&self) -> Moment {
        Moment::now()
    }

    fn wall_us(&self) -> u64 {
        clock::wall_us()
    }

    fn watch(&mut self, socket: &mut Socket, token: Token) -> io::Result<()> {
        socket.watch = Watch::new(token);
        let added = epoll::add(&self.set, &*socket, socket.name(), epoll::EventFlags::IN);
        added.inspect_err(|_| socket.watch = Watch::default())?;
        Ok(())
    }

    fn interest(&mut self, socket: &mut Socket, read: bool) {
        if socket.watch.set(Watch::READ, read) {
            self.tell(socket);
        }
    }

    fn unwatch(&mut self, socket: &mut Socket) {
        let _ = epoll::delete(&self.set, &*socket);
        socket.watch = Watch::default();
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        depth: Sleep,
        work: &mut dyn FnMut() -> bool,
        ready: &mut Vec<Ready>,
    ) {
        ready.clear();
        if timeout == Some(Duration::ZERO) || work() {
            return self.poll(Some(Duration::ZERO), ready);
        }
        if !self.spin.is_zero() {
            let until = Moment::now() + self.spin.min(timeout.unwrap_or(Duration::MAX));
            while Moment::now() < until {
                self.poll(Some(Duration::ZERO), ready);
                if !ready.is_empty() || work() {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        self.waker.sleeping(depth);
        let timeout = if work() { Some(Duration::ZERO) } else { timeout };
        self.poll(timeout, ready);
        self.waker.awake();
    }

    fn receive(&mut self, socket: &mut Socket, buffer: &mut [u8]) -> Received {
        loop {
            match rustix::net::recv(&*socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Received::End,
                Ok((n, _)) => return Received::Bytes(n),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Received::Nothing,
                Err(error) => return Received::Broken(io::Error::from(error).kind()),
            }
        }
    }

    fn send(&mut self, socket: &mut Socket, bytes: &[u8]) -> Sent {
        loop {
            match rustix::net::send(&*socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(n) => {
                    if n < bytes.len() {
                        self.ask_for_room(socket);
                    }
                    return Sent::Took(n);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    self.ask_for_room(socket);
                    return Sent::Full;
                }
                Err(error) => return Sent::Broken(io::Error::from(error).kind()),
            }
        }
    }

    fn flush(&mut self, socket: &mut Socket) -> Flushed {
        if socket.watch.set(Watch::WRITE, false) {
            self.tell(socket);
        }
        Flushed::All
    }

    fn held(&self, _: &Socket) -> usize {
        0
    }

    fn finish(&mut self, socket: &mut Socket) {
        let _ = rustix::net::shutdown(&*socket, Shutdown::Write);
    }

    fn keep_short(&mut self, socket: &mut Socket, short: bool) {
        super::unsent::bound_unsent(socket.as_fd(), short.then_some(SHORT));
    }

    fn acks(&mut self, socket: &Socket) -> Acks {
        acks::acks(socket)
    }

    fn keep_asking(&mut self, socket: &Socket, timeout: Duration) {
        acks::keep_asking(socket, timeout);
    }

    fn path(&mut self, socket: &Socket) -> Option<Path> {
        self.diagnostics.get_or_init(|| Diagnostics::new().ok());
        self.diagnostics.get_mut()?.as_mut()?.path(socket)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    const SOCKET: Token = 7;

    struct Pair {
        edge: Epoll,
        socket: Socket,
        peer: TcpStream,
    }

    impl Pair {
        fn new() -> Pair {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let socket = Socket::from(OwnedFd::from(listener.accept().unwrap().0));
            Pair { edge: Epoll::new(Arc::new(Waker::new().unwrap()), Duration::ZERO).unwrap(), socket, peer }
        }

        /// Sends until the socket is full; returns how many bytes it took.
        fn fill(&mut self) -> usize {
            let mut taken = 0;
            while let Sent::Took(n) = self.edge.send(&mut self.socket, &[0; 65536]) {
                taken += n;
            }
            taken
        }

        /// What a wait that doesn't last reports: whether it may be read, and written.
        fn ready(&mut self) -> Option<(bool, bool)> {
            let mut ready = Vec::new();
            self.edge.wait(Some(Duration::ZERO), Sleep::Deep, &mut || false, &mut ready);
            ready.first().map(|ready| {
                assert_eq!(ready.token, SOCKET);
                (ready.readable, ready.writable)
            })
        }

        /// Waits until something is ready.
        fn wait(&mut self) -> (bool, bool) {
            loop {
                if let Some(ready) = self.ready() {
                    return ready;
                }
            }
        }
    }

    #[test]
    fn only_a_socket_that_was_full_is_told_of_when_it_has_room_and_until_it_is_flushed() {
        let mut pair = Pair::new();
        pair.edge.watch(&mut pair.socket, SOCKET).unwrap();
        assert_eq!(pair.edge.send(&mut pair.socket, b"x"), Sent::Took(1));
        assert_eq!(pair.ready(), None, "it was never full");
        for _ in 0..2 {
            let taken = pair.fill();
            pair.peer.read_exact(&mut vec![0; taken]).unwrap();
            assert_eq!((pair.wait(), pair.ready()), ((false, true), Some((false, true))));
            assert_eq!(pair.edge.flush(&mut pair.socket), Flushed::All);
            assert_eq!((pair.ready(), pair.edge.held(&pair.socket)), (None, 0));
        }
    }

    #[test]
    fn whoever_does_not_want_to_read_is_told_of_room_all_the_same() {
        let mut pair = Pair::new();
        pair.edge.watch(&mut pair.socket, SOCKET).unwrap();
        rustix::net::send(&pair.peer, b"x", SendFlags::empty()).unwrap();
        assert_eq!(pair.wait(), (true, false));
        pair.edge.interest(&mut pair.socket, false);
        let taken = pair.fill();
        pair.peer.read_exact(&mut vec![0; taken]).unwrap();
        assert_eq!(pair.wait(), (false, true));
        pair.edge.interest(&mut pair.socket, true);
        assert_eq!(pair.wait(), (true, true));
    }

    #[test]
    fn a_socket_that_was_given_away_full_is_watched_for_reading_alone_again() {
        let mut pair = Pair::new();
        pair.edge.watch(&mut pair.socket, 1).unwrap();
        let taken = pair.fill();
        pair.edge.unwatch(&mut pair.socket);
        pair.fill();
        pair.peer.read_exact(&mut vec![0; taken]).unwrap();
        pair.edge.watch(&mut pair.socket, SOCKET).unwrap();
        rustix::net::send(&pair.peer, b"x", SendFlags::empty()).unwrap();
        assert_eq!(pair.wait(), (true, false), "and by its new name");
    }
}
