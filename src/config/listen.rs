//! Where to listen, as people write it.
//!
//! ```text
//!  127.0.0.1:9001  [::1]:9001     an address and a port; an IPv4 address in the disguise of IPv6 is what it is
//!  [fe80::1%eth0]:9001            a link-local address with its zone (RFC 6874 names zones so)
//!  localhost:9001                 a name: the first address that it has, IPv4 before IPv6
//!  :9001  9001                    a port alone: 127.0.0.1, since nobody is let in from elsewhere who wasn't named
//!  none                           nowhere (`--listen`)
//! ```
//!
//! And shown as it is written ([`Shown`]): a zone by its name, which means the same after the next start.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs},
    ops::{Deref, DerefMut},
};

use clap::{ArgMatches, Args, Command, FromArgMatches, error::ErrorKind};
use rustix::{
    fd::OwnedFd,
    net::{
        AddressFamily, SocketType,
        netdevice::{index_to_name, name_to_index},
        socket,
    },
};

/// An address where somebody listens, for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown(pub SocketAddr);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zoned = match self.0 {
            SocketAddr::V6(six) if six.scope_id() != 0 => name(six.scope_id()).map(|zone| (six, zone)),
            _ => None,
        };
        match zoned {
            Some((six, zone)) => write!(f, "[{}%{zone}]:{}", six.ip(), six.port()),
            None => self.0.fmt(f),
        }
    }
}

/// The addresses of `--listen`; none for `--listen none`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(Vec<SocketAddr>);

impl From<Vec<SocketAddr>> for Addresses {
    fn from(addresses: Vec<SocketAddr>) -> Addresses {
        Addresses(addresses)
    }
}

impl Deref for Addresses {
    type Target = Vec<SocketAddr>;

    fn deref(&self) -> &Vec<SocketAddr> {
        &self.0
    }
}

impl DerefMut for Addresses {
    fn deref_mut(&mut self) -> &mut Vec<SocketAddr> {
        &mut self.0
    }
}

/// The flag itself.
#[derive(Args)]
struct Flag {
    /// Address and port to listen on; repeat for several, or none
    ///
    /// IPv4 (`127.0.0.1:9001`), IPv6 (`[::1]:9001`, `[fe80::1%eth0]:9001`), a name (`localhost:9001`: its first address, IPv4
    /// before IPv6), or a port alone, which is 127.0.0.1. `[::]:9001` takes IPv6 only: repeat it with `0.0.0.0:9001` for
    /// both. Port 0 lets the system choose; the log says which it chose. `none` where TLS alone is wanted (--tls-listen).
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "STENTOR_LISTEN",
        value_delimiter = ',',
        value_parser = word,
        default_value = "127.0.0.1:9001",
        help_heading = "Listening"
    )]
    listen: Vec<Word>,
}

/// One of its values.
#[derive(Clone, Copy, Debug)]
enum Word {
    None,
    At(SocketAddr),
}

fn word(text: &str) -> Result<Word, String> {
    match text {
        "none" => Ok(Word::None),
        _ => read(text).map(Word::At).map_err(|why| format!("{why}; or none")),
    }
}

impl Args for Addresses {
    fn augment_args(command: Command) -> Command {
        Flag::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flag::augment_args_for_update(command)
    }
}

