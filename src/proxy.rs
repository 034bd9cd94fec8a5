//! Who is really at the other end, when a proxy stands between.
//!
//! A proxy tells in two ways: by the request header `X-Forwarded-For`, or by a few bytes before everything else, the PROXY
//! protocol (versions 1 and 2, as HAProxy defines it). Anybody can send either, so both are taken only from addresses that
//! the operator trusts (`--trusted-proxy`), and of a chain of proxies only as much as trusted ones vouch for.
//!
//! ```text
//!   version 1                                       version 2
//!   PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\r\n     ┌──────────────┬────┬────┬────────┬───────────────────────┬─────┐
//!   PROXY TCP6 …\r\n                                │ 12 bytes sig │2cmd│ fam│ length │ src, dst, their ports │ TLV │
//!   PROXY UNKNOWN …\r\n                             └──────────────┴────┴────┴────────┴───────────────────────┴─────┘
//! ```
//!
//! No socket, thread, lock or clock. What comes from the network is bounded and never panics.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{config::Network, http::Request};

/// The longest header of version 1, its line end included: so the specification says.
const TEXT_MAX: usize = 107;

/// The longest header of version 2 that is taken. Addresses are 36 bytes; proxies add a few hundred at most.
const BINARY_MAX: usize = 4096;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Which addresses are proxies whose word counts.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    trusted: Vec<Network>,
    /// Their connections begin with a PROXY header.
    announce: bool,
}

impl Proxies {
    /// These addresses are trusted; with `announce`, their connections begin with a PROXY header.
    pub fn new(trusted: Vec<Network>, announce: bool) -> Proxies {
        Proxies { trusted, announce }
    }

    /// Whether this is the address of a trusted proxy.
    pub fn trust(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// Whether a connection from `address` has to begin with a PROXY header.
    pub fn announce(&self, address: IpAddr) -> bool {
        self.announce && self.trust(address)
    }

    /// The client that a request comes from: `peer`, or whom a trusted peer names in `X-Forwarded-For`. Each proxy appends
    /// whom it has seen, so the list is read from its end, as far as those who wrote it are trusted.
    pub fn client(&self, peer: SocketAddr, head: &Request<'_>) -> SocketAddr {
        if self.trusted.is_empty() || !self.trust(peer.ip()) {
            return peer;
        }
        let named: Vec<&str> = head.list("X-Forwarded-For").collect();
        let mut client = peer;
        for name in named.into_iter().rev() {
            let Some(address) = read_address(name) else { break };
            client = address;
            if !self.trust(client.ip()) {
                break;
            }
        }
        client
    }
}

/// An address as proxies write it: `192.0.2.7`, `192.0.2.7:51234`, `2001:db8::7`, `[2001:db8::7]:51234`. Port 0 where there
/// is none.
fn read_address(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let alone = bare.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, 0));
    alone.or_else(|| text.parse().ok()).map(canonical)
}

/// An IPv4 address in the disguise of IPv6 as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A PROXY header, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client; none where the proxy speaks for itself (a health check) or doesn't know.
    pub client: Option<SocketAddr>,
    /// Its length in bytes.
    pub len: usize,
}

/// Reads the PROXY header at the beginning of a connection; none while more bytes are needed.
///
/// # Errors
/// One sentence about what it is instead.
pub fn read_header(bytes: &[u8]) -> Result<Option<Header>, &'static str> {
    // Fewer bytes may still become it.
    let begins = |with: &[u8]| bytes.starts_with(with) || with.starts_with(bytes);
    if begins(SIGNATURE) {
        return read_binary(bytes);
    }
    if begins(b"PROXY ") {
        return read_text(bytes);
    }
    Err("A connection from this proxy has to begin with a PROXY header, of version 1 or 2 (--proxy-protocol).")
}

fn read_text(bytes: &[u8]) -> Result<Option<Header>, &'static str> {
    const BAD: &str = "The PROXY header is malformed: expected PROXY TCP4 or TCP6, two addresses and two ports.";
    let seen = bytes.get(..TEXT_MAX).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', seen) else {
        return if seen.len() == TEXT_MAX { Err("The PROXY header is longer than 107 bytes.") } else { Ok(None) };
    };
    let (line, _) = seen.split_at(end);
    let line = line.strip_suffix(b"\r").and_then(|line| str::from_utf8(line).ok()).ok_or(BAD)?;
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    let len = end.saturating_add(1);
    if family == Some("UNKNOWN") {
        return Ok(Some(Header { client: None, len }));
    }
    let [Some(source), Some(target), Some(port), Some(target_port), None] = [(); 5].map(|()| words.next()) else {
        return Err(BAD);
    };
    let is_family = |ip: IpAddr| family == Some(if ip.is_ipv4() { "TCP4" } else { "TCP6" });
    let read = |text: &str| text.parse().ok().filter(|ip| is_family(*ip));
    let (source, _): (IpAddr, IpAddr) = (read(source).ok_or(BAD)?, read(target).ok_or(BAD)?);
    let read = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let (port, _): (u16, u16) = (read(port).ok_or(BAD)?, read(target_port).ok_or(BAD)?);
    Ok(Some(Header { client: Some(canonical(SocketAddr::new(source, port))), len }))
}

