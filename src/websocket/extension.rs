//! What is agreed on of extensions: permessage-deflate (RFC 7692), or nothing.
//!
//! ```text
//!  Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8,       an offer that is declined
//!      permessage-deflate; client_max_window_bits, x-webkit-deflate-frame        one that is taken, and one that isn't known
//!  →
//!  Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover
//! ```
//!
//! A client makes offers, the most wanted first, and the first that can be kept is taken (section 5). An offer can't be kept if it has
//! a parameter that is not defined, one twice, or one with a value that it may not have (section 7); or if it asks for a window of
//! 8 bits, for which the compressor has no way of its own. Whatever else it asks for is kept, and the answer says so.
//! What isn't written as RFC 6455 section 9.1 has it is no list of offers, and fails the handshake.
//!
//! The server asks each client to compress without what came before (`client_no_context_takeover`), so that between two
//! messages nothing has to be remembered for it. It promises nothing that it wasn't asked for: it may do without context, and with a
//! smaller window, at any time (section 7.1.1.1, 7.1.2.1).

use thiserror::Error;

/// The one extension that is known.
const DEFLATE: &str = "permessage-deflate";

/// What the client has been promised, and what it has promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Bits of the largest window that the server may compress with, from 9 on, if the client has bounded it.
    pub server_window_bits: Option<u8>,
    /// The client wants each message to be compressed without those before.
    pub server_no_context_takeover: bool,
}

/// The largest window that there is, in bits.
pub const WINDOW_BITS_MAX: u8 = 15;

impl Agreed {
    /// Bits of the largest window that the server may compress with.
    pub fn window_bits(&self) -> u8 {
        self.server_window_bits.unwrap_or(WINDOW_BITS_MAX)
    }

    /// The value of the header that answers the offer.
    pub fn answer(&self) -> String {
        let mut answer = format!("{DEFLATE}; client_no_context_takeover");
        if self.server_no_context_takeover {
            answer.push_str("; server_no_context_takeover");
        }
        if let Some(bits) = self.server_window_bits {
            answer.push_str(&format!("; server_max_window_bits={bits}"));
        }
        answer
    }
}

/// Where a header is not a list of extensions.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("in Sec-WebSocket-Extensions, at byte {at}: expected {expected}, found {}", named(*.found))]
pub struct Malformed {
    /// The byte, counted from 0, in the value of the header; over all lines of it, each but the first with a comma before.
    pub at: usize,
    /// What would have done.
    pub expected: &'static str,
    /// What stands there; nothing at the end.
    pub found: Option<u8>,
}

fn named(found: Option<u8>) -> String {
    found.map_or_else(|| "the end".to_owned(), |byte| format!("{:?}", char::from(byte)))
}

/// Takes the first offer that can be kept, of those in the values of all headers of this name; none if there is none.
///
/// # Errors
/// The headers are no list of extensions.
pub fn agree<'h>(headers: impl Iterator<Item = &'h str>) -> Result<Option<Agreed>, Malformed> {
    let (mut agreed, mut before) = (None, 0);
    for value in headers {
        let mut rest = Rest { value: value.as_bytes(), at: 0 };
        rest.offers(&mut agreed).map_err(|wrong| Malformed { at: wrong.at + before, ..wrong })?;
        before += value.len() + 1;
    }
    Ok(agreed)
}

/// What of a header is still to be read.
struct Rest<'h> {
    value: &'h [u8],
    at: usize,
}

/// What an offer has come to.
#[derive(Default)]
struct Offer {
    server_window_bits: Option<u8>,
    server_no_context_takeover: bool,
    client_window_bits: bool,
    client_no_context_takeover: bool,
    is_declined: bool,
}

impl<'h> Rest<'h> {
    /// All that there are, separated by commas, some of which may have nothing between them (RFC 9110 section 5.6.1.2).
    fn offers(&mut self, agreed: &mut Option<Agreed>) -> Result<(), Malformed> {
        loop {
            self.skip_space();
            match self.peek() {
                None => return Ok(()),
                Some(b',') => self.at += 1,
                Some(_) => {
                    let taken = self.offer()?;
                    *agreed = agreed.or(taken);
                    if !matches!(self.peek(), None | Some(b',')) {
                        return Err(self.wrong("a comma, a semicolon or the end"));
                    }
                }
            }
        }
    }

