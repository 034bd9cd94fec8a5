//! Listening sockets, their options, and the descriptor table.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    net::SocketFlags,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::defer::defer_accept;

/// How the sockets of one listening address are set up. Connections inherit all of it from the listening socket
/// (`tcp(7)`: the kernel copies the options of the listener), which saves the system calls for each of them.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted.
    pub backlog: u32,
    /// SO_SNDBUF in bytes; 0 leaves it to the kernel.
    pub send_buffer: usize,
    /// SO_RCVBUF in bytes; 0 leaves it to the kernel.
    pub receive_buffer: usize,
}

/// Binds `address` and listens, on `count` sockets that share it (SO_REUSEPORT), so that each acceptor has one.
///
/// # Errors
/// The address is in use, is not of this machine, or needs a right that the process doesn't have.
pub fn listen(address: SocketAddr, count: usize, options: ListenOptions) -> io::Result<Vec<Socket>> {
    let first = bind(address, Taking::Plain, options)?;
    if count == 1 {
        first.listen(backlog(options))?;
        return Ok(vec![first]);
    }
    // SO_REUSEPORT would also let another server of the same user join in unnoticed, so the address was bound alone once.
    let address = first.local_addr()?.as_socket().expect("an internet socket has an internet address");
    drop(first);
    let sockets: Vec<Socket> = (0..count).map(|_| bind(address, Taking::Shared, options)).collect::<io::Result<_>>()?;
    for socket in &sockets {
        socket.listen(backlog(options))?;
    }
    Ok(sockets)
}

/// Binds `address` and listens on one socket, which on `[::]` takes IPv4, too. Where there is no IPv6, IPv4 alone.
///
/// # Errors
/// As [`listen`].
pub fn listen_for_all(address: SocketAddr, options: ListenOptions) -> io::Result<Socket> {
    let is_any = address.is_ipv6() && address.ip().is_unspecified();
    let bound = bind(address, Taking::Both, options).or_else(|error| {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if is_any => {
                bind((Ipv4Addr::UNSPECIFIED, address.port()).into(), Taking::Plain, options)
            }
            _ => Err(error),
        }
    })?;
    bound.listen(backlog(options))?;
    Ok(bound)
}

/// How a socket has its address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taking {
    /// Alone, and of its own family.
    Plain,
    /// With others (SO_REUSEPORT).
    Shared,
    /// IPv4 as well as IPv6, where that is any address.
    Both,
}

fn bind(address: SocketAddr, taking: Taking, options: ListenOptions) -> io::Result<Socket> {
    // A socket of IPv6 alone has no IPv4 address.
    let address = plain(address);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // REUSEADDR: a restarted server takes its port back while old connections are still in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(taking == Taking::Shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(taking != Taking::Both)?;
    }
    set_options(&socket, options)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn set_options(socket: &Socket, options: ListenOptions) -> io::Result<()> {
    defer_accept(socket);
    socket.set_tcp_nodelay(true)?;
    if options.send_buffer > 0 {
        socket.set_send_buffer_size(options.send_buffer)?;
    }
    if options.receive_buffer > 0 {
        socket.set_recv_buffer_size(options.receive_buffer)?;
    }
    Ok(())
}

/// Whether `address` could be listened on now; nobody can connect meanwhile.
///
/// # Errors
/// As [`listen`].
#[cfg(feature = "cli")]
pub fn probe(address: SocketAddr) -> io::Result<()> {
    bind(address, Taking::Plain, ListenOptions { backlog: 0, send_buffer: 0, receive_buffer: 0 }).map(drop)
}

fn backlog(options: ListenOptions) -> i32 {
    i32::try_from(options.backlog).unwrap_or(i32::MAX)
}

/// Prepares a socket that was passed to this process: the options that connections inherit, but not the backlog, which
/// is set where the socket was made. From here on it is to be waited for with [`wait`], because it must never be shut
/// down: it belongs to others, too, who will listen on it after this process.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn adopt(socket: &Socket, options: ListenOptions) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    set_options(socket, options)
}

/// Waits until there is a connection to accept, or until `bell` (an eventfd) is rung. Returns whether it was.
///
/// # Errors
/// As `poll(2)`.
pub fn wait(listener: &Socket, bell: &OwnedFd) -> io::Result<bool> {
    let mut both = [PollFd::new(bell, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
    poll(&mut both, None)?;
    Ok(!both[0].revents().is_empty())
}

/// Waits for a connection; on a socket that was passed to this process, doesn't wait.
///
/// # Errors
/// As `accept4(2)`; `InvalidInput` once the listening socket was shut down.
pub fn accept(listener: &Socket) -> io::Result<(OwnedFd, SocketAddr)> {
    take(listener.as_fd())
}

fn take(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, SocketAddr)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (socket, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    peer.map(|peer| (socket, plain(peer))).ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
}

/// An IPv4 address in the disguise of IPv6, as people write it, or as a socket for both (one that was passed to this process) has it,
/// as what it is.
fn plain(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        ip if ip == peer.ip() => peer,
        ip => SocketAddr::new(ip, peer.port()),
    }
}

/// Takes a connection from a listening socket that doesn't wait.
///
/// # Errors
/// As `accept4(2)`; `WouldBlock` where nobody waits.
pub fn accept_nonblocking(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, SocketAddr)> {
    take(listener)
}

/// Whether an error of `accept4(2)` will come again at once, because something has run out.
pub fn is_short_of_something(error: &io::Error) -> bool {
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|number| short.iter().any(|errno| errno.raw_os_error() == number))
}

/// Raises the soft limit of descriptors to at least `needed` and gives the table its final size.
///
/// Growing the table later, with several threads running, stops them all for 16 to 20 ms at each doubling.
///
/// # Errors
/// What the limit is, when even the hard limit is lower.
pub fn reserve_descriptors(needed: u64) -> Result<(), u64> {
    let limit = getrlimit(Resource::Nofile);
    let unlimited = u64::MAX;
    let hard = limit.maximum.unwrap_or(unlimited);
    if limit.current.unwrap_or(unlimited) < needed {
        if hard < needed {
            return Err(hard);
        }
        let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).map_err(|_| limit.current.unwrap_or(unlimited))?;
    }
    if let Ok(any) = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC) {
        let highest = i32::try_from(needed - 1).unwrap_or(i32::MAX);
        drop(rustix::io::fcntl_dupfd_cloexec(&any, highest));
    }
    Ok(())
}
