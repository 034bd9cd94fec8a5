//! What is for operators, and who is one: the figures, who the clients are, and all topics whatever one may see of them.
//!
//! | `--admin-token` | a request from | is let in |
//! | --- | --- | --- |
//! | set or not | anywhere | if it shows a token whose holder is an operator (`"admin":true`) |
//! | set | anywhere, this machine too | if it shows that token |
//! | not set | this machine, to it by name or number, not by way of a proxy that says so, and not from a page of elsewhere | always; to see who the clients are, with `--publish-token`, where there is one |
//! | set or not | anywhere | never, if it is a holder's that isn't one, or shows a token that is wrong, also where none would be needed |
//! | not set | anywhere else | never: 403 names the flag |
//!
//! A token that is set is asked for on this machine as well: a proxy here makes all the world look like this machine. It opens nothing else:
//! no publishing and no subscribing. On the address for operators (`--admin-listen`) the same holds, but for health, which says nothing that
//! is worth hiding.

use std::net::SocketAddr;

use super::{CHALLENGE, Holder, Rules, Wrong, origin, shown_token};
use crate::{
    config::{Config, Secret},
    http::{Refusal, Request},
};

/// What the settings say about operators.
#[derive(Clone, Debug, Default)]
pub(super) struct Operators {
    token: Option<Secret>,
}

impl Operators {
    /// Those of the settings.
    pub fn of(config: &Config) -> Operators {
        Operators { token: config.admin_token.clone() }
    }

    /// Whether a request shows the token.
    ///
    /// # Errors
    /// 400 for several tokens.
    fn are_shown(&self, head: &Request<'_>) -> Result<bool, Refusal> {
        let shown = shown_token(head)?;
        Ok(matches!((&self.token, shown), (Some(token), Some(shown)) if token.matches(&shown.text)))
    }
}

/// Who looks at topics.
#[derive(Clone, Debug)]
pub enum Viewer {
    /// An operator, who sees all of them.
    Operator,
    /// Somebody who sees what it may subscribe to.
    Holder(Holder),
}

/// Who asks for what is for operators.
enum Asker {
    /// Whoever shows the token of operators, who has no name, or one whose holder is one (`"admin":true`).
    Operator(Holder),
    /// A holder that isn't.
    Somebody,
    /// Whoever shows nothing that has a name.
    Nobody,
}

impl Rules {
    /// Whether a request may see the figures: from there, on a connection that is `of` somebody by a certificate, or of nobody. Which page it comes from
    /// was looked at. Returns who it is that is an operator by name; nobody for the token of operators, and for this machine.
    ///
    /// # Errors
    /// 401 if it needs the token or shows a wrong one, 403 if it would have to come from this machine, 400 for several tokens.
    pub fn may_operate(
        &self,
        head: &Request<'_>,
        (peer, of): (SocketAddr, &Holder),
        wall_us: u64,
    ) -> Result<Holder, Refusal> {
        let is_known = match self.asker(head, of, wall_us)? {
            Asker::Operator(holder) => return Ok(holder),
            Asker::Somebody => true,
            Asker::Nobody => false,
        };
        let shown = shown_token(head)?;
        if is_known {
            // Who has a name isn't an operator for being on this machine.
            return Err(Refusal::new(
                403,
                "This is for operators: \"admin\":true in the token, or in the rights file.",
            ));
        }
        if self.operators.token.is_some() {
            if shown.is_some() {
                return Err(Wrong::Unknown.into());
            }
            let text = "This is for operators: send Authorization: Bearer TOKEN, with the server's --admin-token.";
            return Err(Refusal::new(401, text).with(CHALLENGE));
        }
        // A page of elsewhere, in a browser of this machine, is none of it.
        if origin::is_local(head, peer) && origin::is_allowed(head, &self.origins, true) {
            // Whoever has been given a token is told that it protects nothing here.
            return match shown {
                Some(_) if !self.has_tokens() => {
                    let text = "The token is not the right one: the server has no --admin-token, and from this \
                                machine none is needed.";
                    Err(Refusal::new(401, text).with(CHALLENGE))
                }
                _ => Ok(Holder::Anonymous),
            };
        }
        let text = "This is for operators, on this machine only, at localhost or 127.0.0.1, and not for pages of elsewhere, \
                    unless --admin-token is set.";
        Err(Refusal::new(403, text))
    }

    /// Whether a request may see who the clients are: their addresses, and what each is subscribed to. Without an `--admin-token` it takes
    /// the `--publish-token`, too, where there is one.
    ///
    /// # Errors
    /// As [`Rules::may_operate`].
    pub fn may_inspect(&self, head: &Request<'_>, from: (SocketAddr, &Holder), wall_us: u64) -> Result<(), Refusal> {
        self.check_page(head)?;
        self.may_operate(head, from, wall_us)?;
        if self.operators.token.is_some()
            || self.token.is_none()
            || matches!(self.asker(head, from.1, wall_us)?, Asker::Operator(_))
        {
            return Ok(());
        }
        match self.sender(head, wall_us)? {
            Holder::Publisher { .. } | Holder::Server => Ok(()),
            sender => Err(super::missing(head, &sender, "Looking at clients")),
        }
    }

