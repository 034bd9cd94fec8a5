//! What connections may, for as long as they last: tokens judged, rights that end or become less, and who is connected too often.
//!
//! A token is judged when it is shown, before anything else is done for its connection. After that everything that is asked for is held against
//! the rules of the moment. But a subscription goes on by itself; so whoever has one is looked at again
//!
//! - when its moment has come, which its timer knows: its token expires (it is told a while before), or it has shown nothing for too long;
//! - after the rules have changed, or somebody was revoked: all connections are gone through, as many as a turn has room for, from the
//!   first again whenever something has changed meanwhile. Who was judged while somebody was revoked in another thread is among them;
//! - when its holder has connected somewhere else, and it was the oldest.
//!
//! Rights that have become less end the names that they don't cover any more, at the connection's own cursor (`cursors/narrow.rs`): what it
//! has not had yet of those it never gets. It is told, name by name. Where what is on its way can't be told apart by names, the connection
//! ends, and without another word where even that would have to wait behind something that it may not have any more. (What was given
//! to the kernel, or was encrypted for it, is out of the worker's hands.)
//!
//! What one can make the others pay: a signature costs as much as [`price::TOKEN`], is charged to the step, and counts for its address
//! (`--max-tokens-per-ip`) and, on a WebSocket that is open, for that (`--max-auths`); a look at all connections is a few hundred nanoseconds
//! for each, and as much again for each name, in pieces.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use rustc_hash::FxHashMap;

use super::{
    super::{
        connection::{Connection, Phase},
        cursor::Cursor,
        fan::{
            delivery::Delivery,
            interest::{CohortKey, NameId},
        },
        work::price,
    },
    Clerk,
    asking::Job,
    closing::Farewell,
    collect::Refused,
    poll::Waiting,
};
use crate::{
    access::{Beyond, Ended, Holder, Key, Shown, Source, Standing, patterns::touch, shown_token},
    audit::What,
    clock::Moment,
    http::{self, Request},
    io::{Edge, Token},
    limits::{Quota, Spent},
    log::{Kind, tell},
    metrics::{Loss, Refusal},
    protocol::{ErrorCode, Id, Mode, Reply, Sub, reply::Who},
    shared::{Holders, Seat},
    websocket::CloseCode,
};

/// How long before its token expires a client is told.
const TOLD_BEFORE: Duration = Duration::from_secs(60);

/// The wall clock may be set while a connection waits for its token to expire: it is looked at at least so often.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// So many pairs of names are compared when rights become less, at most: 64 that end with 64 that stay. Who has more, in several ways of being delivered,
/// subscribes again.
const PAIRS_MAX: usize = 4096;

/// What holding a name against rights costs: some branches of a tree, and its bounds.
pub const RIGHT: u64 = 6 * price::MATCH;

/// What goes with 401, as RFC 9110 section 11.6.1 demands.
const CHALLENGE: &[(&str, &str)] = &[("WWW-Authenticate", "Bearer realm=\"stentor\"")];

/// Which rules there are, and which revocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    rules: u64,
    revoked: u64,
}

/// What has changed, and who is still to be looked at for that.
#[derive(Debug, Default)]
pub struct Rights {
    /// What rules and revocations were as of the last look at everybody that has begun.
    seen: Option<Version>,
    /// Connections below this one were looked at; none if all were.
    next: Option<Token>,
    /// The rules were among what has changed, and not only who is revoked.
    rules_changed: bool,
    /// Those that have lost their seats.
    lost: VecDeque<Seat>,
    /// Connections that have shown tokens lately whose signatures had to be verified, by their numbers.
    auths: Auths,
}

/// How many tokens were shown by connections that are open. Few show any, so that each has a place only as long as that counts.
#[derive(Debug, Default)]
struct Auths {
    spent: FxHashMap<u64, Spent>,
    /// When there are so many, those that don't count any more are forgotten.
    most: usize,
}

impl Auths {
    /// Counts one of a connection, unless it would be one too many; returns whether it may be.
    fn allow(&mut self, connection: u64, quota: Quota, now: Moment) -> bool {
        if quota.is_none() {
            return true;
        }
        if self.spent.len() >= self.most {
            self.spent.retain(|_, spent| !spent.is_over(now));
            self.most = (2 * self.spent.len()).max(64);
        }
        quota.allows(self.spent.entry(connection).or_default(), now)
    }
}

impl Rights {
    /// Whether somebody is still to be looked at.
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.next.is_some() || !self.lost.is_empty()
    }
}

