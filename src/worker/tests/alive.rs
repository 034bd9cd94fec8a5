//! Who is alive, and who is given up: the slow, the hung and the dead on every kind of connection.

use super::*;

impl World {
    /// A client of this kind that is subscribed to every publication on `q`, with so much room, so many bytes of it at its side.
    fn client_of(&mut self, speech: Speech, room: usize, window: usize) -> usize {
        let wish = Wish { names: vec!["q".into()], way: Way::All, snapshot: true, from: BTreeMap::new(), cursor: None };
        let at = self.connect_as(room, speech, wish);
        self.clients[at].peer.set_window(window);
        self.settle();
        assert_eq!(self.clients[at].state, State::Open);
        at
    }

    fn every_kind(&mut self, room: usize, window: usize) -> [usize; 3] {
        let raw = Speech::Raw { topic: "q".into(), echo: true };
        [Speech::Json, raw, Speech::Events].map(|speech| self.client_of(speech, room, window))
    }
}

#[test]
fn a_slow_reader_is_not_taken_for_dead() {
    let mut world = roomy(quiet());
    let slow = world.every_kind(40_000, 2000);
    world.pass(Duration::from_secs(29));
    // Far more than it reads within the idle timeout, just before it is pinged.
    for at in slow {
        world.clients[at].pace = Some(100);
    }
    world.publish_some("q", 100, 250);
    for _ in 0..10 {
        world.pass(Duration::from_secs(20));
        world.publish_some("q", 1, 250);
    }
    assert!(slow.iter().all(|at| world.clients[*at].peer.arrived() > 2000), "it reads still");
    world.pass(Duration::from_secs(400));
    for at in slow {
        assert_eq!(world.clients[at].state, State::Open);
        world.clients[at].pace = None;
    }
    world.settle();
    for at in slow {
        world.clients[at].check_complete(world.journal.len(), &world.journal, world.tape.tail().0 as usize);
    }
}

#[test]
fn a_page_that_hangs_is_closed_though_its_kernel_takes_everything() {
    let mut world = roomy(settings());
    let hung = world.subscriber(100_000, &["q"]);
    world.clients[hung].peer.set_window(100_000);
    world.clients[hung].stalled = true;
    for _ in 0..25 {
        // Heartbeats and publications are acknowledged all the time.
        world.pass(Duration::from_secs(5));
        world.publish_some("q", 1, 100);
    }
    let World { clients, journal, .. } = &mut world;
    clients[hung].stalled = false;
    clients[hung].read(usize::MAX, journal, 0);
    assert_eq!(clients[hung].state, State::Closed(1008));
}

#[test]
fn a_subscriber_that_has_stopped_reading_is_kept_while_its_kernel_answers() {
    // One with a full socket, and one whose window is closed with room left in the socket: a ping never gets through.
    for room in [3000, 100_000] {
        let mut world = roomy(quiet());
        let stalled = world.every_kind(room, 1000);
        for at in stalled {
            world.clients[at].stalled = true;
        }
        world.publish_some("q", 40, 250);
        world.pass(Duration::from_secs(1000));
        for at in stalled {
            (world.clients[at].stalled, world.clients[at].overslept) = (false, false);
        }
        world.settle();
        world.publish_some("q", 1, 250);
        world.settle();
        for at in stalled {
            assert_eq!(world.clients[at].state, State::Open);
            world.clients[at].check_complete(world.journal.len(), &world.journal, world.tape.tail().0 as usize);
        }
    }
}

#[test]
fn a_subscriber_of_newest_values_that_stops_in_the_middle_of_a_frame_is_kept() {
    let mut world = roomy(quiet());
    let wish = Wish { names: vec!["q".into()], way: Way::Latest, snapshot: true, from: BTreeMap::new(), cursor: None };
    let at = world.connect_as(3000, Speech::Json, wish);
    world.clients[at].peer.set_window(1000);
    world.settle();
    world.clients[at].stalled = true;
    world.publish_some("q", 1, 10_000);
    world.settle();
    // It takes some of what is left of the frame, and then nothing for long: that is no answer which it asked for.
    let World { clients, journal, .. } = &mut world;
    clients[at].read(2000, journal, 0);
    world.pass(Duration::from_secs(1000));
    (world.clients[at].stalled, world.clients[at].overslept) = (false, false);
    world.settle();
    assert_eq!(world.clients[at].state, State::Open);
    world.clients[at].check_complete(1, &world.journal, 0);
}

