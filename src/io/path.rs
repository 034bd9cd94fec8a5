//! What the kernel knows of the way to a peer: round trip, bytes on the way, memory.
//!
//! Asked of the kernel's socket diagnostics (`sock_diag(7)`, as `ss` does), for one socket at a time, which tell all of it in one
//! answer. `TCP_INFO` by `getsockopt(2)` is a tenth of the cost and knows nothing of the socket's memory; `acks.rs` asks for
//! that, where many are looked at. The answer is there when the request was sent: netlink serves it within the
//! call. Some 10 µs a socket, so it is for surveys of few. Where the kernel lacks it, nothing is known.
//!
//! ```text
//!   request   | header 16 | family protocol extensions - | states 4 | socket 48 |
//!   answer    | header 16 | family … 4 | socket 48 | expires rqueue wqueue uid inode, 4 each | attributes …
//!   attribute | length 2 | kind 2 | value, padded to 4 |
//!   socket    | port 2 | peer's port 2 | address 16 | peer's address 16 | interface 4 | cookie 8 |
//! ```

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use rustix::{
    fd::{AsFd, OwnedFd},
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, getpeername, getsockname,
        netlink::{SOCK_DIAG, SocketAddrNetlink},
        recv, sendto, socket_with,
    },
};

/// What is known of the way to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// Round trip, smoothed, in microseconds.
    pub rtt_us: u32,
    /// Bytes sent that the peer has not acknowledged.
    pub unacked_bytes: u32,
    /// Bytes that wait in the kernel to be sent.
    pub unsent_bytes: u32,
    /// Kernel memory that the socket's queues take up.
    pub kernel_bytes: u32,
}

/// Asks the kernel; one descriptor.
#[derive(Debug)]
pub(super) struct Diagnostics {
    netlink: OwnedFd,
    asked: u32,
}

const HEADER: usize = 16;
const SOCKET: usize = 48;
const REQUEST: usize = HEADER + 8 + SOCKET;

/// Where the attributes of an answer begin.
const ATTRIBUTES: usize = HEADER + 4 + SOCKET + 20;

/// SOCK_DIAG_BY_FAMILY of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;

/// NLM_F_REQUEST of `linux/netlink.h`.
const IS_REQUEST: u16 = 1;

/// INET_DIAG_INFO and INET_DIAG_SKMEMINFO of `linux/inet_diag.h`: attributes of the answer, and bits of the request.
const INFO: u16 = 2;
const MEMORY: u16 = 7;

impl Diagnostics {
    /// # Errors
    /// The kernel has no such thing, or no descriptor is left.
    pub fn new() -> io::Result<Diagnostics> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let netlink = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(SOCK_DIAG))?;
        Ok(Diagnostics { netlink, asked: 0 })
    }

    /// What is known of the way to the peer of `socket`; nothing once it is no longer connected.
    pub fn path(&mut self, socket: impl AsFd) -> Option<Path> {
        let own = SocketAddr::try_from(getsockname(&socket).ok()?).ok()?;
        let peer = SocketAddr::try_from(getpeername(&socket).ok()??).ok()?;
        self.asked = self.asked.wrapping_add(1);
        let request = request(self.asked, own, peer);
        sendto(&self.netlink, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).ok()?;
        let mut answer = [0; 2048];
        loop {
            let (len, _) = recv(&self.netlink, &mut answer[..], RecvFlags::DONTWAIT).ok()?;
            // An answer to an earlier request, that was not taken for whatever reason, is passed over.
            if word(&answer[..len], 8)? == self.asked {
                return read(&answer[..len]);
            }
        }
    }
}

fn request(number: u32, own: SocketAddr, peer: SocketAddr) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(REQUEST as u32).to_ne_bytes());
    put(4, &BY_FAMILY.to_ne_bytes());
    put(6, &IS_REQUEST.to_ne_bytes());
    put(8, &number.to_ne_bytes());
    let family = if own.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    const TCP: u8 = 6;
    put(HEADER, &[family.as_raw() as u8, TCP, 1 << (INFO - 1) | 1 << (MEMORY - 1), 0]);
    let states = u32::MAX;
    put(HEADER + 4, &states.to_ne_bytes());
    let socket = HEADER + 8;
    put(socket, &own.port().to_be_bytes());
    put(socket + 2, &peer.port().to_be_bytes());
    for (at, address) in [(socket + 4, own.ip()), (socket + 20, peer.ip())] {
        match address {
            IpAddr::V4(address) => put(at, &address.octets()),
            IpAddr::V6(address) => put(at, &address.octets()),
        }
    }
    // A link-local connection belongs to its interface.
    let interface = if let SocketAddr::V6(own) = own { own.scope_id() } else { 0 };
    put(socket + 36, &interface.to_ne_bytes());
    // INET_DIAG_NOCOOKIE
    put(socket + 40, &[0xff; 8]);
    request
}

