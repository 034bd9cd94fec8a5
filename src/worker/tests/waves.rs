//! Thousands for whom the same is due at once: however many they are, no turn is long, and everybody is seen to.

use super::*;
use crate::worker::work::{Step, price};

const COUNT: usize = 2000;

impl World {
    /// So many clients that are connected and say nothing.
    fn crowd(&mut self, count: usize) {
        self.limits = Limits::of_connections(count);
        let metrics = Arc::clone(&self.shared.metrics);
        for n in 0..count as u64 {
            self.connect(1000, Speech::Json, &[]);
            // So many are never all quiet at once, and the worker never sleeps.
            while metrics.workers[0].upgrades.get() <= n {
                self.posts[0].worker.turn();
            }
        }
        while metrics.workers[0].pending_bytes.get() > 0 {
            self.posts[0].worker.turn();
        }
    }

    /// One turn, which may not be a long one. Returns how often it has called `send`, and whether it was the last one.
    fn short_turn(&mut self) -> (u64, bool) {
        let before = self.sends();
        let worker = &mut self.posts[0].worker;
        let goes_on = worker.turn();
        let Ground { work, settings, .. } = &worker.ground;
        for (step, spent) in Step::ALL.into_iter().zip(work.spent()) {
            let most = step.allotment(settings.turn_work, settings.turn_sends) + 10 * price::SEND;
            assert!(spent <= most, "{step:?} costs {spent} in one turn, of {most}");
        }
        (self.sends() - before, !goes_on)
    }

    fn sends(&self) -> u64 {
        self.shared.metrics.workers[0].sends.get()
    }

    /// Sends that one turn can pay for, when it looks after connections and when it reads.
    fn sends_max(&self) -> u64 {
        let Ground { settings, .. } = &self.posts[0].worker.ground;
        let of = |step: Step| step.allotment(settings.turn_work, settings.turn_sends) / price::SEND + 2;
        of(Step::LookAfter) + of(Step::Read)
    }
}

/// How many bytes of frames come in each tenth of a period, the first after `from`, until that and the period are over.
fn by_tenth(world: &mut World, from: Duration, period: Duration) -> [u64; 10] {
    let begun = world.sends();
    let early = from - Duration::from_millis(100);
    world.kernel.advance(early);
    (0..10).for_each(|_| assert!(!world.short_turn().1));
    assert_eq!(world.sends(), begun, "nothing is due yet");
    world.kernel.advance(Duration::from_millis(100));
    std::array::from_fn(|_| {
        let before = world.sends();
        for _ in 0..10 {
            world.kernel.advance(period / 100);
            (0..10).for_each(|_| assert!(world.short_turn().0 <= world.sends_max()));
        }
        world.sends() - before
    })
}

#[test]
fn pings_of_thousands_that_came_together_are_spread_and_none_is_late() {
    let mut world = roomy(quiet());
    world.crowd(COUNT);
    // Half of 60 s is when they are due at the latest, and from half of that on at the earliest.
    let pings = by_tenth(&mut world, Duration::from_secs(15), Duration::from_millis(15_200));
    let all: u64 = pings.iter().sum();
    // A socket that is full once is tried again.
    assert!((COUNT as u64..COUNT as u64 * 3 / 2).contains(&all), "{pings:?}");
    assert!(pings.iter().all(|some| (120..300).contains(some)), "{pings:?}");
}

#[test]
fn heartbeats_of_thousands_that_were_sent_the_same_last_are_spread_and_stay_so() {
    let beat = Duration::from_secs(20);
    let mut world = roomy(Settings { heartbeat: beat, idle_timeout: Duration::ZERO, ..settings() });
    world.crowd(COUNT);
    let first = by_tenth(&mut world, beat / 2, beat / 2);
    let second = by_tenth(&mut world, beat / 2, beat / 2);
    for beats in [first, second] {
        // One that the socket takes in part is sent in two.
        let mean = beats.iter().sum::<u64>() / 10;
        assert!(mean >= 200 && beats.iter().all(|some| some.abs_diff(mean) < mean / 4), "{first:?} {second:?}");
    }
}

#[test]
fn timeouts_of_one_address_do_not_keep_those_of_another_waiting() {
    // Its timeout is the last of all, just behind the latest ping.
    let mut world = roomy(Settings { handshake_timeout: Duration::from_millis(30_900), ..quiet() });
    world.crowd(COUNT);
    let (socket, peer) = world.kernel.connect(1000);
    let address = "127.0.0.2".parse().unwrap();
    world.limits = Limits::of_connections(COUNT);
    let permit = world.limits.admit(Some(address), Moment::default()).unwrap();
    let arrival = Arrival {
        socket: tls::Socket::from(socket).into(),
        peer: "127.0.0.2:1".parse().unwrap(),
        permit,
        by: Listener::Clear,
        beginning: Beginning::Awaited,
    };
    assert!(world.posts[0].inbox.hand_over(arrival).is_ok());
    world.short_turn();
    // Its request never comes; the others' pings are all due by then.
    world.kernel.advance(Duration::from_secs(32));
    let mut turns = 0;
    while peer.arrived() == 0 {
        assert!(turns < 12, "it waits for all the others");
        world.short_turn();
        // It is read once more, and looked at again with the next tick.
        world.kernel.advance(Duration::from_millis(100));
        turns += 1;
    }
    assert!(world.sends() < 4 * COUNT as u64);
}

