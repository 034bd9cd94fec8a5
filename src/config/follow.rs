//! What wasn't set follows what was: one setting that others don't allow for by default takes them along.
//!
//! ```text
//!  --max-message ─► --segment ─► --retain                       a message fits a segment, two segments the tape
//!               ├─► --max-replay-message                       where something is replayed; which for its part is like it for
//!               │                                                --segment, --max-values, --max-pending, --max-http-pending
//!               └─► --max-assembly, --max-held, --max-values, --max-pending, --max-http-pending, --max-body
//!  --retain ─────► --segment ─► --max-replay-message            a small tape has small segments, and small messages
//!  --max-assembly, --max-held, their shares ─► --max-message    little room is for small messages
//!  --max-subscriptions ◄─► --max-subscriptions-total            one connection has no more than all
//!  --max-token ─► --max-head                                    a head holds a token
//!  --tls-self-signed ─► --tls-listen                            who tries TLS out has it
//! ```
//!
//! Only what was left to its default follows, and only as far as it must; two settings that were both given and don't go
//! together are for the operator to say (`rules.rs`). The share of one address is no setting of its own as long as it isn't set: it is
//! half, and one message at least.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use bytesize::ByteSize;

use super::{
    Config, Exactly,
    rules::{MESSAGE_BESIDE, NUMBERED, RANGES, SEGMENT_MIN},
};

const MIB: u64 = 1 << 20;

/// What a request has beside its token: what browsers send, and proxies add.
const HEAD_BESIDE: u64 = 4096;

/// Where TLS is tried out: the port that is most often used beside 443.
const TRYING_OUT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9443);

/// A setting that wasn't set and has followed another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Its flag, without the dashes.
    pub name: &'static str,
    /// What it has come to, as it is written.
    pub value: String,
    /// The flag that it has followed.
    pub of: &'static str,
}

/// Settings that follow.
struct Following<F> {
    is_set: F,
    followed: Vec<Followed>,
}

impl<F: Fn(&str) -> bool> Following<F> {
    fn is_set(&self, name: &str) -> bool {
        (self.is_set)(name)
    }

    /// Notes what a setting has come to, in the place of what it had come to before.
    fn note(&mut self, name: &'static str, value: impl fmt::Display, of: &'static str) {
        self.followed.retain(|other| other.name != name);
        self.followed.push(Followed { name, value: value.to_string(), of });
    }

    /// What wasn't set, and is less, becomes as much as this, in whole MiB.
    fn raise(&mut self, size: &mut ByteSize, name: &'static str, least: u64, of: &'static str) {
        let least = ByteSize::b(least.div_ceil(MIB).saturating_mul(MIB));
        if !self.is_set(name) && *size < least {
            *size = least;
            self.note(name, Exactly(least), of);
        }
    }

    /// The same in whole KiB.
    fn raise_kib(&mut self, size: &mut ByteSize, name: &'static str, least: u64, of: &'static str) {
        let least = ByteSize::kib(least.div_ceil(1024));
        if !self.is_set(name) && *size < least {
            *size = least;
            self.note(name, Exactly(least), of);
        }
    }

    /// What wasn't set, and is more, becomes as little as this.
    fn lower(&mut self, size: &mut ByteSize, name: &'static str, most: u64, of: &'static str) {
        let most = ByteSize::b(most);
        if !self.is_set(name) && *size > most {
            *size = most;
            self.note(name, Exactly(most), of);
        }
    }
}

impl Config {
    /// Makes the settings that weren't set fit those that were. `is_set` is asked with the names of flags, without dashes.
    /// Returns those that followed.
    pub fn follow(&mut self, is_set: impl Fn(&str) -> bool) -> Vec<Followed> {
        let mut following = Following { is_set, followed: Vec::new() };
        // Otherwise the one that was set is at fault, and is what the operator is told of.
        if self.keep(RANGES).is_ok() {
            self.follow_room(&mut following);
            self.follow_messages(&mut following);
            self.follow_names(&mut following);
            following.raise_kib(
                &mut self.max_head,
                "max-head",
                self.max_token.as_u64().saturating_add(HEAD_BESIDE),
                "max-token",
            );
            self.follow_trying_out(&mut following);
        }
        following.followed
    }

    /// Where there is little room for messages, they are small.
    fn follow_room(&mut self, following: &mut Following<impl Fn(&str) -> bool>) {
        let share = |share: Option<ByteSize>| share.filter(|share| share.as_u64() > 0);
        for (name, room) in [
            ("max-assembly", Some(self.max_assembly)),
            ("max-assembly-per-ip", share(self.max_assembly_per_ip)),
            ("max-held", Some(self.max_held)),
            ("max-held-per-ip", share(self.max_held_per_ip)),
        ] {
            if let Some(room) = room.filter(|_| following.is_set(name)) {
                following.lower(
                    &mut self.max_message,
                    "max-message",
                    room.as_u64().saturating_sub(MESSAGE_BESIDE),
                    name,
                );
            }
        }
    }

