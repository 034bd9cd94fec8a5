//! Who is there, and what it may at a moment.

use std::sync::{Arc, atomic::AtomicU64};

use super::{
    file::Gives,
    rights::{Beyond, Sum},
};
use crate::{certified::Id, protocol::command::Mode};

/// Who is there, by what it has shown. It stays with a connection or a request; what it may, the rules of the moment say ([`super::Rules::now`]).
#[derive(Clone, Debug)]
pub enum Holder {
    /// Somebody who has shown nothing.
    Anonymous,
    /// Somebody who has shown the static token for publishing that was right then.
    Publisher {
        /// How often that token had changed by then.
        generation: u32,
    },
    /// Somebody with a name.
    Known(Arc<Known>),
    /// The server itself: its feeds, and the program that it is part of.
    #[allow(dead_code, reason = "of what the server does itself, the audit says so")]
    Server,
}

/// Somebody with a name, as it was judged when it showed what it has shown.
#[derive(Debug)]
pub struct Known {
    /// Who it is.
    pub key: Arc<Key>,
    /// The id of its token, if that has one (`jti`).
    pub id: Option<Box<str>>,
    /// SHA-256 of its token; zeros for a certificate.
    pub hash: [u8; 32],
    /// When its token or certificate expires, in seconds since the Unix epoch.
    pub expires: Option<u64>,
    /// What its token itself gives, or its entry in the rights file, and what the role of it does by the rules that it was judged by.
    pub(super) gives: Gives,
    /// The role that its token names.
    pub(super) role: Option<Box<str>>,
    /// For whom its token is, as far as it was asked.
    pub(super) audience: Box<str>,
    /// The key that has signed its token.
    pub(super) signed_by: [u8; 32],
    /// Its certificate with the path of it, and the authority.
    pub(super) certificate: Option<Box<(Box<[Id]>, Id)>>,
    /// The rules that it was judged by.
    pub(super) version: u64,
    /// A generation of those revoked in which it wasn't among them.
    pub(super) seen: AtomicU64,
}

/// Who a holder is: a certificate and a token of the same name are two, and so are tokens of two issuers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// What vouches for it.
    pub source: Source,
    /// Who has issued its token (`iss`); empty where nobody is named.
    pub issuer: Box<str>,
    /// `sub` of a token, the name in a certificate, or that of an entry of the rights file.
    pub name: Box<str>,
}

/// What vouches for a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A token that is signed.
    Token,
    /// A static token of the rights file.
    Static,
    /// A client certificate.
    Certificate,
}

impl Source {
    /// The word for it in the log and in figures.
    #[allow(dead_code, reason = "the audit says it")]
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Token => "token",
            Source::Static => "static",
            Source::Certificate => "certificate",
        }
    }
}

/// Why a holder's rights have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Its moment has passed.
    #[error("the token has expired")]
    Expired,
    /// It was revoked, by name or by id.
    #[error("the token was revoked")]
    Revoked,
    /// The rules have changed: its key, its role or its entry is no longer there, or tokens are for somebody else now.
    #[error("the token is no longer taken")]
    Withdrawn,
}

/// What a holder may at the moment for which it was asked. Not kept longer than that.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'r> {
    pub(super) what: What<'r>,
    pub(super) until_us: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What<'r> {
    /// All of it.
    All,
    /// What these give together.
    Sum(Sum<'r>),
    /// Nothing any more.
    Ended(Ended),
}

impl Holder {
    /// Its name, if it has one: of a token's subject, a certificate, an entry of the rights file.
    #[allow(dead_code, reason = "without the tools nobody asks")]
    pub fn name(&self) -> Option<&str> {
        self.known().map(|known| &*known.key.name)
    }

    /// Who it is, if it has a name.
    pub fn key(&self) -> Option<&Arc<Key>> {
        self.known().map(|known| &known.key)
    }

    /// What is known of it, if it has a name.
    pub fn known(&self) -> Option<&Arc<Known>> {
        match self {
            Holder::Known(known) => Some(known),
            Holder::Anonymous | Holder::Publisher { .. } | Holder::Server => None,
        }
    }

