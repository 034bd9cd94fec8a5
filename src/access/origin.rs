//! Where a browser's request comes from, by its `Origin`, and whom it was meant for, by its `Host`.
//!
//! A page may ask any server for anything from its visitor's browser; what keeps it in bounds is that the browser says, in
//! every such request, whose page it is (RFC 6454), and to which name it was sent. Programs that are no browser can say
//! what they like: this is no protection from them.
//!
//! | the server | pages that may | `Host` |
//! | --- | --- | --- |
//! | is open only because it is on loopback | those of this machine, on any port; or those named, and its own | one of loopback |
//! | names pages (`--allow-origin`) | those, and its own | any |
//! | names none | all | any |
//!
//! The address for operators goes by the first row as long as it is on loopback, and by the others where it isn't.
//!
//! Its own page is one whose origin is what the request was sent to: the console. The scheme is not compared, since a proxy may
//! have ended TLS. A name can be made to lead anywhere by whoever has it (DNS rebinding), so that a page and what it asks seem to be one;
//! so names count here only as `https`, where a certificate vouches for them, and addresses and `localhost` always.

use std::net::SocketAddr;

use crate::{
    config::page::{Named, Origin, is_loopback, split},
    http::{Request, head::FORWARDED},
};

/// Whether the page that a request comes from may connect, of those that are `named`, or, if none are, of all, or of this
/// machine's. Requests without `Origin` don't come from a page and are let in.
pub fn is_allowed(head: &Request<'_>, named: &[Named], is_near: bool) -> bool {
    let own = |origin: &str| {
        let origin = Origin::read(origin);
        origin.is_some_and(|origin| head.header("Host").is_some_and(|host| origin.is_of(host)))
    };
    let near = |origin: &str| Origin::read(origin).is_some_and(|origin| origin.is_near());
    head.headers("Origin").all(|origin| match (named, is_near) {
        ([], true) => near(origin),
        ([], false) => true,
        _ => named.iter().any(|named| named.has(origin)) || own(origin),
    })
}

/// Whether a request was sent to this machine by name or number. Without `Host`, which every browser sends, it may have been.
pub fn was_meant_for_loopback(head: &Request<'_>) -> bool {
    head.header("Host").is_none_or(|host| split(host).is_some_and(|(host, _)| is_loopback(host)))
}

/// Whether a request comes from this machine, to this machine by name or number, and not by way of a proxy that says so.
pub fn is_local(head: &Request<'_>, peer: SocketAddr) -> bool {
    let forwarded = FORWARDED.iter().any(|name| head.header(name).is_some());
    peer.ip().to_canonical().is_loopback() && !forwarded && was_meant_for_loopback(head)
}