impl FromArgMatches for Addresses {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Addresses, clap::Error> {
        Addresses::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Addresses, clap::Error> {
        let words = Flag::from_arg_matches_mut(matches)?.listen;
        let addresses =
            words.iter().filter_map(|word| if let Word::At(address) = word { Some(*address) } else { None });
        let addresses: Vec<SocketAddr> = addresses.collect();
        if let Some(beside) = addresses.first().filter(|_| addresses.len() < words.len()) {
            let text = format!("--listen was given as none and as {}: one of them is meant\n", Shown(*beside));
            return Err(clap::Error::raw(ErrorKind::ArgumentConflict, text));
        }
        Ok(Addresses(addresses))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Addresses::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Reads an address that strangers are to find: a port alone is every address of this machine.
pub(super) fn read_everywhere(text: &str) -> Result<SocketAddr, String> {
    let address = read(text)?;
    let is_port_alone = text.strip_prefix(':').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
    Ok(if is_port_alone { SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port()) } else { address })
}

/// Reads it. Names are looked up, and interfaces asked for their numbers, once.
///
/// # Errors
/// What is wrong with it, and what would do.
pub(super) fn read(text: &str) -> Result<SocketAddr, String> {
    let address = match text.parse() {
        Ok(address) => address,
        Err(_) => read_other(text)?,
    };
    match address {
        SocketAddr::V6(six) if six.ip().is_unicast_link_local() && six.scope_id() == 0 => {
            Err(format!("a link-local address needs its zone, the interface: [{}%eth0]:{}", six.ip(), six.port()))
        }
        SocketAddr::V6(six) if six.ip().to_ipv4_mapped().is_some() => {
            Ok(SocketAddr::new(six.ip().to_canonical(), six.port()))
        }
        address => Ok(address),
    }
}

fn read_other(text: &str) -> Result<SocketAddr, String> {
    let wrong = || {
        "expected an address and a port (127.0.0.1:9001, [::1]:9001, [fe80::1%eth0]:9001), a name and a port \
         (localhost:9001), or a port (9001) for this machine alone"
            .to_owned()
    };
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port: u16 = port.parse().ok().filter(|_| is_number).ok_or_else(wrong)?;
    if host.is_empty() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    if let Some((address, zone)) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')?.split_once('%')) {
        let address: Ipv6Addr = address.parse().map_err(|_| wrong())?;
        let zone = index(zone).ok_or_else(|| format!("there is no network interface {zone}"))?;
        return Ok(SocketAddrV6::new(address, port, 0, zone).into());
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if !host.bytes().all(is_name) {
        return Err(wrong());
    }
    let found = (host, port).to_socket_addrs().map_err(|error| format!("no address is known for {host}: {error}"))?;
    // A name often has both, and the programs that connect to it try IPv4 at least.
    let found: Vec<SocketAddr> = found.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| format!("no address is known for {host}"))
}

/// The number of a network interface.
fn index(name: &str) -> Option<u32> {
    name_to_index(any_socket()?, name).ok()
}

/// The name of the network interface with this number.
fn name(index: u32) -> Option<String> {
    index_to_name(any_socket()?, index).ok()
}

/// What the kernel wants to be asked through.
fn any_socket() -> Option<OwnedFd> {
    let any = socket(AddressFamily::INET6, SocketType::DGRAM, None);
    any.or_else(|_| socket(AddressFamily::INET, SocketType::DGRAM, None)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_a_name_a_zone_or_a_port_alone_is_taken() {
        let lo = index("lo").expect("every Linux machine has it");
        for (text, address) in [
            ("127.0.0.1:9001", "127.0.0.1:9001"),
            ("[::1]:9001", "[::1]:9001"),
            ("[::]:0", "[::]:0"),
            (":9001", "127.0.0.1:9001"),
            ("9001", "127.0.0.1:9001"),
            ("localhost:9001", "127.0.0.1:9001"),
            ("[fe80::1%lo]:9001", &*format!("[fe80::1%{lo}]:9001")),
            ("[fe80::1%7]:9001", "[fe80::1%7]:9001"),
            ("[::ffff:127.0.0.1]:9001", "127.0.0.1:9001"),
            ("[::ffff:7f00:1]:9001", "127.0.0.1:9001"),
            ("[::ffff:0.0.0.0]:0", "0.0.0.0:0"),
        ] {
            assert_eq!(read(text), Ok(address.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_zone_is_shown_by_its_name_and_what_is_shown_can_be_read() {
        for text in ["[fe80::1%lo]:9001", "127.0.0.1:9001", "[::1]:9001"] {
            assert_eq!(read(text).map(|address| Shown(address).to_string()), Ok(text.to_owned()));
        }
        // One that is gone has no name any more.
        let gone = SocketAddr::from(SocketAddrV6::new("fe80::1".parse().unwrap(), 1, 0, u32::MAX));
        assert_eq!(Shown(gone).to_string(), "[fe80::1%4294967295]:1");
    }

    #[test]
    fn a_port_alone_is_every_address_where_strangers_are_to_find_it() {
        for (text, address) in [("80", "[::]:80"), (":80", "[::]:80"), ("127.0.0.1:80", "127.0.0.1:80")] {
            assert_eq!(read_everywhere(text), Ok(address.parse().unwrap()), "{text}");
        }
        assert!(read_everywhere(":").is_err() && read_everywhere("65536").is_err());
    }

    #[test]
    fn anything_else_is_told_what_would_do() {
        for text in [
            "",
            ":",
            "localhost",
            "localhost:",
            "127.0.0.1",
            "::1:x",
            "[::1]",
            "[::1",
            "a b:1",
            ":65536",
            ":+1",
            "http://a:1",
        ] {
            assert!(read(text).is_err_and(|why| why.contains("127.0.0.1:9001")), "{text}");
        }
        assert_eq!(
            read("[fe80::1]:9001").unwrap_err(),
            "a link-local address needs its zone, the interface: [fe80::1%eth0]:9001"
        );
        assert_eq!(read("[fe80::1%none0]:9001").unwrap_err(), "there is no network interface none0");
    }
}
