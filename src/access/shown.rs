//! The token that a request shows.
//!
//! | what is sent | what it shows |
//! | --- | --- |
//! | `Authorization: Bearer T` | `T`: the scheme in any case of letters, white space around it left out |
//! | `?token=T` | `T`, decoded as forms encode it: all that a page can give |
//! | both | what the header has |
//! | another scheme, or a header with no space in it | what the address has, if anything |
//! | several headers, or several `token` in the address | the first of them |
//!
//! What is there and empty is a token, too, and never the right one.

use std::borrow::Cow;

use crate::http::Request;

/// The token that a request shows, if any.
pub fn shown_token<'b>(head: &Request<'b>) -> Option<Cow<'b, str>> {
    let bearer = head.header("Authorization").and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Cow::Borrowed(token.trim()))
    });
    bearer.or_else(|| head.query_value("token"))
}
