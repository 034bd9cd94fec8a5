//! Who may do what: the one place that is asked.
//!
//! A door (`/ws`, `/raw`, `/sse`, a request over plain HTTP) first finds out who is there: [`shown_token`] reads the token
//! that a request shows, and [`Rules`] say whose it is, or that it is nobody's. That comes before anything else is done for
//! a connection. The [`Holder`] that comes of it stays with the connection or the request, and is asked about whatever is wanted
//! later.
//!
//! | file | what |
//! | --- | --- |
//! | [`shown`] | the token that a request shows |
//! | [`operators`] | what is for operators, and who is one |
//! | [`origin`] | which page a request comes from, and whether it was meant for this machine |
//!
//! Rules change while connections last. So a holder says who is there and not what it may: before it acts, it is held against
//! the rules of that moment ([`Rules::now`]), and whoever has shown a token that is no longer the right one, or never showed one,
//! is somebody who has shown nothing.
//!
//! Values only: no socket, thread, lock or clock. What it costs is a comparison for each connection or request that shows a
//! token, in a time that doesn't tell where the two differ, and nothing for a publication but a comparison of numbers.

mod operators;
pub mod origin;
pub mod shown;

use thiserror::Error;

use self::operators::Operators;
pub use self::{operators::Viewer, shown::shown_token};
use crate::{
    config::{Config, Secret, page::Named},
    http::{self, Refusal, Request, response::Readers},
};

/// What goes with 401, as RFC 9110 section 11.6.1 demands.
const CHALLENGE: &[(&str, &str)] = &[("WWW-Authenticate", "Bearer realm=\"stentor\"")];

/// What the settings say about who may do what.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    token: Option<Secret>,
    /// How often the token has changed since the server started.
    generation: u32,
    origins: Vec<Named>,
    is_open: bool,
    /// It is open only because nobody but this machine can connect. A page that its visitor's browser has open is somebody else.
    is_near: bool,
    /// The same of the address for operators: it is on loopback.
    admin_is_near: bool,
    operators: Operators,
}

/// Who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Somebody who has shown nothing.
    Anonymous {
        /// Anybody may publish.
        publishes: bool,
    },
    /// Somebody who has shown the token that was right then.
    Token {
        /// How often the token had changed by then.
        generation: u32,
    },
    /// The server itself: its feeds, and the program that it is part of.
    Server,
}

/// A token was shown that is not the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{}", Wrong::REASON)]
pub struct Wrong;

impl Wrong {
    /// What a WebSocket client is told.
    pub const REASON: &'static str = "the token is not the right one";
}

impl From<Wrong> for Refusal {
    fn from(_: Wrong) -> Refusal {
        Refusal::new(401, "The token is not the right one.").with(CHALLENGE)
    }
}

impl Holder {
    /// Whether there is anything that it may publish on; which topics, [`Holder::may_publish`] knows.
    pub fn publishes(self) -> bool {
        match self {
            Holder::Anonymous { publishes } => publishes,
            Holder::Token { .. } | Holder::Server => true,
        }
    }

    /// Whether it may publish on this topic.
    #[inline]
    pub fn may_publish(self, _topic: &str) -> bool {
        self.publishes()
    }

    /// Whether it may subscribe to this topic or pattern, or look at its last values. Today everybody may.
    pub fn may_subscribe(self, _name: &str) -> bool {
        true
    }
}

impl Rules {
    /// With this static token, if there is any; for pages of these origins, or all if none are named; and whether whoever
    /// shows nothing may publish.
    pub fn new(token: Option<Secret>, origins: Vec<Named>, is_open: bool) -> Rules {
        Rules { token, origins, is_open, ..Rules::default() }
    }

    /// Those of the settings.
    pub fn of(config: &Config) -> Rules {
        // What is none of the forms was refused when the settings were checked.
        let origins = config.allow_origin.iter().filter_map(|origin| origin.parse().ok()).collect();
        let is_open = publishing_is_open(config);
        let is_near = is_open && !config.anonymous_publish;
        let admin_is_near = config.admin_listen.is_some_and(|address| address.ip().to_canonical().is_loopback());
        Rules {
            is_near,
            admin_is_near,
            operators: Operators::of(config),
            ..Rules::new(config.publish_token.clone(), origins, is_open)
        }
    }

    /// These, in the place of those before: another token makes that of the others one that was right once.
    pub fn after(self, before: &Rules) -> Rules {
        let is_new = self.token != before.token;
        Rules { generation: before.generation.wrapping_add(is_new.into()), ..self }
    }

    /// What a holder that was judged by these rules or by earlier ones is now. Asked before it acts, so that a change of the
    /// rules is for everybody.
    #[inline]
    pub fn now(&self, holder: Holder) -> Holder {
        match holder {
            Holder::Server => holder,
            Holder::Token { generation } if generation == self.generation => holder,
            Holder::Token { .. } | Holder::Anonymous { .. } => self.anonymous(),
        }
    }

    /// Whoever shows nothing.
    pub fn anonymous(&self) -> Holder {
        Holder::Anonymous { publishes: self.is_open }
    }

    /// Who opens a WebSocket, or says `auth` on one, and shows this.
    ///
    /// # Errors
    /// It is not the right token. Where none is set, none is right.
    pub fn holder(&self, shown: Option<&str>) -> Result<Holder, Wrong> {
        match shown {
            None => Ok(self.anonymous()),
            Some(shown) if self.token.as_ref().is_some_and(|token| token.matches(shown)) => {
                Ok(Holder::Token { generation: self.generation })
            }
            Some(_) => Err(Wrong),
        }
    }

    /// Who sends a request over plain HTTP. Where no token is set, one that is shown is not looked at: it may be meant for a
    /// proxy in between.
    ///
    /// # Errors
    /// 401 for a token that is not the right one, 400 for several.
    pub fn sender(&self, head: &Request<'_>) -> Result<Holder, Refusal> {
        let shown = shown_token(head)?;
        match self.token {
            Some(_) => Ok(self.holder(shown.as_deref())?),
            None => Ok(self.anonymous()),
        }
    }

    /// Who looks at topics or figures over plain HTTP.
    ///
    /// # Errors
    /// 403 for a page that may not connect, 401 for a wrong token, 400 for several.
    pub fn reader(&self, head: &Request<'_>) -> Result<Holder, Refusal> {
        self.check_page(head)?;
        self.sender(head)
    }

    /// Who publishes over plain HTTP.
    ///
    /// # Errors
    /// 403 for a page that may not connect, 401 for somebody who may not publish, 400 for several tokens.
    pub fn publisher(&self, head: &Request<'_>) -> Result<Holder, Refusal> {
        self.check_page(head)?;
        let holder = self.sender(head)?;
        if holder.publishes() { Ok(holder) } else { Err(missing(head, "Publishing")) }
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
    config.anonymous_publish || (config.publish_token.is_none() && local)
}

/// The refusal of a request without the token that this takes.
fn missing(head: &Request<'_>, what: &str) -> Refusal {
    if matches!(shown_token(head), Ok(Some(_))) {
        return Wrong.into();
    }
    let text = format!("{what} needs a token: send Authorization: Bearer TOKEN, or ?token=TOKEN.");
    Refusal::new(401, text).with(CHALLENGE)
}

#[cfg(test)]
mod tests;
