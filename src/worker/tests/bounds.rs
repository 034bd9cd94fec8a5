//! What a turn may take, and what is given back after.

use super::*;

#[test]
fn an_unfinished_message_of_a_lost_connection_is_no_longer_counted() {
    let mut world = plain(settings());
    let at = world.subscriber(1000, &[]);
    world.clients[at].peer.write(&[0x81, 0xe4, 1, 2, 3, 4, b'a', b'b']);
    world.settle();
    assert!(world.shared.metrics.workers[0].assembly_bytes.get() > 0);
    world.clients[at].peer.end();
    world.clients[at].state = State::Left;
    world.settle();
    assert_eq!(world.shared.metrics.workers[0].assembly_bytes.get(), 0);
}

#[test]
fn answers_that_nobody_reads_are_bounded() {
    let mut world = plain(Settings { pending_max: 2000, ..settings() });
    let at = world.subscriber(50, &["q"]);
    world.clients[at].stalled = true;
    for _ in 0..200 {
        world.clients[at].control_ping(&[b'p'; 100]);
        world.settle();
    }
    assert!(world.clients[at].peer.dropped(), "it may make the server hold any number of pongs");
}

#[test]
fn a_publication_that_comes_just_before_sleep_is_not_slept_over() {
    let mut world = plain(Settings { flush_interval: Duration::from_millis(40), ..settings() });
    let at = world.subscriber(100_000, &["q"]);
    world.pass(Duration::from_millis(100));
    world.publish_some("q", 1, 0);
    world.settle();
    let (door, body) = (Door::new(world.tape.clone(), 128), world.body(Kind::Json, 0));
    world.published.push_back(("q".into(), body.clone()));
    world.kernel.meanwhile(move || {
        door.publish(By::SERVER, "q", Payload::Json(&body.bytes), About::default()).unwrap();
    });
    world.kernel.disturb(0);
    world.kernel.allow(Duration::from_millis(100));
    world.turn();
    assert!(!world.kernel.asleep(0));
    world.run();
    world.read_all(usize::MAX);
    world.clients[at].check_complete(2, &world.journal, 0);
}

#[test]
fn what_the_tables_are_told_for_the_first_subscriber_of_newest_values_is_shared_out_over_turns() {
    // Each turn is held to its allotment (`Worker::invariants`), which telling of all of these at once would be far beyond.
    const TOPICS: usize = 20_000;
    let mut world = World::new(1, Settings { pending_max: 16 << 20, ..settings() }, 1 << 16, 8 << 20);
    for n in 0..TOPICS {
        world.publish_some(&format!("q.{n}"), 1, 0);
    }
    world.settle();
    let wish = Wish { names: vec![">".into()], way: Way::Latest, snapshot: true, from: BTreeMap::new(), cursor: None };
    let at = world.connect_as(1 << 20, Speech::Json, wish);
    let mut turns = 0;
    while world.shared.metrics.workers[0].cohorts.get() == 0 {
        world.turn_of(0);
        world.read_all(usize::MAX);
        // What comes meanwhile is known as well.
        world.publish_some(&format!("q.{}", turns * 7 % TOPICS), 1, 0);
        turns += 1;
        assert!(turns < 1000, "it never begins");
    }
    assert!(turns > 1, "all of it is done in one turn");
    world.clients[at].stalled = true;
    world.publish_some("q.1", 300, 1000);
    world.settle();
    world.clients[at].stalled = false;
    world.settle();
    world.clients[at].check_complete(world.journal.len(), &world.journal, 0);
}

#[test]
fn a_cohort_of_many_does_not_keep_one_of_few_waiting() {
    let mut world = plain(Settings { turn_sends: 64, ..settings() });
    let crowd: Vec<usize> = (0..150).map(|_| world.subscriber(100_000, &["q"])).collect();
    let few = world.subscriber(100_000, &["z"]);
    world.publish_some("q", 1, 0);
    world.publish_some("z", 1, 0);
    let has = |world: &World, at: usize| world.clients[at].peer.arrived() > 0;
    assert!(!has(&world, few));
    let mut turns = 0;
    while !has(&world, few) {
        world.turn_of(0);
        turns += 1;
        assert!(turns < 3, "it waits for all the others");
    }
    assert!(crowd.iter().any(|at| !has(&world, *at)), "the others were not all served before");
    world.settle();
}

