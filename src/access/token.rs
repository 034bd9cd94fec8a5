//! Tokens that are signed: JWT (RFC 7519) in its compact form.
//!
//! ```text
//!  {"alg":"EdDSA","kid":"2026-11"} . {"iss":…,"aud":"stentor","sub":"u42","exp":…,"jti":…,"stentor":{"sub":["q.us.>"],…}} . signature
//! ```
//!
//! What is judged, in this order, each before the next is looked at:
//!
//! 1. its length (`--max-token`), before a byte of it is read;
//! 2. its head: `alg` is that of the key which `kid` names, and nothing else; `crit` is refused, since none of it is known here (RFC 7515 section 4.1.11);
//! 3. its signature, before a claim is believed;
//! 4. `exp` and `aud`, which must be there; `iss`, if one is expected; `nbf`, if it is there; `sub`, which is whom it names.
//!
//! The signature alone is left to a library: its judgement of claims knows one clock, has another leeway and takes what is missing for given. The clock here is
//! handed in. What a token says is shown in errors only as far as it is none of its secrets, which is its signature: never the token itself.

use std::{borrow::Cow, fmt};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    keys::{self, Keys, without_place},
    patterns::Patterns,
    rights::Rights,
};

/// Bytes of a name, an id or an issuer, at most.
pub const NAME_MAX: usize = 256;

/// What is expected of a token.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Whom it must be for: one of these.
    pub audiences: Vec<Box<str>>,
    /// Who must have issued it; none for anybody whose key is known.
    pub issuer: Option<Box<str>>,
    /// How far clocks may be apart, in seconds.
    pub leeway: u64,
    /// Bytes at most.
    pub bytes_max: usize,
}

/// What a token that is genuine says.
#[derive(Debug)]
pub struct Token {
    /// Whom it names.
    pub subject: Box<str>,
    /// Who has issued it; empty where it doesn't say.
    pub issuer: Box<str>,
    /// Which of those expected it is for.
    pub audience: Box<str>,
    /// Its id.
    pub id: Option<Box<str>>,
    /// When it expires, in seconds since the Unix epoch.
    pub expires: u64,
    /// What it gives by itself.
    pub rights: Rights,
    /// The role that it names.
    pub role: Option<Box<str>>,
    /// The key that has signed it.
    pub signed_by: [u8; 32],
}

/// Why a token isn't taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is none of those that are known, and not signed.
    #[error("the token is not the right one")]
    Unknown,
    /// It is longer than any that is looked at.
    #[error("the token is too long: expected at most {max} bytes (--max-token), found {len}")]
    TooLong {
        /// Its bytes.
        len: usize,
        /// `--max-token`
        max: usize,
    },
    /// It isn't of the form, or its head or claims aren't.
    #[error("the token is garbled: {0}")]
    Garbled(String),
    /// Its algorithm isn't that of its key.
    #[error("the token is signed by {found}, its key is for {expected}")]
    Algorithm {
        /// That of the key.
        expected: &'static str,
        /// That of the token.
        found: String,
    },
    /// It names a key that isn't known, or none where there are several.
    #[error("the token's key is not known: {0}")]
    Key(String),
    /// It demands that something is understood which isn't.
    #[error("the token has crit, of which nothing is understood here")]
    Critical,
    /// It isn't genuine.
    #[error("the token's signature is wrong")]
    Signature,
    /// Its moment has passed.
    #[error("the token has expired, {ago} s ago")]
    Expired {
        /// Seconds since then.
        ago: u64,
    },
    /// Its moment has not come.
    #[error("the token is not yet valid, for {ahead} s more (nbf)")]
    Early {
        /// Seconds until then.
        ahead: u64,
    },
    /// It is for somebody else.
    #[error("the token is for somebody else: its aud has to have {0}")]
    Audience(String),
    /// Somebody else has issued it.
    #[error("the token was issued by somebody else: its iss has to be {0}")]
    Issuer(String),
    /// It lacks a claim.
    #[error("the token has no {0}")]
    Missing(&'static str),
    /// It names a role that there isn't.
    #[error("the token names a role that is not known here: {0}")]
    Role(String),
    /// It was revoked, by name or by id.
    #[error("the token was revoked")]
    Revoked,
    /// It came in an address, which is logged, and lives too long for that.
    #[error(
        "the token is in the address, which is logged, and is valid for more than {} minutes: show it in a header, in the \
         subprotocol or by auth, or start the server with --token-in-url", IN_ADDRESS_MAX / 60
    )]
    InAddress,
}

/// Seconds that a token may be valid for which comes in an address.
pub const IN_ADDRESS_MAX: u64 = 300;

