//! Frames as a client sees them: what arrives is scanned in place, what leaves is masked (RFC 6455, section 5).
//!
//! Written apart from any server's codec on purpose: a mistake shared by both ends must not pass as correct. Servers
//! never mask, so the header of what arrives is 2, 4 or 10 bytes and the payload is used where it lies.
//!
//! ```text
//!  byte 0            byte 1           then
//!  +-+-+-+-+-------+ +-+-------------+ +--------------------------+---------------+
//!  |F|0|0|0|opcode | |M|length  0-125| | 126: 2 bytes 127: 8 bytes| masking key 4 |
//!  +-+-+-+-+-------+ +-+-------------+ +--------------------------+---------------+
//! ```

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of a fragmented message.
    Continuation = 0,
    /// UTF-8 text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The end of the connection.
    Close = 8,
    /// A question whether the other end is there.
    Ping = 9,
    /// The answer to a ping.
    Pong = 10,
}

/// One frame, found in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The last, or only, frame of its message.
    pub fin: bool,
    /// What it is for.
    pub opcode: Opcode,
    /// It holds a compressed message, or the beginning of one.
    pub compressed: bool,
    /// Its payload, in place.
    pub payload: &'a [u8],
    /// Bytes of header and payload together.
    pub len: usize,
}

/// What the start of a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan<'a> {
    /// A whole frame.
    Frame(Frame<'a>),
    /// The beginning of a frame of so many bytes; 0 where the header itself is incomplete.
    Partial(usize),
    /// No frame that a server may send; the text says why.
    Wrong(&'static str),
}

/// The largest frame that is believed; a longer one is a misread header.
const FRAME_MAX: u64 = 1 << 30;

/// Looks at the frame at the start of `bytes`.
#[inline]
pub fn scan(bytes: &[u8]) -> Scan<'_> {
    scan_with(bytes, false)
}

/// The same, where messages may be compressed.
#[inline]
pub fn scan_with(bytes: &[u8], may_compress: bool) -> Scan<'_> {
    let [first, second, ..] = *bytes else { return Scan::Partial(0) };
    let (header, len) = match second {
        len @ 0..=125 => (2, u64::from(len)),
        126 => match bytes.get(2..4) {
            Some(len) => (4, u64::from(u16::from_be_bytes(len.try_into().expect("2 bytes")))),
            None => return Scan::Partial(0),
        },
        127 => match bytes.get(2..10) {
            Some(len) => (10, u64::from_be_bytes(len.try_into().expect("8 bytes"))),
            None => return Scan::Partial(0),
        },
        _ => return Scan::Wrong("a server's frame was masked"),
    };
    let compressed = first & 0x40 != 0;
    if first & 0x30 != 0 || (compressed && !(may_compress && matches!(first & 15, 1 | 2))) {
        return Scan::Wrong("a frame had reserved bits set");
    }
    let Some(opcode) = opcode(first & 15) else { return Scan::Wrong("a frame had an unknown opcode") };
    let fin = first & 0x80 != 0;
    if first & 8 != 0 && (!fin || len > 125) {
        return Scan::Wrong("a control frame was fragmented or too long");
    }
    if len > FRAME_MAX {
        return Scan::Wrong("a frame claimed to be longer than 1 GiB");
    }
    let len = header + len as usize;
    match bytes.get(header..len) {
        Some(payload) => Scan::Frame(Frame { fin, opcode, compressed, payload, len }),
        None => Scan::Partial(len),
    }
}

fn opcode(bits: u8) -> Option<Opcode> {
    Some(match bits {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        _ => return None,
    })
}

/// Bytes of a server's frame with so long a payload.
#[inline]
pub fn len_of(payload: usize) -> usize {
    payload
        + match payload {
            0..=125 => 2,
            126..=65_535 => 4,
            _ => 10,
        }
}

/// Appends a masked frame to `out`.
pub fn write(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    write_with_key(opcode, payload, fastrand::u32(..).to_ne_bytes(), out);
}

fn write_with_key(opcode: Opcode, payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    out.push(0x80 | opcode as u8);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[start..], key);
}

/// XORs `bytes` with the key, eight at a time.
fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends a close frame to `out`; 1005, which stands for no code, is sent as none.
pub fn write_close(code: u16, out: &mut Vec<u8>) {
    let bytes = code.to_be_bytes();
    write(Opcode::Close, if code == 1005 { &[] } else { &bytes }, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tungstenite::{
        Message,
        protocol::{Role, WebSocket},
    };

    use super::*;

    fn frame(opcode: Opcode, len: usize) -> Vec<u8> {
        let mut bytes = vec![0x80 | opcode as u8];
        match len {
            0..=125 => bytes.push(len as u8),
            126..=65_535 => {
                bytes.push(126);
                bytes.extend_from_slice(&(len as u16).to_be_bytes());
            }
            _ => {
                bytes.push(127);
                bytes.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        bytes.resize(bytes.len() + len, b'x');
        bytes
    }

    #[test]
    fn every_length_of_header_is_read() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let bytes = frame(Opcode::Text, len);
            let Scan::Frame(frame) = scan(&bytes) else { panic!("no frame of {len}") };
            assert_eq!((frame.payload.len(), frame.len, frame.fin), (len, bytes.len(), true));
        }
    }

    #[test]
    fn every_cut_is_partial_and_says_how_much_is_needed() {
        for len in [5, 200, 70_000] {
            let bytes = frame(Opcode::Binary, len);
            let header = bytes.len() - len;
            assert_eq!(scan(&bytes[..header - 1]), Scan::Partial(0));
            assert_eq!(scan(&bytes[..header]), Scan::Partial(bytes.len()));
            assert_eq!(scan(&bytes[..bytes.len() - 1]), Scan::Partial(bytes.len()));
        }
    }

    #[test]
    fn what_a_server_may_not_send_is_refused() {
        assert!(matches!(scan(&[0x81, 0x80, 0, 0, 0, 0]), Scan::Wrong(why) if why.contains("masked")));
        assert!(matches!(scan(&[0xC1, 0]), Scan::Wrong(why) if why.contains("reserved")));
        assert!(matches!(scan(&[0x83, 0]), Scan::Wrong(why) if why.contains("opcode")));
        assert!(matches!(scan(&[0x09, 0]), Scan::Wrong(why) if why.contains("control")));
        assert!(matches!(scan(&[0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0]), Scan::Wrong(why) if why.contains("GiB")));
    }

    proptest! {
        /// The independent server reads what is written here.
        #[test]
        fn a_server_reads_what_was_written(len in 0usize..70_000, text: bool) {
            let opcode = if text { Opcode::Text } else { Opcode::Binary };
            let payload: Vec<u8> = (0..len).map(|at| b'a' + (at % 23) as u8).collect();
            let mut wire = Vec::new();
            write(opcode, &payload, &mut wire);
            let mut server = WebSocket::from_raw_socket(std::io::Cursor::new(wire), Role::Server, None);
            let message = server.read().unwrap();
            prop_assert_eq!(matches!(message, Message::Text(_)), text);
            prop_assert_eq!(message.into_data().to_vec(), payload);
        }
    }
}
