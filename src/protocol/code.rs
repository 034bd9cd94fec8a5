//! The codes of errors: the word that a client's program reads, and what follows for its connection.
//!
//! A code is for programs and stays the same; the sentence beside it is for people and is made where the error is. What
//! follows is said here and nowhere else: the close code after the error, where the connection can't go on, and the status in the
//! error's place, where a request is refused. A test holds the page for client authors against this list.

use std::fmt;

use crate::websocket::CloseCode;

/// What was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The message is not JSON.
    BadJson,
    /// Not an object, or a field is missing, of the wrong type, or there twice.
    BadCommand,
    /// There is no such command.
    UnknownOp,
    /// A name breaks the rules.
    BadTopic,
    /// More names in one command than may be.
    TooMany,
    /// More subscriptions than a connection may have.
    TooManySubscriptions,
    /// One topic more than the server keeps, or larger snapshots than it holds for one client.
    TooManyTopics,
    /// The server as a whole has as many subscriptions as it may, or holds as much.
    ServerFull,
    /// The client's address has as many subscriptions, has added as many topics, or has the server hold as much as it may.
    AddressFull,
    /// The payload is larger than the server takes.
    TooLarge,
    /// The payload's lists and objects are nested more deeply than the server takes.
    TooDeep,
    /// No right to subscribe to that, or to publish there.
    Forbidden,
    /// The server is about to stop, and takes no publications any more.
    Draining,
    /// The token is wrong or has expired, or none was shown where one is needed.
    Unauthorized,
    /// The token, or whoever it is for, was revoked.
    Revoked,
    /// The holder has connected again, as often as it may at once.
    Replaced,
    /// More different rates than a connection may ask for.
    TooManyRates,
    /// Commands, pings or publications came too often.
    RateLimited,
    /// Fell behind what is retained, or behind the limit of lag.
    Lagged,
}

impl ErrorCode {
    /// Every code, in the order of the page for client authors.
    #[cfg(test)]
    const ALL: [ErrorCode; 19] = [
        ErrorCode::BadJson,
        ErrorCode::BadCommand,
        ErrorCode::UnknownOp,
        ErrorCode::BadTopic,
        ErrorCode::TooMany,
        ErrorCode::TooManySubscriptions,
        ErrorCode::TooManyTopics,
        ErrorCode::ServerFull,
        ErrorCode::AddressFull,
        ErrorCode::TooLarge,
        ErrorCode::TooDeep,
        ErrorCode::Forbidden,
        ErrorCode::Draining,
        ErrorCode::Unauthorized,
        ErrorCode::Revoked,
        ErrorCode::Replaced,
        ErrorCode::TooManyRates,
        ErrorCode::RateLimited,
        ErrorCode::Lagged,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The status that says it where there are no words yet, or none at all: in answer to a request.
    pub fn status(self) -> u16 {
        self.row().1
    }

    /// What the connection is closed with after the error; none if it stays as it was.
    pub fn closes_with(self) -> Option<CloseCode> {
        self.row().2
    }

    fn row(self) -> (&'static str, u16, Option<CloseCode>) {
        match self {
            ErrorCode::BadJson => ("bad_json", 400, None),
            ErrorCode::BadCommand => ("bad_command", 400, None),
            ErrorCode::UnknownOp => ("unknown_op", 400, None),
            ErrorCode::BadTopic => ("bad_topic", 400, None),
            ErrorCode::TooMany => ("too_many", 400, None),
            ErrorCode::TooManySubscriptions => ("too_many_subscriptions", 400, None),
            ErrorCode::TooManyTopics => ("too_many_topics", 503, None),
            ErrorCode::ServerFull => ("server_full", 503, None),
            ErrorCode::AddressFull => ("address_full", 503, None),
            ErrorCode::TooLarge => ("too_large", 413, None),
            ErrorCode::TooDeep => ("too_deep", 400, None),
            ErrorCode::Forbidden => ("forbidden", 401, None),
            ErrorCode::Draining => ("draining", 503, None),
            ErrorCode::Unauthorized => ("unauthorized", 401, Some(CloseCode::UNAUTHENTICATED)),
            ErrorCode::Revoked => ("revoked", 401, Some(CloseCode::UNAUTHENTICATED)),
            ErrorCode::Replaced => ("replaced", 409, Some(CloseCode::REPLACED)),
            ErrorCode::TooManyRates => ("too_many_rates", 400, None),
            ErrorCode::RateLimited => ("rate_limited", 429, Some(CloseCode::TOO_OFTEN)),
            ErrorCode::Lagged => ("lagged", 400, Some(CloseCode::LAGGED)),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../docs/protocol.md");

    /// The rows of the first table behind `heading`: the first cell, without its quotes, and the rest.
    fn table(heading: &str) -> Vec<(&'static str, &'static str)> {
        let (_, rest) = PAGE.split_once(heading).unwrap();
        let rows = rest.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
        let rows = rows.take_while(|line| line.starts_with('|'));
        rows.map(|row| row.trim_matches('|').split_once('|').unwrap())
            .map(|(cell, rest)| (cell.trim().trim_matches('`'), rest))
            .collect()
    }

    #[test]
    fn the_page_has_every_code_with_what_follows() {
        let page = table("### Errors");
        let words: Vec<&str> = page.iter().map(|(word, _)| *word).collect();
        assert_eq!(words, ErrorCode::ALL.map(ErrorCode::as_str));
        for ((word, row), code) in page.into_iter().zip(ErrorCode::ALL) {
            let closes =
                row.split_once("the connection closes with ").map(|(_, rest)| rest.trim_end_matches([' ', '|']));
            assert_eq!(closes, code.closes_with().map(|code| code.to_string()).as_deref(), "{word}");
        }
        let (_, after) = PAGE.split_once("After every code but ").unwrap();
        let (closing, _) = after.split_once(" the connection stays").unwrap();
        let closing: Vec<&str> = closing.split('`').skip(1).step_by(2).collect();
        let closes = |code: &ErrorCode| code.closes_with().is_some();
        assert_eq!(closing, Vec::from_iter(ErrorCode::ALL.into_iter().filter(closes).map(ErrorCode::as_str)));
    }

    #[test]
    fn the_page_tells_what_to_do_after_each_close() {
        let page = table("## When a connection ends");
        for code in ErrorCode::ALL.into_iter().filter_map(ErrorCode::closes_with) {
            assert!(page.iter().any(|(number, _)| *number == code.to_string()), "{code}");
        }
    }
}
