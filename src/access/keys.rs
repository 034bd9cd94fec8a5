//! The keys by which tokens are known to be genuine: a JWKS (RFC 7517), as issuers publish it.
//!
//! ```text
//!  {"keys":[{"kty":"OKP","crv":"Ed25519","kid":"2026-11","x":"…"},
//!           {"kty":"RSA","alg":"PS256","kid":"2026-08","n":"…","e":"AQAB"}]}
//! ```
//!
//! | key | algorithm |
//! | --- | --- |
//! | `OKP`, `Ed25519` | EdDSA |
//! | `EC`, `P-256` | ES256 |
//! | `RSA`, 2048 to 8192 bits | RS256 or PS256, as its `alg` says; RS256 where it says none |
//! | `oct`, at least 32 bytes | HS256 |
//!
//! A key is good for one algorithm, whatever a token says: so nobody can have a public key taken for a shared secret. Keys for anything else than
//! signing, and of kinds that aren't in the list, are left out and said so, since issuers publish them in the same file; private ones are refused,
//! since a server must not have them. Where there are several, each needs its `kid`.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;

/// Most keys of one file: each key of an issuer is there for months.
pub const KEYS_MAX: usize = 64;

/// The largest file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// The keys of one file.
#[derive(Debug, Default)]
pub struct Keys {
    all: Vec<Key>,
    /// What was left out, each a sentence for the operator.
    pub left_out: Vec<String>,
}

/// One of them.
pub struct Key {
    kid: Option<Box<str>>,
    algorithm: Algorithm,
    key: DecodingKey,
    /// SHA-256 of what it is made of.
    print: [u8; 32],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.algorithm, self.kid)
    }
}

#[derive(Deserialize)]
struct Set<'k> {
    #[serde(borrow)]
    keys: Vec<&'k serde_json::value::RawValue>,
}

/// A key as it stands in the file.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    k: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

/// Why a key isn't taken.
enum Fault {
    /// It is for something else.
    Other(String),
    /// It is broken, or must not be there.
    Wrong(String),
}

impl Key {
    /// The algorithm that it is good for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// SHA-256 of what it is made of.
    pub fn print(&self) -> &[u8; 32] {
        &self.print
    }

    /// Whether `signature`, in base64url, is its signature of `message`.
    pub fn has_signed(&self, message: &str, signature: &str) -> bool {
        crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm).unwrap_or(false)
    }
}

impl Keys {
    /// Reads them from the text of a file.
    ///
    /// # Errors
    /// What is wrong, as a sentence that begins with the line, or with which key it is.
    pub fn parse(text: &str) -> Result<Keys, String> {
        let broken = |error: serde_json::Error| {
            format!("line {}: expected a JWKS, {{\"keys\":[…]}}: {}", error.line(), without_place(&error))
        };
        let set: Set<'_> = serde_json::from_str(text).map_err(broken)?;
        if set.keys.len() > KEYS_MAX {
            return Err(format!("expected at most {KEYS_MAX} keys, found {}", set.keys.len()));
        }
        let mut keys = Keys::default();
        for (number, raw) in (1..).zip(&set.keys) {
            let before = raw.get().as_ptr().addr().saturating_sub(text.as_ptr().addr());
            let line = text.bytes().take(before).filter(|byte| *byte == b'\n').count() + 1;
            match read(raw.get()) {
                Ok(key) => {
                    if let Some(kid) = key.kid.as_ref().filter(|_| keys.all.iter().any(|other| other.kid == key.kid)) {
                        return Err(format!("line {line}: key {number}: there is one with the kid {kid:?} already"));
                    }
                    keys.all.push(key);
                }
                Err(Fault::Other(why)) => keys.left_out.push(format!("line {line}: key {number} is left out: {why}")),
                Err(Fault::Wrong(why)) => return Err(format!("line {line}: key {number}: {why}")),
            }
        }
        if keys.all.is_empty() {
            let found = keys.left_out.first().map_or("found none".into(), |why| format!("found none: {why}"));
            return Err(format!("expected at least one key for signatures, {found}"));
        }
        if keys.all.len() > 1 && keys.all.iter().any(|key| key.kid.is_none()) {
            return Err("a key has no kid: where there are several, each needs one".into());
        }
        Ok(keys)
    }

    /// The key that a token names; where there is one alone, a token needs to name none.
    pub fn find(&self, kid: Option<&str>) -> Option<&Key> {
        match (kid, &*self.all) {
            (None, [key]) => Some(key),
            (None, _) => None,
            (Some(kid), all) => all.iter().find(|key| key.kid.as_deref() == Some(kid)),
        }
    }

    /// Whether there is one that is made of the same.
    pub fn has(&self, print: &[u8; 32]) -> bool {
        self.all.iter().any(|key| key.print == *print)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.all.iter()
    }
}

