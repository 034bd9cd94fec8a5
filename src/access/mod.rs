//! Who may do what: the one place that is asked.
//!
//! A door (`/ws`, `/raw`, `/sse`, a request over plain HTTP) first finds out who is there: [`shown_token`] reads the token
//! that a request shows, and [`Rules`] say whose it is, or that it is nobody's. That comes before anything else is done for
//! a connection. The [`Holder`] that comes of it stays with the connection or the request, and is asked about whatever is wanted
//! later.
//!
//! ```text
//!  --jwt-keys ─► keys ─┐                              ┌─► its own claims ─┐
//!  a token ────────────┴─► judged ─► Known, a Holder ─┤                   ├─► Standing: what it may now
//!  --rights ─► file ───────────────────────────────────┴─► its role, entry ┘      ▲
//!  --revoked, POST /revoke ─► revoked ────────────────────────────────────────────┘
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | [`shown`] | the token that a request shows |
//! | [`operators`] | what is for operators, and who is one |
//! | [`origin`] | which page a request comes from, and whether it was meant for this machine |
//! | [`token`] | tokens that are signed: what is judged of them |
//! | [`keys`] | the keys by which they are known to be genuine |
//! | [`file`] | roles, static tokens and certificates |
//! | [`rights`] | what somebody may |
//! | [`patterns`] | whether what is asked for lies within what is given |
//! | [`holder`] | who is there, and what it may at a moment |
//! | [`revoked`] | who was revoked |
//! | [`seen`] | tokens whose signature was right |
//! | `sign` | makes keys and tokens, for trying out; only with the feature `cli` |
//!
//! Rules change while connections last. So a holder says who is there and not what it may: before it acts, it is held against
//! the rules of that moment ([`Rules::now`]), and whoever has shown something that isn't good any more may nothing; of the static token for
//! publishing, which has always been so, it is somebody who has shown nothing.
//!
//! Rules are values, and the clock is handed in. What is shared and changes are the table of who was revoked and the cache of tokens, each
//! with a short lock of its own. What it costs: a signature for a token that wasn't seen before, some tens of microseconds; a hash for one that was; and for a
//! publication two comparisons of numbers, a look at the clock that was handed in, and a look for the topic among the patterns.
//!
//! | who pays, if a client is hostile | bound |
//! | --- | --- |
//! | a token is long | `--max-token`, before it is hashed |
//! | tokens are many | whoever asks budgets signatures ([`Rules::needs_signature`]); wrong ones are not kept |
//! | a token has many patterns | its length; what a look for one name costs: [`Patterns::STEPS_MAX`] |
//! | right tokens are many | the cache has `--token-cache`, the newest |

pub mod file;
pub mod holder;
pub mod keys;
mod operators;
pub mod origin;
pub mod patterns;
pub mod revoked;
pub mod rights;
pub mod seen;
pub mod shown;
#[cfg(any(feature = "cli", feature = "bench", test, fuzzing))]
pub mod sign;
pub mod token;

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use self::{
    file::{File, Gives},
    holder::What,
    keys::{Keys, sha256},
    operators::Operators,
    rights::Sum,
    seen::Seen,
    token::{Expected, IN_ADDRESS_MAX, Token},
};
pub use self::{
    holder::{Ended, Holder, Key, Known, Source, Standing},
    operators::Viewer,
    patterns::Patterns,
    revoked::{Revocation, Revoked, Whom},
    rights::{Beyond, Rights},
    shown::{Shown, shown_token},
    token::Wrong,
};
use crate::{
    certified::Certified,
    config::{Config, Secret, page::Named},
    counted::counted,
    http::{self, Refusal, Request, response::Readers},
    protocol::name::check_pattern,
};

/// What goes with 401, as RFC 9110 section 11.6.1 demands.
const CHALLENGE: &[(&str, &str)] = &[("WWW-Authenticate", "Bearer realm=\"stentor\"")];