#[test]
fn what_all_members_are_still_to_be_sent_bounds_what_is_planned() {
    let mut world = plain(Settings { turn_sends: 1, ..settings() });
    let members: Vec<usize> = (0..30).map(|_| world.subscriber(100_000, &["q"])).collect();
    world.settle();
    world.publish_some("q", 8, 1000);
    world.turn_of(0);
    let fan = &world.posts[0].worker.fan;
    let is_all_planned = fan.planned_for_all() == world.tape.head();
    assert!(fan.is_crowded() && !is_all_planned, "30 KB each, and no more than 64 on their way");
    world.settle();
    for at in members {
        world.clients[at].check_complete(world.journal.len(), &world.journal, 0);
    }
}

/// Turns until this one is sent something, while not all is planned for the others.
fn turns_until_sent(world: &mut World, few: usize) -> usize {
    let mut turns = 0;
    while world.clients[few].peer.arrived() == 0 {
        world.turn_of(0);
        turns += 1;
        assert!(turns < 1000, "it is sent nothing");
    }
    assert!(world.posts[0].worker.fan.planned_for_all() < world.tape.head(), "all of it was planned before");
    turns
}

/// All of them get everything, and so does one that comes meanwhile.
fn check_all(world: &mut World, crowd: &[usize]) {
    let newcomer = world.subscriber(1 << 20, &["q"]);
    world.turn_of(0);
    world.publish_some("q", 2, 10);
    world.settle();
    assert_eq!(world.shared.metrics.workers[0].cohorts_trailing.get(), 0, "they have come to where the others are");
    assert_eq!(world.shared.metrics.workers[0].behind.get(), 0);
    let World { clients, journal, .. } = world;
    crowd.iter().chain([&newcomer]).for_each(|at| clients[*at].check_complete(journal.len(), journal, 0));
}

#[test]
fn a_crowd_that_is_owed_much_keeps_nobody_waiting_who_wants_something_else() {
    let mut world = World::new(1, Settings { turn_sends: 4, ..settings() }, 1 << 16, 1 << 20);
    let crowd: Vec<usize> = (0..60).map(|_| world.subscriber(1 << 20, &["q"])).collect();
    let few = world.subscriber(100_000, &["z"]);
    world.settle();
    world.publish_some("q", 40, 1000);
    world.publish_some("z", 1, 0);
    let turns = turns_until_sent(&mut world, few);
    assert!(turns <= 2, "{turns} turns");
    assert_eq!(world.shared.metrics.workers[0].cohorts_trailing.get(), 1);
    check_all(&mut world, &crowd);
}

#[test]
fn publications_for_many_cohorts_keep_nobody_waiting_who_wants_something_else() {
    let mut world = World::new(1, Settings { turn_sends: 64, turn_work: 4000, ..settings() }, 1 << 16, 1 << 20);
    let crowd: Vec<usize> = (0..60).map(|n| world.subscriber(1 << 20, &["q", &format!("own.{n}")])).collect();
    let few = world.subscriber(100_000, &["z"]);
    world.settle();
    world.publish_some("q", 100, 0);
    world.publish_some("z", 1, 0);
    let turns = turns_until_sent(&mut world, few);
    assert!(turns <= 6, "{turns} turns, and planning all takes thirty");
    assert_eq!(world.shared.metrics.workers[0].cohorts_trailing.get(), 60);
    check_all(&mut world, &crowd);
}

#[test]
fn a_cohort_that_leaves_while_others_trail_takes_nothing_from_them() {
    let mut world = World::new(1, Settings { turn_sends: 4, ..settings() }, 1 << 16, 1 << 20);
    let crowds =
        [["q", "r"], ["q", "s"]].map(|names| (0..60).map(|_| world.subscriber(1 << 20, &names)).collect::<Vec<_>>());
    world.settle();
    world.publish_some("q", 40, 1000);
    let trailing = |world: &World| world.shared.metrics.workers[0].cohorts_trailing.get();
    let mut turns = 0;
    while trailing(&world) < 2 {
        world.turn_of(0);
        turns += 1;
        assert!(turns < 100, "not both of them trail");
    }
    for at in &crowds[0] {
        world.clients[*at].state = State::Left;
        world.clients[*at].peer.reset();
    }
    while trailing(&world) > 1 {
        world.turn_of(0);
    }
    check_all(&mut world, &crowds[1]);
}

