//! The real edge: level-triggered epoll, `recv` and `send` that don't wait.
//!
//! Measured on the kernels that this was written for, no form of io_uring sends is more than 3 % cheaper than this, and
//! zero-copy, bundles and sendfile cost more.

use std::{cell::OnceCell, io, mem::MaybeUninit, sync::Arc, time::Duration};

use rustix::{
    event::{Timespec, epoll},
    fd::{AsFd, OwnedFd},
    net::{RecvFlags, SendFlags, Shutdown},
};

use super::{
    Edge, Ready, Received, Sent, Token,
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
    type Socket = OwnedFd;

    fn now(&self) -> Moment {
        Moment::now()
    }

    fn wall_us(&self) -> u64 {
        clock::wall_us()
    }

    fn watch(&mut self, socket: &OwnedFd, token: Token) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token.into());
        Ok(epoll::add(&self.set, socket, data, epoll::EventFlags::IN)?)
    }

    fn interest(&mut self, socket: &OwnedFd, token: Token, read: bool, write: bool) {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, read);
        flags.set(epoll::EventFlags::OUT, write);
        // Can't fail for a watched socket, short of kernel memory; then the timers end the connection.
        let _ = epoll::modify(&self.set, socket, epoll::EventData::new_u64(token.into()), flags);
    }

    fn unwatch(&mut self, socket: &OwnedFd) {
        let _ = epoll::delete(&self.set, socket);
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

    fn receive(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> Received {
        loop {
            match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Received::End,
                Ok((n, _)) => return Received::Bytes(n),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Received::Nothing,
                Err(error) => return Received::Broken(io::Error::from(error).kind()),
            }
        }
    }

    fn send(&mut self, socket: &OwnedFd, bytes: &[u8]) -> Sent {
        loop {
            match rustix::net::send(socket.as_fd(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(n) => return Sent::Took(n),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Sent::Full,
                Err(error) => return Sent::Broken(io::Error::from(error).kind()),
            }
        }
    }

    fn finish(&mut self, socket: &OwnedFd) {
        let _ = rustix::net::shutdown(socket, Shutdown::Write);
    }

    fn keep_short(&mut self, socket: &OwnedFd, short: bool) {
        super::unsent::bound_unsent(socket, short.then_some(SHORT));
    }

    fn acks(&mut self, socket: &OwnedFd) -> Acks {
        acks::acks(socket)
    }

    fn keep_asking(&mut self, socket: &OwnedFd, timeout: Duration) {
        acks::keep_asking(socket, timeout);
    }

    fn path(&mut self, socket: &OwnedFd) -> Option<Path> {
        self.diagnostics.get_or_init(|| Diagnostics::new().ok());
        self.diagnostics.get_mut()?.as_mut()?.path(socket)
    }
}
