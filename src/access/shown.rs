//! The token that a request shows.
//!
//! | what is sent | what it shows |
//! | --- | --- |
//! | `Authorization: Bearer T` | `T`: the scheme in any case of letters, white space around it left out |
//! | `Sec-WebSocket-Protocol: …, stentor.bearer.T` | `T`: all that a page can give without an address that is logged |
//! | `?token=T` | `T`, decoded as forms encode it |
//! | several of these, alike | that |
//! | another scheme | what the others have, if anything |
//!
//! What is there and empty is a token, too, and never the right one: a program whose token was lost is told so, and isn't taken for somebody who has none.
//! Of two that differ, of several headers, or several `token` in the address, nobody knows
//! which was meant, and a proxy in front may have looked at another: such a request is refused.

use std::borrow::Cow;

use crate::http::{Refusal, Request};

/// What the subprotocol begins with that is a token.
pub const SUBPROTOCOL: &str = "stentor.bearer.";

/// A token that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown<'b> {
    /// The token.
    pub text: Cow<'b, str>,
    /// It came in an address, which proxies log.
    pub in_address: bool,
}

impl<'b> Shown<'b> {
    /// One that a command says, or a header.
    pub fn new(text: impl Into<Cow<'b, str>>) -> Shown<'b> {
        Shown { text: text.into(), in_address: false }
    }
}

/// The token that a request shows, if any.
///
/// # Errors
/// 400 for two that differ, for several headers or several `token` in the address.
pub fn shown_token<'b>(head: &Request<'b>) -> Result<Option<Shown<'b>>, Refusal> {
    let in_address = head.parameter("token")?.map(|text| Shown { text, in_address: true });
    let mut headers = head.headers("Authorization");
    let header = headers.next();
    if headers.next().is_some() {
        return Err(Refusal::new(400, "There is more than one Authorization header."));
    }
    let bearer = header.and_then(|value| {
        let (scheme, token) = value.split_once([' ', '\t']).unwrap_or((value, ""));
        scheme.eq_ignore_ascii_case("bearer").then(|| Shown::new(token.trim()))
    });
    let offered = head.headers("Sec-WebSocket-Protocol").flat_map(|value| value.split(','));
    let offered = offered.filter_map(|word| word.trim().strip_prefix(SUBPROTOCOL)).map(Shown::new);
    let mut all = bearer.into_iter().chain(offered).chain(in_address);
    // What isn't in the address goes first: where it is shown there as well, it was shown elsewhere, too.
    let first = all.next();
    if let Some(first) = &first
        && all.any(|other| other.text != first.text)
    {
        return Err(Refusal::new(400, "There are two tokens that differ: show one."));
    }
    Ok(first)
}
