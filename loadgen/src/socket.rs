//! The kernel edge: non-blocking sockets, one epoll per thread, a way to wake it.
//!
//! Level-triggered epoll and plain `recv`: a read that did not fill the buffer has drained the socket, so the usual
//! delivery costs one wait (shared by all sockets that were ready) and one `recv`. Everything here is a thin call; what
//! to do about its outcome is decided above.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, PollFd, PollFlags, epoll, eventfd, poll},
    net::{RecvFlags, SendFlags},
    time::Timespec,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

pub use rustix::event::epoll::EventFlags as Interest;

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes.
    Data(usize),
    /// Nothing for now.
    Empty,
    /// The other end has finished.
    End,
}

/// Starts connecting to `target`, from `source` where one is given. Writability tells when it is done.
///
/// Closing it will reset the connection: ten thousand local ports that wait for late segments for a minute make the search
/// for free ones, and so the connecting of the next run, many times as expensive.
pub fn connect(target: SocketAddr, source: Option<SocketAddr>, receive_buffer: usize) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    if receive_buffer > 0 {
        socket.set_recv_buffer_size(receive_buffer)?;
    }
    if let Some(source) = source {
        socket.bind(&SockAddr::from(source))?;
    }
    match socket.connect(&SockAddr::from(target)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// How connecting ended.
pub fn connected(fd: &OwnedFd) -> io::Result<()> {
    rustix::net::sockopt::socket_error(fd)??;
    Ok(())
}

/// Reads into `buffer` without waiting.
#[inline]
pub fn recv(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<Read> {
    match rustix::net::recv(fd, buffer, RecvFlags::empty()) {
        Ok((_, 0)) => Ok(Read::End),
        Ok((_, len)) => Ok(Read::Data(len)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Read::Empty),
        Err(error) => Err(error.into()),
    }
}

/// Hands over as much of `bytes` as the socket takes; 0 where it is full.
pub fn send(fd: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    match rustix::net::send(fd, bytes, SendFlags::NOSIGNAL) {
        Ok(len) => Ok(len),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Bytes that have arrived and were not read yet.
pub fn backlog(fd: &OwnedFd) -> u64 {
    rustix::io::ioctl_fionread(fd).unwrap_or(0)
}

/// One thread's epoll.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

/// Sockets reported by one wait; more are reported by the next.
const EVENTS: usize = 1024;

impl Poller {
    /// An epoll that watches nothing yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(EVENTS) })
    }

    /// Watches `fd` and reports it as `token`.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), interest)?)
    }

    /// Changes what is reported of `fd`.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token), interest)?)
    }

    /// Stops watching `fd`.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits until something is ready or the time is over; returns how many are ready.
    pub fn wait(&mut self, timeout: Option<&Timespec>) -> io::Result<usize> {
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(self.events.len()),
            Err(error) => Err(error.into()),
        }
    }

    /// The same with a timeout to the nanosecond: epoll's own counts in milliseconds on older kernels' interfaces.
    pub fn wait_exactly(&mut self, timeout: &Timespec) -> io::Result<usize> {
        let mut all = [PollFd::new(&self.epoll, PollFlags::IN)];
        match poll(&mut all, Some(timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {
                self.events.clear();
                Ok(0)
            }
            Ok(_) => self.wait(Some(&Timespec::default())),
            Err(error) => Err(error.into()),
        }
    }

    /// The `nth` that the last wait found ready: its token and what it is ready for.
    #[inline]
    pub fn event(&self, nth: usize) -> (u64, Interest) {
        let event = self.events[nth];
        (event.data.u64(), event.flags)
    }
}

/// Wakes another thread's wait.
pub struct Waker(OwnedFd);

impl Waker {
    /// A waker that nobody waits for yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Ends the wait of whoever watches it; nothing is lost when nobody does.
    pub fn wake(&self) {
        // A full counter already wakes, so its refusal needs no answer.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes it quiet again.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener};

    use super::*;

    #[test]
    fn a_connection_reports_its_bytes_its_backlog_and_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let source = "127.0.0.9:0".parse().unwrap();
        let fd = connect(listener.local_addr().unwrap(), Some(source), 0).unwrap();
        let (mut peer, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), "127.0.0.9".parse::<std::net::IpAddr>().unwrap());
        let mut poller = Poller::new().unwrap();
        poller.add(&fd, 7, Interest::IN).unwrap();
        peer.write_all(b"hello").unwrap();
        assert_eq!(poller.wait(None).unwrap(), 1);
        assert_eq!((poller.event(0).0, backlog(&fd)), (7, 5));
        let mut buffer = [0; 16];
        assert_eq!(recv(&fd, &mut buffer).unwrap(), Read::Data(5));
        assert_eq!(recv(&fd, &mut buffer).unwrap(), Read::Empty);
        drop(peer);
        poller.wait(None).unwrap();
        assert_eq!(recv(&fd, &mut buffer).unwrap(), Read::End);
    }

    #[test]
    fn a_refused_connection_says_so() {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = connect(unused, None, 0).and_then(|fd| {
            let mut poller = Poller::new()?;
            poller.add(&fd, 0, Interest::OUT)?;
            poller.wait(None)?;
            connected(&fd)
        });
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_waker_ends_a_wait_once() {
        let (waker, mut poller) = (Waker::new().unwrap(), Poller::new().unwrap());
        poller.add(&waker, 1, Interest::IN).unwrap();
        waker.wake();
        assert_eq!(poller.wait(None).unwrap(), 1);
        waker.clear();
        assert_eq!(poller.wait(Some(&Timespec::default())).unwrap(), 0);
    }
}
