//! The token that a request shows.
//!
//! | what is sent | what it shows |
//! | --- | --- |
//! | `Authorization: Bearer T` | `T`: the scheme in any case of letters, white space around it left out |
//! | `?token=T` | `T`, decoded as forms encode it: all that a page can give |
//! | both | what the header has |
//! | another scheme, or a header with no space in it | what the address has, if anything |
//!
//! What is there and empty is a token, too, and never the right one. Of several headers, or several `token` in the address, nobody knows
//! which was meant, and a proxy in front may have looked at another: such a request is refused.

use std::borrow::Cow;

use crate::http::{Refusal, Request};

/// The token that a request shows, if any.
///
/// # Errors
/// 400 for several headers or several `token` in the address.
pub fn shown_token<'b>(head: &Request<'b>) -> Result<Option<Cow<'b, str>>, Refusal> {
    let in_address = head.parameter("token")?;
    let mut headers = head.headers("Authorization");
    let header = headers.next();
    if headers.next().is_some() {
        return Err(Refusal::new(400, "There is more than one Authorization header."));
    }
    let bearer = header.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Cow::Borrowed(token.trim()))
    });
    Ok(bearer.or(in_address))
}