/// The kernel's answer; None if it is an error message.
fn read(answer: &[u8]) -> Option<Path> {
    if answer.get(4..6)? != BY_FAMILY.to_ne_bytes() {
        return None;
    }
    // What was sent and not acknowledged, together with what was not sent.
    let queued = word(answer, HEADER + 4 + SOCKET + 8)?;
    let info = attribute(answer, INFO)?;
    // `struct tcp_info` of `linux/tcp.h`, which grows at its end only: tcpi_rtt, tcpi_notsent_bytes.
    let (rtt_us, unsent_bytes) = (word(info, 68)?, word(info, 144)?);
    // SK_MEMINFO_RMEM_ALLOC, _FWD_ALLOC and _WMEM_QUEUED of `linux/sock_diag.h`.
    let memory = attribute(answer, MEMORY)?;
    let kernel_bytes = word(memory, 0)?.saturating_add(word(memory, 16)?).saturating_add(word(memory, 20)?);
    Some(Path { rtt_us, unacked_bytes: queued.saturating_sub(unsent_bytes), unsent_bytes, kernel_bytes })
}

fn attribute(answer: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = answer.get(ATTRIBUTES..)?;
    loop {
        let len = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        if kind == wanted {
            return rest.get(4..len);
        }
        rest = rest.get(len.max(4).next_multiple_of(4)..)?;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::skip::skip;

    const NO_DIAGNOSTICS: &str = "what the kernel says of a socket: it has no socket diagnostics";

    /// A connection over `address`; none where the machine has no such address.
    fn pair(address: &str) -> Option<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind(address).ok()?;
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Some((listener.accept().unwrap().0, peer))
    }

    #[test]
    fn what_a_peer_does_not_read_shows_and_is_gone_when_it_has() {
        let Ok(mut kernel) = Diagnostics::new() else { return skip("diagnostics", NO_DIAGNOSTICS) };
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Some((mut socket, mut peer)) = pair(address) else {
                skip("ipv6", "IPv6: this machine has none");
                continue;
            };
            let Some(quiet) = kernel.path(&socket) else { return skip("diagnostics", NO_DIAGNOSTICS) };
            assert_eq!((quiet.unacked_bytes, quiet.unsent_bytes), (0, 0));
            socket.set_nonblocking(true).unwrap();
            let mut sent = 0;
            while let Ok(n) = socket.write(&[0; 65536]) {
                sent += n;
            }
            let stalled = kernel.path(&socket).unwrap();
            assert!(stalled.unsent_bytes > 0 && stalled.rtt_us > 0, "{stalled:?}");
            let queued = (stalled.unacked_bytes + stalled.unsent_bytes) as usize;
            assert!(queued < sent && stalled.kernel_bytes as usize >= queued, "{stalled:?} of {sent}");
            let mut rest = vec![0; sent];
            peer.read_exact(&mut rest).unwrap();
            // The last acknowledgement may come a moment later.
            while kernel.path(&socket).is_some_and(|path| path.unacked_bytes + path.unsent_bytes > 0) {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn of_a_socket_that_is_not_connected_nothing_is_known() {
        let Ok(mut kernel) = Diagnostics::new() else { return skip("diagnostics", NO_DIAGNOSTICS) };
        assert_eq!(kernel.path(TcpListener::bind("127.0.0.1:0").unwrap()), None);
    }

    #[test]
    fn an_answer_that_breaks_off_is_none() {
        let Ok(mut kernel) = Diagnostics::new() else { return skip("diagnostics", NO_DIAGNOSTICS) };
        let (socket, _peer) = pair("127.0.0.1:0").unwrap();
        let own = socket.local_addr().unwrap();
        let request = request(7, own, socket.peer_addr().unwrap());
        sendto(&kernel.netlink, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).unwrap();
        let mut answer = [0; 2048];
        let (len, _) = recv(&kernel.netlink, &mut answer[..], RecvFlags::DONTWAIT).unwrap();
        for cut in 0..len {
            // Most of it is more than is looked at.
            let _: Option<Path> = read(&answer[..cut]);
        }
        assert_eq!(read(&answer[..ATTRIBUTES + 100]), None);
        // An answer that was left lying is not taken for the next one's.
        sendto(&kernel.netlink, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).unwrap();
        assert_eq!(kernel.path(&socket), read(&answer[..len]));
    }
}