/// A token that was shown, judged.
pub enum Judged {
    /// It is this one's; or nothing was shown.
    Good(Holder),
    /// It isn't the right one, and why.
    Wrong(String),
    /// Too many are shown from that address.
    TooMany(String),
}

impl<E: Edge> Clerk<'_, E> {
    /// What a connection may at this moment.
    pub fn standing<'c>(&'c self, connection: &'c Connection<E::Socket>) -> Standing<'c> {
        self.ground.settings.access.now(&connection.holder, self.ground.edge.wall_us())
    }

    /// Whether a connection may publish on this topic, whose name may be none.
    pub fn may_publish(&self, token: Token, topic: &str) -> bool {
        self.connections.get(token).is_some_and(|connection| self.standing(connection).may_publish(topic))
    }

    /// Whether a connection has shown whose it is.
    pub fn has_name(&self, token: Token) -> bool {
        self.connections.get(token).is_some_and(|connection| connection.holder.known().is_some())
    }

    /// Judges what a connection shows, whose holder it isn't yet.
    fn judge(&mut self, token: Token, shown: Option<&Shown<'_>>) -> Judged {
        let Some(shown) = shown else { return Judged::Good(self.certified(token)) };
        if let Err(why) = self.may_show(token, shown) {
            return Judged::TooMany(why);
        }
        let judged = self.ground.settings.access.holder(Some(shown), self.ground.edge.wall_us());
        self.note_judged(token, judged.as_ref().err().map(|wrong| wrong as &dyn std::fmt::Display));
        judged.map_or_else(|wrong| Judged::Wrong(wrong.to_string()), Judged::Good)
    }

    /// Who a connection is of, by the certificate that its client has shown; nobody's without.
    fn certified(&self, token: Token) -> Holder {
        let certified = self.connections.get(token).and_then(|it| self.ground.edge.certified(&it.socket));
        self.ground.settings.access.certified(certified)
    }

    /// Counts a token whose signature is to be verified.
    ///
    /// # Errors
    /// In words: it is one too many.
    fn may_show(&mut self, token: Token, shown: &Shown<'_>) -> Result<(), String> {
        if !self.ground.settings.access.needs_signature(shown) {
            return Ok(());
        }
        let (own, quota, now) = (self.ground.settings.auths, self.ground.settings.tokens_per_address, self.ground.now);
        let Some(connection) = self.connections.get(token) else { return Ok(()) };
        // Of a request nobody knows whose others come on its connection: a proxy has one for many.
        if connection.phase == Phase::Open && !self.desk.rights.auths.allow(connection.id, own, now) {
            return Err(format!("too many tokens on this connection: --max-auths allows {}", own.limit()));
        }
        let account = connection.permit.account();
        if account.is_none_or(|account| quota.allows_shared(&account.tokens, now)) {
            self.ground.work.charge(price::TOKEN);
            return Ok(());
        }
        Err(format!("too many tokens from your address: --max-tokens-per-ip allows {}", quota.limit()))
    }

    fn note_judged(&self, token: Token, wrong: Option<&dyn std::fmt::Display>) {
        self.ground.shared.metrics.tokens[usize::from(wrong.is_some())].bump();
        if let Some(wrong) = wrong {
            self.note_wrong(token, wrong);
        }
    }

    fn note_wrong(&self, token: Token, wrong: &dyn std::fmt::Display) {
        let Some(connection) = self.connections.get(token) else { return };
        tell!(
            self.ground.shared.log,
            Kind::WrongToken,
            self.ground.now,
            WARN,
            { conn = connection.name(), peer = %connection.peer, why = %wrong },
            "a wrong token was shown"
        );
    }

    /// Who opens a WebSocket; or, in words for it, why what it shows is not the right token.
    ///
    /// # Errors
    /// 400 for several tokens, 429 for too many.
    pub fn opener_of(&mut self, token: Token, head: &Request<'_>) -> Result<Result<Holder, String>, http::Refusal> {
        self.is_of(token, Holder::Anonymous);
        let shown = shown_token(head)?;
        match self.judge(token, shown.as_ref()) {
            Judged::Good(holder) => {
                self.is_of(token, holder.clone());
                Ok(Ok(holder))
            }
            Judged::Wrong(why) => {
                self.ground.shared.metrics.refuse(Refusal::Forbidden);
                Ok(Err(why))
            }
            Judged::TooMany(why) => Err(too_many(&why)),
        }
    }

    /// Who asks for something over plain HTTP that a worker answers.
    ///
    /// # Errors
    /// 403 for a page that may not connect, 401 for a wrong token, 400 for several, 429 for too many.
    pub fn reader_of(&mut self, token: Token, head: &Request<'_>) -> Result<Holder, http::Refusal> {
        self.is_of(token, Holder::Anonymous);
        self.ground.settings.access.check_page(head)?;
        let shown = shown_token(head)?;
        if let Some(shown) = &shown {
            self.may_show(token, shown).map_err(|why| too_many(&why))?;
        }
        let of = self.certified(token);
        let judged = self.ground.settings.access.sender_or(head, of, self.ground.edge.wall_us());
        if shown.is_some() {
            let wrong = judged.as_ref().err().map(|refusal| &refusal.message as &dyn std::fmt::Display);
            self.note_judged(token, wrong);
        }
        judged.iter().for_each(|holder| self.is_of(token, holder.clone()));
        judged
    }

    /// A request is somebody's: what is said of it, such as that it is refused, is said of whoever has sent it, and not of whoever has sent
    /// the one before on that connection.
    fn is_of(&mut self, token: Token, holder: Holder) {
        self.connections.get_mut(token).into_iter().for_each(|connection| connection.holder = holder.clone());
    }

    /// Whether the rights of a connection's holder haven't ended, by time or otherwise.
    pub fn has_not_ended(&self, token: Token) -> bool {
        self.connections.get(token).is_some_and(|connection| self.standing(connection).ended().is_none())
    }

    /// Which rules and revocations there are now.
    pub fn version(&self) -> Version {
        let access = &self.ground.settings.access;
        Version { rules: access.version(), revoked: access.revoked().generation() }
    }

    /// Whether a connection's holder may have these names, in this way.
    ///
    /// # Errors
    /// The first that isn't covered, and what would be.
    pub fn check_rights<'n>(
        &self,
        token: Token,
        names: impl IntoIterator<Item = &'n str>,
        (mode, rate): (Mode, Option<f64>),
    ) -> Result<(), Refused> {
        let gone = || (ErrorCode::ServerFull, "the connection has ended".to_owned());
        let connection = self.connections.get(token).ok_or_else(gone)?;
        self.standing(connection).check(names, mode, rate).map_err(|it| (ErrorCode::Forbidden, it.to_string()))
    }

    /// Tells a client that a subscription isn't made, and which of its names its rights don't cover: the others can be asked for. There are none of
    /// them where it is mode or rate.
    pub fn tell_uncovered(&mut self, token: Token, id: Option<Id<'_>>, names: &[Arc<str>], message: &str) {
        let Some(connection) = self.connections.get(token) else { return };
        let standing = self.standing(connection);
        let topics: Vec<&str> = names.iter().map(|name| &**name).filter(|name| !standing.may_subscribe(name)).collect();
        self.ground.work.charge(names.len() as u64 * RIGHT);
        if topics.is_empty() {
            return self.error(token, id, ErrorCode::Forbidden, message);
        }
        self.note_refusal(token, ErrorCode::Forbidden.as_str(), message);
        self.reply(token, &Reply::Uncovered { id, topics: &topics, message });
    }

    /// The same of a request, before anything is done for it: who is nobody is to show something (401), and whoever is somebody may not (403).
    pub fn check_request_rights<'n>(
        &self,
        holder: &Holder,
        names: impl IntoIterator<Item = &'n str>,
        (mode, rate): (Mode, Option<f64>),
    ) -> Result<(), http::Refusal> {
        let standing = self.ground.settings.access.now(holder, self.ground.edge.wall_us());
        standing.check(names, mode, rate).map_err(|beyond| refusal(holder, standing, &beyond.to_string()))
    }

    /// What a request is told that is refused with this code while it is answered.
    pub fn refusal_of(&self, token: Token, code: ErrorCode, message: &str) -> http::Refusal {
        match code {
            ErrorCode::Forbidden => match self.connections.get(token) {
                Some(connection) => refusal(&connection.holder, self.standing(connection), message),
                None => forbidden(false, message),
            },
            code => http::Refusal::new(code.status(), format!("Refused: {message}.")),
        }
    }

    /// What a holder may do with a topic: see it, in this way, and publish on it.
    pub fn rights_on(&self, holder: &Holder, topic: &str, sub: &Sub<'_>) -> (Result<(), Beyond>, bool) {
        let standing = self.ground.settings.access.now(holder, self.ground.edge.wall_us());
        (standing.check([topic], sub.mode, sub.rate), standing.may_publish(topic))
    }

    /// Who a connection is, as its client is told.
    pub fn who(holder: &Holder) -> Option<Who<'_>> {
        holder.known().map(|known| Who { sub: &known.key.name, exp: known.expires })
    }

    /// A connection counts as one of its holder's from now on, where there may be only so many.
    pub fn sit(&mut self, token: Token) {
        self.take_seat(token, Holders::sit, self.ground.now);
    }

    fn take_seat(&mut self, token: Token, take: fn(&Holders, &Arc<Key>, Seat, usize) -> bool, since: Moment) {
        let Some(connection) = self.connections.get(token) else { return };
        let Some(key) = connection.holder.key() else { return };
        let Some(most) = self.standing(connection).conns() else { return };
        let seat = Seat { worker: self.ground.index, token, id: connection.id, since };
        if take(&self.ground.shared.holders, key, seat, most as usize) {
            self.ground.shared.publisher.wake_all();
        }
    }

    /// A connection counts as one of its holder's no longer, if it did.
    pub fn rise(&self, token: Token) {
        let Some(connection) = self.connections.get(token) else { return };
        if let Some(key) = connection.holder.key() {
            self.ground.shared.holders.rise(key, connection.id);
        }
    }

    /// `auth`: somebody shows a token on a connection, in the place of what it has shown before.
    pub fn authenticate(&mut self, token: Token, id: Option<Id<'_>>, text: &str) {
        let shown = Shown::new(text);
        let holder = match self.judge(token, Some(&shown)) {
            Judged::Good(holder) => holder,
            Judged::Wrong(why) => {
                self.ground.shared.metrics.refuse(Refusal::Forbidden);
                return self.refuse_token(token, id, (ErrorCode::Unauthorized, &why));
            }
            Judged::TooMany(why) => {
                self.ground.shared.metrics.refuse(Refusal::TokensLimited);
                return self.refuse_token(token, id, (ErrorCode::RateLimited, &why));
            }
        };
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.holder.has_shown() && !connection.holder.is_same(&holder) {
            let why = "the token is another holder's than the one before: open another connection for it";
            self.ground.shared.metrics.refuse(Refusal::Forbidden);
            return self.refuse_token(token, id, (ErrorCode::Unauthorized, why));
        }
        // Whoever has shown the same token again, or one that lasts no longer, was told already: else it would be told as often as it answers.
        connection.told_expiring &= lasts_until(&holder) <= lasts_until(&connection.holder);
        connection.holder = holder.clone();
        self.note(token, |_| What::Auth);
        self.reply(token, &Reply::Authenticated { id, holder: Self::who(&holder) });
        self.sit(token);
        self.narrow(token);
        if !self.see_to_rights(token) {
            self.set_timer(token);
        }
    }

    fn refuse_token(&mut self, token: Token, id: Option<Id<'_>>, (code, why): (ErrorCode, &str)) {
        self.error(token, id, code, why);
        // Told already, with the command's id.
        self.close(token, Farewell { error: None, ..Farewell::after(code, why) });
    }

    /// When it is to be looked at a connection because of its rights.
    pub fn rights_due(&self, connection: &Connection<E::Socket>) -> Moment {
        let standing = self.standing(connection);
        let is_open = connection.phase == Phase::Open;
        if is_open && !standing.subscribes() && !standing.publishes() {
            return connection.since + self.ground.settings.auth_timeout;
        }
        let Some(until) = standing.until_us() else { return Moment::NEVER };
        let told_at = (is_open && !connection.told_expiring).then(|| told_at_us(&connection.holder)).flatten();
        let due = told_at.map_or(until, |told_at| told_at.min(until));
        let after = Duration::from_micros(due.saturating_sub(self.ground.edge.wall_us()));
        // A microsecond more, so that it has passed then.
        self.ground.now + (after + Duration::from_micros(1)).min(LOOK_EVERY)
    }

    /// The timer of a connection has come: it ends if its rights have, and it is told if they soon will. Returns whether it has ended.
    pub fn see_to_rights(&mut self, token: Token) -> bool {
        let Some(connection) = self.connections.get(token) else { return true };
        let standing = self.standing(connection);
        if let Some(why) = standing.ended() {
            self.end_holder(token, why);
            return true;
        }
        if connection.phase != Phase::Open {
            return false;
        }
        if !standing.subscribes() && !standing.publishes() {
            let timeout = self.ground.settings.auth_timeout;
            if self.ground.now < connection.since + timeout {
                return false;
            }
            let reason = format!("nothing was shown that gives any right within --auth-timeout {timeout:?}");
            self.end_for(token, Loss::Nothing, ErrorCode::Unauthorized, &reason);
            return true;
        }
        let (wall, expires) = (self.ground.edge.wall_us(), connection.holder.known().and_then(|known| known.expires));
        let is_due = told_at_us(&connection.holder).is_some_and(|at| wall >= at);
        if let Some(expires) = expires.filter(|_| is_due && !connection.told_expiring) {
            if let Some(connection) = self.connections.get_mut(token) {
                connection.told_expiring = true;
            }
            // Rounded up: a token that still lasts for a moment isn't told to have expired.
            let within = expires.saturating_sub(wall / 1_000_000);
            self.reply(token, &Reply::Expiring { within });
        }
        false
    }

    fn end_holder(&mut self, token: Token, why: Ended) {
        let (loss, code) = match why {
            Ended::Revoked => (Loss::Revoked, ErrorCode::Revoked),
            Ended::Expired => (Loss::Expired, ErrorCode::Unauthorized),
            Ended::Withdrawn => (Loss::Expired, ErrorCode::Unauthorized),
        };
        self.end_for(token, loss, code, &why.to_string());
    }

    /// Ends a connection for its rights: nothing more of what it was to be sent goes out.
    fn end_for(&mut self, token: Token, loss: Loss, code: ErrorCode, reason: &str) {
        let Some(connection) = self.connections.get(token) else { return };
        match connection.phase {
            Phase::Open => {
                self.ground.shared.metrics.lose(loss, 1);
                if self.cursors.is_between(token, connection) {
                    self.close(token, Farewell::after(code, reason));
                } else {
                    self.cut(token, reason);
                }
            }
            phase if phase.is_answering() => {
                self.ground.shared.metrics.lose(loss, 1);
                let text = format!("{}.", sentence(reason));
                self.refuse_answering(token, &http::Refusal::new(code.status(), text));
            }
            _ => {}
        }
    }

    /// Refuses a request of which the answer isn't sent yet; if some of it may have been, the connection is cut.
    fn refuse_answering(&mut self, token: Token, refusal: &http::Refusal) {
        if let Some(poll) = self.desk.exchanges.wake(token) {
            self.fan.part(self.connections, token);
            return self.refuse_exchange(token, poll.terms(), refusal);
        }
        match self.take_job(token) {
            Some(Job::Poll(poll)) => self.refuse_exchange(token, poll.terms(), refusal),
            Some(Job::History(history)) => {
                self.let_go_of_tape();
                self.refuse_exchange(token, history.terms(), refusal);
            }
            Some(Job::Pack(pack)) => self.refuse_exchange(token, pack.terms(), refusal),
            Some(Job::Sub(mut collect)) => {
                let names = self.give_up(token, &mut collect);
                self.part_with(token, names);
                match collect.poll {
                    Some(poll) => self.refuse_exchange(token, poll.terms(), refusal),
                    None => self.cut(token, &refusal.message),
                }
            }
            Some(Job::Uncount(names)) => {
                self.part_with(token, names);
                self.cut(token, &refusal.message);
            }
            None => self.cut(token, &refusal.message),
        }
    }

    /// Sees to those who have lost their seats, and to everybody where rules have changed or somebody was revoked, as far as a turn allows.
    pub fn see_to_holders(&mut self) {
        let version = self.version();
        if self.desk.rights.seen.as_ref() != Some(&version) {
            let rights = &mut self.desk.rights;
            let rules_changed = rights.seen.is_some_and(|seen| seen.rules != version.rules);
            rights.rules_changed = rules_changed || (rights.rules_changed && rights.next.is_some());
            // Nobody can be there before the first look.
            rights.next = rights.seen.is_some().then_some(0);
            rights.seen = Some(version);
        }
        if self.ground.shared.holders.has_lost(self.ground.index) {
            let lost = self.ground.shared.holders.lost(self.ground.index);
            self.desk.rights.lost.extend(lost);
        }
        if !self.desk.rights.is_busy() {
            return;
        }
        let rest = self.spare() / 2;
        while self.spare() > rest
            && let Some(seat) = self.desk.rights.lost.pop_front()
        {
            self.ground.work.charge(price::LOOK);
            if self.connections.get(seat.token).is_some_and(|connection| connection.id == seat.id) {
                let reason = "the same holder has connected again, as often as it may at once";
                self.end_for(seat.token, Loss::Replaced, ErrorCode::Replaced, reason);
            }
        }
        while self.spare() > rest
            && let Some(token) = self.desk.rights.next
        {
            self.desk.rights.next = Some(token + 1).filter(|next| *next < self.connections.end());
            self.ground.work.charge(price::LOOK);
            self.judge_again(token);
        }
        if self.desk.rights.is_busy() {
            self.ground.work.put_off();
        } else {
            self.desk.rights.rules_changed = false;
        }
    }

    /// Looks at one connection after something has changed.
    fn judge_again(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token) else { return };
        let (phase, since) = (connection.phase, connection.since);
        if phase != Phase::Open && !phase.is_answering() {
            return;
        }
        self.ground.work.charge(price::MATCH);
        self.ground.shared.metrics.rights_judged.bump();
        if let Some(why) = self.standing(connection).ended() {
            return self.end_holder(token, why);
        }
        if !self.desk.rights.rules_changed {
            return;
        }
        let renewed = self.ground.settings.access.renewed(&connection.holder, self.ground.edge.wall_us());
        self.connections.get_mut(token).into_iter().for_each(|connection| connection.holder = renewed.clone());
        if phase == Phase::Open {
            // It may have fewer connections now.
            self.take_seat(token, Holders::stay, since);
            self.narrow(token);
            if !self.see_to_rights(token) {
                self.set_timer(token);
            }
        } else if !self.has_all(token) {
            self.judge_answering(token);
        }
    }

    /// Whether a connection's holder may see everything.
    fn has_all(&self, token: Token) -> bool {
        self.check_rights(token, [">"], (Mode::All, None)).is_ok()
    }

    /// A request is being answered whose holder may have lost rights.
    fn judge_answering(&mut self, token: Token) {
        let names: Vec<Arc<str>> = match self.job_of(token) {
            Some(Job::History(history)) => vec![history.topic()],
            // What waits to be made is held against the rules then.
            Some(Job::Sub(_)) => return,
            _ => self.names_of(token).iter().map(|(name, _)| Arc::clone(self.fan.interest.text(*name))).collect(),
        };
        self.ground.work.charge(names.len() as u64 * RIGHT);
        let how = (self.poll_mode(token), None);
        let refused = self.check_rights(token, names.iter().map(|name| &**name), how).err();
        let refusal = match refused {
            Some((code, message)) => self.refusal_of(token, code, &message),
            // Of what is on its way nobody knows the names any more.
            None if names.is_empty() => http::Refusal::new(401, "The rights have changed: ask again."),
            None => return,
        };
        self.ground.shared.metrics.lose(Loss::Narrowed, 1);
        self.refuse_answering(token, &refusal);
    }

    /// In which way a poll is told; where there is none, as history is.
    fn poll_mode(&self, token: Token) -> Mode {
        let waiting = self.desk.exchanges.waits(token).map(Waiting::is_latest);
        let is_latest = waiting.or_else(|| match self.job_of(token) {
            Some(Job::Poll(poll)) => Some(poll.is_latest()),
            _ => None,
        });
        if is_latest == Some(true) { Mode::Latest } else { Mode::All }
    }

    /// Ends those names of an open connection that its rights don't cover any more, at its own cursor.
    fn narrow(&mut self, token: Token) {
        let names = self.names_of(token);
        if names.is_empty() {
            return;
        }
        self.ground.work.charge(names.len() as u64 * RIGHT);
        let Some(connection) = self.connections.get(token) else { return };
        let (lane, packed, echo) = (connection.lane, connection.packing(), connection.echo);
        let (id, older) = (connection.id, connection.cohort);
        let standing = self.standing(connection);
        let is_covered = |(name, delivery): &(NameId, Delivery)| {
            let text = self.fan.interest.text(*name);
            let (mode, rate) = asked(*delivery);
            standing.check([&**text], mode, rate).is_ok()
        };
        let (kept, ended): (Vec<_>, Vec<_>) = names.into_iter().partition(is_covered);
        let Some(older) = older.filter(|_| !ended.is_empty()) else { return };
        // Else a topic of several names may be delivered in another way from here on, and be sent again what it was.
        let (kept_texts, ended_texts) = (self.texts(&kept), self.texts(&ended));
        let (is_apart, looks) = are_apart(&kept_texts, &ended_texts);
        self.ground.work.charge(looks * price::LOOK);
        if !is_apart {
            return self.end_narrowed(token);
        }
        let except = if echo { 0 } else { id };
        // Joining comes first: the older cohort's end must not take the names along that both have.
        let position = self.fan.position();
        let key = CohortKey { lane, packed, names: kept.into(), except, polls: false };
        let joined = (!key.names.is_empty()).then(|| self.fan.interest.join(key, position));
        if !self.can_narrow(token, joined) {
            joined.into_iter().for_each(|joined| self.part_with_cohort(joined));
            return self.end_narrowed(token);
        }
        let texts: Vec<Arc<str>> = ended_texts.into_iter().map(|(text, _)| text).collect();
        let Clerk { ground, connections, fan, cursors, .. } = self;
        let (position, owed) = fan.part(connections, token);
        let Some(connection) = connections.get_mut(token) else { return };
        if connection.cursor == Cursor::None {
            cursors.begin(ground, &mut fan.interest, connection, token, position).owe(owed);
        }
        connection.cohort = joined;
        connection.note_shares(false);
        let looks = cursors.narrow(&mut fan.interest, (token, &*connection), older);
        ground.work.charge(looks as u64 * price::MATCH);
        cursors.list(token, connection);
        self.part_with_cohort(older);
        self.drop_sub(token);
        self.ground.shared.metrics.lose(Loss::Names, texts.len());
        self.note_names(token, &texts, |names| What::Unsubscribe { names });
        for name in &texts {
            let message = format!("{name}: your rights don't cover that any more, and the subscription has ended");
            self.reply(token, &Reply::Ended { topic: name, message: &message });
        }
        self.part_with(token, texts);
        self.end_raw(token);
    }

    fn texts(&self, names: &[(NameId, Delivery)]) -> Vec<(Arc<str>, Delivery)> {
        names.iter().map(|(name, delivery)| (Arc::clone(self.fan.interest.text(*name)), *delivery)).collect()
    }

    fn can_narrow(&mut self, token: Token, narrower: Option<super::super::connection::CohortId>) -> bool {
        let Clerk { ground, connections, fan, cursors, .. } = self;
        let Some(connection) = connections.get(token) else { return false };
        cursors.can_narrow((&ground.tape, &ground.reader), &mut fan.interest, (token, connection), narrower)
    }

    /// Where nothing can be told, whoever may neither see nor say anything is sent away.
    fn end_raw(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token).filter(|it| !it.lane.words().tells()) else { return };
        let topic = connection.topic.as_deref().cloned().unwrap_or_default();
        if connection.cohort.is_none() && !self.may_publish(token, &topic) {
            let reason = format!("{topic}: your rights don't cover that any more");
            self.end_for(token, Loss::Narrowed, ErrorCode::Unauthorized, &reason);
        }
    }

    /// Rights have become less, and what is on its way can't be told apart.
    fn end_narrowed(&mut self, token: Token) {
        self.ground.shared.metrics.lose(Loss::Narrowed, 1);
        let reason = "your rights have become less: come back, and subscribe again to what they cover";
        let Some(connection) = self.connections.get(token) else { return };
        if self.cursors.is_between(token, connection) {
            self.close(token, Farewell { code: Some(CloseCode::TRY_AGAIN_LATER), reason, error: None });
        } else {
            self.cut(token, reason);
        }
    }

    /// A subscription that is on its way is refused, since it counts on names that have ended.
    fn drop_sub(&mut self, token: Token) {
        if !matches!(self.job_of(token), Some(Job::Sub(_))) {
            return;
        }
        let Some(Job::Sub(mut collect)) = self.take_job(token) else { return };
        let names = self.give_up(token, &mut collect);
        self.part_with(token, names);
        let id = collect.id.as_deref().map(Id::again);
        let message = "your rights have become less meanwhile: subscribe again to what they cover";
        self.error(token, id, ErrorCode::Forbidden, message);
    }
}

