//! Reading: who sends without end, and who has something small to say beside; who publishes, and who is to be sent that.

use super::*;
use crate::metrics;

/// A frame with a key of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

impl World {
    /// One turn of worker `n`, at a moment.
    pub fn turn_of(&mut self, n: usize) {
        self.kernel.allow(Duration::ZERO);
        self.posts[n].alive = self.posts[n].worker.turn();
        self.posts[n].worker.invariants();
        self.note_published();
    }

    /// Hands over connections until one comes to worker `n`; the others leave.
    fn connect_to(&mut self, n: usize, room: usize, speech: impl Fn() -> Speech, names: &[&str]) -> usize {
        loop {
            let at = self.connect(room, speech(), names);
            if self.clients[at].id >> 48 == n as u64 + 1 {
                return at;
            }
            self.clients[at].peer.end();
            self.clients[at].state = State::Left;
        }
    }

    /// What is published from 127.0.0.1 has been much lately.
    fn much_was_published(&self) {
        let now = Moment(self.kernel.now_ns());
        self.limits.account("127.0.0.1".parse().unwrap(), now).has_published(1_000_000, now);
    }

    /// How many turns it takes until each of `clients` has the answer to a ping.
    fn turns_until_pongs(&mut self, clients: &[usize]) -> usize {
        for at in clients {
            self.clients[*at].control_ping(b"?");
        }
        for turns in 1..200 {
            self.turn_of(0);
            let World { clients: all, journal, .. } = self;
            for at in clients {
                all[*at].read(usize::MAX, journal, 0);
            }
            if clients.iter().all(|at| all[*at].has_pongs()) {
                return turns;
            }
        }
        panic!("not within 200 turns");
    }
}

fn raw(topic: &str) -> Speech {
    Speech::Raw { topic: topic.into(), echo: false }
}

