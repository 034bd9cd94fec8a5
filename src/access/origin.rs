//! Where a browser's request comes from, by its `Origin`, and whether it is this machine's own, by its `Host`.
//!
//! A page may ask any server for anything from its visitor's browser; what keeps it in bounds is that the browser says, in
//! every such request, whose page it is (RFC 6454), and to which name it was sent. Programs that are no browser can say
//! what they like: this is no protection from them.

use std::net::{IpAddr, SocketAddr};

use crate::http::Request;

/// The headers by which a proxy says that it has passed a request on.
const FORWARDED: [&str; 3] = ["Forwarded", "X-Forwarded-For", "Via"];

/// Whether the page that a request comes from may connect: any page, if `allowed` is empty; otherwise one whose origin,
/// `scheme://host[:port]`, is among them, in any case of letters and with or without a default port. Requests without
/// `Origin` don't come from a page and are let in.
pub fn is_allowed(head: &Request<'_>, allowed: &[String]) -> bool {
    let may = |origin: &str| allowed.iter().any(|allowed| is_same(allowed, origin));
    allowed.is_empty() || head.headers("Origin").all(may)
}

/// Whether a request comes from this machine, to this machine by name or number, and not by way of a proxy that says so.
pub fn is_local(head: &Request<'_>, peer: SocketAddr) -> bool {
    let forwarded = FORWARDED.iter().any(|name| head.header(name).is_some());
    peer.ip().is_loopback() && !forwarded && head.header("Host").is_none_or(names_loopback)
}

/// Whether two origins are the same (RFC 6454 section 5). What isn't `scheme://host[:port]`, such as `null`, is the same
/// as itself only.
fn is_same(a: &str, b: &str) -> bool {
    match (split(a), split(b)) {
        (Some(a), Some(b)) => a.0.eq_ignore_ascii_case(b.0) && a.1.eq_ignore_ascii_case(b.1) && a.2 == b.2,
        _ => a.eq_ignore_ascii_case(b),
    }
}

/// Scheme, host and port of an origin; the scheme's default port where none is given. A slash at the end is let pass,
/// since that is how addresses are copied from a browser.
fn split(origin: &str) -> Option<(&str, &str, Option<u16>)> {
    let (scheme, rest) = origin.split_once("://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    // In a bare IPv6 address, `[::1]`, what follows the last colon is no number.
    if let Some((host, port)) = rest.rsplit_once(':')
        && let Ok(port) = port.parse()
    {
        return Some((scheme, host, Some(port)));
    }
    let defaults = [("http", 80), ("ws", 80), ("https", 443), ("wss", 443)];
    let default = defaults.iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name));
    Some((scheme, rest, default.map(|&(_, port)| port)))
}

/// Whether a Host header names this machine, with or without a port.
fn names_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}
