//! Where to connect, and from which addresses.
//!
//! A connection is told apart by its two addresses and two ports, so one source address reaches one server port some
//! 28,000 times at most; and the search for a free port becomes slow long before (25 us a connect at 5,000, 250 us at
//! 20,000, measured on loopback), and servers bound what one address may have: Stentor by default at half of the 10,000
//! connections that it takes. On loopback all of 127.0.0.0/8 is ours, so connections are spread over as many source
//! addresses as keep each below [`PER_SOURCE`].

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
};

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::ServerName;

/// Connections from one source address; see above for where it comes from.
pub const PER_SOURCE: usize = 4_000;

/// A `ws://` or `wss://` address taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether it is spoken to with TLS.
    pub tls: bool,
    /// Host and port as the `Host` header has them.
    pub host: String,
    /// Path and query; may hold `{topic}`.
    pub path: String,
}

impl Url {
    /// Takes `text` apart, or says what would be accepted.
    pub fn parse(text: &str) -> Result<Self> {
        Self::of(text, ["ws", "wss"], "ws://127.0.0.1:9001/ws", "a WebSocket server")
    }

    /// The same of an `http://` or `https://` address.
    pub fn parse_http(text: &str) -> Result<Self> {
        Self::of(text, ["http", "https"], "http://127.0.0.1:9001/publish", "an HTTP server")
    }

    fn of(text: &str, [clear, tls]: [&str; 2], example: &str, whose: &str) -> Result<Self> {
        let after = |scheme: &str| text.strip_prefix(scheme)?.strip_prefix("://");
        let (tls, rest) = match (after(clear), after(tls)) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => {
                bail!("`{text}` is no address of {whose}: write it like {example}, or with {tls}:// for TLS")
            }
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        ensure!(!host.is_empty(), "`{text}` names no host: write it like {example}");
        ensure!(path.is_ascii() && !path.contains(' '), "`{text}` has a path with blanks or letters beyond ASCII");
        let path = if path.is_empty() { "/".into() } else { path.to_owned() };
        let url = Self { tls, host: host.to_owned(), path };
        if tls {
            url.server_name().with_context(|| format!("`{text}`"))?;
        }
        Ok(url)
    }

    /// The name that the server's certificate has to be for.
    pub fn server_name(&self) -> Result<ServerName<'static>> {
        let name = match self.port() {
            Some(_) => self.host.rsplit_once(':').map_or("", |(name, _)| name),
            None => &self.host,
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(name.to_owned())
            .with_context(|| format!("`{name}` is no name that a certificate can be for"))
    }

    fn port(&self) -> Option<u16> {
        self.host.rsplit_once(':')?.1.parse().ok()
    }

    /// Whether the host is this machine itself, by its name or number; nothing is looked up.
    pub fn is_loopback(&self) -> bool {
        let host = self
            .host
            .rsplit_once(':')
            .filter(|(_, port)| port.parse::<u16>().is_ok())
            .map_or(&*self.host, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// The first address that the host resolves to.
    pub fn address(&self) -> Result<SocketAddr> {
        let with_port = match self.port() {
            Some(_) => self.host.clone(),
            None => format!("{}:{}", self.host, if self.tls { 443 } else { 80 }),
        };
        let mut found = with_port.to_socket_addrs().with_context(|| format!("looking up `{}`", self.host))?;
        found.next().with_context(|| format!("looking up `{}`: no address", self.host))
    }
}

impl fmt::Display for Url {
    /// As subscribers write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "wss" } else { "ws" }, self.host, self.path)
    }
}

/// Source addresses, and which connection takes which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(Vec<IpAddr>);

impl Sources {
    /// Those given, or as many loopback addresses as `connections` need; refused where there are too few.
    ///
    /// `first` is the number of connections that other processes of the run make before this one's.
    pub fn plan(target: SocketAddr, given: &[IpAddr], first: usize, connections: usize) -> Result<Self> {
        let ports = ports();
        if !given.is_empty() {
            let most = given.len() * ports;
            ensure!(
                connections <= most,
                "{connections} connections from {} source addresses to one port: at most {most} are possible ({ports} \
                 local ports each); give {} addresses with --source",
                given.len(),
                connections.div_ceil(ports)
            );
            return Ok(Self(given.to_vec()));
        }
        match target.ip() {
            IpAddr::V4(ip) if ip.is_loopback() => {
                let last = (first + connections).div_ceil(PER_SOURCE);
                Ok(Self((first / PER_SOURCE..last.max(first / PER_SOURCE + 1)).map(loopback).collect()))
            }
            _ if connections > ports => bail!(
                "{connections} connections from one source address to {target}: at most {ports} are possible; give {} \
                 addresses with --source",
                connections.div_ceil(ports)
            ),
            _ => Ok(Self(Vec::new())),
        }
    }