    /// One, and what there is to be kept of it.
    fn offer(&mut self) -> Result<Option<Agreed>, Malformed> {
        // Names of extensions are tokens, which are held against each other as they are.
        let is_deflate = self.token("the name of an extension")? == DEFLATE.as_bytes();
        let mut offer = Offer { is_declined: !is_deflate, ..Offer::default() };
        loop {
            self.skip_space();
            if self.peek() != Some(b';') {
                break;
            }
            self.at += 1;
            self.skip_space();
            let name = self.token("the name of a parameter")?;
            self.skip_space();
            let value = if self.peek() == Some(b'=') {
                self.at += 1;
                self.skip_space();
                Some(self.parameter_value()?)
            } else {
                None
            };
            offer.take(name, value.as_deref());
        }
        Ok(offer.kept())
    }

    /// A token, or one in quotes.
    fn parameter_value(&mut self) -> Result<Vec<u8>, Malformed> {
        if self.peek() != Some(b'"') {
            return Ok(self.token("the value of a parameter")?.to_vec());
        }
        self.at += 1;
        let mut value = Vec::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    if value.is_empty() {
                        return Err(self.wrong("a value within the quotes"));
                    }
                    self.at += 1;
                    return Ok(value);
                }
                Some(byte) => {
                    // What is quoted has to be a token as well (RFC 6455 section 9.1).
                    self.at += usize::from(byte == b'\\');
                    let Some(byte) = self.peek().filter(|byte| is_token(*byte)) else {
                        return Err(self.wrong("a letter of a token within the quotes"));
                    };
                    value.push(byte);
                    self.at += 1;
                }
                None => return Err(self.wrong("the end of the quotes")),
            }
        }
    }

    fn token(&mut self, expected: &'static str) -> Result<&'h [u8], Malformed> {
        let rest = self.value.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|byte| !is_token(*byte)).unwrap_or(rest.len());
        if len == 0 {
            return Err(self.wrong(expected));
        }
        self.at += len;
        Ok(&rest[..len])
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.value.get(self.at).copied()
    }

    fn wrong(&self, expected: &'static str) -> Malformed {
        Malformed { at: self.at, expected, found: self.peek() }
    }
}

impl Offer {
    /// Takes in a parameter.
    fn take(&mut self, name: &[u8], value: Option<&[u8]>) {
        let bits = value.map(window_bits);
        let (is_good, is_there) = match name {
            b"server_no_context_takeover" => (value.is_none(), &mut self.server_no_context_takeover),
            b"client_no_context_takeover" => (value.is_none(), &mut self.client_no_context_takeover),
            // Without a value it says that the client would take one, which it is not given: to inflate costs no memory that stays.
            b"client_max_window_bits" => (bits != Some(None), &mut self.client_window_bits),
            b"server_max_window_bits" => {
                let bits = bits.flatten().filter(|bits| *bits > 8);
                self.is_declined |= bits.is_none() || self.server_window_bits.is_some();
                self.server_window_bits = bits;
                return;
            }
            _ => {
                self.is_declined = true;
                return;
            }
        };
        self.is_declined |= !is_good || std::mem::replace(is_there, true);
    }

    fn kept(self) -> Option<Agreed> {
        let Offer { server_window_bits, server_no_context_takeover, is_declined, .. } = self;
        (!is_declined).then_some(Agreed { server_window_bits, server_no_context_takeover })
    }
}