/// What the settings say about who may do what.
#[derive(Clone, Debug)]
pub struct Rules {
    token: Option<Secret>,
    /// How often the token has changed since the server started.
    generation: u32,
    /// How often the rules have.
    version: u64,
    origins: Vec<Named>,
    /// It is open only because nobody but this machine can connect. A page that its visitor's browser has open is somebody else.
    is_near: bool,
    /// The same of the address for operators: it is on loopback.
    admin_is_near: bool,
    operators: Operators,
    /// What whoever shows nothing may.
    anonymous: Arc<Rights>,
    /// What the static token for publishing gives beside.
    publisher: Arc<Rights>,
    /// Where there are none, no token is signed.
    keys: Option<Arc<Keys>>,
    expected: Expected,
    file: Arc<File>,
    /// Long-lived tokens may come in an address.
    in_address: bool,
    revoked: Arc<Revoked>,
    /// Where it is kept who was revoked.
    revoked_file: Option<PathBuf>,
    seen: Arc<Seen>,
    /// When the files were read.
    read_us: u64,
}

/// A file that the rules are read from, and what is wrong with it: each mistake a line, with file and line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RulesError(pub String);

impl From<Wrong> for Refusal {
    fn from(wrong: Wrong) -> Refusal {
        let text = match wrong {
            Wrong::Unknown => "The token is not the right one.".to_owned(),
            other => format!("The token is not the right one: {other}."),
        };
        Refusal::new(401, text).with(CHALLENGE)
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules::new(None, Vec::new(), false)
    }
}

impl Rules {
    /// With this static token, if there is any; for pages of these origins, or all if none are named; and whether whoever
    /// shows nothing may publish. Everybody may subscribe to everything.
    pub fn new(token: Option<Secret>, origins: Vec<Named>, is_open: bool) -> Rules {
        let publ = if is_open { Patterns::all() } else { Patterns::default() };
        Rules {
            token,
            generation: 0,
            version: 1,
            origins,
            is_near: false,
            admin_is_near: false,
            operators: Operators::default(),
            anonymous: Arc::new(Rights { sub: Patterns::all(), publ, ..Rights::default() }),
            publisher: Arc::new(Rights { publ: Patterns::all(), ..Rights::default() }),
            keys: None,
            expected: Expected { audiences: Vec::new(), issuer: None, leeway: 0, bytes_max: 4096 },
            file: Arc::default(),
            in_address: false,
            revoked: Arc::new(Revoked::new(0)),
            revoked_file: None,
            seen: Arc::new(Seen::new(0)),
            read_us: 0,
        }
    }

    /// Those of the settings, as far as these say them without their files: where some are named, nobody has what they give.
    pub fn of(config: &Config) -> Rules {
        // What is none of the forms was refused when the settings were checked.
        let origins = config.allow_origin.iter().filter_map(|origin| origin.parse().ok()).collect();
        let is_open = publishing_is_open(config);
        let is_near = is_open && !config.anonymous_publish;
        let admin_is_near = config.admin_listen.is_some_and(|address| address.ip().to_canonical().is_loopback());
        let rules = Rules::new(config.publish_token.clone(), origins, is_open);
        let sub = match subscribing_is_open(config) {
            true => Patterns::all(),
            false => Patterns::new(config.anonymous_subscribe.iter().map(String::as_str)).unwrap_or_default(),
        };
        Rules {
            is_near,
            admin_is_near,
            operators: Operators::of(config),
            anonymous: Arc::new(Rights { sub, ..Rights::clone(&rules.anonymous) }),
            expected: Expected {
                audiences: config.jwt_audience.iter().map(|one| one.as_str().into()).collect(),
                issuer: config.jwt_issuer.as_deref().map(Box::from),
                leeway: config.jwt_leeway.get().as_secs(),
                bytes_max: usize::try_from(config.max_token.as_u64()).unwrap_or(usize::MAX),
            },
            in_address: config.token_in_url,
            revoked: Arc::new(Revoked::new(config.max_revoked)),
            revoked_file: config.revoked.clone(),
            seen: Arc::new(Seen::new(config.token_cache)),
            ..rules
        }
    }