#[test]
fn whoever_sends_without_end_leaves_everybody_else_their_turn() {
    let begun = [frame(0x01, b"x"), frame(0x00, b"").repeat(300_000)].concat();
    let closed = [frame(0x88, &1000_u16.to_be_bytes()), vec![b'x'; 2_000_000]].concat();
    let floods = [
        ("publications", raw("z"), frame(0x81, b"1").repeat(200_000)),
        ("empty continuations", Speech::Json, begun),
        ("pongs", Speech::Json, frame(0x8a, b"").repeat(300_000)),
        ("garbage on a stream of events", Speech::Events, vec![b'x'; 2_000_000]),
        ("garbage behind a close", Speech::Json, closed),
    ];
    for (what, speech, flood) in floods {
        let mut world = World::new(1, settings(), 1 << 20, 64 << 20);
        let others: Vec<usize> = (0..4).map(|_| world.subscriber(100_000, &["q"])).collect();
        for _ in 0..8 {
            let peer = match &speech {
                Speech::Events => {
                    let (peer, _) = world.hand_over(100_000);
                    peer.write(b"GET /sse?topics=q HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    peer
                }
                Speech::Raw { topic, .. } => {
                    let at = world.connect(100_000, raw(topic), &[]);
                    world.clients.remove(at).peer
                }
                Speech::Json => {
                    let at = world.connect(100_000, Speech::Json, &[]);
                    world.clients.remove(at).peer
                }
            };
            world.strays.push(peer);
        }
        world.settle();
        world.strays.iter().for_each(|peer| peer.write(&flood));
        world.anybody_publishes = true;
        let received = |world: &World| world.shared.metrics.workers[0].received_bytes.get();
        (0..5).for_each(|_| world.turn_of(0));
        let before = received(&world);
        let turns = world.turns_until_pongs(&others);
        assert!(received(&world) > before, "{what}: the flood goes on");
        assert!(turns <= 12, "{what}: {turns} turns");
    }
}

#[test]
fn frames_that_bring_next_to_nothing_count_as_commands() {
    let limit = || Quota::new("1000/s".parse().unwrap());
    for address in [false, true] {
        let mut quotas = settings();
        *(if address { &mut quotas.commands_per_address } else { &mut quotas.commands }) = limit();
        let mut world = plain(quotas);
        let at = world.connect(100_000, Speech::Json, &[]);
        let peer = world.clients.remove(at).peer;
        peer.write(&[frame(0x01, b"\""), frame(0x00, b"").repeat(1900), frame(0x80, b"\"")].concat());
        world.settle();
        let told = String::from_utf8_lossy(&peer.read(usize::MAX)).into_owned();
        assert!(told.contains("expected a JSON object, found a string"), "they are a message: {told}");
        peer.write(&[frame(0x01, b"x"), frame(0x00, b"").repeat(5000)].concat());
        world.settle();
        let told = String::from_utf8_lossy(&peer.read(usize::MAX)).into_owned();
        assert!(told.contains("rate_limited") && told.contains("small fragments of messages"), "{told}");
    }
}

#[test]
fn small_things_are_heard_while_the_fan_is_crowded_and_publications_are_not() {
    let mut world = World::new(1, Settings { turn_sends: 1, owed_max: 1, ..quiet() }, 1 << 20, 16 << 20);
    let members: Vec<usize> = (0..40).map(|_| world.subscriber(1 << 20, &["q"])).collect();
    let publisher = world.connect(100_000, raw("z"), &[]);
    world.settle();
    let publish = |world: &mut World| {
        let body = world.body(Kind::Text, 2000);
        world.clients[publisher].publish("z", body, false);
    };
    publish(&mut world);
    world.settle();
    for _ in 0..20 {
        publish(&mut world);
    }
    world.publish_some("q", 3, 0);
    world.much_was_published();
    while !world.posts[0].worker.fan.is_crowded() {
        world.turn_of(0);
    }
    let before = world.shared.metrics.workers[0].publications.get();
    let turns = world.turns_until_pongs(&members[..10]);
    assert!(world.posts[0].worker.fan.is_crowded() && turns < 20, "{turns} turns");
    assert_eq!(world.shared.metrics.workers[0].publications.get(), before, "what is published is not read meanwhile");
    world.settle();
    assert_eq!(world.shared.metrics.workers[0].publications.get(), 21);
    assert!(world.shared.metrics.held[metrics::Door::WebSocket].times.get() > 0, "it shows");
}

#[test]
fn a_busy_worker_does_not_judge_whom_it_has_not_read() {
    // A read or two a turn, and a second each.
    let busy = Settings { idle_timeout: Duration::from_secs(6), turn_work: 1000, ..quiet() };
    let mut world = roomy(busy);
    let clients: Vec<usize> = (0..30).map(|_| world.subscriber(100_000, &[])).collect();
    let [begun, silent] = [(); 2].map(|()| world.hand_over(1000).0);
    begun.write(b"GET /ws HTTP/1.1\r\n");
    world.turn_of(0);
    for second in 0..60 {
        for at in &clients {
            world.clients[*at].peer.write(&frame(0x8a, b""));
        }
        if second == 9 {
            begun.write(b"Host: localhost\r\n\r\n");
        }
        world.turn_of(0);
        world.kernel.advance(Duration::from_secs(1));
    }
    world.settle();
    for at in clients {
        assert_eq!(world.clients[at].state, State::Open, "it answers, and has been read seldom");
    }
    assert!(String::from_utf8(begun.read(100)).unwrap().starts_with("HTTP/1.1 426"), "it came in time");
    assert!(String::from_utf8(silent.read(100)).unwrap().starts_with("HTTP/1.1 408"));
}

#[test]
fn an_answer_that_came_in_the_last_moment_counts() {
    let mut world = roomy(Settings { idle_timeout: Duration::from_secs(8), ..quiet() });
    let at = world.subscriber(100_000, &[]);
    world.clients[at].peer.set_window(100_000);
    world.clients[at].stalled = true;
    let ping = |world: &World| world.posts[0].worker.connections.iter().next().unwrap().1.ping;
    while ping(&world) != super::super::connection::Ping::Doubted {
        world.kernel.advance(Duration::from_millis(100));
        world.turn_of(0);
    }
    // The edge may tell of it in any turn; it stands in line already.
    world.clients[at].peer.write(&frame(0x8a, b""));
    for _ in 0..20 {
        world.kernel.advance(Duration::from_millis(100));
        world.turn_of(0);
    }
    world.clients[at].stalled = false;
    world.settle();
    assert_eq!(world.clients[at].state, State::Open);
}

/// Two workers on one tape of 128 KiB: subscribers of `q` on the first, which is slow, and somebody who publishes on `z` on the
/// second, more than the tape holds.
fn two_workers() -> (World, Vec<usize>, usize) {
    let (world, members, publisher, _) = two_workers_and(0);
    (world, members, publisher)
}

/// The same, and so many other clients of the second.
pub fn two_workers_and(others: usize) -> (World, Vec<usize>, usize, Vec<usize>) {
    let slow = Settings { turn_sends: 1, ..quiet() };
    let mut world = World::of(2, 3, slow, 4096, 128 * 1024);
    let members: Vec<usize> = (0..5).map(|_| world.connect_to(0, 1 << 20, || Speech::Json, &["q"])).collect();
    let publisher = world.connect_to(1, 1000, || raw("z"), &[]);
    let others = (0..others).map(|_| world.connect_to(1, 1 << 20, || Speech::Json, &[])).collect();
    world.settle();
    for _ in 0..400 {
        let body = world.body(Kind::Text, 1000);
        world.clients[publisher].publish("z", body, false);
    }
    world.publish_some("q", 1, 0);
    (world, members, publisher, others)
}

#[test]
fn a_publisher_does_not_lap_another_worker_whose_subscribers_keep_up() {
    let (mut world, members, publisher) = two_workers();
    for round in 0..2000 {
        // The first has a turn now and then.
        world.turn_of(usize::from(round % 10 != 0));
        world.kernel.advance(Duration::from_millis(1));
        if world.clients[publisher].publishing.is_empty() {
            break;
        }
    }
    assert!(world.clients[publisher].publishing.is_empty(), "it is let go on");
    world.settle();
    for at in members {
        assert_eq!(world.clients[at].state, State::Open);
        world.clients[at].check_complete(world.journal.len(), &world.journal, 0);
    }
    assert!(world.shared.metrics.held[metrics::Door::WebSocket].us.get() > 0, "it shows");
}

#[test]
fn whoever_publishes_little_does_not_wait_with_those_who_publish_much() {
    let (mut world, _, flood) = two_workers();
    world.much_was_published();
    for _ in 0..30 {
        world.turn_of(1);
    }
    world.address = "127.0.0.2";
    let market = world.connect_to(1, 1000, || raw("y"), &[]);
    for _ in 0..3 {
        let body = world.body(Kind::Text, 1000);
        world.clients[market].publish("y", body, false);
        world.turn_of(1);
        world.turn_of(1);
        assert!(world.clients[market].publishing.is_empty(), "it is taken in");
    }
    assert!(!world.clients[flood].publishing.is_empty(), "those are held back all the while");
}

#[test]
fn whoever_has_published_much_is_let_go_on_when_that_is_long_ago() {
    let (mut world, _, flood) = two_workers();
    world.much_was_published();
    for _ in 0..30 {
        world.turn_of(1);
    }
    let before = world.clients[flood].publishing.len();
    world.turn_of(1);
    assert_eq!(world.clients[flood].publishing.len(), before, "it is held back");
    // Half of the time after which a worker that takes no turn would not count any more.
    world.kernel.advance(Duration::from_millis(2500));
    for _ in 0..3 {
        world.turn_of(1);
    }
    assert!(world.clients[flood].publishing.len() < before);
}

#[test]
fn a_publisher_that_is_held_back_lets_its_worker_sleep() {
    let (mut world, _, publisher) = two_workers();
    for _ in 0..30 {
        world.turn_of(1);
    }
    assert!(!world.clients[publisher].publishing.is_empty(), "it is held back");
    assert!(world.kernel.asleep(1));
}

#[test]
fn a_worker_that_hangs_does_not_hold_publishers_back_for_ever() {
    let (mut world, _, publisher) = two_workers();
    for _ in 0..30 {
        world.turn_of(1);
    }
    assert!(!world.clients[publisher].publishing.is_empty());
    world.kernel.advance(Duration::from_secs(6));
    for _ in 0..100 {
        world.turn_of(1);
    }
    assert!(world.clients[publisher].publishing.is_empty());
}

#[test]
fn a_publisher_that_breaks_while_it_is_held_back_is_no_busy_loop_and_is_found_to_be_gone() {
    let (mut world, _, publisher) = two_workers();
    for _ in 0..30 {
        world.turn_of(1);
    }
    world.clients[publisher].peer.reset();
    world.clients[publisher].state = State::Left;
    for _ in 0..5 {
        world.turn_of(1);
    }
    assert!(world.kernel.asleep(1));
    world.pass(Duration::from_millis(100));
    assert!(world.clients[publisher].peer.dropped());
}
