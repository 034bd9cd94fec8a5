//! How somebody is sent publications, in words for operators: from a stream that its cohort shares, or why not.
//!
//! Asked when somebody is shown (`desk/shown.rs`, `cursors/slow.rs`), and at no other time: what is told is what stands in the tables. The first
//! word is what it is sent, and behind a colon comes why it is that and nothing shorter. Operators find these sentences in
//! `docs/performance.md`, each with what helps.

use super::{
    super::{
        connection::{Connection, Declined, Packed},
        cursor::Cursor,
    },
    delivery::Delivery,
    interest::{Cohort, Interest},
};
use crate::{packs::Packer, protocol::matches};

/// What a connection is sent of compressed publications, and why no more.
pub fn compression<S>(connection: &Connection<S>, interest: &Interest, packer: &Packer) -> &'static str {
    let cohort = connection.cohort.and_then(|id| interest.find(id));
    match (connection.packed, cohort) {
        (Packed::Clear(why), _) => declined(why),
        (Packed::Alone, _) => "once: it wants each message compressed by itself",
        (Packed::Narrow, _) => "once: its window is smaller than --compression-window",
        (Packed::Once, _) => "once: --compression was not shared when it came",
        (Packed::Waits | Packed::Shares, None) => "once: it is subscribed to nothing",
        (Packed::Waits | Packed::Shares, Some(cohort)) => of_cohort(connection, cohort, interest, packer),
    }
}

fn declined(why: Declined) -> &'static str {
    match why {
        Declined::NoWebSocket => "none: it is no WebSocket",
        Declined::Off => "none: --compression was off when it came",
        Declined::Unwanted => "none: its address says compress=0",
        Declined::Denied => "none: --compression-deny names it",
        Declined::NotOffered => "none: it has offered no permessage-deflate, or none that can be kept",
        Declined::Narrow => "none: it has agreed to a window of less than 12 bits",
    }
}

/// The same of somebody who can read streams.
fn of_cohort<S>(connection: &Connection<S>, cohort: &Cohort, interest: &Interest, packer: &Packer) -> &'static str {
    let streams = &packer.packs().streams;
    let at_head = match connection.cursor {
        Cursor::Head(place) => Some(cohort.column.shares(place)),
        _ => None,
    };
    match &cohort.stream {
        _ if !cohort.may_share() => "once: some of its names have a rate",
        None if all_private(cohort, interest, packer) => "once: --compression-private keeps its topics out of streams",
        Some(_) if at_head.unwrap_or_else(|| connection.shares()) => "shared",
        Some(_) if at_head.is_some() => "clear: it waits for the stream to begin anew",
        Some(_) => "once: it is behind, and has missed some of the stream",
        None if cohort.key.except != 0 && cohort.users < streams.members_min => {
            "once: its own publications are left out for it, so nobody has the same subscription"
        }
        None if cohort.users < streams.members_min => "once: too few on its worker have the same subscription",
        None if cohort.column.len() < streams.members_min => {
            "once: too few of those with the same subscription keep up"
        }
        None if packer.streams.is_swamped && streams.is_for_leisure(cohort.users) => {
            "once: few have the same subscription, and its worker was busy"
        }
        None if packer.streams.open.len() >= packer.streams.most => "once: no stream is free",
        None => "once: the stream begins with the next publication",
    }
}

/// Whether all that the cohort is subscribed to is kept out of streams: each of its names lies within one set of private ones.
fn all_private(cohort: &Cohort, interest: &Interest, packer: &Packer) -> bool {
    let private = &packer.packs().streams.private;
    let is_private = |name: &str| private.iter().any(|set| lies_within(name, set));
    !private.is_empty() && cohort.key.names.iter().all(|(name, _)| is_private(interest.text(*name)))
}

/// Whether one pattern stands for every topic that another one does: where its wildcards stand for the other's.
fn lies_within(name: &str, set: &str) -> bool {
    matches(set, name) && (set.ends_with('>') || !name.ends_with('>'))
}

impl Cohort {
    /// How its names are delivered, all of them together.
    pub fn mode(&self) -> &'static str {
        match self.uniform {
            Some(Delivery::All) => "all",
            Some(_) => "latest",
            None => mode(self.key.names.iter().map(|(_, delivery)| *delivery)),
        }
    }
}

fn mode(deliveries: impl Iterator<Item = Delivery>) -> &'static str {
    let (mut all, mut others) = (false, false);
    for delivery in deliveries {
        *(if delivery == Delivery::All { &mut all } else { &mut others }) = true;
    }
    match (all, others) {
        (true, true) => "mixed",
        (false, true) => "latest",
        (_, false) => "all",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_deliveries_on_one_connection_are_mixed() {
        let (all, latest) = (Delivery::All, Delivery::Latest);
        let of = |deliveries: &[Delivery]| mode(deliveries.iter().copied());
        assert_eq!([&[all][..], &[latest, latest], &[all, latest], &[]].map(of), ["all", "latest", "mixed", "all"]);
    }

    #[test]
    fn a_name_lies_within_a_set_that_stands_for_all_of_its_topics() {
        for (name, set, expected) in [
            ("q.us", "q.us", true),
            ("q.us", "q.*", true),
            ("q.*", "q.*", true),
            ("q.*", "q.us", false),
            ("q.>", "q.*", false),
            ("q.*.x", "q.>", true),
            ("q.us.>", "q.>", true),
            ("q.>", "q.>", true),
            ("q.>", "q.us.>", false),
            (">", ">", true),
            ("q", "q.>", false),
        ] {
            assert_eq!(lies_within(name, set), expected, "{name} in {set}");
        }
    }
}