    /// Those of the settings with their files, which are read and checked. Returns what an operator wants to know of them, too.
    ///
    /// # Errors
    /// A file that can't be read or has a mistake, or a name for everybody that is no pattern.
    pub fn read(config: &Config, wall_us: u64) -> Result<(Rules, Vec<String>), RulesError> {
        let (mut rules, mut notes) = (Rules { read_us: wall_us, ..Rules::of(config) }, Vec::new());
        for name in &config.anonymous_subscribe {
            check_pattern(name, config.max_topic_length)
                .map_err(|error| RulesError(format!("--anonymous-subscribe was given as {name}: {error}")))?;
        }
        if let Some(path) = &config.jwt_keys {
            let named = |why: String| RulesError(format!("--jwt-keys {}: {why}", path.display()));
            let text = text(path, keys::FILE_BYTES_MAX).map_err(named)?;
            let keys = Keys::parse(&text).map_err(named)?;
            notes.extend(keys.left_out.iter().map(|why| named(why.clone()).0));
            rules.keys = Some(Arc::new(keys));
        }
        if let Some(path) = &config.rights {
            rules.file = Arc::new(File::read(path).map_err(RulesError)?);
        }
        if let Some(path) = &config.revoked {
            let all = revoked::read(path).map_err(RulesError)?;
            let full = |full: revoked::Full| RulesError(format!("--revoked {}: {full}", path.display()));
            rules.revoked.replace(&all, seconds(wall_us)).map_err(full)?;
        }
        Ok((rules, notes))
    }

    /// These, in the place of those before: another token makes that of the others one that was right once, and who was revoked stays so, but for what a
    /// file says.
    pub fn after(self, before: &Rules) -> Rules {
        let is_new = self.token != before.token;
        // One table for ever, so that a generation means the same in all rules.
        before.revoked.go_on(self.revoked.count().1, self.revoked_file.as_deref(), seconds(self.read_us));
        Rules {
            generation: before.generation.wrapping_add(is_new.into()),
            version: before.version.wrapping_add(1),
            revoked: Arc::clone(&before.revoked),
            // What was found genuine stays so; whose key is gone is found to have none.
            seen: if self.seen.count().1 == before.seen.count().1 { Arc::clone(&before.seen) } else { self.seen },
            ..self
        }
    }

    /// What a holder that was judged by these rules or by earlier ones may at this moment, by the wall clock in microseconds. Asked before it acts, so
    /// that a change of the rules is for everybody.
    #[inline]
    pub fn now<'r>(&'r self, holder: &'r Holder, wall_us: u64) -> Standing<'r> {
        match holder {
            Holder::Server => Standing::SERVER,
            Holder::Anonymous => self.nobody(),
            Holder::Publisher { generation } if *generation == self.generation => {
                let what = What::Sum(Sum([Some(&self.publisher), Some(&self.anonymous)]));
                Standing { what, until_us: None }
            }
            Holder::Publisher { .. } => self.nobody(),
            Holder::Known(known) => self.known(known, wall_us),
        }
    }

