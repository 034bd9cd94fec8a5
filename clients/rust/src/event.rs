//! What a program is told: publications, and what became of those that it is not told.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::de::DeserializeOwned;
use thiserror::Error as ThisError;

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A publication, or a topic's last value.
    Update(Update),
    /// Publications that are not coming.
    Gap(Gap),
    /// A topic that can't be continued where it was left.
    Reset(Reset),
    /// Something to know of the connection, or of the sources of topics.
    Status(Status),
    /// All last values of the names that were subscribed to have come; after a loss, all that was missed as well.
    Current,
    /// A refusal, of these names if it is about subscriptions.
    Refused {
        /// What the server said.
        error: Error,
        /// The names that are not subscribed to.
        names: Vec<String>,
    },
    /// The answer to a [`ping`](crate::Client::ping).
    Pong {
        /// What `ping` returned.
        ticket: u64,
    },
    /// What became of a publication of this client.
    Published {
        /// What `publish` returned.
        ticket: u64,
        /// The server took it in, or it didn't, or nobody knows (`disconnected`).
        outcome: Result<Receipt, Error>,
    },
}

/// A publication, or a topic's last value.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Its topic.
    pub topic: String,
    /// Its number within the topic.
    pub seq: u64,
    /// When the server took it in, in microseconds since the Unix epoch.
    pub ts: u64,
    /// Which numbering `seq` belongs to; empty as long as nobody has told.
    pub epoch: String,
    /// A last value, not something new.
    pub is_snapshot: bool,
    /// A keyframe: says everything about its topic. What follows may be changes to it.
    pub is_key: bool,
    /// A last value whose source is known to be gone.
    pub is_stale: bool,
    /// The payload was published as bytes: `raw` is their base64.
    pub is_binary: bool,
    pub(crate) raw: String,
}

impl Update {
    /// The payload as it stands in the message: JSON, byte for byte as it was published; what was published as text is a JSON string, what was published as bytes is their base64.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// The payload's bytes: JSON, or what was published as bytes.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match self.is_binary {
            // What is not base64 is given as it came: the server makes it, and nobody else.
            true => STANDARD.decode(&self.raw).map_or(Cow::Borrowed(self.raw.as_bytes()), Cow::Owned),
            false => Cow::Borrowed(self.raw.as_bytes()),
        }
    }

    /// The payload, parsed.
    ///
    /// # Errors
    /// It is not of this type.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.raw)
    }
}

/// Publications `first` to `last` of a topic are not coming. What is built of changes is not good any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Whose they are.
    pub topic: String,
    /// The first that is missing.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// `slow`: this program, or its connection, was; `too_large`: nobody could be sent it; `reconnect`: they came while there was no connection, and the server has them no more.
    pub why: String,
    /// The numbering, if that is known.
    pub epoch: String,
}

/// A topic can't be continued where it was left: what is known of it is to be dropped. What follows, if it has a value, begins anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The topic.
    pub topic: String,
    /// Its numbering now; empty if it is not known.
    pub epoch: String,
    /// It goes on behind this number.
    pub seq: u64,
    /// `epoch`: the numbering has begun anew, as by a restart; `history`: too long ago; `cursor`: the place that one stood at is good no more; `reconnect`: this client has found so after a loss.
    pub why: String,
}

/// Something to know of the connection, or of the sources of topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `connected`, `lost`, `gap` (numbers are missing that should have come: they are being fetched on another connection) from this client; `draining`, `stale`, `fresh`, `token_expiring`
    /// and whatever comes later from the server, also errors that answer nothing, such as `lagged`.
    pub code: String,
    /// The names that it is about, if it is about some.
    pub topics: Vec<String>,
    /// Since when, in microseconds since the Unix epoch.
    pub since: Option<u64>,
    /// In words, where there are any.
    pub message: String,
}

/// The server took a publication in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub seq: u64,
    /// Its time, in microseconds since the Unix epoch.
    pub ts: u64,
}

/// The server, or this client, refused.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[error("{code}: {message}")]
pub struct Error {
    /// For programs, and stays the same: the protocol's, or one of these: `bad_address`, `refused` (before there was a WebSocket), `unreachable`, `disconnected` (nobody knows whether a publication was taken),
    /// `tls`.
    pub code: String,
    /// For people.
    pub message: String,
}

impl Error {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Error {
        Error { code: code.into(), message: message.into() }
    }
}
