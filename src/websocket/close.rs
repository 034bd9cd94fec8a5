//! Close codes, and the payload of a close frame.
//!
//! ```text
//!   0        1        2 …              at most 125 bytes in all
//!  ┌────────┬────────┬────────────────┐
//!  │ code, big-endian│ reason, UTF-8  │  or nothing at all
//!  └────────┴────────┴────────────────┘
//! ```
//!
//! A [`CloseCode`] is always one that may travel: those that only describe a connection lost without a close frame
//! (1005, 1006, 1015) and those that nobody has defined can't be made.

use std::fmt;

use super::violation::Violation;

/// The longest reason: a control frame carries 125 bytes, and two are the code.
pub const REASON_MAX: usize = 123;

/// Why a connection is closed, as the two bytes in a close frame (RFC 6455 section 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1001: the server goes down, or the page was left.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// 1002: the peer broke the framing rules.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// 1003: a kind of data that the endpoint doesn't take.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    /// 1007: text that isn't UTF-8.
    pub const BAD_DATA: CloseCode = CloseCode(1007);
    /// 1008: against the endpoint's policy, for want of a better code.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// 1009: a message larger than the endpoint takes.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// 1013: the server is full; come back later.
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);
    /// 4001: authentication missing, wrong or expired; don't retry unchanged.
    pub const UNAUTHENTICATED: CloseCode = CloseCode(4001);
    /// 4002: the same holder has connected again; don't come back by yourself.
    pub const REPLACED: CloseCode = CloseCode(4002);
    /// 4003: sent too often what may not be sent that often.
    pub const TOO_OFTEN: CloseCode = CloseCode(4003);
    /// 4100: fell behind what the server retains; resubscribe.
    pub const LAGGED: CloseCode = CloseCode(4100);

    /// The code with this number, if a close frame may carry it.
    ///
    /// RFC 6455 section 7.4 and the IANA registry: 1000–1003 and 1007–1014 are defined, 3000–4999 belong to libraries and
    /// applications. 1004 is reserved; 1005, 1006 and 1015 never travel.
    pub fn new(number: u16) -> Option<CloseCode> {
        matches!(number, 1000..=1003 | 1007..=1014 | 3000..=4999).then_some(CloseCode(number))
    }

    /// The number on the wire.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Violation {
    /// The code to close with.
    pub fn code(self) -> CloseCode {
        match self {
            Violation::TooBig => CloseCode::TOO_BIG,
            Violation::BadText | Violation::BadDeflate | Violation::CloseReason => CloseCode::BAD_DATA,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

/// Reads the payload of a close frame; `None` if it is empty.
///
/// # Errors
///
/// A lone byte, a code that may not be sent (both 1002), or a reason that isn't UTF-8 (1007).
pub fn parse(payload: &[u8]) -> Result<Option<(CloseCode, &str)>, Violation> {
    let Some((number, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(Violation::CloseTruncated) };
    };
    let number = u16::from_be_bytes(*number);
    let code = CloseCode::new(number).ok_or(Violation::CloseCode(number))?;
    let reason = simdutf8::basic::from_utf8(reason).map_err(|_| Violation::CloseReason)?;
    Ok(Some((code, reason)))
}

/// Appends the payload of a close frame. A reason beyond [`REASON_MAX`] bytes is cut where a character ends.
pub fn push_payload(out: &mut Vec<u8>, code: CloseCode, reason: &str) {
    out.extend_from_slice(&code.get().to_be_bytes());
    out.extend_from_slice(fitting(reason).as_bytes());
}

/// As much of `reason` as a close frame holds.
pub(super) fn fitting(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_describe_no_frame_or_nothing_at_all_are_refused() {
        for number in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert_eq!(CloseCode::new(number), None, "{number}");
            assert_eq!(parse(&number.to_be_bytes()), Err(Violation::CloseCode(number)));
        }
    }

    #[test]
    fn defined_registered_and_private_codes_are_accepted() {
        for number in [1000, 1003, 1007, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4100, 4999] {
            let code = CloseCode::new(number).unwrap();
            assert_eq!(parse(&number.to_be_bytes()), Ok(Some((code, ""))));
        }
    }

    #[test]
    fn an_empty_payload_says_nothing_and_one_byte_is_a_protocol_error() {
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(&[3]).unwrap_err().code(), CloseCode::PROTOCOL_ERROR);
    }

    #[test]
    fn a_reason_that_is_not_utf8_is_bad_data() {
        assert_eq!(parse(&[3, 232, 0xCE, 0xBA, 0xFF]).unwrap_err().code(), CloseCode::BAD_DATA);
    }

    #[test]
    fn size_and_text_have_codes_of_their_own_and_the_rest_is_a_protocol_error() {
        assert_eq!(Violation::TooBig.code(), CloseCode::TOO_BIG);
        assert_eq!(Violation::BadText.code(), CloseCode::BAD_DATA);
        assert_eq!(Violation::BadDeflate.code(), CloseCode::BAD_DATA);
        assert_eq!(Violation::CloseReason.code(), CloseCode::BAD_DATA);
        assert_eq!(Violation::Unmasked.code(), CloseCode::PROTOCOL_ERROR);
        assert_eq!(Violation::CloseCode(1005).code(), CloseCode::PROTOCOL_ERROR);
    }

    #[test]
    fn the_sentence_of_every_violation_fits_a_close_frame() {
        assert!(Violation::CloseCode(65535).to_string().len() <= REASON_MAX);
    }

    #[test]
    fn a_long_reason_is_cut_where_a_character_ends() {
        let reason = format!("{}€uro", "x".repeat(121));
        let mut payload = Vec::new();
        push_payload(&mut payload, CloseCode::GOING_AWAY, &reason);
        assert_eq!(parse(&payload), Ok(Some((CloseCode::GOING_AWAY, &reason[..121]))));
    }
}