    /// What whoever shows nothing may.
    pub fn nobody(&self) -> Standing<'_> {
        Standing { what: What::Sum(Sum([Some(&self.anonymous), None])), until_us: None }
    }

    fn known<'r>(&'r self, known: &'r Known, wall_us: u64) -> Standing<'r> {
        let (sum, expires) = match known.version == self.version {
            true => (Ok(Sum([known.gives.own.as_deref(), known.gives.role.as_deref()])), known.expires),
            false => self.again(known),
        };
        let leeway = if known.key.source == Source::Token { self.expected.leeway } else { 0 };
        let until_us = expires.map(|expires| expires.saturating_add(leeway).saturating_mul(1_000_000));
        let what = match sum {
            _ if until_us.is_some_and(|until| until <= wall_us) => What::Ended(Ended::Expired),
            _ if self.revoked.has_known(known, seconds(wall_us)) => What::Ended(Ended::Revoked),
            Ok(sum) => What::Sum(sum),
            Err(why) => What::Ended(why),
        };
        Standing { what, until_us }
    }

    /// What these rules give somebody whom others have judged, and until when.
    fn again<'r>(&'r self, known: &'r Known) -> (Result<Sum<'r>, Ended>, Option<u64>) {
        match known.key.source {
            Source::Token => {
                let is_taken = self.keys.as_ref().is_some_and(|keys| keys.has(&known.signed_by))
                    && self.expected.audiences.contains(&known.audience)
                    && self.expected.issuer.as_ref().is_none_or(|issuer| *issuer == known.key.issuer);
                let role = known.role.as_ref().map(|name| self.file.role(name).ok_or(Ended::Withdrawn)).transpose();
                let sum = role.map(|role| Sum([known.gives.own.as_deref(), role.map(|role| &**role)]));
                (sum.and_then(|sum| if is_taken { Ok(sum) } else { Err(Ended::Withdrawn) }), known.expires)
            }
            Source::Static => match self.file.token(&known.hash).filter(|entry| entry.name == known.key.name) {
                Some(entry) => (Ok(entry.gives.sum()), entry.expires),
                None => (Err(Ended::Withdrawn), known.expires),
            },
            Source::Certificate => match self.file.certificate(&known.key.name) {
                Some(entry) => {
                    let expires = [entry.expires, known.expires].into_iter().flatten().min();
                    (Ok(entry.gives.sum()), expires)
                }
                None => (Ok(Sum([None, None])), known.expires),
            },
        }
    }

    /// The same holder, judged by these rules: so that [`Rules::now`] finds it sooner. One whose rights have ended stays as it was.
    pub fn renewed(&self, holder: &Holder, wall_us: u64) -> Holder {
        match holder {
            Holder::Known(known) if known.version != self.version && self.known(known, wall_us).ended().is_none() => {
                Holder::Known(Arc::new(self.renew(known)))
            }
            holder => holder.clone(),
        }
    }

    fn renew(&self, known: &Known) -> Known {
        let (gives, expires) = match known.key.source {
            Source::Token => {
                let role = known.role.as_ref().and_then(|name| self.file.role(name)).cloned();
                (Gives { own: known.gives.own.clone(), role }, known.expires)
            }
            Source::Static => {
                self.file.token(&known.hash).map(|entry| (entry.gives.clone(), entry.expires)).unwrap_or_default()
            }
            Source::Certificate => match self.file.certificate(&known.key.name) {
                // The entry's own moment may change; that of the certificate stays.
                Some(entry) => (entry.gives.clone(), known.expires),
                None => (Gives::default(), known.expires),
            },
        };
        Known {
            key: Arc::clone(&known.key),
            id: known.id.clone(),
            hash: known.hash,
            expires,
            gives,
            role: known.role.clone(),
            audience: known.audience.clone(),
            signed_by: known.signed_by,
            certificate: known.certificate.clone(),
            version: self.version,
            seen: AtomicU64::new(0),
        }
    }

    /// Who opens a WebSocket, or says `auth` on one, and shows this, at this moment by the wall clock in microseconds.
    ///
    /// # Errors
    /// It is not the right token. Where none is set, none is right.
    pub fn holder(&self, shown: Option<&Shown<'_>>, wall_us: u64) -> Result<Holder, Wrong> {
        let Some(shown) = shown else { return Ok(Holder::Anonymous) };
        if self.token.as_ref().is_some_and(|token| token.matches(&shown.text)) {
            return Ok(Holder::Publisher { generation: self.generation });
        }
        let known = self.judge(shown, wall_us)?;
        // Whatever was judged above: who was revoked meanwhile, or a moment ago, is found here.
        match self.known(&known, wall_us).ended() {
            None => Ok(Holder::Known(known)),
            Some(Ended::Revoked) => Err(Wrong::Revoked),
            Some(Ended::Expired) => {
                Err(Wrong::Expired { ago: seconds(wall_us).saturating_sub(known.expires.unwrap_or_default()) })
            }
            Some(Ended::Withdrawn) => Err(Wrong::Unknown),
        }
    }

    /// Whether judging what is shown takes a signature, which costs tens of microseconds: it isn't one of those that are known already.
    pub fn needs_signature(&self, shown: &Shown<'_>) -> bool {
        let text = &*shown.text;
        self.keys.is_some()
            && text.len() <= self.expected.bytes_max
            && token::has_form(text)
            && self.token.as_ref().is_none_or(|token| !token.matches(text))
            && self.seen.find(&sha256(text.as_bytes())).is_none_or(|known| !self.is_still_taken(&known))
    }

    /// Whether a token that was genuine is so by these rules without another look: its key, its audience and its role are there.
    fn is_still_taken(&self, known: &Known) -> bool {
        known.version == self.version || self.again(known).0.is_ok()
    }

    fn judge(&self, shown: &Shown<'_>, wall_us: u64) -> Result<Arc<Known>, Wrong> {
        let (text, now) = (&*shown.text, seconds(wall_us));
        if text.len() > self.expected.bytes_max {
            return Err(Wrong::TooLong { len: text.len(), max: self.expected.bytes_max });
        }
        let hash = sha256(text.as_bytes());
        if let Some(entry) = self.file.token(&hash) {
            return Ok(Arc::new(self.entered(Source::Static, &entry.name, &entry.gives, entry.expires, hash)));
        }
        let Some(keys) = self.keys.as_ref().filter(|_| token::has_form(text)) else { return Err(Wrong::Unknown) };
        let (known, is_new) = match self.seen.find(&hash) {
            Some(known) if known.version == self.version => (known, false),
            Some(known) if self.is_still_taken(&known) => (Arc::new(self.renew(&known)), true),
            _ => (Arc::new(self.signed(Token::judge(text, keys, &self.expected, now)?, hash)?), true),
        };
        if is_new {
            self.seen.keep(Arc::clone(&known));
        }
        let ahead = known.expires.unwrap_or(u64::MAX).saturating_sub(now);
        if shown.in_address && !self.in_address && ahead > IN_ADDRESS_MAX {
            return Err(Wrong::InAddress);
        }
        Ok(known)
    }

    /// Somebody with a token that is genuine.
    fn signed(&self, token: Token, hash: [u8; 32]) -> Result<Known, Wrong> {
        let role = match &token.role {
            Some(name) => Some(self.file.role(name).cloned().ok_or_else(|| Wrong::Role(format!("{name:.80?}")))?),
            None => None,
        };
        Ok(Known {
            key: Arc::new(Key { source: Source::Token, issuer: token.issuer, name: token.subject }),
            id: token.id,
            hash,
            expires: Some(token.expires),
            gives: Gives { own: Some(Arc::new(token.rights)), role },
            role: token.role,
            audience: token.audience,
            signed_by: token.signed_by,
            certificate: None,
            version: self.version,
            seen: AtomicU64::new(0),
        })
    }

    /// Somebody whom the rights file names, or whom a certificate does.
    fn entered(&self, source: Source, name: &str, gives: &Gives, expires: Option<u64>, hash: [u8; 32]) -> Known {
        Known {
            key: Arc::new(Key { source, issuer: "".into(), name: name.into() }),
            id: None,
            hash,
            expires,
            gives: gives.clone(),
            role: None,
            audience: "".into(),
            signed_by: [0; 32],
            certificate: None,
            version: self.version,
            seen: AtomicU64::new(0),
        }
    }

    /// Who has a client certificate. Whom the rights file doesn't name may nothing, but has a name. Whether it was revoked, was taken back since or has
    /// expired, [`Rules::now`] says.
    fn of_certificate(&self, shown: &Certified) -> Known {
        let entry = self.file.certificate(&shown.name);
        let gives = entry.map(|entry| entry.gives.clone()).unwrap_or_default();
        let expires = entry.and_then(|entry| entry.expires).map_or(shown.expires, |expires| expires.min(shown.expires));
        let known = self.entered(Source::Certificate, &shown.name, &gives, Some(expires), [0; 32]);
        Known { certificate: Some(Box::new((shown.path.clone(), shown.authority))), ..known }
    }

    /// Revokes somebody, on every thread from now on, and keeps it in the file, if there is one. Returns the generation from which on it counts.
    ///
    /// # Errors
    /// The file can't be written, or there are too many: nobody was revoked.
    pub fn revoke(&self, one: &Revocation, wall_us: u64) -> io::Result<u64> {
        self.revoked.revoke(one, seconds(wall_us), self.revoked_file.as_deref())
    }

    /// Until when somebody is revoked of whom that isn't said, in seconds since the Unix epoch: until the last of the tokens that are meant and remembered expires, but
    /// for a day at least. There may be others of that name, and of that id: two issuers may each have a token with it.
    pub fn revoked_until(&self, whom: &Whom, wall_us: u64) -> u64 {
        let day = seconds(wall_us).saturating_add(DAY);
        // The leeway may become a longer one.
        self.seen.last_expires(whom).map_or(day, |expires| expires.saturating_add(LEEWAY_MAX).max(day))
    }

    /// Writes the file of those who were revoked anew, without what counts no more, if that is most of it.
    pub fn compact_revoked(&self, wall_us: u64) {
        if let Some(path) = &self.revoked_file {
            self.revoked.compact(path, seconds(wall_us));
        }
    }

    /// Who was revoked.
    pub fn revoked(&self) -> &Arc<Revoked> {
        &self.revoked
    }

    /// How many tokens are remembered as genuine, and how many may be.
    pub fn seen(&self) -> (usize, usize) {
        self.seen.count()
    }

    /// Which rules these are: greater after each change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many keys, and how many roles, static tokens and certificates there are.
    pub fn counts(&self) -> (usize, [usize; 3]) {
        (self.keys.as_ref().map_or(0, |keys| keys.iter().count()), self.file.counts())
    }

    /// What there is of keys, roles and so on, as a sentence for the operator; none where there is nothing of it.
    pub fn sentence(&self) -> Option<String> {
        let (keys, [roles, tokens, certificates]) = self.counts();
        let (revoked, _) = self.revoked.count();
        let all = [
            (self.keys.is_some(), counted(keys, "key")),
            (roles > 0, counted(roles, "role")),
            (tokens > 0, counted(tokens, "static token")),
            (certificates > 0, counted(certificates, "certificate")),
            (self.revoked_file.is_some(), format!("{revoked} revoked")),
        ];
        let said: Vec<String> = all.into_iter().filter_map(|(is_there, text)| is_there.then_some(text)).collect();
        (!said.is_empty()).then(|| format!("rights: {}", said.join(", ")))
    }

    /// Whether there is any token that could be right.
    fn has_tokens(&self) -> bool {
        self.token.is_some() || self.keys.is_some() || self.file.counts()[1] > 0
    }

    /// Who sends a request over plain HTTP. Where no token could be right, one that is shown is not looked at: it may be meant for a
    /// proxy in between.
    ///
    /// # Errors
    /// 401 for a token that is not the right one, 400 for several.
    pub fn sender(&self, head: &Request<'_>, wall_us: u64) -> Result<Holder, Refusal> {
        self.sender_or(head, Holder::Anonymous, wall_us)
    }

    /// The same on a connection that is `of` somebody already, by a certificate: a token that a request shows goes before.
    ///
    /// # Errors
    /// As above.
    pub fn sender_or(&self, head: &Request<'_>, of: Holder, wall_us: u64) -> Result<Holder, Refusal> {
        match shown_token(head)? {
            Some(shown) if self.has_tokens() => Ok(self.holder(Some(&shown), wall_us)?),
            _ => Ok(of),
        }
    }

    /// Who a connection is of, by the certificate that its client has shown, if any.
    pub fn certified(&self, shown: Option<&Certified>) -> Holder {
        shown.map_or(Holder::Anonymous, |shown| Holder::Known(Arc::new(self.of_certificate(shown))))
    }

    /// Who looks at topics or figures over plain HTTP.
    ///
    /// # Errors
    /// 403 for a page that may not connect, 401 for a wrong token, 400 for several.
    #[cfg(any(test, fuzzing))]
    pub fn reader(&self, head: &Request<'_>, wall_us: u64) -> Result<Holder, Refusal> {
        self.check_page(head)?;
        self.sender(head, wall_us)
    }

    /// Who publishes over plain HTTP.
    ///
    /// # Errors
    /// 403 for a page that may not connect, 401 for somebody who may not publish, 400 for several tokens.
    #[cfg(any(test, fuzzing))]
    pub fn publisher(&self, head: &Request<'_>, wall_us: u64) -> Result<Holder, Refusal> {
        self.publisher_or(head, Holder::Anonymous, wall_us)
    }

    /// The same on a connection that is `of` somebody already, by a certificate.
    ///
    /// # Errors
    /// As above.
    pub fn publisher_or(&self, head: &Request<'_>, of: Holder, wall_us: u64) -> Result<Holder, Refusal> {
        self.check_page(head)?;
        let holder = self.sender_or(head, of, wall_us)?;
        if self.now(&holder, wall_us).publishes() { Ok(holder) } else { Err(missing(head, &holder, "Publishing")) }
    }

    /// Which page may read the answer to a request.
    pub fn readers(&self, head: &Request<'_>) -> Readers {
        match head.header("Origin") {
            Some(origin) if self.check_page(head).is_ok() => Readers::Page(origin.into()),
            _ => Readers::Nobody,
        }
    }

    /// The same of a request that is refused before it is read as one, of which these bytes are there: as far as they say.
    pub fn readers_of(&self, begun: &[u8]) -> Readers {
        self.readers(&http::head::outline(begun))
    }

    /// Whether the page that a browser's request comes from may connect, and whether the request was meant for this server.
    ///
    /// # Errors
    /// 403 for a page that may not, and for a name that leads here and isn't this machine's, where only this machine may connect.
    pub fn check_page(&self, head: &Request<'_>) -> Result<(), Refusal> {
        if self.is_near && !origin::was_meant_for_loopback(head) {
            let text = "This server is open to this machine only: ask for localhost or a loopback address, or start it with \
                        --publish-token, --anonymous-publish or --trusted-proxy.";
            return Err(Refusal::new(403, text));
        }
        self.check_origin(head, self.is_near)
    }

    /// The same for the address for operators: on loopback it is this machine's alone, whatever token there is.
    ///
    /// # Errors
    /// 403 as above.
    pub fn check_operator(&self, head: &Request<'_>) -> Result<(), Refusal> {
        if self.admin_is_near && !origin::was_meant_for_loopback(head) {
            return Err(Refusal::new(
                403,
                "This address is this machine's alone: ask for localhost or a loopback address.",
            ));
        }
        self.check_origin(head, self.admin_is_near)
    }

    fn check_origin(&self, head: &Request<'_>, is_near: bool) -> Result<(), Refusal> {
        if origin::is_allowed(head, &self.origins, is_near) {
            return Ok(());
        }
        Err(Refusal::new(403, "Pages from this origin may not connect here: --allow-origin names those that may."))
    }
}

