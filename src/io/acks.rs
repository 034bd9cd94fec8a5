//! What a peer's TCP has acknowledged, and whether it still answers.
//!
//! An application that reads slowly and a machine that is gone look the same from a full socket. The kernel knows better:
//!
//! | | its TCP | what is queued here |
//! | --- | --- | --- |
//! | a slow reader | acknowledges, a little at a time | becomes less |
//! | one that has stopped reading | answers each window probe, acknowledges nothing | stays |
//! | one that is gone | answers nothing | is sent again and again |
//!
//! So being dead is: nothing came for a time, though the kernel asked more than once. `TCP_USER_TIMEOUT` doesn't tell the
//! second from the third. All of it is in `TCP_INFO` (`tcp(7)`) and `SIOCOUTQ` (`tcp(7)`, ioctls): two calls, under a
//! microsecond together, for a connection that is looked at because it is silent. Netlink (`path.rs`) would say the same at
//! ten times the cost, and is closed to services that may use internet sockets only. Where the kernel doesn't tell, everything
//! counts as acknowledged and answered.
//!
//! ```text
//!   tcp_info  0 state  2 retransmits  3 probes  4 backoff  24 unacked  44 last_data_sent  56 last_ack_recv  68 rtt  120 bytes_acked  128 bytes_received
//! ```
#![allow(unsafe_code)]

use std::time::Duration;

use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd},
    net::sockopt::{set_socket_keepalive, set_tcp_keepidle, set_tcp_keepintvl},
};

/// What is known of a connection's bytes towards its peer, and how many came from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acks {
    /// Bytes that the peer's TCP has acknowledged since the connection began.
    pub acked: u64,
    /// Bytes behind those that were taken: on their way, not sent yet, or held back by the edge.
    pub queued: u64,
    /// How long ago the peer's TCP acknowledged anything, or answered a probe.
    pub silent: Duration,
    /// How often the kernel has asked since, in vain: retransmissions, and probes of a closed window or of a quiet peer.
    pub unanswered: u32,
    /// Bytes that have come from the peer since the connection began.
    pub received: u64,
}

/// Questions in vain that count. One may have been lost, and a peer's kernel leaves probes unanswered that come within half a
/// second (`tcp_invalid_ratelimit` in the kernel's `ip-sysctl`).
const UNANSWERED_MIN: u32 = 2;

/// An answer to the last retransmission may still come for so long, whatever the round trip is.
const ANSWER_MIN: Duration = Duration::from_millis(100);

impl Acks {
    /// Where the bytes end that were taken: once so many are acknowledged, the peer's TCP has them all.
    pub fn end(&self) -> u64 {
        self.acked + self.queued
    }

    /// Whether the peer is gone: it has answered nothing for `timeout`, though it was asked.
    pub fn is_dead(&self, timeout: Duration) -> bool {
        self.silent >= timeout && self.unanswered >= UNANSWERED_MIN
    }
}

/// Asks the kernel about a connected TCP socket. For looking at connections that are silent, not at every one.
pub fn acks(socket: impl AsFd) -> Acks {
    let socket = socket.as_fd();
    let info = tcp_info(socket);
    // Not before the other: an acknowledgement between the two makes the end too near, never one that doesn't come.
    let queued = output_queue(socket);
    let word = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes"));
    let ms = |at: usize| Duration::from_millis(word(at).into());
    let (retransmits, probes, backoff) = (info[2], info[3], info[4]);
    let (sent, silent, rtt) = (ms(44), ms(56), Duration::from_micros(word(68).into()));
    // What was sent after the last acknowledgement, so long ago that another one would be here.
    let waits = word(24) > 0 && sent < silent && sent >= ANSWER_MIN.max(2 * rtt);
    let unanswered = if waits { probes.max(retransmits).max(backoff) } else { probes };
    let count = |at: usize| u64::from_ne_bytes(info[at..at + 8].try_into().expect("eight bytes"));
    Acks { acked: count(120), queued, silent, unanswered: unanswered.into(), received: count(128) }
}

/// Has the kernel ask a peer whose silence would otherwise mean nothing: one that is quiet because there is nothing to
/// acknowledge (keepalive), and one whose window has been closed for so long that it is asked every two minutes (`tcp(7)`).
/// After half of `timeout` without an answer it is asked at least every quarter, or every second. Failing to do so only
/// makes the end of a dead peer come later.
pub fn keep_asking(socket: impl AsFd, timeout: Duration) {
    let socket = socket.as_fd();
    let second = Duration::from_secs(1);
    let often = (timeout / 4).max(second);
    let _ = set_tcp_keepidle(socket, (timeout / 2).max(second));
    let _ = set_tcp_keepintvl(socket, (timeout / 8).max(second));
    let _ = set_socket_keepalive(socket, true);
    bound_backoff(socket, often);
}

