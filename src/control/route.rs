//! Which address is answered by what, and who may.
//!
//! | path | methods | answer |
//! | --- | --- | --- |
//! | `/`, `/stentor.js`, … (`page.rs`) | GET, HEAD | the console, and the JavaScript client |
//! | `/healthz`, `/readyz` | GET, HEAD | alive; welcoming |
//! | `/metrics` | GET, HEAD | figures for Prometheus; for operators |
//! | `/debug/slow` | GET, HEAD | who is behind; for operators |
//! | `/debug/connections` | GET, HEAD | who is there, and how each is sent publications; for operators |
//! | `/topics`, `/topics/TOPIC` | GET, HEAD | what topics there are, of those that one may see; a last value |
//! | `/publish`, `/publish/TOPIC` | POST | publishing |
//! | `/revoke` | POST | revoking a token or a holder; to operators |
//! | `/ws`, `/raw/TOPIC`, `/sse`, `/poll`, `/history/TOPIC` | | for a worker |

use std::{borrow::Cow, net::SocketAddr, sync::Arc};

use super::{Control, looks, out::Text, page, slow, topics, upload::Upload, work};
use crate::{
    access::{Holder, Viewer},
    audit::{Event, What},
    handover::{Listener, is_for_worker},
    http::{
        Refusal, Request, Response,
        response::{JSON, Readers, TEXT},
    },
    io::{Edge, Token},
    metrics,
    protocol::{Mode, Topic},
};

/// The methods of what is only looked at.
pub(super) const LOOK: (&[&str], &[(&str, &str)]) = (&["GET", "HEAD"], &[("Allow", "GET, HEAD, OPTIONS")]);

/// The method of publishing.
const PUBLISH: (&[&str], &[(&str, &str)]) = (&["POST"], &[("Allow", "POST, OPTIONS")]);

/// What a page may send to be answered, beside what it always may.
const ASKED_WITH: &str = "Authorization, Content-Type, Last-Event-ID";

/// For how long a browser need not ask again, in seconds: two hours, the most that browsers take.
const PREFLIGHT_AGE: &str = "7200";

/// An answer: its head and its body, or a body that others are sent as well.
pub(super) struct Answer {
    pub head: Response<'static>,
    pub text: Option<Arc<Text>>,
}

impl From<Response<'static>> for Answer {
    fn from(head: Response<'static>) -> Answer {
        Answer { head, text: None }
    }
}

/// What a request comes to.
pub(super) enum Outcome {
    /// An answer.
    Answer(Answer),
    /// A page of the list of topics, to be made.
    Listing(topics::Query),
    /// A page of connections, for which workers are to be asked.
    Look(looks::Query),
    /// A body, to be published.
    Upload(Box<Upload>),
    /// It is for a worker.
    WebSocket,
}

impl<E: Edge> Control<E> {
    /// What a request comes to.
    pub(super) fn route(&mut self, head: &Request<'_>, peer: SocketAddr) -> Result<Outcome, Refusal> {
        if head.method == "OPTIONS" {
            return self.options(head).map(|answer| Outcome::Answer(answer.into()));
        }
        let answer = match head.path() {
            path if is_for_worker(path) => return Ok(Outcome::WebSocket),
            "/publish" => {
                only(head, PUBLISH)?;
                let holder = self.live.access.publisher_or(head, self.certified(), self.edge.wall_us())?;
                return self.upload(head, holder, None);
            }
            "/revoke" => {
                only(head, PUBLISH)?;
                let wall_us = self.edge.wall_us();
                self.live.access.check_page(head)?;
                let holder = self.live.access.may_operate(head, (peer, &self.certified()), wall_us)?;
                return Upload::revocation(head, holder).map(|upload| Outcome::Upload(Box::new(upload)));
            }
            "/healthz" => look(head).map(|()| Response::new(200).body(TEXT, &b"ok\n"[..]).into()),
            "/readyz" => look(head).and_then(|()| self.readiness()),
            "/metrics" => {
                look(head)?;
                self.live.access.check_page(head)?;
                self.metrics(head, peer)
            }
            "/debug/slow" => look(head).and_then(|()| self.slow(head, peer)),
            "/debug/connections" => return self.look_at_connections(head, peer),
            "/topics" => {
                look(head)?;
                let viewer = self.live.access.viewer(head, self.certified(), self.edge.wall_us())?;
                return topics::Query::read(head, viewer, self.live.topic_length_max).map(Outcome::Listing);
            }
            path => {
                if let Some(topic) = head.topic_behind("/publish/") {
                    only(head, PUBLISH)?;
                    let holder = self.live.access.publisher_or(head, self.certified(), self.edge.wall_us())?;
                    let topic = topic?;
                    self.check_topic(&topic)?;
                    return self.upload(head, holder, Some(&topic));
                }
                if let Some(topic) = head.topic_behind("/topics/") {
                    look(head)?;
                    let wall_us = self.edge.wall_us();
                    let viewer = self.live.access.viewer(head, self.certified(), wall_us)?;
                    let topic = topic?;
                    self.check_topic(&topic)?;
                    if let Viewer::Holder(holder) = &viewer {
                        self.may_look_at(holder, &topic)?;
                    }
                    let found = topics::last_value(&self.context, &topic);
                    if found.is_ok() {
                        self.note_look(head, peer, viewer, &topic);
                    }
                    found.map(|json| Response::new(200).body(JSON, json).header("Cache-Control", "no-store").into())
                } else {
                    let page = page::find(path).ok_or_else(nothing_here)?;
                    look(head).map(|()| page.into())
                }
            }
        };
        answer.map(Outcome::Answer)
    }

