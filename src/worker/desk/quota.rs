//! How often clients may ask and publish: each connection by itself, and all of one address together.
//!
//! Quotas belong to the address first (`--max-commands-per-ip`, `--max-publications-per-ip`): they are kept in its account, so
//! whoever comes back has what was left. A connection has a smaller one within that (`--max-commands`,
//! `--max-publications`), so that one of many behind an address is stopped before it has used up what is the others'.
//!
//! A publication counts once for each KiB that it begins, so that the quota bounds what the tape takes. Frames that bring next to
//! nothing of a message count as commands: they are as much work.
//!
//! Whoever goes beyond is told (`error`, code `rate_limited`) and closed with 4003. Whoever subscribes by connecting
//! (`/ws?topics=`, `/raw`, `/sse`) has asked, too, and is told 429 instead.

use std::sync::Arc;

use super::{super::work::price, Clerk, closing::Farewell};
use crate::{
    http,
    io::{Edge, Token},
    limits::{self, Account, Quota},
    metrics::Refusal,
    protocol::ErrorCode,
};

/// What goes with a refusal that time will mend.
pub const LATER: &[(&str, &str)] = &[("Retry-After", "1")];

impl<E: Edge> Clerk<'_, E> {
    /// Counts a command or a ping; closes the connection and returns false if it is one too many.
    pub fn may_ask(&mut self, token: Token) -> bool {
        if !self.may_be_heard(token) {
            return false;
        }
        self.ground.work.charge(price::COMMAND);
        let (quota, now) = (self.ground.settings.commands_per_address, self.ground.now);
        let Some(connection) = self.connections.get(token) else { return false };
        let account = connection.permit.account();
        let is_within = account.is_none_or(|account| quota.allows_shared(&account.commands, now));
        is_within || self.too_often(token, quota, "commands and pings from your address", "--max-commands-per-ip")
    }

    /// Counts frames that bring next to nothing of a message as commands; closes the connection if they are too many.
    pub fn may_send_fragments(&mut self, token: Token, fragments: u16) {
        let (own, shared, now) =
            (self.ground.settings.commands, self.ground.settings.commands_per_address, self.ground.now);
        let Some(connection) = self.connections.get_mut(token) else { return };
        let is_within = (0..fragments).all(|_| own.allows(&mut connection.commands, now));
        if !is_within {
            self.too_often(token, own, "small fragments of messages, which count as commands", "--max-commands");
            return;
        }
        let account = connection.permit.account();
        let is_within = |account: &Arc<Account>| (0..fragments).all(|_| shared.allows_shared(&account.commands, now));
        if !account.is_none_or(is_within) {
            let what = "small fragments of messages, which count as commands, from your address";
            self.too_often(token, shared, what, "--max-commands-per-ip");
        }
    }

    /// Counts a pong for the connection alone: it answers a ping of the server's, and costs nothing that others wait for.
    /// An address whose quota is used up by one of its clients mustn't lose the quiet ones.
    pub fn may_be_heard(&mut self, token: Token) -> bool {
        let (quota, now) = (self.ground.settings.commands, self.ground.now);
        let Some(connection) = self.connections.get_mut(token) else { return false };
        quota.allows(&mut connection.commands, now)
            || self.too_often(token, quota, "commands and pings", "--max-commands")
    }

    /// Counts a subscription that comes with the request: for the address, since a connection has but one.
    pub fn may_subscribe_now(&self, token: Token) -> Result<(), http::Refusal> {
        let (quota, now) = (self.ground.settings.commands_per_address, self.ground.now);
        let account = self.connections.get(token).and_then(|connection| connection.permit.account());
        if account.is_none_or(|account| quota.allows_shared(&account.commands, now)) {
            return Ok(());
        }
        let limit = quota.limit();
        let text = format!("Your address subscribes too often: --max-commands-per-ip allows {limit}.");
        Err(http::Refusal::new(ErrorCode::RateLimited.status(), text).with(LATER))
    }

    /// Counts a publication of so many bytes, once for each KiB of it that is begun; closes the connection and returns false if that
    /// is too much.
    pub fn may_publish_now(&mut self, token: Token, len: usize) -> bool {
        self.ground.work.charge(price::PUBLICATION + price::lines(len));
        let (quota, now, weight) = (self.ground.settings.publications, self.ground.now, limits::weight(len));
        let Some(connection) = self.connections.get_mut(token) else { return false };
        if let Some(account) = connection.permit.account() {
            account.has_published(weight, now);
        }
        if !quota.allows_several(&mut connection.publications, weight, now) {
            return self.too_often(token, quota, "publications", "--max-publications");
        }
        let quota = self.ground.settings.publications_per_address;
        let account = connection.permit.account();
        let is_within = account.is_none_or(|account| quota.allows_several_shared(&account.publications, weight, now));
        is_within || self.too_often(token, quota, "publications from your address", "--max-publications-per-ip")
    }

    fn too_often(&mut self, token: Token, quota: Quota, what: &str, flag: &str) -> bool {
        let is_shared = flag.ends_with("-per-ip");
        self.ground.shared.metrics.refuse(if is_shared { Refusal::AddressRateLimited } else { Refusal::RateLimited });
        let reason = format!("too many {what}: {flag} allows {}", quota.limit());
        self.close(token, Farewell::after(ErrorCode::RateLimited, &reason));
        false
    }
}