/// Reads one key.
fn read(json: &str) -> Result<Key, Fault> {
    let jwk: Jwk = serde_json::from_str(json).map_err(|error| Fault::Wrong(without_place(&error)))?;
    if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
        return Err(Fault::Other("its use is not sig".into()));
    }
    if jwk.key_ops.as_ref().is_some_and(|all| !all.iter().any(|op| op == "verify")) {
        return Err(Fault::Other("its key_ops have no verify".into()));
    }
    if jwk.d.is_some() {
        return Err(Fault::Wrong("it is private (d): a server needs the public part alone".into()));
    }
    let (family, named) = (jwk.kty.as_str(), jwk.alg.as_deref());
    let (algorithm, key, parts) = match (family, jwk.crv.as_deref()) {
        ("OKP", Some("Ed25519")) => {
            let x = part(&jwk.x, "x", 32..=32)?;
            (pinned(named, &[Algorithm::EdDSA])?, DecodingKey::from_ed_der(&x), x)
        }
        ("EC", Some("P-256")) => {
            let parts = [&[4], &*part(&jwk.x, "x", 32..=32)?, &*part(&jwk.y, "y", 32..=32)?].concat();
            (pinned(named, &[Algorithm::ES256])?, DecodingKey::from_ec_der(&parts), parts)
        }
        ("RSA", _) => {
            let n = part(&jwk.n, "n", 1..=1025)?;
            let e = part(&jwk.e, "e", 1..=8)?;
            let n: Vec<u8> = n.into_iter().skip_while(|byte| *byte == 0).collect();
            let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
            if !(2048..=8192).contains(&bits) {
                return Err(Fault::Wrong(format!("expected an RSA key of 2048 to 8192 bits, found {bits}")));
            }
            let algorithm = pinned(named, &[Algorithm::RS256, Algorithm::PS256])?;
            (algorithm, DecodingKey::from_rsa_raw_components(&n, &e), [n, e].concat())
        }
        ("oct", _) => {
            let k = part(&jwk.k, "k", 32..=1024)?;
            let key = DecodingKey::from_secret(&k).map_err(|error| Fault::Wrong(error.to_string()))?;
            (pinned(named, &[Algorithm::HS256])?, key, k)
        }
        (family, curve) => {
            let curve = curve.map(|curve| format!(" {curve:.32}")).unwrap_or_default();
            return Err(Fault::Other(format!("{family:.32}{curve} is none of OKP Ed25519, EC P-256, RSA, oct")));
        }
    };
    let kid = match jwk.kid {
        Some(kid) if !(1..=256).contains(&kid.len()) => {
            return Err(Fault::Wrong(format!("kid: expected 1 to 256 bytes, found {}", kid.len())));
        }
        kid => kid.map(Box::from),
    };
    let print = sha256(&[format!("{algorithm:?} ").as_bytes(), &parts].concat());
    Ok(Key { kid, algorithm, key, print })
}

/// The algorithm that a key is good for: the one that it names, if that is one of these, or the first.
fn pinned(named: Option<&str>, all: &[Algorithm]) -> Result<Algorithm, Fault> {
    let Some(named) = named else { return Ok(all[0]) };
    let found = all.iter().find(|algorithm| name(**algorithm) == named);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|algorithm| name(*algorithm)).collect();
        Fault::Other(format!("its alg is {named:.32} and not {}", names.join(" or ")))
    })
}

/// What an algorithm is called in tokens.
pub fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::EdDSA => "EdDSA",
        Algorithm::ES256 => "ES256",
        Algorithm::RS256 => "RS256",
        Algorithm::PS256 => "PS256",
        Algorithm::HS256 => "HS256",
        _ => "none of those that are taken",
    }
}

/// The bytes of a member in base64url. None of it is shown: it may be a secret.
fn part(text: &Option<String>, name: &str, bytes: std::ops::RangeInclusive<usize>) -> Result<Vec<u8>, Fault> {
    let text = text.as_ref().ok_or_else(|| Fault::Wrong(format!("{name} is missing")))?;
    let found = URL_SAFE_NO_PAD.decode(text).map_err(|_| Fault::Wrong(format!("{name} is not base64url")))?;
    if bytes.contains(&found.len()) {
        return Ok(found);
    }
    let (least, most) = bytes.into_inner();
    let expected = if least == most { format!("{least} bytes") } else { format!("{least} to {most} bytes") };
    Err(Fault::Wrong(format!("{name}: expected {expected}, found {}", found.len())))
}

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// What is wrong with some JSON, without where: that is said in another way, or is of a part of a text.
pub fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.clone(), |at| text[..at].to_owned())
}
