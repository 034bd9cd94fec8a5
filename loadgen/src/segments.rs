//! Segments: how many of them brought a connection its data, as its own kernel counts.
//!
//! What a server does for a delivery is a call of `send`, and few servers count theirs. The kernel of whoever receives counts for all of them alike:
//! `tcpi_data_segs_in` (RFC 4898, tcpEStatsPerfDataSegsIn). On loopback, where nobody waits by Nagle's rule, a send of up to 65,483 bytes
//! arrives as one segment. A longer one arrives as several; sends that the sender's kernel had to keep back for lack of room arrive together, as
//! fewer. On a link with a small MTU a segment is what fits into that, and says nothing of sends.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

/// Segments with data that a connection has received since it began; none where the kernel doesn't tell (before Linux 4.6).
pub fn received(socket: BorrowedFd<'_>) -> Option<u64> {
    let mut info = [0u8; DATA_SEGS_IN + 4];
    let mut len = info.len() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `len` bytes to an array that has as many. No crate of ours has this
    // option.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            std::ptr::from_mut(&mut len),
        )
    };
    let told = result == 0 && len as usize == info.len();
    told.then(|| u32::from_ne_bytes([0, 1, 2, 3].map(|nth| info[DATA_SEGS_IN + nth])).into())
}

/// Where it stands in `struct tcp_info` of `linux/tcp.h`, which grows at its end only:
///
/// ```text
///   0 eight bytes of state   8 rto … 100 total_retrans (24 words)   104 pacing_rate … 128 bytes_received (4 double words)
/// 136 segs_out   140 segs_in   144 notsent_bytes   148 min_rtt   152 data_segs_in
/// ```
const DATA_SEGS_IN: usize = 152;

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
    };

    use super::*;

    #[test]
    fn each_send_over_loopback_is_a_segment_and_an_acknowledgement_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        let mut buffer = [0; 300];
        for _ in 0..5 {
            far.write_all(&[1; 300]).unwrap();
            near.read_exact(&mut buffer).unwrap();
        }
        near.write_all(&[2]).unwrap();
        far.read_exact(&mut buffer[..1]).unwrap();
        assert_eq!((received(near.as_fd()), received(far.as_fd())), (Some(5), Some(1)));
    }
}