    /// Who looks at topics over plain HTTP.
    ///
    /// # Errors
    /// As [`Rules::reader`].
    pub fn viewer(&self, head: &Request<'_>, of: Holder, wall_us: u64) -> Result<Viewer, Refusal> {
        self.check_page(head)?;
        let holder = match self.asked(head, of, wall_us)? {
            Viewer::Operator => return Ok(Viewer::Operator),
            Viewer::Holder(holder) => holder,
        };
        Ok(if self.now(&holder, wall_us).is_admin() { Viewer::Operator } else { Viewer::Holder(holder) })
    }

    /// Whether somebody who looks sees this topic, or all that a pattern stands for, at this moment by the wall clock in microseconds.
    pub fn sees(&self, viewer: &Viewer, name: &str, wall_us: u64) -> bool {
        match viewer {
            Viewer::Operator => true,
            Viewer::Holder(holder) => self.now(holder, wall_us).may_subscribe(name),
        }
    }

    /// Who asks for what is for operators.
    fn asker(&self, head: &Request<'_>, of: &Holder, wall_us: u64) -> Result<Asker, Refusal> {
        Ok(match self.asked(head, of.clone(), wall_us)? {
            Viewer::Operator => Asker::Operator(Holder::Anonymous),
            Viewer::Holder(holder) if self.now(&holder, wall_us).is_admin() => Asker::Operator(holder),
            Viewer::Holder(holder) if holder.known().is_some() => Asker::Somebody,
            Viewer::Holder(_) => Asker::Nobody,
        })
    }