    /// Where messages are large, so is what they have to fit into.
    fn follow_messages(&mut self, following: &mut Following<impl Fn(&str) -> bool>) {
        let message = self.max_message.as_u64();
        // What is replayed is larger than what clients publish, and goes the same way to the subscribers.
        let (mut largest, mut of) = (message, "max-message");
        if self.replay.is_some() {
            following.raise(&mut self.max_replay_message, "max-replay-message", message, "max-message");
            let replayed = self.max_replay_message.as_u64();
            if replayed > largest && following.is_set("max-replay-message") {
                (largest, of) = (replayed, "max-replay-message");
            }
        }
        if largest > self.segment.as_u64() {
            following.raise(&mut self.segment, "segment", largest, of);
        }
        if following.is_set("retain") {
            let half = (self.retain.as_u64() / 2).max(SEGMENT_MIN.as_u64());
            following.lower(&mut self.segment, "segment", half.max(largest), "retain");
        }
        let two = self.segment.as_u64().saturating_mul(2);
        following.raise(&mut self.retain, "retain", two, "segment");
        let double = message.saturating_mul(2);
        // One address has half of these, and a first value seven eighths of that.
        following.raise(&mut self.max_assembly, "max-assembly", double.saturating_add(2 * 1024), "max-message");
        following.raise(&mut self.max_held, "max-held", double.saturating_add(2 * 1024), "max-message");
        following.raise(&mut self.max_body, "max-body", message.saturating_add(1024), "max-message");
        following.raise(&mut self.max_values, "max-values", largest.saturating_mul(3), of);
        // What holds an answer that holds a value.
        let double = largest.saturating_mul(2);
        following.raise(&mut self.max_pending, "max-pending", double.min(1024 * MIB), of);
        following.raise(&mut self.max_http_pending, "max-http-pending", double, of);
        if self.replay.is_some() {
            following.lower(&mut self.max_replay_message, "max-replay-message", self.segment.as_u64(), "segment");
        }
    }

    /// One connection has no more names than all have.
    fn follow_names(&mut self, following: &mut Following<impl Fn(&str) -> bool>) {
        if self.max_subscriptions <= self.max_subscriptions_total {
            return;
        }
        if !following.is_set("max-subscriptions-total") {
            // One address has half of it.
            let most = usize::try_from(NUMBERED).unwrap_or(usize::MAX);
            self.max_subscriptions_total = self.max_subscriptions.saturating_mul(2).min(most);
            following.note("max-subscriptions-total", self.max_subscriptions_total, "max-subscriptions");
        } else if !following.is_set("max-subscriptions") {
            self.max_subscriptions = self.max_subscriptions_total;
            following.note("max-subscriptions", self.max_subscriptions, "max-subscriptions-total");
        }
    }