/// How a name is delivered, as it is held against rights.
pub fn asked(delivery: Delivery) -> (Mode, Option<f64>) {
    (delivery.mode(), delivery.rate().map(|rate| rate.per_second()))
}

/// Whether no topic can go over from one way of being delivered to another when some names end: none of those that are delivered in another way than a
/// name that is kept has a topic in common with it. Returns how many pairs of names were compared for that, too: of more than
/// [`PAIRS_MAX`] it isn't known, and taken to be so.
fn are_apart(kept: &[(Arc<str>, Delivery)], ended: &[(Arc<str>, Delivery)]) -> (bool, u64) {
    let (Some((_, first)), false) = (kept.first(), ended.is_empty()) else { return (true, 0) };
    if kept.iter().chain(ended).all(|(_, delivery)| delivery == first) {
        return (true, 0);
    }
    if kept.len().saturating_mul(ended.len()) > PAIRS_MAX {
        return (false, 0);
    }
    let is_apart =
        |(one, how): &(Arc<str>, Delivery)| kept.iter().all(|(other, delivery)| delivery == how || !touch(one, other));
    (ended.iter().all(is_apart), (kept.len() * ended.len()) as u64)
}

/// When what somebody has shown expires, in seconds since the Unix epoch: at no time, if that isn't said.
fn lasts_until(holder: &Holder) -> u64 {
    holder.known().and_then(|known| known.expires).unwrap_or(u64::MAX)
}