/// Whether a client needs no token to publish: it was said so, or only this machine can connect. Behind a proxy, who
/// connects from this machine may be anybody.
pub fn publishing_is_open(config: &Config) -> bool {
    let local =
        config.trusted_proxy.is_empty() && config.addresses().all(|address| address.ip().to_canonical().is_loopback());
    config.anonymous_publish || (config.publish_token.is_none() && !has_holders(config) && local)
}

/// Whether a client needs to show nothing to subscribe to whatever it likes: nobody has rights of his own, and no names are named for everybody.
pub fn subscribing_is_open(config: &Config) -> bool {
    !has_holders(config) && config.anonymous_subscribe.is_empty()
}

/// Whether the settings give somebody rights of his own: then whoever shows nothing has only what is named for everybody.
fn has_holders(config: &Config) -> bool {
    config.jwt_keys.is_some() || config.rights.is_some() || config.tls_client_ca.is_some()
}

/// A day, in seconds: for so long somebody is revoked at least, unless it is said until when.
const DAY: u64 = 24 * 60 * 60;

/// As much as `--jwt-leeway` may be, in seconds.
const LEEWAY_MAX: u64 = 300;

/// Seconds since the Unix epoch.
fn seconds(wall_us: u64) -> u64 {
    wall_us / 1_000_000
}

/// The text of a file of at most so many bytes.
fn text(path: &Path, most: u64) -> Result<String, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let length = file.take(most + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if length as u64 > most {
        return Err(format!("expected a file of at most {most} bytes, found more"));
    }
    Ok(text)
}

/// The refusal of a request without the token that this takes, or with one that doesn't give it.
fn missing(head: &Request<'_>, holder: &Holder, what: &str) -> Refusal {
    if holder.has_shown() {
        return Refusal::new(403, format!("{what} is nothing that this token gives."));
    }
    if matches!(shown_token(head), Ok(Some(_))) {
        return Wrong::Unknown.into();
    }
    let text = format!("{what} needs a token: send Authorization: Bearer TOKEN, or ?token=TOKEN.");
    Refusal::new(401, text).with(CHALLENGE)
}

#[cfg(all(test, not(loom)))]
mod judging;
#[cfg(test)]
mod tests;