/// How much of `struct tcp_info` is looked at. It grows at its end only; an older kernel leaves the rest zero.
const INFO: usize = 136;

fn tcp_info(socket: BorrowedFd<'_>) -> [u8; INFO] {
    let mut info = [0; INFO];
    let mut len = INFO as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `len` bytes to an array that has as many. No crate of ours
    // has this option.
    unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            std::ptr::from_mut(&mut len),
        );
    }
    info
}

fn output_queue(socket: BorrowedFd<'_>) -> u64 {
    let mut queued: libc::c_int = 0;
    // SAFETY: the descriptor is open, and SIOCOUTQ (of the same number as TIOCOUTQ) writes one int, which outlives the call. No
    // crate of ours has it.
    unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, std::ptr::from_mut(&mut queued)) };
    u64::try_from(queued).unwrap_or(0)
}

/// TCP_RTO_MAX_MS of `linux/tcp.h`, since Linux 6.15.
const TCP_RTO_MAX_MS: libc::c_int = 44;

/// Bounds how far apart retransmissions and probes may be.
fn bound_backoff(socket: BorrowedFd<'_>, most: Duration) {
    // The kernel takes 1 s to 120 s.
    let most = most.clamp(Duration::from_secs(1), Duration::from_secs(120)).as_millis() as libc::c_int;
    let len = size_of_val(&most) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel copies `len` bytes of a number that outlives the call. No crate of ours has
    // this option.
    unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, TCP_RTO_MAX_MS, std::ptr::from_ref(&most).cast(), len);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        thread::yield_now,
    };

    use rustix::net::sockopt::{socket_keepalive, tcp_keepidle};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, peer)
    }

    #[test]
    fn what_was_written_is_acknowledged_once_the_peers_kernel_has_it() {
        let (mut socket, _peer) = pair();
        let before = acks(&socket);
        assert_eq!((before.acked, before.queued), (0, 0));
        socket.write_all(&[0; 1000]).unwrap();
        assert_eq!(acks(&socket).end(), 1000);
        while acks(&socket).acked < 1000 {
            yield_now();
        }
        assert_eq!(acks(&socket).queued, 0);
    }

    #[test]
    fn what_has_come_is_counted_whether_it_was_read_or_not() {
        let (mut socket, mut peer) = pair();
        assert_eq!(acks(&socket).received, 0);
        peer.write_all(&[0; 1000]).unwrap();
        while acks(&socket).received < 1000 {
            yield_now();
        }
        socket.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!(acks(&socket).received, 1000);
    }

    #[test]
    fn of_a_peer_that_has_stopped_reading_probes_are_answered() {
        let (mut socket, mut peer) = pair();
        socket.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(n) = socket.write(&[0; 65536]) {
            sent += n as u64;
        }
        // The window is closed, and the kernel asks whether it still is.
        while acks(&socket).silent < Duration::from_millis(100) {
            yield_now();
        }
        while acks(&socket).silent >= Duration::from_millis(100) {
            yield_now();
        }
        let stalled = acks(&socket);
        assert!(stalled.queued > 0 && stalled.end() == sent, "{stalled:?} of {sent}");
        assert!(!stalled.is_dead(Duration::from_millis(100)), "{stalled:?}");
        peer.read_exact(&mut vec![0; sent as usize]).unwrap();
        while acks(&socket).queued > 0 {
            yield_now();
        }
        assert_eq!(acks(&socket).acked, sent);
    }

    #[test]
    fn dead_is_who_is_silent_and_was_asked_twice() {
        let silent = Duration::from_secs(60);
        let acks = |unanswered| Acks { silent, unanswered, ..Acks::default() };
        assert_eq!([0, 1, 2, 9].map(|n| acks(n).is_dead(silent)), [false, false, true, true]);
        assert!(!acks(9).is_dead(silent + Duration::from_millis(1)));
    }

    #[test]
    fn a_quiet_peer_is_asked_when_half_the_time_is_over() {
        let (socket, _peer) = pair();
        keep_asking(&socket, Duration::from_secs(60));
        assert!(socket_keepalive(&socket).unwrap());
        assert_eq!(tcp_keepidle(&socket).unwrap(), Duration::from_secs(30));
        keep_asking(&socket, Duration::from_millis(1));
        assert_eq!(tcp_keepidle(&socket).unwrap(), Duration::from_secs(1), "the kernel's least");
    }

    #[test]
    fn of_what_is_no_connection_everything_counts_as_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let known = acks(&listener);
        assert_eq!((known.queued, known.unanswered), (0, 0));
        assert_eq!(acks(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()), Acks::default());
    }
}