/// When a client is to be told that its token expires, in microseconds since the Unix epoch; never of what can't be shown anew.
fn told_at_us(holder: &Holder) -> Option<u64> {
    let known = holder.known().filter(|known| known.key.source != Source::Certificate)?;
    Some(known.expires?.saturating_mul(1_000_000).saturating_sub(TOLD_BEFORE.as_micros() as u64))
}

/// What goes with 403 for somebody whose token is good and doesn't cover what is asked for (RFC 6750 section 3.1).
pub const INSUFFICIENT: &[(&str, &str)] =
    &[("WWW-Authenticate", "Bearer realm=\"stentor\", error=\"insufficient_scope\"")];

/// What somebody is told who may not have something over plain HTTP.
fn forbidden(is_known: bool, why: &str) -> http::Refusal {
    let text = format!("{}.", sentence(why));
    match is_known {
        true => http::Refusal::new(403, text).with(INSUFFICIENT),
        false => http::Refusal::new(401, text).with(CHALLENGE),
    }
}

/// The same, of whoever it is: whose rights have ended since it was judged has to show something else, and not to ask for something else.
fn refusal(holder: &Holder, standing: Standing<'_>, why: &str) -> http::Refusal {
    match standing.ended() {
        Some(ended) => forbidden(false, &ended.to_string()),
        None => forbidden(holder.known().is_some(), why),
    }
}