    /// The source of the `nth` connection; none lets the system choose.
    pub fn of(&self, nth: usize) -> Option<SocketAddr> {
        if self.0.is_empty() {
            return None;
        }
        Some(SocketAddr::new(self.0[nth % self.0.len()], 0))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len().max(1)
    }
}

/// The `nth` address of 127.0.0.0/8, from 127.0.0.1, leaving out .0 and .255.
fn loopback(nth: usize) -> IpAddr {
    let (third, last) = (nth / 254, nth % 254);
    IpAddr::V4(Ipv4Addr::new(127, (third / 256) as u8, (third % 256) as u8, last as u8 + 1))
}

/// How many local ports there are to connect from.
fn ports() -> usize {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = range.split_whitespace().filter_map(|bound| bound.parse::<usize>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(low), Some(high)) if low <= high => high - low + 1,
        _ => 28_232,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> SocketAddr {
        "127.0.0.1:9001".parse().unwrap()
    }

    #[test]
    fn an_address_is_taken_apart() {
        let url = Url::parse("ws://127.0.0.1:9001/sub/{topic}?a=b").unwrap();
        assert_eq!((url.host.as_str(), url.path.as_str()), ("127.0.0.1:9001", "/sub/{topic}?a=b"));
        assert_eq!(url.address().unwrap(), local());
        assert_eq!(Url::parse("ws://[::1]:80").unwrap().address().unwrap(), "[::1]:80".parse().unwrap());
    }

    #[test]
    fn an_address_with_tls_has_a_port_and_a_name_of_its_own() {
        let url = Url::parse("wss://127.0.0.1/ws").unwrap();
        assert_eq!((url.tls, url.address().unwrap()), (true, "127.0.0.1:443".parse().unwrap()));
        for (text, name) in [
            ("wss://feed.example.com:9443/ws", "feed.example.com"),
            ("wss://feed.example.com", "feed.example.com"),
            ("wss://127.0.0.1:1/", "127.0.0.1"),
            ("wss://[::1]:1/", "::1"),
            ("wss://[::1]/", "::1"),
        ] {
            assert_eq!(Url::parse(text).unwrap().server_name().unwrap().to_str(), name, "{text}");
        }
        assert!(Url::parse_http("https://a:1/x").unwrap().tls && !Url::parse_http("http://a:1/x").unwrap().tls);
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        for text in ["127.0.0.1:9001", "http://x/", "ws:///x", "wss:///x", "wss://a b/x", "ws://x/a b"] {
            let error = Url::parse(text).unwrap_err().to_string();
            assert!(error.contains(text) || error.contains("ws://"), "{error}");
        }
        assert!(Url::parse_http("ws://x").unwrap_err().to_string().contains("https:// for TLS"));
    }

    #[test]
    fn loopback_connections_spread_so_that_no_source_has_too_many() {
        let sources = Sources::plan(local(), &[], 0, 12_000).unwrap();
        assert_eq!(sources.count(), 3);
        assert_eq!(sources.of(2).unwrap().ip(), loopback(2));
        let second_process = Sources::plan(local(), &[], 8_000, 4_000).unwrap();
        assert_eq!(second_process.0, [loopback(2)]);
        assert_eq!(loopback(254), "127.0.1.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn more_connections_than_ports_are_refused_with_what_would_do() {
        let remote = "192.0.2.1:80".parse().unwrap();
        let error = Sources::plan(remote, &[], 0, 1_000_000).unwrap_err().to_string();
        assert!(error.contains("--source"), "{error}");
        let given = ["192.0.2.7".parse().unwrap()];
        assert!(Sources::plan(remote, &given, 0, 1_000_000).unwrap_err().to_string().contains("--source"));
        assert_eq!(Sources::plan(remote, &[], 0, 100).unwrap().of(5), None);
    }
}