#[test]
fn whoever_is_gone_without_a_word_is_given_up_on_every_kind_of_connection() {
    // Nothing to be sent, something, and more than the socket holds.
    for count in [0, 1, 100] {
        let mut world = roomy(quiet());
        let healthy = world.every_kind(40_000, 20_000);
        let gone = world.every_kind(4000, 2000);
        world.pass(Duration::from_secs(100));
        let now = world.kernel.now_ns();
        for at in gone {
            world.clients[at].vanish(now);
        }
        world.publish_some("q", count, 250);
        // What was acknowledged last was half of the idle timeout ago, at most.
        world.pass(Duration::from_secs(29));
        assert!(gone.iter().all(|at| !world.clients[*at].peer.dropped()), "it may come back");
        world.pass(Duration::from_secs(91));
        assert!(gone.iter().all(|at| world.clients[*at].peer.dropped()));
        assert_eq!(world.shared.metrics.workers[0].dead.get(), 3);
        assert!(healthy.iter().all(|at| world.clients[*at].state == State::Open));
    }
}

#[test]
fn without_an_idle_timeout_nobody_is_judged() {
    let mut world = roomy(Settings { idle_timeout: Duration::ZERO, ..quiet() });
    let gone = world.every_kind(4000, 2000);
    let now = world.kernel.now_ns();
    for at in gone {
        world.clients[at].vanish(now);
    }
    world.publish_some("q", 100, 250);
    world.pass(Duration::from_secs(1000));
    assert!(gone.iter().all(|at| !world.clients[*at].peer.dropped()));
}

#[test]
fn a_slow_reader_gets_to_the_end_of_a_connection_that_is_closed() {
    let mut world = roomy(Settings { lag_limit: 2000, close_timeout: Duration::from_secs(5), ..quiet() });
    let at = world.client_of(Speech::Json, 4000, 500);
    world.clients[at].pace = Some(150);
    // The frame that it is in the middle of goes before the close frame. That takes it ten times the close timeout.
    world.publish_some("q", 10, 3000);
    world.pass(Duration::from_secs(50));
    assert_eq!(world.clients[at].state, State::Closed(4100));
    world.pass(Duration::from_secs(6));
    assert!(world.clients[at].peer.dropped());
}

#[test]
fn a_connection_that_is_closed_is_not_held_for_ever_by_one_that_takes_a_byte_now_and_then() {
    let mut world = roomy(Settings { lag_limit: 2000, close_timeout: Duration::from_secs(5), ..quiet() });
    let at = world.client_of(Speech::Json, 4000, 500);
    (world.clients[at].pace, world.clients[at].overslept) = (Some(1), true);
    world.publish_some("q", 60, 250);
    world.pass(Duration::from_secs(50));
    assert!(!world.clients[at].peer.dropped());
    world.pass(Duration::from_secs(15));
    assert!(world.clients[at].peer.dropped());
}

#[test]
fn answers_that_are_taken_slowly_are_waited_for() {
    let mut world = roomy(Settings { idle_timeout: Duration::from_secs(6), ..quiet() });
    let at = world.subscriber(20_000, &[]);
    world.clients[at].peer.set_window(200);
    world.clients[at].pace = Some(60);
    for n in 0..20 {
        world.publish_some(&format!("q.{n}"), 1, 2000);
    }
    // 40 KB of snapshots: the socket has room for some, and then for none for a minute.
    let World { clients, journal, .. } = &mut world;
    clients[at].sub(vec!["q.>".into()], true, journal);
    world.pass(Duration::from_secs(120));
    assert_eq!(world.clients[at].state, State::Open);
    world.clients[at].pace = None;
    world.settle();
    world.clients[at].check_complete(world.journal.len(), &world.journal, world.tape.tail().0 as usize);
}
