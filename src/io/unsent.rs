//! How much a socket takes beyond what is on its way.
#![allow(unsafe_code)]

use rustix::fd::{AsRawFd, BorrowedFd};

/// Bounds what a socket takes beyond what was sent to the peer already (`tcp(7)`, `TCP_NOTSENT_LOWAT`), in bytes; none for
/// no bound but the buffer's. What the peer's own buffer holds is not counted. Failing to do so changes no promise.
pub fn bound_unsent(socket: BorrowedFd<'_>, most: Option<u32>) {
    let most = most.unwrap_or(u32::MAX);
    let len = size_of_val(&most) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel copies `len` bytes of a number that outlives the call. Neither rustix nor
    // socket2 has this option.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            std::ptr::from_ref(&most).cast(),
            len,
        );
    }
}