fn read_binary(bytes: &[u8]) -> Result<Option<Header>, &'static str> {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else { return Ok(None) };
    let [.., version_and_command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let len = head.len().saturating_add(length);
    if version_and_command >> 4 != 2 {
        return Err("The PROXY header is of a version other than 1 and 2.");
    }
    if len > BINARY_MAX {
        return Err("The PROXY header is longer than 4096 bytes.");
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let short = "The PROXY header is too short for its addresses.";
    let client = match (version_and_command & 0xf, family) {
        // LOCAL: the proxy speaks for itself.
        (0, _) => None,
        (1, 0x11) => {
            let [a, b, c, d, _, _, _, _, high, low, ..] = *body.first_chunk::<12>().ok_or(short)?;
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])))
        }
        (1, 0x21) => {
            let addresses = body.first_chunk::<36>().ok_or(short)?;
            let source: [u8; 16] = *addresses.first_chunk().ok_or(short)?;
            let port = u16::from_be_bytes([addresses[32], addresses[33]]);
            Some(canonical(SocketAddr::new(Ipv6Addr::from(source).into(), port)))
        }
        // Unspecified, datagrams, Unix sockets: nothing that counts as an address here.
        (1, _) => None,
        _ => return Err("The PROXY header has a command other than LOCAL and PROXY."),
    };
    Ok(Some(Header { client, len }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http;

    fn client(peer: &str, lines: &[&str]) -> String {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap());
        let proxies = Proxies::new(trusted.to_vec(), false);
        let headers: String = lines.iter().map(|line| format!("X-Forwarded-For: {line}\r\n")).collect();
        let request = format!("GET /ws HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let (head, _) = http::head::parse(request.as_bytes(), 8192).unwrap().unwrap();
        proxies.client(peer.parse().unwrap(), &head).to_string()
    }

    #[test]
    fn what_the_client_wrote_before_in_any_bytes_neither_counts_nor_hides_it() {
        let seen = |peer: &str, lines: &[&[u8]]| {
            let proxies = Proxies::new(vec!["10.0.0.0/8".parse().unwrap()], false);
            let mut request = b"GET /ws HTTP/1.1\r\nHost: x\r\n".to_vec();
            for line in lines {
                request.extend_from_slice(&[b"X-Forwarded-For: ", *line, b"\r\n"].concat());
            }
            request.extend_from_slice(b"\r\n");
            let (head, _) = http::head::parse(&request, 8192).unwrap().unwrap();
            proxies.client(peer.parse().unwrap(), &head).to_string()
        };
        for (lines, is) in [
            (&["é, 192.0.2.7".as_bytes()][..], "192.0.2.7:0"),
            (&[b"\xe9, 192.0.2.7"], "192.0.2.7:0"),
            (&["é".as_bytes(), b"192.0.2.7"], "192.0.2.7:0"),
            (&["é,192.0.2.7, 10.0.0.2".as_bytes()], "192.0.2.7:0"),
            // What can't be read ends it, and so does what is glued to it.
            (&["192.0.2.7, é, 10.0.0.2".as_bytes()], "10.0.0.2:0"),
            (&[b"192.0.2.7", "é".as_bytes(), b"10.0.0.2"], "10.0.0.2:0"),
            (&["é192.0.2.7, 10.0.0.2".as_bytes()], "10.0.0.2:0"),
            (&["é".as_bytes()], "10.0.0.1:5"),
        ] {
            assert_eq!(seen("10.0.0.1:5", lines), is, "{lines:?}");
            assert_eq!(seen("192.0.2.1:5", lines), "192.0.2.1:5", "{lines:?}");
        }
    }

    #[test]
    fn a_trusted_proxy_names_the_client_and_nobody_else_does() {
        for (peer, lines, is) in [
            ("10.0.0.1:5", &["192.0.2.7"][..], "192.0.2.7:0"),
            ("10.0.0.1:5", &[], "10.0.0.1:5"),
            ("192.0.2.1:5", &["192.0.2.7"], "192.0.2.1:5"),
            // What the client itself has sent comes first, and doesn't count.
            ("10.0.0.1:5", &["1.1.1.1, 192.0.2.7"], "192.0.2.7:0"),
            ("10.0.0.1:5", &["1.1.1.1", "192.0.2.7"], "192.0.2.7:0"),
            // A chain of trusted proxies.
            ("10.0.0.1:5", &["1.1.1.1, 192.0.2.7, 10.2.2.2, 10.3.3.3"], "192.0.2.7:0"),
            ("10.0.0.1:5", &["10.4.4.4, 10.2.2.2"], "10.4.4.4:0"),
            ("10.0.0.1:5", &["192.0.2.7:51234"], "192.0.2.7:51234"),
            ("10.0.0.1:5", &["2003::7"], "[2003::7]:0"),
            ("10.0.0.1:5", &["[2003::7]:5"], "[2003::7]:5"),
            ("10.0.0.1:5", &["[2003::7]"], "[2003::7]:0"),
            ("10.0.0.1:5", &["::ffff:192.0.2.7"], "192.0.2.7:0"),
            ("[::ffff:10.0.0.1]:5", &["192.0.2.7"], "192.0.2.7:0"),
            ("[2001:db8::1]:5", &["192.0.2.7"], "192.0.2.7:0"),
            // What can't be read is as far as it goes.
            ("10.0.0.1:5", &["192.0.2.7, unknown"], "10.0.0.1:5"),
            ("10.0.0.1:5", &["192.0.2.7, _hidden, 10.2.2.2"], "10.2.2.2:0"),
        ] {
            assert_eq!(client(peer, lines), is, "{peer} {lines:?}");
        }
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 0xc8, 0x22, 1, 187];
        let mut six = [0; 36];
        six[..2].copy_from_slice(&[0x20, 0x03]);
        six[15] = 7;
        six[33] = 5;
        let with_more = [&four[..], &[0x20, 0, 2, 1, 1]].concat();
        vec![
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\r\n".to_vec(), Some("192.0.2.7:51234")),
            (b"PROXY TCP6 2003::7 ::1 5 443\r\n".to_vec(), Some("[2003::7]:5")),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 5 443\r\n".to_vec(), Some("192.0.2.7:5")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (binary(0x21, 0x11, &four), Some("192.0.2.7:51234")),
            (binary(0x21, 0x11, &with_more), Some("192.0.2.7:51234")),
            (binary(0x21, 0x21, &six), Some("[2003::7]:5")),
            (binary(0x20, 0, &[]), None),
            (binary(0x20, 0x11, &four), None),
            (binary(0x21, 0, &[1, 2, 3]), None),
            (binary(0x21, 0x31, &[0; 216]), None),
        ]
    }

    #[test]
    fn a_header_is_read_when_it_is_whole_and_not_before() {
        for (bytes, is) in good() {
            let with_request = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            let header = Header { client: is.map(|address| address.parse().unwrap()), len: bytes.len() };
            assert_eq!(read_header(&with_request), Ok(Some(header)));
            for cut in 0..bytes.len() {
                assert_eq!(read_header(&bytes[..cut]), Ok(None), "{cut} of {bytes:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_as_soon_as_that_is_certain() {
        for (bytes, said) in [
            (b"G".to_vec(), "has to begin with a PROXY header"),
            (b"PROXX".to_vec(), "has to begin with a PROXY header"),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 51234\r\n".to_vec(), "malformed"),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443 1\r\n".to_vec(), "malformed"),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(), "malformed"),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 443\r\n".to_vec(), "malformed"),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 443\r\n".to_vec(), "malformed"),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 1 443\n".to_vec(), "malformed"),
            (b"PROXY UDP4 192.0.2.7 10.0.0.1 1 443\r\n".to_vec(), "malformed"),
            ([&b"PROXY "[..], &[b'x'; 200]].concat(), "longer than 107"),
            (binary(0x31, 0x11, &[0; 12]), "version"),
            (binary(0x22, 0x11, &[0; 12]), "command"),
            (binary(0x21, 0x11, &[0; 11]), "too short"),
            (binary(0x21, 0x21, &[0; 35]), "too short"),
            (binary(0x21, 0x11, &[0; 5000])[..16].to_vec(), "longer than 4096"),
        ] {
            assert!(read_header(&bytes).is_err_and(|why| why.contains(said)), "{said}: {bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_wait_for_ever(
            (start, rest) in (prop::sample::select(good()), prop::collection::vec(any::<u8>(), 0..5000)),
            keep in 0usize..40,
        ) {
            let keep = keep.min(start.0.len());
            let bytes = [&start.0[..keep], &rest[..]].concat();
            match read_header(&bytes) {
                Ok(Some(header)) => prop_assert!(header.len <= bytes.len()),
                Ok(None) => prop_assert!(bytes.len() < BINARY_MAX),
                Err(_) => {}
            }
        }
    }
}
