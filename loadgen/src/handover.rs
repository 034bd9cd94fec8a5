//! The handover: when a server gave what follows to its kernel, told by the server itself.
//!
//! From a publication's planned moment to its receipt, time is the server's until it has handed the frames for a subscriber to the kernel, and from
//! then on the kernel's and this generator's. A server that tells when that was makes the two parts known apart: `bare-loop --tell-sent` does, and any
//! server may. It says so in a pong that nobody asked for (RFC 6455, section 5.5.3), which other clients overlook, in the same send and right before
//! the frames. Those stay as they are, so that everything is verified on the same path as ever.
//!
//! ```text
//!  0    1    2               10              18
//!  +----+----+---------------+---------------+
//!  |0x8A|0x10|lg1:sent       |ns, big-endian |   nanoseconds of the monotonic clock
//!  +----+----+---------------+---------------+
//! ```

use crate::frame::Opcode;

/// Bytes of the whole frame.
pub const FRAME_LEN: usize = 2 + PAYLOAD_LEN;

const PAYLOAD_LEN: usize = MARK.len() + 8;
const MARK: &[u8] = b"lg1:sent";

/// The frame that says that what follows was handed over at this moment.
pub fn frame(at: u64) -> [u8; FRAME_LEN] {
    let mut out = [0; FRAME_LEN];
    out[0] = 0x80 | Opcode::Pong as u8;
    out[1] = PAYLOAD_LEN as u8;
    out[2..2 + MARK.len()].copy_from_slice(MARK);
    out[2 + MARK.len()..].copy_from_slice(&at.to_be_bytes());
    out
}

/// The moment that a pong tells, if that is what it is for.
pub fn read(payload: &[u8]) -> Option<u64> {
    let at = payload.strip_prefix(MARK)?;
    Some(u64::from_be_bytes(at.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Scan, scan};

    #[test]
    fn a_moment_comes_back_out_of_its_frame() {
        let bytes = frame(0x0123_4567_89AB_CDEF);
        let Scan::Frame(frame) = scan(&bytes) else { panic!("no frame") };
        assert_eq!((frame.opcode, frame.fin, frame.len), (Opcode::Pong, true, FRAME_LEN));
        assert_eq!(read(frame.payload), Some(0x0123_4567_89AB_CDEF));
    }

    #[test]
    fn other_pongs_tell_no_moment() {
        for payload in
            [&b""[..], b"lg1:sent", b"lg1:sent1234567", b"lg1:sent123456789", b"lg2:sent12345678", b"heartbeat"]
        {
            assert_eq!(read(payload), None, "{payload:?}");
        }
    }
}
