//! What the fan does in one turn, where much is to be done.

use super::*;
use crate::{metrics::WorkerMetrics, worker::work::Step};

fn rated(names: &[&str], rate: u32) -> Wish {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Wish { names, way: Way::Rate(rate), snapshot: true, from: BTreeMap::new(), cursor: None }
}

/// A world whose turns are small: of a tick two sends go in one, and a pass has some twenty publications.
fn narrow(seed: u64) -> World {
    World::new(seed, Settings { turn_sends: 1, turn_work: 1000, ..settings() }, 4096, 1 << 20)
}

impl World {
    fn metrics(&self) -> &WorkerMetrics {
        &self.shared.metrics.workers[0]
    }

    /// Takes one turn, and lets the clients read.
    fn one_turn(&mut self) {
        self.turn();
        self.read_all(usize::MAX);
    }

    /// Everybody has been sent all that is due, a second or two later.
    fn check_all(&mut self) {
        self.pass(Duration::from_secs(3));
        let (end, tail) = (self.journal.len(), self.tail());
        let World { clients, journal, .. } = self;
        clients.iter_mut().for_each(|client| client.check_complete(end, journal, tail));
    }
}

#[test]
fn a_tick_with_many_members_is_served_over_turns_and_keeps_nobody_waiting() {
    let mut world = narrow(1);
    for _ in 0..30 {
        world.connect_as(100_000, Speech::Json, rated(&["q"], 1));
    }
    let live = world.subscriber(100_000, &["t"]);
    world.settle();
    world.publish_some("q", 2, 10);
    world.settle();
    let begun = world.metrics().deliveries.get();
    world.kernel.allow(Duration::from_secs(2));
    while world.metrics().deliveries.get() == begun {
        world.one_turn();
    }
    // In the middle of the tick.
    world.publish_some("t", 1, 10);
    let mut turns = 0;
    while world.posts[0].worker.fan.owes() {
        let sends = world.metrics().sends.get();
        world.kernel.allow(Duration::ZERO);
        world.one_turn();
        turns += 1;
        assert!(world.metrics().sends.get() - sends <= 4, "one turn sends to many");
        if turns == 6 {
            let World { clients, journal, .. } = &mut world;
            clients[live].check_complete(journal.len(), journal, 0);
        }
    }
    assert!(turns >= 10, "{turns}");
    assert!(world.metrics().put_off[Step::Tick as usize].get() > 0);
    world.check_all();
}

#[test]
fn whoever_leaves_joins_or_stalls_in_the_middle_of_a_tick_has_every_value_once() {
    for seed in 0..60 {
        let mut world = narrow(seed);
        // What has been seen of a topic is known from its snapshot on.
        ["q.a", "q.b", "q.c", "t"].into_iter().for_each(|topic| world.publish_some(topic, 1, 20));
        for n in 0..8 {
            let room = if n % 4 == 3 { 60 } else { 100_000 };
            world.connect_as(room, Speech::Json, rated(&["q.>"], 1));
        }
        let (mixed, both) = (rated(&["q.a", "q.b"], 1), rated(&["t"], 1));
        for _ in 0..3 {
            let at = world.connect_as(100_000, Speech::Json, mixed.clone());
            world.clients[at].sub_as(both.clone(), &world.journal);
        }
        world.settle();
        for topic in ["q.a", "q.b", "q.c", "t"] {
            world.publish_some(topic, 2, 20);
        }
        world.settle();
        let mut random = fastrand::Rng::with_seed(seed);
        let begun = world.metrics().deliveries.get();
        world.kernel.allow(Duration::from_secs(2));
        for _ in 0..1000 {
            if world.metrics().deliveries.get() > begun {
                break;
            }
            world.one_turn();
        }
        for _ in 0..random.usize(1..4) {
            world.kernel.allow(Duration::ZERO);
            world.one_turn();
        }
        for n in 0..8 {
            let World { clients, journal, .. } = &mut world;
            match (n as u64 + seed) % 5 {
                0 => clients[n].sub_as(Wish { way: Way::Latest, ..rated(&["t"], 1) }, journal),
                1 => clients[n].unsub(vec!["q.>".into()], journal),
                2 => clients[n].sub_as(rated(&["q.b"], 50), journal),
                3 => {
                    clients[n].state = State::Left;
                    clients[n].peer.reset();
                }
                _ => {}
            }
            if random.bool() {
                world.kernel.allow(Duration::ZERO);
                world.one_turn();
            }
            if random.u8(..3) == 0 {
                world.publish_some(["q.a", "q.d", "t"][random.usize(..3)], 1, 20);
            }
        }
        world.connect_as(100_000, Speech::Json, rated(&["q.>"], 1));
        world.check_all();
    }
}

#[test]
fn a_pass_ends_with_its_share_and_the_next_turn_goes_on() {
    let mut world = narrow(1);
    let at = world.subscriber(1 << 20, &["q.>"]);
    for n in 0..300 {
        world.publish_some(&format!("q.{}", n % 10), 1, 0);
    }
    let mut passes = 0;
    while world.posts[0].worker.fan.position() < world.tape.head() {
        let before = world.posts[0].worker.fan.position();
        world.kernel.allow(Duration::ZERO);
        world.turn();
        assert!(!world.kernel.asleep(0), "it sleeps over what is left");
        let planned = world.posts[0].worker.fan.position().0 - before.0;
        assert!(planned <= 40, "{planned} publications in one turn");
        passes += u32::from(planned > 0);
    }
    assert!(passes >= 8 && world.metrics().put_off[Step::Plan as usize].get() > 0, "{passes}");
    world.settle();
    world.clients[at].check_complete(300, &world.journal, 0);
}