/// What goes with 429 for tokens.
pub const TOKENS_LATER: &[(&str, &str)] = &[("Retry-After", "2")];

fn too_many(why: &str) -> http::Refusal {
    http::Refusal::new(429, format!("{}.", sentence(why))).with(TOKENS_LATER)
}

/// With a capital letter, unless it begins with a name.
fn sentence(why: &str) -> String {
    let mut chars = why.chars();
    match chars.next() {
        Some(first) if !why.split(' ').next().unwrap_or_default().ends_with(':') => {
            first.to_uppercase().chain(chars).collect()
        }
        _ => why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use super::*;
    use crate::worker::fan::delivery::Rate;

    fn names(all: &[&str], delivery: Delivery) -> Vec<(Arc<str>, Delivery)> {
        all.iter().map(|name| (Arc::from(*name), delivery)).collect()
    }

    #[test]
    fn names_end_by_themselves_unless_a_topic_would_be_delivered_in_another_way_from_there_on() {
        let paced = Delivery::Paced(Reverse(Rate::new(4.0)));
        for (kept, ended, expected) in [
            (names(&["q.us.*"], Delivery::Latest), names(&["t.>"], Delivery::All), true),
            (names(&["q.us.*"], Delivery::Latest), names(&["q.*.A"], Delivery::All), false),
            (names(&["q.us.*"], Delivery::Latest), names(&["q.*.A"], Delivery::Latest), true),
            (names(&["q.us.A"], paced), names(&[">"], Delivery::Latest), false),
            (names(&["q.us.A"], paced), names(&["q.us.B", "q.us"], Delivery::All), true),
            (names(&[], paced), names(&["q.us.B"], Delivery::All), true),
        ] {
            assert_eq!(are_apart(&kept, &ended).0, expected, "{kept:?}, {ended:?}");
        }
    }

    #[test]
    fn whoever_showed_a_token_long_ago_takes_no_room() {
        let (mut auths, quota) = (Auths::default(), Quota::new("2/s".parse().unwrap()));
        for n in 0..10_000 {
            // Ten a second, of which each counts for half of one.
            assert!(auths.allow(n, quota, Moment(n * 100_000_000)));
            assert!(auths.spent.len() <= 64, "{n}");
        }
        let tries = (0..10).filter(|_| auths.allow(7, quota, Moment(u64::MAX / 2))).count();
        assert_eq!(tries, 4, "two seconds' worth");
    }

    #[test]
    fn more_pairs_of_names_than_are_compared_are_taken_to_be_in_each_others_way() {
        let many: Vec<String> = (0..64).map(|n| format!("a.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (kept, mut ended) = (names(&many, Delivery::All), names(&many, Delivery::Latest));
        ended.iter_mut().for_each(|(name, _)| *name = format!("b.{name}").into());
        assert_eq!(are_apart(&kept, &ended), (true, 4096));
        ended.push(("c".into(), Delivery::Latest));
        assert_eq!(are_apart(&kept, &ended), (false, 0));
    }
}