    /// Whether it has shown something.
    pub fn has_shown(&self) -> bool {
        !matches!(self, Holder::Anonymous)
    }

    /// Whether both are the same somebody, so that one may take over what the other has begun.
    pub fn is_same(&self, other: &Holder) -> bool {
        match (self, other) {
            (Holder::Anonymous, Holder::Anonymous)
            | (Holder::Publisher { .. }, Holder::Publisher { .. })
            | (Holder::Server, Holder::Server) => true,
            (Holder::Known(one), Holder::Known(other)) => one.key == other.key,
            _ => false,
        }
    }
}

impl Standing<'static> {
    /// What the server itself may: everything.
    pub const SERVER: Standing<'static> = Standing { what: What::All, until_us: None };
}

impl Standing<'_> {
    /// Whether it may subscribe to this topic or pattern, or look at its last values. The name has been checked.
    pub fn may_subscribe(&self, name: &str) -> bool {
        self.sum().is_none_or(|sum| sum.may_subscribe(name))
    }

    /// Whether it may publish on this topic, whose name has been checked.
    #[inline]
    pub fn may_publish(&self, topic: &str) -> bool {
        match self.what {
            What::All => true,
            What::Sum(sum) => sum.may_publish(topic),
            What::Ended(_) => false,
        }
    }

    /// Whether there is anything that it may publish on; which topics, [`Standing::may_publish`] knows.
    pub fn publishes(&self) -> bool {
        self.sum().is_none_or(Sum::publishes)
    }

    /// Whether there is anything that it may subscribe to.
    pub fn subscribes(&self) -> bool {
        self.sum().is_none_or(Sum::subscribes)
    }

    /// Whether it may have these names in this mode, at this rate (updates a second of each topic). They have been checked.
    ///
    /// # Errors
    /// The first that isn't covered, and what would be.
    pub fn check<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
        mode: Mode,
        rate: Option<f64>,
    ) -> Result<(), Beyond> {
        self.sum().map_or(Ok(()), |sum| sum.check(names, mode, rate))
    }

    /// Updates a second of each topic of this name that it may have at most; none for any.
    #[cfg(test)]
    pub fn rate(&self, name: &str) -> Option<f64> {
        self.sum().and_then(|sum| sum.rate(name))
    }

    /// Whether it may have newest values only, and not every publication.
    #[cfg(test)]
    pub fn latest_only(&self) -> bool {
        self.sum().is_some_and(Sum::latest_only)
    }

    /// How many connections it may have at once; none for any number.
    pub fn conns(&self) -> Option<u32> {
        self.sum().and_then(Sum::conns)
    }

    /// Whether it may do what operators do.
    pub fn is_admin(&self) -> bool {
        self.sum().is_none_or(Sum::is_admin)
    }

    /// Until when it may, by the wall clock, in microseconds since the Unix epoch: its `exp`, and the leeway. None for ever.
    pub fn until_us(&self) -> Option<u64> {
        self.until_us
    }

    /// Why it may nothing any more, if that is so. A connection of such a holder is closed.
    pub fn ended(&self) -> Option<Ended> {
        match self.what {
            What::Ended(why) => Some(why),
            What::All | What::Sum(_) => None,
        }
    }

    /// What it has its rights from, to be shown: its token or entry, and its role. Nothing of that where it has all rights, or none.
    #[cfg(any(feature = "cli", test))]
    pub fn parts(&self) -> impl Iterator<Item = &super::Rights> {
        let parts = match &self.what {
            What::Sum(Sum(parts)) => *parts,
            What::All | What::Ended(_) => [None, None],
        };
        parts.into_iter().flatten()
    }

    /// What gives it its rights; none where it has all.
    fn sum(&self) -> Option<Sum<'_>> {
        match self.what {
            What::All => None,
            What::Sum(sum) => Some(sum),
            What::Ended(_) => Some(Sum([None, None])),
        }
    }
}
