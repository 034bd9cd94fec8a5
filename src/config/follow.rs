//! What wasn't set follows what was: one setting that is larger than others allow for by default takes them along.
//!
//! ```text
//!  --max-message ─► --segment ─► --retain                       a message fits a segment, two segments the tape
//!               ├─► --max-replay-message                       where something is replayed; which for its part is like it for
//!               │                                                --segment, --max-values, --max-pending, --max-http-pending
//!               └─► --max-assembly, --max-held, --max-values, --max-pending, --max-http-pending, --max-body
//!  --retain ─────► --segment ─► --max-replay-message            a small tape has small segments, and small messages
//! ```
//!
//! Only what was left to its default follows, and only as far as it must; two settings that were both given and don't go
//! together are for the operator to say.

use bytesize::ByteSize;

use super::{Config, rules::RANGES};

const MIB: u64 = 1 << 20;

/// The least segment.
const SEGMENT_MIN: u64 = 64 << 10;

impl Config {
    /// Makes the settings that weren't set fit those that were. `is_set` is asked with the names of flags, without dashes.
    /// Returns the names of those that followed, and of what.
    pub fn follow(&mut self, is_set: impl Fn(&str) -> bool) -> Vec<(&'static str, ByteSize, &'static str)> {
        let mut followed = Vec::new();
        if self.keep(RANGES).is_err() {
            // The one that was set is at fault, and is what the operator is told of.
            return followed;
        }
        let message = self.max_message.as_u64();
        let retain = self.retain.as_u64();
        if is_set("retain") && !is_set("segment") && retain < self.segment.as_u64().saturating_mul(2) {
            self.segment = ByteSize::b((retain / 2).max(SEGMENT_MIN));
            followed.push(("segment", self.segment, "retain"));
        }
        let mut raise = |size: &mut ByteSize, name, least: u64, of| {
            let least = ByteSize::b(least.div_ceil(MIB).saturating_mul(MIB));
            if !is_set(name) && *size < least {
                *size = least;
                followed.retain(|(other, ..)| *other != name);
                followed.push((name, least, of));
            }
        };
        // What is replayed is larger than what clients publish, and goes the same way to the subscribers.
        let (mut largest, mut of) = (message, "max-message");
        if self.replay.is_some() {
            raise(&mut self.max_replay_message, "max-replay-message", message, "max-message");
            let replayed = self.max_replay_message.as_u64();
            if replayed > largest && is_set("max-replay-message") {
                (largest, of) = (replayed, "max-replay-message");
            }
        }
        if largest > self.segment.as_u64() {
            raise(&mut self.segment, "segment", largest, of);
        }
        if self.retain.as_u64() < self.segment.as_u64().saturating_mul(2) {
            raise(&mut self.retain, "retain", self.segment.as_u64().saturating_mul(2), "segment");
        }
        let double = message.saturating_mul(2);
        // One address has half of these, and a first value seven eighths of that.
        raise(&mut self.max_assembly, "max-assembly", double.saturating_add(2 * 1024), "max-message");
        raise(&mut self.max_held, "max-held", double.saturating_add(2 * 1024), "max-message");
        raise(&mut self.max_body, "max-body", message.saturating_add(1024), "max-message");
        raise(&mut self.max_values, "max-values", largest.saturating_mul(3), of);
        // What holds an answer that holds a value.
        let double = largest.saturating_mul(2);
        raise(&mut self.max_pending, "max-pending", double.min(1024 * MIB), of);
        raise(&mut self.max_http_pending, "max-http-pending", double, of);
        if self.replay.is_some() && !is_set("max-replay-message") && self.max_replay_message > self.segment {
            self.max_replay_message = self.segment;
            followed.retain(|(other, ..)| *other != "max-replay-message");
            followed.push(("max-replay-message", self.segment, "segment"));
        }
        followed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings that come of these, which were set.
    fn followed(set: &[&str], change: impl FnOnce(&mut Config)) -> (Config, Vec<&'static str>) {
        let mut config = Config::default();
        change(&mut config);
        let names = config.follow(|name| set.contains(&name)).into_iter().map(|(name, ..)| name).collect();
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
    fn what_was_set_stays_and_is_told_of() {
        let (config, names) = followed(&["max-message", "segment"], |c| c.max_message = ByteSize::mib(32));
        assert!(config.check().is_err_and(|error| error.0.contains("--segment")) && !names.contains(&"segment"));
        let (config, _) = followed(&["max-message", "retain"], |c| {
            (c.max_message, c.retain) = (ByteSize::mib(32), ByteSize::mib(8));
        });
        assert!(config.check().is_err_and(|error| error.0.contains("--retain")));
    }
}