#[derive(Deserialize)]
struct Head<'h> {
    #[serde(borrow)]
    alg: Cow<'h, str>,
    #[serde(borrow, default)]
    kid: Option<Cow<'h, str>>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    aud: Option<Audience>,
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    exp: Option<Seconds>,
    #[serde(default)]
    nbf: Option<Seconds>,
    #[serde(default)]
    jti: Option<String>,
    #[serde(default)]
    stentor: Option<Own>,
}

/// What is this server's own in a token. What isn't known here may be meant to bound it, so it is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    #[serde(default)]
    sub: Vec<String>,
    #[serde(default, rename = "pub")]
    publ: Vec<String>,
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    delay: Option<Pairs>,
    #[serde(default)]
    rate: Option<Pairs>,
    #[serde(default)]
    modes: Option<Vec<String>>,
    #[serde(default)]
    conns: Option<u32>,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    #[allow(dead_code, reason = "for reports of usage; it bounds nothing")]
    products: Option<IgnoredAny>,
}

/// A number for each of some patterns, each as often as it is there.
struct Pairs(Vec<(String, f64)>);

/// Whom a token is for: one, or several.
struct Audience(Vec<String>);

/// A moment in seconds since the Unix epoch, rounded down: JSON may have fractions of them.
#[derive(Clone, Copy)]
struct Seconds(u64);

/// Whether the text could be a token of this form: three parts, which nothing else that is shown need have.
pub fn has_form(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl Token {
    /// Judges a token at a moment, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// The first reason not to take it.
    pub fn judge(text: &str, keys: &Keys, expected: &Expected, now: u64) -> Result<Token, Wrong> {
        if text.len() > expected.bytes_max {
            return Err(Wrong::TooLong { len: text.len(), max: expected.bytes_max });
        }
        let garbled = |why: &str| Wrong::Garbled(why.to_owned());
        let (message, signature) = text.rsplit_once('.').ok_or_else(|| garbled("expected three parts"))?;
        let (head, claims) = message
            .split_once('.')
            .filter(|(_, claims)| !claims.contains('.'))
            .ok_or_else(|| garbled("expected three parts"))?;
        let bytes = decoded(head, "head")?;
        let head: Head<'_> = json(&bytes, "head")?;
        if head.crit {
            return Err(Wrong::Critical);
        }
        let key = keys.find(head.kid.as_deref()).ok_or_else(|| match &head.kid {
            Some(kid) => Wrong::Key(format!("kid {}", shown(kid))),
            None => Wrong::Key("it names none (kid), and there are several".into()),
        })?;
        let algorithm = keys::name(key.algorithm());
        if head.alg != algorithm {
            return Err(Wrong::Algorithm { expected: algorithm, found: shown(&head.alg) });
        }
        if !key.has_signed(message, signature) {
            return Err(Wrong::Signature);
        }
        let bytes = decoded(claims, "claims")?;
        let claims: Claims = json(&bytes, "claims")?;
        claims.judge(expected, now, *key.print())
    }
}

impl Claims {
    fn judge(self, expected: &Expected, now: u64, signed_by: [u8; 32]) -> Result<Token, Wrong> {
        let exp = self.exp.ok_or(Wrong::Missing("exp"))?.0;
        if now >= exp.saturating_add(expected.leeway) {
            return Err(Wrong::Expired { ago: now.saturating_sub(exp) });
        }
        if let Some(ahead) =
            self.nbf.and_then(|nbf| nbf.0.checked_sub(now.saturating_add(expected.leeway))).filter(|ahead| *ahead > 0)
        {
            return Err(Wrong::Early { ahead });
        }
        let audiences = self.aud.ok_or(Wrong::Missing("aud"))?.0;
        let audience = expected.audiences.iter().find(|one| audiences.iter().any(|other| other == &***one));
        let audience = audience.ok_or_else(|| Wrong::Audience(expected.audiences.join(" or ")))?.clone();
        if let Some(issuer) = &expected.issuer {
            let issued = self.iss.as_deref().ok_or(Wrong::Missing("iss"))?;
            if issued != &**issuer {
                return Err(Wrong::Issuer(issuer.to_string()));
            }
        }
        let subject = named(self.sub.ok_or(Wrong::Missing("sub"))?, "sub")?;
        let issuer = self.iss.map_or(Ok("".into()), |issuer| named(issuer, "iss"))?;
        let id = self.jti.map(|id| named(id, "jti")).transpose()?;
        let (rights, role) = self.stentor.map_or(Ok(Default::default()), Own::rights)?;
        Ok(Token { subject, issuer, audience, id, expires: exp, rights, role, signed_by })
    }
}

impl Own {
    fn rights(self) -> Result<(Rights, Option<Box<str>>), Wrong> {
        let patterns = |names: &[String], claim: &str| {
            Patterns::new(names.iter().map(String::as_str))
                .map_err(|(name, error)| Wrong::Garbled(format!("stentor.{claim}: {}: {error}", shown(&name))))
        };
        let delayed: Vec<String> =
            self.delay.map(|delay| delay.0).unwrap_or_default().into_iter().map(|(name, _)| name).collect();
        let rates = self.rate.map(|rate| rate.0).unwrap_or_default();
        // For what is wrong with one of them.
        patterns(&rates.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), "rate")?;
        if let Some((name, rate)) = rates.iter().find(|(_, rate)| *rate <= 0.0) {
            return Err(Wrong::Garbled(format!("stentor.rate: {}: expected more than 0, found {rate}", shown(name))));
        }
        let latest_only = match &self.modes {
            None => false,
            Some(modes) => !latest_and_all(modes).map_err(|why| Wrong::Garbled(format!("stentor.modes: {why}")))?,
        };
        let rights = Rights {
            sub: patterns(&self.sub, "sub")?,
            publ: patterns(&self.publ, "pub")?,
            delayed: patterns(&delayed, "delay")?,
            rates: rates.into_iter().map(|(name, rate)| (name.into(), rate)).collect(),
            conns: self.conns,
            latest_only,
            admin: self.admin,
        };
        Ok((rights, self.role.map(|role| named(role, "stentor.role")).transpose()?))
    }
}

