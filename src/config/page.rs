//! Web pages as an operator names them, and hosts as addresses name them.
//!
//! ```text
//!  https://feed.example:8443        an origin (RFC 6454): scheme, host, port
//!  https://*.example.com            every name below example.com
//!  capacitor://localhost            the page of an app
//!  null                             documents without an origin of their own
//!  *                                any
//! ```
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

use std::{net::IpAddr, str::FromStr};

/// Pages that are named by an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// `*`: all pages.
    Any,
    /// `null`: documents without an origin of their own, such as files and sandboxed frames.
    Null,
    /// `scheme://host[:port]`.
    Origin(Origin),
    /// `scheme://*.host[:port]`: all names below this one, and not itself.
    Below(Origin),
}

/// An origin that is `scheme://host[:port]`, with the scheme's default port where none is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Named, String> {
        let wrong = || {
            "it must look like https://example.com, http://localhost:8080, https://*.example.com or \
             capacitor://localhost, or be null (documents without an origin) or * (any page)"
                .to_owned()
        };
        match text {
            "*" => Ok(Named::Any),
            "null" => Ok(Named::Null),
            _ => match text.split_once("://*.") {
                Some((scheme, rest)) => Origin::read(&format!("{scheme}://{rest}")).map(Named::Below),
                None => Origin::read(text).map(Named::Origin),
            }
            .ok_or_else(wrong),
        }
    }
}

impl Named {
    /// Whether an origin, as browsers send it, is among these.
    pub fn has(&self, origin: &str) -> bool {
        match self {
            Named::Any => true,
            Named::Null => origin == "null",
            Named::Origin(named) => Origin::read(origin).is_some_and(|origin| origin == *named),
            Named::Below(named) => Origin::read(origin).is_some_and(|origin| {
                let below = origin.host.strip_suffix(&named.host).and_then(|rest| rest.strip_suffix('.'));
                origin.scheme == named.scheme && origin.port == named.port && below.is_some_and(|name| !name.is_empty())
            }),
        }
    }
}

impl Origin {
    /// Whether its host is this machine.
    pub fn is_near(&self) -> bool {
        is_loopback(&self.host)
    }

    /// Reads it, in any case of letters. A slash at the end is let pass, since that is how addresses are copied from a browser.
    pub fn read(text: &str) -> Option<Origin> {
        let (scheme, rest) = text.split_once("://")?;
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(is_scheme) {
            return None;
        }
        let (host, port) = split(rest.strip_suffix('/').unwrap_or(rest))?;
        let (scheme, host) = (scheme.to_ascii_lowercase(), host.to_ascii_lowercase());
        Some(Origin { port: port.or(default_port(&scheme)), scheme, host })
    }

    /// Whether it is the page of the server itself, which was asked as `host`.
    pub fn is_of(&self, host: &str) -> bool {
        let Some((host, port)) = split(host) else { return false };
        let vouched = match self.scheme.as_str() {
            "https" => true,
            "http" => address(host).is_some() || is_loopback(host),
            _ => false,
        };
        vouched && host.eq_ignore_ascii_case(&self.host) && port.or(default_port(&self.scheme)) == self.port
    }
}

/// The host and the port of `host[:port]`, an IPv6 address in its brackets; none if it is anything else.
pub fn split(text: &str) -> Option<(&str, Option<u16>)> {
    let end = match text.starts_with('[') {
        true => text.find(']')?.saturating_add(1),
        false => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(end);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.is_empty() || !(host.bytes().all(is_name) || address(host).is_some()) {
        return None;
    }
    if rest.is_empty() {
        return Some((host, None));
    }
    let port = rest.strip_prefix(':').filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some((host, Some(port.parse().ok()?)))
}

/// The address that a host is, if it is one.
fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

/// Whether a host is this machine: an address of loopback, or `localhost` and what is below it, which browsers never look up
/// (RFC 6761 section 6.3).
pub fn is_loopback(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let below = name.strip_suffix(".localhost").is_some_and(|label| !label.is_empty());
    below || name == "localhost" || address(host).is_some_and(|address| address.to_canonical().is_loopback())
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}
