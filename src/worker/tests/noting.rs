//! What is noted for the audit: in its order, about everybody, and never much in one turn.

use std::collections::HashMap;

use crossbeam_channel::Receiver;

use super::*;
use crate::audit::{Event, What};

/// A world with one worker, in which is noted who is there.
fn noted(settings: Settings) -> (World, Receiver<Event>) {
    let (audit, events) = Audit::watched();
    (World::audited(1, 1, (settings, audit), 1 << 20, 64 << 20), events)
}

fn word(event: &Event) -> &'static str {
    match &event.what {
        What::Connect { .. } => "connect",
        What::Auth => "auth",
        What::Subscribe { .. } => "subscribe",
        What::Unsubscribe { .. } => "unsubscribe",
        What::Read { .. } => "read",
        What::Refused { .. } => "refused",
        What::Revoked { .. } => "revoked",
        What::End { .. } => "end",
        What::Here { .. } => "here",
    }
}

#[test]
fn each_who_is_there_has_a_line_a_minute_and_they_come_spread_over_it() {
    // Room for two lines in a turn: many connections, or few and a little room, are alike.
    let little = Settings { turn_work: 1000, turn_sends: 1, ..settings() };
    let (mut world, events) = noted(Settings { heartbeat: Duration::ZERO, idle_timeout: Duration::ZERO, ..little });
    let count = 20;
    for _ in 0..count {
        world.connect(10_000, Speech::Json, &["q"]);
        world.settle();
    }
    assert_eq!(events.try_iter().filter(|event| word(event) == "connect").count(), count);
    let mut lines: HashMap<u64, usize> = HashMap::new();
    let mut most = 0;
    for _ in 0..120 {
        // A second, in as many turns as it takes.
        world.kernel.allow(Duration::from_secs(1));
        while !world.at_rest() {
            world.turn();
            let new: Vec<Event> = events.try_iter().collect();
            assert!(new.iter().all(|event| word(event) == "here"), "{new:?}");
            most = most.max(new.len());
            new.iter().for_each(|event| *lines.entry(event.conn).or_default() += 1);
        }
    }
    assert_eq!(lines.len(), count);
    assert!(lines.values().all(|lines| (1..=3).contains(lines)), "{lines:?}");
    assert!(most <= 2, "{most} in one turn");
}

#[test]
fn a_connection_is_noted_from_its_beginning_to_its_end_and_what_it_was_sent_is_counted() {
    let (mut world, events) = noted(quiet());
    let at = world.connect(10_000, Speech::Json, &["q.a", "t.>"]);
    world.settle();
    world.publish_some("q.a", 20, 50);
    world.settle();
    world.clients[at].close(1000);
    world.settle();
    let all: Vec<Event> = events.try_iter().collect();
    let words: Vec<&str> = all.iter().map(word).collect();
    assert_eq!(words, ["connect", "subscribe", "end"], "{all:?}");
    assert!(all.iter().all(|event| event.conn == world.clients[at].id));
    let What::Subscribe { names, mode, .. } = &all[1].what else { panic!("{all:?}") };
    assert_eq!((names.iter().map(|name| &**name).collect::<Vec<_>>(), *mode), (vec!["q.a", "t.>"], "all"));
    let What::End { code, been, .. } = &all[2].what else { panic!("{all:?}") };
    assert_eq!(*code, 1000);
    assert!(been.bytes + been.unacked > 20 * 50, "{been:?}");
    assert!((1..1000).contains(&been.received), "its request, a command and its farewell: {been:?}");
}