/// The bits of a window, from 8 to 15, in decimal without zeros before (RFC 7692 section 7.1.2).
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// Whether a token may have this in it (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agreed(value: &str) -> Option<Agreed> {
        agree([value].into_iter()).unwrap_or_else(|error| panic!("{value}: {error}"))
    }

    fn answer(value: &str) -> Option<String> {
        agreed(value).map(|agreed| agreed.answer())
    }

    #[test]
    fn what_is_asked_for_is_kept_and_nothing_else_is_promised() {
        let plain = "permessage-deflate; client_no_context_takeover";
        for (offer, more) in [
            ("permessage-deflate", ""),
            ("permessage-deflate; client_max_window_bits", ""),
            ("permessage-deflate; client_max_window_bits=8", ""),
            ("permessage-deflate;client_max_window_bits=\"1\\5\" ; client_no_context_takeover", ""),
            ("permessage-deflate; server_no_context_takeover", "; server_no_context_takeover"),
            ("permessage-deflate; server_max_window_bits=9", "; server_max_window_bits=9"),
            ("permessage-deflate; server_max_window_bits = \"12\"", "; server_max_window_bits=12"),
            (
                "permessage-deflate; server_max_window_bits=15; client_max_window_bits; server_no_context_takeover",
                "; server_no_context_takeover; server_max_window_bits=15",
            ),
        ] {
            assert_eq!(answer(offer), Some(format!("{plain}{more}")), "{offer}");
        }
    }

    #[test]
    fn an_offer_that_cannot_be_kept_is_declined() {
        for offer in [
            "",
            " , ,",
            "x-webkit-deflate-frame",
            "permessage-deflate2",
            "Permessage-Deflate",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits=12; server_max_window_bits=12",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=true",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; memory_level=9",
        ] {
            assert_eq!(agreed(offer), None, "{offer}");
        }
    }

    #[test]
    fn the_first_offer_that_can_be_kept_is_taken_in_one_header_or_several() {
        let declined = "permessage-deflate; server_max_window_bits=8";
        let taken = ["permessage-deflate; server_max_window_bits=10", "permessage-deflate"];
        let bits = |headers: &[&str]| agree(headers.iter().copied()).unwrap().unwrap().server_window_bits;
        assert_eq!(bits(&[&format!("foo; bar=1, {declined}, {}, {}", taken[0], taken[1])]), Some(10));
        assert_eq!(bits(&[declined, &format!("{},", taken[1]), taken[0]]), None);
    }

    #[test]
    fn what_is_no_list_of_extensions_is_told_where() {
        for (header, at, expected) in [
            ("permessage-deflate;", 19, "the name of a parameter"),
            ("permessage-deflate; ;", 20, "the name of a parameter"),
            ("permessage-deflate; a=", 22, "the value of a parameter"),
            ("permessage-deflate; a=\"", 23, "the end of the quotes"),
            ("permessage-deflate; a=\"\"", 23, "a value within the quotes"),
            ("permessage-deflate; a=\"1 2\"", 24, "a letter of a token within the quotes"),
            ("permessage-deflate; a=\"\\", 24, "a letter of a token within the quotes"),
            ("permessage-deflate a", 19, "a comma, a semicolon or the end"),
            ("permessage-deflate; a=1 2", 24, "a comma, a semicolon or the end"),
            ("permessage-deflate, =", 20, "the name of an extension"),
        ] {
            let error = agree([header].into_iter()).unwrap_err();
            assert_eq!((error.at, error.expected), (at, expected), "{header}");
            let later = agree(["permessage-deflate", header].into_iter()).unwrap_err();
            assert_eq!(later.at, at + "permessage-deflate,".len(), "{header}");
        }
        let error = agree(["foo; bar=\u{1}"].into_iter()).unwrap_err();
        assert_eq!(
            error.to_string(),
            r"in Sec-WebSocket-Extensions, at byte 9: expected the value of a parameter, found '\u{1}'"
        );
    }

    proptest! {
        #[test]
        fn whatever_is_offered_the_answer_is_one_that_the_client_may_get(
            value in "(permessage-deflate|x)?(; ?(server|client)_(max_window_bits|no_context_takeover)(=\"?[0-9]{1,2}\"?)?){0,4},?"
        ) {
            if let Ok(Some(agreed)) = agree([&*value].into_iter()) {
                let bits = agreed.server_window_bits;
                prop_assert!(bits.is_none_or(|bits| (9..=15).contains(&bits)));
                prop_assert_eq!(bits.is_some(), value.contains("server_max_window_bits"));
                prop_assert_eq!(agreed.server_no_context_takeover, value.contains("server_no_context_takeover"));
                // The answer is in the grammar of an offer, and asks for what was agreed.
                prop_assert_eq!(agree([&*agreed.answer()].into_iter()), Ok(Some(agreed)));
            }
        }
    }
}