#[test]
fn those_who_are_owed_little_do_not_trail_with_those_who_are_owed_much() {
    let mut world = World::new(1, Settings { turn_sends: 4, ..settings() }, 1 << 16, 1 << 20);
    let crowd: Vec<usize> = (0..60).map(|_| world.subscriber(1 << 20, &["q"])).collect();
    let few = world.connect(100_000, Speech::Raw { topic: "z".into(), echo: true }, &[]);
    world.settle();
    world.clients[few].read(usize::MAX, &world.journal, 0);
    // It is owed one already when the next comes, and there is much on its way.
    for _ in 0..4 {
        world.publish_some("q", 10, 1000);
        world.publish_some("z", 1, 0);
    }
    turns_until_sent(&mut world, few);
    assert_eq!(world.shared.metrics.workers[0].cohorts_trailing.get(), 1);
    check_all(&mut world, &crowd);
    world.clients[few].check_complete(world.journal.len(), &world.journal, 0);
}

#[test]
fn subscribers_that_all_vanish_in_the_middle_of_a_round_leave_nothing_to_do() {
    let mut world = plain(Settings { turn_sends: 1, owed_max: 1, ..settings() });
    for _ in 0..3 {
        world.subscriber(100_000, &["q"]);
    }
    world.settle();
    world.publish_some("q", 3, 0);
    while !world.posts[0].worker.fan.owes() {
        world.kernel.allow(Duration::ZERO);
        world.turn();
    }
    for client in &mut world.clients {
        client.state = State::Left;
        client.peer.reset();
    }
    world.kernel.allow(Duration::ZERO);
    // Falls asleep, or the turns in which nothing moves are counted as a loop.
    world.run();
    assert!(!world.posts[0].worker.fan.is_crowded(), "publishers are read again");
}

#[test]
fn a_turn_takes_in_no_more_than_its_share_however_many_publish() {
    let mut world = World::new(1, settings(), 1 << 20, 16 << 20);
    let reader = world.subscriber(10 << 20, &["q"]);
    let publishers: Vec<usize> =
        (0..30).map(|_| world.connect(1000, Speech::Raw { topic: "q".into(), echo: false }, &[])).collect();
    world.settle();
    for at in publishers {
        for _ in 0..8 {
            let body = world.body(Kind::Text, 12_000);
            world.clients[at].publish("q", body, false);
        }
    }
    let received = |world: &World| world.shared.metrics.workers[0].received_bytes.get();
    let begun = received(&world);
    while received(&world) - begun < 30 * 8 * 12_000 {
        let before = received(&world);
        world.kernel.allow(Duration::ZERO);
        world.turn();
        assert!(received(&world) - before < (desk::READ_TURN_BYTES + desk::READ_BYTES) as u64);
    }
    world.settle();
    world.clients[reader].check_complete(240, &world.journal, 0);
}

#[test]
fn turns_that_leave_nothing_are_not_counted_as_turns_that_do() {
    let mut world = roomy(settings());
    let at = world.subscriber(100_000, &["q"]);
    let wish = Wish { names: vec!["q".into()], way: Way::Rate(2), snapshot: true, from: BTreeMap::new(), cursor: None };
    let slow = world.connect_as(300, Speech::Json, wish);
    world.clients[slow].pace = Some(100);
    for _ in 0..10 {
        world.publish_some("q", 3, 100);
        world.pass(Duration::from_secs(20));
    }
    world.clients[at].check_complete(world.journal.len(), &world.journal, 0);
    let metrics = &world.shared.metrics.workers[0];
    assert_eq!(metrics.put_off.each_ref().map(|figure| figure.get()), [0; 7]);
}

