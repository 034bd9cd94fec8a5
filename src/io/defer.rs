//! Accepting connections only once the peer has said something.
#![allow(unsafe_code)]

use rustix::fd::AsRawFd;
use socket2::Socket;

/// Seconds that a peer may be silent before its connection is accepted all the same.
const SILENT_MAX: libc::c_int = 1;

/// Has a listening socket give out connections when their first bytes have come (`tcp(7)`, `TCP_DEFER_ACCEPT`), or after a
/// second or so: whoever takes one over finds the request there, and is woken once for both. Failing to do so changes no
/// promise.
pub fn defer_accept(socket: &Socket) {
    let len = size_of_val(&SILENT_MAX) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel copies `len` bytes of a number that outlives the call. Neither rustix nor
    // socket2 has this option.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            std::ptr::from_ref(&SILENT_MAX).cast(),
            len,
        );
    }
}