    /// Who sends a request where the token of operators may be shown as well, by that token or as anybody.
    ///
    /// # Errors
    /// 401 for a token that is not the right one, 400 for several.
    fn asked(&self, head: &Request<'_>, of: Holder, wall_us: u64) -> Result<Viewer, Refusal> {
        if self.operators.are_shown(head)? {
            return Ok(Viewer::Operator);
        }
        // It is held against that token, too, so that it isn't passed over where there is no other.
        if self.operators.token.is_some() && !self.has_tokens() && shown_token(head)?.is_some() {
            return Err(Wrong::Unknown.into());
        }
        Ok(Viewer::Holder(self.sender_or(head, of, wall_us)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{access::Shown, http::head::parse};

    fn rules(admin: Option<&str>, publish: Option<&str>) -> Rules {
        let secret = |token: Option<&str>| token.map(|token| token.parse().unwrap());
        Rules::of(&Config { admin_token: secret(admin), publish_token: secret(publish), ..Config::default() })
    }

    /// What a request with these lines is told: its status for the figures, and for who the clients are.
    fn told(rules: &Rules, peer: &str, target: &str, lines: &str) -> (u16, u16) {
        let head = format!("GET {target} HTTP/1.1\r\n{lines}\r\n");
        let (request, _) = parse(head.as_bytes(), 8192).unwrap_or_else(|why| panic!("{why}: {head}")).unwrap();
        let status = |judged: Result<(), Refusal>| judged.map_or_else(|why| why.status, |()| 200);
        let peer = peer.parse().unwrap();
        let from = (peer, &Holder::Anonymous);
        (status(rules.may_operate(&request, from, NOW).map(drop)), status(rules.may_inspect(&request, from, NOW)))
    }

    /// A moment; nothing here lasts only so long.
    const NOW: u64 = 1_700_000_000_000_000;

    const HERE: &str = "127.0.0.1:1";
    const THERE: &str = "192.0.2.1:1";

    #[test]
    fn with_a_token_it_takes_the_token_from_wherever_it_comes() {
        let rules = rules(Some("boss"), Some("pub"));
        for peer in [HERE, THERE] {
            assert_eq!(told(&rules, peer, "/", "Host: localhost\r\n"), (401, 401));
            assert_eq!(told(&rules, peer, "/", "Host: x\r\nAuthorization: Bearer boss\r\n"), (200, 200));
            assert_eq!(told(&rules, peer, "/?token=boss", "Host: x\r\n"), (200, 200));
            assert_eq!(told(&rules, peer, "/", "Host: localhost\r\nAuthorization: Bearer pub\r\n"), (401, 401));
            assert_eq!(told(&rules, peer, "/?token=boss&token=boss", "Host: localhost\r\n"), (400, 400));
            let proxied = "Host: x\r\nX-Forwarded-For: 192.0.2.7\r\nAuthorization: Bearer boss\r\n";
            assert_eq!(told(&rules, peer, "/", proxied), (200, 200));
        }
    }

    #[test]
    fn without_a_token_it_is_for_this_machine_alone() {
        let open = rules(None, None);
        assert_eq!(told(&open, HERE, "/", "Host: localhost:9001\r\n"), (200, 200));
        assert_eq!(told(&open, "[::1]:1", "/", "Host: [::1]:9001\r\n"), (200, 200));
        assert_eq!(told(&open, "[::ffff:127.0.0.1]:1", "/", "Host: 127.0.0.1\r\n"), (200, 200));
        for (peer, lines) in [
            (THERE, "Host: localhost\r\n"),
            (HERE, "Host: evil.example\r\n"),
            (HERE, "Host: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n"),
            (HERE, "Host: localhost\r\nForwarded: for=192.0.2.7\r\n"),
        ] {
            assert_eq!(told(&open, peer, "/", lines), (403, 403), "{peer} {lines}");
        }
        let guarded = rules(None, Some("pub"));
        assert_eq!(told(&guarded, HERE, "/", "Host: localhost\r\n"), (200, 401));
        assert_eq!(told(&guarded, HERE, "/", "Host: localhost\r\nAuthorization: Bearer pub\r\n"), (200, 200));
        assert_eq!(told(&guarded, THERE, "/", "Host: localhost\r\nAuthorization: Bearer pub\r\n"), (403, 403));
    }

    #[test]
    fn a_page_of_elsewhere_in_a_browser_of_this_machine_is_no_operator() {
        for rules in [rules(None, Some("pub")), rules(None, None)] {
            let of_page = |origin: &str| {
                told(&rules, HERE, "/?token=pub", &format!("Host: localhost:9001\r\nOrigin: {origin}\r\n")).0
            };
            let shown = rules.has_tokens();
            assert_eq!(of_page("https://evil.example"), 403);
            assert_eq!(of_page("null"), 403);
            assert_eq!(of_page("http://localhost:9001"), if shown { 200 } else { 401 }, "the console");
        }
        // Whoever shows the token may be from anywhere.
        let guarded = rules(Some("boss"), None);
        assert_eq!(told(&guarded, HERE, "/?token=boss", "Host: localhost\r\nOrigin: https://ops.example\r\n").0, 200);
    }

    #[test]
    fn a_wrong_token_is_refused_also_where_none_is_needed() {
        let here = "Host: localhost\r\n";
        let wrong = "Host: localhost\r\nAuthorization: Bearer guess\r\n";
        let empty = "Host: localhost\r\nAuthorization: Bearer\r\n";
        for rules in [rules(None, None), rules(None, Some("pub")), rules(Some("boss"), None)] {
            for lines in [wrong, empty] {
                assert_eq!(told(&rules, HERE, "/", lines), (401, 401), "{lines}");
            }
            assert_eq!(told(&rules, HERE, "/?token=guess", here), (401, 401));
            // What is no token of ours may be a proxy's.
            let other = "Host: localhost\r\nAuthorization: Basic Z3Vlc3M=\r\n";
            assert_eq!(told(&rules, HERE, "/", other), told(&rules, HERE, "/", here));
        }
        // From elsewhere the flag is named where it isn't set.
        assert_eq!(told(&rules(None, None), THERE, "/", wrong), (403, 403));
        assert_eq!(told(&rules(None, Some("pub")), HERE, "/?token=pub", here), (200, 200));
        let topics = |rules: &Rules, lines: &str| {
            let head = format!("GET /topics HTTP/1.1\r\n{lines}\r\n");
            let (request, _) = parse(head.as_bytes(), 8192).unwrap().unwrap();
            rules.viewer(&request, Holder::Anonymous, NOW).map_or_else(|why| why.status, |_| 200)
        };
        assert_eq!(
            topics(&rules(Some("boss"), None), wrong),
            401,
            "it is for no proxy where one of ours could be right"
        );
        assert_eq!(topics(&rules(None, None), wrong), 200);
    }

    #[test]
    fn the_token_shows_all_topics_and_opens_nothing_else() {
        let rules = rules(Some("boss"), Some("pub"));
        let head = b"GET /topics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer boss\r\n\r\n";
        let (request, _) = parse(head, 8192).unwrap().unwrap();
        assert!(matches!(rules.viewer(&request, Holder::Anonymous, NOW).unwrap(), Viewer::Operator));
        assert!(rules.sees(&Viewer::Operator, ">", NOW));
        assert_eq!(rules.publisher(&request, NOW).unwrap_err().status, 401);
        assert_eq!(rules.reader(&request, NOW).unwrap_err().status, 401);
        assert!(rules.holder(Some(&Shown::new("boss")), NOW).is_err());
    }

    #[test]
    fn no_token_is_ever_shown() {
        assert!(!format!("{:?}", rules(Some("s3cret-of-operators"), None)).contains("s3cret"));
    }
}