/// Whether `all` is among modes; `latest` always is, since who may have every publication may have fewer.
pub fn latest_and_all(modes: &[impl AsRef<str>]) -> Result<bool, String> {
    let words: Vec<&str> = modes.iter().map(AsRef::as_ref).collect();
    match words.iter().find(|word| !matches!(**word, "all" | "latest")) {
        Some(word) => Err(format!("expected all or latest, found {}", shown(word))),
        None if words.is_empty() => Err("expected all or latest, found none".into()),
        None => Ok(words.contains(&"all")),
    }
}

/// A name that somebody is told by: not empty, not long, and nothing in it that isn't seen.
fn named(text: String, claim: &str) -> Result<Box<str>, Wrong> {
    match text.len() {
        1..=NAME_MAX if !text.chars().any(char::is_control) => Ok(text.into()),
        1..=NAME_MAX => Err(Wrong::Garbled(format!("{claim}: found a control character"))),
        len => Err(Wrong::Garbled(format!("{claim}: expected 1 to {NAME_MAX} bytes, found {len}"))),
    }
}

fn decoded(part: &str, name: &str) -> Result<Vec<u8>, Wrong> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Wrong::Garbled(format!("its {name} is not base64url")))
}

fn json<'j, T: Deserialize<'j>>(bytes: &'j [u8], name: &str) -> Result<T, Wrong> {
    serde_json::from_slice(bytes).map_err(|error| Wrong::Garbled(format!("its {name}: {}", without_place(&error))))
}

/// A text of a token, for an error: short, and nothing in it that isn't seen.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    format!("{short:?}{}", if short.len() < text.len() { "…" } else { "" })
}

/// Whether a member is there, whatever it is.
fn present<'d, D: Deserializer<'d>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl<'d> Deserialize<'d> for Seconds {
    fn deserialize<D: Deserializer<'d>>(deserializer: D) -> Result<Seconds, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        // What is more than this is no time of day that there will be, and JSON's numbers can't tell seconds apart.
        match (0.0..=9e15).contains(&seconds) {
            true => Ok(Seconds(seconds as u64)),
            false => Err(D::Error::custom(format!("expected seconds since 1970, found {seconds}"))),
        }
    }
}

impl<'d> Deserialize<'d> for Audience {
    fn deserialize<D: Deserializer<'d>>(deserializer: D) -> Result<Audience, D::Error> {
        struct Either;
        impl<'d> Visitor<'d> for Either {
            type Value = Audience;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("aud as a string or several")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Audience, E> {
                Ok(Audience(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'d>>(self, mut all: A) -> Result<Audience, A::Error> {
                let mut found = Vec::new();
                while let Some(one) = all.next_element()? {
                    found.push(one);
                }
                Ok(Audience(found))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'d> Deserialize<'d> for Pairs {
    fn deserialize<D: Deserializer<'d>>(deserializer: D) -> Result<Pairs, D::Error> {
        struct Each;
        impl<'d> Visitor<'d> for Each {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number for each of some patterns")
            }

            fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut found = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    found.push(pair);
                }
                Ok(Pairs(found))
            }
        }
        deserializer.deserialize_map(Each)
    }
}