    /// A certificate for trying out alone is shown on this machine.
    fn follow_trying_out(&mut self, following: &mut Following<impl Fn(&str) -> bool>) {
        if self.tls_self_signed.is_some() && self.tls_listen.is_empty() && !following.is_set("tls-listen") {
            self.tls_listen = vec![TRYING_OUT];
            following.note("tls-listen", TRYING_OUT, "tls-self-signed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings that come of these, which were set.
    fn followed(set: &[&str], change: impl FnOnce(&mut Config)) -> (Config, Vec<&'static str>) {
        let mut config = Config::default();
        change(&mut config);
        let names = config.follow(|name| set.contains(&name)).into_iter().map(|followed| followed.name).collect();
        (config, names)
    }

    #[test]
    fn nothing_follows_the_defaults() {
        assert_eq!(followed(&[], |_| {}).1, [""; 0]);
    }

    #[test]
    fn any_largest_message_alone_makes_settings_that_hold_together() {
        for message in [ByteSize::b(1), ByteSize::kib(1025), ByteSize::mib(32), ByteSize::mib(100), ByteSize::mib(512)]
        {
            let (config, names) = followed(&["max-message"], |c| c.max_message = message);
            config.check().unwrap_or_else(|error| panic!("{message}: {error}"));
            assert_eq!(names.contains(&"segment"), message > ByteSize::mib(1), "{message}");
            assert!(config.max_values >= message && config.max_pending >= message && config.max_body >= message);
        }
    }

    #[test]
    fn a_small_tape_has_small_segments() {
        let (config, names) = followed(&["retain"], |c| c.retain = ByteSize::mib(1));
        config.check().unwrap();
        assert_eq!((config.segment, names), (ByteSize::kib(512), vec!["segment"]));
    }

    #[test]
    fn what_is_replayed_is_as_large_as_what_is_published_and_takes_along_what_must_hold_it() {
        let replaying = |c: &mut Config| c.replay = Some("a".into());
        assert_eq!(followed(&["replay"], replaying).1, [""; 0]);
        let (config, _) =
            followed(&["replay", "max-message"], |c| (c.replay, c.max_message) = (Some("a".into()), ByteSize::mib(3)));
        assert_eq!((config.max_replay_message, config.segment), (ByteSize::mib(3), ByteSize::mib(3)));
        for message in [ByteSize::kib(1), ByteSize::kib(1025), ByteSize::mib(32), ByteSize::mib(512)] {
            let (config, _) = followed(&["replay", "max-replay-message"], |c| {
                (c.replay, c.max_replay_message) = (Some("a".into()), message);
            });
            config.check().unwrap_or_else(|error| panic!("{message}: {error}"));
            assert!(config.max_replay_message == message && config.segment >= message && config.max_pending >= message);
            assert_eq!((config.max_message, config.max_body), (ByteSize::kib(64), ByteSize::mib(64)));
        }
        let (config, names) =
            followed(&["replay", "retain"], |c| (c.replay, c.retain) = (Some("a".into()), ByteSize::mib(1)));
        config.check().unwrap();
        assert_eq!((config.max_replay_message, names), (ByteSize::kib(512), vec!["segment", "max-replay-message"]));
        let (config, _) = followed(&["replay", "max-replay-message", "segment"], |c| {
            (c.replay, c.max_replay_message) = (Some("a".into()), ByteSize::mib(2));
        });
        assert!(config.check().is_err_and(|error| error.0.contains("--max-replay-message 2.0 MiB does not fit")));
    }

    #[test]
    fn little_room_for_messages_is_for_small_ones() {
        let (config, names) = followed(&["max-assembly"], |c| c.max_assembly = ByteSize::kib(10));
        config.check().unwrap();
        assert_eq!((config.max_message, names), (ByteSize::kib(9), vec!["max-message"]));
        let (config, _) = followed(&["max-held-per-ip", "max-assembly-per-ip"], |c| {
            (c.max_held_per_ip, c.max_assembly_per_ip) = (Some(ByteSize::kib(20)), Some(ByteSize::kib(30)));
        });
        config.check().unwrap();
        assert_eq!(config.max_message, ByteSize::kib(19));
        let (config, names) = followed(&["max-held-per-ip"], |c| c.max_held_per_ip = Some(ByteSize::b(0)));
        assert_eq!((config.max_message, names), (ByteSize::kib(64), vec![]));
    }

    #[test]
    fn the_share_that_was_not_set_has_one_message() {
        let set = ["max-message", "max-held", "max-assembly"];
        let (config, _) = followed(&set, |c| {
            (c.max_message, c.max_held, c.max_assembly) = (ByteSize::mib(2), ByteSize::mib(4), ByteSize::mib(3));
        });
        config.check().unwrap();
        let room = (2 << 20) + 1024;
        assert_eq!(crate::limits::Bounds::of(&config).shares[4..6], [room, room]);
    }

    #[test]
    fn names_of_one_connection_and_of_all_follow_each_other() {
        let (config, names) = followed(&["max-subscriptions"], |c| c.max_subscriptions = 2_000_000);
        config.check().unwrap();
        assert_eq!((config.max_subscriptions_total, names), (4_000_000, vec!["max-subscriptions-total"]));
        let (config, names) = followed(&["max-subscriptions-total"], |c| c.max_subscriptions_total = 10);
        config.check().unwrap();
        assert_eq!((config.max_subscriptions, names), (10, vec!["max-subscriptions"]));
    }

    #[test]
    fn a_head_holds_the_longest_token_that_is_taken() {
        let (config, names) = followed(&["max-token"], |c| c.max_token = ByteSize::kib(16));
        config.check().unwrap();
        assert_eq!((config.max_head, names), (ByteSize::kib(20), vec!["max-head"]));
        let (config, names) = followed(&["max-token", "max-head"], |c| c.max_token = ByteSize::kib(16));
        assert_eq!((config.max_head, names), (ByteSize::kib(8), vec![]));
    }

    #[test]
    fn a_certificate_for_trying_out_alone_is_shown_on_this_machine() {
        let trying = |c: &mut Config| c.tls_self_signed = Some("dir".into());
        let (config, names) = followed(&["tls-self-signed"], trying);
        config.check().unwrap();
        assert_eq!((config.tls_listen, names), (vec!["127.0.0.1:9443".parse().unwrap()], vec!["tls-listen"]));
        let (config, names) = followed(&["tls-self-signed", "tls-listen"], |c| {
            trying(c);
            c.tls_listen = vec!["0.0.0.0:443".parse().unwrap()];
        });
        assert_eq!((config.tls_listen.len(), names), (1, vec![]));
    }

    #[test]
    fn segments_are_no_larger_than_two_of_them_fit_a_tape_that_was_set() {
        let (config, _) = followed(&["max-message", "retain"], |c| {
            (c.max_message, c.retain) = (ByteSize::kib(600), ByteSize::kib(1500));
        });
        config.check().unwrap();
        assert_eq!(config.segment, ByteSize::kib(750));
    }

    #[test]
    fn what_was_set_stays_and_is_told_of() {
        let (config, names) = followed(&["max-message", "segment"], |c| c.max_message = ByteSize::mib(32));
        assert!(config.check().is_err_and(|error| error.0.contains("--segment")) && !names.contains(&"segment"));
        let (config, _) = followed(&["max-message", "retain"], |c| {
            (c.max_message, c.retain) = (ByteSize::mib(32), ByteSize::mib(8));
        });
        assert!(config.check().is_err_and(|error| error.0.contains("--retain")));
    }
}