    /// Which pages may read the answer to a request. The console's files are for its own page, and the client is anybody's.
    pub(super) fn readers(&self, token: Token, head: &Request<'_>) -> Readers {
        let by = self.connections[token as usize].by;
        if is_apart(by) || page::find(head.path()).is_some() {
            return Readers::Untold;
        }
        self.live.access.readers(head)
    }

    /// The same of a refusal to a request that isn't read as one, of which these bytes came.
    pub(super) fn readers_of(&self, by: Listener, begun: &[u8]) -> Readers {
        if is_apart(by) { Readers::Untold } else { self.live.access.readers_of(begun) }
    }

    /// What may be asked of a path; and what a browser asks before it lets a page ask (a preflight).
    fn options(&self, head: &Request<'_>) -> Result<Response<'static>, Refusal> {
        let methods = match head.path() {
            "*" => "GET, HEAD, POST, OPTIONS",
            "/ws" | "/ws/" => "GET, OPTIONS",
            "/publish" | "/revoke" => PUBLISH.1[0].1,
            "/sse" | "/sse/" | "/poll" | "/poll/" => LOOK.1[0].1,
            "/healthz" | "/readyz" | "/metrics" | "/debug/slow" | "/debug/connections" | "/topics" => LOOK.1[0].1,
            path if path.starts_with("/raw/") => "GET, OPTIONS",
            path if path.starts_with("/publish/") => PUBLISH.1[0].1,
            path if path.starts_with("/topics/") || path.starts_with("/history/") || page::find(path).is_some() => {
                LOOK.1[0].1
            }
            _ => return Err(nothing_here()),
        };
        let answer = Response::new(204).header("Allow", methods);
        if head.header("Access-Control-Request-Method").is_none() {
            return Ok(answer);
        }
        self.live.access.check_page(head)?;
        Ok(answer
            .header("Access-Control-Allow-Methods", methods)
            .header("Access-Control-Allow-Headers", ASKED_WITH)
            .header("Access-Control-Max-Age", PREFLIGHT_AGE))
    }

    pub(super) fn readiness(&self) -> Result<Answer, Refusal> {
        if self.is_ready() {
            Ok(Response::new(200).body(TEXT, &b"ready\n"[..]).into())
        } else {
            Err(Refusal::new(503, "The server is draining: it takes no new connections."))
        }
    }

    /// Whether what clients publish is taken.
    fn takes_publications(&self) -> Result<(), Refusal> {
        if self.is_ready() {
            return Ok(());
        }
        self.context.shared.metrics.refuse(metrics::Refusal::Draining);
        Err(Refusal::new(503, "Nothing was published: the server is stopping.").with(&[("Retry-After", "1")]))
    }

    pub(super) fn metrics(&mut self, head: &Request<'_>, peer: SocketAddr) -> Result<Answer, Refusal> {
        self.live.access.may_operate(head, (peer, &self.certified()), self.edge.wall_us())?;
        let (content_type, text, is_new) = self.exposition.render(head, self.now);
        self.worked += if is_new { work::SCRAPE } else { 0 };
        let head = Response::new(200).content_type(content_type).header("Cache-Control", "no-store");
        Ok(Answer { head, text: Some(text) })
    }

    pub(super) fn slow(&mut self, head: &Request<'_>, peer: SocketAddr) -> Result<Answer, Refusal> {
        self.live.access.may_inspect(head, (peer, &self.certified()), self.edge.wall_us())?;
        self.worked += work::SLOW;
        let json = slow::answer(&self.context.shared.slow, self.edge.wall_us());
        Ok(Response::new(200).body(JSON, json).header("Cache-Control", "no-store").into())
    }

    /// A page of connections, or one of them.
    pub(super) fn look_at_connections(&mut self, head: &Request<'_>, peer: SocketAddr) -> Result<Outcome, Refusal> {
        look(head)?;
        self.live.access.may_inspect(head, (peer, &self.certified()), self.edge.wall_us())?;
        looks::Query::read(head).map(Outcome::Look)
    }

    /// Who the connection of the present request is of, by the certificate that its client has shown; nobody's without.
    pub(super) fn certified(&self) -> Holder {
        self.live.access.certified(self.certified.as_ref())
    }

    /// Notes for the audit that somebody looks at a topic's last value.
    fn note_look(&self, head: &Request<'_>, peer: SocketAddr, viewer: Viewer, topic: &str) {
        let (address, holder) = match viewer {
            Viewer::Holder(holder) => (self.live.proxies.client(peer, head), holder),
            // Who looks after the server is none of those it is for.
            Viewer::Operator => return,
        };
        let what = || What::Read { door: "topics", names: vec![topic.into()] };
        self.context.shared.audit.note(|| Event { ts: self.edge.wall_us(), conn: 0, address, holder, what: what() });
    }

    /// Whether somebody may see a topic's last value, be there one or not.
    fn may_look_at(&self, holder: &Holder, topic: &str) -> Result<(), Refusal> {
        let standing = self.live.access.now(holder, self.edge.wall_us());
        if !standing.may_subscribe(topic) {
            return Err(insufficient(holder, format!("{topic}: you may not look at that.")));
        }
        // Whoever is bounded by a rate has to subscribe, or could ask again and again.
        let may = standing.check([topic], Mode::Latest, None);
        may.map_err(|beyond| insufficient(holder, format!("You may not look at that: {beyond}.")))
    }

    fn check_topic(&self, topic: &str) -> Result<(), Refusal> {
        Topic::check(topic, self.live.topic_length_max)
            .map_err(|error| Refusal::new(400, format!("Not a topic: {error}.")))
    }

    /// The publication, or the publications, that a request begins.
    fn upload(&self, head: &Request<'_>, holder: Holder, topic: Option<&str>) -> Result<Outcome, Refusal> {
        self.takes_publications()?;
        let message_max = self.live.message_max;
        let upload = match topic {
            Some(topic) => Upload::one(head, holder, topic, message_max),
            None => Upload::lines(head, holder, message_max, self.context.settings.body_max),
        };
        upload.map(|upload| Outcome::Upload(Box::new(upload)))
    }
}

/// Somebody's rights don't cover what is asked for: who has shown nothing is to show something (401).
fn insufficient(holder: &Holder, text: impl Into<Cow<'static, str>>) -> Refusal {
    match holder.known() {
        // RFC 6750 section 3.1.
        Some(_) => Refusal::new(403, text)
            .with(&[("WWW-Authenticate", "Bearer realm=\"stentor\", error=\"insufficient_scope\"")]),
        None => Refusal::new(401, text).with(&[("WWW-Authenticate", "Bearer realm=\"stentor\"")]),
    }
}

/// Whether a connection came where there is nothing for foreign pages.
fn is_apart(by: Listener) -> bool {
    matches!(by, Listener::Admin | Listener::Acme)
}

fn nothing_here() -> Refusal {
    Refusal::new(404, "There is nothing at this path.")
}

/// Refuses what is not only looked at.
pub(super) fn look(head: &Request<'_>) -> Result<(), Refusal> {
    only(head, LOOK)
}

/// Refuses every method but those.
fn only(
    head: &Request<'_>,
    (methods, allow): (&[&str], &'static [(&'static str, &'static str)]),
) -> Result<(), Refusal> {
    if methods.contains(&head.method) {
        return Ok(());
    }
    Err(Refusal::new(405, format!("The method here is {}.", methods.join(" or "))).with(allow))
}