#[test]
fn connections_and_rates_that_come_and_go_leave_no_timers_behind() {
    let mut world = plain(Settings { idle_timeout: Duration::ZERO, ..settings() });
    let stays = world.subscriber(100_000, &["q"]);
    for rate in 1..=40 {
        let wish =
            Wish { names: vec!["q".into()], way: Way::Rate(rate), snapshot: true, from: BTreeMap::new(), cursor: None };
        let guest = world.connect_as(100_000, Speech::Json, wish);
        world.settle();
        world.publish_some("q", 1, 0);
        world.settle();
        assert_eq!(world.posts[0].worker.fan.interest.ticks(), 1, "the rate has something to send");
        world.clients[guest].peer.end();
        world.clients[guest].state = State::Left;
        world.settle();
        assert_eq!((world.posts[0].worker.desk.timers.len(), world.posts[0].worker.fan.interest.ticks()), (1, 0));
    }
    world.clients[stays].check_complete(40, &world.journal, 0);
}

#[test]
fn buffers_and_tables_give_their_room_back_once_what_was_large_has_gone() {
    let quiet = Settings { heartbeat: Duration::ZERO, idle_timeout: Duration::ZERO, ..settings() };
    let mut world = World::new(1, quiet, 1 << 20, 16 << 20);
    world.limits = Limits::of_connections(5000);
    let wish =
        Wish { names: vec!["q.*".into()], way: Way::Rate(4), snapshot: true, from: BTreeMap::new(), cursor: None };
    world.connect_as(8 << 20, Speech::Json, wish);
    world.settle();
    for n in 0..50 {
        world.publish_some(&format!("q.{n}"), 1, 12_000);
    }
    world.settle();
    // The tick comes, and the buffer for it is a large one.
    world.pass(Duration::from_millis(250));
    for _ in 0..60 {
        let guests: Vec<Peer> = (0..50).map(|_| world.hand_over(1000).0).collect();
        world.strays.extend(guests);
        world.kernel.allow(Duration::ZERO);
        world.turn();
    }
    for stray in &world.strays {
        stray.end();
    }
    assert!(world.posts[0].worker.connections.room() > 3000);
    while world.posts[0].worker.connections.len() > 1 {
        world.kernel.allow(Duration::ZERO);
        world.turn();
    }
    assert!(world.posts[0].worker.has_slack());
    // Nothing happens any more, and yet.
    world.pass(Duration::from_millis(600));
    let worker = &world.posts[0].worker;
    assert!(!worker.has_slack());
    let places = worker.connections.room();
    assert!(places < 100, "{places} places for one connection");
}

#[test]
fn answers_that_were_taken_give_their_room_back_before_the_last_of_them_is() {
    let mut world = World::new(1, Settings { message_max: 1 << 20, ..settings() }, 2 << 20, 8 << 20);
    world.publish_some("q", 1, 500_000);
    world.connect(5000, Speech::Json, &["q"]);
    world.kernel.allow(Duration::ZERO);
    world.turn();
    let connection = |world: &World| {
        let (_, connection) = world.posts[0].worker.connections.iter().next().unwrap();
        (connection.out.len(), connection.out.held())
    };
    let mut rests = 0;
    for _ in 0..1000 {
        world.read_all(usize::MAX);
        world.kernel.allow(Duration::ZERO);
        world.turn();
        let (len, room) = connection(&world);
        if (1..100_000).contains(&len) {
            rests += 1;
            assert!(room <= 4 * len + 4096, "room for {room} with {len} to be sent");
        }
    }
    assert!(rests > 0, "it was sent everything at once");
}

#[test]
fn a_greeting_that_is_more_than_may_wait_ends_its_own_connection_and_nobody_else() {
    for bound in (1..600).step_by(7) {
        let mut world = plain(Settings { pending_max: bound, ..settings() });
        let wish = Wish { names: vec!["q".into()], way: Way::All, snapshot: true, from: BTreeMap::new(), cursor: None };
        let guests = [Speech::Json, Speech::Events, Speech::Raw { topic: "q".into(), echo: true }]
            .map(|speech| world.connect_as(100_000, speech, wish.clone()));
        for at in guests {
            world.clients[at].overslept = true;
        }
        world.settle();
        assert!(world.alive(), "{bound}");
    }
}