#[test]
fn thousands_are_told_that_the_server_stops_and_closed_over_many_turns() {
    let mut world = roomy(quiet());
    world.crowd(COUNT);
    for client in &mut world.clients {
        client.drained = true;
    }
    let until = Moment(world.kernel.now_ns()) + Duration::from_secs(8);
    world.posts[0].inbox.drain(until);
    let mut turns = 0;
    loop {
        let (sends, ended) = world.short_turn();
        assert!(sends <= world.sends_max(), "{sends} sends in one turn");
        if ended {
            break;
        }
        turns += 1;
        assert!(turns < 2000, "it doesn't stop");
        world.read_all(usize::MAX);
    }
    world.read_all(usize::MAX);
    assert!(turns > COUNT / 200, "{turns} turns");
    assert!(world.clients.iter().all(|client| client.state == State::Closed(1001)));
}

#[test]
fn whoever_has_not_come_to_the_end_of_its_snapshots_is_told_that_the_server_stops_before_it_goes() {
    for speech in [Speech::Json, Speech::Events] {
        let mut world = roomy(quiet());
        for n in 0..100 {
            world.publish_some(&format!("q.{n}"), 1, 2000);
        }
        let wish =
            Wish { names: vec!["q.>".into()], way: Way::All, snapshot: true, from: BTreeMap::new(), cursor: None };
        let at = world.connect_as(4000, speech, wish);
        (world.clients[at].stalled, world.clients[at].drained) = (true, true);
        world.settle();
        let until = Moment(world.kernel.now_ns()) + Duration::from_secs(8);
        world.posts[0].inbox.drain(until);
        world.pass(Duration::from_secs(9));
        world.clients[at].stalled = false;
        world.pass(Duration::from_secs(1));
        assert_eq!(world.clients[at].state, State::Closed(1001));
        assert!(world.clients[at].told_draining);
    }
}

#[test]
fn a_drain_ends_in_time_though_nobody_reads() {
    let mut world = roomy(quiet());
    world.crowd(200);
    world.limits = Limits::of_connections(20);
    for _ in 0..20 {
        world.connect(50, Speech::Json, &["q"]);
    }
    (0..50).for_each(|_| assert!(!world.short_turn().1));
    let until = Moment(world.kernel.now_ns()) + Duration::from_secs(8);
    world.posts[0].inbox.drain(until);
    (0..50).for_each(|_| assert!(!world.short_turn().1));
    // Some have not taken what they are told; they are given up when the time is up, and a close timeout later.
    world.kernel.advance(Duration::from_secs(9));
    (0..50).for_each(|_| assert!(!world.short_turn().1));
    world.kernel.advance(Duration::from_secs(6));
    let mut turns = 0;
    while !world.short_turn().1 {
        turns += 1;
        assert!(turns < 50, "it doesn't stop");
    }
}

#[test]
fn thousands_that_break_the_rules_at_once_are_each_told_why_and_no_turn_is_long() {
    let mut world = roomy(quiet());
    world.crowd(COUNT);
    for client in &mut world.clients {
        // Frames of clients are masked.
        client.peer.write(&[0x81, 1, b'x']);
        client.closing = Some(1002);
    }
    let ended = |world: &World| world.clients.iter().filter(|client| client.state == State::Closed(1002)).count();
    let mut turns = 0;
    while ended(&world) < COUNT {
        assert!(world.short_turn().0 <= world.sends_max());
        world.read_all(usize::MAX);
        turns += 1;
        assert!(turns < 1000, "{} were told", ended(&world));
    }
    assert!(turns > COUNT / 200, "{turns} turns");
}

#[test]
fn those_that_leave_with_many_names_are_taken_apart_over_turns_and_are_counted_until_then() {
    const NAMES: usize = 100;
    let mut world = roomy(quiet());
    for n in 0..40 {
        let names: Vec<String> = (0..NAMES).map(|name| format!("own.{n}.{name}")).collect();
        world.subscriber(100_000, &names.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let account = world.limits.account("127.0.0.1".parse().unwrap(), Moment::default());
    assert_eq!((world.shared.subscriptions.total(), account.used(Table::Subscriptions)), (4000, 4000));
    for client in &mut world.clients {
        client.peer.reset();
        client.state = State::Left;
    }
    let (mut turns, mut before) = (0, 4000);
    while before > 0 {
        let worker = &mut world.posts[0].worker;
        worker.turn();
        worker.invariants();
        let total = world.shared.subscriptions.total();
        let names = (before - total) / NAMES;
        assert!(
            names as u64 * 2 * NAMES as u64 * price::NAME <= 38_100 + 2 * NAMES as u64 * price::NAME,
            "{names} at once"
        );
        assert_eq!(account.used(Table::Subscriptions), total, "what is counted for all is counted for the address");
        (before, turns) = (total, turns + 1);
        assert!(turns < 100);
    }
    assert!(turns >= 10, "{turns} turns");
    world.settle();
    world.check_nothing_left();
}
