//! Who counts as one: an IPv4 address, or an IPv6 network.
//!
//! A household or a rented machine has a whole IPv6 network, 2^64 addresses and often more, so whatever is counted by address
//! is counted by prefix (`--ipv6-prefix`, 64 bits unless set). An IPv4 address in the disguise of IPv6 (`::ffff:192.0.2.7`,
//! RFC 4291 section 2.5.5.2) is what it is.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

/// The addresses that count as one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix(IpNet);

impl Prefix {
    /// That of `address`: itself, or its network of `ipv6_len` bits, at most 128.
    pub fn of(address: IpAddr, ipv6_len: u8) -> Prefix {
        debug_assert!(ipv6_len <= 128, "an IPv6 address has 128 bits");
        let address = address.to_canonical();
        let network = match address {
            IpAddr::V4(_) => IpNet::from(address),
            IpAddr::V6(_) => IpNet::new(address, ipv6_len).unwrap_or_else(|_| address.into()),
        };
        Prefix(network.trunc())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_one(len: u8, a: &str, b: &str) -> bool {
        let of = |text: &str| Prefix::of(text.parse().unwrap(), len);
        of(a) == of(b)
    }

    #[test]
    fn an_ipv4_address_is_one_in_whatever_disguise() {
        assert!(is_one(64, "192.0.2.7", "::ffff:192.0.2.7"));
        assert!(is_one(0, "192.0.2.7", "::ffff:c000:207"));
        assert!(!is_one(64, "192.0.2.7", "::ffff:192.0.2.8"));
        assert!(!is_one(0, "192.0.2.7", "192.0.2.8"), "--ipv6-prefix is not for IPv4");
    }

    #[test]
    fn an_ipv6_network_is_one_as_far_as_its_prefix_goes() {
        assert!(is_one(64, "2001:db8:1:2::7", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!is_one(64, "2001:db8:1:2::7", "2001:db8:1:3::7"));
        assert!(is_one(56, "2001:db8:1:2::7", "2001:db8:1:3::7"));
        assert!(!is_one(128, "2001:db8:1:2::7", "2001:db8:1:2::8"));
        assert!(is_one(128, "2001:db8:1:2::7", "2001:0db8:1:2:0:0:0:7"));
        assert!(is_one(0, "2001:db8::", "fe80::1") && !is_one(0, "::1", "127.0.0.1"));
        assert_eq!(Prefix::of("2001:db8:1:2::7".parse().unwrap(), 64).to_string(), "2001:db8:1:2::/64");
    }
}
